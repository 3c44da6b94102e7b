"""Coverage-guided fuzzing of what reads strangers' bytes: see `targets` for what must hold, `__main__` for how to run it."""

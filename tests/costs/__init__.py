"""How what each public operation executes grows with its input. See `operations.py` and docs/growth.md."""

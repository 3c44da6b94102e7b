"""Decisions before and after a change: the same questions to two states of the package. See `__main__`."""

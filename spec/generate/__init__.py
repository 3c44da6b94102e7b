"""What writes `spec/vectors/` and the token that opens `spec/captoken-v1.md`: `python -m spec.generate`, from the root.

Deterministic, so that a test can say that the files are what these scripts write. The vectors are built by `build`, from
the standard library alone, and each outcome is written by hand in the tables; captoken is asked for nothing but the one
token of the opening, which `anatomy` mints with it and takes apart.
"""

"""What writes `spec/vectors/` and what `spec/captoken-v1.md` shows byte by byte: `python -m spec.generate`, from the root.

Deterministic, so that a test can say that the files are what these scripts write. The vectors are built by `build`, from
the standard library and libsodium alone, and each outcome is written by hand in the tables; captoken is asked for nothing
but what the text shows, which `anatomy` makes with it and takes apart.
"""

"""One suite for every store of used proofs; `conftest.py` says how another store joins it."""

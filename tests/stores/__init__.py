"""One suite for every store, on real servers; `conftest.py` says how another kind joins it."""

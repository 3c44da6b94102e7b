"""How fast and how large captoken is, beside its peers. `python -m tests.benchmarks`; see README.md."""

"""A second reading of the design, by another hand: `evaluator.py`. Nothing here imports captoken."""

"""A second reading of the design and the specification, by another hand: `evaluator.py`, which imports nothing of captoken.
`world.py` and `holders.py` make what it and captoken are asked about."""

"""A hostile host: the real runtime of each framework, driven by a scripted model, and judged from outside (`world.py`)."""

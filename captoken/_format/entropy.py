"""Randomness, asked of the system anew each time, so that it is safe after a fork.

A file of its own: nothing else of the core draws any, and nothing else of this room imports `os`.
Whoever needs random bytes takes a source as an argument, with this one as its default. Tests give
another, so that what they make is the same each time.
"""

from __future__ import annotations

import os

random_bytes = os.urandom

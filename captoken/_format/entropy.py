"""Randomness, asked of the system anew each time: safe after a fork. A file of its own, since nothing else draws any."""

from __future__ import annotations

import os

random_bytes = os.urandom  # asked anew each time: safe after fork

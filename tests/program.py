"""The command line of the tree that these tests stand in, whatever is installed beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent

# Of the process: it goes with it. Each worker of pytest has one.
_held = TemporaryDirectory(prefix="captoken-tests-")
# A folder for PATH, with the script in it and nothing else.
SCRIPTS = _held.name
CAPTOKEN = str(Path(SCRIPTS, "captoken"))

# A script for a shell and for Python at once, as pip writes it: a path with spaces is good in it.
Path(CAPTOKEN).write_text(
    f"""#!/bin/sh
'''exec' "{sys.executable}" "$0" "$@"
' '''
import sys
sys.path[0] = {str(ROOT)!r}
from captoken.cli import main
if __name__ == "__main__":
    sys.exit(main())
""",
    "utf-8",
)
Path(CAPTOKEN).chmod(0o755)

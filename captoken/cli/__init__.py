"""The command line: `captoken --help` lists the commands.

Secrets (keys, tokens, discharges, proofs) come from files or standard input, never from the
arguments, which others can read; public keys are no secrets. Only what was asked for goes to
standard output. Exit 0 is allowed, 1 denied, 2 usage or bad input. Needs the extra `cli`.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line and exit."""
    if any(find_spec(package) is None for package in ("click", "rich")):
        print(
            "captoken: the command line needs an extra: pip install 'captoken[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    from captoken.cli.app import run  # here, since it needs the extra

    sys.exit(run())

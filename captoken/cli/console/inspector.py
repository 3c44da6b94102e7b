"""The inspector: one file that takes a token apart in a browser, and that nothing leaves.

It is built beforehand from `web/src/inspector` and the port to TypeScript. Its script and its style
stand in it, and a policy in its head allows these two by their hashes, and nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path

NAME = "inspector.html"
_FILE = Path(__file__).with_name("static") / NAME
_policy_in = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"<]+)">').search


def page() -> str:
    """The file, in ASCII. Raises OSError where the package was installed without it."""
    return _FILE.read_text(encoding="ascii")


def policy(text: str) -> str:
    """The policy that stands in the page, for a server that sends it as a header too.

    Raises ValueError for a page without one: it is never served open.
    """
    found = _policy_in(text)
    if found is None:
        raise ValueError("the inspector has no policy in its head")
    return found[1]

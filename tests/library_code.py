"""Whose code is it, the library's or the tests'? Told by the folder that was imported: a checkout may have any name."""

from __future__ import annotations

import os
from types import CodeType

import captoken

FOLDER = os.path.dirname(captoken.__file__)


def is_library_code(code: CodeType, *within: str) -> bool:
    """Is it code of captoken, or of the package `within` it? Quick: a profiler asks it at every step."""
    return code.co_filename.startswith(os.path.join(FOLDER, *within, ""))

"""What is run with: `python -m tests.versions`, by the Python of an environment.

`with: ` the Python, its SQLite and the libraries of the core; `beside: ` what else pyproject.toml names, and what nothing else there
asks for. `python tests/versions.py` says so of an environment that has no captoken.
"""

from __future__ import annotations

import platform
import re
import sqlite3
from importlib import metadata

_TOOLS = {"captoken", "pip", "setuptools"}


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()  # type: ignore[index]


def found() -> tuple[list[str], list[str]]:
    """Both, each with its version."""
    asked: dict[str, list[str]] = {}  # by distribution: what it asks for
    versions: dict[str, str] = {}
    for one in metadata.distributions():
        name = _name(one.metadata["Name"])
        asked[name], versions[name] = one.requires or [], one.version
    own = asked.pop("captoken", [])
    core, named = [_name(each) for each in own if "extra ==" not in each], {_name(each) for each in own}
    brought = {_name(each) for requirements in asked.values() for each in requirements}
    others = sorted((versions.keys() & named | versions.keys() - brought) - {*core, *_TOOLS})
    python = [f"{platform.python_implementation()} {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    return python + [f"{name} {versions[name]}" for name in core], [f"{name} {versions[name]}" for name in others]


if __name__ == "__main__":
    for label, versions in zip(("with", "beside"), found(), strict=True):
        print(f"{label}: {', '.join(versions)}")

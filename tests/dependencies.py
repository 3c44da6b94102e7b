"""The page that says of each package what it is for, under which licence it stands, and how alive it is.

`python -m tests.dependencies --page` writes it, of `dependencies.toml` and pyproject.toml. `--released INDEX` asks that index, as PyPI's
`…/simple`, for the newest stable release of each package, and its day, and writes them to `released.json`: that alone reaches out of the
machine.
"""

from __future__ import annotations

import json
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

from .licences import EXTRAS, PROJECT

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/dependencies.md"
RELEASED = HERE / "released.json"
WHY: dict[str, dict[str, str]] = tomllib.loads((HERE / "dependencies.toml").read_text("utf-8"))
NOT_FOR_USERS = {"bench", "docs", "servers", "test", "all"}  # extras of this repository, and the sum of the others
_BEGIN, _END = "<!-- begin: packages -->\n", "<!-- end -->\n"


class Asked(NamedTuple):
    """A package that captoken asks for by name: by which extras ("" is captoken itself), and from which version on."""

    name: str
    extras: list[str]
    versions: str


def asked_on() -> date:
    """When the newest releases were asked for."""
    return date.fromisoformat(json.loads(RELEASED.read_text("utf-8"))["asked"])


def asked() -> Iterator[Asked]:
    """Each of them once, captoken's own first."""
    found: dict[str, Asked] = {}
    for extra, requirements in {"": PROJECT["dependencies"], **EXTRAS}.items():
        for one in map(Requirement, requirements):
            name = canonicalize_name(one.name)
            if extra in NOT_FOR_USERS or name == "captoken":
                continue
            lower = ",".join(sorted(map(str, one.specifier), reverse=True))
            known = found.setdefault(name, Asked(name, [], lower))
            known.extras.append(extra)
    yield from found.values()


def table() -> str:
    """The packages, a line each."""
    released = json.loads(RELEASED.read_text("utf-8"))
    lines = ["| package | versions | asked for by | licence | what it is for | instead of | newest release |", f"|{' --- |' * 7}"]
    for one in asked():
        why, newest = WHY[one.name], released["packages"][one.name]
        by = ", ".join(f"`{extra}`" if extra else "captoken itself" for extra in one.extras)
        lines.append(
            f"| {one.name} | {one.versions} | {by} | {why['licence']} | {why['for']} | {why['instead']} | "
            f"{newest['version']}, {newest['day']} |"
        )
    return "\n".join((*lines, "", f"PyPI was asked on {released['asked']}.", ""))


def page(text: str) -> str:
    """The text of the page with the table of now."""
    before, rest = text.split(_BEGIN)
    return before + _BEGIN + table() + _END + rest.split(_END)[1]


def newest(name: str, index: str) -> dict[str, str]:
    """The newest stable release of a package at an index, and the day of its first file."""
    request = urllib.request.Request(f"{index.rstrip('/')}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        files: list[dict[str, Any]] = json.load(answer)["files"]
    days: dict[Version, str] = {}
    for each in files:
        file = each["filename"]
        if each["yanked"]:
            continue
        try:
            version = (parse_wheel_filename if file.endswith(".whl") else parse_sdist_filename)(file)[1]
        except (InvalidSdistFilename, InvalidWheelFilename):
            continue  # of an old format
        days[version] = min(each["upload-time"][:10], days.get(version, "9"))
    last = max(version for version in days if not version.is_prerelease)
    return {"version": str(last), "day": days[last]}


def main(arguments: list[str]) -> None:
    if "--released" in arguments:
        index = arguments[arguments.index("--released") + 1]
        packages = {one.name: newest(one.name, index) for one in asked()}
        now = datetime.now(UTC).date().isoformat()
        RELEASED.write_text(json.dumps({"asked": now, "packages": packages}, indent=1, sort_keys=True) + "\n", "utf-8")
    if "--page" in arguments:
        PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

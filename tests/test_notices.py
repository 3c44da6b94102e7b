"""What the wheel brings of others comes with what their authors ask to be said."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTICE = (ROOT / "NOTICE").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def locked(folder: str) -> dict[str, tuple[str, str]]:
    """The packages of npm that a folder asks for: version and licence."""
    asked = json.loads((ROOT / folder / "package.json").read_text("utf-8"))["dependencies"]
    lock = json.loads((ROOT / folder / "package-lock.json").read_text("utf-8"))["packages"]
    return {name: (lock[f"node_modules/{name}"]["version"], lock[f"node_modules/{name}"]["license"]) for name in asked}


BUNDLED = {**locked("web"), **locked("ports/typescript")}
INSPECTOR = (ROOT / "captoken/cli/console/static/inspector.html").read_text("utf-8")
TERMS = {
    "MIT": "The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.",
    "ISC": "provided that the above copyright notice and this permission notice appear in all copies.",
}


@pytest.mark.parametrize("name", BUNDLED)
def test_what_is_in_the_pages_has_its_notice(name: str) -> None:
    """Its version, who holds its copyright, and its terms: `npm run build` in `web` writes them, of what it put into the pages."""
    version, licence = BUNDLED[name]
    assert re.search(rf"^{re.escape(name)} {re.escape(version)}\nCopyright (\(c\) )?20\d\d.+ \w+", NOTICE, re.MULTILINE)
    assert TERMS[licence] in re.sub(r"\s+", " ", NOTICE)


def test_the_inspector_has_its_notices_itself() -> None:
    """It is one file, which `captoken inspect --html` gives away without the rest."""
    comment = re.match(r"<!doctype html>\n<!--\n(.+?)\n-->\n<html ", INSPECTOR, re.DOTALL)
    assert comment is not None
    inside = [name for name in BUNDLED if f"\n{name} {BUNDLED[name][0]}\nCopyright" in comment[1]]
    assert inside == ["preact", *locked("ports/typescript")]
    assert TERMS["MIT"] in re.sub(r"\s+", " ", comment[1])


def test_the_package_says_what_is_in_it() -> None:
    assert PROJECT["project"]["license-files"] == ["LICENSE", "NOTICE"]
    assert set(PROJECT["project"]["license"].split(" AND ")) == {"Apache-2.0", *(licence for _, licence in BUNDLED.values())}
    assert {"LICENSE", "NOTICE"} <= set(PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])


def test_the_package_for_npm_brings_its_licence() -> None:
    """npm takes the file that lies beside package.json, and no other."""
    assert (ROOT / "ports/typescript/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()

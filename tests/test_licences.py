"""What an extra brings stands under licences that a list has, however far away it comes from.

The extras that have environments of their own are looked at there: `.ci/versions` runs this file in each.
"""

from __future__ import annotations

import re
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from . import licences
from .licences import EXTRAS, OTHERS, PERMISSIVE, VAGUE

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/licences.md").read_text("utf-8")

# What is installed here. "" is captoken itself.
HERE = ["", *filter(licences.is_here, EXTRAS)]


@pytest.mark.parametrize("extra", HERE, ids=lambda extra: extra or "captoken")
def test_what_comes_with_an_extra_stands_under_a_licence_of_the_list(extra: str) -> None:
    """However far away it comes from."""
    found = licences.of_extra(extra)
    assert [f"{name}: {said}" for name, said in found.items() if isinstance(said, str)] == []
    assert len(found) > (2 if extra == "" else 0)


def test_the_extras_that_people_install_are_looked_at() -> None:
    """All of them here, where the tests have all; and one by one where each has an environment of its own."""
    asked = {"all", "test"} if licences.is_here("all") else set()
    assert asked <= set(HERE) and len(HERE) > 1
    assert {name for one in EXTRAS["all"] for name in re.findall(r"[\w-]+", one)[1:]} == set(EXTRAS) - {
        "all", "bench", "docs", "servers", "test", "google-adk", "claude-agent", "envoy",
    }  # fmt: skip


def about(name: str, **lines: Any) -> Any:
    """The metadata of a package, as it lies in its wheel."""
    message = Message()
    message["Name"] = name
    for key, values in lines.items():
        for value in values if isinstance(values, list) else [values]:
            message[key.replace("_", "-")] = value
    return message


OSI = "License :: OSI Approved :: "


@pytest.mark.parametrize(
    ("package", "found"),
    [
        (about("x", License_Expression="MIT"), {"MIT"}),
        (about("x", License_Expression="GPL-3.0-or-later"), None),
        (about("x", License_Expression="AGPL-3.0-only"), None),
        (about("x", License_Expression="MIT OR GPL-3.0-only"), {"MIT"}),
        (about("x", License_Expression="GPL-2.0-only OR (MIT AND ISC)"), {"MIT", "ISC"}),
        (about("x", License_Expression="MIT AND GPL-3.0-only"), None),
        (about("x", License_Expression="(MIT OR Apache-2.0) AND BSD-3-Clause"), {"MIT", "BSD-3-Clause"}),
        (about("x", License_Expression="GPL-2.0-only WITH Classpath-exception-2.0"), None),
        (about("x", License_Expression="LicenseRef-Proprietary"), None),
        (about("x", License_Expression="MIT)"), None),
        (about("x", License_Expression="(MIT"), None),
        (about("x", License_Expression="MIT AND"), None),
        # The expression alone counts, where there is one.
        (about("x", License_Expression="GPL-3.0-only", License="MIT", Classifier=[OSI + "MIT License"]), None),
        (about("x", License="Apache 2.0"), {"Apache-2.0"}),
        (about("x", License="MIT OR Apache-2.0", Classifier=[OSI + "MIT License", OSI + "Apache Software License"]), {"MIT", "Apache-2.0"}),
        (about("x", License="MIT", Classifier=[OSI + "GNU General Public License v3 (GPLv3)"]), None),
        (about("x", License="GPL-3.0", Classifier=[OSI + "MIT License"]), None),
        (about("x", Classifier=["Topic :: Security", OSI + "ISC License (ISCL)"]), {"ISC"}),
        (about("x", Classifier=["License :: Other/Proprietary License"]), None),
        (about("x", License="The whole text\n of a licence", Classifier=[OSI + "MIT License"]), {"MIT"}),
        (about("x", License="The whole text\n of a licence"), None),
        (about("x", License="BSD"), None),
        (about("x", Classifier=[OSI + "BSD License"]), None),
        (about("x"), None),
        # By name, and only as long as it says the same.
        (about("pyperclip", License="BSD", Classifier=[OSI + "BSD License"]), {"BSD-3-Clause"}),
        (about("pyperclip", License="GPL-3.0", Classifier=[OSI + "BSD License"]), None),
        (about("certifi", License="MPL-2.0"), {"MPL-2.0"}),
        (about("certifi", License="GPL-3.0-only"), None),
        (about("x", License="MPL-2.0"), None),
        (about("Psycopg", License_Expression="LGPL-3.0-only"), {"LGPL-3.0-only"}),
        (about("x", License_Expression="LGPL-3.0-only"), None),
    ],
)
def test_a_licence_that_is_on_no_list_is_found(package: Any, found: set[str] | None) -> None:
    name = package["Name"].lower()
    assert licences.licences(licences.stated(package), also=OTHERS.get(name, ())[:1]) == found


def test_no_list_has_a_licence_that_asks_for_the_source_of_what_is_built_on_it() -> None:
    """Each other one, and each that its metadata does not say, is there by name and with the reason."""
    for name in PERMISSIVE:
        assert not re.search("GPL|MPL|EPL|EUPL|CC-BY|SSPL|BUSL", name)
    assert all(re.fullmatch(r"MPL-2\.0|LGPL-3\.0-only", licence) and len(why) > 10 for licence, why in OTHERS.values())
    assert all(licence in PERMISSIVE and len(why) > 10 for _, licence, why in VAGUE.values())


# --- the page ---


def test_the_page_says_which_licences_come_with_which_extra() -> None:
    """A row for each that people install; and in it, by name, whatever is not of the short list."""
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", PAGE, re.MULTILINE))
    assert rows.keys() == set(EXTRAS) - {"all", "bench", "docs", "servers", "test"}
    for extra in rows.keys() & set(HERE):
        others = {name for name in licences.of_extra(extra) if name in OTHERS}
        said = re.findall(r"([\w-]+) \(([\w.-]+)\)", rows[extra])
        assert dict(said) == {name: OTHERS[name][0] for name in others}, extra


def test_the_page_has_the_short_list() -> None:
    (listed,) = re.findall(r"^The short list: (.+)\.$", PAGE, re.MULTILINE)
    assert set(listed.split(", ")) == PERMISSIVE

"""Scenarios in a file: calls that come one after the other, links, and mistakes with their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captoken.caveats import Caveat, Vocabulary
from captoken.testing import read_scenarios, scenarios_of
from tests.test_testing import CALL, HEAD, SALES


def codes(text: str, **facts: Any) -> list[str]:
    (scenario,) = scenarios_of(text, **facts)
    return [outcome.code for outcome in scenario.run()]


def test_calls_come_one_after_the_other_and_are_counted() -> None:
    """By one clock: seconds since the mint, or a text with units."""
    calls = CALL + 'code = "allowed"\n' + CALL + 'after = "9m"\ncode = "allowed"\n' + CALL + 'code = "budget_exhausted"\n' + CALL + 'after = 600\ncode = "expired"\n'
    (scenario,) = scenarios_of(SALES + calls)
    assert all(outcome.as_expected for outcome in scenario.run())
    assert scenario.run()[2].line.startswith("denied budget_exhausted: ")


def test_a_link_hands_on_or_narrows() -> None:
    links = '[[scenario.link]]\nto = "clerk"\ndepth = 0\n[[scenario.link]]\ntables = []\n'
    caller = 'code = "allowed"\ncaller = { agent = "clerk" }\n'
    assert codes(SALES + links + CALL + caller) == ["table"]
    assert codes(SALES + links.replace("tables = []", "not_before = 0") + CALL + caller) == ["allowed"]
    assert codes(SALES + CALL + caller) == ["caller"]


def test_a_verifier_may_have_a_name() -> None:
    token = HEAD + 'audience = "shop"\ntoken = {{ tools = {{ pay = {{}} }}, audience = "{}" }}\n[[scenario.call]]\ntool = "pay"\ncode = "allowed"\n'
    assert codes(token.format("shop")) == ["allowed"] and codes(token.format("other")) == ["wrong_audience"]


class Region(Caveat, frozen=True):
    """The access states this region."""

    key = "acme:region"

    def prohibits(self, access: Any, situation: Any) -> str | None:
        return None if access.attributes.get("region") == self.value else "another region"


def test_caveats_of_ones_own_are_known_by_a_vocabulary() -> None:
    text = HEAD + 'token = { unrestricted = true, "acme:region" = "eu" }\n[[scenario.call]]\ntool = "pay"\nattributes = { region = "eu" }\ncode = "allowed"\n'
    assert codes(text, vocabulary=Vocabulary(Region)) == ["allowed"]
    with pytest.raises(ValueError, match="its token or a link of it: "):
        codes(text)


MISTAKES = {
    "no TOML": ("captoken = ", "this is not TOML: look at end of document"),
    "another file": ('[tool.poetry]\nname = "x"\n', r"no file of scenarios: it has an unknown key 'tool'"),
    "another version": ("captoken = 2\nscenario = []", "scenarios of version 2, and 1 is known here"),
    "none": ("captoken = 1\nscenario = []", "no scenario is in it"),
    "no call": (SALES + "call = []", "scenario 'one' has no call"),
    "no such code": (SALES + CALL + 'code = "tables"', "scenario 'one', call 1: 'tables' is no code of a denial"),
    "half an access": (SALES + '[[scenario.call]]\ntable = "sales"\ncode = "table"', "call 1: table and operation go together"),
    "no time": (SALES + CALL + 'after = "soon"\ncode = "table"', "call 1: 'soon' is not a duration"),
    "no caller": (SALES + CALL + 'caller = { name = "x" }\ncode = "table"', "call 1: it has an unknown key 'name'"),
    "an unknown key": (SALES + CALL + 'codes = "table"', r"scenario\[0\]\.call\[0\] has an unknown key 'codes'"),
}


@pytest.mark.parametrize(("text", "told"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_file_is_told_with_its_place(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=told) as raised:
        read_scenarios(path)
    assert str(raised.value).startswith(f"'{path}': ")


@pytest.mark.parametrize("token", ["tables = ['sales']", "unrestricted = true, colour = 'red'", "tools = { pay = {} }, uses = 0.5"])
def test_a_token_that_cannot_be_made_is_told_with_its_scenario(token: str) -> None:
    (scenario,) = scenarios_of(HEAD + f"token = {{ {token} }}\n" + CALL + 'code = "allowed"\n')
    with pytest.raises(ValueError, match=r"^scenario 'one': its token or a link of it: "):
        scenario.run()

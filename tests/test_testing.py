"""What embedders test with: asserts that fail where nobody was asked, files of scenarios, and what each right is good for."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from captoken import Access, AsyncVerifier, Denied, Token, Verifier
from captoken.caveats import Caveat, Vocabulary
from captoken.testing import assert_allowed, assert_denied, read_scenarios, scenarios_of, under_narrower, watched
from captoken.tools import guarded_tool
from tests.fixtures import KEYRING, data, mint, tool, verifier

ROOT = Path(__file__).parent.parent
HR = data("hr")


# --- asserts --------------------------------------------------------------------------------------

ASKED: dict[str, Callable[[Token, Access], object]] = {
    "check": lambda token, access: verifier().check(token, access),
    "authorize, which raises": lambda token, access: verifier().authorize(token, access),
    "a grant": lambda token, access: verifier().authenticate(token).check(access),
    "a grant, several at once": lambda token, access: verifier().authenticate(token).check_all([data("sales"), access]),
    "an overlay is asked first": lambda token, access: verifier(overlay=lambda: None, allow_stale_overlay=True).check(token, access),
    "a trail": lambda token, access: verifier(audit=Recorder()).check(token, access),
    "asyncio": lambda token, access: asyncio.run(in_a_loop(token, access)),
    "a thread": lambda token, access: in_a_thread(lambda: verifier().check(token, access)),
}


class Recorder:
    def record(self, decision: object) -> None: ...

    def record_all(self, decisions: object) -> None: ...


async def in_a_loop(token: Token, access: Access) -> None:
    await AsyncVerifier(KEYRING, clock=verifier().clock).check(token, access)


def in_a_thread(call: Callable[[], object]) -> None:
    thread = Thread(target=call)
    thread.start()
    thread.join()


@pytest.mark.parametrize("asks", ASKED.values(), ids=ASKED)
def test_what_is_asked_in_a_block_is_seen(asks: Callable[[Token, Access], object]) -> None:
    """Whoever asks, whichever way; what is expected passes, and its opposite fails."""
    token = mint()
    with assert_denied(code="table") as seen:
        asks(token, HR)
    assert [one.code for one in seen.denied] == ["table"]
    with pytest.raises(AssertionError, match=r"expected allowed, and came table; decided here:\n(.|\n)*denied table: table hr is not among"), assert_allowed():
        asks(token, HR)
    with assert_allowed() as seen:
        asks(token, data("sales"))
    assert {one.code for one in seen.asked} == {"allowed"}
    with pytest.raises(AssertionError, match="expected table, and all was allowed"), assert_denied(code="table"):
        asks(token, data("sales"))
    with pytest.raises(AssertionError, match="expected column, and came table"), assert_denied(code="column"):
        asks(token, HR)


@pytest.mark.parametrize("expected", [lambda: assert_allowed(), lambda: assert_denied(code="table")], ids=["allowed", "denied"])
def test_a_block_in_which_nobody_is_asked_fails(expected: Callable[[], Any]) -> None:
    """So a route without a guard fails the test that was written for its guard."""
    token = mint()
    asks_nothing: dict[str, Callable[[], object]] = {
        "no verifier of this process was asked": lambda: None,
        "and no access was asked about": lambda: verifier().authenticate(token),
    }
    for told, call in asks_nothing.items():
        with pytest.raises(AssertionError, match=told), expected():
            call()
    for call in (lambda: verifier().explain(token, HR), lambda: verifier().authenticate(token).recheck()):
        with pytest.raises(AssertionError, match=r"was asked"), expected():
            call()


def test_a_denial_that_is_raised_ends_the_block_and_all_else_passes_through() -> None:
    token = mint()
    with pytest.raises(KeyError), assert_denied(code="table"):
        verifier().check(token, HR)
        raise KeyError
    with pytest.raises(KeyError), assert_allowed():
        raise KeyError
    with pytest.raises(AssertionError, match="came table") as told, assert_allowed():
        verifier().authorize(token, HR)
    assert isinstance(told.value.__cause__, Denied)
    elsewhere = Denied(verifier().check(token, HR))
    with assert_denied(code="table"):
        raise elsewhere


def test_a_decision_is_judged_by_itself_too() -> None:
    denied, allowed = verifier().check(mint(), HR), verifier().check(mint(), data("sales"))
    assert_denied(denied, code="table")
    assert_denied(Denied(denied), code="table")
    assert_allowed(allowed)
    with pytest.raises(AssertionError, match="came table"):
        assert_allowed(denied)
    with pytest.raises(AssertionError, match="all was allowed"):
        assert_denied(allowed, code="table")
    with pytest.raises(TypeError, match="a decision of a verifier is expected, not bool"):
        assert_allowed(True)  # type: ignore[arg-type]


def test_a_code_that_there_is_not_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"'tables' is no code of a denial, as docs/errors\.md lists them: did you mean table\?"):
        assert_denied(code="tables")
    with pytest.raises(ValueError, match=r"'xyzzy' is no code of a denial, as docs/errors\.md lists them$"):
        assert_denied(code="xyzzy")


def test_an_assert_that_asserts_nothing_says_so() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert_denied(code="table")
        gc.collect()
    assert [str(one.message) for one in told] == ["an assert without `with`, or a decision, asserts nothing"]


def test_blocks_nest_and_leave_nothing_behind() -> None:
    """Each sees what is decided in it; afterwards a verifier is as it was."""
    token = mint()
    with watched() as outer:
        verifier().check(token, HR)
        with watched() as inner:
            verifier().check(token, data("sales"))
    verifier().check(token, HR)
    assert [one.code for one in outer.decisions] == ["table", "allowed"] and [one.code for one in inner.decisions] == ["allowed"]
    assert inner.told().strip() == inner.decisions[0].line()
    assert "_judge_and_commit" not in vars(Verifier) and "_record_denial" not in vars(AsyncVerifier)


# --- narrower tokens ------------------------------------------------------------------------------


def test_each_right_is_taken_away_and_given_alone() -> None:
    """What is needed is told apart from what is only held."""
    asked = verifier()
    token = mint(tables=["sales", "hr"], operations=["select", "update"], tools={"pay": {"cents": {"max": 5}}, "mail": {}})

    def call(token: Token) -> None:
        grant = asked.authenticate(token)
        grant.authorize(data("sales"))
        grant.authorize(tool("pay", cents=3))

    report = under_narrower(token, call)
    assert report.needed == {"table sales", "operation select", "tool pay"} and not report.unguarded
    runs = {run.rights: run for run in report.runs}
    assert len(runs) == 2 + 2 * 6 and runs["without tool mail"].outcome == "done"
    assert runs["tool pay alone"].outcome == "domain" and runs["tool pay alone"].touched == ()
    assert runs["table sales alone"].touched == (data("sales"),) and isinstance(runs["nothing"].error, Denied)
    assert str(report).splitlines()[0] == "all of it                 done              select on sales, pay"


def test_rights_by_table_and_by_column_are_taken_away_one_by_one() -> None:
    asked = verifier()
    token = mint(allow={"sales": ["select", "update"]}, columns={"sales": ["region", "pay"]}, tools={"mail": {}})
    report = under_narrower(token, lambda token: asked.authorize(token, data("sales", "select", "region")))
    names = {run.rights for run in report.runs}
    assert report.needed >= {"column sales.region"} and {"without column sales.pay", "column sales.pay alone"} <= names
    split = mint(allow={"sales": ["select"], "hr": ["update"]})
    report = under_narrower(split, lambda token: asked.authorize(token, data("sales")))
    assert report.needed == {"select on table sales"}


def test_what_nobody_guards_is_seen() -> None:
    asked = verifier()

    @guarded_tool(asked)
    def pay(cents: int) -> None: ...

    token = mint(tools={"pay": {}, "mail": {}})
    assert under_narrower(token, lambda token: None).unguarded
    assert not under_narrower(token, lambda token: pay(1)).unguarded
    assert under_narrower(token, lambda token: {}[1]).runs[0].outcome == "KeyError"
    assert under_narrower(token, lambda token: verifier().check(token, HR)).runs[0].outcome == "domain"
    elsewhere = Denied(verifier().check(token, HR))

    def refused(token: Token) -> None:
        raise elsewhere

    assert under_narrower(token, refused).runs[0].outcome == "domain"


def test_a_coroutine_is_not_taken_for_done() -> None:
    async def call() -> None: ...

    with pytest.raises(TypeError, match=r"run it, as lambda token: asyncio\.run"):
        under_narrower(mint(), lambda token: call())

    class Awaited:
        def __await__(self) -> Any: ...

    with pytest.raises(TypeError, match="gave a coroutine"):
        under_narrower(mint(), lambda token: Awaited())


# --- scenarios ------------------------------------------------------------------------------------

HEAD = 'captoken = 1\n[[scenario]]\nname = "one"\n'
SALES = HEAD + 'token = { tables = ["sales"], operations = ["select"], uses = 2, expires_in = 600 }\n'
CALL = '[[scenario.call]]\ntable = "sales"\noperation = "select"\n'


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
    with pytest.raises(ValueError, match="its token: "):
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
    with pytest.raises(ValueError, match=r"^scenario 'one': its token: "):
        scenario.run()


# --- the plugin -----------------------------------------------------------------------------------

SUITE = """
from captoken import Access, current
from captoken.testing import assert_denied
import pytest

@pytest.fixture
def held(issuer, hold):
    return hold(issuer.mint(subject="user:jane", agent="a", task="t", tools={"pay": {}}, expires_in=60, uses=1))

def test_one(held, verifier, clock, keyring):
    pay = Access(tool="pay", arguments={})
    assert current.holding() is held and verifier.check(held.token, pay)
    with assert_denied(code="budget_exhausted"):
        verifier.check(held.token, pay)
    clock.advance(61)
    with assert_denied(code="expired"):
        verifier.check(held.token, pay)

def test_two():
    with pytest.raises(Exception, match="no token is current"):
        current.holding()
"""


def test_pytest_has_the_fixtures_and_runs_scenarios(tmp_path: Path) -> None:
    """Files that say that they are captoken's; another project's of that name only if it is asked for."""
    (tmp_path / "test_it.py").write_text(SUITE)
    good = "# of the shop\n" + SALES + CALL + 'code = "allowed"\n'
    (tmp_path / "scenarios.toml").write_text(good)
    (tmp_path / "shop_scenarios.toml").write_text(good.replace('"one"', '"two"').replace('"allowed"', '"table"'))
    (tmp_path / "their_scenarios.toml").write_text("title = 'of a game'\n")
    (tmp_path / "pyproject.toml").write_text("[tool.x]\n")
    ran = pytested(tmp_path)
    assert "1 failed, 3 passed" in ran, ran
    assert "call 1: expected table, and came allowed select on table sales" in ran and "captoken_pytest.py" not in ran
    ran = pytested(tmp_path, "their_scenarios.toml")
    assert "no file of scenarios" in ran and "1 error" in ran


def pytested(folder: Path, *arguments: str) -> str:
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "captoken_pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout


def test_the_plugin_loads_nothing_of_captoken() -> None:
    """It is loaded before coverage begins: what it loaded would look as if no test ran it."""
    script = "import sys, captoken_pytest; print([name for name in sys.modules if name.split('.')[0] == 'captoken'])"
    ran = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"

"""What the log says of denials, and the id by which one is found in the answer, the log and the trail."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import Any

import pytest

from captoken import Access, AsyncVerifier, Issuer, Keyring, Verifier, current
from captoken._verification.telling import answering, failed, quietly
from captoken.audit import AuditTrail
from captoken.errors import AuditError
from captoken.stores.memory import MemoryLedger
from captoken.testing import FixedClock
from captoken.tools import ToolGuard
from tests.fixtures import KEY, KEYRING, NOW, clock, data, mint, tool, verifier

SECRET = "4111-1111"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, "captoken")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def ids(lines: list[bytes]) -> list[str]:
    records = [json.loads(line) for written in lines for line in written.splitlines()]
    return [record["id"] for record in records if record["kind"] == "decision" and not record["allowed"]]


def test_a_denial_has_one_id_in_the_answer_the_log_and_the_trail_however_it_is_asked(said: Any) -> None:
    """A verifier, a grant, several accesses at once, an adapter's own denial, asyncio; an allowance and a dry run have none."""
    lines: list[bytes] = []
    asked = verifier(audit=AuditTrail(lines.append))
    text = mint().serialize()
    grant = asked.authenticate(text)
    answers = [
        asked.check(text, data("hr")),
        grant.check(data("hr")),
        asked.deny(text, "caller", "nobody"),
        grant.deny("tool", "none"),
    ]
    answers.append(grant.check_all([data("sales"), data("hr")]))
    answers.append(asyncio.run(_awaited(asked, text)))
    answers.append(asked.check("cap1_AAAA", data("hr")))
    assert ids(lines) == [one.id for one in answers] and len(set(ids(lines))) == len(answers)
    assert [line.partition("(decision ")[2][:12] for _, line in said()] == ids(lines)
    assert asked.check(text, data("sales")).id == asked.explain(text, data("hr")).id == grant.recheck((data("hr"),)).id == ""
    assert len(said()) == len(answers)


async def _awaited(asked: Verifier, text: str) -> Any:
    return await AsyncVerifier.over(asked).check(text, data("hr"))


def test_two_decisions_that_say_the_same_are_equal_whatever_their_ids() -> None:
    first, second = (verifier().check(mint(), data("hr")) for _ in range(2))
    assert first.id != second.id and first == second and (first != second) is False and first != verifier().check(mint(), data("other")) and first != "table"


def test_a_line_says_who_and_where_and_no_value(said: Any) -> None:
    """The subject, the task, the holders, the place; neither a token nor the value of an argument."""
    token = mint(tools={"pay": {"card": {"in": ["1"]}}}).delegate(to="clerk")
    text = token.serialize()
    with answering(lambda: "POST /pay\x1b[2J" + "x" * 500):
        verifier().check(text, tool("pay", card=SECRET))
    ((level, line),) = said()
    assert level == "INFO" and line.startswith("refused: argument: argument card of tool pay")
    assert "for user:jane, task task-123, orchestrator > clerk, POST /pay\\x1b[2Jxxx" in line and "\n" not in line
    assert SECRET not in line and text[-20:] not in line and len(line) < 600


def test_a_stranger_is_not_named(said: Any) -> None:
    """Before the signature holds, whatever a token says is anybody's word."""
    forged = Issuer(Keyring.from_keys({"k1": bytes(range(2, 34))}, current="k1"), clock=clock()).mint(
        subject="user:eve", agent="x", task="t", tables=["a"], operations=["select"]
    )
    verifier().check(forged.serialize(), data("a"))
    ((_, line),) = said()
    assert line.startswith("refused: bad_signature") and "eve" not in line


def _unknown_key() -> tuple[Verifier, Any]:
    return Verifier(Keyring.from_keys({"k2": KEY}, current="k2"), clock=(at := clock())), at


def _audience() -> tuple[Verifier, Any]:
    return verifier(audience="other", clock=(at := clock())), at


def _store() -> tuple[Verifier, Any]:
    def fails(record: bytes) -> None:
        raise OSError

    return verifier(audit=AuditTrail(fails), clock=(at := clock())), at


def _cost() -> tuple[Verifier, Any]:
    return verifier(ledger=MemoryLedger(shared=True, floor=0), clock=(at := clock())), at


def _overlay() -> tuple[Verifier, Any]:
    return verifier(overlay=lambda: None, clock=(at := clock())), at


CAUSES: dict[str, Any] = {
    "unknown_key": (
        _unknown_key,
        "does this server have the issuer's keyring? If its keys are for one audience only, mint "
        "with `Issuer(keyring.for_audience(…))`: `mint(audience=…)` uses the issuer's own key",
    ),
    "unaddressed": (_audience, "do clients send what `present(audience=…)` returns?"),
    "store_unavailable": (_store, "may this server write to them?"),
    "cost_unstated": (_cost, "does this server state what each access costs"),
    "stale_overlay": (_overlay, "does `captoken operate`, or your own loop, renew the overlay"),
}  # fmt: skip


@pytest.mark.parametrize("code", CAUSES)
def test_a_mistake_of_set_up_is_a_warning_once_a_minute(code: str, said: Any) -> None:
    """With where to look. In between it is INFO, and the next warning says how many there were."""
    made, look = CAUSES[code]
    asked, at = made()
    text = mint(tables=["sales"], operations=["select"], budget={"eur": 5}).serialize() if code == "cost_unstated" else mint().serialize()
    for seconds in (0, 0, 59, 1, 30):
        at.advance(seconds)
        assert asked.check(text, data("sales")).code == code
    lines = [line for line in said() if line[1].startswith("refused")]
    assert [level for level, _ in lines] == ["WARNING", "INFO", "INFO", "WARNING", "INFO"]
    assert look in lines[0][1] and look not in lines[1][1] and "(2 more since the last warning)" in lines[3][1]
    assert "more since" not in lines[0][1]


def test_a_clock_that_goes_back_hides_no_warning(said: Any) -> None:
    at = FixedClock(NOW)
    asked = Verifier(Keyring.from_keys({"k2": KEY}, current="k2"), clock=at)
    for now in (NOW, NOW - 500):
        at.advance(now - at())
        asked.check(mint().serialize(), data("sales"))
    assert [level for level, _ in said()] == ["WARNING", "WARNING"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AuditError("the file was renamed"), "the file was renamed"),
        (OSError(28, "of somebody else"), f"OSError: {os.strerror(28)}"),
        (PermissionError(13, "of somebody else", "a-path"), f"PermissionError: {os.strerror(13)}"),
        (OSError("of somebody else"), "OSError"),
        (RuntimeError("of somebody else"), "RuntimeError"),
    ],
)
def test_why_there_is_no_record_is_told_in_words_of_our_own_or_the_system_s(error: Exception, told: str) -> None:
    """A disk that is full can be told from one that may not be written; no text of others is told."""
    assert failed(error) == told


def test_nothing_is_written_where_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    """At the level of most programs a refusal is no line, and a mistake of set-up is one."""
    caplog.set_level(logging.WARNING, "captoken")
    verifier().check(mint().serialize(), data("hr"))
    assert caplog.records == []


def test_a_required_argument_that_is_null_is_told_how_to_make_it_optional() -> None:
    """Also one that is left out; a value of another kind is told without that, and an optional null is allowed."""
    required, optional = {"in": ["acct-1"]}, {"in": ["acct-1"], "optional": True}
    remedy = '"optional": true'
    for arguments in ({"to": None, "cents": 5}, {"cents": 5}):
        decision = verifier().check(mint(tools={"pay": {"to": required, "cents": {"max": 9}}}).serialize(), tool("pay", **arguments))
        assert decision.code == "argument" and remedy in decision.refusals[0].text and remedy in decision.refusals[0].failing.words
    other = verifier().check(mint(tools={"pay": {"to": required}}).serialize(), tool("pay", to="acct-2"))
    assert other.code == "argument" and remedy not in other.refusals[0].text
    assert verifier().check(mint(tools={"pay": {"to": optional, "cents": {"max": 9}}}).serialize(), tool("pay", cents=5))


def test_whoever_tells_of_a_denial_by_other_means_has_it_logged_by_nobody(said: Any) -> None:
    """As a command does, which prints it. The id is there even so, and after the block all is logged."""
    with quietly():
        assert verifier().check(mint().serialize(), data("hr")).id
    assert said() == []
    verifier().check(mint().serialize(), data("hr"))
    assert len(said()) == 1


def test_a_tool_call_without_a_token_is_a_warning_once_a_minute(said: Any) -> None:
    guard = ToolGuard(verifier())
    for _ in range(3):
        assert not guard.check("pay", {})
    assert [level for level, line in said() if "a tool was called, and no token is in use" in line] == ["WARNING"]
    with current.use(mint(tools={"pay": {}})):
        assert guard.check("pay", {})


def test_a_budget_without_an_audience_says_what_to_write() -> None:
    """Two servers that count apart would allow it twice: the refusal has the keyword, with this server's name."""
    token = mint(tables=["sales"], operations=["select"], uses=1)
    sent = token.present(audience="shop")
    denied = verifier(audience="shop", ledger=MemoryLedger(clock=clock(), floor=0)).check(
        sent, Access(table="sales", operation="select")
    )
    assert denied.code == "unaddressed" and 'mint(…, audience="shop")' in denied.summary
    twin = Issuer(KEYRING, clock=clock()).mint(
        subject="user:jane", agent="a", task="t", audience="shop", tables=["sales"], operations=["select"], uses=1
    )
    assert verifier(audience="shop", ledger=MemoryLedger(clock=clock(), floor=0)).check(
        twin.present(audience="shop"), data("sales")
    )


# --- a server that could mint for others ----------------------------------------------------------------------------


def test_a_server_that_could_mint_for_others_says_so_once_and_what_to_do(said: Any) -> None:
    """When it is made, and not at each decision; of a callable at the first token."""
    server = Verifier(KEYRING, "sales-db", clock=clock())
    for _ in range(2):
        assert server.check(mint().present(audience="sales-db"), data("sales"))
    ((level, line),) = said()
    assert level == "WARNING" and line.startswith("the server sales-db has keys that mint for every server: give it keyring.for_audience('sales-db')")
    assert "captoken keygen audience" in line and "Issuer.mint_set" in line

    asked = Verifier(lambda: KEYRING, ("shop", "store"), clock=clock())
    assert len(said()) == 1
    for _ in range(2):
        asked.check(mint().present(audience="shop"), data("sales"))
    assert len(said()) == 2 and said()[1][1].startswith("the server shop has keys")
    AsyncVerifier(KEYRING, "sales-db")
    assert [level for level, _ in said()] == ["WARNING"] * 3


def test_a_server_with_its_own_keys_and_one_without_a_name_say_nothing(said: Any) -> None:
    own = KEYRING.for_audience("sales-db")
    for made in (Verifier(own, "sales-db"), Verifier(lambda: own, "sales-db"), Verifier(KEYRING), Verifier(lambda: KEYRING)):
        made.check("cap1_AAAA", data("sales"))
        made.check(mint(), data("sales"))
    assert [line for _, line in said() if "mint for every server" in line] == []


def test_an_office_mints_itself_and_says_nothing(said: Any, tmp_path: Any) -> None:
    """Nor does whoever asks a keyring by hand."""
    from captoken.local import Office

    with Office.open(tmp_path / "office", audience="desk", servers=["mail"]):
        pass
    with quietly():
        made = Verifier(KEYRING, "sales-db", clock=clock()), Verifier(lambda: KEYRING, "sales-db", clock=clock())
    for one in made:
        assert one.check(mint().present(audience="sales-db"), data("sales"))
    assert said() == []

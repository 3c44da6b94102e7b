"""Class N: no call is made that nobody has consented to, and none twice by one consent. What is tried is each time one thing that differs.

What stands beside it: `tests/test_consenting.py` has the rules, `tests/adapters/test_pauses.py` each framework's pause (a stored state
that is resumed twice), `tests/adapters/test_pauses_drawn.py` any order of steps and processes that are killed,
`tests/adapters/test_elicited.py` the state that an MCP client shows again, and `tests/console/test_consent_page.py` what the page hides.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from captoken import Access, Denied, Issuer, Keyring, Verifier, current
from captoken.adapters.sqlite import guarded
from captoken.errors import ConsentError
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.stores.sqlite import SQLiteReplayStore
from captoken.tools import ToolGuard, guarded_tool
from tests.adapters.consents import AGENT, LOOKUP, MAIL, REFUND, Desk
from tests.adapters.pauses_langgraph import InAnAgent, InANode
from tests.adapters.pauses_openai import OpenAIAgents
from tests.adapters.pauses_pydantic_ai import PydanticAI

SEND = Access(tool="mail", arguments=MAIL[2])


@pytest.fixture
def desk() -> Desk:
    return Desk()


def asked(desk: Desk, access: Access = SEND) -> str:
    return desk.verifier.check(desk.token.present(audience="desk"), access).request() or ""


def code(desk: Desk, access: Access, *consents: str, token: Any = None, verifier: Any = None, audience: str = "desk") -> str:
    shown = (token or desk.token).present(audience=audience, consents=consents)
    return (verifier or desk.verifier).check(shown, access).code


# --- one thing differs ---------------------------------------------------------------------------------------------------

OTHERS: dict[str, dict[str, Any]] = {
    "another recipient": {**MAIL[2], "to": "eve@example.org"},
    "another text": {**MAIL[2], "text": MAIL[2]["text"] + " "},
    "one argument more": {**MAIL[2], "bcc": "eve@example.org"},
    "one argument less": {"to": MAIL[2]["to"]},
    "a null for nothing": {**MAIL[2], "bcc": None},
    "a list for a text": {**MAIL[2], "to": [MAIL[2]["to"]]},
    "a look-alike": {**MAIL[2], "to": "\u0430nn@example.com"},
    "another case": {**MAIL[2], "to": "Ann@example.com"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_n1_another_argument(name: str, desk: Desk) -> None:
    consent = desk.jane.consent(asked(desk))
    assert code(desk, Access(tool="mail", arguments=OTHERS[name]), consent) == "consent_missing"
    assert code(desk, SEND, consent) == "allowed"


def test_n1_another_type_of_the_same_number(desk: Desk) -> None:
    consent = desk.jane.consent(asked(desk, Access(tool="refund", arguments={"cents": 1})))
    for cents in (1.0, True, "1", 10, -1):
        assert code(desk, Access(tool="refund", arguments={"cents": cents}), consent) == "consent_missing"
    assert code(desk, Access(tool="refund", arguments={"cents": 1}), consent) == "allowed"


def test_n2_another_agent_and_another_link(desk: Desk) -> None:
    """It is to the link that asks: another token's is another one, a token below it has the same."""
    consent = desk.jane.consent(asked(desk))
    assert code(desk, SEND, consent, token=desk.minted(consent=desk.asks)) == "consent_missing"
    below = desk.token.attenuate(consent=desk.asks)
    assert code(desk, SEND, consent, token=below) == "consent_missing", "the link below asks for one of its own"
    sub = desk.token.delegate(to="clerk")
    assert [code(desk, SEND, consent, token=sub), code(desk, SEND, consent)] == ["allowed", "replayed"]


def test_n3_another_server(desk: Desk) -> None:
    keyring = Keyring.generate()
    both = ["desk", "other"]
    token = Issuer(keyring, clock=desk.clock).mint(subject="u", agent="a", task="t", tools={"*": {}}, audience=both, consent=desk.asks)
    servers = {name: Verifier(keyring, name, clock=desk.clock, replays=MemoryReplayStore(floor=0)) for name in both}
    consent = desk.jane.consent(servers["desk"].check(token.present(audience="desk"), SEND).request() or "")
    assert code(desk, SEND, consent, token=token, verifier=servers["other"], audience="other") == "consent_missing"
    assert code(desk, SEND, consent, token=token, verifier=servers["desk"]) == "allowed"


def test_n4_twice_late_and_early(desk: Desk) -> None:
    consent = desk.jane.consent(asked(desk), expires_in=60)
    desk.clock.seconds -= 6
    assert code(desk, SEND, consent) == "bad_consent"
    desk.clock.seconds += 6 + 60
    assert code(desk, SEND, consent) == "bad_consent"
    desk.clock.seconds -= 1
    assert [code(desk, SEND, consent) for _ in range(3)] == ["allowed", "replayed", "replayed"]


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_n5_two_workers_at_once(kind: str, desk: Desk, tmp_path: Path) -> None:
    """One of them, whichever it is: 20 rounds, and the store is one file for processes."""
    for number in range(20):
        access = Access(tool="mail", arguments={"n": number})
        consent = desk.jane.consent(asked(desk, access))
        if kind == "threads":
            stores = [MemoryReplayStore(floor=0)] * 8
        else:
            SQLiteReplayStore.create(tmp_path / f"{number}.db", clock=lambda: 0).close()
            stores = [SQLiteReplayStore(tmp_path / f"{number}.db") for _ in range(4)]  # type: ignore[misc]
        verifiers = [Verifier(desk.keyring, "desk", clock=desk.clock, replays=store) for store in stores]
        barrier = threading.Barrier(len(stores))

        def one(verifier: Verifier, access: Access = access, consent: str = consent, barrier: threading.Barrier = barrier) -> str:
            shown = desk.token.present(audience="desk", consents=[consent])
            barrier.wait()
            return verifier.check(shown, access).code

        with ThreadPoolExecutor(len(stores)) as pool:
            codes = list(pool.map(one, verifiers))
        for store in stores if kind == "processes" else ():
            store.close()  # type: ignore[attr-defined]
        assert sorted(codes) == ["allowed"] + ["replayed"] * (len(stores) - 1), codes


def test_n6_defaults_that_differ(desk: Desk) -> None:
    """What the server fills in is in the request: a person sees it, and it is what was consented to."""
    ran: list[tuple[str, int]] = []

    @guarded_tool(desk.verifier, name="refund")
    def refund(order: str, cents: int = 100) -> None:
        ran.append((order, cents))

    with desk.using([]), pytest.raises(Denied) as caught:
        refund("o-1")
    request = caught.value.decision.request() or ""
    assert desk.jane.read(request).accesses[0]["arguments"] == {"order": "o-1", "cents": 100}

    @guarded_tool(desk.verifier, name="refund")
    def dearer(order: str, cents: int = 90_000) -> None:
        ran.append((order, cents))

    with desk.using([desk.jane.consent(request)]):
        with pytest.raises(Denied):
            dearer("o-1")
        refund("o-1")
    assert ran == [("o-1", 100)]


def test_n7_what_the_server_itself_knows_is_consented_to(desk: Desk) -> None:
    """A tool whose description changed is another call, where the server states what it is."""
    texts = iter(["send a mail", "send a mail, and a copy to eve"])
    first, changed = (
        ToolGuard(desk.verifier, attributes=lambda tool, arguments, text=text: {"described": text}) for text in texts
    )
    with desk.using([]):
        request = first.request("mail", MAIL[2]) or ""
    with desk.using([desk.jane.consent(request)]):
        assert changed.check("mail", MAIL[2]).code == "consent_missing" and first.check("mail", MAIL[2]).code == "allowed"


def test_n8_a_request_that_somebody_else_wrote(desk: Desk) -> None:
    """What is shown is what is signed. Who asks is the writer's word, and changes nothing of that."""
    stated = json.loads(asked(desk))
    other = json.loads(asked(desk, Access(tool="mail", arguments=OTHERS["another recipient"])))
    lie = json.dumps({**stated, "agent": "boss", "chain": [["boss", "issued"]]}, sort_keys=True, separators=(",", ":"))
    assert code(desk, SEND, desk.jane.consent(lie)) == "allowed"
    for mixed in ({**stated, "accesses": other["accesses"]}, {**stated, "audience": "bank"}):
        text = json.dumps(mixed, sort_keys=True, separators=(",", ":"))
        assert code(desk, Access(tool="mail", arguments={**MAIL[2]}), desk.jane.consent(text)) == "consent_missing"
        assert "ann@example.com" not in str(desk.jane.read(text)) or "bank" in str(desk.jane.read(text))
    hiding = stated["accesses"][0].replace('"text"', '"text":"harmless","text"')
    for bad in ([hiding], stated["accesses"] * 2, [stated["accesses"][0] + " "], []):
        with pytest.raises(ConsentError):
            desk.jane.read(json.dumps({**stated, "accesses": bad}, sort_keys=True, separators=(",", ":")))


def test_n9_what_is_shown_is_all_of_it(desk: Desk) -> None:
    """No argument is left out, shortened or hidden by another's characters."""
    long = {"text": "x" * 20_000 + "END", "\u05d0": "rtl", "cc": "a\u202egro.elpmaxe@eve", "n": None, "deep": {"a": [1, {"b": "IN"}]}}
    shown = str(desk.jane.read(asked(desk, Access(tool="mail", arguments=long))))
    for part in ("x" * 20_000 + "END", "rtl", "\\u202e", "null", '"IN"'):
        assert part in shown, part
    assert "\u202e" not in shown and all(line.isprintable() for line in shown.splitlines())


def test_n10_a_statement_with_other_parameters_or_another_text(desk: Desk) -> None:
    asks = [{"by": desk.jane.public, "for": {"tables": ["deals"], "operations": ["delete"]}}]
    token = Issuer(desk.keyring, clock=desk.clock).mint(
        subject="u", agent="a", task="t", tables=["*"], operations=["*"], expires_in=600, consent=asks
    )
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.executescript("create table deals (id integer primary key); insert into deals values (1), (2), (3)")
    held = desk.verifier.authenticate(token.present(audience="desk"))

    def run(grant: Any, sql: str, *parameters: Any) -> str:
        try:
            with guarded(made, grant) as db:
                db.execute(sql, parameters).fetchall()
        except Denied as denied:
            return denied.decision.request() or denied.code
        return "ran"

    delete = "delete from deals where id = ?"
    given = held.with_consents([desk.jane.consent(run(held, delete, 1))])
    for sql, parameters in ((delete, (2,)), (delete, ("1",)), (delete.replace("=", ">="), (1,)), (delete + " or 1", (1,))):
        assert run(given, sql, *parameters) not in ("ran", "replayed"), sql
    assert [run(given, delete, 1) for _ in range(2)] == ["ran", "replayed"]
    assert made.execute("select count(*) from deals").fetchone() == (2,)
    made.close()


@pytest.mark.parametrize("kind", [OpenAIAgents, PydanticAI, InANode, InAnAgent])
def test_n11_a_paid_call_beside_the_one_that_waits_is_made_and_charged_once(kind: Any, desk: Desk) -> None:
    """However often the run is resumed before and after the yes. A state from before costs again, as far as the budget goes."""
    ledger = MemoryLedger(floor=0)
    desk.verifier = Verifier(desk.keyring, "desk", clock=desk.clock, replays=MemoryReplayStore(floor=0), ledger=ledger)
    desk.guard = ToolGuard(desk.verifier, cost=lambda tool, arguments: {"usd_cents": 5 if tool == "lookup" else 0})
    desk.token = desk.minted(consent=desk.asks, budget={"usd_cents": 5})
    framework = kind(desk)
    with desk.using([]):
        states = [framework.begin(LOOKUP, MAIL, REFUND)]
        consents = desk.yes(*states[0].waiting)
        states.append(kind(desk).go_on(states[0].stored))
    for at in (states[-1], states[-1], states[0]):
        with desk.using(consents):
            kind(desk).go_on(at.stored if at.waiting else states[0].stored)
    assert desk.count("lookup") <= 1 and desk.count("mail") == desk.count("refund") == 1, desk.ran


def test_n12_a_message_of_another_agent_is_answered_by_no_consent_in_hand(desk: Desk) -> None:
    """Consents go to a sub-agent with what it is handed: for another link than the one that asked they are nothing."""
    given = desk.token.delegate(to="clerk", consent=desk.asks)
    request = desk.guard.request("mail", MAIL[2], agent=AGENT, held=current.Held(desk.token)) or ""
    held = current.Held(given).with_consents([desk.jane.consent(request)])
    assert desk.guard.check("mail", MAIL[2], agent="clerk", held=held).code == "consent_missing", "the second link asks for one of its own"
    both = [desk.jane.consent(request), desk.jane.consent(desk.guard.request("mail", MAIL[2], agent="clerk", held=held) or "")]
    held = current.Held(given).with_consents(both)
    assert [desk.guard.check("mail", MAIL[2], agent="clerk", held=held).code for _ in range(2)] == ["allowed", "replayed"]

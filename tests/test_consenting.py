"""What the plan asks of consents: for which access, by which key, when, and that each is spent (47)."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest

from captoken import Access, Denied, Issuer, Keyring, Verifier
from captoken._language.access import Statement
from captoken._verification.effects import NO_SPENDING
from captoken.audit import AuditTrail
from captoken.consent import Approver, ApproverKey
from captoken.control import Operator
from captoken.discharge import Allow, Discharger
from captoken.keys import DischargerKey, OperatorKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore, MemorySnapshots
from captoken.testing import FixedClock

CLOCK = FixedClock(1764061200)
KEYRING = Keyring.generate().for_audience("shop")
JANE, BOB = (Approver(ApproverKey.generate(), clock=CLOCK) for _ in range(2))
ISSUER = Issuer(KEYRING, clock=CLOCK)
WHO = {"subject": "user:jane", "agent": "orchestrator", "task": "t"}
DEALS, PEOPLE = (Access(table=table, operation="delete", columns=()) for table in ("crm.deals", "crm.people"))
SEND = Access(tool="mail.send", arguments={"to": "ann@example.com"})


def root(**more: Any):
    said = {"consent": [{"by": JANE.public, "for": {"tables": ["crm.*"], "tools": ["mail.*"]}}], **more}
    return ISSUER.mint(**WHO, tables=["*"], operations=["*"], tools={"*": {}}, expires_in=3600, **said)


def verifier(**more: Any) -> Verifier:
    return Verifier(KEYRING, "shop", clock=CLOCK, **{"replays": MemoryReplayStore(floor=0), **more})


def shown(token: Any, *consents: str) -> str:
    return token.present(audience="shop", consents=list(consents))


# --- a statement -----------------------------------------------------------------------------------------------------

FIRST, SECOND = Statement("delete from deals", (("integer", "7"),)), Statement("delete from deals", (("integer", "8"),))


def test_a_statement_is_consented_to_with_its_text_its_parameters_and_all_its_accesses() -> None:
    """(47.5)"""
    grant = verifier().authenticate(shown(root()))
    denied = grant.check_all([DEALS, PEOPLE], statement=FIRST)
    assert denied.code == "consent_missing"
    asked = JANE.read(denied.request() or "")
    assert asked.statement == FIRST.text and len(asked.accesses) == 2 and asked.parameters == (["integer", "7"],)
    given = grant.with_consents([JANE.consent(denied.request() or "")])
    for accesses, statement in (
        ([DEALS, PEOPLE], SECOND), ([DEALS, PEOPLE], None), ([DEALS], FIRST), ([DEALS, PEOPLE, SEND], FIRST),
        ([DEALS, PEOPLE], Statement("delete from people", FIRST.parameters)), ([DEALS, PEOPLE], Statement(FIRST.text, (("text", "7"),))),
    ):  # fmt: skip
        assert given.check_all(accesses, statement=statement).code == "consent_missing"
    assert given.check(DEALS).code == "consent_missing"
    assert given.check_all([PEOPLE, DEALS], statement=FIRST).code == "allowed"
    assert given.check_all([DEALS, PEOPLE], statement=FIRST).code == "replayed"


def test_a_statement_of_which_one_access_needs_a_consent_asks_all_who_any_of_them_needs() -> None:
    """One request, and nobody is asked a second time for it. (47.2)"""
    token = root(consent=[{"by": JANE.public, "for": {"tables": ["crm.deals"]}}, {"by": BOB.public, "for": {"tables": ["crm.people"]}}])
    grant = verifier().authenticate(shown(token))
    for accesses in permutations((DEALS, PEOPLE, Access(table="public", operation="select"))):
        request = grant.check_all(accesses).request() or ""
        given = grant.with_consents([JANE.consent(request), BOB.consent(request)])
        assert given.check_all(accesses)
    assert grant.check_all([Access(table="public", operation="select"), SEND]).code == "allowed"


def test_a_further_part_of_a_step_needs_no_second_consent_and_only_for_the_same_step() -> None:
    """(47.9)"""
    token = root(budget={"rows": 100})
    server = verifier(ledger=MemoryLedger(shared=True, floor=0))

    def costing(*accesses: Access) -> list[Access]:
        return [Access(table=one.table, operation=one.operation, columns=(), cost={"rows": 1}) for one in accesses]

    for extra in ({}, {"budget": {"rows": 100}}):
        token = root(**extra)
        grant = server.authenticate(shown(token))
        request = grant.check_all(costing(DEALS), statement=FIRST).request() or ""
        grant = grant.with_consents([JANE.consent(request)])
        first = grant.reserve_all(costing(DEALS), statement=FIRST)
        more = grant.reserve_all(costing(DEALS), after=first, statement=FIRST)
        grant.reserve_all(costing(DEALS), after=more, statement=FIRST)
        for accesses, statement in ((costing(PEOPLE), FIRST), (costing(DEALS), SECOND), (costing(DEALS), None)):
            assert _code(grant.reserve_all, accesses, after=first, statement=statement) == "consent_missing"
        assert _code(grant.reserve_all, costing(DEALS), statement=FIRST) == "replayed"


def _code(ask: Any, *given: Any, **more: Any) -> str:
    try:
        ask(*given, **more)
    except Denied as denied:
        return denied.code
    return "allowed"


def test_what_is_under_way_needs_none_and_a_look_spends_none() -> None:
    """(24.19, 47.9)"""
    grant = verifier().authenticate(root().present(audience="shop", expires_in=600))
    assert grant.recheck([SEND]).code == "consent_missing" and grant.recheck([SEND], under_way=True).code == "allowed"
    given = grant.with_consents([JANE.consent(grant.check(SEND).request() or "", expires_in=60)])
    assert [given.recheck([SEND]).code, given.explain(SEND).code, given.check(SEND).code] == ["allowed"] * 3
    assert [given.recheck([SEND]).code, given.explain(SEND).code] == ["allowed", "replayed"]
    CLOCK.now += 61
    try:
        assert given.recheck([SEND]).code == "bad_consent" and given.recheck([SEND], under_way=True).code == "allowed"
    finally:
        CLOCK.now -= 61


# --- what else may be wrong ------------------------------------------------------------------------------------------


def test_an_access_that_cannot_be_spelled_is_consented_to_by_nobody() -> None:
    """(47.5)"""
    grant = verifier().authenticate(shown(root()))
    denied = grant.check(Access(tool="mail.send", arguments={"n": 10**5000}))
    assert denied.code == "consent_missing" and denied.request() is None
    given = grant.with_consents([JANE.consent(grant.check(SEND).request() or "")])
    assert given.check(Access(tool="mail.send", arguments={"n": 10**5000})).code == "consent_missing"


def test_without_a_store_that_keeps_consents_nothing_is_let_through() -> None:
    """One that was written before there were any has no method for it. (47.9)"""

    class Old:
        def __init__(self) -> None:
            self.store = MemoryReplayStore(floor=0)
            self.add, self.peek = self.store.add, self.store.peek

    request = verifier().check(shown(root()), SEND).request() or ""
    token = root()
    request = verifier().check(shown(token), SEND).request() or ""
    text = shown(token, JANE.consent(request))
    for replays in (None, Old()):
        server = verifier(replays=replays)
        for ask in (server.check, server.explain):
            denied = ask(text, SEND)
            assert denied.code == "store_unavailable" and NO_SPENDING in str(denied)
    assert verifier().check(text, SEND)


def test_a_store_that_answers_anything_but_true_has_not_spent() -> None:
    class Odd(MemoryReplayStore):
        def spend(self, spend: Any, now: int) -> Any:
            return 1

    token = root()
    text = shown(token, JANE.consent(verifier().check(shown(token), SEND).request() or ""))
    assert verifier(replays=Odd(floor=0)).check(text, SEND).code == "replayed"


def test_of_several_names_of_a_server_any_will_do() -> None:
    ring = Keyring.generate()
    token = Issuer(ring, clock=CLOCK).mint(**WHO, tools={"*": {}}, audience=["a", "b"], consent=[{"by": JANE.public, "for": {"tools": ["*"]}}])
    first, both = Verifier(ring, "b", replays=MemoryReplayStore(floor=0), clock=CLOCK), Verifier(
        ring, ("a", "b"), replays=MemoryReplayStore(floor=0), clock=CLOCK
    )
    request = first.check(token.present(audience=["a", "b"]), SEND).request() or ""
    assert JANE.read(request).audience == "b"
    assert both.check(token.present(audience=["a", "b"], consents=[JANE.consent(request)]), SEND)


# --- rules over marks ------------------------------------------------------------------------------------------------


def marked(**more: Any) -> Any:
    marks = {"private": {"tables": ["crm.*"]}, "outside": {"tools": ["mail.*"]}}
    rule = {"in": ["outside"], "after": ["private"], "unless": JANE.public}
    return ISSUER.mint(**WHO, tables=["*"], operations=["*"], tools={"*": {}}, expires_in=3600, marks=marks, forbid=[rule], **more)


def test_a_rule_says_whom_to_ask_and_a_consent_lifts_it_once() -> None:
    """(46.4, 47.10)"""
    grant = verifier(ledger=MemoryLedger(shared=True, floor=0)).authenticate(shown(marked()))
    assert grant.check(SEND) and grant.check(DEALS)
    denied = grant.check(SEND)
    assert denied.code == "forbidden_after" and JANE.read(denied.request() or "").accesses[0]["tool"] == "mail.send"
    assert grant.recheck([SEND]).code == "forbidden_after"
    given = grant.with_consents([JANE.consent(denied.request() or "")])
    assert given.recheck([SEND]).code == "allowed", "asks no store, and spends nothing"
    other = Access(tool="mail.send", arguments={"to": "bob@example.com"})
    assert [given.check(one).code for one in (other, SEND, SEND)] == ["forbidden_after", "allowed", "replayed"]


def test_a_rule_without_a_key_has_nobody_to_ask() -> None:
    marks = {"private": {"tables": ["crm.*"]}, "outside": {"tools": ["mail.*"]}}
    token = ISSUER.mint(**WHO, tables=["*"], operations=["*"], tools={"*": {}}, marks=marks, forbid=[{"in": ["outside"], "after": ["private"]}])
    grant = verifier(ledger=MemoryLedger(shared=True, floor=0)).authenticate(shown(token))
    assert grant.check(DEALS) and grant.check(SEND).code == "forbidden_after" and grant.check(SEND).request() is None


def test_a_consent_that_lifts_nothing_is_not_spent() -> None:
    """Before the mark is set the rule is asked about, and the consent is spent for it; for what is in no mark it is not. (47.10)"""
    token = marked()
    server = verifier(ledger=MemoryLedger(shared=True, floor=0))
    grant = server.authenticate(shown(token))
    assert grant.check(DEALS)
    request = grant.check(SEND).request() or ""
    given = grant.with_consents([JANE.consent(request)])
    assert given.check(DEALS) and given.check(SEND), "the table is in another mark"


def test_an_entry_of_the_overlay_and_a_discharge_ask_for_none() -> None:
    """(47.7)"""
    operator = Operator(OperatorKey.generate(), MemorySnapshots(), by="ops", clock=CLOCK)
    asks = [{"by": JANE.public, "for": {"tools": ["*"]}}]
    with pytest.raises(TypeError, match="consent is not a caveat of"):
        operator.narrow(task="t", why="a reason", consent=asks)
    rule = [{"in": ["m"], "after": ["m"], "unless": JANE.public}]
    with pytest.raises(ValueError, match="unless is not for"):
        operator.narrow(task="t", why="a reason", marks={"m": {"tools": ["*"]}}, forbid=rule)
    key = DischargerKey.generate()
    ticket = root().require(key.public, need={"a": 1}).needs[0]
    with pytest.raises(TypeError, match="consent is not a caveat of a discharge"):
        Discharger(key, lambda need: Allow(expires_in=60, consent=asks)).discharge(ticket)  # type: ignore[call-arg]


# --- the record ------------------------------------------------------------------------------------------------------


def test_the_trail_says_whose_yes_it_was_for_which_link_and_how_long_it_was_good() -> None:
    """(39.3, 47.12)"""
    lines: list[bytes] = []
    token = root().attenuate(consent=[{"by": BOB.public, "for": {"tools": ["mail.*"]}}])
    server = verifier(audit=AuditTrail(lines.append, clock=CLOCK))
    request = server.check(shown(token), SEND).request() or ""
    given = [JANE.consent(request, expires_in=60), BOB.consent(request)]
    assert server.check(shown(token, *given), SEND)
    assert server.check(shown(token, *given), SEND).code == "replayed"
    assert server.check(shown(token), Access(tool="other"))
    decided = [record for record in map(json.loads, lines) if record["kind"] == "decision"]
    assert [("consents" in record, record["code"]) for record in decided] == [
        (False, "consent_missing"), (True, "allowed"), (False, "replayed"), (False, "allowed"),
    ]  # fmt: skip
    now = CLOCK()
    assert decided[1]["consents"] == [
        {"by": JANE.public, "link": 0, "iat": now, "exp": now + 60}, {"by": BOB.public, "link": 1, "iat": now, "exp": now + 300},
    ]  # fmt: skip


def test_a_model_is_told_no_key_and_no_value() -> None:
    """(47.12)"""
    denied = verifier().check(shown(root()), SEND)
    assert JANE.public in str(denied) and "ann@example.com" not in str(denied)
    assert JANE.public not in denied.for_model() and "ann@example.com" not in denied.for_model()


def test_what_cannot_be_spelled_lifts_no_rule() -> None:
    """A consent to something else is there, and of no use. (47.5)"""
    server = verifier(ledger=MemoryLedger(shared=True, floor=0))
    grant = server.authenticate(shown(marked()))
    assert grant.check(DEALS)
    given = grant.with_consents([JANE.consent(grant.check(SEND).request() or "")])
    huge = Access(tool="mail.send", arguments={"n": 10**5000})
    denied = given.check(huge)
    assert denied.code == "forbidden_after" and denied.request() is None
    assert given.check(SEND).code == "allowed"


def test_a_signature_of_somebody_else_is_no_consent() -> None:
    """The question is named, and the key is another one's. (47.6)"""
    token = root()
    request = verifier().check(shown(token), SEND).request() or ""

    class Forged(ApproverKey, frozen=True, eq=False):
        def sign(self, message: bytes) -> bytes:
            return OTHER.sign(message)

    key = Forged.generate()
    token = ISSUER.mint(**WHO, tools={"*": {}}, consent=[{"by": key.public, "for": {"tools": ["*"]}}])
    request = verifier().check(shown(token), SEND).request() or ""
    denied = verifier().check(shown(token, Approver(key, clock=CLOCK).consent(request)), SEND)
    assert denied.code == "bad_consent" and denied.step == 10 and denied.refusals[0].link == 0


OTHER = ApproverKey.generate()

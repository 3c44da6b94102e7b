"""What a decision is to those who read it: the operator, a client, a machine, and another process."""

from __future__ import annotations

import copy
import json
import pickle
import re

import pytest
from msgspec import structs

from captoken import (
    Access,
    Decision,
    Denied,
    Verifier,
    WideningError,
)
from captoken._verification.decision import PLAN
from captoken.errors import CODES, DelegationError, LimitError
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW, SALES, data, mint, tool, verifier
from tests.test_plan import denial


def test_a_decision_tells_the_operator_who_tried_what_and_which_link_refused() -> None:
    token = mint().delegate(to="sales-agent", tables=["sales"]).delegate(to="eu-agent", where={"region": {"in": ["eu"]}})
    decision = verifier().check(token, data("market.eu", "select", region="mars"))
    assert str(decision) == "\n".join(
        [
            'denied table: table market.eu is not among ["sales"], link 1 by orchestrator',
            "  who      orchestrator (issued) > sales-agent (vouched) > eu-agent (vouched), for user:jane",
            "  task     task-123",
            f"  token    {token.token_id}",
            "  tried    select on table market.eu and with region",
            '  refused  link 1, added by orchestrator: table market.eu is not among ["sales"]',
            '  also     link 2, added by sales-agent: attribute region does not satisfy {"in": ["eu"]}',
            '  needs    allow={"market.eu": ["select"]}, where={"region": "as stated"} in link 1, 2',
            "  at       2025-11-25T09:00:00+00:00",
        ]
    )
    assert decision.needed == {"allow": {"market.eu": ["select"]}, "where": {"region": {"in": ["mars"]}}}
    assert "mars" not in str(decision), "no value of an attribute"
    assert str(verifier().explain(token, data("sales", region="eu"))).startswith("allowed select on table sales and with region\n")
    assert "a dry run" in str(verifier().explain(token, data("sales")))
    assert "the issuer" in str(verifier().check(token, data("hr", region="eu")))


def test_a_stranger_learns_nothing_from_a_denial() -> None:
    """Malformed, unknown key and bad signature are one message; nothing unsigned is called known."""
    text = mint().serialize()
    decisions = [
        verifier().check("cap1_AAAA", data("sales")),
        verifier().check(text[:-2] + "AA", data("sales")),
        Verifier(KEYRING.rotate().retire("k1")).check(text, data("sales")),
    ]
    assert len({Denied(decision).public for decision in decisions}) == 1
    assert len({decision.for_model() for decision in decisions}) == 1
    for decision in decisions:
        assert decision.attribution is None and "user:jane" not in str(decision) and not decision.as_dict()["chain"]
        assert Denied(decision).kind == "invalid"


def test_kinds_are_what_a_status_follows_from() -> None:
    assert {denial(verifier().authorize, mint(), access).kind for access in (data("hr"), data("sales", "drop"), tool("x"))} == {"insufficient"}
    assert {code.kind for code in CODES.values()} == {"invalid", "insufficient", "proof", "unavailable"}
    assert all(1 <= code.step <= len(PLAN) and code.public for code in CODES.values())


def test_attributes_are_told_to_the_operator_alone() -> None:
    token = mint(**SALES, where={"hour": {"max": 17}})
    late, unstated = verifier().check(token, data("sales", hour=20)), verifier().check(token, data("sales"))
    assert late.line(values=True) == "denied attribute hour: 20 is more than 17, link 0 by the issuer"
    assert late.line() == "denied attribute hour: is more than 17, link 0 by the issuer"
    assert unstated.line() == "denied attribute hour: is not stated, link 0 by the issuer"
    for decision in (late, unstated):
        assert "hour" not in decision.for_model(tell_limits=True) and "17" not in decision.for_model(tell_limits=True)


def test_a_decision_is_data_for_machines() -> None:
    decision = verifier().check(mint().delegate(to="b"), data("hr", region="eu"))
    stated = json.loads(json.dumps(decision.as_dict()))
    assert stated["allowed"] is False and stated["code"] == "table" and stated["chain"][1] == {"name": "b", "basis": "vouched"}
    allowed = verifier().check(mint(), data("sales")).as_dict()
    assert allowed["allowed"] is True and allowed["code"] == "allowed"
    assert stated["subject"] == "user:jane" and stated["committed"] is True and len(stated["steps"]) == 11
    assert stated["id"] == decision.id != "" and allowed["id"] is None and allowed["now"] == stated["now"] == NOW
    assert stated.keys() == allowed.keys() == {
        "allowed", "code", "id", "now", "access", "refusals", "subject", "task", "token_id", "chain", "steps", "committed",
    }  # fmt: skip
    assert stated["access"] == decision.access.summary and stated["refusals"] == [refusal.as_dict() for refusal in decision.refusals]
    assert (stated["task"], stated["token_id"]) == ("task-123", mint().token_id) and allowed["refusals"] == []
    forged = verifier().check(f"{mint().serialize()[:-2]}AA", data("sales"))
    unknown = forged.as_dict()
    assert unknown["subject"] is unknown["task"] is unknown["token_id"] is None and unknown["chain"] == []
    assert [line[:11] for line in forged.report().splitlines()[1:]] == ["  who      ", "  tried    ", "  refused  ", "  at       "]
    assert "  who      unknown: nothing that this token says is vouched for by a signature" in forged.report().splitlines()
    assert '"eu"' not in json.dumps(stated)
    assert repr(decision) == '<Decision table: table hr is not among ["market.*","sales"]>' or "table hr" in repr(decision)


@pytest.mark.parametrize(
    ("asked", "later", "code", "needs"),
    [
        (data("hr"), 0, "table", True),
        (data("sales", "select", "pay"), 0, "column", True),
        (data("sales"), 0, "column", False),
        (data("hr"), 10_000, "expired", False),
    ],
)
def test_what_would_have_to_be_granted_is_said_where_it_would_help(asked: Access, later: int, code: str, needs: bool) -> None:
    """A wider token helps neither who did not state the columns, nor who comes too late."""
    token = mint(tables=["sales"], operations=["select"], columns={"sales": ["region"]})
    decision = verifier(clock=FixedClock(NOW + later)).check(token, asked)
    assert decision.code == code
    assert bool(re.search(r"^ *needs\b", decision.report(), re.MULTILINE)) is needs, decision.report()


def test_an_adapter_refuses_in_the_same_shape() -> None:
    """The specification's rule 24.21."""
    grant = verifier().authenticate(mint().serialize())
    decision = grant.deny("operation", "not a plain data statement")
    assert not decision and decision.code == "operation" and "the verifier: not a plain data statement" in str(decision)
    for ask in (grant, verifier()):
        text = () if ask is grant else (mint().serialize(),)
        with pytest.raises(ValueError, match="is not a code of the spec"):
            ask.deny(*text, "nonsense", "x")
    assert verifier().deny(mint().serialize(), "tool", "none").code == "tool"
    assert verifier(clock=FixedClock(NOW + 10_000)).deny(mint().serialize(), "tool", "none").code == "expired", "what is wrong with the token comes first"
    assert verifier().deny("cap1_", "tool", "none").code == "malformed"
    with pytest.raises(ValueError, match="deny takes a decision that is denied, and this one is allowed"):
        grant.deny(grant.recheck())


def test_decisions_are_values() -> None:
    made = verifier().check(mint(), data("hr"))
    again = verifier().check(mint(), data("hr"))
    assert isinstance(made, Decision) and made == again and (made != again) is False and made.id != again.id
    for field in set(made.__struct_fields__) - {"id"}:
        other = structs.replace(made, **{field: "another"})
        assert made != other and (made == other) is False, field
    assert made != "denied" and (made == "denied") is False


def test_a_task_off_the_path_is_not_reported_as_the_tokens() -> None:
    """What a holder appended decides nothing, and names nothing in the audit."""
    token = mint().with_raw_link(b'{"task":"payroll/approved"}')
    decision = verifier().check(token, data("sales"))
    assert decision.code == "task" and decision.as_dict()["task"] == "task-123"


def test_denials_cross_processes_and_grants_do_not() -> None:
    denied = denial(verifier().authorize, mint(), data("hr"))
    again = pickle.loads(pickle.dumps(denied))
    assert (again.code, again.public, again.kind, str(again)) == (denied.code, denied.public, denied.kind, str(denied))
    assert again.decision == denied.decision and copy.copy(denied).code == "table"
    for error in (WideningError("exp", 1, 2, 3, "hint"), LimitError("long", (("root", 1),)), DelegationError("deep", "too_deep")):
        assert vars(pickle.loads(pickle.dumps(error))) == vars(error) and str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(verifier().check(mint(), data("sales")))

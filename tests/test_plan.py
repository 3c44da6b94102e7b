"""The numbered plan: what each step refuses, in which order, and what the three readers of a decision are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from captoken import (
    Caller,
    Denied,
    Grant,
    Issuer,
    Token,
    Verifier,
)
from captoken._verification.decision import PLAN
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, code, data, mint, tool, verifier


def denial(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Denied:
    with pytest.raises(Denied) as caught:
        call(*args, **kwargs)
    return caught.value


def test_all_that_ask_give_one_answer() -> None:
    """authorize, check and explain, on a verifier and on a grant, are one decision; two of them do not raise."""
    token = mint().delegate(to="sales-agent", tables=["sales"]).serialize()
    one = verifier()
    grant = one.authenticate(token)
    for access, caller in [
        (data("sales"), None),
        (data("market.eu"), None),
        (data("sales", "delete"), None),
        (tool("search"), None),
        (data("sales"), Caller(agent="sales-agent", task="task-123")),
        (data("sales"), Caller(agent="orchestrator")),
        (data("sales"), Caller(task="task-9")),
    ]:
        said = [asker.check(access, caller=caller) if asker is grant else one.check(token, access, caller=caller) for asker in (one, grant)]
        said += [grant.explain(access, caller=caller), one.explain(token, access, caller=caller)]
        assert len({decision.code for decision in said}) == 1
        assert [decision.dry for decision in said] == [False, False, True, True]
        assert len({decision.refusals for decision in said}) == 1
        for authorize in (lambda a=access, c=caller: one.authorize(token, a, caller=c), lambda a=access, c=caller: grant.authorize(a, caller=c)):
            if said[0]:
                assert isinstance(authorize(), Grant) and said[0].grant is not None
            else:
                assert denial(authorize).code == said[0].code and said[0].grant is None


def test_a_verifier_takes_text_or_a_token_and_an_access_and_nothing_else() -> None:
    token = mint()
    assert verifier().check(token, data("sales"))
    for hostile in (None, 5, b"cap1_", token.serialize().encode(), ["cap1_"], ""):
        assert verifier().check(hostile, data("sales")).code == "malformed"  # type: ignore[arg-type]
        assert denial(verifier().authenticate, hostile).code == "malformed"
    with pytest.raises(TypeError, match="a Caller"):
        verifier().check(token, data("sales"), caller="sales-agent")  # type: ignore[arg-type]
    for access in (None, "select on sales", {"table": "sales"}):
        with pytest.raises(TypeError, match="an Access"):
            verifier().check(token, access)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "facts", [{"leeway": -1}, {"leeway": 1.5}, {"leeway": True}, {"audience": ()}, {"audience": "a b"}, {"audience": (5,)}], ids=repr
)
def test_a_verifier_that_makes_no_sense_is_not_built(facts: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        verifier(**facts)


def test_time_is_exact_to_the_second_and_leeway_is_asked_for() -> None:
    """now < exp + leeway, now >= nbf - leeway; a token from more than 60 seconds ahead is from the future."""
    token = mint(**SALES, expires_at=NOW + 10, not_before=NOW + 5).serialize()
    for moment, leeway, expected in [
        (4, 0, "not_yet_valid"), (5, 0, "allowed"), (9, 0, "allowed"), (10, 0, "expired"),
        (2, 2, "not_yet_valid"), (3, 2, "allowed"), (11, 2, "allowed"), (12, 2, "expired"),
        (-61, 90, "allowed"), (-91, 90, "not_yet_valid"), (9.99, 0, "allowed"), (10.0, 0, "expired"),
    ]:  # fmt: skip
        assert code(token, data("sales"), clock=lambda m=moment: NOW + m, leeway=leeway) == expected, (moment, leeway)
    early = mint(unrestricted=True, not_before=0).serialize()
    for behind, leeway, expected in [(60, 0, "allowed"), (61, 0, "not_yet_valid"), (61, 61, "allowed"), (62, 61, "not_yet_valid")]:
        assert code(early, data("sales"), clock=FixedClock(NOW - behind), leeway=leeway) == expected
        grant_code = Verifier(KEYRING, clock=(moving := clock())).authenticate(early)
        moving.now = NOW - behind
        assert (grant_code.check(data("sales")).code == "allowed") is (behind <= 60)


def test_a_clock_that_goes_back_makes_a_token_too_new_for_its_grant() -> None:
    """Whether the grant was asked before or not: the first answer is link by link, later ones are by all checks in a row."""
    token = Issuer(KEYRING, clock=FixedClock(NOW + 60)).mint(**WHO, **SALES)
    for asked_before in (0, 1, 2):
        moving = clock()
        grant = verifier(clock=moving).authenticate(token)
        for _ in range(asked_before):
            assert grant.check(data("sales"))
        moving.now = NOW - 1
        assert grant.check(data("sales")).code == "not_yet_valid"
        moving.now = NOW
        assert grant.check(data("sales"))


@pytest.mark.parametrize("broken", [lambda: None, lambda: float("nan"), lambda: 1 / 0])
def test_a_broken_clock_never_allows(broken: Callable[[], Any]) -> None:
    with pytest.raises((TypeError, ValueError, ZeroDivisionError)):
        verifier(clock=broken).check(mint(), data("sales"))


def test_every_audience_of_the_token_must_leave_one_of_the_servers_names() -> None:
    """The first link that leaves none fails, though each alone would pass."""
    token = mint(**SALES, audience=["a", "b"]).attenuate(audience=["a", "b"])
    wide = verifier(audience=("a", "c"))
    assert wide.check(token, data("sales"))
    assert wide.check(token.attenuate(audience="b"), data("sales")).refusals[0].link == 2
    crossed = Token.parse(mint(unrestricted=True).serialize())
    for names in (["a", "b"], ["b", "c"], ["c", "a"]):
        crossed = crossed.with_raw_link(json.dumps({"aud": names}, separators=(",", ":")).encode())
    decision = verifier(audience=("a", "b", "c")).check(crossed, data("sales"))
    assert (decision.code, decision.refusals[0].link) == ("wrong_audience", 3)


def test_a_server_with_a_name_takes_only_what_is_addressed_to_it() -> None:
    named = verifier(audience="sales-db")
    assert named.check(mint(), data("sales")).code == "unaddressed"
    assert denial(named.authenticate, mint().serialize()).code == "unaddressed"
    assert verifier(audience="sales-db", allow_unaddressed=True).check(mint(), data("sales"))
    assert code(mint(**SALES, audience="sales-db"), data("sales")) == "wrong_audience", "a server without a name has none"


def test_the_first_failure_in_the_order_of_the_plan_is_the_code() -> None:
    """Signature before links, links before lineage, lineage before time, time before table, table before caller."""
    token = mint(**SALES, expires_at=NOW + 5, depth=0)
    late = FixedClock(NOW + 5)
    stranger = Caller(agent="other")
    assert verifier(clock=late).check(token, data("hr"), caller=stranger).code == "expired"
    assert verifier().check(token, data("hr"), caller=stranger).code == "table"
    assert verifier().check(token, data("sales"), caller=stranger).code == "caller"
    deep = token.with_raw_link(b'{"from":"orchestrator","n":"AAAAAAAAAAA","to":"b"}')
    assert verifier(clock=late).check(deep, data("hr")).code == "too_deep"
    odd = deep.with_raw_link(b'{"later":1}')
    assert verifier(clock=late).check(odd, data("hr")).code == "unknown_caveat"
    unreadable = deep.with_raw_link(b'{"exp":1.5}').with_raw_link(b'{"later":1}')
    assert verifier(clock=late).check(unreadable, data("hr")).code == "unreadable_link"
    text = unreadable.serialize()
    assert verifier(clock=late).check(text[:-2] + "AA", data("hr")).code == "bad_signature"
    assert Verifier(KEYRING.rotate().retire("k1"), clock=late).check(text, data("hr")).code == "unknown_key"


def test_the_plan_is_the_same_list_in_code_and_decision() -> None:
    allowed, denied = verifier().check(mint(), data("sales")), verifier().check(mint(), data("hr"))
    assert [step.name for step in allowed.steps] == list(PLAN) == [step.name for step in denied.steps]
    assert [step.outcome for step in allowed.steps] == ["held"] * 6 + ["nothing to check"] + ["held"] * 2 + ["nothing to check"] * 2
    assert [step.outcome for step in denied.steps] == ["held"] * 6 + ["nothing to check", "failed"] + ["not reached"] * 3
    assert denied.steps[7].detail and allowed.effects == ()
    assert [step.number for step in denied.steps] == list(range(1, 12))


def test_a_dry_run_gives_no_grant() -> None:
    """It is true if `check` would allow, and there is nothing to go on with."""
    grant = verifier().authenticate(mint())
    for said in (grant.explain(data("sales")), verifier().explain(mint(), data("sales")), verifier().explain(mint(), None)):
        assert said and said.grant is None and said.dry and said.attribution is not None
    assert not verifier().explain(mint(), data("hr")) and not grant.explain(data("hr"))


def test_a_verifier_says_its_names() -> None:
    assert verifier().audiences == () and verifier(audience=("b", "a")).audiences == ("b", "a")


def test_a_third_party_caveat_prohibits_until_somebody_can_answer_it() -> None:
    """It is checked into the chain of signatures; missing_discharge, before anything the links say."""
    from captoken._format import chain
    from captoken._format import packet as wire

    packet = mint().with_raw_link(b'{"later":1}').secret_packet
    asking = (b"cid", bytes(72))
    grown = wire.Packet(packet.identifier, (*packet.caveats, asking), chain.extend(packet.signature, asking))
    text = Token.of(grown, mint().unverified.root, mint().context).serialize()
    decision = verifier().check(text, data("sales"))
    assert (decision.code, decision.refusals[0].link) == ("missing_discharge", 2)
    forged = wire.Packet(packet.identifier, (*packet.caveats, asking), packet.signature)
    assert code(Token.of(forged, mint().unverified.root, mint().context), data("sales")) == "bad_signature"
    held = Token.parse(text, clock=clock())
    assert held.unverified.capability.nothing and held.attenuate(tables=["sales"])


def test_rotation_reaches_a_running_server() -> None:
    rings = [KEYRING]
    one = Verifier(lambda: rings[0], clock=clock())
    assert one.check(mint(), data("sales"))
    rings[0] = KEYRING.rotate().retire("k1")
    assert one.check(mint(), data("sales")).code == "unknown_key"


def test_a_verifier_believes_what_is_signed_and_not_what_a_token_object_says() -> None:
    other = Issuer(KEYRING, clock=clock()).mint(subject="user:eve", agent="a", task="t", unrestricted=True, ext={"acme:t": 1})
    told = Token.of(mint().secret_packet, other.unverified.root, other.context)
    assert verifier().authenticate(told).issued.subject == "user:jane"
    other.unverified.root.ext["acme:t"] = 2  # type: ignore[index]
    assert verifier().authenticate(other).issued.ext == {"acme:t": 1}

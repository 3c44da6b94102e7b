"""What a trail tells of the tokens in it: the tree, what was unused, what an overlay would change, what is still to fear."""

from __future__ import annotations

from typing import Any

import pytest

from captoken import Access, Issuer, Verifier
from captoken.audit import AuditTrail, read
from captoken.audit import analysis as trails
from captoken.control import Feed, Operator, Overlay
from captoken.errors import AuditError
from captoken.keys import AuditKey, OperatorKey
from captoken.stores.memory import MemoryLedger, MemorySnapshots
from captoken.stores.ports import START
from captoken.testing import FixedClock, fixed_random
from tests.fixtures import KEYRING, NOW, WHO, data, tool

OPERATOR = OperatorKey.from_bytes(bytes(range(2, 34)))
RIGHTS: dict[str, Any] = {"tables": ["sales", "hr"], "operations": ["select", "update"], "tools": {"pay": {}, "mail": {}}}


class Server:
    """A verifier that takes what is not addressed, and keeps a trail."""

    def __init__(self, *, values: bool = False, **facts: Any) -> None:
        self.lines: list[bytes] = []
        self.clock = FixedClock(NOW)
        kept = AuditTrail(self.lines.append, key=AuditKey.from_bytes(bytes(range(32))), values=values)
        self.verifier = Verifier(KEYRING, clock=self.clock, audit=kept, **facts)
        self.checkpoint = kept.checkpoint

    def mint(self, **caveats: Any) -> Any:
        issuer = Issuer(KEYRING, clock=self.clock, random=fixed_random(f"world {len(self.lines)}"))
        return issuer.mint(**WHO, **(caveats or RIGHTS))

    def tries(self, token: Any, *accesses: Access) -> None:
        for access in accesses:
            self.clock.advance(1)
            self.verifier.check(token, access)

    @property
    def trail(self) -> trails.History:
        return trails.gather(read(self.lines))


def overlay(*entries: tuple[str, dict[str, Any]]) -> Overlay:
    store = MemorySnapshots()
    operator = Operator(OPERATOR, store, by="user:ops", clock=FixedClock(NOW))
    for what, said in entries:
        getattr(operator, what)(**said)
    operator.renew()
    return Overlay.open(store.load() or b"", [OPERATOR.public])


def replayed(server: Server, *entries: tuple[str, dict[str, Any]]) -> list[tuple[str, str]]:
    return [(one.outcome, one.why) for one in trails.replay(server.trail, overlay(*entries))]


def record(kind: str = "token", **stated: Any) -> dict[str, Any]:
    return {"kind": kind, "prev": START, "seq": 1, **stated}


ROOT = {"agent": "a", "iat": 1, "jti": "A" * 22, "kid": "k", "sub": "s", "task": "t", "v": 1}


# --- the tree --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stated",
    [
        record(),
        record(root=ROOT, links=[{"id": "no id", "says": {}}]),
        record(root=ROOT, links=[{"says": {}}]),
        record(root={}, links=[]),
        record(root=[], links=[]),
        record("decision"),
        record("decision", at=1, allowed="yes", code="allowed"),
        record("decision", at=1, allowed=True, code="allowed", chain=[{"name": "a", "basis": "certain"}]),
    ],
    ids=range(8),
)
def test_a_record_that_says_nothing_is_an_audit_error(stated: dict[str, Any]) -> None:
    with pytest.raises(AuditError, match="record 1 cannot be read"):
        trails.gather([stated])


def test_a_record_of_a_kind_to_come_and_a_token_without_links_are_passed_over() -> None:
    trail = trails.gather([record("weather"), record(root=ROOT, links=[])])
    assert not trail.roots and not trail.tokens


# --- one tree of several trails --------------------------------------------------------------------------------------


def said(joined: list[trails.Joined]) -> list[tuple[str, list[tuple[str, int, int]]]]:
    """Of each holding who held it, and what each trail says: allowed, denied."""
    every = [one for root in joined for one in root.walk()]
    return [(one.agent, [(name, hop.allowed, hop.denied) for name, hop in one.said]) for one in every]


# --- granted against used --------------------------------------------------------------------------------------------


def test_what_a_hop_and_all_below_it_used_is_what_would_have_sufficed() -> None:
    server = Server()
    clerk = server.mint().delegate(to="clerk", depth=1)
    server.tries(clerk, data("sales", "select", "amount"), data("sales", "select", "month"), data("people"))
    server.tries(clerk.delegate(to="helper"), data("hr", "update"))
    top, middle, below = trails.unused(server.trail)
    used = {"allow": {"hr": ["update"], "sales": ["select"]}, "columns": {"sales": ["amount", "month"]}}
    assert middle.sufficient == {**used, "depth": 1} and middle.granted["depth"] == 1 and not middle.is_tight
    assert top.sufficient == {**used, "depth": 2} and "depth" not in top.granted
    assert below.sufficient == {"tables": ["hr"], "operations": ["update"], "depth": 0} and below.last == NOW + 4
    assert (top.allowed, middle.allowed, below.allowed) == (3, 3, 1)


def test_what_would_have_sufficed_is_no_widening_and_permits_what_was_done() -> None:
    server = Server(values=True)
    root = server.mint(**RIGHTS, where={"region": {"any": True}})
    done = [
        Access(table="sales", operation="select", attributes={"region": "eu"}),
        Access(tool="pay", arguments={"cents": 5, "to": "jo"}, attributes={"region": "us", "hour": 9}),
        Access(tool="pay", arguments={"cents": 7}, attributes={"region": "eu"}),
        Access(tool="mail", attributes={"region": "eu"}),
    ]
    server.tries(root, *done)
    (use,) = trails.unused(server.trail)
    assert use.sufficient["tools"] == {
        "mail": {"_": {"in": [], "optional": True}},
        "pay": {"cents": {"in": [5, 7]}, "to": {"in": ["jo"], "optional": True}},
    }
    assert use.sufficient["where"] == {"region": {"in": ["eu", "us"]}}
    narrowed = root.attenuate(**{key: value for key, value in use.sufficient.items() if key != "depth"})
    assert all(server.verifier.explain(narrowed, access) for access in done)


def test_values_that_were_not_recorded_or_not_as_they_were_stay_as_granted() -> None:
    for values in (False, True):
        server = Server(values=values)
        server.tries(server.mint(tools={"pay": {"cents": {"max": 100}}}), tool("pay", cents=5))
        server.tries(server.mint(tools={"pay": {}}), tool("pay", cents=0.5), tool("pay", cents=10**20))
        stated, free = trails.unused(server.trail)
        assert stated.sufficient["tools"] == {"pay": {"cents": {"in": [5]} if values else {"max": 100, "min": 0}}}
        assert free.sufficient["tools"] == {"pay": {"cents": {"any": True}}}


def test_lists_that_were_recorded_are_narrowed_to_their_items() -> None:
    """To all that any had, and to the longest; what is recorded in another form leaves the items as they were granted."""
    server = Server(values=True)
    root = server.mint(tools={"mail": {"to": {"any": True}}})
    server.tries(root.delegate(to="a"), tool("mail", to=["jo"]), tool("mail", to=["al", "jo"]), tool("mail", to=[]))
    server.tries(root.delegate(to="b"), tool("mail", to=["jo", 0.5]), tool("mail", to=["al", "jo", "ed"]))
    server.tries(root.delegate(to="c"), tool("mail", to=["jo"]), tool("mail", to="jo"))
    known, marked, mixed = (usage.sufficient["tools"]["mail"]["to"] for usage in trails.unused(server.trail)[1:])
    assert known == {"each": {"in": ["al", "jo"]}, "most": 2}
    assert marked == {"each": {"any": True}, "most": 3} and mixed == {"any": True}


def test_what_was_never_used_needs_nothing() -> None:
    server = Server()
    server.tries(server.mint(), data("people"))
    (use,) = trails.unused(server.trail)
    assert use.sufficient == {"tables": [], "depth": 0} and use.last is None and use.allowed == 0


def test_counts_that_would_have_sufficed() -> None:
    server = Server(ledger=MemoryLedger(shared=True, floor=0))
    token = server.mint(unrestricted=True, uses=9, budget={"cents": 50})
    server.tries(token, Access(tool="pay", cost={"cents": 3}), Access(tool="pay", cost={"cents": 4}))
    (use,) = trails.unused(server.trail)
    assert (use.granted["uses"], use.granted["budget"]) == (9, {"cents": 50})
    assert (use.sufficient["uses"], use.sufficient["budget"]) == (2, {"cents": 7})


def test_what_would_have_sufficed_is_never_more_than_was_granted() -> None:
    """One step takes one use, whatever it needs; and what was reserved and went back can be more than there ever was."""
    server = Server(ledger=MemoryLedger(shared=True, floor=0))
    token = server.mint(unrestricted=True, uses=3, budget={"cents": 100})
    grant = server.verifier.authenticate(token)
    for _ in range(5):
        with grant.reserve(Access(tool="pay", cost={"cents": 60})) as reserved:
            reserved.cancel()
    (use,) = trails.unused(server.trail)
    assert (use.sufficient["uses"], use.sufficient["budget"]) == (3, {"cents": 100})
    decided = {"at": 1, "allowed": True, "code": "allowed", "link": "C" * 21 + "A", "access": {"tool": "pay"}}
    link = {"id": "C" * 21 + "A", "says": {"n": "A" * 11, "uses": 9}}
    records = [record(root=ROOT, links=[link])]
    records += [record("decision", **decided, **taken) for taken in ({"taken": "x"}, {"taken": "x"}, {"taken": "y"})]
    (use,) = trails.unused(trails.gather(records))
    assert use.sufficient["uses"] == 2 and use.allowed == 3


def test_granted_what_was_used_is_tight() -> None:
    server = Server()
    server.tries(server.mint(tables=["sales"], operations=["select"], depth=0), data("sales"))
    (use,) = trails.unused(server.trail)
    assert use.is_tight and use.sufficient == {"tables": ["sales"], "operations": ["select"], "depth": 0}


def test_an_access_that_states_attributes_alone_is_used_as_well() -> None:
    server = Server()
    server.tries(server.mint(unrestricted=True), Access(attributes={"hour": 9}), Access())
    server.verifier.authenticate(server.mint(unrestricted=True))
    first, second = trails.unused(server.trail)
    assert first.sufficient == {"depth": 0} and first.granted == {}
    assert second.allowed == 1 and second.sufficient == {"tables": [], "depth": 0}  # asked about no access


def test_rights_that_would_close_what_was_used_are_not_stated() -> None:
    """A token with rights permits nothing that states neither table nor tool: whoever used both needs one without."""
    server = Server()
    root = server.mint(unrestricted=True)
    done = [data("sales"), tool("pay", cents=1), Access(attributes={"hour": 9})]
    server.tries(root, *done)
    (use,) = trails.unused(server.trail)
    assert use.sufficient == {"depth": 0} and all(server.verifier.explain(root.attenuate(expires_in=60), access) for access in done)


def test_a_record_that_no_link_can_say_leaves_what_was_granted() -> None:
    """One from elsewhere, of a table without an operation: nothing narrower can be told than what was granted."""
    granted = {"where": {"hour": {"min": 1, "max": 20}}}
    narrower = {"tables": ["sales"], "operations": ["select"], "where": {"hour": {"in": [9]}}}
    link = "C" * 21 + "A"
    for stated, sufficient in (({"operation": "select"}, narrower), ({}, granted)):
        access = {"table": "sales", "attributes": {"hour": 9}, **stated}
        decided = record("decision", at=1, allowed=True, code="allowed", link=link, access=access)
        (use,) = trails.unused(trails.gather([record(root=ROOT, links=[{"id": link, "says": granted}]), decided]))
        assert use.allowed == 1 and use.sufficient == {**sufficient, "depth": 0}


# --- what to grant instead -------------------------------------------------------------------------------------------


def proposed(server: Server, **facts: Any) -> dict[str, trails.Proposal]:
    return {" > ".join([*one.holders, one.task]): one for one in trails.propose(server.trail, **facts)}


def written(proposal: trails.Proposal) -> dict[str, Any]:
    """The keywords without those of position and time."""
    return {key: value for key, value in proposal.keywords.items() if key not in ("depth", "expires_in")}


def test_what_an_agent_did_in_a_task_is_put_together_whichever_token_it_had() -> None:
    """An agent is told by who held the token before it, and has to have what it handed on."""
    server = Server(values=True)
    for table, cents in (("sales", 5), ("hr", 9)):
        root = server.mint()
        server.tries(root.delegate(to="clerk"), data(table), data("people"))
        server.tries(root, tool("pay", cents=cents))
        server.verifier.authenticate(root)  # shown alone, which needs nothing
    found = proposed(server)
    root_of, clerk = found["orchestrator > task-123"], found["orchestrator > clerk > task-123"]
    assert len(found) == 2 and len(clerk.hops) == 2 and (len(clerk.allowed), len(clerk.denied)) == (2, 2)
    assert written(clerk) == {"tables": ["hr", "sales"], "operations": ["select"]} and clerk.keywords["depth"] == 0
    assert written(root_of) == {**written(clerk), "tools": {"pay": {"cents": {"in": [5, 9]}}}}
    assert root_of.keywords["depth"] == 1 and root_of.is_minted and not clerk.is_minted and clerk.agent == "clerk"
    assert root_of.lost == () and len(root_of.allowed) == 4


def test_what_is_proposed_is_minted_and_handed_on_as_it_stands_and_permits_just_that() -> None:
    server = Server(values=True)
    broad = server.mint(unrestricted=True)
    done = [Access(table="sales", operation="select", columns=["amount"]), tool("pay", cents=5)]
    server.tries(broad.delegate(to="clerk"), *done)
    top, clerk = trails.propose(server.trail)
    token = server.mint(**top.keywords).delegate(to="clerk", **clerk.keywords)
    assert all(server.verifier.explain(token, access) for access in done)
    refused = [tool("pay", cents=6), tool("mail"), Access(table="sales", operation="select", columns=["iban"]), data("hr")]
    assert [server.verifier.explain(token, access).code for access in refused] == ["argument", "tool", "column", "table"]


def test_how_long_a_token_was_in_use_is_told_in_whole_minutes() -> None:
    """Of what was minted: when a token was handed on, no record says."""
    for seconds, life in ((0, 60), (59, 60), (60, 120), (61, 120)):
        server = Server()
        token = server.mint()
        server.clock.advance(seconds - 1)
        server.tries(token, data("sales"))
        server.tries(token.delegate(to="clerk"), data("people"))
        top, clerk = trails.propose(server.trail)
        assert top.keywords["expires_in"] == life and "expires_in" not in clerk.keywords


def test_a_task_is_taken_with_those_below_it_as_one() -> None:
    server = Server()
    root = server.mint()
    for part, table in (("a", "sales"), ("b", "hr")):
        server.tries(root.delegate(to="clerk", task=f"task-123/{part}"), data(table))
    assert len(proposed(server)) == 3
    one = proposed(server, task="task-123")["orchestrator > clerk > task-123"]
    assert one.keywords["tables"] == ["hr", "sales"] and list(proposed(server, task="task-123/a")) == ["orchestrator > clerk > task-123/a"]
    assert proposed(server, task="other") == {}


def test_what_was_granted_bounds_what_was_not_recorded_where_all_had_the_same() -> None:
    for limits, bound in (((100, 100), {"max": 100, "min": 0}), ((100, 50), {"any": True})):
        server = Server()
        for limit in limits:
            server.tries(server.mint(tools={"pay": {"cents": {"max": limit}}}), tool("pay", cents=5))
        (one,) = trails.propose(server.trail)
        assert one.keywords["tools"] == {"pay": {"cents": bound}} and one.lost == ("argument cents of tool pay",)
    server = Server()
    server.tries(server.mint(unrestricted=True), Access(table="sales", operation="select", attributes={"region": "eu"}))
    assert trails.propose(server.trail)[0].lost == ("attribute region",)


def test_of_counts_the_most_is_told_that_one_token_came_to() -> None:
    server = Server(ledger=MemoryLedger(shared=True, floor=0))
    for times in (1, 3):
        token = server.mint(unrestricted=True, uses=9, budget={"cents": 50})
        server.tries(token, *[Access(tool="pay", cost={"cents": 2})] * times)
    (one,) = trails.propose(server.trail)
    assert (one.keywords["uses"], one.keywords["budget"]) == (3, {"cents": 6})


def test_a_dead_end_is_left_out_and_what_was_never_used_needs_nothing() -> None:
    server = Server()
    server.tries(server.mint(), data("people"))
    server.tries(server.mint(tables=[], operations=[]).delegate(to="clerk"), data("people"))
    (one,) = trails.propose(server.trail)
    assert one.keywords == {"tables": [], "depth": 0} and not one.allowed and len(one.denied) == 1


def test_a_proposal_tells_what_it_would_have_refused_of_what_was_done_since() -> None:
    """Of what it was made from nothing, as far as values are known."""
    server = Server(values=True)
    server.tries(server.mint(), data("sales"), tool("pay", cents=5))
    (one,) = trails.propose(server.trail)
    assert trails.refused_of(one, one.allowed) == []

    later = Server(values=True)
    later.tries(later.mint(), data("sales"), data("hr"), data("people"), tool("pay", cents=6))
    later.verifier.authenticate(later.mint())
    found = trails.refused_of(one, later.trail.decisions)
    assert [(refused.decision.seq, refused.is_certain) for refused in found] == [(3, True), (5, True)]
    assert "table hr" in found[0].why and "argument cents" in found[1].why

    unrecorded = Server()
    unrecorded.tries(unrecorded.mint(), tool("pay", cents=5))
    (unknown,) = trails.refused_of(one, unrecorded.trail.decisions)
    assert not unknown.is_certain and unknown.why == "not recorded: the value of argument cents"

    free = Server()
    free.tries(free.mint(unrestricted=True), Access())
    (anything,) = trails.propose(free.trail)
    assert trails.refused_of(anything, later.trail.decisions) == [] and written(anything) == {}


# --- what an overlay would change ------------------------------------------------------------------------------------


def test_a_revocation_denies_what_it_selects_and_leaves_the_rest() -> None:
    server = Server()
    root = server.mint()
    server.tries(root, data("sales"), data("people"))
    server.tries(root.delegate(to="clerk"), data("sales"))
    entry = ("revoke", {"agent": "clerk", "why": "lost"})
    assert replayed(server, entry) == [("same", ""), ("same", ""), ("denied", "revoked: lost")]
    assert replayed(server) == [("same", "")] * 3


NARROWING: list[tuple[dict[str, Any], Access, tuple[str, str], tuple[str, str]]] = [
    # what the entry says; the access; without values recorded; with
    ({"tables": ["hr"]}, data("sales"), ("denied", "table"), ("denied", "table")),
    ({"tables": ["sales"], "operations": ["select"]}, data("sales"), ("same", ""), ("same", "")),
    ({"tools": {"pay": {"cents": {"max": 9}}}}, tool("pay", cents=10), ("unknown", "argument cents"), ("denied", "cents")),
    ({"tools": {"pay": {"cents": {"max": 9}}}}, tool("pay", cents=9), ("unknown", "argument cents"), ("same", "")),
    ({"tools": {"pay": {"cents": {"any": True}}}}, tool("pay", cents=9), ("same", ""), ("same", "")),
    ({"tools": {"pay": {"cents": {"in": []}}}}, tool("pay", cents=9), ("denied", "cents"), ("denied", "cents")),
    ({"tools": {"pay": {"to": {"any": True}}}}, tool("pay", cents=9), ("denied", "cents"), ("denied", "cents")),
    (
        {"tools": {"pay": {"cents": {"in": [9], "optional": True}, "to": {"any": True, "optional": True}}}},
        tool("pay", cents=9), ("unknown", "argument cents"), ("same", ""),
    ),
    ({"tools": {"pay": {"cents": {"max": 9}}}}, tool("pay", cents=0.5), ("unknown", "cents"), ("unknown", "cents")),
    ({"tools": {"pay": {"to": {"each": {"in": ["jo"]}}}}}, tool("pay", to=["jo", "al"]), ("unknown", "argument to"), ("denied", "to")),
    ({"tools": {"pay": {"to": {"each": {"in": ["jo"]}}}}}, tool("pay", to=["jo"]), ("unknown", "argument to"), ("same", "")),
    ({"tools": {"pay": {"to": {"each": {"any": True}}}}}, tool("pay", to=["jo", None]), ("unknown", "to"), ("unknown", "to")),
    ({"where": {"region": {"in": ["null"]}}}, data("sales", region=None), ("unknown", "attribute region"), ("unknown", "attribute region")),
    ({"where": {"id": {"in": ["0x1000000000000000"]}}}, data("sales", id=2**60), ("unknown", "attribute id"), ("unknown", "attribute id")),
    ({"where": {"id": {"in": ["1.5"]}}}, data("sales", id="1.5"), ("unknown", "attribute id"), ("same", "")),
    ({"where": {"region": {"in": ["eu"]}}}, data("sales", region="us"), ("unknown", "attribute region"), ("denied", "region")),
    ({"where": {"region": {"in": ["eu"]}}}, data("sales", region="eu"), ("unknown", "attribute region"), ("same", "")),
    ({"where": {"region": {"in": ["eu"]}}}, data("sales"), ("denied", "region"), ("denied", "region")),
    ({"audience": "shop"}, data("sales"), ("unknown", "the name"), ("unknown", "the name")),
    ({"audience": "shop", "tables": ["hr"]}, data("sales"), ("denied", "table"), ("denied", "table")),
    ({"rows": {"sales": {"region": {"in": ["eu"]}}}}, data("sales"), ("unknown", "the row of table sales"), ("unknown", "the row")),
    ({"rows": {"hr": {"region": {"in": ["eu"]}}}}, data("sales"), ("same", ""), ("same", "")),
    ({"fresh": 5, "tables": ["sales"]}, data("sales"), ("unknown", "the overlay's age"), ("unknown", "the overlay's age")),
]  # fmt: skip


@pytest.mark.parametrize("values", [False, True], ids=["names", "values"])
@pytest.mark.parametrize(("said", "access", "by_names", "by_values"), NARROWING, ids=range(len(NARROWING)))
def test_a_narrowing_is_judged_as_far_as_values_were_recorded(
    said: dict[str, Any], access: Access, by_names: tuple[str, str], by_values: tuple[str, str], values: bool
) -> None:
    server = Server(values=values)
    token = server.mint(unrestricted=True)
    server.tries(token, access)
    outcome, why = by_values if values else by_names
    entry = ("narrow", {"task": "task-123", "why": "tonight", **said})
    (found,) = replayed(server, entry)
    if outcome != "unknown":  # a verifier that has the overlay says the same
        under = Verifier(KEYRING, clock=server.clock, overlay=overlay(entry))
        assert under.check(token, access).code == ("allowed" if outcome == "same" else "narrowed")
    assert found[0] == outcome and why in found[1]
    if outcome == "denied":
        assert found[1].startswith("tonight; ")


def test_a_decision_without_an_access_is_judged_by_what_needs_none() -> None:
    server = Server()
    server.verifier.authenticate(server.mint())
    assert replayed(server, ("narrow", {"task": "task-123", "why": "w", "tables": ["hr"]})) == [("same", "")]
    assert replayed(server, ("narrow", {"task": "task-123", "why": "w", "expires_at": NOW}))[0][0] == "denied"


def test_the_first_thing_that_is_missing_is_told_and_a_later_denial_counts_more() -> None:
    server = Server()
    server.tries(server.mint(), tool("pay", cents=1))
    asks = ("narrow", {"task": "task-123", "why": "w", "tools": {"pay": {"cents": {"max": 9}}}})
    asks_too = ("narrow", {"task": "task-123", "why": "w", "audience": "shop"})
    assert replayed(server, asks, asks_too) == [("unknown", "not recorded: the value of argument cents")]
    assert replayed(server, asks, ("revoke", {"task": "task-123", "why": "w"})) == [("denied", "revoked: w")]


def test_what_an_earlier_overlay_denied_stays_denied_or_cannot_be_known() -> None:
    store, clock = MemorySnapshots(), FixedClock(NOW)
    Operator(OPERATOR, store, by="user:ops", clock=clock).revoke(task="task-123", why="over")
    server = Server(overlay=Feed(store, [OPERATOR.public], clock=clock))
    server.tries(server.mint(), data("sales"))
    assert replayed(server, ("revoke", {"subject": "user:jane", "why": "w"})) == [("same", "revoked: w")]
    assert replayed(server, ("narrow", {"task": "task-123", "why": "w", "audience": "shop"}))[0][0] == "unknown"
    ((outcome, why),) = replayed(server)
    assert outcome == "unknown" and "this overlay would not deny it" in why


def test_a_token_that_no_record_describes_and_an_access_that_is_none_cannot_be_known() -> None:
    server = Server()
    server.tries(server.mint(), data("sales"))
    records = list(read(server.lines))
    lost = trails.gather([one for one in records if one["kind"] != "token"])
    entry = ("narrow", {"task": "task-123", "why": "w", "tables": ["hr"]})
    (one,) = trails.replay(lost, overlay(entry))
    assert (one.outcome, one.why) == ("unknown", "the records do not describe the token")
    records[-1]["access"] = {"table": "sales"}
    (one,) = trails.replay(trails.gather(records), overlay(entry))
    assert one.outcome == "unknown" and one.why.startswith("not recorded: an access (") and one.entry is not None


def test_what_an_earlier_request_had_taken_may_be_left_under_an_overlay_that_denies_it() -> None:
    """One use, that one agent has taken and another has missed; on another token nothing changes, nor where both are denied."""
    server = Server(ledger=MemoryLedger(shared=True, floor=0))
    root = server.mint(tables=["sales"], operations=["select"], uses=1)
    server.tries(root.delegate(to="a"), data("sales"))
    server.tries(root.delegate(to="b"), data("sales"))
    other = server.mint(tables=["sales"], operations=["select"], uses=1)
    server.tries(other, data("sales"), data("sales"))
    assert [one.code for one in server.trail.decisions] == ["allowed", "budget_exhausted"] * 2
    why = "what an earlier request had taken may be left"
    assert replayed(server, ("revoke", {"agent": "a", "why": "w"}))[:2] == [("denied", "revoked: w"), ("unknown", why)]
    assert replayed(server, ("revoke", {"agent": "a", "why": "w"}))[2:] == [("same", "")] * 2 == replayed(server)[2:]
    maybe = ("narrow", {"agent": "a", "why": "w", "audience": "shop"})
    assert [outcome for outcome, _ in replayed(server, maybe)] == ["unknown", "unknown", "same", "same"]
    assert replayed(server, ("revoke", {"token": root.token_id, "why": "w"}))[:2] == [("denied", "revoked: w"), ("same", "revoked: w")]
    assert [outcome for outcome, _ in replayed(server, ("revoke", {"agent": "b", "why": "w"}))] == ["same"] * 4


def test_the_leeway_that_was_recorded_is_given_again() -> None:
    """An entry that ends what it selects at a second ends it there and the leeway."""
    server = Server()
    server.tries(server.mint(), data("sales"))
    records = list(read(server.lines))
    entry = ("narrow", {"task": "task-123", "why": "w", "expires_at": NOW})
    for leeway, outcome in ((0, "denied"), (1, "denied"), (2, "same")):  # it was decided a second later
        records[-1]["leeway"] = leeway
        (one,) = trails.replay(trails.gather(records), overlay(entry))
        assert one.outcome == outcome


# --- what an agent can still do --------------------------------------------------------------------------------------


def test_the_reach_of_an_agent_is_what_it_has_and_has_handed_on_and_that_still_works() -> None:
    server = Server()
    clerk = server.mint().delegate(to="clerk", expires_in=100)
    helper = clerk.delegate(to="helper", expires_in=10)
    server.tries(helper, data("sales"))
    server.tries(clerk.delegate(to="nobody", tables=[], clamp=True), data("sales"))
    server.tries(server.mint(unrestricted=True, expires_at=None), data("sales"))
    trail = server.trail

    def reach(agent: str, now: int) -> list[tuple[str, str]]:
        return [(one.hop.id, one.cut.id) for one in trails.blast_radius(trail, agent, now)]

    assert reach("clerk", NOW) == [(clerk.link_id, clerk.link_id), (helper.link_id, clerk.link_id)]
    assert reach("clerk", NOW + 10) == [(clerk.link_id, clerk.link_id)]
    assert reach("clerk", NOW + 100) == reach("stranger", NOW) == []
    assert len(reach("orchestrator", NOW + 10**6)) == 1  # what never expires


def test_the_reach_is_no_narrower_than_what_a_server_may_permit() -> None:
    """A caveat that is not known here is named, and taken for one that permits; what has expired works for the leeway more."""
    server = Server()
    own = server.mint().attenuate(expires_in=100).with_raw_link(b'{"acme:region":"eu","tables":["sales"]}').delegate(to="clerk")
    server.tries(own, data("sales"))
    trail = server.trail
    (one,) = trails.blast_radius(trail, "clerk", NOW + 99)
    assert one.hop.unknown == ("acme:region",) and one.hop.capability.json()["tables"] == ["sales"]
    reached = [len(trails.blast_radius(trail, "clerk", NOW + now, leeway=leeway)) for now, leeway in ((100, 0), (100, 1), (129, 30), (130, 30))]
    assert reached == [0, 1, 1, 0]


def test_an_entry_on_the_link_cuts_off_all_that_is_within_reach() -> None:
    server = Server()
    clerk = server.mint().delegate(to="clerk")
    tokens = [clerk, clerk.attenuate(tables=["sales"]), clerk.delegate(to="helper")]
    for token in tokens:
        server.tries(token, data("sales"))
    (cut,) = {one.cut.id for one in trails.blast_radius(server.trail, "clerk", NOW)}
    again = replayed(server, ("revoke", {"link": cut, "why": "w"}))
    assert again == [("denied", "revoked: w")] * 3


def test_what_an_overlay_revokes_is_out_of_reach() -> None:
    server = Server()
    clerk = server.mint().delegate(to="clerk")
    called, helper = clerk.attenuate(tables=["sales"]), clerk.delegate(to="helper")
    for token in (called, helper):
        server.tries(token, data("sales"))

    def reached(*entries: tuple[str, dict[str, str]]) -> list[str]:
        overlaid = overlay(*((verb, {**said, "why": "w"}) for verb, said in entries))
        return [one.hop.agent for one in trails.blast_radius(server.trail, "clerk", NOW, overlay=overlaid)]

    assert reached(("revoke", {"agent": "stranger"})) == ["clerk", "helper"]
    assert reached(("revoke", {"link": called.link_id})) == ["clerk", "helper"]  # what it was narrowed to, and not what it has
    assert reached(("revoke", {"link": helper.link_id})) == ["clerk"]
    assert reached(("revoke", {"link": clerk.link_id})) == []
    assert reached(("narrow", {"link": clerk.link_id, "tables": ["sales"]})) == ["clerk", "helper"]  # type: ignore[dict-item]


# --- marks -----------------------------------------------------------------------------------------------------------

PAGE, ROWS, MAIL = tool("http.get"), data("crm.customers"), tool("mail.send")
RULE_OF_TWO: dict[str, Any] = {
    "tables": ["crm.*"],
    "operations": ["select"],
    "tools": {"http.get": {}, "mail.send": {}},
    "marks": {"private": {"tables": ["crm.*"]}, "untrusted": {"tools": ["http.get"]}, "outside": {"tools": ["mail.*"]}},
    "forbid": [{"in": ["outside"], "after": ["private", "untrusted"]}],
}


def marking(**facts: Any) -> Server:
    return Server(ledger=MemoryLedger(floor=0, shared=True), **facts)


def test_a_task_is_told_with_what_it_set_who_set_it_first_and_what_that_closed() -> None:
    """The specification's rule 46.9. A second token of the task, and one of a task below, are told with the first (46.3)."""
    server = marking()
    issuer = Issuer(KEYRING, clock=server.clock, random=fixed_random("three"))
    first, second = (issuer.mint(**{**WHO, "task": task}, **RULE_OF_TWO) for task in ("task-123/a", "task-123"))
    other = issuer.mint(**{**WHO, "task": "else"}, **RULE_OF_TWO)
    clerk = second.delegate(to="clerk")
    server.tries(first, PAGE, PAGE)
    server.tries(clerk, ROWS, MAIL)
    server.tries(first, MAIL)
    server.tries(other, ROWS)

    task, rest = trails.marked([server.trail])
    assert (task.subject, task.task, rest.task) == (WHO["subject"], "task-123", "else")
    told = [(mark.name, mark.of, mark.first.seq, mark.first.chain[-1].name) for mark in task.marks]
    assert told == [("untrusted", "task", 2, WHO["agent"]), ("private", "task", 5, "clerk")]
    assert [one.chain[-1].name for one in task.closed] == ["clerk", WHO["agent"]]
    assert {trails.rule_of(one) for one in task.closed} == {"nothing in outside after private and untrusted"}
    assert [mark.name for mark in rest.marks] == ["private"] and rest.closed == []


def test_of_several_trails_the_first_that_set_a_mark_is_told() -> None:
    late, early = marking(), marking()
    token = late.mint(**RULE_OF_TWO)
    late.clock.advance(60)
    late.tries(token, ROWS)
    early.tries(token, ROWS, Access(tool="in.no.mark"))
    for order in ([late, early], [early, late]):
        (task,) = trails.marked(server.trail for server in order)
        assert [(mark.name, mark.first.at) for mark in task.marks] == [("private", NOW + 1)]


def test_a_mark_of_a_later_link_or_of_an_entry_is_told_as_that() -> None:
    store = MemorySnapshots()
    operator = Operator(OPERATOR, store, by="user:ops", clock=FixedClock(NOW))
    rule = {"marks": {"private": {"tables": ["crm.*"]}, "outside": {"tools": ["mail.*"]}}, "forbid": [{"in": ["outside"], "after": ["private"]}]}
    operator.narrow(task="task-123", why="watched", **rule)
    server = marking(overlay=Feed(store, [OPERATOR.public], clock=FixedClock(NOW)), max_staleness=3600)
    child = server.mint(tables=["crm.*"], operations=["select"], tools={"mail.send": {}}).attenuate(**rule)
    server.tries(child, ROWS, MAIL)
    (task,) = trails.marked([server.trail])
    assert [(mark.name, mark.of) for mark in task.marks] == [("private", child.link_id), ("private", "entry")]
    assert [trails.rule_of(one) for one in task.closed] == ["nothing in outside after private"]


@pytest.mark.parametrize("at", [-1, 0, 1, 9])
def test_a_place_that_no_link_has_names_none(at: int) -> None:
    assert trails.whose_mark(["a"], trails.InMark("m", at)) == "task" and trails.whose_mark(["a", "b"], trails.InMark("m", 1)) == "b"


def test_a_denial_after_a_mark_may_go_another_way_where_what_set_it_would() -> None:
    """Whichever token of the task set it, and of another task none."""
    server = marking()
    issuer = Issuer(KEYRING, clock=server.clock, random=fixed_random("two"))
    first, second = (issuer.mint(**{**WHO, "task": task}, **RULE_OF_TWO) for task in ("task-123/a", "task-123"))
    server.tries(first, PAGE, ROWS)
    server.tries(second, MAIL)
    assert [outcome for outcome, _ in replayed(server)] == ["same"] * 3
    reader = ("revoke", {"token": first.unverified.root.token_id, "why": "x"})
    assert replayed(server, reader)[2] == ("unknown", "what an earlier request had marked may not be")

    server.tries(issuer.mint(**{**WHO, "task": "else"}, **RULE_OF_TWO), PAGE, ROWS, MAIL)
    assert [outcome for outcome, _ in replayed(server, reader)] == ["denied", "denied", "unknown", "same", "same", "same"]


def test_what_a_rule_of_a_proposed_entry_closes_is_not_guessed() -> None:
    server = marking()
    server.tries(server.mint(**RULE_OF_TWO), ROWS, MAIL)
    closing: dict[str, Any] = {
        "task": "task-123",
        "why": "watched",
        "marks": {"outside": {"tools": ["mail.*"]}, "private": {"tables": ["crm.*"]}},
        "forbid": [{"in": ["outside"], "after": ["private"]}],
    }
    assert replayed(server, ("narrow", closing)) == [("same", ""), ("unknown", "not recorded: which marks are set by then")]
    del closing["forbid"]
    assert [outcome for outcome, _ in replayed(server, ("narrow", closing))] == ["same"] * 2


def test_what_is_proposed_has_the_marks_and_rules_of_the_token() -> None:
    server = marking()
    root = server.mint(**RULE_OF_TWO)
    own = {"marks": {"private": {"tables": ["crm.customers"]}}, "forbid": [{"in": ["private"], "after": ["private"]}]}
    clerk = root.delegate(to="clerk")
    helper = clerk.delegate(to="helper", tools={"mail.send": {}}, **own)
    server.tries(root, ROWS)
    server.tries(clerk, MAIL)
    server.tries(helper, MAIL)
    minted, handed, narrower = trails.propose(server.trail)
    assert {key: minted.keywords[key] for key in ("marks", "forbid")} == {key: RULE_OF_TWO[key] for key in ("marks", "forbid")}
    assert "marks" not in handed.keywords and "forbid" not in handed.keywords, "what the root says need not be said again"
    assert {key: narrower.keywords[key] for key in ("marks", "forbid")} == own

    # It can be minted, and closes what the other closed.
    again = Issuer(KEYRING, clock=server.clock).mint(**{**WHO, "task": "else"}, **minted.keywords)
    server.tries(again, ROWS, PAGE, MAIL)
    assert [one.code for one in server.trail.decisions][-3:] == ["allowed", "tool", "allowed"]

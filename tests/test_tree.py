"""One tree of the tokens in one trail or several, and what of it is proven."""

from __future__ import annotations

import json
from typing import Any

import pytest

from captoken import Access, Issuer, Verifier
from captoken.audit import AuditTrail, read
from captoken.audit import analysis as trails
from captoken.keys import HolderKey
from captoken.testing import FixedClock, fixed_random
from tests.fixtures import KEYRING, NOW, WHO, data, tool
from tests.test_analysis import RIGHTS, ROOT, Server, record, said

FIRST, SECOND, DISCHARGER = (HolderKey.from_bytes(bytes(range(n, n + 32))) for n in (3, 4, 5))


def test_hops_are_put_below_those_that_handed_over_and_count_what_was_done_with_their_tokens() -> None:
    server = Server()
    root = server.mint()
    clerk = root.delegate(to="clerk", task="task-123/a")
    server.tries(clerk.attenuate(tables=["sales"]), data("sales"), data("hr"))  # of the clerk's hop still
    server.tries(clerk.delegate(to="helper"), data("sales"))
    server.tries(clerk, data("sales"))
    server.verifier.authenticate(clerk)  # shown, and no access was asked: no access was allowed
    server.tries(server.mint(), data("sales"))
    server.checkpoint()
    trail = server.trail
    (first, second) = trail.roots
    seen = [(hop.holders, hop.basis, hop.task, hop.allowed, hop.denied, hop.shown) for hop in first.walk()]
    assert seen == [
        (("orchestrator",), "issued", "task-123", 0, 0, 0),
        (("orchestrator", "clerk"), "vouched", "task-123/a", 2, 1, 1),
        (("orchestrator", "clerk", "helper"), "vouched", "task-123/a", 1, 0, 0),
    ]
    assert second.allowed == 1 and [hop.agent for hop in trail.hops()] == ["orchestrator", "clerk", "helper", "orchestrator"]
    assert first.below[0].id == clerk.link_id and not trail.strange


def test_who_did_what_is_printed_in_a_line_for_each_holder_and_a_repr_has_one() -> None:
    """However much was recorded."""
    server = Server()
    assert str(server.trail) == "nothing was decided"
    root = server.mint()
    server.tries(root, data("sales"))
    server.tries(root.delegate(to="clerk", task="task-123/a"), data("sales"), data("hr", "delete"))
    trail = server.trail
    assert str(trail).splitlines() == [
        "orchestrator, task task-123: 1 allowed, 0 denied",
        "orchestrator > clerk, task task-123/a: 1 allowed, 1 denied",
    ]
    assert repr(trail) == "<History of 3 decisions, 1 denied: print it, or hops()>"
    assert repr(trail.roots) == "[<Hop orchestrator, task task-123: 1 allowed, 0 denied>]"

    for _ in range(50):
        server.tries(server.mint(), data("sales"))
    assert str(server.trail).splitlines()[48:] == ["orchestrator, task task-123: 1 allowed, 0 denied"] * 2 + ["…"]


def test_a_name_is_proven_once_a_server_has_seen_the_signature() -> None:
    server = Server()
    token = server.mint(**RIGHTS, key=FIRST.public).delegate(to="clerk", key=SECOND.public, signer=FIRST)
    server.tries(token, data("sales"))  # denied for want of a proof, with the hand-over checked
    assert [hop.basis for hop in server.trail.hops()] == ["issued", "proven"]


def test_what_no_record_describes_is_set_apart() -> None:
    server = Server()
    server.tries("cap1_nonsense", data("sales"))
    server.tries(server.mint(), data("sales"))
    described = [one for one in read(server.lines) if one["kind"] != "token"]
    trail = trails.gather(described)
    assert [one.code for one in trail.strange] == ["malformed", "allowed"] and not trail.roots


def test_a_third_party_and_a_link_that_prohibits_everything_are_known_as_such() -> None:
    asking = {"id": "B" * 21 + "A", "says": {"asks": "?"}}
    opaque = {"id": "C" * 21 + "A", "says": {"acme:new": 1}}
    first = {"id": "D" * 21 + "A", "says": {"tables": ["sales"]}}
    (hop,) = trails.gather([record(root=ROOT, links=[first, asking])]).hops()
    assert not hop.asks and not hop.is_dead  # of the hop: what came after the link that it began with is the holder's
    handing = {"id": "E" * 21 + "A", "says": {"from": "a", "n": "A" * 11, "to": "b"}}
    _, hop = trails.gather([record(root=ROOT, links=[first, asking, handing])]).hops()
    assert hop.asks and not hop.is_dead
    _, hop = trails.gather([record(root=ROOT, links=[first, opaque, handing])]).hops()
    assert not hop.is_dead and hop.unknown == ("acme:new",) and hop.capability.json()["tables"] == ["sales"]
    unreadable = {"id": "C" * 21 + "A", "says": {"unreadable": True}}
    broken = {"id": "C" * 21 + "A", "says": {"exp": "soon"}}
    for dead in (unreadable, broken):
        (hop,) = trails.gather([record(root=ROOT, links=[dead])]).hops()
        assert hop.is_dead and trails.unused(trails.gather([record(root=ROOT, links=[dead])])) == []


def test_what_is_known_of_a_link_holds_whatever_else_it_says() -> None:
    """Where a caveat is not known, the others are; where they cannot be read without it, who is handed the token still is."""
    handing = {"from": "a", "n": "A" * 11, "to": "b"}
    for says, holders, stated in (
        ({"acme:region": "eu", "acme:zone": 1, "tables": ["sales"]}, ("a",), {"tables": ["sales"]}),
        ({"acme:region": "eu", "exp": 7, **handing}, ("a", "b"), {"exp": 7}),
        ({"acme:region": "eu", "exp": "soon", **handing}, ("a", "b"), {}),
        ({"acme:region": "eu", "n": "A" * 11}, ("a",), {}),
    ):
        (*_, hop) = trails.gather([record(root=ROOT, links=[{"id": "C" * 21 + "A", "says": says}])]).hops()
        assert hop.holders == holders and stated.items() <= hop.capability.json().items() and not hop.is_dead
        assert hop.unknown == tuple(sorted(key for key in says if key.startswith("acme:")))
        (use,) = trails.unused(trails.gather([record(root=ROOT, links=[{"id": "C" * 21 + "A", "says": says}])]))
        assert use.hop.unknown == hop.unknown


class Apart:
    """Two servers of one set, each with keys and a trail of its own."""

    RIGHTS: dict[str, Any] = {"sales-db": {"tables": ["sales"], "operations": ["select"]}, "mail": {"tools": {"send": {}}}}

    def __init__(self, names: str = "a set") -> None:
        self.clock = FixedClock(NOW)
        self.lines: dict[str, list[bytes]] = {name: [] for name in self.RIGHTS}
        self.set = Issuer(KEYRING, clock=self.clock, random=fixed_random(names)).mint_set(**WHO, servers=self.RIGHTS)
        self.verifiers = {
            name: Verifier(KEYRING.for_audience(name), name, clock=self.clock, audit=AuditTrail(kept.append))
            for name, kept in self.lines.items()
        }

    def tries(self, token: Any, access: Access) -> None:
        self.verifiers[token.unverified.root.audience].check(token, access)

    @property
    def trails(self) -> dict[str, trails.History]:
        return {name: trails.gather(read(lines)) for name, lines in self.lines.items()}


def test_the_trails_of_a_set_are_one_tree_and_each_says_for_itself() -> None:
    """(45.8) By the id of the set and the `n` on the way: of no two links of it is the id one."""
    apart = Apart()
    clerk = apart.set.delegate(to="clerk", expires_in=60)
    helper = clerk.delegate(to="helper", expires_in=30)
    again = apart.set.delegate(to="clerk", expires_in=60)
    apart.tries(clerk.token("mail"), tool("send"))
    apart.tries(clerk.token("sales-db").attenuate(expires_in=20), data("sales"))
    apart.tries(helper.token("mail"), tool("post"))
    apart.tries(again.token("sales-db"), data("hr"))
    apart.tries(Apart("another").set.token("mail"), tool("send"))

    joined = trails.join(apart.trails)
    assert said(joined) == [
        ("orchestrator", [("sales-db", 0, 0), ("mail", 0, 0)]),
        ("clerk", [("sales-db", 1, 0), ("mail", 1, 0)]),
        ("helper", [("mail", 0, 1)]),
        ("clerk", [("sales-db", 0, 1)]),
        ("orchestrator", [("mail", 1, 0)]),
    ]
    first, *_ = joined
    assert [one.nonce for one in first.walk()] == [None, *map(_n, (clerk, helper, again))]
    assert repr(first) == "<Joined orchestrator, task task-123: 2 said>" and first.root.token_id == apart.set.token("mail").token_id


def _n(held: Any) -> str:
    return json.loads(held.token("mail").unverified.bodies[-1])["n"]


def test_one_trail_that_tells_of_all_tokens_of_a_set_is_joined_too() -> None:
    apart = Apart()
    clerk = apart.set.delegate(to="clerk", expires_in=60)
    lines: list[bytes] = []
    trail = AuditTrail(lines.append)
    for name, access in (("mail", tool("send")), ("sales-db", data("sales"))):
        Verifier(KEYRING.for_audience(name), name, clock=apart.clock, audit=trail).check(clerk.token(name), access)
    joined = trails.join({"office": trails.gather(read(lines))})
    assert said(joined) == [("orchestrator", [("office", 0, 0)] * 2), ("clerk", [("office", 1, 0)] * 2)]
    assert [hop.root.audience for _, hop in joined[0].said] == ["mail", "sales-db"]


@pytest.mark.parametrize(
    "changed", [{"sub": "user:eve"}, {"agent": "eve"}, {"task": "task-9"}, {"iat": 2}, {"jti": "B" * 21 + "A"}], ids=lambda one: next(iter(one))
)
def test_a_server_that_writes_another_root_record_has_a_tree_of_its_own(changed: dict[str, Any]) -> None:
    link = {"id": "A" * 22, "says": {"tools": {}}}
    one, two = (trails.gather([record(root=root, links=[link])]) for root in (ROOT, ROOT | changed))
    assert len(trails.join({"one": one, "two": one})) == 1 and len(trails.join({"one": one, "two": two})) == 2


def test_a_server_that_writes_another_receiver_has_a_line_of_its_own() -> None:
    """And so has a hand-over that cannot be read: it has no `n` to join by."""

    def seen(at: str, to: str, **more: Any) -> trails.History:
        says = {"from": "a", "n": "MPOF0Cvxg5E", "to": to, **more}
        links = [{"id": f"{at}{'A' * 21}", "says": {"tools": {}}}, {"id": f"{at}{'B' * 20}A", "says": says}]
        return trails.gather([record(root=ROOT, links=links)])

    assert [one.agent for one in trails.join({"one": seen("A", "b"), "two": seen("Q", "b")})[0].below] == ["b"]
    assert [one.agent for one in trails.join({"one": seen("A", "b"), "two": seen("Q", "c")})[0].below] == ["b", "c"]
    own = {"acme:x": 1}
    assert len(trails.join({"one": seen("A", "b", **own), "two": seen("Q", "b", **own)})[0].below) == 1
    bad = {"tables": 5}
    apart = trails.join({"one": seen("A", "b", **bad), "two": seen("Q", "b", **bad)})[0].below
    assert [(one.agent, one.nonce) for one in apart] == [("b", None), ("b", None)]

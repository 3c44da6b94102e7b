"""Who holds the token after each link: hand-overs, depth and keys, from left to right (spec 20)."""

from __future__ import annotations

from typing import Any

import pytest

from captoken._language.lineage import follow, read_along, step
from captoken._language.link import BadLink, Lineage, Link
from captoken._language.reasons import Reason

KEY, OTHER = bytes(31) + b"\1", bytes(31) + b"\2"


def link(sender: str | None = None, receiver: str | None = None, **said: Any) -> Link:
    return Link((), sender=sender, receiver=receiver, **said)


@pytest.mark.parametrize(
    ("before", "next_link", "after"),
    [
        (Lineage(("a",)), link("a", "b"), Lineage(("a", "b"))),
        (Lineage(("a",)), link(), Lineage(("a",))),
        (Lineage(("a",), left=1), link("a", "b"), Lineage(("a", "b"), left=0)),
        # A bound holds for the links behind its own, and is never lifted by a later one.
        (Lineage(("a",)), link("a", "b", depth=0), Lineage(("a", "b"), left=0)),
        (Lineage(("a",), left=1), link(depth=5), Lineage(("a",), left=1)),
        (Lineage(("a",), left=5), link(depth=1), Lineage(("a",), left=1)),
        # What is owed is paid by a hand-over, and asked for anew by its own link.
        (Lineage(("a",), must_delegate=True), link("a", "b"), Lineage(("a", "b"))),
        (Lineage(("a",), must_delegate=True), link(), Lineage(("a",), must_delegate=True)),
        (Lineage(("a",)), link("a", "b", delegate_only=True), Lineage(("a", "b"), must_delegate=True)),
        (Lineage(("a",), key=KEY), link("a", "b", key=OTHER), Lineage(("a", "b"), key=OTHER)),
        (Lineage(("a",), key=KEY), link(), Lineage(("a",), key=KEY)),
    ],
)
def test_a_link_leads_to_the_next_state(before: Lineage, next_link: Link, after: Lineage) -> None:
    assert step(before, next_link) == after


@pytest.mark.parametrize(
    ("before", "next_link", "code"),
    [
        (Lineage(("a", "b")), link("a", "c"), "broken_delegation"),
        (Lineage(("a", "b")), link("b", "a"), "broken_delegation"),
        (Lineage(("a",)), link("a", "a"), "broken_delegation"),
        (Lineage(("a",), key=KEY), link("a", "b"), "broken_delegation"),
        (Lineage(("a",), left=0), link("a", "b"), "too_deep"),
        # A chain that makes no sense is said to be broken, and not too deep.
        (Lineage(("a", "b"), left=0), link("a", "c"), "broken_delegation"),
    ],
)
def test_a_hand_over_that_breaks_the_chain_says_why(before: Lineage, next_link: Link, code: str) -> None:
    reason = step(before, next_link)
    assert isinstance(reason, Reason) and reason.code == code


def test_a_chain_is_followed_to_where_it_breaks() -> None:
    links = [link("a", "b", depth=1), link(), link("b", "c"), link("c", "d")]
    assert follow("a", links[:3]) == Lineage(("a", "b", "c"), left=0)
    broken = follow("a", links)
    assert isinstance(broken, tuple) and broken[0] == 3 and broken[1].code == "too_deep"


def test_holders_read_along_what_a_verifier_stops_at() -> None:
    """A link that breaks the chain is passed over, and one that prohibits everything still says who."""
    assert read_along("a", [link("a", "b"), link("x", "y"), link("b", "c")]) == Lineage(("a", "b", "c"))
    bad = BadLink("unreadable", "what is wrong", receiver="c", key=KEY)
    assert read_along("a", [link("a", "b"), bad]) == Lineage(("a", "b", "c"), key=KEY)
    assert read_along("a", [link("a", "b"), BadLink("unreadable", "what is wrong", receiver="a")]) == Lineage(("a", "b"))


def test_the_first_name_is_the_issuers_and_the_others_are_as_good_as_their_proof() -> None:
    chain = Lineage(("a", "b", "c")).chain(frozenset("c"))
    assert [(actor.name, actor.basis) for actor in chain] == [("a", "issued"), ("b", "vouched"), ("c", "proven")]
    assert Lineage(("a", "b")).holder == "b"

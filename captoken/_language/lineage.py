"""The state machine of the chain: who holds the token after each link, and what that position decides (spec, "Lineage").

It folds left to right and has no meet: `step(link)` gives the next state or the reason why the chain breaks there.
`depth` and `delegate_only` stop a deputy that is confused, not one that lies about who it is: a holder that hands its
bearer token on without a word has not delegated as far as anyone can see.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from captoken._language.links import BadLink, Link
from captoken._language.reasons import Reason

Basis = Literal["issued", "vouched", "proven"]


class Actor(msgspec.Struct, frozen=True):
    """An agent's name and how it is known: `issued` by the root record, `vouched` for by whoever handed on, or `proven`:
    the key that the token was bound to signed the hand-over."""

    name: str
    basis: Basis


class Lineage(msgspec.Struct, frozen=True):
    """The agents that have held the token, in order, and what is asked of later links."""

    holders: tuple[str, ...]  # the root's agent first, the current holder last
    left: int | None = None  # how many more delegations; None is no bound
    must_delegate: bool = False  # some later link must delegate
    key: bytes | None = None  # the Ed25519 key that the token is bound to

    @property
    def holder(self) -> str:
        return self.holders[-1]

    def chain(self, proven: frozenset[str] = frozenset()) -> tuple[Actor, ...]:
        """The holders with the basis on which their names are known: only the first was written by the issuer.

        `proven` are those whose hand-over was signed by the key that the token was bound to, as somebody has checked.
        """
        first, *later = self.holders
        return (
            Actor(first, "issued"),
            *(Actor(name, "proven" if name in proven else "vouched") for name in later),
        )

    def step(self, link: Link) -> Lineage | Reason:
        """The state after `link`, or why the chain breaks at it."""
        receiver, depth = link.receiver, link.depth
        if receiver is None and depth is None and link.key is None and not link.delegate_only:
            return self
        holders, left, must_delegate = self.holders, self.left, self.must_delegate
        if receiver is not None:
            if link.sender != holders[-1]:
                return Reason(
                    "broken_delegation",
                    f"{link.sender} delegates, but {holders[-1]} holds the token",
                )
            if receiver in holders:
                return Reason("broken_delegation", f"{receiver} has held the token before")
            if self.key is not None and link.key is None:
                return Reason(
                    "broken_delegation",
                    f"the token is bound to a key, and {receiver} is named without one",
                )
            if left == 0:
                return Reason(
                    "too_deep", f"delegated to {receiver}, but no more delegations are permitted"
                )
            holders, left, must_delegate = (
                (*holders, receiver),
                None if left is None else left - 1,
                False,
            )
        if depth is not None:  # it bounds later links, not its own
            left = depth if left is None else min(left, depth)
        return Lineage(holders, left, must_delegate or link.delegate_only, link.key or self.key)


def read_along(agent: str, links: Iterable[Link | BadLink]) -> Lineage:
    """The lineage as far as it can be read, for holders: passes over links that prohibit anyway. Not for verifying."""
    lineage = Lineage((agent,))
    for link in links:
        if isinstance(link, BadLink):
            holders, key = lineage.holders, link.key or lineage.key
            if link.receiver is not None and link.receiver not in holders:
                lineage = Lineage((*holders, link.receiver), lineage.left, False, key)
            else:
                lineage = Lineage(holders, lineage.left, lineage.must_delegate, key)
            continue
        after = lineage.step(link)
        if isinstance(after, Lineage):
            lineage = after
    return lineage

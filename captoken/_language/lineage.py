"""The state machine of the chain: who holds the token after each link (spec, "Lineage").

It folds from left to right and has no meet. Each link gives the next state, or the reason why the
chain breaks there. `depth` and `delegate_only` stop a deputy that is confused, not one that lies
about who it is: a holder that hands its bearer token on without a word has not delegated as far as
anyone can see.

The states and rows are those of the table in the specification:

    holders         in order; the root's agent alone at first
    left            how many more hand-overs are permitted; no bound at first
    must_delegate   a hand-over is owed; no at first
    key             the one that the token is bound to; none at first

What is not checked here: whether a name belongs to anybody, and whether a signature holds. What is
answered is a deputy that hands on more often than it was allowed to, or to whom it should not.

Caveats do not need this order: each is judged alone. Lineage does, because a hand-over is right or
wrong by who held the token before it. So it is the one part that an inserted link could confuse,
and only a holder can add a link, at the end.

    step(Lineage(("a",)), link)    # link: from a, to b. The holders are a, b
    step(Lineage(("a",)), link)    # link: from c, to b. Reason: broken_delegation
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import structs

from captoken._language.link import BadLink, Lineage, Link
from captoken._language.reasons import Reason


def step(lineage: Lineage, link: Link) -> Lineage | Reason:
    """The state after `link`, or why the chain breaks at it (spec 20).

    Looks at names, depth and whether a key is named. Does not judge caveats, and does not verify
    the custody signature: the verifier does. Never raises.
    """
    after = _followed(lineage, (link,))
    return after if isinstance(after, Lineage) else after[1]


def follow(agent: str, links: Iterable[Link]) -> Lineage | tuple[int, Reason]:
    """The lineage after all `links` of a chain, or at which of them it breaks, and why.

    One pass from left to right, and no meet. Each state depends on the one before: who may hand on
    is whoever was handed the token last. Two links cannot be judged apart and joined afterwards.

    Whether a delegation is still owed at the end, the lineage says as `must_delegate`: a fold
    cannot, since a later link may pay it. The index counts from 0, third-party caveats included.
    """
    return _followed(Lineage((agent,)), links)


def _followed(start: Lineage, links: Iterable[Link]) -> Lineage | tuple[int, Reason]:
    """The state after all `links`, or at which of them the chain breaks, and why.

    Of each link first the hand-over, then what binds later links. So a link with `depth` 0 may
    itself hand on: it bounds those that come after. One list grows, so that a chain of n links
    costs n steps and not n copies.
    """
    holders = list(start.holders)
    left = start.left
    must_delegate = start.must_delegate
    key = start.key
    for at, link in enumerate(links):
        receiver = link.receiver
        if receiver is not None:
            reason = _refused(link, holders, left, key)
            if reason is not None:
                return at, reason
            holders.append(receiver)
            # A hand-over pays what an earlier link asked for. What this link asks is set below.
            must_delegate = False
            if left is not None:
                left -= 1
        depth = link.depth
        if depth is not None and (left is None or depth < left):
            left = depth  # it bounds later links, not its own
        if link.delegate_only:
            must_delegate = True
        # The new key is the one that has to sign from the next link on.
        if link.key is not None:
            key = link.key
    return Lineage(tuple(holders), left, must_delegate, key)


def _refused(
    link: Link,
    holders: Sequence[str],
    left: int | None,
    key: bytes | None,
) -> Reason | None:
    """Why a hand-over breaks the chain, or None (spec 20). `left` and `key` are of the link before.

    In this order: the sender holds the token; the receiver has not held it; a bound token names a
    new key; the depth is not used up. The first two are about who, so that a chain that makes no
    sense is said to be broken, and not too deep.

    The second keeps each name in one place, so that who acted for whom has one answer. The third
    keeps a bound token bound: the receiver would else have no key to prove with.
    """
    holder = holders[-1]
    if link.sender != holder:
        text = f"{link.sender} delegates, but {holder} holds the token"
        return Reason("broken_delegation", text)
    if link.receiver in holders:
        return Reason("broken_delegation", f"{link.receiver} has held the token before")
    if key is not None and link.key is None:
        text = f"the token is bound to a key, and the hand-over to {link.receiver} names none"
        return Reason("broken_delegation", text)
    if left == 0:
        text = f"delegated to {link.receiver}, but no more delegations are permitted"
        return Reason("too_deep", text)
    return None


def read_along(agent: str, links: Sequence[Link | BadLink]) -> Lineage:
    """The lineage as far as it can be read, for holders: passes over links that prohibit anyway.

    Not for verifying. A link that breaks the chain is left out here, and a verifier stops at it.
    """
    readable = [link for link in links if isinstance(link, Link)]
    if len(readable) == len(links):
        followed = follow(agent, readable)
        if isinstance(followed, Lineage):  # nearly always: nothing is to be passed over
            return followed
    lineage = Lineage((agent,))
    for link in links:
        # A reason that a step gives is dropped here. A verifier would stop at it.
        if isinstance(link, BadLink):
            lineage = _past(lineage, link)
            continue
        after = step(lineage, link)
        if isinstance(after, Lineage):
            lineage = after
    return lineage


def _past(lineage: Lineage, link: BadLink) -> Lineage:
    """What a link that prohibits everything says of the chain, where that can be read.

    For showing alone. No check of the sender: nothing of this is used anywhere.
    """
    key = link.key or lineage.key
    if link.receiver is None or link.receiver in lineage.holders:
        return structs.replace(lineage, key=key)
    holders = (*lineage.holders, link.receiver)
    return Lineage(holders, lineage.left, False, key)

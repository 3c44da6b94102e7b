"""The check that a new link does not ask for more than is held (spec, "Widening").

It is for the one who narrows, who should learn of a mistake now and not from a denial. It is not
what makes narrowing safe: verifiers ask every link, so a link that asks for more gains nothing. So
it must never be called, or relied on, when a token is verified.

What a caveat covers, it says itself. Here is only what is done with the answers.

The order of the checks is that of the specification (23.3), so that every writer gives the same
first error. Nothing here reads the clock, and nothing needs a key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from captoken._format import names
from captoken._format.errors import DelegationError, WideningError
from captoken._language.capability import Capability, says_it_covers
from captoken._language.caveats import BUILT_IN, V1, is_own
from captoken._language.conditions import Audience, Task
from captoken._language.kinds import ASK_FOR_LESS, ASK_FOR_OTHER, BuiltIn, Caveat, Excess
from captoken._language.link import Lineage
from captoken._writing.holding import Holding


def narrowed(
    holding: Holding,
    wanted: Mapping[str, Caveat],
    clamp: bool,
) -> dict[str, Any]:
    """The JSON of a link that asks for `wanted`, checked against what is held.

    Raises WideningError.

    With `clamp`, what is asked for too much is cut to what is held, dimension by dimension, and
    WideningError says `nothing_left` if that is nothing (23.15). The error says what was asked,
    what is held, and what of it is too much.
    """
    # As it was asked for. What the link does not name is not copied into it (23.2).
    stated = {key: caveat.value for key, caveat in wanted.items()}
    if holding.plainly_covers(wanted):  # nearly always
        return stated

    for excess in _excesses(holding.capability, wanted):
        # The first excess is the error (23.3).
        if not clamp:
            raise _error(excess)

        # Nothing is left of this dimension: whoever asks for a tool and gets none hears of it.
        if excess.leaves_nothing:
            raise _error(excess, nothing_left=True)

        # What is left takes the place of what was asked, maybe under other keys (23.15): what was
        # asked as tables and operations may be left as `allow`.
        replaced = excess.replaces or (excess.dimension,)
        # Popped first, so that a key that stays gets its new value below.
        for key in replaced:
            stated.pop(key, None)
        _check_can_be_written(excess)
        stated.update(excess.left)

    return stated


def _check_can_be_written(excess: Excess) -> None:
    """Raise WideningError where what is left is more than one link can say: a long list of urls.

    Cut once more, it would be less than what was asked for and held, and nobody could tell why.
    """
    try:
        for key, value in excess.left.items():
            V1.kinds[key](value)
    except ValueError as error:
        hint = f"the overlap cannot be written as a link: {error}; ask for less"
        raise WideningError(
            excess.dimension,
            excess.asked,
            excess.held,
            excess.excess,
            hint,
        ) from None


def _excesses(held: Capability, wanted: Mapping[str, Caveat]) -> Iterator[Excess]:
    """All that is asked for beyond what is held, in the order of 23.3, own ones last.

    Compares, and raises nothing of its own. Lineage is not looked at: `positioned` does.
    """
    # Whoever holds everything asks for no more: an issuer, and an operator.
    if not held.held and not held.own:
        return

    for slot, keys in _KEYS_HELD.items():
        # What no link has named is not bounded, and what is not asked for is in no excess.
        if slot in held.held and not wanted.keys().isdisjoint(keys):
            asked = {key: wanted[key] for key in keys if key in wanted}
            yield from held.held[slot].beyond(asked)

    # Own caveats are held side by side: each of them has to cover what is asked for (23.12).
    # Two of them in the order of their keys, whatever the writer's order was (23.3).
    for key in sorted(wanted):
        caveat = wanted[key]
        if is_own(key):
            # All of them, since none replaced another. With none held, everything is covered.
            have = [other for other in held.own if other.key == key]
            # `covers` is an embedder's hook. What it answers wrongly, verifiers make good.
            is_covered = all(says_it_covers(other, caveat) for other in have)
            if not is_covered:
                # Nothing is left of it, also with `clamp`: what a part of it is, only its own
                # project could say (23.15).
                yield Excess(
                    key,
                    caveat.value,
                    [other.value for other in have],
                    caveat.value,
                    {},
                    "the token's own caveat does not cover it, by its `covers`",
                )


def _keys_held() -> dict[str, tuple[str, ...]]:
    """The keys of the caveats of version 1, by what a capability holds them under.

    `tables`, `operations`, `allow` and `columns` are held as one map, so they are compared as one.
    The order is that of 23.3, whatever the writer's order was: that of `BUILT_IN`, but that `aud`
    comes before `task`.
    """
    order: list[type[BuiltIn]] = [kind for kind in BUILT_IN if kind is not Task]
    order.insert(order.index(Audience) + 1, Task)

    keys: dict[str, tuple[str, ...]] = {}
    for kind in order:
        keys[kind.slot()] = (*keys.get(kind.slot(), ()), kind.key)
    return keys


_KEYS_HELD = _keys_held()


def _error(excess: Excess, nothing_left: bool = False) -> WideningError:
    """The error for one excess, with what would have been right. It is made here, not raised.

    What it names, it names also where a clamp would leave nothing: to leave out one argument that
    is constrained may be why.
    """
    if nothing_left:
        code = "nothing_left"
        hint = excess.cause or "the token has nothing of what you ask for"
    else:
        code = "widening"
        hint = excess.hint
        if hint == ASK_FOR_LESS and excess.leaves_nothing:
            hint = ASK_FOR_OTHER
            if excess.cause:  # it says what to write, and there is no other way
                hint = ""
        hint = "; ".join(filter(None, (excess.cause, hint)))
    return WideningError(
        excess.dimension,
        excess.asked,
        excess.held,
        excess.excess,
        hint,
        code,
        excess.cause,
    )


# --- position in the chain ------------------------------------------------------------------------


def positioned(
    lineage: Lineage,
    wanted: Mapping[str, Any],
    to: str | None,
    clamp: bool,
) -> dict[str, Any]:
    """`depth`, `delegate_only` and a hand-over `to` someone, checked against the lineage.

    Does not look at keys and custody signatures: `check_custody` does. `clamp` cuts a depth, and
    never a hand-over: another receiver is not less of the same.

    Raises WideningError, or DelegationError for a hand-over that verifiers would refuse (23.13,
    23.14). Also ValueError for `delegate_only` that is False and would say nothing.
    """
    stated: dict[str, Any] = {}
    left = lineage.left

    # The hand-over comes first: `depth` bounds later links, and not the one that it stands in.
    if to is not None:
        stated.update(_hand_over(lineage, to))
        left = None if left is None else left - 1

    if "depth" in wanted:
        stated["depth"] = _depth(wanted["depth"], left, clamp)

    # False is never written: it would say nothing (17.5).
    if "delegate_only" in wanted:
        must = _must_delegate(lineage, wanted["delegate_only"], clamp)
        if must:
            stated["delegate_only"] = True

    return stated


def _hand_over(lineage: Lineage, to: str) -> dict[str, str]:
    """`from` and `to`. Raises DelegationError back to a holder, or where none is left (23.13).

    `from` is never asked of the writer: it is whoever holds the token now. TypeError or ValueError
    for a `to` that is no name. Whether there is such an agent is not known here.
    """
    # The same tests in the same order as verifiers make, so that the codes agree.
    if names.name(to, "to") in lineage.holders:
        why = f"{to} has held this token before: delegate to another agent"
        raise DelegationError(why, "broken_delegation")
    if lineage.left == 0:
        why = (
            "the token permits no more delegations: use it yourself, or ask for a token with more "
            "depth"
        )
        raise DelegationError(why, "too_deep")
    return {"from": lineage.holder, "to": to}


def _depth(
    wanted: int,
    left: int | None,
    clamp: bool,
) -> int:
    """At most as many delegations as are left after this link (23.14).

    `left` is None where nothing bounds it. With `clamp` it is cut, and without it WideningError.
    """
    # More than is left would gain nothing: verifiers take the lesser.
    if left is None or wanted <= left:
        return wanted
    # Cut in silence, because the writer asked for what is left.
    if clamp:
        return left
    hint = f"after this link {left} are left"
    raise WideningError("depth", wanted, left, wanted - left, hint)


def _must_delegate(
    lineage: Lineage,
    wanted: bool,
    clamp: bool,
) -> bool:
    """Is it to be written? It is taken back by a delegation, and by nothing else (23.14).

    False where it is held asks to take it back: WideningError, or with `clamp` it just stays.
    False where it is not held is ValueError.
    """
    if wanted:
        return True
    if not lineage.must_delegate:
        raise ValueError("delegate_only must be True or left out, not False")
    if not clamp:
        hint = "it is satisfied only by delegating"
        raise WideningError("delegate_only", False, True, False, hint)
    return False

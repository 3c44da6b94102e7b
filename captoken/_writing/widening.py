"""The check that a new link does not ask for more than is held (spec, "Widening").

It is for the one who narrows, who should learn of a mistake now and not from a denial; it is not what makes narrowing
safe. Verifiers ask every link, so a link that asks for more gains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from captoken._format import names
from captoken._format.errors import DelegationError, WideningError
from captoken._language import constraints, patterns
from captoken._language.capability import (
    ALL_RIGHTS,
    ANY,
    NO_RIGHTS,
    Call,
    Capability,
    Names,
    RightsMap,
    both_calls,
    both_columns,
    both_rights,
    calls_of,
    covers,
    rights_of,
    spelled_calls,
    spelled_rights,
)  # fmt: skip
from captoken._language.caveats import Caveat
from captoken._language.lineage import Lineage
from captoken._writing.keywords import DATA


class Excess(Exception):  # noqa: N818, it never leaves this file
    """Within this file: what one dimension asks for beyond what is held, and what is left of it."""

    def __init__(
        self,
        dimension: str,
        asked: Any,
        held: Any,
        excess: Any,
        left: dict[str, Any],
        hint: str = "",
    ) -> None:
        self.dimension, self.asked, self.held, self.excess, self.left = (
            dimension,
            asked,
            held,
            excess,
            left,
        )
        self.hint = hint or "ask for less, or pass clamp=True to take what is left"


def narrowed(held: Capability, wanted: Mapping[str, Caveat], clamp: bool) -> dict[str, Any]:
    """The JSON of a link that asks for `wanted`, checked against `held`. Raises WideningError.

    With `clamp`, what is asked for too much is cut to what is held, and WideningError says `nothing_left` if that is
    nothing.
    """
    stated = {key: caveat.value for key, caveat in wanted.items()}
    checks: list[Callable[[], None]] = []
    if not stated.keys().isdisjoint(DATA):
        checks += [
            lambda: (
                _check_pairs(held, stated) if _names_pairs(stated) else _check_alone(held, stated)
            ),
            lambda: _check_columns(held, stated),
        ]
    if "tools" in wanted:
        checks.append(lambda: _check_tools(held, wanted["tools"]))
    if "where" in wanted:
        checks.append(lambda: _check_where(held, wanted["where"]))
    checks += [lambda: _check_exp(held, stated), lambda: _check_nbf(held, stated)]
    checks += [lambda: _check_audience(held, stated), lambda: _check_task(held, stated)]
    checks += [
        lambda: _check_uses(held, stated),
        lambda: _check_budget(held, stated),
        lambda: _check_fresh(held, stated),
    ]
    checks += [_own_check(held, caveat) for key, caveat in wanted.items() if ":" in key]
    for check in checks:
        try:
            check()
        except Excess as excess:
            if not clamp:
                raise _widening(excess) from None
            if all(value in ([], {}, "") for value in excess.left.values()):
                raise _widening(excess, "nothing_left") from None
            for key in _replaced(excess):
                stated.pop(key, None)
            stated.update(excess.left)
    return stated


def _replaced(excess: Excess) -> tuple[str, ...]:
    return (
        ("tables", "operations", "allow")
        if excess.dimension in ("tables", "operations", "allow")
        else (excess.dimension,)
    )


def _widening(excess: Excess, code: str = "widening") -> WideningError:
    hint = excess.hint if code == "widening" else "nothing of what is asked for is held"
    return WideningError(excess.dimension, excess.asked, excess.held, excess.excess, hint, code)


def _rights(held: Capability) -> RightsMap:
    return {"*": ALL_RIGHTS} if held.data is None else held.data


def _below(entries: Mapping[str, Any], pattern: str) -> list[str]:
    """Where within `pattern` the map may say different things: `pattern` itself and the entries below it."""
    return [
        pattern,
        *(key for key in entries if key != pattern and patterns.contains(pattern, key)),
    ]


def _names_pairs(stated: Mapping[str, Any]) -> bool:
    return "allow" in stated or ("tables" in stated and "operations" in stated)


def _check_alone(held: Capability, stated: Mapping[str, Any]) -> None:
    """Tables without operations, or operations without tables: each value is held somewhere."""
    rights = _rights(held)
    spelled = spelled_rights(rights)
    if "tables" in stated:
        left: list[str] = []
        excess: list[str] = []
        for pattern in stated["tables"]:
            found = [
                key
                for key in _below(rights, pattern)
                if patterns.decided(rights, key, NO_RIGHTS).operations
            ]
            left += [pattern] if pattern in found else found
            excess += [] if found else [pattern]
        if excess:
            raise Excess("tables", stated["tables"], spelled, excess, {"tables": sorted(set(left))})
    elif "operations" in stated:
        everywhere: set[str] = set().union(*(right.operations for right in rights.values()))
        excess = [
            operation for operation in stated["operations"] if not {operation, "*"} & everywhere
        ]
        if excess:
            some = (
                everywhere
                if "*" in stated["operations"]
                else set(stated["operations"]) & everywhere
            )
            raise Excess(
                "operations", stated["operations"], spelled, excess, {"operations": sorted(some)}
            )


def _check_pairs(held: Capability, stated: Mapping[str, Any]) -> None:
    """Tables and operations, together or as `allow`: every pair is held."""
    pairs = rights_of({key: value for key, value in stated.items() if key != "columns"})
    rights = {key: right._replace(columns=None) for key, right in _rights(held).items()}
    both = patterns.meet(pairs, rights, NO_RIGHTS, both_rights)
    if both == pairs:
        return
    excess = {}
    for key in sorted({**pairs, **both}):
        wanted, have = (
            patterns.decided(entries, key, NO_RIGHTS).operations for entries in (pairs, rights)
        )
        missing = wanted - have if have != ANY else frozenset()
        if missing:
            excess[key] = sorted(missing)
    unheld = any(not patterns.decided(rights, key, NO_RIGHTS).operations for key in excess)
    dimension = "allow" if "allow" in stated else "tables" if unheld else "operations"
    wish = {key: stated[key] for key in ("tables", "operations", "allow") if key in stated}
    raise Excess(dimension, wish, spelled_rights(_rights(held)), excess, spelled_rights(both))


def _check_columns(held: Capability, stated: Mapping[str, Any]) -> None:
    """Each pattern is held, and wherever it is, the columns are among those held there."""
    if "columns" not in stated:
        return
    rights = _rights(held)
    wishes: dict[str, Names] = {
        key: ANY if "*" in given else frozenset(given) for key, given in stated["columns"].items()
    }
    excess: dict[str, Any] = {}
    left: dict[str, Any] = {}
    for pattern, wish in wishes.items():
        found = False
        for key in sorted({*_below(rights, pattern), *_below(wishes, pattern)}):
            have = patterns.decided(rights, key, NO_RIGHTS)
            if not have.operations:
                continue
            found = True
            wanted = patterns.decided(wishes, key, wish)
            both = both_columns(have.columns, wanted)
            left[key] = sorted(both or ())
            if both != wanted:
                excess[key] = sorted(wanted - (have.columns or frozenset()))
        if not found:
            excess[pattern] = sorted(wish)
    if excess:
        raise Excess(
            "columns",
            stated["columns"],
            spelled_rights(rights),
            excess,
            {"columns": left} if left else {},
        )


def _check_tools(held: Capability, caveat: Caveat) -> None:
    """Each pattern is held, and wherever it is, the arguments are among those permitted there."""
    calls: Mapping[str, Call] = {"*": {}} if held.tool is None else held.tool
    wishes = calls_of(caveat.rules)  # type: ignore[attr-defined]
    excess: dict[str, Call] = {}
    left: dict[str, Call] = {}
    for pattern in caveat.value:
        found = False
        for key in sorted({*_below(calls, pattern), *_below(wishes, pattern)}):
            have, wanted = patterns.decided(calls, key, None), patterns.decided(wishes, key, None)
            left[key] = both_calls(have, wanted)
            if have is not None:
                found = True
                if left[key] != wanted:
                    excess[key] = wanted
        if not found:
            excess[pattern] = patterns.decided(wishes, pattern, None)
    if excess:
        left = patterns.normal(left, None)
        rest = {"tools": spelled_calls(left)} if left else {}
        raise Excess("tools", caveat.value, spelled_calls(dict(calls)), spelled_calls(excess), rest)


def _check_where(held: Capability, caveat: Caveat) -> None:
    """Each attribute's constraint is covered by the one held, if one is."""
    excess: dict[str, Any] = {}
    left: dict[str, Any] = {}
    for attribute, wanted in caveat.rules.items():  # type: ignore[attr-defined]
        both = constraints.meet(held.where.get(attribute, constraints.ANYTHING), wanted)
        left[attribute] = both.json()
        if both != wanted:
            excess[attribute] = wanted.json()
    if excess:
        have = {attribute: constraint.json() for attribute, constraint in held.where.items()}
        empty = any(constraint == {"in": []} for constraint in left.values())
        hint = (
            "under a list, say the list" if any("in" in have.get(key, ()) for key in excess) else ""
        )
        raise Excess("where", caveat.value, have, excess, {} if empty else {"where": left}, hint)


def _check_exp(held: Capability, stated: Mapping[str, Any]) -> None:
    """`exp` is no later than what is held."""
    until = held.expires_at
    if until is not None and stated.get("exp", until) > until:
        hint = "ask for an earlier time; expires_in= is cut to what is held"
        raise Excess("exp", stated["exp"], until, stated["exp"] - until, {"exp": until}, hint)


def _check_nbf(held: Capability, stated: Mapping[str, Any]) -> None:
    """`nbf` is no earlier than what is held."""
    since = held.not_before
    if since is not None and stated.get("nbf", since) < since:
        raise Excess("nbf", stated["nbf"], since, since - stated["nbf"], {"nbf": since})


def _check_audience(held: Capability, stated: Mapping[str, Any]) -> None:
    """`aud` is among the audiences held."""
    if "aud" in stated and held.audiences is not None:
        excess = sorted(set(stated["aud"]) - held.audiences)
        if excess:
            left = sorted(held.audiences.intersection(stated["aud"]))
            raise Excess("aud", stated["aud"], sorted(held.audiences), excess, {"aud": left})


def _check_task(held: Capability, stated: Mapping[str, Any]) -> None:
    """`task` is the one held or below it."""
    if (
        "task" in stated
        and held.task is not None
        and not names.at_or_below(stated["task"], held.task)
    ):
        left = held.task if names.at_or_below(held.task, stated["task"]) else ""
        raise Excess("task", stated["task"], held.task, stated["task"], {"task": left})


def _check_uses(held: Capability, stated: Mapping[str, Any]) -> None:
    """`uses` is no more than any link above has; what is left of that the ledger alone knows."""
    if held.uses is not None and stated.get("uses", 0) > held.uses:
        raise Excess(
            "uses", stated["uses"], held.uses, stated["uses"] - held.uses, {"uses": held.uses}
        )


def _check_budget(held: Capability, stated: Mapping[str, Any]) -> None:
    """`budget` is no more in any unit than any link above has."""
    wanted, have = stated.get("budget", {}), held.budget
    excess = {
        unit: amount - have[unit]
        for unit, amount in wanted.items()
        if amount > have.get(unit, amount)
    }
    if excess:
        left = {unit: min(amount, have.get(unit, amount)) for unit, amount in wanted.items()}
        raise Excess("budget", wanted, dict(have), excess, {"budget": left})


def _check_fresh(held: Capability, stated: Mapping[str, Any]) -> None:
    """`fresh` is no more than what is held."""
    if held.fresh is not None and stated.get("fresh", 0) > held.fresh:
        raise Excess(
            "fresh",
            stated["fresh"],
            held.fresh,
            stated["fresh"] - held.fresh,
            {"fresh": held.fresh},
        )


def _own_check(held: Capability, caveat: Caveat) -> Callable[[], None]:
    def check() -> None:
        have = [other for other in held.own if other.key == caveat.key]
        if not all(covers(other, caveat) for other in have):
            values = [other.value for other in have]
            hint = "what is held does not cover it, by its own `covers`"
            raise Excess(caveat.key, caveat.value, values, caveat.value, {}, hint)

    return check


def positioned(
    lineage: Lineage, wanted: Mapping[str, Any], to: str | None, clamp: bool
) -> dict[str, Any]:
    """`depth`, `delegate_only` and a hand-over `to` someone, checked against the lineage.

    Raises WideningError, or DelegationError for a hand-over that verifiers would refuse.
    """
    stated: dict[str, Any] = {}
    left = lineage.left
    if to is not None:
        if names.name(to, "to") in lineage.holders:
            raise DelegationError(f"{to} has held this token before", "broken_delegation")
        if left == 0:
            raise DelegationError("no more delegations are permitted", "too_deep")
        stated.update({"from": lineage.holder, "to": to})
        left = None if left is None else left - 1
    if "depth" in wanted:
        depth = wanted["depth"]
        if left is not None and depth > left:
            if not clamp:
                raise WideningError(
                    "depth", depth, left, depth - left, f"after this link {left} are left"
                )
            depth = left
        stated["depth"] = depth
    if "delegate_only" in wanted:
        if not wanted["delegate_only"]:
            if not lineage.must_delegate:
                raise ValueError("delegate_only is True or left out")
            if not clamp:
                raise WideningError(
                    "delegate_only", False, True, False, "only a delegation satisfies it"
                )
        else:
            stated["delegate_only"] = True
    return stated

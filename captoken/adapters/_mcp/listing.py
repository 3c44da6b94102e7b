"""What is listed (rule 5 of the messages): of what a server has, what a grant can be used for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from captoken._format.extras import extra

with extra("mcp"):
    from anyio import to_thread

from captoken._language import patterns
from captoken._language.constraints import NOTHING, Constraint, In
from captoken._verification.grant import Grant
from captoken.adapters._mcp.calls import access_of
from captoken.adapters._mcp.messages import CALL, LISTS
from captoken.adapters._step_up import is_liftable

# What refuses an access that a list asks about, and can still be stated when the call is made.
_LATER = frozenset(
    {
        "argument",
        "attribute",
        "cost_unstated",
        "consent_missing",
    }
)

_Item = TypeVar("_Item")


async def only_listed(
    grant: Grant,
    method: str,
    items: Sequence[_Item],
    names: Iterable[object],
    prefix: str = "",
    *,
    steps_up: bool = False,
) -> list[_Item]:
    """Rule 5: of what a method lists, each by its name, what the grant can be used for.

    `names` are those of `items`, in order. `steps_up`: the tools that a person could allow are
    listed, too: a client calls what it knows of, and only then she is asked. Nothing is charged and
    nothing recorded: no call is made yet, and each that is made is decided on by itself.
    """
    asked = list(names)

    def kept_of_all() -> list[bool]:
        return [
            listed(grant, method, name, prefix)
            or (steps_up and method == "tools/list" and _could_be_allowed(grant, name, prefix))
            for name in asked
        ]

    # In one thread, and not in one for each name: an overlay may have to be fetched.
    kept = await to_thread.run_sync(kept_of_all)
    return [item for item, keep in zip(items, kept, strict=True) if keep]


def listed(grant: Grant, method: str, name: object, prefix: str = "") -> bool:
    """May `grant` be used for the item of that name?

    With some arguments, that is, under some attributes, at some cost. What an operator's overlay
    refuses for want of an argument is not listed, and may yet be called.
    """
    listing = LISTS[method]
    access = access_of(listing.method, {listing.argument or "name": name}, prefix)
    if access is None or access.tool is None:
        return False

    # The capability's rule for this tool: `{}` if it has no conditions, None if there is no rule.
    calls = grant.capability.tool
    rule = patterns.decided(calls, access.tool, None) if calls is not None else {}
    if rule is None:
        return False
    # A rule that names arguments refuses others: also the one that would name the item.
    if rule and listing.argument:
        constraint, _ = rule.get(listing.argument, (NOTHING, True))
        if not _can_be_named(constraint, method, name):
            return False
    # An argument that is due, and for which no value will do: nobody can make that call.
    if any(constraint == NOTHING for constraint, optional in rule.values() if not optional):
        return False

    # No store is asked: what is used up is listed, and refused when it is called.
    return all(refusal.code in _LATER for refusal in grant.recheck((access,)).refusals)


def _could_be_allowed(grant: Grant, name: object, prefix: str) -> bool:
    """Could a person allow a tool, whose own word leaves it out? With some arguments."""
    access = access_of(CALL, {"name": name}, prefix)
    return access is not None and is_liftable(grant.recheck((access,)), _LATER)


def _can_be_named(
    constraint: Constraint,
    method: str,
    name: object,
) -> bool:
    """Does what is permitted of the argument that names an item leave room for this one?

    For a template, that one of the uris it can become is permitted. To show too much here costs
    nothing but a name: the call is decided on by itself.
    """
    if method != "resources/templates/list":
        return constraint.accepts(name)
    # What is read is what the template can become, by what stands before its first variable.
    # A constraint that lists no values may let one of them through.
    if not isinstance(constraint, In):
        return True
    start = str(name).partition("{")[0]
    return any(type(uri) is str and uri.startswith(start) for _, uri in constraint.values)

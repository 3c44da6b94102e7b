"""What a request asks of its grant, and never silently less (docs/issuance.md).

    narrow_root(root, False, tables=["sales"], expires_in=60)

`attenuate` takes two wishes that are more than is held for "as much as there is": a pattern of
which a part alone is held, and an `expires_in` beyond the end. Who narrows a token of his own sees
what is left. A client of the service has no token before the answer: so here both are more than the
grant, unless the request says `clamp`.

Pairs of tables and operations need no look: `attenuate` itself compares them as a whole (23.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from captoken._format.errors import WideningError
from captoken._language import patterns
from captoken._language.conditions import Expires
from captoken._language.constraints import Call
from captoken._language.rights import NO_RIGHTS, Rights
from captoken._language.tool import Tools
from captoken._writing.token import Token
from captoken._writing.token_set import OnlyAt, TokenSet, at_each, placed

_Value = TypeVar("_Value")
_HINT = 'name what the grant has, or send "clamp": true to take what is left'


def narrow_root(root: Token, clamp: bool, /, **keywords: Any) -> Token:
    """`root` with a link of these keywords. Raises WideningError, and what `attenuate` raises."""
    if clamp:
        return root.attenuate(clamp=True, **keywords)
    child = root.attenuate(**_with_end(keywords, root.unverified.root.issued_at))
    held = root.unverified.capability
    is_paired = not keywords.keys().isdisjoint(("operations", "allow"))
    if "tables" in keywords and held.data is not None and not is_paired:
        tables = keywords["tables"]
        _refuse_parts("tables", tables, held.data, _unheld_tables(tables, held.data))
    if "tools" in keywords and held.tool is not None:
        tools = Tools(keywords["tools"])
        _refuse_parts("tools", tools.value, held.tool, _unheld_tools(tools, held.tool))
    return child


def narrow_set(
    held: TokenSet,
    clamp: bool,
    only: OnlyAt | None,
    servers: Iterable[str] | None,
    /,
    **keywords: Any,
) -> TokenSet:
    """`held` with a link of these keywords at each server that they are for.

    Raises WideningError, and what `TokenSet.attenuate` raises.
    """
    wanted = placed(held, keywords, only, servers)
    if not any(wanted.values()):
        raise ValueError("only and servers need keywords beside them, and there are none")
    return at_each(
        held,
        lambda server, token: (
            narrow_root(token, clamp, **wanted[server]) if wanted[server] else token
        ),
    )


def _with_end(keywords: Mapping[str, Any], now: int) -> Mapping[str, Any]:
    """The keywords, with the moment that `expires_in` comes to: that is compared, and not cut."""
    if "expires_in" not in keywords or "expires_at" in keywords:
        return keywords
    end = Expires.keywords["expires_in"](keywords["expires_in"], lambda: now, lambda _: None)
    others = {key: value for key, value in keywords.items() if key != "expires_in"}
    return {**others, "expires_at": end}


def _unheld_tables(asked: Iterable[str], held: Mapping[str, Rights]) -> list[str]:
    return _unheld(asked, held, NO_RIGHTS, lambda _, rights: bool(rights.operations))


def _unheld_tools(asked: Tools, held: Mapping[str, Call]) -> list[str]:
    # A tool that the wish itself excludes need not be held.
    wishes: Mapping[str, Call] = asked.normalized().value

    def is_held(place: str, call: Call) -> bool:
        return call is not None or patterns.decided(wishes, place, None) is None

    return _unheld(asked.value, held, None, is_held)


def _unheld(
    asked: Iterable[str],
    held: Mapping[str, _Value],
    nothing: _Value,
    is_held: Callable[[str, _Value], bool],
) -> list[str]:
    """The places inside what is asked for at which nothing is held.

    It looks at each pattern and at the entries of what is held below it: between them nothing
    changes.
    """
    return [
        place
        for pattern in asked
        for place in patterns.within(held, pattern)
        if not is_held(place, patterns.decided(held, place, nothing))
    ]


def _refuse_parts(
    dimension: str,
    asked: Iterable[str],
    held: Iterable[str],
    unheld: list[str],
) -> None:
    """Raise WideningError where a part of what is asked for is not held. It names that part."""
    if unheld:
        raise WideningError(dimension, sorted(asked), sorted(held), unheld, _HINT)

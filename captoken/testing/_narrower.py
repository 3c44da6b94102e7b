"""What a piece of code touches, found by giving it less: one right taken away, or one alone.

    report = under_narrower(token, lambda token: agent.run("what did we sell?"))
    print(report)
    assert report.needed == {"table sales", "operation select"}
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from captoken import current
from captoken._language.access import Access
from captoken._verification.decision import Decision, Denied
from captoken._writing.token import Token
from captoken.testing._asserts import watched


class Narrowed(NamedTuple):
    """One run: with which token, what it was able to touch, and what became of it."""

    # `all of it`, `without table sales`, `table sales alone`, `nothing`.
    rights: str

    # What was allowed, in order.
    touched: tuple[Access, ...]

    # What was denied, in order.
    denied: tuple[Decision, ...]

    # The exception of the callable, including a `Denied`.
    error: Exception | None

    @property
    def outcome(self) -> str:
        """`done`, or the code of the first denial, or the name of the exception."""
        if self.denied:
            return self.denied[0].code
        if isinstance(self.error, Denied):
            return self.error.decision.code
        return "done" if self.error is None else type(self.error).__name__


class Report(NamedTuple):
    """All runs. As a text it is a table."""

    runs: tuple[Narrowed, ...]

    @property
    def needed(self) -> set[str]:
        """The rights without which something was denied that is done with all of them."""
        without = "without "
        return {
            one.rights.removeprefix(without)
            for one in self.runs
            if one.rights.startswith(without) and one.outcome != self.runs[0].outcome
        }

    @property
    def unguarded(self) -> bool:
        """Was it done with no right at all, and nobody was asked? Then there is no guard."""
        last = self.runs[-1]
        return last.outcome == "done" and not last.touched

    def __str__(self) -> str:
        width = max(len(one.rights) for one in self.runs)
        return "\n".join(
            f"{one.rights:<{width}}  {one.outcome:<16}  {_spelled(one.touched)}".rstrip()
            for one in self.runs
        )


def under_narrower(token: Token, call: Callable[[Token], object]) -> Report:
    """Run `call` under narrower tokens, and report what each was able to touch.

    First under the token itself; then with each right taken away, and with each alone; last with no
    right at all. A right is a table, an operation, a column or a tool that the token names. It is
    not every set of them: of twenty rights these would be a million.

    `call` is given the token, which is current as well. It runs many times: it must not do harm,
    and what it counts is counted. Verifiers of this process alone are seen. An exception ends that
    run. Raises TypeError for a coroutine: `lambda token: asyncio.run(…)` runs one. Raises
    TokenFormatError for what cannot be held.
    """
    runs = [_run("all of it", token, call)]
    for right, less, alone in _rights(token):
        runs.append(_run(f"without {right}", less, call))
        runs.append(_run(f"{right} alone", alone, call))
    runs.append(_run("nothing", token.attenuate(tables=[]), call))
    return Report(tuple(runs))


def _run(rights: str, token: Token, call: Callable[[Token], object]) -> Narrowed:
    """One run. Raises TypeError for a call that gives what has still to be awaited."""
    error: Exception | None = None
    with watched() as seen, current.use(token):
        try:
            answer = call(token)
        except Exception as raised:  # whatever it is, the next token is tried
            error = raised
            answer = None

    # It has done nothing yet, and would look as if it needed nothing.
    if inspect.isawaitable(answer):
        close = getattr(answer, "close", None)
        if close is not None:
            close()
        raise TypeError("the call gave a coroutine: run it, as lambda token: asyncio.run(…)")
    return Narrowed(
        rights,
        tuple(one.access for one in seen.decisions if one and one.access is not None),
        tuple(seen.denied),
        error,
    )


# A right: its name, the keywords that take it away, and those that leave it alone.
_Right: TypeAlias = tuple[str, dict[str, Any], dict[str, Any]]


def _rights(token: Token) -> Iterator[tuple[str, Token, Token]]:
    """Each right: its name, the token without it, and a token with it alone."""
    held = token.unverified.capability.json()

    # A link that names tables closes tools, and the other way round. To take one right away must
    # leave the rest.
    has_tools = "tools" in held
    has_tables = bool({"tables", "allow", "operations", "columns", "rows"} & held.keys())
    for name, less, alone in _of_tables(held):
        keep = ("tools",) if has_tools else ()
        yield name, token.attenuate(**less, keep=keep), token.attenuate(**alone)
    for name, less, alone in _of_tools(held):
        keep = ("tables",) if has_tables else ()
        yield name, token.attenuate(**less, keep=keep), token.attenuate(**alone)


def _of_tables(held: Mapping[str, Any]) -> Iterator[_Right]:
    """Tables and operations each by themselves, or pair by pair, as the token says them."""
    for keyword in ("tables", "operations"):
        for name in held.get(keyword, ()):
            rest = [one for one in held[keyword] if one != name]
            yield f"{keyword.removesuffix('s')} {name}", {keyword: rest}, {keyword: [name]}

    for table, operations in held.get("allow", {}).items():
        for operation in operations:
            rest = [one for one in operations if one != operation]
            yield (
                f"{operation} on table {table}",
                {"allow": {**held["allow"], table: rest}},
                {"allow": {table: [operation]}},
            )

    for table, columns in held.get("columns", {}).items():
        for column in columns:
            rest = [one for one in columns if one != column]
            yield (
                f"column {table}.{column}",
                {"columns": {table: rest}},
                {"columns": {table: [column]}},
            )


def _of_tools(held: Mapping[str, Any]) -> Iterator[_Right]:
    """Tools, each with its rule: an argument that is left out would be more than is held."""
    tools = held.get("tools", {})
    for tool, rule in tools.items():
        rest = {name: one for name, one in tools.items() if name != tool}
        yield f"tool {tool}", {"tools": rest}, {"tools": {tool: rule}}


def _spelled(touched: tuple[Access, ...]) -> str:
    """What was touched, each once."""
    named = dict.fromkeys(
        f"{one.operation} on {one.table}" if one.tool is None else one.tool for one in touched
    )
    return ", ".join(named)

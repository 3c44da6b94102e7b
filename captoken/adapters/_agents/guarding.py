"""What the guards of all agent frameworks check alike: what they are made of, who runs a tool."""

from __future__ import annotations

from collections.abc import Collection

from captoken._format.errors import GuardError
from captoken.tools import ToolGuard


def checked_guard(guard: ToolGuard) -> ToolGuard:
    """The guard, if it is one. Raises TypeError.

    Something else with a `check` could say yes to everything. A verifier has one as well, and is no
    guard: it would be asked about the wrong things.
    """
    if not isinstance(guard, ToolGuard):
        raise TypeError(
            f"expected a ToolGuard, not {type(guard).__name__}: make one from a verifier"
        )
    return guard


def unasked(native: Collection[str], kinds: str) -> frozenset[str]:
    """The kinds of tools that the model's provider may run, although nobody can be asked.

    `kinds` is the framework's word for them. Raises TypeError for a str, which is a collection of
    letters: none of them is a kind, and so the one that was meant would be refused.
    """
    if isinstance(native, str):
        raise TypeError(f"native must be a collection of {kinds}, not a str")
    return frozenset(native)


def refuse_native(found: Collection[str], allowed: Collection[str]) -> None:
    """Raise GuardError for a request in which the provider would run what no guard sees.

    `found` are the kinds of its tools, `allowed` those that may run unasked. It is an error of
    whoever built the agent, and so ends the run: the model could do nothing about it.

    It is looked for in each request and not where the agent is built: tools are added in between.
    """
    beyond = sorted(set(found).difference(allowed))
    if beyond:
        raise GuardError(
            f"the model's provider would run {beyond} itself, where no guard sees it: leave it "
            "out, or permit it with native="
        )

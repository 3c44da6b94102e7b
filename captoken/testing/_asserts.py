"""What verifiers decide in a block, and whether that is what a test expects of it.

    with watched() as seen:          all decisions of all verifiers of this process
        client.get("/sales")
    seen.asked                       those about an access

The verifiers are not changed for it. While a block is open, three of their inner methods are
wrapped: each gives a decision, at once or in steps. Other threads are seen too, since a test's
client and the server that it asks often have one each. Other processes are not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial, wraps
from threading import Lock
from types import TracebackType
from typing import Any

from captoken._verification.decision import Decision, Denied
from captoken._verification.verifier import AsyncVerifier, Verifier
from captoken.testing._codes import check_code

# The methods that make a real decision. `explain` and `recheck` do not.
_ENDS = ("_judge_and_commit", "_record_denial", "_decide_together")

# A duplicate is looked for among this many of the last decisions.
_NEAR = 16

# Held while methods are wrapped or given back.
_lock = Lock()
_watching: list[Watched] = []
_unwrapped: list[tuple[type, str]] = []


class Watched:
    """What was decided in a block, in order. `watched` makes one, and fills it."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    @property
    def asked(self) -> list[Decision]:
        """Those about an access, and all denials.

        That a token was found in order, with no access asked, says nothing of what it may do.
        """
        return [one for one in self.decisions if one.access is not None or not one]

    @property
    def denied(self) -> list[Decision]:
        """Those that were denied."""
        return [one for one in self.decisions if not one]

    def told(self) -> str:
        """What was decided, a line each."""
        lines = [f"  {one.line()}" for one in self.decisions]
        return "\n".join(lines) or "  nothing"

    def _add(self, decision: Decision) -> None:
        """Note a decision, once.

        Where a step of several accesses is denied, it comes by two of the methods, one right after
        the other. Other threads may come between: so a few are looked at.
        """
        last = self.decisions[-_NEAR:]
        if not any(one is decision for one in last):
            self.decisions.append(decision)


@contextmanager
def watched() -> Generator[Watched]:
    """In the block: what all verifiers of this process decide. Blocks may be nested.

    Not seen: what `explain` and `recheck` answer, and what other processes decide.
    """
    seen = Watched()
    _begin(seen)
    try:
        yield seen
    finally:
        _end(seen)


def _begin(seen: Watched) -> None:
    """Let `seen` watch. Who is the first wraps the methods."""
    with _lock:
        _watching.append(seen)
        if len(_watching) == 1:
            for kind in (Verifier, AsyncVerifier):
                for name in _ENDS:
                    setattr(kind, name, _noting(getattr(kind, name)))
                    _unwrapped.append((kind, name))


def _end(seen: Watched) -> None:
    """Let it watch no more. Who is the last gives the methods back.

    They are inherited: to take the wrapped ones off the class is to have the others again.
    """
    with _lock:
        # By identity: two that have seen the same are not the same.
        _watching[:] = [one for one in _watching if one is not seen]
        if not _watching:
            for kind, name in _unwrapped:
                delattr(kind, name)
            _unwrapped.clear()


def _noting(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that gives a decision, or the steps to one, and says so to whoever watches."""

    # This replaces the method, with the same arguments.
    @wraps(method)
    def noting(*given: Any, **named: Any) -> Any:
        answer = method(*given, **named)
        if isinstance(answer, Decision):
            return _noted(answer)
        return steps(answer)

    # Whoever drives the steps drives these: nothing is asked that was not asked before.
    def steps(answer: Any) -> Generator[Any, Any, Decision]:
        return _noted((yield from answer))

    return noting


def _noted(decision: Decision) -> Decision:
    """The decision, once whoever watches at the moment has it."""
    for one in tuple(_watching):
        one._add(decision)  # pyright: ignore[reportPrivateUsage] - of this file
    return decision


# --- what a test expects --------------------------------------------------------------------------


class Expected:
    """A block, or a decision, of which something is expected.

    `problem` says what is not as it is expected, or None.
    """

    def __init__(self, problem: Callable[[Watched], str | None]) -> None:
        self._problem = problem
        self._block = watched()
        self._is_used = False

    def __del__(self) -> None:
        """Say aloud that nothing was asserted. As of a coroutine that was never awaited."""
        if not self._is_used:
            warnings.warn("an assert without `with`, or a decision, asserts nothing", stacklevel=2)

    def __enter__(self) -> Watched:
        self._is_used = True
        self._seen = self._block.__enter__()
        return self._seen

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Judge what was seen; whatever else the block raised passes through.

        Raises AssertionError, with what was decided, a line each.
        """
        __tracebackhide__ = True  # pytest then shows the test, and not this
        self._block.__exit__(None, None, None)
        if error is not None and not isinstance(error, Denied):
            return False
        # A denial may come from elsewhere: it is raised, and nobody here has seen it made.
        if error is not None:
            self._seen._add(error.decision)  # pyright: ignore[reportPrivateUsage] - of this file
        problem = self._problem(self._seen)
        if problem is not None:
            told = self._seen.told()
            raise AssertionError("\n".join([f"{problem}; decided here:", told])) from error
        return True


def _not_allowed(seen: Watched) -> str | None:
    """Why not all that was asked was allowed, or why nothing was asked."""
    if seen.denied:
        return f"expected allowed, and came {seen.denied[0].code}"
    return _nothing_asked(seen)


def _not_denied(code: str, seen: Watched) -> str | None:
    """Why nothing was denied by that code alone."""
    # Another code first: a guard that refuses for another reason is not the one that is tested.
    others = [one.code for one in seen.denied if one.code != code]
    if others:
        return f"expected {code}, and came {others[0]}"
    if seen.denied:
        return None
    return _nothing_asked(seen) or f"expected {code}, and all was allowed"


def _nothing_asked(seen: Watched) -> str | None:
    """Why no access was asked about; None if one was, or a token was denied."""
    if seen.asked:
        return None
    if seen.decisions:
        return "a token was found in order, and no access was asked about"
    return "no verifier of this process was asked: is there a guard, and does this go by it?"


def assert_allowed(decision: Decision | None = None) -> Expected:
    """In the block, the code asks about some access, and every access is allowed.

        with assert_allowed():
            client.get("/sales")
        assert_allowed(verifier.check(token, access))

    Fails if no verifier of this process was asked, since code that runs without being checked has
    no guard. It also fails if a token was only authenticated. `with … as seen` gives the decisions.
    """
    return _judged(Expected(_not_allowed), decision)


def assert_denied(decision: Decision | Denied | None = None, *, code: str) -> Expected:
    """In the block, something is denied, and every denial has this code.

        with assert_denied(code="table"):
            client.get("/hr")
        assert_denied(verifier.check(token, access), code="table")

    A `Denied` that leaves the block ends it, and goes no further. Any other exception passes
    through: if a client raises for a status, put a `pytest.raises` inside the block. Fails if no
    verifier of this process was asked. Raises ValueError for a code that does not exist.
    """
    check_code(code)
    found = decision.decision if isinstance(decision, Denied) else decision
    return _judged(Expected(partial(_not_denied, code)), found)


def _judged(expected: Expected, decision: Decision | None) -> Expected:
    """What is expected; of a decision that is there already, at once."""
    if decision is not None:
        with expected as seen:
            if not isinstance(decision, Decision):
                kind = type(decision).__name__
                raise TypeError(f"a decision of a verifier is expected, not {kind}")
            seen.decisions.append(decision)
    return expected

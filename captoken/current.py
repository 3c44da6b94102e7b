"""The token that this code holds, the grant that a request came with, and its trace: one context variable each.

    with current.use(token):                                         # the orchestrator's
        with current.delegate(to="sales-agent", tables=["sales"]):   # in this block: the sub-agent's, and nothing more
            await agent.run(...)

1. What is absent is denied: `NoToken`, never a default.
2. Held and granted are two things. A server that was granted something holds nothing by it: nobody passes on what came in.
3. Asyncio hands the context on to tasks and to `to_thread`. A thread or an executor gets nothing: `carry` a function there.
4. A process gets `environment()`, and takes it out of its own environment, so that its children do not inherit it.

A task that was started in a block and outlives it keeps what the block had: until its expiry, as any copy of a token.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from contextvars import Token as ContextToken
from functools import wraps
from typing import Generic, ParamSpec, TypeVar, Unpack

from captoken import proof as possession
from captoken._format.clocks import Seconds
from captoken._format.entropy import random_bytes
from captoken._format.errors import NoToken, TokenFormatError
from captoken._format.sealed import Sealed
from captoken._language.access import Access
from captoken._verification.decision import Denied
from captoken._verification.grant import Grant
from captoken._writing.keywords import LinkCaveats, PresentCaveats, Strings
from captoken._writing.token import Token
from captoken.proof import Signer

VARIABLE = "CAPTOKEN"  # of the process environment (spec, "Transports")
_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")


class Presented(Sealed):
    """What goes to a server with one request: the text, and the proof where the token is bound to a key. Both secret."""

    __slots__ = ("proof", "text")
    _instead = "present the token again"
    text: str
    proof: str | None

    def __init__(self, text: str, proof: str | None) -> None:
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "proof", proof)

    def __repr__(self) -> str:
        return f"<Presented, {len(self.text)} characters, {'with a' if self.proof else 'without'} proof>"


class Held(Sealed):
    """A token, and the key that it is bound to if it is bound to one: all that its holder needs."""

    __slots__ = ("signer", "token")
    _instead = "hand on its token"
    token: Token
    signer: Signer | None

    def __init__(self, token: Token, signer: Signer | None = None) -> None:
        if not isinstance(token, Token):
            raise TypeError(f"a Token, not a {type(token).__name__}: Token.parse reads text")
        object.__setattr__(self, "token", token)
        object.__setattr__(self, "signer", signer)

    @property
    def _bound(self) -> bool:
        return self.token.unverified.key is not None

    def present(
        self,
        *,
        audience: str,
        request: Access | bytes | None = None,
        expires_in: Seconds = 60,
        keep: Strings = (),
        clamp: bool = False,
        **caveats: Unpack[PresentCaveats],
    ) -> Presented:
        """The token for one server and one request, narrowed by `caveats`, with a proof if it is bound and the key is here.

        `request`: as `captoken.possession.prove` takes it. Raises what `Token.present` and the signer raise.
        """
        token = self.token
        text = token.present(
            audience=audience, expires_in=expires_in, keep=keep, clamp=clamp, **caveats
        )
        if self.signer is None or not self._bound:
            return Presented(text, None)
        return Presented(
            text,
            possession.prove(
                text, self.signer, audience=audience, request=request, clock=token._clock
            ),
        )

    def delegate(
        self,
        *,
        to: str,
        key: Signer | None = None,
        keep: Strings = (),
        clamp: bool = False,
        **caveats: Unpack[LinkCaveats],
    ) -> Held:
        """What the agent `to` holds from here on. `key` is its own key: due where this token is bound, binding where not.

        Raises what `Token.delegate` raises.
        """
        signer = self.signer if self._bound else None
        public = None if key is None else key.public
        child = self.token.delegate(
            to=to, key=public, signer=signer, keep=keep, clamp=clamp, **caveats
        )
        return Held(child, key)

    def __repr__(self) -> str:
        return f"<Held {self.token!r}{', with its key' if self.signer else ''}>"


_held: ContextVar[Held | None] = ContextVar("captoken.held", default=None)
_granted: ContextVar[Grant | None] = ContextVar("captoken.granted", default=None)
_trace: ContextVar[str | None] = ContextVar("captoken.trace", default=None)
_TRACEPARENT = re.compile(
    "[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.{0,256})?", re.ASCII
)


class _Block(Generic[_T]):
    """A block in which a variable has a value. Raises RuntimeError where it is entered once more before its end."""

    __slots__ = ("_before", "_value", "_variable")
    _before: ContextToken[_T | None] | None

    def __init__(self, variable: ContextVar[_T | None], value: _T | None) -> None:
        self._variable, self._value, self._before = variable, value, None

    def __enter__(self) -> _T:
        if self._before is not None:
            raise RuntimeError("this block is entered already: make one for each `with`")
        self._before = self._variable.set(self._value)
        return self._value  # type: ignore[return-value]

    def __exit__(self, *raised: object) -> None:
        before, self._before = self._before, None
        if before is not None:  # else it was left before
            self._variable.reset(before)


class _Serving(_Block[Grant]):
    """A block with a grant. A group in which everything is a Denied, a TaskGroup's say, leaves it as the first of them."""

    __slots__ = ()

    def __exit__(self, *raised: object) -> None:
        super().__exit__()
        denied = (
            _denied_in(raised[1]) if raised and isinstance(raised[1], BaseExceptionGroup) else None
        )
        if denied is not None:
            raise denied from None


def _denied_in(error: object) -> Denied | None:
    if isinstance(error, BaseExceptionGroup):
        found = [_denied_in(each) for each in error.exceptions]
        return found[0] if None not in found else None
    return error if isinstance(error, Denied) else None


# --- what this code holds --------------------------------------------------------------------------------------------


def holding(held: Held | Token | None = None) -> Held:
    """What is passed, or else what is current. Raises NoToken where that is nothing."""
    if isinstance(held, Held):
        return held
    if held is not None:
        return Held(held)
    mine = _held.get()
    if mine is None:
        raise NoToken("no token is current here: `with captoken.current.use(token)`, or pass one")
    return mine


def use(token: Token | str | Held, signer: Signer | None = None) -> AbstractContextManager[Held]:
    """In this block, `token` is what this code holds; `signer` is the key that it is bound to.

    Raises TokenFormatError for text that is no token. It does not say whether the token is genuine.
    """
    if isinstance(token, Held):
        return _Block(_held, token)
    try:
        read = token if isinstance(token, Token) else Token.parse(token)
    except TokenFormatError as error:
        problem = error.bare()
    else:
        return _Block(_held, Held(read, signer))
    del token  # so that no frame of the traceback holds usable text
    raise problem


@contextmanager
def delegate(
    *,
    to: str,
    key: Signer | None = None,
    keep: Strings = (),
    clamp: bool = False,
    **caveats: Unpack[LinkCaveats],
) -> Generator[Held, None, None]:
    """In this block, what is current is handed on to the agent `to`, narrowed.

    Raises NoToken, and what `Held.delegate` raises.
    """
    with use(holding().delegate(to=to, key=key, keep=keep, clamp=clamp, **caveats)) as child:
        yield child


@contextmanager
def nothing() -> Generator[None, None, None]:
    """In this block this code holds nothing, and nothing is granted to it."""
    with _Block(_held, None), _Block(_granted, None):
        yield


# --- which trace it belongs to ---------------------------------------------------------------------------------------


def traced(traceparent: str | None = None) -> AbstractContextManager[str]:
    """In this block, what is done belongs to the trace that a `traceparent` (W3C Trace Context) names, or to a new one.

    Whoever sends the header chooses the trace: it is for finding what belongs together, and proves nothing.
    """
    stated = _TRACEPARENT.fullmatch(traceparent) if type(traceparent) is str else None
    named = stated[1] if stated is not None and set(stated[1]) != {"0"} else random_bytes(16).hex()
    return _Block(_trace, named)


def trace() -> str | None:
    """The id of the trace, 32 hexadecimal digits, or None: `AuditTrail(..., trace=current.trace)`."""
    return _trace.get()


def traceparent() -> str | None:
    """The header for a call that belongs to the same trace, with a span id of its own."""
    named = _trace.get()
    return f"00-{named}-{random_bytes(8).hex()}-01" if named is not None else None


# --- what a request is granted ---------------------------------------------------------------------------------------


def serving(grant: Grant) -> AbstractContextManager[Grant]:
    """In this block, `grant` is what the request at hand came with. For adapters, around the code that answers it.

    A group of exceptions that are all Denied leaves it as one Denied.
    """
    if not isinstance(grant, Grant):
        raise TypeError(f"a {type(grant).__name__} is no Grant: only a verifier hands one out")
    return _Serving(_granted, grant)


def grant() -> Grant:
    """The grant of the request at hand: ask it about each access. Raises NoToken outside of one."""
    granted = _granted.get()
    if granted is None:
        raise NoToken(
            "nothing is granted here: no request that an adapter has let in is being answered"
        )
    return granted


# --- across threads and processes ------------------------------------------------------------------------------------


def carry(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function`, to be called in another thread with what is held and granted here, now."""
    held, granted, trace_ = _held.get(), _granted.get(), _trace.get()

    @wraps(function)
    def carried(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _Block(_held, held), _Block(_granted, granted), _Block(_trace, trace_):
            return function(*args, **kwargs)

    return carried


def environment() -> dict[str, str]:
    """What is held, as a variable for the environment of a child process. Secret. A key does not travel that way.

    Raises NoToken. On most systems, whoever runs as the same user can read the environment of a process.
    """
    return {VARIABLE: holding().token.serialize()}


def from_environment(
    signer: Signer | None = None, environ: MutableMapping[str, str] = os.environ
) -> AbstractContextManager[Held]:
    """In this block, this process holds what its parent gave it. The variable is gone at once, so that no child inherits it.

    Raises NoToken if there is none, TokenFormatError if it is no token.
    """
    if VARIABLE not in environ:
        raise NoToken(f"no token in the environment: {VARIABLE} is not set")
    return use(environ.pop(VARIABLE), signer)

"""The token that this code holds, the grant that a request came with, and its trace.

Each is one context variable.

    with current.use(token):                                         # the orchestrator's
        with current.delegate(to="sales-agent", tables=["sales"]):   # here: the sub-agent's
            await agent.run(...)

1. What is absent is denied: `NoToken`, never a default.
2. Held and granted are two things. A server that was granted something holds nothing by it: nobody
   passes on what came in.
3. Asyncio hands the context on to tasks and to `to_thread`. A thread or an executor gets nothing:
   `carry` a function there.
4. A process gets `environment()`, and takes it out of its own environment, so that its children do
   not inherit it.

A task that was started in a block and outlives it keeps what the block had. That is good until its
expiry, as is any copy of a token.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from contextvars import Token as ContextToken
from datetime import timedelta
from functools import wraps
from typing import Any, Generic, NamedTuple, ParamSpec, TypeAlias, TypeVar, Unpack, overload

import msgspec

from captoken._format.clocks import Seconds, read_clock
from captoken._format.encoding import LIMITS
from captoken._format.entropy import random_bytes
from captoken._format.errors import NoToken
from captoken._format.sealed import SealedValue, forgetful
from captoken._format.text import PROOF_CHARS
from captoken._language.access import Access
from captoken._language.caveats import COUNTED
from captoken._verification.decision import AsyncGrant, Denied, Grant
from captoken._writing.keywords import LinkCaveats, PresentCaveats, Strings
from captoken._writing.token import Token
from captoken.proof import Signer, with_proof

VARIABLE = "CAPTOKEN"  # of the process environment (spec 40.7)
SHOWN = 64  # texts that one holder keeps: servers, times what is asked of each

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")

AnyGrant: TypeAlias = Grant | AsyncGrant  # what a request may be granted
_G = TypeVar("_G", bound="Grant | AsyncGrant")


class _Shown(NamedTuple):
    """A text for one server, without a proof."""

    text: str
    made: int  # seconds since the epoch
    until: int  # when half of its life is over

    def __repr__(self) -> str:
        return "<a text for a server>"


class Held(SealedValue, frozen=True, eq=False):
    """A token, and the key that it is bound to if it is bound to one: all that its holder needs.

    Whoever has this object has the token. It is not pickled and shows no secret; what goes
    elsewhere is presented, or handed on.
    """

    _instead = "hand on its token"

    token: Token
    signer: Signer | None = None
    # What was presented lately. It goes with what is held: nobody else's text is in it.
    _shown: dict[Any, _Shown] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.token, Token):
            kind = type(self.token).__name__
            raise TypeError(f"a Token is needed, not a {kind}: Token.parse reads text")

    @property
    def _own_signer(self) -> Signer | None:
        """The key, where the token is bound to one. A bearer token needs none."""
        return self.signer if self.token.unverified.key is not None else None

    def present(
        self,
        *,
        audience: str,
        request: Access | bytes | None = None,
        expires_in: Seconds = 60,
        keep: Strings = (),
        clamp: bool = False,
        **caveats: Unpack[PresentCaveats],
    ) -> str:
        """The text for one server and one request, narrowed by `caveats`.

        It ends in a proof where the token is bound to a key. `request` is then what the proof is
        about: as `Token.present` takes it. Raises NoToken where the key is not here, and what
        `Token.present` and the signer raise.
        """
        signer = self._own_signer
        if signer is None and self.token.unverified.key is not None:
            raise NoToken(
                "the token is bound to a key, and the key is not held here: use(token, key)"
            )
        # Together they are not longer than what a server is sent.
        room = LIMITS.present_chars
        if signer is None:
            return self._shown_to(audience, expires_in, room, keep, clamp, caveats)
        room -= PROOF_CHARS + 1
        shown = self._shown_to(audience, expires_in, room, keep, clamp, caveats)
        means = self.token.means
        return with_proof(
            shown,
            signer,
            audience=self.token.proven_to(audience, signer),
            request=request,
            clock=means.clock,
            random=means.random,
        )

    def _shown_to(
        self,
        audience: str,
        expires_in: Seconds,
        max_chars: int,
        keep: Strings,
        clamp: bool,
        caveats: PresentCaveats,
    ) -> str:
        """The text for one server without a proof: one that was made lately, or a new one.

        One is used for half of its life, so that it has the other half left when it comes. Not with
        caveats that count: each text has a link of its own, and so an allowance of its own.
        """
        wanted = (audience, expires_in, keep, clamp, dict(caveats))
        asked = None if not COUNTED.isdisjoint(caveats) else _frozen(wanted)
        now = read_clock(self.token.means.clock)
        kept = self._shown.get(asked)
        if kept is not None and kept.made <= now < kept.until:
            return kept.text

        text, ends = self.token.show(
            audience=audience,
            expires_in=expires_in,
            max_chars=max_chars,
            keep=keep,
            clamp=clamp,
            **caveats,
        )
        if asked is not None:
            if len(self._shown) >= SHOWN:
                self._shown.clear()
            self._shown[asked] = _Shown(text, now, now + (ends - now) // 2)
        return text

    def delegate(
        self,
        *,
        to: str,
        key: Signer | None = None,
        keep: Strings = (),
        clamp: bool = False,
        **caveats: Unpack[LinkCaveats],
    ) -> Held:
        """What the agent `to` holds from here on.

        `key` is its own key: due where this token is bound, binding where it is not. Raises what
        `Token.delegate` raises.
        """
        public = None if key is None else key.public
        signer = self._own_signer
        child = self.token.delegate(
            to=to,
            key=public,
            signer=signer,
            keep=keep,
            clamp=clamp,
            **caveats,
        )
        return Held(child, key)

    def __repr__(self) -> str:
        key = ", with its key" if self.signer else ""
        return f"<Held {self.token!r}{key}>"


def _frozen(value: Any) -> Any:
    """A key for what was asked for, of plain values alone; None for anything else.

    By exact types, and with them: True is no 1, and a mapping of somebody's own may answer
    otherwise the next time.
    """
    kind = type(value)
    if value is None or kind in (str, int, bool, timedelta):
        return kind, value
    if kind in (list, tuple):
        parts = [_frozen(item) for item in value]
    elif kind is dict and all(type(key) is str for key in value):
        parts = [(key, _frozen(item)) for key, item in sorted(value.items())]
        parts = [None if item is None else (key, item) for key, item in parts]
    else:
        return None
    return None if None in parts else (kind, tuple(parts))


_held: ContextVar[Held | None] = ContextVar("captoken.held", default=None)
_granted: ContextVar[AnyGrant | None] = ContextVar("captoken.granted", default=None)
_trace: ContextVar[str | None] = ContextVar("captoken.trace", default=None)


class _Block(Generic[_T]):
    """A block in which a variable has a value.

    Raises RuntimeError where it is entered once more before its end: the inner end would forget
    what the outer one has to restore. Left twice, it was left once.
    """

    __slots__ = ("_before", "_value", "_variable")
    _before: ContextToken[Any] | None

    def __init__(self, variable: ContextVar[Any], value: _T) -> None:
        self._variable = variable
        self._value = value
        self._before = None

    def __enter__(self) -> _T:
        if self._before is not None:
            raise RuntimeError("this block is entered already: make one for each `with`")
        self._before = self._variable.set(self._value)
        return self._value

    def __exit__(self, *raised: object) -> None:
        before = self._before
        self._before = None
        if before is None:  # it was left before
            return
        self._variable.reset(before)


class _Serving(_Block[_G]):
    """A block with a grant.

    A group of exceptions that are all Denied, a TaskGroup's say, leaves it as the first of them: an
    adapter answers a Denied, and would take the group for an error of the server's.
    """

    __slots__ = ()

    def __exit__(self, *raised: object) -> None:
        super().__exit__()
        error = raised[1] if raised else None
        if not isinstance(error, BaseExceptionGroup):
            return
        denied = _denied_in(error)
        if denied is not None:
            raise denied from None


def _denied_in(error: BaseException) -> Denied | None:
    """The first Denied of a group that has nothing else in it; the error itself if it is one.

    None where something else was raised too: that must not be taken for a refusal.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error if isinstance(error, Denied) else None
    found = [_denied_in(each) for each in error.exceptions]
    return None if None in found else found[0]


# --- what this code holds ---------------------------------------------------------------------


def holding(held: Held | Token | None = None) -> Held:
    """What is passed, or else what is current. Raises NoToken where that is nothing.

    It does not look at the token: whether it is genuine or has expired, a verifier says.
    """
    if isinstance(held, Held):
        return held
    if held is not None:
        return Held(held)
    mine = _held.get()
    if mine is None:  # rule 1
        raise NoToken("no token is current here: `with captoken.current.use(token)`, or pass one")
    return mine


@forgetful  # so that no frame of a traceback holds the text
def use(token: Token | str | Held, signer: Signer | None = None) -> AbstractContextManager[Held]:
    """In this block, `token` is what this code holds; `signer` is the key that it is bound to.

    Raises TokenFormatError for text that is no token. It does not say whether the token is genuine.
    """
    if isinstance(token, Held):
        return _Block(_held, token)
    read = token if isinstance(token, Token) else Token.parse(token)
    return _Block(_held, Held(read, signer))


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
    child = holding().delegate(
        to=to,
        key=key,
        keep=keep,
        clamp=clamp,
        **caveats,
    )
    with use(child):
        yield child


@contextmanager
def nothing() -> Generator[None, None, None]:
    """In this block this code holds nothing, and nothing is granted to it.

    For adapters, around code that answers somebody else. The trace goes on.
    """
    with _Block(_held, None), _Block(_granted, None):
        yield


# --- which trace it belongs to ----------------------------------------------------------------

_TRACEPARENT = re.compile(
    "[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.{0,256})?", re.ASCII
)


def traced(traceparent: str | None = None) -> AbstractContextManager[str]:
    """In this block, what is done belongs to the trace that a `traceparent` names, or to a new one.

    The header is that of W3C Trace Context. Whoever sends it chooses the trace: it is for finding
    what belongs together, and proves nothing.
    """
    named = _trace_in(traceparent) or random_bytes(16).hex()
    return _Block(_trace, named)


def _trace_in(traceparent: object) -> str | None:
    """The id that a header names, or None.

    So for a header of another form, and for the id that is all zeros, which names no trace.
    """
    stated = _TRACEPARENT.fullmatch(traceparent) if type(traceparent) is str else None
    if stated is None or set(stated[1]) == {"0"}:
        return None
    return stated[1]


def trace() -> str | None:
    """The id of the trace, 32 hexadecimal digits, or None.

    `AuditTrail(..., trace=current.trace)` puts it into each record.
    """
    return _trace.get()


def traceparent() -> str | None:
    """The header for a call that belongs to the same trace, with a span id of its own.

    None where there is no trace: then none is begun by asking.
    """
    named = _trace.get()
    if named is None:
        return None
    span = random_bytes(8).hex()
    return f"00-{named}-{span}-01"


# --- what a request is granted ----------------------------------------------------------------


def serving(grant: _G) -> AbstractContextManager[_G]:
    """In this block, `grant` is what the request at hand came with.

    For adapters, around the code that answers it: the Grant of a Verifier, or the AsyncGrant of an
    AsyncVerifier. A group of exceptions that are all Denied leaves it as one Denied.
    """
    if not isinstance(grant, (Grant, AsyncGrant)):
        raise TypeError(f"a {type(grant).__name__} is no Grant: only a verifier hands one out")
    return _Serving(_granted, grant)


@overload
def grant() -> Grant: ...


@overload
def grant(face: type[_G]) -> _G: ...


def grant(face: type[Any] | None = None) -> Any:
    """The grant of the request at hand: ask it about each access.

    It is the one that was served: of an AsyncVerifier an AsyncGrant, whose answers are awaited.
    `face` says which of the two is meant, whichever was served: `grant(AsyncGrant)` in a coroutine,
    `grant(Grant)` for a guard that does not await.

    Raises NoToken outside of a request, and in code that was started before the request came. What
    is held here does not count (rule 2).
    """
    granted = _granted.get()
    if granted is None:  # rules 1 and 2: what is held here grants nothing
        raise NoToken(
            "nothing is granted here: no request that an adapter has let in is being answered"
        )
    if face is AsyncGrant and isinstance(granted, Grant):
        return granted.awaited
    if face is Grant and isinstance(granted, AsyncGrant):
        return granted.blocking
    return granted


# --- across threads and processes -------------------------------------------------------------


def carry(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function`, to be called in another thread with what is held and granted here, now.

    It may be called more than once, and in several threads. What it holds it keeps until then,
    whatever has ended here meanwhile.
    """
    # Now, and not when it is called: by then other things may be current, or nothing.
    held = _held.get()
    granted = _granted.get()
    named = _trace.get()

    @wraps(function)
    def carried(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _Block(_held, held), _Block(_granted, granted), _Block(_trace, named):
            return function(*args, **kwargs)

    return carried


def environment() -> dict[str, str]:
    """What is held, as a variable for the environment of a child process. Secret.

    A key does not travel that way (spec 40.7). Raises NoToken. On most systems, whoever runs as the
    same user can read the environment of a process.
    """
    return {VARIABLE: holding().token.serialize()}


def from_environment(
    signer: Signer | None = None,
    environ: MutableMapping[str, str] = os.environ,
) -> AbstractContextManager[Held]:
    """In this block, this process holds what its parent gave it.

    The variable is gone at once, so that no child inherits it. Raises NoToken if there is none,
    TokenFormatError if it is no token.
    """
    if VARIABLE not in environ:
        raise NoToken(f"no token in the environment: {VARIABLE} is not set")
    return use(environ.pop(VARIABLE), signer)  # rule 4

"""The current token, the grant of the current request, and its trace: one context variable each.

    with current.use(token):                                         # the orchestrator's
        with current.delegate(to="sales-agent", tables=["sales"]):   # here: the sub-agent's
            await agent.run(...)

1. If something is absent, access is denied: `NoToken`, never a default.
2. A held token and a grant are different. A grant does not let a server act for itself, so it
   cannot pass on a token that came in.
3. Asyncio passes the context to tasks and to `to_thread`. A thread or an executor gets nothing: use
   `carry` for its function.
4. A child process gets `environment()`, and removes it from its own environment, so that its
   children do not inherit it.
5. A generator must not open a block: between two steps, whoever asks for the next item would have
   the token. `during` opens a block for each step.

A task that was started in a block and outlives it keeps the block's token. That token still
expires, like any copy.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import partial, wraps
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from types import FrameType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NamedTuple,
    ParamSpec,
    TypeAlias,
    TypeVar,
    Unpack,
    cast,
    overload,
)

import msgspec
from msgspec import structs

from captoken._format.clocks import Seconds, read_clock
from captoken._format.encoding import LIMITS
from captoken._format.entropy import random_bytes
from captoken._format.errors import NoToken, StatementError
from captoken._format.sealed import SealedValue, no_arguments_in_traceback
from captoken._format.spelling import named_all
from captoken._format.text import (
    CONSENT_CHARS,
    PROOF_CHARS,
    read_consents,
    with_consents,
)
from captoken._language.access import Access
from captoken._language.caveats import COUNTED
from captoken._verification.decision import Denied
from captoken._verification.grant import AsyncGrant, Grant
from captoken._writing.keywords import LinkCaveats, PresentCaveats, Strings
from captoken._writing.presenting import proven_server
from captoken._writing.token import Token
from captoken._writing.token_set import OnlyAt, TokenSet, parse_held
from captoken._writing.unverified import Unverified
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

    So is a set of tokens, of which each server is shown its own one: `at` says which that is.

    Whoever has this object has the token. It is not pickled and shows no secret; what goes
    elsewhere is presented, or handed on.
    """

    _instead = "hand on its token"

    token: Token | TokenSet
    signer: Signer | None = None
    # What a person consented to, each for one access: shown with the token. See `with_consents`.
    consents: tuple[bytes, ...] = ()
    # What was presented lately. It goes with what is held: nobody else's text is in it.
    _shown: dict[Any, _Shown] = msgspec.field(default_factory=dict)
    # What was read off the token, once: who holds it, and its text.
    _holder: list[str] = msgspec.field(default_factory=list)
    _text: list[_Shown] = msgspec.field(default_factory=list)
    # Of a set, what is held for each server.
    _at: dict[str, Held] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.token, (Token, TokenSet)):
            kind = type(self.token).__name__
            raise TypeError(f"expected a Token, not {kind}: Token.parse reads one from text")

    def at(self, *audiences: str) -> Held:
        """What is held for a server, by any of its names: of a set, that server's token alone.

        Each client and each guard asks here what it is to show: nobody else chooses from a set. One
        token is held for every server, and says itself which of them take it. Raises NoToken where
        a set has none for that server.
        """
        if isinstance(self.token, Token):
            return self
        for audience in audiences:
            if audience in self._at:
                return self._at[audience]
            if audience in self.token.servers:
                made = Held(self.token.token(audience), self.signer, self.consents)
                return self._at.setdefault(audience, made)
        named = named_all(audiences) if audiences else "a verifier that has no name"
        raise NoToken(
            f"the set has no token for {named}: it has tokens for {named_all(self.token.servers)}"
        )

    def with_consents(self, consents: Iterable[str]) -> Held:
        """The same, shown with these consents, and those that it has: the later to each question.

        Each is good for one access, once: for another it is passed over. Raises TypeError, or
        TokenFormatError for what is no consent or for too many.
        """
        together = read_consents(consents, self.consents)
        return structs.replace(self, consents=together, _shown={}, _at={})

    @property
    def holder(self) -> str:
        """The agent that holds the token, as far as the chain says: no signature vouches for it."""
        if not self._holder:
            self._holder.append(self._said.holder)
        return self._holder[0]

    @property
    def holders(self) -> tuple[str, ...]:
        """All agents that have held it, the holder last, as far as the chain says."""
        return self._said.lineage.holders

    @property
    def key(self) -> str | None:
        """The public key that it is bound to, if it is bound to one, as far as the chain says."""
        return self._said.key

    @property
    def _said(self) -> Unverified:
        """What it says of its holder; the tokens of a set say one thing of that."""
        held = self.token
        one = held if isinstance(held, Token) else next(iter(held.secret_tokens.values()))
        return one.unverified

    @property
    def one(self) -> Token:
        """The token, where it is one: always so of what `at` gives. Raises NoToken for a set."""
        if isinstance(self.token, TokenSet):
            raise NoToken("a set of tokens is in use: choose one of them with at(server)")
        return self.token

    @property
    def secret_text(self) -> str:
        """The token's own text, which a verifier in this process knows again. Never to be sent."""
        if not self._text:
            self._text.append(_Shown(self.token.serialize(), 0, 0))
        return self._text[0].text

    @property
    def _own_signer(self) -> Signer | None:
        """The key, where the token is bound to one. A bearer token needs none."""
        return self.signer if self.key is not None else None

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
        if isinstance(self.token, TokenSet):
            return self.at(audience).present(
                audience=audience,
                request=request,
                expires_in=expires_in,
                keep=keep,
                clamp=clamp,
                **caveats,
            )
        signer = self._own_signer
        if signer is None and self.key is not None:
            raise NoToken(
                "the token is bound to a key, and the key is not in use here: pass both, "
                "use(token, key)"
            )
        # Together they are not longer than what a server is sent.
        room = LIMITS.present_chars - len(self.consents) * (CONSENT_CHARS + 1)
        if signer is not None:
            room -= PROOF_CHARS + 1
        shown = self._shown_to(audience, expires_in, room, keep, clamp, caveats)
        if self.consents:
            shown = with_consents(shown, self.consents)
        if signer is None:
            return shown
        context = self.one.context
        return with_proof(
            shown,
            signer,
            audience=proven_server(self._said.lineage.key, audience, signer),
            request=request,
            clock=context.clock,
            random=context.random,
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
        now = read_clock(self.one.context.clock)
        kept = self._shown.get(asked)
        if kept is not None and kept.made <= now < kept.until:
            return kept.text

        shown = self.one.presentation(
            audience=audience, expires_in=expires_in, keep=keep, clamp=clamp, **caveats
        )
        text = shown.text(max_chars)
        if asked is not None:
            if len(self._shown) >= SHOWN:
                self._shown.clear()
            self._shown[asked] = _Shown(text, now, now + (shown.ends - now) // 2)
        return text

    def delegate(
        self,
        *,
        to: str,
        key: Signer | None = None,
        keep: Strings = (),
        clamp: bool = False,
        only: OnlyAt | None = None,
        servers: Iterable[str] | None = None,
        **caveats: Unpack[LinkCaveats],
    ) -> Held:
        """What the agent `to` holds from here on.

        `key` is its own key: due where this token is bound, binding where it is not. `only` and
        `servers` say where keywords go in a set, as of `TokenSet.delegate`. Raises what
        `Token.delegate` or `TokenSet.delegate` raises; ValueError for `only` or `servers` without a
        set.
        """
        where: dict[str, Any] = {"only": only, "servers": servers}
        if isinstance(self.token, Token):
            if only is not None or servers is not None:
                raise ValueError("servers and only work on a set of tokens, and this is one token")
            where = {}
        child = self.token.delegate(
            to=to,
            key=None if key is None else key.public,
            signer=self._own_signer,
            keep=keep,
            clamp=clamp,
            **where,
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


# What is taken wherever something is held: a seam chooses from it by `at`.
AnyHeld: TypeAlias = Held | Token | TokenSet


# --- blocks -----------------------------------------------------------------------------------


class _Entry(Generic[_T]):
    """What one block put into a variable. Whatever was there before it stands below."""

    __slots__ = ("below", "ended", "value")

    def __init__(self, value: _T, below: _Entry[_T] | None) -> None:
        self.value = value
        self.below = below
        self.ended = False  # its block was left, out of turn: it is never current again


_Chain: TypeAlias = "ContextVar[_Entry[_T] | None]"

_held: _Chain[Held | None] = ContextVar("captoken.held", default=None)
_granted: _Chain[AnyGrant | None] = ContextVar("captoken.granted", default=None)
_trace: _Chain[str | None] = ContextVar("captoken.trace", default=None)


def _standing(entry: _Entry[_T] | None) -> _Entry[_T] | None:
    """The entry, or the first one below it whose block has not ended out of turn."""
    while entry is not None and entry.ended:
        entry = entry.below
    return entry


def _now(variable: _Chain[_T]) -> _T | None:
    """What is current."""
    entry = variable.get()
    if entry is not None and entry.ended:
        entry = _standing(entry)
    return None if entry is None else entry.value


class _Block(Generic[_T]):
    """A block in which a variable has a value.

    Raises RuntimeError where a generator enters it (rule 5), but for one that is `anywhere`: in the
    code of this file, which leaves it before its function returns.

    Raises RuntimeError where it is entered once more before its end. Left twice, it was left once.
    """

    __slots__ = ("_anywhere", "_entry", "_value", "_variable")
    _entry: _Entry[Any] | None

    def __init__(self, variable: _Chain[Any], value: _T, *, anywhere: bool = False) -> None:
        self._variable = variable
        self._value = value
        self._anywhere = anywhere
        self._entry = None

    def __enter__(self) -> _T:
        if not self._anywhere:
            _refuse_generator(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
        if self._entry is not None:
            raise RuntimeError("this block is already entered: make a new one for each `with`")
        below = self._variable.get()
        if below is not None and below.ended:
            below = _standing(below)
        self._entry = entry = _Entry(self._value, below)
        self._variable.set(entry)
        return self._value

    def __exit__(self, *raised: object) -> None:
        entry = self._entry
        self._entry = None
        if entry is None:  # it was left before
            return
        if self._variable.get() is entry:
            # In its turn. What was started in the block and outlives it keeps the entry.
            below = entry.below
            if below is not None and below.ended:
                below = _standing(below)
            self._variable.set(below)
        else:
            # Others were entered meanwhile, or this is another context. Nobody's is taken away, and
            # this one is current no more, wherever it got to.
            entry.ended = True


# The globals of functions: whose they are.
_OWN: Any = globals()
_MANAGERS: Any = vars(contextlib)

_IN_STEPS = CO_GENERATOR | CO_ASYNC_GENERATOR

# The modules that call a function in a worker thread: threading, executors, anyio and asgiref.
_WORKERS = frozenset(
    {"threading", "concurrent.futures.thread", "anyio._backends._asyncio", "asgiref.sync"}
)


def _refuse_generator(frame: FrameType | None) -> None:
    """Raise RuntimeError where it is a generator that enters a block, or a thread that leaves it.

    `frame` is whoever calls `__enter__`. The walk goes out from there, past what only passes on: to
    whoever has the block open when its `with` begins.

    Not seen: what is written in C, and a class of somebody's own whose `__enter__` enters a block.
    For these the chain of entries is there: see `_Block.__exit__`.
    """
    while frame is not None:
        where = frame.f_globals
        if where is _MANAGERS:
            if frame.f_code.co_name == "inner":  # a decorator: the block ends before it returns
                return
        elif where is not _OWN:
            if not frame.f_code.co_flags & _IN_STEPS:
                if where.get("__name__") in _WORKERS:
                    raise RuntimeError(_OF_A_THREAD)
                return
            # A generator. One that contextlib drives is the inside of a context manager.
            outside = frame.f_back
            driver = ""
            if outside is not None and outside.f_globals is _MANAGERS:
                driver = outside.f_code.co_name
            if driver in ("__exit__", "__aexit__"):  # it is asked for no further item
                return
            if driver not in ("__enter__", "__aenter__"):
                raise RuntimeError(_IN_A_GENERATOR)
        frame = frame.f_back
    raise RuntimeError(_OF_A_THREAD)  # nobody has it open


_IN_A_GENERATOR = (
    "a block of captoken.current was opened in a generator: between two steps, the code that asks "
    "for the next item would have the token. Open the block around the loop, or give the generator "
    "its token with captoken.current.during(token, generator); in a pytest fixture, with "
    "captoken.testing.hold"
)
_OF_A_THREAD = (
    "a worker thread would enter this block of captoken.current and leave it open, and the token "
    "would be lost when the thread is done. Make the function `async def`, or open the block in "
    "the function that needs it"
)


class _Serving(_Block[_G]):
    """A block with a grant.

    A group of exceptions that are all Denied or StatementError, a TaskGroup's say, leaves it as one
    of them: an adapter answers these, and would take the group for an error of the server's.
    """

    __slots__ = ()

    def __exit__(self, *raised: object) -> None:
        super().__exit__()
        error = raised[1] if raised else None
        if not isinstance(error, BaseExceptionGroup):
            return
        refusal = refusal_in(error)
        if refusal is not None:
            raise refusal from None


def refusal_in(error: BaseException) -> Denied | StatementError | None:
    """For adapters: the error if it is one of these; of a group of them the first denial, if any.

    None where something else was raised too: that must not be taken for a refusal.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error if isinstance(error, (Denied, StatementError)) else None
    found = [refusal_in(each) for each in error.exceptions]
    if None in found:
        return None
    return next((each for each in found if isinstance(each, Denied)), found[0])


# --- what this code holds ---------------------------------------------------------------------


def holding(held: AnyHeld | None = None) -> Held:
    """What is passed, or else what is current. Raises NoToken where that is nothing.

    It does not look at the token: whether it is genuine or has expired, a verifier says.
    """
    if isinstance(held, Held):
        return held
    if held is not None:
        return Held(held)
    mine = _now(_held)
    if mine is None:  # rule 1
        raise NoToken(
            "no token is in use here: wrap the call in `with captoken.current.use(token):`, or "
            "pass one; to a thread, `captoken.current.carry(function)` carries it"
        )
    return mine


@no_arguments_in_traceback  # so that no frame of a traceback holds the text
def use(
    token: AnyHeld | str,
    signer: Signer | None = None,
    *,
    consents: Iterable[str] = (),
) -> AbstractContextManager[Held]:
    """In this block, `token` is what this code holds; `signer` is the key that it is bound to.

    `consents` are what a person has said yes to, each for one access: they are shown with it.

    It is one token or a set of them. It does not say whether they are genuine. Raises
    TokenFormatError for text that is neither; the block raises RuntimeError where a generator
    enters it.
    """
    held = _held_of(token, signer)
    return _Block(_held, held.with_consents(consents) if consents else held)


@no_arguments_in_traceback
def _held_of(token: AnyHeld | str, signer: Signer | None) -> Held:
    """What holds a token, a set, or the text of one. Raises TokenFormatError, TypeError."""
    if isinstance(token, Held):
        return token
    read = token if isinstance(token, (Token, TokenSet)) else parse_held(token)
    return Held(read, signer)


@contextmanager
def delegate(
    *,
    to: str,
    key: Signer | None = None,
    keep: Strings = (),
    clamp: bool = False,
    only: OnlyAt | None = None,
    servers: Iterable[str] | None = None,
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
        only=only,
        servers=servers,
        **caveats,
    )
    with use(child):
        yield child


def nothing() -> AbstractContextManager[None]:
    """In this block this code holds nothing, and nothing is granted to it.

    For adapters, around code that answers somebody else. The trace goes on.
    """
    return _Nothing()


class _Nothing(AbstractContextManager[None]):
    __slots__ = ("_blocks",)

    def __init__(self) -> None:
        # The first one has looked who enters it.
        self._blocks = (_Block(_held, None), _Block(_granted, None, anywhere=True))

    def __enter__(self) -> None:
        for block in self._blocks:
            block.__enter__()

    def __exit__(self, *raised: object) -> None:
        for block in reversed(self._blocks):
            block.__exit__()


# --- generators -------------------------------------------------------------------------------

# A function that yields makes no other kind than these two, so the type of what comes is kept.
_Made = TypeVar("_Made", bound=Generator[Any, Any, Any] | AsyncGenerator[Any, Any])


@no_arguments_in_traceback
def during(token: AnyHeld | str, generator: _Made, signer: Signer | None = None) -> _Made:
    """The same generator, sync or async, which holds `token` in each of its steps.

        for row in current.during(token, rows()): ...

    Whoever asks for its items holds nothing by that. An async one that is not read to its end is to
    be closed (`contextlib.aclosing`): else the event loop closes it later, without the token.

    Raises TokenFormatError for text that is no token, TypeError for what is no generator.
    """
    held = _held_of(token, signer)
    return cast("_Made", _in_steps(partial(_Block, _held, held, anywhere=True), generator))


def serving_during(grant: AnyGrant, generator: Any) -> Any:
    """For adapters: the same generator, each of whose steps runs under `serving(grant)`.

    Raises TypeError for what is no grant, and for what is no generator.
    """
    return _in_steps(partial(_Serving, _granted, _checked(grant), anywhere=True), generator)


def _in_steps(block: Callable[[], AbstractContextManager[Any]], generator: Any) -> Any:
    """The generator, each of whose steps runs in a block of its own, which `block` makes."""
    if isinstance(generator, AsyncGenerator):
        return _AwaitedSteps(block, generator)
    if isinstance(generator, Generator):
        return _Steps(block, generator)
    raise TypeError(f"expected a generator, not {type(generator).__name__}")


class _Steps(Generator[Any, Any, Any]):
    """A generator that runs in blocks, and nobody else is in them between its steps.

    A block around all of its steps would be left open in whatever code asks for the next one.
    """

    # called: current, by `python -m tests.called`
    def __init__(
        self,
        block: Callable[[], AbstractContextManager[Any]],
        steps: Generator[Any, Any, Any],
    ) -> None:
        self._block = block
        self._steps = steps

    def send(self, value: Any) -> Any:
        with self._block():
            return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        with self._block():
            return self._steps.throw(*error)

    def close(self) -> None:
        with self._block():
            self._steps.close()

    # end: current

    def __del__(self) -> None:
        # Left before its end: what it does then it does with its own, not with what is current
        # where it happens to be dropped.
        self.close()


class _AwaitedSteps(AsyncGenerator[Any, Any]):
    """The same of an async generator: what it awaits in a step belongs to the step."""

    # awaited: current
    def __init__(
        self,
        block: Callable[[], AbstractContextManager[Any]],
        steps: AsyncGenerator[Any, Any],
    ) -> None:
        self._block = block
        self._steps = steps

    async def asend(self, value: Any) -> Any:
        with self._block():
            return await self._steps.asend(value)

    async def athrow(self, *error: Any) -> Any:
        with self._block():
            return await self._steps.athrow(*error)

    async def aclose(self) -> None:
        with self._block():
            await self._steps.aclose()

    # end: current


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
    return _now(_trace)


def traceparent() -> str | None:
    """The header for a call that belongs to the same trace, with a span id of its own.

    None where there is no trace: then none is begun by asking.
    """
    named = _now(_trace)
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
    return _Serving(_granted, _checked(grant))


def _checked(grant: _G) -> _G:
    """The grant, if it is one. Raises TypeError."""
    if not isinstance(grant, (Grant, AsyncGrant)):
        raise TypeError(
            f"expected a Grant, not {type(grant).__name__}: verifier.authenticate(token) returns "
            "one"
        )
    return grant


class _Lending:
    """The block of `lending`: both at once."""

    __slots__ = ("_holding", "_serving")

    def __init__(self, held: Held, grant: AnyGrant) -> None:
        self._holding: _Block[Held] = _Block(_held, held, anywhere=True)
        self._serving: _Serving[AnyGrant] = _Serving(_granted, grant, anywhere=True)

    def __enter__(self) -> AnyGrant:
        self._holding.__enter__()
        return self._serving.__enter__()

    def __exit__(self, *raised: object) -> None:
        try:
            self._serving.__exit__(*raised)
        finally:
            self._holding.__exit__()


def lending(held: Held, grant: AnyGrant) -> AbstractContextManager[AnyGrant]:
    """For adapters: in this block `held` is held, and `grant` is what it may do.

    For a `with` in a function or a coroutine of the adapter's own: a generator is not looked for.
    """
    return _Lending(held, _checked(grant))


if TYPE_CHECKING:  # what `face` makes of it

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
    granted = _now(_granted)
    if granted is None:  # rules 1 and 2: what is held here grants nothing
        raise NoToken(
            "there is no grant here: this code does not run within a request that an adapter has "
            "let in"
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
    held = _now(_held)
    granted = _now(_granted)
    named = _now(_trace)

    @wraps(function)
    def carried(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with (
            _Block(_held, held, anywhere=True),
            _Block(_granted, granted, anywhere=True),
            _Block(_trace, named, anywhere=True),
        ):
            return function(*args, **kwargs)

    return carried


def environment() -> dict[str, str]:
    """What is held, as a variable for the environment of a child process. Secret.

    It may be a set. A key does not travel that way (spec 40.7). Raises NoToken. On most systems,
    whoever runs as the same user can read the environment of a process.
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

"""The token that this code holds, and the grant that a request came with: one context variable each (spec, "In process").

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
from collections.abc import Callable, Generator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar, Unpack

from captoken import possession
from captoken.access import Access
from captoken.attenuate import LinkCaveats, PresentCaveats, Seconds, Strings
from captoken.errors import NoToken, TokenFormatError
from captoken.possession import Signer
from captoken.sealed import Sealed
from captoken.tokens import Token
from captoken.verify import Grant

VARIABLE = "CAPTOKEN"  # of the process environment
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

    def __init__(self, token: Token | str, signer: Signer | None = None) -> None:
        problem = None
        if not isinstance(token, Token):
            try:
                token = Token.parse(token)
            except TokenFormatError as error:
                problem = error.bare()
        if problem is not None:
            del token
            raise problem
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
        text = token.present(audience=audience, expires_in=expires_in, keep=keep, clamp=clamp, **caveats)
        if self.signer is None or not self._bound:
            return Presented(text, None)
        return Presented(text, possession.prove(text, self.signer, audience=audience, request=request, clock=token._clock))

    def delegate(
        self, *, to: str, key: Signer | None = None, keep: Strings = (), clamp: bool = False, **caveats: Unpack[LinkCaveats]
    ) -> Held:
        """What the agent `to` holds from here on. `key` is its own key: due where this token is bound, binding where not.

        Raises what `Token.delegate` raises.
        """
        signer = self.signer if self._bound else None
        public = None if key is None else key.public
        child = self.token.delegate(to=to, key=public, signer=signer, keep=keep, clamp=clamp, **caveats)
        return Held(child, key)

    def __repr__(self) -> str:
        return f"<Held {self.token!r}{', with its key' if self.signer else ''}>"


_held: ContextVar[Held | None] = ContextVar("captoken.held", default=None)
_granted: ContextVar[Grant | None] = ContextVar("captoken.granted", default=None)


@contextmanager
def _set(variable: ContextVar[_T], value: _T) -> Generator[_T, None, None]:
    before = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(before)


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


@contextmanager
def use(token: Token | str | Held, signer: Signer | None = None) -> Generator[Held, None, None]:
    """In this block, `token` is what this code holds; `signer` is the key that it is bound to.

    Raises TokenFormatError for text that is no token. It does not say whether the token is genuine.
    """
    held = token if isinstance(token, Held) else Held(token, signer)
    del token
    with _set(_held, held):
        yield held


@contextmanager
def delegate(
    *, to: str, key: Signer | None = None, keep: Strings = (), clamp: bool = False, **caveats: Unpack[LinkCaveats]
) -> Generator[Held, None, None]:
    """In this block, what is current is handed on to the agent `to`, narrowed.

    Raises NoToken, and what `Held.delegate` raises.
    """
    with use(holding().delegate(to=to, key=key, keep=keep, clamp=clamp, **caveats)) as child:
        yield child


@contextmanager
def nothing() -> Generator[None, None, None]:
    """In this block this code holds nothing, and nothing is granted to it."""
    with _set(_held, None), _set(_granted, None):
        yield


# --- what a request is granted ---------------------------------------------------------------------------------------


@contextmanager
def serving(grant: Grant) -> Generator[Grant, None, None]:
    """In this block, `grant` is what the request at hand came with. For adapters, around the code that answers it."""
    if not isinstance(grant, Grant):
        raise TypeError(f"a {type(grant).__name__} is no Grant: only a verifier hands one out")
    with _set(_granted, grant):
        yield grant


def grant() -> Grant:
    """The grant of the request at hand: ask it about each access. Raises NoToken outside of one."""
    granted = _granted.get()
    if granted is None:
        raise NoToken("nothing is granted here: no request that an adapter has let in is being answered")
    return granted


# --- across threads and processes ------------------------------------------------------------------------------------


def carry(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function`, to be called in another thread with what is held and granted here, now."""
    held, granted = _held.get(), _granted.get()

    @wraps(function)
    def carried(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with _set(_held, held), _set(_granted, granted):
            return function(*args, **kwargs)

    return carried


def environment() -> dict[str, str]:
    """What is held, as a variable for the environment of a child process. Secret. A key does not travel that way.

    Raises NoToken. On most systems, whoever runs as the same user can read the environment of a process.
    """
    return {VARIABLE: holding().token.serialize()}


@contextmanager
def from_environment(
    signer: Signer | None = None, environ: MutableMapping[str, str] = os.environ
) -> Generator[Held, None, None]:
    """In this block, this process holds what its parent gave it; the variable is gone afterwards, so that no child inherits it.

    Raises NoToken if there is none, TokenFormatError if it is no token.
    """
    text = environ.pop(VARIABLE, None)
    if text is None:
        raise NoToken(f"no token in the environment: {VARIABLE} is not set")
    held = Held(text, signer)
    del text
    with use(held):
        yield held

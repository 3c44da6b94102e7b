"""Tokens bound to keys: what is asked of a contestant, captoken's answers, and the floor of Ed25519 signatures.

The story of `contestants.py`, in which every agent has a key too: a server takes the text only with a proof, by the key
of whoever holds it, of the request at hand. Tenuo's side is in `peers.py`.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from hashlib import sha256
from itertools import cycle, repeat
from typing import Generic, TypeVar

from nacl import bindings

from captoken import Access, Caller, Denied, Token, Verifier
from captoken.keys import HolderKey
from captoken.proof import with_proof
from captoken.stores.memory import MemoryReplayStore

from .contestants import (
    FACTS,
    KEY,
    LIFETIME,
    NARROWED,
    OPERATION,
    STEP,
    TABLES,
    Captoken,
    Chain,
    Clock,
    Facts,
    Work,
    agent_after,
    prove,
    refuses,
)

T = TypeVar("T")
P = TypeVar("P")

AUDIENCE = "sales-db"


class Bound(Chain[T], Generic[T, P]):
    """A contestant that takes a token only with a proof of possession. `P` is a proof as the server gets it."""

    once: bool  # whether it refuses a proof that it has taken before

    def show(self, text: str) -> str:
        """Write the token as it goes to the server, as the client does for each server."""
        return text

    @abstractmethod
    def prover(self, text: str, facts: Facts) -> Callable[[], P]:
        """Return the client's work on one request, by the key of the agent in `facts`: the token is in its hand already."""

    @abstractmethod
    def serve(self, text: str, facts: Facts, proofs: Iterable[P | None]) -> Work:
        """Return the server's whole work on one request. Each call takes the next proof, and the first after the last."""

    def ask(self, text: str, facts: Facts, calls: int = 1) -> Work:
        shown = self.show(text)
        make = self.prover(shown, facts)
        return self.serve(shown, facts, [make() for _ in range(calls if self.once else 1)])


class CaptokenBound(Bound[Token, str], Captoken):
    """captoken, every hop bound to a key and signed for. Each call has a server of its own, which remembers no hop."""

    name = "captoken, bound"
    once = True

    def __init__(self, key: bytes = KEY, clock: Clock = time.time) -> None:
        super().__init__(key, clock)
        self.replays = MemoryReplayStore(floor=0)
        self.verifier = self.server()

    def server(self) -> Verifier:
        """Start a server. All of them share the memory of used proofs, as the processes of one server do."""
        return Verifier(self.keyring, AUDIENCE, replays=self.replays, remember=0)

    def servers(self, calls: int) -> Iterator[Verifier]:
        """Return who answers each call."""
        return cycle([self.server() for _ in range(calls)])

    def mint(self) -> str:
        return self.issue(holder_key(FACTS.agent).public).serialize()

    def delegate(self, token: Token, hop: int) -> Token:
        return self.hand_on(token, hop, holder_key(agent_after(hop)).public, holder_key(agent_after(hop - 1)))

    def hand_on(self, token: Token, hop: int, key: str | None, signer: HolderKey | None) -> Token:
        """Delegate, to a key or to none."""
        return token.delegate(
            to=agent_after(hop),
            tables=[NARROWED],
            operations=[OPERATION],
            expires_in=LIFETIME - STEP * hop,
            key=key,
            signer=signer,
        )

    def show(self, text: str) -> str:
        return Token.parse(text).present(audience=AUDIENCE, expires_in=LIFETIME)

    def prover(self, text: str, facts: Facts) -> Callable[[], str]:
        access = Access(table=facts.table, operation=facts.operation)
        return partial(self.proof, text, holder_key(facts.agent), access)

    def proof(self, text: str, key: HolderKey, access: Access) -> str:
        """Make the last part of the text that is sent."""
        return with_proof(text, key, audience=AUDIENCE, request=access, clock=time.time)[len(text) :]

    def serve(self, text: str, facts: Facts, proofs: Iterable[str | None]) -> Work:
        given = [text + (proof or "") for proof in proofs]
        servers, sent = self.servers(len(given)), cycle(given)

        def decide() -> object:
            access = Access(table=facts.table, operation=facts.operation)
            return next(servers).authorize(next(sent), access, caller=Caller(task=facts.task))

        return decide


class CaptokenSeen(CaptokenBound):
    """The same, by one server that has seen the hops before. Proofs are checked each time, whatever it has seen."""

    name = "captoken, bound, hops seen before"

    def servers(self, calls: int) -> Iterator[Verifier]:
        return repeat(self.verifier)

    def ask(self, text: str, facts: Facts, calls: int = 1) -> Work:
        work = super().ask(text, facts, calls + 1)
        with suppress(Denied):  # by whoever asks for it
            work()
        return work


class CaptokenLast(CaptokenBound):
    """A bearer token until the last hop, which binds it: tenuo has nothing of the kind."""

    name = "captoken, bound at the last hop"

    def chain(self, hops: int, *, recorded: bool = False) -> str:
        token = self.issue(None if hops else holder_key(FACTS.agent).public)
        for hop in range(1, hops + 1):
            token = self.hand_on(token, hop, holder_key(agent_after(hop)).public if hop == hops else None, None)
        return token.serialize()


@cache
def holder_key(agent: str) -> HolderKey:
    """Return the key of an agent."""
    return HolderKey.from_bytes(sha256(agent.encode()).digest())


def prove_bound(contestant: Bound[T, P]) -> None:
    """Check what `prove` checks, and that a text is worth nothing without a fresh proof by its key for this request."""
    prove(contestant)
    shown, again = (contestant.show(contestant.mint()) for _ in range(2))
    proof = contestant.prover(shown, FACTS)()
    elsewhere = replace(FACTS, table=TABLES[1])
    refuses(contestant, "a token without a proof", contestant.serve(shown, FACTS, [None]))
    refuses(contestant, "a proof of another request", contestant.serve(shown, elsewhere, [proof]))
    refuses(contestant, "a proof for another token", contestant.serve(again, FACTS, [proof]))
    work = contestant.serve(shown, FACTS, [proof])
    work()
    if contestant.once:
        refuses(contestant, "a proof twice", work)


# The floor: the signatures that a chain of this shape needs, and nothing else.

CUSTODY = bytes(81)  # as long as what a holder signs to hand on
PUBLIC, SECRET = bindings.crypto_sign_seed_keypair(KEY)
SIGNED = bindings.crypto_sign(CUSTODY, SECRET)


def sign() -> bytes:
    """Sign once, by libsodium."""
    return bindings.crypto_sign(CUSTODY, SECRET)


def verify(signatures: int = 1) -> Sequence[bytes]:
    """Verify so many signatures, by libsodium."""
    return [bindings.crypto_sign_open(SIGNED, PUBLIC) for _ in range(signatures)]

"""What every contestant is asked to do, captoken's answer to it, and the floor under all of them.

One story for all. An orchestrator holds a token with five restrictions (two tables, one operation,
an expiry, a task, an agent). It is handed on, each hop restating three of them (table, operation,
expiry). A server is sent the text and one access, and decides.

Tokens bound to keys are in `bound.py`, third parties in `discharged.py`. The peers are in `peers.py`, so that whoever
wants captoken alone needs none of them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from captoken import Access, Caller, Denied, Issuer, Keyring, Token, Verifier

T = TypeVar("T")
Clock = Callable[[], float]
Work = Callable[[], object]

KEY = hashlib.sha256(b"benchmark root key").digest()
OTHER_KEY = hashlib.sha256(b"the forger's root key").digest()

SUBJECT = "user:jane"
TABLES = ("sales", "market.eu")
NARROWED = "sales"
OPERATION = "select"
LIFETIME = 3600  # seconds; a run is over long before
STEP = 10  # seconds by which each hop ends before its parent
HOPS = 10  # how often the token of the ten-hop scenarios was handed on


@dataclass(frozen=True)
class Facts:
    """What is attempted, by whom, in which task. The defaults are allowed by every token here."""

    table: str = "sales"
    operation: str = OPERATION
    task: str = "task-123"
    agent: str = "orchestrator"


FACTS = Facts()


def agent_after(hops: int) -> str:
    """Name who holds a token that was handed on so many times."""
    return f"agent-{hops}" if hops else FACTS.agent


def nonce() -> str:
    """Make what tells two equal delegations apart: 8 random bytes, 11 characters."""
    return base64.urlsafe_b64encode(secrets.token_bytes(8)).rstrip(b"=").decode()


class Contestant(ABC):
    """Something that issues tokens and decides on them. Issues under `key`, at the time of `clock`.

    Deciding always reads the real clock, so a contestant whose clock is behind issues expired tokens.
    """

    name: str
    package: str  # the distribution, for its version
    module: str  # what an embedder imports
    refusals: tuple[type[Exception], ...]  # how it says no; anything else it raises is a fault

    def __init__(self, key: bytes = KEY, clock: Clock = time.time) -> None:
        self.key = key
        self.clock = clock

    @abstractmethod
    def mint(self) -> str:
        """Issue the token with the five restrictions, as text."""

    @abstractmethod
    def ask(self, text: str, facts: Facts, calls: int = 1) -> Work:
        """Return the server's whole work on one request: from text to decision, nothing kept.

        What the client does (a proof of possession) is done here, before, for so many calls, and is not timed.
        """

    def variant(self, key: bytes, clock: Clock) -> Contestant:
        """Return the same contestant under another key or clock: a forger, or one in the past."""
        return type(self)(key, clock)

    def expired(self) -> str:
        """Issue a token that has run out, and is otherwise the one `mint` issues."""
        return self.variant(self.key, lambda: time.time() - 2 * LIFETIME).mint()

    def forged(self) -> str:
        """Issue a token that only its key tells from a genuine one."""
        return self.variant(OTHER_KEY, self.clock).mint()

    def ends(self, hop: int) -> int:
        """Say when the token ends after so many hops, in seconds since the epoch."""
        return int(self.clock()) + LIFETIME - STEP * hop


class Chain(Contestant, Generic[T]):
    """A contestant whose holders can narrow. `T` is a token in a holder's hand."""

    names_holders = False  # whether whoever holds the token must be named by the request

    @abstractmethod
    def parse(self, text: str) -> T:
        """Read what somebody handed us, as a holder does who has no root key."""

    @abstractmethod
    def narrow(self, token: T, hop: int) -> T:
        """Add three restrictions (table, operation, expiry); the token given is left as it was."""

    @abstractmethod
    def text(self, token: T) -> str:
        """Write the token as it travels."""

    def delegate(self, token: T, hop: int) -> T:
        """Narrow, and hand on to the next agent, where the contestant knows of such a thing."""
        return self.narrow(token, hop)

    def record(self, token: T, hop: int) -> T:
        """Delegate, and write down from whom, to whom, and a nonce. For sizes."""
        return self.delegate(token, hop)

    def chain(self, hops: int, *, recorded: bool = False) -> str:
        """Issue a token and hand it on so many times."""
        hand_on = self.record if recorded else self.delegate
        token = self.parse(self.mint())
        for hop in range(1, hops + 1):
            token = hand_on(token, hop)
        return self.text(token)

    def attenuate(self, text: str, hop: int) -> str:
        """Narrow as a holder does: text in, text out."""
        return self.text(self.narrow(self.parse(text), hop))

    def facts(self, hops: int) -> Facts:
        """State the request that a chain of so many hops allows."""
        return replace(FACTS, agent=agent_after(hops)) if self.names_holders else FACTS


class Captoken(Chain[Token]):
    """captoken. Task and agent are in the root record and held against the caller."""

    name = "captoken"
    package = "captoken"
    module = "captoken"
    refusals = (Denied,)
    names_holders = True

    def __init__(self, key: bytes = KEY, clock: Clock = time.time) -> None:
        super().__init__(key, clock)
        self.keyring = Keyring.from_keys({"k1": key}, current="k1")
        self.issuer = Issuer(self.keyring, clock=clock)
        self.verifier = self.bearer_server()

    def bearer_server(self) -> Verifier:
        """Start a server: here one that remembers nothing."""
        return Verifier(self.keyring, remember=0)

    def mint(self) -> str:
        return self.issue().serialize()

    def issue(self, key: str | None = None) -> Token:
        """Issue the token, bound to a key or to none."""
        return self.issuer.mint(
            subject=SUBJECT,
            agent=FACTS.agent,
            task=FACTS.task,
            tables=TABLES,
            operations=[OPERATION],
            expires_in=LIFETIME,
            key=key,
        )

    def ask(self, text: str, facts: Facts, calls: int = 1) -> Work:
        authorize = self.verifier.authorize

        def decide() -> object:
            access = Access(table=facts.table, operation=facts.operation)
            return authorize(text, access, caller=Caller(agent=facts.agent, task=facts.task))

        return decide

    def parse(self, text: str) -> Token:
        return Token.parse(text)

    def narrow(self, token: Token, hop: int) -> Token:
        return token.attenuate(tables=[NARROWED], operations=[OPERATION], expires_in=LIFETIME - STEP * hop)

    def delegate(self, token: Token, hop: int) -> Token:
        return token.delegate(to=agent_after(hop), tables=[NARROWED], operations=[OPERATION], expires_in=LIFETIME - STEP * hop)

    def text(self, token: Token) -> str:
        return token.serialize()


class CaptokenLinks(Captoken):
    """captoken on a server that was sent other tokens of the same tree: the text is new, and its links are not."""

    name = "captoken, links seen"

    def bearer_server(self) -> Verifier:
        server = Verifier(self.keyring)
        server.memory.longest = 0  # so that no text is remembered
        return server


class CaptokenTexts(Captoken):
    """captoken on a server that was sent this very text before, as by a client that keeps what it presents."""

    name = "captoken, text seen"

    def bearer_server(self) -> Verifier:
        return Verifier(self.keyring)


class Unproven(AssertionError):
    """A contestant allowed what it should refuse, or the reverse. It is not timed."""


def prove(contestant: Contestant) -> None:
    """Check that the contestant decides: allows what it should, and refuses each wrong thing by itself.

    Raises `Unproven`. It does not check that the contestant withstands an attacker.
    """
    genuine = contestant.mint()
    cases = [(genuine, FACTS)]
    if isinstance(contestant, Chain):
        cases.append((contestant.chain(HOPS), contestant.facts(HOPS)))
        cases.append((contestant.attenuate(genuine, 1), FACTS))
    for text, facts in cases:
        contestant.ask(text, facts)()
        for wrong in wrongs(facts):
            refuses(contestant, f"{wrong}", contestant.ask(text, wrong))
    if isinstance(contestant, Chain):
        for text, facts in cases[1:]:
            refuses(contestant, "the table that a hop took away", contestant.ask(text, replace(facts, table=TABLES[1])))
    contestant.ask(genuine, replace(FACTS, table=TABLES[1]))()
    refuses(contestant, "an expired token", contestant.ask(contestant.expired(), FACTS))
    refuses(contestant, "a token under another key", contestant.ask(contestant.forged(), FACTS))


def wrongs(facts: Facts) -> list[Facts]:
    """List what no token here allows: one thing wrong at a time."""
    return [
        replace(facts, table="hr"),
        replace(facts, operation="update"),
        replace(facts, task="task-666"),
        replace(facts, agent="mallory"),
    ]


def refuses(contestant: Any, what: str, work: Work) -> None:
    """Check that the work ends in a refusal. Raises `Unproven`, or whatever the fault is."""
    try:
        work()
    except contestant.refusals:
        return
    raise Unproven(f"{contestant.name} allowed {what}")


# The floor: the HMACs that a macaroon of this shape cannot do without, and nothing else.

GENERATOR = b"macaroons-key-generator"
ROOT_RECORD = (
    b'{"agent":"orchestrator","iat":1764061200,"jti":"AAAAAAAAAAAAAAAAAAAAAA","kid":"k1",'
    b'"sub":"user:jane","task":"task-123","v":1}'
)
LINK = b'{"exp":1764064800,"operations":["select"],"tables":["market.eu","sales"]}'
DELEGATION = b'{"exp":1764064800,"from":"agent-1","n":"AAAAAAAAAAA","operations":["select"],"tables":["sales"],"to":"agent-2"}'
MESSAGE = bytes(64)

_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def by_digest(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 by the standard library's fastest call."""
    return hmac.digest(key, message, "sha256")


def by_two_hashes(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 by two plain hashes. For keys of at most 64 bytes."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(block.translate(_INNER) + message).digest()
    return hashlib.sha256(block.translate(_OUTER) + inner).digest()


Mac = Callable[[bytes, bytes], bytes]
FLOORS: dict[str, Mac] = {"floor: hmac.digest": by_digest, "floor: two sha256": by_two_hashes}


def messages(hops: int) -> list[bytes]:
    """Return what is hashed for a token handed on so many times: root record, first link, delegations."""
    return [ROOT_RECORD, LINK, *[DELEGATION] * hops]


def fold(mac: Mac, key: bytes, hashed: list[bytes]) -> bytes:
    """Compute a macaroon's signature: derive the key, then one MAC after the other."""
    tag = mac(GENERATOR, key)
    for message in hashed:
        tag = mac(tag, message)
    return tag

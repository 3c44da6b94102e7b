"""Tokens: parsed, immutable, unverified (spec, "Token").

A `Token` is what somebody handed over. What can be read off it before a verifier has seen it is under
`token.unverified`, so that the name says it. Everything that narrows it needs no key and no server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import time
from typing import Any, Unpack

from captoken import attenuate as writing
from captoken import chain, names, primitives, widening, wire
from captoken.attenuate import Clock, LinkCaveats, PresentCaveats
from captoken.capability import Capability
from captoken.caveats import V1, Vocabulary
from captoken.encoding import LIMITS, EncodingError, b64decode, b64encode
from captoken.errors import LimitError, TokenFormatError
from captoken.lineage import Lineage, read_along
from captoken.links import BadLink, Link, read_link
from captoken.root import RootRecord
from captoken.sealed import Sealed

PREFIX = "cap1_"


class Unverified(Sealed):
    """What a token says of itself. Anybody can write a token that says anything: for showing, never for deciding."""

    __slots__ = ("_token",)
    _token: Token
    _instead = "parse the token again"

    def __init__(self, token: Token) -> None:
        object.__setattr__(self, "_token", token)

    def __repr__(self) -> str:
        return f"<Unverified {self._token!r}>"

    @property
    def root(self) -> RootRecord:
        return self._token._root

    @property
    def links(self) -> tuple[Link | BadLink, ...]:
        """The links, decoded; a third-party caveat is a BadLink, since this version asks nobody."""
        return self._token._links()

    @property
    def bodies(self) -> tuple[bytes, ...]:
        """The links as they travel."""
        return tuple(cid for cid, _ in self._token._packet.caveats)

    @property
    def lineage(self) -> Lineage:
        return self._token._state()[1]

    @property
    def holder(self) -> str:
        """The agent that holds the token, as far as the chain says."""
        return self.lineage.holder

    @property
    def task(self) -> str:
        return self._token._state()[0].task or self.root.task

    @property
    def expires_at(self) -> int | None:
        return self._token._state()[0].expires_at

    @property
    def capability(self) -> Capability:
        """The most that the token can do, by its own account: nothing, if a link of it cannot be read."""
        held, _ = self._token._state()
        bad = any(isinstance(link, BadLink) for link in self.links)
        return held.meet(Capability(data={}, tool={})) if bad else held


class Token(Sealed):
    """A bearer token: whoever has the text has the power. Immutable, unverified, equal to another of the same text.

    `Token.parse(text)` checks the form alone. It remembers the clock, the vocabulary and the source of nonces that it
    was made with, for the tokens that are derived from it; all three are for tests and embedders.
    """

    __slots__ = ("_clock", "_packet", "_random", "_root", "_seen", "_vocabulary")
    _instead = "hand on token.serialize() or token.present(...)"

    _packet: wire.Packet
    _root: RootRecord
    _vocabulary: Vocabulary
    _clock: Clock
    _random: Callable[[int], bytes]
    _seen: list[tuple[Capability, Lineage]]  # what the readable links say together, once it was asked for

    def __init__(
        self, packet: wire.Packet, root: RootRecord, vocabulary: Vocabulary, clock: Clock, random: Callable[[int], bytes]
    ) -> None:
        put = object.__setattr__
        put(self, "_packet", packet)
        put(self, "_root", root)
        put(self, "_vocabulary", vocabulary)
        put(self, "_clock", clock)
        put(self, "_random", random)
        put(self, "_seen", [])

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
        random: Callable[[int], bytes] = primitives.random_bytes,
    ) -> Token:
        """The token that `text` spells: its form, sizes and root record, and nothing about whether it is genuine.

        Raises TokenFormatError and nothing else, whatever `text` is.
        """
        try:
            packet = packet_of(text)
            root = RootRecord.decode(packet.identifier)
        except TokenFormatError as error:
            # From here, so that no frame of the traceback holds usable text.
            problem = TokenFormatError(str(error), error.code, error.step)
        else:
            return cls(packet, root, vocabulary, clock, random)
        del text
        raise problem from None

    def serialize(self) -> str:
        """The text: for handing the token to a sub-agent that is meant to hold it. Secret. To a server, `present`."""
        return text_of(self._packet)

    @property
    def unverified(self) -> Unverified:
        """What the token says of itself."""
        return Unverified(self)

    @property
    def token_id(self) -> str:
        """The id of the whole tree that was minted, by the token's own account. Public."""
        return self._root.token_id

    @property
    def link_id(self) -> str:
        """The id of the last link and all below it. Public: tells nothing of the token."""
        return b64encode(primitives.link_id(self._packet.signature))

    def attenuate(
        self,
        *,
        keep: str | Iterable[str] = (),
        clamp: bool = False,
        clock: Clock | None = None,
        **caveats: Unpack[LinkCaveats],
    ) -> Token:
        """A new token that can do less; this one is unchanged. Needs no key and no server.

        A link that names tables or operations closes tools, and the other way round; `keep="tools"` or `keep="tables"`
        keeps what there was. `clamp` takes what is held of what is asked. Checks against the links that this token
        carries; it cannot know whether a verifier accepts them. Raises WideningError for more than is held, LimitError
        past a limit, TypeError or ValueError for a keyword that is no caveat (spec, "Caveats", "Widening").
        """
        return self._narrow(None, caveats, keep, clamp, clock)

    def delegate(
        self,
        *,
        to: str,
        keep: str | Iterable[str] = (),
        clamp: bool = False,
        clock: Clock | None = None,
        **caveats: Unpack[LinkCaveats],
    ) -> Token:
        """A new token for the agent `to`, narrowed as `attenuate` does; the holder's name and `to` go into the chain.

        Verifiers will call `to` *vouched*: the name is what the holder says. Raises DelegationError past `depth` or
        back to an agent that has held the token, and what `attenuate` raises.
        """
        names.name(to, "to")
        return self._narrow(to, caveats, keep, clamp, clock)

    def present(
        self,
        *,
        audience: str | writing.Strings,
        expires_in: writing.Seconds = 60,
        max_chars: int = LIMITS.present_chars,
        keep: str | Iterable[str] = (),
        clamp: bool = False,
        clock: Clock | None = None,
        **caveats: Unpack[PresentCaveats],
    ) -> str:
        """The text for one server: good for `audience` alone, and for `expires_in` seconds at most.

        Never send a server the token itself: a bearer token works at every other server too. Raises LimitError when the
        text is longer than `max_chars`, with what each link costs, and what `attenuate` raises.
        """
        if not audience:
            raise ValueError("a text for nobody: name the server")
        wanted = {**caveats, "audience": audience, "expires_in": expires_in}
        presented = self._narrow(None, wanted, keep, clamp, clock)
        text = presented.serialize()
        size = len(text)
        if size <= max_chars:
            return text
        del text  # the frame that raises holds nothing usable
        raise LimitError(f"{size} characters, more than the {max_chars} to present", costs(presented._packet))

    def _narrow(
        self, to: str | None, caveats: Mapping[str, Any], keep: str | Iterable[str], clamp: bool, clock: Clock | None
    ) -> Token:
        if type(clamp) is not bool:
            raise TypeError(f"clamp must be a bool, not {type(clamp).__name__}")
        held, lineage = self._state()
        wanted = writing.asked(caveats, self._vocabulary, clock or self._clock, held.expires_at)
        stated = widening.narrowed(held, wanted, clamp)
        for key, value in writing.kept(keep, stated).items():
            stated.setdefault(key, value)
        stated.update(widening.positioned(lineage, writing.position(caveats), to, clamp))
        if to is not None:
            stated["n"] = b64encode(self._random(8))
        return self._with(writing.spell(stated))

    def _with(self, body: bytes) -> Token:
        """This token with one more link."""
        caveat = (body, b"")
        packet = self._packet
        grown = wire.Packet(packet.identifier, (*packet.caveats, caveat), chain.extend(packet.signature, caveat))
        check_limits(grown)
        return Token(grown, self._root, self._vocabulary, self._clock, self._random)

    def _links(self) -> tuple[Link | BadLink, ...]:
        third = BadLink("unknown_caveat", "a third-party caveat")
        return tuple(third if vid else read_link(cid, self._vocabulary) for cid, vid in self._packet.caveats)

    def _state(self) -> tuple[Capability, Lineage]:
        """What the links that can be read say together: for writers, who may narrow what cannot be used."""
        if not self._seen:
            links, root = self._links(), self._root
            readable = (link for link in links if isinstance(link, Link))
            self._seen.append((Capability.of(readable, root.task, root.audience), read_along(root.agent, links)))
        return self._seen[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Token):
            return NotImplemented
        same = self._packet.identifier == other._packet.identifier and self._packet.caveats == other._packet.caveats
        return same and primitives.equal(self._packet.signature, other._packet.signature)

    def __hash__(self) -> int:
        return hash((self._packet.identifier, self._packet.caveats))

    def __repr__(self) -> str:
        links = len(self._packet.caveats)
        return f"<Token {self.token_id}, {links} link{'s' * (links != 1)}, held by {self.unverified.holder}, unverified>"

    __str__ = __repr__


def packet_of(text: Any) -> wire.Packet:
    """The packet in a text. Raises TokenFormatError and nothing else."""
    if not isinstance(text, str):
        raise TokenFormatError(f"a token is text, not {type(text).__name__}")
    if len(text) > LIMITS.token_chars:  # before anything is decoded
        raise TokenFormatError(f"longer than {LIMITS.token_chars} characters", step=1)
    if text[:5] != PREFIX:
        raise TokenFormatError(f"a token starts with {PREFIX}")
    try:
        data = b64decode(text[5:])
    except EncodingError as error:
        raise TokenFormatError(str(error)) from None
    packet = wire.decode(data)
    if not packet.caveats:
        raise TokenFormatError("a token has at least the link that its issuer wrote")
    return packet


def text_of(packet: wire.Packet) -> str:
    return PREFIX + b64encode(wire.encode(packet))


def costs(packet: wire.Packet) -> tuple[tuple[str, int], ...]:
    """What each part of a token costs, in characters of text."""
    parts = [("root record", len(packet.identifier)), *((f"link {at}", len(cid)) for at, (cid, _) in enumerate(packet.caveats))]
    return tuple((what, (size * 4 + 2) // 3) for what, size in parts)


def check_limits(packet: wire.Packet) -> None:
    """Raise LimitError for a token that readers would refuse (spec, "Limits")."""
    if len(packet.identifier) > LIMITS.root_bytes:
        raise LimitError(f"the root record is {len(packet.identifier)} bytes, more than {LIMITS.root_bytes}")
    if len(packet.caveats) > LIMITS.links:
        raise LimitError(f"{len(packet.caveats)} links, more than {LIMITS.links}")
    size = sum(len(cid) + len(vid) for cid, vid in packet.caveats) + len(packet.identifier)
    if size * 4 // 3 > LIMITS.token_chars * 3 // 4 and len(text_of(packet)) > LIMITS.token_chars:
        raise LimitError(f"more than {LIMITS.token_chars} characters", costs(packet))

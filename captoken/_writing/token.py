"""Tokens: parsed, immutable, unverified (spec, "Token").

A `Token` is what somebody handed over. What can be read off it before a verifier has seen it is
under `token.unverified`, so that the name says it. Everything that narrows it needs no key and no
server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import time
from typing import Any, Unpack

from captoken._format import chain, names, primitives
from captoken._format import packet as wire
from captoken._format.clocks import Clock, Seconds
from captoken._format.encoding import LIMITS, b64encode
from captoken._format.entropy import random_bytes
from captoken._format.errors import DelegationError, DischargeError, LimitError, TokenFormatError
from captoken._format.packet import RawCaveat
from captoken._format.public_keys import public_bytes, signing_key
from captoken._format.root import RootRecord
from captoken._format.sealed import Sealed
from captoken._format.text import (
    BOUND,
    UNBOUND,
    Parts,
    check_bundle,
    check_limits,
    costs,
    parts_of,
    proof_text,
    whole_text,
)
from captoken._language.access import Access
from captoken._language.capability import Capability
from captoken._language.caveats import V1, Vocabulary
from captoken._language.discharge import (
    Discharge,
    Ticket,
    bound_discharge,
    third_party_caveat,
)
from captoken._language.lineage import Lineage, read_along
from captoken._language.links import BadLink, Link, read_links
from captoken._writing import keywords as writing
from captoken._writing import widening
from captoken._writing.keywords import LinkCaveats, PresentCaveats
from captoken.proof import Signer, prove, sign_custody


class Unverified(Sealed):
    """What a token says of itself.

    Anybody can write a token that says anything: for showing, never for deciding.
    """

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
        """The links, decoded; a third-party caveat is a link that restricts nothing by itself."""
        return tuple(self._token._links())

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
    def key(self) -> str | None:
        """The Ed25519 key that the token is bound to, as base64url, or None for a bearer token."""
        key = self.lineage.key
        return b64encode(key) if key is not None else None

    @property
    def discharges(self) -> tuple[Discharge, ...]:
        """The discharges that travel with the token."""
        return tuple(map(Discharge, self._token._discharges))

    @property
    def task(self) -> str:
        return self._token._state()[0].task or self.root.task

    @property
    def expires_at(self) -> int | None:
        return self._token._state()[0].expires_at

    @property
    def capability(self) -> Capability:
        """The most that the token can do, by its own account: nothing, if a link of it cannot
        be read.
        """
        held, _ = self._token._state()
        bad = any(isinstance(link, BadLink) for link in self.links)
        return held.meet(Capability(data={}, tool={})) if bad else held


class Token(Sealed):
    """A token: whoever has the text has the power, unless it is bound to a key or asks a third
    party.

    Immutable, unverified, equal to another of the same text.

    `Token.parse(text)` checks the form alone. It remembers the clock, the vocabulary and the source
    of nonces that it was made with, for the tokens that are derived from it; all three are for
    tests and embedders.
    """

    __slots__ = ("_clock", "_discharges", "_packet", "_random", "_root", "_seen", "_vocabulary")
    _instead = "hand on token.serialize() or token.present(...)"

    _packet: wire.Packet
    _root: RootRecord
    _vocabulary: Vocabulary
    _clock: Clock
    _random: Callable[[int], bytes]
    _discharges: tuple[wire.Packet, ...]  # unbound, in the order of the caveats that they answer
    _seen: list[
        tuple[Capability, Lineage]
    ]  # what the readable links say together, once it was asked for

    def __init__(
        self,
        packet: wire.Packet,
        root: RootRecord,
        vocabulary: Vocabulary,
        clock: Clock,
        random: Callable[[int], bytes],
        discharges: tuple[wire.Packet, ...] = (),
    ) -> None:
        put = object.__setattr__
        put(self, "_packet", packet)
        put(self, "_root", root)
        put(self, "_vocabulary", vocabulary)
        put(self, "_clock", clock)
        put(self, "_random", random)
        put(self, "_discharges", discharges)
        put(self, "_seen", [])

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
        random: Callable[[int], bytes] = random_bytes,
    ) -> Token:
        """The token that `text` spells: its form, sizes and root record, and nothing about
        whether it is genuine.

        Discharges that travel with it are kept. Raises TokenFormatError and nothing else, whatever
        `text` is.
        """
        try:
            parts = parts_of(text, UNBOUND)
            packet, discharges = parts.packet, parts.discharges
            root = RootRecord.decode(packet.identifier)
            if discharges and not _in_order(packet, discharges):
                raise TokenFormatError(
                    "discharges that answer nothing the token asks, or stand in another order"
                )
        except TokenFormatError as error:
            problem = error.bare()  # so that no frame of the traceback holds usable text
        else:
            return cls(packet, root, vocabulary, clock, random, discharges)
        del text
        raise problem from None

    def serialize(self) -> str:
        """The text: for handing the token to a sub-agent that is meant to hold it. Secret. To a
        server, `present`.
        """
        return whole_text(self._packet, self._discharges, UNBOUND)

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

    @property
    def needs(self) -> tuple[Ticket, ...]:
        """What third parties are asked and no discharge is here for, in order.

        Raises DischargeError for a foreign one.
        """
        answered = {packet.identifier for packet in self._discharges}
        return tuple(
            Ticket.parse(cid) for cid, vid in self._packet.caveats if vid and cid not in answered
        )

    def attenuate(
        self,
        *,
        key: bytes | str | None = None,
        signer: Signer | None = None,
        keep: str | Iterable[str] = (),
        clamp: bool = False,
        clock: Clock | None = None,
        **caveats: Unpack[LinkCaveats],
    ) -> Token:
        """A new token that can do less; this one is unchanged. Needs no key and no server.

        A link that names tables or operations closes tools, and the other way round; `keep="tools"`
        or `keep="tables"` keeps what there was. `clamp` takes what is held of what is asked. Checks
        against the links that this token carries; it cannot know whether a verifier accepts them.
        `key` binds the token to an Ed25519 key from here on; if it is bound already, `signer` is
        the key that it is bound to. Raises WideningError for more than is held, DelegationError for
        a key without the signature, LimitError past a limit, TypeError or ValueError for a keyword
        that is no caveat (spec, "Caveats", "Widening", "Holder binding").
        """
        return self._narrow(None, caveats, keep, clamp, clock, key, signer)

    def delegate(
        self,
        *,
        to: str,
        key: bytes | str | None = None,
        signer: Signer | None = None,
        keep: str | Iterable[str] = (),
        clamp: bool = False,
        clock: Clock | None = None,
        **caveats: Unpack[LinkCaveats],
    ) -> Token:
        """A new token for the agent `to`, narrowed as `attenuate` does; the holder's name and
        `to` go into the chain.

        Verifiers will call `to` *vouched*: the name is what the holder says. A token that is bound
        to a key is handed on to the child's `key`, signed by `signer`, and verifiers call `to`
        *proven*. Raises DelegationError past `depth`, back to an agent that has held the token, or
        without key and signer where they are due, and what `attenuate` raises.
        """
        names.name(to, "to")
        return self._narrow(to, caveats, keep, clamp, clock, key, signer)

    def require(
        self, discharger: bytes | str, *, need: Mapping[str, Any], location: str | None = None
    ) -> Token:
        """A new token that is worth nothing without a discharge: the third party's word that
        `need` holds.

        `discharger` is its X25519 public key; nobody else can read `need`. `location` is where it
        may be asked, a hint that all can read. Needs no key and no server; nobody takes it off
        again. Raises TypeError or ValueError, and LimitError past a limit (spec, "Third-party
        caveats").
        """
        return self._extended(
            third_party_caveat(self._packet, discharger, need, location, self._random)
        )

    def with_discharge(self, answer: Discharge | str) -> Token:
        """The token together with a discharge, in place of an older one for the same ticket.

        Unverified, as the token is.

        Raises DischargeError for one that answers nothing the token asks, LimitError past a limit,
        TokenFormatError for text that is none.
        """
        try:
            got = answer if isinstance(answer, Discharge) else Discharge.parse(answer)
        except TokenFormatError as error:
            problem = error.bare()
        else:
            return self._answered(got.packet)
        del answer
        raise problem

    def _answered(self, got: wire.Packet) -> Token:
        known = {packet.identifier: packet for packet in (*self._discharges, got)}
        asked = dict.fromkeys(cid for cid, vid in self._packet.caveats if vid)
        if got.identifier not in asked:
            raise DischargeError(
                "the discharge answers nothing that the token asks", "bad_discharge"
            )
        ordered = tuple(known[cid] for cid in asked if cid in known)
        check_bundle(self._packet, ordered)
        return Token(self._packet, self._root, self._vocabulary, self._clock, self._random, ordered)

    def present(
        self,
        *,
        audience: str | writing.Strings,
        signer: Signer | None = None,
        request: Access | bytes | None = None,
        expires_in: Seconds = 60,
        max_chars: int = LIMITS.present_chars,
        keep: str | Iterable[str] = (),
        clamp: bool = False,
        clock: Clock | None = None,
        **caveats: Unpack[PresentCaveats],
    ) -> str:
        """The text for one server: good for `audience` alone, and for `expires_in` seconds at most.

        Never send a server the token itself: a bearer token works at every other server too.
        Discharges go with it, bound to it; one that is missing is for the server to miss. Where the
        token is bound to a key, `signer` is that key, and `request` the access, or the 32 bytes of
        `captoken.proof` for what the transport carries: the text then ends in a proof, and is for
        one sending. Without a signer the text of a bound token has no proof, and no server takes it
        so. Raises LimitError when the text is longer than `max_chars`, with what each part costs,
        DelegationError for a signer that is not the key, and what `attenuate` raises.
        """
        if not audience:
            raise ValueError("a text for nobody: name the server")
        if signer is None and request is not None:
            raise ValueError("a request goes with the signer that proves it")
        clock = clock or self._clock
        wanted = {**caveats, "audience": audience, "expires_in": expires_in}
        parts = self._narrow(None, wanted, keep, clamp, clock).presented_parts()
        written = whole_text(parts.packet, parts.discharges, BOUND)
        if signer is not None:
            name = self._proven_to(audience, signer)
            made = prove(parts.packet, signer, name, request, clock, self._random)
            written = f"{written}.{proof_text(made)}"
        size = len(written)
        if size <= max_chars:
            return written
        del written  # the frame that raises holds nothing usable
        raise LimitError(
            f"{size} characters, more than the {max_chars} to present",
            costs(parts.packet, parts.discharges),
        )

    def _proven_to(self, audience: str | writing.Strings, signer: Signer) -> str:
        """The one server that a proof is for.

        Raises ValueError, or DelegationError for another key.
        """
        key = self._state()[1].key
        if key is None:
            raise DelegationError("the token is bound to no key: there is nothing to prove", "bad_proof")
        if public_bytes(signer.public, "signer") != key:
            raise DelegationError("the signer is not the key that the token is bound to", "bad_proof")
        names_given = [audience] if isinstance(audience, str) else sorted(audience)
        if len(names_given) != 1:
            raise ValueError("a proof is for one server: name one audience")
        return names_given[0]

    def presented_parts(self) -> Parts:
        """The token and its discharges, bound to it, as a verifier in the same process takes them.

        Secret.
        """
        signature = self._packet.signature
        bound = tuple(bound_discharge(packet, signature) for packet in self._discharges)
        return Parts(self._packet, bound)

    def _narrow(
        self,
        to: str | None,
        caveats: Mapping[str, Any],
        keep: str | Iterable[str],
        clamp: bool,
        clock: Clock | None,
        key: bytes | str | None = None,
        signer: Signer | None = None,
    ) -> Token:
        if type(clamp) is not bool:
            raise TypeError(f"clamp must be a bool, not {type(clamp).__name__}")
        held, lineage = self._state()
        wanted = writing.asked(caveats, self._vocabulary, clock or self._clock, held.expires_at)
        stated = widening.narrowed(held, wanted, clamp)
        for caveat, value in writing.kept(keep, stated).items():
            stated.setdefault(caveat, value)
        stated.update(widening.positioned(lineage, writing.position(caveats), to, clamp))
        if to is not None or writing.COUNTED & stated.keys():
            stated["n"] = b64encode(self._random(8))
        if key is not None:
            stated["key"] = b64encode(signing_key(key))
        _check_custody(lineage.key, to, key, signer)
        body = writing.spell(stated)
        if signer is not None:
            body = sign_custody(self._packet, body, signer)
        return self._with(body)

    def _with(self, body: bytes) -> Token:
        """This token with one more link."""
        return self._extended((body, b""))

    def _extended(self, caveat: RawCaveat) -> Token:
        """This token with one more caveat, of either kind."""
        packet = self._packet
        grown = wire.Packet(
            packet.identifier, (*packet.caveats, caveat), chain.extend(packet.signature, caveat)
        )
        check_limits(grown)
        if self._discharges:
            check_bundle(grown, self._discharges)
        return Token(
            grown, self._root, self._vocabulary, self._clock, self._random, self._discharges
        )

    def _links(self) -> list[Link | BadLink]:
        return read_links(self._packet.caveats, self._vocabulary)

    def _state(self) -> tuple[Capability, Lineage]:
        """What the links that can be read say together: for writers, who may narrow what cannot
        be used.
        """
        if not self._seen:
            links, root = self._links(), self._root
            readable = (link for link in links if isinstance(link, Link))
            self._seen.append(
                (Capability.of(readable, root.task, root.audience), read_along(root.agent, links))
            )
        return self._seen[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Token):
            return NotImplemented
        return primitives.equal(self.serialize().encode(), other.serialize().encode())

    def __hash__(self) -> int:
        return hash((self._packet.identifier, self._packet.caveats))

    def __repr__(self) -> str:
        links = len(self._packet.caveats)
        return f"<Token {self.token_id}, {links} link{'s' * (links != 1)}, held by {self.unverified.holder}, unverified>"

    __str__ = __repr__


def _in_order(packet: wire.Packet, discharges: tuple[wire.Packet, ...]) -> bool:
    """Does each discharge answer a caveat of the token, in the caveats' order, none twice?"""
    asked = iter(dict.fromkeys(cid for cid, vid in packet.caveats if vid))
    return all(
        discharge.identifier in asked for discharge in discharges
    )  # `in` moves the iterator on


def _check_custody(
    bound_to: bytes | None, to: str | None, key: bytes | str | None, signer: Signer | None
) -> None:
    """Raise DelegationError or ValueError unless a key and its signature are there where they
    are due, and only there.
    """
    if bound_to is None:
        if signer is not None:
            raise DelegationError(
                "the token is bound to no key, so that there is nothing to sign",
                "broken_delegation",
            )
    elif to is not None and key is None:
        raise DelegationError(
            f"the token is bound to a key: hand it on to the key of {to}", "broken_delegation"
        )
    elif key is not None and signer is None:
        raise DelegationError(
            "the token is bound to a key: only that key signs it over to another", "bad_proof"
        )
    elif signer is not None and key is None:
        raise ValueError("a signer goes with the key that the token is handed to")
    elif signer is not None and public_bytes(signer.public, "signer") != bound_to:
        raise DelegationError("the signer is not the key that the token is bound to", "bad_proof")

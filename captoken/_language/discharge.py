"""Third-party caveats: what is asked, the answer, and who gives it (spec, "Third-party caveats", "Discharges").

    ticket      what a third party is asked: sealed for it, with an address hint, and nothing else that can be read
    discharge   its answer: that what was asked holds, for so long, under these caveats

The discharger keeps no state and learns neither the token nor who holds it: only what is needed, and the key that the
discharge is made under. Discharges only ever restrict: nothing but the fact of them reaches a grant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from captoken._format import chain, names, primitives
from captoken._format import packet as wire
from captoken._format.encoding import (
    LIMITS,
    EncodingError,
    b64decode,
    b64encode,
    decode_json,
    encode_json,
)
from captoken._format.errors import DischargeError, LimitError, TokenFormatError
from captoken._format.packet import RawCaveat
from captoken._format.public_keys import exchange_key, public_bytes
from captoken._format.sealed import Sealed
from captoken._format.text import UNBOUND, discharge_of, text_of
from captoken._language.caveats import Vocabulary
from captoken._language.links import BadLink, Link, is_about_requests, read_link

CAVEAT_KEY_BYTES = 32


class Ticket(msgspec.Struct, frozen=True):
    """What a third party is asked: a third-party caveat's id. Goes to the discharger as its text, and tells it nothing
    of the token."""

    discharger: str  # the public key that it is sealed for
    location: (
        str | None
    )  # where the discharger may be asked: a hint, written by whoever asked for the discharge
    cid: bytes

    @property
    def text(self) -> str:
        return self.cid.decode()

    @classmethod
    def parse(cls, text: str | bytes) -> Ticket:
        """The ticket that `text` spells. Raises DischargeError and nothing else."""
        try:
            if type(text) not in (str, bytes):
                raise TypeError(f"it is text, not {type(text).__name__}")
            cid = text.encode() if isinstance(text, str) else text
            if len(cid) > LIMITS.ticket_bytes:
                raise ValueError(f"longer than {LIMITS.ticket_bytes} bytes")
            stated = decode_json(cid)
            if (
                stated.keys() - {"loc"} != {"box", "for", "v"}
                or stated["v"] != 1
                or type(stated["v"]) is not int
            ):
                raise ValueError("it has box, for, v, and perhaps loc")
            b64decode(names.exact_str(stated["box"], "box"))
            public_bytes(names.exact_str(stated["for"], "for"), "for")
            location = names.free_name(stated["loc"], "loc") if "loc" in stated else None
        except (TypeError, ValueError) as error:  # EncodingError and UnicodeError are ValueErrors
            raise DischargeError(f"no ticket: {error}", "bad_ticket") from None
        return cls(stated["for"], location, cid)


def ask(
    packet: wire.Packet,
    discharger: bytes | str,
    need: Mapping[str, Any],
    location: str | None,
    random: Callable[[int], bytes],
) -> RawCaveat:
    """The third-party caveat that asks `discharger` whether `need` holds, to follow on the last one of `packet`."""
    public = exchange_key(discharger, "discharger")
    stated: dict[str, Any] = {"for": b64encode(public), "v": 1}
    if location is not None:
        stated["loc"] = names.free_name(location, "location")
    try:
        wanted = dict(need)
        encode_json({"need": wanted})  # before there is a key that a traceback could show
    except (EncodingError, RecursionError) as error:
        raise ValueError(f"need: {error or 'nested too deeply'}") from None
    key = random(CAVEAT_KEY_BYTES)
    sealed = encode_json({"ck": b64encode(key), "need": wanted, "v": 1})
    stated["box"] = b64encode(primitives.seal(public, sealed, random))
    cid = encode_json(stated)
    if len(cid) <= LIMITS.ticket_bytes:
        return chain.ask(packet.signature, key, cid, random)
    del key, sealed
    raise LimitError(f"the ticket is {len(cid)} bytes, more than {LIMITS.ticket_bytes}: need less")


# --- the answer ------------------------------------------------------------------------------------------------------


class Discharge(Sealed):
    """A third party's answer, not yet bound to a token. Secret, as the token is: with it, whoever holds the token uses it.

    Unverified: the holder cannot tell a genuine one. Verifiers can.
    """

    __slots__ = ("_packet",)
    _instead = "hand on discharge.serialize()"
    _packet: wire.Packet

    def __init__(self, packet: wire.Packet) -> None:
        object.__setattr__(self, "_packet", packet)

    @classmethod
    def parse(cls, text: str) -> Discharge:
        """The discharge that `text` spells: its form alone. Raises TokenFormatError."""
        try:
            return cls(discharge_of(text, UNBOUND))
        except TokenFormatError as error:
            problem = error.bare()
        del text
        raise problem

    def serialize(self) -> str:
        """The text, for whoever holds the token."""
        return text_of(self._packet, UNBOUND)

    @property
    def cid(self) -> bytes:
        """The id of the caveat that it answers."""
        return self._packet.identifier

    @property
    def expires_at(self) -> int | None:
        """When it ends, by its own account, in seconds since the epoch."""
        ends: list[int] = []
        for cid, _ in self._packet.caveats:
            with suppress(
                EncodingError
            ):  # whatever stands beside it: the verifier may know caveats that we do not
                end = decode_json(cid).get("exp")
                ends += [end] if type(end) is int else []
        return min(ends, default=None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Discharge):
            return NotImplemented
        return primitives.equal(wire.encode(self._packet), wire.encode(other._packet))

    def __hash__(self) -> int:
        return hash(self._packet.identifier)

    def __repr__(self) -> str:
        return f"<Discharge, expires at {self.expires_at}, unverified>"

    __str__ = __repr__


def bind(packet: wire.Packet, root_signature: bytes) -> wire.Packet:
    """The discharge `packet` as it goes with the token that ends in `root_signature`, and with no other."""
    return wire.Packet(
        packet.identifier, packet.caveats, chain.bind(root_signature, packet.signature)
    )


def read_discharge(packet: wire.Packet, vocabulary: Vocabulary) -> list[Link] | BadLink:
    """The links of a discharge whose signature held: caveats about the request, one of them an expiry."""
    links: list[Link] = []
    for cid, vid in packet.caveats:
        if vid:
            return BadLink("unreadable_link", "a discharge that asks a third party in its turn")
        link = read_link(cid, vocabulary)
        if isinstance(link, BadLink):
            return BadLink(link.code, f"in the discharge: {link.text}")
        if not is_about_requests(link):
            return BadLink(
                "unreadable_link", "a discharge that speaks of task, lineage or keys, or counts"
            )
        links.append(link)
    if not any(caveat.key == "exp" for link in links for caveat in link.caveats):
        return BadLink("unreadable_link", "a discharge without an expiry")
    return links


# --- the discharger --------------------------------------------------------------------------------------------------

"""Third-party caveats: what is asked, and the answer (spec, "Third-party caveats", "Discharges").

    ticket      what a third party is asked: sealed for it, with an address hint, and nothing else
                that can be read
    discharge   its answer: that what was asked holds, for so long, under these caveats

How the two travel:

    holder        asks: seals need and caveat key for the discharger, and boxes the same key under
                  the chain's tag for the verifier
    discharger    opens the one, and signs its answer with that key
    verifier      opens the other, and checks the answer with that key

- The discharger keeps no state and learns neither the token nor who holds it. It learns what is
  needed, and the key that the discharge is made under.
- The verifier never reads a ticket: it compares its bytes (spec 32.4).
- Discharges only ever restrict: nothing but the fact of them reaches a grant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar

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
from captoken._format.errors import DischargeError, LimitError
from captoken._format.names import frozen_copy
from captoken._format.parts import Packet, RawCaveat
from captoken._format.public_keys import exchange_key, public_bytes
from captoken._format.sealed import SealedValue, no_arguments_in_traceback
from captoken._format.text import UNBOUND, discharge_of, text_of

CAVEAT_KEY_BYTES = 32


# --- the question ---------------------------------------------------------------------------------


def asked_of(packet: Packet) -> tuple[bytes, ...]:
    """The ids of a token's third-party caveats, in order, each once.

    As far as a holder can see, one discharge answers all caveats with that ticket (8.7).
    """
    return tuple(dict.fromkeys(cid for cid, vid in packet.caveats if vid))


class Ticket(msgspec.Struct, frozen=True):
    """What a third party is asked: a third-party caveat's id.

        for ticket in token.needs:
            answer = ask_somebody(ticket.location, ticket.text)

    Goes to the discharger as its text, and tells it nothing of the token. What is asked is sealed
    for that discharger: nobody else can read it.

    `location` is the word of whoever asked, and no proof of anything. A client that connects there
    without knowing the address lets that one choose where it connects (spec 32.6). Anybody can make
    a ticket; one that did not go through `parse` is not checked at all.
    """

    # The public key that it is sealed for.
    discharger: str

    # A hint where to ask, by whoever added the caveat.
    location: str | None
    cid: bytes

    @property
    def text(self) -> str:
        """What to hand to the discharger."""
        return self.cid.decode()

    @classmethod
    def parse(cls, text: str | bytes) -> Ticket:
        """The ticket that `text` spells: its form alone (spec 32.2).

        Does not open its box, and so does not see whether it can be answered. Raises
        DischargeError, code `bad_ticket`, and nothing else.
        """
        try:
            return cls._read(text)
        except (TypeError, ValueError) as error:  # EncodingError and UnicodeError are ValueErrors
            raise DischargeError(f"this is not a ticket: {error}", "bad_ticket") from None

    @classmethod
    def _read(cls, text: Any) -> Ticket:
        """The ticket. Raises TypeError or ValueError."""
        if type(text) not in (str, bytes):
            raise TypeError(f"it must be text, not {type(text).__name__}")
        cid = names.encoded(text, "it") if isinstance(text, str) else text
        if len(cid) > LIMITS.ticket_bytes:
            raise ValueError(f"longer than {LIMITS.ticket_bytes} bytes")

        # True is 1 to Python, and no version.
        stated = decode_json(cid)
        of_version_1 = type(stated.get("v")) is int and stated["v"] == 1
        if stated.keys() - {"loc"} != {"box", "for", "v"} or not of_version_1:
            raise ValueError("it must have box, for and v, and may have loc")

        # Spelled as they have to be; a key that nobody can have is refused by whoever seals to it.
        b64decode(names.exact_str(stated["box"], "box"))
        public_bytes(names.exact_str(stated["for"], "for"), "for")
        location = names.free_name(stated["loc"], "loc") if "loc" in stated else None
        return cls(stated["for"], location, cid)


@no_arguments_in_traceback
def third_party_caveat(
    packet: Packet,
    discharger: bytes | str,
    need: Mapping[str, Any],
    location: str | None,
    random: Callable[[int], bytes],
) -> RawCaveat:
    """The caveat that asks `discharger` whether `need` holds, to follow on the last of `packet`.

    The caveat key is fresh. The discharger finds it in the box, the verifier in the vid, and nobody
    else has it (spec 32.1 to 32.3). `location` says where to ask.

    Raises TypeError or ValueError for what cannot be asked, LimitError for what is too long. No
    frame that raises holds the caveat key.
    """
    public = exchange_key(discharger, "discharger")
    stated: dict[str, Any] = {"for": b64encode(public), "v": 1}
    if location is not None:
        stated["loc"] = names.free_name(location, "location")

    # What cannot be spelled is told before there is a key that an error could show.
    try:
        # Read once, and spelled: what is sealed is what was checked (7.10).
        spelled = encode_json({"need": frozen_copy(need, "need")})
        wanted = decode_json(spelled)["need"]
    except (EncodingError, RecursionError) as error:
        raise ValueError(f"need: {error or 'nested too deeply'}") from None

    key = random(CAVEAT_KEY_BYTES)
    sealed = encode_json({"ck": b64encode(key), "need": wanted, "v": 1})
    stated["box"] = b64encode(primitives.seal(public, sealed, random))
    cid = encode_json(stated)
    if len(cid) > LIMITS.ticket_bytes:
        raise LimitError(
            f"the ticket would be {len(cid)} bytes, more than {LIMITS.ticket_bytes}: put less into "
            "need="
        )
    return chain.ask(packet.signature, key, cid, random)


# --- the answer -----------------------------------------------------------------------------------


class Discharge(SealedValue, frozen=True, eq=False):
    """A third party's answer, not yet bound to a token.

    - Secret, as the token is: with it, whoever holds the token uses it.
    - Unverified: the holder cannot tell a genuine one. Verifiers can (spec 33.10).
    - It answers for every child of the token that asked, until it is bound to what is presented.

    A Discharger makes it, or `parse` of what one sent. Immutable, shared between threads, and not
    pickled: its text is what travels.
    """

    _instead: ClassVar[str] = "hand on discharge.serialize()"

    packet: Packet

    @classmethod
    @no_arguments_in_traceback
    def parse(cls, text: str) -> Discharge:
        """The discharge that `text` spells: its form alone.

        Does not read its links, and takes no bound one. Raises TokenFormatError, which holds
        nothing of the text.
        """
        return cls(discharge_of(text, UNBOUND))

    def serialize(self) -> str:
        """The text, for whoever holds the token. A secret: send it over what is encrypted."""
        return text_of(self.packet, UNBOUND)

    @property
    def cid(self) -> bytes:
        """The id of the caveat that it answers: a ticket's."""
        return self.packet.identifier

    @property
    def expires_at(self) -> int | None:
        """When it ends, by its own account, in seconds since the epoch.

        Looks at nothing else: the verifier may know caveats that are not known here.
        """
        ends: list[int] = []
        for cid, _ in self.packet.caveats:
            with suppress(EncodingError):
                end = decode_json(cid).get("exp")
                if type(end) is int:
                    ends.append(end)
        return min(ends, default=None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Discharge):
            return NotImplemented
        # In constant time: both hold a signature that is a secret.
        return primitives.equal(wire.encode(self.packet), wire.encode(other.packet))

    def __hash__(self) -> int:
        return hash(self.packet.identifier)

    def __repr__(self) -> str:
        return f"<Discharge, expires at {self.expires_at}, unverified>"

    __str__ = __repr__


def bound_discharge(packet: Packet, root_signature: bytes) -> Packet:
    """A discharge as it goes with the token that ends in `root_signature`, and with no other.

    A server that sees it bound can use it for nothing else (spec 33.3).
    """
    signature = chain.bind(root_signature, packet.signature)
    return Packet(packet.identifier, packet.caveats, signature)

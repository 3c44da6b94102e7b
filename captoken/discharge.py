"""Third-party caveats: what is asked, the answer, and who gives it (spec, "Third-party caveats", "Discharges").

    ticket      what a third party is asked: sealed for it, with an address hint, and nothing else that can be read
    discharge   its answer: that what was asked holds, for so long, under these caveats

The discharger keeps no state and learns neither the token nor who holds it: only what is needed, and the key that the
discharge is made under. Discharges only ever restrict: nothing but the fact of them reaches a grant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from time import time
from typing import Any, TypeAlias, Unpack

import msgspec

from captoken import attenuate as writing
from captoken import chain, keys, names, primitives, wire
from captoken.attenuate import Clock, LinkCaveats
from captoken.caveats import V1, Vocabulary
from captoken.encoding import LIMITS, EncodingError, b64decode, b64encode, decode_json, encode_json
from captoken.errors import DischargeError, LimitError, TokenFormatError
from captoken.links import BadLink, Link, is_about_requests, read_link
from captoken.sealed import Sealed
from captoken.text import UNBOUND, discharge_of, text_of

CAVEAT_KEY_BYTES = 32
# They would say something of the token.
NO_CAVEATS_OF_DISCHARGES = frozenset(("task", "depth", "delegate_only", "uses", "budget"))


class DischargerKey(keys.SecretKey):
    """An X25519 key that tickets are sealed for. Whoever has it can answer them all."""

    __slots__ = ()
    purpose = "discharger"


class Ticket(msgspec.Struct, frozen=True):
    """What a third party is asked: a third-party caveat's id. Goes to the discharger as its text, and tells it nothing
    of the token."""

    discharger: str  # the public key that it is sealed for
    location: str | None  # where the discharger may be asked: a hint, written by whoever asked for the discharge
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
            if stated.keys() - {"loc"} != {"box", "for", "v"} or stated["v"] != 1 or type(stated["v"]) is not int:
                raise ValueError("it has box, for, v, and perhaps loc")
            b64decode(names.exact_str(stated["box"], "box"))
            keys.public_bytes(names.exact_str(stated["for"], "for"), "for")
            location = names.free_name(stated["loc"], "loc") if "loc" in stated else None
        except (TypeError, ValueError) as error:  # EncodingError and UnicodeError are ValueErrors
            raise DischargeError(f"no ticket: {error}", "bad_ticket") from None
        return cls(stated["for"], location, cid)


def ask(
    packet: wire.Packet, discharger: bytes | str, need: Mapping[str, Any], location: str | None, random: Callable[[int], bytes]
) -> wire.Caveat:
    """The third-party caveat that asks `discharger` whether `need` holds, to follow on the last one of `packet`."""
    public = keys.exchange_key(discharger, "discharger")
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
            with suppress(EncodingError):  # whatever stands beside it: the verifier may know caveats that we do not
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
    return wire.Packet(packet.identifier, packet.caveats, chain.bind(root_signature, packet.signature))


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
            return BadLink("unreadable_link", "a discharge that speaks of task, lineage or keys, or counts")
        links.append(link)
    if not any(caveat.key == "exp" for link in links for caveat in link.caveats):
        return BadLink("unreadable_link", "a discharge without an expiry")
    return links


# --- the discharger --------------------------------------------------------------------------------------------------


class Allow(Sealed):
    """A policy's yes: for so long, under these caveats. `Allow(expires_in=60)`; the keywords are those of `attenuate`."""

    __slots__ = ("caveats",)
    caveats: Mapping[str, Any]

    def __init__(self, **caveats: Unpack[LinkCaveats]) -> None:
        object.__setattr__(self, "caveats", dict(caveats))

    def __repr__(self) -> str:
        return f"Allow({', '.join(self.caveats)})"


class Refuse(msgspec.Struct, frozen=True):
    """A policy's no. `reason` may be told to whoever asked."""

    reason: str = "refused"


class Wait(msgspec.Struct, frozen=True):
    """A policy's not yet. `person`: somebody has to decide; otherwise ask again later."""

    person: bool = False


Answer: TypeAlias = "Allow | Refuse | Wait"
Policy: TypeAlias = Callable[[Mapping[str, Any]], Answer]


class Discharger(Sealed):
    """Answers tickets. Stateless: everything it has to know is in the ticket.

    `policy` is called with what is needed, as it was sealed by whoever added the caveat, and nothing else; what it raises
    passes through, and what is none of Allow, Refuse and Wait raises TypeError: neither ever discharges.
    """

    __slots__ = ("_clock", "_key", "_policy", "_vocabulary")
    _instead = "make one from the key"

    _key: DischargerKey
    _policy: Policy
    _vocabulary: Vocabulary
    _clock: Clock

    def __init__(self, key: DischargerKey, policy: Policy, *, vocabulary: Vocabulary = V1, clock: Clock = time) -> None:
        if not isinstance(key, DischargerKey):
            raise TypeError(f"a DischargerKey, not {type(key).__name__}")
        if not callable(policy):
            raise TypeError(f"a policy is a callable, not {type(policy).__name__}")
        put = object.__setattr__
        put(self, "_key", key)
        put(self, "_policy", policy)
        put(self, "_vocabulary", vocabulary)
        put(self, "_clock", clock)

    @property
    def public(self) -> str:
        """The key to name in `token.require`."""
        return self._key.public

    def need(self, ticket: Ticket | str) -> Mapping[str, Any]:
        """What a ticket asks. Raises DischargeError for one that is not for this key."""
        return self._open(ticket).need

    def answer(self, ticket: Ticket | str) -> Discharge | Refuse | Wait:
        """What the policy says to a ticket: a discharge, a refusal, or not yet. Raises DischargeError for a bad ticket."""
        opened = self._open(ticket)
        said = self._policy(opened.need)
        if isinstance(said, Allow):
            return self._made(opened, said)
        if not isinstance(said, (Refuse, Wait)):
            raise TypeError(f"a policy returns Allow, Refuse or Wait, not {type(said).__name__}")
        return said

    def discharge(self, ticket: Ticket | str) -> Discharge:
        """The discharge, if the policy allows it now. Raises DischargeError, code `refused` or `undecided`."""
        answer = self.answer(ticket)
        if isinstance(answer, Refuse):
            raise DischargeError(answer.reason, "refused")
        if isinstance(answer, Wait):
            raise DischargeError("not decided yet", "undecided")
        return answer

    def approve(self, ticket: Ticket | str, allowed: Allow) -> Discharge:
        """The discharge that somebody decided to give, whatever the policy says. Raises DischargeError for a bad ticket."""
        if not isinstance(allowed, Allow):
            raise TypeError(f"Allow(expires_in=…), not {type(allowed).__name__}")
        return self._made(self._open(ticket), allowed)

    def _open(self, ticket: Ticket | str) -> _Opened:
        ticket = Ticket.parse(ticket.cid if isinstance(ticket, Ticket) else ticket)
        if ticket.discharger != self.public:
            raise DischargeError("the ticket is for another discharger", "bad_ticket")
        sealed = primitives.unseal(self._key.reveal(), b64decode(decode_json(ticket.cid)["box"]))
        opened = _opened(ticket.cid, sealed) if sealed is not None else None
        del sealed
        if opened is None:
            raise DischargeError("what is sealed in the ticket cannot be read", "bad_ticket")
        return opened

    def _made(self, opened: _Opened, allowed: Allow) -> Discharge:
        for keyword in allowed.caveats:
            if keyword in NO_CAVEATS_OF_DISCHARGES:
                raise TypeError(f"{keyword} is no caveat of a discharge: it would say something of the token")
            writing.known(keyword, self._vocabulary)
        wanted = writing.asked(allowed.caveats, self._vocabulary, self._clock, None)
        if "exp" not in wanted:
            raise ValueError("a discharge expires: say expires_in or expires_at")
        body = writing.spell({name: caveat.value for name, caveat in wanted.items()})
        if (len(opened.cid) + len(body) + 64) * 4 // 3 + len(UNBOUND) > LIMITS.token_chars:
            raise LimitError(f"a discharge of more than {LIMITS.token_chars} characters")
        tag = chain.link_tag(chain.mint_tag(chain.derive(opened.key), opened.cid), body)
        return Discharge(wire.Packet(opened.cid, ((body, b""),), tag))

    def __repr__(self) -> str:
        return f"<Discharger {self.public}>"


class _Opened(Sealed):
    """A ticket whose box was opened. Holds the caveat key, so that no frame does."""

    __slots__ = ("cid", "key", "need")
    cid: bytes
    key: bytes
    need: dict[str, Any]

    def __init__(self, cid: bytes, key: bytes, need: dict[str, Any]) -> None:
        object.__setattr__(self, "cid", cid)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "need", need)


def _opened(cid: bytes, sealed: bytes) -> _Opened | None:
    """What was sealed, or None."""
    try:
        stated = decode_json(sealed)
        if stated.keys() != {"ck", "need", "v"} or stated["v"] != 1 or type(stated["v"]) is not int:
            return None
        key, need = b64decode(names.exact_str(stated["ck"], "ck")), stated["need"]
    except (TypeError, ValueError):
        return None
    return _Opened(cid, key, need) if len(key) == CAVEAT_KEY_BYTES and type(need) is dict else None

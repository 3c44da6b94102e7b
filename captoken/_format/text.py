"""How tokens travel as text (spec, "Token").

    cap1_…                          a token
    cap1_….cap1u_….cap1u_…          a token with the discharges that its holder has got
    cap1_….cap1d_….cap1d_…          the same, bound to it: to be presented to a server
    cap1_….cap1d_….cap1p_…          the same, with the proof of whoever has the token's key
    cap1_….cap1a_….cap1p_…          with a person's consent to one access, before the proof

Parts are joined by full stops, which base64url does not have. Discharges stand in the order of the
third-party caveats that they answer, consents in that of their questions; a proof stands last.
Nothing here knows a key.

- For a holder, to be handed on: discharges as their dischargers wrote them, and no proof.
- For a server: discharges bound to this token, consents, and a proof if the token is bound to a
  key.
- Neither takes what is for the other (spec 8.6). So what a server has seen is of no use to a
  holder, and an unbound discharge, which answers for any child, does not reach a server.

Lengths and counts are looked at before anything is decoded (spec 3.1).

What is checked here is form: spelling, lengths, counts and kinds. Whether a tag holds, whether a
discharge answers, and who made a proof, a verifier asks later.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from captoken._format.encoding import LIMITS, EncodingError, b64decode, b64encode
from captoken._format.errors import LimitError, TokenFormatError
from captoken._format.packet import decode, encode
from captoken._format.parts import Packet, Parts

PREFIX = "cap1_"
SET_PREFIX = "caps1_"  # of a set of tokens, which no server takes
# No prefix begins another, so that one look tells what a part is.
UNBOUND = "cap1u_"  # a discharge as its discharger wrote it
BOUND = "cap1d_"  # a discharge that goes with one presented token
PROOF = "cap1p_"  # a proof of possession, for one sending

CONSENT = "cap1a_"  # a person's consent to one access

PROOF_BYTES = 8 + 16 + 64  # when it was made, a nonce, a signature
PROOF_CHARS = len(PROOF) + (PROOF_BYTES * 4 + 2) // 3
# The question that it answers, from when, until when, a nonce, and the signature.
CONSENT_BYTES = 32 + 8 + 8 + 16 + 64
CONSENT_CHARS = len(CONSENT) + (CONSENT_BYTES * 4 + 2) // 3


def packet_of(text: Any) -> Packet:
    """The packet of a token without discharges: its form alone.

    In this order: type, length, prefix, base64url, packet. The cheap ones come first, so that a
    long text of a stranger costs nothing but its length. Does not read its root record, nor any
    link, and verifies no tag. Raises TokenFormatError and nothing else.

        packet_of("cap1_AgJ9…").caveats    # the links as bytes
    """
    if not isinstance(text, str):
        raise TokenFormatError(f"a token must be text, not {type(text).__name__}")
    if len(text) > LIMITS.token_chars:  # before anything is decoded
        raise _too_long(text, LIMITS.token_chars)

    if not text:
        # A guard that finds no token hands in this text, so that the call is denied and recorded.
        raise TokenFormatError(
            "no token is in use here: the text is empty. If a guard needs one, wrap the call in "
            "`with captoken.current.use(token):`; to a thread, `captoken.current.carry(function)` "
            "carries it"
        )
    if text[:5] != PREFIX:
        refuse_set(text)
        raise TokenFormatError(f"a token starts with {PREFIX}, and {_taken_for_a_token(text)}")
    return _packet(text[5:], LIMITS.root_bytes)


def _taken_for_a_token(text: str) -> str:
    """What else a text is, where that can be told by its first letters. Shows none of them."""
    if text.startswith((UNBOUND, BOUND)):
        return "this is a discharge, which goes with a token"
    if text[:7].lower() == "bearer ":
        return "this starts with the word Bearer: leave it out"
    return "this text does not"


def _too_long(text: str, most: int) -> TokenFormatError:
    """The error for a text that is longer than any token. A set often is: it is said so."""
    what = "a set of tokens, and " if text.startswith(SET_PREFIX) else ""
    return TokenFormatError(
        f"{what}longer than {most} characters, the most a token can have",
        step=1,
    )


def refuse_set(text: Any) -> None:
    """Raise TokenFormatError for the text of a set, in the place of a token (spec 45.4).

    Whoever got it would have the tokens of all servers.
    """
    if isinstance(text, str) and text.startswith(SET_PREFIX):
        raise TokenFormatError(
            f"a token starts with {PREFIX}, and this is a set of tokens: send what "
            "present(audience=...) returns"
        )


def discharge_of(text: Any, prefix: str) -> Packet:
    """The packet of a discharge. `prefix` says of which kind: UNBOUND or BOUND.

    Raises TokenFormatError and nothing else. Its message says what the other kind would be for.
    """
    if not isinstance(text, str):
        raise TokenFormatError(f"a discharge must be text, not {type(text).__name__}")
    if len(text) > LIMITS.token_chars:
        raise TokenFormatError(
            f"a discharge is longer than {LIMITS.token_chars} characters",
            step=1,
        )

    # The wrong kind is a mistake that people make, so the message says what was missed.
    if not text.startswith(prefix):
        problem = "is bound: only its server takes it"
        if prefix == BOUND:
            problem = "is not bound to the token: `present` binds it"
        raise TokenFormatError(f"a discharge starts with {prefix} here; perhaps this one {problem}")

    # One level: a chain of third parties would let a short text ask for much work (spec 33.1).
    packet = _packet(text[len(prefix) :], LIMITS.ticket_bytes)
    if any(vid for _, vid in packet.caveats):
        raise TokenFormatError("a discharge has a third-party caveat itself")
    return packet


def _packet(text: str, identifier_bytes: int) -> Packet:
    """The packet that a text without its prefix spells. Raises TokenFormatError.

    Callers have bounded its length. `identifier_bytes` is the most that its identifier may have.
    """
    try:
        data = b64decode(text)
    except EncodingError as error:
        raise TokenFormatError(str(error)) from None

    # Any macaroon may be without caveats; what an issuer or a discharger writes has a link.
    packet = decode(data, identifier_bytes)
    if not packet.caveats:
        raise TokenFormatError("the token has no link: its issuer writes at least one")
    return packet


def parts_of(text: Any, prefix: str) -> Parts:
    """A token, and what travels with it. Raises TokenFormatError and nothing else.

    `prefix` is the kind of discharges, and says for whom the text is: with BOUND ones, for a
    server, a proof may stand at the end; with UNBOUND ones, for a holder, it may not.
    """
    # A token alone, which has a lower limit than a token with what travels behind it.
    if not isinstance(text, str) or "." not in text:
        return Parts(packet_of(text))

    # Before the text is split: a stranger's text may consist of full stops alone.
    if len(text) > LIMITS.bundle_chars:
        raise _too_long(text, LIMITS.bundle_chars)

    # Split no further than a legal text goes. What is left over is one part more than it may have.
    token, *rest = text.split(".", LIMITS.discharges + LIMITS.consents + 2)
    proof = proof_of(rest.pop(), prefix) if rest[-1].startswith(PROOF) else None
    consents: tuple[bytes, ...] = ()
    if rest and rest[-1].startswith(CONSENT):
        first = next(at for at, part in enumerate(rest) if part.startswith(CONSENT))
        consents = consents_of(rest[first:], prefix)
        del rest[first:]
    if len(rest) > LIMITS.discharges:
        raise TokenFormatError(f"more than {LIMITS.discharges} discharges", step=1)

    # A proof that is not last has another prefix than a discharge, and is refused with it.
    # The token first, so that its own error is the one that is told.
    packet = packet_of(token)
    # The counts are known by now, so that at most 17 packets are decoded. A consent that stands
    # elsewhere has the prefix of no discharge. Whether a discharge
    # answers a caveat is asked when the token is verified (spec 33.5).
    discharges = tuple(discharge_of(part, prefix) for part in rest)
    return Parts(packet, discharges, proof, consents)


def consents_of(parts: list[str], prefix: str = BOUND) -> tuple[bytes, ...]:
    """The bytes of consents: their number, length, spelling and order (spec 47.4).

    Raises TokenFormatError, also for any in a text that is for a holder.
    """
    if prefix == UNBOUND:
        raise TokenFormatError(
            "a text with a consent is for the server that was asked: it cannot be held"
        )
    if len(parts) > LIMITS.consents:
        raise TokenFormatError(f"more than {LIMITS.consents} consents", step=1)
    found = tuple(map(consent_of, parts))
    if any(one[:32] >= two[:32] for one, two in pairwise(found)):
        raise TokenFormatError("consents must be in the order of their questions, one to each")
    return found


def consent_of(part: str) -> bytes:
    """The bytes of one consent. Raises TokenFormatError for any other text."""
    if not part.startswith(CONSENT):
        raise TokenFormatError(f"a consent starts with {CONSENT}, and this text does not")
    if len(part) != CONSENT_CHARS:
        size = f"{CONSENT_CHARS} characters, not {len(part)}"
        raise TokenFormatError(f"a consent must be {size}: a line feed at its end counts")
    try:
        return b64decode(part[len(CONSENT) :])
    except EncodingError as error:
        raise TokenFormatError(f"the consent: {error}") from None


def consent_text(consent: bytes) -> str:
    """A consent of 128 bytes as text. Does not look at its length, and verifies nothing."""
    return CONSENT + b64encode(consent)


def read_consents(given: Iterable[str], before: Iterable[bytes] = ()) -> tuple[bytes, ...]:
    """The bytes of consents that somebody holds, in the order in which they travel.

    `before` are those that were held.

    Each text is one consent, or several that are joined by full stops. Of two to one question the
    later is taken: the earlier may be spent. Raises TypeError, or TokenFormatError for what is none
    and for too many.
    """
    if isinstance(given, str):
        raise TypeError("consents is a list of texts, not one text")
    came = [consent_of(part) for text in given for part in text.split(".", LIMITS.consents)]
    parts = [*before, *came]
    by_question = {part[:32]: part for part in sorted(parts, key=_made)}
    if len(by_question) > LIMITS.consents:
        raise TokenFormatError(f"more than {LIMITS.consents} consents", step=1)
    return tuple(sorted(by_question.values()))


def _made(consent: bytes) -> bytes:
    """When a consent was made, to compare."""
    return consent[32:]


def with_consents(text: str, consents: Iterable[bytes]) -> str:
    """A presented text without a proof, with these consents at its end, in their order."""
    return ".".join((text, *map(consent_text, consents)))


def proof_of(part: str, prefix: str = BOUND) -> bytes:
    """The bytes of a proof: their length and spelling, and nothing else (spec 30.1).

    Raises TokenFormatError, also for any proof in a text that is for a holder (spec 30.9).
    """
    if prefix == UNBOUND:
        raise TokenFormatError(
            "a text with a proof is good for one request to one server: it cannot be held"
        )

    # Exactly so long, so that its parts have fixed places and nothing can stand behind them.
    # 88 bytes are 118 characters, and the prefix has 6.
    if len(part) != PROOF_CHARS:
        raise TokenFormatError(f"a proof must be {PROOF_CHARS} characters")
    try:
        return b64decode(part[len(PROOF) :])
    except EncodingError as error:
        raise TokenFormatError(f"the proof: {error}") from None


def without_proof(text: str) -> str:
    """A text without the proof that it may end in. Does not look whether it is a token.

    A proof inside what is proven would have to be proof of itself (spec 30.12). Never raises for a
    text. Looks at the last part alone.
    """
    return split_proof(text)[0]


def split_proof(text: str) -> tuple[str, str | None]:
    """The same, and the part that is the proof, unread, or None. Never raises for a text."""
    # The last full stop: none stands inside a part.
    before, _, last = text.rpartition(".")
    return (before, last) if last.startswith(PROOF) else (text, None)


def proof_text(proof: bytes) -> str:
    """A proof of 88 bytes as the last part of a text, without the full stop before it.

    Does not look at its length, and verifies nothing.
    """
    return PROOF + b64encode(proof)


def text_of(packet: Packet, prefix: str = PREFIX) -> str:
    """The text of one packet, a token's or a discharge's. A secret.

    Does not look at its length: `check_limits` and `check_bundle` do. Raises ValueError as `encode`
    does.
    """
    return prefix + b64encode(encode(packet))


def whole_text(packet: Packet, discharges: tuple[Packet, ...], prefix: str) -> str:
    """The text of a token and the discharges that go with it, all of one kind, in their order.

    `prefix` is UNBOUND or BOUND, and nobody checks that they are of that kind. A secret. Raises
    ValueError as `encode` does.
    """
    texts = [text_of(packet)]
    texts += [text_of(discharge, prefix) for discharge in discharges]
    return ".".join(texts)


def costs(packet: Packet, discharges: tuple[Packet, ...] = ()) -> tuple[tuple[str, int], ...]:
    """What each part costs, in characters of text: nearly, since frames and prefixes are left out.

    For whoever is told that a token is too long. Shows no content.
    """
    # In bytes first; all are turned into characters at the end.
    parts = [("root record", len(packet.identifier))]
    parts += [(f"link {at}", len(cid) + len(vid)) for at, (cid, vid) in enumerate(packet.caveats)]
    parts += [
        (f"discharge {at}", len(encode(discharge))) for at, discharge in enumerate(discharges)
    ]

    # Four characters for three bytes, rounded up.
    return tuple((what, (size * 4 + 2) // 3) for what, size in parts)


def check_limits(packet: Packet) -> None:
    """Raise LimitError for a token that readers would refuse (spec, "Limits").

    For writers, after each link: a token that nobody takes is best not made (spec 3.2). Looks at
    sizes and counts, and at nothing that they say. The error says what each part costs.
    """
    if len(packet.identifier) > LIMITS.root_bytes:
        raise LimitError(
            f"the root record would be {len(packet.identifier)} bytes, more than "
            f"{LIMITS.root_bytes}: shorten its names, or put less in ext"
        )
    if len(packet.caveats) > LIMITS.links:
        raise LimitError(
            f"the token would have {len(packet.caveats)} links, more than {LIMITS.links}: put more "
            "into one link, or ask for a token with fewer"
        )

    # Nobody may bring more discharges, so that a token which asks more could not be used.
    # Each third-party caveat needs a discharge of its own.
    asked = [vid for _, vid in packet.caveats if vid]
    if len(asked) > LIMITS.discharges:
        raise LimitError(
            f"the token would need the consent of {len(asked)} third parties: {LIMITS.discharges} "
            "is the most"
        )

    # The text is made only for what is nearly too long: frames cost less than a quarter.
    # Bytes without frames. Base64 makes four characters of three bytes.
    size = sum([len(cid) + len(vid) for cid, vid in packet.caveats]) + len(packet.identifier)
    is_nearly_too_long = size * 4 // 3 > LIMITS.token_chars * 3 // 4
    if is_nearly_too_long and len(text_of(packet)) > LIMITS.token_chars:
        raise LimitError(
            f"the token would be more than {LIMITS.token_chars} characters: put fewer names into "
            "its longest part",
            costs(packet),
        )


def check_bundle(packet: Packet, discharges: tuple[Packet, ...]) -> None:
    """Raise LimitError for a token that readers would refuse for the discharges that go with it.

    By the text that is handed on: bound discharges are as long. Does not look whether they answer
    this token's caveats. The error says what each part costs, in characters.
    """
    if len(discharges) > LIMITS.discharges:
        raise LimitError(
            f"the token would have {len(discharges)} discharges, more than {LIMITS.discharges}"
        )
    if len(whole_text(packet, discharges, UNBOUND)) > LIMITS.bundle_chars:
        raise LimitError(
            f"the token and its discharges would be more than {LIMITS.bundle_chars} characters: "
            "put fewer names into the longest part",
            costs(packet, discharges),
        )

"""Signed JSON, read strictly and checked with a key (RFC 7515, 7517, 7519, 8725).

    header.payload.signature

Everything has only one valid encoding, as in tokens: what two readers could read differently is
refused before it is used. Only this file knows joserfc, and imports it when it reads the first key.

- `taken_apart`: the three parts of a text, as JSON. It verifies nothing.
- `key_set`: the public keys in a provider's document, each with its algorithms.
- `holds`: whether a signature is valid.

`identity` decides what a text may say, and who may say it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from captoken._format import primitives
from captoken._format.encoding import EncodingError, b64decode
from captoken._format.extras import extra
from captoken._format.spelling import shown
from captoken._language.bounds import ASSERTION_CHARS, is_deep

MAX_DEPTH = 16  # levels of objects and arrays
MAX_DIGITS = 20  # of an integer with its sign: 64 bits

# Bits of an RSA modulus: what is good for years to come, and what is not slow to check.
MIN_RSA = 2048
MAX_RSA = 8192

Json: TypeAlias = dict[str, Any]


class JoseError(ValueError):
    """Not to be read, or of no use.

    For issuance alone: at the edges it becomes IssuanceError. Its message may be shown to whoever
    wrote the text, and holds no signature.
    """


class KeysError(Exception):
    """Keys that could not be had: their place does not answer, or with something else.

    For issuance alone: it is told in `ProviderKeys.problems` and in the log.
    """


# --- strict JSON ----------------------------------------------------------------------------------


def read_json(data: bytes) -> Json:
    """The object that `data` spells, as `read_value` reads it. Raises JoseError."""
    value = read_value(data)
    if type(value) is not dict:
        raise JoseError("JSON, and no object")
    return value


def read_value(data: bytes) -> Any:
    """What `data` spells: no repeated name, no NaN, nothing without end.

    Spaces and escapes are as the writer likes. Takes data of any length: callers bound it. Raises
    JoseError, whatever the bytes are.
    """
    try:
        text = data.decode()
        value = _decode(text)
        if is_deep(value, MAX_DEPTH):
            raise JoseError("JSON that is nested too deeply")

        # A lone surrogate is no character; written as one, it would be no UTF-8 either.
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except JoseError:
        raise
    except RecursionError:
        raise JoseError("JSON that is nested too deeply") from None
    except ValueError:  # of the decoder, and of characters
        raise JoseError("no JSON") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> Json:
    """An object. Of a repeated name, one reader takes the first and another the last.

    Raises JoseError for it, in objects of any depth.
    """
    made = dict(pairs)
    if len(made) != len(pairs):
        raise JoseError("JSON with a name that is repeated")
    return made


def _float(text: str) -> float:
    """A number with a fraction or an exponent. 1e400 is none: it would become infinity."""
    value = float(text)
    if not math.isfinite(value):
        raise JoseError("JSON with a number that is too large")
    return value


def _int(text: str) -> int:
    """A whole number, of 64 bits at the most. Raises JoseError before it is computed."""
    if len(text) > MAX_DIGITS:
        raise JoseError("JSON with a number that is too large")
    return int(text)


def _constant(_: str) -> Any:
    """NaN and infinity, which Python reads and JSON has not."""
    raise JoseError("no JSON")


_decode = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_float=_float,
    parse_int=_int,
    parse_constant=_constant,
).decode


# --- a signed text --------------------------------------------------------------------------------


class UnverifiedJwt(msgspec.Struct, frozen=True):
    """A signed text, taken apart. Anybody may have written it: its signature was not looked at."""

    header: Json
    claims: Json

    # The bytes of the third part, in whatever form its algorithm has.
    signature: bytes

    # What the signature is over: header and payload as they came.
    signed: bytes


def taken_apart(text: Any) -> UnverifiedJwt:
    """The parts of a text. Raises JoseError.

    In this order: type, length, three parts, base64url in its one spelling, JSON. Does not look at
    what the header or the claims say.
    """
    if type(text) is not str:
        raise JoseError("it is no text")
    if len(text) > ASSERTION_CHARS:
        raise JoseError(f"it is longer than {ASSERTION_CHARS} characters")

    parts = text.split(".")
    if len(parts) == 5:
        raise JoseError("it is encrypted, and only signed ones are taken")
    if len(parts) != 3 or not all(parts):
        raise JoseError("it has not the three parts of a signed JWT")
    try:
        header, payload, signature = map(b64decode, parts)
    except EncodingError as error:
        raise JoseError(f"a part of it cannot be read: {error}") from None

    # The bytes that arrived, and never what they were read as.
    signed = text[: -len(parts[2]) - 1].encode()
    return UnverifiedJwt(
        header=_part("header", header),
        claims=_part("payload", payload),
        signature=signature,
        signed=signed,
    )


def _part(name: str, data: bytes) -> Json:
    """The JSON of a part. Raises JoseError, which says of which."""
    try:
        return read_json(data)
    except JoseError as error:
        raise JoseError(f"its {name} is {error}") from None


# --- keys -----------------------------------------------------------------------------------------

# What a key can be for, by its type and curve. `EdDSA` is the older name of `Ed25519`.
_ALGORITHMS = {
    ("RSA", None): ("RS256", "PS256"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("Ed25519", "EdDSA"),
}

# The members that make a public key. Whatever else stands in the document is no part of it.
_PUBLIC = {
    "RSA": ("n", "e"),
    "EC": ("crv", "x", "y"),
    "OKP": ("crv", "x"),
}

# What `use` may be. Among the keys of an issuer it need not be stated (RFC 7517, 4.2). A SPIFFE
# bundle states it of each key (SPIFFE Trust Domain and Bundle, 4.2.2), and an agent tells of keys
# for JWT-SVIDs alone: SPIRE's leaves it out.
OF_ISSUER = ("sig", None)
OF_BUNDLE = ("jwt-svid",)
OF_AGENT = ("jwt-svid", None)

# Members of private and of shared keys: whoever reads such a document could sign.
_SECRET = frozenset(
    (
        "d",
        "p",
        "q",
        "dp",
        "dq",
        "qi",
        "oth",
        "k",
    )
)


class Key(msgspec.Struct, frozen=True):
    """A public key of a provider, and what it is for."""

    kid: str

    # A signature by another one is not the key's, though it may be of the same type.
    algorithms: tuple[str, ...]
    raw: Any  # joserfc's


class KeySet(msgspec.Struct, frozen=True):
    """The keys of a document, by their ids, and why some of it are not among them."""

    keys: dict[str, Key]
    refused: tuple[str, ...] = ()


def key_set(data: bytes, uses: tuple[str | None, ...] = OF_ISSUER) -> KeySet:
    """The keys of a JWK set that are for signatures: those whose `use` is one of these.

    Keys for other uses, of kinds that are not known here, or without an id are passed over. A
    private or a weak key is refused, and the others stand. With two keys of one id nobody could say
    which is meant: then the document is refused. Raises JoseError.
    """
    found = read_json(data).get("keys")
    if type(found) is not list:
        raise JoseError("a key set has a list of keys")

    keys: dict[str, Key] = {}
    refused: list[str] = []
    seen: set[str] = set()
    for jwk, kid in _for_signatures(found, uses):
        if kid in seen:
            raise JoseError(f"two keys of the id {shown(kid)}")
        seen.add(kid)
        try:
            key = _key(jwk, kid)
        except JoseError as error:
            refused.append(f"key {shown(kid)}: {error}")
            continue
        if key.algorithms:
            keys[kid] = key
    return KeySet(keys, tuple(refused))


def _for_signatures(
    found: list[Any],
    uses: tuple[str | None, ...],
) -> Iterator[tuple[Json, str]]:
    """The entries of a key set that are for signatures, with their ids.

    One without an id is passed over: no assertion can name it. Raises JoseError.
    """
    for jwk in found:
        if type(jwk) is not dict:
            raise JoseError("a key is an object")
        kid = jwk.get("kid")
        if type(kid) is not str or not kid:
            continue
        if jwk.get("use") in uses:
            yield jwk, kid


def _key(jwk: Json, kid: str) -> Key:
    """One key. Raises JoseError if it is no safe one.

    One that is for no algorithm known here is returned without any: it is good for nothing.
    """
    kind = jwk.get("kty")
    if kind == "oct" or _SECRET & jwk.keys():
        raise JoseError("it is private or shared, so that others can sign with it")

    able = _able(jwk)
    # Of a kind that is not known here. It may be for others (RFC 7517, 5).
    if not able:
        return Key(kid=kid, algorithms=(), raw=None)

    public = {name: jwk.get(name) for name in _PUBLIC[str(kind)]}
    return Key(kid=kid, algorithms=able, raw=_public_key(str(kind), public))


def _able(jwk: Json) -> tuple[str, ...]:
    """The algorithms that a key is for: all of its type, or the one that it names.

    None, where it is of a type that is not known here, or not for checking signatures.
    """
    kind = jwk.get("kty")
    curve = None if kind == "RSA" else jwk.get("crv")
    if type(kind) is not str or type(curve) not in (str, type(None)):
        return ()

    operations = jwk.get("key_ops")
    if operations is not None and not (type(operations) is list and "verify" in operations):
        return ()

    able = _ALGORITHMS.get((kind, curve), ())
    return tuple(name for name in able if name == jwk.get("alg", name))


def _public_key(kind: str, members: Mapping[str, Any]) -> Any:
    """joserfc's key of public members alone. Raises JoseError for one that nobody should trust."""
    with extra("issuance"):
        from joserfc.errors import JoseError as Refused
        from joserfc.jwk import ECKey, OKPKey, RSAKey

    kinds: dict[str, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    try:
        raw = {name: b64decode(text) for name, text in members.items() if name != "crv"}
        _check_strength(kind, raw)
        return kinds[kind].import_key({"kty": kind, **members})
    except JoseError:
        raise
    except (Refused, ValueError, AttributeError):  # members that are no text, points off the curve
        raise JoseError("no public key") from None


def _check_strength(kind: str, raw: Mapping[str, bytes]) -> None:
    """Raise JoseError for a key by which others could sign too, or that is slow on purpose."""
    if kind == "RSA":
        bits = int.from_bytes(raw["n"]).bit_length()
        if not MIN_RSA <= bits <= MAX_RSA:
            raise JoseError(f"an RSA key has {MIN_RSA} to {MAX_RSA} bits")

    # A key of small order would make a signature of anybody's good.
    if kind == "OKP" and not primitives.is_good_signing_key(raw["x"]):
        raise JoseError("no good Ed25519 key")


def holds(unverified: UnverifiedJwt, key: Key) -> bool:
    """Is the signature the key's, by the algorithm that the header names?

    Only algorithms that the key is for will do. Never raises for what a stranger wrote.
    """
    algorithm = unverified.header.get("alg")
    if algorithm not in key.algorithms:
        return False
    with extra("issuance"):
        from joserfc.jws import JWSRegistry

    # joserfc warns of the older name. The key is of that curve, so that they are the same.
    name = "Ed25519" if algorithm == "EdDSA" else algorithm
    model = JWSRegistry(algorithms=[name]).get_alg(name)
    model.check_key(key.raw)
    return model.verify(unverified.signed, unverified.signature, key.raw)

"""The bundles of a trust domain, from the SPIFFE agent on this machine (SPIFFE Workload API).

`FetchJWTBundles` (6.2) returns key sets as they were published. `FetchX509Bundles` (5.2) returns
certificates in DER, under their trust domains. Both are passed on unchanged, and `jose` and
`certificates` read them by their own rules. The service needs no more of the API. A workload, which
asks for its own identity, needs more.

Whoever can listen at the socket's path can say who everybody is. So protect it like a file of keys.
"""

from __future__ import annotations

from collections.abc import Iterator

from captoken._format.extras import extra
from captoken.issuance.jose import KeysError

# What is asked, and which field of the answer is the map.
_JWT = ("/SpiffeWorkloadAPI/FetchJWTBundles", 1)
_X509 = ("/SpiffeWorkloadAPI/FetchX509Bundles", 2)

# An agent refuses calls without it, so that nobody can have a server send one by its address alone
# (SPIFFE Workload Endpoint, 3).
_HEADER = (("workload.spiffe.io", "true"),)

# Fields of an entry of the map: its key and its value.
_TRUST_DOMAIN = 1
_BUNDLE = 2

# How protobuf writes a field of bytes.
_LENGTH_DELIMITED = 2


async def bundle(address: str, trust_domain: str) -> bytes:
    """The key set of a trust domain, from the agent at `unix:///…`. The caller bounds the time.

    Raises KeysError.
    """
    return await _asked(_JWT, address, trust_domain)


async def x509_bundle(address: str, trust_domain: str) -> bytes:
    """The authorities of a trust domain, in DER one behind the other; likewise.

    Raises KeysError.
    """
    return await _asked(_X509, address, trust_domain)


async def _asked(what: tuple[str, int], address: str, trust_domain: str) -> bytes:
    """One bundle of the answer. Raises KeysError.

    The agent would go on telling of changes. What it says first is taken, the channel is closed,
    and it is asked again when that is old.
    """
    method, bundles = what
    with extra("spiffe"):
        import grpc.aio  # type: ignore[import-untyped]

    async with grpc.aio.insecure_channel(address) as channel:
        # The request has no fields, which is no bytes; the answer is read below.
        ask = channel.unary_stream(
            method,
            request_serializer=bytes,
        )
        answers = ask(b"", metadata=_HEADER)
        try:
            answer = await answers.read()
        except grpc.aio.AioRpcError as error:
            raise KeysError(f"{error.code().name}: {error.details()}") from None
    if type(answer) is not bytes:  # the agent ended without one
        raise KeysError("the agent did not answer")
    return _bundle_in(answer, bundles, trust_domain)


def _bundle_in(answer: bytes, bundles: int, trust_domain: str) -> bytes:
    """The bundle in an answer, in whose field `bundles` they are. Raises KeysError."""
    wanted = f"spiffe://{trust_domain}".encode()
    # Of a field that is repeated, protobuf takes the last.
    entries = [dict(_fields(entry)) for field, entry in _fields(answer) if field == bundles]
    found = [parts.get(_BUNDLE, b"") for parts in entries if parts.get(_TRUST_DOMAIN) == wanted]

    # Of two, nobody could say which is meant.
    if len(found) != 1:
        raise KeysError(f"the agent has {len(found)} bundles of {trust_domain}")
    return found[0]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protobuf message, all of which are bytes here. Raises KeysError."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        # Three bits say how it is written, and the rest which field it is.
        if tag & 7 != _LENGTH_DELIMITED:
            raise KeysError("the agent's answer has fields of other kinds")
        length, at = _varint(message, at)
        if length > len(message) - at:
            raise KeysError("the agent's answer is cut off")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number, seven bits a byte and the lowest first, and where the next begins.

    Five bytes at the most: what is longer is no length of such an answer. Raises KeysError.
    """
    value = 0
    for count, byte in enumerate(message[at : at + 5]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, at + count + 1
    raise KeysError("the agent's answer is cut off")

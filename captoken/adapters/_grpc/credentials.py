"""What a gRPC call carries: a token in its metadata, and what a proof at its end is about.

The spec has it in "Transports" (40.6). Both sides of the wire read it here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from captoken.proof import http_request

AUTHORIZATION = "authorization"


def request_digest(method: str, message: bytes) -> bytes:
    """The 32 bytes that a proof for one call is about.

    That is `/package.Service/Method`, and the request as it travels, before it is compressed. So
    not two spellings of one message are the same request, and nothing has to be parsed before the
    proof is looked at. The server's name is in every proof already: no host or port is in here,
    which a mesh may change.

    Raises TypeError, or ValueError for a method beyond ASCII.
    """
    return http_request("POST", "grpc:", method, message)


def read_token(metadata: Iterable[tuple[str, Any]] | None) -> str:
    """The text that came with a call: one value, `Bearer`, one space, the text (rule 1).

    What cannot be one is read as one that will not verify, so that the call is refused as with a
    forged one: no token, or two of them, is the empty text. The verifier records that denial like
    any other. The text may end in a proof, which nobody looks at here.
    """
    # Of two tokens nobody can say which one a proxy in between went by.
    values = [value for key, value in metadata or () if key == AUTHORIZATION]
    if len(values) != 1 or not isinstance(values[0], str):
        return ""
    if not values[0].startswith("Bearer "):
        return ""
    return values[0].removeprefix("Bearer ")


def details_without_secrets(details: Any) -> Any:
    """What interceptors after the guard are told of a call: the same without the token.

    `grpc.aio` takes no other type for it than its own, which has the same two fields as that of
    `grpc`. Raises TypeError for one that an interceptor made in another way: the call ends there.
    """
    clean = without_secrets(details.invocation_metadata)
    return type(details)(details.method, clean)


def without_secrets(metadata: Iterable[tuple[str, Any]] | None) -> tuple[Any, ...]:
    """The metadata for the one who answers: without the token, and so without its proof.

    gRPC spells keys in lower case on both sides: no other spelling of this one comes in.
    """
    return tuple(pair for pair in metadata or () if pair[0] != AUTHORIZATION)

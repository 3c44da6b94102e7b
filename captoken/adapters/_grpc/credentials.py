"""What a gRPC call carries: a token and a proof in its metadata, and what the proof is about.

The spec has it in "Transports" (40.6). Both sides of the wire read it here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from captoken import proof as request

AUTHORIZATION = "authorization"
PROOF = "captoken-proof"
SECRET = (AUTHORIZATION, PROOF)

_UNREADABLE = "-"  # stands for a proof that cannot be one


def request_digest(method: str, message: bytes) -> bytes:
    """The 32 bytes that a proof for one call is about.

    That is `/package.Service/Method`, and the request as it travels. The audience is in every proof
    already. Raises TypeError, or ValueError for a method beyond ASCII.
    """
    return request.of_http("POST", "grpc:", method, message)


def read_credentials(
    metadata: Iterable[tuple[str, Any]] | None, *, streamed: bool
) -> tuple[str, str | None]:
    """The token and the proof that came with a call.

    What cannot be one is read as one that will not verify, so that the call is refused as with a
    forged one: no token, or two of them, is the empty text. `streamed`: the client sends a stream,
    and there is no request that a proof could cover.
    """
    shown = [(key, value) for key, value in metadata or () if key in SECRET]
    tokens = [value for key, value in shown if key == AUTHORIZATION]
    proofs = [value for key, value in shown if key == PROOF]
    return _token_in(tokens), _proof_in(proofs, streamed)


def _token_in(values: list[Any]) -> str:
    """Rule 1: one value, `Bearer`, one space, the token."""
    if len(values) != 1 or not isinstance(values[0], str):
        return ""
    if not values[0].startswith("Bearer "):
        return ""
    return values[0].removeprefix("Bearer ")


def _proof_in(values: list[Any], streamed: bool) -> str | None:
    """Rules 1 and 4: one proof at most, and none with a stream."""
    if not values:
        return None
    if len(values) > 1 or streamed:
        return _UNREADABLE
    proof: str = values[0]
    return proof


def without_secrets(metadata: Iterable[tuple[str, Any]] | None) -> tuple[Any, ...]:
    """The metadata for the one who answers: without token and proof."""
    return tuple(pair for pair in metadata or () if pair[0] not in SECRET)

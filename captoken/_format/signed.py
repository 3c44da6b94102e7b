"""A signed body: the bytes of a body, a full stop, and the base64url of a signature of 64 bytes.

Links that hand on a bound token (spec, "Holder binding") and snapshots of the overlay (spec,
"Overlay") travel so. Pure bytes: what is signed, and by which key, is the caller's affair.
"""

from __future__ import annotations

from captoken._format.encoding import EncodingError, b64decode, b64encode

_SIGNATURE_BYTES = 64
SIGNATURE_CHARS = 86  # of the signature as text
TAIL_BYTES = SIGNATURE_CHARS + 1  # what a signed body is longer than the body: the full stop too


def attach(body: bytes, signature: bytes) -> bytes:
    """The body with its signature.

    Raises ValueError for a signature that is not 64 bytes: what is written can be split again.
    """
    if len(signature) != _SIGNATURE_BYTES:
        raise ValueError(f"a signature is {_SIGNATURE_BYTES} bytes, not {len(signature)}")
    return body + b"." + b64encode(signature).encode()


def split(data: bytes) -> tuple[bytes, bytes]:
    """The body and the signature, 64 bytes.

        body, signature = split(data)

    Says nothing of whether the signature is the body's. By length from the end, and not by the
    first full stop: a body has any bytes, full stops among them.

    Raises EncodingError for bytes that do not end in a signature, and nothing else.
    """
    body = data[:-TAIL_BYTES]
    tail = data[-TAIL_BYTES:]
    if len(tail) != TAIL_BYTES or tail[:1] != b".":
        raise EncodingError("it does not end in a full stop and a signature")
    # What is not UTF-8 becomes a character that is no base64url, and is refused as such.
    return body, b64decode(tail[1:].decode(errors="replace"))


def body_of(data: bytes) -> bytes:
    """The body alone, of bytes that `split` has taken before.

    Looks at nothing: of other bytes it returns what no one wrote as a body.
    """
    return data[:-TAIL_BYTES]

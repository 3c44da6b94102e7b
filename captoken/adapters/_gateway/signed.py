"""AWS Signature Version 4: what goes out is signed anew, by botocore.

    writer = SigV4Writer("sigv4:eu-central-1/s3", "https://s3.eu-central-1.amazonaws.com")
    writer.write(secret, outgoing)         # `ID:SECRET`, or `ID:SECRET:SESSION_TOKEN`

What a client has signed, it signed with no key of AWS: nobody looks at that. A body that it sends
in signed chunks (`aws-chunked`) is put together before it is judged.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from captoken.adapters._gateway.credentials import Secret, Unavailable, is_token
from captoken.adapters._gateway.strict import bad
from captoken.adapters._gateway.written import Outgoing
from captoken.adapters._http.exchange import Header, values_of
from captoken.adapters._http.origins import origin_of

CHUNKED = b"aws-chunked"

_chunk = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;chunk-signature=[0-9a-f]{64})?\r\n").match

# The part after the last chunk: checksums, and the end.
_ends = re.compile(rb"(?:x-amz-[a-z0-9-]{1,64}:[!-~]{1,128}\r\n){0,4}(?:\r\n)?").fullmatch


class SigV4Writer:
    """The key of AWS, as a signature of what goes out. Raises ValueError, also without botocore."""

    header = "authorization"
    field = ""
    coding = CHUNKED

    def __init__(self, place: str, url: str) -> None:
        self._region, _, self._service = place.partition(":")[2].partition("/")
        if not is_token(self._region) or not is_token(self._service):
            raise ValueError("write a signature as sigv4:REGION/SERVICE")
        try:
            auth: Any = import_module("botocore.auth")
        except ImportError:
            raise ValueError("botocore is not installed: pip install botocore") from None
        self._auth = auth.S3SigV4Auth if self._service == "s3" else auth.SigV4Auth
        self._origin = origin_of(url)

    def hidden(self, secret: Secret) -> tuple[Secret, ...]:
        _, *found = secret.text.split(":")
        if len(found) not in (1, 2) or not all(secret.text.split(":")):
            raise Unavailable("a key of AWS is ID:SECRET, or ID:SECRET:SESSION_TOKEN")
        return tuple(Secret(text=each) for each in found)

    def write(self, secret: Secret, outgoing: Outgoing) -> None:
        requests: Any = import_module("botocore.awsrequest")
        credentials: Any = import_module("botocore.credentials")
        request = requests.AWSRequest(
            method=outgoing.method,
            url=self._origin + outgoing.target,
            data=outgoing.body,
            headers={
                name.decode("ascii"): value.decode("ascii") for name, value in outgoing.headers
            },
        )
        key = credentials.Credentials(*secret.text.split(":"))
        self._auth(key, self._service, self._region).add_auth(request)
        outgoing.headers[:] = [
            (name.lower().encode("ascii"), value.encode("ascii"))
            for name, value in request.headers.items()
        ]


def unchunked(headers: list[Header], body: bytes) -> bytes:
    """What a body is without the coding `aws-chunked`. Raises RequestError."""
    parts = []
    at = 0
    while found := _chunk(body, at):
        size = int(found[1], 16)
        at = found.end()
        if not size:
            break
        parts.append(body[at : at + size])
        at += size + 2
        if body[at - 2 : at] != b"\r\n":
            raise bad("A chunk of the body does not end where it says.")
    whole = b"".join(parts)
    length = values_of(headers, b"x-amz-decoded-content-length")
    if found is None or _ends(body, at) is None or length != [b"%d" % len(whole)]:
        raise bad("The body is not as aws-chunked is, or not as long as it says.")
    return whole

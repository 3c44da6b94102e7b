"""The responses that refuse a request: RFC 6750, RFC 9728 (spec, "Transports").

What a stranger can cause has one body: malformed, unknown key, bad signature and revoked are told
as one.
"""

from __future__ import annotations

import re

from captoken._verification.decision import Denied
from captoken.adapters._http.exchange import RequestError, Response, json_response
from captoken.adapters._http.origins import origin_of

METADATA_PATH = "/.well-known/oauth-protected-resource"

_quotable = re.compile(r"[ !#-\[\]-~]{1,256}").fullmatch
_CHALLENGED = (400, 401, 403)  # the statuses that say which credentials are taken
_STATUS = {"invalid": 401, "proof": 401, "insufficient": 403, "unavailable": 503}
_ERRORS = {
    "invalid": "invalid_token",
    "proof": "invalid_token",
    "insufficient": "insufficient_scope",
    "unavailable": "temporarily_unavailable",
}


class Refusals:
    """What one protected resource answers to whoever it does not let in.

    `realm`, and `metadata`, which is a URL, are shown to anybody. Raises ValueError.
    """

    def __init__(self, realm: str, metadata: str | None) -> None:
        if _quotable(realm) is None:
            raise ValueError("a realm is printable ASCII without quotes and backslashes")
        challenge = f'Bearer realm="{realm}"'
        if metadata is not None:
            origin_of(metadata)
            if _quotable(metadata) is None:
                raise ValueError("the address of the metadata is without quotes")
            challenge += f', resource_metadata="{metadata}"'  # RFC 9728, 5.1
        self._challenge = challenge

    def unauthenticated(self) -> Response:
        """No credentials: a challenge, and no error code (RFC 6750, 3.1)."""
        response = json_response(401, {"error_description": "A bearer token is needed."})
        return _challenging(response, self._challenge)

    def bad(self, problem: RequestError) -> Response:
        """What is wrong with the request."""
        return self._refusal(problem.status, "invalid_request", problem.text)

    def denied(self, denied: Denied) -> Response:
        """What a client is told of a denial: its public sentence, and nothing of the decision."""
        return self._refusal(_STATUS[denied.kind], _ERRORS[denied.kind], denied.public)

    def _refusal(self, status: int, error: str, text: str) -> Response:
        response = json_response(status, {"error": error, "error_description": text})
        if status not in _CHALLENGED:
            return response
        details = f'error="{error}", error_description="{text}"'
        return _challenging(response, f"{self._challenge}, {details}")


def _challenging(response: Response, challenge: str) -> Response:
    """The response, saying which credentials are taken."""
    header = (b"www-authenticate", challenge.encode("ascii"))
    return response._replace(headers=[*response.headers, header])

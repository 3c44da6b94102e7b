"""The responses that refuse a request: RFC 6750, RFC 9728 (spec, "Transports").

What a stranger can cause has one body: malformed, unknown key, bad signature and revoked are told
as one. Whoever does not hold a genuine token learns by it neither which keys exist nor which tokens
were taken back.
"""

from __future__ import annotations

import re

from captoken._format.spelling import shown
from captoken._verification.decision import Denied
from captoken.adapters._http.exchange import RequestError, Response, json_response
from captoken.adapters._http.origins import origin_of

METADATA_PATH = "/.well-known/oauth-protected-resource"  # RFC 9728, 3

# What can stand between quotes in a header, with nothing escaped: RFC 6750, 3.
_quotable = re.compile(r"[ !#-\[\]-~]{1,256}").fullmatch

# The statuses that say which credentials are taken.
_CHALLENGED = (400, 401, 403)

# By the kind of a denial. RFC 6750, 3.1, has the errors but for the last one: it has none for what
# is the server's own fault.
_STATUS = {
    "invalid": 401,
    "proof": 401,
    "insufficient": 403,
    "unavailable": 503,
}
_ERRORS = {
    "invalid": "invalid_token",
    "proof": "invalid_token",
    "insufficient": "insufficient_scope",
    "unavailable": "temporarily_unavailable",
}


class Refusals:
    """What one protected resource answers to whoever it does not let in.

    `realm`: names what is protected, in each challenge.
    `metadata`: the URL where a client finds out whom to ask for a token; None for nowhere.

    Both are shown to anybody. Raises ValueError for what cannot stand in a header, and for a URL
    that is neither https nor on this machine.
    """

    def __init__(self, realm: str, metadata: str | None) -> None:
        if _quotable(realm) is None:
            raise ValueError(
                f"a realm is printable ASCII without quotes and backslashes, not {shown(realm)}"
            )
        challenge = f'Bearer realm="{realm}"'
        if metadata is not None:
            origin_of(metadata)  # it raises, and what it returns is of no use here
            if _quotable(metadata) is None:
                raise ValueError("the address of the metadata is without quotes")
            challenge += f', resource_metadata="{metadata}"'  # RFC 9728, 5.1
        self._challenge = challenge

    def unauthenticated(self) -> Response:
        """No credentials: a challenge, and no error code (RFC 6750, 3.1).

        To a request that shows nothing, an error would tell of what nobody did.
        """
        response = json_response(401, {"error_description": "A bearer token is needed."})
        return _challenging(response, self._challenge)

    def bad(self, problem: RequestError) -> Response:
        """What is wrong with the request, whatever token it has."""
        return self._refusal(problem.status, "invalid_request", problem.text)

    def denied(self, denied: Denied) -> Response:
        """What a client is told of a denial: its public sentence, and nothing of the decision.

        The decision is for the operator: it says which caveat prohibits what, and so what the token
        permits.
        """
        return self._refusal(_STATUS[denied.kind], _ERRORS[denied.kind], denied.public)

    def _refusal(
        self,
        status: int,
        error: str,
        text: str,
    ) -> Response:
        said = {
            "error": error,
            "error_description": text,
        }
        response = json_response(status, said)
        if status not in _CHALLENGED:
            return response
        details = f'error="{error}", error_description="{text}"'
        return _challenging(response, f"{self._challenge}, {details}")


def _challenging(response: Response, challenge: str) -> Response:
    """The response, saying which credentials are taken (RFC 9110, 11.6.1)."""
    header = (b"www-authenticate", challenge.encode("ascii"))
    return response._replace(headers=[*response.headers, header])

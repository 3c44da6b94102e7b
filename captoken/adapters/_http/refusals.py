"""The responses that refuse a request: RFC 6750, RFC 9457, RFC 9728 (spec, "Transports").

    HTTP/1.1 403 Forbidden
    Content-Type: application/problem+json
    WWW-Authenticate: Bearer realm="sales", error="insufficient_scope", error_description="…"

    {"type": "about:blank", "title": "Forbidden", "status": 403,
     "detail": "The token does not permit this request.",
     "error": "insufficient_scope", "error_description": "The token does not permit this request.",
     "code": "table", "retry": "no",
     "for_model": "Not permitted: table hr is not among the tables of this task. …",
     "needed": {"allow": {"hr": ["select"]}}}

Where a person's consent would let the request through, `consent_request` is what to ask: it has the
facts as this server judged them, and no part of the token.

What a stranger can cause has one body: malformed, unknown version, unknown key, bad signature and
revoked are told as one, without a code. Whoever does not hold a genuine token learns by it neither
which keys exist nor which tokens were taken back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from captoken._format.errors import StatementError
from captoken._format.names import frozen_copy
from captoken._format.spelling import shown
from captoken._verification.decision import Decision, Denied
from captoken._verification.records import CODES
from captoken._verification.wording import lacks_rights, told_to_model, worded_as
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


# What has this sentence is told as one, and nothing beside it tells it apart (24.14).
_UNACCEPTED = CODES["bad_signature"].public


class Refusals:
    """What one protected resource answers to whoever it does not let in.

    `realm`: names what is protected, in each challenge.
    `metadata`: the URL where a client finds out whom to ask for a token; None for nowhere.
    `steps_up`: clients that read `insufficient_scope` ask a person for more. So what no person can
    allow is told without that error, and they do not ask in vain.

    The first two are shown to anybody. Raises ValueError for what cannot stand in a header, and for
    a URL that is neither https nor on this machine.
    """

    def __init__(self, realm: str, metadata: str | None, *, steps_up: bool = False) -> None:
        self._steps_up = steps_up
        if _quotable(realm) is None:
            raise ValueError(
                "a realm must be printable ASCII without quotes and backslashes, not "
                f"{shown(realm)}"
            )
        challenge = f'Bearer realm="{realm}"'
        if metadata is not None:
            origin_of(metadata)  # it raises, and what it returns is of no use here
            if _quotable(metadata) is None:
                raise ValueError("the address of the metadata must not contain quotes")
            challenge += f', resource_metadata="{metadata}"'  # RFC 9728, 5.1
        self._challenge = challenge

    def unauthenticated(self) -> Response:
        """No credentials: a challenge, and no error code (RFC 6750, 3.1).

        To a request that shows nothing, an error would tell of what nobody did.
        """
        text = "A bearer token is needed."
        response = _problem(401, text, {"error_description": text})
        return _challenging(response, self._challenge)

    def bad(self, problem: RequestError) -> Response:
        """What is wrong with the request, whatever token it has; or with the server, from 500 on.

        The two errors that RFC 6749 has for that: whoever reads one was not at fault.
        """
        if problem.status < 500:
            on_record = {"decision": problem.decision} if problem.decision else {}
            return self._refusal(problem.status, "invalid_request", problem.text, on_record)
        is_for_now = problem.status == 503
        error = "temporarily_unavailable" if is_for_now else "server_error"
        told = {"retry": "later" if is_for_now else "no", "for_model": problem.text}
        return self._refusal(problem.status, error, problem.text, told)

    def denied(self, denied: Denied, scope: str | None = None) -> Response:
        """What a client is told of a denial: what it asked for, and nothing of what others wrote.

        The decision is for the operator: it says which caveat prohibits what, and so what the token
        permits. `scope`: what the client may ask a person for, who could allow it (44.24).
        """
        told = client_fields(denied.decision, denied.public)
        if denied.decision.id:
            told["decision"] = denied.decision.id
        if scope is not None:
            told["scope"] = scope
        status, error = _STATUS[denied.kind], _ERRORS[denied.kind]
        return self._refusal(status, error, denied.public, told, scope)

    def _refusal(
        self,
        status: int,
        error: str,
        text: str,
        told: Mapping[str, Any],
        scope: str | None = None,
    ) -> Response:
        said = {
            "error": error,
            "error_description": text,
            **told,
        }
        response = _problem(status, text, said)
        if status not in _CHALLENGED:
            return response
        if self._steps_up and error == "insufficient_scope" and scope is None:
            return _challenging(response, self._challenge)
        details = f'error="{error}", error_description="{text}"'
        if scope is not None:
            details += f', scope="{scope}"'  # RFC 6750, 3
        return _challenging(response, f"{self._challenge}, {details}")


def mistaken_answer(mistaken: StatementError) -> Response:
    """What a client is told of a statement that its database cannot run.

    Without a challenge: nothing is wrong with the token.
    """
    text = "The statement cannot be run."
    said = {
        "error": "invalid_request",
        "error_description": text,
        "code": mistaken.code,
        "retry": "no",
        "for_model": mistaken.for_model(),
    }
    return _problem(400, text, said)


def metadata_of(resource: str, fields: Mapping[str, Any]) -> Response:
    """The document of RFC 9728. Whose it is, the server says itself."""
    stated = {
        "bearer_methods_supported": ["header"],
        **frozen_copy(fields, "resource_metadata"),
        "resource": resource,
    }
    return json_response(200, stated)


def client_fields(decision: Decision, public: str) -> dict[str, Any]:
    """What a client, and its model, are told beside the public sentence.

    For what one sentence hides, it is the same for all of that.
    """
    if public == _UNACCEPTED:
        stranger = told_to_model("bad_signature", None, proven=False)
        return {"retry": "no", "for_model": stranger}

    told: dict[str, Any] = {
        "code": decision.code,
        "retry": CODES[worded_as(decision.code, decision.refusals)].retry,
        "for_model": decision.for_model(),
    }
    needed = _needed(decision)
    if needed:
        told["needed"] = needed
    asked = decision.request()
    if asked is not None:
        told["consent_request"] = asked  # for a person, and not for the model
    return told


def _needed(decision: Decision) -> dict[str, Any]:
    """The keywords of a token that would have done; nothing where a wider one would not.

    Without `where`: attributes are what the server itself knows of the circumstances.
    """
    access = decision.access
    if access is None or not lacks_rights(decision.code, access):
        return {}
    return {key: value for key, value in decision.needed.items() if key != "where"}


def _problem(
    status: int,
    text: str,
    said: Mapping[str, Any],
) -> Response:
    """Problem details (RFC 9457). `about:blank`: the status says what kind of problem it is."""
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": text,
        **said,
    }
    # In ASCII: whatever else a name has is escaped.
    return Response.of(status, b"application/problem+json", json.dumps(problem).encode("ascii"))


def _challenging(response: Response, challenge: str) -> Response:
    """The response, saying which credentials are taken (RFC 9110, 11.6.1)."""
    header = (b"www-authenticate", challenge.encode("ascii"))
    return response._replace(headers=[*response.headers, header])

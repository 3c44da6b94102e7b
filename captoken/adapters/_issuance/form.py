"""A request to the token endpoint, read: which assertions it shows, and what it asks for.

    grant_type=urn:ietf:params:oauth:grant-type:token-exchange
    subject_token=…&subject_token_type=…:id_token       who started it
    client_assertion=…&client_assertion_type=…          which workload acts
    scope=q3-risk&resource=https://sales.example/mcp     which servers: once for each of them
    authorization_details=[{"type":"captoken","tables":["sales"]}]

Form alone is checked, and nothing is believed: no signature is looked at. What is doubtful is
refused: a parameter twice, two actors, a secret. RFC 6749, 7521, 7523, 8693, 8707 and 9396.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from captoken._format.errors import IssuanceError
from captoken._format.text import PREFIX, SET_PREFIX
from captoken._language.bounds import ASSERTION_CHARS, DETAILS_CHARS
from captoken._writing.token_set import MOST_SERVERS
from captoken.adapters._http.escapes import fields
from captoken.issuance.certificates import SCHEME
from captoken.issuance.jose import JoseError, read_value
from captoken.issuance.minting import ROOT, TOKEN_SET, Ask

# The kinds of requests, and what each calls an assertion that will not do (RFC 8693, 2.2.2; RFC
# 7523, 3.1; RFC 6749, 5.2).
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT_CREDENTIALS = "client_credentials"
GRANT_TYPES = (EXCHANGE, JWT_BEARER, CLIENT_CREDENTIALS)

# Those of applications that people log in with (RFC 6749, 4.1.3 and 6).
CODE = "authorization_code"
REFRESH = "refresh_token"

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105, the name of a type

# What each type of token may be, by the kinds of providers.
_SUBJECTS = {
    "urn:ietf:params:oauth:token-type:id_token": ("oidc",),
    ACCESS_TOKEN: ("access-token",),
    "urn:ietf:params:oauth:token-type:id-jag": ("id-jag",),
    "urn:ietf:params:oauth:token-type:jwt": ("workload", "spiffe"),
    "urn:ietf:params:oauth:token-type:saml2": ("saml",),
}
_ACTORS = {"urn:ietf:params:oauth:token-type:jwt": ("workload", "spiffe")}
_WORKLOADS = ("workload", "spiffe")

# What a text is called that is no assertion at all, by where it stands.
_CALLED = {
    "subject_token": "invalid_request",
    "actor_token": "invalid_request",
    "client_assertion": "invalid_client",
    "assertion": "invalid_grant",
    "logout_token": "invalid_request",
}

# The accepted types of a client assertion.
ASSERTION_TYPES = (
    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
)

# What may come once for each of several servers (RFC 8693, 2.1).
_SEVERAL = ("resource", "audience")

# The most fields of a form: each parameter once, some that nobody knows, and all servers of a set.
_FIELDS = 32 + MOST_SERVERS

_KNOWN = frozenset(
    (
        "grant_type",
        "scope",
        *_SEVERAL,
        "requested_token_type",
        "authorization_details",
        "subject_token",
        "subject_token_type",
        "actor_token",
        "actor_token_type",
        "assertion",
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
    )
)


# What an application sends, by what it shows: where that stands.
_SHOWN = {CODE: "code", REFRESH: "refresh_token"}
_OF_CODES = frozenset(
    (
        "grant_type",
        "code",
        "refresh_token",
        "redirect_uri",
        "code_verifier",
        "client_id",
        "client_secret",
        "client_assertion",
        "scope",
    )
)
_verifier = re.compile(r"[A-Za-z0-9._~-]{43,128}").fullmatch


class Shown(msgspec.Struct, frozen=True):
    """An assertion as it was sent, what it may be, and what it is called if it will not do."""

    text: str
    takes: tuple[str, ...]
    error: str

    def __repr__(self) -> str:
        """Not the text: it is as good as a password until it ends."""
        return f"<Shown, one of {', '.join(self.takes)}>"


class Request(msgspec.Struct, frozen=True):
    """A request, read. Nothing of it is believed."""

    grant_type: str

    # Who started it, and which workload acts. Not both are None, unless a certificate was shown.
    subject: Shown | None
    actor: Shown | None

    # What the token is to be good for.
    ask: Ask

    # Who asks, in its own words. A SPIFFE ID without an assertion: a certificate was shown.
    client_id: str | None = None

    # What an ID-JAG's client authenticated with, which is good for nothing else.
    client_secret: str | None = None

    def __repr__(self) -> str:
        """Without what it shows, and without the secret."""
        return f"<Request {self.grant_type}>"


def read(body: bytes, authorization: Sequence[bytes]) -> Request:
    """Read a form. Raises IssuanceError, with the code that the answer has.

    `authorization` are the headers of that name: none is taken.
    """
    if authorization:
        raise IssuanceError("send an assertion, and no Authorization header", "invalid_client")
    pairs = _pairs(body)
    given = _parameters(pairs)
    grant_type = given.get("grant_type")
    if grant_type is None:
        raise IssuanceError("grant_type is missing", "invalid_request")
    if grant_type not in GRANT_TYPES:
        raise IssuanceError("this service does not take that grant_type", "unsupported_grant_type")

    ask = _ask(given, _targets(pairs))
    client = _client(given)
    if grant_type == EXCHANGE:
        return _exchange(given, client, ask)

    _refuse(
        given,
        "subject_token",
        "subject_token_type",
        "actor_token",
        "actor_token_type",
    )
    if grant_type == CLIENT_CREDENTIALS:
        return _client_credentials(given, client, ask)
    return _jwt_bearer(given, client, ask)


class CodeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What an application shows for what a person has let it do. Nothing of it is believed."""

    grant_type: str

    # A code, or a refresh token.
    text: str
    client_id: str

    # Of a code.
    redirect: str | None
    verifier: str | None
    scope: str | None
    resources: tuple[str, ...]

    def __repr__(self) -> str:
        """Without what it shows."""
        return f"<CodeRequest {self.grant_type}>"


def read_code(body: bytes, authorization: Sequence[bytes]) -> CodeRequest | None:
    """Read a form of an application; None for one of another kind. Raises IssuanceError.

    The application has no secret, and sends none: what it shows is bound to it in other ways.
    """
    pairs = _pairs(body)
    kinds = [value for name, value in pairs if name == "grant_type"]
    if not kinds or kinds[0] not in _SHOWN:
        return None
    given = _parameters(pairs, _OF_CODES)
    grant_type = given["grant_type"]
    if authorization or "client_secret" in given or "client_assertion" in given:
        raise IssuanceError(
            "this service takes no secret and no assertion with this grant_type: send client_id",
            "invalid_client",
        )
    wanted = [_SHOWN[grant_type], "client_id"]
    if grant_type == CODE:
        wanted += ["redirect_uri", "code_verifier"]
    for name in wanted:
        if name not in given:
            raise IssuanceError(f"{name} is missing", "invalid_request")
    verifier = given.get("code_verifier")
    if verifier is not None and _verifier(verifier) is None:
        raise IssuanceError("code_verifier must be 43 to 128 characters", "invalid_request")
    return CodeRequest(
        grant_type=grant_type,
        text=given[_SHOWN[grant_type]],
        client_id=given["client_id"],
        redirect=given.get("redirect_uri"),
        verifier=verifier,
        scope=given.get("scope"),
        resources=_targets(pairs),
    )


def _exchange(given: Mapping[str, str], client: Shown | None, ask: Ask) -> Request:
    """A token exchange (RFC 8693): a subject, and perhaps an actor. Raises IssuanceError.

    The actor is shown as such, or as the client that asks.
    """
    subject = _typed(given, "subject_token", _SUBJECTS, "invalid_request")
    if subject is None:
        raise IssuanceError("subject_token is missing", "invalid_request")
    actor = _typed(given, "actor_token", _ACTORS, "invalid_request")
    if actor is not None and client is not None:
        raise IssuanceError("send actor_token or client_assertion, not both", "invalid_request")
    _refuse(given, "assertion", "client_secret")
    return Request(
        grant_type=EXCHANGE,
        subject=subject,
        actor=actor or client,
        ask=ask,
        client_id=given.get("client_id"),
    )


def _client_credentials(given: Mapping[str, str], client: Shown | None, ask: Ask) -> Request:
    """A workload that starts a task itself. Raises IssuanceError."""
    _refuse(given, "assertion", "client_secret")
    client_id = given.get("client_id")

    # Without one, a SPIFFE ID is that of the certificate which was shown.
    if client is None and not (client_id or "").startswith(SCHEME):
        raise IssuanceError(
            "client_assertion is missing: this service takes no client secret",
            "invalid_client",
        )
    return Request(
        grant_type=CLIENT_CREDENTIALS,
        subject=None,
        actor=client,
        ask=ask,
        client_id=client_id,
    )


def _jwt_bearer(given: Mapping[str, str], client: Shown | None, ask: Ask) -> Request:
    """An assertion as a grant (RFC 7523, 2.1). Raises IssuanceError.

    A secret may come with it, which is for the client of an ID-JAG: it is looked at elsewhere.
    """
    text = _token(given, "assertion")
    if text is None:
        raise IssuanceError("assertion is missing", "invalid_request")
    subject = Shown(
        text=text,
        takes=("id-jag", *_WORKLOADS),
        error="invalid_grant",
    )
    if client is not None:
        _refuse(given, "client_secret")
    return Request(
        grant_type=JWT_BEARER,
        subject=subject,
        actor=client,
        ask=ask,
        client_id=given.get("client_id"),
        client_secret=given.get("client_secret"),
    )


def logout_token(body: bytes) -> str:
    """The one parameter of a back-channel logout. Raises IssuanceError, `invalid_request`."""
    text = _token(_parameters(_pairs(body), frozenset(("logout_token",))), "logout_token")
    if text is None:
        raise IssuanceError("logout_token is missing", "invalid_request")
    return text


def _pairs(body: bytes) -> list[tuple[str, str]]:
    """The parameters of a form with their values, as they came. Raises IssuanceError."""
    try:
        return fields(body, _FIELDS)
    except ValueError:
        raise IssuanceError("the body is not a form", "invalid_request") from None


def _parameters(
    pairs: Sequence[tuple[str, str]],
    known: frozenset[str] = _KNOWN.difference(_SEVERAL),
) -> dict[str, str]:
    """The parameters that are there once (RFC 6749, 3.2). Empty ones are left out.

    Raises IssuanceError for one that is there twice.
    """
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            continue  # as RFC 6749 has it: what is not known is ignored
        if name in given:
            raise IssuanceError(f"{name} is given twice", "invalid_request")
        given[name] = value
    return {name: value for name, value in given.items() if value}


def _targets(pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The servers that a form names, in its order, by `resource` or by `audience`.

    Whether one is there twice is for whoever knows all of its names. Raises IssuanceError.
    """
    named = [(name, value) for name, value in pairs if name in _SEVERAL and value]
    if len({name for name, _ in named}) > 1:
        raise IssuanceError("send resource or audience, not both", "invalid_target")
    return tuple(value for _, value in named)


def _refuse(given: Mapping[str, str], *names: str) -> None:
    """Raise IssuanceError for what does not belong to this kind of request."""
    for name in names:
        if name in given:
            code = "invalid_client" if name == "client_secret" else "invalid_request"
            raise IssuanceError(f"this grant_type does not take {name}", code)


def _token(given: Mapping[str, str], name: str) -> str | None:
    """A token of a form, if it is there. Raises IssuanceError if it is too long."""
    text = given.get(name)
    if text is None:
        return None
    # It is another's word for what somebody may do, and none for who that is (44.1).
    if text.startswith((PREFIX, SET_PREFIX)):
        what = "a set of tokens" if text.startswith(SET_PREFIX) else "a token"
        told = f"{name} is {what} of captoken, which cannot start a task: send an assertion"
        raise IssuanceError(told, _CALLED[name])
    if len(text) > ASSERTION_CHARS:
        raise IssuanceError(f"{name} is longer than {ASSERTION_CHARS} bytes", "invalid_request")
    return text


def _typed(
    given: Mapping[str, str],
    name: str,
    types: Mapping[str, tuple[str, ...]],
    error: str,
) -> Shown | None:
    """A token with its type, both or neither (RFC 8693, 2.1)."""
    text = _token(given, name)
    kind = given.get(f"{name}_type")
    if text is None and kind is None:
        return None
    if text is None or kind is None:
        raise IssuanceError(f"send {name} and {name}_type together", "invalid_request")
    if kind not in types:
        raise IssuanceError(f"this service does not take that {name}_type", "invalid_request")
    return Shown(
        text=text,
        takes=types[kind],
        error=error,
    )


def _client(given: Mapping[str, str]) -> Shown | None:
    """The assertion that a client authenticates with: it is the actor (RFC 7523, 2.2)."""
    text = _token(given, "client_assertion")
    kind = given.get("client_assertion_type")
    if text is None and kind is None:
        return None
    if text is None or kind not in ASSERTION_TYPES:
        raise IssuanceError(
            "send client_assertion with a client_assertion_type that this service takes",
            "invalid_client",
        )
    return Shown(
        text=text,
        takes=_WORKLOADS,
        error="invalid_client",
    )


def _ask(given: Mapping[str, str], resources: tuple[str, ...]) -> Ask:
    """What the token is to be good for. Raises IssuanceError.

    Whether there is such a grant or resource is not looked at: the desk does.
    """
    wanted = given.get("requested_token_type", ACCESS_TOKEN)
    if wanted not in (ACCESS_TOKEN, ROOT, TOKEN_SET):
        raise IssuanceError(
            "this service does not issue that requested_token_type",
            "invalid_request",
        )

    scope = given.get("scope")
    if scope is not None and " " in scope:
        raise IssuanceError("scope must name one grant of the policy", "invalid_scope")

    # What is no keyword is taken out first.
    details = _details(given.get("authorization_details"))
    agent = _text_of(details, "agent")
    task = _text_of(details, "task")
    clamp = details.pop("clamp", False)
    if type(clamp) is not bool:
        raise _bad_details("clamp is true or false")

    return Ask(
        grant=scope,
        resources=resources,
        agent=agent,
        task=task,
        keywords=details,
        clamp=clamp,
        held=wanted != ACCESS_TOKEN,
        as_set=wanted == TOKEN_SET,
    )


def _details(text: str | None) -> dict[str, Any]:
    """The one object of `authorization_details`, without its type (RFC 9396)."""
    if text is None:
        return {}
    if len(text) > DETAILS_CHARS:
        raise _bad_details(f"it is longer than {DETAILS_CHARS} characters")
    try:
        stated = read_value(text.encode())
    except JoseError as error:
        raise _bad_details(f"it is {error}") from None

    # Of several, each would be a token of its own, and one is given.
    if type(stated) is not list or len(stated) != 1 or type(stated[0]) is not dict:
        raise _bad_details("it is a list of one object")
    details: dict[str, Any] = stated[0]
    if details.pop("type", None) != "captoken":
        raise _bad_details('its type is "captoken"')
    return details


def _text_of(details: dict[str, Any], name: str) -> str | None:
    """A text of the details, which is no keyword. It is taken out of them."""
    value = details.pop(name, None)
    if value is not None and type(value) is not str:
        raise _bad_details(f"{name} is a text")
    return value


def _bad_details(what: str) -> IssuanceError:
    """What is raised for details that will not do. Made here, raised by the caller."""
    return IssuanceError(
        f"authorization_details: {what}",
        "invalid_authorization_details",
    )

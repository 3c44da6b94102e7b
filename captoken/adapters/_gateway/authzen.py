"""The gateway as a decision point of AuthZEN 1.0 (docs/gateway-authzen.md).

    door = Point(audience, verifier, origin="https://gateway.example", max_body=262144)
    await door(scope, receive, send)          # POST /records/access/v1/evaluation

Somebody else's server or API gateway, which enforces what it is told, asks whether a token permits
an action on a resource. One audience is one point, with a secret of its own.

1. Whoever asks has the secret of the point. Anybody else gets 401, and nothing is read of a body.
2. The token stands in `subject.properties.captoken`. Who the subject is, the token says: `type`,
   `id` and whatever else is said of it decide nothing but what a `where` of the token asks about.
3. An evaluation counts as `authorize` does, each time that it is asked.
4. A denial is an answer, of status 200. Without a keyring or a ledger there is no answer: 503.

Not checked: whether what is asked about is what then happens. Whoever asks has to see to that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

from captoken import current
from captoken._language.access import Access
from captoken._language.bounds import TOO_LARGE, is_bounded
from captoken._verification.decision import Denied
from captoken._verification.verifier import AsyncVerifier
from captoken.adapters._gateway.credentials import Unavailable, is_secret
from captoken.adapters._gateway.opening import Audience
from captoken.adapters._gateway.operations import JSON
from captoken.adapters._gateway.reading import check_framing, content_type
from captoken.adapters._gateway.shapes import ANY
from captoken.adapters._gateway.strict import bad, fitting, json_value
from captoken.adapters._http.credentials import check_head
from captoken.adapters._http.exchange import (
    Body,
    ClientGone,
    Header,
    Receive,
    RequestError,
    Response,
    Scope,
    Send,
    json_response,
    respond,
    values_of,
)
from captoken.adapters._http.refusals import client_fields

_log = logging.getLogger("captoken.gateway")

_METADATA = "/.well-known/authzen-configuration"
_EVALUATION = "/access/v1/evaluation"
_REQUEST_ID = b"x-request-id"
_TOKEN = "captoken"  # noqa: S105, it is a name

# Seconds that the metadata are good for: they change with the file alone.
_KEPT = b"max-age=3600"


class Evaluation(NamedTuple):
    """What a request says, read: the token is as it came, and unverified."""

    token: str | None
    type: str
    id: str
    action: str
    parameters: dict[str, Any]

    # By the name of the entity and of the property: `resource.status`.
    attributes: dict[str, Any]


class Point:
    """The door of one audience. `origin` is where its clients reach the gateway."""

    def __init__(
        self, audience: Audience, verifier: AsyncVerifier, *, origin: str, max_body: int
    ) -> None:
        self._audience = audience
        self._name = audience.name
        self._verifier = verifier
        self._max_body = max_body
        self._path = f"/{self._name}{_EVALUATION}".encode()
        self._challenge = (b"www-authenticate", f'Bearer realm="{self._name}"'.encode())
        base = f"{origin}/{self._name}"
        self.place_of_metadata = f"{_METADATA}/{self._name}".encode()
        self._metadata: Response | None = None
        # The standard has no metadata for a point that is reached without TLS.
        if origin.startswith("https://"):
            said = {"policy_decision_point": base, "access_evaluation_endpoint": base + _EVALUATION}
            told = json_response(200, said)
            kept = [pair for pair in told.headers if pair[0] != b"cache-control"]
            self._metadata = told._replace(headers=[*kept, (b"cache-control", _KEPT)])

    opened = 0  # connections to services: it has none

    async def close(self) -> None:
        """Nothing waits."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        headers: list[Header] = list(scope["headers"])
        try:
            answer = await self._answered(scope, headers, receive)
        except RequestError as problem:
            answer = _problem(problem.status, problem.text)
        except ClientGone:
            return
        named = values_of(headers, _REQUEST_ID)
        if len(named) == 1:
            answer = answer._replace(headers=[*answer.headers, (_REQUEST_ID, named[0])])
        await respond(send, answer, without_body=scope["method"] == "HEAD")

    async def _answered(self, scope: Scope, headers: list[Header], receive: Receive) -> Response:
        """The answer. Raises RequestError, and ClientGone."""
        check_framing(headers)
        check_head(scope)
        raw: bytes = scope["raw_path"]
        if scope["query_string"]:
            raise RequestError(404, "There is nothing here.")
        if raw == self.place_of_metadata and self._metadata is not None:
            if scope["method"] not in ("GET", "HEAD"):
                raise RequestError(405, "GET reads the metadata.")
            return self._metadata
        if raw != self._path:
            raise RequestError(404, f"Evaluations are asked for at {self._path.decode()}.")
        if scope["method"] != "POST":
            raise RequestError(405, "POST asks for an evaluation.")
        if not await self._is_known(headers):
            problem = _problem(401, "The bearer token of this decision point is needed.")
            return problem._replace(headers=[*problem.headers, self._challenge])
        if content_type(headers) != JSON:
            raise bad("Content-Type must be application/json.")
        asked = evaluation(await Body(receive, self._max_body).read_all())
        traces = values_of(headers, b"traceparent")
        trace = traces[0].decode("latin-1") if len(traces) == 1 else None
        with current.nothing(), current.traced(trace):
            return await self._evaluated(asked)

    async def _is_known(self, headers: list[Header]) -> bool:
        """Does whoever asks have the secret?"""
        said = values_of(headers, b"authorization")
        if len(said) != 1 or not said[0].startswith(b"Bearer "):
            return False
        whose = f"{self._name}: the secret of who asks"
        return await is_secret(self._audience.source, said[0].removeprefix(b"Bearer "), whose)

    async def _evaluated(self, asked: Evaluation) -> Response:
        """The decision, which has counted. Raises RequestError where nobody can decide."""
        if asked.token is None:
            return _denied({"detail": "subject.properties.captoken is missing: it is the token."})
        try:
            grant = await self._verifier.authenticate(asked.token)
            try:
                access = self._access(asked)
            except (TypeError, ValueError) as problem:
                raise Denied(await grant.deny("tool", str(problem))) from None
            if not is_bounded(access):
                raise Denied(await grant.deny(*TOO_LARGE))
            await grant.authorize(access)
        except Denied as denied:
            if denied.kind == "unavailable":
                raise RequestError(503, denied.public) from None
            told = client_fields(denied.decision, denied.public)
            return _denied({"detail": denied.public, **told})
        except Unavailable as problem:
            _log.error("there is no keyring, and all is denied: %s", problem)
            raise RequestError(503, "The gateway has no keyring now.") from None
        return json_response(200, {"decision": True})

    def _access(self, asked: Evaluation) -> Access:
        """What a token has to permit. Raises ValueError where none can name it."""
        # So that no two actions come to one tool.
        if "." in asked.type or "/" in asked.type or "." in asked.action:
            raise ValueError("a type has neither '.' nor '/', and the name of an action no '.'")
        kind = f"{asked.type}.{asked.action.replace('/', '.')}"
        if "id" in asked.parameters:
            raise ValueError("the resource has the id: no property of an action has its name")
        arguments = {"id": asked.id, **asked.parameters}
        costs = {
            unit: price.of(arguments) for unit, price in self._audience.prices.get(kind, {}).items()
        }
        return Access(
            tool=f"{self._name}.{kind}",
            arguments=arguments,
            attributes=asked.attributes,
            cost={unit: amount for unit, amount in costs.items() if amount is not None},
        )


def evaluation(body: bytes) -> Evaluation:
    """Read a request. What it has beside what the standard names is ignored. Raises RequestError.

    Its objects have each name once, in whatever case, and its numbers are doubles.
    """
    said = json_value(body)
    subject = _entity(said, "subject", ("type", "id"))
    action = _entity(said, "action", ("name",))
    resource = _entity(said, "resource", ("type", "id"))
    of_subject = dict(_properties(subject, "subject"))
    token = of_subject.pop(_TOKEN, None)
    if token is not None and type(token) is not str:
        raise bad("subject.properties.captoken is a text.")
    context = said.get("context", {})
    if type(context) is not dict:
        raise bad("context is an object.")
    stated = {"subject": of_subject, "resource": _properties(resource, "resource")}
    stated["context"] = context
    attributes = {
        f"{entity}.{name}": value for entity, told in stated.items() for name, value in told.items()
    }
    parameters = _properties(action, "action")
    fitting(attributes, ANY, ())
    fitting(parameters, ANY, ())
    return Evaluation(
        token, resource["type"], resource["id"], action["name"], parameters, attributes
    )


def _entity(said: Any, name: str, texts: Iterable[str]) -> dict[str, Any]:
    """A member that has to be there, with members that are texts. Raises RequestError."""
    entity = said.get(name) if type(said) is dict else None
    if type(entity) is not dict:
        raise bad(f"{name} is missing, or no object.")
    for text in texts:
        if type(entity.get(text)) is not str:
            raise bad(f"{name}.{text} is missing, or no text.")
    return entity


def _properties(entity: dict[str, Any], name: str) -> dict[str, Any]:
    properties = entity.get("properties", {})
    if type(properties) is not dict:
        raise bad(f"{name}.properties is no object.")
    return properties


def _denied(context: dict[str, Any]) -> Response:
    return json_response(200, {"decision": False, "context": context})


def _problem(status: int, text: str) -> Response:
    """An error, as the standard has it: a status, and a text."""
    answer = Response.of(status, b"text/plain; charset=utf-8", text.encode())
    more = {405: (b"allow", b"POST"), 503: (b"retry-after", b"5")}.get(status)
    return answer if more is None else answer._replace(headers=[*answer.headers, more])

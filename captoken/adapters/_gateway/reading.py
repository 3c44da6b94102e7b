"""A whole request, read by the table of its service: which operation it is, and what it asks for.

    door = Reading(service, table, prefix, headers, …)
    found = door.begin("POST", b"/v1/refunds", headers)      # by the head alone; NoOperation
    asked = found.complete(query, body)                      # RequestError

`asked.access` is what is judged, and `asked.outgoing` what is sent. Both come from the same values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from msgspec import structs

from captoken._format import primitives
from captoken._format.encoding import b64encode
from captoken._format.spelling import shown
from captoken._language.access import Access
from captoken._language.bounds import USER_AGENT_CHARS
from captoken.adapters._gateway import strict, written
from captoken.adapters._gateway.operations import (
    FORM,
    JSON,
    SEGMENTS,
    Operation,
    Table,
    placeholder,
)
from captoken.adapters._gateway.shapes import ANY, Members, Scalar, taken_apart
from captoken.adapters._gateway.strict import bad
from captoken.adapters._gateway.written import Outgoing
from captoken.adapters._http.exchange import Header, RequestError, values_of
from captoken.adapters._http.origins import is_path

# What a header makes of a request that its operation does not say: a part of a thing, a condition
# without which more is done, another protocol.
_REFUSED = frozenset(
    (
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
        b"range",
        b"upgrade",
        b"trailer",
        b"http2-settings",
        b"proxy-authorization",
    )
)
_is_media = re.compile(rb"[A-Za-z0-9!#$&^_.+*-]{1,64}/[A-Za-z0-9!#$&^_.+*-]{1,64}").fullmatch
_is_visible = re.compile(rb"[ -~]*").fullmatch

# The label for deriving the idempotency key that is sent to the service.
_ONCE = b"captoken/v1 gateway once\0"
_COUNTED = b"captoken/v1 gateway counted\0"

# The parameter of a content type that says UTF-8, as clients write it.
_is_utf8 = re.compile(rb'charset="?utf-8"?', re.IGNORECASE).fullmatch


class NoOperation(Exception):  # noqa: N818, it is no error of the gateway
    """The request is none of the service's operations. What it says is for the operator."""


class HeaderRules(NamedTuple):
    """What becomes of the headers that clients of one service send.

    `fixed`: what goes out, whatever they say. `arguments` and `dropped`: names in small letters.
    `prefixes`: with what names begin of which others are refused. `idempotency`: the name of the
    header with a key against doing something twice, or nothing.
    """

    fixed: Mapping[bytes, bytes]
    arguments: Mapping[bytes, str]
    dropped: frozenset[bytes]
    prefixes: tuple[bytes, ...]
    idempotency: bytes

    @classmethod
    def of(
        cls,
        service: str,
        stated: Mapping[str, str],
        prefixes: Iterable[str],
        idempotency: str | None = None,
    ) -> HeaderRules:
        """The rules that a file states."""
        by_name = {name.lower().encode(): (name, what) for name, what in stated.items()}
        own = [service, f"x-{service}", *prefixes]
        return cls(
            {
                name: what.encode()
                for name, (_, what) in by_name.items()
                if what not in ("argument", "drop")
            },
            {name: as_said for name, (as_said, what) in by_name.items() if what == "argument"},
            frozenset(name for name, (_, what) in by_name.items() if what == "drop"),
            tuple(f"{prefix.lower().rstrip('-')}-".encode() for prefix in own),
            (idempotency or "").lower().encode(),
        )


class Asked(NamedTuple):
    """What one request asks for: what is judged, and what is sent."""

    operation: Operation
    access: Access
    outgoing: Outgoing

    # The agent's key against doing it twice, or nothing.
    once: bytes

    @property
    def unsaid(self) -> dict[str, str]:
        """By unit: the argument that a cost is of, and that says no whole number of 0 or more."""
        cost, stated = self.operation.cost.items(), self.access.cost
        return {unit: price.argument or "" for unit, price in cost if unit not in stated}

    @property
    def unsaid_text(self) -> str:
        """What the agent has to say, for whoever reads the refusal."""
        said = " and ".join(map(shown, sorted({*self.unsaid.values()})))
        return f"Say {said}, a whole number of 0 or more: a budget of the token counts by it."

    @property
    def costing_nothing(self) -> Access:
        """The same access, if what is unsaid cost nothing: to see whose fault a missing cost is."""
        cost = {**self.access.cost, **dict.fromkeys(self.unsaid, 0)}
        return structs.replace(self.access, cost=cost)

    def named(self, holder: str) -> tuple[bytes, bytes]:
        """The key that goes out, and 16 bytes for a ledger: both know a retry of this very request.

        `holder` is the hand-over by which the agent holds its token. So no agent meets another's
        request, and another amount is another request.
        """
        sent = self.outgoing
        parts = [self.operation.tool.encode(), holder.encode(), self.once, sent.method.encode()]
        parts += [sent.target.encode(), *(part for pair in sorted(sent.headers) for part in pair)]
        parts.append(sent.body)
        counted = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        digest = primitives.sha256(_ONCE + counted)
        return b64encode(digest).encode(), primitives.sha256(_COUNTED + digest)[:16]


class Reading:
    """Reads the requests to one service.

    `base` is what stands before its paths, decoded, and `reserved` the fields of a query that the
    gateway itself writes.
    """

    def __init__(
        self,
        table: Table,
        rules: HeaderRules,
        base: list[str],
        reserved: frozenset[str] = frozenset(),
    ) -> None:
        self._table = table
        self.rules = rules
        self._base = base
        self._reserved = frozenset(map(str.casefold, reserved))

    @property
    def once(self) -> bytes:
        """The header of keys against doing something twice, or nothing."""
        return self.rules.idempotency

    def begin(self, method: str, raw_path: bytes, headers: list[Header]) -> Began:
        """Which operation it is. Raises NoOperation, and RequestError for what cannot be read."""
        found = self._table.find(method, strict.path_segments(raw_path))
        if found is None:
            raise NoOperation("the request is no operation of this service")
        operation, values = found
        return Began(operation, values, self._headers(operation, headers), headers)

    def complete(self, began: Began, raw_query: bytes, body: bytes) -> Asked:
        """What it asks for. Raises RequestError."""
        operation = began.operation
        facts: dict[str, Any] = {}
        path = {
            name: strict.of_text(
                began.values[name], Scalar("string") if shape == SEGMENTS else shape, (name,)
            )
            for name, shape in operation.path.items()
        }
        for name, value in path.items():
            _state(facts, {operation.arguments["path", name]: value})
        query = strict.fields_value(raw_query, operation.query, operation.lists)
        if not self._reserved.isdisjoint(map(str.casefold, query)):
            raise bad("The query has a field that the gateway itself writes.")
        _add(facts, operation, "query", query, operation.query)
        once = began.headers.pop(self.rules.idempotency, b"")
        headers = list(began.headers.items())
        for header, said in began.headers.items():
            called = operation.headers.get(header.decode()) or self.rules.arguments.get(header)
            if called is not None:
                argument = operation.arguments.get(("header", called), called)
                _state(facts, {argument: said.decode("ascii")})
        sent, kind = self._body(operation, began.given, body, facts)
        if kind:
            headers.append((b"content-type", kind))
        outgoing = Outgoing(
            operation.method,
            written.path([*self._base, *_segments(operation, path)]),
            written.fields(query, operation.lists),
            [*headers, *self.rules.fixed.items()],
            sent,
        )
        return Asked(operation, _access(operation, facts), outgoing, once)

    def _headers(self, operation: Operation, headers: list[Header]) -> dict[bytes, bytes]:
        """Return the incoming headers that are sent on, by name. Raises RequestError."""
        out: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in self.rules.fixed:
                continue
            taken = name in self.rules.arguments or name == self.rules.idempotency
            if taken or name.decode("latin-1") in operation.headers:
                if name in out or _is_visible(value) is None:
                    raise bad("A header that is an argument stands there twice, or is no ASCII.")
                out[name] = value
            elif name in self.rules.dropped:
                continue
            elif name in _REFUSED or name.startswith(self.rules.prefixes):
                shown = name.decode("latin-1")
                raise bad(f"The header {shown} is not taken: no operation here declares it.")
            elif name == b"accept":
                first = value.partition(b",")[0].partition(b";")[0].strip()
                out.setdefault(name, first if _is_media(first) else b"*/*")
            elif name == b"user-agent" and _is_visible(value):
                out.setdefault(name, value[:USER_AGENT_CHARS].rstrip())
        return out

    def _body(
        self, operation: Operation, headers: list[Header], body: bytes, facts: dict[str, Any]
    ) -> tuple[bytes, bytes]:
        """Return the body and content type to send on, and put the body's arguments into `facts`.
        """
        kind = content_type(headers)
        if not body and (kind == "" or kind not in operation.body):
            return b"", b""
        if kind in operation.opaque:
            _state(facts, {"body.size": len(body), "body.type": kind})
            return body, kind.encode()
        shape = operation.body.get(kind)
        if shape is None:
            taken = ", ".join((*operation.body, *operation.opaque)) or "none"
            raise RequestError(415, f"The operation takes no body of this type; it takes: {taken}.")
        if kind == FORM and isinstance(shape, Members):
            form = strict.fields_value(body, shape, operation.lists)
            _add(facts, operation, "body", form, shape)
            return written.fields(form, operation.lists).encode("ascii"), FORM.encode()
        value = strict.json_value(body)
        strict.fitting(value, shape, ())
        if isinstance(shape, Members) and type(value) is dict:
            _add(facts, operation, "body", value, shape)
        else:
            _state(facts, {"body": value})
        return written.json_body(value), JSON.encode()


class Began(NamedTuple):
    """A request of which the head was read: its operation, and what goes out of its headers."""

    operation: Operation
    values: dict[str, str]
    headers: dict[bytes, bytes]
    given: list[Header]


def check_framing(headers: list[Header], coding: bytes = b"identity") -> None:
    """Raise RequestError where two readers could find the end of the request in two places.

    `coding` is one that the service's clients use, and that is taken off.
    """
    names = [name for name, _ in headers]
    if b"transfer-encoding" in names:
        chunked = values_of(headers, b"transfer-encoding")
        if b"content-length" in names or chunked != [b"chunked"]:
            raise bad("Transfer-Encoding is chunked, and has no Content-Length beside it.")
    if names.count(b"host") > 1:
        raise bad("There is more than one Host header.")
    if b"content-encoding" in names:
        coded = values_of(headers, b"content-encoding")
        if coded not in ([coding], [b"identity"]):
            raise RequestError(415, "Send the body without a content coding.")


def content_type(headers: list[Header]) -> str:
    """The one content type, without what stands behind it; empty where there is none."""
    stated = values_of(headers, b"content-type")
    if not stated:
        return ""
    kind, semicolon, parameter = stated[0].partition(b";")
    kind = kind.strip()
    if len(stated) > 1 or _is_media(kind) is None:
        raise bad("There is more than one Content-Type, or it is none.")
    if semicolon and _is_utf8(parameter.strip()) is None:
        raise RequestError(415, "The body must be UTF-8, and Content-Type must not say otherwise.")
    return kind.decode("ascii").lower()


def _segments(operation: Operation, path: dict[str, Any]) -> list[str]:
    """The segments of the path that goes out, from the template and the judged values."""
    out: list[str] = []
    for each in operation.template:
        name = placeholder(each)
        if name is None:
            out.append(each)
        elif operation.path[name] == SEGMENTS:
            out += path[name][1:].split("/")
        else:
            out.append(written.text_of(path[name]))
    return out


def _add(
    facts: dict[str, Any],
    operation: Operation,
    place: str,
    value: dict[str, Any],
    shape: Members,
) -> None:
    """Put the arguments of one place into `facts`. Raises RequestError as `_state` does."""
    for name, item in value.items():
        argument = operation.arguments.get((place, name), name)
        found: dict[str, Any] = {}
        taken_apart(argument, item, shape.members.get(name, ANY), found)
        _state(facts, found)


def _state(facts: dict[str, Any], found: dict[str, Any]) -> None:
    """The one way into `facts`. Raises RequestError where two values have one name.

    One of them would be judged, and both be sent.
    """
    if not facts.keys().isdisjoint(found):
        raise bad("Two parameters have one name: the operation does not list one of them.")
    facts |= found


def _access(operation: Operation, facts: dict[str, Any]) -> Access:
    """What is judged. Raises RequestError for facts that no access can state."""
    cost = {unit: price.of(facts) for unit, price in operation.cost.items()}
    try:
        return Access(
            tool=operation.tool,
            arguments=facts,
            attributes={"method": operation.method},
            cost={unit: amount for unit, amount in cost.items() if amount is not None},
        )
    except (TypeError, ValueError):
        raise bad("The request has a name or a text that cannot be judged.") from None


def path_of(raw: bytes, query: bytes) -> bytes:
    """The path of a request, where its target is one. Raises RequestError."""
    if not is_path(raw, query):
        raise bad("The target of a request must be a path.")
    return raw

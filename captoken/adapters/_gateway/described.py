"""Operations from an OpenAPI description, 3.0 or 3.1: read once, at start, into a service's table.

    operations, left_out = described(document, "github")

What it cannot say exactly it leaves out, with the reason: such a request is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from captoken._format.extras import extra
from captoken._format.spelling import shown
from captoken._language.bounds import DESCRIPTION_BYTES
from captoken.adapters._gateway.operations import (
    FORM,
    JSON,
    METHODS,
    Operation,
    path_shapes,
    template_of,
)
from captoken.adapters._gateway.shapes import (
    ANY,
    DEEPEST,
    Listed,
    Members,
    Scalar,
    Shape,
)

# Schemas of one operation. One that refers to itself many times would have no end.
_SCHEMAS = 20_000

# In a description these are no parameters (OpenAPI, "Parameter Object").
_IGNORED = ("content-type", "authorization")

_SCALARS = ("string", "integer", "number", "boolean")


def load(path: str) -> dict[str, Any]:
    """The description in a file: JSON, or YAML of at most 1 MB. Raises ValueError, OSError."""
    raw = Path(path).read_bytes()
    if path.endswith((".yaml", ".yml")):
        if len(raw) > DESCRIPTION_BYTES:
            raise ValueError(
                f"the description is YAML of more than {DESCRIPTION_BYTES} bytes: use JSON"
            )
        with extra("gateway"):
            import yaml
        try:
            found: Any = yaml.safe_load(raw)
        except yaml.YAMLError:
            raise ValueError("the description is not valid YAML") from None
    else:
        try:
            found = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ValueError("the description is not valid JSON") from None
    document: dict[str, Any] = found if isinstance(found, dict) else {}
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith(("3.0", "3.1")):
        raise ValueError("the description must be OpenAPI 3.0 or 3.1")
    return document


def described(
    document: dict[str, Any], service: str, lists: str
) -> tuple[list[Operation], dict[str, str]]:
    """The operations of a description, and why others of it are left out, by request."""
    reader = _Reader(document, service, lists)
    found: list[Operation] = []
    left_out: dict[str, str] = {}
    for path, item in _items(document.get("paths")):
        for method in METHODS:
            if not isinstance(item.get(method.lower()), dict):
                continue
            try:
                found.append(reader.operation(method, path, item))
            except ValueError as error:
                left_out[f"{method} {path}"] = str(error)
            except (AttributeError, KeyError, RecursionError, TypeError):
                left_out[f"{method} {path}"] = "a part of it is not as OpenAPI has it"
    many = Counter(each.tool for each in found)
    for each in found:
        if many[each.tool] > 1:
            left_out[each.request] = "others have its operationId as well: name it in the file"
    return [each for each in found if many[each.tool] == 1], left_out


def _items(table: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a table of the description that are tables themselves."""
    if isinstance(table, dict):
        for key, value in table.items():
            if isinstance(value, dict):
                yield str(key), value


class _Reader:
    """Reads operations of one description."""

    def __init__(self, document: dict[str, Any], service: str, lists: str) -> None:
        self._document = document
        self._service = service
        self._lists = lists
        self._left = _SCHEMAS

    def operation(self, method: str, path: str, item: dict[str, Any]) -> Operation:
        """One operation. Raises ValueError for what cannot be said exactly."""
        stated = item[method.lower()]
        called = stated.get("operationId")
        if not isinstance(called, str):
            raise ValueError("it has no operationId: give it a name in the file")
        template = template_of(path)
        self._left = _SCHEMAS
        places: dict[str, dict[str, Shape]] = {"path": {}, "query": {}, "header": {}, "cookie": {}}
        for parameter in [*item.get("parameters", ()), *stated.get("parameters", ())]:
            one = self._resolved(parameter)
            style = one.get("style")
            if style not in (None, "simple", "form", "deepObject"):
                raise ValueError(
                    f"the gateway cannot write parameter {shown(one['name'])} in the style "
                    f"{shown(style)}"
                )
            shape = self._shape(one.get("schema"), 0)
            in_one = one["in"] == "query" and one.get("explode") is False
            if in_one and not isinstance(shape, Scalar):
                raise ValueError(
                    f"parameter {shown(one['name'])} puts several values into one field, which the "
                    "gateway cannot write"
                )
            if one["in"] != "header" or one["name"].lower() not in _IGNORED:
                places[one["in"]][one["name"]] = shape
        own = {n: s for n, s in places["path"].items() if isinstance(s, Scalar)}
        body, opaque = self._body(stated.get("requestBody"))
        return Operation(
            tool=f"{self._service}.{called.replace('/', '.')}",
            method=method,
            template=template,
            path=path_shapes(template, own),
            query=Members(places["query"]),
            headers={name.lower(): name for name in places["header"]},
            body=body,
            opaque=opaque,
            lists=self._lists,
        )

    def _body(self, stated: Any) -> tuple[dict[str, Shape], tuple[str, ...]]:
        """Return the shapes that a body may have.

        A media type that the gateway cannot read is left out.
        """
        if stated is None:
            return {}, ()
        shapes: dict[str, Shape] = {}
        for kind, content in _items(self._resolved(stated).get("content")):
            if kind.partition(";")[0] in (JSON, FORM):
                shape = self._shape(content.get("schema"), 0)
                if isinstance(shape, Members) or kind.startswith(JSON):
                    shapes[kind.partition(";")[0]] = shape
        return shapes, ()

    def _resolved(self, schema: Any) -> dict[str, Any]:
        """Return the table, or the table that it refers to.

        It may only refer into this description.
        """
        for _ in range(DEEPEST):
            if not isinstance(schema, dict):
                break
            if "$ref" not in schema:
                return schema
            schema = self._at(schema["$ref"])
        raise ValueError("it refers to something that is not in the description")

    def _at(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise ValueError("it refers to another document")
        found: Any = self._document
        for step in reference[2:].split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def _shape(self, stated: Any, depth: int) -> Shape:
        """The shape of a schema. What is not plain is one argument, which only `any` permits."""
        if stated is None or depth > DEEPEST:
            return ANY
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it has more than {_SCHEMAS} schemas")
        schema = self._resolved(stated)
        if not schema.keys().isdisjoint(("oneOf", "anyOf", "allOf", "not")):
            return ANY
        kinds = schema.get("type")
        if isinstance(kinds, list):
            plain = [kind for kind in kinds if kind != "null"]
            kinds = plain[0] if len(plain) == 1 else None
        if kinds == "array":
            return Listed(self._shape(schema.get("items"), depth))
        properties = schema.get("properties")
        if kinds in ("object", None) and isinstance(properties, dict) and properties:
            if any("." in name for name in properties):
                return ANY
            members = {name: self._shape(each, depth + 1) for name, each in properties.items()}
            return Members(members)
        if schema.get("format") == "int64" and kinds == "integer":
            return Scalar("int64")
        return Scalar(kinds) if kinds in _SCALARS else ANY

"""The file of a gateway: what it means, what it is told where it is wrong, and what comes with the package and from descriptions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from captoken import Access, Issuer
from captoken._format.encoding import MAX_INTEGER
from captoken._format.errors import StoreError
from captoken.adapters._gateway import strict, written
from captoken.adapters._gateway.checking import unready, unstated
from captoken.adapters._gateway.described import load
from captoken.adapters._gateway.opening import Configuration, configured, stores
from captoken.adapters._gateway.operations import Operation, Price, Table, made, path_shapes, template_of
from captoken.adapters._gateway.reading import NoOperation
from captoken.adapters._gateway.shapes import Listed, Members, Scalar, shape_of, taken_apart
from captoken.adapters._gateway.stated import SHIPPED, StatedCredential, StatedGateway, StatedOperation, StatedService
from captoken.adapters._http.exchange import RequestError
from captoken.control import Operator
from captoken.keys import OperatorKey
from captoken.keys.keyring import Keyring
from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore, SQLiteSnapshots

WHOLE = """\
version = 1

[gateway]
keyring = "keyring.json"
ledger = "used.db"

[service.shop]
url = "https://shop.example/api/v2/"
credential = "env:SHOP_KEY"

[service.shop.operations."orders.get"]
request = "GET /orders/{id}"

[service.shop.operations."orders.create"]
request = "POST /orders/{id}"
query = { id = "integer", dry = "boolean" }
json = { id = "integer", total = "integer", items = [{ sku = "string" }] }
cost = { eur_cents = { argument = "total", times = 2 }, orders = 1 }
"""


def file(folder: Path, text: str = WHOLE) -> str:
    (folder / "gateway.toml").write_text(text)
    return str(folder / "gateway.toml")


@pytest.fixture
def shop(tmp_path: Path) -> Configuration:
    return configured(file(tmp_path))


def test_a_file_says_which_tools_there_are_and_what_they_cost(shop: Configuration) -> None:
    table = shop.services["shop"].table
    assert {tool: each.parameters() for tool, each in table.operations.items()} == {
        "shop.orders.get": {"id": "string"},
        "shop.orders.create": {"path.id": "string", "query.id": "integer", "dry": "boolean", "body.id": "integer", "total": "integer", "items.sku": "list of string"},
    }
    prices = table.operations["shop.orders.create"].cost
    assert [price.told(unit) for unit, price in prices.items()] == ["2 * total eur_cents", "1 orders"]
    assert Price(argument="total").told("eur_cents") == "total eur_cents" and Price().told("eur_cents") == "0 eur_cents"
    reading = shop.services["shop"].reading
    began = reading.begin("POST", b"/orders/7", [(b"content-type", b"application/json")])
    asked = reading.complete(began, b"id=8", b'{"id":9,"total":500,"items":[{"sku":"a"},{"sku":"b"}]}')
    assert asked.access.arguments == {"path.id": "7", "query.id": 8, "body.id": 9, "total": 500, "items.sku": ["a", "b"]}
    assert asked.access.cost == {"eur_cents": 1000, "orders": 1} and asked.access.attributes == {"method": "POST"}
    assert asked.outgoing.target == "/api/v2/orders/7?id=8" and asked.outgoing.body == b'{"id":9,"total":500,"items":[{"sku":"a"},{"sku":"b"}]}'
    unstated = reading.complete(reading.begin("POST", b"/orders/7", [(b"content-type", b"application/json")]), b"", b'{"items":[]}')
    assert unstated.access.cost == {"orders": 1}


# What is written wrongly, and what is said: the line, and what was meant.
WRONG = {
    ('keyring = "keyring.json"', 'keyrng = "keyring.json"'): "line 4: gateway has an unknown key 'keyrng': did you mean keyring?",
    ('credential = "env:SHOP_KEY"', 'credentials = "env:SHOP_KEY"'): "line 9: service.shop has an unknown key 'credentials': did you mean credential?",
    ('credential = "env:SHOP_KEY"', 'credential = { from = "env:A", at = "bearer" }'): "line 9: service.shop.credential has an unknown key 'at': it has as, ask, ca, client, from, life, refresh, secret, subject, url, user",
    ('credential = "env:SHOP_KEY"', 'credential = "sk_live_1"'): "line 9: service.shop.credential: a credential is env:NAME, file:PATH, keyring:SERVICE/USER, openbao:PATH#FIELD or oauth:URL, and never the key itself",
    ('credential = "env:SHOP_KEY"', 'credential = { from = "env:A", as = "cookie" }'): "line 9: service.shop.credential: write a credential as bearer",
    ('url = "https://shop.example/api/v2/"', "url = 7"): "line 8: service.shop.url must be a str, not int",
    ('url = "https://shop.example/api/v2/"', 'url = "http://shop.example"'): "line 8: service.shop.url: a service's address must be https://",
    ('url = "https://shop.example/api/v2/"', 'url = "https://shop.example/a/../b"'): "line 8: service.shop.url: The path has a dot segment.",
    ('url = "https://shop.example/api/v2/"', ""): "line 7: service.shop lacks the key url",
    ('ledger = "used.db"', "streams = true"): "line 5: gateway.streams must be an int, not bool",
    ('ledger = "used.db"', 'listen = "8790"'): "line 5: gateway.listen must be HOST:PORT",
    ("service.shop", "service.Shop"): "line 7: service.Shop: the name of a service",
    ("service.shop", 'service."7x"'): "line 7: service.7x: the name of a service",
    ('credential = "env:SHOP_KEY"', 'credential = "env:A"\ntoken = "cookie"'): "line 10: service.shop.token: tokens must be bearer",
    ('credential = "env:SHOP_KEY"', 'credential = "env:A"\nuses = "strype"'): "line 10: service.shop.uses must be one of github, s3, stripe",
    ('credential = "env:SHOP_KEY"', 'credential = "env:A"\nheaders = { "Cookie" = "drop" }'): "line 10: service.shop.headers: Cookie is reserved for the gateway",
    ('credential = "env:SHOP_KEY"', 'credential = "env:A"\nheaders = { "A b" = "drop" }'): "line 10: service.shop.headers: 'A b' is not the name of a header",
    ('credential = "env:SHOP_KEY"', 'credential = "env:A"\nheaders = { "X-A" = "a\\r\\nb" }'): "line 10: service.shop.headers: 'X-A' is not the name of a header",
    ('credential = "env:SHOP_KEY"', 'credential = { from = "env:A", as = "query:dry" }'): "line 9: service.shop.credential: an operation puts an argument where the key",
    ('credential = "env:SHOP_KEY"', 'credential = { from = "env:A", as = "header:X-Key" }\nheaders = { X-Key = "argument" }'): "service.shop.credential: an operation puts an argument where the key",
    ('credential = "env:SHOP_KEY"', 'credential = "env:A"\ndescription = "none.json"'): "line 10: service.shop.description: ",
    ('"GET /orders/{id}"', '"FETCH /orders/{id}"'): "line 12: service.shop.operations.\"orders.get\": request must be a method and a path",
    ('"GET /orders/{id}"', '"GET orders/{id}"'): "line 12: service.shop.operations.\"orders.get\": request: a path must begin with a slash",
    ('"GET /orders/{id}"', '"GET /orders//{id}"'): "has an empty segment",
    ('"GET /orders/{id}"', '"GET /orders/x-{id}"'): "a parameter of the path must be a whole segment",
    ('"GET /orders/{id}"', '"POST /orders/{order}"'): "shop.orders.get and shop.orders.create describe the same request",
    ('request = "GET /orders/{id}"', 'cost = { a = 1 }'): "line 11: service.shop.operations.\"orders.get\": no description has this operation",
    ('request = "GET /orders/{id}"', 'request = "GET /orders/{id}"\npath = { id = "any" }'): "path.id must be string, integer",
    ('request = "GET /orders/{id}"', 'request = "GET /orders/{id}/x"\npath = { id = "segments" }'): "a parameter of type segments must end the path",
    ('request = "GET /orders/{id}"', 'request = "GET /orders/{id}"\npath = { other = "string" }'): "path must name exactly these parameters: id",
    ('total = "integer"', 'total = "int"'): "json.total: a type must be one of string, integer",
    ('total = "integer"', '"a.b" = "integer"'): "must not contain a full stop",
    ("[{ sku", '["string", { sku'): "json.items: a type must be one of",
    ('argument = "total"', 'argument = "totl"'): "line 18: service.shop.operations.\"orders.create\": cost.eur_cents names 'totl', which is not one of its arguments: path.id",
    ("orders = 1", "orders = -1"): "cost.orders must be 0 or more",
    ("orders = 1", '"a b" = 1'): "a unit",
    ('ledger = "used.db"', 'overlay = "overlay.db"'): "line 5: gateway.overlay needs the keys of its signers: write operators = [PUBLIC], as `captoken keygen public",
    ('ledger = "used.db"', 'operators = ["me"]'): "line 5: gateway.operators: ",
    ('ledger = "used.db"', 'trail_key = "audit.json"'): "line 5: gateway.trail_key signs the trail",
    ('ledger = "used.db"', "trail_every = 0"): "line 5: gateway.trail_every must be 1 or more",
    ('ledger = "used.db"', "timeout = -1"): "line 5: gateway.timeout must be 1 or more",
    ("version = 1", "version = 2"): "line 1: version must be one of 1, not 2",
    ("[gateway]", "[gateway"): "this is not TOML: look at line 3",
}  # fmt: skip


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change[1][:40])
def test_a_file_that_is_wrong_says_where_and_what_was_meant(tmp_path: Path, change: tuple[str, str]) -> None:
    assert change[0] in WHOLE
    with pytest.raises(ValueError) as told:
        configured(file(tmp_path, WHOLE.replace(*change)))
    assert str(told.value).startswith(str(tmp_path / "gateway.toml")) and WRONG[change] in str(told.value)


def test_stores_are_opened_by_what_the_file_says(tmp_path: Path) -> None:
    keyring = Keyring.generate()
    keyring.save(tmp_path / "keyring.json")
    found = configured(file(tmp_path, WHOLE.replace('"used.db"', '"sqlite:used.db"\nreplays = "memory:"\ntrail = "trail.jsonl"')))
    with pytest.raises(Exception, match="there is no store here"), stores(found):
        pass
    with stores(found, create=True) as opened:
        assert isinstance(opened.ledger, SQLiteLedger) and opened.verifier("shop").audiences == ("shop",)
    with stores(found) as again:
        assert isinstance(again.ledger, SQLiteLedger)


def test_a_dry_run_stands_beside_a_gateway_that_runs(tmp_path: Path) -> None:
    """It opens nothing to write: neither the trail, which has one writer, nor the ledger."""
    Keyring.generate().save(tmp_path / "keyring.json")
    text = WHOLE.replace('"used.db"', '"used.db"\nreplays = "proofs.db"\ntrail = "trail.jsonl"')
    found = configured(file(tmp_path, text))
    with pytest.raises(StoreError, match="there is no store here"), stores(found, readonly=True):
        pass
    assert not list(tmp_path.glob("*.db")) and not (tmp_path / "trail.jsonl").exists()
    with stores(found, create=True), stores(found, readonly=True) as beside:
        assert not beside.verifier("shop").blocking.explain("cap1_", None)
        with pytest.raises(StoreError, match="readonly=True, and cannot be written"):
            beside.ledger.settle(b"0" * 32, None, 0)


# --- operations -----------------------------------------------------------------------------------


def operation(tool: str, method: str, path: str, **shapes: str) -> Operation:
    template = template_of(path)
    return made(Operation(tool=tool, method=method, template=template, path=path_shapes(template, {name: Scalar(kind) for name, kind in shapes.items()})))


def test_of_templates_that_match_the_literal_one_is_meant() -> None:
    table = Table(
        [
            operation("s.any", "GET", "/a/{x}/c"),
            operation("s.one", "GET", "/a/b/{y}"),
            operation("s.both", "GET", "/a/b/c"),
            operation("s.many", "GET", "/a/{rest}", rest="segments"),
            operation("s.root", "GET", "/"),
            operation("s.slash", "GET", "/a/"),
        ]
    )

    def find(path: str) -> tuple[str, dict[str, str]] | None:
        found = table.find("GET", path[1:].split("/"))
        return None if found is None else (found[0].tool, found[1])

    assert find("/a/b/c") == ("s.both", {}) and find("/a/b/d") == ("s.one", {"y": "d"}) and find("/a/x/c") == ("s.any", {"x": "x"})
    assert find("/a/x/d") == ("s.many", {"rest": "/x/d"}) and find("/a/x") == ("s.many", {"rest": "/x"}) and find("/") == ("s.root", {})
    assert find("/a/") == ("s.slash", {}) and find("/b") is None and find("/a/x/") is None and table.find("POST", ["a", "b", "c"]) is None


def test_two_values_never_give_the_same_arguments() -> None:
    """What a list of objects leaves out and what is null in it are told apart, and so is what is empty."""
    shape = shape_of({"items": [{"price": "string", "at": {"city": "string"}}], "to": {"city": "string"}}, "x")
    values: list[Any] = [
        {}, {"items": []}, {"items": None}, {"items": [{}]}, {"items": [{"price": None}]}, {"items": [{"price": "1"}, {"price": None}]}, {"items": [{"price": "1"}, {}]},
        {"items": [{"price": "1"}, {"at": {"city": "x"}}]}, {"items": [{"price": "1"}, {"at": {}}]}, {"items": [{"price": "1", "at": {"city": "x"}}]}, {"to": {}}, {"to": None},
        {"to": {"city": None}}, {"to": {"city": "x"}}, {"items": [{"price": "1"}]}, {"items": [{"price": "1"}, {"price": "2"}]}, {"items": [{"at": {"city": None}}]}, {"items": [{"at": None}]},
    ]  # fmt: skip
    seen = []
    for value in values:
        facts: dict[str, Any] = {}
        assert isinstance(shape, Members)
        strict.fitting(value, shape, "")
        for name, item in value.items():
            taken_apart(name, item, shape.members[name], facts)
        seen.append(json.dumps(facts, sort_keys=True))
    assert len(set(seen)) == len(values)
    assert json.loads(seen[7]) == {"items.price": ["1", None], "items.at.city": [None, "x"]}


def test_what_is_read_is_written_and_read_again() -> None:
    lists = shape_of({"a": ["string"], "b": [{"c": "integer"}], "d": "any", "e": "number"}, "x")
    assert isinstance(lists, Members)
    for way, raw in (("indices", b"a[0]=x&a[1]=%26&b[0][c]=1&b[1][c]=2&d[k][l]=v&e=0.5"), ("brackets", b"a[]=x&a[]=y&b[0][c]=1&e=7")):
        value = strict.fields_value(raw, lists, way)
        assert strict.fields_value(written.fields(value, way).encode(), lists, way) == value
    assert written.path(["a b", "ä", "."[:0] + "x;y"]) == "/a%20b/%C3%A4/x%3By"
    assert strict.json_value(written.json_body({"a": [1, 0.5, "\u00e4\x00", None, True]})) == {"a": [1, 0.5, "\u00e4\x00", None, True]}


def test_where_the_gateway_writes_the_key_no_client_writes_in_whatever_case(tmp_path: Path) -> None:
    text = WHOLE.replace('"env:SHOP_KEY"', '{ from = "env:K", as = "query:key" }') + "more = true\n"
    reading = configured(file(tmp_path, text)).services["shop"].reading
    began = reading.begin("POST", b"/orders/7", [])
    assert reading.complete(began, b"other=1", b"").access.arguments == {"path.id": "7", "other": "1"}
    for query in (b"key=1", b"KEY=1", b"%6bey=1", b"\xe2\x84\xaaey=1".replace(b"\xe2\x84\xaa", b"%E2%84%AA")):
        with pytest.raises(RequestError, match="the gateway itself writes"):
            reading.complete(began, query, b"")


def test_int64_has_its_own_bound_and_integers_those_of_all_readers() -> None:
    strict.fitting(2**63 - 1, Scalar("int64"), "x")
    strict.fitting(MAX_INTEGER, Scalar("integer"), "x")
    for value, kind in ((2**63, "int64"), (MAX_INTEGER + 1, "integer"), (MAX_INTEGER + 1, "any"), (MAX_INTEGER + 1, "number"), (True, "integer")):
        with pytest.raises(RequestError):
            strict.fitting(value, Scalar(kind), "x")


# --- what is described ----------------------------------------------------------------------------

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "paths": {
        "/a/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {"operationId": "a/get", "parameters": [{"$ref": "#/components/parameters/page"}, {"name": "X-Trace", "in": "header", "schema": {"type": "string"}}]},
            "put": {
                "operationId": "a/put",
                "requestBody": {"$ref": "#/components/requestBodies/a"},
            },
            "delete": {"operationId": "a/get"},
            "head": {"operationId": "a/look", "parameters": [{"$ref": "#/components/parameters/page"}]},
            "patch": {},
        },
        "/b/{x}.json": {"get": {"operationId": "b", "parameters": [{"name": "x", "in": "path"}]}},
        "/c": {"get": {"operationId": "c", "parameters": [{"$ref": "other.json#/x"}]}, "post": {"operationId": "d", "parameters": [{"name": "m", "in": "query", "style": "pipeDelimited"}]}},
    },
    "components": {
        "parameters": {"page": {"name": "page", "in": "query", "schema": {"type": ["integer", "null"]}}},
        "requestBodies": {
            "a": {
                "content": {
                    "application/json; charset=utf-8": {"schema": {"$ref": "#/components/schemas/a"}},
                    "application/xml": {"schema": {"type": "string"}},
                }
            }
        },
        "schemas": {
            "a": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "big": {"type": "integer", "format": "int64"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "self": {"$ref": "#/components/schemas/a"},
                    "either": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
                    "dotted": {"type": "object", "properties": {"a.b": {"type": "string"}}},
                    "free": {"type": "object", "additionalProperties": True},
                    "rows": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "number"}}}},
                },
            }
        },
    },
}


def test_a_description_gives_operations_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "api.json").write_text(json.dumps(DOCUMENT))
    text = 'version = 1\n[gateway]\nkeyring = "k"\n[service.s]\nurl = "https://s.example"\ncredential = "env:K"\ndescription = "api.json"\n'
    _write_twice(tmp_path)
    twice = configured(file(tmp_path, text.replace("api.json", "twice.json"))).services["s"]
    assert set(twice.table.operations) == {"s.x", "s.y"} and twice.left_out == {"GET /{c}": "s.y and s.z describe the same request"}
    found = configured(file(tmp_path, text + '[service.s.operations."a.put"]\ncost = { writes = 1 }\nmore = true\n')).services["s"]
    assert set(found.table.operations) == {"s.a.put", "s.a.look"}
    parameters = found.table.operations["s.a.put"].parameters()
    assert parameters["id"] == "integer" and parameters["name"] == "string" and parameters["big"] == "int64" and parameters["rows.n"] == "list of number"
    assert parameters["either"] == parameters["dotted"] == parameters["free"] == "any" and parameters["tags"] == "list of string"
    assert "self.self.name" in parameters and found.table.operations["s.a.put"].cost
    assert found.table.operations["s.a.look"].parameters() == {"id": "integer", "page": "integer"}
    assert found.left_out == {
        "PATCH /a/{id}": "it has no operationId: give it a name in the file",
        "GET /b/{x}.json": "a parameter of the path must be a whole segment",
        "GET /c": "it refers to another document",
        "POST /c": "the gateway cannot write parameter 'm' in the style 'pipeDelimited'",
        "GET /a/{id}": "others have its operationId as well: name it in the file",
        "DELETE /a/{id}": "others have its operationId as well: name it in the file",
    }


def _write_twice(folder: Path) -> None:
    """The same request under two names, which no table takes."""
    paths = {"/a": {"get": {"operationId": "x"}}, "/{b}": {"get": {"operationId": "y", "parameters": [{"name": "b", "in": "path"}]}}, "/{c}": {"get": {"operationId": "z", "parameters": [{"name": "c", "in": "path"}]}}}
    (folder / "twice.json").write_text(json.dumps({"openapi": "3.0.3", "paths": paths}))


def test_yaml_is_read_up_to_its_bound(tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "api.yaml"
    path.write_text(yaml.safe_dump(DOCUMENT))
    assert load(str(path)) == DOCUMENT
    path.write_text("a: " + "b" * (1 << 20))
    with pytest.raises(ValueError, match="YAML of more than"):
        load(str(path))
    for text, name in (("{", "x.json"), ("a: [", "x.yaml"), ("[]", "y.json"), ('{"openapi":"2.0"}', "z.json"), ("!!python/object/apply:os.system [x]", "w.yaml")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError):
            load(str(tmp_path / name))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_file_of_the_package_is_whole(tmp_path: Path, name: str) -> None:
    text = f'version = 1\n[gateway]\nkeyring = "k"\n[service.it]\nuses = "{name}"\ncredential = "env:K"\n'
    service = configured(file(tmp_path, text)).services["it"]
    least = {"s3": 6}.get(name, 21)
    assert len(service.table.operations) >= least and not service.left_out and service.url.startswith("https://")
    # What the file says itself stands over it, and beside it.
    own = '[service.it.operations."mine"]\nrequest = "GET /mine"\n[service.it.headers]\nX-Own = "drop"\n'
    assert "it.mine" in configured(file(tmp_path, text + own)).services["it"].table.operations


# What clients of these services send, as they are: method, path, headers, body; and what is judged.
STOCK: list[tuple[str, str, str, dict[str, str], bytes, str, dict[str, Any]]] = [
    ("stripe", "POST", "/v1/refunds", {"Stripe-Version": "2025-01-01", "Idempotency-Key": "k", "X-Stripe-Client-User-Agent": "{}", "User-Agent": "Stripe/v1 PythonBindings/12", "Content-Type": "application/x-www-form-urlencoded"},
     b"charge=ch_1&amount=500&metadata[order]=7&expand[0]=charge", "stripe.refunds.create", {"charge": "ch_1", "amount": 500, "metadata": {"order": "7"}, "expand": ["charge"]}),
    ("stripe", "POST", "/v1/refunds", {"Stripe-Account": "acct_1", "Content-Type": "application/x-www-form-urlencoded"}, b"charge=ch_1", "stripe.refunds.create", {"charge": "ch_1", "Stripe-Account": "acct_1"}),
    ("stripe", "GET", "/v1/charges?limit=3&created[gte]=1700000000", {}, b"", "stripe.charges.list", {"limit": 3, "created": {"gte": "1700000000"}}),
    ("github", "GET", "/repos/o/r/contents/src/a.py?ref=main", {"Accept": "application/vnd.github.v3+json", "X-GitHub-Api-Version": "2022-11-28"}, b"", "github.repos.get-content", {"owner": "o", "repo": "r", "path": "/src/a.py", "ref": "main"}),
    ("github", "POST", "/repos/o/r/issues", {"Content-Type": "application/json; charset=utf-8"}, b'{"title":"t","labels":["bug"]}', "github.issues.create", {"owner": "o", "repo": "r", "title": "t", "labels": ["bug"]}),
    ("github", "PUT", "/repos/o/r/pulls/7/merge", {"Content-Type": "application/json"}, b'{"merge_method":"squash"}', "github.pulls.merge", {"owner": "o", "repo": "r", "pull_number": 7, "merge_method": "squash"}),
]  # fmt: skip


@pytest.mark.parametrize("case", STOCK, ids=lambda case: f"{case[5]} {len(case[6])}")
def test_what_stock_clients_send_is_read(tmp_path: Path, case: Any) -> None:
    name, method, target, headers, body, tool, arguments = case
    text = f'version = 1\n[gateway]\nkeyring = "k"\n[service.{name}]\nuses = "{name}"\ncredential = "env:K"\n'
    reading = configured(file(tmp_path, text)).services[name].reading
    path, _, query = target.partition("?")
    lower = [(header.lower().encode(), value.encode()) for header, value in headers.items()]
    asked = reading.complete(reading.begin(method, path.encode(), lower), query.encode(), body)
    assert (asked.access.tool, asked.access.arguments) == (tool, arguments) and asked.outgoing.path == path
    with pytest.raises(NoOperation):
        reading.begin("DELETE", b"/v1/everything", [])


def test_lists_of_lists_are_one_argument() -> None:
    shape = shape_of([["string"]], "x")
    assert shape == Listed(Listed(Scalar("string")))
    with pytest.raises(ValueError, match="deeper than 8"):
        shape_of(json.loads('{"a":' * 9 + '"any"' + "}" * 9), "x")


# --- the page -------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[3] / "docs/gateway.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("above", "kind", "beside"),
    [("`[gateway]`", StatedGateway, set()), ("`[service.NAME]`", StatedService, {"uses"}), ("a `credential`", StatedCredential, set()), ("an operation", StatedOperation, set())],
    ids=["gateway", "service", "credential", "operation"],
)
def test_every_key_of_the_file_is_on_the_page(above: str, kind: type[msgspec.Struct], beside: set[str]) -> None:
    """With its default, where that is a value."""
    table = PAGE.partition(f"Keys of {above}")[2].partition("\n\n| key")[2].partition("\n\n")[0]
    rows = {cells[1].strip().strip("`"): cells[2].strip().strip("`") for line in table.splitlines()[2:] if len(cells := line.split("|")) > 3}
    fields = {each.encode_name: each for each in msgspec.structs.fields(kind)}
    assert rows.keys() == fields.keys() | beside
    for name, field in fields.items():
        assert (rows[name] == "required") is field.required
        if type(field.default) in (int, str, bool) and field.default:
            assert rows[name] == json.dumps(field.default), name


# --- what `gateway check` finds ---------------------------------------------------------------------


def test_what_a_gateway_would_be_refused_for_is_found_and_nothing_is_written(tmp_path: Path) -> None:
    operator, now = OperatorKey.generate(), int(time.time())
    keyring = Keyring.generate()
    keyring.save(tmp_path / "keyring.json")
    SQLiteLedger.create(tmp_path / "used.db").close()
    more = f'"used.db"\noverlay = "overlay.db"\noperators = ["{operator.public}"]\nreplays = "proofs.db"\ntrail = "trail.jsonl"'
    text = WHOLE.replace('"used.db"', more)
    found = configured(file(tmp_path, text))
    problems = unready(found)
    assert problems.keys() == {"gateway.overlay", "gateway.replays"} and all("there is no store here" in told for told in problems.values())
    SQLiteReplayStore.create(tmp_path / "proofs.db").close()
    snapshots = SQLiteSnapshots.create(tmp_path / "overlay.db")
    renews = f"`captoken operate --key OPERATOR.json --store '{tmp_path / 'overlay.db'}'` renews it"
    assert unready(found) == {"gateway.overlay": f"there is no snapshot yet: {renews}"}
    Operator(operator, snapshots, by="ops", clock=lambda: now - 90).renew()
    (told,) = unready(found).values()
    assert told.startswith("its newest snapshot is 1m") and renews in told
    Operator(operator, snapshots, by="ops").renew()
    snapshots.close()
    assert unready(found) == {} and not (tmp_path / "trail.jsonl").exists()
    other = configured(file(tmp_path, text.replace(operator.public, OperatorKey.generate().public)))
    assert unready(other).keys() == {"gateway.overlay"}
    served = configured(file(tmp_path, text.replace('[service.shop]', '[service.shop]\nca = "keyring.json"')))
    assert unready(served) == {"service.shop.ca": f"'{tmp_path / 'keyring.json'}' has no certificates: SSLError"}
    on_servers = configured(file(tmp_path, WHOLE.replace('"used.db"', '"postgresql://db.example/x"\nreplays = "memory:"')))
    assert unready(on_servers) == {}


def test_operations_without_a_cost_that_others_have_are_listed(shop: Configuration) -> None:
    assert dict(unstated(shop.services["shop"])) == {"eur_cents": ["shop.orders.get"], "orders": ["shop.orders.get"]}


@pytest.mark.parametrize("trail", ["", 'trail = "trail.jsonl"\n'])
@pytest.mark.parametrize("spans", [True, False])
def test_spans_are_made_of_decisions_where_the_file_says_so(spans: bool, trail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    keyring = Keyring.generate()
    keyring.save(tmp_path / "keyring.json")
    said = f'spans = {str(spans).lower()}\n{trail}'
    (tmp_path / "gateway.toml").write_text(f'version = 1\n[gateway]\nkeyring = "keyring.json"\n{said}[authzen.shop]\nsecret = "env:A"\n')
    token = Issuer(keyring).mint(subject="user:jane", agent="a", task="t", audience="shop", tools={"shop.read": {"to": {"in": ["secret"]}}}).present(audience="shop")
    with stores(configured(str(tmp_path / "gateway.toml"))) as parts:
        verifier = parts.verifier("shop").blocking
        codes = [verifier.check(token, Access(tool="shop.read", arguments={"to": to})).code for to in ("secret", "other")]
    assert codes == ["allowed", "argument"]
    found = kept.get_finished_spans()
    assert [dict(each.attributes or {}).get("captoken.code") for each in found] == (codes if spans else [])
    assert "secret" not in str([each.attributes for each in found])
    assert (tmp_path / "trail.jsonl").exists() is bool(trail)

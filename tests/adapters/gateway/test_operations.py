"""Names and segments that readers read in several ways are no value of an operation."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from captoken.adapters._gateway.described import described
from captoken.adapters._gateway.operations import FORM, JSON, Operation, Price, Table, made
from captoken.adapters._gateway.shapes import Members, Scalar
from captoken.adapters._http.exchange import RequestError
from captoken.adapters.gateway import configured
from tests.adapters.test_gateway_corners import AMOUNT, asked


@pytest.mark.parametrize("number", ["1e-99999999999999999999", "0e99999999999999999999", "1e99999999999999999999", "1e-400"])
def test_exponents_that_no_reader_can_hold_are_refused(number: str) -> None:
    for kind, body in ((JSON, f'{{"n":{number}}}'), (JSON, f'{{"m":[{number}]}}'), (FORM, f"n={number}")):
        with pytest.raises(RequestError, match="exactly"):
            asked({"body": {kind: AMOUNT}}, body=body.encode(), kind=kind)


def test_names_of_which_some_readers_make_another_name_are_refused() -> None:
    """PHP has an underscore for a space in a field's name."""
    refund = {"body": {FORM: Members({"refund_amount": Scalar("integer")}, more=True)}, "cost": {"cents": Price(argument="refund_amount")}}
    for name in ("refund%20amount", "refund+amount", "refund%C2%A0amount", "refund%20amount[a]"):
        with pytest.raises(RequestError, match="space"):
            asked(refund, body=f"refund_amount=1&{name}=900".encode(), kind=FORM)
    assert asked(refund, body=b"refund_amount=1&note[a%20b]=c%20d", kind=FORM).access.cost == {"cents": 1}


def test_many_names_that_are_not_declared_take_no_long_time() -> None:
    """A step for each pair of them would be 20 seconds."""
    names = dict.fromkeys((f"name_{number}" for number in range(12_000)), 1)
    began = time.process_time()
    assert asked({"body": {JSON: AMOUNT}}, body=json.dumps(names).encode(), kind=JSON).access.arguments == names
    assert time.process_time() - began < 5


def test_a_name_in_another_case_is_found_wherever_it_stands() -> None:
    for body in (b"other=1&Other=2", b"m[a]=1&m[A]=2", b"m[a][b]=1&m[a][B]=2", b"note[a][b]=1&note[a][%E1%BA%9E]=1&note[a][ss]=2"):
        with pytest.raises(RequestError, match="another case"):
            asked({"body": {FORM: AMOUNT}}, body=body, kind=FORM)
    assert asked({"body": {FORM: AMOUNT}}, body=b"note[a][b]=1&note[c][B]=2", kind=FORM).outgoing.body


def test_a_segment_that_differs_from_a_literal_one_by_case_alone_is_no_value() -> None:
    """A service that does not tell case apart would take it for the other operation."""
    both = [Operation(tool="s.any", method="GET", template=("a", "{x}"), path={"x": Scalar("string")}), Operation(tool="s.all", method="GET", template=("a", "export"))]
    table = Table(map(made, both))
    found = [table.find("GET", ["a", name]) for name in ("export", "exports", "Export", "EXPORT")]
    assert [each and each[0].tool for each in found] == ["s.all", "s.any", None, None]


OWN = ["Host", "content-length", "Transfer-Encoding", "Connection", "Content-Type", "Authorization", "Cookie", "Upgrade", "Expect", "TE", "Trailer", "Accept-Encoding", "Keep-Alive", "Proxy-Connection"]


@pytest.mark.parametrize("header", OWN)
def test_headers_of_the_gateway_itself_are_no_arguments(tmp_path: Path, header: str) -> None:
    text = 'version = 1\n[gateway]\nkeyring = "k"\n[service.s]\nurl = "https://s.example"\ncredential = { from = "env:K", as = "header:X-Key" }\n'
    own = text + '[service.s.operations.a]\nrequest = "GET /a"\n'
    for more, why in ((own + f'headers = ["{header}"]\n', "reserved for the gateway"), (text + f'headers = {{ {header} = "argument" }}\n', "reserved for the gateway"), (text + f'idempotency = "{header}"\n', "reserved for the gateway"), (text + 'idempotency = "X-Key"\n', "where the key"), (text + 'headers = { A = " b" }\n', "visible"), (text + "idempotency_seconds = 86400\n", "from 600 to 2592000"), (text + 'idempotency = "K"\nidempotency_seconds = 599\n', "from 600 to 2592000")):
        (tmp_path / "gateway.toml").write_text(more)
        with pytest.raises(ValueError, match=why):
            configured(str(tmp_path / "gateway.toml"))
    document = {"paths": {"/a": {"get": {"operationId": "a", "parameters": [{"name": header, "in": "header"}, {"name": "X-A", "in": "header"}]}}}}
    found, left_out = described(document, "s", "repeat")
    assert not left_out
    if header in ("Content-Type", "Authorization"):
        assert made(found[0]).headers == {"x-a": "X-A"}
    else:
        with pytest.raises(ValueError, match="reserved for the gateway"):
            made(found[0])


def test_a_description_that_refers_to_itself_many_times_is_left_out_soon() -> None:
    node = {"type": "object", "properties": {f"n{number}": {"$ref": "#/n"} for number in range(12)}}
    lists: dict[str, Any] = {"type": "array", "items": {"$ref": "#/l"}}
    paths = {f"/{name}": {"post": {"operationId": name, "requestBody": {"content": {JSON: {"schema": {"$ref": f"#/{name}"}}}}}} for name in "nl"}
    began = time.process_time()
    found, left_out = described({"paths": paths, "n": node, "l": lists}, "s", "repeat")
    assert not found and set(left_out) == {"POST /n", "POST /l"} and time.process_time() - began < 2

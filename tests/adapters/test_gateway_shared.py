"""Two gateways with one ledger, on a real PostgreSQL and a real Valkey: one budget, and nothing is sent when the server is gone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from captoken import Issuer, Keyring
from captoken.adapters.gateway import opened
from captoken.cli.app import run
from captoken.stores.postgres import PostgresLedger, create_tables
from captoken.stores.valkey import ValkeyLedger
from tests.adapters.serving import listening, origin_of, send, served
from tests.adapters.test_gateway import KEY, TABLE, Service
from tests.stores.servers import Valkey


@pytest.fixture
def valkey_of_its_own() -> Iterator[Valkey]:
    server = Valkey()
    yield server
    server.stop()


def made_on(kind: str, request: pytest.FixtureRequest) -> tuple[str, Any]:
    """The address of a new ledger, and its server."""
    if kind == "valkey":
        server = request.getfixturevalue("valkey_of_its_own")
        with closing(server.client()) as client:
            ValkeyLedger.create(client, shared=True, floor=0)
        return f"valkey://127.0.0.1:{server.port}/0", server
    server, name = request.getfixturevalue("postgres_server"), f"g{uuid4().hex}"
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        info = connection.info
        url = f"postgresql://{info.user}@{info.host}:{info.port}/{name}"
    with psycopg.connect(url) as connection:
        create_tables(connection)
    with closing(PostgresLedger.create(url, shared=True, floor=0)):
        return url, server


@pytest.mark.parametrize("kind", ["postgres", "valkey"])
def test_two_gateways_have_one_budget(tmp_path: Path, kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    url, server = made_on(kind, request)
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text(KEY)
    keyring = Keyring.generate()
    keyring.save(tmp_path / "keyring.json")
    service = Service()
    with ExitStack() as stack:
        behind = stack.enter_context(served(service, listening()))
        origins = []
        for number in range(2):
            listens = listening()
            more = f'ledger = "{url}"\nshared = true'
            file = tmp_path / f"gateway{number}.toml"
            file.write_text(TABLE.format(origin=origin_of(listens), url=behind, credential='"file:key"', token='"bearer"', more=more))
            gateway = stack.enter_context(opened(str(file)))
            origins.append(stack.enter_context(served(gateway, listens, lifespan="on")))
        root = Issuer(keyring).mint(subject="user:jane", agent="support", task="returns", audience="payments", tools={"payments.*": {}}, budget={"usd_cents": 1000})
        tokens = [root.delegate(to=f"sub-{number}").present(audience="payments") for number in range(11)]

        def refund(origin: str, token: str) -> int:
            headers = (f"Authorization: Bearer {token}", "Content-Type: application/x-www-form-urlencoded")
            return send(origin, "/payments/v1/refunds", *headers, method="POST", body=b"charge=ch_1&amount=500").status

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(refund, itertools.cycle(origins), tokens))
        assert sorted(answers) == [200] * 2 + [403] * 9 and len(service.requests) == 2
        # A dry run looks at the same ledger, and takes nothing of it.
        (tmp_path / "token").write_text(tokens[0])
        asked = ["gateway", "explain", str(file), "--token-file", str(tmp_path / "token"), "--json", "POST", "/payments/v1/refunds", "-d", "charge=ch_1", "-d"]
        for amount, code in (("amount=500", "budget_exhausted"), ("amount=0", "allowed")):
            capsys.readouterr()
            run([*asked, amount])
            told = capsys.readouterr()
            assert json.loads(told.out)["code"] == code, told
        if kind == "valkey":
            server.kill()
            assert [refund(origin, tokens[0]) for origin in origins] == [503, 503]
            assert len(service.requests) == 2

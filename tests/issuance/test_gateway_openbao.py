"""The key of a service from OpenBao, a real server: read at use, replaced while the gateway runs, and nothing without it. `-m openbao` runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from captoken.adapters._gateway.credentials import Unavailable
from captoken.adapters._gateway.issued import issued_of
from captoken.adapters._gateway.stated import StatedCredential
from captoken.keys.files import write_private
from tests.adapters.test_gateway import gateway

from .openbao import Bao, server

pytestmark = pytest.mark.openbao

READS = 'path "secret/data/payments" { capabilities = ["read"] }\npath "old/payments" { capabilities = ["read"] }'


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    with server(tmp_path_factory.mktemp("bao")) as made:
        made.told("sys/policies/acl/gateway", policy=READS)
        made.told("sys/mounts/old", type="kv", options={"version": "1"})
        yield made


def own_token(bao: Bao, folder: Path) -> str:
    """The gateway's login there, whose policy reads two secrets and no more."""
    bao.told("auth/userpass/users/gateway", password="gateway", token_policies="gateway")
    with bao.agent("another") as client:
        token: str = client.post("auth/userpass/login/gateway", json={"password": "gateway"}).json()["auth"]["client_token"]
    write_private(folder / "bao", token.encode())
    return token


@pytest.mark.parametrize("path", ["secret/data/payments", "old/payments"])
def test_a_key_is_read_at_use_and_nothing_is_sent_without_it(tmp_path: Path, bao: Bao, path: str, caplog: pytest.LogCaptureFixture) -> None:
    def put(key: str) -> None:
        bao.told(path, **({"data": {"key": key}} if "data" in path else {"key": key}))

    login = own_token(bao, tmp_path)
    put("sk_live_the_first_of_two")
    credential = f'{{ from = "openbao:{path}#key", url = "{bao.address}", secret = "file:bao", life = 0 }}'
    with gateway(tmp_path, credential=credential) as world:
        text = world.token(budget={"usd_cents": 1000}).present(audience="payments")
        assert world.refund(text, 10).status_code == 200
        put("sk_live_the_second_of_two")
        assert world.refund(text, 10).status_code == 200
        assert [each["headers"]["authorization"] for each in world.service.requests] == ["Bearer sk_live_the_first_of_two", "Bearer sk_live_the_second_of_two"]
        # Its login has ended: the key that was read before is not used on.
        bao.told("auth/token/revoke", token=login)
        answer = world.refund(text, 10)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5") and len(world.service.requests) == 2
        assert "answers 403" in caplog.text and not any(each in caplog.text + answer.text for each in ("sk_live", login))
        # The gateway has another login, and goes on without being started again.
        own_token(bao, tmp_path)
        assert world.refund(text, 980).status_code == 200
        bao.delete(path)
        assert world.refund(text, 0).status_code == 503 and "answers 404" in caplog.text


def test_what_is_no_key_is_none(tmp_path: Path, bao: Bao) -> None:
    own_token(bao, tmp_path)
    bao.told("old/payments", number=7, lines="a\nb", data="not nested")

    def read(source: str) -> str:
        stated = StatedCredential(source=source, url=bao.address, secret="file:bao")
        return asyncio.run(issued_of(stated, tmp_path).read()).text

    assert read("openbao:old/payments#data") == "not nested"
    for field, why in {"number": "has a character", "lines": "has a character", "key": "has no field key"}.items():
        with pytest.raises(Unavailable, match=why):
            read(f"openbao:old/payments#{field}")
    with pytest.raises(Unavailable, match="answers 403"):
        read("openbao:secret/data/others#key")

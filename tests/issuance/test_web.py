"""Requests of our own clients: to addresses that are safe, in bounded time, over the scheme that is named."""

from __future__ import annotations

from typing import Any

import pytest

from captoken.errors import IssuanceError
from captoken.issuance import web
from captoken.issuance.client import Issuance
from tests.adapters.serving import listening, origin_of
from tests.issuance.test_client import answering

from .signing import Provider


@pytest.mark.parametrize(
    "url",
    ["http://issuer.example", "https://issuer.example/", "issuer.example", "https://a@issuer.example", None, b"https://a"],
)
def test_an_address_over_which_no_assertion_should_go(url: Any) -> None:
    with pytest.raises(ValueError, match="an https address"):
        Issuance(url)


def test_an_answer_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 11.0])
    monkeypatch.setattr(web, "monotonic", lambda: next(times))
    with answering(200, b"{}") as (url, _), pytest.raises(IssuanceError, match="too slowly"):
        Issuance(url).start(actor=Provider().sign({"aud": url}))


def test_a_service_that_is_not_there_is_unavailable_and_https_is_spoken_to_https() -> None:
    socket = listening()
    url = origin_of(socket)
    socket.close()
    for address in (url, url.replace("http:", "https:")):
        asks = Issuance(address)
        for _ in range(2):
            with pytest.raises(IssuanceError, match="cannot be asked: ConnectError") as told:
                asks.start(actor=Provider().sign({"aud": address}))
            assert told.value.code == "temporarily_unavailable"

"""Origins have one spelling, which is that of browsers."""

from __future__ import annotations

import re

import pytest

from captoken.adapters.discharge_client import (
    origin_of,
)
from captoken.adapters.discharge_service import DischargeService
from captoken.discharge import Discharger
from tests.adapters.test_discharge_service import KEY, ORIGIN, PERSON


@pytest.mark.parametrize("origin", ["https://Approvals.example", "https://approvals.example/", "https://approvals.example:443"])
def test_an_origin_is_spelled_as_browsers_do(origin: str) -> None:
    """Else every form would be refused, for a difference that cannot be seen."""
    with pytest.raises(ValueError, match=re.escape("https://approvals.example")):
        DischargeService(Discharger(KEY, lambda need: PERSON), origin=origin)


def test_an_origin_has_one_spelling() -> None:
    assert origin_of("https://Approvals.example:443/x/") == ORIGIN
    assert origin_of("https://approvals.example:8443") == ORIGIN + ":8443"
    assert origin_of("http://localhost:80/x") == "http://localhost"
    assert origin_of("http://[::1]:8000") == "http://[::1]:8000"
    assert origin_of("http://127.0.0.1:443") == "http://127.0.0.1:443"

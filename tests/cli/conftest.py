"""What the tests of commands share: a folder with keys and texts, and a provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.test_cli import DISCHARGE, DISCHARGER, HOLDER, KEYRING, TICKET
from tests.issuance.providers import provider


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("cli")
    for name, keys in {"keyring.json": KEYRING, "holder.json": HOLDER, "discharger.json": DISCHARGER}.items():
        keys.save(made / name)
    (made / "ticket").write_text(TICKET.text)
    (made / "discharge").write_text(DISCHARGE.serialize())
    return made


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with provider() as one:
        yield one

"""The verifiers of an office: one for all tokens, and one for each server that has keys of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captoken.consent import ApproverKey
from captoken.errors import OverlayError
from captoken.keys import HolderKey
from captoken.local import Office
from captoken.testing import FixedClock
from tests.fixtures import SALES, WHO, tool
from tests.local.test_office import ASK, opened


def test_bound_tokens_are_taken_where_the_office_has_a_name(folder: Path) -> None:
    """Each proof is good once, and still is after the office was opened again."""
    key = HolderKey.generate()
    with Office.open(folder, audience="shop") as office:
        bound = office.mint(**WHO, **SALES, key=key.public)
        sent = bound.present(audience="shop", signer=key, request=ASK)
        assert [office.verifier.check(sent, ASK).code for _ in range(2)] == ["allowed", "replayed"]
        assert office.verifier.check(office.mint(**WHO, **SALES), ASK).code == "unaddressed"
    with Office.open(folder, audience="shop") as office:
        assert office.verifier.check(sent, ASK).code == "replayed"


def test_an_office_mints_for_servers_that_have_keys_of_their_own(folder: Path, clock: FixedClock) -> None:
    """One overlay, one trail and one ledger stand behind all of them; none takes what is another's."""
    servers: dict[str, Any] = {"sales-db": {**SALES, "uses": 1}, "mail": {"tools": {"send": {}}}}
    with opened(folder, clock, servers=["sales-db", "mail"]) as office:
        made = office.mint_set(**WHO, servers=servers, control="control-plane")
        sales, mail = office.verifier_for("sales-db"), office.verifier_for("mail")
        shown, sent = made.present(audience="sales-db"), made.present(audience="mail")
        assert sales.check(shown, ASK) and sales.check(shown, ASK).code == "budget_exhausted"
        assert mail.check(sent, tool("send")) and mail.check(shown, ASK).code == sales.check(sent, ASK).code == "unknown_key"
        office.revoke(token=made.token("mail").token_id, why="lost")
        assert mail.check(sent, tool("send")).code == "revoked"
        assert {hop.allowed for hop in office.audit().hops()} == {1}
        office.end_task(WHO["task"])
        with pytest.raises(OverlayError, match="new ones too"):
            office.mint_set(**WHO, servers=servers)
        for ask in (lambda: office.verifier_for("hr-db"), lambda: office.mint_set(**WHO, servers={"hr-db": SALES})):
            with pytest.raises(ValueError, match=r"this office has no server 'hr-db'.*it has mail, sales-db"):
                ask()
    with opened(folder, clock, servers="mail") as office:
        assert office.verifier_for("mail").audiences == ("mail",)
    with opened(folder, clock) as office, pytest.raises(ValueError, match="it has none"):
        office.verifier_for("mail")


def test_what_asks_for_consents_is_for_the_office_that_has_a_name(tmp_path: Path) -> None:
    jane = ApproverKey.generate()
    asks: Any = {"tools": {"mail.send": {}}, "consent": [{"by": jane.public, "for": {"tools": ["mail.send"]}}]}
    who: Any = {"subject": "user:jane", "agent": "a"}
    with Office.open(tmp_path / "named", audience="shop") as office:
        assert office.mint(**who, task="t", **asks).unverified.capability.json()["aud"] == ["shop"]
        assert office.mint(**who, task="u", **asks, audience="mail").unverified.capability.json()["aud"] == ["mail"]
        assert "aud" not in office.mint(**who, task="v", tools={"mail.send": {}}).unverified.capability.json()
    with Office.open(tmp_path / "nameless") as office, pytest.raises(ValueError, match="a consent is for one server"):
        office.mint(**who, task="t", **asks)

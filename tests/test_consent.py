"""Whoever says yes: an approver reads a request, and consents to it once, for so long (47.6, 47.8)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from captoken import Access, Denied, Issuer, Keyring, TokenFormatError, Verifier, current
from captoken._format.text import consent_of, read_consents
from captoken.consent import Approver, ApproverKey
from captoken.errors import ConsentError, KeyringError
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryReplayStore
from captoken.testing import FixedClock

CLOCK = FixedClock(1764061200)
KEYRING = Keyring.generate().for_audience("mail")
JANE, BOB = (Approver(ApproverKey.generate(), clock=CLOCK) for _ in range(2))
SEND = Access(tool="mail.send", arguments={"to": "ann@example.com"})
WHO = {"subject": "user:jane", "agent": "orchestrator", "task": "t"}


def asking(*people: Approver) -> list[dict[str, object]]:
    return [{"by": one.public, "for": {"tools": ["mail.*"]}} for one in people]


ROOT = Issuer(KEYRING, clock=CLOCK).mint(**WHO, tools={"mail.send": {}}, expires_in=3600, consent=asking(JANE))


def verifier() -> Verifier:
    return Verifier(KEYRING, "mail", replays=MemoryReplayStore(floor=0), clock=CLOCK)


def request(token=ROOT, access: Access = SEND) -> str:
    text = verifier().check(token.present(audience="mail"), access).request()
    assert text is not None
    return text


def test_a_yes_lets_the_very_call_through_once() -> None:
    server, consent = verifier(), JANE.consent(request())
    text = ROOT.present(audience="mail", consents=[consent])
    assert server.check(text, Access(tool="mail.send", arguments={"to": "bob@example.com"})).code == "consent_missing"
    assert [server.check(text, SEND).code for _ in range(2)] == ["allowed", "replayed"]


def test_what_is_allowed_has_nothing_to_ask() -> None:
    server = verifier()
    text = ROOT.present(audience="mail", consents=[JANE.consent(request())])
    assert server.check(text, SEND).request() is None
    assert server.check("cap1_x", SEND).request() is None
    assert server.check(ROOT.present(audience="mail"), Access(tool="other")).request() is None


def test_an_approver_reads_what_is_for_its_key_alone() -> None:
    assert JANE.read(request()).audience == "mail"
    for ask in (BOB.read, BOB.consent):
        with pytest.raises(ConsentError, match="the request is for another key"):
            ask(request())


def test_each_of_two_people_is_asked_and_each_of_two_links() -> None:
    """One request names all who have to consent; each gives what is asked of it."""
    both = Issuer(KEYRING, clock=CLOCK).mint(**WHO, tools={"mail.send": {}}, consent=asking(JANE, BOB))
    text = request(both)
    assert {by for by, _, _ in JANE.read(text).asks} == {JANE.public, BOB.public}
    given = [JANE.consent(text), BOB.consent(text)]
    assert verifier().check(both.present(audience="mail", consents=given[:1]), SEND).code == "consent_missing"
    assert verifier().check(both.present(audience="mail", consents=given), SEND)
    twice = ROOT.attenuate(consent=asking(JANE))
    consent = JANE.consent(request(twice))
    assert consent.count(".") == 1 and verifier().check(twice.present(audience="mail", consents=[consent]), SEND)


@pytest.mark.parametrize("life", [1, "5m", timedelta(hours=1), 3600])
def test_it_lives_as_long_as_is_said(life: object) -> None:
    consent = JANE.consent(request(), expires_in=life)  # type: ignore[arg-type]
    assert verifier().check(ROOT.present(audience="mail", consents=[consent]), SEND)


@pytest.mark.parametrize("life", [3601, 0, -1, "61m", timedelta(0)])
def test_it_lives_for_an_hour_at_most(life: object) -> None:
    with pytest.raises(ValueError, match=r"3600 seconds at most|at least one second"):
        JANE.consent(request(), expires_in=life)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        JANE.consent(request(), expires_in=True)


def test_a_clock_that_gives_no_time_signs_nothing() -> None:
    with pytest.raises(ValueError, match="the clock must give"):
        Approver(ApproverKey.from_bytes(JANE_SECRET), clock=lambda: -1).consent(request_of(JANE_SECRET))


JANE_SECRET = bytes(range(32))


def request_of(secret: bytes) -> str:
    own = Approver(ApproverKey.from_bytes(secret))
    return request(Issuer(KEYRING, clock=CLOCK).mint(**WHO, tools={"mail.send": {}}, consent=asking(own)))


@pytest.mark.parametrize("signature", [b"", b"x" * 63, "x" * 64])
def test_a_signer_that_gives_no_signature_is_refused(signature: object) -> None:
    class Bad:
        public = ApproverKey.from_bytes(JANE_SECRET).public

        def sign(self, message: bytes) -> object:
            return signature

    with pytest.raises(TypeError, match="a signer must return a signature of 64 bytes"):
        Approver(Bad(), clock=CLOCK).consent(request_of(JANE_SECRET))  # type: ignore[arg-type]


def test_a_key_of_another_purpose_is_no_approver_s(tmp_path: Path) -> None:
    HolderKey.generate().save(tmp_path / "holder.json")
    with pytest.raises(KeyringError, match="does not hold an approver key"):
        ApproverKey.load(tmp_path / "holder.json")
    key = ApproverKey.generate()
    key.save(tmp_path / "approver.json")
    assert ApproverKey.load(tmp_path / "approver.json").public == key.public == Approver(key).public
    assert key.public in repr(Approver(key))


# --- what a holder shows ---------------------------------------------------------------------------------------------


def test_what_is_held_is_shown_with_its_consents() -> None:
    """In `use`, and in what is handed to the next: whoever is handed the token has not got them."""
    server, consent = verifier(), JANE.consent(request())
    with current.use(ROOT, consents=[consent]) as held:
        assert server.check(held.present(audience="mail"), SEND).code == "allowed"
        with current.delegate(to="mailer") as child:
            assert server.check(child.present(audience="mail"), SEND).code == "consent_missing"


def test_of_two_consents_to_one_question_the_later_is_shown() -> None:
    """So one that is spent does not stand in the way of the next."""
    text = request()
    first = Approver(JANE._key, clock=lambda: CLOCK() - 10).consent(text)
    second = JANE.consent(text)
    for given in ([first, second], [second, first], [f"{first}.{second}"]):
        assert read_consents(given) == (consent_of(second),)
    server = verifier()
    grant = server.authenticate(ROOT.present(audience="mail", consents=[first]))
    assert [grant.check(SEND).code for _ in range(2)] == ["allowed", "replayed"]
    assert grant.with_consents([second]).check(SEND).code == "allowed"
    assert grant.check(SEND).code == "replayed", "a grant is a value: this one has the first alone"


def test_a_grant_takes_consents_that_came_later() -> None:
    grant = verifier().authenticate(ROOT.present(audience="mail"))
    denied = grant.check(SEND)
    consent = JANE.consent(denied.request() or "")
    assert grant.with_consents([consent]).check(SEND) and grant.with_consents([]).check(SEND).code == "consent_missing"
    assert grant.with_consents(iter([consent])).recheck([SEND]), "a look spends nothing, and knows of no store"


async def spent_by_the_other_face() -> list[str]:
    server = verifier().awaited
    grant = await server.authenticate(ROOT.present(audience="mail"))
    denied = await grant.check(SEND)
    given = grant.with_consents([JANE.consent(denied.request() or "")])
    return [denied.code, *[(await given.check(SEND)).code for _ in range(2)]]


def test_the_other_face_does_so_too() -> None:
    import asyncio

    assert asyncio.run(spent_by_the_other_face()) == ["consent_missing", "allowed", "replayed"]


@pytest.mark.parametrize("bad", ["", "cap1a_", "cap1a_" + "A" * 170, "cap1p_" + "A" * 171, "cap1a_" + "A" * 170 + "B"])
def test_what_is_no_consent_is_not_shown(bad: str) -> None:
    with pytest.raises(TokenFormatError):
        ROOT.present(audience="mail", consents=[bad])
    with pytest.raises(TokenFormatError):
        current.use(ROOT, consents=[bad])
    with pytest.raises(TypeError, match="a list of texts"):
        ROOT.present(audience="mail", consents=JANE.consent(request()))
    with pytest.raises(TypeError, match="a list of texts"):
        verifier().authenticate(ROOT.present(audience="mail")).with_consents(JANE.consent(request()))


def test_more_than_sixteen_are_refused() -> None:
    many = [JANE.consent(request(access=Access(tool="mail.send", arguments={"n": number}))) for number in range(17)]
    assert verifier().check(ROOT.present(audience="mail", consents=many[:16]), SEND).code == "consent_missing"
    with pytest.raises(TokenFormatError, match="more than 16 consents"):
        ROOT.present(audience="mail", consents=many)


def test_a_mint_without_a_server_says_what_to_write() -> None:
    """(47.7)"""
    with pytest.raises(ValueError, match=r"a consent is for one server: write mint\(..., audience="):
        Issuer(Keyring.generate()).mint(**WHO, tools={"mail.send": {}}, consent=asking(JANE))


def test_a_consent_that_was_used_is_told_as_one_that_is_over() -> None:
    """A proof that was used has the same code. But a model that makes a new proof is no step further."""
    server, consent = verifier(), JANE.consent(request())
    text = ROOT.present(audience="mail", consents=[consent])
    assert server.check(text, SEND)
    spent = server.check(text, SEND)
    assert spent.code == "replayed" and "Ask for the consent again" in spent.for_model() and "proof" not in spent.for_model()
    assert Denied(spent).public == "The consent that came with the request was not accepted."

"""Attacks on the service that worked once, at its doors, each beside what is sound and goes on."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from captoken._format.encoding import b64decode
from captoken.adapters.issuance import IssuanceService
from captoken.audit import AuditTrail
from captoken.control import Operator
from captoken.errors import IssuanceError, KeyringError, StoreError
from captoken.issuance import policy
from captoken.issuance.keys import ProviderKeys
from captoken.issuance.registry import MemoryRegistry
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from captoken.testing import FixedClock

from . import test_ends, test_events, test_signals
from .assertions import ACCESS, ID_JAG, LOGIN, NOW, SVID, WORKLOAD, signed
from .fixtures import KEYRING, LEASE, POLICY
from .fixtures import NOW as USUAL
from .test_issuance import ACME, CI, World, exchange, login, nightly, proof, workflow
from .test_must_deny import FORM, Door, encoded, posted

# --- an assertion that is worth nothing without its key ----------------------------------------------------------------

SOUND: dict[str, dict[str, Any]] = {"acme": LOGIN, "acme-api": ACCESS, "hub": ID_JAG, "cluster": WORKLOAD, "mesh": SVID}


@pytest.mark.parametrize("provider", SOUND)
@pytest.mark.parametrize(
    "bound", [{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}, {"x5t#S256": "x"}, {"jwk": {}}, {}, None], ids=repr
)
def test_who_stole_what_is_bound_to_a_key_starts_nothing(provider: str, bound: Any) -> None:
    """A stolen access token that is bound by DPoP is worth nothing elsewhere. Here nobody asked for its key."""
    door = Door()
    said = door.started(provider, signed(provider, SOUND[provider] | {"cnf": bound}))
    assert "error" in said and "bound to a key (cnf)" in said["error_description"]
    assert door.started(provider, signed(provider, SOUND[provider]))["status"] == 200


# --- a login that goes on ----------------------------------------------------------------------------------------------


def log_out(door: Door, **claims: Any) -> int:
    made = {name: value for name, value in (test_signals.LOGGING_OUT | claims).items() if value is not None}
    text = signed("acme", made, header={"typ": test_signals.LOGOUT})
    return posted(door, encoded({"logout_token": text}), FORM, "/logout/backchannel").status_code


@pytest.mark.parametrize(
    ("logout", "ends"),
    [({}, True), ({"sid": None}, True), ({"sid": "another"}, True), ({"sub": None}, False), ({"sub": "omar"}, False), ({"sid": None, "sub": "omar"}, False)],
    ids=["of her session", "of her", "of her other session", "of a session of nobody", "of his session", "of him"],
)  # fmt: skip
def test_an_access_token_does_not_outlive_the_login_that_gave_it(logout: dict[str, Any], ends: bool) -> None:
    """It names no session as a rule (RFC 9068): then a logout that says whose it is ends what it started."""
    door = Door()
    task = door.started("acme-api", signed("acme-api", ACCESS))["task"]
    assert log_out(door, **logout) == 200
    assert door.registry.is_live(task, NOW) is not ends
    again = door.started("acme-api", signed("acme-api", ACCESS | {"jti": "another"}))
    assert (again["status"] == 200) is not ends
    assert door.started("acme-api", signed("acme-api", ACCESS | {"sid": "s-9", "jti": "of another session"}))["status"] == (
        400 if logout == {"sid": None} else 200
    )


def test_also_where_an_event_says_that_the_session_is_revoked() -> None:
    world = test_ends.streaming()
    claims = {name: value for name, value in claims_of(login()).items() if name != "sid"}
    task = world.ask(proof(), **exchange(subject_token=ACME.sign(claims)))["task"]
    other = test_ends.start(world, 2, sid="s-2")
    (answer,) = test_ends.sent(world, test_ends.seen(test_events.REVOKED, test_signals.COMPLEX))
    assert answer.status_code == 202
    assert not world.registry.is_live(task, USUAL) and world.registry.is_live(other, USUAL)


# --- an event that nobody would hear of --------------------------------------------------------------------------------


def test_what_should_be_narrowed_ends_where_nobody_says_so_to_servers() -> None:
    """Without an operator there is no overlay. The lease of a task that was narrowed went on with all of its rights."""
    change = test_ends.seen(f"{test_signals.CAEP}device-compliance-change", current_status="not-compliant")
    told = Operator(OperatorKey.generate(), MemorySnapshots(), by="issuer", clock=FixedClock(USUAL))
    for operator in (None, told):
        world = test_ends.Ended(of=test_signals.WITH_EVENTS, operator=operator)
        verification = test_ends.seen(f"{test_signals.SSF}verification", jti="v1")
        assert test_ends.sent(world, verification)[0].status_code == 202
        task = test_ends.start(world)
        assert test_ends.sent(world, change)[0].status_code == 202
        assert world.registry.is_live(task, USUAL) is (operator is not None)


# --- root keys that cannot be had --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        OSError("/etc/keyring.json: gone"),
        KeyringError("/etc/keyring.json is none"),
        StoreError("10.0.0.1 is away"),
        ValueError("x"),
    ],
)
@pytest.mark.parametrize("calls", [0, 1], ids=["at once", "when it is recorded"])
def test_without_its_keys_the_service_is_unavailable_and_not_broken(
    error: Exception, calls: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It answered 500. Nothing was minted by it, and clients took it for a fault of theirs."""
    left = calls

    def keyring() -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise error
        return KEYRING

    world = World()
    lines: list[bytes] = []
    world.app = service(world, keyring, AuditTrail(lines.append, clock=FixedClock(USUAL)))
    said = world.ask(**nightly())
    assert (said["status"], said["error"]) == (503, "temporarily_unavailable")
    assert "keyring" not in said["error_description"] and "10.0" not in said["error_description"]
    assert str(error) in caplog.text and not any(b'"issued"' in line for line in lines)
    left = 10
    assert world.ask(**nightly(client_assertion=workflow(jti="2")))["status"] == 200


def test_the_keys_of_one_server_alone_mint_nothing() -> None:
    world = World()
    world.app = service(world, KEYRING.for_audience("sales-db"), None)
    said = world.ask(**nightly())
    assert (said["status"], said["error"]) == (503, "temporarily_unavailable")


def claims_of(text: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(b64decode(text.split(".")[1]))
    return made


def service(world: World, keyring: Any, trail: AuditTrail | None) -> IssuanceService:
    async def fetch() -> bytes:
        return CI.jwks()

    keys = ProviderKeys(world.policy, sources={"ci": fetch})
    return IssuanceService(
        world.policy, keyring, MemoryRegistry(floor=0), lease=LEASE, keys=keys, trail=trail, clock=world.clock
    )


# --- a policy that lets in who was not meant ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "claim", ["email", "preferred_username", "upn", "name", "nickname", "phone_number", "/email", "/profile/email"]
)
@pytest.mark.parametrize("place", ["a grant", "the provider"])
def test_no_grant_asks_for_a_person_by_what_people_change(claim: str, place: str) -> None:
    """Whoever may edit an address at the provider would be whom the policy means."""
    old, new = {
        "a grant": ('groups = ["readers"] }', f'groups = ["readers"], "{claim}" = "ceo@acme.example" }}'),
        "the provider": ('subject = "acme:{sub}"', f'subject = "acme:{{sub}}"\nrequire = {{ "{claim}" = "ceo@acme.example" }}'),
    }[place]
    with pytest.raises(IssuanceError, match=r"people can change .*: ask for sub, or for a group"):
        policy.read(POLICY.replace(old, new))
    assert policy.read(POLICY.replace(old, new.replace(claim, "email_verified").replace('"ceo@acme.example"', "true")))
    # What a platform says of a machine is the platform's word.
    assert policy.read(POLICY.replace('repository_id = "42"', f'repository_id = "42", "{claim}" = "robot@acme.example"'))


# --- lines in the log that somebody else has made ----------------------------------------------------------------------


def test_whoever_has_the_keys_of_a_provider_writes_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """What a place of keys answers is told in the log, escaped."""
    caplog.set_level(logging.DEBUG)
    world = World()

    async def lies() -> bytes:
        raise OSError("no\nCRITICAL all is well\x1b[2J")

    keys = ProviderKeys(world.policy, sources={"ci": lies})
    world.app = IssuanceService(world.policy, KEYRING, MemoryRegistry(floor=0), lease=LEASE, keys=keys, clock=world.clock)
    assert world.ask(**nightly())["status"] == 503
    assert "all is well" in caplog.text
    assert not any("\n" in one.getMessage() or "\x1b" in one.getMessage() for one in caplog.records)

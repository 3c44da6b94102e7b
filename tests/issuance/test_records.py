"""The audit trail of the service: who asked for what, what came of it, and no token without its record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from captoken import Keyring, Token
from captoken.adapters._issuance.records import Asking, Records
from captoken.audit import AuditTrail, check, read, rfc8693
from captoken.audit.analysis import Issued, gather
from captoken.errors import AuditError, IssuanceError, StoreError
from captoken.issuance.minting import Ask
from captoken.issuance.policy import read as read_policy
from captoken.keys import AuditKey
from captoken.testing import FixedClock

from .fixtures import KEYRING, NOW, POLICY
from .test_issuance import ROOT, Gone, World, exchange, login, nightly, proof, svid, workflow

PERSON = {"provider": "acme", "basis": "oidc", "iss": "https://login.acme.example", "sub": "jane"}
ORCHESTRATOR = {"provider": "mesh", "basis": "spiffe", "iss": "acme.example", "sub": "spiffe://acme.example/ns/risk/sa/orchestrator"}


def forged(assertion: str) -> str:
    """With another signature."""
    signed, _, signature = assertion.rpartition(".")
    return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


class Kept(World):
    """A service with a trail."""

    def __init__(self, *policy: Any, **facts: Any) -> None:
        self.lines: list[bytes] = []
        made: dict[str, Any] = {"key": AuditKey.generate(), "clock": FixedClock(NOW), **facts.pop("trail", {})}
        self.trail = AuditTrail(made.pop("write", self.lines.append), **made)
        super().__init__(*policy, trail=self.trail, **facts)

    def records(self, kind: str = "issuance") -> list[dict[str, Any]]:
        return [one for one in read(self.lines) if one["kind"] == kind]


def without_place(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("prev", "seq")}


def test_a_token_has_its_record_and_is_described_right_before_it() -> None:
    """The specification's rule 39.10."""
    one = Kept()
    said = one.ask(proof(), **exchange())
    assert said["status"] == 200
    token, record = read(one.lines)
    root = Token.parse(said["access_token"])
    assert token["kind"] == "token" and token["root"]["jti"] == root.token_id
    assert [link["id"] for link in token["links"]][-1] == root.link_id
    assert {"asks": one.app._lease} in [link["says"] for link in token["links"]]
    assert without_place(record) == {
        "kind": "issuance", "at": NOW, "ms": 0, "allowed": True, "code": "issued", "policy": one.policy.digest,
        "subject": PERSON, "actor": ORCHESTRATOR, "client": ORCHESTRATOR["sub"],
        "asked": {
            "grant": "q3-risk", "resource": "sales-db", "agent": "orchestrator", "task": "q3",
            "keywords": {"tables": ["sales"], "operations": ["select"]},
        },
        "grant": "q3-risk", "sub": "acme:jane", "task": said["task"], "token": root.token_id, "link": root.link_id,
        "chain": [{"name": "orchestrator", "basis": "issued"}],
    }  # fmt: skip
    assert rfc8693(record) == {"sub": "acme:jane", "act": {"sub": "orchestrator", "captoken_basis": "issued"}}


def test_it_is_the_root_of_its_tree_and_the_trail_is_whole() -> None:
    one = Kept()
    said = one.ask(**nightly())
    one.ask(**nightly(client_assertion=workflow(ref="x")))
    head = one.trail.checkpoint()
    found = check(one.lines, [one.trail._key.public], known=[head])  # type: ignore[union-attr]
    assert (found.signed, found.decisions) == (3, 0)
    (root,) = gather(read(one.lines)).roots
    assert (root.agent, root.basis, root.task, root.root.subject) == ("nightly", "issued", said["task"], "ci:42")


def test_checkpoints_come_by_themselves() -> None:
    one = Kept(trail={"every": 2})
    for number in range(2):
        assert one.ask(**nightly(client_assertion=workflow(jti=str(number))))["status"] == 200
    assert len(one.records("checkpoint")) == 2
    unsigned = Kept(trail={"every": 1, "key": None})
    assert unsigned.ask(**nightly())["status"] == 200 and not unsigned.records("checkpoint")


@pytest.mark.parametrize(
    "form, code, told, why",
    [
        ({"subject_token": login(groups=["x"])}, "access_denied", "the grant is not for this caller", "not so: groups is finance"),
        ({"scope": "q9"}, "invalid_scope", "there is no such grant", None),
        ({"resource": "hr-db"}, "invalid_target", "the grant has no such resource", None),
        ({"authorization_details": '[{"type":"captoken","agent":"mallory"}]'}, "invalid_request", "the grant has no such agent", None),
    ],
)
def test_a_refusal_says_why_also_what_nobody_was_told(form: dict[str, Any], code: str, told: str, why: str | None) -> None:
    one = Kept()
    answer = one.ask(proof(), **exchange(**form))
    assert answer["status"] == 400 and (why is None or why not in json.dumps(answer))
    (record,) = one.records()
    assert (record["allowed"], record["code"], record["told"], record.get("why")) == (False, code, told, why)
    assert record["subject"]["sub"] == "jane" and record["actor"] == ORCHESTRATOR
    assert not {"token", "task", "chain", "grant", "sub"} & record.keys() and not one.records("token")


def test_whoever_was_not_verified_has_no_record() -> None:
    one = Kept()
    for form in ({"client_assertion": forged(workflow())}, {"grant_type": "password"}, {"client_assertion": workflow(aud="other")}):
        assert one.ask(**nightly(**form))["status"] in (400, 401)
    assert one.ask(proof(), **exchange(client_assertion=forged(svid())))["status"] == 401, "the subject alone is not who asks"
    assert one.lines == []


def test_a_client_that_is_not_known_and_a_registry_that_is_gone_have_one() -> None:
    one = Kept(registry=Gone())
    assert one.ask(**nightly())["status"] == 503
    (record,) = one.records()
    assert (record["code"], record["told"], record["why"]) == ("temporarily_unavailable", "try again later", "gone: /var/lib/x")


def test_of_requests_too_many_in_a_row_the_first_has_a_record() -> None:
    one = Kept(read_policy(POLICY.replace("[service]", "[service]\nper_minute = 1")))
    statuses = [one.ask(**nightly(client_assertion=workflow(jti=str(number))))["status"] for number in range(4)]
    assert statuses == [200, 429, 429, 429]
    assert [record["code"] for record in one.records()] == ["issued", "slow_down"]


def test_without_a_record_there_is_no_token() -> None:
    def full(_: bytes) -> None:
        raise OSError("no space left: /var/lib/x")

    one = Kept(trail={"write": full})
    answer = one.send("POST", "/token", data=nightly())
    assert answer.status_code == 503 and answer.json()["error"] == "temporarily_unavailable"
    assert "var" not in answer.text and "cap1" not in answer.text
    refused = one.send("POST", "/token", data=nightly(client_assertion=workflow(ref="x")))
    assert refused.status_code == 503, "nor a refusal that says more"


def test_a_record_that_failed_once_is_a_refusal_then() -> None:
    lines: list[bytes] = []
    fails = [True]

    def write(line: bytes) -> None:
        if fails and fails.pop():
            raise OSError("busy")
        lines.append(line)

    one = Kept(trail={"write": write})
    assert one.ask(**nightly())["status"] == 503
    (record,) = read(lines)
    assert (record["allowed"], record["why"]) == (False, "the audit trail cannot be written")
    assert one.ask(**nightly())["error"] == "invalid_grant", "the assertion was used: the row is first"


def test_no_record_has_an_assertion_or_a_token() -> None:
    one = Kept()
    subject, actor = login(), svid()
    held = one.ask(proof(), **exchange(subject_token=subject, client_assertion=actor))["access_token"]
    junk = json.dumps([{"type": "captoken", "agent": subject, "task": held, "tables": [actor], actor: {held: 1}, "where": {"a": {subject: 1}}}])
    more = exchange(subject_token=login(iat=NOW - 4), resource=subject, authorization_details=junk, scope=held)
    assert one.ask(proof(jti="j2"), **more)["status"] == 400
    kept = b"".join(one.lines).decode()
    for text in (subject, actor, held):
        assert text not in kept and not [part for part in text.split(".") if len(part) > 40 and part in kept]
    asked = one.records()[-1]["asked"]
    assert asked == {"grant": {"~": "..."}, "resource": {"~": "..."}, "agent": {"~": "..."}, "task": {"~": "..."}, "keywords": {"~": "..."}}


@pytest.mark.parametrize(
    "keywords, stated",
    [
        ({"tables": ["a"], "clamped": True}, {"tables": ["a"], "clamped": True}),
        ({"tables": ["x" * 129, "y" * 128]}, {"tables": [{"~": "..."}, "y" * 128]}),
        ({"depth": None, "a": 1.5, "b": 2**60}, {"depth": {"~": "null"}, "a": {"~": "1.5"}, "b": {"~": hex(2**60)}}),
        ({"where": {"a": {"b" * 129: 1}}}, {"where": {"a": {"~": "..."}}}),
        ({f"k{number:03}": "x" * 100 for number in range(50)}, [f"k{number:03}" for number in range(32)]),
    ],
)
def test_what_was_asked_is_bounded(keywords: dict[str, Any], stated: Any) -> None:
    lines: list[bytes] = []
    records = Records(AuditTrail(lines.append))
    records.refused(Asking(NOW, "p", None, None, Ask(keywords=keywords, clamp=True)), IssuanceError("gone", "x"))
    (record,) = read(lines)
    assert record["asked"] == {"clamp": True, "keywords": stated} and "subject" not in record


def test_a_token_whose_key_is_gone_meanwhile_does_not_leave() -> None:
    one = Kept()
    records = Records(one.trail)
    root = Token.parse(one.ask(proof(), **exchange())["access_token"])
    with pytest.raises(StoreError, match="the keyring changed while"):
        records.granted(Asking(NOW, "p", None, None, Ask()), "q3-risk", root, Keyring.generate())
    records.granted(Asking(NOW, "p", None, None, Ask()), "q3-risk", root, KEYRING)


def test_a_trace_stands_in_the_record() -> None:
    one = Kept(trail={"trace": lambda: "t1"})
    assert one.ask(**nightly(requested_token_type=ROOT))["status"] == 200
    assert one.records()[0]["trace"] == "t1"


def test_what_is_no_record_of_an_exchange_is_not_shown_as_one() -> None:
    import msgspec

    one = Kept()
    one.ask(**nightly())
    issued = msgspec.convert(one.records()[0], Issued)
    assert issued.allowed and issued.grant == "nightly" and issued.told == ""
    with pytest.raises(AuditError):
        list(read([b"{}\n"]))

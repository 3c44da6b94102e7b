"""A gateway that servers of others ask by AuthZEN 1.0. The cases are shaped as those of the working group's certification scenario.

Its requests carry no token, so each has one put in: what a token does not permit, no subject may do here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from captoken import AsyncVerifier, Issuer, Keyring
from captoken.adapters._gateway.authzen import evaluation
from captoken.adapters._gateway.strict import RequestError
from captoken.adapters.gateway import Gateway, configured
from captoken.audit.trail import AuditTrail
from captoken.keys import HolderKey
from captoken.proof import http_request
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from tests.adapters.serving import listening, served
from tests.program import CAPTOKEN

SECRET, OTHER = "s" * 40, "o" * 40
FILE = """version = 1
[gateway]
keyring = "keyring.json"
origin = "https://gateway.example"
[authzen.records]
secret = "file:records.secret"
[authzen.records.tools."record.refund"]
cost = { usd_cents = "amount" }
[authzen.payroll]
secret = "file:payroll.secret"
"""


class World:
    def __init__(self, folder: Path, text: str = FILE) -> None:
        for name, secret in (("records", SECRET), ("payroll", OTHER)):
            (folder / f"{name}.secret").touch(0o600)
            (folder / f"{name}.secret").write_text(secret)
        (folder / "gateway.toml").write_text(text)
        self.folder = folder
        self.keyring = Keyring.generate()
        self.keyring.save(folder / "keyring.json")
        self.found = configured(str(folder / "gateway.toml"))
        self.records: list[dict[str, Any]] = []
        trail = AuditTrail(lambda line: self.records.extend(map(json.loads, line.splitlines())))
        facts: dict[str, Any] = {"ledger": MemoryLedger(floor=0), "replays": MemoryReplayStore(floor=0), "audit": trail}
        self.gateway = Gateway(self.found, {name: AsyncVerifier(self.keyring, name, **facts) for name in self.found.file.audiences})
        self.origin = ""

    def token(self, *, audience: str = "records", **more: Any) -> str:
        more.setdefault("tools", {f"{audience}.*": {}})
        minted = Issuer(self.keyring).mint(subject="user:jane", agent="a", task="t", audience=audience, **more)
        return str(minted.present(audience=audience))

    def post(self, body: bytes | dict[str, Any], at: str = "records", **headers: str) -> httpx.Response:
        sent = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        with httpx.Client(trust_env=False) as client:
            return client.post(f"{self.origin}/{at}/access/v1/evaluation", content=content, headers={key: value for key, value in sent.items() if value != "NONE"})

    def decides(self, token: str | None, asked: dict[str, Any]) -> bool:
        answer = self.post(given(token, asked))
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/json", answer.text
        decision = answer.json()["decision"]
        assert type(decision) is bool
        return decision


def ask(action: str = "read", resource: str = "record-1", subject: str = "alice", **properties: dict[str, Any]) -> dict[str, Any]:
    """A request, as the standard has it; `action=`, `on=` and `of=` are the properties of its three entities."""
    asked: dict[str, Any] = {"subject": {"type": "user", "id": subject}, "action": {"name": action}, "resource": {"type": "record", "id": resource}}
    for entity, key in (("action", "how"), ("resource", "on"), ("subject", "of")):
        if key in properties:
            asked[entity]["properties"] = properties[key]
    return asked


def given(token: str | None, asked: dict[str, Any]) -> dict[str, Any]:
    if token is None:
        return asked
    subject = asked["subject"]
    return {**asked, "subject": {**subject, "properties": {**subject.get("properties", {}), "captoken": token}}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with served(made.gateway, listening(), lifespan="on") as made.origin:
        yield made


# --- what the standard asks of a decision point ---------------------------------------------------

ALICE = {"tools": {"records.record.read": {}, "records.record.write": {"id": {"in": ["record-1"]}}, "records.record.delete": {"id": {"in": ["record-1"]}, "soft": {"in": [True]}}}}
BOB = {"tools": {"records.record.read": {}}}
ADMIN = {"tools": {"records.record.*": {}}, "where": {"subject.role": {"in": ["admin"]}}}
ACTIVE = {"tools": {"records.record.*": {}}, "where": {"resource.status": {"in": ["active"]}}}
CONTEXT = {"context": {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}}


@pytest.mark.parametrize(
    ("rights", "asked", "decision"),
    [
        (ALICE, ask(), True),
        (ALICE, ask("write"), True),
        (BOB, ask(subject="bob"), True),
        (BOB, ask("write", subject="bob"), False),
        (ALICE, ask("write", "record-2", on={"status": "archived"}), False),
        (ACTIVE, ask("write", "record-2", on={"status": "archived"}), False),
        (ACTIVE, ask("write", "record-2", on={"status": "active"}), True),
        (ACTIVE, ask("write", "record-2"), False),
        (ADMIN, ask("write", "record-2", "bob", of={"role": "admin"}, on={"status": "archived"}), True),
        (ADMIN, ask("write", "record-2", "bob", of={"role": "clerk"}, on={"status": "archived"}), False),
        (ALICE, ask("delete", how={"soft": True}), True),
        (ALICE, ask("delete", how={"soft": False}), False),
        (ALICE, ask("delete"), False),
        (ALICE, ask("delete", how={"soft": 1}), False),
        (ALICE, {**ask(), **CONTEXT}, True),
        ({**ALICE, "where": {"context.ip": {"in": ["192.168.1.1"]}}}, {**ask(), **CONTEXT}, True),
        ({**ALICE, "where": {"context.ip": {"in": ["192.168.1.1"]}}}, ask(), False),
        (ALICE, ask(how={"method": "GET"}, on={"status": "active", "owner": "bob"}, of={"department": "Sales", "role": "manager"}), True),
        (ALICE, {**ask(), "foo": "bar", "futureField": {"nested": True}}, True),
        (ALICE, ask(resource="/users/{userId}"), True),
        ({"tools": {"records.route.GET": {"id": {"in": ["/todos"]}}}}, {**ask("GET"), "resource": {"type": "route", "id": "/todos"}}, True),
        ({"tools": {"records.route.GET": {"id": {"in": ["/todos"]}}}}, {**ask("GET"), "resource": {"type": "route", "id": "/users/{userId}"}}, False),
        ({"tools": {"records.tool.tools.call": {"id": {"in": ["get_customer"]}}}}, {**ask("tools/call"), "resource": {"type": "tool", "id": "get_customer"}}, True),
        ({"tools": {"records.record.write": {"id": {"in": ["record-1"]}}}}, ask("write", how={"more": 1}), False),
    ],
)  # fmt: skip
def test_a_decision_is_what_the_token_permits(rights: dict[str, Any], asked: dict[str, Any], decision: bool, world: World) -> None:
    token = world.token(**rights)
    assert [world.decides(token, asked) for _ in range(3)] == [decision] * 3
    assert not world.decides(None, asked)


def without(name: str, member: str | None = None) -> dict[str, Any]:
    asked = ask()
    del (asked if member is None else asked[name])[member or name]
    return asked


@pytest.mark.parametrize(
    "asked",
    [
        *map(without, ("subject", "action", "resource")),
        *(without(*pair) for pair in (("subject", "type"), ("subject", "id"), ("action", "name"), ("resource", "type"), ("resource", "id"))),
        {**ask(), "subject": "alice"},
        {**ask(), "action": {"name": 123}},
        {**ask(), "resource": {"type": "record", "id": None}},
        {**ask(), "context": "now"},
        {**ask(), "resource": {"type": "record", "id": "a", "properties": []}},
        given("", ask()) | {"subject": {"type": "user", "id": "a", "properties": {"captoken": 7}}},
        b"",
        b"{",
        b"[]",
        b"7",
        json.dumps(ask()).encode("utf-16"),
        json.dumps(ask()).replace('"read"', '"read", "name": "write"').encode(),
        json.dumps(ask()).replace('"read"', '"read", "Name": "write"').encode(),
        json.dumps(ask(how={"amount": 2**53 + 1})).encode(),
        json.dumps(ask(how={"a": "N"})).replace('"N"', "NaN").encode(),
        *(json.dumps(ask(how={"a": "N"})).replace('"N"', "[" * deep + "]" * deep).encode() for deep in (200, 3000)),
    ],
)  # fmt: skip
def test_what_is_no_request_is_a_bad_one(asked: Any, world: World) -> None:
    answer = world.post(asked, X_Request_ID="a")
    assert answer.status_code == 400 and answer.headers["content-type"].startswith("text/plain") and answer.text
    assert answer.headers["x-request-id"] == "a" and "decision" not in answer.text


def test_other_types_methods_and_places(world: World) -> None:
    body = given(world.token(), ask())
    for kind in ("NONE", "text/plain", "application/x-www-form-urlencoded"):
        assert world.post(body, Content_Type=kind).status_code == 400
    assert world.post(body, Content_Type="application/json; charset=utf-8").status_code == 200
    assert world.post(json.dumps(body).encode() + b" " * 300_000).status_code == 413
    with httpx.Client(trust_env=False, headers={"Authorization": f"Bearer {SECRET}"}, base_url=world.origin) as client:
        assert client.get("/records/access/v1/evaluation").status_code == 405
        for path in ("evaluations", "search/subject", "evaluation/", "evaluation?a=b", "Evaluation", "%65valuation"):
            assert client.post(f"/records/access/v1/{path}", json=body).status_code == 404
        assert client.post("/access/v1/evaluation", json=body).status_code == 404
    assert [record["access"]["tool"] for record in world.records if "access" in record] == ["records.record.read"]


def test_a_request_s_id_comes_back_and_no_other_is_made(world: World) -> None:
    for token in (world.token(), "cap1_wrong"):
        answer = world.post(given(token, ask()), X_Request_ID="bfe9eb29-ab87")
        assert answer.headers["x-request-id"] == "bfe9eb29-ab87"
    assert "x-request-id" not in world.post(given(world.token(), ask())).headers
    assert world.post(ask(), X_Request_ID="b", Authorization="NONE").headers["x-request-id"] == "b"


def test_metadata_say_where_to_ask_and_that_nothing_else_is_here(world: World) -> None:
    with httpx.Client(trust_env=False, base_url=world.origin) as client:
        answer = client.get("/.well-known/authzen-configuration/records")
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/json" and "max-age" in answer.headers["cache-control"]
        base = "https://gateway.example/records"
        assert answer.json() == {"policy_decision_point": base, "access_evaluation_endpoint": f"{base}/access/v1/evaluation"}
        assert client.head("/.well-known/authzen-configuration/payroll").status_code == 200
        assert client.post("/.well-known/authzen-configuration/records").status_code == 405
        for path in ("", "/", "/other", "/records/", "/records?a"):
            assert client.get(f"/.well-known/authzen-configuration{path}").status_code == 404


def test_without_tls_there_are_no_metadata(tmp_path: Path) -> None:
    made = World(tmp_path, FILE.replace('origin = "https://gateway.example"\n', ""))
    with served(made.gateway, listening(), lifespan="on") as made.origin, httpx.Client(trust_env=False) as client:
        assert client.get(f"{made.origin}/.well-known/authzen-configuration/records").status_code == 404
        assert made.decides(made.token(), ask())


# --- who asks, and with which token ---------------------------------------------------------------


@pytest.mark.parametrize("said", ["NONE", f"Bearer {OTHER}", f"bearer {SECRET}", f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", "Basic czpz", "Bearer", ""])
def test_a_stranger_with_a_good_token_learns_nothing_and_counts_nothing(said: str, world: World) -> None:
    token = world.token(uses=1)
    answer = world.post(given(token, ask()), Authorization=said)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == 'Bearer realm="records"'
    assert '"decision"' not in answer.text and world.records == []
    # Nor does what is wrong with the request show: it is not read.
    assert world.post(b"{", Authorization=said).status_code == 401
    assert world.decides(token, ask())


def test_who_may_ask_about_one_audience_may_not_ask_about_another(world: World) -> None:
    token = world.token(audience="payroll")
    assert world.post(given(token, ask()), "payroll").status_code == 401
    assert world.post(given(token, ask()), "payroll", Authorization=f"Bearer {OTHER}").json() == {"decision": True}
    assert not world.decides(token, ask())


def test_without_its_secret_a_point_answers_nobody(world: World) -> None:
    (world.folder / "records.secret").chmod(0o644)
    assert world.post(given(world.token(), ask())).status_code == 401


def test_a_token_that_is_held_bound_or_none_permits_nothing(world: World) -> None:
    issuer = Issuer(world.keyring)
    held = issuer.mint(subject="user:jane", agent="a", task="t", tools={"records.*": {}})
    key = HolderKey.generate()
    bound = issuer.mint(subject="user:jane", agent="a", task="t", audience="records", tools={"records.*": {}}, key=key.public)
    proven = bound.present(audience="records", signer=key, request=http_request("POST", "https://gateway.example", "/records/access/v1/evaluation", b""))
    for token in (held.serialize(), str(bound.present(audience="records")), str(proven), "", "cap1_AAAA", "a" * 100_000, "é"):
        assert not world.decides(token, ask()), token[:20]
    answer = world.post(given("cap1_AAAA", ask())).json()
    assert "code" not in answer["context"]  # what a stranger can cause is told as one
    assert world.decides(str(held.present(audience="records")), ask())


def test_no_two_actions_come_to_one_tool(world: World) -> None:
    """As `a.b` on a type `c`, and `b` on a type `c.a`, would: and a token for one would permit the other."""
    token = world.token()
    for kind, action in (("record.read", "all"), ("record", "read.all"), ("record/read", "all"), ("", "read"), ("record", ""), ("record", "read/"), ("*", "read"), ("record", "*"), ("record", "a\u202eb")):
        asked = {**ask(action), "resource": {"type": kind, "id": "a"}}
        answer = world.post(given(token, asked)).json()
        assert answer["decision"] is False and answer["context"]["code"] == "tool", (kind, action)
    assert not world.decides(token, ask(how={"id": "record-2"}))
    assert world.decides(token, ask("read/all"))


def test_who_the_subject_is_only_the_token_says(world: World) -> None:
    token = world.token()
    for subject in ("alice", "root", ""):
        assert world.decides(token, ask(subject=subject))
    assert {record["sub"] for record in world.records if record["kind"] == "decision"} == {"user:jane"}
    # What stands in another place is no token.
    for asked in ({**ask(), "context": {"captoken": token}}, {**ask(), "captoken": token}, ask(how={"captoken": token}), ask(on={"captoken": token})):
        assert not world.decides(None, asked)


# --- what counts ----------------------------------------------------------------------------------


def test_an_evaluation_counts_as_an_access_does(world: World) -> None:
    token = world.token(uses=2)
    assert [world.decides(token, ask()) for _ in range(3)] == [True, True, False]
    budget = world.token(budget={"usd_cents": 900})
    paid = [world.post(given(budget, ask("refund", how={"amount": amount}))).json() for amount in (500, 500, 400)]
    assert [each["decision"] for each in paid] == [True, False, True] and paid[1]["context"]["code"] == "budget_exhausted"
    for amount in ({}, {"amount": -1}, {"amount": "5"}, {"amount": 1.5}):
        assert world.post(given(budget, ask("refund", how=amount))).json()["context"]["code"] == "cost_unstated"


def test_a_denial_can_be_read_by_the_model_and_tells_no_right_of_the_token(world: World) -> None:
    token = world.token(tools={"records.record.read": {"id": {"in": ["record-7"]}}})
    context = world.post(given(token, ask("write"))).json()["context"]
    assert context["code"] == "tool" and context["for_model"].startswith("Not permitted") and "record-7" not in json.dumps(context)


def test_where_nobody_can_decide_there_is_no_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = World(tmp_path)
    counting = made.token(uses=1)

    class Broken(MemoryLedger):
        def __getattribute__(self, name: str) -> Any:
            if name in ("spend", "reserve", "take", "commit"):
                raise OSError("gone")
            return super().__getattribute__(name)

    def gone() -> Keyring:
        from captoken.adapters._gateway.credentials import Unavailable

        raise Unavailable("gone")

    for verifier in (AsyncVerifier(made.keyring, "records", ledger=Broken(floor=0)), AsyncVerifier(gone, "records")):
        gateway = Gateway(made.found, {"records": verifier, "payroll": verifier})
        with served(gateway, listening(), lifespan="on") as made.origin:
            answer = made.post(given(counting, ask()))
            assert answer.status_code == 503 and answer.headers["retry-after"] == "5" and "decision" not in answer.text


def test_an_access_that_is_too_large_is_denied(world: World) -> None:
    answer = world.post(given(world.token(), ask(how={"a": [1] * 20_000})))
    assert answer.status_code == 200 and answer.json()["decision"] is False


def test_what_is_read_is_what_was_written() -> None:
    read = evaluation(json.dumps({**given("t", ask("delete", how={"soft": True}, on={"status": None}, of={"role": "admin"})), "context": {"ip": "::1"}}).encode())
    assert read == ("t", "record", "record-1", "delete", {"soft": True}, {"subject.role": "admin", "resource.status": None, "context.ip": "::1"})
    with pytest.raises(RequestError, match=r"subject\.properties\.captoken is a text"):
        evaluation(json.dumps({**ask(), "subject": {"type": "a", "id": "b", "properties": {"captoken": ["t"]}}}).encode())


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('secret = "file:records.secret"', 'secret = "s3cr3t"', "authzen.records.secret: a secret is file:PATH or env:NAME"),
        ('secret = "file:records.secret"\n', "", "secret"),
        ("authzen.records", "authzen.Records", "authzen.Records: the name of a service"),
        ('cost = { usd_cents = "amount" }', "cost = { usd_cents = -1 }", r'authzen.records.tools."record.refund": cost.usd_cents must be 0 or more'),
        ("[authzen.payroll]", '[service.payroll]\nurl = "https://a.example"\ncredential = "env:A"\n[authzen.payroll]', "authzen.payroll: a service has this name"),
    ],
)
def test_a_file_that_is_wrong_is_refused(before: str, after: str, says: str, tmp_path: Path) -> None:
    assert before in FILE
    (tmp_path / "gateway.toml").write_text(FILE.replace(before, after))
    with pytest.raises(ValueError, match=says):
        configured(str(tmp_path / "gateway.toml"))


def test_a_file_without_any_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('version = 1\n[gateway]\nkeyring = "a"\n')
    with pytest.raises(ValueError, match=r"at least one \[service\.NAME\], or \[authzen\.NAME\]"):
        configured(str(tmp_path / "gateway.toml"))


def test_check_says_where_it_is_asked_and_whether_the_secret_is_there(tmp_path: Path) -> None:
    World(tmp_path)

    def check() -> tuple[int, str]:
        ran = subprocess.run([CAPTOKEN, "gateway", "check", "gateway.toml"], cwd=tmp_path, capture_output=True, text=True, check=False)
        return ran.returncode, ran.stdout + ran.stderr

    code, told = check()
    assert code == 0 and "records: AuthZEN, https://gateway.example/records/access/v1/evaluation" in told
    (tmp_path / "gateway.toml").write_text(FILE.replace('origin = "https://gateway.example"\n', "").replace('"file:payroll.secret"', '"env:PAYROLL"'))
    (tmp_path / "records.secret").unlink()
    code, told = check()
    assert code == 2 and "no metadata" in told and "authzen.records.secret" in told and "payroll.secret" not in told

"""The client of the service: what it sends and what it does not, against the service on a real server, and stand-ins of platforms."""

from __future__ import annotations

import base64
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from captoken import Access, Verifier
from captoken.errors import IssuanceError
from captoken.issuance import client, web
from captoken.issuance.client import Issuance, PlatformIdentity, workload
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryReplayStore
from tests.adapters.serving import listening, origin_of, served

from .office import KEYRING, SALES, Office, at_sales, opened
from .signing import Provider

HOLDER = HolderKey.from_bytes(bytes(range(3, 35)))


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with opened(tmp_path_factory.mktemp("client")) as one:
        yield one


@contextmanager
def answering(
    status: int, body: bytes | Callable[[str], bytes], *headers: tuple[bytes, bytes]
) -> Iterator[tuple[str, list[Any]]]:
    """A server that says this to all, and what it was sent: path with query, headers and body."""
    heard: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        said = await receive()
        target = scope["path"] + "?" + scope["query_string"].decode()
        heard.append((target, dict(scope["headers"]), said["body"].decode()))
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body if isinstance(body, bytes) else body(heard[-1][2])})

    socket = listening()
    with served(app, socket):
        yield origin_of(socket), heard


# --- start and join -------------------------------------------------------------------------------


def test_a_login_and_a_workload_start_a_task(office: Office) -> None:
    asks = Issuance(office.origin)
    login = office.login()
    root = asks.start(
        login=login, actor=office.workload(), grant="report", resource="sales-db", task="q3", agent="orchestrator",
        tables={"sales"}, operations=["select"],
    )  # fmt: skip
    assert root.unverified.root.task.startswith("q3-") and root.unverified.root.subject == "acme:jane"
    assert at_sales(root.present(audience="sales-db")) == "allowed"
    assert at_sales(root.present(audience="sales-db"), Access(table="sales", operation="insert")) != "allowed"

    paid = asks.join(
        root, login=office.login(iat_is="another"), actor=lambda audience: office.workload(aud=audience), grant="sentiment"
    )
    assert paid.unverified.root.task == root.unverified.root.task
    assert paid.unverified.capability.json()["budget"] == {"usd_cents": 500}


def test_a_workload_alone_starts_one(office: Office) -> None:
    root = Issuance(office.origin).start(
        actor=office.workload(aud=[office.origin], jti="alone"), resource="sales-db", grant="nightly"
    )
    assert root.unverified.holder == "nightly" and at_sales(root.present(audience="sales-db")) == "allowed"


class Service:
    """A key that is somewhere else: it shows its public half, as bytes, and signs."""

    public = base64.urlsafe_b64decode(HOLDER.public + "=")
    sign = staticmethod(HOLDER.sign)


@pytest.mark.parametrize("key", [HOLDER, Service()], ids=["a holder's key", "any signer"])
def test_the_root_is_bound_to_the_key(office: Office, key: Any) -> None:
    root = Issuance(office.origin, key=key).start(
        login=office.login(jti=type(key).__name__), grant="bound", resource="sales-db"
    )
    assert root.unverified.key == HOLDER.public
    server = Verifier(KEYRING.for_audience("sales-db"), "sales-db", replays=MemoryReplayStore(floor=0))
    assert server.check(root.present(audience="sales-db", signer=HOLDER, request=SALES), SALES).code == "allowed"
    assert server.check(root.present(audience="sales-db"), SALES).code == "proof_missing"


def test_what_the_service_refuses_comes_with_its_code_and_words(office: Office) -> None:
    asks = Issuance(office.origin)
    who = {"login": office.login(jti="refused"), "actor": office.workload()}
    for code, given in {
        "invalid_scope": {"grant": "q9"},
        "invalid_target": {"grant": "report", "resource": "hr-db"},
        "invalid_request": {"grant": "bound", "resource": "sales-db"},
        "invalid_authorization_details": {"grant": "report", "tables": ["hr"], "operations": ["select"]},
    }.items():
        with pytest.raises(IssuanceError) as told:
            asks.start(**who, **given)  # type: ignore[arg-type]
        assert told.value.code == code and str(told.value)
    with pytest.raises(IssuanceError, match="DPoP") as told:
        asks.start(login=office.login(jti="unbound"), grant="bound", resource="sales-db")
    assert told.value.code == "invalid_dpop_proof"
    clamped = asks.start(**who, grant="report", clamp=True, tables=["hr", "sales"], operations=["select"])  # type: ignore[arg-type]
    assert at_sales(clamped.present(audience="sales-db")) == "allowed"


def test_to_join_another_task_than_that_is_no_joining(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Issuance(office.origin).start(login=office.login(jti="own"), actor=office.workload(), grant="report")
    monkeypatch.setattr(
        client, "_details", lambda stated: json.dumps([{"type": "captoken"}])
    )  # as if the service overlooked it
    with pytest.raises(IssuanceError, match="another task"):
        Issuance(office.origin).join(root, login=office.login(jti="own2"), actor=office.workload(), grant="report")


# --- sets -----------------------------------------------------------------------------------------

TOKEN_SET = "urn:captoken:token-type:token-set"
SEND = Access(tool="send", arguments={})


def at_mail(text: str) -> str:
    return Verifier(KEYRING.for_audience("mail"), "mail").check(text, SEND).code


def test_a_login_and_a_workload_get_a_set(office: Office) -> None:
    asks = Issuance(office.origin, key=HOLDER)
    held = asks.start_set(
        login=office.login(jti="set"), actor=office.workload(), grant="brief", resources=["mail", "https://sales.example/mcp"], task="q3",
        agent="orchestrator", tables={"sales"}, operations=["select"], only={"mail": {"expires_in": 60}}, servers=("sales-db",),
    )  # fmt: skip
    assert held.servers == ("mail", "sales-db") and held.token("mail").unverified.root.task.startswith("q3-")
    assert {held.token(name).unverified.key for name in held.servers} == {HOLDER.public}
    ends = [held.token(name).unverified.expires_at or 0 for name in held.servers]
    assert ends[1] - ends[0] == 840

    def at(name: str, access: Access) -> str:
        server = Verifier(KEYRING.for_audience(name), name, replays=MemoryReplayStore(floor=0))
        return server.check(held.present(audience=name, signer=HOLDER, request=access), access).code

    assert (at("mail", SEND), at("sales-db", SALES)) == ("allowed", "allowed")
    assert at("sales-db", Access(table="sales", operation="insert")) == "operation"


def test_a_set_is_for_all_servers_of_a_grant_or_for_those_that_are_named(office: Office) -> None:
    who = {"login": office.login(jti="all"), "actor": office.workload()}
    asks = Issuance(office.origin)
    held = asks.start_set(grant="brief", **who)  # type: ignore[arg-type]
    assert held.servers == ("mail", "sales-db") and at_mail(held.present(audience="mail")) == "allowed"
    # A name alone is one, and not one for each of its letters.
    assert asks.start_set(grant="brief", resources="mail", **who).servers == ("mail",)  # type: ignore[arg-type]


def test_a_set_and_a_token_join_each_other_s_tasks(office: Office) -> None:
    who: dict[str, Any] = {"login": office.login(jti="joins"), "actor": office.workload(), "grant": "brief"}
    asks = Issuance(office.origin)
    root = asks.start(resource="mail", **who)
    within = asks.join_set(root, resources=["sales-db", "mail"], servers=["mail"], expires_in=60, **who)
    again = asks.join(within, resource="sales-db", **who)
    tasks = {root.unverified.root.task, again.unverified.root.task, within.token("mail").unverified.root.task}
    assert len(tasks) == 1


def test_what_the_service_refuses_of_a_set(office: Office) -> None:
    who: dict[str, Any] = {"login": office.login(jti="refuses"), "actor": office.workload()}
    asks = Issuance(office.origin)
    for words, given in {
        "no such resource": {"grant": "brief", "resources": ["mail", "hr-db"]},
        "resource names mail twice": {"grant": "brief", "resources": ["mail", "mail"]},
        "the grant does not give a set": {"grant": "report"},
        "more than 32 servers": {"grant": "brief", "resources": ["mail"] * 33},
        "at mail: ": {"grant": "brief", "only": {"mail": {"tools": {"drop": {}}}}},
    }.items():
        with pytest.raises(IssuanceError, match=words):
            asks.start_set(**who, **given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="resource is empty"):
        asks.start_set(resources=["mail", ""], **who)


def test_an_answer_that_is_no_set_of_what_was_asked_is_none(office: Office) -> None:
    """Another type, a set of fewer servers, and one of which a part is from another set, task, holder or key."""
    who: dict[str, Any] = {"login": office.login(jti="answers"), "actor": office.workload(), "grant": "brief"}
    asks = Issuance(office.origin)
    first, other = asks.start_set(**who), asks.start_set(**who)
    same_task = asks.join_set(first, **who)
    bound = Issuance(office.origin, key=HOLDER).start_set(**{**who, "login": office.login(jti="bound set")})

    def part(held: Any, name: str) -> str:
        return str(held.token(name).serialize().removeprefix("cap1_"))

    def mixed(mail: Any, sales: Any) -> str:
        return f"caps1_{part(mail, 'mail')}~{part(sales, 'sales-db')}"

    unavailable = "temporarily_unavailable"
    for text, kind, code, words in (
        (first.serialize(), TOKEN_SET, None, ""),
        (first.serialize(), ROOT, unavailable, "no set of tokens"),
        (first.token("mail").serialize(), TOKEN_SET, unavailable, "what is no set of tokens"),
        (first.only("mail").serialize(), TOKEN_SET, unavailable, "a set for other servers"),
        (mixed(first, other), TOKEN_SET, unavailable, "what is no set of tokens"),
        (mixed(first, same_task), TOKEN_SET, unavailable, "not minted together"),
        (mixed(first, first.delegate(to="clerk", expires_in=60)), TOKEN_SET, unavailable, "what is no set of tokens"),
        (mixed(first, bound), TOKEN_SET, unavailable, "what is no set of tokens"),
        (bound.serialize(), TOKEN_SET, "invalid_dpop_proof", "not bound to the key"),
    ):
        body = json.dumps({"issued_token_type": kind, "access_token": text}).encode()
        with answering(200, body) as (url, _):
            given: dict[str, Any] = {"actor": Provider().sign({"aud": url}), "resources": ["mail", "sales-db"]}
            if code is None:
                assert Issuance(url).start_set(**given) == first
                continue
            with pytest.raises(IssuanceError, match=words) as told:
                Issuance(url).start_set(**given)
            assert told.value.code == code and text not in str(told.value)
    body = json.dumps({"issued_token_type": TOKEN_SET, "access_token": first.serialize()}).encode()
    with answering(200, body) as (url, _), pytest.raises(IssuanceError, match="no held token"):
        Issuance(url).start(actor=Provider().sign({"aud": url}))


def test_a_set_may_be_longer_than_a_token_and_no_longer_than_that() -> None:
    for size, words in ((400_000, "no set of tokens"), (600_000, "too much")):
        with answering(200, b" " * size) as (url, _), pytest.raises(IssuanceError, match=words):
            Issuance(url).start_set(actor=Provider().sign({"aud": url}))


# --- what is not sent -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "audience",
    ["https://kubernetes.default.svc", ["https://other.example"], None, [], 7, "twice", "slash", "with another"],
    ids=str,
)
def test_37_an_identity_that_is_not_for_the_service_alone_is_not_sent(audience: Any) -> None:
    """The default token of a pod is good for the whole cluster."""
    signer = Provider()
    with answering(500, b"") as (url, heard):
        wrong = {"twice": [url, url], "slash": f"{url}/", "with another": [url, "https://other.example"]}
        said = signer.sign({"sub": "pod", "aud": wrong.get(str(audience), audience)})
        for actor in (said, lambda _: said):
            with pytest.raises(IssuanceError, match=r"is for .*, not for http://127.* only, so it is not sent") as told:
                Issuance(url).start(actor=actor)
            assert told.value.code == "invalid_client" and heard == []


@pytest.mark.parametrize("kind", ["at+jwt", "oauth-id-jag+jwt"])
def test_a_login_that_says_for_whom_it_is_goes_nowhere_else(kind: str) -> None:
    with answering(500, b"") as (url, heard), pytest.raises(IssuanceError, match="the login is for") as told:
        Issuance(url).start(login=Provider().sign({"sub": "jane", "aud": "https://other.example"}, typ=kind))
    assert told.value.code == "invalid_request" and heard == []


@pytest.mark.parametrize(
    "kind, called",
    [("at+jwt", "access_token"), ("oauth-id-jag+jwt", "id-jag"), ("JWT", "id_token"), (None, "id_token")],
)
def test_a_login_is_called_what_it_says_it_is(kind: str | None, called: str) -> None:
    with answering(500, b"") as (url, heard), pytest.raises(IssuanceError):
        Issuance(url).start(login=Provider().sign({"sub": "jane", "aud": url}, typ=kind))
    assert httpx.QueryParams(heard[0][2])["subject_token_type"] == f"urn:ietf:params:oauth:token-type:{called}"


def test_what_is_no_assertion_is_not_sent() -> None:
    with answering(500, b"") as (url, heard):
        for given in ({"login": "opaque"}, {"actor": "a.b.c"}, {"login": 7}, {"actor": lambda _: None}):
            with pytest.raises(IssuanceError, match="is not an assertion"):
                Issuance(url).start(**given)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="say who asks"):
            Issuance(url).start(grant="report")
        good = Provider().sign({"aud": url})
        for name in ("grant", "resource", "task", "agent"):
            with pytest.raises(ValueError, match=f"{name} is empty"):
                Issuance(url).start(actor=good, **{name: ""})  # type: ignore[arg-type]
        for keywords in ({"expires_at": float("nan")}, {"tools": {"a": object()}}):
            with pytest.raises(TypeError, match="keywords"):
                Issuance(url).start(actor=good, **keywords)  # type: ignore[arg-type]
    assert heard == []


# --- what is answered -----------------------------------------------------------------------------

ROOT = "urn:captoken:token-type:root"


@pytest.mark.parametrize(
    "status, body, code, words",
    [
        (200, b"{}", "temporarily_unavailable", "no held token"),
        (200, b"no", "temporarily_unavailable", "no held token"),
        (200, b"[]", "temporarily_unavailable", "no held token"),
        (200, b'{"issued_token_type":"urn:captoken:token-type:root","access_token":7}', "temporarily_unavailable", "no held token"),
        (200, b'{"issued_token_type":"urn:captoken:token-type:root","access_token":"cap1_x"}', "temporarily_unavailable", "what is no held token"),
        (400, b'{"error":"invalid_grant","error_description":"no\\u001b[31m"}', "invalid_grant", r"no\\x1b\[31m"),
        (400, b'{"error":"invalid_grant"}', "invalid_grant", "no reason is given"),
        (400, b'{"error":7}', "temporarily_unavailable", "answers 400, and not as"),
        (400, b'{"error":""}', "temporarily_unavailable", "answers 400, and not as"),
        (502, b"<html>", "temporarily_unavailable", "answers 502, and not as"),
        (302, b"", "temporarily_unavailable", "leads elsewhere, and is not followed"),
        (200, b"x" * 300_000, "temporarily_unavailable", "too much"),
    ],
)  # fmt: skip
def test_what_is_answered_is_a_token_or_an_error(status: int, body: bytes, code: str, words: str) -> None:
    headers = [(b"location", b"https://other.example/token")] if status == 302 else []
    with answering(status, body, *headers) as (url, heard), pytest.raises(IssuanceError, match=words) as told:
        Issuance(url).start(actor=Provider().sign({"aud": url}))
    assert told.value.code == code and len(heard) == 1


def test_a_token_that_is_not_bound_to_the_key_is_none(office: Office) -> None:
    root = Issuance(office.origin).start(actor=office.workload(jti="plain"), resource="sales-db", grant="nightly")
    body = json.dumps({"issued_token_type": ROOT, "access_token": root.serialize()}).encode()
    with answering(200, body) as (url, _), pytest.raises(IssuanceError, match="not bound to the key"):
        Issuance(url, key=HOLDER).start(actor=Provider().sign({"aud": url}))


def test_nothing_that_was_sent_is_in_an_error_a_repr_or_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A service, or a proxy before it, may repeat what it got."""
    caplog.set_level(logging.DEBUG)

    def repeat(sent: str) -> bytes:
        form = httpx.QueryParams(sent)
        words = f"what is {form['subject_token']} by {form['actor_token']}?"
        return json.dumps({"error": "invalid_grant", "error_description": words}).encode()

    login = Provider().sign({"sub": "jane"})
    with answering(400, repeat) as (url, heard):
        actor = Provider().sign({"aud": url})
        asks = Issuance(url, key=HOLDER)
        with pytest.raises(IssuanceError, match=r"^what is … by …\?$") as told:
            asks.start(login=login, actor=PlatformIdentity("test", lambda _: actor))
    error = told.value
    assert login in heard[0][2] and actor in heard[0][2]
    assert error.__cause__ is None and error.__context__ is None
    shown = repr(asks) + repr(error) + "".join(traceback.format_exception(error)) + caplog.text
    ours = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if "captoken/" in frame.f_code.co_filename]
    shown += "".join(repr(frame.f_locals) for frame in ours if "tests" not in frame.f_code.co_filename)
    assert login not in shown and actor not in shown


# --- the workload's identity ----------------------------------------------------------------------


def test_the_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    found = workload({"CAPTOKEN_IDENTITY_TOKEN_FILE": str(file)})
    assert repr(found) == "<Workload by file>" and found("https://a.example") == "one"
    file.write_text("two")
    assert found("https://a.example") == "two"
    file.write_bytes(b"\xff")
    with pytest.raises(IssuanceError, match="UnicodeDecodeError"):
        found("https://a.example")
    file.unlink()
    with pytest.raises(IssuanceError, match="token': FileNotFoundError") as told:
        found("https://a.example")
    assert told.value.code == "invalid_client"


def test_github_is_asked_with_the_jobs_token_for_this_audience() -> None:
    with answering(200, b'{"value":"a.b.c","count":1}') as (url, heard):
        given = {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{url}/x?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "job-secret"}
        assert workload(given)("https://issuer.example") == "a.b.c"
        assert workload({**given, "ACTIONS_ID_TOKEN_REQUEST_URL": f"{url}/x"})("a&b") == "a.b.c"
    assert heard[0][0] == "/x?api-version=2.0&audience=https%3A%2F%2Fissuer.example" and heard[1][0] == "/x?audience=a%26b"
    assert heard[0][1][b"authorization"] == b"Bearer job-secret"


@pytest.mark.parametrize("status, body", [(403, b""), (200, b"no"), (200, b"{}"), (200, b'{"value":1}')])
def test_github_that_gives_none(status: int, body: bytes) -> None:
    with answering(status, body) as (url, _):
        given = {"ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "job-secret"}
        with pytest.raises(IssuanceError, match="GitHub gives no identity") as told:
            workload(given)("https://issuer.example")
        assert "job-secret" not in str(told.value)
    for wrong, words in (
        ({**given, "ACTIONS_ID_TOKEN_REQUEST_URL": "http://github.example/x"}, "no https address"),
        ({"ACTIONS_ID_TOKEN_REQUEST_URL": url}, "ACTIONS_ID_TOKEN_REQUEST_TOKEN is not set"),
        ({**given, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "sécret"}, "cannot be asked: UnicodeEncodeError$"),
    ):
        with pytest.raises(IssuanceError, match=words):
            workload(wrong)("https://issuer.example")


def test_gitlab_has_put_it_into_a_variable() -> None:
    assert workload({"GITLAB_OIDC_TOKEN": "a.b.c"})("https://issuer.example") == "a.b.c"


def test_googles_metadata_server_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with answering(200, b"a.b.c\n") as (url, heard):
        assert workload({"GCE_METADATA_HOST": url.removeprefix("http://")})("https://issuer.example") == "a.b.c"
    assert heard[0][0].endswith("/default/identity?audience=https%3A%2F%2Fissuer.example&format=full")
    assert heard[0][1][b"metadata-flavor"] == b"Google"
    with answering(404, b"") as (url, _), pytest.raises(IssuanceError, match="it answers 404"):
        workload({"CAPTOKEN_IDENTITY": "google", "GCE_METADATA_HOST": url.removeprefix("http://")})("x")
    with pytest.raises(IssuanceError, match="cannot be asked: InvalidURL"):
        workload({"GCE_METADATA_HOST": "a:b"})("x")


def test_googles_metadata_server_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(web.Web, "send", lambda self, method, address, headers: asked.append(address) or (200, b"a.b.c"))
    assert workload({"K_SERVICE": "x"})("y") == "a.b.c"
    assert asked[0].startswith("http://metadata.google.internal/computeMetadata/v1/")


def spiffe(monkeypatch: pytest.MonkeyPatch, fetch: Callable[..., Any] | None) -> None:
    """The package `spiffe`, whose client fetches so; None: it is not installed."""
    module, errors = ModuleType("spiffe"), ModuleType("spiffe.errors")
    if fetch is None:
        monkeypatch.setitem(sys.modules, "spiffe", None)
        monkeypatch.setattr(client, "find_spec", lambda name: None)
        return

    class PySpiffeError(Exception):
        pass

    class WorkloadApiClient:
        def __init__(self, socket_path: str, default_timeout: float) -> None:
            assert socket_path == "unix:///run/agent.sock" and default_timeout == 10

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            pass

        def fetch_jwt_svid(self, audience: set[str]) -> Any:
            assert fetch is not None
            return fetch(audience, PySpiffeError)

    module.WorkloadApiClient, errors.PySpiffeError = WorkloadApiClient, PySpiffeError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spiffe", module)
    monkeypatch.setitem(sys.modules, "spiffe.errors", errors)
    monkeypatch.setattr(client, "find_spec", lambda name: object() if name == "spiffe" else None)


def test_the_workload_api_is_asked_where_its_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Svid:
        token = "a.b.c"

    given = {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/agent.sock"}

    def fetch(audience: set[str], error: type[Exception]) -> Any:
        if audience != {"https://issuer.example"}:
            raise error("secret")
        return Svid()

    spiffe(monkeypatch, fetch)
    assert workload(given)("https://issuer.example") == "a.b.c"
    with pytest.raises(IssuanceError, match=r"gives no identity: PySpiffeError$"):
        workload(given)("https://other.example")

    spiffe(monkeypatch, None)
    assert workload({**given, "GITLAB_OIDC_TOKEN": "x"}).source == "gitlab"
    with pytest.raises(ImportError, match=r"captoken\[spiffe\]"):
        workload({**given, "CAPTOKEN_IDENTITY": "spiffe"})("https://issuer.example")


def test_which_platform_it_is_nobody_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IssuanceError, match="no platform says who this is"):
        workload({})
    several = {"GITLAB_OIDC_TOKEN": "a", "CAPTOKEN_IDENTITY_TOKEN_FILE": "/b"}
    with pytest.raises(IssuanceError, match="CAPTOKEN_IDENTITY says which, file or gitlab"):
        workload(several)
    assert workload({**several, "CAPTOKEN_IDENTITY": "gitlab"})("x") == "a"
    with pytest.raises(IssuanceError, match=r"CAPTOKEN_IDENTITY is file or spiffe or .*, not 'azure'"):
        workload({**several, "CAPTOKEN_IDENTITY": "azure"})
    monkeypatch.setenv("CAPTOKEN_IDENTITY", "gitlab")
    monkeypatch.setenv("GITLAB_OIDC_TOKEN", "of the environment")
    assert workload()("x") == "of the environment"
    assert PlatformIdentity("own", lambda audience: audience)("x") == "x"

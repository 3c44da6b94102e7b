"""The client side, for httpx and httpx2: each server gets a token made for it and for the call at hand, and no other one does."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from time import time
from typing import Any

import httpx
import httpx2
import pytest

from captoken import Access, Issuer, Keyring, Token, Verifier, WideningError, current
from captoken.adapters.asgi import CaptokenMiddleware
from captoken.adapters.httpx import auth, raise_if_refused, raise_if_refused_async
from captoken.current import Held
from captoken.errors import DelegationError, NoToken, Refused
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryReplayStore

from .serving import listening, origin_of, served

KEYRING = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
KEY, OTHER = HolderKey.from_bytes(bytes(range(32))), HolderKey.from_bytes(bytes(range(1, 33)))
WHO: dict[str, Any] = {"subject": "user:jane", "agent": "clerk", "task": "task-1"}
WHO["expires_in"] = 86_400  # for as long as all of these tests may take
ROOT = Issuer(KEYRING).mint(**WHO, tables=["sales", "hr"], operations=["select"])
BOUND = Issuer(KEYRING).mint(**WHO, tables=["sales", "hr"], operations=["select"], key=KEY.public)

both = pytest.mark.parametrize("lib", [httpx, httpx2], ids=["httpx", "httpx2"])


class Service:
    """Answers with who asks, or with a redirect; notes the headers that reached the server, before the guard took them."""

    def __init__(self, audience: str, elsewhere: str = "") -> None:
        self.audience, self.elsewhere = audience, elsewhere
        self.seen: list[dict[str, str]] = []

    def app(self, origin: str) -> Any:
        verifier = Verifier(KEYRING, audience=self.audience, replays=MemoryReplayStore(floor=0))
        guard = CaptokenMiddleware(self.inner, verifier, origin=origin, public={"/open"})

        async def noting(scope: Any, receive: Any, send: Any) -> None:
            self.seen.append({name.decode(): value.decode() for name, value in scope["headers"]})
            await guard(scope, receive, send)

        return noting

    async def inner(self, scope: Any, receive: Any, send: Any) -> None:
        path, headers, body = scope["path"], [], b""
        status = 200
        if path in ("/sales", "/hr"):
            current.grant().authorize(Access(table=path[1:], operation="select"))
            body = current.grant().actor.name.encode()
        elif path == "/echo":
            message = await receive()
            body = message["body"]
        else:
            status, headers = (
                307,
                [(b"location", {"/away": self.elsewhere, "/within": "/sales", "/again": "/echo"}[path].encode())],
            )
        await send(
            {"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", b"%d" % len(body))]}
        )
        await send({"type": "http.response.body", "body": body})


class Two:
    """Two servers with an audience each; the first one redirects to the second."""

    def __init__(self, started: ExitStack) -> None:
        ports = listening(), listening()
        self.origins = [origin_of(port) for port in ports]
        self.services = Service("sales-api", self.origins[1] + "/sales"), Service("other-api")
        for port, service in zip(ports, self.services, strict=True):
            started.enter_context(served(service.app(origin_of(port)), port, "httptools"))
        self.servers = dict(zip(self.origins, ("sales-api", "other-api"), strict=True))


@pytest.fixture(scope="module")
def running() -> Iterator[Two]:
    with ExitStack() as started:
        yield Two(started)


@pytest.fixture
def two(running: Two) -> Two:
    for service in running.services:
        service.seen.clear()
    return running


def client(lib: Any, **keywords: Any) -> Any:
    return lib.Client(trust_env=False, **keywords)


# --- what is sent ----------------------------------------------------------------------------------------------------


@both
def test_each_server_gets_a_token_of_its_own(lib: Any, two: Two) -> None:
    with client(lib, auth=auth(two.servers, held=ROOT)) as opened:
        assert [opened.get(origin + "/sales").text for origin in two.origins] == ["clerk", "clerk"]
    sent = [service.seen[0]["authorization"].removeprefix("Bearer ") for service in two.services]
    assert sent[0] != sent[1] and ROOT.serialize() not in sent
    for text, audience in zip(sent, two.servers.values(), strict=True):
        assert Token.parse(text).unverified.capability.audiences == frozenset({audience})
        assert not Verifier(KEYRING, audience="third-api").check(text, Access(table="sales", operation="select"))


@both
def test_the_same_for_an_event_loop(lib: Any, two: Two) -> None:
    async def run() -> list[str]:
        async with lib.AsyncClient(auth=auth(two.servers), trust_env=False) as opened:

            async def ask(agent: str) -> str:
                with current.use(ROOT), current.delegate(to=agent, tables=["sales"]):
                    return (await opened.get(two.origins[0] + "/sales")).text

            return await asyncio.gather(*map(ask, ("one", "two", "three")))

    assert asyncio.run(run()) == ["one", "two", "three"]


@both
def test_the_token_is_the_one_that_is_current_at_each_request(lib: Any, two: Two) -> None:
    with client(lib, auth=auth(two.servers), base_url=two.origins[0]) as opened:
        with pytest.raises(NoToken):
            opened.get("/sales")
        with current.use(ROOT):
            assert opened.get("/sales").text == "clerk"
            with current.delegate(to="helper", tables=["hr"]):
                assert opened.get("/hr").text == "helper"
                assert opened.get("/sales").status_code == 403
        raised: list[BaseException] = []

        def elsewhere() -> None:
            try:
                opened.get("/sales")
            except NoToken as error:
                raised.append(error)

        with current.use(ROOT):
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        assert len(raised) == 1
    assert len(two.services[0].seen) == 3


@both
def test_what_goes_can_be_narrowed_to_the_call_at_hand(lib: Any, two: Two) -> None:
    def narrow(request: Any) -> Any:
        return {"tables": ["sales"], "operations": ["select"]} if request.url.path == "/sales" else None

    with client(lib, auth=auth(two.servers, held=ROOT, narrow=narrow, expires_in=5), base_url=two.origins[0]) as opened:
        assert (opened.get("/sales").status_code, opened.get("/hr").status_code) == (200, 200)
    narrowed, whole = (Token.parse(seen["authorization"][7:]) for seen in two.services[0].seen)
    hr = Access(table="hr", operation="select")
    verifier = Verifier(KEYRING, audience="sales-api")
    assert not verifier.check(narrowed.serialize(), hr) and verifier.check(whole.serialize(), hr)
    assert whole.unverified.expires_at is not None and whole.unverified.expires_at <= time() + 5


@both
def test_asking_for_more_than_is_held_raises_before_anything_is_sent(lib: Any, two: Two) -> None:
    with (
        client(lib, auth=auth(two.servers, held=ROOT, narrow=lambda _: {"tables": ["payroll"]})) as opened,
        pytest.raises(Refused) as caught,
    ):
        opened.get(two.origins[0] + "/sales")
    assert two.services[0].seen == []
    assert caught.value.here and isinstance(caught.value.__cause__, WideningError) and "payroll" in str(caught.value)
    assert caught.value.for_model.startswith("Not permitted") and "payroll" not in caught.value.for_model


@both
def test_a_refusal_of_the_servers_is_raised_with_its_words_for_the_model(lib: Any, two: Two) -> None:
    """By a call after the answer, and by a hook of either client."""
    shown = auth(two.servers, held=ROOT, narrow=lambda _: {"tables": ["sales"], "operations": ["select"]})
    strange = auth(dict.fromkeys(two.servers, "third-api"), held=ROOT)
    sales, hr = (two.origins[0] + path for path in ("/sales", "/hr"))
    raised = []
    with client(lib, auth=shown) as opened:
        assert raise_if_refused(opened.get(sales)).text == "clerk"
        for url, by in ((hr, shown), (sales, strange)):
            with pytest.raises(Refused) as caught:
                raise_if_refused(opened.get(url, auth=by))
            raised.append(caught.value)
    assert [(each.kind, each.here) for each in raised] == [("insufficient", False), ("invalid", False)]
    assert raised[0].for_model.startswith("Not permitted: table hr is not among the tables of this task.")
    assert "addressed to another server" in str(raised[1])

    with client(lib, auth=shown, event_hooks={"response": [raise_if_refused]}) as hooked, pytest.raises(Refused):
        hooked.get(hr)

    async def run() -> None:
        hooks = {"response": [raise_if_refused_async]}
        async with lib.AsyncClient(auth=shown, event_hooks=hooks, trust_env=False) as opened:
            assert (await opened.get(sales)).text == "clerk"
            with pytest.raises(Refused):
                await opened.get(hr)

    asyncio.run(run())


OTHERS = ['{"title": "Not Found"}', "[]", "{", '{"error": "insufficient_scope"}', '{"error": [], "for_model": "x"}',
          '{"error": "x", "for_model": "x"}', '{"error": "invalid_token", "for_model": 3}', "[" * 100_000]  # fmt: skip


@both
@pytest.mark.parametrize("said", OTHERS)
def test_an_error_of_another_kind_is_an_answer(lib: Any, said: str) -> None:
    for status, kind in ((404, "application/problem+json"), (404, "application/json"), (200, "application/problem+json")):
        answer = lib.Response(status, headers={"content-type": kind}, text=said)
        assert raise_if_refused(answer) is answer


@both
def test_the_words_of_a_server_are_bounded(lib: Any) -> None:
    said = {"error": "invalid_token", "for_model": "x" * 10_000, "detail": None}
    with pytest.raises(Refused) as caught:
        raise_if_refused(lib.Response(401, headers={"content-type": "application/problem+json"}, json=said))
    assert len(caught.value.for_model) == 2000


@both
@pytest.mark.parametrize("target", ["/sales", "/sales?", "/sales?a=1&b=%2f%20ü#fragment", "/s%61les", "/./sales"])
def test_a_bound_token_goes_with_a_proof_of_this_request(lib: Any, target: str, two: Two) -> None:
    with client(lib, auth=auth(two.servers), base_url=two.origins[0]) as opened:
        with current.use(BOUND, KEY):
            assert [opened.get(target).status_code for _ in range(2)] == [200, 200]
            assert opened.request("POST", "/echo", content=b"a body").text == "a body"
            assert opened.post("/echo", json={"a": 1}).json() == {"a": 1}
            assert opened.post("/echo", data={"a": "1"}).text == "a=1"
        with current.use(BOUND, OTHER), pytest.raises(DelegationError):
            opened.get(target)
        with current.use(BOUND), pytest.raises(NoToken, match="key is not in use"):
            opened.get(target)
        with current.use(BOUND, KEY), current.delegate(to="helper", key=OTHER, tables=["sales"]):
            assert opened.get(target).text == "helper"
    sent = [seen["authorization"] for seen in two.services[0].seen]
    proofs = [text.rpartition(".")[2] for text in sent]
    assert len(set(proofs)) == len(proofs) == 6 and all(proof.startswith("cap1p_") for proof in proofs)


@both
def test_a_body_that_is_not_there_yet_cannot_be_proven(lib: Any, two: Two) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"

    async def later() -> AsyncIterator[bytes]:
        yield b"a"

    with client(lib, auth=auth(two.servers), base_url=two.origins[0]) as opened:
        with current.use(BOUND, KEY):
            with pytest.raises(ValueError, match=r"request\.read\(\)"):
                opened.post("/echo", content=pieces())
            with pytest.raises(ValueError, match=r"request\.read\(\)"):
                opened.post("/echo", files={"a": b"a"})
            request = opened.build_request("POST", "/echo", files={"a": b"a"})
            body = request.read()
            assert opened.send(request).content == body
        with current.use(ROOT):
            assert opened.post("/echo", content=pieces()).text == "a"

    async def run() -> None:
        async with lib.AsyncClient(
            auth=auth(two.servers, held=Held(BOUND, KEY)), base_url=two.origins[0], trust_env=False
        ) as opened:
            with pytest.raises(ValueError, match=r"request\.read\(\)"):
                await opened.post("/echo", content=later())

    asyncio.run(run())
    assert len(two.services[0].seen) == 2
    # Behind the coding of the body, some servers show trailers, and our guard takes no token there.
    names = list(two.services[0].seen[1])
    assert names.index("authorization") < names.index("transfer-encoding")


# --- where nothing is sent -------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/", "http://api.example/", "https://api.example:8443/", "https://api.example.evil.example/",
        "https://api.example@evil.example/", "https://evil.example/https://api.example", "https://[::1]/", "http://api.example:443/",
        "https://xn--pi-mia.example/", "https://api.example./",
    ],
)  # fmt: skip
def test_an_origin_that_is_not_listed_gets_nothing(lib: Any, url: str) -> None:
    request = lib.Request("GET", url)
    with pytest.raises(NoToken, match="not among the servers"):
        auth({"https://api.example": "sales-api"}, held=ROOT)(request)
    assert "cap1" not in repr(request.headers.raw)


@both
@pytest.mark.parametrize(
    "url",
    [
        "https://api.example",
        "https://API.example:443/x?y",
        "https://user:pass@api.example/",
        "HTTPS://api.EXAMPLE/",
        "https://[::1]:1/",
    ],
)
def test_an_origin_that_is_listed_is_known_in_each_spelling(lib: Any, url: str) -> None:
    servers = {"https://api.example": "sales-api", "https://[::1]:1": "sales-api"}
    sent = auth(servers, held=ROOT)(lib.Request("GET", url))
    assert sent.headers["authorization"].startswith("Bearer cap1_")


@both
@pytest.mark.parametrize("given", [{"Authorization": "Basic YTpi"}, {"authorization": ""}, {"Authorization": "Bearer x"}])
def test_a_request_with_credentials_is_not_given_others(lib: Any, given: dict[str, str], two: Two) -> None:
    with client(lib, auth=auth(two.servers, held=ROOT)) as opened, pytest.raises(ValueError, match="already has credentials"):
        opened.get(two.origins[0] + "/sales", headers=given)
    assert two.services[0].seen == []


@both
def test_a_redirect_to_another_server_takes_no_token_along(lib: Any, two: Two) -> None:
    """Even to one that is listed: the token would be for the wrong server."""
    for held in (Held(ROOT), Held(BOUND, KEY)):
        with client(lib, auth=auth(two.servers, held=held), follow_redirects=True) as opened:
            assert opened.get(two.origins[0] + "/away").status_code == 401
    assert all("authorization" in seen for seen in two.services[0].seen)
    assert [("authorization" in seen, "cap1_" in str(seen)) for seen in two.services[1].seen] == [(False, False)] * 2


@both
def test_a_redirect_within_the_server_takes_the_same_token_along(lib: Any, two: Two) -> None:
    """A bearer token is good there; a proof is for one request, and a hook makes one for the next."""
    with client(lib, auth=auth(two.servers, held=ROOT), follow_redirects=True) as opened:
        assert opened.get(two.origins[0] + "/within").text == "clerk"
    with client(lib, auth=auth(two.servers, held=Held(BOUND, KEY)), follow_redirects=True) as opened:
        assert opened.get(two.origins[0] + "/within").status_code == 401


@both
@pytest.mark.parametrize("held", [Held(ROOT), Held(BOUND, KEY)], ids=["bearer", "bound"])
def test_what_is_sent_again_is_presented_anew(lib: Any, held: Held, two: Two) -> None:
    """A request that a caller tries once more, and one that follows on a redirect, built by the library (30.10)."""
    with client(lib, auth=auth(two.servers, held=held)) as opened:
        request = opened.build_request("POST", two.origins[0] + "/echo", content=b"a body")
        assert [opened.send(request).text for _ in range(2)] == ["a body"] * 2
        following = opened.get(two.origins[0] + "/within").next_request
        assert opened.send(following).text == "clerk"
    sent = [seen["authorization"] for seen in two.services[0].seen]
    assert len(set(sent)) == len(sent) == 4 or held.signer is None


@both
@pytest.mark.parametrize("header", ["Bearer x", "Basic YTpi"])
def test_credentials_that_somebody_put_into_a_request_that_was_sent_stay_refused(lib: Any, header: str, two: Two) -> None:
    with client(lib, auth=auth(two.servers, held=ROOT)) as opened:
        request = opened.build_request("GET", two.origins[0] + "/sales")
        assert opened.send(request).text == "clerk"
        request.headers["Authorization"] = header
        with pytest.raises(ValueError, match="already has credentials"):
            opened.send(request)
    assert len(two.services[0].seen) == 1


@both
@pytest.mark.parametrize("held", [Held(ROOT), Held(BOUND, KEY)], ids=["bearer", "bound"])
def test_as_a_hook_it_is_asked_for_each_sending(lib: Any, held: Held, two: Two) -> None:
    """Redirects too: within the server, and to one that is listed, which gets a token of its own."""
    shown = auth(two.servers, held=held)
    with client(lib, event_hooks={"request": [shown]}, follow_redirects=True) as opened:
        assert opened.get(two.origins[0] + "/within").text == "clerk"
        assert opened.get(two.origins[0] + "/away").text == "clerk"
        assert opened.post(two.origins[0] + "/again", content=b"a body").text == "a body"

    async def run() -> list[str]:
        async with lib.AsyncClient(event_hooks={"request": [shown.hook]}, follow_redirects=True, trust_env=False) as opened:
            return [(await opened.get(two.origins[0] + path)).text for path in ("/within", "/away")]

    assert asyncio.run(run()) == ["clerk", "clerk"]
    listed = auth({two.origins[0]: "sales-api"}, held=held)
    with client(lib, event_hooks={"request": [listed]}, follow_redirects=True) as opened, pytest.raises(NoToken):
        opened.get(two.origins[0] + "/away")
    assert all("cap1" not in str(seen) or seen["authorization"] for seen in two.services[1].seen)
    assert len(two.services[1].seen) == 2


@both
def test_another_target_than_the_urls_cannot_be_proven(lib: Any) -> None:
    request = lib.Request("GET", "https://api.example/a", extensions={"target": b"/b"})
    with pytest.raises(ValueError, match="another target"):
        auth({"https://api.example": "sales-api"}, held=Held(BOUND, KEY))(request)


@pytest.mark.parametrize(
    "origin", ["http://api.example", "https://api.example/", "https://api.example/v1", "https://api.example:443", "https://API.example",
               "http://localhost", "http://127.0.0.1", "http://[::1]", "api.example", "https://", "ftp://api.example", "https://a@api.example", "http://192.168.0.1", "http://localhost.example"],
)  # fmt: skip
def test_servers_are_origins_that_can_keep_a_secret(origin: str) -> None:
    with pytest.raises(ValueError):
        auth({origin: "sales-api"})


def test_plain_http_on_its_own_port_is_listed_with_https_beside_it() -> None:
    """Where a redirect from the one to the other takes the token along, in both libraries."""
    auth({"http://localhost": "sales-api", "https://localhost": "sales-api", "http://localhost:8000": "hr-api"})


def test_an_audience_is_a_name() -> None:
    with pytest.raises(ValueError):
        auth({"https://api.example": "sales api"})


@both
def test_what_a_server_was_granted_is_not_what_it_holds(lib: Any, two: Two) -> None:
    """A server that asks another one needs a token of its own; what came in is not passed on."""
    grant = Verifier(KEYRING, audience="sales-api").authenticate(ROOT.present(audience="sales-api"))
    with current.serving(grant), client(lib, auth=auth(two.servers)) as opened, pytest.raises(NoToken):
        opened.get(two.origins[1] + "/sales")
    assert two.services[1].seen == []


@both
def test_a_trace_goes_along(lib: Any, two: Two) -> None:
    with client(lib, auth=auth(two.servers, held=ROOT)) as opened, current.traced() as trace:
        opened.get(two.origins[0] + "/sales")
        opened.get(two.origins[0] + "/sales", headers={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
    assert [seen["traceparent"][3:35] for seen in two.services[0].seen] == [trace, "a" * 32]


@both
def test_errors_show_no_token(lib: Any) -> None:
    def broken(request: Any) -> Any:
        raise LookupError("a fault")

    request = lib.Request("GET", "https://api.example/")
    with pytest.raises(LookupError) as caught:
        auth({"https://api.example": "sales-api"}, held=ROOT, narrow=broken)(request)
    assert not any("cap1_" in repr(entry.frame.f_locals) for entry in caught.traceback)


def test_neither_library_is_imported_by_it() -> None:
    source = inspect.getsource(inspect.getmodule(auth))  # type: ignore[arg-type]
    assert "import httpx" not in source and "from httpx" not in source

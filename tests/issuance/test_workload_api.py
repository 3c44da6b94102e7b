"""A trust domain's bundle from its agent: over a unix socket, as the Workload API has it, from a gRPC server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captoken.issuance import keys, policy, workload_api
from captoken.issuance.identity import ACTORS
from captoken.issuance.jose import KeysError
from captoken.issuance.keys import ProviderKeys
from captoken.issuance.workload_api import bundle
from tests.issuance.assertions import LIVE, NOW, SVID, US, document, identify, jwk, needed_key, signed, without
from tests.issuance.authority import Authority


def field(number: int, data: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])


def bundles(**of: bytes) -> bytes:
    """What an agent answers: a map from trust domains to their bundles."""
    return b"".join(field(1, field(1, f"spiffe://{name}.example".encode()) + field(2, data)) for name, data in of.items())


@asynccontextmanager
async def agent(tmp_path: Path, *answers: bytes, then: Callable[[Any], Any] | None = None) -> AsyncIterator[str]:
    """An agent that answers so, and then waits for changes that do not come."""

    async def fetch(request: bytes, context: Any) -> AsyncIterator[bytes]:
        assert request == b""
        if ("workload.spiffe.io", "true") not in [tuple(one) for one in context.invocation_metadata()]:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        for answer in answers:
            yield answer
        if then is not None:
            await then(context)
            return
        await asyncio.sleep(60)

    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(fetch)
    handlers = {"FetchJWTBundles": handler, "FetchX509Bundles": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", handlers),))
    address = f"unix://{tmp_path}/agent.sock"
    server.add_insecure_port(address)
    await server.start()
    yield address
    await server.stop(0)


def run(story: Any) -> Any:
    return asyncio.run(asyncio.wait_for(story, 20))


def with_bundle(address: str) -> policy.Policy:
    return policy.read(
        'version = 1\nservice = { origin = "https://issuer.example" }\nresource = {}\ngrant = {}\n'
        f'provider = {{ mesh = {{ kind = "spiffe", trust_domain = "acme.example", bundle = "{address}" }} }}'
    )


# As SPIRE's agent writes it: without `use` (spiffe/spire, pkg/common/bundleutil/marshal.go, StandardJWKS).
KEYS = document(without(jwk("mesh"), "use", "alg"))


def test_from_an_agent_to_a_workload_that_is_known(tmp_path: Path) -> None:
    async def story() -> None:
        async with agent(tmp_path, bundles(other=b"{}", acme=KEYS)) as address:
            text = signed("mesh", SVID)
            loaded = with_bundle(address)
            known = ProviderKeys(loaded)
            await known.want(*needed_key(text, loaded, ACTORS))
            assert identify(text, loaded, known, NOW, US, ACTORS).sub == SVID["sub"]
            assert known.problems == {}

    run(story())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (bundles(other=KEYS), "the agent has 0 bundles of acme.example"),
        (bundles(acme=KEYS) * 2, "the agent has 2 bundles of acme.example"),
        (b"", "the agent has 0 bundles of acme.example"),
        (bundles(acme=KEYS)[:-1], "cut off"),
        (bundles(acme=KEYS)[:2], "cut off"),
        (b"\xff" * 20, "cut off"),
        (varint(1 << 3) + varint(7), "fields of other kinds"),
        (field(1, varint(1 << 3) + varint(7)), "fields of other kinds"),
    ],
)
def test_an_answer_that_is_not_one_bundle_is_refused(tmp_path: Path, answer: bytes, says: str) -> None:
    async def story() -> None:
        async with agent(tmp_path, answer) as address:
            with pytest.raises(KeysError, match=says):
                await bundle(address, "acme.example")

    run(story())


@pytest.mark.parametrize(
    "answer",
    [bundles(acme=KEYS), field(9, b"of a later version") + bundles(acme=KEYS), field(1, field(1, b"spiffe://acme.example") + field(2, b"x") + field(2, KEYS))],
)
def test_a_bundle_is_taken_as_it_was_published(tmp_path: Path, answer: bytes) -> None:
    async def story() -> None:
        async with agent(tmp_path, answer) as address:
            assert await bundle(address, "acme.example") == KEYS

    run(story())


@pytest.mark.parametrize("length", [1, 127, 128, 129, 255, 256, 16383, 16384, 2**21 - 1, 2**21])
def test_a_length_is_read_as_protobuf_writes_it(length: int) -> None:
    data = b"k" * length
    assert workload_api._bundle_in(bundles(other=b"x" * 128, acme=data), 1, "acme.example") == data


def test_an_entry_without_a_bundle_is_no_key_set() -> None:
    assert workload_api._bundle_in(field(1, field(1, b"spiffe://acme.example")), 1, "acme.example") == b""


def test_an_agent_that_refuses_or_is_away_is_told_in_a_line(tmp_path: Path) -> None:
    async def refuse(context: Any) -> None:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")

    async def story() -> None:
        async with agent(tmp_path, then=refuse) as address:
            with pytest.raises(KeysError, match=r"^PERMISSION_DENIED: no identity issued$"):
                await bundle(address, "acme.example")
        with pytest.raises(KeysError, match=r"^UNAVAILABLE: "):
            await bundle(f"unix://{tmp_path}/nobody.sock", "acme.example")

    run(story())


def test_an_agent_that_ends_without_an_answer_did_not_answer(tmp_path: Path) -> None:
    async def end(context: Any) -> None:
        pass

    async def story() -> None:
        async with agent(tmp_path, then=end) as address:
            with pytest.raises(KeysError, match="did not answer"):
                await bundle(address, "acme.example")

    run(story())


def test_an_agent_that_is_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "PATIENCE", 0.2)

    async def story() -> None:
        async with agent(tmp_path) as address:
            loaded = with_bundle(address)
            assert "did not come within" in (await ProviderKeys(loaded).start())["mesh"]

    run(story())


@given(st.binary(max_size=60) | st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=20))).map(lambda parts: b"".join(field(*one) for one in parts)))
def test_fuzz_no_answer_is_a_bundle_or_another_error(answer: bytes) -> None:
    with pytest.raises(KeysError):
        workload_api._bundle_in(answer, 1, "acme.example")


def test_what_is_signed_by_a_key_for_something_else_is_refused(tmp_path: Path) -> None:
    """The bundle has the key, for X.509: it is not one for JWT-SVIDs."""

    async def story() -> None:
        async with agent(tmp_path, bundles(acme=document(jwk("mesh", use="x509-svid"), jwk("mesh", "ES384", use="jwt-svid")))) as address:
            loaded = with_bundle(address)
            known = ProviderKeys(loaded)
            assert await known.start() == {}
            assert known("mesh", "mesh-ES256") is None and known("mesh", "mesh-ES384") is not None
            claims = {"sub": SVID["sub"], "aud": US, **LIVE}
            assert identify(signed("mesh", claims, "ES384"), loaded, known, NOW, US, ACTORS).kind == "spiffe"

    run(story())


def test_from_an_agent_to_the_authorities_of_a_trust_domain(tmp_path: Path) -> None:
    """Beside its map, this answer has lists of what was revoked, in the field that the other one has its map in."""
    ours = Authority()

    async def story() -> None:
        entries = [field(2, field(1, f"spiffe://{name}.example".encode()) + field(2, data)) for name, data in (("other", b"0"), ("acme", ours.der))]
        async with agent(tmp_path, field(1, b"a list of revoked ones") + b"".join(entries)) as address:
            assert await workload_api.x509_bundle(address, "acme.example") == ours.der
            with pytest.raises(KeysError, match=r"0 bundles of nobody\.example"):
                await workload_api.x509_bundle(address, "nobody.example")

            text = f'bundle = "/nowhere", x509_bundle = "{address}"'
            loaded = policy.read(
                'version = 1\nservice = { origin = "https://issuer.example" }\nresource = {}\ngrant = {}\n'
                f'provider = {{ mesh = {{ kind = "spiffe", trust_domain = "acme.example", {text} }} }}'
            )
            known = ProviderKeys(loaded)
            await known.want_authorities("mesh")
            assert known.authorities("mesh") is not None
            await known.close()

    run(story())

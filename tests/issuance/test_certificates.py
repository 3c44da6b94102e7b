"""A workload is known by the certificate that it has shown, and no certificate of anybody else's makes it one.

Numbers are those of the cases that must be denied. Each is beside a twin that passes.
"""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from captoken import Access, Verifier
from captoken.adapters._issuance.certificates import shown_chain
from captoken.adapters.issuance import IssuanceService
from captoken.errors import CaptokenError, IssuanceError
from captoken.issuance.certificates import (
    AUTHORITIES,
    MAX_AUTHORITIES,
    MAX_BYTES,
    MAX_CERTIFICATES,
    read_bundle,
    shown_by,
    verify,
)
from captoken.issuance.jose import JoseError, Key, KeysError
from captoken.issuance.keys import FRESH, GOOD, PAUSE, ProviderKeys
from captoken.issuance.policy import Policy, Proxy, read
from captoken.issuance.registry import MemoryRegistry
from captoken.testing import FixedClock

from .authority import Authority, Shown
from .fixtures import HOLDER, KEYRING, NOW
from .registries import tasks
from .signing import Provider, dpop

ORIGIN = "https://issuer.example"
ROBOT = "spiffe://acme.example/ns/risk/sa/robot"
SALES = Access(table="sales", operation="select")
ACME, STRANGER = Authority(), Authority()
LOGIN, MESH = Provider("a"), Provider("m")

POLICY = """
version = 1
[service]
origin = "https://issuer.example"
{proxy}
[provider.acme]
kind = "oidc"
issuer = "https://login.acme.example"
client_ids = ["captoken-cli"]
max_login_age = 28800
subject = "acme:{{sub}}"
[provider.mesh]
kind = "spiffe"
trust_domain = "acme.example"
bundle = "{folder}/keys.json"
x509_bundle = "{folder}/acme.pem"
subject = "mesh:{{sub}}"
{require}
[provider.other]
kind = "spiffe"
trust_domain = "other.example"
bundle = "{folder}/keys.json"
subject = "other:{{sub}}"
[resource.sales-db]
[grant.nightly]
subject = {{ provider = "mesh", sub = "spiffe://acme.example/ns/risk/*" }}
agents = ["nightly"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
[grant.report]
subject = {{ provider = "acme", groups = ["finance"] }}
actor = {{ provider = "mesh", sub = "spiffe://acme.example/ns/risk/*" }}
agents = ["orchestrator"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
"""


def policy(folder: Path | str = "/nowhere", proxy: str = "", require: str = "") -> Policy:
    return read(POLICY.format(folder=folder, proxy=proxy, require=require))


OF = policy()
HERE = read_bundle(ACME.pem).keys[AUTHORITIES]


def known(shown: Shown, *, client_id: str = ROBOT, of: Policy = OF, by: Key | None = HERE, now: int = NOW) -> Any:
    return verify(shown_by(shown.chain, client_id, of), of, by, now)


def refused(says: str, shown: Shown, **how: Any) -> Any:
    with pytest.raises(IssuanceError, match=says) as told:
        known(shown, **how)
    assert told.value.code == "invalid_client" and str(told.value).startswith("the certificate is refused: ")
    return told.value


# --- whose certificate it is ----------------------------------------------------------------------


def test_a_certificate_says_who_it_is() -> None:
    who = known(ACME.svid(ROBOT))
    assert (who.provider, who.kind, who.issuer, who.sub, who.is_live) == ("mesh", "spiffe", "acme.example", ROBOT, True)
    assert (who.issued_at, who.expires_at, who.claims) == (NOW, NOW + 3600, {"sub": ROBOT})


@pytest.mark.parametrize(
    "shown",
    [
        ACME.svid(ROBOT, dns=["robot.acme.example"]),
        ACME.svid(ROBOT, bits=("digital_signature",)),
        ACME.svid(ROBOT, purposes=()),
        ACME.svid(ROBOT, purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,)),
        Authority("below", above=ACME).svid(ROBOT),
    ],
    ids=["a DNS name beside it", "for signatures alone", "no purposes", "for clients alone", "by an authority below"],
)
def test_what_else_a_good_one_may_have(shown: Shown) -> None:
    assert known(shown).sub == ROBOT


BELOW = Authority("below", above=ACME)
LEAF = ACME.svid(ROBOT)


def ended(above: Authority | None = None) -> Authority:
    """An authority that is over, and that goes on to sign."""
    made = Authority("acme.example", now=NOW - 3600 * 24 * 2, above=above)
    made.now = ACME.now
    return made


def leaf_of_a_leaf() -> Shown:
    """What a workload has signed with the key of its own certificate."""
    worker = Authority()
    worker.key, worker.name = LEAF.key, LEAF.certificate.subject
    made = worker.svid(ROBOT)
    return Shown(made.certificate, made.key, [LEAF.certificate])


ENDED = ended()


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (ACME.svid(ROBOT, "spiffe://acme.example/admin"), "it has 2 URIs, and an SVID has one"),
        (ACME.svid(ROBOT, "https://acme.example/robot"), "it has 2 URIs"),
        (ACME.svid(dns=["acme.example"]), "it has 0 URIs"),
        (ACME.svid(), "it has 0 URIs"),
        (ACME.svid("spiffe://acme.example/ns/risk/sa/other"), "and not of the client_id"),
        (ACME.svid("SPIFFE://acme.example/ns/risk/sa/robot"), "and not of the client_id"),
        (ACME.svid(ROBOT, is_authority=True, bits=("digital_signature", "key_cert_sign")), "it is an authority's"),
        (ACME.svid(ROBOT, is_authority=True), "it is an authority's"),
        (ACME.svid(ROBOT, bits=("digital_signature", "key_cert_sign")), "it is an authority's"),
        (ACME.svid(ROBOT, bits=("digital_signature", "crl_sign")), "it is an authority's"),
        (ACME.svid(ROBOT, bits=("key_encipherment",)), "its key is not for signatures"),
        (ACME.svid(ROBOT, bits=None), "its key is not for signatures"),
        (ACME.svid(ROBOT, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)), "no path leads from it"),
        (STRANGER.svid(ROBOT), "no path leads from it to an authority of its trust domain"),
        (Shown(BELOW.svid(ROBOT).certificate, BELOW.key), "no path leads from it"),
        (ENDED.svid(ROBOT), "no path leads from it"),
        (ended(above=ACME).svid(ROBOT), "no path leads from it"),
        (leaf_of_a_leaf(), "no path leads from it"),
        (ACME.svid(ROBOT, begins=-7200, ends=-1), "no path leads from it"),
        (ACME.svid(ROBOT, begins=1), "no path leads from it"),
        (ACME.svid(ROBOT, ends=86_401), "it is good for 86411 s, which is not taken"),
    ],
    ids=[
        "75 two URIs", "75 two URIs, one of them no SPIFFE ID", "75 no URI", "75 no names", "another one than the request names", "upper case",
        "75 a CA as leaf", "75 a CA as leaf, whose key signs none", "75 a CA by its key", "75 a CA by its lists", "a key for encryption",
        "a key for nothing stated", "for servers alone", "75 the trust store of a stranger", "the one between is not shown", "an authority of before",
        "by an authority below that is over", "75 by a workload, which is no CA", "ended", "not good yet", "good for too long",
    ],
)  # fmt: skip
def test_what_is_no_svid_of_that_workload_is_refused(shown: Shown, says: str) -> None:
    refused(says, shown)


def test_an_authority_that_is_over_is_none_even_if_the_bundle_has_it() -> None:
    refused("no path leads from it", ENDED.svid(ROBOT), by=read_bundle(ENDED.pem).keys[AUTHORITIES])
    both = read_bundle(ENDED.pem + ACME.pem).keys[AUTHORITIES]
    assert known(ACME.svid(ROBOT), by=both).sub == ROBOT


@pytest.mark.parametrize(
    "client_id",
    ["spiffe://acme.example", "spiffe://acme.example/", "spiffe://acme.example/a/../b", "spiffe://acme.example/" + "a" * 2048],
    ids=["bare", "an empty path", "a step up", "too long"],
)
def test_what_is_no_workloads_id_is_refused(client_id: str) -> None:
    refused("is no SPIFFE ID of a workload", ACME.svid(client_id), client_id=client_id)


@pytest.mark.parametrize(
    "client_id", ["spiffe://other.example/robot", "spiffe://nobody.example/robot", "spiffe://", "https://login.acme.example"]
)
def test_a_trust_domain_that_takes_none_is_refused_whoever_signed(client_id: str) -> None:
    """`other` has keys for JWT-SVIDs alone. An authority of one domain says nothing of another one."""
    refused("its trust domain is not known here, or no certificates of it are taken", ACME.svid(client_id), client_id=client_id)


def test_the_authority_of_one_domain_signs_nobody_of_another() -> None:
    both = read(
        POLICY.format(folder="/nowhere", proxy="", require="").replace(
            '[provider.other]\nkind = "spiffe"', '[provider.other]\nkind = "spiffe"\nx509_bundle = "/nowhere/other.pem"'
        )
    )
    theirs = Authority("other.example")
    robot = "spiffe://other.example/robot"
    assert known(theirs.svid(robot), client_id=robot, of=both, by=read_bundle(theirs.pem).keys[AUTHORITIES]).provider == "other"
    refused("no path leads from it", ACME.svid(robot), client_id=robot, of=both, by=read_bundle(theirs.pem).keys[AUTHORITIES])


def test_75_the_trust_store_of_the_machine_is_never_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store.pem").write_bytes(STRANGER.pem)
    monkeypatch.setenv("SSL_CERT_FILE", f"{tmp_path}/store.pem")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    refused("no path leads from it", STRANGER.svid(ROBOT))
    assert known(ACME.svid(ROBOT)).sub == ROBOT
    refused("no authority of its trust domain is known", ACME.svid(ROBOT), by=None)


def test_what_the_policy_requires() -> None:
    strict = policy(require='require = { sub = ["spiffe://acme.example/ns/hr/*"] }')
    told = refused("it is not one of those that are taken", ACME.svid(ROBOT), of=strict)
    assert told.why == "provider mesh requires: sub is spiffe://acme.example/ns/hr/*"
    lax = policy(require='require = { sub = ["spiffe://acme.example/ns/risk/*"] }\nx509_max_life = 90000')
    assert known(ACME.svid(ROBOT, ends=86_401), of=lax).sub == ROBOT


def test_a_chain_is_bounded() -> None:
    one = ACME.svid(ROBOT)
    for chain, says in (
        ([], "none was shown"),
        ([one.chain[0]] * (MAX_CERTIFICATES + 1), f"more than {MAX_CERTIFICATES} were shown"),
        ([one.chain[0] + bytes(MAX_BYTES)], f"it is larger than {MAX_BYTES} bytes"),
        ([b"no certificate"], "it cannot be read: ValueError"),
        ([one.chain[0], b""], "it cannot be read"),
    ):
        with pytest.raises(IssuanceError, match=says):
            shown_by(chain, ROBOT, OF)
    assert shown_by([one.chain[0]] * MAX_CERTIFICATES, ROBOT, OF).spiffe_id == ROBOT


GOOD_ONE = ACME.svid(ROBOT).chain[0]


def test_a_signature_whose_last_bits_are_left_out_is_no_second_spelling() -> None:
    """Where they are zero, the certificate would verify."""
    good = next(made for made in (ACME.svid(ROBOT).chain[0] for _ in range(100)) if made[-1] % 2 == 0)
    at = len(good) - len(x509.load_der_x509_certificate(good).signature) - 1  # how many bits are left out
    assert verify(shown_by([good], ROBOT, OF), OF, HERE, NOW)
    with pytest.raises(IssuanceError, match="its signature is not of whole bytes"):
        shown_by([good[:at] + b"\1" + good[at + 1 :]], ROBOT, OF)


@given(st.integers(0, len(GOOD_ONE) - 1), st.integers(1, 255), st.binary(max_size=4))
def test_fuzz_a_certificate_with_a_byte_changed_is_nobodys(at: int, by: int, more: bytes) -> None:
    changed = GOOD_ONE[:at] + bytes([GOOD_ONE[at] ^ by]) + GOOD_ONE[at + 1 :] + more
    with pytest.raises(CaptokenError) as told:
        verify(shown_by([changed], ROBOT, OF), OF, HERE, NOW)
    assert type(told.value) is IssuanceError and told.value.code == "invalid_client"


# --- bundles --------------------------------------------------------------------------------------


def count(data: bytes) -> tuple[bool, tuple[str, ...]]:
    found = read_bundle(data)
    return AUTHORITIES in found.keys, found.refused


@pytest.mark.parametrize(
    "data",
    [
        ACME.pem,
        STRANGER.pem + b"\n# and ours\n" + ACME.pem,
        ACME.der,
        STRANGER.der + ACME.der,
        ACME.bundle(),
        b"\n " + ACME.bundle(),
    ],
    ids=["PEM", "PEM of two", "DER", "DER of two", "a SPIFFE bundle", "a SPIFFE bundle behind spaces"],
)
def test_a_bundle_in_each_of_its_forms(data: bytes) -> None:
    found = read_bundle(data)
    assert found.refused == () and known(ACME.svid(ROBOT), by=found.keys[AUTHORITIES]).sub == ROBOT
    assert found.keys[AUTHORITIES].algorithms == ()  # no JWT is checked by it


def test_what_is_no_authority_is_refused_and_the_others_stand() -> None:
    svid = ACME.svid(ROBOT)
    assert count(svid.pem[0].encode()) == (False, ("certificate 1: it is no authority's",))
    marked = Authority().svid(ROBOT, is_authority=True)
    assert count(ACME.der + marked.chain[0]) == (True, ("certificate 2: it is no authority's",))
    assert count(ACME.der + b"\x30\x03abc") == (True, ("certificate 2: it cannot be read: ValueError",))


def test_a_bundle_may_have_none_any_more() -> None:
    assert (
        count(b'{"keys":[]}') == count(b"") == count(b'{"keys":[{"use":"jwt-svid","kid":"a"},{"use":"x509"}]}') == (False, ())
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "no JSON"),
        (b'{"keys":{}}', "a list of keys"),
        (b'{"keys":["a"]}', None),
        (ACME.bundle(x5c=None), "one certificate in x5c"),
        (ACME.bundle(x5c=["AAAA", "AAAA"]), "one certificate in x5c"),
        (ACME.bundle(x5c=[1]), "one certificate in x5c"),
        (ACME.bundle(x5c=["_-__"]), "no base64"),
        (ACME.pem.replace(b"-----END", b"-----FIN"), "has no end"),
        (ACME.pem.replace(b"\nMII", b"\nMI!"), "no base64"),
        (ACME.pem + b"-----BEGIN EC PRIVATE KEY-----", "a private key"),
        (ACME.der[:-1], "cut off"),
        (ACME.der + b"\x30", "no certificates"),
        (b"hello, world", "no certificates"),
        (b"\x30\x84\xff\xff\xff\xff", "cut off"),
        (ACME.der * (MAX_AUTHORITIES + 1), f"at most {MAX_AUTHORITIES}"),
    ],
)
def test_a_document_that_is_no_bundle(data: bytes, says: str | None) -> None:
    if says is None:
        assert count(data) == (False, ())
        return
    with pytest.raises((KeysError, JoseError), match=says):
        read_bundle(data)


@given(st.binary(max_size=40) | st.binary(max_size=20).map(lambda data: b"0" + data))
def test_fuzz_no_document_is_an_authority_or_another_error(data: bytes) -> None:
    with suppress(KeysError, JoseError):
        assert read_bundle(data).keys == {}


# --- authorities that change ----------------------------------------------------------------------


class Now:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def test_authorities_are_fetched_once_and_a_newer_one_when_it_is_needed(tmp_path: Path) -> None:
    async def story() -> None:
        clock = Now()
        keys = ProviderKeys(policy(tmp_path), clock=clock)
        (tmp_path / "keys.json").write_bytes(b'{"keys":[]}')
        with pytest.raises(IssuanceError, match="this service cannot get the authorities of the certificate's trust domain now") as told:
            await keys.want_authorities("mesh")
        assert told.value.code == "temporarily_unavailable" and "mesh, x509: [Errno 2]" in told.value.why
        assert keys.authorities("mesh") is None

        (tmp_path / "acme.pem").write_bytes(STRANGER.pem)
        clock.at += PAUSE
        await keys.want_authorities("mesh")
        first = keys.authorities("mesh")
        assert first is not None and "mesh, x509" not in keys.problems

        # Known: no fetch. Wanted anew: one in a while.
        (tmp_path / "acme.pem").write_bytes(ACME.pem)
        await keys.want_authorities("mesh")
        await keys.want_authorities("mesh", anew=True)
        assert keys.authorities("mesh") is first
        clock.at += PAUSE
        await keys.want_authorities("mesh", anew=True)
        second = keys.authorities("mesh")
        assert second is not None and second is not first

        # A failure leaves what is known, until that is old.
        (tmp_path / "acme.pem").unlink()
        clock.at += FRESH
        await keys.want_authorities("mesh")
        await asyncio.sleep(0.05)
        assert keys.authorities("mesh") is second
        clock.at += PAUSE
        await keys.want_authorities("mesh", anew=True)
        assert keys.authorities("mesh") is second
        clock.at += GOOD
        with pytest.raises(IssuanceError, match="this service cannot get the"):
            await keys.want_authorities("mesh")
        assert keys.authorities("other") is None
        await keys.want_authorities("other")  # which takes none
        await keys.close()

    asyncio.run(story())


def test_known_authorities_outlive_a_reload_and_go_with_their_place(tmp_path: Path) -> None:
    async def story() -> None:
        for name in ("acme.pem", "new.pem"):
            (tmp_path / name).write_bytes(ACME.pem)
        keys = ProviderKeys(policy(tmp_path))
        await keys.want_authorities("mesh")
        first = keys.authorities("mesh")
        keys.reload(policy(tmp_path))
        assert keys.authorities("mesh") is first is not None
        text = POLICY.format(folder=tmp_path, proxy="", require="")
        keys.reload(read(text.replace("acme.pem", "new.pem")))
        assert keys.authorities("mesh") is None
        keys.reload(read(text.replace(f'x509_bundle = "{tmp_path}/acme.pem"', "")))
        await keys.want_authorities("mesh")
        assert keys.authorities("mesh") is None
        with pytest.raises(IssuanceError, match=r"provider\.mesh: keys must be at an https address"):
            keys.reload(read(text.replace(f"{tmp_path}/acme.pem", "http://mesh.example/bundle")))

    asyncio.run(story())


# --- at the service -------------------------------------------------------------------------------


class Door:
    """The service, and a client whose TLS ended in the server, or in a proxy before it."""

    def __init__(self, folder: Path, proxy: str = "", **facts: Any) -> None:
        (folder / "keys.json").write_text(json.dumps({"keys": [MESH.jwk(use="jwt-svid")]}))
        (folder / "acme.pem").write_bytes(ACME.pem)
        (folder / "login.json").write_bytes(LOGIN.jwks())
        text = POLICY.format(folder=folder, proxy=proxy, require="").replace(
            "max_login_age = 28800", f'max_login_age = 28800\njwks = "{folder}/login.json"'
        )
        self.policy = read(text)
        self.now = Now()
        self.registry = MemoryRegistry(floor=0)
        keys = ProviderKeys(self.policy, clock=self.now)
        self.service = IssuanceService(self.policy, KEYRING, self.registry, keys=keys, clock=FixedClock(NOW), **facts)

    def ask(
        self,
        shown: Shown | None = None,
        *,
        headers: dict[str, str] | None = None,
        address: str | None = "127.0.0.1",
        error: str | None = None,
        **form: str,
    ) -> tuple[int, dict[str, Any]]:
        """Ask, having shown this certificate to the server. None: to nobody."""
        scope_of = {"tls": {"client_cert_chain": [] if shown is None else shown.pem, "client_cert_error": error}}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            client = None if address is None else (address, 4711)
            await self.service({**scope, "extensions": scope_of, "client": client}, receive, send)

        async def sent() -> httpx.Response:
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
                data = {"grant_type": "client_credentials", "client_id": ROBOT, "resource": "sales-db", **form}
                return await client.post(
                    "/token", headers=headers or {}, data={name: value for name, value in data.items() if value}
                )

        answer = asyncio.run(sent())
        return answer.status_code, answer.json()


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def good(answer: tuple[int, dict[str, Any]], grant: str = "nightly") -> dict[str, Any]:
    status, said = answer
    assert status == 200 and said["scope"] == grant, said
    if said["token_type"] == "Bearer":
        assert (
            Verifier(KEYRING.for_audience("sales-db"), "sales-db", clock=FixedClock(NOW))
            .check(said["access_token"], SALES)
            .code
            == "allowed"
        )
    return said


def denied(answer: tuple[int, dict[str, Any]], says: str, code: str = "invalid_client") -> None:
    status, said = answer
    assert (status, said["error"]) == (401 if code == "invalid_client" else 400, code)
    assert says in said["error_description"], said


def login(**claims: Any) -> str:
    return LOGIN.sign(
        {
            "iss": "https://login.acme.example", "sub": "jane", "aud": "captoken-cli", "iat": NOW - 5, "exp": NOW + 295, "auth_time": NOW - 60,
            "groups": ["finance"], **claims,
        }
    )  # fmt: skip


BY_LOGIN = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
}


def test_a_workload_alone_starts_tasks_by_its_certificate_as_often_as_it_likes(door: Door) -> None:
    """No text was shown that somebody else could show again: each handshake proves the key anew."""
    robot = ACME.svid(ROBOT)
    tasks = {good(door.ask(robot))["task"] for _ in range(3)}
    assert len(tasks) == 3
    good(door.ask(Authority("below", above=ACME).svid(ROBOT)))


def test_a_workload_acts_for_a_person_by_its_certificate(door: Door) -> None:
    robot = ACME.svid(ROBOT)
    text = login()
    good(door.ask(robot, subject_token=text, **BY_LOGIN), "report")
    # The login belongs to that workload from then on, as it does with an assertion.
    good(door.ask(ACME.svid(ROBOT), subject_token=text, **BY_LOGIN), "report")
    other = "spiffe://acme.example/ns/risk/sa/other"
    denied(
        door.ask(ACME.svid(other), subject_token=text, client_id=other, **BY_LOGIN),
        "the assertion cannot start a task",
        "invalid_grant",
    )
    denied(door.ask(None, subject_token=login(sub="joe"), **BY_LOGIN), "none was shown")


def test_the_root_is_bound_to_a_key_of_its_own(door: Door) -> None:
    said = good(
        door.ask(
            ACME.svid(ROBOT),
            headers={"dpop": dpop(HOLDER, f"{ORIGIN}/token", NOW)},
            requested_token_type="urn:captoken:token-type:root",
        )
    )
    assert said["token_type"] == "N_A"


def test_a_certificate_counts_where_client_id_names_it_alone(door: Door) -> None:
    """Meshes show certificates with all that they send. Who asks says that it is to count."""
    robot = ACME.svid(ROBOT)
    denied(door.ask(robot, client_id=""), "client_assertion is missing")
    denied(door.ask(robot, client_id="robot"), "client_assertion is missing")
    by_jwt = {
        "client_assertion": MESH.sign({"sub": ROBOT, "aud": ORIGIN, "iat": NOW - 5, "exp": NOW + 200}),
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
    }
    good(door.ask(STRANGER.svid(ROBOT), **by_jwt))
    denied(
        door.ask(robot, **by_jwt | {"client_id": "spiffe://acme.example/ns/risk/sa/other"}),
        "the assertion is not by the client that client_id names",
    )
    assert (
        door.ask(robot, subject_token=login(), **BY_LOGIN | {"client_id": ""})[1]["error"] == "invalid_request"
    )  # it wants the two


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (None, "none was shown"),
        (STRANGER.svid(ROBOT), "no path leads from it"),
        (ACME.svid(ROBOT, "spiffe://acme.example/admin"), "2 URIs"),
        (ACME.svid(ROBOT, is_authority=True, bits=("digital_signature", "key_cert_sign")), "an authority"),
        (ACME.svid("spiffe://acme.example/ns/risk/sa/other"), "not of the client_id"),
    ],
    ids=["none", "75 of the trust store of a stranger", "75 two URIs", "75 a CA as leaf", "another one's"],
)
def test_what_is_refused_at_the_service(door: Door, shown: Shown | None, says: str) -> None:
    denied(door.ask(shown), says)
    good(door.ask(ACME.svid(ROBOT)))
    assert len(tasks(door.registry)) == 1


def test_a_workload_that_no_grant_is_for(door: Door) -> None:
    other = "spiffe://acme.example/ns/hr/sa/robot"
    denied(door.ask(ACME.svid(other), client_id=other), "no grant is for this caller", "unauthorized_client")


def test_what_the_server_says_of_the_connection_is_read_with_care(door: Door) -> None:
    robot = ACME.svid(ROBOT)
    denied(door.ask(robot, error="certificate verify failed"), "the server says so")
    for chain, says in ((["no PEM"], "it is no PEM"), ([b"bytes"], "it is no PEM"), (robot.pem * 20, None)):
        scope = {"extensions": {"tls": {"client_cert_chain": chain}}, "headers": []}
        if says is None:
            assert len(shown_chain(scope, None)) == MAX_CERTIFICATES + 1
            continue
        with pytest.raises(IssuanceError, match=says):
            shown_chain(scope, None)
    for scope in ({}, {"extensions": None}, {"extensions": {}}, {"extensions": {"tls": {}}}, {"extensions": {"tls": None}}):
        assert shown_chain({"headers": [], **scope}, None) == []
    assert len(shown_chain({"headers": [], "extensions": {"tls": {"client_cert_chain": iter(robot.pem)}}}, None)) == 1


# --- behind a proxy -------------------------------------------------------------------------------

PROXY = '[service.proxy]\naddresses = ["127.0.0.1"]'
SECRET = f'[service.proxy]\nsecret_sha256 = "{sha256(b"of-the-proxy").hexdigest()}"'
THE_SECRET = {"captoken-proxy-secret": "of-the-proxy"}


def test_a_proxy_says_which_certificate_it_was_shown(tmp_path: Path) -> None:
    door = Door(tmp_path, PROXY)
    good(door.ask(headers=ACME.svid(ROBOT).headers()))
    good(door.ask(headers=Authority("below", above=ACME).svid(ROBOT).headers()))
    good(door.ask(headers=ACME.svid(ROBOT).headers(), address="::ffff:127.0.0.1"))
    denied(door.ask(), "none was shown")
    denied(door.ask(headers=STRANGER.svid(ROBOT).headers()), "no path leads from it")

    door = Door(tmp_path, SECRET)
    good(door.ask(headers=ACME.svid(ROBOT).headers() | THE_SECRET, address=None))
    both = Door(tmp_path, f'{SECRET}\naddresses = ["::1"]')
    good(both.ask(headers=ACME.svid(ROBOT).headers() | THE_SECRET, address="::1"))
    denied(both.ask(headers=ACME.svid(ROBOT).headers() | THE_SECRET), "believed of the proxy alone")
    denied(both.ask(headers=ACME.svid(ROBOT).headers(), address="::1"), "believed of the proxy alone")


@pytest.mark.parametrize(
    ("proxy", "address", "more", "says"),
    [
        ("", "127.0.0.1", {}, "none was shown"),
        (PROXY, "127.0.0.2", {}, "believed of the proxy alone"),
        (PROXY, "::1", {}, "believed of the proxy alone"),
        (PROXY, "testclient", {}, "believed of the proxy alone"),
        (PROXY, None, {}, "believed of the proxy alone"),
        (PROXY, "127.0.0.2", {"x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1"}, "believed of the proxy alone"),
        (SECRET, "127.0.0.1", {}, "believed of the proxy alone"),
        (SECRET, "127.0.0.1", {"captoken-proxy-secret": "guessed"}, "believed of the proxy alone"),
        (SECRET, "127.0.0.1", {"captoken-proxy-secret": ""}, "believed of the proxy alone"),
    ],
    ids=[
        "74 from a stranger, and there is no proxy", "74 from a stranger at another address", "74 from a stranger over IPv6",
        "74 from a stranger without an address", "74 from a stranger at a socket", "74 from a stranger who says that it is the proxy",
        "74 from a stranger without the secret", "74 from a stranger who guesses the secret", "74 from a stranger with an empty secret",
    ],
)  # fmt: skip
def test_a_header_of_anybody_else_is_not_believed(
    tmp_path: Path, proxy: str, address: str | None, more: dict[str, str], says: str
) -> None:
    """The certificate in it is good, and who sends it need not have its key: certificates are public."""
    denied(Door(tmp_path, proxy).ask(headers=ACME.svid(ROBOT).headers() | more, address=address), says)


def test_74_the_certificate_of_the_proxy_itself_is_nobodys_who_asks_through_it(tmp_path: Path) -> None:
    """Its connection to the service may have one of its own."""
    gate = "spiffe://acme.example/ns/risk/sa/gate"
    door = Door(tmp_path, PROXY)
    denied(door.ask(ACME.svid(gate), client_id=gate), "none was shown")
    denied(door.ask(ACME.svid(gate), client_id=gate, headers=ACME.svid(ROBOT).headers()), "not of the client_id")
    good(door.ask(ACME.svid(gate), headers=ACME.svid(ROBOT).headers()))


def forwarded(*headers: tuple[bytes, bytes]) -> list[bytes]:
    return shown_chain({"client": ("127.0.0.1", 1), "headers": headers}, Proxy(addresses=("127.0.0.1",)))


def test_the_headers_of_a_proxy_in_their_one_spelling() -> None:
    one = b":" + base64.b64encode(b"one") + b":"
    assert forwarded((b"client-cert", one)) == [b"one"]
    assert forwarded((b"client-cert", b" " + one + b" "), (b"client-cert-chain", b"")) == [b"one"]
    assert forwarded((b"client-cert", one), (b"client-cert-chain", one + b", " + one)) == [b"one"] * 3
    assert forwarded((b"client-cert", one), (b"client-cert-chain", one), (b"client-cert-chain", one)) == [b"one"] * 3
    assert len(forwarded((b"client-cert", one), (b"client-cert-chain", b",".join([one] * MAX_CERTIFICATES)))) > MAX_CERTIFICATES
    for own in (b"", b"b25l", one + one, one[:-1], b":!:", b":", b":=:", b":b25:", one + b";a=1", one + b"," + one, b'"b25l"'):
        with pytest.raises(IssuanceError, match="is written as RFC 9440 has it"):
            forwarded((b"client-cert", own))
    with pytest.raises(IssuanceError, match="is written as RFC 9440 has it"):
        forwarded((b"client-cert", one), (b"client-cert-chain", one + b","))
    with pytest.raises(IssuanceError, match="given twice"):
        forwarded((b"client-cert", one), (b"client-cert", one))
    assert forwarded((b"client-cert-chain", one)) == forwarded((b"client-cert", b"::"), (b"client-cert-chain", one)) == []


@given(st.lists(st.tuples(st.sampled_from([b"client-cert", b"client-cert-chain"]), st.binary(max_size=30)), max_size=4))
def test_fuzz_no_header_is_more_than_bytes(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        assert all(type(one) is bytes for one in forwarded(*headers))
    except IssuanceError as error:
        assert error.code == "invalid_client"


# --- the policy, and what the service says of itself ----------------------------------------------


@pytest.mark.parametrize(
    ("proxy", "says"),
    [
        ("[service.proxy]", r"service\.proxy is known by addresses, by secret_sha256, or by both"),
        ('[service.proxy]\naddresses = ["proxy.example"]', r"'proxy\.example' is no IP address"),
        ('[service.proxy]\nsecret_sha256 = "of-the-proxy"', r"service\.proxy: secret_sha256 is 64 lower-case"),
        ("[service.proxy]\nheader = 1", "unknown key"),
    ],
)
def test_a_proxy_that_anybody_could_be_does_not_load(proxy: str, says: str) -> None:
    with pytest.raises(IssuanceError, match=says):
        policy(proxy=proxy)
    assert policy(proxy=PROXY).proxy == Proxy(addresses=("127.0.0.1",))


def test_a_life_of_nothing_does_not_load() -> None:
    with pytest.raises(IssuanceError, match=r"provider\.mesh: x509_max_life is a number of seconds"):
        policy(require="x509_max_life = 0")


def test_the_service_says_how_workloads_are_known(door: Door) -> None:
    def methods(of: IssuanceService) -> list[str]:
        async def asked() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=of), base_url=ORIGIN) as client:
                return await client.get("/.well-known/oauth-authorization-server")

        return list(asyncio.run(asked()).json()["token_endpoint_auth_methods_supported"])

    assert methods(door.service) == ["private_key_jwt", "spiffe_jwt", "spiffe_x509"]
    without = read(POLICY.format(folder="/nowhere", proxy="", require="").replace('x509_bundle = "/nowhere/acme.pem"', ""))
    assert methods(IssuanceService(without, KEYRING, MemoryRegistry(floor=0))) == ["private_key_jwt", "spiffe_jwt"]


def test_an_authority_that_is_new_is_known_by_the_request_that_needs_it(tmp_path: Path) -> None:
    door = Door(tmp_path)
    newer = Authority()
    good(door.ask(ACME.svid(ROBOT)))
    (tmp_path / "acme.pem").write_bytes(newer.pem)
    denied(door.ask(newer.svid(ROBOT)), "no path leads from it")  # asked for a moment ago
    door.now.at += PAUSE
    good(door.ask(newer.svid(ROBOT)))
    denied(door.ask(ACME.svid(ROBOT)), "no path leads from it")

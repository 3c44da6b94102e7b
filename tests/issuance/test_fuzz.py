"""What nobody thought of, at the doors of the service: claims, headers, forms, proofs, signals and policies, made at random.

All is signed by the right key, so that it is the meaning that is tested. What is accepted has to be what the policy grants, by a
reference that is written here anew and small, and what comes out is no more than that. All else is an error of the documented
shapes: never 500, and nothing that was sent is in the log. `CAPTOKEN_TIMES` makes it longer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from captoken import Access, Token
from captoken.adapters.issuance import IssuanceService
from captoken.errors import IssuanceError
from captoken.issuance import desk, policy
from captoken.issuance.keys import ProviderKeys
from captoken.issuance.registry import MemoryRegistry
from captoken.issuance.signals import EVENT, LOGOUT
from captoken.testing import FixedClock
from tests.longer import drawing, times

from . import assertions, test_signals
from .assertions import ACCESS, ID_JAG, LOGIN, NOW, SVID, US, WORKLOAD
from .fixtures import KEYRING, LEASE, POLICY
from .registries import entry
from .test_issuance import ASSERTION, BEARER, EXCHANGE, HOLDER, ID_TOKEN, JWT, ROOT
from .test_must_deny import ACCESS_TOKEN, FORM, JAG_TYPE, MANY, SECRET


def often(what: str, one: Callable[[random.Random], None], usual: int = 60) -> None:
    """So many examples. One that fails says which it was: `drawing` makes it again by itself."""
    for number in range(times(usual)):
        try:
            one(drawing(f"{what} {number}"))
        except BaseException as error:
            error.add_note(f"{what} {number}")
            raise


# --- a service, and what is sent to it ---------------------------------------------------------------------------------


def _policy() -> policy.Policy:
    """One grant for each kind of assertion, each of which wants something of the claims."""
    text = (
        MANY_TEXT
        + f"""
[client.agent-app]
secret_sha256 = "{MANY.clients["agent-app"].secret_sha256}"
[resource.ratings]
[grant.login]
subject = {{ provider = "acme", groups = ["finance"], acr = {{ all = ["mfa"] }} }}
{_REST}
[grant.access]
subject = {{ provider = "acme-api", client_id = "reporter" }}
{_REST}
[grant.jag]
subject = {{ provider = "hub", sub = "jane" }}
{_REST}
[grant.workload]
subject = {{ provider = "cluster", sub = "system:serviceaccount:risk:*" }}
{_REST}
[grant.svid]
subject = {{ provider = "mesh", sub = "spiffe://acme.example/ns/risk/*" }}
{_REST}
[grant.both]
subject = {{ provider = "acme", groups = ["finance"] }}
actor = {{ provider = "mesh", sub = "spiffe://acme.example/ns/risk/*" }}
bound = true
{_REST}
"""
    )
    return policy.read(text)


_REST = """agents = ["agent"]
resources = ["sales-db"]
give = { allow = { "sales" = ["select"], "market.*" = ["insert", "select"] }, expires_in = 300, depth = 2 }"""
MANY_TEXT = (
    assertions.TEXT[: assertions.TEXT.index("[grant.nightly]")]
    .replace("[service]", "[service]\nper_minute = 1000000")
    .replace('subject = "cluster:{/kubernetes.io/serviceaccount/uid}"', 'subject = "cluster:{sub}"')
    .replace('kind = "access-token"\n', 'kind = "access-token"\nsubject = "api:{sub}"\n')
    .replace('kind = "id-jag"\n', 'kind = "id-jag"\nsubject = "hub:{sub}"\n')
    .replace("[resource.sales-db]", '[resource.sales-db]\nuris = ["https://sales.example/mcp"]')
)


class Anew:
    """A registry that is another one for each example."""

    def __init__(self) -> None:
        self.inner = MemoryRegistry(floor=0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Answer(NamedTuple):
    status: int
    said: dict[str, Any]
    logged: str


class Service:
    """A service in this process, without a client between."""

    def __init__(self, of: policy.Policy) -> None:
        self.policy = of
        self.registry: Any = Anew()
        self._logged: list[str] = []
        self._loop = asyncio.new_event_loop()

        def source(name: str) -> Callable[[], Any]:
            async def fetch() -> bytes:
                use = "jwt-svid" if name == "mesh" else "sig"
                return assertions.document(assertions.jwk(name, use=use))

            return fetch

        known = ProviderKeys(of, sources={name: source(name) for name in of.providers})
        self.app = IssuanceService(of, KEYRING, self.registry, keys=known, lease=LEASE, clock=FixedClock(NOW))

    def send(self, path: str, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Answer:
        """What is answered, and what is logged meanwhile. Raises what the application raises: it raises nothing."""
        self._logged.clear()
        handler = _Log(self._logged)
        logger = logging.getLogger("captoken")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        try:
            status, data = self._loop.run_until_complete(self._sent(path, body, headers))
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
        said = json.loads(data) if data else {}
        return Answer(status, said, "\n".join(self._logged))

    async def _sent(self, path: str, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> tuple[int, bytes]:
        scope = {"type": "http", "method": "POST", "path": path, "root_path": "", "query_string": b"", "headers": list(headers)}
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        await self.app(scope, receive, send)  # type: ignore[arg-type]
        return said[0]["status"], b"".join(one.get("body", b"") for one in said)

    def close(self) -> None:
        """Its lifespan ends, and so what it has begun."""

        async def shutdown() -> dict[str, Any]:
            return {"type": "lifespan.shutdown"}

        async def told(_: Any) -> None:
            pass

        self._loop.run_until_complete(self.app({"type": "lifespan"}, shutdown, told))  # type: ignore[arg-type]
        self._loop.close()


class _Log(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


SERVICE = Service(_policy())

ERRORS = {
    "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_target",
    "invalid_authorization_details", "invalid_dpop_proof", "temporarily_unavailable", "slow_down",
}  # fmt: skip
STATUS = {"invalid_client": 401, "temporarily_unavailable": 503, "slow_down": 429}


def check_error(answer: Answer) -> None:
    """An error as it is documented (RFC 6749, 5.2): its code, its status, and words in its grammar."""
    assert answer.said.keys() == {"error", "error_description"}, answer
    code, words = answer.said["error"], answer.said["error_description"]
    assert code in ERRORS and answer.status == STATUS.get(code, 400), answer
    assert re.fullmatch(r"[ !#-\[\]-~]{1,500}", words), answer


def check_log(answer: Answer, sent: Sequence[str]) -> None:
    """Nothing that is as good as a password, and no line that somebody else has made."""
    for text in sent:
        for part in (text, text.rpartition(".")[2]):
            assert len(part) < 40 or part not in answer.logged
    assert SECRET not in answer.logged
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028\u202e]", answer.logged), answer.logged
    assert answer.logged.count("\n") <= 1, answer.logged


# --- values that were not thought of -----------------------------------------------------------------------------------


class Raw(str):
    """A spelling of JSON's own."""


def spelled(value: Any) -> str:
    return str(value) if isinstance(value, Raw) else json.dumps(value)


def deep(depth: int) -> Any:
    made: Any = 1
    for _ in range(depth):
        made = [made]
    return made


ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 10**19, 1.5, "", " ", "\0", "a\nb", "\u202ex", "x" * 3000, "jane", "JANE", "\uff4aane", "jane\u200b",
    "e\u0301", [], {}, [[]], {"a": {"b": 1}}, deep(15), deep(17), Raw("NaN"), Raw("1e400"), Raw("-0"), Raw("01"), Raw('"\\ud800"'), Raw('{"a":1,"a":2}'),
    Raw("1.8e9"), Raw(f"{NOW + 60}.0"), Raw(f"{NOW + 60}e0"), "null", "finance", "mfa", US, [US], "captoken-cli", "https://login.acme.example",
]  # fmt: skip

NAMES = [
    "act", "may_act", "events", "scope", "scp", "azp", "nbf", "typ", "sid", "acr", "groups", "cnf", "client_id", "jti", "auth_time", "resource",
    "authorization_details", "Sub", "ISS", "aud ", "nonce", "tid", "__proto__", "", "\0", "é",
]  # fmt: skip

AWAY = (0, 30, -30, 60, -60, 300, -300, 3600, -3600, 28800, -28800, 86400)


def moment(rng: random.Random) -> int:
    return NOW + rng.choice(AWAY) + rng.randint(-2, 2)


def letters(rng: random.Random, most: int) -> str:
    """Of all characters that a text can have, the usual ones mostly."""
    made = (chr(rng.choice([rng.randrange(32, 127), rng.randrange(0x110000)])) for _ in range(rng.randint(0, most)))
    return "".join(one for one in made if not "\ud800" <= one <= "\udfff")


TYPES = ("JWT", "jwt", "JOSE", "at+jwt", "oauth-id-jag+jwt", LOGOUT, EVENT, "dpop+jwt", "ID", "Bearer")


def around(rng: random.Random, value: Any) -> Any:
    """Something that is nearly that value, or is not at all."""
    near: list[Any] = [[value], [value, value], [[value]], {"all": [value]}, {"value": value}]
    if isinstance(value, str):
        near += [
            value + " ",
            " " + value,
            value + "/",
            value.upper(),
            value.swapcase(),
            value + "\0",
            value[:-1],
            value + "x",
            value.encode().hex(),
        ]
        near += [
            value.removesuffix("orchestrator"),
            f"{value}::x",
            f"{value}//x",
            f"{value}/../x",
            f"{value}:x",
            rng.choice(TYPES),
        ]
        near += [Raw(json.dumps(value).replace("a", "\\u0061")), letters(rng, 8)]
    if isinstance(value, list):
        near += [value[0] if value else "x", [*value, "other"], ["other", *value], [*value, None], [*value, *value]]
    if isinstance(value, int):
        near += [moment(rng) for _ in range(8)] + [str(value), float(value), -value, value * 1000, value + 1, value - 1]
    return rng.choice(near) if rng.random() < 0.6 else rng.choice(ODD)


Pairs = list[tuple[str, Any]]


def changed(rng: random.Random, sound: Mapping[str, Any], more: Sequence[str] = NAMES, most: int = 3) -> Pairs:
    """Sound members of an object, of which some are others, gone, there twice, or new."""
    pairs: Pairs = list(sound.items())
    for _ in range(rng.choice([0, 1, 1, 1, 2, most])):
        how = rng.choice(["other", "other", "other", "gone", "twice", "new", "new"])
        if how == "new" or not pairs:
            name = rng.choice(more) if rng.random() < 0.8 else letters(rng, 6)
            pairs.append((name, rng.choice(ODD) if rng.random() < 0.7 else moment(rng)))
            continue
        at = rng.randrange(len(pairs))
        name, value = pairs[at]
        if how == "gone":
            del pairs[at]
        elif how == "twice":
            pairs.insert(rng.randint(0, len(pairs)), (name, rng.choice([value, around(rng, value)])))
        else:
            pairs[at] = (name, around(rng, value))
    return pairs


def perhaps(rng: random.Random, sound: Mapping[str, Any], more: Sequence[str] = NAMES) -> Pairs:
    """The same, and every second time as it is sound."""
    return list(sound.items()) if rng.random() < 0.5 else changed(rng, sound, more)


def object_of(pairs: Pairs, escaped: bool = False) -> bytes:
    """JSON as it stands there. `escaped`: a letter of each name is spelled as its number."""
    made = []
    for name, value in pairs:
        key = json.dumps(name)
        if escaped and len(key) > 3 and key[1] != "\\":
            key = f'"\\u{ord(key[1]):04x}{key[2:]}'
        made.append(f"{key}:{spelled(value)}")
    return ("{" + ",".join(made) + "}").encode()


def said_by(pairs: Pairs) -> dict[str, Any] | None:
    """What an object says, if all readers would read the same of it. Else None."""

    def once(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) != len(found):
            raise ValueError
        return made

    def nothing(_: str) -> Any:
        raise ValueError

    try:
        made: dict[str, Any] = json.loads(object_of(pairs), object_pairs_hook=once, parse_constant=nothing)
        json.dumps(made, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return None
    return made


def signed(provider: str, header: bytes, payload: bytes) -> str:
    return assertions.joined(header, payload, assertions.private(provider), "ES256")


# --- the reference: who may start what ---------------------------------------------------------------------------------


def is_time(value: Any) -> bool:
    return type(value) is int and value >= 0


def values(claim: Any) -> list[Any]:
    return claim if type(claim) is list else [claim]


def is_text(value: Any) -> bool:
    return type(value) is str and value != ""


def is_of_now(claims: Mapping[str, Any], most: int) -> bool:
    iat, exp, nbf = claims.get("iat"), claims.get("exp"), claims.get("nbf", 0)
    if not (is_time(iat) and is_time(exp) and is_time(nbf)):
        return False
    return iat <= NOW + 30 and nbf <= NOW + 30 and exp + 30 > NOW and iat < exp <= iat + most


def is_sound(claims: Mapping[str, Any]) -> bool:
    """What is asked of all kinds."""
    texts = all(is_text(claims[name]) for name in ("sub", "acr", "azp", "client_id", "jti", "sid") if name in claims)
    return texts and "sub" in claims and not {"act", "may_act", "events", "cnf"} & claims.keys()


def below(value: str, prefix: str) -> bool:
    return value.startswith(prefix) and all(value.removeprefix(prefix).split(prefix[-1]))


def may_login(claims: Mapping[str, Any]) -> bool:
    ours = {"captoken-cli", "captoken-web"}
    audiences, at = values(claims.get("aud")), claims.get("auth_time")
    if claims.get("iss") != "https://login.acme.example" or not is_of_now(claims, 3600):
        return False
    if not audiences or any(type(one) is not str or one not in ours for one in audiences):
        return False
    if (len(audiences) > 1 and "azp" not in claims) or claims.get("azp", "captoken-cli") not in ours:
        return False
    if "scope" in claims or "scp" in claims or claims.get("typ", "ID") != "ID":
        return False
    return is_time(at) and NOW - 28800 <= at <= NOW + 30 and "finance" in values(claims.get("groups"))


def may_start_login(claims: Mapping[str, Any]) -> bool:
    return may_login(claims) and claims.get("acr") == "mfa"


def may_access(claims: Mapping[str, Any]) -> bool:
    if claims.get("iss") != "https://login.acme.example" or not is_of_now(claims, 3600) or values(claims.get("aud")) != [US]:
        return False
    return claims.get("client_id") == "reporter" and "jti" in claims


def may_jag(claims: Mapping[str, Any]) -> bool:
    if claims.get("iss") != "https://hub.example" or not is_of_now(claims, 300) or values(claims.get("aud")) != [US]:
        return False
    meant = values(claims.get("resource", "sales-db"))
    scopes = claims.get("scope", "jag")
    if not {"sales-db", "https://sales.example/mcp"} & {one for one in meant if type(one) is str} or type(scopes) is not str:
        return False
    return (
        "jag" in scopes.split(" ")
        and claims.get("client_id") == "agent-app"
        and "jti" in claims
        and claims["sub"] == "jane"
        and "authorization_details" not in claims
    )


def may_workload(claims: Mapping[str, Any]) -> bool:
    if claims.get("iss") != "https://cluster.example" or not is_of_now(claims, 3600) or values(claims.get("aud")) != [US]:
        return False
    return below(claims["sub"], "system:serviceaccount:risk:")


def may_svid(claims: Mapping[str, Any]) -> bool:
    if type(claims.get("iss", "")) is not str or not is_of_now(claims, 3600) or values(claims.get("aud")) != [US]:
        return False
    plain = re.fullmatch(r"spiffe://acme\.example(/[A-Za-z0-9._-]+)+", claims["sub"])
    return (
        plain is not None
        and not {".", ".."} & set(claims["sub"].split("/"))
        and below(claims["sub"], "spiffe://acme.example/ns/risk/")
    )


class Kind(NamedTuple):
    provider: str
    sound: Mapping[str, Any]
    typ: tuple[str | None, ...]
    may: Callable[[Mapping[str, Any]], bool]
    form: Mapping[str, str]
    place: str
    subject: str


KINDS = {
    "login": Kind("acme", LOGIN, (None, "JWT"), may_start_login, {"grant_type": EXCHANGE, "subject_token_type": ID_TOKEN}, "subject_token", "acme:"),
    "access": Kind("acme-api", ACCESS | {"typ": "x"}, ("at+jwt",), may_access, {"grant_type": EXCHANGE, "subject_token_type": ACCESS_TOKEN}, "subject_token", "api:"),
    "jag": Kind("hub", ID_JAG, ("oauth-id-jag+jwt",), may_jag, {"grant_type": BEARER, "client_id": "agent-app", "client_secret": SECRET}, "assertion", "hub:"),
    "workload": Kind("cluster", WORKLOAD, (None, "JWT"), may_workload, {"grant_type": "client_credentials", "client_assertion_type": ASSERTION}, "client_assertion", "cluster:"),
    "svid": Kind("mesh", SVID, (None, "JWT", "JOSE"), may_svid, {"grant_type": "client_credentials", "client_assertion_type": ASSERTION}, "client_assertion", "mesh:"),
}  # fmt: skip


def header_of(kind: Kind) -> dict[str, Any]:
    return {"alg": "ES256", "kid": f"{kind.provider}-ES256"} | ({"typ": kind.typ[-1]} if kind.typ[-1] else {})


def is_header(header: Mapping[str, Any] | None, kind: Kind) -> bool:
    if header is None or not header.keys() <= {"alg", "kid", "typ", "x5t", "x5t#S256"}:
        return False
    texts = all(type(one) is str for one in header.values())
    return (
        texts
        and header.get("alg") == "ES256"
        and header.get("kid") == f"{kind.provider}-ES256"
        and header.get("typ") in kind.typ
    )


# What the one grant of each gives, by accesses that stand for many.
PROBES = {
    (table, operation): Access(table=table, operation=operation)
    for table in ("sales", "sales.x", "market", "market.eu", "market.eu.x", "hr", "Sales")
    for operation in ("select", "insert", "update", "delete")
}
GIVEN = {("sales", "select"), *(("market." + one, operation) for one in ("eu", "eu.x") for operation in ("insert", "select"))}
_name = re.compile(r"[A-Za-z0-9._:/@+-]{1,128}").fullmatch


def can(token: Token) -> set[tuple[str, str]]:
    return {which for which, access in PROBES.items() if token.unverified.capability.prohibits(access) is None}


def check_granted(said: Mapping[str, Any], subject: str, asked: Mapping[str, Any] | None = None) -> None:
    """What came out is of that subject, and no more than the grant and the request, for no longer."""
    token = Token.parse(said["access_token"].split(".cap1")[0], clock=FixedClock(NOW))
    root, stated = token.unverified.root, asked or {}
    assert (root.subject, root.agent, root.issued_at) == (subject, "agent", NOW) and _name(subject)
    assert root.task == said["task"] and re.fullmatch(r"[^/]+-[0-9a-f]{10}", root.task)
    assert root.ext["policy:grant"] == said["scope"]
    assert can(token) <= GIVEN
    for name, at in (("tables", 0), ("operations", 1)):
        if type(stated.get(name)) is list:
            listed = [one for one in stated[name] if type(one) is str]
            assert all("*" in one or any(which[at] == one for which in PROBES) is False or one for one in listed)
            if not any("*" in one for one in listed):
                assert {which[at] for which in can(token)} <= set(listed)
    ends = token.unverified.expires_at
    assert ends is not None and NOW < ends <= NOW + 300 and said["expires_in"] == ends - NOW


def body_of(form: Mapping[str, str]) -> bytes:
    return urllib.parse.urlencode(form).encode()


BY_FORM = ((b"content-type", FORM.encode()),)


@pytest.fixture(scope="module", autouse=True)
def closed_at_the_end() -> Iterator[None]:
    yield
    SERVICE.close()
    SIGNALS.close()


# --- assertions --------------------------------------------------------------------------------------------------------

_header_names = ("jwk", "jku", "x5u", "x5c", "x5t", "crit", "b64", "zip", "cty", "iss", "enc", "")


@pytest.mark.parametrize("name", KINDS)
def test_fuzz_an_assertion(name: str) -> None:
    often(name, lambda rng: _an_assertion(rng, name))


def _an_assertion(rng: random.Random, name: str) -> None:
    kind = KINDS[name]
    claims = changed(rng, kind.sound)
    header = changed(rng, header_of(kind), _header_names) if rng.random() < 0.2 else list(header_of(kind).items())
    if rng.random() < 0.1:
        header = list({**dict(header), "typ": rng.choice(TYPES)}.items())
    text = signed(kind.provider, object_of(header, rng.random() < 0.2), object_of(claims, rng.random() < 0.2))
    SERVICE.registry.inner = MemoryRegistry(floor=0)
    answer = SERVICE.send("/token", body_of({**kind.form, kind.place: text, "scope": name, "resource": "sales-db"}), BY_FORM)

    check_log(answer, [text])
    if answer.status != 200:
        check_error(answer)
        assert answer.said["error"] not in ("temporarily_unavailable", "slow_down")
        assert repr((claims, header)) != repr((list(kind.sound.items()), list(header_of(kind).items())))
        return
    said = said_by(claims)
    assert is_header(said_by(header), kind)
    assert said is not None and is_sound(said) and kind.may(said), claims
    check_granted(answer.said, f"{kind.subject}{said['sub']}")


def test_fuzz_a_login_with_an_actor_and_a_proof() -> None:
    """Both assertions and the proof, each with faults of its own."""
    often("both", _a_login_with_an_actor_and_a_proof)


def _a_login_with_an_actor_and_a_proof(rng: random.Random) -> None:
    sound = [list(one.items()) for one in (LOGIN, SVID, PROOF, PROOF_HEADER)]
    faulty = rng.randrange(4)
    login, actor, proof, header = sound
    if faulty == 0:
        login = changed(rng, LOGIN)
    if faulty <= 1:
        actor = changed(rng, SVID)
    if faulty >= 2:
        proof = changed(rng, PROOF, ("ath", "nonce", "exp", ""))
    if faulty == 3:
        header = changed(
            rng,
            {**PROOF_HEADER, "jwk": plain(dict(perhaps(rng, _JWK, ("d", "kid", "use", "alg", "k"))))},
            ("kid", "crit", "x5c", ""),
        )
    made = (("acme", login), ("mesh", actor))
    who, acts = (
        signed(name, object_of([("alg", "ES256"), ("kid", f"{name}-ES256")]), object_of(those)) for name, those in made
    )
    shown = proof_of(header, proof)
    form = {
        "grant_type": EXCHANGE, "subject_token": who, "subject_token_type": ID_TOKEN, "actor_token": acts, "actor_token_type": JWT,
        "scope": "both", "resource": "sales-db", "requested_token_type": ROOT,
    }  # fmt: skip
    SERVICE.registry.inner = MemoryRegistry(floor=0)
    answer = SERVICE.send("/token", body_of(form), [*BY_FORM, (b"dpop", shown.encode())])
    check_log(answer, [who, acts, shown])
    if answer.status != 200:
        check_error(answer)
        assert repr([login, actor, proof, header]) != repr(sound)
        return
    person, workload, proved = said_by(login), said_by(actor), said_by(proof)
    assert person is not None and is_sound(person) and may_login(person)
    assert workload is not None and is_sound(workload) and may_svid(workload)
    assert proved is not None and is_proof(said_by(header), proved)
    check_granted(answer.said, f"acme:{person['sub']}")
    assert Token.parse(answer.said["access_token"]).unverified.key == HOLDER.public


# --- proofs ------------------------------------------------------------------------------------------------------------

PROOF = {"jti": "j1", "htm": "POST", "htu": f"{US}/token", "iat": NOW}
_JWK = {"kty": "OKP", "crv": "Ed25519", "x": HOLDER.public}
PROOF_HEADER = {"typ": "dpop+jwt", "alg": "EdDSA", "jwk": _JWK}


def proof_of(header: Pairs, claims: Pairs) -> str:
    text = f"{assertions.b64encode(object_of(header))}.{assertions.b64encode(object_of(claims))}"
    return f"{text}.{assertions.b64encode(HOLDER.sign(text.encode()))}"


def is_proof(header: Mapping[str, Any] | None, claims: Mapping[str, Any]) -> bool:
    if (
        header is None
        or header.keys() != {"typ", "alg", "jwk"}
        or header["typ"] != "dpop+jwt"
        or header["alg"] not in ("EdDSA", "Ed25519")
    ):
        return False
    jwk, at = header["jwk"], claims.get("iat")
    if type(jwk) is not dict or "d" in jwk or {**jwk, **_JWK} != jwk:
        return False
    return (
        claims.get("htm") == "POST"
        and claims.get("htu") == f"{US}/token"
        and is_text(claims.get("jti"))
        and type(at) is int
        and NOW - 60 <= at <= NOW + 30
    )


# --- forms -------------------------------------------------------------------------------------------------------------

VALUES = [
    "", " ", "x", "\0", "é", "a" * 17_000, "login", "access", "workload", "both", "nightly", "login access", "sales-db", "ratings", "https://sales.example/mcp", "HTTPS://SALES.EXAMPLE/mcp",
    EXCHANGE, BEARER, "client_credentials", "password", ID_TOKEN, ACCESS_TOKEN, JWT, JAG_TYPE, ROOT, ASSERTION, "agent-app", SECRET, "reporter", "[]", "{}", "null",
]  # fmt: skip
PARAMETERS = [
    "grant_type", "scope", "resource", "audience", "requested_token_type", "authorization_details", "subject_token", "subject_token_type", "actor_token",
    "actor_token_type", "assertion", "client_assertion", "client_assertion_type", "client_id", "client_secret", "unknown", "Scope", "scope[]",
]  # fmt: skip
KEYWORDS = [
    "type", "agent", "task", "clamp", "tables", "operations", "columns", "allow", "tools", "where", "expires_in", "expires_at", "not_before", "depth", "uses", "budget", "delegate_only",
    "audience", "key", "unrestricted", "subject", "ext", "signer", "to", "keep", "fresh", "task_max", "clock", "random", "",
]  # fmt: skip

ASKED: list[Any] = [
    ["sales"], ["market.eu"], ["market.*"], ["*"], ["hr"], ["sales", "hr"], ["select"], ["insert"], ["update"], {"sales": ["select"]}, {"*": ["*"]}, {"market.*": ["select"]},
    {"sales": ["a"]}, {"x": {"in": ["y"]}}, {"x": {"min": 1}}, {"mail.send": {}}, {"usd": 5}, {"usd": -1}, 300, 301, 1, NOW + 60, NOW + 10_000, NOW - 5, "captoken", "agent", "q3",
    "q3-0123456789", "a/b", [1], [None], [[]],
]  # fmt: skip
# What each keyword is given most often, so that some of it is granted.
GOOD: dict[str, list[Any]] = {
    "agent": ["agent"], "task": ["q3"], "clamp": [True, False], "tables": [["sales"], ["market.eu"], ["market.*", "sales"]], "operations": [["select"], ["insert"]], "depth": [0, 1],
    "columns": [{"sales": ["amount"]}], "allow": [{"sales": ["select"]}, {"market.*": ["insert"]}], "where": [{"x": {"in": ["y"]}}], "expires_in": [1, 300, 301], "expires_at": [NOW + 60],
}  # fmt: skip


def details(rng: random.Random) -> str:
    """What is asked of the grant, as the text of the parameter."""
    pairs: Pairs = [("type", "captoken")]
    for _ in range(rng.randint(0, 3)):
        keyword = rng.choice([*KEYWORDS, *GOOD, *GOOD])
        good = rng.choice(GOOD.get(keyword, ASKED)) if rng.random() < 0.8 else rng.choice(ODD)
        pairs.append((keyword, good if rng.random() < 0.8 else rng.choice(ASKED)))
    rng.shuffle(pairs)
    text = object_of(pairs, rng.random() < 0.2).decode()
    return rng.choice([f"[{text}]"] * 9 + [text, f"[{text},{text}]", f"[{text}"])


def test_fuzz_a_form() -> None:
    often("form", _a_form, 200)


def _a_form(rng: random.Random) -> None:
    name = rng.choice(sorted(KINDS))
    kind = KINDS[name]
    text = signed(kind.provider, json.dumps(header_of(kind)).encode(), json.dumps(dict(kind.sound)).encode())
    form: Pairs = [
        *kind.form.items(),
        (kind.place, text),
        ("scope", name),
        ("resource", "sales-db"),
        ("authorization_details", details(rng)),
    ]
    if rng.random() < 0.3:
        form.append(("requested_token_type", ROOT))
    for _ in range(rng.choice([0, 0, 1, 2])):
        at = rng.randrange(len(form))
        how = rng.choice(["other", "gone", "new", "twice"])
        if how == "gone":
            del form[at]
        elif how == "new":
            form.append((rng.choice(PARAMETERS), rng.choice([*VALUES, text])))
        elif how == "twice":
            form.append(form[at])
        else:
            form[at] = (form[at][0], rng.choice(VALUES))
    SERVICE.registry.inner = MemoryRegistry(floor=0)
    answer = SERVICE.send("/token", urllib.parse.urlencode(form).encode(), BY_FORM)
    check_log(answer, [text])
    if answer.status != 200:
        check_error(answer)
        return
    stated = check_form(form, kind, text)
    check_granted(answer.said, f"{kind.subject}{kind.sound['sub']}", stated)
    assert answer.said["scope"] == name
    assert (answer.said["token_type"] == "N_A") is (("requested_token_type", ROOT) in form)


def check_form(form: Pairs, kind: Kind, text: str) -> dict[str, Any]:
    """That a form which was taken says one thing, and what it asks of the grant."""
    given = [(name, value) for name, value in form if value != "" and name in PARAMETERS[:15]]
    once = dict(given)
    assert len(once) == len([name for name, _ in form if name in PARAMETERS[:15] and (name, "") not in form])
    assert len({name for name, _ in given}) == len(given)
    assert once["grant_type"] in (EXCHANGE, BEARER, "client_credentials")
    assert text in once.values() and not ("resource" in once and "audience" in once)
    named = once.get("resource", once.get("audience"))
    assert named in ("sales-db", "https://sales.example/mcp") or (named is None and once.get("requested_token_type") == ROOT)
    if "client_secret" in once:
        assert kind.provider == "hub" and (once["client_id"], once["client_secret"]) == ("agent-app", SECRET)
    if "authorization_details" not in once:
        return {}
    (stated,) = json.loads(once["authorization_details"])
    assert stated["type"] == "captoken" and stated.get("agent", "agent") in ("agent", None)
    return dict(stated)


def test_fuzz_whatever_body() -> None:
    often("body", _whatever_body)


def _whatever_body(rng: random.Random) -> None:
    body = rng.choice(
        [
            rng.randbytes(rng.randint(0, 300)),
            "".join(rng.choices("grant_type=&%0123456789abcdef+;", k=rng.randint(0, 200))).encode(),
        ]
    )
    path = rng.choice(["/token", "/logout/backchannel", "/signals"])
    kind = b"application/secevent+jwt" if path == "/signals" else FORM.encode()
    answer = SERVICE.send(path, body, ((b"content-type", kind),))
    assert answer.status in (400, 401)
    if path == "/signals":
        assert answer.said.keys() == {"err", "description"}
    else:
        check_error(answer)


# --- signals -----------------------------------------------------------------------------------------------------------

SIGNALS = Service(test_signals.WITH_EVENTS)
ISSUER = "https://login.acme.example"
KIND_OF_EVENTS = [f"{test_signals.CAEP}session-revoked", f"{test_signals.RISC}account-disabled", f"{test_signals.CAEP}device-compliance-change", f"{test_signals.SSF}verification"]  # fmt: skip


def out(registry: MemoryRegistry) -> None:
    """Tasks of two people, each of a session."""
    for task, who, session in (("t-jane", "acme:jane", "s-1"), ("t-omar", "acme:omar", "s-2")):
        registry.enter(
            entry(task, subject=who, provider="acme", session=session, now=NOW, issued_at=NOW - 9, deadline=NOW + 900)
        )


def may_end(task: str, session: Any, sub: Any) -> bool:
    """Is that task of the session that is named, or else of the person?"""
    whose = {"t-jane": ("s-1", "jane"), "t-omar": ("s-2", "omar")}[task]
    return session == whose[0] if session is not None else bool(sub == whose[1])


def may_log_out(claims: Mapping[str, Any], task: str) -> bool:
    events, audiences = claims.get("events"), values(claims.get("aud"))
    texts = all(is_text(claims[name]) for name in ("sub", "sid", "jti") if name in claims)
    if (
        not texts
        or "jti" not in claims
        or "nonce" in claims
        or events != {test_signals.LOGGED_OUT: events.get(test_signals.LOGGED_OUT)}
    ):
        return False
    if (
        claims.get("iss") != ISSUER
        or not audiences
        or any(one != "captoken-cli" for one in audiences)
        or not is_of_now(claims, 3600)
    ):
        return False
    return may_end(task, claims.get("sid"), claims.get("sub"))


def may_happen(claims: Mapping[str, Any], task: str) -> bool:
    events = claims.get("events")
    if (
        type(events) is not dict
        or len(events) != 1
        or not is_text(claims.get("jti"))
        or values(claims.get("aud")) != [f"{US}/signals"]
    ):
        return False
    if claims.get("iss") != ISSUER or not is_time(claims.get("iat")) or not NOW - 86_400 <= claims["iat"] <= NOW + 30:
        return False
    ((kind, payload),) = events.items()
    subject = claims.get("sub_id")
    subject = payload.get("subject") if subject is None else subject
    if kind == KIND_OF_EVENTS[3] or payload.get("subject", subject) not in (None, subject):
        return False
    person, session = subject, None
    if subject.get("format") == "complex":
        person, session = subject.get("user"), subject.get("session")
    elif subject.get("format") == "opaque":
        person, session = None, subject
    if person is not None and (person.get("format"), person.get("iss")) != ("iss_sub", ISSUER):
        return False
    if session is not None and (session.get("format") != "opaque" or (kind != KIND_OF_EVENTS[0] and person is not None)):
        session = None
    return may_end(task, None if session is None else session.get("id"), None if person is None else person.get("sub"))


def check_signal(answer: Answer, pairs: Pairs, may: Callable[[Mapping[str, Any], str], bool]) -> None:
    if answer.status not in (200, 202):
        assert answer.status == 400 and len(answer.said) == 2, answer
    over = [task for task in ("t-jane", "t-omar") if not SIGNALS.registry.is_live(task, NOW)]
    if over:
        said = said_by(pairs)
        assert answer.status in (200, 202) and said is not None
        for task in over:
            assert may(said, task), (task, pairs)


def test_fuzz_a_logout() -> None:
    often("logout", _a_logout)


def _a_logout(rng: random.Random) -> None:
    sound = {**test_signals.LOGGING_OUT, **rng.choice([{}, {"sid": "s-2"}, {"sub": "omar"}])}
    pairs = changed(rng, sound)
    if rng.random() < 0.3:
        pairs = [pair for pair in pairs if pair[0] != "sid"]
    typed = {"alg": "ES256", "kid": "acme-ES256", "typ": LOGOUT}
    header = changed(rng, typed, _header_names) if rng.random() < 0.2 else list(typed.items())
    text = signed("acme", object_of(header), object_of(pairs, rng.random() < 0.2))
    SIGNALS.registry.inner = MemoryRegistry(floor=0)
    out(SIGNALS.registry.inner)
    answer = SIGNALS.send("/logout/backchannel", body_of({"logout_token": text}), BY_FORM)
    check_signal(answer, pairs, may_log_out)
    check_log(answer, [text])


def subject_of(rng: random.Random) -> Any:
    person = {"format": "iss_sub", "iss": ISSUER, "sub": rng.choice(["jane", "omar"])}
    session = {"format": "opaque", "id": rng.choice(["s-1", "s-2"])}
    sound = rng.choice(
        [
            person,
            session,
            {"format": "complex", "user": person, "session": session},
            {"format": "complex", "user": person, "device": session},
        ]
    )
    if rng.random() < 0.7:
        return sound
    return dict(changed(rng, sound, ("tenant", "user", "session", "email", "format")))


def test_fuzz_an_event() -> None:
    often("event", _an_event)


def _an_event(rng: random.Random) -> None:
    kind = rng.choice(KIND_OF_EVENTS)
    payload = dict(changed(rng, rng.choice([{}, {"current_status": "not-compliant"}, {"subject": test_signals.JANE}])))
    sound = test_signals.event(kind, subject_of(rng)) | {"events": {kind: plain(payload)}}
    pairs = perhaps(rng, plain(sound))
    text = signed("events", object_of([("alg", "ES256"), ("kid", "events-ES256"), ("typ", EVENT)]), object_of(pairs))
    SIGNALS.registry.inner = MemoryRegistry(floor=0)
    out(SIGNALS.registry.inner)
    answer = SIGNALS.send("/signals", text.encode(), ((b"content-type", b"application/secevent+jwt"),))
    check_signal(answer, pairs, may_happen)
    check_log(answer, [text])


def plain(value: Any) -> Any:
    """Without spellings of JSON's own: those stand at the top alone."""
    if isinstance(value, Raw):
        return "raw"
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


# --- policies ----------------------------------------------------------------------------------------------------------

LINES = POLICY.splitlines()
PIECES = [
    "true", "-1", "0", "9e99", "nan", "1979-05-27", '""', '"*"', "[]", "{}", '["sales"]', "[[1]]", '"https://login.acme.example"', '"acme:{sub}"', '"{sub}"', '"a:{sub}{x}"', '"acme:{sub"',
    '"http://evil.example"', '"https://u:p@x"', '"\\u0000"', '"' + "x" * 5000 + '"', "9223372036854775807", "{ provider = 1 }", '{ provider = "acme" }', '{ all = ["x"] }', "inf", '"spiffe://*"',
    '{ unrestricted = true }', '{ "*" = ["*"] }', '{ expires_in = 0 }', '{ expires_in = "x" }', '{ tables = ["*"], operations = ["*"], expires_in = 86400 }',
]  # fmt: skip
_value = re.compile(r"=\s*(.+)$")


def test_fuzz_a_policy() -> None:
    """It loads and means what it says, or is refused by one kind of error."""
    often("policy", _a_policy)


def _a_policy(rng: random.Random) -> None:
    lines = list(LINES)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        how = rng.choice(["gone", "twice", "moved", "value", "value", "letter"])
        if how == "gone":
            del lines[at]
        elif how == "twice":
            lines.insert(at, lines[at])
        elif how == "moved":
            lines.insert(rng.randrange(len(lines)), lines.pop(at))
        elif how == "value":
            piece = rng.choice(PIECES)
            lines[at] = _value.sub(lambda _, piece=piece: f"= {piece}", lines[at])
        else:
            where = rng.randint(0, len(lines[at]))
            lines[at] = lines[at][:where] + letters(rng, 2) + lines[at][where:]
    try:
        loaded = policy.read("\n".join(lines))
        desk.check_policy(loaded, FixedClock(NOW))
    except IssuanceError as error:
        assert error.code == "policy" and str(error).startswith("the policy does not load: ")
        return
    check_policy(loaded)


def check_policy(loaded: policy.Policy) -> None:
    """What a policy that loads keeps, whatever stands in it."""
    prefixes = [one.prefix for one in loaded.subjects.values()]
    for number, one in enumerate(prefixes):
        assert one and not any(other.startswith(one) for other in prefixes[:number] + prefixes[number + 1 :])
    for grant in loaded.grants.values():
        assert grant.parties and grant.agents and grant.resources and set(grant.resources) <= loaded.resources.keys()
        assert 0 < grant.expires_in <= grant.task_max and 0 <= grant.lease <= grant.expires_in
        assert grant.parties[0].provider in loaded.subjects
        assert not (grant.counts and len(grant.resources) > 1) and "unrestricted" not in grant.give
        for party in grant.parties:
            strict = isinstance(loaded.providers[party.provider], (policy.Workload, policy.Spiffe))
            assert party.matchers or not strict
    assert loaded.origin.startswith(("https://", "http://127.0.0.1", "http://localhost"))

"""The peers, each used as well as its own documentation allows. A missing one is an error.

Where a choice was open, the faster one was taken for the peer; README.md lists the choices.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from itertools import cycle
from typing import Any, ClassVar

import jwt
from biscuit_auth import (
    Algorithm,
    AuthorizationError,
    AuthorizerBuilder,
    Biscuit,
    BiscuitBuilder,
    BiscuitValidationError,
    BlockBuilder,
    KeyPair,
    PrivateKey,
)
from joserfc import jwt as jose
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from nacl.exceptions import CryptoError
from pymacaroons import MACAROON_V1, MACAROON_V2, Macaroon, Verifier
from pymacaroons.exceptions import MacaroonInvalidSignatureException, MacaroonUnmetCaveatException
from tenuo import (
    AnyValue,
    Authorizer,
    NonceStore,
    OneOf,
    SigningKey,
    TenuoError,
    Warrant,
    decode_warrant_stack_base64,
    encode_warrant_stack,
)

from .bound import Bound
from .contestants import (
    FACTS,
    KEY,
    LIFETIME,
    NARROWED,
    OPERATION,
    STEP,
    SUBJECT,
    TABLES,
    Chain,
    Clock,
    Contestant,
    Facts,
    Work,
    agent_after,
    nonce,
)
from .discharged import PLACE, Asking

logging.getLogger("tenuo.nonce").setLevel(logging.ERROR)  # it warns of each replay


def permits(name: str, values: list[str], facts: Facts) -> bool:
    """Say whether the fact of that name is one of the values. An unknown name prohibits."""
    return name in ("table", "operation", "task", "agent") and getattr(facts, name) in values


def check_predicates(facts: Facts, now: float) -> Callable[[str], bool]:
    """Return what checks caveats such as `table = sales,market.eu` and `time < 1764064800`."""

    def check(predicate: str) -> bool:
        name, sign, value = predicate.split(" ", 2)
        if sign == "=":
            return permits(name, value.split(","), facts)
        return name == "time" and sign == "<" and value.isdecimal() and now < int(value)

    return check


def check_packed(facts: Facts, now: float) -> Callable[[str], bool]:
    """Return what checks a caveat that is one JSON object of all that a hop restricts."""

    def check(predicate: str) -> bool:
        said = json.loads(predicate)
        return all(
            now < value if name == "before" else permits(name, value, facts)
            for name, value in said.items()
            if name not in ("from", "to", "n")
        )

    return check


class Pymacaroons(Chain[Macaroon]):
    """pymacaroons in macaroon format V2, captoken's own wire. One caveat per restriction."""

    name = "pymacaroons V2"
    package = "pymacaroons"
    module = "pymacaroons"
    refusals = (MacaroonInvalidSignatureException,)
    version = MACAROON_V2

    def mint(self) -> str:
        token = Macaroon(
            location="",
            identifier=f"k1 {secrets.token_urlsafe(16)} {SUBJECT}",
            key=self.key,
            version=self.version,
        )
        token.add_first_party_caveat("table = " + ",".join(TABLES))
        token.add_first_party_caveat(f"operation = {OPERATION}")
        token.add_first_party_caveat(f"time < {self.ends(0)}")
        token.add_first_party_caveat(f"task = {FACTS.task}")
        token.add_first_party_caveat(f"agent = {FACTS.agent}")
        return token.serialize()

    def ask(self, text: str, facts: Facts, calls: int = 1) -> Work:
        key = self.key

        def decide() -> object:
            verifier = Verifier()
            verifier.satisfy_general(check_predicates(facts, time.time()))
            return verifier.verify(Macaroon.deserialize(text), key)

        return decide

    def parse(self, text: str) -> Macaroon:
        return Macaroon.deserialize(text)

    def narrow(self, token: Macaroon, hop: int) -> Macaroon:
        return self._add(token.copy(), hop)

    def attenuate(self, text: str, hop: int) -> str:
        return self._add(Macaroon.deserialize(text), hop).serialize()  # nobody else holds it: no copy

    def record(self, token: Macaroon, hop: int) -> Macaroon:
        child = self.narrow(token, hop)
        child.add_first_party_caveat(f"from = {agent_after(hop - 1)}")
        child.add_first_party_caveat(f"to = {agent_after(hop)}")
        child.add_first_party_caveat(f"n = {nonce()}")
        return child

    def text(self, token: Macaroon) -> str:
        return token.serialize()

    def _add(self, token: Macaroon, hop: int) -> Macaroon:
        token.add_first_party_caveat(f"table = {NARROWED}")
        token.add_first_party_caveat(f"operation = {OPERATION}")
        token.add_first_party_caveat(f"time < {self.ends(hop)}")
        return token


class PymacaroonsV1(Pymacaroons):
    """pymacaroons in the format it writes unless told otherwise: larger, and faster to read."""

    name = "pymacaroons V1"
    version = MACAROON_V1


class PymacaroonsPacked(Pymacaroons):
    """The same with all restrictions of a hop in one caveat, as captoken has them in one link."""

    name = "pymacaroons V2, packed"

    def mint(self) -> str:
        token = Macaroon(
            location="",
            identifier=f"k1 {secrets.token_urlsafe(16)} {SUBJECT}",
            key=self.key,
            version=self.version,
        )
        said = {"table": TABLES, "operation": [OPERATION], "task": [FACTS.task], "agent": [FACTS.agent]}
        token.add_first_party_caveat(json.dumps({**said, "before": self.ends(0)}))
        return token.serialize()

    def ask(self, text: str, facts: Facts, calls: int = 1) -> Work:
        key = self.key

        def decide() -> object:
            verifier = Verifier()
            verifier.satisfy_general(check_packed(facts, time.time()))
            return verifier.verify(Macaroon.deserialize(text), key)

        return decide

    def record(self, token: Macaroon, hop: int) -> Macaroon:
        parties = {"from": agent_after(hop - 1), "to": agent_after(hop), "n": nonce()}
        return self._packed(token.copy(), hop, parties)

    def _add(self, token: Macaroon, hop: int) -> Macaroon:
        return self._packed(token, hop, {})

    def _packed(self, token: Macaroon, hop: int, parties: dict[str, str]) -> Macaroon:
        said = {"table": [NARROWED], "operation": [OPERATION], "before": self.ends(hop)}
        token.add_first_party_caveat(json.dumps(said | parties))
        return token


class PymacaroonsPackedV1(PymacaroonsPacked):
    """And that in the format it writes unless told otherwise."""

    name = "pymacaroons V1, packed"
    version = MACAROON_V1


class BiscuitPython(Chain[Biscuit]):
    """biscuit-python. Five checks in the authority block, three in each block after it."""

    name = "biscuit-python"
    package = "biscuit-python"
    module = "biscuit_auth"
    refusals = (AuthorizationError, BiscuitValidationError)

    AUTHORITY = """
        user({user});
        check if table($t), {tables}.contains($t);
        check if operation({operation});
        check if time($now), $now < {ends};
        check if task({task});
        check if agent({agent});
    """
    BLOCK = """
        check if table({table});
        check if operation({operation});
        check if time($now), $now < {ends};
    """
    RECORD = "from({parent}); to({child}); n({nonce});"
    SERVER = """
        table({table}); operation({operation}); task({task}); agent({agent}); time({now});
        allow if true;
    """
    PATIENCE = timedelta(seconds=5)  # its limit of 1 ms of wall clock denies at random on a busy machine

    def __init__(self, key: bytes = KEY, clock: Clock = time.time) -> None:
        super().__init__(key, clock)
        self.keys = KeyPair.from_private_key(PrivateKey.from_bytes(key, Algorithm.Ed25519))

    def mint(self) -> str:
        parameters = {
            "user": SUBJECT,
            "tables": set(TABLES),
            "operation": OPERATION,
            "ends": self._ends(0),
            "task": FACTS.task,
            "agent": FACTS.agent,
        }
        return BiscuitBuilder(self.AUTHORITY, parameters).build(self.keys.private_key).to_base64()

    def ask(self, text: str, facts: Facts, calls: int = 1) -> Work:
        public = self.keys.public_key

        def decide() -> object:
            token = Biscuit.from_base64(text, public)
            parameters = {
                "table": facts.table,
                "operation": facts.operation,
                "task": facts.task,
                "agent": facts.agent,
                "now": datetime.now(UTC),
            }
            server = AuthorizerBuilder(self.SERVER, parameters)
            limits = server.limits()
            limits.max_time = self.PATIENCE
            server.set_limits(limits)
            return server.build(token).authorize()

        return decide

    def parse(self, text: str) -> Biscuit:
        return Biscuit.from_base64(text, self.keys.public_key)

    def narrow(self, token: Biscuit, hop: int) -> Biscuit:
        return token.append(self._block(hop))

    def record(self, token: Biscuit, hop: int) -> Biscuit:
        block = self._block(hop)
        names = {"parent": agent_after(hop - 1), "child": agent_after(hop), "nonce": nonce()}
        block.add_code(self.RECORD, names)
        return token.append(block)

    def text(self, token: Biscuit) -> str:
        return token.to_base64()

    def _block(self, hop: int) -> BlockBuilder:
        parameters = {"table": NARROWED, "operation": OPERATION, "ends": self._ends(hop)}
        return BlockBuilder(self.BLOCK, parameters)

    def _ends(self, hop: int) -> datetime:
        return datetime.fromtimestamp(self.ends(hop), UTC)


Proof = tuple[str, bytes]  # a name for the call, where it has one, and the signature
NO_PROOF: tuple[str, None] = ("", None)


class Tenuo(Bound[list[Warrant], Proof]):
    """tenuo. A token is the whole chain of warrants, since the last one alone is worthless.

    It has no bearer mode: proof of possession is always checked, and is what binds the agent. The
    task is its session id, which the server compares, since the library does not. Its authorizer
    remembers nothing: no warrant that it has seen, and no proof.
    """

    name = "tenuo"
    package = "tenuo"
    module = "tenuo"
    refusals = (TenuoError, PermissionError)
    names_holders = True
    once = False

    TOOL = "query"
    OPEN: ClassVar[dict[str, Any]] = {}  # arguments that may be anything

    def __init__(self, key: bytes = KEY, clock: Clock = time.time) -> None:
        super().__init__(key, clock)
        self.issuer = SigningKey.from_bytes(key)
        self.authorizer = Authorizer(trusted_roots=[self.issuer.public_key], clock_tolerance_secs=0)
        self.holders = [_holder(agent_after(hop)) for hop in range(64)]
        self.publics = [holder.public_key for holder in self.holders]

    def mint(self) -> str:
        return self.text([self._issue(LIFETIME)])

    def expired(self) -> str:
        warrant = self._issue(1)  # it cannot be issued in the past
        time.sleep(2)
        return self.text([warrant])

    def prover(self, text: str, facts: Facts) -> Callable[[], Proof]:
        leaf, holder, tool = decode_warrant_stack_base64(text)[-1], _holder(facts.agent), self.TOOL
        arguments = {"table": facts.table, "operation": facts.operation}
        return lambda: ("", leaf.sign(holder, tool, arguments, int(time.time())))

    def serve(self, text: str, facts: Facts, proofs: Iterable[Proof | None]) -> Work:
        authorizer, tool, task = self.authorizer, self.TOOL, facts.task
        arguments = {"table": facts.table, "operation": facts.operation}
        _, proof = next(iter(proofs)) or NO_PROOF

        def decide() -> object:
            warrants = decode_warrant_stack_base64(text)
            if warrants[-1].session_id != task:
                raise PermissionError(task)
            return authorizer.check_chain(warrants, tool, arguments, proof)

        return decide

    def parse(self, text: str) -> list[Warrant]:
        return decode_warrant_stack_base64(text)

    def narrow(self, token: list[Warrant], hop: int) -> list[Warrant]:
        return self._attenuate(token, hop, hop - 1, hop - 1)  # the holder keeps it

    def delegate(self, token: list[Warrant], hop: int) -> list[Warrant]:
        return self._attenuate(token, hop, hop - 1, hop)

    def text(self, token: list[Warrant]) -> str:
        return encode_warrant_stack(token)

    def _issue(self, seconds: int) -> Warrant:
        may = {self.TOOL: {"table": OneOf(list(TABLES)), "operation": OneOf([OPERATION]), **self.OPEN}}
        return Warrant.issue(self.issuer, may, ttl_seconds=seconds, holder=self.publics[0], session_id=FACTS.task)

    def _attenuate(self, token: list[Warrant], hop: int, parent: int, child: int) -> list[Warrant]:
        may = {self.TOOL: {"table": OneOf([NARROWED]), "operation": OneOf([OPERATION]), **self.OPEN}}
        seconds = LIFETIME - STEP * hop
        return [*token, token[-1].attenuate(may, self.holders[parent], seconds, self.publics[child])]


@cache
def _holder(agent: str) -> Any:
    return SigningKey.from_bytes(sha256(agent.encode()).digest())


class TenuoOnce(Tenuo):
    """tenuo with its nonce store in memory, as its MCP server uses it: after the authorizer, by the proof's bytes.

    Equal calls within 30 seconds have equal proofs, so each call is named by one more argument.
    """

    name = "tenuo, with its nonce store"
    once = True

    OPEN: ClassVar[dict[str, Any]] = {"call": AnyValue()}

    def prover(self, text: str, facts: Facts) -> Callable[[], Proof]:
        leaf, holder, tool = decode_warrant_stack_base64(text)[-1], _holder(facts.agent), self.TOOL
        arguments = {"table": facts.table, "operation": facts.operation}

        def make() -> Proof:
            call = nonce()
            return call, leaf.sign(holder, tool, arguments | {"call": call}, int(time.time()))

        return make

    def serve(self, text: str, facts: Facts, proofs: Iterable[Proof | None]) -> Work:
        authorizer, tool, task, given = self.authorizer, self.TOOL, facts.task, cycle(proofs)
        fresh = NonceStore().check_and_record

        def decide() -> object:
            call, proof = next(given) or NO_PROOF
            warrants = decode_warrant_stack_base64(text)
            if warrants[-1].session_id != task:
                raise PermissionError(task)
            arguments = {"table": facts.table, "operation": facts.operation, "call": call}
            answer = authorizer.check_chain(warrants, tool, arguments, proof)
            if not fresh(proof):
                raise PermissionError(call)
            return answer

        return decide


class Jwt(Contestant):
    """PyJWT, HS256. Its holders cannot narrow it, so it is in the one-hop scenarios only."""

    name = "PyJWT"
    package = "PyJWT"
    module = "jwt"
    refusals = (jwt.InvalidTokenError, PermissionError)

    def mint(self) -> str:
        return jwt.encode(_claims(self.ends(0)), self.key, algorithm="HS256")

    def ask(self, text: str, facts: Facts, calls: int = 1) -> Work:
        key = self.key

        def decide() -> object:
            claims = jwt.decode(text, key, algorithms=["HS256"], options={"require": ["exp"]})
            if not all(permits(name, claims[name], facts) for name in LISTS):
                raise PermissionError(facts)
            return claims

        return decide


class Joserfc(Contestant):
    """joserfc, HS256: the JWT library that was level with captoken. No chain, like PyJWT."""

    name = "joserfc"
    package = "joserfc"
    module = "joserfc.jwt"
    refusals = (JoseError, PermissionError)

    def __init__(self, key: bytes = KEY, clock: Clock = time.time) -> None:
        super().__init__(key, clock)
        self.secret = OctKey.import_key(key)
        self.registry = jose.JWTClaimsRegistry(exp={"essential": True})

    def mint(self) -> str:
        return jose.encode({"alg": "HS256"}, _claims(self.ends(0)), self.secret)

    def ask(self, text: str, facts: Facts, calls: int = 1) -> Work:
        secret, registry = self.secret, self.registry

        def decide() -> object:
            claims = jose.decode(text, secret, algorithms=["HS256"]).claims
            registry.validate(claims)
            if not all(permits(name, claims[name], facts) for name in LISTS):
                raise PermissionError(facts)
            return claims

        return decide


LISTS = ("table", "operation", "task", "agent")


def _claims(ends: int) -> dict[str, Any]:
    """The five restrictions as claims: a list each, and the standard one for the time."""
    return {
        "sub": SUBJECT,
        "jti": secrets.token_urlsafe(16),
        "exp": ends,
        "table": list(TABLES),
        "operation": [OPERATION],
        "task": [FACTS.task],
        "agent": [FACTS.agent],
    }


class PymacaroonsAsking(Pymacaroons, Asking):
    """pymacaroons with third parties, in macaroon format V2. A caveat's id is short: how it is kept secret is not its affair."""

    name = "pymacaroons V2, with third parties"
    # It leaves unmet caveats out of the chain, and then the box of a third party does not open.
    refusals = (MacaroonInvalidSignatureException, MacaroonUnmetCaveatException, CryptoError)

    def show(self, parties: int, *, expired: bool = False, forged: bool = False, unbound: bool = False) -> list[str]:
        token = Macaroon.deserialize(self.mint())
        asked = [(secrets.token_bytes(32), secrets.token_urlsafe(16)) for _ in range(parties)]
        for key, identifier in asked:
            token.add_third_party_caveat(PLACE, key, identifier)
        answers = []
        for key, identifier in asked:
            signed_by = secrets.token_bytes(32) if forged else key
            answer = Macaroon(location="", identifier=identifier, key=signed_by, version=self.version)
            answer.add_first_party_caveat(f"time < {int(time.time()) + (-LIFETIME if expired else LIFETIME)}")
            answers.append(answer if unbound else token.prepare_for_request(answer))
        return [each.serialize() for each in (token, *answers)]

    def serve(self, texts: list[str], facts: Facts) -> Work:
        key = self.key

        def decide() -> object:
            verifier = Verifier()
            verifier.satisfy_general(check_predicates(facts, time.time()))
            token, *answers = map(Macaroon.deserialize, texts)
            return verifier.verify(token, key, answers)

        return decide


class PymacaroonsAskingV1(PymacaroonsAsking):
    """The same in the format it writes unless told otherwise."""

    name = "pymacaroons V1, with third parties"
    version = MACAROON_V1


PEERS: tuple[type[Contestant], ...] = (
    Pymacaroons,
    PymacaroonsV1,
    PymacaroonsPacked,
    PymacaroonsPackedV1,
    BiscuitPython,
    Tenuo,
    Jwt,
    Joserfc,
)

"""A proof of a key at the token endpoint: for this request, once, and wanted where the grant is bound."""

from __future__ import annotations

from typing import Any

import pytest

from tests.issuance.test_issuance import ORIGIN, World, exchange, login, proof

from .fixtures import HOLDER, NOW
from .signing import dpop


def test_63_a_bound_grant_wants_a_proof_of_its_key(world: World) -> None:
    assert world.ask(**exchange())["error"] == "invalid_dpop_proof"


@pytest.mark.parametrize(
    "claims",
    [
        {"htu": "https://other.example/token"}, {"htu": f"{ORIGIN}/token?x"}, {"htm": "GET"}, {"iat": NOW - 61}, {"iat": NOW + 31}, {"iat": str(NOW)},
        {"iat": True}, {"jti": ""}, {"jti": None}, {"jti": 7}, {"header": {"typ": "JWT"}}, {"header": {"alg": "ES256"}}, {"header": {"crit": []}},
        {"header": {"jwk": {"kty": "OKP", "crv": "X25519", "x": HOLDER.public}}}, {"header": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}}},
        {"header": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": HOLDER.public, "d": "A" * 43}}}, {"header": {"jwk": HOLDER.public}},
        {"header": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "!"}}}, {"header": {"jwk": {"kty": "OKP", "crv": "Ed25519"}}},
    ],
)  # fmt: skip
def test_51_a_proof_of_something_else(world: World, claims: dict[str, Any]) -> None:
    assert world.ask(proof(**claims), **exchange())["error"] == "invalid_dpop_proof"


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "ü", dpop(HOLDER, f"{ORIGIN}/token", NOW)[:-4] + "AAAA"])
def test_51_what_is_no_proof(world: World, text: str) -> None:
    assert world.ask([("dpop", text.encode("utf-8"))], **exchange())["error"] == "invalid_dpop_proof"
    both = [("dpop", proof()["dpop"]), ("dpop", proof(jti="j2")["dpop"])]
    assert world.ask(both, **exchange())["error"] == "invalid_dpop_proof"


def test_51_a_proof_is_good_once(world: World) -> None:
    assert world.ask(proof(), **exchange())["status"] == 200
    assert world.ask(proof(), **exchange(subject_token=login(iat=NOW - 4)))["error"] == "invalid_grant"
    assert world.ask(proof(jti="j2"), **exchange(subject_token=login(iat=NOW - 4)))["status"] == 200

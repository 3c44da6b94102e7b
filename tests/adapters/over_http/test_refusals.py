"""The responses that refuse a request: what a stranger is told, what a genuine token is told, and where tokens are had."""

from __future__ import annotations

import re

import msgspec
import pytest

from captoken import Access, Denied, Issuer, Keyring, Verifier
from captoken.adapters._http.refusals import Refusals
from captoken.adapters.asgi import CaptokenMiddleware
from captoken.control import Feed, Operator
from captoken.errors import CODES
from captoken.keys import DischargerKey, OperatorKey
from captoken.stores.memory import MemorySnapshots
from tests.adapters.over_http.test_asgi import (
    BOUND,
    DAY,
    FORGED,
    HELD,
    KEYRING,
    ORIGIN,
    SELECT,
    SERVICE,
    WHO,
    bearer,
    in_process,
    is_refusal,
    text,
)
from tests.adapters.serving import listening, send, served

STRANGERS = Keyring.from_keys({"k2": bytes(range(1, 33))}, current="k2")


def without_id(told: str) -> str:
    """An answer without the id of its decision, which is random."""
    plain, ids = re.subn(r'"decision": "[A-Za-z0-9_-]{12}"', '"decision": ""', told)
    assert ids == 1
    return plain


def test_what_a_stranger_can_cause_is_told_as_one(origin: str, server: str) -> None:
    """Malformed, an unknown key and a bad signature give the same answer, to the byte; so does what was revoked."""
    strange = {
        "malformed": "cap1_AAAA",
        "no token": "eyJhbGciOiJub25lIn0.e30.",
        "bad signature": FORGED,
        "unknown key": Issuer(STRANGERS).mint(**WHO).present(audience="sales-api"),
    }
    told = {name: send(origin, "/sales", f"Authorization: Bearer {each}") for name, each in strange.items()}
    snapshots, key = MemorySnapshots(), OperatorKey.generate()
    Operator(key, snapshots, by="ops").revoke(token=HELD.token_id, why="lost")
    verifier = Verifier(KEYRING, audience="sales-api", overlay=Feed(snapshots, [key.public], every=0))
    with served(CaptokenMiddleware(SERVICE, verifier, origin=ORIGIN, realm="sales"), listening(), server) as other:
        told["revoked"] = send(other, "/sales", bearer())
    dateless = {name: (r.status, r.body, {k: v for k, v in r.headers.items() if k != "date"}) for name, r in told.items()}
    assert len({without_id(str(each)) for each in dateless.values()}) == 1, dateless
    assert told["revoked"].json == {
        "decision": told["revoked"].json["decision"],
        "type": "about:blank", "title": "Unauthorized", "status": 401, "detail": "The token was not accepted.",
        "error": "invalid_token", "error_description": "The token was not accepted.", "retry": "no",
        "for_model": "The credential was not accepted. Retrying with the same credential will not help. "
        "Ask whoever gave you this task for a new one.",
    }  # fmt: skip
    is_refusal(told["revoked"], 401)


@pytest.mark.parametrize(
    ("token", "status", "error"),
    [
        (HELD.present(audience="other-api", **DAY), 401, "invalid_token"),
        (HELD.serialize(), 401, "invalid_token"),
        (HELD.present(audience="sales-api", clock=lambda: 1_764_061_200), 401, "invalid_token"),
        (HELD.require(DischargerKey.generate().public, need={"a": 1}).present(audience="sales-api", **DAY), 401, "invalid_token"),
        (BOUND.present(audience="sales-api", **DAY), 401, "invalid_token"),
        (HELD.attenuate(delegate_only=True).present(audience="sales-api", **DAY), 403, "insufficient_scope"),
    ],
    ids=["for another server", "for no server", "expired", "without its discharge", "bound, without a proof", "for handing on"],
)
def test_a_genuine_token_that_is_no_good_here_is_told_why(token: str, status: int, error: str, origin: str) -> None:
    """The specification's rules 24.13 and 40.8."""
    reply = send(origin, "/sales", f"Authorization: Bearer {token}")
    is_refusal(reply, status)
    assert reply.json["error"] == error and f'error="{error}"' in reply.headers["www-authenticate"]


def test_each_code_is_told_as_far_as_its_sentence_tells_it_apart() -> None:
    """What 401's single message hides stays hidden; a retry is said to help where the model is told so."""
    refusals = Refusals("sales", None)
    genuine = Verifier(KEYRING, audience="sales-api").authenticate(text())
    single = {without_id(refusals.denied(Denied(genuine.deny(code, "because"))).body.decode()) for code in UNTOLD}
    assert len(single) == 1 and all(code not in str(single) for code in UNTOLD)
    access = Access(table="hr", operation="select", columns=["pay"], attributes={"risk": 7})
    for code in CODES.keys() - UNTOLD:
        told = msgspec.json.decode(refusals.denied(Denied(genuine.deny(code, "because of jane", access))).body)
        assert told["code"] == code and "jane" not in str(told) and "risk" not in str(told)
        wider = code in ("table", "operation", "column", "row", "tool", "argument", "domain")
        assert told.get("needed") == ({"allow": {"hr": ["select"]}, "columns": {"hr": ["pay"]}} if wider else None)
        assert (told["retry"] != "no") == ("retry can help" in told["for_model"] or "Retry with a fresh proof" in told["for_model"]
            or "Present the credential again" in told["for_model"]), told  # fmt: skip


def test_what_was_needed_is_told_only_where_a_wider_token_would_have_done() -> None:
    refusals = Refusals("sales", None)
    genuine = Verifier(KEYRING, audience="sales-api").authenticate(text())
    unstated, pay = SELECT, Access(tool="pay", arguments={"cents": 7, "to": "a" * 300})
    for code, access, needed in (
        ("column", unstated, None),
        ("domain", None, None),
        ("table", unstated, {"allow": {"sales": ["select"]}}),
        ("argument", pay, {"tools": {"pay": {"cents": {"in": [7]}, "to": {"any": True}}}}),
    ):
        told = msgspec.json.decode(refusals.denied(Denied(genuine.deny(code, "because", access))).body)
        assert told.get("needed") == needed


UNTOLD = {"malformed", "unsupported_version", "unknown_key", "bad_signature", "revoked"}


def test_no_credentials_are_told_the_scheme_and_no_error(origin: str) -> None:
    reply = send(origin, "/sales")
    assert reply.headers["www-authenticate"] == 'Bearer realm="sales"' and "error" not in reply.json


def test_a_refusal_of_head_has_no_body_but_the_length_of_one() -> None:
    start, body = in_process("/sales", bearer=False, scope={"method": "HEAD"})
    assert body["body"] == b"" and int(dict(start["headers"])[b"content-length"]) > 0


def test_the_metadata_is_served_and_named_in_each_challenge() -> None:
    told = {"authorization_servers": ["https://issuer.example"], "resource": "https://evil.example"}
    app = CaptokenMiddleware(SERVICE, Verifier(KEYRING), origin=ORIGIN, resource_metadata=told)
    with served(app, listening()) as origin:
        reply = send(origin, "/.well-known/oauth-protected-resource")
        assert reply.json == {
            "resource": ORIGIN, "authorization_servers": ["https://issuer.example"], "bearer_methods_supported": ["header"],
        }  # fmt: skip
        named = f'Bearer realm="{ORIGIN}", resource_metadata="{ORIGIN}/.well-known/oauth-protected-resource"'
        assert send(origin, "/sales").headers["www-authenticate"] == named
        assert send(origin, "/sales", bearer()).headers["www-authenticate"].startswith(named + ', error="invalid_token"')
        assert send(origin, "/.well-known/oauth-protected-resource", method="POST").status == 401
        assert send(origin, "/.well-known/oauth-protected-resource", method="HEAD").status == 200
    assert SERVICE.reached == []


def test_the_metadata_can_be_elsewhere() -> None:
    start, _ = in_process("/sales", bearer=False, resource_metadata="https://meta.example/sales")
    assert b'resource_metadata="https://meta.example/sales"' in dict(start["headers"])[b"www-authenticate"]

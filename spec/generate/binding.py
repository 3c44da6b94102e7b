"""Vectors of Holder binding, and what all that are about holders share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from nacl import bindings as sodium

from spec.generate.build import (
    NOW,
    Json,
    Parts,
    attached,
    b64,
    canonical,
    custody,
    extended,
    hand_over,
    handed,
    label,
    link_id,
    nonce,
    of_access,
    proof,
    secret,
    sha256,
    sign,
    signing_public,
    state,
    token,
    use,
)
from spec.generate.table import SALES, SELECT, Table, evidence

HERE = ("sales-db",)
UNTIL = {"exp": NOW + 600}
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the group that Ed25519 keys are in
STORE: dict[str, Json] = {"floor": 0, "limit": 1000, "used": []}
HOLDER = b64(signing_public("orchestrator"))
BOUND = token({**SALES, "key": HOLDER})
NONCE = secret("use", 16)

# The y of the points of order 1, 2, 4, 8 and 8: with either sign they are the eight that are of low order.
LOW_ORDER = {
    "1": 1,
    "2": P - 1,
    "4": 0,
    "8": 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    "8_again": 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
}


def tables() -> Iterator[Table]:
    yield holder_binding()


def point_bytes(y: int, sign_of_x: int = 0) -> bytes:
    return (y | sign_of_x << 255).to_bytes(32, "little")


def point(y: int, sign_of_x: int = 0) -> str:
    return b64(point_bytes(y, sign_of_x))


def addressed(parts: Parts, audience: str = "sales-db") -> Parts:
    """As it is presented."""
    return extended(parts, {"aud": [audience], "exp": NOW + 60})


def shown(stated: str | None, request: bytes | None = None, replays: Json = STORE) -> dict[str, Json]:
    """What a token comes with: the proof that ends its text, the digest of the request that a transport states, and the
    store of used proofs. What there is none of is left out."""
    given: dict[str, Json] = {"proof": stated, "request": None if request is None else request.hex(), "replays": replays}
    return {key: value for key, value in given.items() if value is not None}


def outcome(parts: Parts, holder: str, issued: int = NOW, nonce: bytes = NONCE) -> dict[str, Json]:
    """What comes of a bound token that is allowed, beside what comes of any."""
    public = signing_public(holder)
    return {"key": b64(public), "uses": [use(public, issued, nonce)], "evidence": evidence(parts)}


def mixed(public: bytes) -> bytes:
    """The same point with one of order 8 added: on the curve, and of no order that a key has."""
    made: bytes = sodium.crypto_core_ed25519_add(public, LOW_ORDER["8"].to_bytes(32, "little"))
    return made


def shifted(signature: bytes) -> bytes:
    """The same signature with the order of the group added to its second half."""
    return signature[:32] + (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")


def with_mixed_r(holder: str, message: bytes) -> bytes:
    """A signature whose R has a point of order 8 added: it holds by the equation with the cofactor, and by no other."""
    scalar = _scalar(holder)
    one = int.from_bytes(sha256(hashlib.sha512(secret(holder)).digest()), "little") % ORDER
    r = mixed(sodium.crypto_scalarmult_ed25519_base_noclamp(one.to_bytes(32, "little")))
    challenge = int.from_bytes(hashlib.sha512(r + signing_public(holder) + message).digest(), "little")
    return r + ((one + challenge * scalar) % ORDER).to_bytes(32, "little")


def _scalar(holder: str) -> int:
    """The secret number of a holder's key."""
    return (int.from_bytes(hashlib.sha512(secret(holder)).digest()[:32], "little") & 2**254 - 8) | 2**254


def with_r(r: bytes, holder: str, message: bytes) -> bytes:
    """A signature with the neutral element as R, in some spelling. Whoever has the key can make it, and the equation holds."""
    challenge = int.from_bytes(hashlib.sha512(r + signing_public(holder) + message).digest(), "little")
    return r + (challenge * _scalar(holder) % ORDER).to_bytes(32, "little")


def by_mixed_key(holder: str, message: bytes, *, holds: bool) -> bytes:
    """A signature under the holder's key with a point of order 8 added to it: one that holds without the cofactor, or not."""
    public = mixed(signing_public(holder))
    for number in range(1, 1000):
        one = int.from_bytes(sha256(message + bytes((number % 256, number // 256))), "little") % ORDER
        r: bytes = sodium.crypto_scalarmult_ed25519_base_noclamp(one.to_bytes(32, "little"))
        challenge = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little")
        if (challenge % ORDER % 8 == 0) == holds:
            return r + ((one + challenge * _scalar(holder)) % ORDER).to_bytes(32, "little")
    raise ValueError("no such signature was found")


def signatures(holder: str, message: bytes) -> dict[str, bytes]:
    """Signatures that are nearly a good one."""
    good = sign(holder, message)
    return {
        "first_bit": bytes((good[0] ^ 1,)) + good[1:], "last_bit_of_r": good[:31] + bytes((good[31] ^ 0x80,)) + good[32:],
        "first_bit_of_s": good[:32] + bytes((good[32] ^ 1,)) + good[33:], "last_bit": good[:-1] + bytes((good[-1] ^ 0x80,)),
        "zero": bytes(64), "s_and_order": shifted(good), "s_zero": good[:32] + bytes(32), "r_zero": bytes(32) + good[32:],
        "r_one": b"\1" + bytes(31) + good[32:], "halves_swapped": good[32:] + good[:32],
        "r_of_mixed_order": with_mixed_r(holder, message), "r_neutral": with_r(point_bytes(1), holder, message),
        "r_neutral_with_sign": with_r(point_bytes(1, 1), holder, message), "r_neutral_of_y_p_and_1": with_r(point_bytes(P + 1), holder, message),
    }  # fmt: skip


# --- holder binding --------------------------------------------------------------------------------------------------


def example() -> Parts:
    """The token that the specification takes apart, as it is presented."""
    first = token(
        {"exp": NOW + 600, "key": HOLDER, "operations": ["select"], "tables": ["market.*", "sales"]},
        jti="vlAGy265ZGLhatUFN1jjWw",
    )
    link = {
        **hand_over("sales-agent", key=b64(signing_public("sales-agent"))), "n": "MPOF0Cvxg5E", "exp": NOW + 300,
        "tables": ["sales"],
    }  # fmt: skip
    return addressed(extended(first, custody(first, link, "orchestrator")))


def holder_binding() -> Table:
    table = Table("holder_binding", "Keys that a token is bound to, and the signatures by which one hands it to the next.")

    def allow(
        name: str, rule: str, parts: Parts, holder: str = "sales-agent", proven: tuple[str, ...] = (), access: Json = SELECT
    ) -> None:  # fmt: skip
        whole = addressed(parts)
        made = proof(whole, holder, of_access(access))
        come = outcome(whole, holder)
        table.allow(name, rule, whole, access, presented=shown(made), outcome=come, proven=proven, audiences=HERE)

    def deny(name: str, rule: str, code: str, parts: Parts, holder: str = "sales-agent") -> None:
        whole = addressed(parts)
        table.deny(name, rule, code, whole, presented=shown(proof(whole, holder, of_access(SELECT))), audiences=HERE)

    allow("at_mint", "28.1", BOUND, "orchestrator")
    narrowed = extended(BOUND, UNTIL)
    allow("and_narrowed_by_anyone", "28.6", narrowed, "orchestrator")
    allow("by_a_later_holder", "28.5", token(SALES, {"key": HOLDER}), "orchestrator")
    agent = b64(signing_public("sales-agent"))
    first = token(SALES, hand_over("sales-agent", key=agent))
    allow("in_the_first_hand_over", "28.5", first)
    allow("to_whom_an_unbound_holder_named_and_then_signed", "28.7", handed(first, "report-agent", "sales-agent"),
          "report-agent", ("report-agent",))  # fmt: skip
    by_itself = token(SALES, {"key": HOLDER})
    allow("to_whom_a_key_signed_that_the_first_agent_bound_by_itself", "28.7", handed(by_itself, "sales-agent"))
    changed = extended(by_itself, custody(by_itself, {"key": agent}, "orchestrator"))
    link = hand_over("report-agent", key=b64(signing_public("report-agent")))
    allow("to_whom_a_key_signed_that_such_a_key_was_changed_for", "28.7",
          extended(changed, custody(changed, link, "sales-agent")), "report-agent")  # fmt: skip
    allow("and_then_by_a_key_of_whoever_was_handed_it", "28.7",
          handed(handed(by_itself, "sales-agent"), "report-agent", "sales-agent"), "report-agent", ("report-agent",))  # fmt: skip
    allow("in_a_link_that_lowers_depth", "28.1", token({**SALES, "key": HOLDER, "depth": 0}), "orchestrator")
    own = custody(BOUND, {"key": HOLDER, "exp": NOW + 300}, "orchestrator")
    allow("to_the_same_key_again", "28.6", extended(BOUND, own), "orchestrator")
    allow("to_another_key_of_the_same_agent", "28.6", extended(BOUND, custody(BOUND, {"key": agent}, "orchestrator")))
    allow("handed_on_with_a_caveat_that_is_not_ascii", "28.3",
          handed(BOUND, "sales-agent", tables=["sales", "caf\u00e9"]), proven=("sales-agent",))  # fmt: skip
    many = "x." + "A" * 86
    allow("handed_on_with_full_stops", "28.2", handed(BOUND, "sales-agent", tables=["market.eu", "sales"], where={"x.y": {"in": ["1.5", many]}}),
          proven=("sales-agent",), access={**SELECT, "attributes": {"x.y": many}})  # fmt: skip
    allow("handed_on_after_narrowing", "28.3", handed(narrowed, "sales-agent"), proven=("sales-agent",))
    child = handed(BOUND, "sales-agent")
    grandchild = handed(extended(child, UNTIL), "report-agent", "sales-agent")
    allow("handed_on_twice", "28.3", grandchild, "report-agent", ("sales-agent", "report-agent"))

    # The key itself.
    allow("key_of_43_characters", "28.1", token(SALES, {"key": agent}))
    good = signing_public("sales-agent")
    keys: dict[str, Json] = {
        "number": 1, "true": True, "list": [agent], "object": {"kty": "OKP", "x": agent}, "empty": "", "padded": agent + "=",
        "cut": agent[:-1], "of_31_bytes": b64(good[:31]), "of_33_bytes": b64(good + b"\0"),
        "with_trailing_bits": agent[:-1] + chr(ord(agent[-1]) + 1), "in_hexadecimal": good.hex(), "with_space": " " + agent,
        "with_line_feed": agent + "\n", "with_plus": "+" + agent[1:], "in_full_width": agent[:-1] + "\uff21",
        "zero": point(0), "ones": b64(b"\xff" * 32), "of_y_p": point(P), "of_y_p_and_1": point(P + 1),
        "of_y_p_and_18": point(P + 18),
    }  # fmt: skip
    keys |= {f"of_order_{name}": point(y) for name, y in LOW_ORDER.items() if y}
    keys |= {f"of_order_{name}_negative": point(y, 1) for name, y in LOW_ORDER.items()}
    for name, value in keys.items():
        deny(f"key_{name}", "28.1", "unreadable_link", token(SALES, {"key": value}))
    deny("key_null", "2.1", "unreadable_link", token(SALES, b'{"key":null}'))
    deny("key_beside_half_hand_over", "17.6", "unreadable_link", token(SALES, {"key": agent, "to": "sales-agent"}))
    deny("key_beside_unknown", "17.3", "unknown_caveat", token(SALES, {"key": "", "acme:region": 1}))
    deny("key_that_is_no_point", "28.9", "bad_proof", token(SALES, {"key": point(2)}))

    # The hand-over: who signs, and what.
    allow("handed_on", "28.3", child, proven=("sales-agent",))
    link = hand_over("sales-agent", key=agent)
    body, before = canonical(link), BOUND.signature
    signature = child.bodies[-1][-86:].decode()
    message = label("custody") + state(before) + sha256(body)

    def signed_by(holder: str, message: bytes = message, body: bytes = body) -> Parts:
        return extended(BOUND, attached(body, sign(holder, message)))

    deny("without_key", "28.6", "broken_delegation", extended(BOUND, hand_over("sales-agent")), "orchestrator")
    deny("without_signature", "28.6", "bad_proof", extended(BOUND, link))
    deny("new_key_without_signature", "28.6", "bad_proof", extended(BOUND, {"key": agent}))
    deny("key_twice_without_signature", "28.6", "bad_proof", token(SALES, {"key": HOLDER}, {"key": agent}))
    deny("same_key_without_signature", "28.6", "bad_proof", extended(BOUND, {"key": HOLDER}), "orchestrator")
    deny("second_time_without_signature", "28.6", "bad_proof",
         extended(child, hand_over("report-agent", "sales-agent", key=b64(signing_public("report-agent")))),
         "report-agent")  # fmt: skip
    deny("first_time_without_signature", "28.6", "bad_proof",
         handed(extended(BOUND, link), "report-agent", "sales-agent"), "report-agent")  # fmt: skip
    for name, signer in {
        "the_new_key": "sales-agent", "a_stranger": "mail-agent", "another_in_capitals": "Orchestrator",
    }.items():  # fmt: skip
        deny(f"signed_by_{name}", "28.3", "bad_proof", signed_by(signer))
    onward = hand_over("report-agent", "sales-agent", key=b64(signing_public("report-agent")))
    deny(
        "signed_by_the_key_before", "28.3", "bad_proof", extended(child, custody(child, onward, "orchestrator")), "report-agent"
    )
    lifted = {
        "the_same_link_after_another": extended(narrowed, child.bodies[-1]),
        "a_token_that_was_narrowed": extended(BOUND, custody(narrowed, link, "orchestrator")),
        "another_token": extended(BOUND, custody(token({**SALES, "key": HOLDER}, jti="A" * 22), link, "orchestrator")),
        "another_link": extended(BOUND, attached(body, sign("orchestrator", label("custody") + state(before) + sha256(b"{}")))),
    }  # fmt: skip
    for name, parts in lifted.items():
        deny(f"signature_of_{name}", "28.3", "bad_proof", parts)
    changes: dict[str, dict[str, Json]] = {
        "to": {"to": "mail-agent"}, "key": {"key": b64(signing_public("mail-agent"))}, "n": {"n": nonce(9)},
        "caveat_added": UNTIL, "depth_added": {"depth": 5}, "caveat_widened": {"tables": ["*"]},
    }  # fmt: skip
    for name, change in changes.items():
        parts = extended(BOUND, canonical({**link, **change}) + b"." + signature.encode())
        deny(f"{name}_after_signing", "28.3", "bad_proof", parts)
    messages = {
        "without_label": state(before) + sha256(body), "with_label_proof": label("proof") + state(before) + sha256(body),
        "with_label_state": label("state") + state(before) + sha256(body), "of_tag": label("custody") + before + sha256(body),
        "of_state_after": label("custody") + state(extended(BOUND, body).signature) + sha256(body),
        "of_state_of_identifier": label("custody") + state(BOUND.tags[0]) + sha256(body),
        "of_link_id": label("custody") + link_id(before).encode() + sha256(body),
        "of_body": label("custody") + state(before) + body,
        "of_hash_before_state": label("custody") + sha256(body) + state(before),
        "of_body_alone": body, "of_hash_of_it": sha256(message), "of_nothing": b"",
    }  # fmt: skip
    for name, other in messages.items():
        deny(f"signature_{name}", "28.3", "bad_proof", signed_by("orchestrator", other))
    for name, made in signatures("orchestrator", message).items():
        deny(f"signature_{name}", "28.9", "bad_proof", extended(BOUND, attached(body, made)))

    # Where a signature may stand, and how it is written.
    table.beside("handed_on")
    unsigned = canonical(hand_over("sales-agent"))
    shapes = {
        "on_a_link_without_key": attached(unsigned, sign("orchestrator", label("custody") + state(before) + sha256(unsigned))),
        "on_a_link_that_narrows": custody(BOUND, UNTIL, "orchestrator"),
        "on_an_empty_link": custody(BOUND, {}, "orchestrator"),
        "of_85_characters": child.bodies[-1][:-1],         "of_63_bytes": attached(body, sign("orchestrator", message)[:63]),
        "of_65_bytes_and_87_characters": attached(body, sign("orchestrator", message) + b"\0"),
        "with_trailing_bits": child.bodies[-1][:-1] + bytes((child.bodies[-1][-1] + 1,)),
        "with_plus": body + b".+" + signature[1:].encode(), "with_slash": body + b"./" + signature[1:].encode(),
        "padded": child.bodies[-1] + b"==", "that_is_empty": body + b".", "without_full_stop": body + signature.encode(),
        "after_a_comma": body + b"," + signature.encode(), "after_a_space": body + b" ." + signature.encode(),
        "after_two_full_stops": body + b".." + signature.encode(), "twice": child.bodies[-1] + b"." + signature.encode(),
        "before_the_link": signature.encode() + b"." + body, "with_line_feed": child.bodies[-1] + b"\n",
        "and_a_bracket": child.bodies[-1][:-1] + b"}", "with_byte_ff": child.bodies[-1][:-1] + b"\xff",
        "in_hexadecimal": body + b"." + sign("orchestrator", message).hex().encode(),
    }  # fmt: skip
    for name, raw in shapes.items():
        deny(f"signature_{name}", "28.4" if name.startswith("on_") else "28.2", "unreadable_link", extended(BOUND, raw))
    spaced = body.replace(b":", b": ", 1)
    deny("signature_of_a_link_with_a_space", "2.3", "unreadable_link",
         signed_by("orchestrator", label("custody") + state(before) + sha256(spaced), spaced))  # fmt: skip
    allow("in_link_0_to_another", "28.5", token({**SALES, "key": agent}))
    table.beside("in_the_first_hand_over")
    unbound = token(SALES)
    deny("signature_where_nobody_was_bound", "28.4", "unreadable_link",
         extended(unbound, custody(unbound, link, "orchestrator")))  # fmt: skip
    deny("signature_in_link_0", "28.4", "unreadable_link", token(custody(token(), {**SALES, "key": agent}, "orchestrator")))
    deny("signature_by_a_key_that_comes_later", "28.4", "unreadable_link",
         extended(unbound, custody(unbound, link, "sales-agent"), {"key": agent}))  # fmt: skip
    deny("signature_beside_unknown_where_nobody_was_bound", "17.3", "unknown_caveat",
         extended(unbound, custody(unbound, {**link, "acme:region": 1}, "orchestrator")))  # fmt: skip
    deny("signature_on_unknown_alone", "17.3", "unknown_caveat",
         extended(BOUND, custody(BOUND, {"acme:region": 1}, "orchestrator")))  # fmt: skip

    # Lineage, which goes on as ever.
    allow("handed_on_to_two", "20.1", handed(child, "report-agent", "sales-agent"), "report-agent",
          ("sales-agent", "report-agent"))  # fmt: skip
    deny("signed_from_another", "20.2", "broken_delegation",
         extended(BOUND, custody(BOUND, {**link, "from": "mail-agent"}, "orchestrator")))  # fmt: skip
    back = hand_over("orchestrator", "sales-agent", key=HOLDER)
    deny(
        "signed_back_to_the_first",
        "20.2",
        "broken_delegation",
        extended(child, custody(child, back, "sales-agent")),
        "orchestrator",
    )
    deny("signed_beyond_depth", "20.1", "too_deep", handed(token({**SALES, "key": HOLDER, "depth": 0}), "sales-agent"))
    deny("without_key_beyond_depth", "20.1", "broken_delegation",
         extended(token({**SALES, "key": HOLDER, "depth": 0}), hand_over("sales-agent")), "orchestrator")  # fmt: skip
    deny("signed_to_nobody_where_owed", "20.2", "delegate_only",
         extended(token({**SALES, "key": HOLDER, "delegate_only": True}), UNTIL), "orchestrator")  # fmt: skip

    _evidence(table, body, before)
    _writing(table, child)
    return table


def _evidence(table: Table, body: bytes, before: bytes) -> None:
    signature = sign("orchestrator", label("custody") + state(before) + sha256(body))
    whole = {"key": HOLDER, "state": b64(state(before)), "body": body.decode(), "signature": b64(signature)}

    def row(name: str, code: str = "ok", **changes: str) -> None:
        table.add(f"evidence_{name}", "28.8", "evidence", {"evidence": {**whole, **changes}}, code)

    row("that_holds")
    row("of_another_key", "bad_proof", key=b64(signing_public("mail-agent")))
    row("of_a_key_of_low_order", "bad_proof", key=point(1))
    row("of_another_state", "bad_proof", state=b64(state(secret("tag"))))
    row("of_another_link", "bad_proof", body=body.decode().replace("sales-agent", "mail-agent"))
    row("of_the_link_as_it_travels", "bad_proof", body=attached(body, signature).decode())
    row("with_order_added", "bad_proof", signature=b64(shifted(signature)))
    row("with_signature_cut", "bad_proof", signature=b64(signature[:63]))
    row("with_signature_padded", "bad_proof", signature=b64(signature) + "==")
    row("with_key_cut", "bad_proof", key=HOLDER[:42])
    row("with_a_lone_surrogate", "bad_proof", body=body.decode() + "\ud800")


def _writing(table: Table, child: Parts) -> None:
    """What a holder writes, and what is refused when it is asked for."""
    agent = b64(signing_public("sales-agent"))
    link = {**hand_over("sales-agent", number=7), "key": agent}

    def row(name: str, rule: str, parts: Parts, expect: dict[str, Json], signer: str | None = None, to: str | None = None,
            **asked: Json) -> None:  # fmt: skip
        given: dict[str, Json] = {
            "token": parts.text, "asked": asked, "to": to, "now": NOW, "nonce": (7).to_bytes(8, "big").hex(),
        }  # fmt: skip
        if signer is not None:
            given["signer"] = secret(signer).hex()
        table.add(f"writes_{name}", rule, "widening", given, **expect)

    signed = custody(BOUND, link, "orchestrator")[-86:].decode()
    row("key", "28.5", token(SALES), {"link": {"key": HOLDER}}, key=HOLDER)
    row("hand_over_to_a_key", "28.5", token(SALES), {"link": link}, to="sales-agent", key=agent)
    row("hand_over_of_what_is_not_bound", "28.5", token(SALES), {"link": hand_over("sales-agent", number=7)}, to="sales-agent")
    row("narrowing_of_what_is_not_bound", "28.6", token(SALES), {"link": UNTIL}, expires_at=NOW + 600)
    onward = {**hand_over("report-agent", "sales-agent", 7), "key": HOLDER}
    row("hand_over_by_the_second", "28.3", child, {"link": onward, "signature": custody(child, onward, "sales-agent")[-86:].decode()},
        "sales-agent", "report-agent", key=HOLDER)  # fmt: skip
    row("narrowing_of_a_bound_token", "28.6", BOUND, {"link": UNTIL}, expires_at=NOW + 600)
    row("hand_over", "28.3", BOUND, {"link": link, "signature": signed}, "orchestrator", "sales-agent", key=agent)
    row("hand_over_without_key", "28.6", BOUND, {"code": "broken_delegation"}, to="sales-agent")
    row("hand_over_without_key_signed", "28.6", BOUND, {"code": "broken_delegation"}, "orchestrator", "sales-agent")
    row("hand_over_without_signer", "28.6", BOUND, {"code": "bad_proof"}, to="sales-agent", key=agent)
    row("key_without_signer", "28.6", BOUND, {"code": "bad_proof"}, key=agent)
    row("hand_over_signed_by_another", "28.6", BOUND, {"code": "bad_proof"}, "sales-agent", "sales-agent", key=agent)
    row("hand_over_signed_by_the_key_before", "28.6", child, {"code": "bad_proof"}, "orchestrator", "report-agent", key=HOLDER)
    row(
        "signature_where_nobody_was_bound",
        "28.4",
        token(SALES),
        {"code": "broken_delegation"},
        "orchestrator",
        "sales-agent",
        key=agent,
    )
    row("signature_and_no_key", "23.19", BOUND, {"code": "usage"}, "orchestrator", expires_at=NOW + 600)
    row("signature_and_no_key_where_nobody_was_bound", "23.19", token(SALES), {"code": "broken_delegation"}, "orchestrator",
        expires_at=NOW + 600)  # fmt: skip
    row("signature_and_no_key_of_a_stranger", "23.19", BOUND, {"code": "usage"}, "mail-agent", expires_at=NOW + 600)
    row("hand_over_without_key_signed_by_a_stranger", "23.19", BOUND, {"code": "broken_delegation"}, "mail-agent", "sales-agent")
    row("hand_over_back_before_its_key", "23.3", BOUND, {"code": "broken_delegation"}, "orchestrator", "orchestrator", key=point(1))
    row("key_that_is_none_before_its_signer", "23.3", BOUND, {"code": "usage"}, "mail-agent", "sales-agent", key=point(1))
    row("nothing_before_its_signer", "23.3", BOUND, {"code": "usage"}, "mail-agent")
    row("nothing_where_nobody_was_bound", "23.3", token(SALES), {"code": "broken_delegation"}, "orchestrator")
    for name, key in {
        "of_low_order": point(1), "that_is_no_point": point(2), "of_mixed_order": b64(mixed(signing_public("sales-agent"))),
        "that_is_not_canonical": point(P + 3), "of_31_bytes": agent[:42],
        "with_trailing_bits": agent[:-1] + chr(ord(agent[-1]) + 1),
        "that_is_empty": "",
    }.items():  # fmt: skip
        row(f"key_{name}", "28.1", token(SALES), {"code": "usage"}, key=key)

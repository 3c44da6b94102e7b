"""Vectors of what others are asked: Third-party caveats, Discharges, Leases."""

from __future__ import annotations

from collections.abc import Iterator

from nacl import bindings as sodium

from spec.generate.binding import HERE, HOLDER, NONCE, P, addressed, outcome, shown
from spec.generate.build import (
    NOW,
    Json,
    Parts,
    asking,
    b64,
    bound,
    bundle,
    canonical,
    custody,
    derive,
    discharge,
    enclosed,
    exchange_public,
    extended,
    field,
    hand_over,
    handed,
    joined,
    mac,
    of_access,
    pair,
    proof,
    sealed,
    secret,
    signing_public,
    text,
    ticket,
    token,
)
from spec.generate.table import SALES, SELECT, Table, call

MINUTE: dict[str, Json] = {"exp": NOW + 60}
OPEN = token({"nbf": NOW})
ONE = asking(token(SALES), "one")
TWO = asking(ONE, "two")
APPROVALS = b64(exchange_public("approvals"))


def tables() -> Iterator[Table]:
    yield third_party_caveats()
    yield discharges()
    yield leases()


def bits(name: str, whole: bytes, places: dict[str, int]) -> dict[str, bytes]:
    return {f"{name}_{where}": whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :] for where, at in places.items()}


# --- third-party caveats ---------------------------------------------------------------------------------------------


def third_party_caveats() -> Table:
    table = Table(
        "third_party_caveats", "Asking a third party: the ticket, what is sealed in it, and the key that the answer is under."
    )

    def asks(name: str, rule: str, expect: dict[str, Json], parts: Parts = OPEN, **changes: Json) -> None:
        given: dict[str, Json] = {
            "token": parts.text, "discharger": APPROVALS, "need": {"approve": "payment"}, "location": None,
            "caveat_key": secret("one").hex(), "ephemeral": secret("box of one").hex(),
            "nonce": secret("vid of one", 24).hex(), **changes,
        }  # fmt: skip
        table.add(f"asks_{name}", rule, "asking", given, **expect)

    def made(parts: Parts = OPEN, **stated: Json) -> dict[str, Json]:
        return {"token": asking(parts, "one", ticket("one", **stated)).text}

    asks("one", "32.1", made())
    asks("with_location", "32.2", made(loc="https://approvals.example/ask"), location="https://approvals.example/ask")
    need = {"approve": "payment", "cents": 500, "of": ["a", {"b": True}], "caf\u00e9": "\U0001f600"}
    asks("much", "32.3", made(need=need), need=need)
    asks("for_nothing_in_particular", "32.3", made(need={}), need={})
    asks("another_party", "32.2", made(party="payments"), discharger=b64(exchange_public("payments")))
    asks("under_a_bound_token", "32.1", made(token({**SALES, "key": HOLDER})), parts=token({**SALES, "key": HOLDER}))
    asks("after_another", "32.1", made(ONE), parts=ONE)
    keys = {
        "of_31_bytes": APPROVALS[:42], "empty": "", "with_trailing_bits": APPROVALS[:-1] + chr(ord(APPROVALS[-1]) + 1),
        "in_hexadecimal": exchange_public("approvals").hex(),
        "zero": b64(bytes(32)), "one": b64(b"\1" + bytes(31)), "of_p_less_1": b64((P - 1).to_bytes(32, "little")),
        "of_order_8": b64(bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")),
        "of_order_8_again": b64(bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157")),
        "of_p": b64(P.to_bytes(32, "little")), "of_p_and_9": b64((P + 9).to_bytes(32, "little")),
        "with_its_highest_bit": b64(exchange_public("approvals")[:31] + bytes((exchange_public("approvals")[31] | 0x80,))),
    }  # fmt: skip
    for name, key in keys.items():
        asks(f"a_key_{name}", "27.5", {"code": "usage"}, discharger=key)
    for name, unspelled in {
        "a_fraction": {"cents": 0.5}, "null": {"cents": None}, "too_large": {"cents": 2**53}, "surrogate": {"a": "\ud800"},
    }.items():  # fmt: skip
        asks(f"for_{name}", "32.3", {"code": "usage"}, need=unspelled)
    for name, location in {
        "empty": "", "with_line_feed": "https://approvals.example/\n", "with_space_last": "https://approvals.example/ ",
        "of_257_bytes": "x" * 257,
    }.items():  # fmt: skip
        asks(f"at_a_location_{name}", "32.2", {"code": "usage"}, location=location)
    large = {"note": "x" * 1190}
    room = 2048 - len(ticket("one", need=large, loc=""))
    asks("at_2048_bytes", "32.2", made(need=large, loc="x" * room), need=large, location="x" * room)
    asks("at_2049_bytes", "32.2", {"code": "limit"}, need=large, location="x" * (room + 1))
    asks("for_too_much", "32.2", {"code": "limit"}, need={"note": "x" * 2048})
    fifteen = token({"nbf": NOW})
    for number in range(15):
        fifteen = asking(fifteen, f"of many {number}", b"ask")
    asks("a_sixteenth", "32.7", made(fifteen), parts=fifteen)
    sixteen = asking(fifteen, "of many 15", b"ask")
    asks("a_seventeenth", "32.7", {"code": "limit"}, parts=sixteen)

    _tickets(table)

    def allow(name: str, rule: str, parts: Parts, *answers: Parts) -> None:
        table.allow(name, rule, parts, discharges=answers)

    def deny(name: str, rule: str, code: str, parts: Parts, *answers: Parts) -> None:
        table.deny(name, rule, code, bundle(parts, *answers))

    one, two = discharge("one", MINUTE), discharge("two", MINUTE)
    record = {"exp": NOW + 600, "operations": ["select"], "tables": ["market.*", "sales"]}
    link = {"exp": NOW + 300, "from": "orchestrator", "n": "MPOF0Cvxg5E", "tables": ["sales"], "to": "sales-agent"}
    allow("of_the_example", "32.1", asking(token(record, link, jti="vlAGy265ZGLhatUFN1jjWw"), "one"), one)
    allow("at_the_end", "32.1", ONE, one)
    allow("not_yet_added", "32.9", token(SALES))
    table.beside("at_the_end")
    allow("in_the_middle", "32.1", extended(ONE, {"nbf": NOW}), one)
    allow("in_place_of_link_0", "32.1", extended(asking(token(), "one"), SALES), one)
    handed_on = asking(token(SALES, hand_over("sales-agent")), "one")
    allow("between_a_hand_over_and_another", "32.8", extended(handed_on, hand_over("report-agent", "sales-agent")), one)
    allow("with_location", "32.2", asking(token(SALES), "one", ticket("one", loc="https://approvals.example")),
          discharge("one", MINUTE, cid=ticket("one", loc="https://approvals.example")))  # fmt: skip
    largest = ticket("one", note="x" * (2048 - len(ticket("one", note=""))))
    too_large = largest.replace(b"xx", b"xxx", 1)
    for name, cid in {
        "of_three_bytes": b"ask", "that_is_a_link": canonical(SALES), "that_is_not_text": b"\xff\0\x80",
        "that_is_no_ticket": ticket("one", v=2),
        "of_2048_bytes": largest,
    }.items():  # fmt: skip
        allow(f"cid_{name}", "32.4", asking(token(SALES), "one", cid), discharge("one", MINUTE, cid=cid))
    deny(
        "cid_of_2049_bytes", "3.1", "malformed", asking(token(SALES), "one", too_large), discharge("one", MINUTE, cid=too_large)
    )
    deny("cid_of_2049_bytes_without_discharge", "24.6", "missing_discharge", asking(token(SALES), "one", too_large))

    # The vid: under which key, and what is in it.
    base, cid = token(SALES), ticket("one")
    table.beside("at_the_end")
    vid = asking(base, "one").caveats[-1][1]
    vids = {
        "under_the_tag_of_the_identifier": enclosed(base.tags[0], derive(secret("one")), "vid of one"),
        "under_the_derived_key": enclosed(derive(bytes(range(1, 33))), derive(secret("one")), "vid of one"),
        "under_the_tag_after": enclosed(extended(base, (cid, vid)).signature, derive(secret("one")), "vid of one"),
        "under_zeros": enclosed(bytes(32), derive(secret("one")), "vid of one"),
        "of_the_key_not_derived": enclosed(base.signature, secret("one"), "vid of one"),
        "of_another_key": enclosed(base.signature, derive(secret("two")), "vid of one"),
        "of_the_key_derived_twice": enclosed(base.signature, derive(derive(secret("one"))), "vid of one"),
        "of_zeros": bytes(72), "of_ones": b"\xff" * 72, "with_nonce_last": vid[24:] + vid[:24],
        "of_another_caveat": TWO.caveats[-1][1],
        "with_nonce_of_zeros": bytes(24) + vid[24:],
    }  # fmt: skip
    vids |= bits("with_bit", vid, {"in_its_nonce": 0, "in_its_tag": 24, "in_its_key": 40, "at_its_end": 71})
    for name, other in vids.items():
        deny(f"vid_{name}", "32.1", "bad_discharge", extended(base, (cid, other)), one)
    allow("of_two", "33.4", TWO, one, two)
    first, second = TWO.caveats[-2], TWO.caveats[-1]
    deny("vids_swapped", "32.1", "bad_discharge", extended(base, (first[0], second[1]), (second[0], first[1])), one, two)
    deny("caveats_swapped", "32.1", "bad_discharge", extended(base, second, first), two, one)
    deny("caveat_moved_behind_a_link", "32.1", "bad_discharge", extended(base, {"nbf": NOW}, first), one)
    deny("caveat_of_another_token", "32.1", "bad_discharge", extended(token(SALES, jti="A" * 22), first), one)
    deny("caveat_taken_off", "11.4", "bad_signature", base.signed(ONE.signature))
    moved = ticket("one", loc="https://elsewhere.example")
    changed = ONE.carrying(ONE.caveats[0], (moved, vid))
    deny("cid_changed", "11.4", "bad_signature", changed, discharge("one", MINUTE, cid=moved))
    return table


def _tickets(table: Table) -> None:
    """What a discharger takes for a ticket, and the discharge that it makes."""

    def row(name: str, rule: str, cid: bytes, expect: dict[str, Json], party: str = "approvals", **asked: Json) -> None:
        given = {"secret": secret(party).hex(), "ticket": cid.decode(), "asked": asked or {"expires_in": 60}, "now": NOW}
        table.add(f"ticket_{name}", rule, "discharge", given, **expect)

    def ok(name: str, rule: str, cid: bytes, link: Json, need: Json, party: str = "approvals", **asked: Json) -> None:
        made = discharge("one", link, cid=cid)
        row(name, rule, cid, {"need": need, "discharge": text(made.wire, "cap1u_")}, party, **asked)

    payment = {"approve": "payment"}
    plain = ticket("one")
    ok("of_one", "32.2", plain, MINUTE, payment)
    ok("with_location", "32.2", ticket("one", loc="https://approvals.example"), MINUTE, payment)
    ok("for_another_party", "33.9", ticket("one", "payments"), MINUTE, payment, "payments")
    ok("for_nothing_in_particular", "32.3", ticket("one", need={}), MINUTE, {})
    ok("answered_with_caveats", "33.9", plain, {**MINUTE, **SALES, "aud": ["sales-db"], "where": {"x": {"max": 5, "min": 0}}}, payment,
       expires_in=60, tables=["sales"], operations=["select"], audience="sales-db", where={"x": {"max": 5}})  # fmt: skip
    ok("answered_until_a_moment", "33.9", plain, {"exp": NOW + 5, "nbf": NOW}, payment, expires_at=NOW + 5, not_before=NOW)
    table.beside("ticket_of_one")
    for name, asked in {
        "without_expiry": {"tables": ["sales"]}, "with_task": {"expires_in": 60, "task": "task-123"},
        "with_depth": {"expires_in": 60, "depth": 1}, "with_uses": {"expires_in": 60, "uses": 1},
        "with_a_budget": {"expires_in": 60, "budget": {"cents": 1}},
        "with_delegate_only": {"expires_in": 60, "delegate_only": True},
        "with_unknown": {"expires_in": 60, "acme:region": "eu"},
        "with_a_value_that_is_none": {"expires_in": 60, "tables": "sales"}, "that_has_ended": {"expires_in": 0},
    }.items():  # fmt: skip
        row(f"answered_{name}", "33.6", plain, {"code": "usage"}, **asked)

    longest, longer = (_padded("one", size).links[0]["tables"] for size in (8192, 8193))
    ok("answered_with_8192_characters", "33.9", plain, {**MINUTE, "tables": longest}, payment, expires_in=60, tables=longest)
    row("answered_with_8193_characters", "33.9", plain, {"code": "limit"}, expires_in=60, tables=longer)
    table.beside("ticket_of_one")

    def bad(name: str, rule: str, cid: bytes, party: str = "approvals") -> None:
        row(name, rule, cid, {"code": "bad_ticket"}, party)

    bad("for_another_discharger", "33.9", plain, "payments")
    bad("sealed_for_another", "33.9", ticket("one", "payments", **{"for": APPROVALS}))
    bad("for_another_though_its_box_opens", "33.9", ticket("one", "approvals", **{"for": b64(exchange_public("payments"))}))
    bad("with_a_space", "32.2", plain.replace(b":", b": ", 1))
    bad("that_is_empty", "32.2", b"")
    bad("that_is_a_list", "32.2", b"[%s]" % plain)
    bad("with_more", "32.2", ticket("one", note="x"))
    for key in ("box", "for", "v"):
        bad(f"without_{key}", "32.2", ticket("one", **{key: None}))
    for name, value in {"2": 2, "text": "1", "true": True, "zero": 0}.items():
        bad(f"of_version_{name}", "32.2", ticket("one", v=value))
    for name, value in {
        "number": 1, "cut": APPROVALS[:42], "longer": APPROVALS + "A", "empty": "",
        "with_trailing_bits": APPROVALS[:-1] + chr(ord(APPROVALS[-1]) + 1),
    }.items():  # fmt: skip
        bad(f"for_a_key_{name}", "32.2", ticket("one", **{"for": value}))
    for name, value in {
        "number": 1, "empty": "", "line_feed": "a\n", "list": ["https://approvals.example"], "of_257_bytes": "x" * 257,
    }.items():  # fmt: skip
        bad(f"with_location_{name}", "32.2", ticket("one", loc=value))
    fitting = max(
        (note for size in range(1300, 1400) if len(ticket("one", need=(note := {"note": "x" * size}))) <= 2048), key=str
    )
    ok("that_just_fits", "3.1", ticket("one", need=fitting), MINUTE, fitting)
    bad("that_is_too_long", "3.1", ticket("one", need={"note": fitting["note"] + "xxx"}))
    within = canonical({"ck": b64(secret("one")), "need": payment, "v": 1})
    raw = sealed(exchange_public("approvals"), within, "box of one")
    table.beside("ticket_of_one")
    sender = bytes(sodium.crypto_box(within, secret("nonce", 24), exchange_public("approvals"), secret("box of one")))
    boxes = {
        "empty": b"", "of_48_bytes": raw[:48], "cut": raw[:-1], "longer": raw + b"\0", "without_its_key": raw[32:],
        "with_nonce_inside": exchange_public("box of one") + secret("nonce", 24) + sender,
        "with_another_nonce": exchange_public("box of one") + sender, "with_a_key_of_zeros": bytes(32) + raw[32:],
        "with_another_sender": exchange_public("two") + raw[32:],
        "of_nothing": sealed(exchange_public("approvals"), b"", "box of one"),
    }  # fmt: skip
    boxes |= bits("with_bit", raw, {"in_its_key": 1, "in_its_tag": 32, "in_its_text": 60, "at_its_end": len(raw) - 1})
    for name, other in boxes.items():
        bad(f"box_{name}", "33.9", ticket("one", box=b64(other)))
    for name, value in {"number": 1, "padded": b64(raw) + "=", "plus": "+" + b64(raw)[1:], "list": [b64(raw)]}.items():
        bad(f"box_as_{name}", "32.2", ticket("one", box=value))
    ck = b64(secret("one"))
    contents: dict[str, bytes] = {
        "with_a_space": within.replace(b":", b": ", 1), "that_is_a_list": b"[]", "that_is_the_key": secret("one"),
        "with_more": canonical({"ck": ck, "need": {}, "v": 1, "x": 1}),
        "without_key": canonical({"need": {}, "v": 1}), "without_need": canonical({"ck": ck, "v": 1}),
        "without_version": canonical({"ck": ck, "need": {}}),
        "of_version_2": canonical({"ck": ck, "need": {}, "v": 2}),
        "of_version_text": canonical({"ck": ck, "need": {}, "v": "1"}),
        "of_version_true": canonical({"ck": ck, "need": {}, "v": True}),
        "with_key_of_31_bytes": canonical({"ck": b64(secret("one", 31)), "need": {}, "v": 1}),
        "with_key_of_33_bytes": canonical({"ck": b64(secret("one") + b"\0"), "need": {}, "v": 1}),
        "with_key_as_number": canonical({"ck": 1, "need": {}, "v": 1}),
        "with_key_in_hexadecimal": canonical({"ck": secret("one").hex(), "need": {}, "v": 1}),
        "with_need_as_text": canonical({"ck": ck, "need": "payment", "v": 1}),
        "with_need_as_list": canonical({"ck": ck, "need": ["payment"], "v": 1}),
        "with_need_of_a_fraction": b'{"ck":"%s","need":{"cents":0.5},"v":1}' % ck.encode(),
        "with_need_null": b'{"ck":"%s","need":null,"v":1}' % ck.encode(),
    }  # fmt: skip
    for name, content in contents.items():
        bad(f"content_{name}", "32.3", ticket("one", box=b64(sealed(exchange_public("approvals"), content, "box of one"))))


# --- discharges ------------------------------------------------------------------------------------------------------


def _padded(name: str, size: int) -> Parts:
    """A discharge whose text has that many characters."""
    tables, wanted = ["sales"], (size - 6) * 3 // 4
    while (left := wanted - len(discharge(name, {**MINUTE, "tables": tables}).wire) - 3) > 250:
        tables.append(f"{len(tables):03}" + "x" * 147)
    answer = discharge(name, {**MINUTE, "tables": sorted((*tables, "y" * left))})
    if len(text(answer.wire, "cap1d_")) != size:
        raise ValueError(f"no base64 has {size - 6} characters")
    return answer


def discharges() -> Table:
    table = Table(
        "discharges", "The answers: one for each question, under its key, bound to the token, and only ever restricting."
    )
    one, two = discharge("one", MINUTE), discharge("two", MINUTE)

    def allow(name: str, rule: str, parts: Parts, *answers: Parts, access: Json = SELECT, **known: Json) -> None:
        table.allow(name, rule, parts, access, discharges=answers, **known)

    def deny(
        name: str, rule: str, code: str, given: Parts | str, *answers: Parts, access: Json = SELECT, **known: Json
    ) -> None:
        table.deny(name, rule, code, given if isinstance(given, str) else bundle(given, *answers), access, **known)

    # One for each, in their order, none left over.
    allow("one", "33.5", ONE, one)
    deny("none", "33.5", "missing_discharge", ONE)
    deny("of_another_caveat", "33.5", "bad_discharge", ONE, two)
    deny("twice", "33.5", "bad_discharge", ONE, one, one)
    deny("and_one_too_many", "33.5", "bad_discharge", ONE, one, two)
    deny("behind_one_too_many", "33.5", "bad_discharge", ONE, two, one)
    deny(
        "of_another_ticket_with_the_same_need",
        "33.5",
        "bad_discharge",
        ONE,
        discharge("one", MINUTE, cid=ticket("one", loc="here")),
    )
    allow("two", "33.5", TWO, one, two)
    deny("two_in_the_other_order", "33.5", "bad_discharge", TWO, two, one)
    deny("the_first_of_two", "33.5", "missing_discharge", TWO, one)
    deny("the_second_of_two", "33.5", "missing_discharge", TWO, two)
    deny("none_of_two", "33.5", "missing_discharge", TWO)
    deny("the_first_of_two_twice", "33.5", "bad_discharge", TWO, one, one)
    deny("two_and_the_first_again", "33.5", "bad_discharge", TWO, one, two, one)
    deny("two_and_a_third", "33.5", "bad_discharge", TWO, one, two, discharge("three", MINUTE))
    allow("nothing_asked", "33.5", token(SALES))
    twin = extended(ONE, (ONE.caveats[-1][0], enclosed(ONE.signature, derive(secret("one")), "vid of its twin")))
    deny("of_two_caveats_with_one_id", "33.5", "missing_discharge", twin, one)
    deny("of_two_caveats_with_one_id_twice", "33.5", "bad_discharge", twin, one, one)
    deny("of_two_caveats_with_one_id_and_two_answers", "33.5", "bad_discharge", twin, one, extended(one, SALES))
    deny("nothing_asked_and_an_answer", "33.5", "bad_discharge", token(SALES), one)
    many = token(SALES)
    for number in range(16):
        many = asking(many, f"of many {number}", f"ask {number}".encode())
    sixteen = [discharge(f"of many {number}", MINUTE, cid=f"ask {number}".encode()) for number in range(17)]
    allow("sixteen", "3.1", many, *sixteen[:16])
    more = asking(many, "of many 16", b"ask 16")
    deny("seventeen", "3.1", "malformed", more, *sixteen)
    deny("sixteen_of_seventeen", "33.5", "missing_discharge", more, *sixteen[:16])
    deny("sixteen_and_one_too_many", "3.1", "malformed", many, *sixteen)

    # Under its key, and bound to this token.
    table.beside("one")
    child, elsewhere = extended(ONE, {"nbf": NOW}), asking(token(SALES, jti="A" * 22), "one")
    tags = {
        "unbound": one, "bound_to_its_parent": bound(one, token(SALES).signature),
        "bound_to_its_child": bound(one, child.signature),
        "bound_to_another_token": bound(one, elsewhere.signature),
        "bound_twice": bound(bound(one, ONE.signature), ONE.signature),
        "bound_to_zeros": bound(one, bytes(32)),
        "bound_the_other_way_round": one.signed(pair(bytes(32), one.signature, ONE.signature)),
        "bound_under_the_token": one.signed(mac(ONE.signature, one.signature)),
        "bound_without_pairing": one.signed(mac(bytes(32), ONE.signature + one.signature)),
        "with_tag_of_the_token": one.signed(ONE.signature), "with_tag_of_zeros": one.signed(bytes(32)),
        "narrowed_after_binding": extended(bound(one, ONE.signature), SALES),
    }  # fmt: skip
    for name, answer in tags.items():
        deny(name, "33.3", "bad_discharge", joined(ONE, (answer,)))
    allow("with_a_child", "33.3", child, one)
    deny(
        "with_a_child_of_what_it_is_bound_to",
        "33.3",
        "bad_discharge",
        joined(extended(child, {"nbf": 0}), (bound(one, child.signature),)),
    )
    allow("with_a_token_minted_anew", "33.3", elsewhere, one)
    keys = {
        "of_another_caveat": secret("two"), "derived_twice": derive(secret("one")), "of_zeros": bytes(32),
        "of_the_root": bytes(range(1, 33)),
        "of_the_discharger": secret("approvals"), "that_is_empty": b"", "that_is_its_ticket": ticket("one"),
    }  # fmt: skip
    for name, key in keys.items():
        deny(f"under_a_key_{name}", "33.1", "bad_discharge", ONE, discharge("one", MINUTE, key=key))
    longer = discharge("one", {**MINUTE, **SALES}, {"nbf": NOW})
    plain = canonical(MINUTE), b""
    allow("of_two_links", "33.1", ONE, longer)
    for name, carried in {
        "link_dropped": longer.caveats[:1], "links_swapped": longer.caveats[::-1], "link_changed": (plain, longer.caveats[1]),
        "link_added": (*longer.caveats, plain), "link_repeated": (longer.caveats[0], *longer.caveats),
    }.items():  # fmt: skip
        deny(f"with_{name}", "33.1", "bad_discharge", joined(ONE, (bound(longer, ONE.signature).carrying(*carried),)))
    last = bound(one, ONE.signature).signature
    for name, tag in {
        "first_bit": bytes((last[0] ^ 0x80,)) + last[1:], "last_bit": last[:-1] + bytes((last[-1] ^ 1,)),
    }.items():  # fmt: skip
        deny(f"with_{name}_of_its_tag", "33.3", "bad_discharge", joined(ONE, (one.signed(tag),)))
    deny("token_as_its_own_discharge", "33.5", "bad_discharge", joined(ONE, (ONE.carrying(ONE.caveats[0]),)))
    deny("discharge_as_a_token", "9.1", "malformed", one.text)

    # What it may say: only what restricts, and an expiry.
    allow("narrowed_by_its_holder", "33.2", ONE, extended(one, SALES))
    narrowing: dict[str, tuple[Json, str]] = {
        "tables": (["hr"], "table"), "operations": (["insert"], "operation"), "allow": ({"sales": ["insert"]}, "operation"),
        "columns": ({"sales": ["a"]}, "column"), "rows": ({"sales": {"a": {"in": [1]}}}, "row"),
        "tools": ({"search": {}}, "domain"), "where": ({"x": {"any": True}}, "attribute"), "nbf": (NOW + 1, "not_yet_valid"),
        "exp": (NOW, "expired"), "aud": (["sales-db"], "wrong_audience"),
    }  # fmt: skip
    for key, (value, code) in narrowing.items():
        deny(f"that_narrows_{key}", "33.7", code, ONE, discharge("one", {**MINUTE, key: value}))
        deny(f"narrowed_by_its_holder_in_{key}", "33.7", code, ONE, extended(one, {key: value}))
    tool = asking(token({"tools": {"search": {}}}), "one")
    allow(
        "that_names_a_tool",
        "33.7",
        tool,
        discharge("one", {**MINUTE, "tools": {"search": {"q": {"in": ["x"]}}}}),
        access=call("search", q="x"),
    )
    deny(
        "that_names_another_tool",
        "33.7",
        "tool",
        tool,
        discharge("one", {**MINUTE, "tools": {"mail": {}}}),
        access=call("search", q="x"),
    )
    deny(
        "that_names_another_argument",
        "33.7",
        "argument",
        tool,
        discharge("one", {**MINUTE, "tools": {"search": {"q": {"in": ["y"]}}}}),
        access=call("search", q="x"),
    )
    deny(
        "that_names_tables_only",
        "33.7",
        "domain",
        tool,
        discharge("one", {**MINUTE, "tables": ["sales"]}),
        access=call("search", q="x"),
    )
    grows = {"operations": ["*"], "tables": ["*"]}
    deny(
        "that_names_more_than_the_token",
        "33.7",
        "table",
        ONE,
        discharge("one", {**MINUTE, **grows}),
        access={**SELECT, "table": "hr"},
    )
    allow("that_names_more", "33.7", ONE, discharge("one", {**MINUTE, **grows}))
    deny("that_ends_after_the_token", "33.7", "expired", asking(token({**SALES, "exp": NOW}), "one"), one)
    here = asking(addressed(token(SALES)), "one")
    allow("for_the_same_server", "33.7", here, discharge("one", {**MINUTE, "aud": ["hr-db", "sales-db"]}), audiences=HERE)
    deny("for_another_server", "33.7", "wrong_audience", here, discharge("one", {**MINUTE, "aud": ["hr-db"]}), audiences=HERE)
    allow("that_alone_is_addressed_where_that_is_taken", "33.7", ONE, discharge("one", {**MINUTE, "aud": ["sales-db"]}),
          audiences=HERE, allow_unaddressed=True)  # fmt: skip
    deny(
        "that_alone_is_addressed", "33.7", "unaddressed", ONE, discharge("one", {**MINUTE, "aud": ["sales-db"]}), audiences=HERE
    )
    both = asking(extended(token(SALES), {"aud": ["hr-db", "sales-db"]}), "one")
    allow(
        "for_one_of_two_servers", "33.7", both, discharge("one", {**MINUTE, "aud": ["hr-db"]}), audiences=("hr-db", "sales-db")
    )
    two_names = asking(both, "two")
    allow("for_one_of_two_servers_beside_another_answer", "33.7", two_names, discharge("one", {**MINUTE, "aud": ["hr-db"]}), two,
          audiences=("hr-db", "sales-db"))  # fmt: skip
    deny("for_two_servers_that_are_one", "33.7", "wrong_audience", two_names, discharge("one", {**MINUTE, "aud": ["hr-db"]}),
         discharge("two", {**MINUTE, "aud": ["sales-db"]}), audiences=("hr-db", "sales-db"))  # fmt: skip
    allow("with_its_expiry_in_another_link", "33.6", ONE, discharge("one", SALES, MINUTE))
    agent = b64(signing_public("sales-agent"))
    refused: dict[str, Json] = {
        "without_expiry": SALES, "with_nbf_alone": {"nbf": NOW}, "with_task": {**MINUTE, "task": "task-123"},
        "with_depth": {**MINUTE, "depth": 5},
        "with_delegate_only": {**MINUTE, "delegate_only": True}, "with_key": {**MINUTE, "key": agent},
        "with_hand_over": hand_over("sales-agent", **MINUTE),
        "with_hand_over_to_a_key": hand_over("sales-agent", key=agent, **MINUTE),
        "with_to_alone": {**MINUTE, "to": "sales-agent"}, "with_n_alone": {**MINUTE, "n": "A" * 11},
        "with_text_as_expiry": {"exp": "soon"}, "empty": {},
        "with_uses": {**MINUTE, "n": "A" * 11, "uses": 1}, "with_budget": {**MINUTE, "budget": {"cents": 1}, "n": "A" * 11},
        "with_signed_key": custody(ONE, {**MINUTE, "key": agent}, "orchestrator"),
        "with_signature": custody(ONE, MINUTE, "orchestrator"), "with_a_space": b'{"exp": %d}' % (NOW + 60),
        "that_is_no_json": b"exp < 5",
    }  # fmt: skip
    for name, link in refused.items():
        deny(name, "33.6", "unreadable_link", ONE, discharge("one", link))
        if name not in ("without_expiry", "with_nbf_alone"):
            deny(f"narrowed_by_its_holder_{name}", "33.6", "unreadable_link", ONE, extended(one, link))
    for name, key in {"own_key": "acme:region", "use": "use", "claim": "sub", "text": "approved"}.items():
        deny(f"with_{name}", "33.6", "unknown_caveat", ONE, discharge("one", {**MINUTE, key: 1}))
    deny(
        "with_unknown_and_task",
        "33.6",
        "unknown_caveat",
        ONE,
        discharge("one", {**MINUTE, "acme:region": 1, "task": "task-123"}),
    )
    deny("that_asks_in_its_turn", "33.1", "malformed", ONE, asking(one, "two"), two)
    deny("that_asks_in_its_turn_unanswered", "33.1", "malformed", ONE, asking(one, "two"))
    deny("without_links", "33.1", "malformed", ONE, discharge("one"))

    # With all else that a token can be.
    bearer = asking(token(SALES, hand_over("sales-agent")), "one")
    allow("with_a_hand_over", "33.8", bearer, one, caller={"agent": "sales-agent", "task": "task-123"})
    deny("with_another_caller", "24.7", "caller", bearer, one, caller={"agent": "orchestrator", "task": "task-123"})
    allow("without_an_access", "24.8", ONE, one, access=None)
    deny("without_an_access_and_ended", "24.8", "expired", ONE, discharge("one", {"exp": NOW}), access=None)
    held = addressed(asking(handed(token({**SALES, "key": HOLDER}), "sales-agent"), "one"))
    given = shown(proof(held, "sales-agent", of_access(SELECT)))
    allow(
        "with_a_bound_token",
        "33.8",
        held,
        one,
        presented=given,
        outcome=outcome(held, "sales-agent"),
        proven=("sales-agent",),
        audiences=HERE,
    )
    deny("with_a_bound_token_and_no_proof", "30.4", "proof_missing", held, one, presented=shown(None), audiences=HERE)
    deny("missing_with_a_bound_token", "33.5", "missing_discharge", held, presented=given, audiences=HERE)
    ours, made = text(bound(one, held.signature).wire, "cap1d_"), given["proof"]
    for name, whole in {
        "before_the_discharge": f"{held.text}.{made}.{ours}", "before_and_behind": f"{held.text}.{made}.{ours}.{made}",
        "twice_behind": f"{held.text}.{ours}.{made}.{made}", "in_the_place_of_a_token": f"{made}.{ours}",
        "in_the_discharge": f"{held.text}.{ours}{made}", "cut": f"{held.text}.{ours}.{made[:-1]}",
    }.items():  # fmt: skip
        deny(f"with_a_proof_{name}", "30.1", "malformed", whole, presented=shown(None), audiences=HERE)

    # How they travel.
    table.beside("two")
    ours = bound(one, TWO.signature), bound(two, TWO.signature)
    first, second = (text(answer.wire, "cap1d_") for answer in ours)
    located = b"\2" + field(1, b"https://approvals.example") + ours[1].wire[1:]
    whole = bundle(TWO, one, two)
    texts = {
        "as_unbound": joined(TWO, ours, "cap1u_"), "one_as_unbound": f"{TWO.text}.{first}.cap1u_{second[6:]}",
        "unbound_and_so_called": joined(TWO, (one, two), "cap1u_"),
        "as_tokens": joined(TWO, ours, "cap1_"), "as_proofs": joined(TWO, ours, "cap1p_"),
        "without_prefix": joined(TWO, ours, ""), "in_capitals": joined(TWO, ours, "CAP1D_"),
        "by_comma": whole.replace(".", ","), "by_space": whole.replace(".", " "), "by_line_feed": whole.replace(".", "\n"),
        "by_two_full_stops": whole.replace(".", ".."),
        "and_a_full_stop": whole + ".", "after_a_full_stop": "." + whole, "before_the_token": f"{first}.{second}.{TWO.text}",
        "between_them_the_token": f"{first}.{TWO.text}.{second}",
        "and_the_token_again": f"{whole}.{TWO.text}", "with_prefix_alone": f"{TWO.text}.{first}.cap1d_",
        "padded": whole + "==", "padded_inside": f"{TWO.text}.{first}=.{second}",
        "cut": whole[:-1], "with_line_feed": whole + "\n", "by_full_width": whole.replace(".", "\uff0e"),
        "by_encoded_full_stop": whole.replace(".", "%2E"),
        "in_one_part": f"{TWO.text}.{first}{second[6:]}",
        "with_byte_over": joined(TWO, ours[:1]) + "." + text(ours[1].wire + b"\0", "cap1d_"),
        "with_location": f"{TWO.text}.{first}." + text(located, "cap1d_"),
        "without_token": f"{first}.{second}", "with_empty_token": f".{first}.{second}",
        "with_token_of_prefix_alone": f"cap1_.{first}.{second}",
    }  # fmt: skip
    for name, given in texts.items():
        deny(f"text_{name}", "8.6", "malformed", given)
    sized = (discharge("one", {**MINUTE, "tables": ["sales", "x" * size]}) for size in (1, 2))
    stray = next(bound(answer, ONE.signature) for answer in sized if len(answer.wire) % 3)
    spelled = joined(ONE, (stray,))
    allow("text_whole", "1.2", ONE, discharge("one", *stray.links))
    deny("text_with_trailing_bits", "1.2", "malformed", spelled[:-1] + chr(ord(spelled[-1]) + 1))

    allow("of_8192_characters", "3.1", ONE, _padded("one", 8192))
    deny("of_8193_characters", "3.1", "malformed", ONE, _padded("one", 8193))
    answers = [_padded(name, size) for name, size in (("one", 8000), ("two", 8000), ("three", 7998))]
    four = asking(asking(TWO, "three"), "four")
    left = 32768 - len(bundle(four, *answers)) - 1
    allow("of_32768_characters_together", "3.1", four, *answers, _padded("four", left))
    deny("of_32769_characters_together", "3.1", "malformed", four, *answers, _padded("four", left + 1))

    # A proof counts among the characters, and not among the discharges.
    def proved(parts: Parts) -> dict[str, Json]:
        return shown(proof(parts, "orchestrator", of_access(SELECT)))

    mine = token({**SALES, "aud": ["sales-db"], "key": HOLDER})
    for number in range(16):
        mine = asking(mine, f"of many {number}", f"ask {number}".encode())
    allow("sixteen_and_a_proof", "3.1", mine, *sixteen[:16], presented=proved(mine), outcome=outcome(mine, "orchestrator"),
          audiences=HERE)  # fmt: skip
    mine = asking(mine, "of many 16", b"ask 16")
    deny("seventeen_and_a_proof", "3.1", "malformed", mine, *sixteen, presented=proved(mine), audiences=HERE)
    mine = token({**SALES, "aud": ["sales-db"], "key": HOLDER})
    for name in ("one", "two", "three", "four"):
        mine = asking(mine, name)
    left = 32768 - len(bundle(mine, *answers)) - 1 - 125
    allow("of_32768_characters_with_a_proof", "3.1", mine, *answers, _padded("four", left), presented=proved(mine),
          outcome=outcome(mine, "orchestrator"), audiences=HERE)  # fmt: skip
    longer = _padded("four", left + 1)
    deny("of_32769_characters_with_a_proof", "3.1", "malformed", mine, *answers, longer, presented=proved(mine), audiences=HERE)
    given = {"token": bundle(mine, *answers, longer), "secret": secret("orchestrator").hex(), "audience": "sales-db",
             "request": of_access(SELECT).hex(), "now": NOW, "nonce": NONCE.hex()}  # fmt: skip
    fits = bundle(mine, *answers, _padded("four", left))
    table.add("proving_what_just_fits_with_a_proof", "3.2", "proof", {**given, "token": fits}, text=f"{fits}.{proved(mine)['proof']}")
    table.add("proving_what_is_too_long_with_a_proof", "3.2", "proof", given, "limit")

    def holding(name: str, rule: str, given: str, needs: list[bytes] | None = None, taken: str = "", code: str = "malformed",
                **more: Json) -> None:  # fmt: skip
        expect: dict[str, Json] = {
            "code": code} if needs is None else {"needs": [cid.decode() for cid in needs], "bound": taken,
        }  # fmt: skip
        table.add(f"holding_{name}", rule, "holding", {"token": given, **more}, **expect)

    opaque = token(SALES, {"acme:region": 1}, b"exp < 5")
    forged = token(SALES).signed(bytes(32))
    for name, rule, parts in (
        ("one_text", "8.2", token(SALES, hand_over("sales-agent"))), ("what_no_key_has_made", "8.3", forged),
        ("what_it_cannot_read", "8.5", opaque),
    ):  # fmt: skip
        holding(name, rule, parts.text, [], parts.text)
    for name, parts, got, needs in (
        ("none", TWO, (), ["one", "two"]), ("the_first", TWO, (one,), ["two"]), ("the_second", TWO, (two,), ["one"]),
        ("both", TWO, (one, two), []),
        ("where_none_is_asked", token(SALES), (), []), ("narrowed", ONE, (extended(one, SALES),), []),
        ("the_one", ONE, (one,), []), ("sixteen", many, sixteen[:16], []),
        ("none_of_two_caveats_with_one_id", twin, (), ["one"]), ("one_for_two_caveats_with_one_id", twin, (one,), []),
    ):  # fmt: skip
        rule = "8.7" if parts is twin else "8.6"
        holding(name, rule, joined(parts, got, "cap1u_"), [ticket(need) for need in needs], bundle(parts, *got))
    # Discharges that come to a token that is held.
    unbound = {name: text(each.wire, "cap1u_") for name, each in (("one", one), ("two", two))}
    longer_one = extended(one, SALES)
    for name, held, come, got, needs in (
        ("the_first_that_comes", TWO, ["one"], (one,), ["two"]), ("the_second_that_comes_first", TWO, ["two", "one"], (one, two), []),
        ("the_first_beside_the_second", joined(TWO, (two,), "cap1u_"), ["one"], (one, two), []),
    ):  # fmt: skip
        whole_text = held if isinstance(held, str) else held.text
        holding(name, "8.7", whole_text, [ticket(need) for need in needs], bundle(TWO, *got), come=[unbound[each] for each in come])
    holding("a_newer_one_in_its_place", "8.7", joined(TWO, (one, two), "cap1u_"), [], bundle(TWO, longer_one, two),
            come=[text(longer_one.wire, "cap1u_")])  # fmt: skip
    holding("one_that_comes_for_two_caveats", "8.7", twin.text, [], bundle(twin, one), come=[unbound["one"]])
    table.beside("holding_the_first_that_comes")
    for name, each in {"a_third": text(discharge("three", MINUTE).wire, "cap1u_")}.items():
        holding(f"{name}_that_comes", "8.7", TWO.text, code="bad_discharge", come=[each])
    for name, each in {"a_bound_one": text(one.wire, "cap1d_"), "a_token": TWO.text, "nothing": "", "two_in_one": ".".join(unbound.values())}.items():
        holding(f"{name}_that_comes", "8.6", TWO.text, come=[each])
    table.beside("holding_one_text")
    for name, given in {
        "bound_ones": whole, "them_in_another_order": joined(TWO, (two, one), "cap1u_"),
        "one_twice": joined(TWO, (one, one), "cap1u_"),
        "a_third": joined(TWO, (one, two, discharge("three", MINUTE)), "cap1u_"),
        "one_id_twice": joined(twin, (one, one), "cap1u_"),
        "what_is_not_asked": joined(token(SALES), (one,), "cap1u_"), "a_discharge_alone": text(one.wire, "cap1u_"),
        "seventeen": joined(more, sixteen, "cap1u_"),
        "a_text_with_a_line_feed_behind_it": token(SALES, hand_over("sales-agent")).text + "\n",
        "a_text_with_a_space_before_it": " " + token(SALES, hand_over("sales-agent")).text,
        "what_asks_in_its_turn": joined(ONE, (asking(one, "two"),), "cap1u_"),
    }.items():  # fmt: skip
        rule = "8.6" if name in ("bound_ones", "seventeen", "what_asks_in_its_turn") else "8.7"
        holding(name, "1.1" if name.startswith("a_text") else rule, given)
    return table


# --- leases ----------------------------------------------------------------------------------------------------------


def leases() -> Table:
    table = Table("leases", "A discharge that lives briefly: what depends on it ends with it, and nothing else does.")
    parent = token({**SALES, "exp": NOW + 600}, hand_over("sales-agent"))
    child = asking(parent, "one", ticket("one", need={"lease": "task-123/a"}))

    def lease(until: int) -> Parts:
        return discharge("one", {"exp": until}, cid=ticket("one", need={"lease": "task-123/a"}))

    def row(name: str, now: int, code: str = "", parts: Parts = child, until: int = NOW + 60, leeway: int = 0) -> None:
        answers = () if parts is parent else (lease(until),)
        if code:
            table.deny(name, "34.3", code, bundle(parts, *answers), now=now, leeway=leeway)
        else:
            table.allow(name, "34.3", parts, discharges=answers, now=now, leeway=leeway)

    row("fresh", NOW)
    row("in_its_last_second", NOW + 59)
    row("at_its_end", NOW + 60, "expired")
    row("at_its_end_with_leeway", NOW + 60, leeway=5)
    row("at_its_end_and_leeway", NOW + 65, "expired", leeway=5)
    row("renewed", NOW + 60, until=NOW + 90)
    row("renewed_at_its_end", NOW + 90, "expired", until=NOW + 90)
    row("the_parent_lives_on", NOW + 90, parts=parent)
    grandchild = extended(child, hand_over("report-agent", "sales-agent"))
    row("of_all_below", NOW + 59, parts=grandchild)
    row("of_all_below_at_its_end", NOW + 60, "expired", parts=grandchild)
    row("that_outlives_the_token", NOW + 599, until=NOW + 9999)
    row("that_outlives_the_token_at_its_end", NOW + 600, "expired", until=NOW + 9999)
    table.deny("not_got", "24.6", "missing_discharge", child)
    return table

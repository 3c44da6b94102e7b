"""Vectors of who signed what: Root record, Keys, Labels, Chain, Link ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from spec.generate.build import (
    JTI,
    KEY,
    NOW,
    OTHER_KEY,
    Caveat,
    Json,
    Parts,
    asking,
    audience_key,
    bound,
    canonical,
    derive,
    discharge,
    extended,
    hand_over,
    joined,
    mac,
    pair,
    root,
    token,
)
from spec.generate.table import SALES, SELECT, Table, keyring

UNTIL = {"exp": NOW + 600}
VID = bytes(range(100, 172))


def tables() -> Iterator[Table]:
    yield root_record()
    yield keys()
    yield chain()
    yield macaroons()
    yield link_ids()


def root_record() -> Table:
    table = Table("root_record", "What the issuer said: exactly these keys, exactly these values.")

    def with_(key: str, value: Json) -> Parts:
        changes: dict[str, Json] = {key: value}
        return token(SALES, **changes)

    table.allow("plain", "9.3", token(SALES))
    for key in ("agent", "iat", "jti", "kid", "sub", "task", "v"):
        table.deny(f"without_{key}", "9.2" if key == "v" else "9.3", "malformed", with_(key, None))
    for key in ("exp", "tables", "acme:tenant", "V", "typ", "alg"):
        table.deny(f"with_{key.replace(':', '_')}", "9.3", "malformed", with_(key, 1))
    table.deny("that_is_a_link", "9.3", "malformed", token(SALES, identifier=canonical(SALES)))
    table.deny("that_is_empty_object", "9.3", "malformed", token(SALES, identifier=b"{}"))
    table.deny("that_is_text", "9.1", "malformed", token(SALES, identifier=b"we used our secret key"))
    for number in (0, 2, -1, 3, 2**53 - 1):
        table.deny(f"version_{number}", "9.2", "unsupported_version", token(SALES, v=number))
    table.deny("version_2_with_other_keys", "9.2", "unsupported_version", token(SALES, identifier=b'{"new":[true],"v":2}'))
    table.deny("version_2_without_others", "9.2", "unsupported_version", token(SALES, identifier=b'{"v":2}'))
    for name, version in {"text": "1", "true": True, "list": [1], "object": {}}.items():
        table.deny(f"version_as_{name}", "9.2", "malformed", token(SALES, v=version))
    table.deny("version_too_large", "9.1", "malformed", token(SALES, v=2**53))
    for name, issued in {"negative": -5, "zero": 0, "least": 1 - 2**53}.items():
        table.allow(f"iat_{name}", "9.3", token(SALES, iat=issued))
    for name, value in {"text": str(NOW), "true": True, "list": [NOW]}.items():
        table.deny(f"iat_as_{name}", "9.3", "malformed", token(SALES, iat=value))
    table.allow("jti_of_zeros", "9.3", token(SALES, jti="A" * 22))
    table.allow("jti_of_ones", "9.3", token(SALES, jti="_" * 21 + "w"))
    jti: dict[str, Json] = {
        "cut": JTI[:-1],
        "long": JTI + "A",
        "padded": JTI[:-1] + "=",
        "plus": JTI[:-1] + "+",
        "dot": JTI[:-1] + ".",
        "empty": "",
        "number": 1,
    }
    jti |= {"line_feed": JTI[:-1] + "\n", "full_width": JTI[:-1] + "\uff21"}
    spare = {"0001": "h", "1000": "o", "1111": "v"}
    jti |= {f"trailing_bits_{bits}": JTI[:-1] + last for bits, last in spare.items()}
    for name, value in jti.items():
        table.deny(f"jti_{name}", "6.4", "malformed", token(SALES, jti=value))
    for key in ("agent", "kid", "sub", "task"):
        for name, value in {"empty": "", "number": 1, "list": ["a"], "space": "a b"}.items():
            table.deny(f"{key}_{name}", "9.3", "malformed", with_(key, value))
    here = ("sales-db",)
    addressed = token(SALES, key=audience_key(KEY, "sales-db"), aud="sales-db")
    table.allow("aud", "9.3", addressed, audiences=here)
    table.allow("aud_where_all_is_taken", "9.3", addressed, audiences=here, allow_unaddressed=True)
    for name, value in {
        "with_a_space": "sales db", "empty": "", "not_ascii": "sal\u00e9s-db", "with_percent": "sales%2Ddb", "of_129_characters": "x" * 129,
        "star": "*", "with_line_feed": "sales-db\n",
    }.items():  # fmt: skip
        signed = token(SALES, key=audience_key(KEY, value), aud=value)
        table.deny(f"aud_{name}", "9.3", "malformed", signed, audiences=here, allow_unaddressed=True)
    for name, value in {"number": 1, "list": ["sales-db"], "true": True, "object": {}}.items():
        table.deny(f"aud_as_{name}", "9.3", "malformed", with_("aud", value), audiences=here, allow_unaddressed=True)
    table.allow("ext", "9.3", token(SALES, ext={"acme:purpose": "quarterly report", "acme:seat": 4}))
    ext: dict[str, Json] = {
        "empty": {}, "list": [], "text": "acme", "bare_name": {"tenant": "t1"}, "colon_first": {":tenant": "t1"},
        "colon_last": {"acme:": "t1"}, "colon_alone": {":": "t1"}, "space": {"acme:ten ant": "t1"},
        "long_name": {"acme:" + "x" * 124: 1}, "true": {"acme:x": True}, "list_in_it": {"acme:x": []},
        "object_in_it": {"acme:x": {}},
    }  # fmt: skip
    for name, value in ext.items():
        table.deny(f"ext_{name}", "9.4" if name == "empty" else "9.3", "malformed", token(SALES, ext=value))
    table.allow("ext_with_colons", "4.3", token(SALES, ext={"acme:a:b": 1, "acme:c:": 1, "x" * 126 + ":y": 1}))
    table.allow("ext_with_any_text", "9.4", token(SALES, ext={"acme:x": " \n\u200b"}))
    return table


def keys() -> Table:
    table = Table("keys", "Which key a chain starts from: the one behind (kid, aud), and none other.")
    both = keyring({"k1": KEY, "k2": OTHER_KEY})
    table.allow("first_of_two", "21.2", token(SALES), ring=both)
    table.allow("second_of_two", "21.2", token(SALES, kid="k2", key=OTHER_KEY), ring=both)
    table.deny("first_id_second_key", "11.4", "bad_signature", token(SALES, key=OTHER_KEY), ring=both)
    table.deny("second_id_first_key", "11.4", "bad_signature", token(SALES, kid="k2"), ring=both)
    table.allow("known", "21.2", token(SALES))
    for name, kid in {
        "other": "k2", "upper_case": "K1", "longer": "k11", "with_path": "../k1", "with_slash": "k1/", "with_dot": "k1.",
        "secret": KEY.hex(),
    }.items():  # fmt: skip
        table.deny(f"unknown_{name}", "21.2", "unknown_key", token(SALES, kid=kid))
    table.deny("retired", "21.2", "unknown_key", token(SALES), ring=keyring({"k2": OTHER_KEY}))
    table.deny("same_id_other_key", "11.4", "bad_signature", token(SALES), ring=keyring({"k1": OTHER_KEY}))

    for name, key in {
        "empty": b"", "of_31_bytes": KEY[:31], "of_33_bytes": KEY + b"!", "zero": bytes(32),
        "of_one_byte_repeated": b"k" * 32,
    }.items():  # fmt: skip
        table.deny(f"key_{name}", "21.1", "usage", token(SALES, key=key), ring=keyring({"k1": key}))

    server = audience_key(KEY, "sales-db")
    own = keyring({"k1": server}, "sales-db")
    addressed = token(SALES, key=server, aud="sales-db")
    here = ("sales-db",)
    table.allow("audience_derived_by_a_keyring_of_roots", "21.3", addressed, audiences=here)
    table.allow("audience_by_its_own_keyring", "21.4", addressed, ring=own, audiences=here)
    table.deny("audience_signed_by_root_key", "21.3", "bad_signature", token(SALES, aud="sales-db"), audiences=here)
    table.allow("none_where_that_is_taken", "21.3", token(SALES), audiences=here, allow_unaddressed=True)
    table.allow("audience_by_its_own_keyring_where_all_is_taken", "21.4", addressed, ring=own, audiences=here, allow_unaddressed=True)
    table.allow("other_audience_at_its_server", "21.3", token(SALES, key=audience_key(KEY, "hr-db"), aud="hr-db"), audiences=("hr-db",))
    table.deny(
        "none_signed_by_audience_key", "21.3", "bad_signature", token(SALES, key=server), audiences=here, allow_unaddressed=True
    )
    other = token(SALES, key=server, aud="hr-db")
    table.deny("other_audience_signed_by_this_key", "21.3", "bad_signature", other, audiences=("hr-db",))
    table.deny(
        "none_at_keyring_of_audience",
        "21.4",
        "unknown_key",
        token(SALES, key=server),
        ring=own,
        audiences=here,
        allow_unaddressed=True,
    )
    table.deny("other_audience_at_keyring_of_audience", "21.4", "unknown_key", other, ring=own, audiences=here)
    table.deny(
        "root_key_none_at_keyring_of_audience",
        "21.4",
        "unknown_key",
        token(SALES),
        ring=own,
        audiences=here,
        allow_unaddressed=True,
    )
    for name, labelled in {
        "without_label": b"sales-db", "without_end_of_label": b"captoken/v1 audiencesales-db",
        "with_label_link": b"captoken/v1 link\0sales-db", "with_end_after_it": b"captoken/v1 audience\0sales-db\0",
        "in_upper_case": b"captoken/v1 audience\0SALES-DB",
    }.items():  # fmt: skip
        forged = token(SALES, key=mac(KEY, labelled), aud="sales-db")
        rule = "5.2" if name == "with_label_link" else "5.1"
        table.deny(f"audience_key_{name}", rule, "bad_signature", forged, audiences=here)
    twice = token(SALES, key=audience_key(derive(KEY), "sales-db"), aud="sales-db")
    table.deny("audience_key_from_derived_key", "21.3", "bad_signature", twice, audiences=here)
    return table


def chain() -> Table:
    table = Table("chain", "The HMAC chain: every byte of identifier and links, in their order, under the right key.")
    read = {**SALES, "tables": ["sales", "market.*"]}
    whole = token(read, UNTIL, SALES)
    first, second, third = whole.caveats
    table.allow("three_links", "11.3", whole)

    def deny(name: str, parts: Parts, rule: str = "11.4") -> None:
        table.deny(name, rule, "bad_signature", parts)

    for name, carried in {
        "first_link_dropped": (second, third), "middle_link_dropped": (first, third), "last_link_dropped": (first, second),
        "two_links_dropped": (first,), "links_swapped": (second, first, third), "last_links_swapped": (first, third, second),
        "links_reversed": (third, second, first), "link_repeated": (first, second, second, third),
        "last_repeated": (first, second, third, third), "link_appended": (first, second, third, (canonical({"nbf": 0}), b"")),
        "link_inserted": (first, (canonical({"nbf": 0}), b""), second, third),
        "link_put_first": ((canonical({"nbf": 0}), b""), first, second, third),
        "last_link_widened": (first, second, (canonical({"operations": ["*"], "tables": ["*"]}), b"")),
        "expiry_moved": (first, (canonical({"exp": NOW + 6000}), b""), third),
        "links_joined": ((first[0] + second[0], b""), third), "space_added": ((first[0] + b" ", b""), second, third),
        "link_made_third_party": (first, (second[0], VID), third),
    }.items():  # fmt: skip
        deny(name, whole.carrying(*carried))
    changes: dict[str, dict[str, Json]] = {
        "subject": {"sub": "user:joe"}, "agent": {"agent": "sales-agent"}, "task": {"task": "task-124"},
        "token_id": {"jti": "A" * 22}, "issue": {"iat": NOW - 1}, "ext_added": {"ext": {"acme:admin": 1}},
    }  # fmt: skip
    for name, change in changes.items():
        deny(f"{name}_edited", whole._replace(identifier=canonical(root(**change))))
    last = whole.signature
    for name, signature in {
        "first_bit": bytes((last[0] ^ 0x80,)) + last[1:], "last_bit": last[:-1] + bytes((last[-1] ^ 1,)), "zero": bytes(32),
        "ones": b"\xff" * 32, "reversed": last[::-1], "of_link_before": whole.tags[-2], "of_identifier": whole.tags[0],
        "hash_of_it": hashlib.sha256(last).digest(),
    }.items():  # fmt: skip
        deny(f"signature_{name}", whole.signed(signature))
    child = extended(whole, {"nbf": 0})
    deny("signature_of_child", whole.signed(child.signature))
    deny("signature_of_sibling_id", whole.signed(token(read, UNTIL, SALES, jti="A" * 22).signature))
    keys: dict[str, bytes] = {
        "empty": b"", "zero": bytes(32), "key_id": b"k1", "token_id": JTI.encode(), "identifier": whole.identifier,
        "link": first[0], "generator": b"macaroons-key-generator", "derived": derive(KEY), "hexadecimal": KEY.hex().encode(),
        "other": OTHER_KEY, "reversed": KEY[::-1], "key_and_zero": KEY + b"\0", "cut": KEY[:31],
    }  # fmt: skip
    for name, key in keys.items():
        deny(f"under_{name}", token(SALES, key=key), "11.1")

    def chained(start: bytes, *bodies: bytes) -> Parts:
        tags = [mac(start, canonical(root()))]
        for body in bodies:
            tags.append(mac(tags[-1], body))
        return Parts(canonical(root()), tuple((body, b"") for body in bodies), tuple(tags))

    body = canonical(SALES)
    table.allow("one_link", "11.2", chained(derive(KEY), body))
    deny("key_not_derived", chained(KEY, body), "11.1")
    deny("key_derived_by_swapped_arguments", chained(mac(KEY, b"macaroons-key-generator"), body), "11.1")
    deny("key_padded_generator_with_newline", chained(mac(b"macaroons-key-generator\n", KEY), body), "11.1")
    one = chained(derive(KEY), body)
    start = one.tags[0]
    for name, tag in {
        "message_and_key_swapped": mac(body, start), "hashed_as_section": mac(start, b"\2" + bytes((len(body),)) + body),
        "plain_hash": hashlib.sha256(start + body).digest(), "identifier_skipped": mac(derive(KEY), body),
        "paired_with_nothing": pair(start, b"", body), "text_of_tag_as_key": mac(start.hex().encode(), body),
    }.items():  # fmt: skip
        deny(name, one.signed(tag), "11.3")
    longer = one.tags[-1]
    grown = extended(one, UNTIL)
    table.allow("appended", "11.3", grown)
    deny(
        "appended_under_link_id",
        grown.signed(mac(hashlib.sha256(b"captoken/v1 link\0" + longer).digest(), canonical(UNTIL))),
        "11.3",
    )

    asked = extended(one, (b"ask", VID))
    table.deny("third_party", "24.6", "missing_discharge", asked)
    table.deny("third_party_between_links", "24.6", "missing_discharge", extended(asked, UNTIL))
    table.deny("third_party_twice", "24.6", "missing_discharge", extended(asked, (b"ask", VID)))
    _third_party(table, one)
    table.deny("link_of_64_bytes_that_pairs", "17.2", "unreadable_link", extended(one, mac(longer, VID) + mac(longer, b"ask")))
    return table


def _third_party(table: Table, one: Parts) -> None:
    """What a third-party caveat does to the chain; the answer is there, and stays as it was."""
    asked, answer = asking(one, "one", b"ask"), discharge("one", UNTIL, cid=b"ask")
    (cid, vid), longer = asked.caveats[-1], one.tags[-1]
    table.allow("third_party_answered", "11.3", asked, discharges=(answer,))
    for name, rule, parts in (
        ("id_first", "11.3", asked.signed(pair(longer, cid, vid))), ("as_first_party", "11.3", asked.signed(mac(longer, cid))),
        ("joined", "11.3", asked.signed(mac(longer, vid + cid))),
        ("vid_edited", "11.4", asked.carrying(one.caveats[0], (cid, vid[:-1] + bytes((vid[-1] ^ 1,))))),
        ("id_edited", "11.4", asked.carrying(one.caveats[0], (b"asked", vid))), ("dropped", "11.4", asked.carrying(one.caveats[0])),
        ("made_link", "11.4", asked.carrying(one.caveats[0], (cid, b""))),
    ):  # fmt: skip
        table.deny(f"third_party_{name}", rule, "bad_signature", joined(parts, (bound(answer, asked.signature),)))


# Vectors that other macaroon libraries publish, for chains of version 2. The vids are SecretBoxes with a nonce of zeros.
MYBANK = (b"this is our super secret key; only we should know it", b"we used our secret key")
OTHER_BANK = (b"this is a different super-secret key; never use the same secret twice", b"we used our other secret key")
AUTH_KEY = b"4; guaranteed random by a fair toss of the dice"
AUTH_ID = b"this was how we remind auth of key/pred"
AUTH_VID = bytes(24) + bytes.fromhex(
    "d36ec502e05886d1f0279f055fa52554d16d16c1b14074bbb83ff0fdd79dc2fe098f0ed4a2b091130e6b5db46a20a86b"
)
BOB_VID = bytes(24) + bytes.fromhex(
    "8f8185ddb1f754ee4604199e25a989833a20e5827d057368f9d08d2b9b9ad30704622119e95ca670338b695c6be75f4d"
)
BARBARA_VID = bytes(24) + bytes.fromhex(
    "7515f1dd2fb1168aecf6843bb32e280369d0e073a63ce0c261ccb113e9a557bfc4ca85751a4e9c4a1c86f3f8a8dca542"
)
BANK_SIGNATURE = "d27db2fd1f22760e4c3dae8137e2d8fc1df6c0741c18aed4b97256bf78d1f55c"


def macaroons() -> Table:
    table = Table("macaroons", "Chains that other macaroon libraries compute, so that theirs and ours are one construction.")

    def add(
        name: str, rule: str, source: str, key: bytes, identifier: bytes, *caveats: Caveat, derived: str = "",
        published: dict[int, str] | None = None, bound_to: str | None = None, bound: str | None = None,
    ) -> None:  # fmt: skip
        """`published` are tags by their place, the identifier's being 0; what the source leaves out is computed here."""
        tags = [mac(derive(key), identifier)]
        for cid, vid in caveats:
            tags.append(pair(tags[-1], vid, cid) if vid else mac(tags[-1], cid))
        shown = [tag.hex() for tag in tags]
        if derived not in ("", derive(key).hex()) or any(shown[at] != tag for at, tag in (published or {}).items()):
            raise ValueError(f"{name}: not what {source} says")
        given = {
            "source": source, "key": key.hex(), "identifier": identifier.hex(),
            "caveats": [{"cid": cid.hex(), "vid": vid.hex()} for cid, vid in caveats], "bound_to": bound_to,
        }  # fmt: skip
        table.add(name, rule, "chain", given, derived=derive(key).hex(), tags=shown, bound=bound)

    upstream, here = "libmacaroons README", "pymacaroons 0.13.0, run"
    mybank = "e3d9e02908526c4c0039ae15114115d97fdd68bf2ba379b342aaf0f617d0552f"
    test = "197bac7a044af33332865b9266e26d493bdd668a660e44d88ce1a998c23dbd67"
    add("mint", "11.2", upstream, *MYBANK, published={0: mybank})
    add("one_caveat", "11.3", upstream, *MYBANK, (b"test = caveat", b""), published={0: mybank, 1: test})
    add(
        "third_party", "11.3", upstream, *OTHER_BANK, (b"account = 3735928559", b""), (AUTH_ID, AUTH_VID),
        derived="b3165edc9107072756f516dc9f9074c47272aa88ed3940e93fa0ba72641878f7",
        published={
            0: "dd8b433968690376c1f59716491db815e8eb0069d299d4e34e3135da1dacd92d",
            1: "1434e674ad84fdfdc9bc1aa00785325c8b6d57341fc7ce200ba4680c80786dda",
            2: BANK_SIGNATURE,
        },
    )  # fmt: skip
    add(
        "bound_discharge", "11.5", upstream, AUTH_KEY, AUTH_ID, (b"time < 2015-01-01T00:00", b""),
        derived="7b46b7aec0ea6cf4eaf4ed0b9855ab698837c6be0ba6883ec526f1c7b997afa8",
        published={
            0: "bc33af62e3c27c3fa15acac3414978c0c1ce106c361e9f302919bb9ff8004c98",
            1: "82a80681f9f32d419af12f6a71787a1bac3ab199df934ed950ddf20c25ac8c65",
        },
        bound_to=BANK_SIGNATURE, bound="2eb01d0dd2b4475330739140188648cf25dda0425ea9f661f1574ca0a9eac54e",
    )  # fmt: skip
    root_tag = "1b39395ab242121370485f198426b374a46f5b43960f524f258cbf6516ad0d32"
    add("two_levels_root", "11.3", here, b"root-key", b"root-id", (b"bob-is-great", BOB_VID), published={1: root_tag})
    add(
        "two_levels_discharge", "11.5", here, b"bob-caveat-root-key", b"bob-is-great", (b"barbara-is-great", BARBARA_VID),
        bound_to=root_tag, bound="9bcc6151a63a69fe26a7aea9939a36b97721f977e7e923761f58e98da6128f90",
    )  # fmt: skip
    add(
        "two_levels_last_discharge", "11.5", here, b"barbara-caveat-root-key", b"barbara-is-great", bound_to=root_tag,
        bound="79909887437854be59575b88dcb1c5de3be341b38f772ddb8c635c1632875c04",
    )  # fmt: skip
    smallest = "3022b39f0612f3fd7f8dd702040aec5342549ff75b2eaa800ba3ba46fa8de6d1"
    add("smallest", "11.2", here, b"k", b"i", published={0: smallest})
    for size in (64, 65, 200):
        add(f"key_of_{size}_bytes", "11.1", "RFC 2104", bytes(range(1, size + 1)), b"i", (b"c", b""))
    unit = "f54807f6dc6edf88bf0f7306b3822562a362533dbf7339ba61765da4bd259d87"
    add(
        "unit",
        "11.3",
        "libmacaroons unit test",
        b"this is the key",
        b"keyid",
        (b"account = 3735928559", b""),
        published={1: unit},
    )
    return table


def link_ids() -> Table:
    table = Table("link_ids", "Public names of links: the same for the same links above, different for any other.")
    table.allow("of_one_link", "6.1", token(SALES))
    table.allow("of_its_child", "6.2", token(SALES, UNTIL))
    table.allow("of_its_other_child", "6.2", token(SALES, {"exp": NOW + 601}))
    table.allow("of_its_grandchild", "6.2", token(SALES, UNTIL, {"nbf": NOW}))
    table.allow("of_the_same_links_in_another_tree", "6.2", token(SALES, UNTIL, jti="A" * 22))
    table.allow("of_a_repeated_link", "6.3", token(SALES, SALES, SALES))
    table.allow("of_a_delegation", "6.3", token(SALES, hand_over("sales-agent")))
    table.allow("of_the_same_delegation_again", "6.3", token(SALES, hand_over("sales-agent", number=1)))
    opening = token(
        {**SALES, "tables": ["market.*", "sales"], **UNTIL},
        {"exp": NOW + 300, "from": "orchestrator", "n": "MPOF0Cvxg5E", "tables": ["sales"], "to": "sales-agent"},
        {"aud": ["sales-db"], "exp": NOW + 60},
        jti="vlAGy265ZGLhatUFN1jjWw",
    )
    table.allow("of_the_opening", "24.11", opening, audiences=("sales-db",))
    table.deny(
        "opening_on_a_table_that_link_1_dropped",
        "15.1",
        "table",
        opening,
        {**SELECT, "table": "market.eu"},
        audiences=("sales-db",),
    )
    return table

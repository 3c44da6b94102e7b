"""Vectors of keys outside of tokens: Key files, Pairwise keys."""

from __future__ import annotations

from collections.abc import Iterator

from spec.generate.binding import HERE, P
from spec.generate.build import (
    KEY,
    OTHER_KEY,
    Json,
    audience_key,
    b64,
    canonical,
    exchange_public,
    label,
    mac,
    pairwise,
    secret,
    sha256,
    shared,
    signing_public,
    token,
)
from spec.generate.table import SALES, Table, keyring


def tables() -> Iterator[Table]:
    yield key_files()
    yield pairwise_keys()


def key_files() -> Table:
    table = Table(
        "key_files", "The files that secrets are kept in: one purpose each, one spelling, one line feed at the end or none."
    )
    mine = secret("orchestrator")

    def holding(purpose: str = "holder", **changes: Json) -> str:
        stated = {"purpose": purpose, "secret": b64(mine), "v": 1, **changes}
        return canonical({key: value for key, value in stated.items() if value is not None}).decode()

    def keys(**changes: Json) -> str:
        stated: dict[str, Json] = {"current": "k1", "keys": {"k1": b64(KEY), "k2": b64(OTHER_KEY)}, "v": 1, **changes}
        return canonical({key: value for key, value in stated.items() if value is not None}).decode()

    def row(name: str, rule: str, purpose: str, content: str, **expect: Json) -> None:
        table.add(name, rule, "key_file", {"purpose": purpose, "content": content}, **(expect or {"code": "keyring"}))

    publics = {
        "holder": signing_public("orchestrator"), "discharger": exchange_public("orchestrator"),
        "pairwise": exchange_public("orchestrator"), "operator": signing_public("orchestrator"),
        "audit": signing_public("orchestrator"),
    }  # fmt: skip
    for purpose, public in publics.items():
        row(purpose, "27.2", purpose, holding(purpose) + "\n", public=b64(public))
        if purpose == "holder":
            row(f"{purpose}_without_line_feed", "27.2", purpose, holding(purpose), public=b64(public))
        for other in publics:
            if other != purpose:
                row(f"{purpose}_of_purpose_{other}", "27.1", purpose, holding(other))
        row(f"{purpose}_that_is_a_keyring", "27.2", purpose, keys())
    table.beside("holder_without_line_feed")
    shapes = {
        "with_two_line_feeds": holding() + "\n\n", "with_carriage_return": holding() + "\r\n",
        "with_line_feed_first": "\n" + holding(), "with_space_last": holding() + " ",
        "with_byte_order_mark": "\xef\xbb\xbf" + holding(), "with_a_space": holding().replace(":", ": ", 1),
        "indented": holding().replace("{", "{\n ").replace("}", "\n}"), "unsorted": '{"v":1,' + holding()[1:-7] + "}",
        "twice": holding() * 2, "cut": holding()[:-1], "empty": "", "in_a_list": f"[{holding()}]",
        "that_is_the_secret": b64(mine), "that_is_raw": mine.decode("latin-1"),
        "without_purpose": holding(purpose=None), "without_secret": holding(secret=None), "without_version": holding(v=None),
        "with_more": holding(kid="k1"),
        "of_version_2": holding(v=2), "of_version_text": holding(v="1"), "of_version_true": holding(v=True),
        "of_purpose_in_capitals": holding("Holder"), "of_purpose_keyring": holding("keyring"),
        "of_purpose_list": holding(purpose=["holder"]),
        "with_secret_of_31_bytes": holding(secret=b64(mine[:31])),
        "with_secret_of_33_bytes": holding(secret=b64(mine + b"\0")),
        "with_secret_empty": holding(secret=""),
        "with_secret_of_zeros": holding(secret=b64(bytes(32))),
        "with_secret_of_one_byte_repeated": holding(secret=b64(b"k" * 32)),
        "with_secret_in_hexadecimal": holding(secret=mine.hex()),
        "with_secret_padded": holding(secret=b64(mine) + "="), "with_secret_as_list": holding(secret=list(mine)),
        "with_trailing_bits": holding(secret=b64(mine)[:-1] + chr(ord(b64(mine)[-1]) + 1)),
    }  # fmt: skip
    for name, content in shapes.items():
        row(f"holder_{name}", "27.1" if "of_zeros" in name or "repeated" in name else "27.2", "holder", content)

    both = {"k1": KEY.hex(), "k2": OTHER_KEY.hex()}
    row("keyring", "27.3", "keyring", keys() + "\n", keys=both, current="k1", audience=None)
    row("keyring_with_another_current", "27.3", "keyring", keys(current="k2"), keys=both, current="k2", audience=None)
    row("keyring_of_one_key", "27.3", "keyring", keys(keys={"k1": b64(KEY)}), keys={"k1": KEY.hex()}, current="k1", audience=None)
    server = {"k1": audience_key(KEY, "sales-db")}
    row(
        "keyring_for_one_audience",
        "27.3",
        "keyring",
        keys(aud="sales-db", keys={"k1": b64(server["k1"])}),
        keys={"k1": server["k1"].hex()},
        current="k1",
        audience="sales-db",
    )
    rings = {
        "that_is_a_holder": holding(), "that_is_a_pairwise_key": holding("pairwise"), "without_current": keys(current=None),
        "without_keys": keys(keys=None), "without_version": keys(v=None),
        "with_no_key": keys(keys={}), "with_current_that_is_not_there": keys(current="k3"),
        "with_current_as_list": keys(current=["k1"]), "of_version_2": keys(v=2), "of_version_true": keys(v=True),
        "with_more": keys(purpose="keyring"), "with_key_of_31_bytes": keys(keys={"k1": b64(KEY[:31])}),
        "with_key_of_zeros": keys(keys={"k1": b64(bytes(32))}), "with_key_in_hexadecimal": keys(keys={"k1": KEY.hex()}),
        "with_key_as_number": keys(keys={"k1": 1}),
        "with_id_that_is_no_name": keys(keys={"k1": b64(KEY), "k 2": b64(OTHER_KEY)}),
        "with_keys_as_list": keys(keys=[b64(KEY)]), "with_audience_empty": keys(aud=""),
        "with_audience_as_list": keys(aud=["sales-db"]), "with_audience_that_is_no_name": keys(aud="sales db"),
        "with_a_space": keys().replace(":", ": ", 1),
        "with_trailing_bits": keys(keys={"k1": b64(KEY)[:-1] + chr(ord(b64(KEY)[-1]) + 1)}),
    }  # fmt: skip
    for name, content in rings.items():
        row(f"keyring_{name}", "27.3", "keyring", content)
    return table


def pairwise_keys() -> Table:
    table = Table(
        "pairwise_keys", "The root key that an issuer and a server derive, each by itself, and whose tokens it verifies."
    )
    issuer, server, other = (exchange_public(name) for name in ("issuer", "server", "other issuer"))

    def derived(issuer_name: str = "issuer", server_name: str = "server", audience: str = "sales-db") -> tuple[str, bytes]:
        return pairwise(shared(issuer_name, server_name), exchange_public(issuer_name), exchange_public(server_name), audience)

    def row(
        name: str, rule: str, own: str, expect: dict[str, bytes] | None, audience: str = "sales-db", **others: Json
    ) -> None:
        outcome: dict[str, Json] = {
            "code": "usage"} if expect is None else {"keys": {key_id: key.hex() for key_id, key in expect.items()},
        }  # fmt: skip
        table.add(name, rule, "pairwise", {"secret": secret(own).hex(), **others, "audience": audience}, **outcome)

    def issues(
        name: str, rule: str, expect: dict[str, bytes] | None, server: str = b64(server), own: str = "issuer", **more: str
    ) -> None:
        row(f"issuer_{name}", rule, own, expect, server=server, **more)

    def serves(name: str, rule: str, expect: dict[str, bytes] | None, issuers: Json, own: str = "server", **more: str) -> None:
        row(f"server_{name}", rule, own, expect, issuers=issuers, **more)

    issues("for_a_server", "35.3", dict([derived()]))
    issues("for_another_audience", "35.3", dict([derived(audience="hr-db")]), audience="hr-db")
    issues("that_is_another", "35.3", dict([derived("other issuer")]), own="other issuer")
    issues("that_is_the_server", "35.5", dict([derived("server", "issuer")]), b64(issuer), "server")
    serves("for_an_issuer", "35.3", dict([derived()]), [b64(issuer)])
    serves("for_two_issuers", "35.6", dict([derived(), derived("other issuer")]), [b64(issuer), b64(other)])
    serves("that_is_the_issuer", "35.5", dict([derived("server", "issuer")]), [b64(server)], "issuer")
    low = {
        "zero": bytes(32), "one": b"\1" + bytes(31),
        "order_8": bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        "order_8_again": bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        "p_less_1": (P - 1).to_bytes(32, "little"), "p": P.to_bytes(32, "little"),
        "p_and_1": (P + 1).to_bytes(32, "little"),
        "zero_with_highest_bit": bytes(31) + b"\x80", "ones": b"\xff" * 32,
        "with_highest_bit": server[:31] + bytes((server[31] | 0x80,)),
    }  # fmt: skip
    for name, public in low.items():
        issues(f"for_a_server_{name}", "27.5", None, b64(public))
        serves(f"for_an_issuer_{name}", "35.2", None, [b64(issuer), b64(public)])
    texts = {
        "cut": b64(server)[:42], "longer": b64(server) + "A", "empty": "", "padded": b64(server) + "=",
        "with_trailing_bits": b64(server)[:-1] + chr(ord(b64(server)[-1]) + 1), "in_hexadecimal": server.hex(),
    }  # fmt: skip
    for name, text in texts.items():
        issues(f"for_a_server_{name}", "27.5", None, text)
    issues("for_itself", "35.5", None, b64(issuer))
    serves("for_itself", "35.5", None, [b64(issuer), b64(server)])
    serves("for_an_issuer_twice", "35.6", None, [b64(issuer), b64(issuer)])
    serves("for_nobody", "35.6", None, [])
    serves("for_issuers_as_text", "35.6", None, b64(issuer))
    for name, audience in {"empty": "", "with_space": "sales db", "not_ascii": "caf\u00e9"}.items():
        issues(f"for_an_audience_{name}", "35.3", None, audience=audience)
        serves(f"for_an_audience_{name}", "35.3", None, [b64(issuer)], audience=audience)

    # The same keys at work.
    key_id, key = derived()
    ring = keyring(dict([derived(), derived("other issuer")]), "sales-db")

    def minted(key: bytes, **record: Json) -> Json:
        return token(SALES, key=key, **{"kid": key_id, "aud": "sales-db", **record})

    def deny(name: str, rule: str, code: str, key: bytes, **record: Json) -> None:
        table.deny(name, rule, code, minted(key, **record), ring=ring, audiences=HERE)

    table.allow("token_of_the_issuer", "35.3", minted(key), ring=ring, audiences=HERE)
    point = shared("issuer", "server")
    extracted, info = mac(label("pairwise"), point), issuer + server + b"sales-db"
    keys = {
        "of_another_issuer": derived("other issuer")[1], "of_another_server": derived("issuer", "other server")[1],
        "of_the_roles_swapped": derived("server", "issuer")[1],
        "of_another_audience": derived(audience="hr-db")[1], "that_is_shared": point, "that_is_extracted": extracted,
        "derived_for_its_audience": audience_key(key, "sales-db"),
        "of_public_keys_left_out": mac(extracted, b"sales-db\1"),
        "of_the_audience_left_out": mac(extracted, issuer + server + b"\1"),
        "of_counter_left_out": mac(extracted, info), "of_counter_first": mac(extracted, b"\1" + info),
        "of_counter_zero": mac(extracted, info + b"\0"), "of_the_second_block": mac(extracted, key + info + b"\2"),
        "extracted_without_label": mac(mac(b"", point), info + b"\1"),
        "extracted_the_other_way_round": mac(mac(point, label("pairwise")), info + b"\1"),
        "of_public_keys_alone": sha256(issuer + server),
    }  # fmt: skip
    for name, other_key in keys.items():
        deny(f"token_under_a_key_{name}", "35.3", "bad_signature", other_key)
    deny(
        "token_of_an_issuer_that_is_not_listed",
        "35.6",
        "unknown_key",
        derived("third issuer")[1],
        kid=derived("third issuer")[0],
    )
    deny(
        "token_of_the_server_as_issuer",
        "35.5",
        "unknown_key",
        derived("server", "issuer")[1],
        kid=derived("server", "issuer")[0],
    )
    deny("token_for_another_audience", "21.4", "unknown_key", derived(audience="hr-db")[1], aud="hr-db")
    deny("token_for_no_audience", "21.4", "unknown_key", key, aud=None)
    for name, kid in {
        "public_key": b64(issuer), "longer": key_id + "0", "in_capitals": key_id.upper(), "without_its_prefix": key_id[2:],
    }.items():  # fmt: skip
        deny(f"token_with_key_id_{name}", "35.4", "unknown_key", key, kid=kid)
    return table

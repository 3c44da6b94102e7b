"""Vectors of what is said of tokens already out, and of what they did: Overlay, Recall, Ledger, Audit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from spec.generate.binding import HERE, addressed, outcome, shown, signatures
from spec.generate.build import (
    JTI,
    KEY,
    NOW,
    Json,
    JsonText,
    Parts,
    asking,
    audience_key,
    b64,
    bundle,
    canonical,
    checkpoint,
    delta,
    delta_of,
    discharge,
    entry,
    extended,
    hand_over,
    handed,
    head,
    in_order,
    label,
    line_of,
    link_id,
    mac,
    nonce,
    of_access,
    past_after,
    proof,
    root,
    secret,
    sha256,
    sign,
    signed_delta,
    signed_snapshot,
    signing_public,
    snapshot,
    snapshot_of,
    token,
    trail,
    tree,
    tree_hash,
    tree_message,
)
from spec.generate.table import SALES, SELECT, Table, call, keyring

OPERATOR = b64(signing_public("operator"))
SERVER = b64(signing_public("server"))
HOUR: dict[str, Json] = {"exp": NOW + 3600}
OTHER_JTI = "A" * 22
Step = dict[str, Json]


def tables() -> Iterator[Table]:
    yield snapshots()
    yield deltas()
    yield overlays()
    yield recall()
    yield allowances()
    yield ledger()
    yield counting()
    yield audit()
    yield recorded()


def changed(value: dict[str, Json], **changes: Json) -> dict[str, Json]:
    """The same with other values; a key that is None is left out."""
    return {key: item for key, item in {**value, **changes}.items() if item is not None}


# --- the overlay -----------------------------------------------------------------------------------------------------


def snapshots() -> Table:
    table = Table("snapshots", "Snapshots of the overlay: who signed, how it is spelled, which entries, and which is newer.")

    def row(
        name: str, rule: str, data: bytes, expect: Json = None, operators: Json = None, known: bytes | None = None, own: Json = None
    ) -> None:  # fmt: skip
        given: dict[str, Json] = {"snapshot": data.decode("latin-1"), "operators": operators or [OPERATOR]}
        if own is not None:
            given["own"] = own
        if known is not None:
            given["known"] = known.decode("latin-1")
        table.add(name, rule, "snapshot", given, **(expect or {"code": "overlay"}))

    def come(ids: tuple[str, ...] = (), seq: int = 1, iat: int = NOW, exp: int = NOW + 3600) -> dict[str, Json]:
        return {"code": "ok", "seq": seq, "issued_at": iat, "expires_at": exp, "entries": list(ids)}

    one = entry(token=JTI)
    empty = snapshot()
    row("empty", "36.2", empty, come())
    row("of_one_entry", "36.4", snapshot(one), come(("e1",)))
    lost = changed(entry("4Kd0gmYp2nQ", link="YdXNc7SBuBuVl3_NSXUYYw"), why="lost laptop")
    only = changed(
        entry("f1Q7yE0mXkA", task="task-123"), why="reads only until the audit is over", until=NOW + 86400,
        link={"operations": ["select"]},
    )  # fmt: skip
    row("of_the_example", "36.4", snapshot(lost, only, seq=17, past=past_after(snapshot_of(seq=16, past=()))), come(("4Kd0gmYp2nQ", "f1Q7yE0mXkA"), seq=17))
    stops = snapshot(changed(one, why="see 1.2. " + "A" * 86 + "."))
    row("with_full_stops_in_it", "36.1", stops, come(("e1",)))
    row("of_two_operators", "36.1", empty, come(), [b64(signing_public("another operator")), OPERATOR])
    row("of_a_later_number", "36.2", snapshot(seq=2**53 - 1), come(seq=2**53 - 1))
    row("of_the_last_number", "36.10", snapshot(seq=2**53 - 1), come(seq=2**53 - 1), known=snapshot(seq=2**53 - 2))
    row("of_long_ago", "36.2", snapshot(iat=0, exp=60), come(iat=0, exp=60))  # how old it is, verifiers ask

    published(table, "of_nothing", "36.1")
    published(table, "of_two_entries", "36.1", lost, only, seq=17, iat=NOW + 1, exp=NOW + 61)
    published(table, "of_what_was_asked_for", "36.4", changed(one, asked=[JTI], until=NOW + 5), seq=2**53 - 1)
    published(table, "of_the_first", "36.21", one, past=())
    published(table, "of_one_after_two", "36.21", one, seq=3, past=past_after(snapshot_of(seq=2, past=past_after(snapshot_of(past=())))))
    published(table, "of_one_that_is_resumed", "36.23", one, seq=9, past=(), resumed=RESUMED)

    # Who signed, and what.
    table.beside("empty")
    body = empty[:-87]
    for name, signature in signatures("operator", label("overlay") + sha256(body)).items():
        row(f"signature_{name}", "28.9", body + b"." + b64(signature).encode())
    row("signed_by_another", "36.1", signed_snapshot(body, "another operator"))
    row("signed_by_nobody_that_is_trusted", "36.1", empty, operators=[b64(signing_public("another operator"))])
    messages = {
        "without_label": sha256(body), "with_label_audit": label("audit") + sha256(body),
        "with_label_proof": label("proof") + sha256(body), "unhashed": label("overlay") + body,
        "of_its_hash_in_hexadecimal": label("overlay") + sha256(body).hex().encode(),
        "of_another_snapshot": label("overlay") + sha256(snapshot(seq=2)[:-87]), "of_nothing": b"",
        "without_its_nul": label("overlay")[:-1] + sha256(body),
    }  # fmt: skip
    for name, message in messages.items():
        row(f"signature_{name}", "36.1", body + b"." + b64(sign("operator", message)).encode())
    spellings = {
        "cut": empty[:-1], "longer": empty + b"A", "padded": empty + b"==", "with_line_feed": empty + b"\n",
        "with_space_first": b" " + empty, "without_full_stop": body + empty[-86:], "with_comma": body + b"," + empty[-86:],
        "with_two_full_stops": body + b"." + empty[-87:], "without_signature": body, "with_signature_empty": body + b".",
        "with_signature_alone": empty[-87:], "with_signature_first": empty[-86:] + b"." + body,
        "with_trailing_bits": empty[:-1] + bytes((empty[-1] + 1,)), "that_is_empty": b"",
        "with_signature_in_hexadecimal": body + b"." + sign("operator", label("overlay") + sha256(body)).hex().encode(),
        "with_one_bit_changed": body.replace(b'"seq":1', b'"seq":3') + empty[-87:], "twice": empty + empty,
    }  # fmt: skip
    for name, data in spellings.items():
        row(f"text_{name}", "36.1", data)

    # What was signed and is none: the object, entry by entry.
    stated = snapshot_of()
    objects: dict[str, bytes] = {
        "with_a_space": body.replace(b":", b": ", 1), "with_line_feed": body + b"\n", "with_keys_unsorted":
        b'{"exp":%d,"entries":[],"iat":%d,"seq":1,"v":1}' % (NOW + 3600, NOW), "with_a_key_twice": body[:-1] + b',"v":1}',
        "with_seq_as_fraction": body.replace(b'"seq":1', b'"seq":1.0'), "that_is_a_list": b"[]", "that_is_nothing": b"",
        "with_null": body[:-1] + b',"w":null}', "with_a_byte_order_mark": b"\xef\xbb\xbf" + body,
        "with_bytes_that_are_no_text": canonical(snapshot_of(changed(one, why="x"))).replace(b'"why":"x"', b'"why":"\xff"'),
        "with_an_escape_too_many": canonical(snapshot_of(changed(one, why="x"))).replace(b'"why":"x"', b'"why":"\\u0078"'),
        "with_link_null": canonical(snapshot_of(one)).replace(b'"select"', b'"link":null,"select"'),
    }  # fmt: skip
    objects |= {f"without_{key}": canonical(changed(stated, **{key: None})) for key in stated}
    for name, changes in {
        "with_more": {"x": 1}, "of_version_2": {"v": 2}, "of_version_text": {"v": "1"}, "of_version_true": {"v": True},
        "with_seq_as_text": {"seq": "1"}, "with_iat_as_text": {"iat": "now"}, "with_exp_true": {"exp": True},
        "with_seq_too_large": {"seq": 2**53}, "with_entries_as_object": {"entries": {}},
        "with_entries_of_text": {"entries": ["x"]},
    }.items():  # fmt: skip
        objects[name] = canonical(changed(stated, **changes))
    for name, data in objects.items():
        row(f"object_{name}", "36.2", signed_snapshot(data))

    # Its history, as it is spelled.
    named = past_after(snapshot_of(past=()))
    row("of_the_first", "36.21", snapshot(one, past=()), come(("e1",)))
    row("of_one_with_a_history", "36.21", snapshot(seq=9, past=named), come(seq=9))
    row("of_one_that_names_256", "36.21", snapshot(seq=9, past=named * 256), come(seq=9))
    row("of_one_that_is_resumed", "36.23", snapshot(seq=9, past=named, resumed=RESUMED), come(seq=9))
    row("of_one_that_was_resumed_before", "36.23", snapshot(seq=12, past=named, resumed=changed(RESUMED, why="\u00fc \u2028 \U0001f600")), come(seq=12))
    table.beside("of_one_with_a_history")
    for name, past in {
        "257": named * 257, "none_that_is_null": [None], "a_number": [1], "a_hash_cut": [named[0][:-1]], "a_hash_padded": [named[0] + "="],
        "a_hash_with_trailing_bits": [named[0][:-1] + chr(ord(named[0][-1]) + 1)], "a_hash_of_16_bytes": [JTI], "an_empty_hash": [""],
        "a_hash_with_line_feed": [named[0] + "\n"],
    }.items():  # fmt: skip
        row(f"of_one_that_names_{name}", "36.21", snapshot(seq=9, past=past))
    for name, past in {"text": named[0], "an_object": {"hash": named[0]}, "true": True}.items():
        row(f"of_one_whose_past_is_{name}", "36.21", signed_snapshot(canonical(changed(snapshot_of(seq=9), past=past))))
    row("of_one_whose_past_is_null", "36.21", signed_snapshot(canonical(snapshot_of(seq=9)).replace(b'"seq"', b'"past":null,"seq"')))
    table.beside("of_one_that_is_resumed")
    row("of_one_that_is_resumed_without_past", "36.23", snapshot(seq=9, resumed=RESUMED))
    for name, changes in {
        "without_by": {"by": None}, "without_why": {"why": None}, "without_lost": {"lost": None}, "without_seq": {"seq": None},
        "with_more": {"x": 1}, "by_number": {"by": 1}, "why_number": {"why": 1}, "lost_text": {"lost": "7"}, "lost_true": {"lost": True},
        "lost_too_large": {"lost": 2**53}, "seq_text": {"seq": "9"}, "in_a_later_one": {"seq": 10},
    }.items():  # fmt: skip
        row(f"of_one_that_is_resumed_{name}", "36.23", snapshot(seq=9, past=named, resumed=changed(RESUMED, **changes)))
    for name, value in {"text": "x", "a_list": [RESUMED], "true": True}.items():
        row(f"of_one_whose_resumed_is_{name}", "36.23", signed_snapshot(canonical(changed(snapshot_of(seq=9, past=named), resumed=value))))

    def entries(name: str, rule: str, *stated: Json, good: bool = False) -> None:
        expect = come(tuple(each["id"] for each in stated)) if good else None
        row(f"entry_{name}", rule, snapshot(*stated), expect)

    entries("until", "36.4", changed(one, until=NOW + 60), good=True)
    entries("that_has_run_out", "36.4", changed(one, until=0), good=True)
    entries("that_narrows", "36.6", changed(one, link=SALES), good=True)
    for key, value in SELECTED.items():
        if key != "token":
            entries(f"by_{key}", "36.5", entry(**{key: value}), good=True)
    entries("beside_another", "36.4", one, changed(one, id="e2"), good=True)
    entries("beside_another_of_the_same_id", "36.4", one, one)
    entries("beside_one_that_narrows_of_the_same_id", "36.4", one, changed(one, link=SALES))
    entries("by_all", "36.5", entry(**SELECTED), good=True)
    link = SELECTED["link"]
    entries("asked_for", "36.4", changed(one, asked=[link]), good=True)
    entries("asked_for_by_the_first_agent", "36.4", changed(one, asked=[]), good=True)
    hop, two = nonce(1), [nonce(1), nonce(2)]
    entries("by_hop", "36.5", entry(token=JTI, hop=hop), good=True)
    entries("by_hop_and_link", "36.5", entry(token=JTI, hop=hop, link=link), good=True)
    entries("asked_for_of_a_hop", "36.4", changed(entry(token=JTI, hop=hop), asked=[hop] * 64), good=True)
    table.beside("entry_by_hop")
    entries("by_hop_alone", "36.5", entry(hop=hop))
    for name, value in {"cut": hop[:-1], "longer": hop + "A", "number": 1, "id": link, "list": [hop], "empty": ""}.items():
        entries(f"by_hop_as_{name}", "36.5", entry(token=JTI, hop=value))
    table.beside("entry_asked_for_of_a_hop")
    entries("asked_for_of_a_hop_by_a_link", "36.4", changed(entry(token=JTI, hop=hop), asked=[hop, link]))
    entries("asked_for_of_a_hop_and_a_link", "36.4", changed(entry(token=JTI, hop=hop, link=link), asked=[]))
    entries("asked_for_of_a_link_by_a_hop", "36.4", changed(entry(token=JTI, link=link), asked=two))
    entries("asked_for_of_a_token_by_a_hop", "36.4", changed(entry(token=JTI), asked=two))
    entries("asked_for_of_a_link", "36.4", changed(entry(token=JTI, link=link), asked=[link] * 64), good=True)
    table.beside("entry_asked_for")
    for name, changes in {
        "by_text": {"asked": link}, "by_numbers": {"asked": [1]}, "by_65": {"asked": [link] * 65}, "by_true": {"asked": True},
        "by_a_link_cut": {"asked": [link[:-1]]}, "by_a_link_with_trailing_bits": {"asked": [JTI[:-1] + "h"]}, "by_nobody": {"asked": [""]},
        "and_narrows": {"asked": [link], "link": SALES}, "of_no_token": {"asked": [link], "select": {"link": link}},
        "of_an_agent_too": {"asked": [link], "select": {"agent": "a", "token": JTI}},
        "before_a_time": {"asked": [link], "select": {"issued_before": NOW, "token": JTI}},
    }.items():  # fmt: skip
        entries(f"asked_for_{name}", "36.4", changed(one, **changes))
    table.beside("of_one_entry")
    for key in one:
        entries(f"without_{key}", "36.4", changed(one, **{key: None}))
    for name, changes in {
        "with_more": {"x": 1}, "at_text": {"at": "now"}, "at_true": {"at": True}, "by_number": {"by": 1},
        "id_number": {"id": 1},
        "why_number": {"why": 1}, "until_text": {"until": "soon"}, "until_true": {"until": True},
        "until_too_large": {"until": 2**53},
        "select_as_text": {"select": JTI}, "select_as_list": {"select": [JTI]}, "select_of_nothing": {"select": {}},
        "that_says_revoked": {"revoked": True},
    }.items():  # fmt: skip
        entries(name, "36.4", changed(one, **changes))
    for name, select in {
        "more": {"token": JTI, "x": 1}, "a_name_of_the_root": {"sub": "user:jane"}, "token_as_number": {"token": 1},
        "token_cut": {"token": JTI[:21]}, "token_longer": {"token": JTI + "A"}, "token_padded": {"token": JTI + "=="},
        "token_empty": {"token": ""}, "token_list": {"token": [JTI]}, "token_with_trailing_bits": {"token": JTI[:-1] + "h"},
        "link_cut": {"link": JTI[:21]}, "link_as_number": {"link": 0}, "link_in_hexadecimal": {"link": "0" * 32},
        "task_empty": {"task": ""}, "task_with_slash_last": {"task": "task-123/"}, "task_pattern": {"task": "task-123/*"},
        "task_with_dots": {"task": "task-123/.."}, "agent_empty": {"agent": ""}, "agent_with_space": {"agent": "sales agent"},
        "agent_star": {"agent": "*"}, "agent_list": {"agent": ["sales-agent"]}, "subject_empty": {"subject": ""},
        "subject_not_ascii": {"subject": "caf\u00e9"}, "kid_empty": {"kid": ""}, "kid_number": {"kid": 1},
        "issued_before_text": {"issued_before": "now"}, "issued_before_true": {"issued_before": True},
    }.items():  # fmt: skip
        entries(f"selecting_{name}", "36.5", changed(one, select=select))
    table.beside("entry_that_narrows")
    for name, link in {
        "nothing": {}, "text": "sales", "a_list": [SALES], "unknown": {"acme:region": 1},
        "unknown_beside_known": {**SALES, "use": 1},
        "unreadable": {"exp": "soon"}, "tables_as_text": {"tables": "sales"}, "task": {"task": "task-123"},
        "task_beside_known": {**SALES, "task": "task-123"}, "a_hand_over": hand_over("sales-agent"),
        "n": {**SALES, "n": nonce()},
        "depth": {"depth": 0}, "delegate_only": {"delegate_only": True}, "key": {"key": b64(signing_public("orchestrator"))},
        "uses": {"n": nonce(), "uses": 1}, "uses_without_n": {"uses": 1}, "budget": {"budget": {"cents": 1}, "n": nonce()},
    }.items():  # fmt: skip
        entries(f"narrowing_to_{name}", "36.6", changed(one, link=link))
    # A link is as deep as the snapshot that it stands in: the array, the entry and the link are three levels.
    row("entry_narrowing_to_what_nests_32_deep", "2.7", snapshot(changed(one, link=nested(29))), come(("e1",)), own=REGION)
    table.beside("entry_narrowing_to_what_nests_32_deep")
    row("entry_narrowing_to_what_nests_33_deep", "2.7", snapshot(changed(one, link=nested(30))), own=REGION)
    table.beside("entry_that_narrows")
    entries("good_before_one_that_is_none", "36.3", one, changed(one, id="e2", x=1))
    entries("good_after_one_that_is_none", "36.3", changed(one, select={}), changed(one, id="e2"))

    # With deltas behind it.
    first, second = snapshot_of(one, seq=7), snapshot_of(seq=8)
    base, behind = signed_snapshot(canonical(first)), delta(first, second)
    row("with_a_delta_behind_it", "36.19", base + b"\n" + behind, come(seq=8))
    for name, text in {
        "with_a_delta_before_it": behind + b"\n" + base, "with_a_delta_behind_it_without_a_line_feed": base + behind,
        "with_a_delta_behind_it_and_a_line_feed": base + b"\n" + behind + b"\n", "with_a_delta_after_two_line_feeds": base + b"\n\n" + behind,
        "with_a_delta_twice_behind_it": base + b"\n" + behind + b"\n" + behind, "with_a_snapshot_behind_it": base + b"\n" + base,
        "with_a_delta_after_carriage_return": base + b"\r\n" + behind, "that_is_a_delta": behind,
    }.items():  # fmt: skip
        row(name, "36.19", text)

    # What deltas give is a snapshot in all.
    led = base + b"\n" + behind
    row("after_what_a_delta_gave", "36.20", snapshot(seq=9), come(seq=9), known=led)
    row("that_a_delta_had_led_to", "36.20", signed_snapshot(canonical(second)), come(seq=8), known=led)
    row("to_which_deltas_lead_that_was_known", "36.20", led, come(seq=8), known=signed_snapshot(canonical(second)))
    table.beside("after_what_a_delta_gave")
    row("before_what_a_delta_gave", "36.20", base, known=led)
    row("of_the_number_that_a_delta_gave", "36.20", snapshot(one, seq=8), known=led)

    # Which one is newer.
    row("after_an_earlier_one", "36.10", snapshot(seq=8), come(seq=8), known=snapshot(seq=7))
    row("that_is_known", "36.10", snapshot(seq=7), come(seq=7), known=snapshot(seq=7))
    row("after_an_earlier_one_and_issued_later", "36.10", snapshot(seq=8, iat=NOW + 5), come(seq=8, iat=NOW + 5, exp=NOW + 3605),
        known=snapshot(seq=7))  # fmt: skip
    table.beside("after_an_earlier_one")
    row("that_is_earlier", "36.10", snapshot(seq=6), known=snapshot(seq=7))
    row("with_the_same_number_and_less", "36.10", snapshot(seq=7), known=snapshot(one, seq=7))
    row("with_the_same_number_and_later", "36.10", snapshot(seq=7, iat=NOW + 5), known=snapshot(seq=7))
    row("earlier_but_issued_later", "36.10", snapshot(seq=6, iat=NOW + 5), known=snapshot(seq=7))
    row("later_by_another", "36.1", signed_snapshot(snapshot(seq=8)[:-87], "another operator"), known=snapshot(seq=7))
    histories(table, row, come)
    return table


def histories(table: Table, row: Any, come: Any) -> None:
    """Which one is of the history of another (36.22)."""
    one, link = entry(token=JTI), SELECTED["link"]
    before = snapshot_of(seq=6, past=())
    known = next_of(before, one)

    def follows(name: str, given: dict[str, Json], after: dict[str, Json] = known, rule: str = "36.22", good: bool = True) -> None:
        expect = come(tuple(each["id"] for each in given["entries"]), seq=given["seq"]) if good else None
        row(f"that_follows_{name}", rule, signed_snapshot(canonical(given)), expect, known=signed_snapshot(canonical(after)))

    def strays(name: str, given: dict[str, Json], after: dict[str, Json] = known, rule: str = "36.22") -> None:
        follows(name, given, after, rule, good=False)

    follows("on_it", next_of(known))
    follows("on_one_after_it", next_of(next_of(known)))
    turned = next_of(before, entry("b", agent="b"), entry("a", agent="a"))
    follows("on_entries_in_another_order", next_of(turned), turned)
    table.beside("that_follows_on_it")
    strays("on_the_one_before_it", {**next_of(before), "seq": 8})
    strays("on_one_beside_it", next_of(next_of(before)))
    strays("on_nothing", snapshot_of(seq=8, past=()))
    strays("on_one_that_says_as_much", next_of(next_of(before, changed(one, why="x")), one))
    strays("on_it_without_saying_so", snapshot_of(seq=8))

    # Snapshots of before there were histories.
    old = snapshot_of(one, seq=7)
    follows("on_one_without_a_history_without_one", snapshot_of(seq=8), old, "36.22")
    follows("on_one_without_a_history", next_of(old), old)
    table.beside("that_follows_on_one_without_a_history")
    strays("on_nothing_after_one_without_a_history", snapshot_of(seq=8, past=()), old)

    # What was resumed.
    resumed = snapshot_of(seq=9, past=(), resumed=RESUMED)
    follows("what_was_lost_by_name", resumed, rule="36.23")
    follows("what_was_lost_by_name_later", next_of(next_of(resumed)), rule="36.23")
    at = next_of(resumed, one)
    follows("one_that_was_resumed", next_of(at), at, "36.23")
    table.beside("that_follows_one_that_was_resumed")
    strays("one_beside_it_that_was_resumed", next_of(next_of(resumed)), at, "36.23")
    strays("the_very_one_that_resumed", snapshot_of(seq=10, past=(), resumed=RESUMED), changed(resumed, entries=[one]), "36.23")

    # Too long ago to be named.
    table.beside("that_follows_on_it")
    far = known
    for _ in range(255):
        far = next_of(far)
    follows("on_the_256th_before_it", next_of(far))
    branch = next_of(before)
    for _ in range(256):
        branch = next_of(branch)
    table.beside("that_follows_on_the_256th_before_it")
    strays("on_another_256th_before_it", {**branch, "seq": 263})
    held = [changed(entry("a", token=JTI, link=link), asked=[link, OTHER_JTI], until=NOW + 60), changed(entry("b", agent="b"), until=NOW)]
    asked = next_of(before, *held)
    long_ago = next_of(far)

    def beyond(name: str, *entries: Json, good: bool = False) -> None:
        follows(f"long_after_{name}", {**long_ago, "entries": list(entries), "seq": 264}, asked, good=good)

    beyond("with_all", *held, good=True)
    beyond("with_all_that_stands", held[0], good=True)
    beyond("with_the_tree_in_its_place", entry("c", token=JTI), good=True)
    beyond("with_a_hand_over_in_its_place", changed(entry("c", token=JTI, link=OTHER_JTI), until=NOW + 60), good=True)
    of_hop = [changed(entry("h", token=JTI, hop=nonce(2)), asked=[nonce(1)], until=NOW + 60)]
    hops = next_of(before, *of_hop)

    def instead(name: str, *entries: Json, good: bool = False) -> None:
        follows(f"long_after_a_hop_{name}", {**long_ago, "entries": list(entries), "seq": 264}, hops, good=good)

    instead("with_the_tree_in_its_place", entry("c", token=JTI), good=True)
    instead("with_the_hand_over_above", changed(entry("c", token=JTI, hop=nonce(1)), asked=[]), good=True)
    instead("with_the_same_of_an_operator", entry("c", token=JTI, hop=nonce(2)), good=True)
    instead("with_the_same_asked_for_by_its_holder", changed(entry("c", token=JTI, hop=nonce(1)), asked=[nonce(1)]), good=True)
    table.beside("that_follows_long_after_a_hop_with_the_tree_in_its_place")
    instead("with_one_asked_for_beside", changed(entry("c", token=JTI, hop=nonce(2)), asked=[nonce(3)]))
    instead("with_one_asked_for_below", changed(entry("c", token=JTI, hop=nonce(2)), asked=[nonce(1), nonce(3)]))
    instead("with_another_hop", entry("c", token=JTI, hop=nonce(3)))
    instead("with_a_link_beside", entry("c", token=JTI, hop=nonce(2), link=link))
    instead("with_nothing")
    table.beside("that_follows_long_after_with_the_tree_in_its_place")
    beyond("with_nothing")
    for name, other in {
        "another_tree": entry("c", token=OTHER_JTI), "another_link": entry("c", token=JTI, link="B" * 21 + "A"),
        "what_narrows": changed(entry("c", token=JTI), link=SALES), "what_ends_before": changed(entry("c", token=JTI), until=NOW + 59),
        "what_selects_less": entry("c", token=JTI, task="task-123"), "a_link_alone": entry("c", link=link),
        "the_same_that_says_less": changed(held[0], until=NOW + 59),
    }.items():  # fmt: skip
        beyond(f"with_{name}", other)


REGION = [{"key": "acme:region", "domain": "all", "does": "holds"}]


def nested(levels: int) -> dict[str, Json]:
    """A link with a value of so many arrays."""
    value: Json = []
    for _ in range(levels - 1):
        value = [value]
    return {"acme:region": value}


RESUMED: dict[str, Json] = {"by": "user:ops", "lost": 7, "seq": 9, "why": "the store was set back to the backup of Monday"}


def next_of(known: dict[str, Json], *entries: Json, **changes: Any) -> dict[str, Json]:
    """The snapshot that follows on that one, with these entries."""
    resumed = known.get("resumed")
    return snapshot_of(*entries, **{"seq": known["seq"] + 1, "past": past_after(known), "resumed": resumed, **changes})


def published(table: Table, name: str, rule: str, *entries: Json, known: Json = None, **when: Any) -> None:
    """What an operator writes so that these stand: a snapshot, or a delta to what is known."""
    if known is not None and "past" in known:
        when |= {"past": past_after(known), "resumed": known.get("resumed")}
    stated = snapshot_of(*entries, **when)
    given: dict[str, Json] = {"secret": secret("operator").hex(), "entries": list(entries), "seq": stated["seq"],
                              "issued_at": stated["iat"], "expires_at": stated["exp"]}  # fmt: skip
    if known is not None:
        given["known"] = signed_snapshot(canonical(known)).decode("latin-1")
    else:
        given |= {key: stated[key] for key in ("past", "resumed") if key in stated}
    made = signed_snapshot(canonical(stated)) if known is None else delta(known, stated)
    table.add(f"written_{name}", rule, "publishing", given, written=made.decode("latin-1"))


def deltas() -> Table:
    table = Table("deltas", "Deltas of the overlay: what follows on a snapshot, and what changes nothing.")
    one, two, three = entry("b1", token=JTI), changed(entry("d1", task="task-123"), link=SALES), entry("a1", subject="user:jane")
    known = snapshot_of(one, two, seq=7)
    base = signed_snapshot(canonical(known))

    def row(
        name: str, rule: str, texts: list[bytes], given: dict[str, Json] | None = None, operators: Json = None, before: bytes = base,
        **more: Json,
    ) -> None:  # fmt: skip
        stated: dict[str, Json] = {
            "known": before.decode("latin-1"), "deltas": [text.decode("latin-1") for text in texts], "operators": operators or [OPERATOR],
            **more,
        }  # fmt: skip
        expect: dict[str, Json] = {"code": "overlay"}
        if given is not None:
            spelled = in_order(given)
            expect = {
                "code": "ok", "seq": given["seq"], "issued_at": given["iat"], "expires_at": given["exp"],
                "entries": [each["id"] for each in spelled["entries"]], "hash": b64(sha256(canonical(spelled))),
            }  # fmt: skip
        table.add(name, rule, "delta", stated, **expect)

    def later(*entries: Json, **stated: Any) -> dict[str, Json]:
        return snapshot_of(*entries, **{"seq": 8, "iat": NOW + 5, **stated})

    later_still = changed(two, why="another reason")
    published(table, "that_adds", "36.17", three, one, two, known=known, seq=8, iat=NOW + 5)
    published(table, "that_drops", "36.17", two, known=known, seq=8, iat=NOW + 5)
    published(table, "that_drops_both", "36.17", known=known, seq=9, iat=NOW + 5, exp=NOW + 60)
    published(table, "that_changes_one", "36.17", one, later_still, known=known, seq=8, iat=NOW + 5)
    published(table, "that_only_renews", "36.17", one, two, known=known, seq=2**53 - 1, iat=NOW + 5)
    published(table, "of_ids_beyond_ascii", "36.17", one, entry("\uff5e", agent="a"), entry("\U0001f600", agent="b"), known=known, seq=8)
    row("that_adds", "36.18", [delta(known, later(one, two, three))], later(one, two, three))
    row("that_drops", "36.18", [delta(known, later(two))], later(two))
    row("that_adds_and_drops", "36.18", [delta(known, later(three, two))], later(three, two))
    row("that_only_renews", "36.18", [delta(known, later(one, two))], later(one, two))
    row("that_drops_all", "36.18", [delta(known, later())], later())
    row("that_puts_another_in_its_place", "36.18", [delta(known, later(changed(one, why="x"), two))], later(changed(one, why="x"), two))
    row("to_a_much_later_number", "36.18", [delta(known, later(one, seq=2**53 - 1))], later(one, seq=2**53 - 1))
    row("of_another_operator", "36.17", [signed_delta(canonical(delta_of(known, later(one))), "another operator")], later(one),
        [OPERATOR, b64(signing_public("another operator"))])  # fmt: skip
    far, high = entry("\uff5e", agent="a"), entry("\U0001f600", agent="b")
    row("that_adds_ids_beyond_ascii", "36.17", [delta(known, later(high, one, far))], later(high, one, far))
    turned = signed_snapshot(canonical({**known, "entries": [two, one]}))
    row("on_a_snapshot_in_another_order", "36.17", [delta(known, later(one, two, three))], later(one, two, three), before=turned)
    nothing = snapshot_of(seq=7)
    row("on_an_empty_snapshot", "36.18", [delta(nothing, later(one))], later(one), before=signed_snapshot(canonical(nothing)))
    second = later(three, seq=9, iat=NOW + 9)
    both = [delta(known, later(one, two, three)), delta(later(one, two, three), second)]
    row("of_two", "36.19", both, second)
    row("of_none", "36.19", [], known)
    stops = later(one, two, changed(three, why="see 1.2. " + "A" * 86 + "."))
    row("with_full_stops_in_it", "36.17", [delta(known, stops)], stops)

    lost = changed(entry("4Kd0gmYp2nQ", link="YdXNc7SBuBuVl3_NSXUYYw"), why="lost laptop")
    only = changed(
        entry("f1Q7yE0mXkA", task="task-123"), why="reads only until the audit is over", until=NOW + 86400,
        link={"operations": ["select"]},
    )  # fmt: skip
    example = snapshot_of(lost, only, seq=17, past=past_after(snapshot_of(seq=16, past=())))
    found = later(only, seq=18, past=past_after(example))
    row("of_the_example", "36.17", [delta(example, found)], found, before=signed_snapshot(canonical(example)))

    for levels in (29, 30):
        given = later(one, two, changed(three, link=nested(levels)))
        row(f"that_adds_what_nests_{levels + 3}_deep", "2.7", [delta(known, given)], given if levels == 29 else None, own=REGION)
        table.beside("that_adds_what_nests_32_deep")

    # With a history, which goes along.
    first = snapshot_of(one, seq=7, past=(), resumed=changed(RESUMED, seq=7))
    full = snapshot_of(one, seq=300, past=past_after(first) * 256)
    for name, base_ in {"the_first": first, "one_that_names_256": full}.items():
        given = later(one, two, seq=base_["seq"] + 1, past=past_after(base_), resumed=base_.get("resumed"))
        row(f"on_{name}", "36.21", [delta(base_, given)], given, before=signed_snapshot(canonical(base_)))
        published(table, f"on_{name}", "36.21", one, two, known=base_, seq=given["seq"], iat=NOW + 5)
    next_one = later(one, two, past=past_after(first), resumed=first["resumed"])
    last = later(two, seq=9, past=past_after(next_one), resumed=first["resumed"])
    row("of_two_with_a_history", "36.21", [delta(first, next_one), delta(next_one, last)], last, before=signed_snapshot(canonical(first)))
    table.beside("on_the_first")
    for name, changes in {
        "that_forgets_it": {"past": None, "resumed": None}, "that_begins_anew": {"past": []}, "that_names_another": {"past": past_after(known)},
        "that_is_not_resumed": {"resumed": None}, "that_is_resumed_otherwise": {"resumed": RESUMED},
    }.items():  # fmt: skip
        given = changed(later(one, two, past=past_after(first), resumed=first["resumed"]), **changes)
        row(f"on_the_first_{name}", "36.21", [delta(first, given)], before=signed_snapshot(canonical(first)))
    table.beside("that_adds")
    row("that_begins_a_history", "36.21", [delta(known, later(one, two, three, past=past_after(known)))])

    # Who signed, and what.
    table.beside("that_adds")
    good = delta_of(known, later(one, two, three))
    text = signed_delta(canonical(good))
    body = text[:-87]
    row("signed_by_another", "36.17", [signed_delta(body, "another operator")])
    for name, message in {
        "with_label_overlay": label("overlay") + sha256(body), "without_label": sha256(body), "unhashed": label("delta") + body,
        "of_what_it_gives": label("overlay") + sha256(canonical(in_order(later(one, two, three)))),
    }.items():  # fmt: skip
        row(f"signature_{name}", "36.17", [body + b"." + b64(sign("operator", message)).encode()])
    for name, data in {
        "cut": text[:-1], "with_line_feed": text + b"\n", "that_is_empty": b"", "without_signature": body, "twice": text + text,
        "that_is_a_snapshot": signed_snapshot(canonical(later(one, two, three))), "with_one_bit_changed": text.replace(b'"v":1', b'"v":3'),
    }.items():  # fmt: skip
        row(f"text_{name}", "36.17", [data])

    # On what, and to what.
    for name, before in {
        "another_number": {**known, "seq": 6}, "other_entries": snapshot_of(one, seq=7), "another_end": {**known, "exp": NOW + 3601},
        "an_entry_that_says_something_else": snapshot_of(changed(one, why="x"), two, seq=7), "what_it_gives": later(one, two, three),
    }.items():  # fmt: skip
        row(f"on_{name}", "36.18", [text], before=signed_snapshot(canonical(before)))
    table.beside("of_two")
    row("of_two_exchanged", "36.18", both[::-1])
    row("of_two_without_the_first", "36.18", both[1:])
    row("of_two_and_the_first_again", "36.18", [both[0], both[0], both[1]])
    row("of_two_whose_last_is_none", "36.19", [both[0], b"{}"])
    row("of_two_whose_first_gives_another_hash", "36.18",
        [signed_delta(canonical({**good, "gives": {"hash": good["after"]["hash"], "seq": 8}})), both[1]])  # fmt: skip

    table.beside("that_adds_and_drops")
    whole = delta_of(known, later(three, two))
    gives, after = whole["gives"], whole["after"]
    longer = entry("e1", token=OTHER_JTI)
    for name, changes in {
        "with_more": {"x": 1}, "of_version_2": {"v": 2}, "of_version_text": {"v": "1"}, "of_version_true": {"v": True},
        "with_add_as_object": {"add": {}}, "with_drop_as_text": {"drop": "b1"}, "with_iat_as_text": {"iat": "1"},
        "with_after_as_number": {"after": 7}, "with_gives_as_text": {"gives": gives["hash"]},
        "with_gives_without_a_hash": {"gives": {"seq": 8}}, "with_gives_and_more": {"gives": {**gives, "x": 1}},
        "to_the_same_number": {"gives": {**gives, "seq": 7}}, "to_a_lower_number": {"gives": {**gives, "seq": 6}},
        "to_another_number": {"gives": {**gives, "seq": 9}}, "to_another_hash": {"gives": {**gives, "hash": after["hash"]}},
        "to_a_hash_in_hexadecimal": {"gives": {**gives, "hash": sha256(canonical(in_order(later(three, two)))).hex()}},
        "to_a_hash_with_trailing_bits": {"gives": {**gives, "hash": gives["hash"][:-1] + chr(ord(gives["hash"][-1]) + 1)}},
        "after_another_number": {"after": {**after, "seq": 6}}, "after_another_hash": {"after": {**after, "hash": gives["hash"]}},
        "at_another_time": {"iat": NOW}, "until_another_time": {"exp": NOW}, "that_adds_less": {"add": []},
        "that_adds_more": {"add": [three, longer]}, "that_adds_what_is_there": {"add": [three, two]}, "that_adds_one_twice": {"add": [three, three]},
        "that_drops_less": {"drop": []}, "that_drops_another": {"drop": ["d1"]}, "that_drops_what_is_not_there": {"drop": ["b1", "x"]},
        "that_drops_one_twice": {"drop": ["b1", "b1"]}, "that_adds_an_entry_with_more": {"add": [{**three, "x": 1}]},
        "that_adds_a_link_that_is_none": {"add": [{**three, "link": {"acme:x": 1}}]},
    }.items():  # fmt: skip
        row(f"object_{name}", "36.18", [signed_delta(canonical({**whole, **changes}))])
    for key in whole:
        row(f"object_without_{key}", "36.17", [signed_delta(canonical(changed(whole, **{key: None})))])
    row("object_with_a_space", "36.17", [signed_delta(canonical(whole).replace(b":", b": ", 1))])
    row("object_with_keys_unsorted", "36.17", [signed_delta(b'{"v":1,' + canonical(whole)[1:-7] + b"}")])

    # Each would be good in order: what it gives has the hash that it says.
    table.beside("that_adds_ids_beyond_ascii")
    wide = delta_of(known, later(high, one, far))
    row("that_adds_ids_by_utf_16_unit", "36.17", [signed_delta(canonical({**wide, "add": wide["add"][::-1]}))])
    table.beside("that_drops_all")
    row("that_drops_all_in_another_order", "36.17", [signed_delta(canonical({**delta_of(known, later()), "drop": ["d1", "b1"]}))])
    return table


SELECTED: dict[str, Json] = {
    "agent": "orchestrator", "issued_before": NOW + 1, "kid": "k1", "link": link_id(token(SALES).tags[1]),
    "subject": "user:jane", "task": "task-123", "token": JTI,
}  # fmt: skip


def overlays() -> Table:
    table = Table(
        "overlay", "What an overlay does to tokens: whom an entry selects, what is left to them, and when it is stale."
    )

    def given(data: bytes | None, bound: int, stale: bool) -> dict[str, Json]:
        text = None if data is None else data.decode("latin-1")
        return {"overlay": {"snapshot": text, "operators": [OPERATOR], "max_staleness": bound, "allow_stale": stale}}

    def down(name: str, data: bytes, parts: Parts, access: Json = SELECT, stale: bool = False) -> None:
        presented = {"overlay": given(data, 60, stale)["overlay"] | {"down": True}}
        table.deny(name, "36.7", "store_unavailable", parts, access, presented=presented)

    def allow(
        name: str, rule: str, data: bytes | None, parts: Parts, access: Json = SELECT, bound: int = 60, stale: bool = False,
        discharges: tuple[Parts, ...] = (), **known: Json,
    ) -> None:  # fmt: skip
        table.allow(name, rule, parts, access, presented=given(data, bound, stale), discharges=discharges, **known)

    def deny(
        name: str, rule: str, code: str, data: bytes | None, parts: Parts | str, access: Json = SELECT, bound: int = 60,
        stale: bool = False, **known: Json,
    ) -> None:  # fmt: skip
        table.deny(name, rule, code, parts, access, presented=given(data, bound, stale), **known)

    plain = token(SALES)
    allow("empty", "36.8", snapshot(), plain)
    deny("revoked", "36.8", "revoked", snapshot(entry(token=JTI)), plain)
    allow("empty_without_an_access", "36.8", snapshot(), plain, None)
    deny("revoked_without_an_access", "36.8", "revoked", snapshot(entry(token=JTI)), plain, None)
    only = token({**SALES, "delegate_only": True})
    deny("revoked_and_for_handing_on_alone", "24.18", "delegate_only", snapshot(entry(token=JTI)), only)
    deny("stale_and_for_handing_on_alone", "24.18", "delegate_only", None, only)
    deny("revoked_among_others", "36.8", "revoked", snapshot(*(entry(f"e{n}", token=OTHER_JTI) for n in range(5)),
         entry("last", token=JTI)), plain)  # fmt: skip

    # Whom an entry selects.
    child = extended(plain, hand_over("sales-agent", tables=["sales"]))
    lower = extended(child, hand_over("report-agent", "sales-agent", 1), {"task": "task-123/a/b"})
    sibling = extended(plain, hand_over("sales-agent", number=1, tables=["sales"]))
    asked = asking(plain, "one")
    hits: dict[str, tuple[dict[str, Json], Parts]] = {
        "token": ({"token": JTI}, lower), "first_link": ({"link": link_id(plain.tags[1])}, plain),
        "first_link_of_a_child": ({"link": link_id(plain.tags[1])}, lower),
        "last_link": ({"link": link_id(child.tags[2])}, child),
        "link_in_between": ({"link": link_id(child.tags[2])}, lower), "task": ({"task": "task-123"}, plain),
        "task_above": ({"task": "task-123"}, lower), "task_between": ({"task": "task-123/a"}, lower),
        "task_of_a_link": ({"task": "task-123/a/b"}, lower), "first_agent": ({"agent": "orchestrator"}, lower),
        "agent_between": ({"agent": "sales-agent"}, lower), "last_agent": ({"agent": "report-agent"}, lower),
        "subject": ({"subject": "user:jane"}, lower), "kid": ({"kid": "k1"}, lower), "all_together": (SELECTED, lower),
        "a_second_later": ({"issued_before": NOW + 1}, lower), "two": ({"agent": "sales-agent", "task": "task-123"}, lower),
    }  # fmt: skip
    allow("empty_for_a_grandchild", "36.8", snapshot(), lower)
    of = {"token": JTI}
    hits |= {
        "hop": ({**of, "hop": nonce()}, child), "hop_in_between": ({**of, "hop": nonce()}, lower), "last_hop": ({**of, "hop": nonce(1)}, lower),
    }  # fmt: skip
    for name, (select, parts) in hits.items():
        deny(f"selects_{name}", "36.5", "revoked", snapshot(entry(**select)), parts)
    misses: dict[str, tuple[dict[str, Json], Parts]] = {
        "another_token": ({"token": OTHER_JTI}, lower), "a_link_below": ({"link": link_id(child.tags[2])}, plain),
        "a_sibling": ({"link": link_id(child.tags[2])}, sibling),
        "the_tag_of_the_identifier": ({"link": link_id(plain.tags[0])}, plain),
        "a_token_called_as_the_link": ({"link": JTI}, plain),
        "a_link_called_as_the_token": ({"token": link_id(plain.tags[1])}, plain),
        "another_task": ({"task": "task-124"}, lower), "a_task_below": ({"task": "task-123/a"}, plain),
        "a_task_that_begins_alike": ({"task": "task-12"}, lower), "a_task_beside": ({"task": "task-123/a/c"}, lower),
        "another_agent": ({"agent": "mail-agent"}, lower), "an_agent_that_comes_later": ({"agent": "report-agent"}, child),
        "the_subject_as_agent": ({"agent": "user:jane"}, lower), "an_agent_in_capitals": ({"agent": "Orchestrator"}, lower),
        "another_subject": ({"subject": "user:john"}, lower), "the_agent_as_subject": ({"subject": "orchestrator"}, lower),
        "another_kid": ({"kid": "k2"}, lower), "the_same_second": ({"issued_before": NOW}, lower),
        "earlier": ({"issued_before": 0}, lower),
    }  # fmt: skip
    misses |= {
        "a_hop_below": ({**of, "hop": nonce(1)}, child), "a_hop_of_another_tree": ({"hop": nonce(), "token": OTHER_JTI}, child),
        "a_hop_of_a_sibling": ({**of, "hop": nonce()}, sibling), "a_hop_and_no_hand_over": ({**of, "hop": nonce()}, plain),
    }  # fmt: skip
    for name, (select, parts) in misses.items():
        allow(f"passes_{name}", "36.5", snapshot(entry(**select)), parts)
    misfits: dict[str, Json] = {
        "agent": "mail-agent", "issued_before": NOW, "kid": "k2", "link": OTHER_JTI, "subject": "user:john", "task": "task-124",
        "token": OTHER_JTI,
    }  # fmt: skip
    for key, value in misfits.items():
        allow(f"passes_all_but_{key}", "36.5", snapshot(entry(**changed(SELECTED, **{key: value}))), plain)
    allow("with_a_third_party", "36.5", snapshot(), asked, discharges=(discharge("one", HOUR),))
    both = (discharge("one", HOUR),)
    table.deny("selects_the_link_of_a_third_party", "36.5", "revoked", bundle(asked, *both),
               presented=given(snapshot(entry(link=link_id(asked.tags[-1]))), 60, False))  # fmt: skip

    # What a holder asked for by `n` is of what has come through its own hand: whatever `n` it has written.
    table.beside("empty_for_a_grandchild")
    for name, asked_by, hop, parts in (
        ("by_who_handed_it_on", [nonce()], nonce(1), lower), ("by_the_first", [], nonce(1), lower), ("of_its_own", [nonce()], nonce(), lower),
    ):  # fmt: skip
        deny(f"selects_a_hop_asked_for_{name}", "36.5", "revoked", snapshot(changed(entry(token=JTI, hop=hop), asked=asked_by)), parts)
    for name, asked_by, hop, parts in (
        ("by_one_beside", [nonce(7)], nonce(), lower), ("by_one_below", [nonce(), nonce(1)], nonce(), child),
        ("of_the_one_above_by_one_beside", [nonce(), nonce(7)], nonce(), lower),
    ):  # fmt: skip
        allow(f"passes_a_hop_asked_for_{name}", "36.5", snapshot(changed(entry(token=JTI, hop=hop), asked=asked_by)), parts)

    # How long, and what is left.
    table.beside("empty")
    until = changed(entry(token=JTI), until=NOW + 1)
    deny("until_a_second_later", "36.4", "revoked", snapshot(until), plain)
    allow("until_now", "36.4", snapshot(changed(until, until=NOW)), plain)
    allow("until_long_ago", "36.4", snapshot(changed(until, until=0)), plain)
    deny("until_long_ago_beside_one_that_stands", "36.4", "revoked",
         snapshot(changed(until, until=0), entry("e2", task="task-123")), plain)  # fmt: skip
    wide = token({"nbf": NOW})

    def narrowing(link: Json, **select: Json) -> bytes:
        return snapshot(changed(entry(**(select or {"token": JTI})), link=link))

    left: dict[str, tuple[Json, Json, Json]] = {  # what is left, an access within it, and one beyond it
        "tables": ({"tables": ["sales"]}, SELECT, {**SELECT, "table": "hr"}),
        "operations": ({"operations": ["select"]}, SELECT, {**SELECT, "operation": "insert"}),
        "allow": ({"allow": {"sales": ["select"]}}, SELECT, {**SELECT, "operation": "insert"}),
        "columns": ({"columns": {"sales": ["a"]}}, {**SELECT, "columns": ["a"]}, SELECT),
        "rows": ({"rows": {"sales": {"a": {"in": [1]}}}}, {**SELECT, "row": {"a": 1}}, SELECT),
        "conditions": ({"rows": {"sales": {"a": {"in": [1]}}}}, {**SELECT, "rows": [{"a": {"in": [1]}}]}, {**SELECT, "rows": []}),
        "tools": ({"tools": {"search": {}}}, call("search"), call("mail")),
        "data": (SALES, SELECT, {**SELECT, "tool": "search"}), "tools_where_tables_are": ({"tools": {"*": {}}}, call("search"), SELECT),
        "where": ({"where": {"x": {"max": 5}}}, {**SELECT, "attributes": {"x": 5}}, SELECT),
        "nothing": ({"tables": []}, {"attributes": {}}, SELECT),
    }  # fmt: skip
    for name, (link, within, beyond) in left.items():
        if name != "nothing":
            allow(f"leaves_{name}", "36.8", narrowing(link), wide, within)
        else:
            allow("leaves_nothing_of_another", "36.8", narrowing(link, token=OTHER_JTI), wide, beyond)
        deny(f"narrowed_to_{name}", "36.8", "narrowed", narrowing(link), wide, beyond)
    allow("leaves_until", "36.8", narrowing({"exp": NOW + 1}), wide)
    deny("narrowed_until", "36.8", "narrowed", narrowing({"exp": NOW}), wide)
    deny("narrowed_until_without_an_access", "36.8", "narrowed", narrowing({"exp": NOW}), wide, None)
    allow("leaves_until_with_leeway", "36.8", narrowing({"exp": NOW}), wide, leeway=1)
    deny("narrowed_to_later", "36.8", "narrowed", narrowing({"nbf": NOW + 1}), wide)
    allow("narrowed_to_tables_without_an_access", "36.8", narrowing({"tables": []}), wide, None)
    here = addressed(plain)
    allow("leaves_this_audience", "36.8", narrowing({"aud": ["hr-db", "sales-db"]}), here, audiences=HERE)
    deny("narrowed_to_another_audience", "36.8", "narrowed", narrowing({"aud": ["hr-db"]}), here, audiences=HERE)
    _audiences_left(allow, deny, narrowing)
    table.beside("leaves_this_audience")
    allow("leaves_what_two_entries_leave", "36.8", snapshot(changed(entry(token=JTI), link={"tables": ["sales", "hr"]}),
          changed(entry("e2", kid="k1"), link={"tables": ["sales"]})), wide)  # fmt: skip
    deny("narrowed_by_the_second_of_two", "36.8", "narrowed",
        snapshot(changed(entry(token=JTI), link={"tables": ["sales", "hr"]}),
         changed(entry("e2", kid="k1"), link={"tables": ["sales"]})), wide, {**SELECT, "table": "hr"})  # fmt: skip
    deny("revoked_beside_narrowed", "36.8", "revoked",
         snapshot(changed(entry(token=JTI), link={"tables": []}), entry("e2", kid="k1")), plain)  # fmt: skip
    allow("leaves_more_than_the_token_has", "36.8", narrowing({"tables": ["*"]}), plain)
    deny("widens_nothing", "36.8", "table", narrowing({"tables": ["*"]}), plain, {**SELECT, "table": "hr"})

    # The order of the plan.
    table.beside("empty")
    gone = snapshot(entry(token=JTI))
    deny("revoked_and_expired", "24.17", "revoked", gone, token({**SALES, "exp": NOW}))
    deny("revoked_and_another_table", "24.17", "revoked", gone, plain, {**SELECT, "table": "hr"})
    deny("revoked_and_another_caller", "24.17", "revoked", gone, plain, caller={"agent": "mail-agent"})
    deny("revoked_and_broken", "24.17", "broken_delegation", gone, token(SALES, hand_over("mail-agent", "sales-agent")))
    deny("revoked_and_unreadable", "24.17", "unreadable_link", gone, token(SALES, {}))
    deny("revoked_and_forged", "24.17", "bad_signature", gone, plain.signed(bytes(32)))

    # How old it may be.
    old: dict[str, tuple[int, int]] = {
        "60_seconds_ago": (60, 60),
        "5_seconds_ago": (5, 5),
        "now_of_none": (0, 0),
    }
    for name, (ago, bound) in old.items():
        allow(f"of_{name}", "36.7", snapshot(iat=NOW - ago), plain, bound=bound)
    allow("of_60_seconds_ahead", "36.7", snapshot(iat=NOW + 60, exp=NOW + 3600), plain)
    allow("of_60_seconds_ahead_with_leeway", "36.7", snapshot(iat=NOW + 60, exp=NOW + 3600), plain, leeway=600)
    allow("of_60_seconds_ago_with_leeway", "36.7", snapshot(iat=NOW - 60), plain, leeway=600)
    allow("until_the_next_second", "36.7", snapshot(exp=NOW + 1), plain)
    table.beside("of_60_seconds_ago")
    for name, (ago, bound) in {
        "61_seconds_ago": (61, 60), "6_seconds_ago": (6, 5), "1_second_ago_of_none": (1, 0),
        "61_seconds_ago_with_leeway": (61, 60),
    }.items():  # fmt: skip
        deny(f"of_{name}", "36.7", "stale_overlay", snapshot(iat=NOW - ago), plain, bound=bound,
             leeway=600 if name.endswith("leeway") else 0)  # fmt: skip
    deny("of_61_seconds_ahead", "36.7", "stale_overlay", snapshot(iat=NOW + 61, exp=NOW + 3600), plain)
    deny("of_61_seconds_ahead_with_leeway", "36.7", "stale_overlay", snapshot(iat=NOW + 61, exp=NOW + 3600), plain, leeway=600)
    deny("that_is_good_no_more", "36.7", "stale_overlay", snapshot(exp=NOW), plain)
    deny("none_yet", "36.7", "stale_overlay", None, plain)
    deny("none_yet_without_an_access", "36.7", "stale_overlay", None, plain, None)
    deny("stale_and_revoked", "36.7", "stale_overlay", snapshot(entry(token=JTI), iat=NOW - 61), plain)
    deny("stale_and_expired", "24.17", "stale_overlay", None, token({**SALES, "exp": NOW}))
    deny("stale_and_forged", "24.17", "bad_signature", None, plain.signed(bytes(32)))
    allow("stale_where_that_will_do", "36.9", snapshot(iat=NOW - 61), plain, stale=True)
    allow("none_yet_where_that_will_do", "36.9", None, plain, stale=True)
    for ago in (60, 61):
        left_out = given(snapshot(iat=NOW - ago), 60, False)["overlay"]
        del left_out["max_staleness"]
        name = f"of_{ago}_seconds_ago_where_no_bound_is_said"
        if ago == 60:
            table.allow(name, "36.7", plain, presented={"overlay": left_out})
        else:
            table.deny(name, "36.7", "stale_overlay", plain, presented={"overlay": left_out})
    down("that_cannot_be_asked", snapshot(exp=NOW + 1), plain)
    down("that_cannot_be_asked_where_a_stale_one_will_do", snapshot(iat=NOW - 61), plain, stale=True)
    fresh_(allow, deny, table)
    table.beside("stale_where_that_will_do")
    deny("stale_where_that_will_do_and_revoked", "36.9", "revoked", snapshot(entry(token=JTI), iat=0), plain, stale=True)
    deny("stale_where_that_will_do_and_narrowed", "36.9", "narrowed",
         snapshot(changed(entry(token=JTI), link={"tables": []}), iat=0), plain, stale=True)  # fmt: skip
    return table


def fresh_(allow: Any, deny: Any, table: Table) -> None:
    """Tokens that ask for an overlay that is no older than so."""
    asks = token({**SALES, "fresh": 10})
    for ago in (0, 10):
        allow(f"fresh_{ago}_seconds_ago", "36.11", snapshot(iat=NOW - ago), asks)
    for ago in (11,):
        deny(f"fresh_{ago}_seconds_ago", "36.11", "stale_overlay", snapshot(iat=NOW - ago), asks)
    deny("fresh_11_seconds_ago_without_an_access", "36.11", "stale_overlay", snapshot(iat=NOW - 11), asks, None)
    deny("fresh_11_seconds_ago_with_leeway", "36.11", "stale_overlay", snapshot(iat=NOW - 11), asks, leeway=60)
    allow("fresh_10_seconds_ago_with_leeway", "36.11", snapshot(iat=NOW - 10), asks, leeway=60)
    allow("fresh_without_an_access", "36.11", snapshot(iat=NOW - 10), asks, None)
    allow("fresh_a_little_ahead", "36.11", snapshot(iat=NOW + 5), asks)
    allow("fresh_in_no_time", "36.11", snapshot(), token({**SALES, "fresh": 0}))
    deny("fresh_in_no_time_a_second_ago", "36.11", "stale_overlay", snapshot(iat=NOW - 1), token({**SALES, "fresh": 0}))
    allow("fresh_for_longer_than_the_bound", "36.11", snapshot(iat=NOW - 60), token({**SALES, "fresh": 3600}))
    deny(
        "fresh_for_longer_than_the_bound_and_stale",
        "36.11",
        "stale_overlay",
        snapshot(iat=NOW - 61),
        token({**SALES, "fresh": 3600}),
    )
    allow("fresh_in_a_later_link", "36.11", snapshot(iat=NOW - 5), extended(asks, {"fresh": 5}))
    deny("fresh_in_a_later_link_and_older", "36.11", "stale_overlay", snapshot(iat=NOW - 6), extended(asks, {"fresh": 5}))
    allow("fresh_in_an_earlier_link", "36.11", snapshot(iat=NOW - 10), extended(asks, {"fresh": 60}))
    deny("fresh_in_an_earlier_link_and_older", "36.11", "stale_overlay", snapshot(iat=NOW - 11), extended(asks, {"fresh": 60}))
    allow(
        "fresh_after_an_audience",
        "36.11",
        snapshot(iat=NOW - 10),
        token({**SALES, "aud": ["sales-db"]}, {"fresh": 10}),
        audiences=HERE,
    )
    # Where a link leaves fewer servers, or a task below: how old the overlay is, stays as it was.
    narrower = token({**SALES, "aud": ["sales-db"]}, {"fresh": 10})
    allow("fresh_after_fewer_audiences", "36.11", snapshot(iat=NOW - 10), narrower, audiences=["hr-db", "sales-db"])
    below = token({**SALES, "task": "task-123/part"}, {"fresh": 10})
    allow("fresh_after_a_task", "36.11", snapshot(iat=NOW - 10), below)
    deny("fresh_after_a_task_and_older", "36.11", "stale_overlay", snapshot(iat=NOW - 11), below)
    allow("fresh_where_a_stale_one_will_do", "36.11", snapshot(iat=NOW - 10), asks, stale=True)
    deny("fresh_where_a_stale_one_will_do_and_it_is", "36.11", "stale_overlay", snapshot(iat=NOW - 61), asks, stale=True)
    deny("fresh_where_none_will_do_and_there_is_none", "36.11", "stale_overlay", None, asks, stale=True)
    table.deny("fresh_at_a_verifier_without_an_overlay", "36.11", "stale_overlay", asks)
    for name, value in {"negative": -1, "text": "10", "true": True, "list": [10], "object": {"s": 10}}.items():
        deny(f"fresh_{name}_is_unreadable", "15.9", "unreadable_link", snapshot(), token({**SALES, "fresh": value}))
    within = changed(entry(token=JTI), link={"fresh": 10})
    allow("leaves_what_is_fresh", "36.11", snapshot(within, iat=NOW - 10), token(SALES))
    deny("narrowed_to_what_is_fresh", "36.8", "narrowed", snapshot(within, iat=NOW - 11), token(SALES))


def _audiences_left(allow: Any, deny: Any, narrowing: Any) -> None:
    """An entry's `aud` is asked for the names that root, links and discharges leave of the verifier's, and no others."""
    names, both = ("hr-db", "mail-api", "sales-db"), {"aud": ["hr-db", "sales-db"]}
    sales, hr = {"aud": ["sales-db"]}, {"aud": ["hr-db"]}
    asked = asking(token({**SALES, **both}), "one")
    answers = discharge("one", {**HOUR, **sales})
    of_root = token(SALES, aud="sales-db", key=audience_key(KEY, "sales-db"))
    of_all = asking(token({**SALES, "aud": [*both["aud"], "mail-api"]}, both), "one")
    for name, parts, got in (
        ("the_root", of_root, ()), ("a_link", token({**SALES, **both}, sales), ()), ("a_discharge", asked, (answers,)),
        ("links_and_a_discharge", of_all, (answers,)),
    ):  # fmt: skip
        allow(f"leaves_what_{name}_leaves", "36.8", narrowing(sales), parts, discharges=got, audiences=names)
        deny(f"narrowed_beside_what_{name}_leaves", "36.8", "narrowed", narrowing(hr), bundle(parts, *got), audiences=names)
    wide = token({**SALES, **both})
    two = snapshot(changed(entry(token=JTI), link=sales), changed(entry("e2", task="task-123"), link=hr))
    allow("leaves_what_each_of_two_entries_leaves", "36.8", two, wide, audiences=names)
    three = snapshot(changed(entry(token=JTI), link=sales), changed(entry("e2", task="task-123"), link={"aud": ["mail-api"]}))
    deny("narrowed_by_one_of_two_audiences", "36.8", "narrowed", three, wide, audiences=names)


# --- recall ----------------------------------------------------------------------------------------------------------


def recall() -> Table:
    table = Table("recall", "A holder asks for the revocation of what it handed on: what is taken, and which link it stops.")
    plain = token(SALES)
    mine = extended(plain, hand_over("sales-agent"))
    _requests(table)

    def presented(parts: Parts, audience: str = "control") -> Parts:
        return extended(parts, {"aud": [audience], "exp": NOW + 60})

    def links_of(held: Parts, given: Parts) -> list[dict[str, Json]]:
        rest = given.caveats[len(held.caveats) :]
        return [{"cid": b64(cid), **({"vid": b64(vid)} if vid else {})} for cid, vid in rest]

    def asks(held: Parts, given: Parts, by: Parts | None = None, **changes: Json) -> dict[str, Json]:
        """The request; `by`: whose tag the MAC is made with, the holder's if it is nobody else's."""
        stated = {"after": len(held.caveats) - 1, "links": links_of(held, given), "why": "lost", **changes}
        said = canonical({"links": stated["links"], "why": stated["why"]})
        made = mac(sha256(label("recall") + (by or held).signature), said)
        return {"mac": b64(made), "token": presented(held).text, "v": 1, **stated}

    def row(name: str, rule: str, request: Json, expect: Json = None, **more: Json) -> None:
        text = request if isinstance(request, str) else canonical(request).decode()
        given = {"request": text, "keyring": keyring({"k1": KEY}), "audience": "control", "now": NOW, **more}
        table.add(name, rule, "recall", given, **(expect or {"code": "recall"}))

    def stops(parts: Parts, asked: tuple[Parts, ...] = (mine,), until: Json = None) -> dict[str, Json]:
        """That link, asked for by whoever was handed what is named last; until so long."""
        by = [link_id(each.signature) for each in asked]
        return {"code": "ok", "token": JTI, "link": link_id(parts.signature), "asked": by, "until": until}

    child = extended(mine, hand_over("report-agent", "sales-agent", 1))
    grandchild = extended(child, {"nbf": NOW}, hand_over("mail-agent", "report-agent", 2))
    sibling = extended(mine, hand_over("mail-agent", "sales-agent", 2))
    row("of_a_child", "37.4", asks(mine, child), stops(child))
    row("of_another_child", "37.4", asks(mine, sibling), stops(sibling))
    row("of_a_grandchild", "37.4", asks(mine, grandchild), stops(grandchild))
    row("of_the_first_holder", "37.3", asks(plain, child), stops(child, ()))
    narrowed = extended(mine, {"nbf": NOW})
    row("of_what_was_made_after_a_link_of_its_own", "37.3",
        asks(narrowed, extended(narrowed, hand_over("x", "sales-agent", 3))),
        stops(extended(narrowed, hand_over("x", "sales-agent", 3))))  # fmt: skip
    row("of_what_was_made_before_a_link_of_its_own", "37.3", asks(narrowed, narrowed, mine, after=1, links=links_of(mine, child)),
        stops(child))  # fmt: skip
    table.beside("of_the_first_holder")
    row("of_the_first_holder_after_a_link_before_the_first", "37.3", asks(plain, child, after=-1))
    third = asking(mine, "one")
    row("of_what_asks_a_third_party", "37.1", asks(mine, third), stops(third))
    table.beside("of_a_child")
    row("of_what_was_made_before_a_link_of_its_own_by_who_was_not_there", "37.5",
        asks(narrowed, narrowed, after=1, links=links_of(mine, child)))  # fmt: skip
    row("of_another_child_by_who_was_not_there", "37.5", asks(narrowed, narrowed, after=1, links=links_of(mine, sibling)))
    row("after_a_link_before_it_held_by_who_was_there", "37.3", asks(mine, child, plain, after=0, links=links_of(plain, child)))
    for name, changes in {
        "of_another_link": {"links": links_of(mine, sibling)}, "for_another_reason": {"why": "found"},
    }.items():  # fmt: skip
        row(f"{name}_than_the_holder_wrote", "37.5", {**asks(mine, child), **changes})
    for name, made in {"empty": "", "of_zeros": b64(bytes(32)), "of_31_bytes": b64(bytes(31))}.items():
        row(f"with_a_mac_{name}", "37.4", {**asks(mine, child), "mac": made})
    row("after_a_link_before_it_held", "37.3", asks(mine, child, after=0, links=links_of(plain, child)))
    row("of_its_own_hand_over", "37.3", asks(mine, mine, after=0, links=links_of(plain, mine)))
    row("of_a_sibling_of_its_own", "37.3", asks(mine, mine, after=0, links=links_of(plain, extended(plain, hand_over("x")))))
    for name, after in {"before_the_first": -1, "behind_the_last": 3}.items():
        row(f"after_a_link_{name}", "37.3", asks(mine, child, after=after))
    for name, changes in {
        "with_more": {"x": 1}, "of_version_2": {"v": 2}, "of_version_text": {"v": "1"}, "of_version_true": {"v": True},
        "without_a_link": {"links": []}, "of_links_as_text": {"links": "x"}, "of_a_link_as_text": {"links": ["x"]},
        "of_a_link_without_cid": {"links": [{}]}, "of_a_link_with_more": {"links": [{**links_of(mine, child)[0], "x": 1}]},
        "of_a_link_that_is_no_base64": {"links": [{"cid": "="}]}, "of_65_links": {"links": links_of(mine, child) + [{"cid": "eA"}] * 64},
        "of_a_cid_with_trailing_bits": {"links": [{"cid": "eB"}]}, "of_a_vid_alone": {"links": [{"vid": "eA"}]},
        "after_text": {"after": "1"}, "after_true": {"after": True}, "with_token_as_list": {"token": [mine.text]},
        "without_a_reason": {"why": ""}, "with_a_blank_reason": {"why": "  "}, "with_reason_as_number": {"why": 1},
        "with_a_reason_of_two_lines": {"why": "a\nb"}, "with_an_escape_in_its_reason": {"why": "a\x1b[2J"},
        "with_a_reason_of_201_characters": {"why": "x" * 201}, "with_mac_as_number": {"mac": 1},
        "with_mac_that_is_no_base64": {"mac": "="},
    }.items():  # fmt: skip
        row(name, "37.1", asks(mine, child, **changes))
    third_links = links_of(mine, third)
    vid = third.caveats[-1][1]
    for name, changes in {
        "of_a_cid_of_no_bytes": {"links": [{"cid": ""}]}, "of_a_vid_of_no_bytes": {"links": [{**third_links[0], "vid": ""}]},
        "of_a_vid_of_71_bytes": {"links": [{**third_links[0], "vid": b64(vid[:71])}]},
        "of_a_vid_of_73_bytes": {"links": [{**third_links[0], "vid": b64(vid + bytes(1))}]},
        "with_a_reason_of_one_space": {"why": " "}, "with_a_no_break_space_in_its_reason": {"why": "a b"},
        "with_a_reason_without_ink": {"why": "⠀"}, "with_a_filler_in_its_reason": {"why": "aㅤb"},
        "with_a_variation_selector_in_its_reason": {"why": "a️"}, "with_private_use_in_its_reason": {"why": "a"},
        "with_a_zero_width_joiner_in_its_reason": {"why": "a‍b"}, "with_a_reason_of_201_emoji": {"why": "😀" * 201},
    }.items():  # fmt: skip
        row(name, "37.1", asks(mine, child, **changes))
    for key in ("after", "links", "mac", "token", "v", "why"):
        row(f"without_{key}", "37.1", changed(asks(mine, child), **{key: None}))
    for name, why in {
        "200_characters": "x" * 200, "200_emoji": "😀" * 200, "letters_and_spaces_at_its_ends": " café 销售 ",
    }.items():  # fmt: skip
        row(f"with_a_reason_of_{name}", "37.1", asks(mine, child, why=why), stops(child))
    for name, message in {
        "its_links_alone": lambda links, why: links, "an_array_of_both": lambda links, why: [links, why],
        "its_reason_alone": lambda links, why: {"why": why}, "after_as_well": lambda links, why: {"after": 1, "links": links, "why": why},
    }.items():  # fmt: skip
        said = canonical(message(links_of(mine, child), "lost"))
        row(f"with_a_mac_over_{name}", "37.1", {**asks(mine, child), "mac": b64(mac(sha256(label("recall") + mine.signature), said))})
    row("with_a_mac_under_the_tag_itself", "37.1", {**asks(mine, child), "mac": b64(mac(mine.signature,
        canonical({"links": links_of(mine, child), "why": "lost"})))})  # fmt: skip
    for size, expect in ((65536, None), (65537, {"code": "recall"})):
        given, why = _filling(asks, mine, size)
        row(f"of_{size}_characters", "37.1", asks(mine, given, why=why), expect or stops(given))
    only = token({**SALES, "delegate_only": True})
    handed = extended(only, hand_over("sales-agent"))
    row("by_a_token_for_handing_on_alone", "37.2", asks(only, handed), stops(handed, ()))
    _of_a_bound_token(row, asks, stops)
    _what_gives_way(row, asks, table)
    _of_a_set(row, asks, table)
    table.beside("of_a_child")
    text = canonical(asks(mine, child)).decode()
    for name, spelled in {
        "empty": "", "a_list": f"[{text}]", "with_a_space": text.replace(":", ": ", 1), "with_line_feed": text + "\n",
        "cut": text[:-1], "too_long": text.replace("lost", "x" * 65536),
    }.items():  # fmt: skip
        row(f"text_{name}", "37.1", spelled)
    last: dict[str, Json] = {"link": 2, "added_by": "sales-agent"}
    for name, code, held, place in (
        ("forged", "bad_signature", presented(mine).signed(bytes(32)).text, {}),
        ("not_for_the_plane", "wrong_audience", presented(mine, "sales-db").text, last),
        ("addressed_to_nobody", "unaddressed", mine.text, {}),
        ("no_token", "malformed", "cap1_", {}),
        ("expired", "expired", extended(mine, {"aud": ["control"], "exp": NOW}).text, last),
    ):
        rule = "37.7" if name in ("expired", "not_for_the_plane") else "37.2"
        row(f"by_a_token_{name}", rule, asks(mine, child, token=held), {"code": code, **place})
    return table


def _requests(table: Table) -> None:
    """What a holder writes, byte for byte; and what it is refused."""
    plain = token(SALES)
    first = extended(plain, hand_over("sales-agent"))
    second = asking(extended(first, hand_over("mail-agent", "sales-agent", 1)), "one")

    def row(name: str, held: Parts, given: Parts, why: str = "it went astray", end: int = NOW + 60, code: str = "ok") -> None:
        links = [{"cid": b64(cid), **({"vid": b64(vid)} if vid else {})} for cid, vid in given.caveats[len(held.caveats) :]]
        made = mac(sha256(label("recall") + held.signature), canonical({"links": links, "why": why}))
        text = extended(held, {"aud": ["control"], "exp": end}).text
        stated = {"after": len(held.caveats) - 1, "links": links, "mac": b64(made), "token": text, "v": 1, "why": why}
        asked = {"token": held.text, "handed_on": given.text, "audience": "control", "why": why, "now": NOW}
        come = {"request": canonical(stated).decode()} if code == "ok" else {"code": code}
        table.add(f"written_{name}", "37.1", "recalling", asked, **come)

    row("of_three_links", plain, second)
    row("of_one_link", plain, first)
    row("by_who_was_handed_it", first, second)
    soon = token({**SALES, "exp": NOW + 30})
    row("of_a_token_that_ends_sooner", soon, extended(soon, {"nbf": NOW}), end=NOW + 30)
    for size in (1, 200):
        row(f"for_a_reason_of_{size}_characters", plain, first, "\U0001f600" * size)
    table.beside("written_of_one_link")
    row("of_itself", plain, plain, code="usage")
    row("of_what_was_made_of_another", plain, extended(token(SALES, sub="user:joe"), {"nbf": NOW}), code="usage")
    row("of_what_has_another_link_first", plain, token({"tables": []}, {"nbf": NOW}), code="usage")
    for name, why in {"blank": "  ", "empty": "", "of_two_lines": "a\nb", "of_201_characters": "x" * 201, "without_ink": "a\u200b"}.items():
        row(f"for_a_reason_{name}", plain, first, why, code="usage")
    table.beside("written_by_who_was_handed_it")
    row("of_what_it_was_made_from", first, plain, code="usage")
    row("of_what_was_added_to_a_question", second, extended(second, {"nbf": NOW}))
    row("of_what_asks_another", second, asking(extended(first, hand_over("mail-agent", "sales-agent", 1)), "two"), code="usage")


def _filling(asks: Any, held: Parts, size: int) -> tuple[Parts, str]:
    """What was made of the token, and a reason, so that the request has that many characters."""
    given = held
    while len(canonical(asks(held, given))) < size - 1300:
        given = extended(given, b"x" * 800)
    left = size - len(canonical(asks(held, given, why="")))
    given = extended(given, b"x" * ((left - 150) * 3 // 4))
    return given, "x" * (size - len(canonical(asks(held, given, why=""))))


def _of_a_bound_token(row: Any, asks: Any, stops: Any) -> None:
    """The proof stands at the end of `token`, and is for the request as it is without the proof."""
    bound = token({**SALES, "key": b64(signing_public("orchestrator"))})
    child = handed(bound, "sales-agent")
    asked = asks(bound, child)
    sent = extended(bound, {"aud": ["control"], "exp": NOW + 60})

    def proved(request: bytes, holder: str = "orchestrator", audience: str = "control") -> dict[str, Json]:
        return {**asked, "token": f"{asked['token']}.{proof(sent, holder, request, audience)}"}

    about = sha256(canonical(asked))
    row("by_a_bound_token", "37.2", proved(about), stops(child, ()))
    row("by_a_bound_token_without_a_proof", "37.2", asked, {"code": "proof_missing"})
    for name, request in {
        "no_access": of_access(None), "the_request_with_an_empty_proof": sha256(canonical({**asked, "token": asked["token"] + "."})),
        "the_request_with_its_proof": sha256(canonical(proved(about))), "another_request": sha256(canonical(asks(bound, child, why="x"))),
        "its_hash_in_hexadecimal": sha256(about.hex().encode()),
    }.items():  # fmt: skip
        rule = "30.12" if "_with_" in name else "37.2"
        row(f"by_a_bound_token_proven_for_{name}", rule, proved(request), {"code": "bad_proof"})
    row("by_a_bound_token_proven_by_another", "37.2", proved(about, "sales-agent"), {"code": "bad_proof"})
    row("by_a_bound_token_proven_to_another_server", "37.2", proved(about, audience="sales-db"), {"code": "bad_proof"})
    twice = proved(about)
    row("by_a_bound_token_proven_twice", "37.2", {**twice, "token": f"{twice['token']}.{twice['token'][-124:]}"}, {"code": "malformed"})
    row("by_a_bound_token_proven_and_of_another_reason", "37.2", {**twice, "why": "found"}, {"code": "bad_proof"})


def _of_a_set(row: Any, asks: Any, table: Table) -> None:
    """By the token for the control plane, whose links are nobody else's: by their `n`."""
    nothing: dict[str, Json] = {"tables": [], "operations": [], "tools": {}, "exp": NOW + 600}
    plain = token(nothing, key=audience_key(KEY, "control"), aud="control")
    first = extended(plain, hand_over("sales-agent", number=1, exp=NOW + 300))
    child = extended(first, hand_over("report-agent", "sales-agent", 2))
    end = NOW + 600 + 86400

    def stops(hop: str, *asked: str) -> dict[str, Json]:
        return {"code": "ok", "token": JTI, "link": hop, "asked": list(asked), "until": end}

    row("of_a_set_by_the_first", "37.12", asks(plain, first), stops(nonce(1)))
    row("of_a_set_by_a_child", "37.12", asks(first, child), stops(nonce(2), nonce(1)))
    row("of_a_set_of_what_was_narrowed_since", "37.12", asks(first, extended(child, {"nbf": NOW})), stops(nonce(2), nonce(1)))
    strange = extended(first, {"acme:region": 1, **hand_over("x", "sales-agent", 3)})
    row("of_a_set_with_a_caveat_that_the_plane_does_not_know", "37.12", asks(first, strange), stops(nonce(3), nonce(1)))
    forged = extended(first, hand_over("x", "sales-agent", 1))
    row("of_a_set_with_the_n_of_who_is_above", "37.12", asks(first, forged), stops(nonce(1), nonce(1)))
    table.beside("of_a_set_by_a_child")
    row("of_a_set_without_an_n", "37.12", asks(first, extended(first, {"nbf": NOW})))
    row("of_a_set_with_an_n_that_is_none", "37.12", asks(first, extended(first, {"n": "x", "nbf": NOW})))

    def said(name: str, hop: str, *asked: str, by: bool = True) -> dict[str, Json]:
        stated = changed(entry(name, token=JTI, hop=hop), asked=list(asked) if by else None, until=end)
        return {**stated, "select": changed(stated["select"])}

    def brief(each: Json) -> list[Json]:
        return [each["select"]["token"], each["select"]["hop"], each.get("asked"), each.get("until")]

    def gives(name: str, request: Json, standing: list[Json], made: list[Json], left: list[Json], most: int = 5) -> None:
        after = sorted([made, *map(brief, left)], key=json.dumps)
        outcome = {"code": "ok", "token": made[0], "link": made[1], "asked": made[2], "until": made[3], "stands": after}
        row(name, "37.12", request, outcome, standing=standing, most=most)

    below = said("below", nonce(9), nonce(1), nonce(2))
    gives("of_a_set_by_an_ancestor", asks(first, child), [below], [JTI, nonce(2), [nonce(1)], end], [])
    beside = said("beside", nonce(9), nonce(2))
    gives("of_a_set_with_the_n_of_one_beside", asks(first, child), [beside], [JTI, nonce(2), [nonce(1)], end], [beside])
    elsewhere = said("elsewhere", nonce(2), nonce(7))
    gives("of_a_set_that_one_beside_asked_for", asks(first, child), [elsewhere], [JTI, nonce(2), [nonce(1)], end], [elsewhere])
    for name, there in {
        "an_operator_revoked": said("there", nonce(2), by=False), "is_revoked": said("there", nonce(2), nonce(1)),
        "is_revoked_with_who_asks": said("there", nonce(1)),
    }.items():  # fmt: skip
        gives(f"of_a_set_of_what_{name}", asks(first, child), [there], brief(there), [])
    many = [said(f"m{n}", nonce(20 + n), nonce(1)) for n in range(5)]
    gives("of_a_set_beyond_the_bound", asks(first, child), many, [JTI, nonce(1), [nonce(1)], end], [])


def _what_gives_way(row: Any, asks: Any, table: Table) -> None:
    """What stands gives way to what stops more: to an ancestor's recall, to a hand-over's own end, to that of its tree."""
    ends: dict[str, Json] = {**SALES, "exp": NOW + 600}
    plain = token(ends)
    first = extended(plain, hand_over("sales-agent"))
    second = extended(first, hand_over("report-agent", "sales-agent", 1))
    third = extended(second, {"exp": NOW + 60}, hand_over("mail-agent", "report-agent", 2))
    beside = extended(plain, hand_over("sales-agent", number=1))
    day = 86400

    def by(*parts: Parts) -> list[str]:
        return [link_id(each.signature) for each in parts]

    def said(name: str, link: str | None, asked: list[str] | None, until: Json, **select: Json) -> dict[str, Json]:
        stated = changed(entry(name, **{"token": JTI, "link": link, **select}), asked=asked, until=until)
        return {**stated, "select": changed(stated["select"])}

    def many(count: int, asked: list[str], until: Json = NOW + 60 + day) -> list[dict[str, Json]]:
        return [said(f"{asked[-1] if asked else 'root'}-{n}", b64(bytes((n, *range(15)))), asked, until) for n in range(count)]

    def brief(each: Json) -> list[Json]:
        return [each["select"].get("token"), each["select"].get("link"), each.get("asked"), each.get("until")]

    def gives(
        name: str, rule: str, request: Json, standing: list[Json], entry: list[Json], left: list[Json], most: int | None = 5, **more: Json
    ) -> None:  # fmt: skip
        after = sorted([entry, *map(brief, left)], key=json.dumps)
        token_, link, asked, until = entry
        outcome = {"code": "ok", "token": token_, "link": link, "asked": asked, "until": until, "stands": after}
        bound = {} if most is None else {"most": most}
        row(name, rule, request, outcome, standing=sorted(standing, key=lambda each: each["id"]), **bound, **more)

    own = extended(third, hand_over("x", "mail-agent", 9))
    wanted = [JTI, link_id(own.signature), by(first, second, third), NOW + 60 + day]
    request = asks(third, own)
    operators = [said("ops", link_id(beside.signature), None, None), said("opt", None, None, NOW + 60 + day, token=OTHER_JTI)]
    gives("beside_what_the_operator_said", "37.8", request, operators, wanted, operators)
    four = many(4, by(first, second, third))
    gives("within_the_bound", "37.10", request, four, wanted, four)
    hundred = many(100, by(first, second, third))
    for name, standing, told, rest in (("within", hundred[:99], wanted, hundred[:99]), ("beyond", hundred, None, [])):
        told = told or [JTI, link_id(third.signature), by(first, second, third), NOW + 60 + day]
        gives(f"{name}_the_bound_of_100", "37.10", request, standing, told, rest, None)
    five = many(5, by(first, second, third))
    lowest = [JTI, link_id(third.signature), by(first, second, third), NOW + 60 + day]
    gives("beyond_the_bound", "37.10", request, five + operators, lowest, operators)
    spread = many(2, by(first, second, third)) + many(3, by(first, second))
    middle = [JTI, link_id(second.signature), by(first, second), NOW + 600 + day]
    gives("beyond_the_bound_of_the_hand_over_above", "37.10", request, spread, middle, [])
    highest = many(5, by(first))
    top = [JTI, link_id(first.signature), by(first), NOW + 600 + day]
    gives("beyond_the_bound_of_the_first_hand_over", "37.10", request, highest, top, [])
    near = many(5, by(first, second, third)) + many(2, by(first, second)) + many(1, by(first))
    gives("beyond_the_bound_of_three_at_once", "37.10", request, near, lowest, near[5:])
    longer = [*many(4, by(first, second, third)), said("long", b64(bytes(16)), by(first, second, third), None)]
    gives("beyond_the_bound_for_the_longest", "37.10", request, longer, [*lowest[:3], None], [])
    over = many(5, by(first, second, third), NOW)
    gives("beside_five_that_have_run_out", "37.10", request, over, wanted, [])
    elsewhere = [{**each, "select": {**each["select"], "token": OTHER_JTI}} for each in five]
    gives("beside_five_of_another_tree", "37.10", request, elsewhere, wanted, elsewhere)
    roots = many(9, [])
    gives("of_the_first_agent_that_asked_for_nine", "37.10", asks(plain, first), roots, [JTI, link_id(first.signature), [], NOW + 600 + day], roots)

    below = many(2, by(first, second, third)) + many(1, by(first, second))
    kept = many(1, by(first)) + many(1, []) + many(1, by(beside)) + operators
    gives("by_an_ancestor", "37.9", asks(first, second), below + kept,
          [JTI, link_id(second.signature), by(first), NOW + 600 + day], kept, 100)  # fmt: skip
    narrowed = extended(first, {"nbf": NOW})
    gives("by_an_ancestor_of_a_link_that_hands_nothing_on", "37.9", asks(first, narrowed), below,
          [JTI, link_id(narrowed.signature), by(first), NOW + 600 + day], below, 100)  # fmt: skip

    # What stops as much already.
    for name, rest in {
        "of_what_is_revoked_by_the_operator": (link_id(own.signature), None), "of_who_is_revoked_itself": (link_id(second.signature), by(first)),
        "of_a_tree_that_is_revoked": (None, []),
    }.items():  # fmt: skip
        before = said("there", rest[0], rest[1], NOW + 600 + day)
        gives(name, "37.4", request, [before], brief(before), [])
    sooner = said("there", link_id(second.signature), by(first), NOW + 60 + day - 1)
    gives("of_who_is_revoked_itself_for_less_long", "37.4", request, [sooner], wanted, [sooner])

    # Where the holders' part is full. What one more takes depends on how ids and reasons are spelled. So each part is full
    # by far, or has room by far.
    room, full = 1000, 100

    def of(tree: str, count: int, *, why: int = 200, until: Json = NOW + 60 + day, mark: str = "x") -> list[Json]:
        asked = [b64(sha256(tree.encode())[:16])]
        each = [said(f"{tree[0]}{mark}{n}", b64(bytes((n, *range(15)))), asked, until, token=tree) for n in range(count)]
        return [changed(one, why="x" * why) for one in each]

    def entry_of(tree: str, link: Json, asked: Json, until: Json) -> Json:
        return said("", link, asked, until, token=tree)

    def tree_of(tree: str, until: Json = NOW + 60 + day) -> list[Json]:
        """That tree has given way."""
        return [tree, None, [], until]

    def fits(name: str, standing: list[Json], entry: list[Json], left: list[Json], *, beyond: int, whole: tuple[Json, ...] = (),
             **more: Json) -> None:  # fmt: skip
        """`beyond`: so many bytes more than what stands are the holders'. `whole`: what has become one for its tree."""
        part = sum(len(canonical(one)) for one in standing if "asked" in one) + beyond
        stands = [*left, *(entry_of(*one) for one in whole)]
        gives(name, "37.11", request, standing, entry, stands, part=part, **more)

    third_tree = "E" * 21 + "A"
    most_of_all, fewer = of(OTHER_JTI, 4), of(third_tree, 3)
    fits("where_the_part_has_room", most_of_all + fewer, wanted, most_of_all + fewer, beyond=room)
    fits("where_the_part_is_full", most_of_all + fewer + operators, wanted, fewer + operators, beyond=full,
         whole=(tree_of(OTHER_JTI),))  # fmt: skip
    large = [changed(one, why="x" * 5000) for one in operators]
    fits("beside_much_that_the_operator_said", large + fewer, wanted, large + fewer, beyond=room)
    for_ever = of(OTHER_JTI, 1, until=None, mark="x1")
    fits("where_the_part_is_full_of_the_longest", most_of_all[:3] + for_ever + fewer, wanted, fewer, beyond=full,
         whole=(tree_of(OTHER_JTI, None),))  # fmt: skip
    as_many = of(third_tree, 4)
    fits("where_two_trees_have_most", as_many + most_of_all, wanted, as_many, beyond=full, whole=(tree_of(OTHER_JTI),))
    small, big = of(OTHER_JTI, 4, why=1), of(third_tree, 3, why=2000)
    fits("where_one_tree_is_not_enough", small + big, wanted, [], beyond=-3000, whole=(tree_of(OTHER_JTI), tree_of(third_tree)))
    own_tree = many(4, by(first))
    fits("where_its_own_tree_has_most", own_tree + fewer, tree_of(JTI), fewer, beyond=full, most=100)
    fits("where_its_own_tree_has_most_with_the_new_one", many(3, by(first)) + fewer, tree_of(JTI), fewer, beyond=full, most=100)
    fits("where_the_bound_of_a_hand_over_makes_room", five + fewer, lowest, fewer, beyond=full)
    over_already = [changed(said("o", None, [], NOW + 60 + day, token=OTHER_JTI), why="x")]
    fits("where_a_tree_has_given_way_before", over_already + of(third_tree, 1, why=2000), wanted, over_already, beyond=full,
         whole=(tree_of(third_tree),))  # fmt: skip
    fits("beside_a_tree_that_has_given_way_before", over_already, wanted, over_already, beyond=room)
    row("where_the_part_is_full_and_nothing_gives_way", "37.11", request, standing=over_already, most=5, part=1)


# --- the ledger ------------------------------------------------------------------------------------------------------

HERE_ALONE: dict[str, Json] = {**SALES, "aud": ["sales-db"]}


def uses(most: int, number: int = 0, **link: Json) -> dict[str, Json]:
    return {**link, "n": nonce(number), "uses": most}


def budget(number: int = 0, **units: int) -> dict[str, Json]:
    return {"budget": units, "n": nonce(number)}


def costing(**units: Json) -> dict[str, Json]:
    return {**SELECT, "cost": units}


def counted(*spent: Json, floor: int = 0, shared: bool = False) -> dict[str, Json]:
    """The ledger as it is when the request comes."""
    return {"ledger": {"floor": floor, "shared": shared, "spent": list(spent)}}


def debit(parts: Parts, at: int, unit: str, limit: int, amount: int = 1) -> dict[str, Json]:
    """What an access takes from a bucket of a link."""
    return {"bucket": link_id(parts.tags[at + 1]), "unit": unit, "limit": limit, "amount": amount}


def spent(parts: Parts, at: int, unit: str, amount: int) -> dict[str, Json]:
    return {"bucket": link_id(parts.tags[at + 1]), "unit": unit, "amount": amount}


def allowances() -> Table:
    table = Table("allowances", "Links that count: how they are spelled, and accesses that do not state what they cost.")

    def allow(name: str, rule: str, parts: Parts, access: Json = SELECT, *debits: Json) -> None:
        table.allow(name, rule, parts, access, presented=counted(), outcome={"debits": list(debits)}, audiences=HERE)

    def deny(name: str, rule: str, code: str, parts: Parts, access: Json = SELECT, **known: Json) -> None:
        table.deny(name, rule, code, parts, access, presented=counted(), audiences=HERE, **known)

    base = token(HERE_ALONE)
    one = extended(base, uses(1))
    allow("uses", "15.9", one, SELECT, debit(one, 1, "uses", 1))
    allow("uses_beside_a_cost", "38.2", one, costing(cents=0), debit(one, 1, "uses", 1))
    first = token(uses(1, **HERE_ALONE))
    allow("uses_in_link_0", "15.9", first, SELECT, debit(first, 0, "uses", 1))
    most = extended(base, uses(2**53 - 1))
    allow("uses_of_many", "15.9", most, SELECT, debit(most, 1, "uses", 2**53 - 1))
    deny("uses_none", "38.3", "budget_exhausted", extended(base, uses(0)))
    forms: dict[str, Json] = {
        "negative": -1, "text": "1", "true": True, "list": [1], "object": {"uses": 1}, "false": False,
    }  # fmt: skip
    for name, value in forms.items():
        deny(f"uses_{name}_is_unreadable", "15.9", "unreadable_link", extended(base, {"n": nonce(), "uses": value}))
    for name, body in {"fraction": b'{"n":"AAAAAAAAAAA","uses":1.5}',
        "too_large": b'{"n":"AAAAAAAAAAA","uses":9007199254740992}',
                       "null": b'{"n":"AAAAAAAAAAA","uses":null}'}.items():  # fmt: skip
        deny(f"uses_{name}_is_unreadable", "2.1", "unreadable_link", extended(base, body))
    spends = extended(base, budget(cents=5))
    allow("budget", "38.2", spends, costing(cents=5), debit(spends, 1, "cents", 5, 5))
    allow("budget_that_costs_nothing", "38.2", spends, costing(cents=0), debit(spends, 1, "cents", 5, 0))
    allow("budget_beside_other_costs", "38.2", spends, costing(cents=5, tokens=700), debit(spends, 1, "cents", 5, 5))
    two = extended(base, budget(cents=5, tokens=900))
    allow(
        "budget_of_two_units",
        "38.1",
        two,
        costing(cents=5, tokens=900),
        debit(two, 1, "cents", 5, 5),
        debit(two, 1, "tokens", 900, 900),
    )
    free = extended(base, budget(cents=0))
    allow("budget_of_nothing", "38.2", free, costing(cents=0), debit(free, 1, "cents", 0, 0))
    allow("uses_beside_budget", "38.1", (both := extended(base, {**budget(cents=5), **uses(1)})), costing(cents=5),
          debit(both, 1, "cents", 5, 5), debit(both, 1, "uses", 1))  # fmt: skip
    for name, value in {
        "empty": {}, "list": ["cents"], "number": 5, "text": "5", "true": True, "of_uses": {"uses": 5},
        "of_uses_and_another": {"cents": 5, "uses": 5}, "negative": {"cents": -1}, "as_text": {"cents": "5"},
        "of_true": {"cents": True}, "of_a_list": {"cents": [5]}, "unit_empty": {"": 5}, "unit_with_space": {"us cents": 5},
        "unit_star": {"*": 5}, "unit_not_ascii": {"\u00a2": 5},
    }.items():  # fmt: skip
        deny(f"budget_{name}_is_unreadable", "15.9", "unreadable_link", extended(base, {"budget": value, "n": nonce()}))
    table.beside("uses")
    for key, value in {"uses": 1, "budget": {"cents": 1}}.items():
        deny(f"{key}_without_n", "17.6", "unreadable_link", extended(base, {key: value}), costing(cents=0))
        for name, n in {"cut": "A" * 10, "long": "A" * 12, "number": 1, "empty": "", "plus": "A" * 10 + "+"}.items():
            deny(f"{key}_with_n_{name}", "17.6", "unreadable_link", extended(base, {key: value, "n": n}), costing(cents=0))
    deny("n_alone", "17.6", "unreadable_link", extended(base, {"n": nonce()}))
    deny("n_beside_fresh", "17.6", "unreadable_link", extended(base, {"fresh": 60, "n": nonce()}))
    passed = extended(base, {**hand_over("sales-agent"), "uses": 1})
    allow("uses_in_a_hand_over", "17.6", passed, SELECT, debit(passed, 1, "uses", 1))
    for key in ("from", "to"):
        half = {name: value for name, value in hand_over("sales-agent").items() if name != key}
        deny(f"uses_in_a_hand_over_without_{key}", "17.6", "unreadable_link", extended(base, {**half, "uses": 1}))
    allow(
        "n_with_trailing_bits",
        "17.6",
        (odd := extended(base, {"n": "AAAAAAAAAAB", "uses": 1})),
        SELECT,
        debit(odd, 1, "uses", 1),
    )

    # How much may count in one token.
    eight = base
    for number in range(8):
        eight = extended(eight, uses(9, number))
    allow("eight_links_that_count", "38.13", eight, SELECT, *[debit(eight, at, "uses", 9) for at in range(1, 9)])
    table.beside("eight_links_that_count")
    deny("nine_links_that_count", "38.13", "unreadable_link", extended(eight, uses(9, 8)))
    deny("nine_links_that_count_without_an_access", "38.13", "unreadable_link", extended(eight, uses(9, 8)), None)
    deny("nine_links_that_count_and_an_unknown_one", "38.13", "unreadable_link", extended(eight, uses(9, 8), {"colour": 1}))
    deny("an_unknown_link_and_nine_that_count", "38.13", "unknown_caveat", extended(eight, {"colour": 1}, uses(9, 8)))
    units = {f"u{number:02}": 5 for number in range(16)}
    sixteen = extended(base, budget(**units))
    allow("sixteen_buckets", "38.13", sixteen, costing(**units), *[debit(sixteen, 1, unit, 5, 5) for unit in sorted(units)])
    table.beside("sixteen_buckets")
    deny("seventeen_buckets", "38.13", "unreadable_link", extended(base, budget(**units, u16=5)), costing(**units, u16=5))
    deny("seventeen_buckets_in_two_links", "38.13", "unreadable_link", extended(sixteen, uses(5, 1)), costing(**units))

    # What an access has to state.
    allow("cost_stated", "38.2", spends, costing(cents=1), debit(spends, 1, "cents", 5, 1))
    for name, access in {"nothing": SELECT, "an_empty_object": costing(), "another_unit": costing(tokens=1),
                         "the_unit_in_capitals": costing(Cents=1)}.items():  # fmt: skip
        deny(f"cost_of_{name}", "38.2", "cost_unstated", spends, access)
    deny("cost_of_one_of_two", "38.2", "cost_unstated", two, costing(cents=1))
    deny("cost_of_the_unit_of_a_link_before", "38.2", "cost_unstated", extended(spends, budget(1, tokens=1)), costing(cents=1))
    deny(
        "cost_unstated_beside_another_table",
        "17.7",
        "cost_unstated",
        token({**HERE_ALONE, **budget(cents=1)}),
        {**SELECT, "table": "hr"},
    )
    for unit in ("constructor", "__proto__"):
        odd = extended(base, budget(**{unit: 5}))
        allow(f"cost_in_{unit}", "43.10", odd, costing(**{unit: 1}), debit(odd, 1, unit, 5, 1))
        deny(f"cost_in_{unit}_unstated", "43.10", "cost_unstated", odd, costing())
    allow("cost_where_nothing_counts", "38.2", base, costing(cents=1))
    allow("without_an_access", "24.8", both, None)
    for name, cost in {
        "negative": {"cents": -1}, "as_text": {"cents": "1"}, "of_true": {"cents": True}, "of_a_fraction": {"cents": 0.5},
        "too_large": {"cents": 2**53}, "of_no_name": {"us cents": 1}, "of_a_list": ["cents"], "of_an_empty_unit": {"": 1},
    }.items():  # fmt: skip
        deny(f"cost_{name}", "7.9", "usage", spends, {**SELECT, "cost": cost})
    return table


def ledger() -> Table:
    table = Table(
        "ledger", "What is left: buckets of every link of the chain, what was spent before, and when nobody can tell."
    )

    def allow(name: str, rule: str, parts: Parts, access: Json, given: Json, *debits: Json, **known: Json) -> None:
        table.allow(
            name, rule, parts, access, presented=given, outcome={"debits": list(debits)}, **{"audiences": HERE, **known}
        )

    def deny(name: str, rule: str, code: str, parts: Parts, access: Json = SELECT, given: Json = None, **known: Json) -> None:
        table.deny(name, rule, code, parts, access, presented=given or counted(), **{"audiences": HERE, **known})

    three = token(uses(3, **HERE_ALONE))
    taken = debit(three, 0, "uses", 3)
    for used in (0, 2):
        allow(f"{used}_of_3_used", "38.3", three, SELECT, counted(spent(three, 0, "uses", used)) if used else counted(), taken)
    for used in (3, 2**53 - 1):
        deny(f"{used}_of_3_used", "38.3", "budget_exhausted", three, SELECT, counted(spent(three, 0, "uses", used)))
    deny(
        "used_by_two",
        "38.3",
        "budget_exhausted",
        three,
        SELECT,
        counted(spent(three, 0, "uses", 1), spent(three, 0, "uses", 2)),
    )
    allow("without_an_access_where_all_is_used", "38.5", three, None, counted(spent(three, 0, "uses", 3)))
    other = token(uses(3, 1, **HERE_ALONE))
    allow("another_with_another_n", "38.4", other, SELECT, counted(spent(three, 0, "uses", 3)), debit(other, 0, "uses", 3))
    allow("the_token_id_is_no_bucket", "38.1", three, SELECT, counted({"bucket": JTI, "unit": "uses", "amount": 3}), taken)
    allow("the_state_before_is_no_bucket", "38.1", three, SELECT,
          counted({"bucket": link_id(three.tags[0]), "unit": "uses", "amount": 3}), taken)  # fmt: skip
    allow("another_unit_is_another_bucket", "38.1", three, SELECT, counted(spent(three, 0, "cents", 3)), taken)

    money = token({**HERE_ALONE, **budget(cents=10)})
    for cost, used in ((10, 0), (1, 9), (0, 10)):
        allow(f"{cost}_of_10_where_{used}_are_spent", "38.3", money, costing(cents=cost),
              counted(spent(money, 0, "cents", used)) if used else counted(), debit(money, 0, "cents", 10, cost))  # fmt: skip
    for cost, used in ((11, 0), (1, 10), (2**53 - 1, 10)):
        deny(f"{cost}_of_10_where_{used}_are_spent", "38.3", "budget_exhausted", money, costing(cents=cost),
             counted(spent(money, 0, "cents", used)) if used else counted())  # fmt: skip
    two = token({**HERE_ALONE, **budget(cents=10, tokens=10)})
    allow(
        "two_units",
        "38.3",
        two,
        costing(cents=1, tokens=1),
        counted(),
        debit(two, 0, "cents", 10, 1),
        debit(two, 0, "tokens", 10, 1),
    )
    deny("the_second_of_two_units", "38.3", "budget_exhausted", two, costing(cents=1, tokens=11))
    deny("the_first_of_two_units", "38.3", "budget_exhausted", two, costing(cents=11, tokens=1))

    # Children share.
    child = extended(three, {**hand_over("sales-agent"), "uses": 2})
    sibling = extended(three, {**hand_over("report-agent", number=1), "uses": 3})
    allow("by_a_child", "38.3", child, SELECT, counted(), taken, debit(child, 1, "uses", 2))
    deny(
        "of_a_child_that_used_its_own",
        "38.3",
        "budget_exhausted",
        child,
        SELECT,
        counted(spent(three, 0, "uses", 2), spent(child, 1, "uses", 2)),
    )
    allow("by_a_sibling_of_a_child_that_used_its_own", "38.3", sibling, SELECT,
          counted(spent(three, 0, "uses", 2), spent(child, 1, "uses", 2)), taken, debit(sibling, 1, "uses", 3))  # fmt: skip
    allow("by_its_parent_where_a_child_used_its_own", "26.10", three, SELECT,
          counted(spent(three, 0, "uses", 2), spent(child, 1, "uses", 2)), taken)  # fmt: skip
    deny("of_a_child_whose_siblings_used_all", "38.3", "budget_exhausted", child, SELECT, counted(spent(three, 0, "uses", 3)))
    more = extended(three, uses(100, 5))
    allow(
        "by_a_link_that_promises_more",
        "38.3",
        more,
        SELECT,
        counted(spent(three, 0, "uses", 2)),
        taken,
        debit(more, 1, "uses", 100),
    )
    deny("of_a_link_that_promises_more", "38.3", "budget_exhausted", more, SELECT, counted(spent(three, 0, "uses", 3)))
    again = extended(three, uses(3), uses(3))
    allow("by_equal_links", "38.4", again, SELECT, counted(), taken, debit(again, 1, "uses", 3), debit(again, 2, "uses", 3))
    mixed = extended(three, {**hand_over("sales-agent"), "budget": {"cents": 5}})
    allow("uses_above_and_budget_below", "38.3", mixed, costing(cents=5), counted(), taken, debit(mixed, 1, "cents", 5, 5))
    deny(
        "budget_below_and_uses_gone_above",
        "38.3",
        "budget_exhausted",
        mixed,
        costing(cents=5),
        counted(spent(three, 0, "uses", 3)),
    )
    deny(
        "budget_gone_below_and_uses_left_above",
        "38.3",
        "budget_exhausted",
        mixed,
        costing(cents=5),
        counted(spent(mixed, 1, "cents", 1)),
    )
    narrowed = extended(three, {"tables": ["sales"]}, {"nbf": NOW})
    allow("by_what_was_narrowed", "38.3", narrowed, SELECT, counted(), taken)
    deny("of_what_was_narrowed", "38.3", "budget_exhausted", narrowed, SELECT, counted(spent(three, 0, "uses", 3)))

    # One step after all others.
    table.beside("0_of_3_used")
    gone = counted(spent(three, 0, "uses", 3))
    deny("used_up_and_another_table", "38.5", "table", three, {**SELECT, "table": "hr"}, gone)
    deny("used_up_and_another_caller", "38.5", "caller", three, SELECT, gone, caller={"agent": "mail-agent"})
    deny("used_up_and_expired", "38.5", "expired", token(uses(3, **HERE_ALONE, exp=NOW)), SELECT, gone)
    key = b64(signing_public("orchestrator"))
    bound = token(uses(3, **HERE_ALONE, key=key))
    made = proof(bound, "orchestrator", of_access(SELECT))
    table.allow("of_a_bound_token", "24.16", bound, presented={**shown(made), **counted()}, audiences=HERE,
                outcome={**outcome(bound, "orchestrator"), "debits": [debit(bound, 0, "uses", 3)]})  # fmt: skip
    table.deny(
        "of_a_bound_token_without_proof",
        "24.16",
        "proof_missing",
        bound,
        presented={**shown(None), **counted()},
        audiences=HERE,
    )
    table.deny("used_up_of_a_bound_token", "24.16", "budget_exhausted", bound,
               presented={**shown(made), **counted(spent(bound, 0, "uses", 3))}, audiences=HERE)  # fmt: skip
    used = outcome(bound, "orchestrator")["uses"]
    table.deny("used_up_with_a_proof_that_was_used", "24.16", "replayed", bound, audiences=HERE,
               presented={**shown(made, None, {"floor": 0, "limit": 1000, "used": used}),
                   **counted(spent(bound, 0, "uses", 3))})  # fmt: skip
    priced = {**SELECT, "cost": {"cents": 5}}
    allow("of_a_proof_that_says_nothing_of_the_cost", "29.4", three, priced, counted(), taken)

    # What costs more than a whole limit is told before the ledger is asked, at the first such link.
    both = token(uses(1, **HERE_ALONE), budget(1, cents=4))
    table.allow("of_all_that_is_left", "38.3", both, costing(cents=4), presented=counted(), audiences=HERE,
                outcome={"debits": [debit(both, 0, "uses", 1), debit(both, 1, "cents", 4, 4)]})  # fmt: skip
    deny("more_than_a_whole_limit", "38.3", "budget_exhausted", both, costing(cents=5), counted())
    deny("more_than_a_whole_limit_and_used_up_above", "38.3", "budget_exhausted", both, costing(cents=5), counted(spent(both, 0, "uses", 1)))
    deny("more_than_a_whole_limit_before_the_floor", "38.3", "budget_exhausted", both, costing(cents=5), counted(floor=NOW))

    # When nobody can tell.
    table.beside("0_of_3_used")
    unreached = counted()["ledger"] | {"down": True}
    deny("that_cannot_be_reached", "38.7", "store_unavailable", three, SELECT, {"ledger": unreached})
    deny("more_than_a_whole_limit_at_one_that_cannot_be_reached", "38.3", "budget_exhausted", both, costing(cents=5), {"ledger": unreached})
    table.deny("without_a_ledger", "38.7", "store_unavailable", three, audiences=HERE)
    for name, floor in {"at": NOW, "before": NOW + 1, "long_before": NOW + 3600}.items():
        deny(f"issued_{name}_the_floor", "38.9", "store_unavailable", three, SELECT, counted(floor=floor))
    allow("issued_after_the_floor", "38.9", three, SELECT, counted(floor=NOW - 1), taken)
    allow("issued_before_the_floor_without_an_access", "38.9", three, None, counted(floor=NOW))
    plain = token(HERE_ALONE)
    allow("what_counts_nothing_before_the_floor", "38.9", plain, SELECT, counted(floor=NOW))
    table.allow("what_counts_nothing_without_a_ledger", "38.7", plain, audiences=HERE)

    _one_place(table, allow, deny)
    return table


def _one_place(table: Table, allow: Any, deny: Any) -> None:
    """Where there is one place to count, and where there is none."""
    everywhere = token(uses(3, **SALES))
    table.beside("0_of_3_used")
    shared = counted(shared=True)
    allow("for_all_servers_that_share_it", "38.6", addressed(everywhere), SELECT, shared, debit(everywhere, 0, "uses", 3))
    deny("for_all_servers", "38.6", "unaddressed", addressed(everywhere))
    allow("for_all_servers_that_share_it_and_taken_unaddressed", "38.6", everywhere, SELECT, shared, debit(everywhere, 0, "uses", 3),
          allow_unaddressed=True)  # fmt: skip
    allow("for_all_servers_that_share_it_without_an_access", "38.6", addressed(everywhere), None, shared)
    deny("for_all_servers_and_taken_unaddressed", "38.6", "unaddressed", everywhere, allow_unaddressed=True)
    deny("for_all_servers_without_an_access", "38.6", "unaddressed", addressed(everywhere), None)
    several = token(uses(3, **{**SALES, "aud": ["hr-db", "sales-db"]}))
    allow("for_two_servers_that_share_it", "38.6", several, SELECT, shared, debit(several, 0, "uses", 3))
    deny("for_two_servers", "38.6", "unaddressed", several)
    again = extended(several, uses(3, 1, aud=["sales-db"]))
    allow("for_two_servers_that_share_it_presented_to_one", "38.6", addressed(several), SELECT, shared, debit(several, 0, "uses", 3))
    allow("for_two_servers_that_share_it_and_count_again", "38.6", again, SELECT, shared, debit(again, 0, "uses", 3),
          debit(again, 1, "uses", 3))  # fmt: skip
    deny("for_two_servers_presented_to_one", "38.6", "unaddressed", addressed(several))
    deny(
        "for_two_servers_presented_to_one_that_counts_again",
        "38.6",
        "unaddressed",
        extended(several, uses(3, 1, aud=["sales-db"])),
    )
    above = extended(token({**SALES, "aud": ["hr-db", "sales-db"]}), {"aud": ["sales-db"]}, uses(3))
    allow("for_one_of_two_from_above", "38.6", above, SELECT, counted(), debit(above, 2, "uses", 3))
    met = extended(token({**SALES, "aud": ["hr-db", "sales-db"]}), uses(3, aud=["mail-api", "sales-db"]))
    allow("for_the_one_that_two_leave", "38.6", met, SELECT, counted(), debit(met, 1, "uses", 3))
    below = asking(several, "one")
    table.allow("for_two_servers_that_share_it_with_a_discharge", "38.6", below, presented=shared, audiences=HERE,
                outcome={"debits": [debit(below, 0, "uses", 3)]}, discharges=(discharge("one", {**HOUR, "aud": ["sales-db"]}),))  # fmt: skip
    table.deny("for_two_servers_with_a_discharge_for_one", "38.6", "unaddressed", presented=counted(), audiences=HERE,
               token=bundle(below, discharge("one", {**HOUR, "aud": ["sales-db"]})))  # fmt: skip
    minted = token(uses(3, **SALES), aud="sales-db", key=audience_key(KEY, "sales-db"))
    allow("for_the_audience_of_the_root", "38.6", minted, SELECT, counted(), debit(minted, 0, "uses", 3))


def counting() -> Table:
    """One request after another at one ledger: the codes that come, and whether a reservation could still be closed."""
    table = Table("counting", "Requests at one ledger, in their order: what is taken, what goes back, and what is remembered.")

    def row(name: str, rule: str, steps: list[Step], codes: str, **more: Json) -> None:
        words = {
            "+": "allowed", "-": "budget_exhausted", "c": "closed", "l": "too_late", "t": "table", "o": "operation",
            "u": "store_unavailable", "e": "expired", "s": "usage",
        }  # fmt: skip
        given: dict[str, Json] = {
            "keyring": keyring({"k1": KEY}), "audience": "sales-db", "ledger": {"floor": 0, "shared": False, **more}, "steps": steps,
        }  # fmt: skip
        table.add(name, rule, "counting", given, codes=[words[code] for code in codes])

    def asks(parts: Parts | str, now: int = NOW, access: Json = SELECT, **closing: Json) -> Step:
        return {"token": parts if isinstance(parts, str) else parts.text, "access": access, "now": now, **closing}

    three = token(uses(3, **HERE_ALONE))
    row("three_of_three", "38.3", [asks(three)] * 4, "+++-")
    one, two = (extended(three, uses(2, number, to=name, **{"from": "orchestrator"})) for number, name in ((1, "x"), (2, "y")))
    row("two_children", "38.3", [asks(one), asks(two), asks(one), asks(two), asks(three)], "+++--")
    row("a_child_that_used_its_own", "38.3", [asks(one), asks(one), asks(one), asks(two), asks(two)], "++-+-")
    row("two_children_of_equal_links", "38.4", [asks(extended(three, {"nbf": NOW}))] * 2 + [asks(three)] * 2, "+++-")
    money = token({**HERE_ALONE, **budget(cents=10, tokens=10)})

    def pays(cents: int, tokens: int = 0, **closing: Json) -> Step:
        return asks(money, access=costing(cents=cents, tokens=tokens), **closing)

    row("amounts", "38.3", [pays(4), pays(4), pays(4), pays(2), pays(1), pays(0)], "++-+-+")
    row("nothing_is_taken_where_one_is_short", "38.3", [pays(4, 11), pays(11, 4), pays(10, 10)], "--+")
    other = {**SELECT, "table": "hr"}
    row("nothing_is_taken_where_it_is_denied", "38.5", [asks(three, access=other)] * 3 + [asks(three)] * 4, "ttt+++-")
    row("another_token_of_the_tree", "38.1", [asks(token(uses(1, **HERE_ALONE))), asks(token(uses(1, 1, **HERE_ALONE)))], "++")

    free = token(HERE_ALONE)
    row("of_what_counts_nothing", "38.8", [asks(free, settle=None), asks(free, cancel=True)], "+c+c")
    once = secret("a reservation", 16).hex()
    row("twice_under_one_id", "38.8", [asks(three, id=once), asks(three, id=once), asks(three), asks(three), asks(three)], "++++-")
    row("under_one_id_and_another", "38.8", [asks(three, id=once), asks(three, id="00" * 16), asks(three), asks(three)], "+++-")

    # What goes back.
    row("settled_for_less", "38.8", [pays(10, settle={"cents": 4, "tokens": 0}), pays(6), pays(1)], "+c+-")
    row("settled_in_full", "38.8", [pays(10, settle=None), pays(1)], "+c-")
    row("settled_for_more", "38.8", [pays(5, settle={"cents": 99, "tokens": 99}), pays(5, 10), pays(1)], "+c+-")
    for name, amounts in {"that_leave_a_unit_out": {"cents": 1}, "below_zero": {"cents": -1, "tokens": 0}, "that_are_a_text": {
        "cents": "1", "tokens": 0}, "that_are_true": {"cents": True, "tokens": 0}}.items():  # fmt: skip
        row(f"settled_by_amounts_{name}", "38.8", [pays(10, settle=amounts), pays(1)], "+s-")
    row("settled_twice", "38.8", [pays(10, settle={"cents": 4, "tokens": 0}, again={"settle": {"cents": 0, "tokens": 0}}), pays(6), pays(1)], "+cl+-")
    row("settled_by_no_amounts_and_then_cancelled", "38.8", [pays(10, settle={"cents": 1}, again={"cancel": True}), pays(1)], "+sl-")
    row("settled_and_then_cancelled", "38.8", [pays(10, settle=None, again={"cancel": True}), pays(1)], "+cl-")
    row("cancelled_and_then_settled", "38.8", [pays(10, cancel=True, again={"settle": None}), pays(10)], "+cl+")
    row("cancelled_twice", "38.8", [pays(5, cancel=True, again={"cancel": True}), pays(10), pays(1)], "+cl+-")
    row("cancelled", "38.8", [pays(10, 10, cancel=True), pays(10, 10), pays(1)], "+c+-")
    row("a_use_that_was_cancelled", "38.8", [asks(three, cancel=True), *[asks(three)] * 4], "+c+++-")
    row("a_use_that_was_settled", "38.8", [asks(three, settle=None), *[asks(three)] * 3], "+c++-")
    row("cancelled_by_a_child", "38.8", [asks(one, cancel=True), *[asks(three)] * 4], "+c+++-")
    for seconds, codes in ((59, "+c+"), (60, "+l-")):
        row(f"cancelled_after_{seconds}_seconds", "38.8", [pays(10, cancel=True, closed_at=NOW + seconds), pays(10)], codes)

    # What is remembered.
    hour, day, year = 3600, 86400, 366 * 86400
    long = token(uses(1, **HERE_ALONE, exp=NOW + day))
    brief = extended(long, {"exp": NOW + 60})
    later = extended(long, {"exp": NOW + 2 * hour + 60})
    row("a_presentation_that_ends", "38.10", [asks(brief), asks(later, NOW + 2 * hour)], "+-")
    row("a_presentation_that_ends_and_the_token_itself", "38.10", [asks(brief), asks(long, NOW + day - 1)], "+-")
    below = extended(token(uses(1, **HERE_ALONE)), {"exp": NOW + 60}, uses(1, 1))
    row("a_link_below_that_ends", "38.10", [asks(below), asks(token(uses(1, **HERE_ALONE)), NOW + 2 * hour)], "+-")
    ever = token(uses(1, **HERE_ALONE))
    row("a_token_without_end", "38.10", [asks(ever), asks(ever, NOW + 10 * year)], "+-")
    asked = asking(ever, "one")
    answers = [bundle(asked, discharge("one", {"exp": NOW + seconds})) for seconds in (60, 2 * hour + 60)]
    row("a_discharge_that_ends", "38.10", [asks(answers[0]), asks(answers[1], NOW + 2 * hour)], "+-")
    row("a_clock_that_is_set_back", "38.10", [asks(long), asks(ever, NOW + day + hour - 1), asks(long)], "++-")
    jump, times = asks(ever, NOW + day + hour), (NOW, NOW + 60, NOW + day - 1)
    row("a_clock_that_was_far_ahead", "38.10", [asks(long), jump, *[asks(long, now) for now in times]], "++uuu")
    row(
        "a_clock_that_was_far_ahead_until_the_end",
        "38.10",
        [asks(long), jump, asks(ever, NOW + day - 1), asks(ever, NOW + day)],
        "++u-",
    )
    row("a_clock_that_was_far_ahead_and_forgot_nothing", "38.10", [jump, asks(long), asks(long)], "++-")

    # By verifiers of one ledger whose leeways differ.
    wide = 2 * hour
    end = NOW + day  # of the token: a bucket is kept until then, and the leeway, and an hour more
    last = end + wide - 1
    row("a_leeway_by_which_it_lives", "38.10", [asks(long, leeway=wide), asks(long, last, leeway=wide)], "+-")
    row("a_leeway_by_which_it_lives_no_more", "38.10", [asks(long, leeway=wide), asks(long, last + 1, leeway=wide)], "+e")
    row("a_leeway_that_only_another_has", "38.10", [asks(long), asks(long, last, leeway=wide)], "+u")
    row("a_leeway_that_only_another_has_while_it_is_kept", "38.10", [asks(long), asks(long, end + hour - 1, leeway=wide)], "+-")
    row("a_leeway_that_only_another_has_from_then_on", "38.10", [asks(long), asks(long, end + hour, leeway=wide)], "+u")
    inner = extended(token({**HERE_ALONE, "exp": end}), uses(1))
    row("a_leeway_and_an_end_above_the_link_that_counts", "38.10", [asks(inner, leeway=wide), asks(inner, last, leeway=wide)], "+-")
    row("a_leeway_and_no_end_above_the_link_that_counts", "38.10", [asks(ever, leeway=wide), asks(ever, NOW + 10 * year, leeway=wide)], "+-")
    twice = token(uses(2, **HERE_ALONE, exp=end))
    late = [asks(twice, last, leeway=wide)] * 2
    row("a_leeway_of_the_first_of_two", "38.10", [asks(twice, leeway=wide), asks(twice), *late], "++--")
    row("a_leeway_of_the_second_of_two", "38.10", [asks(twice), asks(twice, leeway=wide), *late], "++--")
    row("a_leeway_of_more_than_an_hour", "38.10", [asks(long), asks(ever, end + hour, leeway=hour + 1)], "+u")
    row("a_leeway_of_an_hour", "38.10", [asks(long), asks(ever, end + hour, leeway=hour)], "++")
    behind = [asks(ever, end + 60, leeway=leeway) for leeway in (61, 60)]
    row("a_leeway_and_a_clock_that_is_behind", "38.10", [asks(long), jump, *behind], "++u-")

    # How much of one tree is kept.
    def kept(count: int, tree: str = JTI, until: Json = None) -> dict[str, Json]:
        return {"kept": [{"tree": tree, "buckets": count, "until": until}]}

    first, second, third = (token(uses(2, number, **HERE_ALONE)) for number in range(3))
    row("a_tree_of_10000_buckets", "38.14", [asks(first), asks(second), asks(first), asks(first)], "+-+-", **kept(9999))
    row("a_tree_of_10001_buckets", "38.14", [asks(first)], "-", **kept(10000))
    row("a_tree_of_10000_buckets_beside_another", "38.14", [asks(first), asks(second)], "++", **kept(10000, OTHER_JTI))
    both = extended(first, uses(2, 9))
    row("a_tree_of_10000_buckets_where_two_are_new", "38.14", [asks(both), asks(first), asks(both)], "-+-", **kept(9999))
    one_is_new = [asks(first), asks(both), asks(first), asks(first)]
    row("a_tree_of_10000_buckets_where_one_of_two_is_new", "38.14", one_is_new, "+-+-", **kept(9999))
    row("a_tree_of_10000_buckets_of_a_child", "38.14", [asks(both), asks(first), asks(both), asks(second)], "++--", **kept(9998))
    units = token({**HERE_ALONE, **budget(cents=1, tokens=1)})
    paid = asks(units, access=costing(cents=1, tokens=1))
    row("a_tree_of_10000_buckets_by_units", "38.14", [paid, asks(first)], "-+", **kept(9999))
    refused = asks(extended(first, uses(0, 9)))  # and makes no bucket, neither of its own nor of those above
    row("a_tree_of_10000_buckets_and_one_that_was_refused", "38.14", [refused, *map(asks, (second, third, first))], "-++-", **kept(9998))
    ends = kept(10000, until=NOW + 60)
    for seconds, codes in ((59, "--"), (60, "-+")):
        row(f"a_tree_of_10001_buckets_after_{seconds}_seconds", "38.14", [asks(first), asks(first, NOW + seconds)], codes, **ends)
    return table


# --- the audit trail -------------------------------------------------------------------------------------------------


def audit() -> Table:
    table = Table("audit", "Trails: whole ones, and ones that were changed, cut, torn, moved or rolled back.")
    decisions = [
        {"kind": "decision", "at": NOW + n, "allowed": n != 1, "code": "table" if n == 1 else "allowed"} for n in range(6)
    ]
    first = {"kind": "token", "root": {"agent": "orchestrator"}, "links": []}
    lines = trail(first, decisions[0], decisions[1], decisions[2], checkpoint, decisions[3], decisions[4])

    def row(
        name: str,
        rule: str,
        given: list[bytes] | bytes,
        expect: Json = None,
        servers: Json = None,
        known: Json = (),
        after: Json = None,
    ) -> None:
        content = given if isinstance(given, bytes) else b"".join(line + b"\n" for line in given)
        stated = {"trail": content.decode("latin-1"), "servers": [SERVER] if servers is None else servers, "known": list(known)}
        if after is not None:
            stated["after"] = after
        table.add(name, rule, "trail", stated, **(expect or {"code": "audit"}))

    def whole(given: list[bytes], signed: int, decided: int) -> dict[str, Json]:
        return {"code": "ok", "head": head(given, len(given)), "signed": signed, "decisions": decided}

    row("whole", "39.2", lines, whole(lines, 4, 5))
    example = _example_trail()
    row("of_the_example", "39.3", example, whole(example, 2, 1))
    row("empty", "39.2", [], whole([], 0, 0))
    row("of_one", "39.2", lines[:1], whole(lines[:1], 0, 0))
    row("whose_signatures_nobody_looks_at", "39.5", lines, whole(lines, 0, 5), servers=[])
    row("of_two_servers", "39.5", lines, whole(lines, 4, 5), servers=[b64(signing_public("another server")), SERVER])
    row("cut_behind_the_checkpoint", "39.8", lines[:5], whole(lines[:5], 4, 3))
    row("cut_before_the_checkpoint", "39.8", lines[:4], whole(lines[:4], 0, 3))
    row("that_goes_on", "39.5", lines, whole(lines, 4, 5), known=[head(lines, 3), head(lines, 7)])
    late = trail(first, checkpoint, decisions[0], checkpoint)
    row("with_two_checkpoints", "39.4", late, whole(late, 3, 1))
    for at, signed, decided in ((3, 4, 3), (5, 0, 2), (7, 0, 0)):
        verdict = {"code": "ok", "head": head(lines, 7), "signed": signed, "decisions": decided}
        row(f"that_goes_on_after_record_{at}", "39.5", lines[at:], verdict, after=head(lines, at))
    row("that_goes_on_after_what_was_seen", "39.5", lines[5:], {"code": "ok", "head": head(lines, 7), "signed": 0, "decisions": 2},
        after=head(lines, 5), known=[head(lines, 3), head(lines, 5), head(lines, 7)])  # fmt: skip

    begun = trail(lambda _: checkpoint(b"", message=label("audit") + bytes(32)), decisions[0])
    unknown = trail(first, {"kind": "note", "x": 1}, decisions[0])
    row("with_a_kind_that_nobody_knows", "39.3", unknown, whole(unknown, 0, 1))
    for name, record in {
        "without_a_kind": {"x": 1}, "with_a_kind_that_is_a_number": {"kind": 1}, "with_a_kind_that_is_a_list": {"kind": ["decision"]},
    }.items():  # fmt: skip
        row(f"record_{name}", "39.1", trail(first, record, decisions[0]))
    row("that_begins_with_a_checkpoint", "39.4", begun, {**whole(begun, 0, 1)})
    row("from_its_very_beginning", "39.5", lines, whole(lines, 4, 5), known=[head(lines, 0)])

    for at in (1, 7):
        row(f"of_which_record_{at}_was_seen", "39.5", lines, whole(lines, 4, 5), known=[head(lines, at)])
    row("that_goes_on_to_what_was_seen", "39.5", lines[5:], {"code": "ok", "head": head(lines, 7), "signed": 0, "decisions": 2},
        after=head(lines, 5), known=[head(lines, 7)])  # fmt: skip
    table.beside("that_goes_on_after_what_was_seen")
    row("that_goes_on_after_nothing", "39.5", lines[5:])
    row("that_goes_on_after_another_record", "39.5", lines[5:], after=head(lines, 4))
    row("that_goes_on_after_another_trail", "39.5", lines[5:], after={"seq": 5, "hash": b64(bytes(32))})
    row("that_goes_on_and_begins_anew", "39.5", lines, after=head(lines, 5))
    row("that_goes_on_after_one_that_was_not_seen", "39.5", lines[5:], after=head(lines, 5),
        known=[{"seq": 5, "hash": b64(bytes(32))}])  # fmt: skip
    row("that_goes_on_and_was_rolled_back", "39.5", lines[5:6], after=head(lines, 5), known=[head(lines, 7)])

    table.beside("whole")
    row("without_the_last_line_feed", "39.1", b"\n".join(lines))
    row("torn_in_the_last_line", "39.1", b"\n".join(lines)[:-20])
    for at, name in ((0, "the_first"), (3, "the_fourth"), (5, "the_last_but_one")):
        row(f"without_{name}_line", "39.5", lines[:at] + lines[at + 1 :])
        row(f"with_{name}_line_twice", "39.5", lines[: at + 1] + lines[at:])
        row(f"with_{name}_line_and_its_successor_exchanged", "39.5", [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]])
    edited = lines[2].replace(b'"allowed":false', b'"allowed":true').replace(b'"code":"table"', b'"code":"allowed"')
    assert edited != lines[2]
    row("with_a_decision_changed", "39.5", [*lines[:2], edited, *lines[3:]])
    row("with_a_decision_changed_and_its_successor", "39.5", [*lines[:2], edited, line_of(decisions[2], edited, 4), *lines[4:]])
    row("with_a_token_changed", "39.5", [lines[0].replace(b"orchestrator", b"orchestratox"), *lines[1:]])
    rewritten = trail(first, decisions[0], decisions[2], decisions[2])
    forged = [*rewritten, line_of(checkpoint(lines[3]), rewritten[3], 5)]
    row("rewritten_up_to_the_checkpoint", "39.4", forged)
    row("with_a_line_added_first", "39.5", [line_of(decisions[5], None, 1), *lines])
    row("with_a_line_added_last", "39.5", [*lines, line_of(decisions[5], lines[-1], 7)])
    row("with_a_line_added_last_on_another", "39.5", [*lines, line_of(decisions[5], lines[-2], 8)])
    row("whose_first_is_0", "39.2", [line_of(first, None, 0)])
    row("whose_first_is_2", "39.2", [line_of(first, None, 2)])
    row("whose_first_follows_on_something", "39.2", [line_of(first, b"x", 1)])
    row("whose_first_follows_on_nothing", "39.2", [line_of(first, b"", 1)])
    row("with_a_number_as_text", "39.2", [canonical({**first, "prev": b64(bytes(32)), "seq": "1"})])
    row("without_a_number", "39.2", [canonical({**first, "prev": b64(bytes(32))})])
    row("without_prev", "39.2", [canonical({**first, "seq": 1})])
    row("with_prev_in_hexadecimal", "39.2", [canonical({**first, "prev": "0" * 64, "seq": 1})])
    table.beside("of_one")
    line = lines[0]
    for name, content in {
        "with_a_space": line.replace(b":", b": ", 1) + b"\n", "with_carriage_return": line + b"\r\n",
        "with_an_empty_line": line + b"\n\n",
        "with_an_empty_line_first": b"\n" + line + b"\n", "cut_in_a_line": line[:-1] + b"\n", "that_is_a_list": b"[]\n",
        "that_is_no_json": b"cap1_\n", "that_is_not_text": b"\xff\n",
        "with_keys_unsorted": b'{"seq":1,"prev":"%s","kind":"token"}\n' % b64(bytes(32)).encode(),
        "with_null": line[:-1] + b',"x":null}\n',
    }.items():  # fmt: skip
        row(f"line_{name}", "39.1", content)

    # Checkpoints.
    row("of_two_servers_with_one_checkpoint", "39.5", (once := trail(first, *decisions[:3], checkpoint)), whole(once, 4, 3),
        servers=[b64(signing_public("another server")), SERVER])  # fmt: skip
    table.beside("of_two_servers")
    for name, key in {"another": b64(signing_public("another server")), "none": None, "a_list": [SERVER], "an_empty": ""}.items():
        named = trail(first, *decisions[:3], changed(checkpoint(lines[3]), key=key))
        row(f"checkpoint_that_names_{name}_key", "39.5", named, servers=[b64(signing_public("another server")), SERVER])
    table.beside("that_begins_with_a_checkpoint")
    row("that_begins_with_a_checkpoint_of_nothing", "39.4", trail(lambda _: checkpoint(b""), decisions[0]))
    table.beside("from_its_very_beginning")
    row("from_another_beginning", "39.5", lines, known=[{"seq": 0, "hash": b64(sha256(b""))}])
    table.beside("whole")
    row("checkpoint_of_another_server", "39.5", lines, servers=[b64(signing_public("another server"))])
    good = checkpoint(lines[3])
    hashed = sha256(lines[3])
    points: dict[str, Json] = {
        "that_says_another_key": {**checkpoint(lines[3], "another server"), "key": SERVER},
        "of_the_line_before": checkpoint(lines[2]),
        "by_another_server": checkpoint(lines[3], "another server"), "without_label": checkpoint(lines[3], message=hashed),
        "with_label_overlay": checkpoint(lines[3], message=label("overlay") + hashed),
        "of_the_line_unhashed": checkpoint(lines[3], message=label("audit") + lines[3]),
        "of_the_line_with_its_line_feed": checkpoint(lines[3], message=label("audit") + sha256(lines[3] + b"\n")),
        "of_nothing": checkpoint(lines[3], message=label("audit")), "of_zeros": {**good, "signature": b64(bytes(64))},
        "with_signature_cut": {**good, "signature": good["signature"][:-2]},
    }  # fmt: skip
    points |= {f"with_signature_{name}": {**good, "signature": b64(signature)} for name, signature
               in signatures("server", label("audit") + hashed).items() if name != "zero"}  # fmt: skip
    for name, stated in points.items():
        row(f"checkpoint_{name}", "39.4", trail(first, *decisions[:3], stated))

    _trees(row, whole, [first, *decisions])

    # Heads that somebody kept.
    table.beside("that_goes_on")
    row("rolled_back", "39.5", lines[:6], known=[head(lines, 7)])
    row("rolled_back_to_nothing", "39.5", [], known=[head(lines, 1)])
    row(
        "rolled_back_and_gone_on",
        "39.5",
        trail(first, *decisions[:3], checkpoint, decisions[3], decisions[5]),
        known=[head(lines, 7)],
    )
    row("another_from_the_start", "39.5", trail(decisions[0], first), known=[head(lines, 1)])
    row("one_of_two_heads_is_of_another", "39.5", lines, known=[head(lines, 3), {"seq": 5, "hash": b64(bytes(32))}])
    return table


def _trees(row: Callable[..., None], whole: Callable[..., dict[str, Json]], records: list[Json]) -> None:
    """Checkpoints with a tree: of any number of records, from any on; and ones that do not hold."""
    for count in (1, 2, 3, 4, 5, 6, 7):
        lines = trail(*records[:count])
        sealed = [*lines, line_of({**checkpoint(lines[-1]), "tree": tree(lines, 1)}, lines[-1], count + 1)]
        row(f"with_a_tree_of_{count}", "39.4", sealed, whole(sealed, count, count - 1))

    lines = trail(*records[:4])
    good = {**checkpoint(lines[3]), "tree": tree(lines, 1)}
    begun = [*lines, line_of(good, lines[3], 5)]
    begun.append(line_of(records[4], begun[-1], 6))
    twice = [*begun, line_of({**checkpoint(begun[-1]), "tree": tree(begun, 5)}, begun[-1], 7)]
    row("with_a_tree_that_begins_with_the_checkpoint_before", "39.4", twice, whole(twice, 6, 4))
    late = [*lines, line_of({**good, "tree": tree(lines, 3)}, lines[3], 5)]
    row("with_a_tree_of_the_last_records", "39.4", late, whole(late, 4, 3))
    verdict = {"code": "ok", "head": head(late, 5), "signed": 4, "decisions": 2}
    row("with_a_tree_that_goes_on", "39.5", late[2:], verdict, after=head(late, 2))
    row("with_a_tree_that_began_in_the_file_before", "39.5", begun[2:5], {**verdict, "head": head(begun, 5)}, after=head(begun, 2))
    row("with_a_tree_that_nobody_looks_at", "39.5", (other := [*lines, line_of({**good, "tree": 1}, lines[3], 5)]), whole(other, 0, 3),
        servers=[])  # fmt: skip

    own = tree(lines, 1)
    root = tree_hash(lines)

    def signed(first: int, count: int, over: bytes, message: bytes | None = None) -> dict[str, Json]:
        message = tree_message(first, count, over) if message is None else message
        return {"first": first, "root": b64(over), "signature": b64(sign("server", message))}

    wrong: dict[str, Json] = {
        "of_other_records": signed(1, 4, tree_hash(lines[::-1])), "of_the_records_before_the_last": tree(lines[:3], 1),
        "without_the_first_byte_of_leaves": signed(1, 4, _plain_tree(lines)),
        "with_the_last_leaf_twice": signed(1, 3, tree_hash([*lines[:3], lines[2]])),
        "that_begins_one_later": {**own, "first": 2}, "that_begins_one_later_and_says_so": signed(2, 3, root),
        "that_begins_at_0": signed(0, 5, root), "that_begins_before": signed(-1, 6, root, b""), "of_nothing": signed(5, 0, root),
        "that_begins_behind_it": signed(6, 0, root), "whose_first_is_a_text": {**own, "first": "1"}, "whose_first_is_true": {**own, "first": True},
        "by_another_server": tree(lines, 1, "another server"), "with_the_signature_of_the_checkpoint": {**own, "signature": good["signature"]},
        "without_label": signed(1, 4, root, tree_message(1, 4, root).removeprefix(label("audit tree"))),
        "with_label_audit": signed(1, 4, root, label("audit") + root), "of_another_count": signed(1, 4, root, tree_message(1, 5, root)),
        "of_another_first": signed(1, 4, root, tree_message(2, 4, root)), "with_its_root_in_hexadecimal": {**own, "root": root.hex()},
        "with_its_root_cut": signed(1, 4, root[:31]), "with_one_key_more": {**own, "count": 4}, "that_is_a_list": [own], "that_is_a_text": own["root"],
        **{f"without_{key}": {name: value for name, value in own.items() if name != key} for key in own},
    }  # fmt: skip
    for name, stated in wrong.items():
        row(f"with_a_tree_{name}", "39.4", [*lines, line_of({**good, "tree": stated}, lines[3], 5)])


def _plain_tree(lines: list[bytes]) -> bytes:
    """The root of four lines, as one would have it who hashes leaves as they are."""
    left, right = (sha256(b"\1" + sha256(one) + sha256(other)) for one, other in (lines[:2], lines[2:]))
    return sha256(b"\1" + left + right)


def recorded() -> Table:
    """What a record says of arguments, where the server was told to record their values."""
    table = Table("recorded", "Values of arguments as JSON, and how they are recorded: none looks like another.")

    def row(name: str, value: str, told: Json) -> None:
        table.add(name, "39.6", "recorded", {"arguments": JsonText(f'{{"a":{value}}}')}, arguments={"a": told})

    def nested(left: str, count: int, inner: str, right: str) -> str:
        return left * count + inner + right * count

    def within(count: int, inner: Json) -> Json:
        for _ in range(count):
            inner = [inner]
        return inner

    def mark(text: str) -> Json:
        return {"~": text}

    large = 2**53
    for name, value, told in (
        ("text", '"eu"', "eu"), ("integer", "5", 5), ("true", "true", True), ("list", '[1,"x"]', [1, "x"]), ("object", '{"b":{}}', {"b": {}}),
        ("largest_integer", str(large - 1), large - 1), ("least_integer", str(1 - large), 1 - large),
        ("null", "null", mark("null")), ("text_null", '"null"', "null"), ("fraction", "0.5", mark("0.5")), ("text_fraction", '"0.5"', "0.5"),
        ("integer_too_large", str(large), mark(hex(large))), ("text_of_an_integer_too_large", f'"{hex(large)}"', hex(large)),
        ("integer_too_small", str(-large), mark(hex(-large))),
        ("within_a_list", "[null,[0.5]]", [mark("null"), [mark("0.5")]]), ("within_an_object", '{"b":null}', {"b": mark("null")}),
        ("object_like_a_mark", '{"~":"null"}', {"~": mark("null")}), ("object_like_a_mark_of_a_mark", '{"~":{"~":"null"}}', {"~": {"~": {"~": mark("null")}}}),
        ("object_like_a_mark_of_null", '{"~":null}', {"~": {"~": mark("null")}}), ("object_like_a_mark_and_more", '{"b":1,"~":"x"}', {"b": 1, "~": "x"}),
        ("of_24_levels", nested("[", 24, "1", "]"), within(24, 1)), ("of_25_levels", nested("[", 25, "1", "]"), within(24, mark("..."))),
        ("negative_of_letters", str(-(2**60 + 0xABCDEF)), mark(hex(-(2**60 + 0xABCDEF)))), ("text_of_a_mark", '"~"', "~"),
        ("list_in_an_object_like_a_mark", '{"~":[]}', {"~": {"~": []}}),
        ("object_like_a_mark_in_22_levels", nested("[", 22, '{"~":1}', "]"), within(22, {"~": {"~": 1}})),
        ("object_like_a_mark_in_23_levels", nested("[", 23, '{"~":1}', "]"), within(23, mark("..."))),
        ("object_in_23_levels", nested("[", 23, '{"b":1}', "]"), within(23, {"b": 1})),
        ("object_in_24_levels", nested("[", 24, '{"b":1}', "]"), within(24, mark("..."))),
        ("null_in_24_levels", nested("[", 24, "null", "]"), within(24, mark("null"))),
    ):  # fmt: skip
        row(name, value, told)
    return table


def _example_trail() -> list[bytes]:
    """The trail that the specification shows."""
    record = {"exp": NOW + 600, "operations": ["select"], "tables": ["market.*", "sales"]}
    link = {"exp": NOW + 300, "from": "orchestrator", "n": "MPOF0Cvxg5E", "tables": ["sales"], "to": "sales-agent"}
    parts = addressed(token(record, link, jti="vlAGy265ZGLhatUFN1jjWw"))
    ids = [link_id(tag) for tag in parts.tags[1:]]
    described = {
        "kind": "token", "root": root(jti="vlAGy265ZGLhatUFN1jjWw"),
        "links": [{"id": name, "says": says} for name, says in zip(ids, parts.links, strict=True)],
    }  # fmt: skip
    decided = {
        "kind": "decision", "at": NOW, "allowed": True, "code": "allowed", "access": SELECT, "token": "vlAGy265ZGLhatUFN1jjWw",
        "sub": "user:jane", "task": "task-123", "link": ids[-1],
        "chain": [{"name": "orchestrator", "basis": "issued"}, {"name": "sales-agent", "basis": "vouched"}],
    }  # fmt: skip
    lines = trail(described, decided)
    return [*lines, line_of({**checkpoint(lines[-1]), "tree": tree(lines, 1)}, lines[-1], 3)]

"""Vectors of how a token is written: Encoding, Canonical JSON, Limits, Names, Wire."""

from __future__ import annotations

from collections.abc import Iterator

from spec.generate.build import (
    KEY,
    NOW,
    Parts,
    asking,
    b64,
    bundle,
    canonical,
    discharge,
    extended,
    field,
    root,
    text,
    token,
)
from spec.generate.table import SALES, SELECT, Table, call, keyring

UNTIL = {"exp": NOW + 600}
VID = bytes(range(100, 172))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def tables() -> Iterator[Table]:
    yield encoding()
    yield canonical_json()
    yield limits()
    yield names()
    yield wire()


def encoding() -> Table:
    table = Table("encoding", "The text of a token has one spelling: base64url without padding and stray bits, one prefix.")
    tokens = (token(SALES, sub="user:jane" + "x" * extra) for extra in range(3))
    whole, two, three = sorted(tokens, key=lambda parts: len(b64(parts.wire)) % 4)

    def next_to_last(parts: Parts) -> str:
        return parts.text[:-1] + ALPHABET[ALPHABET.index(parts.text[-1]) + 1]

    table.allow("ends_with_two_characters", "1.1", two)
    table.deny("padded", "1.1", "malformed", two.text + "==")
    table.deny("half_padded", "1.1", "malformed", two.text + "=")
    table.deny("four_trailing_bits_are_not_zero", "1.2", "malformed", next_to_last(two))
    table.allow("ends_with_three_characters", "1.1", three)
    table.deny("padded_with_one", "1.1", "malformed", three.text + "=")
    table.deny("two_trailing_bits_are_not_zero", "1.2", "malformed", next_to_last(three))
    table.allow("ends_with_whole_group", "1.1", whole)
    table.deny("padded_with_group", "1.1", "malformed", whole.text + "====")
    table.deny("one_character_over", "1.3", "malformed", whole.text + "A")
    table.deny("last_character_cut", "10.6", "malformed", whole.text[:-1])
    foreign = {
        "plus": "+", "slash": "/", "dot": ".", "tilde": "~", "space": " ", "line_feed": "\n", "tab": "\t", "padding": "=",
        "percent": "%", "null": "\0", "latin": "\u00e9", "full_width": "\uff21", "cyrillic": "\u0410",
        "no_break_space": "\u00a0", "lone_surrogate": "\ud800",
    }  # fmt: skip
    for name, char in foreign.items():
        table.deny(f"{name}_inside", "1.1", "malformed", whole.text[:80] + char + whole.text[80:])
    for name, char in (("space", " "), ("line_feed", "\n"), ("null", "\0"), ("comma", ","), ("quote", '"')):
        table.deny(f"{name}_at_end", "1.1", "malformed", whole.text + char)
    for name, char in (("space", " "), ("byte_order_mark", "\ufeff"), ("quote", '"')):
        table.deny(f"{name}_at_start", "8.1", "malformed", char + whole.text)
    body = whole.text[5:]
    prefixes = {
        "upper_case": "CAP1_", "capital": "Cap1_", "of_version_2": "cap2_", "with_hyphen": "cap1-", "missing": "",
        "twice": "cap1_cap1_", "cut": "cap1", "full_width": "\uff43ap1_", "of_discharge": "cap1d_",
    }  # fmt: skip
    for name, prefix in prefixes.items():
        table.deny(f"prefix_{name}", "8.1", "malformed", prefix + body)
    table.deny("empty_text", "8.1", "malformed", "")
    table.deny("two_tokens", "1.1", "malformed", f"{whole.text},{whole.text}")
    table.deny("base64_of_base64", "10.2", "malformed", text(body.encode()))
    for name, ours, theirs in (("plus", "-", "+"), ("slash", "_", "/")):
        numbered = (token(SALES, sub=f"user:jane{number}") for number in range(1000))
        parts = next(parts for parts in numbered if set(parts.text[5:]) & {"-", "_"} == {ours})
        table.allow(f"without_{name}", "1.1", parts)
        table.deny(f"standard_alphabet_by_{name}", "1.1", "malformed", parts.text[:5] + parts.text[5:].replace(ours, theirs))
    return table


def canonical_json() -> Table:
    table = Table(
        "canonical_json", "Root record and links are canonical JSON of few types: strings and numbers in ext, then the rest."
    )
    nested = canonical(root(ext={"acme:note": "HERE"}))

    def noted(raw: bytes) -> Parts:
        return token(SALES, identifier=nested.replace(b'"HERE"', raw))

    strings = {
        "plain": b'"a"', "empty": b'""', "delete_as_itself": b'"\x7f"', "line_separator_as_itself": '"\u2028"'.encode(),
        "emoji_as_itself": '"\U0001f600"'.encode(), "short_escapes": rb'"\b\t\n\f\r"',
        "long_escapes": rb'"\u0000\u000b\u001f"', "quote_and_backslash": rb'"\"\\"', "slash_as_itself": b'"/"',
        "not_a_character": '"\uffff"'.encode(), "decomposed": '"e\u0301"'.encode(), "private_use": '"\ue000"'.encode(),
    }  # fmt: skip
    for name, raw in strings.items():
        table.allow(f"string_{name}", "2.5", noted(raw))
    broken = {
        "escaped_slash": rb'"\/"', "escaped_delete": rb'"\u007f"', "escaped_letter": rb'"\u0061"',
        "escaped_latin": rb'"\u00e9"', "upper_case_hexadecimal": rb'"\u001F"', "long_escape_for_tab": rb'"\u0009"',
        "escaped_pair": rb'"\ud83d\ude00"', "unknown_escape": rb'"\x41"', "raw_control": b'"\x1f"', "raw_line_feed": b'"\n"',
        "single_quotes": b"'a'", "unclosed": b'"a',
    }  # fmt: skip
    for name, raw in broken.items():
        table.deny(f"string_{name}", "2.5", "malformed", noted(raw))
    octets = {
        "escaped_surrogate": rb'"\ud800"', "raw_surrogate": b'"\xed\xa0\x80"',
        "surrogates_as_utf8": b'"\xed\xa0\xbd\xed\xb8\x80"', "byte_ff": b'"\xff"', "over_long": b'"\xc0\x80"',
        "cut_short": b'"\xe2\x82"', "beyond_unicode": b'"\xf4\x90\x80\x80"', "latin_1": b'"\xe9"',
    }  # fmt: skip
    for name, raw in octets.items():
        table.deny(f"bytes_{name}", "2.2", "malformed", noted(raw))
    for name, raw in {"zero": b"0", "negative": b"-1", "largest": b"9007199254740991", "least": b"-9007199254740991"}.items():
        table.allow(f"number_{name}", "2.4", noted(raw))
    numbers = {
        "minus_zero": b"-0", "leading_zero": b"01", "fraction_of_zero": b"1.0", "fraction": b"1.5", "exponent": b"1e2",
        "plus": b"+1", "point_first": b".5", "point_last": b"1.", "hexadecimal": b"0x10", "underscore": b"1_000",
        "minus_alone": b"-",
    }  # fmt: skip
    for name, raw in numbers.items():
        table.deny(f"number_{name}", "2.4", "malformed", noted(raw))
    for name, raw in {"too_large": b"9007199254740992", "too_small": b"-9007199254740992", "huge": b"1" * 400}.items():
        table.deny(f"number_{name}", "2.1", "malformed", noted(raw))
    for name, raw in {"null": b"null", "not_a_number": b"NaN", "infinity": b"Infinity", "beyond_floats": b"1e400"}.items():
        table.deny(f"value_{name}", "2.1", "malformed", noted(raw))

    record, link = canonical(root()), canonical({**SALES, **UNTIL})
    table.allow("plain", "2.3", token({**SALES, **UNTIL}))
    shapes = {
        "space_before": ("2.3", b" %s"), "line_feed_after": ("2.3", b"%s\n"), "byte_order_mark": ("2.2", b"\xef\xbb\xbf%s"),
        "something_after": ("2.3", b"%s0"), "twice": ("2.3", b"%s%s"), "in_an_array": ("2.8", b"[%s]"),
        "as_a_string": ("2.8", b'"%s"'),
    }  # fmt: skip
    for name, (rule, shape) in shapes.items():
        times = shape.count(b"%s")
        table.deny(f"root_{name}", rule, "malformed", token(SALES, identifier=shape % ((record,) * times)))
        table.deny(f"link_{name}", rule, "unreadable_link", token(shape % ((link,) * times)))
    edits = {
        "space_after_colon": ("2.3", b":", b": "), "space_after_comma": ("2.3", b",", b", "),
        "comma_at_end": ("2.3", b"}", b",}"), "unclosed": ("2.3", b"}", b""),
        "repeated_key": ("2.6", b"{", b'{"exp":1764061800,'), "escaped_key": ("2.5", b'"exp"', b'"e\\u0078p"'),
        "unsorted": ("2.6", link[1:-1], b'"operations":["select"],"exp":1764061800,"tables":["sales"]'),
        "fraction": ("2.4", b"1764061800", b"1764061800.0"), "exponent": ("2.4", b"1764061800", b"17640618e2"),
        "minus_zero": ("2.4", b"1764061800", b"-0"), "leading_zero": ("2.4", b"1764061800", b"01764061800"),
        "too_large": ("2.1", b"1764061800", b"9007199254740992"), "null": ("2.1", b"1764061800", b"null"),
        "not_a_number": ("2.1", b"1764061800", b"NaN"), "escaped_letter": ("2.5", b'"sales"', b'"s\\u0061les"'),
        "escaped_slash": ("2.5", b'"sales"', b'"sales","a\\/b"'),
        "raw_surrogate": ("2.2", b'"sales"', b'"sales","\xed\xa0\x80"'),
        "escaped_surrogate": ("2.2", b'"sales"', b'"sales","\\ud800"'), "byte_ff": ("2.2", b'"sales"', b'"sales","\xff"'),
    }  # fmt: skip
    for name, (rule, old, new) in edits.items():
        table.deny(f"link_{name}", rule, "unreadable_link", token(link.replace(old, new, 1)))
    for name, raw in {
        "array": b"[]",
        "string": b'"exp"',
        "number": b"1",
        "true": b"true",
        "null": b"null",
        "no_json": b"exp < 5",
    }.items():
        table.deny(f"link_is_{name}", "2.8", "unreadable_link", token(raw))
        table.deny(f"root_is_{name}", "2.8", "malformed", token(SALES, identifier=raw))
    table.allow("largest_integers_in_a_link", "2.1", token({**SALES, "exp": 2**53 - 1, "nbf": 1 - 2**53}))

    emoji, wide = "\U0001f600", "\uff5e"  # by UTF-16 unit the emoji comes first, by code point last
    sorted_link = canonical({**SALES, "where": {emoji: {"any": True}, wide: {"any": True}}})
    first, last = (canonical({key: {"any": True}})[1:-1] for key in (emoji, wide))
    stated = {**SELECT, "attributes": {emoji: 1, wide: 1}}
    table.allow("keys_by_utf16_unit", "2.6", token(sorted_link), stated)
    unsorted_link = sorted_link.replace(first + b"," + last, last + b"," + first)
    table.deny("keys_by_code_point", "2.6", "unreadable_link", token(unsorted_link), stated)

    table.plain("2.7")
    for levels, code in ((31, "unknown_caveat"), (32, "unknown_caveat"), (33, "unreadable_link")):
        for name, opened, closed in (("arrays", b"[", b"]"), ("objects", b'{"":', b"}")):
            inner = opened * (levels - 1) + (b"[]" if name == "arrays" else b"{}") + closed * (levels - 1)
            table.deny(f"{levels}_{name}", "2.7", code, token(SALES, b'{"acme:x":%s}' % inner))
    table.deny("1000_brackets", "2.7", "unreadable_link", token(SALES, b"[" * 1000))
    return table


def limits() -> Table:
    table = Table("limits", "Sizes and counts, at the limit and one beyond it.")

    def sized(size: int) -> Parts:
        """A token of `size` bytes."""
        names = ["sales", *(f"{number:03}" + "x" * 197 for number in range(28))]
        short = token({**SALES, "tables": names})
        return token({**SALES, "tables": [*names, "y" * (size - len(short.wire) - 3)]})

    def recorded(size: int) -> Parts:
        short = canonical(root(ext={"acme:note": ""}))
        return token(SALES, ext={"acme:note": "x" * (size - len(short))})

    table.allow("text_of_8192_characters", "3.1", sized(6140))
    table.deny("text_of_8193_characters", "3.1", "malformed", sized(6141))
    full = token(SALES, *[{"nbf": 0}] * 63)
    table.allow("64_links", "3.1", full)
    table.deny("65_links", "3.1", "malformed", extended(full, {"nbf": 0}))
    table.deny("64_links_and_a_third_party", "3.1", "malformed", bundle(asking(full, "one"), discharge("one", UNTIL)))
    almost = asking(token(SALES, *[{"nbf": 0}] * 62), "one")
    table.allow("63_links_and_a_third_party", "3.1", almost, discharges=(discharge("one", UNTIL),))
    sixty_four = discharge("one", *[UNTIL] * 64)
    one = asking(token(SALES), "one")
    table.allow("discharge_of_64_links", "3.1", one, discharges=(sixty_four,))
    table.deny("discharge_of_65_links", "3.1", "malformed", bundle(one, extended(sixty_four, UNTIL)))
    answered = asking(token(SALES), "one")
    for size, code in ((8192, "allowed"), (8193, "malformed")):
        parts = _grown(answered, size)
        name = f"text_of_{size}_characters_with_a_discharge"
        if code == "allowed":
            table.allow(name, "3.1", parts, discharges=(discharge("one", UNTIL),))
        else:
            table.deny(name, "3.1", code, bundle(parts, discharge("one", UNTIL)))
    table.allow("task_of_128_characters", "3.1", token(SALES, task="t" * 128))
    for key in ("sub", "kid"):
        ring = keyring({"x" * 128: KEY} if key == "kid" else {"k1": KEY})
        table.allow(f"{key}_of_128_characters", "3.1", token(SALES, **{key: "x" * 128}), ring=ring)
        table.deny(f"{key}_of_129_characters", "3.1", "malformed", token(SALES, **{key: "x" * 129}), ring=ring)
    table.allow("root_record_of_1024_bytes", "3.1", recorded(1024))
    table.deny("root_record_of_1025_bytes", "3.1", "malformed", recorded(1025))
    return table


def _grown(parts: Parts, size: int) -> Parts:
    """The token with one link more, so that its text has that many characters."""
    tables = ["sales"]
    while len(extended(parts, {"tables": [*tables, "y"]}).text) < size - 300:
        tables.append(f"{len(tables):03}" + "x" * 197)
    grown = (extended(parts, {"tables": [*tables, "y" * left]}) for left in range(1, 256))
    return next(one for one in grown if len(one.text) == size)


def names() -> Table:
    table = Table("names", "What may be a name, and that names are the same only code point by code point.")

    def on(name: str) -> tuple[Parts, dict[str, object]]:
        return token({"operations": ["select"], "tables": [name]}), {"table": name, "operation": "select"}

    legal = {
        "inner_space": "annual report", "dotted": "a.b.c", "latin": "fa\u00e7ade", "decomposed": "fac\u0327ade",
        "greek": "\u03c0", "chinese": "\u9500\u552e", "emoji": "\U0001f600", "private_use": "\ue000",
        "inner_no_break_space": "a\u00a0b", "unassigned": "a\u0378b", "no_character": "a\uffffb", "behind_controls_of_hieroglyphs": "a\U00013440b", "percent_and_tilde": "a%20~b", "full_width": "\uff53\uff41", "punctuation": "a'b\"c;d%e_f\\g",
        "256_bytes": "x" * 256, "256_bytes_in_two": "\u00e9" * 128, "space_in_segment": "a. b",
    }  # fmt: skip
    for name, table_name in legal.items():
        table.allow(f"table_{name}", "4.4", *on(table_name))
    ill = {
        "empty": "", "257_bytes": "x" * 257, "257_bytes_in_129": "\u00e9" * 128 + "x", "null": "a\0b", "line_feed": "a\nb",
        "tab": "a\tb", "escape": "a\x1bb", "delete": "a\x7fb", "next_line": "a\u0085b", "soft_hyphen": "a\u00adb",
        "zero_width_space": "a\u200bb", "zero_width_joiner": "a\u200db", "right_to_left_override": "a\u202eb",
        "byte_order_mark": "\ufeffab", "tag": "a\U000e0041b", "line_separator": "a\u2028b", "paragraph_separator": "a\u2029b",
        "space_before": " ab", "space_after": "ab ", "no_break_space_after": "ab\u00a0",
        "ideographic_space_before": "\u3000ab", "space_alone": " ",
    }  # fmt: skip
    table.allow("table_beside_another", "4.4", token({**SALES, "tables": ["sales", "ab"]}))
    for name, table_name in ill.items():
        table.deny(f"table_{name}", "4.4", "unreadable_link", token({**SALES, "tables": ["sales", table_name]}))
    newer = token({**SALES, "tables": ["sales", "a\U00013439b"]})
    table.deny("table_control_of_hieroglyphs_since_unicode_15", "4.8", "unreadable_link", newer)
    for name, table_name in ill.items():
        if name in ("empty", "257_bytes", "null", "zero_width_space", "right_to_left_override", "space_after"):
            table.deny(f"stated_table_{name}", "7.7", "usage", token(SALES), {"table": table_name, "operation": "select"})
    anything = {"control": "a\tb\n", "not_composed": "e\u0301", "257_bytes": "x" * 257, "empty": "", "spaced": " a ", "star": "*"}
    for name, value in anything.items():
        table.allow(f"no_name_{name}", "4.9", token({"tools": {"search": {}}}), call("search", q=value))
    others = {
        "sales": {"upper_case": "Sales", "cyrillic": "s\u0430les", "longer": "sales2", "shorter": "sale", "underscored": "sales_"},
        "caf\u00e9": {"decomposed": "cafe\u0301", "without_accent": "cafe"}, "cafe\u0301": {"composed": "caf\u00e9"},
        "sa": {"full_width": "\uff53\uff41"}, "k": {"kelvin": "\u212a"}, "i": {"dotless": "\u0131"},
        "ss": {"sharp_s": "\u00df"}, "fi": {"ligature": "\ufb01"}, "ab": {"spaced": "a b"},
    }  # fmt: skip
    for granted, looking_alike in others.items():
        granted_token, granted_access = on(granted)
        table.allow(f"same_as_{next(iter(looking_alike))}", "4.6", granted_token, granted_access)
        for name, other in looking_alike.items():
            table.deny(f"other_{name}", "4.6", "table", granted_token, {"table": other, "operation": "select"})

    _of_objects(table)
    table.allow("agent_of_128_characters", "4.1", token(SALES, agent="x" * 128))
    table.deny("agent_of_129_characters", "4.1", "malformed", token(SALES, agent="x" * 129))
    table.allow("subject_of_every_character", "4.1", token(SALES, sub="AZaz09._:/@+-"))
    for name, subject in {
        "space": "user jane", "line_feed": "user:jane\n", "latin": "user:jan\u00e9", "cyrillic": "user:j\u0430ne",
        "star": "*", "comma": "user:jane,user:joe", "hash": "user#jane", "null": "user:jane\0", "percent": "user%3Ajane",
        "tilde": "~jane", "equals": "user=jane", "exclamation": "jane!", "bracket": "jane[1]", "back_quote": "`jane`",
    }.items():  # fmt: skip
        table.deny(f"subject_{name}", "4.1", "malformed", token(SALES, sub=subject))
    table.allow("task_of_segments", "4.2", token(SALES, task="task-123/sub.task/..."))
    for name, task in {
        "empty_segment": "task//a", "slash_first": "/task", "slash_last": "task/", "dot": "task/./a", "two_dots": "task/../a",
        "percent": "task%2F1", "tilde": "~task", "slash": "/", "dot_alone": ".", "two_dots_last": "task/..", "space": "task 1", "129_characters": "t" * 129,
    }.items():  # fmt: skip
        table.deny(f"task_{name}", "4.2", "malformed", token(SALES, task=task))
    return table


def _of_objects(table: Table) -> None:
    """Names that mean something else where a map is an object of the language: nobody wrote them, or somebody did."""
    select = {"operation": "select"}
    maps = token({"allow": {"sales": ["select"]}, "tools": {"search": {"q": {"any": True}}}})
    names = ("constructor", "__proto__", "toString", "hasOwnProperty")
    table.allow("of_no_object_table", "43.10", maps)
    for name in names:
        table.deny(f"{name}_is_no_table", "43.10", "table", maps, {"table": name, **select})
    table.allow("of_no_object_tool", "43.10", maps, call("search", q="x"))
    for name in names:
        table.deny(f"{name}_is_no_tool", "43.10", "tool", maps, call(name, q="x"))
        table.deny(f"{name}_is_no_argument", "43.10", "argument", maps, call("search", q="x", **{name: "x"}))
    where = {"__proto__": {"in": ["a"]}, "constructor": {"in": ["b"]}}
    named = token({"allow": {"__proto__": ["select"]}, "tools": {"constructor": {"__proto__": {"in": ["a"]}}}}, {"where": where})
    given = {"attributes": {"__proto__": "a", "constructor": "b"}}
    table.allow("of_an_object_tool", "43.10", named, {**call("constructor", __proto__="a"), **given})
    table.deny("of_an_object_argument_left_out", "43.10", "argument", named, {**call("constructor"), **given})
    table.allow("of_an_object_table", "43.10", named, {"table": "__proto__", **select, **given})
    for left in ("__proto__", "constructor"):
        rest = {name: value for name, value in given["attributes"].items() if name != left}
        table.deny(f"{left}_is_not_stated", "43.10", "attribute", named, {"table": "__proto__", **select, "attributes": rest})
    table.deny("of_an_object_other_table", "43.10", "table", named, {"table": "constructor", **select, **given})


def wire() -> Table:
    table = Table("wire", "The binary form: one spelling, no location, nothing missing and nothing more.")
    one = token(SALES)
    head, middle, tail = one.head, one.middle, b"\0" + field(6, one.signature)
    link = one.bodies[0]

    def deny(name: str, rule: str, wire: bytes) -> None:
        table.deny(name, rule, "malformed", text(wire))

    table.allow("two_links", "10.1", token(SALES, UNTIL))
    long = token(
        {**SALES, "tables": ["sales", *(f"market.shop-{number}" for number in range(20))]}, sub="user:jane-of-accounts"
    )
    table.allow("lengths_of_two_bytes", "10.1", long)
    record, body = long.identifier, long.bodies[0]
    after = b"\0" + field(6, long.signature)
    deny("link_length_of_three_bytes_for_two", "10.1", long.head + field(2, body, width=3) + b"\0" + after)
    deny("identifier_length_of_three_bytes_for_two", "10.1", b"\2" + field(2, record, width=3) + b"\0" + long.middle + after)
    table.allow("one_link", "10.1", one)
    deny("nothing", "10.2", b"")
    for version in (1, 3):
        deny(f"version_{version}", "10.2", bytes((version,)) + one.wire[1:])
    deny("header_location_empty", "10.3", b"\2\1\0" + one.wire[1:])
    deny("header_location", "10.3", b"\2" + field(1, b"https://example.org/") + one.wire[1:])
    deny("link_location_empty", "10.3", head + b"\1\0" + middle + tail)
    deny("link_location", "10.3", head + field(1, b"https://example.org/") + middle + tail)
    deny("link_location_after_its_id", "10.3", head + field(2, link) + b"\1\0\0" + tail)
    for kind in (3, 5):
        deny(f"header_field_{kind}", "10.4", b"\2" + field(2, one.identifier) + field(kind, b"x") + b"\0" + middle + tail)
        deny(f"link_field_{kind}", "10.4", head + field(2, link) + field(kind, b"x") + b"\0" + tail)
    deny("header_vid", "10.4", b"\2" + field(2, one.identifier) + field(4, VID) + b"\0" + middle + tail)
    deny("header_signature", "10.4", b"\2" + field(2, one.identifier) + field(6, one.signature) + b"\0" + middle + tail)
    deny("identifier_twice", "10.4", b"\2" + field(2, one.identifier) * 2 + b"\0" + middle + tail)
    deny("identifier_missing", "10.5", b"\2\0" + middle + tail)
    deny("identifier_empty", "10.5", b"\2\2\0\0" + middle + tail)
    deny("link_twice_in_a_section", "10.4", head + field(2, link) * 2 + b"\0" + tail)
    deny("link_empty", "10.5", head + middle + b"\2\0\0" + tail)
    deny("type_of_two_bytes", "10.4", head + b"\x82" + middle + tail)
    for size in (71, 73):
        parts = extended(one, (b"ask", bytes(range(size))))
        deny(f"vid_of_{size}_bytes", "10.5", parts.wire)
    deny("vid_empty", "10.5", head + field(2, link) + b"\4\0\0" + tail)
    deny("vid_first", "10.4", head + field(4, VID) + field(2, b"ask") + b"\0" + tail)
    deny("vid_alone", "10.4", head + field(4, VID) + b"\0" + tail)
    deny("vid_twice", "10.4", head + field(2, b"ask") + field(4, VID) * 2 + b"\0" + tail)
    deny("header_end_missing", "10.4", head[:-1] + middle + tail)
    deny("header_end_twice", "10.4", head + b"\0" + middle + tail)
    deny("link_end_or_links_end_missing", "10.4", head + middle[:-1] + tail)
    deny("links_end_twice", "10.4", head + middle + b"\0" + tail)
    # The three bytes that no HMAC covers: whoever takes another one takes a second text of one token.
    for octet in (0x01, 0x03, 0x20, 0x80, 0xFF):
        other = bytes((octet,))
        deny(f"header_end_as_{octet:02x}", "10.4", head[:-1] + other + middle + tail)
        deny(f"link_end_as_{octet:02x}", "10.4", head + middle[:-1] + other + tail)
        deny(f"links_end_as_{octet:02x}", "10.4", head + middle + other + tail[1:])
    for size in (0, 31, 33):
        deny(f"signature_of_{size}_bytes", "10.6", head + middle + b"\0" + field(6, (one.signature * 2)[:size]))
    deny("signature_missing", "10.6", head + middle + b"\0")
    deny("signature_as_field_5", "10.6", head + middle + b"\0" + field(5, one.signature))
    deny("signature_length_over_long", "10.1", head + middle + b"\0" + field(6, one.signature, width=2))
    deny("signature_and_an_end", "10.6", one.wire + b"\0")
    deny("signature_and_a_byte", "10.6", one.wire + b"\x02")
    deny("two_tokens", "10.6", one.wire * 2)
    deny("without_links", "10.7", token().wire)
    for width in (2, 10):
        deny(f"link_length_in_{width}_bytes", "10.1", head + field(2, link, width=width) + b"\0" + tail)
        deny(
            f"identifier_length_in_{width}_bytes", "10.1", b"\2" + field(2, one.identifier, width=width) + b"\0" + middle + tail
        )
    sizes = {
        "one_more": len(link) + 1,
        "one_less": len(link) - 1,
        "127": 127,
        "32767": 2**15 - 1,
        "32768": 2**15,
    }
    sizes |= {"32_bits": 2**32 - 1, "64_bits": 2**64 - 1}
    for name, size in sizes.items():
        deny(f"link_length_{name}", "10.8", head + field(2, link, size) + b"\0" + tail)
    deny("length_without_end", "10.8", head + b"\2" + b"\x80" * 1000 + tail)
    cuts = {
        "version": 1, "identifier_type": 2, "identifier_length": 3, "identifier": 60, "header": len(head) - 1,
        "links": len(head), "link": len(head) + 20, "link_end": len(head) + len(middle) - 1,
        "links_end": len(head) + len(middle), "signature": len(one.wire) - 16, "last_byte": len(one.wire) - 1,
    }  # fmt: skip
    for name, size in cuts.items():
        deny(f"cut_at_{name}", "10.8", one.wire[:size])
    deny("version_1_macaroon", "10.2", b"0010location \n0023identifier example-token\n002fsignature " + one.signature + b"\n")
    deny("json_macaroon", "10.2", b'{"v":2,"i":"example-token","c":[],"s64":"' + b64(one.signature).encode() + b'"}')
    return table

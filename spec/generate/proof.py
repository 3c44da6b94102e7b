"""Vectors of what a holder does: Requests, Proof of possession, Replay, and what an MCP message is about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from spec.generate.binding import (
    BOUND,
    HERE,
    HOLDER,
    NONCE,
    addressed,
    by_mixed_key,
    example,
    mixed,
    outcome,
    point,
    shown,
    signatures,
)
from spec.generate.build import (
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
    digest,
    discharge,
    extended,
    hand_over,
    handed,
    joined,
    label,
    link_id,
    of_access,
    of_message,
    proof,
    proof_message,
    proof_text,
    secret,
    sha256,
    sign,
    signing_public,
    state,
    text,
    token,
    use,
)
from spec.generate.table import SALES, SELECT, Table, call, ended


def tables() -> Iterator[Table]:
    yield requests()
    yield proof_of_possession()
    yield replay()
    yield transports()


# What a proxy may hold to be equal.
ALIKE = (
    "method_in_lower_case", "host_in_capitals", "port", "origin_with_slash", "path_with_slash", "path_with_two_slashes",
    "path_with_dots", "path_encoded", "query_empty", "body_with_a_space",
)  # fmt: skip


# --- requests --------------------------------------------------------------------------------------------------------


def of_http(method: str, origin: str, target: str, body: bytes = b"") -> bytes:
    return digest("http", method.encode(), origin.encode(), target.encode(), sha256(body))


def of_mcp(method: str, name: str, arguments: bytes = b"{}") -> bytes:
    return digest("mcp", method.encode(), name.encode(), arguments)


def requests() -> Table:
    """Each digest as a value; then a proof that was made for one request and comes with another."""
    table = Table("requests", "What a proof is about: the digest of one request, as a value, and no other request's proof.")
    here = addressed(BOUND)
    made: dict[str, bytes] = {}

    def row(name: str, rule: str, form: str, given: dict[str, Json], request: bytes | None) -> None:
        """A digest, or None for what cannot be stated."""
        expect: dict[str, Json] = {"code": "usage"} if request is None else {"digest": request.hex()}
        if request is not None:
            made[name] = request
        table.add(name, rule, "request", {"form": form, **given}, **expect)

    def http(name: str, method: str = "GET", origin: str = "https://api.example", target: str = "/v1/sales?year=2025",
             body: bytes = b"") -> None:  # fmt: skip
        given = {"method": method, "origin": origin, "target": target, "body": body.hex()}
        rule = "29.6" if name in ALIKE else "29.2"
        row(f"http_{name}", rule, "http", given, of_http(method, origin, target, body))

    http("get")
    http("method", method="HEAD")
    http("method_in_lower_case", method="get")
    http("scheme", origin="http://api.example")
    http("host", origin="https://api2.example")
    http("host_in_capitals", origin="https://API.example")
    http("port", origin="https://api.example:443")
    http("origin_with_slash", origin="https://api.example/", target="v1/sales?year=2025")
    http("path", target="/v1/hr?year=2025")
    http("path_in_capitals", target="/v1/Sales?year=2025")
    http("path_with_slash", target="/v1/sales/?year=2025")
    http("path_with_two_slashes", target="/v1//sales?year=2025")
    http("path_with_dots", target="/v1/x/../sales?year=2025")
    http("path_encoded", target="/v1/%73ales?year=2025")
    http("query", target="/v1/sales?year=2024")
    http("query_longer", target="/v1/sales?year=2025&limit=1")
    http("query_left_out", target="/v1/sales")
    http("query_empty", target="/v1/sales?")
    http("body", method="POST", body=b'{"q":1}')
    http("body_with_a_space", method="POST", body=b'{"q": 1}')
    http("body_of_one_byte", body=b"\0")
    http("of_nothing", "", "", "")
    beyond: dict[str, dict[str, Json]] = {
        "method": {"method": "G\u00c9T"}, "origin": {"origin": "https://\u0430pi.example"},
        "target": {"target": "/v1/caf\u00e9"}, "target_surrogate": {"target": "/v1/\ud800"},
    }  # fmt: skip
    for name, change in beyond.items():
        given = {"method": "GET", "origin": "https://api.example", "target": "/v1/sales?year=2025", "body": "", **change}
        row(f"http_{name}_not_ascii", "29.2", "http", given, None)

    def mcp(name: str, method: str = "tools/call", tool: str = "search", arguments: bytes = b'{"q":"x"}') -> None:
        given = {"method": method, "tool": tool, "arguments": arguments.hex()}
        row(f"mcp_{name}", "29.3", "mcp", given, of_mcp(method, tool, arguments))

    mcp("call")
    mcp("method", method="prompts/get")
    mcp("tool", tool="search2")
    mcp("argument", arguments=b'{"q":"y"}')
    mcp("argument_spaced", arguments=b'{"q": "x"}')
    mcp("arguments_empty", arguments=b"{}")
    mcp("arguments_of_no_bytes", arguments=b"")
    mcp("boundary_moved", method="tools/callse", tool="arch")
    mcp("tool_not_ascii", tool="caf\u00e9")
    mcp("as_http", "GET", "https://api.example", b"/v1/sales?year=2025")
    row("mcp_tool_surrogate", "29.3", "mcp", {"method": "tools/call", "tool": "\ud800", "arguments": ""}, None)

    def access(name: str, stated: Json) -> None:
        row(f"access_{name}", "29.4" if stated is not None else "29.5", "access", {"access": stated}, of_access(stated))

    search = call("search", q="x", limit=10)
    accesses: dict[str, Json] = {
        "none": None, "of_nothing": {}, "table": SELECT, "other_table": {**SELECT, "table": "hr"},
        "other_operation": {**SELECT, "operation": "insert"}, "no_columns": {**SELECT, "columns": []},
        "columns": {**SELECT, "columns": ["amount", "region"]}, "column": {**SELECT, "columns": ["region"]},
        "attribute": {**SELECT, "attributes": {"region": "eu"}}, "attribute_null": {**SELECT, "attributes": {"region": None}},
        "tool": {"tool": "search"}, "tool_with_arguments": search, "argument_as_text": call("search", q="x", limit="10"),
        "argument_true": call("search", q="x", limit=True), "argument_1": call("search", q="x", limit=1),
        "argument_1_0": call("search", q="x", limit=1.0), "argument_null": call("search", q="x", limit=None),
        "argument_minus_zero": call("search", limit=-0.0), "argument_zero": call("search", limit=0.0),
        "argument_large": call("search", limit=1e16), "argument_small": call("search", limit=0.00001),
        "argument_half": call("search", limit=0.5), "argument_tenth": call("search", limit=0.1), "argument_negative": call("search", limit=-2.25),
        "argument_thousand_and_a_bit": call("search", limit=1234.5678), "argument_0_0001": call("search", limit=0.0001),
        "argument_0_00012345": call("search", limit=0.00012345), "argument_0_000099": call("search", limit=0.000099),
        "argument_of_15_zeros": call("search", limit=1e15), "argument_just_below_10_to_the_16": call("search", limit=9999999999999998.0),
        "argument_of_digits_and_exponent": call("search", limit=1.5e-7), "argument_of_17_digits": call("search", limit=1.2345678901234567e22),
        "argument_largest": call("search", limit=1.7976931348623157e308), "argument_least": call("search", limit=5e-324),
        "argument_of_4300_digits": call("search", limit=10**4299), "argument_beyond_doubles": call("search", limit=2**53 + 1),
        "columns_of_which_one_begins_another": {**SELECT, "columns": ["ab", "a", "abc"]},
        "columns_around_the_surrogates": {**SELECT, "columns": ["\ue000", "\ud7ff", "\U00010000", "\U0010ffff", "\uffff"]},
        "keys_of_which_one_begins_another": call("search", ab=1, a=2, abc=3),
        "columns_beyond_the_bmp": {**SELECT, "columns": ["\U0001f600", "\uff5e"]},
        "argument_30_digits": call("search", limit=10**30), "argument_nested": call("search", q=[{"b": [], "a": {}}, None]),
        "argument_escaped": call("search", q="\"\\/\b\t\n\f\r\x01\x7f\u00e9\u2028\U0001f600"),
        "keys_beyond_the_bmp": call("search", **{"\U0001f600": 1, "\uff5e": 2}),
        "keys_beyond_the_bmp_within": call("search", q={"\U0001f600": 1, "\uff5e": 2}),
        "argument_composed": call("search", q="\u00e9"),
        "argument_decomposed": call("search", q="e\u0301"), "table_and_tool": {**SELECT, **search},
        "argument_as_attribute": {"tool": "search", "attributes": {"q": "x", "limit": 10}},
    }  # fmt: skip
    for name, stated in accesses.items():
        access(name, stated)
    digits = "1" + "0" * 4300
    for name, value in {"4301_digits": digits, "4301_digits_and_a_minus": f"-{digits}"}.items():
        stated = JsonText(f'{{"arguments":{{"limit":{value}}},"tool":"search"}}')
        row(f"access_argument_of_{name}", "29.4", "access", {"access": stated}, None)
    same: dict[str, Json] = {
        "columns_in_another_order": {**SELECT, "columns": ["region", "amount"]},
        "row_that_is_no_part": {**SELECT, "row": {"a": 1}, "becomes": None},
        "conditions_that_are_no_part": {**SELECT, "rows": [{"a": {"any": True}}]},
        "columns_repeated": {**SELECT, "columns": ["amount", "region", "amount"]},
        "attributes_empty": {**SELECT, "attributes": {}}, "arguments_empty": call("search"),
        "arguments_in_another_order": call("search", limit=10, q="x"),
    }  # fmt: skip
    for name, stated in same.items():
        table.add(
            f"access_same_{name}", "29.4", "request", {"form": "access", "access": stated}, digest=of_access(stated).hex()
        )

    def used(name: str, rule: str, mine: bytes, others: dict[str, bytes], beside: str = "") -> None:
        """A proof for one request; and the same one with each of the others."""
        come = outcome(here, "orchestrator")
        given = shown(proof(here, "orchestrator", mine), mine)
        if beside:
            table.beside(beside)
        else:
            table.allow(f"proof_for_{name}", rule, here, presented=given, outcome=come, audiences=HERE)
        for other, request in others.items():
            given = shown(proof(here, "orchestrator", mine), request)
            table.deny(f"proof_for_{name}_with_{other}", rule, "bad_proof", here, presented=given, audiences=HERE)

    def like(*starts: str) -> dict[str, bytes]:
        return {
            name: request for name, request in made.items() if name.startswith(starts) and not name.endswith(("_get", "_call"))
        }

    used("http", "29.2", made["http_get"], like("http_"))
    used("mcp", "29.3", made["mcp_call"], like("mcp_"))
    used(
        "access",
        "29.4",
        made["access_columns"],
        {name: made[f"access_{name}"] for name in ("none", "table", "no_columns", "column")},
    )
    used("argument_1", "29.4", made["access_argument_1"], {"argument_1_0": made["access_argument_1_0"],
         "argument_true": made["access_argument_true"], "argument_as_text": made["access_argument_as_text"]})  # fmt: skip
    zero = {"digest_of_zeros": bytes(32), "hash_of_nothing": sha256(b""), "hash_of_it": sha256(made["http_get"])}
    used("any_32_bytes", "29.1", b"\x11" * 32, zero)
    method, origin, target, empty = b"GET", b"https://api.example", b"/v1/sales?year=2025", sha256(b"")
    parts = method, origin, target, empty

    def behind(size: int, order: Literal["big", "little"]) -> bytes:
        return b"".join(len(part).to_bytes(size, order) + part for part in parts)

    used("lengths", "29.1", made["http_get"], {
        "joined_without_lengths": sha256(label("request http") + b"".join(parts)),
        "lengths_of_4_bytes": sha256(label("request http") + behind(4, "big")),
        "lengths_little_endian": sha256(label("request http") + behind(8, "little")),
        "label_missing": sha256(behind(8, "big")), "label_mcp": digest("mcp", *parts),
        "body_not_hashed": digest("http", method, origin, target, b""),
        "boundary_moved": digest("http", method, origin + target, b"", empty),
    }, "proof_for_http")  # fmt: skip
    return table


# --- proof of possession ---------------------------------------------------------------------------------------------


def proof_of_possession() -> Table:
    table = Table(
        "proof_of_possession",
        "The proof that a text ends in: by the current key, for this token, server, request and moment.",
    )
    request = of_access(SELECT)
    child = handed(BOUND, "sales-agent")
    here = addressed(child)

    def allow(
        name: str,
        rule: str,
        parts: Parts = here,
        stated: str | None = None,
        access: Json = SELECT,
        holder: str = "sales-agent",
        request: bytes | None = None,
        issued: int = NOW,
        **known: Json,
    ) -> None:
        about = of_access(access) if request is None else request
        made = proof(parts, holder, about, issued=issued) if stated is None else stated
        come = outcome(parts, holder, issued)
        proven = tuple(link["to"] for link in parts.links if "to" in link)
        known = {"audiences": HERE, **known}
        table.allow(name, rule, parts, access, presented=shown(made, request), outcome=come, proven=proven, **known)

    def deny(
        name: str,
        rule: str,
        stated: str | None,
        parts: Parts = here,
        code: str = "bad_proof",
        access: Json = SELECT,
        request: bytes | None = None,
        **known: Json,
    ) -> None:
        table.deny(name, rule, code, parts, access, presented=shown(stated, request), **{"audiences": HERE, **known})

    good = proof(here, "sales-agent", request)
    allow("of_the_holder", "30.2")
    deny("missing", "30.4", None, code="proof_missing")

    # Whose it is, and for what.
    for name, holder in {"parent": "orchestrator", "stranger": "mail-agent", "grandchild": "report-agent"}.items():
        deny(f"of_the_{name}", "30.3", proof(here, holder, request))
    lower = handed(child, "report-agent", "sales-agent")
    allow("of_the_last_of_three", "30.3", addressed(lower), holder="report-agent")
    deny("of_the_second_of_three", "30.3", proof(addressed(lower), "sales-agent", request), addressed(lower))
    deny("of_the_first_of_three", "30.3", proof(addressed(lower), "orchestrator", request), addressed(lower))
    narrowed = extended(here, {"nbf": NOW})
    texts = {
        "its_child": narrowed, "another_presentation": extended(child, {"aud": ["sales-db"], "exp": NOW + 61}),
        "another_token": addressed(handed(token({**SALES, "key": HOLDER}, jti="A" * 22), "sales-agent")),
        "its_parent": addressed(BOUND),
    }  # fmt: skip
    table.beside("of_the_holder")
    for name, parts in texts.items():
        deny(f"for_{name}", "30.2", proof(parts, "sales-agent", request))
    allow("of_what_was_narrowed", "30.2", narrowed)
    deny("before_it_was_narrowed", "30.2", good, narrowed)
    for name, other in {
        "another_access": of_access({**SELECT, "operation": "insert"}), "no_access": of_access(None),
        "columns": of_access({**SELECT, "columns": []}),
        "hexadecimal": sha256(request.hex().encode()), "hash_of_it": sha256(request), "zero": bytes(32),
    }.items():  # fmt: skip
        deny(f"for_{name}", "30.2", proof(here, "sales-agent", other))
    allow("without_an_access", "24.8", access=None)
    deny("missing_without_an_access", "30.4", None, code="proof_missing", access=None)
    allow("without_an_access_of_the_caller", "24.8", access=None, caller={"agent": "sales-agent"})
    deny("without_an_access_for_one", "30.2", good, access=None)
    web = digest("http", b"GET", b"https://api.example", b"/", sha256(b""))
    allow("for_what_a_transport_states", "30.2", request=web)
    deny("for_the_access_where_a_transport_states", "30.2", good, request=web)
    deny("for_a_transport_where_none_states", "30.2", proof(here, "sales-agent", web))

    # For which server.
    both = extended(child, {"aud": ["hr-db", "mail-api", "sales-db"], "exp": NOW + 60})
    names = ("mail-api", "sales-db")
    allow("for_one_of_two_audiences", "30.6", both, audiences=names)
    allow("for_the_other_of_two_audiences", "30.6", both, proof(both, "sales-agent", request, "mail-api"), audiences=names)
    deny("for_an_audience_of_another_server", "30.6", proof(both, "sales-agent", request, "hr-db"), both, audiences=names)
    only = extended(both, {"aud": ["sales-db"]})
    allow("for_the_audience_left", "30.6", only, audiences=names)
    deny("for_an_audience_that_is_not_left", "30.6", proof(only, "sales-agent", request, "mail-api"), only, audiences=names)
    for name, audience in {
        "empty": "", "in_capitals": "SALES-DB", "with_space": "sales-db ", "url": "https://sales-db",
    }.items():  # fmt: skip
        deny(f"for_an_audience_{name}", "30.2", proof(here, "sales-agent", request, audience))
    minted = token({**SALES, "key": HOLDER}, aud="sales-db", key=audience_key(KEY, "sales-db"))
    allow("for_the_audience_of_the_root", "30.6", minted, holder="orchestrator")
    allow("unaddressed_where_that_is_taken", "30.6", child, allow_unaddressed=True)
    deny("unaddressed", "16.2", proof(child, "sales-agent", request), child, "unaddressed")
    table.beside("unaddressed_where_that_is_taken")
    deny("at_a_server_without_a_name", "30.6", proof(child, "sales-agent", request), child, "unaddressed", audiences=(),
         allow_unaddressed=True)  # fmt: skip
    deny(
        "at_a_server_without_a_name_for_nobody",
        "30.6",
        proof(child, "sales-agent", request, ""),
        child,
        "unaddressed",
        audiences=(),
    )

    # When.
    for name, issued in {"30_seconds_ago": NOW - 30, "5_seconds_ahead": NOW + 5}.items():
        allow(f"made_{name}", "30.5", issued=issued)
    moments = {
        "31_seconds_ago": NOW - 31, "6_seconds_ahead": NOW + 6,
        "at_zero": 0, "in_milliseconds": NOW * 1000, "at_2_to_the_63": 2**63, "at_2_to_the_64_less_1": 2**64 - 1,
    }  # fmt: skip
    for name, issued in moments.items():
        deny(f"made_{name}", "30.5", proof(here, "sales-agent", request, issued=issued))
    allow("made_30_seconds_ago_with_leeway", "30.5", issued=NOW - 30, leeway=60)
    deny("made_31_seconds_ago_with_leeway", "30.5", proof(here, "sales-agent", request, issued=NOW - 31), leeway=60)
    deny("made_6_seconds_ahead_with_leeway", "30.5", proof(here, "sales-agent", request, issued=NOW + 6), leeway=60)

    # What is signed.
    table.beside("of_the_holder")
    message = proof_message(here.signature, "sales-db", NOW, NONCE, request)
    signature = sign("sales-agent", message)
    deny("made_moved", "30.2", proof_text(NOW - 1, NONCE, signature))
    deny("nonce_changed", "30.2", proof_text(NOW, secret("another use", 16), signature))
    deny("nonce_of_another_use", "30.2", proof_text(NOW, bytes(16), signature))
    for name, other in signatures("sales-agent", message).items():
        deny(f"signature_{name}", "28.9", proof_text(NOW, NONCE, other))
    where, when, backwards = sha256(b"sales-db"), NOW.to_bytes(8, "big"), NOW.to_bytes(8, "little")
    messages = {
        "without_label": state(here.signature) + where + when + NONCE + request,
        "with_label_custody": label("custody") + state(here.signature) + where + when + NONCE + request,
        "of_the_tag": label("proof") + here.signature + where + when + NONCE + request,
        "of_the_state_before": label("proof") + state(here.tags[-2]) + where + when + NONCE + request,
        "of_the_link_id": label("proof") + link_id(here.signature).encode() + where + when + NONCE + request,
        "of_the_audience_unhashed": label("proof") + state(here.signature) + b"sales-db" + when + NONCE + request,
        "of_the_time_little_endian": label("proof") + state(here.signature) + where + backwards + NONCE + request,
        "without_the_time": label("proof") + state(here.signature) + where + NONCE + request,
        "without_the_nonce": label("proof") + state(here.signature) + where + when + request,
        "without_the_request": label("proof") + state(here.signature) + where + when + NONCE,
        "without_the_audience": label("proof") + state(here.signature) + when + NONCE + request,
        "of_its_hash": sha256(message),
    }  # fmt: skip
    for name, other in messages.items():
        deny(f"signature_{name}", "30.2", proof_text(NOW, NONCE, sign("sales-agent", other)))
    link = hand_over("report-agent", "sales-agent", key=b64(signing_public("report-agent")))
    deny(
        "signature_of_a_hand_over",
        "30.2",
        proof_text(NOW, NONCE, sign("sales-agent", label("custody") + state(here.signature) + sha256(canonical(link)))),
    )

    # How it is written.
    table.beside("of_the_holder")
    body = good[6:]
    spellings = {
        "empty": "", "prefix_alone": "cap1p_", "without_prefix": body, "prefix_in_capitals": "CAP1P_" + body,
        "prefix_of_a_token": "cap1_" + body,
        "prefix_of_a_discharge": "cap1d_" + body, "prefix_twice": "cap1p_cap1p_" + body, "cut": good[:-1],
        "cut_by_a_byte": good[:-2],
        "longer": good + "A", "padded": good + "==", "with_trailing_bits": good[:-1] + chr(ord(good[-1]) + 1),
        "with_line_feed": good + "\n",
        "with_space_first": " " + good, "with_plus": good[:20] + "+" + good[21:], "with_slash": good[:20] + "/" + good[21:],
        "with_full_stop": good[:20] + "." + good[21:], "with_null": good[:20] + "\0" + good[21:],
        "with_surrogate": good[:20] + "\ud800" + good[21:],
        "with_full_width": good[:20] + "\uff21" + good[21:], "twice": f"{good}.{good}", "twice_by_comma": f"{good},{good}",
        "of_two": f"{proof(here, 'sales-agent', request, nonce=bytes(16))}.{good}", "and_a_full_stop": good + ".",
        "behind_two_full_stops": "." + good, "before_a_token": f"{good}.{here.text}",
        "in_hexadecimal": "cap1p_" + (NOW.to_bytes(8, "big") + NONCE + signature).hex(), "as_a_token": here.text,
        "without_nonce": "cap1p_" + b64(NOW.to_bytes(8, "big") + signature),
        "with_nonce_of_32_bytes": "cap1p_" + b64(NOW.to_bytes(8, "big") + NONCE * 2 + signature),
    }  # fmt: skip
    for name, stated in spellings.items():
        deny(name if name.startswith(("with", "prefix", "in_", "as_")) else f"text_{name}", "30.1", stated, code="malformed")
    for name, whole in {
        "before_the_token": f"{good}.{here.text}", "alone": good, "by_comma": f"{here.text},{good}",
        "by_space": f"{here.text} {good}", "by_encoded_full_stop": f"{here.text}%2E{good}",
        "joined_to_the_token": here.text + good, "behind_an_empty_token": f".{good}",
    }.items():  # fmt: skip
        table.deny(f"text_{name}", "30.1", "malformed", whole, presented=shown(None), audiences=HERE)

    allow("of_the_example", "30.2", example())

    # With tokens that are not bound, or not yet.
    bearer = addressed(token(SALES))
    table.allow("none_with_a_bearer_token", "30.7", bearer, presented=shown(None), audiences=HERE)
    deny("with_a_bearer_token", "30.7", proof(bearer, "orchestrator", request), bearer)
    deny("unreadable_with_a_bearer_token", "30.7", good[:-1], bearer, "malformed")
    deny("empty_with_a_bearer_token", "30.7", "", bearer, "malformed")
    allow(
        "bound_in_the_last_link",
        "30.3",
        extended(token(SALES), {"aud": ["sales-db"], "exp": NOW + 60, "key": HOLDER}),
        holder="orchestrator",
    )
    deny(
        "bound_in_the_last_link_and_none",
        "30.4",
        None,
        extended(token(SALES), {"aud": ["sales-db"], "exp": NOW + 60, "key": HOLDER}),
        "proof_missing",
    )
    odd = addressed(token({**SALES, "key": b64(mixed(signing_public("sales-agent")))}))
    about = proof_message(odd.signature, "sales-db", NOW, NONCE, request)
    use_of_it = {"key": b64(mixed(signing_public("sales-agent"))), "uses": [use(mixed(signing_public("sales-agent")))], "evidence": []}
    table.allow("for_a_key_of_mixed_order_that_holds_without_the_cofactor", "28.9", odd, outcome=use_of_it, audiences=HERE,
                presented=shown(proof_text(NOW, NONCE, by_mixed_key("sales-agent", about, holds=True))))  # fmt: skip
    deny("for_a_key_of_mixed_order_that_holds_with_the_cofactor_alone", "28.9",
         proof_text(NOW, NONCE, by_mixed_key("sales-agent", about, holds=False)), odd)  # fmt: skip

    nobody = addressed(token({**SALES, "key": point(2)}))
    deny("for_a_key_that_is_no_point_and_none", "30.4", None, nobody, "proof_missing")
    allow("of_the_first_holder", "30.3", addressed(BOUND), holder="orchestrator")
    deny("for_a_key_that_is_no_point", "28.9", proof(nobody, "orchestrator", request), nobody)

    def making(name: str, parts: Parts | str, holder: str, audience: str, expect: dict[str, Json]) -> None:
        given = {"token": parts if isinstance(parts, str) else parts.text, "secret": secret(holder).hex(), "audience": audience,
                 "request": request.hex(), "now": NOW, "nonce": NONCE.hex()}  # fmt: skip
        table.add(f"making_{name}", "30.2", "proof", given, **expect)

    elsewhere = proof(here, "sales-agent", request, "hr-db")
    making("one", here, "sales-agent", "sales-db", {"text": ended(here.text, good)})
    making("one_for_another_server", here, "sales-agent", "hr-db", {"text": ended(here.text, elsewhere)})
    making("one_for_nobody", here, "sales-agent", "", {"code": "usage"})
    making("one_for_what_is_no_token", text(here.wire + b"\0"), "sales-agent", "sales-db", {"code": "malformed"})
    making("one_for_what_has_one", ended(here.text, elsewhere), "sales-agent", "sales-db", {"code": "malformed"})
    _holding(table, child, here, good)
    _presenting(table, child, request)
    return table


def _holding(table: Table, child: Parts, here: Parts, good: str) -> None:
    """Holders take no text with a proof: it is for one sending, to one server."""
    one = discharge("one", {"exp": NOW + 60})
    asked = asking(child, "one")
    kept = joined(asked, (one,), "cap1u_")
    sent, whole = addressed(asked), bundle(addressed(asked), one)

    def row(name: str, given: str, **expect: Json) -> None:
        table.add(f"holding_{name}", "30.9", "holding", {"token": given}, **(expect or {"code": "malformed"}))

    row("what_was_presented", here.text, needs=[], bound=here.text)
    row("one", ended(here.text, good))
    row("one_that_is_cut", ended(here.text, good[:-1]))
    row("an_unbound_discharge", kept, needs=[], bound=bundle(asked, one))
    row("one_behind_an_unbound_discharge", ended(kept, proof(asked, "sales-agent", of_access(SELECT))))
    row("one_behind_a_bound_discharge", ended(whole, proof(sent, "sales-agent", of_access(SELECT))))
    row("one_before_an_unbound_discharge", f"{asked.text}.{good}.{text(one.wire, 'cap1u_')}")


def _presenting(table: Table, child: Parts, request: bytes) -> None:
    """What a holder sends to a server, in one text."""

    def row(
        name: str,
        rule: str,
        held: Parts | str,
        expect: dict[str, Json],
        signer: str | None = None,
        audience: Json = "sales-db",
        request: bytes | None = request,
    ) -> None:
        given = {"token": held if isinstance(held, str) else held.text, "audience": audience, "now": NOW}
        if signer is not None:
            given |= {"secret": secret(signer).hex(), "nonce": NONCE.hex()}
        if signer is not None and request is not None:
            given["request"] = request.hex()
        table.add(f"presenting_{name}", rule, "presenting", given, **expect)

    def proved(parts: Parts, about: bytes = request) -> dict[str, Json]:
        return {"text": ended(addressed(parts).text, proof(addressed(parts), "sales-agent", about))}

    one = discharge("one", {"exp": NOW + 60})
    asked = asking(child, "one")
    bearer, sent = token(SALES), addressed(asked)
    row("what_is_not_bound", "23.17", bearer, {"text": addressed(bearer).text})
    row("what_is_bound", "23.17", child, proved(child), "sales-agent")
    first = addressed(BOUND)
    row("what_the_first_holder_has", "23.17", BOUND, {"text": ended(first.text, proof(first, "orchestrator", request))}, "orchestrator")
    row("what_is_bound_for_no_access", "29.5", child, proved(child, of_access(None)), "sales-agent", request=None)
    row("what_is_bound_without_a_signer", "23.17", child, {"text": addressed(child).text})
    whole = bundle(sent, one)
    row("with_a_discharge", "33.3", joined(asked, (one,), "cap1u_"),
        {"text": ended(whole, proof(sent, "sales-agent", request))}, "sales-agent")  # fmt: skip
    row("what_expires_sooner", "23.11", extended(child, {"exp": NOW + 5}), _presented_until(child, NOW + 5, request),
        "sales-agent")  # fmt: skip
    row("for_two_servers_without_a_signer", "23.17", bearer,
        {"text": extended(bearer, {"aud": ["hr-db", "sales-db"], "exp": NOW + 60}).text}, audience=["sales-db", "hr-db"])  # fmt: skip
    row("for_two_servers", "23.17", child, {"code": "usage"}, "sales-agent", ["sales-db", "hr-db"])
    row("for_nobody", "23.17", child, {"code": "usage"}, "sales-agent", "")
    row("by_another_key", "23.17", child, {"code": "bad_proof"}, "orchestrator")
    row("what_is_not_bound_with_a_signer", "23.17", bearer, {"code": "bad_proof"}, "orchestrator")
    for chars, signer in ((7168, None), (7169, None), (7168, "sales-agent"), (7169, "sales-agent")):
        held = _sized(child, chars - (0 if signer is None else 125))
        fits = {"text": addressed(held).text} if signer is None else proved(held)
        ending = "" if signer is None else "_with_its_proof"
        row(f"of_{chars}_characters{ending}", "23.17", held, fits if chars == 7168 else {"code": "limit"}, signer)


def _presented_until(child: Parts, end: int, request: bytes) -> dict[str, Json]:
    """The text of a token that expires before what is presented does."""
    whole = extended(child, {"exp": end}, {"aud": ["sales-db"], "exp": end})
    return {"text": ended(whole.text, proof(whole, "sales-agent", request))}


def _sized(child: Parts, chars: int) -> Parts:
    """The token, narrowed so that its text is that long as it is presented: at the nearest length that base64 has."""
    wanted = (chars - len("cap1_")) * 3 // 4
    tables = ["sales", *(f"{number:03}" + "x" * 197 for number in range(22))]
    short = len(addressed(extended(child, {"tables": [*tables, "y"]})).wire)
    return extended(child, {"tables": [*tables, "y" * (1 + wanted - short)]})


# --- replay ----------------------------------------------------------------------------------------------------------


def replay() -> Table:
    """`replays` is what the store has when the request comes: its floor, its limit, and uses in the order they came."""
    table = Table("replay", "The one use of a proof: what a store remembers, what it refuses, and when it cannot tell.")
    here = addressed(handed(BOUND, "sales-agent"))
    public = signing_public("sales-agent")
    first = use(public)

    def given(stated: str, replays: Json) -> dict[str, Json]:
        return shown(stated, None, replays)

    def store(*used: Json, floor: int = 0, limit: int = 1000) -> dict[str, Json]:
        return {"floor": floor, "limit": limit, "used": list(used)}

    def allow(
        name: str,
        rule: str,
        replays: Json,
        parts: Parts = here,
        holder: str = "sales-agent",
        issued: int = NOW,
        nonce: bytes = NONCE,
        access: Json = SELECT,
    ) -> None:
        made = proof(parts, holder, of_access(access), issued=issued, nonce=nonce)
        come = outcome(parts, holder, issued, nonce)
        proven = tuple(link["to"] for link in parts.links if "to" in link)
        table.allow(name, rule, parts, access, presented=given(made, replays), outcome=come, proven=proven, audiences=HERE)

    def deny(
        name: str,
        rule: str,
        code: str,
        replays: Json,
        parts: Parts = here,
        issued: int = NOW,
        nonce: bytes = NONCE,
        access: Json = SELECT,
        **known: Json,
    ) -> None:
        made = proof(parts, "sales-agent", of_access(access), issued=issued, nonce=nonce)
        table.deny(name, rule, code, parts, access, presented=given(made, replays), **{"audiences": HERE, **known})

    allow("first_use", "31.1", store())
    deny("second_use", "31.2", "replayed", store(first))
    deny("second_use_made_at_another_moment", "31.1", "replayed", store(first), issued=NOW - 1)
    deny("second_use_of_the_nonce_with_another_token", "31.1", "replayed", store(first), extended(here, {"nbf": NOW}))
    other = {**SELECT, "columns": []}
    deny("second_use_of_the_nonce_with_another_request", "31.1", "replayed", store(first), access=other)
    deny(
        "second_use_after_others",
        "31.2",
        "replayed",
        store(use(public, nonce=bytes(16)), first, use(public, nonce=bytes(15) + b"\1")),
    )
    allow("first_use_made_at_another_moment", "31.1", store(), issued=NOW - 1)
    allow("first_use_with_another_token", "31.1", store(), extended(here, {"nbf": NOW}))
    allow("first_use_with_another_request", "31.1", store(), access=other)
    allow("another_nonce", "31.1", store(first), nonce=secret("another use", 16))
    allow("another_key_with_the_same_nonce", "31.1", store(first), addressed(BOUND), "orchestrator")
    allow("an_entry_without_label", "31.1", store({**first, "entry": sha256(public + NONCE)[:16].hex()}))
    allow("an_entry_of_the_nonce_alone", "31.1", store({**first, "entry": NONCE.hex()}))
    floors = {
        "the_floor": (NOW, NOW), "a_higher_floor": (NOW, NOW + 1),
        "the_floor_of_a_start_now": (NOW, NOW + 5), "the_floor_at_the_edge_of_the_window": (NOW - 30, NOW - 30),
    }  # fmt: skip
    for name, (issued, floor) in floors.items():
        deny(f"made_at_or_before_{name}", "31.3", "replayed", store(floor=floor), issued=issued)
    for name, issued, floor in (
        ("the_floor", NOW, NOW - 1),
        ("the_floor_of_a_start", NOW + 5, NOW + 4),
        ("the_edge", NOW - 30, NOW - 31),
    ):
        allow(f"made_after_{name}", "31.3", store(floor=floor), issued=issued)
    entries = [use(public, nonce=bytes((number,)) * 16) for number in range(3)]
    allow("nearly_full", "31.4", store(*entries, limit=4))
    deny("full", "31.4", "store_unavailable", store(*entries, limit=3))
    deny("full_of_nothing", "31.4", "store_unavailable", store(limit=0))
    deny("that_cannot_be_reached", "31.4", "store_unavailable", {**store(), "down": True})
    deny("full_and_second_use", "31.4", "replayed", store(*entries[:2], first, limit=3))
    old = [use(public, NOW - 31, bytes((number,)) * 16) for number in range(3)]
    allow("full_of_what_can_be_forgotten", "31.3", store(*old, limit=3))
    edge = [use(public, NOW - 30, bytes((number,)) * 16) for number in range(3)]
    allow("nearly_full_of_what_cannot_be_forgotten_yet", "31.3", store(*edge, limit=4))
    deny("full_of_what_cannot_be_forgotten_yet", "31.3", "store_unavailable", store(*edge, limit=3))
    allow("the_nonce_of_a_use_that_is_forgotten", "31.1", store(use(public, NOW - 31), limit=1))
    deny("the_nonce_of_a_use_that_is_not_forgotten_yet", "31.1", "replayed", store(use(public, NOW - 30), limit=1))
    table.beside("full_of_what_can_be_forgotten")
    deny("without_a_store", "31.4", "store_unavailable", None)
    return table


# --- transports ------------------------------------------------------------------------------------------------------


def transports() -> Table:
    table = Table("transports", "An MCP message as what a proof is about: the access that it comes to, spelled in one way.")

    def row(name: str, rule: str, method: str, params: dict[str, Json], *, stated: bool = True) -> None:
        expect: dict[str, Json] = {"digest": of_message(method, params).hex()} if stated else {"code": "usage"}
        table.add(name, rule, "request", {"form": "message", "method": method, "params": params}, **expect)

    def calls(case: str, *, stated: bool = True, **params: Json) -> None:
        row(f"call_{case}", "40.4" if not stated else "40.5", "tools/call", {"name": "search", **params}, stated=stated)

    calls("without_arguments")
    calls("of_no_arguments", arguments={})
    calls("of_null_arguments", arguments=None)
    calls("of_another_tool", name="search2")
    calls("of_arguments", arguments={"q": "x", "limit": 10})
    calls("of_arguments_in_another_order", arguments={"limit": 10, "q": "x"})
    calls("of_a_fraction", arguments={"limit": 10.0})
    calls("of_true", arguments={"limit": True})
    calls("of_what_is_nested", arguments={"q": [{"b": [], "a": {}}, None]})
    calls("of_what_is_escaped", arguments={"q": '"\\/\b\x01\x7f\u00e9\u2028\U0001f600'})
    calls("with_meta_beside", arguments={"q": "x"}, _meta={"progressToken": 1})
    calls("with_more_beside", arguments={"q": "x"}, task={"ttl": 1})
    row("read", "40.5", "resources/read", {"uri": "file:///a"})
    row("read_of_another", "40.5", "resources/read", {"uri": "file:///b"})
    row(
        "read_with_meta",
        "40.4",
        "resources/read",
        {"uri": "file:///a", "_meta": {"x": 1}, "requestState": "s", "inputResponses": {}},
    )
    row("prompt", "40.4", "prompts/get", {"name": "greet"})
    row("prompt_with_null_arguments", "40.4", "prompts/get", {"name": "greet", "arguments": None})
    row("prompt_with_a_null_member", "40.4", "prompts/get", {"name": "greet", "title": None})
    row("prompt_with_arguments", "40.4", "prompts/get", {"name": "greet", "arguments": {"style": "short"}})
    row("prompt_with_an_argument_called_name", "40.4", "prompts/get", {"name": "greet", "arguments": {"name": "x"}})
    for method in ("tools/list", "resources/list", "resources/templates/list", "prompts/list"):
        row(method.replace("/", "_"), "40.5", method, {"cursor": "2"})
    row("tools_list_with_arguments_that_are_no_object", "40.5", "tools/list", {"arguments": [1]})
    row("tasks_list", "40.5", "tasks/list", {"cursor": "2"})
    calls("of_a_tool_like_a_method", name="resources/read", stated=False)
    calls("of_a_tool_that_is_no_text", name=5, stated=False)
    calls("of_arguments_as_list", arguments=[1], stated=False)
    calls("of_arguments_as_text", arguments="{}", stated=False)
    row("method_that_is_like_none", "40.5", "x/search", {"q": "x"})
    row("prompt_with_two_that_are_alike", "40.5", "prompts/get", {"name": "greet", "arguments.style": "x", "arguments": {"size": "y"}})
    row("method_like_a_tool", "40.4", "search", {"q": "x"}, stated=False)
    row("prompt_with_arguments_as_list", "40.4", "prompts/get", {"name": "greet", "arguments": ["x"]}, stated=False)
    row("prompt_with_two_of_one_name", "40.4", "prompts/get",
        {"name": "greet", "arguments.style": "x", "arguments": {"style": "y"}}, stated=False)  # fmt: skip
    return table

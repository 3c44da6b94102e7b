"""Vectors of what an issuer writes: Minting."""

from __future__ import annotations

from collections.abc import Iterator

from spec.generate.binding import HOLDER, P, mixed, point
from spec.generate.build import KEY, NOW, OTHER_KEY, Json, audience_key, b64, nonce, secret, signing_public, token
from spec.generate.table import SALES, Table, keyring

TOKEN_ID = secret("token id", 16)
LIFE: dict[str, Json] = {"exp": NOW + 900}


def tables() -> Iterator[Table]:
    yield minting()


def minting() -> Table:
    table = Table("minting", "What an issuer writes: root record and link 0, byte for byte; and what it refuses to mint.")
    two = keyring({"k1": KEY, "k2": OTHER_KEY})

    def row(name: str, rule: str, expect: dict[str, Json], ring: Json = two, current: str = "k1", said: Json = None,
            **asked: Json) -> None:  # fmt: skip
        given: dict[str, Json] = {
            "keyring": ring, "current": current, "subject": "user:jane", "agent": "orchestrator", "task": "task-123",
            "asked": {"operations": ["select"], "tables": ["sales"], **asked}, "now": NOW,
            "token_id": TOKEN_ID.hex(), "nonce": (7).to_bytes(8, "big").hex(), **(said or {}),
        }  # fmt: skip
        given["asked"] = {key: value for key, value in given["asked"].items() if value != "left out"}
        table.add(name, rule, "mint", given, **expect)

    def mints(name: str, rule: str, link: Json, ring: Json = two, current: str = "k1", record: Json = None, said: Json = None,
              under: bytes = KEY, **asked: Json) -> None:  # fmt: skip
        stated = {"jti": b64(TOKEN_ID), "kid": current, **(record or {})}
        row(name, rule, {"token": token(link, key=under, **stated).text}, ring, current, said, **asked)

    def refuses(name: str, rule: str, ring: Json = two, said: Json = None, code: str = "usage", **asked: Json) -> None:
        row(name, rule, {"code": code}, ring, said=said, **asked)

    none = "left out"
    mints("without_an_expiry", "22.3", {**SALES, **LIFE})
    mints("by_a_clock_before_1970", "22.2", {**SALES, "exp": 895}, said={"now": -5}, record={"iat": -5})
    mints("with_another_token_id", "22.2", {**SALES, **LIFE}, said={"token_id": secret("another id", 16).hex()},
          record={"jti": b64(secret("another id", 16))})  # fmt: skip
    mints("under_another_key", "22.1", {**SALES, **LIFE}, current="k2", under=OTHER_KEY)
    server = keyring({"k1": audience_key(KEY, "sales-db")}, "sales-db")
    here: dict[str, Json] = {"aud": "sales-db"}
    mints("for_one_audience", "22.1", {**SALES, **LIFE}, server, record=here, under=audience_key(KEY, "sales-db"))
    mints("for_an_audience_among_others", "22.6", {**SALES, **LIFE, "aud": ["hr-db", "sales-db"]}, server, record=here,
          under=audience_key(KEY, "sales-db"), audience=["sales-db", "hr-db"])  # fmt: skip
    refuses("for_another_audience", "22.6", server, audience=["hr-db"])
    mints("for_nobody_in_particular", "22.6", {**SALES, **LIFE, "aud": ["hr-db"]}, audience="hr-db")
    mints("for_long_names", "4.1", {**SALES, **LIFE}, said={"subject": "x" * 128, "agent": "a/b:c@d+e", "task": "t/" + "x" * 126},
          record={"sub": "x" * 128, "agent": "a/b:c@d+e", "task": "t/" + "x" * 126})  # fmt: skip
    table.beside("without_an_expiry")
    names: dict[str, dict[str, str]] = {
        "subject": {"empty": "", "space": "user jane", "129_characters": "x" * 129, "star": "*", "latin": "caf\u00e9",
                    "surrogate": "\ud800"},
        "agent": {"empty": "", "space": "a b", "129_characters": "x" * 129},
        "task": {"empty": "", "empty_segment": "task//1", "slash_first": "/task", "slash_last": "task/", "two_dots": "a/../b",
                 "space": "task 1"},
    }  # fmt: skip
    for key, values in names.items():
        for name, value in values.items():
            refuses(f"{key}_{name}", "4.2" if key == "task" else "4.1", said={key: value})

    # When it ends.
    mints("for_a_minute", "22.3", {**SALES, "exp": NOW + 60}, expires_in=60)
    mints("for_a_second", "22.3", {**SALES, "exp": NOW + 1}, expires_in=1)
    mints("until_a_moment", "22.3", {**SALES, "exp": NOW + 86400}, expires_at=NOW + 86400)
    mints("until_a_moment_that_is_gone", "22.3", {**SALES, "exp": 0}, expires_at=0)
    mints("for_ever", "22.3", SALES, expires_at=None)
    mints("from_a_moment", "22.3", {**SALES, **LIFE, "nbf": NOW + 60}, not_before=NOW + 60)
    table.beside("for_a_minute")
    for name, seconds in {"no_time": 0, "less_than_no_time": -5, "true": True, "null": None}.items():
        refuses(f"for_{name}", "22.3", expires_in=seconds)
    table.beside("until_a_moment")
    refuses("until_true", "22.3", expires_at=True)
    refuses("until_too_late_a_moment", "2.1", expires_at=2**53)
    refuses("until_a_moment_and_for_a_minute", "22.3", expires_at=NOW + 86400, expires_in=60)
    table.beside("for_ever")
    refuses("for_ever_and_for_a_minute", "22.3", expires_at=None, expires_in=60)

    # What it permits is named.
    any_: dict[str, Json] = {"any": True}
    mints("sorted_and_once", "23.18", {**LIFE, "operations": ["insert", "select"], "tables": ["hr", "sales"]},
          operations=["select", "insert", "select"], tables=["sales", "hr"])  # fmt: skip
    mints("by_pairs", "22.4", {**LIFE, "allow": {"sales": ["select"]}}, operations=none, tables=none, allow={"sales": ["select"]})
    mints("of_tools", "22.4", {**LIFE, "tools": {"search": {"q": any_}}}, operations=none, tables=none, tools={"search": {"q": any_}})
    mints("of_both_domains", "22.4", {**SALES, **LIFE, "tools": {"search": {}}}, tools={"search": {}})
    mints("with_columns", "22.4", {**SALES, **LIFE, "columns": {"sales": ["region"]}}, columns={"sales": ["region"]})
    mints("with_rows", "22.4", {**SALES, **LIFE, "rows": {"sales": {"x": {"max": 5, "min": 0}}}}, rows={"sales": {"x": {"max": 5}}})
    mints("that_completes_a_range", "13.6", {**SALES, **LIFE, "where": {"x": {"max": 5, "min": 0}}}, where={"x": {"max": 5}})
    mints("of_a_range_in_any_order", "13.1", {**SALES, **LIFE, "where": {"x": {"max": 5, "min": 1}}}, where={"x": {"min": 1, "max": 5}})
    mints("of_an_each_in_any_order", "13.1", {**SALES, **LIFE, "where": {"x": {"each": {"any": True}, "most": 2}}},
          where={"x": {"most": 2, "each": {"any": True}}})  # fmt: skip
    knows = [{"key": f"acme:{domain}", "domain": domain, "does": "holds"} for domain in ("data", "tool", "all")]
    mints("with_a_key_of_ones_own", "22.4", {**SALES, **LIFE, "acme:all": 1, "acme:data": 2}, said={"own": knows},
          **{"acme:all": 1, "acme:data": 2})  # fmt: skip
    mints("of_tools_with_a_key_of_ones_own", "22.4", {**LIFE, "acme:tool": 1, "tools": {"search": {}}}, said={"own": knows}, operations=none,
          tables=none, tools={"search": {}}, **{"acme:tool": 1})  # fmt: skip
    mints("of_an_own_key_and_unrestricted", "22.4", {**LIFE, "acme:data": 1}, said={"own": knows}, operations=none, tables=none, unrestricted=True,
          **{"acme:data": 1})  # fmt: skip
    table.beside("with_a_key_of_ones_own")
    refuses("of_tables_with_an_own_key_of_tools", "22.4", said={"own": knows}, **{"acme:tool": 1, "acme:all": 1, "acme:data": 2})
    table.beside("of_tools_with_a_key_of_ones_own")
    refuses("of_tools_with_an_own_key_of_data", "22.4", said={"own": knows}, operations=none, tables=none, tools={"search": {}},
            **{"acme:tool": 1, "acme:data": 1})  # fmt: skip
    table.beside("of_an_own_key_and_unrestricted")
    refuses("of_an_own_key_alone", "22.4", said={"own": knows}, operations=none, tables=none, **{"acme:data": 1})
    inner: Json = {"max": 5}
    for _ in range(4):
        inner = {"each": inner}
    mints("that_completes_a_range_in_four_each", "13.6", {**SALES, **LIFE, "where": {"x": {"each": {"each": {"each": {"each": {"max": 5, "min": 0}}}}}}},
          where={"x": inner})  # fmt: skip
    refuses("that_completes_a_range_in_five_each", "13.17", where={"x": {"each": inner}})
    mints("unrestricted", "22.4", LIFE, operations=none, tables=none, unrestricted=True)
    mints("that_says_nothing", "22.5", {"nbf": NOW}, operations=none, tables=none, unrestricted=True, expires_at=None)
    mints("unrestricted_but_for_attributes", "22.4", {**LIFE, "where": {"x": any_}}, operations=none, tables=none,
          unrestricted=True, where={"x": any_})  # fmt: skip
    table.beside("without_an_expiry")
    refuses("of_tables_without_operations", "22.4", operations=none)
    refuses("of_operations_without_tables", "22.4", tables=none)
    refuses("of_tables_and_unrestricted", "22.4", unrestricted=True)
    for name, asked in {
        "operations": {"operations": ["select"]}, "tables": {"tables": ["sales"]}, "pairs": {"allow": {"sales": ["select"]}},
        "columns": {"columns": {"sales": ["region"]}}, "rows": {"rows": {"sales": {}}}, "tools": {"tools": {"search": {}}},
    }.items():  # fmt: skip
        table.beside("unrestricted")
        refuses(f"of_{name}_alone_and_unrestricted", "22.4", unrestricted=True, **{"operations": none, "tables": none, **asked})
    table.beside("without_an_expiry")
    refuses("unrestricted_as_text", "22.4", unrestricted="yes")
    table.beside("unrestricted_but_for_attributes")
    refuses("of_attributes_alone", "22.4", operations=none, tables=none, where={"x": any_})
    table.beside("unrestricted")
    refuses("of_nothing_named", "22.4", operations=none, tables=none)
    table.beside("with_columns")
    refuses("of_columns_alone", "22.4", operations=none, tables=none, columns={"sales": ["region"]})
    refuses("with_columns_as_list", "15.4", columns=["region"])
    table.beside("with_rows")
    refuses("of_rows_alone", "22.4", operations=none, tables=none, rows={"sales": {"x": any_}})
    refuses("with_rows_as_list", "15.13", rows=["region"])
    refuses("with_rows_that_lift", "15.14", rows={"*": {"x": any_}, "sales": {"y": any_}})
    table.beside("without_an_expiry")
    refuses("with_a_task_in_link_0", "22.1", task="task-123")
    refuses("that_cuts", "23.15", clamp=True)
    refuses("with_an_unknown_word", "15.11", used=1)
    refuses("with_a_key_of_nobody_here", "15.12", **{"acme:region": ["eu"]})
    refuses("of_a_name_that_is_not_composed", "4.7", tables=["cafe\u0301"])

    # What is counted, handed on, bound.
    counts: dict[str, Json] = {"n": nonce(7)}
    mints("with_uses", "17.6", {**SALES, **LIFE, **counts, "uses": 3}, uses=3)
    mints("with_a_budget", "17.6", {**SALES, **LIFE, **counts, "budget": {"cents": 5}}, budget={"cents": 5})
    mints("that_is_to_be_fresh", "36.11", {**SALES, **LIFE, "fresh": 10}, fresh=10)
    mints("to_be_handed_on_once", "20.1", {**SALES, **LIFE, "depth": 1}, depth=1)
    mints("for_handing_on", "20.1", {**SALES, **LIFE, "delegate_only": True}, delegate_only=True)
    table.beside("with_uses")
    for name, value in {"negative": -1, "as_text": "3", "true": True, "null": None, "too_large": 2**53}.items():
        refuses(f"with_uses_{name}", "15.9", uses=value)
    table.beside("with_a_budget")
    for name, budget in {"empty": {}, "of_uses": {"uses": 5}, "of_no_name": {"us cents": 5}}.items():
        refuses(f"with_a_budget_{name}", "15.9", budget=budget)
    refuses("with_a_budget_of_17_units", "38.13", code="limit", budget={f"u{number:02}": 1 for number in range(17)})
    table.beside("to_be_handed_on_once")
    refuses("to_be_handed_on_less_than_never", "20.1", depth=-1)
    table.beside("for_handing_on")
    refuses("for_handing_on_false", "23.14", delegate_only=False)
    mints("bound_to_a_key", "22.7", {**SALES, **LIFE, "key": HOLDER}, key=HOLDER)
    for name, public in _keys().items():
        refuses(f"bound_to_a_key_{name}", "27.5", key=public)

    # Facts of the embedding project.
    facts: dict[str, Json] = {"acme:seat": 4, "acme:tenant": "t 1"}
    mints("with_facts", "9.4", {**SALES, **LIFE}, record={"ext": facts}, ext=facts)
    mints("with_no_facts", "9.4", {**SALES, **LIFE}, ext={})
    table.beside("with_facts")
    for name, fact in {
        "under_a_bare_name": {**facts, "tenant": "t1"}, "that_are_true": {**facts, "acme:seat": True},
        "that_are_fractions": {**facts, "acme:seat": 0.5}, "that_are_lists": {**facts, "acme:seat": [4]},
        "that_are_too_large": {**facts, "acme:seat": 2**53}, "with_a_surrogate": {**facts, "acme:tenant": "\ud800"},
    }.items():  # fmt: skip
        refuses(f"with_facts_{name}", "9.4", ext=fact)
    many = ["sales", *(f"{number:03}" + "x" * 197 for number in range(28))]
    for chars, code in ((8192, ""), (8193, "limit")):
        bare = token({**SALES, **LIFE, "tables": [*many, "y"]}, jti=b64(TOKEN_ID)).wire
        tables = sorted([*many, "y" * (1 + 6140 + (chars - 8192) - len(bare))])
        if code:
            refuses(f"with_{chars}_characters", "3.2", code=code, tables=tables)
        else:
            mints(f"with_{chars}_characters", "3.2", {**SALES, **LIFE, "tables": tables}, tables=tables)
    fitting = 1024 - len(token(jti=b64(TOKEN_ID), ext={"acme:note": ""}).identifier)
    note = {"acme:note": "x" * fitting}
    mints("with_facts_that_just_fit", "3.2", {**SALES, **LIFE}, record={"ext": note}, ext=note)
    refuses("with_facts_that_are_too_long", "3.2", code="limit", ext={"acme:note": "x" * (fitting + 1)})
    return table


def _keys() -> dict[str, str]:
    """Public keys that a writer refuses."""
    agent = signing_public("orchestrator")
    return {
        "of_low_order": point(1), "that_is_no_point": point(2), "of_mixed_order": b64(mixed(agent)),
        "that_is_not_canonical": point(P + 3), "of_31_bytes": HOLDER[:42], "that_is_empty": "",
    }  # fmt: skip

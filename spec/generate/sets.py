"""Vectors of sets of tokens: which tokens are one, its text, and what its holder writes."""

from __future__ import annotations

from collections.abc import Iterator

from spec.generate.binding import HOLDER
from spec.generate.build import (
    KEY,
    NOW,
    Json,
    Parts,
    audience_key,
    b64,
    custody,
    extended,
    hand_over,
    nonce,
    secret,
    signing_public,
    token,
)  # fmt: skip
from spec.generate.table import SALES, Table, keyring

LIFE: dict[str, Json] = {"exp": NOW + 900}
TOOLS: dict[str, Json] = {**LIFE, "tools": {"send": {"to": {"any": True}}}}


def tables() -> Iterator[Table]:
    yield sets()


def minted(server: str | None, link: Json, *links: Json, **changes: Json) -> Parts:
    """A token under the keys of that server alone."""
    return token(link, *links, key=KEY if server is None else audience_key(KEY, server), aud=server, **changes)


def spelled(*parts: Parts | str) -> str:
    """The text of a set of these, in that order. A text is one that is spelled already."""
    return "caps1_" + "~".join((part if isinstance(part, str) else part.text).removeprefix("cap1_") for part in parts)


HR = minted("hr-db", {**LIFE, "operations": ["select"], "tables": ["hr"]})
MAIL = minted("mail", TOOLS)
BOTH = minted("sales-db", {**LIFE, "operations": ["insert", "select"], "tables": ["market.*", "sales"]})


def sets() -> Table:
    table = Table("sets", "Tokens of several servers that are one set, its text, and what is written when it is narrowed and handed on.")
    _joined(table)
    _read(table)
    _narrowed(table)
    here = keyring({"k1": audience_key(KEY, "sales-db")}, "sales-db")
    table.allow("token_of_it_sent_to_its_server", "45.4", BOTH, ring=here, audiences=("sales-db",))
    table.deny("sent_to_a_server", "45.4", "malformed", spelled(BOTH), ring=here, audiences=("sales-db",))
    table.deny("of_three_sent_to_a_server", "45.4", "malformed", spelled(HR, MAIL, BOTH), ring=here, audiences=("sales-db",))
    return table


def _joined(table: Table) -> None:
    def row(name: str, rule: str, *parts: Parts, text: str | None = None) -> None:
        given: dict[str, Json] = {"tokens": [part.text for part in parts]}
        if text is None:
            table.add(f"of_{name}", rule, "set_of", given, "usage")
        else:
            table.add(f"of_{name}", rule, "set_of", given, text=text)

    many = [minted(f"server-{number:02}", TOOLS) for number in range(33)]
    row("one", "45.2", MAIL, text=spelled(MAIL))
    row("none", "45.2")
    row("one_that_names_no_server", "45.2", minted(None, TOOLS))
    row("two_of_one_server", "45.2", MAIL, minted("mail", TOOLS, jti="QUJDREVGR0hJSktMTU5PUA"))
    row("32", "45.2", *many[:32], text=spelled(*many[:32]))
    row("33", "45.2", *many)
    row("three_in_another_order", "45.3", BOTH, MAIL, HR, text=spelled(HR, MAIL, BOTH))
    row("two_ids_and_times", "45.2", HR, minted("mail", TOOLS, jti="QUJDREVGR0hJSktMTU5PUA", iat=NOW - 1),
        text=spelled(HR, minted("mail", TOOLS, jti="QUJDREVGR0hJSktMTU5PUA", iat=NOW - 1)))  # fmt: skip
    row("two", "45.2", HR, MAIL, text=spelled(HR, MAIL))
    for name, changed in {"subject": {"sub": "user:joe"}, "agent": {"agent": "clerk"}, "task": {"task": "task-9"}}.items():
        row(f"another_{name}", "45.2", HR, minted("mail", TOOLS, **changed))
    row("a_narrower_task", "45.2", HR, minted("mail", {**TOOLS, "task": "task-123/a"}))
    row("one_that_was_handed_on", "45.2", HR, extended(MAIL, hand_over("clerk")))
    row("one_that_is_bound", "45.2", HR, minted("mail", {**TOOLS, "key": HOLDER}))


def _read(table: Table) -> None:
    def row(name: str, rule: str, text: str, *parts: Parts, servers: tuple[str, ...] = ()) -> None:
        given: dict[str, Json] = {"text": text}
        if not servers:
            table.add(f"text_{name}", rule, "set_read", given, "malformed")
        else:
            table.add(f"text_{name}", rule, "set_read", given, servers=list(servers), tokens=[part.text for part in parts])

    mail, hr = MAIL.text[5:], HR.text[5:]
    row("of_one", "45.3", spelled(MAIL), MAIL, servers=("mail",))
    for name, text in {
        "of_nothing": "caps1_", "without_its_prefix": mail, "of_a_token": MAIL.text, "in_capitals": "CAPS1_" + mail,
        "with_a_tilde_behind": f"caps1_{mail}~", "with_a_tilde_before": f"caps1_~{mail}", "with_a_line_feed_behind": f"caps1_{mail}\n",
        "with_a_blank_before": f" caps1_{mail}", "with_a_proof_behind": f"caps1_{mail}.cap1p_AAAA", "that_is_cut": f"caps1_{mail[:-1]}",
    }.items():  # fmt: skip
        row(name, "45.3", text)
    row("of_two", "45.3", spelled(HR, MAIL), HR, MAIL, servers=("hr-db", "mail"))
    row("in_another_order", "45.3", spelled(MAIL, HR))
    row("with_a_prefix_within", "45.3", f"caps1_{hr}~cap1_{mail}")
    row("with_two_tildes", "45.3", f"caps1_{hr}~~{mail}")
    row("with_a_full_stop_between", "45.3", f"caps1_{hr}.{mail}")
    row("with_one_server_twice", "45.2", spelled(MAIL, MAIL))
    row("of_another_subject", "45.2", spelled(HR, minted("mail", TOOLS, sub="user:joe")))
    handed = [extended(part, hand_over("clerk")) for part in (HR, MAIL, BOTH)]
    row("that_was_handed_on", "45.3", spelled(*handed), *handed, servers=("hr-db", "mail", "sales-db"))
    many = [minted(f"server-{number:02}", TOOLS) for number in range(33)]
    row("of_32", "45.2", spelled(*many[:32]), *many[:32], servers=tuple(f"server-{number:02}" for number in range(32)))
    row("of_33", "45.2", spelled(*many))


def _narrowed(table: Table) -> None:
    def row(name: str, rule: str, parts: tuple[Parts, ...], expect: dict[str, Json], to: str | None = None,
            at: list[str] | None = None, only: Json = None, signer: str | None = None, **asked: Json) -> None:  # fmt: skip
        given: dict[str, Json] = {"text": spelled(*parts), "asked": asked, "to": to, "now": NOW, "nonce": (7).to_bytes(8, "big").hex()}
        given |= {} if at is None else {"servers": at}
        given |= {} if only is None else {"only": only}
        given |= {} if signer is None else {"signer": secret(signer).hex()}
        table.add(f"narrowed_{name}", rule, "set_narrowing", given, **expect)

    def writes(name: str, rule: str, parts: tuple[Parts, ...], *links: Json, **more: Json) -> None:
        made = [part if link is None else extended(part, link) for part, link in zip(parts, links, strict=True)]
        row(name, rule, parts, {"text": spelled(*made)}, **more)

    def fails(name: str, rule: str, parts: tuple[Parts, ...], code: str = "usage", **more: Json) -> None:
        row(name, rule, parts, {"code": code}, **more)

    def beyond(name: str, dimension: str, server: str, parts: tuple[Parts, ...], code: str = "widening", **more: Json) -> None:
        row(name, "23.3", parts, {"code": code, "dimension": dimension, "server": server}, **more)

    two, three = (MAIL, BOTH), (HR, MAIL, BOTH)
    over = hand_over("clerk", number=7)
    until: dict[str, Json] = {"exp": NOW + 60}

    # What goes to all.
    writes("by_a_hand_over", "45.5", three, over, over, over, to="clerk")
    fails("to_no_name", "4.1", three, to="a clerk")
    writes("in_time", "45.5", three, until, until, until, expires_in=60)
    fails("by_nothing", "23.2", three)
    fails("by_an_audience", "45.2", three, audience=["mail"])
    fails("by_an_unknown_word", "15.11", three, used=1)

    # What goes to the servers that hold its domain.
    sales: dict[str, Json] = {"tables": ["sales"]}
    writes("by_tables", "45.5", two, None, sales, **sales)
    writes("by_tables_and_a_hand_over", "45.5", two, over, {**over, **sales}, to="clerk", **sales)
    beyond("by_tables_not_held", "tables", "sales-db", two, tables=["hr"])
    writes("by_tools", "45.5", three, None, {"tools": {"send": {"to": {"in": ["a"]}}}}, None, tools={"send": {"to": {"in": ["a"]}}})
    beyond("by_tools_not_held", "tools", "mail", three, tools={"pay": {}})
    writes("by_tables_of_both", "45.5", (HR, BOTH), {"tables": ["hr"]}, sales, tables=["hr", "sales"], clamp=True)
    beyond("by_tables_of_one_of_both", "tables", "hr-db", (HR, BOTH), tables=["hr", "sales"])
    beyond("by_tables_cut_to_nothing", "tables", "hr-db", (HR, BOTH), code="nothing_left", tables=["sales"], clamp=True)
    writes("in_time_where_no_table_is", "45.5", (MAIL,), until, expires_in=60)
    fails("by_tables_where_none_is", "45.5", (MAIL,), tables=["sales"])
    fails("by_time_and_tables_where_none_is", "45.5", (MAIL,), expires_in=60, tables=["sales"])

    # What goes where the holder says.
    writes("at_one_server", "45.5", three, None, None, sales, at=["sales-db"], **sales)
    beyond("at_a_server_of_other_tables", "tables", "hr-db", three, at=["hr-db"], **sales)
    beyond("at_a_server_of_tools", "tables", "mail", three, at=["mail"], **sales)
    fails("at_a_server_of_none", "45.2", three, at=["calendar"], **sales)
    fails("at_no_server", "45.2", three, at=[], **sales)
    writes("at_two_servers", "45.5", three, until, until, None, at=["hr-db", "mail"], expires_in=60)
    writes("only_at_one_server", "45.5", three, None, None, sales, only={"sales-db": sales})
    beyond("only_at_a_server_of_other_tables", "tables", "hr-db", three, only={"hr-db": sales})
    fails("only_at_a_server_of_none", "45.2", three, only={"calendar": sales})
    fails("only_by_nothing", "23.2", three, only={"sales-db": {}})
    writes("in_time_and_only_at_one_server", "45.5", three, until, until, {**until, **sales}, only={"sales-db": sales}, expires_in=60)
    fails("in_time_and_only_in_time", "45.5", three, only={"sales-db": {"expires_in": 5}}, expires_in=60)
    fails("by_tables_of_tools_and_only_at_one", "45.5", (MAIL,), only={"mail": {"tables": ["sales"]}}, expires_in=60, **sales)
    desk = minted("desk", {**LIFE, **SALES, "tools": {"send": {}}})
    writes("with_what_is_kept", "23.11", (desk, MAIL), {"tables": ["*"], "tools": {"send": {}}}, None,
           at=["desk"], tools={"send": {}}, keep="tables")  # fmt: skip
    writes("with_what_is_kept_and_a_hand_over", "23.11", (desk, MAIL), {**over, "tables": ["*"], "tools": {"send": {}}}, over,
           at=["desk"], to="clerk", tools={"send": {}}, keep="tables")  # fmt: skip
    writes("by_a_hand_over_of_both_domains", "45.5", (desk, MAIL), over, over, to="clerk")
    fails("with_what_is_kept_beside_nothing", "23.11", (desk, MAIL), to="clerk", keep="tables")

    # What is counted.
    counts: dict[str, Json] = {"n": nonce(7)}
    for name, asked in {"uses": {"uses": 3}, "a_budget": {"budget": {"cents": 5}}}.items():
        writes(f"by_{name}_at_one_server", "45.6", three, None, {**counts, **asked}, None, at=["mail"], **asked)
        fails(f"by_{name}_at_all", "45.6", three, **asked)
        fails(f"by_{name}_at_two_servers", "45.6", three, at=["mail", "hr-db"], **asked)
        writes(f"only_by_{name}_at_one_server", "45.6", three, None, {**counts, **asked}, None, only={"mail": asked})
    writes("by_uses_of_a_set_of_one", "45.6", (MAIL,), {**counts, "uses": 3}, uses=3)

    # Bound to a key: each token is signed.
    agent = "sales-agent"
    bound = tuple(minted(server, {**link, "key": HOLDER}) for server, link in (("mail", TOOLS), ("sales-db", {**LIFE, **SALES})))
    from_key = hand_over(agent, number=7, key=_public(agent))
    writes("by_its_key", "28.5", bound, *(custody(part, from_key, "orchestrator") for part in bound),
           to=agent, key=_public(agent), signer="orchestrator")  # fmt: skip
    fails("without_its_key", "28.5", bound, "bad_proof", to=agent, key=_public(agent))
    fails("by_another_key", "28.5", bound, "bad_proof", to=agent, key=_public(agent), signer="mail-agent")
    fails("to_no_key", "28.5", bound, "broken_delegation", to=agent, signer="orchestrator")


def _public(holder: str) -> str:
    return b64(signing_public(holder))

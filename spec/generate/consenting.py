"""Vectors of a person's consent to one access: Consent, and what the sections before it say of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spec.generate.binding import HERE
from spec.generate.build import (
    JTI,
    KEY,
    NOW,
    Json,
    Parts,
    asking,
    audience_key,
    b64,
    bundle,
    consent,
    consented,
    discharge,
    entry,
    extended,
    hand_over,
    mark_of_task,
    nonce,
    of_access,
    secret,
    signing_public,
    snapshot,
    spend,
    token,
    unb64,
)
from spec.generate.table import SALES, SELECT, Table, call, facts, keyring

Link = dict[str, Json]

JANE, BOB = b64(signing_public("jane")), b64(signing_public("bob"))
MAIL: Link = {"tools": ["mail.*"]}
SEND = call("mail.send", to="ann@example.com", text="hello")
D = of_access(SEND)
USED: dict[str, Json] = {"floor": 0, "limit": 1000, "used": []}
OPERATOR = b64(signing_public("operator"))


def tables() -> Iterator[Table]:
    yield consents()


def asks(definition: Json = MAIL, by: str = JANE, **more: Json) -> Link:
    """A link that asks for the consent of one."""
    return {"consent": [{"by": by, "for": definition}], **more}


def store(*spent: Json, **more: Json) -> dict[str, Json]:
    return {**USED, "spent": list(spent), **more}


class Rows:
    """Rows of the table, each with what came behind the token."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def allow(
        self, name: str, rule: str, parts: Parts, *came: str, access: Json = SEND, spends: tuple[Json, ...] = (), replays: Json = None,
        at: dict[str, Json] | None = None, outcome: dict[str, Json] | None = None, **known: Any,
    ) -> None:  # fmt: skip
        come: dict[str, Json] = {**({"spends": list(spends)} if spends else {}), **(outcome or {})}
        known = {"audiences": HERE, "allow_unaddressed": True, **known}
        self.table.allow(name, rule, parts, access, presented=self._given(came, replays, at), outcome=come, **known)

    def deny(
        self, name: str, rule: str, parts: Parts, *came: str, access: Json = SEND, code: str = "consent_missing", replays: Json = None,
        at: dict[str, Json] | None = None, **known: Any,
    ) -> None:  # fmt: skip
        known = {"audiences": HERE, "allow_unaddressed": True, **known}
        self.table.deny(name, rule, code, parts, access, presented=self._given(came, replays, at), **known)

    def malformed(self, name: str, parts: Parts, came: list[str], access: Json) -> None:
        """What came in the order in which it came."""
        given = self._given(came, None, None)
        self.table.deny(name, "47.4", "malformed", parts, access, presented=given, audiences=HERE, allow_unaddressed=True)

    @staticmethod
    def _given(came: tuple[str, ...] | list[str], replays: Json, at: dict[str, Json] | None) -> dict[str, Json]:
        """`proof` is what ends the text: here the consents, too."""
        behind = {"proof": ".".join(came if isinstance(came, list) else sorted(came, key=_question))} if came else {}
        return {**behind, "replays": store() if replays is None else replays, **(at or {})}


def consents() -> Table:
    table = Table("consent", "A person's consent to one access: who is asked, to what, what answers it, and that it is spent.")
    rows = Rows(table)
    _spelled(table, rows)
    _needed(table, rows)
    _answered(table, rows)
    _as_text(table, rows)
    _spent(table, rows)
    _unless(table, rows)
    _elsewhere(table, rows)
    _again(table)
    _written(table)
    return table


def _spelled(table: Table, rows: Rows) -> None:
    """What can be read. The access is in none of them, so that nobody has to consent."""
    good: Link = {"by": JANE, "for": {"tools": ["mail.send"], "tables": ["hr"], "operations": ["select"], "but": {"tables": ["hr"]}}}
    other = {"access": SELECT}
    simple: Link = {"by": JANE, "for": MAIL}
    for name, value in {
        "one": [good], "one_of_tools": [simple], "one_and_another": [good, simple], "of_tables": [{"by": JANE, "for": {"tables": ["hr"]}}], "four": [good] * 4,
        "of_two_people": [good, {"by": BOB, "for": MAIL}],
    }.items():  # fmt: skip
        rows.allow(f"with_{name}", "47.1", token({"consent": value}), **other)
    table.beside("with_one_of_tools")
    bad: dict[str, Json] = {
        "none": [], "five": [good] * 5, "object": good, "text": JANE, "true": True, "number": 1,
        "entry_text": [JANE], "entry_list": [[good]], "entry_empty": [{}],
        "by_missing": [{"for": MAIL}], "for_missing": [{"by": JANE}], "another_key": [{**simple, "n": nonce()}],
        "by_true": [{**simple, "by": True}], "by_a_name": [{**simple, "by": "jane"}], "by_zero": [{**simple, "by": "A" * 43}],
        "by_cut": [{**simple, "by": JANE[:-1]}], "by_padded": [{**simple, "by": f"{JANE}="}], "by_list": [{**simple, "by": [JANE]}],
        "for_empty": [{"by": JANE, "for": {}}], "for_text": [{"by": JANE, "for": "mail.send"}], "for_list": [{"by": JANE, "for": ["mail.send"]}],
        "for_operations_beside_tools": [{"by": JANE, "for": {**MAIL, "operations": ["select"]}}],
        "for_empty_list": [{"by": JANE, "for": {"tools": []}}], "for_no_pattern": [{"by": JANE, "for": {"tools": ["mail.*.b"]}}],
        "for_where": [{"by": JANE, "for": {**MAIL, "where": {"x": {"any": True}}}}], "second_bad": [good, {"by": JANE}],
    }  # fmt: skip
    for name, value in bad.items():
        rows.deny(f"{name}_is_unreadable", "47.1", token({"consent": value}), code="unreadable_link", **other)
    rows.deny("beside_n_is_unreadable", "17.6", token({"consent": [good], "n": nonce()}), code="unreadable_link", **other)


def _needed(table: Table, rows: Rows) -> None:
    """Which accesses need one."""
    here = token(asks())
    good = consent(here, 0, "jane", D)
    rows.allow("given", "47.2", here, good, spends=(spend("jane"),))
    rows.deny("missing", "47.3", here)
    rows.allow("not_needed", "47.2", here, access=call("log.write"))
    rows.allow("not_needed_and_there", "47.9", here, good, access=call("log.write"))
    table.beside("not_needed")
    rows.deny("needed_by_the_pattern", "47.2", here, access=call("mail.read"))
    but = token(asks({"tools": ["mail.*"], "but": {"tools": {"mail.send": {"to": {"in": ["ann@example.com"]}, "text": {"any": True}}}}}))
    rows.allow("not_needed_for_what_but_permits", "47.2", but)
    rows.deny("needed_for_an_argument_that_but_does_not_name", "47.2", but, access=call("mail.send", to="ann@example.com", text="hello", cc="b"))
    rows.deny("needed_for_a_value_that_but_does_not_permit", "47.2", but, access=call("mail.send", to="bob@example.com", text="hello"))
    of_table = token(asks({"tables": ["hr"], "operations": ["delete"]}))
    rows.allow("not_needed_for_another_operation", "47.2", of_table, access={"table": "hr", "operation": "select"})
    rows.deny("needed_for_the_operation", "47.2", of_table, access={"table": "hr", "operation": "delete"})
    rows.allow("not_needed_without_an_access", "47.3", here, access=None)

    # Last in step 8: what is refused all the same is told as that.
    both = token(asks(tools={"mail.send": {"to": {"in": ["ann@example.com"]}, "text": {"any": True}}}))
    rows.allow("given_beside_tools", "47.3", both, consent(both, 0, "jane", D), spends=(spend("jane"),))
    rows.deny("missing_and_refused_by_tools", "47.3", both, access=call("mail.send", to="bob@example.com", text="hello"), code="argument")
    later = extended(here, {"tools": {"mail.read": {}}})
    rows.deny("missing_and_refused_by_a_later_link", "47.3", later, code="tool")
    rows.deny("missing_and_expired", "47.3", token(asks(exp=NOW)), code="expired")


def _answered(table: Table, rows: Rows) -> None:
    """What answers it: key, link, server, access and time."""
    here = token(asks())
    good = consent(here, 0, "jane", D)
    table.beside("given")
    rows.deny("of_another_key", "47.4", here, consent(here, 0, "bob", D))
    rows.deny("of_another_key_that_names_the_question", "47.6", here, consent(here, 0, "bob", D, by="jane"), code="bad_consent")
    for name, access in {
        "another_argument": call("mail.send", to="bob@example.com", text="hello"), "one_argument_more": {**SEND, "arguments": {**SEND["arguments"], "cc": "b"}},
        "one_argument_less": call("mail.send", to="ann@example.com"), "another_tool": {**SEND, "tool": "mail.post"},
        "a_space_more": call("mail.send", to="ann@example.com", text="hello "), "an_attribute_more": {**SEND, "attributes": {"tenant": "acme"}},
    }.items():  # fmt: skip
        rows.deny(f"to_{name}", "47.4", here, good, access=access)
    number = call("mail.send", n=1)
    rows.allow("to_a_number", "47.5", here, consent(here, 0, "jane", of_access(number)), access=number, spends=(spend("jane"),))
    rows.deny("to_a_text_for_a_number", "47.5", here, consent(here, 0, "jane", of_access(call("mail.send", n="1"))), access=number)
    costing = {**SEND, "cost": {"usd_cents": 5}}
    rows.allow("to_another_cost", "47.5", here, good, access=costing, spends=(spend("jane"),))

    # The link: this token's, and of all made from it.
    child = extended(here, hand_over("mail-agent"))
    rows.allow("below_the_link", "47.4", child, good, spends=(spend("jane"),))
    sibling = extended(here, hand_over("other-agent"))
    rows.allow("in_another_child", "47.4", sibling, good, spends=(spend("jane"),))
    lower = extended(token({"nbf": NOW}), asks())
    rows.allow("of_link_1", "47.4", lower, consent(lower, 1, "jane", D), spends=(spend("jane"),))
    rows.deny("after_the_link_before", "47.4", lower, consent(lower, 0, "jane", D))
    rows.allow("of_a_narrowed_token", "47.4", extended(here, {"nbf": NOW}), good, spends=(spend("jane"),))
    rows.deny("after_the_link_behind", "47.4", extended(here, {"nbf": NOW}), consent(extended(here, {"nbf": NOW}), 1, "jane", D))
    rows.deny("of_another_token", "47.4", token(asks(), jti="A" * 22), good)

    # The server.
    two = {"audiences": ("hr-db", "sales-db")}
    rows.allow("for_one_of_the_names", "47.4", here, good, spends=(spend("jane"),), **two)
    rows.deny("for_another_server", "47.4", here, consent(here, 0, "jane", D, audience="hr-db"))
    narrowed = token(asks(aud=["sales-db"]))
    rows.allow("for_the_audience_that_is_left", "47.4", narrowed, consent(narrowed, 0, "jane", D), spends=(spend("jane"),), **two)
    rows.deny("for_an_audience_that_is_not_left", "47.4", narrowed, consent(narrowed, 0, "jane", D, audience="hr-db"), **two)
    named = consent(here, 0, "jane", D, audience="hr-db", named=_question(good))
    rows.deny("for_another_server_that_names_the_question", "47.6", here, named, code="bad_consent")

    # The time.
    for name, issued, until in (
        ("an_hour", NOW, NOW + 3600), ("a_second", NOW, NOW + 1), ("made_five_seconds_ahead", NOW + 5, NOW + 6),
        ("in_its_last_second", NOW - 3599, NOW + 1), ("in_the_last_of_five_minutes", NOW - 300, NOW + 1),
    ):  # fmt: skip
        made = consent(here, 0, "jane", D, issued=issued, until=until)
        rows.allow(f"good_for_{name}", "47.6", here, made, spends=(spend("jane", issued),))
    table.beside("good_for_an_hour")
    for name, issued, until in (
        ("over", NOW - 300, NOW), ("over_long_ago", NOW - 3599, NOW - 1), ("for_longer_than_an_hour", NOW, NOW + 3601), ("for_no_time", NOW, NOW),
        ("that_ends_before_it_begins", NOW + 2, NOW + 1), ("made_six_seconds_ahead", NOW + 6, NOW + 300), ("for_ever", NOW, 2**64 - 1),
    ):  # fmt: skip
        rows.deny(f"good_{name}", "47.6", here, consent(here, 0, "jane", D, issued=issued, until=until), code="bad_consent")
    within = consent(here, 0, "jane", D, issued=NOW - 300, until=NOW + 1)
    rows.allow("in_its_last_second_with_leeway", "47.6", here, within, spends=(spend("jane", NOW - 300),), leeway=30)
    rows.deny("over_within_leeway", "47.6", here, consent(here, 0, "jane", D, issued=NOW - 300, until=NOW), code="bad_consent", leeway=30)
    moved = _changed(good, 39)
    rows.deny("with_another_beginning", "47.6", here, moved, code="bad_consent")
    rows.deny("with_another_end", "47.6", here, _changed(good, 47), code="bad_consent")
    rows.deny("with_another_nonce", "47.6", here, _changed(good, 63), code="bad_consent")
    rows.deny("with_another_signature", "47.6", here, _changed(good, 127), code="bad_consent")
    rows.deny("with_another_question", "47.4", here, _changed(good, 31))
    rows.allow("beside_a_late_one_to_another_access", "47.6", here, good, consent(here, 0, "jane", of_access(SELECT), until=NOW), spends=(spend("jane"),))

    # Several.
    pair = token({"consent": [{"by": JANE, "for": MAIL}, {"by": BOB, "for": {"tools": ["mail.send"]}}]})
    of_jane, of_bob = (consent(pair, 0, who, D) for who in ("jane", "bob"))
    rows.allow("of_two_people", "47.3", pair, of_jane, of_bob, spends=(spend("jane"), spend("bob")))
    rows.deny("of_the_first_of_two_people", "47.3", pair, of_jane)
    rows.deny("of_the_second_of_two_people", "47.3", pair, of_bob)
    chain = extended(here, asks({"tools": ["mail.send"]}, BOB))
    rows.allow("of_two_links", "47.3", chain, good, consent(chain, 1, "bob", D), spends=(spend("jane"), spend("bob")))
    rows.deny("of_the_first_of_two_links", "47.3", chain, good)
    twice = extended(here, asks())
    both = consent(twice, 1, "jane", D, nonce=secret("second", 16))
    rows.allow("of_one_person_for_two_links", "47.4", twice, good, both, spends=(spend("jane"), spend("jane", nonce=secret("second", 16))))
    rows.deny("of_one_person_for_one_of_two_links", "47.4", twice, good)
    same = token({"consent": [{"by": JANE, "for": {"tools": ["pay"]}}, {"by": JANE, "for": MAIL}]})
    rows.allow("of_one_person_for_one_of_two_entries", "47.9", same, consent(same, 0, "jane", D), spends=(spend("jane"),))


def _question(text_: str) -> bytes:
    return unb64(text_[6:])[:32]


def _changed(text_: str, at: int) -> str:
    """The same consent with one bit of one byte turned."""
    data = bytearray(unb64(text_[6:]))
    data[at] ^= 1
    return f"cap1a_{b64(bytes(data))}"


def _as_text(table: Table, rows: Rows) -> None:
    """How it travels."""
    here = token(asks())
    made = sorted((consent(here, 0, "jane", of_access(call("mail.send", n=number))) for number in range(17)), key=_question)
    first = call("mail.send", n=next(n for n in range(17) if consent(here, 0, "jane", of_access(call("mail.send", n=n))) == made[0]))
    rows.allow("sixteen", "47.4", here, *made[:16], access=first, spends=(spend("jane"),))
    rows.allow("two", "47.4", here, *made[:2], access=first, spends=(spend("jane"),))
    rows.allow("one", "47.4", here, made[0], access=first, spends=(spend("jane"),))
    for name, came in {
        "seventeen": made, "out_of_order": [made[1], made[0]], "twice": [made[0], made[0]], "cut": [made[0][:-1]], "longer": [made[0] + "A"],
        "padded": [made[0] + "="], "with_trailing_bits": [made[0][:-1] + chr(ord(made[0][-1]) + 1)], "empty": ["cap1a_"],
        "with_another_prefix": ["cap1A_" + made[0][6:]], "unbound": ["cap1u_" + made[0][6:]],
    }.items():  # fmt: skip
        rows.malformed(f"{name}_is_malformed", here, came, first)
    second = consent(here, 0, "jane", of_access(first), nonce=secret("second", 16))
    rows.malformed("two_of_one_question_is_malformed", here, sorted((made[0], second)), first)
    held = {"token": f"{here.text}.{made[0]}"}
    table.add("held_without", "8.6", "holding", {"token": here.text}, needs=[], bound=here.text)
    table.add("held_with", "8.6", "holding", held, code="malformed")


def _spent(table: Table, rows: Rows) -> None:
    """That it is spent."""
    here = token(asks())
    good, used = consent(here, 0, "jane", D), spend("jane")
    rows.allow("spent_by_others", "47.9", here, good, spends=(used,), replays=store(spend("bob"), spend("jane", nonce=bytes(16))))
    rows.deny("spent", "47.9", here, good, code="replayed", replays=store(used))
    rows.deny("spent_at_another_moment", "47.9", here, good, code="replayed", replays=store({**used, "issued_at": NOW - 60}))
    rows.allow("used_as_a_proof", "47.9", here, good, spends=(used,), replays={**USED, "used": [used]})
    rows.allow("above_the_floor", "47.9", here, good, spends=(used,), replays=store(floor=NOW - 1))
    rows.deny("at_the_floor", "47.9", here, good, code="replayed", replays=store(floor=NOW))
    old = consent(here, 0, "jane", D, issued=NOW - 1800, until=NOW + 1800)
    rows.allow("of_half_an_hour_ago", "47.9", here, old, spends=(spend("jane", NOW - 1800),))
    rows.deny("of_half_an_hour_ago_and_spent", "47.9", here, old, code="replayed", replays=store(spend("jane", NOW - 1800)))
    rows.allow("at_a_store_with_room", "47.9", here, good, spends=(used,), replays=store(spend("bob"), limit=2))
    rows.deny("at_a_full_store", "47.9", here, good, code="store_unavailable", replays=store(spend("bob"), limit=1))
    rows.deny("at_a_store_that_is_down", "47.9", here, good, code="store_unavailable", replays={**store(), "down": True})
    table.dry("dry_and_not_spent", "47.9", f"{here.text}.{good}", "allowed", "allowed", SEND,
              presented={"replays": store()}, audiences=HERE, allow_unaddressed=True)  # fmt: skip
    table.dry("dry_and_spent", "47.9", f"{here.text}.{good}", "replayed", "replayed", SEND,
              presented={"replays": store(used)}, audiences=HERE, allow_unaddressed=True)  # fmt: skip
    broke = token(asks(uses=0, n=nonce()))
    alone = {"ledger": {"floor": 0, "shared": True, "spent": []}}
    rows.deny("before_the_ledger", "47.9", broke, consent(broke, 0, "jane", D), code="replayed", replays=store(used), at=alone)


def _unless(table: Table, rows: Rows) -> None:
    """A consent that lifts a rule."""
    rule: Link = {"in": ["outside"], "after": ["private"], "unless": JANE}
    marks: Link = {"marks": {"outside": MAIL, "private": {"tables": ["crm.*"]}}, "forbid": [rule], "n": nonce()}
    here = token(marks)
    good = consent(here, 0, "jane", D)
    closed: dict[str, Json] = {"ledger": {"floor": 0, "shared": True, "spent": [], "marks": [mark_of_task("private")]}}
    outcome: dict[str, Json] = {"debits": [], "marks": [mark_of_task("outside")]}
    rows.allow("lifts_a_rule", "47.10", here, good, spends=(spend("jane"),), at=closed, outcome=outcome)
    rows.deny("missing_for_a_rule", "47.10", here, code="forbidden_after", at=closed)
    rows.deny("of_another_key_for_a_rule", "47.10", here, consent(here, 0, "bob", D), code="forbidden_after", at=closed)
    rows.deny("to_another_access_for_a_rule", "47.10", here, consent(here, 0, "jane", of_access(SELECT)), code="forbidden_after", at=closed)
    rows.deny("that_does_not_hold_for_a_rule", "47.10", here, _changed(good, 127), code="bad_consent", at=closed)
    rows.deny("spent_for_a_rule", "47.10", here, good, code="replayed", at=closed, replays=store(spend("jane")))
    read = {"table": "crm.deals", "operation": "select"}
    rows.allow("of_no_rule", "47.10", here, consent(here, 0, "jane", of_access(read)), access=read, at=closed,
               outcome={"debits": [], "marks": [mark_of_task("private")]})  # fmt: skip
    plain = token({**marks, "forbid": [rule, {"in": ["outside"], "after": ["private"]}]})
    rows.deny("of_one_of_two_rules", "47.10", plain, consent(plain, 0, "jane", D), code="forbidden_after", at=closed)
    both = token({**marks, **asks()})
    rows.allow("for_both", "47.10", both, consent(both, 0, "jane", D), spends=(spend("jane"),), at=closed, outcome=outcome)


def _elsewhere(table: Table, rows: Rows) -> None:
    """At a server without a name, in discharges and in entries."""
    here = token(asks())
    table.beside("not_needed")
    rows.deny("at_a_server_without_a_name", "47.7", here, access=call("log.write"), audiences=(), code="unaddressed")
    asked = asking(token({"nbf": NOW}), "one")
    given = discharge("one", {"exp": NOW + 60})
    rows.allow("asked_of_a_third_party", "33.6", asked, access=SELECT, discharges=(given,))
    table.beside("asked_of_a_third_party")
    known = {"audiences": HERE, "allow_unaddressed": True, "presented": {"replays": store()}}
    within = bundle(asked, discharge("one", asks(exp=NOW + 60)))
    table.deny("in_a_discharge", "47.7", "unreadable_link", within, SELECT, **known)

    one = entry("e1", token=JTI)
    rule = {"in": ["m"], "after": ["m"]}
    marked: Link = {"marks": {"m": MAIL}, "n": nonce(), "forbid": [rule]}

    def snap(name: str, link: Json, expect: Json) -> None:
        given = {"snapshot": snapshot({**one, "link": link}).decode("latin-1"), "operators": [OPERATOR]}
        table.add(f"{name}_in_an_entry", "47.7", "snapshot", given, **expect)

    snap("a_rule", marked, {"entries": ["e1"], "expires_at": NOW + 3600, "issued_at": NOW, "seq": 1})
    snap("unless", {**marked, "forbid": [{**rule, "unless": JANE}]}, {"code": "overlay"})
    snap("a_consent_beside_marks", {**marked, **asks()}, {"code": "overlay"})


def _again(table: Table) -> None:
    """A grant that is asked: each consent is good once."""
    here = token(asks())
    came = consented(here, consent(here, 0, "jane", D), consent(here, 0, "jane", of_access(call("mail.read")), nonce=bytes(16)))
    known = {"keyring": keyring({"k1": KEY}), "facts": facts(audiences=HERE, allow_unaddressed=True), "replays": store()}

    def asked(name: str, text: str, *steps: tuple[str, Json, int, str]) -> None:
        stated = [{"access": access, "now": NOW + later, "how": how} for how, access, later, _ in steps]
        answers = [{"code": code, **({"link": 0, "added_by": "the issuer"} if code != "allowed" else {})} for *_, code in steps]
        table.add(f"asked_{name}", "47.9", "grant", {"token": text, **known, "steps": stated}, answers=answers)

    read, write = call("mail.read"), call("log.write")
    asked("again", came, ("check", SEND, 0, "allowed"), ("check", SEND, 1, "replayed"), ("check", read, 2, "allowed"))
    asked("in_vain", here.text, ("check", SEND, 0, "consent_missing"), ("check", write, 0, "allowed"))
    asked("without_spending", came, ("explain", SEND, 0, "allowed"), ("recheck", SEND, 0, "allowed"), ("check", SEND, 0, "allowed"),
          ("explain", SEND, 0, "replayed"), ("recheck", SEND, 0, "allowed"))  # fmt: skip
    asked("late", came, ("check", SEND, 299, "allowed"), ("check", read, 300, "bad_consent"), ("recheck", read, 300, "bad_consent"))


def _written(table: Table) -> None:
    """Capabilities, and what writers write."""

    def both(name: str, one: Link, two: Link, meet: Link, covers: str = "") -> None:
        said = {"meet": meet, "one_covers_two": covers in ("one", "both"), "two_covers_one": covers in ("two", "both")}
        table.add(f"of_two_links_{name}", "47.11", "capability", {"one": one, "two": two}, **said)

    a, b = {"by": JANE, "for": {"tools": ["a"]}}, {"by": JANE, "for": {"tools": ["b"]}}
    both("side_by_side", {"consent": [b]}, {"consent": [a]}, {"consent": [a, b]})
    both("that_are_one", {"consent": [a]}, {"consent": [a, a]}, {"consent": [a]}, "both")
    both("of_which_one_has_none", {"consent": [a]}, {"exp": NOW}, {"consent": [a], "exp": NOW})
    both("of_which_one_asks_more", {"consent": [a]}, {"consent": [a, b]}, {"consent": [a, b]}, "one")

    given = {"now": NOW, "to": None, "nonce": "00" * 7 + "07"}
    held = token({**SALES, "exp": NOW + 600})

    def writes(name: str, link: Link, parts: Parts = held, rule: str = "23.2", **said: Json) -> None:
        table.add(f"writes_{name}", rule, "widening", {**given, "token": parts.text, "asked": said}, link=link)

    def fails(name: str, **said: Json) -> None:
        table.add(f"writes_{name}", "47.1", "widening", {**given, "token": held.text, "asked": said}, "usage")

    writes("a_consent", {"consent": [a]}, consent=[a])
    writes("a_consent_to_b", {"consent": [b]}, consent=[b])
    writes("two_in_order", {"consent": [a, b]}, consent=[b, a])
    writes("one_twice", {"consent": [a]}, consent=[a, a])
    writes("another_under_one", {"consent": [b]}, token({**SALES, **asks()}), consent=[b])
    fails("none", consent=[])
    fails("an_entry_without_a_key", consent=[{"for": {"tools": ["b"]}}])

    def mints(name: str, of: str | None, code: str, **said: Json) -> None:
        ring = keyring({"k1": KEY if of is None else audience_key(KEY, of)}, of)
        stated = {"subject": "user:jane", "agent": "orchestrator", "task": "task-123", "token_id": unb64(JTI).hex(), "nonce": "00" * 8}
        asked = {"tools": {"mail.*": {}}, "expires_in": 900, "consent": [{"by": JANE, "for": MAIL}], **said}
        made = {} if code != "ok" else {"token": _minted(of).text}
        table.add(f"mint_{name}", "47.7", "mint", {**stated, "keyring": ring, "current": "k1", "now": NOW, "asked": asked}, code, **made)

    mints("for_one_server", None, "ok", audience="mail")
    mints("without_an_audience", None, "usage")
    mints("by_keys_of_one_server", "mail", "ok")


def _minted(of: str | None) -> Parts:
    link: Link = {"consent": [{"by": JANE, "for": MAIL}], "exp": NOW + 900, "tools": {"mail.*": {}}}
    if of is not None:
        return token(link, key=audience_key(KEY, of), aud=of)
    return token({**link, "aud": ["mail"]})

"""Rows: which of a table's exist for a token, what an access states of them, and what a grant says (spec 15.13, 24.27)."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec import UNSET

from captoken import Access, Capability, Decision, Token, WideningError
from captoken._format.encoding import encode_json
from captoken._language.bounds import is_bounded
from captoken._language.caveats import V1
from captoken._language.kinds import Situation
from captoken._language.link import Link
from captoken._language.links import late_prohibits, read_link
from captoken._language.work import fits, size_of
from captoken.proof import request_digest
from tests.fixtures import code, mint, verifier

EVERYTHING: dict[str, Any] = {"tables": ["*"], "operations": ["*"]}
ACME: dict[str, Any] = {"tenant": {"in": ["acme"]}}
AFTER: dict[str, Any] = {"tenant": {"in": ["acme"]}, "year": {"min": 2024}}


def held(**rows: Any) -> Token:
    return mint(**EVERYTHING, rows=rows)


def on(table: str = "orders", operation: str = "select", **facts: Any) -> Access:
    return Access(table=table, operation=operation, **facts)


def denied(token: Token, access: Access) -> Decision:
    decision = verifier().check(token.serialize(), access)
    assert not decision and decision.code == "row"
    return decision


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"row": []}, "column must be a mapping"),
        ({"row": {"*": 1}}, "is not a column"),
        ({"becomes": {"": 1}}, "column '' is empty"),
        ({"row": {"at": object()}}, "column 'at' contains a object"),
        ({"row": {}, "rows": []}, "or the conditions that were held in rows, but not both"),
        ({"becomes": None, "rows": []}, "or the conditions that were held in rows, but not both"),
        ({"rows": "tenant"}, "rows must be a list"),
        ({"rows": [[]]}, "must be a mapping"),
        ({"rows": [{"tenant": {}}]}, "there is no constraint with the keys"),
    ],
)
def test_what_is_no_row_is_an_error_of_the_program(facts: Mapping[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        on(**facts)


def test_a_row_comes_with_a_table() -> None:
    for facts in ({"row": {}}, {"becomes": None}, {"rows": ()}):
        with pytest.raises(ValueError, match="needs a table"):
            Access(tool="search", **facts)  # type: ignore[arg-type]


def test_rows_are_copied_and_shown_only_where_they_are_stated() -> None:
    row, entry = {"tenant": "acme"}, {"tenant": {"in": ["acme"]}}
    access, conditions = on(row=row), on(rows=[entry])
    row["tenant"] = entry["tenant"] = "other"  # type: ignore[assignment]
    assert access.row == {"tenant": "acme"} and access.becomes is UNSET and conditions.rows == (ACME,)
    assert repr(access).endswith("cost={}, row={'tenant': 'acme'})") and repr(on()).endswith("cost={})")
    assert repr(on(becomes=None)).endswith("becomes=None)") and "rows=" in repr(conditions)


def test_the_operator_is_told_the_column_the_link_and_who_added_it() -> None:
    token = held(orders=AFTER).delegate(to="clerk", rows={"orders": {"year": {"min": 2025}}})
    decision = denied(token, on(row={"tenant": "acme", "year": 2024}))
    assert decision.refusals[0].link == 1 and decision.refusals[0].added_by == "orchestrator"
    assert "row orders.year: is less than 2025, link 1 by orchestrator" in str(decision)
    assert "2024 is less than 2025" in decision.report(values=True)
    assert "becomes orders.tenant: does not satisfy" in str(denied(token, on(operation="insert", becomes={"tenant": "x", "year": 2025})))
    assert "row orders.year: is not stated" in str(denied(token, on(row={"tenant": "acme"})))


def test_a_model_is_told_the_column_and_never_a_value() -> None:
    token = held(orders=ACME)
    said = denied(token, on(row={"tenant": "globex"})).for_model()
    assert "column `tenant`" in said and "globex" not in said and "acme" not in said
    unnamed = denied(token, on(row={"id": 1})).for_model()
    assert "tenant" not in unnamed and "some of the rows of table orders" in unnamed
    assert "cannot tell which rows" in denied(token, on()).for_model()
    assert "some of the rows" in denied(token, on(rows=[])).for_model()


def test_what_guards_a_table_and_states_no_row_is_told_so() -> None:
    token = held(orders=ACME)
    texts = [
        denied(token, access).refusals[0].text
        for access in (on(), on(row=None), on(operation="update", row={"tenant": "acme"}), on(rows=[{}]))
    ]
    assert "and the access does not say which rows it touches" in texts[0] and "select must state row" in texts[1]
    assert "update must state becomes" in texts[2] and "and this condition is not among those that the server applied" in texts[3]


def test_an_entry_that_would_lift_a_rule_is_not_written() -> None:
    with pytest.raises(ValueError, match=r"rows of orders leave out tenant, which \* names: say what holds of it here") as error:
        held(**{"*": ACME, "orders": {"year": {"min": 1}}})
    assert '{"any": true}' in str(error.value)
    free = held(**{"*": ACME, "orders": {"tenant": {"any": True}}, "countries": {}})
    assert code(free, on()) == code(free, on("countries")) == "allowed"


@pytest.mark.parametrize("rows", [{"orders": 1}, {"orders": {"year": 2024}}, {"orders": {"year": {"max": -1}}}, ["orders"], {1: ACME}])
def test_what_is_no_rows_is_refused_by_writers(rows: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        mint(**EVERYTHING, rows=rows)


def test_a_max_alone_is_completed_by_what_is_held() -> None:
    token = held(orders=AFTER)
    link = token.attenuate(rows={"orders": {"year": {"max": 2026}}, "others": {"year": {"max": 9}}})
    assert _said(link) == {"orders": {"year": {"max": 2026, "min": 2024}}, "others": {"year": {"max": 9, "min": 0}}}
    only = mint(allow={"a": ["select"]}).attenuate(rows={"a": {"n": {"max": 9}}})
    assert only.unverified.capability.json()["rows"] == {"a": {"n": {"min": 0, "max": 9}}}


def _said(token: Token) -> Any:
    """The rows of the last link."""
    return json.loads(verifier().authenticate(token.serialize()).caveats[-1][0])["rows"]


def test_narrowing_says_which_column_is_held_to_what() -> None:
    token = held(orders=ACME)
    with pytest.raises(WideningError, match="the token restricts column tenant of orders to") as error:
        token.attenuate(rows={"orders": {"tenant": {"in": ["acme", "other"]}}})
    assert error.value.dimension == "rows" and error.value.excess == {"orders": {"tenant": {"in": ["acme", "other"]}}}
    nobody = held(orders={"tenant": {"in": []}})
    with pytest.raises(WideningError) as error:
        nobody.attenuate(rows={"orders": {"year": {"min": 1}}})
    assert error.value.dimension == "rows"


def test_a_guard_and_a_capability_agree_on_rows() -> None:
    """For links drawn at random: the rights of all links permit a row if and only if each link does."""
    draw = random.Random(20)
    kinds = [{"in": ["a", "b"]}, {"in": ["b", "c"]}, {"in": []}, {"prefix": ["a"]}, {"min": 0, "max": 5}, {"any": True}]
    values = ["a", "b", "c", "ab", 3, 9, None]
    patterns = ["*", "m.*", "m.a", "x"]
    seen = set()
    for _ in range(3000):
        links: list[Link] = []
        while len(links) < 2:
            entries: dict[str, dict[str, Any]] = {}
            for pattern in draw.sample(patterns, draw.randint(1, 3)):
                entries[pattern] = {column: draw.choice(kinds) for column in draw.sample(["t", "y"], draw.randint(0, 2))}
            link = read_link(encode_json({"rows": entries}), V1)
            if isinstance(link, Link):  # else it would lift
                links.append(link)
        capability = Capability.of(links)
        row = {column: draw.choice(values) for column in draw.sample(["t", "y"], draw.randint(0, 2))}
        access = on(draw.choice(["m.a", "m.b", "x", "z"]), row=row)
        each = [late_prohibits(link, access, Situation(0)) is None for link in links]
        assert (capability.prohibits(access) is None) == all(each), (capability, access)
        again = read_link(encode_json(capability.json()), V1)
        assert isinstance(again, Link) and (late_prohibits(again, access, Situation(0)) is None) == all(each)
        assert Capability.of([again]) == capability and capability.meet(capability) == capability
        seen.add(all(each))
    assert seen == {True, False}


def test_rights_permit_conditions_that_leave_no_other_rows() -> None:
    capability = held(orders=ACME).attenuate(rows={"orders": {"year": {"min": 2024}}}).unverified.capability
    assert capability.prohibits(on(rows=[ACME, {"year": {"min": 2025}}])) is None
    for rows in ([ACME], [{"year": {"min": 2025}}], []):
        reason = capability.prohibits(on(rows=rows))
        assert reason is not None and reason.code == "row"
    assert capability.prohibits(on(rows=[{"tenant": {"in": []}}, *[ACME]])) is None


# --- what they cost -----------------------------------------------------------------------------------------------------


def test_what_rows_come_to_is_no_more_than_their_length_says() -> None:
    """By which it is seen that they fit: a byte of JSON comes to 40 at most."""
    source = random.Random("length")

    def value(deep: int) -> Any:
        kind = source.randrange(6 if deep else 4)
        if kind == 4:
            return [value(deep - 1) for _ in range(source.randrange(4))]
        if kind == 5:
            return {"k" * n: value(deep - 1) for n in range(source.randrange(4))}
        return (source.choice(("", "a", "\u00e9", "\U0001f600", '"')), source.choice((0, -7, 2**53)), True, None)[kind]

    for _ in range(2_000):
        made = value(4)
        assert size_of(made) <= 40 * len(json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode())
    many = [{"tenant": {"in": [f"t{number}" for number in range(900)]}}]
    assert fits(on(rows=many), 10) and not fits(on(rows=many), 100)


def test_rows_count_as_work_and_as_what_a_call_states() -> None:
    small, large = on(row={"a": 1}, becomes=None), on(row={"a": "x" * 200_000}, becomes={"b": 1})
    assert fits(small, 64) and not fits(large, 64) and not fits(on(rows=[{"a": {"in": ["x" * 250] * 4000}}]), 64)
    assert is_bounded(small) and is_bounded(on(rows=[ACME]))
    assert not is_bounded(on(row={"a": "x" * (256 << 10)})) and not is_bounded(on(becomes={"a": "x" * (256 << 10)}))


def test_a_proof_says_nothing_of_rows() -> None:
    assert request_digest(on()) == request_digest(on(row={"a": 1})) == request_digest(on(rows=[ACME]))

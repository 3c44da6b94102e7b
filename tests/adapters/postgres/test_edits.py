"""What is changed in a text: tokens are put instead of tokens, and a place in what is sent leads back."""

from __future__ import annotations

import pytest

from captoken.adapters._postgres.edits import Edits
from captoken.adapters._postgres.text import RefusedError

SQL = "select name /* é */ from sales s where name > 1"


def edited() -> Edits:
    edits = Edits(SQL)
    table = edits.at(SQL.encode().index(b"sales"))
    edits.replace(table, table, '(select "name" from "public"."sales")')
    edits.put_behind(edits.at(SQL.encode().rindex(b"name")), "::text")
    return edits


def test_tokens_are_replaced_and_what_stands_between_stays() -> None:
    assert edited().sent().sql == 'select name /* é */ from (select "name" from "public"."sales") s where name::text > 1'
    assert Edits(SQL).sent().sql == SQL


@pytest.mark.parametrize(
    ("there", "here"),
    [("select name /*", "select name /*"), ("é", "é"), ("from (select", "from sales"), (" s where", " s where"), ("name::", "name > 1"), ("> 1", "> 1")],
)
def test_a_place_in_what_is_sent_is_that_of_the_same_word_in_what_was_read(there: str, here: str) -> None:
    sent = edited().sent()
    assert sent.place(SQL, sent.sql.index(there) + 1) == SQL.index(here) + 1


def test_a_place_within_what_was_put_in_is_where_it_was_put() -> None:
    sent = edited().sent()
    assert sent.place(SQL, sent.sql.index('"public"') + 1) == SQL.index("sales") + 1
    assert sent.place(SQL, 0) == 0 and Edits(SQL).sent().place(SQL, 5) == 5


def test_what_stands_twice_in_the_tree_is_changed_once() -> None:
    edits = Edits("update t set (a, b) = (f(), 2)")
    place = edits.at("update t set (a, b) = (f(), 2)".index("f"))
    for _ in range(2):
        edits.replace(place, place, "g")
    assert edits.sent().sql == "update t set (a, b) = (g(), 2)"


def test_what_has_no_place_of_its_own_is_refused() -> None:
    with pytest.raises(RefusedError) as caught:
        Edits(SQL).at(SQL.index("ame"))
    assert "cannot tell where a part" in str(caught.value.args)
    edits = Edits(SQL)
    edits.replace(0, 2, "x")
    edits.replace(1, 1, "y")
    with pytest.raises(RefusedError) as caught:
        edits.sent()
    assert "cannot tell two parts" in str(caught.value.args)


def test_brackets_and_escaped_names_are_one_piece() -> None:
    edits = Edits("select a[b[1]][2] from t")
    assert edits.word(edits.behind_brackets(edits.at(8))) == b"[" and edits.word(99) == b"" and edits.word(-1) == b""
    escaped = "select U&\"d!0061t!+000061\" uescape '!' from t"
    assert Edits(escaped).word(1) == b"u&\"d!0061t!+000061\" uescape '!'" and Edits(escaped).word(2) == b"from"

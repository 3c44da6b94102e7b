"""What tokens call tables, and which accesses a grant is asked about."""

from __future__ import annotations

import pytest

from captoken import Access
from captoken.adapters._sqlite.naming import access_to, is_harmless, spelled, table_name
from captoken.adapters._sqlite.scopes import Mention


@pytest.mark.parametrize(
    ("schema", "name", "called"),
    [
        ("main", "sales", "sales"), ("MAIN", "Sales", "Sales"), ("temp", "x", "temp.x"), ("archive", "sales", "archive.sales"),
        # Catalogs, and what would look like another name or like none.
        ("main", "sqlite_master", None), ("main", "SQLite_Sequence", None), ("archive", "sqlite_schema", None),
        ("main", "pragma_table_info", None), ("main", "dbstat", None), ("main", "archive.sales", None), ("a.b", "sales", None),
        ("main", "sal\ufffdes", None),
    ],
)  # fmt: skip
def test_a_table_has_one_name_or_none(schema: str, name: str, called: str | None) -> None:
    assert table_name(schema, name) == called
    assert spelled(Mention("select", schema, name)) == called


def test_a_name_without_a_schema_is_that_of_main() -> None:
    assert spelled(Mention("insert", None, "sales")) == "sales"


def test_two_functions_that_look_like_tables_touch_none() -> None:
    assert is_harmless(Mention("select", None, "JSON_Each")) and is_harmless(Mention("select", None, "json_tree"))
    assert not is_harmless(Mention("select", "main", "json_each")) and not is_harmless(Mention("select", None, "sales"))


def test_columns_are_stated_where_an_operation_has_some() -> None:
    assert access_to("sales", "select", ["amount"]) == Access(table="sales", operation="select", columns=["amount"])
    assert access_to("sales", "update", ()) == Access(table="sales", operation="update", columns=[])
    for operation in ("insert", "delete"):
        assert access_to("sales", operation, ["amount"]) == Access(table="sales", operation=operation)
    assert access_to("sales", "select") == access_to("sales", "select", ["a\u202eb"]) == Access(table="sales", operation="select")
    assert access_to("sal\u202ees", "select") is None and access_to(None, "select") is None, "no token can hold that name"

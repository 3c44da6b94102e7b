"""A statement as it is read: one, of a kind that is granted."""

from __future__ import annotations

from typing import Any

import pytest

from captoken.adapters._postgres import reader

SELECT = {"targetList": [{"ResTarget": {"val": {"A_Const": {"ival": {"ival": 1}}}}}], "op": "SETOP_NONE"}


@pytest.mark.parametrize("statement", [{}, {"SelectStmt": SELECT, "DeleteStmt": {"relation": {"relname": "hr"}}}, {"CopyStmt": {}}])
def test_what_is_not_one_statement_of_a_kind_that_is_granted_is_refused(monkeypatch: pytest.MonkeyPatch, statement: dict[str, Any]) -> None:
    monkeypatch.setattr(reader, "parse", lambda sql: [{"stmt": statement}])
    assert reader.read("select 1").refusal == ("operation", "only select, values, insert, update, delete and merge are granted")

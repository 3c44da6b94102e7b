"""Trees of statements: their kinds and fields are the library's, and both decoders make the same of one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

from captoken.adapters._postgres import grammar, lists, reader, tree
from captoken.errors import StatementError
from tests.adapters.postgres.test_reader import SELECT
from tests.adapters.postgres_corpus import CASES
from tests.longer import drawing, times

TEXTS = [case.sql for case in CASES if len(case.sql) < 5_000 and "\ud800" not in case.sql]


@pytest.fixture(scope="module")
def described() -> dict[str, DescriptorProto]:
    """The kinds of nodes as the library itself describes them, in a file beside it."""
    package = find_spec("postgast")
    assert package is not None and package.origin is not None
    files = FileDescriptorSet.FromString(Path(package.origin).with_name("pg_query.desc").read_bytes())
    return {message.name: message for file in files.file for message in file.message_type}


def test_the_kinds_and_their_fields_are_those_of_the_library(described: dict[str, DescriptorProto]) -> None:
    """(T2) So a newer library, whose trees have something else in them, is seen before a text is read with it."""
    for name, kind in tree.KINDS.items():
        # What all expressions have in the server, and none in a tree.
        fields = {field.json_name or field.name: field for field in described[name].field if field.name != "xpr"}
        assert kind.fields == fields.keys(), name
        assert all(getattr(kind.made(), field) is None for field in fields), name
        if name != "A_Const":  # nobody looks into one
            assert kind.inner == dict(bare(fields)), name
            assert kind.inner.keys() | {"viewQuery"} >= {field for field, _ in bare(fields, every=True)}, name


def bare(fields: dict[str, FieldDescriptorProto], every: bool = False) -> Iterator[tuple[str, str]]:
    """The fields that hold what can be of one kind alone, with it: of those kinds that the guard knows, or of every one."""
    for name, field in fields.items():
        kind = field.type_name.rpartition(".")[2]
        if field.type == FieldDescriptorProto.TYPE_MESSAGE and kind != "Node" and (every or kind in tree.KINDS):
            yield name, kind


def test_each_kind_that_is_granted_is_one_whose_fields_are_known() -> None:
    assert tree.KINDS.keys() >= lists.PLAIN_NODES | reader._RULES.keys()


@pytest.mark.parametrize(
    ("what", "statement"),
    [
        ("a field of the statement", {**SELECT, "qualifyClause": {"ColumnRef": {"fields": [{"String": {"sval": "pay"}}]}}}),
        ("a field below it", {**SELECT, "whereClause": {"ColumnRef": {"columns": [{"String": {"sval": "pay"}}]}}}),
        ("a flag", {**SELECT, "whereClause": {"SubLink": {"of_everything": True}}}),
        ("a field of what has no name of its kind", {**SELECT, "withClause": {"ctes": [], "inside": True}}),
        ("a kind", {**SELECT, "whereClause": {"GraphPattern": {"of": {"ColumnRef": {"fields": [{"String": {"sval": "pay"}}]}}}}}),
        ("a kind in a list", {**SELECT, "fromClause": [{"GraphTable": {"relation": {"relname": "hr"}}}]}),
        ("a name where a bare object was", {**SELECT, "withClause": {"WithClause": {"ctes": []}}}),
        ("a second kind in one object", {**SELECT, "fromClause": [{"RangeVar": {"relname": "sales"}, "RangeGraph": {"relname": "hr"}}]}),
        ("nothing where a node was", {**SELECT, "whereClause": {}}),
        ("a bare object where a name was", {**SELECT, "whereClause": {"fields": [{"String": {"sval": "pay"}}]}}),
    ],
)  # fmt: skip
def test_what_a_later_grammar_adds_is_refused(monkeypatch: pytest.MonkeyPatch, what: str, statement: dict[str, Any]) -> None:
    """(T2) Beside the same without it."""
    for added, refused in ((SELECT, False), (statement, True)):
        given = [{"stmt": {"SelectStmt": json.loads(json.dumps(added))}}]
        monkeypatch.setattr(reader, "parse", lambda sql, given=given: given)
        assert (reader.read("select 1").refusal is not None) == refused, what


def test_a_field_that_no_kind_has_is_no_none() -> None:
    """A rule that misspells one fails; it does not take it for one that the text leaves out."""
    node: Any = tree.tree_of({"RangeVar": {"relname": "sales"}})
    assert (node.relname, node.schemaname, type(node).__name__) == ("sales", None, "RangeVar")
    with pytest.raises(AttributeError):
        node.schema  # noqa: B018


def json_of(sql: str) -> str:
    """The library's own answer."""
    result = grammar._LIBRARY.pg_query_parse(sql.encode())
    try:
        return (result.tree or b"").decode()
    finally:
        grammar._LIBRARY.pg_query_free_parse_result(result)


def test_both_decoders_make_the_same_of_a_tree() -> None:
    """Of strings with anything in them, too."""
    draw = drawing(5)
    signs = ['"', "\\", "{", "}", "[", "]", ",", ":", "''", "\n", "\x01", "é", "😀", "a", "1", "<", "\u2028", "true", "null"]
    strings = ["".join(draw.choice(signs) for _ in range(draw.randrange(12))) for _ in range(times(500))]
    texts = [*TEXTS, *(f"select '{one}', 1 as \"{one.replace(chr(34), '')}x\"" for one in strings)]
    compared = 0
    for text in filter(None, map(json_of, texts)):
        assert grammar._decoded(text) == json.loads(text), text
        compared += 1
    assert compared > 800


DEEP = {
    "operators": ("1 + " * 1400, "a", ""), "brackets": ("(" * 1400, "a", ")" * 1400), "cases": ("case when true then " * 550, "a", " end" * 550),
    "arrays": ("array[" * 950, "a", "]" * 950), "words": ("not " * 2900, "a", ""), "queries": ("(select " * 900, "a", ")" * 900),
    "unions": ("1 union select " * 1400, "a", ""), "calls": ("abs(" * 1400, "a", ")" * 1400), "lists": ("a in (" * 950, "a", ")" * 950),
    "joins": ("1 from (select) a" + " natural join (select) a" * 549 + " join (select ", "a", ") x on true"),
    "FROM": ("1 from " + "(select * from " * 580, "(select a) x", ") x" * 580), "subscripts": ("a[" * 1400, "a", "]" * 1400),
}  # fmt: skip


@pytest.mark.parametrize("deep", DEEP)
def test_a_statement_is_read_to_its_end_however_deep_it_nests(deep: str) -> None:
    """Up to the limits of the page; and where whoever asks is nearly as deep as Python lets anybody be."""
    before, middle, after = DEEP[deep]
    sql = f"select {before}{middle}{after}"

    def asked_from(depth: int) -> Any:
        return asked_from(depth - 1) if depth else reader.read(sql)

    try:
        text = reader.read(sql)
    except StatementError as error:
        assert error.code == "too_large"  # the grammar has a limit of its own
        return
    assert text.refusal is None and "a" in {one.column for one in text.references}
    spare = sys.getrecursionlimit() - len(list(frames())) - 80
    assert len(asked_from(spare).references) == len(text.references)


def frames() -> Iterator[Any]:
    frame: Any = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back

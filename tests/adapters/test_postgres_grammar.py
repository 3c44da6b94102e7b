"""What stands between a text and the guard of PostgreSQL: the library of C, its trees, and the threads that it works in.

No server has a part in it. What comes of the trees is judged in `test_postgres`, on one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

from captoken._format.extras import extra
from captoken.adapters._postgres import grammar, lists, reader, room, tree
from captoken.adapters._postgres.grammar import GrammarError
from captoken.adapters._postgres.text import RefusedError
from captoken.errors import StatementError

from ..longer import drawing, times
from .postgres_corpus import CASES

TEXTS = [case.sql for case in CASES if len(case.sql) < 5_000 and "\ud800" not in case.sql]


# --- the kinds of nodes ---


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


SELECT = {"targetList": [{"ResTarget": {"val": {"A_Const": {"ival": {"ival": 1}}}}}], "op": "SETOP_NONE"}


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


@pytest.mark.parametrize("statement", [{}, {"SelectStmt": SELECT, "DeleteStmt": {"relation": {"relname": "hr"}}}, {"CopyStmt": {}}])
def test_what_is_not_one_statement_of_a_kind_that_is_granted_is_refused(monkeypatch: pytest.MonkeyPatch, statement: dict[str, Any]) -> None:
    monkeypatch.setattr(reader, "parse", lambda sql: [{"stmt": statement}])
    assert reader.read("select 1").refusal == ("operation", "only select, values, insert, update, delete and merge are granted")


def test_a_field_that_no_kind_has_is_no_none() -> None:
    """A rule that misspells one fails; it does not take it for one that the text leaves out."""
    node: Any = tree.tree_of({"RangeVar": {"relname": "sales"}})
    assert (node.relname, node.schemaname, type(node).__name__) == ("sales", None, "RangeVar")
    with pytest.raises(AttributeError):
        node.schema  # noqa: B018


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a" * 63, "a" * 63), ("a" * 64, "a" * 63), ("é" * 31 + "a", "é" * 31 + "a"), ("é" * 32, "é" * 31), ("a" + "é" * 31, "a" + "é" * 31),
        ("字" * 21, "字" * 21), ("a字" * 30, "a字" * 15 + "a"), ("😀" * 15, "😀" * 15), ("a" + "😀" * 16, "a" + "😀" * 15),
    ],
)  # fmt: skip
def test_a_name_is_cut_off_where_postgresql_cuts_it_off(name: str, kept: str) -> None:
    """`test_postgres` asks a server the same. A string that is no name stays whole."""
    text = reader.read(f"with \"{name}\" as (select '{name}') select \"{name}\".\"{name}\" as \"{name}\" from \"{name}\", s.\"{name}\" as \"{name}\"")
    assert text.refusal is None
    assert [(one.qualifier, one.column) for one in text.references] == [(kept, kept)]
    assert text.reads == [("s", kept)] and [source for source, _ in text.references[0].scope.sources] == [kept]
    node: Any = tree.tree_of(grammar.parse(f"select '{name}'")[0]["stmt"])
    assert node.targetList[0].val.sval == {"sval": name}


# --- the library ---


def test_what_is_no_sql_is_told_in_postgresqls_words() -> None:
    for sql, told in (("selct", 'syntax error at or near "selct"'), ("select 'é", "unterminated quoted string at or near \"'é\"")):
        with pytest.raises(GrammarError) as raised:
            grammar.parse(sql)
        assert str(raised.value) == told
    with pytest.raises(GrammarError, match="unterminated quoted string"):
        grammar.scan("select 'é")


def test_an_answer_of_the_scanner_that_is_not_known_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that were overlooked would not be counted."""
    for message in (b"", b"\x08\x01\x12\x04\x10\x01\x20", b"\x08\x01\x12\x06\x10\x01\x18\x02\x20\x03", b"\x08\x01\x1a\x00"):
        with monkeypatch.context() as patched, pytest.raises(GrammarError, match="in another way"):
            patched.setattr(grammar, "string_at", lambda data, size, message=message: message)
            grammar.scan("select 1")
    assert len(grammar.scan("select 1")) == 2


def test_each_token_that_nests_is_counted_without_the_scanner_too() -> None:
    """(T1) What a short text is judged by is never less than what the scanner would say."""
    draw = drawing(11)
    parts = [
        "é", "'", '"', " ", "a", "1", "(", "$", "$$", "--", "\n", "/*", "*/", "E'", "U&", "::", "x", "\u00a0", "字", "_", "+", "\\", ".", ",",
        "not ", "and", "$1", "1.5", "1e3", "0x1f", "select", "[", "]", "\x1c", "\x85", "\u2003", "<=", "=>", ":=", "null", "\ufeff", "B'", "@@",
    ]  # fmt: skip
    compared = 0
    for _ in range(times(4_000)):
        sql = "".join(draw.choice(parts) for _ in range(draw.randrange(1, 30)))
        with suppress(GrammarError):
            nesting = sum(kind not in reader._FLAT for kind, _ in grammar.scan(sql))
            assert nesting <= len(reader._words(sql)), sql
            compared += nesting > 3
    assert compared > 400


def test_reserved_words_are_told_from_names() -> None:
    """`test_postgres` compares them with a server's own list."""
    assert [word for word in ("select", "user", "sales", "values", "none", "x1", "_") if grammar.is_reserved(word)] == ["select", "user"]


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same for one of another machine."""
    monkeypatch.setattr(grammar, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"the package postgast is not installed; .* 'captoken\[postgres\]'"), extra("postgres"):
        grammar._library()
    for file in ("libpg_query.so", "libpg_query.dylib", "pg_query.dll"):
        (tmp_path / file).write_bytes(b"\x7fELF")
    other = ModuleSpec("postgast", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(grammar, "find_spec", lambda name: other)
    with pytest.raises(ImportError, match=r"pg_query\.\w+ cannot be loaded; .* 'captoken\[postgres\]'") as told, extra("postgres"):
        grammar._library()
    assert str(tmp_path) not in str(told.value)


# --- depth ---


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


SMALL_STACK = """
import sys, threading
from contextlib import suppress
from captoken.adapters._postgres.reader import read
from captoken.errors import StatementError

reads = []

def parse():
    for sql in sys.stdin.read().split(";"):
        with suppress(StatementError):  # the grammar has a limit of its own
            reads.append(read(sql).refusal is None)

# From 3.12 on, Python lets go of a long chain in more steps, each inside the one before.
threading.stack_size((256 if sys.version_info < (3, 12) else 384) * 1024)
thread = threading.Thread(target=parse)
thread.start()
thread.join()
print(sum(reads))
"""


def alone(script: str, given: str = "") -> str:
    """What a process of its own says: it may die."""
    ran = subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", script], input=given, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def test_no_statement_is_too_deep_for_a_thread_with_a_small_stack() -> None:
    """The deepest that get a thread with room, and the deepest that get none."""
    shallow = []
    for before, middle, after in DEEP.values():
        once = re.match(r"(?s)(.{1,40}?)\1+", before)
        part = before if once is None else once[1]
        shallow += [f"select {part * n}{middle}{after[: len(after) * n * len(part) // len(before)]}" for n in (40, 66, 99, 199)]
    deep = [f"select {before}{middle}{after}" for before, middle, after in DEEP.values()]
    assert int(alone(SMALL_STACK, ";".join(deep + shallow))) > 40


# --- threads ---


def test_texts_are_read_in_many_threads_at_once() -> None:
    """Each gets its own tree, whoever else is at work: in the caller's thread, or in the one for the deep."""
    texts = TEXTS[:150] + [f"select {'not ' * 300}a{number}" for number in range(30)]

    def said(sql: str) -> Any:
        with suppress(StatementError):
            text = reader.read(sql)
            return text.refusal, [one.column for one in text.references], text.reads
        return "no SQL"

    expected = [said(sql) for sql in texts]
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: [said(sql) for sql in texts], range(8)):
            assert found == expected


KEYS = """
import ctypes, threading
from captoken.adapters._postgres.reader import read

libc = ctypes.CDLL(None)

def free():
    keys = []
    key = ctypes.c_uint()
    while libc.pthread_key_create(ctypes.byref(key), None) == 0:
        keys.append(key.value)
    for one in keys:
        libc.pthread_key_delete(one)
    return len(keys)

before = free()
for number in range(300):
    read("select " + "not " * 250 + "a")
    for sql in ("select 1", "select " + "a, " * 250 + "a"):
        thread = threading.Thread(target=read, args=(sql,))
        thread.start()
        thread.join()
print(before - free())
"""


def test_neither_deep_statements_nor_threads_use_up_what_threads_of_the_process_share() -> None:
    """The library keeps a key for each thread that it has seen. There are 1,024, for all libraries of the process."""
    assert 0 < int(alone(KEYS)) <= room._MOST + 1


FORKED = """
import os
from captoken.adapters._postgres.reader import read

deep = "select " + "not " * 300 + "a"
read(deep)
child = os.fork()
if child == 0:
    os._exit(0 if read(deep).refusal is None else 1)
assert os.waitpid(child, 0)[1] == 0
print(read(deep).refusal)
"""


def test_a_fork_reads_deep_statements_though_its_parent_has_read_some() -> None:
    """The thread for them is not in the child."""
    assert alone(FORKED) == "None\n"


def test_the_room_gives_on_what_is_raised_in_it() -> None:
    def fails(sql: str) -> None:
        raise RefusedError("operation", f"{sql} in {threading.current_thread().name}")

    with pytest.raises(RefusedError, match="captoken-reader") as raised:
        room.run(fails, "select", deep=True)
    assert raised.value.args[0] == "operation"
    assert room.run(lambda sql: threading.current_thread(), "select") is threading.current_thread()

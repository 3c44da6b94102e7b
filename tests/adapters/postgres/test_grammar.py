"""What stands between a text and the guard of PostgreSQL: the library of C, its trees, and the threads that it works in.

No server has a part in it. What comes of the trees is judged in `test_postgres`, on one.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from captoken._format.extras import extra
from captoken.adapters._postgres import grammar, reader, tree
from captoken.adapters._postgres.grammar import GrammarError
from tests.longer import drawing, times

# --- the kinds of nodes ---


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
        with monkeypatch.context() as patched, pytest.raises(GrammarError, match=r"^the scanner answers in another way than was known$"):
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
    assert str(tmp_path) not in str(told.value) and told.value.name == "postgast"


def test_the_library_that_is_loaded_is_told_what_it_takes_and_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded once more, it answers as the one that was loaded with the module."""
    parsed, scanned = grammar.parse("select 1"), grammar.scan("select 1")
    monkeypatch.setattr(grammar, "_LIBRARY", grammar._library())
    assert (grammar.parse("select 1"), grammar.scan("select 1")) == (parsed, scanned)

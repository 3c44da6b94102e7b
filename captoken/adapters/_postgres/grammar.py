"""PostgreSQL's own scanner and parser: libpg_query, a library of C in the wheel of postgast.

The library is called without the package around it. That one gives trees of protobuf, which end
100 levels deep, and takes a fifth of a second to import.

Nothing is bounded here: `reader` looks at how long a text is, and how deep it can nest, before it
is given to the parser. A text has no NUL in it, where C would take it to end. While the library
works, other threads run.
"""

from __future__ import annotations

import json
import re
import sys
from ctypes import CDLL, POINTER, Structure, c_char_p, c_int, c_size_t, c_void_p, string_at
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from captoken._format.extras import extra
from captoken.adapters._postgres.room import run

_FILES = {"darwin": "libpg_query.dylib", "win32": "pg_query.dll"}


class GrammarError(Exception):
    """The text is no SQL. Its argument is the sentence of the grammar, as a server would say it."""


# --- the library, as pg_query.h describes it ---


class _Error(Structure):
    _fields_ = (
        ("message", c_char_p),
        ("funcname", c_char_p),
        ("filename", c_char_p),
        ("lineno", c_int),
        ("cursorpos", c_int),
        ("context", c_char_p),
    )


class _Parsed(Structure):
    _fields_ = (
        ("tree", c_char_p),
        ("stderr", c_char_p),
        ("error", POINTER(_Error)),
    )


class _Scanned(Structure):
    _fields_ = (
        ("size", c_size_t),
        ("data", c_void_p),
        ("stderr", c_char_p),
        ("error", POINTER(_Error)),
    )


def _library() -> CDLL:
    """The library. Raises ImportError where it is not, or is of another machine."""
    package = find_spec("postgast")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'postgast'", name="postgast")

    path = Path(package.origin).with_name(_FILES.get(sys.platform, "libpg_query.so"))
    try:
        library = CDLL(str(path))
    except OSError:
        raise ImportError(f"{path.name} cannot be loaded", name="postgast") from None

    for work, result in (("parse", _Parsed), ("scan", _Scanned)):
        function = getattr(library, f"pg_query_{work}")
        function.argtypes, function.restype = [c_char_p], result
        free = getattr(library, f"pg_query_free_{work}_result")
        free.argtypes, free.restype = [result], None
    return library


with extra("postgres"):
    _LIBRARY = _library()


# --- what it is asked ---


def parse(sql: str) -> Any:
    """The statements of a text, as JSON has them. Raises GrammarError.

    `select 1` gives `[{"stmt": {"SelectStmt": {"targetList": [...], "op": "SETOP_NONE"}}}]`.
    """
    return run(_parse, sql)


def scan(sql: str) -> list[tuple[bytes, bytes]]:
    """The tokens of a text: of each its kind, and its class of keyword. Raises GrammarError.

    Both are numbers, as the library spells them. What they are is told by scanning what one knows.
    """
    return [(kind, keyword) for _, _, kind, keyword in run(_scan, sql)]


def is_reserved(word: str) -> bool:
    """Whether a word of `a-z`, `0-9` and `_` is a keyword, and no name without quotes."""
    return [keyword for _, keyword in scan(word)] == _RESERVED


def _parse(sql: str) -> Any:
    result = _LIBRARY.pg_query_parse(sql.encode())
    try:
        _check(result)
        text = result.tree
    finally:
        _LIBRARY.pg_query_free_parse_result(result)

    try:
        tree = json.loads(text)
    except RecursionError:
        tree = _decoded(text.decode())
    return tree["stmts"]


def _scan(sql: str) -> list[tuple[bytes, bytes, bytes, bytes]]:
    result = _LIBRARY.pg_query_scan(sql.encode())
    try:
        _check(result)
        message = string_at(result.data, result.size)
    finally:
        _LIBRARY.pg_query_free_scan_result(result)

    if _is_message(message) is None:
        raise GrammarError("the scanner answers in another way than was known")
    return _tokens(message)


def _check(result: Any) -> None:
    if result.error:
        message = result.error.contents.message or b""
        raise GrammarError(message.decode(errors="replace"))


class Token(NamedTuple):
    """A token, by the bytes between which it stands."""

    begin: int
    end: int
    kind: bytes


def tokens(sql: str) -> list[Token]:
    """The tokens of a text with their places. Raises GrammarError."""
    return [Token(_number(begin), _number(end), kind) for begin, end, kind, _ in run(_scan, sql)]


def _number(spelled: bytes) -> int:
    """A number as protobuf spells it, seven bits a byte and the lowest first; nothing is 0."""
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(spelled))


# The scanner answers with a message of protobuf: a version, and for each token a message in that:
# its beginning, its end, its kind, its class of keyword. What is 0 is left out.
_NUMBER = rb"[\x80-\xff]*[\x00-\x7f]"
_TOKEN = rb"\x12[\x00-\x7f](?:\x08(%b))?\x10(%b)\x20(%b)(?:\x28(%b))?" % ((_NUMBER,) * 4)
_is_message = re.compile(rb"\x08%b(?:%b)*" % (_NUMBER, _TOKEN), re.DOTALL).fullmatch
_tokens = re.compile(_TOKEN, re.DOTALL).findall

# --- JSON that nests deep ---

# The next value, perhaps with its key: a string, a number or a word; or a bracket, or a comma.
_pieces = re.compile(
    r"""(?:"(\w+)":)?(?:("[^"\\]*(?:\\.[^"\\]*)*"|[\w-]+)|([\[{]))|([\]}])|,""",
).finditer


def _decoded(text: str) -> Any:
    """The tree out of the library's JSON, however deep it nests.

    Python's own decoder recurses. It ends some hundred levels below whoever called it. This one is
    many times slower.
    """
    top: list[Any] = []
    within: list[Any] = [top]
    for piece in _pieces(text):
        key, scalar, opening, closing = piece.groups()
        if closing is not None:
            within.pop()
        if scalar is None and opening is None:
            continue

        value: Any = {} if opening == "{" else []
        if scalar is not None:
            value = json.loads(scalar)
        if key is None:
            within[-1].append(value)
        else:
            within[-1][key] = value
        if opening is not None:
            within.append(value)
    return top[0]


_RESERVED = [keyword for _, keyword in scan("select")]

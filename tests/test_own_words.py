"""No word of a library reaches a reader but where a line of this file says why.

A library's sentences change from release to release, may quote what it was given, and stand in no list of ours. So each handler
that tells the text of an error whose class is not ours stands in `THEIRS` with a reason. TypeError and ValueError themselves are
ours: what a library raises is below them, and `own_words` tells the two apart where strangers' bytes are read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from captoken import errors

ROOT = Path(__file__).parent.parent
OURS = {"TypeError", "ValueError", *errors.__all__}
# What takes the words of an error; and what of an error are words.
TELLERS = ("str", "ascii", "repr", "escape")
WORDS = {"args", "details", "diag", "doc", "msg", "reason", "strerror"}

OPERATING_SYSTEM = "the operating system's word for an error number, to whoever runs the program"
FOR_THE_LOG = "the log of an operator: a store, a source or a callable of the embedder's says what it is"
DATABASE = "the database's own word, to its operator: what is wrong with it, it alone knows"
NOT_TOLD = "read, and not told"

THEIRS = {
    "captoken/_format/toml.py:read_toml": "the place alone is taken of it",
    "captoken/_language/discharge.py:third_party_caveat": "RecursionError has no words here: its place is taken by ours",
    "captoken/adapters/_gateway/checking.py:see": "raised by ourselves, or " + OPERATING_SYSTEM,
    "captoken/adapters/_gateway/checking.py:unready": "the same: `see` stands in it",
    "captoken/adapters/_gateway/lines.py:_reached": FOR_THE_LOG,
    "captoken/adapters/_gateway/mcp_door.py:_reached": FOR_THE_LOG,
    "captoken/adapters/_gateway/opening.py:_at": "raised by ourselves, or " + OPERATING_SYSTEM,
    "captoken/adapters/_issuance/ends.py:publish": FOR_THE_LOG,
    "captoken/adapters/_issuance/records.py:_write": FOR_THE_LOG,
    "captoken/adapters/fastapi.py:_begin": "raised by ourselves: a route that nothing guards",
    "captoken/adapters/issuance.py:reload": FOR_THE_LOG,
    "captoken/cli/console/answers.py:query_view": "raised by ourselves: a question that cannot be read",
    "captoken/cli/console/app.py:__call__": FOR_THE_LOG,
    "captoken/cli/gateway_mcp.py:asked": "raised by ourselves, or " + OPERATING_SYSTEM,
    "captoken/cli/postgres.py:connected": DATABASE,
    "captoken/cli/postgres.py:needing": "an ImportError of our own, of what a platform has not",
    "captoken/cli/reactions/alerts.py:problem_of": "raised by ourselves, or " + OPERATING_SYSTEM,
    "captoken/cli/reactions/command.py:_read": OPERATING_SYSTEM,
    "captoken/cli/reactions/command.py:listen": OPERATING_SYSTEM,
    "captoken/control/_shelf.py:fold": FOR_THE_LOG,
    "captoken/issuance/certificates.py:_check_path": FOR_THE_LOG,
    "captoken/issuance/minting.py:keyring": FOR_THE_LOG,
    "captoken/issuance/keys.py:_fetch": FOR_THE_LOG,
    "captoken/issuance/workload_api.py:_asked": "an agent of SPIFFE says why it gives nothing, to the service's operator",
    "captoken/keys/files.py:read_private": OPERATING_SYSTEM,
    "captoken/keys/files.py:write_private": OPERATING_SYSTEM,
    "captoken/local/_folder.py:__init__": OPERATING_SYSTEM,
    "captoken/local/_folder.py:_check_folder": OPERATING_SYSTEM,
    "captoken/local/_folder.py:told_by_folder": OPERATING_SYSTEM,
    "captoken/stores/sqlite.py:_file_there": OPERATING_SYSTEM,
    "captoken/stores/sqlite.py:_make_file": OPERATING_SYSTEM,
    "captoken/stores/sqlite.py:_transaction": DATABASE,
    "captoken/stores/trail_file.py:__init__": OPERATING_SYSTEM,
}


def caught(handler: ast.ExceptHandler) -> list[str]:
    kind = handler.type
    return [] if kind is None else [ast.unparse(one) for one in (kind.elts if isinstance(kind, ast.Tuple) else [kind])]


def tells(handler: ast.ExceptHandler) -> bool:
    """Does it put the words of what it caught somewhere?"""

    def is_it(node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == handler.name

    for node in ast.walk(ast.Module(handler.body, [])):
        if isinstance(node, ast.FormattedValue) and any(is_it(one) for one in alternatives(node.value)):
            return True
        if isinstance(node, ast.Attribute) and is_it(node.value) and node.attr in WORDS:
            return True
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if (called in TELLERS or "log." in called) and any(map(is_it, node.args)):
                return True
    return False


def alternatives(node: ast.expr) -> list[ast.expr]:
    """The values that an expression may be, as `error or "nothing"`."""
    return node.values if isinstance(node, ast.BoolOp) else [node]


def handlers(source: str, file: str) -> Iterator[str]:
    """The functions of a file that tell what others say."""
    tree = ast.parse(source)
    made_here = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    brought = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("captoken")
        for alias in node.names
    }
    ours = OURS | made_here | brought - {"UNREADABLE"}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for handler in ast.walk(function):
            if isinstance(handler, ast.ExceptHandler) and set(caught(handler)) - ours and tells(handler):
                yield f"{file}:{function.name}"


def test_whatever_tells_what_others_say_is_listed_with_a_reason() -> None:
    files = [*sorted((ROOT / "captoken").rglob("*.py")), ROOT / "captoken_pytest.py"]
    found = {one for path in files for one in handlers(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())}
    assert found == set(THEIRS), found ^ set(THEIRS)


def test_a_handler_that_tells_what_a_library_says_is_found() -> None:
    """The check sees each way of telling; and a class of ours, a name alone and `own_words` are none."""
    for told in ('f"no: {error}"', 'f"no: {error or 1}"', "str(error)", "escape(error)", "_log.info('%s', error)", "error.msg"):
        assert list(handlers(f"def f():\n    try: g()\n    except msgspec.DecodeError as error: x = {told}\n", "a")) == ["a:f"], told
    for kind, told in (("ValueError", "str(error)"), ("KeyError", "type(error).__name__"), ("KeyError", "own_words(error)")):
        assert not list(handlers(f"def f():\n    try: g()\n    except {kind} as error: x = {told}\n", "a")), told

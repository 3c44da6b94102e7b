"""Every message of captoken, with its place: `python -m tests.messages` lists them, to be read aloud.

Whoever changes one reads it as a person who has seen the README and nothing else: does it name the thing, say what came and
what was expected, and what to write? `python -m tests.messages --page` writes docs/errors.md anew, from the table that
`captoken.testing.error_catalogue` gives.

A message is found where its exception or refusal is made. A variable part of it is `{}`; a message that is handed on from
elsewhere is found there.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from captoken import errors
from captoken.testing import ErrorEntry, error_catalogue
from tests.reading import linked

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/errors.md"

PROMISED = {name for name in errors.__all__ if isinstance(getattr(errors, name), type) and name not in ("Code", "Kind")}
PROGRAMMING = {name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)}

# Where the words of a denial are made; and the private errors that become one, or an answer over the wire.
DENIALS = {"Reason", "Refusal", "Own", "BadLink"}
PRIVATE = {"EncodingError", "RefusedError", "RequestError", "NotLetIn", "ServiceError", "NotFinite"}


class Message(NamedTuple):
    place: str  # file and line
    made: str  # the name of what is made with it
    code: str | None  # that is stated beside it
    template: str | None  # None: it is made elsewhere

    def fits(self, text: str) -> bool:
        """Could it be what is said here?"""
        if self.template is None or len(self.template.replace("{}", "").strip()) < 4:
            return False
        return re.fullmatch(".+".join(map(re.escape, self.template.split("{}"))), text, re.DOTALL) is not None


def messages() -> Iterator[Message]:
    """All of the library; the command line has transcripts."""
    for path in sorted((ROOT / "captoken").rglob("*.py")):
        if "cli" not in path.parts:
            tree = ast.parse(path.read_text("utf-8"))
            yield from _of(tree, path.relative_to(ROOT).as_posix(), _named(tree.body))


def _of(node: ast.AST, file: str, known: dict[str, list[ast.expr]]) -> Iterator[Message]:
    """The messages below a node. `known`: what each name in reach has been set to."""
    for child in ast.iter_child_nodes(node):
        reach = known
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            reach = known | _named(list(ast.walk(child)))
        if isinstance(child, ast.Call):
            name = getattr(child.func, "id", getattr(child.func, "attr", ""))
            if name in PROMISED | PROGRAMMING | DENIALS | PRIVATE and child.args:
                yield from _made(child, name, f"{file}:{child.lineno}", reach)
        yield from _of(child, file, reach)


def _named(nodes: list[ast.AST] | list[ast.stmt]) -> dict[str, list[ast.expr]]:
    known: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    known.setdefault(target.id, []).append(node.value)
    return known


def _made(call: ast.Call, name: str, place: str, known: dict[str, list[ast.expr]]) -> Iterator[Message]:
    code = None
    given = list(call.args)
    if name in DENIALS | {"RefusedError"} and isinstance(given[0], ast.Constant) and len(given) > 1:
        code, given = str(given[0].value), given[1:]
    elif name == "RequestError":
        given = given[1:]  # behind the status
    elif name == "WideningError":
        code, given = "widening", given[4:]
    elif name in ("TokenFormatError", "DelegationError", "DischargeError"):
        stated = given[1:] + [keyword.value for keyword in call.keywords if keyword.arg == "code"]
        code = next((one.value for one in stated if isinstance(one, ast.Constant) and isinstance(one.value, str)), None)
    for template in _templates(given[0], known) if given else [None]:
        yield Message(place, name, code, template)


def _templates(node: ast.expr, known: dict[str, list[ast.expr]]) -> list[str | None]:
    """What an expression says: more than one text where a name was set to one of several."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)]
        case ast.Name(id=name) if name in known:
            return [text for value in known[name] for text in _templates(value, {})]
        case ast.IfExp(body=one, orelse=other):
            return _templates(one, known) + _templates(other, known)
    return [None]


# --- the page -------------------------------------------------------------------------------------

TOP = """\
# Errors and denials

Each error says what it is about, what came and what to write. This page says more about each: how it comes about, and what to do.
Compare types and codes, never messages: they may change.

```python
from captoken.testing import error_catalogue

for entry in error_catalogue():
    assert entry.code and entry.cause and entry.remedy
```

A refusal at a server is a `Denied`: `denied.code` is one of the codes [below](#denied). All else that captoken raises
of its own is a `CaptokenError`. A mistake in a call is a `TypeError` or a `ValueError`, and its message names the argument. A package
that is not installed is an `ImportError`, and its message names the extra: `pip install 'captoken[mcp]'`.

No message has a token, a key or a signature in it. What strangers wrote is shown short and escaped.

Each code below says what has happened and what to do, with one of its messages.
"""


def page() -> str:
    """docs/errors.md: a heading for each code, so that a link and a search lead to it."""
    entries = error_catalogue()
    parts = [TOP, "## What is raised\n", *_raised([one for one in entries if one.error is not errors.Denied])]
    parts += ["## Denied\n", "In the order in which a verifier checks: the first that fails gives the code.\n"]
    parts += [_section(one, "###") for one in entries if one.error is errors.Denied]
    return linked("\n".join(parts), "docs/errors.md")


def _raised(entries: list[ErrorEntry]) -> Iterator[str]:
    for kind in dict.fromkeys(entry.error for entry in entries):
        yield f"### {kind.__name__}\n"
        yield from (_section(entry, "####") for entry in entries if entry.error is kind)


def _section(entry: ErrorEntry, level: str) -> str:
    title = f"{level} {entry.error.__name__}: {entry.code}"
    return f"{title}\n\n{entry.cause}\n\n**What to do:** {entry.remedy}\n\n```text\n{entry.example}\n```\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--page"]:
        PAGE.write_text(page(), "utf-8")
    else:
        for message in messages():
            code = f" {message.code}" if message.code else ""
            print(f"{message.place}: {message.made}{code}: {message.template or '(made elsewhere)'}")

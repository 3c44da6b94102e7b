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
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from captoken import Access, errors
from captoken._verification.wording import told_to_model
from captoken.errors import CODES
from captoken.testing import ErrorEntry, error_catalogue
from tests.reading import linked

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/errors.md"

PROMISED = {name for name in errors.__all__ if isinstance(getattr(errors, name), type) and name not in ("Code", "Kind")}
PROGRAMMING = {name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)}

# Where the words of a denial are made, and of a narrowing that is none; and the private errors that become one, or an answer
# over the wire.
DENIALS = {"Reason", "Refusal", "Own", "BadLink"}
WIDENING = {"WideningError", "Excess"}
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


@cache
def _trees() -> dict[str, ast.Module]:
    """All of the library by file; the command line has transcripts."""
    files = [path for path in sorted((ROOT / "captoken").rglob("*.py")) if "cli" not in path.parts]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in files}


def messages() -> Iterator[Message]:
    """All of the library."""
    for file, tree in _trees().items():
        yield from _of(tree, file, _named(tree.body))


@cache
def _elsewhere() -> dict[str, list[ast.expr]]:
    """What a name of another file stands for: a text, or the texts that a function returns."""
    found: dict[str, list[ast.expr]] = {}
    for tree in _trees().values():
        for name, values in _named(tree.body).items():
            found.setdefault(name, []).extend(value for value in values if isinstance(value, ast.Constant))
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                found.setdefault(node.target.id, []).append(node.value)
            if isinstance(node, ast.FunctionDef):
                returned = [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value is not None]
                found.setdefault(node.name, []).extend(returned)
    return found


def _of(node: ast.AST, file: str, known: dict[str, list[ast.expr]]) -> Iterator[Message]:
    """The messages below a node. `known`: what each name in reach has been set to, and has not been used for yet."""
    for child in ast.iter_child_nodes(node):
        reach = known
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            reach = known | _named(list(ast.walk(child)))
        if isinstance(child, ast.Call):
            name = getattr(child.func, "id", getattr(child.func, "attr", ""))
            if name in PROMISED | PROGRAMMING | DENIALS | PRIVATE | WIDENING and child.args:
                yield from _made(child, name, f"{file}:{child.lineno}", reach)
            elif name == "replace":  # an excess with other words
                hints = [keyword.value for keyword in child.keywords if keyword.arg == "hint"]
                yield from (Message(f"{file}:{child.lineno}", "Excess", "widening", text) for one in hints for text in _templates(one, reach))
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
    elif name in WIDENING:
        code, given = "widening", given[5 if name == "Excess" else 4 :]
        given += [keyword.value for keyword in call.keywords if keyword.arg in ("hint", "cause")]
    elif name in ("TokenFormatError", "DelegationError", "DischargeError", "GuardError", "IssuanceError"):
        stated = given[1:2] + [keyword.value for keyword in call.keywords if keyword.arg == "code"]
        if not stated:
            code = {"TokenFormatError": "malformed", "GuardError": "guard"}.get(name)
        # A name that is set once stands for what it was set to.
        stated = [value for one in stated for value in (known.get(one.id, []) if isinstance(one, ast.Name) else [one])]
        code = next((one.value for one in stated if isinstance(one, ast.Constant) and isinstance(one.value, str)), code)
    for said in given if name == "Excess" else given[:1]:
        for template in _templates(said, known):
            yield Message(place, name, code, template)
    if not given:
        yield Message(place, name, code, None)


def _templates(node: ast.expr, known: dict[str, list[ast.expr]]) -> list[str | None]:
    """What an expression says: more than one text where a name was set to one of several."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)]
        case ast.Name(id=name, lineno=line) if name in known:
            # One name may be set again for the next message: what stands below was not meant here.
            before = [value for value in known[name] if value.lineno <= line]
            known[name] = [value for value in known[name] if value not in before] or known[name]
            return [text for value in before or known[name] for text in _templates(value, {})]
        case ast.IfExp(body=one, orelse=other):
            return _templates(one, known) + _templates(other, known)
        case ast.BoolOp(op=ast.Or(), values=values):
            return [text for value in values for text in _templates(value, known)]
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) | ast.Attribute(attr="hint" as name):
            # Of a name, its texts; of what is called, the texts that it returns itself.
            made = [value for value in _elsewhere().get(name, ()) if isinstance(value, ast.Constant | ast.JoinedStr)]
            return [text for value in made for text in _templates(value, {}) if text is not None] or [None]
    return [None]


# --- the page -------------------------------------------------------------------------------------

TOP = """\
# Errors and denials

What an error or a denial means, how it comes about, and what to do. Look for the code, or search this page for a part of the message:
`…` stands for what differs. In a program compare types and codes, never messages: they may change. This page is a table, too:

```python
from captoken.testing import error_catalogue

found = {entry.code: entry for entry in error_catalogue()}
print(found["unknown_caveat"].cause, found["unknown_caveat"].remedy)
```

```text
@CATALOGUE@
```

- **A refusal at a server** is a `Denied`: `denied.code` is one of [these](#denied).
- **All else that captoken raises** of its own is a `CaptokenError`: [these](#what-is-raised).
- **A mistake in a call** is a `TypeError` or a `ValueError`: [these](#mistakes-in-a-call). Its message names the argument.
- **A package that is not installed** is an `ImportError`. Its message names the extra: `pip install 'captoken[mcp]'`.

No message has a token, a key or a signature in it. What strangers wrote is shown short and escaped.
"""

DENIED = """\
## Denied

In the order in which a verifier checks: the first that fails gives the code. [How guards judge](how-guards-judge.md) has the steps.
`denied.kind` says what an HTTP server answers:

| kind | status | means |
| --- | --- | --- |
| `invalid` | 401 | this token is not taken |
| `insufficient` | 403 | it is taken, and does not permit this |
| `proof` | 401 | a fresh proof of its key is wanted |
| `unavailable` | 503 | the server cannot decide now |

Three people are told of a denial: the operator, whose log has the messages below each code; the client, who gets one sentence; and the agent,
who gets what `decision.for_model()` says.
"""

MISTAKES = """\
## Mistakes in a call

A `TypeError` says that an argument is of another type, and a `ValueError` that its value will not do. Nothing was changed, sent or written.
**What to do:** Read the message to its end: it says what was expected. [Keywords](keywords.md) and [limits](limits.md) say what each takes.
"""

ANSWERS = """\
## Answers over HTTP

What an adapter or a service answers to a request that it cannot read: no decision was made. **What to do:** Send the request as the answer says.
"""

# Made in the place of a denial, or with its words: the message of the one stands in a decision as well.
OF_DENIALS = DENIALS | {"RefusedError"}
# What a text or a link is refused with where it is read.
READING = {"malformed": {"TokenFormatError", "EncodingError"}, "unreadable_link": {"EncodingError"}}


def page() -> str:
    """docs/errors.md: a heading for each code, so that a link and a search lead to it."""
    entries = error_catalogue()
    known = [one for one in messages() if one.template is not None]
    found = {entry.code: entry for entry in entries}["unknown_caveat"]
    parts = [TOP.replace("@CATALOGUE@", f"{found.cause} {found.remedy}"), "## What is raised\n", *_raised([one for one in entries if one.error is not errors.Denied], known)]
    parts.append(DENIED)
    parts += [_denied(one, known) for one in entries if one.error is errors.Denied]
    parts.append(MISTAKES)
    for kind in ("TypeError", "ValueError", "RuntimeError", "AttributeError", "SyntaxError", "ImportError"):
        parts += [f"### {kind}\n", _listed(one for one in known if one.made == kind)]
    parts += [ANSWERS, _listed(one for one in known if one.made == "RequestError")]
    return linked("\n".join(parts), "docs/errors.md")


def _raised(entries: list[ErrorEntry], known: list[Message]) -> Iterator[str]:
    """By type. One with several codes has a heading for each, and messages of which the code is found elsewhere."""
    for kind in dict.fromkeys(entry.error for entry in entries):
        name = kind.__name__
        codes = [entry for entry in entries if entry.error is kind]
        own = [one for one in known if one.made in (WIDENING if name in WIDENING else {name})]
        yield f"### {name}\n"
        for entry in codes:
            yield f"#### {name}: {entry.code}\n"
            yield _entry_lines(entry)
            yield _listed([one for one in own if one.code == entry.code or len(codes) == 1], entry.example)
        rest = [one for one in own if one.code is None] if len(codes) > 1 else []
        if rest:
            yield f"#### {name}: with one of these codes\n"
            yield _listed(rest)


def _denied(entry: ErrorEntry, known: list[Message]) -> str:
    meant = CODES[entry.code]
    access = Access(table="sales", operation="select", tool="pay", arguments={})
    agent = told_to_model(entry.code, access, proven=False)
    shown = [one for one in known if (one.made in OF_DENIALS and one.code == entry.code) or one.made in READING.get(entry.code, ())]
    return "\n".join(
        [
            f"### Denied: {entry.code}\n",
            _entry_lines(entry),
            f"Step {meant.step}, kind `{meant.kind}`. A client is told:\n",
            _text([meant.public]),
            "An agent is told, of a `select` on `sales` or a call of `pay`:\n",
            _text([agent]),
            "The operator is told one of:\n",
            _listed(shown, entry.example),
        ]
    )


def _entry_lines(entry: ErrorEntry) -> str:
    return f"{entry.cause}\n\n**What to do:** {entry.remedy}\n"


def _listed(made: Iterable[Message], *examples: str) -> str:
    """The messages that there are, each once: one as it is seen, and then with what differs left open."""
    templates = sorted({one.template.replace("{}", "…") for one in made if one.template is not None})
    said = [one for one in templates if len(one.replace("…", "").strip()) >= 4 and one not in examples]
    return _text([*examples, *said])


def _text(lines: list[str]) -> str:
    return "\n".join(["```text", *lines, "```", ""])


if __name__ == "__main__":
    if sys.argv[1:] == ["--page"]:
        PAGE.write_text(page(), "utf-8")
    else:
        for message in messages():
            code = f" {message.code}" if message.code else ""
            print(f"{message.place}: {message.made}{code}: {message.template or '(made elsewhere)'}")

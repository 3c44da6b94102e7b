"""The called twin of what is written awaited: `python -m tests.called` writes it anew.

What an asyncio face does and what the plain one does is one text but for `await`. It is written once, awaited, between two marks:

    # awaited: NAME
    …
    # end: NAME

The called form stands between `# called: NAME` and `# end: NAME`, and is never edited by hand. What differs between the two stands
outside of the marks. `PARTS` lists all parts that are made so, and what else is called otherwise in each.
"""

from __future__ import annotations

import re
import sys
import tokenize
from io import StringIO
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent / "captoken"


class Part(NamedTuple):
    """One text that is written awaited, and made called."""

    # Files of the package: where it is written, and where its called form stands.
    awaited: str
    called: str

    # What else is called otherwise, as it is written: whole words, or pieces of an expression.
    otherwise: tuple[tuple[str, str], ...] = ()


_GRANT = "_verification/grant.py"
_VERIFIER = "_verification/verifier.py"
PARTS: dict[str, Part] = {
    "verifier": Part(
        _VERIFIER,
        _VERIFIER,
        (("self.blocking", "self"), ("self._granted(", "_grant_of("), ("self._run(", "answered("), ("self._run_steps(", "run(")),
    ),
    "driver": Part(_GRANT, _GRANT),
    "grant": Part(_GRANT, _GRANT, (("self.blocking", "self"), ("self._awaited", "self._driver"))),
    "reserved": Part(_GRANT, _GRANT),
    "stores.shells": Part("stores/_shells.py", "stores/_shells.py"),
    "ports.proofs": Part("stores/ports.py", "stores/ports.py"),
    "ports.ledger": Part("stores/ports.py", "stores/ports.py"),
    "postgres.begin": Part("stores/postgres.py", "stores/postgres.py", (("self._ask_known", "super()._ask"),)),
    "postgres.versions": Part("stores/postgres.py", "stores/postgres.py"),
    "postgres.ask": Part("stores/postgres.py", "stores/postgres.py", (("_ask_known", "_ask"),)),
    "current": Part("current.py", "current.py", (("asend", "send"), ("athrow", "throw"), ("Generator[Any, Any]", "Generator[Any, Any, Any]"))),
    "adapters.database": Part(
        "adapters/postgres.py",
        "adapters/postgres.py",
        # The type of what it waits with is that of both connections.
        (("wait(steps)", "wait(steps)  # type: ignore[assignment]"),),
    ),
    "adapters.block": Part("adapters/postgres.py", "adapters/postgres.py"),
    "sqlalchemy": Part(
        "adapters/sqlalchemy.py", "adapters/sqlalchemy.py", (("_async_source", "_source"), ("Engine(source.engine())", "source.engine()"))
    ),
    "langchain": Part(
        "adapters/langchain.py",
        "adapters/langchain.py",
        (
            ("awrap_tool_call", "wrap_tool_call"),
            ("awrap_model_call", "wrap_model_call"),
            ("awaiting", "waiting"),
            ("arefused", "refused_in"),
            ("_is_refused_async", "_is_refused"),
            ("check_async", "check"),
            ("request_async", "request"),
            ("self._guard.served(decision.grant)", "decision.grant"),
        ),
    ),
    "langchain_node": Part(
        "adapters/langchain.py",
        "adapters/langchain.py",
        (("ainvoke", "invoke"), ("self._guard.awaiting", "self._guard.waiting"), ("arefused", "refused_in")),
    ),
    "grpc": Part("adapters/_grpc/calls.py", "adapters/_grpc/calls.py", (("_run_async", "_run"), ("anext", "next"), ("aiter", "iter"))),
    "grpc.begun": Part("adapters/grpc.py", "adapters/grpc.py", (("self._verifier.awaited", "self._verifier.blocking"),)),
}

# Everywhere: `Async` before a name is dropped, and what answers later answers at once.
_LATER = frozenset({"Awaitable", "Coroutine", "Pending"})
_METHODS = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__", "__anext__": "__next__", "aclose": "close"}


def called(text: str, otherwise: tuple[tuple[str, str], ...] = ()) -> str:
    """The called form of lines that are written awaited."""
    tokens = [one for one in tokenize.generate_tokens(StringIO(text).readline) if one.type not in (tokenize.NL, tokenize.ENDMARKER)]
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def at(place: tuple[int, int]) -> int:
        return starts[place[0] - 1] + place[1]

    edits: list[tuple[int, int, str]] = []
    for number, token in enumerate(tokens):
        begin, end = at(token.start), at(token.end)
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            edits.append((begin, end, _words(token.string)))
        elif token.type != tokenize.NAME:
            continue
        elif token.string in ("async", "await"):
            edits.append((begin, at(tokens[number + 1].start), ""))
        elif token.string in _LATER and tokens[number + 1].string in ("(", "["):
            opens, closes = tokens[number + 1], tokens[_closer(tokens, number + 1)]
            # What goes over several lines keeps its brackets.
            is_long = opens.string == "(" and opens.start[0] != closes.start[0]
            edits.append((begin, at(opens.end), "(" if is_long else ""))
            edits.append((at(closes.start), at(closes.end), ")" if is_long else ""))
        else:
            edits.append((begin, end, _name(token.string)))

    made, done = [], 0
    for begin, end, word in sorted(edits):
        made += [text[done:begin], word]
        done = end
    result = "".join(made) + text[done:]
    for word, other in otherwise:
        result = re.sub(rf"(?<!\w){re.escape(word)}" + (r"(?!\w)" if word[-1].isalnum() else ""), lambda _, other=other: other, result)
    return result


def _closer(tokens: list[tokenize.TokenInfo], opens: int) -> int:
    """Where the bracket that opens there is closed."""
    depth = 0
    for number in range(opens, len(tokens)):
        depth += (tokens[number].string in "([{") - (tokens[number].string in ")]}") if tokens[number].type == tokenize.OP else 0
        if depth == 0:
            return number
    raise ValueError("a bracket is not closed")


def _name(name: str) -> str:
    return _METHODS.get(name, re.sub(r"^(_?)Async(?=[A-Z])", r"\1", name))


def _words(text: str) -> str:
    """A docstring or a comment, whose examples are called as well."""
    return re.sub(r"\b_?Async[A-Z]\w*|\baclose\b", lambda found: _name(found[0]), re.sub(r"\b(?:await |async (?=with|for|def))", "", text))


def _marked(kind: str, name: str) -> re.Pattern[str]:
    return re.compile(rf"(^ *# {kind}: {name}(?:,[^\n]*)?\n)(.*?)(^ *# end: {name}\n)", re.DOTALL | re.MULTILINE)


def made() -> dict[Path, str]:
    """Each file that has called parts, as it has to be."""
    texts: dict[Path, str] = {}
    for name, part in PARTS.items():
        written = _marked("awaited", name).findall((ROOT / part.awaited).read_text("utf-8"))
        path = ROOT / part.called
        text = texts.get(path) or path.read_text("utf-8")
        places = _marked("called", name).findall(text)
        if len(written) != 1 or len(places) != 1:
            raise ValueError(f"{name}: awaited in {part.awaited} {len(written)} times, called in {part.called} {len(places)} times")
        body = called(written[0][1], part.otherwise)
        texts[path] = _marked("called", name).sub(lambda marks, body=body: marks[1] + body + marks[3], text)
    return texts


def lines(text: str) -> set[int]:
    """The numbers of the lines of a file that are made, by its text."""
    found: set[int] = set()
    for name in PARTS:
        for place in _marked("called", name).finditer(text):
            first = text.count("\n", 0, place.start(2)) + 1
            found.update(range(first, first + place[2].count("\n")))
    return found


def main() -> int:
    for path, text in made().items():
        if path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(path.relative_to(ROOT.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())

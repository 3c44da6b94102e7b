"""`captoken docs`, the pages that came with the package; `captoken skill`, for coding agents."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click
import msgspec

from captoken._format.spelling import shown
from captoken.cli import output
from captoken.cli.options import json_option

# What has a name of its own, and is no page of the folder `docs`.
_OTHERS = {
    "changelog": "CHANGELOG.md",
    "examples": "examples/README.md",
    "readme": "README.md",
    "security": "SECURITY.md",
    "spec": "spec/captoken-v1.md",
    "typescript": "ports/typescript/README.md",
}


@click.command(short_help="Read the documentation, or search it.")
@click.argument("words", nargs=-1, metavar="[PAGE | WORD...]")
@json_option
def docs(words: tuple[str, ...], as_json: bool) -> None:
    """List the documentation pages, print one, or search them.

    \b
    captoken docs
    captoken docs tools
    captoken docs revoke a token
    captoken docs "logging: The line of a denial"
    grep -ri budget "$(captoken docs | head -n 1)"

    The pages are part of the package, so they match its version. Links between pages work, and so
    do links to the specification and the examples. Links to tests, benchmarks and CONTRIBUTING.md
    need the repository.
    """
    root = _root()
    pages = dict(_pages(root))
    asked = " ".join(words)
    name = asked.lower().removesuffix(".md").removeprefix("docs/")  # as docstrings cite it
    if not words:
        _list(root, pages, as_json)
    elif name in pages:
        text = pages[name].read_text("utf-8")
        _say_text(text, {"page": name, "text": text}, as_json)
    elif (section := _named(asked, pages)) is not None:
        _say_text(section, {"page": asked, "text": section}, as_json)
    else:
        _find(asked, pages, as_json)


@click.command(short_help="Write what a coding agent has to know: a SKILL.md.")
@json_option
def skill(as_json: bool) -> None:
    """Print a skill for coding agents: how to guard a program with captoken, and what never to do.

    \b
    mkdir -p .claude/skills/captoken
    captoken skill > .claude/skills/captoken/SKILL.md

    It matches this version, and refers to the pages of `captoken docs`.
    """
    text = (files("captoken") / "cli" / "skill.md").read_text("utf-8")
    _say_text(text, {"text": text}, as_json)


def _list(root: Traversable, pages: dict[str, Traversable], as_json: bool) -> None:
    """Where the pages are, and the title of each."""
    titles = {
        name: found.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        for name, found in pages.items()
    }
    folder = str(root / "docs")
    width = max(map(len, titles))
    lines = [f"  {name.ljust(width)}  {title}" for name, title in titles.items()]
    output.answer(as_json, {"folder": folder, "pages": titles}, folder, *lines)


def _say_text(text: str, data: dict[str, str], as_json: bool) -> None:
    """A text, as it is."""
    if as_json:
        output.say_json(data)
    else:
        output.say_exact(text.removesuffix("\n"))


def _find(asked: str, pages: dict[str, Traversable], as_json: bool) -> None:
    """The sections that say most of those words. Raises UsageError where none says any."""
    found = find(asked, {name: page.read_text("utf-8") for name, page in pages.items()})
    if not found:
        close = get_close_matches(asked, pages, n=1)
        which = f"did you mean {close[0]}? " if close else ""
        lists = "`captoken docs` lists the pages"
        raise click.UsageError(f"no page says {shown(asked)}: {which}{lists}")
    lines: list[str] = []
    for one in found:
        lines += [f"{one.page}: {one.heading}", *([f"    {one.begins}"] if one.begins else [])]
    data = {"found": msgspec.to_builtins(found)}
    one = found[0]
    section = f'`captoken docs "{one.page}: {one.heading}"`'
    shows = f"To read one: `captoken docs {one.page}`, or {section}."
    output.answer(as_json, data, *lines, "", shows)


def _named(asked: str, pages: Mapping[str, Traversable]) -> str | None:
    """The section that is named as a search names it, or None."""
    page, _, heading = asked.partition(": ")
    if page not in pages:
        return None
    parts = _parts(pages[page].read_text("utf-8"))
    return next((f"## {found}\n{body}" for found, body in parts if found == heading), None)


def _root() -> Traversable:
    """The folder that has `docs`, `examples` and `spec`, laid out as in a checkout.

    A wheel has it in the package. A checkout that was installed as it is has it around the package.
    Raises ClickException where there is none.
    """
    package = files("captoken")
    packed = package / "_pages"
    if packed.is_dir():
        return packed
    checkout = Path(str(package)).parent
    # Beside an installed package there may be anybody's `docs`.
    if (checkout / "pyproject.toml").is_file() and (checkout / "docs" / "index.md").is_file():
        return checkout
    raise click.ClickException("this installation came without its pages")


def _pages(root: Traversable) -> Iterator[tuple[str, Traversable]]:
    """All pages by name, those of `docs` first."""
    folder = root / "docs"
    for name in sorted(page.name for page in folder.iterdir() if page.name.endswith(".md")):
        yield name.removesuffix(".md"), folder / name
    for name, path in _OTHERS.items():
        yield name, root.joinpath(*path.split("/"))


# --- the search -----------------------------------------------------------------------------------

# BM25, as most searches rank. A word of a heading counts as six, and one of a page's name as four.
_MOST = 8  # sections that are shown
_SOON, _LONG = 1.2, 0.6  # how soon more of a word counts no more; what a long section pays
_IN_HEADING, _IN_NAME = 6, 4
# A recipe answers a question, so what it says is worth more than what other pages say; and what a
# page says that proves, lists or repeats is worth less.
_WORTH = {
    "recipes": 1.05,
    **dict.fromkeys(("assurance", "changelog", "kernel", "typescript", "typescript-server"), 0.6),
    **dict.fromkeys(("cli", "planning", "threat-model"), 0.8),
}

# What people type, by its stem, and what the pages say in place of it.
_ALSO = {
    "benchmark": ("speed",),
    "expire": ("expired",),
    "gunicorn": ("worker",),
    "latency": ("speed",),
    "multiple": ("several",),
    "mypy": ("type", "checker"),
    "performance": ("speed",),
    "processe": ("worker",),
    "quota": ("budget",),
    "redi": ("valkey", "ledger"),
    "refresh": ("expired",),
    "skew": ("clock",),
    "renew": ("expired",),
    "test": ("testing",),
}

_heading = re.compile(r"#{1,4} (.*)")
_word = re.compile(r"[a-z0-9]+")
_link = re.compile(r"\[([^\]]*)\]\([^)]*\)")

# They stand in every question and in every section.
_LITTLE = frozenset(
    ("a", "an", "and", "do", "doe", "how", "i", "if", "in", "is", "it", "my", "of", "on")
).union(("the", "thi", "to", "what"))


class Section(msgspec.Struct, frozen=True):
    """A part of a page: the page's name, the heading, and how the text begins."""

    page: str
    heading: str
    begins: str


def find(asked: str, pages: Mapping[str, str]) -> list[Section]:
    """The sections of those pages that say most of the words, best first; eight at most."""
    typed = set(_stems(asked)) - _LITTLE
    wanted = typed.union(*(_ALSO.get(word, ()) for word in typed))
    found = [part for name, text in pages.items() for part in _sections(name, text)]
    mean = sum(counts.total() for _, counts in found) / max(1, len(found))
    having = {word: sum(word in counts for _, counts in found) for word in wanted}
    worth = {
        word: math.log(1 + (len(found) - count + 0.5) / (count + 0.5))
        for word, count in having.items()
    }

    scores: list[tuple[float, Section]] = []
    for section, counts in found:
        pays = _SOON * (1 - _LONG + _LONG * counts.total() / mean)
        score = sum(worth[word] * counts[word] / (counts[word] + pays) for word in wanted)
        scores.append((score * _WORTH.get(section.page, 1), section))
    best = sorted((one for one in scores if one[0] > 0), key=lambda one: -one[0])
    return [section for _, section in best[:_MOST]]


def _sections(name: str, text: str) -> Iterator[tuple[Section, Counter[str]]]:
    """The parts of a page, each with how often it says each word."""
    for heading, body in _parts(text):
        counts = Counter(_stems(body))
        for word in _stems(heading):
            counts[word] += _IN_HEADING
        for word in _stems(name):
            counts[word] += _IN_NAME
        first = next((line for line in body.splitlines() if line[:1].isalpha()), "")
        yield Section(name, heading, _link.sub(r"\1", first)), counts


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Each heading of a page, with the text below it. A `#` in code is none."""
    heading, body, is_code = "", list[str](), False
    for line in text.splitlines():
        is_code ^= line.startswith("```")
        started = None if is_code else _heading.fullmatch(line)
        if started is None:
            body.append(line)
            continue
        if heading:
            yield heading, "\n".join(body)
        heading, body = started[1], []
    yield heading, "\n".join(body)


def _stems(text: str) -> Iterator[str]:
    """The words of a text; a plural is its singular."""
    for word in _word.findall(_link.sub(r"\1", text).lower()):
        yield word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] != "s" else word

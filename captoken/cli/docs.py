"""`captoken docs`, the pages that came with the package; `captoken skill`, for coding agents."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click
import msgspec

from captoken._format.spelling import shown
from captoken.cli import output
from captoken.cli.options import json_option
from captoken.cli.search import find

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
    grep -ri budget "$(captoken docs | head -n 1)"

    The pages are part of the package, so they match its version. Links between pages work, and so
    do links to the specification and the examples. Links to tests, benchmarks and CONTRIBUTING.md
    need the repository.
    """
    root = _root()
    pages = dict(_pages(root))
    asked = " ".join(words)
    name = asked.removesuffix(".md").removeprefix("docs/")  # as docstrings cite it
    if not words:
        _list(root, pages, as_json)
    elif name in pages:
        text = pages[name].read_text("utf-8")
        _say_text(text, {"page": name, "text": text}, as_json)
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
    titles = {name: _title(found) for name, found in pages.items()}
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
        which = f"did you mean {close[0]}? There" if close else "there"
        raise click.UsageError(f"no page says {shown(asked)}: {which} are {', '.join(pages)}")
    lines: list[str] = []
    for one in found:
        lines += [f"{one.page}: {one.heading}", *([f"    {one.begins}"] if one.begins else [])]
    data = {"found": msgspec.to_builtins(found)}
    output.answer(as_json, data, *lines, "", f"`captoken docs {found[0].page}` shows a page.")


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


def _title(page: Traversable) -> str:
    return page.read_text("utf-8").partition("\n")[0].removeprefix("# ")

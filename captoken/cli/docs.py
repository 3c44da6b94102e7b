"""`captoken docs`: the pages that docstrings cite, as they came with the package."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

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


@click.command(short_help="Read the pages of the documentation.")
@click.argument("page", required=False)
@json_option
def docs(page: str | None, as_json: bool) -> None:
    """Print where the pages are, and what they are called; or one of them.

    \b
    captoken docs
    captoken docs tools
    grep -ri budget "$(captoken docs | head -n 1)"

    They came with the package, and are those of its version. Links between them are good there, and
    to the specification and the examples in the folders beside. Links to tests, benchmarks and
    CONTRIBUTING.md are to the repository.
    """
    root = _root()
    pages = dict(_pages(root))
    if page is not None:
        text = _named(page, pages).read_text("utf-8")
        if as_json:
            output.say_json({"page": page, "text": text})
        else:
            output.say_exact(text.removesuffix("\n"))
        return
    titles = {name: _title(found) for name, found in pages.items()}
    folder = str(root / "docs")
    if as_json:
        output.say_json({"folder": folder, "pages": titles})
        return
    width = max(map(len, titles))
    lines = [f"  {name.ljust(width)}  {title}" for name, title in titles.items()]
    output.say(folder, *lines)


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


def _named(name: str, pages: dict[str, Traversable]) -> Traversable:
    """The page of that name. Raises UsageError, which says which there are."""
    wanted = name.removesuffix(".md").removeprefix("docs/")  # as docstrings cite it
    if wanted not in pages:
        close = get_close_matches(wanted, pages, n=1)
        which = f"did you mean {close[0]}? There" if close else "there"
        raise click.UsageError(f"no page {shown(name)}: {which} are {', '.join(pages)}")
    return pages[wanted]


def _title(page: Traversable) -> str:
    return page.read_text("utf-8").partition("\n")[0].removeprefix("# ")

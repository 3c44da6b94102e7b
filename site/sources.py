"""The sources of the site: the pages as they stand in the repository, laid out as there.

So a link between two pages is as good in the site as it is in a checkout. A link to a file that is
no page, an example or a test, becomes a link to a page that shows the file.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent

# A link, up to its target and its anchor; none to an address, none within the page.
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
# What the builder is told of a page that stands nowhere in the navigation.
ORPHAN = "---\norphan: true\n---\n\n"
_LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".sh": "sh"}


@dataclass
class Group:
    """Pages under one name: a part of the site, or a group within one."""

    name: str
    pages: list[str]
    groups: list[Group] = field(default_factory=list)


def navigation() -> list[Group]:
    """The four parts of the site, in their order."""
    written = tomllib.loads((HERE / "navigation.toml").read_text("utf-8"))
    return [_group(part) for part in written["part"]]


def _group(written: dict[str, Any]) -> Group:
    return Group(
        written["name"],
        written.get("pages", []),
        [_group(inner) for inner in written.get("group", [])],
    )


def listed(groups: list[Group]) -> Iterator[str]:
    """Every page of the navigation, as often as it stands there."""
    for group in groups:
        yield from group.pages
        yield from listed(group.groups)


class Sources:
    """The folder that the builder reads.

    Raises ValueError for a link that leads nowhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._laid: set[str] = set()
        self._waiting: list[str] = []

    def lay(self, pages: list[str]) -> None:
        """Lay these pages, and what they link to, and what that links to."""
        self._waiting.extend(pages)
        while self._waiting:
            path = self._waiting.pop()
            if path in self._laid:
                continue
            self._laid.add(path)
            listed_in_navigation = path in pages
            self._page(path, listed_in_navigation)

    def write(self, path: str, text: str) -> None:
        """A page that has no file in the repository."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")

    def _page(self, path: str, is_listed: bool) -> None:
        source = ROOT / path
        if source.suffix == ".md":
            text = self.linked(source.read_text("utf-8"), path)
            self.write(path, text if is_listed else f"{ORPHAN}{text}")
        elif source.is_dir():
            self.write(f"{path}.md", self._folder(path))
        elif source.suffix in (".svg", ".png"):
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, self.folder / path)
        else:
            self.write(f"{path}.md", _shown(source))

    def _folder(self, path: str) -> str:
        names = sorted(file.name for file in (ROOT / path).iterdir() if file.suffix == ".txt")
        rows = [f"- [{name}]({PurePosixPath(path).name}/{name})" for name in names]
        text = "\n".join([f"{ORPHAN}# {path}", "", *rows, ""])
        return self.linked(text, path)

    def linked(self, text: str, path: str) -> str:
        """The text of that page, with each link to a file as a link to a page of the site."""
        out: list[str] = []
        fence = ""
        for line in text.split("\n"):
            mark = _FENCE.match(line)
            if mark and not fence:
                fence = mark[1]
            elif mark and mark[1].startswith(fence) and line.strip() == mark[1]:
                fence = ""
            elif not fence and not line.startswith("    "):
                line = _LINK.sub(lambda found: self._link(found, path), line)
            out.append(line)
        return "\n".join(out)

    def _link(self, found: re.Match[str], page: str) -> str:
        target, anchor = found[1], found[2] or ""
        path = os.path.normpath(PurePosixPath(page).parent / target)
        if path.startswith("made/") or (self.folder / path).is_file():
            return found[0]
        source = ROOT / path
        if path.startswith("..") or not source.exists():
            raise ValueError(f"{page}: the link {target} leads to nothing")
        if source.is_dir() and (source / "README.md").is_file():
            path, target = f"{path}/README.md", f"{target.rstrip('/')}/README.md"
        elif source.is_dir() or source.suffix not in (".md", ".svg", ".png"):
            target = f"{target}.md"
        self._waiting.append(path)
        return f"]({target}{anchor})"


def _shown(source: Path) -> str:
    """A page that shows a file."""
    text = source.read_text("utf-8")
    language = _LANGUAGES.get(source.suffix, "text")
    return f"{ORPHAN}# {source.name}\n\n`````{language}\n{text.rstrip()}\n`````\n"


def as_text(text: str) -> str:
    """Plain text as Markdown: but for what stands in backticks, nothing of it is marked up."""
    parts = re.split(r"(`+[^`]+`+)", text)
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([*\[\]_])", r"\\\1", text)


def title_of(text: str) -> str:
    """The first heading of a page."""
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    if not found:
        raise ValueError("a page without a title")
    return found[1]


def first_sentence(text: str) -> str:
    """What a page says of itself first; nothing of one that begins with a list or a table."""
    below = text.partition("\n# ")[2] if not text.startswith("# ") else text
    paragraphs = re.split(r"\n\s*\n", below)[1:]
    if not paragraphs or re.match(r"[|>#-]|```|    ", paragraphs[0]):
        return ""
    flat = " ".join(paragraphs[0].split())
    flat = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", flat)
    return re.split(r"(?<=[.?!])\s", flat, maxsplit=1)[0].rstrip(":")

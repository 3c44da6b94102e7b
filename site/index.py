"""What the search looks into: the sections of the built pages, in one file of JavaScript."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

NAME = "_static/search-index.js"
MOST = 40_000  # characters of a section
# Files that a page shows: what a test has written is no answer to a question.
_LEFT_OUT = ("tests/", "search.html", "genindex.html")
_WITHOUT_TEXT = {"script", "style", "svg", "title"}


def write(built: Path) -> int:
    """Write the index of the pages in that folder. How many sections it has."""
    sections: list[tuple[str, ...]] = []
    for page in sorted(built.rglob("*.html")):
        path = page.relative_to(built).as_posix()
        if not path.startswith(_LEFT_OUT):
            sections += _sections(path, page.read_text("utf-8"))
    text = json.dumps(sections, ensure_ascii=False, separators=(",", ":"))
    (built / NAME).write_text(f"window.captokenIndex={text};\n", "utf-8")
    return len(sections)


def _sections(path: str, text: str) -> list[tuple[str, ...]]:
    """Of each section of a page: where it is, the page's title, its own title, text, and more."""
    reader = _Reader()
    reader.feed(text)
    page = reader.found[0].title if reader.found else path
    made = []
    for one in reader.found:
        where = f"{path}#{one.anchor}"
        said = " ".join(one.text.split())[:MOST]
        # The name of a file says what a page is about, too: it finds the page, and is not shown.
        name = path.rpartition("/")[2].removesuffix(".html") if one is reader.found[0] else ""
        made.append((where, page, one.title, said, name))
    return made


class _Section:
    def __init__(self, anchor: str) -> None:
        self.anchor, self.title, self.text = anchor, "", ""


class _Reader(HTMLParser):
    """Reads the sections of the article: each with its own text, without that of those in it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[_Section] = []
        self._open: list[_Section | None] = []  # None: a section that is no part of the article
        self._is_in_article = False
        self._in_title = False
        self._skipped = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "article":
            self._is_in_article = True
        elif tag == "section":
            is_read = self._is_in_article and bool(given.get("id"))
            section = _Section(given["id"] or "") if is_read else None
            self._open.append(section)
            self.found += [section] if section else []
        elif tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self._in_title = True
        elif tag in _WITHOUT_TEXT or "headerlink" in (given.get("class") or ""):
            self._skipped += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self._is_in_article = False
        elif tag == "section" and self._open:
            self._open.pop()
        elif tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self._in_title = False
        elif self._skipped and tag in (*_WITHOUT_TEXT, "a"):
            self._skipped -= 1
        elif tag in ("p", "li", "td", "th", "pre", "dt", "dd"):
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        section = self._open[-1] if self._open else None
        if section is None or self._skipped or not self._is_in_article:
            return
        if self._in_title:
            section.title += data
        else:
            section.text += data

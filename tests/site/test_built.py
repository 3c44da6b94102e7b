"""What stands in the built site: its links, that it asks nobody else, and that the reference is whole."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import click
import pytest

from captoken.cli.app import commands
from captoken.testing import error_catalogue
from tests.attacks.test_l_containers import public_modules
from tests.site.conftest import ROOT

pytestmark = pytest.mark.browser


class Reader(HTMLParser):
    """The links of a page, what it loads, its anchors and its headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.headings: list[str] = []
        self._is_heading = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.anchors.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "form" and "action" in given:
            self.links.append(given["action"])
        else:
            self.loaded += [given[name] for name in ("href", "src", "data", "poster") if name in given]
            self.loaded += [one.split()[0] for one in given.get("srcset", "").split(",") if one.strip()]
        if re.fullmatch("h[1-6]", tag):
            self._is_heading = True
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        if re.fullmatch("h[1-6]", tag):
            self._is_heading = False

    def handle_data(self, data: str) -> None:
        if self._is_heading:
            self.headings[-1] += data


@cache
def read(page: Path) -> Reader:
    return Reader(page.read_text("utf-8"))


def headings(page: Path) -> list[str]:
    return [one.removesuffix("¶").strip() for one in read(page).headings]


def test_every_link_leads_somewhere(built: Path) -> None:
    """Those that the build writes in HTML too, which the builder does not look at."""
    wrong = []
    for page in built.rglob("*.html"):
        for link in read(page).links:
            if re.match(r"https?:|mailto:", link):
                continue
            target, anchor = urldefrag(link)
            file = (page.parent / unquote(target)).resolve() if target else page
            is_there = file.is_file() and (not anchor or file.suffix != ".html" or unquote(anchor) in read(file).anchors)
            if not is_there:
                wrong.append(f"{page.relative_to(built)}: {link}")
    assert wrong == []


def test_no_page_loads_anything_from_elsewhere(built: Path) -> None:
    """No font, no script, no picture; and no style sheet does."""
    for page in built.rglob("*.html"):
        for loaded in read(page).loaded:
            assert re.match(r"data:|(?!\w+:|//)", loaded), f"{page.relative_to(built)}: {loaded}"
    for sheet in built.rglob("*.css"):
        found = re.findall(r"""(?:url\(|@import)\s*['"]?(?!data:|#)([^'")\s]+)""", sheet.read_text("utf-8"))
        assert not [one for one in found if re.match(r"\w+:|//", one)], sheet


def test_the_inspector_is_in_the_site_as_it_is(built: Path) -> None:
    """Its policy has hashes of what is in it. The page about it leads there."""
    own = ROOT / "captoken/cli/console/static/inspector.html"
    assert (built / "inspector.html").read_bytes() == own.read_bytes()
    assert "../inspector.html" in read(built / "docs/inspector.html").links


def test_every_public_name_has_an_entry(built: Path) -> None:
    """At its module, or a line there that leads to it. A public method has one too, of the names of captoken itself."""
    count = 0
    for module in public_modules():
        page = built / f"made/api/{module.__name__}.html"
        entries, text = headings(page), page.read_text("utf-8")
        for name in getattr(module, "__all__", None) or vars(module):
            made = getattr(module, name)
            is_own = getattr(made, "__module__", "") == module.__name__ or hasattr(module, "__all__")
            is_entry = isinstance(made, type) or callable(made) or hasattr(module, "__all__")
            if name.startswith("_") or not is_own or not is_entry or not hasattr(made, "__name__"):
                continue
            count += 1
            assert name in entries or f">{name}</span></code>: <a" in text, f"{module.__name__}.{name}"
            if module.__name__ == "captoken" and isinstance(made, type):
                own = [one for one in vars(made) if not one.startswith("_") and callable(getattr(made, one))]
                assert not [one for one in own if f"{name}.{one}" not in entries], name
    assert count > 300


def test_every_entry_says_something(built: Path) -> None:
    """Under its signature, in words."""
    silent = []
    for page in (built / "made/api").glob("captoken*.html"):
        for title, said in re.findall(r"<h[23]>([^<]*)<.*?</h[23]>(.*?)(?=<h[23]>|</article>)", page.read_text("utf-8"), re.DOTALL):
            words = re.sub("<[^>]*>", "", re.sub(r"<pre.*?</pre>", "", said, flags=re.DOTALL)).split()
            silent += [f"{page.stem}: {title}"] if len(words) < 2 else []
    assert silent == []


def test_the_keywords_of_a_method_stand_in_a_table_with_what_they_mean(built: Path) -> None:
    """Wherever a TypedDict says them: each row has a type and a meaning."""
    tables = 0
    for page in (built / "made/api").glob("captoken*.html"):
        for table in re.findall(r"Keywords of <code.*?</table>", page.read_text("utf-8"), re.DOTALL):
            tables += 1
            for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)[1:]:
                cells = [re.sub("<[^>]*>", "", one).strip() for one in re.findall(r"<td.*?</td>", row, re.DOTALL)]
                assert len(cells) == 3 and all(cells), (page.name, cells)
    assert tables > 25


def test_every_code_has_an_entry_with_cause_and_remedy(built: Path) -> None:
    """Under a heading of its own, once."""
    page = (built / "docs/errors.html").read_text("utf-8")
    sections = re.findall(r"<h[34]>([^<]*)<.*?</h[34]>(.*?)(?=<h[34]>|</article>)", page, re.DOTALL)
    entries = [f"{entry.error.__name__}: {entry.code}" for entry in error_catalogue()]
    titles = [title for title, _ in sections]
    told = {title for title, said in sections if re.search(r"<p>.+?</p>\s*<p><strong>What to do:</strong> ", said, re.DOTALL)}
    assert [one for one in entries if titles.count(one) != 1 or one not in told] == [] and len(entries) > 50


def options(command: click.Command, words: str) -> list[tuple[str, str]]:
    """Each option of a command and of those in it, with the words that call it."""
    shown = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    found = [(words, name) for one in shown for name in (*one.opts, *one.secondary_opts)]
    for inner in getattr(command, "commands", {}).values():
        found += [] if inner.hidden else options(inner, f"{words} {inner.name}")
    return found


def test_every_option_of_every_command_has_an_entry(built: Path) -> None:
    page = built / "made/commands.html"
    sections = dict(re.findall(r"<h2>([^<]*)<.*?</h2>(.*?)(?=<h2>|</article>)", page.read_text("utf-8"), re.DOTALL))
    every = options(commands, "captoken")
    missing = []
    for words, option in every:
        rows = re.findall(r"<tr[^>]*><td><p>(.*?)</p></td>\s*<td><p>(.*?)</p></td>", sections.get(words, ""), re.DOTALL)
        names = {name for shown, said in rows if said for name in re.findall(r"-[-\w]+", re.sub("<[^>]*>", "", shown))}
        missing += [] if option in names else [f"{words} {option}"]
    assert missing == [] and len(every) > 300


def test_models_find_every_page_of_the_manual(built: Path) -> None:
    listed = (built / "llms.txt").read_text("utf-8")
    whole = (built / "llms-full.txt").read_text("utf-8")
    targets = re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", listed, re.MULTILINE)
    assert len(targets) > 60 and all((built / target).is_file() for target in targets)
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= {Path(target).stem for target in targets}
    assert all((ROOT / "docs" / f"{name}.md").read_text("utf-8").partition("\n")[0] in whole for name in pages)

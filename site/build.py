"""Build the site: `python site/build.py`, into `build/site/`.

It asks no network, and any warning is an error: a link or an anchor that leads nowhere, a page that
stands nowhere in the navigation. `docs` is the extra that has what it needs.
"""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from datetime import UTC, datetime

import commands
import index
import llms
from api import Api, Page
from sources import HERE, ORPHAN, ROOT, Group, Sources, first_sentence, listed, navigation, title_of
from sphinx.cmd.build import build_main

SOURCES = ROOT / "build/site-sources"
READ = ROOT / "build/site-read"  # the builder's own, of no use to anybody else
BUILT = ROOT / "build/site"
VECTORS = "spec/vectors"
INSPECTOR = ROOT / "captoken/cli/console/static/inspector.html"
PORT = ROOT / "ports/typescript"
PORT_BUILT = ROOT / "build/site-typescript"


def main() -> int:
    """The exit code of the builder."""
    for folder in (SOURCES, READ, BUILT, PORT_BUILT):
        shutil.rmtree(folder, ignore_errors=True)
    parts = navigation()
    reference_of_port()
    lay(parts)
    strictly = ["-W", "--keep-going", "--nitpicky", "--quiet", "-j", "auto"]
    folders = ["-c", str(HERE), "-d", str(READ), str(SOURCES), str(BUILT)]
    code = build_main(["-b", "html", *strictly, *folders])
    shutil.copytree(
        ROOT / VECTORS, BUILT / VECTORS, ignore=shutil.ignore_patterns("*.md"), dirs_exist_ok=True
    )
    for page in BUILT.rglob("*.html"):
        page.write_text(accessible(page.read_text("utf-8")), "utf-8")
    for name in ("evidence", "assurance", "benchmarks", "planning"):
        page = BUILT / f"docs/{name}.html"
        page.write_text(greyed(page.read_text("utf-8")), "utf-8")
    shutil.copyfile(INSPECTOR, BUILT / INSPECTOR.name)  # as it is: its policy has hashes of it
    llms.write(SOURCES, BUILT, parts)
    count = index.write(BUILT)
    if PORT_BUILT.is_dir():
        shutil.copytree(PORT_BUILT, BUILT / "typescript")
    print(f"{len(list(BUILT.rglob('*.html')))} pages, {count} sections: {BUILT.relative_to(ROOT)}")
    return code


def lay(parts: list[Group]) -> None:
    """Write everything that the builder reads."""
    sources = Sources(SOURCES)
    made = vectors(sources) | api(sources) | {"made/commands.md"}
    sources.write("made/commands.md", commands.page())
    pages = list(listed(parts))
    sources.lay([page for page in pages if page not in made])
    programs(sources)
    inspector(sources)
    typescript(sources)
    sources.write("index.md", home(sources, parts))


def programs(sources: Sources) -> None:
    """The pages that show a program stand below the one that lists them."""
    shown = sorted((SOURCES / "examples").glob("*.py.md"))
    for page in shown:
        text = page.read_text("utf-8").removeprefix(ORPHAN)
        page.write_text(text, "utf-8")
    above = (SOURCES / "examples/README.md").read_text("utf-8")
    sources.write("examples/README.md", above + "\n" + toctree([page.name for page in shown]))


def inspector(sources: Sources) -> None:
    """The page about the inspector leads to the inspector, which is in the site as it is."""
    title, first, rest = (SOURCES / "docs/inspector.md").read_text("utf-8").split("\n\n", 2)
    said = "<strong>Open the inspector</strong><span>What is pasted there stays there.</span>"
    door = f'<div class="doors-grid"><a class="door" href="../{INSPECTOR.name}">{said}</a></div>'
    sources.write("docs/inspector.md", "\n\n".join([title, first, door, rest]))


def reference_of_port() -> None:
    """The reference of the TypeScript library, by TypeDoc: where `npm ci` was run in its folder.

    Any warning of it is an error, too.
    """
    program = PORT / "node_modules/.bin/typedoc"
    if program.exists():
        subprocess.run(
            [str(program), "--logLevel", "Warn", "--out", str(PORT_BUILT)], cwd=PORT, check=True
        )


def typescript(sources: Sources) -> None:
    """The page on TypeScript leads to that reference, where it is in the site."""
    if not PORT_BUILT.is_dir():
        return
    title, first, rest = (SOURCES / "docs/typescript.md").read_text("utf-8").split("\n\n", 2)
    said = "<strong>The reference</strong><span>Every name of each subpath, with its types.</span>"
    to = "../typescript/index.html"
    door = f'<div class="doors-grid"><a class="door" href="{to}">{said}</a></div>'
    sources.write("docs/typescript.md", "\n\n".join([title, first, door, rest]))


def home(sources: Sources, parts: list[Group]) -> str:
    """The first page. What it is and the example are the README's, which the tests run."""
    readme = (ROOT / "README.md").read_text("utf-8")
    first, install, *_ = re.split(r"\n## .*\n", readme)
    lead, fence, example = first.split("\n", 1)[1].partition("```python\n")
    text = (HERE / "home.md").read_text("utf-8")
    text = text.replace("@LEAD@", sources.linked(lead.strip(), "README.md"))
    text = text.replace("@DOORS@", doors(parts)).replace("@INSTALL@", install.strip())
    text = text.replace("@EXAMPLE@", sources.linked(fence + example, "README.md"))
    text = text.replace("@TUTORIAL@", parts[0].pages[0])
    text = sources.linked(text, "README.md")  # the picture is a file of the repository
    return "\n".join([text, *(tree(sources, part) for part in parts)])


DOORS = {
    "Tutorial": "Twenty minutes, from nothing to sub-agents, a refusal and a revocation.",
    "How-to": "A page for each task: what to guard, how to run it.",
    "Reference": "Every name, option, code and limit; the specification.",
    "Explanation": "Why it is as it is, how it differs, what it cannot do.",
}


def doors(parts: list[Group]) -> str:
    """The four parts, as links to the first page of each."""
    made = []
    for part in parts:
        page = part.pages[0].removesuffix(".md")
        said = f"<strong>{part.name}</strong><span>{DOORS[part.name]}</span>"
        made.append(f'<a class="door" href="{page}.html">{said}</a>')
    return "\n".join(['<div class="doors-grid">', *made, "</div>"])


def tree(sources: Sources, part: Group) -> str:
    """The part in the navigation. Each group has a page, which lists its pages."""
    pages = list(part.pages)
    for group in part.groups:
        path = f"made/{_slug(part.name)}-{_slug(group.name)}.md"
        sources.write(path, group_page(group))
        pages.append(path)
    return toctree(pages, caption=part.name)


def group_page(group: Group) -> str:
    """The pages of a group, each with what it says of itself first."""
    rows: list[str] = []
    for page in group.pages:
        text = (SOURCES / page).read_text("utf-8")
        said = first_sentence(text)
        rows.append(f"- [{title_of(text)}](../{page})" + (f": {said}" if said else ""))
    up = [f"../{page}" for page in group.pages]
    return "\n".join([f"# {group.name}", "", *rows, "", toctree(up)])


def toctree(pages: list[str], *, caption: str = "") -> str:
    """The pages as the builder's list of what stands below this page; it is not shown there."""
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["```{toctree}", *options, "", *pages, "```", ""])


def api(sources: Sources) -> set[str]:
    """The reference of the API: a page that lists the groups, one a group, one a module."""
    found = Api()
    groups: list[str] = []
    rows: list[str] = []
    for group, modules in found.groups():
        slug = f"{_slug(group)}.md"
        groups.append(slug)
        listed_here = []
        for path in modules:
            page = Page(found, path)
            sources.write(f"made/api/{path}.md", page.text())
            listed_here.append(f"- [{path}]({path}.md): {page.summary()}")
        text = [f"# {group}", "", *listed_here, "", toctree([f"{path}.md" for path in modules])]
        sources.write(f"made/api/{slug}", "\n".join(text))
        rows += [f"## [{group}]({slug})", "", *listed_here, ""]
    lead = "Every public name, from the code: its signature, what it does, and what it raises."
    index = ["# API", "", lead, "", *rows, toctree(groups)]
    sources.write("made/api/index.md", "\n".join(index))
    return {"made/api/index.md"}


def vectors(sources: Sources) -> set[str]:
    """A page that lists the files of vectors, which are beside it as they are."""
    rows = []
    for file in sorted((ROOT / VECTORS).glob("*.json")):
        family = json.loads(file.read_text("utf-8"))
        count = len(family["vectors"])
        name = f'<a href="../{VECTORS}/{file.name}">{file.stem}</a>'
        rows.append(f"| {name} | {family['about']} | {count} |")
    text = "\n".join(
        [
            "# The files of vectors",
            "",
            "Each file is one family; [the format](../spec/vectors/FORMAT.md) says what is in it.",
            "",
            "| file | about | vectors |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )
    sources.write("made/vectors.md", text)
    return {"made/vectors.md"}


# What the theme leaves out, for those who read by keyboard or by ear: what scrolls takes the focus,
# a heading says its level, and what stands beside the page says what it is.
_FOR_ALL = {
    "<pre>": '<pre tabindex="0">',
    'docutils container">\n<table': 'docutils container" tabindex="0">\n<table',
    '<th class="head"><p></p></th>': "<td></td>",
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer">': '<aside class="toc-drawer" aria-label="On this page">',
}


def accessible(page: str) -> str:
    """A built page, with what a reader without a mouse needs."""
    for found, better in _FOR_ALL.items():
        page = page.replace(found, better)
    return page


def greyed(page: str) -> str:
    """A page of what was run, with what is old or failed in grey, as on the day of the build.

    A claim stands on one session, which makes the faults of all; figures on the run whose commit
    stands beside them.
    """
    known = runpy.run_path(str(ROOT / "tests/evidence.py"))
    today = datetime.now(UTC).date()
    for run in known["runs"]():
        if why := known["lacks"](run, today):
            claim = r"|[A-Z]\d+" if run.name == "claims" else ""
            row = rf"<td>(<p>(?:{re.escape(run.name)}{claim})</p></td>)"
            page = re.sub(row, rf'<td class="old" title="{why}">\1', page)
            beside = rf"<td>(<p>commit</p></td>(?:(?!</tr>).)*{run.commit or '(?!)'})"
            grey = rf'<td class="old figures" title="{why}">\1'
            page = re.sub(beside, grey, page, flags=re.DOTALL)
    return page


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())

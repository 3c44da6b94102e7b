"""The configuration of the builder, Sphinx: plain Markdown by MyST, the theme Furo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx import addnodes
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "captoken"
author = "the captoken project"
extensions = ["myst_parser"]
root_doc = "index"
language = "en"

# Anchors as on GitHub. What only MyST would read as syntax is text, as it is there.
myst_heading_anchors = 6
myst_enable_extensions = ["colon_fence", "deflist"]
myst_disable_syntax = ["myst_role", "myst_target", "myst_line_comment", "myst_block_break"]

highlight_language = "text"  # of a block that does not say what it is
smartquotes = False  # `--option` in a sentence has two signs

html_theme = "furo"
html_title = "captoken"
html_favicon = "static/icon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["copy.js"]
templates_path = ["templates"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "github-dark"


html_additional_pages = {"search": "search.html"}  # with an index of our own: `index.py`
html_use_index = False


def setup(app: Sphinx) -> None:
    """A word for blocks of code that the builder does not know; and no index of its own."""
    app.add_lexer("caddy", TextLexer)
    app.connect("builder-inited", _without_its_search)
    app.connect("html-page-context", _with_titles_alone, priority=400)  # before the theme


def _without_its_search(app: Sphinx) -> None:
    app.builder.search = False


def _with_titles_alone(
    app: Sphinx,
    page: str,
    template: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """The tree beside a page is made of titles. For each page, headings would be copied in vain.

    That is half of the time of a build: the reference has a thousand of them.
    """
    tree = context.get("toctree")
    if tree is None:
        return

    def of_titles(**options: Any) -> str:
        whole = app.env.tocs
        app.env.tocs = _titles(app)
        try:
            made: str = tree(**options)
        finally:
            app.env.tocs = whole
        return made

    context["toctree"] = of_titles


_kept: dict[str, nodes.bullet_list] = {}


def _titles(app: Sphinx) -> dict[str, nodes.bullet_list]:
    """Of each page its title, and which pages are below it; made once."""
    if not _kept:
        for page, toc in app.env.tocs.items():
            made = toc.deepcopy()
            for item in made.children:
                below = list(item.findall(addnodes.toctree))
                del item[1:]
                item += [nodes.bullet_list("", *below)] if below else []
            _kept[page] = made
    return _kept

"""The order of the site: what stands in it, and where. What the built pages are like is in the other files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.site.conftest import ROOT


def test_each_page_stands_in_the_navigation_once(sources: Any) -> None:
    """And no page does that is not there."""
    listed = list(sources.listed(sources.navigation()))
    assert sorted(page for page in listed if page.startswith("docs/")) == sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))
    assert len(listed) == len(set(listed)) and all((ROOT / page).is_file() for page in listed if not page.startswith("made/"))


def test_the_site_has_four_parts(sources: Any) -> None:
    """Each group within them has a name of its own: its page is named after it."""
    parts = sources.navigation()
    assert [part.name for part in parts] == ["Tutorial", "How-to", "Reference", "Explanation"]
    groups = [group.name for part in parts for group in part.groups]
    assert len(groups) == len(set(groups)) and all(group.pages for part in parts for group in part.groups)


def test_a_link_to_a_file_becomes_a_link_to_a_page_that_shows_it(sources: Any, tmp_path: Path) -> None:
    """Links to pages, to addresses and within blocks of code stay as they are."""
    laid = sources.Sources(tmp_path)
    text = "[a](../examples/start_here.py#x) [b](stores.md#ledgers) [c](https://example.com)\n\n```text\n[d](../LICENSE)\n```\n"
    assert laid.linked(text, "docs/any.md") == text.replace("start_here.py#x", "start_here.py.md#x")
    assert laid.linked("[e](../tests)", "docs/any.md") == "[e](../tests/README.md)"
    for target in ("none.md", "../../elsewhere.md"):
        with pytest.raises(ValueError, match="leads to nothing"):
            laid.linked(f"[f]({target})", "docs/any.md")


def test_what_a_page_says_of_itself_first(sources: Any) -> None:
    assert sources.first_sentence("# A\n\nIt does [this](b.md)\nand that. And more.\n\nNot this.") == "It does this and that."
    assert sources.first_sentence("---\norphan: true\n---\n\n# A\n\n| a |\n| --- |\n") == ""
    assert sources.title_of("# The title\n\ntext") == "The title"
    with pytest.raises(ValueError, match="without a title"):
        sources.title_of("text")

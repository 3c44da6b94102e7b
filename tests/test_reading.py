"""The pages can be read: short sentences, and each word of the glossary linked where it first stands."""

from __future__ import annotations

import inspect

import pytest

import captoken
from tests import reading
from tests.reading import ROOT

PAGE = """# A heading with more words than a sentence may have is not counted at all

One sentence. Another one with `a span of code`, which
goes on in [the next line](page.md)! No more here: "quoted." (And this.)

- An item of a list.
- Two more
  words in it? Yes, two more.

| a table | is not counted |

    indented code is not counted

```python
nor = "is this code. It Has Sentences."
```
<!-- Nor is a comment. -->
"""


def test_what_counts_as_a_sentence() -> None:
    """Paragraphs and items; a span of code is a word, a link its text; two words are a label."""
    assert [one for block in reading.blocks(PAGE) for one in reading.sentences(block)] == [
        "Another one with CODE, which goes on in the next line!",
        'No more here: "quoted.',
        "An item of a list.",
        "Two more words in it?",
        "Yes, two more.",
    ]
    found = reading.reading("page", [PAGE])
    assert found.words == sum(len(one.split()) for one in found.sentences)


def test_too_long_is_said_with_the_sentence() -> None:
    long = " ".join(["word"] * 36) + "."
    assert reading.reading("page", [long]).problems() == [
        f"36 words: {long}",
        "36.00 words a sentence, and at most 16 are meant",
    ]
    assert not reading.reading("page", [" ".join(["word"] * 16) + "."]).problems()
    assert not reading.reading("page", []).problems()


UNLINKED = """# Overlay

`overlay` in code.

| overlay | not in a table |

Whoever reads Overlays in a page, and knows the link id of a
link, finds [one overlay](stores.md) more. See [our ledger](stores.md#one-machine).
"""


def test_a_word_is_to_be_linked_where_it_first_stands_in_prose() -> None:
    """Not in a heading, in code or in a table; in the plural too; the longer word first; a page of the entry will do."""
    assert [(use.text, use.slug) for use in reading.to_link(UNLINKED, "docs/page.md")] == [
        ("Overlays", "overlay"), ("link id", "link-id"), ("link", "link"),
    ]  # fmt: skip
    assert not reading.to_link("An overlay, and a ledger.", "docs/live-control.md"), "the page explains both"
    assert [use.at for use in reading.to_link("[An overlay](http.md), an overlay.", "docs/page.md")] == [26], (
        "a link is about what it leads to"
    )


@pytest.mark.parametrize(("name", "way"), [("docs/page.md", ""), ("PAGE.md", "docs/"), ("examples/PAGE.md", "../docs/")])
def test_the_command_links_them(name: str, way: str) -> None:
    text = "A link id of a link. `A\n  trail` and a\n  link, handed\n  on.\n"
    assert len(reading.unlinked(text, name)) == 3
    linked = reading.linked(text, name)
    assert linked == (
        f"A [link id]({way}glossary.md#link-id) of a [link]({way}glossary.md#link). `A\n  trail` and a\n"
        f"  link, [handed\n  on]({way}glossary.md#delegate).\n"
    )
    assert not reading.unlinked(linked, name) and reading.without_links(linked) == text


def test_a_link_that_is_not_needed_is_told() -> None:
    twice = "An [overlay](glossary.md#overlay) and the [overlay](glossary.md#overlay)."
    assert reading.unlinked(twice, "docs/page.md") == ["overlay is linked to the glossary more than once"]


@pytest.mark.parametrize("name", reading.PAGES)
def test_a_page_is_easy_to_read(name: str) -> None:
    """`python -m tests.reading --link PAGE` links what is not linked."""
    text = (ROOT / name).read_text("utf-8")
    assert reading.reading(name, [text]).problems() + reading.unlinked(text, name) == []


@pytest.mark.parametrize("module", reading.public_modules())
def test_the_docstrings_of_a_module_are_easy_to_read(module: str) -> None:
    assert reading.reading_of_module(module).problems() == []


def test_docstrings_are_those_of_public_names() -> None:
    """Of a package that hands on what is defined elsewhere, too; not of private names and methods."""
    texts = reading.docstrings("captoken", ROOT / "captoken/__init__.py")
    assert inspect.getdoc(captoken.Verifier.authorize) in texts and inspect.getdoc(captoken) in texts
    assert not any("Thin drivers round the plan" in text for text in texts), "a private module's own"
    assert len(reading.public_modules()) > 60 and "captoken.cli" not in reading.public_modules()


def test_the_glossary_is_in_order() -> None:
    """Sorted, each word with its forms, its page, and something to say; the plain words are among them."""
    entries = reading.glossary()
    assert list(entries) == sorted(entries) and entries.keys() == reading.FORMS.keys()
    assert reading.plain_words() < entries.keys()
    assert [slug for slug, entry in entries.items() if not entry.own] == []
    assert not reading.reading("glossary", [reading.GLOSSARY.read_text("utf-8")]).problems()


def test_each_heading_is_found_as_its_word() -> None:
    """And as no other. "Present" alone says too many other things: its forms are those of the verb."""
    for slug, entry in reading.glossary().items():
        said = "presents" if slug == "present" else entry.heading
        assert [(use.slug, use.text) for use in reading.uses(said, "docs")] == [(slug, said)]


def test_what_means_another_thing_is_still_there() -> None:
    """Each exception is of a page on which the word stands."""
    for name, slug in reading.OTHERWISE:
        page = ROOT / name
        assert slug in {use.slug for use in reading.uses(page.read_text("utf-8"), "docs")}, (name, slug)

"""The search of `captoken docs WORD...`: which sections of the pages say those words, best first.

BM25, as most searches rank. A word of a heading counts as six, and one of a page's name as four.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec

_MOST = 8  # sections that are shown
_SOON, _LONG = 1.2, 0.6  # how soon more of a word counts no more; what a long section pays
_IN_HEADING, _IN_NAME = 6, 4

_heading = re.compile(r"#{1,4} (.*)")
_word = re.compile(r"[a-z0-9]+")
_link = re.compile(r"\[([^\]]*)\]\([^)]*\)")

# They stand in every question and in every section.
_LITTLE = frozenset(("a", "an", "and", "do", "how", "i", "in", "is", "my", "of", "on", "the", "to"))


class Section(msgspec.Struct, frozen=True):
    """A part of a page: the page's name, the heading, and how the text begins."""

    page: str
    heading: str
    begins: str


def find(asked: str, pages: Mapping[str, str]) -> list[Section]:
    """The sections of those pages that say most of the words, best first; eight at most."""
    wanted = set(_stems(asked)) - _LITTLE
    found = [part for name, text in pages.items() for part in _sections(name, text)]
    mean = sum(counts.total() for _, counts in found) / max(1, len(found))
    worth = {}
    for word in wanted:
        having = sum(word in counts for _, counts in found)
        worth[word] = math.log(1 + (len(found) - having + 0.5) / (having + 0.5))

    scores = []
    for section, counts in found:
        pays = _SOON * (1 - _LONG + _LONG * counts.total() / mean)
        score = sum(worth[word] * counts[word] / (counts[word] + pays) for word in wanted)
        scores.append((score, section))
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

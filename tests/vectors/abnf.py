"""A grammar in ABNF (RFC 5234, with `%s` of RFC 7405), and whether a text is of one of its rules.

For tests: it tries all ways, and is slow on long texts. Terminals are characters of a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

# The places in a text at which a part that begins at a place can end.
Matcher = Callable[[str, int], frozenset[int]]

CORE = """
ALPHA = %x41-5A / %x61-7A
DIGIT = %x30-39
DQUOTE = %x22
LF = %x0A
OCTET = %x00-FF
"""
TOKEN = re.compile(
    r'\s*(?:(?P<text>(?:%s)?"[^"]*")|(?P<range>%x[0-9A-F]+(?:-[0-9A-F]+|(?:\.[0-9A-F]+)+)?)'
    r"|(?P<times>\d*\*\d*(?=[(\[\w\"%])|\d+(?=[(\[a-zA-Z\"%]))|(?P<name>[a-zA-Z][\w-]*)|(?P<sign>[()\[\]/]))"
)


class Grammar:
    """The rules of a text in ABNF."""

    def __init__(self, text: str) -> None:
        # A line that begins with white space goes on with the rule before; `;` begins a comment.
        bare = re.sub(r'("[^"\n]*")|;.*', lambda found: found[1] or "", text + CORE)
        self.rules: dict[str, str] = {}
        for found in re.finditer(r"^ *([a-zA-Z][\w-]*) *= (.*(?:\n(?! *[a-zA-Z][\w-]* *= ).*)*)", bare, re.MULTILINE):
            assert found[1] not in self.rules, found[1]
            self.rules[found[1]] = found[2]
        self._made: dict[str, Matcher] = {}
        self.named: set[str] = set()  # in other rules, or in itself
        for name in self.rules:
            self._rule(name)

    def takes(self, rule: str, text: str) -> bool:
        """Is the whole text of that rule?"""
        return len(text) in self._rule(rule)(text, 0)

    def _rule(self, name: str) -> Matcher:
        if name not in self._made:
            body: list[Matcher] = []
            self._made[name] = lru_cache(maxsize=4096)(lambda text, at: body[0](text, at))
            parts = list(self._parts(self.rules[name]))
            body.append(self._choice(parts))
            assert not parts, (name, parts)
        return self._made[name]

    def _parts(self, body: str) -> Iterator[tuple[str, str]]:
        at = 0
        while body[at:].strip():
            found = TOKEN.match(body, at)
            assert found is not None and found.lastgroup is not None, body[at:]
            yield found.lastgroup, found[found.lastgroup]
            at = found.end()

    def _choice(self, parts: list[tuple[str, str]]) -> Matcher:
        ways = [self._sequence(parts)]
        while parts and parts[0][1] == "/":
            parts.pop(0)
            ways.append(self._sequence(parts))
        return lambda text, at: frozenset().union(*(way(text, at) for way in ways))

    def _sequence(self, parts: list[tuple[str, str]]) -> Matcher:
        steps: list[Matcher] = []
        while parts and parts[0][1] not in ("/", ")", "]"):
            steps.append(self._repeated(parts))
        return lambda text, at: _one_after_the_other(steps, text, at)

    def _repeated(self, parts: list[tuple[str, str]]) -> Matcher:
        least, most = 1, 1
        if parts[0][0] == "times":
            low, star, high = parts.pop(0)[1].partition("*")
            least = int(low or 0)
            most = (int(high) if high else 10**6) if star else least
        one = self._one(parts)
        return one if (least, most) == (1, 1) else lambda text, at: _so_often(one, least, most, text, at)

    def _one(self, parts: list[tuple[str, str]]) -> Matcher:
        kind, said = parts.pop(0)
        if kind == "sign":
            inner = self._choice(parts)
            assert parts.pop(0)[1] == {"(": ")", "[": "]"}[said]
            return inner if said == "(" else lambda text, at: inner(text, at) | {at}
        if kind == "name":
            self.named.add(said)
            return self._rule(said)
        if kind == "text":
            literal = said.removeprefix("%s")[1:-1]
            assert said.startswith("%s") or not re.search("[a-zA-Z]", literal), f"{said} without its case"
            return _literal(literal)
        low, _, high = said[2:].partition("-")
        if "." in low:
            return _literal("".join(chr(int(code, 16)) for code in low.split(".")))
        first, last = int(low, 16), int(high or low, 16)
        return lambda text, at: frozenset([at + 1]) if at < len(text) and first <= ord(text[at]) <= last else frozenset()


def _literal(literal: str) -> Matcher:
    return lambda text, at: frozenset([at + len(literal)] if text.startswith(literal, at) else [])


def _one_after_the_other(steps: list[Matcher], text: str, at: int) -> frozenset[int]:
    places = frozenset([at])
    for step in steps:
        places = frozenset(end for place in places for end in step(text, place))
    return places


def _so_often(one: Matcher, least: int, most: int, text: str, at: int) -> frozenset[int]:
    places, ends, count = frozenset([at]), frozenset([at] if least == 0 else []), 0
    while places and count < most:
        count += 1
        places = frozenset(end for place in places for end in one(text, place)) - ends
        if count >= least:
            ends |= places
    return ends

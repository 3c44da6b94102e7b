"""The short way to read a link agrees with the general one, on links and on what is nearly one."""

from __future__ import annotations

import pytest

from captoken._format.encoding import encode_json
from captoken._language import links
from captoken._language.caveats import BUILT_IN, POSITION, V1, Caveat, Vocabulary
from captoken._language.link import Link
from captoken._language.links import read_link
from tests.longer import drawing, times

N = "AAAAAAAAAAA"
PLAIN = [
    {"exp": 1764061700, "from": "orchestrator", "n": N, "operations": ["select"], "tables": ["market.*", "sales"], "to": "agent-1"},
    {"aud": ["sales-db"], "exp": -1},
    {"from": "a", "n": N, "to": "b"},
    {"operations": [], "tables": ["Umsätze", "*"]},
]
GENERAL = [
    {"exp": 5, "task": "q3/x", "uses": 3, "n": N},
    {"tools": {"refund": {"cents": {"max": 500}}}, "depth": 1},
    {"exp": 5, "acme:region": ["eu"]},
]
LETTERS = b'abz019-+"\\:{}[],./_ \x00\xe9e*'
VALUES = [0, -1, 2**53 - 1, 2**53, True, None, 1.0, "a", "", " a", N, [], ["a"], ["a", "a"], ["a b"], [1], [["a"]], {}, {"a": ["b"]}, ["*", "é"]]


class Region(Caveat, frozen=True):
    key = "acme:region"


OWN = Vocabulary(Region)


def spelled(drawn, stated):
    """A link as it is, with a value or a key that is another, or some letters off."""
    stated = dict(stated)
    for _ in range(drawn.choice((0, 0, 1, 2))):
        key = drawn.choice([kind.key for kind in BUILT_IN] + [*POSITION, "colour"])
        if drawn.random() < 0.7:
            stated[key] = drawn.choice(VALUES)
        else:
            stated.pop(key, None)
    try:
        body = bytearray(encode_json(stated))
    except ValueError:  # no JSON of ours, and the mutations below would only make it less so
        return b"{}"
    for _ in range(drawn.choice((0, 0, 1, 3))):
        at = drawn.randrange(len(body))
        body[at : at + drawn.choice((0, 1))] = bytes([drawn.choice(LETTERS)])
    return bytes(body)


@pytest.mark.parametrize("stated", [*PLAIN, *GENERAL], ids=" ".join)
def test_what_the_short_way_takes_is_what_the_general_way_reads(stated: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 spellings of each, up to two values and three letters off; in all, both ways take some and refuse some."""
    drawn = drawing(" ".join(stated))
    bodies = [spelled(drawn, stated) for _ in range(times(10_000))]
    shorter = list(map(links._plain_link, bodies))
    monkeypatch.setattr(links, "_plain_link", lambda _: None)
    general = [read_link(body, OWN) for body in bodies]
    assert [one for one in shorter if one is not None] == [two for one, two in zip(shorter, general, strict=True) if one is not None]
    assert None in shorter and any(isinstance(one, Link) for one in general)
    assert (stated in PLAIN) <= any(isinstance(one, Link) for one in shorter)


@pytest.mark.parametrize("stated", PLAIN, ids=" ".join)
def test_a_plain_link_goes_the_short_way(stated: dict[str, object]) -> None:
    assert links._plain_link(encode_json(stated)) == read_link(encode_json(stated), V1)
    assert type(links._plain_link(encode_json(stated))) is Link

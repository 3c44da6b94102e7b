"""What is seen at a glance to be held is held: the short way to check a new link, against the capability."""

from __future__ import annotations

from captoken import Access
from captoken._format.encoding import encode_json
from captoken._language.caveats import V1, write
from captoken._language.link import Lineage, Link
from captoken._language.links import read_link
from captoken._writing import widening
from captoken._writing.holding import Holding, everything
from tests.fixtures import mint
from tests.longer import drawing, times

TABLES = [[], ["a"], ["a", "b"], ["a.*"], ["a.b", "b"], ["*"]]
OPERATIONS = [[], ["select"], ["insert", "select"], ["*"]]
VALUES = {
    "tables": TABLES,
    "operations": OPERATIONS,
    "allow": [{"a": ["select"]}, {"*": ["*"], "b": []}],
    "columns": [{"a": ["x"]}],
    "tools": [{"t": {}}, {}],
    "exp": [1, 2],
    "fresh": [1, 2],
    "nbf": [1, 2],
    "uses": [0, 2],
    "budget": [{"u": 1}],
    "where": [{"r": {"in": [1]}}, {"r": {"in": [True]}}],
    "aud": [["s"]],
    "task": ["t", "t/x"],
}
LIKELY = ["tables", "operations", "exp", "fresh", "uses"]


def said(drawn):
    keys = drawn.sample(LIKELY, drawn.choice((1, 2, 3)))
    if drawn.random() < 0.3:
        keys.append(drawn.choice(list(VALUES)))
    return {key: drawn.choice(VALUES[key]) for key in keys}


def link(stated):
    counted = {"n": "AAAAAAAAAAA"} if stated.keys() & {"uses", "budget"} else {}
    made = read_link(encode_json({**stated, **counted}), V1)
    assert isinstance(made, Link)
    return made


def test_what_is_seen_at_a_glance_is_no_excess_of_the_capability() -> None:
    """20,000 chains and wishes: whenever the glance says yes, the capability has nothing against it."""
    drawn = drawing(3)
    seen = excesses = 0
    for _ in range(times(20_000)):
        links = tuple(link(said(drawn)) for _ in range(drawn.choice((0, 1, 2, 3))))
        holding = Holding(links, Lineage(("a",)), "t", drawn.choice((None, "s")))
        wanted = {key: write(key, value, V1) for key, value in said(drawn).items()}
        excess = list(widening._excesses(holding.capability, wanted))
        if holding.plainly_covers(wanted):
            assert not excess, (links, wanted, excess)
            assert not holding.plainly_covers(wanted)  # the second time the capability is asked
            seen += 1
        excesses += bool(excess)
    assert seen > times(2_000) and excesses > times(2_000)


def test_what_has_no_glance_is_left_to_the_capability() -> None:
    for key in VALUES.keys() - set(LIKELY):
        caveat = write(key, VALUES[key][0], V1)
        assert not caveat.plainly_covers(caveat)
        assert not Holding((link({key: VALUES[key][0]}),), Lineage(("a",)), "t").plainly_covers({key: caveat})


def test_what_stands_alone_is_the_same_whether_the_rest_is_worked_out_or_not() -> None:
    drawn = drawing(4)
    for _ in range(times(500)):
        links = tuple(link(said(drawn)) for _ in range(drawn.choice((0, 1, 2, 3))))
        one, two = (Holding(links, Lineage(("a",)), "t") for _ in range(2))
        assert two.capability == one.capability
        assert [one.at(key) for key in VALUES] == [two.at(key) for key in VALUES]
        fresh = Holding(links, Lineage(("a",)), "t")
        assert [fresh.at(key) for key in ("exp", "nbf", "fresh")] == [two.at(key) for key in ("exp", "nbf", "fresh")]
        assert fresh.folded is None


def test_restating_what_is_held_works_no_capability_out() -> None:
    """Text in, text out: the way of every hand-over that repeats what the parent has."""
    token = mint(tables=["sales", "market.*"], operations=["select"])
    holding = token.unverified.holding
    child = token.attenuate(tables=["sales"], operations=["select"], expires_in=60)
    assert holding.folded is None
    assert child.unverified.capability.prohibits(Access(table="sales", operation="select")) is None
    assert holding.capability is holding.capability


def test_whoever_mints_holds_everything() -> None:
    assert everything("a").capability.json() == {}
    assert everything("a").at("exp") is None

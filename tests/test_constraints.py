"""Constraints, kind by kind: which values they accept, how two meet, what writers complete, what is said of a mistake."""

from __future__ import annotations

import ipaddress
import itertools
import json
import random
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from captoken import Token, WideningError
from captoken._format.encoding import b64decode, encode_json
from captoken._language import addresses, urls
from captoken._language.constraints import Range, read_constraint
from captoken.cli import words
from captoken.control import Operator
from captoken.discharge import Allow, Discharger
from captoken.keys import DischargerKey, OperatorKey
from captoken.stores.memory import MemorySnapshots
from tests.fixtures import clock, code, mint, tool

FREE: dict[str, Any] = {"unrestricted": True}


def last(token: Token) -> dict[str, Any]:
    """The caveats of the last link."""
    stated: dict[str, Any] = json.loads(token.unverified.bodies[-1])
    return stated


def where(constraint: Any, **held: Any) -> Any:
    """What a writer makes of a constraint under `where`."""
    return last(mint(**(held or FREE)).attenuate(where={"x": constraint}))["where"]["x"]


# --- ranges ----------------------------------------------------------------------------------------------------------


def test_a_range_takes_every_finite_number_and_nothing_else() -> None:
    """Compared exactly: an integer beyond doubles, the least fraction, minus zero; NaN stands on no side."""
    some = read_constraint({"min": 0, "max": 2**53 - 1})
    for value in (0, -0.0, 5e-324, 1.5, 2**53 - 1, float(2**53 - 1)):
        assert some.accepts(value), value
    for value in (-5e-324, -1, 2**53, float(2**53), 10**400, True, False, "1", None, [1], {"n": 1}):
        assert not some.accepts(value), value
    for one in ({"min": 0}, {"max": 0}, {"min": 0, "max": 1}):
        for value in (float("nan"), float("inf"), float("-inf")):
            assert not read_constraint(one).accepts(value)


def test_a_list_takes_no_fraction_that_a_range_takes() -> None:
    assert read_constraint({"min": 3, "max": 3}).accepts(3.0) and not read_constraint({"in": [3]}).accepts(3.0)


# --- prefixes, urls, addresses, lists --------------------------------------------------------------------------------


def test_no_string_satisfies_two_kinds_about_strings() -> None:
    """So that what two unlike kinds have in common is nothing, exactly."""
    kinds = [
        read_constraint({"path": ["/"]}),
        read_constraint({"prefix": ["a", "1", "2", ":", "h", "w"]}),
        read_constraint({"url": ["https://a.b", "ws://[::1]", "http://10.0.0.1"]}),
        read_constraint({"cidr": ["0.0.0.0/0", "2000::/3", "::/97"]}),
    ]
    satisfied = []
    for value in ("/a", "ab", "https://a.b/x", "ws://[::1]/", "10.0.0.1", "::1", "2001:db8::1", "https://u@a.b", "10.0.0.1:80"):
        satisfied.append([kind.accepts(value) for kind in kinds].count(True))
        assert all(not (one.accepts(value) and two.accepts(value)) for one in kinds for two in kinds if one is not two)
        assert all(one.meet(two) == read_constraint({"in": []}) for one in kinds for two in kinds if one is not two)
    assert satisfied == [1] * 9


def test_a_prefix_that_begins_like_another_kind_says_which_kind_to_use() -> None:
    for prefix, kind in (("/data", "write path"), ("https://a.b", "write url"), ("x://", "write url")):
        with pytest.raises(ValueError, match=kind):
            read_constraint({"prefix": [prefix]})


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("example.com", "it must begin with https://, http://, wss:// or ws://"),
        ("HTTPS://example.com", "it must begin with https://, http://, wss:// or ws://"),
        ("https://u@example.com", "it must not have user info"),
        ("https://example.com#a", "must not have a fragment"),
        ("https://example.com?a", "must not have a query"),
        ("https://example.com:443", "port 443 is the default: leave it out"),
        ("https://example.com:0", "from 1 to 65535"),
        ("https://Example.com", "in lower case"),
        ("https://b\u00fccher.de", "visible ASCII"),
        ("https://a\\b.c", "no backslash"),
        ("https://*.com", "at least two labels"),
        ("https://127.1", "four decimals"),
        ("https://[::FFFF]", "RFC 5952"),
        ("https://a.b//c", "its path must not have an empty segment, except at the end"),
        ("https://a.b/..;x", "must not have a segment"),
        ("https://a.b/%2e", "must not have %2e"),
        ("https://a.b/" + "x" * 2037, "at most 2048"),
    ],
)
def test_an_entry_that_is_no_url_says_why(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_constraint({"url": [url]})


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ("10.0.0.1/8", "is not a block: it has bits set beyond its length; write"),
        ("2001:db8::1/32", "write 2001:db8::/32"),
        ("10.0.0.0", "like 10.0.0.0/8"),
        ("10.0.0.0/33", "longer than an address"),
        ("::/0", "::ffff:0:0/96"),
        ("::ffff:0:0/96", "canonical form"),
    ],
)
def test_an_entry_that_is_no_block_says_why(block: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_constraint({"cidr": [block]})


def test_a_kind_of_another_type_is_a_type_error() -> None:
    for kind in ("prefix", "url", "cidr"):
        for value in ("a", {"a": 1}, 1, True, [1], [True], [["a"]], [None]):
            with pytest.raises(TypeError):
                read_constraint({kind: value})
    for stated in ({"most": 1}, {"each": {"in": ["a"]}, "most": -1}, {"each": {"in": ["a"]}, "most": 2**53}, {"each": {}}):
        with pytest.raises(ValueError):
            read_constraint(stated)
    for stated in ({"each": "a"}, {"each": {"any": True}, "most": True}, {"each": {"any": True}, "most": 1.0}):
        with pytest.raises(TypeError):
            read_constraint(stated)


LETTERS = "abcdefghijklmnop"
HOSTS = {"url": [f"ws://{letter}.x.y" for letter in LETTERS]}
PATHS = {"url": [f"ws://*.x.y/{letter}" for letter in LETTERS]}


def test_links_may_leave_256_urls_and_of_more_nothing() -> None:
    """16 hosts and 16 paths are 256 urls. 16 hosts and 30 paths, which two lists leave together, would be 480."""
    hosts, paths = read_constraint(HOSTS), read_constraint(PATHS)
    both = hosts.meet(paths)
    assert len(both.json()["url"]) == 256
    assert both.meet(hosts) == both.meet(paths) == both.meet(both) == both == paths.meet(hosts)
    assert both.accepts("ws://c.x.y/d/e") and not both.accepts("ws://c.x.y/")

    fifteen = range(15)
    one = read_constraint({"url": ["ws://*.x.y/a", *(f"ws://*.x.y/b/{number}" for number in fifteen)]})
    two = read_constraint({"url": ["ws://*.x.y/b", *(f"ws://*.x.y/a/{number}" for number in fifteen)]})
    thirty, nothing = one.meet(two), read_constraint({"in": []})
    assert len(thirty.json()["url"]) == 30
    assert thirty.meet(hosts) == hosts.meet(thirty) == hosts.meet(one).meet(two) == nothing
    assert len(thirty.meet(read_constraint({"url": HOSTS["url"][:8]})).json()["url"]) == 240


def test_urls_meet_and_are_normal_as_by_comparing_all_pairs() -> None:
    """4,000 pairs of lists: what is looked up label by label and segment by segment is what comparing each with each gives."""
    rng = random.Random(20260501)
    hosts = ["a.b", "x.a.b", "y.a.b", "k.x.a.b", "*.a.b", "*.x.a.b", "*.k.x.a.b", "10.0.0.1", "[::1]"]
    paths = ["", "/", "/p", "/p/", "/p/q", "/p/q/", "/z"]

    def listed() -> list[urls.Url]:
        starts, ports = ["https://", "http://"], ["", "", ":8443"]
        parts = (starts, hosts, ports, paths)
        return [urls.site("".join(rng.choice(part) for part in parts)) for _ in range(rng.randint(0, 9))]

    def common(one: urls.Url, two: urls.Url) -> set[urls.Url]:
        """Of two urls, their hosts and paths put together: whichever lies within both."""
        made = {urls.Url(one.scheme, host, one.port, path) for host in (one.host, two.host) for path in (one.path, two.path)}
        return {url for url in made if urls.is_within_one(url, [one]) and urls.is_within_one(url, [two])}

    for _ in range(4000):
        one, two = listed(), listed()
        outside = {url for url in one if not urls.is_within_one(url, [other for other in one if other != url])}
        assert urls.widest_of(one) == outside, one
        assert urls.both(one, two) == {url for mine in one for its in two for url in common(mine, its)}, (one, two)


def test_a_token_whose_links_leave_many_urls_is_judged_shown_and_cut() -> None:
    """Verifiers ask each link; what is left together can be shown; a clamp that could not be read is no link."""
    token, other = (
        mint(unrestricted=True, where={"x": one}).with_raw_link(encode_json({"where": {"x": two}}))
        for one, two in ((HOSTS, PATHS), (PATHS, HOSTS))
    )
    assert code(token, tool("t")) == "attribute"
    assert len(token.unverified.capability.json()["where"]["x"]["url"]) == 256
    assert token.unverified.capability == other.unverified.capability
    for asked in ({"url": ["ws://*.x.y"]}, {"any": True}):
        with pytest.raises(WideningError, match="the overlap cannot be written as a link") as caught:
            token.attenuate(where={"x": asked}, clamp=True)
        assert (caught.value.dimension, caught.value.code) == ("where", "widening")
    assert len(last(token.attenuate(where={"x": {"url": ["ws://a.x.y"]}}, clamp=True))["where"]["x"]["url"]) == 16
    lines = words.of_rights(token.unverified.capability.json(), 0)
    assert len(lines) == 1 and lines[0].startswith('where {"x": {"url": ["ws://a.x.y/a"')


def test_each_of_each_holds_every_list_to_its_own_bound() -> None:
    """All lists are judged together: by their number of items one by one, and by what is no list among them."""
    two = read_constraint({"each": {"each": {"max": 5}, "most": 2}, "most": 3})
    for value in ([], [[]], [[1, 2], [3], []], [[5, 5], [5, 5], [5, 5]]):
        assert two.accepts(value), value
    for value in ([[1, 2, 3]], [[1], [1, 2, 3]], [[], [], [], []], [[1], 2], [[1], "ab"], [[1], None], [[6]], [[1], [[1]]], [1], [{}]):
        assert not two.accepts(value), value


def test_what_many_values_satisfy_each_of_them_does() -> None:
    """Whatever the kind: together they are judged as one by one, none among them, and too long lists too."""
    values: list[Any] = [1, 5, -1, 1.5, True, False, "a", "b", "/a/b", "10.0.0.1", None, {}, [], ["a"], [[]], ["a", "b"], [1, True]]
    kinds: list[Any] = [
        {"any": True}, {"in": []}, {"in": ["a", 1]}, {"in": [True, 5]}, {"min": 1}, {"max": 1}, {"min": 0, "max": 5}, {"path": ["/a"]}, {"prefix": ["a"]},
        {"cidr": ["10.0.0.0/8"]}, {"each": {"in": ["a"]}}, {"each": {"any": True}, "most": 1}, {"each": {"any": True}, "most": 0}, {"each": {"each": {"any": True}, "most": 0}},
    ]  # fmt: skip
    for stated in kinds:
        one = read_constraint(stated)
        assert one.accepts_all([]) is True
        for many in ([value] for value in values):
            assert one.accepts_all(many) is one.accepts(many[0]) is one.accepts_all(many * 3), (stated, many)
        for first in values:
            for second in values:
                assert one.accepts_all([first, second]) is (one.accepts(first) and one.accepts(second)), (stated, first, second)


def test_ranges_meet_at_the_higher_low_and_the_lower_high() -> None:
    bounds = (None, 0, 1, 2)
    for low, high, least, most in itertools.product(bounds, repeat=4):
        met = Range(low, high).meet(Range(least, most))
        for value in (-1, 0, 0.5, 1, 2, 3):
            assert met.accepts(value) is (Range(low, high).accepts(value) and Range(least, most).accepts(value))


def test_each_is_no_deeper_than_four_and_never_a_crash() -> None:
    nested: Any = {"in": ["x"]}
    for _ in range(4):
        nested = {"each": nested}
    assert where(nested) == nested
    for _ in range(5000):
        nested = {"each": nested}
    with pytest.raises(ValueError, match="nested"):
        where(nested)
    bodies = [b'{"where":{"x":' + b'{"each":' * deep + b'{"any":true}' + b"}" * deep + b"}}" for deep in (4, 5, 29)]
    bare = mint(**FREE)
    assert [code(bare.with_raw_link(body), tool("t")) for body in bodies] == ["attribute", "unreadable_link", "unreadable_link"]


def test_a_list_in_a_list_says_what_is_wrong() -> None:
    for given in ({"in": [["a"]]}, {"in": [{"a": 1}]}, {"in": (("a",),)}, {"in": [["a"], ["b"]]}, {"url": [["https://a.b"]]}):
        with pytest.raises(TypeError, match=r"must be made of lists that hold str, int and bool, not (list|dict|tuple)"):
            where(given)


def test_a_tool_that_fetches_can_be_given_a_site() -> None:
    token = mint(tools={"fetch": {"url": {"url": ["https://*.example.com/reports"]}}})
    child = token.attenuate(tools={"fetch": {"url": {"url": ["https://eu.example.com/reports/q3"]}}})
    asked = "https://eu.example.com/reports/q3/a?b=c"
    assert code(child, tool("fetch", url=asked)) == "allowed"
    for url in ("https://us.example.com/reports/q3", "https://eu.example.com/reports/q3/../q2", "http://169.254.169.254/", 5, None):
        assert code(child, tool("fetch", url=url)) == "argument"
    with pytest.raises(WideningError, match="the token restricts argument url of tool fetch to"):
        child.attenuate(tools={"fetch": {"url": {"url": ["https://*.example.com/reports"]}}})


# --- what writers complete -------------------------------------------------------------------------------------------

HELD = {"unrestricted": True, "where": {"x": {"min": -9, "max": 9}}}


@pytest.mark.parametrize(
    ("held", "given", "written"),
    [
        (FREE, {"max": 500}, {"max": 500, "min": 0}),
        (FREE, {"max": 0}, {"max": 0, "min": 0}),
        (FREE, {"each": {"max": 5}, "most": 3}, {"each": {"max": 5, "min": 0}, "most": 3}),
        (FREE, {"each": {"each": {"max": 5}}}, {"each": {"each": {"max": 5, "min": 0}}}),
        (FREE, MappingProxyType({"max": 500}), {"max": 500, "min": 0}),
        (FREE, {"min": 5}, {"min": 5}),
        (FREE, {"min": -5, "max": -1}, {"min": -5, "max": -1}),
        (HELD, {"max": 5}, {"max": 5, "min": -9}),
        ({**FREE, "where": {"x": {"each": {"min": -9}}}}, {"each": {"max": 5}}, {"each": {"max": 5, "min": -9}}),
        ({**FREE, "where": {"x": {"min": 3}}}, {"max": 5}, {"max": 5, "min": 3}),
        ({**FREE, "where": {"x": {"in": [1, 2]}}}, {"in": [1]}, {"in": [1]}),
        ({**FREE, "where": {"y": {"min": -9}}}, {"max": 5}, {"max": 5, "min": 0}),
    ],
)
def test_a_max_alone_is_completed(held: dict[str, Any], given: Mapping[str, Any], written: dict[str, Any]) -> None:
    assert where(given, **held) == written


def test_a_negative_max_alone_is_a_mistake_wherever_it_is_written() -> None:
    for held in (FREE, HELD):
        with pytest.raises(ValueError, match="alone: write min as well, which is 0 if you leave it out"):
            where({"max": -1}, **held)
    with pytest.raises(ValueError, match="alone: write min as well, which is 0 if you leave it out"):
        where({"each": {"max": -1}})
    with pytest.raises(ValueError, match="alone: write min as well, which is 0 if you leave it out"):
        mint(tools={"pay": {"cents": {"max": -500, "optional": True}}})


def test_what_is_no_range_is_refused_as_before() -> None:
    for given in ({"max": "5"}, {"max": True}, {"max": 1.5}, {"max": None}, {"max": [5]}, [("max", 5)], "max", {"max": 2**53}):
        with pytest.raises((TypeError, ValueError)):
            where(given)
    for tools in ("pay", ["pay"], {5: {"n": {"max": 5}}}, {"pay": [1]}, {"pay": {"n": 5}}, {"a..b": {"n": {"max": 5}}}):
        with pytest.raises((TypeError, ValueError)):
            mint(tools=tools)


@pytest.mark.parametrize(
    ("given", "write"),
    [
        ({"tools": ["pay"]}, 'tools must be a mapping, not list: {"pay": {}} leaves all arguments free'),
        ({"tools": {"send", "pay"}}, 'tools must be a mapping, not set: {"pay": {}, "send": {}} leaves all arguments free'),
        ({"tools": "pay"}, 'tools must be a mapping, not str: {"pay": {}} leaves all arguments free'),
        ({"tools": []}, 'tools must be a mapping, not list: {"search": {}} leaves all arguments free'),
        ({"tools": [{"pay": {}}]}, 'tools must be a mapping, not list: {"search": {}} leaves all arguments free'),
        ({"tools": {"pay": {"to": "acct-1"}}}, """the constraint on 'to' must be a mapping, not str: write {"in": ["acct-1"]}"""),
        ({"tools": {"pay": {"to": ["a", "b"]}}}, """the constraint on 'to' must be a mapping, not list: write {"in": ["a", "b"]}"""),
        ({"tools": {"pay": {"cents": 500}}}, """the constraint on 'cents' must be a mapping, not int: write {"in": [500]} for that value alone, or {"max": 500}"""),
        ({"tools": {"pay": {"cents": -5}}}, """the constraint on 'cents' must be a mapping, not int: write {"in": [-5]}"""),
        ({"tools": {"pay": {"to": []}}}, """the constraint on 'to' must be a mapping, not list: write {"in": [...]}"""),
        ({**FREE, "where": {"region": "eu"}}, """the constraint on 'region' must be a mapping, not str: write {"in": ["eu"]}"""),
        ({**FREE, "where": {"vip": True}}, """the constraint on 'vip' must be a mapping, not bool: write {"in": [true]}"""),
        ({**FREE, "where": {"rate": 1.5}}, """the constraint on 'rate' must be a mapping, not float: write {"in": [...]}"""),
    ],
)  # fmt: skip
def test_names_and_values_alone_are_refused_with_what_to_write(given: dict[str, Any], write: str) -> None:
    """`["pay"]` could mean any arguments or none, `"/docs"` that path or all below: so writers guess nothing (spec 23.2)."""
    for writes in (mint, mint(unrestricted=True).attenuate):
        with pytest.raises(TypeError) as caught:
            writes(**{key: value for key, value in given.items() if key != "unrestricted" or writes is mint})
        assert str(caught.value) == write
    if "[...]" not in write:  # what it says to write is taken
        value, _ = json.JSONDecoder().raw_decode(write, write.index("{"))
        mint(tools=value if "tools" in write else {"pay": {"x": value}})


def test_a_max_below_the_min_that_is_held_is_widening_and_no_mistake() -> None:
    token = mint(unrestricted=True, where={"x": {"min": 5, "max": 9}})
    with pytest.raises(WideningError) as caught:
        token.attenuate(where={"x": {"max": 4}})
    assert caught.value.dimension == "where"
    with pytest.raises(WideningError) as caught:
        token.attenuate(where={"x": {"max": 4}}, clamp=True)
    assert caught.value.code == "nothing_left"


def test_an_argument_is_completed_by_the_entry_that_decides_at_its_pattern() -> None:
    token = mint(tools={"a.*": {"n": {"min": -5, "max": 5}}, "a.b": {"n": {"min": -9, "max": 9}}, "c": {}})
    asked = {"a.b": {"n": {"max": 1}}, "a.c": {"n": {"max": 1}}, "c": {"n": {"max": 1}}}
    written = {"a.b": -9, "a.c": -5, "c": 0}
    assert last(token.attenuate(tools=asked))["tools"] == {
        name: {"n": {"max": 1, "min": low}} for name, low in written.items()
    }


def test_whoever_writes_completes_and_no_reader_does() -> None:
    """A mint, an operator's entry and a discharge; and a link that was written without this library keeps its meaning."""
    asked = {"pay": {"cents": {"max": 500}}}
    completed = {"tools": {"pay": {"cents": {"max": 500, "min": 0}}}}
    token = mint(tools=asked)
    assert last(token).items() >= completed.items()
    assert [code(token, tool("pay", cents=cents)) for cents in (-1, 0, 500, 501)] == ["argument", "allowed", "allowed", "argument"]

    entry = Operator(OperatorKey.generate(), MemorySnapshots(), by="ops", clock=clock()).narrow(
        task="task-123", why="less", tools=asked
    )
    assert entry.link == completed

    key = DischargerKey.generate()
    ticket = mint(**FREE).require(key.public, need={"pay": True}).needs[0]
    discharge = Discharger(key, lambda need: Allow(expires_in=60, tools=asked), clock=clock()).discharge(ticket)
    assert b'"tools":{"pay":{"cents":{"max":500,"min":0}}}' in b64decode(discharge.serialize().partition("_")[2])

    bare = mint(tools={"pay": {}}).with_raw_link(b'{"tools":{"pay":{"cents":{"max":500}}}}')
    assert code(bare, tool("pay", cents=-1)) == "allowed"
    assert bare.unverified.capability.json()["tools"] == {"pay": {"cents": {"max": 500}}}
    assert last(bare.attenuate(tools=asked))["tools"]["pay"]["cents"] == {"max": 500, "min": 0}


class Two(dict[str, Any]):
    """A mapping that says one thing when it is looked up, and another when it is gone through."""

    def __contains__(self, key: object) -> bool:
        return key == "min" or super().__contains__(key)

    def keys(self) -> Any:
        return ("max",)

    def __iter__(self) -> Iterator[str]:
        return iter(("max",))


def test_a_mapping_that_says_two_things_is_read_once() -> None:
    assert where(Two(max=5)) == {"max": 5, "min": 0}


# --- what is said of too much ----------------------------------------------------------------------------------------

PAY: dict[str, Any] = {"pay": {"cents": {"max": 500}, "to": {"in": ["acct-1"]}, "note": {"any": True, "optional": True}}}


@pytest.mark.parametrize(
    ("held", "asked", "said", "clamped"),
    [
        (PAY, {"pay": {"cents": {"max": 5}}},
         'the token restricts these, and you left them out: argument to of tool pay; write {"to": {"in": ["acct-1"]}}', "nothing_left"),
        (PAY, {"pay": {"note": {"any": True}}},
         "you left them out: arguments cents, to of tool pay; write "
         '{"cents": {"min": 0, "max": 500}, "to": {"in": ["acct-1"]}}', "nothing_left"),
        ({"pay": {"to": {"in": ["a"]}}}, {"pay": {}}, 'you left them out: argument to of tool pay; write {"to": {"in": ["a"]}}', ""),
        ({"a.*": {"to": {"in": ["a"]}}}, {"a.b": {}}, 'you left them out: argument to of tool a.b; write {"to": {"in": ["a"]}}', ""),
        ({"a.b": {"to": {"in": ["a"]}}}, {"*": {}}, 'you left them out: argument to of tool a.b; write {"to": {"in": ["a"]}}', ""),
        ({"a b": {"x\"y": {"in": ["\u2014"]}}}, {"a b": {}},
         'argument "x\\"y" of tool "a b"; write {"x\\"y": {"in": ["\\u2014"]}}', ""),
        (PAY, {"pay": {"cents": {"max": 501}, "to": {"in": ["acct-1"]}}},
         'the token restricts argument cents of tool pay to {"min": 0, "max": 500}', ""),
        (PAY, {"pay": {"cents": {"max": 5}, "to": {"in": ["acct-1"], "optional": True}}},
         "argument to of tool pay must be present: it is not optional", ""),
        (PAY, {"pay": {"cents": {"max": 5}, "to": {"in": ["acct-1"]}, "memo": {"any": True}}},
         "the token permits no argument memo of tool pay: leave it out", "nothing_left"),
        ({"ping": {"_": {"in": [], "optional": True}}}, {"ping": {"n": {"any": True}}},
         "the token permits no argument n of tool ping: leave it out", "nothing_left"),
    ],
)  # fmt: skip
def test_the_argument_that_is_too_much_is_named_with_what_to_write(
    held: dict[str, Any], asked: dict[str, Any], said: str, clamped: str
) -> None:
    """So it is where a clamp would leave nothing; where it leaves something, that is written."""
    token = mint(tools=held)
    with pytest.raises(WideningError) as caught:
        token.attenuate(tools=asked)
    assert said in caught.value.hint and said in str(caught.value)
    assert ("clamp=True" in caught.value.hint) == (not clamped)  # where it leaves nothing, it is no advice
    if not clamped:
        assert last(token.attenuate(tools=asked, clamp=True))["tools"]
        return
    with pytest.raises(WideningError) as caught:
        token.attenuate(tools=asked, clamp=True)
    assert caught.value.code == clamped and said in caught.value.hint and said in str(caught.value)


def test_the_attribute_that_is_too_much_is_named() -> None:
    token = mint(unrestricted=True, where={"region": {"in": ["eu"]}, "score": {"min": 1, "max": 9}})
    with pytest.raises(WideningError, match=r'the token restricts attribute score to \{"min": 1, "max": 9\}; ask for less'):
        token.attenuate(where={"region": {"in": ["eu"]}, "score": {"max": 10}})
    with pytest.raises(WideningError, match=r'^where: the token restricts attribute region to \{"in": \["eu"\]\}; asked for'):
        token.attenuate(where={"region": {"in": ["us"]}}, clamp=True)


def test_a_long_list_does_not_hide_what_to_do() -> None:
    token = mint(tools={"pay": {"to": {"in": [f"account-{number}" for number in range(300)]}}})
    with pytest.raises(WideningError) as caught:
        token.attenuate(tools={"pay": {}})
    assert len(str(caught.value)) <= 2010 and "to take what is left; asked for" in str(caught.value)


def test_an_address_of_version_6_is_read_as_the_library_of_python_spells_it() -> None:
    """3,000 groups with runs of zeros, cut anywhere: read where they are spelled so, and none otherwise."""
    rng = random.Random(6)
    read = 0
    for _ in range(3000):
        groups = [rng.choice(["0", "0", "1", "10", "f0"]) for _ in range(8)]
        at = rng.randint(0, 8)
        behind = rng.randint(at, 8)
        text = f"{':'.join(groups[:at])}::{':'.join(groups[behind:])}" if rng.random() < 0.8 else ":".join(groups)
        number = int(ipaddress.IPv6Address(text)) if behind > at or "::" not in text else None
        spelled = number is not None and str(ipaddress.IPv6Address(number)) == text
        assert addresses.address(text) == ((6, number) if spelled else None), text
        read += spelled
    assert 500 < read < 2500

"""Urls as constraints compare them: what is none, how two lists meet, and how many a link may leave."""

from __future__ import annotations

import random

import pytest

from captoken import WideningError
from captoken._format.encoding import encode_json
from captoken._language import urls
from captoken._language.constraints import read_constraint
from captoken.cli import words
from tests.fixtures import code, mint, tool
from tests.test_constraints import last


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


def test_a_tool_that_fetches_can_be_given_a_site() -> None:
    token = mint(tools={"fetch": {"url": {"url": ["https://*.example.com/reports"]}}})
    child = token.attenuate(tools={"fetch": {"url": {"url": ["https://eu.example.com/reports/q3"]}}})
    asked = "https://eu.example.com/reports/q3/a?b=c"
    assert code(child, tool("fetch", url=asked)) == "allowed"
    for url in ("https://us.example.com/reports/q3", "https://eu.example.com/reports/q3/../q2", "http://169.254.169.254/", 5, None):
        assert code(child, tool("fetch", url=url)) == "argument"
    with pytest.raises(WideningError, match="the token restricts argument url of tool fetch to"):
        child.attenuate(tools={"fetch": {"url": {"url": ["https://*.example.com/reports"]}}})

"""Links that count: each has a nonce, which is written where it is needed and only there."""

from __future__ import annotations

import pytest

from captoken import Issuer
from captoken._language.caveats import V1, prohibited
from captoken._language.link import BadLink, Link
from captoken._language.links import read_link
from captoken.caveats import Situation
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, mint


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"uses":5}', "n must be a str"),
        (b'{"budget":{"eur":5}}', "n must be a str"),
        (b'{"n":5,"uses":5}', "n must be a str"),
        (b'{"n":"AAAAAAAAAA","uses":5}', "11 characters"),
        (b'{"n":"AAAAAAAAAA=","uses":5}', "11 characters"),
        (b'{"n":"AAAAAAAAAAA\\n","uses":5}', "11 characters"),
        (b'{"n":"AAAAAAAAAAA"}', ""),
        (b'{"fresh":5,"n":"AAAAAAAAAAA"}', ""),
        (b'{"from":"a","n":"AAAAAAAAAAA","uses":5}', ""),
        (b'{"n":"AAAAAAAAAAA","to":"a","uses":5}', ""),
        (b'{"from":"a","to":"b","uses":5}', ""),
        (b'{"n":"AAAAAAAAAAA","uses":-1}', "negative"),
        (b'{"n":"AAAAAAAAAAA","uses":true}', "int"),
        (b'{"budget":{},"n":"AAAAAAAAAAA"}', "is empty: leave it out"),
        (b'{"budget":[],"n":"AAAAAAAAAAA"}', "mapping"),
        (b'{"budget":{"uses":1},"n":"AAAAAAAAAAA"}', "write uses="),
        (b'{"budget":{"a b":1},"n":"AAAAAAAAAAA"}', "unit"),
        (b'{"fresh":-1}', "negative"),
        (b'{"fresh":"5"}', "int"),
    ],
)
def test_a_link_that_counts_has_a_nonce(body: bytes, problem: str) -> None:
    """`n` stands with `uses` and `budget`, and alone with nothing; and each value is an amount."""
    link = read_link(body, V1)
    assert isinstance(link, BadLink) and link.code == "unreadable_link" and problem in link.text


def test_links_that_count_are_read() -> None:
    """With a nonce, alone and in a hand-over."""
    for body, counts, to in (
        (b'{"n":"AAAAAAAAAAA","uses":0}', True, None),
        (b'{"budget":{"acme:x":9007199254740991,"eur":0},"n":"AAAAAAAAAAA"}', True, None),
        (b'{"from":"a","n":"AAAAAAAAAAA","to":"b","uses":5}', True, "b"),
        (b'{"fresh":0}', False, None),
    ):
        link = read_link(body, V1)
        assert isinstance(link, Link) and (link.counts, link.receiver) == (counts, to)
        assert prohibited(link.caveats, None, Situation(NOW, overlay_age=0)) is None


def test_a_nonce_is_written_where_it_is_needed_and_only_there() -> None:
    """At mint and at each narrowing: a new one each time."""
    for token in (mint(**SALES, uses=1), mint(**SALES, budget={"eur": 1}), mint().attenuate(uses=1), mint().attenuate(budget={"eur": 1})):
        assert token.unverified.bodies[-1].count(b'"n":"') == 1
    assert b'"n"' not in mint(**SALES, fresh=5).unverified.bodies[-1] + mint().attenuate(fresh=5).unverified.bodies[-1]
    parent, issuer = mint(), Issuer(KEYRING, clock=clock())
    assert len({parent.attenuate(uses=1).unverified.bodies[-1] for _ in range(10)}) == 10
    assert len({issuer.mint(**WHO, **SALES, uses=1).unverified.bodies[0] for _ in range(10)}) == 10
    assert parent.delegate(to="b", uses=1).unverified.bodies[-1].count(b'"n"') == 1

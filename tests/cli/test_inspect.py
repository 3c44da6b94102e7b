"""What a token says of itself, for people: no terminal is moved by it, and no page takes it for markup."""


import io

import pytest
from rich.console import Console

from captoken._format.encoding import encode_json
from captoken._format.parts import Packet
from captoken.cli import inspect
from captoken.cli.view import read, view
from captoken.discharge import Discharge
from captoken.testing import FixedClock
from tests.cli.test_audit import seen_of
from tests.cli.test_cli import ASKING, DISCHARGE, DISCHARGER, NOW, ROOT, TICKET


def by_hand(link):
    """The root token with a link that no library checked."""
    return ROOT.with_raw_link(link)


NASTY = [
    *(chr(code) for code in range(0x20)),
    *(chr(code) for code in range(0x7F, 0xA1)),
    *"\xad\u061c\u115f\u180e\u200b\u200d\u200e\u200f\u2028\u2029\u202a\u202e\u2060\u2066\u2069\u3000\ufeff\ufff9\ue000",
    "\U000e0001",
    "\U000e0041",
    "\U0010ffff",
]


def rendered(token, encoding="utf-8", discharges=()):
    """All that `inspect` draws of a token."""
    seen = seen_of(token, discharges)
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding, errors="backslashreplace")
    Console(file=file, width=10_000, force_terminal=False, markup=False, emoji=False, highlight=False).print(
        inspect.as_tree(seen)
    )
    file.flush()
    return "\n".join([raw.getvalue().decode(encoding), inspect.as_mermaid(seen), *seen.summary])


@pytest.mark.parametrize("shape", ['{"tables":["a%sINJECTED"]}', '{"a:%s":1}', '{"where":{"%s":{"in":["x%sy"]}}}', "%s"])
def test_nothing_that_a_link_holds_moves_a_terminal(shape):
    for char in NASTY:
        body = shape.replace("%s", char).encode()
        text = rendered(by_hand(body))
        strange = {c for c in text if not (c.isprintable() or c == "\n")}
        assert not strange, (char, strange)
        assert "\nINJECTED" not in text


@pytest.mark.parametrize("shape", ['{"tables":["a%sINJECTED"]}', '{"a:%s":1}', "%s"])
def test_nor_does_anything_in_a_discharge_or_a_ticket(shape):
    for char in NASTY:
        answer = Discharge(Packet(TICKET.cid, ((shape.replace("%s", char).encode(), b""),), bytes(32)))
        place = encode_json({"box": "AAAA", "for": DISCHARGER.public, "loc": shape.replace("%s", char), "v": 1})
        for token in (ASKING, ROOT.with_raw_link(place, bytes(72))):
            text = rendered(token, discharges=(answer,))
            assert all(c.isprintable() or c == "\n" for c in text), char
            assert "\nINJECTED" not in text


def test_what_is_sealed_in_a_ticket_is_not_shown():
    text = rendered(ASKING) + str(inspect.as_data(seen_of(ASKING)))
    assert "https://approvals.example" in text and "payment" not in text and "500" not in text


def test_a_presented_token_is_shown_with_its_discharges():
    answered = ASKING.with_discharge(DISCHARGE)
    sent = answered.present(audience="sales-db", clock=FixedClock(NOW))
    for text in (answered.serialize(), sent):
        seen = view(read(text), NOW)
        assert seen.characters == len(text) and [hop.answer is not None for hop in seen.hops][:2] == [False, True]
    twice = view(read(f"{sent}.{sent.split('.')[1]}"), NOW)
    assert "asks      1 third party, 1 answered, and 1 discharge that nothing asks for" in twice.summary


def test_markup_is_text():
    token = ROOT.attenuate(tables=["[bold red]x[/]", "[link=http://example.com]y[/link]"], clock=FixedClock(NOW))
    text = rendered(token)
    assert "[bold red]x[/]" in text and "[link=http://example.com]y[/link]" in text and "\x1b" not in text


def test_a_chart_says_nothing_but_its_own_markup():
    token = ROOT.attenuate(tables=['"] --> x', "`md`", "</b><script>", "a;b", "#quot;", "%%{init}%%"], clock=FixedClock(NOW))
    chart = inspect.as_mermaid(seen_of(token))
    labels = [line.split('["', 1)[1].removesuffix('"]').replace("<br/>", "") for line in chart.split("\n") if '["' in line]
    assert len(labels) == 4
    for label in labels:
        assert not set(label) & set("\"<>[](){}`%\\|'"), label


def test_a_chain_of_64_links_is_drawn():
    token = ROOT
    for number in range(63):
        token = token.delegate(to=f"a{number}", clock=FixedClock(NOW))
    text = rendered(token, "ascii")
    assert "link 63, added by a61, hands on to a62" in text and text.isascii()
    assert max(map(len, text.splitlines()[:70])) < 120

"""How tokens and discharges travel as text: which parts, in which order, how long, and what is looked at first."""

from __future__ import annotations

import re
from typing import Any

import pytest

from captoken import TokenFormatError
from captoken._format import packet as wire
from captoken._format import text
from captoken._format.encoding import b64encode
from captoken._format.parts import Packet
from captoken._format.spelling import shown
from captoken._format.text import BOUND, PREFIX, UNBOUND
from captoken.errors import LimitError

LINK = (b'{"exp":5}', b"")
THIRD = (b"cid", bytes(72))
TOKEN = Packet(b"root record", (LINK, THIRD), bytes(32))
ANSWER = Packet(b"cid", (LINK,), bytes(range(32)))


def refused(call: Any, *args: Any) -> TokenFormatError:
    with pytest.raises(TokenFormatError) as caught:
        call(*args)
    assert caught.value.code == "malformed"
    return caught.value


def test_a_token_that_was_cut_asks_whether_it_is_complete():
    """Wherever it was cut: what a terminal or a mail leaves of it is a common mistake."""
    whole = text.text_of(TOKEN)
    for end in range(len(PREFIX), len(whole)):
        assert re.search("the text was cut|was the text cut", str(refused(text.packet_of, whole[:end]))), end


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (text.text_of(ANSWER, UNBOUND), "a token starts with cap1_, and this is a discharge, which goes with a token"),
        (text.text_of(ANSWER, BOUND), "a token starts with cap1_, and this is a discharge, which goes with a token"),
        (f"Bearer {text.text_of(TOKEN)}", "a token starts with cap1_, and this starts with the word Bearer: leave it out"),
        ("bearer hunter2", "a token starts with cap1_, and this starts with the word Bearer: leave it out"),
        ("hunter2", "a token starts with cap1_, and this text does not"),
        ("", "no token is in use here: the text is empty. If a guard needs one, wrap the call in `with captoken.current.use(token):`; to a thread, `captoken.current.carry(function)` carries it"),
    ],
)
def test_what_else_a_text_is_is_told_and_none_of_it_shown(given: str, told: str) -> None:
    """It may be a secret that stands in the wrong place."""
    assert str(refused(text.packet_of, given)) == told


def test_the_prefix_says_what_a_part_is() -> None:
    """cap1_ a token, cap1u_ a discharge as it was written, cap1d_ one that is bound; no two begin alike."""
    assert text.text_of(TOKEN) == "cap1_" + b64encode(wire.encode(TOKEN))
    assert text.packet_of(text.text_of(TOKEN)) == TOKEN
    for prefix, other in ((UNBOUND, BOUND), (BOUND, UNBOUND)):
        written = text.text_of(ANSWER, prefix)
        assert written.startswith(prefix) and text.discharge_of(written, prefix) == ANSWER
        assert "perhaps this one" in str(refused(text.discharge_of, written, other))
        refused(text.packet_of, written)
        refused(text.discharge_of, text.text_of(TOKEN), prefix)


@pytest.mark.parametrize(
    "hostile", [None, 5, b"cap1_", ["cap1_"], object(), "", ".", "..", "cap1_", "cap1_.", ".cap1u_", "\ud800.", "cap1_\ud800"]
)
def test_what_is_no_text_is_malformed(hostile: Any) -> None:
    """Anything else than text, and text without parts, raises TokenFormatError."""
    refused(text.packet_of, hostile)
    for prefix in (UNBOUND, BOUND):
        refused(text.discharge_of, hostile, prefix)
        refused(text.parts_of, hostile, prefix)


def test_separators_are_full_stops_and_nothing_else() -> None:
    """No part is empty, and none is separated by another character, or by two."""
    token, answer = text.text_of(TOKEN), text.text_of(ANSWER, UNBOUND)
    assert text.parts_of(f"{token}.{answer}", UNBOUND) == text.Parts(TOKEN, (ANSWER,))
    for wrong in (
        f"{token}.", f".{token}", f"{token}..{answer}", f"{token}.{answer}.", f"{token},{answer}", f"{token} {answer}",
        f"{token}. {answer}", f"{token}{answer}", f"{answer}.{token}", f"{token}.{token}", f"{token}\u3002{answer}",
        f"{token}.\n{answer}", f"{token}.{answer}\n", f" {token}.{answer}", answer, f"{answer}.{answer}",
    ):  # fmt: skip
        refused(text.parts_of, wrong, UNBOUND)


def test_sizes_are_looked_at_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too long a token, discharge or bundle, and too many discharges, are step 1, whatever they are made of."""
    monkeypatch.setattr(text, "b64decode", None)
    monkeypatch.setattr(text, "decode", None)
    long = "!" * 8192
    steps = [
        refused(text.packet_of, PREFIX + long).step,
        refused(text.discharge_of, UNBOUND + long, UNBOUND).step,
        refused(text.parts_of, "!" * 32_768 + ".", UNBOUND).step,
        refused(text.parts_of, "!" + ".!" * 17, UNBOUND).step,
        refused(text.parts_of, "!" + "." * 32_767, UNBOUND).step,
    ]
    assert steps == [1] * 5
    for call in (text.packet_of, lambda part: text.parts_of(part, UNBOUND)):
        assert refused(call, "!" * 8192).step == 2, "as long as a token may be, so that its prefix is looked at"
    assert refused(text.parts_of, "!" + ".!" * 16, UNBOUND).step == 2


def sized(chars: int, identifier: bytes, prefix: str) -> str:
    """A text of exactly so many characters, or one more."""
    room = (chars - len(prefix)) * 3 // 4 - len(wire.encode(Packet(identifier, ((b"x" * 5000, b""),), bytes(32)))) + 5000
    return text.text_of(Packet(identifier, ((b"x" * room, b""),), bytes(32)), prefix)


def test_the_limit_of_the_bundle_is_inclusive() -> None:
    """32,768 characters in all are read, and one more is not."""
    token = text.text_of(TOKEN)
    parts = [sized(8192, b"id", UNBOUND)] * 3
    rest = 32_768 - len(token) - 3 * 8193 - 1
    last = next(part for chars in range(rest, rest - 4, -1) if len(part := sized(chars, b"id", UNBOUND)) <= rest)
    whole = ".".join((token, *parts, last))
    assert 32_765 <= len(whole) <= 32_768 and len(text.parts_of(whole, UNBOUND).discharges) == 4
    for more in range(1, 8):
        longer = ".".join((token + "A" * more, *parts, last))
        problem = refused(text.parts_of, longer, UNBOUND)
        assert problem.step == (1 if len(longer) > 32_768 else 2)


def test_costs_add_up_to_the_text() -> None:
    """Root record, links and discharges are listed with what each costs in characters, and nothing else is."""
    parts = text.costs(TOKEN, (ANSWER, ANSWER))
    assert [name for name, _ in parts] == ["root record", "link 0", "link 1", "discharge 0", "discharge 1"]
    assert parts[2][1] == (75 * 4 + 2) // 3 and text.costs(TOKEN) == parts[:3]
    assert 0 < len(text.whole_text(TOKEN, (ANSWER, ANSWER), UNBOUND)) - sum(size for _, size in parts) < 100


def packet(links: int = 1, third: int = 0, size: int = 9, root: int = 11) -> Packet:
    return Packet(b"i" * root, ((b"x" * size, b""),) * links + (THIRD,) * third, bytes(32))


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (packet(root=1024), None),
        (packet(root=1025), "1025 bytes, more than 1024"),
        (packet(links=64), None),
        (packet(links=65), "65 links, more than 64"),
        (packet(third=16), None),
        (packet(third=17), "16 is the most"),
        (packet(size=4500), None),
        (packet(size=6079), None),
        (packet(size=6100), "more than 8192 characters"),
        (packet(size=30_000), "more than 8192 characters"),
    ],
)
def test_writers_write_what_readers_read(made: Packet, problem: str | None) -> None:
    """A token at a limit is written and comes back; past it LimitError says which, with what each part costs where it is the
    length."""
    if problem is None:
        text.check_limits(made)
        assert text.packet_of(text.text_of(made)) == made
        return
    with pytest.raises(LimitError, match=problem) as caught:
        text.check_limits(made)
    assert bool(caught.value.costs) == ("characters" in problem)
    if "is the most" not in problem:
        refused(text.packet_of, text.text_of(made))


def test_a_text_is_made_for_its_length_only_where_that_is_near_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above three quarters of it, by the bytes that have to be spelled."""
    made: list[Packet] = []
    inner = text.text_of
    monkeypatch.setattr(text, "text_of", lambda packet: made.append(packet) or inner(packet))
    # Of 11 bytes in the root record: 4,608 bytes are 6,144 characters, three quarters of 8,192.
    for size, looks in ((9, 0), (4597, 0), (4598, 1), (6079, 2)):
        text.check_limits(packet(size=size))
        assert len(made) == looks


def test_a_bundle_is_written_if_it_is_read() -> None:
    """Sixteen discharges and 32,768 characters: at the limit it passes, past it LimitError lists the costs."""
    text.check_bundle(TOKEN, (ANSWER,) * 16)
    with pytest.raises(LimitError, match="17 discharges, more than 16"):
        text.check_bundle(TOKEN, (ANSWER,) * 17)
    large = text.discharge_of(sized(8000, b"id", UNBOUND), UNBOUND)
    text.check_bundle(TOKEN, (large,) * 4)
    assert text.parts_of(text.whole_text(TOKEN, (large,) * 4, UNBOUND), UNBOUND) == text.Parts(TOKEN, (large,) * 4)
    with pytest.raises(LimitError, match="32768 characters") as caught:
        text.check_bundle(TOKEN, (large,) * 5)
    assert dict(caught.value.costs)["discharge 4"] > 7900
    refused(text.parts_of, text.whole_text(TOKEN, (large,) * 5, UNBOUND), UNBOUND)


# ---- a proof at the end ----------------------------------------------------------------------------------------------

PROOF_BYTES = bytes(range(88))
PROVEN = "cap1p_" + b64encode(PROOF_BYTES)


def test_a_proof_stands_last_and_once() -> None:
    """What is not one proof at the very end of a text for a server is malformed (spec 30.1)."""
    token, answer = text.text_of(TOKEN), text.text_of(ANSWER, BOUND)
    assert text.parts_of(f"{token}.{PROVEN}", BOUND) == text.Parts(TOKEN, (), PROOF_BYTES)
    assert text.parts_of(f"{token}.{answer}.{PROVEN}", BOUND) == text.Parts(TOKEN, (ANSWER,), PROOF_BYTES)
    assert text.proof_text(PROOF_BYTES) == PROVEN and len(PROVEN) == text.PROOF_CHARS == 124
    assert text.without_proof(f"{token}.{answer}.{PROVEN}") == f"{token}.{answer}" == text.without_proof(f"{token}.{answer}")
    for wrong in (
        f"{token}.{PROVEN}.{answer}", f"{token}.{PROVEN}.{PROVEN}", f"{token}.{PROVEN}.", f"{PROVEN}.{token}", PROVEN,
        f"{token}.{PROVEN[:-1]}", f"{token}.{PROVEN}A", f"{token}.{PROVEN[:-1]}x", f"{token}.{PROVEN[:-1]}!", f"{token}.CAP1P_{PROVEN[6:]}",
    ):  # fmt: skip
        assert refused(text.parts_of, wrong, BOUND).code == "malformed"


def test_a_text_with_a_proof_is_for_one_sending() -> None:
    """A holder does not take it in: neither as a token nor as what a discharge is put to."""
    refused(text.parts_of, f"{text.text_of(TOKEN)}.{PROVEN}", UNBOUND)


def test_a_proof_counts_within_the_bundle() -> None:
    """16 discharges and a proof fit; 17 do not, and a text that is too long with the proof is too long."""
    answers = ".".join([text.text_of(ANSWER, BOUND)] * 16)
    assert text.parts_of(f"{text.text_of(TOKEN)}.{answers}.{PROVEN}", BOUND).proof == PROOF_BYTES
    assert refused(text.parts_of, f"{text.text_of(TOKEN)}.{answers}.{text.text_of(ANSWER, BOUND)}.{PROVEN}", BOUND).step == 1
    parts = [sized(8192, b"id", BOUND)] * 4
    assert refused(text.parts_of, f"{text.text_of(TOKEN)}.{'.'.join(parts)}.{PROVEN}", BOUND).step == 1


@pytest.mark.parametrize("length", [77, 78])
def test_what_fits_into_a_message_is_not_cut(length: int) -> None:
    assert shown("a" * length) == f"'{'a' * length}'" and shown("a" * 79) == f"'{'a' * 76}..."

"""Which files are one trail: each that continues another, in whatever order they come."""

from __future__ import annotations

import json
from typing import Any

import pytest

from captoken._format.encoding import b64encode, encode_json
from captoken.audit import Head, _evidence
from captoken.audit._chains import begins_after, chains, not_here, span_of
from captoken.audit._check import numbered
from captoken.audit._evidence import Chosen, Told
from captoken.errors import AuditError
from tests.test_evidence import LINES, SERVER, changed, exported, found, of, sealed, trail


def test_several_trails_are_in_one_file() -> None:
    surveys = [_evidence.survey(name, lambda lines=lines: iter(lines), of("a")) for name, lines in (("x", LINES), ("y", trail("a", None)))]  # type: ignore[misc]
    told = [Told(1, "ops:kim", "task a", "nothing", "over")]
    proved = _evidence.check_evidence(_evidence.exported(surveys, asked=Chosen(task="a"), at=1, told=told), [SERVER.public])
    assert {one.trail for one in proved.records} == {0, 1} and proved.said.told == told
    assert [one.name for one in proved.said.trails] == ["x", "y"]


# Record 6 is a checkpoint, so that the second file begins with a span of its own; record 13 is in the middle of one.
@pytest.mark.parametrize("cut", [1, 5, 6, 12, 13])
def test_a_file_that_continues_one_that_is_not_here_is_proved_by_its_own_checkpoints(cut: int) -> None:
    """Wherever the file begins. A tree that begins before it gives no path: then the chain proves its records."""
    *_, (_, after) = numbered(LINES[:cut], Head())
    assert span_of(LINES[cut:]) == (after, span_of(LINES)[1])
    whole = dict(found(exported(LINES)))
    lines = exported(LINES[cut:], after=after)
    assert set(found(lines)) <= {(seq, by) for seq in range(cut + 1, len(LINES) + 1) for by in ("tree", "chain", "checkpoint", "nothing")}
    decided = {seq for seq in whole if seq > cut and json.loads(LINES[seq - 1]).get("task") == "a"}
    assert decided <= dict(found(lines)).keys() and decided
    assert {by for seq, by in found(lines) if seq in decided} <= {"tree", "chain", "nothing"}
    said = _evidence.check_evidence(lines).said.trails[0]
    assert said.after == said.begins == after
    with pytest.raises(AuditError, match="records were cut out, or are in another order"):
        exported(LINES[cut:])


def test_what_a_file_says_of_the_one_before_is_held_against_its_first_record() -> None:
    head = span_of(LINES[:6])[1]
    lines = exported(LINES[6:], "b", after=head)
    first = json.loads(lines[0])["evidence"]
    assert json.loads(json.loads(lines[1])["line"])["seq"] == 7

    def with_after(**after: Any) -> list[bytes]:
        trails = [first["trails"][0] | {"after": after}]
        return sealed([changed(lines[0], evidence=first | {"trails": trails}), *lines[1:]])

    assert with_after(seq=6, hash=head.hash) == lines
    with pytest.raises(AuditError, match="does not follow from the one that the file names"):
        found(with_after(seq=6, hash=b64encode(bytes(32))))
    with pytest.raises(AuditError, match="records appear twice, or are in another order"):
        found(with_after(seq=7, hash=head.hash))


@pytest.mark.parametrize(
    "line", [b"", b"no record\n", b"{}\n", encode_json({"kind": "x", "seq": 2, "prev": "short"}), encode_json({"kind": "x", "seq": True, "prev": "x"})]
)
def test_a_file_that_does_not_say_what_it_continues_begins_a_trail(line: bytes) -> None:
    """Whoever reads it refuses it then."""
    assert begins_after(line) == Head()
    assert span_of([line] if line else [])[0] == Head()


def test_files_are_joined_by_their_heads_in_whatever_order_they_come() -> None:
    a, b, c, other = (Head(n, b64encode(bytes([n]) * 32)) for n in (1, 2, 3, 9))
    spans = [(b, c), (Head(), a), (a, b), (other, Head(10, c.hash)), (Head(), Head())]
    assert chains(spans) == [((1, 2, 0), Head(), None), ((3,), other, None), ((4,), Head(), None)]
    assert not_here(other) == "it continues a file that is not here, after record 9" and not_here(Head()) is None
    for twins in ([(Head(), a), (a, b), (a, c)], [(Head(), a), (Head(), a), (a, b)]):
        found = chains(twins)
        assert len(found) == 3
        assert {one.trouble is not None for one in found if one.after == a} == {True}
        assert all(one.trouble is None for one in found if one.after == Head())

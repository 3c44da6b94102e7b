"""Whether a trail is whole: edits, cuts, reorders, rollbacks and checkpoints that are none show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from captoken._format.encoding import b64encode, encode_json
from captoken._format.primitives import sha256
from captoken.audit import Head, Verdict, check, read
from captoken.errors import AuditError
from captoken.stores.ports import START
from tests.fixtures import data, mint
from tests.test_trail import OTHER, SERVER, Trail, written


def chained(*records: dict[str, Any], head: Head | None = None) -> list[bytes]:
    """Lines with these records, as whoever can append to a file can write them."""
    lines, at = [], head or Head()
    for record in records:
        line = encode_json({"prev": at.hash, "seq": at.seq + 1, **record})
        lines.append(line + b"\n")
        at = Head(at.seq + 1, b64encode(sha256(line)))
    return lines


def test_a_whole_trail_is_whole() -> None:
    """Line by line or in pieces of whole lines, in one go and from a known head on; an empty one too."""
    trail = written(6)
    verdict = check(trail.lines)
    assert verdict == Verdict(trail.trail.head, 0, 6) and verdict.head.seq == len(trail.lines) == 7
    assert check([b"".join(trail.lines)]) == verdict == check([trail.lines[0], b"".join(trail.lines[1:])])
    assert check([]) == Verdict(Head(), 0, 0)
    half = check(trail.lines[:3]).head
    assert [record["seq"] for record in read(trail.lines[3:], half)] == [4, 5, 6, 7]
    with pytest.raises(AuditError, match="after record 0 comes record 4"):
        list(read(trail.lines[3:]))
    with pytest.raises(AuditError, match="does not follow"):
        list(read(trail.lines[3:], Head(3, START)))


def changes(lines: list[bytes]) -> list[tuple[str, list[bytes]]]:
    """Every way to tamper with one line, or two, at every place, without being able to invert a hash."""
    made: list[tuple[str, list[bytes]]] = []
    for at, line in enumerate(lines):
        last = at == len(lines) - 1
        record = json.loads(line)
        if not last:
            made.append((f"cut {at}", [*lines[:at], *lines[at + 1 :]]))
            made.append((f"swap {at}", [*lines[:at], lines[at + 1], line, *lines[at + 2 :]]))
            for key in record:
                edited = encode_json({**record, key: "edited"}) + b"\n"
                made.append((f"edit {at} {key}", [*lines[:at], edited, *lines[at + 1 :]]))
            made.append((f"extra key {at}", [*lines[:at], encode_json({**record, "x": 1}) + b"\n", *lines[at + 1 :]]))
        made.append((f"twice {at}", [*lines[:at], line, line, *lines[at + 1 :]]))
        made.append((f"spelled otherwise {at}", [*lines[:at], json.dumps(record).encode() + b"\n", *lines[at + 1 :]]))
        made.append((f"half a line {at}", [*lines[:at], line[: len(line) // 2], *lines[at + 1 :]]))
        made.append((f"an empty line {at}", [*lines[:at], b"\n", *lines[at:]]))
        before = check(lines[:at]).head
        inserted = chained({"kind": "decision", "allowed": True}, head=before)
        made.append((f"inserted {at}", [*lines[:at], *inserted, *lines[at:]]))
    return made


def test_edits_cuts_reorders_and_insertions_show() -> None:
    """At each place of a trail of seven records, each key of each: AuditError, that says where; with a checkpoint among them."""
    for trail in (written(6), written(4, key=SERVER, every=3)):
        for what, lines in changes(trail.lines):
            with pytest.raises(AuditError, match="record"):
                check(lines)
                pytest.fail(what)


def test_a_rollback_shows_to_whoever_kept_a_head() -> None:
    """Cut at the end it is whole again; a head that was seen before says otherwise, and so it does of a trail that was begun anew
    and grown as long."""
    trail = written(6)
    heads = [check(trail.lines[:count]).head for count in range(8)]
    assert check(trail.lines, known=heads).head == heads[7]
    for count in range(7):
        assert check(trail.lines[:count]).head == heads[count] == check(trail.lines[:count], known=heads[: count + 1]).head
        with pytest.raises(AuditError, match=f"ends at record {count}, but record 7 was there before"):
            check(trail.lines[:count], known=heads)
    other = written(7)
    for known in heads[3:]:
        forged = chained(*({"kind": "decision"} for _ in range(7)))
        with pytest.raises(AuditError, match=f"record {known.seq} is not the one"):
            check(forged, known=[known])
    assert check(other.lines, known=heads[:1])
    for two in ([Head(3, START), heads[3]], [heads[3], Head(3, START)]):
        with pytest.raises(AuditError, match="record 3 is not the one"):
            check(trail.lines, known=two)


def test_a_later_process_goes_on_where_an_earlier_one_ended() -> None:
    """With the head that the check found; the token is described again. Without it the seam shows."""
    first = written(2)
    second = written(2, head=check(first.lines).head)
    whole = [*first.lines, *second.lines]
    assert check(whole).decisions == 4 and [record["kind"][0] for record in read(whole)] == list("tddtdd")
    with pytest.raises(AuditError, match="after record 3 comes record 1"):
        check([*first.lines, *written(2).lines])


def test_a_trail_that_goes_on_in_another_file_is_whole_file_by_file() -> None:
    """After the head that the file before ended with; with no other, and by what was seen of it."""
    first = written(2, key=SERVER, every=2)
    last = check(first.lines, [SERVER.public]).head
    second = Trail(head=last, key=SERVER, every=2)
    for _ in range(2):
        second.verifier.check(mint(), data("sales"))
    verdict = check(second.lines, [SERVER.public], after=last, known=[Head(), check(first.lines[:2]).head, last, second.trail.head])
    assert verdict.head == second.trail.head and verdict.decisions == 2 and verdict.signed > last.seq
    assert check([*first.lines, *second.lines], [SERVER.public]).head == verdict.head
    assert check([], after=last).head == last and next(record["kind"] for record in read(second.lines, last)) == "token"
    for after in (None, Head(last.seq, START), Head(last.seq + 1, last.hash)):
        with pytest.raises(AuditError):
            check(second.lines, after=after)
    with pytest.raises(AuditError, match=f"record {last.seq} is not the one"):
        check(second.lines, after=last, known=[Head(last.seq, START)])
    with pytest.raises(AuditError, match="was there before"):
        check(second.lines[:-1], after=last, known=[second.trail.head])


JUNK = [b"", b"\n", b"{}", b"null", b"[]", b"\xff\xfe", b'{"seq":1}', b'{"seq":1}\n\n', b"x" * 10_000, b'{"seq":true}', b"{" * 5000]


@pytest.mark.parametrize("line", JUNK, ids=lambda line: repr(line[:20]))
def test_a_line_that_is_no_record_is_an_error_and_no_crash(line: bytes) -> None:
    with pytest.raises(AuditError):
        check([line])


@pytest.mark.parametrize(
    "record",
    [
        {}, {"kind": 5}, {"kind": ["decision"]}, {"kind": {}}, {"kind": "checkpoint"}, {"kind": "checkpoint", "signature": 5},
        {"kind": "checkpoint", "signature": "x"}, {"kind": "checkpoint", "signature": "A" * 86}, {"kind": "checkpoint", "signature": ["A"]},
        {"kind": "checkpoint", "key": 5, "signature": "\u00e9"}, {"seq": True}, {"seq": "1"}, {"prev": 5}, {"prev": [START]},
    ],
    ids=str,
)  # fmt: skip
def test_lines_that_somebody_appended_are_read_or_an_error(record: dict[str, Any]) -> None:
    """Whoever can append can chain: the reader answers with a verdict or AuditError, whatever stands there."""
    for servers in ([], [SERVER.public]):
        try:
            verdict = check(chained(record), servers)
        except AuditError:
            continue
        assert (verdict.head.seq, verdict.signed, verdict.decisions) == (1, 0, 0)
        assert not (servers and record.get("kind") == "checkpoint")


def test_a_checkpoint_by_another_key_is_an_error() -> None:
    """Also where it names the right one, and where nobody who is trusted signed any."""
    lines = written(3, key=OTHER, every=3).lines
    with pytest.raises(AuditError, match="no server that is trusted here has signed checkpoint 4"):
        check(lines, [SERVER.public])
    assert check(lines, [SERVER.public, OTHER.public]).signed == 3 == check(lines, [OTHER.public]).signed
    record = json.loads(lines[3])
    record["key"] = SERVER.public
    with pytest.raises(AuditError, match="checkpoint 4"):
        check([*lines[:3], encode_json(record) + b"\n"], [SERVER.public])
    assert check(written(3).lines, [SERVER.public]).signed == 0, "where there is none, nothing is signed"


def test_a_checkpoint_that_was_moved_is_an_error() -> None:
    """To another place of its trail, and to another trail with the right place."""
    trail = written(6, key=SERVER, every=3)
    moved = {key: value for key, value in json.loads(trail.lines[3]).items() if key not in ("seq", "prev")}
    for count in (0, 1, 2, 5, 8):
        head = check(trail.lines[:count]).head
        with pytest.raises(AuditError, match=f"no server that is trusted here has signed checkpoint {count + 1}"):
            check([*trail.lines[:count], *chained(moved, head=head)], [SERVER.public])
    forged = chained({"kind": "decision"}, {"kind": "decision"}, {"kind": "decision"}, moved)
    with pytest.raises(AuditError, match="checkpoint 4"):
        check(forged, [SERVER.public])
    assert check(forged).decisions == 3, "the hashes alone do not tell"

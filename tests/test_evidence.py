"""Evidence: some records of a trail with what proves them, in one file (spec 39.11). Whatever is changed in it is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from captoken import Issuer
from captoken._format.encoding import b64encode, encode_json
from captoken._format.primitives import sha256
from captoken.audit import AuditTrail, Head, _evidence, check, read
from captoken.audit._evidence import Chosen
from captoken.audit.trail import checkpoint_message
from captoken.errors import AuditError
from captoken.keys import AuditKey
from captoken.testing import fixed_random
from tests.fixtures import KEYRING, SALES, WHO, clock, data, verifier

SERVER = AuditKey.from_bytes(bytes(range(32)))
OTHER = AuditKey.from_bytes(bytes(range(1, 33)))

Record = dict[str, Any]


def trail(*steps: str | None, key: AuditKey | None = SERVER) -> list[bytes]:
    """Lines of decisions in these tasks; None is a checkpoint, and `again` a server that starts anew."""
    lines: list[bytes] = []
    one = AuditTrail(lines.append, key=key)
    for step in steps:
        if step is None:
            one.checkpoint()
        elif step == "again":
            one = AuditTrail(lines.append, key=key, head=one.head)
        else:
            who: dict[str, Any] = {**WHO, **SALES, "task": step}
            token = Issuer(KEYRING, clock=clock(), random=fixed_random(step)).mint(**who)
            verifier(audit=one).check(token, data("sales"))
    return b"".join(lines).splitlines(keepends=True)


STEPS = ("a", "b", "b", "a", "b", None, "b", "b", "a", "b", None, "b", None, "a", "again", "b", "a", "b", None, "b", "a")
LINES = trail(*STEPS)


def of(task: str) -> Callable[[Record], bool]:
    return lambda record: record["kind"] == "decision" and record.get("task") == task


def exported(lines: Sequence[bytes], task: str = "a", **more: Any) -> list[bytes]:
    one = _evidence.survey("trail", lambda: iter(lines), of(task), **more)
    return list(_evidence.exported([one], asked=Chosen(task=task), at=1))


def sealed(given: Sequence[bytes]) -> list[bytes]:
    """The same with a last line that fits, as whoever changes a file can write it."""
    end = {"end": {"hash": b64encode(sha256(b"".join(given[:-1]))), "records": len(given) - 2}}
    return [*given[:-1], encode_json(end) + b"\n"]


def changed(given: bytes, /, **said: Any) -> bytes:
    stated = {**json.loads(given), **said}
    return encode_json({key: value for key, value in stated.items() if value is not None}) + b"\n"


def found(given: Sequence[bytes], *servers: str) -> list[tuple[int, str]]:
    return [(one.record["seq"], one.by) for one in _evidence.check_evidence(given, servers or [SERVER.public]).records]


def test_each_record_that_is_asked_for_is_there_with_its_proof() -> None:
    """All of them and no others, but the descriptions of their tokens and the checkpoints; what came before a server started
    anew with all along to the first that the next tree has."""
    records = list(read(LINES))
    proved = _evidence.check_evidence(exported(LINES), [SERVER.public])
    by = {one.record["seq"]: one.by for one in proved.records}
    mine = {one["seq"] for one in records if of("a")(one)}
    tokens = {one["seq"] for one in records if one["kind"] == "token" and one["root"]["task"] == "a"}
    points = [one["seq"] for one in records if one["kind"] == "checkpoint"]
    assert mine <= by.keys() and len(mine) == 6
    assert {seq for seq in mine if by[seq] == "nothing"} == {seq for seq in mine if seq > points[-1]} != set()
    chained = {seq for seq, how in by.items() if how == "chain"}
    assert chained and chained == {min(chained)} and min(chained) in mine
    beside = by.keys() - mine - tokens - set(points)
    assert {records[seq - 1]["task"] for seq in beside if records[seq - 1]["kind"] == "decision"} <= {"b"} and len(beside) <= 1
    assert proved.said.trails[0].head == check(LINES).head and proved.said.trails[0].sealed == points[-1]
    lines = {json.loads(line).get("line", "").encode() + b"\n" for line in exported(LINES)}
    assert {line for line in LINES if b'"task":"b"' in line and line in lines} == {LINES[seq - 1] for seq in beside}


def test_no_other_record_is_told_where_trees_are() -> None:
    lines = trail("a", "b", "a", None, "b", "a", None)
    assert all(b'"task":"b"' not in line for line in exported(lines))
    assert {by for _, by in found(exported(lines))} == {"tree", "checkpoint"}


@pytest.mark.parametrize("lines", [LINES, trail("a", "b", "a", None, "b"), trail("a", "b", key=None)])
def test_each_byte_that_is_changed_is_found(lines: list[bytes]) -> None:
    """And each that is left out, or there twice."""
    whole = b"".join(exported(lines))
    _evidence.check_evidence(whole.splitlines(keepends=True), [SERVER.public])
    for at in range(len(whole)):
        for harmed in (bytes([whole[at] ^ 1 << at % 8]), b"", whole[at : at + 1] * 2):
            with pytest.raises(AuditError):
                _evidence.check_evidence((whole[:at] + harmed + whole[at + 1 :]).splitlines(keepends=True), [SERVER.public])


def test_each_line_that_is_left_out_moved_or_there_twice_is_found() -> None:
    given = exported(LINES)
    for at in range(len(given)):
        harmed = [given[:at] + given[at + 1 :], given[: at + 1] + given[at:], [*given[:at], *given[at + 1 :], given[at]]]
        harmed += [[*given[:at], given[other], *given[at + 1 : other], given[at], *given[other + 1 :]] for other in range(at + 1, len(given))]
        for one in harmed:
            if one != given:
                with pytest.raises(AuditError):
                    _evidence.check_evidence(one, [SERVER.public])


def test_who_writes_the_last_line_anew_changes_no_record_that_is_sealed() -> None:
    """Neither one byte of it, nor its place; nor does one pass as not yet sealed, or under another's path."""
    given = exported(LINES)
    proved = _evidence.check_evidence(given, [SERVER.public]).records
    paths = [json.loads(line).get("path") for line in given]
    for at, one in enumerate(proved, 1):
        if one.by == "nothing":
            continue
        body = json.loads(given[at])["line"]
        for place in range(0, len(body), 3):
            other = body[:place] + chr(ord(body[place]) ^ 1) + body[place + 1 :]
            with pytest.raises(AuditError):
                _evidence.check_evidence(sealed([*given[:at], changed(given[at], line=other), *given[at + 1 :]]), [SERVER.public])
        for path in [*paths, [], ["x"], [b64encode(bytes(32))] * 3]:
            if path != paths[at]:
                try:
                    again = _evidence.check_evidence(sealed([*given[:at], changed(given[at], path=path), *given[at + 1 :]]), [SERVER.public])
                except AuditError:
                    continue
                # By the record behind it, which names its hash; a checkpoint needs no path.
                assert again.records[at - 1].by in ("chain", "checkpoint")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda given: given[:1], "ends before its last line"),
        (lambda given: [*given[:-1], given[-1][:-1]], "ends before its last line"),
        (lambda given: [given[0].replace(b'"v":1', b'"v":2'), *given[1:]], "does not know the version of the evidence"),
        (lambda given: [b"{}\n", *given[1:]], "line 1 is not a line of evidence"),
        (lambda given: [given[0], changed(given[1], own=1), *given[2:]], "line 2 is not a line"),
        (lambda given: [given[0], *given[2:1:-1], given[1], *given[3:]], "records appear twice, or are in another order"),
        (lambda given: [given[0], given[1], *given[1:]], "records appear twice, or are in another order"),
        (lambda given: [given[0], changed(given[1], trail=1), *given[2:]], "another trail than the file names"),
        (lambda given: [given[0], changed(given[1], line="{}"), *given[2:]], "does not name its kind"),
        (lambda given: [given[0], changed(given[1], line="x"), *given[2:]], "is not a record"),
        (lambda given: [given[0], changed(given[1], line='{"kind":"x","seq":1}'), *given[2:]], "a record has no number"),
        (lambda given: [line for line in given if b"checkpoint" not in line], "its last checkpoint is not in the file"),
        (lambda given: [given[0].replace(b'"seq":', b'"seq":1'), *given[1:]], None),
        (lambda given: [given[0].replace(b'"hash":"', b'"hash":"x'), *given[1:]], "is not the one that was exported"),
        (lambda given: [given[0].replace(b'"seq":', b'"seq":-'), *given[1:]], "records appear twice, or are in another order"),
    ],
)
def test_what_a_file_of_evidence_is_not(change: Callable[[list[bytes]], list[bytes]], said: str | None) -> None:
    """Whoever writes the last line anew can name a longer trail: how far it goes no seal says."""
    given = change(exported(LINES))
    if said is None:
        _evidence.check_evidence(sealed(given), [SERVER.public])
        return
    with pytest.raises(AuditError, match=said):
        _evidence.check_evidence(given if len(given) < 2 or not given[-1].endswith(b"\n") else sealed(given), [SERVER.public])


def test_a_checkpoint_counts_by_a_key_that_is_trusted() -> None:
    """Without any, each is checked against the key that it names, which anybody can write."""
    forged = exported(trail("a", "b", None, key=OTHER))
    with pytest.raises(AuditError, match="no server that is trusted here has signed"):
        _evidence.check_evidence(forged, [SERVER.public])
    assert {one.by for one in _evidence.check_evidence(forged).records} == {"tree", "checkpoint"}
    assert found(forged, SERVER.public, OTHER.public)
    with pytest.raises(ValueError, match="43 characters of base64url"):
        _evidence.check_evidence(forged, ["x"])


def test_no_path_leads_to_a_checkpoint_that_is_not_there() -> None:
    given = exported(trail("a", None, "a"))
    with pytest.raises(AuditError, match="its checkpoint does not cover record"):
        _evidence.check_evidence(sealed([*given[:-2], changed(given[-2], path=[]), given[-1]]), [SERVER.public])


def test_without_a_key_nothing_is_sealed() -> None:
    given = exported(trail("a", "b", "a", key=None))
    proved = _evidence.check_evidence(given, [SERVER.public])
    assert {one.by for one in proved.records} == {"nothing"} and proved.said.trails[0].sealed == 0


def without_trees(lines: Sequence[bytes]) -> list[bytes]:
    """The same records, as an earlier version wrote them."""
    made: list[bytes] = []
    head = Head()
    for record in read(lines):
        stated = {key: value for key, value in record.items() if key != "tree"} | {"prev": head.hash}
        if record["kind"] == "checkpoint":
            stated["signature"] = b64encode(SERVER.sign(checkpoint_message(head)))
        made.append(encode_json(stated) + b"\n")
        head = Head(record["seq"], b64encode(sha256(made[-1][:-1])))
    return made


def test_a_trail_without_trees_is_proved_by_its_chain() -> None:
    """From the first that is asked for up to each checkpoint, whole."""
    lines = without_trees(LINES)
    assert check(lines, [SERVER.public]).head.seq == len(lines)
    records = list(read(lines))
    points = [0, *(one["seq"] for one in records if one["kind"] == "checkpoint")]
    seqs = {seq for seq, by in found(exported(lines)) if by == "chain"}
    asked = {seq for seq, _ in found(exported(LINES)) if seq in {one["seq"] for one in records if one["kind"] != "checkpoint"}}
    for before, point in pairwise(points):
        within = {seq for seq in asked if before < seq < point and seq in seqs}
        assert {seq for seq in seqs if before < seq < point} == (set(range(min(within), point)) if within else set())
    given = exported(lines)
    for at in range(1, len(given) - 1):
        if json.loads(given[at])["line"].find('"task":"b"') > 0:
            with pytest.raises(AuditError):
                _evidence.check_evidence(sealed(given[:at] + given[at + 1 :]), [SERVER.public])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda lines: [*lines[:1], *lines[2:]], "records were cut out, or are in another order"),
        (lambda lines: [*lines[:-1], lines[-1].replace(b"true", b"false")], "was changed after it was read"),
        (lambda lines: lines[:-1], "shorter than it was"),
        (lambda lines: [*lines[:-2], lines[-2].replace(b"sales", b"salez"), lines[-1]], "one of them was changed"),
    ],
)
def test_of_a_trail_in_trouble_only_what_is_sealed_is_exported(harm: Callable[[list[bytes]], list[bytes]], said: str) -> None:
    """With what is wrong. Whoever asks for all of a trail, and has not seen it before, gets an error."""
    lines = harm(LINES)
    given = exported(lines, seen=check(LINES).head)
    proved = _evidence.check_evidence(given, [SERVER.public])
    (one,) = proved.said.trails
    assert said in (one.trouble or "") and "nothing" not in {record.by for record in proved.records}
    assert one.head.seq == one.sealed
    if said in ("records were cut out, or are in another order", "one of them was changed"):
        with pytest.raises(AuditError, match=said):
            exported(lines)


def test_what_was_read_of_a_trail_is_exported_and_no_more() -> None:
    """It grows meanwhile."""
    seen = check(LINES[:9]).head
    given = exported(LINES, seen=seen)
    assert _evidence.check_evidence(given).said.trails[0].head == seen
    assert exported(LINES[:9], seen=seen) == given
    bad = exported(LINES, seen=seen, trouble="it was marked before")
    assert "nothing" not in {by for _, by in found(bad)}


def test_a_checkpoint_that_its_own_key_did_not_sign_is_no_seal() -> None:
    lines = trail("a", None)
    for change in ({"key": 1}, {"key": OTHER.public}, {"tree": {"first": 1}}):
        record = json.loads(lines[-1]) | change
        with pytest.raises(AuditError, match="checkpoint 3"):
            exported([*lines[:-1], encode_json(record) + b"\n"])


def test_a_token_that_is_described_in_another_shape_is_passed_over() -> None:
    lines: list[bytes] = []
    head = Head()
    shapes: list[Record] = [{"links": 1}, {"links": []}, {"links": [1]}, {"links": [{}]}, {"kind": "decision", "task": "a", "link": 1}]
    for stated in shapes:
        line = encode_json({"kind": "token", "prev": head.hash, "seq": head.seq + 1, **stated})
        head = Head(head.seq + 1, b64encode(sha256(line)))
        lines.append(line + b"\n")
    assert found(exported(lines)) == [(5, "nothing")]

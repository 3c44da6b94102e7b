"""Some records of trails, each with what proves it, in one file (spec 39.11).

    survey          goes through a trail: which records are asked for, and what seals each
    exported        the lines of the file: these records, with the checkpoints that seal them
    check_evidence  whether such lines hold, by the keys of servers: needs no other file

What proves a record is one of two things:

- Its path to the root that the next checkpoint has signed. No other record is told.
- The record after it, if that is proved: it names the hash of this one. So a record in no tree
  brings all along up to the checkpoint, or up to the first that is in the tree.

What no checkpoint seals is exported as it is, and said to be so. That a record was left out, no
file of some records can show. The hash in its last line is to be kept elsewhere for that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from captoken._format import primitives
from captoken._format.encoding import b64encode, decode_json, encode_json
from captoken._format.errors import AuditError
from captoken._format.public_keys import signing_key
from captoken._format.shapes import fit
from captoken.audit import _tree
from captoken.audit._check import (
    Tree,
    bodies,
    bytes_of,
    followed,
    must_be_signed,
    record_of,
    tree_of,
)
from captoken.stores.ports import Head

VERSION = 1

Record: TypeAlias = dict[str, Any]
Lines: TypeAlias = Callable[[], Iterable[bytes]]


# --- the shapes of the file -----------------------------------------------------------------------


class TrailSaid(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A trail as the file names it: how far it was read, and why no further."""

    name: str
    head: Head

    # Of the last checkpoint that was read: 0, if there was none.
    sealed: int
    trouble: str | None = None

    # The record that its first one follows on, in a file that is not here.
    after: Head | None = None

    @property
    def begins(self) -> Head:
        """What its first record here follows on; `Head()` where the trail begins."""
        return self.after or Head()


class Chosen(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Which decisions were asked for: of a task and those below it, of an agent, those refused, and
    those up to a second.
    """

    task: str | None = None
    agent: str | None = None
    denied: bool = False
    until: int | None = None


class Told(msgspec.Struct, forbid_unknown_fields=True):
    """What an operator did, as whoever exported saw it. Nothing proves it."""

    at: int
    by: str
    selects: str
    leaves: str
    why: str


class Beginning(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The first line: what was asked for, when, and of which trails."""

    v: int
    at: int
    asked: Chosen
    trails: list[TrailSaid]
    told: list[Told] = []


class _First(msgspec.Struct, forbid_unknown_fields=True):
    evidence: Beginning


class _Exported(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A record: of which trail, its line, and its path in the tree of the next checkpoint."""

    trail: int
    line: str
    path: list[str] | None = None


class _End(msgspec.Struct, forbid_unknown_fields=True):
    hash: str
    records: int


class _Last(msgspec.Struct, forbid_unknown_fields=True):
    end: _End


# --- going through a trail ------------------------------------------------------------------------


class Survey(NamedTuple):
    """What is to be exported of a trail."""

    said: TrailSaid
    lines: Lines

    # By number: records that are shown, and those of them that have a path.
    shown: set[int]
    with_path: set[int]

    # Of each checkpoint the first record of its tree; its own number, where it has none.
    seals: dict[int, int]


def survey(
    name: str,
    lines: Lines,
    is_asked: Callable[[Record], bool],
    *,
    after: Head | None = None,
    seen: Head | None = None,
    trouble: str | None = None,
) -> Survey:
    """Go through a trail, and find the records that are asked for.

    `lines` gives them from the beginning, each time that it is called. `is_asked` says of each
    record whether it is; the description of its token comes with it. `after` is what the first
    follows on, where the trail continues a file that is not here.

    Raises AuditError for a trail that does not hold together. With `seen`, the last record that was
    read of it before, it raises nothing: it tells the trouble, and takes only what a checkpoint
    before that seals. So it does where there was `trouble` before.
    """
    head = after or Head()
    found = _Found(head)
    try:
        for _, record, reached in followed(lines(), head):
            found.add(record, head, reached, is_asked)
            head = reached
            if seen is not None and head.seq == seen.seq:
                if head != seen:
                    raise AuditError("a record was changed after it was read")
                break
        if seen is not None and head.seq < seen.seq:
            raise AuditError("the file is shorter than it was: it was cut, or replaced")
    except AuditError as error:
        if seen is None:
            raise
        trouble = trouble or str(error)
    return found.surveyed(name, lines, head, trouble)


class _Found:
    """What a trail has, as far as one went through it."""

    def __init__(self, begins: Head) -> None:
        self._begins = begins
        self._asked: set[int] = set()
        # By the id of the last link: where the token was described last.
        self._described: dict[str, int] = {}
        # Of each checkpoint the first record of its tree, or its own number; the head of the last.
        self._seals: dict[int, int] = {}
        self._sealed = begins

    def add(
        self, record: Record, before: Head, reached: Head, is_asked: Callable[[Record], bool]
    ) -> None:
        """Take notice of a record. Raises AuditError for a checkpoint that its key did not sign."""
        seq, kind = record["seq"], record["kind"]
        if kind == "checkpoint":
            must_be_signed(record, before, _own_key(record))
            tree = tree_of(record)
            # Of a tree that begins in the file before, no path can be worked out.
            has_path = tree is not None and tree.first > self._begins.seq
            self._seals[seq] = tree.first if tree is not None and has_path else seq
            self._sealed = reached
        elif kind == "token":
            links = record.get("links")
            if isinstance(links, list) and links and isinstance(links[-1], dict):
                self._described[str(links[-1].get("id"))] = seq
        elif is_asked(record):
            self._asked.add(seq)
            described = self._described.get(str(record.get("link")))
            if described is not None:
                self._asked.add(described)

    def surveyed(self, name: str, lines: Lines, head: Head, trouble: str | None) -> Survey:
        """What is shown, and how it is proved."""
        checkpoints = list(self._seals)
        sealed = checkpoints[-1] if checkpoints else 0
        # Of a trail in trouble, what no checkpoint seals is nobody's word.
        asked = self._asked if trouble is None else {one for one in self._asked if one < sealed}
        if trouble is not None:
            head = self._sealed

        shown, with_path = set(asked), set[int]()
        shown.update(checkpoints[-1:])
        for seq in asked:
            at = bisect_right(checkpoints, seq)
            if at == len(checkpoints):
                continue  # not sealed yet
            seal = checkpoints[at]
            first = self._seals[seal]
            shown.add(seal)
            if first <= seq:
                with_path.add(seq)
                continue
            # By those that follow, up to one that is in the tree, or to the checkpoint itself.
            shown.update(range(seq, first + 1))
            if first < seal:
                with_path.add(first)
        after = None if self._begins == Head() else self._begins
        said = TrailSaid(name, head, sealed, trouble, after)
        return Survey(said, lines, shown, with_path, self._seals)


def _own_key(record: Record) -> list[bytes]:
    """The key that a checkpoint names, if it is one. Whose it is, nothing here tells."""
    try:
        return [signing_key(record.get("key", ""), "server")]
    except (TypeError, ValueError):
        return []


# --- writing --------------------------------------------------------------------------------------


def exported(
    surveys: Sequence[Survey],
    *,
    asked: Chosen,
    at: int,
    told: Iterable[Told] = (),
) -> Iterator[bytes]:
    """The lines of the file. Raises AuditError for a trail that is not what it was a moment ago."""
    beginning = Beginning(VERSION, at, asked, [one.said for one in surveys], list(told))
    begun = primitives.sha256_begun()
    count = 0
    for stated in _stated(beginning, surveys):
        line = encode_json(msgspec.to_builtins(stated)) + b"\n"
        begun.update(line)
        count += 1
        yield line
    end = _Last(_End(b64encode(begun.digest()), count - 1))
    yield encode_json(msgspec.to_builtins(end)) + b"\n"


def _stated(beginning: Beginning, surveys: Sequence[Survey]) -> Iterator[msgspec.Struct]:
    yield _First(beginning)
    for number, one in enumerate(surveys):
        yield from _records(number, one)


def _records(number: int, one: Survey) -> Iterator[_Exported]:
    """The records of one trail, each span once the checkpoint that seals it is there."""
    leaves = deque[bytes](maxlen=_tree.MOST)
    waiting: list[tuple[int, bytes]] = []
    # Up to the last one that is needed.
    before = one.said.begins.seq
    count = max(one.shown, default=before) - before
    for seq, body in enumerate(islice(bodies(one.lines()), count), before + 1):
        if seq in one.shown:
            waiting.append((seq, body))
        if seq in one.seals:
            yield from _span(number, waiting, one, seq, leaves)
            waiting.clear()
        if one.with_path:
            leaves.append(_tree.leaf(body))
    for _, body in waiting:
        yield _Exported(number, body.decode())


def _span(
    number: int, waiting: list[tuple[int, bytes]], one: Survey, seal: int, leaves: deque[bytes]
) -> Iterator[_Exported]:
    first = one.seals[seal]
    levels = _tree.levels(list(leaves)[first - seal :]) if first < seal else []
    for seq, body in waiting:
        path = None
        if seq in one.with_path:
            path = [b64encode(step) for step in _tree.path(levels, seq - first)]
        yield _Exported(number, body.decode(), path)


# --- proving --------------------------------------------------------------------------------------


class Proved(NamedTuple):
    """A record of the file, of which trail, and what proves it.

    `by` is `tree`, `chain` or `checkpoint`; `nothing` of what no checkpoint seals yet.
    """

    trail: int
    record: Record
    by: str


class EvidenceFile(NamedTuple):
    """What `check_evidence` found: all of it holds."""

    said: Beginning
    records: list[Proved]

    # The hash in the last line: kept elsewhere, it shows that nothing was left out later.
    hash: str


def check_evidence(lines: Iterable[bytes], servers: Iterable[bytes | str] = ()) -> EvidenceFile:
    """Whether each record of such a file is what a server sealed (spec 39.11).

    `servers` are public keys whose checkpoints count. Without them nothing is vouched for: each
    checkpoint is then checked against the key that it names, which anybody can write.

    Raises AuditError, and says where. Raises TypeError or ValueError for what is no public key.
    """
    trusted = [signing_key(server, "server") for server in servers]
    first, *between, last = _whole(lines)
    said = _fitted(first, _First, 1).evidence
    if said.v != VERSION:
        raise AuditError(
            "this captoken does not know the version of the evidence: a later one wrote it"
        )
    begun = primitives.sha256_begun()
    for line in (first, *between):
        begun.update(line)
    end = _fitted(last, _Last, len(between) + 2).end
    if end != _End(b64encode(begun.digest()), len(between)):
        raise AuditError("the file is not as it was written: a line was changed, cut out or added")

    given = [_fitted(line, _Exported, number) for number, line in enumerate(between, 2)]
    records: list[Proved] = []
    for number, trail in enumerate(said.trails):
        of_trail = [one for one in given if one.trail == number]
        records += _proved(number, trail, of_trail, trusted)
    if [one.trail for one in given] != [one.trail for one in records]:
        raise AuditError(
            "the records belong to another trail than the file names, or are in another order"
        )
    return EvidenceFile(said, records, end.hash)


def _whole(lines: Iterable[bytes]) -> list[bytes]:
    """Its lines, which are three at least of a file that says anything. Raises AuditError."""
    whole = list(lines)
    if len(whole) < 2 or not all(line.endswith(b"\n") for line in whole):
        raise AuditError(
            "the file ends before its last line: it was cut, or is still being written"
        )
    return whole


_Kind = TypeVar("_Kind", bound=msgspec.Struct)


def _fitted(line: bytes, kind: type[_Kind], number: int) -> _Kind:
    """A line of the file. Raises AuditError."""
    try:
        return fit(decode_json(line[:-1]), kind)
    except ValueError:  # an EncodingError is one, too
        raise AuditError(f"line {number} is not a line of evidence") from None


def _proved(
    number: int, trail: TrailSaid, given: Sequence[_Exported], trusted: Sequence[bytes]
) -> list[Proved]:
    """The records of one trail, each with what proves it. Raises AuditError."""
    read = [(one, *_read(one)) for one in given]
    seqs = [head.seq for _, _, head in read]
    begins = trail.begins
    if [begins.seq, *seqs] != sorted({begins.seq, *seqs}) or max(seqs, default=0) > trail.head.seq:
        raise AuditError(f"{trail.name}: records appear twice, or are in another order")
    # The first record of what is here, if it is in the file, follows on what is not.
    if begins.seq + 1 in seqs[:1] and read[0][1]["prev"] != begins.hash:
        raise AuditError(
            f"{trail.name}: its first record does not follow from the one that the file names"
        )
    seals = [head.seq for _, record, head in read if record["kind"] == "checkpoint"]
    if (seals[-1] if seals else 0) != trail.sealed:
        raise AuditError(f"{trail.name}: its last checkpoint is not in the file")

    # From the last one back: what proves a record stands behind it.
    proof = _Proof(trail.name, trusted)
    backwards = [
        Proved(number, record, proof.of(one, record, head)) for one, record, head in reversed(read)
    ]
    if seqs and seqs[-1] == trail.head.seq and read[-1][2] != trail.head:
        raise AuditError(f"{trail.name}: its last record is not the one that was exported")
    return backwards[::-1]


def _read(one: _Exported) -> tuple[Record, Head]:
    """A record and the head that it makes. Raises AuditError."""
    body = one.line.encode()
    record = record_of(body, 0)
    if type(record.get("seq")) is not int or len(bytes_of(record.get("prev"))) != 32:
        raise AuditError("a record has no number, or no hash of the record before it")
    return record, Head(record["seq"], b64encode(primitives.sha256(body)))


class _Proof:
    """What is proved of a trail, from its end on."""

    def __init__(self, name: str, trusted: Sequence[bytes]) -> None:
        self._name = name
        self._trusted = trusted
        self._is_sealed = False
        self._tree: Tree | None = None
        # The record that one that is proved follows on.
        self._before: Head | None = None

    def of(self, one: _Exported, record: Record, head: Head) -> str:
        """What proves a record. Raises AuditError if nothing does that a checkpoint should seal."""
        before = Head(head.seq - 1, record["prev"])
        if record["kind"] == "checkpoint":
            must_be_signed(record, before, self._trusted or _own_key(record))
            self._tree = tree_of(record)
            self._is_sealed = True
            by = "checkpoint"
        elif one.path is not None:
            self._must_be_under(one, one.path, head.seq)
            by = "tree"
        elif head == self._before:
            by = "chain"
        elif self._is_sealed:
            raise AuditError(f"{self._name}: nothing in the file proves record {head.seq}")
        else:
            return "nothing"
        self._before = before
        return by

    def _must_be_under(self, one: _Exported, path: Sequence[str], seq: int) -> None:
        """Raise AuditError unless the path leads from the record to the root that is signed."""
        tree = self._tree
        steps = [bytes_of(step) for step in path]
        if tree is not None and 0 <= seq - tree.first < tree.size:
            leaf = _tree.leaf(one.line.encode())
            if _tree.root_by(leaf, seq - tree.first, tree.size, steps) == tree.root:
                return
        raise AuditError(f"{self._name}: its checkpoint does not cover record {seq}")

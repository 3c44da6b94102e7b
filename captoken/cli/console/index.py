"""Trails, put in order: what they say, in an SQLite file that answers quickly.

    index = Index("index.db", ["trail.jsonl"])
    index.take()                      # what the trails have that the index has not

Each record is checked to follow on the one before, as `captoken.audit.read` does it, and counted
once. What a trail says that does not hold together is not believed: the trail is marked, and what
stood before stays. The file holds nothing that the trails do not: delete it, and it is made anew.

What is counted while it is read, so that a million records are answered for at once:

    tasks       a row each: when, how much was allowed and denied
    hops        a row for each holding of a token by an agent, as `captoken.audit` groups them
    minutes     by hop and minute: allowed, denied
    calls       a row a decision, with the place of its record in the trail
    uses        by hop, each kind of access that was allowed, once: the place of its first record

Several trails are one story: decisions stand in the order of their moments, whichever server wrote
them, and each says in which trail it is. Of two records that say two things of one link, the later
one marks its trail.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from threading import RLock
from typing import IO, Any, NamedTuple

import msgspec

from captoken._format import primitives
from captoken._format.encoding import OF_ANOTHER_SHAPE, own_words
from captoken._format.errors import AuditError, StoreError
from captoken._format.shapes import fit
from captoken._format.spelling import shown_file
from captoken.audit import analysis
from captoken.audit._chains import begins_after
from captoken.audit._check import numbered
from captoken.cli.console.trails import (
    Trail,
    Whole,
    beside,
    files_of,
    goes_on_elsewhere,
    head_again,
    identity_of,
    next_lines,
    wholes,
)
from captoken.stores._schema import Schema, SchemaChange
from captoken.stores.ports import Head

VERSION = Schema(
    "index",
    (
        SchemaChange("is made anew"),
        SchemaChange("digests; is made anew"),
        SchemaChange("what files continue; is made anew"),
    ),
)
_REMEMBERED = 50_000  # tokens and hops
_TOGETHER = 20_000  # decisions that are put together at once
_BITS = 62  # of a number of SQLite

_TABLES = """
create table trails (
    id integer primary key, path text unique, source text, identity text,
    offset integer, after_seq integer, after_hash text, seq integer, hash text,
    last_at integer, trouble text
);
create table tasks (
    task text primary key, subject text,
    first_at integer, last_at integer, allowed integer, denied integer
) without rowid;
create table hops (
    id text primary key, parent text, token text, task text, agent text, basis text, depth integer,
    first_at integer, expires_at integer, said text, last text, allowed integer, denied integer,
    trails integer
) without rowid;
create index hops_by_task on hops (task);
create index hops_by_parent on hops (parent);
create table tokens (link text primary key, hop text, through text) without rowid;
create table minutes (
    hop text, minute integer, allowed integer, denied integer, primary key (hop, minute)
) without rowid;
create table calls (
    id integer primary key, trail integer, offset integer, length integer, digest blob,
    moment integer, hop text, task text, allowed integer, trace text
);
create index calls_by_hop on calls (hop, moment);
create index calls_by_task on calls (task, moment);
create index calls_by_time on calls (moment);
create index calls_by_trace on calls (trace, moment) where trace is not null;
create index refused_by_hop on calls (hop, moment) where allowed = 0;
create index refused_by_task on calls (task, moment) where allowed = 0;
create index refused_by_time on calls (moment) where allowed = 0;
create table uses (
    hop text, what blob, trail integer, offset integer, length integer, digest blob,
    primary key (hop, what)
) without rowid;
"""


class Call(NamedTuple):
    """A decision, where its record is, and the digest of that."""

    id: int
    trail: int
    offset: int
    length: int
    digest: bytes
    moment: int
    hop: str | None


_CALL = ", ".join(Call._fields)


class _Place(NamedTuple):
    """Where a record is: of a call that is not yet written, these fields."""

    trail: int
    offset: int
    length: int
    digest: bytes


class _Counted:
    """What some records of one trail add up to, until it is written."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.uses: list[tuple[Any, ...]] = []

        # The counts of each hop: allowed and denied, and the first and the last time.
        self.hops: dict[str, tuple[int, int, int, str]] = {}

        # The counts by hop and minute, and by task: allowed and denied, and the last time.
        self.minutes: dict[tuple[str, int], tuple[int, int]] = {}
        self.tasks: dict[str, tuple[int, int, int]] = {}
        self.proven: set[tuple[str, str]] = set()

    def add(self, hop: str, task: str, at: int, allowed: bool, last: str) -> None:
        """Count a decision."""
        yes, no = int(allowed), int(not allowed)
        before = self.hops.get(hop, (0, 0, at, last))
        self.hops[hop] = (before[0] + yes, before[1] + no, before[2], last)

        minute = self.minutes.get((hop, at // 60), (0, 0))
        self.minutes[hop, at // 60] = (minute[0] + yes, minute[1] + no)

        of_task = self.tasks.get(task, (0, 0, at))
        self.tasks[task] = (of_task[0] + yes, of_task[1] + no, max(of_task[2], at))


class Index:
    """What trails say. Threads share one.

    `path` is where it lies; `:memory:` is as good for a small one. One that is of an earlier
    version, or of other trails, is made anew. Raises StoreError for one that is of a newer version,
    and for a file of something else.
    """

    def __init__(
        self, path: str | os.PathLike[str], trails: Iterable[str | os.PathLike[str]]
    ) -> None:
        self._lock = RLock()
        _make_private(path)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._check_kind(path)
        except BaseException:
            self._db.close()
            raise
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = off")  # it can be made anew
        # Files, folders and patterns, as they were given.
        self._sources = list(dict.fromkeys(str(Path(trail).resolve()) for trail in trails))
        if not self._is_ours():
            self._make()
        # By the id of a file that cannot be read now: why. It is tried again.
        self._out_of_reach: dict[int, str] = {}
        # By the id of a file: what its trail is called, for people.
        self.names: dict[int, str] = {}
        self._find()

        # What was read lately of tokens and hops, so that a decision costs no question.
        self._through: dict[str, tuple[str, list[str]]] = {}
        self._tasks: dict[str, str] = {}
        self._used: dict[tuple[str, bytes], None] = {}
        self._counted = _Counted()
        # Moves on with each change, so that a page can ask whether there is any.
        self.revision = 1

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._db.close()

    def _check_kind(self, path: str | os.PathLike[str]) -> None:
        """Raise StoreError for a file of something else, which is not to be made anew, and for an
        index of a newer version.
        """
        where = f"SQLite {shown_file(os.fspath(path))}"
        tables = "select name from sqlite_master where type = 'table'"
        try:
            names = {name for (name,) in self._db.execute(tables)}
        except sqlite3.DatabaseError:
            names = {"none of ours"}
        if names and "trails" not in names:
            raise StoreError(f"{where}: it holds something else than an index: name another file")
        if names:
            VERSION.missing_steps(where, self._version())

    def _version(self) -> int:
        (version,) = self._db.execute("pragma user_version").fetchone()
        return int(version)

    def _is_ours(self) -> bool:
        """Is it of this version, and of no other sources?"""
        if self._version() != VERSION.version:
            return False
        there = {source for (source,) in self._db.execute("select source from trails")}
        return there <= set(self._sources)

    def _make(self) -> None:
        for (name,) in self._db.execute(
            "select name from sqlite_master where type = 'table'"
        ).fetchall():
            self._db.execute(f'drop table "{name}"')
        self._db.executescript(_TABLES)
        self._db.execute(f"pragma user_version = {VERSION.version}")

    def _find(self) -> None:
        """Take up each file that is new: of a folder or a pattern, or in the place of a trail that
        was rotated.
        """
        known = {value for row in self.rows("select path, identity from trails") for value in row}
        head = Head()
        start = (head.seq, head.hash)
        # One that was renamed a moment ago is no new one.
        rows = [
            (path, source, *start, *start)
            for source in self._sources
            for path in files_of(source)
            if path not in known and (identity_of(path) or path) not in known
        ]
        with self._lock:
            self._db.executemany(
                """
                insert or ignore into trails
                (path, source, offset, after_seq, after_hash, seq, hash)
                values (?, ?, 0, ?, ?, ?, ?)
                """,
                rows,
            )
        if rows or not self.names:
            self._name_all()

    def _name_all(self) -> None:
        self.names = {file.id: one.name for one in self.wholes() for file in one.files}

    # --- reading ----------------------------------------------------------------------------------

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query of ours gives."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def trails(self) -> list[Trail]:
        """The files, and how far each was read."""
        query = """
            select id, path, offset, last_at, identity, trouble, after_seq, after_hash, seq, hash
            from trails order by id
        """
        return [
            Trail(
                id,
                path,
                self.names.get(id, ""),
                offset,
                Head(*heads[:2]),
                Head(*heads[2:]),
                last_at,
                trouble or self._out_of_reach.get(id),
                identity,
            )
            for id, path, offset, last_at, identity, trouble, *heads in self.rows(query)
        ]

    def wholes(self) -> list[Whole]:
        """The trails: files that continue each other are one."""
        return wholes(self.trails())

    def calls(self, condition: str, *values: Any, most: int) -> list[Call]:
        """Decisions, the last first: in the order of their moments, whichever trail they are in."""
        query = f"select {_CALL} from calls where {condition} order by moment desc, id desc limit ?"
        return [Call(*row) for row in self.rows(query, *values, most)]

    def records(self, calls: Iterable[Call]) -> Iterator[dict[str, Any] | None]:
        """Their records as they stand in the trails. None where one is not there any more.

        And where it is not the one that was read: then the trail is marked as well.
        """
        paths = dict(self.rows("select id, path from trails"))
        with ExitStack() as stack:
            files: dict[int, IO[bytes]] = {}
            for call in calls:
                try:
                    file = files.get(call.trail)
                    if file is None:
                        file = files[call.trail] = stack.enter_context(
                            open(paths[call.trail], "rb")
                        )
                    file.seek(call.offset)
                    line = file.read(call.length)
                    if not primitives.equal(_digest(line), call.digest):
                        self._mark(call.trail, _CHANGED)
                        yield None
                        continue
                    yield msgspec.json.decode(line, type=dict[str, Any])
                except (OSError, ValueError):  # msgspec's errors are ValueErrors, too
                    yield None

    def uses_of(self, hops: Sequence[str]) -> analysis.History:
        """What was allowed to some hops, each kind of access once, put together as an audit does.

        Of those that are more than can be put together, some.
        """
        marks = ", ".join("?" * len(hops))
        query = f"""
            select 0, trail, offset, length, digest, 0, hop from uses
            where hop in ({marks}) limit ?
        """
        calls = [Call(*row) for row in self.rows(query, *hops, _TOGETHER)]
        return self._history(hops, calls)

    def history_of(self, hops: Sequence[str]) -> tuple[analysis.History, bool]:
        """The records of some hops, put together as an audit does it: if there are many, the last.

        And whether these are all.
        """
        marks = ", ".join("?" * len(hops))
        calls = self.calls(f"hop in ({marks})", *hops, most=_TOGETHER + 1)
        return self._history(hops, calls[:_TOGETHER]), len(calls) <= _TOGETHER

    def history_between(self, first: int, last: int, most: int) -> tuple[analysis.History, bool]:
        """The records of a time, between two seconds: the last ones, if there are more.

        And whether these are all.
        """
        span = (first * 1000, last * 1000 + 999)
        calls = self.calls("moment between ? and ? and hop is not null", *span, most=most + 1)
        is_all = len(calls) <= most
        del calls[most:]
        hops = list(dict.fromkeys(call.hop for call in calls if call.hop is not None))
        return self._history(hops, calls), is_all

    def _history(self, hops: Sequence[str], calls: Sequence[Call]) -> analysis.History:
        records = [
            json.loads(said)
            for hop in hops
            for (said,) in self.rows("select said from hops where id = ?", hop)
        ]
        last_link = {hop: said["links"][-1]["id"] for hop, said in zip(hops, records, strict=True)}
        in_order = calls[::-1]
        for call, record in zip(in_order, self.records(in_order), strict=True):
            if record is None:
                continue
            # A holder narrows for each call. What it did is the hop's, whose own last link is here.
            if call.hop is not None:
                record["link"] = last_link[call.hop]
            records.append(record)
        return analysis.gather(records)

    def verify(self) -> None:
        """Read again what was read before, of an index that is opened anew or of one that is old.

        Each record names the hash of the one before. So a trail that was changed anywhere ends in
        another head than the one that was kept, and is marked.
        """
        for trail in self._located():
            if trail.trouble is None:
                self._compare(trail)

    def _compare(self, trail: Trail) -> Trail:
        """See that what was read of a trail stands there still, and mark it if not."""
        try:
            is_same = not trail.offset or head_again(trail) == trail.head
        except OSError as error:
            return self._wait(trail, error)
        return trail if is_same else self._end(trail, _CHANGED)

    # --- taking -----------------------------------------------------------------------------------

    def take(self) -> bool:
        """Take what the trails have that is not here. True if there was any."""
        taken = False
        for trail in self._located():
            if trail.id in self._out_of_reach:
                trail = trail._replace(trouble=None)
            while trail.trouble is None:
                after = self._take(trail)
                if after == trail:
                    break
                trail = after
                taken = True
                self.revision += 1
        if taken:
            self._name_all()  # a file may turn out to continue another
        return taken

    def _located(self) -> list[Trail]:
        """The trails, each where its file is now, and those that are new."""
        self._follow()
        self._find()
        return self.trails()

    def _follow(self) -> set[int]:
        """Go after files that were renamed: who rotates begins another one under their names.

        Returns the ids of those whose place changed. Rotating by number renames all at once. A file
        that is nowhere is gone if another trail's file has its name, or one that continues it.
        """
        moved: dict[int, str] = {}
        lost: dict[str, Trail] = {}
        gone: list[Trail] = []
        for trail in self.trails():
            if trail.identity in (None, identity_of(trail.path)):
                continue
            there = (path for path in beside(trail.path) if identity_of(path) == trail.identity)
            path = next(there, None)
            if path is None:
                lost[trail.path] = trail
                if goes_on_elsewhere(trail):
                    gone.append(trail)
            else:
                moved[trail.id] = path
        gone += [lost[path] for path in moved.values() if path in lost]
        if not moved and not gone:
            return set()
        named = moved | {one.id: f"{one.path} (removed, {one.id})" for one in gone}
        query = "update trails set path = ? where id = ?"
        with self._lock:
            self._db.execute("begin immediate")
            self._db.executemany(query, [(None, id) for id in named])
            self._db.executemany(query, [(path, id) for id, path in named.items()])
            self._db.execute("commit")
        self._name_all()
        return set(named)

    def _take(self, trail: Trail) -> Trail:
        """Take some whole lines, in one transaction: all that was read of them, and how far."""
        try:
            lines, identity = next_lines(trail)
        except OSError as error:
            return self._wait(trail, error)
        except AuditError as error:
            # Rotated a moment ago: it is read where it is now, the next time.
            return trail if trail.id in self._follow() else self._end(trail, str(error))
        is_back = self._out_of_reach.pop(trail.id, None) is not None
        self.revision += is_back
        # Another file may be there now.
        is_other = trail.identity not in (None, identity)
        if is_other and trail.id in self._follow():
            return trail
        if is_back or is_other:
            trail = self._compare(trail)
        if trail.trouble is None and is_other:
            trail = trail._replace(identity=identity)
            with self._lock:
                query = "update trails set identity = ? where id = ?"
                self._db.execute(query, (identity, trail.id))
        if not lines or trail.trouble is not None:
            return trail

        with self._lock:
            self._db.execute("begin immediate")
            self._counted = _Counted()
            try:
                after = self._taken(trail._replace(identity=identity), lines)
                self._write(trail)
                self._db.execute("commit")
            except BaseException:
                self._db.execute("rollback")
                self._used.clear()
                raise
        return after

    def _taken(self, trail: Trail, lines: Sequence[bytes]) -> Trail:
        """Put whole lines in, up to one that does not follow, or says nothing that can be read."""
        at = trail.offset
        after = trail.after if at else begins_after(lines[0])
        head = trail.head if at else after
        last_at = trail.last_at
        trouble: str | None = None
        try:
            for line, (record, reached) in zip(lines, numbered(lines, head), strict=True):
                self._add(_Place(trail.id, at, len(line), _digest(line)), record)
                at += len(line)
                head = reached
                last_at = record.get("at", last_at)
        except AuditError as error:
            trouble = str(error)
        except (KeyError, TypeError, ValueError) as error:
            why = own_words(error) if isinstance(error, ValueError) else OF_ANOTHER_SHAPE
            trouble = f"record {head.seq + 1} says nothing that can be read: {why}"

        self._db.execute(
            """
            update trails set offset = ?, after_seq = ?, after_hash = ?, seq = ?, hash = ?,
            last_at = ?, trouble = ?, identity = ? where id = ?
            """,
            (
                at,
                *(after.seq, after.hash),
                *(head.seq, head.hash),
                last_at,
                trouble,
                trail.identity,
                trail.id,
            ),
        )
        return trail._replace(offset=at, after=after, head=head, last_at=last_at, trouble=trouble)

    def _end(self, trail: Trail, trouble: str) -> Trail:
        self._mark(trail.id, trouble)
        return trail._replace(trouble=trouble)

    def _wait(self, trail: Trail, error: OSError) -> Trail:
        """Say that the file is not to be read now: it may be there again the next time."""
        why = f"it cannot be read now ({error.strerror}), and is tried again"
        if self._out_of_reach.get(trail.id) != why:
            self._out_of_reach[trail.id] = why
            self.revision += 1
        return trail

    def _mark(self, trail: int, trouble: str) -> None:
        """Read nothing more of a trail, and say why."""
        with self._lock:
            self._db.execute("update trails set trouble = ? where id = ?", (trouble, trail))
            self.revision += 1

    # --- records ----------------------------------------------------------------------------------

    def _add(self, place: _Place, record: dict[str, Any]) -> None:
        """Count one record. Kinds that are not known here are passed over."""
        kind = record["kind"]
        if kind == "token":
            self._add_token(record)
        elif kind == "decision":
            self._add_decision(place, record)

    def _add_token(self, record: dict[str, Any]) -> None:
        """The hops of a token, as `captoken.audit` groups them.

        Raises AuditError, and adds nothing, where a record before says something else of one of
        them: decisions would be shown as those of another agent.
        """
        (token,) = analysis.gather([record]).tokens.values()
        link = token.link_ids[-1]
        if len(set(token.link_ids)) < len(token.link_ids):
            raise ValueError("one link id for two links")

        # Up to each hop alone: it is the same for all tokens that went through it.
        said_of = {
            hop.id: json.dumps(
                {
                    "kind": "token",
                    "seq": 0,
                    "root": record["root"],
                    "links": record["links"][: len(hop.links)],
                }
            )
            for hop in token.hops
        }
        through = json.dumps([hop.id for hop in token.hops])
        self._must_agree("select said from hops where id = ?", said_of)
        self._must_agree("select through from tokens where link = ?", {link: through})

        self._db.execute(
            "insert or ignore into tokens values (?, ?, ?)", (link, token.hop.id, through)
        )
        task = token.hop.root.task
        self._db.execute(
            "insert or ignore into tasks values (?, ?, ?, ?, 0, 0)",
            (task, token.hop.root.subject, token.hop.root.issued_at, token.hop.root.issued_at),
        )
        for depth, hop in enumerate(token.hops):
            self._db.execute(
                """
                insert or ignore into hops
                values (?, ?, ?, ?, ?, ?, ?, null, ?, ?, null, 0, 0, 0)
                """,
                (
                    hop.id,
                    token.hops[depth - 1].id if depth else None,
                    hop.root.token_id,
                    task,
                    hop.agent,
                    hop.basis,
                    depth,
                    hop.capability.expires_at,
                    said_of[hop.id],
                ),
            )

    def _must_agree(self, query: str, said_of: Mapping[str, str]) -> None:
        """Raise AuditError where what stands is not what a record says. By link id.

        One link id is one link and all above it (spec 6.2): who writes something else lies. Which
        of the two records does, nothing here tells.
        """
        for id, said in said_of.items():
            row = self._db.execute(query, (id,)).fetchone()
            if row is not None and row[0] != said:
                raise AuditError(
                    f"it describes link {id} otherwise than a record that was read before, "
                    "here or in another trail: one of the two is forged"
                )

    def _add_decision(self, place: _Place, record: dict[str, Any]) -> None:
        """A decision, on the hop that it was about, if that is of a token that is described."""
        decided = fit(record, analysis.Decided)
        trace = record.get("trace")
        if trace is not None and not isinstance(trace, str):
            raise ValueError("its trace is no text")
        found = self._found(decided.link)
        hop, through = found if found is not None else (None, [])
        task = self._task(hop)
        moment = decided.at * 1000 + (decided.ms or 0)
        counted = self._counted
        counted.calls.append((*place, moment, hop, task, decided.allowed, trace))
        if hop is None or task is None:
            return

        last = json.dumps({**place._asdict(), "digest": place.digest.hex(), "moment": moment})
        counted.add(hop, task, decided.at, decided.allowed, last)
        if decided.allowed and decided.access is not None:
            self._add_use(hop, place, record["access"])

        # Proven once is proven, as `captoken.audit` has it.
        for actor in decided.chain:
            if actor.basis == "proven":
                counted.proven.update((hop, actor.name) for hop in through)

    def _add_use(self, hop: str, place: _Place, access: Mapping[str, Any]) -> None:
        """Keep the place of an access, the first time that one like it is allowed to the hop."""
        said = {key: value for key, value in access.items() if key != "cost"}
        what = sha256(msgspec.json.encode(said, order="deterministic")).digest()[:16]
        if (hop, what) not in self._used:
            self._used[hop, what] = None
            _bound(self._used)
            self._counted.uses.append((hop, what, *place))

    def _write(self, trail: Trail) -> None:
        """Write what some records of a trail add up to."""
        counted = self._counted
        self._db.executemany(
            """
            insert into calls (trail, offset, length, digest, moment, hop, task, allowed, trace)
            values (?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            counted.calls,
        )
        self._db.executemany("insert or ignore into uses values (?, ?, ?, ?, ?, ?)", counted.uses)

        # Each trail is a bit, as far as there are bits.
        bit = 1 << (trail.id - 1) if trail.id <= _BITS else 0
        self._db.executemany(
            """
            update hops set allowed = allowed + ?, denied = denied + ?,
            first_at = min(coalesce(first_at, ?), ?), trails = trails | ?,
            last = case when coalesce(json_extract(last, '$.moment'), 0)
                <= json_extract(?, '$.moment') then ? else last end
            where id = ?
            """,
            (
                (yes, no, first, first, bit, last, last, hop)
                for hop, (yes, no, first, last) in counted.hops.items()
            ),
        )
        self._db.executemany(
            """
            insert into minutes values (?, ?, ?, ?)
            on conflict do update set allowed = allowed + excluded.allowed,
            denied = denied + excluded.denied
            """,
            ((hop, minute, *counts) for (hop, minute), counts in counted.minutes.items()),
        )
        self._db.executemany(
            """
            update tasks set allowed = allowed + ?, denied = denied + ?, last_at = max(last_at, ?)
            where task = ?
            """,
            ((*counts, task) for task, counts in counted.tasks.items()),
        )
        self._db.executemany(
            "update hops set basis = 'proven' where id = ? and agent = ?", counted.proven
        )

    def _found(self, link: str | None) -> tuple[str, list[str]] | None:
        """The hop of a token, and those that it went through."""
        if link is None:
            return None
        kept = self._through.get(link)
        if kept is None:
            row = self._db.execute(
                "select hop, through from tokens where link = ?", (link,)
            ).fetchone()
            if row is None:
                return None
            kept = self._through[link] = (row[0], json.loads(row[1]))
            _bound(self._through)
        return kept

    def _task(self, hop: str | None) -> str | None:
        """The task of the tree that a hop is of."""
        if hop is None:
            return None
        kept = self._tasks.get(hop)
        if kept is None:
            (kept,) = self._db.execute("select task from hops where id = ?", (hop,)).fetchone()
            self._tasks[hop] = kept
            _bound(self._tasks)
        return kept


_CHANGED = "a record was changed after it was read"


def _digest(line: bytes) -> bytes:
    return sha256(line).digest()[:16]


def _make_private(path: str | os.PathLike[str]) -> None:
    """A new file is for its owner alone, as trails are. One that is there keeps what it has."""
    if os.fspath(path) == ":memory:":
        return
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _bound(kept: dict[Any, Any]) -> None:
    """What is kept of it is not more than this. The oldest goes."""
    if len(kept) > _REMEMBERED:
        del kept[next(iter(kept))]

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
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import msgspec

from captoken._format.errors import AuditError
from captoken.audit import analysis
from captoken.audit._check import numbered
from captoken.stores.ports import Head

VERSION = 1
STEP = 1 << 22  # bytes of a trail that are taken in one transaction
LONGEST = 1 << 26  # bytes of one record
_REMEMBERED = 50_000  # tokens and hops
_TOGETHER = 20_000  # decisions that are put together at once

_TABLES = """
create table trails (
    id integer primary key, path text unique,
    offset integer, seq integer, hash text, last_at integer, trouble text
);
create table tasks (
    task text primary key, subject text,
    first_at integer, last_at integer, allowed integer, denied integer
) without rowid;
create table hops (
    id text primary key, parent text, token text, task text, agent text, basis text, depth integer,
    first_at integer, expires_at integer, said text, last text, allowed integer, denied integer
) without rowid;
create index hops_by_task on hops (task);
create index hops_by_parent on hops (parent);
create table tokens (link text primary key, hop text, through text) without rowid;
create table minutes (
    hop text, minute integer, allowed integer, denied integer, primary key (hop, minute)
) without rowid;
create table calls (
    id integer primary key, trail integer, offset integer, length integer, seq integer,
    at integer, hop text, task text, allowed integer, code text
);
create index calls_by_hop on calls (hop, id);
create index calls_by_task on calls (task, id);
create index calls_by_time on calls (at);
"""


class Trail(NamedTuple):
    """How far a trail was read."""

    id: int
    path: str
    offset: int
    head: Head
    last_at: int | None

    # Why nothing more is read of it.
    trouble: str | None


class Index:
    """What trails say. Threads share one.

    `path` is where it lies; `:memory:` is as good for a small one. One that is of another version,
    or of other trails, is made anew.
    """

    def __init__(
        self, path: str | os.PathLike[str], trails: Iterable[str | os.PathLike[str]]
    ) -> None:
        self._lock = RLock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = off")  # it can be made anew
        wanted = [str(Path(trail).resolve()) for trail in trails]
        if not self._is_ours(wanted):
            self._make(wanted)

        # What was read lately of tokens and hops, so that a decision costs no question.
        self._through: dict[str, tuple[str, list[str]]] = {}
        self._tasks: dict[str, str] = {}
        # Moves on with each change, so that a page can ask whether there is any.
        self.revision = 1

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._db.close()

    def _is_ours(self, wanted: Sequence[str]) -> bool:
        (version,) = self._db.execute("pragma user_version").fetchone()
        if version != VERSION:
            return False
        there = [path for (path,) in self._db.execute("select path from trails order by id")]
        return there == list(wanted)

    def _make(self, wanted: Iterable[str]) -> None:
        for (name,) in self._db.execute(
            "select name from sqlite_master where type = 'table'"
        ).fetchall():
            self._db.execute(f'drop table "{name}"')
        self._db.executescript(_TABLES)
        rows = [(path, Head().seq, Head().hash) for path in wanted]
        self._db.executemany(
            "insert into trails (path, offset, seq, hash) values (?, 0, ?, ?)", rows
        )
        self._db.execute(f"pragma user_version = {VERSION}")

    # --- reading ----------------------------------------------------------------------------------

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query of ours gives."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def trails(self) -> list[Trail]:
        """The trails, and how far each was read."""
        query = "select id, path, offset, seq, hash, last_at, trouble from trails order by id"
        return [
            Trail(id, path, offset, Head(seq, hash), last_at, trouble)
            for id, path, offset, seq, hash, last_at, trouble in self.rows(query)
        ]

    def record(self, trail: int, offset: int, length: int) -> dict[str, Any]:
        """A record as it stands in its trail. Raises OSError, or ValueError where it is gone."""
        ((path,),) = self.rows("select path from trails where id = ?", trail)
        with open(path, "rb") as file:
            file.seek(offset)
            found: dict[str, Any] = json.loads(file.read(length))
        return found

    def history_of(self, hops: Sequence[str]) -> analysis.History:
        """The records of some hops, put together as an audit does it: if there are many, the last.

        Raises OSError and ValueError where the trail is not what it was.
        """
        marks = ", ".join("?" * len(hops))
        calls = self.rows(
            f"""
            select trail, offset, length from calls where hop in ({marks})
            order by id desc limit {_TOGETHER}
            """,
            *hops,
        )
        return self._history(hops, calls)

    def history_between(self, first: int, last: int, most: int) -> analysis.History:
        """The records of a time: the last ones, if there are more."""
        calls = self.rows(
            """
            select trail, offset, length, hop from calls
            where at between ? and ? and hop is not null order by id desc limit ?
            """,
            first,
            last,
            most,
        )
        hops = list(dict.fromkeys(hop for *_, hop in calls))
        return self._history(hops, [place for *place, _ in calls])

    def _history(self, hops: Sequence[str], calls: Iterable[Sequence[int]]) -> analysis.History:
        records = [
            json.loads(said)
            for hop in hops
            for (said,) in self.rows("select said from hops where id = ?", hop)
        ]
        last_link = {hop: said["links"][-1]["id"] for hop, said in zip(hops, records, strict=True)}
        for trail, offset, length in reversed(list(calls)):
            record = self.record(trail, offset, length)
            # A holder narrows for each call. What it did is the hop's, whose own last link is here.
            found = self._found(record.get("link"))
            if found is not None:
                record["link"] = last_link[found[0]]
            records.append(record)
        return analysis.gather(records)

    # --- taking -----------------------------------------------------------------------------------

    def take(self) -> bool:
        """Take what the trails have that is not here. True if there was any."""
        taken = False
        for trail in self.trails():
            while trail.trouble is None:
                after = self._take(trail)
                if after == trail:
                    break
                trail = after
                taken = True
        if taken:
            self.revision += 1
        return taken

    def _take(self, trail: Trail) -> Trail:
        """Take some whole lines, in one transaction: all that was read of them, and how far."""
        try:
            lines = _lines(trail)
        except (OSError, AuditError) as error:
            return self._end(trail, str(error))
        if not lines:
            return trail

        with self._lock:
            self._db.execute("begin immediate")
            try:
                after = self._taken(trail, lines)
                self._db.execute("commit")
            except BaseException:
                self._db.execute("rollback")
                raise
        return after

    def _taken(self, trail: Trail, lines: Sequence[bytes]) -> Trail:
        """Put whole lines in, up to one that does not follow, or says nothing that can be read."""
        at = trail.offset
        head = trail.head
        last_at = trail.last_at
        trouble: str | None = None
        try:
            for line, (record, reached) in zip(lines, numbered(lines, head), strict=True):
                self._add(trail.id, at, len(line), record)
                at += len(line)
                head = reached
                last_at = record.get("at", last_at)
        except AuditError as error:
            trouble = str(error)
        except (KeyError, TypeError, ValueError) as error:
            trouble = f"record {head.seq + 1} says nothing that can be read: {error}"

        self._db.execute(
            """
            update trails set offset = ?, seq = ?, hash = ?, last_at = ?, trouble = ? where id = ?
            """,
            (at, head.seq, head.hash, last_at, trouble, trail.id),
        )
        return trail._replace(offset=at, head=head, last_at=last_at, trouble=trouble)

    def _end(self, trail: Trail, trouble: str) -> Trail:
        with self._lock:
            self._db.execute("update trails set trouble = ? where id = ?", (trouble, trail.id))
        return trail._replace(trouble=trouble)

    # --- records ----------------------------------------------------------------------------------

    def _add(self, trail: int, at: int, length: int, record: dict[str, Any]) -> None:
        """Count one record. Kinds that are not known here are passed over."""
        kind = record["kind"]
        if kind == "token":
            self._add_token(record)
        elif kind == "decision":
            self._add_decision(trail, at, length, record)

    def _add_token(self, record: dict[str, Any]) -> None:
        """The hops of a token, as `captoken.audit` groups them."""
        (token,) = analysis.gather([record]).tokens.values()
        link = token.link_ids[-1]
        through = [hop.id for hop in token.hops]
        self._db.execute(
            "insert or ignore into tokens values (?, ?, ?)",
            (link, token.hop.id, json.dumps(through)),
        )
        task = token.hop.root.task
        self._db.execute(
            "insert or ignore into tasks values (?, ?, ?, ?, 0, 0)",
            (task, token.hop.root.subject, token.hop.root.issued_at, token.hop.root.issued_at),
        )
        for depth, hop in enumerate(token.hops):
            # Up to this hop alone: it is the same for all tokens that went through it.
            said = {
                "kind": "token",
                "seq": 0,
                "root": record["root"],
                "links": record["links"][: len(hop.links)],
            }
            self._db.execute(
                """
                insert or ignore into hops values (?, ?, ?, ?, ?, ?, ?, null, ?, ?, null, 0, 0)
                """,
                (
                    hop.id,
                    through[depth - 1] if depth else None,
                    hop.root.token_id,
                    task,
                    hop.agent,
                    hop.basis,
                    depth,
                    hop.capability.expires_at,
                    json.dumps(said),
                ),
            )

    def _add_decision(self, trail: int, at: int, length: int, record: dict[str, Any]) -> None:
        """A decision, on the hop that it was about, if that is of a token that is described."""
        decided = msgspec.convert(record, analysis.Decided)
        found = self._found(decided.link)
        hop, through = found if found is not None else (None, [])
        task = self._task(hop)
        self._db.execute(
            """
            insert into calls (trail, offset, length, seq, at, hop, task, allowed, code)
            values (?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (trail, at, length, decided.seq, decided.at, hop, task, decided.allowed, decided.code),
        )
        if hop is None:
            return

        counts = (int(decided.allowed), int(not decided.allowed))
        last = json.dumps({"at": decided.at, "trail": trail, "offset": at, "length": length})
        self._db.execute(
            """
            update hops set allowed = allowed + ?, denied = denied + ?, last = ?,
            first_at = coalesce(first_at, ?) where id = ?
            """,
            (*counts, last, decided.at, hop),
        )
        self._db.execute(
            """
            insert into minutes values (?, ?, ?, ?)
            on conflict do update set allowed = allowed + ?, denied = denied + ?
            """,
            (hop, decided.at // 60, *counts, *counts),
        )
        self._db.execute(
            """
            update tasks set allowed = allowed + ?, denied = denied + ?, last_at = max(last_at, ?)
            where task = ?
            """,
            (*counts, decided.at, task),
        )

        # Proven once is proven, as `captoken.audit` has it.
        proven = {actor.name for actor in decided.chain if actor.basis == "proven"}
        if proven:
            marks = ", ".join("?" * len(through))
            names = ", ".join("?" * len(proven))
            self._db.execute(
                f"update hops set basis = 'proven' where id in ({marks}) and agent in ({names})",
                (*through, *proven),
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


def _lines(trail: Trail) -> list[bytes]:
    """The next whole lines of a trail: what is still being written is left for the next time.

    Raises OSError, and AuditError for a file that is not what it was.
    """
    with open(trail.path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < trail.offset:
            raise AuditError("the file is shorter than it was: it was cut, or is another one")
        file.seek(trail.offset)
        data = file.read(STEP)
        while data and b"\n" not in data:
            more = file.read(STEP)
            if len(data) > LONGEST:
                raise AuditError(f"a line of more than {LONGEST} bytes")
            if not more:
                return []
            data += more
    whole = data[: data.rfind(b"\n") + 1]
    # By the line feed alone: `splitlines` knows other ends of lines.
    return [line + b"\n" for line in whole.split(b"\n")[:-1]]


def _bound(kept: dict[str, Any]) -> None:
    """What is kept of it is not more than this. The oldest goes."""
    if len(kept) > _REMEMBERED:
        del kept[next(iter(kept))]

"""Records of a trail, counted: what they add up to is written at once, when all of them are known.

    counting = Counting(tables, remembered)
    counting.add(place, record)            # of each record
    counting.write(trail.id)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, TypeAlias, TypeVar

import msgspec

from captoken._format.errors import AuditError
from captoken._format.shapes import fit
from captoken.audit import analysis
from captoken.audit.analysis import FORBIDDEN
from captoken.cli.console.tables import Place, Row, Tables

_REMEMBERED = 50_000  # tokens and hops
_BITS = 62  # of a number of SQLite
HOUR = 3_600_000  # milliseconds

# What is asked for: table, operation, tool; the answer: its code, and whether it allowed it; and in
# which trail that stands.
_What: TypeAlias = tuple[str, str, str, str, bool, int]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Remembered:
    """What was read lately of tokens and hops, so that a decision costs no question."""

    def __init__(self) -> None:
        # By link: the hop of a token, those that it went through, and their task.
        self.found: dict[str, tuple[str, list[str], str]] = {}
        self.used: dict[tuple[str, bytes], None] = {}

        # The ids of kinds of decisions.
        self.whats: dict[_What, int] = {}


class Counting:
    """What some records of one trail add up to, until it is written."""

    def __init__(self, tables: Tables, remembered: Remembered) -> None:
        self._tables = tables
        self._remembered = remembered
        self._calls: list[Row] = []
        self._uses: list[Row] = []
        self._closed: list[Row] = []

        # By subject, task, name and whose it is: when a mark was set first, and where that stands.
        self._marks: dict[tuple[str, str, str, str], tuple[int, Place]] = {}

        # The counts of each hop: allowed and denied, and the first and the last time.
        self._hops: dict[str, tuple[int, int, int, str]] = {}

        # The counts by hop and minute, and by task: allowed and denied, and the last time.
        self._minutes: dict[tuple[str, int], tuple[int, int]] = {}
        self._tasks: dict[str, tuple[int, int, int]] = {}
        self._proven: set[tuple[str, str]] = set()

        # Decisions by kind, hop and hour. Those that are about no hop have an empty one.
        self._tallies: dict[tuple[int, str, int], int] = {}

    def add(self, place: Place, record: dict[str, Any]) -> None:
        """Count one record. Kinds that are not known here are passed over."""
        if record["kind"] == "token":
            self._add_token(place, record)
        elif record["kind"] == "decision":
            self._add_decision(place, record)

    def _add_token(self, place: Place, record: dict[str, Any]) -> None:
        """The hops of a token, as `captoken.audit` groups them.

        Raises AuditError, and adds nothing, where a record before says something else of one of
        them: decisions would be shown as those of another agent.
        """
        (token,) = analysis.gather([record]).tokens.values()
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
        link, root = token.link_ids[-1], token.hop.root
        through = json.dumps([hop.id for hop in token.hops])
        self._must_agree("select said from hops where id = ?", said_of)
        self._must_agree("select through from tokens where link = ?", {link: through})

        run = self._tables.run
        links = json.dumps(token.link_ids)
        run(
            "insert or ignore into tokens values (?, ?, ?, ?, ?, ?, ?, ?)",
            *(link, token.hop.id, through, links, *place),
        )
        begun = (root.issued_at, root.issued_at)
        run(
            "insert or ignore into tasks values (?, ?, ?, ?, 0, 0)", root.task, root.subject, *begun
        )
        for depth, hop in enumerate(token.hops):
            run(
                """
                insert or ignore into hops
                values (?, ?, ?, ?, ?, ?, ?, null, ?, ?, null, 0, 0, 0)
                """,
                hop.id,
                token.hops[depth - 1].id if depth else None,
                root.token_id,
                root.task,
                hop.agent,
                hop.basis,
                depth,
                hop.capability.expires_at,
                said_of[hop.id],
            )

    def _must_agree(self, query: str, said_of: Mapping[str, str]) -> None:
        """Raise AuditError where what stands is not what a record says. By link id.

        One link id is one link and all above it (spec 6.2): who writes something else lies. Which
        of the two records does, nothing here tells.
        """
        for id, said in said_of.items():
            if self._tables.run(query, id) not in ([], [(said,)]):
                raise AuditError(
                    f"it describes link {id} otherwise than a record that was read before, "
                    "here or in another trail: one of the two is forged"
                )

    def _add_decision(self, place: Place, record: dict[str, Any]) -> None:
        """A decision, on the hop that it was about, if that is of a token that is described."""
        decided = fit(record, analysis.Decided)
        trace = record.get("trace")
        if trace is not None and not isinstance(trace, str):
            raise ValueError("its trace is no text")
        found = None if decided.link is None else self._found(decided.link)
        hop, through, task = found or (None, (), None)
        moment = decided.moment
        what = self._what(decided, place.trail)
        self._calls.append((*place, moment, hop, task, decided.allowed, trace, what))
        tally = (what, hop or "", moment // HOUR)
        self._tallies[tally] = self._tallies.get(tally, 0) + 1
        if hop is None or task is None:
            return

        last = json.dumps({**place._asdict(), "digest": place.digest.hex(), "moment": moment})
        self._count(hop, task, decided, last)
        if decided.allowed and decided.access is not None:
            self._add_use(hop, place, record["access"])

        if decided.marks or decided.code == FORBIDDEN:
            self._add_marks(task, place, moment, decided, str(record.get("sub")))

        # Proven once is proven, as `captoken.audit` has it.
        proven = {actor.name for actor in decided.chain if actor.basis == "proven"}
        self._proven.update((one, name) for one in through for name in proven)

    def _what(self, decided: analysis.Decided, trail: int) -> int:
        """The id of its kind."""
        access = decided.access or analysis.Accessed()
        asked = (access.table or "", access.operation or "", access.tool or "")
        what = (*asked, decided.code, decided.allowed, trail)
        kept = self._remembered.whats.get(what)
        if kept is None:
            run = self._tables.run
            columns = "data, operation, tool, code, allowed, trail"
            values = ", ".join("?" * len(what))
            run(f"insert or ignore into whats ({columns}) values ({values})", *what)
            ((id,),) = run(f"select id from whats where ({columns}) = ({values})", *what)
            kept = _keep(self._remembered.whats, what, int(id))
        return kept

    def _count(self, hop: str, task: str, decided: analysis.Decided, last: str) -> None:
        """Count a decision by its hop, its minute and its task: by its moment, as all else is."""
        at, yes, no = decided.moment // 1000, int(decided.allowed), int(not decided.allowed)
        allowed, denied, first, _ = self._hops.get(hop, (0, 0, at, last))
        self._hops[hop] = (allowed + yes, denied + no, first, last)

        allowed, denied = self._minutes.get((hop, at // 60), (0, 0))
        self._minutes[hop, at // 60] = (allowed + yes, denied + no)

        allowed, denied, latest = self._tasks.get(task, (0, 0, at))
        self._tasks[task] = (allowed + yes, denied + no, max(latest, at))

    def _add_use(self, hop: str, place: Place, access: Mapping[str, Any]) -> None:
        """Keep the place of an access, the first time that one like it is allowed to the hop."""
        said = {key: value for key, value in access.items() if key != "cost"}
        what = sha256(msgspec.json.encode(said, order="deterministic")).digest()[:16]
        if (hop, what) not in self._remembered.used:
            _keep(self._remembered.used, (hop, what), None)
            self._uses.append((hop, what, *place))

    def _add_marks(
        self, task: str, place: Place, moment: int, decided: analysis.Decided, subject: str
    ) -> None:
        """Keep the place of what set a mark first, and of each denial for want of unset ones."""
        of_task = (subject, analysis.shares_marks(task))
        if not decided.allowed:
            self._closed.append((*of_task, moment, *place))
            return
        link_ids: list[str] = []
        for (links,) in self._tables.run("select links from tokens where link = ?", decided.link):
            link_ids = json.loads(links)
        for said in decided.marks:
            key = (*of_task, said.name, analysis.whose_mark(link_ids, said))
            first = self._marks.get(key)
            if first is None or moment < first[0]:
                self._marks[key] = (moment, place)

    def _found(self, link: str) -> tuple[str, list[str], str] | None:
        """The hop of a token, those that it went through, and its task."""
        kept = self._remembered.found.get(link)
        if kept is None:
            query = """
                select hop, through, task from tokens join hops on hops.id = hop where link = ?
            """
            for hop, through, task in self._tables.run(query, link):
                kept = _keep(self._remembered.found, link, (hop, json.loads(through), task))
        return kept

    def write(self, trail: int) -> None:
        """Write what they add up to."""
        run_each = self._tables.run_each
        run_each(
            """
            insert into calls
            (trail, offset, length, digest, moment, hop, task, allowed, trace, what)
            values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            self._calls,
        )
        run_each(
            """
            insert into tallies values (?, ?, ?, ?)
            on conflict do update set calls = calls + excluded.calls
            """,
            ((*which, calls) for which, calls in self._tallies.items()),
        )
        run_each("insert or ignore into uses values (?, ?, ?, ?, ?, ?)", self._uses)
        run_each("insert into closed values (?, ?, ?, ?, ?, ?, ?)", self._closed)
        run_each(
            """
            insert into marks values (?, ?, ?, ?, ?, ?, ?, ?, ?)
            on conflict do update set moment = excluded.moment, trail = excluded.trail,
            offset = excluded.offset, length = excluded.length, digest = excluded.digest
            where excluded.moment < moment
            """,
            ((*key, moment, *place) for key, (moment, place) in self._marks.items()),
        )

        # Each trail is a bit, as far as there are bits.
        bit = 1 << (trail - 1) if trail <= _BITS else 0
        run_each(
            """
            update hops set allowed = allowed + ?, denied = denied + ?,
            first_at = min(coalesce(first_at, ?), ?), trails = trails | ?,
            last = case when coalesce(json_extract(last, '$.moment'), 0)
                <= json_extract(?, '$.moment') then ? else last end
            where id = ?
            """,
            (
                (yes, no, first, first, bit, last, last, hop)
                for hop, (yes, no, first, last) in self._hops.items()
            ),
        )
        run_each(
            """
            insert into minutes values (?, ?, ?, ?)
            on conflict do update set allowed = allowed + excluded.allowed,
            denied = denied + excluded.denied
            """,
            ((*which, *counts) for which, counts in self._minutes.items()),
        )
        run_each(
            """
            update tasks set allowed = allowed + ?, denied = denied + ?, last_at = max(last_at, ?)
            where task = ?
            """,
            ((*counts, task) for task, counts in self._tasks.items()),
        )
        run_each("update hops set basis = 'proven' where id = ? and agent = ?", self._proven)


def _keep(kept: dict[_Key, _Value], key: _Key, value: _Value) -> _Value:
    """Keep one more, of which there are not more than so many. The oldest goes."""
    kept[key] = value
    if len(kept) > _REMEMBERED:
        del kept[next(iter(kept))]
    return value

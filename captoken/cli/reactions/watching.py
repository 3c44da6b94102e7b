"""Trails, followed: windows of what was counted, and the causes that come of it.

    reactor = Reactor("react.db", ["trail.jsonl"], rules, clock)
    reactor.take()
    for cause in reactor.due(): ...

All of it lies in one SQLite file: how far each trail was read, windows, and causes. A batch of
records changes them in one transaction. So whoever is stopped in the middle goes on where it was:
no record is counted twice, and none is left out.

Bounded, however many records there are: windows that nobody adds to are dropped, of tokens the
last million is known, and of one rule only so many causes an hour are kept.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

import msgspec

from captoken._format import primitives
from captoken._format.clocks import CLOCKS_DIFFER
from captoken._format.encoding import b64encode
from captoken._format.errors import AuditError, StoreError
from captoken._format.shapes import fit
from captoken._format.spelling import shown_file
from captoken.cli.console.following import Follower
from captoken.cli.console.tables import TRAILS, Layout, Place, Tables
from captoken.cli.console.trails import Trail
from captoken.cli.reactions.rules import Known, Rule, Seen, Window, is_more_than_usual
from captoken.cli.reactions.stated import LONGEST, Rules
from captoken.stores._schema import Schema
from captoken.stores.levels import level_of

HOUR: Final = 3600

# What a cause does that makes an entry.
ACTS: Final = ("revoke", "narrow", "end")

# Seconds that a record may be old for a rule to act. An entry that was lifted keeps its id for a
# day: what is older could be acted on again.
LATE: Final = 12 * HOUR

_KEPT = 8 * 24 * HOUR  # seconds that causes are kept
_WINDOWS = 100_000  # that are in memory
_TOKENS = 50_000  # likewise
_MOST_TOKENS = 1_000_000  # that are known at all

_LAYOUT = Layout(
    Schema("reactions", ()),
    f"""
    {TRAILS}
    create table windows (
        rule text, key text, last integer, said blob, primary key (rule, key)
    ) without rowid;
    create index windows_by_last on windows (last);
    create table tokens (id integer primary key, link text unique, hop text, task text);
    create table causes (
        id text primary key, rule text, does text, state text, made integer, seen integer,
        said blob
    ) without rowid;
    create index causes_by_state on causes (state, seen);
    create index causes_by_rule on causes (rule, made);
    create table told (
        cause text, name text, state text, primary key (cause, name)
    ) without rowid;
    create index told_by_state on told (state);
    create table levels (task text primary key, level text, why text, at integer) without rowid;
    """,
    "what reactions keep",
    is_derived=False,
)


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why something is done, or somebody told.

    `does` is what a rule does: revoke, narrow, end or alert; or `most`, where a rule has done so
    much that it only tells; or `trail`, where something is wrong with a trail.
    """

    id: str
    rule: str
    does: str
    why: str
    at: int  # of the record, in seconds since the epoch
    trail: str
    seq: int = 0
    count: int = 0
    select: dict[str, str] = {}
    agent: str = ""
    task: str = ""
    alert: tuple[str, ...] = ()


class Standing(NamedTuple):
    """A cause, what became of it, and when it was seen."""

    cause: Cause
    state: str
    seen: int


class Level(NamedTuple):
    """How dangerous it is, for a task or for all: ''."""

    task: str
    level: str
    why: str
    at: int


def levels(path: str) -> list[Level]:
    """Those that were set, in the file of a reactor. Raises StoreError."""
    with closing(Tables(path, (), _LAYOUT)) as tables:
        return [Level(*row) for row in tables.run("select * from levels order by task")]


def recent_alerts(path: str, since: int, most: int) -> list[Standing]:
    """Causes that were only told of, or that are still to be acted on: the last, of those that were
    seen since then. Raises StoreError.
    """
    query = """
        select said, state, seen from causes
        where seen >= ? and (does not in ('revoke', 'narrow', 'end') or state = 'due')
        order by made desc, id limit ?
    """
    with closing(Tables(path, (), _LAYOUT)) as tables:
        return [
            Standing(msgspec.json.decode(said, type=Cause), state, seen)
            for said, state, seen in tables.run(query, since, most)
        ]


def set_level(
    path: str, task: str, level: str, why: str, at: int, *, if_younger: bool = False
) -> bool:
    """Set one, and say whether it is set. Low again is low. Raises StoreError.

    `if_younger`: only where it is younger than what is set. The time of a level never goes back.
    """
    query = """
        insert into levels values (?1, ?2, ?3, ?4)
        on conflict (task) do update set level = ?2, why = ?3, at = max(at, ?4)
        where ?4 > at or not ?5
        returning 1
    """
    with closing(Tables(path, (), _LAYOUT)) as tables:
        return bool(tables.run(query, task, level, why, at, if_younger))


@contextmanager
def alone(path: str) -> Generator[None]:
    """A block in which no other reactor has the file: two would count each record twice.

    By a file beside it, since a lock of the file itself is SQLite's. It is given up with the
    process, however that ends. Raises StoreError where another process has it.
    """
    # Here, since the console is for systems without it, too.
    from captoken.stores._posix import fcntl

    with open(f"{path}.lock", "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            where = shown_file(path)
            raise StoreError(f"{where}: another `captoken react run` has it, at work now") from None
        yield


class Reactor(Follower):
    """Follows trails, and keeps what comes of them. One thread takes; others may ask.

    `clock` gives the seconds since the epoch. None is for a replay: then no record is late.
    """

    _layout: ClassVar[Layout] = _LAYOUT

    def __init__(
        self,
        path: str | os.PathLike[str],
        trails: Iterable[str | os.PathLike[str]],
        rules: Rules,
        clock: Callable[[], float] | None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """`after` is called behind each batch: what is due is done before more is read."""
        self.rules_of = rules
        self._clock = clock
        self._after = after
        self._windows: OrderedDict[tuple[str, str], Window] = OrderedDict()
        self._tokens: OrderedDict[str, Known] = OrderedDict()
        self._levels: dict[str, str] = {}
        self._ahead: dict[int, int] = {}
        super().__init__(path, trails)
        self.rows("pragma synchronous = normal")
        if os.fspath(path) != ":memory:":
            sources = msgspec.json.encode(self._sources).decode()
            self.rows(
                "delete from trails where source not in (select value from json_each(?))", sources
            )

    @property
    def now(self) -> int | None:
        """The time; None in a replay."""
        return None if self._clock is None else int(self._clock())

    def _batch(self) -> _Counting:
        self._levels = dict(self.rows("select task, level from levels"))
        return _Counting(self, self.now)

    def _forget(self) -> None:
        self._windows.clear()
        self._tokens.clear()

    def _written(self) -> None:
        self._after()

    # --- what is remembered -----------------------------------------------------------------------

    def window(self, rule: str, key: str) -> Window:
        """What a rule has counted for this key, to be changed."""
        window = self._windows.get((rule, key))
        if window is None:
            query = "select said from windows where rule = ? and key = ?"
            found = self.rows(query, rule, key)
            window = msgspec.json.decode(found[0][0], type=Window) if found else Window()
            self._windows[rule, key] = window
            if len(self._windows) > _WINDOWS:
                self.keep([self._windows.popitem(last=False)])
        else:
            self._windows.move_to_end((rule, key))
        return window

    def keep(self, windows: Iterable[tuple[tuple[str, str], Window]]) -> None:
        """Write windows into the file."""
        self._tables.run_each(
            "insert or replace into windows values (?, ?, ?, ?)",
            (
                (rule, key, window.last, msgspec.json.encode(window))
                for (rule, key), window in windows
            ),
        )

    def known(self, link: str) -> Known | None:
        """What is known of the token with this last link."""
        known = self._tokens.get(link)
        if known is None:
            for hop, task in self.rows("select hop, task from tokens where link = ?", link):
                known = _keep(self._tokens, link, Known(hop, task))
        return known

    def describe(self, link: str, known: Known, here: Known | None = None) -> bool:
        """Keep what a record says of a token. True if it is new. `here` is not written yet.

        Raises AuditError where it says something else than a record before: one of the two lies,
        and what one server writes must not decide on whom the records of another fall.
        """
        before = here or self.known(link)
        if before is None:
            _keep(self._tokens, link, known)
            return True
        if before != known:
            raise AuditError(
                f"it describes link {link} otherwise than a record that was read before, "
                "here or in another trail: one of the two is forged"
            )
        return False

    def level(self, task: str) -> str:
        """How dangerous it is now, for a task."""
        return level_of(self._levels.get, task)

    # --- causes -----------------------------------------------------------------------------------

    def add(self, cause: Cause, moment: int, state: str = "due") -> None:
        """Keep a cause, once, and whom to tell of it."""
        seen = moment // 1000 if self.now is None else self.now
        before = self.rows("select 1 from causes where id = ?", cause.id)
        if before:
            return
        said = msgspec.json.encode(cause)
        values = (cause.id, cause.rule, cause.does, state, moment, seen, said)
        self.rows("insert into causes values (?, ?, ?, ?, ?, ?, ?)", *values)
        self._tables.run_each(
            "insert into told values (?, ?, 'due')", ((cause.id, name) for name in cause.alert)
        )

    def acted(self, rule: Rule, moment: int) -> int:
        """How often a rule had a cause in the hour before; or all that act, as one."""
        since = moment - HOUR * 1000
        if rule.acts:
            query = """
                select count(*) from causes
                where does in ('revoke', 'narrow', 'end') and made > ? and made <= ?
            """
            return int(self.rows(query, since, moment)[0][0])
        query = """
            select count(*) from causes
            where rule = ? and does = 'alert' and made > ? and made <= ?
        """
        return int(self.rows(query, rule.name, since, moment)[0][0])

    def due(self) -> list[Cause]:
        """Those that something is still to be done about, in order."""
        return [one.cause for one in self.causes("due")]

    def causes(self, state: str | None = None) -> list[Standing]:
        """Causes, the oldest first: all, or those that are so far."""
        query = """
            select said, state, seen from causes where ?1 is null or state = ?1 order by made, id
        """
        return [
            Standing(msgspec.json.decode(said, type=Cause), state, seen)
            for said, state, seen in self.rows(query, state)
        ]

    def done(self, cause: Cause, state: str) -> None:
        """Note what became of a cause."""
        self.rows("update causes set state = ? where id = ?", state, cause.id)

    def next_alert(self) -> tuple[Cause, str, str] | None:
        """An alert that is to be told: its cause, the cause's state, and whom. Taken once.

        Noted before it is told, so that nobody is told twice.
        """
        query = """
            select said, causes.state, name from told join causes on causes.id = cause
            where told.state = 'due' and causes.state <> 'due' order by made limit 1
        """
        for said, state, name in self.rows(query):
            cause = msgspec.json.decode(said, type=Cause)
            self.note(cause, name, "begun")
            return cause, state, name
        return None

    def note(self, cause: Cause, name: str, state: str) -> None:
        """Note what became of an alert."""
        self.rows("update told set state = ? where cause = ? and name = ?", state, cause.id, name)

    # --- what is wrong with trails ----------------------------------------------------------------

    def look_after(self) -> None:
        """Make a cause of each trail that is in trouble, or at which nothing happens any more."""
        now = self.now
        for trail in self.trails():
            if trail.trouble is not None:
                self._complain(trail, trail.trouble, trail.head.hash)
            ahead = self._ahead.get(trail.id)
            if ahead is not None:
                self._complain(trail, "its clock is ahead: such records count for nothing", "ahead")
            stalls, last = self.rules_of.stalls, trail.last_at
            if None not in (now, stalls, last) and (now or 0) - (last or 0) > (stalls or 0):
                self._complain(trail, f"no record for more than {stalls} s", trail.head.hash)

    def _complain(self, trail: Trail, why: str, once: str) -> None:
        """Tell of a trail, once for the same thing at the same place."""
        said = "\0".join(("trail", trail.path, why, once)).encode()
        cause = Cause(
            id=b64encode(primitives.sha256(primitives.label("react") + said)[:16]),
            rule="",
            does="trail",
            why=f"{trail.name or trail.path}: {why}",
            at=self.now or 0,
            trail=trail.path,
            alert=self.rules_of.alert,
        )
        self.add(cause, (self.now or 0) * 1000, "told")

    def drop_old(self) -> None:
        """Drop what nobody asks about any more."""
        now = self.now
        if now is None:
            return
        with self._tables.writing():
            self.rows("delete from windows where last < ?", (now - LONGEST) * 1000)
            self.rows("delete from causes where seen < ? and state <> 'due'", now - _KEPT)
            self.rows("delete from told where cause not in (select id from causes)")
            oldest = "delete from tokens where id <= (select max(id) from tokens) - ?"
            self.rows(oldest, _MOST_TOKENS)
            self._windows.clear()

    def is_ahead(self, trail: int, at: int) -> None:
        """Note a record from the future."""
        self._ahead[trail] = at


class _Counting:
    """What some records of one trail come to, until it is written."""

    def __init__(self, reactor: Reactor, now: int | None) -> None:
        self._reactor = reactor
        self._now = now
        self._rules: Sequence[Rule] = reactor.rules_of.rules
        self._touched: dict[tuple[str, str], Window] = {}
        self._described: dict[str, Known] = {}

    def add(self, place: Place, record: dict[str, Any]) -> None:
        """Take one record. Kinds that are not known here are passed over."""
        kind = record["kind"]
        if kind == "token":
            self._describe(record)
        elif kind == "decision" and "token" in record:  # of a genuine token alone
            self._count(place, fit(record, Seen))

    def _describe(self, record: dict[str, Any]) -> None:
        """Which hand-over a token came by last, and in which task it was issued."""
        links, root = record["links"], record["root"]
        hop = links[0]["id"]
        for link in links:
            if "to" in link["says"]:
                hop = link["id"]
        last, task = links[-1]["id"], root["task"]
        if not all(type(each) is str for each in (hop, last, task)):
            raise ValueError("a token without ids")
        known = Known(hop, task)
        if self._reactor.describe(last, known, self._described.get(last)):
            self._described[last] = known

    def _count(self, place: Place, seen: Seen) -> None:
        reactor = self._reactor
        if self._now is not None and seen.at > self._now + CLOCKS_DIFFER:
            reactor.is_ahead(place.trail, seen.at)
            return
        link = seen.link or ""
        known = self._described.get(link) or reactor.known(link)
        if known is None:  # described before the trail begins: this very token, then
            known = Known(link, seen.task)
        moment = seen.at * 1000 + seen.ms
        for rule in self._rules:
            level = "low" if rule.level is None else reactor.level(known.task)
            if rule.counts(seen, level):
                self._cross(rule, place, seen, known, moment)

    def _cross(self, rule: Rule, place: Place, seen: Seen, known: Known, moment: int) -> None:
        """Count a record of a rule; and where the rule is crossed, keep the cause."""
        select = rule.select(seen, known)
        if not select:
            return
        window = self._window(rule, "\0".join(select.values()))
        if rule.usual is None:
            if not window.reached(rule, moment, place.digest):
                return
            count = rule.count
        else:
            usual = self._window(rule, f"\0{known.task}").usual(rule, moment)
            count = window.counted(rule, moment)
            if usual is None or not is_more_than_usual(rule, count, usual):
                return
        self._cause(rule, place, seen, known, select, moment, count)

    def _cause(
        self,
        rule: Rule,
        place: Place,
        seen: Seen,
        known: Known,
        select: dict[str, str],
        moment: int,
        count: int,
    ) -> None:
        rules = self._reactor.rules_of
        cause = Cause(
            id=rule.cause(place.digest),
            rule=rule.name,
            does=rule.then,
            why=rule.why,
            at=seen.at,
            trail=self._reactor.names.get(place.trail, ""),
            seq=seen.seq,
            count=count,
            select=select,
            agent=seen.holder,
            task=known.task,
            alert=rule.alert,
        )
        if self._reactor.acted(rule, moment) >= rules.most:
            hour = str(moment // 1000 // HOUR).encode()
            cause = msgspec.structs.replace(
                cause,
                id=rule.cause(b"most" + hour),
                does="most",
                why=f"{rule.why} (more than {rules.most} an hour: nothing is done, see who it is)",
                alert=tuple(dict.fromkeys((*rule.alert, *rules.alert))),
            )
        elif self._now is not None and self._now - seen.at > LATE and rule.acts:
            cause = msgspec.structs.replace(
                cause, does="late", why=f"{rule.why} (seen too late: nothing is done)"
            )
        self._reactor.add(cause, moment, "due" if cause.does == rule.then and rule.acts else "told")

    def _window(self, rule: Rule, key: str) -> Window:
        window = self._touched[rule.name, key] = self._reactor.window(rule.name, key)
        return window

    def write(self, trail: int) -> None:
        """Write what they come to."""
        self._reactor.keep(self._touched.items())
        self._reactor.rows_each(
            "insert or ignore into tokens (link, hop, task) values (?, ?, ?)",
            ((link, *known) for link, known in self._described.items()),
        )


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _keep(kept: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> _Value:
    """Keep one more, of which there are not more than so many. The oldest goes."""
    kept[key] = value
    if len(kept) > _TOKENS:
        kept.popitem(last=False)
    return value

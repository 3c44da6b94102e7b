"""The registry in tables, for whatever speaks SQL: statements and what is made of rows.

A driver has one transaction at a time for all that write, and says by `Run` how statements are run
in it. The statements are those that SQLite and PostgreSQL both read; a `?` is a value, and what is
compared is written `==`, as `qualified` of `captoken.stores._postgres_sql` wants it. What a row is
worth is judged by `_rules`, in Python, within the transaction: so the rules are written once.
What an exchange asks is run with the beginning of its transaction, and what it writes with the end:
one round trip to a server each.

Tables, all with `registry_` before the name:

    state       one row: the times of `State`, and how many changes there were
    used        assertions, with what they came with, the task and the subject
    tasks       tasks; `past` is 1 where somebody saw one past its deadline, `ended` where it ended
    taken       which grants were taken in a task, by which session
    voids       logins that are over
    heard       names of events; `streams`: when each told something last
    names       by which names providers and their subjects are known
    logins      people who logged in here: in a browser, or by an application (`_logins`)
    changes     what the overlay has to say of a task; `due` is 1 until it does

A session that there is none of is the empty text, and so is the grant of a void that is for all.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias

from captoken._format.errors import StoreError
from captoken.issuance.registry._rules import (
    DAY,
    PER_SUBJECT,
    KnownTask,
    Logout,
    Ruling,
    State,
    Used,
    Void,
    becomes,
    bounds,
    check_ending,
    is_due,
    may_be_out,
    new_names,
    ruling_on,
    stream_of,
    voided,
)
from captoken.issuance.registry.ports import Ending, Exchange, Named, StartedTask, Unpublished
from captoken.stores._schema import SAYS_VERSION, Schema, SchemaChange

Row: TypeAlias = tuple[Any, ...]

# A statement with its values.
Statement: TypeAlias = tuple[str, Sequence[Any]]

# Runs statements one after the other, and gives all rows of each.
Run: TypeAlias = Callable[[Sequence[Statement]], list[list[Row]]]

# How to ask more, what the first questions were answered, and what is to be run at the end: along
# with the commit, if there is a way to do that.
Entering: TypeAlias = tuple[Run, list[list[Row]], list[Statement]]

_NAMES = """
    create table registry_names (
        provider text primary key, issuer text not null unique, template text not null
    )
"""

# A secret is kept as a digest: whoever reads the tables cannot use it.
_LOGINS = (
    """
    create table registry_logins (
        id text primary key, client text not null, subject text not null, provider text not null,
        session text not null, issued {int} not null, content {blob} not null,
        secret {blob} not null, before {blob} not null, salt {blob} not null,
        task text not null, begun {int} not null, until {int} not null,
        turn {int} not null, turned {int} not null
    )
    """,
    "create index registry_logins_by_subject on registry_logins (subject, client, begun)",
    "create index registry_logins_by_time on registry_logins (until)",
)

# The subject stays with the assertion: its task may be forgotten first.
_BY_SUBJECT = "create index registry_used_by_subject on registry_used (subject, until)"
_SUBJECTS = (
    "alter table registry_used add column {once}subject text not null default ''",
    """
    update registry_used set subject = coalesce(
        (select t.subject from registry_tasks t where t.id == registry_used.task), ''
    )
    """,
    _BY_SUBJECT,
)

# In the words of SQLite. `{blob}` and `{int}` are the types of bytes and numbers; `{once}` is where
# a database says that there may be such a column.
TABLES = (
    """
    create table registry_state (
        one {int} primary key check (one == 1), floor {int} not null, gone {int} not null,
        tasks_gone {int} not null, swept {int} not null, changes {int} not null
    )
    """,
    """
    create table registry_used (
        digest {blob} primary key, companions {blob}, task text not null, until {int} not null,
        subject text not null default ''
    )
    """,
    "create index registry_used_by_time on registry_used (until)",
    _BY_SUBJECT,
    """
    create table registry_tasks (
        id text primary key, granted text not null, subject text not null, actor text,
        begun {int} not null, deadline {int} not null, past {int} not null, ended {int} not null
    )
    """,
    "create index registry_tasks_by_subject on registry_tasks (subject, granted)",
    # Of tasks that are live there are few, and of those that were begun in a day many.
    "create index registry_tasks_live on registry_tasks (subject, granted, past, ended, deadline)",
    "create index registry_tasks_by_time on registry_tasks (deadline)",
    "create index registry_tasks_by_past on registry_tasks (past, deadline)",
    """
    create table registry_taken (
        task text not null, granted text not null, provider text not null, session text not null,
        primary key (task, granted, provider, session)
    )
    """,
    "create index registry_taken_by_session on registry_taken (provider, session)",
    """
    create table registry_voids (
        provider text not null, kind text not null, whose text not null, granted text not null,
        starts_only {int} not null, at {int} not null,
        primary key (provider, kind, whose, granted, starts_only)
    )
    """,
    "create index registry_voids_by_time on registry_voids (at)",
    """
    create table registry_heard (
        stream text not null, jti text not null, at {int} not null, primary key (stream, jti)
    )
    """,
    "create index registry_heard_by_time on registry_heard (at)",
    _NAMES,
    "create table registry_streams (stream text primary key, at {int} not null)",
    """
    create table registry_changes (
        number {int} primary key, task text not null, narrowing {blob}, due {int} not null
    )
    """,
    "create index registry_changes_by_task on registry_changes (task)",
    "create index registry_changes_by_due on registry_changes (due, number)",
    *_LOGINS,
)


def schema_by(
    spell: Callable[[str], str],
    grants: Callable[[str], Sequence[str]] = lambda _: (),
) -> Schema:
    """The versions of these tables. `spell` puts a statement as the database wants it.

    `grants`: what else a new table wants, so that whoever could read and write the others can do
    so there.
    """
    names, *logins = map(_once, (_NAMES, *_LOGINS))
    words = f"{SAYS_VERSION}, and keeps by which names providers are known (registry_names)"
    return Schema(
        "registry",
        (
            SchemaChange(words, (spell(names), *grants("registry_names"))),
            SchemaChange(
                "keeps the logins of people (registry_logins)",
                (*map(spell, logins), *grants("registry_logins")),
            ),
            SchemaChange(
                "counts the used assertions of each subject",
                tuple(spell(_once(one)) for one in _SUBJECTS),
            ),
        ),
    )


def _once(statement: str) -> str:
    """The same, where there may be such a table or index already."""
    return re.sub(r"create (table|index) ", r"create \1 if not exists ", statement)


_CHANGES = """
    select c.number, t.id, t.granted, t.subject, t.deadline, c.narrowing
    from registry_changes c join registry_tasks t on t.id == c.task
    where c.due == 1 order by c.number
"""


_USED = "select companions, task from registry_used where digest == ?"
_LOGOUTS = """
    select kind, at, granted, starts_only from registry_voids
    where provider == ? and (
        kind == 'subject' and whose == ? or kind == 'session' and whose == ?
        or kind == 'sessionless' and whose == ?
    )
"""
_KEPT = """
    select id, granted, subject, deadline, actor, past, ended from registry_tasks where id == ?
"""
_LIVE = """
    select count(*) from registry_tasks
    where subject == ? and granted == ? and past == 0 and ended == 0 and deadline > ?
"""
_BEGUN = "select count(*) from registry_tasks where subject == ? and granted == ? and begun > ?"
_HELD = "select count(*) from registry_used where subject == ? and until > ?"
_TAKEN = "select count(*) from registry_taken where task == ? and granted == ?"


def run_one(run: Run, statement: str, *values: Any) -> list[Row]:
    """The rows of one statement."""
    return run([(statement, values)])[0]


class _Known:
    """What the tables know, asked in one transaction: most of what an entry needs, at once."""

    def __init__(self, run: Run, asked: Sequence[Statement], told: Sequence[list[Row]]) -> None:
        self._run = run
        self._told = dict(zip(map(_key, asked), told, strict=True))

    def rows(self, statement: str, *values: Any) -> list[Row]:
        """The rows of a statement, from what was asked at once, or asked now."""
        told = self._told.get((statement, values))
        return run_one(self._run, statement, *values) if told is None else told

    # The questions of `judge`.

    def used(self, digest: bytes) -> Used | None:
        rows = self.rows(_USED, digest)
        if not rows:
            return None
        companions, task = rows[0]
        return Used(None if companions is None else bytes(companions), task)

    def logouts(self, provider: str, session: str | None, subject: str) -> list[Logout]:
        rows = self.rows(_LOGOUTS, *_whose(provider, session, subject))
        return [
            Logout(kind == "session", at, grant, bool(starts_only))
            for kind, at, grant, starts_only in rows
        ]

    def kept(self, task: str) -> KnownTask | None:
        rows = self.rows(_KEPT, task)
        if not rows:
            return None
        *its, actor, past, ended = rows[0]
        return KnownTask(StartedTask(*its), actor, bool(past or ended))

    def live(self, grant: str, subject: str, now: int) -> int:
        return int(self.rows(_LIVE, subject, grant, now)[0][0])

    def begun(self, grant: str, subject: str, after: int) -> int:
        return int(self.rows(_BEGUN, subject, grant, after)[0][0])

    def is_taken(self, task: str, grant: str) -> bool:
        return int(self.rows(_TAKEN, task, grant)[0][0]) > 0

    def held(self, subject: str, after: int) -> int:
        return int(self.rows(_HELD, subject, after)[0][0])


def _questions(state: Statement, entry: Exchange) -> list[Statement]:
    """What is asked before an entry is judged, as far as that is known before."""
    asked: list[Statement] = [
        state,
        (_LOGOUTS, _whose(entry.provider, entry.session, entry.subject)),
        (_KEPT, (entry.task,)),
        (_HELD, (entry.subject, bounds(entry.now).used)),
    ]
    asked += [(_USED, (seen.digest,)) for seen in entry.seen]
    if entry.most_live is not None:
        asked.append((_LIVE, (entry.subject, entry.grant, entry.now)))
    if entry.most_per_day is not None:
        asked.append((_BEGUN, (entry.subject, entry.grant, entry.now - DAY)))
    if entry.counted:
        asked.append((_TAKEN, (entry.task, entry.grant)))
    return asked


def _key(asked: Statement) -> tuple[str, tuple[Any, ...]]:
    """What a statement is known by, along with its values."""
    statement, values = asked
    return statement, tuple(values)


def _whose(provider: str, session: str | None, subject: str) -> tuple[str, str, str, str]:
    """Whose logouts. An empty session is none, and none ever ended."""
    return provider, subject, session or "", "" if session else subject


class RegistryTables(ABC):
    """A registry in tables. A driver derives from it, and says how it writes and reads.

    Whatever a driver's block raises, nothing of its transaction stays.
    """

    # Where the tables lie, for errors.
    _server: ClassVar[str] = "SQLite"
    _per_subject = PER_SUBJECT

    @abstractmethod
    def _to_write(self) -> AbstractContextManager[Run]:
        """One transaction that nobody else writes in, and that is on disk when it ends."""

    @contextmanager
    def _to_enter(self, first: Sequence[Statement]) -> Generator[Entering]:
        """The same, with what is asked at its beginning, and what is written at its end."""
        last: list[Statement] = []
        with self._to_write() as run:
            yield run, run(first), last
            run(last)

    @abstractmethod
    def _to_read(self) -> AbstractContextManager[Run]:
        """A look at one state of the tables, by one statement."""

    def _times(self) -> Statement:
        """What gives the times of the state."""
        return "select floor, gone, tasks_gone, swept from registry_state", ()

    def _state(self, run: Run) -> State:
        """The times of the state. Raises StoreError if they are gone."""
        return state_of(run([self._times()])[0], self._server)

    def _logouts(self, run: Run, provider: str, session: str | None, subject: str) -> list[Logout]:
        """What ended that session, or that subject's logins."""
        return _Known(run, (), ()).logouts(provider, session, subject)

    def _sure(self, run: Run, now: int) -> int:
        """A time that has come, by whom to believe when something is to be forgotten."""
        return now

    # --- what starts

    def keep_names(self, named: Iterable[Named]) -> None:
        """Keep by which names it knows providers: see Registry.

        Raises IssuanceError and StoreError.
        """
        with self._to_write() as run:
            rows = run_one(run, "select provider, issuer, template from registry_names")
            for one in new_names(named, (Named(*row) for row in rows)):
                run_one(run, "insert into registry_names values (?, ?, ?)", *one)

    def enter(self, entry: Exchange) -> StartedTask:
        """Write what one exchange starts or joins: see Registry.

        Raises IssuanceError and StoreError.
        """
        times, values = self._times()
        asked = _questions((times, values), entry)
        with self._to_enter(asked) as (run, told, last):
            known = _Known(run, asked, told)
            state = state_of(known.rows(times, *values), self._server)
            verdict = ruling_on(entry, state, known, self._per_subject)
            self._sweep(run, state, entry.now)
            last += self._written(run, entry, verdict)
            return verdict.task

    def _written(self, run: Run, entry: Exchange, verdict: Ruling) -> list[Statement]:
        """The statements that write down what an exchange comes to."""
        task = verdict.task
        made: list[Statement] = []
        if verdict.is_new:
            begun = """
                insert into registry_tasks
                    (id, granted, subject, actor, begun, deadline, past, ended)
                    values (?, ?, ?, ?, ?, ?, 0, 0)
            """
            its = (task.id, task.grant, task.subject, entry.actor, entry.now, task.deadline)
            made.append((begun, its))

        taken = """
            insert into registry_taken (task, granted, provider, session) values (?, ?, ?, ?)
            on conflict (task, granted, provider, session) do nothing
        """
        made.append((taken, (task.id, entry.grant, entry.provider, entry.session or "")))

        # The companions that an assertion had the first time are kept.
        used = """
            insert into registry_used as u (digest, companions, task, until, subject)
                values (?, ?, ?, ?, ?)
            on conflict (digest) do update set until = excluded.until where excluded.until > u.until
        """
        for seen in entry.seen:
            shown = (seen.digest, seen.companions, task.id, seen.until, entry.subject)
            made.append((used, shown))
        return made

    def is_live(self, task: str, now: int) -> bool:
        """Is the task out, and neither ended nor past its deadline? Raises StoreError."""
        with self._to_read() as run:
            rows = run_one(
                run,
                """
                select count(*) from registry_tasks
                where id == ? and past == 0 and ended == 0 and deadline > ?
                """,
                task,
                now,
            )
        return bool(rows[0][0] == 1)

    # --- what ends

    def end(self, ending: Ending) -> tuple[Unpublished, ...]:
        """End or narrow tasks, and remember that the login is over: see Registry.

        Raises ValueError and StoreError.
        """
        check_ending(ending)
        with self._to_write() as run:
            state = self._state(run)
            if ending.jti is not None and not _note(
                run,
                stream_of(ending),
                ending.jti,
                ending.now,
            ):
                return ()

            for void in voided(ending):
                _remember(run, void)
            made = ended_by(run, ending)
            self._sweep(run, state, ending.now)
            return made

    def unpublished(self) -> tuple[Unpublished, ...]:
        """What the overlay does not say yet, from the first on. Raises StoreError."""
        with self._to_read() as run:
            rows = run_one(run, _CHANGES)
        return tuple(_change(*row) for row in rows)

    def published(self, number: int) -> None:
        """The overlay says so. Raises StoreError."""
        with self._to_write() as run:
            run_one(run, "update registry_changes set due = 0 where number == ?", number)

    def hear(self, stream: str, jti: str, now: int) -> bool:
        """Write that a stream told something. False if it was heard before. Raises StoreError."""
        with self._to_write() as run:
            state = self._state(run)
            is_new = _note(run, stream, jti, now)
            if is_new:
                self._sweep(run, state, now)
            return is_new

    def heard_at(self, stream: str) -> int | None:
        """When the stream told something last. None: never yet. Raises StoreError."""
        with self._to_read() as run:
            rows = run_one(run, "select at from registry_streams where stream == ?", stream)
        return int(rows[0][0]) if rows else None

    # --- what is forgotten

    def _sweep(self, run: Run, state: State, now: int) -> None:
        """Forget what nothing depends on any more, and note until when it was needed."""
        if not is_due(state, now):
            return
        now = self._sure(run, now)
        until = bounds(now)

        good = _last(run, "select max(until) from registry_used where until <= ?", until.used)
        if good is not None:
            run_one(run, "delete from registry_used where until <= ?", until.used)
        at = _last(run, "select max(at) from registry_voids where at <= ?", until.heard)
        if at is not None:
            run_one(run, "delete from registry_voids where at <= ?", until.heard)
        run_one(run, "delete from registry_heard where at <= ?", until.heard)
        deadline = _forget_tasks(run, now, until.tasks)

        run_one(
            run,
            "update registry_state set floor = ?, gone = ?, tasks_gone = ?, swept = ?",
            max(state.floor, at or 0),
            max(state.gone, good or 0),
            max(state.tasks_gone, 0 if deadline is None else deadline + DAY),
            now,
        )


def begin(run: Run, floor: int) -> None:
    """The first row of tables that are new."""
    run_one(run, "insert into registry_state values (1, ?, 0, 0, 0, 0)", floor)


def state_of(rows: list[Row], server: str) -> State:
    """The times. Raises StoreError if they are gone."""
    if len(rows) != 1:
        raise StoreError(
            f"{server}: the registry's record of what it forgot is missing: the registry is damaged"
        )
    return State(*rows[0])


def _remember(run: Run, void: Void) -> None:
    """A login is over. Of two times the later one counts."""
    run_one(
        run,
        """
        insert into registry_voids as v (provider, kind, whose, granted, starts_only, at)
            values (?, ?, ?, ?, ?, ?)
        on conflict (provider, kind, whose, granted, starts_only) do update
            set at = excluded.at where excluded.at > v.at
        """,
        void.provider,
        void.of,
        void.whose,
        void.grant,
        int(void.starts_only),
        void.at,
    )


def _note(run: Run, stream: str, jti: str, now: int) -> bool:
    """Note an event, and that its stream lives. False if it was heard before."""
    known = "select count(*) from registry_heard where stream == ? and jti == ?"
    if run_one(run, known, stream, jti)[0][0]:
        return False
    lives = """
        insert into registry_streams (stream, at) values (?, ?)
        on conflict (stream) do update set at = excluded.at
    """
    heard = "insert into registry_heard (stream, jti, at) values (?, ?, ?)"
    run([(heard, (stream, jti, now)), (lives, (stream, now))])
    return True


def _found(run: Run, ending: Ending) -> dict[StartedTask, set[str]]:
    """Tasks that an ending is about, with the grants that were taken in them."""
    wanted: list[tuple[str, str | None]] = [
        ("k.provider", ending.provider),
        ("k.session", "" if ending.sessionless else ending.session),
        ("t.subject", ending.subject),
        ("t.id", ending.task),
    ]
    named = [(column, value) for column, value in wanted if value is not None]
    which = "".join(f" and {column} == ?" for column, _ in named)
    rows = run_one(
        run,
        f"""
        select t.id, t.granted, t.subject, t.deadline, k.granted
        from registry_tasks t join registry_taken k on k.task == t.id
        where t.ended == 0{which}
        """,  # noqa: S608, of names that stand above
        *(value for _, value in named),
    )

    found: dict[StartedTask, set[str]] = {}
    for *its, grant in rows:
        task = StartedTask(*its)
        if may_be_out(task.deadline, ending.now):
            found.setdefault(task, set()).add(grant)
    return found


def ended_by(run: Run, ending: Ending) -> tuple[Unpublished, ...]:
    """What comes of the tasks that an ending is about, written down."""
    found = _found(run, ending)
    tasks = sorted(found, key=attrgetter("id"))
    said = "select narrowing from registry_changes where task == ?"
    several = run([("select changes from registry_state", ()), *((said, (it.id,)) for it in tasks)])
    number = several.pop(0)[0][0]

    made: list[Unpublished] = []
    for task, rows in zip(tasks, several, strict=True):
        known = [None if narrowing is None else bytes(narrowing) for (narrowing,) in rows]
        for narrowing in becomes(ending, found[task]):
            if narrowing not in known:
                number += 1
                made.append(Unpublished(number, task, narrowing))

    due = "insert into registry_changes (number, task, narrowing, due) values (?, ?, ?, 1)"
    is_over = "update registry_tasks set ended = 1 where id == ?"
    asked: list[Statement] = [("update registry_state set changes = ?", (number,))]
    for change in made:
        asked.append((due, (change.number, change.task.id, change.narrowing)))
        if change.narrowing is None:
            asked.append((is_over, (change.task.id,)))
    run(asked)
    return tuple(made)


def _change(number: int, *rest: Any) -> Unpublished:
    *its, narrowing = rest
    return Unpublished(number, StartedTask(*its), None if narrowing is None else bytes(narrowing))


def _last(run: Run, statement: str, until: int) -> int | None:
    found: int | None = run_one(run, statement, until)[0][0]
    return found


# Never one of which something is due.
_OVER = """
    deadline <= ? and not exists (
        select 1 from registry_changes where task == registry_tasks.id and due == 1
    )
"""


def _forget_tasks(run: Run, now: int, until: int) -> int | None:
    """Note which are past their deadline, and forget old ones: the last deadline of these."""
    run_one(run, "update registry_tasks set past = 1 where past == 0 and deadline <= ?", now)
    over = f"select max(deadline) from registry_tasks where {_OVER}"  # noqa: S608
    last = _last(run, over, until)
    if last is None:
        return None
    for table in ("registry_taken", "registry_changes"):
        run_one(
            run,
            f"""
            delete from {table} where task in (select id from registry_tasks where {_OVER})
            """,  # noqa: S608
            until,
        )
    run_one(run, f"delete from registry_tasks where {_OVER}", until)  # noqa: S608
    return last

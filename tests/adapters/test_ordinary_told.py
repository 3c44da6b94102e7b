"""Ordinary statements, changed at random: a database that has more columns than are granted answers as one that has no others.

The statements are those of `ordinary.py` and its two neighbours, for both engines. Words are put in the place of others, left out, and taken
from other statements; conditions that fail for some rows are added; whole statements become a part of another. The words are those of what is
granted, of what is hidden, and some that are in neither database. Columns, rows, counts, the class of an error and its words are the same.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from threading import Timer
from typing import Any

import psycopg
import pytest

from captoken import Denied
from captoken.adapters.postgres import Role, apply_plan
from captoken.adapters.postgres import guarded as guarded_postgres
from captoken.adapters.sqlite import Connection
from captoken.adapters.sqlite import guarded as guarded_sqlite
from captoken.errors import StatementError
from tests.longer import drawing, times

from .ordinary import World
from .test_ordinary import GRANTS, WORLDS, Undone

KEYWORDS = re.compile(
    r"select|from|where|group|by|order|having|as|on|join|natural|using|left|full|right|outer|inner|cross|lateral|union|all|except|intersect|and|or|not|in|is|null|set|"
    r"update|insert|into|delete|replace|values|with|recursive|limit|offset|case|when|then|else|end|exists|distinct|between|like|over|partition|rows|returning|conflict|do|nothing|filter|materialized|ignore|asc|desc|nulls|first|last",
    re.IGNORECASE,
)
OTHERS = ["*", "1", "'Ann'", "null", ",", "and", "or", "||", "not", "natural", "distinct", "limit 2", "as", "rowid", "ctid", "xmin", "nope", "q", "q.q"]
FUNCTIONS = ["max", "min", "count", "sum", "abs", "upper", "length", "nope", "coalesce", "row_to_json", "json_extract"]
FAILING = {
    "sqlite": ["abs(-9223372036854775808)", "json('x')", "zeroblob(3000000)", "json_extract({name}, '$')", "abs({hidden})"],
    "postgres": ["1 / 0", "1 / (length({name}::text) - 3)", "{name}::integer", "{name}::date", "{hidden} / 0"],
}
TAILS = [
    "and {failing} is not null",
    "and case when {name} is null then {failing} end is null",
    "and exists (select 1 from {table} where {hidden} = {name})",
    "order by {hidden}",
    "order by {name}",
    "group by {hidden}",
    "returning *",
    "returning {hidden}",
    "limit (select {hidden} from {table})",
]
AROUND = [
    "select count(*) from ({sql}) q",
    "select {name} from ({sql}) q order by {hidden}",
    "select q.* from ({sql}) q where {failing} is null",
    "select min({name}), max({hidden}) from ({sql}) q",
    "with q as ({sql}) select {name} from q, {table}",
    "with {table} as ({sql}) select * from {table}",
    "with recursive r(n) as (select 1 union all select n + 1 from r where n < 3) select * from r, ({sql}) q",
    "select exists ({sql}), {name} from {table}",
    "{sql} union select {name} from {table}",
    "select {name}, row_number() over (partition by {hidden} order by {name}) from ({sql}) q",
    "select {name}, (select max({hidden}) from ({sql}) q where q.{name} = {table}.{name}) from {table}",
    "update {table} set {name} = ({sql})",
    "update {table} set {name} = q.{name} from ({sql}) q returning *",
    "insert into {table} ({name}) {sql} returning {name}",
    "insert into {table} (id, {name}) values (1, 'x') on conflict (id) do update set {name} = excluded.{hidden} returning *",
    "insert into {table} (id, {name}) values (1, 'x') on conflict ({hidden}) do nothing",
    "delete from {table} where {name} in ({sql})",
]


# The time of the call, which the two databases are not asked at once.
OF_THE_CLOCK = re.compile(r"(julianday|date|time|datetime|unixepoch) *\( *\)|strftime *\( *'[^']*' *\)|'now'|current_(date|time|timestamp)", re.IGNORECASE)
UNENDING = ("unending",)
LONGEST = 3  # seconds on SQLite: some of what is changed has no end


class Changer:
    """Changes the statements of one place at random."""

    def __init__(self, name: str, engine: str) -> None:
        world: World = WORLDS[name]
        self.drawn = drawing(f"told, {name}, {engine}")
        self.engine = engine
        self.statements = [*world.both, *(world.sqlite if engine == "sqlite" else world.postgres)]
        self.tables = [*world.columns, *world.open, *world.views, "nope"]
        self.granted = sorted({column for columns in world.columns.values() for column in columns})
        declared = " ".join(re.findall("«(.*?)»", world.schema, flags=re.DOTALL))
        self.hidden = [*re.findall(r"(\w+) (?:text|integer|numeric|date|real|bytea|jsonb)", declared), "nope"]

    def name(self) -> str:
        return self.drawn.choice(self.hidden if self.drawn.random() < 0.25 else self.granted)

    def filled(self, text: str, sql: str = "") -> str:
        failing = self.drawn.choice(FAILING[self.engine]) if "{failing}" in text else ""
        text = text.replace("{failing}", failing)
        return text.format(name=self.name(), hidden=self.drawn.choice(self.hidden), table=self.drawn.choice(self.tables), sql=sql)

    def statement(self) -> str:
        """One that asks for no time of the clock."""
        while OF_THE_CLOCK.search(made := self.made()):
            pass
        return made

    def made(self) -> str:
        sql = self.changed(self.drawn.choice(self.statements)) if self.drawn.random() < 0.7 else self.drawn.choice(self.statements)
        made = self.drawn.random()
        if made < 0.3:
            return self.filled(self.drawn.choice(AROUND), sql)
        return f"{sql} {self.filled(self.drawn.choice(TAILS))}" if made < 0.5 else sql

    def changed(self, sql: str) -> str:
        tokens = re.findall(r"'[^']*'|\w+|::|->>|[^\w\s]", sql)
        if self.drawn.random() < 0.1:
            other = re.findall(r"'[^']*'|\w+|[^\w\s]", self.drawn.choice(self.statements))
            tokens = tokens[: self.drawn.randrange(len(tokens) + 1)] + other[self.drawn.randrange(len(other)) :]
        for _ in range(self.drawn.choice((1, 1, 2, 3))):
            words = [at for at, token in enumerate(tokens) if token[0].isalpha() and not KEYWORDS.fullmatch(token)]
            made = self.drawn.randrange(10)
            at = self.drawn.randrange(len(tokens))
            if made < 8 and words:
                at = self.drawn.choice(words)
                is_called = tokens[at + 1 : at + 2] == ["("]
                tokens[at] = self.drawn.choice(self.tables if tokens[at] in self.tables else FUNCTIONS if is_called else [self.name()])
            elif made == 8:
                tokens.insert(at, self.drawn.choice(OTHERS))
            elif len(tokens) > 1:
                del tokens[at]
        return re.sub(r" ?([.()]|::) ?", r"\1", " ".join(tokens)).replace("(", " (").replace(")", ") ")


def answer(db: Any, sql: str) -> tuple[Any, ...]:
    """All that whoever sent it gets to see. In which order rows come that nobody ordered, is not in question."""
    try:
        rows = db.execute(sql)
    except Denied as denied:
        return "denied", denied.code, str(denied), denied.decision.for_model()
    except StatementError as error:
        return error.code, error.state, str(error), error.for_model()
    except sqlite3.OperationalError as error:
        assert str(error) == "interrupted"
        return UNENDING
    return "rows", rows.columns, sorted(map(repr, rows)), rows.rowcount


@contextmanager
def ended(connections: Sequence[sqlite3.Connection]) -> Iterator[None]:
    """Interrupt what runs on these for long."""

    def interrupt() -> None:
        for each in connections:
            each.interrupt()

    timer = Timer(LONGEST, interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def told_apart(blocks: Any, changer: Changer, often: int, within: Callable[[], AbstractContextManager[None]] = nullcontext) -> dict[str, int]:
    """How many statements ended in which way. Both answer each in the same one. `blocks`: of both, begun anew and rolled back."""
    found: dict[str, int] = {}
    for _ in range(0, often, 20):
        with suppress(Undone), ExitStack() as stack:
            bare, full = blocks(stack)
            for _ in range(20):
                sql = changer.statement()
                with within():
                    said = answer(bare, sql)
                with within():
                    same = answer(full, sql)
                if UNENDING in (said, same):
                    raise Undone
                assert same == said, sql
                found[said[0]] = found.get(said[0], 0) + 1
            raise Undone
    return found


@pytest.mark.parametrize("name", WORLDS)
def test_sqlite_tells_nothing_of_hidden_columns(name: str) -> None:
    changer = Changer(name, "sqlite")
    with ExitStack() as opened:
        both = []
        for hidden in (False, True):
            connection = opened.enter_context(closing(sqlite3.connect(":memory:", isolation_level=None, factory=Connection)))
            connection.executescript(WORLDS[name].script("sqlite", hidden=hidden))
            both.append(connection)

        def blocks(stack: ExitStack) -> list[Any]:
            return [stack.enter_context(guarded_sqlite(connection, GRANTS[name])) for connection in both]

        found = told_apart(blocks, changer, times(500), lambda: ended(both))
    assert found["rows"] > times(50) and found["name"] > times(50) and len(found) > 3, found


@pytest.fixture(scope="module")
def logins(postgres_server: Any) -> Iterator[dict[str, list[str]]]:
    """For each place a database that has what is granted and nothing else, and one that has all."""
    found: dict[str, list[str]] = {name: [] for name in WORLDS}
    for name, world in WORLDS.items():
        for hidden in (False, True):
            database = f"told_{name}_{'full' if hidden else 'bare'}"
            with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
                connection.execute(f"drop database if exists {database} with (force)".encode())
                connection.execute(f"create database {database}".encode())
            conninfo = postgres_server.conninfo.replace("dbname=postgres", f"dbname={database}")
            with psycopg.connect(conninfo, autocommit=True) as admin:
                admin.execute(world.script("postgres", hidden=hidden).encode())
                apply_plan(admin, "told_agents", Role(f"told_{name}", world.rights))
            found[name].append(conninfo.replace("user=postgres", "user=told_agents"))
    yield found


@pytest.mark.parametrize("name", WORLDS)
def test_postgresql_tells_nothing_of_hidden_columns(name: str, logins: dict[str, list[str]]) -> None:
    changer = Changer(name, "postgres")
    with ExitStack() as opened:
        both = [opened.enter_context(psycopg.connect(conninfo)) for conninfo in logins[name]]
        found = told_apart(
            lambda stack: [stack.enter_context(guarded_postgres(connection, GRANTS[name])) for connection in both], changer, times(500)
        )
    assert found["rows"] > times(50) and found["name"] > times(50) and len(found) > 3, found

"""Random statements: what is allowed does not depend on what is hidden, and what names only granted things is allowed.

The engine is the oracle. Two databases hold the same rows wherever the grant reaches, and different ones elsewhere. A
statement that the guard lets through must give the same rows, change the same rows, or fail alike on both; and nothing
that is hidden may change. The generator knows what it named: a statement is denied if, and only if, that is not granted.
"""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from captoken import Denied, Grant, Issuer, Keyring, Verifier
from captoken.adapters.sqlite import guarded
from captoken.errors import StatementError
from tests.longer import drawing, times

SCHEMA = """
create table sales (id integer primary key, region text, amount integer, pin text);
create index sales_region on sales (region);
create index sales_amount on sales (amount, pin);
create table orders (id integer primary key, region text, qty integer, amount integer);
create table stock (region text, pin text, qty integer, primary key (region, pin)) without rowid;
create table hr (id integer primary key, region text, pay integer, amount integer);
create index hr_pay on hr (pay);
create table secret (pin text primary key, region text, qty integer);
create table vault (region text, id integer, qty integer, primary key (id, region)) without rowid;
create table temps.heat (id integer primary key, region text, degrees integer);
create view sales_view as select region, amount from sales where amount > 0;
create view hr_view as select id, pay from hr;
create view mixed_view as select s.id, s.amount from sales s natural join secret;
create view using_view as select region from orders left join hr using (region);
"""
COLUMNS = {
    "sales": ["id", "region", "amount", "pin"], "orders": ["id", "region", "qty", "amount"], "stock": ["region", "pin", "qty"],
    "hr": ["id", "region", "pay", "amount"], "secret": ["pin", "region", "qty"], "vault": ["region", "id", "qty"],
    "heat": ["id", "region", "degrees"], "sales_view": ["region", "amount"], "hr_view": ["id", "pay"], "mixed_view": ["id", "amount"],
    "using_view": ["region"],
}  # fmt: skip
BASES = {"sales_view": {"sales"}, "hr_view": {"hr"}, "mixed_view": {"sales", "secret"}, "using_view": {"orders", "hr"}}
TABLES = ["sales", "orders", "stock", "hr", "secret", "vault", "heat"]
SEEN = {"sales", "orders", "stock"}
RESTRICTED = {"sales": ["id", "region"], "orders": ["region", "qty"], "stock": ["region"]}
STATEMENTS = times(750)  # `.ci/nightly properties` draws the same ones, and nine times as many more
WRITING = ["select", "insert", "update", "delete"]


def grant(**keywords: Any) -> Grant:
    keyring = Keyring.from_keys({"k1": bytes(range(32))}, current="k1")
    token = Issuer(keyring).mint(subject="user:jane", agent="analyst", task="task-1", **keywords)
    return Verifier(keyring).authenticate(token.serialize())


def database(hidden: int, columns: dict[str, list[str]] | None = None) -> sqlite3.Connection:
    """What `hidden` seeds differs between two databases: tables that are not granted, or columns that are not."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("attach ':memory:' as temps")
    connection.executescript(SCHEMA)
    for table in TABLES:
        known, other = random.Random(table), random.Random(f"{table} {hidden}")
        for row in range(1, 7):
            values = []
            for column in COLUMNS[table]:
                open_ = table in SEEN and (columns is None or column in columns.get(table, COLUMNS[table]))
                source = known if open_ else other
                text = source.choice(["eu", "us", "asia"]) if column == "region" else str(source.randint(1, 4))
                values.append(f"'{text}'" if column in ("region", "pin") else source.randint(-2, 6))
                if column == "id":
                    values[-1] = row if open_ else row * 10 + source.randint(0, 9)
                elif column == "pin":  # in keys: as many rows on both
                    values[-1] = f"'{row}'" if open_ else f"'{row}{source.randint(0, 9)}'"
            marks = ", ".join(map(str, values))
            connection.execute(f"insert or ignore into {table} values ({marks})")
    return connection


class Writer:
    """Writes statements, and keeps what they name: tables, and columns (None if it cannot tell which)."""

    def __init__(self, seed: int, hidden: float, ordered: bool = True, columns: dict[str, list[str]] = COLUMNS) -> None:
        self.random, self.hidden = drawing(seed), hidden
        self.columns = columns  # that it likes to name
        self.ordered = ordered  # may the order of rows, which an index on a hidden column gives, have a say?
        self.tables: set[str] = set()
        self.ctes: list[tuple[str, list[str]]] = []
        self.taken: list[str] = []  # names of tables that CTEs have taken; the table is then spelled with its schema
        self.count = 0

    def one(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def table(self) -> tuple[str, list[str]]:
        pool = list(COLUMNS) if self.chance(self.hidden) else ["sales", "orders", "stock", "sales_view"]
        table = self.random.choice(pool)
        self.tables |= BASES.get(table, {table})
        spelled = self.one(table, table, table, table.upper() if self.chance(0.3) else table, f'"{table}"', f"[{table}]")
        if table in self.taken or (table != "heat" and self.chance(0.15)):
            spelled = f"main.{spelled}"
        return spelled, self.columns.get(table, COLUMNS[table]) if self.chance(0.9) else COLUMNS[table]

    def source(self, depth: int) -> tuple[str, str, list[str]]:
        """A source in FROM: its text, the alias that it goes by, and its columns."""
        alias = self.name()
        if depth > 0 and self.chance(0.25):
            query, columns = self.query(depth - 1)
            return f"({query}) as {alias}", alias, columns
        if self.ctes and self.chance(0.3):
            cte, columns = self.random.choice(self.ctes)
            return f"{cte} as {alias}", alias, columns
        if self.chance(0.05):
            return f"json_each('[1, 2, 3]') as {alias}", alias, ["key", "value", "id"]
        spelled, columns = self.table()
        return f"{spelled} as {alias}", alias, columns

    def sources(self, depth: int) -> tuple[str, list[str]]:
        """A FROM clause, and what may be said of its columns."""
        text, alias, columns = self.source(depth)
        said, shared = [f"{alias}.{column}" for column in columns], set(columns)
        for _ in range(self.one(0, 0, 1, 1, 2)):
            right, other, more = self.source(depth)
            common = [column for column in more if column in shared]
            kind = self.one("", "left ", "inner ", "right ", "full ", "left outer ", "cross ")
            form = self.one("comma", "on", "natural", "using", "paren")
            if form == "natural":
                text, said = f"{text} natural {kind}join {right}", said + common
            elif form == "using" and common:
                chosen = self.random.sample(common, self.random.randint(1, len(common)))
                text, said = f"{text} {kind}join {right} using ({', '.join(chosen)})", said + chosen * 2
            elif (
                form == "comma" and "natural" not in text and "using" not in text and "full" not in text and "right" not in text
            ):
                text = f"{text}, {right}"
            elif form == "paren" and kind not in ("right ", "full "):
                text = f"{text} {kind}join ({right}) on {self.one('1', f'{said[0]} = {other}.{more[0]}')}"
            else:
                text = f"{text} {kind}join {right} on {self.random.choice(said)} = {other}.{self.random.choice(more)}"
            said += [f"{other}.{column}" for column in more]
            shared |= set(more)
        return text, said

    def value(self, said: list[str], depth: int) -> str:
        choice = self.random.random()
        if choice < 0.5 and said:
            return str(self.random.choice(said))
        if choice < 0.65:
            return str(self.one("1", "2", "'eu'", "null", "0", "'1'"))
        if choice < 0.75 and depth > 0:
            query, names = self.query(depth - 1, width=1, outer=said)
            return f"({query})" if self.ordered else f"(select max({names[0]}) from ({query}))"
        if choice < 0.85 and depth > 0:
            return f"({self.value(said, depth - 1)} {self.one('+', '-', '||', '%')} {self.value(said, depth - 1)})"
        if choice < 0.95 and depth > 0:
            return (
                f"{self.one('coalesce', 'max', 'min', 'ifnull')}({self.value(said, depth - 1)}, {self.value(said, depth - 1)})"
            )
        return f"typeof({self.random.choice(said)})" if said else "7"

    def condition(self, said: list[str], depth: int) -> str:
        choice = self.random.random()
        if depth > 0 and choice < 0.15:
            query, _ = self.query(depth - 1, outer=said)
            return f"{self.one('', 'not ')}exists ({query})"
        if depth > 0 and choice < 0.3:
            query, _ = self.query(depth - 1, width=1, outer=said)
            return f"{self.value(said, 0)} {self.one('in', 'not in')} ({query})"
        if depth > 0 and choice < 0.4:
            return f"({self.condition(said, depth - 1)} {self.one('and', 'or')} {self.condition(said, depth - 1)})"
        if choice < 0.45 and not self.ctes:
            table = self.one("using_view", "using_view", "main.using_view") if self.chance(self.hidden) else None
            if table:
                self.tables |= BASES["using_view"]
                return f"{self.value(said, 0)} in {table}"
        return f"{self.value(said, depth)} {self.one('=', '<', '>', '<>', 'is', 'is not distinct from')} {self.value(said, 0)}"

    def query(self, depth: int, width: int = 0, outer: list[str] | None = None) -> tuple[str, list[str]]:
        held, taken, head = list(self.ctes), list(self.taken), ""
        if depth > 0 and self.chance(0.2):
            wanted = self.random.sample([self.name(), self.name(), "hr", "secret", "sales", "hr_view"], self.one(1, 2))
            self.taken += wanted
            parts = []
            for cte in wanted:
                query, columns = self.query(depth - 1)
                names = [f"c{place}" for place in range(len(columns))]
                parts.append(f"{cte} ({', '.join(names)}) as {self.one('', '', 'materialized ', 'not materialized ')}({query})")
                self.ctes = [*((known, them) for known, them in self.ctes if known != cte), (cte, names)]
            head = f"with {', '.join(parts)} "
        text, said = self.sources(depth)
        said_all = said + (outer or [])[:3]
        width = width or self.random.randint(1, 3)
        conditions = f" where {self.condition(said_all, depth)}" if self.chance(0.5) else ""
        shape = self.random.random()
        names = [f"k{place}" for place in range(width)]
        if self.chance(0.3):
            names = [self.one("id", "region", "pin", "qty", "amount", f"k{place}") for place in range(width)]
            names = names if len(set(names)) == width else [f"k{place}" for place in range(width)]
        if shape < 0.2:
            items = [self.one("count(*)", f"sum({said[0]})", f"max({said[-1]})", f"count(distinct {said[-1]})") for _ in names]
            tail = ""
        elif shape < 0.35:
            items = [said[0], *(self.one("count(*)", f"min({said[-1]})") for _ in names[1:])]
            tail = f" group by {said[0]}"
        elif shape < 0.42:
            items, tail = [f"row_number() over (partition by {said[-1]} order by {said[0]}, {said[-1]}) * 0" for _ in names], ""
        else:
            items, tail = [self.value(said_all, depth) for _ in names], self.one("", "", f" order by {said[-1]}")
        listed = ", ".join(f"{item} as {name}" for item, name in zip(items, names, strict=True))
        query = f"{head}select {self.one('', '', 'distinct ')}{listed} from {text}{conditions}{tail}"
        if depth > 0 and "order by" not in tail and self.chance(0.12):
            tables = set(self.tables)
            more, _ = self.query(depth - 1, width=width)
            if more.startswith("with") or " order by " in more.rsplit(")", 1)[-1]:
                self.tables = tables
            else:
                query = f"{query} {self.one('union', 'union all', 'except', 'intersect')} {more}"
        self.ctes, self.taken = held, taken
        return query, names

    def statement(self) -> str:
        """A SELECT, or now and then one that writes."""
        if self.chance(0.7):
            return self.query(2)[0]
        table = self.random.choice(TABLES) if self.chance(self.hidden) else self.one(*sorted(SEEN))
        self.tables.add(table)
        columns, own = COLUMNS[table], [f"{table}.{column}" for column in COLUMNS[table]]
        verb = self.one("insert", "replace", "update", "delete", "upsert")
        returning = f" returning {self.value(columns, 1)}" if self.chance(0.2) else ""
        if verb == "delete":
            return f"delete from {table}{f' where {self.condition(own, 2)}' if self.chance(0.8) else ''}{returning}"
        if verb == "update":
            changes = ", ".join(f"{column} = {self.value(own, 2)}" for column in self.random.sample(columns, 1))
            source = f" from {self.source(1)[0]}" if self.chance(0.2) else ""
            return f"update {self.one('', 'or ignore ', 'or replace ')}{table} set {changes}{source} where {self.condition(own, 1)}{returning}"
        chosen = [column for column in columns if column != "id" or self.chance(0.5)]
        if self.chance(0.6):
            query, _ = self.query(2, width=len(chosen))
            query = f"select * from ({query}) where true"
        else:
            query = f"values ({', '.join(self.value([], 2) for _ in chosen)})"
        into = f"{table} ({', '.join(chosen)}) {query}"
        if verb == "upsert":
            reply = f"update set {columns[-1]} = {self.value(own, 1)}" if self.chance(0.5) else "nothing"
            return f"insert into {into} on conflict do {reply}{returning}"
        return f"{self.one('insert', 'insert or ignore') if verb == 'insert' else 'replace'} into {into}{returning}"


def outcome(connection: sqlite3.Connection, grant: Grant, sql: str) -> tuple[str, Any]:
    """What comes of a statement: a denial's code, an error, or the rows and how many were changed."""
    try:
        with guarded(connection, grant) as db:
            rows = db.execute(sql)
        return "rows", (sorted(map(repr, rows)), rows.rowcount)
    except Denied as denied:
        return "denied", denied.decision.code
    except StatementError as error:
        return "error", str(error)


def contents(connection: sqlite3.Connection, tables: set[str]) -> list[Any]:
    return [(table, connection.execute(f"select * from {table}").fetchall()) for table in sorted(tables)]


class Pair:
    """Two databases that differ in what is hidden."""

    def __init__(self, columns: dict[str, list[str]] | None = None) -> None:
        self.columns, self.both = columns, list[sqlite3.Connection]()
        self.make()
        self.before = [contents(connection, set(TABLES) - SEEN) for connection in self.both]

    def close(self) -> None:
        for connection in self.both:
            connection.close()

    def make(self) -> None:
        self.close()
        self.both = [database(hidden, self.columns) for hidden in (1, 2)]

    def same(self, grant: Grant, sql: str) -> tuple[str, Any]:
        """The outcome, if it is the same on both, and nothing hidden has changed."""
        counts = [connection.total_changes for connection in self.both]
        first, second = (outcome(connection, grant, sql) for connection in self.both)
        assert first == second, f"differs with what is hidden: {sql}\n{first}\n{second}"
        if counts != [connection.total_changes for connection in self.both]:
            assert first[0] == "rows", f"not allowed, and yet it changed something: {sql}"
            assert contents(self.both[0], SEEN) == contents(self.both[1], SEEN), f"writes what is hidden: {sql}"
            assert [contents(connection, set(TABLES) - SEEN) for connection in self.both] == self.before, sql
            self.make()
        return first


@pytest.mark.parametrize("seed", range(4))
def test_what_names_only_granted_tables_is_allowed_and_nothing_else(seed: int) -> None:
    full, came = grant(allow={table: WRITING for table in SEEN}), {"denied": 0, "rows": 0, "error": 0}
    with closing(Pair()) as pair:
        for number in range(STATEMENTS):
            writer = Writer(seed * 1_000_000 + number, hidden=0.12)
            sql = writer.statement()
            kind, what = pair.same(full, sql)
            came[kind] += 1
            assert (kind == "denied") == (not writer.tables <= SEEN), f"{kind} {what}: {sql}"
    assert min(came["denied"], came["rows"]) > STATEMENTS // 5, came


@pytest.mark.parametrize("seed", range(2))
def test_a_reader_changes_nothing_and_reads_what_is_granted(seed: int) -> None:
    reader, came = grant(tables=sorted(SEEN), operations=["select"]), {"denied": 0, "rows": 0, "error": 0}
    with closing(Pair()) as pair:
        for number in range(STATEMENTS // 2):
            sql = Writer(seed * 1_000_000 + number, hidden=0.1).statement()
            kind, _ = pair.same(reader, sql)
            came[kind] += 1
            assert kind != "rows" or not sql.startswith(("insert", "update", "delete", "replace")), sql
    assert min(came["denied"], came["rows"]) > STATEMENTS // 10, came


@pytest.mark.parametrize("seed", range(3))
def test_columns_that_are_not_granted_have_no_say(seed: int) -> None:
    narrow = grant(tables=sorted(SEEN), operations=["select"], columns=RESTRICTED)
    came = {"denied": 0, "rows": 0, "error": 0}
    with closing(Pair(RESTRICTED)) as pair:
        for number in range(STATEMENTS):
            sql = Writer(seed * 1_000_000 + number, hidden=0, ordered=False, columns=RESTRICTED).query(1)[0]
            came[pair.same(narrow, sql)[0]] += 1
    assert min(came["denied"], came["rows"]) > STATEMENTS // 20, came

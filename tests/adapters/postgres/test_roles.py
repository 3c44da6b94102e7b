"""A plan of roles: what it takes back, leaves alone and refuses, and how its names are written."""

from __future__ import annotations

import subprocess
from typing import Any

import psycopg
import pytest
from psycopg import errors

from captoken.adapters._postgres import (
    reader,
)
from captoken.adapters.postgres import (
    Role,
    apply_plan,
    guarded,
    plan_sql,
)
from tests.adapters.postgres.test_postgres import READS, Place, grant, verdict
from tests.longer import drawing, times


def test_a_plan_that_is_run_again_takes_back_what_it_no_longer_says(place: Place) -> None:
    wider = Role("temporal", {"sales": ["select", "insert"], "hr": ["select"]})
    narrower = Role("temporal", {"sales": ["select"]}, {"sales": ["id"]})
    rights = "select string_agg(privilege_type, ' ' order by 1) from information_schema.role_table_grants where grantee = 'temporal'"
    columns = "select column_name, privilege_type from information_schema.role_column_grants where grantee = 'temporal'"
    place.admin.execute(plan_sql("others", wider))
    assert place.admin.execute(rights).fetchone() == ("SELECT INSERT SELECT",)
    place.admin.execute(plan_sql("others", narrower))
    assert place.admin.execute(rights).fetchone() == (None,)
    assert place.admin.execute(columns).fetchall() == [("id", "SELECT")]


def test_of_a_table_that_two_roles_share_a_star_is_what_one_of_them_may_read(place: Place) -> None:
    halves = [Role(f"{name}_half", {"wide": ["select"]}, {"wide": columns}) for name, columns in (("larger", ["a", "b"]), ("other", ["c"]))]
    apply_plan(place.admin, "halves", *halves)
    with psycopg.connect(place.conninfo("halves")) as connection, guarded(connection, grant(tables=["wide"], operations=["select"])) as db:
        assert db.execute("select * from wide").fetchall() in ([(1, 2)], [(3,)])
        assert db.execute("select c from wide").fetchall() == [(3,)]


# Words that are no role, or mean another one than is written.
RESERVED = ("user", "current_user", "session_user", "current_role", "public", "none", "select", "table")


@pytest.mark.parametrize(
    ("login", "role", "says"),
    [
        ("agents; drop table hr", Role("r", {"sales": ["select"]}), "the name of a role may only have"),
        ("agents", Role('r"', {"sales": ["select"]}), "the name of a role may only have"),
        ("agents", Role("pg_read_all_data", {"sales": ["select"]}), "the name of a role may only have"),
        *[("agents", Role(word, {"sales": ["select"]}), "is a reserved word of SQL") for word in RESERVED],
        *[(word, Role("r", {"sales": ["select"]}), "is a reserved word of SQL") for word in RESERVED],
        ("agents", Role("r", {"sales": ["truncate"]}), "a role can be granted"),
        ("agents", Role("r", {"market.*": ["select"]}), "needs a database"),
        ("agents", Role("r", {"sales": ["delete"]}, {"sales": ["id"]}), "cannot be granted by columns"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(login: str, role: Role, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        plan_sql(login, role)


@pytest.mark.parametrize("word", ["authorization", "binary", "left", "values", "between", "name"])
def test_a_word_that_sql_knows_is_the_name_of_a_role_all_the_same(place: Place, word: str) -> None:
    """Each name is quoted wherever it stands: what the plan does, it does to this role."""
    before = place.admin.execute("select rolname, rolsuper, rolcanlogin, rolconfig from pg_roles where not rolname ~ '_login$' order by 1").fetchall()
    assert isinstance(apply_plan(place.admin, f"{word}_login", Role(word, {"sales": ["select", "insert"]})), list)
    apply_plan(place.admin, f"{word}_login", Role(word, {"sales": ["select"]}))
    after = place.admin.execute("select rolname, rolsuper, rolcanlogin, rolconfig from pg_roles where not rolname ~ '_login$' order by 1").fetchall()
    assert sorted(after) == sorted([*before, (word, False, False, None)])
    rights = "select string_agg(privilege_type, ' ') from information_schema.role_table_grants where grantee = %s"
    assert place.admin.execute(rights, (word,)).fetchone() == ("SELECT",)
    for role in (word, f"{word}_login"):
        place.admin.execute(f'drop owned by "{role}"; drop role "{role}"')


def test_whatever_is_reserved_is_refused(place: Place) -> None:
    """By the list of the server itself."""
    words = place.admin.execute("select word from pg_get_keywords() where catcode = 'R'").fetchall()
    assert len(words) > 70
    for (word,) in words:
        with pytest.raises(ValueError, match="is a reserved word of SQL"):
            plan_sql("agents", Role(word, {"sales": ["select"]}))


def test_a_name_cannot_end_the_code_that_a_plan_runs(place: Place) -> None:
    """Whoever may make a table, may name it so that it ends `$$`, or any other tag."""
    name = "x$$; create role planted; do $$ begin"
    place.admin.execute(f'create table "{name}" (a integer)')
    try:
        apply_plan(place.admin, "copyists", Role("copyist", {"*": ["select", "insert"]}))
        place.admin.execute(plan_sql("copyists", Role("copyist", {name: ["insert"]}), [("public", name)]))
        assert place.admin.execute("select count(*) from pg_roles where rolname = 'planted'").fetchone() == (0,)
    finally:
        place.admin.execute(f'drop table "{name}"')


def test_a_plan_leaves_roles_alone_that_no_plan_made_unless_it_is_told_to_adopt_them(place: Place) -> None:
    place.admin.execute("create role live login superuser")
    about = "select rolcanlogin, rolsuper from pg_roles where rolname = 'live'"
    try:
        for login, role in (("live", "narrow"), ("planners", "live")):
            with pytest.raises(errors.RaiseException, match="role live exists, and no plan made it"):
                apply_plan(place.admin, login, Role(role, {"sales": ["select"]}))
            assert place.admin.execute(about).fetchone() == (True, True)
        with pytest.raises(ValueError, match="two roles"):
            plan_sql("live", Role("live", {"sales": ["select"]}))
        for _ in range(2):
            apply_plan(place.admin, "planners", Role("live", {"sales": ["select"]}), adopt=True)
        apply_plan(place.admin, "planners", Role("live", {"sales": ["select"]}))
        assert place.admin.execute(about).fetchone() == (False, False)
    finally:
        place.admin.execute("drop owned by live; drop role live")


def test_a_schema_of_somebody_elses_for_the_facts_is_not_built_upon(place: Place, postgres_server: Any) -> None:
    """Who made it before could note facts, or run code as whoever plans; nothing of it is run."""
    with psycopg.connect(postgres_server.conninfo, autocommit=True) as connection:
        for sql in ("drop database if exists taken", "drop role if exists early", "create role early login", "create database taken owner early"):
            connection.execute(sql)
    as_early = postgres_server.conninfo.replace("dbname=postgres", "dbname=taken").replace("user=postgres", "user=early")
    with psycopg.connect(as_early, autocommit=True) as early:
        early.execute("create schema captoken_guard; create table captoken_guard.key (one boolean primary key, key bytea)")
        early.execute("create function captoken_guard.trap() returns trigger language plpgsql as $$ begin alter role early superuser; return new; end $$")
        early.execute("create trigger trap before insert on captoken_guard.key for each row execute function captoken_guard.trap()")
    with psycopg.connect(postgres_server.conninfo.replace("dbname=postgres", "dbname=taken"), autocommit=True) as admin:
        admin.execute("create table sales ()")
        for what in ("schema captoken_guard", "captoken_guard"):
            with pytest.raises(errors.RaiseException, match=f"{what}.* belongs to somebody else"):
                apply_plan(admin, "takers", Role("taker", {"sales": ["select"]}))
            admin.execute("alter schema captoken_guard owner to postgres")
        assert admin.execute("select rolsuper from pg_roles where rolname = 'early'").fetchone() == (False,)


def test_names_are_cut_off_as_the_server_cuts_them_off(place: Place) -> None:
    """By its own word: what it calls a column, and whether two names are one to it."""
    draw = drawing(63)
    for _ in range(times(300)):
        name = "".join(draw.choice("aé字😀_") for _ in range(draw.randrange(10, 40))) + "a" * draw.choice([0, 0, 30, 50])
        query = f'select 1 as "{name}"'
        text = reader.read(query)
        (outputs,) = [query.outputs for query in text.queries.values()]
        description = place.admin.execute(query.encode()).description
        assert description is not None and (description[0].name,) == outputs, name


def test_psql_runs_a_plan_as_it_is_printed(place: Place) -> None:
    """Its lexer is another than the server's: every statement arrives whole."""
    from tests.stores.servers import programs

    sql = plan_sql("printers", Role("printer", {"sales": ["select", "insert"]}))
    command = [str(programs() / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-", place.conninfo("postgres")]
    ran = subprocess.run(command, input=sql, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, [line for line in ran.stderr.splitlines() if "NOTICE" not in line]) == (0, "", []), ran.stderr
    with psycopg.connect(place.conninfo("printers")) as connection, guarded(connection, READS) as db:
        assert db.execute("select count(*) from sales").fetchall() == [(3,)]


def test_names_in_a_plan_are_quoted() -> None:
    sql = plan_sql("agents", Role("r", {'odd"; drop table hr; --': ["select", "insert"]}))
    assert '"odd""; drop table hr; --"' in sql and 'odd"; drop' not in sql.replace('""', "")


def test_the_command_line_plans_applies_and_audits(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    from captoken.cli.app import run

    dsn = place.conninfo("postgres")
    planned = ["postgres", "plan", "--login", "clerks", "--role", "clerk", "--allow", "market.*=select", "--dsn", dsn]
    assert run(planned) == 0
    sql = capsys.readouterr().out
    assert 'grant select on "market"."moves" to "clerk";' in sql and 'grant select on "market"."sales" to "clerk";' in sql
    assert place.admin.execute("select count(*) from pg_roles where rolname = 'clerk'").fetchone() == (0,)
    assert run([*planned, "--apply"]) == 1  # the audit finds the owner's functions
    assert "-- found: clerk, clerks may execute public.peek(), which runs with the rights of postgres" in capsys.readouterr().out
    assert run(["postgres", "audit", "--login", "clerks", "--dsn", dsn]) == 1
    assert run(["postgres", "plan", "--login", "clerks", "--role", "clerk", "--allow", "nowhere=select", "--dsn", dsn]) == 2
    assert "there is no table 'nowhere'" in capsys.readouterr().err
    other = ["postgres", "plan", "--login", "postgres", "--role", "clerk", "--allow", "sales=select", "--dsn", dsn, "--apply"]
    assert run(other) == 2
    assert "role postgres exists, and no plan made it" in capsys.readouterr().err
    with psycopg.connect(place.conninfo("clerks")) as connection, guarded(connection, READS) as db:
        assert db.execute("select count(*) from market.moves").fetchall() == [(1,)]
        assert verdict(db, "select * from sales") == "table"  # the token would, no role of this login does

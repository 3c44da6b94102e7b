"""Questions: what a line of words finds is what one finds who looks at each record."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from captoken import Access
from captoken.cli.console import queries
from captoken.cli.console.index import Index
from captoken.cli.console.queries import Unclear, parse
from tests.console import many
from tests.console.fixtures import NOW, World


def told(world: World) -> None:
    """Two tasks over three hours: reads, a tool, refusals, and a token that is forged."""
    for task, table in (("q3", "sales"), ("q3/eu", "market.eu"), ("q30", "hr")):
        root = world.mint(task, tables=["sales", "market.*", "hr"], expires_in=20_000)
        agent = root.delegate(to="sales-agent", tables=[table])
        for _ in range(3):
            world.now += 1100
            world.operator.renew()
            world.ask(agent, table)
            world.ask(agent, "payroll")
            world.ask(root, table)
    world.verifier.check(root, Access(tool="pay", arguments={}))
    world.verifier.check(root.serialize()[:-6] + "AAAAAA", Access(table="hr", operation="select"))
    world.index.take()


def counts(world: World, text: str, at: int | None = None) -> tuple[int, int]:
    tallies = queries.tallied(world.index, parse(text, world.now, at))
    return sum(one.allowed for one in tallies), sum(one.denied for one in tallies)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (18, 11)),
        ("table:sales", (6, 0)),
        ("table:sales table:hr", (12, 1)),
        ("table:market.*", (6, 0)),
        ("refused", (0, 11)),
        ("refused allowed", (18, 11)),
        ("task:q3", (12, 6)),
        ("task:q3*", (18, 10)),
        ("task:q3/eu agent:sales-agent", (3, 3)),
        ("agent:sales* table:payroll", (0, 9)),
        ("agent:orchestrator allowed", (9, 0)),
        ("subject:user:jane", (18, 10)),
        ("tool:pay", (0, 1)),
        ("code:table operation:select", (0, 9)),
        ("operation:update", (0, 0)),
        ("SALES-", (9, 9)),
        ("payroll q30", (0, 3)),
        ("-table:sales", (12, 11)),
        ("-table:sales -table:payroll", (12, 2)),
        ("-code:table", (18, 2)),
        ("-agent:orchestrator", (9, 10)),
        ("-agent:orchestrator -agent:sales*", (0, 1)),
        ("-task:q3", (6, 5)),
        ("table:payroll -task:q3", (0, 3)),
        ("-subject:user:jane", (0, 1)),
        ("-refused", (18, 0)),
        ("-allowed table:payroll", (0, 9)),
        ("refused -refused", (18, 11)),
        ("-payroll q30", (6, 1)),
        ("-sales", (6, 2)),
        ("server:trail", (18, 11)),
        ("server:tr* refused", (0, 11)),
        ("server:mail", (0, 0)),
        ("-server:mail", (18, 11)),
        ("-server:trail", (0, 0)),
        ('table:"sales"', (6, 0)),
        ('table:"sales*"', (0, 0)),
        ("table:%", (0, 0)),
        ("since:10s", (2, 3)),
        ("until:3h", (0, 0)),
        ("since:30m", (4, 4)),
        ("since:2025-11-25T09:00 until:2025-11-25T09:20", (2, 1)),
    ],
)
def test_a_question_counts_what_it_says(world: World, text: str, expected: tuple[int, int]) -> None:
    told(world)
    assert counts(world, text) == expected
    calls = queries.found_calls(world.index, parse(text, world.now), None, 100)
    assert len(calls) == sum(expected)
    assert [call.moment for call in calls] == sorted((call.moment for call in calls), reverse=True)


def test_nothing_after_the_time_that_one_looks_back_to_is_found(world: World) -> None:
    told(world)
    for at in range(NOW - 100, world.now + 200, 777):
        ((allowed, denied),) = world.index.rows(
            "select coalesce(sum(allowed), 0), coalesce(sum(1 - allowed), 0) from calls where moment < ?", (at + 1) * 1000
        )
        assert counts(world, "", at) == (allowed, denied)


def test_an_agent_with_all_below_it_is_asked_for_by_its_hop(world: World) -> None:
    told(world)
    for id, agent in world.index.rows("select id, agent from hops where task = 'q3'"):
        assert counts(world, f"below:{id}") == ((6, 3) if agent == "orchestrator" else (3, 3))


def test_pages_follow_on_each_other(world: World) -> None:
    """However many stand in one hour, or at one moment."""
    told(world)
    query = parse("", world.now)
    whole = queries.found_calls(world.index, query, None, 100)
    found: list[Any] = []
    before = None
    while page := queries.found_calls(world.index, query, before, 4):
        found += page
        before = f"{page[-1].moment}.{page[-1].id}"
    assert found == whole and len(whole) == 29


@pytest.mark.parametrize("text", ["colour:red", "-since:10m", "-below:x", 'table:"sales', 'table:"\\x"', "since:soon", "x" * 2001, "a " * 31, 'a"b'])
def test_what_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(Unclear) as raised:
        parse(text, NOW)
    assert str(raised.value).isascii()


def test_words_are_completed_by_what_the_trails_have(world: World) -> None:
    told(world)
    world.ask(world.mint("any", tables=["*"]), 'odd " \u0430')

    def completed(word: str) -> list[str]:
        return queries.completed(world.index, word)

    assert completed("table:s") == ["table:sales"]
    assert completed("agent:SAL") == ["agent:sales-agent"]
    assert completed("since:1") == ["since:10m", "since:1h", "since:1d"]
    assert "refused" in completed("") and completed("")[-1] == "until:"
    assert completed("-agent:sal") == ["-agent:sales-agent"] and completed("-since:") == [] and "-table:" in completed("-")
    assert completed("agent:agent") == ["agent:sales-agent"] and completed("server:") == ["server:trail"]
    assert completed("sal") == ["table:sales", "agent:sales-agent"]
    assert completed("colour:") == []
    (word,) = completed("table:odd")
    assert word.isascii() and counts(world, word) == (1, 0)


def test_when_it_was_has_bars_that_add_up(world: World) -> None:
    """Of seconds or minutes where there are few records, of hours where there are many, over the span that was asked for."""
    told(world)
    for text in ("", "refused", "table:sales since:2h", "since:3000s", "table:payroll until:2025-11-25T09:30"):
        query = parse(text, world.now)
        bars = queries.series(world.index, query, world.now)
        assert bars is not None and len(bars["allowed"]) == len(bars["denied"]) <= 60
        assert (sum(bars["allowed"]), sum(bars["denied"])) == counts(world, text)
        calls = queries.found_calls(world.index, query, None, 100)
        assert bars["from"] <= calls[-1].moment // 1000 and calls[0].moment // 1000 < bars["from"] + bars["step"] * len(bars["allowed"])
    assert queries.series(world.index, parse("table:nothing", world.now), world.now) is None


def test_what_it_was_is_counted_by_value(world: World) -> None:
    told(world)
    found = queries.of_kinds(world.index, parse("task:q3*", world.now))
    assert found["table"] == {"sales": (6, 0), "market.eu": (6, 0), "hr": (6, 0), "payroll": (0, 9)}
    assert found["server"] == {"trail": (18, 10)} and found["tool"] == {"pay": (0, 1)}


def test_a_million_records_would_be_answered_for_at_once(tmp_path: Any) -> None:
    """By 50,000: what takes long is looked up by hours, and not call by call."""
    many.write(tmp_path / "trail.jsonl", 50_000)
    index = Index(tmp_path / "index.db", [tmp_path / "trail.jsonl"])
    index.take()
    began = monotonic()
    for text in ("", "table:hr", "agent:hr-agent-7 table:payroll refused", "since:90m", "sales refused"):
        query = parse(text, many.END)
        assert queries.tallied(index, query) and queries.found_calls(index, query, None, 100)
        bars = queries.series(index, query, many.END)
        assert bars is not None and sum(bars["denied"]) == sum(one.denied for one in queries.tallied(index, query))
    assert monotonic() - began < 3

"""What a reactor makes of the records of a trail, and what those whom it watches can do about that (docs/reactions.md)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from captoken import Access
from captoken.cli.reactions import watching
from captoken.cli.reactions.rules import Known
from captoken.cli.reactions.watching import alone, levels, set_level
from captoken.errors import AuditError, KeyringError, StoreError
from captoken.keys import HolderKey
from captoken.stores.sqlite import SQLiteSnapshots
from tests.reactions.world import NOW, PROBING, World

ALERT = """
[alert.page]
command = ["true"]
[react]
alert = ["page"]
"""


def rule(**given: object) -> str:
    """One rule, of these keys, in place of those of `PROBING`."""
    facts: dict[str, object] = {"when": {"codes": ["table"]}, "count": 5, "within": "1m", "then": "revoke", "why": "odd", **given}
    lines = [f"{key} = {json.dumps(value) if not isinstance(value, dict) else inline(value)}" for key, value in facts.items()]
    return "version = 1\n[rule.it]\n" + "\n".join(lines) + "\n"


def inline(value: dict[str, object]) -> str:
    return "{ " + ", ".join(f"{key} = {json.dumps(each)}" for key, each in value.items()) + " }"


# --- what it finds ----------------------------------------------------------------------------------------------------


def test_the_fifth_refusal_within_a_minute_revokes_what_the_agent_was_handed_and_its_siblings_go_on(world: World) -> None:
    """Each call had a text of its own, and so another last link: they count for the hand-over."""
    lead = world.mint()
    west, south = lead.delegate(to="west"), lead.delegate(to="south")
    below = west.delegate(to="below")
    world.ask(south, "hr", times=4)
    world.ask(west, "hr", times=4)
    assert world.react() == [] and world.ask(west) == "allowed"
    world.ask(west, "hr")
    [cause] = world.react()
    assert (cause.agent, cause.count, list(cause.select)) == ("west", 5, ["link"])
    assert world.ask(west) == "revoked" and world.ask(below) == "revoked"
    assert world.ask(south) == "allowed" and world.ask(lead) == "allowed"
    [entry] = world.entries
    assert entry.by == "react:probing" and entry.until == NOW + 3600 and "west, 5 records" in entry.why
    world.tick(3600)
    assert world.ask(west) == "allowed", "for an hour: it is lifted by itself"


def test_five_that_take_longer_than_a_minute_are_none(world: World) -> None:
    token = world.mint()
    for _ in range(8):
        world.ask(token, "hr")
        world.tick(16)
    assert world.react() == []
    for _ in range(5):
        world.ask(token, "hr")
        world.tick(15)
    assert len(world.react()) == 1


def test_what_was_counted_stands_when_it_is_started_again(world: World) -> None:
    token = world.mint()
    world.ask(token, "hr", times=3)
    assert world.react() == []
    world.ask(token, "hr", times=2)
    assert len(world.react()) == 1 and len(world.react()) == 1 and len(world.entries) == 1


def test_a_trail_goes_on_in_another_file_and_servers_count_together(world: World) -> None:
    """Rotated in the middle, and refused at two servers: followed as the console follows."""
    token = world.mint()
    world.ask(token, "hr", times=2)
    trails = ("trail.jsonl", "other.jsonl")
    with world.reactor(trails=trails) as reactor:
        reactor.take()
        (world.folder / "trail.jsonl").rename(world.folder / "trail.jsonl.1")
        world.servers.pop("trail")
        world.ask(token, "hr", server="other", times=2)
        reactor.take()
        assert world.entries == []
        world.ask(token, "hr", server="other")
        reactor.take()
    assert len(world.entries) == 1


@pytest.mark.parametrize(
    ("given", "hits", "stands"),
    [
        ({"by": "task"}, ["south", "lead"], []),
        ({"by": "subject"}, ["south", "lead"], []),
        ({"by": "agent"}, ["south", "lead"], []),
        ({"by": "link"}, [], ["south", "lead"]),
    ],
    ids=["task", "subject", "agent", "link"],
)
def test_by_says_whom_a_rule_counts_and_hits(tmp_path: Path, given: dict[str, object], hits: list[str], stands: list[str]) -> None:
    """An agent whose name is only claimed is not one: its refusals are those of the last that is known, with all below."""
    world = World(tmp_path, rule(**given))
    lead = world.mint()
    tokens = {"lead": lead, "south": lead.delegate(to="south"), "west": lead.delegate(to="west")}
    world.ask(tokens["west"], "hr", times=5)
    world.react()
    for name in (*hits, "west"):
        assert world.ask(tokens[name]) == "revoked", name
    for name in stands:
        assert world.ask(tokens[name]) == "allowed", name
    world.close()


def test_then_narrows_and_ends_and_tells(tmp_path: Path) -> None:
    for name in ("narrows", "ends", "tells"):
        (tmp_path / name).mkdir()
    narrows = World(tmp_path / "narrows", rule(then={"tables": ["news"]}))
    token = narrows.mint()
    narrows.ask(token, "hr", times=5)
    narrows.react()
    assert narrows.ask(token) == "narrowed"
    narrows.close()
    ends = World(tmp_path / "ends", rule(then="end", by="task"))
    token = ends.mint()
    ends.ask(token, "hr", times=5)
    ends.react()
    assert ends.ask(ends.mint()) == "revoked", "what is minted later for the task, too"
    ends.close()
    tells = World(tmp_path / "tells", rule(then="alert"))
    token = tells.mint()
    tells.ask(token, "hr", times=5)
    assert [cause.does for cause in tells.react()] == ["alert"] and tells.ask(token) == "allowed"
    tells.close()


def test_more_than_usual_is_more_than_the_task_did_in_its_spans(tmp_path: Path) -> None:
    """Ten times as many as in the spans before: not in the first five, since nothing is known of the task yet."""
    world = World(tmp_path, 'version = 1\n[rule.flood]\nwhen = { codes = ["allowed"] }\ncount = { usual = 10 }\nwithin = "1m"\nthen = "revoke"\nwhy = "a flood"\n')
    token = world.mint()
    world.ask(token, times=40)
    assert world.react() == [], "it may be that busy always"
    for _ in range(30):
        world.tick(60)
        world.ask(token, times=2)
    assert world.react() == []
    world.tick(60)
    world.ask(token, times=15)
    assert world.react() == [], "somewhat more is no flood"
    world.tick(60)
    world.ask(token, times=100)
    [cause] = world.react()
    assert world.ask(token) == "revoked" and cause.rule == "flood"
    world.close()


@pytest.mark.parametrize(("hour", "found"), [(23, 1), (5, 1), (6, 0), (12, 0), (21, 0)])
def test_hours_are_those_of_a_zone(tmp_path: Path, hour: int, found: int) -> None:
    """22 to 06 in Berlin, an hour before UTC in winter."""
    world = World(tmp_path, rule(when={"codes": ["allowed"]}, count=1, by="task", hours="22-06", zone="Europe/Berlin"))
    world.tick((hour - 1 - 8) * 3600 % 86400)
    world.ask(world.mint())
    assert len(world.react()) == found
    world.close()


def test_a_level_makes_rules_stricter_for_all_or_for_a_task(tmp_path: Path) -> None:
    world = World(tmp_path, rule(count=1, level="medium"))
    quiet, loud = world.mint(task="quiet"), world.mint(task="loud/one")
    for token in (quiet, loud):
        world.ask(token, "hr")
    assert world.react() == []
    set_level(str(tmp_path / "react.db"), "loud", "high", "a leak", NOW)
    for token in (quiet, loud):
        world.ask(token, "hr")
    assert [cause.task for cause in world.react()] == ["loud/one"]
    set_level(str(tmp_path / "react.db"), "", "medium", "more", NOW)
    set_level(str(tmp_path / "react.db"), "loud", "low", "over", NOW)
    for token in (quiet, loud):
        world.ask(token, "hr")
    assert sorted(cause.task for cause in world.react()) == ["loud/one", "quiet"]
    assert [(one.task, one.level) for one in levels(str(tmp_path / "react.db"))] == [("", "medium"), ("loud", "low")]
    world.close()


def test_tools_tables_and_marks_say_which_records_count(tmp_path: Path) -> None:
    world = World(tmp_path, rule(when={"codes": ["domain", "table"], "tables": ["hr.*"]}, count=1, then="alert"))
    token = world.mint()
    world.ask(token, "crm.people")
    world.server().check(token.present(audience="shop", clock=world.clock), Access(tool="mail"))
    assert world.react() == []
    world.ask(token, "hr.people")
    assert len(world.react()) == 1
    world.close()


# --- attacks ----------------------------------------------------------------------------------------------------------


def test_a_child_that_calls_itself_as_another_agent_does_not_have_that_one_stopped(tmp_path: Path) -> None:
    """It is refused five times under the name of the billing agent: nobody vouches for that name but itself."""
    world = World(tmp_path, rule(by="agent"))
    billing = world.mint(agent="billing-agent", task="billing")
    turned = world.mint(agent="mail-agent", task="mail").delegate(to="billing-agent")
    world.ask(turned, "hr", times=5)
    [cause] = world.react()
    assert cause.select == {"agent": "mail-agent", "task": "mail"}
    assert world.ask(turned) == "revoked" and world.ask(billing) == "allowed"
    world.close()


def test_an_agent_that_a_key_proves_is_one(tmp_path: Path) -> None:
    world = World(tmp_path, rule(by="agent"))
    boss, clerk = HolderKey.generate(), HolderKey.generate()
    held = world.mint(key=boss.public).delegate(to="clerk", key=clerk.public, signer=boss)
    ask = Access(table="hr", operation="select")
    for _ in range(5):
        sent = held.present(audience="shop", signer=clerk, request=ask, clock=world.clock)
        assert world.server().check(sent, ask).code == "table"
    assert world.react()[0].select == {"agent": "clerk", "task": "q3"}
    world.close()


def test_narrowing_oneself_does_not_begin_another_count(tmp_path: Path) -> None:
    """Neither a new link for each call, nor a task below one's own, nor a child for each call under `by = "task"`."""
    world = World(tmp_path, rule(by="task"))
    token = world.mint()
    for number in range(5):
        world.ask(token.attenuate(task=f"q3/{number}").delegate(to=f"child-{number}"), "hr")
    assert [cause.select for cause in world.react()] == [{"task": "q3"}]
    world.close()


def test_what_a_forged_token_says_counts_for_nobody(world: World) -> None:
    token = world.mint()
    text = token.serialize()
    for number in range(10):
        forged = text[:-8] + ("A" * 8 if text[-8:] != "A" * 8 else "B" * 8)
        assert world.server().check(forged, Access(table="hr", operation="select")).code in ("bad_signature", "malformed"), number
    assert world.react() == [] and world.ask(token) == "allowed"


def test_records_that_are_copied_into_another_file_count_once(world: World) -> None:
    """Three refusals, and a copy of the trail beside it: six records, and three refusals."""
    token = world.mint()
    world.ask(token, "hr", times=3)
    shutil.copy(world.folder / "trail.jsonl", world.folder / "copy.jsonl")
    assert world.react(trails=("trail.jsonl", "copy.jsonl")) == []
    world.ask(token, "hr", times=2)
    shutil.copy(world.folder / "trail.jsonl", world.folder / "third.jsonl")
    assert len(world.react(trails=("trail.jsonl", "copy.jsonl", "third.jsonl"))) == 1


def test_a_cause_acts_once_also_after_it_was_lifted(world: World) -> None:
    """By a second reactor, by one that has lost what it kept, and by one that reads a copy (36.26)."""
    token = world.mint()
    world.ask(token, "hr", times=5)
    world.react()
    [entry] = world.entries
    world.operator.lift(entry.id, why="a mistake")
    assert world.ask(token) == "allowed"
    shutil.copy(world.folder / "trail.jsonl", world.folder / "copy.jsonl")
    world.react(state="second.db")
    world.react(state="third.db", trails=("copy.jsonl",))
    assert world.entries == [] and world.ask(token) == "allowed"
    world.ask(token, "hr", times=5)
    world.react()
    assert world.ask(token) == "revoked", "what it does anew is another cause"


def test_what_is_seen_too_late_is_told_and_not_acted_on(world: World) -> None:
    """The overlay keeps the id of what was lifted for a day: what is older could be done again."""
    token = world.mint()
    world.ask(token, "hr", times=5)
    world.tick(13 * 3600)
    [cause] = world.react()
    assert cause.does == "late" and world.entries == []


def test_a_clock_that_is_ahead_counts_for_nothing_and_is_told_once(tmp_path: Path) -> None:
    world = World(tmp_path, PROBING + ALERT)
    token = world.mint()
    world.tick(3600)
    world.ask(token, "hr", times=5)
    world.tick(-3600)
    causes = world.react()
    assert [cause.does for cause in causes] == ["trail"] and "ahead" in causes[0].why and causes[0].alert == ("page",)
    assert world.entries == []
    world.close()


@pytest.mark.parametrize("harm", ["cut", "changed", "forged"])
def test_a_trail_that_lies_is_an_alert_and_makes_no_other_act(world: World, harm: str) -> None:
    token = world.mint()
    world.ask(token, "hr", times=4)
    with world.reactor() as reactor:
        reactor.take()
        path = world.folder / "trail.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        if harm == "cut":
            path.write_bytes(b"".join(lines[:-2]))
        else:
            path.write_bytes(b"".join([*lines, lines[-1] if harm == "changed" else lines[-1].replace(b"hr", b"zz")]))
        reactor.take()
        for _ in range(3):
            reactor.look_after()
        causes = [one.cause for one in reactor.causes()]
    assert [cause.does for cause in causes] == ["trail"] and world.entries == []


def test_a_trail_at_which_nothing_happens_is_an_alert_once(tmp_path: Path) -> None:
    world = World(tmp_path, PROBING + '[react]\nstalls = "10m"\n')
    world.ask(world.mint())
    assert world.react() == []
    world.tick(601)
    assert [cause.does for cause in world.react()] == ["trail"]
    world.tick(60)
    assert len(world.react()) == 1
    world.ask(world.mint())
    assert len(world.react()) == 1
    world.close()


def test_a_rule_that_would_stop_everybody_stops_after_so_many(tmp_path: Path) -> None:
    """30 agents come under it in an hour: three are stopped, and somebody is told, once."""
    world = World(tmp_path, rule(when={"codes": ["allowed"]}, count=1) + ALERT.replace("[react]", "[react]\nmost = 3"))
    tokens = [world.mint(agent=f"agent-{number}") for number in range(30)]
    for token in tokens:
        world.ask(token)
        world.tick(1)
    causes = world.react()
    assert [cause.does for cause in causes] == ["revoke"] * 3 + ["most"]
    assert causes[-1].alert == ("page",) and len(world.entries) == 3
    assert [world.ask(token) for token in tokens].count("revoked") == 3
    world.tick(3600)
    assert [world.ask(token) for token in tokens].count("allowed") == 27
    assert len([cause for cause in world.react() if cause.does == "revoke"]) == 6, "the next hour has three more"
    world.close()


def test_two_records_of_one_link_that_differ_mark_the_later_trail(world: World) -> None:
    """A server that lies about a token does not decide on whom the records of another fall."""
    lead = world.mint()
    token = lead.delegate(to="west")
    world.ask(token, "hr", times=3)
    with world.reactor(trails=("trail.jsonl",)) as reactor:
        reactor.take()
        link = reactor.rows("select link from tokens")[0][0]
        with pytest.raises(AuditError, match="otherwise than a record that was read before"):
            reactor.describe(link, Known("other", "q3"))


def test_an_operator_key_that_is_gone_is_told_and_nothing_is_lost(world: World) -> None:
    """It ends, since no rule can act: and what was due is done by whoever starts it again."""
    token = world.mint()
    world.ask(token, "hr", times=5)
    key = world.folder / "operator.json"
    data = key.read_bytes()
    key.unlink()
    with pytest.raises((KeyringError, FileNotFoundError)):
        world.react()
    assert world.entries == [] and world.ask(token) == "allowed"
    world.key.save(key)
    assert key.read_bytes() == data
    world.react()
    assert world.ask(token) == "revoked"


def test_a_store_that_is_out_of_reach_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    token = world.mint()
    world.ask(token, "hr", times=5)
    load = SQLiteSnapshots.load

    def down(store: SQLiteSnapshots) -> bytes | None:
        raise StoreError("the disk is away")

    monkeypatch.setattr(SQLiteSnapshots, "load", down)
    world.react()
    assert set(world.told) == {"not done yet, and tried again: the disk is away"}
    monkeypatch.setattr(SQLiteSnapshots, "load", load)
    world.react()
    assert world.ask(token) == "revoked"


def test_what_nobody_asks_about_any_more_is_dropped(world: World) -> None:
    """Windows of yesterday, causes of last week, and all but the last million tokens."""
    token = world.mint()
    world.ask(token, "hr", times=5)
    world.ask(world.mint(agent="other"), "hr", times=2)
    world.react()
    with world.reactor() as reactor:
        assert reactor.rows("select count(*) from windows")[0][0] == 2
        world.tick(9 * 86400)
        reactor.drop_old()
        assert [reactor.rows(f"select count(*) from {name}") for name in ("windows", "causes", "told")] == [[(0,)]] * 3


def test_a_rule_that_was_taken_out_of_the_file_does_nothing_any_more(world: World) -> None:
    token = world.mint()
    world.ask(token, "hr", times=5)
    key = world.folder / "operator.json"
    key.unlink()
    with pytest.raises((KeyringError, FileNotFoundError)):
        world.react()
    world.key.save(key)
    world.rules.write_text(rule(), "utf-8")
    world.react()
    assert world.entries == []


def test_what_is_in_memory_is_bounded_and_decides_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for three windows and three tokens, 20 agents whose refusals come mixed: all 20 are stopped."""
    monkeypatch.setattr(watching, "_WINDOWS", 3)
    monkeypatch.setattr(watching, "_TOKENS", 3)
    tokens = [world.mint(agent=f"agent-{number}") for number in range(20)]
    for _ in range(5):
        for token in tokens:
            world.ask(token, "hr")
    with world.reactor() as reactor:
        reactor.take()
        assert len(reactor._windows) <= 3 and len(reactor._tokens) <= 3
    assert len(world.entries) == 20 and {world.ask(token) for token in tokens} == {"revoked"}


def test_two_reactors_do_not_share_what_they_keep(world: World) -> None:
    """Each would count what the other has counted. The second is refused, and begins once the first has ended."""
    path = str(world.folder / "react.db")
    with alone(path), pytest.raises(StoreError, match="another `captoken react run` has it"), alone(path):
        pass
    with alone(path):
        assert (world.folder / "react.db.lock").exists()

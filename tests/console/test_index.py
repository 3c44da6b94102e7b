"""The index says what the trails say, takes what is new once, and believes nothing that does not hold together."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from captoken import Access, Issuer, Keyring, Token
from captoken._format.encoding import b64encode, encode_json
from captoken.audit import AuditTrail, Head, _evidence, analysis, read
from captoken.audit._check import numbered
from captoken.audit._kept import TrailKept
from captoken.cli.console import tables, trails, views
from captoken.cli.console.export import exported
from captoken.cli.console.index import Index
from captoken.cli.evidence_page import lines_in
from captoken.keys import AuditKey
from captoken.stores.trail_file import TrailFile
from tests.console.fixtures import World
from tests.fixtures import NOW, WHO, clock, data, mint, verifier

TASK = WHO["task"]
SERVER = AuditKey.from_bytes(bytes(range(32)))

STRANGER = {"subject": "user:eve", "agent": "eve", "task": "q3", "tables": ["sales"], "operations": ["select"]}

Change = Callable[[dict[str, Any]], dict[str, Any]]


def counted(world: World) -> dict[str, tuple[int, int]]:
    return {id: (allowed, denied) for id, allowed, denied in world.index.rows("select id, allowed, denied from hops")}


def told(path: Path) -> dict[str, tuple[int, int]]:
    """The same, by the audit of the whole trail."""
    with open(path, "rb") as lines:
        history = analysis.gather(read(lines))
    return {hop.id: (sum(one.allowed for one in hop.decisions), hop.denied) for hop in history.hops()}


def story(world: World) -> None:
    root = world.mint()
    child = root.delegate(to="sales-agent", tables=["sales"])
    grandchild = child.delegate(to="report-agent", tables=["sales"])
    for token in (root, child, grandchild, child.attenuate(tables=["sales"])):
        for table in ("sales", "hr"):
            world.ask(token, table)
    world.ask(world.mint(task="other"), "market.eu")


def test_it_counts_as_the_audit_does(world: World) -> None:
    """Hops, who holds them and how it is known, allowed and denied: as `captoken.audit` groups a trail."""
    story(world)
    assert counted(world) == told(world.path)
    assert len(counted(world)) == 4
    bases = world.index.rows("select agent, basis from hops order by depth, agent")
    assert ("orchestrator", "issued") in bases and ("sales-agent", "vouched") in bases


def test_what_is_new_is_taken_once(world: World) -> None:
    """Taken in pieces, at any line, and by an index that is opened again: the same counts, and nothing twice."""
    story(world)
    before = counted(world)
    assert not world.index.take()
    revision = world.index.revision
    path = world.path.parent / "index.db"
    again = Index(path, [world.path])
    assert not again.take()
    assert {row[0]: row[1:] for row in again.rows("select id, allowed, denied from hops")} == before
    world.ask(world.mint(), "sales")
    assert world.index.revision == revision + 1
    assert again.take() or again.rows("select count(*) from hops") == [(5,)]


def test_it_can_be_made_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file, other trails, another version, and pieces of a few bytes: the same answers."""
    story(world)
    monkeypatch.setattr(trails, "STEP", 100)
    path = world.path.parent / "second.db"
    second = Index(path, [world.path])
    second.take()
    assert {row[0]: row[1:] for row in second.rows("select id, allowed, denied from hops")} == counted(world)
    second.close()

    monkeypatch.setattr(tables, "VERSION", tables.VERSION._replace(steps=(*tables.VERSION.steps, *tables.VERSION.steps)))
    third = Index(path, [world.path])
    assert third.rows("select count(*) from hops") == [(0,)]
    third.take()
    assert third.rows("select count(*) from hops") == [(4,)]


def test_half_a_record_is_left_for_the_next_time(world: World) -> None:
    story(world)
    data = world.path.read_bytes()
    copy = world.path.with_name("copy.jsonl")
    copy.write_bytes(data[:-10])
    index = Index(":memory:", [copy])
    index.take()
    (trail,) = index.trails()
    assert trail.trouble is None and trail.offset == data[:-10].rfind(b"\n") + 1
    copy.write_bytes(data)
    assert index.take()
    assert index.rows("select sum(allowed + denied) from hops") == [(9,)]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda lines: lines[:3] + lines[4:], "cut, or in another order"),
        (lambda lines: [lines[0], lines[1].replace(b"sales", b"salez"), *lines[2:]], "one was changed"),
        (lambda lines: [*lines[:3], lines[3].replace(b"sales", b"salez"), *lines[4:]], "one of the two is forged"),
        (lambda lines: [*lines[:3], b"{}\n", *lines[3:]], "does not say its kind"),
        (lambda lines: [*lines[:3], b"no JSON\n", *lines[3:]], "a line that is no record"),
    ],
)
def test_what_does_not_follow_is_not_believed(world: World, harm, said: str) -> None:
    """The trail is marked, what stood before stays, and the sound trail has no mark."""
    story(world)
    lines = world.path.read_bytes().splitlines(keepends=True)
    copy = world.path.with_name("copy.jsonl")
    copy.write_bytes(b"".join(harm(lines)))
    index = Index(":memory:", [copy])
    index.take()
    (trail,) = index.trails()
    assert trail.trouble is not None and said in trail.trouble
    assert 0 < trail.head.seq <= 4
    assert world.index.trails()[0].trouble is None
    copy.write_bytes(b"".join(lines))
    index.take()
    assert index.trails()[0].trouble == trail.trouble


def test_a_file_that_is_shorter_than_it_was_is_another_one(world: World) -> None:
    story(world)
    copy = world.path.with_name("copy.jsonl")
    shutil.copy(world.path, copy)
    index = Index(":memory:", [copy])
    index.take()
    os.truncate(copy, 100)
    index.take()
    assert "shorter than it was" in (index.trails()[0].trouble or "")


def edited(path: Path, was: bytes, now: bytes) -> None:
    """One record says something else, in as many bytes."""
    data = path.read_bytes()
    assert len(was) == len(now) and was in data
    path.write_bytes(data.replace(was, now, 1))


def test_a_record_that_was_edited_in_place_is_not_shown(world: World) -> None:
    """Neither on the page, nor in an export, nor where past uses are put together. The trail is marked, and nothing more is read of it."""
    story(world)
    revision = world.index.revision
    edited(world.path, b'"allowed":false', b'"allowed":true ')
    rows = views.decisions_view(world.index, task="q3")["rows"]
    gone = [row for row in rows if row["seq"] is None]
    assert [row["what"] for row in gone] == ["the record is not there any more, or was changed after it was read"]
    assert len([row for row in rows if row["allowed"]]) == 4, "those that were allowed, and no other"
    (trail,) = world.index.trails()
    assert trail.trouble == "a record was changed after it was read" and world.index.revision > revision
    assert b"changed after it was read" in (exported(world.index, None, world.now, task="q3") or b"")
    world.ask(world.mint(task="later"), "sales")
    assert world.index.rows("select count(*) from hops where task = 'later'") == [(0,)]


@pytest.mark.parametrize(("was", "now"), [(b'"allowed":false', b'"allowed":true '), (b'"market.eu"', b'"market.us"')])
def test_an_index_that_is_opened_again_is_compared_with_the_trail(world: World, was: bytes, now: bytes) -> None:
    """Whichever record it is, and whether anybody looks at it or not."""
    story(world)
    path = world.path.with_name("kept.db")
    kept = Index(path, [world.path])
    kept.take()
    kept.verify()
    assert kept.trails()[0].trouble is None
    kept.close()
    edited(world.path, was, now)
    again = Index(path, [world.path])
    again.verify()
    assert again.trails()[0].trouble == "a record was changed after it was read"
    again.close()


@pytest.mark.parametrize("harm", [lambda path: os.truncate(path, 10), lambda path: path.write_bytes(b"")])
def test_a_trail_that_cannot_be_compared_is_marked(world: World, harm: Callable[[Path], None]) -> None:
    story(world)
    harm(world.path)
    world.index.verify()
    assert world.index.trails()[0].trouble == "a record was changed after it was read"


def test_a_trail_that_grew_is_compared_as_far_as_it_was_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    story(world)
    index = Index(":memory:", [world.path])
    index.take()
    world.ask(world.mint(), "sales")
    monkeypatch.setattr(trails, "STEP", 100)
    index.verify()
    assert index.trails()[0].trouble is None and index.take()


def test_a_trail_that_is_not_there_says_so(world: World) -> None:
    index = Index(":memory:", [world.path.with_name("nothing.jsonl"), world.path])
    story(world)
    index.take()
    missing, there = index.trails()
    assert "No such file" in (missing.trouble or "") and there.trouble is None and there.head.seq > 0


@pytest.mark.parametrize("looks", [Index.take, Index.verify])
def test_a_trail_that_is_gone_for_a_moment_is_followed_again(world: World, looks: Callable[[Index], Any]) -> None:
    story(world)
    away = world.path.with_name("away.jsonl")
    world.path.rename(away)
    revision = world.index.revision
    looks(world.index)
    looks(world.index)
    assert world.index.trails()[0].trouble == "it cannot be read now (No such file or directory), and is tried again"
    assert world.index.revision == revision + 1
    away.rename(world.path)
    world.index.take()
    assert world.index.trails()[0].trouble is None
    world.ask(world.mint(task="later"), "sales")
    assert world.index.rows("select count(*) from hops where task = 'later'") == [(1,)]


def rotated(world: World, name: str) -> Path:
    """The file is renamed, and the server begins another one: as docs/audit.md has it."""
    old = world.path.with_name(name)
    world.trail.close()
    world.path.rename(old)
    world.open_trail()
    return old


@pytest.mark.parametrize("name", ["trail.jsonl.1", "trail-20261201.jsonl"])
def test_a_trail_that_is_rotated_is_followed_and_so_is_the_next(world: World, name: str) -> None:
    """What was written before the rename and not yet read, too; and the records before it are where they are."""
    story(world)
    child = world.mint().delegate(to="late-agent")
    world.verifier.check(child, Access(table="sales", operation="select"))
    old = rotated(world, name)
    world.ask(world.mint(task="after"), "sales")
    trails = {trail.path: trail for trail in world.index.trails()}
    assert set(trails) == {str(old), str(world.path)} and all(trail.trouble is None for trail in trails.values())
    assert world.index.rows("select count(*) from hops where agent = 'late-agent' or task = 'after'") == [(2,)]
    rows = views.decisions_view(world.index)["rows"]
    assert len(rows) == 11 and all(row["seq"] for row in rows)
    assert len({row["server"] for row in rows}) == 2


def test_a_trail_that_is_rotated_while_it_is_looked_at_is_followed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at its name and the look into it: the file there is another one, and shorter."""
    story(world)
    follow, looks = Index._follow, []

    def late(index: Index) -> set[int]:
        looks.append(index)
        return follow(index) if len(looks) > 1 else set()

    rotated(world, "trail.jsonl.1")
    monkeypatch.setattr(Index, "_follow", late)
    world.ask(world.mint(task="after"), "sales")
    world.index.take()
    assert [trail.trouble for trail in world.index.trails()] == [None, None]
    assert world.index.rows("select count(*) from calls") == [(10,)]


@pytest.mark.parametrize("first", [Index.take, Index.verify])
def test_an_index_that_is_opened_after_a_rotation_goes_on(world: World, first: Callable[[Index], Any]) -> None:
    """Whichever comes first: the one is done beside the other."""
    story(world)
    path = world.path.with_name("kept.db")
    kept = Index(path, [world.path])
    kept.take()
    kept.close()
    rotated(world, "trail.jsonl.1")
    world.ask(world.mint(task="after"), "sales")
    again = Index(path, [world.path])
    first(again)
    again.take()
    again.verify()
    assert [trail.trouble for trail in again.trails()] == [None, None]
    assert again.rows("select count(*) from calls") == [(10,)]
    again.close()


@pytest.mark.parametrize("pattern", ["", "*.jsonl", "trail*.jsonl"])
def test_new_files_of_a_folder_are_picked_up(world: World, pattern: str) -> None:
    index = Index(":memory:", [world.path.parent / pattern])
    story(world)
    index.take()
    assert [trail.name for trail in index.trails()] == ["trail"]
    shutil.copy(world.path, world.path.with_name("trail-2.jsonl"))
    index.take()
    assert sorted(trail.name for trail in index.trails()) == ["trail", "trail-2"]
    assert index.rows("select count(*) from calls") == [(18,)]


def test_another_file_in_the_place_of_one_that_was_gone_is_not_followed(world: World) -> None:
    """As long, and of records that would follow: its past is another one."""
    story(world)
    data = world.path.read_bytes()
    world.path.unlink()
    world.index.take()
    world.path.write_bytes(data.replace(b'"sales"', b'"salez"', 1))
    world.index.take()
    assert world.index.trails()[0].trouble == "a record was changed after it was read"


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ({"access": 1}, None),
        ({"refusals": "none"}, ("select on table sales", "")),
        ({"refusals": [1]}, ("select on table sales", "")),
        ({"refusals": [{"text": ["why"]}]}, ("select on table sales", "['why']")),
        ({"trace": 1}, None),
        ({"chain": [1]}, None),
        ({"ms": "soon"}, None),
    ],
)
def test_a_record_in_another_shape_stops_nothing(world: World, change: dict[str, object], row: tuple[str, str] | None) -> None:
    """It is shown as far as it can be read, or its trail is marked."""
    root = world.mint()
    world.ask(root)
    *_, last = world.path.read_bytes().splitlines()
    record = msgspec.json.decode(last)
    record |= {"seq": record["seq"] + 1, "prev": b64encode(sha256(last).digest()), **change}
    with world.path.open("ab") as file:
        file.write(encode_json(record) + b"\n")
    world.index.take()
    rows = views.decisions_view(world.index)["rows"]
    assert (world.index.trails()[0].trouble is None) == (row is not None)
    assert len(rows) == (1 if row is None else 2)
    assert row is None or (rows[0]["what"], rows[0]["why"]) == row


def follow(path: Path, change: Change) -> None:
    """Write the first record of a trail once more as its last, changed."""
    lines = path.read_bytes().splitlines()
    record = change(msgspec.json.decode(lines[0]))
    record |= {"seq": len(lines) + 1, "prev": b64encode(sha256(lines[-1]).digest())}
    with path.open("ab") as file:
        file.write(encode_json(record) + b"\n")


def renamed(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"root": record["root"] | {"agent": "eve"}}


def widened(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"links": [record["links"][0] | {"says": {"tables": ["*"]}}]}


def claimed(record: dict[str, Any]) -> dict[str, Any]:
    """The link is said to be the last one of a token of somebody else."""
    own = {"id": b64encode(bytes(32)), "says": {"tables": ["sales"]}}
    return record | {"links": [own, record["links"][0]], "root": record["root"] | {"agent": "eve"}}


@pytest.mark.parametrize("lie", [renamed, widened, claimed])
def test_no_trail_says_of_a_link_what_another_does_not(world: World, lie: Change) -> None:
    """Whichever is read first: the later one is marked, and no decision of the one is shown as of the agent of the other."""
    root = world.mint()
    world.ask(root)
    first, *_ = world.path.read_bytes().splitlines()
    other = world.path.with_name("other.jsonl")
    other.write_bytes(encode_json(lie(msgspec.json.decode(first))) + b"\n")
    for paths in ([other, world.path], [world.path, other]):
        index = Index(":memory:", paths)
        index.take()
        honest, marked = index.trails()
        assert honest.trouble is None
        assert marked.trouble is not None and "one of the two is forged" in marked.trouble
        named = {name for (name,) in index.rows("select agent from hops")}
        counts = index.rows("select coalesce(sum(allowed), 0) from hops")
        assert (len(named), counts) == (1, [(1 if paths[0] == world.path else 0,)])

    follow(world.path, lie)
    world.index.take()
    assert "one of the two is forged" in (world.index.trails()[0].trouble or "")


def test_two_servers_that_say_the_same_are_both_read(world: World) -> None:
    """Each describes a token before its first decision about it; so does a trail that goes on in another file."""
    child = world.mint().delegate(to="sales-agent", tables=["sales"])
    world.ask(child.attenuate(tables=["sales"]))
    follow(world.path, lambda record: record)
    world.index.take()
    index = Index(":memory:", [world.path, shutil.copy(world.path, world.path.with_name("copy.jsonl"))])
    index.take()
    assert [trail.trouble for trail in (*world.index.trails(), *index.trails())] == [None] * 3


@pytest.mark.parametrize(
    ("ids", "said"),
    [([bytes([0, at] * 16) for at in range(65)], "says nothing that can be read"), ([bytes(32)] * 2, "one link id for two links")],
)
def test_no_token_has_such_links(world: World, ids: list[bytes], said: str) -> None:
    """More links than a token has, each with all above it, would be kept and read for a long time."""
    world.ask(world.mint())
    links = [{"id": b64encode(id), "says": {"from": "orchestrator", "to": "a", "tables": ["sales"]}} for id in ids]
    follow(world.path, lambda record: record | {"links": links})
    world.index.take()
    assert said in (world.index.trails()[0].trouble or "")
    assert world.index.rows("select count(*) from hops") == [(1,)]


def test_a_line_without_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for, as long as it may be one. Other trails are read beside it, whichever comes first."""
    monkeypatch.setattr(trails, "STEP", 10)
    monkeypatch.setattr(trails, "LONGEST", 5000)
    world.ask(world.mint())
    endless = world.path.with_name("endless.jsonl")
    index = Index(":memory:", [endless, world.path])
    for length, said in ((0, ""), (1, ""), (5000, ""), (5011, "a line of more than 5000 bytes")):
        endless.write_bytes(b"x" * length)
        index.take()
        first, second = index.trails()
        assert (first.trouble or "", first.offset) == (said, 0)
        assert (second.trouble, second.head.seq) == (None, 2)


def test_its_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """As the trails are: it says what they do."""
    before = os.umask(0)
    try:
        Index(tmp_path / "index.db", [tmp_path / "trail.jsonl"]).close()
    finally:
        os.umask(before)
    assert (tmp_path / "index.db").stat().st_mode & 0o777 == 0o600


def test_a_record_of_another_kind_is_passed_over(world: World) -> None:
    """A later version may have more of them; a decision on a token that is not described counts in no task."""
    story(world)
    stated = [json.loads(line) for line in world.path.read_bytes().splitlines()]
    assert {one["kind"] for one in stated} == {"token", "decision"}
    world.ask(Token.parse(Issuer(Keyring.generate(), clock=world.clock).mint(**STRANGER).serialize()))
    assert world.index.rows("select count(*) from calls where hop is null") == [(1,)]


def test_what_was_never_used_is_the_same_of_each_kind_of_call_as_of_all(world: World) -> None:
    """One record of each kind is kept at hand: what would have done is what the audit finds in the whole trail."""
    story(world)
    for _ in range(2):
        story(world)
    with open(world.path, "rb") as lines:
        expected = {usage.hop.id: usage for usage in analysis.unused(analysis.gather(read(lines)))}
    for (id,) in world.index.rows("select id from hops"):
        found, usage = views._unused(world.index, id), expected[id]
        assert (found is None) == usage.is_tight
        if found is not None:
            assert found["keywords"] == {key: value for key, value in usage.sufficient.items() if key != "depth"}
            assert found["allowed"] == usage.allowed
    assert 0 < world.index.rows("select count(*) from uses")[0][0] < world.index.rows("select sum(allowed) from hops")[0][0]


def test_counts_up_to_a_second_are_those_of_the_calls(world: World) -> None:
    """Whole minutes are counted beforehand, and what is in the last one when it is asked for."""
    root = world.mint()
    for number in range(20):
        world.now += 13
        world.ask(root, "sales" if number % 3 else "hr")
    for at in range(world.now - 270, world.now + 70, 7):
        expected = world.index.rows(
            "select coalesce(sum(allowed), 0), coalesce(sum(1 - allowed), 0), coalesce(max(moment), 0) / 1000 from calls where moment < ?",
            (at + 1) * 1000,
        )
        assert [views._counted_until(world.index, "q3", at)] == expected


def kept_trail(folder: Path) -> tuple[TrailKept, Callable[[], bool]]:
    """The trail of a server that opens it again where it was moved, and what has a decision recorded."""
    trail = TrailKept(folder / "trail.jsonl", key=SERVER, clock=clock())
    server = verifier(audit=trail)
    return trail, lambda: bool(server.check(mint(), data("sales")))


def moved(trail: TrailKept, *names: Path) -> None:
    """The files are renamed, the oldest first, and the server continues in a new one."""
    for one, other in pairwise(reversed(names)):
        if other.exists():
            other.rename(one)
    assert trail.reopen()


def whole(index: Index) -> list[tuple[str, int, str | None, str | None]]:
    return [(one.name, len(one.files), one.trouble, one.lacks) for one in index.wholes()]


def proved(index: Index, task: str = TASK) -> tuple[list[int], _evidence.Evidence]:
    """What an export of the console proves by the server's key."""
    lines = lines_in(exported(index, None, NOW, task=task) or b"")
    found = _evidence.check_evidence(lines, [SERVER.public])
    decided = [one for one in found.records if one.record["kind"] == "decision"]
    assert all(one.by != "nothing" for one in decided)
    return [one.record["seq"] for one in decided], found


@pytest.mark.parametrize("source", ["", "trail*"])
@pytest.mark.parametrize("name", ["trail.jsonl.{}", "trail-2026120{}.jsonl", "trail.jsonl-2026120{}"])
@pytest.mark.parametrize("looks", ["meanwhile", "after"])
def test_a_file_that_continues_another_is_one_trail_with_it(tmp_path: Path, source: str, name: str, looks: str) -> None:
    """Rotated twice while it is looked at, or before: one name, one count, and evidence across the files."""
    trail, ask = kept_trail(tmp_path)
    path, first, second = tmp_path / "trail.jsonl", tmp_path / name.format(1), tmp_path / name.format(2)
    index = Index(":memory:", [tmp_path / source]) if looks == "meanwhile" else None
    with trail:
        for round in range(3):
            ask()
            if index is not None:
                index.take()
            trail.sign()
            if round < 2:
                moved(trail, path, *((first, second) if ".{}" in name else (first,) if not round else (second,)))
    index = index or Index(":memory:", [tmp_path / source])
    index.take()
    assert whole(index) == [("trail", 3, None, None)]
    assert {row["server"] for row in views.decisions_view(index)["rows"]} == {"trail"}
    (facts,) = views.now_view(index, None, NOW)["trails"]
    assert facts["records"] == 9 and facts["lacks"] is None
    (node,) = views.task_view(index, None, lambda _, __: None, NOW, TASK)["nodes"]  # type: ignore[index]
    assert node["servers"] == ["trail"] and node["allowed"] == 3
    seqs, found = proved(index)
    assert seqs == [2, 5, 8] and [one.after for one in found.said.trails] == [None]
    index.verify()
    assert whole(index) == [("trail", 3, None, None)]
    index.close()


def continued(tmp_path: Path) -> tuple[Path, Path]:
    """A trail in two files: the first, and the one that continues it."""
    trail, ask = kept_trail(tmp_path)
    path, old = tmp_path / "trail.jsonl", tmp_path / "trail.jsonl.1"
    with trail:
        ask()
        trail.sign()
        moved(trail, path, old)
        ask()
    return old, path


def test_a_file_whose_past_is_not_here_says_so_and_is_shown(tmp_path: Path) -> None:
    """Given alone. Its own checkpoints prove what is there. Once the file before is there, it is whole."""
    old, path = continued(tmp_path)
    index = Index(":memory:", [path])
    index.take()
    index.verify()
    missing = "it continues a file that is not here, after record 3"
    assert whole(index) == [("trail", 1, None, missing)]
    (facts,) = views.now_view(index, None, NOW)["trails"]
    assert facts["records"] == 3 and facts["lacks"] == missing
    assert len(views.decisions_view(index)["rows"]) == 1
    seqs, found = proved(index)
    assert seqs == [5] and found.said.trails[0].begins.seq == 3
    assert missing.encode() in (exported(index, None, NOW, task=TASK) or b"")

    away = old.rename(tmp_path / "away")
    folder = Index(":memory:", [tmp_path])
    folder.take()
    assert [lacks for *_, lacks in whole(folder)] == [missing]
    away.rename(old)
    folder.take()
    assert whole(folder) == [("trail", 2, None, None)]
    assert proved(folder)[0] == [2, 5]


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_a_file_that_is_moved_out_of_sight_does_not_stop_the_next(tmp_path: Path, empty: bool, kept: bool) -> None:
    """Into another folder. What was read of it counts, and what continues it is read: also where nothing is in it yet."""
    trail, ask = kept_trail(tmp_path)
    path = tmp_path / "trail.jsonl"
    (tmp_path / "old").mkdir()
    index = Index(tmp_path / "kept.db", [path])
    with trail:
        ask()
        index.take()
        moved(trail, path, tmp_path / "old" / "trail.jsonl")
        if kept:
            index.close()
            index = Index(tmp_path / "kept.db", [path])
        if empty:
            index.take()
        ask()
        index.take()
        ((name, files, trouble, lacks),) = whole(index)
        assert (name, files, lacks) == ("trail", 2, None) and "No such file" in (trouble or "")
        rows = views.decisions_view(index)["rows"]
        assert [row["seq"] for row in rows] == [4, None], "what is not there any more is not shown"
    index.close()


def test_a_number_that_is_given_away_again(tmp_path: Path) -> None:
    """The oldest file is removed, and its number goes to the next: neither is taken for the other."""
    trail, ask = kept_trail(tmp_path)
    path, old = tmp_path / "trail.jsonl", tmp_path / "trail.jsonl.1"
    index = Index(":memory:", [tmp_path])
    with trail:
        for _ in range(3):
            ask()
            index.take()
            old.unlink(missing_ok=True)
            moved(trail, path, old)
        ask()
        index.take()
    assert [row["seq"] for row in views.decisions_view(index)["rows"]][:2] == [8, 6]
    ((name, files, trouble, lacks),) = whole(index)
    assert (name, files, lacks) == ("trail", 4, None) and "No such file" in (trouble or "")


def forged(path: Path, after: Head) -> None:
    """A stranger's file: it claims to continue a record that the stranger has read."""
    with TrailFile(path) as file:
        trail = AuditTrail(file.write, head=after, key=AuditKey.generate())
        verifier(audit=trail).check(mint(), data("sales"))
        trail.checkpoint()


@pytest.mark.parametrize("name", ["a.jsonl", "z.jsonl"])
def test_a_strangers_file_that_claims_to_continue_does_not_look_whole(tmp_path: Path, name: str) -> None:
    """Whatever record it names, and whether it is read before or after the file that it imitates."""
    old, _ = continued(tmp_path)
    with open(old, "rb") as lines:
        *_, (_, end) = numbered(lines, Head())
    strange = tmp_path / name
    for after in (Head(3, b64encode(bytes(32))), Head(9, end.hash), Head(2, end.hash)):
        forged(strange, after)
        index = Index(":memory:", [tmp_path])
        index.take()
        assert {lacks for *_, lacks in whole(index)} == {None, f"it continues a file that is not here, after record {after.seq}"}
        assert ("trail", 2, None, None) in whole(index)
        strange.unlink()

    # The place of the real one: neither looks whole, and both are read on.
    forged(strange, end)
    index = Index(":memory:", [tmp_path])
    index.take()
    twins = "two files claim the same place around record 3: one of them is a copy, or forged"
    assert sorted(lacks or "" for *_, lacks in whole(index)) == ["", twins, twins]
    assert len(views.decisions_view(index)["rows"]) == 3
    found = _evidence.check_evidence(lines_in(exported(index, None, NOW, task=TASK) or b""))
    assert [one.trouble for one in found.said.trails].count(twins) == 2
    strange.unlink()

    # Another file that ends where the real one does.
    shutil.copy(old, strange)
    index = Index(":memory:", [tmp_path])
    index.take()
    assert sorted(lacks or "" for *_, lacks in whole(index)) == ["", "", twins]

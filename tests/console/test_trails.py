"""The files of trails that a console follows: rotated, moved, cut, gone, and claimed by strangers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from captoken import Access
from captoken._format.encoding import b64encode
from captoken.audit import Head, _evidence
from captoken.audit._check import numbered
from captoken.audit._kept import TrailKept
from captoken.cli.console import views
from captoken.cli.console.export import exported
from captoken.cli.console.index import Index
from captoken.cli.evidence_page import lines_in
from captoken.keys import AuditKey
from tests.console.fixtures import World
from tests.console.test_index import edited, forged, rotated, story, whole
from tests.fixtures import NOW, WHO, clock, data, mint, verifier

TASK = WHO["task"]


SERVER = AuditKey.from_bytes(bytes(range(32)))


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


def test_a_file_that_is_shorter_than_it_was_is_another_one(world: World) -> None:
    story(world)
    copy = world.path.with_name("copy.jsonl")
    shutil.copy(world.path, copy)
    index = Index(":memory:", [copy])
    index.take()
    os.truncate(copy, 100)
    index.take()
    assert "shorter than it was" in (index.trails()[0].trouble or "")


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

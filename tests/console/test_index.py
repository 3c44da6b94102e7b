"""The index says what the trails say, takes what is new once, and believes nothing that does not hold together."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from captoken import Issuer, Keyring, Token
from captoken._format.encoding import b64encode, encode_json
from captoken.audit import AuditTrail, Head, analysis, read
from captoken.cli.console import tables, trails, views
from captoken.cli.console.index import Index
from captoken.keys import AuditKey
from captoken.stores.trail_file import TrailFile
from tests.console.fixtures import World
from tests.fixtures import data, mint, verifier

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

    newer = tables.VERSION._replace(steps=(*tables.VERSION.steps, *tables.VERSION.steps))
    monkeypatch.setattr(Index, "_layout", tables.INDEX._replace(schema=newer))
    third = Index(path, [world.path])
    assert third.rows("select count(*) from hops") == [(0,)]
    third.take()
    assert third.rows("select count(*) from hops") == [(4,)]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda lines: lines[:3] + lines[4:], "records were cut out, or are in another order"),
        (lambda lines: [lines[0], lines[1].replace(b"sales", b"salez"), *lines[2:]], "one of them was changed"),
        (lambda lines: [*lines[:3], lines[3].replace(b"sales", b"salez"), *lines[4:]], "one of the two is forged"),
        (lambda lines: [*lines[:3], b"{}\n", *lines[3:]], "does not name its kind"),
        (lambda lines: [*lines[:3], b"no JSON\n", *lines[3:]], "is not a record"),
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


def edited(path: Path, was: bytes, now: bytes) -> None:
    """One record says something else, in as many bytes."""
    data = path.read_bytes()
    assert len(was) == len(now) and was in data
    path.write_bytes(data.replace(was, now, 1))


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


def rotated(world: World, name: str) -> Path:
    """The file is renamed, and the server begins another one: as docs/audit.md has it."""
    old = world.path.with_name(name)
    world.trail.close()
    world.path.rename(old)
    world.open_trail()
    return old


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
    [([bytes([0, at] * 16) for at in range(65)], "cannot be read"), ([bytes(32)] * 2, "one link id for two links")],
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


def whole(index: Index) -> list[tuple[str, int, str | None, str | None]]:
    return [(one.name, len(one.files), one.trouble, one.lacks) for one in index.wholes()]


def forged(path: Path, after: Head) -> None:
    """A stranger's file: it claims to continue a record that the stranger has read."""
    with TrailFile(path) as file:
        trail = AuditTrail(file.write, head=after, key=AuditKey.generate())
        verifier(audit=trail).check(mint(), data("sales"))
        trail.checkpoint()

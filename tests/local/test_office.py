"""The office: all of it in one folder, made once, for one process; and what is missing is never begun anew in silence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from captoken import Access, Denied, Token, Verifier
from captoken.audit import read
from captoken.cli.app import commands
from captoken.errors import AuditError, CaptokenError, OverlayError, StoreError
from captoken.keys import AuditKey, OperatorKey
from captoken.local import Office
from captoken.testing import FixedClock
from tests.fixtures import SALES, WHO, data, tool

ASK = data("sales")


def opened(folder: Path, clock: FixedClock, **facts: Any) -> Office:
    return Office.open(folder, clock=clock, **facts)


def minted(office: Office, **caveats: Any) -> Token:
    return office.mint(**WHO, **{**SALES, "expires_in": 6000, **caveats})


def test_one_folder_has_all_and_is_made_once(folder: Path, clock: FixedClock) -> None:
    """What was revoked, counted and recorded stands when it is opened again, however long after."""
    with opened(folder, clock) as office:
        counted, other = minted(office, uses=2), minted(office, expires_in=10**6)
        assert office.verifier.check(counted, ASK)
        entry = office.revoke(token=other.token_id, why="lost")
        made = office.keyring.key_ids
    clock.advance(3 * 3600)
    counted_again = 0
    with opened(folder, clock) as office:
        assert office.keyring.key_ids == made and [one.id for one in office.operator.entries()] == [entry.id]
        assert office.verifier.check(other, ASK).code == "revoked"
        (root, _) = office.audit().roots
        counted_again = root.allowed
    assert counted_again == 1


def test_counts_go_on_where_they_were(folder: Path, clock: FixedClock) -> None:
    with opened(folder, clock) as office:
        token = minted(office, uses=2)
        assert office.verifier.check(token, ASK)
    with opened(folder, clock) as office:
        assert [office.verifier.check(token, ASK).code for _ in range(2)] == ["allowed", "budget_exhausted"]


def test_after_everything_was_revoked_a_new_name_does_not_help_and_the_error_says_until_when(folder: Path, clock: FixedClock) -> None:
    with opened(folder, clock) as office:
        entry = office.operator.revoke_all(why="stop")
        for agent in ("orchestrator", "other"):
            with pytest.raises(OverlayError, match=r"new ones too: wait until then, or give the rights back") as raised:
                office.mint(**{**WHO, "agent": agent}, **SALES)
            assert "tokens minted before 2025-11-25T09:01:01+00:00 are revoked ('stop')" in str(raised.value)
        clock.advance(61)
        assert office.verifier.check(office.mint(**WHO, **SALES), ASK)
        office.operator.lift(entry.id)


def test_a_name_that_no_token_had_is_revoked_and_a_warning_says_so(
    folder: Path, clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """By what was minted lately, in this process, and by the trail: after a new start too."""

    def warned(office: Office, **select: Any) -> bool:
        caplog.clear()
        entry = office.end_task(**select) if list(select) == ["task"] else office.revoke(why="w", **select)
        lines = [record.getMessage() for record in caplog.records]
        assert lines in ([], [f"revoked, but no token of {what} {name!r} was minted or used here so far: is the name right? "
                              f"office.operator.lift({entry.id!r}) takes it off again" for what, name in select.items()])  # fmt: skip
        office.operator.lift(entry.id)
        return bool(lines)

    who = {"subject": "user:bob", "agent": "clerk", "task": "q3/risk"}
    with opened(folder, clock) as office:
        office.mint(**who, **SALES)
        for known in ({"agent": "clerk"}, {"subject": "user:bob"}, {"task": "q3/risk"}, {"task": "q3"}, {"kid": "k"}):
            assert not warned(office, **known), known
        for unknown in ({"agent": "cler"}, {"subject": "user:bobby"}, {"task": "q3/ris"}, {"task": "q"}):
            assert warned(office, **unknown), unknown
        assert office.verifier.check(office.mint(**WHO, **SALES).delegate(to="helper", task="task-123/sub"), ASK)
    with opened(folder, clock) as office:
        for known in ({"agent": "helper"}, {"agent": "orchestrator"}, {"task": "task-123"}, {"task": "task-123/sub"}):
            assert not warned(office, **known), known
        for unknown in ({"agent": "clerk"}, {"agent": "help"}, {"task": "q3"}, {"task": "task-12"}):
            assert warned(office, **unknown), unknown  # minted by a process that is over, and never used


def test_what_the_operator_says_counts_at_once(folder: Path, clock: FixedClock) -> None:
    """By the methods, and by the operator itself; the number of it is kept for the next process."""
    with opened(folder, clock) as office:
        token = minted(office, tools={"pay": {}})
        grant = office.verifier.authenticate(token)
        entry = office.operator.narrow(task="task-123", tables=["hr"], operations=["select"], why="a look")
        assert grant.check(ASK).code == "narrowed"
        office.operator.lift(entry.id)
        assert grant.check(ASK)
        office.end_task("task-123")
        assert grant.check(tool("pay")).code == "revoked"
        last = office.operator.last
        assert (folder / "operator.json.seen").read_text().split()[0] == str(last)
        office.operator.renew()
    assert (folder / "operator.json.seen").read_text().split()[0] == str(last + 1)


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def flipped(byte: bytes) -> bytes:
    """Another character of base64url."""
    return b"B" if byte == b"A" else b"A"


CHANGES: dict[str, Any] = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(b"".join(lines(path)[:-1])),
    "cut in the middle": lambda path: path.write_bytes(b"".join(lines(path)[:1] + lines(path)[2:])),
    "flipped in the first record": lambda path: path.write_bytes(path.read_bytes().replace(b"allowed", b"allowee", 1)),
    "flipped in the last record": lambda path: path.write_bytes(path.read_bytes()[:-9] + flipped(path.read_bytes()[-9:-8]) + path.read_bytes()[-8:]),
    "swapped": lambda path: path.write_bytes(b"".join([*lines(path)[:-2], *lines(path)[:-3:-1]])),
    "of another office": lambda path: path.write_bytes((path.parent.parent / "other" / path.name).read_bytes()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_trail_that_is_not_as_it_was_left_is_refused(folder: Path, clock: FixedClock, change: Any) -> None:
    for place in (folder, folder.parent / "other"):
        with opened(place, clock) as office:
            for _ in range(3):
                assert office.verifier.check(minted(office), ASK)
    path = folder / "trail.jsonl"
    before = path.read_bytes()
    change(path)
    assert path.read_bytes() != before
    for _ in range(2):
        with pytest.raises(AuditError, match="is not as the office left it") as caught:
            opened(folder, clock)
        assert str(path) in str(caught.value) and "put empty files" in str(caught.value)
    path.write_bytes(before)
    opened(folder, clock).close()

    # What it says to do.
    path.write_bytes(b"")
    (folder / "trail.jsonl.seen").write_bytes(b"")
    with opened(folder, clock) as office:
        assert office.verifier.check(minted(office), ASK)
    for wrong in (b"{}\n", b"no", b'{"seq":"9"}\n'):
        (folder / "trail.jsonl.seen").write_bytes(wrong)
        with pytest.raises(AuditError, match="must hold the last record that the office saw"):
            opened(folder, clock)


def test_what_was_seen_of_the_trail_is_kept_while_the_office_is_open(folder: Path, clock: FixedClock) -> None:
    """It may end without a close: what was written by the last look at the overlay has to be there."""
    office = opened(folder, clock)
    assert office.verifier.check(minted(office), ASK)
    clock.advance(10)
    assert office.verifier.check(minted(office), ASK)
    seen = (folder / "trail.jsonl.seen").read_bytes()
    assert seen
    office.end_task("other")
    assert (folder / "trail.jsonl.seen").read_bytes() != seen
    office.close()


FORGETFUL = """
import os, sys
from captoken import Access
from captoken.local import Office
office = Office.open(sys.argv[1])
token = office.mint(subject="user:jane", agent="a", task="t", tables=["sales"], operations=["select"])
office.verifier.check(token, Access(table="sales", operation="select"))
if os.fork() == 0:
    sys.exit()
os.wait()
print(os.stat(sys.argv[1] + "/trail.jsonl.seen").st_size)
"""


def test_a_program_that_does_not_close_it_leaves_what_it_saw_of_the_trail(folder: Path) -> None:
    """A child of it leaves nothing: the trail is its parent's."""
    ran = subprocess.run([sys.executable, "-c", FORGETFUL, str(folder)], capture_output=True, text=True, check=True)
    assert (ran.stdout.strip(), ran.stderr) == ("0", "")
    assert (folder / "trail.jsonl.seen").stat().st_size
    (folder / "trail.jsonl").write_bytes(b"")
    with pytest.raises(AuditError, match="was there before"):
        Office.open(folder)


@pytest.mark.parametrize("gone", [False, True], ids=["is there", "is gone"])
def test_what_is_closed_at_the_end_of_a_program_tells_nobody(folder: Path, clock: FixedClock, gone: bool) -> None:
    office = opened(folder, clock)
    office.verifier.check(office.mint(**WHO, **SALES), data("sales"))
    if gone:
        shutil.rmtree(folder)
    office._close_at_exit(os.getpid() + 1)
    assert office.trail is not None and office._is_open
    office._close_at_exit(os.getpid())
    assert not office._is_open


def test_what_is_revoked_as_it_is_minted_is_refused_at_the_mint(folder: Path, clock: FixedClock) -> None:
    with opened(folder, clock) as office:
        ended = office.end_task("task-123", why="done")
        for task in ("task-123", "task-123/part"):
            with pytest.raises(OverlayError, match="task task-123 are revoked") as caught:
                office.mint(**{**WHO, "task": task}, **SALES)
            assert "('done')" in str(caught.value) and f"lift({ended.id!r})" in str(caught.value)
        office.operator.narrow(task="task-1234", operations=["select"], why="reads only")
        assert office.verifier.check(office.mint(**{**WHO, "task": "task-1234"}, **SALES), ASK)
        office.operator.lift(ended.id)
        assert office.verifier.check(minted(office), ASK)
        office.revoke(agent="orchestrator", why="strange")
        with pytest.raises(OverlayError, match="agent orchestrator"):
            minted(office)
        other = office.mint(**{**WHO, "agent": "other"}, **SALES)
        office.revoke(token=other.token_id, why="lost")
        assert office.mint(**{**WHO, "agent": "other"}, **SALES).token_id != other.token_id


def test_a_store_that_went_back_is_refused(folder: Path, clock: FixedClock) -> None:
    """Else a copy of yesterday would give back what was revoked since."""
    opened(folder, clock).close()
    shutil.copy(folder / "overlay.db", folder / "old")
    with opened(folder, clock) as office:
        office.end_task("task-123")
    shutil.move(folder / "old", folder / "overlay.db")
    with pytest.raises(OverlayError, match="the store has lost snapshots"):
        opened(folder, clock)
    (folder / "operator.json.seen").write_text("many\n")
    with pytest.raises(OverlayError, match="must hold the number of the last snapshot"):
        opened(folder, clock)


def test_what_is_closed_mints_and_allows_nothing(folder: Path, clock: FixedClock) -> None:
    office = opened(folder, clock)
    token = minted(office)
    office.close()
    office.close()
    assert office.verifier.check(token, ASK).code == "store_unavailable"
    calls: list[Any] = [lambda: minted(office), lambda: office.revoke(agent="a", why="b"), lambda: office.end_task("t"), office.audit]
    for call in calls:
        with pytest.raises(StoreError, match="was closed: open it again"):
            call()


def test_the_trail_tells_who_did_what_and_is_checked_first(folder: Path, clock: FixedClock) -> None:
    with opened(folder, clock, values=True) as office:
        root = minted(office, tools={"pay": {}})
        child = root.delegate(to="helper", tools={"pay": {}})
        for asked in (tool("pay", cents=5), ASK):
            office.verifier.check(child, asked)
        seen = office.audit()
        assert [(hop.agent, hop.allowed, hop.denied) for hop in seen.hops()] == [("orchestrator", 0, 0), ("helper", 1, 1)]
        assert seen.decisions[0].access is not None and seen.decisions[0].access.arguments == {"cents": 5}

        # What another thread is writing at the moment is not a record yet.
        trail = folder / "trail.jsonl"
        with trail.open("ab") as file:
            file.write(b'{"half')
        whole = trail.read_bytes()
    os.truncate(trail, len(whole) - len(b'{"half'))
    with opened(folder, clock) as office:
        lines = trail.read_bytes()
        trail.write_bytes(lines.replace(b'"cents":5', b'"cents":6'))
        with pytest.raises(AuditError, match="one of them was changed"):
            office.audit()


def test_a_record_that_is_being_written_is_not_read_yet(folder: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder, clock) as office:
        office.verifier.check(minted(office), ASK)
        checkpoint = office.trail.checkpoint

        def meanwhile() -> Any:
            head = checkpoint()
            with (folder / "trail.jsonl").open("ab") as file:
                file.write(b'{"half')
            return head

        monkeypatch.setattr(office.trail, "checkpoint", meanwhile)
        assert len(office.audit().decisions) == 1


def test_each_part_is_what_it_is_without_the_office(folder: Path) -> None:
    """The commands and the classes take the files as they are: so nothing of it is a dead end."""
    with Office.open(folder) as office:
        token = office.mint(**WHO, **SALES)
        operator = OperatorKey.load(folder / "operator.json").public
        given = ["--key", str(folder / "operator.json"), "--store", str(folder / "overlay.db")]
        said = CliRunner().invoke(commands, ["revoke", *given, "--agent", "orchestrator", "--why", "from outside"], standalone_mode=False)
        assert said.exception is None, said.output
        office.operator.renew()
        assert office.verifier.check(token, ASK).code == "revoked"
        assert office.operator.entries()[0].why == "from outside"

        another = Verifier(office.keyring, overlay=office.overlay, ledger=office.ledger, replays=office.replays, audit=office.trail)
        with pytest.raises(Denied, match="revoked"):
            another.authorize(token, ASK)
    shown = CliRunner().invoke(commands, ["overlay", "--store", str(folder / "overlay.db"), "--operator", operator])
    assert "from outside" in shown.output
    server = AuditKey.load(folder / "audit.json").public
    with Office.open(folder) as office:
        assert office.audit_key.public == server and len(office.audit().decisions) == 2
    with (folder / "trail.jsonl").open("rb") as lines:
        assert [record["kind"] for record in read(lines)] == ["token", "decision", "decision", "checkpoint"]
    said = CliRunner().invoke(commands, ["audit", "verify", str(folder / "trail.jsonl"), "--server", server])
    assert said.output.startswith("WHOLE ")


def test_all_that_it_raises_is_captokens(folder: Path) -> None:
    assert issubclass(StoreError, CaptokenError) and issubclass(OverlayError, CaptokenError)
    with Office.open(folder) as office, pytest.raises(ValueError, match="name the tables"):
        office.mint(**WHO)
    assert Access(tool="pay")  # nothing of an office is global


def test_what_restricts_nothing_is_misspelt(tmp_path: Path) -> None:
    """Columns or rows of a table that no named one can be: the table itself would be open."""
    with Office.open(tmp_path / "state", servers=["a", "b"]) as office:
        who: dict[str, Any] = {"subject": "user:jane", "agent": "boss", "task": "t", "operations": ["select"]}
        for wrong in ({"columns": {"custmers": ["id"]}}, {"rows": {"custmers": {"tenant": {"in": ["a"]}}}}):
            with pytest.raises(ValueError, match="names 'custmers', which is not among the tables"):
                office.mint(**who, tables=["customers"], **wrong)
            with pytest.raises(ValueError, match="names 'custmers'"):
                office.mint_set(**who, servers={"a": {"tables": ["customers"], **wrong}, "b": {"tables": ["x"]}})
        for tables, named in ((["customers"], "customers"), (["shop.*"], "shop.orders"), (["shop.orders"], "shop.*"), (["x"], "*")):
            office.mint(**who, tables=tables, columns={named: ["id"]})
        office.mint(subject="user:jane", agent="boss", task="t", tools={"f": {}})

"""A trail with odd refusals is shown, and what a guard denies is noted."""


import json
import sqlite3
from contextlib import closing

import pytest

from captoken import Access, Denied, Issuer, Verifier
from captoken._format.encoding import b64encode, encode_json
from captoken._format.primitives import sha256
from captoken.adapters.sqlite import guarded
from captoken.audit import AuditTrail
from captoken.cli import app
from captoken.cli.view import Shown, view
from captoken.stores.ports import Head
from captoken.stores.trail_file import TrailFile
from captoken.testing import FixedClock
from tests.cli.test_cli import KEYRING, NOW


@pytest.mark.parametrize("odd", [[1], [{}], "none", {"text": "no"}, [{"text": 1, "added_by": [2]}]])
def test_a_trail_with_odd_refusals_is_shown(odd, tmp_path, capsys):
    """Whoever writes a trail may write anything there."""
    record = {"kind": "decision", "seq": 1, "prev": Head().hash, "at": NOW, "allowed": False, "code": "tool", "refusals": odd}
    (tmp_path / "trail.jsonl").write_bytes(encode_json(record) + b"\n")
    for options in ([], ["--json"]):
        assert app.run(["audit", "log", str(tmp_path / "trail.jsonl"), *options]) == 0
    assert capsys.readouterr().out.startswith("2")


def test_a_long_log_is_whole_and_in_order(tmp_path, capsys):
    """More lines than are written at once, which were written as they came: each of them, by time, and equal times as they stand."""
    head, lines = Head(), []
    for seq in range(1, 2502):
        record = {"kind": "decision", "seq": seq, "prev": head.hash, "at": NOW + seq * 7919 % 500, "allowed": False, "code": "table", "access": {"table": f"t{seq}"}}
        lines.append(encode_json(record))
        head = Head(seq, b64encode(sha256(lines[-1])))
    (tmp_path / "trail.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    assert app.run(["audit", "log", str(tmp_path / "trail.jsonl")]) == 0
    shown = [(line[:20], int(line.rpartition("t")[2])) for line in capsys.readouterr().out.splitlines()]
    assert len(shown) == 2501 and shown == sorted(shown)
    assert app.run(["audit", "log", str(tmp_path / "trail.jsonl"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["decisions"]
    assert [each["seq"] for each in found] == [seq for _, seq in shown]


def test_one_decision_is_found_by_its_id(tmp_path, capsys):
    trail = tmp_path / "trail.jsonl"
    verifier = Verifier(KEYRING, clock=FixedClock(NOW), audit=AuditTrail(TrailFile(trail).write))
    token = Issuer(KEYRING, clock=FixedClock(NOW)).mint(subject="user:jane", agent="clerk", task="t", tables=["a"], operations=["select"])
    denied = [verifier.check(token, Access(table=table, operation="select")) for table in ("b", "c")]
    assert app.run(["audit", "log", str(trail), "--id", denied[1].id]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "table c" in line
    assert app.run(["audit", "log", str(trail), "--id", denied[0].id, "--json"]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)["decisions"]] == [denied[0].id]
    for more in ([], ["--json"]):
        assert app.run(["audit", "log", str(trail), "--id", "nothing", *more]) == 2
        assert "no decision has the id nothing" in capsys.readouterr().err


def seen_of(token, discharges=()):
    return view(Shown(token, discharges, len(token.serialize())), NOW)


@pytest.mark.parametrize(
    ("operations", "columns"),
    [
        (["insert", "select"], {"people": ["name"]}),
        (["delete"], {"people": ["name"]}),
        (["*"], {"people": ["*"]}),
        (["select", "update"], {"people": ["name"]}),
        (["insert", "delete"], {"other": ["name"]}),
        (["insert", "delete"], {}),
    ],
)
def test_what_a_sqlite_guard_denies_of_restricted_columns_is_noted(operations, columns):
    """The note names what the token holds and the guard denies for its columns, and nothing else."""
    token = Issuer(KEYRING, clock=FixedClock(NOW)).mint(
        subject="user:jane", agent="clerk", task="t", tables=["people"], operations=operations, **({"columns": columns} if columns else {})
    )
    connection = sqlite3.connect(":memory:")
    connection.execute("create table people (name text, pay integer)")
    grant = Verifier(KEYRING, clock=FixedClock(NOW)).authenticate(token)
    denied = []
    with closing(connection), guarded(connection, grant) as db:
        for operation, sql in (("insert", "insert into people (name) values ('a')"), ("delete", "delete from people")):
            try:
                db.execute(sql)
            except Denied as error:
                held = grant.check(Access(table="people", operation=operation, columns=["name"]))
                denied += [operation] if held and error.code == "column" else []
    notes = [line for line in seen_of(token).summary if line.startswith("note ")]
    said = f"note      a SQLite guard denies {' and '.join(denied)} on people: the columns are restricted"
    assert notes == ([said] if denied else [])

"""`captoken audit export` and `verify` of what it wrote: as a page and as lines, each byte of both."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from captoken.audit import AuditTrail, _evidence
from captoken.audit._kept import TrailKept
from captoken.cli import evidence, evidence_page
from captoken.cli.logged import Asked
from captoken.errors import AuditError
from captoken.keys import AuditKey
from captoken.stores.trail_file import TrailFile
from tests.fixtures import data, mint, verifier

SERVER = AuditKey.from_bytes(bytes(range(32)))
HOSTILE = '<img src=x onerror="alert(1)">\u0430'


@pytest.fixture
def lines(tmp_path: Path) -> list[bytes]:
    with TrailFile(tmp_path / "trail.jsonl") as file:
        trail = AuditTrail(file.write, key=SERVER)
        one = verifier(audit=trail)
        child = mint().delegate(to="sales-agent", tables=["sales"])
        for table in ("sales", "hr", HOSTILE):
            one.check(child, data(table))
        trail.checkpoint()
        one.check(mint(), data("sales"))
    survey = _evidence.survey("trail", evidence.lines_of(str(tmp_path / "trail.jsonl")), Asked().includes)
    return list(_evidence.exported([survey], asked=Asked(), at=1))


def verified(content: bytes) -> _evidence.Evidence:
    return evidence.verified(io.BufferedReader(io.BytesIO(content)), [SERVER.public])


def test_each_byte_of_a_page_that_is_changed_is_found(lines: list[bytes]) -> None:
    """What people read is what the lines say: the page is made again. A thousand places, and each of the end."""
    page = evidence_page.page_of(lines, _evidence.check_evidence(lines))
    assert verified(page) == verified(b"".join(lines))
    drawn = random.Random(7)
    for at in [*drawn.sample(range(len(page)), 1000), *range(len(page) - 40, len(page))]:
        for harmed in (bytes([page[at] ^ 1 << drawn.randrange(8)]), b"", page[at : at + 1] * 2):
            changed = page[:at] + harmed + page[at + 1 :]
            if changed != page:
                with pytest.raises(AuditError):
                    verified(changed)
    for word, other in ((b"sealed by checkpoint", b"sealed by  checkpoint"), (b"refused", b"allowed"), (b"not sealed yet", b"sealed")):
        assert word in page
        with pytest.raises(AuditError, match="the page around them is not what they say"):
            verified(page.replace(word, other, 1))
    with pytest.raises(AuditError):
        verified(b"".join(lines) + b"x")


def test_a_page_has_no_markup_of_a_stranger(lines: list[bytes]) -> None:
    page = evidence_page.page_of(lines, _evidence.check_evidence(lines)).decode("ascii")
    assert "<img" not in page and "<script" not in page and "&lt;img src=x" in page and "\\u0430" in page
    assert "default-src &#x27;none&#x27;" in page and "(added by orchestrator)" in page


def test_a_page_says_what_proves_each_and_who_is_behind_it(lines: list[bytes]) -> None:
    page = evidence_page.page_of(lines, _evidence.check_evidence(lines)).decode()
    assert page.count("sealed by checkpoint 5</td>") == 3 and page.count("not sealed yet") == 1
    assert "orchestrator (issued) &gt; sales-agent (vouched), for user:jane" in page
    assert "6 records of 7" not in page and "7 records of 7" in page and SERVER.public in page


def test_what_is_no_evidence_is_taken_for_a_trail(tmp_path: Path, lines: list[bytes]) -> None:
    for content, told in ((b"".join(lines), True), (b"<!doctype html>x", True), (b"", False), (b'{"kind":', False), (b"x", False)):
        file = tmp_path / "file"
        file.write_bytes(content)
        with open(file, "rb") as opened:
            assert evidence.is_evidence(opened) == told and opened.read() == content
    with pytest.raises(AuditError, match="a page without its evidence"):
        verified(b"<!doctype html>x")


def two_files(folder: Path) -> tuple[Path, Path]:
    """The trail of a server whose file was moved away while it ran."""
    path, old = folder / "trail.jsonl", folder / "trail.jsonl.1"
    with TrailKept(path, key=SERVER) as trail:
        server = verifier(audit=trail)
        server.check(mint(), data("sales"))
        trail.sign()
        path.rename(old)
        assert trail.reopen()
        server.check(mint(), data("hr"))
    return old, path


@pytest.mark.parametrize("turned", [False, True])
def test_files_that_continue_each_other_are_exported_as_one_trail(tmp_path: Path, turned: bool) -> None:
    old, path = two_files(tmp_path)
    out = tmp_path / "out.html"
    given = [str(path), str(old)] if turned else [str(old), str(path)]
    ran = CliRunner().invoke(evidence.export, [*given, "--out", str(out), "--json"])
    assert ran.exit_code == 0, ran.output
    found = verified(out.read_bytes())
    (trail,) = found.said.trails
    assert (trail.name, trail.after, trail.head.seq) == ("trail", None, 6)
    assert [one.record["seq"] for one in found.records] == [1, 2, 3, 4, 5, 6] and json.loads(ran.output)["proved"] == 2


def test_an_export_without_the_file_before_says_so(tmp_path: Path) -> None:
    _, path = two_files(tmp_path)
    out = tmp_path / "out.html"
    ran = CliRunner().invoke(evidence.export, [str(path), "--out", str(out)])
    missing = "it continues a file that is not here, after record 3"
    assert ran.exit_code == 0 and f"trail: 3 records; {missing}, up to 6" in ran.output
    assert missing in out.read_text()
    assert [one.record["seq"] for one in verified(out.read_bytes()).records] == [4, 5, 6]


def test_two_files_that_claim_one_place_are_exported_as_far_as_they_are_sealed(tmp_path: Path) -> None:
    old, path = two_files(tmp_path)
    twin = tmp_path / "twin.jsonl"
    twin.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    out = tmp_path / "out.jsonl"
    ran = CliRunner().invoke(evidence.export, [str(old), str(path), str(twin), "--out", str(out)])
    assert ran.output.count("two files claim the same place around record 3: one of them is a copy, or forged") == 2
    assert [(one.trail, one.record["seq"]) for one in verified(out.read_bytes()).records] == [(0, n) for n in (1, 2, 3)] + [(1, n) for n in (4, 5, 6)]

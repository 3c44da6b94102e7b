"""`captoken audit export` and `verify` of what it wrote: as a page and as lines, each byte of both."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

from captoken.audit import AuditTrail, _evidence
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
    page = evidence_page.page_of(lines, _evidence.prove(lines))
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
    page = evidence_page.page_of(lines, _evidence.prove(lines)).decode("ascii")
    assert "<img" not in page and "<script" not in page and "&lt;img src=x" in page and "\\u0430" in page
    assert "default-src &#x27;none&#x27;" in page and "(added by orchestrator)" in page


def test_a_page_says_what_proves_each_and_who_is_behind_it(lines: list[bytes]) -> None:
    page = evidence_page.page_of(lines, _evidence.prove(lines)).decode()
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

"""What must hold for any bytes at all: a function for each thing that reads strangers' bytes, which raises AssertionError.

Each takes bytes and looks at the answer: it is the documented error or a value, and the value is not what a forger would
like. Nothing here needs a fuzzer: `test_corpus.py` runs the same functions over what fuzzing has found.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_to_bytes

from captoken import Access, Keyring, Token, Verifier
from captoken._format import signed
from captoken._format.encoding import EncodingError, b64decode, decode_json, encode_json
from captoken._format.packet import decode, encode
from captoken._language import links, overlay
from captoken._language.caveats import V1
from captoken._language.link import BadLink
from captoken._language.links import read_link
from captoken._language.overlay import Overlay
from captoken.adapters._postgres.reader import read
from captoken.adapters.asgi import CaptokenMiddleware
from captoken.adapters.sqlite import guarded
from captoken.control import _recall
from captoken.errors import CaptokenError, OverlayError, RecallError, StatementError, TokenFormatError
from captoken.keys import OperatorKey

Target = Callable[[bytes], None]

NOW = 1_764_061_200
SELECT = Access(table="sales", operation="select")


class Clock:
    """The time of the tests. A second of the wall is twenty of it, so that nothing runs for long."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self) -> float:
        return NOW + int((time.monotonic() - self.began) * 20)


CLOCK = Clock()
KEYRING = Keyring.from_keys({"k1": sha256(b"fuzzing").digest()}, current="k1")
VERIFIER = Verifier(KEYRING, audience="server", clock=lambda: NOW)
OPERATOR = OperatorKey.from_bytes(sha256(b"an operator").digest())
# Minted once, so that an input which holds it is good in every run: select and insert on sales, the column region, to NOW + 30.
ROOT = (
    "cap1_AgJ3eyJhZ2VudCI6Im9yY2hlc3RyYXRvciIsImlhdCI6MTc2NDA2MTIwMCwianRpIjoiUTFEZ3dWSkdON1B2bEZkeTZwOFR"
    "5dyIsImtpZCI6ImsxIiwic3ViIjoidXNlcjpqYW5lIiwidGFzayI6InEzIiwidiI6MX0AAmV7ImNvbHVtbnMiOnsic2FsZXMiOls"
    "icmVnaW9uIl19LCJleHAiOjE3NjQwNjEyMzAsIm9wZXJhdGlvbnMiOlsiaW5zZXJ0Iiwic2VsZWN0Il0sInRhYmxlcyI6WyJzYWx"
    "lcyJdfQAABiCPGLpljggUq4TgOmL09KBpi9EGrRAmiAJ9-hZ5CdVpeQ"
)
PRESENTED = (
    "cap1_AgJ3eyJhZ2VudCI6Im9yY2hlc3RyYXRvciIsImlhdCI6MTc2NDA2MTIwMCwianRpIjoiUTFEZ3dWSkdON1B2bEZkeTZwOFR"
    "5dyIsImtpZCI6ImsxIiwic3ViIjoidXNlcjpqYW5lIiwidGFzayI6InEzIiwidiI6MX0AAmV7ImNvbHVtbnMiOnsic2FsZXMiOls"
    "icmVnaW9uIl19LCJleHAiOjE3NjQwNjEyMzAsIm9wZXJhdGlvbnMiOlsiaW5zZXJ0Iiwic2VsZWN0Il0sInRhYmxlcyI6WyJzYWx"
    "lcyJdfQACI3siYXVkIjpbInNlcnZlciJdLCJleHAiOjE3NjQwNjEyMjB9AAAGINYZ01LST9xxXdvE6w0d_Jql0W4HoO6jKucn6ve"
    "Ejf60"
)
GENUINE = frozenset((ROOT, PRESENTED))


# --- tokens --------------------------------------------------------------------------------------


def text(data: bytes) -> None:
    """A text is a token with this one spelling, or is refused by the one exception. Only a genuine one is let in."""
    given = data.decode("utf-8", "surrogateescape")
    try:
        held = Token.parse(given)
    except TokenFormatError:
        assert not VERIFIER.check(given, SELECT)
        return
    assert held.serialize() == given
    decision = VERIFIER.check(given, Access(table="sales", operation="select", columns=("region",)))
    assert not decision or given in GENUINE


def packet(data: bytes) -> None:
    """The bytes of a macaroon have one spelling."""
    with suppress(TokenFormatError, EncodingError):
        assert encode(decode(data)) == data


def json(data: bytes) -> None:
    """What is read as canonical JSON is written as it was."""
    with suppress(EncodingError):
        assert encode_json(decode_json(data)) == data


def link(data: bytes) -> None:
    """A link is read or not, and never raises. Both ways to read one agree, and it goes back to the same bytes."""
    found = read_link(data, V1)
    short = links._plain_link(data)
    if short is None:
        return
    assert short == found
    plain, links._plain_link = links._plain_link, lambda _: None  # type: ignore[assignment]
    try:
        general = read_link(data, V1)
    finally:
        links._plain_link = plain  # type: ignore[assignment]
    assert not isinstance(general, BadLink) and general == short


# --- what operators and holders send -------------------------------------------------------------


def snapshot(data: bytes) -> None:
    """A body that an operator signed is an overlay, or is refused by the one exception."""
    whole = signed.attach(data, OPERATOR.sign(overlay._OVERLAY + sha256(data).digest()))
    with suppress(OverlayError):
        opened = Overlay.open(whole, [OPERATOR.public])
        ids = [entry.id for entry in opened.entries]
        assert len(set(ids)) == len(ids) and opened.size == len(whole)
        # Entries in any order are read. The hash is of those in the order of their ids (36.17).
        assert (opened.digest == sha256(data).digest()) == (ids == sorted(ids))


def delta(data: bytes) -> None:
    """A delta that an operator signed leads to the overlay that it names, or to none."""
    change = signed.attach(data, OPERATOR.sign(overlay._DELTA + sha256(data).digest()))
    with suppress(OverlayError):
        followed = _STANDING.follow([change], [OPERATOR.public])
        assert followed.digest == b64decode(decode_json(data)["gives"]["hash"])


_BODY = (
    b'{"entries":[{"at":1764061200,"by":"ops","id":"b1","select":{"token":"MDEyMzQ1Njc4OWFiY2RlZg"},"why":"a reason"},'
    b'{"at":1764061200,"by":"ops","id":"d1","link":{"operations":["select"],"tables":["sales"]},"select":{"task":"task-123"},'
    b'"why":"a reason"}],"exp":1764064800,"iat":1764061200,"seq":7,"v":1}'
)
_STANDING = Overlay.open(signed.attach(_BODY, OPERATOR.sign(overlay._OVERLAY + sha256(_BODY).digest())), [OPERATOR.public])


def recall(data: bytes) -> None:
    """A request of a holder is read, or refused by the one exception, which is given back."""
    found = _recall._read(data.decode("utf-8", "surrogateescape"))
    if isinstance(found, RecallError):
        return
    assert found.links and found.why.strip() and type(found.after) is int


# --- requests ------------------------------------------------------------------------------------


class _Reached(Exception):
    """The application ran."""


async def _application(scope: Any, receive: Any, send: Any) -> None:
    raise _Reached(scope["raw_path"])


_GUARD = CaptokenMiddleware(_application, VERIFIER, origin="https://api.example", public={"/health"})
_LOOP = asyncio.new_event_loop()


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _ignored(message: Any) -> None:
    assert message["type"] in ("http.response.start", "http.response.body")
    if message["type"] == "http.response.start":
        assert 400 <= message["status"] < 500


def request(data: bytes) -> None:
    """Path, query and a header: the application runs for the public path and for a genuine token, and for nobody else."""
    target, _, authorization = data.partition(b"\n")
    raw, _, query = target.partition(b"?")
    scope = {
        "type": "http",
        "method": "GET",
        "path": unquote_to_bytes(raw).decode("utf-8", "replace"),  # as servers give it
        "raw_path": raw,
        "query_string": query,
        "scheme": "https",
        "headers": [(b"host", b"api.example"), *([(b"authorization", authorization)] * (b"\n" in data))],
    }
    try:
        _LOOP.run_until_complete(_GUARD(scope, _nothing, _ignored))  # type: ignore[arg-type]
    except _Reached:
        given = authorization.partition(b" ")[2].strip().decode("latin-1")
        assert raw == b"/health" or given in GENUINE


# --- SQL -----------------------------------------------------------------------------------------

_SECRET = "9f1c-secret"


def _database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.executescript(
        f"""
        create table sales (region text, amount integer, note text);
        create table hr (name text, pay text);
        create view pays as select pay from hr;
        create trigger copies after insert on sales begin insert into hr values (new.region, 'x'); end;
        insert into hr values ('jane', '{_SECRET}');
        insert into sales values ('eu', 5, '{_SECRET}');
        delete from hr where pay = 'x';
        """
    )
    return connection


_CONNECTION = _database()
_COUNT = "select (select group_concat(pay) from hr), (select group_concat(note) from sales), (select count(*) from sqlite_master)"
_WANTED = _CONNECTION.execute(_COUNT).fetchall()


_GRANT = Verifier(KEYRING, clock=CLOCK).authenticate(ROOT)


class _Back(Exception):
    """The block is rolled back."""


def sqlite(data: bytes) -> None:
    """A statement gives nothing of what is not granted, changes none of it, and ends by a documented error."""
    sql = data.decode("utf-8", "surrogateescape")
    CLOCK.began = time.monotonic()
    try:
        with guarded(_CONNECTION, _GRANT, max_rows=50, max_value=10_000) as db:
            rows = db.execute(sql).fetchall()
            assert _SECRET not in repr(rows)
            raise _Back
    except (_Back, CaptokenError) as error:
        assert _SECRET not in str(error)
    assert _CONNECTION.execute(_COUNT).fetchall() == _WANTED


def postgres(data: bytes) -> None:
    """A statement is read, refused, or no SQL. What is read twice is the same."""
    sql = data.decode("utf-8", "replace")
    try:
        first = read(sql)
    except StatementError:
        return
    second = read(sql)
    assert first.refusal == second.refusal and first.sql == sql


TARGETS: dict[str, Target] = {
    one.__name__: one for one in (text, packet, json, link, snapshot, delta, recall, request, sqlite, postgres)
}

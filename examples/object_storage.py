"""An overlay that lies in object storage, with conditional requests: a store of one's own.

    python examples/object_storage.py

An operator publishes to one bucket, and servers anywhere look there. The bucket needs two things
that S3, Google Cloud Storage, Azure and MinIO have. A read says "if it has changed", by the ETag
that the reader has. A write says "if it has not", by the ETag that the writer has read.

    head          small, and changes: the newest mark, the newest few deltas, what lies elsewhere
    whole/…       a snapshot; named by its hash, and never changed
    deltas/…      deltas that the head has no more room for; likewise

A server that looks asks for the head alone. If nothing is new the answer is 304, without a body.
Nobody need trust the bucket: what lies there is signed, and a feed never goes back.

The bucket here is a small HTTP server over a folder. Yours has an address and credentials.
"""

import logging
import tempfile
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec

from captoken import Access, Issuer, Keyring, Verifier
from captoken.control import Feed, Operator
from captoken.errors import StoreError
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from captoken.stores.ports import DELTAS

# What a feed comes upon is told by the story.
logging.getLogger("captoken").addHandler(logging.NullHandler())

HEAD = "head"
TOLD: list[tuple[str, str, int, int]] = []  # what the bucket was asked, and what it answered
INLINE = 8  # deltas that the head has in it: each server loads them whenever one is new
SMALL = 1 << 16  # bytes of a snapshot up to which readers load it whole: it is kept at hand
TAIL = 87  # characters behind the JSON object of a snapshot: a point, and the signature


# --- the store: nothing in it knows HTTP ----------------------------------------------------------


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A delta, and the marks of what it follows on and of what it gives."""

    after: bytes
    gives: bytes
    delta: bytes


class Page(msgspec.Struct, frozen=True, array_like=True):
    """Deltas in their order, and the name of the page with those before; "" is none."""

    before: str
    rows: list[Row]


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What is the newest, and where it lies."""

    mark: bytes  # of the newest; b"" is that nothing was published yet
    whole: str  # the name of the snapshot that was last published whole
    behind: int  # how many deltas lie behind that one
    kept: int  # how many of the newest deltas lead anywhere: see `since`
    page: Page  # the newest of them


class Seen(msgspec.Struct, frozen=True):
    """The head as it came last, with its ETag."""

    etag: str
    head: Head


_encode = msgspec.msgpack.encode
_decode_head = msgspec.msgpack.Decoder(Head).decode
_decode_page = msgspec.msgpack.Decoder(Page).decode


class Bucket(Protocol):
    """Two conditional requests. Both raise where they do not know."""

    def get(self, name: str, etag: str | None) -> tuple[str, bytes] | None:
        """The ETag and the bytes; None if the ETag is still that one.

        Raises StoreError for what is not there.
        """

    def put(self, name: str, data: bytes, etag: str | None) -> bool:
        """Write over what has that ETag; None is that nothing may be there.

        False where something else is there.
        """


class BucketSnapshots:
    """The newest snapshot of the overlay, in a bucket: a `SnapshotStore`.

        BucketSnapshots.create(bucket)      # once
        store = BucketSnapshots(bucket)     # from then on, one in each process

    Each step is decided by one conditional write of the head. What it names was written before, and
    is never written again. So a reader sees the old or the new. What a writer left behind that came
    second is named by no head, and can be deleted, as can be what no head has named for a day.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._seen: Seen | None = None  # the head, as it came last
        self._at_hand = ("", b"")  # a small snapshot, and its name

    @classmethod
    def create(cls, bucket: Bucket) -> Self:
        """A new one, where there is none: one that is missing later was lost, and is an error."""
        empty = Head(b"", "", 0, 0, Page("", []))
        if not bucket.put(HEAD, _encode(empty), None):
            raise StoreError("an overlay is there already")
        return cls(bucket)

    def load(self) -> bytes | None:
        """The newest snapshot, with the deltas that came since behind it; None is none yet."""
        head = self._look().head
        return self._lying(head)

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """Put a snapshot in the place of `after`. False if something else lies there."""
        seen = self._look()
        head = seen.head
        if self._lying(head) != after:
            return False

        # The same made whole: whoever is on the way to it by deltas goes on.
        mark = sha256(snapshot[:-TAIL]).digest()
        same = head.kept > 0 and mark == head.mark
        name = self._keep("whole", snapshot)
        kept = min(head.kept, DELTAS) if same else 0
        page = head.page if same else Page("", [])
        return self._swap(seen, Head(mark, name, 0, kept, page))

    def append(self, delta: bytes, after: bytes, gives: bytes) -> bool:
        """Put a delta behind what has the mark `after`. False if the newest has another."""
        seen = self._look()
        head = seen.head
        if head.mark != after or not head.mark:
            return False

        page = head.page
        if len(page.rows) >= INLINE:
            page = Page(self._keep("deltas", _encode(page)), [])
        page = Page(page.before, [*page.rows, Row(after, gives, delta)])
        return self._swap(seen, Head(gives, head.whole, head.behind + 1, head.kept + 1, page))

    def since(self, mark: bytes) -> list[bytes] | None:
        """The deltas that lead from that mark to the newest; None if it is not known here."""
        head = self._look().head
        if not head.mark:
            return None
        if mark == head.mark:
            return []
        found = []
        for row in self._backwards(head, head.kept):
            found.append(row.delta)
            if row.after == mark:
                return found[::-1]
        return None

    def _look(self) -> Seen:
        """The head as it is now: asked for each time, and sent only if it has changed."""
        seen = self._seen
        came = self._bucket.get(HEAD, seen.etag if seen else None)
        if came is None:
            assert seen is not None  # it is what the bucket was asked about
            return seen
        etag, data = came
        self._seen = seen = Seen(etag, _decode_head(data))
        return seen

    def _swap(self, seen: Seen, head: Head) -> bool:
        """The one step that counts: a new head, if the one that was read is still there."""
        return self._bucket.put(HEAD, _encode(head), seen.etag)

    def _keep(self, kind: str, data: bytes) -> str:
        """Put what never changes under its hash, and give the name."""
        name = f"{kind}/{sha256(data).hexdigest()}"
        self._bucket.put(name, data, None)  # False: the same is there already
        return name

    def _lying(self, head: Head) -> bytes | None:
        """All that `load` gives, by this head."""
        if not head.mark:
            return None
        rows = [row.delta for row in self._backwards(head, head.behind)]
        return b"\n".join([self._whole(head.whole), *rows[::-1]])

    def _whole(self, name: str) -> bytes:
        """A snapshot by its name, which no other has. What is small is asked for once."""
        known, data = self._at_hand
        if name != known:
            data = self._read(name)
            self._at_hand = (name, data) if len(data) <= SMALL else ("", b"")
        return data

    def _read(self, name: str) -> bytes:
        found = self._bucket.get(name, None)
        assert found is not None  # without an ETag it is sent whole
        return found[1]

    def _backwards(self, head: Head, most: int) -> Iterator[Row]:
        """The newest deltas, from the last one on, page by page."""
        page = head.page
        while True:
            rows = page.rows[-most:] if most else []
            yield from reversed(rows)
            most -= len(rows)
            if not most:
                return
            page = _decode_page(self._read(page.before))


# --- the bucket: two conditional requests ---------------------------------------------------------


class HttpBucket:
    """A bucket at an address: GET with If-None-Match, PUT with If-Match or If-None-Match.

    A connection for each request, which is simple. A client of your provider keeps them open, and
    signs what it sends.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, name: str, etag: str | None) -> tuple[str, bytes] | None:
        """The ETag and the bytes; None if the ETag is still that one.

        Raises StoreError, OSError.
        """
        status, came, data = self._ask("GET", name, {"If-None-Match": etag} if etag else {})
        if status == 304:
            return None
        if status != 200:
            raise StoreError(f"GET {name}: {status}")
        return came, data

    def put(self, name: str, data: bytes, etag: str | None) -> bool:
        """Write it, if what is there has this ETag; None is that nothing is there."""
        condition = {"If-Match": etag} if etag else {"If-None-Match": "*"}
        status, _, _ = self._ask("PUT", name, condition, data)
        if status not in (200, 412):  # of a bucket that answers 409: it is to be asked again
            raise StoreError(f"PUT {name}: {status}")
        return status == 200

    def _ask(
        self, method: str, name: str, headers: dict[str, str], body: bytes | None = None
    ) -> tuple[int, str, bytes]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request(method, f"/{name}", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("ETag", ""), answer.read()
        finally:
            connection.close()


class Served(BaseHTTPRequestHandler):
    """What a provider does: a folder of objects, each with the ETag of its bytes."""

    folder = Path()
    lock = threading.Lock()

    def do_GET(self) -> None:
        """An object, or 304 if the reader has it, or 404."""
        path = self.folder / self.path[1:]
        data = path.read_bytes() if path.is_file() else None
        if data is None:
            self._answer(404)
        elif self.headers["If-None-Match"] == etag_of(data):
            self._answer(304, etag_of(data))
        else:
            self._answer(200, etag_of(data), data)

    def do_PUT(self) -> None:
        """Take an object, or 412 if what the writer has read is not there any more."""
        data = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.folder / self.path[1:]
        with self.lock:
            there = etag_of(path.read_bytes()) if path.is_file() else None
            if self.headers["If-Match"] != there:
                self._answer(412)
                return
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".new").write_bytes(data)
            path.with_suffix(".new").rename(path)  # whole, or not at all
        self._answer(200, etag_of(data))

    def _answer(self, status: int, etag: str = "", data: bytes = b"") -> None:
        TOLD.append((self.command, self.path[1:].partition("/")[0], status, len(data)))
        self.send_response(status)
        if etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Not on standard error: the story tells what was asked."""


def etag_of(data: bytes) -> str:
    """What names these bytes."""
    return f'"{sha256(data).hexdigest()[:32]}"'


# --- an operator, and two servers -----------------------------------------------------------------


def asked(what: str) -> None:
    """Print what the bucket was asked since the last time."""
    for method, name, status, size in TOLD:
        print(f"    {method} {name:<7} {status}  {size:>6,} bytes")
    TOLD.clear()
    print(f"  {what}\n")


def main() -> None:
    """An overlay in a bucket: what is published, what two servers fetch, and what comes of it."""
    with tempfile.TemporaryDirectory() as folder:
        Served.folder = Path(folder)
        provider = ThreadingHTTPServer(("127.0.0.1", 0), Served)
        threading.Thread(target=provider.serve_forever, daemon=True).start()
        try:
            story(HttpBucket(provider.server_port))
        finally:
            provider.shutdown()
            provider.server_close()


def story(bucket: Bucket) -> None:
    """The requests of a day in a minute."""
    key, keyring = OperatorKey.generate(), Keyring.generate()

    # A year of revocations, made elsewhere: a snapshot moves from store to store as it is.
    elsewhere = MemorySnapshots()
    past = Operator(key, elsewhere, by="ops:kim")
    for number in range(1000):
        past.revoke(task=f"old/{number}", why="over")
    store = BucketSnapshots.create(bucket)
    whole = elsewhere.load()
    assert whole and store.publish(whole, None)
    operator = Operator(key, store, by="ops:kim", last=past.last)
    operator.renew()
    TOLD.clear()

    # Two servers, each with a store of its own: in earnest they are other processes.
    feeds = [Feed(BucketSnapshots(bucket), [key.public], every=0) for _ in range(2)]
    servers = [Verifier(keyring, overlay=feed) for feed in feeds]
    token = Issuer(keyring).mint(
        subject="user:jane",
        agent="clerk",
        task="q3",
        tables=["sales"],
        operations=["select"],
    )
    asking = Access(table="sales", operation="select")

    def everywhere() -> list[str]:
        return [server.check(token, asking).code for server in servers]

    assert everywhere() == ["allowed", "allowed"]
    asked("each server begins, and loads the whole: 1,000 entries")

    assert everywhere() == ["allowed", "allowed"]
    asked("they look again: nothing is new, and nothing is sent")

    old = bucket.get(HEAD, None)
    TOLD.clear()
    operator.end_task("q3")
    asked("the operator ends task q3: it looks, and writes a new head")

    assert everywhere() == ["revoked", "revoked"]
    asked("they look again: the delta came in the head")

    # Whoever can write there can put the old head in the place of the new one, and no more.
    new = bucket.get(HEAD, None)
    assert old and new and bucket.put(HEAD, old[1], new[0])
    TOLD.clear()
    assert everywhere() == ["revoked", "revoked"]
    assert all("is not newer than" in str(feed.problem) for feed in feeds)
    asked("somebody puts the old head back: they load it, and keep to what they know")


if __name__ == "__main__":
    main()

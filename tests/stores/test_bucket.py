"""The store of `examples/object_storage.py` does what every place for snapshots does: the same suite, on a bucket in memory.

And what it is for: a look where nothing is new is one request without a body, and a delta comes in the head.
"""

from __future__ import annotations

from itertools import pairwise
from threading import Lock
from typing import NamedTuple

import pytest

from captoken.errors import StoreError
from captoken.stores.ports import DELTAS, SnapshotStore
from examples.object_storage import HEAD, INLINE, BucketSnapshots, etag_of
from tests.stores import test_snapshots as suite
from tests.stores.conftest import OpenSnapshots

# Each test of the suite, with the fixtures of this file.
for _name, _test in vars(suite).copy().items():
    if _name.startswith("test_"):
        globals()[_name] = _test


class Asked(NamedTuple):
    method: str
    name: str
    size: int  # of the body that came, or went


class Bucket:
    """What a provider does, without the network. Counts."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        self._lock = Lock()

    def get(self, name: str, etag: str | None) -> tuple[str, bytes] | None:
        data = self.objects.get(name)
        if data is None:
            raise StoreError(f"GET {name}: 404")
        same = etag == etag_of(data)
        self.asked.append(Asked("GET", name, 0 if same else len(data)))
        return None if same else (etag_of(data), data)

    def put(self, name: str, data: bytes, etag: str | None) -> bool:
        with self._lock:
            there = self.objects.get(name)
            if (None if there is None else etag_of(there)) != etag:
                return False
            self.objects[name] = data
        self.asked.append(Asked("PUT", name, len(data)))
        return True


class Kind(NamedTuple):
    shared: bool = True


@pytest.fixture
def kind() -> Kind:
    return Kind()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def open_snapshots(bucket: Bucket) -> OpenSnapshots:
    def opened() -> SnapshotStore:
        return BucketSnapshots(bucket) if HEAD in bucket.objects else BucketSnapshots.create(bucket)

    return opened


def marks(count: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(1, count + 1)]


def filled(store: SnapshotStore, count: int, mark: bytes) -> list[bytes]:
    """So many deltas, the first one behind `mark`."""
    chain = [mark, *marks(count)]
    for number, (after, gives) in enumerate(pairwise(chain)):
        assert store.append(b"%d" % number, after, gives) is True
    return chain


def test_a_look_where_nothing_is_new_is_one_request_without_a_body(bucket: Bucket, open_snapshots: OpenSnapshots) -> None:
    """By deltas, and whole where the snapshot is small."""
    store = open_snapshots()
    mark = suite.first(store)
    reader = open_snapshots()
    assert reader.load() == b"one"
    bucket.asked.clear()
    assert reader.load() == b"one" and reader.since(mark) == []
    assert bucket.asked == [Asked("GET", HEAD, 0)] * 2


@pytest.mark.parametrize("behind", [1, INLINE - 1, INLINE, INLINE + 1, 3 * INLINE])
def test_a_reader_that_is_behind_asks_for_the_head_and_for_each_page_before_it(
    bucket: Bucket, open_snapshots: OpenSnapshots, behind: int
) -> None:
    store = open_snapshots()
    chain = filled(store, 4 * INLINE, suite.first(store))
    reader = open_snapshots()
    bucket.asked.clear()
    assert reader.since(chain[-1 - behind]) == [b"%d" % number for number in range(4 * INLINE - behind, 4 * INLINE)]
    asked = [one.name.partition("/")[0] for one in bucket.asked]
    assert asked == [HEAD] + ["deltas"] * ((behind - 1) // INLINE)


def test_a_bucket_that_was_emptied_is_an_error_and_no_beginning(bucket: Bucket, open_snapshots: OpenSnapshots) -> None:
    """The head, or what it names: nothing is published over what was lost."""
    store = open_snapshots()
    mark = suite.first(store, b"x" * 100_000)
    (whole,) = set(bucket.objects) - {HEAD}
    data = bucket.objects.pop(whole)
    with pytest.raises(StoreError):
        open_snapshots().load()
    bucket.objects[whole] = data
    del bucket.objects[HEAD]
    for call in (store.load, lambda: store.since(mark), lambda: store.append(b"", mark, mark), lambda: store.publish(b"", None)):
        with pytest.raises(StoreError):
            call()


def test_it_is_made_once(bucket: Bucket, open_snapshots: OpenSnapshots) -> None:
    open_snapshots()
    with pytest.raises(StoreError, match="there already"):
        BucketSnapshots.create(bucket)


def test_a_page_that_is_missing_is_an_error_and_no_shorter_way(bucket: Bucket, open_snapshots: OpenSnapshots) -> None:
    store = open_snapshots()
    chain = filled(store, DELTAS, suite.first(store))
    for name in [name for name in bucket.objects if name.startswith("deltas/")][:1]:
        del bucket.objects[name]
    assert store.since(chain[-2]) is not None
    with pytest.raises(StoreError):
        store.since(chain[0])
    with pytest.raises(StoreError):
        store.load()

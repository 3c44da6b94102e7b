"""The bucket as it was at each time, and the way of one reader or writer to it.

The bucket keeps every head that there was. So servers can be run one after the other, each from the beginning to the end: none
changes what another one sees.
"""

from __future__ import annotations

from bisect import bisect_right
from random import Random
from typing import NamedTuple

from captoken.errors import StoreError
from examples.object_storage import HEAD, etag_of

from .plan import Moment, Span, latency

OVERHEAD = 350  # bytes of an answer without its body: modelled


class Written(NamedTuple):
    at: float
    etag: str
    data: bytes


class Bucket:
    """Objects, and all heads that there were."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.heads: list[Written] = []

    def get(self, name: str, etag: str | None, at: float) -> tuple[str, bytes] | None:
        """As it is at that time. What is not the head never changes."""
        if name != HEAD:
            return etag_of(self.objects[name]), self.objects[name]
        number = bisect_right(self.heads, at, key=lambda written: written.at) - 1
        if number < 0:
            raise StoreError("nothing was made yet")
        head = self.heads[number]
        return None if head.etag == etag else (head.etag, head.data)

    def put(self, name: str, data: bytes, etag: str | None, at: float) -> bool:
        if name != HEAD:
            return self.objects.setdefault(name, data) is data
        there = self.heads[-1].etag if self.heads else None
        if there != etag:
            return False
        self.heads.append(Written(at, etag_of(data), data))
        return True


class Way:
    """To the bucket and back: takes time, counts, and may be cut. It is what `BucketSnapshots` is given."""

    def __init__(self, bucket: Bucket, moment: Moment, round_trip: float, source: Random, cut: Span | None = None) -> None:
        self._bucket, self._moment = bucket, moment
        self._round_trip, self._source, self._cut = round_trip, source, cut
        self.requests = self.bytes = 0

    def get(self, name: str, etag: str | None) -> tuple[str, bytes] | None:
        # A look is cut off as a whole, and none in its middle.
        if name == HEAD and self._cut is not None and self._moment.now in self._cut:
            raise StoreError("no route to the bucket")
        half = self._half()
        self._moment.now += half
        came = self._bucket.get(name, etag, self._moment.now)
        self._moment.now += half
        self.bytes += OVERHEAD + (0 if came is None else len(came[1]))
        return came

    def put(self, name: str, data: bytes, etag: str | None) -> bool:
        half = self._half()
        self._moment.now += half
        done = self._bucket.put(name, data, etag, self._moment.now)
        self._moment.now += half
        return done

    def _half(self) -> float:
        self.requests += 1
        return latency(self._source, self._round_trip) / 2

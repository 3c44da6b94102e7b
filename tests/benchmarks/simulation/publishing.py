"""A real operator: it signs, publishes through a real `BucketSnapshots`, and renews. Nothing here is modelled but the network."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from captoken._format.encoding import b64encode
from captoken._language.overlay import snapshot
from captoken.control import Entry, Operator, Selector
from captoken.keys import OperatorKey
from examples.object_storage import BucketSnapshots, Head, Page

from .network import Bucket, Way
from .plan import EPOCH, Moment, Plan

KEY = OperatorKey.from_bytes(bytes(range(1, 33)))
_head = msgspec.msgpack.Decoder(Head).decode
_page = msgspec.msgpack.Decoder(Page).decode


class Ended(NamedTuple):
    """A task that the operator has ended."""

    asked: float  # when the operator was told
    at: float  # when it was published
    seq: int  # of the snapshot in which it stands
    task: int


class Version(NamedTuple):
    """A head, as a model has to know it."""

    at: float  # from when on it is there
    seq: int
    issued_at: int
    size: int
    inline: int  # deltas in it
    behind: int  # deltas behind the whole
    whole: int  # bytes
    pages: tuple[int, ...]  # bytes of the pages before it, from the newest on


class Published(NamedTuple):
    """All that the operator did."""

    bucket: Bucket
    versions: list[Version]
    ended: list[Ended]
    took: list[float]  # each change: until it was published
    requests: int
    renewals: int
    deltas: list[int]  # bytes of each change


def published(plan: Plan) -> Published:
    """Runs the operator from the beginning to the end."""
    source, moment, bucket = plan.drawn("operator"), Moment(), Bucket()
    first = snapshot(KEY, _before(plan), seq=1, issued_at=EPOCH - 30)
    moment.now = -30.0
    home = min(region.round_trip for region in plan.regions)
    way = Way(bucket, moment, home, plan.drawn("operator's network"))
    store = BucketSnapshots.create(way)
    assert store.publish(first, None)
    operator = Operator(KEY, store, by="ops:kim", clock=moment, random=source.randbytes)

    took: list[float] = []
    ended: list[Ended] = []
    renewals = 0
    way.requests = 0
    for at, task in _acts(plan):
        # One act after the other: what was asked for meanwhile waits.
        moment.now = max(moment.now, at)
        if task is None:
            operator.renew()
            renewals += 1
        else:
            operator.end_task(f"t/{task}", why="told to by a ticket")
            ended.append(Ended(at, bucket.heads[-1].at, operator.last, task))
        took.append(moment.now - at)
    return Published(bucket, _versions(bucket), ended, took, way.requests, renewals, _deltas(bucket))


def _before(plan: Plan) -> list[Entry]:
    """What was revoked before it begins: nothing that anybody holds any more."""
    source, made = plan.drawn("entries"), []
    for number in range(plan.entries):
        select = Selector(task=f"old/{number}") if number % 2 else Selector(token=b64encode(source.randbytes(16)))
        made.append(Entry(id=b64encode(source.randbytes(8)), at=EPOCH - 3600, by="ops:kim", why="it is over", select=select))
    return sorted(made, key=lambda entry: entry.id)


def _acts(plan: Plan) -> list[tuple[float, int | None]]:
    """When the operator does what: ends a task, or renews."""
    source, acts = plan.drawn("acts"), list[tuple[float, int | None]]()
    at = -20.0
    while at < plan.seconds:
        acts.append((at, None))
        at += plan.renew
    tasks = source.sample(range(plan.tasks), min(plan.tasks, int(plan.seconds / plan.revoke * 2)))
    at = plan.rollout + source.expovariate(1 / plan.revoke)
    while at < plan.seconds and tasks:
        acts.append((at, tasks.pop()))
        at += source.expovariate(1 / plan.revoke)
    return sorted((act for act in acts if act[0] not in plan.away), key=lambda act: act[0])


def _versions(bucket: Bucket) -> list[Version]:
    """Each head, and what lies behind it. What it says beside its marks is read off what was published."""
    found: list[Version] = []
    said: dict[bytes, tuple[int, int]] = {}
    for written in bucket.heads:
        head = _head(written.data)
        if not head.mark:
            continue
        for row in head.page.rows:
            body = msgspec.json.decode(row.delta.rpartition(b".")[0])
            said[row.gives] = (body["gives"]["seq"], body["iat"])
        whole = bucket.objects[head.whole]
        if head.mark not in said:
            body = msgspec.json.decode(whole.rpartition(b".")[0])
            said[head.mark] = (body["seq"], body["iat"])
        seq, issued_at = said[head.mark]
        pages, name = [], head.page.before
        while name:
            data = bucket.objects[name]
            pages.append(len(data))
            name = _page(data).before
        size, inline = len(written.data), len(head.page.rows)
        found.append(Version(written.at, seq, issued_at - EPOCH, size, inline, head.behind, len(whole), tuple(pages)))
    return found


def _deltas(bucket: Bucket) -> list[int]:
    """How long each delta was, in the order of their making."""
    sizes: dict[bytes, int] = {}
    for written in bucket.heads:
        for row in _head(written.data).page.rows:
            sizes[row.gives] = len(row.delta)
    return list(sizes.values())

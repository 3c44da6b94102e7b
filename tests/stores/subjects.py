"""The stores as the suite of faults meets them: each is asked in the same way, whatever it keeps.

A kind of store that joins gets a class here, and the suite does to it what it does to all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar, Self

from captoken import Verifier
from captoken.control import Feed, Operator
from captoken.errors import StoreError
from captoken.keys import OperatorKey
from captoken.stores.ports import Forbidden, Rule, Use
from tests.bound import AUDIENCE, CHILD, proof
from tests.fixtures import KEYRING, NOW, clock, sent
from tests.issuance.registries import ending, entry, joining, seen
from tests.issuance.registries import said as told_by
from tests.reference.fixtures import ASK as BOUND_ASK
from tests.reference.fixtures import access
from tests.reference.fixtures import verifier as verifying
from tests.stores.places import Place
from tests.stores.test_ledger import ASK, debit, minted, reservation, spent
from tests.stores.test_ledger import ROOT as BUCKET
from tests.stores.test_marks import OUTSIDE, PRIVATE, before, is_set, mark, stepped

KEY = OperatorKey.from_bytes(bytes(range(32)))
CLOSED, ANOTHER = stepped(OUTSIDE, rules=(Rule((PRIVATE,)),)), mark(7)
_numbers = count(1000)


class Subject:
    """A store, and who rests on it."""

    what: ClassVar[str]
    denied: ClassVar[str] = "store_unavailable"  # what is answered while it fails
    anew: ClassVar[str]  # what is answered to what was made before, by one that was made anew by its clock

    def __init__(self, store: Any) -> None:
        self.store = store

    @classmethod
    def at(cls, place: Place, **facts: Any) -> Self:
        """Made, if it is not there."""
        return cls(place.opened_or_made(cls.what, **facts))

    def take(self) -> bool:
        """Use up what `stands` asks for. True if it was there."""
        raise NotImplementedError

    def stands(self) -> bool:
        """Is what was taken still known? Then it is refused."""
        raise NotImplementedError

    def calls(self) -> dict[str, Callable[[], Any]]:
        """Every method, by a name of its own. None of them takes what `take` takes."""
        raise NotImplementedError

    def done(self) -> bool:
        """After each call: was it done once, and not twice?"""
        raise NotImplementedError

    def is_more(self) -> bool:
        """After a call that failed: has it been done all the same? False where nobody can tell."""
        return False

    def code(self) -> str:
        """What is answered to something new; `allowed` if it was allowed."""
        raise NotImplementedError


class Proofs(Subject):
    what, anew = "replays", "replayed"

    def take(self) -> bool:
        return self.store.add(Use(b"u" * 16, NOW), NOW) is True

    def stands(self) -> bool:
        return self.store.add(Use(b"u" * 16, NOW), NOW) is False

    def calls(self) -> dict[str, Callable[[], Any]]:
        return {
            "peek": lambda: self.store.peek(Use(b"v" * 16, NOW), NOW),
            "add": lambda: self.store.add(Use(b"v" * 16, NOW), NOW),
        }

    def done(self) -> bool:
        return self.store.add(Use(b"v" * 16, NOW), NOW) is False

    def code(self) -> str:
        asking = verifying(audience=AUDIENCE, replays=self.store)
        return _code(asking.check(sent(CHILD, proof(CHILD, nonce=os.urandom(16))), access(BOUND_ASK)))


class Counts(Subject):
    what, anew = "ledger", "store_unavailable"

    def take(self) -> bool:
        asked = reservation(1, debit(bytes(16), 5, 100), debit(BUCKET, 5, 10**6))
        return self.store.step(stepped(PRIVATE, reserves=asked), NOW) is None

    def stands(self) -> bool:
        short = self.store.reserve(reservation(3, debit(BUCKET, 2, 6)), NOW)
        closed = self.store.step(CLOSED, NOW)
        return spent(self.store, BUCKET) == [5] and short == debit(BUCKET, 2, 6) and closed == Forbidden(0, (before(PRIVATE),))

    def calls(self) -> dict[str, Callable[[], Any]]:
        asked = reservation(2, debit(bytes(16), 5, 100), debit(BUCKET, 5, 10**6))
        return {
            "look": lambda: self.store.peek(asked, NOW),
            "spent": lambda: self.store.spent(BUCKET, "usd_cents"),
            "look at a step": lambda: self.store.peek_step(CLOSED, NOW),
            "step": lambda: self.store.step(CLOSED, NOW),
            "set": lambda: self.store.step(stepped(ANOTHER), NOW),
            "reserve": lambda: self.store.reserve(asked, NOW),
            "settle": lambda: self.store.settle(reservation(1).id, {}, NOW),
        }

    def done(self) -> bool:
        return spent(self.store, bytes(16), BUCKET) == [5, 5] and is_set(self.store, ANOTHER) and not is_set(self.store, OUTSIDE)

    def is_more(self) -> bool:
        try:
            return is_set(self.store, OUTSIDE)
        except StoreError:
            return False

    def code(self) -> str:
        self.store.shared = True
        return _code(Verifier(KEYRING, ledger=self.store, clock=clock()).check(minted(uses=1000), ASK))


class Snapshots(Subject):
    what, denied = "snapshots", "stale_overlay"
    anew = "stale_overlay"

    def take(self) -> bool:
        Operator(KEY, self.store, by="operator", clock=clock()).renew()
        return True

    def stands(self) -> bool:
        return self.store.load() is not None and self.store.publish(b"other", None) is False

    def calls(self) -> dict[str, Callable[[], Any]]:
        return {"load": self.store.load, "publish": lambda: self.store.publish(b"next", None)}

    def done(self) -> bool:
        return self.store.load() != b"next"

    def code(self) -> str:
        feed = Feed(self.store, [KEY.public], every=0, clock=clock())
        return _code(Verifier(KEYRING, overlay=feed, clock=clock()).check(minted(), ASK))


class Tasks(Subject):
    """A registry. What rests on it is the desk, which starts tasks."""

    what, denied, anew = "registry", "store", "invalid_grant"

    def take(self) -> bool:
        return told_by(self.store, entry("a", seen(1))) == "a"

    def stands(self) -> bool:
        """The task is out, its assertion is used, and nothing else was started."""
        used = told_by(self.store, entry("c", seen(1, "other"))) == "invalid_grant"
        return used and self.store.is_live("a", NOW) and not self.store.is_live("b", NOW)

    def calls(self) -> dict[str, Callable[[], Any]]:
        return {
            "start": lambda: self.store.enter(entry("b", seen(2))),
            "join": lambda: self.store.enter(joining("a", seen(1))),
            "live": lambda: self.store.is_live("a", NOW),
            "due": lambda: self.store.unpublished(),
            "said": lambda: self.store.published(1),
            "hear": lambda: self.store.hear("signals", "j", NOW),
            "heard": lambda: self.store.heard_at("signals"),
            "end": lambda: self.store.end(ending(session="s1", jti="j")),
        }

    def done(self) -> bool:
        due = [change.number for change in self.store.unpublished()]
        return due == [1, 2] and not self.store.is_live("a", NOW) and not self.store.is_live("b", NOW)

    def is_more(self) -> bool:
        try:
            return bool(self.store.is_live("b", NOW))
        except StoreError:
            return False

    def code(self) -> str:
        number = next(_numbers)
        told = told_by(self.store, entry(f"new-{number}", seen(number), session="other"))
        return "allowed" if told == f"new-{number}" else told


def _code(decision: Any) -> str:
    """The code of a verifier; a grant comes of nothing else than `allowed`."""
    assert (decision.grant is not None) == bool(decision) == (decision.code == "allowed")
    return str(decision.code)


SUBJECTS: tuple[type[Subject], ...] = (Proofs, Counts, Snapshots, Tasks)


def subjects_of(place: Place) -> tuple[type[Subject], ...]:
    """Those that lie in such a place. No registry is awaited, and none is on Valkey."""
    has_tasks = place.kind != "valkey" and not place.awaited
    return SUBJECTS if has_tasks else SUBJECTS[:-1]


def opened(place: Place, **facts: Any) -> list[Subject]:
    """One of each, without a floor unless told otherwise."""
    return [kind.at(place, **({} if kind is Snapshots else {"floor": 0, **facts})) for kind in subjects_of(place)]


def taken(place: Place, **facts: Any) -> list[Subject]:
    """One of each, which has taken what it will not take again."""
    made = opened(place, **facts)
    assert all([one.take() for one in made]) and all(one.stands() for one in made)
    return made

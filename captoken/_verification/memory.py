"""What a verifier remembers, so that it answers sooner: never so that it answers otherwise (24.22).

    states    of chains up to which every hand-over was found signed: no signature twice
    links     what the bytes of a link say: no JSON twice
    texts     the genuine token that a text was found to be: no chain twice

The rules of this file:

- Only what held is remembered, and only after the whole chain has held. A failure never is.
- Links and texts are kept when they come a second time: most come once.
- Whatever may change is asked anew at each question: the key, the time, the overlay, the stores.
- Each part is bounded, belongs to one verifier, and is handed to the plan. Nothing is global.
- A forked child begins with nothing.
- No text is kept, but the digest of one. What is kept of tokens is as secret as they are.

How it is used: the plan asks `came_before` with a hash of what came, and looks only for what did.
What it then has to find out, it hands to `keep`. A verifier tells `drop_ended` the time.

    memory = VerifierMemory(4 << 20)
    memory.texts.came_before(hash(text))    # False, and True the next time
    memory.texts.keep(digest, kept)
    memory.texts.get(digest)                # kept
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import RLock
from typing import Generic, TypeVar

from captoken._language.link import Link
from captoken._verification.authenticated import Kept
from captoken.stores.own_process import tell_of_forks

STATES_REMEMBERED = 4096  # hand-overs
LINK_BYTES_REMEMBERED = 1 << 20  # bytes of links
TEXT_REMEMBERED = 4 << 20  # characters of texts, unless a verifier is told otherwise
LONGEST_REMEMBERED = 8192  # characters of one text: a longer one is verified each time
MARKS = 16_384  # of what came once

V = TypeVar("V")


class Recent(Generic[V]):
    """Values by key, up to a weight: the ones kept longest ago go first.

    Threads share it. To look is one step of a dictionary, without a lock; what changes it takes the
    lock, so that the weight is that of what is kept. What is asked for often goes as early as the
    rest, and is found out once more.
    """

    __slots__ = ("__weakref__", "_kept", "_lock", "_marks", "_most", "_weigh", "_weight")

    def __init__(
        self,
        most: int,
        weigh: Callable[[bytes, V], int],
    ) -> None:
        """Remember values of `most` together, as `weigh` says it of a key and its value.

        A value that weighs more than `most` is not kept. `weigh` is asked again when a value goes,
        so that it must give the same each time.
        """
        self._most = most
        self._weigh = weigh
        self.forget_all()
        # A child has the memory of its parent, but none of its threads: one may have had the lock.
        tell_of_forks(self, in_child=Recent.forget_all)

    def forget_all(self) -> None:
        """Begin anew.

        For a forked child, where no other thread lives. The parent is not touched by it.
        """
        self._lock = RLock()
        self._kept: dict[bytes, V] = {}
        self._marks: set[int] = set()
        self._weight = 0

    def get(self, key: bytes) -> V | None:
        """The value under a key, or None.

        Takes no lock: to look into a dictionary is one step, whatever other threads do to it.
        """
        return self._kept.get(key)

    def came_before(self, mark: int) -> bool:
        """Did this mark come before? Says no the first time, and now and then a second time.

        What comes once is not worth the room: to keep it costs more than to find it out. Marks are
        hashes, so that two things may have one: then one of them is kept the first time it comes.
        """
        if mark in self._marks:
            return True
        if len(self._marks) >= MARKS:
            self._marks = set()
        self._marks.add(mark)
        return False

    def keep(
        self,
        key: bytes,
        value: V,
    ) -> None:
        """Remember a value, in the place of one that is there under its key.

        Does not look whether it is true: whoever calls has found it out.
        """
        weight = self._weigh(key, value)
        with self._lock:
            # Again while one is there: what `weigh` or a finalizer calls may keep one meanwhile.
            while key in self._kept:
                self._forget([key])
            self._kept[key] = value
            self._weight += weight
            if self._weight > self._most:
                self._make_room()

    def drop(self, is_over: Callable[[V], bool]) -> list[V]:
        """Forget the values that are over, and give the others.

        Goes through all of them. What another thread keeps meanwhile is not looked at.
        """
        # A copy is one step. Pairs are made one by one, and another thread may come in between.
        kept = list(self._kept.copy().items())
        with self._lock:
            self._forget([key for key, value in kept if is_over(value)])
        return [value for _, value in kept if not is_over(value)]

    def _make_room(self) -> None:
        """Forget what was kept longest ago, an eighth at once, so that this comes seldom.

        For whoever has the lock.
        """
        while self._weight > self._most and self._kept:
            oldest = list(self._kept)
            self._forget(oldest[: len(oldest) // 8 + 1])

    def _forget(self, keys: Iterable[bytes]) -> None:
        """Forget what is there under these keys. For whoever has the lock."""
        for key in keys:
            value = self._kept.pop(key, None)
            if value is not None:
                weight = self._weigh(key, value)
                self._weight -= weight


class Texts(Recent[Kept]):
    """Genuine tokens by the digest of their text, each until it expires.

    Does not look whether a key is still the one that a token was verified under: the plan does.
    """

    __slots__ = ("first_end",)

    # When the first of them expires, in seconds since the epoch. Nothing has to be dropped earlier.
    first_end: float

    def __init__(self, most: int) -> None:
        """Remember texts of so many characters together."""
        self.first_end = _NEVER
        super().__init__(most, _characters)

    def keep(
        self,
        key: bytes,
        value: Kept,
    ) -> None:
        super().keep(key, value)
        self.first_end = min(self.first_end, value.ends)

    def drop_ended(self, now: int) -> None:
        """Forget what has expired. `now` is less the leeway, in seconds since the epoch."""
        left = self.drop(lambda kept: kept.ends <= now)
        self.first_end = min((kept.ends for kept in left), default=_NEVER)


_NEVER = float("inf")


def _one(_: bytes, __: bool) -> int:
    """The weight of a state."""
    return 1


def _characters(_: bytes, kept: Kept) -> int:
    """The weight of a token: the length of its text."""
    return kept.characters


def _bytes(body: bytes, _: Link) -> int:
    """The weight of a link: its bytes."""
    return len(body)


class VerifierMemory:
    """All that one verifier remembers. Made with it, and shared by its faces and its grants.

    `longest` is how many characters a text may have that is looked for; 0 is none.
    """

    __slots__ = ("links", "longest", "states", "texts")

    def __init__(self, remember: int) -> None:
        """`remember` is in characters of text; with 0 neither texts nor links are remembered."""
        self.states: Recent[bool] = Recent(STATES_REMEMBERED, _one)
        self.links: Recent[Link] | None = None
        self.texts = Texts(remember)
        self.longest = 0
        if remember:
            self.links = Recent(LINK_BYTES_REMEMBERED, _bytes)
            self.longest = LONGEST_REMEMBERED

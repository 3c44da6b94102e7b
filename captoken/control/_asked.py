"""What holders asked for, and what gives way where it is much (spec 37.8 to 37.11).

Every recall is carried to every verifier, and anybody who holds a token can invent children to
recall. So what holders ask for has bounds, and none of them is a refusal that a holder could bring
about for another:

    an ancestor recalls     what was asked for at or below that link becomes its entry
    a hand-over asks much   what it and all below it asked for becomes one entry that revokes it
    the part is full        what was asked for in the tree with most becomes one for that tree

The rule of this file: nothing that stands is dropped before its `until`. What gives way is replaced
by something that stops more, for at least as long. What an operator said is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from captoken._format.errors import RecallError
from captoken._language.entries import Entry, Selector, entry_size
from captoken._language.overlay import MAX_BYTES

MOST = 100  # recalls of one hand-over and all below it
PART = MAX_BYTES // 4  # bytes of a snapshot that are for what holders ask for

# Makes an entry that revokes: of a tree of tokens or a link in it, by whom asked for, why, until.
Make = Callable[[Selector, tuple[str, ...], str, "int | None"], Entry]


class HandOver(NamedTuple):
    """A link by which somebody got the token, and how long what is below it may have to be
    stopped.
    """

    # Its id, or its `n`: see `Recall`.
    link: str

    # When it ends, in seconds since the epoch; None is never.
    until: int | None


class Recall(NamedTuple):
    """What a control plane found that a holder may ask for, and who that is.

    Nothing in it is a secret: ids, names and times.

    Links go by their ids; of a set by their `n` (`by_hop`), which is one at all of its servers.
    Whoever has a token can write any `n`. So what such an entry stops has come through all
    hand-overs of whoever asked, and entries are told apart by all of these in their order.
    """

    # What is to stop, with all below.
    link: str

    # The id of the token, which names the tree.
    token: str

    # The hand-overs, from the first down to the one by which the holder got the token.
    handed: tuple[HandOver, ...]
    why: str
    until: int | None
    by_hop: bool = False

    @property
    def wanted(self) -> Selector:
        """What the entry selects."""
        return self.at(self.link)

    def at(self, link: str) -> Selector:
        """What selects a link of this token."""
        if self.by_hop:
            return Selector(hop=link, token=self.token)
        return Selector(link=link, token=self.token)

    @property
    def by(self) -> tuple[str, ...]:
        """Who asks: the hand-overs down to it. None for who was named at the mint."""
        return tuple(each.link for each in self.handed)


class Change(NamedTuple):
    """What becomes of the entries of a snapshot."""

    # The ids of the entries to drop.
    drop: Collection[str] = ()
    add: Sequence[Entry] = ()


class Outcome(NamedTuple):
    """The entry that stops what was asked for, and what changes for it: nothing if it stood."""

    entry: Entry
    change: Change | None


def asked_for(
    recall: Recall,
    entries: Iterable[Entry],
    *,
    make: Make,
    most: int,
    now: int,
    size: int | None = None,
    part: int | None = None,
) -> Outcome:
    """What a recall makes of the entries of a snapshot: those that stand, and those kept after.

    `size` is how many bytes of it are entries that holders asked for, and `part` how many they may
    be. Left out, the one is worked out, and the other is a quarter of the largest snapshot.

    Does not check that the holder may ask for it: a ControlPlane does. Raises RecallError where the
    holders' part is full, and no tree is left that can give way.
    """
    # Of a great many entries, few are on this tree. What is asked of all is asked once.
    entries = list(entries)
    tree = [entry for entry in entries if entry.select.token == recall.token]

    stands = _already(recall, tree, now)
    if stands is not None:
        return Outcome(stands, None)

    asked = _Asked(entry for entry in tree if entry.asked is not None)
    entry = _added(recall, asked, make)
    for depth in range(len(recall.handed), 0, -1):
        entry = _bounded(recall, depth, entry, asked, make=make, most=most, now=now)

    # 37.11. Only where the part is full, what was asked for of other trees matters.
    if size is None:
        size = sum(entry_size(one) for one in entries if one.asked is not None)
    size += asked.grown_by()
    part = PART if part is None else part
    if size > part:
        asked.take_up(one for one in entries if one.asked is not None)
        entry = asked.fitted(entry, make, size, part)
    return Outcome(entry, asked.change)


def _added(recall: Recall, asked: _Asked, make: Make) -> Entry:
    """The entry that was asked for, in the place of those that were asked for below (37.9)."""
    # At or below the link that is revoked, and only these. What they stop is below it too.
    under = asked.by((*recall.by, recall.link))
    until = _latest([recall.until, *(one.until for one in under)])
    entry = make(
        recall.wanted,
        recall.by,
        recall.why,
        until,
    )
    return asked.replace(under, entry)


def _bounded(
    recall: Recall,
    depth: int,
    entry: Entry,
    asked: _Asked,
    *,
    make: Make,
    most: int,
    now: int,
) -> Entry:
    """What stops what `entry` stops, once one of the hand-overs is held to its bound (37.10).

    The lowest comes first: what it and those below asked for is then one, and counts as one above.
    """
    handed = recall.handed[depth - 1]
    below = asked.by(recall.by[:depth])
    if sum(one.stands(now) for one in below) <= most:
        return entry

    # It asked, or somebody below it: so `entry` is among them.
    until = _latest([handed.until, *(one.until for one in below)])
    ended = make(
        recall.at(handed.link),
        recall.by[:depth],
        f"more than {most} recalls were asked for by its holder and those below",
        until,
    )
    return asked.replace(below, ended)


def _already(recall: Recall, entries: Iterable[Entry], now: int) -> Entry | None:
    """An entry that revokes that link, or the one who asks, for as long (37.4); None if there is
    none.
    """
    # Who is stopped itself has nothing below it that is not.
    enough = {recall.wanted, Selector(token=recall.token)}
    enough.update(recall.at(link) for link in recall.by)
    stopped = {recall.link, *recall.by}

    for entry in entries:
        revokes = entry.link is None and entry.select in enough and entry.through <= stopped
        if revokes and entry.stands(now) and entry.lasts(recall.until):
            return entry
    return None


def _latest(ends: Sequence[int | None]) -> int | None:
    """The last of these ends. None is for ever."""
    known = [end for end in ends if end is not None]
    return max(known) if len(known) == len(ends) else None


class _Asked:
    """What holders asked for, while it changes: of one tree, and of others where it matters."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        """All of them by id, as they are before. Those that have ended and are kept count too."""
        self._before = {entry.id: entry for entry in entries}
        self._after = dict(self._before)

    def by(self, path: tuple[str, ...]) -> list[Entry]:
        """What was asked for by whoever was handed it so, or by those below: never by those beside,
        whatever `n` they write.
        """
        asked = self._after.values()
        return [entry for entry in asked if (entry.asked or ())[: len(path)] == path]

    def take_up(self, entries: Iterable[Entry]) -> None:
        """Take up those of other trees too."""
        for entry in entries:
            if entry.id not in self._before:
                self._before[entry.id] = self._after[entry.id] = entry

    def grown_by(self) -> int:
        """How many bytes more it takes than before."""
        change = self.change
        gone = sum(entry_size(self._before[name]) for name in change.drop)
        return sum(map(entry_size, change.add)) - gone

    def replace(self, those: Iterable[Entry], one: Entry) -> Entry:
        """Put one entry, which stops all that they stop, in the place of some. Gives it back."""
        for entry in those:
            del self._after[entry.id]
        self._after[one.id] = one
        return one

    def fitted(self, entry: Entry, make: Make, size: int, part: int) -> Entry:
        """Let trees give way until all fits in the holders' part (37.11). All is `size` bytes.

        Gives back what stops what `entry` stopped. Raises RecallError if no tree is left that can.
        """
        while size > part:
            tree, whole, saved = self._next_to_give_way(make)
            self.replace(tree, whole)
            size -= saved
            if entry in tree:
                entry = whole
        return entry

    def _next_to_give_way(self, make: Make) -> tuple[list[Entry], Entry, int]:
        """The entries of the tree with most, the one for that tree, and how many bytes that saves.

        Of several the first by name. One whose entries are as short as they can be is passed over:
        a tree that is revoked already, say. Raises RecallError if there is no other.
        """
        trees: dict[str, list[Entry]] = {}
        for one in self._after.values():
            trees.setdefault(one.select.token or "", []).append(one)

        for token in sorted(trees, key=lambda name: (-len(trees[name]), name)):
            tree = trees[token]
            whole = make(
                Selector(token=token),
                (),
                "too many recalls of all trees: this one has most",
                _latest([one.until for one in tree]),
            )
            saved = sum(map(entry_size, tree)) - entry_size(whole)
            if saved > 0:
                return tree, whole, saved
        raise RecallError(
            "the part of the snapshot that is for recalls is full: wait until some of them end"
        )

    @property
    def change(self) -> Change:
        """What has become of it."""
        return Change(
            drop=[name for name in self._before if name not in self._after],
            add=[entry for name, entry in self._after.items() if name not in self._before],
        )

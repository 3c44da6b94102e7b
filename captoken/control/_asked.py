"""The entries that holders asked for, and how they are kept within limits (spec 37.8 to 37.11).

Every recall goes to every verifier, and anybody who holds a token can invent children to recall. So
there are limits on what holders ask for. No limit lets one holder block another's recall:

    an ancestor recalls     its entry replaces those asked for at or below that link
    a hand-over asks much   one entry that revokes it replaces those asked for at or below it
    the part is full        one entry replaces all entries of the tree that has most of them

The rule of this file: no entry is removed before its `until`. It can only be replaced by an entry
that stops more, for at least as long. An operator's own entries are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from captoken._format.errors import RecallError
from captoken._language.entries import Entry, Selector, entry_size
from captoken._language.overlay import MAX_BYTES

MOST = 100  # the limit of recalls from one hand-over and all below it
PART = MAX_BYTES // 4  # the bytes of a snapshot that entries asked for by holders may use

# Makes a revoking entry from a selector, the hand-overs of who asked, a reason, and an end.
Make = Callable[[Selector, tuple[str, ...], str, "int | None"], Entry]


class HandOver(NamedTuple):
    """A link that handed the token over, and until when the tokens below it may need revoking."""

    # The id of the link, or its `n`: see `Recall`.
    link: str

    # The expiry of all tokens below it, in seconds since the epoch; None means never.
    until: int | None


class Recall(NamedTuple):
    """What a holder may ask for, as a control plane has found, and who that holder is.

    Nothing in it is secret: it has ids, names and times.

    Links have their ids here, or in a set their `n` (`by_hop`), which is the same at all servers of
    the set. Whoever has a token can write any `n`. So such an entry stops only tokens that came
    through all hand-overs of whoever asked, and entries are compared by all these hand-overs in
    order.
    """

    # The link to revoke, with everything below it.
    link: str

    # The token id, which names the tree.
    token: str

    # The hand-overs, from the first to the one by which the holder got the token.
    handed: tuple[HandOver, ...]
    why: str
    until: int | None
    by_hop: bool = False

    @property
    def wanted(self) -> Selector:
        """The selector of the entry."""
        return self.at(self.link)

    def at(self, link: str) -> Selector:
        """The selector of a link of this token."""
        if self.by_hop:
            return Selector(hop=link, token=self.token)
        return Selector(link=link, token=self.token)

    @property
    def by(self) -> tuple[str, ...]:
        """The hand-overs down to whoever asks. Empty for the agent that the token was minted for.
        """
        return tuple(each.link for each in self.handed)


class Change(NamedTuple):
    """A change to the entries of a snapshot."""

    # The ids of the entries to remove.
    drop: Collection[str] = ()
    add: Sequence[Entry] = ()


class Outcome(NamedTuple):
    """The entry that stops what was asked for, and the change it needs: none if it was there."""

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
    """What a recall does to the entries of a snapshot, expired ones included.

    `size` is the number of bytes of entries that holders asked for, and `part` the limit. By
    default the size is computed, and the limit is a quarter of the largest snapshot.

    Does not check that the holder may ask for it; a ControlPlane does. Raises RecallError if the
    holders' part is full and no tree is left to shorten.
    """
    # Only a few of very many entries are about this tree. Select them once.
    entries = list(entries)
    tree = [entry for entry in entries if entry.select.token == recall.token]

    stands = _already(recall, tree, now)
    if stands is not None:
        return Outcome(stands, None)

    asked = _Asked(entry for entry in tree if entry.asked is not None)
    entry = _added(recall, asked, make)
    for depth in range(len(recall.handed), 0, -1):
        entry = _bounded(recall, depth, entry, asked, make=make, most=most, now=now)

    # Entries about other trees matter only if the holders' part is full (37.11).
    if size is None:
        size = sum(entry_size(one) for one in entries if one.asked is not None)
    size += asked.grown_by()
    part = PART if part is None else part
    if size > part:
        asked.take_up(one for one in entries if one.asked is not None)
        entry = asked.fitted(entry, make, size, part)
    return Outcome(entry, asked.change)


def _added(recall: Recall, asked: _Asked, make: Make) -> Entry:
    """The new entry, in the place of those that were asked for below (37.9)."""
    # Replace only the entries asked for at or below the revoked link: they stop less than it.
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
    """The entry that stops what `entry` stops, after one hand-over is held to its limit (37.10).

    The lowest hand-over comes first: its entries are then one, and count as one for those above.
    """
    handed = recall.handed[depth - 1]
    below = asked.by(recall.by[:depth])
    if sum(one.stands(now) for one in below) <= most:
        return entry

    # The hand-over's holder or somebody below it asked, so `entry` is among them.
    until = _latest([handed.until, *(one.until for one in below)])
    ended = make(
        recall.at(handed.link),
        recall.by[:depth],
        f"more than {most} recalls were asked for by its holder and those below",
        until,
    )
    return asked.replace(below, ended)


def _already(recall: Recall, entries: Iterable[Entry], now: int) -> Entry | None:
    """An entry that already revokes that link, or the asking holder, for as long (37.4).

    None if there is none.
    """
    # If the asking holder is revoked, everything below it is revoked too.
    enough = {recall.wanted, Selector(token=recall.token)}
    enough.update(recall.at(link) for link in recall.by)
    stopped = {recall.link, *recall.by}

    for entry in entries:
        revokes = entry.link is None and entry.select in enough and entry.through <= stopped
        if revokes and entry.stands(now) and entry.lasts(recall.until):
            return entry
    return None


def _latest(ends: Sequence[int | None]) -> int | None:
    """The latest of these ends. None means for ever."""
    known = [end for end in ends if end is not None]
    return max(known) if len(known) == len(ends) else None


class _Asked:
    """The entries that holders asked for, while they change: of one tree, and of others if needed.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        """Take all of them, by id. Those that have expired and are still kept count too."""
        self._before = {entry.id: entry for entry in entries}
        self._after = dict(self._before)

    def by(self, path: tuple[str, ...]) -> list[Entry]:
        """The entries asked for by the holder of these hand-overs, and by those below it.

        Never those by other holders, whatever `n` they write.
        """
        asked = self._after.values()
        return [entry for entry in asked if (entry.asked or ())[: len(path)] == path]

    def take_up(self, entries: Iterable[Entry]) -> None:
        """Include the entries of other trees too."""
        for entry in entries:
            if entry.id not in self._before:
                self._before[entry.id] = self._after[entry.id] = entry

    def grown_by(self) -> int:
        """By how many bytes the entries have grown."""
        change = self.change
        gone = sum(entry_size(self._before[name]) for name in change.drop)
        return sum(map(entry_size, change.add)) - gone

    def replace(self, those: Iterable[Entry], one: Entry) -> Entry:
        """Replace some entries by one that stops everything that they stop. Returns it."""
        for entry in those:
            del self._after[entry.id]
        self._after[one.id] = one
        return one

    def fitted(self, entry: Entry, make: Make, size: int, part: int) -> Entry:
        """Replace the entries of whole trees until all fit in the holders' part (37.11).

        `size` is the bytes of all. Returns the entry that stops what `entry` stopped. Raises
        RecallError if no tree is left to shorten.
        """
        while size > part:
            tree, whole, saved = self._next_to_give_way(make)
            self.replace(tree, whole)
            size -= saved
            if entry in tree:
                entry = whole
        return entry

    def _next_to_give_way(self, make: Make) -> tuple[list[Entry], Entry, int]:
        """The entries of the largest tree, their replacement, and how many bytes that saves.

        If several trees are equally large, it takes the first by name. It skips a tree whose
        entries cannot get shorter, such as one that is already revoked. Raises RecallError if there
        is no other.
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
        """The change so far."""
        return Change(
            drop=[name for name in self._before if name not in self._after],
            add=[entry for name, entry in self._after.items() if name not in self._before],
        )

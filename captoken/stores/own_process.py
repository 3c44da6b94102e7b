"""What belongs to the process that made it, and what a fork does to it.

A fork copies memory, locks and connections. A copy of a memory would go its own way in silence.
A lock may be held by a thread that the child does not have. A connection that two processes use
gives each the other's answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class OwnProcess:
    """The process that this value was made in, which tells it from a copy in a forked child.

    Asked at each use, so that no hook has to have run. Costs one call of the system.
    """

    def __init__(self) -> None:
        self._id = os.getpid()

    def is_own(self) -> bool:
        """Does whoever asks run in that process?"""
        return os.getpid() == self._id


class _Hooks(NamedTuple):
    """What a holder wants to be told, and where it runs."""

    before: Callable[[Any], None]
    in_parent: Callable[[Any], None]
    in_child: Callable[[Any], None]


def _nothing(_: object) -> None:
    pass


def tell_of_forks(
    holder: T,
    *,
    before: Callable[[T], None] = _nothing,
    in_parent: Callable[[T], None] = _nothing,
    in_child: Callable[[T], None] = _nothing,
) -> None:
    """Tell what holds a connection of each fork, for as long as something refers to it.

    `before` and `in_parent` run in the parent, before and after. `in_child` runs in the child,
    where no other thread lives, and is to drop what was inherited. A holder that another thread
    makes at that moment may be told of the end alone.

    A hook gets the holder, and must not hold on to it: then it would never be let go of. What a
    hook raises is printed by Python, and the fork goes on.
    """
    _holders[holder] = _Hooks(before, in_parent, in_child)


_holders: WeakKeyDictionary[Any, _Hooks] = WeakKeyDictionary()


def _told() -> list[tuple[Any, _Hooks]]:
    """Who is to be told. The list of references is taken in one step, whatever threads do."""
    holders = [reference() for reference in _holders.keyrefs()]
    return [(holder, _holders[holder]) for holder in holders if holder is not None]


def _tell(which: Callable[[_Hooks], Callable[[Any], None]]) -> None:
    for holder, hooks in _told():
        which(hooks)(holder)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=partial(_tell, attrgetter("before")),
        after_in_parent=partial(_tell, attrgetter("in_parent")),
        after_in_child=partial(_tell, attrgetter("in_child")),
    )

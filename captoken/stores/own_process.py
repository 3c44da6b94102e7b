"""What belongs to the process that made it, and what a fork does to it.

A fork copies memory, locks and connections. A copy of a memory would go its own way in silence.
A lock may be held by a thread that the child does not have. A connection that two processes use
gives each the other's answers.

Two answers, by what a store holds:

    OwnProcess       a memory asks at each use whether it is still at home, and refuses if not
    tell_of_forks    a connection is told of each fork, and the child opens one of its own
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

    What it cannot tell apart: a child of a child that was given the process id of the first one,
    which has ended by then.
    """

    def __init__(self) -> None:
        """Remember who makes it."""
        self._id = os.getpid()

    def is_own(self) -> bool:
        """Does whoever asks run in that process?"""
        return os.getpid() == self._id


class _Hooks(NamedTuple):
    """What a holder wants to be told, and where it runs.

    Each gets the holder. None of them can stop a fork.
    """

    before: Callable[[Any], None]  # in the parent, before there is a child
    in_parent: Callable[[Any], None]  # in the parent, after
    in_child: Callable[[Any], None]  # in the child, after


def _nothing(_: object) -> None:
    """The hook of a holder that has nothing to do at that moment."""


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

        tell_of_forks(self, in_child=SQLiteStore._after_fork)    # and not self._after_fork
    """
    _holders[holder] = _Hooks(
        before,
        in_parent,
        in_child,
    )


# By weak references: being told of forks keeps no store alive.
_holders: WeakKeyDictionary[Any, _Hooks] = WeakKeyDictionary()


def _told() -> list[tuple[Any, _Hooks]]:
    """Who is to be told. The list of references is taken in one step, whatever threads do.

    A holder that has just been let go of is left out. The others cannot go while the list has them.
    """
    holders = [reference() for reference in _holders.keyrefs()]
    return [(holder, _holders[holder]) for holder in holders if holder is not None]


def _tell(which: Callable[[_Hooks], Callable[[Any], None]]) -> None:
    """Call one hook of each holder: the one that `which` picks.

    `before` is the place to wait until a connection is not in use, and `in_parent` gives back what
    it took. `in_child` runs before the child goes on.
    """
    for holder, hooks in _told():
        hook = which(hooks)
        hook(holder)


# Python takes no hook back. So these three are told to it once, and tell the holders of the moment.
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=partial(_tell, attrgetter("before")),
        after_in_parent=partial(_tell, attrgetter("in_parent")),
        after_in_child=partial(_tell, attrgetter("in_child")),
    )

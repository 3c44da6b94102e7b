"""Objects that belong to the process that made them, and the effects of a fork.

A fork copies memory, locks and connections. A copied memory would silently diverge. A copied lock
may be held by a thread that the child does not have. If two processes use one connection, each may
get the other's answers.

There are two solutions, by the kind of store:

    OwnProcess       a memory checks at each use that it is in its own process, or else refuses
    tell_of_forks    a connection is told of each fork, and the child opens its own

Forks by several threads happen one after the other, from the first hook of one to its last. So what
a holder gives up for one fork, no other fork gives back. No holder is added meanwhile either: one
that would open its connection between two hooks waits until the fork is over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from threading import RLock, get_ident
from typing import Any, NamedTuple, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

# --- a mark of the process ------------------------------------------------------------------------


# Another object in each child. A process id alone may be that of an ancestor which has ended.
_mark = object()


def this_process() -> tuple[object, int]:
    """What stands for the process that asks: equal until a fork, and never again after it.

    Costs one call of the system, for a fork that told no hook.
    """
    return _mark, os.getpid()


class OwnProcess:
    """The process that this value was made in, which tells it from a copy in a forked child.

    Asked at each use. A library in C may fork without telling Python. Such a fork is seen by the
    process id alone. Then a child of a child looks like its ancestor, if it has its id.
    """

    __slots__ = ("_process",)

    def __init__(self) -> None:
        """Remember who makes it."""
        self._process = this_process()

    def is_own(self) -> bool:
        """Does whoever asks run in that process?"""
        return self._process == this_process()


# --- who is told of a fork ------------------------------------------------------------------------


class _Hooks(NamedTuple):
    """What a holder wants to be told, and where it runs.

    Each gets the holder. None of them can stop a fork.
    """

    # It is called in the parent, before there is a child.
    before: Callable[[Any], None]

    # It is called in the parent, after that.
    in_parent: Callable[[Any], None]

    # It is called in the child, after that.
    in_child: Callable[[Any], None]


_Told: TypeAlias = list[tuple[Any, _Hooks]]


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
    where no other thread lives, and is to drop what was inherited. A fork that is under way is
    waited for: so call it before anything is opened, and hold no lock that a hook takes.

    A hook gets the holder, and must not hold on to it: then it would never be let go of. What a
    hook raises is printed by Python, and the fork goes on. So `in_child` has to know whether
    `before` has done its work.

        tell_of_forks(self, in_child=SQLiteStore._after_fork)    # and not self._after_fork
    """
    hooks = _Hooks(
        before,
        in_parent,
        in_child,
    )
    with _forks:
        _holders[holder] = hooks


@contextmanager
def unforked() -> Generator[None]:
    """In this block no fork begins: for what is opened before a holder can close it in a child.

    A fork waits for its end, in whatever thread. So nothing in it waits for anybody.
    """
    with _forks:
        yield


# Weak references, so that this keeps no store alive.
_holders: WeakKeyDictionary[Any, _Hooks] = WeakKeyDictionary()

# Held from the first hook of a fork to its last. A hook that makes a holder does not wait for
# itself.
_forks = RLock()

# Who was told that a fork begins, by the thread that forks: these are told of its end.
_under_way: dict[int, _Told] = {}


def _holders_to_tell() -> _Told:
    """Who is to be told. The list of references is taken in one step, whatever threads do.

    A holder that has just been let go of is left out. The others cannot go while the list has them.
    """
    holders = [reference() for reference in _holders.keyrefs()]
    return [(holder, _holders[holder]) for holder in holders if holder is not None]


def _tell(calls: Iterable[Callable[[], None]]) -> None:
    """Make all the calls, in order, whatever one of them raises. Raises that at the end."""
    with ExitStack() as stack:
        # It calls the last one first.
        for call in reversed(list(calls)):
            stack.callback(call)


# The three below are the whole of a fork. What interrupts one of them is printed, and the fork goes
# on: each asks what the one before has done, and takes nothing for granted.


def _before() -> None:
    """Wait for the forks of other threads, and tell who is there.

    `before` is the place to wait until a connection is not in use.
    """
    _forks.acquire()
    told = _holders_to_tell()
    _under_way[get_ident()] = told
    _tell(partial(hooks.before, holder) for holder, hooks in told)


def _in_parent() -> None:
    """Tell those who were told before, which give back what they took, and let others fork."""
    try:
        told = _under_way.pop(get_ident(), [])
        _tell(partial(hooks.in_parent, holder) for holder, hooks in told)
    finally:
        # Not held, if `_before` was interrupted early. Another fork's is not let go of here.
        with suppress(RuntimeError):
            _forks.release()


def _in_child() -> None:
    """Begin anew, and tell everybody: nobody else lives here, whoever was told before."""
    global _mark, _forks
    _mark = object()
    _forks = RLock()
    _under_way.clear()
    _tell(partial(hooks.in_child, holder) for holder, hooks in _holders_to_tell())


# Python takes no hook back. So these three are told to it once, and tell the holders of the moment.
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=_before,
        after_in_parent=_in_parent,
        after_in_child=_in_child,
    )

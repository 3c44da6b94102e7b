"""Who is told of a fork, and when: what holds a connection, for as long as something refers to it."""

from __future__ import annotations

import gc
import os
import runpy
import weakref

import pytest

from captoken.stores import own_process
from captoken.stores.own_process import OwnProcess, tell_of_forks


class Holder:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def listen(self, *moments: str) -> Holder:
        tell_of_forks(self, **{moment: lambda holder, moment=moment: holder.told.append(moment) for moment in moments})
        return self


def forked(*holders: Holder) -> list[list[str]]:
    """What each holder was told in a child, which ends at once."""
    hear, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, "/".join(" ".join(holder.told) for holder in holders).encode())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    said = os.read(hear, 1000).decode()
    os.close(hear), os.close(tell)
    return [each.split() for each in said.split("/")]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_each_side_of_a_fork_is_told_what_it_asked_for() -> None:
    """Before it in the parent, after it on both sides; each holder what it listens to, at each fork."""
    every, child_alone = Holder().listen("before", "in_parent", "in_child"), Holder().listen("in_child")
    assert forked(every, child_alone) == [["before", "in_child"], ["in_child"]]
    assert (every.told, child_alone.told) == (["before", "in_parent"], [])
    assert forked(every, child_alone) == [["before", "in_parent", "before", "in_child"], ["in_child"]]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_to_be_told_keeps_nothing_alive() -> None:
    told: list[str] = []
    gone, kept = Holder(), Holder().listen("before")
    tell_of_forks(gone, before=lambda holder: told.append("gone"))
    seen = weakref.ref(gone)
    del gone
    gc.collect()
    assert seen() is None
    forked(kept)
    assert (told, kept.told) == ([], ["before"])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_copy_in_a_child_is_not_its_own() -> None:
    own, seen = OwnProcess(), Holder()
    tell_of_forks(seen, in_child=lambda holder: holder.told.append(str(own.is_own())))
    assert forked(seen) == [["False"]] and own.is_own()


def test_a_system_that_does_not_fork_has_nothing_to_tell_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the module is there as well, and a holder may ask to be told."""
    monkeypatch.delattr(os, "register_at_fork")
    made = runpy.run_path(own_process.__file__)
    made["tell_of_forks"](Holder(), before=lambda holder: None)
    assert made["OwnProcess"]().is_own()

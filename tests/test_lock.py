"""A lock that is free in a forked child, also where another thread held it in the parent."""

from __future__ import annotations

import os
from threading import Event, Thread

import pytest

from captoken.control._lock import ForkSafeLock


def test_one_holds_it_at_a_time() -> None:
    lock, inside, go = ForkSafeLock(), Event(), Event()

    def hold() -> None:
        with lock.held() as mine:
            assert mine
            inside.set()
            go.wait(60)

    thread = Thread(target=hold)
    thread.start()
    assert inside.wait(60)
    with lock.held(timeout=0) as mine:
        assert not mine, "another one has it"
    go.set()
    thread.join()
    with lock.held(timeout=0) as mine:
        assert mine


def test_what_is_raised_inside_lets_it_go() -> None:
    lock = ForkSafeLock()
    with pytest.raises(LookupError), lock.held():
        raise LookupError
    with lock.held(timeout=0) as mine:
        assert mine


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from 3.12 on: a process with threads forks
def test_it_is_free_in_a_child_whoever_held_it() -> None:
    lock, inside, go = ForkSafeLock(), Event(), Event()

    def hold() -> None:
        with lock.held():
            inside.set()
            go.wait(60)

    thread = Thread(target=hold)
    thread.start()
    assert inside.wait(60)
    child = os.fork()
    if child == 0:
        with lock.held(timeout=0) as mine:
            os._exit(0 if mine else 1)
    _, status = os.waitpid(child, 0)
    with lock.held(timeout=0) as mine:
        assert not mine, "in the parent the thread has it still"
    go.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0

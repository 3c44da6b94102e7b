"""Threads with room: deep statements are read however small the stack, and in many threads at once."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from captoken.adapters._postgres import reader, room
from captoken.adapters._postgres.text import RefusedError
from captoken.errors import StatementError
from tests.adapters.postgres.test_tree import DEEP, TEXTS

SMALL_STACK = """
import sys, threading
from contextlib import suppress
from captoken.adapters._postgres.reader import read
from captoken.errors import StatementError

reads = []

def parse():
    for sql in sys.stdin.read().split(";"):
        with suppress(StatementError):  # the grammar has a limit of its own
            reads.append(read(sql).refusal is None)

# From 3.12 on, Python lets go of a long chain in more steps, each inside the one before.
threading.stack_size((256 if sys.version_info < (3, 12) else 384) * 1024)
thread = threading.Thread(target=parse)
thread.start()
thread.join()
print(sum(reads))
"""


def alone(script: str, given: str = "") -> str:
    """What a process of its own says: it may die."""
    ran = subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", script], input=given, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def test_no_statement_is_too_deep_for_a_thread_with_a_small_stack() -> None:
    """The deepest that get a thread with room, and the deepest that get none."""
    shallow = []
    for before, middle, after in DEEP.values():
        once = re.match(r"(?s)(.{1,40}?)\1+", before)
        part = before if once is None else once[1]
        shallow += [f"select {part * n}{middle}{after[: len(after) * n * len(part) // len(before)]}" for n in (40, 66, 99, 199)]
    deep = [f"select {before}{middle}{after}" for before, middle, after in DEEP.values()]
    assert int(alone(SMALL_STACK, ";".join(deep + shallow))) > 40


def test_texts_are_read_in_many_threads_at_once() -> None:
    """Each gets its own tree, whoever else is at work: in the caller's thread, or in the one for the deep."""
    texts = TEXTS[:150] + [f"select {'not ' * 300}a{number}" for number in range(30)]

    def said(sql: str) -> Any:
        with suppress(StatementError):
            text = reader.read(sql)
            return text.refusal, [one.column for one in text.references], text.reads
        return "no SQL"

    expected = [said(sql) for sql in texts]
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: [said(sql) for sql in texts], range(8)):
            assert found == expected


KEYS = """
import ctypes, threading
from captoken.adapters._postgres.reader import read

libc = ctypes.CDLL(None)

def free():
    keys = []
    key = ctypes.c_uint()
    while libc.pthread_key_create(ctypes.byref(key), None) == 0:
        keys.append(key.value)
    for one in keys:
        libc.pthread_key_delete(one)
    return len(keys)

before = free()
for number in range(300):
    read("select " + "not " * 250 + "a")
    for sql in ("select 1", "select " + "a, " * 250 + "a"):
        thread = threading.Thread(target=read, args=(sql,))
        thread.start()
        thread.join()
print(before - free())
"""


def test_neither_deep_statements_nor_threads_use_up_what_threads_of_the_process_share() -> None:
    """The library keeps a key for each thread that it has seen. There are 1,024, for all libraries of the process."""
    assert 0 < int(alone(KEYS)) <= room._MOST + 1


FORKED = """
import os
from captoken.adapters._postgres.reader import read

deep = "select " + "not " * 300 + "a"
read(deep)
child = os.fork()
if child == 0:
    os._exit(0 if read(deep).refusal is None else 1)
assert os.waitpid(child, 0)[1] == 0
print(read(deep).refusal)
"""


def test_a_fork_reads_deep_statements_though_its_parent_has_read_some() -> None:
    """The thread for them is not in the child."""
    assert alone(FORKED) == "None\n"


def test_the_room_gives_on_what_is_raised_in_it() -> None:
    def fails(sql: str) -> None:
        raise RefusedError("operation", f"{sql} in {threading.current_thread().name}")

    with pytest.raises(RefusedError, match="captoken-reader") as raised:
        room.run(fails, "select", deep=True)
    assert raised.value.args[0] == "operation"
    assert room.run(lambda sql: threading.current_thread(), "select") is threading.current_thread()

"""Processes that are killed in the midst of what they do, for the faults of stores and of registries."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

WAIT = 60  # seconds, after which what was to answer is stuck


def starts_fresh(module: str) -> Any:
    """Processes that start quickly: forks of one that has nothing but the code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def killed(fresh: Any, target: Callable[..., None], answers: int, *given: Any) -> list[Any]:
    """What a process said before it was killed, after so many answers, wherever it was then."""
    here, there = fresh.Pipe(duplex=False)
    process = fresh.Process(target=target, args=(*given, there))
    process.start()
    there.close()
    told = []
    try:
        for _ in range(answers):
            assert here.poll(WAIT)
            told.append(here.recv())
        process.kill()
        while True:
            told.append(here.recv())
    except EOFError:
        return told
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()

"""How many lines of Python an operation executes: the same number each time, so that a test can ask for it.

No clock is looked at. What runs in C is not seen: a sort, a set's difference, an SQL statement. Where such a thing grows, the operation
says so by what it is handed, and its input is counted in `operations.py` by what Python does around it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Literal

Order = Literal["1", "log n", "n", "n log n"]
TIMES = (1, 5, 10)  # how often the smallest size the three measures are


def lines(run: Callable[[], object]) -> int:
    """The lines of Python that `run` executes in this thread."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
        return trace

    gc.disable()  # a finalizer that runs in between would be counted
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def calls(run: Callable[[], object]) -> int:
    """The functions that `run` calls in this thread, those in C and the rounds of generators included."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count


def grows_by_no_more(measured: tuple[int, int, int], order: Order) -> bool:
    """Do the counts at n, 5 n and 10 n grow no faster than that order? What is spent whatever n is plays no part.

    Of a linear cost the second step, from 5 n to 10 n, is 1.25 of the first; of a quadratic one it is 3.1, and of a logarithmic one 0.43.
    """
    small, middle, large = measured
    first, second = middle - small, large - middle
    slack = 14 + small // 50  # a dictionary that is grown, a branch that is taken once
    match order:
        case "1":
            return abs(first) <= slack and abs(second) <= slack
        case "log n":
            return second <= 0.7 * first + slack
        case "n":
            return second <= 1.4 * max(first, 0) + slack
        case "n log n":
            return second <= 1.9 * max(first, 0) + slack

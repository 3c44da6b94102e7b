"""Runs the cases past the judges, in several processes, and makes what differs small."""

from __future__ import annotations

import logging
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.gate.cases import Recipe, Vector, case, vector_of
from tests.gate.judges import Outcome, Port, Verdict, differing, judged, library, second, signature
from tests.gate.shrink import shrunk

BATCH = 200
SHOWN = 5  # differences, before a job gives up
Found = tuple[int, Recipe, Verdict]


def seen(outcome: Outcome, vector: Vector) -> Iterator[str]:
    """What came, for the histogram: by kind and code, of grants also each answer."""
    yield f"{vector['kind']} {outcome.get('code', 'raised')}"
    for answer in outcome.get("answers", ()):
        yield f"grant, then {answer['code']}"


def run(seed: str, first: int, count: int) -> tuple[Counter[str], list[Found]]:
    """So many cases: how often each answer came, and what differed."""
    logging.disable()
    port, came, found = Port(), Counter[str](), list[Found]()
    try:
        for start in range(first, first + count, BATCH):
            numbers = range(start, min(start + BATCH, first + count))
            made = [(number, recipe, vector_of(recipe)) for number in numbers for recipe in (case(seed, number),)]
            port.send([vector for _, _, vector in made])
            for number, recipe, vector in made:
                mine, also = library(vector), second(vector)
                verdict = {"python": mine, "port": port.answer()} | ({} if also is None else {"reference": also})
                came.update(seen(mine, vector))
                if differing(verdict):
                    found.append((number, recipe, verdict))
            if len(found) >= SHOWN:
                break
    finally:
        port.end()
    return came, found[:SHOWN]


def slices(first: int, count: int, jobs: int) -> list[tuple[int, int]]:
    """The numbers, shared out: pieces small enough that all jobs end together."""
    size = max(BATCH, min(10_000, count // (jobs * 4) or count))
    return [(start, min(size, first + count - start)) for start in range(first, first + count, size)]


def compare(seed: str, first: int, count: int, jobs: int) -> tuple[Counter[str], list[Found]]:
    """The same, in several processes."""
    came, found = Counter[str](), list[Found]()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for each in [pool.submit(run, seed, *piece) for piece in slices(first, count, jobs)]:
            if len(found) < SHOWN:
                codes, differences = each.result()
                came.update(codes)
                found += differences
            else:
                each.cancel()
    return came, found[:SHOWN]


def smallest(found: Found) -> tuple[Recipe, Verdict]:
    """The least case in which the same judges say the same codes, and still differ."""
    _, recipe, verdict = found
    port, wanted = Port(), signature(verdict)

    def still(smaller: Recipe) -> bool:
        try:
            said = judged(vector_of(smaller), port)
        except Exception:  # what cannot be written
            return False
        return differing(said) and signature(said) == wanted

    try:
        least = shrunk(recipe, still)
        return least, judged(vector_of(least), port)
    finally:
        port.end()

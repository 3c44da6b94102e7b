"""captoken's side of the benchmarks decides what it is timed for, and its sizes hold. Nothing here looks at a clock."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from captoken._format import primitives

from . import page, page_planning, record
from .bound import PUBLIC, SIGNED, CaptokenBound, CaptokenLast, CaptokenSeen, prove_bound, sign, verify
from .contestants import FLOORS, HOPS, KEY, Captoken, fold, messages, prove
from .discharged import CaptokenAsking, prove_asking


@pytest.mark.parametrize("of", [page, page_planning], ids=lambda of: of.PAGE.name)
def test_the_page_says_what_was_measured(of: Any) -> None:
    """Each table of the page is there, and is what the record makes of it."""
    text = of.PAGE.read_text("utf-8")
    assert sorted(page.tables(text)) == sorted(of.TABLES)
    assert of.written(text, record.read()) == text


@pytest.mark.parametrize(
    ("of", "path"),
    [
        (page, ("peers", "rows", 0, "median")),
        (page_planning, ("planning", "overlay", 1, "snapshot")),
        (page_planning, ("simulation", "bucket", "requests a second")),
    ],
    ids=["times", "planning", "simulation"],
)
def test_another_figure_is_another_page(of: Any, path: tuple[Any, ...]) -> None:
    """The check above can fail: a record that differs by one figure makes another table."""
    kept = record.read()
    at: Any = kept
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] *= 2
    text = of.PAGE.read_text("utf-8")
    assert of.written(text, kept) != text


def test_what_is_timed_decides() -> None:
    """captoken allows the story's access and refuses each wrong one, the expired token and the forged one."""
    prove(Captoken())


@pytest.mark.parametrize("kind", [CaptokenBound, CaptokenSeen, CaptokenLast])
def test_what_is_bound_decides(kind: Callable[[], CaptokenBound]) -> None:
    """Bound to keys it does so too, and takes no text without a proof by its key, of this request, used once."""
    prove_bound(kind())


def test_what_asks_third_parties_decides() -> None:
    """With third parties it does so too, and takes no text without each one's own, fresh, bound discharge."""
    prove_asking(CaptokenAsking(), 16)


@pytest.mark.parametrize(
    ("kind", "hops", "each"),
    [(CaptokenBound, 0, 1), (CaptokenBound, HOPS, HOPS + 1), (CaptokenSeen, HOPS, 1), (CaptokenLast, HOPS, 1)],
)
def test_each_call_verifies_what_it_says(
    kind: Callable[[], CaptokenBound], hops: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proof in each call, and every hop that is signed, unless the server has seen it: as many as the floor verifies."""
    contestant, counted = kind(), []
    work = contestant.ask(contestant.chain(hops), contestant.facts(hops), calls=3)
    signed = primitives.signed

    def counting(public: bytes, message: bytes, signature: bytes) -> bool:
        counted.append(public)
        return signed(public, message, signature)

    monkeypatch.setattr(primitives, "signed", counting)
    for calls in (1, 2, 3):
        work()
        assert len(counted) == calls * each
    assert len(verify(each)) == each


def test_a_run_under_load_stands_beside_the_other() -> None:
    """The page gives both ratios where they differ, on what each was measured, and how many agree."""
    kept = record.read()
    loaded = copy.deepcopy(kept["peers"])
    loaded["facts"]["busy beside it"] = "8"
    (row,) = (one for one in loaded["rows"] if (one["scenario"], one["contestant"]) == ("authorize, one hop", "biscuit-python"))
    quiet, row["ratio"] = row["ratio"], 2 * row["ratio"]
    text = page.written(page.PAGE.read_text("utf-8"), {**kept, "peers, under load": loaded})
    assert f"{quiet:.2g} to {2 * quiet:.0f} ×" in text and "| and again on |" in text
    assert f"Beside 8 busy processes, {len(loaded['rows']) - 1} of {len(loaded['rows'])} ratios are the same within 10 %." in text


@pytest.mark.parametrize(("hops", "characters"), [(0, 400), (10, 2_100)])
def test_size(hops: int, characters: int) -> None:
    """A token with five restrictions, and one delegated ten times with three each, stay within the target."""
    assert len(Captoken().chain(hops)) <= characters


def test_the_floors_agree() -> None:
    """Both ways to compute the HMACs that nobody can do without give the same signature."""
    assert len({fold(mac, KEY, messages(10)) for mac in FLOORS.values()}) == 1


def test_the_floor_of_signatures_signs_and_verifies() -> None:
    """What is signed in the floor is what is verified in it, and holds for captoken too."""
    assert sign() == SIGNED
    assert verify(2) == [SIGNED[64:]] * 2
    assert primitives.signed(PUBLIC, SIGNED[64:], SIGNED[:64])

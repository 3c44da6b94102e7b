"""captoken's side of the benchmarks decides what it is timed for, and its sizes hold. Nothing here looks at a clock."""

import pytest

from .contestants import FLOORS, KEY, Captoken, fold, messages, prove


def test_what_is_timed_decides() -> None:
    """captoken allows the story's access and refuses each wrong one, the expired token and the forged one."""
    prove(Captoken())


@pytest.mark.parametrize(("hops", "characters"), [(0, 400), (10, 2_100)])
def test_size(hops: int, characters: int) -> None:
    """A token with five restrictions, and one delegated ten times with three each, stay within the target."""
    assert len(Captoken().chain(hops)) <= characters


def test_the_floors_agree() -> None:
    """Both ways to compute the HMACs that nobody can do without give the same signature."""
    assert len({fold(mac, KEY, messages(10)) for mac in FLOORS.values()}) == 1

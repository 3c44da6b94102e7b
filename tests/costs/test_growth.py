"""No public operation costs more than its order says; and the page says what is tested."""

import pytest

from .counting import grows_by_no_more, lines
from .operations import OPERATIONS, Operation
from .page import PAGE, measured, page


@pytest.mark.no_cover  # it traces by itself; what it runs, others cover
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: f"{each.name}: {each.grows}")
def test_it_grows_by_no_more_than_its_order(operation: Operation) -> None:
    counts = measured(operation)
    assert grows_by_no_more(counts, operation.order), f"{counts} lines at n, 5 n and 10 n: more than {operation.order}"


def test_there_are_at_least_sixty() -> None:
    assert len(OPERATIONS) >= 60
    assert len({(each.area, each.name, each.grows) for each in OPERATIONS}) == len(OPERATIONS)


def test_the_page_is_written_from_them() -> None:
    assert PAGE.read_text("utf-8") == page(), "python -m tests.costs --page"


@pytest.mark.no_cover
def test_a_cost_that_grows_faster_is_found() -> None:
    """Each order refuses the next one."""

    def counted(run) -> tuple[int, int, int]:
        small, middle, large = (lines(lambda n=n: run(n)) for n in (20, 100, 200))
        return small, middle, large

    def linear(n: int) -> None:
        for _ in range(n):
            pass

    def quadratic(n: int) -> None:
        for _ in range(n):
            linear(n)

    def halving(n: int) -> None:
        while n:
            n //= 2

    assert grows_by_no_more(counted(lambda n: None), "1") and not grows_by_no_more(counted(linear), "1")
    assert grows_by_no_more(counted(halving), "log n") and not grows_by_no_more(counted(linear), "log n")
    assert grows_by_no_more(counted(linear), "n") and not grows_by_no_more(counted(quadratic), "n")
    assert not grows_by_no_more(counted(quadratic), "n log n")

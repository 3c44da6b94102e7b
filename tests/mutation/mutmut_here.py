"""mutmut, which names tests by their functions here: `python mutmut_here.py run NAME ...`.

It would name every case of a function, and not all names of cases can stand in a command. The quick functions come first: a
process ends at the first test that fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mutmut.__main__ import cli  # type: ignore[import-not-found]
from mutmut.runners.harness import PytestRunner  # type: ignore[import-not-found]
from mutmut.state import state  # type: ignore[import-not-found]

of_cases = PytestRunner._pytest_args_regular_run


def of_functions(self: PytestRunner, tests: Iterable[str]) -> list[str]:
    took: Counter[str] = Counter()
    for test, seconds in state().duration_by_test.items():
        took[test.partition("[")[0]] += seconds
    functions = {test.partition("[")[0] for test in tests}
    given: list[str] = of_cases(self, sorted(functions, key=lambda function: (took[function], function)))
    return given


if __name__ == "__main__":
    PytestRunner._pytest_args_regular_run = of_functions
    cli()

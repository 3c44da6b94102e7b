"""captoken's plugin for pytest: fixtures, and files of scenarios (docs/testing.md).

pytest loads it by its entry point, before anything is measured. So it stands beside the package,
and imports nothing of captoken until a test asks: coverage sees all of captoken then, and whoever
uses none of this pays nothing.

    clock       a FixedClock, which issuer, verifier and ledger of the test share
    keyring     a Keyring of one fresh key
    issuer      an Issuer on it
    verifier    a Verifier on it, with a ledger in memory
    hold        hold(token): from here on the test holds it

A file whose name ends in `scenarios.toml`, and that begins with `captoken = 1`, is collected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from captoken import Issuer, Keyring, Token, Verifier
    from captoken.current import Held
    from captoken.proof import Signer
    from captoken.testing import FixedClock, Scenario

_NOW = 1_764_061_200


@pytest.fixture
def clock() -> FixedClock:
    """A clock that stands still: `clock.advance(61)` moves it."""
    from captoken.testing import FixedClock

    return FixedClock(_NOW)


@pytest.fixture
def keyring() -> Keyring:
    """A keyring of one fresh key, for this test alone."""
    from captoken import Keyring

    return Keyring.generate()


@pytest.fixture
def issuer(keyring: Keyring, clock: FixedClock) -> Issuer:
    """An issuer on the keyring and the clock of the test."""
    from captoken import Issuer

    return Issuer(keyring, clock=clock)


@pytest.fixture
def verifier(keyring: Keyring, clock: FixedClock) -> Verifier:
    """A verifier on the keyring and the clock of the test, for tokens for nobody in particular.

    It counts `uses` and `budget` in memory.
    """
    from captoken import Verifier
    from captoken.stores.memory import MemoryLedger

    ledger = MemoryLedger(shared=True, floor=0)
    return Verifier(keyring, ledger=ledger, clock=clock)


@pytest.fixture
def hold(request: pytest.FixtureRequest) -> Callable[..., Held]:
    """`hold(token)`: from here to the end of the test, the token is current."""
    from captoken import testing

    def held(token: Token | str | Held, signer: Signer | None = None) -> Held:
        return testing.hold(token, signer, until=request.addfinalizer)

    return held


# --- files of scenarios ---------------------------------------------------------------------------


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.File | None:
    """A file of scenarios, by its name and first key; or any TOML that was asked for by name."""
    if file_path.suffix != ".toml":
        return None
    if not parent.session.isinitpath(file_path):
        named = file_path.name.endswith("scenarios.toml")
        if not named or not _is_ours(file_path):
            return None
    return ScenarioFile.from_parent(parent, path=file_path)


def _is_ours(path: Path) -> bool:
    """Does it say that it is captoken's? Another project's file of that name is left alone."""
    with path.open("rb") as file:
        lines = (line.split(b"#")[0].strip() for line in file)
        first = next((line for line in lines if line), b"")
    return first.split(b"=")[0].strip() == b"captoken"


class ScenarioFile(pytest.File):
    """A file of scenarios, each of which is a test."""

    def collect(self) -> Iterator[ScenarioItem]:
        from captoken.testing import read_scenarios

        try:
            found = read_scenarios(self.path)
        except ValueError as error:
            raise self.CollectError(str(error)) from None
        for scenario in found:
            yield ScenarioItem.from_parent(self, name=scenario.name, scenario=scenario)


class ScenarioItem(pytest.Item):
    """A scenario: it fails where a call came to another code than is written there."""

    def __init__(self, *, scenario: Scenario, **given: Any) -> None:
        super().__init__(**given)
        self._scenario = scenario

    def runtest(self) -> None:
        """Run it. Raises AssertionError."""
        wrong = [
            f"call {number}: expected {outcome.call.code}, and came {outcome.line}"
            for number, outcome in enumerate(self._scenario.run(), 1)
            if not outcome.as_expected
        ]
        if wrong:
            raise AssertionError("\n".join(wrong))

    def repr_failure(
        self,
        excinfo: pytest.ExceptionInfo[BaseException],
        style: Any = None,
    ) -> Any:
        """The lines alone: where this file raised them says nothing."""
        if excinfo.errisinstance((AssertionError, ValueError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where it stands, for the report."""
        return self.path, None, self.name

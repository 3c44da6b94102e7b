"""`captoken test`: scenarios in files, each a token, calls, and the codes that they come to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from captoken._format.spelling import escape, shown_file
from captoken.audit.analysis import Accessed
from captoken.cli import words
from captoken.cli.logged import tried
from captoken.cli.options import json_option
from captoken.cli.output import answer
from captoken.cli.values import FILE
from captoken.testing import CallOutcome, Scenario, read_scenarios


@click.command("test")
@click.argument("scenario_file", type=FILE, metavar="FILE...", nargs=-1, required=True)
@json_option
def test(scenario_file: tuple[str, ...], as_json: bool) -> int:
    """Test what tokens permit, by scenarios in TOML files.

    A scenario has a token, calls, and the code that each call must return. Exit 1 if one returns
    another code. You need no keys: they are made for the test.

    \b
    captoken test scenarios.toml

    `captoken docs testing` describes the file format, and `captoken audit propose --scenarios`
    writes such a file. pytest runs the same files.
    """
    ran = [one for path in scenario_file for one in _ran(path)]
    failed = sum(not _holds(outcomes) for _, _, outcomes in ran)
    lines = [line for _, scenario, outcomes in ran for line in _lines(scenario, outcomes)]
    lines.append(f"{words.counted(len(ran), 'scenario')}, {failed} failed")
    answer(as_json, {"scenarios": [_data(*one) for one in ran], "failed": failed}, *lines)
    return 1 if failed else 0


def _ran(path: str) -> Iterator[tuple[str, Scenario, list[CallOutcome]]]:
    """The scenarios of a file, with what came of each. Raises ValueError, which names the file."""
    for scenario in read_scenarios(path):
        try:
            outcomes = scenario.run()
        except ValueError as error:
            raise ValueError(f"{shown_file(path)}: {error}") from None
        yield path, scenario, outcomes


def _holds(outcomes: list[CallOutcome]) -> bool:
    return all(outcome.as_expected for outcome in outcomes)


def _lines(scenario: Scenario, outcomes: list[CallOutcome]) -> Iterator[str]:
    """A scenario in a line, and each call that came to something else."""
    label = "ok    " if _holds(outcomes) else "FAILED"
    yield f"{label}  {escape(scenario.name)}: {words.counted(len(outcomes), 'call')}"
    for number, outcome in enumerate(outcomes, 1):
        if not outcome.as_expected:
            yield f"        call {number}, {_asked(outcome)}: expected {outcome.call.code}"
            yield f"        came {escape(outcome.line)}"


def _asked(outcome: CallOutcome) -> str:
    """What was asked, in a line."""
    access = outcome.call.access
    return tried(
        Accessed(
            table=access.table,
            operation=access.operation,
            columns=None if access.columns is None else list(access.columns),
            tool=access.tool,
            arguments=None if access.arguments is None else dict(access.arguments),
            attributes=dict(access.attributes),
            cost=dict(access.cost),
        )
    )


def _data(path: str, scenario: Scenario, outcomes: list[CallOutcome]) -> dict[str, Any]:
    """A scenario for machines."""
    return {
        "file": path,
        "name": scenario.name,
        "ok": _holds(outcomes),
        "calls": [
            {
                "asked": _asked(outcome),
                "expected": outcome.call.code,
                "code": outcome.code,
                "line": outcome.line,
            }
            for outcome in outcomes
        ],
    }

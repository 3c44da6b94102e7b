"""Helpers for your own tests (docs/testing.md).

    clock = FixedClock(1_764_061_200)
    issuer = Issuer(keyring, clock=clock, random=fixed_random("a seed"))
    verifier = Verifier(keyring, clock=clock)

    token = issuer.mint(…, expires_in=60)      # the same text in each run of the test
    clock.advance(61)                          # and now it has expired

    held = hold(token, until=request.addfinalizer)   # in a fixture of pytest

    with assert_denied(code="table"):          # also fails if nobody asked
        service.report("hr")
    print(under_narrower(token, run))          # what each right is needed for
    read_scenarios("scenarios.toml")           # token, calls and codes, in a file

`error_catalogue` lists everything that can go wrong, with the remedy. The pytest plugin
`captoken_pytest`, beside this package, has fixtures for all this.

Never use this in production: a token with predictable nonces has predictable link ids.
"""

from __future__ import annotations

from captoken._verification.catalogue import ErrorEntry, entries
from captoken.testing._asserts import Watched, assert_allowed, assert_denied, watched
from captoken.testing._fixed import FixedClock, fixed_random, hold
from captoken.testing._narrower import Narrowed, Report, under_narrower
from captoken.testing._scenarios import (
    CallOutcome,
    Scenario,
    ScenarioCall,
    read_scenarios,
    scenarios_of,
)

__all__ = [
    "CallOutcome",
    "ErrorEntry",
    "FixedClock",
    "Narrowed",
    "Report",
    "Scenario",
    "ScenarioCall",
    "Watched",
    "assert_allowed",
    "assert_denied",
    "error_catalogue",
    "fixed_random",
    "hold",
    "read_scenarios",
    "scenarios_of",
    "under_narrower",
    "watched",
]


def error_catalogue() -> tuple[ErrorEntry, ...]:
    """All that captoken raises or refuses: by type and code, what it means and what to do.

    Types of error come first, in the order in which `captoken.errors` draws them. Then `Denied`, in
    the order in which a verifier checks. `example` is one of the messages that the code has, for
    people: messages may change, and types and codes do not. For a runbook, or for a test that each
    code has an answer in your service. Programming errors are left out: TypeError, ValueError.
    """
    return entries()

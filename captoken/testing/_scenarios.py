"""Scenarios in a file: a token, calls, and the code that each has to come to (docs/testing.md).

    captoken = 1

    [[scenario]]
    name = "the clerk pays small sums"

    [scenario.token]                  # the keywords of `mint`
    agent = "orchestrator"
    tools.pay = { to = { any = true }, cents = { max = 500 } }

    [[scenario.link]]                 # those of `delegate`; without `to`, of `attenuate`
    to = "clerk"
    tools.pay = { to = { any = true }, cents = { max = 100 } }

    [[scenario.call]]
    tool = "pay"
    arguments = { to = "acct-1", cents = 300 }
    code = "argument"

Each scenario has keys, a clock and counts of its own, and its calls come one after the other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from captoken._format.clocks import duration
from captoken._format.errors import CaptokenError
from captoken._format.shapes import fit, made
from captoken._format.spelling import shown, shown_file
from captoken._format.toml import read_toml
from captoken._language.access import Access, Caller
from captoken._language.caveats import V1, Vocabulary
from captoken._verification.telling import quietly
from captoken._verification.verifier import Verifier
from captoken._writing.issuer import Issuer
from captoken._writing.token import Token
from captoken.keys.keyring import Keyring
from captoken.stores.memory import MemoryLedger
from captoken.testing._codes import check_code
from captoken.testing._fixed import FixedClock

_BEGINS = 1_764_061_200  # what the clock shows when the token is minted
_WHO = {"subject": "user:jane", "agent": "agent", "task": "task"}


class _CallSaid(msgspec.Struct, forbid_unknown_fields=True):
    """A call as the file has it. See Access and Caller."""

    code: str
    after: int | str = 0  # since the mint: seconds, or a text with units
    table: str | None = None
    operation: str | None = None
    columns: list[str] | None = None
    row: dict[str, Any] | UnsetType = UNSET
    becomes: dict[str, Any] | UnsetType = UNSET
    rows: list[dict[str, Any]] | None = None
    tool: str | None = None
    arguments: dict[str, Any] | None = None
    attributes: dict[str, Any] = {}
    cost: dict[str, int] = {}
    caller: dict[str, str] | None = None


class _ScenarioSaid(msgspec.Struct, forbid_unknown_fields=True):
    """A scenario as the file has it."""

    name: str
    token: dict[str, Any]
    call: list[_CallSaid]
    link: list[dict[str, Any]] = []
    audience: str | None = None  # of the verifier; it takes tokens for nobody in particular, too


class _FileSaid(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file. `captoken` is the version of this format, and tells it from other files."""

    captoken: int
    scenario: list[_ScenarioSaid]


class ScenarioCall(NamedTuple):
    """One call: what is asked, when, and the code that it has to come to."""

    access: Access
    caller: Caller | None
    after: int  # seconds since the mint
    code: str


class CallOutcome(NamedTuple):
    """What a call came to."""

    call: ScenarioCall
    code: str
    line: str  # for people

    @property
    def as_expected(self) -> bool:
        """Is it the code that was written down?"""
        return self.code == self.call.code


class Scenario(NamedTuple):
    """A token, and calls with the code that each has to come to. `read_scenarios` reads them."""

    name: str
    token: Mapping[str, Any]
    links: tuple[Mapping[str, Any], ...]
    calls: tuple[ScenarioCall, ...]
    audience: str | None
    vocabulary: Vocabulary

    def run(self) -> list[CallOutcome]:
        """What each call comes to, with keys, clock and counts that are made for it.

        The token is as `mint` makes it, under a fresh key. A store of proofs, an overlay and keys
        of holders have no place here. Raises ValueError for a token that cannot be made so.
        """
        clock = FixedClock(_BEGINS)
        keyring = Keyring.generate()
        try:
            token = self._made(Issuer(keyring, vocabulary=self.vocabulary, clock=clock))
        except (CaptokenError, TypeError, ValueError) as error:
            raise ValueError(
                f"scenario {shown(self.name)}: its token or a link of it: {error}"
            ) from None

        with quietly():  # it mints, too
            verifier = Verifier(
                keyring,
                self.audience,
                allow_unaddressed=True,
                ledger=MemoryLedger(shared=True, floor=0),
                vocabulary=self.vocabulary,
                clock=clock,
            )
        outcomes: list[CallOutcome] = []
        for call in self.calls:
            clock.now = _BEGINS + call.after
            with quietly():
                decision = verifier.check(token, call.access, caller=call.caller)
            outcomes.append(CallOutcome(call, decision.code, decision.line()))
        return outcomes

    def _made(self, issuer: Issuer) -> Token:
        """The token: minted, and then each link. Raises what these raise."""
        minted: dict[str, Any] = {**_WHO, **self.token}
        token = issuer.mint(**minted)
        for link in self.links:
            token = token.delegate(**link) if "to" in link else token.attenuate(**link)
        return token


def read_scenarios(
    path: str | os.PathLike[str],
    *,
    vocabulary: Vocabulary = V1,
) -> list[Scenario]:
    """The scenarios of a TOML file.

        for scenario in read_scenarios("scenarios.toml"):
            assert all(outcome.as_expected for outcome in scenario.run())

    `vocabulary` says which caveats of your own are known. Raises ValueError for what is no such
    file, and says where; OSError for one that cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        return _scenarios(data, vocabulary)
    except ValueError as error:
        raise ValueError(f"{shown_file(path)}: {error}") from None


def scenarios_of(text: str, *, vocabulary: Vocabulary = V1) -> list[Scenario]:
    """The scenarios in a text, as `read_scenarios` reads them. Raises ValueError."""
    return _scenarios(text.encode("utf-8", "surrogatepass"), vocabulary)


def _scenarios(data: bytes, vocabulary: Vocabulary) -> list[Scenario]:
    try:
        said = fit(read_toml(data), _FileSaid)
    except ValueError as error:
        raise ValueError(f"no file of scenarios: {error}") from None
    if said.captoken != 1:
        raise ValueError(f"scenarios of version {said.captoken}, and 1 is known here")
    if not said.scenario:
        raise ValueError("no scenario is in it")
    return [_scenario(one, vocabulary) for one in said.scenario]


def _scenario(said: _ScenarioSaid, vocabulary: Vocabulary) -> Scenario:
    """A scenario as it is run. Raises ValueError, which names it and the call."""
    if not said.call:
        raise ValueError(f"scenario {shown(said.name)} has no call: it would ask nothing")
    calls: list[ScenarioCall] = []
    for number, call in enumerate(said.call, 1):
        try:
            calls.append(_call(call))
        except (TypeError, ValueError) as error:
            where = f"scenario {shown(said.name)}, call {number}"
            raise ValueError(f"{where}: {error}") from None
    return Scenario(
        said.name,
        said.token,
        tuple(said.link),
        tuple(calls),
        said.audience,
        vocabulary,
    )


def _call(said: _CallSaid) -> ScenarioCall:
    """A call as it is asked. Raises TypeError or ValueError for what is none."""
    check_code(said.code, "allowed")
    access = Access(
        table=said.table,
        operation=said.operation,
        columns=said.columns,
        row=said.row,
        becomes=said.becomes,
        rows=said.rows,
        tool=said.tool,
        arguments=said.arguments,
        attributes=said.attributes,
        cost=said.cost,
    )
    caller = None if said.caller is None else made(Caller, said.caller)
    after = said.after if isinstance(said.after, int) else duration(said.after)
    return ScenarioCall(access, caller, after, said.code)

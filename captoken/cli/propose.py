"""`captoken audit propose`, which writes scenarios, and `captoken test`, which runs them.

What to grant in place of what was granted is worked out of a trail. A scenario is a token, calls,
and the codes that they come to.

What is written is Python and TOML for people to paste. All that a record says stands in it as a
literal, in ASCII: no name that a stranger wrote becomes code, or moves a terminal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from captoken._format import names
from captoken._format.spelling import escape, named, readable_time, shown_file
from captoken._language.access import Access
from captoken._language.caveats import RIGHTS
from captoken._verification.records import CODES
from captoken.audit import analysis as trails
from captoken.cli import words
from captoken.cli.audit import file_argument, history
from captoken.cli.logged import tried
from captoken.cli.options import json_option
from captoken.cli.output import answer, spaced, tell
from captoken.cli.values import FILE
from captoken.testing import CallOutcome, Scenario, read_scenarios, scenarios_of

# A line of Python that is longer is broken after each item.
_WIDTH = 88

# Calls in one scenario, at most: a trail may have more than anybody reads.
_MOST = 200

# What a narrower token refuses of itself. What was denied for another reason is no scenario of it.
_BY_RIGHTS = {one.code for one in CODES.values() if one.wider} | {"attribute"}


@click.command()
@file_argument
@click.option(
    "--task",
    metavar="PATH",
    help="This task and those below it, together. The default is each task by itself.",
)
@click.option(
    "--agent",
    metavar="NAME",
    help="Only this agent.",
)
@click.option(
    "--against",
    type=FILE,
    metavar="FILE",
    help="Show which accesses of this later trail would be denied. The default is FILE itself.",
)
@click.option(
    "--scenarios",
    type=FILE,
    metavar="FILE",
    help="Write scenarios for `captoken test` to FILE, which must not exist yet.",
)
@json_option
def propose(
    trail_file: str,
    task: str | None,
    agent: str | None,
    against: str | None,
    scenarios: str | None,
    as_json: bool,
) -> None:
    """Propose narrower tokens from what was done.

    For each agent and task it prints the narrowest keywords that would have permitted the work. You
    can paste them into `mint` or `delegate`. It also prints what they would have denied.

    So you can start with a broad token, watch, and then grant only what is used. Record the values
    of arguments for that (AuditTrail(values=True)), because values that were not recorded cannot be
    narrowed. The proposal covers what was done so far, not what will be needed.

    \b
    captoken audit propose trail.jsonl --task payday \\
        --scenarios scenarios.toml
    captoken test scenarios.toml
    """
    if scenarios is not None and os.path.exists(scenarios):
        raise click.UsageError(f"{scenarios} is there: --scenarios writes over none")
    seen = history(trail_file)
    found = [one for one in trails.propose(seen, task=task) if agent in (None, one.agent)]
    later = None if against is None else trails.propose(history(against), task=task)
    refused = [_refused(one, later) for one in found]

    if scenarios is not None:
        _write(scenarios, found)
    data = {"proposals": list(map(_data, found, refused))}
    answer(as_json, data, *spaced(map(_lines, found, refused)))
    if not found and not as_json:
        tell("no described token matches")


def _refused(
    proposal: trails.Proposal,
    later: Sequence[trails.Proposal] | None,
) -> list[trails.Shortfall]:
    """What the keywords would have refused, of this trail or of what the same agent did later."""
    if later is None:
        return trails.refused_of(proposal, proposal.allowed)
    same = [
        decision
        for one in later
        if (one.holders, one.task) == (proposal.holders, proposal.task)
        for decision in one.allowed
    ]
    return trails.refused_of(proposal, same)


def _data(proposal: trails.Proposal, refused: Iterable[trails.Shortfall]) -> dict[str, Any]:
    """A proposal for machines."""
    return {
        "agent": proposal.agent,
        "holders": list(proposal.holders),
        "task": proposal.task,
        "tokens": len(proposal.hops),
        "allowed": len(proposal.allowed),
        "denied": len(proposal.denied),
        "call": "mint" if proposal.is_minted else "delegate",
        "keywords": _keywords(proposal),
        "not_recorded": list(proposal.lost),
        "refused": [
            {
                "seq": one.decision.seq,
                "at": one.decision.at,
                "tried": tried(one.decision.access),
                "why": one.why,
                "certain": one.is_certain,
            }
            for one in refused
        ],
    }


def _keywords(proposal: trails.Proposal) -> dict[str, Any]:
    """All keywords of the call, so that it can be made as it stands."""
    hop = proposal.hops[0]
    if proposal.is_minted:
        # Where anything was needed, `mint` wants that said aloud.
        is_narrow = any(key in proposal.keywords for key in RIGHTS)
        anything = {} if is_narrow else {"unrestricted": True}
        who = {"subject": hop.root.subject, "agent": proposal.agent, "task": proposal.task}
        return who | anything | proposal.keywords
    whole = hop.root.task
    is_narrower = proposal.task != whole and names.at_or_below(proposal.task, whole)
    narrower = {"task": proposal.task} if is_narrower else {}
    return {"to": proposal.agent} | narrower | proposal.keywords


# --- Python ---------------------------------------------------------------------------------------


def _lines(proposal: trails.Proposal, refused: Sequence[trails.Shortfall]) -> Iterator[str]:
    """A proposal for people: what it is of, the call, and what it would have refused."""
    chain = " > ".join(map(named, proposal.holders))
    tokens = words.counted(len(proposal.hops), "token")
    done = f"{len(proposal.allowed)} allowed, {len(proposal.denied)} denied"
    yield f"# {chain}, task {named(proposal.task)}: {tokens}, {done}"
    if not proposal.allowed:
        yield "# nothing was allowed to it: it needed no token"
        return

    yield "issuer.mint(" if proposal.is_minted else "token.delegate("
    for key, value in _keywords(proposal).items():
        yield from _argument(f"{key}=", value, "    ")
    yield ")"
    for lost in proposal.lost:
        yield f"# not narrowed, since a value was not recorded: {escape(lost)}"
    for one in refused:
        label = "would be refused" if one.is_certain else "cannot be known"
        where = f"record {one.decision.seq}, {readable_time(one.decision.at)}"
        yield f"# {label}: {where}: {tried(one.decision.access)}; {escape(one.why)}"
    if not refused:
        yield "# would be refused: nothing"


def _argument(start: str, value: Any, indent: str) -> Iterator[str]:
    """A keyword or an item of Python: in a line, or an item a line."""
    line = f"{indent}{start}{_python(value)},"
    if len(line) <= _WIDTH or not isinstance(value, dict | list) or not value:
        yield line
        return
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    yield f"{indent}{start}{opened}"
    items = value.items() if isinstance(value, dict) else (("", item) for item in value)
    for key, item in items:
        named_item = f"{_text(key)}: " if isinstance(value, dict) else ""
        yield from _argument(named_item, item, f"{indent}    ")
    yield f"{indent}{closed},"


def _python(value: Any) -> str:
    """A literal of Python, in ASCII."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {_python(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_python, value)) + "]"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(value: str) -> str:
    """A string of Python, in ASCII: in double quotes, if none is in it."""
    spelled = ascii(value)
    return spelled if '"' in spelled else f'"{spelled[1:-1]}"'


# --- TOML -----------------------------------------------------------------------------------------


def _write(path: str, proposals: Iterable[trails.Proposal]) -> None:
    """Write scenarios of all proposals of which something is known to a new file."""
    texts = [text for text in map(_scenario, proposals) if text]
    if not texts:
        tell(f"{path} is not written: no call was recorded with all of its values")
        return
    with open(path, "x", encoding="utf-8") as file:
        file.write("\n".join(["captoken = 1\n", *texts]))
    tell(f"{path}: {words.counted(len(texts), 'scenario')}")


def _scenario(proposal: trails.Proposal) -> str:
    """A scenario in TOML; empty, where no call was recorded with its values.

    What was allowed has to be allowed. What was denied has the code that the proposed token gives:
    it is asked, since a narrower one may say another than the token of that time.
    """
    kept, lost = _calls(proposal.allowed)
    if not kept:
        return ""
    head = _head(proposal)
    denied, _ = _calls(proposal.denied)
    others = [call for call in denied if call not in kept]

    asked = "".join(_call(call, "allowed") for call in others)
    codes: list[str] = []
    if others:
        (trial,) = scenarios_of("captoken = 1\n" + head + asked)
        codes = [outcome.code for outcome in trial.run()]
    refused = [
        _call(call, code) for call, code in zip(others, codes, strict=True) if code in _BY_RIGHTS
    ]
    allowed = "".join(_call(call, "allowed") for call in kept)
    return head + allowed + "".join(refused) + _left_out(lost)


def _head(proposal: trails.Proposal) -> str:
    """The scenario without its calls: the token, and how it came to the agent."""
    hop = proposal.hops[0]
    chain = " > ".join(proposal.holders)
    text = f"[[scenario]]\nname = {_toml(f'{chain}, task {proposal.task}')}\n\n[scenario.token]\n"
    if proposal.is_minted:
        return text + _pairs(_keywords(proposal))

    # All above it is open: what is tested is this one's.
    first = proposal.holders[0]
    above = {
        "subject": hop.root.subject,
        "agent": first,
        "task": hop.root.task,
        "unrestricted": True,
    }
    text += _pairs(above)
    for holder in proposal.holders[1:-1]:
        text += f"\n[[scenario.link]]\nto = {_toml(holder)}\n"
    return text + "\n[[scenario.link]]\n" + _pairs(_keywords(proposal))


def _pairs(stated: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in stated.items())


def _left_out(lost: int) -> str:
    """What to say of calls that are in no scenario; empty, if there are none."""
    if not lost:
        return ""
    calls = words.counted(lost, "call")
    why = f"a value was not recorded, or is none of TOML's; or there are more than {_MOST}"
    return f"\n# Without {calls} more: {why}.\n"


def _calls(decisions: Iterable[trails.Decided]) -> tuple[list[dict[str, Any]], int]:
    """The accesses that were recorded with all of their values, each once; how many are left out.

    A trail may be long: so those that were seen are found by their spelling.
    """
    calls: dict[str, dict[str, Any]] = {}
    lost = 0
    for decision in decisions:
        if decision.access is None:
            continue
        call = _stated(decision.access)
        spelled = json.dumps(call, sort_keys=True)
        if call is None or (spelled not in calls and len(calls) == _MOST):
            lost += 1
        else:
            calls.setdefault(spelled, call)
    return list(calls.values()), lost


def _stated(access: trails.Accessed) -> dict[str, Any] | None:
    """An access as a scenario states it; None, where a value of it is not known.

    None too for what is no access: a record is what somebody wrote.
    """
    facts = {"arguments": access.arguments or {}, "attributes": access.attributes or {}}
    if not all(isinstance(stated, dict) and _is_plain(stated) for stated in facts.values()):
        return None
    stated: dict[str, Any] = {
        "table": access.table,
        "operation": access.operation,
        "columns": access.columns,
        "tool": access.tool,
        **{key: value for key, value in facts.items() if value},
        "cost": access.cost or None,
    }
    call = {key: value for key, value in stated.items() if value is not None}
    try:
        Access(**call)
    except (TypeError, ValueError):
        return None
    return call


def _is_plain(value: Any) -> bool:
    """Is it as it was given? A trail has a mark in the place of what JSON has no spelling for."""
    if isinstance(value, dict):
        return "~" not in value and all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list) else True


def _call(stated: Mapping[str, Any], code: str) -> str:
    return "\n[[scenario.call]]\n" + _pairs({**stated, "code": code})


def _toml(value: Any) -> str:
    """A value in TOML, in ASCII, on one line."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{_toml(key)} = {_toml(one)}" for key, one in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(map(_character, value)) + '"'
    return json.dumps(value)


def _character(one: str) -> str:
    """A character of a string in TOML. What is beyond ASCII goes by its number."""
    if one in '"\\':
        return f"\\{one}"
    if " " <= one <= "~":
        return one
    return f"\\u{ord(one):04x}" if ord(one) < 0x10000 else f"\\U{ord(one):08x}"


# --- running scenarios ----------------------------------------------------------------------------


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
    lines = [line for _, scenario, outcomes in ran for line in _ran_lines(scenario, outcomes)]
    lines.append(f"{words.counted(len(ran), 'scenario')}, {failed} failed")
    answer(as_json, {"scenarios": [_ran_data(*one) for one in ran], "failed": failed}, *lines)
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


def _ran_lines(scenario: Scenario, outcomes: list[CallOutcome]) -> Iterator[str]:
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
        trails.Accessed(
            table=access.table,
            operation=access.operation,
            columns=None if access.columns is None else list(access.columns),
            tool=access.tool,
            arguments=None if access.arguments is None else dict(access.arguments),
            attributes=dict(access.attributes),
            cost=dict(access.cost),
        )
    )


def _ran_data(path: str, scenario: Scenario, outcomes: list[CallOutcome]) -> dict[str, Any]:
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

"""`captoken verify` and `explain`: may the bearer of a token do this?"""

from __future__ import annotations

from typing import Any

import click
from msgspec import structs

from captoken.access import Access, Caller
from captoken.cli import files
from captoken.cli.options import (
    DURATION,
    OBJECT,
    clock,
    facts_option,
    json_option,
    keyring_option,
    now_option,
    stacked,
    token_option,
)
from captoken.cli.output import say, say_json
from captoken.decision import Decision, escape, place
from captoken.errors import CODES, Denied
from captoken.verify import Verifier

_asking = stacked(
    keyring_option,
    token_option,
    click.option("--table", metavar="NAME", help="The table that is accessed."),
    click.option("--operation", metavar="NAME", help="The operation on it."),
    click.option("--column", "columns", metavar="NAME", multiple=True, help="A column that it touches. Repeatable."),
    click.option("--tool", metavar="NAME", help="The tool that is called."),
    click.option("--arguments", type=OBJECT, metavar="JSON", help="""Its arguments: '{"q":"rates"}'."""),
    facts_option("--attribute", help="A fact: 'region=eu', 'size=5' (JSON, or else a string). Repeatable."),
    click.option("--token-only", is_flag=True, help="Ask about no access: is the token genuine, alive and for this server?"),
    click.option("--audience", metavar="NAME", multiple=True, help="A name of this server. Repeatable."),
    click.option("--allow-unaddressed", is_flag=True, help="Take tokens addressed to nobody, though --audience is given."),
    click.option("--caller-agent", metavar="NAME", help="Who calls, as the server itself knows."),
    click.option("--caller-task", metavar="PATH", help="The task that the caller works in, as the server itself knows."),
    click.option("--leeway", type=DURATION, metavar="TIME", default="0s", help="How far clocks may differ."),
    now_option,
    json_option,
)


def _decision(
    *, keyring: str | None, token_file: str, table: str | None, operation: str | None, columns: tuple[str, ...],
    tool: str | None, arguments: dict[str, Any] | None, attribute: dict[str, Any], token_only: bool,
    audience: tuple[str, ...], allow_unaddressed: bool, caller_agent: str | None, caller_task: str | None,
    leeway: int, now: int | None, dry: bool,
) -> Decision:  # fmt: skip
    if token_only == any((table, operation, columns, tool, arguments is not None, attribute)):
        raise click.UsageError("state --table and --operation, or --tool, or --attribute; or else --token-only")
    access = Access(
        table=table, operation=operation, columns=columns or None, tool=tool, arguments=arguments, attributes=attribute
    )
    caller = None if caller_agent is None and caller_task is None else Caller(agent=caller_agent, task=caller_task)
    if token_only and caller is not None:
        raise click.UsageError("a caller is checked with an access")
    verifier = Verifier(
        files.keyring(keyring), audience or None, allow_unaddressed=allow_unaddressed, leeway=leeway, clock=clock(now)
    )
    text = files.token_text(token_file)
    if not token_only:
        return (verifier.explain if dry else verifier.check)(text, access, caller=caller)
    try:
        decision = verifier.authenticate(text).recheck()
    except Denied as denied:
        decision = denied.decision
    return structs.replace(decision, dry=dry)


@click.command()
@_asking
def verify(as_json: bool, **facts: Any) -> int:
    """Verify a token and an access. Exit 0: allowed, 1: denied.

    \b
    captoken verify --keyring keyring.json --table sales --operation select < child.token
    """
    decision = _decision(dry=False, **facts)
    if as_json:
        say_json(decision.as_dict())
    else:
        say(_line(decision))
    return 0 if decision else 1


def _line(decision: Decision) -> str:
    grant = decision.grant
    if grant is None:
        refusal = decision.refusals[0]
        return escape(f"DENIED   {refusal.code}: {place(refusal)}: {refusal.text}")
    tried = decision.access.summary if decision.access else "the token itself"
    return escape(
        f"ALLOWED  {tried}, to {grant.actor.name} ({grant.actor.basis}), for {grant.issued.subject}, task {grant.task}"
    )


@click.command()
@_asking
def explain(as_json: bool, **facts: Any) -> int:
    """Say why: who acts for whom, each refusal with the link that says it and who added it, and the plan step by step.

    Runs what `verify` runs and commits nothing. For operators: it tells more than a client or an agent should see.

    \b
    captoken explain --keyring keyring.json --table hr --operation select < child.token
    """
    decision = _decision(dry=True, **facts)
    if as_json:
        say_json(decision.as_dict())
    else:
        say(str(decision))
        say("\nplan")
        for step in decision.steps:
            detail = f": {escape(step.detail)}" if step.detail else ""
            say(f"  {step.number:>2}  {step.name:<22}{step.outcome}{detail}")
        say("\ntold")
        say(f"  the agent   {decision.for_model()}")
        if not decision:
            say(f"  the client  {CODES[decision.code].public}")
    return 0 if decision else 1

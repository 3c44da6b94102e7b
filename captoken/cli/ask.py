"""`captoken verify` and `explain`: may the bearer of a token do this?"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from captoken._format.clocks import CLOCKS_DIFFER, PROOF_AHEAD, Clock
from captoken._format.errors import StoreError
from captoken._format.spelling import escape
from captoken._language.access import Caller
from captoken._verification.decision import Decision, Denied
from captoken._verification.effects import NO_LEDGER, NO_REPLAYS
from captoken._verification.telling import quietly
from captoken._verification.verifier import Verifier
from captoken._verification.wording import told_to_client
from captoken.cli import files
from captoken.cli.options import (
    access_of,
    access_options,
    clock,
    facts_option,
    http_of,
    http_options,
    json_option,
    keyring_option,
    newest_overlay,
    now_option,
    overlay_options,
    stacked,
    token_option,
)
from captoken.cli.output import answer, tell
from captoken.cli.values import DURATION, FILE
from captoken.cli.view import read
from captoken.keys.keyring import Keyring
from captoken.stores.ports import Debit, Forbidden, MarkedStep, Reservation, Spend, Use

if TYPE_CHECKING:
    from captoken._verification.effects import Recorder
    from captoken.stores.sqlite import SQLiteLedger, SQLiteReplayStore

_asking = stacked(
    keyring_option,
    token_option,
    access_options,
    click.option(
        "--audience",
        metavar="NAME",
        multiple=True,
        help="A name of this server. Repeatable.",
    ),
    click.option(
        "--allow-unaddressed",
        is_flag=True,
        help="Accept tokens without an audience although --audience is given.",
    ),
    click.option(
        "--caller-agent",
        metavar="NAME",
        help="The calling agent, as the server itself knows it.",
    ),
    click.option(
        "--caller-task",
        metavar="PATH",
        help="The caller's task, as the server itself knows it.",
    ),
    http_options,
    click.option(
        "--replays",
        type=FILE,
        metavar="FILE",
        help="The SQLite file that remembers used proofs.",
    ),
    click.option(
        "--ledger",
        type=FILE,
        metavar="FILE",
        help="The SQLite file in which all servers of a token count its uses and budgets.",
    ),
    facts_option(
        "--cost",
        help="The cost of the access, for a budget: 'usd_cents=5'. Repeatable.",
    ),
    overlay_options,
    click.option(
        "--leeway",
        type=DURATION,
        metavar="TIME",
        default="0s",
        help="How far the clocks of issuer and server may differ.",
    ),
)


def _decision(
    *,
    keyring: str | None,
    token_file: str,
    audience: tuple[str, ...],
    allow_unaddressed: bool,
    caller_agent: str | None,
    caller_task: str | None,
    http: tuple[str, str, str] | None,
    body: str | None,
    replays: _Replays | None,
    ledger: _Ledger | None,
    leeway: int,
    now: int | None,
    dry: bool,
    overlay: str | None,
    operator: tuple[str, ...],
    audit: Recorder | None = None,
    **given: Any,
) -> Decision:
    """What `verify` and `explain` decide; with --token-only, of the token alone."""
    access = access_of(given)
    caller = None
    if caller_agent is not None or caller_task is not None:
        caller = Caller(agent=caller_agent, task=caller_task)
    # A caller is judged with an access. To pass over it would look as if it had been checked.
    if access is None and caller is not None:
        raise click.UsageError("a caller is checked with an access")
    files.one_stdin(token_file, body)
    request = http_of(http, body)
    with quietly():  # it is no server, whatever name it asks for
        verifier = Verifier(
            files.keyring(keyring),
            audience or None,
            allow_unaddressed=allow_unaddressed,
            leeway=leeway,
            replays=replays,
            ledger=ledger,
            clock=clock(now),
            overlay=newest_overlay(overlay, operator),
            audit=audit,
        )
    text = files.token_text(token_file)
    with quietly():  # the command prints it
        if dry:
            decision = verifier.explain(text, access, caller=caller, request=request)
        elif access is None:
            decision = _shown(verifier, text, request)
        else:
            decision = verifier.check(text, access, caller=caller, request=request)
    if decision.code == "unknown_key":
        tell(_of_keys(text, files.keyring(keyring)))
    return decision


def _of_keys(text: str, keyring: Keyring) -> str:
    """Which key the token names, and which there are: ids alone, which are no secret."""
    named = read(text).token.unverified.root
    its = f"the token is of key {named.key_id}{_for(named.audience)}"
    return f"{its}; the keyring has {', '.join(keyring.key_ids)}{_for(keyring.audience)}"


def _for(audience: str | None) -> str:
    return "" if audience is None else f", for {audience} alone"


def _shown(verifier: Verifier, text: str, request: bytes | None) -> Decision:
    """The decision on a token that is shown without an access."""
    try:
        return verifier.authenticate(text, request=request).recheck()
    except Denied as denied:
        return denied.decision


@click.command()
@_asking
@click.option(
    "--create",
    is_flag=True,
    help="Create the files of --replays and --ledger, which must not exist yet.",
)
@click.option(
    "--consent-request",
    type=FILE,
    metavar="FILE",
    help="If a person's consent is missing, write what to ask to FILE: see `captoken consent`.",
)
@click.option(
    "--trail",
    type=FILE,
    metavar="FILE",
    help="The audit trail to record the decision in: see `captoken audit`.",
)
@now_option
@json_option
def verify(
    as_json: bool,
    replays: str | None,
    ledger: str | None,
    create: bool,
    consent_request: str | None,
    trail: str | None,
    now: int | None,
    **facts: Any,
) -> int:
    """Verify a token and an access. Exit 0: allowed, 1: denied.

    \b
    captoken verify --keyring keyring.json \\
        --table sales --operation select < child.token

    A token that is bound to a key is sent with a proof, which works once. --replays names the file
    that remembers used proofs. Best create it together with the keys: `captoken keygen keyring
    --create`. A file that --create makes later accepts only proofs made more than five seconds
    after it.

    \b
    captoken verify --keyring keyring.json --audience sales-db \\
        --table sales --operation select --replays used.db < presented.token

    A token with --uses or --budget is counted in the file of --ledger, which may be the same file.
    If --create makes it later, it accepts only tokens issued more than a minute after it. All
    servers that accept these tokens must count in this one file.

    \b
    captoken verify --keyring keyring.json --audience sales-db \\
        --table sales --operation select --ledger used.db < presented.token

    Revocations are checked only if you name the store of the overlay and the operator's public key:

    \b
    captoken verify --keyring keyring.json --table sales --operation select \\
        --overlay overlay.db --operator "$(cat operator.public)" < child.token
    """
    if create and replays is None and ledger is None:
        raise click.UsageError("--create makes the files that --replays and --ledger name")
    proofs = None if replays is None else _Replays(replays, clock(now))
    counts = None if ledger is None else _Ledger(ledger, clock(now))
    if create:
        for store in (proofs, counts):
            if store is not None:
                store.make()
    with nullcontext() if trail is None else files.trail(trail) as kept:
        decision = _decision(
            dry=False,
            now=now,
            replays=proofs,
            ledger=counts,
            audit=kept,
            **facts,
        )
    if consent_request is not None and (asked := decision.request()) is not None:
        files.save_text(asked, consent_request)
    answer(as_json, decision.as_dict(), _line(decision))
    hint = _hint(decision, proofs, counts)
    if hint is not None:
        tell(hint)
    elif decision and facts["overlay"] is None:
        # A denial stands, whatever was revoked.
        tell("revocations were not asked: --overlay names the operator's store")
    return 0 if decision else 1


def _hint(decision: Decision, proofs: _Replays | None, counts: _Ledger | None) -> str | None:
    """What to do about a denial for want of a store, or for one that is new."""
    if decision.code == "stale_overlay":
        return "run `captoken operate`, which keeps fresh what --overlay names"
    if decision.code == "cost_unstated":
        return "what it takes of a budget is stated with --cost: --cost usd_cents=5"
    if decision.code == "store_unavailable":
        # The token needs one or both: the refusal says which was asked for in vain.
        said = decision.refusals[0].text
        if counts is None and said == NO_LEDGER:
            return "a token with uses, a budget or marks needs a file that keeps them: --ledger"
        if proofs is None and said == NO_REPLAYS:
            return (
                "a token that is bound to a key needs a file "
                "that remembers which proofs were used: --replays"
            )
    if proofs is not None and proofs.is_new and decision.code == "replayed":
        return (
            f"{proofs.path} is new, and cannot know what was used before: "
            f"it takes proofs made more than {PROOF_AHEAD} seconds from now"
        )
    if counts is not None and counts.is_new and decision.code == "store_unavailable":
        return (
            f"{counts.path} is new, and cannot know what was used before: "
            f"it takes tokens issued more than {CLOCKS_DIFFER} seconds from now"
        )
    return None


class _InFile:
    """A store in a file, opened when it is needed."""

    def __init__(self, path: str, clock: Clock) -> None:
        self.path = path
        self.clock = clock
        self.is_new = False  # the file was made here, and knows of nothing that was used before

    def _kind(self) -> Any:
        """The class of the store. Imported when it is asked for, since it needs sqlite3."""
        raise NotImplementedError

    def make(self) -> None:
        """Make the file. Raises StoreError if it has such a store."""
        with files.about(self.path):
            self._kind().create(self.path, clock=self.clock).close()
        self.is_new = True

    @contextmanager
    def _opened(self, **facts: Any) -> Generator[Any]:
        """The store. Raises StoreError for a file that is not there: to open it makes none."""
        if not os.path.exists(self.path):
            raise StoreError(f"{self.path} is not there: --create makes one")
        with closing(self._kind()(self.path, **facts)) as store:
            yield store


class _Replays(_InFile):
    """The store of used proofs, opened when there is a proof to remember."""

    def _kind(self) -> type[SQLiteReplayStore]:
        from captoken.stores.sqlite import SQLiteReplayStore

        return SQLiteReplayStore

    def add(self, use: Use, now: int) -> bool:
        """Use it: False if it was used before. Raises StoreError where no file is."""
        with self._opened() as store:
            return bool(store.add(use, now))

    def peek(self, use: Use, now: int) -> bool:
        """The same without using it. Raises StoreError where no file is."""
        with self._opened() as store:
            return bool(store.peek(use, now))

    def spend(self, spend: Spend, now: int) -> bool:
        """Spend a consent: False if it was spent before. Raises StoreError where no file is."""
        with self._opened() as store:
            return bool(store.spend(spend, now))

    def peek_spend(self, spend: Spend, now: int) -> bool:
        """The same without spending it. Raises StoreError where no file is."""
        with self._opened() as store:
            return bool(store.peek_spend(spend, now))


class _Ledger(_InFile):
    """The ledger, opened when there is something to count. Each call raises StoreError.

    `shared`: whoever names the file says by that, as help has it, that all servers of these tokens
    count in it. With a file each, they would allow as much again.
    """

    shared = True

    def _kind(self) -> type[SQLiteLedger]:
        from captoken.stores.sqlite import SQLiteLedger

        return SQLiteLedger

    def _counted(self) -> AbstractContextManager[SQLiteLedger]:
        return self._opened(shared=True)

    def reserve(self, reservation: Reservation, now: int) -> Debit | None:
        """Count an access: None, or the first bucket that has not enough."""
        with self._counted() as ledger:
            return ledger.reserve(reservation, now)

    def peek(self, reservation: Reservation, now: int) -> Debit | None:
        """The same without counting it."""
        with self._counted() as ledger:
            return ledger.peek(reservation, now)

    def settle(self, reservation_id: bytes, amounts: Mapping[str, int] | None, now: int) -> bool:
        """What was taken in fact; False if there is no such reservation."""
        with self._counted() as ledger:
            return ledger.settle(reservation_id, amounts, now)

    def step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """Set the marks of a step, and count it: None, or what denies it."""
        with self._counted() as ledger:
            return ledger.step(step, now)

    def peek_step(self, step: MarkedStep, now: int) -> Forbidden | Debit | None:
        """The same without setting or counting anything."""
        with self._counted() as ledger:
            return ledger.peek_step(step, now)

    def spent(self, bucket: bytes, unit: str) -> int:
        """What a bucket has been debited."""
        with self._counted() as ledger:
            return ledger.spent(bucket, unit)


def _line(decision: Decision) -> str:
    """A decision in one line."""
    grant = decision.grant
    if grant is None:
        return decision.line()
    tried = decision.access.summary if decision.access else "the token itself"
    who = f"{grant.actor.name} ({grant.actor.basis})"
    return escape(f"allowed {tried}, to {who}, for {grant.issued.subject}, task {grant.task}")


@click.command()
@_asking
@now_option
@json_option
def explain(
    as_json: bool,
    replays: str | None,
    ledger: str | None,
    now: int | None,
    **facts: Any,
) -> int:
    """Say why an access is allowed or denied, and by whose rule.

    It also shows who acts for whom, and each step of the decision. It runs the same code as
    `verify`, reads the counts, and changes nothing. For operators only: it tells more than a client
    or an agent should see.

    \b
    captoken explain --keyring keyring.json \\
        --table hr --operation select < child.token
    """
    decision = _decision(
        dry=True,
        now=now,
        replays=None if replays is None else _Replays(replays, clock(now)),
        ledger=None if ledger is None else _Ledger(ledger, clock(now)),
        **facts,
    )
    answer(as_json, decision.as_dict(), *_why(decision))
    return 0 if decision else 1


def _why(decision: Decision) -> Iterator[str]:
    """A decision for operators: all reasons, the plan, and what others are told."""
    yield from (*str(decision).split("\n"), "", "plan")
    for step in decision.steps:
        detail = f": {step.detail}" if step.detail else ""
        yield f"  {step.number:>2}  {step.name:<22}{step.outcome}{detail}"
    yield from ("", "told", f"  the agent   {decision.for_model()}")
    if not decision:
        yield f"  the client  {told_to_client(decision.code, decision.refusals)}"

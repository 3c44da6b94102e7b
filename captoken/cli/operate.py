"""`captoken revoke`, `end-task`, `narrow`, `lift`, `renew` and `overlay`: issued tokens.

An operator is known by a key, and keeps what stands in a store that verifiers read. That it stays
fresh, `captoken operate` sees to.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import msgspec

from captoken._format.spelling import escape, named, readable_time, span, until
from captoken._language.entries import Entry
from captoken._language.overlay import Overlay
from captoken.cli import files, words
from captoken.cli.beside import note_unknown
from captoken.cli.options import (
    caveats,
    clock,
    entry_options,
    json_option,
    keep_option,
    now_option,
    seconds,
    stacked,
)
from captoken.cli.output import answer, say_exact, tell
from captoken.cli.values import FILE, ID, MOMENT, PUBLIC
from captoken.control._seen import LastSeen, keep_seen, kept_seen
from captoken.control.operator import Operator
from captoken.keys.secret import OperatorKey

if TYPE_CHECKING:
    from captoken.stores.sqlite import SQLiteSnapshots

# What makes the store of an operator's snapshots.
MAKES_STORE = "captoken operate --create"

store_option = click.option(
    "--store",
    type=FILE,
    metavar="FILE.db",
    required=True,
    help="The SQLite file of the overlay.",
)
key_option = click.option(
    "--key",
    type=FILE,
    metavar="FILE",
    required=True,
    help="The operator's key.",
)
by_option = click.option(
    "--by",
    metavar="NAME",
    default="operator",
    show_default=True,
    help="Who does it, for the record.",
)
_changing = stacked(
    key_option,
    store_option,
    click.option(
        "--token",
        type=ID,
        metavar="ID",
        help="This token and every token made from it.",
    ),
    click.option(
        "--link",
        type=ID,
        metavar="ID",
        help="This link, and every token made from it.",
    ),
    click.option(
        "--hop",
        metavar="N",
        help="This hand-over of a set, at every server: the `n` of its link. Needs --token.",
    ),
    click.option(
        "--task",
        metavar="PATH",
        help="This task, and the tasks below it.",
    ),
    click.option(
        "--agent",
        metavar="NAME",
        help="All tokens that this agent holds or has held, and those it gets later.",
    ),
    click.option(
        "--subject",
        metavar="NAME",
        help="All tokens for this subject.",
    ),
    click.option(
        "--kid",
        metavar="KEY_ID",
        help="All tokens minted with this key.",
    ),
    click.option(
        "--issued-before",
        type=MOMENT,
        metavar="TIME",
        help="All tokens minted before that time.",
    ),
    click.option(
        "--why",
        metavar="TEXT",
        required=True,
        help="The reason, for the record.",
    ),
    by_option,
    click.option(
        "--until",
        type=MOMENT,
        metavar="TIME",
        help="When the entry ends. The default is never.",
    ),
)


# How `renew` and `operate` begin with a store.
beginning_options = stacked(
    click.option(
        "--trusted",
        type=PUBLIC,
        metavar="PUBLIC",
        multiple=True,
        help="Accept the snapshots of this operator, to take over. Repeatable.",
    ),
    click.option(
        "--create",
        is_flag=True,
        help="Create the store, which must not exist yet.",
    ),
)


@contextmanager
def _snapshots(
    path: str,
    *,
    create: bool = False,
    readonly: bool = False,
) -> Generator[SQLiteSnapshots]:
    """The store in a file, which is made if that is asked for.

    Raises UsageError for a file that is not there, and StoreError for a store that is to be made
    and is there already.
    """
    from captoken.stores.sqlite import SQLiteSnapshots  # here, since it needs sqlite3

    if not create:
        files.must_be_there(path, MAKES_STORE)
    with files.about(path):
        if create:
            store = SQLiteSnapshots.create(path)
        else:
            store = SQLiteSnapshots(path, readonly=readonly)
        try:
            yield store
            if create:
                tell(f"{path} is new: let verifiers read this file")
        finally:
            store.close()


@contextmanager
def operating(
    key: str,
    store: str,
    now: int | None,
    *,
    create: bool = False,
    resume: str | None = None,
    **given: Any,
) -> Generator[Operator]:
    """An operator that knows which snapshot it saw last.

    That is kept beside the key, so that a store which goes back is noticed.
    """
    with operators(key, store, now, create=create, resume=resume, **given) as working:
        yield working.newest


class Operators:
    """The operators of a store: the one that began, and those that took over from it."""

    def __init__(self, make: Callable[..., Operator], key: OperatorKey, **given: Any) -> None:
        """`make` makes one of a key. `given` is for the first."""
        self._make = make
        self._by_key = [(key.public, make(key, **given))]

    @property
    def newest(self) -> Operator:
        return self._by_key[-1][1]

    @property
    def seen(self) -> str:
        """What has the highest number of all that they have seen."""
        return max((operator for _, operator in self._by_key), key=lambda one: one.last).seen

    def taken_over(self, key: OperatorKey) -> Operator:
        """The operator of that key: it reads what those before it have signed."""
        newest, operator = self._by_key[-1]
        if key.public == newest:
            return operator
        others = {public for public, _ in self._by_key} - {key.public}
        made = self._make(key, last=self.seen, trusted=sorted(others))
        self._by_key.append((key.public, made))
        return made


@contextmanager
def operators(
    key: str,
    store: str,
    now: int | None,
    *,
    create: bool = False,
    resume: str | None = None,
    **given: Any,
) -> Generator[Operators]:
    """As `operating`, for whoever goes on with another key while it works."""
    path = f"{key}.seen"
    secret = files.key(OperatorKey, key)
    seen = _kept(path)
    # Whoever can remove the store could else have the operator begin anew, with nothing revoked.
    if create and seen.seq and resume is None:
        raise click.UsageError(
            f"{path} says that there was a store, up to snapshot {seen.seq}: leave out --create, "
            "or begin anew with `captoken operate resume --create --why TEXT`"
        )
    with _snapshots(store, create=create) as snapshots:

        def make(secret: OperatorKey, **its: Any) -> Operator:
            return Operator(secret, snapshots, clock=clock(now), **{**given, **its})

        working = Operators(make, secret, last=str(seen), resume=resume)
        try:
            yield working
        finally:
            # Also after an error: the snapshot may be out, and the number never goes back.
            if LastSeen.read(working.seen).seq > _kept(path).seq:
                keep_seen(path, working.seen)


def _kept(path: str) -> LastSeen:
    """The last snapshot, as a file has it; none if there is no such file."""
    try:
        return kept_seen(path)
    except FileNotFoundError:
        return LastSeen()


def _say_entry(entry: Entry, now: int | None, as_json: bool) -> None:
    """Write the entry that was made."""
    answer(as_json, msgspec.to_builtins(entry), *_lines(entry, seconds(now)))


@click.command()
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="All tokens, including those minted in the next minute.",
)
@_changing
@now_option
@json_option
def revoke(
    everything: bool,
    key: str,
    store: str,
    why: str,
    by: str,
    until: int | None,
    now: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Revoke tokens.

    A token is revoked if it matches all given selectors. Prints the entry. Verifiers deny these
    tokens from their next look at the store on. To undo it, use `captoken lift`.

    \b
    captoken revoke --key operator.json --store overlay.db \\
        --agent clerk --why "laptop lost"
    captoken revoke --key operator.json --store overlay.db \\
        --all --why "an intruder"

    --all stops everything. Issuers may continue: tokens that they mint a minute later work again.
    The minute allows for clocks that are ahead.
    """
    select = caveats(given)
    if everything and select:
        raise click.UsageError("--all is every token: leave out what selects some of them")
    with operating(key, store, now, by=by) as operator:
        if everything:
            entry = operator.revoke_all(why=why, until=until)
        else:
            entry = operator.revoke(why=why, until=until, **select)
    _say_entry(entry, now, as_json)
    note_unknown(key, entry)


@click.command("end-task")
@click.argument("task", metavar="TASK")
@key_option
@store_option
@click.option(
    "--why",
    metavar="TEXT",
    default="the task is over",
    show_default=True,
    help="The reason, for the record.",
)
@by_option
@now_option
@json_option
def end_task(
    task: str,
    key: str,
    store: str,
    why: str,
    by: str,
    now: int | None,
    as_json: bool,
) -> None:
    """Revoke all tokens of a task and the tasks below it.

    Tokens that are minted for it later are revoked too, until you undo it with `captoken lift`.
    Prints the entry.

    \b
    captoken end-task q3-risk --key operator.json --store overlay.db \\
        --by user:jane

    Keep the store fresh with `captoken operate`. Verifiers deny everything once the newest snapshot
    is older than their limit, 60 seconds by default.
    """
    with operating(key, store, now, by=by) as operator:
        entry = operator.end_task(task, why=why)
    _say_entry(entry, now, as_json)
    note_unknown(key, entry)


@click.command()
@_changing
@entry_options
@keep_option
@now_option
@json_option
def narrow(
    key: str,
    store: str,
    why: str,
    by: str,
    until: int | None,
    now: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Restrict issued tokens.

    A token is restricted if it matches all given selectors. It can then do no more than the other
    options say. --task selects tokens here. Naming tables or operations blocks all tools, unless
    you add --keep tools.

    \b
    captoken narrow --key operator.json --store overlay.db \\
        --task payday --operations select --why "read-only tonight"
    """
    with operating(key, store, now, by=by) as operator:
        entry = operator.narrow(why=why, until=until, **caveats(given))
    _say_entry(entry, now, as_json)


@click.command()
@key_option
@store_option
@click.option(
    "--entry",
    metavar="ID",
    required=True,
    help="The id of the entry.",
)
@click.option(
    "--why",
    metavar="TEXT",
    default="",
    help="The reason, for the log.",
)
@by_option
@now_option
@json_option
def lift(
    key: str,
    store: str,
    entry: str,
    why: str,
    by: str,
    now: int | None,
    as_json: bool,
) -> None:
    """Undo a revocation or restriction.

    The command that makes an entry prints its id. `captoken overlay` shows it too.

    \b
    captoken revoke --key operator.json --store overlay.db \\
        --agent clerk --why "laptop lost" > revoked
    captoken lift --key operator.json --store overlay.db \\
        --entry "$(sed -n 's/^entry //p' revoked)"
    """
    with operating(key, store, now, by=by) as operator:
        try:
            operator.lift(entry, why=why)
        except ValueError as error:
            raise click.UsageError(f"{error}: `captoken overlay` lists those in force") from None
    answer(as_json, {"lifted": entry, "by": by, "why": why})
    if not as_json:
        reason = f": {escape(why)}" if why else ""
        tell(f"{escape(by)} lifted entry {entry}{reason}")


@click.command()
@key_option
@store_option
@beginning_options
@now_option
@json_option
def renew(
    key: str,
    store: str,
    trusted: tuple[str, ...],
    create: bool,
    now: int | None,
    as_json: bool,
) -> None:
    """Sign the overlay again, once.

    It signs the current entries without a change. Verifiers deny everything once the newest
    snapshot is older than their limit, a minute by default. With --create, it creates the store and
    signs an empty overlay.

    It keeps the number of the newest snapshot next to the key, in a file that ends in .seen. It
    refuses a store that may have gone back: one with a lower number, with another history, or whose
    newest snapshot has expired. `captoken operate resume` says what to do then.

    \b
    captoken renew --key operator.json --store overlay.db

    `captoken operate` does this repeatedly.
    """
    facts: dict[str, Any] = {"by": "operator", "trusted": trusted}
    with operating(key, store, now, create=create, **facts) as operator:
        made = operator.renew()
    answer(as_json, renewal_data(made), title(made, seconds(now)))


@click.command()
@store_option
@click.option(
    "--operator",
    type=PUBLIC,
    metavar="PUBLIC",
    multiple=True,
    required=True,
    help="The public key of an operator who may sign. Repeatable.",
)
@click.option(
    "--raw",
    is_flag=True,
    help="Write the snapshot itself, to copy it or for `captoken audit replay`.",
)
@now_option
@json_option
def overlay(
    store: str, operator: tuple[str, ...], raw: bool, now: int | None, as_json: bool
) -> None:
    """Show all revocations and restrictions: by whom, when and why.

    Needs only the operator's public key.

    \b
    captoken overlay --store overlay.db --operator "$(cat operator.public)"
    """
    if raw and as_json:
        raise click.UsageError("--raw writes the snapshot as it is: it does not go with --json")
    with _snapshots(store, readonly=True) as snapshots:
        data = snapshots.load()
    if data is None:
        raise click.UsageError(f"{store} holds no snapshot yet")
    with files.about(store):
        opened = Overlay.open(data, operator)
    if raw:
        return say_exact(data.decode())
    return answer(as_json, _overlay_data(opened), *_overlay(opened, seconds(now)))


def renewal_data(made: Overlay) -> dict[str, Any]:
    """A snapshot that was signed, for machines, without its entries."""
    return {"seq": made.seq, "issued_at": made.issued_at, "entries": len(made.entries)}


def _overlay_data(opened: Overlay) -> dict[str, Any]:
    return {
        "seq": opened.seq,
        "issued_at": opened.issued_at,
        "expires_at": opened.expires_at,
        "entries": [msgspec.to_builtins(entry) for entry in opened.entries],
        "resumed": msgspec.to_builtins(opened.resumed),
    }


def _overlay(opened: Overlay, now: int) -> Iterator[str]:
    yield title(opened, now)
    said = opened.resumed
    if said is not None:
        yield f"resumed as snapshot {said.seq} by {named(said.by)}, after {said.lost} was there:"
        yield f"  {escape(said.why)}"
    for entry in opened.entries:
        yield from ("", *_lines(entry, now))


def title(opened: Overlay, now: int) -> str:
    """A snapshot in one line: its number, its age, and how much stands."""
    age = span(max(0, now - opened.issued_at))
    entries = words.counted(len(opened.entries), "entry", "entries")
    return f"snapshot {opened.seq} of {readable_time(opened.issued_at)}, {age} old: {entries}"


def _lines(entry: Entry, now: int) -> Iterator[str]:
    """An entry for people: on which tokens, what it does, who made it, when and why."""
    yield f"entry {named(entry.id)}"
    yield f"  on        {', '.join(_selected(entry))}"
    yield f"  does      {_does(entry, now)}"
    yield f"  by        {named(entry.by)} at {readable_time(entry.at)}"
    yield f"  why       {escape(entry.why)}"
    if entry.until is not None:
        yield f"  until     {until(entry.until, now)}"


def _selected(entry: Entry) -> Iterator[str]:
    """What is said of the tokens that an entry is on."""
    stated = msgspec.to_builtins(entry.select)
    before = stated.pop("issued_before", None)
    for key, value in stated.items():
        yield f"{key} {named(value)}"
    if before is not None:
        yield f"issued before {readable_time(before)}"


def _does(entry: Entry, now: int) -> str:
    if entry.link is None:
        return "revoked"
    return "; ".join(words.of_stated(entry.link, now)) or "as its caveats say"

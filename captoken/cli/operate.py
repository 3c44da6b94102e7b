"""`captoken revoke`, `narrow`, `lift`, `renew` and `overlay`: the operator's hand on tokens that are out."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import msgspec

from captoken._format.spelling import escape
from captoken._language.overlay import Entry, Overlay
from captoken.cli import words
from captoken.cli.options import (
    ID,
    MOMENT,
    PUBLIC,
    audience_option,
    caveats,
    clock,
    expiry_options,
    json_option,
    keep_option,
    now_option,
    restriction_options,
    seconds,
    stacked,
)
from captoken.cli.output import say, say_json, say_utf8, tell
from captoken.control.operator import Operator
from captoken.keys.files import write_private
from captoken.keys.secret import OperatorKey

if TYPE_CHECKING:
    from captoken.stores.sqlite import SQLiteSnapshots

_store = click.option(
    "--store",
    metavar="FILE.db",
    required=True,
    help="Where the newest snapshot lies: an SQLite file.",
)
_key = click.option("--key", metavar="FILE", required=True, help="The operator's key.")
_changing = stacked(
    _key,
    _store,
    click.option("--token", type=ID, metavar="ID", help="This token and all that came of it."),
    click.option("--link", type=ID, metavar="ID", help="This link of a token, and all below."),
    click.option("--task", metavar="PATH", help="This task, and those below it."),
    click.option(
        "--agent", metavar="NAME", help="Whatever this agent has, or has ever had, in hand."
    ),
    click.option("--subject", metavar="NAME", help="Whatever was minted for this subject."),
    click.option("--kid", metavar="KEY_ID", help="Whatever was minted with this key."),
    click.option(
        "--issued-before", type=MOMENT, metavar="TIME", help="Whatever was minted before."
    ),
    click.option("--why", metavar="TEXT", required=True, help="Why, for the record."),
    click.option(
        "--by", metavar="NAME", default="operator", show_default=True, help="Who, for the record."
    ),
    click.option("--until", type=MOMENT, metavar="TIME", help="Until then, and no longer."),
)


@contextmanager
def _snapshots(path: str, *, new: bool = False) -> Generator[SQLiteSnapshots]:
    """The store in a file. Raises UsageError for a file that is not there, unless there may be a new one."""
    from captoken.stores.sqlite import SQLiteSnapshots  # here, since it needs sqlite3

    fresh = not os.path.exists(path)
    if fresh and not new:
        raise click.UsageError(f"{path} is not there: `captoken renew` begins one")
    store = SQLiteSnapshots(path)
    try:
        yield store
        if fresh:
            tell(f"{path} is new: verifiers have to read that very file")
    finally:
        store.close()


@contextmanager
def _operator(
    key: str, store: str, now: int | None, *, new: bool = False, **given: Any
) -> Generator[Operator]:
    """An operator that knows the number that it saw last: kept beside the key, so that a store which goes back is noticed."""
    seen, secret = f"{key}.seen", OperatorKey.load(key)
    last = _last(seen)
    if new and last and not os.path.exists(store) and not given.get("resume"):
        raise click.UsageError(
            f"{store} is not there, and {seen} says that snapshot {last} was: --resume begins anew"
        )
    with _snapshots(store, new=new) as snapshots:
        operator = Operator(secret, snapshots, last=last, clock=clock(now), **given)
        try:
            yield operator
        finally:
            if operator.last > _last(seen):
                write_private(seen, b"%d\n" % operator.last)


def _last(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read(20))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError):
        raise click.UsageError(
            f"{path} has to have the number of the last snapshot: it cannot be read"
        ) from None


def _add(
    add: Callable[[Operator], Entry], key: str, store: str, by: str, now: int | None, as_json: bool
) -> None:
    with _operator(key, store, now, by=by) as operator:
        entry = add(operator)
    if as_json:
        say_json(msgspec.to_builtins(entry))
    else:
        for line in _lines(entry, seconds(now)):
            say(line)


@click.command()
@_changing
@now_option
@json_option
def revoke(
    key: str,
    store: str,
    why: str,
    by: str,
    until: int | None,
    now: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Stop tokens that are out: those for which all that is said holds. Writes the entry.

    Verifiers that read the store deny them from their next look on; `captoken lift` takes the entry off again.

    \b
    captoken revoke --key operator.json --store overlay.db --agent clerk --why "laptop lost"
    """
    _add(
        lambda operator: operator.revoke(why=why, until=until, **caveats(given)),
        key,
        store,
        by,
        now,
        as_json,
    )


@click.command()
@_changing
@restriction_options
@expiry_options
@audience_option
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
    """Restrict tokens that are out: those for which all that is said holds can do no more than the options say.

    --task, as all selectors, says which tokens. Who names tables or operations closes tools, but for --keep tools.

    \b
    captoken narrow --key operator.json --store overlay.db --task payday --operations select --why "read-only tonight"
    """
    _add(
        lambda operator: operator.narrow(why=why, until=until, **caveats(given)),
        key,
        store,
        by,
        now,
        as_json,
    )


@click.command()
@_key
@_store
@click.option("--entry", metavar="ID", required=True, help="Which entry.")
@click.option("--why", metavar="TEXT", default="", help="Why, for the log.")
@now_option
def lift(key: str, store: str, entry: str, why: str, now: int | None) -> None:
    """Take an entry off again.

    \b
    captoken lift --key operator.json --store overlay.db --entry "$(cat entry)"
    """
    with _operator(key, store, now, by="operator") as operator:
        operator.lift(entry, why=why)
    tell(f"entry {entry} stands no more")


@click.command()
@_key
@_store
@click.option(
    "--trusted",
    type=PUBLIC,
    metavar="PUBLIC",
    multiple=True,
    help="Take over from this operator. Repeatable.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from an old snapshot: you have looked, and it is the newest.",
)
@now_option
@json_option
def renew(
    key: str, store: str, trusted: tuple[str, ...], resume: bool, now: int | None, as_json: bool
) -> None:
    """Sign anew what stands: verifiers deny all once the newest snapshot is older than their bound, a minute by default.

    Without a store yet, signs that nothing stands. The number of the newest snapshot is kept beside the key, in a file that
    ends in .seen: a store that has less, or whose newest snapshot has run out, is refused, since it may have gone back.

    \b
    while true; do captoken renew --key operator.json --store overlay.db; sleep 20; done
    """
    with _operator(
        key, store, now, new=True, by="operator", trusted=trusted, resume=resume
    ) as operator:
        made = operator.renew()
    if as_json:
        say_json({"seq": made.seq, "issued_at": made.issued_at, "entries": len(made.entries)})
    else:
        say(_title(made, seconds(now)))


@click.command()
@_store
@click.option(
    "--operator",
    type=PUBLIC,
    metavar="PUBLIC",
    multiple=True,
    required=True,
    help="Who may sign. Repeatable.",
)
@click.option(
    "--raw",
    is_flag=True,
    help="Write the snapshot itself: for a copy, or for `captoken audit replay`.",
)
@now_option
@json_option
def overlay(
    store: str, operator: tuple[str, ...], raw: bool, now: int | None, as_json: bool
) -> None:
    """Show what stands: who did what to which tokens, when and why. Needs the operator's public key alone.

    \b
    captoken overlay --store overlay.db --operator "$(cat operator.public)"
    """
    with _snapshots(store) as snapshots:
        data = snapshots.load()
    if data is None:
        raise click.UsageError(f"{store} holds no snapshot yet")
    opened, at = Overlay.open(data, operator), seconds(now)
    if raw:
        say_utf8(data.decode())
    elif as_json:
        entries = [msgspec.to_builtins(entry) for entry in opened.entries]
        say_json(
            {
                "seq": opened.seq,
                "issued_at": opened.issued_at,
                "expires_at": opened.expires_at,
                "entries": entries,
            }
        )
    else:
        say(_title(opened, at))
        for entry in opened.entries:
            for line in ("", *_lines(entry, at)):
                say(line)


def _title(opened: Overlay, now: int) -> str:
    count = len(opened.entries)
    age = words.life(max(0, now - opened.issued_at))
    return f"snapshot {opened.seq} of {words.moment(opened.issued_at)}, {age} old: {count} entr{'ies' if count != 1 else 'y'}"


def _lines(entry: Entry, now: int) -> Iterator[str]:
    stated = msgspec.to_builtins(entry.select)
    before = (
        [f"issued before {words.moment(stated.pop('issued_before'))}"]
        if "issued_before" in stated
        else []
    )
    selected = ", ".join(
        [*(f"{key} {words.name(value)}" for key, value in stated.items()), *before]
    )
    says = [] if entry.link is None else [*words.rights(entry.link), *words.bounds(entry.link, now)]
    yield f"entry {words.name(entry.id)}"
    yield f"  on        {selected}"
    yield f"  does      {'revoked' if entry.link is None else '; '.join(says) or 'as its caveats say'}"
    yield f"  by        {words.name(entry.by)} at {words.moment(entry.at)}"
    yield f"  why       {escape(entry.why)}"
    if entry.until is not None:
        yield f"  until     {words.until(entry.until, now)}"

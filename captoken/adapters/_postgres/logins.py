"""Rule 1: the login of a connection is a narrow one. What its roles may do is read, and kept.

A plan makes such a login (`captoken postgres plan`), and whoever has the rights can spoil it later.
So the login is looked at here, before a statement runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

from captoken._format.errors import GuardError
from captoken.adapters._postgres.assessment import Assessor
from captoken.adapters._postgres.catalog import CATALOG, Catalog
from captoken.adapters._postgres.opening import ROLLBACK_TO_SAVEPOINT
from captoken.adapters._postgres.text import Functions
from captoken.adapters._postgres.wire import Command, Connection, Steps, exchange

# Seconds for which a catalog that was read will do.
_FRESH = 30

# In a transaction of its own, before the block begins one. The search path has no schema in which
# anybody could put a function.
_PATH = Command(b"set local search_path = pg_catalog, pg_temp")
_CATALOG = Command(CATALOG.encode())
_READ_CATALOG = (Command(b"begin read only"), _PATH, _CATALOG, Command(b"commit"))

# The same within a transaction of a block. The path goes back to what it was.
_READ_IN_BLOCK = (ROLLBACK_TO_SAVEPOINT, _PATH, _CATALOG, ROLLBACK_TO_SAVEPOINT)

# What the catalog finds that a narrow login has none of, and what that means.
_NOT_NARROW = {
    "inherits": "is a member of more than narrow roles",
    "powerful": "can take on a role that is not narrow",
    "owns": "owns what it should be granted",
}


# What was read on a connection is kept on it, under this name. So it goes with the connection, and
# there is one for each.
_KEPT_AS = "_captoken_known"


class Known(NamedTuple):
    """What was read on a connection."""

    # When it was asked for, by a clock that nobody sets.
    read_at: float

    # The catalog, with what statements were found to need in it.
    assessor: Assessor


def kept_assessor(
    connection: Connection,
    functions: Functions,
) -> Assessor | None:
    """What says what statements need there, if it was read within 30 seconds.

    While a catalog is kept, a role can lose a right or get one. Of what it lost, PostgreSQL refuses
    what the guard lets through. What it got is denied at first, and found by the next block. What
    columns and functions there are is asked with each block (`assumptions`).
    """
    kept = known_of(connection)
    if kept is None or monotonic() - kept.read_at > _FRESH:
        return None
    # Fresh, and about the same functions of the owner's.
    return kept.assessor if kept.assessor.catalog.allowed == functions else None


def assessor_anew(
    connection: Connection,
    functions: Functions,
    *,
    begun: bool,
) -> Steps:
    """The same as it is now, within a block. Its last statement is undone.

    `begun`: whether its transaction goes on.

    Where it cannot be read, the connection is closed: a block without a transaction would end as
    if it had been committed.
    """
    try:
        commands = _READ_IN_BLOCK if begun else _READ_CATALOG
        return (yield from read_assessor(connection, functions, commands))
    except GuardError:
        connection.pgconn.finish()
        raise


def known_of(connection: Connection) -> Known | None:
    """What was read on this connection, however long ago. None if nothing was."""
    return vars(connection).get(_KEPT_AS)


def forget(connection: Connection) -> None:
    """The roles may have been planned anew: the next block reads the catalog."""
    vars(connection).pop(_KEPT_AS, None)


def read_assessor(
    connection: Connection,
    functions: Functions,
    commands: Sequence[Command] = _READ_CATALOG,
) -> Steps:
    """Read the catalog, as the login sees it, and keep it with what says what statements need.

    Raises GuardError where it cannot be read, or the login is no narrow one. Then there is no
    transaction any more.
    """
    # The time before it was read: what was changed meanwhile is no older than that.
    read_at = monotonic()
    answers = yield from exchange(connection, commands)
    for answer in answers:
        if answer.error is not None:
            yield from exchange(connection, [Command(b"rollback")])
            raise GuardError(f"the roles of the login cannot be read: {answer.error.message}")

    # The third command is the query. It gives one row of one value, as JSON.
    _, _, found, _ = answers
    row = json.loads(found.text or "null")
    _check_narrow(row)
    assessor = Assessor(Catalog(row, functions))
    vars(connection)[_KEPT_AS] = Known(read_at, assessor)
    return assessor


def _check_narrow(row: Mapping[str, Any]) -> None:
    """Rule 1. Raises GuardError for a login that could do more than take on narrow roles."""
    login = row["login"]
    name = login["rolname"]

    # What the guard relies on does not hold for these: they need no role, or make one themselves.
    if (
        login["rolsuper"]
        or login["rolbypassrls"]
        or login["rolcreaterole"]
        or login["rolreplication"]
    ):
        raise GuardError(
            f"login {name} has too many rights: it is a superuser, or bypasses row security, or "
            "can create roles"
        )

    for part, meaning in _NOT_NARROW.items():
        found = row[part]
        if found:
            raise GuardError(f"login {name} {meaning}: {', '.join(sorted(found)[:5])}")

    if not row["ready"]:
        raise GuardError(
            f"login {name} was not made by `captoken postgres plan`, or was made by an older "
            "release: run the plan again"
        )

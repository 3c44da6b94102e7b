"""One statement of a store on PostgreSQL, and its one value: as steps that a connection waits for.

psycopg's own cursors do more than a store needs, and take as long for it as the rest of a call. And
they name what they prepare alike on each connection. Behind a pooler that gives each transaction
another server, such a name can stand for what another client has prepared: `peek_reserve` where
`reserve` was meant. A name is therefore drawn here, at random.

Names are lost with DISCARD ALL and DEALLOCATE ALL, and behind such a pooler. The server then runs
nothing, the statement is sent whole, in one piece, and is prepared anew when it comes again. A
connection that loses names twice does without them from then on.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Sequence
from time import monotonic
from typing import Any, TypeAlias

from captoken._format.extras import extra

with extra("postgres"):
    from psycopg import errors, generators
    from psycopg.adapt import Transformer
    from psycopg.pq import DiagnosticField, ExecStatus

from captoken.stores._rules import LateError

# The generator that a connection's `wait` runs, sync or async: it yields what to wait for.
Steps: TypeAlias = "Generator[Any, Any, Any]"

# Kept on a connection, and gone with it: what it has prepared, as which name.
_KEPT_AS = "_captoken_statements"
_LOSSES = 2
_UNKNOWN_NAME = b"26000"


def in_time(asking: Steps, until: float) -> Steps:
    """The same steps, until that time. Raises LateError, and the connection is to be closed."""
    try:
        waits_for = next(asking)
        while True:
            # Some time goes by in here, a tenth of a second at most.
            ready = yield waits_for
            if not ready and monotonic() > until:
                raise LateError
            waits_for = asking.send(ready)
    except StopIteration as done:
        return done.value
    finally:
        asking.close()


def steps(connection: Any, statement: bytes, values: Sequence[Any]) -> Steps:
    """The one value that a statement gives, or None where it gives no row.

    Raises what psycopg makes of an error of the server.
    """
    pgconn = connection.pgconn
    sent = [_written(value, connection.info.encoding) for value in values]
    known: _Prepared = vars(connection).setdefault(_KEPT_AS, _Prepared())
    if statement in known.names and known.losses < _LOSSES:
        name = known.names[statement]
        if name is None:
            name = b"captoken_" + secrets.token_hex(12).encode()
            pgconn.send_prepare(name, statement)
            yield from _result(pgconn)
            known.names[statement] = name
        pgconn.send_query_prepared(name, sent)
        results = yield from generators.execute(pgconn)
        if results[0].error_field(DiagnosticField.SQLSTATE) != _UNKNOWN_NAME:
            return _value(connection, _checked(results))
        known.names.clear()
        known.losses += 1

    # What comes for the first time has no round trip more.
    known.names.setdefault(statement, None)
    pgconn.send_query_params(statement, sent)
    return _value(connection, (yield from _result(pgconn)))


class _Prepared:
    """What came on a connection, with its name, from the second time on."""

    def __init__(self) -> None:
        self.names: dict[bytes, bytes | None] = {}
        self.losses = 0


def _result(pgconn: Any) -> Steps:
    """The one result of what was sent. Raises what psycopg makes of an error."""
    return _checked((yield from generators.execute(pgconn)))


def _checked(results: Sequence[Any]) -> Any:
    """The result, if it is one. Raises what psycopg makes of an error."""
    (result,) = results
    if result.status == ExecStatus.FATAL_ERROR:
        raise errors.error_from_result(result)
    return result


def _value(connection: Any, result: Any) -> Any:
    """The first value of a result, as psycopg reads it."""
    if result.ntuples == 0:
        return None
    reading = Transformer.from_context(connection)
    reading.set_pgresult(result)
    return reading.load_row(0, tuple)[0]


def _written(value: Any, encoding: str) -> bytes | None:
    """A value as the server reads it, whose type the statement says."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    if isinstance(value, bool):
        return b"t" if value else b"f"
    return str(value).encode(encoding)

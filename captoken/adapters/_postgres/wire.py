"""The wire: several commands in one round trip, and the answers to them.

Each command is parsed, bound and run by the extended protocol, which takes one statement at a time
(rule 4 of `postgres`). One Sync comes after the last of them. The server runs none that follows an
error, and says so for each; so every command has an answer, in order.

    sent        begin | set local role … | savepoint | select region from sales | Sync
    answers     done    done               done        rows
    or          done    error              none ran    none ran

What comes again and again goes by a name, so that the server parses it once (`prepared`).

The steps are generators that yield what to wait for. psycopg's `wait` runs them, sync or async.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import psycopg
from psycopg import generators
from psycopg.pq import DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq import version as libpq_version

from captoken._format.errors import CaptokenError, GuardError
from captoken._verification.mistakes import mistake
from captoken.adapters._postgres.overrun import bounded
from captoken.adapters._postgres.prepared import OF_NO_USE, UNKNOWN_NAME, Names, names_of

# The guard is one for both kinds.
Connection: TypeAlias = "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]"

# The generator that a connection's own `wait` runs, sync or async: it yields what to wait for.
Steps: TypeAlias = "Generator[Any, Any, Any]"

_CHUNK = 500  # rows that are held twice, at most

# The kinds of results that are known. Any other ends the connection.
_FAILED = (int(ExecStatus.FATAL_ERROR), int(ExecStatus.PIPELINE_ABORTED))
_ROWS = (
    int(ExecStatus.TUPLES_OK),
    int(ExecStatus.SINGLE_TUPLE),
    int(ExecStatus.TUPLES_CHUNK),
)
_DONE = int(ExecStatus.COMMAND_OK)


class Command(NamedTuple):
    """What is sent: a text, and parameters as the server takes them.

    With a transformer, which turns values into those of Python, the rows are wanted. Without one,
    the first value alone is, as text.

    More rows than `max_rows` are a failure, and none of them is handed out.
    """

    sql: bytes

    # The parameters, each with its type and its format. None: as text, of a type that the server
    # finds out.
    values: Sequence[Any] = ()
    types: Sequence[int] | None = None
    formats: Sequence[Any] | None = None

    max_rows: int = 1
    transformer: Any = None

    # It is given the rows as they come. If it raises, none is handed out.
    taken: Callable[[list[tuple[Any, ...]]], None] | None = None

    # Whether it is one of the guard's own, or else in which role it runs: it is prepared by that.
    own: bool = False
    role: str = ""

    def key(self) -> Hashable:
        """What a name of it stands for."""
        return self.role, self.sql, tuple(self.types or ())


class ErrorReport(NamedTuple):
    """What the server says of an error: no more than the guard may pass on of it (rule 9)."""

    # The SQLSTATE, or nothing where the connection is lost.
    code: str

    # The first line. It may quote a row: `judging` says when it is passed on.
    message: str

    # At which character of the statement, from 1; 0 where it does not say.
    place: int = 0

    @classmethod
    def of(cls, error: psycopg.Error) -> ErrorReport:
        """What psycopg, or the guard, says of itself."""
        return cls(error.sqlstate or "", str(error))


@dataclass(slots=True)
class Answer:
    """What came back for one command."""

    # The rows, and the names of their columns.
    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    # How many rows it was about, or -1 where the server does not say.
    count: int = -1

    # What the server says that it did: COMMIT, INSERT 0 3.
    did: bytes = b""

    # The error of the database.
    error: ErrorReport | None = None

    # An error of the guard, or of what reads values into Python. The database knows nothing of it.
    failure: BaseException | None = None

    # The first value, if the command has no transformer.
    text: str | None = None

    # Whether the statement was judged by another schema than there is (`assumptions`), or goes by
    # a name that is of no use any more (`prepared`). It is to be undone, and run anew.
    stale: bool = False

    # How many rows it wrote, where that is counted (`written`); None if the server does not count.
    written: int | None = 0

    @property
    def ran(self) -> bool:
        """Whether the statement was done, and its rows may be handed out as far as it knows."""
        return self.error is None and self.failure is None and not self.stale


def exchange(
    connection: Connection,
    commands: Sequence[Command],
    seconds: float = 60,
) -> Steps:
    """Send commands, and read an answer to each, for so long and a little more (`overrun`).

    A connection on which that was cut short is closed: nobody could tell whose answer came next. An
    async statement that is canceled ends here, too.
    """
    pgconn = connection.pgconn
    names = names_of(connection)
    try:
        steps = _exchange(pgconn, commands, names)
        answers = yield from bounded(pgconn, steps, seconds)

        # The names are gone. Nothing ran, and it was in no transaction: so it is sent once more.
        refused = answers[0].error
        idle = pgconn.transaction_status == TransactionStatus.IDLE
        if refused is not None and refused.code == UNKNOWN_NAME and commands[0].own and idle:
            names.lose()
            steps = _exchange(pgconn, commands, names)
            answers = yield from bounded(pgconn, steps, seconds)
    except BaseException:
        # GeneratorExit and KeyboardInterrupt as well.
        pgconn.finish()
        raise
    return answers


def _exchange(pgconn: Any, commands: Sequence[Command], names: Names) -> Steps:
    """Rule 4. In pipeline mode, libpq speaks the extended protocol alone: one statement a command.

    Nothing is put into the text of a statement. Its parameters travel beside it.
    """
    pgconn.enter_pipeline_mode()
    by_name = names.usable()
    sent = [
        _send(pgconn, command, names) if by_name else _send_text(pgconn, command)
        for command in commands
    ]

    # After an error the server drops all commands up to here, and is ready again.
    pgconn.pipeline_sync()
    yield from generators.send(pgconn)

    answers: list[Answer] = []
    failed = False
    for command, how in zip(commands, sent, strict=True):
        answer = Answer()
        if how.prepares is not None:
            yield from _prepared(pgconn, command, how, answer, names)

        # libpq takes no mode for a command that was not run.
        if command.transformer is None or failed or answer.error is not None:
            results = yield from generators.fetch_many(pgconn)
            for result in results:
                _note(pgconn, command, answer, result)
        else:
            yield from _rows(pgconn, command, answer)

        if answer.error is not None:
            failed = True
            answer.error = answer.error._replace(message=names.hidden(answer.error.message))
            _check_name(command, how, answer, names)
        answers.append(answer)

    yield from _synchronized(pgconn, answers[-1])
    pgconn.exit_pipeline_mode()
    return answers


def _synchronized(pgconn: Any, last: Answer) -> Steps:
    """The Sync has an answer of its own. Without it, what was read may be somebody else's.

    It ends a transaction that has no commit of its own. What fails by that is told ahead of it.
    """
    result = yield from generators.fetch(pgconn)
    if result is not None and result.status in _FAILED:
        last.error = last.error or _reported(result)
        yield from generators.fetch_many(pgconn)
        result = yield from generators.fetch(pgconn)

    if result is None or result.status != ExecStatus.PIPELINE_SYNC:
        raise psycopg.OperationalError("the connection is lost")


# --- by name, or as a text ---


class _Sent(NamedTuple):
    """How a command was sent."""

    # Does it go by a name that the server knows?
    known: bool = False

    # By one that it is told just now. That has an answer of its own, ahead of that of the command.
    prepares: bytes | None = None

    # Ahead of which another one gave way: that has one, too.
    closes: bool = False


_KNOWN = _Sent(known=True)
_AS_TEXT = _Sent()


def _send(pgconn: Any, command: Command, names: Names) -> _Sent:
    """A command of the guard's own, or a statement: by its name, if it has one."""
    if command.own:
        name = names.own.get(command.sql)
    elif command.transformer is not None:
        name = names.statement(command.key())
    else:
        return _send_text(pgconn, command)

    if name is not None:
        pgconn.send_query_prepared(name, command.values, command.formats)
        return _KNOWN
    if not command.own and not names.is_due(command.key(), command.sql):
        return _send_text(pgconn, command)

    old = None if command.own else names.one_too_many()
    if old is not None:
        pgconn.send_query_params(b"deallocate " + old, ())
    name = names.new()
    pgconn.send_prepare(name, command.sql, command.types)
    pgconn.send_query_prepared(name, command.values, command.formats)
    return _Sent(prepares=name, closes=old is not None)


def _send_text(pgconn: Any, command: Command) -> _Sent:
    pgconn.send_query_params(
        command.sql,
        command.values,
        command.types,
        command.formats,
    )
    return _AS_TEXT


def _prepared(
    pgconn: Any,
    command: Command,
    how: _Sent,
    answer: Answer,
    names: Names,
) -> Steps:
    """Read what comes ahead of the answer of a command that was prepared just now.

    An error is that of the command: the server has not run it then.
    """
    for _ in range(2 if how.closes else 1):
        results = yield from generators.fetch_many(pgconn)
        for result in results:
            _note(pgconn, command, answer, result)

    if answer.error is None and how.prepares is not None:
        if command.own:
            names.own[command.sql] = how.prepares
        else:
            names.keep_statement(command.key(), how.prepares)


def _check_name(
    command: Command,
    how: _Sent,
    answer: Answer,
    names: Names,
) -> None:
    """A statement whose name is of no use any more was not run: it is to be sent anew."""
    error = answer.error
    if error is not None and how.known and not command.own and error.code in OF_NO_USE:
        names.drop(command.key())
        answer.error = None
        answer.stale = True


# --- results ---


def _rows(pgconn: Any, command: Command, answer: Answer) -> Steps:
    """All results of a command with rows, up to the None that ends them.

    Rows as they come, and not all at once: the limit holds before there are too many, and a
    statement cannot fill the memory of the process. libpq takes no such mode for a command that was
    not run.
    """
    # Where rows are counted, one by one: those ahead of an error in a chunk would be lost.
    if libpq_version() >= 170000 and command.taken is None:
        pgconn.set_chunked_rows_mode(_CHUNK)
    else:
        pgconn.set_single_row_mode()

    while True:
        result = yield from generators.fetch(pgconn)
        if result is None:
            return
        _note(pgconn, command, answer, result)


def _note(
    pgconn: Any,
    command: Command,
    answer: Answer,
    result: Any,
) -> None:
    """Add one result to the answer: an error, some rows, or that it is done.

    Raises GuardError for any other kind. `exchange` closes the connection then.
    """
    status = result.status

    # The first error counts: the ones after it say that nothing more ran.
    if status in _FAILED:
        if answer.error is None:
            answer.error = _reported(result)

    # What comes after a failure has to be read as well, and is dropped.
    elif status in _ROWS:
        # Of rows that come in parts, one of the last two says it.
        answer.did = result.command_status or answer.did
        if command.transformer is None:
            answer.text = _first_value(result)
        elif answer.failure is None:
            _take_rows(pgconn, command, answer, result)

    elif status == _DONE:
        answer.did = result.command_status or b""
        count = result.command_tuples
        answer.count = -1 if count is None else count

    # COPY, for one, which no text of a statement gets as far as.
    else:
        raise GuardError("PostgreSQL answered with something other than rows")


def _first_value(result: Any) -> str | None:
    """The value in the first column of the first row, as text. None for NULL, and for no row."""
    if not result.ntuples or not result.nfields:
        return None

    value = result.get_value(0, 0)
    if value is None:
        return None
    return bytes(value).decode()


def _take_rows(
    pgconn: Any,
    command: Command,
    answer: Answer,
    result: Any,
) -> None:
    """Read some rows into Python.

    What goes wrong with that is noted, and not raised: more results are still to come, and have to
    be read. Rows that were read before it are dropped.
    """
    # What ends rows that came in parts has none itself.
    if answer.columns and not result.ntuples:
        return

    if not answer.columns:
        names = [result.fname(place) or b"" for place in range(result.nfields)]
        answer.columns = tuple(name.decode() for name in names)

    count = len(answer.rows) + result.ntuples
    try:
        if count > command.max_rows:
            raise mistake("too_many_rows", there=f"Rows at most: {command.max_rows}")
        command.transformer.set_pgresult(result)
        rows = command.transformer.load_rows(0, result.ntuples, tuple)
        if command.taken is not None:
            command.taken(rows)
        answer.rows += rows
        answer.count = len(answer.rows)
    except CaptokenError as error:
        # There are too many, or its budget has not enough.
        answer.rows = []
        answer.failure = error
        # So that the server does not send the rest, which would be read and dropped.
        pgconn.get_cancel().cancel()
    except Exception:
        # A value that Python cannot hold, above all: a date of the year 10000, say. What psycopg
        # or an adapter says of it can quote the value. Raised where no handler is around it.
        answer.rows = []
        answer.failure = mistake("value")


def _reported(result: Any) -> ErrorReport:
    """What the guard takes of an error (rule 9).

    Details, hints and contexts are not even read: they can quote rows.
    """
    code = _field(result, DiagnosticField.SQLSTATE)
    message = _field(result, DiagnosticField.MESSAGE_PRIMARY) or "the connection is lost"
    place = _field(result, DiagnosticField.STATEMENT_POSITION)
    return ErrorReport(code, message, int(place or 0))


def _field(result: Any, which: DiagnosticField) -> str:
    """A part of an error, or "" where the server does not state it."""
    stated = result.error_field(which) or b""
    return stated.decode(errors="replace")

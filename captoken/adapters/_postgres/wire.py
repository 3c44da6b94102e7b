"""The wire: several commands in one round trip, and the answers to them.

Each command is parsed, bound and run by the extended protocol, which takes one statement at a time
(rule 4 of `postgres`). One Sync comes after the last of them. The server runs none that follows an
error, and says so for each; so every command has an answer, in order.

    sent        begin | set local role … | savepoint | select region from sales | Sync
    answers     done    done               done        rows
    or          done    error              none ran    none ran

The steps are generators that yield what to wait for. psycopg's `wait` runs them, sync or async.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from captoken._format.extras import extra

with extra("postgres"):
    import psycopg
    from psycopg import errors, generators
    from psycopg.pq import DiagnosticField, ExecStatus
    from psycopg.pq import version as libpq_version

from captoken._format.errors import GuardError

# The guard is one for both kinds.
Connection: TypeAlias = "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]"

# What a connection's own `wait` runs: it yields what to wait for, sync or async.
Steps: TypeAlias = "Generator[Any, Any, Any]"

_CHUNK = 500  # rows that are held twice, at most

# The kinds of results that are known. Any other ends the connection.
_FAILED = (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED)
_ROWS = (
    ExecStatus.TUPLES_OK,
    ExecStatus.SINGLE_TUPLE,
    ExecStatus.TUPLES_CHUNK,
)


@dataclass(frozen=True, slots=True)
class Command:
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


class ErrorReport(NamedTuple):
    """What the server says of an error: no more than the guard may pass on of it (rule 9)."""

    # SQLSTATE, or nothing where the connection is lost.
    code: str

    # The first line. It may quote a row: `judging` says when it is passed on.
    message: str

    # Does it say at which character of the statement?
    placed: bool


@dataclass(slots=True)
class Answer:
    """What came back for one command."""

    # The rows, and the names of their columns.
    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    # How many rows it was about, or -1 where the server does not say.
    count: int = -1

    # What the server says that it did, by its first word: SELECT, COMMIT.
    did: bytes = b""

    # The error of the database.
    error: ErrorReport | None = None

    # An error of the guard, or of what reads values into Python. The database knows nothing of it.
    failure: BaseException | None = None

    # The first value, of a command without a transformer.
    text: str | None = None

    # Whether the statement was judged by another schema than there is (`assumptions`).
    stale: bool = False


def exchange(pgconn: Any, commands: Sequence[Command]) -> Steps:
    """Send commands, and read an answer to each.

    A connection on which that was cut short is closed: nobody could tell whose answer came next. An
    async statement that is canceled ends here, too.
    """
    try:
        answers = yield from _exchange(pgconn, commands)
    except BaseException:
        # GeneratorExit and KeyboardInterrupt as well.
        pgconn.finish()
        raise
    return answers


def _exchange(pgconn: Any, commands: Sequence[Command]) -> Steps:
    """Rule 4. In pipeline mode, libpq speaks the extended protocol alone: one statement a command.

    Nothing is put into the text of a statement. Its parameters travel beside it.
    """
    pgconn.enter_pipeline_mode()
    for command in commands:
        pgconn.send_query_params(
            command.sql,
            list(command.values),
            command.types,
            command.formats,
        )
    # After an error the server drops all commands up to here, and is ready again.
    pgconn.pipeline_sync()
    yield from generators.send(pgconn)

    answers: list[Answer] = []
    failed = False
    for command in commands:
        answer = yield from _answer(
            pgconn,
            command,
            wants_rows=not failed,
        )
        answers.append(answer)
        failed = failed or answer.error is not None

    # The Sync has an answer of its own. Without it, what was read may be somebody else's.
    result = yield from generators.fetch(pgconn)
    if result is None or result.status != ExecStatus.PIPELINE_SYNC:
        raise psycopg.OperationalError("the connection is lost")

    pgconn.exit_pipeline_mode()
    return answers


def _answer(pgconn: Any, command: Command, *, wants_rows: bool) -> Steps:
    """All results of one command, up to the None that ends them.

    `wants_rows`: whether any can come. libpq takes no mode for a command that was not run.
    """
    # Rows as they come, and not all at once: the limit holds before there are too many, and a
    # statement cannot fill the memory of the process.
    if command.transformer is not None and wants_rows:
        if libpq_version() >= 170000:
            pgconn.set_chunked_rows_mode(_CHUNK)
        else:
            pgconn.set_single_row_mode()

    answer = Answer()
    while True:
        result = yield from generators.fetch(pgconn)
        if result is None:
            return answer
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
        answer.did = _did(result)
        if command.transformer is None:
            answer.text = _first_value(result)
        elif answer.failure is None:
            _take_rows(pgconn, command, answer, result)

    elif status == ExecStatus.COMMAND_OK:
        answer.did = _did(result)
        count = result.command_tuples
        answer.count = -1 if count is None else count

    # COPY, for one, which no text of a statement gets as far as.
    else:
        raise GuardError("PostgreSQL answered with something else than rows")


def _did(result: Any) -> bytes:
    """Of `INSERT 0 3`, the first word. Nothing, where there are more rows to come."""
    word, _, _ = (result.command_status or b"").partition(b" ")
    return bytes(word)


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
    if not answer.columns:
        names = [result.fname(place) or b"" for place in range(result.nfields)]
        answer.columns = tuple(name.decode() for name in names)

    count = len(answer.rows) + result.ntuples
    try:
        if count > command.max_rows:
            answer.rows = []
            answer.failure = GuardError(f"the statement yields more than {command.max_rows} rows")
            # So that the server does not send the rest, which would be read and dropped.
            pgconn.get_cancel().cancel()
            return

        command.transformer.set_pgresult(result)
        answer.rows += command.transformer.load_rows(0, result.ntuples, tuple)
        answer.count = len(answer.rows)
    except Exception as error:
        # A value that Python cannot hold, above all: a date of the year 10000, say.
        answer.rows = []
        answer.failure = _read_error(error)


def _read_error(error: Exception) -> psycopg.Error:
    """What is raised for a value that could not be read.

    An error of psycopg says what it is about. Of another, the message could quote the value.
    """
    if isinstance(error, psycopg.Error):
        return error
    return errors.DataError(f"a value that cannot be read: {type(error).__name__}")


def _reported(result: Any) -> ErrorReport:
    """What the guard takes of an error (rule 9).

    Details, hints and contexts are not even read: they can quote rows.
    """
    code = _field(result, DiagnosticField.SQLSTATE)
    message = _field(result, DiagnosticField.MESSAGE_PRIMARY) or "the connection is lost"
    placed = bool(_field(result, DiagnosticField.STATEMENT_POSITION))
    return ErrorReport(code, message, placed)


def _field(result: Any, which: DiagnosticField) -> str:
    """A part of an error, or "" where the server does not state it."""
    stated = result.error_field(which) or b""
    return stated.decode(errors="replace")

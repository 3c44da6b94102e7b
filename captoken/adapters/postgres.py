"""The PostgreSQL guard: SQL from an agent runs in a narrow role, and only if the grant covers all that it touches.

    with guarded(connection, grant) as db:
        rows = db.execute("select region, sum(amount) from sales group by region").fetchall()

What it enforces, by rules that the code cites:

 1. The connection's login is no superuser, owns nothing, and is a member of narrow roles alone (`captoken postgres plan`).
 2. A block is one transaction: read-only where the grant has no write, with `search_path` and the lexer's settings pinned.
 3. A statement runs in the narrowest role that covers what the text needs. What the text hides, that role is refused.
 4. The text that is sent is the text that was read, byte for byte, by the extended protocol, which takes one statement.
 5. Before it is sent, it is read by PostgreSQL's own grammar (`_postgres/reader.py`): one plain statement, functions on a list.
 6. Each statement asks the grant anew, for every table, operation and column, and for `execute` on each function of yours
    that it calls. A denial of that kind sent nothing.
 7. No statement runs longer than the token lives, or than `timeout`.
 8. Who acts, for whom, is noted before the role is taken on: in the server's log, and signed for row security.
 9. Of an error of the database, the class is passed on, and its first line if that is about the text of the statement, or
    of a kind that names nothing but objects. Another line, details and hints can quote what is hidden.
10. It hands back rows, never a cursor. A savepoint before each statement: after an error the block goes on.
11. What a statement needed is asked about once more when it is done, and what was written before it is committed.

Not checked: what counts, failing constraints and times let a caller infer; what views, triggers and the functions behind
operators do with the rights of their owners.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncGenerator, Generator, Hashable, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager
from time import monotonic
from typing import Any, NamedTuple, NoReturn, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
from msgspec import structs
from psycopg import errors, generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import DiagnosticField, ExecStatus, PipelineStatus, TransactionStatus
from psycopg.pq import version as libpq_version

from captoken._format.clocks import read_clock
from captoken._format.errors import GuardError
from captoken._language.access import Access, Caller
from captoken._verification.decision import Decision, Denied, Grant
from captoken.adapters._claims import claimed
from captoken.adapters._postgres.assessment import Assessment, Assessor
from captoken.adapters._postgres.auditing import audit
from captoken.adapters._postgres.catalog import CATALOG, Catalog
from captoken.adapters._postgres.names import function_access, literal, quoted
from captoken.adapters._postgres.reader import read
from captoken.adapters._postgres.roles import Role, apply_plan, plan_sql
from captoken.adapters.sqlite import Rows

__all__ = [
    "AsyncDatabase",
    "Database",
    "Role",
    "Rows",
    "apply_plan",
    "audit",
    "guarded",
    "guarded_async",
    "plan_sql",
]

_Connection: TypeAlias = "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]"
_Steps: TypeAlias = "Generator[Any, Any, Any]"  # what a connection's own `wait` runs, sync or async
_FRESH = 30  # seconds for which a catalog that was read will do
_CHUNK = 500  # rows that are held twice, at most
_LONGEST = 2**31 - 1  # milliseconds, as PostgreSQL takes them
_MOST_PARAMETERS = 65_535
# Rule 9. Constraints, transactions, resources, what the server or its operator does, and what a function of the owner's raises.
_NAMES_OBJECTS = ("08", "23", "25", "40", "44", "53", "55", "57", "P0001")
_NOTE = b'select captoken_guard."begin"($1)'
_SETTINGS = (  # rule 2
    b"set local search_path = pg_catalog, public, pg_temp",
    b"set local standard_conforming_strings = on",
    b"set local row_security = on",
)
_READ_CATALOG = (
    b"begin read only",
    b"set local search_path = pg_catalog, pg_temp",
    CATALOG.encode(),
    b"commit",
)
_catalogs: WeakKeyDictionary[_Connection, tuple[float, Assessor]] = WeakKeyDictionary()


class Database:
    """What a guarded block works with: `execute`, and nothing else."""

    __slots__ = ("_block",)

    def __init__(self, block: _Block) -> None:
        self._block = block

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Run one statement and fetch its rows. Parameters are `$1`, `$2`, as PostgreSQL itself spells them.

        Raises Denied, GuardError, or what PostgreSQL raises, without its details (rule 9). The block goes on after each.
        """
        block = self._block
        with block.one_at_a_time():
            rows: Rows = block.connection.wait(block.execute(sql, parameters))  # type: ignore[assignment]
        return rows


class AsyncDatabase:
    """The same for an AsyncConnection."""

    __slots__ = ("_block",)

    def __init__(self, block: _Block) -> None:
        self._block = block

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Run one statement and fetch its rows: see `Database.execute`."""
        block = self._block
        with block.one_at_a_time():
            rows: Rows = await block.connection.wait(block.execute(sql, parameters))
        return rows


@contextmanager
def guarded(
    connection: psycopg.Connection[Any],
    grant: Grant,
    *,
    caller: Caller | None = None,
    max_rows: int = 100_000,
    timeout: int = 60,
    functions: Iterable[str] = (),
) -> Generator[Database, None, None]:
    """Own `connection` for a block, which is one transaction: committed at its end, rolled back by an exception.

    `connection` is that of a login that `captoken postgres plan` made. `caller` is what the server itself knows of who
    calls, and is asked about with every access. A statement that yields more than `max_rows` rows raises GuardError; one
    that takes more than `timeout` seconds, QueryCanceled. `functions` are those of your own that may be called, as the
    statement spells them (`score`, `market.score`), by a grant that has `execute` on that name: what they do is not looked
    at, and the role's rights are theirs.

    Raises GuardError for an open transaction, a nested block, a second thread, a connection in pipeline mode or not in
    UTF-8, and a login that is no narrow one. Which roles there are and what they may do is read once in 30 seconds.
    """
    if not isinstance(connection, psycopg.Connection):
        raise TypeError(f"guarded takes a psycopg.Connection, not {type(connection).__name__}")
    block = _Block(connection, grant, caller, max_rows, timeout, functions)
    with claimed(connection):
        connection.wait(block.enter())
        try:
            yield Database(block)
        except BaseException:
            if block.leave():
                connection.wait(block.end(b"rollback"))
            raise
        if block.leave(commit=True):
            connection.wait(block.commit())


@asynccontextmanager
async def guarded_async(
    connection: psycopg.AsyncConnection[Any],
    grant: Grant,
    *,
    caller: Caller | None = None,
    max_rows: int = 100_000,
    timeout: int = 60,
    functions: Iterable[str] = (),
) -> AsyncGenerator[AsyncDatabase, None]:
    """`guarded`, for an AsyncConnection. The grant is asked in the event loop: its stores are to be quick."""
    if not isinstance(connection, psycopg.AsyncConnection):
        raise TypeError(
            f"guarded_async takes a psycopg.AsyncConnection, not {type(connection).__name__}"
        )
    block = _Block(connection, grant, caller, max_rows, timeout, functions)
    with claimed(connection):
        await connection.wait(block.enter())
        try:
            yield AsyncDatabase(block)
        except BaseException:
            if block.leave():
                await connection.wait(block.end(b"rollback"))
            raise
        if block.leave(commit=True):
            await connection.wait(block.commit())


class _Block:
    """One guarded block. Its steps are generators that psycopg's own `wait` runs, for both kinds of connection."""

    def __init__(
        self,
        connection: _Connection,
        grant: Grant,
        caller: Caller | None,
        max_rows: int,
        timeout: int,
        functions: Iterable[str],
    ) -> None:
        if connection.closed:
            raise GuardError("the connection is closed")
        if not isinstance(grant, Grant):
            raise TypeError(f"a {type(grant).__name__} is no Grant: only a verifier hands one out")
        if type(timeout) is not int or timeout <= 0:
            raise ValueError("timeout must be a number of seconds, more than 0, as int")
        if isinstance(functions, str):
            raise TypeError("functions must be a list of names")
        functions = tuple(functions)
        self.connection, self.pgconn, self.grant, self.caller = (
            connection,
            connection.pgconn,
            grant,
            caller,
        )
        self.max_rows, self.timeout = max_rows, timeout
        for given in functions:
            function_access(None, given)
        self.functions = frozenset(
            (schema or None, name)
            for schema, _, name in (given.rpartition(".") for given in functions)
        )
        self.thread = threading.get_ident()
        self.busy = self.over = self.begun = False
        self.role = ""
        self.limit = 0  # milliseconds, as the server was told last
        self.written: dict[
            Hashable, Access
        ] = {}  # what the block did that a commit makes last, each once
        self.assessor: Assessor

    # --- the block ----------------------------------------------------------------------------------------------------

    def enter(self) -> _Steps:
        """Rule 1. The transaction begins with the first statement, in one round trip with it."""
        pgconn = self.pgconn
        if pgconn.transaction_status != TransactionStatus.IDLE:
            raise GuardError("the connection has an open transaction")
        if pgconn.pipeline_status != PipelineStatus.OFF:
            raise GuardError("the connection is in pipeline mode")
        if self.connection.info.encoding != "utf-8":
            raise GuardError("the connection's client_encoding is not UTF8")
        kept = _catalogs.get(self.connection)
        if (
            kept is None
            or monotonic() - kept[0] > _FRESH
            or kept[1].catalog.allowed != self.functions
        ):
            kept = (monotonic(), (yield from self._read_catalog()))
            _catalogs[self.connection] = kept
        self.assessor = kept[1]

    def _read_catalog(self) -> _Steps:
        answers = yield from _exchange(self.pgconn, [_Command(sql) for sql in _READ_CATALOG])
        for answer in answers:
            if answer.error is not None:
                yield from _exchange(self.pgconn, [_Command(b"rollback")])
                raise GuardError(f"the roles of the login cannot be read: {answer.error.message}")
        row = json.loads(answers[2].text or "null")
        login = row["login"]
        name = login["rolname"]
        if (
            login["rolsuper"]
            or login["rolbypassrls"]
            or login["rolcreaterole"]
            or login["rolreplication"]
        ):
            raise GuardError(
                f"login {name} is no narrow one: it is a superuser, or passes over row security, or makes roles"
            )
        for what, said in (
            ("inherits", "is a member of more than narrow roles"), ("powerful", "can take on a role that is not narrow"),
            ("owns", "owns what it should be granted"),
        ):  # fmt: skip
            if row[what]:
                raise GuardError(f"login {name} {said}: {', '.join(sorted(row[what])[:5])}")
        if not row["ready"]:
            raise GuardError(f"login {name} was not made by `captoken postgres plan`")
        return Assessor(Catalog(row, self.functions))

    @contextmanager
    def one_at_a_time(self) -> Generator[None, None, None]:
        if threading.get_ident() != self.thread:
            raise GuardError("the block belongs to another thread")
        if self.over or self.busy:
            raise GuardError(
                "the block has ended" if self.over else "a statement of this block is running"
            )
        if self.connection.closed:
            raise GuardError("the connection of this block is closed: what it did is rolled back")
        self.busy = True
        try:
            yield
        finally:
            self.busy = False

    def leave(self, commit: bool = False) -> bool:
        """Whether there is something to end. A block that cannot be committed does not end as if it had been."""
        self.over = True
        if self.busy:
            self.pgconn.finish()
            raise GuardError(
                "the block was left while a statement of it runs: the connection is closed"
            )
        if commit and self.begun and self.connection.closed:
            raise GuardError("the connection of this block is closed: what it did is rolled back")
        return self.begun and not self.connection.closed

    def commit(self) -> _Steps:
        """COMMIT, if the grant still permits what the block wrote; else ROLLBACK. Raises Denied (rule 11)."""
        try:
            late = (
                self.grant.recheck(self.written.values(), caller=self.caller)
                if self.written
                else None
            )
        except BaseException:
            yield from self.end(b"rollback")
            raise
        if late is not None and not late:
            yield from self.end(b"rollback")
            self._deny(late)
        yield from self.end(b"commit")

    def end(self, how: bytes) -> _Steps:
        """COMMIT or ROLLBACK. A commit that fails (deferred constraints) has rolled back."""
        (answer,) = yield from _exchange(self.pgconn, [_Command(how)])
        if self.pgconn.transaction_status != TransactionStatus.IDLE:
            yield from _exchange(self.pgconn, [_Command(b"rollback")])
        if answer.error is not None:
            self._raise(answer.error)

    # --- a statement --------------------------------------------------------------------------------------------------

    def execute(self, sql: str, parameters: Sequence[Any]) -> _Steps:
        if not isinstance(sql, str):
            raise TypeError(f"a statement is a str, not a {type(sql).__name__}")
        if not isinstance(parameters, Sequence) or isinstance(parameters, (str, bytes)):
            raise TypeError(
                f"parameters are a sequence, for $1, $2 and so on, not {type(parameters).__name__}"
            )
        if self.begun and self.pgconn.transaction_status != TransactionStatus.INTRANS:
            raise GuardError("the transaction of this block is over: leave it")
        sql = str.__str__(sql)  # exact: a subclass might encode to another statement
        role, needs = self._judge(sql)
        command = self._bound(sql, parameters)
        answers = yield from _exchange(self.pgconn, [*self._before(role), command])
        answer = answers.pop()
        for before in answers:
            if before.error is not None:
                self.pgconn.finish()
                raise GuardError(
                    f"PostgreSQL refused to begin, and the connection is closed: {before.error.message}"
                )
        self.begun, self.role = True, role
        late = None
        if answer.error is None and answer.failure is None:
            try:
                late = (
                    None
                    if (decision := self.grant.recheck(needs, caller=self.caller))
                    else decision
                )  # rule 11
            except Exception as error:  # who was asked did not answer: as if it had been no
                answer.failure = error
        if answer.error is not None or answer.failure is not None or late is not None:
            yield from _exchange(self.pgconn, [_Command(b"rollback to captoken")])  # rule 10
        if self.pgconn.transaction_status != TransactionStatus.INTRANS:
            self.pgconn.finish()
            raise GuardError(
                "the transaction of this block cannot be relied on: the connection is closed"
            )
        if late is not None:
            self._deny(late)
        if answer.failure is not None:  # first: what yields too many rows was cancelled by us
            raise answer.failure
        if answer.error is not None:
            if answer.error.code == "42703":  # undefined_column
                self._alike(needs, self.assessor.assess(read(sql)), answer.error.message)
            self._raise(answer.error)
        if self._writes():  # else the transaction is read-only
            self.written |= {
                (need.table, need.operation, need.columns): need for need in needs if need.operation != "select"
            }  # fmt: skip
        return Rows(answer.columns, answer.rows, answer.count)

    def _judge(self, sql: str) -> tuple[str, Sequence[Access]]:
        """Rules 5 and 6: the role for a statement that the grant permits, and what it needs.

        Raises Denied, recorded, with nothing sent.
        """
        if not (live := self.grant.recheck()):
            raise Denied(self.grant.record(live))
        text = read(sql)
        if text.refusal is not None:
            self._deny(self.grant.refusal(*text.refusal))
        plan: Assessment = self.assessor.assess(text)
        if plan.role is None or plan.refusal is not None or plan.unknown:
            self._look_closer(plan)
        if plan.accesses and not (
            decision := self.grant.check_all(plan.accesses, caller=self.caller)
        ):
            raise Denied(decision)  # recorded by then
        role = plan.role or next(iter(self.assessor.catalog.narrowest), None)
        if role is None:
            raise GuardError("the login has no narrow role")
        return role, plan.accesses

    def _look_closer(self, plan: Assessment) -> None:
        """What stands against a statement, in an order that tells nothing: first of all what the grant says."""
        for access in plan.accesses:
            if not (decision := self.grant.explain(access, caller=self.caller)):
                self._deny(decision)
        if plan.refusal is not None:
            self._deny(self.grant.refusal(*plan.refusal))
        if plan.unknown:
            self._restricted(plan.accesses, plan.unknown)
        if plan.role is None and plan.accesses:
            _catalogs.pop(self.connection, None)  # another block looks again
            if plan.by_columns:
                self._no_column(plan)
            self._deny(self.grant.refusal(*self.assessor.catalog.lacking(plan.accesses)))

    def _restricted(self, needs: Sequence[Access], columns: Iterable[str]) -> None:
        """A column is missing or not permitted: the same answer, where the token restricts columns."""
        for access in needs:
            if access.columns is not None:
                try:
                    asked = structs.replace(
                        access, columns=tuple(sorted({*access.columns, *columns}))
                    )
                except ValueError:  # a name that no token can hold
                    asked = structs.replace(access, columns=None)
                decision = self.grant.explain(asked, caller=self.caller)
                if decision.code == "column":
                    self._deny(decision)

    def _alike(self, needs: Sequence[Access], plan: Assessment, said: str) -> None:
        """The same for a column that the statement seemed to make itself, or that a role restricts. Raises Denied."""
        named = sorted(name for name in plan.doubtful if f'"{name}"' in said)
        self._restricted(needs, named or plan.doubtful)
        if plan.restricted:
            self._no_column(plan)

    def _no_column(self, plan: Assessment) -> NoReturn:
        access = structs.replace(plan.accesses[min(plan.restricted, default=0)], columns=None)
        self._deny(
            self.grant.refusal(
                "column",
                "no role of this login has all the columns that the statement names",
                access,
            )
        )

    def _deny(self, decision: Decision) -> NoReturn:
        raise Denied(self.grant.record(decision))

    def _before(self, role: str) -> list[_Command]:
        """Rules 2, 3, 7 and 8: what goes ahead of the statement, in the same round trip."""
        limit, verifier = min(self.timeout * 1000, _LONGEST), self.grant._verifier
        if (expiry := self.grant.expires_at) is not None:
            limit = max(
                1, min(limit, (expiry + verifier._leeway - read_clock(verifier._clock)) * 1000)
            )
        if not self.begun:
            self.limit = limit
            return [
                _Command(b"begin read write" if self._writes() else b"begin read only"),
                _Command(_NOTE, [self._facts().encode()]),
                *map(_Command, _SETTINGS),
                _Command(f"set local application_name = {literal(self._name())}".encode()),
                _Command(f"set local statement_timeout = {limit}".encode()),
                _Command(f"set local role {quoted(role)}".encode()),
                _Command(b"savepoint captoken"),
            ]
        commands = [_Command(b"release captoken")]
        if limit < self.limit - 1000:
            self.limit = limit
            commands.append(_Command(f"set local statement_timeout = {limit}".encode()))
        if role != self.role:
            commands.append(_Command(f"set local role {quoted(role)}".encode()))
        return [*commands, _Command(b"savepoint captoken")]

    def _writes(self) -> bool:
        data = self.grant.capability.data
        return data is None or any(
            not right.operations <= {"select", "execute"} for right in data.values()
        )

    def _facts(self) -> str:
        grant = self.grant
        return json.dumps({
            "subject": grant.issued.subject, "agent": grant.actor.name, "task": grant.task, "token": grant.token_id,
            "chain": [{"name": actor.name, "basis": actor.basis} for actor in grant.chain],
        })  # fmt: skip

    def _name(self) -> str:
        """For application_name, which holds 63 bytes of ASCII."""
        return f"captoken {self.grant.token_id} {self.grant.actor.name}"[:63]

    def _bound(self, sql: str, parameters: Sequence[Any]) -> _Command:
        """The statement with its parameters as PostgreSQL gets them; what psycopg cannot adapt, it says itself."""
        given = list(parameters)
        if len(given) > _MOST_PARAMETERS:
            raise errors.ProgrammingError(
                f"a statement takes at most {_MOST_PARAMETERS} parameters"
            )
        transformer = Transformer.from_context(self.connection)
        try:
            values = transformer.dump_sequence(given, [PyFormat.AUTO] * len(given)) if given else []
        except psycopg.Error:
            raise
        except Exception as error:
            raise errors.DataError(f"a parameter cannot be sent: {type(error).__name__}") from None
        types, formats = (transformer.types, transformer.formats) if given else (None, None)
        return _Command(sql.encode(), values, types, formats, self.max_rows, transformer)

    def _raise(self, error: _Error) -> NoReturn:
        """Rule 9."""
        if error.code in ("42501", "25006"):  # insufficient_privilege, read_only_sql_transaction
            about = (
                "table"
                if error.code == "42501" and "row-level security" not in error.message
                else "operation"
            )
            self._deny(self.grant.refusal(about, f"PostgreSQL refused it: {error.message}"))
        if error.code == "57014" and not (
            live := self.grant.recheck()
        ):  # query_canceled, since the token ended
            self._deny(live)
        try:
            kind: type[psycopg.Error] = errors.lookup(error.code)
        except KeyError:
            kind = psycopg.OperationalError if not error.code else psycopg.DatabaseError
        if error.placed or not error.code or error.code.startswith(_NAMES_OBJECTS):
            raise kind(error.message)
        raise kind(
            f"{kind.__name__} ({error.code}): what PostgreSQL says of it is left out, since it can quote rows"
        )


# --- the wire: one round trip for several commands -------------------------------------------------------------------


class _Error(NamedTuple):
    code: str
    message: str
    placed: bool  # at a character of the statement


class _Command:
    """What is sent; with a transformer, one whose rows are wanted."""

    __slots__ = ("formats", "max_rows", "sql", "transformer", "types", "values")

    def __init__(
        self,
        sql: bytes,
        values: Sequence[Any] = (),
        types: Sequence[int] | None = None,
        formats: Sequence[Any] | None = None,
        max_rows: int = 1,
        transformer: Any = None,
    ) -> None:
        self.sql, self.values, self.types, self.formats = sql, list(values), types, formats
        self.max_rows, self.transformer = max_rows, transformer


class _Answer:
    """What came back."""

    __slots__ = ("columns", "count", "error", "failure", "rows", "text")

    def __init__(self) -> None:
        self.columns: tuple[str, ...] = ()
        self.rows: list[tuple[Any, ...]] = []
        self.count = -1
        self.error: _Error | None = None  # the database's
        self.failure: BaseException | None = None  # ours, or of a loader
        self.text: str | None = None  # the first value, of a command without a transformer


def _exchange(pgconn: Any, commands: Sequence[_Command]) -> _Steps:
    """Send commands, read their answers. Pipeline mode has no other protocol than the extended one (rule 4).

    A connection on which that was cut short is closed: nobody could tell whose answer came next.
    """
    try:
        pgconn.enter_pipeline_mode()
        for command in commands:
            pgconn.send_query_params(command.sql, command.values, command.types, command.formats)
        pgconn.pipeline_sync()
        yield from generators.send(pgconn)
        answers: list[_Answer] = []
        for command in commands:
            aborted = any(answer.error is not None for answer in answers)
            answers.append((yield from _answer(pgconn, command, aborted)))
        result = yield from generators.fetch(pgconn)
        if result is None or result.status != ExecStatus.PIPELINE_SYNC:
            raise psycopg.OperationalError("the connection is lost")
        pgconn.exit_pipeline_mode()
    except BaseException:
        pgconn.finish()
        raise
    return answers


def _answer(pgconn: Any, command: _Command, aborted: bool) -> _Steps:
    answer = _Answer()
    if command.transformer is not None and not aborted:
        if libpq_version() >= 170000:
            pgconn.set_chunked_rows_mode(_CHUNK)
        else:
            pgconn.set_single_row_mode()
    while (result := (yield from generators.fetch(pgconn))) is not None:
        status = result.status
        if status in (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED):
            answer.error = answer.error or _error(result)
        elif status in (ExecStatus.TUPLES_OK, ExecStatus.SINGLE_TUPLE, ExecStatus.TUPLES_CHUNK):
            if command.transformer is None:
                value = result.get_value(0, 0) if result.ntuples and result.nfields else None
                answer.text = bytes(value).decode() if value is not None else None
            elif answer.failure is None:
                _take(pgconn, command, answer, result)
        elif status == ExecStatus.COMMAND_OK:
            answer.count = result.command_tuples if result.command_tuples is not None else -1
        else:
            raise GuardError("PostgreSQL answered with something else than rows")
    return answer


def _take(pgconn: Any, command: _Command, answer: _Answer, result: Any) -> None:
    if not answer.columns:
        answer.columns = tuple((result.fname(at) or b"").decode() for at in range(result.nfields))
    try:
        if len(answer.rows) + result.ntuples > command.max_rows:
            answer.rows = []
            answer.failure = GuardError(f"the statement yields more than {command.max_rows} rows")
            pgconn.get_cancel().cancel()
            return
        assert command.transformer is not None  # noqa: S101
        command.transformer.set_pgresult(result)
        answer.rows += command.transformer.load_rows(0, result.ntuples, tuple)
        answer.count = len(answer.rows)
    except (
        Exception
    ) as error:  # a value that Python cannot hold: the answers that follow are still to be read
        if not isinstance(error, psycopg.Error):
            error = errors.DataError(f"a value that cannot be read: {type(error).__name__}")
        answer.rows, answer.failure = [], error


def _error(result: Any) -> _Error:
    def field(which: DiagnosticField) -> str:
        return (result.error_field(which) or b"").decode(errors="replace")

    message = field(DiagnosticField.MESSAGE_PRIMARY) or "the connection is lost"
    return _Error(
        field(DiagnosticField.SQLSTATE), message, bool(field(DiagnosticField.STATEMENT_POSITION))
    )

"""What goes ahead of a statement, in the same round trip: rules 2, 3, 7, 8 and 10 of `postgres`.

With the first statement of a transaction:

    begin read only                                         -- 2: or read write
    select captoken_guard.open($1, 60000, 'reader', false)  -- 8: who acts, for whom; 2, 7, 3
    select region, sum(amount) from sales group by region   -- the statement itself

With each one after it:

    release captoken                                        -- 10: if there is one
    set local statement_timeout = 8000                      -- 7: if it is shorter by now
    set local role "writer"                                 -- 3: if it is another
    savepoint captoken                                      -- 10
    insert into sales (region, amount) values ($1, $2)

A statement that fails is undone by a rollback to its savepoint. Where there is nothing else to
lose, there is none, and the whole transaction is rolled back. The next statement begins another:

- the first statement of a transaction has nothing before it;
- what only read leaves nothing. But where all of it is to see the database as of one time
  (`repeatable read`), or a function of the owner's was called, there is a savepoint.

With the only statement of a block (`execute_once`) it is the same as with the first. One that only
reads needs neither a begin nor a commit: what goes in one round trip is one transaction, and `open`
makes that a read-only one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from captoken._language.links import words_of
from captoken._verification.decision import Decision
from captoken._verification.grant import Grant
from captoken.adapters._postgres.assessment import Permissions
from captoken.adapters._postgres.names import quoted
from captoken.adapters._postgres.wire import Command

_LONGEST = 2**31 - 1  # milliseconds, as PostgreSQL takes them
_READING = frozenset(("select", "execute"))

_BEGIN_READING = Command(b"begin read only", own=True)
_BEGIN_WRITING = Command(b"begin read write", own=True)

# Rules 2, 3, 7 and 8, by the guard's own function (`templates`). What an unqualified name means,
# how the lexer takes a backslash, that policies hold, and how long a statement may run, is all
# pinned in it. It gives the isolation of the transaction.
_OPEN = b'select captoken_guard."open"($1, $2, $3, $4)'
_EACH_SEES_ALL = "read committed"

# Rule 10. The next statement releases it. After an error, it is rolled back to.
_SAVEPOINT = Command(b"savepoint captoken", own=True)
_RELEASE = Command(b"release captoken", own=True)
ROLLBACK_TO_SAVEPOINT = Command(b"rollback to captoken", own=True)

COMMIT = Command(b"commit", own=True)
ROLLBACK = Command(b"rollback", own=True)


class Opening:
    """What the transaction of one block was told so far, and so what it is still to be told.

    What it was told holds until it ends. No statement that is granted can take any of it back, and
    the next one says nothing again that is as it was.
    """

    def __init__(
        self,
        told: Told,
        timeout: int,
        calls_functions: bool,
    ) -> None:
        self._expires_at = told.expires_at
        self._facts = told.facts
        self._timeout = timeout
        self._calls_functions = calls_functions

        # Rule 2. Whether the grant can write, and whether the transaction that was begun can.
        self.may_write = told.may_write
        self.writing = False

        # Whether a transaction was begun, and what it was told: the role, and milliseconds.
        self.begun = False
        self._role = ""
        self._limit = 0

        # Rule 10. Whether there is a savepoint, and whether what comes next has to have one.
        self._marked = False
        self._keeps = False

    def first(self, role: str, decision: Decision, rows: bytes | None) -> list[Command]:
        """What goes ahead of the first statement, which was permitted just now: the beginning."""
        self.begun = True
        self.writing = self.may_write
        return [
            _BEGIN_WRITING if self.writing else _BEGIN_READING,
            self._open(role, decision, rows, only_reads=False),
        ]

    def only(self, role: str, decision: Decision, rows: bytes | None) -> list[Command]:
        """What goes ahead of the only statement, if it only reads. Nothing goes on after it."""
        self.writing = False
        return [self._open(role, decision, rows, only_reads=True)]

    def next(self, role: str, decision: Decision) -> list[Command]:
        """What goes ahead of any other one."""
        limit = self._milliseconds(decision)
        commands = [_RELEASE] if self._marked else []

        # Rule 7. By the second, since a limit that is told anew costs a command.
        if limit < self._limit - 1000:
            self._limit = limit
            commands.append(Command(f"set local statement_timeout = {limit}".encode()))
        # Rule 3.
        if role != self._role:
            commands.append(Command(f"set local role {quoted(role)}".encode()))
        if self._keeps:
            commands.append(_SAVEPOINT)
            self._marked = True
        return commands

    def ran(self, role: str, isolation: str | None) -> None:
        """The server did as it was told. `isolation` is what it said of that at the beginning."""
        self._role = role
        if isolation is not None:
            self._keeps = self.writing or self._calls_functions or isolation != _EACH_SEES_ALL

    def seconds(self) -> float:
        """Rule 7. How long the server takes for anything at most, as it was told."""
        return self._limit / 1000

    def undo(self) -> Command:
        """Rule 10. What undoes the last statement. The transaction is over by it, or goes on."""
        if self._marked:
            return ROLLBACK_TO_SAVEPOINT
        self.ended()
        return ROLLBACK

    def ended(self) -> None:
        """The transaction is over. Whoever opened it knows how it ended."""
        self.begun = False
        self._marked = False

    def _open(
        self,
        role: str,
        decision: Decision,
        rows: bytes | None,
        *,
        only_reads: bool,
    ) -> Command:
        # Rule 14. What the policies go by stands among the facts.
        told = b"" if rows is None else b', "rows": ' + rows
        self._limit = self._milliseconds(decision)
        values = (
            self._facts[:-1] + told + b"}",
            str(self._limit).encode(),
            role.encode(),
            b"t" if only_reads else b"f",
        )
        return Command(_OPEN, values, own=True)

    def _milliseconds(self, decision: Decision) -> int:
        """Rule 7. How long a statement may run: at most `timeout`, and as long as the token lives.

        At least a millisecond: PostgreSQL takes 0 for no limit at all.

        The token's time is that of the decision which permitted the statement. Rule 11 asks again
        when it is done, and the clock with it.
        """
        limit = min(self._timeout * 1000, _LONGEST)
        if self._expires_at is None:
            return limit
        # By its verifier's clock and leeway. It may have ended since the decision was made.
        left = self._expires_at + decision.leeway - decision.now
        return max(1, min(limit, left * 1000))


# What was said last is kept on the connection: most blocks on it are for the same grant, or each is
# for another.
_KEPT_AS = "_captoken_told"


class Told(NamedTuple):
    """What the database is told of a grant."""

    grant: Grant

    # When the token ends, in seconds since the epoch.
    expires_at: int | None

    # The facts about who acts for whom, for row security and the server's log (rule 8).
    facts: bytes

    # Whether it could write (rule 2), and whether it may restrict rows (rule 14).
    may_write: bool
    may_restrict_rows: bool

    # The columns that it permits for each use, as far as asked (`judging`).
    permissions: Permissions


def told_of(grant: Grant, connection: Any) -> Told:
    """What the database is told of it."""
    kept: Told | None = vars(connection).get(_KEPT_AS)
    if kept is None or kept.grant is not grant:
        kept = Told(
            grant,
            grant.expires_at,
            _facts(grant),
            _may_write(grant),
            _may_restrict_rows(grant),
            {},
        )
        vars(connection)[_KEPT_AS] = kept
    return kept


def _facts(grant: Grant) -> bytes:
    facts = {
        "subject": grant.issued.subject,
        "agent": grant.actor.name,
        "task": grant.task,
        "token": grant.token_id,
        "chain": [{"name": actor.name, "basis": actor.basis} for actor in grant.chain],
    }
    # What the issuer says beside it is for policies of the owner's.
    ext = grant.issued.ext
    return json.dumps({**facts, "ext": ext} if ext else facts).encode()


def _may_write(grant: Grant) -> bool:
    """Does no link say that it only reads? Each link alone: nothing here rests on what they meet
    in. To say yes costs no more than a transaction that could write and does not.
    """
    return not any(_reads_alone(words_of(cid)) for cid, vid in grant.caveats if not vid)


def _may_restrict_rows(grant: Grant) -> bool:
    """Does a link say anything of rows, or may a discharge? An overlay is another matter."""
    return any(vid or "rows" in words_of(cid) for cid, vid in grant.caveats)


def _reads_alone(link: Mapping[str, Any]) -> bool:
    """Does a link name operations, and none that writes?"""
    named = link.get("operations")
    if named is not None:
        return _READING.issuperset(named)
    allowed = link.get("allow")
    return allowed is not None and all(map(_READING.issuperset, allowed.values()))

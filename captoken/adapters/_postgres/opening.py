"""What goes ahead of a statement, in the same round trip: rules 2, 3, 7 and 8 of `postgres`.

With the first statement of a block:

    begin read only                                         -- 2: or read write
    select captoken_guard."begin"($1, 60000)                -- 8: who acts, for whom; 2, 7
    set local search_path = pg_catalog, public, pg_temp     -- 2
    set local role "reader"                                 -- 3
    savepoint captoken                                      -- 10
    select region, sum(amount) from sales group by region   -- the statement itself

With each one after it:

    release captoken
    set local statement_timeout = 8000                      -- 7: if it is shorter by now
    set local role "writer"                                 -- 3: if it is another
    savepoint captoken                                      -- 10
    insert into sales (region, amount) values ($1, $2)

With one that is the only one of its block (`execute_once`), the same as with the first, but for the
savepoint: where it fails, all of the transaction is rolled back. It is read-only where the
statement only reads, and then its `commit` comes in the same round trip, since there is nothing
that it could make last.
"""

from __future__ import annotations

import json

from captoken._verification.decision import Decision, Grant
from captoken.adapters._postgres.names import quoted
from captoken.adapters._postgres.wire import Command

_LONGEST = 2**31 - 1  # milliseconds, as PostgreSQL takes them
_READING = frozenset(("select", "execute"))

# Rule 2. What an unqualified name means. The text was read with this in mind. `begin` pins how the
# lexer takes a backslash, that policies hold, and how long a statement may run (7).
_SEARCH_PATH = Command(b"set local search_path = pg_catalog, public, pg_temp")

# Rule 10. The next statement releases it. After an error, it is rolled back to.
_SAVEPOINT = Command(b"savepoint captoken")
_RELEASE = Command(b"release captoken")
ROLLBACK_TO_SAVEPOINT = Command(b"rollback to captoken")


class Opening:
    """What the transaction of one block was told so far, and so what it is still to be told.

    What it was told holds until it ends. No statement that is granted can take any of it back, and
    the next one says nothing again that is as it was.
    """

    def __init__(self, grant: Grant, timeout: int) -> None:
        self._grant = grant
        self._timeout = timeout
        self.begun = False

        # Whether the transaction that was begun is one that can write (2).
        self.writing = False
        self._role = ""
        self._limit = 0  # milliseconds

    def commands(self, role: str, decision: Decision) -> list[Command]:
        """What goes ahead of a statement that was permitted just now, and is to run in a role."""
        limit = self._milliseconds(decision)
        if not self.begun:
            self._limit = limit
            return [*self._first(role, limit, self.writes()), _SAVEPOINT]

        commands = [_RELEASE]
        # Rule 7. By the second, since a limit that is told anew costs a command.
        if limit < self._limit - 1000:
            self._limit = limit
            commands.append(_limit(limit))
        # Rule 3.
        if role != self._role:
            commands.append(_take_on(role))
        commands.append(_SAVEPOINT)
        return commands

    def alone(self, role: str, decision: Decision, writes: bool) -> list[Command]:
        """The same for the only statement of a block."""
        return self._first(role, self._milliseconds(decision), writes)

    def ran(self, role: str) -> None:
        """The server did as it was told."""
        self.begun = True
        self._role = role

    def ended(self) -> None:
        """The transaction is over. Whoever opened it knows how it ended."""
        self.begun = False

    def writes(self) -> bool:
        """Rule 2. Whether the transaction is one that can write: whether the grant could."""
        data = self._grant.capability.data
        if data is None:
            return True
        return any(not right.operations <= _READING for right in data.values())

    def _first(self, role: str, limit: int, writes: bool) -> list[Command]:
        """The beginning of the transaction.

        Rule 8. Who acts is noted before the role is taken on: the login may do that, and once. A
        savepoint comes after it, so that no rollback to it undoes any of this.
        """
        self.writing = writes
        return [
            Command(b"begin read write" if writes else b"begin read only"),
            Command(
                b'select captoken_guard."begin"($1, $2)',
                (_facts(self._grant).encode(), str(limit).encode()),
            ),
            _SEARCH_PATH,
            _take_on(role),
        ]

    def _milliseconds(self, decision: Decision) -> int:
        """Rule 7. How long a statement may run: at most `timeout`, and as long as the token lives.

        At least a millisecond: PostgreSQL takes 0 for no limit at all.

        The token's time is that of the decision which permitted the statement. Rule 11 asks again
        when it is done, and the clock with it.
        """
        limit = min(self._timeout * 1000, _LONGEST)
        left = _seconds_left(self._grant, decision)
        if left is None:
            return limit
        return max(1, min(limit, left * 1000))


def _seconds_left(grant: Grant, decision: Decision) -> int | None:
    """How long the token lives, by its verifier's clock and leeway. None: it does not expire.

    It can be less than nothing, where the token ended since the decision was made.
    """
    expiry = grant.expires_at
    if expiry is None:
        return None
    return expiry + decision.leeway - decision.now


def _limit(milliseconds: int) -> Command:
    return Command(f"set local statement_timeout = {milliseconds}".encode())


def _take_on(role: str) -> Command:
    return Command(f"set local role {quoted(role)}".encode())


def _facts(grant: Grant) -> str:
    """Rule 8. Who acts, for whom, as row security and the server's log get it."""
    facts = {
        "subject": grant.issued.subject,
        "agent": grant.actor.name,
        "task": grant.task,
        "token": grant.token_id,
        "chain": [{"name": actor.name, "basis": actor.basis} for actor in grant.chain],
    }
    return json.dumps(facts)

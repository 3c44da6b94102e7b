"""What a denial may tell: rule 9 of `captoken.adapters.sqlite`.

A table that is missing is refused in the words for one that is forbidden, unless the grant would
permit the name. So a denial is about what the text itself names, spelled as there, and
never about what only the schema knows. Where nothing in the text can be refused, the reason says
what was reached, and the name is for the operator alone.

    SELECT pay FROM hr         hidden       table hr is not among ["people"]
    SELECT pay FROM HR         the same     table HR is not among ["people"]
    SELECT pay FROM nothing    missing      table nothing is not among ["people"]

A column that is not granted is not there for SQLite either (rule 13). What SQLite says of it is the
statement's fault.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from captoken._format.errors import StatementError
from captoken._language.access import Access
from captoken._verification.decision import Decision, Denied
from captoken.adapters._costed_grant import CostedGrant
from captoken.adapters._sqlite.catalog import Object
from captoken.adapters._sqlite.faults import mistaken
from captoken.adapters._sqlite.lexer import fold
from captoken.adapters._sqlite.naming import (
    NEVER_GRANTED,
    access_to,
    is_harmless,
    spelled,
    table_name,
)
from captoken.adapters._sqlite.parts import Parts
from captoken.adapters._sqlite.planner import Planner
from captoken.adapters._sqlite.scopes import Mention
from captoken.adapters._sqlite.text import Text

# What SQLite says of a table that it does not find: the schema, if one is said, and the table.
_TABLE_IN_ERROR = re.compile(r"no such table: (?:([^.]+)\.)?(.+)", re.DOTALL)


class Own(NamedTuple):
    """A denial of the guard's own, of what no token permits. Not recorded yet."""

    code: str  # as of a token's refusal: "table", "operation", "column"
    why: str  # the sentence
    access: Access | None = None  # without one, a client is told no name


# What is refused, by the guard or by the grant, and neither raised nor recorded yet.
Refused = Own | Decision

TOO_LARGE = Own(
    "operation",
    "SQLite makes the statement too large when it compiles it: use each query of a WITH, and each "
    "column of an inner query, less often",
)
_NEVER = Own("operation", "the statement does something that no token can permit")


class Denials:
    """Says no for one block, so that it tells nothing that the grant hides.

    What it raises is recorded when it is raised, and only then: each denied statement is in the
    audit trail once.
    """

    def __init__(self, grant: CostedGrant, planner: Planner) -> None:
        self._grant = grant
        self._planner = planner

    def denied(self, refused: Refused) -> Denied:
        """The exception to raise, once the denial is recorded."""
        if isinstance(refused, Own):
            return self._grant.denied(refused.code, refused.why, refused.access)
        return self._grant.denied(refused)

    def deny(self, text: Text, refused: Refused) -> NoReturn:
        """Raise Denied, about what the text itself names if that can be refused.

        For what no grant permits, too. `SELECT load_extension('x') FROM hr` is refused for hr, as
        it would be without the function.
        """
        self._deny_tables(text)
        raise self.denied(refused)

    def deny_named(self, text: Text, parts: Parts) -> None:
        """Refuse what can be refused of the tables that the text names, before it is compiled.

        So what is hidden of them has no part in it: where rows are put or taken away, SQLite knows
        all columns. And `main.people` is the table itself (rule 13). It may stand in a text once,
        as what is written. Each other place counts, whatever it is taken for: no event would tell
        of a column that a join merges there.
        """
        self._deny_tables(text)
        schema = self._planner.catalog.schema
        entries = [(mention, schema.find(mention)) for mention in text.mentions]
        for part in parts:
            written = sum(
                entry is not None
                and entry.key == part.key
                and mention.schema is not None
                and mention.operation != "select"
                for mention, entry in entries
            )
            if text.qualified(*part.key) > written:
                name = f"{part.schema}.{part.name}"
                what = "row" if part.is_whole else "column"
                why = f"only some {what}s of {name} are granted: write {part.name} instead"
                access = access_to(table_name(*part.key), "select")
                raise self.denied(Own(what, why, access))

    def deny_need(self, text: Text, decision: Decision, need: Access) -> NoReturn:
        """Raise Denied: the grant does not permit `need`, which the statement needs."""
        self._deny_tables(text)

        # What the text names may be said. Of columns it names none that are not granted.
        is_named = need.table in map(self._table, text.mentions)
        if is_named and decision.code != "column":
            raise self.denied(decision)

        # The text does not name it: its name is for the operator alone. A denial without an access
        # says nothing of it to the client.
        how = "reached through a view, a trigger or a foreign key"
        why = f"{decision.refusals[0].text} ({how})"
        raise self.denied(Own(decision.code, why))

    def fail(
        self,
        text: Text,
        error: Exception,
        never_granted: bool,
        there: str,
    ) -> NoReturn:
        """Raise what compiling the text ended in, or a denial where that would tell what is hidden.

        What it ended in is a StatementError, if the text is at fault. `there` is what there is of
        parts. `never_granted`: the authorizer was asked about something that no token can permit.
        """
        if never_granted:
            self.deny(text, _NEVER)

        # Tables first: if one that is named is refused, nothing else is said. Then whatever SQLite
        # itself looked for in vain.
        self._deny_tables(text)
        self._deny_table_in(text, error)
        if isinstance(error, StatementError):
            raise error
        raise mistaken(text.sql, error, ran=False, there=there) or error

    def _deny_tables(self, text: Text) -> None:
        """Refuse the first table that the text names and the grant does not permit, there or not.

        A view has no name of its own: one of nothing but what is granted is passed over.
        """
        for mention in text.mentions:
            entry = self._planner.catalog.schema.find(mention)
            if entry is None and is_harmless(mention):
                continue

            refused = self._refused(self._table(mention), mention.operation, ())
            if refused is None or self._is_open(entry):
                continue

            # As the text spells it: the spelling of the schema would tell that it is there. Which
            # columns it needs of a table that is refused as a whole, nobody has found out.
            if refused.code == "table":
                as_spelled = self._refused(spelled(mention), mention.operation, None)
                if as_spelled is not None:
                    raise self.denied(as_spelled)

            raise self.denied(refused)

    def _deny_table_in(self, text: Text, error: Exception) -> None:
        """Refuse the table that SQLite does not find, wherever it stands in the text.

        It may be one that `text.mentions` did not see: SQLite itself says that it looked for it.
        """
        missing = _TABLE_IN_ERROR.match(str(error))
        if missing is None:
            return

        schema, table = missing[1], missing[2]
        if fold(table) in text.declared:
            return  # a CTE, used where it is not in sight: nothing of the schema
        name = Mention("select", schema, table)
        refused = self._refused(spelled(name), "select", ())
        if refused is not None:
            raise self.denied(refused)

    def _refused(
        self,
        table: str | None,
        operation: str | None,
        columns: tuple[str, ...] | None,
    ) -> Refused | None:
        """Return why an access is refused, or None if the grant permits it."""
        access = access_to(table, operation, columns)
        if access is None:
            return Own("table", NEVER_GRANTED)
        decision, _ = self._grant.ask(access)
        return None if decision else decision

    def _table(self, mention: Mention) -> str | None:
        """What a token calls the table that the mention stands for, there or not.

        Of a table that is there, as the schema spells it: SQLite takes `HR` for `hr`, a token does
        not. Of all else, as the text does. None if no token can name it.
        """
        entry = self._planner.catalog.schema.find(mention)
        if entry is not None and entry.kind == "table":
            schema, table = entry.key
            return table_name(schema, table)
        return spelled(mention)

    def _is_open(self, view: Object | None) -> bool:
        """Is it a view of nothing but what is granted?

        A token grants tables. Whoever may read all that a view reads may read the view.
        """
        if view is None or view.kind != "view":
            return False
        account = self._planner.view(view)
        if account is None:
            return False

        # To say what it needs may add a refusal, so that comes first.
        needs = account.needs()
        if account.refusals:
            return False
        return bool(self._grant.recheck(needs))

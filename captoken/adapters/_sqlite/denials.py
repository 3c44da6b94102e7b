"""What a denial may tell: rule 9 of `captoken.adapters.sqlite`.

A table or column that is missing is refused in the words for one that is forbidden, unless the
grant would permit the name. So a denial is about what the text itself names, spelled as there, and
never about what only the schema knows. Where nothing in the text can be refused, the reason says
what was reached, and the name is for the operator alone.

    SELECT pay FROM hr         hidden       table hr is not among ["people"]
    SELECT pay FROM HR         the same     table HR is not among ["people"]
    SELECT pay FROM nothing    missing      table nothing is not among ["people"]
    SELECT ssn FROM people     hidden       columns ["ssn"] of table people are not among ["name"]
    SELECT xyz FROM people     missing      columns ["xyz"] of table people are not among ["name"]
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any, NamedTuple, NoReturn

from captoken._format.spelling import shown
from captoken._language.access import Access, Caller
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
from captoken.adapters._sqlite.planner import Planner
from captoken.adapters._sqlite.scopes import Mention
from captoken.adapters._sqlite.shadow import Shadow, other_words
from captoken.adapters._sqlite.text import Text

# What SQLite says of a column that it does not find, and the column, without its table.
_COLUMN_IN_ERROR = re.compile(
    r"(?:no such column: "
    r"|has no column named "
    r"|ambiguous column name: "
    r"|cannot join using column )"
    r"(?:\S*\.)?\"?([^\s\"]+)"
)

# What it says of a text that is no SQL, whatever is there.
_SYNTAX_IN_ERROR = re.compile(r"near \"|unrecognized token|incomplete input")

# And of a table: the schema, if one is said, and the table.
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
    "the statement gets too large while it is compiled: read each query of a WITH, and each column "
    "of an inner query, less often",
)
_NEVER = Own("operation", "the statement does what no token permits")


class Denials:
    """Says no for one block, so that it tells nothing that the grant hides.

    What it raises is recorded when it is raised, and only then: each denied statement is in the
    audit trail once.
    """

    def __init__(
        self,
        grant: CostedGrant,
        caller: Caller | None,
        planner: Planner,
    ) -> None:
        self._grant = grant
        self._caller = caller
        self._planner = planner

    def denied(self, refused: Refused) -> Denied:
        """The exception to raise, once the denial is recorded.

        Whoever asks for it raises it: a denial that is recorded and not raised is a false record.
        """
        if isinstance(refused, Own):
            recorded = self._grant.deny(
                refused.code,
                refused.why,
                refused.access,
            )
        else:
            recorded = self._grant.deny(refused)
        return Denied(recorded)

    def ask(self, access: Access) -> Decision:
        """Does the grant permit the access? Nothing is used up or recorded."""
        return self._grant.recheck((access,), caller=self._caller)

    def deny(self, text: Text, refused: Refused) -> NoReturn:
        """Raise Denied, about what the text itself names if that can be refused.

        For what no grant permits, too. `SELECT load_extension('x') FROM hr` is refused for hr, as
        it would be without the function.
        """
        self._deny_tables(text)
        raise self.denied(refused)

    def deny_need(
        self,
        text: Text,
        decision: Decision,
        need: Access,
        literals: frozenset[str],
    ) -> NoReturn:
        """Raise Denied: the grant does not permit `need`, which the statement needs.

        `literals` are strings of the text that look like columns.
        """
        self._deny_tables(text)
        if decision.code == "column":
            self._deny_columns(text, need, literals)

        # What the text names may be said.
        if need.table in map(self._table, text.mentions):
            raise self.denied(decision)

        # The text does not name the table: its name is for the operator alone. A denial without an
        # access says nothing of it to the client.
        how = "reached by way of a view, a trigger or a foreign key"
        why = f"{decision.refusals[0].text} ({how})"
        raise self.denied(Own(decision.code, why))

    def fail(
        self,
        text: Text,
        error: Exception,
        never_granted: bool,
        on_shadows: Exception | None,
    ) -> NoReturn:
        """Raise what compiling the text ended in, or a denial where that would tell what is hidden.

        What it ended in is a StatementError, if the text is at fault.

        `never_granted`: the authorizer was asked about something that no token can permit.
        `on_shadows` is what `deny_names` has found wrong with the same text.
        """
        if never_granted:
            self.deny(text, _NEVER)

        # Of two things that are wrong, which one SQLite meets first may turn on what is hidden.
        error = on_shadows or error

        # Tables first: if one that is named is refused, nothing else is said. Then whatever SQLite
        # itself looked for in vain.
        self._deny_tables(text)
        self._deny_table_in(text, error)
        column = _COLUMN_IN_ERROR.match(str(error))
        if column is not None:
            self.deny_column(text, column[1])
        for name in text.using:
            self.deny_column(text, name)

        # Whatever else SQLite found wrong may tell of hidden columns, how many there are for one:
        # "sub-select returns 4 columns - expected 1". A syntax error knows nothing of them.
        is_syntax = _SYNTAX_IN_ERROR.match(str(error)) is not None
        # Nor does what is wrong with parameters, where the text compiled on shadows.
        of_parameters = on_shadows is not None and not isinstance(error, sqlite3.OperationalError)
        if not is_syntax and not of_parameters and self._restricted(text):
            raise self.denied(self._no_columns(text))
        raise mistaken(text.sql, error, ran=False) or error

    def deny_names(self, text: Text, parameters: Any) -> Exception | None:
        """Rule 13: refuse a name that could mean a hidden column, there or not.

        Only if a table that the text names restricts its columns. A table that is refused as a
        whole comes first, as always. Gives back what is wrong with the text, for `fail`.
        """
        restricted = self._restricted(text)
        if not restricted:
            return None
        self._deny_tables(text)

        # NATURAL compares whatever its two sides share, and no event tells what that is. INDEXED BY
        # names what is there, or SQLite says that it is not.
        if text.names_index or text.is_natural:
            raise self.denied(self._no_columns(text))
        for name in text.using:  # no event tells of these either
            self.deny_column(text, name)
        look = self._planner.on_shadows(text, parameters, self._shadows(text, restricted))
        if look.too_large:
            raise self.denied(TOO_LARGE)
        if look.word is not None:
            if not look.has_another:
                self.deny_column(text, look.word)
            raise self.denied(_doubtful(look.word, restricted))
        return look.error

    def _shadows(self, text: Text, restricted: list[Access]) -> tuple[Shadow, ...]:
        """What the text may see of the tables that it names."""
        tables: dict[tuple[str, str], Object] = {}
        for mention in text.mentions:
            entry = self._planner.schema.find(mention)
            if entry is not None:
                schema = fold(mention.schema or "temp")  # where SQLite looks first
                tables[schema, fold(mention.name)] = entry

        shadows: list[Shadow] = []
        for (schema, name), entry in tables.items():
            columns = self._planner.columns(entry)
            needs = [need for need in restricted if need.table == table_name(*entry.key)]
            if not needs:
                shadows.append(Shadow(schema, name, columns))
                continue
            granted = tuple(
                column
                for column in columns
                if all(
                    self._refused(need.table, need.operation, (column,)) is None for need in needs
                )
            )
            words = other_words(text.words, granted)
            shadows.append(Shadow(schema, name, granted, words))
        return tuple(shadows)

    def deny_column(self, text: Text, column: str) -> None:
        """Refuse a column as it is spelled, there or not.

        Only if one of the tables that the text names restricts its columns. Each of those is asked
        whether it would permit a column of that name.
        """
        columns = (column,)
        asked: list[Refused | None] = []
        for need in self._restricted(text):
            asked.append(self._refused(need.table, need.operation, columns))

        refused = [one for one in asked if one is not None and one.code == "column"]
        if not refused:
            return
        if len(asked) == 1:
            raise self.denied(refused[0])

        # Of several tables it cannot be said which one has a column that is missing.
        raise self.denied(self._no_columns(text))

    def _deny_columns(
        self,
        text: Text,
        need: Access,
        literals: frozenset[str],
    ) -> NoReturn:
        """Refuse the columns of `need`, by the first word of the text that names one of them.

        A string that looks like a column is refused like one: what is hidden has to look the same
        as what is missing. If no word does, a star or a view named them: none is said.
        """
        # Each is asked about by itself: of all together the grant does not say which it refused.
        refused = {
            fold(name)
            for name in need.columns or ()
            if self._refused(need.table, need.operation, (name,)) is not None
        }
        for word in text.words:
            if fold(word) in refused or word in literals:
                self.deny_column(text, word)

        # No word named them.
        raise self.denied(self._no_columns(text))

    def _deny_tables(self, text: Text) -> None:
        """Refuse the first table that the text names and the grant does not permit, there or not.

        A view has no name of its own: one of nothing but what is granted is passed over.
        """
        for mention in text.mentions:
            entry = self._planner.schema.find(mention)
            if entry is None and is_harmless(mention):
                continue

            refused = self._refused(self._table(mention), mention.operation, ())
            if refused is None or self._is_open(entry):
                continue

            # As the text spells it: the spelling of the schema would tell that it is there.
            if refused.code == "table":
                as_spelled = self._refused(spelled(mention), mention.operation, ())
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

    def _no_columns(self, text: Text) -> Own:
        """The denial for columns that cannot be named. It names the table if only one is meant."""
        why = (
            "the statement touches columns that the token does not grant: "
            "write by name those that it grants, and no `*`, NATURAL or INDEXED BY"
        )
        return _of_columns(why, self._restricted(text))

    def _restricted(self, text: Text) -> list[Access]:
        """The accesses, without columns, to tables that the text names and that restrict them."""
        # Each once, in the order of the text.
        needs = {(self._table(mention), mention.operation): None for mention in text.mentions}

        # All columns are asked for. Where the answer is about columns, some are not granted.
        asked = [access_to(table, operation) for table, operation in needs]
        accesses = [access for access in asked if access is not None]
        if not accesses or self._grant.recheck(accesses, caller=self._caller):  # nearly always
            return []
        return [access for access in accesses if self.ask(access).code == "column"]

    def _refused(
        self,
        table: str | None,
        operation: str | None,
        columns: tuple[str, ...],
    ) -> Refused | None:
        """Why an access is refused, or None if the grant permits it."""
        access = access_to(table, operation, columns)
        if access is None:
            return Own("table", NEVER_GRANTED)
        decision = self.ask(access)
        return None if decision else decision

    def _table(self, mention: Mention) -> str | None:
        """What a token calls the table that the mention stands for, there or not.

        Of a table that is there, as the schema spells it: SQLite takes `HR` for `hr`, a token does
        not. Of all else, as the text does. None if no token can name it.
        """
        entry = self._planner.schema.find(mention)
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
        return all(map(self.ask, needs))


def _of_columns(why: str, restricted: list[Access]) -> Own:
    """A denial about columns. Of several tables none is named: the columns would be in that one."""
    return Own("column", why, restricted[0] if len(restricted) == 1 else None)


def _doubtful(word: str, restricted: list[Access]) -> Own:
    """The denial for a word that could mean a hidden column: how to write it so that it cannot.

    The same whether there is such a column or not: so it says neither.
    """
    tables = " or ".join(sorted({need.table or "" for need in restricted}))
    why = (
        f"{shown(word)} could be a column of {tables} that the token does not grant: "
        "write the table before each column, text in single quotes, "
        "and an expression in place of its alias"
    )
    return _of_columns(why, restricted)

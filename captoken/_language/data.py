"""What a link says of tables: five caveats (spec, "Caveats").

Verification asks each caveat of each link by itself. What they say together is one map of rights,
in `rights.py`: for writers and for people.

These caveats look at what the access states. They do not read SQL, and they do not check that a
statement touches no other table. Whoever builds the access has to state it rightly.

`rows` looks at the row itself, or at the conditions that the server has held. Of a row it compares
what is stated, and it does not check that this is the row that is then touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from captoken._format import names
from captoken._format.spelling import named, named_all, spelled
from captoken._language import constraints, patterns
from captoken._language.access import Access, failing_row
from captoken._language.constraints import EVERY_ROW, RowRule, looked_at, read_rule
from captoken._language.kinds import BuiltIn, Caveat, Looked, LookUp, Situation
from captoken._language.reasons import Reason
from captoken._language.values import a_list, an_object, not_empty

# --- the caveats ----------------------------------------------------------------------------------


class Tables(BuiltIn, frozen=True):
    """The table matches one of the patterns.

    On the wire: `"tables": ["market.*", "rates"]`, a list of patterns. The order and repetitions
    mean nothing, and an empty list permits no table.

    It asks for the table of the access. It prohibits with the code `table` if no pattern matches
    (spec, 15.1). The pattern `market.*` matches `market.eu` and not `market` itself.

    Two of them meet in the tables that both match. `["market.*"]` and `["market.eu", "rates"]` meet
    in `["market.eu"]`. Writers name it with the keyword `tables`.

    It does not look at the operation or at columns. It does not check that the table exists.
    """

    key = "tables"
    domain = "data"
    plain = list[str]

    def __post_init__(self) -> None:
        """A list of patterns (spec, 4.5), in any order. Raises TypeError or ValueError.

        Called for each link of each token that is verified, so it has a short way.
        """
        for pattern in a_list(self.value, "tables"):
            # Nearly all are identifiers of ASCII characters, each a pattern of one segment: seen
            # sooner than checked. (Beyond ASCII, identifiers hold format characters.)
            # The short way accepts only what the full check would accept as well. Whatever is
            # longer or has other characters goes to that check. So it saves time and decides
            # nothing.
            is_plain = type(pattern) is str and pattern.isidentifier() and pattern.isascii()
            if not is_plain or len(pattern) > _PLAIN_CHARS:
                names.pattern(pattern, "table")

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        """No reason if any pattern matches: the list is a union.

        An access without a table is of another domain and is not asked here. Should one come, its
        table is the empty name. Only `*` matches that.
        """
        table = access.table or ""
        if table in self.value or patterns.among(self.value, table):
            return None
        return Reason("table", f"table {table} is not among {spelled(self.value)}")

    def looks(self, access: Access) -> Iterable[Looked]:
        return () if access.table is None else ((self.value, access.table),)

    # The methods below are for writers and people. No verifier calls them.

    def normalized(self) -> BuiltIn:
        """Each pattern with all rights, and nothing elsewhere.

        What the list leaves out has no entry, and no entry means no rights. So the map permits
        exactly the tables that `prohibits` lets pass.
        """
        from captoken._language.rights import ALL_RIGHTS, TableRights

        return TableRights.of(dict.fromkeys(self.value, ALL_RIGHTS))

    def plainly_covers(self, other: Any) -> bool:
        """Does it list every pattern of the other? Whether one lies inside another is not asked."""
        return set(self.value).issuperset(other.value)

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line, for its operations as well where the link names them.

        Both caveats must hold, so an empty list of either is nothing at all. Saying both at once
        spares the reader from joining two lines.
        """
        operations = beside["operations"].value if "operations" in beside else None
        if not self.value or operations == []:
            yield "nothing on any table"
            return

        tables = named_all(self.value)
        if operations is None:
            yield f"only on {tables}"
        else:
            yield f"{_named_operations(operations)} on {tables}"


class Operations(BuiltIn, frozen=True):
    """The operation is one of these; `*` is any.

    On the wire: `"operations": ["select", "insert"]`, a list of names. `*` stands for every
    operation, whatever stands beside it. An empty list permits none.

    It asks for the operation of the access, on whatever table. It prohibits with the code
    `operation` if the list has neither the operation nor `*` (spec, 15.2).

    Two of them meet in the operations that both list. `["select", "insert"]` and `["insert",
    "delete"]` meet in `["insert"]`. Writers name it with the keyword `operations`.

    It does not look at the table. It knows no order of operations: `update` does not include
    `select`.
    """

    key = "operations"
    domain = "data"
    plain = list[str]

    def __post_init__(self) -> None:
        """A list of names or `*`, in any order. Raises TypeError or ValueError.

        A name is not compared with those that a server knows: there is no list of them.
        """
        for operation in a_list(self.value, "operations"):
            # The common ones are names, so that only others need the full check.
            if operation not in _COMMON:
                names.name(operation, "operation")

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        """No reason if the operation is listed, or `*` is.

        Names are compared as they are, with their case.
        """
        if access.operation in self.value or "*" in self.value:
            return None
        return Reason(
            "operation",
            f"operation {access.operation} is not among {spelled(self.value)}",
        )

    def looks(self, access: Access) -> Iterable[Looked]:
        return () if access.operation is None else ((self.value, access.operation),)

    # The methods below are for writers and people. No verifier calls them.

    def normalized(self) -> BuiltIn:
        """These operations at `*`, so at every table.

        An empty list becomes an entry without rights. The normal form drops it, and an empty map is
        left, just as from empty `tables`.
        """
        from captoken._language.rights import Rights, TableRights, set_of

        return TableRights.of({"*": Rights(set_of(self.value), None)})

    def plainly_covers(self, other: Any) -> bool:
        """Does it list `*`, or every operation of the other?"""
        return "*" in self.value or set(self.value).issuperset(other.value)

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """A line of its own, unless the line of `tables` has said it already."""
        if "tables" in beside:  # which says both
            return
        if not self.value:
            yield "nothing on any table"
        elif "*" in self.value:
            yield "any operation"
        else:
            yield f"only {_named_operations(self.value)}"


class Allowances(BuiltIn, frozen=True):
    """The most specific pattern that matches the table lists the operation; no match prohibits.

    On the wire: `"allow": {"market.*": ["select"], "market.orders": ["select", "insert"]}`.

    It asks for the table and the operation. The codes are two (spec, 15.3). It prohibits with
    `table` if no entry matches, or if the one that decides is empty. It prohibits with `operation`
    if that entry lists others.

    The entry that decides is the only one that counts. Under `{"*": ["select"], "hr.*": []}`
    nothing is permitted on `hr.salaries`, although `*` matches it too. An entry for one table can
    so give more or less than a wider one beside it. Within one caveat that is no escape: the link
    as a whole still only narrows the links before it.

    Two of them meet at each table in the operations that both give there. Writers name it with the
    keyword `allow`. It does not look at columns.
    """

    key = "allow"
    domain = "data"

    def __post_init__(self) -> None:
        """An object from patterns to lists of operations. Raises TypeError or ValueError.

        It may be empty, and so may each list: what permits nothing is legal (spec, 17.5).
        """
        for pattern, operations in an_object(self.value, "allow").items():
            names.pattern(pattern, "table")
            for operation in a_list(operations, "operations"):
                # The common operations need no check, as in `operations`.
                if operation not in _COMMON:
                    names.name(operation, "operation")

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        """The entry that decides must list the operation or `*`; without one the list is empty."""
        operations = patterns.decided(self.value, access.table or "", ())
        if access.operation in operations or "*" in operations:
            return None

        # No entry and an empty one say the same, and have one code.
        if not operations:
            return Reason("table", f"no operation is allowed on table {access.table}")
        asked = f"operation {access.operation} on table {access.table}"
        return Reason(
            "operation",
            f"{asked} is not among {spelled(operations)}",
        )

    def looks(self, access: Access) -> Iterable[Looked]:
        if access.table is None:
            return ()
        operations = patterns.decided(self.value, access.table, None)
        return () if operations is None else ((operations, access.operation),)

    # The methods below are for writers and people. No verifier calls them.

    def normalized(self) -> BuiltIn:
        """The same map, with no rule about columns.

        Empty lists stay as entries without rights where a wider entry gives some. There they are
        needed: without them the wider entry would decide.
        """
        from captoken._language.rights import Rights, TableRights, set_of

        rights = {
            pattern: Rights(set_of(operations), None)  # no rule about columns
            for pattern, operations in self.value.items()
        }
        return TableRights.of(rights)

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line for all tables that have the same operations, in the order of their patterns.

        `{"a": ["select"], "b": ["select"], "c": []}` is `select on a, b` and `nothing on c`.
        """
        alike: dict[str, list[str]] = {}
        for pattern, allowed in sorted(self.value.items()):
            tables_alike = alike.setdefault(_named_operations(allowed), [])
            tables_alike.append(pattern)

        for operations, tables in alike.items():
            yield f"{operations} on {named_all(tables)}"
        if not alike:
            yield "nothing on any table"


class Columns(BuiltIn, frozen=True):
    """The most specific pattern that matches lists all columns that the access states.

    No match says nothing. On a matching table the access must state its columns, also where `*`
    lets any pass.

    On the wire: `"columns": {"staff": ["id", "name"], "hr.*": []}`, an object that is not empty.

    It asks for the table, and for the columns if an entry matches. It prohibits with the code
    `column` if they are not stated, or if one of them is not listed (spec, 15.4). A column that
    nobody stated could be any column, so silence cannot pass.

    Only `*` alone is special. The column `a*` is a name like any other, and no pattern.

    Two of them meet at each table in the columns that both list. Where only one has a matching
    entry, that one decides. Writers name it with the keyword `columns`.

    It does not look at the operation. It does not check that the columns exist or what a server
    would return for them.
    """

    key = "columns"
    domain = "data"

    def __post_init__(self) -> None:
        """An object from patterns to lists of columns, not empty. Raises TypeError or ValueError.

        An empty object would restrict nothing, and yet look like a restriction (spec, 17.5). An
        empty list is legal: it permits accesses that touch no column.
        """
        stated = not_empty(an_object(self.value, "columns"), "columns")
        for pattern, columns in stated.items():
            names.pattern(pattern, "table")
            for column in a_list(columns, "columns"):
                names.free_name(column, "column")

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        """Three answers pass: no entry matches, `*` and any columns are stated, or all of them are
        listed.

        The presence is asked before `*` is looked at. Else an access could avoid the rule by
        leaving its columns out.
        """
        columns = patterns.decided(self.value, access.table or "", None)
        if columns is None:
            return None

        if access.columns is None:
            text = f"columns of table {access.table} are restricted, and the access names none"
            if "*" in columns:
                text = f"the token allows any column of table {access.table}, but only by its name"
            return Reason("column", text)
        if "*" in columns:
            return None

        # As sets: whoever has the token writes the list, and may choose the columns as well.
        unlisted = set(access.columns).difference(columns)
        if not unlisted:
            return None
        excess = [column for column in access.columns if column in unlisted]
        asked = f"columns {spelled(excess)} of table {access.table}"
        return Reason(
            "column",
            f"{asked} are not among {spelled(columns)}",
        )

    def looks(self, access: Access) -> Iterable[Looked]:
        if access.table is None or access.columns is None:
            return ()
        columns = patterns.decided(self.value, access.table, None)
        return () if columns is None else ((columns, access.columns),)

    # The methods below are for writers and people. No verifier calls them.

    def normalized(self) -> BuiltIn:
        """Any operation everywhere, with the columns of each entry.

        No match says nothing here, other than in the other three. So the map begins with all
        rights at `*`. If the caveat itself has an entry `*`, that one replaces it.
        """
        from captoken._language.rights import ALL_RIGHTS, ANY, Rights, TableRights, set_of

        rights = {"*": ALL_RIGHTS}
        for key, given in self.value.items():
            rights[key] = Rights(ANY, set_of(given))
        return TableRights.of(rights)

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line for each pattern, in their order: `columns id, name of staff`.

        Tables that no line names are not restricted by it.
        """
        for pattern, columns in sorted(self.value.items()):
            yield f"{_named_columns(columns)} of {named(pattern)}"


def _rows(given: Any, now: Callable[[], int], look_up: LookUp) -> Any:
    """The value for the keyword `rows`: as it was given, each `max` alone completed (spec 13.6).

    By what is held for the column, at the entry that decides at the pattern. Raises ValueError for
    a negative `max` alone, and TypeError for a value in the place of a constraint.
    """
    from captoken._language.failing import completed_or_refused  # words

    if not isinstance(given, Mapping):
        return given
    before = look_up("rows")
    rights: Mapping[str, Any] = {} if before is None else before.value
    made: dict[Any, Any] = {}
    for pattern, entry in given.items():
        if type(pattern) is not str or not isinstance(entry, Mapping):
            made[pattern] = entry
            continue
        held = patterns.decided(rights, pattern, None)
        rule = EVERY_ROW if held is None else held.rows
        made[pattern] = {
            column: completed_or_refused(constraint, rule.get(column, constraints.ANYTHING), column)
            for column, constraint in entry.items()
        }
    return made


# Two conditions are one if they are spelled alike, whatever the order of their columns. Both were
# read: there is nothing in them that canonical JSON does not have.
_spelled = msgspec.json.Encoder(order="sorted").encode


class Rows(BuiltIn, frozen=True):
    """Each row that an access touches satisfies the most specific entry that matches the table.

    No match says nothing, and neither does an entry `{}`. A column under `{"any": true}` is free;
    NULL satisfies nothing else. An entry names what wider ones name, so that none lifts a rule by
    forgetting it.

    On the wire: `"rows": {"orders": {"tenant": {"in": ["acme"]}}}`, an object that is not empty.

    It asks for the table, and for the row where the entry that decides restricts it: as it is
    stored, as it will be, or both (spec, 15.13). In their place the server may state the conditions
    that it has held. Then the entry is among them, as it stands. It prohibits with the code `row`.

    Two of them meet at each table in the rows that satisfy both. Writers name it with the keyword
    `rows`, and complete a `max` alone.
    """

    value: Any
    rules: Any = None  # pattern to RowRule
    entries: Any = None  # pattern to its entry, as bytes
    key = "rows"
    domain = "data"
    keywords = MappingProxyType({"rows": _rows})

    def __post_init__(self) -> None:
        """Read each entry once, so that no access has to. Raises TypeError or ValueError."""
        stated = not_empty(an_object(self.value, "rows"), "rows")
        rules = {}
        for pattern, entry in stated.items():
            rules[names.pattern(pattern, "table")] = read_rule(entry)
        for pattern, entry in stated.items():
            if entry:
                _check_names_all(pattern, entry, stated)
        force_setattr(self, "rules", rules)
        entries = {pattern: _spelled(entry) for pattern, entry in stated.items()}
        force_setattr(self, "entries", entries)

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        """Of conditions, whether this entry is among them; of rows, whether they satisfy it."""
        table = access.table or ""
        rule: RowRule = patterns.decided(self.rules, table, EVERY_ROW)
        if not rule:
            return None
        if access.rows is None:
            failed = failing_row(rule, access)
        else:
            entry = patterns.decided(self.entries, table, b"")
            failed = None if entry in map(_spelled, access.rows) else ("rows", "")
        if failed is None:
            return None
        from captoken._language.failing import row_failed  # words

        return row_failed(*failed, rule, access)

    def looks(self, access: Access) -> Iterable[Looked]:
        rule: RowRule = patterns.decided(self.rules, access.table or "", EVERY_ROW)
        if access.table is None or not rule:
            return ()
        entry = patterns.decided(self.value, access.table, {})
        if access.rows is not None:
            return ((entry, access.rows),)
        stated = (row for row in (access.row, access.becomes) if type(row) is dict)
        return (pair for row in stated for pair in looked_at(rule.items(), entry, row))

    # The methods below are for writers and people. No verifier calls them.

    def normalized(self) -> BuiltIn:
        """Any operation everywhere, with the rows of each entry.

        As with columns, no match says nothing: so the map begins with all rights at `*`.
        """
        from captoken._language.rights import ALL_RIGHTS, ANY, Rights, TableRights, rows_of

        rights = {"*": ALL_RIGHTS}
        for pattern, rule in self.rules.items():
            rights[pattern] = Rights(ANY, None, rows_of(rule))
        return TableRights.of(rights)

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        """One line for each pattern, in their order: `rows of orders where tenant is "acme"`."""
        for pattern, rule in sorted(self.rules.items()):
            asked = (f"{named(column)} is {rule[column].words()}" for column in sorted(rule))
            said = " and ".join(asked)
            table = named(pattern)
            yield f"rows of {table} where {said}" if said else f"any row of {table}"


def _check_names_all(pattern: str, entry: Mapping[str, Any], stated: Mapping[str, Any]) -> None:
    """Raise ValueError where a wider entry names a column that this one does not (spec 15.14).

    This one alone decides. So what it leaves out would be lifted, and its writer would not see it.
    """
    for wider in patterns.above(pattern):
        missing = stated.get(wider, {}).keys() - entry.keys()
        if missing:
            raise ValueError(
                f"rows of {pattern} leave out {named_all(missing)}, which {wider} names: "
                'say what holds of it here, {"any": true} if it is free, or {} alone for any row'
            )


# Nearly all operations. That they are legal names needs no check each time.
_COMMON = frozenset(
    (
        "*",
        "select",
        "insert",
        "update",
        "delete",
    )
)
# Up to here a pattern of one segment is short enough, whatever its characters are.
_PLAIN_CHARS = 64


def _named_operations(given: list[str]) -> str:
    """Operations for people, sorted: `insert, select`. An empty list is "nothing"."""
    if "*" in given:
        return "anything"
    return named_all(given) or "nothing"


def _named_columns(given: list[str]) -> str:
    """Columns for people, sorted.

    Of `*` it says that columns have to be stated all the same.
    """
    if "*" in given:
        return "any stated column"
    return f"columns {named_all(given)}" if given else "no column"

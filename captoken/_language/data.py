"""What a link says of tables: four caveats, and the one map of rights that they are held as.

`tables`, `operations`, `allow` and `columns` all say one thing: at each table pattern, which
operations and which columns. Each is read into such a map, and the four of a link meet in one
(spec, "Caveats", "Capability"). In the map the most specific entry decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from captoken._format import names
from captoken._format.spelling import named, named_all, spelled
from captoken._language import patterns
from captoken._language.access import Access
from captoken._language.kinds import BuiltIn, Caveat, Excess, Situation
from captoken._language.reasons import Reason
from captoken._language.values import a_list, an_object, not_empty

Names: TypeAlias = frozenset[str]  # of operations or columns; exactly {"*"} is any
ANY: Names = frozenset("*")


class Rights(NamedTuple):
    """What holds at a table: the operations, and the columns, None if they need not be stated."""

    operations: Names
    columns: Names | None


NO_RIGHTS = Rights(frozenset(), None)
ALL_RIGHTS = Rights(ANY, None)
RightsMap: TypeAlias = Mapping[str, Rights]


# --- the caveats ----------------------------------------------------------------------------------


class Tables(BuiltIn, frozen=True):
    """The table matches one of the patterns."""

    key = "tables"
    domain = "data"

    def __post_init__(self) -> None:
        for pattern in a_list(self.value, "tables"):
            # Nearly all are identifiers of ASCII characters, each a pattern of one segment: seen
            # sooner than checked. (Beyond ASCII, identifiers hold format characters.)
            is_plain = type(pattern) is str and pattern.isidentifier() and pattern.isascii()
            if not is_plain or len(pattern) > _PLAIN_CHARS:
                names.pattern(pattern, "table")

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        table = access.table or ""
        for pattern in self.value:
            if pattern == table or (pattern[-1] == "*" and patterns.contains(pattern, table)):
                return None
        return Reason("table", f"table {table} is not among {spelled(self.value)}")

    def held(self) -> TableRights:
        return TableRights.of(dict.fromkeys(self.value, ALL_RIGHTS))

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        operations = beside["operations"].value if "operations" in beside else None
        if not self.value or operations == []:
            yield "nothing on any table"
        elif operations is not None:
            yield f"{_named_operations(operations)} on {named_all(self.value)}"
        else:
            yield f"only on {named_all(self.value)}"


class Operations(BuiltIn, frozen=True):
    """The operation is one of these; `*` is any."""

    key = "operations"
    domain = "data"

    def __post_init__(self) -> None:
        for operation in a_list(self.value, "operations"):
            if operation not in _COMMON:
                names.name(operation, "operation")

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        if access.operation in self.value or "*" in self.value:
            return None
        text = f"operation {access.operation} is not among {spelled(self.value)}"
        return Reason("operation", text)

    def held(self) -> TableRights:
        return TableRights.of({"*": Rights(_names(self.value), None)})

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        if "tables" in beside:  # which says both
            return
        if not self.value:
            yield "nothing on any table"
        elif "*" in self.value:
            yield "any operation"
        else:
            yield f"only {_named_operations(self.value)}"


class Allowances(BuiltIn, frozen=True):
    """The most specific pattern that matches the table lists the operation; no match prohibits."""

    key = "allow"
    domain = "data"

    def __post_init__(self) -> None:
        for pattern, operations in an_object(self.value, "allow").items():
            names.pattern(pattern, "table")
            for operation in a_list(operations, "operations"):
                if operation not in _COMMON:
                    names.name(operation, "operation")

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        operations = patterns.decided(self.value, access.table or "", ())
        if access.operation in operations or "*" in operations:
            return None
        if not operations:
            return Reason("table", f"no operation is allowed on table {access.table}")
        asked = f"operation {access.operation} on table {access.table}"
        return Reason("operation", f"{asked} is not among {spelled(operations)}")

    def held(self) -> TableRights:
        rights = {key: Rights(_names(given), None) for key, given in self.value.items()}
        return TableRights.of(rights)

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        alike: dict[str, list[str]] = {}
        for pattern, allowed in sorted(self.value.items()):
            alike.setdefault(_named_operations(allowed), []).append(pattern)
        for operations, tables in alike.items():
            yield f"{operations} on {named_all(tables)}"
        if not alike:
            yield "nothing on any table"


class Columns(BuiltIn, frozen=True):
    """The most specific pattern that matches lists all columns that the access states.

    No match says nothing. On a matching table the access must state its columns, also where `*`
    lets any pass.
    """

    key = "columns"
    domain = "data"

    def __post_init__(self) -> None:
        for pattern, columns in not_empty(an_object(self.value, "columns"), "columns").items():
            names.pattern(pattern, "table")
            for column in a_list(columns, "columns"):
                names.free_name(column, "column")

    def prohibits(self, access: Access, situation: Situation) -> Reason | None:
        columns = patterns.decided(self.value, access.table or "", None)
        if columns is None:
            return None
        if access.columns is None:
            text = f"columns of table {access.table} are restricted, and none are stated"
            return Reason("column", text)
        if "*" in columns:
            return None
        excess = [column for column in access.columns if column not in columns]
        if not excess:
            return None
        asked = f"columns {spelled(excess)} of table {access.table}"
        return Reason("column", f"{asked} are not among {spelled(columns)}")

    def held(self) -> TableRights:
        # No match says nothing: so "*" stands for what the map leaves open.
        rights = {"*": ALL_RIGHTS}
        for key, given in self.value.items():
            rights[key] = Rights(ANY, _names(given))
        return TableRights.of(rights)

    def words(self, now: int, beside: Mapping[str, Caveat]) -> Iterator[str]:
        for pattern, columns in sorted(self.value.items()):
            yield f"{_named_columns(columns)} of {named(pattern)}"


_COMMON = frozenset(("*", "select", "insert", "update", "delete"))  # nearly all operations
_PLAIN_CHARS = 64


def _names(given: Iterable[str]) -> Names:
    found = frozenset(given)
    return ANY if "*" in found else found


def _named_operations(given: list[str]) -> str:
    if "*" in given:
        return "anything"
    return named_all(given) or "nothing"


def _named_columns(given: list[str]) -> str:
    if "*" in given:
        return "any stated column"
    return f"columns {named_all(given)}" if given else "no column"


# --- what they are held as ------------------------------------------------------------------------


class TableRights(BuiltIn, frozen=True):
    """All that is said of tables, as one map: pattern to rights, in normal form.

    It has no key on the wire: a capability holds it for the data domain.
    """

    key = "data"
    domain = "data"

    @classmethod
    def of(cls, rights: RightsMap) -> TableRights:
        """The map in normal form: a single entry is, unless it permits nothing."""
        if len(rights) > 1 or NO_RIGHTS in rights.values():
            rights = patterns.normal(rights, NO_RIGHTS)
        return cls(rights)

    def prohibits(self, access: Access, situation: Situation | None) -> Reason | None:
        table = access.table or ""
        rights: Rights | None = self.value.get(table)  # an exact entry, most often
        if rights is None:
            rights = patterns.decided(self.value, table, NO_RIGHTS)
        operations, columns = rights
        if access.operation not in operations and "*" not in operations:
            code = "operation" if operations else "table"
            return Reason(code, f"{access.operation} on table {table} is not permitted")
        if columns is None or _are_within(access.columns, columns):
            return None
        listed = spelled(sorted(columns))
        return Reason("column", f"columns of table {table} are restricted to {listed}")

    @property
    def is_nothing(self) -> bool:
        return not self.value

    def meet(self, other: Any) -> TableRights:
        if self.value == other.value:  # chains repeat themselves
            return self
        return TableRights(patterns.meet(self.value, other.value, NO_RIGHTS, _both))

    def stated(self) -> dict[str, Any]:
        """`tables` and `operations` where they say it all, else `allow`; and `columns`."""
        rights: RightsMap = self.value
        if not rights:
            return {"tables": []}
        made: dict[str, Any]
        kinds = {at.operations for at in rights.values()}
        if len(kinds) == 1 and NO_RIGHTS.operations not in kinds:
            made = {"tables": patterns.widest(rights), "operations": sorted(kinds.pop())}
        else:
            made = {"allow": {key: sorted(at.operations) for key, at in sorted(rights.items())}}
        columns = {}
        for key, at in sorted(rights.items()):
            if at.columns is not None:
                columns[key] = sorted(at.columns)
        if columns:
            made["columns"] = columns
        return made

    def beyond(self, asked: Mapping[str, Any]) -> Iterator[Excess]:
        """Within each dimension that a link names: see the functions below."""
        if "allow" in asked or ("tables" in asked and "operations" in asked):
            yield from _pairs_beyond(self, asked)
        elif "tables" in asked:
            yield from _tables_beyond(self, asked["tables"].value)
        elif "operations" in asked:
            yield from _operations_beyond(self, asked["operations"].value)
        if "columns" in asked:
            yield from _columns_beyond(self, asked["columns"].value)


def _are_within(stated: Iterable[str] | None, columns: Names) -> bool:
    """Are columns stated, and all among these?"""
    if stated is None:
        return False
    return columns == ANY or columns.issuperset(stated)


def _both_names(one: Names, two: Names) -> Names:
    if one == ANY:
        return two
    return one if two == ANY else one & two


def _both_columns(one: Names | None, two: Names | None) -> Names | None:
    if one is None:
        return two
    return one if two is None else _both_names(one, two)


def _both(one: Rights, two: Rights) -> Rights:
    """The rights that both give."""
    operations = _both_names(one.operations, two.operations)
    if not operations:
        return NO_RIGHTS
    return Rights(operations, _both_columns(one.columns, two.columns))


# --- what a new link asks for beyond them (spec, "Widening") --------------------------------------

_PAIRS = ("tables", "operations", "allow")


def _tables_beyond(held: TableRights, asked: list[str]) -> Iterator[Excess]:
    """Tables named alone: each pattern is held if anything under it is."""
    rights: RightsMap = held.value
    left: set[str] = set()
    excess: list[str] = []
    for pattern in asked:
        found = [key for key in patterns.within(rights, pattern) if _at(rights, key).operations]
        if not found:
            excess.append(pattern)
        left.update([pattern] if pattern in found else found)
    if excess:
        rest = {"tables": sorted(left)}
        yield Excess("tables", asked, held.stated(), excess, rest, replaces=_PAIRS)


def _operations_beyond(held: TableRights, asked: list[str]) -> Iterator[Excess]:
    """Operations named alone: each is held on some table."""
    everywhere: set[str] = set()
    for rights in held.value.values():
        everywhere |= rights.operations
    excess = [operation for operation in asked if not {operation, "*"} & everywhere]
    if excess:
        left = everywhere if "*" in asked else everywhere.intersection(asked)
        rest = {"operations": sorted(left)}
        yield Excess("operations", asked, held.stated(), excess, rest, replaces=_PAIRS)


def _pairs_beyond(held: TableRights, asked: Mapping[str, Any]) -> Iterator[Excess]:
    """Tables and operations, named together or as `allow`: every pair is held."""
    wanted = met(caveat for key, caveat in asked.items() if key != "columns")
    bare = {key: Rights(rights.operations, None) for key, rights in held.value.items()}
    both = patterns.meet(wanted.value, bare, NO_RIGHTS, _both)
    if both == wanted.value:
        return
    excess = {}
    unheld = False
    for key in sorted({**wanted.value, **both}):
        have = _at(bare, key).operations
        missing = _at(wanted.value, key).operations - have
        if missing and have != ANY:
            excess[key] = sorted(missing)
            unheld = unheld or not have
    if "allow" in asked:
        dimension = "allow"
    else:
        dimension = "tables" if unheld else "operations"
    wish = {key: asked[key].value for key in _PAIRS if key in asked}
    rest = TableRights(both).stated()
    yield Excess(dimension, wish, held.stated(), excess, rest, replaces=_PAIRS)


def _columns_beyond(held: TableRights, asked: dict[str, list[str]]) -> Iterator[Excess]:
    """Each pattern is held, and wherever it is, the columns are among those held there."""
    rights: RightsMap = held.value
    wishes = {key: _names(given) for key, given in asked.items()}
    excess: dict[str, list[str]] = {}
    left: dict[str, list[str]] = {}
    for pattern, wish in wishes.items():
        found = False
        for key in sorted({*patterns.within(rights, pattern), *patterns.within(wishes, pattern)}):
            have = _at(rights, key)
            if not have.operations:
                continue
            found = True
            wanted = patterns.decided(wishes, key, wish)
            both = _both_columns(have.columns, wanted) or frozenset()
            left[key] = sorted(both)
            if both != wanted:
                excess[key] = sorted(wanted - (have.columns or frozenset()))
        if not found:
            excess[pattern] = sorted(wish)
    if excess:
        rest = {"columns": left} if left else {}
        yield Excess("columns", asked, held.stated(), excess, rest)


def _at(rights: RightsMap, key: str) -> Rights:
    return patterns.decided(rights, key, NO_RIGHTS)


def met(caveats: Iterable[Any]) -> TableRights:
    """What data caveats say together; all rights if there are none."""
    made: TableRights | None = None
    for caveat in caveats:
        rights = caveat.held()
        made = rights if made is None else made.meet(rights)
    return TableRights({"*": ALL_RIGHTS}) if made is None else made


def rights_of(stated: Mapping[str, Any]) -> RightsMap:
    """The map that data caveats state, by key. Raises TypeError or ValueError for what is none."""
    kinds = (Tables, Operations, Allowances, Columns)
    rights: RightsMap = met(kind(stated[kind.key]) for kind in kinds if kind.key in stated).value
    return rights

"""What caveats of tables are held as: one map of rights, and what a new link asks for beyond it.

`tables`, `operations`, `allow`, `columns` and `rows` all say one thing: at each table pattern,
which operations, columns and rows. Each is read into such a map, and the five of a link meet in one
(spec, "Capability"). In the map the most specific entry decides.

An example of such a map, with the operations alone:

    {"*": select, "hr.*": nothing, "hr.holidays": select}

Table `market.eu` is decided by `*`, so it can be read. Table `hr.salaries` is decided by `hr.*`, so
it cannot be. Table `hr.holidays` has an entry of its own, and can be read. Only one entry decides;
wider ones are not looked at.

The map is for what needs the whole: what a token can do, whether a narrowing asks for too much, and
what a clamp leaves. No decision rests on it: a verifier asks each caveat of each link (24.23). Both
ways must permit the same accesses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from captoken._format.spelling import named, spelled
from captoken._language import patterns
from captoken._language.access import Access, failing_row
from captoken._language.constraints import (
    ANYTHING,
    EVERY_ROW,
    NOTHING,
    Constraint,
    RowRule,
    read_constraint,
    read_rule,
)
from captoken._language.failing import row_failed
from captoken._language.kinds import BuiltIn, Excess, Situation
from captoken._language.reasons import Reason

Names: TypeAlias = frozenset[str]  # of operations or columns; exactly {"*"} is any
ANY: Names = frozenset("*")


class Rights(NamedTuple):
    """What holds at a table: the operations, the columns, None if they need not be stated, and
    what its rows satisfy.

    An example: `Rights({"select"}, {"id", "name"})` lets `select` pass if the access states columns
    and they are among `id` and `name`. With None as columns the access need not state any. With
    `{"*"}` it must state them, and any will do (spec, 15.4 and 19.2).
    """

    operations: Names
    columns: Names | None
    rows: RowRule = EVERY_ROW


NO_RIGHTS = Rights(frozenset(), None)
ALL_RIGHTS = Rights(ANY, None)
RightsMap: TypeAlias = Mapping[str, Rights]


def set_of(given: Iterable[str]) -> Names:
    """A list of operations or columns as a set.

    `*` takes in whatever stands beside it, so `["*", "select"]` and `["*"]` become one set. Sets
    that permit the same are then equal, and a comparison of maps compares what they permit.
    """
    found = frozenset(given)
    return ANY if "*" in found else found


class TableRights(BuiltIn, frozen=True):
    """All that is said of tables, as one map: pattern to rights, in normal form.

    It has no key on the wire: a capability holds it for the data domain.

    The invariant: for every access to a table, the map of a link prohibits it if and only if one of
    the link's data caveats does. The code may differ, since the map no longer knows which caveat
    said what. What no entry matches has no rights.

    In normal form no entry repeats what the next wider one says. `{"*": select, "a.*": select}`
    becomes `{"*": select}`, for both permit the same. So two maps are equal if they permit the
    same, and `==` answers that question (spec, 19.7).
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
        """The operation and then the columns, by the one entry that decides.

        The code is `table` if the entry has no operations at all, else `operation`. Columns
        prohibit with `column`. That order is the one in which the caveats would be asked.
        """
        table = access.table or ""
        rights: Rights | None = self.value.get(table)  # an exact entry, most often
        if rights is None:
            rights = patterns.decided(self.value, table, NO_RIGHTS)

        operations, columns, rows = rights
        if access.operation not in operations and "*" not in operations:
            code = "operation" if operations else "table"
            return Reason(
                code,
                f"{access.operation} on table {table} is not permitted",
            )
        if columns is not None and not _are_within(access.columns, columns):
            return Reason(
                "column",
                f"columns of table {table} are restricted to {spelled(sorted(columns))}",
            )
        return _rows_prohibited(rows, access) if rows else None

    @property
    def is_nothing(self) -> bool:
        """Is the map empty?

        In normal form an entry without rights only stands below a wider one with some.
        """
        return not self.value

    def meet(self, other: Any) -> TableRights:
        """At each pattern of either, the rights that both give there (spec, 19.4).

        An example: `{"*": select}` and `{"hr.*": any}` meet in `{"hr.*": select}`. At `*` the
        second says nothing, so nothing is left there.

        This is exact because patterns are nested or disjoint. Take any table, and the most specific
        key of both maps that matches it. Each map has the same entry decide at that key as at the
        table. So the meet at the key is the meet at the table.

        It cannot permit more than either map. Rights only intersect, and a missing entry is no
        rights.
        """
        if self.value == other.value:  # chains repeat themselves
            return self
        both = patterns.meet(
            self.value,
            other.value,
            NO_RIGHTS,
            _both,
        )
        return TableRights(both)

    def stated(self) -> dict[str, Any]:
        """`tables` and `operations` where they say it all, else `allow`; `columns` and `rows`.

        `tables` with `operations` lists only the widest patterns. That is right where all entries
        have the same operations: entries below can then only differ in columns, which `columns`
        says. An entry without rights needs `allow`, because only `allow` can take a table out of a
        wider pattern.

        Read again, what it returns gives an equal map. Lists are sorted, so that equal maps are
        spelled alike (spec, 19.8).
        """
        rights: RightsMap = self.value
        if not rights:
            return {"tables": []}

        # Tables and operations: as two lists if all entries have the same ones, and some.
        made: dict[str, Any]
        kinds = {at.operations for at in rights.values()}
        if len(kinds) == 1 and NO_RIGHTS.operations not in kinds:
            made = {
                "tables": patterns.widest(rights),
                "operations": sorted(kinds.pop()),
            }
        else:
            allowed = {key: sorted(at.operations) for key, at in sorted(rights.items())}
            made = {"allow": allowed}

        # Columns: only where there is a rule about them.
        columns = {}
        for key, at in sorted(rights.items()):
            if at.columns is not None:
                columns[key] = sorted(at.columns)
        if columns:
            made["columns"] = columns

        rows = _rows_stated(rights)
        if rows:
            made["rows"] = rows
        return made

    def beyond(self, asked: Mapping[str, Any]) -> Iterator[Excess]:
        """Within each dimension that a link names: see the functions below.

        A dimension that the link does not name is not compared. The link says nothing of it, so the
        links before decide it (spec, 23.2). Tables and operations are one dimension as soon as both
        are asked for: `insert` may be held on one table and `delete` on another, but neither pair
        the other way.

        A mistake here would be no hole. Verifiers ask every link, so a link that asks for too much
        gains nothing (spec, "Widening").
        """
        # Pairs come first: both at once are more than each by itself.
        if "allow" in asked or ("tables" in asked and "operations" in asked):
            yield from _pairs_beyond(self, asked)
        elif "tables" in asked:
            yield from _tables_beyond(self, asked["tables"].value)
        elif "operations" in asked:
            yield from _operations_beyond(self, asked["operations"].value)
        if "columns" in asked:
            yield from _columns_beyond(self, asked["columns"].value)
        if "rows" in asked:
            yield from _rows_beyond(self, asked["rows"].value)


def _are_within(stated: Iterable[str] | None, columns: Names) -> bool:
    """Are columns stated, and all among these? No column at all is among any of them."""
    # Silence does not pass, also where any column would (spec, 15.4).
    if stated is None:
        return False
    return columns == ANY or columns.issuperset(stated)


def _bothset_of(one: Names, two: Names) -> Names:
    """The names that are in both sets.

    `*` is not a name but stands for all names. So it is looked for before the sets are intersected:
    `{"*"} & {"select"}` would be empty, and must be `{"select"}`.
    """
    if one == ANY:
        return two
    return one if two == ANY else one & two


def _both_columns(one: Names | None, two: Names | None) -> Names | None:
    """The rule about columns that says what both rules say.

    None is no rule, so the other one holds. It is wider than `{"*"}`, which still asks for columns
    to be stated.
    """
    if one is None:
        return two
    return one if two is None else _bothset_of(one, two)


def _both(one: Rights, two: Rights) -> Rights:
    """The rights that both give.

    Without operations no access passes, whatever the columns. So all such rights are made one
    value, `NO_RIGHTS`. Else maps that permit the same could differ.
    """
    operations = _bothset_of(one.operations, two.operations)
    if not operations:
        return NO_RIGHTS

    columns = _both_columns(one.columns, two.columns)
    return Rights(operations, columns, _both_rows(one.rows, two.rows))


# --- rows -----------------------------------------------------------------------------------------

# The column `_` has no meaning of its own: nothing satisfies it, so that there is no such row.
_NO_ROW: RowRule = MappingProxyType({"_": NOTHING})


def rows_of(rule: RowRule) -> RowRule:
    """A rule in normal form: one in which a column satisfies nothing says that there is no row."""
    return _NO_ROW if NOTHING in rule.values() else rule


def _both_rows(one: RowRule, two: RowRule) -> RowRule:
    """The rows that satisfy both, column by column. A column that only one names keeps its rule."""
    if not one or not two:
        return one or two
    made = dict(one)
    for column, constraint in two.items():
        made[column] = made.get(column, ANYTHING).meet(constraint)
    return rows_of(made)


def _rows_prohibited(rule: RowRule, access: Access) -> Reason | None:
    """Why rows that satisfy `rule` are not what an access states, or None (spec 19.2).

    Of conditions that a server has held: all of them together leave no other rows. A link asks for
    more, that its own entry stands among them.
    """
    failed: tuple[str, str] | None = "rows", ""
    if access.rows is None:
        failed = failing_row(rule, access)
    else:
        held = EVERY_ROW
        for condition in access.rows:
            held = _both_rows(held, rows_of(read_rule(condition)))
        if _both_rows(held, rule) == held:
            failed = None
    return None if failed is None else row_failed(*failed, rule, access)


def _rows_stated(rights: RightsMap) -> dict[str, Any]:
    """The value of `rows` that says the same: an entry names what wider ones name (spec 15.14)."""
    made: dict[str, Any] = {}
    for key, at in sorted(rights.items()):
        over: dict[str, Any] = {}
        for wider in patterns.above(key):
            over.update(dict.fromkeys(rights[wider].rows if wider in rights else ()))
        if at.rows:
            free = {column: ANYTHING.json() for column in over}
            made[key] = free | {column: rule.json() for column, rule in at.rows.items()}
        elif over and at.operations:
            made[key] = {}
    return made


# --- what a new link asks for beyond them (spec, "Widening") --------------------------------------

# Three keys of one dimension: what is left of one is written in place of all of them (spec, 23.15).
_PAIRS = (
    "tables",
    "operations",
    "allow",
)


def _tables_beyond(held: TableRights, asked: list[str]) -> Iterator[Excess]:
    """Tables named alone: each pattern is held if anything under it is.

    So `*` may be asked for by one who holds only `market.*`. It says "wherever I may", and the
    links before still bound it (spec, 23.5). What is left is the pattern itself where it is held,
    else the entries held below it.
    """
    rights: RightsMap = held.value
    left: set[str] = set()
    excess: list[str] = []
    for pattern in asked:
        # Where inside the pattern something is held: at it, or at an entry below it.
        found = [key for key in patterns.within(rights, pattern) if _at(rights, key).operations]
        if not found:
            excess.append(pattern)
        # Held at the pattern itself, it is written as asked. The links before bound the rest.
        left.update([pattern] if pattern in found else found)

    if excess:
        yield Excess(
            "tables",
            asked,
            held.stated(),
            excess,
            {"tables": sorted(left)},
            replaces=_PAIRS,
        )


def _operations_beyond(held: TableRights, asked: list[str]) -> Iterator[Excess]:
    """Operations named alone: each is held on some table.

    It need not be held on every table, for the same reason (spec, 23.6). `*` is held only where `*`
    is, since a list of names never says all operations. A clamp of `*` writes all that are held.
    """
    everywhere: set[str] = set()  # all that are held, on whatever table
    for rights in held.value.values():
        everywhere |= rights.operations

    excess = [operation for operation in asked if not {operation, "*"} & everywhere]
    if excess:
        left = everywhere if "*" in asked else everywhere.intersection(asked)
        yield Excess(
            "operations",
            asked,
            held.stated(),
            excess,
            {"operations": sorted(left)},
            replaces=_PAIRS,
        )


def _pairs_beyond(held: TableRights, asked: Mapping[str, Any]) -> Iterator[Excess]:
    """Tables and operations, named together or as `allow`: every pair is held.

    The wish is held if its meet with what is held is the wish itself. Columns are put aside on both
    sides, since they are a dimension of their own (spec, 23.4).

    An example: held is `select` on `market.*`. Asked for are `select` and `insert` on `market.eu`.
    In excess is `{"market.eu": ["insert"]}`, and `select` on `market.eu` is left.
    """
    if "allow" not in asked and _are_held(held, asked["tables"].value, asked["operations"].value):
        return

    wanted = met(caveat for key, caveat in asked.items() if key in _PAIRS)
    bare = {key: Rights(rights.operations, None) for key, rights in held.value.items()}
    both = patterns.meet(
        wanted.value,
        bare,
        NO_RIGHTS,
        _both,
    )
    if both == wanted.value:
        return

    # What to tell: at each pattern where the two may differ, the operations that are not held.
    excess = {}
    is_unheld = False  # is there a pattern in excess at which nothing at all is held?
    for key in sorted({**wanted.value, **both}):
        have = _at(bare, key).operations
        missing = _at(wanted.value, key).operations - have
        # Where any operation is held none is missing, though no name of the wish is in the set.
        if missing and have != ANY:
            excess[key] = sorted(missing)
            is_unheld = is_unheld or not have

    if "allow" in asked:
        dimension = "allow"
    else:
        dimension = "tables" if is_unheld else "operations"
    yield Excess(
        dimension,
        {key: asked[key].value for key in _PAIRS if key in asked},
        held.stated(),
        excess,
        TableRights(both).stated(),
        replaces=_PAIRS,
    )


def _are_held(
    held: TableRights,
    tables: Iterable[str],
    operations: Iterable[str],
) -> bool:
    """Is every pair plainly held? For tables that are no patterns: the sooner answer.

    False is no answer: below a pattern there may be entries that say less, and are to be compared.
    """
    wanted = set_of(operations)
    for table in tables:
        if table[-1] == "*":
            return False
        have = _at(held.value, table).operations
        if have != ANY and not (wanted != ANY and wanted <= have):
            return False
    return True


def _columns_beyond(held: TableRights, asked: dict[str, list[str]]) -> Iterator[Excess]:
    """Each pattern is held, and wherever it is, the columns are among those held there.

    It looks at the pattern and at every entry of either map below it. Between these entries nothing
    changes, so no table is overlooked. Where no operation is held the columns do not matter (spec,
    23.7).
    """
    rights: RightsMap = held.value
    wishes = {key: set_of(given) for key, given in asked.items()}
    excess: dict[str, list[str]] = {}
    left: dict[str, list[str]] = {}
    for pattern, wish in wishes.items():
        is_found = False
        places = {
            *patterns.within(rights, pattern),
            *patterns.within(wishes, pattern),
        }
        for key in sorted(places):
            have = _at(rights, key)
            if not have.operations:
                continue

            # The most specific wish decides at this place, and not the one that led here.
            is_found = True
            wanted = patterns.decided(wishes, key, wish)
            both = _both_columns(have.columns, wanted) or frozenset()
            left[key] = sorted(both)
            if both != wanted:
                excess[key] = sorted(wanted - (have.columns or frozenset()))
        if not is_found:
            excess[pattern] = sorted(wish)

    if excess:
        yield Excess(
            "columns",
            asked,
            held.stated(),
            excess,
            {"columns": left} if left else {},
        )


def _rows_beyond(held: TableRights, asked: dict[str, dict[str, Any]]) -> Iterator[Excess]:
    """Wherever an operation is held, each column that is asked for is within what is held of it.

    Place by place as with columns; in a place as with attributes. A column that is not named is not
    asked for. One that is named as free is asked for whole (spec, 23.21).
    """
    rights: RightsMap = held.value
    wishes = {
        key: {column: read_constraint(stated) for column, stated in entry.items()}
        for key, entry in asked.items()
    }
    excess: dict[str, Any] = {}
    left: dict[str, dict[str, Constraint]] = {}
    for pattern in wishes:
        places = {*patterns.within(rights, pattern), *patterns.within(wishes, pattern)}
        permitted = [key for key in sorted(places) if _at(rights, key).operations]
        for key in permitted:
            have = _at(rights, key).rows
            otherwise = NOTHING if NOTHING in have.values() else ANYTHING
            wanted = patterns.decided(wishes, key, {})
            left[key] = {c: have.get(c, otherwise).meet(wish) for c, wish in wanted.items()}
            beyond = {c: wish.json() for c, wish in wanted.items() if left[key][c] != wish}
            if beyond:
                excess[key] = beyond
        if not permitted:
            excess[pattern] = asked[pattern]

    if not excess:
        return
    some = any(NOTHING not in rule.values() for rule in left.values())
    spelled_left = {key: {c: rule.json() for c, rule in left[key].items()} for key in left}
    yield Excess(
        "rows",
        asked,
        held.stated(),
        excess,
        {"rows": spelled_left} if some else {},
        cause=_rows_cause(rights, excess),
    )


def _rows_cause(rights: RightsMap, excess: Mapping[str, Any]) -> str:
    """What is held of the first column that is in excess, for the error."""
    key = min(excess)
    for column in sorted(excess[key]):
        rule = _at(rights, key).rows.get(column)
        if rule is not None:
            return (
                f"the token restricts column {named(column)} of {named(key)} to "
                f"{spelled(rule.json())}"
            )
    return ""


def _at(rights: RightsMap, key: str) -> Rights:
    """The rights at a pattern, by the entry that decides there; none if no entry does."""
    return patterns.decided(rights, key, NO_RIGHTS)


def met(caveats: Iterable[Any]) -> TableRights:
    """What data caveats say together; all rights if there are none.

    All rights are the neutral start: to meet them changes nothing.
    """
    made: TableRights | None = None
    for caveat in caveats:
        rights = caveat.normalized()
        made = rights if made is None else made.meet(rights)
    return TableRights({"*": ALL_RIGHTS}) if made is None else made

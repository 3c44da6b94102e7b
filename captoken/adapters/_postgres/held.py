"""What a token says of rows, as this guard holds it: rule 14 of `postgres`.

For a token with `rows={"orders": {"tenant": {"in": ["acme"]}}}`, in two places:

- the text that is sent reads `(select … from "public"."orders" where …) as orders`: an index serves
  that (`rewriting`);
- the policy of the plan reads what the transaction was told of each table, at its beginning
  (`told_of`). It holds what is written, too, and a statement's own conditions wait behind it, if
  they could fail on other rows.

Each link says what it says, and all of it holds. Of two lists, the policy is told those values of
one that each link accepts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from captoken import rows
from captoken._format.encoding import decode_json, encode_json
from captoken._format.errors import GuardError
from captoken._language.constraints import Constraint, In, Prefixes, Range
from captoken.adapters._postgres.names import name_of, quoted
from captoken.adapters._postgres.text import Table

# One of the guard's own.
_DIALECT: Any = "deterministic"

# The name of a list in a policy, by the JSON type of its items (`templates`).
_LISTED = {str: "strings", int: "integers", bool: "booleans"}


class Rows(NamedTuple):
    """What is held in one block, of the tables that have a policy for it."""

    # The restrictions, for the tables whose rows the token restricts.
    held: Mapping[Table, Held]

    # The restrictions as JSON, for the transaction.
    told: bytes | None


class Held(NamedTuple):
    """What a token says of the rows of one table: each of its conditions, as it is spelled."""

    spelled: tuple[bytes, ...]

    @classmethod
    def of(cls, conditions: Sequence[Mapping[str, Any]]) -> Held | None:
        """None where the rows are not restricted."""
        return cls(tuple(map(encode_json, conditions))) if conditions else None

    @property
    def conditions(self) -> list[dict[str, Any]]:
        """As an access states them."""
        return list(map(decode_json, self.spelled))

    def columns(self) -> set[str]:
        """The columns that are not free. Raises GuardError, code `row`, for what SQL cannot say."""
        return {column for column, _ in rows.asked(self.conditions)}

    def condition(self, types: Mapping[str, str]) -> str:
        """In SQL, with the values in it. Raises GuardError, code `row`.

        Of `types`, columns are left out whose collation takes two values for one.
        """
        return rows.condition(self.conditions, _DIALECT, types, quoted)

    def told(self) -> dict[str, Any] | None:
        """What the policy is told of each column that is not free. None: that no row is seen."""
        rules: dict[str, list[Constraint]] = {}
        try:
            for column, constraint in rows.asked(self.conditions):
                rules.setdefault(column, []).append(constraint)
        except GuardError:
            return None  # a statement on this table is refused, whatever it does
        return {column: _told(its) for column, its in rules.items()}


def told_of(said: Mapping[Table, Held | None]) -> bytes:
    """What a transaction is told of these tables, as JSON: by the number of what is said of them.

        {"orders": 0, "lines": 0, "countries": true, "": [{"tenant": {"strings": ["acme"]}}]}

    `true` is every row. A link that names many values is told once, however many tables it is of.
    """
    rules = {rows: place for place, rows in enumerate(dict.fromkeys(filter(None, said.values())))}
    told: dict[str | None, Any] = {
        name_of(table): True if rows is None else rules[rows] for table, rows in said.items()
    }
    return json.dumps({**told, "": [rows.told() for rows in rules]}).encode()


def _told(rules: Sequence[Constraint]) -> dict[str, Any]:
    """What all of these accept. Where they are of unlike kinds without a list, nothing is."""
    listed = next((rule for rule in rules if isinstance(rule, In)), None)
    if listed is not None:
        return _values(value for value in listed.json()["in"] if _accept(rules, value))
    ranges = [rule for rule in rules if isinstance(rule, Range)]
    if len(ranges) == len(rules):
        return _bounds(ranges)
    starts = [start for rule in rules if isinstance(rule, Prefixes) for start in rule.starts]
    return {"prefixes": [start for start in starts if _accept(rules, start)]}


def _accept(rules: Sequence[Constraint], value: Any) -> bool:
    return all(rule.accepts(value) for rule in rules)


def _values(accepted: Iterable[Any]) -> dict[str, Any]:
    """Values by their type; and by their form, for what the policy casts and can cast."""
    found: dict[str, Any] = {kind: [] for kind in _LISTED.values()}
    for value in accepted:
        found[_LISTED[type(value)]].append(value)
    for kind, spelled in rows.FORMS.items():
        if values := list(filter(spelled, found["strings"])):
            found[kind] = values
    return found


def _bounds(ranges: Sequence[Range]) -> dict[str, Any]:
    """The narrowest. Bounds that cross are no range to PostgreSQL: nothing is within them."""
    least = max((rule.low for rule in ranges if rule.low is not None), default=None)
    most = min((rule.high for rule in ranges if rule.high is not None), default=None)
    if least is not None and most is not None and least > most:
        return {}
    bounds = {"min": least, "max": most}
    return {name: bound for name, bound in bounds.items() if bound is not None}

"""What puts an access in a mark (spec, "Marks"): one definition of the caveat `marks`, read.

    {"tables": ["crm.*"], "operations": ["select"]}      what reads customers' data
    {"tools": ["http.get"], "but": {"tools": {"http.get": {"url": {"url": [...]}}}}}

An access is in the mark if its table or its tool is named, unless a link of `but` alone would
permit it. Whatever `but` does not permit stays in the mark: an argument that is missing, one that
it does not name, a value that it cannot read. So an unusual request never escapes.

Loaded for tokens that have marks. Whether a mark is set, only a ledger knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from captoken._format import names
from captoken._format.spelling import named_all
from captoken._language import patterns
from captoken._language.access import Access
from captoken._language.data import Allowances, Operations, Tables
from captoken._language.kinds import BuiltIn, Looked, Situation, closed, prohibited
from captoken._language.tool import Tools
from captoken._language.values import a_list, an_object, not_empty

_LISTS = ("tables", "operations", "tools")
_OF_BUT: dict[str, type[BuiltIn]] = {
    kind.key: kind for kind in (Tables, Operations, Allowances, Tools)
}

# None of the caveats of `but` looks at the verifier's facts.
_NOWHERE = Situation(0)


class But(msgspec.Struct, frozen=True, gc=False):
    """What takes accesses out of a mark: caveats, in the order of their keys, judged as a link."""

    caveats: tuple[BuiltIn, ...]
    domains: frozenset[str]

    def permits(self, access: Access) -> bool:
        """Would a link of these caveats alone permit it (18.4)?"""
        refused = prohibited(self.caveats, access, _NOWHERE)
        return refused is None and closed(self.domains, access) is None


class Definition(msgspec.Struct, frozen=True, gc=False):
    """Which accesses are in a mark. Lists are as the link has them; None is not stated."""

    tables: list[str] | None
    operations: list[str] | None
    tools: list[str] | None

    # What takes accesses out again.
    but: But | None

    def has(self, access: Access) -> bool:
        """Is the access in the mark? Every doubt says yes."""
        if not self._names(access):
            return False
        return self.but is None or not self.but.permits(access)

    def _names(self, access: Access) -> bool:
        """Is its table named, with its operation, or its tool? No domain closes the other here."""
        tables, operations, tools = self.tables, self.operations, self.tools
        if tables is not None and access.table is not None:
            is_one = operations is None or access.operation in operations or "*" in operations
            if is_one and patterns.among(tables, access.table):
                return True
        return tools is not None and access.tool is not None and patterns.among(tools, access.tool)

    def looks(self, access: Access) -> Iterable[Looked]:
        """Each list with the name that it looks at, and what the caveats of `but` look at."""
        facts = (access.table, access.operation, access.tool)
        for stated, fact in zip((self.tables, self.operations, self.tools), facts, strict=True):
            if stated is not None and fact is not None:
                yield stated, fact
        if self.but is not None:
            for caveat in self.but.caveats:
                yield from caveat.looks(access)

    def words(self) -> str:
        """For people: `select on crm.*; tool mail.read`."""
        parts = []
        if self.tables is not None:
            operations = "any operation"
            if self.operations is not None and "*" not in self.operations:
                operations = named_all(set(self.operations))
            parts.append(f"{operations} on {named_all(set(self.tables))}")
        if self.tools is not None:
            parts.append(f"tool {named_all(set(self.tools))}")
        said = "; ".join(parts)
        if self.but is None:
            return said
        beside = {caveat.key: caveat for caveat in self.but.caveats}
        in_order = (beside[key] for key in _OF_BUT if key in beside)
        spared = [line for one in in_order for line in one.words(0, beside)]
        return f"{said}, except {'; '.join(spared)}"


def read_definition(value: Any, what: str) -> Definition:
    """Which accesses are meant, of a mark or of what needs a consent. `what` is for the message.

    A list that is empty would mean none, and `operations` without `tables` too: both are refused,
    since their writer would not see it. Raises TypeError or ValueError.
    """
    stated = not_empty(an_object(value, what, ', like {"tables": ["crm.*"]}'), what)
    unknown = stated.keys() - {*_LISTS, "but"}
    if unknown:
        raise ValueError(f"{what} has tables, operations, tools and but, not {named_all(unknown)}")

    lists: dict[str, list[str]] = {}
    for key in _LISTS:
        if key not in stated:
            continue
        listed = a_list(stated[key], f"{key} of {what}")
        if not listed:
            raise ValueError(f"{key} of {what} are empty: name one, or leave them out")
        for one in listed:
            if key != "operations":
                names.pattern(one, key.removesuffix("s"))
            elif one != "*":
                names.name(one, "operation")
        lists[key] = listed

    if "tables" not in lists and ("operations" in lists or "tools" not in lists):
        raise ValueError(f"{what} names tables or tools, and operations with tables alone")
    but = _read_but(stated["but"], what) if "but" in stated else None
    return Definition(lists.get("tables"), lists.get("operations"), lists.get("tools"), but)


def _read_but(value: Any, what: str) -> But:
    """What takes accesses out of a mark. Raises TypeError or ValueError."""
    stated = not_empty(an_object(value, f"but of {what}"), f"but of {what}")
    unknown = stated.keys() - _OF_BUT.keys()
    if unknown:
        allowed = "tables, operations, allow and tools"
        raise ValueError(f"but of {what} has {allowed}, not {named_all(unknown)}")
    caveats = tuple(_OF_BUT[key](stated[key]) for key in sorted(stated))
    return But(caveats, frozenset(caveat.domain for caveat in caveats))

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
from captoken._format.encoding import encode_json
from captoken._format.spelling import named_all
from captoken._language import patterns
from captoken._language.access import Access
from captoken._language.caveats import V1
from captoken._language.kinds import Looked, Situation
from captoken._language.link import BadLink, Link
from captoken._language.links import late_prohibits, read_link
from captoken._language.values import a_list, an_object, not_empty

_LISTS = ("tables", "operations", "tools")
_OF_BUT = frozenset(("tables", "operations", "allow", "tools"))

# None of the caveats of `but` looks at the verifier's facts.
_NOWHERE = Situation(0)


class Definition(msgspec.Struct, frozen=True, gc=False):
    """Which accesses are in a mark. Lists are as the link has them; None is not stated."""

    tables: list[str] | None
    operations: list[str] | None
    tools: list[str] | None

    # The link that takes accesses out again.
    but: Link | None

    def has(self, access: Access) -> bool:
        """Is the access in the mark? Every doubt says yes."""
        if not self._names(access):
            return False
        return self.but is None or late_prohibits(self.but, access, _NOWHERE) is not None

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
            for caveat in self.but.late:
                yield from caveat.looks(access)  # type: ignore[attr-defined]

    def words(self) -> str:
        """For people: `select on crm.*; tool mail.read`."""
        parts = []
        if self.tables is not None:
            operations = "any operation"
            if self.operations is not None and "*" not in self.operations:
                operations = named_all(self.operations)
            parts.append(f"{operations} on {named_all(self.tables)}")
        if self.tools is not None:
            parts.append(f"tool {named_all(self.tools)}")
        said = "; ".join(parts)
        if self.but is None:
            return said
        beside = {caveat.key: caveat for caveat in self.but.late}
        spared = [line for one in self.but.late for line in one.words(0, beside)]  # type: ignore[attr-defined]
        return f"{said}, except {'; '.join(spared)}"


def read_definition(value: Any, mark: str) -> Definition:
    """The definition of a mark. Raises TypeError or ValueError.

    A list that is empty would put nothing in the mark, and `operations` without `tables` too:
    both are refused, since their writer would not see it.
    """
    what = f"the mark {mark}"
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


def _read_but(value: Any, what: str) -> Link:
    """The link that takes accesses out of a mark. Raises TypeError or ValueError."""
    stated = not_empty(an_object(value, f"but of {what}"), f"but of {what}")
    unknown = stated.keys() - _OF_BUT
    if unknown:
        allowed = "tables, operations, allow and tools"
        raise ValueError(f"but of {what} has {allowed}, not {named_all(unknown)}")
    link = read_link(encode_json(stated), V1)
    if isinstance(link, BadLink):
        raise ValueError(f"but of {what}: {link.text}")
    return link

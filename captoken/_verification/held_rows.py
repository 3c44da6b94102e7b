"""What `grant.rows` answers: what each link says of the rows of a table (spec 24.27).

Not one condition that sums them up: who holds the rows back joins what the links say with AND, so
that the links decide and no meet does (24.23). Loaded where somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from msgspec import structs

from captoken._format.encoding import decode_json, encode_json
from captoken._language import patterns
from captoken._language.access import Access
from captoken._language.constraints import EVERY_ROW
from captoken._language.data import Rows
from captoken._language.kinds import Situation, closed
from captoken._language.link import Link
from captoken._verification.authenticated import AuthenticatedToken
from captoken._verification.decision import Decision
from captoken._verification.facts import Condition, Facts, Question
from captoken._verification.plan import judge, narrowing_of


def judge_rows(
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Question,
    table: str,
) -> tuple[Decision, tuple[Condition, ...]]:
    """Whether the token stands and permits anything on the table; and what its links say of rows.

    The links of the token come first, then entries of the overlay, then links of discharges. Each
    condition stands once. Without any, the rows are not restricted. Of a table of which nothing is
    permitted it says both: a view may read that for whoever may use the view.
    """
    decision = judge(genuine, facts, asked)
    if not decision:
        return decision, ()
    entries = [link for _, link in narrowing_of(genuine, facts)]
    own = genuine.own_links
    if entries:
        said = _say((*own, *entries, *genuine.links[len(own) :]), table)
    else:
        said = _remembered(genuine, table)
    permits, conditions = said
    if not permits:
        # Nothing is permitted: so no operation is, whichever is asked about.
        access = Access(table=table, operation="select")
        decision = judge(genuine, facts, structs.replace(asked, access=access))
    return decision, tuple(map(decode_json, conditions))


# Whether links permit anything of a table, and the conditions on its rows, as they are spelled.
Said: TypeAlias = tuple[bool, tuple[bytes, ...]]

# Tables that are remembered of one token. What its links say of one never changes.
_MOST_TABLES = 256


def _remembered(genuine: AuthenticatedToken, table: str) -> Said:
    """What the links of a token say, worked out once. Two threads come to the same."""
    known = genuine.said_of_rows
    if known is None or len(known) > _MOST_TABLES:
        known = {}
        structs.force_setattr(genuine, "said_of_rows", known)
    said = known.get(table)
    if said is None:
        said = known[table] = _say(genuine.links, table)
    return said


def _say(links: Sequence[Link], table: str) -> Said:
    return _permit_something(links, table), tuple(dict.fromkeys(_said(links, table)))


def _said(links: Iterable[Link], table: str) -> Iterator[bytes]:
    """The entry of each link that decides at the table and restricts rows, as it is spelled."""
    for link in links:
        for caveat in link.late:
            if isinstance(caveat, Rows) and patterns.decided(caveat.rules, table, EVERY_ROW):
                yield encode_json(patterns.decided(caveat.value, table, {}))


def _permit_something(links: Sequence[Link], table: str) -> bool:
    """Is there an operation that no link refuses on the table? Columns and rows are not looked at.

    Those that a link names are asked about, and one for all others.
    """
    named = {"select"}
    for link in links:
        for caveat in link.late:
            if caveat.key == "operations":
                named.update(caveat.value)
            elif caveat.key == "allow":
                named.update(patterns.decided(caveat.value, table, ()))
    accesses = (Access(table=table, operation=name) for name in named - {"*"})
    return any(all(_permits(link, access) for link in links) for access in accesses)


def _permits(link: Link, access: Access) -> bool:
    """Do the tables and operations of a link permit an access, and does it not close data?"""
    pairs = [caveat for caveat in link.late if caveat.key in ("tables", "operations", "allow")]
    refused = any(caveat.prohibits(access, Situation(0)) is not None for caveat in pairs)
    closes = bool(link.domains) and closed(link.domains, access) is not None
    return not (refused or closes)

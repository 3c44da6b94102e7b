"""What an application asks for on behalf of a person, and what she may let it have.

    asked = read_asked(query)                           # form alone
    offer = offer_of(asked, application, identity, desk, goes_on)
    offer.keywords(ticked)                              # link 1: what she let it have

Each right has one text (`_scopes`), which is the value of its box on the page. What is offered is
what the application asked for by such texts; else what the grant gives at `first`, if it says so;
else all that it gives. An application that acts for her already asks for more: then that alone has
boxes, and what she has allowed before goes on (`GoesOn`).

A box that is not ticked is taken away in link 1 by name, and not only left out: a wider pattern
that is ticked does not bring it back.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import structs

from captoken._format import primitives
from captoken._format.errors import CaptokenError, IssuanceError
from captoken._language import patterns
from captoken._writing.token import Token
from captoken.adapters._http.escapes import fields
from captoken.adapters._scopes import KEYWORDS, MOST_RIGHTS, Right, read_right
from captoken.issuance.applications import Application
from captoken.issuance.desk import Desk
from captoken.issuance.identity import Identity
from captoken.issuance.minting import Ask, granted_keywords, tokens_of
from captoken.issuance.policy import PolicyGrant

# The longest query: it waits in a cookie while the person logs in.
MOST_QUERY = 2048
_FIELDS = 24

# A code challenge is a SHA-256 in base64url (RFC 7636, 4.2).
_challenge = re.compile(r"[A-Za-z0-9_-]{43}").fullmatch

_KNOWN = frozenset(
    (
        "response_type",
        "response_mode",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "resource",
        "code_challenge",
        "code_challenge_method",
    )
)

# What would change the request, and is not read here.
_REFUSED = ("request", "request_uri", "authorization_details", "audience")

# Scopes that clients send by habit: they ask for nothing that a grant does not decide.
_HABITS = frozenset(("offline_access", "openid"))


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request for authorization, read. Nothing of it is believed."""

    client: str
    redirect: str
    challenge: str
    state: str | None = None
    grant: str | None = None
    rights: tuple[Right, ...] = ()
    resource: str | None = None


def read_asked(query: bytes) -> Asked:
    """Read a query. Raises IssuanceError, for the person: nobody is sent anywhere by it."""
    if len(query) > MOST_QUERY:
        raise _bad("the request is too long")
    given = _parameters(query)
    for name in _REFUSED:
        if name in given:
            raise _bad(f"this service does not take {name} here")
    if given.get("response_type") != "code":
        raise IssuanceError('response_type must be "code"', "unsupported_response_type")
    if given.get("response_mode", "query") != "query":
        raise _bad('response_mode must be "query"')
    for name in ("client_id", "redirect_uri", "code_challenge"):
        if name not in given:
            raise _bad(f"{name} is missing")
    if given.get("code_challenge_method") != "S256":
        raise _bad("code_challenge_method must be S256")
    if _challenge(given["code_challenge"]) is None:
        raise _bad("code_challenge must be a SHA-256 in base64url")
    grant, rights = read_scope(given.get("scope"))
    return Asked(
        client=given["client_id"],
        redirect=given["redirect_uri"],
        challenge=given["code_challenge"],
        state=given.get("state"),
        grant=grant,
        rights=rights,
        resource=given.get("resource"),
    )


def read_scope(scope: str | None) -> tuple[str | None, tuple[Right, ...]]:
    """The grant that a scope names, if it does, and the rights within it. Raises IssuanceError."""
    words = [one for one in (scope or "").split(" ") if one and one not in _HABITS]
    read = {one: read_right(one) for one in words}
    named = [one for one, right in read.items() if right is None]
    rights = tuple(right for right in read.values() if right is not None)
    if len(named) > 1 or len(rights) > MOST_RIGHTS:
        raise IssuanceError(
            f"scope must name one grant of the policy, and at most {MOST_RIGHTS} rights within it",
            "invalid_scope",
        )
    return (named[0] if named else None), rights


def _parameters(query: bytes) -> dict[str, str]:
    """The parameters of a query, each of them once. Raises IssuanceError."""
    try:
        pairs = fields(query, _FIELDS)
    except ValueError:
        raise _bad("the query cannot be read") from None
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in _KNOWN and name not in _REFUSED:
            continue
        if name in given:
            raise _bad(f"{name} is given twice")
        given[name] = value
    return {name: value for name, value in given.items() if value}


def _bad(what: str) -> IssuanceError:
    return IssuanceError(what, "invalid_request")


# --- what is offered ------------------------------------------------------------------------------


class GoesOn(msgspec.Struct, frozen=True, kw_only=True):
    """What an application does for a person already, and what she has allowed it."""

    task: str
    until: int
    keywords: dict[str, Any]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy gives for a request: a person lets the application have it, or less."""

    asked: Asked
    application: Application
    grant: PolicyGrant
    audience: str
    subject: str

    # What is offered, in the keywords of `mint`, and what of it has a box.
    gives: Mapping[str, Any]
    rights: tuple[Right, ...]
    policy: str

    # What was asked for, and the policy does not give.
    missing: tuple[Right, ...] = ()

    # The task that it is added to, and what is allowed there; None for a new one.
    goes_on: GoesOn | None = None

    # Is it all that the policy gives?
    is_all: bool = True

    @property
    def held(self) -> tuple[Right, ...]:
        """What she has allowed before."""
        return () if self.goes_on is None else rights_in(self.goes_on.keywords)

    @property
    def digest(self) -> bytes:
        """What the person has seen: with another digest she would have seen something else."""
        rights = {key: value for key, value in self.gives.items() if key not in _MOMENTARY}
        stated = {
            "asked": structs.asdict(self.asked),
            "application": structs.asdict(self.application),
            "grant": self.grant.name,
            "audience": self.audience,
            "subject": self.subject,
            "gives": rights,
            "boxes": [right.text for right in self.rights],
            "goes_on": None if self.goes_on is None else structs.asdict(self.goes_on),
            "policy": self.policy,
        }
        return primitives.sha256(msgspec.json.encode(stated, order="sorted"))

    def keywords(self, ticked: Collection[str]) -> dict[str, Any]:
        """Link 1, of the boxes that were ticked. Raises IssuanceError for none, and for others."""
        texts = {right.text for right in self.rights}
        if not texts.issuperset(ticked):
            raise IssuanceError("the form has a box that the page did not have", "invalid_request")
        made: dict[str, Any] = {}
        tables = _tables_of(self.gives)
        allow = {
            table: [one for one in operations if self._is_ticked(table, one, ticked)]
            for table, operations in tables.items()
        }
        columns = self._columns(ticked)
        if any(allow.values()):
            made["allow"] = allow
            # Those of what is offered at first are her word, too; what is added says its own.
            if self.goes_on is None:
                columns = {**self.gives.get("columns", {}), **columns}
            if columns:
                made["columns"] = columns
        tools = {
            pattern: arguments
            for pattern, arguments in self.gives.get("tools", {}).items()
            if Right("tool", _leader(pattern, self.gives["tools"])).text in ticked
        }
        if tools:
            made["tools"] = tools
        if not made:
            raise IssuanceError("tick at least one thing, or deny", "invalid_request")
        return made if self.goes_on is None else _together(self.goes_on.keywords, made)

    def scope(self, keywords: Mapping[str, Any]) -> tuple[str, ...]:
        """The rights that were asked for by name, and are in these keywords."""
        tools, tables = keywords.get("tools", {}), _tables_of(keywords)
        columns = keywords.get("columns", {})

        def is_in(right: Right) -> bool:
            if right.kind == "tool":
                return patterns.decided(tools, right.name, None) is not None
            its = columns.get(right.name)
            is_there = right.operation in patterns.decided(tables, right.name, [])
            return is_there and (not right.column or its is None or right.column in its)

        return tuple(right.text for right in _plain(self.asked.rights) if is_in(right))

    def _is_ticked(self, table: str, operation: str, ticked: Collection[str]) -> bool:
        """Is an operation ticked, or one of its columns?"""
        place = table, operation
        its = (one.text for one in self.rights if (one.name, one.operation) == place)
        return any(one in ticked for one in its)

    def _columns(self, ticked: Collection[str]) -> dict[str, list[str]]:
        """The columns that are ticked, of tables that have boxes for columns.

        A token has columns by table: so of two operations it has those that are ticked for both.
        """
        found: dict[str, dict[str, set[str]]] = {}
        for right in self.rights:
            if right.column and right.text in ticked:
                its = found.setdefault(right.name, {})
                its.setdefault(right.operation, set()).add(right.column)
        return {table: sorted(set.intersection(*its.values())) for table, its in found.items()}


# Keywords that differ each time that a token is minted.
_MOMENTARY = frozenset(("expires_at", "task"))


def offer_of(
    asked: Asked,
    application: Application,
    identity: Identity,
    desk: Desk,
    running: Iterable[tuple[str, str, GoesOn]] = (),
) -> Offer:
    """What the policy gives for a request. Raises IssuanceError, and StoreError without keys.

    `running`: the grant, the server and the rest of what the application does for her, the newest
    first. What is counted is taken once in a task, so nothing is added to that.
    """
    if not application.takes(asked.redirect):
        # Nobody is told where else: the address may be anybody's.
        raise IssuanceError("the redirect_uri is not one of the application's", "invalid_request")
    ask = Ask(
        grant=asked.grant,
        resources=() if asked.resource is None else (asked.resource,),
        client=application.id,
        by_login=True,
        held=asked.resource is None,
    )
    grant = desk.chosen(ask, identity, None)
    plan = desk.plan(structs.replace(ask, grant=grant.name, agent=grant.agents[0]), identity, None)
    (root,) = tokens_of(plan.root)
    wanted = _plain(asked.rights)
    gives, missing = _offered(root, wanted, grant)
    rights = _rights(gives, wanted)

    goes_on, added = None, list[Right]()
    if wanted and not grant.counts:
        here = (grant.name, plan.audiences[0])
        those = (rest for *where, rest in running if tuple(where) == here)
        goes_on = next(those, None)
    held = None if goes_on is None else _cut(root, goes_on.keywords)
    if goes_on is not None and held is not None:
        beside = _plain(wanted, _whole(held, root))
        offered = _offered(root, beside, grant)
        added = [right for right in _rights(offered[0], beside) if not _has(held, right)]
        if added:
            (gives, missing), rights = offered, added
            goes_on = structs.replace(goes_on, keywords=_kept(held))
    if not added:
        goes_on = None  # nothing is added to it: it is a login as any other
    return Offer(
        asked=asked,
        application=application,
        grant=grant,
        audience=plan.audiences[0],
        subject=plan.entry.subject,
        gives=gives,
        rights=tuple(rights),
        policy=desk.policy.digest,
        missing=missing,
        goes_on=goes_on,
        is_all=gives == granted_keywords(root),
    )


def _offered(
    root: Token, asked: tuple[Right, ...], grant: PolicyGrant
) -> tuple[dict[str, Any], tuple[Right, ...]]:
    """What of a grant is offered, and what was asked for and is not given. Raises IssuanceError."""
    if not asked:
        return granted_keywords(root.attenuate(**grant.first) if grant.first else root), ()
    given = [right for right in asked if _has(root, right)]
    made = _cut(root, _keywords_of(given)) if given else None
    if made is None:
        raise IssuanceError("the policy gives nothing of what is asked for", "invalid_scope")
    return granted_keywords(made), tuple(right for right in asked if right not in given)


def _whole(held: Token, root: Token) -> set[str]:
    """The tables of which all columns are allowed that the policy gives.

    A token has columns by table, and not by operation. So what else it may do there is not offered
    by column: with that box all of them would come.
    """
    mine, every = granted_keywords(held), granted_keywords(root)
    of_mine, of_all = mine.get("columns", {}), every.get("columns", {})
    return {
        table
        for table, operations in _tables_of(mine).items()
        if operations
        and patterns.decided(of_mine, table, None) == patterns.decided(of_all, table, None)
    }


def _plain(rights: Iterable[Right], known: Iterable[str] = ()) -> tuple[Right, ...]:
    """Without columns of tables of which all columns are asked for, or `known` to be allowed."""
    those = tuple(rights)
    whole = {one.name for one in those if one.kind == "table" and not one.column}.union(known)
    cut = (one._replace(column="") if one.name in whole else one for one in those)
    return tuple(dict.fromkeys(cut))


def _keywords_of(rights: Iterable[Right]) -> dict[str, Any]:
    """What is to be had for some rights, in the keywords of `attenuate`."""
    allow: dict[str, list[str]] = {}
    columns: dict[str, list[str]] = {}
    tools: dict[str, Any] = {}
    for right in rights:
        if right.kind == "tool":
            tools[right.name] = {}
            continue
        allow.setdefault(right.name, []).append(right.operation)
        if right.column:
            columns.setdefault(right.name, []).append(right.column)
    made = {"allow": allow, "columns": columns, "tools": tools}
    return {key: value for key, value in made.items() if value}


def _cut(root: Token, keywords: Mapping[str, Any]) -> Token | None:
    """What there is of these at a root; None for nothing, or for what is no right."""
    try:
        return root.attenuate(clamp=True, **keywords)
    except (CaptokenError, TypeError, ValueError):
        return None


def _has(held: Token, right: Right) -> bool:
    """Does a token have a right, with whatever arguments?"""
    made = _cut(held, _keywords_of((right,)))
    if made is None:
        return False
    gives = granted_keywords(made)
    if right.kind == "tool":
        return right.name in gives.get("tools", {})
    is_there = right.operation in _tables_of(gives).get(right.name, ())
    columns = gives.get("columns", {}).get(right.name)
    return is_there and (not right.column or columns is None or right.column in columns)


def _kept(held: Token) -> dict[str, Any]:
    """The rights of a token as keywords of one that is to have them, too."""
    gives = granted_keywords(held)
    return {key: gives[key] for key in KEYWORDS if key in gives}


def _together(before: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """What was allowed before, and what is added to it."""
    allow = {table: list(those) for table, those in _tables_of(before).items()}
    columns = {table: list(those) for table, those in before.get("columns", {}).items()}
    for table, operations in added.get("allow", {}).items():
        is_new = not allow.get(table)
        allow[table] = sorted({*allow.get(table, ()), *operations})
        its = added.get("columns", {}).get(table)
        # Columns of a table that had all of them stay all; of one that had some, some are added.
        if its is not None and (is_new or table in columns):
            known = () if is_new else columns.get(table, ())
            columns[table] = sorted({*known, *its})
    made = {
        "allow": allow,
        "columns": columns,
        "tools": {**added.get("tools", {}), **before.get("tools", {})},
    }
    return {key: value for key, value in made.items() if value}


def rights_in(keywords: Mapping[str, Any]) -> tuple[Right, ...]:
    """What a person has allowed, right by right."""
    return tuple(_rights(keywords, ()))


def _rights(gives: Mapping[str, Any], asked: tuple[Right, ...]) -> list[Right]:
    """What has a box: each right; of those that were asked for by column, each column."""
    by_column = {
        (right.name, right.operation): [
            one for one in asked if (one.name, one.operation) == (right.name, right.operation)
        ]
        for right in asked
        if right.column
    }
    columns = gives.get("columns", {})
    found = [
        right
        for table, operations in _tables_of(gives).items()
        for one in operations
        for right in by_column.get((table, one), [Right("table", table, one)])
        if not right.column or table not in columns or right.column in columns[table]
    ]
    tools = gives.get("tools", {})
    # Of patterns that overlap, the widest has the box: one token cannot leave out a part of it.
    found += [
        Right("tool", pattern) for pattern in tools if _leader(pattern, tools) == pattern
    ]
    return found


def _tables_of(gives: Mapping[str, Any]) -> dict[str, list[str]]:
    """Operations by table, in whichever of two ways a token spells them."""
    if "allow" in gives:
        return dict(gives["allow"])
    return {table: list(gives.get("operations", ())) for table in gives.get("tables", ())}


def _leader(pattern: str, tools: Mapping[str, Any]) -> str:
    """The widest pattern of these that has `pattern` below it, or the pattern itself."""
    widest = patterns.widest(tools)
    return next((one for one in widest if patterns.contains(one, pattern)), pattern)

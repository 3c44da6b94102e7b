"""What an application asks for on behalf of a person, and what she may let it have.

    asked = read_asked(query)                           # form alone
    offer = offer_of(asked, application, identity, desk)
    offer.keywords(ticked)                              # link 1: what she let it have

Each right has one text, which is the value of its box on the page:

    table:sales:select      tool:mail.send

A box that is not ticked is taken away in link 1 by name, and not only left out: a wider pattern
that is ticked does not bring it back.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from string import ascii_letters, digits
from typing import Any

import msgspec
from msgspec import structs

from captoken._format import primitives
from captoken._format.errors import IssuanceError
from captoken._language import patterns
from captoken.adapters._http.escapes import fields
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

# Characters of a name that stand for themselves in a scope.
_PLAIN = frozenset(ascii_letters + digits + "._-")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request for authorization, read. Nothing of it is believed."""

    client: str
    redirect: str
    challenge: str
    state: str | None = None
    grant: str | None = None
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
    return Asked(
        client=given["client_id"],
        redirect=given["redirect_uri"],
        challenge=given["code_challenge"],
        state=given.get("state"),
        grant=read_scope(given.get("scope")),
        resource=given.get("resource"),
    )


def read_scope(scope: str | None) -> str | None:
    """The grant that a scope names; None if it names none. Raises IssuanceError."""
    named = [one for one in (scope or "").split(" ") if one and one not in _HABITS]
    if len(named) > 1:
        raise IssuanceError("scope must name one grant of the policy", "invalid_scope")
    return named[0] if named else None


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


class Right(msgspec.Struct, frozen=True):
    """One box on the page. `value` is what the browser sends for it."""

    value: str
    kind: str  # table or tool
    name: str
    operation: str = ""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy gives for a request: a person lets the application have it, or less."""

    asked: Asked
    application: Application
    grant: PolicyGrant
    audience: str
    subject: str

    # What the grant gives, in the keywords of `mint`, and what of it has a box.
    gives: Mapping[str, Any]
    rights: tuple[Right, ...]
    policy: str

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
            "policy": self.policy,
        }
        return primitives.sha256(msgspec.json.encode(stated, order="sorted"))

    def keywords(self, ticked: Collection[str]) -> dict[str, Any]:
        """Link 1, of the boxes that were ticked. Raises IssuanceError for none, and for others."""
        values = {right.value for right in self.rights}
        if not values.issuperset(ticked):
            raise IssuanceError("the form has a box that the page did not have", "invalid_request")
        made: dict[str, Any] = {}
        tables = _tables_of(self.gives)
        allow = {
            table: [one for one in operations if table_right(table, one) in ticked]
            for table, operations in tables.items()
        }
        if any(allow.values()):
            made["allow"] = allow
        tools = {
            pattern: arguments
            for pattern, arguments in self.gives.get("tools", {}).items()
            if tool_right(_leader(pattern, self.gives["tools"])) in ticked
        }
        if tools:
            made["tools"] = tools
        if not made:
            raise IssuanceError("tick at least one thing, or deny", "invalid_request")
        return made


# Keywords that differ each time that a token is minted.
_MOMENTARY = frozenset(("expires_at", "task"))


def offer_of(asked: Asked, application: Application, identity: Identity, desk: Desk) -> Offer:
    """What the policy gives for a request. Raises IssuanceError, and StoreError without keys."""
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
    gives = granted_keywords(root)
    return Offer(
        asked=asked,
        application=application,
        grant=grant,
        audience=plan.audiences[0],
        subject=plan.entry.subject,
        gives=gives,
        rights=tuple(_rights(gives)),
        policy=desk.policy.digest,
    )


def _rights(gives: Mapping[str, Any]) -> list[Right]:
    found = [
        Right(table_right(table, one), "table", table, one)
        for table, operations in _tables_of(gives).items()
        for one in operations
    ]
    tools = gives.get("tools", {})
    # Of patterns that overlap, the widest has the box: one token cannot leave out a part of it.
    found += [
        Right(tool_right(pattern), "tool", pattern)
        for pattern in tools
        if _leader(pattern, tools) == pattern
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


def table_right(table: str, operation: str) -> str:
    """The text of one operation on a table."""
    return f"table:{_spelled(table)}:{_spelled(operation)}"


def tool_right(tool: str) -> str:
    """The text of a tool."""
    return f"tool:{_spelled(tool)}"


def _spelled(name: str) -> str:
    """A name in a scope: percent-encoded, but for what stands for itself."""
    if name == "*":
        return name
    stem, star = (name[:-1], "*") if name.endswith(".*") else (name, "")
    return "".join(
        char if char in _PLAIN else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in stem
    ) + star

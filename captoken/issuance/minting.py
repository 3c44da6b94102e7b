"""Mint what a request gets: link 0 is the grant, link 1 the request.

    minter = Minter(policy, keyring_source(keyring), lease, random_bytes)
    root = minter.mint(order)       # a token, or a set of them

The desk decides whether, and for whom. Link 1 is the client's own: here the request is refused that
asks for more than the grant gives.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from captoken._format import primitives
from captoken._format.encoding import own_words
from captoken._format.errors import CaptokenError, IssuanceError, StoreError, WideningError
from captoken._format.spelling import shown
from captoken._writing.issuer import Issuer
from captoken._writing.keywords import LinkCaveats
from captoken._writing.token import Token
from captoken._writing.token_set import TokenSet, at_each
from captoken.issuance._narrowing import narrow_root, narrow_set
from captoken.issuance.policy import Policy, PolicyGrant
from captoken.issuance.registry import Exchange
from captoken.keys.keyring import Keyring

# What a request may narrow. Of server and task the desk decides.
_ASKED = LinkCaveats.__annotations__.keys() - {"audience", "task"}

# The type of a token that is held, and not presented to one server.
ROOT = "urn:captoken:token-type:root"

# The type of a set of them: one for each of several servers.
TOKEN_SET = "urn:captoken:token-type:token-set"  # noqa: S105, the name of a type

# What says in a request for a set which of its servers some keywords are for.
_PLACES = frozenset(("only", "servers"))

# What one application gets for one person in one task is one tree: see `_of_tree`.
_TREE = primitives.label("login tree")
_ID_SIZE = 16

# Of what some library says no token can be made of: its words are for no client.
_NOT_MADE = "no token can be made of this"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What one request wants, as it was read from a form or a file. Nothing of it is believed."""

    grant: str | None = None

    # The servers, as the client calls them. None are named where the grant says which.
    resources: tuple[str, ...] = ()
    agent: str | None = None

    # A label for a new task, or the whole id of one to join.
    task: str | None = None

    # The keywords of `attenuate`, of a token or of a set. `clamp`: what is more than the grant is
    # left out, not refused.
    keywords: Mapping[str, Any] = {}
    clamp: bool = False

    # The Ed25519 public key that the caller has proven to have, as base64url.
    key: str | None = None

    # Is the held token wanted, or a text to present to one server?
    held: bool = False

    # Is a set wanted? It is held, too.
    as_set: bool = False

    # Whoever authenticated as a client, if that is somebody else than subject and actor.
    client: str | None = None

    # Did a person log in here and allow it? Then the client is the application that she did it
    # with, and the keywords are what she ticked.
    by_login: bool = False


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a root is made of."""

    grant: PolicyGrant
    entry: Exchange
    ask: Ask

    # Who vouches for the subject, the agent's name, and the servers.
    issuer: str
    agent: str
    audiences: tuple[str, ...]


class Minter(NamedTuple):
    """Mints by one policy, under its root keys."""

    policy: Policy
    source: Callable[[], Keyring]

    # The public key of the discharger that says which tasks are alive.
    lease: str | None
    random: Callable[[int], bytes]

    def mint(self, order: Order) -> Token | TokenSet:
        """Link 0 is the grant, link 1 the request. Raises IssuanceError for what asks for more."""
        grant, entry, ask = order.grant, order.entry, order.ask
        keyring = self._keys_for(order.audiences, ask)
        random = self.random
        if ask.by_login and not grant.counts:
            random = _of_tree(self._tree(order), random)
        # One time for the token and for what is written of it.
        minting = Issuer(keyring, clock=lambda: entry.now, random=random)
        said = {
            "idp:iss": order.issuer,
            "policy:grant": grant.name,
            "policy:hash": self.policy.digest,
        }
        # So no other link 1 passes for a person's own words.
        if ask.by_login:
            said["login:flow"] = "consent"
        who: dict[str, Any] = {
            "subject": entry.subject,
            "agent": order.agent,
            "task": entry.task,
            "key": ask.key,
            "ext": said,
        }
        try:
            if ask.as_set:
                those = {audience: grant.servers[audience] for audience in order.audiences}
                made = minting.mint_set(servers=those, **who, **grant.give)
                made = at_each(made, lambda _, token: self._owing(token, grant, entry.task))
                return _set_narrowed(made, ask)
            # What shares keys has no servers of its own: all of the audiences get the same.
            own = grant.servers.get(order.audiences[0], {})
            root = minting.mint(audience=order.audiences, **who, **grant.give, **own)
            # A person's own words are link 1, whatever is owed beside them.
            if ask.by_login:
                return self._owing(_narrowed(root, ask), grant, entry.task)
            root = self._owing(root, grant, entry.task)
            return _narrowed(root, ask)
        except WideningError as error:
            raise IssuanceError(str(error), "invalid_authorization_details") from None
        except (CaptokenError, TypeError, ValueError) as error:
            if isinstance(error, IssuanceError):
                raise
            raise IssuanceError(own_words(error, _NOT_MADE), "invalid_request") from None

    def _tree(self, order: Order) -> bytes:
        """The id of the tokens of a task, for one server and by one grant (spec 44.25)."""
        those = (self.policy.origin, order.entry.task, order.grant.name, *order.audiences)
        return primitives.sha256(_TREE + msgspec.json.encode(those))[:_ID_SIZE]

    def keyring(self) -> Keyring:
        """The root keys of the moment. Raises StoreError if they cannot be had: nothing is minted.

        What a callable of the embedder raises may tell where the keys lie. It is for the log.
        """
        try:
            return self.source()
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(f"the root keys cannot be loaded: {error}") from error

    def _keys_for(self, audiences: tuple[str, ...], ask: Ask) -> Keyring:
        """Those of one server; or all, for a set or where servers share them. Raises StoreError."""
        keyring = self.keyring()
        try:
            of_each = [keyring.for_audience(audience) for audience in audiences]
        except ValueError as error:  # it is one server's alone
            raise StoreError(f"the root keys are not for {', '.join(audiences)}: {error}") from None
        return of_each[0] if len(of_each) == 1 and not ask.as_set else keyring

    def _owing(self, root: Token, grant: PolicyGrant, task: str) -> Token:
        """With what somebody else has to say first: that the task is alive, and an approval."""
        if grant.lease and self.lease is not None:
            location = f"{self.policy.origin}/.well-known/captoken/3p"
            root = root.require(self.lease, need={"alive": task}, location=location)
        if grant.approval is not None:
            discharger = self.policy.dischargers[grant.approval.discharger]
            need = {**grant.approval.need, "task": task}
            root = root.require(discharger.public, need=need, location=discharger.url)
        return root


def _of_tree(tree: bytes, random: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Random bytes, of which the first are the id of a token.

    A session of MCP is of the tree that opened it (40.12), and an application refreshes its token
    within a session.
    """
    first = iter((tree,))
    return lambda size: next(first, None) or random(size)


def _narrowed(root: Token, ask: Ask) -> Token:
    """With the request's own keywords, in the caller's own words."""
    if not ask.keywords:
        return root
    _check_asked(ask.keywords)
    with _of_details():
        made = narrow_root(root, ask.clamp, **ask.keywords)
    return _checked(made)


def _set_narrowed(held: TokenSet, ask: Ask) -> TokenSet:
    """The same of a set. `only` and `servers` say which of its servers keywords are for."""
    if not ask.keywords:
        return held
    only = _only(ask.keywords.get("only"))
    servers = _servers(ask.keywords.get("servers"))
    keywords = {word: ask.keywords[word] for word in ask.keywords.keys() - _PLACES}
    for those in (keywords, *only.values()):
        _check_asked(those)
    # Else it would read as if these alone were to be in the set.
    if servers is not None and not keywords:
        raise IssuanceError(
            "servers needs keywords beside it, and there are none",
            "invalid_authorization_details",
        )
    with _of_details():
        made = narrow_set(held, ask.clamp, only, servers, **keywords)
    return at_each(made, lambda _, token: _checked(token))


@contextmanager
def _of_details() -> Generator[None]:
    """Around what the request's keywords come to: an error of theirs is one of the details.

    A WideningError goes through: whoever mints makes the same of it.
    """
    try:
        yield
    except WideningError:
        raise
    except (CaptokenError, TypeError, ValueError) as error:
        raise IssuanceError(own_words(error, _NOT_MADE), "invalid_authorization_details") from None


def _check_asked(keywords: Mapping[str, Any]) -> None:
    """Raise IssuanceError for a keyword that no request has: server and task are the desk's."""
    refused = sorted(keywords.keys() - _ASKED)
    if refused:
        named = ", ".join(map(shown, refused))
        raise IssuanceError(
            f"{named} is not a keyword of authorization_details",
            "invalid_authorization_details",
        )


def _only(stated: Any) -> dict[str, dict[str, Any]]:
    """`only` of a request for a set: keywords, by server. Raises IssuanceError."""
    if stated is None:
        return {}
    if type(stated) is not dict or any(type(its) is not dict for its in stated.values()):
        raise IssuanceError(
            "only must have an object of keywords for each server that it names",
            "invalid_authorization_details",
        )
    return stated


def _servers(stated: Any) -> list[str] | None:
    """`servers` of a request for a set: their names. Raises IssuanceError."""
    if stated is None:
        return None
    if type(stated) is not list or any(type(one) is not str for one in stated):
        raise IssuanceError(
            "servers must be a list of the names of servers",
            "invalid_authorization_details",
        )
    return stated


def _checked(root: Token) -> Token:
    """A token that was narrowed; a task is not started for one that nobody could use."""
    ends = root.unverified.expires_at
    if ends is not None and ends <= root.unverified.root.issued_at:
        raise IssuanceError("the token would have expired already", "invalid_authorization_details")
    _check_begins(root)
    return root


def ended(root: Token, deadline: int) -> Token:
    """A token that ends with its task at the latest. Raises IssuanceError."""
    ends = root.unverified.expires_at
    if ends is None or ends > deadline:
        root = root.attenuate(expires_at=deadline)
        _check_begins(root)
    return root


def _check_begins(root: Token) -> None:
    """Raise IssuanceError for a token that would end before it begins: it permits nothing, ever."""
    begins = root.unverified.capability.not_before
    ends = root.unverified.expires_at
    if begins is not None and ends is not None and begins >= ends:
        raise IssuanceError(
            "the token would expire before it becomes valid",
            "invalid_authorization_details",
        )


# Where a caveat's key is not the keyword that writers have for it.
_KEYWORDS = {"exp": "expires_at", "nbf": "not_before", "aud": "audience"}


def granted_keywords(root: Token) -> dict[str, Any]:
    """What a token is good for, in the keywords of a request."""
    said = root.unverified.capability.json()
    return {_KEYWORDS.get(key, key): value for key, value in said.items()}


def tokens_of(root: Token | TokenSet) -> tuple[Token, ...]:
    """The tokens of a set, or the one that it is."""
    return (root,) if isinstance(root, Token) else tuple(root.secret_tokens.values())

"""One task at several servers, none of which can mint for another (spec, "Sets of tokens").

If each server has its own keys, each needs its own root token. The holder of the task holds one
set, and narrows, hands over and presents it like a token. A set is never sent to a server:
`present` makes the text for one server, and guards do not accept the text of a set.

The rules of this file:

- Each server counts by itself in a ledger. So `uses` and `budget` must go to one named server; a
  set refuses them for all servers.
- A keyword about tables or tools goes to the servers that allow tables or tools. If it would leave
  a server nothing, the error names that server.
- A hand-over adds a link to every token, and all these links have the same nonce.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import time
from typing import Any, TypeAlias, Unpack

from msgspec import structs

from captoken._format import names, primitives
from captoken._format.clocks import Clock
from captoken._format.entropy import random_bytes
from captoken._format.errors import CaptokenError, TokenFormatError, WideningError
from captoken._format.sealed import SealedValue, no_arguments_in_traceback
from captoken._format.spelling import named_all, shown
from captoken._format.text import PREFIX, SET_PREFIX
from captoken._language.capability import Capability
from captoken._language.caveats import BUILT_IN, COUNTED, V1, Vocabulary
from captoken._writing.compose import WriterContext
from captoken._writing.keywords import LinkCaveats
from captoken._writing.token import Token
from captoken.proof import Signer

MOST_SERVERS = 32
_BETWEEN = "~"  # separates two tokens; the text of a token never contains it
# The longest text of a set, in characters. 32 tokens of the longest kind would be longer.
_LONGEST = 262_144

_ELSEWHERE = "servers=[...] or only={...} says where keywords go"

_DOMAINS = {kind.key: kind.domain for kind in BUILT_IN if kind.domain != "all"}

# The keywords for single servers, in addition to those for all servers.
OnlyAt: TypeAlias = Mapping[str, Mapping[str, Any]]


class TokenSet(SealedValue, frozen=True, eq=False):
    """The tokens of one task, one for each of several servers. Immutable, unverified and secret.

        both = issuer.mint_set(subject="user:jane", agent="orchestrator", task="q3",
                               servers={"sales-db": {"tables": ["*"], "operations": ["select"]},
                                        "mail": {"tools": {"send": {}}}})
        child = both.delegate(to="clerk", tables=["sales"])
        child.present(audience="sales-db")     # for this server, and for no other

    Nobody has verified what a set says about itself. Never send a set to a server: send what
    `present` returns.
    """

    _instead = "hand on set.serialize()"

    secret_tokens: Mapping[str, Token]  # by server, in the order of their names

    @classmethod
    def of(cls, *tokens: Token) -> TokenSet:
        """The set of these tokens, each of which is for exactly one server.

        Raises TypeError for anything that is not a token. Raises ValueError for a token that is not
        for exactly one server, for two tokens for one server, and for none or more than 32. Also
        raises ValueError unless all tokens have the same subject, agent, task and holder, and are
        bound to the same key or all to none.
        """
        by_server: dict[str, Token] = {}
        for token in tokens:
            if not isinstance(token, Token):
                raise TypeError(f"a set is made of tokens, not of {type(token).__name__}")
            server = token.unverified.root.audience
            if server is None:
                raise ValueError("each token of a set must be minted for one server")
            if server in by_server:
                raise ValueError(f"two tokens of the set are for {shown(server)}")
            by_server[server] = token
        if not 1 <= len(by_server) <= MOST_SERVERS:
            raise ValueError(f"a set needs 1 to {MOST_SERVERS} tokens, not {len(by_server)}")
        if len({_who(token) for token in tokens}) > 1:
            raise ValueError(
                "the tokens of a set must have the same subject, agent, task, holder and key"
            )
        return cls(dict(sorted(by_server.items())))

    @classmethod
    @no_arguments_in_traceback
    def parse(
        cls,
        text: str,
        *,
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
        random: Callable[[int], bytes] = random_bytes,
    ) -> TokenSet:
        """Read a set from its text: checks the form of each token, as `Token.parse` does.

        It does not say whether the tokens are genuine. Raises TokenFormatError and nothing else.
        """
        if not isinstance(text, str):
            raise TokenFormatError(f"a set of tokens must be text, not {type(text).__name__}")
        if len(text) > _LONGEST:
            raise TokenFormatError(
                f"longer than {_LONGEST} characters, the most a set can have",
                step=1,
            )
        if not text.startswith(SET_PREFIX):
            raise TokenFormatError(f"a set of tokens starts with {SET_PREFIX}")
        parts = text[len(SET_PREFIX) :].split(_BETWEEN, MOST_SERVERS)
        made = [
            Token.parse(PREFIX + part, vocabulary=vocabulary, clock=clock, random=random)
            for part in parts
        ]
        try:
            found = cls.of(*made)
        except ValueError as error:
            raise TokenFormatError(str(error)) from None
        if [token.unverified.root.audience for token in made] != list(found.servers):
            raise TokenFormatError("the tokens of a set must be in the order of their servers")
        return found

    def serialize(self) -> str:
        """Return the text, for a sub-agent that should hold the set. It is as secret as its tokens.
        """
        texts = [token.serialize().removeprefix(PREFIX) for token in self.secret_tokens.values()]
        return SET_PREFIX + _BETWEEN.join(texts)

    @property
    def servers(self) -> tuple[str, ...]:
        """The names of the servers that it has a token for, in order."""
        return tuple(self.secret_tokens)

    @property
    def expires_at(self) -> int | None:
        """The earliest expiry of its tokens, as they state it; None if none expires."""
        ends = [token.unverified.expires_at for token in self.secret_tokens.values()]
        return min((end for end in ends if end is not None), default=None)

    def token(self, audience: str) -> Token:
        """The token for that server. Raises ValueError if there is none."""
        found = self.secret_tokens.get(audience) if isinstance(audience, str) else None
        if found is None:
            raise ValueError(
                f"the set has no token for {shown(str(audience))}: it has tokens for "
                f"{named_all(self.servers)}"
            )
        return found

    def capability(self, audience: str) -> Capability:
        """What the token for that server can do, as it states it. Raises ValueError without one."""
        return self.token(audience).unverified.capability

    def only(self, *servers: str) -> TokenSet:
        """The set with the tokens for these servers only, to hand over fewer. Raises ValueError."""
        return TokenSet.of(*map(self.token, servers))

    # --- narrowing ------------------------------------------------------------------------------

    def attenuate(
        self,
        *,
        key: bytes | str | None = None,
        signer: Signer | None = None,
        keep: str | Iterable[str] = (),
        clamp: bool = False,
        only: OnlyAt | None = None,
        servers: Iterable[str] | None = None,
        **caveats: Unpack[LinkCaveats],
    ) -> TokenSet:
        """Return a new set that allows less. This one is unchanged. Needs no key and no server.

        `servers` names the servers that the keywords apply to. `only` gives keywords for single
        servers. Without them, a keyword about tables goes to the servers that allow tables, a
        keyword about tools to those that allow tools, and all others go to every server.

        Raises what `Token.attenuate` raises, with the server's name in front. Raises ValueError for
        `uses` and `budget` without one named server, and for a keyword that applies to no server.
        """
        wanted = placed(self, caveats, only, servers)
        if key is None and not any(wanted.values()):
            raise ValueError("nothing is restricted: name tables, tools or another caveat")
        more = _more(wanted, keep, clamp)
        return at_each(
            self,
            lambda server, token: (
                token.attenuate(key=key, signer=signer, **wanted[server], **more[server])
                if key is not None or wanted[server]
                else token
            ),
        )

    def delegate(
        self,
        *,
        to: str,
        key: bytes | str | None = None,
        signer: Signer | None = None,
        keep: str | Iterable[str] = (),
        clamp: bool = False,
        only: OnlyAt | None = None,
        servers: Iterable[str] | None = None,
        **caveats: Unpack[LinkCaveats],
    ) -> TokenSet:
        """Return a new set for the agent `to`, narrowed as by `attenuate`.

        Every token gets the link, with the same nonce and the same time. So an operator can revoke
        the hand-over at every server with one entry. If the set is bound to a key, `signer` signs
        each link. Raises what `Token.delegate` and `attenuate` raise.
        """
        names.name(to, "to")
        wanted = placed(self, caveats, only, servers)
        first = next(iter(self.secret_tokens.values()))
        context = _once(first.context)
        more = _more(wanted, keep, clamp)
        return at_each(
            self,
            lambda server, token: (
                token.in_context(context)
                .delegate(to=to, key=key, signer=signer, **wanted[server], **more[server])
                .in_context(token.context)
            ),
        )

    def present(self, *, audience: str, **terms: Any) -> str:
        """The text for one server: what that server's token presents.

        Nothing of the other tokens is in it. Takes the arguments of `Token.present` and raises what
        it raises. Raises ValueError for a server that the set has no token for.
        """
        return self.token(audience).present(audience=audience, **terms)

    # --- as a value -----------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """True if the texts are equal, compared in constant time, because they are secrets."""
        if not isinstance(other, TokenSet):
            return NotImplemented
        return primitives.equal(self.serialize().encode(), other.serialize().encode())

    def __hash__(self) -> int:
        """A hash without secrets."""
        return hash(tuple(self.secret_tokens.values()))

    def __repr__(self) -> str:
        """The servers and the holder. It contains no part of a text."""
        holder = next(iter(self.secret_tokens.values())).unverified.holder
        return f"<TokenSet for {', '.join(self.servers)}, held by {holder}, unverified>"

    __str__ = __repr__


def at_each(held: TokenSet, change: Callable[[str, Token], Token]) -> TokenSet:
    """The set with `change` applied to each token. An error names the server."""
    made: dict[str, Token] = {}
    for server, token in held.secret_tokens.items():
        try:
            made[server] = change(server, token)
        except (CaptokenError, TypeError, ValueError) as error:
            said = f"at {server}: {error}"
            if isinstance(error, WideningError):
                said += f"; {_ELSEWHERE}"
                error.hint += f", at {server}; {_ELSEWHERE}"
            error.args = (said, *error.args[1:])
            raise
    return TokenSet(made)


def placed(
    held: TokenSet,
    caveats: Mapping[str, Any],
    only: OnlyAt | None,
    servers: Iterable[str] | None,
) -> dict[str, dict[str, Any]]:
    """The keywords for each server, by its name. Raises ValueError."""
    if "audience" in caveats:
        raise ValueError(
            "each token of a set stays with its server: use set.only(...) to leave some out"
        )
    chosen = None if servers is None else [servers] if isinstance(servers, str) else [*servers]
    by_name = {server: {**its} for server, its in ({} if only is None else only).items()}
    for server in (*by_name, *(chosen or ())):
        held.token(server)  # raises for a server without a token

    several = len(held.servers) if chosen is None else len(chosen)
    counted = sorted(COUNTED & caveats.keys())
    if counted and several > 1:
        raise ValueError(
            f"{' and '.join(counted)} would count at each server separately: name one server, by "
            "servers=[...] or only={...}"
        )

    wanted: dict[str, dict[str, Any]] = {server: {} for server in held.servers}
    for server in held.servers if chosen is None else chosen:
        wanted[server] |= caveats if chosen is not None else _fitting(held, server, caveats)
    _check_placed(held, caveats, wanted)
    for server, its in by_name.items():
        twice = sorted(wanted[server].keys() & its.keys())
        if twice:
            raise ValueError(f"{', '.join(twice)} is given twice for {server}")
        wanted[server] |= its
    return wanted


def _fitting(held: TokenSet, server: str, caveats: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the common keywords that apply to this server's token."""
    closed = _closed(held.capability(server))
    return {word: value for word, value in caveats.items() if _DOMAINS.get(word) not in closed}


def _check_placed(
    held: TokenSet, caveats: Mapping[str, Any], wanted: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise ValueError for a keyword that applies to no server, and so would be ignored."""
    for word in caveats:
        if not any(word in its for its in wanted.values()):
            what = "tables" if _DOMAINS.get(word) == "data" else "tools"
            raise ValueError(
                f"{word}: no server of the set has {what}; the set is for {named_all(held.servers)}"
            )


@no_arguments_in_traceback
def parse_held(text: str, *, clock: Clock = time) -> Token | TokenSet:
    """The token or the set with this text; its first letters tell which. Raises TokenFormatError.
    """
    is_set = isinstance(text, str) and text.startswith(SET_PREFIX)
    return (TokenSet if is_set else Token).parse(text, clock=clock)


def _who(token: Token) -> tuple[str | None, ...]:
    root, said = token.unverified.root, token.unverified
    return root.subject, root.agent, said.task, said.holder, said.key


def _closed(capability: Capability) -> set[str]:
    """The domains, data or tool, in which this capability permits nothing."""
    held = capability.held
    return {domain for domain in ("data", "tool") if domain in held and held[domain].is_nothing}


def _more(
    wanted: Mapping[str, Mapping[str, Any]], keep: str | Iterable[str], clamp: bool
) -> dict[str, dict[str, Any]]:
    """`keep` and `clamp` for each server. A domain is kept only where the link names the other one.
    """
    naming = {server for server, its in wanted.items() if not its.keys().isdisjoint(_DOMAINS)}
    kept = [keep] if isinstance(keep, str) else list(keep)
    return {
        server: {"clamp": clamp, "keep": kept if server in naming or not naming else ()}
        for server in wanted
    }


def _once(context: WriterContext) -> WriterContext:
    """The same context with a fixed time, and one nonce for all links that it writes."""
    now = context.now()
    nonce = context.random(64)
    return structs.replace(context, clock=lambda: now, random=lambda size: nonce[:size])

"""The issuer: the only place that writes root records and the first link (spec, "Minting").

A mint must name what it permits. A right that is left out by mistake is an error, and never a token
that can do everything. No other module of this package gets a keyring. The issuer keeps no key: it
asks the keyring at each mint, so that key rotation reaches a running issuer.

It does not check whether the subject may do what is minted. That is the caller's decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from time import time
from typing import Any, Unpack

from msgspec import structs

from captoken._format import chain, names
from captoken._format.clocks import Clock, read_clock
from captoken._format.encoding import b64encode
from captoken._format.entropy import random_bytes
from captoken._format.names import frozen_copy
from captoken._format.parts import Packet
from captoken._format.root import RootRecord
from captoken._format.sealed import SealedValue
from captoken._format.text import check_limits
from captoken._language.caveats import BUILT_IN, RESERVED, V1, Vocabulary, is_own
from captoken._writing.compose import Terms, WriterContext, compose, spell
from captoken._writing.holding import everything
from captoken._writing.keywords import UNSET, MintCaveats, check_known
from captoken._writing.token import Token
from captoken._writing.token_set import MOST_SERVERS, TokenSet
from captoken.keys.keyring import Keyring, keyring_source

DEFAULT_LIFE = 900  # seconds
TOKEN_ID_BYTES = 16
_OF_TABLES = frozenset(kind.key for kind in BUILT_IN if kind.domain == "data")
_OF_TOOLS = frozenset(kind.key for kind in BUILT_IN if kind.domain == "tool")


class _OfKeyring(SealedValue, frozen=True, eq=False):
    """The base of what is made from a keyring, which is the first and only positional argument."""

    keyring: Keyring | Callable[[], Keyring]  # the only secret here; asked at each mint


class Issuer(_OfKeyring, frozen=True, eq=False, kw_only=True):
    """Mints tokens with the current key of a keyring.

    With a keyring for one audience, it mints tokens for that audience only. `keyring` may be a
    callable that returns one, so that rotation reaches a running issuer. `clock` returns seconds
    since the epoch. `random` returns the given number of random bytes, and is for tests only.

    Threads may share it. It asks no store and keeps no token. Raises TypeError if `keyring` is not
    a keyring.

        issuer = Issuer(keyring)
        token = issuer.mint(subject="user:jane", agent="orchestrator", task="task-123",
                            tables=["sales"], operations=["select"])
    """

    _instead = "make one from the keyring"

    vocabulary: Vocabulary = V1
    clock: Clock = time
    random: Callable[[int], bytes] = random_bytes

    def __post_init__(self) -> None:
        """Check the keyring now, so that a mistake shows before the first mint."""
        keyring_source(self.keyring)  # raises TypeError now, and not when a token is minted

    def mint(
        self,
        *,
        subject: str,
        agent: str,
        task: str,
        key: bytes | str | None = None,
        ext: Mapping[str, str | int] | None = None,
        unrestricted: bool = False,
        **caveats: Unpack[MintCaveats],
    ) -> Token:
        """Mint a root token: `agent` works on `task` for `subject`, within the caveats.

        Without an expiry the token is valid for 15 minutes. With `expires_at=None` it never
        expires. Say what it allows: `tools`, or `tables` with `operations`, or `allow`. To allow
        everything, say `unrestricted=True`. `ext` holds your own facts under namespaced names,
        which no holder can change. `key` binds the token to the Ed25519 key of `agent`. The caveats
        are those of `attenuate` (spec, "Minting").

        It does not check who `subject` is: you must do that. Servers may base decisions only on the
        names that you write here (9.6). It costs two HMACs and no store access, and reads the clock
        once.

        Raises TypeError or ValueError for an invalid name or caveat, LimitError above a limit, and
        whatever the clock or the keyring callable raises.
        """
        keyring, root = self._begin(subject, agent, task, ext)
        return self._minted(keyring, root, key, caveats, unrestricted=unrestricted)

    def mint_set(
        self,
        *,
        subject: str,
        agent: str,
        task: str,
        servers: Mapping[str, Mapping[str, Any]],
        control: str | None = None,
        key: bytes | str | None = None,
        ext: Mapping[str, str | int] | None = None,
        **caveats: Unpack[MintCaveats],
    ) -> TokenSet:
        """Mint a root token for each server, with that server's own keys, for one task.

        `servers` maps each server's name to its caveats. Caveats outside `servers` apply to all.
        All tokens have the same id and the same time. `control` names the control plane, if holders
        should be able to revoke what they handed over. The token for the control plane permits
        nothing else.

            issuer.mint_set(subject="user:jane", agent="orchestrator", task="q3", expires_in=900,
                            servers={"sales-db": {"tables": ["sales"], "operations": ["select"]},
                                     "mail": {"tools": {"send": {}}}})

        Raises what `mint` raises. Raises ValueError for `uses` and `budget` outside `servers`,
        because each server would count them by itself. Also raises ValueError for a caveat that is
        given twice, for a keyring for one audience, and for no server or more than 32.
        """
        counted = sorted(RESERVED & caveats.keys())
        if counted:
            raise ValueError(f"{', '.join(counted)}: put it into servers, for one of them")
        wanted = {server: {**its} for server, its in servers.items()}
        if not wanted:
            raise ValueError(f"a set needs 1 to {MOST_SERVERS} tokens, not 0")
        if "audience" in caveats or any("audience" in its for its in wanted.values()):
            raise ValueError("leave audience out: servers names them")
        if control is not None and control in wanted:
            raise ValueError(
                f"{control} is the control plane, and must not be among the servers too"
            )

        keyring, root = self._begin(subject, agent, task, ext)
        made: list[Token] = []
        for server, its in wanted.items():
            twice = sorted(its.keys() & caveats.keys())
            if twice:
                raise ValueError(
                    f"{', '.join(twice)} is given for all servers, and again for {server}"
                )
            own = keyring.for_audience(server)
            its_root = structs.replace(root, audience=server)
            made.append(self._minted(own, its_root, key, {**caveats, **its}))
        if control is not None:
            # What is recalled with it stands until the last of them has ended (37.12).
            ends = [token.unverified.expires_at for token in made]
            last = None if None in ends else max(end for end in ends if end is not None)
            others = _OF_TABLES | _OF_TOOLS | {"expires_in"}
            given = {word: value for word, value in caveats.items() if word not in others}
            given |= {"tables": [], "operations": [], "tools": {}, "expires_at": last}
            its_root = structs.replace(root, audience=control)
            made.append(self._minted(keyring.for_audience(control), its_root, key, given))
        return TokenSet.of(*made)

    def _begin(
        self,
        subject: str,
        agent: str,
        task: str,
        ext: Mapping[str, str | int] | None,
    ) -> tuple[Keyring, RootRecord]:
        """The keyring as it is now, and a new root record under its current key."""
        names.name(subject, "subject")
        names.name(agent, "agent")
        names.task(task)
        keyring = keyring_source(self.keyring)()
        root = RootRecord(
            subject=subject,
            agent=agent,
            task=task,
            issued_at=read_clock(self.clock),
            token_id=b64encode(self.random(TOKEN_ID_BYTES)),
            key_id=keyring.current,
            audience=keyring.audience,
            ext={} if ext is None else frozen_copy(ext, "ext"),
            version=1,
        )
        return keyring, root

    def _minted(
        self,
        keyring: Keyring,
        root: RootRecord,
        key: bytes | str | None,
        caveats: Mapping[str, Any],
        *,
        unrestricted: bool = False,
    ) -> Token:
        """The token of that root record, with those caveats in its first link."""
        given = {keyword: value for keyword, value in caveats.items() if value is not UNSET}
        check_known(given, self.vocabulary)
        _check_domains(given, unrestricted, self.vocabulary)

        # The clock is looked at once: what expires in a minute does so a minute after `iat`.
        at_now = WriterContext(self.vocabulary, lambda: root.issued_at, self.random)
        stated = compose(Terms(_with_an_end(given), key=key), at_now, everything(root.agent))
        audience = keyring.audience
        if audience is not None and audience not in stated.get("aud", [audience]):
            raise ValueError(
                f"this keyring mints for {audience} only, and audience names another server"
            )
        if "consent" in stated and audience is None and "aud" not in stated:
            raise ValueError(
                "a consent is for one server: write mint(..., audience=…), with the name "
                "of the server"
            )
        body = spell(stated or {"nbf": root.issued_at})  # link 0 is always written
        packet = _signed(keyring, root.encode(), body)
        return Token.of(packet, root, WriterContext(self.vocabulary, self.clock, self.random))

    def __repr__(self) -> str:
        """A fixed text: it contains no key and no key id."""
        return "<Issuer>"


def _check_domains(
    given: Mapping[str, Any],
    unrestricted: bool,
    vocabulary: Vocabulary,
) -> None:
    """Raise unless a mint names what it permits, or says `unrestricted=True` (22.4)."""
    if type(unrestricted) is not bool:
        raise TypeError(f"unrestricted must be a bool, not {type(unrestricted).__name__}")

    of_tables = _OF_TABLES & given.keys()
    of_tools = _OF_TOOLS & given.keys()

    # Said aloud, and then nothing beside it: one of the two would be a mistake.
    if unrestricted:
        if of_tables or of_tools:
            named = ", ".join(sorted(of_tables | of_tools))
            raise ValueError(
                f"unrestricted=True goes with no restriction, and {named} is one: leave out one of "
                "the two"
            )
        return

    if not of_tables and not of_tools:
        raise ValueError(
            "name the tables with operations, or allow, or the tools; or write unrestricted=True"
        )
    # A caveat of an embedder's that speaks of a domain opens it: so the domain itself is named too.
    # It would else be alone in its domain, and let through whatever it does not ask about.
    spoken = _domains_of_own(given, vocabulary)
    if ("data" in spoken and not of_tables) or ("tool" in spoken and not of_tools):
        raise ValueError(
            "name the tables with operations, or the tools, that your own caveat is about"
        )

    # Tables without operations would permit every operation, and the other way round.
    says_pairs = "allow" in of_tables or {"tables", "operations"} <= of_tables
    if of_tables and not says_pairs:
        alone = " and ".join(sorted(of_tables))
        raise ValueError(f"{alone} alone is not enough: name tables with operations, or allow")


def _domains_of_own(given: Mapping[str, Any], vocabulary: Vocabulary) -> Set[str]:
    """The domains that the embedder's caveats are about: data, tool, or all.

    Values are not checked. A caveat about all domains opens none.
    """
    return {vocabulary.kinds[keyword].domain for keyword in given if is_own(keyword)}


def _with_an_end(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords with the default lifetime, unless they state an expiry themselves (22.3).

    `expires_at=None` means no expiry. None has a meaning only here, and must be written out, so
    that nobody mints an eternal token by leaving out a keyword. Raises ValueError if both
    `expires_in` and `expires_at` are given.
    """
    made = dict(given)
    if "expires_at" in made and made["expires_at"] is None:
        if "expires_in" in made:
            raise ValueError("pass expires_in or expires_at, not both")
        del made["expires_at"]
    elif "expires_at" not in made and "expires_in" not in made:
        made["expires_in"] = DEFAULT_LIFE
    return made


def _signed(
    keyring: Keyring,
    identifier: bytes,
    body: bytes,
) -> Packet:
    """The packet of a root token. Raises LimitError before it makes a signature.

    The tag of the identifier is secret: with it, anybody could write any first link.
    """
    link = (body, b"")
    check_limits(Packet(identifier, (link,), bytes(32)))
    tag = chain.mint_tag(keyring.minting, identifier)
    return Packet(identifier, (link,), chain.extend(tag, link))

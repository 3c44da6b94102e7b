"""The issuer: the one place that writes root records and link 0 (spec, "Minting")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import time
from typing import Any, Unpack

from captoken._format import chain, names
from captoken._format import packet as wire
from captoken._format.clocks import Clock, read_clock
from captoken._format.encoding import b64encode
from captoken._format.entropy import random_bytes
from captoken._format.public_keys import signing_key
from captoken._format.root import RootRecord
from captoken._format.sealed import Sealed
from captoken._format.text import check_limits
from captoken._language.caveats import V1, Vocabulary
from captoken._language.lineage import Lineage
from captoken._writing import keywords as writing
from captoken._writing import widening
from captoken._writing.keywords import UNSET, MintCaveats
from captoken._writing.token import Token
from captoken.keys.keyring import Keyring

DEFAULT_LIFE = 900  # seconds
_DOMAINS = frozenset((*writing.DATA, "tools"))


class Issuer(Sealed):
    """Mints tokens under the keyring's current key. On a keyring for one audience, tokens for that audience alone.

    `keyring` may be a callable that returns one, so that rotation reaches a running issuer. `clock` gives seconds since
    the epoch; `random` gives that many random bytes, and is for tests alone.
    """

    __slots__ = ("_clock", "_keyring", "_random", "_vocabulary")
    _instead = "make one from the keyring"

    _keyring: Callable[[], Keyring]
    _vocabulary: Vocabulary
    _clock: Clock
    _random: Callable[[int], bytes]

    def __init__(
        self,
        keyring: Keyring | Callable[[], Keyring],
        *,
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        put = object.__setattr__
        put(self, "_keyring", keyring_source(keyring))
        put(self, "_vocabulary", vocabulary)
        put(self, "_clock", clock)
        put(self, "_random", random)

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
        """A root token: `subject` started `task`, in which `agent` may do what the caveats leave.

        Without an expiry it lives for 15 minutes; `expires_at=None` says aloud that it never expires. It names a domain,
        in the data domain tables with operations or `allow`, or else says `unrestricted=True`. `ext` holds facts of the
        embedding project under namespaced names, which no holder can change. `key` binds the token to
        the Ed25519 key of `agent`. The caveats are those of `attenuate`.
        Raises TypeError or ValueError for what is no name or caveat, LimitError past a limit.
        """
        given: dict[str, Any] = {key: value for key, value in caveats.items() if value is not UNSET}
        for keyword in given:
            writing.known(keyword, self._vocabulary)
        named = _DOMAINS & given.keys()
        if type(unrestricted) is not bool:
            raise TypeError(f"unrestricted must be a bool, not {type(unrestricted).__name__}")
        if unrestricted and named:
            raise ValueError(f"unrestricted, and yet restricted by {', '.join(sorted(named))}")
        if not unrestricted and not named:
            raise ValueError(
                "name the tables with operations, allow, or the tools; or say unrestricted=True"
            )
        # A caveat of an embedder's that speaks of a domain opens it, so the domain itself is named too.
        spoken = {
            kind.domain
            for key, kind in self._vocabulary.kinds.items()
            if ":" in key and key in given
        }
        if not unrestricted and (
            ("data" in spoken and not named - {"tools"})
            or ("tool" in spoken and "tools" not in named)
        ):
            raise ValueError(
                "name the tables with operations, or the tools, that your own caveat speaks of"
            )
        data = named - {"tools"}
        if data and "allow" not in data and not {"tables", "operations"} <= data:
            raise ValueError(
                f"{' and '.join(sorted(data))} alone will not do: name tables with operations, or allow"
            )
        forever = "expires_at" in given and given["expires_at"] is None
        if forever:
            del given["expires_at"]
        elif not given.keys() & {"expires_in", "expires_at"}:
            given["expires_in"] = DEFAULT_LIFE
        if forever and "expires_in" in given:
            raise ValueError("expires_in and expires_at say the same thing twice")

        names.name(subject, "subject")
        names.name(agent, "agent")
        names.task(task)
        keyring = self._keyring()
        now = read_clock(self._clock)
        token_id = b64encode(self._random(16))
        root = RootRecord(
            subject=subject, agent=agent, task=task, token_id=token_id, issued_at=now,
            key_id=keyring.current, audience=keyring.audience, ext=dict(ext or {}), version=1,
        )  # fmt: skip
        identifier = root.encode()
        wanted = writing.asked(given, self._vocabulary, lambda: now, None)
        if (
            "aud" in wanted
            and keyring.audience is not None
            and keyring.audience not in wanted["aud"].value
        ):
            raise ValueError(f"this keyring mints for {keyring.audience} alone")
        stated = {key: caveat.value for key, caveat in wanted.items()}
        stated.update(
            widening.positioned(Lineage((agent,)), writing.position(given), None, clamp=False)
        )
        if writing.COUNTED & stated.keys():
            stated["n"] = b64encode(self._random(8))
        if key is not None:
            stated["key"] = b64encode(signing_key(key))
        body = writing.spell(stated or {"nbf": now})  # link 0 is always written
        return Token(
            self._signed(keyring, identifier, body),
            root,
            self._vocabulary,
            self._clock,
            self._random,
        )

    def _signed(self, keyring: Keyring, identifier: bytes, body: bytes) -> wire.Packet:
        link = (body, b"")
        check_limits(
            wire.Packet(identifier, (link,), bytes(32))
        )  # before there is a signature to leak
        return wire.Packet(
            identifier, (link,), chain.extend(chain.mint_tag(keyring.minting, identifier), link)
        )

    def __repr__(self) -> str:
        return "<Issuer>"


def keyring_source(keyring: Keyring | Callable[[], Keyring]) -> Callable[[], Keyring]:
    """A callable that gives the keyring of the moment. Raises TypeError for what is neither a keyring nor callable."""
    if isinstance(keyring, Keyring):
        return lambda: keyring
    if not callable(keyring):
        raise TypeError(f"a Keyring, or a callable that returns one, not {type(keyring).__name__}")

    def ask() -> Keyring:
        answer = keyring()
        if not isinstance(answer, Keyring):
            raise TypeError(f"the callable must return a Keyring, not {type(answer).__name__}")
        return answer

    return ask

"""The verifiers of an office: one for all tokens, and one for each server with its own keys."""

from __future__ import annotations

from collections.abc import Iterable

from captoken._format.spelling import named_all, shown
from captoken._verification.telling import quietly
from captoken._verification.verifier import Verifier, VerifierOptions
from captoken.keys.keyring import Keyring


class ServerVerifiers:
    """The verifiers of the servers that were named when the office was opened, by name."""

    def __init__(self, keyring: Keyring, servers: Iterable[str], parts: VerifierOptions) -> None:
        names = [servers] if isinstance(servers, str) else servers
        self._made = {name: verifier_of(keyring.for_audience(name), name, parts) for name in names}

    def named(self, name: str) -> Verifier:
        """The verifier of that server. Raises ValueError for another name."""
        self.check([name])
        return self._made[name]

    def check(self, names: Iterable[str]) -> None:
        """Raise ValueError for a server that was not named when the office was opened."""
        for name in names:
            if name not in self._made:
                raise ValueError(
                    f"this office has no server {shown(name)}: Office.open(..., servers=[...]) "
                    f"names them; it has {named_all(self._made) or 'none'}"
                )


def verifier_of(
    keyring: Keyring,
    audience: str | Iterable[str] | None,
    parts: VerifierOptions,
) -> Verifier:
    """A verifier with those keys. `parts` are the office's stores, overlay, trail and clock."""
    with quietly():  # an office mints, too: all keys are here
        return Verifier(keyring, audience, **parts)

"""Errors that say where in the file they are, and what stands in more than one table of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from captoken._format.errors import CaptokenError, IssuanceError

_HEXADECIMAL = frozenset("0123456789abcdef")


def wrong(message: str) -> IssuanceError:
    """What is raised for a policy that does not load. Made here, raised by the caller."""
    return IssuanceError(f"the policy does not load: {message}", "policy")


class at:  # noqa: N801, reads as the word that it is
    """Around what is read: an error that it raises says where in the file it is.

    What is no error of reading goes through as it is.
    """

    def __init__(self, place: str) -> None:
        """`place` is a path in the file, as `grant.q3-risk.give`."""
        self.place = place

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: Any,
        error: BaseException | None,
        *_: Any,
    ) -> None:
        # Those that readers of this library raise for what somebody wrote.
        if isinstance(error, (ValueError, TypeError, CaptokenError)):
            raise wrong(f"{self.place}: {error}") from None


def check_digest(stated: str, place: str) -> None:
    """Raise IssuanceError for what is no SHA-256 in the one spelling that is compared."""
    if len(stated) != 64 or set(stated) - _HEXADECIMAL:
        raise wrong(f"{place}: secret_sha256 is 64 lower-case hexadecimal digits")


def check_origin(address: str, what: str) -> None:
    """Raise IssuanceError unless it is an address that nobody can listen in on.

    Plain http is for this machine alone, which is what tests run on. Nobody is asked whether there
    is such an address.
    """
    try:
        good = _is_origin(address)
    except ValueError:
        good = False

    # Spaces around it, which a parser may pass over, and what only looks like another name.
    if not good or address != address.strip() or not address.isascii():
        raise wrong(f"{what}: {address!r} is no https address")


def _is_origin(address: str) -> bool:
    """Has it a host, and no user and no fragment? Raises ValueError for what is no address."""
    parts = urlsplit(address)
    is_local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_local)
    # Raises ValueError for a port that is none.
    _ = parts.port
    return is_safe and bool(parts.hostname) and parts.username is None and not parts.fragment

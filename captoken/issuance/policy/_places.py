"""Errors that say where in the file they are, and what stands in more than one table of it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from captoken._format.errors import CaptokenError, IssuanceError
from captoken.issuance.web import is_safe

_HEXADECIMAL = frozenset("0123456789abcdef")


def wrong(message: str) -> IssuanceError:
    """What is raised for a policy that does not load. Made here, raised by the caller."""
    return IssuanceError(f"the policy does not load: {message}", "policy")


@contextmanager
def at(place: str) -> Generator[None]:
    """Around what is read: an error that it raises says where in the file it is.

    `place` is a path in the file, as `grant.q3-risk.give`. What is no error of reading goes through
    as it is.
    """
    try:
        yield
    # Those that readers of this library raise for what somebody wrote.
    except (ValueError, TypeError, CaptokenError) as error:
        raise wrong(f"{place}: {error}") from None


def check_digest(stated: str, place: str) -> None:
    """Raise IssuanceError for what is no SHA-256 in the one spelling that is compared."""
    if len(stated) != 64 or set(stated) - _HEXADECIMAL:
        raise wrong(f"{place}: secret_sha256 is 64 lower-case hexadecimal digits")


def check_origin(address: str, what: str) -> None:
    """Raise IssuanceError unless it is an address that nobody can listen in on.

    Nobody is asked whether there is such an address.
    """
    if not is_safe(address):
        raise wrong(f"{what}: {address!r} is no https address")

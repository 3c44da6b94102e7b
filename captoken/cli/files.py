"""Keys, tokens and what goes with them, from files and from standard input.

What is read here is unverified, all of it. What is none of its kind ends the command in one line,
which does not repeat it: it may be a secret that stands in the wrong place.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from captoken._format.clocks import Clock
from captoken._format.encoding import EncodingError, decode_json
from captoken._format.errors import (
    AuditError,
    DischargeError,
    KeyringError,
    OverlayError,
    StoreError,
    TokenFormatError,
)
from captoken._format.spelling import shown_file
from captoken._format.toml import read_toml
from captoken._language.discharge import Discharge, Ticket
from captoken._language.overlay import MAX_BYTES
from captoken._writing.token import Token
from captoken._writing.token_set import TokenSet, parse_held
from captoken.cli.output import tell
from captoken.keys.files import read_private
from captoken.keys.keyring import Keyring
from captoken.keys.pairwise import PairwiseKey
from captoken.keys.secret import (
    ApproverKey,
    AuditKey,
    DischargerKey,
    HolderKey,
    OperatorKey,
    SecretKey,
)

if TYPE_CHECKING:
    from captoken.audit._kept import TrailKept

Key = TypeVar("Key", bound=SecretKey)

# Bytes read of what should be a token: more than any token has.
_MOST = 1 << 16

# The kinds of keys that have a public half, by what their files say of them.
KEYS: dict[str, type[SecretKey]] = {
    kind.purpose: kind
    for kind in (HolderKey, ApproverKey, DischargerKey, PairwiseKey, OperatorKey, AuditKey)
}


# What stands at the beginning of files that are no keys.
_STARTS = (
    (b"cap1u_", "a discharge"),
    (b"cap1d_", "a discharge"),
    (b"cap1_", "a token"),
    (b"caps1_", "a set of tokens"),
    (b"SQLite format 3", "an SQLite database"),
)


class Saved(Protocol):
    """A keyring, or a key."""

    def save(self, path: str) -> None:
        """Write it to a file that only its owner reads."""
        ...


# --- what errors are about ------------------------------------------------------------------------


@contextmanager
def about(path: str) -> Generator[None]:
    """Errors that say which file they are about: some of the library know its content alone."""
    try:
        yield
    except (AuditError, KeyringError, OverlayError, StoreError) as error:
        # The same kind of error: some are tried again, or are a verdict.
        raise type(error)(_about(path, error)) from None
    except (DischargeError, TokenFormatError) as error:
        raise click.ClickException(_about(path, error)) from None


def _about(path: str, error: Exception) -> str:
    """What an error says, behind the name of the file, unless it is named in it already."""
    name = "standard input" if path == "-" else path
    said = str(error)
    is_named = said.startswith(f"{name}: ") or shown_file(name) in said
    return said if is_named else f"{name}: {said}"


def must_be_there(path: str, makes: str) -> None:
    """Raise UsageError if there is no such file, with the command that makes one."""
    if not os.path.lexists(path):
        raise click.UsageError(f"{path} is not there: `{makes}` makes one")


# --- keys -----------------------------------------------------------------------------------------


def keyring(path: str | None) -> Keyring:
    """The keyring in a file.

    Raises KeyringError for what is none, and UsageError if no file is named.
    """
    named = named_keyring(path)
    _must_hold("keyring", named, "--keyring")
    with about(named):
        return Keyring.load(named)


def key(kind: type[Key], path: str) -> Key:
    """The key of a purpose in a file.

    Raises KeyringError for what is none, and UsageError for a file that is not there.
    """
    _must_hold(kind.purpose, path, "--signer" if kind is HolderKey else "--key")
    with about(path):
        return kind.load(path)


def _must_hold(purpose: str, path: str, option: str) -> None:
    """Look whether a file may be of a purpose before it is opened as that: `keyring`, `holder`.

    So a token at the place of a key is told as that, and not that others may read it. Raises
    UsageError for what is no file, and KeyringError for one that is plainly something else, with
    what it looks like. Whatever it lets pass, whoever loads it checks.
    """
    makes = f"captoken keygen {purpose} --out FILE"
    must_be_there(path, makes)
    if os.path.isdir(path):
        raise click.UsageError(f"{path} is a folder: {option} takes the file that `{makes}` makes")

    found, is_like = _kind_of(path)
    if found not in (purpose, None):
        what = "keyring" if purpose == "keyring" else f"{purpose} key"
        holds = f"holds {is_like}, and no {what}" if is_like else f"holds no {what}"
        raise KeyringError(f"{path} {holds}: {option} takes the file that `{makes}` makes")


def _kind_of(path: str) -> tuple[str | None, str]:
    """Of which purpose a file is, and what it looks like, for people.

    The purpose is empty for what is no file of keys, and None where nobody can look: then what it
    is like is not known either.
    """
    # What is a pipe could be read but once.
    if not os.path.isfile(path):
        return None, ""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST)
    except OSError:
        return None, ""

    for start, is_like in _STARTS:
        if data.startswith(start):
            return "", is_like
    try:
        stated = decode_json(data.removesuffix(b"\n"))
    except EncodingError:
        return "", ""

    purpose = stated.get("purpose")
    is_keyring = "keys" in stated
    # It may be a secret: a traceback does not hold it.
    del stated, data
    if isinstance(purpose, str) and purpose in KEYS:
        return purpose, a_key(purpose)
    return ("keyring", "a keyring") if is_keyring else ("", "")


def a_key(purpose: str) -> str:
    """A key of a purpose, in words: `a holder key`, `an audit key`."""
    return f"{'an' if purpose[0] in 'ao' else 'a'} {purpose} key"


def named_keyring(path: str | None) -> str:
    """The name of the file of root keys. Raises UsageError if none is given."""
    if not path:
        raise click.UsageError("name the file of keys with --keyring or CAPTOKEN_KEYRING_FILE")
    return path


def any_key(path: str) -> SecretKey:
    """The key in a file, whatever its purpose.

    Raises KeyringError for a file that others may read, for a keyring, and for what is no key, and
    UsageError for what is no file.
    """
    must_be_there(path, "captoken keygen holder --out FILE")
    if os.path.isdir(path):
        raise click.UsageError(f"{path} is a folder: the file of a key is meant")
    with about(path):
        return _any_key(path)


def _any_key(path: str) -> SecretKey:
    found, is_like = _kind_of(path)
    if found in KEYS:
        return KEYS[found].load(path)
    if found is None:
        read_private(path)  # says why nobody can look

    kind = "no key that has a public half"
    if found == "keyring":
        ids = Keyring.load(path).key_ids
        kind = f"a keyring ({', '.join(ids)}), which has no public key"
    elif is_like:
        kind = f"{is_like}, and {kind}"
    raise KeyringError(f"the file holds {kind}")


def save_new(made: Saved, path: str) -> None:
    """Write keys to a file that is not there yet, and that nobody but its owner reads.

    Never overwrites. Raises UsageError for a file that is there, KeyringError and OSError.
    """
    # First an empty file of that name, which only its owner reads. To make it fails if anything is
    # there, a dangling link too, so that no key is ever lost or written where a link leads.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError:
        raise click.UsageError(f"{path} is there already, and keys are not overwritten") from None

    # What is not written whole is not left behind: an empty file would look like a key.
    try:
        made.save(path)
    except BaseException:
        os.unlink(path)
        raise


def save_text(made: str, path: str) -> None:
    """Write a text to a file, in place of what is there, that nobody but its owner reads.

    Raises OSError.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(made + "\n")


# --- standard input -------------------------------------------------------------------------------


def one_stdin(*paths: str | None) -> None:
    """Raise UsageError if two things would be read from standard input.

    The first would take it all, and the second would be empty: a body of nothing, say.
    """
    if paths.count("-") > 1:
        raise click.UsageError("two things from standard input: name a file for one of them")


def _read(path: str, what: str, most: int = _MOST) -> bytes:
    """At most so many bytes of a file, or of standard input for `-`; -1 is all of them.

    Raises OSError.
    """
    if path == "-":
        # Whoever sits there would take it for a command that hangs.
        if sys.stdin.isatty():
            tell(f"reading a {what} from standard input")
        return sys.stdin.buffer.read(most)

    with open(path, "rb") as file:
        return file.read(most)


def text(path: str, what: str) -> str:
    """A text in a file, or in standard input for `-`.

    White space around it is not part of it. Raises UsageError for none.
    """
    # What is no UTF-8 is no token either, and is refused as that by whoever parses it.
    found = _read(path, what).strip().decode("utf-8", "replace")
    if found:
        return found

    where = "on standard input" if path == "-" else f"in {path}"
    raise click.UsageError(f"there is no {what} {where}")


def data(path: str) -> bytes:
    """All bytes of a file, or of standard input for `-`.

    For the body of a request, which is no text. Nothing is taken off.
    """
    return _read(path, "body", -1)


# --- tokens, and what goes with them --------------------------------------------------------------


def token_text(path: str) -> str:
    """The text of a token in a file, or in standard input for `-`. Raises UsageError for none."""
    return text(path, "token")


def token(path: str, clock: Clock) -> Token:
    """The token in a file or in standard input, unverified.

    Raises ClickException for what is none, with the name of the file.
    """
    with about(path):
        return Token.parse(token_text(path), clock=clock)


def table(path: str) -> dict[str, Any]:
    """The tables of a TOML file, or of standard input. Raises ClickException."""
    with about(path):
        try:
            return read_toml(data(path))
        except ValueError as error:
            raise click.ClickException(_about(path, error)) from None


def held(path: str, clock: Clock) -> Token | TokenSet:
    """The token, or the set of them, in a file or in standard input: what is held. Unverified.

    Raises ClickException for what is neither, with the name of the file.
    """
    with about(path):
        return parse_held(token_text(path), clock=clock)


def ticket(path: str) -> Ticket:
    """The ticket in a file or in standard input.

    Raises ClickException for what is none, UsageError for more than one.
    """
    found = text(path, "ticket")

    # Whoever sends a discharger the token itself gives it all that the token can do.
    if found.startswith(("cap1", "caps1")):
        raise click.UsageError(
            "a discharger gets a ticket and no token: `captoken tickets` writes it"
        )

    # `captoken tickets` writes one a line.
    if "\n" in found:
        raise click.UsageError(f"{len(found.splitlines())} tickets: one at a time")
    with about(path):
        return Ticket.parse(found)


def discharge(path: str) -> Discharge:
    """The discharge in a file or in standard input, unverified.

    Raises ClickException for what is none, with the name of the file.
    """
    with about(path):
        return Discharge.parse(text(path, "discharge"))


def trail(path: str, key_file: str | None = None) -> TrailKept:
    """The trail in a file, which goes on where it ended. With a key, the end is signed."""
    from captoken.audit._kept import TrailKept  # here: few commands write one

    return TrailKept(path, key=None if key_file is None else key(AuditKey, key_file))


def snapshot(path: str) -> bytes:
    """A snapshot of the overlay in a file or in standard input, unverified; deltas behind it, too.

    Of one that is too long, a byte more than may be: so whoever reads it sees that.
    """
    return _read(path, "snapshot", 2 * MAX_BYTES + 1).strip()

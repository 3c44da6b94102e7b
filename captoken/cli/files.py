"""Keys and tokens as the command line gets them: from files and standard input."""

from __future__ import annotations

import os
import sys

import click

from captoken.attenuate import Clock
from captoken.cli.output import tell
from captoken.keyring import Keyring
from captoken.tokens import Token

_MOST = 1 << 16  # bytes read of what should be a token: more than any token has


def keyring(path: str | None) -> Keyring:
    """The keyring in a file. Raises KeyringError, or UsageError if no file is named."""
    if not path:
        raise click.UsageError("name the file of keys with --keyring or CAPTOKEN_KEYRING_FILE")
    return Keyring.load(path)


def save_new(made: Keyring, path: str) -> None:
    """Write a keyring to a file that is not there yet. Raises KeyringError or OSError, and never overwrites."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # claims the name
    except FileExistsError:
        raise click.UsageError(f"{path} is there already, and keys are not overwritten") from None
    try:
        made.save(path)
    except BaseException:
        os.unlink(path)
        raise


def token_text(path: str) -> str:
    """The text of a token in a file, or in standard input for `-`. White space around it is not part of it."""
    if path == "-":
        if sys.stdin.isatty():
            tell("reading a token from standard input")
        data = sys.stdin.buffer.read(_MOST)
    else:
        with open(path, "rb") as file:
            data = file.read(_MOST)
    text = data.decode("ascii", "replace").strip()
    if not text:
        raise click.UsageError("there is no token on standard input" if path == "-" else f"there is no token in {path}")
    return text


def token(path: str, clock: Clock) -> Token:
    """The token in a file or in standard input, unverified. Raises TokenFormatError for what is none."""
    return Token.parse(token_text(path), clock=clock)

"""A command that the gateway starts: it has a token and an address, and no key.

    with opened(…):
        check_closed(found, path, token_file, user)
        child = started(command, variables(found, token, at, passed, user), user)
        code = serving.beside(server, [listening], child)

The command runs as another user than the gateway, who can neither read a secret of the file nor
change a file that it names. Of the environment it has what is listed here, and no more.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
import subprocess
import sys
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from captoken._format.errors import NoToken
from captoken._writing.token import Token
from captoken._writing.token_set import TokenSet
from captoken.adapters._gateway.opening import Configuration, McpService, Service
from captoken.cli.options import seconds
from captoken.current import Held
from captoken.stores._posix import pwd

# What a program needs to run at all. All else of the environment may be a key.
_USUAL = ("PATH", "TERM", "LANG", "TZ", "COLORTERM", "NO_COLOR")
_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS

# The keys of the file that name what is read or written, beside what has `file:` before it.
_FILES = ("ledger", "replays", "trail", "overlay", "description", "ca")
_is_on_server = re.compile("(?:memory|postgresql|valkeys?):").match


def user_of(name: str | None, same_user: bool) -> pwd.struct_passwd | None:
    """Whose the command is; None for whoever runs the gateway. Raises UsageError."""
    if (name is None) is not same_user:
        raise click.UsageError(
            "whose is the command? --user NAME is another user, as root; "
            "--same-user is for trying out: it can read all keys"
        )
    if name is None:
        return None
    if os.geteuid() != 0:
        raise click.UsageError("--user NAME is for root, who alone can change to another user")
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise click.UsageError(f"--user: there is no user {name}") from None


# --- what the user must not reach -----------------------------------------------------------------


def check_closed(found: Configuration, path: str, token_file: str, user: pwd.struct_passwd) -> None:
    """Raise UsageError where a user can read a secret, or change a file that the gateway reads."""
    gateway = found.file.gateway
    stated = list(_texts(found))
    secret = [gateway.keyring, *filter(None, (gateway.trail_key,))]
    secret += [value[5:] for _, value in stated if value.startswith("file:")]
    others = [value for key, value in stated if key in _FILES and not _is_on_server(value)]
    secrets = [found.folder / each for each in secret]
    if token_file != "-":  # noqa: S105, standard input
        secrets.append(Path(token_file))
    files = [found.folder / each.removeprefix("sqlite:") for each in others]
    named = [*secrets, *files, Path(path)]
    # Links are followed here: a user may be able to reach where one leads, and not the link.
    number = _reached(user, [each.resolve() for each in named], len(secrets))
    number = number or _reached(user, [each.absolute() for each in named], len(secrets))
    if number:
        raise click.UsageError(
            f"the user {user.pw_name} can read {named[number - 1]}, or change or replace it: "
            "keep it in a folder of the gateway's own user, with chmod 700"
        )


def _texts(found: Configuration) -> Generator[tuple[str, str]]:
    """Every text in the file, with its key."""
    waiting: list[tuple[str, Any]] = [("", msgspec.to_builtins(found.file))]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, item) for item in value]


def _reached(user: pwd.struct_passwd, named: list[Path], secrets: int) -> int:
    """Which of the files a user can read, of the first `secrets`, or change; 0 is none of them.

    The system is asked, as that user, by a process of its own: what it gives up it never gets back.
    """
    child = os.fork()
    if child == 0:
        code = 1  # what goes wrong here is no answer that all is well
        try:
            os.initgroups(user.pw_name, user.pw_gid)
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            open_ = (
                number
                for number, each in enumerate(named, 1)
                if (number <= secrets and os.access(each, os.R_OK)) or _can_change(each)
            )
            code = min(next(open_, 0), 255)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _can_change(path: Path) -> bool:
    """Can this process change a file, or put another one in its place?"""
    return any(map(_is_open, (path, *path.parents)))


def _is_open(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False  # what it cannot see it cannot change
    # In a folder such as /tmp everybody makes files, and their owners alone replace them.
    is_shared = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    return found.st_uid == os.getuid() or (os.access(path, os.W_OK) and not is_shared)


# --- what the command has -------------------------------------------------------------------------


def variables(
    found: Configuration,
    token: Token | TokenSet,
    address: str,
    passed: Iterable[str],
    user: pwd.struct_passwd | None,
) -> dict[str, str]:
    """The environment of the command: what is usual, what is passed, and what the file says.

    Raises UsageError.
    """
    for name in passed:
        if f"env:{name}" in {value for _, value in _texts(found)}:
            raise click.UsageError(f"--pass {name}: that is a key of a service")
    own = ("HOME", "USER", "LOGNAME") if user is None else ()
    made = {name: os.environ[name] for name in (*_USUAL, *own, *passed) if name in os.environ}
    if user is not None:
        made |= {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    services: dict[str, Service | McpService] = {**found.services, **found.mcp}
    for name, service in services.items():
        if service.env:
            text = _shown_to(token, name)
            at = f"{address}/{name}/mcp" if name in found.mcp else f"{address}/{name}"
            for key, value in service.env.items():
                said = value.replace("{address}", at)
                made[key] = said.replace("{token}", text)
    return made


def _shown_to(held: Token | TokenSet, name: str) -> str:
    """The text for a service, as long as its token is good. Raises UsageError."""
    try:
        token = Held(held).at(name).one
    except NoToken as problem:
        raise click.UsageError(str(problem)) from None
    ends = token.unverified.expires_at
    if ends is None:
        raise click.UsageError("the token never ends: narrow it by `captoken attenuate` first")
    left = ends - seconds(None)
    if left <= 0:
        raise click.UsageError("the token is over already")
    return token.present(audience=name, expires_in=left)


def started(
    command: Sequence[str], env: dict[str, str], user: pwd.struct_passwd | None
) -> subprocess.Popen[bytes]:
    """The command, begun. Raises OSError where it cannot be."""
    if user is None:
        return subprocess.Popen(command, env=env)  # noqa: S603, whoever runs this says which
    return subprocess.Popen(  # noqa: S603
        command,
        env=env,
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=os.getgrouplist(user.pw_name, user.pw_gid),
        preexec_fn=_no_new_privileges,  # no thread runs yet
    )


def _no_new_privileges() -> None:
    """So no program that it starts becomes another user: sudo, say."""
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError("no privileges can be taken away")

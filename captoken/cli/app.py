"""The commands together, and what becomes of errors: one line on standard error, never a traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click

from captoken._format.errors import CaptokenError, WideningError
from captoken._format.spelling import spelled_time
from captoken.cli.ask import explain, verify
from captoken.cli.audit import audit, blast_radius
from captoken.cli.demo.command import demo
from captoken.cli.discharge import approve, attach, discharge, require, tickets
from captoken.cli.inspect import inspect
from captoken.cli.keygen import keygen
from captoken.cli.operate import lift, narrow, overlay, renew, revoke
from captoken.cli.output import prepare, tell
from captoken.cli.postgres import postgres
from captoken.cli.write import attenuate, delegate, mint, present

USAGE = 2


class _InOrder(click.Group):
    """Lists its commands in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="captoken", message="%(prog)s %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Capability tokens for agents: mint, narrow offline, hand on, verify offline, explain.

    Keys come from files, tokens from standard input or --token-file. Exit 0: allowed, 1: denied, 2: usage or bad input.
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help(), file=sys.stderr)
        ctx.exit(USAGE)


for _command in (
    keygen, mint, attenuate, delegate, require, tickets, discharge, approve, attach, present, inspect, verify,
    explain, audit, blast_radius, revoke, narrow, lift, renew, overlay, postgres, demo,
):  # fmt: skip
    commands.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if None in (sys.stdin, sys.stdout, sys.stderr):  # closed: what is not heard is no verdict
        return USAGE
    prepare()
    try:
        code = commands.main(arguments, prog_name="captoken", standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path.removeprefix("captoken").strip() if error.ctx else ""
        tell(f"{path}: {error.format_message()}" if path else error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return 130
    except WideningError as error:
        tell(_as_options(_widening(error)))
    except OSError as error:
        tell(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except RecursionError:
        tell("nested too deeply")
    except (CaptokenError, ValueError, TypeError, click.ClickException) as error:
        tell(_as_options(str(error)))
    else:
        return code if isinstance(code, int) else 0
    return USAGE


def _as_options(text: str) -> str:
    """A message of the library with the names that its keywords have here."""
    for keyword, option in (
        ("unrestricted=True", "--unrestricted"),
        ("clamp=True", "--clamp"),
        ("expires_in=", "--expires-in"),
        ("expires_in or expires_at", "--expires-in or --expires-at"),
        ("expires_in and expires_at", "--expires-in and --expires-at"),
    ):
        text = text.replace(keyword, option)
    return text


def _widening(error: WideningError) -> str:
    """What is asked for and what is held, in JSON instead of Python."""
    spelled = spelled_time if error.dimension in ("exp", "nbf") else json.dumps
    asked, held = spelled(error.asked), spelled(error.held)
    return f"{error.code}: more {error.dimension} than is held: asked for {asked}, held is {held}; {error.hint}"

"""The commands together, and what becomes of errors.

An error is one line on standard error, and never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from captoken.cli.ask import explain, verify
from captoken.cli.audit import audit, blast_radius
from captoken.cli.completion import completion
from captoken.cli.console.command import console
from captoken.cli.demo.command import accident, demo
from captoken.cli.discharge import approve, attach, discharge, require, tickets
from captoken.cli.docs import docs, skill
from captoken.cli.evidence import export
from captoken.cli.gateway import gateway
from captoken.cli.inspect import inspect
from captoken.cli.issue import issue
from captoken.cli.keygen import keygen
from captoken.cli.login import exchange, login
from captoken.cli.operate import end_task, lift, narrow, overlay, renew, revoke
from captoken.cli.options import COMPLETING, USAGE, InOrder
from captoken.cli.output import prepare, tell
from captoken.cli.postgres import postgres
from captoken.cli.problems import TOLD, problem
from captoken.cli.propose import propose, test
from captoken.cli.renewing import operate
from captoken.cli.upgrade import upgrade
from captoken.cli.write import attenuate, delegate, mint, present

INTERRUPTED = 130
# The commands by who runs them, each in the order in which one meets them.
_SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Start here": (accident, demo, docs, skill, completion),
    "Issuer (starts tasks)": (keygen, mint, issue),
    "Person or workload (starts a task at an issuance service)": (login, exchange),
    "Holder (narrows a token, and hands it over)": (
        inspect,
        attenuate,
        delegate,
        require,
        tickets,
        attach,
        present,
    ),
    "Third party (answers what a token asks)": (discharge, approve),
    "Server (verifies tokens)": (verify, explain, postgres),
    "Gateway (guards services of others)": (gateway,),
    "Operator (revokes and narrows issued tokens)": (
        operate,
        end_task,
        revoke,
        narrow,
        lift,
        renew,
        overlay,
        console,
        upgrade,
    ),
    "Auditor (sees who did what)": (audit, blast_radius),
    "Developer (tests what tokens allow)": (test,),
}


class _Commands(InOrder):
    """All commands, by who runs them."""

    def sections(self) -> dict[str, list[str]]:
        return {
            title: [command.name or "" for command in commands]
            for title, commands in _SECTIONS.items()
        }


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="captoken", message="%(prog)s %(version)s")
def commands() -> None:
    """Capability tokens for agents: mint, narrow offline, hand over, verify offline, explain.

    Commands read keys from files, and tokens from standard input or --token-file. They write only
    the result to standard output. Exit 0: allowed or done, 1: denied, 2: usage or bad input.

    `captoken COMMAND --help` shows an example.
    """


audit.add_command(propose)
audit.add_command(export)
for _section in _SECTIONS.values():
    for _command in _section:
        commands.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if None in (sys.stdin, sys.stdout, sys.stderr):  # closed: what is not heard is no verdict
        return USAGE
    prepare()
    try:
        code = commands.main(
            arguments,
            prog_name="captoken",
            complete_var=COMPLETING,
            standalone_mode=False,
        )
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SystemExit:
        # By click, when a shell asks what may stand there, or when nobody reads a help to its end:
        # then with 1, which is a denial here.
        if COMPLETING in os.environ:
            raise
        return 0
    except RecursionError:
        tell("nested too deeply")
        return USAGE
    except TOLD as error:
        tell(problem(error))
        return USAGE
    return code if isinstance(code, int) else 0

"""The commands together, and what becomes of errors.

An error is one line on standard error, and never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from captoken._format.errors import CaptokenError
from captoken.cli.groups import COMPLETING, USAGE, InOrder
from captoken.cli.output import prepare, tell

INTERRUPTED = 130
# What becomes one line. Anything else is a mistake of the library's own, and is shown whole.
_TOLD = (CaptokenError, ValueError, TypeError, OSError, click.ClickException)

# The commands by who runs them, each in the order in which one meets them: its module, and what
# its help says first.
_SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Start here": {
        "try": ("demo.command", "Watch one accident, with an API key and with captoken."),
        "demo": ("demo.command", "Watch six agents at work, and see what they are denied."),
        "docs": ("docs", "Read the documentation, or search it."),
        "skill": ("docs", "Write what a coding agent has to know: a SKILL.md."),
        "completion": ("completion", "Let a shell complete commands, options and files."),
    },
    "Issuer (starts tasks)": {
        "keygen": ("keygen", "Make keys, each in a file that only its owner can read."),
        "mint": ("write", "Write the first token of a task, or a set of them."),
        "issue": ("issue", "Start tasks for people and workloads that log in."),
    },
    "Person or workload (starts a task at an issuance service)": {
        "login": ("login", "Log in at an identity provider, and write the ID token."),
        "exchange": ("login", "Start a task with a login, a workload's identity, or both."),
    },
    "Holder (narrows a token, and hands it over)": {
        "inspect": ("inspect", "Show what a token says, without verifying it."),
        "attenuate": ("write", "Narrow a token."),
        "delegate": ("write", "Narrow a token and hand it over to a sub-agent."),
        "require": ("discharge", "Require a third party's consent."),
        "tickets": ("discharge", "Write the tickets for third parties, one a line."),
        "attach": ("discharge", "Attach discharges to the token that needs them."),
        "present": ("write", "Write a short-lived copy for one server."),
    },
    "Third party (answers what a token asks)": {
        "discharge": ("discharge", "Answer a ticket from a program that has already decided."),
        "approve": ("discharge", "Ask the person at the terminal whether to answer a ticket."),
        "consent": ("consent", "Ask the person at the terminal to consent to one call."),
    },
    "Server (verifies tokens)": {
        "verify": ("ask", "Verify a token and an access."),
        "explain": ("ask", "Say why an access is allowed or denied, and by whose rule."),
        "postgres": ("postgres", "Prepare a PostgreSQL database for agents."),
    },
    "Gateway (guards services of others)": {
        "gateway": ("gateway", "Forward requests to other services, if a token allows them."),
    },
    "Operator (revokes and narrows issued tokens)": {
        "operate": ("renewing", "Keep the overlay fresh, until Ctrl-C or SIGTERM."),
        "end-task": ("operate", "Revoke all tokens of a task and the tasks below it."),
        "revoke": ("operate", "Revoke tokens."),
        "narrow": ("operate", "Restrict issued tokens."),
        "lift": ("operate", "Undo a revocation or restriction."),
        "renew": ("operate", "Sign the overlay again, once."),
        "overlay": ("operate", "Show all revocations and restrictions: by whom, when and why."),
        "react": ("reactions.command", "Act by rules when the behaviour of agents changes."),
        "console": ("console.command", "Show what agents are doing, and act on it, in a browser."),
        "upgrade": ("upgrade", "Convert stores of an earlier version."),
    },
    "Auditor (sees who did what)": {
        "audit": ("audit", "Read the trail that a server has kept."),
        "blast-radius": ("audit", "Show what the tokens of an agent can still do."),
    },
    "Developer (tests what tokens allow)": {
        "test": ("propose", "Test what tokens permit, by scenarios in TOML files."),
    },
}


class _All(InOrder):
    """All commands, by who runs them."""

    def sections(self) -> dict[str, list[str]]:
        return {title: list(commands) for title, commands in _SECTIONS.items()}


@click.group(
    cls=_All,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="captoken", message="%(prog)s %(version)s")
def commands() -> None:
    """Capability tokens for agents: mint, narrow offline, hand over, verify offline, explain.

    Commands read keys from files, and tokens from standard input or --token-file. They write only
    the result to standard output. Exit 0: allowed or done, 1: denied, 2: usage or bad input.

    `captoken COMMAND --help` shows an example.
    """


for _section in _SECTIONS.values():
    for _name, (_module, _summary) in _section.items():
        commands.add_later(_name, _module, _summary)


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
    except ModuleNotFoundError:
        raise
    except (*_TOLD, ImportError) as error:  # what is here says itself why it does not work here
        from captoken.cli.problems import problem  # here, since it loads what checks options

        tell(problem(error))
        return USAGE
    return code if isinstance(code, int) else 0

"""`captoken consent`: a person at the terminal reads what is asked, and says yes to one call."""

from __future__ import annotations

import click

from captoken._format.clocks import CONSENT_LIFE
from captoken._format.spelling import span
from captoken.cli import files
from captoken.cli.options import clock, json_option, now_option
from captoken.cli.output import answer, say_json, tell
from captoken.cli.terminal import is_agreed
from captoken.cli.values import DURATION, FILE
from captoken.consent import Approver
from captoken.keys.secret import ApproverKey

_INSTEAD = "nobody but a person consents; a service has a page for that"


@click.command()
@click.option(
    "--key",
    type=FILE,
    metavar="FILE",
    required=True,
    help="The key of the person who is asked.",
)
@click.option(
    "--request-file",
    type=FILE,
    metavar="FILE",
    default="-",
    help="Read the request from FILE instead of standard input.",
)
@click.option(
    "--expires-in",
    type=DURATION,
    metavar="TIME",
    default="5m",
    show_default=True,
    help="How long the consent is valid, an hour at most.",
)
@now_option
@json_option
def consent(key: str, request_file: str, expires_in: int, now: int | None, as_json: bool) -> int:
    """Ask the person at the terminal to consent to one call. Exit 1 if not.

    It shows all of the request, and asks at the terminal itself, even if input and output are
    redirected. Only `y` or `yes` counts as consent, and no option can give it. A request that does
    not fit the terminal is refused. The consent works once, for this call alone.

    \b
    captoken verify ... --consent-request request < sent.token
    captoken consent --key jane.json < request > consent
    captoken present --audience mail --with-consent consent < root.token
    """
    if expires_in > CONSENT_LIFE:
        raise click.UsageError(f"a consent is valid for {span(CONSENT_LIFE)} at most")
    approver = Approver(files.key(ApproverKey, key), clock=clock(now))
    with files.about(request_file):
        request = files.text(request_file, "request")
        asked = approver.read(request)
    question = f"Consent to this, once, within {span(expires_in)}?"
    if not is_agreed("You are asked to consent:", asked.lines(), question, instead=_INSTEAD):
        if as_json:
            say_json({"consent": None})
        tell("refused, and nothing is consented to")
        return 1
    made = approver.consent(request, expires_in=expires_in)
    answer(as_json, {"consent": made}, made)
    return 0

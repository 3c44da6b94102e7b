"""What travels between a client and a service of discharges, as JSON.

    POST PATH   DischargeRequest   → 200 Answer(discharge), 202 Answer(poll_url or user_interactive)
    GET  poll_url                → 202 while it is not decided, and then 200 Answer(discharge), once

Every refusal is an Answer with an error, by status: 400 for what is no ticket of this discharger,
403 for a no, 404 for what is over, 501 where nobody can decide, 503 where too many wait.

The names are those of fly.io's protocol for third parties; tickets and discharges are ours.
"""

from __future__ import annotations

import msgspec

# Below the service's address: where tickets are posted.
PATH = "/.well-known/captoken/3p"


class DischargeRequest(msgspec.Struct):
    """What is posted: the ticket of the caveat that needs a discharge."""

    ticket: str


class Interactive(msgspec.Struct):
    """A person decides: where they do it, and where the outcome can be fetched.

    Neither address is a right to decide; the service knows its own people.
    """

    poll_url: str
    user_url: str


class Answer(msgspec.Struct, omit_defaults=True):
    """What a service answers: one of these. What is not stated is left out."""

    discharge: str | None = None
    consent: str | None = None
    poll_url: str | None = None
    user_interactive: Interactive | None = None
    error: str | None = None

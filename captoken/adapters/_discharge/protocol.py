"""What travels between a client and a service of discharges, in the names of fly.io's protocol."""

from __future__ import annotations

import msgspec

PATH = "/.well-known/captoken/3p"  # below the service's address: where tickets are posted
ANSWER_BYTES = 16_384  # of one answer; a discharge has at most 8,192 characters


class Asked(msgspec.Struct):
    """What is posted."""

    ticket: str


class Interactive(msgspec.Struct):
    """Where a person decides, and where the outcome can be fetched."""

    poll_url: str
    user_url: str


class Answer(msgspec.Struct, omit_defaults=True):
    """What a service answers: one of these."""

    discharge: str | None = None
    poll_url: str | None = None
    user_interactive: Interactive | None = None
    error: str | None = None

"""Addresses of a service in its JSON answers, as its clients reach it here: they follow them.

    links = Links(b"https://api.github.com", b"http://127.0.0.1:8790/github")
    ready = links.feed(piece)
    rest = links.end()

A text that begins with the service's address begins with the gateway's then. No other byte changes.
"""

from __future__ import annotations

import re

from captoken.adapters._gateway.seeking import overlap


class Links:
    """Goes through one answer, piece by piece. `inside`: the service's address."""

    def __init__(self, inside: bytes, outside: bytes) -> None:
        self._begins = b'"' + inside + b"/"
        self._outside = b'"' + outside + b"/"
        # A quotation mark behind a backslash begins no text.
        self._pattern = re.compile(rb"(?<!\\)" + re.escape(self._begins))
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """What can go on: all but what may begin the address, and the byte before it."""
        seen = self._pattern.sub(lambda _: self._outside, self._held + piece)
        ready = max(0, len(seen) - overlap(seen, self._begins) - 1)
        self._held = seen[ready:]
        return seen[:ready]

    def end(self) -> bytes:
        """What was held back: nothing comes behind it."""
        held, self._held = self._held, b""
        return held

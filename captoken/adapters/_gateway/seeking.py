"""Whether an answer tells the key of its service: looked for in headers and in the decoded body.

    seeker = Seeker(spellings_of(secret))
    ready = seeker.feed(piece)       # what can go on; Told, if the key stands there
    rest = seeker.end()

It is found as the service spells it, in base64 wherever it stands in the text that was encoded, and
with any of its characters as percent or JSON escapes. What could be its beginning is held back
until it is known, and nothing else is.
"""

from __future__ import annotations

import re
from base64 import b64encode

from captoken.adapters._gateway.credentials import Secret
from captoken.adapters._http.escapes import unescaped

SHORTEST = 16  # characters of a key that is looked for: shorter ones stand in other texts too

_json_escape = re.compile(rb"\\(?:u00([0-7][0-9A-Fa-f])|([/\"\\]))")
_begun_escape = re.compile(rb"(?:%[0-9A-Fa-f]?|\\(?:u(?:0(?:0[0-7]?)?)?)?)\Z").search
_LONGEST_ESCAPE = len(b"\\u0073")


class Told(Exception):  # noqa: N818, the name reads as what it is
    """An answer has the key of its service in it."""


class Seeker:
    """Looks through one answer, piece by piece. A short key is not looked for.

    It holds what is secret, and shows nothing of it.
    """

    def __init__(self, spellings: tuple[bytes, ...]) -> None:
        self._spellings = spellings
        self._held = b""

    def __repr__(self) -> str:
        return "<Seeker>"

    def feed(self, piece: bytes) -> bytes:
        """What can go on. Raises Told."""
        if not self._spellings:
            return piece
        seen = self._held + piece
        self._look(seen)
        keep = self._unknown(seen)
        self._held = seen[len(seen) - keep :]
        return seen[: len(seen) - keep]

    @property
    def holds(self) -> bool:
        """Is something held back?"""
        return bool(self._held)

    def end(self) -> bytes:
        """What was held back, and is no key: nothing comes behind it."""
        held, self._held = self._held, b""
        return held

    def look(self, text: bytes) -> None:
        """Look through a text that is whole, as a header is. Raises Told."""
        if self._spellings:
            self._look(text)

    def _look(self, seen: bytes) -> None:
        views = (seen, plain(seen)) if _has_escapes(seen) else (seen,)
        for spelling in self._spellings:
            for view in views:
                if spelling in view:
                    raise Told

    def _unknown(self, seen: bytes) -> int:
        """How many bytes at the end could be the beginning of the key."""
        kept = max(overlap(seen, spelling) for spelling in self._spellings)
        longest = max(map(len, self._spellings))
        tail = seen[-longest * _LONGEST_ESCAPE :]
        if not _has_escapes(tail):
            return kept
        first = {*b"%\\", *(spelling[0] for spelling in self._spellings)}
        # Keep everything from the first place where the unescaped rest could start a spelling.
        for at in range(len(tail) - kept):
            if tail[at] not in first:
                continue
            rest = tail[at:]
            begun = _begun_escape(rest)
            known = plain(rest if begun is None else rest[: begun.start()])
            if any(spelling.startswith(known) for spelling in self._spellings):
                return len(tail) - at
        return kept


class Links:
    """Addresses of a service in its JSON answers, as its clients reach it here: they follow them.

    A text that begins with the service's address begins with the gateway's then. No other byte
    changes. Goes through one answer, piece by piece.
    """

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


def spellings_of(secret: Secret) -> tuple[bytes, ...]:
    """A key as it is spelled, and in base64. Of a short one nothing is looked for."""
    raw = secret.text.encode()
    return () if len(raw) < SHORTEST else (raw, *_in_base64(raw))


def overlap(seen: bytes, spelling: bytes) -> int:
    """The length of the longest end of `seen` that begins `spelling`."""
    tail = seen[1 - len(spelling) :]
    at = tail.find(spelling[:1])
    while at >= 0 and not spelling.startswith(tail[at:]):
        at = tail.find(spelling[:1], at + 1)
    return 0 if at < 0 else len(tail) - at


def _has_escapes(text: bytes) -> bool:
    return b"%" in text or b"\\" in text


def plain(text: bytes) -> bytes:
    """`text` without percent escapes, and without those of JSON for ASCII."""
    return _json_escape.sub(_character, unescaped(text))


def _character(found: re.Match[bytes]) -> bytes:
    return found[2] or bytes((int(found[1], 16),))


def _in_base64(raw: bytes) -> list[bytes]:
    """What stands in base64 for it, in both alphabets, wherever it begins in a group of three."""
    found = []
    for before in range(3):
        # The characters at both ends depend on what stands beside it.
        whole = b64encode(b"\0" * before + raw)
        core = whole[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6]
        found += [core, core.replace(b"+", b"-").replace(b"/", b"_")]
    return list(dict.fromkeys(found))

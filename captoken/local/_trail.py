"""The trail of an office, and the names that are known from it."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator

import msgspec

from captoken._format.clocks import Clock
from captoken._format.encoding import EncodingError, decode_json, encode_json
from captoken._format.errors import AuditError
from captoken._format.names import at_or_below
from captoken._format.spelling import shown, shown_file
from captoken._language.caveats import Vocabulary
from captoken._language.entries import Entry
from captoken.audit import analysis
from captoken.audit._check import check, read
from captoken.audit.trail import AuditTrail
from captoken.keys.files import write_private
from captoken.keys.secret import AuditKey
from captoken.local._folder import TRAIL, TRAIL_SEEN
from captoken.stores.ports import Head
from captoken.stores.trail_file import TrailFile

_log = logging.getLogger("captoken")

_LATELY = 3_000  # names of tokens that were minted, and may have no record yet


class KeptTrail:
    """The trail of an office, and the last record that was seen in it, in a file of its own.

    So a trail that was emptied, cut, changed or replaced is refused when the office is opened.
    """

    def __init__(
        self,
        folder: str,
        file: TrailFile,
        key: AuditKey,
        *,
        values: bool,
        clock: Clock,
    ) -> None:
        """Raises AuditError if the trail is not as the office has left it."""
        self._path = os.path.join(folder, TRAIL)
        self._seen = os.path.join(folder, TRAIL_SEEN)
        self._key = key
        self._check()
        self.trail = AuditTrail(
            file.write,
            head=file.head,
            key=key,
            values=values,
            clock=clock,
        )

    def _check(self) -> None:
        """Raise AuditError if the trail was emptied, cut, changed or replaced.

        It compares the last record that was seen, and checks that the records follow each other.
        """
        seen = _seen_head(self._seen)
        try:
            check(self._lines(), [self._key.public], known=seen)
        except AuditError as error:
            raise AuditError(
                f"{shown_file(self._path)} is not as the office left it: {error}. Restore it from "
                "a copy. To begin a new one, keep the old file elsewhere, and put empty files in "
                f"its place and in that of {TRAIL_SEEN}"
            ) from None

    def keep_head(self) -> None:
        """Write down the last record of the trail, which reveals a trail that was cut."""
        head = self.trail.head
        if head.seq:
            text = encode_json({"hash": head.hash, "seq": head.seq})
            write_private(self._seen, text + b"\n")

    def history(self, vocabulary: Vocabulary) -> analysis.History:
        """What the whole trail tells, checked and signed to its end. Raises AuditError."""
        head = self.trail.checkpoint()
        self.keep_head()
        check(self._lines(), [self._key.public], known=[head])
        return analysis.gather(read(self._lines()), vocabulary=vocabulary)

    def names(self, name: str, *, below: bool = False) -> bool:
        """Does a record of the trail have that name, as a whole text; or a task below it?"""
        text = encode_json(name)
        text = text[:-1] + b"/" if below else text
        return any(text in line for line in self._lines())

    def _lines(self) -> Iterator[bytes]:
        """The complete lines of the trail, which may be written to meanwhile."""
        with open(self._path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield line


class KnownNames:
    """The names that tokens of an office have: minted here lately, or in a record of the trail."""

    def __init__(self, trail: KeptTrail) -> None:
        self._trail = trail
        self._minted: deque[str] = deque(maxlen=_LATELY)  # the trail may not have these yet

    def add(self, *names: str) -> None:
        """Note the names of a token that was minted."""
        self._minted.extend(names)

    def warn_of_unknown(self, entry: Entry) -> None:
        """Log a name of an entry that no token had so far: one that is misspelt stops nobody.

        Asked of the trail, and of what was minted here lately. A task is known by one below it.
        """
        select = entry.select
        for what, name in (("agent", select.agent), ("subject", select.subject)):
            if name is not None and name not in self._minted and not self._trail.names(name):
                self._warn(what, name, entry.id)
        task = select.task
        if task is None or any(at_or_below(name, task) for name in self._minted):
            return
        if not self._trail.names(task) and not self._trail.names(task, below=True):
            self._warn("task", task, entry.id)

    def _warn(self, what: str, name: str, entry_id: str) -> None:
        _log.warning(
            "revoked, but no token of %s %s was minted or used here so far: is the name right? "
            "office.operator.lift(%r) takes it off again",
            what,
            shown(name),
            entry_id,
        )


def _seen_head(path: str) -> list[Head]:
    """The last record of the trail that was seen, if any. Raises AuditError."""
    with open(path, "rb") as file:
        text = file.read(1 << 10)
    if not text:
        return []
    try:
        head = msgspec.convert(decode_json(text.removesuffix(b"\n")), Head)
    except (EncodingError, msgspec.ValidationError):
        head = Head()
    if head.seq < 1:
        raise AuditError(
            f"{shown_file(path)} must hold the last record that the office saw, and cannot be read"
        )
    return [head]

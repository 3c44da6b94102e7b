"""Trails, put in order: what they say, in an SQLite file that answers quickly.

    index = Index("index.db", ["trail.jsonl"])
    index.take()                      # what the trails have that the index has not

Each record is checked and counted once (`following`). The file holds nothing that the trails do
not: delete it, and it is made anew.

What is counted while it is read, so that a million records are answered for at once:

    tasks       a row each: when, how much was allowed and denied
    hops        a row for each holding of a token by an agent, as `captoken.audit` groups them
    minutes     by hop and minute: allowed, denied
    calls       a row a decision, with the place of its record in the trail
    whats       each kind of decision, once: what was asked for, of which trail, and the answer
    servers     what each trail is called, for people
    tallies     by kind, hop and hour: how many
    uses        by hop, each kind of access that was allowed, once: the place of its first record

Several trails are one story: decisions stand in the order of their moments, whichever server wrote
them, and each says in which trail it is. Of two records that say two things of one link, the later
one marks its trail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import IO, Any, ClassVar

import msgspec

from captoken._format import primitives
from captoken.cli.console.counting import Counting, Remembered
from captoken.cli.console.following import CHANGED, Follower, digest_of
from captoken.cli.console.tables import INDEX, Call, Layout

_CALL = ", ".join(Call._fields)


class Index(Follower):
    """What trails say. Threads share one. See `Follower` for `path` and `trails`."""

    _layout: ClassVar[Layout] = INDEX
    _remembered: Remembered | None = None

    def _batch(self) -> Counting:
        if self._remembered is None:
            self._remembered = Remembered()
        return Counting(self._tables, self._remembered)

    def _forget(self) -> None:
        self._remembered = None

    def _name_all(self) -> None:
        super()._name_all()
        self.rows_each("insert or replace into servers values (?, ?)", self.names.items())

    def calls(self, condition: str, *values: Any, most: int) -> list[Call]:
        """Decisions, the last first: in the order of their moments, whichever trail they are in."""
        query = f"select {_CALL} from calls where {condition} order by moment desc, id desc limit ?"
        return [Call(*row) for row in self.rows(query, *values, most)]

    def records(self, calls: Iterable[Call]) -> Iterator[dict[str, Any] | None]:
        """Their records as they stand in the trails. None where one is not there any more.

        And where it is not the one that was read: then the trail is marked as well.
        """
        paths: dict[int, str] = dict(self.rows("select id, path from trails"))
        with ExitStack() as stack:
            files: dict[int, IO[bytes]] = {}
            for call in calls:
                try:
                    file = files.get(call.trail)
                    if file is None:
                        file = files[call.trail] = stack.enter_context(
                            open(paths[call.trail], "rb")
                        )
                    file.seek(call.offset)
                    line = file.read(call.length)
                    if not primitives.equal(digest_of(line), call.digest):
                        self.mark(call.trail, CHANGED)
                        yield None
                        continue
                    yield msgspec.json.decode(line, type=dict[str, Any])
                except (OSError, ValueError):  # msgspec's errors are ValueErrors, too
                    yield None

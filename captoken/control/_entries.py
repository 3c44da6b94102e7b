"""What an operator asks for becomes an entry of an overlay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from captoken._format.clocks import Clock, read_clock
from captoken._format.encoding import b64encode, decode_json
from captoken._language.caveats import Vocabulary
from captoken._language.entries import Entry, Selector
from captoken._writing.compose import Terms, WriterContext, compose_request, spell
from captoken._writing.keywords import Strings


class EntryWriter:
    """Writes the entries of one operator, at the time of its clock. Publishes nothing."""

    def __init__(
        self,
        by: str,
        vocabulary: Vocabulary,
        clock: Clock,
        random: Callable[[int], bytes],
    ) -> None:
        self._by = by
        self._vocabulary = vocabulary
        self._clock = clock
        self._random = random

    def link(self, caveats: Mapping[str, Any], keep: Strings) -> dict[str, Any]:
        """What is left to the tokens, as a link says it. Raises TypeError or ValueError."""
        context = WriterContext(self._vocabulary, self._clock)
        of_the_chain = "it belongs to a link of the chain"
        terms = Terms(caveats, keep)
        stated = compose_request(terms, context, "an overlay", of_the_chain, may_mark=True)
        link: dict[str, Any] = decode_json(spell(stated))
        return link

    def entry(
        self,
        select: Selector,
        asked: tuple[str, ...] | None,
        why: str,
        until: int | None,
        link: dict[str, Any] | None = None,
    ) -> Entry:
        """A new entry with the current time and a random id. Without a `link`, it revokes."""
        return Entry(
            asked=asked,
            at=read_clock(self._clock),
            by=self._by,
            id=b64encode(self._random(8)),
            link=link,
            select=select,
            until=until,
            why=why,
        )


def selecting(given: dict[str, Any]) -> dict[str, Any]:
    """The keywords that select, taken out. The rest are caveats."""
    return {key: given.pop(key) for key in Selector.__struct_fields__ if key in given}

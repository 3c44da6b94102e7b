"""What an operator does by the page: seen beforehand, with a reason, and only ever less.

    control = Control(store, operator, publics)
    seen = control.preview(index, {"task": "q3"}, None, now)     # what would have been refused
    control.act(index, wish, now)                # with its stamp: the same, and nothing else

The operator's key stays here. What is done is what `captoken.control.Operator` does: no caveat and
no selector is read in this file. A preview is made by the same calls, on a store in memory and by a
key that nobody trusts, and by the replay of `captoken.audit`.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from secrets import token_bytes
from threading import Lock
from typing import Any, TypeVar

import msgspec

from captoken._format import primitives
from captoken._format.encoding import b64encode, encode_json
from captoken._format.errors import CaptokenError
from captoken._language.entries import Entry, Selector
from captoken._language.overlay import Overlay
from captoken.audit import analysis
from captoken.cli.console import histories, views
from captoken.cli.console.index import Index
from captoken.cli.words import plain
from captoken.control import Operator
from captoken.keys import OperatorKey
from captoken.stores.memory import MemorySnapshots
from captoken.stores.ports import SnapshotStore

HOUR = 3600  # seconds that a preview looks back
SHOWN = 20  # decisions of a preview
LOOKED_AT = 20_000  # decisions that are judged again, at most
KEPT = 500  # overlays, for who looks back

Json = dict[str, Any]
_T = TypeVar("_T")


def is_same(given: str, expected: str) -> bool:
    """Is it the secret text? Takes as long wherever the two differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


class Refused(Exception):  # noqa: N818, the name reads as what it is
    """What was asked for is not done. The message is for whoever asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator wants. The shape of what the page sends.

    `keywords` are those of `attenuate`; without any, what is selected is revoked.
    """

    kind: str
    select: dict[str, str] | None = None
    entry: str | None = None
    keywords: dict[str, Any] | None = None
    why: str = ""
    stamp: str = ""


class Control:
    """The overlay of some operators, and the hand of one of them, if there is a key.

    `publics` are whose snapshots are believed. Threads share it.
    """

    def __init__(
        self,
        store: SnapshotStore | None,
        operator: Operator | None,
        publics: Sequence[bytes | str],
        by: str,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._operator = operator
        self._publics = publics
        self._by = by
        self._clock = clock
        self._stamps = token_bytes(32)

        # The newest snapshot, opened once.
        self._lock = Lock()
        self._data: bytes | None = None
        self._opened: Overlay | None = None

        # Those that were seen here, the last first, as far as what they say differs.
        self._seen: list[Overlay] = []

    @property
    def can_act(self) -> bool:
        """Is there an operator's key?"""
        return self._operator is not None

    @property
    def by(self) -> str:
        """As whom."""
        return self._by

    def overlay(self) -> Overlay | None:
        """What stands. Raises CaptokenError where it cannot be known."""
        if self._store is None:
            return None
        data = self._store.load()
        with self._lock:
            if data != self._data:
                self._opened = None if data is None else Overlay.open(data, self._publics)
                self._data = data
                self._keep(self._opened)
            return self._opened

    def overlay_at(self, at: int | None) -> views.Said | None:
        """What stood at a time. None: what stands.

        Of what was lifted before this process looked, nothing is known. Raises CaptokenError.
        """
        newest = self.overlay()
        if at is None or newest is None:
            return newest
        with self._lock:
            seen = list(self._seen)
        return views.Past(next((one for one in seen if one.issued_at <= at), seen[-1]), at)

    def _keep(self, opened: Overlay | None) -> None:
        """Keep an overlay for who looks back, unless it says what the one before says."""
        if opened is None:
            return
        said = {entry.id for entry in opened.entries}
        if self._seen and said == {entry.id for entry in self._seen[0].entries}:
            return
        self._seen.insert(0, opened)
        del self._seen[KEPT:]

    # --- beforehand -------------------------------------------------------------------------------

    def preview(
        self,
        index: Index,
        select: Mapping[str, str],
        keywords: Mapping[str, Any] | None,
        now: int,
    ) -> Json:
        """What it would have refused in the last hour. Raises Refused for what cannot be done."""
        entry, proposed = self._proposed([(select, keywords)])
        hit, is_all = _stopped(index, proposed, [select], now - HOUR, now)
        hits = views.hits(index, self.overlay(), proposed, select, now)
        return {
            "hits": hits.view(),
            "only": None if is_all else LOOKED_AT,
            "hours": HOUR // 3600,
            "would_refuse": len(hit),
            "rows": [views.row_of(one.decision, one.why) for one in hit[:SHOWN]],
            "stands": views.entry_view(entry[0], now),
            "stamp": self._stamp(select, keywords, hits),
        }

    def what_if(
        self,
        index: Index,
        add: Sequence[tuple[Mapping[str, str], Mapping[str, Any] | None]],
        first: int,
        last: int,
    ) -> Json:
        """Which calls entries would have stopped that were not there. Raises Refused."""
        _, proposed = self._proposed(add)
        hit, is_all = _stopped(index, proposed, [select for select, _ in add], first, last)
        return {
            "only": None if is_all else LOOKED_AT,
            "stopped": len(hit),
            "agents": _by_agent(hit),
            "rows": [views.row_of(one.decision, one.why) for one in hit[:SHOWN]],
        }

    def _proposed(
        self,
        wanted: Sequence[tuple[Mapping[str, str], Mapping[str, Any] | None]],
    ) -> tuple[list[Entry], Overlay]:
        """Entries as the operator would make them, and an overlay of these alone."""
        key = OperatorKey.generate()
        store = MemorySnapshots()
        operator = Operator(key, store, by=self._by, clock=self._clock)
        entries = [_made(operator, select, keywords, "a preview") for select, keywords in wanted]
        data = store.load()
        if data is None:
            raise Refused(400, "nothing is selected")
        return entries, Overlay.open(data, [key.public])

    def _stamp(
        self, select: Mapping[str, str], keywords: Mapping[str, Any] | None, hits: views.Hits
    ) -> str:
        """What shows that a preview of this very thing was made here, and hit these tokens.

        Agents that these are handed to meanwhile change nothing: else one that hands on each second
        could not be stopped.
        """
        tokens = sorted(map(list, hits.agents))
        said = {"keywords": dict(keywords or {}), "select": dict(select), "tokens": tokens}
        return b64encode(primitives.mac(self._stamps, encode_json(said)))

    # --- done -------------------------------------------------------------------------------------

    def act(self, index: Index, wish: Wish, now: int) -> Json:
        """Do it, and say which entry says so. Raises Refused, and CaptokenError.

        What narrows, ends or revokes is done only as it was seen in a preview, to the tokens that
        it hit then.
        """
        operator = self._operator
        if operator is None:
            raise Refused(403, "there is no operator's key here: start the console with --key")
        if wish.kind == "renew":
            # The same, signed anew: nothing is said that did not stand.
            _asked(operator.renew)
            return {"entry": "", "seq": operator.last}
        why = wish.why.strip()
        if not why:
            raise Refused(400, "say why: the entry is shown to people")

        if wish.kind == "lift":
            if wish.entry is None:
                raise Refused(400, "say which entry")
            _asked(lambda: operator.lift(wish.entry or "", why=why))
            return {"entry": wish.entry, "seq": operator.last}

        if wish.kind not in ("narrow", "end", "revoke") or not wish.select:
            raise Refused(400, "say what to do, and with which tokens")
        if (wish.kind == "narrow") != bool(wish.keywords):
            raise Refused(400, "to narrow takes keywords, and nothing else does")
        _, proposed = self._proposed([(wish.select, wish.keywords)])
        hits = views.hits(index, self.overlay(), proposed, wish.select, now)
        if not is_same(wish.stamp, self._stamp(wish.select, wish.keywords, hits)):
            raise Refused(409, "what would be done is not what was shown: look at it again")
        entry = _made(operator, wish.select, wish.keywords, why)
        return {"entry": entry.id, "seq": operator.last}


def _made(
    operator: Operator,
    select: Mapping[str, str],
    keywords: Mapping[str, Any] | None,
    why: str,
) -> Entry:
    """Have the operator make the entry. Raises Refused for what is none."""
    unknown = select.keys() - set(Selector.__struct_fields__)
    if unknown or not select:
        raise Refused(400, "select by token, hop, link, task, agent or subject")
    if keywords is not None and keywords.keys() & set(Selector.__struct_fields__):
        raise Refused(400, "what is narrowed to names no tokens")
    if keywords:
        stated: Mapping[str, Any] = {**select, **keywords}
        return _asked(lambda: operator.narrow(why=why, **stated))
    return _asked(lambda: operator.revoke(why=why, **select))  # type: ignore[arg-type]


def _asked(do: Callable[[], _T]) -> _T:
    """Do it. What is wrong with what was asked for is told, and what went wrong here is raised."""
    try:
        return do()
    except CaptokenError:
        raise
    except (TypeError, ValueError) as error:
        raise Refused(400, plain(str(error))) from None


def _by_agent(hit: Sequence[analysis.Replayed]) -> list[Json]:
    """Who made these calls, by all who held the token, and how many: the most first."""
    counts = Counter(
        " > ".join(actor.name for actor in one.decision.chain) for one in hit
    ).most_common(SHOWN)
    return [{"agent": plain(who), "calls": calls} for who, calls in counts]


def _stopped(
    index: Index,
    proposed: Overlay,
    selects: Sequence[Mapping[str, str]],
    first: int,
    last: int,
) -> tuple[list[analysis.Replayed], bool]:
    """The calls between two times that an overlay of these entries alone denies for certain.

    And whether all calls of that time were looked at: if they are too many, the last ones are. Only
    calls that an entry may be about: none of them changes what another token was allowed.
    """
    hops = set[str]().union(*(views.selected(index, select) for select in selects))
    history, is_all = histories.between(index, first, last, LOOKED_AT, hops)
    judged = analysis.replay(history, proposed)
    return [one for one in judged[::-1] if one.outcome == "denied"], is_all

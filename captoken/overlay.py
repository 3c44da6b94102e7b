"""The overlay: restrictions and revocations that an operator adds to tokens already out (spec, "Overlay").

    entry       a selector, and what it does to the tokens that it selects: revoked, or a link's worth of more caveats
    snapshot    all entries that stand, with a number that never goes back, signed as a whole
    Overlay     a snapshot whose signature held, indexed for verifiers

Revocation is the narrowest overlay. Distribution is anybody's affair: a snapshot that was changed, cut or replaced by an
older one is refused by whoever loads it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from time import time
from typing import Any, Protocol, TypedDict, Unpack

import msgspec

from captoken import attenuate as writing
from captoken import keys, names, primitives
from captoken.attenuate import Clock, Moment, read_clock
from captoken.caveats import V1, Vocabulary
from captoken.decision import escape, moment
from captoken.encoding import EncodingError, Integer, b64decode, b64encode, decode_json, encode_json
from captoken.errors import OverlayError, StoreError
from captoken.links import BadLink, Link, is_about_requests, read_link

_log = logging.getLogger("captoken")
LIFE = 3600  # seconds that a snapshot says it is good for; verifiers have a tighter bound of their own
MAX_BYTES = 1 << 26  # of a snapshot
_OVERLAY = primitives.label("overlay")
_SIGNATURE_CHARS = 86


class OperatorKey(keys.SigningKey):
    """An Ed25519 key that signs snapshots. Whoever has it can stop and narrow every token; it cannot widen one."""

    __slots__ = ()
    purpose = "operator"


class Selector(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """Which tokens: those for which all that is stated holds. At least one thing is.

    `token`: a token id, the whole tree. `link`: a link id, that link and all below. `task`: that task and all below.
    `agent`: whoever has held the token, then or before. `subject`, `kid`: of the root record. `issued_before`: seconds.
    """

    agent: str | None = None
    issued_before: Integer | None = None
    kid: str | None = None
    link: str | None = None
    subject: str | None = None
    task: str | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        for what in ("agent", "kid", "subject"):
            if getattr(self, what) is not None:
                names.name(getattr(self, what), what)
        if self.task is not None:
            names.task(self.task)
        if self.issued_before is not None and type(self.issued_before) is not int:
            raise TypeError(f"issued_before must be seconds as int, not {type(self.issued_before).__name__}")
        for what in ("link", "token"):
            if getattr(self, what) is not None and len(b64decode(names.exact_str(getattr(self, what), what))) != 16:
                raise ValueError(f"a {what} id is 22 characters of base64url")
        if not any(getattr(self, what) is not None for what in self.__struct_fields__):
            raise ValueError("an entry selects something: token, link, task, agent, subject, kid or issued_before")

    def selects(self, facts: Facts) -> bool:
        """Is the token one of those?"""
        return (
            (self.token is None or self.token == facts.token)
            and (self.link is None or b64decode(self.link) in facts.links)
            and (self.task is None or names.at_or_below(facts.task, self.task))
            and (self.agent is None or self.agent in facts.agents)
            and (self.subject is None or self.subject == facts.subject)
            and (self.kid is None or self.kid == facts.kid)
            and (self.issued_before is None or facts.issued_at < self.issued_before)
        )


class Select(TypedDict, total=False):
    """A Selector as keywords."""

    agent: str
    issued_before: int
    kid: str
    link: str
    subject: str
    task: str
    token: str


class Facts(msgspec.Struct, frozen=True):
    """What a verified token says that selectors ask about."""

    token: str
    links: Sequence[bytes]  # link ids, as bytes
    task: str
    agents: Sequence[str]
    subject: str
    kid: str
    issued_at: int

    @property
    def keys(self) -> tuple[str | bytes, ...]:
        """Everything that an entry on such a token can be filed under."""
        return keys_of(self.token, self.links, self.task, self.agents, self.subject, self.kid)


def keys_of(
    token: str, links: Sequence[bytes], task: str, agents: Sequence[str], subject: str, kid: str
) -> tuple[str | bytes, ...]:
    """Of a token: its ids, its names, its task and every task above."""
    above: list[str] = []
    at = task.rfind("/")
    while at > 0:
        above.append(task[:at])
        at = task.rfind("/", 0, at)
    return (token, subject, kid, task, *agents, *links, *above)


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """One restriction: whom it is on, what it does, and who did it, when and why, until when."""

    at: Integer  # seconds since the epoch
    by: str
    id: str
    link: dict[str, Any] | None = None  # the caveats, as a link has them; None: revoked
    select: Selector
    until: Integer | None = None
    why: str

    def stands(self, now: int) -> bool:
        """Has it not run out?"""
        return self.until is None or now < self.until


class _Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    entries: list[Entry]
    exp: Integer
    iat: Integer
    seq: Integer
    v: Integer


_decode = msgspec.json.Decoder(_Snapshot).decode
_encode = msgspec.json.Encoder(order="sorted").encode


class Overlay:
    """A snapshot whose signature held. Immutable in use, shared freely between threads.

    `open` is the only way to one. `seq` never goes back; `issued_at` is when the operator last said that this is all.
    """

    __slots__ = ("_any", "_filed", "_keys", "_links", "entries", "expires_at", "issued_at", "seq")

    entries: tuple[Entry, ...]
    seq: int
    issued_at: int
    expires_at: int

    def __init__(self, snapshot: _Snapshot, links: dict[str, Link]) -> None:
        self.entries = tuple(snapshot.entries)
        self.seq, self.issued_at, self.expires_at = snapshot.seq, snapshot.iat, snapshot.exp
        self._links = links  # what narrowing entries say, by entry id
        # Each entry is filed under the one thing that selects the fewest tokens; what is left is asked in full.
        self._filed: dict[str, dict[Any, list[Entry]]] = {what: {} for what in _FILED}
        self._any: list[Entry] = []
        for entry in self.entries:
            what = next((what for what in _FILED if getattr(entry.select, what) is not None), None)
            if what is None:
                self._any.append(entry)
            else:
                key = getattr(entry.select, what)
                self._filed[what].setdefault(b64decode(key) if what == "link" else key, []).append(entry)
        self._keys = frozenset(key for filed in self._filed.values() for key in filed)

    @classmethod
    def open(cls, data: bytes, operators: Iterable[bytes | str], *, vocabulary: Vocabulary = V1) -> Overlay:
        """The overlay in a snapshot that one of the operators signed. Raises OverlayError, and nothing else for any data.

        Does not ask whether it is the newest, or how old it is: verifiers do.
        """
        if type(data) is not bytes:
            raise OverlayError(f"a snapshot is bytes, not {type(data).__name__}")
        trusted = [keys.signing_key(operator, "operator") for operator in operators]
        if len(data) > MAX_BYTES:
            raise OverlayError(f"a snapshot of more than {MAX_BYTES} bytes")
        body, signature = data[: -_SIGNATURE_CHARS - 1], data[-_SIGNATURE_CHARS - 1 :]
        try:
            signed = b64decode(signature[1:].decode("latin-1")) if signature[:1] == b"." else b""
        except EncodingError:
            signed = b""
        message = _OVERLAY + primitives.sha256(body)
        if not any(primitives.signed(operator, message, signed) for operator in trusted):
            raise OverlayError("no operator that is trusted here signed the snapshot")
        try:
            snapshot = _decode(body)
            if snapshot.v != 1:
                raise ValueError(f"version {snapshot.v} is not known here")
            if (_encode(snapshot) if body.isascii() else encode_json(msgspec.to_builtins(snapshot))) != body:
                raise ValueError("it is not canonical JSON")
            if len({entry.id for entry in snapshot.entries}) < len(snapshot.entries):
                raise ValueError("two entries with one id")
            links = {entry.id: _read(entry.link, vocabulary) for entry in snapshot.entries if entry.link is not None}
        except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError, ValueError) as error:
            raise OverlayError(f"the snapshot cannot be read: {error}") from None
        return cls(snapshot, links)

    def touches(self, keys_: Sequence[str | bytes]) -> bool:
        """May an entry be on a token with these keys (`Facts.keys`)? A no is sure, and sooner to be had than from `on`."""
        return bool(self._any) or not self._keys.isdisjoint(keys_)

    def on(self, facts: Facts, now: int) -> list[Entry]:
        """The entries on a token, that still stand."""
        found = [*self._any]
        for key in dict.fromkeys(facts.keys):
            found += [entry for filed in self._filed.values() for entry in filed.get(key, ())]
        return [entry for entry in found if entry.stands(now) and entry.select.selects(facts)]

    def link(self, entry: Entry) -> Link | None:
        """What a narrowing entry restricts to; None if it revokes."""
        return self._links.get(entry.id)

    def __repr__(self) -> str:
        return f"<Overlay {self.seq}, {len(self.entries)} entries>"


_FILED = ("link", "token", "subject", "agent", "task", "kid")  # from what selects the fewest to what selects the most


def _read(stated: Mapping[str, Any], vocabulary: Vocabulary) -> Link:
    """The caveats of an entry. Raises ValueError for a link that cannot be read, or that speaks of more than requests."""
    link = read_link(encode_json(stated), vocabulary)
    if isinstance(link, BadLink):
        raise ValueError(f"an entry's link: {link.text}")
    if not is_about_requests(link):
        raise ValueError("an entry's link speaks of task, lineage or keys, or counts")
    return link


# --- the operator ----------------------------------------------------------------------------------------------------


class _Lock:
    """A lock that does not stay held in a child process, where whoever held it is not."""

    def __init__(self) -> None:
        self._lock, self._process = Lock(), os.getpid()

    @contextmanager
    def held(self, waits: bool = True) -> Generator[bool, None, None]:
        """In the block: is it held here?"""
        if self._process != os.getpid():
            self._lock, self._process = Lock(), os.getpid()
        lock = self._lock
        mine = lock.acquire(blocking=waits)
        try:
            yield mine
        finally:
            if mine:
                lock.release()


class SnapshotStore(Protocol):
    """Where the newest snapshot lies: a file, a table, a bucket.

    Verifiers need not trust it: they go back behind nothing that they have seen. Operators do: they add to what it shows
    them, and one that is shown an old snapshot, and has no memory of a newer one, signs the old one anew.
    """

    def load(self) -> bytes | None:
        """The newest snapshot; None if there never was one. Raises StoreError, or anything, when it cannot tell."""
        ...

    def publish(self, snapshot: bytes, after: bytes | None) -> bool:
        """Put `snapshot` in the place of `after`, in one atomic step; False if something else lies there by now.

        When it returns True the snapshot is safe: no crash loses it.
        """
        ...


class Operator:
    """Adds restrictions to tokens already out, and takes them off. Reads and writes the newest snapshot in `store`.

    `by` is who, for the record. Each change signs a new snapshot with the next number. `renew` does so without a change:
    verifiers deny once the newest is older than their bound, so somebody has to, more often than that. `life` is how many
    seconds a snapshot is good for, whatever a verifier's bound.

    `last` is the number that an earlier process has seen (`operator.last`): a store that has less has lost something, and
    raises OverlayError. So does one whose newest snapshot has run out, since a newer one should have been there. Who has
    looked, and knows that this is all, says `resume=True`. `trusted`: public keys of operators from whom this one takes
    over. One key is for one overlay: whoever can put a snapshot of another one in its place changes what stands.
    """

    def __init__(
        self,
        key: OperatorKey,
        store: SnapshotStore,
        *,
        by: str,
        trusted: Iterable[bytes | str] = (),
        last: int = 0,
        resume: bool = False,
        life: int = LIFE,
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
        random: Callable[[int], bytes] = primitives.random_bytes,
    ) -> None:
        self._key, self._store, self._by = key, store, names.name(by, "by")
        self._trusted: tuple[bytes | str, ...] = (key.public, *(keys.signing_key(operator, "operator") for operator in trusted))
        self._resume, self._life = resume is True, life
        self._vocabulary, self._clock, self._random = vocabulary, clock, random
        self._lock = _Lock()
        self._last = last

    @property
    def last(self) -> int:
        """The highest number that was seen in the store, to be kept for the next process."""
        return self._last

    def revoke(self, *, why: str, until: Moment | None = None, **select: Unpack[Select]) -> Entry:
        """The tokens that are selected stop working: `revoke(token=token_id, why="lost laptop")`.

        What is said to select must all hold: see Selector. Raises TypeError or ValueError for what is none, StoreError.
        """
        return self._add(select, None, why, until)

    def end_task(self, task: str, *, why: str = "the task is over") -> Entry:
        """All tokens of a task, and of the tasks below it, stop working."""
        return self.revoke(task=task, why=why)

    def narrow(self, *, why: str, until: Moment | None = None, keep: writing.Strings = (), **given: Any) -> Entry:
        """The tokens that are selected can do no more than the caveats permit: `narrow(task="q3", operations=["select"], …)`.

        Takes the keywords of a Selector and, but for `task`, which selects, those of `attenuate`; as there, who names
        tables or operations closes tools, unless `keep="tools"`. Raises as `revoke` does.
        """
        select: Any = {key: given.pop(key) for key in Selector.__struct_fields__ if key in given}
        for keyword in given:
            if keyword in ("depth", "delegate_only", "uses", "budget"):
                raise TypeError(f"{keyword} is no caveat of an overlay: it belongs to a link of the chain")
            writing.known(keyword, self._vocabulary)
        wanted = writing.asked(given, self._vocabulary, self._clock, None)
        stated = {key: caveat.value for key, caveat in wanted.items()}
        for caveat, value in writing.kept(keep, stated).items():
            stated.setdefault(caveat, value)
        return self._add(select, decode_json(writing.spell(stated)), why, until)

    def lift(self, entry_id: str, *, why: str = "") -> None:
        """Take an entry off again. Raises ValueError if none that stands has that id. The log says who, and why."""
        now, found = read_clock(self._clock), False  # found once: an earlier try took it off, and its answer was lost

        def without(entries: list[Entry]) -> list[Entry]:
            nonlocal found
            rest = [entry for entry in entries if entry.id != entry_id or not entry.stands(now)]
            if len(rest) == len(entries) and not found:
                raise ValueError(f"no entry {names.shown(entry_id)} stands")
            found = True
            return rest

        self._publish(without)
        _log.info("entry %s lifted by %s: %s", entry_id, self._by, escape(why))

    def renew(self) -> Overlay:
        """Sign anew what stands, without what has run out. Raises StoreError, OverlayError."""
        return self._publish(lambda entries: entries)

    def entries(self) -> tuple[Entry, ...]:
        """What stands now."""
        newest, now = self._newest()[1], read_clock(self._clock)
        entries = newest.entries if newest is not None else ()
        return tuple(entry for entry in entries if entry.stands(now))

    def _add(self, select: Mapping[str, Any], link: dict[str, Any] | None, why: str, until: Moment | None) -> Entry:
        if not names.exact_str(why, "why").strip():
            raise ValueError("say why: the record is for people")
        entry = Entry(
            id=b64encode(self._random(8)), at=read_clock(self._clock), by=self._by, why=why, link=link,
            select=Selector(**select), until=None if until is None else writing.moment(until, "until"),
        )  # fmt: skip
        if not entry.stands(entry.at):
            raise ValueError("until is over already: it is a time, in seconds since the epoch")
        self._publish(lambda entries: entries if entry in entries else [*entries, entry])  # its first answer may be lost
        _log.info("entry %s by %s on %s: %s", entry.id, self._by, escape(str(entry.select)), escape(why))
        return entry

    def _newest(self) -> tuple[bytes | None, Overlay | None]:
        with self._lock.held():
            data = self._store.load()
            newest = None if data is None else Overlay.open(data, self._trusted, vocabulary=self._vocabulary)
            seq = 0 if newest is None else newest.seq
            if self._resume:  # once: what is there then is what counts
                self._resume = False
            elif seq < self._last:  # to go on from there would take back what was acknowledged
                raise OverlayError(f"the store has lost what it had: snapshot {self._last} was there, and now it is {seq}")
            elif newest is not None and read_clock(self._clock) >= newest.expires_at:
                raise OverlayError(f"snapshot {seq} ran out at {moment(newest.expires_at)}: is it the newest?")
            self._last = max(self._last, seq)
        return data, newest

    def _publish(self, change: Callable[[list[Entry]], list[Entry]]) -> Overlay:
        """The newest snapshot, changed; again, as long as others come first."""
        for _ in range(_TRIES):
            before, newest = self._newest()
            now, seq = read_clock(self._clock), self._last + 1
            issued_at, entries = (now, ()) if newest is None else (max(now, newest.issued_at), newest.entries)
            if issued_at > now + _AHEAD:  # it was signed by a clock that was wrong, and is of no use to anyone
                issued_at = now
            kept = [entry for entry in entries if entry.until is None or now < entry.until + _KEPT]
            made = snapshot(self._key, change(kept), seq=seq, issued_at=issued_at, life=self._life)
            opened = Overlay.open(made, self._trusted, vocabulary=self._vocabulary)  # nothing that readers refuse
            with self._lock.held():
                if self._store.publish(made, before) is True:
                    self._last = max(self._last, seq)
                    return opened
        raise StoreError(f"{_TRIES} others published first")

    def __repr__(self) -> str:
        return f"<Operator {self._by}>"


_TRIES = 32
_AHEAD = 60  # seconds that a clock may be ahead (spec 36.7)
_KEPT = 86_400  # seconds that an entry is kept after its end: for the clock of whoever signs next


def snapshot(key: OperatorKey, entries: Iterable[Entry], *, seq: int, issued_at: int, life: int = LIFE) -> bytes:
    """A signed snapshot. Raises OverlayError for one that readers would refuse for its size."""
    stated = _Snapshot(entries=list(entries), exp=issued_at + life, iat=issued_at, seq=seq, v=1)
    body = encode_json(msgspec.to_builtins(stated))
    if len(body) + _SIGNATURE_CHARS + 1 > MAX_BYTES:
        raise OverlayError(f"a snapshot of more than {MAX_BYTES} bytes")
    return body + b"." + b64encode(key.sign(_OVERLAY + primitives.sha256(body))).encode()


# --- the verifier's side ---------------------------------------------------------------------------------------------


class Feed:
    """The newest overlay, for verifiers: loads it from a store, checks who signed it, and never goes back.

    Looks at the store when it is asked and `every` seconds have passed; 0 is each time. What it cannot load or read it passes
    over for as long as it has an overlay, and logs it: that one grows old, and verifiers deny past their bound.
    """

    def __init__(
        self,
        store: SnapshotStore,
        operators: Iterable[bytes | str],
        *,
        every: int = 5,  # seconds
        vocabulary: Vocabulary = V1,
        clock: Clock = time,
    ) -> None:
        self._store, self._every, self._vocabulary, self._clock = store, every, vocabulary, clock
        self._operators = [keys.signing_key(operator, "operator") for operator in operators]
        self._lock = _Lock()
        self._seen: bytes | None = None
        self._overlay: Overlay | None = None
        self._looked: int | None = None
        self.problem: Exception | None = None  # what the last look came upon

    def __call__(self) -> Overlay | None:
        """The newest overlay that is known here, or None."""
        now = read_clock(self._clock)
        due = self._looked is None or not 0 <= now - self._looked < self._every
        if due:
            waits = self._overlay is None or self._every == 0
            with self._lock.held(waits) as mine:  # one looks; the others take what there is
                if mine:
                    self._looked = now
                    with suppress(Exception):
                        self._take()
        return self._overlay

    def refresh(self) -> Overlay:
        """Look at the store now. Raises what the store raises, and OverlayError for what is no overlay or an older one."""
        with self._lock.held():
            self._looked = read_clock(self._clock)
            return self._take()

    def _take(self) -> Overlay:
        """What lies in the store now, if it will do. What comes of it is told once, when it changes."""
        before, self.problem = self.problem, None
        try:
            self._overlay = found = self._look()
        except Exception as error:
            self.problem = error
            raise
        finally:
            if str(before) != str(self.problem):
                _log.warning("the overlay: %s", "can be had again" if self.problem is None else escape(str(self.problem)))
        return found

    def _look(self) -> Overlay:
        data, known = self._store.load(), self._overlay
        if data is None:
            raise OverlayError("there is no snapshot yet")
        if known is not None and data == self._seen:
            return known
        loaded = Overlay.open(data, self._operators, vocabulary=self._vocabulary)
        if known is not None and loaded.seq <= known.seq:
            raise OverlayError(f"snapshot {loaded.seq} is not newer than {known.seq}, which is known here")
        self._seen = data
        return loaded

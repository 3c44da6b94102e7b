"""The audit trail, written: one record for each decision (spec, "Audit").

    {"kind":"token",…}        what a token says, the first time that it is seen: its root record,
                              and each link
    {"kind":"decision",…}     who tried what, what came of it, which link refused, and how the
                              names are known
    {"kind":"issuance",…}     at an issuer: who asked for a task, what for, and what came of it
    {"kind":"checkpoint",…}   the server's signature over all that stands above it

A record is a line of canonical JSON. How the data flows:

    Decision     `described` makes a record of it, and `token_of` one of its token
    records      `AuditTrail` numbers them, and each gets the hash of the line before
    lines        go to `write`, all those of one step in one call
    checkpoint   is signed over the hash of the last line, and so over all above it

What shows, and what does not (spec 39.8):

- An edit, a cut or a reorder shows by the hashes.
- A rollback shows by a head that somebody keeps elsewhere. Nothing in the file shows it.
- Whoever writes the file and has the key can write another. So heads are kept by others.
- No record holds a token, a key, or, unless asked for, the value of an argument or attribute.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from time import time
from typing import Any, TypeAlias

import msgspec

from captoken._format import primitives
from captoken._format.clocks import Clock
from captoken._format.encoding import (
    MAX_INTEGER,
    b64decode,
    b64encode,
    decode_json,
    encode_json,
)
from captoken._format.errors import AuditError, DischargeError
from captoken._format.parts import RawCaveat
from captoken._language.access import Access
from captoken._language.caveats import V1
from captoken._language.discharge import Ticket
from captoken._language.link import BadLink, Link
from captoken._language.links import read_links, words_of
from captoken._verification.decision import Attribution, Decision
from captoken._verification.grant import Grant
from captoken.keys.secret import AuditKey
from captoken.stores.own_process import OwnProcess
from captoken.stores.ports import Head, Reservation

_log = logging.getLogger("captoken")
_AUDIT = primitives.label("audit")

# Tokens that were described, at most: one that is seen again later is described again. A reader
# takes the second description for the same token, so that forgetting one costs a line and no more.
REMEMBERED = 10_000

# Seconds after the one that was decided on: what is recorded later than that, or before it, is told
# by a clock that is not the verifier's.
_SOON = 60

Record: TypeAlias = dict[str, Any]  # without its place in the trail: `seq` and `prev`


def checkpoint_message(head: Head) -> bytes:
    """What a checkpoint that follows on `head` is a signature of (spec 39.4).

    The hash of the line before commits to all lines above it. The label keeps the signature from
    being taken for one of another purpose.
    """
    return _AUDIT + b64decode(head.hash)


class AuditTrail:
    """Writes the trail: pass it to a Verifier as `audit`. What `write` raises denies.

        file = TrailFile("trail.jsonl")
        trail = AuditTrail(file.write, head=file.head, key=key)
        verifier = Verifier(keyring, audience="payroll", audit=trail)

    What `write` promises:

    - It takes all that it is given or nothing. What it raises says that nothing stands there.
    - A number that it returns is of bytes, and too few is an error.
    - Where that is so, or an interruption left open whether a record stands, nothing more is
      recorded, and so nothing is allowed.
    - `captoken.stores.trail_file.TrailFile` writes to a file so.

    The rest:

    - `key` signs a checkpoint after every `every` records, and when `checkpoint` is called.
    - `head` is where an earlier process or file left off.
    - `values=True` records the values of arguments and attributes as well. They may be personal
      data or secrets of those who called.
    - `trace` gives what else to record of a request, or None. It is called for each step.
    - `clock` tells when a record is made: a verifier decides on whole seconds, and within one of
      them much can happen. It decides nothing.

    Threads share one trail, and write one after the other. Processes have one each, and a forked
    one is refused. A decision costs one call of `write`; a token that is new here costs another.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        *,
        key: AuditKey | None = None,
        every: int = 1000,
        head: Head | None = None,
        values: bool = False,
        trace: Callable[[], str | None] | None = None,
        clock: Clock = time,
    ) -> None:
        self.head = head or Head()
        self._write = write
        self._key = key
        self._every = every
        self._values = values
        self._trace = trace
        self._clock = clock

        # All below is read and written under the lock alone.
        self._since = 0  # records since the last checkpoint
        self._torn = False  # may something stand behind the head?
        self._described: OrderedDict[str, None] = OrderedDict()  # by the id of the last link
        self._lock = Lock()
        self._process = OwnProcess()

    def record(self, decision: Decision) -> None:
        """Write what was decided.

        A verifier calls it before its answer stands, so that what cannot be recorded is denied. The
        whole record stands there when it returns; on disk, if `write` sees to that.

        Raises what `write` raises, and AuditError in another process or where it is not known what
        stands.
        """
        self.record_all((decision,))

    def record_all(self, decisions: Sequence[Decision]) -> None:
        """Write what was decided on one step, in one go: all of it, or none (spec 39.7).

        Raises as `record` does, and what `trace` and `clock` raise. A checkpoint that cannot be
        had raises nothing.
        """
        # Outside the lock: this takes longest, and needs nothing that other threads change.
        records = [described(decision, values=self._values) for decision in decisions]
        made = self._clock()
        for stated in records:
            stated |= _how_late(stated["at"], made)
        trace = self._trace() if self._trace is not None else None
        if trace is not None:
            for stated in records:
                stated["trace"] = trace

        # Tokens come first, by spec 39.3. If the decisions then fail, a token is described that
        # nothing is said of, and that is harmless.
        with self._own_lock():
            for decision, stated in zip(decisions, records, strict=True):
                self._describe_token(decision, stated.get("link"))
            self._append(*records)

            is_due = self._since >= self._every
            if self._key is not None and is_due:
                self._try_to_sign()

    def record_issuance(self, stated: Record, minted: Attribution | None = None) -> None:
        """Write what came of an exchange at an issuer (spec 39.10), along with what was minted.

        The issuer calls it before the token leaves. `stated` has `at`, and is canonical JSON: see
        `plain`. Raises as `record` does, and what `trace` and `clock` raise.
        """
        made = self._clock()
        record: Record = {"kind": "issuance", **stated, **_how_late(stated["at"], made)}
        trace = self._trace() if self._trace is not None else None
        if trace is not None:
            record["trace"] = trace
        if minted is None:
            records = [record]
        else:
            records = [token_of(minted), record | _attributed(minted)]

        with self._own_lock():
            self._append(*records)
            if self._key is not None and self._since >= self._every:
                self._try_to_sign()

    def checkpoint(self) -> Head:
        """Sign what was written so far; the head, to be kept elsewhere.

        The head that it returns is of the checkpoint itself. Kept by somebody else, it shows a
        trail that was rolled back or written anew (spec 39.5).

        Raises ValueError without a key, and otherwise as `record` does.
        """
        with self._own_lock():
            self._sign()
            return self.head

    def _own_lock(self) -> Lock:
        """The lock; AuditError in a forked process, where another thread may hold it for ever."""
        if not self._process.is_own():
            raise AuditError("this trail belongs to another process: each has one of its own")
        return self._lock

    def _describe_token(self, decision: Decision, link: str | None) -> None:
        """A record of the token that a decision is about, unless it has one.

        `link` is the id of its last link, which names the token: children have others. A token
        whose chain did not hold has no attribution, and nothing that it says is written.
        """
        known = decision.attribution
        if known is None or link is None or link in self._described:
            return

        # Noted after it stands, and not before: if `write` raises, the next decision tries again.
        self._append(token_of(known))
        self._described[link] = None
        if len(self._described) > REMEMBERED:
            self._described.popitem(last=False)

    def _try_to_sign(self) -> None:
        """A checkpoint, if it can be had: what was decided stands there without one.

        The next record makes up for one that failed. So a key or a disk that fails here denies
        nobody, and the log says that it does. If it is not known whether the checkpoint stands,
        the trail is torn, and the next record is refused.
        """
        try:
            self._sign()
        except Exception as error:
            _log.error("a checkpoint was not written: %s", type(error).__name__)

    def _sign(self) -> None:
        """Append a checkpoint over all that stands. Raises ValueError without a key."""
        if self._key is None:
            raise ValueError("a trail without a key has no checkpoints: give it one, key=AuditKey…")
        signature = self._key.sign(checkpoint_message(self.head))
        self._append(
            {
                "kind": "checkpoint",
                "key": self._key.public,
                "signature": b64encode(signature),
            }
        )
        self._since = 0

    def _append(self, *records: Record) -> None:
        """All of the records in one write, or none.

        Each gets its number and the hash of the line before it (spec 39.2). The head moves only
        when they are known to stand. Raises AuditError, and what `write` raises.
        """
        if self._torn:
            raise AuditError(
                "what was written last may stand there or not:"
                " go on from the file as it is, with a new trail"
            )

        head = self.head
        lines = b""
        for stated in records:
            seq = head.seq + 1
            line = encode_json({**stated, "prev": head.hash, "seq": seq})
            lines += line + b"\n"
            head = Head(seq, b64encode(primitives.sha256(line)))

        # Until it is known whether they stand: whatever interrupts leaves it so. An Exception of
        # `write` is its word that nothing stands; a KeyboardInterrupt is nobody's word.
        self._torn = True
        try:
            count = self._write(lines)
        except Exception:
            self._torn = False
            raise
        # A `write` that returns something else has said nothing of how much stands.
        if type(count) is int and count != len(lines):
            raise AuditError(f"{count} bytes of {len(lines)} were written: is the disk full?")

        self._since += len(records)
        self.head = head
        self._torn = False


# --- decisions ------------------------------------------------------------------------------------


def described(decision: Decision, *, values: bool = False) -> Record:
    """What a record says of a decision (spec 39.3), without its place in a trail.

    No token, key or proof is in it. What is optional is left out, since a record has no null:

    - `access`, `caller` and `refusals`, if there are any; `id`, of a denial;
    - who is behind the token, where its chain held;
    - `taken`, if a ledger let it pass.

    `values` says whether the values of arguments and attributes may be shown to whoever reads it.
    """
    stated: Record = {
        "kind": "decision",
        "at": decision.now,
        "allowed": bool(decision),
        "code": decision.code,
    }
    if decision.id:
        stated["id"] = decision.id
    if decision.leeway:
        stated["leeway"] = decision.leeway
    if decision.access is not None:
        stated["access"] = _described_access(decision.access, values)
    if decision.caller is not None:
        stated["caller"] = _stated(decision.caller)
    if decision.refusals:
        stated["refusals"] = [_without_none(refusal.as_dict()) for refusal in decision.refusals]

    known = decision.attribution
    if known is not None:
        stated |= _attributed(known)
    # What was denied has taken nothing that stands.
    if decision:
        stated |= _taken(decision)
    return stated


def _how_late(at: int, made: float) -> Record:
    """How many thousandths of a second after the second `at` a record is made (spec 39.3).

    Nothing, where that is no sensible time: a clock for tests, or one that gives NaN.
    """
    late = made - at
    if not 0 <= late < _SOON:
        return {}
    return {"ms": int(late * 1000)}


def _stated(value: msgspec.Struct) -> Record:
    """The fields of a struct that are not None: a record has no null."""
    return _without_none(msgspec.structs.asdict(value))


def _without_none(fields: Record) -> Record:
    """What there is of some fields."""
    return {key: field for key, field in fields.items() if field is not None}


def _attributed(known: Attribution | Grant) -> Record:
    """Who is behind a token whose signature held, and how each name is known.

    The subject is the issuer's word. Names in the chain that are `vouched` are what holders wrote.
    """
    stated: Record = {
        "token": known.issued.token_id,
        "sub": known.issued.subject,
        "task": known.task,
        "chain": [{"name": actor.name, "basis": actor.basis} for actor in known.chain],
    }
    link_ids = known.link_ids
    if link_ids:
        stated["link"] = link_ids[-1]
    return stated


def _taken(decision: Decision) -> Record:
    """By which reservation it was allowed: one at most, since a ledger is asked in one step.

    Accesses of one step name the same one, and so do its further parts (38.16). So whoever counts
    uses in a trail counts it once.
    """
    for effect in decision.effects:
        if isinstance(effect, Reservation):
            return {"taken": b64encode(effect.step)}
    return {}


def _described_access(access: Access, values: bool) -> Record:
    """What was tried: names of arguments, attributes and columns, or values too (spec 39.6)."""
    stated: Record = {}
    for fact in ("table", "operation", "tool"):
        name = getattr(access, fact)
        if name is not None:
            stated[fact] = name
    # No columns is something else than columns that were not stated (spec 7.3).
    if access.columns is not None:
        stated["columns"] = list(access.columns)

    if access.rows is not None:
        stated["rows"] = [dict(condition) for condition in access.rows]  # words of the token
    for fact in ("row", "becomes", "arguments", "attributes"):
        given: Mapping[str, Any] | None = getattr(access, fact)
        if given and values:
            stated[fact] = {key: plain(value) for key, value in given.items()}
        elif given:
            stated[fact] = sorted(given)
    if access.cost:
        stated["cost"] = dict(access.cost)
    return stated


_DEEPEST = 24  # levels of a value that are recorded, as they are written


def plain(value: Any, depth: int = _DEEPEST, longest: int | None = None) -> Any:
    """A value as canonical JSON has it, told from every other (spec 39.6).

    What has no spelling there is an object whose only key is `~`, with text. A value that looks
    like such a mark is marked itself, and so takes two levels. So no caller can write a value that
    a reader takes for one that was left out. A text of more characters than `longest` is left out,
    and so is an object with such a key.
    """
    kind = type(value)
    if kind is str:
        return value if longest is None or len(value) <= longest else _mark("...")
    if kind is bool:
        return value
    if kind is int:
        is_spelled = abs(value) <= MAX_INTEGER
        return value if is_spelled else _mark(hex(value))

    if kind is list and depth:
        return [plain(item, depth - 1, longest) for item in value]
    if kind is dict and (longest is None or all(len(key) <= longest for key in value)):
        looks_like_a_mark = value.keys() == {"~"}
        below = depth - (2 if looks_like_a_mark else 1)
        if below >= 0:
            made = {key: plain(item, below, longest) for key, item in value.items()}
            return _mark(made) if looks_like_a_mark else made

    if value is None:
        return _mark("null")
    if kind is float:
        return _mark(repr(value))
    return _mark("...")  # too deep, or too long


def _mark(said: Any) -> dict[str, Any]:
    """What stands for a value that canonical JSON does not have."""
    return {"~": said}


# --- tokens ---------------------------------------------------------------------------------------


def token_of(known: Attribution | Grant) -> Record:
    """What a record says of a token whose signature held: who minted it for whom, and each link.

    The links are those that a verifier of version 1 reads, without the embedder's own caveats: what
    they say is recorded, whether it is known here or not.

    A holder can write whatever a link can say, names among it. So a trail has text of strangers,
    and whoever shows it escapes it.
    """
    caveats = known.caveats
    links = read_links(caveats, V1)
    described_links = [
        {"id": link_id, "says": _says(caveat, link)}
        for link_id, caveat, link in zip(known.link_ids, caveats, links, strict=True)
    ]
    return {
        "kind": "token",
        "root": decode_json(known.issued.encode()),
        "links": described_links,
    }


# What a record says of a link in place of its words. A link with one of these keys is read by
# nobody, and is recorded as unreadable: no holder puts such words into the trail.
_MARKS = frozenset(("asks", "unreadable"))


def _says(caveat: RawCaveat, link: Link | BadLink) -> Record:
    """What a link says; whom a third-party caveat asks; or that it cannot be read.

    `link` is what a verifier reads there. The signature of a link is left out: no record has
    one (spec 39.6).
    """
    cid, vid = caveat
    if vid:
        return {"asks": _third_party(cid)}
    if isinstance(link, BadLink) and link.code == "unreadable_link":
        return {"unreadable": True}

    # Any other link is canonical JSON: that it is unknown or dead does not make it unreadable.
    stated = words_of(cid)
    has_a_mark = not _MARKS.isdisjoint(stated)
    return {"unreadable": True} if has_a_mark else stated


def _third_party(cid: bytes) -> str:
    """The key of whoever is asked, as a ticket says it; a question mark for what is no ticket."""
    try:
        return Ticket.parse(cid).discharger
    except DischargeError:
        return "?"

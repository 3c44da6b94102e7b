"""The audit trail: one record for each decision, chained by hashes, with signed checkpoints (spec, "Audit").

    {"kind":"token",…}        what a token says, the first time that it is seen: its root record, and each link
    {"kind":"decision",…}     who tried what, what came of it, which link refused, and how the names are known
    {"kind":"checkpoint",…}   the server's signature over all that stands above it

A record is a line of canonical JSON. Each names the hash of the line before it, so that an edit, a cut or a reorder shows;
a checkpoint that somebody keeps elsewhere shows a rollback. No record holds a token, a key, or, unless asked for, the
value of an argument or attribute.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec

from captoken._format import primitives
from captoken._format.encoding import (
    MAX_INTEGER,
    EncodingError,
    b64decode,
    b64encode,
    decode_json,
    encode_json,
)
from captoken._format.errors import AuditError
from captoken._format.packet import RawCaveat
from captoken._language.caveats import V1
from captoken._language.links import BadLink, Link, read_links, split_signature
from captoken.keys.secret import AuditKey
from captoken.stores.own_process import OwnProcess
from captoken.stores.ports import Head, Reservation

if TYPE_CHECKING:
    from captoken._language.access import Access
    from captoken._verification.decision import Decision

_log = logging.getLogger("captoken")
_AUDIT = primitives.label("audit")
REMEMBERED = 10_000  # tokens that were described: one that is seen again later is described again


class AuditTrail:
    """Writes the trail: pass it to a Verifier as `audit`. What `write` raises denies; lines are whole when it returns.

    `write` takes all that it is given or nothing: what it raises says that nothing stands there. A number that it returns
    is of bytes; where that is too few, or an interruption left open whether a record stands, nothing more is recorded, and
    so nothing is allowed. `captoken.stores.trail_file.TrailFile` writes to a file so.

    `key` signs a checkpoint after every `every` records, and when `checkpoint` is called. `head` is where an earlier
    process or file left off. `values=True` records the values of arguments and attributes as well. Threads share one
    trail; processes have one each, and a forked one is refused.
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
    ) -> None:
        self._write, self._key, self._every, self._values, self._trace = (
            write,
            key,
            every,
            values,
            trace,
        )
        self.head = head or Head()
        self._since = 0  # records since the last checkpoint
        self._torn = False  # may something stand behind the head?
        self._described: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()
        self._process = OwnProcess()

    def record(self, decision: Decision) -> None:
        """Write what was decided. Raises what `write` raises."""
        self.record_all((decision,))

    def record_all(self, decisions: Sequence[Decision]) -> None:
        """Write what was decided on one step, in one go. Raises what `write` raises."""
        records = [described(decision, values=self._values) for decision in decisions]
        trace = self._trace() if self._trace is not None else None
        if trace is not None:
            for stated in records:
                stated["trace"] = trace
        with self._mine():
            for decision, stated in zip(decisions, records, strict=True):
                link = stated.get("link")
                if link is not None and link not in self._described:
                    self._append(token_of(decision))
                    self._described[link] = None
                    if len(self._described) > REMEMBERED:
                        self._described.popitem(last=False)
            self._append(*records)
            if self._key is not None and self._since >= self._every:
                try:
                    self._sign()
                except (
                    Exception
                ) as error:  # what was decided stands there, and the next record makes up for this
                    _log.error("a checkpoint was not written: %s", type(error).__name__)

    def checkpoint(self) -> Head:
        """Sign what was written so far; the head, to be kept elsewhere. Raises ValueError without a key."""
        with self._mine():
            self._sign()
            return self.head

    def _mine(self) -> Lock:
        if not self._process.is_own():
            raise AuditError("this trail belongs to another process: each has one of its own")
        return self._lock

    def _sign(self) -> None:
        if self._key is None:
            raise ValueError("a trail without a key has no checkpoints")
        message = _AUDIT + b64decode(self.head.hash)
        self._append(
            {
                "kind": "checkpoint",
                "key": self._key.public,
                "signature": b64encode(self._key.sign(message)),
            }
        )
        self._since = 0

    def _append(self, *records: dict[str, Any]) -> None:
        """All of the records in one write, or none."""
        if self._torn:
            raise AuditError(
                "what was written last may stand there or not: go on from the file as it is, with a new trail"
            )
        head, lines = self.head, b""
        for stated in records:
            line = encode_json({**stated, "prev": head.hash, "seq": head.seq + 1})
            lines += line + b"\n"
            head = Head(head.seq + 1, b64encode(primitives.sha256(line)))
        self._torn = True  # until it is known; whatever interrupts leaves it so
        try:
            count = self._write(lines)
        except Exception:
            self._torn = False
            raise
        if type(count) is int and count != len(lines):
            raise AuditError(f"{count} bytes of {len(lines)} were written")
        self._since += len(records)
        self.head = head
        self._torn = False


_DEEPEST = 24  # levels of a value that are recorded, as they are written


def _plain(value: Any, depth: int = _DEEPEST) -> Any:
    """A value as canonical JSON has it, told from every other: what has no spelling there is `{"~": "<text>"}`."""
    if type(value) in (str, bool) or (type(value) is int and abs(value) <= MAX_INTEGER):
        return value
    if depth and type(value) is list:
        return [_plain(item, depth - 1) for item in value]
    if type(value) is dict:
        marks = int(value.keys() == {"~"})  # an object that looks like a mark is marked itself
        if depth > marks:
            made = {key: _plain(item, depth - 1 - marks) for key, item in value.items()}
            return {"~": made} if marks else made
    if type(value) is int:
        return {"~": hex(value)}
    return {"~": "null" if value is None else repr(value) if type(value) is float else "..."}


def described(decision: Decision, *, values: bool = False) -> dict[str, Any]:
    """What a record says of a decision."""
    known = decision.attribution
    stated: dict[str, Any] = {
        "kind": "decision",
        "at": decision.now,
        "allowed": bool(decision),
        "code": decision.code,
    }
    if decision.leeway:
        stated["leeway"] = decision.leeway
    if decision.access is not None:
        stated["access"] = _access(decision.access, values)
    if decision.caller is not None:
        stated["caller"] = {
            key: value
            for key, value in msgspec.structs.asdict(decision.caller).items()
            if value is not None
        }
    if decision.refusals:
        stated["refusals"] = [
            {
                key: value
                for key, value in msgspec.structs.asdict(refusal).items()
                if value is not None
            }
            for refusal in decision.refusals
        ]
    if known is not None:
        stated["token"] = known.issued.token_id
        stated["sub"] = known.issued.subject
        stated["task"] = known.task
        stated["chain"] = [{"name": actor.name, "basis": actor.basis} for actor in known.chain]
        if known.link_ids:
            stated["link"] = known.link_ids[-1]
    if decision:
        taken = [
            b64encode(effect.id) for effect in decision.effects if isinstance(effect, Reservation)
        ]
        if taken:  # one at most: what is asked of a ledger is asked in one step
            stated["taken"] = taken[0]
    return stated


def _access(access: Access, values: bool) -> dict[str, Any]:
    stated: dict[str, Any] = {}
    for fact in ("table", "operation", "tool"):
        if getattr(access, fact) is not None:
            stated[fact] = getattr(access, fact)
    if access.columns is not None:
        stated["columns"] = list(access.columns)
    for fact in ("arguments", "attributes"):
        given: Mapping[str, Any] | None = getattr(access, fact)
        if given:
            stated[fact] = (
                {key: _plain(value) for key, value in given.items()} if values else sorted(given)
            )
    if access.cost:
        stated["cost"] = dict(access.cost)
    return stated


def token_of(decision: Decision) -> dict[str, Any]:
    """What a record says of a token whose signature held: who minted it for whom, and what each link adds."""
    known = decision.attribution
    assert known is not None  # noqa: S101
    read = read_links(known.caveats, V1)
    return {
        "kind": "token",
        "root": decode_json(known.issued.encode()),
        "links": [
            {"id": name, "says": _says(caveat, link)}
            for name, caveat, link in zip(known.link_ids, known.caveats, read, strict=True)
        ],
    }  # fmt: skip


_MARKS = frozenset(("asks", "unreadable"))  # what a record says of a link instead of its words


def _says(caveat: RawCaveat, link: Link | BadLink) -> dict[str, Any]:
    """What a link says; whom a third-party caveat asks; or that it cannot be read. `link` is what a verifier reads there."""
    cid, vid = caveat
    if vid:
        return {"asks": _asked(cid)}
    if isinstance(link, BadLink) and link.code == "unreadable_link":
        return {"unreadable": True}
    stated = decode_json(split_signature(cid)[0])
    # A link that only looks like what a record says of one is read by nobody.
    return {"unreadable": True} if _MARKS & stated.keys() else stated


def _asked(cid: bytes) -> str:
    try:
        stated = decode_json(cid).get("for")
    except EncodingError:
        stated = None
    return stated if type(stated) is str else "?"


# --- reading ---------------------------------------------------------------------------------------------------------

"""The audit trail, written: one record for each decision (spec, "Audit").

    {"kind":"token",…}        what a token says, when it is first seen: root record and links
    {"kind":"decision",…}     who tried what, the outcome, which link denied it, and how names are
                              known
    {"kind":"issuance",…}     at an issuer: who asked for which task, and the outcome
    {"kind":"checkpoint",…}   the server's signature over all records above

A record is a line of canonical JSON. How the data flows:

    Decision     `described` makes a record of it, and `token_of` one of its token
    records      `AuditTrail` numbers them, and adds the hash of the line before to each
    lines        go to `write`, all those of one step in one call
    checkpoint   a signature over the hash of the last line, and so over all lines above; and over
                 the root of a tree of the records since the last one, which proves one record alone

What a reader can detect (spec 39.8):

- The hashes reveal an edit, a cut or a new order.
- Only a head that somebody keeps elsewhere reveals a rollback. Nothing in the file does.
- Whoever can write the file and has the key can write another trail. So others must keep heads.
- No record holds a token or a key. Values of arguments and attributes are recorded only on request.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from time import time
from typing import Any, NamedTuple, TypeAlias

import msgspec

from captoken._format import primitives
from captoken._format.clocks import Clock
from captoken._format.encoding import (
    MAX_INTEGER,
    Spelled,
    as_spelled,
    b64decode,
    b64encode,
    decode_json,
    encode_with,
)
from captoken._format.errors import AuditError, DischargeError
from captoken._format.parts import RawCaveat
from captoken._language.access import Access
from captoken._language.caveats import V1
from captoken._language.discharge import Ticket
from captoken._language.link import Actor, BadLink, Link
from captoken._language.links import read_links, words_of
from captoken._verification.decision import Attribution, Decision
from captoken._verification.grant import Grant
from captoken._verification.telling import failed
from captoken.audit import _tree
from captoken.keys.secret import AuditKey
from captoken.stores.own_process import OwnProcess
from captoken.stores.ports import Head, MarkedStep, Reservation, Spend

_log = logging.getLogger("captoken")
_AUDIT = primitives.label("audit")
_AUDIT_TREE = primitives.label("audit tree")

# How many described tokens to remember. A token that was forgotten is described again. Readers take
# that for the same token, so forgetting one only costs a line.
REMEMBERED = 10_000

# A record is made within this many seconds of the decision. If it is later, or earlier, its clock
# is not the verifier's.
_SOON = 60

Record: TypeAlias = dict[str, Any]  # a record without `seq` and `prev`, its place in the trail
Spellings: TypeAlias = dict[str, Spelled]  # of a record, the members that were spelled before


class _Who(NamedTuple):
    """Who is behind a decision, as its record says it: spelled once for each token."""

    link: str  # the id of the token's last link, which identifies it: a child has another one
    actors: object  # its chain: a token that is read again has one of its own
    spelled: Spellings


_NOBODY = _Who("", None, {})  # what a token with an invalid chain says is recorded as nobody's


def checkpoint_message(head: Head) -> bytes:
    """The message that a checkpoint after `head` signs (spec 39.4).

    The hash of the last line commits to all lines above. The label separates the signature from
    those for other purposes.
    """
    return _AUDIT + b64decode(head.hash)


def tree_message(first: int, count: int, root: bytes) -> bytes:
    """What the tree of a checkpoint has a signature of (spec 39.4)."""
    return _AUDIT_TREE + first.to_bytes(8) + count.to_bytes(8) + root


class AuditTrail:
    """Writes the audit trail: pass it to a Verifier as `audit`.

    If `write` raises, access is denied.

        file = TrailFile("trail.jsonl")
        trail = AuditTrail(file.write, head=file.head, key=key)
        verifier = Verifier(keyring, audience="payroll", audit=trail)

    `write` must promise this:

    - It writes everything or nothing. If it raises, nothing was written.
    - If it returns a number, that is the number of bytes written. Fewer than given is an error.

    After such an error, or after an interruption that leaves it unclear whether a record was
    written, the trail records nothing more, and so nothing is allowed.
    `captoken.stores.trail_file.TrailFile` writes to a file in this way.

    The other arguments:

    - `key` signs a checkpoint after every `every` records, and when `checkpoint` is called. Call it
      before a server ends, too: what it wrote after its last checkpoint is in no tree.
    - `head` is the last record of an earlier process or file.
    - `values=True` records the values of arguments and attributes as well. They may be personal
      data or secrets of the callers.
    - `trace` returns a trace id to record, or None. It is called for each step.
    - `clock` gives the time of a record. It is finer than a verifier's whole seconds, and decides
      nothing.
    - `flush` returns once all that `write` was given before is on disk, and no decision is answered
      before that. Threads share it: one call is for all records that came meanwhile. So many
      threads wait for the disk as long as one does. If it raises, the trail records nothing more.
    - `waits=False` says that `write` waits for no network and no `sync`. Then an AsyncVerifier
      writes in the event loop's own thread. A thread for each record costs five times as much.

    Threads may share a trail; they write one after the other. Each process needs its own, and a
    forked child is refused. A decision costs one call of `write`, and one more if its token is new
    here.
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
        waits: bool = True,
        flush: Callable[[], object] | None = None,
    ) -> None:
        if flush is not None and not waits:
            raise ValueError("a trail with flush= waits for the disk: leave out waits=False")
        self.head = head or Head()
        self.waits = waits
        self._write = write
        self._key = key
        self._every = every
        self._values = values
        self._trace = trace
        self._clock = clock

        # Everything below is read and written only under the lock.
        self._since = 0  # the number of records since the last checkpoint
        # The hashes of these and of that checkpoint, of those that this object wrote.
        self._leaves = deque[bytes](maxlen=_tree.MOST)
        self._torn = False  # whether there may be a record after the head
        self._described: OrderedDict[str, _Who] = OrderedDict()  # by link, each described token
        self._lock = Lock()
        self._process = OwnProcess()

        # The number of the last record that is on disk, and the lock of whoever waits for that. It
        # is never taken within the other one.
        self._flush = flush
        self._flushed = self.head.seq
        self._flushing = Lock()
        self._lost = False  # whether something that was written may not be on disk, for good

    def record(self, decision: Decision) -> None:
        """Write the record of a decision.

        A verifier calls it before it answers, so that a decision that cannot be recorded is a
        denial. When this returns, `write` has the whole record; whether it is on disk depends on
        `write`.

        Raises what `write` raises. Raises AuditError in a forked process, and if it is unclear what
        was written before.
        """
        self.record_all((decision,))

    def record_all(self, decisions: Sequence[Decision]) -> None:
        """Write the records of all decisions of one step in one call: all or none (spec 39.7).

        Raises what `record`, `trace` and `clock` raise. A checkpoint that fails raises nothing.
        """
        # Do this outside the lock: it takes longest, and uses nothing that other threads change.
        made, traced = self._stamps()
        records: list[tuple[Record, Spellings]] = []
        tokens: list[tuple[Attribution | Grant, _Who]] = []
        for decision in decisions:
            stated = _decided(decision, self._values)
            stated |= _how_late(decision.now, made) | traced
            who, known = _NOBODY, decision.attribution
            if known is not None:
                who = self._who(known)
                tokens.append((known, who))
            records.append((stated, who.spelled))

        # Tokens come first (spec 39.3). If the decisions then fail, a token is described without
        # a decision about it, which is harmless.
        with self._own_lock():
            for known, who in tokens:
                self._describe_token(known, who)
            self._append(records)
            self._sign_if_due()
            last = self.head.seq
        self._wait_for_disk(last)

    def record_issuance(self, stated: Record, minted: Attribution | None = None) -> None:
        """Write the record of an exchange at an issuer, and that of a minted token (spec 39.10).

        The issuer calls it before it sends the token. `stated` has `at`, and is canonical JSON: see
        `plain`. Raises what `record`, `trace` and `clock` raise.
        """
        made, traced = self._stamps()
        late = _how_late(stated["at"], made)
        records: list[Record] = [{"kind": "issuance", **stated, **late, **traced}]
        if minted is not None:
            records = [token_of(minted), records[0] | _attributed(minted) | _chain(minted.chain)]

        with self._own_lock():
            self._append([(one, {}) for one in records])
            self._sign_if_due()
            last = self.head.seq
        self._wait_for_disk(last)

    def _stamps(self) -> tuple[float, Record]:
        """The time by the clock, and the trace that the records are of, if there is one."""
        made = self._clock()
        trace = self._trace() if self._trace is not None else None
        return made, {} if trace is None else {"trace": trace}

    def checkpoint(self) -> Head:
        """Sign what was written so far. Returns the head, which you should keep elsewhere.

        The head is that of the checkpoint itself. If somebody else keeps it, it reveals a trail
        that was rolled back or rewritten (spec 39.5).

        Raises ValueError without a key, and what `record` raises.
        """
        with self._own_lock():
            self._sign()
            head = self.head
        self._wait_for_disk(head.seq)
        return head

    def _wait_for_disk(self, seq: int) -> None:
        """Return once the record with this number is on disk, and all before it.

        Whoever waits for the lock finds mostly that the one before has flushed for both. Raises
        what `flush` raises: then nobody knows what is on disk, and nothing more is recorded.
        """
        if self._flush is None:
            return
        with self._flushing:
            if seq <= self._flushed:
                return
            self._check_disk()
            last = self.head.seq  # others may have written more by now: that is flushed, too
            try:
                self._flush()
            except BaseException:
                self._lost = True  # for good: a second flush might succeed, and that be lost
                raise
            self._flushed = last

    def _check_disk(self) -> None:
        """Raise AuditError once it is unclear what is on disk."""
        if self._lost:
            raise AuditError("the last records may not be on disk: continue with a new trail")

    def _own_lock(self) -> Lock:
        """The lock. Raises AuditError in a forked process, where it may be held for ever."""
        if not self._process.is_own():
            raise AuditError("this trail belongs to another process: open a trail in each process")
        return self._lock

    def _who(self, known: Attribution | Grant) -> _Who:
        """Who is behind a token, spelled: once for each token that is known here."""
        actors, link = known.chain, (known.link_ids or ("",))[-1]
        kept = self._described.get(link)
        if kept is not None and kept.actors is actors:
            return kept
        stated = _attributed(known) | _chain(actors)
        return _Who(link, actors, {key: as_spelled(value) for key, value in stated.items()})

    def _describe_token(self, known: Attribution | Grant, who: _Who) -> None:
        """A record of the token that a decision is about, unless it already has one."""
        kept = self._described.get(who.link)
        if kept is who or not who.link:
            return

        # Note it only after it was written: if `write` raises, the next decision tries again.
        if kept is None:
            self._append([(token_of(known), {})])
        self._described[who.link] = who
        if len(self._described) > REMEMBERED:
            self._described.popitem(last=False)

    def _sign_if_due(self) -> None:
        """Sign a checkpoint if one is due, and possible. The decision is recorded anyway.

        The next record tries again. So a key or disk that fails here denies nobody, and the failure
        is logged. If it is unclear whether the checkpoint was written, the trail is torn, and the
        next record is refused.
        """
        if self._key is None or self._since < self._every:
            return
        try:
            self._sign()
        except Exception as error:
            _log.error("a checkpoint was not written: %s", failed(error))

    def _sign(self) -> None:
        """Append a checkpoint over everything written. Raises ValueError without a key."""
        if self._key is None:
            raise ValueError("a trail without a key has no checkpoints: pass key=AuditKey…")
        stated: Record = {
            "kind": "checkpoint",
            "key": self._key.public,
            "signature": b64encode(self._key.sign(checkpoint_message(self.head))),
        }
        if self._leaves:
            stated["tree"] = self._signed_tree(self._key)
        self._append([(stated, {})])
        self._since = 0

        # The next tree begins with this checkpoint: so each stands under the one after.
        last = self._leaves[-1]
        self._leaves.clear()
        self._leaves.append(last)

    def _signed_tree(self, key: AuditKey) -> Record:
        """The root over the records that the next checkpoint seals, and the signature of it."""
        count = len(self._leaves)
        first = self.head.seq - count + 1
        root = _tree.root(self._leaves)
        return {
            "first": first,
            "root": b64encode(root),
            "signature": b64encode(key.sign(tree_message(first, count, root))),
        }

    def _append(self, records: Sequence[tuple[Record, Spellings]]) -> None:
        """Append all of the records in one write, or none.

        Each gets its number and the hash of the line before it (spec 39.2). The head advances only
        after the write has succeeded. Raises AuditError, and what `write` raises.
        """
        self._check_disk()
        if self._torn:
            raise AuditError(
                "the last write may or may not have reached the file: continue from the file as it "
                "is, with a new trail"
            )

        head = self.head
        lines = b""
        leaves: list[bytes] = []
        for stated, who in records:
            seq = head.seq + 1
            stated |= {"prev": head.hash, "seq": seq}
            line = encode_with(stated, who)
            lines += line + b"\n"
            head = Head(seq, b64encode(primitives.sha256(line)))
            if self._key is not None:
                leaves.append(_tree.leaf(line))

        # Set until the write has succeeded, so an interruption leaves it set. An Exception from
        # `write` promises that nothing was written; a KeyboardInterrupt promises nothing.
        self._torn = True
        try:
            count = self._write(lines)
        except Exception:
            self._torn = False
            raise
        # If `write` returns something else, it does not say how much was written.
        if type(count) is int and count != len(lines):
            raise AuditError(f"{count} bytes of {len(lines)} were written: is the disk full?")

        self._since += len(records)
        self._leaves.extend(leaves)
        self.head = head
        self._torn = False


# --- decisions ------------------------------------------------------------------------------------


def described(decision: Decision, *, values: bool = False) -> Record:
    """The content of a decision's record (spec 39.3), without its number and hash.

    It contains no token, key or proof. Optional fields are left out, because a record has no null:

    - `access`, `caller` and `refusals`, if there are any; and the `id` of a denial;
    - who is behind the token, if its chain is valid;
    - `taken`, if a ledger counted the access; and `marks`, if it set any.

    `values` says whether readers may see the values of arguments and attributes.
    """
    stated = _decided(decision, values)
    known = decision.attribution
    if known is not None:
        stated |= _attributed(known) | _chain(known.chain)
    return stated


def _decided(decision: Decision, values: bool) -> Record:
    """The same without who is behind it."""
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
    # A denied access has taken nothing, and set nothing.
    if decision.effects and decision:
        stated |= _taken(decision)
        stated |= _set(decision)
        stated |= _consented(decision)
    return stated


def _how_late(at: int, made: float) -> Record:
    """How many milliseconds after the second `at` the record was made (spec 39.3).

    Empty if that is no sensible time, as with a clock for tests, or one that returns NaN.
    """
    late = made - at
    return {"ms": int(late * 1000)} if 0 <= late < _SOON else {}


def _stated(value: msgspec.Struct) -> Record:
    """The fields of a struct that are not None, because a record has no null."""
    return _without_none(msgspec.structs.asdict(value))


def _without_none(fields: Record) -> Record:
    """The fields that are not None."""
    return {key: field for key, field in fields.items() if field is not None}


def _attributed(known: Attribution | Grant) -> Record:
    """What a token with a valid signature is, without its chain. The issuer wrote the subject."""
    stated: Record = {
        "token": known.issued.token_id,
        "sub": known.issued.subject,
        "task": known.task,
    }
    link_ids = known.link_ids
    if link_ids:
        stated["link"] = link_ids[-1]
    return stated


def _chain(actors: Sequence[Actor]) -> Record:
    """Who held the token, and how each name is known. Holders wrote those that are `vouched`."""
    return {"chain": [{"name": actor.name, "basis": actor.basis} for actor in actors]}


def _taken(decision: Decision) -> Record:
    """The reservation that allowed it. There is at most one, because a step asks a ledger once.

    All accesses of one step name the same reservation, and so do its further parts (38.16). So a
    reader that counts uses counts it once.
    """
    for effect in decision.effects:
        if isinstance(effect, Reservation):
            return {"taken": b64encode(effect.step)}
    return {}


def _set(decision: Decision) -> Record:
    """The marks that it set, each with the place of its link; one of the overlay has none (46.9).

    All accesses of one step set them together. Also those that were set before.
    """
    for effect in decision.effects:
        if isinstance(effect, MarkedStep):
            found = dict.fromkeys((mark.name, mark.link) for mark in effect.marks)
            return {"marks": [_without_none({"name": name, "link": at}) for name, at in found]}
    return {}


def _consented(decision: Decision) -> Record:
    """The consents that it spent: whose, for which link, and from when until when (47.12)."""
    spent = [
        {
            "by": b64encode(one.by),
            "link": one.link,
            "iat": one.issued_at,
            "exp": one.expires_at,
        }
        for one in decision.effects
        if isinstance(one, Spend)
    ]
    return {"consents": spent} if spent else {}


def _described_access(access: Access, values: bool) -> Record:
    """The access: the names of arguments, attributes and columns, or their values too (spec 39.6).
    """
    stated: Record = {}
    if access.table is not None:
        stated["table"] = access.table
    if access.operation is not None:
        stated["operation"] = access.operation
    if access.tool is not None:
        stated["tool"] = access.tool
    # An empty list of columns differs from columns that were not stated (spec 7.3).
    if access.columns is not None:
        stated["columns"] = list(access.columns)

    if access.rows is not None:
        stated["rows"] = [dict(condition) for condition in access.rows]  # from the token
    for fact in ("row", "becomes", "arguments", "attributes"):
        given: Mapping[str, Any] | None = getattr(access, fact)
        if given and values:
            stated[fact] = {key: plain(value) for key, value in given.items()}
        elif given:
            stated[fact] = sorted(given)
    if access.cost:
        stated["cost"] = dict(access.cost)
    return stated


_DEEPEST = 24  # the number of levels of a value that are recorded


def plain(value: Any, depth: int = _DEEPEST, longest: int | None = None) -> Any:
    """A value as canonical JSON, different for every different value (spec 39.6).

    A value that JSON cannot express becomes an object whose only key is `~`, with a text. A value
    that looks like such a mark is marked itself, and so takes two levels. So no caller can write a
    value that a reader takes for a mark. A text longer than `longest` characters is left out, and
    so is an object with such a key.
    """
    kind = type(value)
    if kind is str:
        return value if longest is None or len(value) <= longest else _mark("...")
    if kind is bool:
        return value
    if kind is int:
        return value if abs(value) <= MAX_INTEGER else _mark(hex(value))

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
    return _mark(repr(value) if kind is float else "...")  # or else it is too deep or too long


def _mark(said: Any) -> dict[str, Any]:
    """The mark in place of a value that canonical JSON cannot express."""
    return {"~": said}


# --- tokens ---------------------------------------------------------------------------------------


def token_of(known: Attribution | Grant) -> Record:
    """The content of a record about a token with a valid signature.

    It says who minted the token for whom, and what each link says. Links are decoded with version 1
    alone, without the embedder's caveats: their text is recorded, whether it is known here or not.

    A holder can write anything that a link can say, including names. So a trail contains text of
    strangers: escape it before you show it.
    """
    caveats = known.caveats
    links = read_links(caveats, V1)
    return {
        "kind": "token",
        "root": decode_json(known.issued.encode()),
        "links": [
            {"id": link_id, "says": _says(caveat, link)}
            for link_id, caveat, link in zip(known.link_ids, caveats, links, strict=True)
        ],
    }


# The keys that a record uses in place of a link's own content. No verifier accepts a link with one
# of these keys, and it is recorded as unreadable. So no holder can write them into the trail.
_MARKS = frozenset(("asks", "unreadable"))


def _says(caveat: RawCaveat, link: Link | BadLink) -> Record:
    """What a link says, whom a third-party caveat asks, or that the link is unreadable.

    `link` is the link as a verifier decodes it. Its signature is left out: no record has one (spec
    39.6).
    """
    cid, vid = caveat
    if vid:
        return {"asks": _third_party(cid)}
    if isinstance(link, BadLink) and link.code == "unreadable_link":
        return {"unreadable": True}

    # Any other link is canonical JSON. It is readable even if it has unknown caveats.
    stated = words_of(cid)
    return stated if _MARKS.isdisjoint(stated) else {"unreadable": True}


def _third_party(cid: bytes) -> str:
    """The public key of the third party in a ticket; a question mark if the ticket is invalid."""
    try:
        return Ticket.parse(cid).discharger
    except DischargeError:
        return "?"

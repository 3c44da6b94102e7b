"""The audit trail: one record for each decision, chained by hashes, with signed checkpoints (spec, "Audit").

    {"kind":"token",…}        what a token says, the first time that it is seen: its root record, and each link
    {"kind":"decision",…}     who tried what, what came of it, which link refused, and how the names are known
    {"kind":"checkpoint",…}   the server's signature over all that stands above it

A record is a line of canonical JSON. Each names the hash of the line before it, so that an edit, a cut or a reorder shows;
a checkpoint that somebody keeps elsewhere shows a rollback. No record holds a token, a key, or, unless asked for, the
value of an argument or attribute.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from captoken import keys, primitives
from captoken.encoding import MAX_INTEGER, EncodingError, b64decode, b64encode, decode_json, encode_json
from captoken.errors import AuditError
from captoken.root import RootRecord

if TYPE_CHECKING:
    from captoken.access import Access
    from captoken.decision import Decision

_AUDIT = primitives.label("audit")
START = b64encode(bytes(32))  # what the first record follows on
REMEMBERED = 10_000  # tokens that were described: one that is seen again later is described again


class AuditKey(keys.SigningKey):
    """An Ed25519 key that signs checkpoints of one server's trail."""

    __slots__ = ()
    purpose = "audit"


class Head(msgspec.Struct, frozen=True):
    """The last record of a trail: kept elsewhere, it shows that the trail was not rolled back since."""

    seq: int = 0
    hash: str = START


class Trail(Protocol):
    """Whatever takes a record of each decision."""

    def record(self, decision: Decision) -> None:
        """Take what was decided. What it raises denies."""
        ...


class AuditTrail:
    """Writes the trail: pass it to a Verifier as `audit`. Each line goes to `write` at once; what that raises denies.

    `key` signs a checkpoint after every `every` records, and when `checkpoint` is called. `head` is where an earlier
    process left off: see `check`. `values=True` records the values of arguments and attributes as well. Threads share
    one trail; processes have one each.
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
        self._write, self._key, self._every, self._values, self._trace = write, key, every, values, trace
        self.head = head or Head()
        self._since = 0  # records since the last checkpoint
        self._described: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def record(self, decision: Decision) -> None:
        """Write what was decided. Raises what `write` raises."""
        stated = described(decision, values=self._values)
        trace = self._trace() if self._trace is not None else None
        if trace is not None:
            stated["trace"] = trace
        with self._lock:
            link = stated.get("link")
            if link is not None and link not in self._described:
                self._append(token_of(decision))
                self._described[link] = None
                if len(self._described) > REMEMBERED:
                    self._described.popitem(last=False)
            self._append(stated)
            if self._key is not None and self._since >= self._every:
                self._sign()

    def checkpoint(self) -> Head:
        """Sign what was written so far; the head, to be kept elsewhere. Raises ValueError without a key."""
        with self._lock:
            self._sign()
            return self.head

    def _sign(self) -> None:
        if self._key is None:
            raise ValueError("a trail without a key has no checkpoints")
        message = _AUDIT + b64decode(self.head.hash)
        self._append({"kind": "checkpoint", "key": self._key.public, "signature": b64encode(self._key.sign(message))})
        self._since = 0

    def _append(self, stated: dict[str, Any]) -> None:
        line = _spelled({**stated, "prev": self.head.hash, "seq": self.head.seq + 1})
        self._write(line + b"\n")
        self.head = Head(self.head.seq + 1, b64encode(primitives.sha256(line)))
        self._since += 1


def _spelled(stated: dict[str, Any]) -> bytes:
    try:
        return encode_json(stated)
    except EncodingError:  # values that canonical JSON has no spelling for
        return encode_json(_plain(stated, 24))


def _plain(value: Any, depth: int) -> Any:
    """A JSON value as near as canonical JSON comes to it: null, fractions, large integers and what is deep as text."""
    if value is None:
        return "null"
    if type(value) is float:
        return repr(value)
    if type(value) is int and abs(value) > MAX_INTEGER:
        return hex(value)
    if type(value) in (dict, list) and depth == 0:
        return "..."
    if type(value) is dict:
        return {key: _plain(item, depth - 1) for key, item in value.items()}
    return [_plain(item, depth - 1) for item in value] if type(value) is list else value


def described(decision: Decision, *, values: bool = False) -> dict[str, Any]:
    """What a record says of a decision."""
    known = decision.attribution
    stated: dict[str, Any] = {"kind": "decision", "at": decision.now, "allowed": bool(decision), "code": decision.code}
    if decision.access is not None:
        stated["access"] = _access(decision.access, values)
    if decision.caller is not None:
        stated["caller"] = {key: value for key, value in msgspec.structs.asdict(decision.caller).items() if value is not None}
    if decision.refusals:
        stated["refusals"] = [
            {key: value for key, value in msgspec.structs.asdict(refusal).items() if value is not None}
            for refusal in decision.refusals
        ]
    if known is not None:
        stated["token"] = known.issued.token_id
        stated["sub"] = known.issued.subject
        stated["task"] = known.task
        stated["chain"] = [{"name": actor.name, "basis": actor.basis} for actor in known.chain]
        if known.link_ids:
            stated["link"] = known.link_ids[-1]
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
            stated[fact] = dict(given) if values else sorted(given)
    if access.cost:
        stated["cost"] = dict(access.cost)
    return stated


def token_of(decision: Decision) -> dict[str, Any]:
    """What a record says of a token whose signature held: who minted it for whom, and what each link adds."""
    known = decision.attribution
    assert known is not None  # noqa: S101
    return {
        "kind": "token",
        "root": decode_json(known.issued.encode()),
        "links": [
            {"id": link, "says": _says(*caveat)} for link, caveat in zip(known.link_ids, known.caveats, strict=True)
        ],
    }  # fmt: skip


def _says(cid: bytes, vid: bytes) -> dict[str, Any]:
    """What a link says; whom a third-party caveat asks; or that it cannot be read."""
    try:
        stated = decode_json(cid if cid[-1:] == b"}" else cid[:-87])
    except EncodingError:
        stated = {}
    if vid:
        return {"asks": stated["for"]} if type(stated.get("for")) is str else {"asks": "?"}
    return stated or {"unreadable": True}


# --- reading ---------------------------------------------------------------------------------------------------------


def read(lines: Iterable[bytes], after: Head | None = None) -> Iterator[dict[str, Any]]:
    """The records of a trail, each checked to follow on the one before. Raises AuditError where it does not.

    `after` is the head that the first line has to follow on; without it the trail starts at its beginning.
    """
    return (record for record, _ in _numbered(lines, after or Head()))


def _numbered(lines: Iterable[bytes], head: Head) -> Iterator[tuple[dict[str, Any], Head]]:
    for line in lines:
        body = line.removesuffix(b"\n")
        try:
            record = decode_json(body)
        except EncodingError:
            raise AuditError(f"after record {head.seq}: a line that is no record") from None
        if record.get("seq") != head.seq + 1 or type(record["seq"]) is not int:
            raise AuditError(f"after record {head.seq} comes {record.get('seq')}: cut, or in another order")
        if record.get("prev") != head.hash:
            raise AuditError(f"record {record['seq']} does not follow on record {head.seq} as it stands: one was changed")
        head = Head(head.seq + 1, b64encode(primitives.sha256(body)))
        yield record, head


class Verdict(msgspec.Struct, frozen=True):
    """What a check of a trail found: where it ends, and up to where a trusted server has signed it."""

    head: Head
    signed: int  # the last record that a checkpoint covers
    decisions: int


def check(lines: Iterable[bytes], servers: Iterable[bytes | str] = (), *, known: Iterable[Head] = ()) -> Verdict:
    """Whether a trail is whole: no record changed, cut out, added or moved, and none that is known of is gone.

    `servers`: public keys whose checkpoints count; one by another key is an error. `known`: heads that were seen
    before. What was cut off behind the last of them does not show. Raises AuditError, and says where.
    """
    trusted = [keys.signing_key(server, "server") for server in servers]
    seen: dict[int, set[Head]] = {}
    for one in known:
        seen.setdefault(one.seq, set()).add(one)
    head, signed, decisions = Head(), 0, 0
    for record, at in _numbered(lines, Head()):
        before, head = head, at
        if seen.pop(head.seq, {head}) != {head}:
            raise AuditError(f"record {head.seq} is not the one that was there before")
        if record.get("kind") == "checkpoint" and trusted:
            if not _is_signed(record, before, trusted):
                raise AuditError(f"checkpoint {head.seq} is signed by no server that is trusted here")
            signed = before.seq
        decisions += record.get("kind") == "decision"
    gone = [seq for seq, heads in seen.items() if seq > 0 or heads != {Head()}]
    if gone:
        raise AuditError(f"the trail ends at record {head.seq}, and record {max(gone)} was there before")
    return Verdict(head, signed, decisions)


def _is_signed(record: Mapping[str, Any], before: Head, servers: Iterable[bytes]) -> bool:
    signature = record.get("signature")
    try:
        given = b64decode(signature) if type(signature) is str else b""
    except EncodingError:
        given = b""
    return any(primitives.signed(server, _AUDIT + b64decode(before.hash), given) for server in servers)


def rfc8693(record: Mapping[str, Any]) -> dict[str, Any]:
    """Who acted for whom, in the shape of RFC 8693: `sub`, and `act` nested from the last actor to the first."""
    act: dict[str, Any] = {}
    for actor in record.get("chain", ()):
        act = {"sub": actor["name"], "captoken_basis": actor["basis"], **({"act": act} if act else {})}
    return {"sub": record.get("sub"), **({"act": act} if act else {})}


def issued(record: Mapping[str, Any]) -> RootRecord:
    """The root record of a token that a trail describes."""
    return RootRecord.decode(encode_json(record["root"]))

"""Whether a trail is whole, and what it says (spec, "Audit").

    read       the records, each checked to follow on the one before
    check      the same, and the signatures of checkpoints, and the heads that somebody has kept
    rfc8693    of a decision, who acted for whom

Three things vouch for three others:

- The hashes show that no record was changed, cut out, added or moved, if the last one is genuine.
- A signature shows that a server wrote all that stands above it.
- A head that was kept elsewhere shows that the trail still has what it had then.

Who only has the file can recompute all hashes. So `read` alone shows accidents, and no attack.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from captoken._format import primitives
from captoken._format.encoding import EncodingError, b64decode, b64encode, decode_json
from captoken._format.errors import AuditError
from captoken._format.public_keys import signing_key
from captoken.audit import _tree
from captoken.audit.trail import checkpoint_message, tree_message
from captoken.stores.ports import Head


def read(lines: Iterable[bytes], after: Head | None = None) -> Iterator[dict[str, Any]]:
    """The records of a trail, each checked to follow on the one before.

        with open("trail.jsonl", "rb") as lines:
            for record in read(lines):
                ...

    `lines` are of a file, or what went to `write`. `after` is the head that the first has to follow
    on; without it the trail starts at its beginning.

    Raises AuditError where one does not follow, while it is read: the records before have been
    handed out by then. Asks no signature, and does not see what was cut off at the end. `check`
    does, with what somebody kept. One record is in memory at a time.
    """
    return (record for record, _ in numbered(lines, after or Head()))


def numbered(lines: Iterable[bytes], head: Head) -> Iterator[tuple[dict[str, Any], Head]]:
    """Each record, and the head that it makes (spec 39.1, 39.2).

    `head` is what the first has to follow on. Raises AuditError.
    """
    return ((record, reached) for _, record, reached in followed(lines, head))


def followed(lines: Iterable[bytes], head: Head) -> Iterator[tuple[bytes, dict[str, Any], Head]]:
    """The same, each behind its line without the line feed."""
    for body in bodies(lines):
        record = record_of(body, head.seq)
        # `type(...) is int`, since True is an int to Python and not a number to canonical JSON.
        seq = record.get("seq")
        if type(seq) is not int or seq != head.seq + 1:
            raise AuditError(
                f"after record {head.seq} comes record {seq}: records were cut out, or are in "
                "another order"
            )
        if record.get("prev") != head.hash:
            raise AuditError(
                f"record {seq} does not follow from record {head.seq} as it is: one of them was "
                "changed"
            )

        # Hash the bytes that arrived, not the record encoded again.
        head = Head(seq, b64encode(primitives.sha256(body)))
        yield body, record, head


def record_of(body: bytes, after: int) -> dict[str, Any]:
    """The record that a line spells (spec 39.1). `after` is the number of the one before.

    Raises AuditError.
    """
    try:
        record = decode_json(body)
    except EncodingError:
        raise AuditError(f"the line after record {after} is not a record") from None

    # Nobody knows what a record without a kind is: it is not passed over (spec 39.1).
    if type(record.get("kind")) is not str:
        raise AuditError(f"the record after record {after} does not name its kind")
    return record


def bodies(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in pieces of whole lines, without their line feeds.

    A piece is a line of a file, or what went to `write` in one call. Raises AuditError for a last
    line without its line feed: it may be half of a record (spec 39.1).
    """
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        yield from whole
        if rest or not whole:
            raise AuditError(
                "the last record has no line feed: it was cut off, or is still being written"
            )


class Verdict(msgspec.Struct, frozen=True):
    """What a check of a trail found. Returned by `check` alone, and only for a trail that is whole.

    Records after `signed` are vouched for by nobody but whoever wrote the file.
    """

    # The end of the trail. Keep it elsewhere, for the next check.
    head: Head

    # The last record that a checkpoint of a trusted server covers; 0 is none.
    signed: int

    # How many there are.
    decisions: int


def check(
    lines: Iterable[bytes],
    servers: Iterable[bytes | str] = (),
    *,
    known: Iterable[Head] = (),
    after: Head | None = None,
) -> Verdict:
    """Whether a trail is whole: no record changed, cut out, added or moved (spec 39.5).

        found = check(lines, [server_public], known=[head_that_was_kept])

    - `servers` are public keys whose checkpoints count. A checkpoint by another key is an error.
    - `known` are heads that were seen before, and must still be there. What was cut off behind the
      last of them does not show.
    - `after` is the head that the file before ended with, where a trail goes on in another file. Of
      what is before it nothing is said, nor of `known` heads there.

    Without `servers` nothing is vouched for: whoever can write the file can write a whole one. That
    the server wrote down what it did, no check shows (spec 39.8).

    Raises AuditError, and says where. Raises TypeError or ValueError for what is no public key.
    """
    trusted = [signing_key(server, "server") for server in servers]
    head = after or Head()
    waiting = _by_number(known, head.seq)
    signed = 0
    decisions = 0
    # Of the last records: no tree has more.
    leaves = deque[bytes](maxlen=_tree.MOST)

    # The head to begin with is passed too: it may be one of those that were kept.
    _pass(waiting, head)
    for body, record, reached in followed(lines, head):
        before = head
        head = reached
        _pass(waiting, head)

        kind = record.get("kind")
        if kind == "checkpoint" and trusted:
            must_be_signed(record, before, trusted)
            _check_tree(record, leaves)
            signed = before.seq
        elif kind == "decision":
            decisions += 1
        if trusted:
            leaves.append(_tree.leaf(body))

    # What nobody passed lies behind the end: the trail was rolled back.
    if waiting:
        last = max(waiting)
        raise AuditError(f"the trail ends at record {head.seq}, but record {last} was there before")
    return Verdict(head, signed, decisions)


def _by_number(known: Iterable[Head], first: int) -> dict[int, set[Head]]:
    """The heads that are known, from number `first` on: what a trail has to pass.

    Two that were kept of one number are both asked: if they differ, one of them was rolled back.
    """
    waiting: dict[int, set[Head]] = {}
    for one in known:
        if one.seq >= first:
            waiting.setdefault(one.seq, set()).add(one)
    return waiting


def _pass(waiting: dict[int, set[Head]], head: Head) -> None:
    """A head on the way. Raises AuditError if another one was seen there: it was rolled back."""
    if waiting.pop(head.seq, {head}) != {head}:
        raise AuditError(f"record {head.seq} is not the one that was there before")


class Tree(NamedTuple):
    """What the tree of a checkpoint says (spec 39.4): records in it, from a number on, and root."""

    first: int
    size: int
    root: bytes


def must_be_signed(record: Mapping[str, Any], before: Head, servers: Iterable[bytes]) -> None:
    """Raise AuditError unless one of these servers signed the checkpoint that follows on `before`.

    The checkpoint names the key, and it is one of theirs (39.5): a record cannot bring a key along.
    """
    key = next((server for server in servers if b64encode(server) == record.get("key")), None)
    signature = bytes_of(record.get("signature"))
    if key is None or not primitives.signed(key, checkpoint_message(before), signature):
        raise AuditError(f"no server that is trusted here has signed checkpoint {before.seq + 1}")


def tree_of(record: Mapping[str, Any]) -> Tree | None:
    """The tree of a checkpoint whose own signature holds, if it has one (spec 39.4).

    Raises AuditError for one of another shape, and for one that the same key did not sign.
    """
    stated = record.get("tree")
    if stated is None:
        return None
    if type(stated) is dict and stated.keys() == {"first", "root", "signature"}:
        first, seq = stated["first"], record["seq"]
        root, key = bytes_of(stated["root"]), bytes_of(record["key"])
        if type(first) is int and first > 0 and 0 < seq - first <= _tree.MOST:
            tree = Tree(first, seq - first, root)
            signature = bytes_of(stated["signature"])
            if len(root) == 32 and primitives.signed(key, tree_message(*tree), signature):
                return tree
    raise AuditError(f"the tree of checkpoint {record['seq']} is not what its server signed")


def _check_tree(record: Mapping[str, Any], leaves: Sequence[bytes]) -> None:
    """Raise AuditError where the tree of a checkpoint is none of the records that it names.

    `leaves` are of the last records. Where the tree begins before them, in another file, its root
    cannot be worked out.
    """
    tree = tree_of(record)
    if tree is None or tree.size > len(leaves):
        return
    of_these = list(islice(leaves, len(leaves) - tree.size, None))
    if not primitives.equal(_tree.root(of_these), tree.root):
        raise AuditError(f"the tree of checkpoint {record['seq']} is made of other records")


def bytes_of(stated: Any) -> bytes:
    """What a text of base64url spells; nothing for what is none."""
    try:
        return b64decode(stated) if type(stated) is str else b""
    except EncodingError:
        return b""


def rfc8693(record: Mapping[str, Any]) -> dict[str, Any]:
    """Who acted for whom, in the shape of RFC 8693 (spec 39.9).

    `record` is a decision, as `read` yields it. `sub` is the subject, and `act` is nested from the
    last actor to the first, each with how its name is known. Of a token whose chain did not hold
    there is no actor, and `sub` is None.

    Authorize on no name in it that is vouched for. Does not check the record.
    """
    act: dict[str, Any] = {}
    for actor in record.get("chain", ()):
        # Go from the first to the last, so that the last one is outermost.
        inner = {"act": act} if act else {}
        act = {"sub": actor["name"], "captoken_basis": actor["basis"], **inner}
    return {"sub": record.get("sub"), **({"act": act} if act else {})}

"""Whether a trail is whole, and what it says (spec, "Audit")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from captoken._format import primitives
from captoken._format.encoding import EncodingError, b64decode, b64encode, decode_json, encode_json
from captoken._format.errors import AuditError
from captoken._format.public_keys import signing_key
from captoken._format.root import RootRecord
from captoken.audit.trail import _AUDIT
from captoken.stores.ports import Head


def read(lines: Iterable[bytes], after: Head | None = None) -> Iterator[dict[str, Any]]:
    """The records of a trail, each checked to follow on the one before. Raises AuditError where it does not.

    `lines` are of a file, or what went to `write`. `after` is the head that the first has to follow on; without it the
    trail starts at its beginning.
    """
    return (record for record, _ in _numbered(lines, after or Head()))


def _numbered(lines: Iterable[bytes], head: Head) -> Iterator[tuple[dict[str, Any], Head]]:
    for body in _each(lines):
        try:
            record = decode_json(body)
        except EncodingError:
            raise AuditError(f"after record {head.seq}: a line that is no record") from None
        if record.get("seq") != head.seq + 1 or type(record["seq"]) is not int:
            raise AuditError(
                f"after record {head.seq} comes {record.get('seq')}: cut, or in another order"
            )
        if record.get("prev") != head.hash:
            raise AuditError(
                f"record {record['seq']} does not follow on record {head.seq} as it stands: one was changed"
            )
        head = Head(head.seq + 1, b64encode(primitives.sha256(body)))
        yield record, head


def _each(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in pieces of whole lines, without their line feeds."""
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        yield from whole
        if rest or not whole:
            raise AuditError(
                "a record without its line feed: it was torn, or is still being written"
            )


class Verdict(msgspec.Struct, frozen=True):
    """What a check of a trail found: where it ends, and up to where a trusted server has signed it."""

    head: Head
    signed: int  # the last record that a checkpoint covers
    decisions: int


def check(
    lines: Iterable[bytes],
    servers: Iterable[bytes | str] = (),
    *,
    known: Iterable[Head] = (),
    after: Head | None = None,
) -> Verdict:
    """Whether a trail is whole: no record changed, cut out, added or moved, and none that is known of is gone.

    `servers`: public keys whose checkpoints count; one by another key is an error. `known`: heads that were seen
    before. What was cut off behind the last of them does not show. `after`: the head that the file before ended with,
    where a trail goes on in another file; of what is before it nothing is said. Raises AuditError, and says where.
    """
    trusted = [signing_key(server, "server") for server in servers]
    head = after or Head()
    seen: dict[int, set[Head]] = {}
    for one in known:
        if one.seq >= head.seq:
            seen.setdefault(one.seq, set()).add(one)
    signed = decisions = 0
    _pass(seen, head)
    for record, at in _numbered(lines, head):
        before, head = head, at
        _pass(seen, head)
        if record.get("kind") == "checkpoint" and trusted:
            if not _is_signed(record, before, trusted):
                raise AuditError(
                    f"checkpoint {head.seq} is signed by no server that is trusted here"
                )
            signed = before.seq
        decisions += record.get("kind") == "decision"
    if seen:
        raise AuditError(
            f"the trail ends at record {head.seq}, and record {max(seen)} was there before"
        )
    return Verdict(head, signed, decisions)


def _pass(seen: dict[int, set[Head]], head: Head) -> None:
    """A head on the way: it is the one that was seen there, if one was."""
    if seen.pop(head.seq, {head}) != {head}:
        raise AuditError(f"record {head.seq} is not the one that was there before")


def _is_signed(record: Mapping[str, Any], before: Head, servers: Iterable[bytes]) -> bool:
    signature = record.get("signature")
    try:
        given = b64decode(signature) if type(signature) is str else b""
    except EncodingError:
        given = b""
    return any(
        primitives.signed(server, _AUDIT + b64decode(before.hash), given) for server in servers
    )


def rfc8693(record: Mapping[str, Any]) -> dict[str, Any]:
    """Who acted for whom, in the shape of RFC 8693: `sub`, and `act` nested from the last actor to the first."""
    act: dict[str, Any] = {}
    for actor in record.get("chain", ()):
        act = {
            "sub": actor["name"],
            "captoken_basis": actor["basis"],
            **({"act": act} if act else {}),
        }
    return {"sub": record.get("sub"), **({"act": act} if act else {})}


def issued(record: Mapping[str, Any]) -> RootRecord:
    """The root record of a token that a trail describes."""
    return RootRecord.decode(encode_json(record["root"]))

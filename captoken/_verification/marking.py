"""What a token's marks and rules ask of the ledger: the first half of step 11 (spec, "Marks").

Loaded for tokens that have marks, or that an entry of the overlay has marks for. Worked out here is
what follows from the token alone: the bucket of each mark, and until when it is kept. Which marks
an access is in, each definition says. Nothing here knows what is set: `effects.py` asks.

Numbers in brackets are those of the spec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from captoken._format import primitives
from captoken._language.access import Access
from captoken._language.kinds import Caveat
from captoken._language.link import Link
from captoken._verification.authenticated import AuthenticatedToken, Marked
from captoken._verification.facts import Server
from captoken.stores.ports import KEPT, Mark, MarkedStep, Rule

_TASK = primitives.label("mark of a task")
_LINK = primitives.label("mark of a link")
_ENTRY = primitives.label("mark of an entry")

_SAID_CHARS = 200  # of what did it

# An entry of the overlay: its id, and its link.
Entries = Sequence[tuple[str, Link]]


def step_of(
    genuine: AuthenticatedToken,
    server: Server,
    entries: Entries,
    accesses: Sequence[Access],
) -> MarkedStep | None:
    """What these accesses, which are one step, set and must not follow on; None for nothing."""
    own = _of_token(genuine, server)
    said = [*own, *(_of_entry(genuine, server, *entry) for entry in entries)]
    step = _step(genuine, server, said, accesses)
    if len(accesses) == 1 and not entries:
        _remember(genuine, own, accesses[0], step)
    return step


def _step(
    genuine: AuthenticatedToken,
    server: Server,
    said: Sequence[Marked],
    accesses: Sequence[Access],
) -> MarkedStep | None:
    """The marks that the accesses are in, and the rules that name one of these in `in`."""
    marks: list[Mark] = []
    rules: list[Rule] = []
    for one in said:
        inside = [mark for mark, rule in one.marks if any(map(rule.has, accesses))]
        marks += inside
        names = {mark.name for mark in inside}
        for closed, rule in one.rules:
            met = sorted(names.intersection(closed))
            if met:
                rules.append(msgspec.structs.replace(rule, closed=met[0]))
    if not marks:
        return None
    root = genuine.root
    return MarkedStep(
        tuple(marks),
        tuple(rules),
        root.issued_at,
        root.token_id,
        server.leeway,
        root.key_id,
    )


_MOST_STEPS = 256  # that are remembered of one token


def _remember(
    genuine: AuthenticatedToken,
    own: Sequence[Marked],
    access: Access,
    step: MarkedStep | None,
) -> None:
    """Keep what an access comes to, by its names: where no `but` may look at its values, too."""
    if any(rule.but is not None for one in own for _, rule in one.marks):
        return
    steps = genuine.steps
    if steps is None or len(steps) > _MOST_STEPS:
        steps = {}
        msgspec.structs.force_setattr(genuine, "steps", steps)
    steps[access.table, access.operation, access.tool] = step


def done_by(genuine: AuthenticatedToken, accesses: Sequence[Access]) -> str:
    """Who takes a step, and what it is, in a few words without values: for people."""
    did = ", ".join(access.summary for access in accesses)
    return f"{genuine.lineage.holder}: {did}"[:_SAID_CHARS]


def _of_token(genuine: AuthenticatedToken, server: Server) -> tuple[Marked, ...]:
    """What its own links say. Worked out once; two threads come to the same."""
    known = genuine.marked
    if known is None:
        known = tuple(
            _said(link, genuine, server, _bucket_of_link(genuine, at), at)
            for at, link in enumerate(genuine.own_links)
            if link.counts and any(caveat.key == "marks" for caveat in link.late)
        )
        msgspec.structs.force_setattr(genuine, "marked", known)
    return known


def _of_entry(
    genuine: AuthenticatedToken,
    server: Server,
    entry: str,
    link: Link,
) -> Marked:
    """What an entry of the overlay says: its marks are of the entry and the token's task (46.3)."""
    start = _ENTRY + _sized(entry) + _task_of(genuine)
    return _said(link, genuine, server, start, None)


def _bucket_of_link(genuine: AuthenticatedToken, at: int) -> bytes:
    """What stands before the name in a bucket (46.3). `kid` and `jti` are no part of a task's."""
    if at == 0:
        return _TASK + _task_of(genuine)
    return _LINK + primitives.link_id(genuine.tags[at])


def _task_of(genuine: AuthenticatedToken) -> bytes:
    """The subject and the task, up to its first slash: a task below is no way out."""
    root = genuine.root
    return _sized(root.subject) + root.task.partition("/")[0].encode() + b"\0"


def _sized(text: str) -> bytes:
    """A text behind its length, so that nothing can move from it to what follows."""
    body = text.encode()
    return len(body).to_bytes(4, "big") + body


def _said(
    link: Link,
    genuine: AuthenticatedToken,
    server: Server,
    start: bytes,
    at: int | None,
) -> Marked:
    """The marks and rules of a link. `at` is its place in the chain; None of an entry."""
    caveats: Mapping[str, Caveat] = {caveat.key: caveat for caveat in link.late}
    forbid: Any = caveats.get("forbid")
    rules: Sequence[Any] = () if forbid is None else forbid.rules
    unless: Sequence[bytes | None] = () if forbid is None else forbid.unless
    named = {name for closed, after in rules for name in (*closed, *after)}

    # A task's is set for all its tokens, whatever this one forbids. Another that no rule names
    # would be asked about by nobody.
    definitions = caveats["marks"].rules  # type: ignore[attr-defined]
    keep = _keep(genuine, server, at)
    marks = {
        name: Mark(primitives.sha256(start + name.encode()), keep, bool(at), name, at)
        for name in definitions
        if at == 0 or name in named
    }
    return Marked(
        tuple((mark, definitions[name]) for name, mark in marks.items()),
        tuple(
            (closed, Rule(tuple(marks[name] for name in after), link=at, unless=key))
            for (closed, after), key in zip(rules, unless, strict=True)
        ),
    )


def _keep(genuine: AuthenticatedToken, server: Server, at: int | None) -> int | None:
    """Until when a mark is remembered, in seconds since the epoch; None is for good (46.5).

    One of a link as its buckets are; one of a task for longer, since the task may go on.
    """
    end = genuine.expiry_at(at or 0)
    if end is None:
        return None
    return end + server.leeway + (KEPT if at else max(KEPT, server.keep_marks))

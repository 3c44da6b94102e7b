"""Evidence of a task or an agent, from the trails that the console follows.

What the index has read is what is exported. A trail that is not as it was read is in the file with
what its checkpoints seal, and with what is wrong with it.
"""

from __future__ import annotations

from captoken.audit import _evidence
from captoken.audit._evidence import Told
from captoken.cli.console import views
from captoken.cli.console.index import Index
from captoken.cli.console.trails import Whole
from captoken.cli.evidence import lines_of
from captoken.cli.evidence_page import page_of
from captoken.cli.logged import Asked
from captoken.cli.words import plain


def exported(
    index: Index,
    overlay: views.Said | None,
    now: int,
    at: int | None = None,
    *,
    task: str | None = None,
    hop: str | None = None,
) -> bytes | None:
    """The page of a task and those below it, or of an agent in its task, up to `at` if given.

    None if there is no such task or hop. Raises AuditError for a trail that changes meanwhile.
    """
    query = "select task, agent from hops where task = ? limit 1"
    if hop is not None:
        query = "select task, agent from hops where id = ?"
    rows = index.rows(query, task if hop is None else hop)
    if not rows:
        return None
    ((task, agent),) = rows
    asked = Asked(task=task, agent=None if hop is None else agent, until=at)
    then = now if at is None else at
    told = [
        Told(
            one["at"],
            one["by"],
            one["select"],
            "nothing" if one["narrows"] is None else "; ".join(one["narrows"]),
            one["why"],
        )
        for one in views.said_of_task(index, overlay, task or "", then)
    ]
    surveys = [_surveyed(trail, asked) for trail in index.wholes()]
    lines = list(_evidence.exported(surveys, asked=asked, at=now, told=told))
    return page_of(lines, _evidence.check_evidence(lines))


def _surveyed(trail: Whole, asked: Asked) -> _evidence.Survey:
    """A trail as far as it was read, or as far as it is sealed, if it is not what was read."""
    name, trouble = plain(trail.name), trail.trouble or trail.twin
    after, seen = trail.after, trail.head
    lines = lines_of(*trail.paths)
    try:
        return _evidence.survey(
            name, lines, asked.includes, after=after, seen=seen, trouble=trouble
        )
    except OSError:
        trouble = trouble or "it cannot be read now"
        return _evidence.survey(
            name, tuple, asked.includes, after=after, seen=seen, trouble=trouble
        )

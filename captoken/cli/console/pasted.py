"""A token that somebody has pasted: whose it is, by what the trails have of it.

    found = pasted_view(index, text)        # the agent's hop, or why there is none

The text is looked at, and kept nowhere: it is in no answer, no log and no address. Nothing of it is
verified, since there is no key here. So what it says of itself leads to an agent only where the
trails have a hand-over that says the same; and by the id of its last link, which nobody can choose.
"""

from __future__ import annotations

import re

from captoken._format.errors import TokenFormatError
from captoken._language.link import Link
from captoken._writing.token import Token
from captoken.cli.console import views
from captoken.cli.console.index import Index
from captoken.cli.console.views import Json
from captoken.cli.words import plain

# What stands before a token in a header, and the `>` of a mail that was answered.
_before = re.compile(r"\A(?:[>\s]*authorization:)?(?:[>\s]*bearer\b)?", re.IGNORECASE)
_between = re.compile(r"[\s>]+")


def pasted_view(index: Index, text: str) -> Json:
    """The agent that a token was handed to; `trouble` says why none is known."""
    bare = _between.sub("", _before.sub("", text))
    try:
        # What it was sent with, as proofs, is no part of the token.
        token = Token.parse(bare.partition(".")[0])
    except TokenFormatError as error:
        return {"trouble": f"This is no token: {plain(str(error))}"}
    link = token.link_id
    rows = index.rows("select hop from tokens where link = ?", link)
    rows = rows or index.rows("select id from hops where id = ?", link)
    hop = rows[0][0] if rows else _by_what_it_says(index, token)
    found = index.rows("select agent, task from hops where id = ?", hop)
    if not found:
        return {"trouble": "No trail here knows this token, or the one that it was made from."}
    ((agent, task),) = found
    return {
        "trouble": None,
        "is_known": bool(rows),
        "agent": plain(agent),
        "task": task,
        "node": hop,
    }


def _by_what_it_says(index: Index, token: Token) -> str | None:
    """The last hand-over of the token that a trail has: by the numbers `n` on the way to it."""
    said = [
        link.nonce
        for link in token.unverified.links
        if isinstance(link, Link) and link.receiver is not None
    ]
    best, depth = None, -1
    query = "select id, said from hops where token = ? limit 5000"
    for id, text in index.rows(query, token.token_id):
        way = [hop.nonce for hop in views.known(text).through[1:]]
        if None not in way and way == said[: len(way)] and len(way) > depth:
            best, depth = id, len(way)
    return best

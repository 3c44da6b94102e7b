"""A token that somebody has pasted: whose it is, by what the trails have of it.

    found = pasted_view(index, text)        # the agent's hop, or why there is none

The token may stand anywhere in the text: in a header, a line of a log, JSON, a mail. The text is
looked at, and kept nowhere: it is in no answer, no log and no address. All else that the console is
sent must hold no token (`holds_token`), and of what it answers they are taken out (`without`).

Nothing of it is verified, since there is no key here. So what it says of itself leads to an agent
only where the trails have a hand-over that says the same; and by the id of its last link, which
nobody can choose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from captoken._format.errors import TokenFormatError
from captoken._format.text import PREFIX, SET_PREFIX
from captoken._language.link import Link
from captoken._writing.token import Token
from captoken.cli.console import views
from captoken.cli.console.index import Index
from captoken.cli.console.views import Json
from captoken.cli.words import plain

# A token, a set of them, or a part that travels with one; and a JSON Web Token.
holds_token = re.compile(r"caps?1[a-z]?_|eyJ[\w-]{9,}\.eyJ", re.ASCII | re.IGNORECASE).search
_whole = re.compile(rb"caps?1[a-z]?_[\w.~-]{24,}|eyJ[\w-]{9,}\.eyJ[\w.-]+", re.ASCII)

_begins = re.compile(f"{PREFIX}|{SET_PREFIX}").finditer
_run = re.compile(r"[\w~-]*", re.ASCII).match
_between = re.compile(r"[=>\s]+")  # what a mail puts into a long line
_MOST = 20  # tokens of a text


def without(answer: bytes) -> bytes:
    """An answer without the tokens in it: a stranger may have named a table so."""
    return _whole.sub(b"(a token)", answer)


def pasted_view(index: Index, text: str) -> Json:
    """The agent that a token was handed to; `trouble` says why none is known.

    `claims` is what the token says of itself. Of several the first one that a trail knows.
    """
    tokens, trouble = list[Token](), "This is no token: none begins in it."
    for stated in islice(_stated_in(text), _MOST):
        try:
            tokens.append(Token.parse(stated))
        except TokenFormatError as error:
            trouble = f"This is no token: {plain(str(error))}" if not tokens else trouble
    for token in tokens:
        link = token.link_id
        rows = index.rows("select hop from tokens where link = ?", link)
        rows = rows or index.rows("select id from hops where id = ?", link)
        if rows:
            return _found(index, token, rows[0][0], is_known=True)
    for token in tokens:
        return _found(index, token, _by_what_it_says(index, token), is_known=False)
    return {"trouble": trouble}


def _stated_in(text: str) -> Iterator[str]:
    """What may be a token in a text: as it stands there, and without what a mail has put in."""
    for found in _begins(text):
        rest = text[found.end() :]
        for one in (rest, _between.sub("", rest)):
            stated = _run(one)
            parts = "" if stated is None else stated[0]
            yield from (f"{PREFIX}{part}" for part in parts.split("~"))


def _found(index: Index, token: Token, hop: str | None, *, is_known: bool) -> Json:
    says = token.unverified
    claims = {"agent": plain(says.holder), "task": plain(says.root.task)}
    rows = index.rows("select agent, task from hops where id = ?", hop)
    if not rows:
        trouble = "No trail here knows this token, or the one that it was made from."
        return {"trouble": trouble, "claims": claims}
    ((agent, task),) = rows
    return {
        "trouble": None,
        "claims": claims,
        "is_known": is_known,
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

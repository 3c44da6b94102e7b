"""`captoken inspect`: what a token says of itself, as a tree, in JSON, or as a flowchart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from captoken._format.encoding import decode_json
from captoken._language.links import BadLink, Link, split_signature
from captoken.cli import files, output
from captoken.cli.options import json_option, now_option, seconds, token_option
from captoken.cli.view import Hop, View, read, view

if TYPE_CHECKING:
    from rich.tree import Tree

WARNING = "NOT VERIFIED: anybody can write this. Only `captoken verify` asks the keys."
_DEEPEST = 8  # levels of the tree; a longer chain goes on at the last one
_LABEL = 10  # columns of a summary's line before what it says


# --- for machines ---------------------------------------------------------------------------------


def as_data(seen: View) -> dict[str, Any]:
    """The same for machines: `caveats` are the links as they travel, where they can be read."""
    said = seen.token.unverified
    root = msgspec.structs.asdict(said.root)
    links = zip(seen.hops, said.links, strict=True)
    return {
        "verified": False,
        "root": {key: value for key, value in root.items() if value not in (None, {})},
        "links": [_link_data(hop, link) for hop, link in links],
        "holders": list(said.lineage.holders),
        "key": None if seen.bound_by is None else {"public": said.key, "link": seen.bound_by},
        "task": said.task,
        "expires_at": said.expires_at,
        "capability": said.capability.json(),
        "permits_nothing": said.capability.nothing,
        "characters": seen.characters,
        "link_id": seen.token.link_id,
    }


def _link_data(hop: Hop, link: Link | BadLink) -> dict[str, Any]:
    entry: dict[str, Any] = {"link": hop.number, "added_by": hop.added_by}
    if link.receiver is not None:
        entry |= {"from": link.sender, "to": link.receiver}
    if hop.asks:
        entry["asks"] = _asked_data(hop)
    elif isinstance(link, Link):
        body, signature = split_signature(hop.body)
        entry["caveats"] = decode_json(body)
        if signature is not None:
            entry["signed"] = True
    else:
        entry |= {"code": link.code, "raw": _raw(hop)}
    if hop.problem:
        entry["problem"] = hop.problem
    return entry


def _asked_data(hop: Hop) -> dict[str, Any]:
    """Who is asked by a third-party caveat, and what has come of it."""
    if hop.ticket is None:
        return {"raw": _raw(hop)}
    return {
        "discharger": hop.ticket.discharger,
        "location": hop.ticket.location,
        "answered": hop.answer is not None,
        "answer_expires_at": None if hop.answer is None else hop.answer.expires_at,
    }


def _raw(hop: Hop) -> str:
    return hop.body.decode("utf-8", "backslashreplace")


# --- for people -----------------------------------------------------------------------------------


def as_tree(seen: View) -> Tree:
    """The chain as a tree: each link below the one that it narrows."""
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(seen.title, "bold"), guide_style="dim")
    tree.add(Text(", ".join(seen.facts), "dim"))
    branch = tree
    for hop in seen.hops:
        here = branch.add(Text(hop.title, "cyan"))
        if hop.problem:
            here.add(Text(hop.problem, "bold red"))
        for line in hop.says:
            here.add(Text(line, _style(hop, line)))
        if hop.number < _DEEPEST:
            branch = here
    return tree


def _style(hop: Hop, line: str) -> str:
    """How a line of a link is drawn: red if it says that the link has expired."""
    if hop.problem:
        return "dim"
    says_when = line.startswith(("until ", "answered, until "))
    return "red" if hop.expired and says_when else ""


def as_mermaid(seen: View) -> str:
    """The chain as a Mermaid flowchart."""
    return "\n".join(_chart(seen))


def _chart(seen: View) -> Iterator[str]:
    yield "flowchart TD"
    yield f'    warning["{_mermaid(WARNING)}"]'
    yield f'    root["{_box(seen.title, seen.facts)}"]'
    above = "root"
    for hop in seen.hops:
        here = f"link{hop.number}"
        lines = (hop.problem, *hop.says) if hop.problem else hop.says
        yield f'    {here}["{_box(hop.title, lines)}"]'
        yield f"    {above} --> {here}"
        if hop.problem:
            yield f"    style {here} stroke:#c00,stroke-width:3px"
        above = here
    yield "    style warning stroke-dasharray: 5 5"


def _box(title: str, lines: tuple[str, ...]) -> str:
    return "<br/>".join(map(_mermaid, (title, *lines)))


def _mermaid(text: str) -> str:
    """`text` for a chart: whatever is not plain is written as the number of its character."""
    return "".join(char if _is_plain(char) else f"#{ord(char)};" for char in text)


def _is_plain(char: str) -> bool:
    # No quotes, brackets or backticks, which a chart reads as its own.
    return char.isascii() and (char.isalnum() or char in " .,:/_-")


@click.command()
@token_option
@click.option(
    "--mermaid",
    is_flag=True,
    help="Draw it as a Mermaid flowchart.",
)
@now_option
@json_option
def inspect(token_file: str, mermaid: bool, now: int | None, as_json: bool) -> None:
    """Show what a token says: who started what, what each link adds, and how long it lives.

    And the key that it is bound to, whom it asks, and what has come of that. Needs no key, and so
    VERIFIES NOTHING.

    \b
    captoken inspect < child.token
    """
    seen = view(read(files.token_text(token_file)), seconds(now))
    if as_json:
        output.say_json(as_data(seen))
        return
    if mermaid:
        output.say(as_mermaid(seen))
        return

    from rich.text import Text  # here, since most commands draw nothing

    warning = Text(WARNING, "bold red")
    lines = [Text.assemble((line[:_LABEL], "dim"), line[_LABEL:]) for line in seen.summary]
    output.draw(
        output.console(),
        warning,
        "",
        as_tree(seen),
        "",
        *lines,
    )

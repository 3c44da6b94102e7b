"""`captoken inspect`: what a token says of itself, as a tree, in JSON, or as a Mermaid flowchart."""

from __future__ import annotations

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


def as_data(seen: View) -> dict[str, Any]:
    """The same for machines: `caveats` are the links as they travel, where they can be read."""
    said = seen.token.unverified
    root = said.root
    return {
        "verified": False,
        "root": {
            key: value
            for key, value in msgspec.structs.asdict(root).items()
            if value not in (None, {})
        },
        "links": [_link_data(hop, link) for hop, link in zip(seen.hops, said.links, strict=True)],
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
    raw = hop.body.decode("utf-8", "backslashreplace")
    if link.receiver is not None:
        entry |= {"from": link.sender, "to": link.receiver}
    if hop.asks:
        entry["asks"] = {"raw": raw} if hop.ticket is None else {
            "discharger": hop.ticket.discharger,
            "location": hop.ticket.location,
            "answered": hop.answer is not None,
            "answer_expires_at": hop.answer.expires_at if hop.answer is not None else None,
        }  # fmt: skip
    elif isinstance(link, Link):
        body, signature = split_signature(hop.body)
        entry |= {"caveats": decode_json(body)} | (
            {"signed": True} if signature is not None else {}
        )
    else:
        entry |= {"code": link.code, "raw": raw}
    return entry | ({"problem": hop.problem} if hop.problem else {})


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
            dead = hop.expired and line.startswith(("until ", "answered, until "))
            here.add(Text(line, "dim" if hop.problem else "red" if dead else ""))
        if hop.number < _DEEPEST:
            branch = here
    return tree


def as_mermaid(seen: View) -> str:
    """The chain as a Mermaid flowchart. Whatever is not plain is written as the number of its character."""
    lines = [
        "flowchart TD",
        f'    warning["{_mermaid(WARNING)}"]',
        f'    root["{_box(seen.title, seen.facts)}"]',
    ]
    above = "root"
    for hop in seen.hops:
        here = f"link{hop.number}"
        lines.append(f'    {here}["{_box(hop.title, (*filter(None, [hop.problem]), *hop.says))}"]')
        lines.append(f"    {above} --> {here}")
        if hop.problem:
            lines.append(f"    style {here} stroke:#c00,stroke-width:3px")
        above = here
    lines.append("    style warning stroke-dasharray: 5 5")
    return "\n".join(lines)


def _box(title: str, lines: tuple[str, ...]) -> str:
    return "<br/>".join(map(_mermaid, (title, *lines)))


def _mermaid(text: str) -> str:
    return "".join(
        char if char.isascii() and (char.isalnum() or char in " .,:/_-") else f"#{ord(char)};"
        for char in text
    )


@click.command()
@token_option
@click.option("--mermaid", is_flag=True, help="Draw it as a Mermaid flowchart.")
@now_option
@json_option
def inspect(token_file: str, mermaid: bool, now: int | None, as_json: bool) -> None:
    """Show what a token says: who started what, what each link adds and who added it, how long it lives.

    And the key that it is bound to, whom it asks, and what has come of that. Needs no key, and so VERIFIES NOTHING.

    \b
    captoken inspect < child.token
    """
    token, discharges = read(files.token_text(token_file))
    seen = view(token, seconds(now), discharges)
    if as_json:
        output.say_json(as_data(seen))
    elif mermaid:
        output.say(as_mermaid(seen))
    else:
        from rich.text import Text

        summary = [Text.assemble((line[:10], "dim"), line[10:]) for line in seen.summary]
        output.draw(output.console(), Text(WARNING, "bold red"), "", as_tree(seen), "", *summary)

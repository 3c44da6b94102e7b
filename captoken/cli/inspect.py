"""`captoken inspect`: what a token says of itself, as a tree, in JSON, or as a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from captoken.cli import files, output, words
from captoken.cli.options import clock, json_option, now_option, seconds, token_option
from captoken.decision import Reason, escape
from captoken.encoding import decode_json
from captoken.lineage import Lineage, read_along
from captoken.links import BadLink, Link
from captoken.tokens import Token
from captoken.verify import ISSUER

if TYPE_CHECKING:
    from rich.tree import Tree

WARNING = "NOT VERIFIED: anybody can write this. Only `captoken verify` asks the keys."
_DEEPEST = 8  # levels of the tree; a longer chain goes on at the last one
_LONGEST = 240  # characters shown of a link that cannot be read


class Hop(msgspec.Struct, frozen=True):
    """One link in words. The texts are escaped; agents are ASCII names, or the link would not have been read."""

    number: int
    added_by: str
    receiver: str | None  # whom it hands the token to
    says: tuple[str, ...]  # what it adds
    expired: bool = False
    problem: str = ""  # why it prohibits everything
    body: bytes = b""

    @property
    def title(self) -> str:
        handed = f", hands on to {self.receiver}" if self.receiver is not None else ""
        return f"link {self.number}, added by {self.added_by}{handed}"


class View(msgspec.Struct, frozen=True):
    """A token in words. All texts are escaped."""

    token: Token
    now: int
    title: str
    facts: tuple[str, ...]
    hops: tuple[Hop, ...]
    summary: tuple[str, ...]


def _problem(link: Link | BadLink, before: Lineage) -> str:
    if isinstance(link, BadLink):
        kind = "unreadable" if link.code == "unreadable_link" else "opaque"
        return f"{kind}, prohibits everything: {escape(link.text)}"
    after = before.step(link)
    return f"the chain breaks here: {escape(after.text)}" if isinstance(after, Reason) else ""


def _hop(number: int, link: Link | BadLink, body: bytes, before: Lineage, now: int) -> Hop:
    expired = False
    if isinstance(link, Link):
        stated = decode_json(body)
        says = (*words.rights(stated), *words.bounds(stated, now))
        expired = stated.get("exp", now + 1) <= now
    else:
        text = body.decode("utf-8", "backslashreplace")
        says = (escape(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(body)} bytes)"),)
    added_by = before.holder if number else ISSUER
    return Hop(number, added_by, link.receiver, says, expired, _problem(link, before), body)


def _hops(token: Token, now: int) -> Iterator[Hop]:
    said = token.unverified
    agent, links = said.root.agent, said.links
    for number, (link, body) in enumerate(zip(links, said.bodies, strict=True)):
        yield _hop(number, link, body, read_along(agent, links[:number]), now)


def view(token: Token, now: int) -> View:
    """What a token says of itself, in words."""
    root, said = token.unverified.root, token.unverified
    facts = [f"agent {root.agent}", f"issued {words.moment(root.issued_at)}", f"token {root.token_id}", f"key {root.key_id}"]
    if root.audience is not None:
        facts.append(f"for {root.audience} alone")
    facts += [f"{key} = {words.name(str(value))}" for key, value in sorted(root.ext.items())]
    hops = tuple(_hops(token, now))
    may = words.rights({key: value for key, value in said.capability.json().items() if key != "task"}) or ["anything"]
    if said.capability.nothing or any(hop.problem for hop in hops):
        may = ["nothing"]
    elif said.lineage.must_delegate:
        may = [f"nothing before it is handed on, then {may[0]}", *may[1:]]
    ends = f"until {words.until(said.expires_at, now)}" if said.expires_at is not None else "never expires"
    count = len(token.serialize())
    return View(
        token,
        now,
        f"{root.subject} started task {root.task}",
        tuple(facts),
        hops,
        (
            f"held by   {' > '.join(said.lineage.holders)}",
            f"may       {'; '.join(may)}",
            f"task      {said.task}",
            f"lives     {ends}",
            f"size      {count:,} characters, {len(hops)} link{'s' * (len(hops) != 1)}",
            f"link id   {token.link_id}",
        ),
    )


def as_data(seen: View) -> dict[str, Any]:
    """The same for machines: `caveats` are the links as they travel, where they can be read."""
    said = seen.token.unverified
    root = said.root
    links: list[dict[str, Any]] = []
    for hop, link in zip(seen.hops, said.links, strict=True):
        entry: dict[str, Any] = {"link": hop.number, "added_by": hop.added_by}
        if link.receiver is not None:
            entry |= {"from": link.sender, "to": link.receiver}
        if isinstance(link, Link):
            entry["caveats"] = decode_json(hop.body)
        else:
            entry |= {"code": link.code, "raw": hop.body.decode("utf-8", "backslashreplace")}
        links.append(entry | ({"problem": hop.problem} if hop.problem else {}))
    return {
        "verified": False,
        "root": {key: value for key, value in msgspec.structs.asdict(root).items() if value not in (None, {})},
        "links": links,
        "holders": list(said.lineage.holders),
        "task": said.task,
        "expires_at": said.expires_at,
        "capability": said.capability.json(),
        "permits_nothing": said.capability.nothing,
        "characters": len(seen.token.serialize()),
        "link_id": seen.token.link_id,
    }


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
            dead = hop.expired and line.startswith("until ")
            here.add(Text(line, "dim" if hop.problem else "red" if dead else ""))
        if hop.number < _DEEPEST:
            branch = here
    return tree


def as_mermaid(seen: View) -> str:
    """The chain as a Mermaid flowchart. Whatever is not plain is written as the number of its character."""
    lines = ["flowchart TD", f'    warning["{_mermaid(WARNING)}"]', f'    root["{_box(seen.title, seen.facts)}"]']
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
    return "".join(char if char.isascii() and (char.isalnum() or char in " .,:/_-") else f"#{ord(char)};" for char in text)


@click.command()
@token_option
@click.option("--mermaid", is_flag=True, help="Draw it as a Mermaid flowchart.")
@now_option
@json_option
def inspect(token_file: str, mermaid: bool, now: int | None, as_json: bool) -> None:
    """Show what a token says: who started what, what each link adds and who added it, how long it lives.

    Needs no key, and so VERIFIES NOTHING.

    \b
    captoken inspect < child.token
    """
    seen = view(files.token(token_file, clock(now)), seconds(now))
    if as_json:
        output.say_json(as_data(seen))
    elif mermaid:
        output.say(as_mermaid(seen))
    else:
        from rich.text import Text

        summary = [Text.assemble((line[:10], "dim"), line[10:]) for line in seen.summary]
        output.draw(output.console(), Text(WARNING, "bold red"), "", as_tree(seen), "", *summary)

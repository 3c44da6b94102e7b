"""`captoken inspect`: what a token says of itself, as a tree, in JSON, or as a flowchart.

`--html` writes a page that does the same in a browser, and has no token in it.

Each of them shows the same (`captoken.cli.view`), and that nothing of it is verified: a line for
people, a field for machines, a box in the chart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click
import msgspec

from captoken._format.text import SET_PREFIX
from captoken._language.link import BadLink, Link
from captoken._language.links import words_of
from captoken._writing.token_set import TokenSet
from captoken.cli import files, output
from captoken.cli.options import json_option, now_option, seconds, token_option
from captoken.cli.view import Hop, View, read, view

if TYPE_CHECKING:
    from rich.tree import Tree

# Above whatever is shown for people.
WARNING = "NOT VERIFIED: anybody can write this. Only `captoken verify` asks the keys."

# Levels of the tree. A longer chain goes on at the last one, and does not leave the terminal.
_DEEPEST = 8

# Columns of a summary's line before what it says.
_LABEL = 10


# --- for machines ---------------------------------------------------------------------------------


def as_data(seen: View) -> dict[str, Any]:
    """The same for machines: `caveats` are the links as they travel, where they can be read.

    `verified` is false, whatever the token says: so no program takes this for an answer.
    """
    said = seen.token.unverified

    # Without what the issuer has not stated.
    root = msgspec.structs.asdict(said.root)
    stated = {name: value for name, value in root.items() if value not in (None, {})}

    links = zip(seen.hops, said.links, strict=True)
    key: dict[str, Any] | None = None
    if seen.bound_by is not None:
        key = {"public": said.key, "link": seen.bound_by}

    return {
        "verified": False,
        "root": stated,
        "links": [_link_data(hop, link) for hop, link in links],
        "holders": list(said.lineage.holders),
        "key": key,
        "task": said.task,
        "expires_at": said.expires_at,
        "capability": said.capability.json(),
        "permits_nothing": said.capability.nothing,
        "characters": seen.characters,
        "link_id": seen.token.link_id,
    }


def _link_data(hop: Hop, link: Link | BadLink) -> dict[str, Any]:
    """One link: who added it, what it is, and why it prohibits everything if it does."""
    entry: dict[str, Any] = {
        "link": hop.number,
        "added_by": hop.added_by,
    }
    if link.receiver is not None:
        entry |= {"from": link.sender, "to": link.receiver}

    # A third party's, one that can be read, or one that cannot.
    if hop.asks:
        entry["asks"] = _asked_data(hop)
    elif isinstance(link, Link):
        entry["caveats"] = words_of(hop.body)
        if link.signature is not None:
            entry["signed"] = True
    else:
        entry |= {"code": link.code, "raw": _raw(hop)}

    if hop.problem:
        entry["problem"] = hop.problem
    return entry


def _asked_data(hop: Hop) -> dict[str, Any]:
    """Who is asked by a third-party caveat, and what has come of it.

    The bytes alone, where they are no ticket.
    """
    if hop.ticket is None:
        return {"raw": _raw(hop)}

    answer = hop.answer
    return {
        "discharger": hop.ticket.discharger,
        "location": hop.ticket.location,
        "answered": answer is not None,
        "answer_expires_at": None if answer is None else answer.expires_at,
    }


def _raw(hop: Hop) -> str:
    """The bytes of a link that cannot be read, as text."""
    return hop.body.decode("utf-8", "backslashreplace")


# --- for people -----------------------------------------------------------------------------------


def as_tree(seen: View) -> Tree:
    """The chain as a tree: each link below the one that it narrows.

    user:jane started task refunds
    ├── agent triage, issued 2030-…
    └── link 0, added by the issuer
        ├── select on sales
        └── link 1, added by triage, hands on to billing
            └── until 2030-…
    """
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

        # The next link stands below this one, or beside it where the tree is deep enough.
        if hop.number < _DEEPEST:
            branch = here
    return tree


def _style(hop: Hop, line: str) -> str:
    """How a line of a link is drawn: red if it says that the link has expired."""
    # Nothing of it counts.
    if hop.problem:
        return "dim"

    says_when = line.startswith(("until ", "answered, until "))
    return "red" if hop.expired and says_when else ""


def as_mermaid(seen: View) -> str:
    """The chain as a Mermaid flowchart.

    flowchart TD
        warning["NOT VERIFIED: …"]
        root["user:jane started task refunds<br/>…"]
        link0["link 0, added by the issuer<br/>select on sales"]
        root --> link0
    """
    return "\n".join(_chart(seen))


def _chart(seen: View) -> Iterator[str]:
    """The lines of the chart: a box for the root record and for each link, with an arrow to it."""
    yield "flowchart TD"
    yield f'    warning["{_mermaid(WARNING)}"]'
    yield f'    root["{_box(seen.title, seen.facts)}"]'

    above = "root"
    for hop in seen.hops:
        here = f"link{hop.number}"
        lines = (hop.problem, *hop.says) if hop.problem else hop.says
        yield f'    {here}["{_box(hop.title, lines)}"]'
        yield f"    {above} --> {here}"
        # A frame in red for a link that prohibits everything.
        if hop.problem:
            yield f"    style {here} stroke:#c00,stroke-width:3px"
        above = here

    yield "    style warning stroke-dasharray: 5 5"


def _box(title: str, lines: tuple[str, ...]) -> str:
    """What stands in a box, one line below the other."""
    return "<br/>".join(map(_mermaid, (title, *lines)))


def _mermaid(text: str) -> str:
    """`text` for a chart: whatever is not plain is written as the number of its character.

    So no name in a token ends its box, and draws an arrow or a link of its own.
    """
    return "".join(char if _is_plain(char) else f"#{ord(char)};" for char in text)


def _is_plain(char: str) -> bool:
    """May the character stand in a chart as it is?

    No quotes, brackets or backticks, which a chart reads as its own.
    """
    return char.isascii() and (char.isalnum() or char in " .,:/_-")


# --- in a browser ---------------------------------------------------------------------------------


def _say_page(path: str, beside: Mapping[str, bool]) -> None:
    """Write the inspector, which reads no token. `beside`: other options, and whether they came.

    Raises UsageError for one that did: it would look as if the page had heeded it.
    """
    from captoken.cli.console import inspector

    others = [name for name, is_given in beside.items() if is_given]
    if path != "-":
        others.insert(0, "--token-file")
    if others:
        told = "--html writes a page, into which a token is pasted"
        raise click.UsageError(f"{told}: it does not go with {others[0]}")
    output.say_exact(inspector.page().removesuffix("\n"))


@click.command()
@token_option
@click.option(
    "--mermaid",
    is_flag=True,
    help="Draw it as a Mermaid flowchart.",
)
@click.option(
    "--html",
    is_flag=True,
    help="Write a web page that decodes a pasted token. Reads no token.",
)
@now_option
@json_option
def inspect(
    token_file: str,
    mermaid: bool,
    html: bool,
    now: int | None,
    as_json: bool,
) -> None:
    """Show what a token says, without verifying it.

    It shows who started what, what each link adds, and when the token expires. It also shows the
    key that the token is bound to, the third parties that it asks, and their answers. Needs no key,
    and so VERIFIES NOTHING.

    \b
    captoken inspect < child.token
    captoken inspect --html > inspector.html

    For a set, it shows each token in turn.

    --html writes a page in one file, which a browser opens without a server. Its own policy forbids
    every connection, so nothing that you paste leaves the page. If you also paste the root key, it
    verifies the token.
    """
    if html:
        beside = {"--mermaid": mermaid, "--now": now is not None, "--json": as_json}
        return _say_page(token_file, beside)
    if mermaid and as_json:
        raise click.UsageError("--mermaid draws a chart: it does not go with --json")
    text = files.token_text(token_file)
    if text.startswith(SET_PREFIX):
        if mermaid:
            raise click.UsageError("--mermaid draws one token, and this is a set of them")
        with files.about(token_file):
            made = TokenSet.parse(text)
        texts = {server: made.token(server).serialize() for server in made.servers}
        views = {server: view(read(one), seconds(now)) for server, one in texts.items()}
        if not as_json:
            return _draw(views)
        its = {server: as_data(seen) for server, seen in views.items()}
        return output.say_json({"verified": False, "servers": its})
    with files.about(token_file):
        shown = read(text)
    seen = view(shown, seconds(now))
    if as_json:
        return output.say_json(as_data(seen))
    return output.say_exact(as_mermaid(seen)) if mermaid else _draw({"": seen})


def _draw(views: Mapping[str, View]) -> None:
    """For people: the warning, and then each token, under the name of its server in a set."""
    from rich.text import Text  # here, since most commands draw nothing

    drawn: list[Any] = [Text(WARNING, "bold red")]
    for server, seen in views.items():
        drawn += ["", *([Text(f"for {server}", "bold"), ""] if server else ())]
        drawn += [as_tree(seen), ""]
        for line in seen.summary:
            drawn.append(Text.assemble((line[:_LABEL], "dim"), line[_LABEL:]))
    output.draw(output.console(), *drawn)

"""The token that opens the specification, byte by byte: minted, delegated and presented by captoken, taken apart here."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

from captoken import Issuer, Keyring
from captoken.testing import FixedClock, fixed_random
from spec.generate import build

SPECIFICATION = Path(__file__).parent.parent / "captoken-v1.md"
BEGIN, END = "<!-- begin: written by spec/generate/anatomy.py -->\n", "<!-- end -->\n"
AUDIENCE = "sales-db"


def presented() -> str:
    """The text: minted for `orchestrator`, handed on to `sales-agent`, presented to `sales-db`."""
    keyring = Keyring.from_keys({"k1": build.KEY}, current="k1")
    issuer = Issuer(keyring, clock=FixedClock(build.NOW), random=fixed_random("spec"))
    root = issuer.mint(
        subject="user:jane", agent="orchestrator", task="task-123", tables=["sales", "market.*"], operations=["select"],
        expires_in=600,
    )  # fmt: skip
    child = root.delegate(to="sales-agent", tables=["sales"], expires_in=300)
    return child.present(audience=AUDIENCE, expires_in=60)


def _fields(wire: bytes) -> Iterator[tuple[int, int, int]]:
    """Where identifier and links stand: type byte, first byte, end. Lengths here have one byte or two."""
    at = 1
    while wire[at] == 2:
        size, start = wire[at + 1], at + 2
        if size >= 0x80:
            size, start = size & 0x7F | wire[at + 2] << 7, at + 3
        yield at, start, start + size
        at = start + size + 1


def _dump(at: int, data: bytes, note: str = "") -> Iterator[str]:
    """Lines of up to 16 bytes with `note` beside the first; without one, beside each the text that it is."""
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        beside = row.decode() if not note else note if start == 0 else ""
        yield f"{at + start:4}  {row.hex(' '):<47}  {beside}".rstrip()


def _taken_apart(wire: bytes) -> Iterator[str]:
    yield from _dump(0, wire[:1], "a macaroon of version 2")
    names = ("identifier, the root record", *(f"link {number}" for number in range(64)))
    for name, (at, start, end) in zip(names, _fields(wire), strict=False):
        yield ""
        yield from _dump(at, wire[at:start], f"{name}: {end - start} bytes")
        yield from _dump(start, wire[start:end])
        yield from _dump(end, wire[end : end + 1], "its end")
    yield ""
    yield from _dump(end + 1, wire[end + 1 : end + 2], "the end of the links")
    yield from _dump(end + 2, wire[end + 2 : end + 4], "the signature, the last tag of the chain: 32 bytes")
    yield from _dump(end + 4, wire[end + 4 :], " ")


def _signed(bodies: list[bytes]) -> Iterator[str]:
    tags = [build.derive(build.KEY)]
    for body in bodies:
        tags.append(build.mac(tags[-1], body))
    links = [f"link {number}" for number in range(len(bodies) - 1)]
    yield "the chain: each tag is HMAC-SHA-256, under the one before, of what is named"
    yield f"  key k1      {build.KEY.hex()}"
    yield f"  derived     {tags[0].hex()}  (section Chain)"
    for name, tag in zip(("identifier", *links), tags[1:], strict=True):
        yield f"  {name:<10}  {tag.hex()}"
    yield ""
    yield "link ids: public names of a link and all below it"
    for name, tag in zip(links, tags[2:], strict=True):
        yield f"  {name:<10}  {build.link_id(tag)}"


def _judged(links: list[dict[str, build.Json]]) -> Iterator[str]:
    chain = "orchestrator (issued)" + "".join(f" > {link['to']} (vouched)" for link in links if "to" in link)
    yield f"at {build.NOW} a verifier that has k1 and is called {AUDIENCE} says of select on sales: allowed"
    yield f"  {chain}, for user:jane, in task-123, until {min(link['exp'] for link in links)}"
    yield "and of select on market.eu, which link 1 dropped: table"


def opening() -> str:
    """The first block of the specification."""
    text = presented()
    wire = base64.urlsafe_b64decode(text[5:] + "=" * (-len(text[5:]) % 4))
    bodies = [wire[start:end] for _, start, end in _fields(wire)]
    rows = [text[at : at + 100] for at in range(0, len(text), 100)]
    blocks = (_taken_apart(wire), _signed(bodies), _judged([json.loads(body) for body in bodies[1:]]))
    return "\n".join(("```", *rows, *(line for block in blocks for line in ("", *block)), "```", ""))


def specification() -> str:
    """The specification, its opening as it is written now."""
    whole = SPECIFICATION.read_text(encoding="utf-8")
    before, _, rest = whole.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + opening() + END + after

"""What a token says of itself, in words: each link, the key, who is asked and what came of it. All texts are escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from captoken._format.encoding import b64encode, decode_json
from captoken._format.errors import DischargeError
from captoken._format.spelling import escape
from captoken._format.text import BOUND, PROOF, parts_of, text_of
from captoken._language.caveats import V1
from captoken._language.discharge import Discharge, Ticket
from captoken._language.lineage import Lineage, read_along
from captoken._language.links import BadLink, Link, ThirdParty, read_link, split_signature
from captoken._language.reasons import Reason
from captoken._verification.genuine import ISSUER
from captoken._writing.token import Token
from captoken.cli import words

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
    asks: bool = False  # a third party
    ticket: Ticket | None = None  # which one, if that can be read
    answer: Discharge | None = None  # if it is here

    @property
    def title(self) -> str:
        handed = f", hands on to {self.receiver}" if self.receiver is not None else ""
        return f"link {self.number}, added by {self.added_by}{handed}"


class View(msgspec.Struct, frozen=True):
    """A token in words."""

    token: Token
    now: int
    title: str
    facts: tuple[str, ...]
    hops: tuple[Hop, ...]
    summary: tuple[str, ...]
    characters: int
    bound_by: int | None = None  # the link that bound it to the key that it is bound to
    left_over: int = 0  # discharges that answer nothing asked


def read(text: str) -> tuple[Token, tuple[Discharge, ...]]:
    """A token as it is held or as it is presented, and the discharges that travel with it. Raises TokenFormatError."""
    if f".{BOUND}" not in text and f".{PROOF}" not in text:
        token = Token.parse(text)
        return token, token.unverified.discharges
    parts = parts_of(text, BOUND)
    return Token.parse(text_of(parts.packet)), tuple(map(Discharge, parts.discharges))


def _problem(link: Link | BadLink, before: Lineage) -> str:
    if isinstance(link, BadLink):
        kind = "unreadable" if link.code == "unreadable_link" else "opaque"
        return f"{kind}, prohibits everything: {escape(link.text)}"
    after = before.step(link)
    if isinstance(after, Reason):
        return f"the chain breaks here: {escape(after.text)}"
    if before.key is not None and link.key is not None and link.signature is None:
        return "the chain breaks here: bound to another key, and the one before has not signed that"
    return ""


def _says(link: Link | BadLink, body: bytes, now: int) -> list[str]:
    """What a link adds, in lines."""
    if isinstance(link, BadLink):
        text = body.decode("utf-8", "backslashreplace")
        return [
            escape(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(body)} bytes)")
        ]
    stated = decode_json(split_signature(body)[0])
    lines = [*words.rights(stated), *words.bounds(stated, now)]
    if link.key is not None:
        signed = ", signed by the key before" if link.signature is not None else ""
        lines.append(f"bound to {b64encode(link.key)}{signed}")
    return lines


def _is_over(links: Iterable[Link | BadLink], now: int) -> bool:
    caveats = (caveat for link in links if isinstance(link, Link) for caveat in link.caveats)
    return any(caveat.key == "exp" and caveat.value <= now for caveat in caveats)


def _asking(hop: Hop, discharges: Mapping[bytes, Discharge], now: int) -> Hop:
    """The hop of a third-party caveat: who is asked, and what the answer says. What is asked, nobody else can read."""
    hop = replace(hop, asks=True)
    try:
        ticket = Ticket.parse(hop.body)
    except DischargeError as error:
        return replace(
            hop, says=(f"asks a third party, which cannot be read: {escape(str(error))}",)
        )
    place = f" at {words.name(ticket.location)}" if ticket.location is not None else ""
    says = [f"asks {ticket.discharger}{place}"]
    answer = discharges.get(ticket.cid)
    if answer is None:
        return replace(hop, says=(*says, "no answer is here"), ticket=ticket)
    bodies = [body for body, _ in answer.packet.caveats]
    links = [read_link(body, V1) for body in bodies]
    says += [
        f"answered, {line}"
        for link, body in zip(links, bodies, strict=True)
        for line in _says(link, body, now)
    ]
    return replace(
        hop, says=tuple(says), expired=_is_over(links, now), ticket=ticket, answer=answer
    )


def _hops(token: Token, discharges: Mapping[bytes, Discharge], now: int) -> Iterator[Hop]:
    said = token.unverified
    agent, links = said.root.agent, said.links
    for number, (link, body) in enumerate(zip(links, said.bodies, strict=True)):
        before = read_along(agent, links[:number])
        added_by = before.holder if number else ISSUER
        if isinstance(link, ThirdParty):
            yield _asking(Hop(number, added_by, None, (), body=body), discharges, now)
        else:
            says = tuple(_says(link, body, now))
            yield Hop(
                number,
                added_by,
                link.receiver,
                says,
                _is_over([link], now),
                _problem(link, before),
                body,
            )


def _bound_by(token: Token) -> int | None:
    agent, links = token.unverified.root.agent, token.unverified.links
    keys = [read_along(agent, links[:count]).key for count in range(len(links) + 1)]
    return max(
        (number for number in range(len(links)) if keys[number + 1] != keys[number]), default=None
    )


def view(token: Token, now: int, discharges: tuple[Discharge, ...] = ()) -> View:
    """What a token and the discharges that travel with it say, in words."""
    root, said = token.unverified.root, token.unverified
    facts = [
        f"agent {root.agent}",
        f"issued {words.moment(root.issued_at)}",
        f"token {root.token_id}",
        f"key {root.key_id}",
    ]
    if root.audience is not None:
        facts.append(f"for {root.audience} alone")
    facts += [f"{key} = {words.name(str(value))}" for key, value in sorted(root.ext.items())]
    hops = tuple(_hops(token, {discharge.cid: discharge for discharge in discharges}, now))
    may = words.rights(
        {key: value for key, value in said.capability.json().items() if key != "task"}
    ) or ["anything"]
    if said.capability.nothing or any(hop.problem for hop in hops):
        may = ["nothing"]
    elif said.lineage.must_delegate:
        may = [f"nothing before it is handed on, then {may[0]}", *may[1:]]
    ends = (
        f"until {words.until(said.expires_at, now)}"
        if said.expires_at is not None
        else "never expires"
    )
    asked, answered = sum(hop.asks for hop in hops), sum(hop.answer is not None for hop in hops)
    bound_by, left_over = _bound_by(token), len(discharges) - answered
    alone = text_of(token.secret_packet)
    characters = len(alone) + sum(1 + len(discharge.serialize()) for discharge in discharges)
    summary = [f"held by   {' > '.join(said.lineage.holders)}", f"may       {'; '.join(may)}"]
    if bound_by is not None:
        summary.append(f"bound to  {said.key}, by link {bound_by}")
    if asked or left_over:
        more = (
            f", and {left_over} discharge{'s' * (left_over != 1)} that nothing asks for"
            if left_over
            else ""
        )
        summary.append(
            f"asks      {asked} third part{'ies' if asked != 1 else 'y'}, {answered} answered{more}"
        )
    summary += [
        f"task      {said.task}",
        f"lives     {ends}",
        f"size      {characters:,} characters, {len(hops)} link{'s' * (len(hops) != 1)}",
        f"link id   {token.link_id}",
    ]
    title = f"{root.subject} started task {root.task}"
    return View(
        token, now, title, tuple(facts), hops, tuple(summary), characters, bound_by, left_over
    )

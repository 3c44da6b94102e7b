"""What a token says of itself, in words: each link, the key, who is asked, and what came of it.

All texts are escaped. Nothing is verified: a link is shown as whoever wrote it says.

    user:jane started task refunds        View.title
    agent triage, issued 2030-…, …        View.facts
    link 0, added by the issuer           Hop.title
        select on sales                   Hop.says
    link 1, added by triage, hands on to billing
        until 2030-…
    held by   triage > billing            View.summary
    may       select on sales
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from captoken._format.encoding import b64encode
from captoken._format.errors import DischargeError
from captoken._format.root import RootRecord
from captoken._format.spelling import escape, named, readable_time
from captoken._format.text import BOUND, PROOF, parts_of, text_of
from captoken._language.capability import Capability
from captoken._language.caveats import V1
from captoken._language.conditions import Expires
from captoken._language.discharge import Discharge, Ticket
from captoken._language.lineage import read_along, step
from captoken._language.link import BadLink, Lineage, Link, ThirdParty
from captoken._language.links import read_link
from captoken._language.reasons import Reason
from captoken._verification.authenticated import ISSUER
from captoken._writing.token import Token
from captoken.cli import words

# Characters shown of a link that cannot be read.
_LONGEST = 240


class Hop(msgspec.Struct, frozen=True):
    """One link in words.

    The texts are escaped; agents are ASCII names, or the link would not have been read.
    """

    number: int
    added_by: str

    # The agent that the link hands the token to.
    receiver: str | None

    # The link's restrictions, as lines.
    says: tuple[str, ...]
    expired: bool = False

    # The reason why it prohibits everything; "" if it does not.
    problem: str = ""

    # The bytes of the link, as they travel.
    body: bytes = b""

    # Does it ask a third party? Which one, if that can be read, and the answer, if it is here.
    asks: bool = False
    ticket: Ticket | None = None
    answer: Discharge | None = None

    @property
    def title(self) -> str:
        """Which link it is, and who added it."""
        on = "" if self.receiver is None else f", hands on to {self.receiver}"
        return f"link {self.number}, added by {self.added_by}{on}"


class View(msgspec.Struct, frozen=True):
    """A token in words."""

    token: Token

    # Who started what, and what else the root record says.
    title: str
    facts: tuple[str, ...]

    # Each link, in order.
    hops: tuple[Hop, ...]

    # All of them taken together, in lines with a label of ten columns.
    summary: tuple[str, ...]

    # How long the text is, with all that travels with the token.
    characters: int

    # The link that bound it to the key that it is bound to.
    bound_by: int | None = None


# --- reading --------------------------------------------------------------------------------------


class Shown(msgspec.Struct, frozen=True):
    """A text, read: a token, and what travels with it."""

    token: Token
    discharges: tuple[Discharge, ...]

    # How long the text was.
    characters: int

    # Is there a proof at its end? It is about one request, and says nothing that could be shown.
    has_proof: bool = False


def read(text: str) -> Shown:
    """A token as it is held, or as it is presented. Raises TokenFormatError."""
    if f".{BOUND}" not in text and f".{PROOF}" not in text:
        token = Token.parse(text)
        return Shown(token, token.unverified.discharges, len(text))

    # Nobody holds such a text, and `Token.parse` refuses it. It is taken apart to be shown.
    parts = parts_of(text, BOUND)
    token = Token.parse(text_of(parts.packet))
    discharges = tuple(map(Discharge, parts.discharges))
    return Shown(token, discharges, len(text), parts.proof is not None)


# --- links ----------------------------------------------------------------------------------------


def _problem(link: Link | BadLink, before: Lineage) -> str:
    """Why a link prohibits everything; "" if it does not. `before` is the chain up to it."""
    if isinstance(link, BadLink):
        kind = "unreadable" if link.code == "unreadable_link" else "opaque"
        return f"{kind}, prohibits everything: {escape(link.text)}"

    after = step(before, link)
    if isinstance(after, Reason):
        return f"the chain breaks here: {escape(after.text)}"

    # Custody: only the key before hands a bound token on to another key (spec, "Holder binding").
    # Whether a signature that is there is good, the verifier alone says.
    if before.key is not None and link.key is not None and link.signature is None:
        unsigned = "bound to another key, and the one before has not signed that"
        return f"the chain breaks here: {unsigned}"
    return ""


def _says(link: Link | BadLink, body: bytes, now: int) -> list[str]:
    """What a link adds, in lines.

    The caveats first, then what it says of those after it, and last the key that it binds to:

        select on sales
        at most 1 more delegation
        bound to IFmwfP1g…, signed by the key before
    """
    if isinstance(link, BadLink):
        return [_raw(body)]

    lines = list(words.of_caveats(link.caveats, now))
    lines += words.of_position(link.depth, link.delegate_only)
    if link.key is not None:
        signed = ", signed by the key before" if link.signature is not None else ""
        lines.append(f"bound to {b64encode(link.key)}{signed}")
    return lines


def _raw(body: bytes) -> str:
    """A link that cannot be read, as it stands and not too long."""
    text = body.decode("utf-8", "backslashreplace")
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}... ({len(body)} bytes)"
    return escape(text)


def _is_over(links: Iterable[Link | BadLink], now: int) -> bool:
    """Has one of the links expired? A token is good while now is less than its end."""
    known = (link for link in links if isinstance(link, Link))
    caveats = (caveat for link in known for caveat in link.caveats)
    return any(isinstance(caveat, Expires) and caveat.value <= now for caveat in caveats)


def _asking(
    hop: Hop,
    discharges: Mapping[bytes, Discharge],
    now: int,
) -> Hop:
    """The hop of a third-party caveat: who is asked, and what the answer says.

    `hop` is what is known of it without its ticket. What is asked, nobody else can read. In words:

        asks 5HQx… at https://approve.example
        answered, until 2030-…                 or: no answer is here
    """
    hop = replace(hop, asks=True)
    try:
        ticket = Ticket.parse(hop.body)
    except DischargeError as error:
        unreadable = f"asks a third party, which cannot be read: {escape(str(error))}"
        return replace(hop, says=(unreadable,))

    # A hint where to go, that the holder who added it has written.
    place = f" at {named(ticket.location)}" if ticket.location is not None else ""
    asks = f"asks {ticket.discharger}{place}"

    answer = discharges.get(ticket.cid)
    if answer is None:
        return replace(hop, says=(asks, "no answer is here"), ticket=ticket)

    says, expired = _answered(answer, now)
    return replace(
        hop,
        says=(asks, *says),
        expired=expired,
        ticket=ticket,
        answer=answer,
    )


def _answered(answer: Discharge, now: int) -> tuple[list[str], bool]:
    """What a discharge says, in lines, and whether it has expired.

    Its links are read as those of a token: it may narrow what it answers for.
    """
    links = [(read_link(body, V1), body) for body, _ in answer.packet.caveats]
    lines = [f"answered, {line}" for link in links for line in _says(*link, now)]
    return lines, _is_over((link for link, _ in links), now)


def _hops(
    token: Token,
    discharges: Mapping[bytes, Discharge],
    now: int,
) -> Iterator[Hop]:
    """Each link in words, in order."""
    said = token.unverified
    links = zip(said.links, said.bodies, strict=True)
    for number, (link, body) in enumerate(links):
        # As the links before it say: whoever was named last has added this one.
        before = read_along(said.root.agent, said.links[:number])
        added_by = before.holder if number else ISSUER

        if isinstance(link, ThirdParty):
            yield _asking(Hop(number, added_by, None, (), body=body), discharges, now)
            continue

        yield Hop(
            number,
            added_by,
            receiver=link.receiver,
            says=tuple(_says(link, body, now)),
            expired=_is_over([link], now),
            problem=_problem(link, before),
            body=body,
        )


def _bound_by(token: Token) -> int | None:
    """The link that bound the token to the key that it is bound to. None if it is bound to none."""
    agent = token.unverified.root.agent
    links = token.unverified.links

    # The key before each link, and after the last one.
    keys = [read_along(agent, links[:count]).key for count in range(len(links) + 1)]

    # The last link after which it is another key: a link that repeats the key binds nothing.
    changed = [number for number in range(len(links)) if keys[number + 1] != keys[number]]
    return max(changed, default=None)


# --- the whole ------------------------------------------------------------------------------------


def view(shown: Shown, now: int) -> View:
    """What a token and what travels with it say, in words.

    `now` serves to say how far off times are, and what has expired. Nothing is asked, and no key
    is needed.
    """
    token = shown.token
    root = token.unverified.root
    answers = {discharge.cid: discharge for discharge in shown.discharges}
    hops = tuple(_hops(token, answers, now))
    bound_by = _bound_by(token)
    return View(
        token,
        title=f"{root.subject} started task {root.task}",
        facts=tuple(_facts(root)),
        hops=hops,
        summary=tuple(_summary(shown, hops, bound_by, now)),
        characters=shown.characters,
        bound_by=bound_by,
    )


def _facts(root: RootRecord) -> Iterator[str]:
    """What the root record says, but for who started what.

    Names in it were checked when it was read. What is free is escaped.
    """
    yield f"agent {root.agent}"
    yield f"issued {readable_time(root.issued_at)}"
    yield f"token {root.token_id}"
    yield f"key {root.key_id}"
    if root.audience is not None:
        yield f"for {root.audience} alone"
    for key, value in sorted(root.ext.items()):
        yield f"{key} = {named(str(value))}"


def _summary(
    shown: Shown,
    hops: tuple[Hop, ...],
    bound_by: int | None,
    now: int,
) -> Iterator[str]:
    """All links taken together, in lines.

    They begin with a label of ten columns, so that what they say stands in one column.
    """
    said = shown.token.unverified
    size = f"{shown.characters:,} characters"
    yield f"held by   {' > '.join(said.lineage.holders)}"
    yield f"may       {_may(shown.token, hops, now)}"
    yield from _denied_in_sqlite(said.capability)
    if bound_by is not None:
        yield f"bound to  {said.key}, by link {bound_by}"
    if shown.has_proof:
        yield "proof     for one sending, and not looked at here"
    yield from _asked(shown, hops)
    yield f"task      {said.task}"
    yield f"lives     {words.ends(said.expires_at, now)}"
    yield f"size      {size}, {words.counted(len(hops), 'link')}"
    yield f"link id   {shown.token.link_id}"


def _may(token: Token, hops: tuple[Hop, ...], now: int) -> str:
    """Which accesses the token permits, in one line.

    By its links alone. A verifier may permit less: by an overlay, a budget, or who calls.
    """
    said = token.unverified

    # A link that cannot be read, or that breaks the chain, prohibits everything (spec, "Links").
    if said.capability.nothing or any(hop.problem for hop in hops):
        return "nothing"

    stated = said.capability.json()
    lines = words.of_rights(stated, now) or ["anything"]
    rights = "; ".join(lines + words.of_rules(stated, now))
    if said.lineage.must_delegate:
        return f"nothing before it is handed on, then {rights}"
    return rights


def _denied_in_sqlite(capability: Capability) -> Iterator[str]:
    """A note for rights that a SQLite guard always denies, because of restricted columns.

    SQLite does not tell which columns an insert or a delete touches. Other servers can permit
    them, and a token need not say which server it is for.
    """
    denied: list[str] = []
    for table, rights in sorted((capability.data or {}).items()):
        writes = [one for one in ("insert", "delete") if {one, "*"} & rights.operations]
        if rights.columns is not None and writes:
            denied.append(f"{' and '.join(writes)} on {table}")
    if denied:
        yield f"note      a SQLite guard denies {'; '.join(denied)}: the columns are restricted"


def _asked(shown: Shown, hops: tuple[Hop, ...]) -> Iterator[str]:
    """How many third parties are asked, and how many have answered. No line if none is.

    A discharge that nothing asks for is counted too: whoever presents it should not.
    """
    asked = sum(hop.asks for hop in hops)
    answered = sum(hop.answer is not None for hop in hops)
    left_over = len(shown.discharges) - answered
    if not asked and not left_over:
        return

    parties = words.counted(asked, "third party", "third parties")
    line = f"asks      {parties}, {answered} answered"
    if left_over:
        line += f", and {words.counted(left_over, 'discharge')} that nothing asks for"
    yield line

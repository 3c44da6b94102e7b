"""Answers from an audit trail (spec, "Audit").

    gather          the records, by the hand-overs that they are about
    join            one tree from several trails, if a task has a token for each server
    unused          for each hop: granted and used rights, and narrower keywords that would have
                    been enough
    propose         for each agent and task: the narrowest keywords for what was done
    marked          for each task: which marks it has set, and what its rules closed after that
    replay          the recorded accesses under a proposed overlay
    blast_radius    what an agent, and all that it has handed tokens to, can still do, and how to
                    stop it

    seen = gather(read(lines))
    for hop in seen.hops():
        print(" > ".join(hop.holders), hop.basis, hop.allowed, hop.denied)

How the data flows:

    lines of a file    `read` in `captoken.audit` checks that each follows the one before
    records            `gather` puts each token below the hops that it went through
    History            `unused`, `replay` and `blast_radius` ask it, and change nothing

The rules of this file:

- Pure functions over records. They use no clock, no store and no key.
- A record has what one verifier saw of a token. A token that was never sent to that server is not
  here.
- Whoever can write the trail can write what is read here. `check` says who signed it.
- An unknown caveat makes a hop look wider than it is, and never narrower.
- What the records cannot show is called `unknown`. It is never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import msgspec

from captoken._format import names
from captoken._format.encoding import LIMITS, Integer, b64decode, encode_json, own_words
from captoken._format.errors import AuditError, TokenFormatError
from captoken._format.root import RootRecord
from captoken._format.shapes import fit
from captoken._language import patterns
from captoken._language.access import Access, narrowest
from captoken._language.capability import Capability
from captoken._language.caveats import COUNTED, MARKING, RIGHTS, V1, Situation, Vocabulary
from captoken._language.conditions import Forbid, Marks
from captoken._language.entries import Entry, SelectorFacts, nonces_of
from captoken._language.lineage import read_along
from captoken._language.link import Actor, BadLink, Link, ThirdParty
from captoken._language.links import after, link_prohibits, read_link, unknown_keys
from captoken._language.overlay import Overlay

__all__ = [
    "Accessed",
    "Decided",
    "History",
    "Hop",
    "Issued",
    "Joined",
    "MarkSet",
    "Proposal",
    "Reach",
    "Replayed",
    "SeenToken",
    "Shortfall",
    "TaskMarks",
    "Usage",
    "blast_radius",
    "gather",
    "join",
    "marked",
    "propose",
    "refused_of",
    "replay",
    "unused",
]

# The code of what was denied since marks were set.
FORBIDDEN = "forbidden_after"

_SHOWN_HOPS = 50  # a trail can have a great many


class _Holding(Protocol):
    """One holding of a token, with those that came of it."""

    @property
    def below(self) -> Sequence[Self]: ...


_Below = TypeVar("_Below", bound=_Holding)


# --- records --------------------------------------------------------------------------------------
# The shapes of spec 39.3. A field that is not named here is passed over: a later version may have
# written it. A field of the wrong type is refused by msgspec, and `gather` says at which record.


class _LinkSaid(msgspec.Struct):
    """A link as it was recorded: its id, and the words that it spells.

    The signature of a link is left out by whoever writes a record (spec 39.6).
    """

    id: str
    says: dict[str, Any]


class _TokenSaid(msgspec.Struct):
    """A token as it was recorded, by the first decision about it.

    It is described once in a file, and again where the trail goes on in another.
    """

    # No token has more. What each of them leaves is worked out from all before it.
    links: Annotated[list[_LinkSaid], msgspec.Meta(max_length=LIMITS.links)]
    root: dict[str, Any]


class Accessed(msgspec.Struct):
    """What was tried, as it was recorded.

    Of arguments and attributes it has one of two things:

    - a list of their names, which is what a trail has unless it was told otherwise;
    - a mapping from names to values, from a trail that was made with `values=True`.

    `gather` makes it. It is not checked to be an access: a record is what somebody wrote.
    """

    table: str | None = None
    operation: str | None = None
    columns: list[str] | None = None
    tool: str | None = None
    arguments: list[str] | dict[str, Any] | None = None
    attributes: list[str] | dict[str, Any] = []

    # The cost, by unit.
    cost: dict[str, int] = {}


class InMark(msgspec.Struct):
    """A mark that a step was in, as it was recorded."""

    name: str

    # The place of its link in the chain; None of an entry of the overlay.
    link: int | None = None


class Consented(msgspec.Struct):
    """A consent that a decision spent, as it was recorded: whose, and from when until when."""

    by: str
    iat: Integer
    exp: Integer
    link: Integer | None = None


class Decided(msgspec.Struct):
    """A decision as it was recorded.

    `gather` makes it. `link` and `token` are ids, and are there only where the chain held: what a
    forged token says of itself is nobody's word (spec 39.3).
    """

    # Its number in the trail.
    seq: int

    # The time of the verifier's clock, in seconds since the epoch.
    at: Integer
    allowed: bool

    # The code of the decision, for machines.
    code: str

    # None if the token was only shown.
    access: Accessed | None = None

    # The holders, each with how its name is known.
    chain: list[Actor] = []

    # The id of the token's last link.
    link: str | None = None
    task: str | None = None

    # The token id.
    token: str | None = None

    # The id of what was taken of a ledger. Accesses of one step share it.
    taken: str | None = None

    # The leeway of the verifier, in seconds.
    leeway: Integer = 0

    # The time from `at` to the record, in milliseconds.
    ms: Integer | None = None

    # The marks that its step was in. All accesses of one step are in the same.
    marks: list[InMark] = []

    # The consents of people that it spent.
    consents: list[Consented] = []

    # What was wrong, as it stands in the record, in any shape: see `refusal`.
    refusals: Any = None

    @property
    def refusal(self) -> Mapping[str, Any]:
        """What was wrong first; nothing where the record has that in no shape of ours."""
        first = self.refusals[0] if isinstance(self.refusals, list) and self.refusals else None
        return first if isinstance(first, dict) else {}

    @property
    def moment(self) -> int:
        """When it was recorded, in milliseconds since the epoch."""
        return self.at * 1000 + (self.ms or 0)


class Issued(msgspec.Struct):
    """An exchange at an issuer as it was recorded: who asked for what, and what came of it.

    A refusal has no `chain`, `grant` and `task`: what was asked for is in `asked`.
    """

    # Its number in the trail.
    seq: int

    # The time of the issuer's clock, in seconds since the epoch.
    at: Integer
    allowed: bool

    # `issued`, or a code that says why not.
    code: str
    policy: str

    # The subject that started the task and the workload that acts, as their providers name them.
    subject: dict[str, str] = {}
    actor: dict[str, str] = {}
    asked: dict[str, Any] = {}
    grant: str | None = None
    sub: str | None = None
    task: str | None = None
    token: str | None = None
    chain: list[Actor] = []

    # What the caller was told, and what it was not.
    told: str = ""
    why: str = ""
    ms: Integer | None = None


# --- tokens, by the hand-overs that they went through ---------------------------------------------


class Hop(msgspec.Struct, eq=False):
    """One holding of a token, by one agent.

    From the link that handed it over to whatever the holder added before it handed it on:

    - `id` is that of the first of these links. An entry of the overlay on it cuts off this hop and
      all below.
    - `links` are those from the root down to it, as far as each is known here.
    - `decisions` are those on tokens of this very hop, and not of those below.
    - `basis` is how the agent's name is known: `issued`, `vouched`, or `proven` once a server has
      seen that a key signed the hand-over. Vouched names are what holders wrote (spec 26.6).

    `gather` makes hops, and goes on changing them until it returns. After that they are only read,
    so that threads may share them. The properties compute anew at each look.
    """

    id: str
    root: RootRecord
    holders: tuple[str, ...]
    links: tuple[Link | BadLink, ...]
    task: str
    basis: str = "vouched"
    below: list[Hop] = []
    decisions: list[Decided] = []

    # Caveats among its links that are not known here.
    unknown: tuple[str, ...] = ()

    # How many of its links the holder before it had got.
    before: int = 0

    @property
    def agent(self) -> str:
        """The name of whoever holds it. See `basis` for how far it can be relied on."""
        return self.holders[-1]

    @property
    def nonce(self) -> str | None:
        """The `n` of the hand-over that it began with: servers of a set have that in common.

        None at the top, where nothing was handed on, and where the link cannot be read.
        """
        last = self.links[-1]
        return last.nonce if isinstance(last, Link) and last.receiver is not None else None

    @property
    def capability(self) -> Capability:
        """The most that the holder can do.

        A caveat that is not known here may leave less: see `unknown`. A third party may say no,
        and an overlay may have taken some of it away since.
        """
        known = (link for link in self.links if isinstance(link, Link))
        return Capability.of(known, self.root.task, self.root.audience)

    @property
    def asks(self) -> bool:
        """Does it take a third party's answer as well?

        What was asked is sealed, and so not recorded. That it was asked is.
        """
        return any(isinstance(link, ThirdParty) for link in self.links)

    @property
    def is_dead(self) -> bool:
        """Does a link prohibit everything?

        A link that cannot be read here counts as one. A verifier that knows more may read it.
        """
        return any(isinstance(one, BadLink) for one in self.links) or self.capability.nothing

    @property
    def allowed(self) -> int:
        """How many accesses were allowed. Looks without an access are in `shown`."""
        return sum(decision.allowed and decision.access is not None for decision in self.decisions)

    @property
    def denied(self) -> int:
        """How many decisions went against it, whatever was asked."""
        return sum(not decision.allowed for decision in self.decisions)

    @property
    def shown(self) -> int:
        """How often the token was found in order, and no access was asked.

        So `authenticate` records it.
        """
        return len(self.decisions) - self.allowed - self.denied

    def __str__(self) -> str:
        """Who holds it, in which task, and what was decided. Names were checked when read."""
        chain = " > ".join(self.holders)
        return f"{chain}, task {self.task}: {self.allowed} allowed, {self.denied} denied"

    def __repr__(self) -> str:
        """On one line, whatever is below it."""
        return f"<Hop {self}>"

    def walk(self) -> Iterator[Hop]:
        """This hop and all below: each before those that it handed on to."""
        return _walked(self)


def _walked(top: _Below) -> Iterator[_Below]:
    """A holding and all below it.

    A list is kept in place of recursion, so that no depth of hand-overs is too deep.
    """
    waiting = [top]
    while waiting:
        one = waiting.pop()
        yield one
        # The last of the list comes next: so the first that was handed on is walked first.
        waiting += reversed(one.below)


class SeenToken(msgspec.Struct, frozen=True):
    """A token that was seen: the hops that it went through, and all its links.

    One hop has many tokens: its holder narrows for each call, and each of these has its own last
    link. So tokens are found by that, and decisions by the token.
    """

    # The holdings of all who have held it; the last is the present holder's.
    hops: tuple[Hop, ...]
    link_ids: tuple[str, ...]
    task: str
    nonces: tuple[str, ...] = ()  # the `n` of its links, of those that have one

    @property
    def selected_by(self) -> SelectorFacts:
        """What selectors of an overlay ask about it."""
        ids = [b64decode(link) for link in self.link_ids]
        hop = self.hop
        return SelectorFacts(hop.root, ids, self.task, hop.holders, self.nonces)

    @property
    def handed_over(self) -> SelectorFacts:
        """What selectors ask about it as its holder got it, before it was narrowed for a call."""
        hop, ids = self.hop, self.link_ids
        own = [b64decode(link) for link in ids[: ids.index(hop.id) + 1]]
        return SelectorFacts(hop.root, own, hop.task, hop.holders, self.nonces)

    @property
    def hop(self) -> Hop:
        """The hop of the present holder, to which decisions on this token belong."""
        return self.hops[-1]


class History(msgspec.Struct):
    """What the records of a trail say, put together.

    `gather` makes it. It is as large as the trail: all decisions stay in memory. Nothing here
    changes it afterwards, so that threads may share it.
    """

    # The roots, in the order in which they were seen.
    roots: list[Hop] = []

    # Each token, by the id of its last link.
    tokens: dict[str, SeenToken] = {}

    # All decisions, in the order of the trail.
    decisions: list[Decided] = []
    # Decisions on tokens that the records do not describe. Nothing of these is vouched for.
    strange: list[Decided] = []

    def __str__(self) -> str:
        """One line for each hop, up to the 50th: who holds it, and what was decided."""
        lines = [str(hop) for hop in islice(self.hops(), _SHOWN_HOPS + 1)]
        if len(lines) > _SHOWN_HOPS:
            lines[_SHOWN_HOPS:] = ["…"]
        return "\n".join(lines) or "nothing was decided"

    def __repr__(self) -> str:
        """How much there is, and nothing of what was recorded."""
        denied = sum(not decision.allowed for decision in self.decisions)
        return f"<History of {len(self.decisions)} decisions, {denied} denied: print it, or hops()>"

    def hops(self) -> Iterator[Hop]:
        """All hops, from the top of each tree, in the order in which the trees were seen."""
        for root in self.roots:
            yield from root.walk()

    def token_of(self, decision: Decided) -> SeenToken | None:
        """The token that a decision is about.

        None if the records do not describe it, and for a decision on a token whose chain did not
        hold.
        """
        return None if decision.link is None else self.tokens.get(decision.link)


def gather(records: Iterable[Mapping[str, Any]], *, vocabulary: Vocabulary = V1) -> History:
    """The records of one trail put together.

        seen = gather(read(lines))

    `vocabulary` says which caveats are known. Of one that is not the hop says so, and is shown
    wider than it is, never narrower. Records of other kinds are passed over (spec 39.3).

    Asks no signature, and takes the records in the order in which they come. `read` checks that
    they follow on each other, and `check` who signed them.

    Raises AuditError for a record that cannot be read, and what `records` raises.
    """
    history = History()
    hops: dict[str, Hop] = {}
    for record in records:
        kind = record.get("kind")
        try:
            if kind == "token":
                _add_token(history, hops, fit(record, _TokenSaid), vocabulary)
            elif kind == "decision":
                _add_decision(history, fit(record, Decided))
        except (ValueError, TokenFormatError) as error:
            raise AuditError(
                f"record {record.get('seq')} cannot be read: {own_words(error)}"
            ) from None
    return history


def _add_token(
    history: History,
    hops: dict[str, Hop],
    said: _TokenSaid,
    vocabulary: Vocabulary,
) -> None:
    """Put a token in its place: below the hops that it went through.

    `hops` are those that earlier records told of, by id. Raises what a root record or a link id
    that cannot be read raises.
    """
    root = RootRecord.decode(encode_json(said.root))
    known = [_known(link, vocabulary) for link in said.links]
    links = tuple(link for link, _ in known)

    # Task and unknown caveats add up from link to link. At each hop they are as its holder got
    # the token: what it added itself belongs to the tokens that it shows.
    task = root.task
    through: list[Hop] = []

    # The unknown caveats, each once, in the order of the links.
    unknown: dict[str, None] = {}
    for count, (link, strange) in enumerate(known, 1):
        task = _task_after(task, link)
        unknown.update(dict.fromkeys(strange))
        holders = read_along(root.agent, links[:count]).holders
        if through and holders == through[-1].holders:
            continue  # the holder narrowed it for itself

        # One link id is one link and all above it (spec 6.2). So a hop that is known by its id
        # is the same hop, whichever of its tokens is described first.
        link_id = said.links[count - 1].id
        hop = hops.get(link_id)
        if hop is None:
            basis = "vouched" if through else "issued"
            before = len(through[-1].links) if through else 0
            hop = Hop(
                link_id,
                root,
                holders,
                links[:count],
                task,
                basis,
                unknown=tuple(unknown),
                before=before,
            )
            hops[link_id] = hop
            (through[-1].below if through else history.roots).append(hop)
        through.append(hop)

    if through:
        link_ids = tuple(link.id for link in said.links)
        history.tokens[link_ids[-1]] = SeenToken(
            tuple(through), link_ids, task, nonces_of(links)
        )


def links_of(record: Mapping[str, Any]) -> tuple[Link | BadLink, ...]:
    """The links of a token, from the record that describes it. Raises ValueError."""
    return tuple(_known(link, V1)[0] for link in fit(record, _TokenSaid).links)


def _known(said: _LinkSaid, vocabulary: Vocabulary) -> tuple[Link | BadLink, list[str]]:
    """What is known of a link, and the keys of the caveats that are not.

    Without these it is wider, never narrower. Raises EncodingError for what is no link id.
    """
    b64decode(said.id)

    # The two marks of spec 39.3. No holder can write them: a link with one of these keys is
    # recorded as unreadable.
    if said.says.keys() == {"asks"}:
        # What a third party is asked is sealed, so that there is nothing to say of it.
        return ThirdParty(cid=b""), []
    if said.says.keys() == {"unreadable"}:
        return BadLink("unreadable_link", "recorded as unreadable"), []

    link = read_link(encode_json(said.says), vocabulary)
    if isinstance(link, Link) or link.code != "unknown_caveat":
        return link, []

    # A caveat that is not known here: a verifier prohibits, but what is asked here is what the
    # holder could do where it is known. So the rest of the link is read without it.
    unknown = unknown_keys(said.says, vocabulary)
    rest = {key: value for key, value in said.says.items() if key not in unknown}
    known = read_link(encode_json(rest), vocabulary) if rest else link
    if isinstance(known, Link):
        return known, unknown
    # What else is wrong with it may be right where the caveat is known. Who handed on to whom
    # stands: it decides where in the tree the token is.
    bare = Link(
        sender=link.sender,
        receiver=link.receiver,
        key=link.key,
        nonce=None if link.receiver is None else said.says["n"],
    )
    return bare, unknown


def _task_after(task: str, link: Link | BadLink) -> str:
    """The task that a link leaves, as a verifier sees it.

    A link that cannot be read leaves it as it was: nothing that it says is believed.
    """
    return task if isinstance(link, BadLink) else after(Situation(0, task=task), link).task


def _add_decision(history: History, decision: Decided) -> None:
    """Put a decision with the hop that it is on, and learn from it who was proven.

    A token is described before the first decision about it. One that is not stays strange, also
    where it is described later.
    """
    history.decisions.append(decision)
    token = history.token_of(decision)
    if token is None:
        history.strange.append(decision)
        return

    # Proven once is proven: the hand-over was signed, whichever token shows it.
    token.hop.decisions.append(decision)
    proven = {actor.name for actor in decision.chain if actor.basis == "proven"}
    for hop in token.hops:
        if hop.agent in proven:
            hop.basis = "proven"


# --- one tree of several trails -------------------------------------------------------------------


class Joined(msgspec.Struct, eq=False):
    """One holding of a task's tokens by one agent, as one trail says it, or several.

    `said` has each hop with the name of the trail that tells of it. A trail that tells of several
    tokens of a set has several. Nothing is added up, and no trail vouches for another: a server can
    write of itself what it likes, and mint for itself with the ids of a set.

    `join` makes it.
    """

    said: list[tuple[str, Hop]] = []
    below: list[Joined] = []

    @property
    def agent(self) -> str:
        """The name of whoever held it. All trails in `said` have this name."""
        return self.said[0][1].agent

    @property
    def root(self) -> RootRecord:
        """A root record of the task's. All in `said` have its id, subject, agent, task and time."""
        return self.said[0][1].root

    @property
    def nonce(self) -> str | None:
        """The `n` of the hand-over, by which an entry of the overlay selects it at every server.

        None at the top, where nothing was handed on.
        """
        return self.said[0][1].nonce

    def __repr__(self) -> str:
        """On one line, whatever is below it."""
        return f"<Joined {self.agent}, task {self.root.task}: {len(self.said)} said>"

    def walk(self) -> Iterator[Joined]:
        """This one and all below: each before those that it handed on to."""
        return _walked(self)


def join(histories: Mapping[str, History]) -> list[Joined]:
    """The trees of several trails, joined where they tell of one set of tokens (spec 45).

        both = join({"sales-db": gather(read(sales)), "mail": gather(read(mail))})

    A link has another id at each server. So the tokens of a set are joined by what they share. That
    is what their root records say of the task, and the `n` and the receiver of each hand-over.
    Tokens of one server alone come out as they are in its trail.
    """
    roots: list[Joined] = []
    found: dict[tuple[Any, ...], Joined] = {}
    for trail, history in histories.items():
        waiting: list[tuple[tuple[Any, ...], Hop, list[Joined]]]
        waiting = [(way_to([root]), root, roots) for root in reversed(history.roots)]
        while waiting:
            way, hop, beside = waiting.pop()
            joined = found.get(way)
            if joined is None:
                joined = found[way] = Joined()
                beside.append(joined)
            joined.said.append((trail, hop))
            below = [((*way, _hand_over(one)), one, joined.below) for one in hop.below]
            waiting += reversed(below)
    return roots


def way_to(through: Sequence[Hop]) -> tuple[Any, ...]:
    """What the holdings of one agent have in common at the servers of a set (spec 45.8).

    `through` are the hops of a token, from the root to the one that is asked for.
    """
    return (_task_of(through[0]), *(_hand_over(hop) for hop in through[1:]))


def _task_of(root: Hop) -> tuple[Any, ...]:
    """What the root records of one set have in common."""
    said = root.root
    return said.token_id, said.subject, said.agent, said.task, said.issued_at


def _hand_over(hop: Hop) -> tuple[str, str]:
    """What the links of one hand-over have in common. One that cannot be read is of one token."""
    return hop.nonce or hop.id, hop.agent


# --- marks ----------------------------------------------------------------------------------------


class MarkSet(msgspec.Struct, frozen=True):
    """A mark that a task has set, with the first record that says so.

    `of` says whose it is: `task`, `entry` of the overlay, or the id of the link that it belongs to.
    """

    name: str
    of: str
    first: Decided


class TaskMarks(msgspec.Struct, frozen=True):
    """What the marks of a task come to: which are set, and what was denied after that.

    `task` is the name up to its first slash: tasks below it share the marks. `marked` makes it.
    """

    subject: str
    task: str

    # In the order in which they were set.
    marks: list[MarkSet] = []

    # The denials with the code `forbidden_after`. `rule_of` says by which rule.
    closed: list[Decided] = []


def marked(histories: Iterable[History]) -> list[TaskMarks]:
    """By task, which marks were set and what they closed, as trails of servers tell it.

        for done in marked([gather(read(lines))]):
            print(done.task, [mark.name for mark in done.marks], len(done.closed))

    A mark that was set at a server whose trail is not here is missing. What it closed is told.
    Tasks without either are left out.
    """
    found: dict[tuple[str, str], TaskMarks] = {}
    for history in histories:
        for decision in history.decisions:
            token = history.token_of(decision)
            if token is not None and (decision.marks or decision.code == FORBIDDEN):
                key = _whose(token)
                _add_marks(found.setdefault(key, TaskMarks(*key)), token, decision)
    for done in found.values():
        done.marks.sort(key=lambda mark: mark.first.moment)
        done.closed.sort(key=lambda decision: decision.moment)
    return list(found.values())


def _whose(token: SeenToken) -> tuple[str, str]:
    """Whose the marks of link 0 are, by subject and task (46.3)."""
    root = token.hop.root
    return root.subject, shares_marks(root.task)


def shares_marks(task: str) -> str:
    """The task whose marks a task shares: its name up to the first slash."""
    return task.partition("/")[0]


def _add_marks(done: TaskMarks, token: SeenToken, decision: Decided) -> None:
    """Add a decision to what is known of its task."""
    if not decision.allowed:
        done.closed.append(decision)
        return
    for said in decision.marks:
        mark = MarkSet(said.name, whose_mark(token.link_ids, said), decision)
        same = [one for one in done.marks if (one.name, one.of) == (mark.name, mark.of)]
        if not same:
            done.marks.append(mark)
        elif decision.moment < same[0].first.moment:
            done.marks[done.marks.index(same[0])] = mark


def whose_mark(link_ids: Sequence[str], said: InMark) -> str:
    """Whose a mark is, as `MarkSet.of` has it. `link_ids` are those of the token that set it."""
    if said.link is None:
        return "entry"
    return link_ids[said.link] if 0 < said.link < len(link_ids) else "task"


def rule_of(decision: Decided) -> str:
    """The rule that closed it, as the link says it: `nothing in outside after private`."""
    return str(decision.refusal.get("text", "")).partition("; ")[0]


# --- granted against used -------------------------------------------------------------------------


class Usage(msgspec.Struct, frozen=True):
    """What a hop was granted, and what it and all below it were seen to use.

    `sufficient` are the keywords that would have permitted all that was allowed, and no more than
    was granted:

    - Of arguments and attributes whose values were not recorded, it has what was granted of them.
    - Of `uses` and `budget` it has what was reserved: what was given back is not recorded.
    - Of `depth` it has how many hand-overs there were.

    `unused` makes it. What another server saw is not in it.
    """

    hop: Hop

    # How many decisions allowed it, those of all below included.
    allowed: int

    # What it was granted, as keywords of `attenuate`.
    granted: dict[str, Any]

    # What would have been enough, as keywords of `attenuate`.
    sufficient: dict[str, Any]

    # When it was last allowed something, in seconds since the epoch.
    last: int | None

    @property
    def is_tight(self) -> bool:
        """Was nothing granted that was not used?

        A hop that is tight by this trail may still be wider than it needs to be at other servers.
        """
        return self.granted == self.sufficient


def unused(history: History) -> list[Usage]:
    """What was granted and what was used, for every hop that is no dead end.

        for usage in unused(history):
            if not usage.is_tight:
                print(usage.hop.agent, usage.sufficient)

    It says what was used so far, and not what will be needed. It looks at what was allowed alone:
    what was denied was not needed, or was asked for in vain.
    """
    return [_usage(hop) for hop in history.hops() if not hop.is_dead]


def _usage(hop: Hop) -> Usage:
    """What one hop was granted and used.

    What those below used, it has to have as well: they have theirs from it.
    """
    within = list(hop.walk())
    allowed = [one for below in within for one in below.decisions if one.allowed]

    held = hop.capability
    granted = _stated(held)
    sufficient = _rights_used(held, allowed) | _amounts_used(held, allowed)

    # Depth is no caveat of a capability: it is what the lineage leaves (spec, "Lineage").
    left = read_along(hop.root.agent, hop.links).left
    if left is not None:
        granted["depth"] = left
    sufficient["depth"] = max(len(below.holders) for below in within) - len(hop.holders)

    last = max((decision.at for decision in allowed), default=None)
    return Usage(hop, len(allowed), granted, sufficient, last)


def _stated(capability: Capability) -> dict[str, Any]:
    """The keywords of a capability, without those of the token itself."""
    stated = capability.json()
    return {key: value for key, value in stated.items() if key in RIGHTS or key in COUNTED}


def _rights_used(held: Capability, allowed: Iterable[Decided]) -> dict[str, Any]:
    """The keywords of the least that would have permitted it, within what was held.

    The meet keeps it within: where the records say too little, `_needed` says more than was held.
    """
    accesses = [decision.access for decision in allowed if decision.access is not None]
    if not accesses:
        return {"tables": []}  # no table: nothing was needed

    return _stated(held.meet(_needed(accesses)))


def _amounts_used(held: Capability, allowed: Iterable[Decided]) -> dict[str, Any]:
    """How many uses, and how much of each budget, were reserved.

    Accesses of one step took one use together: they have one reservation.
    """
    # Each with what its access cost, by the server's word (spec 7.9).
    counted = [(one, one.access.cost) for one in allowed if one.access is not None]
    used: dict[str, Any] = {}

    if held.uses is not None:
        # A decision without a reservation is a step of its own, told by its number.
        steps = {decision.taken or str(decision.seq) for decision, _ in counted}
        used["uses"] = min(held.uses, len(steps))

    if held.budget:
        used["budget"] = {
            unit: min(most, sum(cost.get(unit, 0) for _, cost in counted))
            for unit, most in sorted(held.budget.items())
        }
    return used


def _needed(accesses: Sequence[Accessed]) -> Capability:
    """The least that permits all of the accesses, as far as they are recorded.

    By tables, tools and attributes, each by itself. So it may permit a pair that nobody asked for:
    one attribute's value at one table, and another's at another.
    """
    tables = sorted({access.table for access in accesses if access.table is not None})
    tools = sorted({access.tool for access in accesses if access.tool is not None})
    if any(access.table is None and access.tool is None for access in accesses):
        # No rights at all: a token that has some permits nothing but tables and tools.
        tables = []
        tools = []

    said = {
        "allow": _operations_needed(accesses, tables),
        "columns": _columns_needed(accesses, tables),
        "tools": {tool: _calls_needed(accesses, tool) for tool in tools},
        "where": _conditions_needed(accesses),
    }
    stated = {key: value for key, value in said.items() if value}
    if not stated:
        return Capability()  # anything

    # What was recorded need not be what a link can say. Then the answer is anything, and the meet
    # leaves what was granted.
    link = read_link(encode_json(stated), V1)
    return Capability.of_link(link) if isinstance(link, Link) else Capability()


def _operations_needed(accesses: Sequence[Accessed], tables: Iterable[str]) -> dict[str, list[str]]:
    """By table, the operations that were allowed on it.

    A record without one has the empty name, which no link can say: see `_needed`.
    """
    return {
        table: sorted({access.operation or "" for access in accesses if access.table == table})
        for table in tables
    }


def _columns_needed(accesses: Sequence[Accessed], tables: Iterable[str]) -> dict[str, list[str]]:
    """By table, the columns, where every access named its own.

    Columns that are not stated are not known to be few (spec 7.3). So of a table where one access
    stated none, nothing is said.
    """
    needed: dict[str, list[str]] = {}
    for table in tables:
        asked = [access.columns for access in accesses if access.table == table]
        named = [columns for columns in asked if columns is not None]
        if len(named) == len(asked):
            needed[table] = sorted({column for columns in named for column in columns})
    return needed


def _calls_needed(accesses: Sequence[Accessed], tool: str) -> dict[str, Any]:
    """The rule of a tool: its arguments, and of each the values.

    An argument that some call did without is optional.
    """
    given = [access.arguments or {} for access in accesses if access.tool == tool]
    named = sorted({argument for arguments in given for argument in arguments})
    if not named:
        # No arguments at all. An empty rule would permit any, so one is said that none can have.
        return {"_": {"in": [], "optional": True}}

    rule: dict[str, Any] = {}
    for argument in named:
        rule[argument] = _values_needed(given, argument)
        if not all(argument in arguments for arguments in given):
            rule[argument]["optional"] = True
    return rule


def _conditions_needed(accesses: Sequence[Accessed]) -> dict[str, Any]:
    """By attribute that every access stated, the values.

    A condition on an attribute prohibits whoever does not state it. So one that some access left
    out is no condition.
    """
    given = [access.attributes for access in accesses]
    always = sorted(key for key in given[0] if all(key in attributes for attributes in given))
    return {key: _values_needed(given, key) for key in always}


def _values_needed(given: Iterable[list[str] | dict[str, Any]], key: str) -> dict[str, Any]:
    """The narrowest constraint that accepts all values that `key` had.

    Anything, where one was not recorded, or is no value that a constraint can be about.
    """
    having = [stated for stated in given if key in stated]
    values = [stated[key] for stated in having if isinstance(stated, dict)]
    if len(values) < len(having):
        return {"any": True}

    # What canonical JSON has no spelling for is recorded as an object (spec 39.6), and so is a list
    # of too many levels: that is `any`, as an object is.
    return narrowest(values)


# --- what to grant instead ------------------------------------------------------------------------


class Proposal(msgspec.Struct, frozen=True):
    """What to mint or hand on to an agent for a task, so that it can do what it did, and no more.

    `keywords` are those of `mint` where the issuer named the agent, and of `delegate` otherwise:

    - They permit all that was allowed to the agent, and to those that it handed on to.
    - Where values were not recorded, `lost` says of which names. What was granted of these stays,
      or anything, where several tokens granted different things.
    - `uses`, `budget` and `depth` are the most that one token came to.
    - `marks` and `forbid` are all that the tokens had of their own. What the holder before had is
      said there.
    - `expires_in`, of `mint` alone, is how long a token was in use, in whole minutes. When a token
      was handed on is not recorded.

    `propose` makes it. It says what was done so far, and not what will be needed.
    """

    # The names of all holders, down to the agent.
    holders: tuple[str, ...]
    task: str

    # The holdings that it is about.
    hops: list[Hop]

    # Accesses, those of all below among them. Tokens that were shown alone are left out.
    allowed: list[Decided]

    # The decisions that denied it, those of all below included.
    denied: list[Decided]

    # What to give it, as keywords of `mint` or `delegate`. Empty if anything was needed.
    keywords: dict[str, Any]

    # Arguments and attributes whose values were not recorded, for people.
    lost: tuple[str, ...] = ()

    @property
    def agent(self) -> str:
        """The name of the agent."""
        return self.holders[-1]

    @property
    def is_minted(self) -> bool:
        """Is it for `mint`, and not for `delegate`?"""
        return len(self.holders) == 1


class Shortfall(NamedTuple):
    """A recorded access that a proposal would refuse, and why; or that cannot be known."""

    decision: Decided

    # The reason, for people. Where it cannot be known, it names what was not recorded.
    why: str
    is_certain: bool


def propose(history: History, *, task: str | None = None) -> list[Proposal]:
    """By agent and task, the narrowest keywords that would have permitted what was done.

        for proposal in propose(history):
            print(proposal.agent, proposal.task, proposal.keywords)

    An agent is told by all that held the token before it: the clerk of an orchestrator is another
    one than a clerk of the issuer's. `task` takes what was done in it and in the tasks below it, as
    one. Without it each task is by itself, and there may be as many as tokens.

    Dead ends are left out. What was denied was not needed, or was asked for in vain.
    """
    grouped: dict[tuple[tuple[str, ...], str], list[Hop]] = {}
    for hop in history.hops():
        if hop.is_dead or not (task is None or names.at_or_below(hop.task, task)):
            continue
        key = (hop.holders, hop.task if task is None else task)
        grouped.setdefault(key, []).append(hop)
    return [_proposal(holders, of_task, hops) for (holders, of_task), hops in grouped.items()]


def _proposal(holders: tuple[str, ...], task: str, hops: list[Hop]) -> Proposal:
    """What to grant in place of these holdings."""
    allowed: list[Decided] = []
    denied: list[Decided] = []
    longest = -1  # seconds that a token was in use
    for hop in hops:
        for one in _of_all_below(hop):
            if not one.allowed:
                denied.append(one)
            elif one.access is not None:
                allowed.append(one)
                longest = max(longest, one.at - hop.root.issued_at)

    keywords = _rights_together(hops, allowed) | _most_used(hops) | _rules_of(hops)
    if len(holders) == 1 and longest >= 0:
        # It ends in the second that is named, and was still in use in the one before.
        keywords["expires_in"] = (longest // 60 + 1) * 60
    return Proposal(
        holders,
        task,
        hops,
        allowed,
        denied,
        keywords,
        _lost_of(one.access for one in allowed if one.access is not None),
    )


def _of_all_below(hop: Hop) -> Iterator[Decided]:
    """The decisions on a hop, and on all that came of it."""
    for below in hop.walk():
        yield from below.decisions


def _rights_together(hops: Sequence[Hop], allowed: Iterable[Decided]) -> dict[str, Any]:
    """The keywords of the least that would have permitted it, whichever of the tokens it was on.

    What all of them held alike bounds it, as it bounds what one of them used. Where they held
    different things there is no such bound, and what was used is said by itself.
    """
    held = {encode_json(_rights(_stated(hop.capability))) for hop in hops}
    bound = hops[0].capability if len(held) == 1 else Capability()
    return _rights(_rights_used(bound, allowed))


def _rights(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords about accesses alone."""
    return {key: value for key, value in stated.items() if key in RIGHTS}


def _most_used(hops: Iterable[Hop]) -> dict[str, Any]:
    """Of `uses`, `budget` and `depth` the most that one of the tokens came to."""
    most: dict[str, Any] = {"depth": 0}
    for hop in hops:
        used = _usage(hop).sufficient
        most["depth"] = max(most["depth"], used["depth"])
        if "uses" in used:
            most["uses"] = max(most.get("uses", 0), used["uses"])
        for unit, amount in used.get("budget", {}).items():
            budget = most.setdefault("budget", {})
            budget[unit] = max(budget.get(unit, 0), amount)
    return most


def _rules_of(hops: Iterable[Hop]) -> dict[str, Any]:
    """The marks of these holdings and the rules over them, side by side.

    Nothing that was done shows that one of them was not needed.
    """
    links = (link for hop in hops for link in hop.links[hop.before :])
    stated = Capability.of((link for link in links if isinstance(link, Link)), "t").json()
    return {key: value for key, value in stated.items() if key in MARKING}


def _lost_of(accesses: Iterable[Accessed]) -> tuple[str, ...]:
    """The arguments and attributes whose values were not recorded, each once, for people."""
    lost: dict[str, None] = {}
    for access in accesses:
        _, arguments = _recorded(access.arguments or [])
        _, attributes = _recorded(access.attributes)
        lost |= {f"argument {name} of tool {access.tool}": None for name in sorted(arguments)}
        lost |= {f"attribute {name}": None for name in sorted(attributes)}
    return tuple(lost)


def refused_of(proposal: Proposal, decisions: Iterable[Decided]) -> list[Shortfall]:
    """What of these decisions was allowed, and would not have been under the proposal.

        refused_of(proposal, gather(read(next_week)).decisions)

    Of what was allowed when it was made it refuses nothing, as far as values were recorded. So ask
    it about what was done since. Looks at rights alone: tables, operations, columns, tools and
    attributes.
    """
    rights = _rights(proposal.keywords)
    link = read_link(encode_json(rights), V1) if rights else None
    if not isinstance(link, Link):
        return []  # anything is permitted

    found: list[Shortfall] = []
    for decision in decisions:
        if not decision.allowed or decision.access is None:
            continue
        judged = _judge(link, rights, decision, V1)
        if judged.reason is not None:
            found.append(Shortfall(decision, judged.reason, is_certain=True))
        elif judged.missing:
            missing = ", ".join(dict.fromkeys(judged.missing))
            found.append(Shortfall(decision, f"not recorded: {missing}", is_certain=False))
    return found


# --- what an overlay would change -----------------------------------------------------------------

Outcome: TypeAlias = Literal["same", "denied", "unknown"]


class Replayed(msgspec.Struct, frozen=True):
    """A recorded decision under another overlay.

    - `same`: it would come out as it did.
    - `denied`: it was allowed, and this overlay would deny it.
    - `unknown`: not to be known from what was recorded; `why` says what is missing.
    """

    decision: Decided
    outcome: Outcome

    # The reason, for people. What an operator wrote may be in it.
    why: str = ""

    # The entry that denies it, or on which it depends.
    entry: Entry | None = None


# What was denied by an earlier overlay, and may be allowed under this one.
_OVERLAID = ("revoked", "narrowed", "stale_overlay")
# What was denied since an earlier request had taken it.
_TAKEN = ("budget_exhausted", "replayed")


def replay(history: History, overlay: Overlay, *, vocabulary: Vocabulary = V1) -> list[Replayed]:
    """Each decision again, as if this overlay had stood at the time, from its first second on.

        proposed = Overlay.open(data, [operator_public])
        hit = [one for one in replay(history, proposed) if one.outcome == "denied"]

    An overlay only takes away, so that:

    - What was denied for another reason stays denied.
    - What an earlier overlay had denied, and this one would not, is unknown: what else would have
      denied it was not recorded.
    - A request may have been denied since an earlier one had taken what was left. It is unknown
      too, if that one was on a token of the same tree and is no longer allowed for certain.
    - So is one that was denied since an earlier one of the same task had set a mark.
    - What an entry of this overlay has in a mark, and forbids after others, is unknown.

    Does not ask how old the overlay is, nor whether the server had it. Changes nothing: to look at
    a snapshot here does not publish it. Takes time with decisions times the entries on their
    tokens.
    """
    found: list[Replayed] = []

    # What has taken or set less than it did: ids of tokens, and tasks with their marks.
    freed: set[str | tuple[str, str] | None] = set()
    for decision in history.decisions:
        token = history.token_of(decision)
        whose = None if token is None else _whose(token)
        left = decision.code in _TAKEN and decision.token in freed
        left = left or (decision.code == FORBIDDEN and whose in freed)
        again = _again(history, decision, overlay, vocabulary, left)
        if decision.allowed and again.outcome != "same":
            freed.add(decision.token)
            if decision.marks:
                freed.add(whose)
        found.append(again)
    return found


def _again(
    history: History,
    decision: Decided,
    overlay: Overlay,
    vocabulary: Vocabulary,
    left: bool,
) -> Replayed:
    """A decision again. `left`: may an earlier request have left what this one was denied for?"""
    # First: can this overlay have changed anything? An overlay grants nothing, so a denial stands
    # unless it was made by an overlay, or for want of what may be left now.
    if not (decision.allowed or decision.code in _OVERLAID or left):
        return Replayed(decision, "same")

    token = history.token_of(decision)
    if token is None:
        return Replayed(decision, "unknown", "the records do not describe the token")

    # Then: what do the entries say? For a denial, an entry of which that is not known says less
    # than the two answers below.
    overlaid = _overlaid(token, decision, overlay, vocabulary)
    if overlaid is not None and (decision.allowed or overlaid.outcome != "unknown"):
        return overlaid

    # Last: no entry denies it. Was it denied before, and does anything else deny it now?
    if left:
        why = "what an earlier request had taken may be left"
        if decision.code == FORBIDDEN:
            why = "what an earlier request had marked may not be"
        return Replayed(decision, "unknown", why)
    if not decision.allowed:
        why = "this overlay would not deny it, and what else would was not recorded"
        return Replayed(decision, "unknown", why)
    return Replayed(decision, "same")


def _overlaid(
    token: SeenToken,
    decision: Decided,
    overlay: Overlay,
    vocabulary: Vocabulary,
) -> Replayed | None:
    """What the entries on a token make of a decision; None if they leave it as it was.

    An entry that denies for certain counts before one of which that cannot be known.
    """
    facts = token.selected_by

    # A denial that an entry would make again is the same outcome, and not a new one.
    denied: Outcome = "denied" if decision.allowed else "same"
    unknown: Replayed | None = None
    for entry in overlay.on(facts, decision.at):
        link = overlay.link(entry)
        if link is None:
            return Replayed(decision, denied, f"revoked: {entry.why}", entry)

        judged = _judge(link, entry.link or {}, decision, vocabulary)
        if judged.reason is not None:
            return Replayed(decision, denied, f"{entry.why}; {judged.reason}", entry)
        # Kept, and not returned: an entry further on may still deny for certain.
        if judged.missing and unknown is None:
            missing = ", ".join(dict.fromkeys(judged.missing))
            unknown = Replayed(decision, "unknown", f"not recorded: {missing}", entry)
    return unknown


class _Judged(NamedTuple):
    """What a link says to a recorded access.

    With neither a reason nor anything missing, it permits for certain.
    """

    # Why it prohibits for certain.
    reason: str | None

    # What would have to be known to say that it does not.
    missing: list[str]


# Caveats about the server, which no record names.
_OF_SERVER = {
    "aud": "the name of the server",
    "fresh": "the overlay's age of the server",
}


def _judge(
    link: Link,
    stated: Mapping[str, Any],
    decision: Decided,
    vocabulary: Vocabulary,
) -> _Judged:
    """What a link says to what was recorded. `stated` are its words.

    Of what was not recorded the link is asked nothing, so that what it prohibits is certain: a link
    with fewer words prohibits less.
    """
    # Three steps, each of which may leave out words: those about the server, those about values
    # that were not recorded, and then what is left is judged as a verifier would.
    missing = [what for key, what in _OF_SERVER.items() if key in stated]
    askable = {key: value for key, value in stated.items() if key not in _OF_SERVER}

    access = None
    if decision.access is not None:
        try:
            access, lost = _recorded_access(decision.access)
        except (TypeError, ValueError) as error:
            return _Judged(None, [f"an access ({error})"])
        askable, unknown_values = _without_lost(askable, lost)
        missing += unknown_values
        if access.table is not None and "rows" in askable:
            # Of a row the names alone are recorded, mostly: so its rules are asked nothing.
            if patterns.decided(askable["rows"], access.table, None):
                missing.append(f"the row of table {access.table}")
            askable = {**askable, "rows": {"*": {}}}  # which still speaks of tables
        if _may_close(link, access):
            missing.append("which marks are set by then")

    # The link as it was read stands, unless words were left out.
    if askable != stated:
        rest = read_link(encode_json(askable), vocabulary) if askable else None
        if not isinstance(rest, Link):
            return _Judged(None, missing)
        link = rest

    situation = Situation(decision.at, decision.leeway, task=decision.task or "")
    reason = link_prohibits(link, access, situation)
    return _Judged(None if reason is None else reason.text, missing)


def _may_close(link: Link, access: Access) -> bool:
    """Has the link a rule that may close this access? A value that is not recorded is a doubt."""
    caveats = {caveat.key: caveat for caveat in link.late}
    forbid, marks = caveats.get("forbid"), caveats.get("marks")
    if not isinstance(forbid, Forbid) or not isinstance(marks, Marks):
        return False
    return any(marks.rules[name].has(access) for closed, _ in forbid.rules for name in closed)


class _Lost(NamedTuple):
    """Names whose values were not recorded."""

    # The arguments of the tool that was called, if one was.
    arguments: set[str]
    attributes: set[str]


def _recorded_access(said: Accessed) -> tuple[Access, _Lost]:
    """An access as far as it was recorded, and what of it was not.

    A value that was not recorded is None in it, so that its name is still there to be asked about.
    Raises TypeError or ValueError for what is none: a record is what somebody wrote.
    """
    arguments: dict[str, Any] | None = None
    lost_arguments: set[str] = set()
    if said.tool is not None:  # without a tool nothing has arguments (spec 7.1)
        arguments, lost_arguments = _recorded(said.arguments or {})
    attributes, lost_attributes = _recorded(said.attributes)

    access = Access(
        table=said.table,
        operation=said.operation,
        columns=said.columns,
        tool=said.tool,
        arguments=arguments,
        attributes=attributes,
        cost=said.cost,
    )
    return access, _Lost(lost_arguments, lost_attributes)


def _recorded(given: list[str] | dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Names and values, and the names whose values were not recorded."""
    if isinstance(given, dict):
        return given, {key for key, value in given.items() if not _is_exact(value)}
    return dict.fromkeys(given), set(given)


def _is_exact(value: Any) -> bool:
    """Is it a value that a constraint can be about, as it was given to the server?

    What canonical JSON has no spelling for is recorded as an object (spec 39.6). Objects that were
    given as such are left out with them: no constraint is about one. Of a list all items count.
    """
    return all(map(_is_exact, value)) if type(value) is list else type(value) in (str, int, bool)


def _without_lost(stated: Mapping[str, Any], lost: _Lost) -> tuple[dict[str, Any], list[str]]:
    """The words of a link without what they ask of lost values; and which values these are.

    The rules of all tools are loosened: which one decides is for their patterns to say (spec 12.2).
    """
    loose = dict(stated)
    missing: list[str] = []

    if "tools" in loose and lost.arguments:
        loose["tools"] = {
            tool: _loosened(rule, lost.arguments, missing, "argument")
            for tool, rule in loose["tools"].items()
        }

    if "where" in loose and lost.attributes:
        loose["where"] = _loosened(loose["where"], lost.attributes, missing, "attribute")
    return loose, missing


def _loosened(
    rule: Mapping[str, Any],
    lost: set[str],
    missing: list[str],
    what: str,
) -> dict[str, Any]:
    """A rule that asks nothing of the values that are lost; what it did ask is missing.

    `missing` gets a line for each. `what` is what the rule is about, for people.
    """
    loose = dict(rule)
    for key in sorted(lost & rule.keys()):
        kept = {"optional": True} if rule[key].get("optional") else {}
        takes_any: dict[str, Any] = {"any": True} | kept
        takes_none: dict[str, Any] = {"in": []} | kept
        # Whether there is a value is known: a rule that takes any, or none, asks no more.
        if rule[key] not in (takes_any, takes_none):
            missing.append(f"the value of {what} {key}")
            loose[key] = takes_any
    return loose


# --- what an agent can still do -------------------------------------------------------------------


class Reach(msgspec.Struct, frozen=True):
    """A hop that still works, and the hop of the agent from which it came.

    An entry of the overlay on the link of `cut` stops both: `operator.revoke(link=cut.id, …)`.
    """

    hop: Hop
    cut: Hop


def blast_radius(
    history: History,
    agent: str,
    now: int,
    *,
    leeway: int = 0,
    overlay: Overlay | None = None,
) -> list[Reach]:
    """The tokens that an agent has, and all that came of them, that still work at `now`.

        for reach in blast_radius(history, "sales-agent", now):
            operator.revoke(link=reach.cut.id, why="stolen laptop")

    `now` is in seconds since the epoch, `leeway` the seconds that the server adds to each end. What
    `overlay` revokes is left out; its restrictions are not looked at, and may allow less.

    - What the agent could make of them without showing it to this server is no more than they
      permit.
    - Caveats that are not known here are taken for ones that permit.
    - An agent is found by its name, which holders wrote. Who was given the text under another name,
      or under none, is not found (spec 36.15).
    """
    revoked = set() if overlay is None else _revoked(history, overlay, now)
    tops = (hop for hop in history.hops() if hop.agent == agent)
    reached = (Reach(hop, top) for top in tops for hop in top.walk())
    return [one for one in reached if one.hop not in revoked and _works(one.hop, now - leeway)]


def _revoked(history: History, overlay: Overlay, now: int) -> set[Hop]:
    """The hops that an entry of the overlay revokes."""
    return {
        token.hop
        for token in history.tokens.values()
        if any(overlay.link(entry) is None for entry in overlay.on(token.handed_over, now))
    }


def _works(hop: Hop, now: int) -> bool:
    """Can it do anything then? A link that is not known here may still stop it."""
    ends = hop.capability.expires_at
    return not hop.is_dead and (ends is None or now < ends)

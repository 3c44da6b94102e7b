"""The numbered plan, written once: text, keys and facts in, a decision out (spec, "Verification").

     1 sizes and counts           5 links can be read     9 caller
     2 strict parse               6 lineage              10 proof of a bound token
     3 root record and key        7 overlay              11 effects: proof's use, reservation
     4 chain of signatures        8 caveats

`authenticate` is steps 1 to 6: what depends on the token and the keys alone. `judge` is steps 7 to
10, and lists what step 11 has to commit. Both are functions of values: no clock, no store, no log,
no randomness. The signature comes before the meaning: no link is decoded until the whole chain has
held. The first step that fails gives the decision its code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

import msgspec

from captoken import proof
from captoken._format import chain, names, primitives, signed
from captoken._format.clocks import CLOCKS_DIFFER
from captoken._format.encoding import b64encode
from captoken._format.errors import TokenFormatError
from captoken._format.packet import Packet
from captoken._format.root import RootRecord
from captoken._format.spelling import spelled_time
from captoken._format.text import BOUND, Parts, parts_of
from captoken._language.access import Access, Caller
from captoken._language.caveats import V1, Situation, Vocabulary
from captoken._language.discharge import read_discharge
from captoken._language.lineage import Lineage, follow, read_along
from captoken._language.links import (
    BadLink,
    Link,
    early_prohibits,
    late_prohibits,
    link_prohibits,
    read_links,
    settled,
)
from captoken._language.overlay import Overlay
from captoken._language.reasons import CODES, Reason, Refusal
from captoken._verification.decision import Asked, Attribution, Decision, Effect, Refusals
from captoken._verification.genuine import DISCHARGER, ISSUER, Custody, Genuine, Memory
from captoken.stores.ports import LEASE, Reservation, Use

# The macaroon key behind (key id, audience), or None.
KeyLookup: TypeAlias = Callable[[str, str | None], bytes | None]


class Broken(msgspec.Struct, frozen=True):
    """A denial by steps 1 to 6."""

    refusal: Refusal
    step: int
    who: Attribution | None = None  # once the signature held


class Server(msgspec.Struct, frozen=True, eq=False):
    """What a verifier is, whatever it is asked: its names, its bounds, and what it has."""

    audiences: frozenset[str] = frozenset()
    takes_unaddressed: bool = True
    leeway: int = 0  # seconds
    ahead: int = CLOCKS_DIFFER  # seconds that a token may be from the future
    max_age: int | None = 3600  # seconds that a grant is good for
    asks_overlay: bool = False
    max_staleness: int = 60  # seconds
    allows_stale: bool = False  # is a stale overlay good enough?
    counts_alone: bool = False  # has it a ledger that other servers may not share?


class Facts(msgspec.Struct, frozen=True, eq=False):
    """What was fetched before the plan is asked: all of it may differ at the next question."""

    server: Server
    memory: Memory  # of hand-overs that were found signed
    now: int  # seconds since the epoch
    overlay: Overlay | None = None
    overlay_problem: str | None = None  # why it cannot be had
    reservation_id: bytes = b""  # random, for a token that counts


# --- steps 1 to 6 --------------------------------------------------------------------------------


def authenticate(
    text: str | Parts,
    keys: KeyLookup,
    vocabulary: Vocabulary,
) -> Genuine | Broken:
    """Steps 1 to 6: a genuine token, or the denial.

    Does not look at time, audience, caller or proof. `keys` is asked only once the text has parsed.
    """
    try:
        parts = text if isinstance(text, Parts) else parts_of(text, BOUND)  # steps 1 and 2
        packet = parts.packet
        root = RootRecord.decode(packet.identifier)  # step 3
    except TokenFormatError as error:
        return Broken(Refusal(error.code, str(error)), error.step)
    derived = keys(root.key_id, root.audience)
    if derived is None:
        what = "no key here for the key id and audience that the token names"
        return Broken(Refusal("unknown_key", what), 3)
    tags = chain.fold(derived, packet)  # step 4
    if tags is None:
        return Broken(Refusal("bad_signature", "the chain of signatures does not hold"), 4)
    links = read_links(packet.caveats, vocabulary)
    answers = _answers(
        derived,
        packet,
        tags,
        parts.discharges,
    )
    if not isinstance(answers, dict):
        return _broken(
            root,
            packet,
            tags,
            links,
            *answers,
        )
    return _read(
        root,
        parts,
        tags,
        links,
        answers,
        vocabulary,
    )


def _answers(
    derived: bytes,
    packet: Packet,
    tags: tuple[bytes, ...],
    discharges: tuple[Packet, ...],
) -> dict[int, Packet] | tuple[int | None, Reason]:
    """The rest of step 4: the discharge of each third-party caveat, or where and why there is none.

    One for each, in their order, none left over: so no more boxes are opened than caveats have
    answers.
    """
    answers: dict[int, Packet] = {}
    asked = [at for at, (_, vid) in enumerate(packet.caveats) if vid]
    if not asked and not discharges:
        return answers
    left = list(discharges)
    if len({discharge.identifier for discharge in left}) < len(left):
        return None, Reason("bad_discharge", "one discharge is there twice")
    for at in asked:
        if left and left[0].identifier == packet.caveats[at][0]:
            answers[at] = left.pop(0)
    if left:
        what = "a discharge that answers nothing asked, or stands in another order"
        return None, Reason("bad_discharge", what)
    for at in asked:
        if at not in answers:
            what = "a third party is asked, and no answer came"
            return at, Reason("missing_discharge", what)
    for at, discharge in answers.items():
        key = chain.answer_key(
            derived,
            packet,
            tags,
            at,
        )
        if key is None or chain.fold(key, discharge, packet.signature) is None:
            what = "the discharge is not by whom was asked, or not bound to this token"
            return at, Reason("bad_discharge", what)
    return answers


def _read(
    root: RootRecord,
    parts: Parts,
    tags: tuple[bytes, ...],
    links: list[Link | BadLink],
    answers: dict[int, Packet],
    vocabulary: Vocabulary,
) -> Genuine | Broken:
    """Steps 5 and 6: every link can be read, the token's and its discharges', and the chain
    holds.
    """
    packet = parts.packet
    for at, link in enumerate(links):  # step 5 of every link comes before step 6 of any
        if isinstance(link, BadLink):
            return _broken(
                root,
                packet,
                tags,
                links,
                at,
                link,
            )
    own = cast("list[Link]", links)
    added: list[Link] = []
    places: list[int] = []
    for at, discharge in answers.items():
        said = read_discharge(discharge, vocabulary)
        if isinstance(said, BadLink):
            return _broken(
                root,
                packet,
                tags,
                links,
                at,
                said,
                DISCHARGER,
            )
        added += said
        places += [at] * len(said)
    lineage = follow(root.agent, own)
    if not isinstance(lineage, Lineage):
        return _broken(
            root,
            packet,
            tags,
            links,
            *lineage,
        )
    readable = (*own, *added)
    return Genuine(
        root,
        packet,
        tags,
        readable,
        tuple(places),
        lineage,
        _custody(packet, own) if lineage.key is not None else (),
        parts.proof,
        any([link.counts for link in own]),
        vocabulary is not V1 and _has_own(readable),
        root.audience is not None or any([_names_audience(link) for link in own if link.settles]),
    )


def _has_own(links: Sequence[Link]) -> bool:
    """Is a caveat of an embedder's, under a namespaced key, among them?"""
    return any(":" in caveat.key for link in links for caveat in link.late)


def _names_audience(link: Link) -> bool:
    return any(caveat.key == "aud" for caveat in link.early)


def _custody(packet: Packet, links: Sequence[Link]) -> tuple[Custody, ...]:
    """Every change of key on a bound token, with the evidence for it, or None where it is not
    signed.
    """
    found: list[Custody] = []
    bound_to: bytes | None = None
    for at, link in enumerate(links):
        if link.key is None:
            continue
        if bound_to is not None and link.signature is not None:
            body = signed.body_of(packet.caveats[at][0])
            found.append(Custody(at, (bound_to, body, link.signature)))
        elif bound_to is not None:
            found.append(Custody(at, None))
        bound_to = link.key
    return tuple(found)


def _broken(
    root: RootRecord,
    packet: Packet,
    tags: tuple[bytes, ...],
    links: list[Link | BadLink],
    at: int | None,
    reason: Reason | BadLink,
    added_by: str | None = None,
) -> Broken:
    """A denial by link `at` of a token whose signature held: so its root record can be believed."""
    if at is not None and added_by is None:
        added_by = ISSUER if at == 0 else read_along(root.agent, links[:at]).holder
    actors = read_along(root.agent, links).chain()
    ids = tuple(map(b64encode, primitives.link_ids(tags)))
    who = Attribution(
        root,
        actors,
        root.task,
        ids,
        packet.caveats,
    )
    return Broken(
        Refusal(
            reason.code,
            reason.text,
            at,
            added_by,
        ),
        CODES[reason.code].step,
        who,
    )


# --- steps 7 to 10 -------------------------------------------------------------------------------


def judge(
    genuine: Genuine,
    facts: Facts,
    asked: Asked,
) -> Decision:
    """Steps 7 to 10: may this be done now? Its effects are what step 11 has still to commit."""
    server = facts.server
    if genuine.lineage.must_delegate and asked.used:
        return denial(
            genuine,
            facts,
            asked,
            (_owed(genuine),),
        )  # step 6
    age = facts.now - asked.verified_at
    if server.max_age is not None and not -CLOCKS_DIFFER <= age <= server.max_age:
        return denial(
            genuine,
            facts,
            asked,
            (_stale_grant(facts, asked),),
        )
    overlay_age: int | None = None
    if server.asks_overlay:
        overlay_age, refusals = _overlaid(genuine, facts, asked.access)  # step 7
        if refusals:
            return denial(
                genuine,
                facts,
                asked,
                refusals,
                step=7,
            )
    refusals = _caveats(
        genuine,
        facts,
        asked,
        overlay_age,
    )  # step 8
    if refusals:
        return denial(
            genuine,
            facts,
            asked,
            refusals,
        )
    if asked.caller is not None:
        refusal = _calls(genuine, asked.caller)  # step 9
        if refusal is not None:
            return denial(
                genuine,
                facts,
                asked,
                (refusal,),
            )
    effects: tuple[Effect, ...] = ()
    if asked.sent and (genuine.lineage.key is not None or genuine.proof is not None):
        use = _proved(genuine, facts, asked)  # step 10
        if isinstance(use, Refusal):
            return denial(
                genuine,
                facts,
                asked,
                (use,),
            )
        effects = (use,)
    if genuine.counts and asked.counted and asked.access is not None:
        effects = (*effects, reservation(genuine, facts, asked.access.cost))
    return Decision(
        code="allowed",
        now=facts.now,
        access=asked.access,
        caller=asked.caller,
        grant=asked.grant,
        who=attribution(genuine, facts.memory) if asked.grant is None else None,
        dry=asked.grant is None,
        effects=effects,
        overlaid=server.asks_overlay,
        leeway=server.leeway,
    )


def _owed(genuine: Genuine) -> Refusal:
    """The end of step 6: a link says `delegate_only`, and nobody was handed the token (spec,
    "Lineage").
    """
    last = max(at for at, link in enumerate(genuine.links) if link.delegate_only)
    text = "for handing on, and nobody was handed it"
    return Refusal("delegate_only", text, *genuine.place(last))


def _stale_grant(facts: Facts, asked: Asked) -> Refusal:
    """Step 7: the keys have to be asked again."""
    when = spelled_time(asked.verified_at)
    return Refusal("stale_grant", f"verified at {when}: not within {facts.server.max_age} s")


def _overlaid(
    genuine: Genuine,
    facts: Facts,
    access: Access | None,
) -> tuple[int | None, Refusals]:
    """Step 7: how old the overlay is, in seconds, and what stands against this token now."""
    if facts.overlay_problem is not None:
        return None, (Refusal("store_unavailable", facts.overlay_problem),)
    stale = staleness(facts)
    if stale is not None and not facts.server.allows_stale:
        return None, (Refusal("stale_overlay", stale),)
    overlay = facts.overlay
    if overlay is None:
        return None, ()
    age = max(0, facts.now - overlay.issued_at)
    if not overlay.touches(genuine.selected_by.keys):
        return age, ()
    return age, _entries(
        genuine,
        facts,
        overlay,
        access,
        age,
    )


def staleness(facts: Facts) -> str | None:
    """Why the overlay is not fresh enough, or None."""
    overlay = facts.overlay
    if overlay is None:
        return "there is no overlay yet"
    issued_at = spelled_time(overlay.issued_at)
    bound = facts.server.max_staleness
    if facts.now - overlay.issued_at > bound:
        return f"the newest overlay is of {issued_at}, older than {bound} s"
    if facts.now >= overlay.expires_at:
        return f"the newest overlay was good until {spelled_time(overlay.expires_at)}"
    if overlay.issued_at > facts.now + CLOCKS_DIFFER:
        return f"the newest overlay is of {issued_at}, which is yet to come"
    return None


def _entries(
    genuine: Genuine,
    facts: Facts,
    overlay: Overlay,
    access: Access | None,
    age: int,
) -> Refusals:
    """What the overlay's entries on this token say: those that revoke it first."""
    refusals: list[Refusal] = []
    situation = _situation(
        facts,
        frozenset(_audiences_left(genuine, facts)),
        genuine,
        age,
    )
    for entry in overlay.on(genuine.selected_by, facts.now):
        said = f"by {entry.by} at {spelled_time(entry.at)}: {entry.why}"
        link = overlay.link(entry)
        if link is None:
            refusals.append(Refusal("revoked", f"revoked {said}", added_by=entry.by))
            continue
        reason = link_prohibits(link, access, situation)
        if reason is not None:
            text = f"narrowed {said}; {reason.text}"
            refusals.append(Refusal("narrowed", text, added_by=entry.by))
    refusals.sort(key=lambda refusal: refusal.code != "revoked")
    return tuple(refusals)


def _situation(
    facts: Facts,
    audiences: frozenset[str],
    genuine: Genuine,
    age: int | None,
) -> Situation:
    return Situation(
        facts.now,
        facts.server.leeway,
        audiences,
        genuine.root.task,
        age,
    )


def _caveats(
    genuine: Genuine,
    facts: Facts,
    asked: Asked,
    age: int | None,
) -> Refusals:
    """Step 8: by the capability if that is the sooner answer, else link by link.

    From the second question on the capability says in one look what all links together say. The
    links are asked one by one to tell why; and always where an embedder's caveats are among them,
    on whose `covers` and `meet` nothing rests.
    """
    access = asked.access
    if not asked.again or access is None or genuine.own:
        return _by_link(
            genuine,
            facts,
            access,
            age,
        )
    server = facts.server
    if _is_too_new(genuine, facts) or _misaddressed(genuine, server) is not None:
        return _by_link(
            genuine,
            facts,
            access,
            age,
        )
    task = genuine.root.task
    situation = Situation(
        facts.now,
        server.leeway,
        server.audiences,
        task,
        age,
    )
    reason = genuine.capability.prohibits(access, situation)
    if reason is None:
        return ()
    # Were the two ever to differ, the stricter answer stands.
    return _by_link(
        genuine,
        facts,
        access,
        age,
    ) or (Refusal(reason.code, reason.text),)


def _by_link(
    genuine: Genuine,
    facts: Facts,
    access: Access | None,
    age: int | None,
) -> Refusals:
    """Step 8 in two passes, each link by link and by key: a dead token learns no more than that."""
    refusals: list[Refusal] = []
    if _is_too_new(genuine, facts):
        issued_at = spelled_time(genuine.root.issued_at)
        refusals.append(Refusal("not_yet_valid", f"issued at {issued_at}, which is yet to come"))
    audiences = facts.server.audiences
    audience = genuine.root.audience
    if audience is not None:
        if audience not in audiences:
            refusals.append(Refusal("wrong_audience", f"issued for {audience} alone"))
        audiences = audiences & {audience}
    start = situation = _situation(
        facts,
        audiences,
        genuine,
        age,
    )
    for at, link in enumerate(genuine.links):
        reason = early_prohibits(link, situation)
        if reason is not None:
            refusals.append(Refusal(reason.code, reason.text, *genuine.place(at)))
        if link.settles:
            situation = settled(situation, link)
    misaddressed = _misaddressed(genuine, facts.server)
    if misaddressed is not None:
        refusals.append(Refusal("unaddressed", misaddressed))
    if refusals:
        return tuple(refusals)
    for at, link in enumerate(genuine.links):
        reason = late_prohibits(link, access, start)
        if reason is not None:
            refusals.append(Refusal(reason.code, reason.text, *genuine.place(at)))
        if link.settles and genuine.own:  # of the late caveats, an embedder's alone look at these
            start = settled(start, link)
    return tuple(refusals)


def _is_too_new(genuine: Genuine, facts: Facts) -> bool:
    """Was it issued in the future, by more than clocks differ?"""
    return genuine.root.issued_at > facts.now + facts.server.ahead


def _misaddressed(genuine: Genuine, server: Server) -> str | None:
    """Why a server must not take a token for what it names, or fails to name; or None."""
    if not (genuine.addressed or server.takes_unaddressed):
        return "addressed to nobody, and this server takes only what is addressed to it"
    if genuine.counts and server.counts_alone and not genuine.is_for_one_server():
        return (
            "counted, and good at more servers than one, "
            "which do not declare a ledger that they share"
        )
    if genuine.lineage.key is not None and not server.audiences:
        return "bound to a key, and this server has no name to prove it to"
    return None


def _calls(genuine: Genuine, caller: Caller) -> Refusal | None:
    """Step 9: what the server itself knows of the caller agrees with the token."""
    holder = genuine.lineage.holder
    if caller.agent is not None and caller.agent != holder:
        return Refusal("caller", f"{caller.agent} calls with the token of {holder}")
    if caller.task is not None and not names.at_or_below(caller.task, genuine.task):
        text = f"called from task {caller.task} with a token for task {genuine.task}"
        return Refusal("caller", text)
    return None


def _proved(
    genuine: Genuine,
    facts: Facts,
    asked: Asked,
) -> Use | Refusal:
    """Step 10: every hand-over was signed, and whoever holds the key has sent this request; or why
    not.
    """
    key = genuine.lineage.key
    if key is None:
        return Refusal("bad_proof", "a proof, and the token is bound to no key")
    unsigned = genuine.first_unsigned(facts.memory) if genuine.custody else None
    if unsigned is not None:
        at = genuine.custody[unsigned].at
        text = "the key is not signed for by the one that the token was bound to"
        return Refusal(
            "bad_proof",
            text,
            at,
            genuine.added_by(at),
        )
    if genuine.proof is None:
        return Refusal("proof_missing", "the token is bound to a key, and no proof came with it")
    made = proof.read_proof(genuine.proof)
    if not proof.is_timely(made, facts.now):
        when = spelled_time(made.issued_at)
        return Refusal("bad_proof", f"made at {when}, which is too long ago or yet to come")
    try:
        digest = proof.request_digest(asked.access if asked.request is None else asked.request)
    except (ValueError, RecursionError):
        return Refusal("bad_proof", "the request cannot be spelled")
    tag = genuine.tags[-1]
    for audience in _audiences_left(genuine, facts):
        if proof.is_proven(
            made,
            key,
            tag,
            audience,
            digest,
        ):
            return proof.use_of(key, made)
    text = "not signed by the key that the token is bound to, for this token, server and request"
    return Refusal("bad_proof", text)


def _audiences_left(genuine: Genuine, facts: Facts) -> list[str]:
    """The verifier's audiences that the token is addressed to: nearly always one."""
    audiences = facts.server.audiences
    if genuine.root.audience is not None:
        audiences = audiences & {genuine.root.audience}
    situation = _situation(
        facts,
        audiences,
        genuine,
        None,
    )
    for link in genuine.links:
        if link.settles:
            situation = settled(situation, link)
    return sorted(situation.audiences)


def reservation(
    genuine: Genuine,
    facts: Facts,
    cost: Mapping[str, int],
) -> Reservation:
    """What an access of that cost takes from every bucket of the chain."""
    return Reservation(
        facts.reservation_id,
        genuine.debits(cost),
        genuine.root.issued_at,
        facts.now + LEASE,
        genuine.kept_until(facts.server.leeway),
    )


# --- decisions -----------------------------------------------------------------------------------


def denial(
    genuine: Genuine,
    facts: Facts,
    asked: Asked,
    refusals: Refusals,
    step: int | None = None,
    effects: tuple[Effect, ...] = (),
) -> Decision:
    """A denial of a genuine token: by the plan, by a store, or an adapter's own."""
    code = refusals[0].code
    return Decision(
        code=code,
        now=facts.now,
        access=asked.access,
        caller=asked.caller,
        who=attribution(genuine, facts.memory),
        refusals=refusals,
        step=step or CODES[code].step,
        dry=asked.grant is None,
        effects=effects,
        overlaid=facts.server.asks_overlay,
        leeway=facts.server.leeway,
    )


def denied_early(
    broken: Broken,
    now: int,
    access: Access | None,
    caller: Caller | None,
    dry: bool,
) -> Decision:
    """A denial by steps 1 to 6, of a token that is not genuine or cannot be read."""
    return Decision(
        code=broken.refusal.code,
        now=now,
        access=access,
        caller=caller,
        who=broken.who,
        refusals=(broken.refusal,),
        step=broken.step,
        dry=dry,
    )


def attribution(genuine: Genuine, memory: Memory) -> Attribution:
    """Who is behind a genuine token."""
    return Attribution(
        genuine.root,
        genuine.chain(memory),
        genuine.task,
        genuine.link_ids,
        genuine.packet.caveats,
    )

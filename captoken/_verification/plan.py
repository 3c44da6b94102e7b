"""The numbered plan, written once: text, keys and facts in, a decision out (spec, "Verification").

     1 sizes and counts           5 links can be read     9 caller
     2 strict parse               6 lineage              10 proof of a bound token
     3 root record and key        7 overlay              11 effects: proof's use, reservation
     4 chain of signatures        8 caveats

`authenticate` is steps 1 to 6: what depends on the token and the keys alone. `judge` is steps 7 to
10, and lists what step 11 has to commit. The first step that fails gives the decision its code.

How data flows: a text becomes `Parts`, these an `AuthenticatedToken` or a `Broken` one. A face of
the verifier gathers `Facts` and a `Question`. `judge` makes a `Decision` of the three, and
`effects.py` commits what it lists.

The rules of this file:

- Functions of values: no clock, no store, no log, no randomness, no keyring. A key is looked up by
  a function that is handed in. So a decision can be worked out again from what was recorded.
- The signature comes before the meaning: no link is decoded until the whole chain has held (24.1).
- The order is the spec's, and is part of what callers see. A new check goes where its step stands.
- A failure to know is a denial. Nothing here is caught in order to go on.
- Numbers in brackets are those of the spec, `captoken-v1.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from msgspec import structs

from captoken._format import chain, names, primitives, signed
from captoken._format.clocks import CLOCKS_DIFFER
from captoken._format.encoding import b64encode
from captoken._format.errors import TokenFormatError
from captoken._format.parts import Packet, Parts
from captoken._format.root import RootRecord
from captoken._format.spelling import spelled_time
from captoken._format.text import BOUND, parts_of, proof_of, split_proof
from captoken._language.access import Access, Asks, Caller
from captoken._language.caveats import RESERVED, V1, Situation, Vocabulary
from captoken._language.lineage import follow, read_along
from captoken._language.link import BadLink, Lineage, Link
from captoken._language.links import (
    BUCKETS,
    Remembered,
    after,
    early_prohibits,
    has_own,
    late_prohibits,
    link_prohibits,
    read_discharge,
    read_links,
)
from captoken._language.reasons import DENIALS, Reason, Refusal
from captoken._language.work import REFUSAL as TOO_MUCH
from captoken._language.work import fits, is_too_much
from captoken._verification.authenticated import (
    DISCHARGER,
    ISSUER,
    AuthenticatedToken,
    Custody,
    Kept,
    KeyChange,
    Memory,
)
from captoken._verification.decision import Attribution, Decision, Effect, Refusals
from captoken._verification.facts import Broken, Facts, Question, Server
from captoken.stores.ports import LEASE, MarkedStep, Reservation, Rule, Use

if TYPE_CHECKING:
    from captoken._language.entries import Entry
    from captoken._language.overlay import Overlay

# The macaroon key behind (key id, audience), or None.
KeyLookup: TypeAlias = Callable[[str, str | None], bytes | None]


# --- steps 1 to 6 --------------------------------------------------------------------------------


def authenticate(
    text: str | Parts,
    keys: KeyLookup,
    vocabulary: Vocabulary,
    memory: Memory | None = None,
) -> AuthenticatedToken | Broken:
    """Steps 1 to 6: a genuine token, or the denial.

    Does not look at time, audience, caller, overlay or proof, and counts nothing: what it gives is
    no permission. Pure but for `keys`, which is asked only once the text has parsed. What `keys`
    raises passes through (24.10). `delegate_only` is left to `judge` (24.18).

    Costs one HMAC for each link, in time linear in the length of the text; for each discharge a box
    and a chain of its own. A text that is remembered costs a digest and a look-up (24.22).
    """
    if memory is None:
        found = _found(text, keys, vocabulary, None)
        return found if isinstance(found, Broken) else found[0]

    # Without the proof, which is for one sending. By a digest, so that no text is kept. Nothing is
    # hashed that is longer than a limit far below that of step 1 (3.1).
    digest, characters = b"", 0
    if type(text) is str and len(text) <= memory.longest:
        bare, proof_part = split_proof(text)
        if memory.texts.came_before(hash(bare)):
            spelled = bare.encode(errors="surrogatepass")
            digest, characters = primitives.sha256(spelled), len(bare)
            genuine = _recalled(memory.texts.get(digest), proof_part, keys)
            if genuine is not None:
                return genuine

    found = _found(text, keys, vocabulary, memory.links)
    if isinstance(found, Broken):  # a failure is never remembered
        return found
    genuine, derived = found
    if digest and not genuine.own:  # an embedder's caveat may hold what changes
        memory.texts.keep(digest, _to_keep(genuine, derived, characters))
    return genuine


def _recalled(
    kept: Kept | None,
    proof_part: str | None,
    keys: KeyLookup,
) -> AuthenticatedToken | None:
    """The token that a text was found to be, if its key is the one that is here now; else None.

    A key that was retired, or replaced by another under its id, works no longer at once (24.22).
    What is wrong with a proof's form is for step 2 to say, which then looks at all of the text.
    """
    if kept is None:
        return None
    genuine = kept.genuine
    root = genuine.root
    derived = keys(root.key_id, root.audience)
    if derived is None or not primitives.equal(derived, kept.derived):
        return None

    genuine.checks()  # kept with the token: what is asked of a copy with its proof is not
    if proof_part is None:
        return genuine
    try:
        return structs.replace(genuine, proof=proof_of(proof_part))
    except TokenFormatError:
        return None


def _to_keep(
    genuine: AuthenticatedToken,
    derived: bytes,
    characters: int,
) -> Kept:
    """What is remembered of a token: not the proof that it came with."""
    end = genuine.expires_at
    if genuine.proof is not None:
        genuine = structs.replace(genuine, proof=None)
    return Kept(genuine, derived, characters, float("inf") if end is None else end)


def _found(
    text: str | Parts,
    keys: KeyLookup,
    vocabulary: Vocabulary,
    known: Remembered[Link] | None,
) -> tuple[AuthenticatedToken, bytes] | Broken:
    """Steps 1 to 6, none of them left out: the token, and the key that its chain held under."""
    try:
        # Steps 1 and 2 (24.2, 8.2, 8.6). Sizes are bounded first, so that no input costs more than
        # its length. One spelling a token: what a store or a log knows by its text is known.
        parts = text if isinstance(text, Parts) else parts_of(text, BOUND)
        packet = parts.packet

        # Step 3 (9.1 to 9.3, 24.3). Nothing of it is believed yet but `v`, `kid` and `aud` (9.5).
        root = RootRecord.decode(packet.identifier)
    except TokenFormatError as error:
        return Broken(Refusal(error.code, str(error)), error.step)

    # Step 3, the look-up (21.2, 21.4). The token names a key and no algorithm: there is only one.
    # A key of another audience is no key here, so no server can use what was minted for another.
    derived = keys(root.key_id, root.audience)
    if derived is None:
        what = "this server does not have the key that the token was minted with"
        return Broken(Refusal("unknown_key", what), 3)

    # Step 4 (11.1 to 11.4, 24.1). The bytes that arrived, all of them, in constant time. It answers
    # links that were dropped, swapped, repeated, widened, or spliced from another token.
    tags = chain.fold(derived, packet)
    if tags is None:
        return Broken(Refusal("bad_signature", "the signatures of the token do not match"), 4)

    # Discharges are the rest of step 4: their chains hold, too, before any link is decoded.
    answers = _answers(derived, packet, tags, parts.discharges)

    if not isinstance(answers, dict):
        # To say who is behind it: for a record, and with no code of an embedder's (24.1).
        return _broken(root, packet, tags, read_links(packet.caveats, V1), *answers)

    # Decoded from here on, and not before: no reader of JSON sees what a stranger wrote (24.1).
    links = read_links(packet.caveats, vocabulary, known)
    genuine = _read(root, parts, tags, links, answers, vocabulary)
    return genuine if isinstance(genuine, Broken) else (genuine, derived)


def _answers(
    derived: bytes,
    packet: Packet,
    tags: tuple[bytes, ...],
    discharges: tuple[Packet, ...],
) -> dict[int, Packet] | tuple[int | None, Reason]:
    """The rest of step 4: the discharge of each third-party caveat, or where and why there is none.

    One for each, in their order, none left over (33.4, 33.5). Third-party caveats that another
    library wrote are taken as they are: only bytes are compared (32.4).
    """
    answers: dict[int, Packet] = {}
    asked = [at for at, (_, vid) in enumerate(packet.caveats) if vid]
    if not asked and not discharges:
        return answers
    left = list(discharges)

    # Counts come before boxes (33.5): nobody has more boxes opened than caveats have answers.
    # The cid is compared as bytes, and never read (32.4).
    if len({discharge.identifier for discharge in left}) < len(left):
        return None, Reason("bad_discharge", "the same discharge was sent twice")
    for at in asked:
        if left and left[0].identifier == packet.caveats[at][0]:
            answers[at] = left.pop(0)

    # One order and none to spare (33.4): a bundle, too, has only one spelling.
    if left:
        what = "a discharge was not asked for, or the discharges are in another order"
        return None, Reason("bad_discharge", what)

    # No third-party caveat goes unanswered. It would else be a caveat that anybody takes off.
    for at in asked:
        if at not in answers:
            what = "the token needs the consent of a third party, and its discharge is missing"
            return at, Reason("missing_discharge", what)

    # The key of a discharge is in the token's own box, under the tag before it (32.1). The bound
    # signature (33.3) answers a discharge that was given to another token, parent or child.
    for at, discharge in answers.items():
        key = chain.answer_key(derived, packet, tags, at)
        if key is None or chain.fold(key, discharge, packet.signature) is None:
            what = (
                "the discharge is not from the third party that was asked, or is not bound to "
                "this token"
            )
            return at, Reason("bad_discharge", what)
    return answers


def _read(
    root: RootRecord,
    parts: Parts,
    tags: tuple[bytes, ...],
    links: list[Link | BadLink],
    answers: dict[int, Packet],
    vocabulary: Vocabulary,
) -> AuthenticatedToken | Broken:
    """Steps 5 and 6: every link can be read, the token's and its discharges', and the chain holds.

    Lineage is the token's alone (33.8). It answers an agent that hands on in the name of another,
    or back to one before it, and a delegation past `depth` (20.1).
    """
    packet = parts.packet

    # Step 5 (24.4, 17.4). An unknown key prohibits: whoever wrote it meant it as a restriction, and
    # to pass over it would widen. Every link is read before step 6 looks at any.
    own: list[Link] = []
    counts = reserves = False
    addressed = root.audience is not None
    for at, link in enumerate(links):
        if isinstance(link, BadLink):
            return _broken(root, packet, tags, links, at, link)
        own.append(link)
        if link.counts:
            counts = True
            reserves = reserves or any(caveat.key in RESERVED for caveat in link.late)
        if link.narrows_situation and not addressed:
            addressed = _names_audience(link)

    # Step 5 of the discharges (33.6): they must end, and may not speak of the token. So a
    # discharger cannot write itself into the lineage, or bind the token to a key of its own.
    added: list[Link] = []
    places: list[int] = []
    for at, discharge in answers.items():
        said = read_discharge(discharge, vocabulary)
        if isinstance(said, BadLink):
            return _broken(root, packet, tags, links, at, said, DISCHARGER)
        added += said
        places += [at] * len(said)
    lineage = follow(root.agent, own)
    if not isinstance(lineage, Lineage):
        return _broken(root, packet, tags, links, *lineage)

    # What follows is worked out once, since no question changes it.
    readable = (*own, *added)
    return AuthenticatedToken(
        root,
        packet,
        tags,
        readable,
        tuple(places),
        lineage,
        _custody(packet, own, tags) if lineage.key is not None else None,
        parts.proof,
        counts,
        reserves,
        vocabulary is not V1 and any(map(has_own, readable)),
        addressed,
        parts.consents,
    )


def _names_audience(link: Link) -> bool:
    """Does the link name an audience?

    A discharge may name an audience, but that does not address the token (33.7).
    """
    return any(caveat.key == "aud" for caveat in link.early)


def _custody(packet: Packet, links: Sequence[Link], tags: tuple[bytes, ...]) -> Custody:
    """Every change of key on a bound token, with the evidence for it, or None where it is not
    signed.

    The first key is not signed, since there is no key yet to sign it (28.5). Whether a signature
    holds is asked in step 10 (28.6), or when the chain is shown.
    """
    found: list[KeyChange] = []
    bound_to: bytes | None = None
    for at, link in enumerate(links):
        if link.key is None:
            continue
        if bound_to is not None and link.signature is not None:
            body = signed.body_of(packet.caveats[at][0])
            found.append(KeyChange(at, (bound_to, body, link.signature)))
        elif bound_to is not None:
            found.append(KeyChange(at, None))
        bound_to = link.key
    return Custody(tuple(found), tags)


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
    # Who added it, so far as the links before it can be read: the issuer wrote link 0.
    if at is not None and added_by is None:
        added_by = ISSUER if at == 0 else read_along(root.agent, links[:at]).holder
    actors = read_along(root.agent, links).chain()
    ids = tuple(map(b64encode, primitives.link_ids(tags)))
    who = Attribution(root, actors, root.task, ids, packet.caveats)
    return Broken(Refusal(reason.code, reason.text, at, added_by), DENIALS[reason.code].step, who)


# --- steps 7 to 10 -------------------------------------------------------------------------------


def judge(
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Question,
) -> Decision:
    """Steps 7 to 10: may this be done now? Its effects are what step 11 has still to commit.

    An allowed decision with effects is not an answer yet: it stands when they are committed. Asks
    no store, and raises nothing of its own.

    A grant that is asked again goes this way too, with fresh facts (24.9). It takes no further
    proof: whoever has the grant has been through step 10.
    """
    server = facts.server
    access = facts.with_context(asked.access) if facts.context else asked.access

    # The end of step 6 (20.2, 24.18). Here, since it depends on who asks: a recall only shows the
    # token (37.2). First, so that its place among the codes is that of step 6.
    if genuine.lineage.must_delegate and asked.used:
        return denial(genuine, facts, asked, (_owed(genuine),))

    # Step 7, the age of the grant (24.15). Answers a key that was retired while a grant is kept.
    # Before the overlay: a grant that is too old is not worth a look at it.
    age = facts.now - asked.verified_at
    if server.max_age is not None and not -CLOCKS_DIFFER <= age <= server.max_age:
        return denial(genuine, facts, asked, (_stale_grant(facts, asked),))

    # Step 7 (36.7 to 36.9, 24.17). What was revoked, and an overlay that is withheld or stale.
    # Before the caveats, so that what was revoked is told as that.
    overlay_age: int | None = None
    narrowing: Narrowing = ()
    if server.asks_overlay:
        overlay_age, refusals, narrowing = _overlaid(genuine, facts, access)
        if refusals:
            return denial(genuine, facts, asked, refusals, step=7)

    # Step 8 (24.5, 18.4). Asking for more than any link leaves; a token that is used elsewhere.
    # Before the caller: whoever holds a dead token learns that it is dead, and no more.
    refusals = _caveats(genuine, facts, asked, access, overlay_age, narrowing)
    if refusals:
        return denial(genuine, facts, asked, refusals, step=8)

    # Step 9 (24.7). An agent that uses the token of another, where the server knows who calls.
    if asked.caller is not None:
        refusal = _calls(genuine, asked.caller)
        if refusal is not None:
            return denial(genuine, facts, asked, (refusal,))

    # Step 10 (30.4). A text that was stolen or seen on its way, without the key. After the caveats,
    # since signatures are the dearest to check, and before any store is asked.
    effects: tuple[Effect, ...] = ()
    if asked.sent and (genuine.lineage.key is not None or genuine.proof is not None):
        use = _proved(genuine, facts, asked)
        if isinstance(use, Refusal):
            return denial(genuine, facts, asked, (use,))
        effects = (use,)

    # What step 11 commits (24.16), in this order: the proof's one use, then consents, then marks,
    # then the reservation. What was denied above has used up no proof, set no mark and debited
    # nothing. No access, nothing to count (38.5). The end of step 10 is here (47.6): consents are
    # of tokens that ask for them.
    if (genuine.counts or narrowing) and asked.access is not None:
        counted = _asked_of_stores(genuine, facts, asked, asked.access, narrowing)
        if isinstance(counted, Refusal):
            return denial(genuine, facts, asked, (counted,))
        effects = (*effects, *counted)
    return Decision(
        code="allowed",
        now=facts.now,
        access=access,
        caller=asked.caller,
        grant=asked.grant,
        who=attribution(genuine, facts.memory) if asked.grant is None else None,
        dry=asked.grant is None,
        effects=effects,
        overlaid=server.asks_overlay,
        leeway=server.leeway,
    )


def _owed(genuine: AuthenticatedToken) -> Refusal:
    """The end of step 6: a link says `delegate_only`, and nobody was handed the token (20.2)."""
    last = max(at for at, link in enumerate(genuine.links) if link.delegate_only)
    text = "the token can only be handed on, and nobody has handed it on"
    return Refusal("delegate_only", text, *genuine.place(last))


def _stale_grant(facts: Facts, asked: Question) -> Refusal:
    """Step 7: the keys have to be asked again (24.15)."""
    when = spelled_time(asked.verified_at)
    return Refusal("stale_grant", f"verified at {when}, more than {facts.server.max_age} s ago")


def _overlaid(
    genuine: AuthenticatedToken,
    facts: Facts,
    access: Access | None,
) -> tuple[int | None, Refusals, Narrowing]:
    """Step 7: how old the overlay is, in seconds, and what stands against this token now (36.7,
    36.8); and the links of the entries on it, for steps 8 and 11 to count (24.25, 46.3).

    The age is None where there is no overlay, and then `fresh` does not hold. Where no entry is on
    the token, as nearly always, the cost is one look into a set.
    """
    # It cannot be asked (36.7): also where a stale one would do, since nothing is known at all.
    if facts.overlay_problem is not None:
        return None, (Refusal("store_unavailable", facts.overlay_problem),), ()

    # Whoever keeps snapshots away stops the verifier from allowing, and no more (36.13).
    stale = staleness(facts)
    if stale is not None and not facts.server.allows_stale:
        return None, (Refusal("stale_overlay", stale),), ()

    # Only where a stale overlay is allowed (36.9), which the verifier has logged. `fresh` denies.
    overlay = facts.overlay
    if overlay is None:
        return None, (), ()

    # Never below 0: an operator's clock that is a little ahead makes nothing fresher than new.
    age = max(0, facts.now - overlay.issued_at)
    if not overlay.touches(genuine.selected_by.keys):
        return age, (), ()
    return age, *_entries(genuine, facts, overlay, access, age)


def staleness(facts: Facts) -> str | None:
    """Why the overlay is not fresh enough, or None (36.7).

    Also for the verifier's log, where it was told to go on without a fresh one (36.9).
    """
    overlay = facts.overlay
    if overlay is None:
        return "this server has no overlay yet"

    bound = facts.server.max_staleness
    if facts.now - overlay.issued_at > bound:
        issued_at = spelled_time(overlay.issued_at)
        return f"the newest overlay is from {issued_at}, more than {bound} s ago"

    # Its own end, as the operator signed it: at that second it is over.
    if facts.now >= overlay.expires_at:
        return f"the newest overlay expired at {spelled_time(overlay.expires_at)}"

    # From the future: one that was signed ahead would stay fresh for as long as its maker likes.
    if overlay.issued_at > facts.now + CLOCKS_DIFFER:
        issued_at = spelled_time(overlay.issued_at)
        return f"the newest overlay is from {issued_at}, which is in the future"
    return None


def _entries(
    genuine: AuthenticatedToken,
    facts: Facts,
    overlay: Overlay,
    access: Access | None,
    age: int,
) -> tuple[Refusals, Narrowing]:
    """What the overlay's entries on this token say: those that revoke it first (36.8).

    And the links of those that narrow it. None is judged where they are too much (24.25).
    """
    refusals: list[Refusal] = []
    entries = overlay.on(genuine.selected_by, facts.now)
    narrowing = _narrowing(overlay, entries)
    too_much = access is not None and is_too_much((link for _, link in narrowing), access)
    if too_much:
        refusals.append(TOO_MUCH)
    situation = _situation(facts, frozenset(_audiences_left(genuine, facts)), genuine, age)
    for entry in entries:
        undo = f"(an operator can lift entry {entry.id})"
        said = f"by {entry.by} at {spelled_time(entry.at)}: {entry.why} {undo}"
        link = overlay.link(entry)

        # An entry without a link takes away all (36.8).
        if link is None:
            refusals.append(Refusal("revoked", f"revoked {said}", added_by=entry.by))
            continue

        # One with a link takes away a part: it is judged as any link, and grants nothing.
        reason = None if too_much else link_prohibits(link, access, situation)
        if reason is not None:
            text = f"narrowed {said}; {reason.text}"
            refusals.append(Refusal("narrowed", text, added_by=entry.by))

    # The first gives the code: `revoked` says more than `narrowed`. The sort keeps their order.
    refusals.sort(key=lambda refusal: refusal.code != "revoked")
    return tuple(refusals), narrowing


# The entries of an overlay that narrow a token: the id of each, and its link.
Narrowing: TypeAlias = tuple[tuple[str, Link], ...]


def _narrowing(overlay: Overlay, entries: Iterable[Entry]) -> Narrowing:
    """Those of the entries that have a link. One without revokes."""
    links = ((entry.id, overlay.link(entry)) for entry in entries)
    return tuple((name, link) for name, link in links if link is not None)


def _situation(
    facts: Facts,
    audiences: frozenset[str],
    genuine: AuthenticatedToken,
    age: int | None,
) -> Situation:
    """What caveats are judged in: the moment, the names of the server, the root's task."""
    return Situation(facts.now, facts.server.leeway, audiences, genuine.root.task, age)


def _caveats(
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Question,
    access: Access | None,
    age: int | None,
    narrowing: Narrowing,
) -> Refusals:
    """Step 8: by the checks of all links in a row if they are there, else link by link.

    Either way it is the links that permit: in the row, too, each caveat of each link is asked, and
    what repeats itself once (24.23). What the row does not permit, the links are asked about one by
    one, to tell why.
    """
    server = facts.server
    too_much = False
    # How often at most the links look at one fact: each once, and each mark once more, and each
    # link of a token that asks four times for consents.
    looking = 5 * len(genuine.links) + BUCKETS if genuine.counts else len(genuine.links)
    if access is not None and (narrowing or not fits(access, looking)):
        too_much = is_too_much((*(link for _, link in narrowing), *genuine.links), access)
    unknown = _unknown(facts, asked.access) if facts.context or facts.context_problem else None
    checks = None if too_much or unknown is not None else genuine.checks()
    if checks is not None and not _is_too_new(genuine, facts):
        situation = Situation(facts.now, server.leeway, server.audiences, overlay_age=age)
        if checks.permit(access, situation) and _misaddressed(genuine, server, narrowing) is None:
            return _unconsented(genuine, facts, asked) if genuine.counts else ()
    ending = TOO_MUCH if too_much else unknown
    refusals = _by_link(genuine, facts, access, age, narrowing, ending)
    return _unconsented(genuine, facts, asked) if genuine.counts and not refusals else refusals


def _unknown(facts: Facts, access: Access | None) -> Refusal | None:
    """Why the facts of the moment cannot stand beside the access, or None (7.13).

    Denied whatever the token says: who asks about a threat must not be let by for want of an
    answer, and a name that both state could be a client's word in the place of the server's.
    """
    if access is None:
        return None
    if facts.context_problem is not None:
        return Refusal("attribute", facts.context_problem)
    for name in facts.context:
        if name in access.attributes:
            text = f"attribute {name} is stated by the access and by context="
            return Refusal("attribute", text)
    return None


def _unconsented(genuine: AuthenticatedToken, facts: Facts, asked: Question) -> Refusals:
    """The end of step 8: what nothing else refuses, and nobody has consented to (47.3).

    Last, so that no person is asked about what is refused all the same.
    """
    if asked.access is None or not genuine.asks_consents:
        return ()
    from captoken._verification import consenting  # of tokens that ask for consents

    return consenting.not_shown(genuine, asked, _audiences_left(genuine, facts))


def _asked_of_stores(
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Question,
    access: Access,
    narrowing: Narrowing,
) -> tuple[Effect, ...] | Refusal:
    """What consents, marks and counts have to be committed, if the question counts.

    First the end of step 10: why a consent to this very access will not do (47.6).
    """
    if genuine.consents:
        from captoken._verification import consenting

        its = _audiences_left(genuine, facts)
        refusal = consenting.not_good(genuine, asked, its, facts.now)
        if refusal is not None:
            return refusal
    return counting(genuine, facts, (asked,), access.cost, narrowing) if asked.counted else ()


def _by_link(
    genuine: AuthenticatedToken,
    facts: Facts,
    access: Access | None,
    age: int | None,
    narrowing: Narrowing,
    ending: Refusal | None,
) -> Refusals:
    """Step 8 in two passes, each link by link and by key: a dead token learns no more than that
    (24.5).

    This is what the spec says; the row of checks may only be sooner. The links of the token come
    first, then those of each discharge (33.7). `ending` is what denies between the two passes.
    """
    refusals: list[Refusal] = []

    # The first pass (24.5): is the token alive, and for this server? First what the issuer said.
    if _is_too_new(genuine, facts):
        issued_at = spelled_time(genuine.root.issued_at)
        refusals.append(Refusal("not_yet_valid", f"issued at {issued_at}, which is in the future"))
    audiences = facts.server.audiences
    audience = genuine.root.audience
    if audience is not None:
        if audience not in audiences:
            refusals.append(Refusal("wrong_audience", f"issued for {audience} only"))
        audiences = audiences & {audience}

    # Then link by link. Each narrows the audiences and the task for those behind it (16.1, 16.3).
    start = situation = _situation(facts, audiences, genuine, age)
    for at, link in enumerate(genuine.links):
        reason = early_prohibits(link, situation)
        if reason is not None:
            refusals.append(Refusal(reason.code, reason.text, *genuine.place(at)))
        if link.narrows_situation:
            situation = after(situation, link)

    # `unaddressed` ends the pass (16.2, 30.6, 38.6).
    misaddressed = _misaddressed(genuine, facts.server, narrowing)
    if misaddressed is not None:
        refusals.append(Refusal("unaddressed", misaddressed))
    # Between the two (24.25, 7.13): no constraint is judged where all of them are too much, or
    # where it is not known what they would be about.
    if refusals or ending is not None:
        return tuple(refusals) or (ending or TOO_MUCH,)

    # The second pass: what may be done. Every link is asked, so that nobody gains by asking for
    # more in a link of its own. All that refuse are told; the first gives the code (24.12).
    for at, link in enumerate(genuine.links):
        reason = late_prohibits(link, access, start)
        if reason is not None:
            refusals.append(_by(reason, genuine, at))
        # Of the late caveats, those of an embedder alone look at what is narrowed here.
        if link.narrows_situation and genuine.own:
            start = after(start, link)
    return tuple(refusals)


def _by(reason: Reason, genuine: AuthenticatedToken, at: int) -> Refusal:
    """The reason of link `at`, with where it stands and what failed."""
    return Refusal(reason.code, reason.text, *genuine.place(at), reason.failing)


def _is_too_new(genuine: AuthenticatedToken, facts: Facts) -> bool:
    """Was it issued in the future, by more than clocks differ (24.5)?

    A token from an hour ahead would outlive by an hour what its issuer meant.
    """
    return genuine.root.issued_at > facts.now + facts.server.ahead


def _misaddressed(
    genuine: AuthenticatedToken,
    server: Server,
    narrowing: Narrowing,
) -> str | None:
    """Why a server must not take a token for what it names, or fails to name; or None."""
    # 16.2: a text for nobody in particular could be sent on, by this server, to every other.
    if not (genuine.addressed or server.takes_unaddressed):
        return "the token names no server, and this server takes only tokens addressed to it"

    # 38.6: ten uses at each of two servers that count apart would be twenty.
    is_counted = genuine.counts or narrowing
    if is_counted and server.counts_alone and not _is_in_one_place(genuine, narrowing):
        name = min(server.audiences, default="…")
        return (
            "the token has uses, a budget or rules over marks, so it must be minted for one "
            f'server: mint(…, audience="{name}"); or give the servers one ledger that is `shared`'
        )

    # 30.6, 47.7: a proof or a consent for no server would be as good at the next one.
    if not server.audiences and (genuine.lineage.key is not None or genuine.counts):
        if genuine.lineage.key is not None:
            return (
                "the token is bound to a key, and this server has no name that a proof could be for"
            )
        if any(caveat.key == "consent" for link in genuine.links for caveat in link.late):
            return (
                "the token asks for consents, and this server has no name that one could be for: "
                "Verifier(keys, audience=…)"
            )
    return None


def _is_in_one_place(genuine: AuthenticatedToken, narrowing: Narrowing) -> bool:
    """Do all servers that take the token count in the ledger of one (38.6, 46.8)?

    Asked of the token's own links, and of what an operator has put on it.
    """
    if genuine.counts and not genuine.counting.one_place:
        return False
    return all(genuine.is_in_one_place(link) for _, link in narrowing)


def _calls(genuine: AuthenticatedToken, caller: Caller) -> Refusal | None:
    """Step 9: what the server itself knows of the caller agrees with the token (24.7).

    What the caller does not state is not compared. It proves nothing: whoever has the text of a
    bearer token can have it anywhere. It stops a mix-up of two agents, and a proof stops a thief.
    """
    # The name is the chain's: vouched for, or proven. It narrows here, and grants nothing.
    holder = genuine.lineage.holder
    if caller.agent is not None and caller.agent != holder:
        return Refusal("caller", f"{caller.agent} calls with the token of {holder}")
    if caller.task is not None and not names.at_or_below(caller.task, genuine.task):
        text = f"called from task {caller.task} with a token for task {genuine.task}"
        return Refusal("caller", text)
    return None


def _proved(
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Question,
) -> Use | Refusal:
    """Step 10: every hand-over was signed, and whoever holds the key has sent this request; or why
    not.

    That the proof was not used before, only a store can say: that is step 11 (30.4, 31).
    """
    # 30.7: whoever sends a proof with a bearer token thinks that it is protected.
    key = genuine.lineage.key
    if key is None:
        return Refusal("bad_proof", "the request has a proof, but the token is bound to no key")

    # 28.6: whoever stole the text would else hand it on to a key of its own.
    custody = genuine.custody
    unsigned = custody.first_unsigned(facts.memory.states) if custody is not None else None
    if custody is not None and unsigned is not None:
        at = custody.changes[unsigned].at
        text = "the key that the token was bound to before has not signed this one"
        return Refusal("bad_proof", text, at, genuine.added_by(at))

    if genuine.proof is None:
        return Refusal("proof_missing", "the token is bound to a key, and no proof came with it")

    from captoken import proof  # of bound tokens alone

    # 30.5: half a minute, so that a store need not remember uses for longer. No leeway.
    made = proof.read_proof(genuine.proof)
    if not proof.is_timely(made, facts.now):
        when = spelled_time(made.issued_at)
        return Refusal("bad_proof", f"made at {when}, which is too long ago or in the future")

    # 29.4: an access that cannot be spelled is one that nobody can have signed for.
    try:
        digest = proof.request_digest(asked.access if asked.request is None else asked.request)
    except (ValueError, RecursionError):
        return Refusal("bad_proof", "the request cannot be written as bytes to sign")

    # 30.2: for this very chain, one name of this server and this request. A proof that was made
    # for another token, server or request is for another message, and does not hold.
    tag = genuine.tags[-1]
    for audience in _audiences_left(genuine, facts):
        if proof.is_proven(made, key, tag, audience, digest):
            return proof.use_of(key, made, genuine.root.key_id)
    text = "not signed by the key that the token is bound to, for this token, server and request"
    return Refusal("bad_proof", text)


def _audiences_left(genuine: AuthenticatedToken, facts: Facts) -> list[str]:
    """The verifier's audiences that the token is addressed to: nearly always one (16.1)."""
    audiences = facts.server.audiences
    if genuine.root.audience is not None:
        audiences = audiences & {genuine.root.audience}
    situation = _situation(facts, audiences, genuine, None)
    for link in genuine.links:
        if link.narrows_situation:
            situation = after(situation, link)
    return sorted(situation.audiences)


def counting(
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Sequence[Question],
    cost: Mapping[str, int],
    narrowing: Narrowing,
) -> tuple[Effect, ...]:
    """What the accesses of one step set, and what they take from every bucket of the chain.

    `cost` is that of all of them. All of it or nothing, so that children share what stands above
    them (38.3). A further part of a step takes no use, and is asked about no mark that the parts
    before were asked about (38.16, 46.6).
    """
    goes_on, once = asked[0].goes_on, asked[0].once
    step = _marked_step(genuine, facts, asked, narrowing)
    effects: tuple[Effect, ...] = ()
    if genuine.consents:
        from captoken._verification import consenting

        its = _audiences_left(genuine, facts)
        lifted = () if step is None else consenting.lifted_of(genuine, asked[0], its, step)
        effects = consenting.spends(genuine, asked, its, lifted)
        step = _without(step, lifted)
    if step is not None and any(mark.bucket not in asked[0].marked for mark in step.marks):
        effects = (*effects, step)
    if not genuine.reserves:
        return effects

    # The fourth says when it is spent for good, the fifth how long it is remembered (38.8, 38.10).
    known_as, seconds = (facts.reservation_id, LEASE) if once is None else once
    reservation = Reservation(
        known_as,
        genuine.counting.debits(cost, uses=1 if goes_on is None else 0),
        genuine.root.issued_at,
        facts.now + seconds,
        genuine.counting.kept_until(facts.server.leeway),
        genuine.root.token_id,
        facts.server.leeway,
        genuine.root.key_id,
        goes_on,
    )
    return (*effects, reservation)


def _without(step: MarkedStep | None, lifted: Sequence[Rule]) -> MarkedStep | None:
    """The step, asked about no rule that a consent lifts (46.4)."""
    if step is None or not lifted:
        return step
    return structs.replace(step, rules=tuple(one for one in step.rules if one not in lifted))


def marked_step(
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Question,
    narrowing: Narrowing,
) -> MarkedStep | None:
    """The marks that an access is in, and the rules that it runs into and no consent lifts."""
    step = _marked_step(genuine, facts, (asked,), narrowing)
    if step is None or not genuine.consents:
        return step
    from captoken._verification import consenting

    its = _audiences_left(genuine, facts)
    return _without(step, consenting.lifted_of(genuine, asked, its, step))


def _marked_step(
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Sequence[Question],
    narrowing: Narrowing,
) -> MarkedStep | None:
    """The marks that the accesses of one step are in, and the rules that they run into (46.6)."""
    entries = [entry for entry in narrowing if entry[1].counts]
    if not entries and (not genuine.counts or genuine.marked == ()):
        return None
    accesses = [one.access for one in asked if one.access is not None]

    # What one access comes to is remembered by its names, where its values play no part.
    steps = genuine.steps
    if steps is not None and len(accesses) == 1 and not entries:
        one = accesses[0]
        names_stated = one.table, one.operation, one.tool
        if names_stated in steps:
            return steps[names_stated]
    from captoken._verification import marking  # of tokens that a ledger is asked about

    return marking.step_of(genuine, facts.server, entries, accesses)


def narrowing_of(genuine: AuthenticatedToken, facts: Facts) -> Narrowing:
    """The entries of the overlay that narrow the token now, of a token that was judged."""
    overlay = facts.overlay
    if overlay is None or not overlay.touches(genuine.selected_by.keys):
        return ()
    return _narrowing(overlay, overlay.on(genuine.selected_by, facts.now))


# --- decisions -----------------------------------------------------------------------------------


def denial(
    genuine: AuthenticatedToken,
    facts: Facts,
    asked: Question,
    refusals: Refusals,
    step: int | None = None,
    effects: tuple[Effect, ...] = (),
) -> Decision:
    """A denial of a genuine token: by the plan, by a store, or an adapter's own.

    The step is that of the code, unless one is given: `store_unavailable` and `stale_overlay` are
    codes of two steps. `effects` are those that were under way, so that the record says what may be
    spent.
    """
    code = refusals[0].code
    asks: tuple[Asks, ...] = ()
    if refusals[0].consent_of is not None:
        from captoken._verification import consenting

        its = _audiences_left(genuine, facts)
        asks = consenting.asks_of(genuine, asked, its, refusals)
    return Decision(
        code=code,
        now=facts.now,
        access=facts.with_context(asked.access),
        caller=asked.caller,
        who=attribution(genuine, facts.memory),
        refusals=refusals,
        step=step or DENIALS[code].step,
        dry=asked.grant is None,
        effects=effects,
        overlaid=facts.server.asks_overlay,
        leeway=facts.server.leeway,
        asks=asks,
    )


def denied_early(
    broken: Broken,
    now: int,
    access: Access | None,
    caller: Caller | None,
    dry: bool,
) -> Decision:
    """A denial by steps 1 to 6, of a token that is not genuine or cannot be read.

    It has no grant, and no facts but the moment: neither overlay nor store was asked.
    """
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


def attribution(genuine: AuthenticatedToken, memory: Memory) -> Attribution:
    """Who is behind a genuine token, as a value that holds no secret of it."""
    return Attribution(
        genuine.root,
        genuine.chain(memory.states),
        genuine.task,
        genuine.link_ids,
        genuine.packet.caveats,
    )

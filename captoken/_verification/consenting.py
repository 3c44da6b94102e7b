"""Whether a person consented: the end of step 8, and of step 10 (spec, "Consent").

Loaded for tokens that ask for consents. Step 8 looks whether there is a consent for this very
access, by comparing bytes: each names its question. Step 10 looks whether its key has signed it,
and whether it is late. What step 11 then spends is listed here too: `effects.py` asks the store.

Numbers in brackets are those of the spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from captoken._format import primitives
from captoken._format.encoding import b64encode
from captoken._format.spelling import spelled_time
from captoken._language.access import Access, Asks
from captoken._language.reasons import Refusal
from captoken._verification.authenticated import Asking, AuthenticatedToken
from captoken._verification.consents import Yes, step_digest
from captoken._verification.facts import Question
from captoken.stores.ports import MarkedStep, Rule, Spend

# The names of the server that a token is addressed to, sorted: nearly always one.
Names = Sequence[str]


def not_shown(genuine: AuthenticatedToken, asked: Question, its: Names) -> tuple[Refusal, ...]:
    """The end of step 8: each consent that an access needs, and that did not come along (47.3).

    Where one access of a statement needs a consent, all that its accesses need are told.
    """
    access = asked.access
    if access is None or asked.under_way or not _needed(genuine, (access,)):
        return ()
    came = {*_by_name(genuine), *asked.consented}
    digest = _digest(asked)
    return tuple(
        Refusal(
            "consent_missing",
            f"{access.summary} needs a consent of {b64encode(one.by)}",
            one.at,
            genuine.added_by(one.at),
            consent_of=one.by,
        )
        for one in _needed(genuine, _step(asked))
        if digest is None or came.isdisjoint(one.names(digest, its))
    )


def not_good(
    genuine: AuthenticatedToken, asked: Question, its: Names, now: int
) -> Refusal | None:
    """The end of step 10: why a consent to this very access will not do, or None (47.6).

    Those for other accesses are passed over. Each costs one Ed25519 check at most.
    """
    digest = _digest(asked)
    if digest is None or asked.under_way:
        return None
    for one, name, yes in _came(genuine, digest, its):
        if name in asked.consented:
            continue
        if not yes.is_timely(now):
            when = f"{spelled_time(yes.issued_at)} to {spelled_time(yes.expires_at)}"
            text = f"the consent is good from {when}, and for an hour at most"
            return Refusal("bad_consent", text, one.at, genuine.added_by(one.at))
        audience = next(named for named in its if one.name(digest, named) == name)
        if not yes.is_given(one.by, one.state, digest, audience):
            text = "the consent is not signed by the key that is asked"
            return Refusal("bad_consent", text, one.at, genuine.added_by(one.at))
    return None


def spends(
    genuine: AuthenticatedToken,
    asked: Sequence[Question],
    its: Names,
    lifted: Sequence[Rule],
) -> tuple[Spend, ...]:
    """What the store remembers: each consent that the step needs, and that lifts a rule, once.

    Of consents that `wrong` has found good. `lifted` are the rules that they lift.
    """
    digest = _digest(asked[0])
    if digest is None:
        return ()
    # By the question: two entries of one link that name one key ask the same.
    rules = {(rule.link, rule.unless) for rule in lifted}
    answered = [one for one in genuine.asks_consents if (one.at, one.by) in rules]
    answered += _needed(genuine, _step(asked[0]))
    names = {name for one in answered for name in one.names(digest, its)}
    return tuple(
        yes.spend(one.by, genuine.root.key_id, one.at)
        for one, name, yes in _came(genuine, digest, its)
        if name in names - asked[0].consented
    )


def lifted_of(
    genuine: AuthenticatedToken,
    asked: Question,
    its: Names,
    step: MarkedStep,
) -> tuple[Rule, ...]:
    """The rules of a step that a consent came for: it is asked about them no more (46.4)."""
    digest = _digest(asked)
    if digest is None:
        return ()
    came = {(one.at, one.by) for one, _, _ in _came(genuine, digest, its)}
    return tuple(rule for rule in step.rules if (rule.link, rule.unless) in came)


def asks_of(
    genuine: AuthenticatedToken,
    asked: Question,
    its: Names,
    refusals: Sequence[Refusal],
) -> tuple[Asks, ...]:
    """What to ask of whom, for each refusal that a consent would lift; () if nobody can say yes."""
    if not its or _digest(asked) is None:
        return ()
    return tuple(
        Asks(
            one.consent_of,
            one.link,
            primitives.state(genuine.tags[one.link]),
            its[0],
            _step(asked),
            asked.statement,
        )
        for one in refusals
        if one.consent_of is not None and one.link is not None
    )


def _needed(genuine: AuthenticatedToken, accesses: Sequence[Access]) -> list[Asking]:
    return [
        one
        for one in genuine.asks_consents
        if one.rule is not None and any(map(one.rule.has, accesses))
    ]


def _step(asked: Question) -> tuple[Access, ...]:
    """All accesses of the step that a question is part of."""
    if asked.together:
        return asked.together
    return () if asked.access is None else (asked.access,)


def _digest(asked: Question) -> bytes | None:
    """The digest of the step, or None of one that cannot be spelled: nobody can consent to it."""
    try:
        return step_digest(_step(asked), asked.statement)
    except (ValueError, RecursionError):
        return None


def _by_name(genuine: AuthenticatedToken) -> Mapping[bytes, Yes]:
    """The consents that came along, by the question that each names."""
    return {yes.question: yes for yes in map(Yes.read, genuine.consents)}


def _came(
    genuine: AuthenticatedToken, digest: bytes, its: Names
) -> Iterator[tuple[Asking, bytes, Yes]]:
    """The consents that came for this step, each once, with what asks for it."""
    by_name = dict(_by_name(genuine))
    for one in genuine.asks_consents:
        for name in one.names(digest, its):
            yes = by_name.pop(name, None)
            if yes is not None:
                yield one, name, yes

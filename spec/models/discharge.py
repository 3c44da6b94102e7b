"""Third-party caveats, and the discharges that answer them (spec, "Third-party caveats", "Discharges").

A verifier recomputes the discharge's tag from the caveat key that it finds in the vid. So a discharge counts when the
attacker has its tag, bound to the last tag of a token that it has too.

The discharger here does more than ours, whose policy sees the need alone: it answers to two names, which stand open in the
ticket, and one of them grants everything. So the cases say that nothing outside the box can be changed either.
"""

from __future__ import annotations

from spec.models.cases import Broken, Case, Reach, Secure
from spec.models.terms import (
    Clause,
    Term,
    at,
    att,
    code,
    derive,
    first_tag,
    learns,
    mac,
    pair,
    pk,
    sealed_box,
    secret_box,
    third_party,
)

BEFORE = mac(first_tag(), "csales")  # the tag before the caveat
KEY = "ck(N)"


def box(need: Term, key: Term = KEY) -> Term:
    """What only the discharger opens: the caveat key, and what to find out before it answers."""
    return sealed_box(pk("kdischarger"), pair(key, need))


def ticket(need: Term, key: Term = KEY, name: Term = "human") -> Term:
    """A cid: the box, and what anyone can read, the name of who is to answer. The discharge has it for its identifier."""
    return pair(name, box(need, key))


def discharge(identifier: Term, key: Term = KEY, until: Term = "cexp") -> Term:
    """The last tag of a discharge: it always has an end."""
    return mac(mac(derive(key), identifier), until)


def bind(tag: Term, discharged: Term) -> Term:
    """A discharge that goes with the token whose last tag is `tag`."""
    return third_party("zero", tag, discharged)


def discharger(identifier: str = "ticket") -> tuple[Clause, ...]:
    """Answers whoever asks: by any name where the need is met, as `bot` always. Its answer names the ticket, or the box."""
    rules = []
    for name, need in (("W", "granted"), ("bot", "V")):
        asked = ticket(need, "C", name)
        rules.append(learns(discharge(asked if identifier == "ticket" else box(need, "C"), "C"), asked))
    return (learns(pk("kdischarger")), *rules)


def token(vid: Term, cid: Term) -> tuple[Clause, ...]:
    """A token with a third-party caveat, in the attacker's hands: its parts and its last tag."""
    return learns(vid), learns(cid), learns(third_party(BEFORE, vid, cid))


VID = secret_box(BEFORE, derive(KEY))
REFUSED, GRANTED = ticket("refused"), ticket("granted")
FINAL = third_party(BEFORE, VID, REFUSED)  # a token that needs an answer which the attacker does not get
ANSWER = discharge(REFUSED)
HELD = (*token(VID, REFUSED), *discharger())
MINE, THEIRS = mac(FINAL, "cmarket"), mac(FINAL, "csales")  # two tokens below it
BELOW = (learns(VID), learns(REFUSED), learns(MINE), learns(THEIRS), *discharger())

# Faults in how a caveat is written.
LATE = mac(BEFORE, REFUSED)  # the tag after the caveat, if it does not cover the vid
OPEN = pair("human", code(pair(KEY, "refused")))
SHARED = sealed_box(pk("kdischarger"), KEY)
TELLING = ticket(pair("refused", BEFORE))


def beside(name: Term, need: Term, sealed: Term) -> Term:
    """A ticket whose need stands beside the box."""
    return pair(name, need, sealed)


ASKED_OPENLY = beside("W", "granted", sealed_box(pk("kdischarger"), "C"))

CASES: tuple[Case, ...] = (
    Secure(
        name="discharge_forged",
        claim="without an answer a holder has no discharge for its token, whatever other tickets it makes and asks about",
        rules=HELD,
        goal=at(att(bind(FINAL, ANSWER))),
        broken=(
            Broken(
                name="discharge_forged_with_a_late_vid",
                fault="the vid is sealed under the tag after the caveat, which travels, and not under the one before it",
                rules=(learns(secret_box(LATE, derive(KEY))), learns(REFUSED), learns(LATE), *discharger()),
                goal=at(att(bind(LATE, ANSWER))),
            ),
            Broken(
                name="discharge_forged_under_another_name",
                fault="the identifier of a discharge is the box and not the whole ticket",
                rules=(*token(VID, REFUSED), *discharger("box")),
                goal=at(att(bind(FINAL, discharge(box("refused"))))),
            ),
        ),
    ),
    Secure(
        name="caveat_key_learned",
        claim="a holder does not learn the caveat key, not even as the macaroon key derived of it",
        rules=HELD,
        goal=at(att(derive(KEY))),
        broken=(
            Broken(
                name="caveat_key_learned_from_the_box",
                fault="the box is an encoding and not sealed",
                rules=(*token(VID, OPEN), *discharger()),
                goal=at(att(derive(KEY))),
            ),
        ),
    ),
    Secure(
        name="need_changed",
        claim="a holder gets no answer, under the key of a caveat, to another need than the one sealed with it",
        rules=HELD,
        goal=at(att(discharge(GRANTED))),
        broken=(
            Broken(
                name="need_changed_beside_the_box",
                fault="the need stands beside the box",
                rules=(
                    *token(VID, beside("human", "refused", SHARED)),
                    learns(discharge(ASKED_OPENLY, "C"), ASKED_OPENLY),
                ),
                goal=at(att(discharge(beside("human", "granted", SHARED)))),
            ),
        ),
    ),
    Secure(
        name="third_party_removed",
        claim="a holder does not get back to the token before a third-party caveat",
        rules=HELD,
        goal=at(att(BEFORE)),
        broken=(
            Broken(
                name="third_party_removed_from_beside",
                fault="the caveat stands beside the chain, which does not cover it",
                rules=(learns(VID), learns(REFUSED), learns(BEFORE), *discharger()),
                goal=at(att(BEFORE)),
            ),
        ),
    ),
    Secure(
        name="discharger_removes_the_caveat",
        claim="a discharger that has the token too does not get back to the token before its caveat",
        rules=(*HELD, learns("kdischarger")),
        goal=at(att(BEFORE)),
        broken=(
            Broken(
                name="discharger_removes_the_caveat_keyed_by_the_tag",
                fault="the caveat key is the tag before the caveat and not fresh",
                rules=(*token(secret_box(BEFORE, derive(BEFORE)), ticket("refused", BEFORE)), learns("kdischarger")),
                goal=at(att(BEFORE)),
            ),
        ),
    ),
    Secure(
        name="discharger_learns_the_token",
        claim="a discharger that is asked, and sees vids besides, does not learn the token",
        rules=(*discharger(), learns("kdischarger"), learns(REFUSED), learns(VID)),
        goal=at(att(FINAL)),
        broken=(
            Broken(
                name="discharger_learns_the_token_in_the_box",
                fault="the tag is in the box, for the discharger to bind to",
                rules=(*discharger(), learns("kdischarger"), learns(TELLING), learns(VID)),
                goal=at(att(third_party(BEFORE, VID, TELLING))),
            ),
        ),
    ),
    Secure(
        name="discharge_rebound",
        claim="a discharge that was presented with one token goes with no other token below the same caveat",
        rules=(*BELOW, learns(bind(THEIRS, ANSWER))),
        goal=at(att(bind(MINE, ANSWER))),
        broken=(
            Broken(
                name="discharge_rebound_unbound",
                fault="a discharge is presented as the discharger wrote it",
                rules=(*BELOW, learns(ANSWER)),
                goal=at(att(bind(MINE, ANSWER))),
            ),
        ),
    ),
    Secure(
        name="discharge_of_the_ancestor",
        claim="a discharge bound to a token is of no use with a token below it",
        rules=(*HELD, learns(MINE), learns(bind(FINAL, ANSWER))),
        goal=at(att(bind(MINE, ANSWER))),
        broken=(
            Broken(
                name="discharge_of_the_ancestor_by_identifier",
                fault="a discharge is bound to the identifier, which a whole tree of tokens shares",
                rules=(*HELD, learns(MINE), learns(bind("id(N)", ANSWER))),
                goal=at(att(bind("id(N)", ANSWER))),
            ),
        ),
    ),
    Secure(
        name="discharge_of_the_descendant",
        claim="a discharge bound to a token is of no use with a wider token above it, even if that one is stolen",
        rules=(*HELD, learns(MINE), learns(bind(MINE, ANSWER))),
        goal=at(att(bind(FINAL, ANSWER))),
        broken=(
            Broken(
                name="discharge_of_the_descendant_by_identifier",
                fault="a discharge is bound to the identifier, which a whole tree of tokens shares",
                rules=(*HELD, learns(MINE), learns(bind("id(N)", ANSWER))),
                goal=at(att(bind("id(N)", ANSWER))),
            ),
        ),
    ),
    Secure(
        name="lease_extended",
        claim="a holder that was granted a discharge until soon makes of it none until later",
        rules=(*HELD, learns(ANSWER)),
        goal=at(att(bind(FINAL, discharge(REFUSED, until="clater")))),
        broken=(
            Broken(
                name="lease_extended_beside_the_chain",
                fault="the end of a discharge stands beside its chain",
                rules=(*HELD, learns(mac(derive(KEY), REFUSED))),
                goal=at(att(bind(FINAL, mac(derive(KEY), REFUSED)))),
            ),
        ),
    ),
    Reach(
        name="third_party_added",
        claim="a holder adds a third-party caveat, with a key that it makes up",
        rules=(learns(BEFORE), *discharger()),
        goal=at(att(third_party(BEFORE, secret_box(BEFORE, derive("kthief")), ticket("granted", "kthief")))),
    ),
    Reach(
        name="discharge_granted",
        claim="where the need is met, a holder gets a discharge and binds it",
        rules=(*discharger(), learns(GRANTED), learns(third_party(BEFORE, VID, GRANTED))),
        goal=at(att(bind(third_party(BEFORE, VID, GRANTED), discharge(GRANTED)))),
    ),
    Reach(
        name="discharge_by_the_dischargers_key",
        claim="whoever has the discharger's secret key answers for it",
        rules=(*HELD, learns("kdischarger")),
        goal=at(att(bind(FINAL, ANSWER))),
    ),
    Reach(
        name="unbound_discharge_below_the_caveat",
        claim="a discharge that is not bound yet serves every token below the caveat: it is as secret as a token",
        rules=(*HELD, learns(MINE), learns(ANSWER)),
        goal=at(att(bind(MINE, ANSWER))),
    ),
    Reach(
        name="lease_shortened",
        claim="whoever has an unbound discharge can make one that says more",
        rules=(*HELD, learns(ANSWER)),
        goal=at(att(bind(FINAL, mac(ANSWER, "csales")))),
    ),
)

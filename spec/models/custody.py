"""Signed hand-overs of bound tokens, and the evidence that they leave (spec, "Holder binding").

`bound(T, P)`: a verifier takes the token with the last tag T to be bound to the public key P. `blamed(P, B)`: whoever is
shown the evidence holds that the key P handed on with the link B.
"""

from __future__ import annotations

from collections.abc import Callable

from spec.models.cases import Broken, Case, Reach, Secure
from spec.models.terms import Clause, Term, at, att, first_tag, h, learns, mac, pair, pk, rule, sign, state

PARENT, CHILD, SIBLING, THIEF = pk("kparent"), pk("kchild"), pk("ksibling"), pk("kthief")
Message = Callable[[Term, Term], Term]


def body(public: Term) -> Term:
    """The JSON of a link that binds a token to a key; with a signature it hands the token on."""
    return pair("ckey", public)


def message(before: Term, link: Term) -> Term:
    """What is signed to hand on: the state of the chain before the link, and the link."""
    return pair("lcustody", before, h(link))


def without_state(before: Term, link: Term) -> Term:
    return pair("lcustody", h(link))


def without_body(before: Term, link: Term) -> Term:
    return pair("lcustody", before)


def signed(tag: Term, secret: Term, public: Term, covers: Message = message) -> Term:
    """The signature of a hand-over to `public`, after the link that ends in `tag`."""
    return sign(secret, covers(state(tag), body(public)))


def handed(tag: Term, secret: Term, public: Term, covers: Message = message) -> Term:
    """The tag after a hand-over: the chain covers link and signature."""
    return mac(tag, pair(body(public), signed(tag, secret, public, covers)))


# --- who did what ----------------------------------------------------------------------------------------------------

HELD = mac(first_tag("one(N)"), body(PARENT))  # tokens that the parent hands on to the child
KEPT = mac(first_tag("two(N)"), body(PARENT))  # tokens that it hands on to nobody
RECEIVED = handed(HELD, "kparent", CHILD)
KEYS = tuple(learns(public) for public in (PARENT, CHILD, SIBLING, pk("kgrandchild")))


def evidence(tag: Term, secret: Term, public: Term, covers: Message = message) -> tuple[Clause, ...]:
    """What anyone may be shown of a hand-over."""
    return learns(state(tag)), learns(body(public)), learns(signed(tag, secret, public, covers))


def history(covers: Message = message) -> tuple[Clause, ...]:
    """All texts have been stolen, and all evidence is public."""
    stolen = [learns(tag) for tag in (HELD, KEPT, handed(HELD, "kparent", CHILD, covers))]
    return (*KEYS, *stolen, *evidence(HELD, "kparent", CHILD, covers))


def verifiers(covers: Message = message, signer: Term = "S", checked: bool = True) -> tuple[Clause, ...]:
    """Which key a token is bound to: read link by link, each hand-over signed by the key before it, narrowing by anyone."""
    after = handed("T", signer, "P", covers) if checked else mac("T", body("P"))
    return (
        rule(f"bound({HELD},{PARENT})"),
        rule(f"bound({KEPT},{PARENT})"),
        rule("bound(mac(T,csales),P)", "bound(T,P)", att("mac(T,csales)")),
        rule(f"bound({after},P)", "bound(T,pk(S))", att(after)),
    )


def judge(covers: Message = message, signer: Term = "S") -> Clause:
    """Who is blamed for a hand-over: the key that signed it."""
    return rule("blamed(pk(S),B)", att("C"), att("B"), att(pk("S")), att(sign(signer, covers("C", "B"))))


def blamed(public: Term) -> str:
    """`public` is blamed for a hand-over to the thief."""
    return f"blamed({public},{body(THIEF)})"


# A child that has been taken over, and a sibling that hands its own token on, as it should.
SIBLINGS_TOKEN = handed(KEPT, "kparent", SIBLING)
TAKEN_OVER = (*history(), learns("kchild"))
SIBLINGS_EVIDENCE = evidence(SIBLINGS_TOKEN, "ksibling", pk("kgrandchild"))

# The parent proves possession for every request that the attacker thinks of.
PROVEN = (learns(sign("kparent", pair("lproof", state(HELD), h("here"), "early", "nonce(N)", "D")), "D"),)

# The tag of a token that nobody has bound so far, after a link that binds it.
BINDING = mac(first_tag(), body("P"))

# What it looks like when the state is the tag itself.
BARE = sign("kparent", message(HELD, body(CHILD)))
BARE_EVIDENCE = (learns(HELD), learns(body(CHILD)), learns(BARE))

# --- cases -----------------------------------------------------------------------------------------------------------

CASES: tuple[Case, ...] = (
    Secure(
        name="thief_hands_on",
        claim="whoever has stolen bound tokens, and no key, hands none of them on to its own key",
        rules=(*history(), *verifiers()),
        goal=f"bound(X,{THIEF})",
        broken=(
            Broken(
                name="thief_hands_on_by_a_key_in_the_link",
                fault="the signature is checked under a key that stands in the link",
                rules=(*history(), *verifiers(signer="J")),
                goal=f"bound(X,{THIEF})",
            ),
            Broken(
                name="thief_hands_on_unsigned",
                fault="a link with a new key needs no signature",
                rules=(*history(), *verifiers(checked=False)),
                goal=f"bound(X,{THIEF})",
            ),
        ),
    ),
    Secure(
        name="hand_over_lifted",
        claim="the signature by which one token was handed on hands on no other token of the same parent",
        rules=(*TAKEN_OVER, *verifiers()),
        goal=at(f"bound(mac({KEPT},X),{CHILD})"),
        broken=(
            Broken(
                name="hand_over_lifted_without_state",
                fault="the signature does not cover the state of the chain before it",
                rules=(*history(without_state), learns("kchild"), *verifiers(without_state)),
                goal=at(f"bound(mac({KEPT},X),{CHILD})"),
            ),
        ),
    ),
    Secure(
        name="parent_framed",
        claim="a child that has been taken over makes no evidence against its parent",
        rules=(*TAKEN_OVER, judge()),
        goal=blamed(PARENT),
        broken=(
            Broken(
                name="parent_framed_without_body",
                fault="the signature does not cover the link",
                rules=(*history(without_body), learns("kchild"), judge(without_body)),
                goal=blamed(PARENT),
            ),
        ),
    ),
    Secure(
        name="sibling_framed",
        claim="a child that has been taken over makes no evidence against another child of its parent",
        rules=(*TAKEN_OVER, *SIBLINGS_EVIDENCE, judge()),
        goal=blamed(SIBLING),
        broken=(
            Broken(
                name="sibling_framed_by_a_name_in_the_link",
                fault="evidence is against whom the link names, whichever key signed it",
                rules=(*TAKEN_OVER, *SIBLINGS_EVIDENCE, judge(signer="J")),
                goal=blamed(SIBLING),
            ),
            Broken(
                name="sibling_framed_by_a_common_key",
                fault="the children of one parent have one key",
                rules=(*TAKEN_OVER, *evidence(SIBLINGS_TOKEN, "kchild", pk("kgrandchild")), judge()),
                goal=blamed(CHILD),
            ),
        ),
    ),
    Secure(
        name="proof_taken_for_a_hand_over",
        claim="a holder that proves possession for any request that it is asked about has not handed on",
        rules=(*history(), *PROVEN, judge()),
        goal=blamed(PARENT),
        broken=(
            Broken(
                name="proof_taken_for_a_hand_over_without_label",
                fault="a proof is the signature of what the request says, and nothing before it",
                rules=(*history(), learns(sign("kparent", "D"), "D"), judge()),
                goal=blamed(PARENT),
            ),
        ),
    ),
    Secure(
        name="evidence_reveals_the_token",
        claim="evidence of a hand-over, without the text, does not give the token that was handed on",
        rules=(*KEYS, *evidence(HELD, "kparent", CHILD)),
        goal=at(att(RECEIVED)),
        broken=(
            Broken(
                name="evidence_reveals_the_token_by_its_state",
                fault="the state is the tag itself",
                rules=(*KEYS, *BARE_EVIDENCE),
                goal=at(att(mac(HELD, pair(body(CHILD), BARE)))),
            ),
        ),
    ),
    Secure(
        name="evidence_reveals_the_parents_token",
        claim="evidence does not help a child to a token that is not below its own",
        rules=(*KEYS, learns("kchild"), learns(RECEIVED), *evidence(HELD, "kparent", CHILD)),
        goal=at(att(mac(HELD, "csales"))),
        broken=(
            Broken(
                name="evidence_reveals_the_parents_token_by_its_state",
                fault="the state is the tag itself",
                rules=(*KEYS, learns("kchild"), learns(mac(HELD, pair(body(CHILD), BARE))), *BARE_EVIDENCE),
                goal=at(att(mac(HELD, "csales"))),
            ),
        ),
    ),
    Reach(
        name="hand_over_accepted",
        claim="the parent's hand-over is taken: the child's key is the next",
        rules=(*history(), *verifiers()),
        goal=at(f"bound({RECEIVED},{CHILD})"),
    ),
    Reach(
        name="hand_over_by_the_child",
        claim="a child that has been taken over can hand on what it has to anyone",
        rules=(*TAKEN_OVER, *verifiers()),
        goal=at(f"bound({handed(RECEIVED, 'kchild', THIEF)},{THIEF})"),
    ),
    Reach(
        name="child_rebuilt_from_evidence",
        claim="whoever has the parent's text and the evidence has the child's text too; it needs the child's key to use it",
        rules=(*KEYS, learns(HELD), *evidence(HELD, "kparent", CHILD)),
        goal=at(att(RECEIVED)),
    ),
    Reach(
        name="ancestor_not_bound",
        claim="binding protects what comes after it: whoever has an ancestor that is not bound binds it to its own key",
        rules=(learns(first_tag()), rule(f"bound({BINDING},P)", att(BINDING))),
        goal=at(f"bound({mac(first_tag(), body(THIEF))},{THIEF})"),
    ),
)

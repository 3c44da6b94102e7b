"""Proofs of possession: what a stolen or overheard one is good for (spec, "Proof of possession").

`served(T, A, I, M, D)`: the server A lets the request with the digest D pass, with the token whose last tag is T and a
proof that says time I and nonce M. Both come in one text; who has the text can take it apart, and so has both. That a server
takes each nonce once is the replay store's part, and not in the model.
"""

from __future__ import annotations

from collections.abc import Callable

from spec.models.cases import Broken, Case, Reach, Secure
from spec.models.terms import Clause, Term, at, att, first_tag, h, learns, mac, pair, pk, rule, sign, state

BOUND = mac(first_tag("one(N)"), pair("ckey", pk("kholder")))  # a token bound to the holder's key
NARROWED = mac(BOUND, "csales")  # the same, narrowed by its holder
ANOTHER = mac(first_tag("two(N)"), pair("ckey", pk("kholder")))  # another token of the same holder
IDENTIFIERS = {BOUND: "id(one(N))", NARROWED: "id(one(N))", ANOTHER: "id(two(N))"}

FIELDS = ("token", "audience", "time", "nonce", "request")
ANY = {"audience": "A", "time": "I", "nonce": "M", "request": "D"}
# What the holder does: it sends each narrowed token to one server, once. That server keeps what it gets.
MADE = {"token": NARROWED, "audience": "here", "time": "early", "nonce": "nonce(N)", "request": "asked"}
SEEN = (learns(NARROWED), learns(ANOTHER), learns(pk("kholder")))

Commitment = Callable[[Term], Term]


def proof(fields: dict[str, Term], key: Term = "kholder", left_out: str = "", commit: Commitment = state) -> Term:
    """The signature over what the fields say, or over all but one of them; the token by what commits to it."""
    covered = {**fields, "token": commit(fields["token"]), "audience": h(fields["audience"])}
    return sign(key, pair("lproof", *(covered[field] for field in FIELDS if field != left_out)))


def served(fields: dict[str, Term]) -> str:
    return f"served({','.join(fields[field] for field in FIELDS)})"


def servers(key: Term = "kholder", left_out: str = "", commit: Commitment = state) -> tuple[Clause, ...]:
    """Servers of every audience take each of the tokens, with a proof by the key that it is bound to, or by another."""
    asked = [{**ANY, "token": token} for token in (BOUND, NARROWED, ANOTHER)]
    return tuple(
        rule(served(fields), *(att(fields[field]) for field in FIELDS), att(proof(fields, key, left_out, commit)))
        for fields in asked
    )


def confined(field: str, value: Term, claim: str) -> Secure:
    """Nothing is served that says otherwise in one field; it is where proofs do not cover that field."""
    goal = at(served({**ANY, "token": NARROWED, field: value}))
    return Secure(
        name=f"proof_for_another_{field}",
        claim=claim,
        rules=(*SEEN, learns(proof(MADE)), *servers()),
        goal=goal,
        broken=(
            Broken(
                name=f"proof_for_another_{field}_left_out",
                fault=f"proofs do not cover the {field}",
                rules=(*SEEN, learns(proof(MADE, left_out=field)), *servers(left_out=field)),
                goal=goal,
            ),
        ),
    )


CASES: tuple[Case, ...] = (
    confined("audience", "there", "a server that gets token and proof is served nothing with them at another server"),
    confined("request", "wanted", "a server that gets token and proof is served no other request with them"),
    confined("nonce", "unused", "a server that gets token and proof is served nothing with them under another nonce"),
    confined("time", "late", "a server that gets token and proof does not make the proof younger"),
    confined("token", ANOTHER, "a server that gets token and proof is served nothing with another token of the same holder"),
    Secure(
        name="proof_by_a_thief",
        claim="whoever has stolen a token, and has proofs for tokens below it, is served nothing with it",
        rules=(*SEEN, learns(BOUND), learns(proof(MADE)), *servers()),
        goal=at(served({**ANY, "token": BOUND})),
        broken=(
            Broken(
                name="proof_by_a_thief_under_a_key_sent_along",
                fault="a proof is checked under a key that is sent with it",
                rules=(*SEEN, learns(BOUND), learns(proof(MADE)), *servers(key="J")),
                goal=at(served({**ANY, "token": BOUND})),
            ),
            Broken(
                name="proof_by_a_thief_for_the_identifier",
                fault="a proof covers the identifier, which a whole tree of tokens shares, and not the last tag",
                rules=(
                    *SEEN,
                    learns(BOUND),
                    learns(proof(MADE, commit=IDENTIFIERS.__getitem__)),
                    *servers(commit=IDENTIFIERS.__getitem__),
                ),
                goal=at(served({**ANY, "token": BOUND})),
            ),
        ),
    ),
    Secure(
        name="proof_reveals_the_token",
        claim="whoever sees a proof, and not the token, does not learn the token",
        rules=(learns(proof(MADE)),),
        goal=at(att(NARROWED)),
        broken=(
            Broken(
                name="proof_reveals_the_token_it_signs",
                fault="a proof is over the last tag itself and not over the state",
                rules=(learns(proof(MADE, commit=str)),),
                goal=at(att(NARROWED)),
            ),
        ),
    ),
    Reach(
        name="proof_taken",
        claim="what the holder proves is served",
        rules=(*SEEN, learns(proof(MADE)), *servers()),
        goal=at(served(MADE)),
    ),
    Reach(
        name="proof_by_whoever_signs",
        claim="whoever has the key, or the use of it, is served with any token bound to it, wherever that came from",
        rules=(*SEEN, learns(BOUND), learns("kholder"), *servers()),
        goal=at(served({**ANY, "token": BOUND})),
    ),
)

"""Terms and clauses, as TPTP writes them, and what an attacker can do with any term (spec, "Chain", "Labels").

A term stands for bytes. `att(X)` says that the attacker can come to know X; `bound(T, P)` that a verifier takes the token
whose last tag is T to be bound to the public key P; the other predicates are explained where they are used. Upper case
begins a variable, and a clause holds for all values of it: `id(N)` is the identifier of every token there is.

Cryptography is perfect here: nothing is known of `mac(k, m)` to whoever does not know k, and no two terms that are spelled
differently are equal, but for the shared secret of X25519. The functions of this file spell terms, and every symbol is
in `FUNCTIONS`, `PUBLIC`, `SECRET` or `NUMBERS`: a word that nobody wrote down there is a slip, and the tests find it.
"""

from __future__ import annotations

Term = str
Clause = str  # literals joined by |, at most one of them without ~

# --- the vocabulary --------------------------------------------------------------------------------------------------

FUNCTIONS = {
    "mac": 2,  # HMAC-SHA-256: key, message
    "h": 1,  # SHA-256
    "pair": 2,  # two messages joined so that they can be told apart
    "senc": 2,  # a secret box: key, content
    "aenc": 2,  # a sealed box: public key, content
    "pk": 1,  # the public key of a secret one
    "sign": 2,  # an Ed25519 signature: secret key, message
    "dh": 2,  # the shared secret of X25519: one secret key, the other
    "id": 1,  # the identifier of token number N: its root record
    "nonce": 1,  # what an honest holder put into its proof number N
    "ck": 1,  # the fresh caveat key of token number N
    "code": 1,  # an encoding that anyone can undo
    "one": 1,  # tokens of one kind, where a model has two kinds
    "two": 1,
}
PREDICATES = {"att": 1, "bound": 2, "blamed": 2, "served": 5}
PUBLIC = {
    "lgen": "the string that macaroons derive keys with",
    "lstate": "label of states",
    "llink": "label of link ids",
    "laudience": "label of audience keys",
    "lcustody": "label of custody signatures",
    "lproof": "label of proofs",
    "lpairwise": "salt of pairwise keys",
    "zero": "32 zero bytes",
    "csales": "a link: sales only",
    "cmarket": "another link: market only",
    "cexp": "a link: until soon",
    "clater": "the same: until later",
    "caud": "a link that `present` wrote, for one server",
    "cother": "the same for another server",
    "ckey": "the part of a link that says: bound to the key that follows",
    "here": "an audience",
    "there": "another one",
    "early": "a time",
    "late": "another one",
    "asked": "the digest of a request",
    "wanted": "the digest of another one",
    "unused": "a nonce that no proof has",
    "granted": "a need that the discharger finds met",
    "refused": "a need that it does not",
    "bot": "a name that a discharger answers to, and grants anything",
    "human": "another name of the same discharger, which grants nothing",
    "kthief": "the attacker's own key",
}
SECRET = {
    "kroot": "the issuer's root key",
    "kspare": "another root key",
    "kholder": "a holder's Ed25519 key",
    "kparent": "that of a holder that hands on",
    "kchild": "that of the one it hands on to",
    "ksibling": "that of another child of the same parent",
    "kgrandchild": "that of the one whom the sibling hands on to",
    "kdischarger": "the discharger's X25519 key",
    "kissuer": "an issuer's X25519 key",
    "krival": "another issuer's",
    "kserver": "a server's X25519 key",
    "kneighbour": "another server's",
    "kcommon": "a symmetric key that should not be",
}
NUMBERS = {"n7": "the number of the token that the goal is about"}

# --- terms -----------------------------------------------------------------------------------------------------------


def mac(key: Term, message: Term) -> Term:
    return f"mac({key},{message})"


def h(message: Term) -> Term:
    return f"h({message})"


def pair(first: Term, *rest: Term) -> Term:
    """Messages joined, nested to the right. Fields have fixed lengths or lengths of their own, so no two joins collide."""
    return f"pair({first},{pair(*rest)})" if rest else first


def secret_box(key: Term, content: Term) -> Term:
    return f"senc({key},{content})"


def sealed_box(public: Term, content: Term) -> Term:
    return f"aenc({public},{content})"


def pk(secret: Term) -> Term:
    return f"pk({secret})"


def sign(secret: Term, message: Term) -> Term:
    return f"sign({secret},{message})"


def code(message: Term) -> Term:
    """An encoding: no commitment."""
    return f"code({message})"


def dh(secret: Term, other: Term) -> Term:
    """The shared secret of two secret keys: the same whichever comes first."""
    return f"dh({secret},{other})"


def derive(key: Term) -> Term:
    """The macaroon key of an application key."""
    return mac("lgen", key)


def first_tag(number: Term = "N", key: Term = "kroot") -> Term:
    """The tag of a token before any link."""
    return mac(derive(key), f"id({number})")


def third_party(tag: Term, vid: Term, cid: Term) -> Term:
    """The tag after a third-party caveat; and, with zero for the tag, how a discharge is bound."""
    return mac(tag, pair(mac(tag, vid), mac(tag, cid)))


def state(tag: Term) -> Term:
    """The public commitment to a tag that signatures cover."""
    return h(pair("lstate", tag))


def link_id(tag: Term) -> Term:
    return h(pair("llink", tag))


def at(term: Term, number: Term = "n7") -> Term:
    """The same of one token: `number` for N."""
    return term.replace("(N)", f"({number})")


# --- clauses ---------------------------------------------------------------------------------------------------------


def rule(head: str, *premises: str) -> Clause:
    """`head` holds if all premises do."""
    return "|".join((*(f"~{premise}" for premise in premises), head))


def att(term: Term) -> str:
    return f"att({term})"


def learns(term: Term, *needs: Term) -> Clause:
    """The attacker learns `term` if it knows what it needs."""
    return rule(att(term), *map(att, needs))


ATTACKER = (
    learns("mac(K,M)", "K", "M"),
    learns("h(M)", "M"),
    learns("pair(A,B)", "A", "B"),
    learns("A", "pair(A,B)"),
    learns("B", "pair(A,B)"),
    learns("senc(K,M)", "K", "M"),
    learns("M", "senc(K,M)", "K"),
    learns("aenc(P,M)", "P", "M"),
    learns("M", "aenc(pk(S),M)", "S"),
    learns("pk(S)", "S"),
    learns("sign(S,M)", "S", "M"),
    learns("M", "sign(S,M)"),
    learns("dh(A,B)", "A", "pk(B)"),
    "dh(A,B)=dh(B,A)",
    learns("code(M)", "M"),
    learns("M", "code(M)"),
    learns("id(N)"),
    learns("nonce(N)"),
    *map(learns, PUBLIC),
)

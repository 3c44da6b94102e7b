"""Composing a link, once: from what is asked for to the JSON that is written (spec, "Links").

    1. the keywords are known, and give caveats       `keywords`
    2. the caveats ask for no more than is held       `widening`
    3. domains that are to stay open are named
    4. the position in the chain: hand-over, depth    `widening`
    5. a nonce, so that two equal hand-overs or allowances are two
    6. the key that the token is bound to from here on

Whoever mints holds everything, and so does whoever writes a link that belongs to no chain: an
operator's entry, a discharge. `spell` gives the bytes.

The rules of this room: the checks are a service to the one who writes, and no part of what makes
narrowing safe (spec, "Widening"). No verifier calls them. Nothing here has a root key but the
issuer. The clock and the randomness come in as `WriterContext`, so that every text can be written
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import time
from typing import Any

import msgspec

from captoken._format.clocks import Clock, read_clock
from captoken._format.encoding import EncodingError, b64encode, encode_json
from captoken._format.entropy import random_bytes
from captoken._format.errors import DelegationError, LimitError
from captoken._format.public_keys import public_bytes, signing_key
from captoken._format.spelling import shown
from captoken._language.caveats import BUILT_IN, COUNTED, MARKING, V1, Vocabulary
from captoken._language.links import (
    BUCKETS,
    COUNTING_LINKS,
    buckets_of,
    check_marked,
    is_counted,
    too_much_counted,
)
from captoken._writing import keywords, widening
from captoken._writing.holding import Holding, everything
from captoken.proof import Signer

# Of the nonce of a link: enough that two equal links do not have the same by chance (17.6).
NONCE_BYTES = 8


class WriterContext(msgspec.Struct, frozen=True):
    """What links are made with: the caveats that are known, a clock, and a source of nonces.

    A token carries its own, for the tokens that are derived from it. The defaults are those of a
    program; others are for tests and for embedders with caveats of their own.
    """

    vocabulary: Vocabulary = V1
    clock: Clock = time
    random: Callable[[int], bytes] = random_bytes

    def now(self) -> int:
        """Seconds since the epoch, floored. Raises what the clock raises.

        Asked each time anew. A writer that needs one time asks once.
        """
        return read_clock(self.clock)


class Terms(msgspec.Struct, frozen=True):
    """What a new link is to say, as it was asked for. Not checked yet: `compose` does that.

    Terms({"tables": ["sales"], "expires_in": 60}, to="clerk")
    """

    caveats: Mapping[str, Any]  # by keyword
    keep: str | Iterable[str] = ()  # the domains that stay open though others are named
    clamp: bool = False  # is what is asked for too much cut to what is held?
    to: str | None = None  # who is handed the token
    key: bytes | str | None = None  # whose key it is bound to


# A link of no chain has no agent, and nobody looks at its lineage.
_OF_NO_CHAIN = everything("")
# The caveats that name a domain, and so close those that are not named.
_OF_DOMAINS = frozenset(kind.key for kind in BUILT_IN if kind.domain != "all")
# What is written to keep a domain: everything in it, which the links before have bounded.
_KEPT_OPEN: Mapping[str, Any] = {"tables": ["*"], "tools": {"*": {}}}


def compose(
    terms: Terms,
    context: WriterContext,
    holding: Holding,
) -> dict[str, Any]:
    """The JSON of a new link. Empty if nothing is asked for.

    Does not look at the signature of the token: that is `check_custody`, and `sign_custody` makes
    it. Raises TypeError or ValueError for what is no keyword or no value of it, WideningError for
    more than is held, DelegationError for a hand-over that verifiers would refuse (23.13).
    """
    # By exact type: a word like "no" counts as true in Python, and would cut in silence.
    if type(terms.clamp) is not bool:
        raise TypeError(f"clamp must be a bool, not {type(terms.clamp).__name__}")

    # Steps 1 to 3, and then 4.
    stated = _restrictions(terms, context, holding)
    wanted = keywords.position_of(terms.caveats)
    position = widening.positioned(
        holding.lineage,
        wanted,
        terms.to,
        terms.clamp,
    )
    stated.update(position)

    # Step 5 (17.6): without a nonce two equal links would be one, with one id and one bucket.
    # `uses`, `budget` and `marks`: each such link has buckets of its own in a ledger (17.6).
    counts = not COUNTED.isdisjoint(stated)
    if counts:
        _check_counting(holding, stated)
    if terms.to is not None or counts:
        stated["n"] = b64encode(context.random(NONCE_BYTES))

    # Step 6 (28.1). A writer makes sure that there is such a key; a reader need not.
    if terms.key is not None:
        stated["key"] = b64encode(signing_key(terms.key))
    return stated


def _check_counting(holding: Holding, stated: Mapping[str, Any]) -> None:
    """Raise LimitError for a link that counts beyond what may count in a token (38.13).

    Readers would find it unreadable, and with it the whole token.
    """
    counting = [link for link in holding.links if is_counted(link)]
    buckets = sum(buckets_of(link.late) for link in counting)
    buckets += len(stated.get("budget", ())) + ("uses" in stated) + len(stated.get("marks", ()))
    if len(counting) >= COUNTING_LINKS or buckets > BUCKETS:
        raise LimitError(too_much_counted())


def compose_request(
    terms: Terms,
    context: WriterContext,
    what: str,
    why: str,
    *,
    may_mark: bool = False,
) -> dict[str, Any]:
    """The JSON of a link that is about requests alone, and belongs to no chain.

    `what` such a link is in, and `why` it has no caveats that speak of the token itself, are for
    the message. `may_mark` is for entries of an overlay, which have marks of their own. Raises
    TypeError or ValueError.
    """
    # Refused by name. To leave one out in silence would be a caveat less.
    for keyword in terms.caveats:
        if keyword in keywords.OF_THE_TOKEN and not (may_mark and keyword in MARKING):
            raise TypeError(f"{keyword} is not a caveat of {what}: {why}")
    stated = _restrictions(terms, context, _OF_NO_CHAIN)
    if any("unless" in rule for rule in stated.get("forbid", ())):
        raise ValueError(f"unless is not for {what}: a consent is to a link of a token")
    if not MARKING.isdisjoint(stated):
        stated["n"] = b64encode(context.random(NONCE_BYTES))
    return stated


def _restrictions(
    terms: Terms,
    context: WriterContext,
    holding: Holding,
) -> dict[str, Any]:
    """Steps 1 to 3: the caveats, by key.

    In this order, so that a misspelled keyword is told before a value, and a bad value before an
    excess. Raises TypeError, ValueError or WideningError.
    """
    keywords.check_known(terms.caveats, context.vocabulary)
    wanted = keywords.caveats_of(
        terms.caveats,
        context.vocabulary,
        context.now,
        holding.at,
    )
    stated = widening.narrowed(holding, wanted, terms.clamp)
    for misspelt in keywords.restricts_nothing(terms.caveats):
        _warn("%s: it restricts nothing", misspelt)
    if "forbid" in stated:
        check_marked(wanted.values(), stated.get("marks", ()))

    # A link that names one domain closes the other (18.3), unless what there was is kept (23.16).
    kept = [terms.keep] if type(terms.keep) is str else terms.keep
    for key in kept:
        if key not in _KEPT_OPEN:
            raise ValueError(f"keep takes 'tables' and 'tools', not {shown(key)}")
        # A link that names no domain closes none: what is written to keep one would.
        if _OF_DOMAINS.isdisjoint(stated):
            raise ValueError(f"keep={key!r} needs tables or tools beside it")
        # What was asked for by name is narrower, and stays.
        stated.setdefault(key, _KEPT_OPEN[key])
    return stated


def _warn(text: str, what: str) -> None:
    """Tell whoever runs the program. Most never need that module."""
    from logging import getLogger

    getLogger("captoken").warning(text, what)


def spell(stated: Mapping[str, Any]) -> bytes:
    """The bytes of a link, in its one spelling (spec, "Canonical JSON").

    Raises ValueError for one that says nothing (23.2), and for what canonical JSON cannot spell.
    Does not look at its length: `check_limits` does, with the whole token.
    """
    if not stated:
        raise ValueError(
            "nothing is restricted: name tables, tools, a time or another caveat"
        )
    try:
        return encode_json(stated)
    except EncodingError as error:
        raise ValueError(f"a link cannot hold this: {error}") from None


def check_custody(
    bound_to: bytes | None,
    terms: Terms,
    signer: Signer | None,
) -> None:
    """Raise unless a key and its signature are there where they are due, and only there (23.19).

    `bound_to` is the key that the token is bound to so far. It compares the signer's public key,
    and signs nothing. Raises DelegationError, or ValueError for a signer that has nothing to sign.
    """
    # Unbound: nobody has to sign, and a signature in the link would make it unreadable (28.4).
    if bound_to is None:
        if signer is not None:
            why = "the token is bound to no key, so there is nothing to sign: leave signer out"
            raise DelegationError(why, "broken_delegation")
        return

    # Bound, and no new key: anyone narrows, and nobody hands on (28.6).
    if terms.key is None:
        if terms.to is not None:
            why = f"the token is bound to a key: hand it on to the public key of {terms.to}"
            raise DelegationError(why, "broken_delegation")
        if signer is not None:
            raise ValueError(
                "signer needs the key that the token is handed to: pass key as well"
            )
        return

    # Bound, and a new key: the old one signs it over (28.3).
    if signer is None:
        why = (
            "the token is bound to a key: only that key can sign the hand-over, so pass it as "
            "signer"
        )
        raise DelegationError(why, "bad_proof")
    if public_bytes(signer.public, "signer") != bound_to:
        raise DelegationError("the signer is not the key that the token is bound to", "bad_proof")

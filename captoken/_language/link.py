"""The values of a chain: a link, as it can be used or why it cannot, and who has held the token
(spec, "Links", "Lineage").

`links.py` makes links of bytes, and judges by them. `lineage.py` follows them from one holder to
the next.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from captoken._language.kinds import BuiltIn, Caveat


class Link(msgspec.Struct, frozen=True, gc=False):
    """What one step of attenuation adds, decoded: its caveats, and what depends on the position.

    A caveat is early if it is of version 1 and looks at the token and the server alone: `aud`,
    `exp`, `fresh`, `nbf`, `task`. A verifier asks all early caveats of a token before any late one
    (spec 24.5). Early ones are cheap and run no code of an embedder's. So an expired token never
    asks a hook. Both tuples are in the order of their keys.

    Decoded is not verified: whoever has the token can write any link.
    """

    early: tuple[BuiltIn, ...] = ()
    late: tuple[Caveat, ...] = ()
    sender: str | None = None  # `from`; with `receiver`, `to`, a delegation
    receiver: str | None = None
    depth: int | None = None
    delegate_only: bool = False
    key: bytes | None = None  # the Ed25519 key that the token is bound to from here on
    signature: bytes | None = None  # custody, by the key that it was bound to before
    domains: frozenset[str] = frozenset()  # data, tool: those that its caveats speak of
    counts: bool = False  # it has a caveat that a ledger counts
    narrows_situation: bool = False  # it has one that narrows the facts for later links
    nonce: str | None = None  # `n`: of a hand-over, or of a link that counts

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """All its caveats, in the order of their keys. Not the order in which they are asked."""
        if not self.early or not self.late:
            return tuple(self.early or self.late)
        return tuple(sorted((*self.early, *self.late), key=_by_key))


class ThirdParty(Link, frozen=True, kw_only=True):
    """A third-party caveat (spec, "Third-party caveats").

    By itself it restricts nothing, but a token is worth nothing without the discharge. Nothing here
    looks whether there is one: the verifier does. `cid` is what the third party is asked, unread.
    """

    cid: bytes


class BadLink(msgspec.Struct, frozen=True, gc=False):
    """A link that prohibits everything: unreadable, or opaque because of a key not known here.

    There is no flag that lets one pass (spec 17.4). A key that is not known may be a restriction.
    To pass over it would widen the token at every verifier that is older than its issuer.

    `sender`, `receiver` and `key` are what it says of the chain, where that can be read. They are
    for those who hold and show the token, and never for a decision.
    """

    counts: ClassVar[bool] = False  # what cannot be read is denied, and takes nothing

    code: str  # unreadable_link or unknown_caveat
    text: str
    sender: str | None = None
    receiver: str | None = None
    key: bytes | None = None


def _by_key(caveat: Caveat) -> str:
    """What caveats are sorted by. Keys are ASCII, so that this is canonical order."""
    return caveat.key


# --- who has held it ----------------------------------------------------------------------------

Basis = Literal["issued", "vouched", "proven"]


class Actor(msgspec.Struct, frozen=True, gc=False):
    """An agent's name and how it is known.

    It is `issued` by the root record, `vouched` for by the holder that handed over, or `proven`:
    the key that the token was bound to signed the hand-over. Only an issued name comes from the
    issuer. Trust a vouched name no more than the holders before it, and never decide on it (spec
    9.6).
    """

    name: str
    basis: Basis


class Lineage(msgspec.Struct, frozen=True, gc=False):
    """The agents that have held the token, in order, and what is asked of later links.

    A value: a step gives a new one. It knows names, and has looked at no signature.

        Lineage(("orchestrator", "sales-agent"), left=0)    # nobody else may be handed it
    """

    holders: tuple[str, ...]  # the root's agent first, the current holder last
    left: int | None = None  # how many more delegations; None is no bound
    must_delegate: bool = False  # some later link must delegate
    key: bytes | None = None  # the Ed25519 key that the token is bound to

    @property
    def holder(self) -> str:
        """The agent that holds the token: the last that it was handed to.

        By the chain's word. Who sends the token is for the server's own authentication.
        """
        return self.holders[-1]

    def chain(self, proven: frozenset[str] = frozenset()) -> tuple[Actor, ...]:
        """The holders with the basis on which their names are known (spec 20.4).

        Only the first was written by the issuer. `proven` are those whose hand-over was signed by
        the key that the token was bound to, as somebody has checked. It is not checked here.

            Lineage(("a", "b")).chain()    # a issued, b vouched
        """
        # A set of names is enough, since no name holds a token twice.
        first, *later = self.holders
        actors = [Actor(first, "issued")]
        for name in later:
            actors.append(Actor(name, "proven" if name in proven else "vouched"))
        return tuple(actors)

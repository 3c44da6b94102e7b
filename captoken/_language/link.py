"""The values of a chain: links, unreadable links, and the agents that have held the token.

`links.py` decodes and checks links (spec, "Links"). `lineage.py` follows them from one holder to
the next (spec, "Lineage").
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from captoken._language.kinds import BuiltIn, Caveat


class Link(msgspec.Struct, frozen=True, gc=False):
    """One decoded link: its caveats, and the facts that depend on its position in the chain.

    A caveat is early if it is of version 1 and looks only at the token and the server: `aud`,
    `exp`, `fresh`, `nbf`, `task`. A verifier asks all early caveats of a token before any late one
    (spec 24.5). Early ones are cheap and run no code of an embedder. So an expired token never
    calls a hook. Both tuples are in the order of their keys.

    Decoded does not mean verified: whoever has the token can add any link.
    """

    early: tuple[BuiltIn, ...] = ()
    late: tuple[Caveat, ...] = ()
    # The `from` and `to` of a delegation.
    sender: str | None = None
    receiver: str | None = None
    depth: int | None = None
    delegate_only: bool = False
    key: bytes | None = None  # the Ed25519 key that the token is bound to from here on
    signature: bytes | None = None  # the custody signature, by the key it was bound to before
    domains: frozenset[str] = frozenset()  # the domains of its caveats: data, tool, or both
    counts: bool = False  # whether a ledger or a person is asked for one of its caveats
    narrows_situation: bool = False  # whether a caveat narrows the facts for later links
    nonce: str | None = None  # the nonce `n` of a hand-over, or of a link that counts

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """All its caveats, in the order of their keys. They are asked in another order."""
        if not self.early or not self.late:
            return tuple(self.early or self.late)
        return tuple(sorted((*self.early, *self.late), key=_by_key))


class ThirdParty(Link, frozen=True, kw_only=True):
    """A third-party caveat (spec, "Third-party caveats").

    It restricts nothing by itself, but the token does not work without its discharge. This class
    does not look for the discharge; the verifier does. `cid` is the message to the third party,
    which is not decoded here.
    """

    cid: bytes


class BadLink(msgspec.Struct, frozen=True, gc=False):
    """A link that prohibits everything: it is unreadable, or has a key that is not known here.

    No option accepts such a link (spec 17.4). An unknown key may be a restriction. If a verifier
    ignored it, the token would allow more at every verifier that is older than its issuer.

    `sender`, `receiver` and `key` are what the link says about the chain, as far as that can be
    read. They are for holding and showing the token, and never for a decision.
    """

    counts: ClassVar[bool] = False  # an unreadable link is denied and takes nothing

    code: str  # `unreadable_link` or `unknown_caveat`
    text: str
    sender: str | None = None
    receiver: str | None = None
    key: bytes | None = None


def _by_key(caveat: Caveat) -> str:
    """The sort key of caveats. Keys are ASCII, so this is the canonical order."""
    return caveat.key


# --- who has held it ----------------------------------------------------------------------------

Basis = Literal["issued", "vouched", "proven"]


class Actor(msgspec.Struct, frozen=True, gc=False):
    """An agent's name, and how it is known.

    The basis is `issued` if the root record has the name, and `vouched` if the holder that handed
    the token over wrote it. It is `proven` if the key that the token was bound to signed the
    hand-over. Only an issued name comes from the issuer. Trust a vouched name no more than the
    holders before it, and never base a decision on it (spec 9.6).
    """

    name: str
    basis: Basis


class Lineage(msgspec.Struct, frozen=True, gc=False):
    """The agents that have held the token, in order, and what later links must satisfy.

    Immutable: each step makes a new one. It knows names, and checks no signature.

        Lineage(("orchestrator", "sales-agent"), left=0)    # nobody else may be handed it
    """

    holders: tuple[str, ...]  # the root's agent first, the current holder last
    left: int | None = None  # the number of delegations left; None means no limit
    must_delegate: bool = False  # whether a later link must delegate
    key: bytes | None = None  # the Ed25519 key that the token is bound to

    @property
    def holder(self) -> str:
        """The agent that holds the token, according to the chain: the last one it was handed to.

        The server must authenticate the sender by itself.
        """
        return self.holders[-1]

    def chain(self, proven: frozenset[str] = frozenset()) -> tuple[Actor, ...]:
        """The holders, each with the basis on which its name is known (spec 20.4).

        The first name is `issued`: the issuer wrote it. `proven` has the names whose hand-over was
        signed by the key that the token was bound to. The caller has checked these signatures; this
        method does not.

            Lineage(("a", "b")).chain()    # a issued, b vouched
        """
        # A set of names is enough, because no name can hold a token twice.
        first, *later = self.holders
        actors = [Actor(first, "issued")]
        for name in later:
            actors.append(Actor(name, "proven" if name in proven else "vouched"))
        return tuple(actors)

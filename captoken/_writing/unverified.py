"""What a token says of itself, before anybody has verified it (spec, "Token").

All of it is under one name, `token.unverified`, so that whoever reads the code sees what it is
worth. Nothing here checks a signature, and nothing here may come to be relied on by a server. What
has been verified is a `Grant`.

*Why it is so set apart:* an attacker writes a token that says what a server hopes to read. Nothing
but the chain, which needs the root key, tells it from a real one.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import field

from captoken._format.encoding import b64encode
from captoken._format.parts import Packet, RawCaveat
from captoken._format.root import RootRecord
from captoken._format.sealed import SealedValue
from captoken._language.capability import Capability
from captoken._language.caveats import Vocabulary
from captoken._language.discharge import Discharge
from captoken._language.lineage import read_along
from captoken._language.link import BadLink, Lineage, Link
from captoken._language.links import read_links
from captoken._writing.holding import Holding


class _Said(NamedTuple):
    """What is made of the links when something asks for it first, and kept."""

    links: tuple[Link | BadLink, ...]
    holding: Holding  # of those that can be read


class KnownLinks(dict[bytes, Link]):
    """Links by their bytes, for one token: so what is derived from it reads its own link alone.

    A copy each, since a parent may have any number of children. What is remembered here was never
    verified, and no verifier sees it.
    """

    def came_before(self, _: int) -> bool:
        """Each link of a token is worth keeping."""
        return True

    keep = dict[bytes, Link].__setitem__


class Unverified(SealedValue, frozen=True, eq=False):
    """What a token says of itself.

    Anybody can write a token that says anything: for showing, never for deciding (8.5). A Token
    makes it of its own links, and whoever has the token may share it. Links are decoded when
    something asks for them, and folded once.

        text = f"{token.unverified.holder}, until {token.unverified.expires_at}"
    """

    _instead = "parse the token again"

    root: RootRecord  # by the token's own account
    _caveats: tuple[RawCaveat, ...]  # the links as they travel
    _vocabulary: Vocabulary  # the caveats that whoever parsed it knows
    _discharges: tuple[Packet, ...] = ()
    known: KnownLinks = field(default_factory=KnownLinks)  # what was read of the token before it
    # Empty, or what `_said` has made. A list, since the value itself is frozen.
    _seen: list[_Said] = field(default_factory=list)

    @property
    def links(self) -> tuple[Link | BadLink, ...]:
        """The links, decoded; a third-party caveat is a link that restricts nothing by itself.

        One that cannot be read is a `BadLink`, with the reason: a holder can keep and show such a
        token, and use it nowhere (8.5).

            bad = [link.code for link in token.unverified.links if isinstance(link, BadLink)]
        """
        return self._said().links

    @property
    def bodies(self) -> tuple[bytes, ...]:
        """The links as they travel, byte by byte. Of a third-party caveat, what it is asked.

        As many as `links`, and in the same order. They hold no key and no signature of the chain.
        """
        return tuple(cid for cid, _ in self._caveats)

    @property
    def lineage(self) -> Lineage:
        """Who holds the token and what its position leaves, as far as the chain can be read.

        A chain that verifiers find broken is not told apart here.
        """
        return self.holding.lineage

    @property
    def holder(self) -> str:
        """The agent that holds the token, as far as the chain says.

        No signature vouches for the name.
        """
        return self.lineage.holder

    @property
    def key(self) -> str | None:
        """The Ed25519 key that the token is bound to, as base64url, or None for a bearer token.

        For whoever has several keys, and has to know which one signs. It is the key of the last
        link that names one.
        """
        key = self.lineage.key
        return b64encode(key) if key is not None else None

    @property
    def discharges(self) -> tuple[Discharge, ...]:
        """The discharges that travel with the token, unbound, in the order of the caveats they
        answer.

        Nobody has checked that they do answer them. Some caveats may have none yet.
        """
        return tuple(map(Discharge, self._discharges))

    @property
    def task(self) -> str:
        """The task that the links leave (16.3). The root's, where no link says one.

        Where the tasks do not lie on one path, `capability.nothing` says so, and this does not.
        """
        return self.holding.capability.task or self.root.task

    @property
    def expires_at(self) -> int | None:
        """When it ends, in seconds since the epoch, or None for never.

        Discharges may end sooner: theirs is not in it.
        """
        end = self.holding.at("exp")
        return None if end is None else int(end.value)

    @property
    def capability(self) -> Capability:
        """The most that the token can do: nothing, if a link of it cannot be read.

        By its own account, without what a verifier's overlay and ledger say.
        """
        permitted = self.holding.capability
        # One bad link prohibits everything, so that what the others permit is of no use.
        if any(isinstance(link, BadLink) for link in self.links):
            return permitted.meet(Capability.nowhere())
        return permitted

    @property
    def holding(self) -> Holding:
        """What the links that can be read say together (23.1).

        For writers, who may narrow what cannot be used. For showing, `capability` is the one.
        """
        return self._said().holding

    def _said(self) -> _Said:
        """What the links say, decoded when something asks for it first.

        Two threads may both do the work. Both make the same, and the first one's is kept.
        """
        if not self._seen:
            links = tuple(read_links(self._caveats, self._vocabulary, self.known))
            # What cannot be read is passed over here alone (23.1): a verifier denies it.
            readable = tuple(link for link in links if isinstance(link, Link))
            # The holder moves on also by a link that cannot be read, if its names can be.
            lineage = read_along(self.root.agent, links)
            holding = Holding(readable, lineage, self.root.task, self.root.audience)
            self._seen.append(_Said(links, holding))
        return self._seen[0]

    def __repr__(self) -> str:
        """The public id and the holder's name, which nobody has checked."""
        return f"<Unverified, token {self.root.token_id}, held by {self.holder}>"

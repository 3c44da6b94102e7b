"""What a token says of itself, before anybody has verified it (spec, "Token")."""

from __future__ import annotations

from msgspec import field

from captoken._format.encoding import b64encode
from captoken._format.packet import Packet, RawCaveat
from captoken._format.root import RootRecord
from captoken._format.sealed import SealedValue
from captoken._language.capability import Capability
from captoken._language.caveats import Vocabulary
from captoken._language.discharge import Discharge
from captoken._language.lineage import Lineage, read_along
from captoken._language.links import BadLink, Link, read_links
from captoken._writing.compose import Holding


class Unverified(SealedValue, frozen=True, eq=False):
    """What a token says of itself.

    Anybody can write a token that says anything: for showing, never for deciding.
    """

    _instead = "parse the token again"

    root: RootRecord
    _caveats: tuple[RawCaveat, ...]
    _vocabulary: Vocabulary
    _discharges: tuple[Packet, ...] = ()
    _seen: list[Holding] = field(default_factory=list)  # see `holding`

    @property
    def links(self) -> tuple[Link | BadLink, ...]:
        """The links, decoded; a third-party caveat is a link that restricts nothing by itself."""
        return tuple(read_links(self._caveats, self._vocabulary))

    @property
    def bodies(self) -> tuple[bytes, ...]:
        """The links as they travel."""
        return tuple(cid for cid, _ in self._caveats)

    @property
    def lineage(self) -> Lineage:
        """Who holds the token and what its position leaves, as far as the chain can be read."""
        return self.holding.lineage

    @property
    def holder(self) -> str:
        """The agent that holds the token, as far as the chain says."""
        return self.lineage.holder

    @property
    def key(self) -> str | None:
        """The Ed25519 key that the token is bound to, as base64url, or None for a bearer token."""
        key = self.lineage.key
        return b64encode(key) if key is not None else None

    @property
    def discharges(self) -> tuple[Discharge, ...]:
        """The discharges that travel with the token."""
        return tuple(map(Discharge, self._discharges))

    @property
    def task(self) -> str:
        """The task that the links leave."""
        return self.holding.capability.task or self.root.task

    @property
    def expires_at(self) -> int | None:
        """When it ends, in seconds since the epoch, or None for never."""
        return self.holding.capability.expires_at

    @property
    def capability(self) -> Capability:
        """The most that the token can do: nothing, if a link of it cannot be read."""
        if any(isinstance(link, BadLink) for link in self.links):
            return self.holding.capability.meet(Capability.nowhere())
        return self.holding.capability

    @property
    def holding(self) -> Holding:
        """What the links that can be read say together.

        For writers, who may narrow what cannot be used.
        """
        if not self._seen:
            links = self.links
            readable = (link for link in links if isinstance(link, Link))
            capability = Capability.of(readable, self.root.task, self.root.audience)
            self._seen.append(Holding(capability, read_along(self.root.agent, links)))
        return self._seen[0]

    def __repr__(self) -> str:
        return f"<Unverified, token {self.root.token_id}, held by {self.holder}>"

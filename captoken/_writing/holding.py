"""What a new link is checked against: what the token can do so far, and who holds it.

All by the token's own account: nobody has verified it here. What all links permit together is
worked out when something asks for it, once. Most writers ask for what every link says already, or
for less of it. That is seen link by link, and sooner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec
from msgspec.structs import force_setattr

from captoken._language.capability import Capability, meet_of
from captoken._language.caveats import BUILT_IN, EARLY, NARROWING
from captoken._language.kinds import BuiltIn, Caveat
from captoken._language.link import Lineage, Link

# By key, the place in a capability where such a caveat is held. An own one has none.
_PLACES = {kind.key: kind.slot() for kind in BUILT_IN}
# `exp`, `nbf`, `fresh`: in their places nothing else is held, not even what the root record says.
_ALONE = EARLY - NARROWING
# The kinds of which one can see without a meet that one permits all that another one does.
_AT_A_GLANCE = frozenset(
    kind.key for kind in BUILT_IN if kind.plainly_covers is not BuiltIn.plainly_covers
)
_OF_DATA = frozenset(kind.key for kind in BUILT_IN if kind.domain == "data")


class Holding(msgspec.Struct, frozen=True, eq=False):
    """What a token can do so far, and who holds it."""

    links: tuple[Link, ...]  # those that can be read
    lineage: Lineage  # what depends on their order
    task: str | None = None  # the root record's, as its audience
    audience: str | None = None
    folded: Capability | None = None  # the capability, once it was worked out
    asked: bool = False  # was something narrowed already?

    @property
    def capability(self) -> Capability:
        """All that the token can do, whatever the order of the links. Worked out once.

        Two threads may both do the work. Both come to the same, and one of them is kept.
        """
        folded = self.folded
        if folded is None:
            folded = Capability.of(self.links, self.task, self.audience)
            force_setattr(self, "folded", folded)
        return folded

    def at(self, key: str) -> BuiltIn | None:
        """What is held in the place of caveats of that key, or None.

        For what stands alone in its place, the rest of the capability is not worked out.
        """
        if self.folded is None and key in _ALONE:
            said = [caveat for link in self.links for caveat in link.early if caveat.key == key]
            return meet_of([caveat.normalized() for caveat in said]) if said else None
        return self.capability.held.get(_PLACES.get(key, key))

    def plainly_covers(self, wanted: Mapping[str, Caveat]) -> bool:
        """Is it seen at a glance that nothing of `wanted` is more than is held?

        It is, if every link by itself permits all of it: then so do all of them together. No says
        nothing, and to ask the capability is always right. From the second time on that is sooner
        than to go through all links again, so the answer is no.
        """
        if self.asked or not wanted.keys() <= _AT_A_GLANCE:
            return False
        force_setattr(self, "asked", True)

        asks_data = not wanted.keys().isdisjoint(_OF_DATA)
        for link in self.links:
            # A link that names tools alone closes tables (spec 18.3).
            if asks_data and link.domains and "data" not in link.domains:
                return False
            for caveat in (*link.early, *link.late):
                asked = wanted.get(caveat.key)
                if asked is not None:
                    if not cast("BuiltIn", caveat).plainly_covers(asked):
                        return False
                # Caveats of data are held together: one that is not asked for may leave nothing.
                elif asks_data and caveat.domain == "data":
                    return False
        return True


# What holds for whoever has no token to narrow.
_EVERYTHING = Capability()


def everything(agent: str) -> Holding:
    """What an issuer holds who starts a chain with `agent`: everything there is.

    Nothing exceeds it, so that the checks of `widening` pass. The name is checked by the caller.
    """
    return Holding((), Lineage((agent,)), folded=_EVERYTHING)

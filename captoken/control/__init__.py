"""Live control: revoke and restrict issued tokens, list the entries, recall what you handed over.

How a restriction travels (spec, "Overlay"):

    Operator        signs a snapshot of all entries that stand, and puts it into a store
    store           lies anywhere, and may be copied by anybody
    Feed            loads the newest snapshot at a verifier, and checks who signed it
    Verifier        asks the overlay of the feed at each decision

A holder has no operator's key. It asks with `recall`, and a `ControlPlane` answers (spec,
"Recall").

The rules of this room:

- Entries prohibit or say nothing. Nobody here can grant.
- Snapshots have numbers that never go back, at the feed and at the operator.
- What does not arrive stops: a verifier denies when its overlay is older than its bound.
"""

from captoken._language.entries import Entry, Selector
from captoken._language.overlay import Overlay
from captoken.control._recall import ControlPlane, recall
from captoken.control.feed import Feed
from captoken.control.operator import Operator

__all__ = ["ControlPlane", "Entry", "Feed", "Operator", "Overlay", "Selector", "recall"]

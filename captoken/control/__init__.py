"""Live control: revoke and restrict issued tokens, list the entries, recall what you handed over.

How a restriction reaches a verifier (spec, "Overlay"):

    Operator        signs a snapshot of all current entries, and puts it into a store
    store           can be anywhere, and may be copied by anybody
    Feed            loads the newest snapshot for a verifier, and checks who signed it
    Verifier        asks the feed's overlay at each decision

A holder has no operator's key. It asks with `recall`, and a `ControlPlane` answers (spec,
"Recall").

The rules of this package:

- Entries only restrict. Nothing here can grant rights.
- Snapshot numbers never go back, neither at the feed nor at the operator.
- If snapshots do not arrive, access stops: a verifier denies when its overlay is too old.
"""

from captoken._language.entries import Entry, Selector
from captoken._language.overlay import Overlay
from captoken.control._recall import ControlPlane, recall
from captoken.control.feed import Feed
from captoken.control.operator import Operator

__all__ = ["ControlPlane", "Entry", "Feed", "Operator", "Overlay", "Selector", "recall"]

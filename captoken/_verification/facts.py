"""What the plan is given and what its first part may give: the server, the moment, the question.

Values alone. A face of the verifier gathers them, and `plan.py` judges by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from captoken._format.clocks import CLOCKS_DIFFER
from captoken._language.access import Access, Caller, Statement, beside
from captoken._language.reasons import Refusal
from captoken._verification.authenticated import Memory
from captoken._verification.decision import Attribution
from captoken.stores.ports import KEEP_MARKS, Once

if TYPE_CHECKING:
    from captoken._language.overlay import Overlay
    from captoken._verification.grant import Grant


# What a link says of the rows of a table: columns to constraints (24.27).
Condition: TypeAlias = Mapping[str, Mapping[str, Any]]


class Broken(msgspec.Struct, frozen=True):
    """A denial by steps 1 to 6.

    `authenticate` makes one in the place of an `AuthenticatedToken`, and `denied_early` a decision
    of it.
    Without `who` nothing of the token may be shown: no signature vouches for it (9.5).
    """

    refusal: Refusal
    step: int
    who: Attribution | None = None  # once the signature held


class Server(msgspec.Struct, frozen=True, eq=False):
    """What a verifier is, whatever it is asked: its names, its bounds, and what it has.

    Made once, with the verifier, from the arguments that are named above each value. It never
    changes, so that two questions at one moment cannot differ by it.
    """

    # Its own names, as `audience` gave them. With none it takes what is addressed to nobody (16.2).
    audiences: frozenset[str] = frozenset()

    # `allow_unaddressed`, or that it has no name: does it take what is addressed to nobody?
    takes_unaddressed: bool = True

    # `leeway`, in seconds: by how much clocks may differ at an expiry (15.7, 15.8).
    leeway: int = 0

    # From `leeway`: by how many seconds a token may be from the future, 60 at least (24.5).
    ahead: int = CLOCKS_DIFFER

    # `max_age`: how many seconds a grant is good for (24.15). None is no bound.
    max_age: int | None = 3600

    # Was an `overlay` given? Then step 7 asks it, and without an answer all is denied (36.7).
    asks_overlay: bool = False

    # `max_staleness`, in seconds: how old an overlay may be (36.7).
    max_staleness: int = 60

    # `allow_stale_overlay`: is a stale overlay, or none, good enough (36.9)?
    allows_stale: bool = False

    # From `ledger`: has it one that other servers may not share (38.6)?
    counts_alone: bool = False

    # `keep_marks`, in seconds: for how long a task's marks outlive its latest expiry (46.5).
    keep_marks: int = KEEP_MARKS


class Facts(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What was fetched before the plan is asked: all of it may differ at the next question.

    A face of the verifier gathers them anew for each question. When effects took long it gathers
    them once more, and the plan is asked again (24.20).
    """

    # The verifier's own, the same at every question.
    server: Server

    # The verifier's own. It makes an answer sooner, and never another (24.22).
    memory: Memory

    # The time of the verifier's clock, in whole seconds since the epoch.
    now: int

    # From the source of overlays, asked for this question: the newest there is, or None.
    overlay: Overlay | None = None

    # From the same: why it cannot be had. Then step 7 denies, whatever `overlay` says.
    overlay_problem: str | None = None

    # 16 random bytes if the token counts (38.8).
    reservation_id: bytes = b""

    # From `context`, asked for this question: attributes of every access, copied (7.13).
    context: Mapping[str, Any] = {}

    # From the same: why it cannot be had. Then step 8 denies, whatever the token says.
    context_problem: str | None = None

    def with_context(self, access: Access | None) -> Access | None:
        """The access as links are asked about it, and as it is recorded (7.13)."""
        return beside(access, self.context) if self.context and access is not None else access


class Question(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What somebody asks about a genuine token: the second half of what the plan is given.

    The faces and the grants make it, one for each question; `judge` and the effects read it. Who
    fills each value is said above it.
    """

    # Stated by whoever calls the verifier or the grant. None asks whether the token stands at all.
    access: Access | None

    # Stated by the server: what it knows of the caller by itself. None compares nothing (24.7).
    caller: Caller | None

    # By the driver: what to hand out if it is allowed. None is a dry run, which grants nothing.
    grant: Grant | None

    # By the driver for a token that was sent, and by the grant after that: when the keys were
    # asked, in seconds since the epoch. `stale_grant` follows from it (24.15).
    verified_at: int

    # By the grant: does it count, where the token does? No for what is under way already (24.19).
    counted: bool = True

    # By the driver: did the token come with it? Then its proof is judged, and used (24.9).
    sent: bool = False

    # By whoever authenticates: is the token used, or only shown? Whoever recalls what it handed
    # on shows it, and then a token for handing on alone will do (37.2).
    used: bool = True

    # By the transport: the digest that a proof is about. None is the access itself (29.6).
    request: bytes | None = None

    # By the grant: the id of the reservation that it goes on with. Then it is no use (38.16).
    goes_on: bytes | None = None

    # By the grant, where it goes on: the marks that the parts before were asked about (46.6).
    marked: frozenset[bytes] = frozenset()

    # By the transport: what stands for a request that may come again, and counts once (38.17).
    once: Once | None = None

    # By the grant: all accesses of the step, where they are several, and what they are part of. A
    # consent is to all of it (47.5).
    together: tuple[Access, ...] = ()
    statement: Statement | None = None

    # By the grant, where it goes on: the questions that the parts before have spent consents for.
    consented: frozenset[bytes] = frozenset()

    # By the grant: was it allowed before, and is under way? Then no later mark closes it (46.7).
    under_way: bool = False

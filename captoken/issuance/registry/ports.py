"""What a registry promises, and what it is given. A registry of your own needs no base class.

`now` is always the caller's clock, in seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from captoken._format.clocks import CLOCKS_DIFFER

# Seconds that the clock of whoever signs an assertion may differ from ours. One may be stamped so
# far ahead, and is good.
LEEWAY = 30

# Seconds that a stream of events may say nothing, before it is taken for broken.
SILENCE = 900

# --- what starts ----------------------------------------------------------------------------------


class Seen(msgspec.Struct, frozen=True):
    """An assertion or a proof that is used, and what it came with.

    The same one with the same companions is the same request again. With other ones it is refused.
    With none, None, it is good once.
    """

    digest: bytes
    companions: bytes | None

    # Seconds since the epoch: then it is refused by its own end, and any leeway.
    until: int

    # When it was made, by its own word. One from before the registry began is refused.
    issued_at: int

    # The same one again is the same task, and not another one (an ID-JAG). It is then joined,
    # whatever new id the entry has.
    same_task: bool = False


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange."""

    now: int
    grant: str

    # The id of the task. `within`: the grants in whose tasks this one may be taken; None, and the
    # task is a new one.
    task: str
    within: tuple[str, ...] | None

    # Is it counted in a ledger? Then it is taken once in a task.
    counted: bool
    subject: str
    actor: str | None

    # Of the subject's login: the provider, its session there, and when the assertion was made.
    provider: str
    session: str | None
    issued_at: int

    # When a new task ends at the latest.
    deadline: int

    # How many tasks of the grant the subject may have: at a time, and begun in 24 hours.
    most_live: int | None
    most_per_day: int | None
    seen: tuple[Seen, ...]


class StartedTask(msgspec.Struct, frozen=True):
    """A task that is out."""

    id: str
    grant: str
    subject: str
    deadline: int


class Named(NamedTuple):
    """How a registry knows the subjects of a provider. Tasks and logouts lie under these names."""

    # Its name in the policy, and its kind and issuer, which no other provider has.
    provider: str
    issuer: str

    # How its subjects are named.
    template: str


# --- what ends ------------------------------------------------------------------------------------


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What ends tasks: a logout, an event, an operator.

    `session`, `subject` and `task` say whose, and at least one does. Each that is named narrows it.
    Unless it is about one task, the login is over, too: what was asserted before starts nothing.
    """

    now: int

    # The provider of the subject, or of the session. It is needed with either.
    provider: str | None = None

    # Tasks of that session, and those that it joined. Nothing is started by the session any more.
    session: str | None = None

    # Tasks of that subject. Assertions that were issued until now start nothing any more, and none
    # that is stamped up to LEEWAY ahead: it could be of before.
    subject: str | None = None

    # Only tasks of that subject that started without a session: it could be any of theirs.
    sessionless: bool = False
    task: str | None = None

    # The event's own time, by the clock of who tells it. That clock may be ahead of ours, and then
    # it says until when assertions are void.
    issued_at: int = 0

    # Tasks of these grants alone; None means those of any grant.
    grants: tuple[str, ...] | None = None

    # The grants that there are, if tasks of any other grant are meant, too: such a one was removed
    # while its tasks were out. Only with `grants`.
    known: tuple[str, ...] | None = None

    # What the overlay is to say of the tasks of a grant, where they are narrowed and not ended. By
    # grant, and only with `grants`. A task in which another of these grants was taken, too, ends.
    instead: Mapping[str, bytes] = {}

    # Of the event, and the stream that told it. The same one twice has one effect.
    jti: str | None = None
    stream: str | None = None


class Unpublished(msgspec.Struct, frozen=True):
    """What the overlay has to say of a task, and says not yet."""

    number: int
    task: StartedTask

    # What it is narrowed to, as in `Ending.instead`; None if the task is over.
    narrowing: bytes | None


# --- the port -------------------------------------------------------------------------------------


class Registry(Protocol):
    """Where tasks are kept. Every method is atomic, and raises StoreError if it cannot tell.

    What it answered stands after a restart. Services that mint for one policy share one registry.
    Calls block, and threads may make them at once.
    """

    def keep_names(self, named: Iterable[Named]) -> None:
        """Keep by which names it knows providers and their subjects, and that for good.

        Raises IssuanceError, `policy`, where it knows them by others, and then wrote nothing. A
        logout would not find the tasks of the former name.
        """
        ...

    def enter(self, entry: Exchange) -> StartedTask:
        """Write what one exchange starts or joins. Raises IssuanceError, and then wrote nothing.

        - `invalid_grant`: an assertion that was used with another one or another key, or alone
          before. One of a login that ended, or of before the registry began. A task to join that is
          not there, not theirs, over, or of another grant.
        - `access_denied`: too many tasks of the grant; one that is counted, and taken already.

        The task has the id and the deadline that count: those of the task that was joined. Raises
        StoreError for the id of a new task that is another's already: draw another one.
        """
        ...

    def is_live(self, task: str, now: int) -> bool:
        """Is the task out, and neither ended nor past its deadline? For its lease."""
        ...

    def end(self, ending: Ending) -> tuple[Unpublished, ...]:
        """End or narrow tasks, and remember that the login is over.

        What came of it, which is due from now on: none for an event that was heard before. Whether
        to believe who tells it is not asked here. Raises ValueError for an ending of nobody.
        """
        ...

    def unpublished(self) -> tuple[Unpublished, ...]:
        """What the overlay does not say yet, from the first on."""
        ...

    def published(self, number: int) -> None:
        """The overlay says so."""
        ...

    def hear(self, stream: str, jti: str, now: int) -> bool:
        """Write that a stream told something that ends nothing. False if it was heard before."""
        ...

    def heard_at(self, stream: str) -> int | None:
        """When the stream told something last, which `end` notes as well. None: never yet."""
        ...


def is_silent(heard_at: int | None, now: int) -> bool:
    """Has a stream said nothing for too long? Also if it was heard at a time that is to come."""
    if heard_at is None:
        return True
    return not -CLOCKS_DIFFER <= now - heard_at <= SILENCE

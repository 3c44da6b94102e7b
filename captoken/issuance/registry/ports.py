"""The promises of a registry, and its arguments. A registry of your own needs no base class.

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

    # Whether a ledger counts its tokens. Then a task can take the grant only once.
    counted: bool
    subject: str
    actor: str | None

    # The subject's login: the provider, the session there, and the time of the assertion.
    provider: str
    session: str | None
    issued_at: int

    # The latest end of a new task.
    deadline: int

    # The most tasks of the grant for one subject: at a time, and started in 24 hours.
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

    # The provider's name in the policy, and its kind and issuer, which identify it.
    provider: str
    issuer: str

    # The pattern of its subjects' names.
    template: str


# --- what ends ------------------------------------------------------------------------------------


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What ends tasks: a logout, an event, an operator.

    `session`, `subject` and `task` say whose, and at least one does. Each that is named narrows it.
    Unless it is about one task, the login is over, too: what was asserted before starts nothing.
    """

    now: int

    # The provider of the subject or session. It is required with either.
    provider: str | None = None

    # Ends the tasks of that session, and those that it joined. The session can start no more.
    session: str | None = None

    # Ends the tasks of that subject. Assertions issued until now can start nothing more. Neither
    # can those dated up to LEEWAY in the future, which could have been issued before.
    subject: str | None = None

    # Ends only the subject's tasks that started without a session, which could belong to any.
    sessionless: bool = False
    task: str | None = None

    # The event's own time, by the sender's clock. If that is ahead of ours, assertions are void
    # until then.
    issued_at: int = 0

    # Ends only the tasks of these grants; None means those of every grant.
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


# --- people who log in ----------------------------------------------------------------------------

# Seconds for which a refresh token that was used gives its successor again, while that is unused.
GRACE = 60


class KeptLogin(msgspec.Struct, frozen=True, kw_only=True):
    """A person who logged in here: in a browser, or by an application that she allowed."""

    id: str

    # The application; empty for the session of a browser.
    client: str = ""

    # As in `Exchange`: who it is, and the login at the provider that it comes of.
    subject: str
    provider: str
    session: str | None
    issued_at: int

    # What the service wants to find again. The registry does not read it.
    content: bytes

    # The digest of the secret that is good now, and a secret of the registry's own, by which a
    # successor is made of it. Neither shows the secret.
    secret: bytes
    salt: bytes = b""

    # The task, once there is one, and how often the secret was changed.
    task: str = ""
    turn: int = 0
    begun: int
    until: int

    def __repr__(self) -> str:
        """Neither claims nor what makes a successor."""
        return f"<KeptLogin of {self.subject}>"


class Turned(NamedTuple):
    """What became of a secret that was shown to have it changed."""

    # None: it was changed before, and what came of it is over.
    login: KeptLogin | None

    # What ended, which is due from now on.
    ended: tuple[Unpublished, ...] = ()


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


class LoginRegistry(Registry, Protocol):
    """A registry that also keeps who logged in. Those of this package do.

    A policy with `[login]` needs one.
    """

    def keep_login(self, login: KeptLogin, now: int) -> bool:
        """Write a new one. False: one with this id is there.

        Of one subject the last 100 of browsers are kept, and the last 100 of applications. Raises
        IssuanceError, `invalid_grant`, for a login at the provider that has ended.
        """
        ...

    def login(self, id: str, now: int) -> KeptLogin | None:
        """The one with this id; None if it is over, or the login at the provider has ended."""
        ...

    def turn_login(self, login: KeptLogin, shown: bytes, next: bytes, now: int) -> Turned:
        """Have a secret changed, once.

        `shown` and `next` are the digests of the secret that was shown and of its successor.
        `login` has the id, and the task and the end that it is to have from now on.

        - What is good now is changed. The first secret is a code, which never comes again.
        - The one before is good again for GRACE seconds, while its successor is unused. Nothing is
          changed then.
        - Any other was changed before. The login is over, and its task ends.

        Raises IssuanceError, `invalid_grant`, for one that is not there, or is over.
        """
        ...

    def drop_login(self, id: str) -> None:
        """Forget it: what it was is over."""
        ...

    def logins_of(self, subject: str, now: int) -> tuple[KeptLogin, ...]:
        """What is there of a subject, by applications, the newest first."""
        ...


def is_silent(heard_at: int | None, now: int) -> bool:
    """Has a stream said nothing for too long? Also if it was heard at a time that is to come."""
    return heard_at is None or not -CLOCKS_DIFFER <= now - heard_at <= SILENCE

"""The rules that every registry keeps, written once. Nothing here changes anything.

`judge` says what becomes of an exchange, by what is known. Whoever asks it holds a lock from before
the question until what it says is written.

Three times say what is not known any more:

- `floor`: assertions that were issued until then are refused. A registry begins with one, since
  what was used before is not known. It rises to the time of a logout that is forgotten.
- `gone`: until when the last of the forgotten assertions was good. One that is not good for longer
  may have been used, and is refused, whatever clock is set back.
- `tasks_gone`: until when the last of the forgotten tasks was kept. By an earlier clock it is not
  known how many tasks were begun within a day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from captoken._format.clocks import CLOCKS_DIFFER
from captoken._format.errors import IssuanceError, StoreError
from captoken._format.spelling import readable_time
from captoken.issuance.registry.ports import LEEWAY, Ending, Exchange, Named, Seen, StartedTask

DAY = 86_400

# Seconds that a logout and the name of an event are remembered: longer than assertions live. Of one
# that lives longer, the floor says that it starts nothing.
REMEMBERED = DAY

# Assertions of one subject that are remembered at a time: so nobody fills it for the others.
PER_SUBJECT = 10_000

# Seconds between two times that it is looked for what may be forgotten.
SWEEP = 10

REFUSED_CLOCK = (
    "this clock is behind the clock by which old tasks were deleted, so the number of tasks of the "
    "last day is not known: set the clocks alike"
)
REFUSED_ID = "the id of a new task is another task's: draw another one"


def first_floor(clock: Callable[[], float]) -> int:
    """The floor of a registry that is new: what was used before is not known.

    An assertion that was used before may have been made by a clock that is so far ahead.
    """
    return int(clock()) + CLOCKS_DIFFER


# --- what is known --------------------------------------------------------------------------------


class State(NamedTuple):
    """The three times, and when it was last looked for what may be forgotten.

    None of the three ever goes back.
    """

    # The floor, as it is described above.
    floor: int
    gone: int = 0
    tasks_gone: int = 0

    # When it was swept, by the clock of whoever looked.
    swept: int = 0


class Used(NamedTuple):
    """An assertion that was used: what it came with, and the task that it started or joined."""

    # A digest of whom and what it came with; None if it came alone.
    companions: bytes | None
    task: str


class KnownTask(NamedTuple):
    """A task as it is kept."""

    task: StartedTask

    # Who acts in it, if that is not the subject.
    actor: str | None

    # It was ended, or somebody has seen it past its deadline.
    is_over: bool


class Logout(NamedTuple):
    """What ended a login that an entry is of."""

    # Does it end a session, whenever the assertion was issued? Else it counts until `at`.
    of_session: bool
    at: int

    # The grant that it is about; empty for all.
    grant: str

    # Tasks that there are may still be joined: the overlay narrows them for their whole life.
    starts_only: bool


class Known(Protocol):
    """What a registry knows, asked only as far as it is needed.

    Whoever answers holds the lock, and answers by what is written under it.
    """

    def used(self, digest: bytes) -> Used | None:
        """The assertion with this digest, if it was used."""
        ...

    def logouts(self, provider: str, session: str | None, subject: str) -> Iterable[Logout]:
        """What ended that session, or that subject's logins: without one, also those without."""
        ...

    def kept(self, task: str) -> KnownTask | None:
        """The task with this id."""
        ...

    def live(self, grant: str, subject: str, now: int) -> int:
        """How many tasks of a grant a subject has that are neither ended nor past the deadline."""
        ...

    def begun(self, grant: str, subject: str, after: int) -> int:
        """How many were begun after that time, whatever became of them."""
        ...

    def is_taken(self, task: str, grant: str) -> bool:
        """Was the grant taken in that task?"""
        ...

    def held(self, subject: str, after: int) -> int:
        """How many assertions of a subject are remembered that are good for longer than that."""
        ...


# --- names ---


def new_names(named: Iterable[Named], kept: Iterable[Named]) -> list[Named]:
    """Those that are to be kept. Raises IssuanceError for one that is another than was kept.

    A name that goes on to another issuer would give one person's tasks to another; an issuer by
    another name would have no tasks, and no logouts.
    """
    known = tuple(kept)
    new: list[Named] = []
    for one in named:
        alike = [it for it in known if one.provider == it.provider or one.issuer == it.issuer]
        for it in alike:
            if one != it:
                raise IssuanceError(_renamed(one, it), "policy")
        if not alike:
            new.append(one)
    return new


def _renamed(one: Named, before: Named) -> str:
    """What to do about a change: the tasks that are out go by the former names."""
    return (
        f"the registry knows provider {one.provider} ({one.issuer}, subject {one.template!r}) "
        f"as {before.provider} ({before.issuer}, subject {before.template!r}): write that again, "
        "or stop the service, end all tasks, and begin with a new registry"
    )


# --- an exchange ----------------------------------------------------------------------------------


class Ruling(NamedTuple):
    """What an exchange comes to."""

    # The one that it starts, or the one that it joins.
    task: StartedTask
    is_new: bool


def ruling_on(
    entry: Exchange, state: State, known: Known, per_subject: int = PER_SUBJECT
) -> Ruling:
    """Judge an exchange that is not yet written. Raises IssuanceError and StoreError.

    Whoever writes it down writes all of it, or nothing: the assertions with their companions and
    the task, the task if it is new, and that the grant was taken in it.
    """
    again = _again(entry, state, known)
    is_new = entry.within is None and again is None
    _check_login(entry, state, known, is_new)

    if is_new:
        task = _started(entry, state, known)
    elif again is not None:
        # It stands for a task of this very grant, and for no other's.
        task = _joined(entry, again, (entry.grant,), known)
    else:
        task = _joined(entry, entry.task, entry.within or (), known)

    if entry.counted and not is_new:
        _check_counted(entry, task, known)
    _check_held(entry, known, per_subject)
    return Ruling(task, is_new)


def _check_counted(entry: Exchange, task: StartedTask, known: Known) -> None:
    """Raise IssuanceError for a second token of what is counted: it would count anew."""
    if known.is_taken(task.id, entry.grant):
        raise IssuanceError(
            f"grant {entry.grant} has a limit, and this task already has its token",
            "access_denied",
            f"{entry.grant} a second time in {task.id}",
        )


def _check_held(entry: Exchange, known: Known, most: int) -> None:
    """Raise IssuanceError where a subject has its part: it is told of that alone."""
    digests = {seen.digest for seen in entry.seen}
    new = sum(known.used(one) is None for one in digests)
    held = known.held(entry.subject, bounds(entry.now).used)
    if new and held + new > most:
        raise IssuanceError(
            f"this service remembers {held} of your assertions, and takes no more now",
            "access_denied",
            f"one subject has {most} at most",
        )


def _again(entry: Exchange, state: State, known: Known) -> str | None:
    """The task that an assertion stands for already, if it says so; else None.

    Raises IssuanceError for an assertion that starts nothing any more.
    """
    again: str | None = None

    # What the same exchange has shown already: one assertion twice is used by itself.
    here: dict[bytes, Used] = {}
    for seen in entry.seen:
        _check_remembered(seen, entry.now, state)

        # By its digest, which is no secret.
        which = seen.digest
        used = here.get(which) or known.used(which)
        if used is not None:
            _check_companions(seen, used)
            if seen.same_task and entry.within is None and which not in here:
                again = used.task
        here[which] = Used(seen.companions, entry.task)
    return again


def _check_remembered(seen: Seen, now: int, state: State) -> None:
    """Raise IssuanceError for an assertion of which it is not known whether it was used."""
    check_floor(seen.issued_at, now, state)
    if seen.until <= state.gone:
        raise spent("it is over, and what it was used for is forgotten")


def _check_companions(seen: Seen, used: Used) -> None:
    """Raise IssuanceError for an assertion that was used, unless it came as it came before."""
    if seen.companions is None:
        raise spent("it was used, and alone it is good once")
    # That includes an assertion that came alone the first time.
    if seen.companions != used.companions:
        raise spent("it was used with another actor, client or key")


def _check_login(entry: Exchange, state: State, known: Known, is_new: bool) -> None:
    """Raise IssuanceError for a login that ended.

    Where that ends tasks of some grants, or narrows them, it is asked for this grant alone.
    """
    check_floor(entry.issued_at, entry.now, state)

    # An empty session is none.
    for logout in known.logouts(entry.provider, entry.session or None, entry.subject):
        if logout.grant not in ("", entry.grant):
            continue
        if logout.starts_only and not is_new:
            continue
        if logout.of_session or entry.issued_at <= logout.at:
            raise spent("the login has ended")


def check_floor(issued_at: int, now: int, state: State) -> None:
    """Raise IssuanceError for what is of before the floor. In a new registry that is everything.

    Then it says until when. It is no secret: `/health` could say as much.
    """
    why = "it is of before this registry began, or before a forgotten logout"
    if issued_at > state.floor:
        return
    if now <= state.floor:
        begins = readable_time(state.floor)
        raise IssuanceError(
            f"this service has just started, and takes logins and assertions made after {begins}: "
            "make a new one then",
            "invalid_grant",
            why,
        )
    raise spent(why)


def spent(why: str) -> IssuanceError:
    """What is raised for an assertion, whatever is wrong with it. Made here, raised by the caller.

    One answer: whoever holds another's assertion learns nothing of what became of it.
    """
    return IssuanceError("the assertion cannot start a task: get a new one", "invalid_grant", why)


def _started(entry: Exchange, state: State, known: Known) -> StartedTask:
    """The new task, which nobody has written yet.

    Raises IssuanceError for one too many, and StoreError for what is not known.
    """
    if known.kept(entry.task) is not None:
        raise StoreError(REFUSED_ID)
    if entry.deadline <= entry.now:
        raise IssuanceError(
            "the task would end before it began",
            "invalid_grant",
            "past its deadline",
        )

    _check_live(entry, known)
    _check_begun(entry, state, known)
    return StartedTask(
        id=entry.task,
        grant=entry.grant,
        subject=entry.subject,
        deadline=entry.deadline,
    )


def _check_live(entry: Exchange, known: Known) -> None:
    """Raise IssuanceError where the subject has as many tasks of the grant as it may have."""
    if entry.most_live is None:
        return
    live = known.live(entry.grant, entry.subject, entry.now)
    if live >= entry.most_live:
        raise _too_many(f"{live} tasks of grant {entry.grant} are live")


def _check_begun(entry: Exchange, state: State, known: Known) -> None:
    """Raise IssuanceError where it began as many in 24 hours as it may.

    Raises StoreError by a clock for which some of them are forgotten.
    """
    if entry.most_per_day is None:
        return
    if entry.now < state.tasks_gone:
        raise StoreError(REFUSED_CLOCK)
    begun = known.begun(entry.grant, entry.subject, entry.now - DAY)
    if begun >= entry.most_per_day:
        raise _too_many(f"{begun} tasks of grant {entry.grant} were begun in 24 hours")


def _too_many(what: str) -> IssuanceError:
    """What is raised for one task too many. The subject may hear how many it has."""
    return IssuanceError(f"{what}, and that is the limit", "access_denied", what)


def _joined(entry: Exchange, task: str, within: tuple[str, ...], known: Known) -> StartedTask:
    """The task to join. Raises IssuanceError, in one wording for all that is not theirs."""
    kept = known.kept(task)
    why = _why_not(entry, within, kept)
    if kept is None or why is not None:
        raise IssuanceError("there is no such task to join", "invalid_grant", why or "")
    return kept.task


def _why_not(
    entry: Exchange,
    within: tuple[str, ...],
    kept: KnownTask | None,
) -> str | None:
    """Why a task is not one to join, for the trail; None if it is."""
    if kept is None:
        return "no task has this id"
    if kept.task.subject != entry.subject:
        return "it is another subject's"
    if kept.actor != entry.actor:
        return "it is another actor's"
    if kept.is_over or kept.task.deadline <= entry.now:
        return "it is over"
    if kept.task.grant not in within:
        return f"grant {entry.grant} is not taken within a task of {kept.task.grant}"
    return None


# --- an end ---------------------------------------------------------------------------------------


class Void(NamedTuple):
    """What an ending is remembered by."""

    provider: str

    # `session`, `subject` or `sessionless`, and which of them.
    of: str
    whose: str

    # As `Logout` has them. Of a session, `at` does not matter.
    grant: str
    starts_only: bool
    at: int


def check_ending(ending: Ending) -> None:
    """Raise ValueError for an ending of nobody, or one that says two things."""
    named = [ending.session, ending.subject, ending.task]
    if named == [None, None, None] or "" in named:
        raise ValueError("an ending must name a session, a subject or a task")
    is_of_subject = ending.subject is not None and ending.session is None
    if ending.sessionless and not is_of_subject:
        raise ValueError("an ending without a session must name a subject")
    if ending.task is None and ending.provider is None:
        raise ValueError("an ending of a session or a subject must name the provider")
    if set(ending.instead) - set(ending.grants or ()):
        raise ValueError("instead must name one of the grants")
    if ending.jti is not None and (ending.stream or ending.provider) is None:
        raise ValueError("an event must name its stream")


def stream_of(ending: Ending) -> str:
    """Who told it: the stream, or the provider itself."""
    return ending.stream or ending.provider or ""


def voided(ending: Ending) -> list[Void]:
    """The logins that are over. None, where it is about one task."""
    provider = ending.provider
    if ending.task is not None or provider is None:
        return []

    if ending.session is not None:
        of = "session"
        whose = ending.session
    else:
        of = "sessionless" if ending.sessionless else "subject"
        whose = ending.subject or ""

    # The later of two clocks, and as far as an assertion of before may be stamped ahead: too late
    # costs a new login, and too early would miss one.
    at = max(ending.now, ending.issued_at) + LEEWAY
    return [
        Void(
            provider=provider,
            of=of,
            whose=whose,
            grant=grant,
            starts_only=grant in ending.instead,
            at=at,
        )
        for grant in (("",) if ending.grants is None else ending.grants)
    ]


def may_be_out(deadline: int, now: int) -> bool:
    """May a server, whose clock is behind, still take a token of a task with this deadline?

    Then the overlay has to say the end of the task, though it is over by the clock here.
    """
    return deadline + CLOCKS_DIFFER > now


def becomes(ending: Ending, taken: Iterable[str]) -> Sequence[bytes | None]:
    """What becomes of a task by an ending: narrowings, or None, its end.

    `taken` are the grants that were taken in it, in the session if the ending names one.
    """
    about = [grant for grant in taken if _is_about(ending, grant)]
    # One that is not narrowed ends it all: a task ends as a whole.
    if any(grant not in ending.instead for grant in about):
        return [None]
    return sorted({ending.instead[grant] for grant in about})


def _is_about(ending: Ending, grant: str) -> bool:
    """Does an ending mean tasks of that grant? Of one that was removed, if it says so."""
    if ending.grants is None or grant in ending.grants:
        return True
    return ending.known is not None and grant not in ending.known


# --- what is forgotten ----------------------------------------------------------------------------

# What is forgotten is forgotten along with something that is written: so a call that raises changes
# nothing at all, in whatever registry.


def is_due(state: State, now: int) -> bool:
    """Is it time to look for what may be forgotten? Also when the clock was set back."""
    return not state.swept <= now < state.swept + SWEEP


class Bounds(NamedTuple):
    """What is forgotten at a time: whatever was kept until then, or before."""

    # The expiry of assertions. They are kept longer than that, because clocks differ.
    used: int

    # The deadline of a task, and the day in which it counts as started. Tasks with something due
    # are kept.
    tasks: int

    # The arrival of logouts and of names of events.
    heard: int


def bounds(now: int) -> Bounds:
    """Until when what is forgotten now was needed, by the clock that is furthest behind."""
    behind = now - CLOCKS_DIFFER
    return Bounds(
        used=behind,
        tasks=behind - DAY,
        heard=behind - REMEMBERED,
    )

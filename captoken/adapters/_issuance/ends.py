"""What ends tasks, told by a provider, written in the registry, and then said by the overlay; and
leases, by which servers ask whether one is alive.

An answer says that the end is written. It is published after that, and until it stands.

The registry is first: an end is written there, and is due from then on. Then it is put into the
overlay, so that servers hear it that know nothing of the issuer, and only then marked. Whatever
fails or restarts in between, it is tried again. An entry that is put there twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import structs

from captoken._format.clocks import CLOCKS_DIFFER, Clock, read_clock
from captoken._format.errors import CaptokenError, IssuanceError, OverlayError, StoreError
from captoken._format.spelling import escape
from captoken._language.discharge import Discharge, Ticket
from captoken.adapters._http.exchange import Receive, Response, Scope
from captoken.adapters._issuance.answers import body, failed, form, json, unavailable
from captoken.adapters._issuance.form import logout_token
from captoken.adapters._issuance.standing import Standing
from captoken.adapters.discharge_service import DischargeService
from captoken.control import Operator
from captoken.discharge import Allow, Discharger, Refuse, Wait
from captoken.issuance.identity import Identity, issuer_of
from captoken.issuance.registry import Registry, Unpublished, is_silent
from captoken.issuance.signals import EVENT, LOGOUT, Effect, effect_of, open_signal
from captoken.keys.secret import DischargerKey

_log = logging.getLogger("captoken.issuance")


class Ends:
    """The routes of signals, and what they come to.

    Without an operator leases alone end, and nothing is narrowed: what should be ends.
    """

    def __init__(
        self,
        standing: Callable[[], Standing],
        registry: Registry,
        operator: Operator | None,
        clock: Clock,
    ) -> None:
        """`standing` gives what stands now."""
        self._standing = standing
        self._registry = registry
        self._clock = clock
        self.publisher = Publisher(registry, operator, clock)

    async def logout(self, scope: Scope, receive: Receive) -> Response:
        """A logout token (OpenID Connect Back-Channel Logout 1.0, 2.5 and 2.8).

        Whatever is wrong with it is `invalid_request`. An outage of ours is told as one.
        """
        try:
            await self._taken(logout_token(await form(scope, receive)), LOGOUT)
        except (IssuanceError, StoreError) as error:
            refused = _called(error, "a logout")
            if refused.code != "temporarily_unavailable":
                refused = IssuanceError(str(refused), "invalid_request")
            return failed(refused)
        return Response.of(200, b"application/json", b"")

    async def signal(self, scope: Scope, receive: Receive) -> Response:
        """A security event token (RFC 8935, 2)."""
        try:
            data = await body(
                scope,
                receive,
                b"application/secevent+jwt",
                "the body is application/secevent+jwt",
            )
            # Any bytes become some text: what is no token is refused with all others.
            await self._taken(data.decode("latin-1"), EVENT)
        except (IssuanceError, StoreError) as error:
            refused = _called(error, "an event")
            status = 503 if refused.code == "temporarily_unavailable" else 400
            said = {
                "err": refused.code,
                "description": str(refused)[:500],
            }
            return json(status, said)
        return Response.of(202, b"application/json", b"")

    # --- streams that say nothing

    async def silent(self) -> list[str]:
        """The streams that told nothing for too long. Raises StoreError."""
        return await asyncio.to_thread(self._silent, self._standing().streams)

    async def check_heard(self, standing: Standing, *who: Identity | None) -> None:
        """Raise IssuanceError if a stream about one of these is silent, and is not to be so.

        What ended since is not known. Raises StoreError.
        """
        issuers = {one.issuer for one in who if one is not None}
        providers = standing.policy.providers
        streams = [
            name
            for name, one in standing.streams.items()
            if one.fail_closed and issuer_of(providers[one.about]) in issuers
        ]
        # The registry is not asked where no stream matters.
        if not streams:
            return
        silent = await asyncio.to_thread(self._silent, streams)
        if silent:
            raise IssuanceError(
                "this service cannot find out now whether the login has ended: try again later",
                "temporarily_unavailable",
                f"silent: {', '.join(silent)}",
            )

    def _silent(self, streams: Iterable[str]) -> list[str]:
        """Which of these told nothing for too long. Blocks. Raises StoreError."""
        now = read_clock(self._clock)
        return [name for name in streams if is_silent(self._registry.heard_at(name), now)]

    # --- what a signal comes to

    async def _taken(self, text: str, kind: str) -> None:
        """Verify a signal and write what it comes to. Raises IssuanceError, StoreError."""
        now = read_clock(self._clock)
        standing = self._standing()
        await standing.name_in(self._registry)
        policy = standing.policy
        keys = standing.keys
        opened = open_signal(text, policy, kind)
        await keys.want(opened.name, opened.kid)
        effect = effect_of(opened, policy, keys, now)

        ended = await asyncio.to_thread(self._written, effect, now)
        level = logging.ERROR if effect.alarm else logging.INFO
        _log.log(
            level,
            "provider %s: %s: %d tasks",
            effect.stream,
            escape(effect.note),
            ended,
        )

        # Written first. Also where it was heard before: the one who heard it may have died then.
        self.publisher.wake()

    def _written(self, effect: Effect, now: int) -> int:
        """Write it, and count what came of it. Blocks. Raises StoreError."""
        endings = effect.endings
        # Nobody would say the narrowing: what should be narrowed ends, and its lease with it.
        if self.publisher.operator is None:
            endings = tuple(structs.replace(ending, instead={}) for ending in endings)
        ended = sum(len(self._registry.end(ending)) for ending in endings)

        # That the stream lives, if no end has noted it.
        self._registry.hear(effect.stream, effect.jti, now)
        return ended


def _called(error: IssuanceError | StoreError, what: str) -> IssuanceError:
    """The error as it is answered; and it is logged: whoever has logged out goes on for now."""
    if isinstance(error, StoreError):
        _log.error("%s has no effect yet: %s", what, error)
        return unavailable(error)
    _log.warning("%s is refused: %s %s", what, escape(str(error)), escape(error.why))
    return error


# --- what is published ---------------------------------------------------------------------------

# Seconds until the next look, where nobody wakes it: another process may have written an end, and
# have died before it published it. After a failure it is sooner.
EVERY = 10.0
AGAIN = 1.0

# Seconds that the last try may take, when the service ends.
PATIENCE = 5.0


class Publisher:
    """Publishes what is due, in a task of its own. For one event loop at a time: `close` it.

    Without an operator nothing is published. What nobody has to hear any more is marked all the
    same, so that the registry forgets it.
    """

    def __init__(
        self,
        registry: Registry,
        operator: Operator | None,
        clock: Clock,
    ) -> None:
        """Begins nothing yet: `wake` does."""
        self._registry = registry

        # May be another one from then on; each change is said by one.
        self.operator = operator
        self._clock = clock

        # The task and what wakes it are of the loop that runs now.
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._closing = False

    def wake(self) -> None:
        """Publish now. Begins the task, if there is none: not every server has a lifespan."""
        if self._task is None or self._task.done():
            self._woken = asyncio.Event()  # the old one may be another loop's
            self._closing = False
            self._task = asyncio.create_task(
                self._run(),
                name="publisher of ends",
            )
        self._woken.set()

    async def close(self) -> None:
        """Try once more, and end the task. What is still due then stays due in the registry."""
        if self._task is None or self._task.done():
            return
        self._closing = True
        self._woken.set()

        # A store that hangs must not keep the server from ending: what is due stays due.
        await asyncio.wait((self._task,), timeout=PATIENCE)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Look for tasks to end, again and again: when it is woken, and after a while."""
        while not self._closing:
            # First, so that what is written while it looks wakes it again.
            self._woken.clear()
            pause = EVERY if await asyncio.to_thread(self.publish) else AGAIN
            try:
                await asyncio.wait_for(self._woken.wait(), pause)
            except TimeoutError:
                continue

        # What was written while the last look was under way.
        await asyncio.to_thread(self.publish)

    def publish(self) -> bool:
        """Publish what is due, in its order. Does all of it stand? Blocks, and never raises."""
        stands = True
        try:
            due = self._registry.unpublished()
        except Exception as error:
            _log.error("what has ended cannot be read, and so not be published: %s", error)
            return False

        for change in due:
            try:
                if self._is_heard(change):
                    self._registry.published(change.number)
            # Whatever a store raises: the next end must not wait for it.
            except Exception as error:
                task = change.task.id
                _log.error("the end of task %s is not published yet: %s", task, error)
                stands = False
        return stands

    def _is_heard(self, change: Unpublished) -> bool:
        """Put it into the overlay, until no server takes the task's tokens any more.

        False: nobody puts it there. Raises what the operator raises.
        """
        until = change.task.deadline + CLOCKS_DIFFER
        if until <= read_clock(self._clock):
            return True
        operator = self.operator
        if operator is None:
            return False

        task = change.task.id
        if change.narrowing is None:
            _end(operator, task, until)
        else:
            _narrow(operator, task, until, change.narrowing)
        return True


def _end(operator: Operator, task: str, until: int) -> None:
    """Revoke the task's tokens in the overlay. Raises what the operator raises."""
    operator.revoke(
        task=task,
        until=until,
        why="the login that started it has ended",
    )


def _narrow(operator: Operator, task: str, until: int, narrowing: bytes) -> None:
    """By the keywords of the grant. A task that no overlay can narrow so ends.

    Raises StoreError and OverlayError: then it is tried again.
    """
    keywords: dict[str, Any] = msgspec.json.decode(narrowing)
    try:
        operator.narrow(
            task=task,
            until=until,
            why="an event about who started it",
            **keywords,
        )
    # It may be said later.
    except (StoreError, OverlayError):
        raise
    # It can never be said: a keyword that is no request's, for one.
    except (CaptokenError, TypeError, ValueError) as error:
        _log.error("task %s ends, since it cannot be narrowed: %s", task, error)
        _end(operator, task, until)


# --- leases ---------------------------------------------------------------------------------------

# Seconds that a lease lives of a task whose grant the policy has no more.
_LIFE = 60


class Leases(DischargeService):
    """The discharger of leases, over HTTP. The registry is asked in threads, since it blocks."""

    def __init__(
        self,
        key: DischargerKey,
        standing: Callable[[], Standing],
        registry: Registry,
        clock: Clock,
    ) -> None:
        """`standing` gives what stands now. Its origin stays the first one's."""
        self._standing = standing
        self._registry = registry
        self._now = clock
        self.discharger = Discharger(key, self._alive, clock=clock)
        super().__init__(
            self.discharger,
            origin=standing().policy.origin,
            clock=clock,
        )

    async def _said(self, ticket: Ticket) -> Discharge | Refuse | Wait:
        return await asyncio.to_thread(self.discharger.answer, ticket)

    def _alive(self, need: Any) -> Allow | Refuse:
        """Is the task of a lease out? Its discharge lives as long as the lease.

        What cannot be told is refused: a server does not believe the token for now.
        """
        task = need.get("alive")
        if need.keys() != {"alive"} or not isinstance(task, str):
            return Refuse("no task of ours")

        try:
            alive = self._registry.is_live(task, read_clock(self._now))
        except StoreError as error:
            _log.error("whether a task is alive cannot be told: %s", error)
            return Refuse("try again later")
        return Allow(expires_in=self._life()) if alive else Refuse("the task is over")

    def _life(self) -> int:
        """How long a lease lives, in seconds: the shortest of any grant."""
        grants = self._standing().policy.grants.values()
        return min((grant.lease for grant in grants if grant.lease), default=_LIFE)

"""Discharges: a policy decides on them, a discharger makes them; and leases.

Spec, "Third-party caveats", "Discharges" and "Leases". How a question is answered:

    ticket        the token's holder brings it; anyone may have copied it
    Discharger    opens its box with the discharger's key
    policy        gets what is needed, and answers Allow, Refuse or Wait
    Discharge     goes back to the holder, which binds it to the text that it presents

The rules of this file:

- A discharger keeps no state. The ticket has everything that it must know.
- A ticket does not prove who brings it, and `need` is the word of whoever added the caveat (spec
  32.5).
- Each discharge expires. One without an expiry would remove the caveat for good (spec 33.6).
- No frame in a traceback holds a caveat key, because whoever has it can answer for anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Event
from time import time
from typing import Any, ClassVar, TypeAlias, Unpack

import msgspec

from captoken._format import chain, names, primitives
from captoken._format.clocks import Clock, read_clock
from captoken._format.encoding import LIMITS, b64decode, decode_json
from captoken._format.errors import DischargeError, LimitError
from captoken._format.parts import Packet
from captoken._format.sealed import Sealed, SealedValue, no_arguments_in_traceback
from captoken._format.text import UNBOUND, text_of
from captoken._language.caveats import V1, Vocabulary
from captoken._language.discharge import CAVEAT_KEY_BYTES
from captoken._language.discharge import Discharge as Discharge
from captoken._language.discharge import Ticket as Ticket
from captoken._writing.compose import Terms, WriterContext, compose_request, spell
from captoken._writing.keywords import LinkCaveats
from captoken.keys.secret import DischargerKey

# --- what a policy says ---------------------------------------------------------------------------


class Allow(Sealed):
    """A policy's yes: for so long, under these caveats.

        Allow(expires_in=60)
        Allow(expires_in=60, operations=["select"])

    The keywords are those of `attenuate`, and one of them is an expiry. They are checked when the
    discharge is made, and not before. It cannot say anything of the token (spec 33.6).

    Made by a policy, and used once or often: it is immutable. Written out by hand, since a struct
    has no constructor that takes any keyword.
    """

    __slots__ = ("caveats",)
    caveats: Mapping[str, Any]

    def __init__(self, **caveats: Unpack[LinkCaveats]) -> None:
        self._fill(caveats=dict(caveats))

    def __repr__(self) -> str:
        return f"Allow({', '.join(self.caveats)})"


class Refuse(msgspec.Struct, frozen=True):
    """A policy's no. `reason` may be told to whoever asked: it is public."""

    reason: str = "refused"


class Wait(msgspec.Struct, frozen=True):
    """A policy's not yet: it discharges nothing.

    `person` says that somebody has to decide; otherwise it is to be asked again later. Nothing
    here remembers that it was asked.
    """

    person: bool = False


Answer: TypeAlias = Allow | Refuse | Wait

Policy: TypeAlias = Callable[[Mapping[str, Any]], Answer]


# --- who discharges -------------------------------------------------------------------------------


class _Opened(SealedValue, frozen=True, eq=False):
    """A ticket whose box was opened. Holds the caveat key, so that no frame does.

    Never handed out: a caller gets `need` alone.
    """

    cid: bytes
    key: bytes
    need: dict[str, Any]


class Discharger(SealedValue, frozen=True, eq=False):
    """Answers tickets. Stateless: everything it has to know is in the ticket.

        def policy(need):
            return Allow(expires_in=60) if need == {"approve": "payment"} else Refuse()

        discharger = Discharger(key, policy)
        discharge = discharger.discharge(ticket)

    `policy` is called with what is needed, as it was sealed by whoever added the caveat, and
    nothing else:

    - What it raises passes through, and discharges nothing.
    - What is none of Allow, Refuse and Wait raises TypeError, and discharges nothing.
    - It is called in the thread of whoever asks, and may be called for one ticket any number of
      times.

    Whoever can narrow a token can ask: a ticket says nothing of who did. So a policy goes by what
    it knows itself, of the person or the payment that the need names.

    Made from the key by whoever runs it. Threads share one if the policy bears it. It is not
    pickled: a process makes its own. An answer costs one X25519 box.
    """

    _instead: ClassVar[str] = "make one from the key"

    _key: DischargerKey
    _policy: Policy
    vocabulary: Vocabulary = V1
    clock: Clock = time

    def __post_init__(self) -> None:
        key: Any = self._key
        if not isinstance(key, DischargerKey):
            raise TypeError(f"key must be a DischargerKey, not {type(key).__name__}")
        if not callable(self._policy):
            raise TypeError(f"a policy is a callable, not {type(self._policy).__name__}")

    @property
    def public(self) -> str:
        """The key to name in `token.require`."""
        return self._key.public

    def need(self, ticket: Ticket | str) -> Mapping[str, Any]:
        """What a ticket asks, for a person to see.

        It is the word of whoever asked: text of a stranger, to be escaped where it is shown. Does
        not ask the policy. Raises DischargeError for one that is not for this key.
        """
        return self._open(ticket).need

    def answer(self, ticket: Ticket | str) -> Discharge | Refuse | Wait:
        """What the policy says to a ticket: a discharge, a refusal, or not yet.

        Does not check who brings the ticket. Raises DischargeError, code `bad_ticket`, for one that
        is not for this key, and what the policy raises.
        """
        opened = self._open(ticket)
        said: Any = self._policy(opened.need)

        # Any other value is no answer: a policy that returns True has not said for how long.
        if isinstance(said, Allow):
            return self._discharge(opened, said)
        if isinstance(said, (Refuse, Wait)):
            return said
        raise TypeError(f"a policy returns Allow, Refuse or Wait, not {type(said).__name__}")

    def discharge(self, ticket: Ticket | str) -> Discharge:
        """The discharge, if the policy allows it now.

        Raises DischargeError, code `refused` or `undecided`.
        """
        answer = self.answer(ticket)
        if isinstance(answer, Refuse):
            raise DischargeError(answer.reason, "refused")
        if isinstance(answer, Wait):
            raise DischargeError("nobody has decided yet: ask again later", "undecided")
        return answer

    def approve(self, ticket: Ticket | str, allowed: Allow) -> Discharge:
        """The discharge that somebody decided to give, whatever the policy says.

        The policy is not asked. For a person's decision, made after `answer` said Wait: whoever
        calls it has to know who decided.

        Raises DischargeError for a bad ticket, TypeError or ValueError for caveats that no
        discharge has.
        """
        given: Any = allowed
        if not isinstance(given, Allow):
            raise TypeError(f"Allow(expires_in=…), not {type(given).__name__}")
        return self._discharge(self._open(ticket), given)

    @no_arguments_in_traceback
    def _open(self, ticket: Ticket | str) -> _Opened:
        """What is sealed in a ticket for this key.

        Raises DischargeError, code `bad_ticket` (spec 33.9). No frame that raises holds what was
        sealed.
        """
        # A Ticket is read again as well: anybody can make one that never went through `parse`.
        read = Ticket.parse(ticket.cid if isinstance(ticket, Ticket) else ticket)
        if read.discharger != self.public:
            raise DischargeError("the ticket is for another discharger", "bad_ticket")

        # One answer for a box that does not open and for one that holds something else: which of
        # the two it was is of use only to whoever tries boxes.
        box = b64decode(decode_json(read.cid)["box"])
        sealed = primitives.unseal(self._key.reveal(), box)
        opened = _opened(read.cid, sealed) if sealed is not None else None
        if opened is None:
            raise DischargeError("what is sealed in the ticket cannot be read", "bad_ticket")
        return opened

    def _discharge(self, opened: _Opened, allowed: Allow) -> Discharge:
        """The discharge of an opened ticket, under these caveats.

        Raises TypeError or ValueError for caveats that no discharge has, LimitError.
        """
        terms = Terms(allowed.caveats)
        context = WriterContext(self.vocabulary, self.clock)
        why_not = "it would say something of the token"
        stated = compose_request(terms, context, "a discharge", why_not)
        if "exp" not in stated:
            raise ValueError("a discharge expires: give expires_in or expires_at")

        body = spell(stated)

        # A chain under the caveat key, with the cid as its identifier and one link (spec 33.1).
        first = chain.mint_tag(chain.derive(opened.key), opened.cid)
        signature = chain.link_tag(first, body)
        links = ((body, b""),)
        made = Packet(opened.cid, links, signature)

        # What readers refuse is not written (spec 3.2). A link of so many bytes is too long anyway.
        is_long = len(body) > LIMITS.token_chars or len(text_of(made, UNBOUND)) > LIMITS.token_chars
        if is_long:
            raise LimitError(
                f"the discharge would be more than {LIMITS.token_chars} characters: say less in it"
            )
        return Discharge(made)

    def __repr__(self) -> str:
        return f"<Discharger {self.public}>"


def _opened(cid: bytes, sealed: bytes) -> _Opened | None:
    """What was sealed, or None for what is not as a writer of tickets seals it (spec 32.3).

    Never raises: anybody can seal anything for a public key.
    """
    try:
        stated = decode_json(sealed)
        key = b64decode(names.exact_str(stated.get("ck"), "ck"))
    except (TypeError, ValueError):  # EncodingError is a ValueError
        return None
    if stated.keys() != {"ck", "need", "v"} or len(key) != CAVEAT_KEY_BYTES:
        return None

    # True is 1 to Python, and no version.
    of_version_1 = type(stated["v"]) is int and stated["v"] == 1
    if not of_version_1 or type(stated["need"]) is not dict:
        return None
    return _Opened(cid, key, stated["need"])


# --- leases ---------------------------------------------------------------------------------------

_LONGEST = 3600  # seconds between two times that a lease asks


class Lease:
    """Keeps one ticket discharged: asks anew when half of a discharge's life is over.

        lease = Lease(ticket, discharger.discharge, hand_to_the_agent)
        Thread(target=lease.run, args=(stop,)).start()

    - `ask` gets the discharge, from a Discharger or over HTTP.
    - `deliver` gets each new one to whoever holds the token.
    - A DischargeError from either ends the lease. Anything else is taken for a passing fault, and
      tried again for as long as the last discharge lives.
    - `retry` is how many seconds pass between tries after a fault.

    Ask where the holder cannot: it has the ticket too, and a discharger that answers everybody lets
    it renew for itself. So the policy has to know what still runs, or who asks (spec 34.4).

    To stop renewing does not stop what was given: that works until its end, and the verifier's
    leeway longer (spec 34.3). Made by a supervisor, for one thread: two that renew one lease at
    once ask twice.
    """

    def __init__(
        self,
        ticket: Ticket,
        ask: Callable[[Ticket], Discharge],
        deliver: Callable[[Discharge], None],
        *,
        clock: Clock = time,
        retry: int = 1,  # seconds between tries after a fault
    ) -> None:
        self._ticket = ticket
        self._ask = ask
        self._deliver = deliver
        self._clock = clock
        self._retry = retry

        # Times by that clock, in seconds since the epoch; 0 is at once.
        self._due = 0  # when to ask next
        self._ends = 0  # when the last discharge ends
        self.ended: Exception | None = None  # why the lease is over

    def renew(self) -> float:
        """Ask if it is time to; seconds until the next time.

        For a loop of your own: `run` is one for a thread. Neither waits nor sleeps. Raises
        DischargeError once the lease is over, and again at each later call. What ended it is in
        `ended`.
        """
        if self.ended is not None:
            raise DischargeError(f"the lease is over: {self.ended}", "refused")

        now = read_clock(self._clock)
        if now < self._due:
            return self._due - now

        # A no ends the lease. A fault does so only when nothing lives any more that could run out.
        try:
            discharge = self._asked()
            self._deliver(discharge)
        except DischargeError as error:
            self.ended = error
            raise
        except Exception as error:
            if now >= self._ends:
                self.ended = error
                raise DischargeError(
                    f"the lease ran out: {type(error).__name__}", "refused"
                ) from error
            return self._retry

        # Half of what is left, so that there is time for tries; never less than a second.
        self._ends = discharge.expires_at or now
        half = (self._ends - now) // 2
        self._due = now + min(max(half, 1), _LONGEST)
        return self._due - now

    def _asked(self) -> Discharge:
        """A discharge of the ticket.

        Raises what `ask` raises, and DischargeError for anything else that it returns: that would
        reach the holder as if the ticket were answered. Whether it is genuine only verifiers can
        tell (spec 33.10).
        """
        discharge: Any = self._ask(self._ticket)
        if not isinstance(discharge, Discharge):
            raise DischargeError(
                f"asked for a discharge, and got a {type(discharge).__name__}",
                "bad_discharge",
            )
        if discharge.cid != self._ticket.cid:
            raise DischargeError(
                "asked for a discharge, and got that of another ticket",
                "bad_discharge",
            )
        return discharge

    def run(self, stop: Event) -> None:
        """Renew until `stop` is set or the lease is over.

        For a thread of an orchestrator or supervisor. Returns in both cases: `ended` says which.
        Raises what the clock raises.
        """
        try:
            while not stop.wait(self.renew()):
                pass
        except DischargeError:
            return

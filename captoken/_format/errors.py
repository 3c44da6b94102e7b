"""The errors, drawn once; everything but a programming error is one of these.

    CaptokenError
    ├── TokenFormatError    text or bytes that are no token of ours
    │                           malformed, unsupported_version
    ├── WideningError       a narrowing that asks for more than is held
    │                           widening, nothing_left
    ├── DelegationError     a hand-over that the chain does not permit
    │                           too_deep, broken_delegation, bad_proof
    ├── DischargeError      no discharge, or one that answers nothing
    │                           bad_ticket, refused, undecided, bad_discharge
    ├── ConsentError        what a person is asked cannot be read, or is not for this key
    │                           bad_request
    ├── AuditError          a trail that was changed, cut or rolled back
    ├── RecallError         a holder asks for the revocation of what it did not hand on
    ├── OverlayError        a snapshot that nobody trusted has signed, or an older one
    ├── StoreError          a store that is full or cannot be reached
    ├── NoToken             nothing is held, or nothing is granted, where something must be
    ├── Refused             a client's request is refused: found here, or by the server
    ├── LimitError          a token that readers would refuse for its size
    ├── KeyringError        a key file that cannot be used
    ├── GuardError          a guarded connection that is misused, or cannot be guarded
    │                           guard, outcome_unknown, row
    ├── StatementError      a statement that its database cannot run, whoever sends it
    │                           syntax, name, type, value, cardinality, unique, foreign_key,
    │                           not_null, check, raised, parameters, too_large,
    │                           too_many_rows, unsupported
    ├── IssuanceError       a task that is not started; a policy that does not load
    │                           policy, invalid_request, invalid_client, invalid_grant,
    │                           unauthorized_client, unsupported_grant_type, invalid_scope,
    │                           invalid_target, invalid_authorization_details, invalid_dpop_proof,
    │                           access_denied, expired_token, slow_down, temporarily_unavailable,
    │                           unsupported_response_type
    └── Denied              a request that a verifier refused; carries the Decision

Below some of them stand their codes, where they have more than one.

Programming errors are `TypeError` and `ValueError`. No message holds a key, a signature or usable
token text. It may hold names that strangers wrote: they are shown short and escaped. Codes and plan
stand in the spec, section "Verification".
"""

from __future__ import annotations

from typing import Any

from captoken._format.spelling import spelled_time


class CaptokenError(Exception):
    """The base class of all errors of captoken, except programming errors.

    `code` is for machines, and stable. The message is for people, and may change.
    """

    code = "error"

    def __init_subclass__(cls) -> None:
        """The errors of this file are told by the name under which they are imported."""
        if cls.__module__ == __name__:
            cls.__module__ = "captoken.errors"

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross processes, though tokens, keys and grants do not: none of them holds one."""
        return _rebuilt, (type(self), self.args, self.__dict__)


CaptokenError.__module__ = "captoken.errors"  # the base too


def _rebuilt(
    kind: type[CaptokenError],
    args: tuple[Any, ...],
    state: dict[str, Any],
) -> CaptokenError:
    """The error that was pickled, without a call of its constructor: that has other arguments."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class TokenFormatError(CaptokenError):
    """The text or the bytes are not a token of captoken.

    `code` is `malformed` or `unsupported_version`. `step` is where in the plan of the verifier it
    was found (spec, "Verification").
    """

    def __init__(self, message: str, code: str = "malformed", step: int = 2) -> None:
        super().__init__(message)
        self.code = code
        self.step = step


class WideningError(CaptokenError):
    """A narrower token asked for more than the token allows (spec, "Widening").

    - `dimension` is the caveat it is about.
    - `asked` and `held` are what was asked for and what is there.
    - `excess` is the part of `asked` that is not held.
    - `hint` is what to do instead.
    - `code` is `widening`, or `nothing_left` when a clamped narrowing would leave nothing.

    None of them shows the token.
    """

    def __init__(
        self,
        dimension: str,
        asked: Any,
        held: Any,
        excess: Any,
        hint: str,
        code: str = "widening",
        cause: str = "",
    ) -> None:
        """With a `cause`, `hint` says by name what is missing or too much, and is told first."""
        self.dimension = dimension
        self.asked = asked
        self.held = held
        self.excess = excess
        self.hint = hint
        self.code = code

        # A long list is cut, and never what to do about it.
        keyword = _KEYWORDS.get(dimension, dimension)
        if cause:
            compared = f"asked for {asked!r}, it holds {held!r}"
            super().__init__(f"{keyword}: {hint[:500]}; {compared[:1500]}")
            return
        compared = f"asked for {asked!r}, it holds {held!r}, too much is {excess!r}"
        if keyword in _TIMES:
            # As people read times. How many seconds are too much, nobody asks.
            compared = f"asked for {spelled_time(asked)}, it holds {spelled_time(held)}"
        sentence = f"{keyword}: more than the token holds; {compared}"
        super().__init__(f"{sentence[:1500]}; {hint[:500]}")


# Where writers have another name for a caveat than the wire.
_KEYWORDS = {
    "aud": "audience",
    "exp": "expires_at",
    "nbf": "not_before",
}
_TIMES = ("expires_at", "not_before")


class DelegationError(CaptokenError):
    """A hand-over that verifiers would refuse.

    Past `depth`, or back to an agent that has held the token, or not signed as it has to be.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class DischargeError(CaptokenError):
    """A third party did not discharge, or the discharge answers nothing that the token asks.

    - `bad_ticket`: a ticket that is none, or not for this discharger.
    - `refused`: the policy's no. The message may be shown to whoever asked.
    - `undecided`: ask again later, or somebody has to decide.
    - `bad_discharge`: an answer that is none, or to another ticket.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class ConsentError(CaptokenError):
    """A text asks for no consent, or for none of this key."""

    code = "bad_request"


class AuditError(CaptokenError):
    """An audit trail does not hold together. The message says where."""

    code = "audit"


class RecallError(CaptokenError):
    """A holder asked for the revocation of something that it did not hand on.

    Or what it asked cannot be read, or too many of its recalls stand already.
    """

    code = "recall"


class OverlayError(CaptokenError):
    """A snapshot of the overlay that will not do.

    It cannot be read, no trusted operator signed it, or it is older than one that is known.
    """

    code = "overlay"


class StoreError(CaptokenError):
    """A store is full, cannot be reached, or cannot know what it is asked: verifiers deny.

    What was asked of it may have been done or not.
    """

    code = "store"


class NoToken(CaptokenError):  # noqa: N818, the name reads as what it is
    """No token is current where one is needed, or no request is being answered: denied."""

    code = "no_token"


class Refused(CaptokenError):  # noqa: N818, the name reads as what it is
    """A client's request is refused: here, where nothing was sent, or by the server that it asked.

    The client adapters raise it. The message is for the operator.

    - `for_model` is what the agent may be told.
    - `kind` is `invalid`, `insufficient`, `proof` or `unavailable` (24.13).
    - `here` says that nothing was sent, since what is held does not permit it.
    - `request` is what to ask a person, if a consent would let it through: see `captoken.consent`.
    """

    code = "refused"

    def __init__(
        self,
        message: str,
        for_model: str,
        *,
        kind: str = "insufficient",
        here: bool = False,
        request: str | None = None,
    ) -> None:
        super().__init__(message)
        self.for_model = for_model
        self.kind = kind
        self.here = here
        self.request = request


class LimitError(CaptokenError):
    """A token would pass a limit, so that readers would refuse it (spec 3.2).

    `costs` lists (what, characters) for the root and each link, so that one sees why.
    """

    code = "limit"

    def __init__(self, message: str, costs: tuple[tuple[str, int], ...] = ()) -> None:
        self.costs = costs
        shown = "; ".join(f"{what}: {size}" for what, size in costs)
        super().__init__(f"{message} ({shown})" if shown else message)


class KeyringError(CaptokenError):
    """A key file is missing, unreadable, readable by others, or not a keyring."""

    code = "keyring"


class GuardError(CaptokenError):
    """A guarded connection was misused: nested, from another thread, or after its block.

    Or it cannot be guarded here. `code` is `guard`, or `outcome_unknown` where a connection was
    lost while its commit was under way: what was written may be there, and may not. It is `row`
    where a token says of rows what no condition in SQL says (`captoken.rows`).
    """

    code = "guard"

    def __init__(self, message: str, code: str = "guard") -> None:
        super().__init__(message)
        self.code = code


class StatementError(CaptokenError):
    """A statement in a guarded block is at fault, and not a right: nothing of it stands.

    The guards of databases raise it in the place of what the database raises. It shows no value of
    a row, a literal or a parameter, and no name but a word of the statement and what is granted.

    - `code` says what is at fault.
    - `state` is what the database calls it: an SQLSTATE, or the name of a result code of SQLite.
      Empty where the database was not asked.
    - `for_model()` is what the agent may be told.
    """

    def __init__(self, message: str, code: str, told: str, state: str = "") -> None:
        """`told` is what the agent may be told."""
        super().__init__(message)
        self.code = code
        self.state = state
        self._told = told

    def for_model(self) -> str:
        """What the agent may be told: what is at fault, that nothing was done, what may help."""
        return self._told


class IssuanceError(CaptokenError):
    """No task is started by this request, or a policy does not load.

    `code` is `policy`, or one of OAuth's. The message says what the caller itself wrote wrongly,
    and may be shown to it. What else there is to say is in `why`, which is for the log.
    """

    def __init__(self, message: str, code: str, why: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.why = why

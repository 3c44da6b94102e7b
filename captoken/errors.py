"""The errors, drawn once; everything but a programming error is one of these.

    CaptokenError
    ├── TokenFormatError    text or bytes that are no token of ours       (code: malformed, unsupported_version)
    ├── WideningError       a narrowing that asks for more than is held   (code: widening, nothing_left)
    ├── DelegationError     a hand-over that the chain does not permit    (code: too_deep, broken_delegation, bad_proof)
    ├── DischargeError      no discharge, or one that answers nothing      (code: bad_ticket, refused, undecided, bad_discharge)
    ├── AuditError          a trail that was changed, cut or rolled back
    ├── RecallError         a holder asks for the revocation of what it did not hand on
    ├── OverlayError        a snapshot that nobody trusted has signed, or an older one
    ├── StoreError          a store that is full or cannot be reached
    ├── NoToken             nothing is held, or nothing is granted, where something must be
    ├── LimitError          a token that readers would refuse for its size
    ├── KeyringError        a key file that cannot be used
    ├── GuardError          a guarded connection that is misused, or cannot be guarded
    └── Denied              a request that a verifier refused; carries the Decision

Programming errors are `TypeError` and `ValueError`. No message holds a key, a signature or usable token text.
Codes and plan: spec, section "Verification".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from captoken.decision import Decision

Kind = Literal["invalid", "insufficient", "proof", "unavailable"]


class Code(NamedTuple):
    """What a code means: the step of the plan that gives it, the kind an HTTP status follows from, a public sentence."""

    step: int
    kind: Kind
    public: str


_UNACCEPTED = "The token was not accepted."  # one message, so that a stranger learns nothing (spec, "Verification")
_UNPROVEN = "The request needs a fresh proof by the key that the token is bound to."
_REFUSED = "The token does not permit this request."

CODES: dict[str, Code] = {
    "malformed": Code(2, "invalid", _UNACCEPTED),
    "unsupported_version": Code(3, "invalid", _UNACCEPTED),
    "unknown_key": Code(3, "invalid", _UNACCEPTED),
    "bad_signature": Code(4, "invalid", _UNACCEPTED),
    "missing_discharge": Code(4, "invalid", "The token needs a discharge that was not presented."),
    "bad_discharge": Code(4, "invalid", "A discharge that was presented was not accepted."),
    "unreadable_link": Code(5, "invalid", "The token carries a restriction that cannot be read."),
    "unknown_caveat": Code(5, "invalid", "The token carries a restriction that this server does not know."),
    "broken_delegation": Code(6, "invalid", "The token's chain of delegation is broken."),
    "too_deep": Code(6, "invalid", "The token was delegated more often than it permits."),
    "delegate_only": Code(6, "insufficient", "The token is for handing on, not for use."),
    "revoked": Code(7, "invalid", _UNACCEPTED),
    "narrowed": Code(7, "insufficient", _REFUSED),
    "stale_overlay": Code(7, "unavailable", "The server cannot decide at present."),
    "stale_grant": Code(7, "invalid", "The token has to be presented again."),
    "expired": Code(8, "invalid", "The token has expired."),
    "not_yet_valid": Code(8, "invalid", "The token is not valid yet."),
    "wrong_audience": Code(8, "invalid", "The token is addressed to another server."),
    "unaddressed": Code(8, "invalid", "The token is not addressed to this server."),
    "table": Code(8, "insufficient", _REFUSED),
    "operation": Code(8, "insufficient", _REFUSED),
    "column": Code(8, "insufficient", _REFUSED),
    "tool": Code(8, "insufficient", _REFUSED),
    "argument": Code(8, "insufficient", _REFUSED),
    "attribute": Code(8, "insufficient", _REFUSED),
    "domain": Code(8, "insufficient", _REFUSED),
    "task": Code(8, "insufficient", "The token is for another task."),
    "cost_unstated": Code(8, "insufficient", "What the request costs is not stated."),
    "caller": Code(9, "insufficient", "The token was handed to another caller."),
    "proof_missing": Code(10, "proof", _UNPROVEN),
    "bad_proof": Code(10, "proof", _UNPROVEN),
    "replayed": Code(11, "proof", _UNPROVEN),
    "budget_exhausted": Code(11, "insufficient", "The token has been used up."),
    "store_unavailable": Code(11, "unavailable", "The server cannot decide at present."),
}


class CaptokenError(Exception):
    """Whatever captoken raises that is not a programming error. `code` is stable, the message is for people."""

    code = "error"

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross processes, though tokens, keys and grants do not: none of them holds one."""
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[CaptokenError], args: tuple[Any, ...], state: dict[str, Any]) -> CaptokenError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class TokenFormatError(CaptokenError):
    """Text or bytes that are not one of our tokens. `code`: `malformed` or `unsupported_version`; `step`: of the plan."""

    def __init__(self, message: str, code: str = "malformed", step: int = 2) -> None:
        super().__init__(message)
        self.code, self.step = code, step

    def bare(self) -> TokenFormatError:
        """The same error without a traceback: its frames hold the text."""
        return TokenFormatError(str(self), self.code, self.step)


class WideningError(CaptokenError):
    """A narrowing asked for more than the token holds (spec, "Widening").

    `dimension` is the caveat it is about, `asked` and `held` what was asked for and what is there, `excess` the part
    of `asked` that is not held, `hint` what to do instead. `code` is `widening`, or `nothing_left` when a clamped
    narrowing would leave nothing. None of them shows the token.
    """

    def __init__(self, dimension: str, asked: Any, held: Any, excess: Any, hint: str, code: str = "widening") -> None:
        self.dimension, self.asked, self.held, self.excess, self.hint = dimension, asked, held, excess, hint
        self.code = code
        super().__init__(f"{dimension}: asked for {asked!r}, held is {held!r}, too much is {excess!r}; {hint}"[:2000])


class DelegationError(CaptokenError):
    """A hand-over that verifiers would refuse: past `depth`, or back to an agent that has held the token."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class DischargeError(CaptokenError):
    """A third party did not discharge, or the discharge answers nothing that the token asks.

    `code`: `bad_ticket` for a ticket that is none, or not for this discharger; `refused`; `undecided`; `bad_discharge`.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class AuditError(CaptokenError):
    """An audit trail does not hold together. The message says where."""

    code = "audit"


class RecallError(CaptokenError):
    """A holder asked for the revocation of something that it did not hand on, or what was asked cannot be read."""

    code = "recall"


class OverlayError(CaptokenError):
    """A snapshot of the overlay that cannot be read, that no trusted operator signed, or that is older than one known."""

    code = "overlay"


class StoreError(CaptokenError):
    """A store of used proofs is full, or cannot be reached: verifiers deny."""

    code = "store"


class NoToken(CaptokenError):  # noqa: N818, the name reads as what it is
    """No token is current where one is needed, or no request is being answered: denied."""

    code = "no_token"


class LimitError(CaptokenError):
    """A token would pass a limit. `costs` lists (what, characters) for the root and each link, so that one sees why."""

    code = "limit"

    def __init__(self, message: str, costs: tuple[tuple[str, int], ...] = ()) -> None:
        self.costs = costs
        shown = "; ".join(f"{what}: {size}" for what, size in costs)
        super().__init__(f"{message} ({shown})" if shown else message)


class KeyringError(CaptokenError):
    """A key file is missing, unreadable, readable by others, or not a keyring."""

    code = "keyring"


class GuardError(CaptokenError):
    """A guarded connection was misused (nested, from another thread, after its block), or cannot be guarded here."""

    code = "guard"


class Denied(CaptokenError):  # noqa: N818, the name reads as what it is
    """A verifier refused. `decision` says all, for the operator; `public` is what a client may be told; `kind` is what
    an HTTP status follows from: `invalid` 401, `insufficient` 403, `proof` 401, `unavailable` 503."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.code = decision.code
        super().__init__(decision.summary)

    @property
    def public(self) -> str:
        """A sentence that may go to a client: nothing of the token, nothing of what others may do."""
        return CODES[self.code].public

    @property
    def kind(self) -> Kind:
        return CODES[self.code].kind

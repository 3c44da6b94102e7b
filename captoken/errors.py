"""All exceptions of captoken except programming errors.

`captoken._format.errors` shows the tree.
"""

from captoken._format.errors import (
    AuditError,
    CaptokenError,
    ConsentError,
    DelegationError,
    DischargeError,
    GuardError,
    IssuanceError,
    KeyringError,
    LimitError,
    NoToken,
    OverlayError,
    RecallError,
    Refused,
    StatementError,
    StoreError,
    TokenFormatError,
    WideningError,
)
from captoken._language.reasons import Kind
from captoken._verification.decision import Denied
from captoken._verification.records import CODES, Code

__all__ = [
    "CODES",
    "AuditError",
    "CaptokenError",
    "Code",
    "ConsentError",
    "DelegationError",
    "Denied",
    "DischargeError",
    "GuardError",
    "IssuanceError",
    "KeyringError",
    "Kind",
    "LimitError",
    "NoToken",
    "OverlayError",
    "RecallError",
    "Refused",
    "StatementError",
    "StoreError",
    "TokenFormatError",
    "WideningError",
]

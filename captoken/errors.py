"""Everything that captoken raises but programming errors: the tree is drawn in
`captoken._format.errors`.
"""

from captoken._format.errors import (
    AuditError,
    CaptokenError,
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

"""The audit trail: write it, and prove that it is whole.

`captoken.audit.analysis` asks it who did what, what was never needed, and what an overlay would
have changed.
"""

from captoken.audit._check import Verdict, check, read, rfc8693
from captoken.audit.trail import AuditTrail
from captoken.stores.ports import Head

__all__ = ["AuditTrail", "Head", "Verdict", "check", "read", "rfc8693"]

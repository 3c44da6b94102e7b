"""The audit trail: write it, and check that it is complete and unchanged.

`captoken.audit.analysis` answers questions about it: who did what, which rights were never needed,
and what an overlay would have changed.
"""

from captoken.audit._check import Verdict, check, read, rfc8693
from captoken.audit.trail import AuditTrail
from captoken.stores.ports import Head

__all__ = ["AuditTrail", "Head", "Verdict", "check", "read", "rfc8693"]

"""The audit trail: write it, prove that it is whole, and ask it who did what."""

from captoken.audit._check import Verdict, check, read, rfc8693
from captoken.audit.trail import AuditTrail
from captoken.stores.ports import Head

__all__ = ["AuditTrail", "Head", "Verdict", "check", "read", "rfc8693"]

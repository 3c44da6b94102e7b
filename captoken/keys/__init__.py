"""Keys of one purpose each: who holds, operates, signs a trail, discharges, or shares a root key with a server."""

from captoken.keys.pairwise import PairwiseKey
from captoken.keys.secret import AuditKey, DischargerKey, HolderKey, OperatorKey, SecretKey

__all__ = ["AuditKey", "DischargerKey", "HolderKey", "OperatorKey", "PairwiseKey", "SecretKey"]

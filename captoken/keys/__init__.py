"""Keys of one purpose each: for holders, operators, trails, dischargers, and pairs of servers."""

from captoken.keys.pairwise import PairwiseKey
from captoken.keys.secret import AuditKey, DischargerKey, HolderKey, OperatorKey, SecretKey

__all__ = ["AuditKey", "DischargerKey", "HolderKey", "OperatorKey", "PairwiseKey", "SecretKey"]

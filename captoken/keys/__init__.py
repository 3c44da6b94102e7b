"""Keys of one purpose each: for holders, operators, trails, dischargers, and pairs of servers.

    Keyring                  root keys, which mint and verify (spec, "Keys")
    HolderKey                what a token can be bound to
    DischargerKey            what tickets are sealed for
    OperatorKey, AuditKey    what snapshots and checkpoints are signed with
    PairwiseKey              what issuer and server derive a root key from

The rules of this room:

- One key, one purpose: types and files of one are not taken for another (spec 27.1).
- Key material is shown by `save` and `reveal` alone. It is in no `repr`, no pickle and no error.
- A file that others than its owner can read holds no secret any more, and is refused.
- Memory is not wiped: Python cannot promise it.
"""

from typing import TYPE_CHECKING

from captoken._format.lazy import lazily

if TYPE_CHECKING:
    from captoken.keys.pairwise import PairwiseKey
    from captoken.keys.secret import AuditKey, DischargerKey, HolderKey, OperatorKey, SecretKey

__all__ = ["AuditKey", "DischargerKey", "HolderKey", "OperatorKey", "PairwiseKey", "SecretKey"]

__getattr__ = lazily(
    globals(),
    {
        "AuditKey": "captoken.keys.secret",
        "DischargerKey": "captoken.keys.secret",
        "HolderKey": "captoken.keys.secret",
        "OperatorKey": "captoken.keys.secret",
        "PairwiseKey": "captoken.keys.pairwise",
        "SecretKey": "captoken.keys.secret",
    },
)


def __dir__() -> list[str]:
    return [*__all__, *globals()]

"""Keys with one purpose each: for holders, operators, trails, dischargers, and pairs of servers.

    Keyring                  root keys, which mint and verify (spec, "Keys")
    HolderKey                a key that tokens can be bound to
    ApproverKey              a key that a person says yes with (spec, "Consent")
    DischargerKey            a key that tickets are sealed for
    OperatorKey, AuditKey    keys that sign snapshots and checkpoints
    PairwiseKey              a key from which issuer and server derive a root key

The rules of this package:

- One key has one purpose: types and files of one are never accepted as another (spec 27.1).
- Only `save` and `reveal` give out key material. It is in no `repr`, no pickle and no error.
- A file that anyone except its owner can read is no longer secret, and is refused.
- Memory is not wiped, because Python cannot promise it.
"""

from typing import TYPE_CHECKING

from captoken._format.lazy import lazily

if TYPE_CHECKING:
    from captoken.keys.pairwise import PairwiseKey
    from captoken.keys.secret import (
        ApproverKey,
        AuditKey,
        DischargerKey,
        HolderKey,
        OperatorKey,
        SecretKey,
    )

__all__ = [
    "ApproverKey",
    "AuditKey",
    "DischargerKey",
    "HolderKey",
    "OperatorKey",
    "PairwiseKey",
    "SecretKey",
]

__getattr__ = lazily(
    globals(),
    {
        "ApproverKey": "captoken.keys.secret",
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

"""What Linux and macOS have, and Windows has not: locks of whole files, and users by name.

Whoever needs one of these imports it from here. So its absence is told in one wording.
"""

from __future__ import annotations

try:
    import fcntl as fcntl
    import pwd as pwd
except ModuleNotFoundError:
    raise ImportError(
        "this part of captoken needs Linux or macOS: on Windows there are no offices, trail files, "
        "gateways, reactions and issuance services. Tokens, verifiers, guards and clients work "
        "there: `captoken docs deployment`, Where it runs"
    ) from None

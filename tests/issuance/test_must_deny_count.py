"""The 86 cases that must be denied, by number, with each of the parts that stand under one: every one has a test.

A test is for the number that its name begins with (`test_51_…`), or its id (`[51 a proof again]`). A part is there if the words
of it are in the name of one test of that number. `python -m tests.issuance.test_must_deny_count` prints which test it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

PARTS: dict[int, tuple[str, ...]] = {
    # Form.
    1: ("json at the token endpoint|body", "logouts", "signals"),
    2: ("subject token twice", "grant type twice", "client assertion twice", "logout token twice"),
    3: ("64 kib at the token endpoint", "64 kib at logouts", "event over 64"),
    4: ("16 kib as subject token", "16 kib as client assertion", "16 kib as actor token", "16 kib as assertion", "logout over 16"),
    5: ("grant type 'password'", "refresh token"),
    6: ("basic",),
    7: ("secret alone", "secret beside an assertion"),
    8: ("actor token without type", "type without actor token"),
    9: ("two actors",),
    10: ("id-jag", "access token", "saml2", "workload", "svid"),
    11: ("two details", "unknown type", "unknown keyword"),
    # Signature.
    12: ("none", "none, and no signature", "nOnE"),
    13: ("hs256 under the public key of ec", "hs256 under the public key of rsa"),
    14: ("algorithm that is not the keys",),
    15: ("no kid",),
    16: ("unknown kid",),
    17: ("another provider's kid", "another provider's key"),
    18: ("two keys of one id",),
    19: ("jwk", "jku", "x5u", "crit", "b64", "zip"),
    20: ("bit of the signature", "bit of the payload"),
    21: ("jwe",),
    22: ("rsa under 2048",),
    23: ("padding", "a trailing character"),
    24: ("nesting", "nan", "1e400", "name twice", "array"),
    # Confusion.
    25: ("another application's id token",),
    26: ("id token as an access token", "access token by its type", "access token by its scope"),
    27: ("id-jag",),
    28: ("logout without typ", "a logout", "an event"),
    29: ("dpop proof by its type", "dpop proof by its claims"),
    30: ("slash", "list", "other case"),
    31: ("stranger among the applications", "stranger of an access token", "stranger of an id-jag", "stranger of a workload", "audiences of a logout"),
    32: ("svid with two audiences",),
    33: ("another trust domain", "bare trust domain", "user info", "step up", "upper case"),
    34: ("two providers",),
    35: ("act", "may act"),
    36: ("swapped",),
    37: ("at the service", "not sent"),
    38: ("another tenant",),
    39: ("captoken as subject token", "captoken as actor token", "captoken as client assertion", "captoken as assertion"),
    # Time.
    40: ("expired over 30 s", "expired, of a logout", "expired, of an event"),
    41: ("exp as a text", "exp as a boolean", "exp missing"),
    42: ("workload for over", "svid for a hundred years", "id-jag for over five minutes"),
    43: ("iat ahead", "nbf ahead"),
    44: ("old login", "no login stated"),
    45: ("join after the deadline",),
    46: ("renewal past",),
    47: ("steps back", "revives no task"),
    # Replay.
    48: ("another actor", "another key"),
    49: ("alone twice",),
    50: ("64 at once", "one actor wins"),
    51: ("proof again", "another url", "another method", "another time", "another key type"),
    52: ("logout that comes again", "event that comes again"),
    53: ("across a restart",),
    54: ("full", "gone"),
    # Rights.
    55: ("tables", "columns", "tools", "arguments", "operations", "budget", "expires at", "depth"),
    56: ("agent",),
    57: ("resource",),
    58: ("two grants",),
    59: ("unknown scope",),
    60: ("counted grant twice",),
    61: ("another s", "ended", "unknown", "one answer"),
    62: ("slash",),
    63: ("without proof", "as access token"),
    64: ("for a used for b", "by another client", "unauthenticated"),
    65: ("may be live",),
    66: ("group that was lost",),
    67: ("nothing is lifted",),
    # Network.
    68: ("redirect", "300 kb", "slow drip"),
    69: ("address in a token",),
    70: ("one fetch",),
    71: ("outage",),
    72: ("withdrawn",),
    73: ("discovery document of another issuer",),
    # Certificates, and SAML.
    74: ("stranger",), 75: ("trust store", "two uris", "ca"),
    76: ("wrap",), 77: ("comment",), 78: ("dtd", "xslt", "references", "sha-1|sha1"), 79: ("response",), 80: ("recipient", "audience"),
    # Ends.
    81: ("after|before the logout",),
    82: ("lease after the logout",),
    83: ("logout by another signer", "event by another signer"),
    84: ("logout about another issuer's", "event about another issuer's"),
    85: ("two events, of a logout", "two events, of an event"),
    # Load.
    86: (
        "no subject and no actor", "workload without sub or claims", "shared issuer without require", "counted grant with several resources",
        "unrestricted", "expires in over task max", "undefined provider", "undefined resource", "undefined grant", "undefined discharger", "test that fails",
    ),
}  # fmt: skip

# Of 76.
WRAPPINGS = 8

_number = re.compile(r"test_(\d\d?)_|\[\s*(\d\d?) ").finditer


@cache
def collected() -> dict[int, list[str]]:
    """The names of the tests in this folder, as pytest collects them, by their number."""
    asked = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", "-p", "no:cacheprovider", str(HERE)]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[int, list[str]] = defaultdict(list)
    for line in done.stdout.splitlines():
        _, _, name = line.partition("::")
        for match in _number(name):
            found[int(match[1] or match[2])].append(line)
    return found


# Tests of these send a request to a door, or load a policy. Others look at a part of what is behind it.
AT_DOORS = (
    "test_must_deny.py",
    "test_issuance.py",
    "test_dpop.py",
    "test_form.py",
    "test_signals.py",
    "test_ends.py",
    "test_events.py",
    "test_client.py",
    "test_providers.py",
    "test_saml",
    "test_signed_xml.py",
    "test_x509",
    "test_certificate",
)


def at_a_door() -> dict[int, list[str]]:
    return {number: [name for name in names if any(one in name for one in AT_DOORS)] for number, names in collected().items()}


def has(name: str, part: str) -> bool:
    """Are the words of a part in a name? `a|b` is either of two."""
    spelled = name.partition("::")[2].replace("_", " ")
    return any(one in (spelled.lower() if one == one.lower() else spelled) for one in part.split("|"))


def test_each_of_the_86_and_each_part_of_it_has_a_test() -> None:
    found = at_a_door()
    missing = [
        f"{number} {part}"
        for number, those in PARTS.items()
        for part in those
        if not any(has(name, part) for name in found.get(number, ()))
    ]
    assert missing == []
    assert set(PARTS) == set(range(1, 87))
    assert len([name for name in found.get(76, ()) if has(name, "wrap")]) >= WRAPPINGS


def test_no_test_has_a_number_that_there_is_not() -> None:
    assert {number for number in collected() if not 1 <= number <= 86} == set()


if __name__ == "__main__":
    at_doors = at_a_door()
    for number, those in sorted(PARTS.items()):
        for part in those:
            names = [name for name in at_doors.get(number, ()) if has(name, part)]
            print(f"{number} {part}: {len(names)}: {names[0] if names else 'none'}")

"""The small world that the tests of the modules share: one key, one fixed clock, one issuer, one verifier."""

from __future__ import annotations

import re
from time import time
from typing import Any

from captoken import Access, Issuer, Keyring, Token, Verifier
from captoken._format.encoding import b64decode
from captoken._format.text import BOUND, PROOF, whole_text
from captoken.proof import Proof, Signer, read_proof, with_proof
from captoken.testing import FixedClock, fixed_random

NOW = 1_764_061_200
KEY = bytes(range(1, 33))
KEYRING = Keyring.from_keys({"k1": KEY}, current="k1")
WHO = {"subject": "user:jane", "agent": "orchestrator", "task": "task-123"}
SALES = {"tables": ["sales", "market.*"], "operations": ["select"]}


def clock() -> FixedClock:
    return FixedClock(NOW)


def mint(**caveats: Any) -> Token:
    """A root token of the fixed world; of SALES, unless other caveats are given."""
    return Issuer(KEYRING, clock=clock(), random=fixed_random("world")).mint(**WHO, **(caveats or SALES))


def verifier(**facts: Any) -> Verifier:
    return Verifier(KEYRING, **{"clock": clock(), **facts})


def data(table: str, operation: str = "select", *columns: str, **attributes: Any) -> Access:
    return Access(table=table, operation=operation, columns=columns or None, attributes=attributes)


def tool(name: str, **arguments: Any) -> Access:
    return Access(tool=name, arguments=arguments)


def code(token: Token | str, access: Access, **facts: Any) -> str:
    """What a verifier says: the code of its decision."""
    return verifier(**facts).check(token if isinstance(token, str) else token.serialize(), access).code


def named(value: object) -> str:
    """A case by what it is, without its address: processes have to agree on what it is called."""
    return re.sub(r" at 0x[0-9a-f]+", "", ascii(value))[:80]


def prove(text: str, signer: Signer, **facts: Any) -> str:
    """The proof alone, as `with_proof` puts it at the end of a text: to be put at the end of this one or another."""
    return with_proof(text, signer, **{"clock": time, **facts}).rpartition(".")[2]


def proof_in(part: str) -> Proof:
    """What a proof says, from the last part of a text."""
    return read_proof(b64decode(part.removeprefix(PROOF)))


def sent(text: str | Token, proof: str | None) -> str | Token:
    """What goes to a server: a text, or a token as it would be bound, with a proof at its end if there is one."""
    if proof is None:
        return text
    if isinstance(text, Token):
        parts = text.presented_parts()
        text = whole_text(parts.packet, parts.discharges, BOUND)
    return f"{text}.{proof}"

"""The surface is declared once: what `captoken` exports, and what it does not pull in."""

from __future__ import annotations

import pydoc
import subprocess
import sys

import captoken


def test_the_public_names_are_these() -> None:
    """Adding or dropping a public name is a decision, not an accident."""
    assert captoken.__all__ == [
        "Access", "Actor", "Caller", "Capability", "CaptokenError", "Decision", "Denied", "Grant", "Issuer", "Keyring",
        "Token", "TokenFormatError", "Verifier", "WideningError",
    ]  # fmt: skip
    assert all(hasattr(captoken, name) for name in captoken.__all__)


def test_a_bearer_token_needs_no_extra() -> None:
    """Minting, narrowing and verifying import no extra, no database and no public-key cryptography."""
    script = """
import sys
from captoken import Access, Issuer, Keyring, Verifier
keyring = Keyring.generate()
token = Issuer(keyring).mint(subject="user:jane", agent="a", task="t", tables=["sales"], operations=["select"])
child = token.delegate(to="b", tables=["sales"])
assert Verifier(keyring).authorize(child.serialize(), Access(table="sales", operation="select"))
print(sorted({"nacl", "click", "rich", "pymacaroons", "sqlite3", "asyncio"} & sys.modules.keys()))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_help_can_be_asked_for() -> None:
    """Every annotation of a public class can be resolved: help() and documentation tools do."""
    for name in captoken.__all__:
        assert name in pydoc.render_doc(getattr(captoken, name))

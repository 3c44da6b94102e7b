"""The surface is declared once: what `captoken` exports, and what it does not pull in."""

from __future__ import annotations

import ast
import inspect
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import captoken


def test_the_public_names_are_these() -> None:
    """Adding or dropping a public name is a decision, not an accident."""
    assert captoken.__all__ == [
        "Access", "Actor", "AsyncGrant", "AsyncVerifier", "Caller", "Capability", "CaptokenError", "Decision", "Denied", "Grant", "Issuer", "Keyring",
        "Token", "TokenFormatError", "TokenSet", "Verifier", "WideningError",
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


def test_the_core_loads_no_room_beside_it() -> None:
    """Whoever verifies pays for no trail, no operator, no discharger and no store."""
    script = """
import sys
from captoken import Access, Keyring, Verifier
rooms = ("audit", "control", "discharge", "current", "tools", "adapters", "cli", "interop", "local", "rows", "testing")
print(sorted(name for name in sys.modules if name.startswith(tuple("captoken." + room for room in rooms))))
print(sorted(name for name in sys.modules if name.startswith("captoken.stores.")))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[:2] == ["[]", "['captoken.stores.own_process', 'captoken.stores.ports']"]


WITHOUT = """
import importlib, pkgutil, sys
sys.modules["nacl"] = None  # whoever imports it fails
import captoken
"""


def ran(script: str) -> str:
    """What a fresh interpreter prints, in which nothing can import libsodium."""
    done = subprocess.run([sys.executable, "-c", WITHOUT + script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_module_can_be_imported_without_libsodium() -> None:
    """All of the core and every adapter; it is asked for when a key is made or a signature checked."""
    said = ran("""
names = [module.name for module in pkgutil.walk_packages(captoken.__path__, "captoken.")]
names.remove("captoken.adapters._mcp.version_1")  # for the other version of mcp
for name in ("google_adk", "claude_agent", "_gateway.ext_proc", "_gateway.ext_authz"):  # their frameworks stand in environments of their own
    names.remove(f"captoken.adapters.{name}")
for name in names:
    importlib.import_module(name)
print(len(names), sorted(name for name in sys.modules if name.split(".")[0] == "nacl"))
from captoken.keys import HolderKey
try:
    HolderKey.generate()
except ImportError as error:
    print("then", type(error).__name__)
""")
    first, second = said.splitlines()
    assert int(first.split()[0]) > 40 and first.endswith("['nacl']") and second.startswith("then ")


def test_a_bearer_token_lives_without_libsodium() -> None:
    """Minted, narrowed, handed on, presented, parsed, inspected, saved, verified, denied and explained, with a store and with
    keys of links that nobody asks about."""
    assert (
        ran("""
import tempfile, os
from captoken import Access, Caller, Denied, Issuer, Keyring, Token, TokenFormatError, Verifier
from captoken.stores.memory import MemoryReplayStore
keyring = Keyring.generate().rotate()
server = keyring.for_audience("sales-db")
for ring, audience in ((keyring, "sales-db"), (server, "sales-db")):
    token = Issuer(ring).mint(subject="user:jane", agent="a", task="t", tables=["sales", "hr"], operations=["select"], expires_in=600)
    child = token.attenuate(tables=["sales"]).delegate(to="b", expires_in=300, depth=1)
    text = child.present(audience=audience)
    again = Token.parse(child.serialize())
    assert again == child and again.unverified.holder == "b" and again.unverified.key is None and again.unverified.lineage.key is None
    assert again.unverified.links and again.unverified.capability and again.unverified.bodies and repr(again) and not again.needs
    access = Access(table="sales", operation="select")
    for store in (None, MemoryReplayStore()):
        verifier = Verifier(ring, audience, replays=store)
        grant = verifier.authorize(text, access, caller=Caller(agent="b"))
        assert grant.key is None and grant.evidence == () and grant.chain[-1].basis == "vouched" and grant.link_ids and grant.recheck()
        assert verifier.check(text, access, request=bytes(32)) and verifier.explain(text, access) and verifier.authenticate(text)
        assert verifier.check(text + ".cap1p_" + "A" * 118, access).code == "bad_proof"
        assert verifier.check(text, Access(table="hr", operation="select")).code == "table" and str(verifier.explain(text, access))
        bound = child.with_raw_link(b'{"key":"IFmwfP1gC9Y9ZC4p3Vv0m1ljiXBmEEyJjoqXDvxOeYo"}').present(audience=audience)
        assert Token.parse(bound).unverified.key and verifier.check(bound, access).code == "proof_missing"
        try:
            Token.parse(text + "=")
        except TokenFormatError:
            pass
with tempfile.TemporaryDirectory() as folder:
    keyring.save(os.path.join(folder, "keys"))
    assert Keyring.load(os.path.join(folder, "keys")).current == keyring.current
print(sorted(name for name in sys.modules if name.split(".")[0] in ("nacl", "cffi", "_sodium")))
""")
        == "['nacl']"
    )


def test_help_can_be_asked_for() -> None:
    """Every annotation of a public class can be resolved: help() and documentation tools do."""
    for name in captoken.__all__:
        assert name in pydoc.render_doc(getattr(captoken, name))


def test_the_public_classes_say_their_public_module_and_their_annotations_resolve() -> None:
    """What a reader sees in an error or in help is what can be imported."""
    for name in captoken.__all__:
        public = getattr(captoken, name)
        assert public.__module__ == "captoken", name
        get_type_hints(public)
        for method in vars(public).values():
            if inspect.isfunction(method):
                get_type_hints(method)


def test_adapters_never_ask_what_only_people_ask() -> None:
    """`explain` looks at the stores: what plans, lists or asks again asks `recheck` (spec, "Verification").

    A session of MCP asks for it, and lets nothing through by it: its guard verifies the same message.
    """
    folder = Path(captoken.__file__).parent / "adapters"
    asked = [
        (path.name, within.name)
        for path in folder.rglob("*.py")
        for within in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(within, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(within)
        if isinstance(node, ast.Attribute) and node.attr == "explain"
    ]
    assert asked == [("gate.py", "seems_genuine")] and len(list(folder.rglob("*.py"))) > 40

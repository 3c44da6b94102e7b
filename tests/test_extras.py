"""A package that is not installed: the error says which extra of captoken brings it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from captoken._format.extras import extra

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]

# What everybody has who has captoken.
ALWAYS = {*sys.stdlib_module_names, "captoken", "msgspec", "nacl"}

# The command line asks once, before it imports anything (tests/cli); its modules are nobody's to import.
MODULES = [path for path in sorted((ROOT / "captoken").rglob("*.py")) if "cli" not in path.parts]


def test_a_package_that_is_not_there_is_told_with_what_to_install() -> None:
    with pytest.raises(ModuleNotFoundError) as told, extra("mcp"):
        import nobody_has_this  # type: ignore[import-not-found]  # noqa: F401
    assert told.value.name == "nobody_has_this"
    assert str(told.value) == (
        "the package nobody_has_this is not installed; install what captoken needs here: pip install 'captoken[mcp]'"
    )


def test_another_version_of_a_package_is_told_with_what_to_install() -> None:
    with pytest.raises(ImportError, match=r"^cannot import name 'nothing' from 'json' .*pip install 'captoken\[a2a\]'$") as told, extra("a2a"):
        from json import nothing  # type: ignore[attr-defined]  # noqa: F401
    assert type(told.value) is ImportError and told.value.name == "json" and told.value.path == json.__file__


def test_what_is_no_failed_import_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="another"), extra("mcp"):
        raise ValueError("another")
    with extra("mcp"):
        pass


def foreign(tree: ast.AST, inside: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Each package in a tree that captoken does not bring, and the extra of the block that it is imported in."""
    for node in ast.iter_child_nodes(tree):
        held = inside
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.With(items=[ast.withitem(context_expr=ast.Call(func=ast.Name(id="extra"), args=[ast.Constant(value=str(name))]))]):
                held = name
            case ast.ImportFrom(module=str(module), level=0):
                yield module.split(".")[0], held
            case ast.Import(names=found):
                yield from ((alias.name.split(".")[0], held) for alias in found)
            case ast.Call(func=ast.Name(id="import_module" | "version"), args=[ast.Constant(value=str(module)), *_]):
                yield module.split(".")[0], held
        yield from foreign(node, held)


def of_package(path: Path, package: str) -> str | None:
    """The extra of a file in a package that imports it first of all: whatever is imported of it, asks for that."""
    above = ast.parse(path.with_name("__init__.py").read_text("utf-8"))
    return next((held for its, held in foreign(above) if its == package), None)


def test_every_import_of_what_captoken_does_not_bring_names_an_extra() -> None:
    """In its block, or in that of its package, so that a new one without it fails here; nothing else stands in such blocks."""
    found = [
        (path.relative_to(ROOT).as_posix(), package, held)
        for path in MODULES
        for package, named in foreign(ast.parse(path.read_text("utf-8")))
        for held in (named or of_package(path, package),)
        if package not in ALWAYS or held
    ]
    # Asked of an mcp that has been imported above.
    found.remove(("captoken/adapters/mcp_client.py", "mcp", None))
    # A service behind AWS signatures alone needs it, and the file that says so is told it.
    found = [one for one in found if one[:2] != ("captoken/adapters/_gateway/signed.py", "botocore")]
    # No extra brings it, and whoever names a keyring in a gateway's file is told so.
    found.remove(("captoken/adapters/_gateway/credentials.py", "keyring", None))
    assert [one for one in found if one[1] in ALWAYS or one[2] not in EXTRAS.keys() - {"all", "bench", "test"}] == []
    assert len(found) > 50


WITHOUT = """
import importlib, json, pkgutil, sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ALWAYS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

ALWAYS = set(sys.argv[1].split())
sys.meta_path.insert(0, Nothing())
import captoken

told = {}
for module in pkgutil.walk_packages(captoken.__path__, "captoken.", onerror=lambda name: None):
    if "._" not in module.name and ".cli" not in module.name and "__main__" not in module.name:
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            told[module.name] = str(error)

from captoken import interop
for function in (interop.to_pymacaroons, interop.from_pymacaroons):
    try:
        function(None)
    except ModuleNotFoundError as error:
        told[f"captoken.interop.{function.__name__}"] = str(error)
print(json.dumps(told))
"""


def test_every_public_module_says_what_to_install() -> None:
    """Where nothing is installed but captoken. The other public modules can be imported there."""
    # What libsodium's binding is made of is there as well.
    always = " ".join(ALWAYS | {"cffi", "_cffi_backend", "_sodium", "pycparser"})
    done = subprocess.run([sys.executable, "-c", WITHOUT, always], capture_output=True, text=True, check=True, timeout=60)
    told = {name: re.search(r"pip install 'captoken\[([\w-]+)\]'$", text) for name, text in json.loads(done.stdout).items()}
    assert {name: match and match[1] for name, match in told.items()} == {
        "captoken.adapters.a2a": "a2a",
        "captoken.adapters.claude_agent": "claude-agent",
        "captoken.adapters.fastapi": "fastapi",
        "captoken.adapters.fastmcp": "fastmcp",
        "captoken.adapters.gateway": "gateway",
        "captoken.adapters.google_adk": "google-adk",
        "captoken.adapters.grpc": "grpc",
        "captoken.adapters.langchain": "langchain",
        "captoken.adapters.mcp": "mcp",
        "captoken.adapters.mcp_client": "mcp",
        "captoken.adapters.mcp_frameworks": "mcp",
        "captoken.adapters.openai_agents": "openai-agents",
        "captoken.adapters.otel": "otel",
        "captoken.adapters.postgres": "postgres",
        "captoken.adapters.pydantic_ai": "pydantic-ai",
        "captoken.adapters.sqlalchemy": "sqlalchemy",
        "captoken.interop.from_pymacaroons": "interop",
        "captoken.interop.to_pymacaroons": "interop",
        "captoken.issuance.registry.postgres": "postgres",
        "captoken.stores.postgres": "postgres",
    }

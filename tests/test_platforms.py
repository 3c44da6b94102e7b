"""What is left out on a platform is counted, and nothing is left out on any other."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from captoken.control import Operator
from captoken.keys import OperatorKey
from captoken.stores.sqlite import SQLiteSnapshots
from tests import platforms

BLOCKED = "import sys\nfor name in ('fcntl', 'pwd', 'grp', 'resource', 'termios'): sys.modules[name] = None\n"
_PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.mark.parametrize("package", platforms.NO_WHEEL)
def test_a_server_that_is_missing_is_a_failure_but_where_there_is_no_wheel(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert platforms.server_of(package).is_dir()

    def missing(name: str) -> None:
        raise platforms.PackageNotFoundError(name)

    monkeypatch.setattr(platforms, "distribution", missing)
    with pytest.raises(AssertionError, match=r"pip install -e '\.\[test,servers\]'"):
        platforms.server_of(package, on="linux")
    with pytest.raises(pytest.skip.Exception) as skipped:
        platforms.server_of(package, on="musl")
    assert platforms.left_out([str(skipped.value), str(skipped.value), "another reason"]) == {f"{package} for musl": 2}


# What needs Linux or macOS, as docs/deployment.md says: offices, trail files, the gateway, issuance, reactions, a trial, the demo's console.
NOT_ON_WINDOWS = {
    "captoken.adapters.gateway", "captoken.adapters.issuance", "captoken.cli.gateway_command", "captoken.cli.trial.command",
    "captoken.cli.demo.beside", "captoken.local", "captoken.stores.trail_file",
}  # fmt: skip
# What the libraries of others need is there before the rest is blocked: they may want more than Windows has, in this imitation.
THEIRS = "asyncio subprocess multiprocessing uvicorn anyio psycopg sqlalchemy fastapi httpx valkey grpc mcp fastmcp a2a joserfc langchain agents pydantic_ai"
EACH = f"""
import importlib, pkgutil
for name in {THEIRS.split()}:
    try: importlib.import_module(name)
    except ImportError: pass
{BLOCKED}
import captoken
for module in pkgutil.walk_packages(captoken.__path__, "captoken.", onerror=lambda name: None):
    try: importlib.import_module(module.name)
    except ImportError as error: "needs Linux or macOS" in str(error) and print(module.name)
"""


def test_what_windows_has_not_is_told_at_once_and_the_rest_can_be_imported() -> None:
    ran = subprocess.run([sys.executable, "-c", EACH], capture_output=True, text=True, check=True)
    found = set(ran.stdout.split())
    assert {name for name in found if "._" not in name} == NOT_ON_WINDOWS
    assert {name.split("._")[0] for name in found - NOT_ON_WINDOWS} <= {"captoken.adapters", "captoken.audit", "captoken.stores"}


def test_a_command_says_it_in_a_line(tmp_path: Path) -> None:
    """Also where it has begun before it needs what Windows has not."""
    key = OperatorKey.generate()
    key.save(tmp_path / "operator.json")
    with closing(SQLiteSnapshots.create(tmp_path / "overlay.db")) as snapshots:
        Operator(key, snapshots, by="ops").renew()
    (tmp_path / "rules.toml").write_text('version = 1\n[rule.a]\nwhen = { codes = ["table"] }\ncount = 5\nthen = "revoke"\nfor = "1h"\nwhy = "a"\n')
    (tmp_path / "trail.jsonl").touch()
    run = "react run rules.toml --trail trail.jsonl --key operator.json --store overlay.db --state react.db"
    code = f"{BLOCKED}import captoken.cli\nsys.argv[1:] = {run.split()}\ncaptoken.cli.main()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 2 and ran.stderr.startswith("captoken: this part of captoken needs Linux or macOS")
    assert len(ran.stderr.splitlines()) == 1


def test_that_is_one_module_s_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delitem(sys.modules, "captoken.stores._posix", raising=False)
    with pytest.raises(ImportError, match="needs Linux or macOS"):
        importlib.import_module("captoken.stores._posix")


def test_the_servers_are_an_extra_of_their_own() -> None:
    """So that the rest of the tests can be installed where a server has no wheel."""
    extras = _PROJECT["optional-dependencies"]
    named = {line.partition(">")[0] for line in extras["servers"]}
    assert named == set(platforms.NO_WHEEL)
    assert not named & {line.partition(">")[0] for line in extras["test"]}

"""What embedders test with: asserts that fail where nobody was asked, files of scenarios, and what each right is good for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


# --- scenarios ------------------------------------------------------------------------------------

HEAD = 'captoken = 1\n[[scenario]]\nname = "one"\n'
SALES = HEAD + 'token = { tables = ["sales"], operations = ["select"], uses = 2, expires_in = 600 }\n'
CALL = '[[scenario.call]]\ntable = "sales"\noperation = "select"\n'


# --- the plugin -----------------------------------------------------------------------------------

SUITE = """
from captoken import Access, current
from captoken.testing import assert_denied
import pytest

@pytest.fixture
def held(issuer, hold):
    return hold(issuer.mint(subject="user:jane", agent="a", task="t", tools={"pay": {}}, expires_in=60, uses=1))

def test_one(held, verifier, clock, keyring):
    pay = Access(tool="pay", arguments={})
    assert current.holding() is held and verifier.check(held.token, pay)
    with assert_denied(code="budget_exhausted"):
        verifier.check(held.token, pay)
    clock.advance(61)
    with assert_denied(code="expired"):
        verifier.check(held.token, pay)

def test_two():
    with pytest.raises(Exception, match="no token is in use"):
        current.holding()
"""


def test_pytest_has_the_fixtures_and_runs_scenarios(tmp_path: Path) -> None:
    """Files that say that they are captoken's; another project's of that name only if it is asked for."""
    (tmp_path / "test_it.py").write_text(SUITE)
    good = "# of the shop\n" + SALES + CALL + 'code = "allowed"\n'
    (tmp_path / "scenarios.toml").write_text(good)
    (tmp_path / "shop_scenarios.toml").write_text(good.replace('"one"', '"two"').replace('"allowed"', '"table"'))
    (tmp_path / "their_scenarios.toml").write_text("title = 'of a game'\n")
    (tmp_path / "pyproject.toml").write_text("[tool.x]\n")
    ran = pytested(tmp_path)
    assert "1 failed, 3 passed" in ran, ran
    assert "call 1: expected table, and came allowed select on table sales" in ran and "captoken_pytest.py" not in ran
    ran = pytested(tmp_path, "their_scenarios.toml")
    assert "no file of scenarios" in ran and "1 error" in ran


def pytested(folder: Path, *arguments: str) -> str:
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "captoken_pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout


def test_the_plugin_loads_nothing_of_captoken() -> None:
    """It is loaded before coverage begins: what it loaded would look as if no test ran it."""
    script = "import sys, captoken_pytest; print([name for name in sys.modules if name.split('.')[0] == 'captoken'])"
    ran = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"

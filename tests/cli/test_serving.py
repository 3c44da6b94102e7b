"""`captoken issue serve`, a real process: its trail, and what it takes anew while it serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from captoken import Keyring, Token
from captoken.control import Operator, Overlay
from captoken.issuance.registry import Ending
from captoken.issuance.registry.sqlite import SQLiteRegistry
from captoken.keys import AuditKey, OperatorKey
from captoken.stores.sqlite import SQLiteSnapshots
from tests.cli.test_issue import free_port
from tests.issuance.signing import Provider
from tests.issuance.test_issuance import ASSERTION

CAPTOKEN = [sys.executable, "-c", "from captoken.cli import main; main()"]
SOURCE = str(Path(__file__).parents[2])

POLICY = """
version = 1
[service]
origin = "https://issuer.example"
per_minute = 10000
[provider.ci]
kind = "workload"
issuer = "https://ci.example"
jwks = "{folder}/ci-keys.json"
subject = "ci:{{repository_id}}"
[resource.sales-db]
[grant.nightly]
subject = {{ provider = "ci", repository_id = "42" }}
agents = ["nightly"]
resources = ["sales-db"]
give = {{ allow = {{ "sales" = ["select"] }}, expires_in = 300 }}
[[test]]
subject = {{ provider = "ci", repository_id = "42" }}
allows = [{{ table = "sales", operation = "select" }}]
"""


def captoken(*arguments: str, **facts: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CAPTOKEN, *arguments], env={**os.environ, "PYTHONPATH": SOURCE}, text=True, capture_output=True, timeout=60, **facts
    )  # fmt: skip


class Served:
    """A service in a process of its own, and the files that it was started with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ci = Provider("c")
        self.keyring = Keyring.generate()
        self.keyring.save(folder / "keyring.json")
        (folder / "ci-keys.json").write_bytes(self.ci.jwks())
        self.write_policy()
        SQLiteRegistry.create(folder / "tasks.db", floor=0).close()
        self.port = 0
        self.process: Any = None

    def write_policy(self, old: str = "", new: str = "") -> None:
        """At once: whoever looks sees the old file or the new one."""
        text = POLICY.format(folder=self.folder)
        assert old in text
        fresh = self.folder / "policy.part"
        fresh.write_text(text.replace(old, new) if old else text)
        fresh.rename(self.folder / "policy.toml")

    @contextmanager
    def running(self, *more: str) -> Iterator[None]:
        self.port = free_port()
        command = [
            *CAPTOKEN, "issue", "serve", "policy.toml", "--keyring", "keyring.json", "--registry", "tasks.db", "--port", str(self.port), *more,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=self.folder, env={**os.environ, "PYTHONPATH": SOURCE}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            self.wait_for(lambda: self.health().status_code == 200)
            yield
        finally:
            self.process.send_signal(signal.SIGTERM)
            self.out, self.err = self.process.communicate(timeout=20)
        assert "Traceback" not in self.err, self.err

    def wait_for(self, what: Any) -> None:
        """Until it is so; within twenty seconds."""
        for _ in range(400):
            assert self.process.poll() is None, self.process.communicate()[1]
            try:
                if what():
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError("it does not come to that")

    def health(self) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=5)

    def assertion(self, **claims: Any) -> str:
        now = int(time.time())
        made = {"iss": "https://ci.example", "sub": "repo:acme/x", "aud": "https://issuer.example", "iat": now, "exp": now + 300}
        return self.ci.sign({**made, "repository_id": "42", "jti": os.urandom(8).hex(), **claims})

    def ask(self, **claims: Any) -> httpx.Response:
        form = {
            "grant_type": "client_credentials", "client_assertion": self.assertion(**claims), "client_assertion_type": ASSERTION,
            "resource": "sales-db",
        }  # fmt: skip
        return httpx.post(f"http://127.0.0.1:{self.port}/token", data=form, timeout=10)


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path)


def test_the_trail_goes_on_over_a_restart_and_the_commands_read_it(served: Served, tmp_path: Path) -> None:
    key = AuditKey.generate()
    key.save(tmp_path / "audit.json")
    tasks: list[str] = []
    for _ in range(2):
        with served.running("--trail", "trail.jsonl", "--trail-key", "audit.json"):
            said = served.ask()
            assert said.status_code == 200, said.text
            tasks.append(said.json()["task"])
            assert served.ask(repository_id="7").json()["error"] == "unauthorized_client"
            assert served.ask(aud="https://other.example").status_code == 401

    found = captoken("audit", "verify", "trail.jsonl", "--server", key.public, cwd=tmp_path)
    assert found.stdout == "WHOLE    8 records, 0 decisions; signed up to record 7\n", found.stderr
    logged = captoken("audit", "log", "trail.jsonl", cwd=tmp_path).stdout.splitlines()
    assert [line.split("  ")[1].split(" ")[0] for line in logged] == ["issued", "access_denied"] * 2
    assert f"ci repo:acme/x: task {tasks[0]} by nightly, to nightly for ci:42" in logged[0]
    assert logged[1].endswith("ci repo:acme/x: asked for a task; no grant is for this caller (no grant fits)")
    denied = captoken("audit", "log", "trail.jsonl", "--denied", "--json", cwd=tmp_path).stdout
    assert denied.count('"code": "access_denied"') == 2 and '"decisions": []' in denied
    for more, many in ((("--task", tasks[1]), 1), (("--agent", "nightly"), 2), (("--agent", "other"), 0)):
        assert len(captoken("audit", "log", "trail.jsonl", *more, cwd=tmp_path).stdout.splitlines()) == many

    tree = captoken("audit", "tree", "trail.jsonl", "--task", tasks[1], cwd=tmp_path).stdout
    assert f"ci:42 started task {tasks[1]}" in tree and "nightly (issued): not used" in tree and tasks[0] not in tree
    assert captoken("audit", "unused", "trail.jsonl", cwd=tmp_path).stdout.count("0 allowed") == 2


WRITES = ('"sales" = ["select"] }, expires', '"sales" = ["select", "insert"] }, expires')


def operations(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return list(answer.json()["authorization_details"][0]["operations"])


def kid(answer: httpx.Response) -> str:
    return Token.parse(answer.json()["access_token"]).unverified.root.key_id


def test_a_policy_that_changes_is_taken_and_one_whose_test_fails_is_not(served: Served, tmp_path: Path) -> None:
    with served.running("--every", "1s"):
        assert operations(served.ask()) == ["select"]
        served.write_policy(*WRITES)
        served.wait_for(lambda: operations(served.ask()) == ["insert", "select"])

        served.write_policy('"sales" = ["select"] }, expires', '"hr" = ["select"] }, expires')
        served.wait_for(lambda: "reload" in served.health().json())
        health = served.health()
        assert health.status_code == 200 and health.json()["status"] == "ok"
        assert operations(served.ask()) == ["insert", "select"], "the old one stands"
        served.write_policy()
        served.wait_for(lambda: served.health().json() == {"status": "ok"})
        assert operations(served.ask()) == ["select"]
    assert "test 1: nightly denies" in served.err and served.err.count("stands") == 3


def test_a_signal_has_all_taken_anew(served: Served, tmp_path: Path) -> None:
    """Long before anybody looks: the policy, the keyring, and the key of the operator."""
    keys = [OperatorKey.generate(), OperatorKey.generate()]
    keys[0].save(tmp_path / "operator.json")
    overlay = SQLiteSnapshots.create(tmp_path / "overlay.db")
    Operator(keys[0], overlay, by="ops").renew()
    rotated = served.keyring.rotate()
    with served.running("--every", "1h", "--operator", "operator.json", "--overlay", "overlay.db"):
        old = served.ask()
        assert kid(old) == served.keyring.current and operations(old) == ["select"]

        served.write_policy(*WRITES)
        rotated.save(tmp_path / "keyring.json")
        keys[1].save(tmp_path / "operator.json")
        served.process.send_signal(signal.SIGHUP)
        served.wait_for(lambda: operations(served.ask()) == ["insert", "select"])
        new = served.ask()
        assert kid(new) == rotated.current

        registry = SQLiteRegistry(tmp_path / "tasks.db")
        registry.end(Ending(now=int(time.time()), task=new.json()["task"]))
        served.wait_for(lambda: any(entry.select.task == new.json()["task"] for entry in Overlay.open(overlay.load(), both(keys)).entries))
        assert Overlay.open(overlay.load(), [keys[1].public]).entries
        registry.close()
    overlay.close()
    assert int((tmp_path / "operator.json.seen").read_text().split()[0]) >= 2, "also after a signal that ended it"


def both(keys: list[OperatorKey]) -> list[str]:
    return [key.public for key in keys]

"""`captoken gateway run … -- COMMAND`: the command has a token and an address, and no key.

Where the tests run as root the command is the user `nobody`, as is meant to be.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

import httpx
import pytest

from captoken import Issuer, Keyring, Token
from captoken.stores.sqlite import SQLiteLedger
from tests.adapters.serving import listening, served
from tests.adapters.test_gateway import KEY, TABLE, Service

IS_ROOT = sys.platform != "win32" and os.geteuid() == 0
WHOSE = ["--user", "nobody"] if IS_ROOT else ["--same-user"]
ENV = 'env = { PAYMENTS_KEY = "{token}", PAYMENTS_URL = "{address}/v1" }'
as_root = pytest.mark.skipif(not IS_ROOT, reason="changes to another user")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="users of POSIX")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others can go through, as those are that people make."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def lay(folder: Path, url: str = "http://127.0.0.1:1", credential: str = '"file:key"', **minted: object) -> None:
    keyring = Keyring.generate()
    keyring.save(folder / "keyring.json")
    SQLiteLedger.create(folder / "used.db", keys=keyring.key_ids).close()
    more = 'ledger = "used.db"\nlisten = "127.0.0.1:0"'
    text = TABLE.format(origin="http://127.0.0.1:1", url=url, credential=credential, token='"bearer"', more=more)
    (folder / "gateway.toml").write_text(text.replace("[service.payments]\n", f"[service.payments]\n{ENV}\n", 1))
    said = {"audience": "payments", "tools": {"payments.*": {}}, "budget": {"usd_cents": 900}, **minted}
    held = Issuer(keyring).mint(subject="user:jane", agent="support", task="returns", **said)  # type: ignore[arg-type]
    for name, secret in (("key", KEY), ("held.token", held.serialize())):
        (folder / name).touch(0o600)
        (folder / name).write_text(secret)


def command(folder: Path, *script: str, whose: list[str] = WHOSE, options: tuple[str, ...] = ()) -> list[str]:
    run = [sys.executable, "-m", "captoken", "gateway", "run", str(folder / "gateway.toml")]
    return [*run, "--token-file", str(folder / "held.token"), *whose, *options, "--", *script]


def refused(folder: Path, *script: str, **given: object) -> str:
    """What is said to whoever starts it so; nothing is started."""
    done = subprocess.run(command(folder, *(script or ("echo", "started"))), capture_output=True, text=True, timeout=60, **given)  # type: ignore[call-overload]
    assert done.returncode == 2 and "started" not in done.stdout
    return str(done.stderr)


def test_the_command_reaches_the_service_and_has_no_key(folder: Path) -> None:
    """Not in its environment, nor in that of the gateway, which it cannot read."""
    service = Service()
    with served(service, listening()) as url:
        lay(folder, url, '"env:PAYMENTS_SECRET"')
        script = 'env; echo end; cat "/proc/$PPID/environ" || echo closed; read line; exit 7'
        known = {**os.environ, "PAYMENTS_SECRET": KEY, "OTHER_SECRET": "other", "PASSED": "yes"}
        started = command(folder, "/bin/sh", "-c", script, options=("--pass", "PASSED"))
        with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=known) as running:
            assert running.stdout is not None and running.stdin is not None
            lines = list(takewhile(lambda line: line != "end\n", running.stdout))
            assert running.stdout.readline() == "closed\n"
            env = dict(line.rstrip("\n").split("=", 1) for line in lines)
            ask = {"Authorization": f"Bearer {env['PAYMENTS_KEY']}"}
            answer = httpx.post(f"{env['PAYMENTS_URL']}/refunds", data={"charge": "ch_1", "amount": "500"}, headers=ask, trust_env=False)
            running.stdin.write("\n")
            running.stdin.close()
            assert running.wait(20) == 7
    assert answer.status_code == 200 and service.requests[0]["headers"]["authorization"] == f"Bearer {KEY}"
    assert env.pop("PASSED") == "yes" and KEY not in env.values()
    usual = {"PATH", "TERM", "LANG", "TZ", "COLORTERM", "NO_COLOR", "HOME", "USER", "LOGNAME", "PAYMENTS_KEY", "PAYMENTS_URL"}
    assert env.keys() - {"PWD", "SHLVL", "_", "OLDPWD"} <= usual
    held = (folder / "held.token").read_text()
    assert env["PAYMENTS_KEY"] != held and env["PAYMENTS_KEY"].startswith("cap1_")
    if IS_ROOT:
        assert env["USER"] == "nobody"


def test_it_gets_signals_and_its_end_is_that_of_the_gateway(folder: Path) -> None:
    lay(folder)
    script = "trap 'echo got; exit 5' TERM; trap 'echo hung' HUP; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(command(folder, "/bin/sh", "-c", script), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        for number, said in ((signal.SIGHUP, "hung\n"), (signal.SIGTERM, "got\n")):
            running.send_signal(number)
            assert running.stdout.readline() == said
        assert running.wait(20) == 5
    done = subprocess.run(command(folder, "/bin/sh", "-c", "kill -9 $$"), capture_output=True, timeout=60)
    assert done.returncode == 128 + 9


def test_no_program_that_it_starts_becomes_another_user(folder: Path) -> None:
    lay(folder)
    done = subprocess.run(command(folder, "cat", "/proc/self/status"), capture_output=True, text=True, timeout=60)
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == ("1" if IS_ROOT else "0")
    if IS_ROOT:
        assert status["Uid"].split() == ["65534"] * 4 and status["CapEff"] == "0" * 16


def _link(folder: Path) -> None:
    """The link is where nobody else can go, and the file is not."""
    closed = folder / "closed"
    closed.mkdir(0o700)
    (closed / "key").symlink_to(folder / "key")
    (folder / "key").chmod(0o644)
    text = (folder / "gateway.toml").read_text()
    (folder / "gateway.toml").write_text(text.replace("file:key", "file:closed/key"))


NOBODY = 65534
OPEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "the key can be read": (lambda folder: (folder / "key").chmod(0o644), "key"),
    "the key is the user's": (lambda folder: os.chown(folder / "key", NOBODY, 0), "key"),
    "the keyring can be read": (lambda folder: (folder / "keyring.json").chmod(0o644), "keyring.json"),
    "the token can be read": (lambda folder: (folder / "held.token").chmod(0o644), "held.token"),
    "the ledger can be written": (lambda folder: (folder / "used.db").chmod(0o666), "used.db"),
    "the file can be written": (lambda folder: (folder / "gateway.toml").chmod(0o666), "gateway.toml"),
    "all can be replaced": (lambda folder: folder.chmod(0o777), "keyring.json"),
    "the folder is the user's": (lambda folder: os.chown(folder, NOBODY, 0), "keyring.json"),
    "a link leads to what can be read": (_link, "key"),
}


@as_root
@pytest.mark.parametrize("how", OPEN)
def test_a_user_who_can_read_a_secret_or_change_a_file_is_refused(folder: Path, how: str) -> None:
    lay(folder)
    assert subprocess.run(command(folder, "true"), capture_output=True, timeout=60).returncode == 0
    change, name = OPEN[how]
    change(folder)
    said = refused(folder)
    assert "the user nobody can read" in said and f"/{name}, or change or replace it" in said


@pytest.mark.parametrize(("name", "value"), [("A", "{tokens}"), ("A B", "{token}"), ("A", "a\\nb"), ("", "x")])
def test_a_variable_that_says_something_else_is_refused(folder: Path, name: str, value: str) -> None:
    lay(folder)
    text = (folder / "gateway.toml").read_text()
    (folder / "gateway.toml").write_text(text.replace(ENV, f'env = {{ "{name}" = "{value}" }}'))
    assert "service.payments.env" in refused(folder)


def test_what_cannot_be_meant_is_refused_before_anything_starts(folder: Path) -> None:
    lay(folder)
    run = [sys.executable, "-m", "captoken", "gateway", "run", str(folder / "gateway.toml")]
    token = ["--token-file", str(folder / "held.token")]
    cases = {
        "--token-file FILE and -- COMMAND go together": [*token, *WHOSE],
        "go together": [*WHOSE, "--", "true"],
        "whose is the command?": [*token, "--", "true"],
        "--same-user is for trying out": [*token, "--same-user", "--user", "nobody", "--", "true"],
    }
    if IS_ROOT:
        cases["there is no user nobody-of-that-name"] = [*token, "--user", "nobody-of-that-name", "--", "true"]
        cases["the user root can read"] = [*token, "--user", "root", "--", "true"]
    for said, given in cases.items():
        done = subprocess.run([*run, *given], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and said in done.stderr, said
    assert "No such file" in refused(folder, "/nonexistent/command")


def test_a_key_of_a_service_is_not_passed_on(folder: Path) -> None:
    lay(folder, credential='"env:PAYMENTS_SECRET"')
    done = subprocess.run(command(folder, "env", options=("--pass", "PAYMENTS_SECRET")), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "that is a key of a service" in done.stderr


def test_a_token_without_an_end_is_not_handed_out(folder: Path) -> None:
    """Who presents it says how long it lives, and here nobody could."""
    lay(folder, expires_at=None)
    assert "the token never ends" in refused(folder)


def test_of_a_set_the_command_gets_the_token_of_the_service(folder: Path) -> None:
    lay(folder)
    issuer = Issuer(Keyring.load(folder / "keyring.json"))

    def hold(*servers: str) -> None:
        made = issuer.mint_set(subject="u", agent="a", task="t", servers={server: {"tools": {"payments.*": {}}} for server in servers})
        (folder / "held.token").write_text(made.serialize())

    hold("payments", "mail")
    done = subprocess.run(command(folder, "/bin/sh", "-c", "echo $PAYMENTS_KEY"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and Token.parse(done.stdout.splitlines()[0]).unverified.root.audience == "payments"
    hold("mail")
    assert "the set has no token for payments: it has tokens for mail" in refused(folder)


def test_it_is_said_where_the_same_user_runs_it(folder: Path) -> None:
    lay(folder)
    done = subprocess.run(command(folder, "true", whose=["--same-user"], options=("--json",)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout)["services"] == ["payments"]
    assert "the command can read every key" in done.stderr

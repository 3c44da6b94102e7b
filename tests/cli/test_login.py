"""`captoken login` at a certified provider, `captoken exchange` at the service: from a person to a token that a server takes."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from captoken import Access, Token, TokenSet
from captoken.cli import oidc
from captoken.cli.app import run
from captoken.issuance.jose import taken_apart
from captoken.keys import HolderKey
from tests.cli.test_transcripts import environment
from tests.issuance.office import Office, at_sales, opened
from tests.issuance.providers import Browser

_address = re.compile(r"log in at (\S+)").search


@pytest.fixture(scope="module")
def office(issuer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with opened(tmp_path_factory.mktemp("office"), issuer=issuer) as one:
        yield one


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Where nobody logs in, and workloads ask by themselves."""
    with opened(tmp_path_factory.mktemp("service")) as one:
        yield one


def logged_in(folder: Path, issuer: str, *options: str, person: str = "jane") -> tuple[int, str, str]:
    """What `captoken login` writes, and its exit code; somebody logs in meanwhile."""
    command = ["captoken", "login", issuer, "--client-id", "captoken-cli", "--no-browser", *options]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    found = _address(line)
    if found is not None:
        assert "close this page" in Browser(person).go(found[1]).text.lower()
    out, err = process.communicate(timeout=30)
    return process.returncode, out, line + err


def cli(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=30
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.node
def test_a_person_logs_in_and_starts_a_task(issuer: str, office: Office, tmp_path: Path) -> None:
    code, out, err = logged_in(tmp_path, issuer)
    assert code == 0 and "jane has logged in" in err, err
    (tmp_path / "id.token").write_text(out)
    (tmp_path / "workload.jwt").write_text(office.workload())
    claims = taken_apart(out.strip()).claims
    assert claims["groups"] == ["finance"] and "auth_time" in claims and out.strip() not in err

    asked = "--grant report --resource sales-db --agent orchestrator --task q3 --tables sales --operations select"
    command = f"captoken exchange {office.origin} --login id.token --actor workload.jwt {asked}"
    done = cli(tmp_path, f"{command} > root.token")
    assert (done.returncode, done.stderr) == (0, "")
    shown = cli(tmp_path, "captoken present --audience sales-db < root.token").stdout.strip()
    assert at_sales(shown) == "allowed" and at_sales(shown, Access(table="sales", operation="insert")) != "allowed"
    root = Token.parse((tmp_path / "root.token").read_text().strip()).unverified.root
    assert root.subject == "acme:jane" and root.task.startswith("q3-")

    joined = cli(
        tmp_path,
        f"captoken exchange {office.origin} --login id.token --actor workload.jwt --grant sentiment --join root.token --json",
    )
    answer = json.loads(joined.stdout)
    assert Token.parse(answer["token"]).unverified.root.task == root.task
    assert answer.keys() == {"token", "token_id", "link_id", "expires_at", "characters"}


@pytest.mark.node
def test_what_login_writes_for_machines(issuer: str, tmp_path: Path) -> None:
    code, out, _ = logged_in(tmp_path, issuer, "--json", "--max-age", "1h", person="omar")
    said = json.loads(out)
    assert code == 0 and said.keys() == {"id_token", "issuer", "sub", "auth_time", "expires_at"}
    assert said["sub"] == "omar" and said["issuer"] == issuer and abs(said["auth_time"] - time.time()) < 60


@pytest.mark.node
def test_a_token_that_is_bound_to_a_key(issuer: str, office: Office, tmp_path: Path) -> None:
    key = HolderKey.generate()
    key.save(tmp_path / "agent.json")
    _, out, _ = logged_in(tmp_path, issuer)
    (tmp_path / "id.token").write_text(out)
    done = cli(
        tmp_path, f"captoken exchange {office.origin} --login id.token --grant bound --resource sales-db --signer agent.json"
    )
    assert Token.parse(done.stdout.strip()).unverified.key == key.public


def test_a_workload_by_its_platform(service: Office, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(service.workload(jti="by platform"))
    command = f"captoken exchange {service.origin} --workload --grant nightly --resource sales-db"
    done = cli(tmp_path, f"CAPTOKEN_IDENTITY_TOKEN_FILE=token {command}")
    assert Token.parse(done.stdout.strip()).unverified.holder == "nightly"
    assert "no platform says who this is" in cli(tmp_path, command).stderr


def test_several_servers_get_a_set(service: Office, tmp_path: Path) -> None:
    (tmp_path / "id.token").write_text(service.login(jti="set"))
    (tmp_path / "workload.jwt").write_text(service.workload())
    command = f"captoken exchange {service.origin} --login id.token --actor workload.jwt --grant brief"
    done = cli(tmp_path, f"{command} --resource mail --resource sales-db --tables sales --operations select > root.set")
    assert (done.returncode, done.stderr) == (0, "")
    held = TokenSet.parse((tmp_path / "root.set").read_text().strip())
    assert held.servers == ("mail", "sales-db")
    shown = cli(tmp_path, "captoken present --audience sales-db < root.set").stdout.strip()
    assert at_sales(shown) == "allowed" and at_sales(shown, Access(table="sales", operation="insert")) != "allowed"

    joined = cli(tmp_path, f"{command} --set --join root.set --server mail --expires-in 60s --json")
    said = json.loads(joined.stdout)
    assert said.keys() == {"set", "servers", "expires_at", "characters"} and said["servers"] == ["mail", "sales-db"]
    both = TokenSet.parse(said["set"])
    assert both.token("mail").unverified.root.task == held.token("mail").unverified.root.task
    ends = [both.token(name).unverified.expires_at or 0 for name in both.servers]
    assert ends[1] - ends[0] == 840 and said["expires_at"] == ends[0]

    one = cli(tmp_path, f"{command} --resource mail --join root.set")
    assert Token.parse(one.stdout.strip()).unverified.root.audience == "mail"
    wrong = cli(tmp_path, f"{command} --resource mail --resource hr-db")
    assert wrong.returncode == 2 and "invalid_target: the grant has no such resource" in wrong.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("--grant report", "say who asks"),
        ("--actor - --resource mail --server mail", "--server is for a set"),
        ("--actor a --workload", "one of the two"),
        ("--actor - --task q3 --join root.token", "--task or --join"),
        ("--actor - --login -", "two things from standard input"),
        ("--actor missing", "missing"),
    ],
)
def test_what_exchange_is_asked_wrongly(arguments: str, words: str, service: Office, tmp_path: Path) -> None:
    done = cli(tmp_path, f"captoken exchange {service.origin} {arguments} < /dev/null")
    assert done.returncode == 2 and words in done.stderr and done.stdout == "", done.stderr


def test_what_the_service_refuses_is_one_line_with_its_code(service: Office, tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text(service.workload(jti="refused"))
    done = cli(tmp_path, f"captoken exchange {service.origin} --actor jwt --grant q9")
    assert (done.returncode, done.stdout) == (2, "") and "invalid_scope: there is no such grant" in done.stderr
    (tmp_path / "jwt").write_text(service.workload(aud="https://kubernetes.default.svc"))
    done = cli(tmp_path, f"captoken exchange {service.origin} --actor jwt --grant nightly")
    assert done.returncode == 2 and "it is not sent" in done.stderr and (tmp_path / "jwt").read_text() not in done.stderr


def test_a_login_is_not_kept_on(tmp_path: Path) -> None:
    done = cli(tmp_path, "captoken login http://127.0.0.1:9 --client-id captoken-cli --scope offline_access")
    assert done.returncode == 2 and "not kept on" in done.stderr
    done = cli(tmp_path, "captoken login http://login.example --client-id captoken-cli")
    assert done.returncode == 2 and "https" in done.stderr


@pytest.mark.node
def test_on_another_device(issuer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The person has a code typed, at the page that the terminal names."""
    pauses: list[float] = []

    def sleep(pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 2:  # the first time nobody has, which is waited out
            found = re.search(r"log in at (\S+)  and there the code  (\S+)", capsys.readouterr().err)
            assert found is not None
            assert "success" in Browser().go(found[1], user_code=found[2]).text.lower()

    monkeypatch.setattr(oidc.Provider, "by_device", functools.partialmethod(oidc.Provider.by_device, sleep=sleep))
    assert run(["login", issuer, "--client-id", "captoken-cli", "--device", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sub"] == "jane" and len(pauses) == 2

"""`captoken issue serve`: a real process, asked over HTTP."""

import shutil
import signal
import socket
import subprocess
import time

import httpx
import pytest

from tests.cli.test_transcripts import HERE, environment

MADE = """
captoken keygen --out keyring.json
captoken keygen discharger --out lease.json > lease.public
captoken keygen operator --out operator.json > operator.public
captoken renew --key operator.json --store overlay.db --create
"""
SERVE = "captoken issue serve policy.toml --keyring keyring.json --registry tasks.db --lease lease.json --json"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def answer(url, process):
    """What it says, once it is there."""
    for _ in range(200):
        assert process.poll() is None, process.communicate()[1]
        try:
            return httpx.get(url, timeout=5)
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("it does not answer")


@pytest.mark.parametrize("more", ["", "--operator operator.json --overlay overlay.db"])
def test_it_serves_until_a_signal_and_keeps_its_registry(tmp_path, more):
    shutil.copy(HERE / "policy.toml", tmp_path)
    # Keys of providers that are not there: it serves all the same, and says so.
    subprocess.run(["sh", "-ec", MADE], cwd=tmp_path, env=environment(tmp_path), check=True, capture_output=True)
    for create in ("--create", ""):
        port = free_port()
        command = f"exec {SERVE} --port {port} {create} {more}"
        process = subprocess.Popen(
            ["sh", "-c", command], cwd=tmp_path, env=environment(tmp_path), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            said = answer(f"http://127.0.0.1:{port}/.well-known/oauth-authorization-server", process)
            assert said.json()["token_endpoint"] == "https://issuer.example/token"
            assert httpx.get(f"http://127.0.0.1:{port}/health").json() == {"status": "ok"}
            assert httpx.post(f"http://127.0.0.1:{port}/token", data={"grant_type": "password"}).json()["error"] == "unsupported_grant_type"
        finally:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
        assert f'"port": {port}' in out and "is served at" in err and "Traceback" not in err, err
        assert (tmp_path / "tasks.db").exists()

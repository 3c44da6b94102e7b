"""What the pages say of Kubernetes, GitHub Actions and SPIRE is done, against stand-ins, and what goes wrong is what they say."""

from __future__ import annotations

import base64
import json
import re
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from time import sleep, time
from typing import Any

import pytest
import yaml

from tests.test_docs import PAGES, RECIPES

from .authority import Authority
from .recipes import Recipe
from .standins import Agent, Platform, agent, live, platform, proxy
from .test_identity import PLATFORMS


def test_every_recipe_is_done_here() -> None:
    assert {page.name for page in PAGES if page.stem.startswith("issuance-")} == RECIPES


def told(recipe: Recipe, said: str, *shown: str) -> None:
    """What came out has what the page shows."""
    recipe.says(*shown)
    for one in shown:
        assert one in said, said


# --- Kubernetes -----------------------------------------------------------------------------------

POD = {
    "namespace": "risk",
    "node": {"name": "my-node", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
    "pod": {"name": "report", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
    "serviceaccount": {"name": "orchestrator", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"},
}


class Kubelet:
    """Writes what the page's manifest asks for: projected tokens, for a pod of that service account."""

    def __init__(self, recipe: Recipe, cluster: Platform) -> None:
        self.recipe, self.cluster = recipe, cluster
        (manifest,) = recipe.blocks("yaml")
        self.account, self.pod = list(yaml.safe_load_all(manifest))

    def environ(self) -> dict[str, str]:
        (container,) = self.pod["spec"]["containers"]
        return {one["name"]: one["value"] for one in container["env"]}

    def write(self, *, audience: str | None = None, name: str | None = None) -> None:
        """Fresh tokens, at the paths of the manifest. Of its own audience, unless another one is given."""
        (container,) = self.pod["spec"]["containers"]
        mounts = {one["name"]: Path(one["mountPath"]) for one in container["volumeMounts"]}
        for volume in self.pod["spec"]["volumes"]:
            folder = mounts[volume["name"]]
            folder.mkdir(exist_ok=True)
            for source in volume.get("projected", {}).get("sources", []):
                stated = source["serviceAccountToken"]
                assert stated["expirationSeconds"] >= 600  # which the API server insists on
                (folder / stated["path"]).write_text(self.token(audience or stated["audience"], stated["expirationSeconds"], name))

    def token(self, audience: str, seconds: int, name: str | None = None) -> str:
        """https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#schema-for-service-account-private-claims"""
        account = self.account["metadata"]
        assert self.pod["spec"]["serviceAccountName"] == account["name"]
        sub = f"system:serviceaccount:{account['namespace']}:{name or account['name']}"
        return self.cluster.sign({"aud": [audience], "kubernetes.io": POD, "sub": sub, **live(seconds)})


@pytest.fixture
def cluster() -> Iterator[Platform]:
    with platform() as made:
        yield made


def test_kubernetes(cluster: Platform, tmp_path: Path) -> None:
    places = {"https://cluster.example": cluster.url, "/run/identity": f"{tmp_path}/identity", "/run/keys": f"{tmp_path}/keys"}
    recipe = Recipe("issuance-kubernetes.md", tmp_path, places)
    recipe.program("kubectl", f'[ "$1 $2" = "get --raw" ]; exec curl -sf {cluster.url}"$(echo "$3" | sed s,/openid/v1/jwks,/keys,)"')
    ask_issuer, _, keys, shell, curl = recipe.blocks("sh")
    assert recipe.sh(ask_issuer).strip() == cluster.url
    recipe.policy()
    recipe.sh(keys)
    assert json.loads((tmp_path / "cluster-keys.json").read_text())["keys"][0]["kid"] == "key-1"

    kubelet = Kubelet(recipe, cluster)
    pod = kubelet.environ()
    with recipe.served():
        kubelet.write()
        text = recipe.python("print(text)", **pod)
        assert recipe.at_sales(text) == "allowed" and recipe.at_sales(text, "hr") == "table"
        # The same key and the same token: a container that starts again.
        assert recipe.at_sales(recipe.python("print(text)", **pod)) == "allowed"

        # The page's other ways, each with a token that no key was used with.
        told(recipe, recipe.sh(shell, code=2, **pod), "the assertion cannot start a task: get a new one")
        kubelet.write()
        recipe.sh(shell.partition("\n")[2], **pod)
        assert recipe.sh("captoken inspect < root.token").count("cluster:system:serviceaccount:risk:orchestrator") == 1
        kubelet.write()
        text = recipe.sh(curl, **pod).strip()
        assert recipe.at_sales(text, columns=["region"]) == "allowed" and recipe.at_sales(text, columns=["buyer"]) == "column"
        assert "get a new one" in recipe.sh(curl.partition("|")[0])

        wrong_kubernetes(recipe, kubelet, shell.partition("\n")[2], curl.partition("|")[0], pod)


def wrong_kubernetes(recipe: Recipe, kubelet: Kubelet, shell: str, curl: str, pod: dict[str, str]) -> None:
    """Each line of the page's table."""
    told(recipe, recipe.sh(shell, code=2), "no platform says who this is")
    told(recipe, recipe.sh(shell, code=2, CAPTOKEN_IDENTITY_TOKEN_FILE="/nowhere"), "FileNotFoundError")
    kubelet.write(audience="https://kubernetes.default.svc.cluster.local")
    told(recipe, recipe.sh(shell, code=2, **pod), "it is not sent")
    told(recipe, recipe.sh(curl), "and not for this service alone")
    kubelet.write(name="other")
    told(recipe, recipe.sh(shell, code=2, **pod), "the grant is not for this caller")
    assert "info: no task is started: the grant is not for this caller not so: sub is system:serviceaccount:risk:orchestrator" in recipe.log
    kubelet.write()
    told(recipe, recipe.sh(f"captoken exchange {recipe.service} --workload --grant report", code=2, **pod), "the grant needs a DPoP proof")
    kubelet.cluster.url += "/"
    kubelet.write()
    told(recipe, recipe.sh(shell, code=2, **pod), "its issuer is not known here")
    explained = recipe.sh("captoken issue explain policy.toml --subject '{\"provider\": \"cluster\", \"sub\": \"system:serviceaccount:risk:other\"}' || true")
    assert "report: not so: sub is system:serviceaccount:risk:orchestrator" in explained


def test_a_cluster_that_is_asked_each_time(cluster: Platform, tmp_path: Path) -> None:
    own = tmp_path / "serviceaccount"
    own.mkdir()
    (own / "token").write_text("of-the-service")
    (own / "ca.crt").write_bytes(Authority().pem)
    places = {
        "https://cluster.example": cluster.url,
        "https://kubernetes.default.svc": cluster.url,
        "/var/run/secrets/kubernetes.io/serviceaccount": str(own),
        "/run/identity": f"{tmp_path}/identity",
        "/run/keys": f"{tmp_path}/keys",
    }
    recipe = Recipe("issuance-kubernetes.md", tmp_path, places)
    recipe.policy()
    kubelet = Kubelet(recipe, cluster)
    pod = kubelet.environ()
    with recipe.served(by_program=True):
        kubelet.write()
        assert recipe.at_sales(recipe.python("print(text)", **pod)) == "allowed"
        (asked,) = cluster.reviewed
        assert asked == {"token": (tmp_path / "identity/token").read_text(), "audiences": [recipe.service]}
        cluster.gone = True
        shell = f"captoken exchange {recipe.service} --workload --signer keys/agent.json --grant report"
        told(recipe, recipe.sh(shell, code=2, **pod), "its issuer no longer confirms it")
        (own / "token").write_text("of-another")
        told(recipe, recipe.sh(shell, code=2, **pod), "this service cannot ask the assertion's issuer now")


def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    """And the same policy with the file of its keys beside it, as the page says."""
    with platform() as cluster:
        keys = json.dumps({"keys": [key.jwk() for key in cluster.keys]})
    places: dict[str, Any] = {"https://cluster.example": cluster.url, "/run/identity": f"{tmp_path}/identity", "/run/keys": f"{tmp_path}/keys"}
    recipe = Recipe("issuance-kubernetes.md", tmp_path, places)
    policy = recipe.policy()
    kubelet = Kubelet(recipe, cluster)
    shell = recipe.blocks("sh")[3]
    with recipe.served(is_first=True):
        kubelet.write()
        told(recipe, recipe.sh(shell, code=2, **kubelet.environ()), "this service cannot get the keys of the assertion's issuer now")
        assert "warning: the keys of provider cluster: All connection attempts failed" in recipe.log

    (tmp_path / "cluster-keys.json").write_text(keys)
    (tmp_path / "policy.toml").write_text(policy.replace('subject = "cluster:{sub}"', 'jwks = "cluster-keys.json"\nsubject = "cluster:{sub}"'))
    for made in ("keyring.json", "tasks.db"):
        (tmp_path / made).unlink()
    shell = shell.partition("\n")[2]
    with recipe.served(is_first=True):
        kubelet.write()
        new = "this service has just started, and takes logins and assertions made after"
        told(recipe, recipe.sh(shell, code=2, **kubelet.environ()), new)
    for made in ("keyring.json", "tasks.db"):
        (tmp_path / made).unlink()
    with recipe.served():
        recipe.sh(shell, **kubelet.environ())


# --- GitHub Actions -------------------------------------------------------------------------------


class Runner:
    """Does the steps of the page's workflow, with what GitHub gives to a job of such permissions."""

    def __init__(self, recipe: Recipe, github: Platform) -> None:
        self.recipe, self.github = recipe, github
        (workflow,) = recipe.blocks("yaml")
        self.job = yaml.safe_load(workflow)["jobs"]["report"]
        recipe.program("pip", "")  # what it would install is here
        github.job = dict(PLATFORMS["ci"][1]) | {
            "environment": self.job["environment"],
            "event_name": "schedule",
            "sub": f"repo:octo-org/octo-repo:environment:{self.job['environment']}",
        }

    def environ(self) -> dict[str, str]:
        """https://docs.github.com/en/actions/reference/security/oidc"""
        if self.job["permissions"].get("id-token") != "write":
            return {}
        return {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.github.url}/idtoken?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self.github.secret}

    def run(self, more: str = "") -> str:
        """What the job's own commands print. `more` is behind the agent's program."""
        (self.recipe.folder / "agent.py").write_text("\n".join([*self.recipe.blocks("python"), more]), "utf-8")
        return self.recipe.sh("\n".join(step["run"] for step in self.job["steps"] if "run" in step), **self.environ()).strip()


def test_github_actions(cluster: Platform, tmp_path: Path) -> None:
    recipe = Recipe("issuance-github.md", tmp_path, {"https://token.actions.githubusercontent.com": cluster.url})
    recipe.policy()
    _, shell, curl = recipe.blocks("sh")
    runner = Runner(recipe, cluster)
    job = runner.environ()
    with recipe.served():
        for _ in range(2):  # each time with another token of GitHub, and another key
            text = runner.run("print(text)")
            assert recipe.at_sales(text) == "allowed" and recipe.at_sales(text, "hr") == "table"
        recipe.sh(shell, **job)
        assert "ci:74" in recipe.sh("captoken inspect < root.token")
        text = recipe.sh(curl, **job).strip().removeprefix("::add-mask::")
        assert recipe.at_sales(text, columns=["region"]) == "allowed" and recipe.at_sales(text, columns=["buyer"]) == "column"
        wrong_github(recipe, runner, shell.partition("\n")[2], curl, job)


def wrong_github(recipe: Recipe, runner: Runner, shell: str, curl: str, job: dict[str, str]) -> None:
    """Each line of the page's table."""
    told(recipe, recipe.sh(shell, code=2), "no platform says who this is")
    told(recipe, recipe.sh(shell, code=2, **job | {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "over"}), "GitHub gives no identity")
    told(recipe, recipe.sh(shell, code=2, **job, CAPTOKEN_IDENTITY_TOKEN_FILE="/x"), "several say who this is")
    said = curl.replace(" | jq -r .access_token", "").replace("::add-mask::", "")
    told(recipe, recipe.sh(said.replace(f"&audience={recipe.service}", ""), **job), "and not for this service alone")

    one = recipe.sh(curl.partition(" |\n")[0].removeprefix("text=$("), **job)
    (recipe.folder / "token").write_text(one)
    twice = said.replace(said[: said.index(" |\n")], "text=$(cat token")
    assert "access_token" in recipe.sh(twice)
    told(recipe, recipe.sh(twice), "the assertion cannot start a task: get a new one")

    for claims, shown in (
        ({"repository_owner_id": "66"}, "and it is not one of those that are taken"),
        ({"ref": "refs/heads/fix"}, "the grant is not for this caller"),
        ({"event_name": "pull_request_target"}, "the grant is not for this caller"),
    ):
        right, runner.github.job = runner.github.job, {**runner.github.job, **claims}
        told(recipe, recipe.sh(shell, code=2, **job), shown)
        runner.github.job = right
    runner.github.url = "https://github.example/_services/token"
    told(recipe, recipe.sh(shell, code=2, **job), "its issuer is not known here")


# --- SPIRE ----------------------------------------------------------------------------------------

FETCH = """
import sys
from spiffe import WorkloadApiClient

command = dict(zip(sys.argv[4::2], sys.argv[5::2]))
assert sys.argv[1:4] == ["api", "fetch", "jwt"], sys.argv
with WorkloadApiClient(socket_path="unix://" + command["-socketPath"]) as client:
    one = client.fetch_jwt_svid(audience={command["-audience"]})
print(f"token({one.spiffe_id}):\\n\\t{one.token}\\nbundle(spiffe://acme.example):\\n\\t{{}}")
"""


def test_spire(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    places = {
        "/run/spire/agent.sock": f"{tmp_path}/api/spire-agent.sock",
        "/spiffe-workload-api": f"{tmp_path}/api",
        "/run/keys": f"{tmp_path}/keys",
    }
    recipe = Recipe("issuance-spire.md", tmp_path, places)
    (tmp_path / "keys").mkdir()
    (tmp_path / "fetch.py").write_text(FETCH)
    recipe.program("spire-agent", f"exec {sys.executable} {tmp_path}/fetch.py \"$@\"")  # prints as pkg/cli/api/fetch_jwt.go of SPIRE does
    recipe.program("spire-server", f'printf "%s\\n" "$@" > {tmp_path}/entry')
    recipe.policy()
    _, register, shell, curl = recipe.blocks("sh")
    recipe.sh(register)
    entry = (tmp_path / "entry").read_text().splitlines()
    assert entry[:2] == ["entry", "create"]

    (manifest,) = recipe.blocks("yaml")
    (container,) = yaml.safe_load(manifest)["spec"]["containers"]
    pod = {one["name"]: one["value"] for one in container["env"]}
    with agent(tmp_path / "api/spire-agent.sock", "acme.example", entry[entry.index("-spiffeID") + 1]) as spire, recipe.served():
        spire.ttl = int(entry[entry.index("-jwtSVIDTTL") + 1])
        for _ in range(2):  # the second time it is the same SVID, and the same key
            text = recipe.python("print(text)", **pod)
            assert recipe.at_sales(text) == "allowed" and recipe.at_sales(text, "hr") == "table"
        told(recipe, recipe.sh(shell, code=2, **pod), "the assertion cannot start a task: get a new one")
        spire.forget()
        shell = shell.partition("\n")[2]
        recipe.sh(shell, **pod)
        assert "mesh:spiffe://acme.example/ns/risk/sa/orchestrator" in recipe.sh("captoken inspect < root.token")
        spire.forget()
        text = recipe.sh(curl, **pod).strip()
        assert recipe.at_sales(text, columns=["region"]) == "allowed" and recipe.at_sales(text, columns=["buyer"]) == "column"
        wrong_spire(recipe, spire, shell, curl.replace("| jq -r .access_token", ""), pod)


def wrong_spire(recipe: Recipe, spire: Agent, shell: str, curl: str, pod: dict[str, str]) -> None:
    """Each line of the page's table."""
    told(recipe, recipe.sh(shell, code=2), "no platform says who this is")
    spire.registered = False
    told(recipe, recipe.sh(shell, code=2, **pod), "the Workload API gives no identity")
    spire.registered = True
    for spiffe_id, shown in (
        ("spiffe://other.example/ns/risk/sa/orchestrator", "its issuer is not known here"),
        ("spiffe://acme.example/ns/risk/sa/other", "the grant is not for this caller"),
    ):
        spire.forget()
        right, spire.spiffe_id = spire.spiffe_id, spiffe_id
        told(recipe, recipe.sh(shell, code=2, **pod), shown)
        spire.spiffe_id = right
    spire.forget()
    told(recipe, recipe.sh(curl.replace(f"-audience {recipe.service}", "-audience https://other.example")), "and not for this service alone")
    spire.ttl = 1800
    told(recipe, recipe.sh(shell, code=2, **pod), "it is good for 1800 s, which is not taken")


def test_an_agent_that_tells_the_service_no_keys(tmp_path: Path) -> None:
    places = {"/run/spire/agent.sock": f"{tmp_path}/nobody.sock", "/run/keys": f"{tmp_path}/keys"}
    recipe = Recipe("issuance-spire.md", tmp_path, places)
    (tmp_path / "keys").mkdir()
    recipe.policy()
    with agent(tmp_path / "agent.sock", "acme.example", "spiffe://acme.example/ns/risk/sa/orchestrator"), recipe.served():
        said = recipe.sh(recipe.blocks("sh")[2], code=2, SPIFFE_ENDPOINT_SOCKET=f"unix://{tmp_path}/agent.sock")
        told(recipe, said, "this service cannot get the keys of the assertion's issuer now")


# --- a client's certificate -----------------------------------------------------------------------

WRITE = """
import pathlib, sys
from spiffe import WorkloadApiClient

command = dict(zip(sys.argv[4::2], sys.argv[5::2]))
assert sys.argv[1:4] == ["api", "fetch", "x509"], sys.argv
folder = pathlib.Path(command["-write"])
folder.mkdir(exist_ok=True)
with WorkloadApiClient(socket_path="unix://" + command["-socketPath"]) as client:
    client.fetch_x509_svid().save(certs_chain_path=folder / "svid.0.pem", private_key_path=folder / "svid.0.key", encoding=Encoding.PEM)
""".replace("from spiffe", "from cryptography.hazmat.primitives.serialization import Encoding\nfrom spiffe", 1)


def test_certificates(tmp_path: Path) -> None:
    places = {"/run/spire/agent.sock": f"{tmp_path}/agent.sock", "/run/svid": f"{tmp_path}/svid"}
    recipe = Recipe("issuance-certificates.md", tmp_path, places)
    (tmp_path / "fetch.py").write_text(WRITE)
    recipe.program("spire-agent", f"exec {sys.executable} {tmp_path}/fetch.py \"$@\"")
    _, fetch, curl = recipe.blocks("sh")
    (caddy,) = recipe.blocks("caddy")
    assert [line.split()[1] for line in caddy.splitlines() if "header_up" in line] == ["Client-Cert", "-Client-Cert-Chain", "Captoken-Proxy-Secret"]

    web = Authority("web.example", now=int(time()))
    (tmp_path / "web.pem").write_bytes(web.pem)
    trusting = {"SSL_CERT_FILE": f"{tmp_path}/web.pem", "CURL_CA_BUNDLE": f"{tmp_path}/web.pem"}
    with agent(tmp_path / "agent.sock", "acme.example", "spiffe://acme.example/ns/risk/sa/orchestrator") as spire:
        (tmp_path / "asked.pem").write_bytes(spire.authority.pem)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=f"{tmp_path}/asked.pem")
        context.load_cert_chain(*web.server("127.0.0.1").save(tmp_path, "server"))
        context.verify_mode = ssl.CERT_OPTIONAL
        with proxy(context, recipe.service, "of-the-proxy") as origin:
            recipe.places["https://issuer.example"] = origin
            _, _, curl = recipe.blocks("sh")
            recipe.policy()
            with recipe.served():
                recipe.sh(fetch)
                for _ in range(2):  # as often as it likes, and each time with another key
                    text = recipe.python("print(text)", **trusting)
                    assert recipe.at_sales(text) == "allowed" and recipe.at_sales(text, "hr") == "table"
                text = recipe.sh(curl, **trusting).strip()
                assert recipe.at_sales(text, columns=["region"]) == "allowed" and recipe.at_sales(text, columns=["buyer"]) == "column"
                wrong_certificates(recipe, spire, fetch, curl.replace(" | jq -r .access_token", ""), trusting)


def wrong_certificates(recipe: Recipe, spire: Agent, fetch: str, curl: str, trusting: dict[str, str]) -> None:
    """Each line of the page's table."""
    told(recipe, recipe.sh(re.sub(r"--cert \S+ --key \S+", "", curl), **trusting), "none was shown")
    told(recipe, recipe.sh(curl.replace(recipe.places["https://issuer.example"], recipe.service)), "believed of the proxy alone")
    named = "client_id=spiffe://acme.example/ns/risk/sa/orchestrator"
    told(recipe, recipe.sh(curl.replace(named, "client_id=spiffe://acme.example/ns/risk/sa/other"), **trusting), "and not of the client_id")
    told(recipe, recipe.sh(curl.replace(named, "client_id=spiffe://other.example/a"), **trusting), "no certificates of it are taken")
    told(recipe, recipe.sh(curl.replace(f"-d {named}", ""), **trusting), "client_assertion is missing")

    # One that is over does not come past the proxy of this test. Others let it in, and this is what they say then.
    spire.ttl = 1
    recipe.sh(fetch)
    sleep(1.1)
    over = ssl.PEM_cert_to_DER_cert((recipe.folder / "svid/svid.0.pem").read_text())
    headers = f"-H 'Client-Cert: :{base64.b64encode(over).decode()}:' -H 'Captoken-Proxy-Secret: of-the-proxy'"
    said = recipe.sh(re.sub(r"--cert \S+ --key \S+", headers, curl).replace(recipe.places["https://issuer.example"], recipe.service))
    told(recipe, said, "no path leads from it to an authority")
    assert "cert is not valid at validation time" in recipe.log
    recipe.says("it is an authority's")  # of which test_certificates has the cases

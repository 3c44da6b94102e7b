"""GitHub's own description, 13 MB, which `CAPTOKEN_GITHUB` names: `-m github` runs it. What the page says of it is measured here.

Each operation is asked for as the description says, read here by other code than the gateway's, and with its own examples of bodies.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from captoken.adapters._gateway.opening import Service, configured
from captoken.adapters._http.exchange import RequestError

pytestmark = pytest.mark.github

SECONDS, MEGABYTES = 5, 200
METHODS = ("get", "head", "post", "put", "patch", "delete")

TABLE = """
version = 1
[gateway]
keyring = "keyring.json"
[service.github]
url = "https://api.github.com"
credential = "env:NONE"
description = {description}
"""

# In a process of its own: what it takes up is what a gateway takes up that has started. `ru_maxrss` would be the peak of whoever
# started it, if that is larger.
STARTING = """
import re, sys
from pathlib import Path
from time import process_time
from captoken.adapters.gateway import configured
configured(sys.argv[1])
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(process_time(), int(peak[1]) / 1024)
"""


def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(os.environ["CAPTOKEN_GITHUB"]).read_bytes())
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("github") / "gateway.toml"
    path.write_text(TABLE.format(description=json.dumps(os.path.abspath(os.environ["CAPTOKEN_GITHUB"]))))
    return path


@pytest.fixture(scope="module")
def service(file: Path) -> Service:
    return configured(str(file)).services["github"]


def test_a_gateway_starts_with_it_soon_and_is_small(file: Path) -> None:
    done = subprocess.run([sys.executable, "-c", STARTING, str(file)], check=True, capture_output=True, text=True)
    seconds, megabytes = map(float, done.stdout.split())
    print(f"{seconds:.2f} s, {megabytes:.0f} MB")
    assert seconds < SECONDS and megabytes < MEGABYTES


class Described:
    """The description, as it is written: references are followed, and nothing is interpreted."""

    def __init__(self) -> None:
        self.document = described()

    def resolved(self, value: Any) -> Any:
        while isinstance(value, dict) and "$ref" in value:
            found: Any = self.document
            for step in value["$ref"][2:].split("/"):
                found = found[step.replace("~1", "/").replace("~0", "~")]
            value = found
        return value

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any], list[dict[str, Any]]]]:
        for path, item in self.document["paths"].items():
            for method in METHODS:
                if method in item:
                    every = [*item.get("parameters", ()), *item[method].get("parameters", ())]
                    yield method.upper(), path, item[method], [self.resolved(each) for each in every]

    def sample(self, schema: Any) -> Any:
        """A value of its type."""
        stated = self.resolved(schema)
        match stated.get("type"):
            case "array":
                return [self.sample(stated["items"])] * 2
            case "integer" | "number":
                return "7"
            case "boolean":
                return "true"
        return "seven"

    def bodies(self, stated: dict[str, Any]) -> Iterator[Any]:
        """One that is empty, and its examples."""
        content = self.resolved(stated.get("requestBody", {})).get("content", {}).get("application/json")
        if content is None:
            yield None
            return
        yield {}
        examples = [self.resolved(each) for each in content.get("examples", {}).values()]
        yield from [each["value"] for each in examples if "value" in each]


# Of these, an example is not as the description itself has it: a member or a type that is not declared.
NOT_AS_DECLARED = {
    "POST /orgs/{org}/attestations/bulk-list",
    "PUT /orgs/{org}/copilot-spaces/{space_number}",
    "PATCH /repos/{owner}/{repo}/import",
    "POST /repos/{owner}/{repo}/pulls/{pull_number}/codespaces",
    "PATCH /repos/{owner}/{repo}/security-advisories/{ghsa_id}",
    "PUT /user/codespaces/secrets/{secret_name}/repositories",
    "POST /user/codespaces/{codespace_name}/publish",
    "POST /users/{username}/attestations/bulk-list",
    "PUT /users/{username}/copilot-spaces/{space_number}",
}


def test_every_operation_is_reached_by_a_request_as_it_describes(service: Service) -> None:
    here = Described()
    asked_for, refused, examples = set(), set(), 0
    for method, path, stated, parameters in here.operations():
        request = f"{method} {path}"
        asked_for.add(request)
        if request in service.left_out:
            continue
        given = {place: {each["name"]: here.sample(each.get("schema", {})) for each in parameters if each["in"] == place} for place in ("path", "query")}
        target = path
        for name, value in given["path"].items():
            target = target.replace(f"{{{name}}}", quote(value, safe=""))
        query = urlencode(given["query"], doseq=True)
        for body in here.bodies(stated):
            headers = [] if body is None else [(b"content-type", b"application/json")]
            began = service.reading.begin(method, target.encode(), headers)
            try:
                asked = service.reading.complete(began, query.encode(), b"" if body is None else json.dumps(body).encode())
            except RequestError:
                assert body, request
                refused.add(request)
                continue
            assert asked.access.tool == f"github.{stated['operationId'].replace('/', '.')}"
            assert (asked.outgoing.path, asked.outgoing.query) == (target, query)
            assert body is None or json.loads(asked.outgoing.body) == body
            examples += bool(body)
    assert len(asked_for) == len(service.table.operations) + len(service.left_out) == 1223
    assert service.left_out.keys() == {"GET /repos/{owner}/{repo}/compare/{base}...{head}"}
    assert refused == NOT_AS_DECLARED and examples > 390

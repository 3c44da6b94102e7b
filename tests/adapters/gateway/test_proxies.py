"""The configurations of proxies, made of the gateway's file; real proxies load them in test_gateway_envoy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captoken.adapters._gateway import proxies
from captoken.adapters.gateway import configured

HEAD = 'version = 1\n[gateway]\nkeyring = "keyring.json"\nmax_body = 100000\ntimeout = 7\nlisten = "[::1]:9000"\n'
SERVICES = """
[service.shop]
url = "https://shop.example/base"
credential = "file:key"
[service.own]
url = "http://127.0.0.1:8080"
credential = "file:key"
[service.bank]
url = "https://bank.example:8443"
credential = "file:key"
ca = "bank.pem"
[service.files]
mcp = "stdio"
"""


def made(folder: Path, more: str = "") -> dict[str, Any]:
    (folder / "gateway.toml").write_text(HEAD + SERVICES + more)
    return proxies.envoy(configured(str(folder / "gateway.toml")))["static_resources"]


def manager(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def test_each_service_over_http_has_a_route_and_a_cluster(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert found["listeners"][0]["address"]["socket_address"] == {"address": "::1", "port_value": 9000}
    assert found["listeners"][0]["per_connection_buffer_limit_bytes"] == 100_000
    *routes, last = manager(found)["route_config"]["virtual_hosts"][0]["routes"]
    assert [(each["match"]["prefix"], each["route"]["cluster"]) for each in routes] == [("/shop/", "shop"), ("/own/", "own"), ("/bank/", "bank")]
    assert all(each["route"].keys() == {"cluster", "timeout"} for each in routes)  # no retry, hedge, mirror, upgrade
    assert last == {"match": {"prefix": "/"}, "direct_response": {"status": 404}}
    clusters = {each["name"]: each for each in found["clusters"]}
    assert clusters.keys() == {"captoken_processor", "shop", "own", "bank"}
    assert "transport_socket" not in clusters["own"]
    tls = clusters["bank"]["transport_socket"]["typed_config"]
    assert tls["sni"] == "bank.example"
    context = tls["common_tls_context"]["validation_context"]
    assert context["trusted_ca"] == {"filename": str(tmp_path / "bank.pem")}
    assert context["match_typed_subject_alt_names"] == [{"san_type": "DNS", "matcher": {"exact": "bank.example"}}]
    endpoint = clusters["bank"]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    assert endpoint["address"]["socket_address"] == {"address": "bank.example", "port_value": 8443}


def test_whoever_asks_fails_closed(tmp_path: Path) -> None:
    asks = manager(made(tmp_path))["http_filters"][0]["typed_config"]
    assert asks["failure_mode_allow"] is False and asks["mutation_rules"]["disallow_is_error"] is True
    assert asks["processing_mode"]["request_body_mode"] == "BUFFERED" and asks["processing_mode"]["response_body_mode"] == "STREAMED"
    assert "initial_metadata" not in asks["grpc_service"]


@pytest.mark.parametrize(("secret", "variable"), [("file:proxy.secret", "CAPTOKEN_PROXY_SECRET"), ("env:OWN", "OWN")])
def test_the_secret_is_named_and_not_told(secret: str, variable: str, tmp_path: Path) -> None:
    found = made(tmp_path, f'[proxy]\nlisten = "10.0.0.5:8791"\nsecret = "{secret}"\n')
    asks = manager(found)["http_filters"][0]["typed_config"]["grpc_service"]
    assert asks["initial_metadata"] == [{"key": "x-captoken-proxy", "value": f"%ENVIRONMENT({variable})%"}]
    assert found["clusters"][0]["type"] == "STRICT_DNS" and "transport_socket" not in found["clusters"][0]


def test_certificates_are_asked_for_on_both_sides(tmp_path: Path) -> None:
    found = made(tmp_path, '[proxy]\nlisten = "10.0.0.5:8791"\ncertificate = "p.pem"\nkey = "p.key"\nca = "ca.pem"\n')
    tls = found["clusters"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    assert tls["validation_context"]["trusted_ca"] == {"filename": str(tmp_path / "ca.pem")}
    assert tls["tls_certificates"] == [{"certificate_chain": {"filename": "envoy.pem"}, "private_key": {"filename": "envoy.key"}}]


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ('listen = "10.0.0.5:8791"', "others reach, too"),
        ('listen = "8791"\nsecret = "env:S"', "HOST:PORT"),
        ('listen = "10.0.0.5:8791"\ncertificate = "p.pem"', "go together"),
        ('certificate = "p.pem"\nkey = "p.key"\nca = "ca.pem"', "go together"),
        ('secret = "0123456789abcdef"', "never the secret itself"),
        ('sockets = "x"', "socket"),
    ],
)
def test_a_table_by_which_a_stranger_could_ask_is_refused(stated: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        made(tmp_path, f"[proxy]\n{stated}\n")


def test_by_ext_authz_only_services_whose_answers_nobody_sees_are_there(tmp_path: Path) -> None:
    text = HEAD + SERVICES.replace('credential = "file:key"\nca', 'credential = { from = "file:key", as = "header:X-Key" }\nanswers = "unseen"\nca')
    (tmp_path / "gateway.toml").write_text(text + '[proxy]\nsecret = "env:OWN"\n')
    found = configured(str(tmp_path / "gateway.toml"))
    for asks in ("ext_authz", "ext_authz_http"):
        written = proxies.envoy(found, asks, "127.0.0.1:9001")["static_resources"]
        first, nothing = manager(written)["route_config"]["virtual_hosts"][0]["routes"]
        assert nothing["direct_response"] == {"status": 404} and first["route"]["host_rewrite_literal"] == "bank.example:8443"
        assert [each["name"] for each in written["clusters"]] == ["captoken_processor", "bank"] and "%ENVIRONMENT(OWN)%" in str(written)
        # The agent's token does not go on, where the service has its key elsewhere.
        assert first.get("request_headers_to_remove") == (["authorization"] if asks == "ext_authz_http" else None)
    (tmp_path / "gateway.toml").write_text(HEAD + SERVICES)
    with pytest.raises(ValueError, match="no service says"):
        proxies.envoy(configured(str(tmp_path / "gateway.toml")), "ext_authz")


def test_each_worker_has_an_address_and_envoy_asks_only_those_that_serve(tmp_path: Path) -> None:
    """One shared port would not do: of few connections, most could lead to one worker."""
    for more, addresses in (
        ("workers = 3", [f"{tmp_path}/proxy-{number}.sock" for number in range(3)]),
        ('workers = 2\nlisten = "10.0.0.5:9000"\nsecret = "env:OWN"', ["10.0.0.5:9000", "10.0.0.5:9001"]),
    ):
        written = made(tmp_path, f"[proxy]\n{more}\n")["clusters"][0]
        endpoints = [each["endpoint"]["address"] for each in written["load_assignment"]["endpoints"][0]["lb_endpoints"]]
        flat = [each["pipe"]["path"] if "pipe" in each else "{address}:{port_value}".format(**each["socket_address"]) for each in endpoints]
        assert flat == addresses == configured(str(tmp_path / "gateway.toml")).asked_at
        [check] = written["health_checks"]
        assert ("OWN" in str(check)) is ("OWN" in more) and "grpc_health_check" in check
    assert "health_checks" not in made(tmp_path)["clusters"][0]


@pytest.mark.parametrize(
    ("gateway", "proxy", "says"),
    [
        ('ledger = "memory:"', "", "gateway.ledger: each worker would count alone"),
        ('replays = "memory:"', "", "gateway.replays: each worker would count alone"),
        ('trail = "trail.jsonl"', "", "gateway.trail: each worker has a file of its own"),
        ('trail = "{}/{}.jsonl"', "", "gateway.trail: each worker has a file of its own"),
        ("", 'listen = "127.0.0.1:65535"\nsecret = "env:A"', "no such ports"),
        ("", "workers = 0", "proxy.workers must be from 1 to 64"),
        ("", "workers = 65", "proxy.workers must be from 1 to 64"),
    ],
)
def test_what_workers_cannot_share_is_refused(gateway: str, proxy: str, says: str, tmp_path: Path) -> None:
    more = proxy if "workers" in proxy else f"workers = 2\n{proxy}"
    (tmp_path / "gateway.toml").write_text(f"{HEAD}{gateway}\n{SERVICES}[proxy]\n{more}\n")
    with pytest.raises(ValueError, match=says):
        configured(str(tmp_path / "gateway.toml"))
    # Its twin: what each has for itself, or all of them together.
    fine = {"ledger": "used.db", "replays": "used.db", "trail": "trail-{}.jsonl"}
    (tmp_path / "gateway.toml").write_text(HEAD + "".join(f'{key} = "{value}"\n' for key, value in fine.items()) + SERVICES + "[proxy]\nworkers = 2\n")
    found = configured(str(tmp_path / "gateway.toml"))
    assert [found.trail_of(number) for number in (0, 1)] == [tmp_path / "trail-0.jsonl", tmp_path / "trail-1.jsonl"]

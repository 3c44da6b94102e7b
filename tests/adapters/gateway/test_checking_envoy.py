"""What in a configuration of Envoy breaks the gateway's promise: each thing that is found, and the written one, in which nothing is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captoken.adapters._gateway.checking_envoy import broken
from captoken.adapters._gateway.proxies import envoy
from captoken.adapters.gateway import configured
from tests.adapters.gateway.test_proxies import HEAD, SERVICES


@pytest.fixture
def written(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "gateway.toml").write_text(HEAD + SERVICES)
    return copy.deepcopy(envoy(configured(str(tmp_path / "gateway.toml"))))


def manager(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def asks(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manager(made)["http_filters"][0]["typed_config"]
    return found


def route(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manager(made)["route_config"]["virtual_hosts"][0]["routes"][0]
    return found


def test_what_the_gateway_writes_has_nothing_of_it(written: dict[str, Any]) -> None:
    assert broken(written) == {}


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a retry": (lambda made: route(made)["route"].update(retry_policy={"retry_on": "5xx"}), "retry_policy"),
    "a hedge": (lambda made: route(made)["route"].update(hedge_policy={"initial_requests": 2}), "hedge_policy"),
    "a mirror": (lambda made: route(made)["route"].update(request_mirror_policies=[{"cluster": "x"}]), "request_mirror_policies"),
    "a redirect": (lambda made: route(made)["route"].update(internal_redirect_policy={"max_internal_redirects": 1}), "internal_redirect_policy"),
    "a path written anew": (lambda made: route(made)["route"].update(prefix_rewrite="/x"), "prefix_rewrite"),
    "a retry of a host": (lambda made: manager(made)["route_config"]["virtual_hosts"][0].update(retry_policy={"retry_on": "reset"}), "retry_policy"),
    "an upgrade": (lambda made: manager(made).update(upgrade_configs=[{"upgrade_type": "websocket"}]), "upgrade_configs"),
    "a route without the question": (lambda made: route(made).update(typed_per_filter_config={"captoken": {"disabled": True}}), "typed_per_filter_config"),
    "fails open": (lambda made: asks(made).update(failure_mode_allow=True), "failure_mode_allow"),
    "only watched": (lambda made: asks(made).update(observability_mode=True), "observability_mode"),
    "no refusals": (lambda made: asks(made).update(disable_immediate_response=True), "disable_immediate_response"),
    "a part of a body": (lambda made: asks(made)["processing_mode"].update(request_body_mode="BUFFERED_PARTIAL"), "request_body_mode"),
    "no body": (lambda made: asks(made)["processing_mode"].pop("request_body_mode"), "request_body_mode"),
    "no answers": (lambda made: asks(made)["processing_mode"].update(response_body_mode="NONE"), "response_body_mode"),
    "no heads": (lambda made: asks(made)["processing_mode"].update(request_header_mode="SKIP"), "request_header_mode"),
    "changes that are left out": (lambda made: asks(made)["mutation_rules"].update(disallow_is_error=False), "disallow_is_error"),
    "no rules": (lambda made: asks(made).pop("mutation_rules"), "allow_all_routing"),
    "no question": (lambda made: manager(made)["http_filters"].pop(0), "http_filters"),
    "a filter behind it": (lambda made: manager(made)["http_filters"].insert(1, {"name": "lua", "typed_config": {"@type": "x.Lua"}}), "http_filters"),
    "another path": (lambda made: manager(made).update(normalize_path=True), "normalize_path"),
    "no listener": (lambda made: made["static_resources"].pop("listeners"), "static_resources"),
    "a listener beside": (lambda made: made["static_resources"]["listeners"].append({"typed_config": {"@type": "x.HttpConnectionManager"}}), "http_filters"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "place"), CHANGES.values(), ids=CHANGES)
def test_what_breaks_it_is_found_at_its_place(change: Callable[[dict[str, Any]], object], place: str, written: dict[str, Any]) -> None:
    change(written)
    found = broken(written)
    assert any(each.endswith(place) for each in found), found


def test_what_is_no_configuration_has_no_listener() -> None:
    for stated in (None, [], "x", {}):
        assert broken(stated) == {"static_resources": "no listener serves HTTP"}


# --- where Envoy asks with the head of a request alone --------------------------------------------


@pytest.fixture(params=["ext_authz", "ext_authz_http"])
def unseen(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    more = '[proxy]\nsecret = "file:secret"\n'
    (tmp_path / "gateway.toml").write_text(HEAD + more + SERVICES.replace('credential = "file:key"', 'credential = "file:key"\nanswers = "unseen"'))
    return copy.deepcopy(envoy(configured(str(tmp_path / "gateway.toml")), request.param, "127.0.0.1:9001"))


def test_what_is_written_for_it_has_nothing_of_it(unseen: dict[str, Any]) -> None:
    assert broken(unseen) == {}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda made: asks(made).update(failure_mode_allow=True), "failure_mode_allow"),
        (lambda made: asks(made).update(clear_route_cache=True), "clear_route_cache"),
        (lambda made: asks(made).update(filter_enabled={"default_value": {}}), "filter_enabled"),
        (lambda made: asks(made).pop("with_request_body"), "with_request_body"),
        (lambda made: asks(made)["with_request_body"].update(max_request_bytes=4096), "with_request_body"),
        (lambda made: asks(made)["with_request_body"].update(allow_partial_message=True), "with_request_body"),
        (lambda made: route(made)["route"].update(retry_policy={"retry_on": "5xx"}), "retry_policy"),
        (lambda made: manager(made)["http_filters"].insert(1, {"typed_config": {"@type": "x"}}), "http_filters"),
    ],
)
def test_what_breaks_it_there_is_found(unseen: dict[str, Any], change: Callable[[dict[str, Any]], object], place: str) -> None:
    change(unseen)
    assert [found.rpartition(".")[2] for found in broken(unseen)] == [place]

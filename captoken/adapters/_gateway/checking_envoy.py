"""What in a configuration of Envoy breaks what the gateway promises (docs/gateway-envoy.md).

    problems = broken(yaml.safe_load(text))      # by their place in it

It knows a static bootstrap. What Envoy is told by a control plane, nobody sees here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

_TWICE = "a request that was judged once could be sent twice"
_OTHER = "another request could be sent than was judged"

# Keys that are wrong wherever they stand.
_KEYS: Final = {
    "retry_policy": _TWICE,
    "retry_policy_typed_config": _TWICE,
    "hedge_policy": _TWICE,
    "request_mirror_policies": _TWICE,
    "internal_redirect_policy": _OTHER,
    "internal_redirect_action": _OTHER,
    "upgrade_configs": "what comes after an upgrade is judged by nobody",
    "typed_per_filter_config": "a route could pass without the question, or with another one",
    "prefix_rewrite": _OTHER,
    "regex_rewrite": _OTHER,
    "request_headers_to_add": _OTHER,
}
_FILTER = ".ext_proc.v3.ExternalProcessor"
_AUTHORIZED = ".ext_authz.v3.ExtAuthz"
_MANAGER = ".HttpConnectionManager"
_ROUTER = ".router.v3.Router"

# Of the question: what has to be said, and what must not be.
_MODES: Final = {
    "request_body_mode": "BUFFERED",
    "response_body_mode": "STREAMED",
    "request_trailer_mode": "SEND",
    "response_trailer_mode": "SEND",
}
_NEVER = (
    "failure_mode_allow",
    "observability_mode",
    "allow_mode_override",
    "disable_immediate_response",
    "send_body_without_waiting_for_header_response",
)


def broken(stated: Any) -> dict[str, str]:
    """The problems, by their place. A configuration that asks nobody is one, too."""
    found = dict(_walked(stated, ""))
    if not any(_is_of(each, _MANAGER) for _, each in _tables(stated, "")):
        found["static_resources"] = "no listener serves HTTP"
    return found


def _walked(stated: Any, at: str) -> Iterator[tuple[str, str]]:
    # Whoever is asked over HTTP permits only what is spelled as the service has it: there the
    # prefix is the one thing that a route has to take off.
    over_http = any(
        _is_of(each, _AUTHORIZED) and each.get("http_service") for _, each in _tables(stated, at)
    )
    for place, table in _tables(stated, at):
        for key, value in table.items():
            if key in _KEYS and value and not (key == "prefix_rewrite" and over_http):
                yield f"{place}.{key}".lstrip("."), _KEYS[key]
        if _is_of(table, _FILTER):
            yield from _of_filter(table, place)
        if _is_of(table, _AUTHORIZED):
            yield from _of_authorized(table, place)
        if _is_of(table, _MANAGER):
            yield from _of_manager(table, place)


def _tables(stated: Any, at: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each table in it, with its place."""
    inner: Any = ()
    if isinstance(stated, dict):
        yield at, stated
        inner = stated.items()
    elif isinstance(stated, list):
        inner = enumerate(stated)
    for key, value in inner:
        name = f"[{key}]" if isinstance(stated, list) else f".{key}"
        yield from _tables(value, f"{at}{name}".lstrip("."))


def _is_of(table: Any, kind: str) -> bool:
    return isinstance(table, dict) and str(table.get("@type", "")).endswith(kind)


def _of_filter(table: dict[str, Any], at: str) -> Iterator[tuple[str, str]]:
    modes = table.get("processing_mode") or {}
    for key, wanted in _MODES.items():
        if modes.get(key) != wanted:
            yield f"{at}.processing_mode.{key}", f"write {wanted}: the processor sees it so alone"
    for key in ("request_header_mode", "response_header_mode"):
        if modes.get(key, "DEFAULT") not in ("DEFAULT", "SEND"):
            yield f"{at}.processing_mode.{key}", "write SEND: else nobody is asked"
    for key in _NEVER:
        if table.get(key):
            yield f"{at}.{key}", "take it out: a request could pass that nobody has judged"
    rules = table.get("mutation_rules") or {}
    for key in ("disallow_is_error", "allow_all_routing", "allow_envoy"):
        if rules.get(key) is not True:
            yield f"{at}.mutation_rules.{key}", "write true: else a part of the answer is left out"


def _of_authorized(table: dict[str, Any], at: str) -> Iterator[tuple[str, str]]:
    """Of a question with the head of a request alone."""
    if table.get("failure_mode_allow"):
        yield f"{at}.failure_mode_allow", "take it out: a request could pass that nobody has judged"
    if table.get("clear_route_cache"):
        yield f"{at}.clear_route_cache", _OTHER
    body = table.get("with_request_body") or {}
    if body.get("max_request_bytes") != 1 or body.get("allow_partial_message"):
        yield (
            f"{at}.with_request_body",
            "write max_request_bytes: 1, and no partial message: else a body passes that nobody "
            "has judged",
        )
    for key in ("filter_enabled", "filter_enabled_metadata"):
        if table.get(key):
            yield f"{at}.{key}", "take it out: some requests would pass without the question"


def _of_manager(table: dict[str, Any], at: str) -> Iterator[tuple[str, str]]:
    filters = [each.get("typed_config") or {} for each in table.get("http_filters") or ()]
    kinds = (_FILTER, _AUTHORIZED)
    asks = [n for n, each in enumerate(filters) if any(_is_of(each, kind) for kind in kinds)]
    if not asks:
        yield f"{at}.http_filters", "no filter asks the processor: all its routes go round it"
    elif not all(_is_of(each, _ROUTER) for each in filters[asks[-1] + 1 :]):
        yield f"{at}.http_filters", "a filter behind the question could change the request"
    for key in ("normalize_path", "merge_slashes"):
        if table.get(key):
            yield f"{at}.{key}", "take it out: the processor judges what the client sent"

"""Configurations of proxies that ask a gateway, made of its file (docs/gateway-envoy.md).

    envoy(found)                # a bootstrap of Envoy, as tables
    envoy(found, "ext_authz")   # the same with a question by ext_authz; or "ext_authz_http"

What is written keeps what the gateway promises: nothing is sent twice, by another way, or in part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from captoken.adapters._gateway.asking_proxies import leaves_token, unseen, written_headers
from captoken.adapters._gateway.forward_auth import CHECKED
from captoken.adapters._gateway.opening import Configuration, Service
from captoken.adapters._http.origins import origin_of

# The processor, among the clusters.
PROCESSOR = "captoken_processor"

# The variable of a proxy that has its secret, where the gateway has it in a file.
SECRET = "CAPTOKEN_PROXY_SECRET"  # noqa: S105, it is a name

# Certificates that a system trusts, where Debian and Alpine have them.
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

_TYPES = "type.googleapis.com/envoy."
_HTTP = f"{_TYPES}extensions.filters.http"
_SECONDS_OF_HEAD = 15

# By what Envoy asks. The last two see neither bodies nor answers.
EXT_PROC, EXT_AUTHZ, EXT_AUTHZ_HTTP = "ext_proc", "ext_authz", "ext_authz_http"


def envoy(found: Configuration, asks: str = EXT_PROC, at: str | None = None) -> dict[str, Any]:
    """A bootstrap of Envoy before the services of a file over HTTP. `at`: where it listens.

    By `ext_proc` all of them are served, and by `ext_authz` those whose answers nobody has to see.
    Raises ValueError where there are none.
    """
    if asks != EXT_PROC:
        found = found._replace(services={each.name: each for each in unseen(found, asks)})
    host, _, port = (at or found.file.gateway.listen).rpartition(":")
    listener = {
        "name": "captoken",
        "address": _address(host.strip("[]"), int(port)),
        # Whatever is longer is answered 413.
        "per_connection_buffer_limit_bytes": max(found.file.gateway.max_body, 64 << 10),
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": _manager(found, asks),
                    }
                ]
            }
        ],
    }
    clusters = [_service_cluster(found, each) for each in found.services.values()]
    return {
        "static_resources": {
            "listeners": [listener],
            "clusters": [_asked_cluster(found, asks), *clusters],
        }
    }


def _manager(found: Configuration, asks: str) -> dict[str, Any]:
    timeout = found.file.gateway.timeout
    routes = [_route(each, f"{timeout}s", asks) for each in found.services.values()]
    nothing = {"match": {"prefix": "/"}, "direct_response": {"status": 404}}
    hosts = [{"name": "all", "domains": ["*"], "routes": [*routes, nothing]}]
    return {
        "@type": f"{_TYPES}extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": "captoken",
        # What is judged is what was sent: no path is made another one, and no header is added.
        "normalize_path": False,
        "merge_slashes": False,
        "generate_request_id": False,
        "use_remote_address": True,
        "skip_xff_append": True,
        "server_header_transformation": "PASS_THROUGH",
        "request_headers_timeout": f"{_SECONDS_OF_HEAD}s",
        "stream_idle_timeout": f"{timeout}s",
        "max_request_headers_kb": 60,
        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
        "http_filters": [
            {"name": "captoken", "typed_config": _FILTERS[asks](found)},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{_HTTP}.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
        "route_config": {"name": "captoken", "virtual_hosts": hosts},
    }


def _route(service: Service, timeout: str, asks: str) -> dict[str, Any]:
    to: dict[str, Any] = {"cluster": service.name, "timeout": timeout}
    route: dict[str, Any] = {"match": {"prefix": f"/{service.name}/"}, "route": to}
    if asks != EXT_PROC:
        to["host_rewrite_literal"] = urlsplit(origin_of(service.url)).netloc
    if asks == EXT_AUTHZ_HTTP:
        # The answer writes no path: it permits what is spelled as the service has it.
        to["prefix_rewrite"] = urlsplit(service.url).path.rstrip("/") + "/"
        if leaves_token(service):
            route["request_headers_to_remove"] = ["authorization"]
    return route


def _secret(found: Configuration) -> str:
    # From the environment of Envoy: it stands in no configuration, and Envoy reads no file.
    kind, _, place = (found.file.proxy.secret or "").partition(":")
    return f"%ENVIRONMENT({place if kind == 'env' else SECRET})%"


def _asked_by_grpc(found: Configuration) -> dict[str, Any]:
    asks: dict[str, Any] = {"envoy_grpc": {"cluster_name": PROCESSOR}}
    if found.file.proxy.secret is not None:
        asks["initial_metadata"] = [{"key": "x-captoken-proxy", "value": _secret(found)}]
    return asks


def _ext_authz(found: Configuration) -> dict[str, Any]:
    """The question with the head of a request alone, by gRPC."""
    return {**_AUTHORIZED, "grpc_service": {**_asked_by_grpc(found), "timeout": "20s"}}


def _ext_authz_http(found: Configuration) -> dict[str, Any]:
    """The same over HTTP, to the gateway's own address."""
    names = {name.lower() for each in found.services.values() for name in written_headers(each)}
    written = [{"exact": name} for name in sorted(names)]
    return {
        **_AUTHORIZED,
        "http_service": {
            "server_uri": {"uri": "http://captoken", "cluster": PROCESSOR, "timeout": "20s"},
            "path_prefix": CHECKED.decode(),
            "authorization_request": {
                "headers_to_add": [{"key": "x-captoken-proxy", "value": _secret(found)}]
            },
            "authorization_response": {"allowed_upstream_headers": {"patterns": written}},
        },
        "allowed_headers": {"patterns": [{"safe_regex": {"regex": ".*"}}]},
    }


# A body of more than a byte is answered 413, and one of a byte is shown: it is refused.
_AUTHORIZED: dict[str, Any] = {
    "@type": f"{_HTTP}.ext_authz.v3.ExtAuthz",
    "transport_api_version": "V3",
    "failure_mode_allow": False,
    "with_request_body": {
        "max_request_bytes": 1,
        "allow_partial_message": False,
        "pack_as_bytes": True,
    },
}


def _ext_proc(found: Configuration) -> dict[str, Any]:
    """The question to the processor: whole requests, and answers as they come."""
    return {
        "@type": f"{_HTTP}.ext_proc.v3.ExternalProcessor",
        "grpc_service": _asked_by_grpc(found),
        "failure_mode_allow": False,
        # For what a ledger elsewhere takes. Bodies and answers are waited for outside of it.
        "message_timeout": "20s",
        "processing_mode": {
            "request_header_mode": "SEND",
            "request_body_mode": "BUFFERED",
            "request_trailer_mode": "SEND",
            "response_header_mode": "SEND",
            "response_body_mode": "STREAMED",
            "response_trailer_mode": "SEND",
        },
        # What it writes is heeded whole, or the request fails.
        "mutation_rules": {
            "allow_all_routing": True,
            "allow_envoy": True,
            "disallow_is_error": True,
        },
    }


_FILTERS = {EXT_PROC: _ext_proc, EXT_AUTHZ: _ext_authz, EXT_AUTHZ_HTTP: _ext_authz_http}


def _asked_cluster(found: Configuration, asks: str) -> dict[str, Any]:
    """Who is asked: the processor, or `captoken gateway run` over HTTP."""
    proxy = found.file.proxy
    if asks == EXT_AUTHZ_HTTP:
        host, _, port = found.file.gateway.listen.rpartition(":")
        address = _address(host.strip("[]"), int(port))
        return _cluster(PROCESSOR, [{"address": address}], "STRICT_DNS")
    # Each worker at an address of its own: Envoy has few connections, and one of them would else
    # carry most of the questions to one worker.
    if proxy.listen is None:
        endpoints = [{"address": {"pipe": {"path": place}}} for place in found.asked_at]
        made = _cluster(PROCESSOR, endpoints, "STATIC")
    else:
        parts = [place.rpartition(":") for place in found.asked_at]
        at = [{"address": _address(host.strip("[]"), int(port))} for host, _, port in parts]
        made = _cluster(PROCESSOR, at, "STRICT_DNS")
    if proxy.workers > 1:
        made["health_checks"] = [_health(found)]
    options: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    made["typed_extension_protocol_options"] = _options(options)
    if proxy.ca is not None and proxy.listen is not None:
        # Envoy's own certificate and key stand beside its configuration.
        own = {
            "certificate_chain": {"filename": "envoy.pem"},
            "private_key": {"filename": "envoy.key"},
        }
        trusted = str((found.folder / proxy.ca).absolute())
        made["transport_socket"] = _tls({
            "common_tls_context": {
                "tls_certificates": [own],
                "validation_context": {"trusted_ca": {"filename": trusted}},
            }
        })
    return made


def _service_cluster(found: Configuration, service: Service) -> dict[str, Any]:
    parts = urlsplit(origin_of(service.url))
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    made = _cluster(service.name, [{"address": _address(host, port)}], "STRICT_DNS")
    # HTTP/1.1, whose trailers are dropped on both sides.
    options: dict[str, Any] = {"explicit_http_config": {"http_protocol_options": {}}}
    made["typed_extension_protocol_options"] = _options(options)
    if parts.scheme == "https":
        names = [{"san_type": "DNS", "matcher": {"exact": host}}]
        trusted = str(Path(service.ca).absolute()) if service.ca else _AUTHORITIES
        context = {
            "trusted_ca": {"filename": trusted},
            "match_typed_subject_alt_names": names,
        }
        made["transport_socket"] = _tls(
            {"sni": host, "common_tls_context": {"validation_context": context}}
        )
    return made


def _health(found: Configuration) -> dict[str, Any]:
    """A worker that does not serve, or ends, is not asked."""
    check: dict[str, Any] = {}
    if found.file.proxy.secret is not None:
        header = {"key": "x-captoken-proxy", "value": _secret(found)}
        check["initial_metadata"] = [{"header": header}]
    return {
        "timeout": "2s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "grpc_health_check": check,
    }


def _cluster(name: str, each: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": endpoint} for endpoint in each]}]
    return {
        "name": name,
        "type": kind,
        "connect_timeout": "10s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def _options(stated: dict[str, Any]) -> dict[str, Any]:
    kind = f"{_TYPES}extensions.upstreams.http.v3.HttpProtocolOptions"
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": kind, **stated}}


def _tls(stated: dict[str, Any]) -> dict[str, Any]:
    kind = f"{_TYPES}extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": kind, **stated}}


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}

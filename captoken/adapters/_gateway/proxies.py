"""Configurations of proxies that ask a gateway, made of its file (docs/gateway-envoy.md).

    envoy(found)        # a bootstrap of Envoy, as tables

What is written keeps what the gateway promises: nothing is sent twice, by another way, or in part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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


def envoy(found: Configuration) -> dict[str, Any]:
    """A bootstrap of Envoy before the services of a file over HTTP."""
    host, _, port = found.file.gateway.listen.rpartition(":")
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
                        "typed_config": _manager(found),
                    }
                ]
            }
        ],
    }
    clusters = [_service_cluster(found, each) for each in found.services.values()]
    return {
        "static_resources": {
            "listeners": [listener],
            "clusters": [_processor_cluster(found), *clusters],
        }
    }


def _manager(found: Configuration) -> dict[str, Any]:
    timeout = found.file.gateway.timeout
    routes = [
        {
            "match": {"prefix": f"/{name}/"},
            "route": {"cluster": name, "timeout": f"{timeout}s"},
        }
        for name in found.services
    ]
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
            {"name": "captoken", "typed_config": _filter(found)},
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


def _filter(found: Configuration) -> dict[str, Any]:
    """The question to the processor: whole requests, and answers as they come."""
    asks: dict[str, Any] = {"envoy_grpc": {"cluster_name": PROCESSOR}}
    if found.file.proxy.secret is not None:
        # From the environment of Envoy: it stands in no configuration, and Envoy reads no file.
        kind, _, place = found.file.proxy.secret.partition(":")
        said = f"%ENVIRONMENT({place if kind == 'env' else SECRET})%"
        asks["initial_metadata"] = [{"key": "x-captoken-proxy", "value": said}]
    return {
        "@type": f"{_HTTP}.ext_proc.v3.ExternalProcessor",
        "grpc_service": asks,
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


def _processor_cluster(found: Configuration) -> dict[str, Any]:
    proxy = found.file.proxy
    if proxy.listen is None:
        at: dict[str, Any] = {"pipe": {"path": str((found.folder / proxy.socket).absolute())}}
        made = _cluster(PROCESSOR, {"address": at}, "STATIC")
    else:
        host, _, port = proxy.listen.rpartition(":")
        made = _cluster(PROCESSOR, {"address": _address(host.strip("[]"), int(port))}, "STRICT_DNS")
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
    made = _cluster(service.name, {"address": _address(host, port)}, "STRICT_DNS")
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


def _cluster(name: str, endpoint: dict[str, Any], kind: str) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": endpoint}]}]
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

"""Configurations of proxies that ask whether a request may pass, made of a gateway's file.

    caddy(found, "127.0.0.1:8080")      # a Caddyfile
    nginx(found, "127.0.0.1:8080")      # a configuration of nginx
    traefik(found)                      # dynamic configuration of Traefik, as tables

They send the path, the query and the headers that the gateway has answered, and no body. Traefik
cannot rewrite a path: there the gateway lets pass what is spelled as it would be sent.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from captoken.adapters._gateway.forward_auth import PLACE
from captoken.adapters._gateway.opening import Configuration, Service
from captoken.adapters._http.origins import origin_of

# The variable of a proxy that has its secret.
SECRET = "CAPTOKEN_PROXY_SECRET"  # noqa: S105, it is a name

_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

# Of all requests, whatever the service says of its own headers.
_USUAL = ("accept", "user-agent")


def unseen(found: Configuration, asks: str = "") -> list[Service]:
    """The services whose requests can pass a proxy that asks. Raises ValueError for none."""
    services = [each for each in found.services.values() if each.unseen]
    if not services:
        raise ValueError('no service says answers = "unseen": nothing may pass a proxy that asks')
    if found.file.proxy.secret is None and asks != "ext_authz":
        raise ValueError('proxy.secret = "file:PATH" or "env:NAME", by which the proxy is known')
    return services


def written_headers(service: Service) -> list[str]:
    """The headers that the gateway writes for a service."""
    rules = service.reading.rules
    names = [*_USUAL, *(name.decode() for name in rules.fixed)]
    names += [name.decode() for name in rules.arguments]
    names += [each for operation in service.table.operations.values() for each in operation.headers]
    if service.writer.header:
        names.append(service.writer.header)
    if rules.idempotency:
        names.append(rules.idempotency.decode())
    return list(dict.fromkeys(names))


def leaves_token(service: Service) -> bool:
    """Would the agent's token go on to the service, if nobody took it out?

    It came in the one header that may have it, and the service's key is in another place.
    """
    return service.writer.header != "authorization"


def _variable(found: Configuration) -> str:
    kind, _, place = (found.file.proxy.secret or "").partition(":")
    return place if kind == "env" else SECRET


def caddy(found: Configuration, at: str) -> str:
    """A Caddyfile, which serves at that address."""
    gateway = found.file.gateway.listen
    blocks = []
    for each in unseen(found):
        names = written_headers(each)
        copied = " ".join(["X-Captoken-Uri", *names])
        origin = origin_of(each.url)
        trusted = ""
        taken = "\n\t\t\theader_up -Authorization" if leaves_token(each) else ""
        if each.ca:
            inner = f"\n\t\t\t\ttls_trust_pool file {each.ca}\n\t\t\t"
            trusted = f"\n\t\t\ttransport http {{{inner}}}"
        blocks.append(f"""
	route /{each.name}/* {{
		request_body {{
			max_size 1
		}}
		@body expression `{{http.request.body}} != ""`
		respond @body "A request with a body cannot pass here." 403
		request_header -X-Captoken-*
		request_header -Upgrade
		forward_auth {gateway} {{
			uri {PLACE.decode()}
			header_up X-Captoken-Proxy {{env.{_variable(found)}}}
			copy_headers {copied}
		}}
		rewrite * {{http.request.header.X-Captoken-Uri}}
		reverse_proxy {origin} {{
			header_up Host {{upstream_hostport}}
			header_up -X-Captoken-*
			header_up -X-Forwarded-*
			header_up -Via{taken}{trusted}
		}}
	}}""")
    host, _, port = at.rpartition(":")
    head = f"{{\n\tadmin off\n\tauto_https off\n}}\nhttp://:{port} {{\n\tbind {host.strip('[]')}"
    # A body of more than one byte ends its route with an error, 500, before anybody is asked.
    return f"{head}{''.join(blocks)}\n\trespond 404\n}}\n"


def nginx(found: Configuration, at: str) -> str:
    """A configuration of nginx, whole, which serves at that address."""
    gateway = found.file.gateway.listen
    upstreams, locations = [], []
    for each in unseen(found):
        parts = urlsplit(origin_of(each.url))
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        upstreams.append(f"    upstream captoken_{each.name} {{ server {host}:{port}; }}\n")
        names = written_headers(each)
        taken = "".join(
            f"            auth_request_set $captoken_{_low(name)} $upstream_http_{_low(name)};\n"
            for name in names
        )
        sent = "".join(
            f"            proxy_set_header {name} $captoken_{_low(name)};\n" for name in names
        )
        tls = ""
        if parts.scheme == "https":
            trusted = each.ca or _AUTHORITIES
            tls = f"""            proxy_ssl_server_name on;
            proxy_ssl_name {parts.hostname};
            proxy_ssl_verify on;
            proxy_ssl_verify_depth 3;
            proxy_ssl_trusted_certificate {trusted};
"""
        locations.append(f"""
        location /{each.name}/ {{
            auth_request {PLACE.decode()};
            auth_request_set $captoken_refusal $upstream_http_x_captoken_refusal;
            auth_request_set $captoken_challenge $upstream_http_www_authenticate;
            auth_request_set $captoken_uri $upstream_http_x_captoken_uri;
{taken}            error_page 401 = @captoken_unknown;
            error_page 403 = @captoken_refused;
            proxy_pass_request_headers off;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header Host {parts.netloc};
            proxy_set_header Connection "";
{sent}{tls}            proxy_http_version 1.1;
            proxy_next_upstream off;
            proxy_redirect off;
            proxy_intercept_errors off;
            proxy_pass {parts.scheme}://captoken_{each.name}$captoken_uri;
        }}
""")
    return f"""# The secret of [proxy] stands in secret.conf, which only nginx's master can read:
#     proxy_set_header X-Captoken-Proxy "...";
events {{}}
http {{
    merge_slashes off;
    underscores_in_headers off;
    access_log off;
{"".join(upstreams)}
    server {{
        listen {at};
        merge_slashes off;
        client_max_body_size 1;
        location = {PLACE.decode()} {{
            internal;
            proxy_pass http://{gateway};
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Original-URI $request_uri;
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Forwarded-Uri "";
            proxy_set_header X-Forwarded-Method "";
            include secret.conf;
        }}
        # nginx itself passes on the challenge of a 401.
        location @captoken_unknown {{
            default_type application/problem+json;
            add_header Cache-Control no-store always;
            return 401 $captoken_refusal;
        }}
        location @captoken_refused {{
            default_type application/problem+json;
            add_header WWW-Authenticate $captoken_challenge always;
            add_header Cache-Control no-store always;
            return 403 $captoken_refusal;
        }}
{"".join(locations)}
        location / {{ return 404; }}
    }}
}}
"""


def _low(name: str) -> str:
    """A header as nginx names its variable."""
    return name.lower().replace("-", "_")


def traefik(found: Configuration) -> dict[str, Any]:
    """Dynamic configuration of Traefik, of its file provider."""
    routers: dict[str, Any] = {}
    services: dict[str, Any] = {}
    middlewares: dict[str, Any] = {
        # Before the question; and taken out again before the service.
        "captoken-secret": _with_header(f'{{{{ env "{_variable(found)}" }}}}', Upgrade=""),
        "captoken-no-secret": _with_header(""),
        "captoken-no-token": _with_header("", Authorization=""),
    }
    transports: dict[str, Any] = {}
    for each in unseen(found):
        parts = urlsplit(each.url)
        forward = {
            "address": f"http://{found.file.gateway.listen}{PLACE.decode()}?exact",
            "authResponseHeaders": [name.title() for name in written_headers(each)],
            # Shown to the gateway, which refuses it.
            "forwardBody": True,
            "maxBodySize": found.file.gateway.max_body,
            "preserveRequestMethod": True,
        }
        named = f"captoken-{each.name}"
        middlewares[named] = {"forwardAuth": forward}
        middlewares[f"{named}-prefix"] = {"stripPrefix": {"prefixes": [f"/{each.name}"]}}
        after = "captoken-no-token" if leaves_token(each) else "captoken-no-secret"
        chain = ["captoken-secret", named, after, f"{named}-prefix"]
        base = parts.path.rstrip("/")
        if base:
            middlewares[f"{named}-base"] = {"addPrefix": {"prefix": base}}
            chain.append(f"{named}-base")
        routers[named] = {
            "rule": f"PathPrefix(`/{each.name}/`)",
            "service": named,
            "middlewares": chain,
        }
        servers = [{"url": origin_of(each.url)}]
        balancer: dict[str, Any] = {"servers": servers, "passHostHeader": False}
        if each.ca:
            transports[named] = {"rootCAs": [each.ca]}
            balancer["serversTransport"] = named
        services[named] = {"loadBalancer": balancer}
    made = {"http": {"routers": routers, "middlewares": middlewares, "services": services}}
    if transports:
        made["http"]["serversTransports"] = transports
    return made


def _with_header(value: str, **more: str) -> dict[str, Any]:
    """Headers that are there afterwards; an empty one is taken out."""
    return {"headers": {"customRequestHeaders": {"X-Captoken-Proxy": value, **more}}}

"""What stands in for platforms on this machine: an issuer with its key set, what gives a job its token, an agent of SPIRE.

What they sign has the claims that the platform's documentation shows; `test_identity` names the pages.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import time
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import grpc
import httpx
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe._proto import workload_pb2 as messages

from .authority import Authority
from .signing import Provider


class Platform:
    """An issuer on a loopback port: its discovery document, its keys, and the endpoint of GitHub's runner."""

    def __init__(self) -> None:
        self.keys = [Provider("key-1")]
        self.asked: list[str] = []  # paths, in the order in which they were asked for
        self.job: Mapping[str, Any] = {}  # what a job's token says
        self.secret = "secret-of-the-job"
        self.gone = False  # is the pod, of which a review asks?
        self.reviewed: list[Any] = []
        self.url = ""

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:
        """By the newest key."""
        return self.keys[-1].sign({**claims, "iss": self.url, "jti": str(uuid4())}, **header)

    def answer(self, target: str, authorization: str | None) -> tuple[int, Any]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            return 200, {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        if path == "/keys":
            return 200, {"keys": [key.jwk() for key in self.keys]}
        # As the runner has it: a version in the query already, and the job's secret (actions/toolkit, core/src/oidc-utils.ts).
        if path == "/idtoken" and "api-version" in query and authorization in (f"Bearer {self.secret}", f"bearer {self.secret}"):
            owner = f"https://github.com/{self.job['repository_owner']}"
            audience = query.get("audience", [owner])[0]
            return 200, {"count": 1, "value": self.sign({**self.job, **live(300), "aud": audience}, typ="JWT")}
        return 404, {}


    def review(self, target: str, authorization: str | None, body: bytes) -> tuple[int, Any]:
        """As the API server answers (https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/)."""
        if target != "/apis/authentication.k8s.io/v1/tokenreviews" or authorization != "Bearer of-the-service":
            return 403, {"kind": "Status", "status": "Failure", "reason": "Forbidden"}
        said = json.loads(body)
        self.reviewed.append(said["spec"])
        status: dict[str, Any] = {"authenticated": True, "audiences": said["spec"]["audiences"]}
        if self.gone:
            status = {"error": "[invalid bearer token, service account token has been invalidated]"}
        return 201, {**said, "status": status}


def live(seconds: int) -> dict[str, int]:
    """Times of what is good from now on."""
    now = int(time())
    return {"iat": now, "nbf": now, "exp": now + seconds}


@contextmanager
def platform() -> Iterator[Platform]:
    made = Platform()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.tell(*made.answer(self.path, self.headers.get("authorization")))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.tell(*made.review(self.path, self.headers.get("authorization"), body))

        def tell(self, status: int, said: Any) -> None:
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Agent:
    """An agent of SPIRE, as one workload sees it over the Workload API."""

    def __init__(self, trust_domain: str, spiffe_id: str) -> None:
        self.trust_domain = trust_domain
        self.spiffe_id = spiffe_id
        self.key = Provider("authority-1")
        self.registered = True
        self.ttl = 300
        self.authority = Authority(trust_domain, now=int(time()))
        self._kept: dict[tuple[str, ...], str] = {}

    def svid(self, audience: tuple[str, ...]) -> str:
        """A JWT-SVID. The agent keeps it, and gives the same one again (SPIRE does, for half of its life)."""
        if audience not in self._kept:
            times = live(self.ttl)
            del times["nbf"]
            self._kept[audience] = self.key.sign({"aud": list(audience), "sub": self.spiffe_id, "jti": str(uuid4()), **times}, typ="JWT")
        return self._kept[audience]

    def forget(self) -> None:
        """As when half of their life is over: the next ones are others."""
        self._kept.clear()

    def jwt_svids(self, request: messages.JWTSVIDRequest, context: Any) -> messages.JWTSVIDResponse:
        self._check(context)
        one = messages.JWTSVID(spiffe_id=self.spiffe_id, svid=self.svid(tuple(request.audience)))
        return messages.JWTSVIDResponse(svids=[one])

    def jwt_bundles(self, request: Any, context: Any) -> Iterator[messages.JWTBundlesResponse]:
        self._check(context)
        keys = {"keys": [{name: value for name, value in self.key.jwk().items() if name != "use"}]}
        yield messages.JWTBundlesResponse(bundles={f"spiffe://{self.trust_domain}": json.dumps(keys).encode()})

    def x509_bundles(self, request: Any, context: Any) -> Iterator[messages.X509BundlesResponse]:
        self._check(context)
        yield messages.X509BundlesResponse(bundles={f"spiffe://{self.trust_domain}": self.authority.der})

    def x509_svids(self, request: Any, context: Any) -> Iterator[messages.X509SVIDResponse]:
        self._check(context)
        made = self.authority.svid(self.spiffe_id, ends=self.ttl)
        key = made.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        one = messages.X509SVID(spiffe_id=self.spiffe_id, x509_svid=b"".join(made.chain), x509_svid_key=key, bundle=self.authority.der)
        yield messages.X509SVIDResponse(svids=[one])

    def _check(self, context: Any) -> None:
        if ("workload.spiffe.io", "true") not in [tuple(one) for one in context.invocation_metadata()]:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        if not self.registered:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")


@contextmanager
def agent(socket: Path, trust_domain: str, spiffe_id: str) -> Iterator[Agent]:
    """One that listens at that socket, until the block ends."""
    made = Agent(trust_domain, spiffe_id)
    handlers = {
        "FetchJWTSVID": grpc.unary_unary_rpc_method_handler(
            made.jwt_svids, messages.JWTSVIDRequest.FromString, messages.JWTSVIDResponse.SerializeToString
        ),
        "FetchJWTBundles": grpc.unary_stream_rpc_method_handler(
            made.jwt_bundles, messages.JWTBundlesRequest.FromString, messages.JWTBundlesResponse.SerializeToString
        ),
        "FetchX509Bundles": grpc.unary_stream_rpc_method_handler(
            made.x509_bundles, messages.X509BundlesRequest.FromString, messages.X509BundlesResponse.SerializeToString
        ),
        "FetchX509SVID": grpc.unary_stream_rpc_method_handler(
            made.x509_svids, messages.X509SVIDRequest.FromString, messages.X509SVIDResponse.SerializeToString
        ),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", handlers),))
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    try:
        yield made
    finally:
        server.stop(0).wait()


# --- what ends TLS --------------------------------------------------------------------------------


@contextmanager
def proxy(context: ssl.SSLContext, before: str, secret: str) -> Iterator[str]:
    """A proxy that says which certificate it was shown, whatever clients say of that; until the block ends: its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            connection: Any = self.connection
            der = connection.getpeercert(binary_form=True) or b""
            taken = ("client-cert", "client-cert-chain", "captoken-proxy-secret", "host", "content-length", "connection")
            headers = {name: value for name, value in self.headers.items() if name.lower() not in taken}
            headers["client-cert"] = f":{base64.b64encode(der).decode()}:"
            headers["captoken-proxy-secret"] = secret
            body = self.rfile.read(int(self.headers["content-length"]))
            answer = httpx.post(before + self.path, headers=headers, content=body)
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""The gateway for Envoy and others that can only ask by `ext_authz` (docs/gateway-proxies.md).

    add_authorizer(Authorizer(gateway.questions), server)

They ask once, with the head of a request, and send what the answer says. Nobody sees bodies and
answers: a service says `answers = "unseen"` for that, as for other proxies that ask. Here the
answer says the whole path, and takes out each header of the client's that was not written anew.
"""

from __future__ import annotations

from typing import Any

from captoken._format.extras import extra
from captoken.adapters._gateway.forward_auth import OF_ENVOY, Question, Questions
from captoken.adapters._http.exchange import (
    ClientGone,
    Header,
    Message,
    RequestError,
    Response,
    json_response,
)

with extra("envoy"):
    from envoy.config.core.v3 import base_pb2 as core
    from envoy.service.auth.v3 import external_auth_pb2 as protocol
    from envoy.service.auth.v3 import external_auth_pb2_grpc as services

add_authorizer = services.add_AuthorizationServicer_to_server

_OVERWRITE, _APPEND = 2, 0  # of HeaderAppendAction
_TARGET = b"x-captoken-uri"

# What our own answer has for whoever asks over HTTP.
_OWN = frozenset((_TARGET, b"content-length", b"cache-control"))
_DENIED, _OK = 7, 0  # of google.rpc.Code


class Authorizer(services.AuthorizationServicer):
    """Answers questions of proxies. Whoever serves it sees to it that nobody else asks."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    async def Check(self, asked: Any, context: Any) -> Any:  # noqa: N802, as the protocol has it
        """One question."""
        http = asked.attributes.request.http
        came = _headers(http)
        told = _Told()
        try:
            await self._questions.ask(_question(http, came), told)
        except RequestError as problem:
            said = {"status": problem.status, "detail": problem.text}
            told.response = json_response(problem.status, said)
        except ClientGone:
            pass
        answer = told.response
        return _allowed(answer, came) if answer.status == 200 else _refused(answer)


class _Told:
    """`send`, which keeps the answer."""

    def __init__(self) -> None:
        self.response = json_response(503, {"status": 503, "detail": "There is no answer."})
        self._start: Message = {}

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        else:
            body = message.get("body", b"")
            self.response = Response(self._start["status"], self._start["headers"], body)


def _headers(http: Any) -> list[Header]:
    """The headers of a request. Envoy joins those of one name, or has them in a list of their own.

    A joined one is one with a comma in it, which no reader here takes for two.
    """
    if http.header_map.headers:
        listed = [(each.key, each.raw_value) for each in http.header_map.headers]
        return [(name.lower().encode("latin-1"), value) for name, value in listed]
    joined = http.headers.items()
    return [(name.lower().encode("latin-1"), value.encode()) for name, value in joined]


def _question(http: Any, came: list[Header]) -> Question:
    own = [(name, value) for name, value in came if not name.startswith(b":")]
    lengths = [value for name, value in own if name == b"content-length"]
    is_chunked = any(name == b"transfer-encoding" for name, _ in own)
    has_body = bool(http.body or http.raw_body) or lengths not in ([], [b"0"]) or is_chunked
    kept = [(name, value) for name, value in own if name not in OF_ENVOY]
    target = http.path.encode("utf-8", "surrogateescape")
    return Question(http.method.encode(), target, kept, has_body, False)


def _allowed(answer: Response, came: list[Header]) -> Any:
    """What is to be sent: the target, the headers that were written, and no other."""
    target = b"".join(value for name, value in answer.headers if name == _TARGET)
    headers = [(name, value) for name, value in answer.headers if name not in _OWN]
    kept = {name for name, _ in headers}
    gone = {name for name, _ in came if not name.startswith(b":")} - kept - {b"host"}
    ok = protocol.OkHttpResponse(
        headers=_options([(b":path", target), *headers]),
        headers_to_remove=sorted(name.decode("latin-1") for name in gone),
    )
    return protocol.CheckResponse(status={"code": _OK}, ok_response=ok)


def _refused(answer: Response) -> Any:
    headers = [pair for pair in answer.headers if pair[0] != b"content-length"]
    denied = protocol.DeniedHttpResponse(
        status={"code": answer.status}, headers=_options(headers), body=answer.body.decode()
    )
    return protocol.CheckResponse(status={"code": _DENIED}, denied_response=denied)


def _options(headers: list[Header]) -> list[Any]:
    """Headers that are there afterwards, whatever was there under their names."""
    made: list[Any] = []
    seen: set[bytes] = set()
    for name, value in headers:
        option = core.HeaderValueOption(append_action=_APPEND if name in seen else _OVERWRITE)
        option.header.key, option.header.value = name.decode("latin-1"), value.decode("latin-1")
        made.append(option)
        seen.add(name)
    return made

"""A model behind the Messages API, on 127.0.0.1: it answers by a script, and keeps all that it is sent.

    with Model(answer) as model:
        env = {"ANTHROPIC_BASE_URL": model.url}
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], Sequence[tuple[str, Any]]]  # the calls that it makes of a request


class Model:
    def __init__(self, answer: Answer) -> None:
        self.requests: list[dict[str, Any]] = []
        self._answer = answer
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Model:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answered(self, request: dict[str, Any]) -> dict[str, Any]:
        """The message that a request comes to."""
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
            calls = self._answer(request)
        content: list[dict[str, Any]] = [
            {"type": "tool_use", "id": f"toolu_{number}_{at}", "name": name, "input": arguments}
            for at, (name, arguments) in enumerate(calls)
        ]
        return {
            "id": f"msg_{number}", "type": "message", "role": "assistant", "model": "scripted", "stop_sequence": None,
            "content": content or [{"type": "text", "text": "done"}],
            "stop_reason": "tool_use" if content else "end_turn",
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }  # fmt: skip

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *said: Any) -> None: ...

            def do_GET(self) -> None:
                self.reply(404, b"{}")

            do_HEAD = do_GET

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
                if "/v1/messages" not in self.path or "count_tokens" in self.path:
                    self.reply(200, b'{"input_tokens": 1}')
                    return
                message = model.answered(body)
                if body.get("stream"):
                    self.reply(200, _events(message), "text/event-stream")
                else:
                    self.reply(200, json.dumps(message).encode())

            def reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler


def _events(message: dict[str, Any]) -> bytes:
    """A message as a stream says it."""
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}]
    for at, block in enumerate(message["content"]):
        if block["type"] == "text":
            empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        events.append({"type": "content_block_start", "index": at, "content_block": empty})
        events.append({"type": "content_block_delta", "index": at, "delta": delta})
        events.append({"type": "content_block_stop", "index": at})
    last = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events += [{"type": "message_delta", "delta": last, "usage": {"output_tokens": 1}}, {"type": "message_stop"}]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()

"""Alerts: a line of JSON to a command, a webhook that can tell who sent it, an event of OpenTelemetry; each once."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from captoken.cli.reactions import alerts
from captoken.cli.reactions.alerts import Alerts, send, signature
from captoken.cli.reactions.rules import Told
from tests.reactions.world import NOW, PROBING, World

SECRET = b"0123456789abcdef"
SAID: dict[str, Any] = {"id": "x", "rule": "probing", "select": {"link": "abc"}, "agent": "west", "count": 5}


@contextmanager
def receiver(status: int = 200) -> Iterator[tuple[str, list[tuple[Any, bytes]]]]:
    """A receiver of webhooks: its address, and what it was sent."""
    came: list[tuple[Any, bytes]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.headers, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status)
            self.send_header("location", "/elsewhere")
            self.end_headers()

        def log_message(self, *given: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook?a=b", came
    finally:
        server.shutdown()
        server.server_close()


def test_a_webhook_has_a_signature_over_time_and_body(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    with receiver() as (address, came):
        send(Told(None, address, "file:secret", tmp_path), SAID, NOW)
    [(headers, body)] = came
    assert json.loads(body) == SAID and body.endswith(b"\n")
    assert headers["captoken-time"] == str(NOW)
    assert headers["captoken-signature"] == hmac.new(SECRET, b"%d." % NOW + body, hashlib.sha256).hexdigest() == signature(SECRET, NOW, body)


@pytest.mark.parametrize("status", [302, 400, 500])
def test_a_webhook_that_does_not_take_it_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """It may have heard it: and a redirect leads wherever whoever answers likes."""
    monkeypatch.setenv("HOOK", SECRET.decode())
    with receiver(status) as (address, came), pytest.raises(ValueError, match=f"answered {status}"):
        send(Told(None, address, "env:HOOK", tmp_path), SAID, NOW)
    assert len(came) == 1


def test_who_cannot_be_reached_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", SECRET.decode())
    waited: list[float] = []
    monkeypatch.setattr(alerts, "sleep", waited.append)
    with pytest.raises(OSError):
        send(Told(None, "https://127.0.0.1:1/hook", "env:HOOK", tmp_path), SAID, NOW)
    assert len(waited) == 2


@pytest.mark.parametrize("secret", ["env:NONE", "file:short"])
def test_a_secret_that_anybody_could_guess_is_refused(tmp_path: Path, secret: str) -> None:
    (tmp_path / "short").write_bytes(b"hunter2")
    with pytest.raises(ValueError, match="less than 16 characters"):
        send(Told(None, "http://127.0.0.1:1/", secret, tmp_path), SAID, NOW)


def test_a_command_gets_a_line_and_no_shell_reads_it(tmp_path: Path) -> None:
    said = {**SAID, "agent": "$(touch here); west"}
    out = tmp_path / "out"
    send(Told(("sh", "-c", f"cat > {out}"), None, None, tmp_path), said, NOW)
    assert json.loads(out.read_bytes()) == said and out.read_bytes().count(b"\n") == 1
    with pytest.raises(ValueError, match="ended with 3"):
        send(Told(("sh", "-c", "exit 3"), None, None, tmp_path), said, NOW)


def test_a_command_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "PATIENCE", 0.05)
    with pytest.raises(ValueError, match="took more than"):
        send(Told(("sleep", "60"), None, None, tmp_path), SAID, NOW)


def test_opentelemetry_gets_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    send(Told(None, None, None, tmp_path), SAID, NOW)
    [span] = kept.get_finished_spans()
    [event] = span.events
    assert event.name == "captoken.alert" and dict(event.attributes or {})["captoken.select.link"] == "abc"


def test_each_cause_is_told_once_and_says_what_was_done(tmp_path: Path) -> None:
    """Also by a reactor that is started again; one that fails is noted, and the next is told."""
    told = '[alert.file]\ncommand = ["sh", "-c", "cat >> %s"]\n[alert.bad]\ncommand = ["false"]\n' % (tmp_path / "alerts")
    world = World(tmp_path, PROBING + 'alert = ["bad", "file"]\n' + told)
    token = world.mint()
    world.ask(token, "hr", times=5)
    problems: list[str] = []
    for _ in range(2):
        with world.reactor() as reactor:
            reactor.take()
            sending = Alerts(reactor, problems.append)
            sending.look()
            sending.close()
            states = dict(reactor.rows("select name, state from told"))
    [line] = (tmp_path / "alerts").read_text("utf-8").splitlines()
    said = json.loads(line)
    assert (said["kind"], said["does"], said["done"], said["agent"], said["count"]) == ("reaction", "revoke", True, "lead", 5)
    assert said["id"] == world.entries[0].id and states == {"bad": "failed", "file": "told"}
    [problem] = problems
    assert "alert bad was not told" in problem
    world.close()


def test_one_that_is_no_more_in_the_file_is_noted(tmp_path: Path) -> None:
    world = World(tmp_path, PROBING + 'alert = ["page"]\n[alert.page]\ncommand = ["true"]\n')
    world.ask(world.mint(), "hr", times=5)
    world.react()
    world.rules.write_text(PROBING, "utf-8")
    problems: list[str] = []
    with world.reactor() as reactor:
        Alerts(reactor, problems.append).close()
    assert "no more in the file of rules" in problems[0]
    world.close()

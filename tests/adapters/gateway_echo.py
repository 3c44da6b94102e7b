"""Services for the tests of the gateway: each says what it understood of a request, by its own parser and its language's own.

Three readers of HTTP: h11 under uvicorn; Node's http and Go's net/http, where `CAPTOKEN_NODE` and `CAPTOKEN_GO` name a `node` and a `go`.
They answer with JSON: method, decoded segments, fields of the query, fields of a form, the JSON value, and headers,
of which the key is told without its beginning: the gateway withholds an answer that has it whole.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY = "sk_live_51HfakeKeyOfTheService"

H11 = """
import asyncio, json, socket, sys
from urllib.parse import parse_qsl, unquote
import uvicorn

seen = 0

async def app(scope, receive, send):
    global seen
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    kind = headers.get("content-type", "")
    if scope["path"] == "/seen":
        answer = {"seen": seen}
    else:
        seen += 1
        answer = {
            "method": scope["method"],
            "segments": [unquote(each, errors="strict") for each in scope["raw_path"].decode().split("/")[1:]],
            "query": parse_qsl(scope["query_string"].decode(), keep_blank_values=True, strict_parsing=bool(scope["query_string"])),
            "form": parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True) if "form" in kind and body else [],
            "json": json.loads(body) if "json" in kind else None,
            "headers": headers,
        }
    said = json.dumps(answer).replace("sk_live_", "").encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said})

listening = socket.create_server(("127.0.0.1", 0))
listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print(listening.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, http="h11", lifespan="off", log_level="critical")).run([listening])
"""

NODE = """
const http = require('node:http');
let seen = 0;
const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const body = Buffer.concat(parts).toString('utf8');
    const kind = request.headers['content-type'] || '';
    const [path, ...rest] = request.url.split('?');
    let answer = {seen};
    if (path !== '/seen') {
      seen += 1;
      answer = {
        method: request.method,
        segments: path.split('/').slice(1).map(decodeURIComponent),
        query: [...new URLSearchParams(rest.join('?'))],
        form: kind.includes('form') ? [...new URLSearchParams(body)] : [],
        json: kind.includes('json') ? JSON.parse(body) : null,
        headers: request.headers,
      };
    }
    response.end(JSON.stringify(answer).replace('sk_live_', ''));
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""

GO = """
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

func pairs(raw string) [][2]string {
	found := [][2]string{}
	if _, err := url.ParseQuery(raw); err != nil {
		return [][2]string{{"no query", err.Error()}}
	}
	for _, field := range strings.Split(raw, "&") {
		if field == "" {
			continue
		}
		name, value, _ := strings.Cut(field, "=")
		one, _ := url.QueryUnescape(name)
		other, _ := url.QueryUnescape(value)
		found = append(found, [2]string{one, other})
	}
	return found
}

func main() {
	seen := 0
	listening, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listening.Addr().(*net.TCPAddr).Port)
	http.Serve(listening, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		kind := r.Header.Get("Content-Type")
		if r.URL.Path == "/seen" {
			json.NewEncoder(w).Encode(map[string]any{"seen": seen})
			return
		}
		seen += 1
		segments := []string{}
		for _, each := range strings.Split(r.URL.EscapedPath(), "/")[1:] {
			segment, _ := url.PathUnescape(each)
			segments = append(segments, segment)
		}
		var value any
		if strings.Contains(kind, "json") {
			decoder := json.NewDecoder(bytes.NewReader(body))
			decoder.UseNumber()
			if err := decoder.Decode(&value); err != nil {
				value = err.Error()
			}
		}
		form := [][2]string{}
		if strings.Contains(kind, "form") {
			form = pairs(string(body))
		}
		headers := map[string]string{}
		for name, values := range r.Header {
			headers[strings.ToLower(name)] = strings.ReplaceAll(strings.Join(values, ", "), "sk_live_", "")
		}
		json.NewEncoder(w).Encode(map[string]any{
			"method": r.Method, "segments": segments, "query": pairs(r.URL.RawQuery), "form": form, "json": value, "headers": headers,
		})
	}))
}
"""

# Not on every machine: `.ci/run` has both.
NODE_BINARY, GO_BINARY = os.environ.get("CAPTOKEN_NODE"), os.environ.get("CAPTOKEN_GO")
READERS = ("h11", *(["node"] if NODE_BINARY else []), *(["go"] if GO_BINARY else []))


@contextmanager
def echoing(reader: str) -> Iterator[str]:
    """A service that reads by this parser, in a process of its own: its origin."""
    with tempfile.TemporaryDirectory() as folder:
        command = {"h11": [sys.executable, "-c", H11], "node": [str(NODE_BINARY), "-e", NODE], "go": [f"{folder}/echo"]}[reader]
        if reader == "go":
            Path(folder, "echo.go").write_text(GO)
            environment = {**os.environ, "GOCACHE": f"{folder}/cache", "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
            subprocess.run([str(GO_BINARY), "build", "-o", f"{folder}/echo", f"{folder}/echo.go"], check=True, env=environment, cwd=folder)
        with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            try:
                yield f"http://127.0.0.1:{int(running.stdout.readline())}"
            finally:
                running.kill()


def dotted(value: object, at: str = "") -> dict[str, object]:
    """What a JSON value says, member by member, as a reader of arguments would name them. Not by the gateway's own code."""
    if isinstance(value, dict) and value:
        found: dict[str, object] = {}
        for name, inner in value.items():
            found |= dotted(inner, f"{at}.{name}" if at else name)
        return found
    if isinstance(value, list) and value and all(isinstance(each, dict) and each for each in value):
        columns = [dotted(each) for each in value]
        every = dict.fromkeys(name for each in columns for name in each)
        return {f"{at}.{name}": [each.get(name) for each in columns] for name in every}
    return {at: value}


def text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)

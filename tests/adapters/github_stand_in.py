"""A stand-in for api.github.com, with TLS at its own port: for GitHub's MCP server, which knows no other address.

    python -m tests.adapters.github_stand_in server.pem asked      # until its input ends

Each request is a line in `asked`: method, path and key. Whoever wants an issue gets one.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

USER = {"login": "jane", "id": 1, "avatar_url": "", "url": "", "html_url": ""}
ISSUE = {
    "url": "", "repository_url": "", "labels_url": "", "comments_url": "", "events_url": "", "html_url": "",
    "id": 1, "node_id": "", "number": 7, "title": "It is broken", "user": USER, "labels": [], "state": "open", "locked": False,
    "assignee": None, "assignees": [], "milestone": None, "comments": 0, "created_at": "", "updated_at": "", "closed_at": None, "body": "x",
}  # fmt: skip


def main(certificate: str, asked: str) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with open(asked, "a") as log:
                log.write(f"{self.command} {self.path} {self.headers['authorization']}\n")
            body = json.dumps(ISSUE).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            """What is asked stands in the file."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = HTTPServer(("127.0.0.1", 443), Answers)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The console over HTTP, as an ASGI 3 application without a framework.

    GET  /?once=SECRET     opens the page, once: the answer is a cookie, and where all else is
    GET  …/  …/app.js      the page, which was built beforehand (`static`)
    GET  …/api/…           what it shows: see `Console`
    POST …/api/…           what an operator does: see `Console`

1. Only this machine, by the name under which it was opened: any other Host is refused, so that no
   name which somebody points here gets an answer.
2. Only who opened it: the cookie, which no script reads and no other site sends. Browsers send the
   cookies of a host to each of its ports. So all is below a path that nobody can guess, and the
   cookie is for that path: another server of this machine is never sent it.
3. A form comes from the page itself: its Origin, and a word that only the page was told.
4. Every answer forbids what the page does not need: other scripts, styles, frames, addresses.
5. An error is a sentence. What went wrong inside is for the log.
6. A token that is pasted comes by a form of its own. In all else that is sent one is refused, and
   none is in an answer (`pasted`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from secrets import token_urlsafe
from time import time
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec

from captoken._format.errors import CaptokenError
from captoken._format.spelling import escape
from captoken._language.bounds import CONSOLE_BYTES
from captoken.adapters._http.credentials import check_head
from captoken.adapters._http.exchange import (
    Body,
    Receive,
    RequestError,
    Response,
    Scope,
    Send,
    json_response,
    respond,
    values_of,
)
from captoken.cli.console import inspector, queries, views
from captoken.cli.console.acts import Control, Refused, Wish, is_same
from captoken.cli.console.answers import query_view
from captoken.cli.console.decision import decision_view
from captoken.cli.console.export import exported
from captoken.cli.console.index import Index
from captoken.cli.console.needs import needs_view
from captoken.cli.console.pasted import holds_token, pasted_view, without
from captoken.cli.words import plain

_log = logging.getLogger("captoken.console")

EVERY = 0.25  # seconds between two looks at the trails
_CURSOR = re.compile(r"[0-9]{1,16}\.[0-9]{1,16}", re.ASCII).fullmatch
_COOKIE = b"captoken_console"
_STATIC = Path(__file__).with_name("static")

# The policy permits only what our own page needs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_KINDS = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
}

Json = dict[str, Any]


# Seconds since the epoch. SQLite stores milliseconds in 64 bits.
_Second = Annotated[int, msgspec.Meta(ge=0, le=10**15)]


class _Proposed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    select: dict[str, str]
    keywords: dict[str, Any] | None = None


class _Pasted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str


_TWICE = (
    "the address was opened a second time. If both were not you, somebody else has it, and may act "
    "here: end the console with Ctrl-C"
)


_HELD = "a token is in it: it goes into no address, and into nothing that people are shown"


def leading_to(address: str) -> bytes:
    """A page that leads a browser on. `address` is our own: nothing in it has to be escaped."""
    return (
        '<!doctype html><link rel="icon" href="data:,">'
        f'<meta http-equiv="refresh" content="0;url={address}">'
    ).encode()


class _WhatIf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    add: list[_Proposed]
    first: _Second
    last: _Second


class Console:
    """The application. `address` is its own: `127.0.0.1:8765`.

    `once` is what the first address has in it; it is good for one request. `alerts` are what
    reactions have told of up to a second, as `needs` has it.
    """

    def __init__(
        self,
        index: Index,
        control: Control,
        *,
        address: str,
        spent: views.Spent,
        alerts: Callable[[int], list[Json]] = lambda _: [],
        clock: Callable[[], float] = time,
    ) -> None:
        self._index = index
        self._control = control
        self._host = address.encode("ascii")
        self._origin = b"http://" + self._host
        self._spent = spent
        self._alerts = alerts
        self._clock = clock

        # By path. What is shown, and what is done, with the shape of its form.
        self._reads: dict[str, Callable[[Mapping[str, str]], Json | None]] = {
            "/api/now": self._now_view,
            "/api/needs": self._needs_view,
            "/api/task": partial(self._view_of_one, views.task_view, "task"),
            "/api/agent": partial(self._view_of_one, views.agent_view, "id"),
            "/api/decisions": self._decisions_view,
            "/api/decision": self._decision_view,
            "/api/query": self._query_view,
            "/api/complete": lambda given: {
                "words": queries.completed(index, given.get("word", ""))
            },
            "/api/overlay": lambda _: views.overlay_view(
                index, self._control.overlay(), self.now()
            ),
        }
        self._writes: dict[str, tuple[Any, Callable[[Any], Json]]] = {
            "/api/pasted": (_Pasted, lambda asked: pasted_view(index, asked.text)),
            "/api/preview": (_Proposed, self._preview),
            "/api/what-if": (_WhatIf, self._what_if),
            "/api/act": (Wish, lambda wish: control.act(index, wish, self.now())),
        }

        self._first = token_urlsafe(32)
        self.once: str | None = self._first
        self.served = threading.Event()  # set once requests are answered
        self._session = token_urlsafe(32)
        self._below = f"/{token_urlsafe(16)}"
        self._form = token_urlsafe(32)

    @property
    def first_address(self) -> str:
        """Where a browser opens it, once."""
        return f"{self._origin.decode()}/?once={self.once}"

    # --- who may ask ------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Answers HTTP, and the server's own beginning and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            response = await self._answer(scope, receive)
        except RequestError as error:
            response = _error(error.status, error.text)
        except Refused as refused:
            response = _error(refused.status, str(refused))
        except (CaptokenError, OSError) as error:
            _log.error("%s", escape(str(error)))
            response = _error(503, "it cannot be known now: the log of the console says why")
        response.headers.extend(_HEADERS)
        if not any(name == b"content-security-policy" for name, _ in response.headers):
            response.headers.append((b"content-security-policy", _POLICY.encode()))
        await respond(send, response, without_body=scope["method"] == "HEAD")

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        check_head(scope)
        headers = scope["headers"]
        if values_of(headers, b"host") != [self._host]:
            raise RequestError(403, f"this is {self._host.decode()}, and answers to no other name")

        method, path = scope["method"], scope["path"]
        given = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if method == "GET" and path == "/" and "once" in given:
            return self._opened(given["once"])
        if not path.startswith(f"{self._below}/") or not self._is_ours(headers):
            raise RequestError(
                403, "open the address that the console has printed: it is good once"
            )

        path = path.removeprefix(self._below)
        if any(map(holds_token, (path, *given, *given.values()))):
            raise RequestError(400, _HELD)
        if method in ("GET", "HEAD"):
            return await self._read(path, given)
        if method != "POST":
            raise RequestError(405, "GET or POST")
        self._check_form(headers)
        return await self._write(path, await Body(receive, CONSOLE_BYTES).read_all())

    def _opened(self, secret: str) -> Response:
        """The first request: a cookie, and an address that nobody else can use.

        The answer is a page that leads there, and no redirect: a browser that comes from a file
        would not send the cookie along one.
        """
        if not is_same(secret, self._first):
            raise RequestError(403, "this is not the address that the console has printed")
        if self.once is None:
            _log.warning("%s", _TWICE)
            raise RequestError(403, _TWICE)
        self.once = None
        page = f"{self._below}/"
        kept = f"{_COOKIE.decode()}={self._session}; Path={page}; HttpOnly; SameSite=Strict"
        response = Response.of(200, _KINDS[".html"], leading_to(page))
        response.headers.extend(
            [(b"content-location", page.encode()), (b"set-cookie", kept.encode())]
        )
        return response

    def _is_ours(self, headers: Any) -> bool:
        """Does the request bring the one cookie?"""
        stated = b"; ".join(values_of(headers, b"cookie")).split(b"; ")
        own = [one.removeprefix(_COOKIE + b"=") for one in stated if one.startswith(_COOKIE + b"=")]
        return len(own) == 1 and is_same(own[0].decode("latin-1"), self._session)

    def _check_form(self, headers: Any) -> None:
        """Raises RequestError for a form that the page did not send."""
        word = b"".join(values_of(headers, b"x-captoken-form")).decode("latin-1")
        kind = values_of(headers, b"content-type")
        if values_of(headers, b"origin") != [self._origin] or not is_same(word, self._form):
            raise RequestError(403, "a form of another page")
        if kind != [b"application/json"]:
            raise RequestError(415, "JSON alone")

    # --- what is shown ----------------------------------------------------------------------------

    async def _read(self, path: str, given: Mapping[str, str]) -> Response:
        if path == "/api/session":
            return json_response(200, self._session_facts())
        view = self._reads.get(path)
        if view is not None:
            # Not on the event loop: a page of decisions is read from a file.
            found = await asyncio.to_thread(view, given)
            if found is None:
                raise RequestError(404, "there is no such thing")
            return _shown(found)
        if path == "/export":
            return await asyncio.to_thread(self._exported, given)
        return _static(path)

    def _session_facts(self) -> Json:
        return {
            "csrf": self._form,
            "now": self.now(),
            "can_act": self._control.can_act,
            "by": plain(self._control.by),
        }

    def now(self) -> int:
        return int(self._clock())

    def _now_view(self, given: Mapping[str, str]) -> Json:
        at = _number(given, "at")
        overlay = self._control.overlay()
        mark = f"{self._index.revision}.{0 if overlay is None else overlay.seq}"
        if at is None and given.get("rev") == mark:
            return {"rev": mark, "same": True, "now": self.now()}
        then = self._control.overlay_at(at)
        found = views.now_view(self._index, then, self.now(), at)
        return found | {"rev": mark, "overlay": views.overlay_facts(overlay)}

    def _needs_view(self, _: Mapping[str, str]) -> Json:
        now = self.now()
        overlay, trouble = None, None
        try:
            overlay = self._control.overlay()
        except CaptokenError as error:
            trouble = str(error)
        alerts = self._alerts(now)
        return needs_view(
            self._index, overlay, self._spent, now, trouble=trouble, alerts=alerts
        )

    def _view_of_one(
        self, view: Callable[..., Json | None], named: str, given: Mapping[str, str]
    ) -> Json | None:
        """The view of one thing, which the request names in `named`."""
        at = _number(given, "at")
        overlay = self._control.overlay_at(at)
        return view(self._index, overlay, self._spent, self.now(), given.get(named, ""), at)

    def _decisions_view(self, given: Mapping[str, str]) -> Json:
        return views.decisions_view(
            self._index,
            hop=given.get("id"),
            task=given.get("task"),
            trace=given.get("trace"),
            before=_cursor(given),
            at=_number(given, "at"),
            refused=given.get("refused") == "1",
            limit=_number(given, "limit") or views.PAGE,
        )

    def _decision_view(self, given: Mapping[str, str]) -> Json | None:
        return decision_view(self._index, given.get("key", ""))

    def _query_view(self, given: Mapping[str, str]) -> Json:
        at = _number(given, "at")
        return query_view(
            self._index,
            self._control.overlay_at(at),
            self._spent,
            self.now(),
            given.get("q", ""),
            at=at,
            before=_cursor(given),
            limit=_number(given, "limit") or views.PAGE,
            sort=given.get("sort", ""),
            only=given.get("only", ""),
        )

    def _exported(self, given: Mapping[str, str]) -> Response:
        """What was decided in a task or on an agent, with its proof: it opens without a server."""
        at = _number(given, "at")
        page = exported(
            self._index,
            self._control.overlay_at(at),
            self.now(),
            at,
            task=given.get("task"),
            hop=given.get("id"),
        )
        if page is None:
            raise RequestError(404, "there is no such task, and no such agent")
        response = Response.of(200, _KINDS[".html"], page)
        name = b'attachment; filename="evidence.html"'
        response.headers.append((b"content-disposition", name))
        return response

    # --- what is done -----------------------------------------------------------------------------

    async def _write(self, path: str, body: bytes) -> Response:
        if path not in self._writes:
            raise RequestError(404, "there is no such form")
        kind, do = self._writes[path]
        try:
            asked = msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, RecursionError):
            raise RequestError(400, "a form that cannot be read") from None
        if kind is not _Pasted and holds_token(msgspec.json.encode(asked).decode()):
            raise RequestError(400, _HELD)
        return _shown(await asyncio.to_thread(do, asked))

    def _preview(self, asked: _Proposed) -> Json:
        return self._control.preview(self._index, asked.select, asked.keywords, self.now())

    def _what_if(self, asked: _WhatIf) -> Json:
        add = [(one.select, one.keywords) for one in asked.add]
        return self._control.what_if(self._index, add, asked.first, asked.last)

    # --- the trails -------------------------------------------------------------------------------

    async def _live(self, receive: Receive, send: Send) -> None:
        """From the server's beginning to its end, the trails are read as they grow."""
        await receive()
        looking = asyncio.create_task(self._look())
        # Beside that, once: the index may be one of days ago.
        verifying = asyncio.create_task(asyncio.to_thread(self._index.verify))
        await send({"type": "lifespan.startup.complete"})
        self.served.set()
        await receive()
        looking.cancel()
        verifying.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    async def _look(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._index.take)
            except Exception:
                _log.exception("the trails cannot be read now")
            await asyncio.sleep(EVERY)


def _number(given: Mapping[str, str], name: str) -> int | None:
    """A whole number, if one is stated. Raises RequestError."""
    text = given.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise RequestError(400, f"{name} is a whole number")
    return int(text)


def _cursor(given: Mapping[str, str]) -> str | None:
    """Where a page ends, if that is stated. Raises RequestError."""
    text = given.get("before")
    if text is not None and not _CURSOR(text):
        raise RequestError(400, "before is the `next` of a page")
    return text


def _static(path: str) -> Response:
    """A file of the page. There are these and no others, so that no path leads anywhere else."""
    name = "index.html" if path == "/" else path.removeprefix("/")
    files = {file.name: file for file in _STATIC.iterdir()} if _STATIC.is_dir() else {}
    file = files.get(name)
    if file is None or file.suffix not in _KINDS:
        raise RequestError(404, "there is no such page")
    response = Response.of(200, _KINDS[file.suffix], file.read_bytes())
    if name == inspector.NAME:
        # It takes tokens, so that its own policy is stricter: nothing leaves it.
        own = inspector.policy(response.body.decode("ascii")) + "; frame-ancestors 'none'"
        response.headers.append((b"content-security-policy", own.encode()))
    return response


def _shown(found: Json, status: int = 200) -> Response:
    """An answer, without any token in it."""
    response = json_response(status, found)
    body = without(response.body)
    return response if body == response.body else json_response(status, json.loads(body))


def _error(status: int, text: str) -> Response:
    return _shown({"error": text}, status)

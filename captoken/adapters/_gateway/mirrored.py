"""Headers that repeat arguments of a tool, where its schema asks for them (`x-mcp-header`).

    mirrored = Mirrored("tickets")
    mirrored.note("query", definition)              # as the server lists it
    mirrored.headers("query", {"region": "eu"}, ()) # [(b"mcp-param-region", b"eu")], or Unfit

Proxies route by these headers of MCP 2026-07-28, and decide by them. So each is written from the
arguments that were judged. A client's own goes nowhere, and has to agree with them.
"""

from __future__ import annotations

import json
import logging
import re
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from captoken._format.spelling import shown
from captoken.adapters._gateway.upstream import Unreachable
from captoken.adapters._http.exchange import Header
from captoken.adapters._mcp.messages import Headers, decoded

_log = logging.getLogger("captoken.gateway")

# The code of an error of MCP: headers that do not agree with the message, or lack one.
MISMATCH: Final = -32020

PREFIX = b"mcp-param-"
_ASKS = "x-mcp-header"
_KEPT = 10_000
_EXACT = 1 << 53

_is_value = re.compile(r"(?!=\?base64\?)[!-~](?:[ -~]*[!-~])?").fullmatch
_is_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}").fullmatch
_whole = re.compile(r"(-?[0-9]+)\.0+").fullmatch

# Where an argument stands: the names that lead to it.
_Path = tuple[str, ...]


class Unfit(Unreachable):
    """A call that is not sent, since its headers cannot be made, or are others than it says."""


class Mirrored:
    """What is known of the tools of one service. `is_whole`: all that the server lists is."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._asked: OrderedDict[str, dict[_Path, bytes] | str] = OrderedDict()
        self.is_whole = False

    def note(self, name: str, definition: Mapping[str, Any]) -> None:
        """A definition of a tool. One that asks for what cannot be made is told, once."""
        asked: dict[_Path, bytes] | str
        try:
            asked = _asked(definition.get("inputSchema"))
        except Unfit as problem:
            asked = str(problem)
            if self._asked.get(name) != asked:
                _log.warning("%s: the tool %s is left out: %s", self._service, shown(name), asked)
        self._asked[name] = asked
        self._asked.move_to_end(name)
        if len(self._asked) > _KEPT:
            self._asked.popitem(last=False)
            self.is_whole = False

    def forget(self) -> None:
        """The server says that it is otherwise: its tools are to be listed again."""
        self._asked.clear()
        self.is_whole = False

    def is_known(self, name: str) -> bool:
        """Is it known which headers that tool asks for?"""
        return self.is_whole or name in self._asked

    def is_fit(self, name: str) -> bool:
        """Can the headers be made that it asks for?"""
        return type(self._asked.get(name)) is not str

    def headers(self, name: str, arguments: Mapping[str, Any], stated: Headers) -> list[Header]:
        """The headers of a call, whose client has stated some of them. Raises Unfit."""
        asked = self._asked.get(name, {})
        if isinstance(asked, str):
            raise Unfit(f"The tool cannot be called: {asked}.")
        values = {header: _at(arguments, path) for path, header in asked.items()}
        for header, sent in stated:
            if not _agrees(decoded(sent), values.get(header)):
                raise Unfit(f"The header {shown(header.decode())} does not agree with the message.")
        texts = [(header, _spelled(value)) for header, value in values.items()]
        return [(header, header_value(text)) for header, text in texts if text is not None]


def header_value(text: str) -> bytes:
    """A text as the value of a header: as it is, or as `=?base64?…?=`."""
    if _is_value(text) is not None:
        return text.encode("ascii")
    return b"=?base64?" + b64encode(text.encode()) + b"?="


# --- what a schema asks for -----------------------------------------------------------------------


def _asked(schema: Any) -> dict[_Path, bytes]:
    """The headers that a schema asks for. Raises Unfit for one that cannot be made.

    An argument can be found whose place is the same in every call: by `properties` alone. What
    stands elsewhere might count or not, as a reader sees it. So it does not pass.
    """
    found: dict[_Path, bytes] = {}
    left: list[tuple[_Path | None, Any]] = [((), schema)]
    while left:
        path, node = left.pop()
        if type(node) is list:
            left += [(None, each) for each in node]
        elif type(node) is dict:
            if _ASKS in node:
                header = _header(path, node)
                if header in found.values():
                    raise Unfit("its schema asks for one header twice")
                found[path or ()] = header
            for key, each in node.items():
                if key == "properties" and type(each) is dict:
                    left += [(None if path is None else (*path, name), each[name]) for name in each]
                else:
                    left.append((None, each))
    return found


def _header(path: _Path | None, node: Mapping[str, Any]) -> bytes:
    """The name of the header that a schema asks for at this place. Raises Unfit."""
    asked = node[_ASKS]
    if not path:
        raise Unfit("its schema asks for a header of what is no plain argument")
    if type(asked) is not str or _is_name(asked) is None:
        raise Unfit("its schema asks for a header that has no name")
    if node.get("type") not in ("string", "integer", "boolean"):
        raise Unfit("its schema asks for a header of what is no text, integer or truth value")
    return PREFIX + asked.lower().encode("ascii")


# --- what a call says -----------------------------------------------------------------------------


def _at(arguments: Any, path: _Path) -> Any:
    """The argument at that place; None where there is none."""
    for name in path:
        arguments = arguments.get(name) if type(arguments) is dict else None
    return arguments


def _spelled(value: Any) -> str | None:
    """An argument as text; None for what no header repeats."""
    if type(value) is str:
        return value
    if type(value) is float and value.is_integer() and abs(value) < _EXACT:
        value = int(value)  # 42.0, which other languages spell 42
    return json.dumps(value) if type(value) in (bool, int, float) else None


def _agrees(text: str | None, value: Any) -> bool:
    """Is it the same argument? Of a number 42.0 is 42."""
    if text is not None and type(value) in (int, float):
        found = _whole(text)
        text = text if found is None else found[1]
    return text is not None and text == _spelled(value)

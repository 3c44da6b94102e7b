"""Values to the bytes of a request: what goes to the service, and nothing else does.

Each has one spelling, which readers of all languages read alike: unreserved characters as they are,
all others as percent-escapes; JSON in ASCII, without spaces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from captoken.adapters._http.exchange import Header

# What `quote` leaves as it is: most names and values are nothing else.
_is_unreserved = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch


def escaped(text: str) -> str:
    """A segment, a name or a value, of which nothing has a meaning in a URL."""
    return text if _is_unreserved(text) else quote(text, safe="")


def path(segments: list[str]) -> str:
    """A path, from its decoded segments."""
    return "/" + "/".join(map(escaped, segments))


def json_body(value: Any) -> bytes:
    """A JSON text."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def fields(value: dict[str, Any], lists: str) -> str:
    """A query or a form. `lists` is how the service takes lists."""
    pairs = (pair for name, item in value.items() for pair in _spread(name, item, lists))
    return "&".join(f"{escaped(name)}={escaped(text)}" for name, text in pairs)


def _spread(name: str, value: Any, lists: str) -> Iterator[tuple[str, str]]:
    """The fields of a value, each a name and a text."""
    if type(value) is dict:
        for key, item in value.items():
            yield from _spread(f"{name}[{key}]", item, lists)
    elif type(value) is list:
        for number, item in enumerate(value):
            # An object's members belong together only by its number.
            is_numbered = lists == "indices" or type(item) is dict
            unnumbered = name if lists == "repeat" else f"{name}[]"
            yield from _spread(f"{name}[{number}]" if is_numbered else unnumbered, item, lists)
    else:
        yield name, text_of(value)


def text_of(value: Any) -> str:
    """A scalar as the text of a field or a segment."""
    if type(value) is str:
        return value
    return str(value) if type(value) is int else json.dumps(value)


class Outgoing:
    """A request as it goes out, from what was judged. A credential is put in last.

    It shows its method and its path, and nothing else.
    """

    def __init__(
        self, method: str, path: str, query: str, headers: list[Header], body: bytes
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body

    @property
    def target(self) -> str:
        """What stands in the request line."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def add_query(self, name: str, value: str) -> None:
        """One field more: the service takes its key there."""
        field = f"{escaped(name)}={escaped(value)}"
        self.query = f"{self.query}&{field}" if self.query else field

    def __repr__(self) -> str:
        return f"<{self.method} {self.path}>"

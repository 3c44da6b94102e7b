"""A certified identity provider, in a process of its own, and a browser that does what a person would."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from typing import Any
from urllib.parse import urljoin

import httpx

from .office import NODE, needs_node


@contextmanager
def provider(**stated: Any) -> Iterator[str]:
    """oidc-provider on a loopback port, until the block ends: its issuer identifier."""
    needs_node()
    process = subprocess.Popen(
        ["node", "provider.mjs"], cwd=NODE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(stated) + "\n")
        process.stdin.flush()
        yield json.loads(process.stdout.readline())["issuer"]
    finally:
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()


_form = re.compile(r"<form[^>]*>", re.IGNORECASE)
_input = re.compile(r"<input[^>]*>|<button[^>]*>", re.IGNORECASE)


def _attribute(tag: str, name: str) -> str | None:
    found = re.search(rf'\b{name}="([^"]*)"', tag)
    return None if found is None else unescape(found[1])


class Browser:
    """Follows redirects and fills in forms, with cookies. A person's name goes into `login`."""

    def __init__(self, person: str = "jane") -> None:
        self.person = person

    def go(self, address: str, **fields: str) -> httpx.Response:
        """To this address, and on until there is no form any more."""
        with httpx.Client(follow_redirects=True, timeout=10) as client:
            answer = client.get(address)
            for _ in range(8):
                form = self._form_of(answer, fields)
                if form is None:
                    break
                action, given = form
                answer = client.post(action, data=given)
            return answer

    def _form_of(self, answer: httpx.Response, fields: Mapping[str, str]) -> tuple[str, dict[str, str]] | None:
        opening = _form.search(answer.text)
        if opening is None or answer.status_code >= 400:
            return None
        given: dict[str, str] = {}
        for tag in _input.findall(answer.text):
            name = _attribute(tag, "name")
            if name is not None and name != "abort":
                given[name] = _attribute(tag, "value") or ""
        given |= {name: value for name, value in {"login": self.person, "password": "x", **fields}.items() if name in given}
        return urljoin(str(answer.url), _attribute(opening[0], "action") or ""), given

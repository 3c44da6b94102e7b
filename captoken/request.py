"""What a proof of possession is about: 32 bytes that stand for one request (spec, "Requests").

Whoever makes a proof and whoever checks it state the same facts, each from its own side. Nothing is normalised: method,
path and body are compared as they travel, so that no proxy's idea of equality becomes ours.
"""

from __future__ import annotations

import json

from captoken import names, primitives
from captoken.access import Access

_HTTP = primitives.label("request http")
_MCP = primitives.label("request mcp")
_ACCESS = primitives.label("request access")
_spell = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode


def _digest(label: bytes, *parts: bytes) -> bytes:
    """SHA-256 of the parts, each behind its length in 8 bytes, so that no two lists of parts run together alike."""
    return primitives.sha256(label + b"".join(len(part).to_bytes(8, "big") + part for part in parts))


def of_http(method: str, origin: str, target: bytes | str, body: bytes = b"") -> bytes:
    """One HTTP request: method, origin as the server is configured (`https://api.example`), path with query, and body.

    `target` is what stands in the request line, undecoded. Headers are no part of it. Raises TypeError, or ValueError
    for text beyond ASCII.
    """
    path = target if type(target) is bytes else names.exact_str(target, "target").encode("ascii")
    line = names.exact_str(method, "method").encode("ascii"), names.exact_str(origin, "origin").encode("ascii"), path
    return _digest(_HTTP, *line, primitives.sha256(body))


def of_mcp(method: str, name: str, arguments: bytes = b"{}") -> bytes:
    """One MCP call: method (`tools/call`), name of the tool, and arguments as bytes that both sides spell alike.

    How they are spelled is the adapter's affair: the core does not know which spellings of JSON a tool calls equal.
    Raises TypeError, or ValueError for a lone surrogate.
    """
    return _digest(_MCP, names.exact_str(method, "method").encode(), names.exact_str(name, "name").encode(), arguments)


def of_access(access: Access | None) -> bytes:
    """One access, by the facts stated; None for a token that is shown and no access.

    Columns are a set. Numbers are spelled as Python spells them: 1 and 1.0 are two requests. Raises ValueError for an
    integer too long to be spelled.
    """
    if access is None:
        return _digest(_ACCESS)
    facts = {
        "arguments": access.arguments,
        "attributes": access.attributes,
        "columns": sorted(set(access.columns)) if access.columns is not None else None,
        "operation": access.operation,
        "table": access.table,
        "tool": access.tool,
    }
    return _digest(_ACCESS, _spell(facts).encode("ascii"))

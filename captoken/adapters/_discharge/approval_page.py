"""The page on which a person approves or denies: what is needed, escaped, and two buttons.

No script, nothing fetched. What is needed was written by whoever made the ticket, who may be a
stranger. So it is shown as text, each value for itself (`bdi`: writing from right to left reorders
nothing around it), and what is not printable by its number.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from time import gmtime, strftime
from typing import Any

from captoken._format.encoding import encode_json
from captoken._format.primitives import sha256
from captoken._format.spelling import is_visible

_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f4f5f7; --sheet: #fff; --ink: #1c2330; --soft: #596273; --line: #dde1e7;
}
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171c; --sheet: #1e232b; --ink: #e8ebf0; --soft: #a3adbb; --line: #363d49; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 34rem; margin: 0 auto; padding: 1.75rem 2rem 2rem; background: var(--sheet);
  border: 1px solid var(--line); border-radius: .75rem; }
h1 { margin: 0 0 .25rem; font-size: 1.4rem; line-height: 1.3; overflow-wrap: anywhere; }
p { margin: .5rem 0; color: var(--soft); }
strong { color: var(--ink); overflow-wrap: anywhere; }
table { width: 100%; margin: 1.25rem 0; border-collapse: collapse; table-layout: fixed;
  border-top: 1px solid var(--line); }
caption { padding: 0 0 .4rem; text-align: left; font-weight: 600; }
th, td { padding: .6rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow: hidden; overflow-wrap: anywhere; white-space: pre-wrap; }
th { width: 35%; padding-right: 1rem; font-weight: 400; color: var(--soft); }
td { font-weight: 600; }
form { display: flex; gap: .75rem; margin-top: 1.5rem; }
button { flex: 1; min-height: 2.75rem; border: 1px solid var(--soft); border-radius: .5rem;
  background: none; color: inherit; font: inherit; font-weight: 600; cursor: pointer; }
button.go { border-color: #1a6b3c; background: #1a6b3c; color: #fff; }
button:hover { filter: brightness(1.15); }
button:focus-visible { outline: 3px solid #4c8dff; outline-offset: 2px; }
"""

_STYLE_HASH = b64encode(sha256(_STYLE.encode())).decode()
# The page has this style and nothing else, and no other page shows it in a frame.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def form(
    need: Mapping[str, Any],
    expires_at: float,
    by: str,
) -> str:
    """The page that asks `by` whether what is needed is approved."""
    rows = "".join(
        f'<tr><th scope="row">{_shown(key)}</th><td>{_shown(value)}</td></tr>'
        for key, value in need.items()
    )
    until = strftime("%H:%M", gmtime(expires_at))
    return _page(
        "Approve this?",
        "<p>An agent waits for this. "
        "Anybody can have written it: if you do not expect it, deny.</p>"
        f'<table aria-label="What is needed">{rows}</table>'
        f"<p>You decide as <strong>{_shown(by)}</strong>, until {until} UTC.</p>"
        '<form method="post"><button name="decision" value="deny">Deny</button>'
        '<button class="go" name="decision" value="approve">Approve</button></form>',
    )


def consent(
    facts: Iterable[tuple[str, str]],
    known: Iterable[tuple[str, str]],
    expires_at: float,
    by: str,
) -> str:
    """The page that asks `by` whether this one call may be made, exactly as it stands there.

    `facts` are those of the request, `known` is what the owner knows of the task.
    """
    below = _table("What this task has done", known)
    until = strftime("%H:%M", gmtime(expires_at))
    return _page(
        "Consent to this call?",
        "<p>An agent waits to make this one call, once, exactly as it stands here. "
        "Who asks is the word of whoever wrote this: if you do not expect it, refuse.</p>"
        f"{_table('The call', facts)}{below}"
        f"<p>You decide as <strong>{_shown(by)}</strong>, until {until} UTC.</p>"
        '<form method="post"><button name="decision" value="deny">Refuse</button>'
        '<button class="go" name="decision" value="approve">Consent</button></form>',
    )


def _table(label: str, rows: Iterable[tuple[str, str]]) -> str:
    """Names and texts, each as it stands; nothing for none. Spaces in front of a name are kept."""
    shown = "".join(
        f'<tr><th scope="row"><bdi>{escape(_visible(name))}</bdi></th>'
        f"<td><bdi>{escape(_visible(text))}</bdi></td></tr>"
        for name, text in rows
    )
    return f"<table><caption>{escape(label)}</caption>{shown}</table>" if shown else ""


def message(text: str, more: str = "") -> str:
    """A page that says one thing, or two."""
    return _page(text, f"<p>{_shown(more)}</p>" if more else "")


def _page(title: str, rest: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(_visible(title))}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{_shown(title)}</h1>{rest}</main></body></html>"
    )


def _shown(value: Any) -> str:
    """One value as HTML.

    A text that reads like a number, or like any other JSON, is quoted: "500" is not 500.
    """
    text = value
    if not isinstance(value, str) or _reads_like_json(value):
        text = encode_json(value).decode()
    return f"<bdi>{escape(_visible(text))}</bdi>"


def _reads_like_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _visible(text: str) -> str:
    """Replace a character that is invisible, or that hides or reorders others, by its number."""
    return "".join(char if is_visible(char) else f"\\u{{{ord(char):x}}}" for char in text)

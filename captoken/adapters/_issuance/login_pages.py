"""The pages that a person sees: what an application may do for her, what it does, and what failed.

No script, and nothing is fetched. Names are a stranger's: each is shown as text, for itself (`bdi`:
writing from right to left reorders nothing around it), and what is not printable by its number.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from time import gmtime, strftime
from typing import Any, NamedTuple

from captoken._format.primitives import sha256
from captoken._format.spelling import is_visible, span
from captoken._language import patterns
from captoken._language.caveats import BUILT_IN
from captoken._language.tool import Tools
from captoken.adapters._http.exchange import Response
from captoken.adapters._issuance.offers import Offer
from captoken.adapters._scopes import Right
from captoken.issuance.applications import address_of

_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f4f5f7; --sheet: #fff; --ink: #1c2330; --soft: #596273; --line: #dde1e7;
  --warn: #8a4b00; --warm: #fff4e0; --go: #1a6b3c;
}
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171c; --sheet: #1e232b; --ink: #e8ebf0; --soft: #a3adbb; --line: #363d49;
    --warn: #ffcf8a; --warm: #3a2c14; --go: #1f7a46; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 36rem; margin: 0 auto; padding: 1.75rem 2rem 2rem; background: var(--sheet);
  border: 1px solid var(--line); border-radius: .75rem; }
h1 { margin: 1rem 0 .5rem; font-size: 1.4rem; line-height: 1.3; overflow-wrap: anywhere; }
h2, legend { margin: 1.5rem 0 .25rem; padding: 0; font-size: 1rem; font-weight: 600; }
p, li { overflow-wrap: anywhere; }
p { margin: .5rem 0; }
.soft { color: var(--soft); }
.warn { padding: .6rem .9rem; border-radius: .5rem; background: var(--warm); color: var(--warn); }
fieldset { margin: 0; padding: 0; border: 0; min-width: 0; }
ul { margin: .25rem 0; padding-left: 1.25rem; }
label { display: flex; gap: .75rem; align-items: flex-start; padding: .55rem 0;
  border-bottom: 1px solid var(--line); cursor: pointer; min-height: 2.75rem; }
label > span { min-width: 0; overflow-wrap: anywhere; }
input { flex: none; width: 1.25rem; height: 1.25rem; margin: .15rem 0 0; accent-color: var(--go); }
table { width: 100%; border-collapse: collapse; table-layout: fixed; }
th, td { padding: .5rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { width: 35%; padding-right: 1rem; font-weight: 400; color: var(--soft); }
.buttons { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0 1rem; }
button, .button { flex: 1 1 8rem; min-height: 2.75rem; padding: .5rem 1rem; text-align: center;
  border: 1px solid var(--soft); border-radius: .5rem; background: none; color: inherit;
  font: inherit; font-weight: 600; cursor: pointer; text-decoration: none; }
button.go { border-color: var(--go); background: var(--go); color: #fff; }
button.small { flex: none; }
button:hover { filter: brightness(1.15); }
:focus-visible { outline: 3px solid #4c8dff; outline-offset: 2px; }
"""
_STYLE_HASH = b64encode(sha256(_STYLE.encode())).decode()

# What operations are called by people who have never seen a database.
_OPERATIONS = {
    "select": "Read",
    "insert": "Add to",
    "update": "Change",
    "delete": "Delete from",
}
# What has boxes, and what the page says in its own words.
_ELSEWHERE = frozenset(("tables", "operations", "allow", "tools", "exp", "task", "aud"))
_KEYS = {"expires_at": "exp", "not_before": "nbf", "audience": "aud"}


class Look(NamedTuple):
    """What is alike on all pages of a service."""

    # The path at which the service stands, without a slash at its end.
    base: str = ""

    # Is it a trial, where anybody can log in as anybody?
    is_trial: bool = False


class Running(NamedTuple):
    """What an application may do for a person, as it stands on her page."""

    # What names it in the form that ends it.
    sealed: str
    application: str
    grant: str
    audience: str
    rights: tuple[Right, ...]
    begun: int
    until: int


def consent(look: Look, offer: Offer, sealed: str, notice: str = "") -> Response:
    """The page that asks a person what an application may do for her."""
    application = offer.application
    name = _shown(application.name)
    boxes = "".join(_box(right, offer.gives) for right in offer.rights)
    limits = "".join(f"<li>{_shown(line)}</li>" for line in _limits(offer.gives))
    limits = f"<h2>Within these limits</h2><ul>{limits}</ul>" if limits else ""
    told = f'<p class="warn" role="alert">{_shown(notice)}</p>' if notice else ""
    goes_on = offer.goes_on
    legend = "It may" if goes_on is None else "New: it may also"
    rest = (
        f"{told}<p>{_published(offer)}</p>{_goes_to(offer)}"
        f'<form method="post" action="{look.base}/authorize/decide">'
        f'<input type="hidden" name="request" value="{sealed}">'
        f"<fieldset><legend>{legend}, at <bdi>{_escaped(offer.audience)}</bdi>:</legend>"
        f'<p class="soft">Untick what it does not need.</p>{boxes}</fieldset>'
        f"{_by_column(offer)}{_missing(offer)}{_before(offer)}{limits}"
        f"<h2>For how long</h2><p>{_how_long(offer)}</p>"
        '<div class="buttons"><button name="answer" value="deny">Deny</button>'
        '<button class="go" name="answer" value="allow">Allow</button></div></form>'
        f'<p class="soft">You are logged in as {_shown(offer.subject)}. The policy of this service '
        f"gives this as &#8220;{_shown(offer.grant.name)}&#8221;{_rest(offer)}. "
        f'<a href="{look.base}/grants">What you have allowed</a></p>'
    )
    back = address_of(offer.asked.redirect)
    origin = "" if back is None else back.origin
    wants = "wants to act for you" if goes_on is None else "wants to do more for you"
    title = f"{application.name} {wants}"
    return page(look, 200, title, rest, f"<h1>{name} {wants}</h1>", origin)


def _rest(offer: Offer) -> str:
    """Is there more that the policy gives, and nobody asks for?"""
    return ", and nothing more" if offer.is_all else ". It could ask for more later"


def _by_column(offer: Offer) -> str:
    """What columns count for, where there are boxes for them."""
    if not any(right.column for right in offer.rights):
        return ""
    return '<p class="soft">A column counts for all that it may do with that table.</p>'


def _missing(offer: Offer) -> str:
    """What was asked for, and nobody can allow here."""
    those = "".join(f"<li>{_what(right)}</li>" for right in offer.missing)
    return f"<h2>It also asks for this, and cannot have it</h2><ul>{those}</ul>" if those else ""


def _before(offer: Offer) -> str:
    """What she has allowed before, to which the boxes are added."""
    if offer.goes_on is None:
        return ""
    those = "".join(f"<li>{_what(right)}</li>" for right in offer.held)
    return f"<h2>You have allowed it already</h2><ul>{those}</ul>"


def _published(offer: Offer) -> str:
    """Who stands behind the application: its name is its own word, and a host is not."""
    publisher = offer.application.publisher
    if publisher is None:
        return "The people who run this service know this application."
    return (
        f"This application is published by <strong>{_shown(publisher)}</strong>. "
        "It chose its name itself. If you did not just start it, deny."
    )


def _goes_to(offer: Offer) -> str:
    """Where the browser goes next."""
    address = address_of(offer.asked.redirect)
    if address is None:
        return ""
    if address.is_local:
        return (
            '<p class="warn">Your answer goes to a program on <strong>this computer</strong>. '
            "Allow it only if you started that program here, just now.</p>"
        )
    return f"<p>Your answer goes to <strong>{_shown(address.host)}</strong>.</p>"


def _box(right: Right, gives: Mapping[str, Any]) -> str:
    """One right with its box, and what a tool may be given."""
    more = ""
    if right.kind == "tool":
        (line,) = Tools({right.name: gives["tools"][right.name]}).words(0, {})
        more = f'<br><span class="soft">with {_shown(line.rpartition(", with ")[2])}</span>'
    return (
        f'<label><input type="checkbox" name="right" value="{escape(right.text)}" checked>'
        f"<span>{_what(right)}{more}</span></label>"
    )


def _what(right: Right) -> str:
    """A right in words."""
    if right.kind == "tool":
        return f"Use the tool <strong>{_shown(right.name)}</strong>"
    verb = _OPERATIONS.get(right.operation)
    said = f"{verb} " if verb else f"Do {_shown(right.operation)} on "
    column = f"column <strong>{_shown(right.column)}</strong> of " if right.column else ""
    return f"{said}{column}<strong>{_shown(right.name)}</strong>"


def _limits(gives: Mapping[str, Any]) -> list[str]:
    """What else the grant says, in the words of its caveats; of tools, those that have no box."""
    stated = {_KEYS.get(key, key): value for key, value in gives.items()}
    lines: list[str] = []
    caveats = {kind.key: kind(stated[kind.key]) for kind in BUILT_IN if kind.key in stated}
    for key, caveat in caveats.items():
        if key == "tools":
            tools = gives["tools"]
            boxless = {one: tools[one] for one in tools.keys() - set(patterns.widest(tools))}
            lines += Tools(boxless).words(0, {}) if boxless else ()
        elif key not in _ELSEWHERE:
            lines += caveat.words(0, caveats)
    return lines


def _how_long(offer: Offer) -> str:
    grant = offer.grant
    if grant.counts:
        return f"For {span(grant.expires_in)}, once."
    if offer.goes_on is not None:
        return f"As before: until you end it, or until {_time(offer.goes_on.until)}."
    return f"Until you end it, for {span(grant.task_max)} at most."


def grants(
    look: Look,
    subject: str,
    running: Sequence[Running],
    log_out: str,
) -> Response:
    """What a person has allowed, with a button that ends each."""
    action = f"{look.base}/grants/end"
    rows = "".join(_row(one, action) for one in running)
    rows = rows or "<p>No application acts for you now.</p>"
    rest = (
        f"<p>You are logged in as {_shown(subject)}.</p>{rows}"
        f'<form method="post" action="{action}"><div class="buttons">'
        f'<input type="hidden" name="request" value="{log_out}">'
        "<button>Log out here</button></div></form>"
        '<p class="soft">Logging out here ends no application.</p>'
    )
    return page(look, 200, "What acts for you", rest)


def _row(one: Running, action: str) -> str:
    rights = "".join(f"<li>{_what(right)}</li>" for right in one.rights)
    return (
        f"<h2>{_shown(one.application)}</h2><table>"
        f'<tr><th scope="row">May do</th>'
        f"<td>{_shown(one.grant)} at {_shown(one.audience)}<ul>{rights}</ul></td></tr>"
        f'<tr><th scope="row">Since</th><td>{_time(one.begun)}</td></tr>'
        f'<tr><th scope="row">Until</th><td>{_time(one.until)}</td></tr></table>'
        f'<form method="post" action="{action}"><div class="buttons">'
        f'<input type="hidden" name="request" value="{one.sealed}">'
        f'<button class="small" aria-label="End it: {_escaped(one.application)}">End it</button>'
        "</div></form>"
    )


def message(
    look: Look,
    status: int,
    title: str,
    text: str = "",
    back: tuple[str, str] | None = None,
) -> Response:
    """A page that says one thing. `back`: a link, which is followed by nobody but the person."""
    rest = f"<p>{_shown(text)}</p>" if text else ""
    if back is not None:
        address, host = back
        rest += (
            f'<div class="buttons"><a class="button" rel="noreferrer" href="{escape(address)}">'
            f"Back to {_shown(host)}</a></div>"
        )
    return page(look, status, title, rest)


def page(
    look: Look,
    status: int,
    title: str,
    rest: str,
    heading: str = "",
    leads_to: str = "",
) -> Response:
    """A page. Nobody frames it, and its form leads here, and from here to `leads_to`."""
    trial = "This is a trial on this computer. Anybody here can log in as anybody."
    told = f'<p class="warn">{trial}</p>' if look.is_trial else ""
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escaped(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{told}{heading or f'<h1>{_shown(title)}</h1>'}{rest}</main></body></html>"
    )
    response = Response.of(status, b"text/html; charset=utf-8", body.encode())
    # Browsers hold a form to this also where it is redirected.
    targets = f"'self' {leads_to}".strip()
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {targets}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers.extend(
        (
            (b"content-security-policy", policy.encode()),
            (b"x-frame-options", b"DENY"),
            # Not `no-referrer`: a form would then come without its origin.
            (b"referrer-policy", b"same-origin"),
            (b"cross-origin-opener-policy", b"same-origin"),
        )
    )
    return response


def _time(seconds: int) -> str:
    return strftime("%Y-%m-%d %H:%M UTC", gmtime(seconds))


def _shown(text: str) -> str:
    return f"<bdi>{_escaped(text)}</bdi>"


def _escaped(text: str) -> str:
    """As HTML, with a number in place of what is invisible, or hides or reorders others."""
    seen = "".join(char if is_visible(char) else f"\\u{{{ord(char):x}}}" for char in text)
    return escape(seen)

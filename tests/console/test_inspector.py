"""The inspector in Chromium: what the library says of a token, the page says; and nothing leaves it.

`pytest -m browser tests/console` runs them. They need the package `chromium` of Debian, Playwright for Python, and
axe-core in `web/node_modules`.
"""

from __future__ import annotations

import json
import re
import socket
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from captoken import Issuer, Keyring, Token, Verifier
from captoken._format.errors import TokenFormatError
from captoken._language.caveats import V1
from captoken._verification.authenticated import AuthenticatedToken
from captoken._verification.memory import VerifierMemory
from captoken._verification.plan import authenticate
from captoken.cli.console import inspector
from captoken.cli.console.views import plain
from captoken.cli.view import View, read, view
from captoken.discharge import Allow, Discharger
from captoken.keys import DischargerKey, HolderKey, OperatorKey
from captoken.testing import FixedClock
from tests.console.test_browser import LOOKALIKE, MARKUP, SCRIPT, Page, script, violations
from tests.console.watched import watched

pytestmark = pytest.mark.browser

NOW = 1_764_061_200
VECTORS = Path(__file__).parents[2] / "spec/vectors"
FILE = Path(inspector.__file__).with_name("static") / inspector.NAME
Json = dict[str, Any]

HOLDER, NEXT = (HolderKey.from_bytes(bytes(range(first, first + 32))) for first in (1, 2))
THIRD = DischargerKey.from_bytes(bytes(range(3, 35)))
KEYRING = Keyring.from_keys({"k1": bytes(range(1, 33))}, "k1")
ISSUER = Issuer(KEYRING, clock=FixedClock(NOW))

# What stands on the page, as texts. The time is the vector's own.
SEEN = """(async (all) => {
    const found = [];
    for (const given of all) found.push(await see(given));
    return found;
    async function see(given) {
    Date.now = () => given.now * 1000;
    for (const name of ["token", "secret", "server", "open"]) {
        const field = document.getElementById(name);
        field.value = given[name] ?? "";
        field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    await new Promise((done) => setTimeout(done));
    const text = (one) => one?.textContent ?? null;
    const texts = (within, what) => [...(within?.querySelectorAll(what) ?? [])].map(text);
    const rows = (within) => Object.fromEntries(
        [...(within?.querySelectorAll(".rows > div") ?? [])].map((row) => [text(row.firstChild), texts(row, "dd")])
    );
    const problem = (one) => one && {
        code: text(one.querySelector("code")),
        text: text(one.querySelector("span")),
        place: text(one.querySelector(".place")),
    };
    const [says, may] = ["says", "may"].map((id) => document.getElementById(`${id}-title`)?.parentElement);
    return {
        banner: text(document.querySelector(".banner strong")),
        why: text(document.querySelector(".banner .why")),
        title: text(document.getElementById("says-title")),
        problem: problem(says?.querySelector(".problem") ?? null),
        facts: rows(says),
        lines: texts(says, ".lines li"),
        may: texts(may, ".may li"),
        summary: rows(may),
        chain: texts(may, ".chain .name").map((name, at) => [name, texts(may, ".chain .basis")[at]]),
        now: may ? [...may.querySelectorAll(".verified .problem")].map(problem) : [],
        links: [...document.querySelectorAll(".link")].map((link) => ({
            title: text(link.querySelector("h3")),
            says: texts(link, ".lines li"),
            problem: problem(link.querySelector(".problem")),
        })),
        bytes: [...document.querySelectorAll(".hex")].map((hex) => texts(hex, ".digits > span").join(" ")),
        about: text(document.getElementById("open-hint")),
    };
    }
})"""


@pytest.fixture
def page(chromium: Any) -> Iterator[Page]:
    """The file, opened as a file. At the end: it asked for nothing, kept nothing, and nothing went wrong in it."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    opened, wrong = watched(context)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    opened.goto(FILE.as_uri())
    opened.get_by_label("A token").wait_for()
    length = script(opened, "history.length")
    yield opened
    assert script(opened, "window.hit") is None
    assert opened.url == FILE.as_uri() and opened.title() == "captoken inspector"
    kept = script(opened, "[history.length, localStorage.length, sessionStorage.length, document.cookie]")
    assert kept == [length, 0, 0, ""]
    assert script(opened, "indexedDB.databases().then((all) => all.length)") == 0
    context.close()
    assert wrong == [] and set(asked) == {FILE.as_uri()}


def seen(page: Page, token: str, secret: str = "", now: int = NOW, **more: str) -> Json:
    """What the page shows of what is pasted."""
    (shown,) = all_seen(page, [{"token": token, "secret": secret, "now": now} | more])
    return shown


def all_seen(page: Page, given: list[Json]) -> list[Json]:
    """The same of several, one after the other."""
    shown: list[Json] = script(page, f"{SEEN}({json.dumps(given)})")
    return shown


def key_file(keyring: Keyring) -> str:
    keys = {key_id: urlsafe_b64encode(keyring.reveal(key_id)).decode().rstrip("=") for key_id in keyring.key_ids}
    said: Json = {"current": keyring.current, "keys": keys, "v": 1}
    if keyring.audience is not None:
        said["aud"] = keyring.audience
    return json.dumps(said, sort_keys=True, separators=(",", ":"))


# --- the same as the library ----------------------------------------------------------------------


def as_inspected(shown: View) -> Json:
    """What `captoken inspect` says, in the page's form: ASCII, and without the sentences of errors."""
    summary = {line[:10].strip(): plain(line[10:]) for line in shown.summary}
    summary.pop("note", None)  # of a guard, which the page knows nothing of
    return {
        "title": plain(shown.title),
        "facts": [plain(fact) for fact in shown.facts],
        "may": summary.pop("may"),
        "summary": summary,
        "links": [
            {
                "title": hop.title,
                "says": [_without_reason(plain(line)) for line in hop.says],
                "problem": plain(hop.problem).partition(":")[0],
            }
            for hop in shown.hops
        ],
    }


def as_shown(got: Json) -> Json:
    """The same of the page."""
    facts = [f"{label} {value}" for label, (value,) in got["facts"].items()]
    return {
        "title": got["title"],
        "facts": [_fact(fact) for fact in facts],
        "may": "; ".join(got["may"]).replace("then; ", "then "),
        "summary": {label: value for label, (value,) in got["summary"].items()},
        "links": [
            {
                "title": link["title"],
                "says": [_without_reason(line) for line in link["says"]],
                "problem": link["problem"]["text"].partition(":")[0] if link["problem"] else "",
            }
            for link in got["links"]
        ],
    }


def _fact(fact: str) -> str:
    """A fact of the issuer's own has a sign between its name and its value on the command line."""
    name, _, value = fact.partition(" ")
    return f"{name} = {value}" if ":" in name else fact


def _without_reason(line: str) -> str:
    """Each library has its own sentence for a ticket that cannot be read."""
    start = "asks a third party, which cannot be read"
    return start if line.startswith(start) else line


Place = tuple[str, str]


def verdict(token: str | Token, text: str, keyring: Keyring, names: list[str], now: int) -> tuple[str, list[Place]]:
    """By the library: is it genuine, and if so what a server says now; with the place of each refusal."""
    found = authenticate(text, keyring.derived, V1)
    if isinstance(found, AuthenticatedToken):
        custody = found.custody
        unsigned = None if custody is None else custody.first_unsigned(VerifierMemory(0).states)
        if custody is not None and unsigned is not None:
            at = custody.changes[unsigned].at
            return "bad", [("bad_proof", f"(link {at}, added by {found.added_by(at)})")]
    decision = Verifier(keyring, names or None, clock=FixedClock(now)).explain(token, None)
    refusals = [
        (one.code, "" if one.link is None else f"(link {one.link}, added by {one.added_by})") for one in decision.refusals
    ]
    if decision or decision.step == 11:  # a store that is not there: the page has none, and asks none
        return "good", []
    is_bad = decision.step <= 6 and decision.code != "delegate_only"
    return ("bad" if is_bad else "good"), refusals


def shown_verdict(got: Json) -> tuple[str, list[Place]]:
    if got["banner"] == "Verified":
        return "good", [(one["code"], (one["place"] or "").strip()) for one in got["now"]]
    assert got["banner"] == "Not verified" and got["chain"] == [] and got["now"] == []
    code, _, said = got["why"].removesuffix(" The chain of signatures holds.").partition(": ")
    place = said.removesuffix(".").rpartition(" (link ")
    return "bad", [(code, f"(link {place[2]}" if place[1] else "")]


# What is no token for the library, and that the page takes apart all the same; and a list with a name twice, which the port
# reads as a set.
OTHERWISE = {
    "encoding_prefix_of_discharge",
    "encoding_empty_text",
    "proof_of_possession_text_alone",
    "tables_unsorted_and_repeated",
}


def vectors() -> Iterator[tuple[str, str, Keyring, list[str], int]]:
    """Texts of the specification's vectors, each once, with a keyring, the server's names, and the time."""
    known: set[str] = set()
    for path in sorted(VECTORS.glob("*.json")):
        for vector in json.loads(path.read_text(encoding="ascii"))["vectors"]:
            text, facts = vector.get("token"), vector.get("facts")
            if vector["kind"] != "decision" or text is None or text in known or vector["name"] in OTHERWISE:
                continue
            if text.startswith("caps1_"):  # no server takes it, and the page shows it: a test of its own
                continue
            keys = {key_id: bytes.fromhex(key) for key_id, key in vector["keyring"]["keys"].items()}
            audience = vector["keyring"]["audience"]
            try:
                keyring = Keyring(keys, next(iter(keys)), audience)
            except (StopIteration, TypeError, ValueError):
                continue
            known.add(text)
            yield vector["name"], text.strip(), keyring, facts["audiences"], facts["now"]


def test_it_says_what_the_library_says_of_each_vector(page: Page) -> None:
    """Each text of the specification: the root record, each link in words, what is wrong with it, and the verdict."""
    wrong: list[str] = []
    told: dict[str, int] = {}
    every = list(vectors())
    pasted = [
        {"token": text, "secret": key_file(keyring), "now": now, "server": ",".join(names)}
        for _, text, keyring, names, now in every
    ]
    for (name, text, keyring, names, now), got in zip(every, all_seen(page, pasted), strict=True):
        expected, found = compared(text, keyring, names, now, got)
        told[got["banner"]] = told.get(got["banner"], 0) + 1
        if expected != found:
            wrong.append(f"{name}:\n  {expected}\n  {found}")
    assert wrong == [], f"{len(wrong)} differ\n" + "\n".join(wrong[:5])
    assert told["Verified"] > 500 and told["Not verified"] > 500


def compared(text: str, keyring: Keyring, names: list[str], now: int, got: Json) -> tuple[Any, Any]:
    """What the library says of a text, and what the page does, in one form.

    The page joins the lines of a token that a mail has wrapped, and says so.
    """
    if text.startswith("cap1_"):
        text = re.sub(r"=?\r?\n[> \t]*", "", text)
    try:
        shown = read(text)
    except TokenFormatError as error:
        return ("Not verified", error.code), (got["banner"], got["problem"] and got["problem"]["code"])
    # Without a name the page asks as the servers to which the token is addressed.
    names = names or shown.token.unverified.capability.json().get("aud", [])
    is_sent = ".cap1d_" in text or ".cap1p_" in text
    token = text if is_sent else shown.token
    expected = as_inspected(view(shown, now)), verdict(token, text, keyring, names, now), in_hex(text)
    return expected, (as_shown(got), shown_verdict(got), got["bytes"])


def in_hex(text: str) -> list[str]:
    """The bytes of a token and of what travels with it."""
    spelled = [part.partition("_")[2] for part in text.split(".")]
    return [urlsafe_b64decode(part + "=" * (-len(part) % 4)).hex(" ") for part in spelled]


# --- tokens of all kinds --------------------------------------------------------------------------


def minted(**more: Any) -> Token:
    given: Json = {"tables": ["sales", "market.*"], "operations": ["select"], "expires_in": 600} | more
    return ISSUER.mint(subject="user:jane", agent="orchestrator", task="q3", **given)


def asking() -> Token:
    return minted().require(THIRD.public, need={"approve": "all"}, location="https://approve.example")


def answered() -> Token:
    token = asking()
    (ticket,) = token.needs
    party = Discharger(THIRD, lambda need: Allow(expires_in=60), clock=FixedClock(NOW))
    return token.with_discharge(party.discharge(ticket))


def test_it_is_not_verified_before_a_key_says_so(page: Page) -> None:
    """Loud, in all that is no verdict; and the root record is then nobody's word."""
    token = minted().serialize()
    for given in (token, "nonsense", token[:40], '{"exp":1}'):
        assert seen(page, given)["banner"] == "Not verified"
    assert seen(page, "")["banner"] == "Paste a token to begin"
    for key in ("", "nonsense", "a" * 43, key_file(Keyring.generate()), "{}"):
        assert seen(page, token, key)["banner"] == "Not verified"
    assert page.get_by_text("which anybody can have written").is_visible()
    assert page.get_by_role("heading", name="What it says that it permits").is_visible()

    assert seen(page, token, key_file(KEYRING))["banner"] == "Verified"
    assert page.get_by_text("written by the issuer").is_visible()
    assert page.get_by_role("heading", name="What it permits").is_visible()


def test_an_access_is_tried_once_a_key_has_verified_it(page: Page) -> None:
    """It says which link denies it, and who added that."""
    token = minted().delegate(to="clerk", tables=["sales"], operations=["select"], clock=FixedClock(NOW))
    seen(page, token.serialize())
    assert page.locator("#access").count() == 0
    seen(page, token.serialize(), key_file(KEYRING))
    for typed, said in {
        '{"table": "sales", "operation": "select"}': "Allowed: every link permits it.",
        '{"table": "hr", "operation": "select"}': "link 1, added by orchestrator",
        '{"table": 1}': "table",
        "{": "JSON",
    }.items():
        page.fill("#access", typed)
        assert said in page.inner_text(".trying [role=status]"), typed


@pytest.mark.parametrize("spelled", [bytes(range(1, 33)).hex(), urlsafe_b64encode(bytes(range(1, 33))).decode().rstrip("=")])
def test_a_root_key_without_its_file(page: Page, spelled: str) -> None:
    got = seen(page, minted().serialize(), spelled)
    assert got["banner"] == "Verified" and got["why"] == "Every signature holds, under key k1."


def test_a_key_of_one_server_verifies_what_is_for_it(page: Page) -> None:
    """As the file that was derived, as the key in it alone, and as the issuer's own."""
    own = KEYRING.for_audience("sales-db")
    token = Issuer(own, clock=FixedClock(NOW)).mint(
        subject="user:jane", agent="orchestrator", task="q3", tools={"search": {}}, expires_in=600
    )
    for secret in (key_file(own), own.reveal("k1").hex(), bytes(range(1, 33)).hex()):
        got = seen(page, token.serialize(), secret)
        assert (got["banner"], got["facts"]["for"]) == ("Verified", ["sales-db alone"])
    assert seen(page, minted().serialize(), key_file(own))["banner"] == "Not verified"


def test_a_key_for_another_purpose(page: Page, tmp_path: Path) -> None:
    OperatorKey.generate().save(tmp_path / "operator.json")
    got = seen(page, minted().serialize(), (tmp_path / "operator.json").read_text())
    assert got["banner"] == "Not verified" and "another purpose, operator" in got["why"]


def test_one_character_is_changed(page: Page) -> None:
    """Wherever it is: never verified, and all of it is taken apart as far as it can be read."""
    text = minted().delegate(to="sales-agent", tables=["sales"]).serialize()
    pasted = [
        {"token": text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :], "secret": key_file(KEYRING), "now": NOW}
        for at in range(0, len(text), 7)
    ]
    for got in all_seen(page, pasted):
        assert got["banner"] == "Not verified"


def test_a_third_party(page: Page) -> None:
    """Who is asked, at which link, and what came of it."""
    got = seen(page, asking().serialize(), key_file(KEYRING), open=THIRD.public)
    assert got["why"].startswith("missing_discharge: ") and got["why"].endswith(
        " (link 1, added by orchestrator). The chain of signatures holds."
    )
    assert got["links"][1]["says"] == [f"asks {THIRD.public} at https://approve.example", "no answer is here"]
    assert got["about"] == "This is the third party that link 1 asks."

    for text in (answered().serialize(), answered().present(audience="sales-db")):
        got = seen(page, text, key_file(KEYRING))
        assert got["banner"] == "Verified" and got["summary"]["asks"] == ["1 third party, 1 answered"]
        assert got["links"][1]["says"][1:] == ["answered, until 2025-11-25 09:01:00Z, 1m left"] and len(got["bytes"]) == 2
    assert seen(page, answered().serialize(), key_file(KEYRING), NOW + 61)["now"][0]["code"] == "expired"


def test_a_token_that_is_bound_to_a_key(page: Page) -> None:
    """Who signed the hand-over is known by a proof; a text that is sent has one for one request, which is not here."""
    bound = minted(key=HOLDER.public)
    child = bound.delegate(to="sales-agent", key=NEXT.public, signer=HOLDER)
    got = seen(page, child.serialize(), key_file(KEYRING), open=NEXT.public)
    assert got["chain"] == [["orchestrator", "issued"], ["sales-agent", "proven"]]
    assert got["summary"]["bound to"] == [f"{NEXT.public}, by link 1"]
    assert got["about"] == "The token is bound to this key, by link 1."
    assert seen(page, child.serialize(), open=HOLDER.public)["about"].startswith("The token names no such key.")

    # It is narrowed without the key, and not handed on.
    assert NEXT.public in page.locator(".narrow .bound").inner_text() and page.get_by_label("Handed to").count() == 0
    page.get_by_label("What operations is narrowed to").or_(page.get_by_label("What tables is narrowed to")).fill("sales")
    made = Token.parse(page.get_by_label("The narrower token").input_value())
    assert made.unverified.holder == "sales-agent"
    assert seen(page, made.serialize(), key_file(KEYRING))["summary"]["bound to"] == [f"{NEXT.public}, by link 1"]

    sent = child.present(audience="sales-db", signer=NEXT, request=bytes(32))
    got = seen(page, sent, key_file(KEYRING))
    assert got["summary"]["proof"] == ["for one sending, and not looked at here"] and len(got["bytes"]) == 2


@pytest.mark.parametrize(
    ("given", "title", "line"),
    [
        (asking().needs[0].text, "A ticket for a third party", f"asks {THIRD.public} at https://approve.example"),
        (answered().unverified.discharges[0].serialize(), "A discharge: the answer of a third party", f"answers for {THIRD.public}"),
        ('{"tables":["sales"]}', "A link, without the token that it was added to", "only on sales"),
        (f'{{"key":"{HOLDER.public}"}}.{"A" * 86}', "A signed link, without", f"bound to {HOLDER.public}, signed by"),
        ("cap1p_" + "A" * 118, "A proof", "for one sending"),
    ],
)
def test_what_travels_beside_tokens(page: Page, given: str, title: str, line: str) -> None:
    got = seen(page, given, key_file(KEYRING))
    assert got["title"].startswith(title) and got["lines"][0].startswith(line) and got["banner"] == "Not verified"


# --- what strangers wrote -------------------------------------------------------------------------


def test_a_set_says_what_is_common_once_and_what_each_server_is_shown(page: Page) -> None:
    """As far as it is a set: one of two people's tokens, or in another order, is none."""
    made = ISSUER.mint_set(
        subject="user:jane", agent="orchestrator", task="q3", expires_in=300,
        servers={"mail": {"tools": {"send": {}}}, "sales-db": {"tables": ["sales"], "operations": ["select"]}},
    )  # fmt: skip
    whole = made.delegate(to="clerk", expires_in=60).serialize()
    said = seen(page, whole)
    until = "until 2025-11-25 09:01:00Z, 1m left"
    assert (said["title"], said["problem"]) == ("A set of 2 tokens: user:jane started task q3", None)
    assert said["lines"] == [
        "held by orchestrator > clerk", f"mail: tool send, with any arguments; {until}", f"sales-db: select on sales; {until}",
    ]  # fmt: skip
    assert (said["banner"], said["why"]) == ("Not verified", "A server is sent its own token, and never the set.")
    assert said["bytes"] == []

    first, second = whole.removeprefix("caps1_").split("~")
    other = ISSUER.mint(subject="user:joe", agent="orchestrator", task="q3", tools={"send": {}}).serialize().removeprefix("cap1_")
    for wrong in (f"caps1_{second}~{first}", f"caps1_{first}~{first}", f"caps1_{first}~{other}"):
        assert seen(page, wrong)["problem"]["code"] == "malformed", wrong
    assert seen(page, f"caps1_{first}~")["title"] == "No token"


def test_what_strangers_wrote_is_text(page: Page) -> None:
    """In every place that is free. No element is made of it, and no letter looks like another or hides."""
    hostile = [MARKUP, SCRIPT, LOOKALIKE, "a\u200bb", "a\u202eb", "a\u2800b"]
    token = minted(
        tables=[name.replace(".", "") for name in hostile[:3]],
        where={name: {"in": [name]} for name in hostile[:3]},
        tools={"send": {name: {"any": True} for name in hostile[:3]}},
        ext={"acme:note": hostile[0] + "".join(hostile[2:])},
    )
    token = token.require(THIRD.public, need={}, location=MARKUP + LOOKALIKE)
    links = [json.dumps({name: 1}).encode() for name in hostile]
    links += [json.dumps({name: 1}, ensure_ascii=False).encode() for name in hostile]
    links += [b"\xff\x00\x1b[31m<b>" + "\u202e".encode()]
    for link in links:
        token = token.with_raw_link(link)

    for text in (token.serialize(), MARKUP, SCRIPT, f"cap1_{MARKUP}", json.dumps({MARKUP: LOOKALIKE}, ensure_ascii=False)):
        for where in ("token", "secret", "open", "server"):
            all_seen(page, [{"token": token.serialize(), "now": NOW, where: text}])
            said = page.locator("main").inner_text() + page.locator(".banner").inner_text()
            assert page.locator("main img, main script, main b, main [style], main [onerror]").count() == 0
            # These signs are the page's own.
            assert {char for char in said if ord(char) > 0x7E} <= set("\u2019\u2026\u00b7\u2713\u2715")
    said = str(seen(page, token.serialize()))
    assert "s\\\\u0430les" in said and "\\\\u202e" in said and "<img src=x" in said


@pytest.mark.parametrize("broken", ["Intl.NumberFormat", "Date.prototype.toISOString", "TextDecoder.prototype.decode"])
def test_what_goes_wrong_in_it_leaves_no_verdict_of_another_text(page: Page, broken: str) -> None:
    """A text at which the page itself fails would stand beside the verdict on the one before."""
    assert seen(page, minted().serialize(), key_file(KEYRING))["banner"] == "Verified"
    other = minted(tables=["other"]).serialize()
    script(page, f"window.kept = {broken}; {broken} = function () {{ throw new TypeError('broken') }}; undefined")
    page.get_by_label("A token").fill(other)
    banner = page.locator(".banner").inner_text()
    script(page, f"{broken} = window.kept; undefined")
    assert "not verified" in banner.lower() and "Every signature" not in banner


# --- the page -------------------------------------------------------------------------------------


def test_it_keeps_nothing_when_it_is_left(page: Page) -> None:
    """Also not for who comes back: by the browser's own memory of pages, or by loading it anew."""
    token = minted().serialize()
    seen(page, token, key_file(KEYRING))
    script(page, "dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    assert page.locator("#app *").count() == 0
    script(page, "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    assert [page.locator(f"#{name}").input_value() for name in ("token", "secret", "server", "open")] == [""] * 4
    assert page.locator(".banner").inner_text().startswith("Paste a token to begin")

    seen(page, token, key_file(KEYRING))
    page.reload()
    assert page.get_by_label("A token").input_value() == "" and token[10:30] not in page.content()


def test_all_is_cleared_by_hand(page: Page) -> None:
    """And it cannot be undone."""
    page.get_by_label("A token").fill(minted().serialize())
    page.get_by_label("The root key").fill(key_file(KEYRING))
    page.get_by_text("Every signature holds").wait_for()
    page.get_by_role("button", name="Clear all").click()
    page.get_by_text("Nothing is pasted yet.").wait_for()
    page.get_by_label("A token").focus()
    page.keyboard.press("Control+z")
    assert page.get_by_label("A token").input_value() == page.get_by_label("The root key").input_value() == ""


def test_no_browser_keeps_what_is_typed(page: Page) -> None:
    fields = page.locator("textarea, input")
    assert fields.count() == 4 and page.locator("form, a, iframe, link").count() == 0
    for at in range(4):
        assert fields.nth(at).get_attribute("autocomplete") == "off"
        assert fields.nth(at).get_attribute("spellcheck") == "false"
        assert fields.nth(at).get_attribute("name") is None


def test_its_policy_lets_nothing_out(chromium: Any) -> None:
    """What a script in the page would try, the browser refuses: a server that listens hears no byte.

    Where a frame or a form would have gone, Chromium connects beforehand, and then says nothing.
    """
    context = chromium.new_context()
    page = context.new_page()
    page.goto(FILE.as_uri())
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        refused = script(page, TRY_ALL % f"http://127.0.0.1:{server.getsockname()[1]}/")
        assert heard(server) == b""
    assert script(page, "window.hit") is None
    assert {"connect-src", "img-src", "script-src-elem", "style-src-elem", "style-src-attr", "script-src-attr"} <= set(refused)
    context.close()


def heard(server: socket.socket) -> bytes:
    """All that was sent to it so far."""
    said = b""
    with suppress(BlockingIOError):
        while True:
            with server.accept()[0] as connection, suppress(BlockingIOError):
                connection.setblocking(False)
                said += connection.recv(1000)
    return said


TRY_ALL = """(async (there) => {
    const seen = [];
    addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
    await fetch(`${there}?cap1_`, { mode: "no-cors" }).catch(() => null);
    navigator.sendBeacon(there, "cap1_");
    new WebSocket(there.replace("http", "ws"));
    new EventSource(there);
    new Image().src = `${there}cap1_`;
    for (const [tag, name] of [["script", "src"], ["iframe", "src"], ["object", "data"], ["video", "src"]]) {
        const made = document.createElement(tag);
        made[name] = there;
        document.body.append(made);
    }
    const style = document.createElement("style");
    style.textContent = `body { background: url(${there}) }`;
    document.body.append(style);
    document.body.setAttribute("style", "color: red");
    document.body.setAttribute("onclick", "window.hit = 1");
    document.body.click();
    const form = document.createElement("form");
    form.action = there;
    document.body.append(form);
    form.submit();
    await new Promise((done) => setTimeout(done, 500));
    return [...new Set(seen)].sort();
})("%s")"""


def test_by_keyboard_alone(page: Page) -> None:
    """A part is chosen, and its bytes are marked; once more, and they are not."""
    page.get_by_label("A token").focus()
    page.keyboard.insert_text(minted().serialize())
    for _ in range(20):
        page.keyboard.press("Tab")
        if script(page, "document.activeElement.innerText").startswith("root record"):
            break
    assert "root record" in page.locator(".caption").inner_text()
    page.keyboard.press("Enter")
    page.get_by_role("table", name="root record").get_by_text("its length").wait_for()
    marked = page.locator(".digits .is-marked").all_inner_texts()
    assert bytes.fromhex("".join(marked).replace(" ", "")).find(b'"sub":"user:jane"') > 0
    page.keyboard.press("Enter")
    page.get_by_role("table", name="root record").wait_for(state="detached")


def test_bytes_and_links_point_at_each_other(page: Page) -> None:
    seen(page, minted().delegate(to="sales-agent", tables=["sales"]).serialize())
    page.locator(".link").nth(1).hover()
    text = "".join(page.locator(".chars .is-marked").all_text_contents())
    assert '"to":"sales-agent"' in text and '"sub"' not in text
    page.locator(".digits [data-part]").nth(2).hover()
    assert page.locator(".caption").inner_text().startswith("root record: ")
    page.get_by_role("button", name="Bytes of link 0").click()
    page.get_by_role("table", name="link 0").wait_for()
    assert page.locator(".link.is-marked").count() == 1


WIDTHS = [360, 1280, 2560]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_stands_beside_the_page(page: Page, width: int) -> None:
    """It does not scroll sideways, with names as long as they may be."""
    page.set_viewport_size({"width": width, "height": 900})
    token = minted(tables=["t" * 250]).delegate(to="x" * 128, tables=["t" * 250])
    for text in ("", token.serialize(), "cap1_" + "!" * 3000, json.dumps({"y" * 900: 1})):
        seen(page, text, key_file(KEYRING))
        page.get_by_text("How to check").click()
        assert script(page, "document.documentElement.scrollWidth > innerWidth") is False


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_who_cannot_see_it_can_use_it(page: Page, scheme: str, width: int) -> None:
    """axe-core finds nothing: empty, not verified, verified, refused, with a part that is chosen, of all kinds."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    found = violations(page)
    page.get_by_text("How to check").click()
    good = answered().serialize()
    for token, secret, at in (
        (good, "", NOW),
        (good, key_file(KEYRING), NOW),
        (good, key_file(KEYRING), NOW + 9999),
        (asking().with_raw_link(b'{"unknown":1}').serialize(), key_file(KEYRING), NOW),
        (good[:90], "", NOW),
        ('{"tables":["sales"]}', "", NOW),
        (jwt({"iss": MARKUP}), "", NOW),
    ):
        seen(page, token, secret, at, open=THIRD.public)
        narrow = page.get_by_label("What tables is narrowed to")
        if narrow.count():
            narrow.fill("sales, payroll" if secret else "sales")
        parts = page.get_by_role("button", name="link 1", exact=False)
        if parts.count():
            parts.first.click()
        found += violations(page)
    assert found == [], "\n".join(found)


# --- what else is pasted, and what is made of it ---------------------------------------------------


def jwt(claims: Json) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    return ".".join([*(urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2ln"])


@pytest.mark.parametrize("dress", ["Bearer {}", "Authorization: Bearer {}", "authorization:\n bearer {}\n", "> {}", "{}"])
def test_a_token_is_taken_as_it_was_found(page: Page, dress: str) -> None:
    """With a header, and wrapped by a mail that was answered. The page says that it reads it so."""
    text = ISSUER.mint(subject="user:jane", agent="orchestrator", task="q3", tables=["sales"], operations=["select"]).serialize()
    wrapped = "\r\n> ".join(text[at : at + 72] for at in range(0, len(text), 72))
    got = seen(page, dress.format(wrapped), key_file(KEYRING), NOW)
    assert got["banner"] == "Verified"
    page.get_by_text("without the header, the text and the line ends").wait_for()
    assert seen(page, text, "", NOW)["banner"] == "Not verified"
    assert page.get_by_text("without the header, the text and the line ends").count() == 0


@pytest.mark.parametrize(
    "dress", ["INFO header authorization: Bearer {} status=403", '{{"token": "{}", "table": "sales"}}', "token={}, refused.", "see {}\nbelow"]
)
@pytest.mark.parametrize("fold", ["", "=\n"])
def test_a_token_is_found_in_a_log_or_in_json(page: Page, dress: str, fold: str) -> None:
    """Also as a mail spells it, in quoted-printable."""
    if fold and "below" in dress:
        pytest.skip("what follows a folded token cannot be told from it")
    text = ISSUER.mint(subject="user:jane", agent="orchestrator", task="q3", tables=["sales"], operations=["select"]).serialize()
    folded = fold.join(text[at : at + 70] for at in range(0, len(text), 70))
    assert seen(page, dress.format(folded), key_file(KEYRING), NOW)["banner"] == "Verified"


def test_a_token_that_was_cut_is_told_from_no_token(page: Page) -> None:
    text = minted().serialize()
    seen(page, text[:-10], "", NOW)
    page.get_by_text("this token is not whole: its end is missing").wait_for()
    seen(page, "hello", "", NOW)
    page.get_by_text("this is no token.").first.wait_for()


def test_a_json_web_token_is_told_from_ours(page: Page) -> None:
    """What it says is text: all of it, and whether it has expired."""
    seen(page, jwt({"iss": MARKUP, "aud": ["warehouse"], "exp": NOW - 3600, "name": "Jane"}), "", NOW)
    page.get_by_role("heading", name="A JSON Web Token, not a captoken").wait_for()
    said = page.locator(".said").inner_text()
    assert json.dumps(MARKUP) in said and '["warehouse"]' in said and "2025-11-25 08:00:00Z" in said and 'name "Jane"' in said
    assert "expired 1h ago, by what it says" in said
    for text in ("eyJ.eyJ.x", "eyJ!.eyJhIjoxfQ.x"):
        seen(page, text, "", NOW)
    assert page.locator("#app img").count() == 0


def test_a_sample_is_narrowed_and_tried(page: Page) -> None:
    """From the empty page, by clicks: what is more than it has is said, what is less is written, and looked at."""
    page.evaluate(f"Date.now = () => {NOW}000")
    page.get_by_role("button", name="Show me a sample").click()
    page.get_by_text("Every signature holds").wait_for()
    page.get_by_text("Denied").wait_for()
    value = page.get_by_label("What tables is narrowed to")
    value.fill("sales, payroll")
    page.locator(".narrow .problem", has_text="payroll").wait_for()
    assert page.get_by_label("The narrower token").count() == 0
    value.fill("sales")
    page.get_by_role("button", name="One more keyword").click()
    page.get_by_label("What expires_in is narrowed to").fill("1m")
    page.get_by_label("Handed to").fill("chart-agent")
    made = page.get_by_label("The narrower token").input_value()
    assert Token.parse(made).unverified.holder == "chart-agent"
    page.get_by_role("button", name="Look at this one").click()
    page.get_by_text("Every signature holds").wait_for()
    page.get_by_text("This is the narrower token.").wait_for()
    assert page.get_by_label("What tables is narrowed to").input_value() == ""
    page.get_by_role("button", name="Back to the pasted one").click()
    page.get_by_text("held by").first.wait_for()
    assert page.get_by_label("A token").input_value() != made and "A sample, with a key" in page.locator(".banner").inner_text()
    page.get_by_label("A token").fill(made)
    page.get_by_label("What the server states").fill('{"table": "sales", "operation": "select"}')
    page.get_by_text("Allowed: every link permits it.").wait_for()
    # The key of the sample opens nothing else, and says nothing of another token.
    page.get_by_label("A token").fill(minted().serialize())
    page.get_by_text("Anybody can write this.").wait_for()
    assert page.get_by_label("The root key").input_value() == ""


@pytest.mark.parametrize(
    ("keyword", "value", "text"),
    [
        ("operations", "select", "operations"),
        ("allow", '{"sales": ["select"]}', "allow"),
        ("columns", '{"sales": ["id"]}', "columns"),
        ("rows", '{"sales": {"region": {"in": ["eu"]}}}', "rows"),
        ("where", '{"region": {"in": ["eu"]}}', "where"),
        ("uses", "10", "uses"),
        ("budget", '{"cents": 500}', "budget"),
        ("marks", '{"private": {"tables": ["crm"]}}', "marks"),
        ("fresh", "60", "fresh"),
        ("expires_in", "10m", "exp"),
        ("expires_at", str(NOW + 60), "exp"),
        ("not_before", str(NOW), "nbf"),
        ("not_before", "2025-11-25 09:30", "nbf"),
        ("expires_at", "2025-11-25T09:30:00Z", "exp"),
        ("audience", "warehouse", "aud"),
        ("task", "q3/eu", "task"),
        ("depth", "1", "depth"),
        ("delegate_only", "true", "delegate_only"),
    ],
)
def test_each_keyword_has_a_line(page: Page, keyword: str, value: str, text: str) -> None:
    token = ISSUER.mint(subject="user:jane", agent="orchestrator", task="q3", tables=["sales"], operations=["select", "insert"], expires_in=3600)
    seen(page, token.serialize(), "", NOW)
    page.get_by_label("Keyword 1").select_option(keyword)
    page.get_by_label(f"What {keyword} is narrowed to").fill(value)
    made = Token.parse(page.get_by_label("The narrower token").input_value())
    assert f'"{text}"'.encode() in made.unverified.bodies[-1]
    page.get_by_label(f"What {keyword} is narrowed to").fill("{")
    page.locator(".narrow .problem").wait_for()


@pytest.mark.parametrize(
    ("keyword", "value", "trouble"),
    [
        ("expires_in", "3h", "expires_in: that is more than it has: 1h are left."),
        ("expires_at", "2029-01-01", ""),  # the library refuses that by itself
        ("expires_in", "10 minutes", "expires_in"),
        ("not_before", "2026", "not_before: write a time in UTC, as 2026-12-01 09:30."),
        ("uses", "abc", "uses: write a whole number, as 10."),
        ("fresh", "1h", "fresh: write a whole number, as 60."),
        ("allow", "sales", 'allow: write it as {"sales": ["select"]}.'),
    ],
)
def test_what_is_written_otherwise_is_told_in_the_forms_own_words(page: Page, keyword: str, value: str, trouble: str) -> None:
    token = ISSUER.mint(subject="user:jane", agent="orchestrator", task="q3", tables=["sales"], operations=["select"], expires_in=3600)
    seen(page, token.serialize(), "", NOW)
    page.get_by_label("Keyword 1").select_option(keyword)
    page.get_by_label(f"What {keyword} is narrowed to").fill(value)
    page.locator(".narrow .problem", has_text=trouble).wait_for()
    assert page.get_by_label("The narrower token").count() == 0

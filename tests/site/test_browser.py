"""The built site in Chromium: at three widths, in light and dark, and its search.

`python site/build.py`, then `pytest -m browser tests/site`. They need what tests/console needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from captoken.testing import error_catalogue
from tests.console import picture
from tests.console.test_browser import AXE

pytestmark = pytest.mark.browser

# One of each template.
PAGES = {
    "home": "index.html",
    "page": "docs/first-steps.html",
    "group": "made/how-to-guard-a-database.html",
    "entries": "made/api/captoken.html",
    "stores": "made/api/captoken.stores.sqlite.html",
    "list": "made/api/index.html",
    "commands": "made/commands.html",
    "errors": "docs/errors.html",
    "spec": "spec/captoken-v1.html",
    "vectors": "made/vectors.html",
    "program": "examples/start_here.py.html",
    "search": "search.html?q=table",
}
WIDTHS = (360, 1280, 2560)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with picture.chromium() as browser:
        yield browser


@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_its_window_and_asks_nobody_else(page: str, chromium: Any, address: str) -> None:
    """Nothing is wider than the window, at each width; nothing is missing or from elsewhere."""
    for width in WIDTHS:
        tab = chromium.new_page(viewport={"width": width, "height": 900})
        asked: list[str] = []
        wrong: list[str] = []
        tab.on("request", lambda request, asked=asked: asked.append(request.url))
        tab.on("console", lambda said, wrong=wrong: wrong.append(said.text))
        tab.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
        tab.goto(address + PAGES[page])
        over = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{over} pixels too wide at {width}"
        assert wrong == [] and all(url.startswith((address, "data:")) for url in asked) and len(asked) > 3
        tab.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1280), ("light", 1280)])
def test_axe_finds_nothing(scheme: str, width: int, chromium: Any, address: str) -> None:
    """In any template, at the width of a telephone and of a screen."""
    found = []
    tab = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    for page in ("home", "page", "group", "errors", "vectors", "program", "search", "stores"):
        tab.goto(address + PAGES[page])
        tab.add_script_tag(path=str(AXE))
        ran = tab.evaluate("axe.run(document, {resultTypes: ['violations']}).then((run) => run.violations)")
        found += [f"{page}: {one['id']}: {node['html'][:90]}" for one in ran for node in one["nodes"][:3]]
    tab.close()
    assert found == []


# As people type them, slips among them, with the pages that answer. 45 of 50 stand first.
QUERIES: dict[str, tuple[str, ...]] = {
    "revoke a token": ("docs/live-control.html", "docs/recipes.html#stop"),
    "install": ("README.html", "docs/tutorial.html", "index.html"),
    "prompt injection": ("docs/recipes.html",),
    "read only": ("docs/recipes.html",),
    "tenant": ("docs/recipes.html",),
    "nginx": ("docs/recipes.html",),
    "django": ("docs/recipes.html",),
    "stripe key": ("docs/recipes.html",),
    "rotate keys": ("docs/rotation.html", "docs/recipes.html"),
    "key rotation": ("docs/rotation.html",),
    "ledger down": ("docs/recipes.html",),
    "stop everything": ("docs/recipes.html",),
    "kill switch": ("docs/recipes.html", "docs/live-control.html"),
    "limit an agent to its own rows": ("docs/recipes.html",),
    "row level security": ("docs/postgres.html", "docs/recipes.html"),
    "fastapi": ("docs/http.html",),
    "langchain": ("docs/agents-langchain.html",),
    "openai agents sdk": ("docs/agents-openai.html",),
    "pydantic ai": ("docs/agents-pydantic-ai.html",),
    "crewai": ("docs/agents.html",),
    "claude": ("docs/agents-claude.html",),
    "mcp server": ("docs/mcp.html",),
    "postgres": ("docs/postgres.html",),
    "sqlite": ("docs/sqlite.html",),
    "sqlalchemy": ("docs/sqlalchemy.html",),
    "redis": ("docs/stores.html",),
    "kubernetes": ("docs/issuance-kubernetes.html",),
    "github actions": ("docs/issuance-github.html",),
    "oauth scopes": ("docs/from-oauth-scopes.html",),
    "jwt": ("docs/comparison.html",),
    "api keys": ("docs/from-api-keys.html",),
    "rate limit": ("docs/budgets.html",),
    "quota": ("docs/budgets.html",),
    "audit log": ("docs/audit.html",),
    "typescript": ("docs/typescript.html", "ports/typescript/README.html"),
    "javascript": ("ports/typescript/README.html",),
    "async": ("docs/async.html",),
    "grpc": ("docs/rpc.html",),
    "stolen token": ("docs/bearer.html",),
    "token theft": ("docs/bearer.html",),
    "expired": ("docs/errors.html",),
    "wrong_audience": ("docs/errors.html",),
    "testing": ("docs/testing.html",),
    "pytest": ("docs/testing.html",),
    "opentelemetry": ("docs/opentelemetry.html",),
    "delegate to sub-agent": ("docs/first-steps.html", "docs/current.html", "docs/tutorial.html"),
    "glossery": ("docs/glossary.html",),
    "revokation": ("docs/live-control.html",),
    "benchmark": ("docs/benchmarks.html",),
    "performance": ("docs/benchmarks.html", "docs/costs.html"),
}


class Search:
    """The page of the search, and what it shows for a query: the pages, the best one first."""

    def __init__(self, tab: Any, address: str) -> None:
        self.tab, self.address = tab, address
        tab.goto(f"{address}search.html")

    def links(self, query: str) -> list[list[str]]:
        self.tab.fill(".search-box", query)
        shown = "[...document.querySelectorAll('#search-results > li')].slice(0, 3)"
        links = "[...one.querySelectorAll('a')].map((link) => link.getAttribute('href'))"
        found: list[list[str]] = self.tab.evaluate(f"{shown}.map((one) => {links})")
        return found


@pytest.fixture(scope="module")
def search(chromium: Any, address: str) -> Iterator[Search]:
    tab = chromium.new_page()
    yield Search(tab, address)
    tab.close()


def page_and_rank(found: list[list[str]], page: str) -> int:
    """The place of that page among the first three; 0 if it has none."""
    return next((place for place, links in enumerate(found, 1) if links and links[0].startswith(f"{page}#")), 0)


def test_a_code_or_its_message_finds_the_page_of_errors(search: Search) -> None:
    """Among the first three pages, for each entry; by the code, and by the message as it came."""
    missed = []
    for entry in error_catalogue():
        for query in (entry.code, f"{entry.error.__name__}: {entry.code}", entry.example):
            if not page_and_rank(search.links(query), "docs/errors.html"):
                missed.append(f"{entry.code}: {query}")
    assert missed == []


def test_a_message_leads_to_the_entry_of_its_code(search: Search) -> None:
    """Of a denial, with names in it that stand nowhere in the site."""
    for query, anchor in (
        ('table ledger_2031 is not among ["zzinvoices"]', "denied-table"),
        ("argument pay.zzcents: is more than 731", "denied-argument"),
        ("denied expired: expired at 2031-05-06T07:08:09+00:00", "denied-expired"),
        ("revoked by zz at 2031-05-06T07:08:09+00:00: gone", "denied-revoked"),
    ):
        pages = search.links(query)
        rank = page_and_rank(pages, "docs/errors.html")
        assert rank and f"docs/errors.html#{anchor}" in pages[rank - 1], (query, pages)


def test_a_name_finds_its_entry(search: Search) -> None:
    """Of the API, of a command's option, of a page."""
    for query, page in (
        ("Issuer.mint", "made/api/captoken.html"),
        ("guarded_tool", "made/api/captoken.tools.html"),
        ("captoken keygen holder", "made/commands.html"),
        ("row budgets", "docs/row-budgets.html"),
        ("own caveat", "docs/caveats.html"),
        ("test a guard", "docs/testing.html"),
    ):
        assert page_and_rank(search.links(query), page), query
    assert search.links("zzzznothing") == [] and search.tab.inner_text("#search-told") == "Nothing was found."


def test_what_people_type_finds_the_page_that_answers_first(search: Search) -> None:
    """For 45 of 50: what is missed is told, so that whoever adds a page sees what it takes away."""
    first = {query: (search.links(query) or [[""]])[0][0] for query in QUERIES}
    missed = {query: found for query, found in first.items() if not found.startswith(QUERIES[query])}
    assert len(QUERIES) == 50 and len(missed) <= 5, missed


def test_the_box_beside_every_page_asks_it(chromium: Any, address: str) -> None:
    """What is typed there stands in the address, and so can be sent to somebody."""
    tab = chromium.new_page()
    tab.goto(f"{address}docs/first-steps.html")
    tab.fill(".sidebar-search", "wrong_audience")
    tab.press(".sidebar-search", "Enter")
    tab.wait_for_url(re.compile(r"search\.html\?q=wrong_audience"))
    assert tab.locator("#search-results a").count() > 0
    tab.close()

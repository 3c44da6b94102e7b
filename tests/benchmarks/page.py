"""Writes the tables of docs/benchmarks.md from what `record` keeps, and those of docs/planning.md: `python -m tests.benchmarks.page`.

Each stands between `<!-- figures: NAME -->` and `<!-- end -->`. A test says that page and record agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.reading import linked

from . import record

PAGE = record.ROOT / "docs" / "benchmarks.md"
_TABLE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

LOADED = "under load"
OURS = "captoken"
LINKS = "captoken, links seen"
TEXTS = "captoken, text seen"

# How the page calls them.
PEERS = {
    "pymacaroons V2": "pymacaroons",
    "pymacaroons V1": "its V1 format",
    "pymacaroons V2, packed": "packed",
    "pymacaroons V1, packed": "packed, V1",
    "biscuit-python": "Biscuit",
    "tenuo": "Tenuo",
    "PyJWT": "PyJWT",
    "joserfc": "joserfc",
}
MODULES = {
    "pymacaroons V2": "pymacaroons",
    "biscuit-python": "biscuit_auth",
    "tenuo": "tenuo",
    "PyJWT": "jwt",
    "joserfc": "joserfc.jwt",
}

# A row of the first table: what it says, the scenario, and which captoken.
TIMES = (
    ("authorize, as minted: nothing seen before", "authorize, one hop", OURS),
    ("the same, links seen in other tokens of the tree", "authorize, one hop", LINKS),
    ("the same, this text seen", "authorize, one hop", TEXTS),
    ("authorize, after ten hand-overs: nothing seen before", "authorize, ten hops", OURS),
    ("the same, links seen", "authorize, ten hops", LINKS),
    ("the same, this text seen", "authorize, ten hops", TEXTS),
    ("mint", "mint", OURS),
    ("narrow, text to text", "attenuate text to text, one hop", OURS),
    ("narrow, text to text, after ten", "attenuate text to text, ten hops", OURS),
    ("narrow in memory, after ten", "attenuate in memory, ten hops", OURS),
    ("one more access on a grant", "grant.authorize", OURS),
)

# A row of the second one: what it says, the scenario, and the signatures that it cannot do without.
_ONE, _ALL = (f"floor: {count} × Ed25519 verify, libsodium" for count in (1, 11))
BOUND = (
    ("bound to a key, with its proof, as minted", "bound, one hop", _ONE),
    ("the same after ten signed hand-overs, none seen before", "bound, ten hops, none seen before", _ALL),
    ("the same, hand-overs seen before", "bound, ten hops, all seen before", _ONE),
    ("ten hand-overs, the last alone bound", "bound, ten hops, the last alone bound", _ONE),
    ("one third party's discharge", "third parties: 1", ""),
    ("sixteen discharges", "third parties: 16", ""),
    ("make a proof", "make a proof, one hop", "floor: Ed25519 sign, libsodium"),
)
SIZES = (("as minted", "size, one hop"), ("after ten hand-overs", "size, ten delegations"))


class Figures:
    """The figures of the comparison, by scenario and contestant; and those of the run under load, if there is one."""

    def __init__(self, part: dict[str, Any]) -> None:
        self.rows = {(row["scenario"], row["contestant"]): row for row in part["rows"]}
        loaded = part.get(LOADED)
        self.loaded = None if loaded is None else Figures(loaded)

    def median(self, scenario: str, contestant: str) -> float | None:
        """The median, where it was measured."""
        row = self.rows.get((scenario, contestant))
        return None if row is None else row["median"]

    def ratios(self, scenario: str, ours: str, peers: Iterable[str]) -> list[str]:
        """How many times that of captoken each of them takes. In bold where it takes less.

        The ratios of a run are medians over rounds, and to the captoken that remembers nothing.
        """
        found: list[str] = []
        for peer in peers:
            both = [self.ratio(scenario, ours, peer)]
            if self.loaded is not None:
                both.append(self.loaded.ratio(scenario, ours, peer))
            found.append(_times(*[one for one in both if one is not None]))
        return found

    def ratio(self, scenario: str, ours: str, peer: str) -> float | None:
        """How many times that of captoken one of them takes in this run, where both were measured."""
        own, theirs = self.rows.get((scenario, ours)), self.rows.get((scenario, peer))
        return None if own is None or theirs is None else theirs["ratio"] / own["ratio"]


def times(part: dict[str, Any]) -> list[str]:
    """From wire text to decision, and what holders do."""
    figures = Figures(part)
    lines = table("time of captoken, and the others as multiples of it", OURS, *PEERS.values())
    for label, scenario, ours in TIMES:
        lines.append(cells(label, _time(figures.median(scenario, ours)), *figures.ratios(scenario, ours, PEERS)))

    imported = [
        _times((figures.median("import", MODULES[peer]) or 0) / (figures.median("import", OURS) or 1))
        if peer in MODULES
        else ""
        for peer in PEERS
    ]
    lines.append(cells("import", f"{figures.median('import', OURS):.0f} ms", *imported))
    return lines


def bound(part: dict[str, Any]) -> list[str]:
    """Tokens bound to keys, and third parties."""
    figures = Figures(part)
    peers = ("tenuo", "pymacaroons V2", "pymacaroons V1")
    lines = table(
        "beyond bearer, text to decision", OURS, "only the signatures, by libsodium", *(PEERS[peer] for peer in peers)
    )
    for label, scenario, floor in BOUND:
        ours, alone = (_time(figures.median(scenario, name)) for name in (OURS, floor))
        lines.append(cells(label, ours, alone, *figures.ratios(scenario, OURS, peers)))
    return lines


def sizes(part: dict[str, Any]) -> list[str]:
    """Characters of text."""
    figures = Figures(part)
    lines = table("characters of text", OURS, *PEERS.values())
    for label, scenario in SIZES:
        found = [figures.median(scenario, name) for name in (OURS, *PEERS)]
        lines.append(cells(label, *("–" if one is None else f"{one:,.0f}" for one in found)))
    return lines


def targets(part: dict[str, Any]) -> list[str]:
    """The targets that this run missed, and how many it met."""
    missed = [one for one in part["targets"] if not one["met"]]
    met = len(part["targets"]) - len(missed)
    lines = [
        f"This run met {met} of its {len(part['targets'])} [targets](../tests/benchmarks/README.md). It missed:",
        "",
    ]
    lines += [f"- {one['claim']}: {one['reached']:.3g}" for one in missed] or ["- none"]
    if LOADED in part:
        lines += ["", f"Beside {part[LOADED]['facts']['busy beside it']} busy processes, {agreeing(part)}."]
    return lines


def agreeing(part: dict[str, Any]) -> str:
    """In how many of their ratios both runs agree."""
    again = Figures(part[LOADED]).rows
    both = [(row["ratio"], again[place]["ratio"]) for place, row in Figures(part).rows.items() if place in again]
    alike = sum(0.9 <= loaded / quiet <= 1.1 for quiet, loaded in both)
    return f"{alike} of {len(both)} ratios are the same within 10 %"


def circumstances(part: dict[str, Any]) -> list[str]:
    """On what it was measured: once, or once more under load."""
    facts = part["facts"]
    if LOADED not in part:
        return table("measured on", "") + [cells(name, str(facts[name])) for name in facts]
    again = part[LOADED]["facts"]
    return table("measured on", "", "and again on") + [cells(name, str(facts[name]), str(again.get(name, "–"))) for name in facts]


def guards(part: dict[str, Any]) -> list[str]:
    """What each guard costs."""
    lines = table("guarded call", "unguarded", "added by the guard", "quartiles", "guarded ÷ unguarded")
    for row in part["rows"]:
        spread = f"{row['low']:.1f} to {row['high']:.1f}"
        # Where the times of a server by itself differ by more than the guard costs.
        more = _time(row["more"]) if row["low"] > 0 else "not measurable in this run"
        # Of less than 10 µs a ratio says nothing.
        ratio = f"{1 + row['more'] / row['bare']:.2f}" if row["bare"] > 10 and row["low"] > 0 else "–"
        lines.append(cells(row["what"], _time(row["bare"]), more, spread, ratio))
    return lines


def rows(part: dict[str, Any]) -> list[str]:
    """What rows cost, beside their condition by hand."""
    lines = table("processor time of a block", "the condition by hand", "`rows`", "")
    for row in part["rows"]:
        lines.append(cells(row["what"], _time(row["by hand"]), _time(row["rows"]), f"{row['rows'] / row['by hand']:.2f} ×"))
    return lines


def gateway(part: dict[str, Any]) -> list[str]:
    """What a request through the gateway takes, beside a relay that looks at nothing."""
    lines = table("processor time of a request", "", "more than the relay")
    for row in part["rows"]:
        lines.append(cells(row["what"], _time(row["takes"]), _time(row["more"]) if row["more"] else "–"))
    return lines


def gateway_mcp(part: dict[str, Any]) -> list[str]:
    """What a call of a tool through the gateway takes, beside the same call without it."""
    lines = table("processor time of a call", "without the gateway", "with it", "")
    for row in part["rows"]:
        lines.append(cells(row["what"], _time(row["direct"]), _time(row["through"]), f"{row['ratio']:.2f} ×"))
    return lines


def control(part: dict[str, Any]) -> list[str]:
    """What an overlay, a trail and a change of either cost."""
    lines = table("live control", "")
    return lines + [cells(row["what"], row["figure"]) for row in part["rows"]]


# Each table of the page, and the part of the record that it is of.
Tables = dict[str, tuple[str, Callable[[dict[str, Any]], list[str]]]]
TABLES: Tables = {
    "times": ("peers", times),
    "bound": ("peers", bound),
    "sizes": ("peers", sizes),
    "targets": ("peers", targets),
    "peers": ("peers", circumstances),
    "guards": ("guards", guards),
    "guarded": ("guards", circumstances),
    "gateway": ("gateway", gateway),
    "gated": ("gateway", circumstances),
    "gateway_mcp": ("gateway_mcp", gateway_mcp),
    "gated_mcp": ("gateway_mcp", circumstances),
    "rows": ("rows", rows),
    "rowed": ("rows", circumstances),
    "control": ("control", control),
    "controlled": ("control", circumstances),
}


def table(*heads: str) -> list[str]:
    """The head of a table."""
    return [cells(*heads), cells(*["---"] * len(heads))]


def cells(*texts: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(texts) + " |"


def _times(*ratios: float) -> str:
    """One ratio, or from the least of both runs to the largest. In bold where both are below 1."""
    if not ratios:
        return "–"
    each = dict.fromkeys(f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}" for ratio in sorted(ratios))
    said = f"{' to '.join(each)} ×"
    return f"**{said}**" if max(ratios) < 0.95 else said


def _time(microseconds: float | None) -> str:
    if microseconds is None:
        return "–"
    return f"{microseconds:.0f} µs" if microseconds >= 20 else f"{microseconds:.1f} µs"


def written(page: str, kept: dict[str, Any], tables: Tables = TABLES) -> str:
    """The page with its tables made of what is kept."""

    def made(found: re.Match[str]) -> str:
        part, make = tables[found[2]]
        loaded = {LOADED: again} if (again := kept.get(f"{part}, {LOADED}")) else {}
        return found[1] + "\n".join(make(kept[part] | loaded)) + "\n" + found[3]

    return linked(_TABLE.sub(made, page), "docs/benchmarks.md")


def tables(page: str) -> Sequence[str]:
    """The names of the tables that a page has."""
    return [found[2] for found in _TABLE.finditer(page)]


if __name__ == "__main__":
    from . import page_planning

    PAGE.write_text(written(PAGE.read_text("utf-8"), record.read()), "utf-8")
    page_planning.write()

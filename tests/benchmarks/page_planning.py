"""Makes the tables of docs/planning.md of what `record` keeps. `python -m tests.benchmarks.page` writes them.

A test says that page and record agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import page, record
from .page import cells, circumstances, table
from .simulation.report import WAYS

PAGE = record.ROOT / "docs" / "planning.md"
Part = dict[str, Any]

DAY = 86_400


def rules(part: Part) -> list[str]:
    """What to multiply, each from a figure below."""
    hops = {row["hops"]: row["microseconds"] for row in part["verifier"]}
    large = next(row for row in part["overlay"] if row["entries"] == 100_000)
    trail = {row["hops"]: row for row in part["trail"]}
    issuer = {row["tasks lie in"]: row for row in part["issuer"]}
    small = next(row for row in part["overlay"] if row["entries"] == 10_000)
    lines = table("to size", "take", "because")
    lines += [
        cells("cores for calls", f"{_round(1e6 / hops[3]['again, all'])} calls a second a core",
              "three hand-overs, an overlay, a trail; a text that came before"),
        cells("the same, each text new", f"{_round(1e6 / hops[3]['first, all'])} calls a second a core", "most of it describes the token in the trail"),
        cells("memory of a process", f"{part['remembered']['megabytes']:.0f} MB, and {large['memory'] / 1e5:.0f} bytes an entry of the overlay",
              "what a verifier remembers is bounded: `remember=`"),
        cells("a snapshot", f"{large['snapshot'] / 1e5:.0f} bytes an entry", "fetched whole when a server starts"),
        cells("a delta", f"{small['delta']} bytes a change, {small['renewal']} a renewal", "fetched by each server, whatever the overlay's size"),
        cells("looks at the store", "servers ÷ `every` a second", "each is one request"),
        cells("how long a revoked token goes on", "half of `every`, and at most `every` and the way to the store", "[seen below](#how-often-to-look)"),
        cells("`max_staleness`", "renewal + `every` + the outage that is to be survived", "past that all is denied"),
        cells("entries that stand", "revocations a day × days until they end", "say `until=`, when the last token ends"),
        cells("disk for the trail", f"{trail[3]['decision'] * DAY * 100 / 1e9:.1f} GB a day at 100 calls a second", f"{trail[3]['decision']} bytes a call; packed, {trail[3]['packed']:.0%} of it"),
        cells("issuers", f"{_round(1e3 / issuer['SQLite']['processor ms'])} exchanges a second a core", "tasks, and not agents: they narrow offline"),
    ]  # fmt: skip
    return lines


def verifier(part: Part) -> list[str]:
    lines = table("a call, after so many hand-overs", *(str(row["hops"]) for row in part["verifier"]))
    said = {
        "first": "a text that is new",
        "first, all": "the same, with an overlay of 10,000 entries and a trail in a file",
        "again": "a text that came before",
        "again, all": "the same, with overlay and trail",
        "grant": "one more access on a grant",
    }
    for key, what in said.items():
        lines.append(cells(what, *(_each(row["microseconds"][key]) for row in part["verifier"])))
    lines.append(cells("bound to a key, with its proof", _each(part["proofs"]["microseconds"]), *[""] * (len(part["verifier"]) - 1)))
    return lines


def processes(part: Part) -> list[str]:
    both, known = part["processes"], part["remembered"]
    lines = table("with overlay and trail, three hand-overs", "calls in a second of each core", "together")
    lines += [
        cells("one process", _round(both["one"]), _round(both["one"])),
        cells("two at once", _round(both["two"] / 2), _round(both["two"])),
        "",
        *table("what it remembers, at most", "in memory"),
        cells(f"after {known['texts']:,} texts of {known['characters']} characters", f"{known['megabytes']:.0f} MB"),
    ]
    return lines


def ledger(part: Part) -> list[str]:
    disk = {row["kind"]: row for row in part["ledger on disk"]}
    lines = table("reservations a second", "one thread", "settled too", "two processes", f"{64} tasks of one loop", "on this disk, one thread", "bytes a token")
    for row in part["ledger"]:
        there = disk.get(row["kind"], {})
        alone = row["reserve"]
        together = [_told(row.get(what), alone) for what in ("two processes", "tasks")]
        rest = ["–" if one is None else _round(one) for one in (there.get("reserve"), row.get("bytes a token"))]
        lines.append(cells(row["kind"], _round(alone), _round(row["settled"]), *together, *rest))
    return lines


def overlay(part: Part) -> list[str]:
    lines = table("entries", "snapshot", "in memory", "loaded in", "a change, at the operator", "and at a server", "delta")
    for row in part["overlay"]:
        size, memory = row["snapshot"] / 1e6, row["memory"] / 1e6
        lines.append(
            cells(
                f"{row['entries']:,}", f"{size:.1f} MB", f"{memory:.1f} MB", f"{row['load ms']:,.0f} ms",
                f"{row['revoke ms']:.1f} ms", f"{row['taken ms']:.1f} ms", f"{row['delta']} bytes",
            )
        )  # fmt: skip
    return lines


def trail(part: Part) -> list[str]:
    lines = table("hand-overs", "bytes a decision", "and a token once", "packed", "a call", "with `sync=True`", "100 calls a second for a day")
    for row in part["trail"]:
        day = row["decision"] * 100 * DAY / 1e9
        lines.append(
            cells(
                str(row["hops"]), str(row["decision"]), str(row["token"]), f"{row['packed']:.0%}",
                f"{row['written µs']:.0f} µs", f"{row['on disk µs']:,.0f} µs", f"{day:.1f} GB, packed {day * row['packed']:.1f} GB",
            )
        )  # fmt: skip
    return lines


def issuer(part: Part) -> list[str]:
    lines = table("tasks lie in", "processor time of an exchange", "so many a second of a core", "at best, 32 at once")
    for row in part["issuer"]:
        used = row["processor ms"]
        lines.append(cells(row["tasks lie in"], f"{used:.2f} ms", _round(1e3 / used), _told(row["a second"], 500 / used)))
    return lines


# --- the simulation --------------------------------------------------------------------------------


def fleet(part: Part) -> list[str]:
    """What each part sees."""
    operator, servers, bucket, real = part["operator"], part["servers"], part["bucket"], part["real"]
    codes = ", ".join(f"{many:,} {code}" for code, many in sorted(real["codes"].items()))
    lines = table("who", "sees", "real or modelled")
    lines += [
        cells("the operator", f"{operator['ended']} tasks ended, {operator['renewals']} renewals; {operator['entries']:,} entries in the end", "real"),
        cells("", f"a change is published after {operator['took']['median'] * 1e3:.0f} ms, {operator['took']['max'] * 1e3:.0f} ms at most", "modelled"),
        cells("the bucket", f"{bucket['requests a second']:,} requests a second, {bucket['most in a second']:,} at most; {bucket['megabytes a second']} MB a second", "modelled"),
        cells("", f"while all start in a minute: {bucket['megabytes a second at the start']:,} MB a second", "modelled"),
        cells("a server", f"an ended task is let through for {_spread(servers['delay'])} s more", "modelled"),
        cells("", f"the overlay is {_spread(servers['age'], 0)} s old when it comes", "modelled"),
        cells("", f"{servers['bytes a look']:,} bytes a look, {servers['megabytes a day']} MB a day, {servers['kilobytes at the start']:,} KB when it starts", "modelled"),
        cells(f"{real['servers']} of the servers", f"{real['calls']:,} calls: {codes}", "real"),
        cells("", f"{real['looks']:,} looks, each as its model says", "real"),
        cells("agents of an ended task", f"{servers['calls of a task after its end']:.1f} calls more are let through, of all ten together", "modelled"),
    ]  # fmt: skip
    return lines


def intervals(part: Part) -> list[str]:
    lines = table("`every`", "an ended task is let through for: median, 99 %, most", "requests a second", "MB a second")
    for row in part["intervals"]:
        lines.append(cells(f"{row['every']} s", f"{_spread(row['delay'])} s", f"{row['requests a second']:,}", f"{row['megabytes a second']:.1f}"))
    return lines


def bursts(part: Part) -> list[str]:
    agreeing, spread = part["bursts"]
    return [
        f"Of busy servers whose clocks agree, {agreeing['most in a tenth']:,} looked within one tenth of a second, where {agreeing['mean in a tenth']:,} are the",
        f"mean. With an offset, {spread['most in a tenth']:,} did at most.",
    ]


def outages(part: Part) -> list[str]:
    lines = table("", f"region `{part['plan']['cut_region']}` cannot reach the bucket", "the operator publishes nothing")
    cut, away, plan = part["cut"], part["away"], part["plan"]

    def both(what: str, of: Callable[[Part], str]) -> str:
        return cells(what, of(cut), of(away))

    return [
        *lines,
        cells("for", *(f"{plan[why][1] - plan[why][0]:.0f} s" for why in ("cut", "away"))),
        both("servers that deny all", lambda said: f"{said['servers']:,} of {plan['servers']:,}"),
        both("they begin to", lambda said: f"after {_range(said['first denies'], said['last denies'])} s"),
        both("they are back", lambda said: f"{_range(said['first is back'], said['last is back'])} s after it"),
        both("calls that are refused", lambda said: f"{said['calls refused']:,}"),
        cells("ended tasks are let through there for", f"{_spread(cut['delay'])} s", "nothing can be ended"),
    ]


def budgets(part: Part) -> list[str]:
    plan = part["plan"]
    total = plan["budgets"] * plan["budget"]
    lines = table(f"{plan['budgets']} budgets, {total:,} cents", "spent", "too much", "stranded", "ways home a call", "wait, away from home", "refused while cut off")
    for row in part["budgets"]:
        lines.append(
            cells(
                WAYS[row["way"]], f"{row['spent']:,}", f"{row['over']:,}", f"{row['stranded']:,}", f"{row['round_trips']:.2f}",
                f"{row['wait'] * 1e3:.0f} ms", f"{row['refused_cut']} of {row['calls_cut']}",
            )
        )  # fmt: skip
    return lines


def worked(part: Part) -> list[str]:
    """An example that is worked out, with the numbers of the simulation."""
    plan, bucket, servers = part["plan"], part["bucket"], part["servers"]
    every, renew, bound = plan["every"], plan["renew"], plan["max_staleness"]
    regions = len(plan["regions"])
    by_region = bucket["requests a second"] * max(region["part"] for region in plan["regions"])
    oldest = servers["age"]["max"]
    rows = [
        ("looks", f"{plan['servers']:,} servers ÷ {every} s", f"{plan['servers'] // every:,} a second at most; {bucket['requests a second']:,} seen, since idle servers do not look"),
        ("one bucket", "5,500 GET a second for a prefix, as S3 promises", f"enough; {bucket['most in a second']:,} at most in a second, when a page of deltas was full"),
        ("a bucket in each region", f"{regions} copies", f"{by_region:,.0f} a second in the largest"),
        ("an ended task", f"`every` = {every} s", f"over after {servers['delay']['median']:.1f} s in the middle, {servers['delay']['max']:.1f} s at most"),
        ("the oldest overlay", f"a renewal each {renew:.0f} s, looks each {every} s", f"{oldest:.0f} s"),
        ("an operator that is away", f"`max_staleness` = {bound} s, less {oldest:.0f} s", f"at least {bound - oldest:.0f} s until the first server denies; {part['away']['first denies']:.0f} s here"),
        ("all restart in a minute", f"{servers['kilobytes at the start']:,} KB each", f"{bucket['megabytes a second at the start']:,} MB a second: roll out over ten minutes for a tenth"),
    ]  # fmt: skip
    return [*table("question", "from", "answer"), *(cells(*row) for row in rows)]


def envoy(part: Part) -> list[str]:
    """What a request takes of each process, and so how many cores 10,000 a second take."""
    lines = table("processor time of a request", "the processor", "Envoy", "Valkey", "cores for 10,000 a second, together")
    for row in part["rows"]:
        each = [row["processor"], row["envoy"], row["valkey"]]
        lines.append(cells(row["what"], *(f"{taken:.0f} µs" if taken else "–" for taken in each), f"{sum(each) / 100:.0f}"))
    return lines


TABLES: dict[str, tuple[str, Callable[[Part], list[str]]]] = {
    "rules": ("planning", rules),
    "verifier": ("planning", verifier),
    "processes": ("planning", processes),
    "ledger": ("planning", ledger),
    "overlay": ("planning", overlay),
    "trail": ("planning", trail),
    "issuer": ("planning", issuer),
    "envoy": ("gateway_envoy", envoy),
    "envoyed": ("gateway_envoy", circumstances),
    "measured": ("planning", circumstances),
    "fleet": ("simulation", fleet),
    "intervals": ("simulation", intervals),
    "bursts": ("simulation", bursts),
    "outages": ("simulation", outages),
    "budgets": ("simulation", budgets),
    "worked": ("simulation", worked),
    "simulated": ("simulation", circumstances),
}


def written(text: str, kept: dict[str, Any]) -> str:
    """The page with its tables made of what is kept."""
    return page.written(text, kept, TABLES)


def _each(microseconds: float) -> str:
    """How long, and how many in a second of one core."""
    said = f"{microseconds:.0f}" if microseconds >= 20 else f"{microseconds:.1f}"
    return f"{said} µs: {_round(1e6 / microseconds)} a second"


def _round(number: float) -> str:
    """Two digits that count, since the third is another one each time."""
    digits = len(str(int(number))) - 2
    return f"{round(number, -digits) if digits > 0 else number:,.0f}"


def _told(number: float | None, least: float) -> str:
    """What needs several processors at once a busy machine does not tell: then it is less than what one alone gets."""
    if number is None:
        return "–"
    return _round(number) if number >= least else "not measurable in this run"


def _spread(said: Part, digits: int = 1) -> str:
    return ", ".join(f"{said[name]:,.{digits}f}" for name in ("median", "p99", "max"))


def _range(first: float, last: float) -> str:
    return f"{first:.0f}" if round(first) == round(last) else f"{first:.0f} to {last:.0f}"


def write() -> None:
    PAGE.write_text(written(PAGE.read_text("utf-8"), record.read()), "utf-8")

"""The story of `captoken.cli.demo.story`, drawn on a console while it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from captoken._format.spelling import span
from captoken.cli import output, words
from captoken.cli.demo.data import (
    Call,
    Cast,
    Count,
    Filing,
    Region,
    Report,
    Scene,
    Story,
    Totals,
    Used,
)

_WIDE = 96  # columns from which on there is room for one more figure
_LATE = 0.1  # of what is owed: more than that overdue is much
_SEVERE = 2
_A_LINE, _TO_READ = 0.08, 0.8  # seconds for whoever reads along


class _Glyphs(msgspec.Struct, frozen=True):
    """What is drawn with: one set for terminals that show Unicode, one for those that do not."""

    yes: str
    no: str
    dot: str
    full: str
    late: str
    sparks: str
    rule: str
    money: str
    more: str


_UNICODE = _Glyphs(
    "✓",
    "✗",
    "·",
    "█",
    "▒",
    "▁▂▃▄▅▆▇█",
    "─",
    "k€",
    "…",
)
_ASCII = _Glyphs(
    "+",
    "x",
    "-",
    "#",
    ":",
    "_.-~=+*#",
    "-",
    "kEUR",
    "...",
)


# What the sections are called, and what is said of each.
_HEADINGS: dict[Scene, tuple[str, str]] = {
    "work": ("The work", "On SQLite. Each statement is checked before it runs."),
    "tricks": (
        "What was refused",
        "Link 0 is the mint, each step adds one. A refusal says which, and by whom.",
    ),
    "sending": (
        "A key, and a question",
        "One token is bound to its holder's key, and asks user:jane besides.",
    ),
    "end": (
        "The end",
        "A token dies with the shortest life above it; what is left, with its task.",
    ),
}
_NEXT = (
    ("captoken docs tools", "guard a function of yours: ten lines"),
    ("captoken docs sqlite", "guard a database"),
    ("captoken docs cli", "mint, narrow and verify tokens in a shell"),
    ("captoken --help", "all commands"),
)


class Picture:
    """The story on a console, drawn while it happens: `see` each piece, then `end`.

    `rest` is called with the seconds in which somebody may read what was drawn. `brief`: one line
    for what each agent did first, and for each kind of refusal.
    """

    def __init__(
        self,
        console: Console,
        *,
        brief: bool = False,
        rest: Callable[[float], None],
    ) -> None:
        self.console = console
        self.glyphs = _UNICODE if output.is_unicode() else _ASCII
        self._brief = brief
        self._rest = rest
        self._scene: Scene | None = None
        self._cast = Cast("", "", ())
        self._seen: set[str] = set()

    def begin(self) -> None:
        """What is going to happen, before anything has."""
        self._draw(
            "",
            Text.assemble(
                ("captoken demo", "bold cyan"),
                "  One person, six agents, one database, no server to ask.",
            ),
            Text("All of it is real but the time: the clock is put forward, nobody waits.", "dim"),
        )

    def see(self, piece: Cast | Call | Report) -> None:
        """Draw what has just happened."""
        if isinstance(piece, Cast):
            self._cast = piece
            self._section(
                "Who may do what",
                "One mint. Each hand-over is made offline, by the agent that hands on.",
            )
            self._draw(self._tree())
            self._rest(_TO_READ)
        elif isinstance(piece, Report):
            self._show_report(piece)
        elif self._is_shown(piece):
            self._show_call(piece)

    def end(self, story: Story) -> None:
        """What it adds up to, and what to do next."""
        if not self._brief:
            self._section("The audit trail", "Who did what, out of the servers' records alone.")
            self._draw(self._used(story))
            self._rest(_TO_READ)
        self._section("What it adds up to", "By the servers' own books, which were checked.")
        self._draw(self._totals(story.totals), "", self._costs(story))
        self._section("What to try next", "The pages are in the package.")
        self._draw(self._next())

    def _draw(self, *drawn: RenderableType) -> None:
        output.draw(self.console, *drawn)

    def _section(self, title: str, hint: str) -> None:
        rule = self.glyphs.rule * (self.console.width - len(title) - 4)
        heading = Text.assemble(
            (f"{self.glyphs.rule * 2} ", "dim"), (title, "bold"), (f" {rule}", "dim")
        )
        if self._brief:
            self._draw("", heading)
        else:
            self._draw("", heading, Text(hint, "dim"), "")

    def _is_shown(self, call: Call) -> bool:
        """All of them; in a brief picture the first of its kind."""
        kind = call.agent if call.allowed else call.code
        is_first = kind not in self._seen
        self._seen.add(kind)
        return is_first or not self._brief

    def _show_call(self, call: Call) -> None:
        if call.scene != self._scene:
            self._scene = call.scene
            self._section(*_HEADINGS[call.scene])
            if call.scene == "end" and not self._brief:
                self._draw(self._lives(), "")
        self._draw(self._line(call) if self._brief else self._row(call))
        self._rest(_A_LINE)

    def _show_report(self, report: Report) -> None:
        if self._brief:
            return
        self._section("The report", "Added up by the orchestrator, out of what its agents wrote.")
        self._draw(self._report(report))
        self._rest(_TO_READ)

    def _tree(self) -> Tree:
        cast = self._cast
        tree = Tree(
            Text.assemble((cast.subject, "bold"), " started task ", (cast.task, "bold")),
            guide_style="dim",
        )
        branches: dict[str | None, Tree] = {None: tree}
        for agent in cast.agents:
            label = Text.assemble((agent.name, "bold cyan"), (f"  {span(agent.lives)}", "yellow"))
            for line in agent.says:
                label.append(f"\n{line}", "")
            branches[agent.name] = branches[agent.parent].add(label)
        return tree

    def _name_width(self) -> int:
        return max(len(agent.name) for agent in self._cast.agents)

    def _row(self, call: Call) -> RenderableType:
        """What was tried: when, whether it worked, who, and what."""
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        if call.scene == "end":
            table.add_column(justify="right", no_wrap=True, width=7)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, width=self._name_width())
        table.add_column(ratio=1)
        table.add_row(*self._cells(call))
        return table

    def _cells(self, call: Call) -> Iterator[Text]:
        style = "bold green" if call.allowed else "bold red"
        if call.scene == "end":
            yield Text(f"+{span(call.at)}", "dim")
        yield Text(self.glyphs.yes if call.allowed else self.glyphs.no, style)
        yield Text(call.agent, "cyan")

        tried = Text(call.tried)
        if call.allowed and call.scene in ("work", "sending"):
            tried.append(f"  {call.why}", "dim")
        else:
            tried.append("\n")
            tried.append(call.code, style)
            tried.append(f"  {call.why}{_also(call)}", "dim")
        yield tried

    def _line(self, call: Call) -> Text:
        """The same in one line: what was tried is cut where it is long."""
        style = "bold green" if call.allowed else "bold red"
        mark = self.glyphs.yes if call.allowed else self.glyphs.no
        came = (call.why if call.allowed else call.code).partition(",")[0]
        line = Text.assemble(
            (mark, style), "  ", (call.agent.ljust(self._name_width()), "cyan"), "  "
        )
        room = self.console.width - len(line) - len(came) - 2
        tried = call.tried
        if len(tried) > room:
            tried = tried[: room - len(self.glyphs.more)] + self.glyphs.more
        line.append(tried.ljust(room + 2))
        line.append(came, "dim" if call.allowed else style)
        return line

    def _spark(self, values: tuple[float, ...]) -> str:
        """A curve in one line."""
        low = min(values)
        size = (max(values) - low) or 1
        steps = len(self.glyphs.sparks) - 1
        heights = [round((value - low) / size * steps) for value in values]
        return "".join(self.glyphs.sparks[height] for height in heights)

    def _report(self, report: Report) -> RenderableType:
        sources = [f"{topic} by {agent}" for topic, agent in sorted(report.sources.items())]
        notes = (
            f"{self.glyphs.late} overdue",
            "at risk: the most that 19 weeks of 20 would cost, judged by the last 13",
            f"found: {f' {self.glyphs.dot} '.join(sources)}",
        )
        return Panel(
            Group(
                self._regions(report.regions),
                Text(),
                self._filings(report.filings),
                Text(),
                Text("\n".join(notes), "dim"),
            ),
            title=Text("Quarterly risk report, Q3", "bold"),
            title_align="left",
            padding=(1, 1),
            border_style="dim",
            box=box.ROUNDED,
        )

    def _regions(self, regions: Sequence[Region]) -> Table:
        """Who owes how much, and what of it is at risk."""
        is_wide = self.console.width >= _WIDE
        table = _plain_table()
        table.add_column("region", no_wrap=True)
        table.add_column("exposure", no_wrap=True, ratio=1)
        table.add_column(self.glyphs.money, justify="right", no_wrap=True)
        table.add_column("overdue", justify="right", no_wrap=True)
        table.add_column("13 weeks", no_wrap=True)
        if is_wide:
            table.add_column("a week", justify="right", no_wrap=True)
        table.add_column("at risk", justify="right", no_wrap=True)

        most = max((region.exposure for region in regions), default=1)
        for region in regions:
            table.add_row(*self._region(region, most, is_wide))
        exposure = sum(region.exposure for region in regions)
        at_risk = sum(region.at_risk for region in regions)
        between = [""] * (3 if is_wide else 2)
        table.add_row(
            "all",
            "",
            f"{exposure:,}",
            *between,
            f"{at_risk:,}",
            style="bold",
        )
        return table

    def _region(self, region: Region, most: int, is_wide: bool) -> Iterator[RenderableType]:
        """The cells of a row; `most` is the exposure that fills its bar."""
        width = 26 if is_wide else 13
        owed = max(1, round(region.overdue / most * width))
        paid = round(region.exposure / most * width) - owed
        late = region.overdue / (region.exposure or 1)
        yield region.name
        yield Text.assemble(
            (self.glyphs.full * paid, "cyan"),
            (self.glyphs.late * owed, "red"),
        )
        yield f"{region.exposure:,}"
        yield Text(f"{late:.0%}", "bold red" if late > _LATE else "")
        yield Text(self._spark(region.moves), "cyan")
        if is_wide:
            yield f"{region.volatility:.1f}%"
        yield Text(f"{region.at_risk:,}", "bold")

    def _filings(self, filings: Sequence[Filing]) -> Table:
        """What issuers had to tell, and how they are rated."""
        table = _plain_table()
        for title in ("flagged filings", "", "", ""):
            table.add_column(title, no_wrap=True)
        table.add_column("", ratio=1)
        table.add_column("rating", no_wrap=True)
        for filing in filings:
            table.add_row(*_filing(filing))
        return table

    def _lives(self) -> RenderableType:
        table = Table.grid(padding=(0, 2, 0, 0))
        most = max(agent.lives for agent in self._cast.agents)
        for agent in self._cast.agents:
            bar = self.glyphs.full * round(agent.lives / most * (self.console.width - 22))
            table.add_row(
                Text(agent.name, "cyan"),
                Text.assemble((bar, "yellow"), (f" {span(agent.lives)}", "dim")),
            )
        return table

    def _used(self, story: Story) -> RenderableType:
        tree = Tree(
            Text.assemble((story.subject, "bold"), ", task ", (story.task, "bold")),
            guide_style="dim",
        )
        branches: dict[str | None, Tree] = {None: tree}
        for used in story.used:
            branches[used.name] = branches[used.parent].add(_used_label(used))
        unknown = f"{story.totals.unknown} refusals more are nobody's: no signature vouches for it."
        return Group(tree, Text(), Text(unknown, "dim"))

    def _totals(self, totals: Totals) -> RenderableType:
        """What was counted, with the words that tell one count from another."""
        elsewhere = sum(_both(totals.tried)) - sum(_both(totals.at_servers))
        kept = sum(_both(totals.decisions))
        table = _plain_table()
        table.add_column("", no_wrap=True)
        table.add_column("allowed", justify="right", no_wrap=True)
        table.add_column("refused", justify="right", no_wrap=True)
        table.add_column("", ratio=1)
        for name, count, meaning in (
            ("attempts", totals.tried, f"the story's; {elsewhere} of them asked no server"),
            ("statements", totals.statements, "of SQL; an insert of five rows is five"),
            ("accesses", totals.accesses, "a table of a statement, a call of a tool"),
            ("tokens", totals.tokens, "looked at before there was a statement"),
            ("decisions", totals.decisions, "accesses and tokens together"),
        ):
            allowed, refused = map(str, _both(count))
            table.add_row(Text(name, "bold"), allowed, refused, Text(meaning, "dim"))
        records = (
            f"{kept} decisions, {totals.described} tokens described, "
            f"{words.counted(totals.checkpoints, 'signature')}"
        )
        table.add_row(Text("records", "bold"), "", str(totals.records), Text(records, "dim"))
        return table

    def _costs(self, story: Story) -> RenderableType:
        sizes = [agent.characters for agent in story.agents]
        offline = f"1 mint, {len(story.agents) - 1} hand-overs"
        asked = "0 requests to an issuer, 0 scopes registered"
        tokens = f"tokens of {min(sizes)} to {max(sizes)} characters."
        return Text(f"{offline}, {asked}; {tokens}")

    def _next(self) -> RenderableType:
        longer = ("captoken demo", "the whole story")
        shorter = ("captoken demo --brief", "a page of it")
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column()
        for command, what in (*_NEXT, longer if self._brief else shorter):
            table.add_row(Text(command, "bold cyan"), what)
        return table


def _both(count: Count) -> tuple[int, int]:
    return count.allowed, count.refused


def _plain_table() -> Table:
    return Table(
        box=None,
        expand=True,
        padding=(0, 2, 0, 0),
        header_style="dim",
    )


def _also(call: Call) -> str:
    """Which other links refuse."""
    if not call.also:
        return ""
    links = "link" if len(call.also) == 1 else "links"
    return f"; {links} {', '.join(map(str, call.also))} too"


def _filing(filing: Filing) -> Iterator[RenderableType]:
    """The cells of a row."""
    style = "bold red" if filing.severity > _SEVERE else "yellow"
    yield filing.issuer
    yield filing.form
    yield filing.filed
    yield Text("!" * filing.severity, style)
    yield filing.note
    yield Text(filing.rating, "bold")


def _used_label(used: Used) -> Text:
    """An agent, and what came of its accesses."""
    return Text.assemble(
        (used.name, "bold cyan"),
        (f", {used.basis}", "dim"),
        "  ",
        (f"{used.allowed} allowed", "green" if used.allowed else "dim"),
        ", ",
        (f"{used.refused} refused", "red" if used.refused else "dim"),
    )

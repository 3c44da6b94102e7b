"""The story of `captoken.cli.demo.story`, drawn on a console while it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Column, Table
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


# What glyphs are on terminals that do not show Unicode. A curve goes up from `_` to `#`.
_IN_ASCII = str.maketrans(
    dict(zip("✓✗·▒▁▂▃▄▅▆▇█─", "+x-:_.-~=+*#-", strict=True)) | {"€": "EUR", "…": "..."}
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
        self._glyphs = {} if output.is_unicode() else _IN_ASCII
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

    def _spelled(self, text: str) -> str:
        """A text with glyphs, as this terminal shows them."""
        return text.translate(self._glyphs)

    def _section(self, title: str, hint: str) -> None:
        rule = self._spelled("─" * (self.console.width - len(title) - 4))
        heading = Text.assemble((f"{rule[:2]} ", "dim"), (title, "bold"), (f" {rule}", "dim"))
        self._draw("", heading, *(() if self._brief else (Text(hint, "dim"), "")))

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
        labels: list[tuple[str, str | None, Text]] = []
        for agent in self._cast.agents:
            label = Text.assemble((agent.name, "bold cyan"), (f"  {span(agent.lives)}", "yellow"))
            labels.append(
                (
                    agent.name,
                    agent.parent,
                    label.append("".join(f"\n{line}" for line in agent.says)),
                )
            )
        cast = self._cast
        head = Text.assemble((cast.subject, "bold"), " started task ", (cast.task, "bold"))
        return _tree_of(head, labels)

    def _name_width(self) -> int:
        return max(len(agent.name) for agent in self._cast.agents)

    def _row(self, call: Call) -> RenderableType:
        """What was tried: when, whether it worked, who, and what."""
        tried = Text(call.tried)
        if call.allowed and call.scene in ("work", "sending"):
            tried.append(f"  {call.why}", "dim")
        else:
            tried.append(f"\n{call.code}", _style(call))
            tried.append(f"  {call.why}{_also(call)}", "dim")
        columns = [
            Column(no_wrap=True),
            Column(no_wrap=True, width=self._name_width()),
            Column(ratio=1),
        ]
        cells = [self._mark(call), Text(call.agent, "cyan"), tried]
        if call.scene == "end":
            columns.insert(0, Column(justify="right", no_wrap=True, width=7))
            cells.insert(0, Text(f"+{span(call.at)}", "dim"))
        table = Table.grid(*columns, padding=(0, 2, 0, 0), expand=True)
        table.add_row(*cells)
        return table

    def _mark(self, call: Call) -> Text:
        """Whether it worked."""
        return Text(self._spelled("✓" if call.allowed else "✗"), _style(call))

    def _line(self, call: Call) -> Text:
        """The same in one line: what was tried is cut where it is long."""
        came = (call.why if call.allowed else call.code).partition(",")[0]
        agent = (call.agent.ljust(self._name_width()), "cyan")
        line = Text.assemble(self._mark(call), "  ", agent, "  ")
        room = self.console.width - len(line) - len(came) - 2
        tried, more = call.tried, self._spelled("…")
        if len(tried) > room:
            tried = tried[: room - len(more)] + more
        line.append(tried.ljust(room + 2))
        return line.append(came, "dim" if call.allowed else _style(call))

    def _spark(self, values: tuple[float, ...]) -> str:
        """A curve in one line."""
        low = min(values)
        size = (max(values) - low) or 1
        return self._spelled("".join("▁▂▃▄▅▆▇█"[round((one - low) / size * 7)] for one in values))

    def _report(self, report: Report) -> RenderableType:
        sources = [f"{topic} by {agent}" for topic, agent in sorted(report.sources.items())]
        notes = (
            self._spelled("▒ overdue"),
            "at risk: the most that 19 weeks of 20 would cost, judged by the last 13",
            f"found: {self._spelled(' · ').join(sources)}",
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
        columns = [
            Column("region", no_wrap=True),
            Column("exposure", no_wrap=True, ratio=1),
            _figure(self._spelled("k€")),
            _figure("overdue"),
            Column("13 weeks", no_wrap=True),
            _figure("a week"),
            _figure("at risk"),
        ]
        most = max((region.exposure for region in regions), default=1)
        rows = [self._region(region, most) for region in regions]
        exposure = sum(region.exposure for region in regions)
        at_risk = sum(region.at_risk for region in regions)
        rows.append(["all", "", f"{exposure:,}", "", "", "", f"{at_risk:,}"])
        # In a narrow terminal, without the volatility.
        if not self._is_wide:
            del columns[5]
            for row in rows:
                del row[5]
        table = _plain_table(*columns)
        for row in rows:
            table.add_row(*row, style="bold" if row is rows[-1] else None)
        return table

    @property
    def _is_wide(self) -> bool:
        return self.console.width >= _WIDE

    def _region(self, region: Region, most: int) -> list[RenderableType]:
        """The cells of a row; `most` is the exposure that fills its bar."""
        width = 26 if self._is_wide else 13
        owed = max(1, round(region.overdue / most * width))
        paid = round(region.exposure / most * width) - owed
        late = region.overdue / (region.exposure or 1)
        return [
            region.name,
            Text.assemble((self._spelled("█" * paid), "cyan"), (self._spelled("▒" * owed), "red")),
            f"{region.exposure:,}",
            Text(f"{late:.0%}", "bold red" if late > _LATE else ""),
            Text(self._spark(region.moves), "cyan"),
            f"{region.volatility:.1f}%",
            Text(f"{region.at_risk:,}", "bold"),
        ]

    def _filings(self, filings: Sequence[Filing]) -> Table:
        """What issuers had to tell, and how they are rated."""
        plain = [Column(title, no_wrap=True) for title in ("flagged filings", "", "", "")]
        table = _plain_table(*plain, Column(ratio=1), Column("rating", no_wrap=True))
        for filing in filings:
            style = "bold red" if filing.severity > _SEVERE else "yellow"
            severe = Text("!" * filing.severity, style)
            rating = Text(filing.rating, "bold")
            table.add_row(filing.issuer, filing.form, filing.filed, severe, filing.note, rating)
        return table

    def _lives(self) -> RenderableType:
        table = Table.grid(padding=(0, 2, 0, 0))
        most = max(agent.lives for agent in self._cast.agents)
        for agent in self._cast.agents:
            bar = self._spelled("█" * round(agent.lives / most * (self.console.width - 22)))
            table.add_row(
                Text(agent.name, "cyan"),
                Text.assemble((bar, "yellow"), (f" {span(agent.lives)}", "dim")),
            )
        return table

    def _used(self, story: Story) -> RenderableType:
        head = Text.assemble((story.subject, "bold"), ", task ", (story.task, "bold"))
        tree = _tree_of(head, ((one.name, one.parent, _used_label(one)) for one in story.used))
        unknown = f"{story.totals.unknown} refusals more are nobody's: no signature vouches for it."
        return Group(tree, Text(), Text(unknown, "dim"))

    def _totals(self, totals: Totals) -> RenderableType:
        """What was counted, with the words that tell one count from another."""
        elsewhere = sum(_both(totals.tried)) - sum(_both(totals.at_servers))
        kept = sum(_both(totals.decisions))
        table = _plain_table(
            Column(no_wrap=True), _figure("allowed"), _figure("refused"), Column(ratio=1)
        )
        for name, count, meaning in (
            ("attempts", totals.tried, f"the story's; {elsewhere} of them asked no server"),
            ("statements", totals.statements, "of SQL; an insert of five rows is five"),
            ("accesses", totals.accesses, "a table of a statement, a call of a tool"),
            ("tokens", totals.tokens, "looked at before there was a statement"),
            ("decisions", totals.decisions, "accesses and tokens together"),
        ):
            table.add_row(Text(name, "bold"), *map(str, _both(count)), Text(meaning, "dim"))
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
        table = Table.grid(Column(no_wrap=True), "", padding=(0, 2, 0, 0))
        for command, what in (*_NEXT, longer if self._brief else shorter):
            table.add_row(Text(command, "bold cyan"), what)
        return table


def _both(count: Count) -> tuple[int, int]:
    return count.allowed, count.refused


def _plain_table(*columns: Column) -> Table:
    return Table(*columns, box=None, expand=True, padding=(0, 2, 0, 0), header_style="dim")


def _figure(title: str) -> Column:
    """A column of numbers."""
    return Column(title, justify="right", no_wrap=True)


def _tree_of(head: Text, labels: Iterable[tuple[str, str | None, Text]]) -> Tree:
    """Agents below those who handed on to them. Of each: name, parent, and what is shown."""
    tree = Tree(head, guide_style="dim")
    branches: dict[str | None, Tree] = {None: tree}
    for name, parent, label in labels:
        branches[name] = branches[parent].add(label)
    return tree


def _style(call: Call) -> str:
    return "bold green" if call.allowed else "bold red"


def _also(call: Call) -> str:
    """Which other links refuse."""
    if not call.also:
        return ""
    links = "link" if len(call.also) == 1 else "links"
    return f"; {links} {', '.join(map(str, call.also))} too"


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

"""The story of `captoken.cli.demo.story`, drawn on a console."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from captoken._format.spelling import span
from captoken.cli import output
from captoken.cli.demo.data import Call, Filing, Region, Scene, Story, Used

_WIDE = 96  # columns from which on there is room for one more figure
_LATE = 0.1  # of what is owed: more than that overdue is much
_SEVERE = 2


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


_UNICODE = _Glyphs(
    "✓",
    "✗",
    "·",
    "█",
    "▒",
    "▁▂▃▄▅▆▇█",
    "─",
    "k€",
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
)


class Picture:
    """The story on a console."""

    def __init__(self, story: Story, console: Console) -> None:
        self.story = story
        self.console = console
        self.glyphs = _UNICODE if output.is_unicode() else _ASCII

    def draw(self) -> None:
        """Section by section."""
        output.draw(
            self.console,
            "",
            Text.assemble(
                ("captoken demo", "bold cyan"),
                "  One person, six agents, one database, no server to ask.",
            ),
            *self._section(
                "Who may do what",
                "One mint. Each hand-over is made offline, by the agent that hands on.",
            ),
            self._tree(),
            *self._section("The work", "On SQLite. Each statement is checked before it runs."),
            self._calls("work"),
            *self._section(
                "The report", "Added up by the orchestrator, out of what its agents wrote."
            ),
            self._report(),
            *self._section(
                "What was refused",
                "Link 0 is the mint, each step adds one. A refusal says which, and by whom.",
            ),
            self._calls("tricks"),
            *self._section(
                "A key, and a question",
                "One token is bound to its holder's key, and asks user:jane besides.",
            ),
            self._calls("sending"),
            *self._section(
                "The end",
                "A token dies with the shortest life above it; what is left, with its task.",
            ),
            self._lives(),
            "",
            self._calls("end"),
            *self._section("The audit trail", "Who did what, out of the servers' records alone."),
            self._used(),
            "",
            self._total(),
        )

    def _section(self, title: str, hint: str) -> Iterator[RenderableType]:
        rule = self.glyphs.rule * (self.console.width - len(title) - 4)
        yield ""
        yield Text.assemble(
            (f"{self.glyphs.rule * 2} ", "dim"), (title, "bold"), (f" {rule}", "dim")
        )
        yield Text(hint, "dim")
        yield ""

    def _tree(self) -> Tree:
        story = self.story
        tree = Tree(
            Text.assemble((story.subject, "bold"), " started task ", (story.task, "bold")),
            guide_style="dim",
        )
        branches: dict[str | None, Tree] = {None: tree}
        for agent in story.agents:
            label = Text.assemble((agent.name, "bold cyan"), (f"  {span(agent.lives)}", "yellow"))
            for line in agent.says:
                label.append(f"\n{line}", "")
            branches[agent.name] = branches[agent.parent].add(label)
        return tree

    def _calls(self, scene: Scene) -> RenderableType:
        """What was tried in one scene, a row each."""
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        if scene == "end":
            table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        for call in self.story.calls:
            if call.scene == scene:
                table.add_row(*self._call(call))
        return table

    def _call(self, call: Call) -> Iterator[Text]:
        """The cells of a row: when, whether it worked, who, and what."""
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

    def _spark(self, values: tuple[float, ...]) -> str:
        """A curve in one line."""
        low = min(values)
        size = (max(values) - low) or 1
        steps = len(self.glyphs.sparks) - 1
        heights = [round((value - low) / size * steps) for value in values]
        return "".join(self.glyphs.sparks[height] for height in heights)

    def _report(self) -> RenderableType:
        sources = [f"{topic} by {agent}" for topic, agent in sorted(self.story.sources.items())]
        notes = (
            f"{self.glyphs.late} overdue",
            "at risk: the most that 19 weeks of 20 would cost, judged by the last 13",
            f"found: {f' {self.glyphs.dot} '.join(sources)}",
        )
        return Panel(
            Group(
                self._regions(),
                Text(),
                self._filings(),
                Text(),
                Text("\n".join(notes), "dim"),
            ),
            title=Text("Quarterly risk report, Q3", "bold"),
            title_align="left",
            padding=(1, 1),
            border_style="dim",
            box=box.ROUNDED,
        )

    def _regions(self) -> Table:
        """Who owes how much, and what of it is at risk."""
        regions = self.story.regions
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

    def _filings(self) -> Table:
        """What issuers had to tell, and how they are rated."""
        table = _plain_table()
        for title in ("flagged filings", "", "", ""):
            table.add_column(title, no_wrap=True)
        table.add_column("", ratio=1)
        table.add_column("rating", no_wrap=True)
        for filing in self.story.filings:
            table.add_row(*_filing(filing))
        return table

    def _lives(self) -> RenderableType:
        table = Table.grid(padding=(0, 2, 0, 0))
        most = max(agent.lives for agent in self.story.agents)
        for agent in self.story.agents:
            bar = self.glyphs.full * round(agent.lives / most * (self.console.width - 22))
            table.add_row(
                Text(agent.name, "cyan"),
                Text.assemble((bar, "yellow"), (f" {span(agent.lives)}", "dim")),
            )
        return table

    def _used(self) -> RenderableType:
        story = self.story
        tree = Tree(
            Text.assemble((story.subject, "bold"), ", task ", (story.task, "bold")),
            guide_style="dim",
        )
        branches: dict[str | None, Tree] = {None: tree}
        for used in story.used:
            branches[used.name] = branches[used.parent].add(_used_label(used))
        unknown = f"{story.unknown} refusals of what no signature vouches for."
        rest = f"{unknown} {story.records} records, one chain, signed."
        return Group(tree, Text(), Text(rest, "dim"))

    def _total(self) -> RenderableType:
        story = self.story
        allowed = sum(call.allowed for call in story.calls)
        sizes = [agent.characters for agent in story.agents]
        refused = len(story.calls) - allowed
        offline = f"1 mint, {len(story.agents) - 1} hand-overs"
        asked = "0 requests to an issuer, 0 scopes registered"
        tokens = f"tokens of {min(sizes)} to {max(sizes)} characters."
        return Text.assemble(
            (f"{allowed} allowed, {refused} refused. ", "bold"),
            f"{offline}, {asked}; {tokens}",
        )


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

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
from captoken.cli.demo.story import Scene, Story


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


_UNICODE = _Glyphs("✓", "✗", "·", "█", "▒", "▁▂▃▄▅▆▇█", "─", "k€")
_ASCII = _Glyphs("+", "x", "-", "#", ":", "_.-~=+*#", "-", "kEUR")


class Picture:
    """The story on a console."""

    def __init__(self, story: Story, console: Console) -> None:
        self.story, self.console = story, console
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
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        if scene == "end":
            table.add_column(justify="right", no_wrap=True)
        for _ in ("mark", "agent"):
            table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        for call in self.story.calls:
            if call.scene != scene:
                continue
            style = "bold green" if call.allowed else "bold red"
            tried = Text(call.tried)
            if scene in ("work", "sending") and call.allowed:
                tried.append(f"  {call.why}", "dim")
            else:
                also = (
                    f"; link{'s' * (len(call.also) > 1)} {', '.join(map(str, call.also))} too"
                    if call.also
                    else ""
                )
                tried.append("\n").append(call.code, style).append(f"  {call.why}{also}", "dim")
            time = [Text(f"+{span(call.at)}", "dim")] if scene == "end" else []
            mark = self.glyphs.yes if call.allowed else self.glyphs.no
            table.add_row(*time, Text(mark, style), Text(call.agent, "cyan"), tried)
        return table

    def _spark(self, values: tuple[float, ...]) -> str:
        low, high = min(values), max(values)
        steps = len(self.glyphs.sparks) - 1
        return "".join(
            self.glyphs.sparks[round((value - low) / ((high - low) or 1) * steps)]
            for value in values
        )

    def _report(self) -> RenderableType:
        story, dot = self.story, self.glyphs.dot
        found = f" {dot} ".join(
            f"{topic} by {agent}" for topic, agent in sorted(story.sources.items())
        )
        notes = (
            f"{self.glyphs.late} overdue",
            "at risk: the most that 19 weeks of 20 would cost, judged by the last 13",
            f"found: {found}",
        )
        return Panel(
            Group(self._regions(), Text(), self._filings(), Text(), Text("\n".join(notes), "dim")),
            title=Text("Quarterly risk report, Q3", "bold"), title_align="left", padding=(1, 1), border_style="dim",
            box=box.ROUNDED,
        )  # fmt: skip

    def _regions(self) -> Table:
        story, glyphs, wide = self.story, self.glyphs, self.console.width >= 96
        table = Table(box=None, expand=True, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("region", "exposure"):
            table.add_column(title, no_wrap=True, ratio=1 if title == "exposure" else None)
        for title in (glyphs.money, "overdue"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("13 weeks", no_wrap=True)
        if wide:
            table.add_column("a week", justify="right", no_wrap=True)
        table.add_column("at risk", justify="right", no_wrap=True)
        most, width = (
            max((region.exposure for region in story.regions), default=1),
            26 if wide else 13,
        )
        for region in story.regions:
            late = region.overdue / (region.exposure or 1)
            owed = max(1, round(region.overdue / most * width))
            paid = round(region.exposure / most * width) - owed
            table.add_row(
                region.name,
                Text.assemble((glyphs.full * paid, "cyan"), (glyphs.late * owed, "red")),
                f"{region.exposure:,}",
                Text(f"{late:.0%}", "bold red" if late > 0.1 else ""),
                Text(self._spark(region.moves), "cyan"),
                *([f"{region.volatility:.1f}%"] if wide else []),
                Text(f"{region.at_risk:,}", "bold"),
            )
        exposure, at_risk = (
            sum(getattr(region, key) for region in story.regions) for key in ("exposure", "at_risk")
        )
        table.add_row(
            "all", "", f"{exposure:,}", *[""] * (3 if wide else 2), f"{at_risk:,}", style="bold"
        )
        return table

    def _filings(self) -> Table:
        table = Table(box=None, expand=True, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("flagged filings", "", "", ""):
            table.add_column(title, no_wrap=True)
        table.add_column("", ratio=1)
        table.add_column("rating", no_wrap=True)
        for filing in self.story.filings:
            style = "bold red" if filing.severity > 2 else "yellow"
            mark = Text("!" * filing.severity, style)
            table.add_row(
                filing.issuer,
                filing.form,
                filing.filed,
                mark,
                filing.note,
                Text(filing.rating, "bold"),
            )
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
            label = Text.assemble(
                (used.name, "bold cyan"), (f", {used.basis}", "dim"),
                "  ", (f"{used.allowed} allowed", "green" if used.allowed else "dim"),
                ", ", (f"{used.refused} refused", "red" if used.refused else "dim"),
            )  # fmt: skip
            branches[used.name] = branches[used.parent].add(label)
        rest = f"{story.unknown} refusals of what no signature vouches for. {story.records} records, one chain, signed."
        return Group(tree, Text(), Text(rest, "dim"))

    def _total(self) -> RenderableType:
        story = self.story
        allowed = sum(call.allowed for call in story.calls)
        sizes = [agent.characters for agent in story.agents]
        return Text.assemble(
            (f"{allowed} allowed, {len(story.calls) - allowed} refused. ", "bold"),
            f"1 mint, {len(story.agents) - 1} hand-overs, 0 requests to an issuer, 0 scopes registered; "
            f"tokens of {min(sizes)} to {max(sizes)} characters.",
        )

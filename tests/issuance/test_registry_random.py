"""The registries in memory and in a file, and the model, asked the same at random: they answer the same.

What is asked is drawn small, so that assertions, tasks, sessions and times meet; clocks jump.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from captoken.errors import IssuanceError, StoreError
from captoken.issuance.registry import Ending, Exchange, MemoryRegistry, Seen
from captoken.issuance.registry._rules import DAY
from captoken.issuance.registry.sqlite import SQLiteRegistry
from tests.fixtures import NOW
from tests.issuance.registry_model import RegistryModel
from tests.longer import times

GRANTS = ("risk", "paid", "other")
JUMPS = (0, 0, 0, 1, 5, 30, 61, 700, 3600, DAY, DAY + 700, -1, -30, -3600, -DAY)

numbers = st.integers(0, 3)
companions = st.sampled_from([None, b"a", b"b"])
grants = st.sampled_from(GRANTS)
subjects = st.sampled_from(["acme:jane", "acme:john"])
sessions = st.sampled_from([None, "s1", "s2"])
limits = st.sampled_from([None, None, 1, 3])
some_grants = st.sampled_from([None, ("risk",), ("risk", "paid")])
narrowings = st.sampled_from([{}, {"risk": b"x"}, {"risk": b"x", "paid": b"y"}])


class Pair(RuleBasedStateMachine):
    """The registries, the time, and the tasks that there were."""

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory(ignore_cleanup_errors=True)
        self.model, self.memory = RegistryModel(floor=NOW - DAY), MemoryRegistry(floor=NOW - DAY)
        self.file = SQLiteRegistry.create(Path(self.folder.name) / "registry.db", floor=NOW - DAY)
        self.now, self.many = NOW, 0
        self.due: list[int] = []

    def both(self, call: Any) -> Any:
        answers = []
        for registry in (self.model, self.memory, self.file):
            try:
                answers.append(call(registry))
            except (IssuanceError, StoreError) as error:
                answers.append((type(error), error.code, str(error), getattr(error, "why", "")))
        assert answers[0] == answers[1] == answers[2]
        return answers[0]

    @rule(
        used=st.lists(st.tuples(numbers, companions, st.booleans()), max_size=2),
        new=st.booleans(),
        which=st.integers(0, 6),
        grant=grants,
        within=st.lists(grants, max_size=3),
        counted=st.booleans(),
        subject=subjects,
        session=sessions,
        age=st.integers(-5, 700),
        life=st.sampled_from([1, 100, 3600]),
        limit=st.tuples(limits, limits),
        jump=st.sampled_from(JUMPS),
    )
    def enter(self, used: Any, new: bool, which: int, age: int, life: int, limit: Any, jump: int, within: Any, **facts: Any) -> None:
        self.now += jump
        if new:
            self.many += 1
        at = self.now - age
        asked = Exchange(
            now=self.now,
            task=f"t{self.many if new else max(self.many - which, 0)}",
            within=None if new else tuple(within),
            actor="a",
            provider="acme",
            issued_at=at,
            deadline=self.now + life,
            most_live=limit[0],
            most_per_day=limit[1],
            # What an assertion is good for, it says itself, and the same each time.
            seen=tuple(Seen(bytes([n]), by, NOW + 400 * n, NOW - 100 * n, same) for n, by, same in used),
            **facts,
        )
        self.both(lambda registry: registry.enter(asked))

    @rule(
        session=sessions,
        subject=subjects,
        by_task=st.integers(-3, 6),
        chosen=some_grants,
        instead=narrowings,
        jti=st.sampled_from([None, None, "j1", "j2"]),
        ahead=st.sampled_from([0, 0, 20]),
        jump=st.sampled_from(JUMPS),
    )
    def end(self, session: Any, subject: str, by_task: int, chosen: Any, instead: Any, jti: Any, ahead: int, jump: int) -> None:
        self.now += jump
        asked = Ending(
            now=self.now,
            provider="acme",
            session=session,
            subject=None if session else subject,
            task=f"t{by_task}" if by_task > 0 else None,
            grants=chosen,
            instead={grant: said for grant, said in instead.items() if grant in (chosen or ())},
            jti=jti,
            issued_at=self.now + ahead,
        )
        made = self.both(lambda registry: registry.end(asked))
        self.due += [change.number for change in made]

    @rule(which=st.integers(0, 5))
    def publish(self, which: int) -> None:
        if self.due:
            number = self.due.pop(which % len(self.due))
            self.both(lambda registry: registry.published(number))

    @rule(stream=st.sampled_from(["acme", "signals"]), jti=st.sampled_from(["j1", "j2", "j3"]), jump=st.sampled_from(JUMPS))
    def hear(self, stream: str, jti: str, jump: int) -> None:
        self.now += jump
        self.both(lambda registry: registry.hear(stream, jti, self.now))

    @rule()
    def restart(self) -> None:
        self.file.close()
        self.file = SQLiteRegistry(Path(self.folder.name) / "registry.db")

    @invariant()
    def they_know_the_same(self) -> None:
        if not hasattr(self, "file"):
            return
        due = self.both(lambda registry: registry.unpublished())
        assert [change.number for change in due] == sorted(self.due), "no end is lost, and none is twice"
        for task in range(max(1, self.many - 6), self.many + 1):
            self.both(lambda registry, task=task: registry.is_live(f"t{task}", self.now))
        for stream in ("acme", "signals"):
            self.both(lambda registry, stream=stream: registry.heard_at(stream))

    def teardown(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
            self.folder.cleanup()


TestPair = Pair.TestCase
TestPair.settings = settings(
    derandomize=True,
    max_examples=times(15),
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)

"""Real servers: `Feed`, `Verifier`, tokens and presented texts of the library. Each is compared with its model, call by call."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from captoken import Access, Issuer, Keyring, Token, Verifier
from captoken.control import Feed
from examples.object_storage import BucketSnapshots

from .model import Look, Server, looks, server_of, stale_from
from .network import Way
from .plan import Moment, Plan
from .publishing import KEY, Published, Version

KEYRING = Keyring.from_keys({"k1": bytes(range(2, 34))}, current="k1")
ASK = Access(table="sales", operation="select")
SUSPECT = 0.2  # of the calls are of tasks that were ended last


class Compared(NamedTuple):
    """What real servers did, all of it as their models said."""

    servers: int
    calls: int
    looks: int
    codes: Counter[str]
    let_through: Counter[str]  # calls of tasks that were ended already, by region
    latest: dict[str, float]  # how long after the operator's word the last of them was


def compared(plan: Plan, published: Published) -> Compared:
    """Runs the real ones. Raises AssertionError where one and its model differ."""
    codes: Counter[str] = Counter()
    let_through: Counter[str] = Counter()
    calls = looked = 0
    latest: dict[str, float] = {}
    numbers = [int((number + 0.5) * plan.servers / plan.real) for number in range(plan.real)]
    for number in numbers:
        server = server_of(plan, number)
        one = Real(plan, server, published)
        one.run()
        codes += one.codes
        let_through[server.region] += one.let_through
        calls += one.codes.total()
        looked += one.looks
        latest[server.region] = max(latest.get(server.region, 0.0), one.latest)
    return Compared(len(numbers), calls, looked, codes, let_through, latest)


class Real:
    """One server, and the agents that call it."""

    def __init__(self, plan: Plan, server: Server, published: Published) -> None:
        self._plan, self._server, self._published = plan, server, published
        self._moment = Moment()
        cut = plan.cut if server.region == plan.cut_region else None
        network = plan.drawn("network", server.number)
        self._way = Way(published.bucket, self._moment, server.round_trip, network, cut)
        self._feed = Feed(
            BucketSnapshots(self._way), [KEY.public], every=plan.every, clock=lambda: self._moment() + server.offset
        )
        self.audience = f"server-{server.number}"
        self._verifier = Verifier(
            KEYRING, self.audience, overlay=self._feed, max_staleness=plan.max_staleness, clock=self._moment
        )
        source = plan.drawn("tokens", server.number)
        self._issuer = Issuer(KEYRING, clock=self._moment, random=source.randbytes)
        self._roots: dict[int, Token] = {}
        self._agents = plan.drawn("agents", server.number)
        self._between = plan.drawn("calls", server.number)

        self._asked = {one.task: one.asked for one in published.ended}
        self._seqs = {one.task: one.seq for one in published.ended}

        self.codes: Counter[str] = Counter()
        self.looks = self.let_through = 0
        self.latest = 0.0

    def run(self) -> None:
        """Its calls in their order: the one that looks, and those until the next look is due."""
        plan, versions = self._plan, self._published.versions
        known: Version | None = None
        size = requests = 0
        before: Look | None = None
        for look in looks(plan, self._server, versions, plan.rate, plan.seconds):
            if before is not None:
                self._calls(before, look.begun, known)
            size, requests = size + look.bytes, requests + look.requests
            known = known if look.failed else versions[look.version]
            self._moment.now = look.begun
            self._call(known)
            self.looks += 1

            # The same was asked for, the same came, and it took as long.
            assert (self._way.bytes, self._way.requests) == (size, requests), (self._server, look)
            assert abs(self._moment.now - look.done) < 1e-9, (self._moment.now, look)
            overlay = self._feed()
            assert (overlay and overlay.seq) == (known and known.seq)
            before = look
        if before is not None:
            self._calls(before, plan.seconds, known)

    def _calls(self, look: Look, end: float, known: Version | None) -> None:
        """Calls after one look, before the next one is due."""
        at = look.done + self._between.expovariate(self._plan.rate)
        while at < min(end, look.due):
            self._moment.now = at
            self._call(known)
            at += self._between.expovariate(self._plan.rate)

    def _call(self, known: Version | None) -> None:
        """One call: a token is handed on, presented and verified. The code has to be the one that the model says."""
        at = self._moment.now
        task = self._task(at)
        code = self._verifier.check(self._text(task), ASK).code
        self.codes[code] += 1
        # A call that has looked was judged when the look was done.
        assert code == self._expected(self._moment.now, task, known), (self._server, at, task, code)
        asked = self._asked.get(task, at + 1)
        if code == "allowed" and asked <= at:
            self.let_through += 1
            self.latest = max(self.latest, at - asked)

    def _expected(self, at: float, task: int, known: Version | None) -> str:
        if known is None or at >= stale_from(self._plan, known):
            return "stale_overlay"
        return "revoked" if self._seqs.get(task, known.seq + 1) <= known.seq else "allowed"

    def _task(self, at: float) -> int:
        """Of any agent; now and then of one whose task was ended, or soon will be."""
        ended = [one.task for one in self._published.ended if at - 30 < one.asked < at + 10]
        if ended and self._agents.random() < SUSPECT:
            return self._agents.choice(ended)
        return self._agents.randrange(self._plan.agents) // self._plan.agents_of_a_task

    def _text(self, task: int) -> str:
        """What an agent of that task sends: its own token, narrowed and presented."""
        root = self._roots.get(task)
        if root is None:
            root = self._roots[task] = self._issuer.mint(
                subject="user:jane", agent="orchestrator", task=f"t/{task}",
                tables=["sales", "market.*"], operations=["select"], expires_in=self._plan.seconds + 600,
            )  # fmt: skip
        agent = f"agent-{self._agents.randrange(self._plan.agents_of_a_task)}"
        return root.delegate(to=agent, tables=["sales"]).present(audience=self.audience)

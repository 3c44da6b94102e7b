"""Budgets that are spent in several regions: real ledgers, verifiers and tokens. How long the network takes is modelled.

Four ways, each with the same calls:

    one       one ledger at home, and every region asks it
    each      a ledger in each region, and one token for all: what `shared=True` promises is not so
    parted    a ledger in each region, and a token for each, with its part of the budget
    slices    the same, in small tokens: a region asks home for the next one when the last is spent
"""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any, NamedTuple

from captoken import Access, Issuer, Keyring, Verifier
from captoken.errors import StoreError
from captoken.stores.memory import MemoryLedger

from .plan import Moment, Plan, Region, latency

KEYRING = Keyring.from_keys({"k1": bytes(range(2, 34))}, current="k1")
HOME = "home"
CUT = (0.4, 0.6)  # of all calls: the region of `Plan.cut_region` reaches nobody outside meanwhile


class Spent(NamedTuple):
    """What came of one way."""

    way: str
    spent: int  # cents, by all budgets together
    over: int  # of these, more than the budgets
    stranded: int  # cents that were left of budgets while a call of theirs was refused for want of them
    refused_cut: int  # calls of the region that was cut off, while it was
    calls_cut: int
    round_trips: float  # outside the region, for each call
    wait: float  # seconds, the median of a call's way to where it is counted, outside `HOME`'s region


class Ledger:
    """A real one as a region reaches it: the way takes time, and may be cut."""

    shared = True

    def __init__(self, world: World, region: Region | None) -> None:
        self._ledger = MemoryLedger(shared=True, floor=0)
        self._world = world
        self._region = region  # the one that it stands in; None is home

    def reserve(self, *given: Any) -> Any:
        self._world.go(self._region)
        return self._ledger.reserve(*given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


class World:
    """Who asks now, what that costs, and who is cut off."""

    def __init__(self, plan: Plan, way: str) -> None:
        self.plan = plan
        self.here: Region = plan.regions[0]
        self.is_cut = False
        self.trips = 0
        self.waited = 0.0
        self._network = plan.drawn(f"ledgers/{way}")

    def go(self, there: Region | None) -> None:
        """To a ledger in the same region, or home. Raises StoreError where there is no way."""
        if there is self.here:
            return
        if self.is_cut and self.here.name == self.plan.cut_region:
            raise StoreError("no route home")
        self.trips += 1
        self.waited += latency(self._network, self.here.round_trip)


class Call(NamedTuple):
    region: Region
    budget: int
    cents: int
    is_cut: bool


def calls(plan: Plan) -> list[Call]:
    """Half as much again as there is to spend, most of it where most servers are; each budget has a region that it is spent in most."""
    source, made = plan.drawn("calls of budgets"), []
    regions, parts = plan.regions, [region.part for region in plan.regions]
    homes = [source.choices(regions, parts)[0] for _ in range(plan.budgets)]
    many = int(plan.budgets * plan.budget * 1.5 / 10.5)
    for number in range(many):
        budget = source.randrange(plan.budgets)
        region = homes[budget] if source.random() < 0.5 else source.choices(regions, parts)[0]
        is_cut = CUT[0] <= number / many < CUT[1]
        made.append(Call(region, budget, source.randint(1, 20), is_cut))
    return made


def compared(plan: Plan) -> list[Spent]:
    return [_run(plan, way) for way in ("one", "each", "parted", "slices")]


def _run(plan: Plan, way: str) -> Spent:
    world, moment = World(plan, way), Moment()
    source = plan.drawn(f"budgets/{way}")
    issuer = Issuer(KEYRING, clock=moment, random=source.randbytes)
    home = Ledger(world, None)
    ledgers = {region.name: home if way == "one" else Ledger(world, region) for region in plan.regions}
    verifiers = {
        name: Verifier(KEYRING, name, ledger=ledger, clock=moment, random=source.randbytes)  # type: ignore[arg-type]
        for name, ledger in ledgers.items()
    }
    names = [region.name for region in plan.regions]

    def token(audience: list[str], cents: int, task: str) -> str:
        root = issuer.mint(
            subject="user:jane", agent="buyer", task=task, tools={"pay": {}},
            audience=audience, budget={"cents": cents}, expires_in=3600,
        )  # fmt: skip
        return root.serialize()

    bank = Verifier(KEYRING, HOME, ledger=home, clock=moment, random=source.randbytes)  # type: ignore[arg-type]
    # The texts that a region pays by, the last one first; and those that it asks home by.
    held: dict[tuple[int, str], list[str]] = {}
    wallets = [token([HOME], plan.budget, f"b/{budget}") for budget in range(plan.budgets)]
    for budget in range(plan.budgets):
        task = f"b/{budget}"
        whole = token(names, plan.budget, task)
        for name in names:
            part = token([name], plan.budget // len(names), task)
            held[budget, name] = {"parted": [part], "slices": []}.get(way, [whole])

    dry: set[tuple[int, str]] = set()

    def pay(call: Call) -> str:
        """The code that the region's verifier answers with; by slices, after the next one was asked for."""
        name = call.region.name
        asking = Access(tool="pay", cost={"cents": call.cents})
        code = "budget_exhausted"
        for text in held[call.budget, name][-1:]:
            code = verifiers[name].check(text, asking).code
        if way != "slices" or code != "budget_exhausted" or (call.budget, name) in dry:
            return code
        given = bank.check(wallets[call.budget], Access(tool="pay", cost={"cents": plan.slice})).code
        if given == "budget_exhausted":
            dry.add((call.budget, name))  # it asks no more
        if given != "allowed":
            return given
        held[call.budget, name].append(token([name], plan.slice, f"b/{call.budget}"))
        return verifiers[name].check(held[call.budget, name][-1], asking).code

    spent: Counter[int] = Counter()
    short: set[int] = set()
    refused_cut = calls_cut = 0
    waits = []
    made = calls(plan)
    for call in made:
        world.here, world.is_cut, world.waited = call.region, call.is_cut, 0.0
        code = pay(call)
        if call.region is not plan.regions[0] and not call.is_cut:
            waits.append(world.waited)
        if code == "allowed":
            spent[call.budget] += call.cents
        elif code == "budget_exhausted" and plan.budget - spent[call.budget] >= call.cents:
            short.add(call.budget)
        if call.is_cut and call.region.name == plan.cut_region:
            calls_cut += 1
            refused_cut += code == "store_unavailable"
    return Spent(
        way,
        spent.total(),
        sum(max(0, each - plan.budget) for each in spent.values()),
        sum(max(0, plan.budget - spent[budget]) for budget in short),
        refused_cut,
        calls_cut,
        world.trips / len(made),
        median(waits),
    )

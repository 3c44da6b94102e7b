"""What each part sees, as figures, and as lines that say what is real and what is modelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from . import model, publishing, real, regions
from .plan import Plan
from .publishing import Published

Figures = dict[str, Any]

INTERVALS = (1, 2, 5, 10, 30)
BUSY = 10.0  # calls a second at a server, where intervals are compared
MANY = 100.0  # the same, where looks are counted by the tenth of a second
WINDOW = 240  # seconds that intervals are compared for
DAY = 86_400


def simulated(plan: Plan) -> Figures:
    """All of it. Raises AssertionError where a real server and its model differ."""
    made = publishing.published(plan)
    compared = real.compared(plan, made)
    seen = model.Seen(plan)
    for number in range(plan.servers):
        seen.run(model.server_of(plan, number), made, plan.rate, plan.seconds)
    return {
        "plan": plan._asdict() | {"regions": [region._asdict() for region in plan.regions]},
        "operator": operator(plan, made),
        "servers": servers(plan, seen),
        "bucket": bucket(plan, seen),
        "cut": outage(plan, seen, "cut"),
        "away": outage(plan, seen, "away"),
        "real": compared._asdict() | {"codes": dict(compared.codes), "let_through": dict(compared.let_through)},
        "intervals": [interval(plan, made, every) for every in INTERVALS],
        "bursts": [burst(plan, made, spread) for spread in (False, True)],
        "budgets": [spent._asdict() for spent in regions.compared(plan)],
    }


def spread(values: Sequence[float], digits: int = 2) -> Figures:
    """The median, what 99 of 100 are not above, and the most."""
    if not values:
        return {"median": 0.0, "p99": 0.0, "max": 0.0}
    ordered = sorted(values)
    at = {"median": median(ordered), "p99": ordered[int(len(ordered) * 0.99)], "max": ordered[-1]}
    return {name: round(value, digits) for name, value in at.items()}


def operator(plan: Plan, made: Published) -> Figures:
    newest = made.versions[-1]
    return {
        "ended": len(made.ended),
        "renewals": made.renewals,
        "requests": made.requests,
        "took": spread(made.took, 3),
        "delta": spread(made.deltas, 0),
        "whole": newest.whole,
        "head": spread([version.size for version in made.versions], 0),
        "entries": plan.entries + len(made.ended),
    }


def servers(plan: Plan, seen: model.Seen) -> Figures:
    ages = [age for age, many in sorted(seen.ages.items()) for _ in range(many)]
    steady = seen.bytes - seen.started_bytes
    looking = plan.servers * (plan.seconds - plan.rollout / 2)
    return {
        "delay": spread(seen.delays),
        # An ended task's agents go on calling, at any server, until it knows.
        "calls of a task after its end": round(sum(seen.delays) / len(seen.delays) * plan.agents_of_a_task * plan.calls_of_an_agent, 2),
        "age": spread(ages, 0),
        "looks": seen.looks,
        "bytes a look": round(steady / (seen.looks - seen.failed)),
        "megabytes a day": round(steady / looking * DAY / 1e6, 1),
        "kilobytes at the start": round(seen.started_bytes / plan.servers / 1e3),
    }


def bucket(plan: Plan, seen: model.Seen) -> Figures:
    """While servers start, and after that without what goes wrong."""
    settled = range(int(plan.rollout) + 20, int(plan.cut.begin))
    return {
        "requests": seen.requests,
        "requests a second": round(sum(seen.in_a_second[second] for second in settled) / len(settled)),
        "most in a second": max(seen.in_a_second[second] for second in settled),
        "megabytes a second": round(sum(seen.bytes_in_a_second[second] for second in settled) / len(settled) / 1e6, 2),
        "requests a second at the start": max(seen.in_a_second[second] for second in range(settled.start)),
        "megabytes a second at the start": round(max(seen.bytes_in_a_second[second] for second in range(settled.start)) / 1e6),
        "gigabytes": round(seen.bytes / 1e9, 2),
    }


def outage(plan: Plan, seen: model.Seen, why: str) -> Figures:
    """From when on calls are refused, and until when; how many."""
    span = plan.cut if why == "cut" else plan.away
    begun, back = seen.denying[why], seen.back[why]
    found: Figures = {
        "servers": len(begun),
        "first denies": round(min(begun) - span.begin, 1),
        "last denies": round(max(begun) - span.begin, 1),
        "first is back": round(min(back) - span.end, 1),
        "last is back": round(max(back) - span.end, 1),
        "calls refused": round(seen.denied[why] * plan.rate),
    }
    if why == "cut":
        # What was ended once all is denied anyway is in force at once.
        found |= {"delay": spread([delay for delay in seen.delays_cut if delay > 0]), "looks that failed": seen.failed}
    return found


def interval(plan: Plan, made: Published, every: int) -> Figures:
    """A tenth of the servers, which are called more often, for a while: what an interval costs and brings."""
    # They start in as long as passes between two looks: else all would look at about the same time.
    fewer = plan._replace(servers=max(10, plan.servers // 10), every=every, rollout=float(max(10, every)))
    until = min(plan.cut.begin, plan.rollout + WINDOW)
    seen = model.Seen(fewer)
    for number in range(fewer.servers):
        seen.run(model.server_of(fewer, number), made, BUSY, until)
    settled = range(40, int(until))
    times = plan.servers / fewer.servers / len(settled)
    return {
        "every": every,
        "delay": spread(seen.delays),
        "requests a second": round(sum(seen.in_a_second[second] for second in settled) * times),
        "megabytes a second": round(sum(seen.bytes_in_a_second[second] for second in settled) * times / 1e6, 2),
    }


def burst(plan: Plan, made: Published, spread: bool) -> Figures:
    """All servers, each called a hundred times a second: how many requests there are in one tenth of a second."""
    seen, short, until = model.Seen(plan), plan._replace(rollout=10.0), min(60.0, plan.cut.begin)
    for number in range(plan.servers):
        seen.run(model.server_of(short, number, spread), made, MANY, until)
    tenths = [seen.in_a_tenth[tenth] for tenth in range(300, int(until * 10))]
    return {"spread": spread, "most in a tenth": max(tenths), "mean in a tenth": round(sum(tenths) / len(tenths))}


# --- in words --------------------------------------------------------------------------------------

WAYS = {
    "one": "one ledger, at home",
    "each": "a ledger in each region, one token for all",
    "parted": "a ledger in each region, a token for each",
    "slices": "the same, by slices that home gives",
}


def lines(figures: Figures) -> Iterator[str]:
    """What each part sees. `real` is what the library's objects did; `model` is counted by their rules."""
    plan, seen = figures["plan"], figures["servers"]
    yield f"{plan['servers']:,} servers, {plan['agents']:,} agents, one operator; {plan['seconds']} s, seed {plan['seed']}"
    yield from _operator(figures)
    yield ""
    yield "a server"
    yield f"  model   an ended task is let through for {_spread(seen['delay'])} s more: {seen['calls of a task after its end']} calls of it"
    yield f"  model   the overlay is {_spread(seen['age'], 0)} s old when it comes"
    yield f"  model   {seen['bytes a look']:,} bytes a look, {seen['megabytes a day']} MB a day; {seen['kilobytes at the start']:,} KB at its start"
    yield from _real(figures["real"])
    yield from _bucket(figures)
    yield from _outages(figures)
    yield from _budgets(figures)


def _operator(figures: Figures) -> Iterator[str]:
    said = figures["operator"]
    yield ""
    yield "the operator"
    yield f"  real    {said['ended']} tasks ended, {said['renewals']} renewals; {said['entries']:,} entries stand in the end"
    yield f"  real    a delta has {_spread(said['delta'], 0)} bytes; the whole {said['whole']:,}, the head {_spread(said['head'], 0)}"
    yield f"  model   a change is published after {_spread(said['took'], 3)} s: a read and a write, and a third request for every eighth"


def _real(said: Figures) -> Iterator[str]:
    codes = ", ".join(f"{many:,} {code}" for code, many in sorted(said["codes"].items()))
    yield f"  real    {said['servers']} of them took {said['calls']:,} calls: {codes}"
    yield f"  real    they looked {said['looks']:,} times, and each asked, was sent and decided what its model says"
    latest = ", ".join(f"{region} {late:.1f}" for region, late in sorted(said["latest"].items()))
    yield f"  real    the last call of an ended task that was let through, s after its end: {latest}"


def _bucket(figures: Figures) -> Iterator[str]:
    said = figures["bucket"]
    yield ""
    yield "the bucket"
    yield (
        f"  model   {said['requests a second']:,} requests a second, {said['most in a second']:,} at most;"
        f" {said['megabytes a second']} MB a second"
    )
    yield (
        f"  model   while all servers start in {figures['plan']['rollout']:.0f} s: {said['requests a second at the start']:,}"
        f" requests and {said['megabytes a second at the start']:,} MB a second"
    )
    for one in figures["bursts"]:
        how = "with a clock that is off by a part of a second" if one["spread"] else "with clocks that agree"
        yield f"  model   busy servers {how}: at most {one['most in a tenth']:,} in a tenth of a second, {one['mean in a tenth']:,} on average"
    yield ""
    yield "looks every   an ended task is let through for (median, 99 %, most)   requests a second   MB a second     (model)"
    for one in figures["intervals"]:
        delay = _spread(one["delay"])
        yield f"{one['every']:>9} s   {delay:>50} s   {one['requests a second']:>17,}   {one['megabytes a second']:>11}"


def _outages(figures: Figures) -> Iterator[str]:
    plan = figures["plan"]
    for why, span in (("cut", plan["cut"]), ("away", plan["away"])):
        said = figures[why]
        yield ""
        who = f"region {plan['cut_region']} cannot reach the bucket" if why == "cut" else "the operator publishes nothing"
        yield f"{who} for {span[1] - span[0]:.0f} s"
        yield f"  model   {said['servers']:,} servers deny all, from {said['first denies']} to {said['last denies']} s on"
        yield f"  model   they are back {said['first is back']} to {said['last is back']} s after it; {said['calls refused']:,} calls were refused"
        if why == "cut":
            yield f"  model   what was ended before they did is let through for {_spread(said['delay'])} s"


def _budgets(figures: Figures) -> Iterator[str]:
    plan = figures["plan"]
    yield ""
    yield f"{plan['budgets']} budgets of {plan['budget']:,}, spent in {len(plan['regions'])} regions, with half as much again asked for"
    yield "  (real ledgers, verifiers and tokens; the ways between regions are modelled)"
    for one in figures["budgets"]:
        yield (
            f"  {WAYS[one['way']]:<44} spent {one['spent']:>6,}, too much {one['over']:>6,}, stranded {one['stranded']:>6,};"
            f" {one['round_trips']:.2f} ways home a call, {one['wait'] * 1e3:.0f} ms; cut off: {one['refused_cut']} of {one['calls_cut']} refused"
        )


def _spread(said: Figures, digits: int = 2) -> str:
    return ", ".join(f"{said[name]:,.{digits}f}" for name in ("median", "p99", "max"))

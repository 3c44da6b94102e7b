"""The runner: proves every contestant, times them in turn, prints medians and ratios to captoken.

Rounds are interleaved (A B C A B C …), so that whatever slows the machine for a while slows all of
them; one CPU, no garbage collection while timing, medians over rounds, ratios within a round. It
asserts nothing about time: targets are printed as met or missed, and the exit code does not depend on them.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import ssl
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from pathlib import Path
from statistics import correlation, linear_regression, median, quantiles
from tempfile import TemporaryDirectory
from time import process_time
from timeit import Timer
from typing import Any

from pymacaroons import MACAROON_V2, Macaroon

from captoken import Access, Caller

from .bound import Bound, CaptokenBound, CaptokenLast, CaptokenSeen, prove_bound, sign, verify
from .contestants import (
    FACTS,
    FLOORS,
    HOPS,
    KEY,
    LINK,
    MESSAGE,
    Captoken,
    CaptokenLinks,
    CaptokenTexts,
    Chain,
    Contestant,
    Unproven,
    Work,
    by_digest,
    fold,
    messages,
    prove,
)
from .discharged import Asking, CaptokenAsking, prove_asking
from .peers import PEERS, PymacaroonsAsking, PymacaroonsAskingV1, Tenuo, TenuoOnce
from .record import keep, machine

SAMPLE = 0.01  # seconds that one contestant runs in one round
PARTIES = 16  # as many third parties as a captoken may ask
LINKS = (1, 2, 4, 8, 16, 32)
TOKENS = 32  # distinct ones that each contestant is given, in turn
IMPORTS = 15  # fresh interpreters a module, at least
OBJECTS = 200  # kept alive to weigh one

OURS = Captoken.name
SAME_WIRE = "pymacaroons V2"
BISCUIT = "biscuit-python"
TENUO = Tenuo.name
ONE_MAC = "one hmac.digest of 64 bytes"

Prepare = Callable[[int], Work]  # called before each round with the number of calls that come, not timed


Samples = Mapping[str, Sequence[float]]  # by contestant, one figure a round


@dataclass(frozen=True)
class Row:
    """One figure: the median over rounds, the quartiles round it, and the median of the rounds' ratios to captoken."""

    scenario: str
    contestant: str
    unit: str
    median: float
    low: float
    high: float
    ratio: float


@dataclass(frozen=True)
class Fit:
    """A straight line through the cost at each length of chain."""

    contestant: str
    first: float  # µs for a chain of one link
    per_link: float  # µs
    r_squared: float


@dataclass(frozen=True)
class Run:
    """Who is measured, for how many rounds, and what came of it."""

    contestants: list[Contestant]
    rounds: int
    rows: list[Row] = field(default_factory=list)
    fits: list[Fit] = field(default_factory=list)

    @property
    def captoken(self) -> Captoken:
        return next(each for each in self.contestants if isinstance(each, Captoken))

    @property
    def chains(self) -> list[Chain[Any]]:
        """Those whose holders can narrow."""
        return [each for each in self.contestants if isinstance(each, Chain)]

    def time(self, scenario: str, entries: dict[str, Prepare]) -> None:
        """Time all entries in turn and add a row for each; µs per call."""
        self.add(scenario, "µs", interleave(entries, self.rounds))

    def add(self, scenario: str, unit: str, samples: Samples) -> None:
        """Reduce each contestant's figures to a row.

        Ratios are taken within a round, so that a machine that is slow for a while is slow for both sides of them.
        """
        base = samples[OURS] if OURS in samples else next(iter(samples.values()))
        for name, figures in samples.items():
            low, _, high = quantiles(figures, n=4) if len(figures) > 1 else [*figures] * 3
            ratio = median(figure / ours for figure, ours in zip(figures, base, strict=True))
            self.rows.append(Row(scenario, name, unit, median(figures), low, high, ratio))

    def row(self, scenario: str, contestant: str = OURS) -> Row | None:
        """Look up one row, if it was measured."""
        for row in self.rows:
            if (row.scenario, row.contestant) == (scenario, contestant):
                return row
        return None


def interleave(entries: dict[str, Prepare], rounds: int) -> dict[str, list[float]]:
    """Time all entries in turn, round by round. Returns µs per call, one figure a round."""
    numbers = {name: _number(prepare) for name, prepare in entries.items()}
    samples: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(rounds):
        for name, prepare in entries.items():
            work = prepare(numbers[name])
            gc.collect()
            seconds = Timer(work, timer=process_time).timeit(numbers[name])  # timeit switches the collector off
            samples[name].append(seconds / numbers[name] * 1e6)
    return samples


def _number(prepare: Prepare) -> int:
    """Find how many calls take one sample's time."""
    number, seconds = 1, 0.0
    prepare(1)()
    while seconds < SAMPLE:
        number *= 4
        seconds = Timer(prepare(number), timer=process_time).timeit(number)
    return max(1, round(number * SAMPLE / seconds))


# The scenarios


def authorize(run: Run) -> None:
    """From text to decision: one hop, and ten. Nothing remembered; and captoken with links, and with the text, seen before."""
    remembering = [CaptokenLinks(), CaptokenTexts()]
    one = {each.name: asking(each, several(each.mint)) for each in (*run.contestants, *remembering)}
    ten = {each.name: asking(each, chains(each), HOPS) for each in (*run.chains, *remembering)}
    run.time("authorize, one hop", one | folding(0))
    run.time("authorize, ten hops", ten | folding(HOPS))


def mint(run: Run) -> None:
    """From nothing to the text of a token with five restrictions."""
    run.time("mint", {each.name: always(each.mint) for each in run.contestants} | folding(0))


def attenuate(run: Run) -> None:
    """Narrow by three restrictions: text to text, and object to object."""
    floor = {name: always(partial(mac, KEY, LINK)) for name, mac in FLOORS.items()}
    for label, hops in (("one hop", 0), ("ten hops", HOPS)):
        through: dict[str, Prepare] = {}
        inside: dict[str, Prepare] = {}
        for each in run.chains:
            texts = chains(each, hops)
            through[each.name] = always(in_turn([partial(each.attenuate, text, hops + 1) for text in texts]))
            inside[each.name] = always(in_turn([partial(each.narrow, each.parse(text), hops + 1) for text in texts]))
        run.time(f"attenuate text to text, {label}", through | floor)
        run.time(f"attenuate in memory, {label}", inside | floor)


def grant(run: Run) -> None:
    """One more access on a grant that is already there, against one HMAC."""
    held = run.captoken.verifier.authenticate(run.captoken.mint())
    access = Access(table=FACTS.table, operation=FACTS.operation)
    caller = Caller(agent=FACTS.agent, task=FACTS.task)
    run.time(
        "grant.authorize",
        {
            OURS: always(partial(held.authorize, access)),
            "captoken, with a caller": always(partial(held.authorize, access, caller=caller)),
            "captoken, and building the access": always(
                lambda: held.authorize(Access(table=FACTS.table, operation=FACTS.operation))
            ),
            ONE_MAC: always(partial(by_digest, KEY, MESSAGE)),
        },
    )


def bound(run: Run) -> None:
    """From text and proof to decision, for tokens bound to keys: all lengths and ways within each round."""
    ways: list[tuple[str, Bound[Any, Any], int, int]] = [
        ("bound, one hop", CaptokenBound(), 0, 1),
        ("bound, ten hops, none seen before", CaptokenBound(), HOPS, HOPS + 1),
        ("bound, ten hops, all seen before", CaptokenSeen(), HOPS, 1),
        ("bound, ten hops, the last alone bound", CaptokenLast(), HOPS, 1),
    ]
    peers = [Tenuo(), TenuoOnce()]
    entries: dict[str, Prepare] = {}
    for scenario, ours, count, signatures in ways:
        entries[scenario] = asking(ours, chains(ours, count), count)
        entries[_floor(signatures)] = always(partial(verify, signatures))
        for peer in peers:
            name = f"{peer.name}, {count}"
            if name not in entries:
                entries[name] = asking(peer, chains(peer, count), count)
    samples = interleave(entries, run.rounds)
    for scenario, _, count, signatures in ways:
        named = {OURS: scenario} | {peer.name: f"{peer.name}, {count}" for peer in peers}
        named[_floor(signatures)] = _floor(signatures)
        run.add(scenario, "µs", {name: samples[entry] for name, entry in named.items()})


def _floor(signatures: int) -> str:
    return f"floor: {signatures} × Ed25519 verify, libsodium"


def proofs(run: Run) -> None:
    """What the client does for each request: a proof by its key, made for a token that it has in its hand."""
    floors = {"floor: Ed25519 sign, libsodium": always(sign), _floor(1): always(verify)}
    for label, count in (("one hop", 0), ("ten hops", HOPS)):
        makers: dict[str, Prepare] = {}
        for name, each in ((OURS, CaptokenBound()), (TENUO, Tenuo())):
            text = each.show(each.chain(count))
            makers[name] = always(each.prover(text, each.facts(count)))
        run.time(f"make a proof, {label}", makers | floors)


def parties(run: Run) -> None:
    """From text to decision, nothing cached: one hop, and third parties that were all asked and have answered."""
    asked: list[tuple[str, Asking]] = [
        (OURS, CaptokenAsking()),
        (SAME_WIRE, PymacaroonsAsking()),
        ("pymacaroons V1", PymacaroonsAskingV1()),
    ]
    for count in (1, PARTIES):
        entries: dict[str, Prepare] = {}
        for name, each in asked:
            shown = [each.show(count) for _ in range(TOKENS)]
            entries[name] = always(in_turn([each.serve(texts, FACTS) for texts in shown]))
        run.time(f"third parties: {count}", entries)


def hops(run: Run) -> None:
    """What each further link costs, and whether that grows in a straight line: all lengths within each round."""
    entries: dict[str, Prepare] = {}
    for links in LINKS:
        asked = {each.name: asking(each, chains(each, links - 1), links - 1) for each in run.chains}
        entries |= {f"{links} {name}": prepare for name, prepare in (asked | folding(links - 1)).items()}
    samples = interleave(entries, run.rounds)
    names = [*(each.name for each in run.chains), *FLOORS]
    for links in LINKS:
        run.add(f"authorize, links: {links}", "µs", {name: samples[f"{links} {name}"] for name in names})
    for name in names:
        figures = [median(samples[f"{links} {name}"]) for links in LINKS]
        slope, intercept = linear_regression(LINKS, figures)
        run.fits.append(Fit(name, intercept + slope, slope, correlation(LINKS, figures) ** 2))


def imports(run: Run) -> None:
    """Import in a fresh interpreter, bytecode compiled; the interpreter's own start is not counted.

    Of captoken what checks tokens: by itself `import captoken` loads nothing.
    """
    samples: dict[str, list[float]] = {each.module: [] for each in run.contestants}
    with TemporaryDirectory() as bytecode:
        for module in samples:
            import_time(module, bytecode)
        for _ in range(max(run.rounds, IMPORTS)):
            for module, figures in samples.items():
                figures.append(import_time(module, bytecode))
    run.add("import", "ms", samples)


def sizes(run: Run) -> None:
    """Characters of text: one hop; and ten delegations that each say from, to and a nonce too."""
    run.add("size, one hop", "characters", {each.name: [len(each.mint())] for each in run.contestants})
    ten = {each.name: [len(each.chain(HOPS, recorded=True))] for each in run.chains}
    run.add("size, ten delegations", "characters", ten)


def memory(run: Run) -> None:
    """Bytes of Python memory that one object keeps alive. Rust's is not seen, so the Rust peers are left out."""
    python = [each for each in run.chains if each.module in ("captoken", "pymacaroons")]
    for label, count in (("one hop", 0), ("ten hops", HOPS)):
        parsed = {each.name: [weigh(partial(each.parse, each.chain(count)))] for each in python}
        run.add(f"memory of a parsed token, {label}", "bytes", parsed)
        granting = partial(run.captoken.verifier.authenticate, run.captoken.chain(count))
        run.add(f"memory of a grant, {label}", "bytes", {OURS: [weigh(granting)]})


SCENARIOS: dict[str, Callable[[Run], None]] = {
    "authorize": authorize,
    "mint": mint,
    "attenuate": attenuate,
    "grant": grant,
    "bound": bound,
    "proofs": proofs,
    "parties": parties,
    "hops": hops,
    "import": imports,
    "size": sizes,
    "memory": memory,
}


def always(work: Work) -> Prepare:
    """Prepare nothing: the work is the same in every round."""
    return lambda calls: work


def several(make: Callable[[], str]) -> list[str]:
    """Make as many distinct tokens as each contestant gets: else one that it has just seen would be what is timed."""
    return [make() for _ in range(TOKENS)]


def chains(contestant: Chain[Any], count: int = HOPS) -> list[str]:
    """Make distinct tokens, each handed on so many times."""
    return several(partial(contestant.chain, count))


def in_turn(works: Sequence[Work]) -> Work:
    """Do one after the other, and the first after the last. What that costs itself is the same for all."""
    following = cycle(works).__next__
    return lambda: following()()


def asking(contestant: Contestant, texts: Sequence[str], count: int = 0) -> Prepare:
    """Prepare requests anew for each round: a proof of possession is good for some seconds only, and perhaps once."""
    facts = contestant.facts(count) if isinstance(contestant, Chain) else FACTS

    def prepare(calls: int) -> Work:
        each = -(-calls // len(texts))
        return in_turn([contestant.ask(text, facts, each) for text in texts])

    return prepare


def folding(count: int) -> dict[str, Prepare]:
    """Prepare the floors for a chain of so many delegations."""
    return {name: always(partial(fold, mac, KEY, messages(count))) for name, mac in FLOORS.items()}


def import_time(module: str, bytecode: str) -> float:
    """Import a module in a fresh interpreter that keeps its bytecode in the directory `bytecode`; milliseconds."""
    loads = "from captoken import Access, Keyring, Verifier" if module == OURS else f"import {module}"
    code = f"from time import perf_counter as now; a = now(); {loads}; print((now() - a) * 1e3)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def weigh(make: Work) -> float:
    """Return the bytes that one result of `make` keeps alive, what results share left out."""
    make()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = [make() for _ in range(OBJECTS)]
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / len(kept)


# The targets of README.md


@dataclass(frozen=True)
class Target:
    """A figure that captoken is to reach. `at_least`: more is better."""

    claim: str
    reached: float
    wanted: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.reached >= self.wanted if self.at_least else self.reached <= self.wanted


def targets(run: Run) -> list[Target]:
    """Hold what was measured against the targets. What was not measured is left out."""
    found = []
    ratios = [
        ("authorize, one hop", SAME_WIRE, 3),
        ("authorize, one hop", BISCUIT, 5),
        ("authorize, ten hops", SAME_WIRE, 3),
        ("authorize, ten hops", BISCUIT, 5),
        ("mint", SAME_WIRE, 1),
        ("attenuate text to text, one hop", SAME_WIRE, 1),
        ("attenuate text to text, ten hops", SAME_WIRE, 1),
        ("attenuate in memory, one hop", SAME_WIRE, 1),
        ("attenuate in memory, ten hops", SAME_WIRE, 1),
        ("grant.authorize", ONE_MAC, 0.5),
        ("bound, one hop", TENUO, 1),
        ("bound, ten hops, none seen before", TENUO, 1),
        ("bound, ten hops, all seen before", TENUO, 4),
        ("bound, ten hops, the last alone bound", TENUO, 4),
        ("third parties: 1", SAME_WIRE, 1.8),
        (f"third parties: {PARTIES}", SAME_WIRE, 2),
    ]
    for scenario, peer, wanted in ratios:
        theirs = run.row(scenario, peer)
        if theirs:
            found.append(Target(f"{scenario}: {peer} ÷ captoken ≥ {wanted:g}", theirs.ratio, wanted, True))
    remembered = [
        ("authorize, one hop", SAME_WIRE, 4),
        ("authorize, one hop", BISCUIT, 6.5),
        ("authorize, ten hops", SAME_WIRE, 6.5),
        ("authorize, ten hops", BISCUIT, 11),
    ]
    for scenario, peer, wanted in remembered:
        theirs, seen = run.row(scenario, peer), run.row(scenario, CaptokenLinks.name)
        if theirs and seen:
            claim = f"{scenario}, links seen: {peer} ÷ captoken ≥ {wanted:g}"
            found.append(Target(claim, theirs.median / seen.median, wanted, True))
    theirs = run.row("import", "pymacaroons")
    if theirs:
        found.append(Target("import of what checks tokens: captoken ÷ pymacaroons ≤ 2.5", 1 / theirs.ratio, 2.5, False))
    for scenario, wanted in (("size, one hop", 400), ("size, ten delegations", 2100)):
        ours = run.row(scenario)
        if ours:
            found.append(Target(f"{scenario} ≤ {wanted:,} characters", ours.median, wanted, False))
    for fit in run.fits:
        if fit.contestant == OURS:
            found.append(Target("authorize is linear in links: R² ≥ 0.99", fit.r_squared, 0.99, True))
    return found


# Saying it


def circumstances(contestants: list[Contestant], pinned: bool) -> dict[str, str]:
    """Say what the figures were taken on, without a path or a host name."""
    facts = machine()
    facts["OpenSSL"] = ssl.OPENSSL_VERSION
    facts["pinned to one CPU"] = "yes" if pinned else "no: the system cannot"
    return facts | {each.package: distribution(each.package) for each in contestants}


def distribution(package: str) -> str:
    """Return the version that is installed. Only captoken may be a mere source tree."""
    try:
        return version(package)
    except PackageNotFoundError:
        if package == Captoken.package:
            return "not installed, from the source tree"
        raise


def pin() -> bool:
    """Keep this process and its children on one CPU, where the system knows how."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return True


def table(run: Run) -> str:
    """Set the rows as text: one block a scenario, medians and ratios to captoken."""
    lines = []
    for scenario in dict.fromkeys(row.scenario for row in run.rows):
        rows = [row for row in run.rows if row.scenario == scenario]
        lines += ["", f"{scenario:<44}{rows[0].unit:>12}{'× captoken':>14}{'quartiles':>22}"]
        for row in rows:
            spread = "" if row.low == row.high else f"{row.low:,.2f} – {row.high:,.2f}"
            figure = f"{row.median:,.2f}" if spread else f"{row.median:,.0f}"
            lines.append(f"  {row.contestant:<42}{figure:>12}{row.ratio:>14.2f}{spread:>22}")
    if run.fits:
        lines += ["", f"{'cost of a chain, as a straight line':<44}{'first, µs':>12}{'each, µs':>14}{'R²':>22}"]
        for fit in run.fits:
            lines.append(f"  {fit.contestant:<42}{fit.first:>12.2f}{fit.per_link:>14.2f}{fit.r_squared:>22.4f}")
    return "\n".join(lines)


def check_floors() -> None:
    """Check that both floors compute one thing, and that it is a macaroon's signature."""
    identifier, *caveats = messages(HOPS)
    token = Macaroon(location="", identifier=identifier, key=KEY, version=MACAROON_V2)
    for caveat in caveats:
        token.add_first_party_caveat(caveat)
    for name, mac in FLOORS.items():
        if fold(mac, KEY, messages(HOPS)).hex() != token.signature:
            raise Unproven(f"{name} does not compute a macaroon's signature")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=25, help="interleaved rounds (default: 25)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file too")
    parser.add_argument("--record", action="store_true", help="keep the figures: docs/benchmarks.md is written from them")
    parser.add_argument("--load", type=int, default=0, metavar="N", help="with so many other processes busy: kept beside the other run")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    if options.record and options.only:
        parser.error("--record: keeps a whole run, so not with --only")

    with busy(options.load):
        measure(options)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many other processes beside this one, which do nothing but run."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(options: argparse.Namespace) -> None:
    """Measure what was asked for, and say what came of it."""
    pinned = pin()
    run = Run([Captoken(), *(peer() for peer in PEERS)], options.rounds)
    facts = circumstances(run.contestants, pinned)
    for name, fact in facts.items():
        print(f"{name:<24}{fact}")

    check_floors()
    for contestant in run.contestants:
        prove(contestant)
    for bound_ in (CaptokenBound(), CaptokenSeen(), CaptokenLast(), Tenuo(), TenuoOnce()):
        prove_bound(bound_)
    for asking_ in (CaptokenAsking(), PymacaroonsAsking(), PymacaroonsAskingV1()):
        prove_asking(asking_, PARTIES)
    print("\nAll allow what they should, and refuse each wrong access, the expired token and the forged one.")
    print("Those bound to keys want a fresh proof of this request, those with third parties the discharge of each.")

    for name in options.only or SCENARIOS:
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        SCENARIOS[name](run)
    print(table(run))
    print()
    held = targets(run)
    for target in held:
        print(f"{'met   ' if target.met else 'MISSED'}{target.reached:>12,.2f}   {target.claim}")
    figures = {
        "rounds": run.rounds,
        "rows": [asdict(row) for row in run.rows],
        "fits": [asdict(fit) for fit in run.fits],
        "targets": [asdict(target) | {"met": target.met} for target in held],
    }
    if options.json:
        options.json.write_text(json.dumps({"facts": facts} | figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if options.record:
        keep("peers, under load" if options.load else "peers", facts | {"busy beside it": str(options.load)}, figures)

"""The models of state, in Promela: every order in which the steps of a few parties can come, tried to the end.

A model asks one question at a time: an assertion that a macro turns on. Its faults are macros too. SPIN writes the search
as a C program, which gcc compiles. "secure" is a search that was complete; "attack" is an assertion that failed.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from time import perf_counter

from spec.models.report import Outcome

FOLDER = Path(__file__).parent
DEPTH = 100_000  # steps of the longest run: far more than any has


@dataclass(frozen=True)
class Variant:
    """A macro, and what it does in words."""

    macro: str
    says: str


@dataclass(frozen=True)
class Claim:
    """What a model asserts under a macro, and the faults by which just that assertion fails: at least one."""

    model: str
    asks: Variant
    broken: tuple[Variant, *tuple[Variant, ...]]


def _claim(model: str, asks: str, says: str, **broken: str) -> Claim:
    first, *rest = (Variant(macro, fault) for macro, fault in broken.items())
    return Claim(model, Variant(asks, says), (first, *rest))


CLAIMS = (
    _claim(
        "ledger",
        "LIMIT_HOLDS",
        "children that share a budget spend no more than it, whatever each was promised, and whoever dies",
        CHECK_THEN_DEBIT="what is left is read in one step, and debited in another",
        RUNNING_OUT_GIVES_BACK="a reservation that runs out gives back what its owner may yet spend",
        SETTLES_TWICE="what is settled stays open, so that its rest goes back twice",
        FAILS_OPEN="where the ledger cannot be reached, there is enough",
    ),
    _claim(
        "ledger",
        "COUNT_IS_EXACT",
        "what is counted is what was settled, and all of what was not",
        ONE_BY_ONE="buckets are debited one by one, so that a refusal has debited some",
        AGAIN_DEBITS_AGAIN="a reservation that is asked for again is debited again",
    ),
    _claim(
        "marks",
        "NOTHING_GOES_OUT_AFTER",
        "nothing goes out once what is private and what strangers wrote was read, at whichever server, and whoever dies",
        CHECK_THEN_SET="what is set is read in one step, and a mark is set in another",
        NOT_AS_IF_ITS_OWN_WERE_SET="a step that reads and sends at once is judged as if it only sent",
        SETS_AFTERWARDS="a mark is set once the access is done, so that whoever dies in between sets none",
        FORGETS_WITH_ITS_SERVER="with a server that dies the marks are lost, and the ledger goes on",
        REMEMBERS_WHAT_IS_NOT_SET="a server remembers that nothing was closed, too",
        REMEMBERS_WHAT_IT_WOULD_HAVE_SET="a server remembers as set what a step that was closed had set itself, too",
        FAILS_OPEN="where the ledger cannot be reached, nothing is closed",
    ),
    _claim(
        "marks",
        "ALL_OR_NOTHING",
        "what is denied sets no mark and takes nothing, and what is let through does both, once",
        MARKS_BEFORE_IT_RESERVES="marks are set, though the budget is then short",
        DEBITS_WHAT_IS_CLOSED="what is closed is debited all the same",
    ),
    _claim(
        "slices",
        "LIMIT_HOLDS",
        "processes that spend slices of a budget spend no more than it, whoever dies, and whenever it is settled",
        CHECK_THEN_DEBIT="what is left is read in one step, and a slice of it reserved in another",
        GIVES_BACK_WHAT_IS_OPEN="a slice is given back with what its accesses may yet cost",
        A_CHILD_KEEPS_THEM="a process that is forked goes on with the slices of its parent",
    ),
    _claim(
        "slices",
        "COUNT_IS_EXACT",
        "what the ledger has as spent is what was spent, what the dead had, and what was settled too late",
        GIVES_BACK_WHAT_IS_OPEN="a slice is given back with what its accesses may yet cost",
    ),
    _claim(
        "replay",
        "ONCE",
        "a proof is accepted once, though servers are slow, clocks go back and memories are lost",
        CHECK_THEN_ADD="whether it is known is asked in one step, and it is remembered in another",
        FORGETS_WITHOUT_A_FLOOR="what is forgotten is not refused from then on",
        BEGINS_WITHOUT_A_FLOOR="a store that lost its memory takes what was issued before",
        FAILS_OPEN="where the store is down, the proof is good",
    ),
    _claim(
        "revocation",
        "ENDS_WITHIN_THE_BOUND",
        "a bound after the revocation nothing is allowed, whatever is down and whatever the store hands out",
        FAILS_OPEN="where there is no overlay, nothing stands",
        STALE_IS_GOOD_ENOUGH="an overlay may be of any age",
        GRANT_DOES_NOT_ASK_AGAIN="a grant holds for as long as somebody has it",
        PUBLISHES_BLINDLY="an operator overwrites what another has published meanwhile",
        DATED_WHEN_IT_IS_SIGNED="a snapshot is dated later than what it was built on was read",
        GOES_BY_NUMBERS="a delta is applied to whatever has the number that it names",
        LEAVES_A_GAP="a delta is applied to whatever is known, if its number is greater",
    ),
    _claim(
        "revocation",
        "STAYS_DENIED",
        "a server that has denied a token as revoked does not allow it again while it runs",
        FEED_GOES_BACK="a feed takes an older snapshot",
        PUBLISHES_BLINDLY="an operator overwrites what another has published meanwhile",
    ),
    _claim(
        "revocation",
        "STAYS_DENIED_ON_A_STORE_SET_BACK",
        "nor on a store that is set back, though whoever did not know signs on until the number is greater",
        GOES_BY_THE_NUMBER="a feed takes what has a greater number, of whatever history",
    ),
    _claim(
        "revocation",
        "IS_WHAT_WAS_SIGNED",
        "what a feed makes out of deltas is a snapshot that was signed, whichever it is handed",
        GOES_BY_NUMBERS="a delta is applied to whatever has the number that it names",
        LEAVES_A_GAP="a delta is applied to whatever is known, if its number is greater",
        KEEPS_WHAT_IT_REFUSES="a delta that is refused has changed something",
    ),
    _claim(
        "revocation",
        "GOES_FORWARD",
        "the number of what a feed knows never goes down, by a delta or by what is whole",
        TAKES_ANY_DELTA="a delta is applied to whatever is known",
        FEED_GOES_BACK="a feed takes an older snapshot",
    ),
    _claim(
        "revocation",
        "CATCHES_UP",
        "whoever refuses a delta, and is handed the newest whole, has what is as new",
        WAITS_FOR_ITS_DELTA="where a delta is refused, the whole is not fetched",
    ),
)
# Honest uses that must be possible, and limits that the specification states: assertions that must fail.
REACHED = (
    ("ledger", Variant("ALL_IS_SPENT", "the whole budget is spent, since what was not taken goes to others")),
    ("ledger", Variant("SPENT_BY_THE_DEAD", "whoever dies before settling has spent all that was reserved")),
    ("slices", Variant("ALL_IS_SPENT", "the whole budget is spent by slices")),
    ("slices", Variant("SPENT_BY_THE_DEAD", "whoever dies has spent the slices that it had")),
    ("marks", Variant("ONE_ALONE_CLOSES_NOTHING", "what is private was read, and something goes out")),
    ("marks", Variant("CLOSED_BY_THE_DEAD", "a mark closes, though whoever set it died before it read")),
    ("replay", Variant("ACCEPTED", "a proof is accepted")),
    ("revocation", Variant("WORKS", "a grant is used twice")),
    ("revocation", Variant("LEARNS_BY_A_DELTA", "a feed learns by a delta that the token is revoked")),
    ("revocation", Variant("LASTS_AS_LONG_AS_THE_BOUND", "what is revoked works on until the bound, where the store is down")),
)


@dataclass(frozen=True)
class Question:
    """One search: a model, and the macros that it is compiled with."""

    model: str
    macros: tuple[str, ...]
    says: str
    expected: str

    @property
    def name(self) -> str:
        return "_".join((self.model, *self.macros)).lower()


def questions() -> Iterator[Question]:
    """All that is searched, each claim before its broken variants."""
    for claim in CLAIMS:
        yield Question(claim.model, (claim.asks.macro,), claim.asks.says, "secure")
        for fault in claim.broken:
            yield Question(claim.model, (claim.asks.macro, fault.macro), f"broken: {fault.says}", "attack")
    for model, reached in REACHED:
        yield Question(model, (reached.macro,), f"reached: {reached.says}", "attack")


def run() -> Iterator[Outcome]:
    """Search every one."""
    tools = {tool: which(tool) for tool in ("spin", "gcc")}
    missing = {tool: "missing" for tool, path in tools.items() if path is None}
    for question in questions():
        start = perf_counter()
        said, detail = (missing, "") if missing else _search(question)
        yield Outcome(question.name, question.says, question.expected, said, perf_counter() - start, detail)


def _search(question: Question) -> tuple[dict[str, str], str]:
    """What SPIN says, and what it complains about if that is nothing. Leaves nothing beside the model."""
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            ("spin", "-a", *(f"-D{macro}" for macro in question.macros), str(FOLDER / f"{question.model}.pml")),
            ("gcc", "-w", "-DSAFETY", "-o", "search", "pan.c"),
            ("./search", f"-m{DEPTH}"),
        ):
            try:
                ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
            except subprocess.TimeoutExpired:
                return {"spin": "undecided"}, "out of time"
            if ran.returncode:
                return {"spin": "undecided"}, ran.stdout + ran.stderr
    answer = answer_of(ran.stdout)
    return {"spin": answer}, ran.stdout if answer == "undecided" else ""


def answer_of(printed: str) -> str:
    """`secure` if the whole search found nothing, `attack` if an assertion failed; any other end is `undecided`."""
    errors = re.search(r"errors: (\d+)$", printed, re.MULTILINE)
    if errors is None or "max search depth too small" in printed or "out of memory" in printed:
        return "undecided"
    if errors[1] == "0":
        return "secure" if "Search not completed" not in printed and "Full statespace search" in printed else "undecided"
    return "attack" if re.search(r"^pan:\d+: assertion violated", printed, re.MULTILINE) else "undecided"

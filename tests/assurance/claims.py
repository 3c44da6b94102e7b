"""What the project claims of its security, and what each claim rests on: `claims.toml`, read.

A claim is a sentence that stands in README, SECURITY.md or docs. It has the rules of the specification that say it, in which words, what of
it is proved in `spec/models`, a test, and a mutation: a fault of the code that this test finds. The page is written from
this, and `test_claims.py` and `test_mutations.py` hold it against the project.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from spec.models import chain, coq, custody, discharge, horn, keys, proof, spin
from tests.reading import linked, without_links

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "claims.toml"
PAGE = ROOT / "docs/assurance.md"

# What a claim may be quoted from.
SOURCES = ("README.md", "SECURITY.md", *(f"docs/{page.name}" for page in sorted(ROOT.glob("docs/*.md")) if page != PAGE))


@dataclass(frozen=True)
class Mutation:
    """A fault: in a file of the package, one text that stands there once, and what takes its place."""

    file: str  # below captoken/
    old: str
    new: str

    def applied(self, source: str) -> str:
        """The source with the fault. Raises ValueError where the text does not stand there just once."""
        if source.count(self.old) != 1:
            raise ValueError(f"{self.file} has {source.count(self.old)} times {self.old!r}")
        return source.replace(self.old, self.new)


@dataclass(frozen=True)
class Claim:
    """A claim, and the four things that it rests on."""

    name: str  # its group's letter and its number
    says: str  # in one plain sentence
    page: str  # where it is made
    quote: str  # in what words
    rules: dict[str, str]  # of each, the words that carry the claim
    models: tuple[str, ...]  # none, if nothing of it is proved
    test: str  # a node id of pytest
    mutation: Mutation

    def stands_below(self) -> str | None:
        """The last heading above the quotation in its page; None if the words are not there."""
        heading = ""
        quote = as_read(self.quote)
        for part in re.split(r"^(?=#+ )", (ROOT / self.page).read_text("utf-8"), flags=re.MULTILINE):
            heading = part.partition("\n")[0].lstrip("# ") if part.startswith("#") else ""
            if quote in as_read(part):
                return heading
        return None


@dataclass(frozen=True)
class Group:
    """Claims about one thing."""

    letter: str
    title: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Unproved:
    """What cannot be shown here, and why."""

    says: str
    why: str


@cache
def groups() -> tuple[Group, ...]:
    """All claims, in the order of the page. Raises KeyError or TypeError for a file of another form."""
    return tuple(_group(stated) for stated in _stated()["group"])


def claims() -> tuple[Claim, ...]:
    """All claims, without their groups."""
    return tuple(claim for group in groups() for claim in group.claims)


def unproved() -> tuple[Unproved, ...]:
    """What could not be proved."""
    return tuple(Unproved(**stated) for stated in _stated()["unproved"])


def _stated() -> dict[str, Any]:
    return tomllib.loads(DATA.read_text("utf-8"))


def _group(stated: dict[str, Any]) -> Group:
    letter = stated["letter"]
    found = tuple(_claim(f"{letter}{number}", one) for number, one in enumerate(stated["claim"], 1))
    return Group(letter, stated["title"], found)


def _claim(name: str, stated: dict[str, Any]) -> Claim:
    return Claim(
        name=name,
        says=stated["says"],
        page=stated["page"],
        quote=stated["quote"],
        rules=dict(stated["rules"]),
        models=tuple(stated["models"]),
        test=stated["test"],
        mutation=Mutation(stated["file"], stated["old"], stated["new"]),
    )


# --- what there is to cite ------------------------------------------------------------------------


def as_words(text: str) -> str:
    """The words of a page, as they stand on whatever lines."""
    return " ".join(text.split())


def as_read(text: str) -> str:
    """The words of a page as a reader sees them: a link is its text."""
    return as_words(without_links(text))


def rules_of(specification: str) -> dict[str, str]:
    """The words of each rule by its number, without what stands behind a bar: that binds nobody."""
    binding = re.sub(r"^ *>.*\n", "", specification, flags=re.MULTILINE)
    found = re.findall(r"^- \*\*(\d+\.\d+)\*\*(.*?)(?=^- \*\*\d|^#|^<!--|\Z)", binding, re.MULTILINE | re.DOTALL)
    return {number: as_words(text) for number, text in found}


def models_there_are() -> set[str]:
    """What `python -m spec.models` proves, by file and name: theorems, cases, and assertions of searches."""
    found = {f"{theorem.file}.v {theorem.name}" for theorem in coq.theorems()}
    for module in (chain, custody, discharge, keys, proof):
        file = f"{module.__name__.rpartition('.')[2]}.py"
        cases = [case for name, value in vars(module).items() if name.isupper() for case in _cases(value)]
        found |= {f"{file} {case.name}" for case in cases}
    found |= {f"{claim.model}.pml {claim.asks.macro}" for claim in spin.CLAIMS}
    found |= {f"{model}.pml {variant.macro}" for model, variant in spin.REACHED}
    return found


def _cases(value: object) -> Iterable[Any]:
    known = [case for family in horn.FAMILIES.values() for case in family]
    return [one for one in value if one in known] if isinstance(value, tuple) else []


# --- the page -------------------------------------------------------------------------------------

TOP = """\
# Claims and what they rest on

Each claim of this project's security is listed here with four things.

- **Rules**: the numbers of the [specification](../spec/captoken-v1.md) that say it.
- **Proved**: the theorem or model that covers it, in `spec/models`. Most claims are about code, and have none.
- **Test**: one test that shows it. Others may show more.
- **Mutation**: one fault in the code. With it, that very test fails.

The tests are in the repository. `pytest tests/assurance` checks that all four exist. `pytest -m mutation tests/assurance` makes each
fault in a copy of the package, and runs the test of its claim: it has to fail. [What was run](evidence.md) has the day, the commit and
the versions of the last time (`claims`). If that is too long ago, the site shows this page in grey. The page is written from
`tests/assurance/claims.toml` by `python -m tests.assurance`.

A test shows that some cases come out right. A mutation shows that the test looks. A theorem is about a model, and not about
the code. None of them shows that there is no other fault.
"""

END = """\
## What could not be proved

No test and no model shows what follows. Each is said by the page that makes the promise, or listed as one that is not made.
"""


def page() -> str:
    """docs/assurance.md."""
    parts = [TOP, *_counted(), *(_of(group) for group in groups()), END]
    parts += [f"- **{one.says}** {one.why}" for one in unproved()]
    return linked("\n".join(parts) + "\n", "docs/assurance.md")


def _counted() -> Iterator[str]:
    every = claims()
    proved = sum(bool(claim.models) for claim in every)
    yield f"There are {len(every)} claims. For {proved} of them something is proved."
    yield ""


def _of(group: Group) -> str:
    rows = ["| | claim | rules | proved | test | mutation |", "| --- | --- | --- | --- | --- | --- |"]
    rows += [_row(claim) for claim in group.claims]
    return f"## {group.title}\n\n" + "\n".join(rows) + "\n"


def _row(claim: Claim) -> str:
    link = f"../{claim.page}" if "/" not in claim.page else claim.page.removeprefix("docs/")
    link += f"#{_anchor(claim.stands_below() or '')}"
    file, _, test = claim.test.rpartition("::")
    columns = (
        claim.name,
        f"{claim.says} ([{claim.page.removeprefix('docs/')}]({link}))",
        ", ".join(claim.rules),
        "; ".join(f"`{model}`" for model in claim.models) or "none",
        f"`{file.removeprefix('tests/')}` {_code(test)}",
        f"`{claim.mutation.file}`: {_code(claim.mutation.old)} becomes {_code(claim.mutation.new)}",
    )
    return f"| {' | '.join(columns)} |"


def _anchor(heading: str) -> str:
    """The address of a heading, as forges make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _code(text: str) -> str:
    """A text of the code in a cell of a table: on one line."""
    shown = as_words(text).replace("|", "\\|")
    return f"`{shown}`" if shown else "nothing"

"""How hard the pages are to read, and which words of the glossary a page does not link.

`python -m tests.reading` prints a line for each page, and then for each public module. Pages are
named after it to see those alone, with their longest sentences. With `--link` before them, it links
the words of the glossary in them, where each first stands: read what it wrote.

The rules for pages and for docstrings of public names:

- A sentence has at most 16 words on average, over a page or over a module, and never more than 35.
- Counted is prose: paragraphs and items of lists. Headings, tables, code and comments are not.
- A span of code is one word, and a link is its text.

The rule for the words of `docs/glossary.md` stands at the top of that page. `FORMS` says what
counts as such a word, and `OTHERWISE` where the same letters mean another thing.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
GLOSSARY = ROOT / "docs/glossary.md"
# By their path from the root of the repository.
PAGES = [
    *(f"docs/{page.name}" for page in sorted(ROOT.glob("docs/*.md")) if page != GLOSSARY),
    *("README.md", "SECURITY.md", "CONTRIBUTING.md", "spec/README.md", "examples/README.md"),
]

MEAN, LONGEST = 16, 35
SHORTEST = 3  # words; what is shorter is a label

# The forms of each word of the glossary, by its anchor; case does not count.
FORMS = {
    "access": r"access(es)?",
    "approver-key": r"approver keys?",
    "assertion": r"assertions?",
    "attenuate": r"attenuat(e|es|ed|ing|ion)|narrow(s|ed|ing)?|widen(s|ed|ing)?",
    "audience": r"audiences?",
    "basis": r"basis|bases|vouched|proven",
    "bearer-token": r"bearer tokens?",
    "binding": r"binding|bound tokens?|(?:be|is|are|was|were) bound|bound (?:to|by) (?:\w+ )?keys?",
    "budget": r"budgets?",
    "caveat": r"caveats?",
    "chain": r"chains?|lineage",
    "checkpoint": r"checkpoints?",
    "constraint": r"constraints?",
    "delegate": r"delegat(e|es|ed|ing|ions?)|hand(s|ed|ing)? (?:on|over)|hand-overs?",
    "discharge": r"discharge[sd]?|dischargers?",
    "grant": r"(?<!not\s)(?<!to\s)grants?",
    "guard": r"guard(s|ed|ing)?",
    "holder": r"holders?",
    "issuance": r"issuance",
    "issuer": r"issuers?",
    "keyring": r"keyrings?",
    "lease": r"lease[sd]?",
    "ledger": r"ledgers?",
    "link": r"(?<!symbolic\s)links?",
    "link-id": r"(?:link|token) ids?",
    "macaroon": r"macaroons?",
    "mark": r"marks?",
    "mint": r"mint(s|ed|ing)?|root tokens?",
    "office": r"offices?",
    "operator": r"operators?",
    "overlay": r"overlays?",
    "pairwise-key": r"pairwise( keys?)?",
    "pattern": r"patterns?",
    "present": r"presents|presented|presenting",
    "proof": r"proofs?( of possession)?|replay(s|ed|ing)?( stores?)?",
    "registry": r"registr(y|ies)",
    "reservation": r"reservations?|reserve[sd]?|settle[sd]?",
    "revoke": r"revo(ke|kes|ked|king|cations?)",
    "root-key": r"root keys?",
    "root-record": r"root records?",
    "snapshot": r"(?<!RDB\s)snapshots?|deltas?|(?<!line\s)feeds?",
    "store": r"stores?",
    "task": r"tasks?",
    "third-party-caveat": r"third[- ]part(y|ies)( caveats?)?|tickets?",
    "token": r"tokens?|capabilit(y|ies)",
    "trail": r"(audit )?trails?|hops?",
    "verifier": r"verifiers?",
    "vocabulary": r"vocabular(y|ies)",
    "workload": r"workloads?",
}

# Pages on which the word means another thing than here, each with that thing.
OTHERWISE = {
    ("CONTRIBUTING.md", "mark"): "a mark in a text",
    ("CONTRIBUTING.md", "registry"): "a registry of packages",
    ("docs/agents-langchain.md", "checkpoint"): "a checkpoint of LangGraph",
    ("docs/assurance.md", "proof"): "a proof of mathematics",
    ("docs/console.md", "mark"): "what the console marks",
    ("docs/inspector.md", "mark"): "what one marks in a text",
    ("docs/issuance-certificates.md", "revoke"): "a certificate that its authority revoked",
    ("docs/issuance-certificates.md", "store"): "the machine's store of certificates",
    ("docs/postgres.md", "constraint"): "a constraint of a table",
    ("docs/postgres.md", "operator"): "an operator of SQL",
    ("docs/postgres.md", "revoke"): "the statement of SQL",
    ("docs/postgres.md", "snapshot"): "a snapshot of a transaction",
    ("docs/row-budgets.md", "constraint"): "a constraint of a table",
    ("docs/sqlite.md", "constraint"): "a constraint of a table",
}


# --- sentences ------------------------------------------------------------------------------------


def blocks(markdown: str) -> list[str]:
    """The prose of a page: each paragraph, and each item of a list, on one line."""
    shown = re.sub(r"```.*?```|<!--.*?-->", " ", markdown, flags=re.DOTALL)
    found: list[str] = []
    lines: list[str] = []

    for line in [*shown.splitlines(), ""]:
        bare = line.strip()
        ends = not bare or bare.startswith(("|", "#", "<")) or line.startswith("    ")
        item = re.match(r"([-*]|\d+\.) ", bare)
        if (ends or item) and lines:
            found.append(" ".join(lines))
            lines = []
        if not ends:
            lines.append(bare[item.end() :] if item else bare)
    return found


def sentences(block: str) -> list[str]:
    """The sentences of one paragraph, in which a link is its text and code is one word."""
    plain = re.sub(r"`[^`]*`", "CODE", without_links(block))
    parts = re.split(r"(?<=[.!?])[\"')*]*\s+(?=[A-Z*\"(`])", plain)
    return [part for part in parts if len(part.split()) >= SHORTEST]


class Reading(NamedTuple):
    """What was counted of one page, or of one module."""

    name: str
    sentences: list[str]

    @property
    def words(self) -> int:
        return sum(len(sentence.split()) for sentence in self.sentences)

    @property
    def mean(self) -> float:
        return self.words / len(self.sentences) if self.sentences else 0.0

    @property
    def long(self) -> list[str]:
        return [sentence for sentence in self.sentences if len(sentence.split()) > LONGEST]

    def problems(self) -> list[str]:
        found = [f"{len(one.split())} words: {one}" for one in self.long]
        if self.mean > MEAN:
            found.append(f"{self.mean:.2f} words a sentence, and at most {MEAN} are meant")
        return found


def reading(name: str, texts: Iterable[str]) -> Reading:
    """Of a page: its text. Of a module: its docstrings."""
    paragraphs = [block for text in texts for block in blocks(text)]
    return Reading(name, [sentence for block in paragraphs for sentence in sentences(block)])


# --- the words of the glossary --------------------------------------------------------------------


class Entry(NamedTuple):
    """A word of the glossary."""

    slug: str
    heading: str
    own: str  # the page that explains it, and so links nothing; the specification explains none
    pages: frozenset[str]  # where a link to it may lead, beside the glossary


def slug_of(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def glossary() -> dict[str, Entry]:
    """Each word by its anchor, in the order of the page."""
    _, *parts = re.split(r"^## ", GLOSSARY.read_text("utf-8"), flags=re.MULTILINE)
    found = {}
    for part in parts:
        heading, text = part.split("\n", 1)
        linked = [page for page, _ in _links(text, "docs")]
        pages = [page for page in linked if page != "spec/captoken-v1.md"]
        slug = slug_of(heading)
        found[slug] = Entry(slug, heading, pages[0] if pages else "", frozenset(pages))
    return found


def plain_words() -> set[str]:
    """The words that pages need not link, as the top of the glossary lists them."""
    top = GLOSSARY.read_text("utf-8").split("\n## ")[0]
    return set(re.findall(r"\]\(#([\w-]+)\)", top))


def _links(markdown: str, folder: str) -> Iterator[tuple[str, str]]:
    """The file, from the root of the repository, and the anchor of each link to a file."""
    for target in re.findall(r"\]\(([^)#\s][^)\s]*)\)", markdown):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            yield _from_root(PurePosixPath(folder) / file), anchor


def _from_root(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


# Longer words first: in "link id" there is no "link". A line may end in the middle of a word.
_WORDS = [
    (slug, re.compile(rf"(?<![\w-])(?:{forms.replace(' ', ' +')})(?![\w-])", re.IGNORECASE))
    for slug, forms in sorted(FORMS.items(), key=lambda item: (-item[0].count("-"), item[0]))
]


class Use(NamedTuple):
    """A word of the glossary in the prose of a page."""

    at: int
    slug: str
    text: str
    link: str | None  # the file and anchor of the link that it stands in, if it stands in one


def prose(markdown: str) -> str:
    """The page with all but its prose blanked, so that each character keeps its place."""

    def blank(found: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", found[0])

    shown = re.sub(r"```.*?```|<!--.*?-->", blank, markdown, flags=re.DOTALL)
    shown = re.sub(r"^(?: {4}|\s*[|#<]).*$", blank, shown, flags=re.MULTILINE)
    return re.sub(r"`(?:[^`\n]|\n(?!\s*\n))*`", blank, shown).replace("\n", " ")


def uses(markdown: str, folder: str) -> list[Use]:
    """Each use of a word, in the order of the text."""
    text = prose(markdown)
    spans: list[tuple[int, int, str]] = []
    for link in re.finditer(r"\[([^\]]*)\]\(([^)]*)\)", text):
        file, anchor = next(_links(link[0], folder), ("", ""))
        spans.append((link.start(), link.end(1), f"{file}#{anchor}"))
        # A word in an address is no prose.
        text = text[: link.end(1)] + " " * (link.end() - link.end(1)) + text[link.end() :]

    found: list[Use] = []
    for slug, form in _WORDS:
        for word in form.finditer(text):
            place = next((to for start, end, to in spans if start <= word.start() < end), None)
            found.append(Use(word.start(), slug, word[0], place))
            # Nothing shorter is looked for in it again.
            text = text[: word.start()] + "_" * len(word[0]) + text[word.end() :]
    return sorted(found)


def to_link(text: str, name: str) -> list[Use]:
    """The first use of each word on a page, where that is not linked as the glossary says."""
    entries, seen = glossary(), plain_words()
    found: list[Use] = []

    for use in uses(text, _folder(name)):
        entry = entries[use.slug]
        if use.slug in seen or entry.own == name or (name, use.slug) in OTHERWISE:
            continue
        file, _, anchor = (use.link or "").partition("#")
        good = (file == "docs/glossary.md" and anchor == use.slug) or file in entry.pages
        # A link to somewhere else is about that, and not about the word.
        if use.link is None or good:
            seen.add(use.slug)
        if use.link is None:
            found.append(use)
    return found


def unlinked(text: str, name: str) -> list[str]:
    """What a page has against the rule of the glossary, a line each."""
    uses_to_link = to_link(text, name)
    found = [f"{use.text!r} first stands without a link to {use.slug}" for use in uses_to_link]
    links = _links(text, _folder(name))
    linked = [anchor for file, anchor in links if file == "docs/glossary.md" and anchor]
    twice = sorted({anchor for anchor in linked if linked.count(anchor) > 1})
    return found + [f"{anchor} is linked to the glossary more than once" for anchor in twice]


def linked(text: str, name: str) -> str:
    """The page with its words linked to the glossary. What already is a link stays as it is."""
    way = {"docs": "", "": "docs/"}.get(_folder(name), "../docs/")
    for use in reversed(to_link(text, name)):
        end = use.at + len(use.text)
        said = f"[{text[use.at : end]}]({way}glossary.md#{use.slug})"
        text = text[: use.at] + said + text[end:]
    return text


def without_links(text: str) -> str:
    """A text with each link as its words alone."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


# --- docstrings -----------------------------------------------------------------------------------


def public_modules() -> dict[str, Path]:
    """What users import: no part of its name begins with an underscore. The commands have help."""
    found = {}
    for path in sorted((ROOT / "captoken").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        named = parts[:-1] if parts[-1] == "__init__" else parts
        if "cli" not in named and not any(part.startswith("_") for part in named):
            found[".".join(named)] = path
    return found


def docstrings(module: str, path: Path) -> list[str]:
    """Of a public module: its own, and those of its public names and their methods."""
    tree = ast.parse(path.read_text("utf-8"))
    found = [ast.get_docstring(tree)]
    here = {node.name: node for node in tree.body if isinstance(node, _DEFINED)}
    exported = _exported(tree)
    for name, node in here.items():
        if name in exported if exported else not name.startswith("_"):
            found += _of(node)
    for name in sorted(exported - here.keys()):
        elsewhere = _definition(tree, name)
        if elsewhere is not None:
            found += _of(elsewhere)
    return [text for text in found if text]


_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _exported(tree: ast.Module) -> set[str]:
    """The names of `__all__`, if there is one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def _definition(tree: ast.Module, name: str) -> Defined | None:
    """Where a name that a module hands on is defined, if that is a class or a function of ours."""
    for node in tree.body:
        if isinstance(node, _DEFINED) and node.name == name:
            return node
    for found in ast.walk(tree):
        if isinstance(found, ast.ImportFrom) and (found.module or "").startswith("captoken"):
            for alias in found.names:
                if (alias.asname or alias.name) == name:
                    return _definition(_module(str(found.module)), alias.name)
    return None


def _module(name: str) -> ast.Module:
    path = ROOT / name.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text("utf-8"))


def _of(node: Defined) -> list[str]:
    """The docstring of a class or function, and of the public methods of a class."""
    found = [ast.get_docstring(node) or ""]
    if isinstance(node, ast.ClassDef):
        for inner in node.body:
            if isinstance(inner, _DEFINED) and not inner.name.startswith("_"):
                found += _of(inner)
    return [inspect.cleandoc(text) for text in found]


def reading_of_module(module: str) -> Reading:
    return reading(module, docstrings(module, public_modules()[module]))


# --- the command ----------------------------------------------------------------------------------


def main(arguments: list[str]) -> None:
    names = [name for name in arguments if name != "--link"]
    for name in names if "--link" in arguments else []:
        page = ROOT / name
        page.write_text(linked(page.read_text("utf-8"), name), "utf-8")

    for name in names or PAGES:
        text = (ROOT / name).read_text("utf-8")
        found, missing = reading(name, [text]), unlinked(text, name)
        print(f"{_line(found)}, {len(found.sentences)} sentences, words to link: {len(missing)}")
        if names:
            longest = sorted(found.sentences, key=lambda one: -len(one.split()))[:8]
            for line in [*(f"{len(one.split())}: {one}" for one in longest), *missing]:
                print(f"    {line}")

    for module in [] if names else public_modules():
        print(_line(reading_of_module(module)))


def _line(found: Reading) -> str:
    return f"{found.name}: {found.words} words, mean {found.mean:.1f}, over {LONGEST}: {len(found.long)}"


if __name__ == "__main__":
    main(sys.argv[1:])

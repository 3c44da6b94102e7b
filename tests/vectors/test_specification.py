"""The text of the specification and the code say the same where both can be read by a program."""

import re
from pathlib import Path

import pytest

from captoken._format.clocks import PROOF_AHEAD, PROOF_PAST
from captoken._format.encoding import LIMITS, MAX_DEPTH
from captoken._format.text import PROOF_CHARS
from captoken._language import work
from captoken._language.reasons import PLAN
from captoken.errors import CODES
from captoken.keys import HolderKey
from captoken.proof import with_proof
from spec.generate import build
from spec.generate.anatomy import BEGIN, SPECIFICATION
from spec.generate.binding import LOW_ORDER, point
from spec.generate.table import SECTIONS
from tests.vectors import runner

TEXT = SPECIFICATION.read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
RULES = re.findall(r"^- \*\*(\d+\.\d+)\*\* ", TEXT, re.MULTILINE)
SOURCES = sorted((Path(__file__).parent.parent.parent / "captoken").rglob("*.py"))
CITATION = re.compile(r'\bspec,\s+(?:section\s+)?("[^"]+"(?:(?:,|\s+and)\s+"[^"]+")*)')


def citations(source):
    """The sections that a file cites."""
    return {" ".join(name.split()) for cited in CITATION.findall(source) for name in re.findall(r'"([^"]+)"', cited)}


def section(name):
    """The text of one section."""
    return TEXT.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def rows(name, first):
    """The rows of the table of a section whose heading row begins with `first`, as cells without back-ticks."""
    table = section(name).partition(f"| {first} |")[2].partition("\n\n")[0]
    return [tuple(cell.strip().replace("`", "") for cell in line.strip("| ").split("|")) for line in table.splitlines()[2:]]


def test_it_opens_with_a_token_before_any_prose():
    assert TEXT.startswith(f"# captoken, version 1\n\n{BEGIN}```\ncap1_")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_section_that_the_code_cites_exists(path):
    assert citations(path.read_text(encoding="utf-8")) <= set(HEADINGS)


def test_citations_are_found_in_every_form_that_the_code_uses():
    assert citations('(spec, "Wire"). Spec: spec, section "Chain". (spec, "Caveats",\n"Widening" and "Link\n    ids")') == {
        "Wire", "Chain", "Caveats", "Widening", "Link ids",
    }  # fmt: skip
    assert set().union(*(citations(path.read_text(encoding="utf-8")) for path in SOURCES)) >= {"Wire", "Chain", "Widening"}


def test_headings_are_those_that_rules_are_numbered_by():
    assert tuple(HEADINGS) == SECTIONS
    contents = " · ".join(f"{number} {name}" for number, name in enumerate(SECTIONS, 1))
    assert contents in " ".join(TEXT.split())


def test_rules_are_numbered_in_their_sections_without_a_gap():
    for number, name in enumerate(SECTIONS, 1):
        found = re.findall(r"^- \*\*([\d.]+)\*\* ", section(name), re.MULTILINE)
        assert found == [f"{number}.{rule}" for rule in range(1, len(found) + 1)]
        assert found, name


def test_every_rule_that_the_text_refers_to_exists():
    prose = re.sub(r"<!-- begin.*?<!-- end -->", "", TEXT, flags=re.DOTALL)
    cited = re.findall(r"(?<![\d.`])(\d{1,2}\.\d{1,2})(?![\d.`])", prose)
    assert set(cited) - {"14.0", "1.0"} <= set(RULES)


def test_every_rule_that_a_vector_cites_stands_in_the_section_that_it_cites():
    sections = {rule: SECTIONS[int(rule.partition(".")[0]) - 1] for rule in RULES}
    assert [vector["name"] for vector in runner.vectors() if sections.get(vector["rule"]) != vector["section"]] == []


def test_every_rule_is_cited_by_a_vector_or_says_why_none_can_be():
    marks = dict(re.findall(r"^- \*\*(\d+\.\d+)\*\* \[(\w+)\] ", TEXT, re.MULTILINE))
    assert set(marks.values()) == {"meaning", "running", "transport"}
    cited = {vector["rule"] for vector in runner.vectors()}
    assert [rule for rule in RULES if (rule in cited) == (rule in marks)] == [], "one of the two, and not both"


def test_codes_steps_and_kinds_are_those_of_the_code():
    assert {code: (int(step), kind, when) for code, step, kind, when in rows("Verification", "code")} == {
        code: (known.step, known.kind, known.when.replace("`", "")) for code, known in CODES.items()
    }


def test_the_plan_is_that_of_the_code():
    plan = rows("Verification", "step")
    assert tuple(name for _, name, _ in plan) == PLAN
    assert [int(number) for number, _, _ in plan] == list(range(1, len(PLAN) + 1))


def test_procedures_deny_with_codes_and_at_their_steps():
    """Of the pseudocode, each step by its number at the start of a line; `with its code` is what a caveat says."""
    step, denied = 0, set()
    for line in section("Procedures").splitlines():
        step = int(found[1]) if (found := re.match(r" {2}(\d+) ", line)) else step
        for codes in re.findall(r"deny ([a-z_]+(?:(?:,| or) [a-z_]+_[a-z_]+)*)", line):
            denied |= {(code, step) for code in re.findall("[a-z_]+", codes) if code not in ("or", "with")}
    assert {code for code, _ in denied} <= CODES.keys()
    several = {"malformed": {1, 2, 3}, "store_unavailable": {7, 11}, "stale_overlay": {7, 8}, "too_much_work": {7, 8}}
    assert [(code, at) for code, at in denied if at not in several.get(code, {CODES[code].step})] == []
    by_caveats = {"table", "operation", "column", "row", "tool", "argument", "attribute", "cost_unstated"}
    assert CODES.keys() - {code for code, _ in denied} == by_caveats


def test_the_codes_that_may_be_told_a_stranger_are_one_message():
    said = re.search(r"\*\*24\.14\*\*(.*?)one message", section("Verification"), re.DOTALL)
    assert said
    assert len({CODES[code].public for code in re.findall(r"`(\w+)`", said[1])}) == 1


def test_limits_are_those_of_the_code():
    stated = {what: int(most.split()[0]) for what, most, *_ in rows("Limits", "what")}
    assert stated["text of a token"] == LIMITS.token_chars
    assert stated["links of a token"] == LIMITS.links
    assert stated["root record"] == LIMITS.root_bytes
    assert stated["any one field"] == LIMITS.field_bytes
    assert stated["text that present writes"] == LIMITS.present_chars
    assert stated["nesting"] == MAX_DEPTH
    assert stated["discharges of a token"] == LIMITS.discharges
    assert stated["identifier of a discharge"] == LIMITS.ticket_bytes
    assert stated["work of a decision"] == work.MOST
    assert stated["text of a token with all that follows it"] == LIMITS.bundle_chars
    key, text = HolderKey.from_bytes(build.secret("orchestrator")), build.token({"nbf": 0}).text
    assert stated["text of a proof"] == PROOF_CHARS == len(with_proof(text, key, audience="sales-db", clock=lambda: build.NOW)) - len(text) - 1


def test_labels_are_those_of_the_code():
    said = re.search(r"\*\*5\.2\*\*(.*)", section("Labels"), re.DOTALL)
    assert said
    used = {name for path in SOURCES for name in re.findall(r'\blabel\("([^"]+)"\)', path.read_text(encoding="utf-8"))}
    assert set(re.findall(r"`([^`]+)`", said[1])) == used


def test_points_of_low_order_and_the_window_are_those_of_the_code():
    shown = set(re.findall(r"^  ([0-9a-f]{64})$", section("Holder binding"), re.MULTILINE))
    assert shown == {build.unb64(point(y)).hex() for name, y in LOW_ORDER.items() if name.startswith("8")}
    assert f"now − {PROOF_PAST} ≤ iat ≤ now + {PROOF_AHEAD}" in section("Proof of possession")
    assert f"its start + {PROOF_AHEAD}" in " ".join(section("Replay").split())

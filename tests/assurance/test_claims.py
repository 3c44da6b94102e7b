"""Each claim of docs/assurance.md has what it says that it has. Whether its mutation is killed, `test_mutations.py` asks."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys

import pytest

from tests.assurance.claims import (
    PAGE,
    ROOT,
    SOURCES,
    Claim,
    as_read,
    claims,
    groups,
    models_there_are,
    page,
    rules_of,
    unproved,
)

CLAIMS = claims()
RULES = rules_of((ROOT / "spec/captoken-v1.md").read_text("utf-8"))
MODELS = models_there_are()

each = pytest.mark.parametrize("claim", CLAIMS, ids=[claim.name for claim in CLAIMS])


def test_the_page_is_made_of_the_claims() -> None:
    """`python -m tests.assurance` writes it anew."""
    assert PAGE.read_text("utf-8") == page()


@each
def test_it_is_made_on_a_page_in_these_words(claim: Claim) -> None:
    assert claim.page in SOURCES and claim.stands_below() is not None, claim.quote


@each
def test_its_rules_are_rules_of_the_specification(claim: Claim) -> None:
    assert claim.rules and claim.rules.keys() <= RULES.keys(), claim.rules.keys() - RULES.keys()


@each
def test_each_rule_that_it_cites_carries_it_in_these_words(claim: Claim) -> None:
    """That they carry it, a person has to see. That they are words of that very rule, and enough to be read, is seen here."""
    for rule, words in claim.rules.items():
        assert words in RULES[rule], (rule, words)
        assert len(words) >= 10, words


def test_words_of_another_rule_or_behind_a_bar_carry_nothing() -> None:
    rules = rules_of("- **1.1** One\n  thing.\n  > *Why:* a reason.\n- **1.2** [running] Another.\n\n## Next\nNot a rule.\n")
    assert rules == {"1.1": "One thing.", "1.2": "[running] Another."}


@each
def test_what_proves_it_is_a_theorem_a_case_or_an_assertion(claim: Claim) -> None:
    assert set(claim.models) <= MODELS, set(claim.models) - MODELS


@each
def test_its_fault_can_be_made_in_one_place(claim: Claim) -> None:
    """And makes another program, which Python reads."""
    source = (ROOT / "captoken" / claim.mutation.file).read_text("utf-8")
    changed = claim.mutation.applied(source)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))


def test_their_tests_are_collected() -> None:
    tests = sorted({claim.test for claim in CLAIMS})
    environment = {**os.environ, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", *tests]
    asked = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    collected = asked.stdout.splitlines()
    for test in tests:
        assert any(one == test or one.startswith(f"{test}[") for one in collected), test


def test_there_are_enough_and_no_two_say_the_same() -> None:
    assert len(CLAIMS) >= 40
    assert len({claim.says for claim in CLAIMS}) == len({(claim.mutation, claim.test) for claim in CLAIMS}) == len(CLAIMS)
    assert len({group.letter for group in groups()}) == len(groups())


def test_all_that_counts_as_a_vulnerability_is_claimed() -> None:
    """Each point of the list in SECURITY.md, and each of the service that starts tasks, is quoted by a claim."""
    security = (ROOT / "SECURITY.md").read_text("utf-8")
    quoted = [as_read(claim.quote) for claim in CLAIMS if claim.page == "SECURITY.md"]
    numbered = re.findall(r"^\d+\. (.*?)(?=^\d+\. |^\n|^## )", security, re.MULTILINE | re.DOTALL)
    service = security.partition("## The service that starts tasks")[2].partition("It trusts, and cannot check")[0]
    points = numbered + re.findall(r"^- (.*?)(?=^- |^\n)", service, re.MULTILINE | re.DOTALL)
    assert len(numbered) == 14 and len(points) == 20
    assert [point for point in points if not any(quote in as_read(point) for quote in quoted)] == []


def test_claims_are_plain_sentences() -> None:
    for says in (*(claim.says for claim in CLAIMS), *(one.says for one in unproved()), *(one.why for one in unproved())):
        assert (says[0].isupper() or says[0] == "`") and says.endswith(".") and max(map(len, map(str.split, says.split(". ")))) <= 35, says

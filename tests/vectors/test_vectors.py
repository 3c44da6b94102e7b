"""captoken gives the outcome that each vector records, and the vectors are what their generator writes."""

from collections import Counter

import pytest

from captoken.errors import CODES
from spec.generate import anatomy
from spec.generate import vectors as generated
from tests.vectors import runner
from tests.vectors.adapter import Captoken

FAMILIES = {family["family"]: family["vectors"] for family in runner.families()}
VECTORS = [vector for vectors in FAMILIES.values() for vector in vectors]
OUTCOMES = {
    *runner.PASSING,
    *CODES,
    "usage",
    "widening",
    "nothing_left",
    "limit",
    "bad_ticket",
    "keyring",
    "overlay",
    "recall",
    "audit",
} - {"stale_grant"}  # which only a grant answers that was asked again
KINDS = {vector["kind"] for vector in VECTORS} - {"decision"}


def code(vector):
    return vector["expect"]["code"]


@pytest.mark.parametrize("family", FAMILIES)
def test_captoken_gives_every_recorded_outcome(family):
    came = {vector["name"]: runner.answer(Captoken(), vector) for vector in FAMILIES[family]}
    assert came == {vector["name"]: vector["expect"] for vector in FAMILIES[family]}


def test_there_are_enough_and_more_than_half_must_fail():
    failing = [vector for vector in VECTORS if code(vector) not in runner.PASSING]
    assert len(VECTORS) >= 2200
    assert len(failing) > len(VECTORS) / 2


def test_every_code_is_the_outcome_of_some_vector():
    assert {code(vector) for vector in VECTORS} == OUTCOMES


@pytest.mark.parametrize("family", FAMILIES)
def test_every_failing_vector_has_a_control_of_its_family_that_passes(family):
    passing = {vector["name"] for vector in FAMILIES[family] if code(vector) in runner.PASSING}
    for vector in FAMILIES[family]:
        assert ("control" in vector) == (vector["name"] not in passing)
        assert vector.get("control") in {None, *passing}, vector["name"]


def test_names_are_unique_and_begin_with_their_family():
    assert max(Counter(vector["name"] for vector in VECTORS).values()) == 1
    assert all(vector["name"].startswith(f"{family}_") for family, vectors in FAMILIES.items() for vector in vectors)


def test_a_vector_differs_from_every_other():
    """Two names for one question would be counted twice; but a control may stand in several families."""
    asked: dict[str, list[str]] = {}
    for family, vectors in FAMILIES.items():
        for vector in vectors:
            question = repr({key: vector[key] for key in vector if key not in ("name", "rule", "section", "control")})
            asked.setdefault(question + family * (code(vector) in runner.PASSING), []).append(vector["name"])
    assert [names for names in asked.values() if len(names) > 1] == []


def test_generating_them_again_changes_no_byte():
    files = generated.files()
    assert {path: path.read_bytes() for path in generated.FOLDER.rglob("*.*")} == {
        path: content.encode() for path, content in files.items()
    }


def test_what_the_specification_shows_is_what_captoken_makes_and_what_the_independent_builder_builds():
    assert anatomy.SPECIFICATION.read_bytes() == anatomy.specification().encode()
    vectors = {vector["name"]: vector for vector in VECTORS}
    assert vectors["link_ids_of_the_opening"]["token"] == anatomy.presented()
    bound = vectors["proof_of_possession_of_the_example"]
    assert bound["token"] == anatomy.proved()[0]
    assert vectors["third_party_caveats_of_the_example"]["token"].partition(".")[0] == anatomy.asked().serialize()
    assert vectors["snapshots_of_the_example"]["snapshot"] == anatomy.stopped().decode()
    assert vectors["deltas_of_the_example"]["deltas"] == [anatomy.lifted().decode()]
    assert vectors["audit_of_the_example"]["trail"] == b"".join(anatomy.recorded()).decode()
    assert vectors["third_party_caveats_ticket_of_one"]["expect"]["discharge"] == anatomy.answered()


def adapter_that_says(code):
    """An adapter that answers all kinds of vectors alike."""
    return type("Adapter", (), dict.fromkeys(KINDS | {"decide"}, staticmethod(lambda vector: {"code": code})))()


def test_digests_of_requests_that_are_not_the_same_differ():
    """What the vectors call the same has one digest; every other has its own."""
    digests = [vector for vector in FAMILIES["requests"] if vector["kind"] == "request" and code(vector) == "ok"]
    others = [vector["expect"]["digest"] for vector in digests if "_same_" not in vector["name"]]
    same = [vector["expect"]["digest"] for vector in digests if "_same_" in vector["name"]]
    assert len(set(others)) == len(others) >= 60 and len(same) == 7 and set(same) <= set(others)


def test_the_runner_hears_of_an_implementation_that_allows_everything():
    heard = {name for name, _, _ in runner.differences(adapter_that_says("allowed"))}
    assert {vector["name"] for vector in VECTORS if code(vector) != "allowed"} <= heard


def test_the_runner_hears_of_an_implementation_that_refuses_everything():
    heard = {name for name, _, _ in runner.differences(adapter_that_says("malformed"))}
    assert {vector["name"] for vector in VECTORS if code(vector) in runner.PASSING} <= heard

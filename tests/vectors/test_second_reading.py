"""The reference evaluator, which another hand wrote from the text, gives the outcomes of the vectors that it is asked.

So what the vectors say is not only what captoken does. The places of refusals it gives to the generator, and captoken is what
is compared with those: `test_vectors.py`.
"""

import pytest

from tests.reference import vectors as reference
from tests.vectors import runner

FAMILIES = {family["family"]: family["vectors"] for family in runner.families()}

# It knows how a verifier decides once, and nothing of writers, of files, or of what comes before and after.
NOT_ASKED = {
    "audit": "trails are read by no verifier",
    "capability": "it has no meet: it asks link by link",
    "codes": "it gives codes, and keeps no table of them",
    "counting": "it forgets nothing, so that it knows no lease and no life of a bucket",
    "deltas": "an overlay is given to it as it is",
    "interop": "it takes one spelling",
    "key_files": "keys are given to it",
    "minting": "it writes nothing",
    "recall": "it revokes nothing",
    "recorded": "it records nothing",
    "snapshots": "an overlay is given to it as it is",
    "transports": "it does not read messages",
    "widening": "it writes nothing",
}


def asked(family):
    """What it says of each vector of a family that it is asked."""
    answers = {vector["name"]: reference.answer(runner.given(vector)) for vector in FAMILIES[family]}
    return {name: said for name, said in answers.items() if said is not None}


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(NOT_ASKED)))
def test_the_reference_gives_the_recorded_outcome(family):
    said = asked(family)
    wanted = {vector["name"]: vector["expect"] for vector in FAMILIES[family]}
    assert said != {}
    assert said == {name: {key: wanted[name].get(key) for key in came} for name, came in said.items()}


def test_what_it_is_not_asked_is_listed_with_the_reason():
    assert {family for family in FAMILIES if not asked(family)} == set(NOT_ASKED)


def test_it_is_asked_every_decision():
    """All decisions: it is asked what can be stated, too."""
    decisions = [vector for vectors in FAMILIES.values() for vector in vectors if vector["kind"] in ("decision", "grant", "own")]
    assert len(decisions) > 2700
    assert all(reference.answer(runner.given(vector)) is not None for vector in decisions)

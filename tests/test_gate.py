"""The gate's cases reach every code and every step, the judges that are here agree on them, and what differs gets small.

All three judges together are asked by `python -m tests.gate`, which needs the port to be built.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from captoken import Denied
from captoken.errors import CODES
from spec.generate import build
from spec.generate.schemas import KINDS
from tests.gate.cases import case, vector_of
from tests.gate.judges import differing, judged, signature
from tests.gate.shrink import shrunk
from tests.reference import vectors as reference
from tests.vectors.adapter import _Asked
from tests.vectors.runner import given

CASES = 3500
STEPS = range(1, 12)

# No code of a decision about a text: it is of a grant, which is counted by itself below.
OF_GRANTS = {"stale_grant"}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Own caveats that fail are logged, with what they raised."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def came() -> Counter[Any]:
    """What came of the first cases, by kind, code, and code and step; asserted on the way: both judges agree."""
    seen: Counter[Any] = Counter()
    for number in range(CASES):
        vector = vector_of(case("ten", number))
        verdict = judged(vector, None)
        assert not differing(verdict), (number, verdict)
        outcome = verdict["python"]
        seen[vector["kind"]] += 1
        seen[vector["kind"], outcome["code"]] += 1
        seen.update(("grant, then", answer["code"]) for answer in outcome.get("answers", ()))
        if vector["kind"] == "decision" and outcome["code"] not in ("allowed", "usage"):
            seen["step", step_of(vector)] += 1
    return seen


def step_of(vector: dict[str, Any]) -> tuple[str, int]:
    """The code and the step of a denial."""
    asked = _Asked(given(vector))
    if asked.access is not None or asked.caller is not None:
        decision = asked.explained()
    else:
        try:
            asked.verifier().authenticate(asked.text, request=asked.request)
            raise AssertionError("a denial was drawn, and nothing was denied")
        except Denied as denied:
            decision = denied.decision
    return decision.code, decision.step


def test_each_code_is_drawn(came: Counter[Any]) -> None:
    """Of a decision, and with `stale_grant` of a grant; and allowed often, and denied often."""
    drawn = {code for kind, code in (key for key in came if isinstance(key, tuple)) if kind in ("decision", "own", "dry_run")}
    assert set(CODES) - drawn - {"forbidden_after"} == OF_GRANTS
    assert came["grant, then", "stale_grant"] > 5
    assert came["decision", "usage"] > 5
    decisions = came["decision"]
    assert decisions / 5 < came["decision", "allowed"] < decisions * 4 / 5
    assert came["own", "allowed"] > 20 and came["grant, then", "allowed"] > 100 and came["dry_run", "allowed"] > 10


def test_each_step_is_reached(came: Counter[Any]) -> None:
    """Also the codes that two steps give."""
    steps = {key[1] for key in came if isinstance(key, tuple) and key[0] == "step"}
    assert {step for _, step in steps} == set(STEPS)
    assert {("malformed", 1), ("malformed", 2), ("malformed", 3)} <= steps
    assert {("too_much_work", 7), ("too_much_work", 8)} <= steps
    assert {("stale_overlay", 7), ("stale_overlay", 8), ("store_unavailable", 7), ("store_unavailable", 11)} <= steps


def test_kinds_are_those_of_the_format(came: Counter[Any]) -> None:
    kinds = {key for key in came if isinstance(key, str)}
    assert kinds <= set(KINDS) and len(kinds) == 17


def test_a_case_is_the_same_each_time() -> None:
    assert [case("suite", number) for number in range(50)] == [case("suite", number) for number in range(50)]
    assert case("suite", 0) != case("other", 0)


def test_what_differs_gets_small() -> None:
    """A reference that reads `max` as one less: of a large token, one link with one range is left, and one argument or attribute."""
    satisfies = reference.evaluator.satisfies

    def faulty(constraint: Any, value: Any) -> bool:
        return satisfies(constraint, value) and not (isinstance(value, int) and constraint.get("max") == value)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reference.evaluator, "satisfies", faulty)
        recipe, verdict = next(differences())

        def holds(smaller: dict[str, Any]) -> bool:
            try:
                said = judged(vector_of(smaller), None)
            except Exception:
                return False
            return differing(said) and signature(said) == signature(verdict)

        least = shrunk(recipe, holds)
        (link,) = (step["link"] for step in least["token"]["steps"])
        assert holds(least)
        assert len(str(least)) < len(str(recipe)) and "overlay" not in least and "ledger" not in least
        assert len(link) == 1 and str(link).count("max") == 1, link
    assert not differing(judged(vector_of(least), None))


def differences() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Decisions on which the two judges that are here differ, of tokens with several links and no overlay."""
    for number in range(20_000):
        recipe = case("small", number)
        if "overlay" in recipe:
            continue  # its entries have ranges, too
        if recipe["kind"] == "decision" and len(recipe["token"]["steps"]) > 2 and '"max"' in repr(recipe).replace("'", '"'):
            verdict = judged(vector_of(recipe), None)
            if differing(verdict):
                yield recipe, verdict


def test_a_recipe_is_shrunk_in_every_way() -> None:
    """Items, keys, texts and numbers go while what must hold does."""
    recipe = {"kind": "x", "a": [1, 2, {"b": "long text", "c": 12345}, 4], "d": {"e": [0.5] * 9}, "token": 1}
    least = shrunk(recipe, lambda made: "x" in made.get("kind", "") and any("g" in str(item) for item in made.get("a", [])))
    assert least == {"kind": "x", "a": [{"b": "g"}], "token": 1} or least["a"] == ["g"] or least["a"] == [{"b": "g"}]


def test_a_proposal_is_a_vector_but_for_what_is_right(tmp_path: Any) -> None:
    from tests.gate.__main__ import proposal

    recipe = case("suite", 3)
    made = proposal("gate_suite_3", recipe, judged(vector_of(recipe), None))
    assert made["vector"].keys() >= {"name", "kind", "section", "rule", "expect"}
    assert build.KEY.hex() not in str(made["said"])

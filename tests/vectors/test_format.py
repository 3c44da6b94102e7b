"""The files of vectors are what their schemas and FORMAT.md say, and readers of JSON read them without loss."""

import json
import re
from collections import Counter
from fnmatch import fnmatchcase

import pytest
from jsonschema import Draft202012Validator

from captoken.errors import CODES
from spec.generate import apart, build, schemas
from spec.generate.table import SALES, is_plain
from tests.vectors import runner

PAGE = schemas.FORMAT.read_text(encoding="utf-8")
FAMILIES = {family["family"]: family["vectors"] for family in runner.families()}
VECTORS = [vector for vectors in FAMILIES.values() for vector in vectors]
SCHEMAS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in schemas.SCHEMAS.iterdir()}
READERS = {kind: Draft202012Validator(SCHEMAS[kind]) for kind in schemas.KINDS}
COMMON = {field.name for field in schemas.COMMON}


def names(part):
    """The fields that the tables of a part of the page have, in their first column."""
    return {name for line in part.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split("|")[1])}


def parts(heading):
    """What stands under a heading, up to the next one."""
    return re.split(r"\n#+ ", PAGE.partition(f"\n{heading}\n")[2])[0]


def properties(schema):
    """All names of fields that a schema has for its vectors and for what is expected, without those of every vector."""
    given, expected = set(), set()
    for variant in schema.get("oneOf", [schema]):
        given |= variant["properties"].keys()
        outcome = variant["properties"]["expect"]
        expected |= {name for each in outcome.get("oneOf", [outcome]) for name in each["properties"]}
    return (given - COMMON) | (expected - {"code"})


def test_every_kind_has_vectors_a_schema_and_a_part_of_the_page():
    kinds = {vector["kind"] for vector in VECTORS}
    assert kinds == set(schemas.KINDS) == set(SCHEMAS) - {"family"} == set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_schema_is_one_and_lets_nothing_pass_that_it_does_not_name(kind):
    Draft202012Validator.check_schema(SCHEMAS[kind])
    for variant in SCHEMAS[kind].get("oneOf", [SCHEMAS[kind]]):
        assert variant["additionalProperties"] is False
    assert all(each["additionalProperties"] is False for each in SCHEMAS[kind].get("$defs", {}).values())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_vector_is_as_its_schema_says(family):
    wrong = {v["name"]: error.message for v in FAMILIES[family] for error in READERS[v["kind"]].iter_errors(v)}
    assert wrong == {}


def test_a_file_is_a_family_and_nothing_else():
    head = SCHEMAS["family"]["properties"].keys()
    assert all(family.keys() == head for family in runner.families())


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_the_page_and_the_schema_name_the_same_fields(kind):
    assert names(parts(f"### {kind}")) - {"field"} == properties(SCHEMAS[kind])


@pytest.mark.parametrize("change", [{"more": 1}, {"expect": {"code": "allowed"}}, {"expect": {"code": "no such code"}}, {"token": 1}])
def test_a_schema_hears_of_what_is_wrong(change):
    vector = next(vector for vector in VECTORS if vector["kind"] == "decision" and "control" not in vector)
    assert READERS["decision"].is_valid(vector) and not READERS["decision"].is_valid(vector | change)


def test_a_field_is_carried_as_itself_or_as_text_and_never_as_both():
    vector = next(vector for vector in VECTORS if "access_json" in vector)
    assert not READERS["decision"].is_valid(vector | {"access": None})
    assert not READERS["decision"].is_valid({key: value for key, value in vector.items() if key != "access_json"})


def test_readers_of_json_lose_nothing():
    """No number that a double does not hold, no fraction that is whole, no lone surrogate: those are carried as text."""
    assert [vector["name"] for vector in VECTORS if not is_plain(vector)] == []
    texts = [vector for vector in VECTORS if any(key.endswith("_json") for key in vector)]
    assert len(texts) >= 40
    assert [v["name"] for v in texts if v["kind"] != "recorded" and is_plain(runner.given(v))] == []


@pytest.mark.parametrize(
    ("value", "plain"), [(1, True), (1.5, True), ("x", True), ([None, True], True), (1.0, False), (-0.0, False), (2**53, False),
                         (-(2**53), False), ("\ud800", False), ({"\udc00": 1}, False), ([[1e300]], False), (float("inf"), False)]
)  # fmt: skip
def test_what_is_plain(value, plain):
    assert is_plain(value) is plain


def test_every_code_is_explained_and_every_explained_code_is_one():
    steps = {code for vector in VECTORS for code in vector["expect"].get("codes", ())}
    answers = {each["code"] for vector in VECTORS for each in vector["expect"].get("answers", ())}
    used = {vector["expect"]["code"] for vector in VECTORS}
    explained = names(parts("## Codes")) - {"code"}
    assert used | steps | answers == explained and set(CODES) <= explained


@pytest.mark.parametrize("family", FAMILIES)
def test_a_failing_vector_differs_from_its_control_in_one_place_or_says_why_not(family):
    """Taken apart as FORMAT.md says. What says why not does differ in more."""
    known = {vector["name"]: vector for vector in FAMILIES[family]}
    apart_by = {v["name"]: len(apart.places(v, known[v["control"]])) for v in FAMILIES[family] if "control" in v}
    assert [name for name, count in apart_by.items() if (count == 1) == ("apart" in known[name]) or count == 0] == []


def test_few_have_a_reason_to_differ_in_more_and_each_reason_is_one():
    reasons = Counter(vector["apart"] for vector in VECTORS if "control" in vector and "apart" in vector)
    assert set(reasons) == set(apart.APART) == set(apart.WHY)
    assert reasons["together"] + reasons["other"] < 60 and reasons.total() < 340
    names = [vector["name"] for vector in VECTORS if "apart" in vector]
    assert [p for patterns in apart.WHY.values() for p in patterns if not any(fnmatchcase(name, p) for name in names)] == []


TEXT = next(vector for vector in VECTORS if vector["name"] == "verification_nothing_wrong")


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({}, 0),
        ({"caller": {"agent": "x"}}, 1),
        ({"access": {**TEXT["access"], "table": "hr"}}, 1),
        ({"access": {**TEXT["access"], "table": "hr"}, "caller": {"agent": "x"}}, 2),
        ({"token": TEXT["token"] + "="}, 1),
        ({"token": build.token(SALES, {"exp": build.NOW + 60}).text}, 1),
        ({"token": build.token({**SALES, "tables": ["hr"]}).text}, 1),
        ({"token": build.token({**SALES, "tables": ["hr"]}, {"nbf": 0}).text}, 2),
        ({"token": build.token(SALES, sub="user:joe").text}, 1),
        ({"token": build.token(SALES).signed(bytes(32)).text}, 1),
        ({"token": build.token(SALES, sub="user:joe").signed(bytes(32)).text}, 2),
        ({"facts": {**TEXT["facts"], "now": 1, "leeway": 1}}, 2),
    ],
)
def test_places_are_counted_as_the_page_says(change, count):
    vector = {**TEXT, "token": build.token(SALES).text}
    assert len(apart.places(vector | change, vector)) == count


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        (1, True, 1), ([1], [True], 1), ([1, 2, 3], [1, 3], 1), ([1, 2], [2, 1], 1), ([1, 2, 3], [4, 2, 5], 2), ({"a": 1}, {"b": 1}, 1),
        ({"a": 1, "b": 1}, {"c": 1}, 3), ({"a": {"b": 1, "c": 1}}, {"a": {"b": 2, "c": 2}}, 2), ([], [1, 2, 3], 1),
    ],
)  # fmt: skip
def test_differences_of_values(one, other, count):
    assert len(list(apart.differences(one, other))) == count

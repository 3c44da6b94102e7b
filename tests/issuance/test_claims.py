"""What claims have to say, and what a subject is called."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captoken.issuance.claims import matcher, template

CLAIMS = {
    "sub": "spiffe://a.example/ns/risk/sa/one",
    "groups": ["finance", "staff"],
    "level": 1,
    "mfa": True,
    "acr": "mfa",
    "kubernetes.io": {"serviceaccount": {"uid": "u1", "a/b": 2, "~": "t"}},
    "nothing": None,
    "list": [{"a": 1}, ["b"], 1.5],
}


@pytest.mark.parametrize(
    "claim, wanted, matches",
    [
        ("acr", "mfa", True), ("acr", ["pwd", "mfa"], True), ("acr", ["pwd"], False), ("acr", {"all": ["mfa"]}, True),
        ("groups", "finance", True), ("groups", ["x", "staff"], True), ("groups", ["x"], False),
        ("groups", {"all": ["finance", "staff"]}, True), ("groups", {"all": ["finance", "x"]}, False),
        # By type and value.
        ("level", 1, True), ("level", True, False), ("level", "1", False), ("mfa", True, True), ("mfa", 1, False), ("mfa", "true", False),
        # Missing, null, objects and lists of lists say nothing.
        ("absent", "x", False), ("nothing", "None", False), ("list", ["b", "a"], False), ("list", 1, False), ("kubernetes.io", "u1", False),
        # JSON Pointers.
        ("/kubernetes.io/serviceaccount/uid", "u1", True), ("/kubernetes.io/serviceaccount/a~1b", 2, True),
        ("/kubernetes.io/serviceaccount/~0", "t", True), ("/kubernetes.io/serviceaccount", "u1", False), ("/acr/x", "mfa", False),
        ("/groups/0", "finance", False), ("/acr", "mfa", True),
        # One or more segments below.
        ("sub", "spiffe://a.example/ns/risk/*", True), ("sub", "spiffe://a.example/ns/risk/sa/one/*", False),
        ("sub", "spiffe://a.example/ns/ris/*", False), ("sub", "spiffe://a.example/ns/risk/sa/one", True), ("sub", "spiffe://A.example/*", False),
    ],
)  # fmt: skip
def test_a_claim_matches_or_does_not(claim: str, wanted: Any, matches: bool) -> None:
    assert matcher(claim, wanted).matches(CLAIMS) is matches


@pytest.mark.parametrize(
    "sub, matches", [("repo:acme/x:ref", True), ("repo:acme/x:", False), ("repo:acme/x::y", False), ("repo:acme/xy:z", False), ("repo:acme/x:a:b", True)]
)
def test_below_by_colons(sub: str, matches: bool) -> None:
    assert matcher("sub", "repo:acme/x:*").matches({"sub": sub}) is matches
    assert not matcher("sub", "repo:acme/x:*").matches({"sub": 7})


@pytest.mark.parametrize(
    "claim, wanted",
    [
        ("", "x"), ("/", "x"), ("a", []), ("a", {"any": ["x"]}), ("a", {"all": []}), ("a", 1.5), ("a", None), ("a", [["x"]]), ("a", {}),
        ("groups", "fin*"), ("groups", "fin/*"), ("sub", "*"), ("sub", "/*"), ("sub", "a*b"), ("sub", "a/*/*"), ("sub", "a/*x"), ("sub", "spiffe*"),
    ],
)  # fmt: skip
def test_what_a_policy_cannot_want(claim: str, wanted: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        matcher(claim, wanted)


def test_a_matcher_reads_as_what_it_wants() -> None:
    assert str(matcher("acr", "mfa")) == "acr is mfa"
    assert str(matcher("groups", ["a", "b"])) == "groups is any of a, b"
    assert str(matcher("groups", {"all": ["a", "b"]})) == "groups is each of a, b"


@pytest.mark.parametrize(
    "text, claims, subject",
    [
        ("acme:{sub}", {"sub": "jane"}, "acme:jane"), ("acme:{n}", {"n": 7}, "acme:7"), ("ci:{org}/{repo}", {"org": "a", "repo": "b/c"}, "ci:a/b/c"),
        ("k:{/kubernetes.io/uid}", {"kubernetes.io": {"uid": "u"}}, "k:u"), ("a:{sub}-x", {"sub": "y"}, "a:y-x"),
    ],
)  # fmt: skip
def test_a_subject_is_named_by_claims(text: str, claims: dict[str, Any], subject: str) -> None:
    assert template(text).subject("https://i.example", claims) == subject


def test_a_digest_names_what_is_no_name_and_two_issuers_are_two() -> None:
    digested = template("acme:{sub#}")
    one = digested.subject("https://i.example", {"sub": "auth0|ümlaut " + "x" * 200})
    assert one.startswith("acme:") and len(one) == 5 + 22
    assert one != digested.subject("https://j.example", {"sub": "auth0|ümlaut " + "x" * 200})
    assert template("a:{sub#}-{n#}").subject("i", {"sub": "x", "n": "y"}).count("-") >= 1


@pytest.mark.parametrize("claims", [{}, {"sub": ""}, {"sub": None}, {"sub": True}, {"sub": ["a"]}, {"sub": "auth0|x"}, {"sub": "ümlaut"}, {"sub": "x" * 128}])
def test_claims_that_give_no_name_are_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        template("acme:{sub}").subject("https://i.example", claims)


@pytest.mark.parametrize(
    "text",
    ["", "acme", "{sub}", "acme:{email}", "acme:{preferred_username}", "acme:{}", "acme:{sub", "acme:sub}", "a:{x}{y}", "a b:{sub}", "a:{sub#}{x}", "a:{{sub}}"],
)
def test_a_template_that_will_not_do(text: str) -> None:
    with pytest.raises(ValueError):
        template(text)


@given(st.lists(st.text("ab/:-", min_size=1, max_size=5), min_size=2, max_size=2), st.lists(st.text("ab/:-", min_size=1, max_size=5), min_size=2, max_size=2))
def test_two_sets_of_claims_never_make_one_subject(one: list[str], other: list[str]) -> None:
    both = template("ci:{org}/{repo}")
    made = []
    for org, repo in (one, other):
        try:
            made.append(both.subject("i", {"org": org, "repo": repo}))
        except ValueError:
            return
    assert (made[0] == made[1]) is (one == other)

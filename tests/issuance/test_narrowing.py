"""What a request asks of its grant, and never silently less."""

from __future__ import annotations

import re
from typing import Any

import pytest

from captoken.errors import IssuanceError
from captoken.issuance.desk import Plan
from tests.issuance.test_desk import RISK, refused, risk

from .fixtures import NOW, POLICY, ask, desk, jane, pod, policy, workflow


def capability(plan: Plan) -> dict[str, Any]:
    return plan.root.unverified.capability.json()


@pytest.mark.parametrize(
    "keywords, dimension",
    [
        ({"tables": ["hr"], "operations": ["select"]}, "hr"), ({"tables": ["sales"], "operations": ["update"]}, "update"),
        ({"columns": {"sales": ["pay"]}}, "pay"), ({"tools": {"mail.send": {}}}, "tools"), ({"expires_in": 900}, None),
        ({"expires_in": 901}, "expires_at"), ({"expires_in": "1h"}, "expires_at"), ({"expires_in": "never"}, "duration"), ({"expires_in": 60, "expires_at": NOW + 60}, "exp"),
        ({"expires_at": NOW + 10_000}, "expires_at"), ({"depth": 4}, "depth"), ({"where": {"x": {"in": ["y"]}}}, None),
        ({"uses": 5}, None), ({"unknown": 1}, "unknown"), ({"audience": "hr-db"}, "audience"), ({"task": "other"}, "task"), ({"key": "x"}, "key"),
        ({"tables": [1]}, "table"), ({"clock": 1}, "clock"), ({"signer": 1}, "signer"), ({"self": 1}, "self"), ({"keep": 5}, "keep"), ({"expires_at": NOW - 5}, "expired already"), ({"budget": {}}, "budget"),
    ],
)  # fmt: skip
def test_more_than_the_grant_is_an_error_that_names_it(keywords: dict[str, Any], dimension: str | None) -> None:
    """The library's own comparison: what narrows passes, whatever it is."""
    if dimension is None:
        risk(keywords=keywords)
        return
    error = refused("invalid_authorization_details", ask(**RISK, keywords=keywords), jane(), pod())
    assert dimension in str(error)


GIVES = {
    "tables": 'give = { allow = { "sales" = ["select"], "market.*" = ["select"], "market.eu.secret" = [] }, expires_in = 300 }',
    "tools": 'give = { tools = { "mail.*" = {}, "mail.admin.root" = { "_" = { in = [] } }, "search" = {} }, expires_in = 300 }',
}


@pytest.mark.parametrize(
    "given, keywords, unheld",
    [
        ("tables", {"tables": ["*"]}, "*"), ("tables", {"tables": ["market.*"]}, "market.eu.secret"), ("tables", {"tables": ["market.eu.*", "sales"]}, "market.eu.secret"),
        ("tables", {"tables": ["sales", "hr.*"]}, "hr.*"), ("tables", {"tables": ["market.us.*", "sales"]}, None), ("tables", {"operations": ["select"]}, None),
        ("tables", {"tables": ["*"], "operations": ["select"]}, "*"), ("tables", {"tables": ["*"], "allow": {"sales": ["select"]}}, None),
        ("tools", {"tools": {"*": {}}}, "*"), ("tools", {"tools": {"mail.*": {}}}, "mail.admin.root"), ("tools", {"tools": {"search.*": {}, "search": {}}}, "search.*"),
        ("tools", {"tools": {"mail.*": {}, "mail.admin.*": {"_": {"in": []}}}}, None), ("tools", {"tools": {"mail.send": {}, "search": {}}}, None),
    ],
)  # fmt: skip
def test_a_pattern_of_which_a_part_is_not_the_grants_is_more_than_the_grant(given: str, keywords: dict[str, Any], unheld: str | None) -> None:
    """Never silently less: it is told what the grant has not. With `clamp` it is cut."""
    plain = '[grant.nightly]\nsubject = { provider = "ci", repository_id = "42", ref = "refs/heads/main" }\nagents = ["nightly"]\nresources = ["sales-db"]\n'
    before = 'give = { allow = { "sales" = ["select"] }, expires_in = 300 }'
    assert plain + before in POLICY
    of = policy(POLICY.replace(plain + before, plain + GIVES[given]))
    if unheld is None:
        assert desk(of).plan(ask(keywords=keywords), None, workflow()).root
        return
    with pytest.raises(IssuanceError, match=f"too much is .*{re.escape(unheld)}") as caught:
        desk(of).plan(ask(keywords=keywords), None, workflow())
    assert caught.value.code == "invalid_authorization_details"
    if unheld not in ("hr.*", "search.*"):
        alike = desk(of, random=bytes)  # of one task
        made = alike.plan(ask(keywords=keywords, clamp=True), None, workflow()).root.unverified.capability
        whole = alike.plan(ask(), None, workflow()).root.unverified.capability
        assert whole.covers(made) and not made.nothing


def test_with_clamp_a_long_life_is_that_of_the_grant() -> None:
    assert risk(keywords={"expires_in": 9000}, clamp=True).root.unverified.expires_at == NOW + 900


def test_more_than_a_budget_or_an_argument_is_refused_too() -> None:
    paid = {"grant": "q3-sentiment", "resources": ("sentiment-api",)}
    for keywords in ({"budget": {"usd_cents": 501}}, {"tools": {"sentiment.score": {"other": {"any": True}}, "x": {}}}):
        refused("invalid_authorization_details", ask(**paid, keywords=keywords), jane(), pod())
    plan = desk().plan(ask(**paid, keywords={"budget": {"usd_cents": 5}}), jane(), pod())
    assert plan.entry.counted and plan.entry.within is None and capability(plan)["budget"] == {"usd_cents": 5}


def test_clamp_takes_what_there_is_when_it_is_asked_for() -> None:
    keywords = {"tables": ["sales", "hr"], "operations": ["select"]}
    refused("invalid_authorization_details", ask(**RISK, keywords=keywords), jane(), pod())
    assert "hr" not in str(capability(risk(keywords=keywords, clamp=True)))
    refused("invalid_authorization_details", ask(**RISK, keywords={"tables": ["hr"], "operations": ["select"]}, clamp=True), jane(), pod())

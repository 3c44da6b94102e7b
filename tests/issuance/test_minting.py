"""What is minted for a request: its keywords go where they fit, and each token ends with its task."""

from __future__ import annotations

import pytest
from msgspec import structs

from captoken.errors import IssuanceError
from captoken.issuance.policy import read
from captoken.issuance.registry import StartedTask
from tests.issuance.test_desk import RISK, refused

from .fixtures import HOLDER, NOW, POLICY, ask, desk, jane, pod, policy


def test_a_token_ends_with_its_task() -> None:
    one = desk()
    plan = one.plan(ask(**RISK), jane(), pod())
    assert one.mint(plan, StartedTask(plan.entry.task, "q3-risk", "acme:jane", NOW + 3600)) is plan.root
    late = one.mint(plan, StartedTask(plan.entry.task, "q3-risk", "acme:jane", NOW + 100))
    assert late.unverified.expires_at == NOW + 100
    other = one.mint(plan, StartedTask("q3-risk-0000000000", "q3-risk", "acme:jane", NOW + 3600))
    assert other.unverified.root.task == "q3-risk-0000000000" and other.unverified.root.subject == "acme:jane"


def test_what_cannot_be_minted_is_told_as_such() -> None:
    refused("invalid_request", ask(**{**RISK, "key": "A" * 43}), jane(), pod())
    error = refused("invalid_request", ask(grant="q3-sentiment"), jane(), pod(), of=read(POLICY.replace(policy().dischargers["approvals"].public, "A" * 43)))
    assert "X25519" in str(error)


@pytest.mark.parametrize("begins, ends, fits", [(899, None, True), (900, None, False), (5000, None, False), (60, 60, False), (59, 60, True), (-5, None, True)])
def test_a_token_that_would_end_before_it_begins_is_refused(begins: int, ends: int | None, fits: bool) -> None:
    """Nothing would ever be permitted: the task is not started for it."""
    keywords = {"not_before": NOW + begins, **({} if ends is None else {"expires_at": NOW + ends})}
    asked = ask(grant="q3-risk", agent="orchestrator", resources=("sales-db",), key=HOLDER.public, keywords=keywords)
    if fits:
        root = desk().plan(asked, jane(), pod()).root
        assert root.unverified.capability.not_before == NOW + begins
        return
    with pytest.raises(IssuanceError) as caught:
        desk().plan(asked, jane(), pod())
    assert (caught.value.code, str(caught.value)) == ("invalid_authorization_details", "the token would expire before it becomes valid")


def test_also_where_the_task_that_is_joined_ends_sooner() -> None:
    asked = ask(grant="q3-risk", agent="orchestrator", resources=("sales-db",), key=HOLDER.public, keywords={"not_before": NOW + 600})
    at = desk()
    plan = at.plan(asked, jane(), pod())
    joined = StartedTask(plan.entry.task, "q3-risk", "acme:jane", NOW + 601)
    assert at.mint(plan, joined).unverified.expires_at == NOW + 601
    with pytest.raises(IssuanceError, match="the token would expire before it becomes valid"):
        at.mint(plan, structs.replace(joined, deadline=NOW + 600))

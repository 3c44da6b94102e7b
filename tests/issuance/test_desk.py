"""The decision on one request: which grant, what it gives, and what is written. Cases 46, 53, 55 to 65 and 36 of the design."""

from __future__ import annotations

from typing import Any

import pytest

from captoken import Access, Denied, Verifier
from captoken.discharge import Allow, Discharger
from captoken.errors import IssuanceError
from captoken.issuance.desk import Plan
from captoken.issuance.policy import read
from captoken.stores.memory import MemoryReplayStore
from captoken.testing import FixedClock

from .fixtures import HOLDER, KEYRING, LEASE, NOW, POLICY, ask, desk, jane, pod, policy, who, workflow

KEY = HOLDER.public
RISK: dict[str, Any] = {"grant": "q3-risk", "resources": ("sales-db",), "agent": "orchestrator", "key": KEY}


def risk(**facts: Any) -> Plan:
    return desk().plan(ask(**{**RISK, **facts}), jane(), pod())


def refused(code: str, asked: Any, subject: Any, actor: Any, **facts: Any) -> IssuanceError:
    with pytest.raises(IssuanceError) as caught:
        desk(**facts).plan(asked, subject, actor)
    assert caught.value.code == code, str(caught.value)
    return caught.value


def test_a_person_with_a_workload_gets_the_grant_under_the_keys_of_one_server() -> None:
    plan = risk(task="q3", keywords={"tables": ["sales"], "operations": ["select"]})
    root, entry = plan.root, plan.entry
    said = root.unverified.root
    assert (said.subject, said.agent, said.issued_at) == ("acme:jane", "orchestrator", NOW)
    assert said.task.startswith("q3-") and len(said.task) == 13 and entry.task == said.task and entry.within is None
    assert said.ext == {"idp:iss": "https://login.acme.example", "policy:grant": "q3-risk", "policy:hash": policy().digest}
    assert root.unverified.expires_at == NOW + 900 and plan.audiences == ("sales-db",)
    assert (entry.subject, entry.provider, entry.session, entry.deadline) == ("acme:jane", "acme", "s1", NOW + 3600)
    assert (entry.most_live, entry.most_per_day, entry.counted, entry.actor) == (3, 20, False, "mesh spiffe://acme.example/ns/risk/sa/orchestrator")

    # It is good at that server, by keys that no other server has; and only with its lease and by its key.
    (ticket,) = root.needs
    lease = Discharger(LEASE, lambda need: Allow(expires_in=60), clock=FixedClock(NOW))
    assert lease.need(ticket) == {"alive": said.task} and ticket.location == "https://issuer.example/.well-known/captoken/3p"
    text = root.with_discharge(lease.discharge(ticket)).present(
        audience="sales-db", signer=HOLDER, request=Access(table="sales", operation="select", columns=["amount"]), clock=FixedClock(NOW)
    )
    def at(keyring: Any) -> str:
        replays = MemoryReplayStore(floor=0)
        server = Verifier(keyring, "sales-db", clock=FixedClock(NOW), replays=replays)
        return server.check(text, Access(table="sales", operation="select", columns=["amount"])).code

    assert at(KEYRING.for_audience("sales-db")) == "allowed" and at(KEYRING.for_audience("scratch-db")) != "allowed"


def test_a_workload_alone_is_both() -> None:
    plan = desk().plan(ask(), None, workflow())
    assert plan.root.unverified.root.subject == "ci:42" and plan.entry.actor is None and plan.grant.name == "nightly"
    assert plan.entry.task.startswith("nightly-")
    assert desk().plan(ask(), workflow(), None).entry.subject == "ci:42"
    assert desk().plan(ask(), workflow(), workflow()).entry.subject == "ci:42", "one assertion, shown twice"


def test_servers_that_share_keys_take_one_root() -> None:
    plan = desk().plan(ask(grant="reading"), jane(groups=["readers"]), None)
    assert plan.audiences == ("sales-db", "scratch-db")
    assert Verifier(KEYRING, "scratch-db", clock=FixedClock(NOW)).check(plan.root, Access(table="sales", operation="select")).code == "allowed"
    assert desk().plan(ask(grant="reading", resources=("sales-db",)), jane(groups=["readers"]), None).audiences == ("sales-db",)


def test_nobody_gets_a_grant_that_is_not_for_them() -> None:
    """And is not told what it wants: that is in `why`."""
    for subject, actor in (
        (jane(groups=["sales"]), pod()), (jane(acr="pwd"), pod()), (jane(acr=["pwd"]), pod()), (jane(), None), (None, pod()),
        (jane(), who("mesh", sub="spiffe://acme.example/ns/hr/x")), (pod(), jane()), (jane(), workflow()), (jane(), jane(sub="omar")),
        (jane(groups=None), pod()), (workflow(), pod()),
    ):  # fmt: skip
        error = refused("access_denied", ask(**RISK), subject, actor)
        assert "finance" not in str(error) and "mesh" not in str(error) and error.why
    refused("access_denied", ask(), None, workflow(ref="refs/heads/other"))
    refused("access_denied", ask(grant="nightly"), workflow(), pod())
    refused("invalid_request", ask(), None, None)
    refused("invalid_scope", ask(grant="q9"), jane(), pod())


def test_of_several_grants_one_is_named() -> None:
    both = jane(groups=["finance", "readers"])
    assert desk().plan(ask(resources=("sales-db",)), jane(groups=["readers"]), None).grant.name == "reading"
    error = refused("invalid_scope", ask(key=KEY), both, pod())
    assert "q3-risk, q3-sentiment" in str(error)
    assert {fit.misses for fit in desk().fits(None, None)} == {"it wants a subject and an actor", "nobody came"}
    misses = {fit.grant.name: fit.misses for fit in desk().fits(both, pod())}
    assert misses["q3-risk"] is None and misses["nightly"] and misses["reading"] == "it wants one of the two, and both came"


def test_agent_and_resource_are_those_of_the_grant() -> None:
    refused("invalid_request", ask(**{**RISK, "agent": "mallory"}), jane(), pod())
    refused("invalid_request", ask(**{**RISK, "agent": None}), jane(), pod())
    assert desk().plan(ask(), None, workflow()).root.unverified.root.agent == "nightly"
    for resource in ("hr-db", "sentiment-api", "https://sales.example", "", None):
        refused("invalid_target", ask(**{**RISK, "resources": () if resource is None else (resource,)}), jane(), pod())
    assert risk(resources=("https://sales.example/mcp",)).audiences == ("sales-db",)


def test_what_an_oauth_client_gets_is_for_one_server_and_bound_to_nothing() -> None:
    refused("invalid_target", ask(held=False), None, workflow())
    desk().plan(ask(held=False, resources=("sales-db",)), None, workflow())
    refused("invalid_request", ask(held=False, resources=("sales-db",), key=KEY), None, workflow())
    refused("invalid_request", ask(**{**RISK, "held": False}), jane(), pod())
    refused("invalid_dpop_proof", ask(**{**RISK, "key": None}), jane(), pod())
    refused("invalid_request", ask(grant="q3-sentiment", resources=("sentiment-api",), held=False), jane(), pod())


def test_a_label_makes_a_task_and_a_whole_id_joins_one() -> None:
    assert risk(task="q3").entry.within is None
    assert risk(task="q3-0123456789").entry.within == ("q3-risk",)
    joined = desk().plan(ask(grant="q3-sentiment", task="q3-0123456789"), jane(), pod())
    assert joined.entry.within == ("q3-sentiment", "q3-risk") and joined.entry.task == "q3-0123456789"
    for label in ("a/b", "a b", "", "/", "x" * 200, "a/b-0123456789"):
        refused("invalid_request", ask(**RISK, task=label), jane(), pod())
    assert risk(task="q3").entry.task != risk(task="q3").entry.task


def test_an_assertion_is_bound_to_whom_it_came_with() -> None:
    def companions(asked: Any, subject: Any, actor: Any) -> bytes | None:
        (seen,) = desk().plan(asked, subject, actor).entry.seen
        assert seen.digest == (subject or actor).digest and seen.until == NOW + 295
        return seen.companions

    one = companions(ask(**RISK), jane(), pod())
    assert one is not None and one == companions(ask(**RISK, task="other"), jane(), pod())
    assert one != companions(ask(**RISK), jane(), pod("other"))
    assert companions(ask(), None, workflow()) is None, "alone it is good once"
    assert companions(ask(), workflow(), workflow()) is None
    assert desk().plan(ask(), workflow(), workflow()).entry.actor is None
    assert companions(ask(key=KEY), None, workflow()) is not None
    assert companions(ask(client="c"), None, workflow()) != companions(ask(client="d"), None, workflow())


def test_an_id_jag_is_for_one_client_and_its_resources() -> None:
    guest = {"aud_sub": "guest", "client_id": "c1"}
    fine = ask(client="c1", resources=("sales-db",))
    assert desk().plan(fine, who("partner", **guest), None).grant.name == "guests"
    refused("invalid_grant", ask(client="c2", resources=("sales-db",)), who("partner", **guest), None)
    refused("invalid_grant", ask(resources=("sales-db",)), who("partner", **guest), None)
    refused("invalid_grant", ask(client="c1", resources=("sales-db",)), who("partner", aud_sub="guest"), None)
    for bound in ({"scope": "other"}, {"scope": 7}, {"scope": None}, {"scope": ""}):
        refused("invalid_scope", fine, who("partner", **guest, **bound), None)
    desk().plan(fine, who("partner", **guest, scope="other guests"), None)
    refused("invalid_grant", fine, who("partner", **guest, authorization_details=[]), None)
    refused("invalid_target", fine, who("partner", **guest, resource=None), None)
    for resource, good in (("https://sales.example/mcp", True), (["scratch-db", "sales-db"], True), ("scratch-db", False), ([], False), (7, False)):
        one = who("partner", **guest, resource=resource)
        if good:
            desk().plan(fine, one, None)
        else:
            refused("invalid_target", fine, one, None)


def test_one_assertion_shown_twice_is_no_two_parties() -> None:
    both = read(POLICY.replace('subject = { provider = "ci", repository_id', 'actor = { provider = "ci", repository_id = "42" }\nsubject = { provider = "ci", repository_id'))
    refused("access_denied", ask(grant="nightly"), workflow(), workflow(), of=both)
    assert desk(both).plan(ask(grant="nightly"), workflow(), workflow(sub="repo:acme/y")).grant.name == "nightly"


def test_a_subject_without_a_name_is_refused() -> None:
    error = refused("access_denied", ask(**RISK), jane(sub="auth0|x"), pod())
    assert "auth0" not in str(error) and "auth0" in error.why


def test_a_policy_with_leases_needs_the_key_that_says_so() -> None:
    with pytest.raises(IssuanceError, match="q3-risk has a lease"):
        desk(lease=None)
    text = POLICY.replace("lease = 60\n", "")
    plan = desk(read(text), lease=None).plan(ask(**RISK), jane(), pod())
    assert plan.root.needs == ()


def test_a_bound_root_is_of_no_use_without_its_key() -> None:
    text = risk().root.serialize()
    server = Verifier(KEYRING.for_audience("sales-db"), "sales-db", clock=FixedClock(NOW))
    with pytest.raises(Denied):
        server.authorize(text, Access(table="sales", operation="select"))

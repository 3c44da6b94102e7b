"""Grants of a policy: whom they are for, and what they give to which server."""

from __future__ import annotations

import pytest

from captoken.errors import IssuanceError
from captoken.issuance import desk
from captoken.issuance.policy import read
from tests.issuance.test_sets import RULE, TEXT, policy

from .fixtures import POLICY


def test_anybody_with_a_login_may_be_meant_and_any_workload_may_not() -> None:
    read(POLICY.replace('subject = { provider = "acme", groups = ["readers"] }', 'subject = { provider = "acme" }'))


@pytest.mark.parametrize("provider", ["acme", "partner"])
@pytest.mark.parametrize("alone", [True, False])
def test_an_actor_is_a_workload(provider: str, alone: bool) -> None:
    """A person's login names nobody who acts: no request could ever fit such a grant."""
    actor = 'actor = { provider = "mesh", sub = "spiffe://acme.example/ns/risk/*" }\nagents = ["orchestrator", "deputy"]'
    text = POLICY.replace(actor, f'actor = {{ provider = "{provider}", sub = "x" }}\nagents = ["orchestrator", "deputy"]')
    if alone:
        text = text.replace('subject = { provider = "acme", groups = ["finance"], acr = ["mfa"] }\n', "")
    with pytest.raises(IssuanceError, match=r"grant\.q3-risk\.actor: provider .* names no workloads"):
        read(text)


def test_a_rule_over_marks_that_are_not_there_does_not_load() -> None:
    with pytest.raises(IssuanceError, match=r"grant\.brief\.give.*forbid names inbox"):
        read(TEXT.replace("expires_in = 600\ndepth = 3", f"expires_in = 600\ndepth = 3{RULE.replace('inbox = {', 'other = {')}"))


def test_the_policy_loads_and_its_tests_hold() -> None:
    loaded = policy()
    brief, counted = loaded.grants["brief"], loaded.grants["counted"]
    assert (brief.expires_in, brief.counts, list(brief.servers)) == (600, False, ["sales-db", "mail"])
    # A server that says nothing of its end has the library's.
    assert (counted.expires_in, counted.counts, counted.give) == (900, True, {})
    assert loaded.grants["q3-risk"].servers == {}
    desk.check_policy(loaded)


LINE = 'allow = { "sales" = ["select", "insert"] }'


@pytest.mark.parametrize(
    "old, new, says",
    [
        (LINE, "tabels = 3", "grant.brief.give.servers.sales-db: "),
        (LINE, 'tables = ["sales"]', "grant.brief.give.servers.sales-db: "),
        (LINE, "", "grant.brief.give.servers.sales-db: name the tables"),
        (LINE, f'{LINE}\naudience = "mail"', "grant.brief.give.servers.sales-db: audience is not for a policy to say"),
        (LINE, "unrestricted = true", "grant.brief.give.servers.sales-db: unrestricted is not for a policy to say"),
        (LINE, f"{LINE}\nservers = {{}}", "grant.brief.give.servers.sales-db: "),
        (LINE, f"{LINE}\ndepth = 2", "grant.brief.give.servers.sales-db: depth is said for all servers, too"),
        (LINE, f"{LINE}\nexpires_at = 5", "grant.brief.give.servers.sales-db: expires_at is not for a policy to say"),
        ("expires_in = 600\ndepth = 3", "expires_in = 600\nuses = 5", "grant.brief.give.servers: uses is counted by one server: say it there"),
        ("expires_in = 600\ndepth = 3", "task = 'x'\ndepth = 3", "grant.brief.give.servers.sales-db: task is not for a policy to say"),
        ("expires_in = 600\ndepth = 3", "expires_in = 6000", "grant.brief: a token of 6000 s outlives the task of 1200 s"),
        ("[grant.brief.give.servers.mail]", "[grant.brief.give.servers.post]", "grant.brief.give.servers.post: the grant has no resource post"),
        ('resources = ["sales-db", "mail"]\nlease', 'resources = ["sales-db", "mail", "scratch-db"]\nlease', "it does not say what scratch-db gets: write scratch-db = {}"),
        ('resources = ["sales-db", "mail"]\nlease', 'resources = ["sales-db"]\nlease', "grant.brief.give.servers.mail: the grant has no resource mail"),
        ('resources = ["sales-db", "mail"]\nlease', 'keys = "shared"\nresources = ["sales-db", "mail"]\nlease', "one token is for all of the resources"),
        ("lease = 60\ntask_max = 1200", "lease = 601\ntask_max = 1200", "grant.brief: lease is in seconds"),
        ('{ operations = ["select"] } }\n[grant.brief.give]', '{ operations = ["delete"] } }\n[grant.brief.give]', "grant.brief.on: at sales-db: "),
        ('resource = "https://mail.example/mcp"\n', "", "names no resource, and brief gives each of them something else"),
        ('resource = "https://mail.example/mcp"\n', 'resource = "sales-db"\n', "brief denies"),
    ],
)  # fmt: skip
def test_a_policy_that_does_not_load_says_where(old: str, new: str, says: str) -> None:
    before, mine, after = TEXT.partition("[resource.mail]")
    changed = (mine + after).replace(old, new, 1)
    assert changed != mine + after
    with pytest.raises(IssuanceError) as told:
        desk.check_policy(read(before + changed))
    assert told.value.code == "policy" and says in str(told.value)


@pytest.mark.parametrize("servers", ["7", "[]", '["sales-db", "mail"]', "{ sales-db = 7, mail = {} }"])
def test_what_is_no_table_of_servers(servers: str) -> None:
    text = POLICY.replace('give = { allow = { "sales" = ["select"] }, expires_in = 300 }\n[grant.guests]', f"give = {{ servers = {servers} }}\n[grant.guests]")
    with pytest.raises(IssuanceError, match=r"grant\.nightly\.give\.servers: it is a table for each"):
        read(text)

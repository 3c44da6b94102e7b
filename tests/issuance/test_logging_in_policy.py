"""`[login]`, `clients` and clients with redirects in a policy: what does not load, and what fits whom."""

from __future__ import annotations

import pytest

from captoken.errors import IssuanceError
from captoken.issuance.desk import Desk, check_policy, imagined
from captoken.issuance.minting import Ask
from captoken.issuance.policy import Policy, read
from tests.fixtures import NOW
from tests.issuance.logging_in import APP, KEYRING, POLICY

HERE = POLICY.format(origin="https://issuer.example")


CI = """[provider.ci]
kind = "oidc"
issuer = "https://ci.example"
client_ids = ["x"]
max_login_age = 100
subject = "ci:{sub}"
"""


def loaded(old: str = "", new: str = "", more: str = "") -> Policy:
    assert old in HERE
    return read(HERE.replace(old, new, 1) + more)


@pytest.mark.parametrize(
    "old, new, why",
    [
        ('[login]\nprovider = "people"\nclient_id = "here"\n', "", r"clients needs a table \[login\]"),
        ('provider = "people"\nclient_id', 'provider = "nobody"\nclient_id', "of the kind oidc or saml"),
        ('client_id = "here"', 'client_id = "here"\nsso = "https://idp.example/sso"', "login.sso is for a provider of SAML"),
        ('client_id = "here"', 'client_id = ""', "login.client_id is what the provider calls"),
        ('client_id = "here"', 'client_id = "here"\nsession = 59', "login.session is in seconds"),
        ('client_ids = ["shell"]\nmax_login_age = 28800', "client_ids = []\nmax_login_age = 0", "a max_login_age of 1 or more"),
        ("[client.other]\nredirects", "[client.other]\nsecret_sha256 = \"" + "0" * 64 + '"\nredirects', "one of the two"),
        ('[client.other]\nredirects = ["http://127.0.0.1/callback"]', "[client.other]", "one of the two"),
        ('[client.other]\nredirects = ["http://127.0.0.1/callback"]', '[client.other]\nredirects = ["com.app:/x"]', "is not an https address"),
        ('clients = ["desk", "other", "*"]', 'clients = ["nobody"]', "clients has 'nobody'"),
        ('clients = ["desk", "other", "*"]', 'clients = ["https://app.example/"]', "clients has 'https://app.example/'"),
        ('clients = ["desk"]\nagents', 'bound = true\nclients = ["desk"]\nagents', "no bound, no approval"),
        ('clients = ["desk"]\nagents', 'keys = "shared"\nclients = ["desk"]\nagents', "no bound, no approval"),
        ('provider = "people"\nclient_id = "here"\n', f'provider = "ci"\nclient_id = "here"\n{CI}', "the subject is of provider ci, where people log"),
        ('clients = ["desk"]\nagents', 'clients = ["desk"]\nactor = { provider = "people", sub = "x" }\nagents', "names no workloads|there is no actor"),
        ("[grant.notes]", '[grant."tool:x"]', "must not begin with table: or tool:"),
        ('agents = ["shell"]', 'agents = ["shell"]\nfirst = { tools = {} }', "first: it is for a grant that has clients"),
        ("task_max = 7200", "task_max = 7200\nfirst = { tools = { purge = {} } }", r"first: .*purge"),
        ("task_max = 7200", "task_max = 7200\nfirst = { uses = 3 }", "first: it has allow, columns, operations, tables, tools"),
    ],
)  # fmt: skip
def test_what_nobody_could_log_in_with_does_not_load(old: str, new: str, why: str) -> None:
    with pytest.raises(IssuanceError, match=why) as caught:
        loaded(old, new)
    assert caught.value.code == "policy"
    assert loaded().login is not None


def test_of_a_provider_where_people_log_in_nobody_needs_show_id_tokens() -> None:
    assert loaded('client_ids = ["shell"]', "client_ids = []").login is not None


@pytest.mark.parametrize(
    "grant, client, why",
    [
        ("notes", "desk", None), ("notes", APP, None), ("notes", "stranger", "it is not for people who log in with"), ("sales", APP, "it is not for people"),
        ("notes", None, "it is for people who log in with desk, other, *"), ("shell", None, None), ("shell", "desk", "it is not for people who log in with"),
    ],
)  # fmt: skip
def test_a_grant_fits_those_applications_that_it_names(grant: str, client: str | None, why: str | None) -> None:
    policy = loaded()
    jane = imagined(policy, {"provider": "people", "sub": "alice", "groups": ["finance"]}, NOW)
    misses = {fit.grant.name: fit.misses for fit in Desk(policy, KEYRING).fits(jane, None, client)}[grant]
    assert misses is None if why is None else str(misses).startswith(why)


def test_a_login_for_a_server_finds_its_grant() -> None:
    """A client knows the server, and no grant's name."""
    policy = loaded()
    desk = Desk(policy, KEYRING)
    jane = imagined(policy, {"provider": "people", "sub": "alice", "groups": ["finance"]}, NOW)
    found = {one: desk.chosen(Ask(resources=(one,), client="desk", by_login=True), jane, None).name for one in ("https://issuer.example/mcp", "sales-db")}
    assert found == {"https://issuer.example/mcp": "notes", "sales-db": "sales"}
    with pytest.raises(IssuanceError, match="several grants fit"):
        desk.chosen(Ask(client="desk", by_login=True), jane, None)


def test_a_policy_tests_what_an_application_gets() -> None:
    test = """
[[test]]
grant = "notes"
client = "https://app.example/client.json"
subject = { provider = "people" }
allows = [{ tool = "read", arguments = {} }]
denies = [{ tool = "purge", arguments = {} }]
[[test]]
grant = "notes"
subject = { provider = "people" }
refused = true
"""
    check_policy(loaded(more=test))
    with pytest.raises(IssuanceError, match="test 1"):
        check_policy(loaded(more=test.replace('"purge"', '"read"')))


def test_a_root_of_a_login_says_so() -> None:
    """The specification's rule 44.20. So no other link 1 passes for a person's own words, and another application does not join its task."""
    policy = loaded()
    desk = Desk(policy, KEYRING, clock=lambda: NOW)
    jane = imagined(policy, {"provider": "people", "sub": "alice"}, NOW)
    ask = Ask(grant="notes", resources=("notes",), client="desk", by_login=True, held=True, keywords={"tools": {"read": {}}})
    plan = desk.plan(ask, jane, None)
    assert plan.root.unverified.root.ext["login:flow"] == "consent"  # type: ignore[union-attr]
    assert plan.entry.actor == "application desk" and plan.entry.seen == ()
    plain = desk.plan(Ask(grant="shell", resources=("notes",), held=True), jane, None)
    assert "login:flow" not in plain.root.unverified.root.ext and plain.entry.seen  # type: ignore[union-attr]

"""A request for several servers: it gets a set, or is refused and told why. Over ASGI, and as the policy is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from captoken import Access, Token, TokenSet, Verifier, current
from captoken.consent import Approver, ApproverKey
from captoken.errors import IssuanceError, StoreError
from captoken.issuance import desk
from captoken.issuance.minting import tokens_of
from captoken.issuance.policy import Policy, read
from captoken.issuance.registry import StartedTask
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.testing import FixedClock

from . import fixtures
from .fixtures import HOLDER, KEYRING, NOW, POLICY, ask, jane, pod, who
from .test_issuance import ASSERTION, BEARER, JWT, ROOT, World, exchange, login, nightly, proof, svid, workflow
from .test_records import Kept

TOKEN_SET = "urn:captoken:token-type:token-set"
SEND = Access(tool="send", arguments={"to": "board@example.com"}, cost={"mails": 1})
READ = Access(table="sales", operation="select")

# A grant of two servers, with a limit that one of them counts; and one of as many as a set has.
SETS = """
[resource.mail]
uris = ["https://mail.example/mcp"]
[grant.brief]
subject = { provider = "acme", groups = ["finance"] }
actor = { provider = "mesh", sub = "spiffe://acme.example/ns/risk/*" }
agents = ["orchestrator"]
resources = ["sales-db", "mail"]
lease = 60
task_max = 1200
on = { device-compliance-change = { operations = ["select"] } }
[grant.brief.give]
expires_in = 600
depth = 3
[grant.brief.give.servers.sales-db]
allow = { "sales" = ["select", "insert"] }
[grant.brief.give.servers.mail]
tools = { "send" = { to = { in = ["board@example.com", "cfo@example.com"] } }, "list" = {} }
[grant.counted]
subject = { provider = "acme", groups = ["finance"] }
actor = { provider = "mesh", sub = "spiffe://acme.example/ns/risk/*" }
agents = ["orchestrator"]
resources = ["sales-db", "mail"]
joins = ["brief"]
[grant.counted.give.servers.sales-db]
allow = { "sales" = ["select"] }
expires_in = 300
[grant.counted.give.servers.mail]
tools = { "send" = {} }
budget = { mails = 2 }
[[test]]
grant = "brief"
resource = "https://mail.example/mcp"
subject = { provider = "acme", sub = "jane", groups = ["finance"] }
actor = { provider = "mesh", sub = "spiffe://acme.example/ns/risk/sa/orchestrator" }
allows = [{ tool = "send", arguments = { to = "cfo@example.com" } }]
denies = [{ table = "sales", operation = "select" }, { tool = "drop" }]
"""
TEXT = POLICY.replace("\n[[test]]", f"{SETS}[[test]]", 1)


def policy() -> Policy:
    return read(TEXT)


@pytest.fixture
def world() -> Iterator[World]:
    yield World(policy())


def asking(*resources: str, details: Any = (), **form: Any) -> dict[str, Any]:
    """A request for a set. httpx sends a list as a parameter that comes again."""
    stated = [{"type": "captoken", **dict(details)}]
    made = {"scope": "brief", "requested_token_type": TOKEN_SET, "resource": [*(resources or ("sales-db", "mail"))]}
    return exchange(**{**made, "authorization_details": json.dumps(stated), **form})


def server(name: str, **facts: Any) -> Verifier:
    """One that has the keys of its own alone."""
    return Verifier(KEYRING.for_audience(name), name, clock=FixedClock(NOW), **facts)


def leased(world: World, held: TokenSet) -> TokenSet:
    """With the answer to what each of its tokens asks."""
    made = []
    for token in tokens_of(held):
        (ticket,) = token.needs
        answer = world.send("POST", "/.well-known/captoken/3p", json={"ticket": ticket.text})
        made.append(token.with_discharge(answer.json()["discharge"]))
    return TokenSet.of(*made)


# --- what comes -----------------------------------------------------------------------------------


def test_several_resources_get_a_token_each_under_the_keys_of_its_own_server(world: World) -> None:
    """The specification's rules 44.18 and 45.1."""
    said = world.ask(**asking("https://mail.example/mcp", "sales-db"))
    assert (said["status"], said["token_type"], said["issued_token_type"], said["expires_in"]) == (200, "N_A", TOKEN_SET, 600)
    held = TokenSet.parse(said["access_token"], clock=FixedClock(NOW))
    assert held.servers == ("mail", "sales-db") and held.serialize() == said["access_token"]
    roots = [token.unverified.root for token in tokens_of(held)]
    assert len({(root.token_id, root.issued_at, root.subject, root.task) for root in roots}) == 1
    assert roots[0].task == said["task"] and roots[0].ext["policy:grant"] == "brief"
    assert said["authorization_details"] == [
        {
            "type": "captoken", "audience": ["mail"], "task": said["task"], "expires_at": NOW + 600,
            "tools": {"list": {}, "send": {"to": {"in": ["board@example.com", "cfo@example.com"]}}},
        },
        {
            "type": "captoken", "audience": ["sales-db"], "task": said["task"], "expires_at": NOW + 600,
            "tables": ["sales"], "operations": ["insert", "select"],
        },
    ]  # fmt: skip

    full = leased(world, held)
    for name, other, mine, theirs in (("mail", "sales-db", SEND, READ), ("sales-db", "mail", READ, SEND)):
        text = full.present(audience=name)
        assert server(name).check(text, mine).code == "allowed"
        assert not server(name).check(text, theirs)
        # The keys of one server verify nothing of another, and each owes its own lease.
        assert server(other).check(text, mine).code == "unknown_key"
        assert server(name).check(held.present(audience=name), mine).code == "missing_discharge"


def test_one_resource_of_such_a_grant_gets_what_its_server_gets(world: World) -> None:
    said = world.ask(**asking("mail", requested_token_type=ROOT))
    assert said["issued_token_type"] == ROOT
    one = Token.parse(said["access_token"]).unverified.capability.json()
    assert "tools" in one and "tables" not in one and one["aud"] == ["mail"]

    # For one server a client may send it as it is; and a set may be of one.
    sent = world.ask(**asking("sales-db", requested_token_type=None, subject_token=login(iat=NOW - 4)))
    assert sent["token_type"] == "Bearer" and server("sales-db").check(sent["access_token"], READ).code == "allowed"
    alone = world.ask(**asking("mail", subject_token=login(iat=NOW - 3)))
    assert TokenSet.parse(alone["access_token"]).servers == ("mail",)


def test_without_a_resource_a_set_is_for_all_servers_of_the_grant(world: World) -> None:
    said = world.ask(**asking(resource=None))
    assert TokenSet.parse(said["access_token"]).servers == ("mail", "sales-db")


def test_audience_says_the_same_as_resource(world: World) -> None:
    said = world.ask(**asking(resource=None, audience=["mail", "sales-db"]))
    assert TokenSet.parse(said["access_token"]).servers == ("mail", "sales-db")


def test_a_set_is_bound_as_a_whole(world: World) -> None:
    held = leased(world, TokenSet.parse(world.ask(proof(), **asking())["access_token"], clock=FixedClock(NOW)))
    assert {token.unverified.key for token in tokens_of(held)} == {HOLDER.public}
    at = server("sales-db", replays=MemoryReplayStore(floor=0))
    assert at.check(held.present(audience="sales-db", signer=HOLDER, request=READ), READ).code == "allowed"
    assert at.check(held.present(audience="sales-db"), READ).code == "proof_missing"


def test_a_set_joins_a_task(world: World) -> None:
    first = world.ask(**asking("sales-db", requested_token_type=ROOT))
    said = world.ask(**asking(details={"task": first["task"]}, subject_token=login(iat=NOW - 4)))
    assert said["task"] == first["task"]
    assert {token.unverified.root.task for token in tokens_of(TokenSet.parse(said["access_token"]))} == {first["task"]}


def test_each_token_of_a_set_has_a_record_before_it_leaves() -> None:
    one = Kept(policy())
    held = TokenSet.parse(one.ask(**asking())["access_token"])
    found = one.records()
    assert [record["link"] for record in found] == [token.link_id for token in tokens_of(held)]
    assert {record["token"] for record in found} == {tokens_of(held)[0].unverified.root.token_id}
    assert all(record["asked"]["resource"] == ["sales-db", "mail"] and record["code"] == "issued" for record in found)


def test_a_set_of_which_one_token_has_no_record_does_not_leave() -> None:
    written: list[bytes] = []

    def write(line: bytes) -> None:
        if written:
            raise OSError("no room")
        written.append(line)

    said = Kept(policy(), trail={"write": write, "key": None}).ask(**asking())
    assert (said["status"], said["error"]) == (503, "temporarily_unavailable") and len(written) == 1


# --- what is narrowed -----------------------------------------------------------------------------


def test_keywords_go_where_they_fit_or_where_the_request_says(world: World) -> None:
    only = {"mail": {"tools": {"send": {"to": {"in": ["board@example.com"]}}}}}
    details = {"tables": ["sales"], "operations": ["select"], "expires_in": 300, "only": only}
    said = world.ask(**asking(details=details))
    mail, sales = said["authorization_details"]
    assert mail["tools"] == {"send": {"to": {"in": ["board@example.com"]}}} and sales["operations"] == ["select"]
    assert {mail["expires_at"], sales["expires_at"], said["expires_in"] + NOW} == {NOW + 300}

    said = world.ask(**asking(details={"expires_in": 100, "servers": ["mail"]}, subject_token=login(iat=NOW - 4)))
    assert [one["expires_at"] for one in said["authorization_details"]] == [NOW + 100, NOW + 600]
    assert said["expires_in"] == 100, "the first that ends"
    clamped = world.ask(**asking(details={"expires_in": 9000, "clamp": True}, subject_token=login(iat=NOW - 3)))
    assert clamped["expires_in"] == 600


@pytest.mark.parametrize(
    "details, says",
    [
        ({"tables": ["hr"], "operations": ["select"]}, "at sales-db: "),
        ({"only": {"mail": {"tools": {"drop": {}}}}}, "at mail: "),
        ({"only": {"mail": {"tables": ["sales"], "operations": ["select"]}}}, "at mail: "),
        ({"tables": ["*"], "operations": ["select"]}, "at sales-db: "),
        ({"expires_in": 601}, "at mail: "),
        ({"servers": ["mail"], "expires_in": 601}, "at mail: "),
        ({"only": {"hr-db": {"depth": 1}}}, "the set has no token for 'hr-db': it has tokens for mail, sales-db"),
        ({"servers": ["hr-db"], "depth": 1}, "no token for 'hr-db'"),
        ({"servers": ["mail"]}, "servers needs keywords beside it"),
        ({"servers": [], "depth": 1}, "no server of the set"),
        ({"servers": "mail", "depth": 1}, "a list of the names"),
        ({"servers": [7], "depth": 1}, "a list of the names"),
        ({"only": ["mail"]}, "an object of keywords"),
        ({"only": {"mail": 7}}, "an object of keywords"),
        ({"only": {}}, "there are none"),
        ({"only": {"mail": {"audience": ["hr-db"]}}}, "'audience' is not a keyword"),
        ({"only": {"mail": {"task": "other"}}}, "'task' is not a keyword"),
        ({"only": {"mail": {"only": {}}}}, "'only' is not a keyword"),
        ({"audience": ["mail"]}, "'audience' is not a keyword"),
        ({"budget": {"mails": 1}}, "would count at each server separately"),
        ({"uses": 1}, "would count at each server separately"),
        ({"expires_in": 60, "only": {"mail": {"expires_in": 30}}}, "is given twice for mail"),
        ({"only": {"mail": {"expires_at": NOW - 5}}}, "at mail: the token would have expired already"),
        ({"servers": ["mail"], "not_before": NOW + 900}, "at mail: the token would expire before it becomes valid"),
    ],
    ids=json.dumps,
)
def test_what_a_set_cannot_be_narrowed_to(world: World, details: dict[str, Any], says: str) -> None:
    said = world.ask(**asking(details=details))
    assert said["error"] == "invalid_authorization_details" and says in said["error_description"], said
    assert world.ask(**asking(subject_token=login(iat=NOW - 4)))["status"] == 200, "its twin"


def test_where_keywords_go_is_for_a_set_alone(world: World) -> None:
    for details in ({"only": {"mail": {"depth": 1}}}, {"servers": ["mail"], "depth": 1}):
        said = world.ask(**asking("mail", requested_token_type=ROOT, details=details))
        assert said["error"] == "invalid_authorization_details" and "is not a keyword" in said["error_description"]


def test_a_limit_is_counted_by_the_one_server_that_it_is_for(world: World) -> None:
    details = {"only": {"mail": {"uses": 2}}}
    text = world.ask(**asking(details=details, scope="counted"))["access_token"]
    held = TokenSet.parse(text, clock=FixedClock(NOW))
    mail = server("mail", ledger=MemoryLedger(floor=0))
    assert [mail.check(held.present(audience="mail"), SEND).code for _ in range(3)] == ["allowed", "allowed", "budget_exhausted"]
    assert server("sales-db").check(held.present(audience="sales-db"), READ).code == "allowed"


def test_60_a_counted_grant_with_servers_is_taken_once_in_a_task(world: World) -> None:
    """Whether as a set or server by server: another token of the counting server would double the budget."""
    task = world.ask(**asking())["task"]
    joined = {"scope": "counted", "details": {"task": task}}
    assert world.ask(**asking("mail", requested_token_type=ROOT, subject_token=login(iat=NOW - 4), **joined))["status"] == 200
    assert world.ask(**asking(subject_token=login(iat=NOW - 3), **joined))["error"] == "invalid_request"


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form, error, says",
    [
        ({"resource": ["sales-db", "hr-db"]}, "invalid_target", "no such resource"),
        ({"resource": ["sales-db", "scratch-db"]}, "invalid_target", "no such resource"),
        ({"resource": ["sales-db", "sales-db"]}, "invalid_target", "resource names sales-db twice"),
        ({"resource": ["mail", "https://mail.example/mcp"]}, "invalid_target", "resource names mail twice"),
        ({"resource": ["sales-db", "mail"] * 17}, "invalid_target", "more than 32 servers"),
        ({"resource": "sales-db", "audience": "mail"}, "invalid_target", "not both"),
        ({"requested_token_type": ROOT}, "invalid_target", TOKEN_SET),
        ({"requested_token_type": None}, "invalid_target", TOKEN_SET),
        ({"resource": None, "requested_token_type": ROOT}, "invalid_target", "name the resource"),
        ({"scope": "q3-risk"}, "invalid_target", "the grant does not give a set"),
        ({"scope": "q3-risk", "resource": "sales-db"}, "invalid_target", "the grant does not give a set"),
        ({"scope": ["brief", "brief"]}, "invalid_request", "scope is given twice"),
        ({"requested_token_type": [TOKEN_SET, ROOT]}, "invalid_request", "requested_token_type is given twice"),
    ],
    ids=lambda value: "" if isinstance(value, str) else json.dumps(value)[:60],
)
def test_a_set_that_nobody_gets(world: World, form: dict[str, Any], error: str, says: str) -> None:
    """What a set is not given for, and what is no set. Nothing is started by it."""
    asked = {"details": {"agent": "orchestrator"}, **form}
    said = world.ask(proof(), **asking(**asked))
    assert said["error"] == error and says in said["error_description"], said
    # The proof and the login are as good as they were: neither was used.
    assert world.ask(proof(), **asking())["status"] == 200


def test_servers_that_share_keys_have_one_token_and_no_set(world: World) -> None:
    form = asking(scope="reading", subject_token=login(groups=["readers"]), client_assertion=None, client_assertion_type=None)
    assert world.ask(**{**form, "resource": ["sales-db", "scratch-db"]})["error_description"].startswith("the grant does not give a set")


def test_a_body_has_room_for_32_servers_and_not_for_everything(world: World) -> None:
    many = asking(*(f"server-{number}" for number in range(32)))
    assert world.ask(**many)["error_description"] == "the grant has no such resource"
    many = asking(*(f"server-{number}" for number in range(33)))
    assert "more than 32" in world.ask(**many)["error_description"]
    many = asking(*(f"server-{number}" for number in range(70)))
    assert world.ask(**many)["error_description"] == "the body is not a form"


def test_an_id_jag_for_one_resource_gets_no_set() -> None:
    text = TEXT.replace(
        'resources = ["sales-db"]\ngive = { allow = { "sales" = ["select"] }, expires_in = 300 }\n\n[resource.mail]',
        'resources = ["sales-db", "mail"]\n'
        'give = { expires_in = 300, servers = { sales-db = { allow = { "sales" = ["select"] } }, mail = { tools = { "send" = {} } } } }\n\n[resource.mail]',
    )
    at = fixtures.desk(read(text))
    guest = {"aud_sub": "guest", "client_id": "c1"}
    asked = ask(client="c1", as_set=True)
    with pytest.raises(IssuanceError, match="for another resource") as told:
        at.plan(asked, who("partner", **guest, resource="https://sales.example/mcp"), None)
    assert told.value.code == "invalid_target"
    both = ["https://sales.example/mcp", "mail"]
    assert at.plan(asked, who("partner", **guest, resource=both), None).audiences == ("sales-db", "mail")


PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "subject_token": (asking(), "invalid_request"),
    "client_assertion": (asking(), "invalid_client"),
    "actor_token": (asking(client_assertion=None, client_assertion_type=None, actor_token=svid(), actor_token_type=JWT), "invalid_request"),
    "assertion": ({"grant_type": BEARER, "assertion": workflow(), "resource": "sales-db"}, "invalid_grant"),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_set_starts_a_task(world: World, place: str) -> None:
    """The specification's rule 44.1. Nor one of another task, nor one of which a part was swapped."""
    sound, error = PLACES[place]
    first = world.ask(**asking(subject_token=login(iat=NOW - 9)))["access_token"]
    other = world.ask(**asking(subject_token=login(iat=NOW - 8)))["access_token"]
    swapped = first.partition("~")[0] + "~" + other.partition("~")[2]
    assert TokenSet.parse(first) != TokenSet.parse(other)
    for text in (first, other, swapped, "caps1_", "caps1_" + "A" * 20_000):
        said = world.ask(**{**sound, place: text})
        assert said["error"] == error and "is a set of tokens of captoken, which cannot start a task" in said["error_description"]
        assert text not in said["error_description"] or text == "caps1_"
    one = tokens_of(TokenSet.parse(first))[0].serialize()
    assert "is a token of captoken" in world.ask(**{**sound, place: one})["error_description"]
    assert world.ask(**sound)["status"] == 200


def test_a_set_is_no_type_of_a_subject(world: World) -> None:
    text = world.ask(**asking(subject_token=login(iat=NOW - 9)))["access_token"]
    said = world.ask(**asking(subject_token=text, subject_token_type=TOKEN_SET))
    assert said["error"] == "invalid_request"


def test_keys_of_one_server_give_no_set() -> None:
    one = desk.Desk(policy(), KEYRING.for_audience("mail"), lease=fixtures.LEASE.public, clock=FixedClock(NOW))
    asked = {"grant": "brief", "resources": ("mail", "sales-db")}
    with pytest.raises(StoreError, match="the root keys are not for mail, sales-db"):
        one.plan(ask(as_set=True, **asked), jane(), pod())


# --- the desk -------------------------------------------------------------------------------------


def test_each_token_ends_with_its_task_and_is_of_the_task_that_counts() -> None:
    at = fixtures.desk(policy())
    asked = ask(grant="brief", as_set=True, keywords={"expires_in": 100, "servers": ["mail"]})
    plan = at.plan(asked, jane(), pod())
    started = StartedTask(plan.entry.task, "brief", "acme:jane", NOW + 300)
    ends = [token.unverified.expires_at for token in tokens_of(at.mint(plan, started))]
    assert ends == [NOW + 100, NOW + 300]
    other = at.mint(plan, StartedTask("brief-0000000000", "brief", "acme:jane", NOW + 3600))
    assert isinstance(other, TokenSet)
    assert {token.unverified.root.task for token in tokens_of(other)} == {"brief-0000000000"}

    late = at.plan(ask(grant="brief", as_set=True, keywords={"not_before": NOW + 400, "servers": ["mail"]}), jane(), pod())
    with pytest.raises(IssuanceError, match="at mail: the token would expire before it becomes valid"):
        at.mint(late, StartedTask(late.entry.task, "brief", "acme:jane", NOW + 300))


# --- the rule of two ------------------------------------------------------------------------------

RULE = """
marks = { private = { tables = ["sales"] }, inbox = { tools = ["list"] }, outside = { tools = ["send"] } }
forbid = [{ in = ["outside"], after = ["private", "inbox"] }]
"""
LIST = Access(tool="list", cost={"mails": 0})


def ruled() -> World:
    """A service whose administrator put the rule on each task."""
    text = TEXT.replace("expires_in = 600\ndepth = 3", f"expires_in = 600\ndepth = 3{RULE}")
    return World(read(text.replace("[grant.counted.give.servers.sales-db]", f"[grant.counted.give]{RULE}[grant.counted.give.servers.sales-db]")))


def test_a_rule_of_the_policy_is_on_every_task_and_holds_across_servers_with_one_ledger() -> None:
    """The specification's rules 46.3 and 45: marks of link 0 go to every server of a set. A request that asks for less keeps them."""
    world, ledger = ruled(), MemoryLedger(floor=0, shared=True)
    mail, sales = (server(name, ledger=ledger) for name in ("mail", "sales-db"))
    only = {"mail": {"tools": {"send": {"to": {"in": ["board@example.com"]}}, "list": {}}}}
    for place, details in enumerate([{}, {"expires_in": 300, "tables": ["sales"], "operations": ["select"], "only": only}]):
        said = world.ask(**asking(details=details, subject_token=login(iat=NOW - 4 - place)))
        assert all({"marks", "forbid"} <= one.keys() for one in said["authorization_details"])
        held = leased(world, TokenSet.parse(said["access_token"], clock=FixedClock(NOW)))
        clerk = held.delegate(to="clerk")

        def codes(*asked: tuple[Any, str, Verifier, Access]) -> list[str]:
            return [at.check(one.present(audience=name), access).code for one, name, at, access in asked]

        sends = (held, "mail", mail, SEND)
        assert codes(sends, (clerk, "sales-db", sales, READ), sends, (held, "mail", mail, LIST), sends) == ["allowed"] * 4 + ["forbidden_after"]
        assert codes((clerk, "mail", mail, SEND), (held, "sales-db", sales, READ)) == ["forbidden_after", "allowed"]


def test_a_consent_of_the_policy_is_needed_in_every_task() -> None:
    jane = Approver(ApproverKey.generate(), clock=FixedClock(NOW))
    consent = f'consent = [{{ by = "{jane.public}", for = {{ tools = ["send"] }} }}]'
    world = World(read(TEXT.replace("expires_in = 600\ndepth = 3", f"expires_in = 600\ndepth = 3\n{consent}\n")))
    said = world.ask(**asking(details={}))
    assert all("consent" in one for one in said["authorization_details"])
    held = leased(world, TokenSet.parse(said["access_token"], clock=FixedClock(NOW)))
    mail = server("mail", replays=MemoryReplayStore(floor=0), ledger=MemoryLedger(floor=0))
    refused = mail.check(held.present(audience="mail"), SEND)
    assert refused.code == "consent_missing"
    with current.use(held, consents=[jane.consent(refused.request() or "")]) as mine:
        assert [mail.check(mine.present(audience="mail"), SEND).code for _ in range(2)] == ["allowed", "replayed"]


def test_a_grant_that_joins_the_task_shares_its_marks_if_it_says_them() -> None:
    world, ledger = ruled(), MemoryLedger(floor=0, shared=True)
    mail, sales = (server(name, ledger=ledger) for name in ("mail", "sales-db"))
    said = world.ask(**asking())
    held = leased(world, TokenSet.parse(said["access_token"], clock=FixedClock(NOW)))
    assert mail.check(held.present(audience="mail"), LIST).code == "allowed"
    more = {"scope": "counted", "details": {"task": said["task"]}, "subject_token": login(iat=NOW - 4)}
    joined = TokenSet.parse(world.ask(**asking(**more))["access_token"], clock=FixedClock(NOW))
    assert sales.check(joined.present(audience="sales-db"), READ).code == "allowed"
    assert mail.check(joined.present(audience="mail"), SEND).code == "forbidden_after"
    assert mail.check(held.present(audience="mail"), SEND).code == "forbidden_after"


@pytest.mark.parametrize("asked", [{"marks": {}}, {"marks": {"private": {"tables": ["hr"]}}}, {"forbid": []}], ids=json.dumps)
def test_nobody_asks_a_rule_away(asked: dict[str, Any]) -> None:
    """A mark or a rule of a request is one more, at one server; or it is none."""
    said = ruled().ask(**asking(details={"only": {"mail": asked}}))
    if said["status"] == 200:
        mail, _ = said["authorization_details"]
        assert mail["forbid"] == [{"after": ["inbox", "private"], "in": ["outside"]}] and len(mail["marks"]) == 4
    else:
        assert said["error"] == "invalid_authorization_details"


# --- the policy -----------------------------------------------------------------------------------


def many(count: int) -> str:
    names = [f"server-{number}" for number in range(count)]
    resources = "".join(f"[resource.{name}]\n" for name in names)
    servers = ", ".join(f"{name} = {{}}" for name in names)
    give = f'give = {{ allow = {{ "sales" = ["select"] }}, servers = {{ {servers} }}, expires_in = 300 }}'
    text = POLICY.replace("[resource.sales-db]", f"{resources}[resource.sales-db]")
    old = 'resources = ["sales-db"]\ngive = { allow = { "sales" = ["select"] }, expires_in = 300 }\n[grant.guests]'
    assert old in text
    return text.replace(old, f"resources = {json.dumps(names)}\n{give}\n[grant.guests]")


def test_a_set_of_32_servers_and_no_more() -> None:
    said = World(read(many(32))).ask(**nightly(requested_token_type=TOKEN_SET, resource=None))
    held = TokenSet.parse(said["access_token"], clock=FixedClock(NOW))
    assert len(held.servers) == 32 and len(said["authorization_details"]) == 32
    for name in ("server-0", "server-31"):
        assert server(name).check(held.present(audience=name), READ).code == "allowed"
    with pytest.raises(IssuanceError, match=r"grant\.nightly\.give\.servers: a set has at most 32 servers, not 33"):
        read(many(33))


def test_a_workload_alone_gets_a_set_of_any_kind_of_grant() -> None:
    said = World(read(many(2))).ask(
        grant_type="client_credentials", client_assertion=workflow(), client_assertion_type=ASSERTION,
        requested_token_type=TOKEN_SET, resource=["server-1", "server-0"],
    )  # fmt: skip
    assert TokenSet.parse(said["access_token"]).servers == ("server-0", "server-1")
    assert said["scope"] == "nightly"

"""Sets of tokens: one task at several servers, none of which can mint for another."""

import json
from itertools import combinations

import pytest

from captoken import Access, Issuer, Keyring, Token, TokenFormatError, TokenSet, Verifier, WideningError, current
from captoken.errors import DelegationError, NoToken
from captoken.keys import HolderKey
from captoken.testing import FixedClock, fixed_random

NOW = 1_764_061_200
KEYRING = Keyring.from_keys({"k1": bytes(range(1, 33))}, current="k1")
SERVERS = {
    "hr-db": {"tables": ["hr"], "operations": ["select"]},
    "mail": {"tools": {"send": {"to": {"any": True}}}},
    "sales-db": {"tables": ["sales", "market.*"], "operations": ["select", "insert"]},
}
SALES, HR = (Access(table=table, operation="select") for table in ("sales", "hr"))
SEND = Access(tool="send", arguments={"to": "a@example.com"})


def issuer(**more):
    return Issuer(KEYRING, clock=FixedClock(NOW), random=fixed_random("a set"), **more)


def minted(servers=SERVERS, **more):
    return issuer().mint_set(subject="user:jane", agent="orchestrator", task="q3", servers=servers, **more)


def verifier(server):
    return Verifier(KEYRING.for_audience(server), audience=server, clock=FixedClock(NOW))


def bodies(made):
    """The last link at each server."""
    return {server: json.loads(made.token(server).unverified.bodies[-1]) for server in made.servers}


def test_each_server_takes_its_own_token_and_no_other():
    """Spec 45.1: minted under the keys of each server alone."""
    made = minted()
    for server, access in (("sales-db", SALES), ("hr-db", HR), ("mail", SEND)):
        text = made.present(audience=server)
        for other in SERVERS:
            code = verifier(other).check(text, access).code
            assert code == ("allowed" if other == server else "unknown_key"), (server, other)


def test_all_roots_have_one_id_and_one_time():
    """Spec 45.1."""
    roots = [minted(control="control-plane").token(server).unverified.root for server in ("hr-db", "mail", "sales-db", "control-plane")]
    assert len({root.token_id for root in roots}) == len({root.issued_at for root in roots}) == 1
    assert [root.audience for root in roots] == ["hr-db", "mail", "sales-db", "control-plane"]


def test_the_token_for_the_control_plane_permits_nothing():
    """Spec 45.7."""
    token = minted(control="control-plane").token("control-plane")
    assert json.loads(token.unverified.bodies[0]).items() >= {"tables": [], "operations": [], "tools": {}}.items()
    sent = minted(control="control-plane").present(audience="control-plane")
    assert not any(verifier("control-plane").check(sent, access) for access in (SALES, HR, SEND))
    with pytest.raises(ValueError, match="among the servers too"):
        minted(control="mail")


def test_a_set_ends_with_the_first_of_its_tokens():
    assert minted(expires_in=60).expires_at == NOW + 60
    two = minted(expires_in=60)
    assert two.attenuate(only={"mail": {"expires_in": 30}}).expires_at == NOW + 30


def test_what_stands_outside_holds_for_all():
    made = minted(expires_in=60, depth=1)
    assert {token.unverified.expires_at for token in map(made.token, made.servers)} == {NOW + 60}
    for more, said in (
        ({"uses": 3}, "put it into servers, for one of them"),
        ({"budget": {"cents": 3}}, "put it into servers, for one of them"),
        ({"audience": "mail"}, "audience"),
        ({"tables": ["a"], "operations": ["select"]}, "operations, tables is given for all servers, and again for hr-db"),
    ):
        with pytest.raises(ValueError, match=said):
            minted(**more)
    assert minted({"mail": {"tools": {"send": {}}, "uses": 3}}).servers == ("mail",)


@pytest.mark.parametrize("servers", [{}, {f"server-{number}": SERVERS["mail"] for number in range(33)}])
def test_a_set_has_1_to_32_tokens(servers):
    """Spec 45.2."""
    with pytest.raises(ValueError, match="1 to 32"):
        minted(servers)


def test_32_servers_are_not_too_many():
    made = minted({f"server-{number}": SERVERS["mail"] for number in range(32)})
    assert TokenSet.parse(made.serialize()) == made and len(made.servers) == 32


def test_a_keyring_of_one_server_mints_no_set():
    with pytest.raises(ValueError, match="does not derive others"):
        Issuer(KEYRING.for_audience("mail")).mint_set(subject="u", agent="a", task="t", servers=SERVERS)


# --- its text --------------------------------------------------------------------------------------------------------


def test_its_text_has_one_spelling():
    """Spec 45.3."""
    made = minted()
    text = made.serialize()
    again = TokenSet.parse(text)
    assert again == made and hash(again) == hash(made) and again.serialize() == text and again != minted({"mail": SERVERS["mail"]})
    assert text.startswith("caps1_") and text.count("~") == 2 and made != text
    first, *rest = text.removeprefix("caps1_").split("~")
    for wrong in (
        "caps1_" + "~".join([*rest, first]),
        "caps1_" + "~".join([first, first]),
        "caps1_" + first + "~",
        "caps1_~" + first,
        "caps1_",
        "caps1_" + first + "~cap1_" + rest[0],
        made.token("mail").serialize(),
        "caps1_" + "~".join([first] * 33),
        "caps1_" + "a" * 262_144,
        "",
        b"caps1_",
        None,
    ):
        with pytest.raises(TokenFormatError):
            TokenSet.parse(wrong)


def test_no_server_takes_the_text_of_a_set():
    """Spec 45.4."""
    decision = verifier("sales-db").check(minted().serialize(), SALES)
    assert decision.code == "malformed" and "and this is a set of tokens: send what present(audience=...) returns" in decision.line()
    with pytest.raises(TokenFormatError, match="a set of tokens"):
        Token.parse(minted().serialize())


def test_nothing_shows_it():
    made = minted()
    texts = [repr(made), str(made), f"{made}"]
    assert all("cap1" not in text and "caps1" not in text for text in texts) and "sales-db" in repr(made)


# --- which tokens are one set ------------------------------------------------------------------------------------------


def test_tokens_of_two_issuers_may_be_one_set():
    other = Issuer(Keyring.generate().for_audience("calendar"))
    mine = minted().token("mail")
    theirs = other.mint(subject="user:jane", agent="orchestrator", task="q3", tools={"read": {}})
    assert TokenSet.of(mine, theirs).servers == ("calendar", "mail")


def test_tokens_of_different_people_agents_tasks_or_holders_are_none():
    """Spec 45.2."""

    def token(server="calendar", **more):
        keyring = KEYRING.for_audience(server)
        said = {"subject": "user:jane", "agent": "orchestrator", "task": "q3", "tools": {"read": {}}} | more
        return Issuer(keyring).mint(**said)

    mine = minted().token("mail")
    assert TokenSet.of(mine, token()).servers == ("calendar", "mail")
    for other in (token(subject="user:joe"), token(agent="clerk"), token(task="q4"), token().delegate(to="clerk")):
        with pytest.raises(ValueError, match="the tokens of a set must have the same subject, agent, task, holder"):
            TokenSet.of(mine, other)
    with pytest.raises(ValueError, match="two tokens of the set are for"):
        TokenSet.of(mine, token("mail"))
    with pytest.raises(ValueError, match="each token of a set must be minted for one server"):
        TokenSet.of(Issuer(KEYRING).mint(subject="user:jane", agent="orchestrator", task="q3", tools={"read": {}}))
    with pytest.raises(TypeError, match="a set is made of tokens, not of"):
        TokenSet.of(mine.serialize())
    with pytest.raises(ValueError, match="1 to 32"):
        TokenSet.of()


# --- narrowing -----------------------------------------------------------------------------------------------------------


def test_a_hand_over_goes_to_every_token_with_one_nonce():
    """Spec 45.5."""
    links = bodies(minted().delegate(to="clerk", tables=["sales"], servers=["sales-db"]))
    assert len({link["n"] for link in links.values()}) == 1 and {link["to"] for link in links.values()} == {"clerk"}
    assert links["sales-db"]["tables"] == ["sales"] and "tables" not in links["hr-db"] | links["mail"]


def test_two_hand_overs_have_two_nonces():
    one = minted().delegate(to="clerk")
    two = one.delegate(to="helper")
    assert bodies(one)["mail"]["n"] != bodies(two)["mail"]["n"]


def test_a_keyword_goes_to_the_servers_that_hold_its_domain():
    made = minted().attenuate(tools={"send": {"to": {"in": ["a@example.com"]}}})
    assert bodies(made)["mail"]["tools"] and made.token("hr-db") == minted().token("hr-db")
    assert set(bodies(minted().attenuate(expires_in=60))) == set(SERVERS)
    everywhere = bodies(minted().attenuate(expires_in=60))
    assert {link["exp"] for link in everywhere.values()} == {NOW + 60}


def test_what_would_leave_nothing_names_the_server_and_what_to_write():
    with pytest.raises(WideningError, match=r"^at hr-db: tables: .*; servers=\[...\] or only=\{...\} says where keywords go$"):
        minted().delegate(to="clerk", tables=["sales"])
    with pytest.raises(WideningError, match=r"^at mail: tables"):
        minted().attenuate(tables=["sales"], servers=["mail"])
    with pytest.raises(ValueError, match="tables: no server of the set has tables; the set is for mail"):
        minted({"mail": SERVERS["mail"]}).attenuate(tables=["sales"])
    for more in ({}, {"only": {"mail": {"tables": ["sales"]}}, "expires_in": 60}):  # what only says stands for itself
        with pytest.raises(ValueError, match="no server of the set has"):
            minted({"mail": SERVERS["mail"]}).attenuate(tables=["sales"], **more)
    with pytest.raises(ValueError, match="nothing is restricted: name tables, tools or another caveat"):
        minted().attenuate()


def test_only_says_keywords_for_each_server():
    made = minted().delegate(to="clerk", expires_in=60, only={"sales-db": {"tables": ["sales"]}, "hr-db": {"fresh": 5}})
    links = bodies(made)
    assert links["sales-db"]["tables"] == ["sales"] and links["hr-db"]["fresh"] == 5
    assert {link["exp"] for link in links.values()} == {NOW + 60}
    with pytest.raises(ValueError, match="expires_in is given twice for mail"):
        minted().delegate(to="clerk", expires_in=60, only={"mail": {"expires_in": 5}})


@pytest.mark.parametrize("verb", ["attenuate", "delegate"])
@pytest.mark.parametrize("counted", [{"uses": 3}, {"budget": {"cents": 3}}])
def test_what_counts_is_for_one_server(verb, counted):
    """Spec 45.6: it would count at each by itself, whatever ledger they share."""
    to = {"to": "clerk"} if verb == "delegate" else {}
    narrow = getattr(minted(), verb)
    for where in ({}, {"servers": ["mail", "hr-db"]}):
        with pytest.raises(ValueError, match="would count at each server separately: name one server, by"):
            narrow(**to, **counted, **where)
    for where in ({"servers": ["mail"], **counted}, {"servers": "mail", **counted}, {"only": {"mail": counted}}):
        links = bodies(narrow(**to, **where))
        assert counted.keys() <= links["mail"].keys() and counted.keys().isdisjoint(links["hr-db"] | links["sales-db"])


def test_fewer_servers_and_wrong_ones():
    made = minted()
    assert made.only("mail").servers == ("mail",) and made.only("sales-db", "mail").servers == ("mail", "sales-db")
    assert made.capability("mail") == made.token("mail").unverified.capability
    for ask in (
        lambda: made.only("nowhere"),
        lambda: made.present(audience="nowhere"),
        lambda: made.capability("nowhere"),
        lambda: made.delegate(to="clerk", servers=["nowhere"]),
        lambda: made.attenuate(only={"nowhere": {"expires_in": 5}}),
    ):
        with pytest.raises(ValueError, match="the set has no token for 'nowhere': it has tokens for hr-db, mail, sales-db"):
            ask()
    with pytest.raises(ValueError, match="stays with its server"):
        made.attenuate(audience="mail")
    with pytest.raises(ValueError, match="1 to 32"):
        made.only()


def test_no_subset_reaches_more_than_its_servers():
    made = minted().delegate(to="clerk", expires_in=60)
    for count in (1, 2):
        for some in combinations(SERVERS, count):
            part = made.only(*some)
            assert part.servers == tuple(sorted(some)) and all(part.token(server) == made.token(server) for server in some)


def test_a_set_that_is_bound_is_handed_on_by_its_key():
    mine, next_ = HolderKey.generate(), HolderKey.generate()
    made = minted(key=mine.public)
    with pytest.raises(DelegationError, match=r"^at hr-db: "):
        made.delegate(to="clerk")
    handed = made.delegate(to="clerk", key=next_.public, signer=mine)
    assert {handed.token(server).unverified.key for server in handed.servers} == {next_.public}
    text = handed.present(audience="sales-db", signer=next_, request=SALES)
    assert text.count(".") == 1 and handed.token("sales-db").unverified.holder == "clerk"


def test_a_set_writes_what_its_tokens_would_write():
    """And goes on by the clock and the randomness that each token had."""
    one = minted().delegate(to="clerk", expires_in=60)
    two = one.delegate(to="helper", expires_in=30)
    assert two.token("mail").unverified.expires_at == NOW + 30
    assert two.token("mail").context == minted().token("mail").context or two.token("mail").context.clock() == NOW


def test_keep_and_clamp_hold_at_each_server():
    """What is kept is kept where another domain is named, and nowhere is it a link of its own."""
    both = {"desk": {"tables": ["*"], "operations": ["select"], "tools": {"send": {}}}, "mail": SERVERS["mail"]}
    links = bodies(minted(both).delegate(to="clerk", tools={"send": {}}, keep="tables", servers=["desk"]))
    assert links["desk"]["tables"] == ["*"] and "tables" not in links["mail"]
    with pytest.raises(ValueError, match="at desk: keep='tables' needs tables or tools beside it"):
        minted(both).delegate(to="clerk", keep=["tables"])
    assert bodies(minted().delegate(to="clerk", tables=["sales", "hr"], clamp=True))["sales-db"]["tables"] == ["sales"]
    with pytest.raises(TypeError, match="clamp must be a bool"):
        minted().attenuate(expires_in=60, clamp="no")


def test_a_set_is_bound_as_a_whole():
    """One that has tokens of two keys, or one without, is none: what signs one would not sign the other."""
    mine, other = HolderKey.generate(), HolderKey.generate()
    made = minted().attenuate(key=mine.public)
    assert {made.token(server).unverified.key for server in made.servers} == {mine.public}
    with pytest.raises(ValueError, match="holder and key"):
        TokenSet.of(made.token("mail"), minted().token("hr-db"))
    with pytest.raises(DelegationError, match="at hr-db: the signer is not the key"):
        made.delegate(to="clerk", key=other.public, signer=other)
    with pytest.raises(DelegationError, match="at hr-db: "):
        made.attenuate(key=other.public)


# --- where a token is held -------------------------------------------------------------------------------------------------


def test_a_set_is_held_as_a_token_is():
    made = minted()
    with current.use(made) as held, current.delegate(to="clerk", only={"sales-db": {"tables": ["sales"]}}, servers=["mail"], expires_in=60):
        mine = current.holding()
        assert (held.holder, mine.holder, mine.holders) == ("orchestrator", "clerk", ("orchestrator", "clerk"))
        assert mine.at("mail", "elsewhere") is mine.at("nowhere", "mail") and mine.at("mail").at("any") is mine.at("mail")
        assert mine.at("sales-db").one.unverified.expires_at == NOW + 900 and mine.at("mail").one.unverified.expires_at == NOW + 60
        assert verifier("sales-db").check(mine.present(audience="sales-db"), SALES)
        assert mine.present(audience="sales-db") == mine.present(audience="sales-db")
        with pytest.raises(NoToken, match="the set has no token for nowhere: it has tokens for hr-db, mail, sales-db"):
            mine.present(audience="nowhere")
        with pytest.raises(NoToken, match="a verifier that has no name"):
            mine.at()
        with pytest.raises(NoToken, match="choose one of them"):
            mine.one  # noqa: B018
    assert "caps1" not in repr(held) + repr(held.at("mail"))


def test_where_keywords_go_is_said_of_a_set_alone():
    for more in ({"only": {"mail": {}}}, {"servers": ["mail"]}):
        with current.use(minted().token("mail")), pytest.raises(ValueError, match="this is one token"), current.delegate(to="clerk", **more):
            pass


def test_the_text_of_a_set_is_held_and_goes_to_a_process():
    with current.use(minted().serialize()) as held:
        assert held.token == minted()
        environ = current.environment()
    with current.from_environment(environ=environ) as there:
        assert there.token == minted() and environ == {}

    def steps():
        yield current.holding().holder

    assert list(current.during(minted(), steps())) == ["orchestrator"]


# --- attacks ---------------------------------------------------------------------------------------------------------------


def test_a_token_that_is_swapped_for_a_wider_one_gains_nothing():
    """Whoever writes a set puts into it what he has: a token of another set is that set's, and is judged by itself."""
    narrow, wide = minted().delegate(to="clerk", only={"sales-db": {"tables": ["sales"]}}), minted().delegate(to="clerk")
    mixed = TokenSet.of(narrow.token("hr-db"), wide.token("sales-db"))
    assert mixed.present(audience="hr-db") and mixed.token("sales-db") == wide.token("sales-db")
    texts = minted().serialize().removeprefix("caps1_").split("~")
    other = minted().delegate(to="clerk").serialize().removeprefix("caps1_").split("~")
    with pytest.raises(TokenFormatError, match="the tokens of a set must have the same subject, agent, task, holder"):
        TokenSet.parse("caps1_" + "~".join([texts[0], other[1], texts[2]]))


def test_a_server_that_mints_for_itself_with_the_id_of_the_set_mints_for_nobody_else():
    own = Issuer(KEYRING.for_audience("mail"), clock=FixedClock(NOW), random=fixed_random("a set"))
    forged = own.mint(subject="user:jane", agent="orchestrator", task="q3", tools={"*": {}})
    assert forged.unverified.root.token_id == minted().token("mail").unverified.root.token_id
    sent = TokenSet.of(forged, minted().token("sales-db"))
    assert verifier("mail").check(sent.present(audience="mail"), SEND)
    for server, access in (("sales-db", SALES), ("hr-db", HR)):
        assert verifier(server).check(forged.attenuate(expires_in=60).serialize(), access).code == "unknown_key"


def test_at_servers_that_are_lost_nothing_is_shown():
    made = minted().only("mail")
    with current.use(made), pytest.raises(NoToken), current.delegate(to="clerk") as held:
        held.present(audience="sales-db")


# --- attacked ----------------------------------------------------------------------------------------------------------------


def of_two_sets():
    """Two sets of one task, the second wider, and the tokens of both in one text."""
    narrow = minted().delegate(to="clerk", only={"sales-db": {"tables": ["sales"]}, "hr-db": {"tables": []}})
    wide = Issuer(KEYRING, clock=FixedClock(NOW)).mint_set(
        subject="user:jane", agent="orchestrator", task="q3", servers=SERVERS
    ).delegate(to="clerk")  # fmt: skip
    return narrow, wide


def test_tokens_of_two_sets_that_are_mixed_are_worth_what_each_is_worth():
    """They are one set for whoever holds both. No server sees more than its own, and an entry on one tree leaves the other."""
    narrow, wide = of_two_sets()
    mixed = TokenSet.of(narrow.token("hr-db"), wide.token("sales-db"))
    assert mixed.token("hr-db").token_id != mixed.token("sales-db").token_id
    for server, access in (("hr-db", HR), ("sales-db", SALES)):
        its = narrow if server == "hr-db" else wide
        assert verifier(server).check(mixed.present(audience=server), access).code == verifier(server).check(its.present(audience=server), access).code
    onward = bodies(mixed.delegate(to="helper"))
    assert onward["hr-db"]["n"] == onward["sales-db"]["n"] not in {link["n"] for link in (*bodies(narrow).values(), *bodies(wide).values())}


def test_a_token_that_is_swapped_for_that_of_a_holder_above_is_no_set():
    """And within a text: each token says who holds it, and a link that was taken off is missed by no server's chain."""
    narrow, wide = of_two_sets()
    with pytest.raises(ValueError, match="holder and key"):
        TokenSet.of(narrow.token("mail"), minted().token("sales-db"))
    parts = narrow.serialize().removeprefix("caps1_").split("~")
    above = minted().serialize().removeprefix("caps1_").split("~")
    with pytest.raises(TokenFormatError, match="holder and key"):
        TokenSet.parse("caps1_" + "~".join([*parts[:2], above[2]]))
    with pytest.raises(TokenFormatError, match="order of their servers"):
        TokenSet.parse("caps1_" + "~".join([parts[2], *parts[:2]]))
    assert TokenSet.of(narrow.token("mail"), wide.token("sales-db")).capability("mail") == narrow.capability("mail")


def test_a_server_that_mints_by_the_id_of_a_set_mints_for_itself_alone():
    """Its forgery joins the set, since anybody can write what a set asks for, and is worth nothing at another server."""
    made = minted()
    drawn = fixed_random("a set")
    forger = Issuer(KEYRING.for_audience("mail"), clock=FixedClock(NOW), random=drawn)
    forged = forger.mint(subject="user:jane", agent="orchestrator", task="q3", tools={"*": {}}, tables=["*"], operations=["*"])
    assert forged.token_id == made.token("mail").token_id
    mixed = TokenSet.of(forged, made.token("sales-db"))
    assert verifier("mail").check(mixed.present(audience="mail"), Access(tool="anything"))
    for server, access in (("sales-db", SALES), ("hr-db", HR)):
        assert verifier(server).check(forged.serialize(), access).code == "unknown_key"
    assert verifier("sales-db").check(mixed.present(audience="sales-db"), HR).code == "table"


def test_a_server_that_is_lost_takes_its_own_token_along_and_no_other():
    made = minted()
    left = made.only("sales-db", "hr-db")
    assert verifier("sales-db").check(left.present(audience="sales-db"), SALES)
    with current.use(left), pytest.raises(NoToken, match="the set has no token for mail: it has tokens for hr-db, sales-db"):
        current.holding().present(audience="mail")
    assert made.token("mail").serialize().removeprefix("cap1_") not in left.serialize()

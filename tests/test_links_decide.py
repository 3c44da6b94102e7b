"""Links decide, and nothing else (spec 24.23): what they say together is for people and for writers, and allows nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from captoken import Access, Capability, Denied, Issuer, Token, Verifier
from captoken._language import calls, capability, conditions, constraints, data, patterns, rights
from captoken._language.caveats import BUILT_IN, V1
from captoken._language.checks import Checks
from captoken._language.constraints import Constraint, Range
from captoken._language.kinds import BuiltIn, Situation
from captoken._language.link import Link
from captoken._language.links import read_link
from captoken.caveats import Caveat, Vocabulary
from captoken.keys import DischargerKey
from captoken.stores.memory import MemoryLedger
from tests.fixtures import KEYRING, NOW, WHO, clock, mint, verifier
from tests.fixtures import data as of_table
from tests.fixtures import tool as of_tool

# Links of every kind of caveat and constraint: with each, one access that they permit and one that they do not.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], Access, Access]] = {
    "counted marks": (
        {
            "unrestricted": True,
            "marks": {"in": {"tables": ["a"]}, "out": {"tools": ["f"], "but": {"tools": {"f": {"x": {"in": [1]}}}}}},
            "forbid": [{"in": ["out"], "after": ["in"]}],
            "audience": "here",
        },
        {"tools": {"*": {}}, "tables": ["*"], "expires_in": 60},
        of_table("a"),
        Access(table="a", operation="select", tool="f", arguments={"x": 2}),
    ),
    "tables": ({"tables": ["a.*"], "operations": ["*"]}, {"tables": ["a.b"]}, of_table("a.b"), of_table("a.c")),
    "operations": ({"tables": ["*"], "operations": ["select", "insert"]}, {"operations": ["select"]}, of_table("t"), of_table("t", "insert")),
    "allow": ({"allow": {"*": ["*"]}}, {"allow": {"a": ["select"], "*": []}}, of_table("a"), of_table("b")),
    "columns": (
        {"tables": ["t"], "operations": ["*"]},
        {"columns": {"t": ["id", "name"]}},
        of_table("t", "select", "id"),
        of_table("t", "select", "pay"),
    ),
    "where": ({"unrestricted": True, "where": {"n": {"max": 9}}}, {"where": {"n": {"max": 5}}}, of_table("t", n=5), of_table("t", n=6)),
    "in": ({"tools": {"*": {}}}, {"tools": {"f": {"x": {"in": [1, "a"]}}}}, of_tool("f", x="a"), of_tool("f", x=True)),
    "range": ({"tools": {"pay": {"cents": {"max": 500}}}}, {"tools": {"pay": {"cents": {"max": 5}}}}, of_tool("pay", cents=5), of_tool("pay", cents=100)),
    "path": ({"tools": {"r": {"p": {"path": ["/a"]}}}}, {"tools": {"r": {"p": {"path": ["/a/b"]}}}}, of_tool("r", p="/a/b/c"), of_tool("r", p="/a/c")),
    "prefix": (
        {"tools": {"f": {"x": {"prefix": ["acct-"]}}}},
        {"tools": {"f": {"x": {"prefix": ["acct-1"]}}}},
        of_tool("f", x="acct-12"),
        of_tool("f", x="acct-2"),
    ),
    "url": (
        {"tools": {"get": {"u": {"url": ["https://*.example.com/"]}}}},
        {"tools": {"get": {"u": {"url": ["https://a.example.com/x"]}}}},
        of_tool("get", u="https://a.example.com/x/y"),
        of_tool("get", u="https://a.example.com/y"),
    ),
    "cidr": (
        {"tools": {"f": {"ip": {"cidr": ["10.0.0.0/8"]}}}},
        {"tools": {"f": {"ip": {"cidr": ["10.1.0.0/16"]}}}},
        of_tool("f", ip="10.1.2.3"),
        of_tool("f", ip="10.2.0.1"),
    ),
    "each": (
        {"tools": {"f": {"x": {"each": {"in": ["a", "b"]}}}}},
        {"tools": {"f": {"x": {"each": {"in": ["a"]}, "most": 2}}}},
        of_tool("f", x=["a"]),
        of_tool("f", x=["b"]),
    ),
    "domain": ({"tables": ["t"], "operations": ["*"], "tools": {"*": {}}}, {"tables": ["t"]}, of_table("t"), of_tool("f")),
    "counted": (
        {"tables": ["t"], "operations": ["*"], "uses": 1000, "budget": {"eur": 9000}, "audience": "here"},
        {"uses": 900, "budget": {"eur": 800}},
        Access(table="t", operation="select", cost={"eur": 1}),
        Access(table="t", operation="select"),
    ),
    "place and time": (
        {"tables": ["t"], "operations": ["*"], "audience": ["here", "there"], "not_before": NOW - 9},
        {"audience": ["here"], "task": "task-123/a/b", "expires_in": 60},
        of_table("t"),
        of_table("u"),
    ),
}

# All of the algebra: by class or module, and name.
ALGEBRA: list[tuple[Any, str]] = [
    *((kind, name) for kind in (BuiltIn, *BUILT_IN) for name in ("meet", "covers", "normalized", "plainly_covers", "beyond", "stated")),
    *((rights.TableRights, name) for name in ("meet", "prohibits", "stated", "is_nothing")),
    *((calls.ToolCalls, name) for name in ("meet", "prohibits", "stated", "is_nothing")),
    *((conditions.TaskPath, name) for name in ("meet", "prohibits", "stated", "is_nothing")),
    (conditions.AtMost, "meet"),
    (conditions.AtMost, "covers"),
    *((kind, name) for kind in (Constraint, *constraints._KINDS) for name in ("meet", "alike", "covers")),
    *((Capability, name) for name in ("of", "of_link", "meet", "covers", "prohibits", "json", "nothing")),
    *((capability._BuiltIns, name) for name in ("universal", "value", "is_nothing", "prohibits", "stated")),
    (capability, "meet_of"),
    (patterns, "meet"),
    (patterns, "normal"),
    (patterns, "widest"),
]


def small(caveats: dict[str, Any], more: dict[str, Any]) -> Token:
    return mint(**caveats).delegate(to="b", **more)


def answers(one: Verifier, text: str, *asked: Access) -> list[str]:
    """What a text is told that is sent four times, and then a grant of it, whatever it is asked first."""
    told = [str(one.check(text, access)) for access in asked for _ in range(4)]
    told += [str(one.explain(text, access)) for access in asked]
    for access in asked:
        grant = one.authenticate(text)
        told += [str(grant.check(each)) for each in (access, *asked, access)]
        told += [str(grant.recheck([each])) for each in asked]
    return told


def ledger() -> MemoryLedger:
    return MemoryLedger(shared=True, floor=0)


def asking(*, counting: bool) -> Verifier:
    return verifier(audience="here", allow_unaddressed=True, **({"ledger": ledger()} if counting else {}))


@pytest.mark.parametrize("name", KINDS)
def test_no_decision_asks_the_algebra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part of it raises, in turn and then all together: no decision changes, in code, link or word."""
    caveats, more, permitted, refused = KINDS[name]
    text = small(caveats, more).serialize()
    counting = name.startswith("counted")
    told = answers(asking(counting=counting), text, permitted, refused)
    first, second = (verifier(audience="here", allow_unaddressed=True, ledger=ledger()).check(text, each) for each in (permitted, refused))
    assert first and not second

    def fails(*_: Any, **__: Any) -> Any:
        raise AssertionError("the algebra was asked for a decision")

    for owner, part in ALGEBRA:
        with monkeypatch.context() as patched:
            patched.setattr(owner, part, fails, raising=False)
            assert answers(asking(counting=counting), text, permitted, refused) == told, (owner, part)
    for owner, part in ALGEBRA:
        monkeypatch.setattr(owner, part, fails, raising=False)
    assert answers(asking(counting=counting), text, permitted, refused) == told
    with pytest.raises(AssertionError, match="algebra"):
        _ = asking(counting=counting).authenticate(text).capability


def test_the_parts_are_all_there_are() -> None:
    """What a kind has beside its reading, `prohibits` and words is in the list above, by name."""
    listed = {part for _, part in ALGEBRA}
    judging = {"prohibits", "looks", "accepts", "accepts_all", "read", "words", "key", "domain", "keywords", "counts", "narrows_situation", "plain", "slot", "excess", "asks_access"}
    shown = {"json", "of", "bound", "keys", "by", "filtered"}
    for kind in (*BUILT_IN, *constraints._KINDS):
        own = {name for name, part in vars(kind).items() if not name.startswith("_") and not isinstance(part, property)} - set(getattr(kind, "__struct_fields__", ()))
        assert own <= listed | judging | shown, (kind, own - listed - judging - shown)


def test_a_meet_that_is_wrong_allows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With min and max swapped in the meet of ranges, what is held is too much; and each answer is that of the links."""

    def swapped(self: Range, other: Range) -> Range:
        lows = [low for low in (self.low, other.low) if low is not None]
        highs = [high for high in (self.high, other.high) if high is not None]
        return Range(min(lows, default=None), max(highs, default=None))

    text = mint(tools={"pay": {"cents": {"max": 500}}}).delegate(to="b", tools={"pay": {"cents": {"max": 5}}}).serialize()
    monkeypatch.setattr(Range, "alike", swapped)
    one, asked = verifier(), of_tool("pay", cents=100)
    assert one.authenticate(text).capability.prohibits(asked) is None, "so wrong is the meet"
    assert [one.check(text, asked).code for _ in range(5)] == ["argument"] * 5
    grant = one.authenticate(text)
    assert [grant.check(asked).code for _ in range(4)] == ["argument"] * 4


# --- in a row ---------------------------------------------------------------------------------------------------------


def row(*links: dict[str, Any], task: str = "task-123", audience: str | None = None) -> Any:
    return Checks.of([_link(stated) for stated in links], task, audience)


def _link(stated: dict[str, Any]) -> Link:
    found = read_link(json.dumps(stated, separators=(",", ":"), sort_keys=True).encode(), V1)
    assert isinstance(found, Link), found
    return found


HERE = Situation(NOW, audiences=frozenset(("here", "there")))
N = {"n": "AAAAAAAAAAA"}


def test_what_stands_twice_is_asked_once() -> None:
    """By its bytes: 1 and true are two values, and so are two orders of one list."""
    many = row(*[{"tables": ["a"], "exp": NOW + 9, "where": {"x": {"in": [1]}}}] * 9, {"where": {"x": {"in": [True]}}}, {"tables": ["a"]})
    assert (len(many.early), *map(len, many.late.values())) == (1, 2, 1, 0), "two of attributes, one list of tables, none of tools"
    assert many.permit(of_table("a", x=1), HERE) is False and many.permit(of_table("a", x=True), HERE) is False
    assert len(row({"tables": ["a", "b"]}, {"tables": ["b", "a"]}).late["data"]) == 2


ASKED: list[tuple[str, list[dict[str, Any]], Access | None, bool]] = [
    ("nothing said", [{"exp": NOW + 1}], of_table("t"), True),
    ("nothing said, of no domain", [{"exp": NOW + 1}], Access(), True),
    ("expired", [{"exp": NOW}], of_table("t"), False),
    ("expired, no access", [{"exp": NOW + 1}, {"exp": NOW}], None, False),
    ("not yet", [{"nbf": NOW + 1}], None, False),
    ("no overlay", [{"fresh": 60}], None, False),
    ("addressed", [{"aud": ["here", "far"]}, {"aud": ["here"]}], None, True),
    ("addressed to another", [{"aud": ["far"]}], None, False),
    ("two names, none in both lists", [{"aud": ["here"]}, {"aud": ["there"]}], None, False),
    ("tasks on one path", [{"task": "task-123/a"}, {"task": "task-123/a/b"}, {"task": "task-123"}], None, True),
    ("tasks apart", [{"task": "task-123/a"}, {"task": "task-123/b"}], None, False),
    ("a task of another tree", [{"task": "task-9"}], None, False),
    ("tables", [{"tables": ["t"]}], of_table("t"), True),
    ("another table", [{"tables": ["t"]}], of_table("u"), False),
    ("tables close tools", [{"tables": ["t"]}], of_tool("f"), False),
    ("tables close tools that another link names", [{"tables": ["t"]}, {"tools": {"f": {}}}], of_tool("f"), False),
    ("tools close tables", [{"tools": {"f": {}}}], of_table("t"), False),
    ("both named", [{"tables": ["t"], "tools": {"f": {}}}], Access(table="t", operation="select", tool="f"), True),
    ("both stated, one named", [{"tables": ["t"]}], Access(table="t", operation="select", tool="f"), False),
    ("both stated, the tool refused", [{"tables": ["t"], "tools": {"g": {}}}], Access(table="t", operation="select", tool="f"), False),
    ("of no domain, one named", [{"tables": ["t"]}], Access(), False),
    ("no access, a domain named", [{"tables": ["t"]}], None, True),
    ("an attribute", [{"where": {"n": {"max": 1}}}], Access(attributes={"n": 1}), True),
    ("an attribute that is not stated", [{"where": {"n": {"max": 1}}}], Access(), False),
    ("a cost that is not stated", [{"budget": {"eur": 1}, **N}], of_table("t"), False),
    ("a cost", [{"budget": {"eur": 1}, "uses": 1, **N}], Access(cost={"eur": 1}), True),
]


@pytest.mark.parametrize(("links", "asked", "permitted"), [case[1:] for case in ASKED], ids=[case[0] for case in ASKED])
def test_a_row_permits_what_its_links_permit(links: list[dict[str, Any]], asked: Access | None, permitted: bool) -> None:
    assert row(*links).permit(asked, HERE) is permitted


def test_the_root_s_audience_is_one_more() -> None:
    assert row({"aud": ["here"]}, audience="here").permit(None, HERE) and not row({"aud": ["here"]}, audience="there").permit(None, HERE)
    assert not row(audience="here").permit(None, Situation(NOW))


def test_a_second_name_of_the_server_is_asked_for_each_time() -> None:
    """What was found for one question is kept with the token, and not the names that it left."""
    text = mint(tables=["t"], operations=["select"], audience=["a", "b"]).attenuate(audience=["b"]).serialize()
    codes = {name: [verifier(audience=name).check(text, of_table("t")).code for _ in range(4)] for name in ("a", "b", "c")}
    assert codes == {"a": ["wrong_audience"] * 4, "b": ["allowed"] * 4, "c": ["wrong_audience"] * 4}


def test_a_check_that_raises_permits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a row as by itself (15.12): it is then said of which caveat."""
    one, text = verifier(), mint(tables=["t"], operations=["select"]).serialize()
    grant = one.authenticate(text)
    assert grant.check(of_table("t")) and grant.check(of_table("t"))
    monkeypatch.setattr(data.patterns, "contains", lambda *_: 1 / 0)
    assert grant.check(of_table("t")), "it is not asked"
    wide = one.authenticate(mint(tables=["a.*"], operations=["select"]).serialize())
    assert [wide.check(of_table("a.b")).code for _ in range(3)] == ["attribute"] * 3


def test_a_denial_is_told_link_by_link() -> None:
    """The first and the fourth answer are one to the word: the row says no more than no."""
    text = mint(tables=["t"], operations=["select"]).delegate(to="b", tables=["t"]).delegate(to="c", tables=["t"]).serialize()
    one = verifier()
    told = [one.check(text, of_table("hr")) for _ in range(4)]
    assert len({str(each) for each in told}) == 1 and [refusal.link for refusal in told[3].refusals] == [0, 1, 2]
    with pytest.raises(Denied, match="table hr"):
        one.authorize(text, of_table("hr"))


# --- before they are read ---------------------------------------------------------------------------------------------


def test_a_discharge_that_fails_makes_no_caveat_of_an_embedder_s() -> None:
    """The signature before the meaning (24.1): who was behind the token is still told, by version 1 alone."""
    made: list[object] = []

    class Noted(Caveat, frozen=True):
        key = "acme:noted"

        def __post_init__(self) -> None:
            made.append(self.value)

        def prohibits(self, access: Access, situation: Situation) -> None:
            return None

    vocabulary = Vocabulary(Noted)
    discharger = DischargerKey.from_bytes(bytes(range(6, 38)))
    issuer = Issuer(KEYRING, vocabulary=vocabulary, clock=clock())
    token = issuer.mint(**WHO, unrestricted=True, **{"acme:noted": 1}).require(discharger.public, need={"kind": "human"})
    text = token.delegate(to="b").serialize()
    made.clear()
    one = verifier(vocabulary=vocabulary)
    decision = one.check(text, of_table("t"))
    assert decision.code == "missing_discharge" and not made
    assert decision.attribution is not None and [actor.name for actor in decision.attribution.chain] == ["orchestrator", "b"]
    plain = issuer.mint(**WHO, unrestricted=True, **{"acme:noted": 1}).serialize()
    made.clear()
    assert one.check(plain, of_table("t")) and made == [1]

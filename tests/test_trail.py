"""The trail: a record of each decision, that nobody can change unseen, and no secret in it."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from time import sleep, time
from typing import Any

import pytest

from captoken import Access, Actor, Caller, Decision, Denied, Token, Verifier
from captoken._format.encoding import b64encode, encode_json
from captoken._format.primitives import sha256
from captoken._format.root import RootRecord
from captoken._verification.decision import Attribution
from captoken.audit import AuditTrail, Verdict, _tree, check, read, rfc8693
from captoken.audit.analysis import gather
from captoken.errors import AuditError
from captoken.keys import AuditKey, HolderKey
from captoken.proof import with_proof
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.stores.ports import START
from tests.fixtures import KEY, KEYRING, NOW, SALES, clock, data, mint, tool, verifier

SERVER = AuditKey.from_bytes(bytes(range(32)))
OTHER = AuditKey.from_bytes(bytes(range(1, 33)))


class Trail:
    """Lines in a list, and a verifier that writes them."""

    def __init__(self, **facts: Any) -> None:
        self.lines: list[bytes] = []
        told = {key: facts.pop(key) for key in ("key", "every", "head", "values", "trace", "ticks") if key in facts}
        if "ticks" in told:  # the clock of the trail: `clock` is the verifier's
            told["clock"] = told.pop("ticks")
        self.trail = AuditTrail(self.lines.append, **told)
        self.verifier: Verifier = verifier(audit=self.trail, **facts)

    @property
    def records(self) -> list[dict[str, Any]]:
        """All of them, which hold together."""
        assert check(self.lines).head == self.trail.head
        return list(read(self.lines))

    @property
    def decisions(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == "decision"]


def written(count: int = 6, **facts: Any) -> Trail:
    """A trail of that many decisions on one token."""
    made = Trail(**facts)
    for number in range(count):
        made.verifier.check(mint(), data("sales" if number % 2 else "hr"))
    return made


# --- what is recorded ------------------------------------------------------------------------------------------------


def test_a_record_says_who_tried_what_and_what_came_of_it() -> None:
    """Of an allowance, with the token that it was about; of a denial, with the links that refuse and who added them."""
    trail = Trail()
    token = mint().delegate(to="sales-agent", tables=["sales"])
    assert trail.verifier.check(token, data("sales"), caller=Caller(agent="sales-agent"))
    assert not trail.verifier.check(token, data("hr"))
    described, allowed, denied = trail.records
    assert len(denied.pop("id")) == 12
    unverified = token.unverified
    who = {
        "token": unverified.root.token_id, "sub": "user:jane", "task": "task-123", "link": verifier().authenticate(token).link_ids[-1],
        "chain": [{"name": "orchestrator", "basis": "issued"}, {"name": "sales-agent", "basis": "vouched"}],
    }  # fmt: skip
    assert allowed == {
        "kind": "decision", "at": NOW, "allowed": True, "code": "allowed", "access": {"table": "sales", "operation": "select"},
        "caller": {"agent": "sales-agent"}, "seq": 2, "prev": b64encode(sha256(trail.lines[0][:-1])), **who,
    }  # fmt: skip
    assert denied == {
        "kind": "decision", "at": NOW, "allowed": False, "code": "table", "access": {"table": "hr", "operation": "select"},
        "refusals": [
            {"code": "table", "text": 'table hr is not among ["market.*", "sales"]', "link": 0, "added_by": "the issuer"},
            {"code": "table", "text": 'table hr is not among ["sales"]', "link": 1, "added_by": "orchestrator"},
        ],
        "seq": 3, "prev": b64encode(sha256(trail.lines[1][:-1])), **who,
    }  # fmt: skip
    assert described["kind"] == "token" and RootRecord.decode(encode_json(described["root"])) == unverified.root and described["seq"] == 1 and described["prev"] == START
    assert [link["says"] for link in described["links"]] == [json.loads(body) for body in unverified.bodies]
    assert [link["id"] for link in described["links"]] == list(verifier().authenticate(token).link_ids)


def test_each_decision_has_one_record_and_a_dry_run_none() -> None:
    """Whoever asks: a verifier or a grant, `check`, `authorize`, `authenticate`, `reserve`, allowed or not. `explain` is for
    people, and is not recorded; nor is `recheck`. What it finds against the token is, once an adapter denies for it."""
    trail, token = Trail(ledger=MemoryLedger(shared=True, floor=0)), mint(**SALES, uses=5)
    one = trail.verifier

    def records(count: int, allowed: bool, call: Callable[..., Any], *args: Any) -> Any:
        before, result = len(trail.decisions), None
        try:
            result = call(*args)
        except Denied:
            assert not allowed
        made = trail.decisions[before:]
        assert [record["allowed"] for record in made] == [allowed] * count
        return result

    grant = records(1, True, one.authenticate, token)
    for asks in (one.check, one.authorize):
        records(1, True, asks, token, data("sales"))
        records(1, False, asks, token, data("hr"))
        records(1, False, asks, "cap1_", data("hr"))
    records(1, False, one.authenticate, token.serialize()[:-2])
    for asks in (grant.check, grant.authorize):
        records(1, True, asks, data("sales"))
        records(1, False, asks, data("hr"))
    records(1, True, grant.reserve, data("sales")).cancel()
    records(1, False, grant.reserve, data("hr"))
    for access in (data("sales"), data("hr")):
        records(0, True, grant.explain, access)
        records(0, True, one.explain, token, access)
        records(0, True, one.explain, "cap1_", access)
    records(1, True, grant.check, data("sales"))
    records(1, False, grant.check, data("sales"))
    assert trail.decisions[-1]["code"] == "budget_exhausted"
    assert records(0, True, grant.recheck)
    refused = records(0, True, grant.recheck, [data("hr")])
    assert not refused and records(1, False, grant.deny, refused).code == "table"
    assert records(1, False, grant.deny, "table", "an adapter says so", data("hr")).code == "table"
    assert records(1, False, one.deny, token, "table", "an adapter says so").code == "table"
    with pytest.raises(TypeError):
        one.check(token, "sales")  # type: ignore[arg-type]


def test_each_access_of_one_step_is_recorded() -> None:
    """All that were allowed; of a step that is refused, the access that it was refused for, and all where they cost too much
    together. One that cannot be recorded denies."""
    trail = Trail(ledger=MemoryLedger(shared=True, floor=0))
    grant = trail.verifier.authenticate(mint(**SALES, uses=2))
    assert grant.check_all([data("sales"), data("market.eu")]) and not grant.check_all([data("sales"), data("hr")])
    assert grant.check_all([data("sales")]) and not grant.check_all([data("sales"), data("market.eu")])
    said = [(record["access"]["table"], record["code"]) for record in trail.decisions[1:]]
    assert said == [("sales", "allowed"), ("market.eu", "allowed"), ("hr", "table"), ("sales", "allowed"), ("sales", "budget_exhausted"), ("market.eu", "budget_exhausted")]
    full = Full(2)
    decision = verifier(audit=AuditTrail(full)).authenticate(mint()).check_all([data("sales"), data("market.eu"), data("market.x")])
    assert decision.code == "store_unavailable" and check(full.lines).decisions == 1


def test_a_token_that_nobody_vouches_for_is_not_described() -> None:
    """A record of such a denial says nothing that a stranger wrote."""
    trail = Trail()
    token = mint().serialize()
    other = "B" if token[-20] == "A" else "A"
    forged = token[:-20] + other + token[-19:]
    for text in ("cap1_AAAA", "", token[:-3], token[:60] + "A" + token[61:], forged):
        assert not trail.verifier.check(text, data("hr"))
    assert [record["kind"] for record in trail.records] == ["decision"] * 5
    assert trail.records[-1]["code"] == "bad_signature", "one that is whole, but for its signature"
    assert all(record.keys() == {"kind", "id", "at", "allowed", "code", "access", "refusals", "seq", "prev"} for record in trail.records)


def test_a_token_is_described_once_and_again_after_it_was_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chain once: a child is another. Of the last so many; here of the last three."""
    monkeypatch.setattr("captoken.audit.trail.REMEMBERED", 3)
    trail = Trail()
    chains = [mint(tables=[f"t{number}"], operations=["select"]) for number in range(4)]
    for at in (0, 0, 1, 0, 2, 1, 2, 3, 3, 0, 1):
        trail.verifier.check(chains[at], data("sales"))
    kinds = "".join(record["kind"][0] for record in trail.records)
    assert kinds == "td" "d" "td" "d" "td" "d" "d" "td" "d" "td" "td"
    trail.verifier.check(chains[1].attenuate(tables=["t1"]), data("sales"))
    assert [record["kind"] for record in trail.records][-2:] == ["token", "decision"]


def test_a_chain_that_cannot_be_read_is_described_as_far_as_it_can() -> None:
    """Links of bytes, with a signature, and of a third party; the broken chain is told from the whole one."""
    trail, token = Trail(), mint()
    key = HolderKey.generate()
    bound = mint(**SALES, key=key.public).delegate(to="b", key=HolderKey.generate().public, signer=key)
    for child in (token.with_raw_link(b"\xff\x00"), token.with_raw_link(b'{"new":1}'), bound, token.with_raw_link(b"ticket", bytes(72))):
        trail.verifier.check(child, data("sales"))
    links = [record["links"][-1]["says"] for record in trail.records if record["kind"] == "token"]
    assert links[0] == {"unreadable": True} and links[3] == {"asks": "?"} and links[1] == {"new": 1}
    assert links[2].keys() == {"from", "to", "n", "key"}
    assert [record["code"] for record in trail.decisions] == ["unreadable_link", "unknown_caveat", "unaddressed", "missing_discharge"]


def test_what_no_verifier_can_read_is_not_recorded_as_what_it_says() -> None:
    """Nor does a link that its holder has written look like what a record says of another: whom it asks, or that it is
    unreadable. A holder cannot put names into the trail so."""
    trail, token = Trail(), mint()
    handing = b'{"from":"orchestrator","n":"AAAAAAAAAAA","to":"innocent"}'
    bodies = [
        handing + b"x" * 87, handing + b"." + b"A" * 86, b'{"asks":"whoever"}', b'{"asks":"whoever","exp":1}', b'{"unreadable":true}', b"{}",
        b'{"exp":"soon"}', handing[:-1], b'{"acme:new":1,"exp":"soon"}', b'{"key":"short"}.' + b"A" * 86,
    ]  # fmt: skip
    for body in bodies:
        assert trail.verifier.check(token.with_raw_link(body), data("sales")).code in ("unreadable_link", "unknown_caveat")
    said = [record["links"][-1]["says"] for record in trail.records if record["kind"] == "token"]
    assert said == [*[{"unreadable": True}] * 8, {"acme:new": 1, "exp": "soon"}, {"unreadable": True}]
    key = HolderKey.generate()
    bound = mint(**SALES).with_raw_link(b'{"key":"%s"}.' % key.public.encode() + b"A" * 86)  # no key was there to sign it
    assert trail.verifier.check(bound, data("sales")).code == "unreadable_link"
    assert trail.records[-2]["links"][-1]["says"] == {"unreadable": True}


def test_a_record_says_what_a_ledger_was_asked_and_how_much_clocks_may_differ() -> None:
    """Of an allowance by which reservation, so that a use is counted once; the leeway where there is one."""
    trail = Trail(ledger=MemoryLedger(shared=True, floor=0))
    token = mint(**SALES, uses=2)
    for _ in range(3):
        trail.verifier.check(token, data("sales"))
    first, second, short = trail.decisions
    assert len({first["taken"], second["taken"]}) == 2 and len(first["taken"]) == 22
    assert short["code"] == "budget_exhausted" and "taken" not in short and "leeway" not in first
    trail.trail.record(Decision(code="table", now=NOW, leeway=300))
    assert trail.decisions[-1]["leeway"] == 300


def test_an_embedder_s_own_decision_without_links_is_recorded() -> None:
    """Who is behind it, and no token described."""
    trail = Trail()
    who = Attribution(mint().unverified.root, (Actor("orchestrator", "issued"),), "task-123")
    trail.trail.record(Decision(code="table", now=NOW, who=who))
    assert [record["kind"] for record in trail.records] == ["decision"] and trail.decisions[0]["sub"] == "user:jane"


def test_a_trace_id_goes_with_it() -> None:
    """Where there is one: the operator's own, or none."""
    traces = iter(["trace-1", None, "\u00e9"])
    trail = Trail(trace=lambda: next(traces))
    for _ in range(3):
        trail.verifier.check(mint(), data("sales"))
    assert [record.get("trace") for record in trail.decisions] == ["trace-1", None, "\u00e9"]


# --- what is not ------------------------------------------------------------------------------------------------------


SECRET = "tr0ub4dor&3"
SPOKEN = Access(
    tool="mail.send", arguments={"to": SECRET, "n": 1764064}, attributes={"region": SECRET}, table="people", operation="select",
    columns=("name", "name"), cost={"eur": 5},
)  # fmt: skip


def test_no_value_of_an_argument_or_attribute_is_recorded_unless_asked_for() -> None:
    """Their names are, and what it costs; allowed or denied, by that very value or otherwise."""
    for values in (False, True):
        for caveats in (
            {"unrestricted": True}, SALES, {"tools": {"mail.send": {"to": {"in": ["x"]}, "n": {"any": True}}}, "allow": {"people": ["*"]}},
            {"unrestricted": True, "where": {"region": {"in": ["eu"]}}},
        ):  # fmt: skip
            trail = Trail(values=values)
            trail.verifier.check(mint(**caveats), SPOKEN)
            said = trail.decisions[0]["access"]
            everything = b"".join(trail.lines)
            assert (SECRET.encode() in everything) == (b"1764064," in everything) == values
            assert said["arguments"] == ({"to": SECRET, "n": 1764064} if values else ["n", "to"])
            assert said["attributes"] == ({"region": SECRET} if values else ["region"])
            assert said["columns"] == ["name", "name"] and said["cost"] == {"eur": 5}
    trail = Trail(values=True)
    trail.verifier.check(mint(), Access(tool="t", arguments={"a": 1}))
    assert trail.decisions[0]["access"] == {"tool": "t", "arguments": {"a": 1}}


def test_conditions_that_a_server_held_are_recorded_whole() -> None:
    """They are words of the token, and no values of rows."""
    trail = Trail()
    held = [{"tenant": {"in": ["acme"]}}]
    trail.verifier.check(mint(unrestricted=True), Access(table="orders", operation="select", rows=held))
    assert trail.decisions[0]["access"] == {"table": "orders", "operation": "select", "rows": held}


def test_nobody_can_use_what_a_trail_holds() -> None:
    """No text of a token, no tag, no key and no proof, whole or in part, of a bearer token or a bound one."""
    trail = Trail(values=True, audience="a", allow_unaddressed=True, replays=MemoryReplayStore(floor=0), key=SERVER, every=2)
    key, next_key = HolderKey.generate(), HolderKey.generate()
    bearer = mint().delegate(to="b", tables=["sales"])
    bound = mint(**SALES, key=key.public, audience="a").delegate(to="b", key=next_key.public, signer=key)
    text = bound.serialize()
    proven = with_proof(text, next_key, audience="a", request=data("sales"), clock=clock())
    assert trail.verifier.check(proven, data("sales")) and trail.verifier.check(bearer, data("sales"))
    assert not trail.verifier.check(proven, data("sales")) and not trail.verifier.check(bearer, data("hr"))
    everything = b"".join(trail.lines).decode()
    grant = verifier(audience="a", allow_unaddressed=True).authenticate(bearer)
    secrets = [KEY, bytes(range(32)), *grant._genuine.tags, bound.secret_packet.signature, bearer.secret_packet.signature]
    for secret in secrets:
        assert b64encode(secret) not in everything and secret.hex() not in everything
    assert "cap1" not in everything and proven[-40:] not in everything and text[-40:] not in everything and text[10:50] not in everything


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, {"~": "null"}), (1.5, {"~": "1.5"}), (1e300, {"~": "1e+300"}), (-0.0, {"~": "-0.0"}), (2**53 - 1, 2**53 - 1),
        (1 - 2**53, 1 - 2**53), (2**53, {"~": hex(2**53)}), (-(10**30), {"~": hex(-(10**30))}), (True, True),
        ("\U0001f600\ue000", "\U0001f600\ue000"), ("\x00\u2028\x7f", "\x00\u2028\x7f"), ([], []), ({}, {}), ("null", "null"), ("0x1", "0x1"),
        ([None, {"a": [1.5]}], [{"~": "null"}, {"a": [{"~": "1.5"}]}]),
        ({"\U0001f600": 1, "\ue000": 0.5}, {"\U0001f600": 1, "\ue000": {"~": "0.5"}}),
        ({"~": "null"}, {"~": {"~": "null"}}), ({"~": None}, {"~": {"~": {"~": "null"}}}), ({"~": 1, "a": 2}, {"~": 1, "a": 2}),
    ],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_values_that_canonical_json_has_not_are_marked(value: Any, told: Any) -> None:
    """Each line is canonical, whatever JSON the arguments were; what canonical JSON has stays as it is, and no value looks like
    another: neither like a text, nor like a mark."""
    trail = Trail(values=True)
    access = Access(tool="t", arguments={"a": value, "b": [1, "x"]})
    assert trail.verifier.check(mint(tools={"t": {}}), access)
    assert trail.decisions[0]["access"]["arguments"] == {"a": told, "b": [1, "x"]}


def test_values_of_any_size_and_depth_are_recorded() -> None:
    """Integers too long to be printed, and JSON too deep to be spelled: shortened, and the decision stands."""
    deep: Any = 5
    for _ in range(40):
        deep = {"a": [deep]}
    trail = Trail(values=True)
    assert trail.verifier.check(mint(tools={"t": {}}), Access(tool="t", arguments={"a": 10**5000, "b": deep, "c": "x" * 100_000}))
    said = trail.decisions[0]["access"]["arguments"]
    for key in ("~", "a"):
        nested: Any = None
        for _ in range(200):
            nested = {key: nested}
        assert trail.verifier.check(mint(tools={"t": {}}), Access(tool="t", arguments={"a": nested}, attributes={"~": nested}))
    assert said["a"] == {"~": hex(10**5000)} and '{"~": "..."}' in json.dumps(said["b"]) and len(said["c"]) == 100_000


# --- the tree of a checkpoint ----------------------------------------------------------------------------------------


def rfc6962(hashes: list[bytes]) -> bytes:
    """The Merkle tree hash as section 2.1 of RFC 6962 has it."""
    if len(hashes) == 1:
        return hashes[0]
    left = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\1" + rfc6962(hashes[:left]) + rfc6962(hashes[left:]))


def test_a_path_shows_one_line_and_no_other() -> None:
    """For each leaf of each tree of up to 33: at its own place alone, with its own steps alone."""
    for count in range(1, 34):
        leaves = [_tree.leaf(b"%d" % at) for at in range(count)]
        root = _tree.root(leaves)
        assert root == rfc6962([sha256(b"\0%d" % at) for at in range(count)])
        for at, leaf in enumerate(leaves):
            steps = _tree.path(_tree.levels(leaves), at)
            assert _tree.root_by(leaf, at, count, steps) == root
            assert _tree.root_by(_tree.leaf(b"x"), at, count, steps) != root
            assert _tree.root_by(leaf, at, count, [*steps, leaf]) is None
            assert not steps or _tree.root_by(leaf, at, count, steps[:-1]) is None
            assert not steps or _tree.root_by(leaf, at, count, [leaf, *steps[1:]]) != root
            assert count == 1 or _tree.root_by(leaf, at ^ 1 if at ^ 1 < count else at - 1, count, steps) != root


def trees(lines: list[bytes]) -> list[tuple[int, int]]:
    """Of each checkpoint its number and the first record of its tree, which has the root of these records."""
    found = []
    for record in read(lines):
        if record["kind"] == "checkpoint" and "tree" in record:
            first, seq = record["tree"]["first"], record["seq"]
            root = rfc6962([sha256(b"\0" + line[:-1]) for line in lines[first - 1 : seq - 1]])
            assert record["tree"]["root"] == b64encode(root)
            found.append((seq, first))
    return found


def test_a_checkpoint_has_a_tree_of_the_records_since_the_last_one() -> None:
    """That checkpoint is the first of them. One that is the first record has none: it is of nothing."""
    trail = Trail(key=SERVER, every=4)
    trail.trail.checkpoint()
    for _ in range(6):
        trail.verifier.check(mint(), data("sales"))
    trail.trail.checkpoint()
    trail.trail.checkpoint()
    assert trees(trail.lines) == [(6, 1), (10, 6), (11, 10)]
    assert check(trail.lines, [SERVER.public]).signed == 10
    assert "tree" not in trail.records[0]


def test_a_trail_that_goes_on_has_trees_of_what_it_wrote_itself() -> None:
    trail = written(2, key=SERVER)
    again = AuditTrail(trail.lines.append, key=SERVER, head=trail.trail.head)
    again.checkpoint()
    assert trees(trail.lines) == []
    again.record(Decision(code="table", now=NOW))
    again.checkpoint()
    assert trees(trail.lines) == [(6, 4)] and check(trail.lines, [SERVER.public]).signed == 5


def test_what_could_not_be_written_is_in_no_tree() -> None:
    full = Full(1)
    trail = AuditTrail(full, key=SERVER)
    trail.record(Decision(code="table", now=NOW))
    for _ in range(2):
        with pytest.raises(OSError, match="no space left"):
            trail.record(Decision(code="table", now=NOW))
        with pytest.raises(OSError, match="no space left"):
            trail.checkpoint()
    full.room = 9
    trail.record(Decision(code="table", now=NOW))
    trail.checkpoint()
    assert trees(full.lines) == [(3, 1)] and check(full.lines, [SERVER.public]).signed == 2


def test_a_tree_has_so_many_records_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones, where no checkpoint could be had for long."""
    monkeypatch.setattr(_tree, "MOST", 3)
    trail = written(4, key=SERVER)
    trail.trail.checkpoint()
    assert trees(trail.lines) == [(6, 3)] and check(trail.lines, [SERVER.public]).signed == 5


# --- a trail that fails ----------------------------------------------------------------------------------------------


class Full:
    """A place to write to that has no room, from some line on."""

    def __init__(self, room: int) -> None:
        self.lines: list[bytes] = []
        self.room = room

    def __call__(self, line: bytes) -> None:
        if len(self.lines) >= self.room:
            raise OSError(28, f"no space left, and {SECRET}")
        self.lines.append(line)


@pytest.mark.parametrize("room", [0, 1])
def test_what_cannot_be_recorded_is_denied(room: int) -> None:
    """An allowance, by a verifier or a grant: whether the description of the token fails or the record itself. Once there is
    room again the trail goes on where it stood, whole."""
    full = Full(room)
    one = verifier(audit=AuditTrail(full))
    decision = one.check(mint(), data("sales"))
    assert not decision and (decision.code, decision.step, decision.grant) == ("store_unavailable", 11, None)
    assert decision.refusals[0].text == f"the decision cannot be recorded: OSError: {os.strerror(28)}" and SECRET not in str(decision)
    with pytest.raises(Denied) as caught:
        one.authenticate(mint())
    assert caught.value.kind == "unavailable"
    full.room = 10
    grant = one.authenticate(mint())
    full.room = 0
    assert grant.check(data("sales")).code == "store_unavailable"
    assert grant.check_all([data("sales"), data("sales")]).code == "store_unavailable"
    assert grant.explain(data("sales")), "what is not to be recorded does not need to be"
    full.room = 10
    assert grant.check(data("sales")) and check(full.lines).decisions == 2


def test_a_denial_that_cannot_be_recorded_stays_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With its own code; the log says so, and names neither the value nor the token."""
    one = verifier(audit=AuditTrail(Full(0)))
    with caplog.at_level(logging.ERROR, "captoken"):
        assert one.check(mint(), data("hr")).code == "table" and one.check("cap1_", data("sales")).code == "malformed"
    assert [record.getMessage() for record in caplog.records] == [f"a denial was not recorded: OSError: {os.strerror(28)}"] * 2


def test_whatever_a_trail_raises_denies() -> None:
    """An error of the trace, of the writer, or of no kind that is known, whether it has words or not; also of a token that
    counts, and in a coroutine. What stops the process passes."""
    for error in (KeyError(1), RuntimeError(), AuditError("x"), AuditError(""), AssertionError()):
        def fails(line: Any = None, error: Exception = error) -> Any:
            raise error

        for trail in (AuditTrail(fails), AuditTrail(lambda line: None, trace=fails)):
            one = verifier(audit=trail, ledger=MemoryLedger(shared=True, floor=0))
            for token in (mint(), mint(**SALES, uses=2)):
                assert one.check(token, data("sales")).code == "store_unavailable"
                assert asyncio.run(awaited(one, token)).code == "store_unavailable"

    def stops(line: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verifier(audit=AuditTrail(stops)).check(mint(), data("sales"))


async def awaited(one: Verifier, token: Token) -> Decision:
    return await one.awaited.check(token, data("sales"))


def test_what_was_committed_before_the_record_failed_is_spent() -> None:
    """The use counts: it is safe to lose one, and not to give one twice."""
    ledger, full = MemoryLedger(shared=True, floor=0), Full(0)
    one = verifier(audit=AuditTrail(full), ledger=ledger)
    token = mint(**SALES, uses=1)
    assert one.check(token, data("sales")).code == "store_unavailable"
    full.room = 10
    assert one.check(token, data("sales")).code == "budget_exhausted"


@pytest.mark.parametrize("count", [0, 1, 100])
def test_a_write_that_is_cut_short_denies_and_ends_the_trail(count: int) -> None:
    """As an unbuffered file returns it from a full disk: what stands there then is torn, so nothing more is written behind it."""
    lines: list[bytes] = []
    room = [10**6]

    def write(data: bytes) -> int:
        lines.append(data[: room[0]])
        return len(lines[-1])

    one = verifier(audit=AuditTrail(write))
    assert one.check(mint(), data("sales"))
    room[0] = count
    assert one.check(mint(), data("sales")).code == "store_unavailable"
    room[0] = 10**6
    assert one.check(mint(), data("sales")).code == "store_unavailable" and len(lines) == 3
    with pytest.raises(AuditError, match="has no line feed"):
        check(lines)
    assert check(lines[:2]).decisions == 1


def test_an_interruption_that_leaves_open_whether_a_record_stands_ends_the_trail() -> None:
    """It was written, and the number not yet counted on: another one with that number would break the trail."""
    lines: list[bytes] = []

    def write(data: bytes) -> None:
        lines.append(data)
        if len(lines) == 3:
            raise KeyboardInterrupt

    trail = AuditTrail(write, key=SERVER)
    one = verifier(audit=trail)
    assert one.check(mint(), data("sales"))
    with pytest.raises(KeyboardInterrupt):
        one.check(mint(), data("sales"))
    assert one.check(mint(), data("sales")).code == "store_unavailable" and len(lines) == 3
    with pytest.raises(AuditError, match="may or may not have reached the file"):
        trail.checkpoint()
    assert check(lines).decisions == 2
    assert verifier(audit=AuditTrail(lines.append, head=check(lines).head)).check(mint(), data("sales")) and check(lines).decisions == 3


def test_no_decision_is_answered_before_its_record_is_on_disk() -> None:
    """And threads wait together: one flush is for all that was written meanwhile."""
    written: list[bytes] = []
    flushes: list[int] = []
    may_go_on = Event()

    def flush() -> None:
        flushes.append(len(written))
        assert may_go_on.wait(60)

    one = Verifier(KEYRING, clock=clock(), audit=AuditTrail(written.append, flush=flush))
    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(one.check, mint(), data("sales")) for _ in range(16)]
        while len(written) < 17:  # the token, and a decision of each
            sleep(0.001)
        assert not any(each.done() for each in asked)
        may_go_on.set()
        assert all(each.result(60) for each in asked)
    assert len(flushes) <= 2 and flushes[-1] == 17
    assert one.check(mint(), data("sales")) and flushes[-1] == 18


def test_what_may_not_be_on_disk_ends_the_trail() -> None:
    """Also where the next flush would succeed: the system tells of a loss once."""
    failing = [True]

    def flush() -> None:
        if failing and failing.pop():
            raise OSError("input/output error")

    trail = AuditTrail(lambda lines: None, flush=flush, key=AuditKey.generate())
    one = Verifier(KEYRING, clock=clock(), audit=trail)
    assert [one.check(mint(), data("sales")).code for _ in range(3)] == ["store_unavailable"] * 3
    with pytest.raises(AuditError, match="may not be on disk"):
        trail.checkpoint()
    with pytest.raises(ValueError, match="leave out waits=False"):
        AuditTrail(lambda lines: None, flush=flush, waits=False)


def test_whoever_waits_hears_of_the_loss_too() -> None:
    """Two decisions whose records were written before the flush that failed."""
    written: list[bytes] = []
    failed: list[bool] = []
    may_fail = Event()

    def flush() -> None:
        assert may_fail.wait(60)
        if len(written) == 3 and not failed:
            failed.append(True)
            raise OSError("input/output error")

    one = Verifier(KEYRING, clock=clock(), audit=AuditTrail(written.append, flush=flush))
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(one.check, mint(), data("sales")) for _ in range(2)]
        while len(written) < 3:
            sleep(0.001)
        may_fail.set()
        assert [each.result(60).code for each in asked] == ["store_unavailable"] * 2


def test_another_process_is_told_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the lock is taken, which somebody may have held at the fork; checkpoints too."""
    trail = written(1, key=SERVER)
    with monkeypatch.context() as patch, trail.trail._lock:
        patch.setattr("os.getpid", lambda: -1)
        assert trail.verifier.check(mint(), data("sales")).code == "store_unavailable"
        with pytest.raises(AuditError, match="another process"):
            trail.trail.checkpoint()
    assert trail.verifier.check(mint(), data("sales")) and len(trail.decisions) == 2


def test_all_that_one_step_needs_is_recorded_in_one_write_or_not_at_all() -> None:
    """So that no record says of an access that it was allowed, where another one of the step could not be recorded."""
    full = Full(10)
    trail = AuditTrail(full)
    one = verifier(audit=trail)
    grant = one.authenticate(mint())
    decisions = [grant.explain(data(table)) for table in ("sales", "market.x", "hr")]
    trail.record_all(decisions)
    assert len(full.lines) == 3 and check(full.lines) == Verdict(trail.head, 0, 4)
    assert [record["code"] for record in read(full.lines) if record["kind"] == "decision"][1:] == ["allowed", "allowed", "table"]
    full.room = 3
    with pytest.raises(OSError, match="no space"):
        trail.record_all(decisions)
    assert check(full.lines) == Verdict(trail.head, 0, 4)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_signs_all_above_it() -> None:
    """After every so many records, and when asked for; `signed` says up to where."""
    trail = written(6, key=SERVER, every=3)
    kinds = "".join(record["kind"][0] for record in trail.records)
    assert kinds == "tddcdddcd" and check(trail.lines, [SERVER.public]) == Verdict(trail.trail.head, 7, 6)
    head = trail.trail.checkpoint()
    assert head == trail.trail.head == check(trail.lines, [SERVER.public, OTHER.public]).head
    assert check(trail.lines, [SERVER.public]).signed == 9 and check(trail.lines).signed == 0
    assert trail.trail.checkpoint().seq == head.seq + 1, "one more signs the last"
    assert written(6, key=SERVER).trail.checkpoint().seq == 8 and written(0, key=SERVER).trail.checkpoint().seq == 1


def test_a_trail_without_a_key_has_no_checkpoints() -> None:
    trail = written(1)
    with pytest.raises(ValueError, match="without a key"):
        trail.trail.checkpoint()
    assert len(trail.records) == 2


def test_a_checkpoint_that_cannot_be_written_denies_nothing_and_is_made_up_for(caplog: pytest.LogCaptureFixture) -> None:
    """The record that was due to be signed is there, and says that it was allowed: so it is. The log says what is missing, and
    the next record has the checkpoint behind it."""
    full = Full(2)
    one = verifier(audit=AuditTrail(full, key=SERVER, every=2))
    with caplog.at_level(logging.ERROR, "captoken"):
        assert one.check(mint(), data("sales"))
    assert [record.getMessage() for record in caplog.records] == [f"a checkpoint was not written: OSError: {os.strerror(28)}"]
    full.room = 10
    assert one.check(mint(), data("sales"))
    assert [record["kind"][0] for record in read(full.lines)] == list("tddc") and check(full.lines, [SERVER.public]).signed == 3
    assert not [record for record in read(full.lines) if record["kind"] == "decision" and not record["allowed"]]


def test_a_signature_that_cannot_be_made_denies_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(AuditKey):
        def sign(self, message: bytes) -> bytes:
            raise RuntimeError("no")

    trail = Trail(key=Broken.from_bytes(bytes(range(32))), every=1)
    assert trail.verifier.check(mint(), data("sales")) and trail.decisions[0]["allowed"]
    with pytest.raises(RuntimeError):
        trail.trail.checkpoint()
    assert [record["kind"] for record in trail.records] == ["token", "decision"]


def test_an_audit_key_shows_itself_to_nobody() -> None:
    """And is of no use where another kind of key is asked for."""
    assert repr(SERVER) == f"<AuditKey {SERVER.public}>" and AuditKey.purpose == "audit" and copy.copy(SERVER) is SERVER
    with pytest.raises(TypeError):
        pickle.dumps(SERVER)
    assert not isinstance(SERVER, HolderKey) and AuditKey.generate().public != AuditKey.generate().public
    for bad in ("x", b"x", 5):
        with pytest.raises((TypeError, ValueError)):
            check([], [bad])  # type: ignore[list-item]


# --- threads, and export ---------------------------------------------------------------------------------------------


def test_threads_share_one_trail() -> None:
    """Eight threads at one gate, forty decisions each: 320 records in one order, checkpoints in their places."""
    trail, gate = Trail(key=SERVER, every=10), Barrier(8)
    token = mint()

    def run(thread: int) -> None:
        gate.wait(60)
        for number in range(40):
            trail.verifier.check(token, data(f"t{thread}", f"o{number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    verdict = check(trail.lines, [SERVER.public], known=[trail.trail.head])
    assert verdict.decisions == 320 and verdict.signed >= 320 and sum(record["kind"] == "token" for record in trail.records) == 1
    tried = [(record["access"]["table"], record["access"]["operation"]) for record in trail.decisions]
    assert len(set(tried)) == 320
    for thread in range(8):
        assert [operation for table, operation in tried if table == f"t{thread}"] == [f"o{number}" for number in range(40)]


def test_who_acted_for_whom_in_the_words_of_rfc_8693() -> None:
    """The last actor outermost, each with the basis on which its name is known; nobody where nothing is vouched for (39.9)."""
    trail = Trail()
    token = mint().delegate(to="b", tables=["sales"]).delegate(to="c")
    for text in (token, mint(), "cap1_"):
        trail.verifier.check(text, data("sales"))
    three, one, none = trail.decisions
    assert rfc8693(three) == {
        "sub": "user:jane",
        "act": {
            "sub": "c", "captoken_basis": "vouched",
            "act": {"sub": "b", "captoken_basis": "vouched", "act": {"sub": "orchestrator", "captoken_basis": "issued"}},
        },
    }  # fmt: skip
    assert rfc8693(one) == {"sub": "user:jane", "act": {"sub": "orchestrator", "captoken_basis": "issued"}}
    assert rfc8693(none) == {"sub": None}


@pytest.mark.parametrize(
    ("late", "told"),
    [
        (0, 0),
        (0.1379, 137),
        (0.9999, 999),
        (1.25, 1250),
        (59.999, 59_999),
        (60, None),
        (3600, None),
        (-0.001, None),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_a_record_says_how_many_thousandths_after_the_second_it_was_made(late: float, told: int | None) -> None:
    """Where the clock of the trail and the verifier's tell the same time."""
    trail = Trail(ticks=lambda: NOW + late)
    trail.verifier.check(mint(), data("sales"))
    (record,) = trail.decisions
    assert record["at"] == NOW and record.get("ms") == told
    assert [one.ms for one in gather(trail.records).decisions] == [told]


def test_the_clock_of_a_trail_is_the_machine_s() -> None:
    lines: list[bytes] = []
    server = Verifier(KEYRING, audit=AuditTrail(lines.append))
    before = time()
    server.check("cap1_nonsense", data("sales"))
    (record,) = read(lines)
    assert before - 0.001 <= record["at"] + record["ms"] / 1000 <= time()


def test_a_clock_of_a_trail_that_raises_denies() -> None:
    """What cannot be recorded is not allowed, and no trail goes on with half of a record."""

    def fails() -> float:
        raise OSError("no clock")

    trail = Trail(ticks=fails)
    assert trail.verifier.check(mint(), data("sales")).code == "store_unavailable" and trail.lines == []


def test_a_record_is_of_the_moment_that_was_decided_on() -> None:
    """Not of the one when it is written: decided again from it, it comes out the same."""
    trail = Trail(clock=lambda: NOW + 900)
    trail.verifier.check(mint(), data("sales"))
    record = trail.decisions[0]
    assert (record["at"], record["code"]) == (NOW + 900, "expired")
    token = Token.parse(mint().serialize())
    again = Verifier(KEYRING, clock=lambda: record["at"]).check(token, Access(**record["access"]))
    assert again.code == record["code"] and tool("x") != data("sales")

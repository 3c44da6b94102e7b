"""Tool calls in the process of the agents: by the token of whoever calls, and of nobody else."""

import asyncio
import datetime
import enum
import functools
import inspect
import json
import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from captoken import Access, AsyncGrant, AsyncVerifier, Denied, Grant, Issuer, Keyring, Token, Verifier, current
from captoken._format import chain
from captoken.audit import AuditTrail
from captoken.current import Held
from captoken.discharge import Allow, Discharger
from captoken.errors import GuardError, NoToken
from captoken.keys import DischargerKey, HolderKey
from captoken.stores.memory import MemoryLedger, MemoryReplayStore
from captoken.tools import ToolGuard, access_to, agent_name, calling, guarded_tool, handing
from tests.fixtures import KEYRING, WHO, clock, mint, verifier

TOOLS = {"search": {"q": {"in": ["fox", "hen"]}}, "crm.*": {}}
NAMES = ("plain", "named")


def guard(kind="plain", **options):
    """A guard of a verifier for nobody in particular, or of one with a name and stores."""
    if kind == "plain":
        return ToolGuard(verifier(), **options)
    return ToolGuard(verifier(audience=("agents", "tools"), replays=MemoryReplayStore(floor=0)), **options)


def root(**caveats):
    return mint(tools=TOOLS, **caveats)


@pytest.mark.parametrize("kind", NAMES)
def test_a_call_is_decided_by_the_token_of_whoever_calls(kind):
    ask = guard(kind).check
    with current.use(root()):
        assert ask("search", {"q": "fox"}, agent="orchestrator")
        assert ask("crm.people", {"anything": [1, {"a": None}]})
        assert ask("search", {"q": "wolf"}).code == "argument"
        assert ask("search", {}).code == "argument"
        assert ask("send_mail", {"to": "mallory@example"}).code == "tool"


@pytest.mark.parametrize("kind", NAMES)
def test_without_a_token_nothing_is_permitted(kind):
    decision = guard(kind).check("search", {"q": "fox"})
    assert decision.code == "malformed" and not decision and decision.grant is None
    # Whoever reads the denial is told what to write.
    assert "wrap the call in `with captoken.current.use(token):`" in guard(kind).check("pay", {}).line()


@pytest.mark.parametrize("kind", NAMES)
def test_a_sub_agent_that_nobody_handed_a_token_to_may_do_nothing(kind):
    ask = guard(kind).check
    with current.use(root()):
        assert ask("search", {"q": "fox"}, agent="sub-agent").code == "caller"
        with current.delegate(to="sub-agent", tools={"search": {"q": {"in": ["hen"]}}}):
            assert ask("search", {"q": "hen"}, agent="sub-agent")
            assert ask("search", {"q": "fox"}, agent="sub-agent").code == "argument"
            assert ask("search", {"q": "hen"}, agent="orchestrator").code == "caller"


@pytest.mark.parametrize("kind", NAMES)
def test_a_token_may_be_passed_instead(kind):
    assert guard(kind).check("search", {"q": "fox"}, held=root())
    assert guard(kind).check("search", {"q": "fox"}, held=Held(root()), agent="orchestrator")


def looped():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize(
    ("tool", "arguments", "agent", "code"),
    [
        ("sea\nrch", {}, None, "tool"),
        ("*", {}, None, "tool"),
        ("crm.*", {}, None, "tool"),
        ("", {}, None, "tool"),
        ("crm..x", {}, None, "tool"),
        ("search\u202e", {}, None, "tool"),
        (None, {}, None, "tool"),
        ("search", {"q": object()}, None, "tool"),
        ("search", {"q": float("nan")}, None, "argument"),
        ("search", {"q": [{"n": float("-inf")}]}, None, "argument"),
        ("sea\nrch", {"q": float("nan")}, None, "tool"),
        ("search", {1: "fox"}, None, "tool"),
        ("search", {"q": looped()}, None, "too_much_work"),
        ("search", ["q"], None, "tool"),
        ("search", "q", None, "tool"),
        ("search", {"q": "fox"}, "a\x00", "caller"),
        ("search", {"q": "fox"}, "", "caller"),
        ("search", {"q": "fox"}, "orchestrat\u043er", "caller"),
    ],
)
def test_what_is_no_legal_call_is_denied_and_nothing_raised(kind, tool, arguments, agent, code):
    """The specification's rule 13.7."""
    with current.use(mint(tools={"*": {}})):
        decision = guard(kind).check(tool, arguments, agent=agent)
    assert decision.code == code and decision.for_model() and not decision
    assert guard(kind).check(tool, arguments, agent=agent).code == "malformed"  # and without a token, that comes first


def test_a_token_for_another_server_is_refused_as_that():
    assert guard("named").check("crm.x", {}, held=root().attenuate(audience="elsewhere")).code == "wrong_audience"


def test_a_token_too_long_to_be_presented_is_refused_as_addressed_to_nobody():
    token = root()
    while len(token.serialize()) < 7_168:
        token = token.attenuate(where={"note": {"in": ["x" * 120]}})
    decision = guard("named", attributes=lambda tool, arguments: {"note": "x" * 120}).check("crm.x", {}, held=token)
    assert decision.code == "unaddressed"


def test_a_bound_token_is_proven_for_the_call_at_hand():
    key = HolderKey.generate()
    bound = root().delegate(to="clerk", key=key.public)
    ask = guard("named").check
    with current.use(bound, key):
        assert ask("search", {"q": "fox"}, agent="clerk") and ask("search", {"q": "fox"}, agent="clerk")
        assert ask("sea\nrch", {}, agent="clerk").code == "tool"
    for other, code in ((None, "proof_missing"), (HolderKey.generate(), "bad_proof")):
        with current.use(bound, other):
            assert ask("search", {"q": "fox"}, agent="clerk").code == code
    with current.use(bound.attenuate(audience="elsewhere")):
        assert ask("search", {"q": "fox"}, agent="clerk").code == "wrong_audience"


def test_costs_and_attributes_are_what_the_server_says_of_a_call():
    ledger = MemoryLedger(shared=True, floor=0)
    price = {"search": 3}
    ask = ToolGuard(
        verifier(ledger=ledger),
        cost=lambda tool, arguments: {"cents": price[tool] * len(arguments)},
        attributes=lambda tool, arguments: {"region": "eu"},
    ).check
    with current.use(root(budget={"cents": 7}, where={"region": {"in": ["eu"]}})):
        assert ask("search", {"q": "fox"}) and ask("search", {"q": "fox"})
        assert ask("search", {"q": "fox"}).code == "budget_exhausted"
    with current.use(root(where={"region": {"in": ["us"]}})):
        assert ask("search", {"q": "fox"}).code == "attribute"
    with current.use(root()), pytest.raises(KeyError):
        ask("unpriced", {})


def test_a_cost_that_is_always_the_same_is_a_mapping():
    """The denial without one says what to write; what is no cost is told when the guard is built, or to whoever asks."""
    ledger = MemoryLedger(shared=True, floor=0)
    free = ToolGuard(verifier(ledger=ledger), cost={"cents": 0}).check
    paid = ToolGuard(verifier(ledger=ledger), cost={"cents": 4, "rows": 1}).check
    unstated = ToolGuard(verifier(ledger=ledger)).check
    with current.use(root(budget={"cents": 7, "rows": 9})):
        assert unstated("search", {"q": "fox"}).line().startswith(
            'denied cost_unstated: the server did not state what tool search costs in cents, rows; '
            'if it costs nothing, write cost={"cents": 0, "rows": 0}, as in guarded_tool(..., cost=...) or Guard(..., cost=...)'
        )
        assert 'cost={"rows": 0}' in str(free("search", {"q": "fox"}))
        assert paid("search", {"q": "fox"}) and paid("search", {"q": "fox"}).code == "budget_exhausted"
    for wrong in ({"cents": 1.5}, {"cents": -1}, {"cents": True}, [("cents", 1)], 5, "cents"):
        with pytest.raises((TypeError, ValueError)):
            ToolGuard(verifier(), cost=wrong)
        asked = ToolGuard(verifier(), cost=lambda tool, arguments, wrong=wrong: wrong).check
        with current.use(root()):
            if isinstance(wrong, dict):  # the arguments may have made it so
                assert asked("search", {"q": "fox"}).code == "argument"
            else:
                with pytest.raises((TypeError, ValueError)):
                    asked("search", {"q": "fox"})


def test_limits_are_told_where_the_server_says_so():
    token = mint(tools={"search": {"top": {"min": 1, "max": 9}}})
    for tell, said in ((True, "a number, from 1 to 9"), (False, "may not use."), (1, "may not use.")):
        one = guard(tell_limits=tell)
        with current.use(token):
            told = one.for_model(one.check("search", {"top": 10}))
            assert said in told and ("9" in told) is (tell is True)
            missing = one.check("search", {})
        assert "`top`" not in one.for_model(missing) and "`top` of `search` is not stated" in one.for_model(missing, ["top"])


def test_what_is_decided_is_the_call_whatever_the_servers_own_functions_do_to_its_arguments():
    seen = []

    def taking(tool, arguments):
        seen.append(dict(arguments))
        arguments.clear()
        return {}

    arguments = {"q": "wolf"}
    ask = guard(cost=taking, attributes=taking).check
    with current.use(mint(tools={"search": {"q": {"in": ["fox"], "optional": True}}})):
        assert ask("search", arguments).code == "argument"
        assert ask("search", {"q": object()}).code == "tool"  # of which nobody is asked
    assert arguments == {"q": "wolf"} and seen == [{"q": "wolf"}] * 2


def in_a_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_a_run_inside_a_tool_call_is_handed_a_token_of_its_own_or_may_do_nothing():
    """Whatever its name: it may share its caller's, or the framework may know none."""
    ask = guard().check
    with current.use(root()):
        outer = ask("crm.x", {}, agent="orchestrator", run=1)
        with calling(outer.grant, run=1):
            assert current.grant() is outer.grant
            for agent in ("orchestrator", None):
                assert ask("crm.x", {}, agent=agent, run=2).code == "caller"
                assert ask("crm.x", {}, agent=agent, run=2, held=current.holding()).code == "caller"
                assert in_a_thread(current.carry(lambda agent=agent: ask("crm.x", {}, agent=agent, run=2).code)) == "caller"
                assert ask("crm.x", {}, agent=agent, run=1)  # as a tool calls that runs others
                assert ask("crm.x", {}, agent=agent)  # and where the framework knows no runs
            with current.use(root()):
                assert ask("crm.x", {}, agent="orchestrator", run=2)
            with current.delegate(to="sub-agent"):
                assert ask("crm.x", {}, agent="sub-agent", run=2)
        assert ask("crm.x", {}, agent="orchestrator", run=2)


def test_a_call_may_run_under_a_token_that_was_passed():
    own = Held(root())
    grant = guard().check("crm.x", {}, held=own).grant
    with calling(grant, held=own):
        assert current.holding().token is own.token
    with pytest.raises(NoToken):
        current.holding()


def test_nobody_hands_on_what_somebody_else_holds():
    with pytest.raises(NoToken):
        handing("orchestrator")
    with current.use(root()) as held:
        assert handing("orchestrator", run=1) is handing(None) is held
        with pytest.raises(GuardError, match="'other' was given no token"):
            handing("other")
        with calling(guard().check("crm.x", {}).grant, run=1):
            assert handing("orchestrator", run=1).token is held.token
            for agent in ("orchestrator", None):
                with pytest.raises(GuardError, match="was given no token"):
                    handing(agent, run=2)


def test_every_decision_is_recorded_those_without_a_token_too():
    lines = []
    ask = ToolGuard(verifier(audit=AuditTrail(lines.append))).check
    ask("search", {"q": "fox"})
    with current.use(root()):
        ask("search", {"q": "fox"})
        ask("sea\nrch", {})
    codes = [record["code"] for record in map(json.loads, lines) if "code" in record]
    assert codes == ["malformed", "allowed", "tool"]


def test_the_grant_of_a_decision_serves_what_the_tool_does_in_turn():
    token = mint(tools=TOOLS, tables=["sales"], operations=["select"])
    with current.use(token), current.serving(guard().check("crm.x", {}).grant):
        assert current.grant().check(Access(table="sales", operation="select"))
        assert current.grant().check(Access(table="hr", operation="select")).code == "table"


def test_from_an_event_loop_each_task_asks_with_its_own_token():
    waiting = ToolGuard(verifier(ledger=MemoryLedger(shared=True, floor=0)))

    async def work(asked, name, value):
        with current.delegate(to=name, tools={"search": {"q": {"in": [value]}}}):
            await asyncio.sleep(0)
            return [bool(await asked.check_async("search", {"q": q}, agent=name)) for q in ("fox", "hen")]

    async def main():
        with current.use(root()):
            for asked in (guard(), waiting):
                got = await asyncio.gather(*(work(asked, f"agent-{at}", ("fox", "hen")[at % 2]) for at in range(20)))
                assert got == [[True, False], [False, True]] * 10

    asyncio.run(main())


def asynchronous(**options):
    return AsyncVerifier(KEYRING, clock=clock(), **options)


@pytest.mark.parametrize("make", [verifier, asynchronous])
@pytest.mark.parametrize("audience", [None, "tools"])
def test_the_guard_takes_a_verifier_of_either_face(make, audience):
    guarded = ToolGuard(make(audience=audience, ledger=MemoryLedger(shared=True, floor=0)))

    async def asking():
        with current.use(root(uses=1)), current.delegate(to="clerk"):
            return [(await guarded.check_async("crm.x", {}, agent=agent)).code for agent in ("other", "clerk", "clerk")]

    assert asyncio.run(asking()) == ["caller", "allowed", "budget_exhausted"]
    with current.use(root()):  # from no event loop
        assert guarded.check("crm.x", {}) and guarded.check("send_mail", {}).code == "tool"


def test_a_tool_gets_the_grant_of_the_face_that_the_guard_was_given():
    async def served(guarded):
        with current.use(root()):
            decision = await guarded.check_async("crm.x", {})
            with calling(guarded.served(decision.grant)):
                return current.grant()

    assert type(asyncio.run(served(ToolGuard(verifier())))) is Grant
    assert type(asyncio.run(served(ToolGuard(asynchronous())))) is AsyncGrant


# --- what a guard and a holder keep -------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch):
    """One entry for each chain that is folded."""
    counted = []
    fold = chain.fold
    monkeypatch.setattr(chain, "fold", lambda *given: counted.append(1) or fold(*given))
    return counted


@pytest.mark.parametrize("kind", NAMES)
def test_a_token_is_not_opened_again_and_again(kind, opened):
    """It comes as a text that the verifier may know: with a fresh decision on each call."""
    ask = guard(kind).check
    with current.use(root()):
        codes = [ask("search", {"q": q}, agent="orchestrator").code for q in ["fox", "wolf"] * 10]
    assert codes == ["allowed", "argument"] * 10 and len(opened) == 2


def test_where_nothing_is_remembered_it_is_opened_each_time(opened):
    ask = ToolGuard(verifier(remember=0)).check
    with current.use(root()):
        assert [ask("search", {"q": "fox"}).code for _ in range(5)] == ["allowed"] * 5
    assert len(opened) == 5


def test_a_key_that_is_gone_opens_nothing_more():
    keys = [KEYRING]
    ask = ToolGuard(Verifier(lambda: keys[0], clock=clock())).check
    with current.use(root()):
        assert [ask("search", {"q": "fox"}).code for _ in range(4)] == ["allowed"] * 4
        keys[0] = Keyring.from_keys({"k1": bytes(range(50, 82))}, current="k1")
        assert ask("search", {"q": "fox"}).code in ("bad_signature", "unknown_key")


def test_a_token_with_discharges_is_taken_with_them_bound():
    approver = DischargerKey.generate()
    token = root().require(approver.public, need={"yes": 1})
    with current.use(token):
        assert guard().check("crm.x", {}).code == "missing_discharge"
    (ticket,) = token.needs
    answer = Discharger(approver, lambda need: Allow(expires_in=60), clock=clock()).discharge(ticket)
    with current.use(token.with_discharge(answer)):
        ask = guard().check
        assert [ask("crm.x", {}).code for _ in range(4)] == ["allowed"] * 4


def test_what_a_holder_presented_is_kept_in_its_calls_too(monkeypatch):
    made = []
    presentation = Token.presentation
    monkeypatch.setattr(Token, "presentation", lambda self, **asked: made.append(1) or presentation(self, **asked))
    ask = guard()
    with current.use(root()):
        for run in (1, 2):
            with calling(ask.check("crm.x", {}, run=run).grant, run=run) as grant:
                assert current.grant() is grant
                texts = {current.holding().present(audience="db") for _ in range(2)}
                assert texts == {current.holding().present(audience="db")}
        with pytest.raises(NoToken):
            current.grant()
    assert len(made) == 1


def test_a_call_ends_as_a_block_does_and_a_group_of_denials_is_one():
    ask = guard()
    with current.use(root()) as mine:
        decision = ask.check("crm.x", {})
        denied = Denied(ask.check("send_mail", {}))
        with pytest.raises(Denied) as caught, calling(decision.grant):
            raise ExceptionGroup("tasks", [denied])
        assert caught.value is denied and current.holding() is mine
        with pytest.raises(TypeError, match="expected a Grant"):
            calling(mint())


def test_names_of_callers_are_kept_within_bounds_and_odd_ones_not_at_all():
    asked = guard()
    with current.use(root()), current.delegate(to="agent-7"):
        codes = [asked.check("crm.x", {}, agent=f"agent {at}").code for at in (*range(200), 7)]
        assert codes.count("allowed") == 2 and codes[7] == codes[-1] == "allowed"
        assert len(asked._callers) <= 64
        assert asked.check("crm.x", {}, agent=["agent-7"]).code == "caller"

        class Name(str):
            __hash__ = None

        assert asked.check("crm.x", {}, agent=Name("agent-7")).code == "allowed"


class Waiting(MemoryLedger):
    """It says in which thread it is asked."""

    def reserve(self, *args):
        self.thread = threading.get_ident()
        return super().reserve(*args)


def test_an_event_loop_waits_only_for_what_may_have_to_wait():
    assert not verifier().waits
    for options in ({"ledger": MemoryLedger(floor=0)}, {"replays": MemoryReplayStore(floor=0)}, {"audit": AuditTrail(lambda line: None)}, {"overlay": lambda: None}):
        assert verifier(**options).waits and AsyncVerifier(KEYRING, **options).waits, options
    ledger = Waiting(shared=True, floor=0)
    asked = ToolGuard(verifier(ledger=ledger))

    async def main():
        with current.use(root(uses=1)):
            return (await asked.check_async("crm.x", {})).code

    assert asyncio.run(main()) == "allowed" and ledger.thread != threading.get_ident()


def test_a_guard_that_waits_for_nothing_serves_any_number_of_event_loops():
    asked = guard()

    async def main():
        with current.use(root()):
            return (await asked.check_async("crm.x", {}, agent="orchestrator")).code

    assert [asyncio.run(main()) for _ in range(3)] == ["allowed"] * 3


def test_an_agents_name_is_spelled_with_hyphens():
    assert agent_name(" Sales  agent\t2 ") == "Sales-agent-2"
    with current.use(root()), current.delegate(to="Sales-agent"):
        assert guard().check("crm.x", {}, agent="Sales agent")


def test_the_access_of_a_call_or_none():
    assert access_to("search", {"q": "fox"}) == Access(tool="search", arguments={"q": "fox"})
    assert access_to("search", None) == Access(tool="search")
    assert access_to("search", {}, cost={"cents": 1}, attributes={"a": 1}) == Access(
        tool="search", arguments={}, cost={"cents": 1}, attributes={"a": 1}
    )
    assert access_to("a b\n", {}) is None


def test_a_call_without_a_token_and_one_that_is_refused_are_told_to_the_developer(caplog):
    caplog.set_level(logging.INFO, "captoken")
    guard().check("search", {"q": "fox"})
    with current.use(root()):
        guard().check("search", {"q": "fox"}, agent="sub agent")
        guard().check("search", {"q": "fox"})
    assert [(record.levelname, record.getMessage()[:60]) for record in caplog.records] == [
        ("INFO", "refused: malformed: no token is in use here: the text is emp"),
        ("WARNING", "a tool was called, and no token is in use: run it in `with c"),
        ("INFO", "refused: caller: sub-agent calls with the token of orchestra"),
    ]


# --- a function as a tool ------------------------------------------------------------------------------------------------


def denied(call, *args, **kwargs):
    """The code by which a call is refused."""
    with pytest.raises(Denied) as refused:
        call(*args, **kwargs)
    return refused.value.decision.code


PAYING = {"pay": {"to": {"in": ["acct-1"]}, "cents": {"max": 500}, "tags": {"any": True}}}


@pytest.mark.parametrize("make", [verifier, asynchronous])
@pytest.mark.parametrize("audience", [None, "tools"])
def test_a_guarded_function_runs_if_the_current_token_permits_the_call_and_else_not_at_all(make, audience):
    made = []

    @guarded_tool(make(audience=audience))
    def pay(to: str, cents: int = 100, *, tags: list[str] = []) -> str:  # noqa: B006
        """Pay somebody."""
        made.append((to, cents, tags, current.grant().issued.subject))
        return f"paid {cents}"

    assert denied(pay, "acct-1") == "malformed"  # nothing is held
    with current.use(mint(tools=PAYING)):
        assert pay("acct-1") == "paid 100" and pay(cents=500, to="acct-1", tags=["a"]) == "paid 500"
        assert denied(pay, "acct-1", 501) == "argument" and denied(pay, "acct-2") == "argument"
        with current.delegate(to="clerk", tools={"pay": {"to": {"in": ["acct-1"]}, "cents": {"max": 99}, "tags": {"any": True}}}):
            assert denied(pay, "acct-1") == "argument"  # by its default
    with current.use(mint(tools={"refund": {}})):
        assert denied(pay, "acct-1") == "tool"
    assert made == [("acct-1", 100, [], "user:jane"), ("acct-1", 500, ["a"], "user:jane")]
    assert pay.__name__ == "pay" and pay.__doc__ == "Pay somebody." and list(inspect.signature(pay).parameters) == ["to", "cents", "tags"]
    with pytest.raises(NoToken):
        current.grant()


def test_the_function_gets_the_very_copy_that_was_decided_on():
    """Whatever the caller, or a cost of the server's, does to the arguments meanwhile; nor are its defaults shared."""
    mine = ["fox"]

    def meddling(tool, arguments):
        mine.append("wolf")
        arguments["q"].append("bear")
        return {}

    @guarded_tool(verifier(), cost=meddling)
    def search(q: list[str], seen: list[str] = []) -> tuple[list[str], list[str]]:  # noqa: B006
        seen.append("x")
        return q, seen

    with current.use(mint(tools={"search": {"q": {"each": {"in": ["fox"]}}, "seen": {"each": {"in": []}}}})):
        assert search(mine) == (["fox"], ["x"]) and mine == ["fox", "wolf"]
        assert search(["fox"]) == (["fox"], ["x"])
        assert denied(search, mine) == "argument"


@pytest.mark.parametrize(
    "value",
    [object(), ("fox",), {"fox"}, b"fox", float("nan"), {1: "fox"}, type("Str", (str,), {})("fox"), "\ud800", looped()],
    ids=["object", "tuple", "set", "bytes", "NaN", "number as key", "subclass of str", "lone surrogate", "loop"],
)
def test_what_is_no_json_raises_and_is_not_decided_on(value):
    lines, made = [], []

    @guarded_tool(verifier(audit=AuditTrail(lines.append)))
    def search(q):
        made.append(q)

    with current.use(root()):
        for args, kwargs in (((value,), {}), ((), {"q": [value]}), ((), {}), (("fox", 1), {}), ((), {"q": "fox", "other": 1})):
            with pytest.raises((TypeError, ValueError)):
                search(*args, **kwargs)
    assert made == [] and not any("code" in json.loads(line) for line in lines)


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        (Decimal("5.00"), "an int in the smallest unit, as cents are, or a str"),
        (Path("/data"), "a str, as os.path.realpath(path) gives it"),
        (datetime.date(2026, 1, 2), "a str, as its isoformat() gives it"),
        (datetime.datetime(2026, 1, 2), "a str, as its isoformat() gives it"),
        (enum.Enum("Colour", "RED").RED, "its value, a str or an int"),
        (uuid.UUID(int=7), "a str, as str(uuid) gives it"),
        (("fox",), "a list"),
        (object(), "a str, an int, a float, a bool, None, or lists and dicts of these"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_argument_that_is_no_json_is_named_with_what_to_write(value, instead):
    @guarded_tool(verifier())
    def search(q):
        return q

    with pytest.raises(TypeError) as raised:
        search(value)
    kind = type(value).__name__
    assert str(raised.value) == f"argument 'q' contains a {kind}, which is not a JSON value: write {instead}"


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize("wrong", [Decimal, Path, datetime.date, Colour, "Path", Decimal | None, Path | uuid.UUID, set])
def test_a_parameter_that_no_json_can_fill_is_refused_when_the_function_is_decorated(wrong):
    def pay(to: str, amount):
        return amount

    pay.__annotations__["amount"] = wrong
    with pytest.raises(TypeError, match=r"the parameter amount of pay is a \w+, which JSON does not have: use .+, and convert"):
        guarded_tool(verifier())(pay)


@pytest.mark.parametrize("right", [int, "int | None", Path | str, "Nowhere", list[Decimal], object, None, 7], ids=str)
def test_one_that_json_may_fill_is_not(right):
    def pay(amount):
        return amount

    pay.__annotations__ |= {"amount": right, "return": Path}
    with current.use(mint(tools={"pay": {"amount": {"in": [5]}}})):
        assert guarded_tool(verifier())(pay)(5) == 5


@pytest.mark.parametrize("keyword", ["cost", "attributes"])
def test_a_function_of_the_servers_that_takes_other_things_is_refused_at_once(keyword):
    for wrong in (lambda amount: {}, list.clear, lambda tool, arguments, more: {}):
        with pytest.raises(TypeError, match=f"{keyword} is called with two arguments, .*: write {keyword}=lambda tool, arguments"):
            guarded_tool(verifier(), **{keyword: wrong})
    # Python does not know the parameters of `dict`: a call would tell.
    for right in (lambda tool, arguments: {}, lambda *both: {}, dict):
        guarded_tool(verifier(), **{keyword: right})


def test_parameters_that_nobody_can_name_need_a_name():
    asking = guarded_tool(verifier())

    def rest(*args):
        return args

    def more(**options):
        return options

    def first(q, /):
        return q

    for function, parameter in ((rest, r"\*args"), (more, r"\*\*options"), (first, "q")):
        with pytest.raises(TypeError, match=f"the parameter {parameter} has no name for a caller"):
            asking(function)
    with pytest.raises(TypeError, match="no parameter other"):
        guarded_tool(verifier(), names={"other": "x"})(first)
    with pytest.raises(ValueError, match="two arguments have the same name"):
        guarded_tool(verifier(), names={"a": "b"})(lambda a, b: None)
    with pytest.raises(TypeError):
        guarded_tool(verifier(), names=["q"])

    one = guarded_tool(verifier(), names={"args": "all", "options": "rest", "q": "what"}, name="search")

    @one
    def search(q, /, top=1, *args, by="x", **options):
        return q, top, args, by, options

    with current.use(mint(tools={"search": {"what": {"in": ["fox"]}, "all": {"each": {"max": 3}}, "rest": {"any": True}, "top": {"max": 9}, "by": {"any": True}}})):
        assert search("fox") == ("fox", 1, (), "x", {})
        assert search("fox", 2, 3, 1, by="y", q="hen") == ("fox", 2, (3, 1), "y", {"q": "hen"})
        assert denied(search, "hen") == "argument" and denied(search, "fox", 1, 4) == "argument"
        with pytest.raises(TypeError, match="tuple"):
            search("fox", 1, (1,))


def test_a_method_is_decorated_when_it_is_bound():
    class Bank:
        def pay(self, to):
            return f"paid {to}"

    with pytest.raises(TypeError, match="this is an unbound method: decorate the bound one"):
        guarded_tool(verifier())(Bank.pay)
    pay = guarded_tool(verifier())(Bank().pay)
    with current.use(mint(tools={"pay": {"to": {"in": ["ann"]}}})):
        assert pay("ann") == "paid ann" and denied(pay, "bob") == "argument"


def test_a_tool_has_the_name_of_its_function_or_another_and_always_one_that_a_token_can_have():
    asking = guarded_tool(verifier())

    def search(q):
        return q

    with current.use(root()):
        assert guarded_tool(verifier(), name="crm.find")(search)("anything") == "anything"
        assert denied(guarded_tool(verifier(), name="mail")(search), "fox") == "tool"
    for wrong, error in (("a b\n", ValueError), ("", ValueError), ("crm.*", ValueError), (7, TypeError)):
        with pytest.raises(error):
            guarded_tool(verifier(), name=wrong)(search)
    for other in (functools.partial(search, "fox"), object(), ToolGuard, None):
        with pytest.raises(TypeError, match="expected a function"):
            asking(other)
    for wrong in (search, ToolGuard(verifier()), None):
        with pytest.raises(TypeError, match=r"expected a verifier, not .*: write @guarded_tool"):
            guarded_tool(wrong)
    with pytest.raises(ValueError, match="no signature"):
        asking(dict.update)


def test_a_call_of_a_guarded_function_costs_what_its_server_says():
    ask = guarded_tool(verifier(ledger=MemoryLedger(shared=True, floor=0)), cost={"cents": 4}, attributes=lambda tool, arguments: {"eu": True})

    @ask
    def search(q):
        return q

    with current.use(root(budget={"cents": 7}, where={"eu": {"in": [True]}})):
        assert search("fox") == "fox" and denied(search, "fox") == "budget_exhausted"


@pytest.mark.parametrize("cents", [-5, 12.5, "5", True, None, 2**53])
def test_arguments_that_make_no_cost_are_denied_and_charged_nothing(cents):
    """A model that asks for less than nothing gets a denial; the program goes on."""
    ledger = MemoryLedger(shared=True, floor=0)

    @guarded_tool(verifier(ledger=ledger), cost=lambda tool, arguments: {"cents": arguments["cents"]})
    def pay(cents):
        return cents

    with current.use(mint(tools={"pay": {"cents": {"any": True}}}, budget={"cents": 7})):
        assert denied(pay, cents) == "argument"
        assert pay(7) == 7


@pytest.mark.parametrize("cents", [-5, "5"])
def test_of_a_call_whose_cost_is_no_amount_the_link_is_told_that_refuses_the_argument(cents):
    """Else nobody knows which argument is wrong. Where no link refuses, the denial still names the call."""
    trail = []

    @guarded_tool(verifier(ledger=MemoryLedger(shared=True, floor=0), audit=AuditTrail(trail.append)), cost=lambda tool, given: {"cents": given["cents"]})
    def pay(cents):
        return cents

    for rule, named in (({"min": 1}, "pay.cents"), ({"any": True}, "cost in cents")):
        with current.use(mint(tools={"pay": {"cents": rule}}, budget={"cents": 7})), pytest.raises(Denied) as caught:
            pay(cents)
        decision = caught.value.decision
        assert decision.line().startswith(f"denied argument{' ' if named == 'pay.cents' else ': '}{named}")
        assert decision.access.tool == "pay" and decision.access.arguments == {"cents": cents}
    assert len(trail) == 4  # each token is described, and each denial recorded


def test_from_an_event_loop_such_a_call_is_denied_alike():
    guard = ToolGuard(asynchronous(ledger=MemoryLedger(shared=True, floor=0)), cost=lambda tool, given: {"cents": given["cents"]})

    async def asked():
        with current.use(mint(tools={"pay": {"cents": {"min": 1}}}, budget={"cents": 7})):
            return await guard.check_async("pay", {"cents": -5})

    assert asyncio.run(asked()).line().startswith("denied argument pay.cents")


@pytest.mark.parametrize(("make", "face"), [(verifier, Grant), (asynchronous, AsyncGrant)])
def test_a_guarded_coroutine_function_is_decided_on_when_it_is_awaited(make, face):
    @guarded_tool(make(ledger=MemoryLedger(shared=True, floor=0)))
    async def search(q):
        await asyncio.sleep(0)
        assert type(current.grant()) is face
        return current.grant().issued.subject

    async def main():
        with current.use(root(uses=1)):
            with pytest.raises(Denied):
                await search("wolf")
            asked = search("fox")
            assert await asked == "user:jane"
            with pytest.raises(Denied, match="budget_exhausted"):
                await search("fox")
        with pytest.raises(NoToken):
            current.grant()

    assert inspect.iscoroutinefunction(search)
    asyncio.run(main())


def stepped(made):
    """A generator function that says what it is sent, and whom it works for; what is thrown at it, it tells."""

    def steps(q):
        got = None
        try:
            while got != "stop":
                try:
                    got = yield q, got, current.grant().issued.subject
                except KeyError as error:
                    got = repr(error)
            return "done"
        finally:
            made.append(current.grant().issued.task)

    steps.__name__ = "search"
    return steps


def test_a_guarded_generator_is_decided_on_at_the_call_and_its_grant_is_nobody_elses():
    made = []
    search = guarded_tool(verifier(ledger=MemoryLedger(shared=True, floor=0)))(stepped(made))

    def nobody_is_granted_anything():
        with pytest.raises(NoToken):
            current.grant()

    with current.use(root(uses=2)):
        assert denied(search, "wolf") == "argument"  # at once: nothing was asked for yet
        steps, closed = search("fox"), search("hen")
        assert denied(search, "fox") == "budget_exhausted"  # each call counts, and no step does
    assert next(steps) == ("fox", None, "user:jane") and next(closed)[0] == "hen"
    nobody_is_granted_anything()
    assert steps.send("more")[1] == "more" and steps.throw(KeyError("x"))[1] == "KeyError('x')"
    with pytest.raises(StopIteration, match="done"):
        steps.send("stop")
    closed.close()
    nobody_is_granted_anything()
    assert made == ["task-123"] * 2


def awaited_steps(made):
    async def search(q):
        got = None
        try:
            while got != "stop":
                await asyncio.sleep(0)
                try:
                    got = yield q, got, type(current.grant())
                except KeyError as error:
                    got = repr(error)
        finally:
            made.append(current.grant().issued.task)

    return search


@pytest.mark.parametrize(("make", "face"), [(verifier, Grant), (asynchronous, AsyncGrant)])
def test_so_is_one_that_is_async(make, face):
    made = []
    search = guarded_tool(make())(awaited_steps(made))

    async def main():
        with current.use(root()):
            assert denied(search, "wolf") == "argument"
            steps, closed = search("fox"), search("hen")
        assert await anext(steps) == ("fox", None, face) and await anext(closed) == ("hen", None, face)
        with pytest.raises(NoToken):
            current.grant()
        assert (await steps.asend("more"))[1] == "more" and (await steps.athrow(KeyError("x")))[1] == "KeyError('x')"
        with pytest.raises(StopAsyncIteration):
            await steps.asend("stop")
        await closed.aclose()

    asyncio.run(main())
    assert made == ["task-123"] * 2


# --- what may be left out ------------------------------------------------------------------------------------------------


FREE, ONE_OF = {"any": True}, {"in": ["a"]}


@pytest.mark.parametrize(
    ("rule", "left_out", "with_a", "with_b"),
    [
        ({}, "allowed", "allowed", "allowed"),
        ({"text": FREE}, "allowed", "argument", "argument"),
        ({"text": FREE, "tag": {"in": [], "optional": True}}, "allowed", "argument", "argument"),
        ({"text": FREE, "tag": {**ONE_OF, "optional": True}}, "allowed", "allowed", "argument"),
        ({"text": FREE, "tag": ONE_OF}, "argument", "allowed", "argument"),
        ({"text": FREE, "tag": FREE}, "allowed", "allowed", "allowed"),
    ],
)
@pytest.mark.parametrize("audience", [None, "tools"])
def test_a_parameter_that_is_none_by_default_may_be_left_out_where_the_token_lets_it(rule, left_out, with_a, with_b, audience):
    """As a client of MCP leaves it out: one token does for both. The function gets what was decided on."""
    lines, ran, charged = [], [], []

    def cost(tool, arguments):
        charged.append(arguments["tag"])  # it is there, whatever the token says
        return {}

    @guarded_tool(verifier(audience=audience, audit=AuditTrail(lines.append)), cost=cost)
    def note(text: str, tag: str | None = None) -> None:
        ran.append(tag)

    def code(*args):
        try:
            note("x", *args)
        except Denied as refused:
            return refused.decision.code
        return "allowed"

    token = mint(tools={"note": rule})
    with current.use(token):
        got = [code(), code(None), code("a"), code("b")]
    assert got == [left_out, left_out, with_a, with_b]
    assert ran == [tag for tag, was in zip([None, None, "a", "b"], got, strict=True) if was == "allowed"]
    assert charged == [None, None, "a", "b"]
    # The record has the access that was decided on.
    there = {"tag": None} if "tag" in rule and "optional" not in rule["tag"] else {}
    assert verifier().check(token, Access(tool="note", arguments={"text": "x", **there})).code == left_out
    stated = [record["access"]["arguments"] for record in map(json.loads, lines) if record["kind"] == "decision"]
    assert [arguments == ["text"] for arguments in stated] == [not there, not there, False, False]


def test_any_other_default_is_decided_on_and_so_is_a_none_that_is_no_default():
    @guarded_tool(verifier())
    def note(text: str, tag: str | None = "b") -> str | None:
        return tag

    with current.use(mint(tools={"note": {"text": FREE, "tag": {**ONE_OF, "optional": True}}})):
        assert denied(note, "x") == "argument" and denied(note, "x", None) == "argument"
        assert note("x", "a") == "a"


def test_a_set_without_a_token_for_this_server_says_nothing_of_an_argument():
    @guarded_tool(verifier())
    def note(text: str, tag: str | None = None) -> None:
        raise AssertionError

    assert denied(note, "x") == "malformed"
    made = Issuer(KEYRING, clock=clock()).mint_set(**WHO, servers={"mail": {"tools": {"note": {}}}})
    with current.use(made):
        assert denied(note, "x") == "malformed"


# --- in a request --------------------------------------------------------------------------------------------------------


SERVED = {"pay": {"to": {"in": ["acct-1"]}, "memo": {**ONE_OF, "optional": True}}, "pay_later": {}}


@pytest.mark.parametrize("make", [verifier, asynchronous])
def test_a_function_that_is_called_in_a_request_is_decided_by_the_grant_of_that_request(make, caplog):
    """Where its own verifier gave the grant; and where nothing is held, or else that is what decides."""
    lines, ran = [], []
    mine = make(audience="shop", audit=AuditTrail(lines.append), ledger=MemoryLedger(shared=True, floor=0))

    @guarded_tool(mine, cost=lambda tool, arguments: {"cents": -1 if arguments["to"] == "acct-9" else 0})
    def pay(to: str, memo: str | None = None) -> str:
        ran.append(to)
        return current.grant(Grant).issued.task

    @guarded_tool(mine)
    async def pay_later(to: str, memo: str | None = None) -> str:
        return pay(to, memo)  # one calls the other, in the same request

    shown = mint(tools=SERVED, uses=4).present(audience="shop", clock=clock())

    async def main():
        arrived = mine.authenticate(shown)
        arrived = await arrived if isinstance(mine, AsyncVerifier) else arrived
        with current.serving(arrived):
            assert pay("acct-1") == "task-123" and pay("acct-1", "a") == "task-123"
            assert denied(pay, "acct-2") == denied(pay, "acct-1", "b") == "argument"
            with current.use(mint(tools={"pay": {"to": {"in": ["acct-2"]}}}, audience="shop")):
                pay("acct-2")
                assert denied(pay, "acct-1") == "argument"
            assert await pay_later("acct-1") == "task-123"
            assert denied(pay, "acct-1") == "budget_exhausted"  # each call counts once, by the request's token
            assert denied(pay, "acct-9") == "argument"  # that makes no cost
        assert denied(pay, "acct-1") == "malformed"  # the request is over

    asyncio.run(main())
    assert ran == ["acct-1", "acct-1", "acct-2", "acct-1"]
    codes = [record["code"] for record in map(json.loads, lines) if record["kind"] == "decision"]
    assert codes.count("allowed") == 6  # that it arrived, and each call
    assert codes.count("malformed") == 1 and codes.count("budget_exhausted") == 1
    assert [r.getMessage() for r in caplog.records if "a tool was called" in r.getMessage()] == [
        "a tool was called, and no token is in use: run it in `with current.use(token):`"
    ]


def test_a_grant_of_another_verifier_is_no_answer_and_the_developer_is_told_what_to_write():
    """It may know other keys, or nothing of what was revoked. It is a fault of the server's: no denial."""
    lines = []

    @guarded_tool(verifier(audit=AuditTrail(lines.append)))
    def pay(to: str) -> None:
        raise AssertionError

    with current.serving(verifier().authenticate(mint(tools={"pay": {}}))):
        with pytest.raises(GuardError, match=r"tool pay is called within a request, .* as protect\(...\)"):
            pay("acct-1")
        with current.use(mint(tools={"refund": {}})):
            assert denied(pay, "acct-1") == "tool"


def test_a_guard_of_a_framework_never_asks_the_grant_of_a_request():
    """An agent that runs in a request holds a token of its own, or may do nothing."""
    mine = verifier()
    with current.serving(mine.authenticate(mint(tools={"pay": {}}))):
        assert ToolGuard(mine).check("pay", {}).code == "malformed"
        assert ToolGuard(mine).check("pay", {}, agent="orchestrator").code == "malformed"

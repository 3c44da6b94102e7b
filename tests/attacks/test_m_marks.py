"""Class M: nobody gets round what his task has done. Each attempt is by a holder, by who starts tasks, or by a ledger that fails.

What stands beside it: `tests/test_marking.py` has the rules, `tests/adapters/test_marks_guarded.py` each guard.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from captoken import Access, AsyncVerifier, Decision, Denied, Issuer, Token, Verifier
from captoken._format.encoding import encode_json
from captoken._language.caveats import V1
from captoken._language.link import BadLink
from captoken._language.links import read_link
from captoken.control import Operator, Overlay
from captoken.keys import OperatorKey
from captoken.stores.memory import MemoryLedger, MemorySnapshots
from captoken.stores.ports import Debit, Forbidden, MarkedStep, SetBefore
from captoken.stores.sqlite import SQLiteLedger
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW

RULES: dict[str, Any] = {
    "marks": {"private": {"tables": ["crm.*"]}, "outside": {"tools": ["mail.*"]}},
    "forbid": [{"in": ["outside"], "after": ["private"]}],
}
RIGHTS: dict[str, Any] = {"tables": ["*"], "operations": ["*"], "tools": {"mail.*": {}, "get": {}}}
ROWS = Access(table="crm.customers", operation="select")
MAIL = Access(tool="mail.send", arguments={"to": "eve"})
NOTE = Access(table="notes", operation="insert")


class Time:
    """A clock that is set by hand."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def minted(*, clock: Any = None, subject: str = "ann", task: str = "sales", **more: Any) -> Token:
    given = {**RIGHTS, **RULES, "audience": "crm", **more}
    return Issuer(KEYRING, clock=clock or FixedClock(NOW)).mint(subject=subject, agent="reader", task=task, **given)


def served(ledger: Any, clock: Any = None, **more: Any) -> Verifier:
    return Verifier(KEYRING, "crm", ledger=ledger, clock=clock or FixedClock(NOW), **more)


def code(server: Verifier, token: Token, access: Access) -> str:
    return server.check(token.serialize(), access).code


def costing(access: Access, rows: int = 1) -> Access:
    return structs.replace(access, cost={"rows": rows})


def operating(clock: Any = None) -> tuple[Callable[[], Overlay | None], Operator]:
    key, store = OperatorKey.generate(), MemorySnapshots()
    operator = Operator(key, store, by="ops", clock=clock or FixedClock(NOW))
    operator.renew()

    def newest() -> Overlay | None:
        raw = store.load()
        return None if raw is None else Overlay.open(raw, [key.public])

    return newest, operator


# --- what a process remembers ------------------------------------------------------------------------------------------------


def begun_anew(path: Path, clock: Time) -> SQLiteLedger:
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()
    return SQLiteLedger.create(path, shared=True, clock=clock)


def test_what_a_process_remembers_of_a_lost_ledger_sets_no_mark_in_the_next(tmp_path: Path) -> None:
    """46.7. A server that runs on knows the mark of the lost ledger. It has to be set in the new one, or another server passes."""
    clock, path = Time(), tmp_path / "ledger.db"
    lost = SQLiteLedger.create(path, shared=True, clock=clock)
    clock.now += 120
    with closing(lost):
        runs_on = served(lost, clock)
        assert code(runs_on, minted(clock=clock), ROWS) == "allowed"

        clock.now += 1
        with closing(begun_anew(path, clock)) as ledger:
            clock.now += 61  # past the floor
            token = minted(clock=clock)
            assert code(runs_on, token, ROWS) == "store_unavailable", "another file lies there: it has to be started again"
            assert code(served(ledger, clock), token, MAIL) == "allowed"


@pytest.mark.parametrize(("later", "asks"), [(60, False), (61, True), (-1, True)])
def test_what_a_token_has_set_is_asked_about_again_after_a_minute(later: int, asks: bool) -> None:
    """46.7. So a token of before cannot go on reading for long, beside a ledger that knows nothing of it."""
    clock, gone = Time(), [False]

    class Fails(MemoryLedger):
        def step(self, step: MarkedStep, now: int) -> Any:
            if gone[0]:
                raise OSError
            return super().step(step, now)

    server, token = served(Fails(floor=0), clock), minted()
    clock.now += 100
    assert code(server, token, ROWS) == "allowed"
    gone[0] = True
    clock.now += later
    assert code(server, token, ROWS) == ("store_unavailable" if asks else "allowed")


def test_a_token_that_is_younger_than_what_is_remembered_asks_the_ledger() -> None:
    ledger, clock = MemoryLedger(floor=0), Time()
    server = served(ledger, clock)
    assert code(server, minted(), ROWS) == "allowed"
    steps: list[MarkedStep] = []
    ledger.step = lambda step, now: steps.append(step)  # type: ignore[method-assign]
    assert code(server, minted(clock=FixedClock(NOW + 1)), ROWS) == "allowed" and len(steps) == 1
    assert code(server, minted(), ROWS) == "allowed" and len(steps) == 1


def test_who_only_looks_does_not_keep_a_mark_from_being_kept() -> None:
    """46.5: what asks has a word in how long. A dry run has none, and nor may it stand in for who has."""
    clock, ledger = Time(), MemoryLedger(floor=0)
    server = served(ledger, clock, keep_marks=0)
    assert code(server, minted(expires_in=60), ROWS) == "allowed"
    long_lived = minted(expires_in=86_400)
    assert server.explain(long_lived.serialize(), MAIL).code == "forbidden_after"
    assert code(server, long_lived, MAIL) == "forbidden_after"
    clock.now += 60 + 3600 + 1
    assert code(served(ledger, clock, keep_marks=0), long_lived, MAIL) == "forbidden_after"


def test_what_is_remembered_of_a_genuine_token_answers_no_other_question() -> None:
    """By names alone, of the token's own marks alone: other values, an entry, or a step of several accesses are looked at anew."""
    newest, operator = operating()
    definition = {"tools": ["get"], "but": {"tools": {"get": {"url": {"url": ["https://example.com/"]}}}}}
    ledger = MemoryLedger(floor=0)
    server = served(ledger, overlay=newest)
    token = minted(marks={"page": definition, "outside": {"tools": ["mail.*"]}}, forbid=[{"in": ["outside"], "after": ["page"]}])
    own, evil = (Access(tool="get", arguments={"url": f"https://{host}/"}) for host in ("example.com", "evil.example"))
    for _ in range(3):
        assert code(server, token, own) == code(server, token, MAIL) == "allowed"
    assert code(server, token, evil) == "allowed" and code(server, token, MAIL) == "forbidden_after"

    plain = minted(subject="bo")
    for _ in range(3):
        assert code(server, plain, NOTE) == code(server, plain, MAIL) == "allowed"
    entry = operator.narrow(task="sales", why="notes are private", marks={"n": {"tables": ["notes"]}, "o": {"tools": ["mail.*"]}}, forbid=[{"in": ["o"], "after": ["n"]}])  # fmt: skip
    assert code(server, plain, NOTE) == "allowed" and code(server, plain, MAIL) == "forbidden_after"
    operator.lift(entry.id)
    assert code(server, plain, MAIL) == "allowed"
    grant = server.authenticate(plain.serialize())
    assert grant.check_all([MAIL, ROWS]).code == grant.check_all([ROWS, MAIL]).code == "forbidden_after"


# --- a step in parts ---------------------------------------------------------------------------------------------------------


def test_a_part_of_a_step_that_does_something_else_is_asked_and_sets() -> None:
    """38.16, 46.6. What the parts before were asked about is not asked again: anything else is."""
    server = served(MemoryLedger(floor=0))
    grant = server.authenticate(minted(budget={"rows": 100}).serialize())
    first = grant.reserve_all([costing(NOTE)])
    second = grant.reserve_all([costing(NOTE), costing(ROWS)], after=first)
    third = grant.reserve_all([costing(NOTE)], after=second)
    with pytest.raises(Denied, match="forbidden_after"):
        grant.reserve_all([costing(MAIL)], after=third)
    with pytest.raises(Denied, match="forbidden_after"):
        grant.reserve_all([costing(MAIL)], after=first)
    assert grant.reserve_all([costing(ROWS)], after=third), "and what was asked about goes on"


@pytest.mark.parametrize("budget", [{}, {"budget": {"rows": 9}}])
def test_a_step_that_was_allowed_goes_on_in_parts_after_others_closed_it(budget: dict[str, Any]) -> None:
    server = served(MemoryLedger(floor=0))
    grant = server.authenticate(minted(**budget).serialize())
    sending = costing(MAIL) if budget else MAIL
    first = grant.reserve_all([sending])
    assert code(server, minted(), ROWS) == "allowed"
    assert grant.reserve_all([sending], after=first)
    with pytest.raises(Denied, match="forbidden_after"):
        grant.reserve_all([sending])


# --- one place ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("audience", [{"audience": ["crm", "mail"]}, {}])
def test_rules_of_an_operator_are_for_one_place_too(audience: dict[str, Any]) -> None:
    """46.8. At two servers that count apart, each would know half of what was done."""
    newest, operator = operating()
    issuer = Issuer(KEYRING, clock=FixedClock(NOW))
    token = issuer.mint(subject="ann", agent="reader", task="sales", **RIGHTS, **audience)
    servers = [
        Verifier(KEYRING, name, ledger=MemoryLedger(floor=0), clock=FixedClock(NOW), overlay=newest, allow_unaddressed=True)
        for name in ("crm", "mail")
    ]
    assert [code(server, token, NOTE) for server in servers] == ["allowed"] * 2
    marks_alone = operator.narrow(task="sales", why="to see", marks=RULES["marks"])
    assert [code(server, token, NOTE) for server in servers] == ["allowed"] * 2
    operator.lift(marks_alone.id)
    entry = operator.narrow(task="sales", why="rule of two", **RULES)
    assert [code(server, token, NOTE) for server in servers] == ["unaddressed"] * 2
    assert code(servers[0], token.attenuate(audience="crm"), NOTE) == "unaddressed", "its holder writes another for the next"
    one = issuer.mint(subject="ann", agent="reader", task="sales", **RIGHTS, audience="crm")
    assert code(servers[0], one, NOTE) == "allowed"
    operator.lift(entry.id)
    assert [code(server, token, NOTE) for server in servers] == ["allowed"] * 2


# --- interleavings ------------------------------------------------------------------------------------------------------------


def test_no_order_of_steps_of_several_tokens_at_several_servers_passes(tmp_path: Path) -> None:
    """46.11, against a model: what is allowed after both are set is what the marks do not hold."""
    for seed in range(40):
        pick = random.Random(seed)
        ledger: Any = MemoryLedger(floor=0) if seed % 4 else SQLiteLedger.create(tmp_path / f"{seed}.db", floor=0)
        servers = [served(ledger), served(ledger, remember=0), served(ledger, keep_marks=0)]
        root = minted(expires_in=pick.choice([60, 600]))
        tokens = [root, minted(uses=5), root.delegate(to="b", budget={"rows": 9}), minted(task="sales/a"), root.attenuate(task="sales/b")]
        private = False
        for _ in range(25):
            token, server = pick.choice(tokens), pick.choice(servers)
            accesses = [costing(pick.choice([ROWS, MAIL, NOTE])) for _ in range(pick.choice([1, 1, 2, 3]))]
            grant = server.authenticate(token.serialize())
            how = pick.choice(["check", "check", "explain", "recheck"])
            if how != "check":  # they set nothing, and teach no process anything false
                assert isinstance(grant.explain(accesses[0]) if how == "explain" else grant.recheck(accesses), Decision)
                continue
            decision = grant.check_all(accesses)
            reads = any(one.table == "crm.customers" for one in accesses)
            sends = any(one.tool == "mail.send" for one in accesses)
            assert not (decision and sends and (private or reads)), seed
            assert decision.code in ("allowed", "forbidden_after", "budget_exhausted")
            private = private or (bool(decision) and reads)
        if isinstance(ledger, SQLiteLedger):
            ledger.close()


def test_threads_at_two_servers_never_pass_in_no_order() -> None:
    """46.6: of a read that sends what it reads, and of a read and a send that race, no send is begun after the read was answered."""
    for number in range(40):
        ledger, token = MemoryLedger(floor=0), minted(subject=f"s{number}").serialize()
        both: dict[str, Any] = {**RULES, "forbid": [{"in": ["outside"], "after": ["private"]}, {"in": ["private"], "after": ["outside"]}]}
        token = minted(subject=f"s{number}", **both).serialize()
        gate = threading.Barrier(4)

        def ask(access: Access, ledger: Any = ledger, token: str = token, gate: Any = gate) -> bool:
            server = served(ledger)
            gate.wait(5)
            return bool(server.check(token, access))

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(ask, [ROWS, MAIL, ROWS, MAIL]))
        assert not (any(answers[::2]) and any(answers[1::2])), "each closes the other: only one kind passes"
        assert any(answers)


@pytest.mark.parametrize("turn", range(12))
def test_whoever_is_cancelled_has_set_its_mark_or_done_nothing(turn: int) -> None:
    """24.20: at each turn of the event loop. Where the mark is not set, nobody was told that the read is allowed."""

    class Awaited(MemoryLedger):
        awaited = True

        async def step(self, step: MarkedStep, now: int) -> Any:  # type: ignore[override]
            await asyncio.sleep(0)
            answer = MemoryLedger.step(self, step, now)
            await asyncio.sleep(0)
            return answer

    async def main() -> None:
        ledger = Awaited(floor=0)
        server = AsyncVerifier(KEYRING, "crm", ledger=ledger, clock=FixedClock(NOW))  # type: ignore[arg-type]
        token = minted().serialize()
        reading = asyncio.ensure_future(server.check(token, ROWS)._coroutine)
        for _ in range(turn):
            await asyncio.sleep(0)
        reading.cancel()
        was_told = False
        with suppress(asyncio.CancelledError):
            was_told = bool(await reading)
        decision = await server.check(token, MAIL)
        assert decision.code == "forbidden_after" or not was_told

    asyncio.run(main())


# --- ledgers that fail -----------------------------------------------------------------------------------------------------------


WRONG: list[Any] = [
    Forbidden(0, (SetBefore(b"x", "y", "z"),)),  # type: ignore[arg-type]
    Forbidden(0, None),  # type: ignore[arg-type]
    Forbidden("0"),  # type: ignore[arg-type]
    Forbidden(0, (SetBefore(b"", 10**30, "\n\x1b[2J" * 999),)),
    Debit(b"", "rows", 1, 2, 99),
    Debit(b"", "rows", 1, 2, -99, full=True),
]


@pytest.mark.parametrize("answer", WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("access", [ROWS, MAIL])
def test_a_wrong_answer_denies_now_and_later(answer: Any, access: Access) -> None:
    class Odd(MemoryLedger):
        def step(self, step: MarkedStep, now: int) -> Any:
            return answer

        peek_step = step

    server, text = served(Odd(floor=0)), minted().serialize()
    for _ in range(3):
        decision = server.check(text, access)
        assert not decision and "\n" not in decision.line() and "\x1b" not in decision.line()
        assert decision.code in ("store_unavailable", "forbidden_after", "budget_exhausted")
        assert not server.explain(text, access)
        assert isinstance(server.authenticate(text).recheck([access]), Decision)


@pytest.mark.parametrize("damage", ["update marks set said = cast(x'ff80' as text)", "drop table marks", "update marks set at = 9223372036854775807"])
def test_a_damaged_file_denies(damage: str, tmp_path: Path) -> None:
    SQLiteLedger.create(tmp_path / "ledger.db", floor=0).close()
    token = minted()
    with closing(SQLiteLedger(tmp_path / "ledger.db")) as ledger:
        assert code(served(ledger), token, ROWS) == "allowed"
    with sqlite3.connect(tmp_path / "ledger.db") as file:
        file.execute(damage)
    file.close()
    with closing(SQLiteLedger(tmp_path / "ledger.db")) as ledger:
        for _ in range(2):
            decision = served(ledger).check(token.serialize(), MAIL)
            assert decision.code in ("store_unavailable", "forbidden_after") and "eve" not in str(decision)


# --- what a holder writes ----------------------------------------------------------------------------------------------------------


def test_no_link_of_a_holder_takes_a_mark_or_a_rule_off() -> None:
    """Whatever a holder adds, the marks of the links above stay what they are."""
    nothing: dict[str, Any] = {"marks": {"private": {"tables": ["none"]}, "outside": {"tools": ["none"]}}, "forbid": RULES["forbid"]}
    root = minted()
    for token in (
        root.attenuate(**nothing),
        root.attenuate(tables=["crm.*"], tools={"mail.send": {}}),
        root.attenuate(task="sales/x/y").delegate(to="b", **nothing).delegate(to="c"),
        root.attenuate(expires_in=1),
        root.attenuate(uses=2),
        root.attenuate(audience="crm"),
    ):
        for reader, sender in ((token, root), (root, token), (token, token)):
            server = served(MemoryLedger(floor=0))
            assert code(server, reader, ROWS) == "allowed" and code(server, sender, MAIL) == "forbidden_after"


@pytest.mark.parametrize(
    "said",
    [
        {"marks": {"a": {"tables": ["crm.*"], "tools": []}}},
        {"marks": {"a\u0000": {"tables": ["x"]}}},
        {"marks": {"a" * 300: {"tables": ["x"]}}},
        {"marks": {"a": {"tables": ["x"], "but": {"tables": ["x"], "uses": 1}}}},
        {"marks": {"a": {"tables": ["x"], "but": {"marks": {}}}}},
        {"forbid": [{"in": ["a"], "after": ["a"]}]},
    ],
    ids=range(6),
)
def test_what_is_no_mark_closes_its_own_token(said: dict[str, Any]) -> None:
    assert isinstance(read_link(encode_json({"n": "AAAAAAAAAAA", **said}), V1), BadLink)


OWN = {"tools": {"get": {"url": {"url": ["https://*.example.com/"]}}}}
SPELLINGS = [
    {"url": "https://docs.example.com@evil.example/"},
    {"url": "https://docs.example.com\\@evil.example/"},
    {"url": "https://docs.example.com/\\..\\"},
    {"url": "https://evil.example#.example.com/"},
    {"url": "https://evil.example?.example.com/"},
    {"url": "HTTPS://DOCS.EXAMPLE.COM:443/"},
    {"url": " https://docs.example.com/"},
    {"url": "https://docs.example.com/\n"},
    {"url": "http://docs.example.com/"},
    {"url": "https://docs.example.com./"},
    {"url": "https://xdocs.example.com.evil.example/"},
    {"url": "https://docs.example\u3002com/"},
    {"url": ["https://docs.example.com/"]},
    {"url": None},
    {"URL": "https://docs.example.com/"},
    {"url": "https://docs.example.com/", "proxy": "evil.example"},
    {},
]


@pytest.mark.parametrize("arguments", SPELLINGS, ids=str)
def test_no_spelling_takes_a_stranger_out_of_a_mark(arguments: dict[str, Any]) -> None:
    server = served(MemoryLedger(floor=0))
    token = minted(
        marks={"page": {"tools": ["get"], "but": OWN}, "outside": {"tools": ["mail.*"]}},
        forbid=[{"in": ["outside"], "after": ["page"]}],
    )
    assert code(server, token, Access(tool="get", arguments=arguments)) == "allowed"
    assert code(server, token, MAIL) == "forbidden_after"


def test_what_a_record_and_a_ledger_say_of_a_step_has_no_value_of_it() -> None:
    steps: list[MarkedStep] = []

    class Watched(MemoryLedger):
        def step(self, step: MarkedStep, now: int) -> Any:
            steps.append(step)
            return super().step(step, now)

    server, token = served(Watched(floor=0)), minted(marks={"private": {"tools": ["get"]}, "outside": {"tools": ["mail.*"]}})
    secret = Access(tool="get", arguments={"key": "hunter2"}, attributes={"who": "hunter2"})
    assert server.check(token.serialize(), secret)
    decision = server.check(token.serialize(), MAIL)
    assert decision.code == "forbidden_after"
    assert "hunter2" not in f"{steps}{decision}{decision.line()}{decision.for_model()}"

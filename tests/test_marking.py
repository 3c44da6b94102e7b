"""Marks: what was done limits what may be done next (spec, section 46). Attacks on it stand at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import permutations
from typing import Any

import pytest

from captoken import Access, Decision, Issuer, Keyring, Token, Verifier
from captoken._format.encoding import encode_json
from captoken._language.caveats import V1
from captoken._language.link import BadLink, Link
from captoken._language.links import read_link
from captoken._verification import marking
from captoken._writing.keywords import UNSET
from captoken.control import Operator, Overlay
from captoken.keys import OperatorKey
from captoken.stores.memory import MemoryLedger, MemorySnapshots
from captoken.stores.ports import KEEP_MARKS, Debit, Forbidden, MarkedStep, Reservation
from captoken.testing import FixedClock
from tests.fixtures import KEYRING, NOW

SITE = "https://*.example.com/"
MARKS: dict[str, Any] = {
    "untrusted": {"tools": ["http.get"], "but": {"tools": {"http.get": {"url": {"url": [SITE]}}}}},
    "private": {"tables": ["crm.*"], "operations": ["select"]},
    "outside": {"tools": ["mail.*", "http.post"]},
}
RULE_OF_TWO: dict[str, Any] = {"marks": MARKS, "forbid": [{"in": ["outside"], "after": ["untrusted", "private"]}]}
RIGHTS: dict[str, Any] = {
    "tables": ["crm.*", "notes"],
    "operations": ["select", "insert"],
    "tools": {"http.get": {}, "http.post": {}, "mail.send": {}},
}

PAGE = Access(tool="http.get", arguments={"url": "https://evil.test/"})
OWN_PAGE = Access(tool="http.get", arguments={"url": "https://docs.example.com/a"})
ROWS = Access(table="crm.customers", operation="select")
MAIL = Access(tool="mail.send", arguments={"to": "ops"})
NOTE = Access(table="notes", operation="insert")


def at(now: int = NOW) -> FixedClock:
    return FixedClock(now)


def minted(*, keyring: Keyring = KEYRING, subject: str = "ann", task: str = "sales", **more: Any) -> Token:
    given = {**RULE_OF_TWO, **RIGHTS, "audience": "crm", **more}
    return Issuer(keyring, clock=at()).mint(subject=subject, agent="reader", task=task, **given)


def served(ledger: Any, *, keyring: Keyring = KEYRING, now: int = NOW, **more: Any) -> Verifier:
    return Verifier(keyring, "crm", ledger=ledger, clock=at(now), **more)


def ledger(**more: Any) -> MemoryLedger:
    return MemoryLedger(floor=0, **more)


def codes(server: Verifier, token: Token, *asked: Access) -> list[str]:
    return [server.check(token.serialize(), access).code for access in asked]


UNREADABLE: list[dict[str, Any]] = [
    {"marks": {}},
    {"marks": []},
    {"marks": {"a b": {"tables": ["x"]}}},
    {"marks": {"a": {}}},
    {"marks": {"a": []}},
    {"marks": {"a": {"operations": ["select"]}}},
    {"marks": {"a": {"operations": ["select"], "tools": ["x"]}}},
    {"marks": {"a": {"tables": []}}},
    {"marks": {"a": {"tables": "x"}}},
    {"marks": {"a": {"tables": ["*.x"]}}},
    {"marks": {"a": {"tables": ["x"], "operations": []}}},
    {"marks": {"a": {"tables": ["x"], "operations": ["a b"]}}},
    {"marks": {"a": {"tools": [1]}}},
    {"marks": {"a": {"tables": ["x"], "columns": ["y"]}}},
    {"marks": {"a": {"tables": ["x"], "but": {}}}},
    {"marks": {"a": {"tables": ["x"], "but": []}}},
    {"marks": {"a": {"tables": ["x"], "but": {"columns": {"x": ["y"]}}}}},
    {"marks": {"a": {"tables": ["x"], "but": {"tables": "x"}}}},
    {"marks": {"a": {"tables": ["x"], "but": {"tools": {"f": {"x": {"unknown": 1}}}}}}},
    {"marks": {f"m{number}": {"tables": ["x"]} for number in range(9)}},
    {"forbid": []},
    {"forbid": {}},
    {"forbid": [[]]},
    {"forbid": [{}]},
    {"forbid": [{"in": ["outside"]}]},
    {"forbid": [{"after": ["private"]}]},
    {"forbid": [{"in": [], "after": ["private"]}]},
    {"forbid": [{"in": ["outside"], "after": []}]},
    {"forbid": [{"in": "outside", "after": ["private"]}]},
    {"forbid": [{"in": ["outside"], "after": ["other"]}]},
    {"forbid": [{"in": ["other"], "after": ["private"]}]},
    {"forbid": [{"in": ["outside"], "after": ["private"], "but": 1}]},
    {"forbid": [{"in": ["outside"], "after": ["private"], "unless": "short"}]},
    {"forbid": [{"in": ["outside"], "after": ["private"], "unless": "A" * 43}]},
    {"forbid": [{"in": ["outside"], "after": ["a b"]}]},
]
REPEATED: list[dict[str, Any]] = [
    {"forbid": [{"in": ["outside"], "after": ["private"] * 8}]},
    {"forbid": [{"in": ["outside"] * 9, "after": ["private"]}]},
    {"forbid": RULE_OF_TWO["forbid"] * 17},
]


@pytest.mark.parametrize("changed", UNREADABLE + REPEATED, ids=lambda changed: str(changed)[:60])
def test_a_definition_or_a_rule_that_says_nothing_or_too_much_is_unreadable(changed: dict[str, Any]) -> None:
    """46.1, 46.4. Each differs in one thing from what can be read; and a writer is told."""
    whole = {**RULE_OF_TWO, "n": "AAAAAAAAAAA"}
    if "marks" in changed and not isinstance(changed["marks"], list):
        whole.pop("forbid")
    assert isinstance(read_link(encode_json(whole), V1), Link)
    assert isinstance(read_link(encode_json({**whole, **changed}), V1), BadLink)
    given = {key: value for key, value in {**RULE_OF_TWO, **changed}.items() if key in whole}
    if changed in REPEATED:  # a writer leaves out what repeats itself
        return
    with pytest.raises((TypeError, ValueError)):
        minted(**{"forbid": None, **given} if "forbid" in given else {"forbid": UNSET, **given})


@pytest.mark.parametrize("missing", ["n", "marks"])
def test_marks_stand_beside_a_nonce_and_rules_beside_marks(missing: str) -> None:
    """17.6, 46.4."""
    whole = {**RULE_OF_TWO, "n": "AAAAAAAAAAA"}
    del whole[missing]
    assert isinstance(read_link(encode_json(whole), V1), BadLink)


def test_rules_and_marks_of_several_links_stand_side_by_side_in_a_capability() -> None:
    """46.10. A name that two links define in two ways has a number behind it."""
    token = minted().attenuate(marks={"private": {"tables": ["notes"]}}).attenuate(marks={"private": MARKS["private"]})
    held = token.unverified.capability.json()
    assert held["marks"]["private"] == MARKS["private"] and held["marks"]["private/2"] == {"tables": ["notes"]}
    assert set(held["marks"]) == {*MARKS, "private/2"}
    assert held["forbid"] == [{"after": ["private", "untrusted"], "in": ["outside"]}]


# --- the rule of two ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "order", list(permutations([PAGE, ROWS, MAIL])), ids=lambda order: "-".join(one.tool or one.table for one in order)
)
def test_nothing_leaves_once_both_are_set(order: tuple[Access, ...]) -> None:
    """All six orders, twice through: a mail passes as long as one of the two is not set, and never after."""
    server, token = served(ledger()), minted()
    done: set[str] = set()
    for access in (*order, *order):
        code = server.check(token.serialize(), access).code
        closed = access is MAIL and {"page", "rows"} <= done
        assert code == ("forbidden_after" if closed else "allowed"), (order, access)
        if access is not MAIL:
            done.add("page" if access is PAGE else "rows")


def test_a_denial_says_which_marks_and_what_set_them_and_tells_a_model_none_of_it() -> None:
    server, token = served(ledger()), minted()
    assert codes(server, token, PAGE, ROWS) == ["allowed"] * 2
    decision = server.check(token.serialize(), MAIL)
    assert (decision.code, decision.step, decision.refusals[0].link, decision.refusals[0].added_by) == (
        "forbidden_after",
        11,
        0,
        "the issuer",
    )
    said = "nothing in outside after private and untrusted; private since 2025-11-25T09:00:00+00:00 by reader: select on table crm.customers; untrusted since 20"
    assert decision.refusals[0].text.startswith(said) and "evil.test" not in str(decision)
    for_model = decision.for_model()
    assert for_model.startswith("Not permitted any more in this task, after what was done in it.")
    assert not any(name in for_model for name in MARKS)


@pytest.mark.parametrize(
    ("access", "is_in"),
    [
        (PAGE, True),
        (OWN_PAGE, False),
        (Access(tool="http.get", arguments={"url": "https://docs.example.com/a", "headers": {}}), True),
        (Access(tool="http.get", arguments={}), True),
        (Access(tool="http.get"), True),
        (Access(tool="http.get", arguments={"url": "https://docs.example.com:443/a"}), True),
        (Access(tool="http.get", arguments={"url": "https://docs.example.com@evil.test/"}), True),
        (Access(tool="http.get", arguments={"url": "HTTPS://docs.example.com/a"}), True),
        (Access(tool="http.get", arguments={"url": ["https://docs.example.com/a"]}), True),
        (
            Access(tool="http.get", arguments={"url": "https://docs.example.com/a"}, table="crm.customers", operation="select"),
            True,
        ),
        (Access(tool="http.head", arguments={"url": "https://evil.test/"}), False),
    ],
)
def test_what_but_does_not_permit_stays_in_the_mark(access: Access, is_in: bool) -> None:
    """Doubt is in: one argument more or less, another spelling, a table beside it which `but` does not name."""
    assert read(MARKS)["untrusted"].has(access) is is_in


def read(marks: dict[str, Any]) -> dict[str, Any]:
    link = read_link(encode_json({"marks": marks, "n": "AAAAAAAAAAA"}), V1)
    return next(caveat.rules for caveat in link.late)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("definition", "inside", "outside"),
    [
        (
            {"tables": ["crm.*"]},
            [ROWS, Access(table="crm.a.b", operation="delete")],
            [NOTE, MAIL, Access(), Access(table="crm", operation="select")],
        ),
        ({"tables": ["crm.*"], "operations": ["*"]}, [ROWS], [NOTE]),
        ({"tables": ["*"], "operations": ["insert"]}, [NOTE], [ROWS, MAIL]),
        (
            {"tables": ["notes"], "tools": ["mail.*"]},
            [NOTE, MAIL, Access(table="crm.x", operation="select", tool="mail.send")],
            [ROWS, PAGE],
        ),
        ({"tables": ["*"], "but": {"tables": ["notes"]}}, [ROWS, Access(table="notes", operation="select", tool="x")], [NOTE]),
        ({"tables": ["*"], "but": {"allow": {"notes": ["insert"]}}}, [Access(table="notes", operation="select")], [NOTE]),
        ({"tables": ["*"], "but": {"operations": ["insert"]}}, [ROWS], [NOTE]),
        ({"tools": ["*"], "but": {"tools": {}}}, [MAIL, PAGE], [ROWS]),
    ],
)
def test_which_accesses_are_in_a_mark(definition: dict[str, Any], inside: list[Access], outside: list[Access]) -> None:
    rule = read({"m": definition})["m"]
    assert [rule.has(access) for access in inside] == [True] * len(inside)
    assert [rule.has(access) for access in outside] == [False] * len(outside)


# --- steps ---------------------------------------------------------------------------------------------------------------


def test_a_step_is_judged_as_if_its_own_marks_were_set() -> None:
    """All of a statement at once: what sends and reads in one is closed by itself, in either order; and sets nothing."""
    counts = ledger()
    server, token = served(counts), minted(forbid=[{"in": ["outside"], "after": ["private"]}])
    grant = server.authenticate(token.serialize())
    assert grant.check_all([MAIL, ROWS]).code == grant.check_all([ROWS, MAIL]).code == "forbidden_after"
    assert grant.check(MAIL).code == "allowed", "nothing was set"
    assert grant.check_all([ROWS, NOTE]).code == "allowed"
    assert grant.check(MAIL).code == "forbidden_after"


def test_marks_and_a_reservation_are_one_step() -> None:
    """What is short of a budget sets no mark; what is forbidden takes no budget; rules are asked first."""
    rule = [{"in": ["outside"], "after": ["private"]}]
    counts = ledger()
    server, token = served(counts), minted(budget={"cents": 10}, forbid=rule)
    grant = server.authenticate(token.serialize())
    bucket = grant.link_ids[0]

    def costing(access: Access, cents: int) -> str:
        return grant.check(
            Access(
                table=access.table,
                operation=access.operation,
                tool=access.tool,
                arguments=access.arguments,
                cost={"cents": cents},
            )
        ).code

    assert costing(ROWS, 11) == "budget_exhausted"
    assert costing(MAIL, 4) == "allowed" == costing(ROWS, 1)
    assert costing(MAIL, 4) == costing(MAIL, 10) == "forbidden_after"
    assert costing(MAIL, 11) == "budget_exhausted", "more than a whole limit is told first (38.3)"
    assert costing(NOTE, 5) == "allowed", "five were left: what was forbidden took none"
    assert costing(NOTE, 1) == "budget_exhausted" and bucket


def test_a_further_part_of_a_step_is_not_asked_and_sets_nothing() -> None:
    rule = [{"in": ["private"], "after": ["untrusted"]}]
    server, token = served(ledger()), minted(budget={"rows": 10}, forbid=rule)
    grant = server.authenticate(token.serialize())
    part = Access(table="crm.customers", operation="select", cost={"rows": 1})
    first = grant.reserve_all([part])
    page = Access(tool="http.get", arguments={"url": "https://evil.test/"}, cost={"rows": 0})
    assert grant.check(page)
    assert grant.reserve_all([part], after=first)
    assert grant.check(part).code == "forbidden_after"


def test_a_dry_run_and_a_recheck_look_and_set_nothing() -> None:
    counts = ledger()
    server, token = served(counts), minted()
    text = token.serialize()
    grant = server.authenticate(text)
    for access in (PAGE, ROWS):
        assert server.explain(text, access) and grant.explain(access) and grant.recheck([access])
    assert server.check(text, MAIL)
    assert codes(server, token, PAGE, ROWS) == ["allowed"] * 2
    assert [one.code for one in (server.explain(text, MAIL), grant.recheck([MAIL]))] == ["forbidden_after"] * 2
    elsewhere = served(counts)
    assert elsewhere.authenticate(text).recheck([MAIL]), "a recheck knows what its own process has seen"
    assert elsewhere.explain(text, MAIL).code == "forbidden_after"
    assert elsewhere.authenticate(text).recheck([MAIL]), "and a look is not remembered"
    assert elsewhere.check(text, MAIL).code == elsewhere.authenticate(text).recheck([MAIL]).code == "forbidden_after"


def test_what_a_look_was_told_is_set_all_the_same() -> None:
    """Who lives longer than the token that set a mark looks, and then does what is in it, once the ledger has forgotten the mark."""
    counts, now = ledger(), [NOW]
    short, long = minted(expires_in=60), minted(expires_in=400 * 86400)
    one, other = (Verifier(KEYRING, "crm", ledger=counts, clock=lambda: float(now[0])) for _ in range(2))
    for access in (PAGE, ROWS):
        assert one.check(short.serialize(), access)
    assert one.explain(long.serialize(), MAIL).code == "forbidden_after"
    now[0] += 60 + KEEP_MARKS
    for access in (PAGE, ROWS):
        assert one.check(long.serialize(), access)
    assert other.check(long.serialize(), MAIL).code == "forbidden_after"


def test_without_a_ledger_that_is_told_before_a_limit() -> None:
    """As where nothing is in a mark (spec, 42.4)."""
    token = minted(budget={"cents": 5})
    dear = Access(tool="mail.send", arguments={"to": "ops"}, cost={"cents": 6})
    for counts, code in ((None, "store_unavailable"), (ledger(), "budget_exhausted")):
        assert served(counts).check(token.serialize(), dear).code == code


def test_what_is_denied_after_the_ledger_leaves_its_marks() -> None:
    """24.20: the token ended while the ledger was asked. The access did not happen; its mark stays."""
    counts, now = ledger(), [NOW]

    class Slow:
        shared = False

        def step(self, step: MarkedStep, at: int) -> Any:
            now[0] += 1000
            return counts.step(step, at)

        def __getattr__(self, name: str) -> Any:
            return getattr(counts, name)

    server = Verifier(KEYRING, "crm", ledger=Slow(), clock=lambda: float(now[0]))
    token, live = minted(expires_in=60), minted(expires_in=5000)
    assert server.check(token.serialize(), PAGE).code == "expired"
    assert codes(served(counts, now=now[0]), live, ROWS, MAIL) == ["allowed", "forbidden_after"]


# --- the ledger ----------------------------------------------------------------------------------------------------------


def test_what_is_set_already_costs_no_call() -> None:
    """46.7: neither setting once more, nor denying once all is known."""
    counts, called = ledger(), list[str]()

    class Watched:
        shared = False

        def step(self, step: MarkedStep, now: int) -> Any:
            called.append("step")
            return counts.step(step, now)

        def peek_step(self, step: MarkedStep, now: int) -> Any:
            called.append("peek_step")
            return counts.peek_step(step, now)

    server, token = served(Watched()), minted()
    assert codes(server, token, PAGE, PAGE, ROWS, ROWS, PAGE) == ["allowed"] * 5
    assert called == ["step", "step"]
    assert codes(server, token, MAIL, MAIL, MAIL) == ["forbidden_after"] * 3
    assert called == ["step", "step", "peek_step"], "asked once more, for who set them, and then no more"
    assert codes(server, token, NOTE, OWN_PAGE) == ["allowed"] * 2 and len(called) == 3, "in no mark: nobody is asked"


def test_without_a_ledger_that_keeps_marks_what_is_in_one_is_denied() -> None:
    token = minted()

    class Old:
        """A ledger of a user's own, from before there were marks."""

        shared = False

        def reserve(self, reservation: Any, now: int) -> None:
            return None

        peek = reserve

    for given, said in ((None, "needs a ledger"), (Old(), "has no methods step and peek_step")):
        server = served(given)
        assert codes(server, token, NOTE, OWN_PAGE) == ["allowed"] * 2
        for access in (PAGE, ROWS, MAIL):
            decision = server.check(token.serialize(), access)
            assert decision.code == "store_unavailable" and said in str(decision)
            assert server.explain(token.serialize(), access).code == "store_unavailable"


def test_a_ledger_without_marks_counts_on_and_denies_what_a_rule_of_a_later_link_closes() -> None:
    """A mark of a later link that no rule names is nothing that it is asked for; nor is a token without marks."""
    taken = list[Reservation]()

    class Old:
        shared = True

        def reserve(self, reservation: Reservation, now: int) -> None:
            taken.append(reservation)

    server = served(Old())
    plain = Issuer(KEYRING, clock=at()).mint(subject="ann", agent="reader", task="sales", audience="crm", uses=5, **RIGHTS)
    assert codes(server, plain, MAIL, ROWS) == ["allowed"] * 2 and len(taken) == 2
    unnamed = plain.attenuate(marks=MARKS)
    assert codes(server, unnamed, MAIL, ROWS) == ["allowed"] * 2 and len(taken) == 4
    closing = plain.attenuate(**RULE_OF_TWO)
    assert codes(server, closing, MAIL, ROWS, PAGE) == ["store_unavailable"] * 3 and len(taken) == 4
    assert codes(server, closing, NOTE, OWN_PAGE) == ["allowed"] * 2 and len(taken) == 6


@pytest.mark.parametrize("answer", [True, False, 0, 1, "", Forbidden(5), Forbidden(-9), object(), (), b""])
def test_any_other_answer_is_a_denial(answer: Any) -> None:
    class Odd:
        shared = False

        def step(self, step: MarkedStep, now: int) -> Any:
            return answer

        peek_step = step

    decision = served(Odd()).check(minted().serialize(), PAGE)
    assert decision.code == "store_unavailable"


@pytest.mark.parametrize("fault", [OSError, ValueError, KeyError, RuntimeError])
def test_a_fault_of_the_ledger_denies_also_where_it_is_asked_for_words(fault: type[Exception]) -> None:
    counts, fails = ledger(), [False]

    class Failing:
        shared = False

        def step(self, step: MarkedStep, now: int) -> Any:
            if fails[0]:
                raise fault("secret")
            return counts.step(step, now)

        peek_step = step

    server, token = served(Failing()), minted()
    assert codes(server, token, PAGE, ROWS) == ["allowed"] * 2
    fails[0] = True
    denied = server.check(token.serialize(), MAIL)
    assert denied.code == "forbidden_after" and "set at" not in str(denied) and "secret" not in str(denied)
    assert served(Failing()).check(token.serialize(), MAIL).code == "store_unavailable"


def test_a_mark_of_a_task_is_kept_beyond_the_latest_expiry_that_was_seen() -> None:
    """46.5: 30 days, or as the verifier is told; without an expiry for good. What asks has a word in it, too."""
    for keep in (KEEP_MARKS, 4000):
        for late, code in ((NOW + 599 + keep, "forbidden_after"), (NOW + 600 + keep, "allowed")):
            counts = ledger()
            server = served(counts, keep_marks=keep)
            assert codes(server, minted(expires_in=60), PAGE) == ["allowed"]
            assert codes(server, minted(expires_in=600), ROWS, MAIL) == ["allowed", "forbidden_after"], (
                "and so 600 count for both"
            )
            again = Issuer(KEYRING, clock=at(late)).mint(
                subject="ann", agent="b", task="sales", audience="crm", **RULE_OF_TWO, **RIGHTS, expires_in=60
            )
            assert served(counts, now=late, keep_marks=keep).check(again.serialize(), MAIL).code == code
    forever = ledger()
    assert codes(served(forever), minted(expires_at=None), PAGE, ROWS) == ["allowed"] * 2
    assert served(forever, now=2 * NOW).check(minted(expires_at=None).serialize(), MAIL).code == "forbidden_after"


def test_a_look_remembers_no_mark_for_longer_than_the_ledger_was_told() -> None:
    """46.5, 46.7: `explain` of a token that lives long keeps nothing. Else its own access would not keep it either."""
    counts = ledger()
    short, long = minted(expires_in=60), minted(expires_in=90 * 86400)
    one = served(counts)
    assert codes(one, short, PAGE, ROWS) == ["allowed"] * 2
    assert one.explain(long.serialize(), MAIL).code == "forbidden_after"
    for now in (NOW, NOW + 20 * 86400):
        assert codes(Verifier(KEYRING, "crm", ledger=counts, clock=at(now)), long, MAIL) == ["forbidden_after"]
    now = [float(NOW)]
    again = Verifier(KEYRING, "crm", ledger=(fresh := ledger()), clock=lambda: now[0])
    assert codes(again, short, PAGE, ROWS) == ["allowed"] * 2
    assert again.explain(long.serialize(), MAIL).code == "forbidden_after"
    now[0] += 20 * 86400
    assert codes(again, long, PAGE, ROWS) == ["allowed"] * 2, "and so they are kept for as long as this token lives"
    late = Verifier(KEYRING, "crm", ledger=fresh, clock=at(NOW + 40 * 86400))
    assert codes(late, long, MAIL) == ["forbidden_after"]


def test_a_process_forgets_a_mark_when_its_ledger_does() -> None:
    now = [float(NOW)]
    server = Verifier(KEYRING, "crm", ledger=ledger(), clock=lambda: now[0], keep_marks=4000)
    token = minted(expires_in=60)
    assert codes(server, token, PAGE, ROWS, MAIL) == ["allowed", "allowed", "forbidden_after"]
    now[0] += 4060
    new = Issuer(KEYRING, clock=lambda: now[0]).mint(
        subject="ann", agent="b", task="sales", audience="crm", **RULE_OF_TWO, **RIGHTS
    )
    assert codes(server, new, MAIL, PAGE, ROWS, MAIL) == ["allowed"] * 3 + ["forbidden_after"]


def test_the_memory_of_a_process_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it forgets it asks about again."""
    monkeypatch.setattr("captoken._verification.effects._MOST_MARKS", 3)
    server = served(ledger())
    for number in range(6):
        token = minted(task=f"task-{number}")
        assert codes(server, token, PAGE, ROWS, MAIL) == ["allowed", "allowed", "forbidden_after"]
    assert codes(server, minted(task="task-0"), MAIL) == ["forbidden_after"]


# --- whose a mark is -----------------------------------------------------------------------------------------------------


def test_marks_of_a_later_link_belong_to_that_link_and_what_is_made_of_it() -> None:
    server, root = served(ledger()), minted(marks={"x": {"tools": ["none"]}}, forbid=[{"in": ["x"], "after": ["x"]}])
    one, two = (root.delegate(to=name, **RULE_OF_TWO) for name in ("one", "two"))
    assert codes(server, one, PAGE, ROWS, MAIL) == ["allowed", "allowed", "forbidden_after"]
    assert codes(server, one.delegate(to="below"), MAIL) == ["forbidden_after"]
    assert codes(server, two, MAIL) == codes(server, root, MAIL) == ["allowed"]
    denied = server.check(one.delegate(to="below").serialize(), MAIL)
    assert denied.refusals[0].link == 1 and denied.refusals[0].added_by == "reader"


def test_two_links_with_one_name_have_two_marks() -> None:
    """16: the child's `private` is another than the task's, and both rules hold."""
    rule = [{"in": ["outside"], "after": ["private"]}]
    server, root = served(ledger()), minted(forbid=rule)
    child = root.delegate(to="b", marks={"private": {"tables": ["notes"]}, "outside": {"tools": ["http.get"]}}, forbid=rule)
    assert codes(server, child, NOTE, PAGE, MAIL) == ["allowed", "forbidden_after", "allowed"]
    assert codes(server, child, ROWS, MAIL) == ["allowed", "forbidden_after"]


def test_a_mark_that_no_rule_of_a_later_link_names_is_nobodys() -> None:
    """Nothing would ask for it: so no ledger is needed for it. One of link 0 is set for all tokens of the task."""
    plain = minted(marks={"seen": {"tables": ["notes"]}}, forbid=[{"in": ["seen"], "after": ["seen"]}])
    child = plain.delegate(
        to="b", marks={**MARKS, "idle": {"tables": ["crm.*"]}}, forbid=[{"in": ["outside"], "after": ["untrusted"]}]
    )
    steps = [marking.step_of(genuine(child), served(None).parts.sources.server, (), [access]) for access in (ROWS, PAGE, MAIL)]
    assert [None if step is None else [mark.name for mark in step.marks] for step in steps] == [
        None,
        ["untrusted"],
        ["outside"],
    ]


def genuine(token: Token) -> Any:
    return served(None).authenticate(token.serialize())._genuine


def test_buckets_are_as_the_spec_says() -> None:
    """46.3: the subject and the first part of the task, and neither key nor token id; of a later link its id."""
    from hashlib import sha256

    def buckets(token: Token, entries: Any = ()) -> dict[str, bytes]:
        step = marking.step_of(genuine(token), served(None).parts.sources.server, entries, [PAGE, ROWS, MAIL])
        assert step is not None
        return {mark.name: mark.bucket for mark in step.marks}

    token = minted(task="sales/q3")
    of_task = b"captoken/v1 mark of a task\0" + b"\0\0\0\x03ann" + b"sales\0private"
    assert buckets(token)["private"] == sha256(of_task).digest()
    plain = minted(marks={"z": {"tools": ["none"]}}, forbid=[{"in": ["z"], "after": ["z"]}])
    child = plain.delegate(to="b", **RULE_OF_TWO)
    link_id = genuine(child).link_ids[1]
    from captoken._format.encoding import b64decode

    assert buckets(child)["private"] == sha256(b"captoken/v1 mark of a link\0" + b64decode(link_id) + b"private").digest()
    link = read_link(encode_json({**RULE_OF_TWO, "n": "AAAAAAAAAAA"}), V1)
    of_entry = b"captoken/v1 mark of an entry\0" + b"\0\0\0\x02e1" + b"\0\0\0\x03ann" + b"sales\0private"
    assert buckets(plain, [("e1", link)])["private"] == sha256(of_entry).digest()


def test_a_set_of_tokens_shares_the_marks_of_its_task_where_its_servers_share_a_ledger() -> None:
    counts = MemoryLedger(shared=True, floor=0)
    made = Issuer(KEYRING, clock=at()).mint_set(
        subject="ann", agent="reader", task="sales", **RULE_OF_TWO,
        servers={"crm": {"tables": ["crm.*"], "operations": ["select"], "tools": {}}, "mail": {"tables": [], "operations": [], "tools": {"mail.send": {}, "http.get": {}}}},
    )  # fmt: skip
    crm, mail = (Verifier(KEYRING, name, ledger=counts, clock=at()) for name in ("crm", "mail"))
    assert crm.check(made.present(audience="crm"), ROWS) and mail.check(made.present(audience="mail"), PAGE)
    assert mail.check(made.present(audience="mail"), MAIL).code == "forbidden_after"
    with pytest.raises(ValueError, match="would count at each server separately"):
        made.delegate(to="b", **RULE_OF_TWO)


# --- one place, and bounds -----------------------------------------------------------------------------------------------


def test_what_denies_by_marks_is_asked_for_one_place_and_marks_alone_are_not() -> None:
    """38.6, 46.8."""
    everywhere = {**RIGHTS, "marks": MARKS}
    issuer = Issuer(KEYRING, clock=at())
    alone = issuer.mint(subject="ann", agent="a", task="t", **everywhere)
    rules = issuer.mint(subject="ann", agent="a", task="t", **everywhere, forbid=RULE_OF_TWO["forbid"])
    server = Verifier(KEYRING, ledger=ledger(), clock=at())
    assert server.check(alone.serialize(), ROWS).code == "allowed"
    assert server.check(rules.serialize(), NOTE).code == "unaddressed"
    shared = Verifier(KEYRING, ledger=MemoryLedger(shared=True, floor=0), clock=at())
    assert shared.check(rules.serialize(), NOTE).code == "allowed"


def test_marks_count_to_the_bounds_of_a_token() -> None:
    """38.13: a mark is a bucket, and 16 are the most; eight links count."""
    from captoken.errors import LimitError

    eight = {f"m{number}": {"tools": ["x"]} for number in range(8)}
    token = minted(marks=eight, forbid=[{"in": ["m0"], "after": ["m1"]}]).attenuate(marks=eight)
    with pytest.raises(LimitError, match="16 buckets"):
        token.attenuate(uses=5)
    with pytest.raises(LimitError):
        token.attenuate(marks={"one": {"tools": ["x"]}})
    with pytest.raises(ValueError, match="at most 8 names, not 9"):
        minted(marks={**eight, "m8": {"tools": ["x"]}})


def test_a_tree_that_is_full_denies_what_would_be_a_new_mark_of_a_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captoken.stores._rules.MOST_BUCKETS", 3)
    server, root = served(ledger()), minted(marks={"z": {"tools": ["none"]}}, forbid=[{"in": ["z"], "after": ["z"]}])
    assert codes(server, root.delegate(to="a", **RULE_OF_TWO), PAGE, ROWS, MAIL)[:2] == ["allowed"] * 2
    other = root.delegate(to="b", **RULE_OF_TWO)
    assert codes(server, other, PAGE, ROWS) == ["allowed", "budget_exhausted"]
    assert "buckets" in str(server.check(other.serialize(), ROWS))
    assert codes(server, minted(), PAGE, ROWS, MAIL) == ["allowed", "allowed", "forbidden_after"], (
        "those of a task do not count"
    )


# --- where else they stand -----------------------------------------------------------------------------------------------


def test_rules_of_an_operator_hold_for_tokens_that_are_out() -> None:
    """46.3: by the entry and the task. What was done before the entry is not known to it."""
    counts = ledger()
    token = minted(marks={"z": {"tools": ["none"]}}, forbid=[{"in": ["z"], "after": ["z"]}])
    newest, operator = operating()
    server = served(counts, overlay=newest)
    assert codes(server, token, PAGE, ROWS, MAIL) == ["allowed"] * 3
    entry = operator.narrow(task="sales", why="two of three", **RULE_OF_TWO)
    assert entry.link is not None and len(entry.link["n"]) == 11
    assert codes(server, token, MAIL, PAGE, MAIL, ROWS) == ["allowed"] * 4
    denied = server.check(token.serialize(), MAIL)
    assert denied.code == "forbidden_after" and denied.refusals[0].link is None
    assert server.authenticate(token.serialize()).check_all([NOTE, MAIL]).code == "forbidden_after"
    assert server.authenticate(token.serialize()).recheck([MAIL]).code == "forbidden_after"
    assert codes(server, token.attenuate(task="sales/other"), MAIL) == ["forbidden_after"], "a narrower task is no way out"


def operating() -> tuple[Callable[[], Overlay | None], Operator]:
    key, store = OperatorKey.generate(), MemorySnapshots()
    operator = Operator(key, store, by="ops", clock=at())
    operator.renew()

    def newest() -> Overlay | None:
        raw = store.load()
        return None if raw is None else Overlay.open(raw, [key.public])

    return newest, operator


# --- attacks -------------------------------------------------------------------------------------------------------------


def closed(counts: Any, **more: Any) -> Token:
    """A token of a task in which both marks are set."""
    token = minted(**more)
    assert codes(served(counts), token, PAGE, ROWS) == ["allowed"] * 2
    return token


def ways_round(counts: Any) -> Iterator[tuple[str, Token]]:
    """What a holder, or whoever may ask for another token of the task, can come with."""
    token = closed(counts)
    yield "the token itself", token
    yield "a narrower one", token.attenuate(tools={"mail.send": {}})
    yield "a narrower task", token.attenuate(task="sales/mail")
    yield "a hand-over", token.delegate(to="helper")
    yield "a hand-over of a hand-over", token.delegate(to="helper").delegate(to="another")
    yield "a second mint", minted()
    yield "a second mint for a task below", minted(task="sales/again")
    yield (
        "other definitions of the marks",
        minted(marks={**MARKS, "private": {"tables": ["nothing"]}, "untrusted": {"tables": ["nothing"]}}),
    )
    yield "a mark named like the task's in a link of its own", token.attenuate(marks=MARKS, forbid=RULE_OF_TWO["forbid"])


WAYS = [name for name, _ in ways_round(ledger())]


@pytest.mark.parametrize("way", WAYS)
def test_there_is_no_way_round_what_was_done(way: str) -> None:
    counts = ledger()
    token = dict(ways_round(counts))[way]
    for server in (served(counts), served(counts, remember=0)):
        assert codes(server, token, MAIL) == ["forbidden_after"]
    spelled = [
        MAIL,
        Access(tool="mail.send"),
        Access(tool="mail.send", arguments={"to": "x", "bcc": "y"}),
        Access(tool="http.post"),
    ]
    for access in spelled:
        with suppress(IndexError):
            decision = served(counts).check(token.serialize(), access)
            assert not decision and decision.code in ("forbidden_after", "tool"), access


def test_a_second_mint_under_a_key_that_was_turned_shares_the_marks() -> None:
    counts = ledger()
    closed(counts)
    turned = Keyring.from_keys({"k1": bytes(range(1, 33)), "k2": bytes(range(2, 34))}, current="k2")
    again = minted(keyring=turned)
    assert again.unverified.root.key_id == "k2"
    assert served(counts, keyring=turned).check(again.serialize(), MAIL).code == "forbidden_after"


def test_another_subject_or_task_is_another_tree() -> None:
    """Said, and not prevented (reach 20)."""
    counts = ledger()
    closed(counts)
    assert (
        codes(served(counts), minted(task="other"), MAIL) == codes(served(counts), minted(subject="bob"), MAIL) == ["allowed"]
    )


def test_a_sub_agent_that_was_started_before_is_closed_too() -> None:
    counts = ledger()
    token = minted()
    child = token.delegate(to="mailer", tools={"mail.send": {}})
    server = served(counts)
    assert codes(server, child, MAIL) == ["allowed"]
    assert codes(server, token, PAGE, ROWS) == ["allowed"] * 2
    assert codes(server, child, MAIL) == ["forbidden_after"]


def test_a_ledger_that_was_begun_anew_refuses_what_was_minted_before() -> None:
    """38.9: so a restart in memory is no way out for a token that is out. A new mint begins anew, and the page says so."""
    token = closed(ledger())
    anew = MemoryLedger(clock=at(NOW + 5))
    assert served(anew, now=NOW + 5).check(token.serialize(), MAIL).code == "store_unavailable"


def test_two_servers_that_count_apart_are_refused() -> None:
    """38.6: a rule at two servers with two ledgers would hold at neither."""
    token = minted(audience=["crm", "mail"])
    assert served(ledger()).check(token.serialize(), MAIL).code == "unaddressed"


def test_a_clock_that_is_set_back_revives_nothing() -> None:
    counts = ledger()
    token = minted(expires_in=60)
    assert codes(served(counts, keep_marks=0), token, PAGE, ROWS) == ["allowed"] * 2
    late = Issuer(KEYRING, clock=at(NOW + 9000)).mint(subject="x", agent="x", task="x", audience="crm", **RULE_OF_TWO, **RIGHTS)
    assert served(counts, now=NOW + 9000, keep_marks=0).check(late.serialize(), PAGE), "by then all is forgotten"
    assert served(counts, keep_marks=0).check(token.serialize(), MAIL).code == "store_unavailable"


def test_a_call_that_is_allowed_and_then_fails_has_set_its_mark() -> None:
    """Whoever read a page and then raised has read it."""
    server, token = served(ledger()), minted(budget={"calls": 9}, forbid=[{"in": ["outside"], "after": ["private"]}])
    grant = server.authenticate(token.serialize())
    reading = Access(table="crm.customers", operation="select", cost={"calls": 1})
    with grant.reserve(reading) as reserved:
        reserved.cancel()
    mail = Access(tool="mail.send", cost={"calls": 1})
    assert grant.check(mail).code == "forbidden_after"


def test_the_trail_says_which_marks_a_step_was_in() -> None:
    """46.9."""
    import json

    from captoken.audit import AuditTrail

    lines: list[bytes] = []
    trail = AuditTrail(lines.append, clock=at())
    server, token = served(ledger(), audit=trail), minted()
    assert codes(server, token, ROWS, NOTE, PAGE, MAIL) == ["allowed"] * 3 + ["forbidden_after"]
    records = [json.loads(line) for chunk in lines for line in chunk.splitlines()]
    said = [record.get("marks") for record in records if record["kind"] == "decision"]
    assert said == [[{"link": 0, "name": "private"}], None, [{"link": 0, "name": "untrusted"}], None]


def test_a_decision_has_its_marks_among_its_effects() -> None:
    decision: Decision = served(ledger()).check(minted().serialize(), ROWS)
    (effect,) = decision.effects
    assert isinstance(effect, MarkedStep) and not isinstance(effect, Debit)
    assert "marks" not in str(decision)

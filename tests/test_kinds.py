"""What an embedder's own kind of caveat may say, and what a verifier makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from captoken import (
    Access,
    Issuer,
    Verifier,
    WideningError,
)
from captoken._language.caveats import COUNTED, EARLY, NARROWING, RIGHTS, BuiltIn
from captoken._language.kinds import Excess
from captoken.caveats import Caveat, Reason, Situation, Vocabulary
from tests.fixtures import KEYRING, NOW, SALES, WHO, clock, data, mint, tool
from tests.test_caveats import VALUES, made


class Odd(Caveat, frozen=True):
    """An embedder's caveat that answers as it is told to."""

    key = "acme:odd"

    def __post_init__(self) -> None:
        if self.value == "unfit":
            raise LookupError("secret text")

    def prohibits(self, access: Access, situation: Situation) -> Any:
        return ANSWERS[self.value]()


def _raise() -> None:
    raise RuntimeError("secret text")


async def _later() -> None:
    return None


ANSWERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None, "reason": lambda: Reason("domain", "no"), "allowed": lambda: Reason("allowed", "because"),
    "made up": lambda: Reason("made_up", "because"), "sentence": lambda: "not now", "true": lambda: True,
    "false": lambda: False, "zero": lambda: 0, "empty": lambda: "", "raises": _raise,
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
def test_only_none_permits(answer: str) -> None:
    """A checker of an embedder that raises, or answers anything but None, prohibits; what it raises is not shown."""
    vocabulary = Vocabulary(Odd)
    own: Any = {"acme:odd": answer}
    token = Issuer(KEYRING, vocabulary=vocabulary, clock=clock()).mint(**WHO, **SALES, **own).serialize()
    one = Verifier(KEYRING, vocabulary=vocabulary, clock=clock())
    for decision in (one.check(token, data("sales")), one.authenticate(token).check(data("sales"))):
        assert bool(decision) is (answer == "none")
        assert decision.code == {"none": "allowed", "reason": "domain"}.get(answer, "attribute")
        assert "secret" not in str(decision)
    assert one.authenticate(token), "without an access it is not asked"


def test_an_own_caveat_that_cannot_be_read_is_unreadable() -> None:
    token = mint(unrestricted=True).with_raw_link(b'{"acme:odd":"unfit"}')
    decision = Verifier(KEYRING, vocabulary=Vocabulary(Odd), clock=clock()).check(token, data("sales"))
    assert decision.code == "unreadable_link" and "secret" not in str(decision)


def test_a_coroutine_is_no_answer() -> None:
    class Async(Caveat, frozen=True):
        key = "acme:async"

        def prohibits(self, access: Access, situation: Situation) -> Any:
            answer = _later()
            answer.close()
            return answer

    token = mint(unrestricted=True).with_raw_link(b'{"acme:async":1}')
    assert Verifier(KEYRING, vocabulary=Vocabulary(Async), clock=clock()).check(token, data("sales")).code == "attribute"


def test_a_vocabulary_is_checked_when_built() -> None:
    class Unnamed(Caveat, frozen=True):
        key = "region"

    class Elsewhere(Caveat, frozen=True):
        key = "acme:x"
        domain = "network"  # type: ignore[assignment]

    for own in ((Unnamed,), (Elsewhere,), (Odd, Odd), (object,), (Odd("none"),)):
        with pytest.raises((TypeError, ValueError)):
            Vocabulary(*own)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        Vocabulary().kinds = {}
    assert repr(Vocabulary(Odd)) == "<Vocabulary acme:odd>" and repr(Vocabulary()) == "<Vocabulary of version 1>"
    assert Caveat(1).prohibits(data("sales"), Situation(0)), "a caveat without a rule prohibits"


def test_own_caveats_of_a_domain_are_asked_in_it_alone() -> None:
    class Rows(Caveat, frozen=True):
        key = "acme:rows"
        domain = "data"

        def prohibits(self, access: Access, situation: Situation) -> str | None:
            return "no rows" if access.table == "sales" else None

    vocabulary = Vocabulary(Rows)
    own: Any = {"acme:rows": 1}
    issuer = Issuer(KEYRING, vocabulary=vocabulary, clock=clock())
    check = Verifier(KEYRING, vocabulary=vocabulary, clock=clock()).check
    both = issuer.mint(**WHO, **SALES, tools={"search": {}}, **own)
    assert check(both, tool("search")) and check(both, data("sales")).code == "attribute" and check(both, data("market.x"))
    closed = issuer.mint(**WHO, unrestricted=True, **own)
    assert check(closed, tool("search")).code == "domain" and check(closed, data("hr"))
    assert closed.unverified.capability.json() == {"tables": ["*"], "operations": ["*"], "exp": NOW + 900, "task": "task-123", "acme:rows": 1}


def test_what_an_embedder_says_of_covering_decides_nothing() -> None:
    """A caveat whose `covers` is wrong, or that looks at what the links before it leave, is asked link by link on a grant too."""

    class Loose(Caveat, frozen=True):
        key = "acme:loose"

        def prohibits(self, access: Access, situation: Situation) -> str | None:
            return None if access.table == self.value else "another table"

        def covers(self, other: Caveat) -> bool:
            return True

    class Folded(Caveat, frozen=True):
        key = "acme:folded"

        def prohibits(self, access: Access, situation: Situation) -> str | None:
            return None if situation.task == "task-123" else "not in a part of the task"

    vocabulary = Vocabulary(Loose, Folded)
    issuer = Issuer(KEYRING, vocabulary=vocabulary, clock=clock())
    one = Verifier(KEYRING, vocabulary=vocabulary, clock=clock())
    both: Any = [{"acme:loose": "sales"}, {"acme:loose": "hr"}]
    loose = issuer.mint(**WHO, unrestricted=True, **both[0]).attenuate(**both[1])
    folded = issuer.mint(**WHO, unrestricted=True).attenuate(task="task-123/part").with_raw_link(b'{"acme:folded":1}')
    for token in (loose, folded):
        for table in ("sales", "hr"):
            assert one.check(token, data(table)).code == "attribute" == one.authenticate(token).check(data(table)).code


def test_an_embedder_that_raises_while_comparing_changes_no_answer() -> None:
    """A holder can append a value that `covers` chokes on: both are kept, and the grant answers as the verifier does."""

    class AtMost(Caveat, frozen=True):
        key = "acme:most"

        def prohibits(self, access: Access, situation: Situation) -> str | None:
            return None if access.attributes["n"] <= self.value else "more"

        def covers(self, other: Caveat) -> bool:
            return bool(self.value >= other.value)

        def meet(self, other: Caveat) -> Caveat:
            raise RuntimeError

    vocabulary = Vocabulary(AtMost)
    own: Any = {"acme:most": 5}
    token = Issuer(KEYRING, vocabulary=vocabulary, clock=clock()).mint(**WHO, unrestricted=True, **own).with_raw_link(b'{"acme:most":"x"}')
    one = Verifier(KEYRING, vocabulary=vocabulary, clock=clock())
    grant = one.authenticate(token)
    assert one.check(token, data("t", n=1)).code == "attribute" == grant.check(data("t", n=1)).code
    assert len(grant.capability.own) == 2
    with pytest.raises(WideningError):
        token.attenuate(**own)


def test_a_caveat_that_is_silent_prohibits_nothing() -> None:
    """The ledger counts it, or the token's task is what it says. Tasks that lie apart speak."""
    silent = [made(key, VALUES[key]).normalized() for key in ("task", "uses", "marks", "forbid")]
    for access in (Access(), data("people"), tool("search")):
        assert [caveat.prohibits(access, Situation(NOW)) for caveat in silent] == [None] * len(silent)
    torn = made("task", "task-123/a").normalized().meet(made("task", "task-123/b").normalized())
    reason = torn.prohibits(Access(), Situation(NOW))
    assert torn.is_nothing and isinstance(reason, Reason) and reason.code == "task"


def test_what_a_kind_is_follows_from_its_class() -> None:
    assert {"exp", "nbf", "aud", "task", "fresh"} == EARLY
    assert {"uses", "budget", "marks", "forbid"} == COUNTED and {"aud", "task"} == NARROWING
    assert RIGHTS == ("tables", "operations", "allow", "columns", "rows", "tools", "where")


class Region(BuiltIn, frozen=True):
    """The least that a kind has to say."""

    key = "region"

    def prohibits(self, access: Any, situation: Any) -> None:
        return None

    def meet(self, other: Any) -> BuiltIn:
        return Region(sorted(set(self.value) & set(other.value)))


def test_what_a_kind_does_not_say_has_a_right_answer() -> None:
    """Two methods are enough: what it covers, what is asked too much, and the words follow."""
    held, less, more = Region(["eu", "us"]), Region(["eu"]), Region(["asia", "eu"])
    assert held.covers(less) and not held.covers(more) and held.normalized() is held
    assert list(held.beyond({"region": less})) == []
    too_much = Excess("region", ["asia", "eu"], ["eu", "us"], ["asia", "eu"], {"region": ["eu"]})
    assert list(held.beyond({"region": more})) == [too_much]
    assert list(held.words(NOW, {})) == ["region ['eu', 'us']"]
    for ask in (lambda: BuiltIn(1).prohibits(None, None), lambda: BuiltIn(1).meet(BuiltIn(1))):
        with pytest.raises(NotImplementedError):
            ask()


def test_an_own_caveat_beside_another_of_its_key_replaces_none() -> None:
    class Odd(Caveat, frozen=True):
        key = "acme:odd"

        def prohibits(self, access: Any, situation: Any) -> None:
            return None

    issuer = Issuer(KEYRING, vocabulary=Vocabulary(Odd), clock=clock())
    token = issuer.mint(**WHO, unrestricted=True, **{"acme:odd": 1}).attenuate(**{"acme:odd": 1})
    assert [caveat.value for caveat in token.unverified.capability.own] == [1]
    with pytest.raises(WideningError) as caught:
        token.attenuate(**{"acme:odd": 2})
    assert (caught.value.dimension, caught.value.held) == ("acme:odd", [1])
    both = token.with_raw_link(b'{"acme:odd":2}')
    assert [caveat.value for caveat in both.unverified.capability.own] == [1, 2]


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        ("too early", "attribute", "too early"),
        ("", "attribute", ""),
        (Reason("tool", "too early"), "tool", "too early"),
        (True, "attribute", "acme:odd raised an error"),
        (False, "attribute", "acme:odd raised an error"),
        (0, "attribute", "acme:odd raised an error"),
        (b"too early", "attribute", "acme:odd raised an error"),
        (["too early"], "attribute", "acme:odd raised an error"),
        (type("Text", (str,), {})("too early"), "attribute", "acme:odd raised an error"),
    ],
    ids=repr,
)
def test_whatever_an_own_caveat_answers_but_none_prohibits_and_only_text_is_shown(answer: Any, code: str, text: str) -> None:
    class Odd(Caveat, frozen=True):
        key = "acme:odd"

        def prohibits(self, access: Any, situation: Any) -> Any:
            return answer

    known = Vocabulary(Odd)
    token = Issuer(KEYRING, vocabulary=known, clock=clock()).mint(**WHO, unrestricted=True, **{"acme:odd": 1})
    decision = Verifier(KEYRING, vocabulary=known, clock=clock()).check(token, data("sales"))
    assert [(refusal.code, refusal.text, type(refusal.text)) for refusal in decision.refusals] == [(code, text, str)]


def test_a_domain_that_is_none_is_named() -> None:
    class Elsewhere(Caveat):
        key = "example:elsewhere"
        domain = "nowhere"

    with pytest.raises(ValueError, match="example:elsewhere has the domain 'nowhere': it must be data, tool or all"):
        Vocabulary(Elsewhere)


class Picky(Caveat, frozen=True):
    """An own one, which is made once and not asked about its parts."""

    value: Any
    key = "acme:picky"

    def __post_init__(self) -> None:
        raise ValueError(f"not {self.value}")


def test_an_own_caveat_words_its_errors_by_itself() -> None:
    with pytest.raises(ValueError, match=r"^not \{'a': 1\}$"):
        Issuer(KEYRING, vocabulary=Vocabulary(Picky), clock=clock()).mint(**WHO, unrestricted=True, **{"acme:picky": {"a": 1}})

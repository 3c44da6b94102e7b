"""Requests for consents, and consents as values: what is written is what is read, and nothing else is (47.4, 47.5, 47.8)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from captoken import Access
from captoken._format import primitives
from captoken._format.encoding import b64decode, encode_json
from captoken._language.access import Asks, Statement
from captoken._verification.consents import LONGEST_REQUEST, read_request, step_digest, written_request
from captoken.errors import ConsentError
from captoken.keys import ApproverKey
from captoken.proof import access_digest, access_request, access_text, digest_of
from tests.fixtures import NOW

KEY = ApproverKey.from_bytes(bytes(range(32)))
MAIL = Access(tool="mail.send", arguments={"to": "ann@example.com", "n": 1.5, "none": None, "big": 2**70, "é": "\U0001f600"})
READ = Access(table="crm.deals", operation="select", columns=("b", "a"), attributes={"tenant": "acme"})
WHO: dict[str, Any] = {
    "agent": "mailer", "at": NOW, "chain": [["orchestrator", "issued"], ["mailer", "vouched"]], "subject": "user:jane", "task": "t/part",
    "token": "MDEyMzQ1Njc4OWFiY2RlZg",
}  # fmt: skip


def asks(*accesses: Access, statement: Statement | None = None, by: str = KEY.public, link: int = 0) -> Asks:
    return Asks(b64decode(by), link, bytes(32), "mail", accesses, statement)


def written(*accesses: Access, statement: Statement | None = None) -> str:
    return written_request([asks(*accesses, statement=statement)], WHO)


def test_one_access_has_the_digest_of_a_proof_and_several_have_one_of_their_own() -> None:
    """The order of accesses and a second one that is equal say nothing; the text and its parameters do. (47.5)"""
    assert step_digest((MAIL,), None) == access_request(MAIL) == access_digest(access_text(MAIL))
    several = step_digest((MAIL, READ), None)
    assert several == step_digest((READ, MAIL, READ), None) != step_digest((READ,), None)
    spelled = sorted(access_text(one).encode() for one in (MAIL, READ))
    assert several == digest_of(primitives.label("request step"), b"", b"[]", *spelled)
    texts = [Statement("select 1"), Statement("select 2"), Statement("select 1", (("integer", "1"),)), Statement("select 1", (("text", "1"),))]
    digests = {step_digest((READ,), one) for one in (None, *texts)}
    assert len(digests) == 5
    made = digest_of(primitives.label("request step"), b"select 1", b'[["integer","1"]]', access_text(READ).encode())
    assert made in digests


def test_a_statement_without_an_access_has_a_digest_too() -> None:
    assert step_digest((), Statement("select 1")) != step_digest((), Statement("select 2"))


def test_what_cannot_be_spelled_has_no_digest() -> None:
    with pytest.raises(ValueError, match="digits"):
        step_digest((Access(tool="t", arguments={"n": 10**5000}),), None)


@pytest.mark.parametrize("statement", [None, Statement("delete from deals where id = ?", (("integer", "7"),))])
def test_a_request_is_read_as_it_was_written(statement: Statement | None) -> None:
    """Each fact, and the digest that is signed. (47.8)"""
    asked = read_request(written(MAIL, READ, statement=statement))
    assert asked.digest == step_digest((MAIL, READ), statement)
    assert {facts["tool"] for facts in asked.accesses} == {None, "mail.send"}
    told = asked.lines()
    assert [text for name, text in told if name == "statement"] == ([] if statement is None else [statement.text])
    assert [text for name, text in told if name == "tool"] == ["mail.send"]
    assert told[-1] == ("asked", "2025-11-25 09:00:00Z")
    assert asked.audience == "mail" and asked.subject == "user:jane" and asked.agent == "mailer" and asked.task == "t/part"
    assert asked.chain == (("orchestrator", "issued"), ("mailer", "vouched")) and asked.at == NOW
    assert asked.statement == (statement and statement.text)
    assert asked.parameters == (() if statement is None else (["integer", "7"],))
    assert asked.asks == ((KEY.public, 0, bytes(32)),)


def test_every_fact_is_shown_and_escaped() -> None:
    """A value is shown as JSON, so that the text "1" is not the number; nothing in it starts a new line."""
    nasty = Access(tool="mail.send", arguments={"to": "a\nserver      other", "n": "1"}, attributes={"tenant": "acme"})
    shown = str(read_request(written(nasty, READ, statement=Statement("select 1", (("text", "x"),)))))
    assert [line.split()[0] for line in shown.splitlines()].count("server") == 1
    for fact in ('"a\\nserver      other"', '"1"', "crm.deals", "select", "a, b", '"acme"', "select 1", '["text", "x"]', "mailer", "user:jane", "t/part"):
        assert fact in shown.replace("\\\\n", "\\n"), fact


def changed(**facts: Any) -> str:
    stated = json.loads(written(MAIL))
    stated.update(facts)
    return encode_json({key: value for key, value in stated.items() if value != "left out"}).decode()


RESPELLED = access_text(MAIL).replace('"to"', ' "to"')
BAD: dict[str, str] = {
    "nothing": "", "no JSON": "{", "a list": "[]", "no canonical JSON": " " + written(MAIL), "another version": changed(v=2),
    "a version that is true": changed(v=True), "one fact more": changed(more=1), "one fact less": changed(agent="left out"),
    "no access": changed(accesses=[]), "an access twice": changed(accesses=[access_text(MAIL)] * 2),
    "accesses out of order": changed(accesses=sorted((access_text(MAIL), access_text(READ)), reverse=True)),
    "an access in another spelling": changed(accesses=[RESPELLED]), "an access that is no text": changed(accesses=[{"tool": "x"}]),
    "an access with a fact twice": changed(accesses=[access_text(MAIL).replace('"tool"', '"tool":"other","tool"')]),
    "an access that is none": changed(accesses=["{}"]), "an access that is no object": changed(accesses=["1"]),
    "a server that is no name": changed(audience="a b"), "an agent that is no name": changed(agent="a b"), "a time that is none": changed(at=-1),
    "a time that is true": changed(at=True), "a chain that is none": changed(chain=[["a"]]), "nobody is asked": changed(asks=[{}]),
    "a key that is none": changed(asks=[{"by": "jane", "link": 0, "state": "A" * 43}]),
    "a state that is none": changed(asks=[{"by": KEY.public, "link": 0, "state": "AA"}]),
    "a link that is none": changed(asks=[{"by": KEY.public, "link": "0", "state": "A" * 43}]),
    "a statement that is none": changed(statement={}), "parameters in another spelling": changed(statement={"text": "x", "parameters": "[ ]"}),
    "parameters that are none": changed(statement={"text": "x", "parameters": "{}"}), "asks that are none": changed(asks=7),
    "too long": " " * (LONGEST_REQUEST + 1),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_no_request(name: str) -> None:
    """What a person is shown is the one spelling of what is signed. (47.8)"""
    with pytest.raises(ConsentError, match="this is no request for a consent") as caught:
        read_request(BAD[name])
    assert caught.value.code == "bad_request"


def test_what_is_no_text_is_no_request() -> None:
    with pytest.raises(ConsentError):
        read_request(7)  # type: ignore[arg-type]

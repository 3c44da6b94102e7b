"""What a consent is, and the request for one: read and written (spec, "Consent").

A request says what is asked, with every fact as the verifier judged it. A consent answers it: it
names the question, which is of one key, one link, one server and one step, and is signed over all
of these. So whoever wrote a request, what it shows is what is signed.

Functions of values. Nothing here has a secret key, or decides: `consenting.py` judges, and
`captoken.consent` has whoever says yes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from captoken._format import names, primitives
from captoken._format.clocks import (
    CONSENT_LIFE,
    PROOF_AHEAD,
)
from captoken._format.encoding import (
    b64decode,
    b64encode,
    decode_json,
    encode_json,
)
from captoken._format.errors import ConsentError
from captoken._format.public_keys import public_bytes
from captoken._format.spelling import escape, named, readable_time
from captoken._language.access import Access, Asks, Statement
from captoken.proof import (
    access_digest,
    access_text,
    digest_of,
)
from captoken.stores.ports import Spend

LONGEST_REQUEST = 65_536  # characters

_CONSENT = primitives.label("consent")
_QUESTION = primitives.label("consent question")
_STEP = primitives.label("request step")
_SPENT = primitives.label("consent use")


# --- what is asked -------------------------------------------------------------------------------


def step_digest(accesses: Sequence[Access], statement: Statement | None) -> bytes:
    """The 32 bytes that stand for one access, or for all of a step (spec 47.5).

    Raises ValueError for what cannot be spelled.
    """
    return _digest(list(map(access_text, accesses)), _spelled(statement))


def _digest(accesses: Sequence[str], statement: tuple[str, str] | None) -> bytes:
    """The same, of accesses and parameters that are spelled already."""
    if statement is None and len(accesses) == 1:
        return access_digest(accesses[0])
    text, parameters = statement or ("", "[]")
    parts = (text, parameters, *sorted(set(accesses)))
    return digest_of(_STEP, *(part.encode() for part in parts))


def _spelled(statement: Statement | None) -> tuple[str, str] | None:
    """The text of a statement and its parameters, each with its type, as text."""
    if statement is None:
        return None
    return statement.text, json.dumps(statement.parameters, separators=(",", ":"))


def written_request(asks: Sequence[Asks], facts: Mapping[str, Any]) -> str:
    """The request for some consents to one step, as canonical JSON (spec 47.8).

    `facts` are who asks, and when. Raises ValueError for a step that cannot be spelled.
    """
    first = asks[0]
    stated = {
        **facts,
        "accesses": sorted(set(map(access_text, first.accesses))),
        "asks": [
            {"by": b64encode(one.by), "link": one.link, "state": b64encode(one.state)}
            for one in asks
        ],
        "audience": first.audience,
        "v": 1,
    }
    if first.statement is not None:
        text, parameters = _spelled(first.statement) or ("", "")
        stated["statement"] = {"parameters": parameters, "text": text}
    return encode_json(stated).decode()


class Asked(msgspec.Struct, frozen=True):
    """What a request asks, read: show all of it to the person who is to decide.

    The server, the accesses and the statement are what a consent is for. The rest is the word of
    whoever wrote the request: who asks, for whom, and in which task. A consent does not depend on
    it. `str` is all of it in lines, escaped.
    """

    audience: str
    accesses: tuple[Mapping[str, Any], ...]  # the facts of each, as they were judged
    statement: str | None
    parameters: tuple[Any, ...]
    subject: str
    agent: str
    chain: tuple[tuple[str, str], ...]  # the agents that have held the token, with the basis
    task: str
    token_id: str
    at: int  # when it was refused, in seconds since the epoch
    digest: bytes  # of the step: the same as long as the same is asked
    asks: tuple[tuple[str, int, bytes], ...]  # by which key, after which link, and its state

    def lines(self) -> list[tuple[str, str]]:
        """Every fact by name, in the order in which to read them.

        A name is in quotes unless it is plain. The texts are not escaped.
        """
        told = [("server", self.audience)]
        if self.statement is not None:
            told.append(("statement", self.statement))
            told += [
                (f"parameter {at}", _shown(given)) for at, given in enumerate(self.parameters, 1)
            ]
        for facts in self.accesses:
            if facts["tool"] is not None:
                told.append(("tool", facts["tool"]))
                arguments = facts["arguments"] or {}
                told += [(f"  {named(name)}", _shown(value)) for name, value in arguments.items()]
            if facts["table"] is not None:
                told.append(("table", f"{facts['operation']} on {facts['table']}"))
            if facts["columns"] is not None:
                told.append(("  columns", ", ".join(facts["columns"])))
            told += [
                (f"  with {named(name)}", _shown(value))
                for name, value in facts["attributes"].items()
            ]
        told.append(("agent", f"{' > '.join(name for name, _ in self.chain)}, for {self.subject}"))
        told.append(("task", self.task))
        told.append(("asked", readable_time(self.at)))
        return told

    def __str__(self) -> str:
        return "\n".join(f"{name:<12}{escape(text)}" for name, text in self.lines())


def _shown(value: Any) -> str:
    """A value as JSON, so that text and number, and all that is in it, are told apart."""
    return json.dumps(value, ensure_ascii=False)


_FACTS = {"arguments", "attributes", "columns", "operation", "table", "tool"}
_KEYS = {
    "accesses",
    "agent",
    "asks",
    "at",
    "audience",
    "chain",
    "subject",
    "task",
    "token",
    "v",
}


def read_request(request: str) -> Asked:
    """What a request asks. Raises ConsentError for a text that is none (spec 47.8).

    Checks the form. Nobody vouches for it: see `Asked`.
    """
    try:
        _check(len(request) <= LONGEST_REQUEST)
        return _asked(decode_json(request.encode()))
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError):
        raise ConsentError(
            "this is no request for a consent: pass the text of `decision.request()`, unchanged"
        ) from None


def _check(is_good: bool) -> None:
    """Raise ValueError for what no writer of requests writes."""
    if not is_good:
        raise ValueError


def _asked(stated: dict[str, Any]) -> Asked:
    """The request in a JSON object. Raises what `read_request` catches."""
    _check(stated.keys() - {"statement"} == _KEYS)
    _check(type(stated["v"]) is int and stated["v"] == 1)
    texts: list[str] = stated["accesses"]
    _check(texts == sorted(set(texts)))

    statement, parameters = None, "[]"
    if "statement" in stated:
        _check(stated["statement"].keys() == {"parameters", "text"})
        statement = names.exact_str(stated["statement"]["text"], "statement")
        parameters = names.exact_str(stated["statement"]["parameters"], "parameters")
    _check(bool(texts) or statement is not None)
    given = json.loads(parameters)
    _check(type(given) is list and json.dumps(given, separators=(",", ":")) == parameters)

    _check(type(stated["at"]) is int and stated["at"] >= 0)
    return Asked(
        names.name(stated["audience"], "audience"),
        tuple(map(_facts, texts)),
        statement,
        tuple(given),
        names.name(stated["subject"], "subject"),
        names.name(stated["agent"], "agent"),
        tuple(
            (names.name(who, "agent"), names.name(basis, "basis"))
            for who, basis in stated["chain"]
        ),
        names.task(stated["task"]),
        names.name(stated["token"], "token"),
        stated["at"],
        _digest(texts, None if statement is None else (statement, parameters)),
        tuple(map(_ask, stated["asks"])),
    )


def _facts(text: str) -> dict[str, Any]:
    """The facts of an access, whose text must be the one that its digest is made of (29.4)."""
    facts: Any = json.loads(names.exact_str(text, "access"))
    _check(facts.keys() == _FACTS)
    _check(access_text(Access(**facts)) == text)
    return dict(facts)


def _ask(stated: dict[str, Any]) -> tuple[str, int, bytes]:
    _check(stated.keys() == {"by", "link", "state"} and type(stated["link"]) is int)
    state = b64decode(stated["state"])
    _check(len(state) == 32)
    return b64encode(public_bytes(stated["by"], "by")), stated["link"], state


# --- the answer ----------------------------------------------------------------------------------


class Yes(msgspec.Struct, frozen=True):
    """A consent as it travels. Read, and not checked: that is `is_timely` and `is_given`."""

    question: bytes  # what it answers: key, link, server and step
    issued_at: int
    expires_at: int
    nonce: bytes
    signature: bytes

    @classmethod
    def read(cls, data: bytes) -> Yes:
        """The consent in its 128 bytes, whose number the text's reader has seen to (47.4)."""
        issued_at, expires_at = int.from_bytes(data[32:40]), int.from_bytes(data[40:48])
        return cls(data[:32], issued_at, expires_at, data[48:64], data[64:])

    def is_timely(self, now: int) -> bool:
        """Is it good now, and for an hour at most (47.6)? No leeway."""
        lives = 0 < self.expires_at - self.issued_at <= CONSENT_LIFE
        return lives and self.issued_at <= now + PROOF_AHEAD and now < self.expires_at

    def is_given(self, key: bytes, state: bytes, digest: bytes, audience: str) -> bool:
        """Has `key` signed it, after that link, to that step, for that server?

        Costs one Ed25519 check.
        """
        message = signed_message(
            state, digest, audience, self.issued_at, self.expires_at, self.nonce
        )
        return primitives.signed(key, message, self.signature)

    def spend(self, key: bytes, kid: str, link: int) -> Spend:
        """What to remember of it: the same for the same key and nonce, whatever else differs."""
        entry = primitives.sha256(_SPENT + key + self.nonce)[:16]
        return Spend(
            entry, self.issued_at, self.expires_at, kid, key, link, self.question
        )


def question(key: bytes, state: bytes, digest: bytes, audience: str) -> bytes:
    """The 32 bytes by which a consent names what it answers (47.4)."""
    spoken_to = primitives.sha256(audience.encode())
    return primitives.sha256(_QUESTION + key + state + digest + spoken_to)


def signed_message(
    state: bytes,
    digest: bytes,
    audience: str,
    issued_at: int,
    expires_at: int,
    nonce: bytes,
) -> bytes:
    """What an approver signs. Every part has a fixed length (47.5)."""
    spoken_to = primitives.sha256(audience.encode())
    times = issued_at.to_bytes(8) + expires_at.to_bytes(8)
    return _CONSENT + state + digest + spoken_to + times + nonce

"""Sessions, by number and seed: a verifier or two, a family of tokens, and a row of questions about them.

One text comes one to five times, grants are asked again and again, the clock moves, and a newer overlay comes in between.
All of it is plain data, made without captoken, so that every state of the package is asked the same.
"""

from __future__ import annotations

from random import Random
from typing import Any

from spec.generate.build import NOW
from tests.gate.draw import AUDIENCES, NAMES, OWN_KEYS, UNITS, Draw, Token, named, proof_of, snapshot_of

Json = Any
MOVES = [0, 0, 0, 0, 0, 0, 1, 1, 1, 5, 5, 30, 61, 90, 599, 601, -1]
SENT = ["check", "check", "check", "authorize", "authorize", "authenticate", "explain", "deny", "owes_proof"]
ASKED = ["check"] * 6 + ["authorize", "explain", "recheck", "recheck_all", "check_all", "reserve", "reserve_all", "left", "deny", "facts"]


def own(draw: Draw) -> list[dict[str, Json]]:
    """Own caveats that the verifiers know, if any; each verifier of a session knows the same."""
    if not draw.chance(0.25):
        return []
    does = ["holds", "prohibits", "attribute_in", "attribute_in", "attribute_in", "fails", "answers", "refuses_value"]
    made = []
    for key in OWN_KEYS:
        stated: dict[str, Json] = {"key": key, "domain": draw.one(["all", "all", "data", "tool"]), "does": draw.one(does)}
        stated |= {"asks_access": False} if draw.chance(0.1) else {}
        stated |= {"code": draw.one(["table", "argument"])} if draw.chance(0.3) else {}
        stated |= {"value": draw.one([True, False, 1, ""])} if stated["does"] == "answers" else {}
        made.append(stated)
    return made


def attributes_of_own(draw: Draw) -> None:
    """The target states what own caveats ask for, mostly."""
    if draw.own and draw.chance(0.8):
        draw.target["attributes"] = {**draw.target.get("attributes", {}), "region": draw.one(["us", "us", "eu", "x"])}


def family(draw: Draw) -> list[Token]:
    """Tokens that have their first links in common, and one of another root."""
    stem = draw.token()
    made = [stem, *(draw.grown(stem, draw.one([1, 1, 2, 3])) for _ in range(draw.one([0, 1, 2])))]
    return [*made, draw.token()] if draw.chance(0.3) else made


def verifier(draw: Draw, token: Token) -> dict[str, Json]:
    """What a verifier is made with."""
    made: dict[str, Json] = {
        "keyring": draw.keyring(), "facts": draw.known(), "overlay": None, "replays": None, "ledger": None,
        "remember": draw.one([4 << 20, 4 << 20, 4 << 20, 0, 3000]), "max_age": draw.one([3600, 3600, 600, None]) if draw.chance(0.97) else 0, "audit": draw.chance(0.2),
    }  # fmt: skip
    if draw.watched:
        stated = draw.overlay(token)
        made["overlay"] = {**stated, "snapshot": snapshot_of(stated["snapshot"], token.parts), "max_staleness": draw.one([60, 600, 3600, 3600])}
    if draw.chance(0.9):
        made["replays"] = draw.replays()
    if draw.chance(0.9):
        made["ledger"] = named(draw.ledger(token), token.parts)
    return made


class Session:
    """One session, drawn."""

    def __init__(self, seed: str, number: int) -> None:
        self.draw = draw = Draw(Random(f"{seed} {number}"))
        draw.own = own(draw)
        attributes_of_own(draw)
        self.tokens = family(draw)
        self.verifiers = [verifier(draw, self.tokens[0])]
        if draw.chance(0.3):
            others = dict(self.verifiers[0])
            others["facts"] = {**others["facts"], "audiences": draw.one([[draw.one(AUDIENCES)], AUDIENCES, []]), "allow_unaddressed": draw.chance(0.5)}
            self.verifiers.append(others)
        self.now = NOW

    def made(self) -> dict[str, Json]:
        """The session, as JSON."""
        steps: list[dict[str, Json]] = []
        for _ in range(self.draw.one([2, 3, 3, 4])):
            steps += self.sent()
            for _ in range(self.draw.one([0, 2, 4, 8])):
                steps.append(self.asked())
        return {"own": self.draw.own, "verifiers": self.verifiers, "steps": steps}

    def moved(self) -> dict[str, Json]:
        """The time of a step, and what comes with it."""
        self.now += self.draw.one(MOVES) if self.draw.chance(0.3) else 0
        made: dict[str, Json] = {"now": self.now, "verifier": self.draw.random.randrange(len(self.verifiers))}
        if self.draw.chance(0.08):
            kept, self.draw.now = self.draw.now, self.now
            token = self.draw.one(self.tokens)
            made["snapshot"] = snapshot_of(self.draw.snapshot(token), token.parts)
            self.draw.now = kept
        return made

    def sent(self) -> list[dict[str, Json]]:
        """A text that comes one to five times, each time with a proof of its own if it is bound."""
        draw, token = self.draw, self.draw.one(self.tokens)
        text, steps = draw.text(token, draw.discharges(token)), []
        access, caller = draw.near(), draw.caller()
        for _ in range(draw.one([1, 2, 3, 4, 5])):
            if draw.chance(0.4):
                access, caller = draw.near(), draw.caller()
            how = draw.one(SENT)
            step = {**self.moved(), "how": how, "access": access, "caller": caller, "parsed": draw.chance(0.1), "awaited": draw.chance(0.04)}
            kept, draw.now = draw.now, self.now
            proof, about = draw.proof(token), draw.about(None if how in ("authenticate", "deny") else access)
            step["text"] = text + (proof_of(token.parts, proof, about) if proof else "")
            draw.now = kept
            if steps and draw.chance(0.05):
                step["text"] = steps[-1]["text"]  # the same proof again
            steps.append(step)
        return steps

    def asked(self) -> dict[str, Json]:
        """A question to one of the grants that there are by then."""
        draw = self.draw
        step: dict[str, Json] = {**self.moved(), "how": f"grant {draw.one(ASKED)}", "grant": draw.random.random(), "awaited": draw.chance(0.04)}
        step |= {"accesses": [draw.near() for _ in range(draw.one([1, 1, 2, 3]))], "caller": draw.caller()}
        step["settle"] = draw.one([None, {"cents": 0}, {"cents": 1}, {unit: 1 for unit in UNITS}])
        step["cancel"] = draw.chance(0.3)
        step["declares"] = draw.few(list(NAMES), 2)
        return step


def session(seed: str, number: int) -> dict[str, Json]:
    """The session of that number, always the same."""
    return Session(seed, number).made()

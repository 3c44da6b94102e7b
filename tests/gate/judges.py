"""The three judges: the Python library, its port to TypeScript, and the evaluator that was written from the specification's text alone.

Each is handed a vector and says what comes of it, as `spec/vectors/FORMAT.md` has it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captoken import CaptokenError, Denied
from captoken.proof import request_digest
from spec.generate import build
from tests.reference import vectors as reference
from tests.vectors.adapter import Captoken, _Asked, _place
from tests.vectors.runner import Outcome, Vector, given

ANSWERS = Path(__file__).resolve().parents[2] / "ports/typescript/build/fuzz/answer.js"
NAMES = ("python", "port", "reference")


class Library(Captoken):
    """The Python library, asked in one way and not in all."""

    def decide(self, vector: Vector) -> Outcome:
        try:
            asked = _Asked(vector)
        except (TypeError, ValueError):
            return {"code": "usage"}
        if asked.access is None:
            if asked.caller is not None:  # who authenticates states no caller, and a dry run does
                decision = asked.explained()
                if not decision:
                    return {"code": decision.code, **_place(decision)}
            try:
                grant = asked.verifier().authenticate(asked.text, request=asked.request or request_digest(None))
            except Denied as denied:
                return {"code": denied.code, **_place(denied.decision)}
        else:
            decision = asked.checked()
            if decision.grant is None:
                return {"code": decision.code, **_place(decision)}
            grant = decision.grant
        outcome: Outcome = {
            "code": "allowed", "link_ids": list(grant.link_ids), "chain": [[actor.name, actor.basis] for actor in grant.chain],
            "task": grant.task, "expires_at": grant.expires_at,
        }  # fmt: skip
        if "ledger" in vector:
            outcome["debits"] = [
                {"bucket": build.b64(debit.bucket), "unit": debit.unit, "limit": debit.limit, "amount": debit.amount} for debit in asked.debits
            ]
            outcome |= {"marks": sorted(map(build.b64, asked.marks))} if asked.marks else {}
        if asked.spent:
            outcome["spends"] = [{"entry": spend.entry.hex(), "issued_at": spend.issued_at} for spend in asked.spent]
        if grant.key is not None:
            uses = [{"entry": use.entry.hex(), "issued_at": use.issued_at} for use in asked.committed]
            outcome |= {"key": grant.key, "uses": uses, "evidence": [evidence.as_dict() for evidence in grant.evidence]}
        return outcome

    own = decide


def library(vector: Vector) -> Outcome:
    """What the Python library makes of a vector."""
    kind = vector["kind"]
    try:
        outcome: Outcome = getattr(Library(), "decide" if kind == "decision" else kind)(given(vector))
    except CaptokenError as error:
        return {"code": error.code}
    except Exception as error:
        return {"raised": repr(error)}
    return outcome


def second(vector: Vector) -> Outcome | None:
    """What the reference evaluator makes of it; None where it is not asked."""
    if vector["kind"] == "request" and vector["form"] != "access":
        return None
    try:
        return reference.answer(given(vector))
    except Exception as error:
        return {"raised": repr(error)}


class Port:
    """The port, in a process of Node: vectors go in a line each, answers come out so."""

    def __init__(self) -> None:
        if not ANSWERS.exists():
            raise SystemExit("the port is not built: `npm ci` and `npm run pretest` in ports/typescript")
        self.process = subprocess.Popen(["node", str(ANSWERS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, vectors: list[Vector]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.writelines(json.dumps(vector) + "\n" for vector in vectors)
        self.process.stdin.flush()

    def answer(self) -> Outcome:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"raised": "the process of the port has ended"}

    def end(self) -> None:
        self.process.kill()
        with self.process:  # waits, and closes both pipes
            pass


Verdict = dict[str, Outcome]


def differing(verdict: Mapping[str, Outcome]) -> bool:
    """Do those differ who were asked? What raises differs from everything."""
    said = [json.dumps(outcome, sort_keys=True) for outcome in verdict.values()]
    return len(set(said)) > 1 or any("raised" in outcome for outcome in verdict.values())


def judged(vector: Vector, port: Port | None) -> Verdict:
    """What each of them says; without a port, the two that are here."""
    if port is not None:
        port.send([vector])
    made = {"python": library(vector)}
    if port is not None:
        made["port"] = port.answer()
    said = second(vector)
    return made if said is None else {**made, "reference": said}


def signature(verdict: Mapping[str, Outcome]) -> tuple[Any, ...]:
    """What kind of difference it is: who says what, by code; and where all codes are one, that something else differs."""
    return tuple((name, outcome.get("code", "raised")) for name, outcome in sorted(verdict.items()))

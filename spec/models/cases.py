"""What a case is: a claim, and the broken variants that show that the claim could have failed."""

from __future__ import annotations

from dataclasses import dataclass

from spec.models.terms import ATTACKER, Clause


@dataclass(frozen=True, kw_only=True)
class World:
    """What honest parties give away and what verifiers conclude, beside what any attacker can do; and a fact, the goal."""

    name: str
    rules: tuple[Clause, ...]
    goal: str

    def problem(self) -> str:
        """The same in TPTP. A prover refutes "not the goal" if the goal is reached, and saturates if it is out of reach."""
        clauses = [f"cnf(c{number},axiom,({clause}))." for number, clause in enumerate((*ATTACKER, *self.rules))]
        return "\n".join((*clauses, f"cnf(goal,negated_conjecture,(~{self.goal})).", ""))


@dataclass(frozen=True, kw_only=True)
class Broken(World):
    """The protocol with one fault, by which the goal is reached. It stands in the same words, as the fault spells them."""

    fault: str


@dataclass(frozen=True, kw_only=True)
class Secure(World):
    """A goal that no attacker reaches, and at least one broken variant where one does: without it there is no case."""

    claim: str
    broken: tuple[Broken, *tuple[Broken, ...]]

    def __post_init__(self) -> None:
        if not self.broken:
            raise ValueError(f"{self.name} has no broken variant: what cannot fail says nothing")


@dataclass(frozen=True, kw_only=True)
class Reach(World):
    """A goal that is reached: an honest use that must be possible, or a limit of the protocol that is stated as one."""

    claim: str


Case = Secure | Reach

"""One line for each case that was run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What was expected of a case, and what each prover said."""

    name: str
    says: str  # the claim, or the fault of a broken variant
    expected: str
    said: dict[str, str]
    seconds: float
    detail: str = ""  # what a prover complained about

    @property
    def passed(self) -> bool:
        return bool(self.said) and set(self.said.values()) == {self.expected}

    def line(self) -> str:
        answers = "  ".join(f"{prover} {answer}" for prover, answer in self.said.items())
        mark = "ok    " if self.passed else "FAILED"
        line = f"{mark} {self.name:<48} expected {self.expected:<6}  {answers}  {self.seconds:.2f} s  {self.says}"
        return "\n".join((line, *(f"       {said}" for said in self.detail.splitlines())))

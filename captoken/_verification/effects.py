"""What a decision has to commit to stand: the only place that asks a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from captoken._verification.decision import Decision


class Recorder(Protocol):
    """Whatever takes a record of each decision."""

    def record(self, decision: Decision) -> None:
        """Take what was decided. What it raises denies: then nothing may stand there that says it was allowed."""
        ...

    def record_all(self, decisions: Sequence[Decision]) -> None:
        """Take what was decided on one step: all of it, or none. What it raises denies."""
        ...

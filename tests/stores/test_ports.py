"""What the ports of stores promise is written down, where whoever writes a store reads it."""

from __future__ import annotations

from typing import Any

from captoken import Verifier
from captoken._verification.effects import Recorder
from tests.fixtures import KEYRING, clock, mint
from tests.test_verifier import ASK


def test_what_a_port_promises_is_written_down() -> None:
    """A trail of one's own has two methods."""

    class Own:
        def record(self, decision: Any) -> None: ...

        def record_all(self, decisions: Any) -> None: ...

    own: Recorder = Own()
    assert Verifier(KEYRING, clock=clock(), audit=own).check(mint(), ASK)

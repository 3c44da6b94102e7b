"""Third parties: what is asked of a contestant, and captoken's answers.

The token of the story, as minted, and third parties each of whom must have said yes: the server is sent the token and
their discharges, bound to it. pymacaroons' side is in `peers.py`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

from captoken import Access, Caller, Verifier
from captoken._format.parts import Packet
from captoken.discharge import Allow, Discharge, Discharger
from captoken.keys import DischargerKey

from .bound import AUDIENCE
from .contestants import FACTS, KEY, LIFETIME, TABLES, Captoken, Clock, Facts, Unproven, Work, refuses, wrongs

NEED = {"approve": "report"}
PLACE = "https://approvals.example"
CHARACTERS = 32_768  # that a token and its discharges may have together


class Asking(ABC):
    """A contestant whose tokens can ask third parties."""

    name: str
    refusals: tuple[type[Exception], ...]

    @abstractmethod
    def show(self, parties: int, *, expired: bool = False, forged: bool = False, unbound: bool = False) -> list[str]:
        """Issue a token that asks so many third parties, have them all answer, and write it as it goes to the server.

        The token comes first, then the discharges: run out, by somebody else, or not bound to the token, if so wished.
        """

    @abstractmethod
    def serve(self, texts: list[str], facts: Facts) -> Work:
        """Return the server's whole work on one request: from texts to decision, nothing kept."""


class CaptokenAsking(Captoken, Asking):
    """captoken. The tickets are sealed for the third party, which keeps nothing."""

    name = "captoken, with third parties"
    discharger: ClassVar[DischargerKey] = DischargerKey.from_bytes(KEY)

    def __init__(self, key: bytes = KEY, clock: Clock = time.time) -> None:
        super().__init__(key, clock)
        self.verifier = Verifier(self.keyring, AUDIENCE, remember=0)

    def show(self, parties: int, *, expired: bool = False, forged: bool = False, unbound: bool = False) -> list[str]:
        token = self.issue()
        for _ in range(parties):
            token = token.require(self.discharger.public, need=NEED, location=PLACE)
        clock = (lambda: time.time() - 2 * LIFETIME) if expired else time.time
        third = Discharger(self.discharger, lambda need: Allow(expires_in=LIFETIME), clock=clock)
        for ticket in token.needs:
            answer = third.discharge(ticket)
            token = token.with_discharge(_signed_by_nobody(answer) if forged else answer)
        shown = token.present(audience=AUDIENCE, expires_in=LIFETIME, max_chars=CHARACTERS).split(".")
        if unbound:
            kept = token.serialize().split(".")[1:]
            shown[1:] = [text.replace("cap1u_", "cap1d_", 1) for text in kept]
        return shown

    def serve(self, texts: list[str], facts: Facts) -> Work:
        authorize, text = self.verifier.authorize, ".".join(texts)

        def decide() -> object:
            access = Access(table=facts.table, operation=facts.operation)
            return authorize(text, access, caller=Caller(agent=facts.agent, task=facts.task))

        return decide


def _signed_by_nobody(answer: Discharge) -> Discharge:
    packet = answer.packet
    return Discharge(Packet(packet.identifier, packet.caveats, bytes(32)))


def prove_asking(contestant: Asking, most: int) -> None:
    """Check that the contestant decides, and takes no token without each third party's own, fresh, bound word."""
    for parties in (1, most):
        shown = contestant.show(parties)
        if len(shown) != parties + 1:
            raise Unproven(f"{contestant.name} shows {len(shown) - 1} discharges of {parties}")
        contestant.serve(shown, FACTS)()
        for wrong in wrongs(FACTS):
            refuses(contestant, f"{wrong}", contestant.serve(shown, wrong))
        contestant.serve(shown, replace(FACTS, table=TABLES[1]))()
        refuses(contestant, "a token without a discharge", contestant.serve(shown[:-1], FACTS))
        other = [*shown[:-1], contestant.show(parties)[-1]]
        refuses(contestant, "a discharge for another token", contestant.serve(other, FACTS))
        refuses(contestant, "a discharge that ran out", contestant.serve(contestant.show(parties, expired=True), FACTS))
        refuses(contestant, "a forged discharge", contestant.serve(contestant.show(parties, forged=True), FACTS))
        refuses(contestant, "an unbound discharge", contestant.serve(contestant.show(parties, unbound=True), FACTS))

"""Consent: a person's yes to one access, exactly as it will be made (spec, "Consent").

A link of a token can say that some accesses need the consent of a key. The verifier then refuses
such an access, and `decision.request()` is what to ask. The person reads it whole, and signs:

    approver = Approver(ApproverKey.load("jane.json"))
    print(approver.read(request))               # what is asked, every fact of it
    consent = approver.consent(request)         # for this access, at this server, once

The agent shows the consent with its token. It is good for that access alone: with another argument
it is for another access. It is spent once, and it is over at its end.

How data flows: the verifier writes a request of the facts that it judged, with what the server
filled in. The approver signs over the digest of these facts, which it works out of the request
itself. So whoever wrote the request, what was shown is what was signed. Nothing here asks a store
or knows a root key.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time

from captoken._format.clocks import CONSENT_LIFE, Clock, Seconds, read_clock, seconds_of
from captoken._format.encoding import MAX_INTEGER, b64decode, b64encode
from captoken._format.entropy import random_bytes
from captoken._format.errors import ConsentError
from captoken._format.public_keys import public_bytes
from captoken._format.text import consent_text
from captoken._language.access import Statement
from captoken._verification.consents import Asked, question, read_request, signed_message
from captoken.keys.secret import ApproverKey
from captoken.proof import NONCE_BYTES, SIGNATURE_BYTES, Signer

__all__ = ["Approver", "ApproverKey", "Asked", "Statement"]


class Approver:
    """Whoever has a key that consents are asked of.

    `read` shows what is asked, `consent` says yes. Nothing between them decides: a program that
    calls both without a person in between has approved everything. `key` may be any signer, such as
    a key service. `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        key: Signer,
        *,
        clock: Clock = time,
        random: Callable[[int], bytes] = random_bytes,
    ) -> None:
        self._key = key
        self._clock = clock
        self._random = random
        self.public = b64encode(public_bytes(key.public, "key"))

    def read(self, request: str) -> Asked:
        """What a request asks of this key. Raises ConsentError for another text, or another key."""
        asked = read_request(request)
        if not any(by == self.public for by, _, _ in asked.asks):
            raise ConsentError("the request is for another key")
        return asked

    def consent(self, request: str, *, expires_in: Seconds = 300) -> str:
        """A yes to what `read` shows of this request, for so many seconds, an hour at most.

        The text goes to whoever asked: it is shown with the token. It is no secret that grants
        anything without the token. Where two links ask for this key, it holds two consents.

        Raises ConsentError as `read` does, ValueError for a time that is none, and what the signer
        raises.
        """
        asked = self.read(request)
        life = seconds_of(expires_in, "expires_in")
        if life > CONSENT_LIFE:
            raise ValueError(f"a consent lives {CONSENT_LIFE} seconds at most, not {life}")
        now = read_clock(self._clock)
        if not 0 <= now <= MAX_INTEGER - life:
            raise ValueError("the clock must give seconds since the epoch, from 0 on")
        states = dict.fromkeys(state for by, _, state in asked.asks if by == self.public)
        made = [self._signed(asked, state, now, now + life) for state in states]
        return ".".join(map(consent_text, sorted(made)))

    def _signed(self, asked: Asked, state: bytes, now: int, end: int) -> bytes:
        """One consent: what it answers, its times, a nonce, and the signature (47.4)."""
        nonce = self._random(NONCE_BYTES)
        message = signed_message(state, asked.digest, asked.audience, now, end, nonce)
        signature = self._key.sign(message)
        if type(signature) is not bytes or len(signature) != SIGNATURE_BYTES:
            raise TypeError(f"a signer must return a signature of {SIGNATURE_BYTES} bytes")
        name = question(b64decode(self.public), state, asked.digest, asked.audience)
        return name + now.to_bytes(8) + end.to_bytes(8) + nonce + signature

    def __repr__(self) -> str:
        return f"<Approver {self.public}>"

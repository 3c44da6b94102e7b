"""What stands still or repeats: a clock, randomness, a token at hand for one test."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from captoken import current
from captoken._format.primitives import sha256
from captoken.current import AnyHeld, Held
from captoken.proof import Signer


class FixedClock:
    """A clock for `clock=` that shows `now`, in seconds since the epoch, until somebody moves it.

    `now` can be set, too. Give one clock to issuer, verifier and stores, so that all see one time.
    """

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        """What the clock shows."""
        return self.now

    def advance(self, seconds: int) -> None:
        """Move the clock; back, if `seconds` is negative.

        Nothing is told of it: what asks the clock next sees the new time. To move it back shows
        what your service does when a clock is set back.
        """
        self.now += seconds


def fixed_random(seed: str) -> Callable[[int], bytes]:
    """A source for `random=`, of up to 32 bytes at a time.

    It gives the same bytes for the same seed, in the order in which they are asked for. More than
    32 bytes are cut to 32.
    """
    # Which call it is: so no two calls of one source give the same.
    counter = count()

    def bytes_of(size: int) -> bytes:
        return sha256(f"{seed}:{next(counter)}".encode())[:size]

    return bytes_of


def hold(
    token: AnyHeld | str,
    signer: Signer | None = None,
    *,
    until: Callable[[Callable[[], object]], object],
) -> Held:
    """From here on the test holds `token`, as in `with current.use(token, signer)`.

    `until` is given what ends it: `request.addfinalizer` of a pytest fixture, `self.addCleanup` of
    a unittest. A fixture that yields cannot have the `with`: it is a generator. Raises
    TokenFormatError for text that is no token.
    """
    block = current.use(token, signer)
    held = block.__enter__()
    until(lambda: block.__exit__(None, None, None))
    return held

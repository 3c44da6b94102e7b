"""Whether an issuer still stands by what it has signed, asked of the issuer itself.

A signature says how things were when it was made. The pod that it speaks of may be gone since. A
review asks whoever knows, as Kubernetes does by its TokenReview. Without one, an assertion is good
until it says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeAlias

from captoken._format.errors import IssuanceError
from captoken._format.spelling import escape
from captoken.issuance.identity import Identity

_log = logging.getLogger("captoken.issuance")

# Of an assertion as it was sent, or of a certificate in PEM: does its issuer stand by it?
Review: TypeAlias = Callable[[str], Awaitable[bool]]

PATIENCE = 5.0  # seconds for an answer


class Reviews:
    """What is asked of each assertion of some providers. Raises ValueError for unknown ones."""

    def __init__(self, reviews: Mapping[str, Review] | None, providers: Collection[str]) -> None:
        self._reviews = {} if reviews is None else dict(reviews)
        self.check_names(providers)

    def check_names(self, providers: Collection[str]) -> None:
        """Raise ValueError for reviews of nobody: a name that was changed would drop them."""
        unknown = sorted(self._reviews.keys() - set(providers))
        if unknown:
            raise ValueError(f"reviews: the policy has no provider {', '.join(unknown)}")

    async def check(self, identity: Identity, text: str, error: str) -> None:
        """Ask about an assertion that held. Raises IssuanceError: `error`, or when nobody answers.

        Anything but True is no: a review that forgets to answer lets nobody in.
        """
        review = self._reviews.get(identity.provider)
        if review is None:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                stands = await review(text)
        except Exception as problem:  # whatever a callable does: nobody is let in
            # Its message could hold the assertion.
            name = escape(type(problem).__name__)
            _log.error("the review of provider %s fails: %s", identity.provider, name)
            raise IssuanceError(
                "this service cannot ask the assertion's issuer now",
                "temporarily_unavailable",
                f"the review of provider {identity.provider}: {name}",
            ) from None
        if stands is not True:
            raise IssuanceError(
                "the assertion is refused: its issuer no longer confirms it",
                error,
                f"the review of provider {identity.provider}",
            )

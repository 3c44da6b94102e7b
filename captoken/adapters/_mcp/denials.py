"""What the guard of MCP denies: it is put on record, and told in MCP's words."""

from __future__ import annotations

from captoken._verification.decision import Decision, Denied
from captoken._verification.grant import Grant
from captoken._verification.verifier import AnyVerifier
from captoken._verification.wording import worded_as
from captoken._writing.token import Token
from captoken.adapters._mcp.calls import answer_of
from captoken.adapters._mcp.messages import CALL, Message, NotLetIn

# Of the guard's own, for the trail; not for whoever asked.
_UNREADABLE = "no token that could be looked at"


class Denials:
    """What becomes of a denial, by the verifier or by the guard of one server.

    `tell_limits`: the model is told the bounds of a range that a number missed.
    """

    def __init__(self, verifier: AnyVerifier, tell_limits: bool) -> None:
        self._verifier = verifier
        self._tell_limits = tell_limits

    async def record_unverified(self) -> str:
        """Put on record that a request came without a token that could be looked at; the id of it.

        The empty text is no token: the verifier denies it as that, and its trail has it like any
        other denial.
        """
        denied: Decision = await answer_of(
            self._verifier, lambda face: face.deny("", "malformed", _UNREADABLE)
        )
        return denied.id

    async def unverified(self, problem: NotLetIn) -> NotLetIn:
        """What goes out of a problem with a token that could not be looked at, once on record."""
        problem.decision = await self.record_unverified()
        return problem

    async def by_guard(
        self,
        token: str | Token,
        code: str,
        why: str,
        about: bytes | None,
        message: Message,
    ) -> NotLetIn:
        """What goes out of a denial of the guard's own, once it is on record.

        A token that is not good is told so, and on record as that: it comes before what was asked
        with it.
        """
        denied = await answer_of(
            self._verifier, lambda face: face.deny(token, code, why, request=about)
        )
        return self.refusal_of(denied, message.method)

    def granted(self, decision: Decision, method: str) -> Grant:
        """The grant of what was allowed. Raises NotLetIn."""
        if decision.grant is None:
            raise self.refusal_of(decision, method)
        return decision.grant

    def refusal_of(self, decision: Decision, method: str) -> NotLetIn:
        """Return the answer to a denial: text for the model, or a status for a client.

        `for_model` echoes only what was asked. The public sentence is the same for whatever a
        stranger could cause. Only a call of a tool is answered to the model: whoever reads a
        resource is a client's code, and is told by an error (spec 40.8).
        """
        denied = Denied(decision)
        # A consent is a matter of the model's, too: it has to be asked for anew.
        is_of_consent = worded_as(denied.code, decision.refusals) == "bad_consent"
        if denied.kind == "insufficient" or is_of_consent:
            told = decision.for_model(tell_limits=self._tell_limits)
            asked = decision.request()
            return NotLetIn(denied.kind, told, method == CALL, decision.id, asked)
        return NotLetIn(denied.kind, denied.public, decision=decision.id)

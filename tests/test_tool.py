"""What a link says of tools: which argument failed, and what would help."""

from __future__ import annotations

from captoken import Issuer, Verifier
from tests.fixtures import KEYRING, WHO, clock, tool


def test_a_call_that_states_no_arguments_is_never_told_that_other_values_help() -> None:
    """As an endpoint is that declares a tool alone: no request of its clients changes that."""
    token = Issuer(KEYRING, clock=clock()).mint(**WHO, tools={"refund": {"cents": {"max": 5}}})
    ask = Verifier(KEYRING, clock=clock())
    decision = ask.check(token, tool("refund"))
    assert decision.refusals[0].text == (
        "argument cents of tool refund must be present, and the call has no arguments"
        ': if a call may leave it out, add "optional": true in the token'
    )
    assert decision.for_model() == (
        "Not permitted: tool refund without arguments. The same request will be refused again. If you gave arguments, "
        "this server does not check them: tell whoever gave you this task."
    )
    # Whoever knows that the tool has it is told to state it; and who stated one is told of values.
    assert "argument `cents` of `refund` is not stated" in decision.for_model(declares=["cents"])
    assert "one with another value" in ask.check(token, tool("refund", cents=6)).for_model()

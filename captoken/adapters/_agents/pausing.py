"""The pause of a run in which a call wants a person's consent: what of it is stored, and said.

    {"id": "call-1", "tool": "mail.send", "request": "{...}"}

The framework's pause is where a run stops, and its resuming is where it goes on. Only the consent
permits the call, and it is taken once: so a yes in the framework, or a state that is resumed twice,
runs nothing that nobody has consented to. What is stored has no part of a token. After a restart
the process gets its token as it did at first.
"""

from __future__ import annotations

from typing import Any, TypedDict

KEY = "captoken"  # under which a framework's own record of a pause has it

# What the model is told of a call that a person said no to.
REFUSED_BY_A_PERSON = (
    "Not permitted: a person was asked about this call, and said no. Do not ask again for the same."
)


class Wanted(TypedDict):
    """One call that waits."""

    id: str
    """The call, as the framework and the model name it."""
    tool: str
    """The name of its tool."""
    request: str
    """What to give to the `Approver`. It shows the call with all its arguments."""


def wanted(call_id: Any, tool: Any, request: str) -> Wanted:
    """The record of one call that waits."""
    return Wanted(id=str(call_id), tool=str(tool), request=request)


def is_no(answer: Any, call_id: Any) -> bool:
    """Does the answer that a run is resumed with say no, to all or to this call?"""
    if isinstance(answer, dict):
        answer = answer.get(call_id)
    return answer is False

"""One OpenTelemetry span for each decision, including denials (docs/opentelemetry.md).

    Verifier(keyring, audit=SpanTrail(tracer, AuditTrail(…, trace=trace_id)))

Attributes are names and codes: no token, no key and no value of an argument. The text of a denial
is left out too, because it reveals what the token permits.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from captoken._format.extras import extra

with extra("otel"):
    from opentelemetry.trace import Tracer, get_current_span

from captoken._verification.decision import Decision
from captoken._verification.effects import Recorder as Trail
from captoken.audit.trail import described

# The name of the span, and of what it is about, by the conventions that GenAI has or proposes.
_OPERATION = "execute_authorization"

# What a span says once the record behind it could not be written.
_NOT_RECORDED: dict[str, bool | str] = {
    "captoken.allowed": False,
    "captoken.code": "store_unavailable",
}


def trace_id() -> str | None:
    """The id of the current trace, as hex; None outside of one.

    For `AuditTrail(trace=…)`.
    """
    context = get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


class SpanTrail:
    """A trail that makes a span of each decision, and then passes it to `trail`, if there is one.

    If a span cannot be made, access is denied, as if a record could not be written.
    """

    def __init__(self, tracer: Tracer, trail: Trail | None = None) -> None:
        self._tracer = tracer
        self._trail = trail

    def record(self, decision: Decision) -> None:
        """Make a span of one decision.

        Raises what the tracer or the trail raises.
        """
        self.record_all((decision,))

    def record_all(self, decisions: Sequence[Decision]) -> None:
        """Make a span of each decision of one step; the first is the parent of the others.

        Raises what the tracer or the trail raises.
        """
        with ExitStack() as open_spans:
            spans = [
                open_spans.enter_context(
                    self._tracer.start_as_current_span(
                        _OPERATION, attributes=attributes(decision)
                    )
                )
                for decision in decisions
            ]
            if self._trail is None:
                return
            try:
                self._trail.record_all(decisions)
            except BaseException:
                for decision, span in zip(decisions, spans, strict=True):
                    if decision:  # what was allowed is denied now; a denial stays what it was
                        span.set_attributes(_NOT_RECORDED)
                raise


def attributes(decision: Decision) -> dict[str, Any]:
    """The attributes of a span: GenAI's names and our own.

    Unknown facts are left out.
    """
    stated = described(decision)
    access = stated.get("access", {})
    chain = stated.get("chain", [])
    made: dict[str, Any] = {
        "gen_ai.operation.name": _OPERATION,
        "gen_ai.agent.name": chain[-1]["name"] if chain else None,
        "gen_ai.tool.name": access.get("tool"),
        "captoken.allowed": stated["allowed"],
        "captoken.code": stated["code"],
        "captoken.decision": stated.get("id"),
        "captoken.subject": stated.get("sub"),
        "captoken.task": stated.get("task"),
        "captoken.token": stated.get("token"),
        "captoken.link": stated.get("link"),
        "captoken.agents": [actor["name"] for actor in chain],
        "captoken.bases": [actor["basis"] for actor in chain],
        "captoken.table": access.get("table"),
        "captoken.operation": access.get("operation"),
        "captoken.tool": access.get("tool"),
    }
    refusals = stated.get("refusals")
    if refusals:
        made["captoken.refused_by"] = refusals[0].get("added_by")
    return {key: value for key, value in made.items() if value is not None and value != []}

"""One span for each decision, denials too, and nothing secret in them."""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from captoken.adapters.otel import SpanTrail, trace_id
from captoken.audit import AuditTrail, read
from tests.world import data, mint, verifier


def test_each_decision_is_a_span_and_the_trail_knows_the_trace() -> None:
    """Allowed and denied alike, with who, for whom, what and why; the record names the span's trace."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    lines: list[bytes] = []
    trail = SpanTrail(provider.get_tracer("test"), AuditTrail(lines.append, trace=trace_id))
    server = verifier(audit=trail)
    text = mint().delegate(to="sales-agent").serialize()
    assert server.check(text, data("sales")) and not server.check(text, data("hr")) and not server.check("cap1_", data("hr"))
    allowed, denied, forged = (dict(span.attributes or {}) for span in spans.get_finished_spans())
    assert allowed["captoken.code"] == "allowed" and allowed["captoken.agents"] == ("orchestrator", "sales-agent")
    assert allowed["captoken.bases"] == ("issued", "vouched") and allowed["captoken.subject"] == "user:jane"
    assert denied["captoken.code"] == "table" and denied["captoken.refused_by"] == "the issuer" and denied["captoken.table"] == "hr"
    assert forged["captoken.code"] == "malformed" and "captoken.subject" not in forged
    assert text not in str([allowed, denied, forged])
    traces = [record["trace"] for record in read(lines) if record["kind"] == "decision"]
    assert traces == [f"{span.context.trace_id:032x}" for span in spans.get_finished_spans()] and trace_id() is None


def test_without_a_trail_there_are_spans_all_the_same() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    assert verifier(audit=SpanTrail(provider.get_tracer("test"))).check(mint(), data("sales"))
    assert [span.name for span in spans.get_finished_spans()] == ["captoken.decision"]

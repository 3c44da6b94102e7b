"""One span for each decision, denials too, and nothing secret in them."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from captoken import Access, AsyncVerifier
from captoken.adapters.otel import SpanTrail, trace_id
from captoken.audit import AuditTrail, read
from captoken.keys import HolderKey
from captoken.stores.memory import MemoryReplayStore
from tests.fixtures import KEYRING, NOW, clock, data, mint, verifier


def test_each_decision_is_a_span_and_the_trail_knows_the_trace() -> None:
    """Allowed and denied alike, with who, for whom, what and why; the record names the span's trace."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    lines: list[bytes] = []
    trail = SpanTrail(provider.get_tracer("test"), AuditTrail(lines.append, trace=trace_id))
    server = verifier(audit=trail)
    text = mint().delegate(to="sales-agent").serialize()
    answers = [server.check(one, data(table)) for one, table in ((text, "sales"), (text, "hr"), ("cap1_", "hr"))]
    assert [bool(answer) for answer in answers] == [True, False, False]
    allowed, denied, forged = (dict(span.attributes or {}) for span in spans.get_finished_spans())
    assert allowed["captoken.code"] == "allowed" and allowed["captoken.agents"] == ("orchestrator", "sales-agent")
    assert allowed["captoken.bases"] == ("issued", "vouched") and allowed["captoken.subject"] == "user:jane"
    assert (
        denied["captoken.code"] == "table"
        and denied["captoken.refused_by"] == "the issuer"
        and denied["captoken.table"] == "hr"
    )
    assert forged["captoken.code"] == "malformed" and "captoken.subject" not in forged
    assert [one.get("captoken.decision") for one in (allowed, denied, forged)] == [None, answers[1].id, answers[2].id]
    assert text not in str([allowed, denied, forged]) and "market" not in str([allowed, denied, forged]), (
        "nor what is permitted"
    )
    traces = [record["trace"] for record in read(lines) if record["kind"] == "decision"]
    assert traces == [f"{span.context.trace_id:032x}" for span in spans.get_finished_spans()] and trace_id() is None


def test_a_span_says_what_came_of_it_where_the_record_failed() -> None:
    """An allowance that is not recorded is a denial, each one of a step; a denial stays what it was."""

    def full(_: bytes) -> None:
        raise OSError(28, "no space left")

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trail = SpanTrail(provider.get_tracer("test"), AuditTrail(full))
    server = verifier(audit=trail)
    assert server.check(mint(), data("sales")).code == "store_unavailable" and server.check(mint(), data("hr")).code == "table"
    grant = verifier().authenticate(mint())
    with pytest.raises(OSError, match="no space"):
        trail.record_all([grant.explain(data(table)) for table in ("sales", "market.eu")])
    said = [(span.attributes or {}) for span in spans.get_finished_spans()]
    told = [(one["captoken.allowed"], one["captoken.code"]) for one in said]
    assert told == [(False, "store_unavailable"), (False, "table"), *[(False, "store_unavailable")] * 2]


def test_a_step_is_one_trace() -> None:
    """A span for each access, the first above the others; recorded with one trace id."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    lines: list[bytes] = []
    grant = verifier(audit=SpanTrail(provider.get_tracer("test"), AuditTrail(lines.append, trace=trace_id))).authenticate(
        mint()
    )
    assert grant.check_all([data("sales"), data("market.eu")])
    *_, below, above = spans.get_finished_spans()
    assert below.parent is not None and below.parent.span_id == above.context.span_id
    assert [record["trace"] for record in list(read(lines))[-2:]] == [f"{above.context.trace_id:032x}"] * 2


def test_an_async_verifier_makes_the_same_spans_within_the_trace_that_it_is_asked_in() -> None:
    """Its trail is written in a thread, which has the context along. No proof is in a span either."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer = provider.get_tracer("test")
    key = HolderKey.generate()
    token = mint(tables=["sales"], operations=["select"], key=key.public)
    replays = MemoryReplayStore(floor=NOW - 3600)
    named = AsyncVerifier(KEYRING, "sales-api", clock=clock(), audit=SpanTrail(tracer), replays=replays)

    async def ask() -> str:
        text = token.present(audience="sales-api", signer=key, request=data("sales"), clock=clock())
        with tracer.start_as_current_span("request"):
            assert await named.check(text, data("sales"))
            assert not await named.check(text, data("sales"))
            assert not await named.check(mint().present(audience="sales-api"), data("hr"))
        return text

    proof = asyncio.run(ask()).rpartition(".")[2]
    *decisions, request = spans.get_finished_spans()
    assert [(span.attributes or {})["captoken.code"] for span in decisions] == ["allowed", "replayed", "table"]
    assert all(span.parent is not None and span.parent.span_id == request.context.span_id for span in decisions)
    assert proof.startswith("cap1p_") and proof[6:40] not in str([span.attributes for span in decisions])


def test_without_a_trail_there_are_spans_all_the_same() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    assert verifier(audit=SpanTrail(provider.get_tracer("test"))).check(mint(), data("sales"))
    assert [span.name for span in spans.get_finished_spans()] == ["execute_authorization"]


def test_a_span_has_the_names_of_genai_beside_our_own() -> None:
    """Of every decision, a denial too; who holds the token, and the tool, and no argument of it."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    server = verifier(audit=SpanTrail(provider.get_tracer("test")))
    token = mint(tools={"pay": {"to": {"any": True}}}).delegate(to="payer")
    for tool in ("pay", "refund"):
        server.check(token.serialize(), Access(tool=tool, arguments={"to": "acct-secret"}))
    server.check("cap1_", data("sales"))
    said = [
        {key: value for key, value in (span.attributes or {}).items() if key.startswith("gen_ai.")}
        for span in spans.get_finished_spans()
    ]
    operation = {"gen_ai.operation.name": "execute_authorization"}
    known = [{**operation, "gen_ai.agent.name": "payer", "gen_ai.tool.name": tool} for tool in ("pay", "refund")]
    assert said == [*known, operation]
    assert "acct-secret" not in str([span.attributes for span in spans.get_finished_spans()])

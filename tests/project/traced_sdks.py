"""OpenTelemetry and Sentry as their documentation starts them, with spans that go to a record."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from tests.project.records import record


def start(**kwargs: Any) -> None:
    """Start both SDKs; a receiver of ``worker_process_init``."""
    import sentry_sdk

    if "TEST_ERRORS_ALONE" in os.environ:
        sentry_sdk.init(dsn=os.environ["TEST_DSN"], send_default_pii=True)
        return
    from opentelemetry import trace
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Exporter(SpanExporter):
        def __init__(self, name: str) -> None:
            self.name = name

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            for span in spans:
                record(self.name, json.dumps(_shown(span)))
            return SpanExportResult.SUCCESS

    record("started", os.getpid())
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Exporter("spans")))
    provider.add_span_processor(BatchSpanProcessor(Exporter("late spans"), schedule_delay_millis=600_000))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]  # its package has no types
    DjangoInstrumentor().instrument()
    if "TEST_DSN" in os.environ:
        sentry_sdk.init(dsn=os.environ["TEST_DSN"], traces_sample_rate=1.0, send_default_pii=True)


def _shown(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": f"{span.context.trace_id:032x}",
        "id": f"{span.context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else "",
        "state": span.context.trace_state.to_header(),
        "failed": not span.status.is_ok,
        "attributes": {**span.attributes},
        "links": [f"{link.context.trace_id:032x}" for link in span.links],
    }

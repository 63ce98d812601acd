"""Spans to a collector over OTLP/HTTP; the only place that imports OpenTelemetry, an optional extra.

Spans are handed to OpenTelemetry's batch processor as they ended, so that there is no tracer, no sampler and no id
generator of its own between: ids are ours to choose. The standard `OTEL_EXPORTER_OTLP_*`, `OTEL_BSP_*`,
`OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` hold.
"""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from babysea_server.kit.ids import uuid7
from babysea_server.telemetry.tracing import Span, SpanRef

_log = structlog.get_logger(__name__)

#: Spans that wait for the collector at most, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise; some 1 KiB each.
_QUEUE_MAX = 8192
_TELL_EVERY_S = 60.0
_CLOSE_S = 1.0

_KINDS = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_UNSET, _FAILED = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class OtlpTracer:
    """Sends the spans of one process, in a thread of its own; what a collector does not take in time is dropped.

    Args:
        endpoint: the whole address, with the path of the traces.
        process: which kind it is, e.g. `api`; part of the service's name.
        exporter: instead of the one over HTTP.
    """

    def __init__(
        self, endpoint: str, process: str, version: str, *, exporter: SpanExporter | None = None
    ) -> None:
        # The library says the same of every batch and every try; here it is said once a minute.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._queue_max = _queue_max()
        self._exporter = _Watched(exporter or OTLPSpanExporter(endpoint=endpoint))
        self._processor = BatchSpanProcessor(self._exporter, self._queue_max)
        self._resource = _resource(process, version)
        self._scope = InstrumentationScope("babysea_server", version)
        self._recorded = 0
        self._closed = False

    def record(self, span: Span) -> None:
        """Take one span; never waits, never fails."""
        if self._closed:
            return
        if self._recorded - self._exporter.taken >= self._queue_max:
            self._exporter.dropped += 1
            return
        self._recorded += 1
        trace_id, parent_id = span.ref.trace_id, span.parent_id
        self._processor.on_end(
            ReadableSpan(
                span.name,
                context=_context(span.ref),
                parent=None if parent_id is None else _context(SpanRef(trace_id, parent_id)),
                resource=self._resource,
                attributes=span.attributes,
                links=[Link(_context(ref)) for ref in span.links],
                kind=_KINDS[span.kind],
                status=_FAILED if span.error else _UNSET,
                start_time=span.start_ns,
                end_time=span.end_ns,
                instrumentation_scope=self._scope,
            )
        )

    async def close(self, *, within_s: float = _CLOSE_S) -> None:
        """Send what waits; what is not taken by then is lost."""
        self._closed = True
        loop, flushed = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            shutdown: Callable[[], None] = self._processor.shutdown
            shutdown()
            with suppress(RuntimeError):  # it took too long: nobody waits, and the loop is gone
                loop.call_soon_threadsafe(flushed.set)

        # A daemon: no collector keeps a process from ending.
        threading.Thread(target=flush, name="traces-flush", daemon=True).start()
        try:
            await asyncio.wait_for(flushed.wait(), within_s)
        except TimeoutError:
            _log.warning("traces_not_flushed", seconds=within_s)
            self._exporter.shutdown()


class _Watched(SpanExporter):
    """Tells, not too often, when spans are lost. Called in the exporting thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._tell_at = -inf
        self.taken = 0
        self.dropped = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self.dropped += len(spans)
        if self.dropped and monotonic() >= self._tell_at:
            self._tell_at = monotonic() + _TELL_EVERY_S
            dropped, self.dropped = self.dropped, 0
            taken = result is SpanExportResult.SUCCESS
            reason = "more than the collector takes in time" if taken else "the collector does not take them"
            _log.warning("traces_dropped", spans=dropped, reason=reason)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _queue_max() -> int:
    try:
        return int(os.environ[OTEL_BSP_MAX_QUEUE_SIZE])
    except (KeyError, ValueError):
        return _QUEUE_MAX


def _resource(process: str, version: str) -> Resource:
    ours = Resource.create(
        {
            "service.name": f"babysea-{process}",
            "service.version": version,
            "service.instance.id": str(uuid7()),
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
        }
    )
    # What the operator's environment says comes last, so it wins.
    return ours.merge(OTELResourceDetector().detect())


def _context(ref: SpanRef) -> SpanContext:
    return SpanContext(ref.trace_id, ref.span_id, is_remote=False, trace_flags=_SAMPLED)

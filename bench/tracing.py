"""`python -m bench.tracing`: what traces cost a read and a generation, in processor time.

Two API processes on one site, one that sends traces of every request to a collector on loopback and one that does not,
and the same reads from each in alternating rounds: processor time of the process per read, its exporting thread
included, and the ratio within each round. Then by itself, in processor time, too: what the spans of one request and of
one generation take on the event loop, what the calls to nobody take where nothing is traced, and what the exporting
thread takes for one span.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from threading import Thread
from time import process_time, thread_time
from uuid import UUID

import msgspec
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from babysea_server.execution.types import Claim
from babysea_server.execution.watch import RunTrace, Untraced
from babysea_server.kit.clock import SystemClock
from babysea_server.kit.ids import uuid7
from babysea_server.telemetry.tracing import Span, Tracing
from babysea_server.telemetry.tracing_generations import GenerationTraces
from babysea_server.telemetry.tracing_otlp import OtlpTracer
from babysea_server.telemetry.tracing_requests import RequestTraces
from babysea_server.telemetry.tracing_webhooks import DeliveryTraces
from bench.command import tell, turns
from bench.load import Load, run
from bench.rounds import read_requests
from bench.servers import Process, Site, site
from bench.settle import drain
from bench.usage import cpu_s

_WARM_UP_S = 1.0
_CALLS, _TIMES = 500, 10
_SPANS = 20_000


class Figure(msgspec.Struct, kw_only=True):
    """Processor milliseconds per read of one server over the rounds, and their ratios to the untraced one."""

    name: str
    port: int
    pid: int
    milliseconds: list[float] = []
    ratios: list[float] = []


class _Swallow(BaseHTTPRequestHandler):
    """Takes requests as a collector does, and looks at none."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *values: object) -> None:
        pass


@contextmanager
def _collector() -> Iterator[str]:
    """A collector in threads of its own; yields its endpoint."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Swallow) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _api(place: Site, endpoint: str | None) -> Iterator[Process]:
    """The production command."""
    name = "untraced" if endpoint is None else "traced"
    config = place.folder / f"{name}.toml"
    config.write_text("" if endpoint is None else f'tracing_endpoint = "{endpoint}"\n')
    arguments = ["-m", "babysea_server.cli", "api", "--data-dir", str(place.folder), "--port", "0"]
    arguments += ["--config", str(config)]
    for region in place.settings.regions:
        arguments += ["--region", region]
    with Process(arguments, place.folder / f"api-{name}.log") as process:
        yield process


def _measure(load: Load, pid: int) -> float:
    before = cpu_s(pid)
    measured = run(load)
    if measured.refused or measured.broken:
        raise RuntimeError(f"{measured.refused + measured.broken} reads were refused or lost")
    return (cpu_s(pid) - before) / (measured.rate * load.seconds) * 1000


def compare(
    place: Site, reads: list[bytes], endpoint: str, *, rounds: int, seconds: float, connections: int
) -> list[Figure]:
    """Measure the servers; blocks. The untraced one comes first."""
    with _api(place, None) as plain, _api(place, endpoint) as traced:
        figures = [
            Figure(name=name, port=int(process.ready_line.rpartition(":")[2]), pid=process.pid)
            for name, process in (("untraced", plain), ("every request traced", traced))
        ]
        load = Load(host="127.0.0.1", port=0, requests=reads, connections=connections, seconds=_WARM_UP_S)
        for figure in figures:
            run(msgspec.structs.replace(load, port=figure.port))
        for number in range(rounds):
            # Now the one first, now the other: a machine that gets slower favours nobody.
            for figure in figures if number % 2 == 0 else figures[::-1]:
                each = msgspec.structs.replace(load, port=figure.port, seconds=seconds)
                figure.milliseconds.append(_measure(each, figure.pid))
            for figure in figures:
                figure.ratios.append(figure.milliseconds[-1] / figures[0].milliseconds[-1])
    return figures


# ------------------------------------------------------------------------------------------- by itself


class _Nowhere(SpanExporter):
    """Takes spans and does nothing with them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _claim() -> Claim:
    return Claim(
        uuid7(),
        UUID(int=1),
        "sandbox/image",
        "image",
        {},
        ("sandbox",),
        uuid7(),
        False,
        datetime.now(UTC),
        1,
        (),
    )


def run_one(trace: RunTrace, attempt_id: UUID) -> None:
    """What a run of one attempt tells its trace."""
    trace.begin()
    trace.opened(attempt_id, 1, "sandbox", 0.0)
    with trace.step("submit") as step:
        step.ended("accepted")
    trace.accepted("an id of the provider's")
    for name in ("wait", "fetch", "store"):
        with trace.step(name):
            pass
    trace.attempted("succeeded", None)
    with trace.step("settle"):
        pass
    trace.settled("succeeded", None)


async def _microseconds(call: Callable[[], object]) -> float:
    """Processor time of one call in this thread, the best of several times."""
    times = []
    for _ in range(_TIMES):
        started = thread_time()
        for _ in range(_CALLS):
            call()
        times.append((thread_time() - started) / _CALLS * 1e6)
    return min(times)


@asynccontextmanager
async def _tracing(exporter: SpanExporter) -> AsyncIterator[Tracing]:
    tracer = OtlpTracer("", "bench", "0", exporter=exporter)
    yield Tracing(tracer, SystemClock(), sample=1.0)
    await tracer.close(within_s=60)


async def by_itself(endpoint: str) -> list[tuple[str, float]]:
    """Microseconds of what is done for one request, one generation, one webhook, one span."""
    os.environ[OTEL_BSP_MAX_QUEUE_SIZE] = str(
        10 * _SPANS
    )  # what is dropped costs nothing: nothing is to be dropped
    nobody, claim = Untraced(), _claim()
    rows = [
        ("a generation that is not traced", await _microseconds(lambda: run_one(nobody, claim.prediction_id)))
    ]
    async with _tracing(_Nowhere()) as tracing:
        requests, deliveries = RequestTraces(tracing), DeliveryTraces(tracing, "us")
        generations = GenerationTraces(tracing, "us")

        def request() -> None:
            requests.served(
                requests.begin([(b"accept", b"*/*")]),
                request_id="req_0123456789abcdef01234567",
                method="GET",
                route="/v1/content/{generation_id}",
                operation="get_generation",
                region="us",
                account_id=claim.account_id,
                status=200,
                error_code=None,
                timings={"validate": 0.1, "auth": 0.1},
            )

        def generation() -> None:
            now = datetime.now(UTC)
            generations.admitted(
                claim.id, None, result="accepted", batch_size=1, called_at=now, answered_at=now
            )
            trace = generations.run(claim)
            assert trace is not None
            run_one(trace, claim.prediction_id)

        def webhook() -> None:
            begun = deliveries.begin(claim.prediction_id, {"generation_id": str(claim.id)})
            deliveries.ended(
                begun,
                delivery_id=claim.prediction_id,
                endpoint_id=claim.account_id,
                event="generation.completed",
                attempt=1,
                status=200,
                failure=None,
            )

        rows += [
            ("a request, 1 span, on the loop", await _microseconds(request)),
            ("a generation with its admission, 9 spans, on the loop", await _microseconds(generation)),
            ("a try of a webhook, 1 span, on the loop", await _microseconds(webhook)),
        ]
    rows.append(("a span, in the exporting thread", await _exporting(endpoint)))
    return rows


async def _exporting(endpoint: str) -> float:
    """Microseconds of processor time for taking a span, encoding it and sending it, with the collector's share."""
    tracer = OtlpTracer("", "bench", "0", exporter=OTLPSpanExporter(endpoint=endpoint))
    spans: list[Span] = []

    class Keep:
        def record(self, span: Span) -> None:
            spans.append(span)

    generations = GenerationTraces(Tracing(Keep(), SystemClock(), sample=1.0), "us")
    while len(spans) < _SPANS:
        trace = generations.run(_claim())
        assert trace is not None
        run_one(trace, uuid7())
    started = process_time()
    for span in spans:
        tracer.record(span)
    await tracer.close(within_s=60)
    return (process_time() - started) / len(spans) * 1e6


async def tracing(*, rounds: int, seconds: float, connections: int) -> str:
    """The tables, in Markdown."""
    with _collector() as endpoint:
        async with site() as place:
            await drain(place, 300)
            reads = await read_requests(place)
            figures = await asyncio.to_thread(
                compare, place, reads, endpoint, rounds=rounds, seconds=seconds, connections=connections
            )
        alone = await by_itself(endpoint)
    lines = [
        f"`GET /v1/content/{{id}}`, {connections} connections, {rounds} rounds of {seconds:g} s, medians.",
        "",
        "| server | CPU ms per read | ratio | ratios of the rounds |",
        "|---|---:|---:|---|",
    ]
    for figure in figures:
        spread = f"{min(figure.ratios):.2f} to {max(figure.ratios):.2f}"
        lines.append(
            f"| {figure.name} | {median(figure.milliseconds):.3f} | {median(figure.ratios):.2f} | {spread} |"
        )
    lines += ["", "| what is done | µs |", "|---|---:|"]
    lines += [f"| {name} | {microseconds:,.1f} |" for name, microseconds in alone]
    return "\n".join(lines)


def main() -> int:
    """Parse the arguments, measure, print."""
    return tell(tracing(**vars(turns("python -m bench.tracing", __doc__))))


if __name__ == "__main__":
    sys.exit(main())

"""What a process counts of itself, for Prometheus: every family by name, and the instruments of each kind of process.

Labels take few values: an operation, a status class, a region, a provider, a class of failure. Never an account, a key,
an id or anything that a client wrote.
"""

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

import msgspec
import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Process = Literal["api", "worker", "console"]

_REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CALL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_ATTEMPT_S = (0.1, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 900)
_WAIT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 900)
_WEBHOOK_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
_LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

#: The value of a label where a request came too short to have one: no region, no operation.
NONE = "none"
#: Every status that a provider may have; of one provider, one of them is 1.
PROVIDER_STATUSES = ("healthy", "recovering", "degraded", "unknown")


class Family(NamedTuple):
    """One family of series, as it is scraped and as `docs/observability.md` lists it."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: Sequence[float] = ()


BUILD = Family(
    "babysea_build_info", "gauge", ("version", "process"), "1; which version this is, and of what kind."
)
LOOP_LAG = Family(
    "babysea_loop_lag_seconds",
    "histogram",
    (),
    "How late the event loop came back to a timer, sampled twice a second.",
    _LAG_S,
)
CONNECTIONS = Family(
    "babysea_database_connections",
    "gauge",
    ("region", "pool", "state"),
    "Connections of a pool that are open, by `idle` and `used`.",
)
CONNECTIONS_MAX = Family(
    "babysea_database_connections_max",
    "gauge",
    ("region", "pool"),
    "Connections that a pool may open at most.",
)
CONNECTIONS_AWAITED = Family(
    "babysea_database_connections_awaited",
    "gauge",
    ("region", "pool"),
    "How many wait for a connection of a pool now; one is given up after 2 s.",
)
EVERY = (BUILD, LOOP_LAG, CONNECTIONS, CONNECTIONS_MAX, CONNECTIONS_AWAITED)

REQUESTS = Family(
    "babysea_request_duration_seconds",
    "histogram",
    ("region", "operation", "status_class"),
    "Requests under `/v1`, from their head to their answer; `none` where the firewall refused them.",
    _REQUEST_S,
)
ERRORS = Family(
    "babysea_request_errors_total",
    "counter",
    ("region", "code"),
    "Requests under `/v1` that were answered with an error, by its code.",
)
RESPONSES = Family(
    "babysea_http_responses_total",
    "counter",
    ("surface", "status_class"),
    "Answers of everything beside `/v1`: files, callbacks, console, documents, payments, health.",
)
ADMISSION_BATCH = Family(
    "babysea_admission_batch_size",
    "histogram",
    ("region",),
    "Requests that were decided together in one database call.",
    _BATCH,
)
ADMISSION_CALL = Family(
    "babysea_admission_call_duration_seconds",
    "histogram",
    ("region",),
    "How long a call took that decided a batch, with the search for an answer that was lost.",
    _CALL_S,
)
ADMISSIONS = Family(
    "babysea_admissions_total",
    "counter",
    ("region", "result"),
    "Requests by what the database decided; `unavailable`: it did not in time, `unknown`: its answer was lost.",
)
ADMISSION_WAITING = Family(
    "babysea_admission_waiting",
    "gauge",
    ("region",),
    "Requests that wait for a call; beyond `admission_queue` they are refused.",
)
LOG_LOST = Family(
    "babysea_request_log_lost_rows_total",
    "counter",
    ("region",),
    "Rows of the request log that were given up, so that usage counts too little.",
)
API = (
    REQUESTS,
    ERRORS,
    RESPONSES,
    ADMISSION_BATCH,
    ADMISSION_CALL,
    ADMISSIONS,
    ADMISSION_WAITING,
    LOG_LOST,
)

RUNNING = Family(
    "babysea_generations_running",
    "gauge",
    ("region",),
    "Generations that this worker carries, up to `worker_concurrency`.",
)
PICKED_UP = Family(
    "babysea_generation_wait_seconds",
    "histogram",
    ("region",),
    "From the acceptance of a generation to its first claim by a worker.",
    _WAIT_S,
)
SETTLED = Family(
    "babysea_generation_duration_seconds",
    "histogram",
    ("region", "media", "status"),
    "From the acceptance of a generation to its settlement by this worker.",
    _ATTEMPT_S,
)
FAILED = Family(
    "babysea_generation_failures_total",
    "counter",
    ("region", "code"),
    "Generations that this worker settled as failed, by the customer's error code.",
)
ATTEMPTS = Family(
    "babysea_attempt_duration_seconds",
    "histogram",
    ("region", "provider", "outcome"),
    "Attempts, from opening to end: `succeeded`, `failed`, or `left` if the generation ended without them.",
    _ATTEMPT_S,
)
ATTEMPT_FAILURES = Family(
    "babysea_attempt_failures_total",
    "counter",
    ("region", "provider", "failure"),
    "Failed attempts by class of failure.",
)
DELIVERIES = Family(
    "babysea_webhook_duration_seconds",
    "histogram",
    ("region", "outcome"),
    "Tries to deliver a webhook: `delivered` or the kind of failure.",
    _WEBHOOK_S,
)
SENDING = Family(
    "babysea_webhooks_sending", "gauge", ("region",), "Deliveries that this worker has under way."
)
READ_AT = Family(
    "babysea_state_read_timestamp_seconds",
    "gauge",
    ("region",),
    "When the figures of the database (those marked *shared*) were last read, Unix time; every 10 s.",
)
QUEUE = Family(
    "babysea_queue_generations",
    "gauge",
    ("region", "state"),
    "*shared* Generations that are `due`, `leased` by a worker, or `overdue` past their hard limit; counted to 20,000.",
)
QUEUE_AGE = Family(
    "babysea_queue_age_seconds",
    "gauge",
    ("region",),
    "*shared* For how long the oldest due generation has been due.",
)
WEBHOOKS = Family(
    "babysea_queue_webhooks",
    "gauge",
    ("region", "state"),
    "*shared* Deliveries that are `due` or `leased` by a worker; among 20,000 that are pending.",
)
WEBHOOKS_AGE = Family(
    "babysea_queue_webhooks_age_seconds",
    "gauge",
    ("region",),
    "*shared* For how long the oldest of those due deliveries has been due.",
)
LEDGER = Family(
    "babysea_ledger_micro_credits_total",
    "counter",
    ("region", "kind"),
    "*shared* What was written to the ledger since this worker started, a minute late; 1,000,000 are one credit.",
)
LEDGER_ROWS = Family(
    "babysea_ledger_rows_total",
    "counter",
    ("region", "kind"),
    "*shared* Rows of the ledger behind that.",
)
PROVIDERS = Family(
    "babysea_provider_status",
    "gauge",
    ("region", "provider", "status"),
    "*shared* 1 for what the breaker makes of a provider, 0 for the others.",
)
WORKER = (
    RUNNING,
    PICKED_UP,
    SETTLED,
    FAILED,
    ATTEMPTS,
    ATTEMPT_FAILURES,
    DELIVERIES,
    SENDING,
    READ_AT,
    QUEUE,
    QUEUE_AGE,
    WEBHOOKS,
    WEBHOOKS_AGE,
    LEDGER,
    LEDGER_ROWS,
    PROVIDERS,
)


def new_registry() -> CollectorRegistry:
    """A registry for one process, with what the operating system knows of it (`process_*`, `python_gc_*`)."""
    # Else every counter and histogram had a second series with the time of its making, which nobody asks for.
    without_times: Callable[[], None] = prometheus_client.disable_created_metrics
    without_times()
    registry = CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.GCCollector(registry=registry)
    return registry


def _counter(registry: CollectorRegistry, family: Family) -> Counter:
    return Counter(family.name, family.help, family.labels, registry=registry)


def _gauge(registry: CollectorRegistry, family: Family) -> Gauge:
    return Gauge(family.name, family.help, family.labels, registry=registry)


def _histogram(registry: CollectorRegistry, family: Family) -> Histogram:
    return Histogram(family.name, family.help, family.labels, buckets=family.buckets, registry=registry)


class ReadCounter(Collector):
    """A counter whose values are kept by others and read when it is scraped."""

    def __init__(self, registry: CollectorRegistry, family: Family) -> None:
        self._family = family
        self._readers: dict[tuple[str, ...], Callable[[], float]] = {}
        registry.register(self)

    def add(self, *labels: str, read: Callable[[], float]) -> None:
        """Have the series of these labels read from now on."""
        self._readers[labels] = read

    def collect(self) -> Iterator[Metric]:
        """Read them."""
        found = CounterMetricFamily(self._family.name, self._family.help, labels=self._family.labels)
        for labels, read in self._readers.items():
            found.add_metric(labels, read())
        yield found


def status_class(status: int) -> str:
    """`2xx` for 200, and so on."""
    return f"{status // 100}xx"


class ProcessMetrics(msgspec.Struct, frozen=True):
    """What every process counts."""

    loop_lag: Histogram
    connections: Gauge
    connections_max: Gauge
    connections_awaited: Gauge

    @classmethod
    def build(cls, registry: CollectorRegistry, process: Process, version: str) -> "ProcessMetrics":
        """Register them, under the name of this process."""
        _gauge(registry, BUILD).labels(version, process).set(1)
        return cls(
            loop_lag=_histogram(registry, LOOP_LAG),
            connections=_gauge(registry, CONNECTIONS),
            connections_max=_gauge(registry, CONNECTIONS_MAX),
            connections_awaited=_gauge(registry, CONNECTIONS_AWAITED),
        )


class RequestMetrics(Collector):
    """Counts requests under `/v1`, on the way of every answer.

    Done by hand, because a histogram of the library takes ten times as long: it locks, and looks for labels and bucket
    one by one. Here only the loop's thread counts; a scrape in another may find the last answer in one of bucket and
    sum and not yet in the other.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._errors = _counter(registry, ERRORS)
        self._rows: dict[tuple[str, str, str], list[float]] = {}
        """By labels: answers in each bucket, then their seconds."""
        self._known: dict[tuple[str | None, str | None, int], list[float]] = {}
        self._bounds = tuple(REQUESTS.buckets)
        registry.register(self)

    def __call__(
        self,
        region: str | None,
        operation: str | None,
        status: int,
        error_code: str | None,
        duration_s: float,
    ) -> None:
        """Count one answer."""
        row = self._known.get((region, operation, status))
        if row is None:
            labels = (region or NONE, operation or NONE, status_class(status))
            row = self._rows.setdefault(labels, [0.0] * (len(self._bounds) + 2))
            self._known[region, operation, status] = row
        row[bisect_left(self._bounds, duration_s)] += 1
        row[-1] += duration_s
        if error_code is not None:
            self._errors.labels(region or NONE, error_code).inc()

    def collect(self) -> Iterator[Metric]:
        """The histogram as it stands."""
        found = HistogramMetricFamily(REQUESTS.name, REQUESTS.help, labels=REQUESTS.labels)
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        for labels, row in list(self._rows.items()):
            *counts, seconds = list(row)
            found.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), seconds)
        yield found


class ApiMetrics(msgspec.Struct, frozen=True):
    """What a process counts that answers requests."""

    requests: RequestMetrics
    responses: Counter
    admission_batch: Histogram
    admission_call: Histogram
    admissions: Counter
    admission_waiting: Gauge
    log_lost: ReadCounter

    @classmethod
    def build(cls, registry: CollectorRegistry) -> "ApiMetrics":
        """Register them."""
        return cls(
            requests=RequestMetrics(registry),
            responses=_counter(registry, RESPONSES),
            admission_batch=_histogram(registry, ADMISSION_BATCH),
            admission_call=_histogram(registry, ADMISSION_CALL),
            admissions=_counter(registry, ADMISSIONS),
            admission_waiting=_gauge(registry, ADMISSION_WAITING),
            log_lost=ReadCounter(registry, LOG_LOST),
        )

    def admission(self, region: str) -> Callable[[Sequence[str], float], None]:
        """Counts the batches of a region: the result of each request, and the seconds that it took."""
        sizes, seconds = self.admission_batch.labels(region), self.admission_call.labels(region)

        def count(results: Sequence[str], duration_s: float) -> None:
            sizes.observe(len(results))
            seconds.observe(duration_s)
            for result, requests in Tally(results).items():
                self.admissions.labels(region, result).inc(requests)

        return count


class WorkerMetrics(msgspec.Struct, frozen=True):
    """What a process counts that executes generations and sends webhooks."""

    running: Gauge
    picked_up: Histogram
    settled: Histogram
    failed: Counter
    attempts: Histogram
    attempt_failures: Counter
    deliveries: Histogram
    sending: Gauge
    read_at: Gauge
    queue: Gauge
    queue_age: Gauge
    webhooks: Gauge
    webhooks_age: Gauge
    ledger: Counter
    ledger_rows: Counter
    providers: Gauge

    @classmethod
    def build(cls, registry: CollectorRegistry) -> "WorkerMetrics":
        """Register them."""
        return cls(
            running=_gauge(registry, RUNNING),
            picked_up=_histogram(registry, PICKED_UP),
            settled=_histogram(registry, SETTLED),
            failed=_counter(registry, FAILED),
            attempts=_histogram(registry, ATTEMPTS),
            attempt_failures=_counter(registry, ATTEMPT_FAILURES),
            deliveries=_histogram(registry, DELIVERIES),
            sending=_gauge(registry, SENDING),
            read_at=_gauge(registry, READ_AT),
            queue=_gauge(registry, QUEUE),
            queue_age=_gauge(registry, QUEUE_AGE),
            webhooks=_gauge(registry, WEBHOOKS),
            webhooks_age=_gauge(registry, WEBHOOKS_AGE),
            ledger=_counter(registry, LEDGER),
            ledger_rows=_counter(registry, LEDGER_ROWS),
            providers=_gauge(registry, PROVIDERS),
        )

    def delivery(self, region: str) -> Callable[[str | None, float], None]:
        """Counts the tries of a region: the kind of failure, or None, and the seconds that it took."""

        def count(failure: str | None, duration_s: float) -> None:
            self.deliveries.labels(region, failure or "delivered").observe(duration_s)

        return count


class RunMetrics:
    """Counts what becomes of the generations of a region's worker; see `execution.watch.RunWatch`."""

    def __init__(self, metrics: WorkerMetrics, region: str) -> None:
        self._metrics = metrics
        self._region = region

    def claimed(self, waited_s: float) -> None:
        """A generation was claimed for the first time."""
        self._metrics.picked_up.labels(self._region).observe(max(0.0, waited_s))

    def attempted(self, provider: str, outcome: str, failure: str | None, duration_s: float) -> None:
        """An attempt ended."""
        self._metrics.attempts.labels(self._region, provider, outcome).observe(max(0.0, duration_s))
        if failure is not None:
            self._metrics.attempt_failures.labels(self._region, provider, failure).inc()

    def settled(self, media: str, status: str, error_code: str | None, duration_s: float) -> None:
        """A generation was settled."""
        self._metrics.settled.labels(self._region, media, status).observe(max(0.0, duration_s))
        if error_code is not None:
            self._metrics.failed.labels(self._region, error_code).inc()

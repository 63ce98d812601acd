"""What a load needs in each region: processes, cores, connections, PostgreSQL, disk and network, and what gives first.

Everything is linear in the rate but for what queues: costs of one generation, measured by `python -m bench costs`,
times generations a second, divided by how busy a part may be. Jobs in flight follow Little's law. Nothing here knows of
a second database in a region: where one primary's limits end, the table of limits says what comes after.
"""

from math import ceil

import msgspec

from bench.capacity.queueing import wait_s
from bench.costs import Costs

_TB = 10**12
_DAY_S = 86_400
#: As `execution.run` polls: from 1 s on by 1.4 up to a longest pause by media.
_FIRST_POLL_S, _POLL_GROWTH = 1.0, 1.4
_POLL_MAX_S = {"image": 3.0, "video": 10.0}
_POLL_MAX_CALLED_BACK_S = {"image": 15.0, "video": 30.0}
#: Requests to a provider beside polls: the submit, and one for each file.
_HTTP_BESIDE_POLLS = 2
#: Connections of one process beside its pool: one that listens, and those of admission.
_API_BESIDE, _WORKER_BESIDE = 4, 1
_WEBHOOK_KB, _REQUEST_KB, _ANSWER_KB = 1.5, 1.0, 1.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be carried, at the peak, and of what kind; durations in seconds, sizes in MB (10^6 bytes)."""

    per_minute: float
    regions: int = 1
    video_share: float = 0.1
    image_s: float = 8.0
    video_s: float = 90.0
    image_mb: float = 1.5
    video_mb: float = 12.0
    reads: float = 3.0
    """Requests for a generation by who ordered it."""
    webhooks: float = 1.0
    """Deliveries for each generation."""
    callbacks: bool = False
    """Providers announce the end of jobs, and are polled for safety only."""
    keep_days: float = 30.0
    busiest_share: float = 0.05
    """Of a region's generations those of its busiest account."""

    @property
    def rate(self) -> float:
        """Generations a second in one region."""
        return self.per_minute / 60 / self.regions

    def mean(self, image: float, video: float) -> float:
        """The mean over the mix of media."""
        return (1 - self.video_share) * image + self.video_share * video


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to build with. What is measured by nobody here is named as an assumption in docs/capacity.md."""

    busy: float = 0.6
    """How busy a core may be, so that a peak or a machine that is missing does not stop anything."""
    cores: int = 8
    """Of one machine that runs API or worker processes."""
    connections: int = 12
    """Of one process to its database at most, as the setting."""
    in_flight: int = 20_000
    """Generations in one worker process at most."""
    ms_per_mb: float = 4.0
    """Worker time for each MB of output: TLS, checking, hashing, handing to the store."""
    gbit_s: float = 10.0
    """Of a worker's machine to the network, each way."""
    database_cores: int = 64
    database_connections: int = 1_000
    wal_mb_s: float = 300.0
    disk_tb: float = 30.0


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What one part can carry in one region, in generations a minute, and what is done beyond it."""

    part: str
    per_minute: float
    after: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one region needs. Times in milliseconds, rates a second."""

    rate: float
    api_processes: int
    api_machines: int
    api_wait_ms: float
    worker_processes: int
    worker_machines: int
    worker_bound: str
    worker_wait_ms: float
    in_flight: float
    polls: float
    database_cores: float
    connections: int
    wal_mb_s: float
    wal_syncs: float
    rows_gb_day: float
    rows_tb: float
    files_day: float
    files_tb_day: float
    fetch_mb_s: float
    store_mb_s: float
    webhooks: float
    webhook_mb_s: float
    api_mb_s: float
    limits: list[Limit]
    """The one that gives first stands first."""


class Each(msgspec.Struct, frozen=True, kw_only=True):
    """What one generation of a load costs, in milliseconds of processor time and bytes; `*_loop` of one thread."""

    api_loop: float
    api: float
    worker_loop: float
    worker: float
    database: float
    serial: float
    """For which the account's row is held: nobody else of that account is admitted or settled meanwhile."""
    wal_bytes: float
    wal_syncs: float


def polls_of(duration_s: float, media: str, *, callbacks: bool = False) -> int:
    """How often a provider is asked for a job of so many seconds."""
    longest = (_POLL_MAX_CALLED_BACK_S if callbacks else _POLL_MAX_S)[media]
    at = pause = _FIRST_POLL_S
    asked = 1
    if callbacks:
        return max(1, ceil(duration_s / longest))
    while at < duration_s:
        pause = min(pause * _POLL_GROWTH, longest)
        at += pause
        asked += 1
    return asked


def each(costs: Costs, load: Load, place: Place) -> Each:
    """What one generation costs: measured parts, and for providers as many requests over HTTP as the job needs."""
    admission, read = costs.part("admission"), costs.part("read")
    plain, hooked = costs.part("generation"), costs.part("generation with webhook")
    # A webhook is a request over HTTP and two statements; a request to a provider is taken to cost as much as its
    # sending, which is the only request in the measurement that leaves the worker.
    sending = sum(line.ms for line in hooked.lines if line.process == "worker" and "webhook" in line.step)
    delivering = max(sending, hooked.process_ms - plain.process_ms)
    polls = load.mean(
        polls_of(load.image_s, "image", callbacks=load.callbacks),
        polls_of(load.video_s, "video", callbacks=load.callbacks),
    )
    http_ms = (polls + _HTTP_BESIDE_POLLS) * sending
    bytes_ms = load.mean(load.image_mb, load.video_mb) * place.ms_per_mb
    settle_ms = sum(line.ms for line in plain.lines if line.process == "postgres" and line.step == "settle")
    told = max(0.0, hooked.backend_ms + hooked.server_ms - plain.backend_ms - plain.server_ms)
    return Each(
        api_loop=admission.main_ms + load.reads * read.main_ms,
        api=admission.process_ms + load.reads * read.process_ms,
        worker_loop=plain.main_ms + load.webhooks * delivering + http_ms,
        worker=plain.process_ms + load.webhooks * delivering + http_ms + bytes_ms,
        database=sum(part.backend_ms + part.server_ms for part in (admission, plain))
        + load.reads * (read.backend_ms + read.server_ms)
        + load.webhooks * told,
        serial=admission.backend_ms + settle_ms,
        wal_bytes=admission.wal_bytes
        + plain.wal_bytes
        + load.webhooks * max(0.0, hooked.wal_bytes - plain.wal_bytes),
        wal_syncs=admission.wal_syncs + plain.wal_syncs,
    )


def plan(costs: Costs, load: Load, place: Place) -> Plan:
    """What one region needs for its part of the load."""
    one, rate = each(costs, load, place), load.rate
    allowed = place.busy * 1000
    api_processes = max(1, ceil(rate * one.api_loop / allowed))
    in_flight = rate * load.mean(load.image_s, load.video_s)
    by_loop, by_jobs = ceil(rate * one.worker_loop / allowed), ceil(in_flight / place.in_flight)
    workers = max(1, by_loop, by_jobs)
    megabytes = rate * load.mean(load.image_mb, load.video_mb)
    connections = api_processes * (place.connections + _API_BESIDE) + workers * (
        place.connections + _WORKER_BESIDE
    )
    rows_gb_day = rate * _DAY_S * costs.row_bytes / 10**9
    requests = rate * (1 + load.reads)
    return Plan(
        rate=rate,
        api_processes=api_processes,
        api_machines=ceil(rate * one.api / allowed / place.cores),
        api_wait_ms=wait_s(requests / api_processes, one.api_loop / 1000 / (1 + load.reads)) * 1000,
        worker_processes=workers,
        worker_machines=max(
            ceil(rate * one.worker / allowed / place.cores),
            ceil(megabytes * 8 / 1000 / place.gbit_s / place.busy),
        ),
        worker_bound="processor" if by_loop >= by_jobs else "jobs in flight",
        worker_wait_ms=wait_s(rate, one.worker_loop / 1000, workers) * 1000,
        in_flight=in_flight,
        polls=rate
        * load.mean(
            polls_of(load.image_s, "image", callbacks=load.callbacks),
            polls_of(load.video_s, "video", callbacks=load.callbacks),
        ),
        database_cores=rate * one.database / allowed,
        connections=connections,
        wal_mb_s=rate * one.wal_bytes / 10**6,
        wal_syncs=rate * one.wal_syncs,
        rows_gb_day=rows_gb_day,
        rows_tb=rows_gb_day * load.keep_days / 1000,
        files_day=rate * _DAY_S,
        files_tb_day=megabytes * _DAY_S * 10**6 / _TB,
        fetch_mb_s=megabytes,
        store_mb_s=megabytes,
        webhooks=rate * load.webhooks,
        webhook_mb_s=rate * load.webhooks * _WEBHOOK_KB / 1000,
        api_mb_s=requests * (_REQUEST_KB + _ANSWER_KB) / 1000,
        limits=limits(costs, load, place),
    )


def limits(costs: Costs, load: Load, place: Place) -> list[Limit]:
    """What one region's single parts can carry; what gives first stands first."""
    one = each(costs, load, place)
    # Connections grow with processes, and those with the rate.
    connections_each = (
        one.api_loop * (place.connections + _API_BESIDE)
        + one.worker_loop * (place.connections + _WORKER_BESIDE)
    ) / (place.busy * 1000)
    rows_each = costs.row_bytes * load.keep_days * _DAY_S / _TB
    by_rate = [
        (
            "rows on the primary's disk",
            place.disk_tb * place.busy / rows_each,
            "keep records for fewer days; tables by day, so that old ones are dropped whole; then accounts by shard",
        ),
        (
            "connections of the primary",
            place.database_connections / connections_each,
            "fewer connections a process, or a pooler in front",
        ),
        (
            "WAL of the primary",
            place.wal_mb_s * 10**6 / one.wal_bytes,
            "several primaries, accounts by shard",
        ),
        (
            "processor of the primary",
            place.database_cores * place.busy * 1000 / one.database,
            "reads from replicas; then several primaries, accounts by shard",
        ),
        (
            "the busiest account's row",
            1000 * place.busy / one.serial / max(load.busiest_share, 1e-9),
            "the customer's load in several accounts",
        ),
    ]
    found = [Limit(part=part, per_minute=60 * rate, after=after) for part, rate, after in by_rate]
    return sorted(found, key=lambda limit: limit.per_minute)


def markdown(load: Load, found: Plan) -> str:
    """The plan as tables."""
    rows = [
        ("generations a second", f"{found.rate:,.1f}"),
        ("API: processes / machines", f"{found.api_processes:,} / {found.api_machines:,}"),
        ("mean wait for an API process", f"{found.api_wait_ms:.2f} ms"),
        (
            f"workers: processes / machines (bound by {found.worker_bound})",
            f"{found.worker_processes:,} / {found.worker_machines:,}",
        ),
        ("mean wait for a worker", f"{found.worker_wait_ms:.2f} ms"),
        ("jobs in flight", f"{found.in_flight:,.0f}"),
        ("polls a second", f"{found.polls:,.0f}"),
        ("PostgreSQL: cores", f"{found.database_cores:.1f}"),
        ("connections at most", f"{found.connections:,}"),
        ("WAL", f"{found.wal_mb_s:,.1f} MB/s, {found.wal_syncs:,.0f} syncs/s at most"),
        ("rows", f"{found.rows_gb_day:,.0f} GB a day, {found.rows_tb:,.1f} TB in {load.keep_days:g} days"),
        ("files", f"{found.files_day / 10**6:,.1f} million and {found.files_tb_day:,.1f} TB a day"),
        ("outputs, in and out", f"{found.fetch_mb_s * 8 / 1000:,.1f} Gbit/s each way"),
        ("webhooks", f"{found.webhooks:,.0f}/s, {found.webhook_mb_s:,.1f} MB/s"),
        ("API traffic", f"{found.api_mb_s:,.1f} MB/s"),
    ]
    lines = [
        f"{load.per_minute:,.0f} generations a minute over {load.regions} region(s), {load.video_share:.0%} video. "
        "In each region:",
        "",
        "| what | needed |",
        "|---|---:|",
    ]
    lines += [f"| {name} | {value} |" for name, value in rows]
    lines += ["", "| what gives first, one region | at generations a minute | after it |", "|---|---:|---|"]
    lines += [f"| {limit.part} | {limit.per_minute:,.0f} | {limit.after} |" for limit in found.limits]
    return "\n".join(lines)

"""Many generations in flight in one worker process: memory, lag, polling, leases, a hand-over, and their end at once.

The provider takes a job at once and finishes no job until it is told to; then all are finished. It answers from
memory inside the worker process, so that what remains is the worker's own work: a poll costs no HTTP here. Everything
else is real: the database, the store, the leases. Each phase is sampled from outside (processor time, memory, the
lease that remains in the database) and from inside (how late the event loop is, polls).

`python -m bench inflight` carries 20,000, `--quick` 2,000. The exit code is 1 when memory or a lease went beyond its
bound, a generation was claimed or bought twice, or the ledger has a difference.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import TypeAlias

import msgspec
import uvloop

from babysea_server.app.shared import build_shared
from babysea_server.app.workers import Workers
from babysea_server.catalog.catalog import Catalog
from babysea_server.db.cluster import Cluster
from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.pool import Database
from babysea_server.ledger.verify import verify
from babysea_server.processes.serve import settle_memory
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Finished,
    Job,
    Output,
    Refused,
    Request,
    Running,
)
from babysea_server.providers.registry import Registry, Route, everywhere
from babysea_server.settings import Settings, load_settings
from babysea_server.telemetry.logs import configure_logging
from bench.servers import REGION, Process, Site, site
from bench.settle import InstantProvider, InstantTransport, admit
from bench.usage import Memory, PostgresUsage, cpu_s, memory

MEMORY_MAX = 2**30
_TICK_S = 0.05
_SAMPLE_S = 0.5
_PHASE_MAX_S = 300.0
#: Longer than any run, so that no attempt ends by itself.
_ATTEMPT_S = 3600.0


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One phase. Times in seconds; `lag_s` is the latest that the loop was, `lease_s` the least that was left."""

    name: str
    generations: int
    seconds: float
    worker_cpu_s: float
    postgres_cpu_s: float
    polls: int
    lag_s: float
    lease_s: float
    memory: Memory


class _Told(msgspec.Struct, kw_only=True):
    """What the worker process says of itself: totals, and the worst since it began the line before."""

    running: int = 0
    polls: int = 0
    lag_s: float = 0.0


#: Whether a phase is over, given what the worker told last.
_Over: TypeAlias = Callable[[_Told], Awaitable[bool]]

# ------------------------------------------------------------------------------------------- the provider


class LongProvider(InstantProvider):
    """Takes every job and is polled for it."""

    name = "long"

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """Taken; the first look as the providers say that are polled most often."""
        return Accepted(str(job.attempt_id), {"of": "bench"}, poll_after_s=1.0)

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """By the id."""
        return Request("GET", ticket.upstream_id)

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """The picture, once there is one."""
        return Finished([Output(data=answer.body)]) if answer.body else Running()


class LongTransport(InstantTransport):
    """Answers from memory; polls with nothing, until `over`."""

    def __init__(self) -> None:
        super().__init__()
        self.over = False
        self.polls = 0
        self._nothing = Answer(200, {}, b"")

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        """See `Transport.send`."""
        if request.method == "POST":
            return self._nothing
        self.polls += 1
        return (
            await super().send(request, timeout_s=timeout_s, body_max=body_max)
            if self.over
            else self._nothing
        )


# ------------------------------------------------------------------------------------------- the measurement


async def inflight(*, quick: bool) -> str:
    """Measure and return the table in Markdown.

    Raises:
        RuntimeError: a bound was broken, or a phase did not end in time.
    """
    generations, rest_s = (2_000, 8.0) if quick else (20_000, 90.0)
    async with site() as place:
        _say(f"admitting {generations} generations")
        await admit(place, generations)
        watch = _Watch(place)
        phases = []
        with _WorkerProcess(place, generations, "first") as worker:
            _say("claiming and submitting")
            phases.append(
                await watch.phase("claim and submit", worker, generations, watch.carried(generations))
            )
            _say(f"at rest for {rest_s:g} s")
            phases.append(await watch.phase("in flight", worker, generations, _after(rest_s)))
        with _WorkerProcess(place, generations, "second") as worker:
            _say("handed over to another worker")
            phases.append(await watch.phase("taken over", worker, generations, watch.carried(generations)))
            _say("all end at once")
            os.kill(worker.pid, signal.SIGUSR1)
            phases.append(await watch.phase("settle", worker, generations, watch.settled(generations)))
        await _check(place.db, generations, phases)
    return markdown(phases)


class _Watch:
    """Samples a worker process until a phase is over."""

    def __init__(self, place: Site) -> None:
        self._place = place
        postmaster = EmbeddedPostgres(place.folder).postmaster_pid()
        assert postmaster is not None
        self._postgres = PostgresUsage(postmaster, place.db)

    async def phase(self, name: str, worker: "_WorkerProcess", generations: int, over: _Over) -> Phase:
        """Sample until `over` gives a true value.

        Raises:
            RuntimeError: it did not within five minutes.
        """
        started, cpu, postgres = monotonic(), cpu_s(worker.pid), self._postgres.total_s()
        before = worker.told()
        lag, lease = 0.0, float("inf")
        while True:
            await asyncio.sleep(_SAMPLE_S)
            told = worker.told()
            lag = max(lag, told.lag_s)
            lease = min(lease, await self._lease_s())
            if await over(told):
                break
            if monotonic() - started > _PHASE_MAX_S:
                raise RuntimeError(f"{name!r} was not over within {_PHASE_MAX_S:g} s: {told}")
        return Phase(
            name=name,
            generations=generations,
            seconds=monotonic() - started,
            worker_cpu_s=cpu_s(worker.pid) - cpu,
            postgres_cpu_s=self._postgres.total_s() - postgres,
            polls=told.polls - before.polls,
            lag_s=lag,
            lease_s=lease,
            memory=memory(worker.pid),
        )

    def carried(self, generations: int) -> _Over:
        """Over when so many are in flight with a provider, and the worker carries them."""

        async def over(told: _Told) -> bool:
            count: int = await self._place.db.fetchval(
                "SELECT count(*) FROM generations WHERE status = 'processing' AND worker_id IS NOT NULL"
            )
            return told.running >= generations and count >= generations

        return over

    def settled(self, generations: int) -> _Over:
        """Over when so many have succeeded."""

        async def over(_: _Told) -> bool:
            count: int = await self._place.db.fetchval(
                "SELECT count(*) FROM generations WHERE status = 'succeeded'"
            )
            return count >= generations

        return over

    async def _lease_s(self) -> float:
        left: float | None = await self._place.db.fetchval(
            "SELECT extract(epoch FROM min(lease_until) - clock_timestamp())::float8 FROM workers"
        )
        return float("inf") if left is None else left


def _after(seconds: float) -> _Over:
    until = monotonic() + seconds

    async def over(_: _Told) -> bool:
        return monotonic() >= until

    return over


async def _check(db: Database, generations: int, phases: list[Phase]) -> None:
    """Raises: RuntimeError."""
    wrong = await db.fetchval(
        """SELECT count(*) FROM generations g WHERE status <> 'succeeded' OR fence <> 2
           OR (SELECT count(*) FROM attempts a WHERE a.generation_id = g.id) <> 1"""
    )
    differences = await verify(db)
    peak = max(phase.memory.peak for phase in phases)
    lease = min(phase.lease_s for phase in phases)
    faults = [
        (wrong, f"{wrong} of {generations} generations did not succeed with one attempt and two claims"),
        (differences, f"ledger differences: {list(differences)[:3]}"),
        (peak > MEMORY_MAX, f"{peak / 2**20:,.0f} MiB at the most"),
        (lease <= 0, f"a lease was {-lease:.1f} s over"),
    ]
    if said := [text for broken, text in faults if broken]:
        raise RuntimeError(f"{'; '.join(said)}\n\n{markdown(phases)}")


def markdown(phases: list[Phase]) -> str:
    """The table."""
    lines = [
        "| phase | s | per second | worker CPU | PostgreSQL CPU | polls/s | loop late at most | least lease left "
        "| RSS | PSS | peak |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for phase in phases:
        used = phase.memory
        mib = " | ".join(f"{size / 2**20:,.0f} MiB" for size in (used.rss, used.pss, used.peak))
        rate = "" if phase.name == "in flight" else f"{phase.generations / phase.seconds:,.0f}"
        lines.append(
            f"| {phase.name}: {phase.generations:,} | {phase.seconds:.1f} | {rate} "
            f"| {phase.worker_cpu_s / phase.seconds:.0%} | {phase.postgres_cpu_s / phase.seconds:.0%} "
            f"| {phase.polls / phase.seconds:,.0f} | {phase.lag_s * 1000:,.0f} ms | {phase.lease_s:.1f} s | {mib} |"
        )
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


# ------------------------------------------------------------------------------------------- the process


class _WorkerProcess(Process):
    """A worker that tells of itself in a file."""

    def __init__(self, place: Site, generations: int, name: str) -> None:
        self._notes = place.folder / f"{name}.json"
        super().__init__(
            ["-m", "bench.inflight", str(place.folder), str(self._notes), str(generations)],
            place.folder / f"{name}.log",
        )

    def told(self) -> _Told:
        """What it said last."""
        return msgspec.json.decode(self._notes.read_bytes(), type=_Told)


async def _tell(notes: Path, workers: Workers, transport: LongTransport) -> None:
    """Write down every half second how it goes; a reader sees the whole line or the one before."""
    told, loop = _Told(), asyncio.get_running_loop()
    fresh = notes.with_suffix(".new")
    while True:
        told.running = workers.regions[REGION].worker.running
        told.polls = transport.polls
        fresh.write_bytes(msgspec.json.encode(told))
        fresh.replace(notes)
        told.lag_s = 0.0
        until = loop.time() + _SAMPLE_S / 2
        while (asked_at := loop.time()) < until:
            await asyncio.sleep(_TICK_S)
            told.lag_s = max(told.lag_s, loop.time() - asked_at - _TICK_S)


async def _work(settings: Settings, notes: Path) -> None:
    stop, loop, transport = asyncio.Event(), asyncio.get_running_loop(), LongTransport()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: setattr(transport, "over", True))
    cluster = Cluster(settings)
    await cluster.open()

    def registry(_settings: Settings, catalog: Catalog, _db: Database) -> Registry:
        return everywhere(catalog.providers, Route(LongProvider(), transport))

    try:
        workers = Workers(build_shared(settings), {REGION: cluster.dsn(REGION)}, registry)
        await workers.open()
        settle_memory()
        telling = asyncio.create_task(_tell(notes, workers, transport))
        await asyncio.sleep(0)
        sys.stdout.write("working\n")
        sys.stdout.flush()
        await stop.wait()
        telling.cancel()
        await workers.close()
    finally:
        await cluster.close()


def main() -> None:
    """Run a worker until SIGTERM; arguments: data folder, file for what it tells, generations at once."""
    folder, notes, generations = sys.argv[1:]
    settings = load_settings(
        overrides={
            "data_dir": folder,
            "regions": [REGION],
            "worker_concurrency": int(generations),
            "image_attempt_timeout_s": _ATTEMPT_S,
        }
    )
    configure_logging(format=settings.log_format, level=settings.log_level)
    uvloop.run(_work(settings, Path(notes)))


if __name__ == "__main__":
    main()

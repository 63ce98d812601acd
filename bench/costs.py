"""What one generation costs: processor time by process and step, PostgreSQL by statement, log, disk.

`python -m bench costs` runs the production API and one worker with a provider in memory, one part at a time: admission
over HTTP, reads, the worker on a backlog, the same with a webhook for each end, and polling. Every part is counted
twice. From outside, by what the kernel says that the processes used; from inside, by sampling (`bench.sampling`), which
tells the steps. Both must agree within a few per cent: the table ends with their ratio.

PostgreSQL's time is that of its backends by who connected, and is split among statements by how often each was seen at
work; the rest of the server (WAL writer, checkpointer, autovacuum) is a line of its own. The JSON file that is left
under `bench/results/` is what `python -m bench.capacity` reckons with.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import msgspec
import uvloop

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7
from babysea_server.kit.tasks import end
from babysea_server.ledger.verify import verify
from babysea_server.master_key import load_master_key
from babysea_server.processes.listening import listening_socket
from babysea_server.processes.serve import run_api
from babysea_server.settings import load_settings
from babysea_server.telemetry.logs import configure_logging
from babysea_server.webhooks.secrets import SecretBox, new_secret
from bench.load import Load, run
from bench.report import RESULTS, Machine, machine
from bench.rounds import read_requests
from bench.sampling import Sampler, Step
from bench.servers import REGION, Process, Site, site
from bench.settle import InstantTransport, admit, generate_request, work
from bench.usage import PostgresUsage, cpu_s

_CONNECTIONS = 64
_WITHIN_S = 300.0
_SEE_EVERY_S = 0.02
_MARK_WITHIN_S = 10.0

_API_STEPS = (
    Step("request log and metrics", "telemetry/"),
    Step("firewall", "contract/firewall.py"),
    Step("authenticate", "babysea_server/keys/"),
    Step("rate limits", "babysea_server/limits/"),
    Step("validate and price", "babysea_server/catalog/"),
    Step("validate and price", "generations/service.py"),
    Step("database call", "asyncpg/"),
    Step("database call", "babysea_server/db/"),
    Step("database call", "babysea_server/kit/batching.py"),
    Step("database call", "generations/admission.py"),
    Step("database call", "store.py"),
    Step("read and links", "generations/reading.py"),
    Step("read and links", "outputs/links.py"),
    Step("read and links", "generations/wire.py"),
    Step("gateway and envelope", "babysea_server/contract/"),
    Step("gateway and envelope", "babysea_server/app/"),
    Step("HTTP", "uvicorn/"),
    Step("HTTP", "processes/"),
    Step("HTTP", "asyncio/"),
)
_WORKER_STEPS = (
    Step("webhook: claim, sign, send, record", "babysea_server/webhooks/"),
    Step("webhook: claim, sign, send, record", "aiohttp/"),
    Step("examine", "outputs/ingest.py", "_examine"),
    Step("bring to disk", "outputs/disk.py"),
    Step("store", "outputs/"),
    Step("claim", "execution/worker.py", "_claim"),
    Step("claim", "execution/store.py", "claim"),
    Step("open attempt", "execution/store.py", "open_attempts"),
    Step("accept", "execution/store.py", "accept_attempts"),
    Step("settle", "execution/store.py", "settle"),
    Step("choose a provider", "routing/"),
    Step("choose a provider", "execution/run.py", "_choose"),
    Step("open attempt", "execution/run.py", "_open"),
    Step("submit", "execution/run.py", "_submit"),
    Step("submit", "providers/"),
    Step("poll", "execution/run.py", "_wait"),
    Step("settle", "execution/run.py", "_succeed"),
    Step("collect", "execution/collect.py"),
    Step("metrics", "telemetry/"),
    Step("run, task", "execution/"),
    Step("database call", "asyncpg/"),
    Step("database call", "babysea_server/db/"),
    Step("database call", "babysea_server/kit/batching.py"),
    Step("periodic jobs", "babysea_server/"),
)
#: By a part of the statement's text that no other has.
_STATEMENTS = {
    "admit_generations_v1": "admit",
    "WITH due AS": "claim",
    "INSERT INTO attempts": "open attempt",
    "upstream_id = u.upstream_id": "accept",
    "settle_generations_v1": "settle",
    "claim_webhooks_v1": "webhooks: claim",
    "record_webhooks_v1": "webhooks: record",
    "log_requests_v1": "request log",
    "UPDATE api_keys": "key's last use",
}
#: How the backends of a process begin to call themselves, and those of this measurement itself.
_CLIENTS = {"api": ("babysea-api", "babysea-admission"), "worker": ("babysea-worker",)}
_OWN = ("babysea-bench", "bench-admission")
_SEEN = """
SELECT application_name, query FROM pg_stat_activity
WHERE state = 'active' AND backend_type = 'client backend' AND wait_event IS NULL AND pid <> pg_backend_pid()"""
_COUNTERS = """
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 AS wal_bytes, wal_fpi::float8 AS page_images,
       (SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal')::float8 AS wal_syncs,
       (SELECT sum(xact_commit) FROM pg_stat_database)::float8 AS commits
FROM pg_stat_wal"""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of processor time of one step, for each thing done."""

    process: str
    step: str
    ms: float


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the measurement. All times in milliseconds of processor time for each of `count` things done.

    `process_ms` is the kernel's account of the process, `sampled_ms` the sum of the sampled steps. `main_ms` is what
    of it only one thread can do, which bounds one process. `server_ms` is what PostgreSQL used beside the backends of
    the process. `wal_bytes`, `wal_syncs` and `commits` are PostgreSQL's for each thing done.
    """

    name: str
    count: int
    seconds: float
    process_ms: float
    sampled_ms: float
    main_ms: float
    backend_ms: float
    server_ms: float
    wal_bytes: float
    wal_syncs: float
    commits: float
    lines: list[Line]


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of one run. `row_bytes` is what the tables grew by for each generation, after VACUUM."""

    machine: Machine
    parts: list[Part]
    row_bytes: float

    def part(self, name: str) -> Part:
        """The part of that name."""
        return next(part for part in self.parts if part.name == name)


class _Said(msgspec.Struct, frozen=True):
    """What a sampled process says when it is asked: how often it was, and its steps' seconds so far."""

    marks: int
    steps: dict[str, float]
    main_s: float


class _Reading(NamedTuple):
    """Everything that is counted, at one moment."""

    at: float
    process_s: float
    said: _Said
    backends: Mapping[str, float]
    postgres_s: float
    counters: Mapping[str, float]


async def costs(*, quick: bool) -> str:
    """Measure, keep the run, and return the tables in Markdown.

    Raises:
        RuntimeError: something did not succeed, or the ledger has a difference.
    """
    seconds, backlog = (2.0, 2_000) if quick else (10.0, 20_000)
    async with site() as place:
        here = await machine(place.db)
        meter = _Meter(place)
        parts = []
        await _drain(place, meter, 300)
        before_bytes, before_count = await _size(place.db)
        with _Sampled(place, "api") as api:
            for name, requests in (
                ("admission", [generate_request(place.api_key)]),
                ("read", await read_requests(place)),
            ):
                _say(f"{name}: {seconds:g} s of {_CONNECTIONS} connections")
                parts.append(await _requests(meter, api, name, requests, seconds))
        _say("the worker on what was admitted")
        parts.append(await _drain(place, meter, 0))
        _say(f"{backlog} generations with a webhook each")
        async with _hooked(place):
            parts.append(await _drain(place, meter, backlog, name="generation with webhook"))
        after_bytes, after_count = await _size(place.db)
        if differences := await verify(place.db):
            raise RuntimeError(f"ledger differences: {list(differences)[:3]}")
    found = Costs(
        machine=here, parts=parts, row_bytes=(after_bytes - before_bytes) / max(1, after_count - before_count)
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"costs-{here.measured_at.replace(':', '')[:17]}Z.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    return f"{markdown(found)}\n\nFor bench.capacity: {path}"


async def _requests(
    meter: "_Meter", api: "_Sampled", name: str, requests: list[bytes], seconds: float
) -> Part:
    load = Load(
        host="127.0.0.1", port=int(api.ready_line), requests=requests, connections=_CONNECTIONS, seconds=1.0
    )
    await asyncio.to_thread(run, load)  # warms up
    begun = await meter.read(api)
    async with meter.seeing():
        measured = await asyncio.to_thread(run, msgspec.structs.replace(load, seconds=seconds))
    if measured.refused or measured.broken:
        raise RuntimeError(f"{measured.refused + measured.broken} requests were refused or lost")
    return meter.part(name, "api", measured.requests, begun, await meter.read(api))


async def _drain(place: Site, meter: "_Meter", more: int, *, name: str = "generation") -> Part:
    """Admit `more`, let one worker settle everything and deliver what is to be told."""
    if more:
        await admit(place, more)
    waiting = "SELECT count(*) FROM generations WHERE completed_at IS NULL"
    telling = "SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'"
    with _Sampled(place, "worker") as worker:
        begun, count = await meter.read(worker), await place.db.fetchval(waiting)
        give_up_at = monotonic() + _WITHIN_S
        async with meter.seeing():
            while await place.db.fetchval(waiting) or await place.db.fetchval(telling):
                if monotonic() > give_up_at:
                    raise RuntimeError(f"not settled within {_WITHIN_S:g} s")
                await asyncio.sleep(0.1)
        part = meter.part(name, "worker", count, begun, await meter.read(worker))
    wrong = await place.db.fetchval("SELECT count(*) FROM generations WHERE status IN ('failed', 'canceled')")
    if wrong:
        raise RuntimeError(f"{wrong} generations did not succeed")
    return part


class _Meter:
    """Reads all counters, and watches which statements are at work."""

    def __init__(self, place: Site) -> None:
        self._place = place
        postmaster = EmbeddedPostgres(place.folder).postmaster_pid()
        assert postmaster is not None
        self._postgres = PostgresUsage(postmaster, place.db)
        self._seen: Counter[tuple[str, str]] = Counter()

    async def read(self, process: "_Sampled") -> _Reading:
        """All counters now."""
        said = await process.mark()
        row = await self._place.db.fetchrow(_COUNTERS)
        return _Reading(
            monotonic(),
            cpu_s(process.pid),
            said,
            dict(await self._postgres.by_name()),
            self._postgres.total_s(),
            dict(row),
        )

    @asynccontextmanager
    async def seeing(self) -> AsyncIterator[None]:
        """Note the statements at work meanwhile."""
        self._seen.clear()
        seeing = asyncio.create_task(self._see())
        try:
            yield
        finally:
            await end([seeing])

    async def _see(self) -> None:
        while True:
            for name, query in await self._place.db.fetch(_SEEN):
                known = next((what for marker, what in _STATEMENTS.items() if marker in query), "other")
                self._seen[name, known] += 1
            await asyncio.sleep(_SEE_EVERY_S)

    def part(self, name: str, process: str, count: int, begun: _Reading, ended: _Reading) -> Part:
        """What happened between two readings, for each of `count` things done."""
        if not count:
            raise RuntimeError(f"{name}: nothing was measured")

        def each_ms(seconds: float) -> float:
            return seconds / count * 1000

        steps = {step: s - begun.said.steps.get(step, 0.0) for step, s in ended.said.steps.items()}

        def used(*clients: str) -> float:
            """By the backends of everybody whose name begins so."""
            return sum(
                s - begun.backends.get(who, 0.0)
                for who, s in ended.backends.items()
                if who.startswith(clients)
            )

        backend_s = used(*_CLIENTS[process])
        seen: Counter[str] = Counter()
        for (client, what), number in self._seen.items():
            if client.startswith(_CLIENTS[process]):
                seen[what] += number
        shares = {what: backend_s * number / sum(seen.values()) for what, number in seen.items()}
        counted = {key: (ended.counters[key] - begun.counters[key]) / count for key in ended.counters}
        return Part(
            name=name,
            count=count,
            seconds=ended.at - begun.at,
            process_ms=each_ms(ended.process_s - begun.process_s),
            sampled_ms=each_ms(sum(steps.values())),
            main_ms=each_ms(ended.said.main_s - begun.said.main_s),
            backend_ms=each_ms(backend_s),
            server_ms=each_ms(max(0.0, ended.postgres_s - begun.postgres_s - backend_s - used(*_OWN))),
            wal_bytes=counted["wal_bytes"],
            wal_syncs=counted["wal_syncs"],
            commits=counted["commits"],
            lines=[
                *_lines(process, {step: each_ms(s) for step, s in steps.items()}),
                *_lines("postgres", {what: each_ms(s) for what, s in shares.items()}),
            ],
        )


def _lines(process: str, steps: Mapping[str, float]) -> list[Line]:
    ordered = sorted(steps.items(), key=lambda each: -each[1])
    return [Line(process=process, step=step, ms=ms) for step, ms in ordered if ms > 0]


async def _size(db: Database) -> tuple[int, int]:
    """Bytes of all tables with their indexes after VACUUM, and how many generations there are."""
    await db.execute("VACUUM (ANALYZE)")
    size = await db.fetchval("SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_stat_user_tables")
    return size, await db.fetchval("SELECT count(*) FROM generations")


@asynccontextmanager
async def _hooked(place: Site) -> AsyncIterator[None]:
    """A receiver at this machine that answers at once, told of every generation's completion."""
    with Process(["-m", "bench.webhooks", "receive"], place.folder / "receiver.log") as receiver:
        await place.db.execute(
            "INSERT INTO webhook_endpoints (id, account_id, url, events, secret) VALUES ($1, $2, $3, $4, $5)",
            uuid7(),
            place.account_id,
            f"http://127.0.0.1:{int(receiver.ready_line)}/fast",
            ["generation.completed"],
            SecretBox(load_master_key(place.settings)).seal(new_secret()),
        )
        yield
        await place.db.execute("DELETE FROM webhook_endpoints WHERE account_id = $1", place.account_id)


def markdown(found: Costs) -> str:
    """The tables."""
    here = found.machine
    lines = [
        f"{here.cpu}, {here.cores} cores; load average before: {here.load_average}. Python {here.python}, "
        f"PostgreSQL {here.postgres}. Commit {here.commit}. Milliseconds of processor time for each thing done.",
        "",
        "| part | done | per second | process | of it one thread | its backends | rest of the server "
        "| WAL bytes | WAL syncs | sampled / counted |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {part.name} | {part.count:,} | {part.count / part.seconds:,.0f} | {part.process_ms:.3f} "
        f"| {part.main_ms:.3f} | {part.backend_ms:.3f} | {part.server_ms:.3f} | {part.wal_bytes:,.0f} "
        f"| {part.wal_syncs:.3f} | {part.sampled_ms / part.process_ms:.2f} |"
        for part in found.parts
    ]
    lines += ["", "| part | process | step | ms | share |", "|---|---|---|---:|---:|"]
    for part in found.parts:
        for line in part.lines:
            whole = part.backend_ms if line.process == "postgres" else part.sampled_ms
            lines.append(
                f"| {part.name} | {line.process} | {line.step} | {line.ms:.4f} | {line.ms / whole:.0%} |"
            )
    lines += ["", f"Rows with their indexes: {found.row_bytes:,.0f} bytes for each generation, after VACUUM."]
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


# ------------------------------------------------------------------------------------------- the processes


class _Sampled(Process):
    """One process of the site with a sampler in it, which can be asked what it has counted."""

    def __init__(self, place: Site, what: str) -> None:
        self._notes = place.folder / f"costs-{uuid7().hex}.json"
        self._marks = 0
        super().__init__(
            ["-m", "bench.costs", what, str(place.folder), str(self._notes)], place.folder / f"{what}.log"
        )

    async def mark(self) -> _Said:
        """What it has counted so far.

        Raises:
            RuntimeError: it does not answer.
        """
        self._marks += 1
        os.kill(self.pid, signal.SIGUSR1)
        give_up_at = monotonic() + _MARK_WITHIN_S
        while monotonic() < give_up_at:
            with suppress(FileNotFoundError):
                said = msgspec.json.decode(self._notes.read_bytes(), type=_Said)
                if said.marks == self._marks:
                    return said
            await asyncio.sleep(0.01)
        raise RuntimeError("the process does not tell what it has counted")


async def _sampled(sampler: Sampler, notes: Path, serving: Awaitable[None]) -> None:
    """Serve with the sampler on; at SIGUSR1 tell what it has counted."""
    marks = 0

    def mark() -> None:
        nonlocal marks
        marks += 1
        steps = dict(sampler.seconds())
        fresh = notes.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(_Said(marks, steps, sampler.main_s)))
        fresh.replace(notes)

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, mark)
    sampler.start()
    try:
        await serving
    finally:
        sampler.stop()


def main() -> None:
    """Run one process until SIGTERM; arguments: api or worker, data folder, file for what was counted."""
    what, folder, notes = sys.argv[1:]
    settings = load_settings(
        overrides={"data_dir": folder, "regions": [REGION], "webhooks_allow_private": True}
    )
    configure_logging(format=settings.log_format, level=settings.log_level)
    if what == "api":
        listener = listening_socket("127.0.0.1", 0)
        port = listener.getsockname()[1]

        def ready() -> None:
            sys.stdout.write(f"{port}\n")
            sys.stdout.flush()

        serving = run_api(msgspec.structs.replace(settings, port=port), listener, on_ready=ready)
        uvloop.run(_sampled(Sampler(_API_STEPS, other="HTTP and the loop"), Path(notes), serving))
    else:
        working = work(settings, InstantTransport(noting=False))
        uvloop.run(_sampled(Sampler(_WORKER_STEPS, other="loop"), Path(notes), working))


if __name__ == "__main__":
    main()

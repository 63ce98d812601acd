"""A million generations through one API and one worker: does memory grow, do tables bloat, does latency creep?

`python -m bench soak` sends 1,000,000 generations (`--quick` 20,000; `python -m bench.soak --generations N`) to the
production API in a closed loop that keeps the number of unsettled ones bounded, while one worker with a provider in
memory runs them and stores a real file for each. So that the disk stays small and there is a steady state, records
beyond a tenth of the run are removed as retention removes them, oldest first; their files go by the worker's own
deletion job. The ledger and the request log stay, as they do in production for much longer than this.

Every tenth of the run is held against the second; the first warms up. The exit code is 1 when the memory of a process
grew by more than 5 %, when a table takes more than 1.5 times the space for each of its rows, when the median latency of
the last tenth is more than 1.5 times that of the second, when a request was refused, a generation failed, or the ledger
has a difference. Samples and a plot stay under `bench/results/`.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from uuid import UUID

import msgspec
import uvloop

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.pool import Database
from babysea_server.generations.store import remove_old_records
from babysea_server.ledger.verify import verify
from bench.capacity.arrivals import Connection, Tally
from bench.command import tell
from bench.load import percentile
from bench.plot import Panel, panels_svg
from bench.report import RESULTS
from bench.servers import Process, Site, api_process, site
from bench.settle import generate_request, worker
from bench.usage import Memory, PostgresUsage, cpu_s, memory

MEMORY_GROWTH = 0.05
BLOAT = 1.5
LATENCY_GROWTH = 1.5
_CLIENTS = 32
_UNSETTLED_MAX = 1_000
_SAMPLES = 200
_STEER_S = 0.1
_REMOVE_STEP = 200
_STEPS_MAX = 20
_FREE_MIN_BYTES, _FREE_MIN_FILES = 12 * 2**30, 300_000
_STALLED_S = 180.0
#: Tables with less are not held against anything: a few pages are no bloat.
_ROWS_MIN, _BYTES_MIN = 2_000, 4 * 2**20

_TABLES = """
SELECT relname AS name, n_live_tup AS rows, n_dead_tup AS dead, pg_relation_size(relid) AS heap,
       pg_indexes_size(relid) AS indexes
FROM pg_stat_user_tables WHERE n_live_tup > 0"""
_ENDS = """
SELECT extract(epoch FROM completed_at - created_at)::float8 AS took FROM generations
WHERE id > $1 AND id <= $2 AND completed_at IS NOT NULL"""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """One table; sizes in bytes."""

    name: str
    rows: int
    dead: int
    heap: int
    indexes: int


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One look at everything; `at` in seconds since the start, latencies in milliseconds since the look before."""

    at: float
    sent: int
    settled: int
    refused: int
    admission_p50_ms: float
    admission_p99_ms: float
    end_to_end_p50_ms: float
    end_to_end_p99_ms: float
    api: Memory
    worker: Memory
    api_cpu_s: float
    worker_cpu_s: float
    postgres_cpu_s: float
    wal_bytes: int
    tables: list[Table]


class _Told(msgspec.Struct, kw_only=True):
    """What the clients have seen so far, and the latencies of the seconds since they began, each with its number."""

    sent: int = 0
    refused: int = 0
    p50_ms: list[float] = []
    p99_ms: list[float] = []


async def soak(*, quick: bool, generations: int | None = None) -> str:
    """Run, keep samples and plot, and return the table in Markdown.

    Raises:
        RuntimeError: a bound was broken, something stalled, or there is not enough room on the disk.
    """
    count = generations or (20_000 if quick else 1_000_000)
    async with site() as place:
        _enough_room(place.folder)
        with (
            api_process(place) as api,
            worker(place, None) as working,
            _Clients(place, int(api.ready_line.rpartition(":")[2]), count) as clients,
        ):
            samples = await _Soak(place, api, working, clients, count).run()
        wrong = await place.db.fetchval("SELECT count(*) FROM generations WHERE status <> 'succeeded'")
        differences = await verify(place.db)
    stamp = f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}"
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"soak-{stamp}.json"
    path.write_bytes(msgspec.json.encode(samples) + b"\n")
    plot = path.with_suffix(".svg")
    plot.write_text(panels_svg(_panels(samples)), encoding="utf-8")
    table = f"{markdown(samples)}\n\nSamples: {path}\nPlot: {plot}"
    breaches = judge(samples)
    if wrong:
        breaches.append(f"{wrong} generations did not succeed")
    if differences:
        breaches.append(f"ledger differences: {list(differences)[:3]}")
    if breaches:
        raise RuntimeError(f"{'; '.join(breaches)}\n\n{table}")
    return table


def tenth(samples: Sequence[Sample], number: int) -> list[Sample]:
    """The samples of one tenth of the run, by generations sent; the first is number 1."""
    last = samples[-1].sent
    return [sample for sample in samples if last * (number - 1) / 10 < sample.sent <= last * number / 10]


def judge(samples: Sequence[Sample]) -> list[str]:
    """What went beyond its bound, in words for people; empty where all is well."""
    early, late = tenth(samples, 2), tenth(samples, 10)
    if not early or not late:
        return ["too few samples to judge by"]
    breaches = []
    for name, growth in (("API", _growth(early, late, "api")), ("worker", _growth(early, late, "worker"))):
        if growth > MEMORY_GROWTH:
            breaches.append(f"the memory of the {name} grew by {growth:.1%}")
    for name, ratio in bloat(early[-1], late[-1]).items():
        if ratio > BLOAT:
            breaches.append(f"{name} takes {ratio:.2f} times the space for each row")
    for name in ("admission_p50_ms", "end_to_end_p50_ms"):
        before, now = _median(early, name), _median(late, name)
        if before > 0 and now / before > LATENCY_GROWTH:
            breaches.append(f"{name} is {now / before:.2f} times what it was")
    if refused := samples[-1].refused:
        breaches.append(f"{refused} requests were refused")
    return breaches


def bloat(early: Sample, late: Sample) -> dict[str, float]:
    """For each table that is large enough, its bytes for each row now as a multiple of those before."""
    before = {table.name: table for table in early.tables}
    found = {}
    for table in late.tables:
        old = before.get(table.name)
        if old is not None and min(old.rows, table.rows) >= _ROWS_MIN and table.heap >= _BYTES_MIN:
            size = (table.heap + table.indexes) / table.rows
            found[table.name] = size / ((old.heap + old.indexes) / old.rows)
    return found


def _growth(early: Sequence[Sample], late: Sequence[Sample], process: str) -> float:
    def pss(samples: Sequence[Sample]) -> float:
        return float(median(getattr(sample, process).pss for sample in samples))

    return pss(late) / pss(early) - 1


def _median(samples: Sequence[Sample], name: str) -> float:
    """Of the looks that saw any; 0 where none did."""
    seen = [value for sample in samples if (value := getattr(sample, name)) > 0]
    return float(median(seen)) if seen else 0.0


class _Soak:
    """Steers the clients, removes what is old, and looks."""

    def __init__(self, place: Site, api: Process, working: Process, clients: "_Clients", count: int) -> None:
        self._db: Database = place.db
        self._api, self._worker, self._clients = api, working, clients
        self._count, self._keep = count, max(2_000, count // 10)
        self._removed = 0
        postmaster = EmbeddedPostgres(place.folder).postmaster_pid()
        assert postmaster is not None
        self._postgres = PostgresUsage(postmaster, place.db)
        self._ids: tuple[UUID, UUID] = (UUID(int=0), UUID(int=0))
        self._seconds_seen = 0

    async def run(self) -> list[Sample]:
        """Until everything is settled.

        Raises:
            RuntimeError: nothing was settled for three minutes.
        """
        samples: list[Sample] = []
        started = moved_at = monotonic()
        settled = 0
        while settled < self._count:
            await asyncio.sleep(_STEER_S)
            now, before = monotonic(), settled
            there, open_ = await self._db.fetchrow(
                "SELECT count(*), count(*) FILTER (WHERE completed_at IS NULL) FROM generations"
            )
            settled = self._removed + there - open_
            self._clients.steer(paused=open_ >= _UNSETTLED_MAX)
            moved_at = now if settled > before else moved_at
            if now - moved_at > _STALLED_S:
                raise RuntimeError(f"nothing was settled for {_STALLED_S:g} s, at {settled} of {self._count}")
            await self._remove(there - open_ - self._keep)
            told = self._clients.told()
            if told.sent >= self._count * (len(samples) + 1) / _SAMPLES or settled >= self._count:
                samples.append(await self._sample(now - started, told, settled))
                if len(samples) % 20 == 0:
                    _say(f"{settled:,} of {self._count:,} settled")
        return samples

    async def _remove(self, excess: int) -> None:
        # An account that is busy at the moment is passed by, so a step may remove nothing.
        for _ in range(_STEPS_MAX):
            if excess < _REMOVE_STEP:
                return
            _, removed = await remove_old_records(
                self._db, "unlimited", UUID(int=0), 0, accounts=1, limit=_REMOVE_STEP
            )
            self._removed += removed
            excess -= removed

    async def _sample(self, at: float, told: _Told, settled: int) -> Sample:
        newest: UUID | None = await self._db.fetchval("SELECT id FROM generations ORDER BY id DESC LIMIT 1")
        # Those of the look before last: by now all of them have ended.
        rows = await self._db.fetch(_ENDS, *self._ids)
        self._ids = (self._ids[1], newest or self._ids[1])
        took = sorted(row["took"] * 1000 for row in rows)
        p50s, p99s = told.p50_ms[self._seconds_seen :], told.p99_ms[self._seconds_seen :]
        self._seconds_seen = len(told.p50_ms)
        wal: int = await self._db.fetchval(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
        )
        return Sample(
            at=at,
            sent=told.sent,
            settled=settled,
            refused=told.refused,
            admission_p50_ms=median(p50s or told.p50_ms[-1:] or [0.0]),
            admission_p99_ms=median(p99s or told.p99_ms[-1:] or [0.0]),
            end_to_end_p50_ms=percentile(took, 50),
            end_to_end_p99_ms=percentile(took, 99),
            api=memory(self._api.pid),
            worker=memory(self._worker.pid),
            api_cpu_s=cpu_s(self._api.pid),
            worker_cpu_s=cpu_s(self._worker.pid),
            postgres_cpu_s=self._postgres.total_s(),
            wal_bytes=wal,
            tables=[Table(**row) for row in await self._db.fetch(_TABLES)],
        )


def _enough_room(folder: Path) -> None:
    """Raises: RuntimeError."""
    free, names = shutil.disk_usage(folder).free, os.statvfs(folder).f_favail
    if free < _FREE_MIN_BYTES or names < _FREE_MIN_FILES:
        raise RuntimeError(
            f"{folder} has {free / 2**30:.1f} GiB and {names:,} files free; that is not enough"
        )


def markdown(samples: Sequence[Sample]) -> str:
    """The second and the last tenth beside each other."""
    early, late = tenth(samples, 2), tenth(samples, 10)
    if not early or not late:
        return "too few samples"
    last = samples[-1]
    lines = [
        f"{last.settled:,} generations in {last.at:,.0f} s, {last.settled / last.at:,.0f} a second. Processor time of "
        f"each: API {last.api_cpu_s / last.sent * 1000:.2f} ms, worker {last.worker_cpu_s / last.sent * 1000:.2f} ms, "
        f"PostgreSQL {last.postgres_cpu_s / last.sent * 1000:.2f} ms. WAL {last.wal_bytes / 2**30:.1f} GiB.",
        "",
        "| figure | second tenth | last tenth | change |",
        "|---|---:|---:|---:|",
    ]
    for name in ("api", "worker"):
        before, now = (median(getattr(sample, name).pss for sample in part) / 2**20 for part in (early, late))
        lines.append(f"| {name}: memory (PSS) | {before:.1f} MiB | {now:.1f} MiB | {now / before - 1:+.1%} |")
    for field, name in (
        ("admission_p50_ms", "admission, p50"),
        ("admission_p99_ms", "admission, p99"),
        ("end_to_end_p50_ms", "admitted to settled, p50"),
        ("end_to_end_p99_ms", "admitted to settled, p99"),
    ):
        before, now = _median(early, field), _median(late, field)
        lines.append(f"| {name} | {before:.1f} ms | {now:.1f} ms | {now / max(before, 1e-9) - 1:+.0%} |")
    for name, ratio in sorted(bloat(early[-1], late[-1]).items()):
        old, new = (next(t for t in sample.tables if t.name == name) for sample in (early[-1], late[-1]))
        lines.append(
            f"| {name}: bytes for each row (rows; dead) | {(old.heap + old.indexes) / old.rows:,.0f} "
            f"({old.rows:,}; {old.dead:,}) | {(new.heap + new.indexes) / new.rows:,.0f} "
            f"({new.rows:,}; {new.dead:,}) | {ratio - 1:+.0%} |"
        )
    return "\n".join(lines)


def _panels(samples: Sequence[Sample]) -> list[Panel]:
    sent = [float(sample.sent) for sample in samples]

    def line(of: Sequence[float]) -> list[tuple[float, float]]:
        return list(zip(sent, of, strict=True))

    sizes = [sum(t.heap + t.indexes for t in sample.tables) / 2**20 for sample in samples]
    return [
        Panel(
            "memory, MiB (PSS)",
            {
                "API": line([sample.api.pss / 2**20 for sample in samples]),
                "worker": line([sample.worker.pss / 2**20 for sample in samples]),
            },
        ),
        Panel("admission, p50 in ms", {"p50": line([sample.admission_p50_ms for sample in samples])}),
        Panel(
            "admitted to settled, p50 in ms", {"p50": line([sample.end_to_end_p50_ms for sample in samples])}
        ),
        Panel("tables and indexes, MiB", {"all": line(sizes)}),
    ]


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


# ------------------------------------------------------------------------------------------- the clients


class _Clients(Process):
    """The closed loop, in a process of its own."""

    def __init__(self, place: Site, port: int, count: int) -> None:
        self._notes = place.folder / "clients.json"
        request = place.folder / "request"
        request.write_bytes(generate_request(place.api_key))
        self._paused = False
        super().__init__(
            ["-m", "bench.soak", "clients", str(request), str(port), str(count), str(self._notes)],
            place.folder / "clients.log",
        )

    def steer(self, *, paused: bool) -> None:
        """Let them go on, or wait."""
        if paused is not self._paused:
            self._paused = paused
            os.kill(self.pid, signal.SIGUSR1 if paused else signal.SIGUSR2)

    def told(self) -> _Told:
        """What they said last."""
        return msgspec.json.decode(self._notes.read_bytes(), type=_Told)


class _Closed(Tally):
    """Each connection sends its next request when it has the answer to the last, up to a number of requests."""

    def __init__(self, request: bytes, count: int) -> None:
        super().__init__(request)
        self.left = count
        self.paused = False

    def free(self, connection: Connection) -> None:
        """Send the next, unless they wait or all is sent."""
        if self.paused or self.left <= 0:
            self.idle.append(connection)
        else:
            self.left -= 1
            connection.send(perf_counter())

    def go_on(self) -> None:
        """Begin again with every connection that waits."""
        self.paused = False
        for _ in range(len(self.idle)):
            self.free(self.idle.popleft())


async def _drive(request: bytes, port: int, count: int, notes: Path) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    tally, told = _Closed(request, count), _Told()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: setattr(tally, "paused", True))
    loop.add_signal_handler(signal.SIGUSR2, tally.go_on)
    for _ in range(_CLIENTS):
        _, connection = await loop.create_connection(lambda: Connection(tally), "127.0.0.1", port)
        tally.idle.append(connection)
    _note(notes, told)
    sys.stdout.write("sending\n")
    sys.stdout.flush()
    tally.go_on()
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), 1.0)
        except TimeoutError:
            seconds, tally.latencies = sorted(tally.latencies), []
            told.sent, told.refused = told.sent + len(seconds), tally.refused
            if seconds:
                told.p50_ms.append(percentile(seconds, 50) * 1000)
                told.p99_ms.append(percentile(seconds, 99) * 1000)
            _note(notes, told)


def _note(notes: Path, told: _Told) -> None:
    fresh = notes.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(told))
    fresh.replace(notes)


def main() -> int:
    """Run the soak, or its clients."""
    if sys.argv[1:2] == ["clients"]:
        request, port, count, notes = sys.argv[2:]
        uvloop.run(_drive(Path(request).read_bytes(), int(port), int(count), Path(notes)))
        return 0
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--generations", type=int, help="(1,000,000)")
    parser.add_argument("--quick", action="store_true", help="20,000 generations")
    given = parser.parse_args()
    return tell(soak(quick=given.quick, generations=given.generations))


if __name__ == "__main__":
    sys.exit(main())

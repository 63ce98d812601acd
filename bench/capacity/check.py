"""Held against measurement: what the model predicts for this one machine, and what the machine then does.

The costs come from one run (`python -m bench costs`), the measurement here is another: what one API process admits at
most, what one worker settles at most, both together with one PostgreSQL on the same cores, and the latency of admission
while requests arrive at random at 20, 50 and 80 % of what was measured as the most.

The machine may have other work, the load generator's among it: what that took of the cores meanwhile is counted, and
rates are predicted for the rest.
"""

import asyncio
import os
import subprocess
import sys
from math import log
from time import monotonic

import msgspec

from babysea_server.db.embedded import EmbeddedPostgres
from bench.capacity.arrivals import Arrivals
from bench.capacity.queueing import wait_percentile_s, wait_s
from bench.costs import Costs, Part
from bench.load import Load, Measured, run
from bench.servers import Site, api_process, site
from bench.settle import admit, drain, generate_request, until_settled, worker
from bench.usage import PostgresUsage, cpu_s, machine_busy_s

_SHARES = (0.2, 0.5, 0.8)
_CONNECTIONS = 64
_GRACE_S = 60.0


class _Cores:
    """How many cores were left to what is measured."""

    def __init__(self, place: Site, *pids: int) -> None:
        postmaster = EmbeddedPostgres(place.folder).postmaster_pid()
        assert postmaster is not None
        self._postgres, self._pids = PostgresUsage(postmaster, place.db), pids
        self._begun = self._read()

    def left(self) -> float:
        """Since it was made."""
        at, busy, own = (now - then for now, then in zip(self._read(), self._begun, strict=True))
        return (os.cpu_count() or 1) - (busy - own) / at

    def _read(self) -> tuple[float, float, float]:
        return monotonic(), machine_busy_s(), self._postgres.total_s() + sum(map(cpu_s, self._pids))


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One figure, as predicted and as measured."""

    name: str
    predicted: float
    measured: float
    unit: str

    @property
    def error(self) -> float:
        """By how much of the measured value the prediction is off."""
        return self.predicted / self.measured - 1


def most_per_second(parts: list[Part], cores: float) -> float:
    """What one process of each part does at most together on so many cores: one thread bounds it, or all cores do."""
    everything = sum(part.process_ms + part.backend_ms + part.server_ms for part in parts)
    return 1000 / max(everything / cores, *(part.main_ms for part in parts))


async def check(costs: Costs, *, quick: bool) -> str:
    """Measure, and return the table of predictions, measurements and errors.

    Raises:
        RuntimeError, LoadError: something was refused, lost, or not settled.
    """
    seconds, backlog = (2.0, 2_000) if quick else (10.0, 20_000)
    admission, generation = costs.part("admission"), costs.part("generation")
    held: list[Held] = []
    async with site() as place:
        await drain(place, 300)
        settled, left = await _settled(place, backlog)
        held.append(_rate("settled, one worker", most_per_second([generation], left), settled))
        with api_process(place) as api:
            port = int(api.ready_line.rpartition(":")[2])
            alone = await _closed(place, port, 1, seconds)
            cores = _Cores(place, api.pid)
            most = await _closed(place, port, _CONNECTIONS, seconds)
            predicted = most_per_second([admission], cores.left())
            held.append(_rate("admitted, one API process", predicted, most.rate))
            for share in _SHARES:
                held += await _at(place, port, most.rate, share, alone, seconds)
            await _emptied(place)
            both, left = await _together(place, port, api.pid, seconds)
            predicted = most_per_second([admission, generation], left)
            held.append(_rate("admitted and settled at once", predicted, both))
    lines = ["| figure | predicted | measured | error |", "|---|---:|---:|---:|"]
    lines += [
        f"| {each.name} | {each.predicted:,.2f} {each.unit} | {each.measured:,.2f} {each.unit} "
        f"| {each.error:+.0%} |"
        for each in held
    ]
    return "\n".join(lines)


def _rate(name: str, predicted: float, measured: float) -> Held:
    return Held(name=name, predicted=predicted, measured=measured, unit="/s")


async def _settled(place: Site, backlog: int) -> tuple[float, float]:
    """Settled a second by one worker that has enough to do, and the cores left."""
    before: int = await place.db.fetchval("SELECT count(*) FROM generations WHERE completed_at IS NOT NULL")
    await admit(place, backlog)
    with worker(place, None) as working:
        started, cores = monotonic(), _Cores(place, working.pid)
        await until_settled(place.db, before + backlog)
        return backlog / (monotonic() - started), cores.left()


async def _closed(place: Site, port: int, connections: int, seconds: float) -> Measured:
    load = Load(
        host="127.0.0.1",
        port=port,
        requests=[generate_request(place.api_key)],
        connections=connections,
        seconds=seconds,
    )
    measured = await asyncio.to_thread(run, load)
    _sound(measured)
    return measured


async def _at(
    place: Site, port: int, most: float, share: float, alone: Measured, seconds: float
) -> list[Held]:
    """Latencies at a share of the most: predicted as those of an idle server and the wait in front of it (M/M/1)."""
    arrivals = Arrivals(
        host="127.0.0.1",
        port=port,
        request=generate_request(place.api_key),
        rate=share * most,
        seconds=seconds,
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "bench.capacity.arrivals"],
        input=msgspec.json.encode(arrivals),
        capture_output=True,
        timeout=seconds + _GRACE_S,
        check=True,
    )
    measured = msgspec.json.decode(done.stdout, type=Measured)
    _sound(measured)
    rate, service_s = share * most, 1 / most
    # The sojourn of M/M/1 is exponential: its median is ln 2 of its mean. What of it an idle server takes is known.
    median_ms = alone.p50_ms + log(2) * wait_s(rate, service_s) * 1000
    tail_ms = alone.p99_ms + wait_percentile_s(rate, service_s, 99) * 1000
    name = f"admission at {share:.0%}"
    return [
        Held(name=f"{name}, p50", predicted=median_ms, measured=measured.p50_ms, unit="ms"),
        Held(name=f"{name}, p99", predicted=tail_ms, measured=measured.p99_ms, unit="ms"),
    ]


async def _emptied(place: Site) -> None:
    """Settle what was admitted so far."""
    count: int = await place.db.fetchval("SELECT count(*) FROM generations")
    with worker(place, None):
        await until_settled(place.db, count)


async def _together(place: Site, port: int, api: int, seconds: float) -> tuple[float, float]:
    """Admit as fast as it goes while one worker settles; generations a second all the way, and the cores left."""
    before: int = await place.db.fetchval("SELECT count(*) FROM generations WHERE completed_at IS NOT NULL")
    with worker(place, None) as working:
        loop = asyncio.get_running_loop()
        started, cores = loop.time(), _Cores(place, api, working.pid)
        await _closed(place, port, _CONNECTIONS, seconds)
        count: int = await place.db.fetchval("SELECT count(*) FROM generations")
        await until_settled(place.db, count)
        taken, left = loop.time() - started, cores.left()
    return (count - before) / taken, left


def _sound(measured: Measured) -> None:
    if measured.refused or measured.broken:
        raise RuntimeError(f"{measured.refused + measured.broken} requests were refused or lost")

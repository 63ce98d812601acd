"""One run: everything is started, warmed up, and loaded in turns; then the whole way of a generation.

All sides get the same load from the same generator over as many connections, in alternating rounds, so that a slow
minute of the machine falls on all of them; a ratio is taken within its round. Beside rates stands the processor time of
each request, summed over all processes of a side, which neighbours on the machine change less.
"""

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib.metadata import version
from pathlib import Path
from statistics import median

import msgspec

from babysea_server.db.embedded import EmbeddedPostgres
from bench.load import Load, LoadError, Measured, http_request, run
from bench.peers.sides import Side, litellm, portkey
from bench.report import Machine, machine
from bench.servers import REGION, Process, Site, clean_environment, site
from bench.settle import BODY
from bench.usage import children, cpu_s, memory

CONNECTIONS = 64
_MODEL = "bfl/flux-schnell"
_READY_WITHIN_S = 180.0
_SETTLED_WITHIN_S = 300.0
_STOP_S = 10.0
_WARM_UP_S = 3.0
_WARM_UPS = 10


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. `cpu_ms`: of all the side's processes, for each request; `database_cpu_ms` is a part of it."""

    measured: Measured
    cpu_ms: float
    database_cpu_ms: float = 0.0


class Row(msgspec.Struct, kw_only=True):
    """One side over all rounds. `start_s`: from its start to its first answer; memory is resident, in MiB."""

    name: str
    version: str = ""
    start_s: float | None = None
    idle_mib: float = 0.0
    loaded_mib: float = 0.0
    rounds: list[Round] = []

    @property
    def rate(self) -> float:
        """Median answers per second."""
        return median(round.measured.rate for round in self.rounds)

    @property
    def faults(self) -> int:
        """Answers not 2xx and lost connections; anything but 0 makes the figure worthless."""
        return sum(round.measured.refused + round.measured.broken for round in self.rounds)


class WholeWay(msgspec.Struct, frozen=True, kw_only=True):
    """Generations from their admission to their settlement, everything on this machine at once."""

    generations: int
    seconds: float
    cpu_ms: float

    @property
    def rate(self) -> float:
        """Settled generations per second, from the first admission to the last settlement."""
        return self.generations / self.seconds


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run; the first of `rows` is the upstream by itself, the last is ours."""

    machine: Machine
    rounds: int
    seconds: float
    rows: list[Row]
    whole_way: WholeWay


@dataclass(frozen=True, slots=True)
class _Contender:
    row: Row
    port: int
    request: bytes
    pid: int
    database: int | None = None

    def cpu_s(self) -> tuple[float, float]:
        """Processor time so far of its processes, and of its database's."""
        database = 0.0 if self.database is None else _cpu_s(self.database)
        return _cpu_s(self.pid) + database, database


async def measure(folder: Path, *, rounds: int, seconds: float) -> Result:
    """Measure everything, with the peers that are installed in `folder`; blocks.

    Raises:
        LoadError, RuntimeError: something did not start, or was refused.
    """
    async with site() as place:
        here = await machine(place.db)
        rows = _admissions(place, folder, rounds=rounds, seconds=seconds)
    async with site() as place:
        return Result(
            machine=here,
            rounds=rounds,
            seconds=seconds,
            rows=rows,
            whole_way=await _whole_way(place, seconds),
        )


def _admissions(place: Site, folder: Path, *, rounds: int, seconds: float) -> list[Row]:
    with ExitStack() as stack:
        upstream = stack.enter_context(_upstream(place))
        port = int(upstream.ready_line)
        peers = [make(folder, port, _free_port()) for make in (litellm, portkey)]
        bare = _Contender(Row(name="the upstream by itself"), port, peers[1].request, upstream.pid)
        contenders = [
            bare,
            *(stack.enter_context(_started(peer, folder)) for peer in peers),
            stack.enter_context(_ours(place, port)),
        ]
        for contender in contenders:
            contender.row.idle_mib = _memory_mib(contender.pid)
            _warm_up(contender)
        for _ in range(rounds):
            for contender in contenders:
                contender.row.rounds.append(_round(contender, seconds))
        for contender in contenders:
            contender.row.loaded_mib = _memory_mib(contender.pid)
    return [contender.row for contender in contenders]


def _round(contender: _Contender, seconds: float) -> Round:
    before, database_before = contender.cpu_s()
    measured = run(_load(contender, seconds))
    after, database_after = contender.cpu_s()
    return Round(
        measured=measured,
        cpu_ms=(after - before) * 1000 / measured.requests,
        database_cpu_ms=(database_after - database_before) * 1000 / measured.requests,
    )


async def _whole_way(place: Site, seconds: float) -> WholeWay:
    """API and worker together: admit for some seconds, and wait until the last is settled."""
    with ExitStack() as stack:
        upstream = stack.enter_context(_upstream(place))
        ours = stack.enter_context(_ours(place, int(upstream.ready_line)))
        arguments = ["-m", "babysea_server.cli", "worker", *_arguments(place)]
        worker = stack.enter_context(Process(arguments, place.folder / "worker.log"))
        run(_load(ours, 1.0))
        await _all_settled(place)
        warm: int = await place.db.fetchval("SELECT count(*) FROM generations")
        before = ours.cpu_s()[0] + _cpu_s(worker.pid)
        run(_load(ours, seconds))
        await _all_settled(place)
        cpu_s = ours.cpu_s()[0] + _cpu_s(worker.pid) - before
        count, took, failed = await place.db.fetchrow(
            """SELECT count(*), extract(epoch FROM max(completed_at) - min(created_at))::float8,
                      count(*) FILTER (WHERE status <> 'succeeded')
               FROM (SELECT * FROM generations ORDER BY id OFFSET $1) AS measured""",
            warm,
        )
    if failed:
        raise RuntimeError(f"{failed} of {count} generations did not succeed")
    return WholeWay(generations=count, seconds=took, cpu_ms=cpu_s * 1000 / count)


async def _all_settled(place: Site) -> None:
    give_up_at = time.monotonic() + _SETTLED_WITHIN_S
    while await place.db.fetchval("SELECT count(*) FROM generations WHERE completed_at IS NULL"):
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"not everything was settled within {_SETTLED_WITHIN_S:g} s")
        await asyncio.sleep(0.25)


def _upstream(place: Site) -> Process:
    return Process(["-m", "bench.peers.upstream"], place.folder / "upstream.log")


@contextmanager
def _ours(place: Site, upstream: int) -> Iterator[_Contender]:
    """The production command with the upstream as its only provider."""
    config = f'[providers.openai_compatible]\nbase_url = "http://127.0.0.1:{upstream}"\n'
    (place.folder / "peers.toml").write_text(config)
    headers = {"Authorization": f"Bearer {place.api_key}", "Content-Type": "application/json"}
    request = http_request("POST", f"/v1/generate/image/{_MODEL}", headers=headers, body=BODY)
    arguments = ["-m", "babysea_server.cli", "api", *_arguments(place), "--port", "0"]
    began = time.monotonic()
    with Process(arguments, place.folder / "api.log") as process:
        port = int(process.ready_line.rpartition(":")[2])
        _until_answered(port, "/healthz", lambda: False)
        row = Row(name="BabySea API", version=version("babysea-server"), start_s=time.monotonic() - began)
        yield _Contender(row, port, request, process.pid, EmbeddedPostgres(place.folder).postmaster_pid())


def _arguments(place: Site) -> list[str]:
    config = str(place.folder / "peers.toml")
    return ["--data-dir", str(place.folder), "--config", config, "--region", REGION]


@contextmanager
def _started(side: Side, folder: Path) -> Iterator[_Contender]:
    with (folder / f"{side.name.split()[0].lower()}.log").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            side.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**clean_environment(), **side.environment},
            start_new_session=True,
        )
    try:
        _until_answered(side.port, side.alive, lambda: process.poll() is not None)
        row = Row(name=side.name, version=side.version, start_s=time.monotonic() - began)
        yield _Contender(row, side.port, side.request, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_answered(port: int, path: str, ended: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + _READY_WITHIN_S
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            connection.getresponse().read()
            return
        except (OSError, HTTPException) as error:
            if time.monotonic() > give_up_at or ended():
                raise RuntimeError(f"nothing answers on port {port}: {error}") from error
            time.sleep(0.1)
        finally:
            connection.close()


def _warm_up(contender: _Contender) -> None:
    """Load that nobody counts; some import at their first call what they need for it, which takes its time."""
    for attempt in range(_WARM_UPS):
        try:
            run(_load(contender, _WARM_UP_S))
            return
        except LoadError:
            if attempt == _WARM_UPS - 1:
                raise


def _load(contender: _Contender, seconds: float) -> Load:
    return Load(
        host="127.0.0.1",
        port=contender.port,
        requests=[contender.request],
        connections=CONNECTIONS,
        seconds=seconds,
    )


def _tree(pid: int) -> list[int]:
    found = [pid]
    for child in children(pid):
        found += _tree(child)
    return found


def _cpu_s(pid: int) -> float:
    """Of a process and all that it has started."""
    total = 0.0
    for process in _tree(pid):
        with suppress(OSError):  # it has just ended
            total += cpu_s(process)
    return total


def _memory_mib(pid: int) -> float:
    return sum(memory(process).rss for process in _tree(pid)) / 2**20


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port

"""How long each kind of process takes to start, and what it holds when idle: `python -m bench.startup`.

The database runs already and is migrated, as it is wherever processes come and go. A start lasts from the exec until
the process says that it serves, and where it has HTTP until `/readyz` answers 200. Beside the time on the wall stands
the time of the processor, user and system together, which other work on the machine changes less. `up` is started
beside the running database as well; its start holds its two children and the first generation. Above all stands a
bare Starlette application under the same uvicorn. Taken in turns, medians of all turns; memory is of the last one.
Nothing is asserted.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.command import tell
from bench.servers import Process, site

_REGIONS = ("us", "eu", "jp")
_IDLE_S = 5.0
_READY_WITHIN_S = 30.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_BARE = """
import socket, uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def ready(request):
    return PlainTextResponse("ready")

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
app = Starlette(routes=[Route("/readyz", ready)])
uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off")).run(sockets=[listener])
"""


class Memory(NamedTuple):
    """MiB of a process and its children: as each counts it, and with shared pages counted once."""

    resident: float
    proportional: float


@dataclass(slots=True)
class Kind:
    """One way of starting the server, and what was measured of it."""

    name: str
    arguments: Sequence[str]
    has_http: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    idle: Memory | None = None


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                parents.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += parents.get(member, [])
    return found


def _stat(pid: int) -> list[str]:
    """The fields of a process's status from its state on (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_s(pid: int) -> float:
    """Processor seconds of a family so far, the dead children of its members included."""
    return sum(sum(map(int, _stat(member)[11:15])) for member in _family(pid)) / _TICKS_PER_S


def _memory(pid: int) -> Memory:
    sizes = {"Rss": 0, "Pss": 0}
    for member in _family(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, size = line.partition(":")
            if name in sizes:
                sizes[name] += int(size.split()[0])
    return Memory(sizes["Rss"] / 1024, sizes["Pss"] / 1024)


def _await_ready(port: int) -> None:
    deadline = time.perf_counter() + _READY_WITHIN_S
    while time.perf_counter() < deadline:
        connection = HTTPConnection("127.0.0.1", port, timeout=_READY_WITHIN_S)
        try:
            connection.request("GET", "/readyz", headers={"Host": "localhost"})
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.005)
    raise RuntimeError(f"port {port} has not become ready within {_READY_WITHIN_S:g} s")


def _start(kind: Kind, log: Path, *, rest: bool) -> None:
    """Start it once, note what it took, and perhaps look at it when it has been idle."""
    began = time.perf_counter()
    with Process(kind.arguments, log, kind.environment) as process:
        if kind.has_http:
            _await_ready(int(process.ready_line.removesuffix("/console\n").rpartition(":")[2]))
        kind.wall_s.append(time.perf_counter() - began)
        kind.cpu_s.append(_cpu_s(process.pid))
        if rest:
            time.sleep(_IDLE_S)
            kind.idle = _memory(process.pid)


def _kinds(folder: Path, dsn: str) -> list[Kind]:
    found = [Kind("bare Starlette", ["-c", _BARE])]
    for regions in (_REGIONS[:1], _REGIONS):
        options = ["--data-dir", str(folder), *(word for name in regions for word in ("--region", name))]
        where = "1 region" if len(regions) == 1 else f"{len(regions)} regions"
        command = ["-m", "babysea_server.cli"]
        found += [
            Kind(f"api, {where}", [*command, "api", *options, "--port", "0"]),
            Kind(f"console, {where}", [*command, "console", *options, "--port", "0"]),
            Kind(f"worker, {where}", [*command, "worker", *options], has_http=False),
            Kind(f"up, {where}", [*command, "up", *options, "--port", "0"], has_http=False),
        ]
    # As in production: told where the database is, it does not even look for one of its own.
    apart = Kind("api, 1 region, database apart", found[1].arguments, environment={"DATABASE_URL_US": dsn})
    return [*found[:2], apart, *found[2:]]


async def startup(turns: int) -> str:
    """Measure and return the table in Markdown."""
    async with site(_REGIONS) as place:
        kinds = _kinds(place.folder, place.db.dsn)
        for turn in range(turns + 1):
            for kind in kinds:
                await asyncio.to_thread(_start, kind, place.folder / "startup.log", rest=turn == turns)
        rows = [_row(kind) for kind in kinds]
    head = ["| process | wall s | cpu s | idle RSS MiB | idle PSS MiB |", "|---|---:|---:|---:|---:|"]
    return "\n".join([*head, *rows])


def _row(kind: Kind) -> str:
    # The first start warms up: it compiles modules and fills the page cache.
    assert kind.idle is not None
    wall, cpu = median(kind.wall_s[1:]), median(kind.cpu_s[1:])
    return (
        f"| {kind.name} | {wall:.2f} | {cpu:.2f} | {kind.idle.resident:.0f} | {kind.idle.proportional:.0f} |"
    )


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="how often each is started (5)")
    given = parser.parse_args()
    return tell(startup(max(1, given.turns)))


if __name__ == "__main__":
    sys.exit(main())

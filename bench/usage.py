"""What processes use, as Linux tells it: processor time, memory, and both for every part of a PostgreSQL server."""

import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from babysea_server.db.pool import Database

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_BACKENDS = """
SELECT pid, CASE WHEN backend_type = 'client backend' THEN coalesce(nullif(application_name, ''), 'client')
                 ELSE backend_type END AS name
FROM pg_stat_activity"""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of one process in bytes; `pss` counts a page that n processes share as an nth, `peak` is of `rss`."""

    rss: int
    pss: int
    peak: int


def cpu_s(pid: int) -> float:
    """Processor time of a process and all its threads, in seconds, to 10 ms.

    Raises:
        OSError: there is no such process.
    """
    return sum(_times(pid)[:2])


def machine_busy_s() -> float:
    """Processor time that all cores together have spent on anything so far, also for other guests of the host."""
    user, nice, system, _idle, _waiting, *rest = map(
        int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + sum(rest)) * _TICK_S


def memory(pid: int) -> Memory:
    """Memory of a process.

    Raises:
        OSError: there is no such process.
    """
    found: dict[str, int] = {}
    for name in ("status", "smaps_rollup"):
        for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
            field, _, value = line.partition(":")
            if value.endswith(" kB"):
                found[field] = int(value[:-3]) * 1024
    return Memory(rss=found["VmRSS"], pss=found["Pss"], peak=found["VmHWM"])


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if int(_fields(int(folder.name))[1]) == pid:
                    found.append(int(folder.name))
            except OSError:
                continue  # ended meanwhile
    return found


class PostgresUsage:
    """Processor time of one server on this machine, as a whole and by who connected.

    The whole is exact: what processes that ended have used is in their parent's account. The parts are sums over
    the processes seen, so a backend that comes and goes between two readings is only in the whole.
    """

    def __init__(self, postmaster: int, db: Database) -> None:
        self._postmaster = postmaster
        self._db = db
        self._names: dict[int, str] = {}
        self._seen: dict[int, float] = {}

    def total_s(self) -> float:
        """Processor time of the whole server so far, in seconds."""
        total = sum(_times(self._postmaster))
        for pid in children(self._postmaster):
            try:
                total += sum(_times(pid))
            except OSError:
                continue  # ended meanwhile, and is in its parent's account by the next call
        return total

    async def by_name(self) -> Mapping[str, float]:
        """Processor time so far by `application_name` of clients, else by kind of process."""
        for pid, name in await self._db.fetch(_BACKENDS):
            self._names.setdefault(pid, name)
        times: dict[str, float] = defaultdict(float)
        for pid, name in self._names.items():
            with suppress(OSError):  # ended: what it had is kept
                self._seen[pid] = cpu_s(pid)
            times[name] += self._seen.get(pid, 0.0)
        return times


def _fields(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat behind the program's name, which may hold anything; the state comes first."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _times(pid: int) -> list[float]:
    """utime, stime, and those of children that have ended and were waited for, in seconds."""
    return [int(value) * _TICK_S for value in _fields(pid)[11:15]]

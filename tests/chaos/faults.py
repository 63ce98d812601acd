"""Making the faults of a plan, and taking every one of them back."""

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import asyncpg
from tests.chaos.plan import PROVIDERS, WAYS, Fault, Kind
from tests.chaos.providers import Mood
from tests.chaos.topology import Topology

_MOODS = {
    Kind.PROVIDER_BUSY: Mood.BUSY,
    Kind.PROVIDER_ERRORS: Mood.ERRORS,
    Kind.PROVIDER_SLOW: Mood.SLOW,
    Kind.PROVIDER_CUTS: Mood.CUTS,
}
_SIGNALS = {
    Kind.KILL_API: signal.SIGKILL,
    Kind.KILL_WORKER: signal.SIGKILL,
    Kind.STOP_API: signal.SIGTERM,
    Kind.STOP_WORKER: signal.SIGTERM,
}
_ON_POSTGRES = {Kind.POSTGRES_CRASH, Kind.POSTGRES_RESTART, Kind.POSTGRES_BACKEND, Kind.DISK_FULL}
_MOOD_SHARE = 0.7
_CUT_SHARE = 0.15
_DELAY_S = 0.3
_RECOVERS_S = 60.0
_AGAIN_S = 0.2
#: More than are kept in advance.
_SEGMENTS = 8


class Faults:
    """Makes faults in a topology.

    Args:
        say: is told of every fault as it is made.
        made: gets what was really done; a fault whose object was away just then was not.
    """

    def __init__(self, topology: Topology, seed: int, say: Callable[[str], None], made: list[Fault]) -> None:
        self._made = made
        self._topology = topology
        self._chance = random.Random(seed)
        self._say = say

    async def follow(self, plan: Sequence[Fault]) -> None:
        """Make all faults of a plan at their time; returns when the last is over and all is taken back."""
        clock = self._topology.clock
        started = clock.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                await clock.sleep(max(0.0, started + fault.at_s - clock.monotonic()))
                group.create_task(self._make(fault))
        await self.heal()

    async def _make(self, fault: Fault) -> None:
        self._say(str(fault))
        if fault.kind in _ON_POSTGRES:
            await self._on_postgres(fault)
            self._made.append(fault)
            return
        met, undo = await self._begin(fault)
        try:
            await self._topology.clock.sleep(fault.lasts_s)
        finally:
            await undo()
        if met:
            self._made.append(fault)

    async def _begin(self, fault: Fault) -> tuple[bool, Callable[[], Awaitable[None]]]:
        """Begin a fault; whether it met anything, and how it is ended."""
        match fault.kind:
            case Kind.KILL_API | Kind.STOP_API:
                return self._topology.apis[int(fault.target)].send(_SIGNALS[fault.kind]), _nothing
            case Kind.KILL_WORKER | Kind.STOP_WORKER:
                return self._topology.workers[int(fault.target)].send(_SIGNALS[fault.kind]), _nothing
            case Kind.FREEZE_WORKER:
                return self._freeze(int(fault.target))
            case Kind.REDIS_DOWN:
                self._topology.redis.kill()
                return True, self._topology.redis.start
            case Kind.STORAGE_DOWN:
                self._topology.bucket.kill()
                return True, self._topology.bucket.start
            case Kind.STORAGE_FULL:
                await asyncio.to_thread(self._topology.bucket_disk.fill)
                return True, self._free_bucket
            case Kind.RECEIVER_ERRORS:
                await self._topology.mood("receiver", Mood.ERRORS, _MOOD_SHARE)
                return True, lambda: self._topology.mood("receiver", Mood.WELL, 0.0)
            case Kind.RECEIVER_DOWN:
                way = self._topology.ways["receiver"]
                await way.vanish()
                return True, way.listen
            case Kind.CUTS | Kind.DELAYS | Kind.HOLE:
                return True, self._on_way(fault)
            case _:
                await self._topology.mood(fault.target, _MOODS[fault.kind], _MOOD_SHARE)
                return True, lambda: self._topology.mood(fault.target, Mood.WELL, 0.0)

    def _freeze(self, number: int) -> tuple[bool, Callable[[], Awaitable[None]]]:
        server = self._topology.workers[number]
        if not server.send(signal.SIGSTOP):
            return False, _nothing
        process = server.life.process

        async def thaw() -> None:
            if process.running:
                process.send(signal.SIGCONT)

        return True, thaw

    def _on_way(self, fault: Fault) -> Callable[[], Awaitable[None]]:
        way = self._topology.ways[fault.target]
        match fault.kind:
            case Kind.CUTS:
                way.cut_share = _CUT_SHARE
            case Kind.DELAYS:
                way.delay_s = _DELAY_S
            case _:
                way.open.clear()

        async def undo() -> None:
            way.cut_share = way.delay_s = 0.0
            way.open.set()

        return undo

    async def _free_bucket(self) -> None:
        self._topology.bucket_disk.free()

    # ------------------------------------------------------------------------------- PostgreSQL

    async def _on_postgres(self, fault: Fault) -> None:
        """One at a time: a server that is away cannot be restarted. Returns when it is back."""
        postgres, clock = self._topology.postgres, self._topology.clock
        async with self._topology.away:
            match fault.kind:
                case Kind.POSTGRES_RESTART:
                    await asyncio.to_thread(postgres.stop, "fast")
                case Kind.POSTGRES_CRASH:
                    await asyncio.to_thread(postgres.stop, "immediate")
                    await clock.sleep(fault.lasts_s)
                case Kind.POSTGRES_BACKEND:
                    self._kill_backend()
                case _:
                    await asyncio.to_thread(self._topology.database_disk.fill)
                    try:
                        await self._use_up_wal()
                        await clock.sleep(fault.lasts_s)
                    finally:
                        self._topology.database_disk.free()
            await self._postgres_runs()

    async def _use_up_wal(self) -> None:
        """Have it need new segments of its log at once: without them it must end."""
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            for _ in range(_SEGMENTS):
                await self._topology.query(
                    "SELECT pg_switch_wal() FROM pg_logical_emit_message(true, '', '')"
                )

    def _kill_backend(self) -> None:
        parent = self._topology.postgres.pid()
        if parent is None:
            return
        listing = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True, check=False
        ).stdout
        backends = [int(line.split()[0]) for line in listing.splitlines() if "babysea_us" in line]
        if backends:
            os.kill(self._chance.choice(backends), signal.SIGKILL)

    async def _postgres_runs(self) -> None:
        """Have it answer: it may be gone, or recovering, or about to go because of what was done to it.

        Raises:
            TimeoutError: it does not within a minute.
        """
        postgres = self._topology.postgres
        async with asyncio.timeout(_RECOVERS_S):
            while True:
                try:
                    if postgres.pid() is None:
                        await asyncio.to_thread(postgres.start)
                    await self._topology.query("SELECT 1")
                    return
                except (AssertionError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await self._topology.clock.sleep(_AGAIN_S)

    async def heal(self) -> None:
        """Take back whatever may still be wrong."""
        topology = self._topology
        for disk in (topology.database_disk, topology.bucket_disk):
            disk.free()
        for provider in PROVIDERS:
            await topology.mood(provider, Mood.WELL, 0.0)
        await topology.mood("receiver", Mood.WELL, 0.0)
        for name in WAYS:
            way = topology.ways[name]
            way.cut_share = way.delay_s = 0.0
            way.open.set()
            await way.listen()
        await topology.redis.start()
        await topology.bucket.start()
        async with topology.away:
            await self._postgres_runs()


async def _nothing() -> None:
    """What is over at once needs no undoing."""

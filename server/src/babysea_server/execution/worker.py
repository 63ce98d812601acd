"""The worker: claims due generations, runs each as one task, keeps its lease, cleans up after the dead."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from babysea_server.catalog.catalog import Catalog
from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.execution import store
from babysea_server.execution.lease import Lease, LeaseLostError
from babysea_server.execution.run import Run, RunParts
from babysea_server.execution.types import Claim
from babysea_server.execution.wakeup import CHANNEL
from babysea_server.execution.writes import Writes
from babysea_server.kit.clock import Clock
from babysea_server.kit.ids import uuid7
from babysea_server.outputs.store import ObjectStore
from babysea_server.providers.runner import Runner

_log = structlog.get_logger(__name__)

_CLAIM_MAX = 256
_RENEWALS_PER_LEASE = 3
_EXPIRE_EVERY_S = 5.0
_FORGET_EVERY_S = 600.0
_PUT_BACK_MAX_S = 60.0
_FAULTS = (DatabaseUnavailableError, asyncpg.PostgresError)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works. Times in seconds."""

    concurrency: int
    lease_s: float
    poll_s: float
    attempt_timeout_s: Mapping[str, float]


class Worker:
    """Executes generations of one region; any number may run against one database."""

    def __init__(
        self,
        db: Database,
        runner: Runner,
        store: ObjectStore,
        catalog: Catalog,
        clock: Clock,
        settings: WorkerSettings,
    ) -> None:
        self._db = db
        self._runner = runner
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._settings = settings
        self._runs: dict[asyncio.Task[None], Run] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._lease: Lease | None = None
        self._parts: RunParts | None = None
        self._stopping = False

    @property
    def running(self) -> int:
        """Generations this worker carries now."""
        return len(self._runs)

    def start(self) -> None:
        """Begin in the background; the database may still be away."""
        listener = self._db.listen([CHANNEL], lambda _channel, _payload: self._wake.set())
        del listener  # closed with the database
        periodic: list[tuple[str, float, Callable[[], Awaitable[Any]]]] = [
            ("reap", self._settings.lease_s / _RENEWALS_PER_LEASE, self._reap),
            ("expire", _EXPIRE_EVERY_S, self._expire),
            ("forget", _FORGET_EVERY_S, lambda: store.forget_idempotency_keys(self._db)),
        ]
        self._loops = [
            asyncio.create_task(self._claim_forever(), name="worker-claim"),
            asyncio.create_task(self._hold_lease(), name="worker-lease"),
            *(
                asyncio.create_task(self._every(seconds, work), name=f"worker-{name}")
                for name, seconds, work in periodic
            ),
        ]

    async def stop(self, *, within_s: float = 8.0) -> None:
        """Stop claiming, let every run reach a safe place, give back the rest of the work.

        Runs that wait for a provider are let go at once: whoever claims them resumes by upstream id. A run that
        is buying or settling gets `within_s`; past that its lease runs out by itself.
        """
        self._stopping = True
        for loop in self._loops:
            if loop.get_name() != "worker-lease":
                await _end(loop)
        for task, run in list(self._runs.items()):
            run.stop()
            if run.interruptible:
                task.cancel()
        if self._runs:
            await asyncio.wait(list(self._runs), timeout=within_s)
        for loop in self._loops:
            await _end(loop)
        for task in list(self._runs):
            _log.warning("run_abandoned", task=task.get_name())
            await _end(task)
        if self._parts is not None:
            await self._parts.writes.close()
        if self._lease is not None:
            try:
                await store.leave(self._db, self._lease.worker_id)
            except _FAULTS as error:
                _log.warning("leases_not_released", error=str(error))

    # ------------------------------------------------------------------------------- the lease

    async def _hold_lease(self) -> None:
        while True:
            try:
                await self._renew()
            except _FAULTS as error:
                _log.warning("lease_not_renewed", error=str(error))
            pause = self._settings.lease_s / _RENEWALS_PER_LEASE
            if self._lease is None or self._lease.remaining_s() < pause:
                pause = min(pause, 0.2)
            await self._clock.sleep(pause)

    async def _renew(self) -> None:
        sent_at = self._clock.monotonic()
        if self._lease is None:
            lease = Lease(uuid7(), self._clock, lease_s=self._settings.lease_s)
            await store.register(
                self._db,
                lease.worker_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                lease_s=lease.lease_s,
            )
            lease.renewed(sent_at)
            self._adopt(lease)
        elif await store.renew(self._db, self._lease.worker_id, lease_s=self._settings.lease_s):
            self._lease.renewed(sent_at)
        else:
            await self._lose()

    def _adopt(self, lease: Lease) -> None:
        self._lease = lease
        writes = Writes(
            self._db,
            self._clock,
            lease.worker_id,
            patience_s=lease.lease_s,
            queue_max=4 * self._settings.concurrency,
        )
        self._parts = RunParts(
            runner=self._runner,
            writes=writes,
            store=self._store,
            catalog=self._catalog,
            clock=self._clock,
            lease=lease,
            attempt_timeout_s=dict(self._settings.attempt_timeout_s),
        )
        self._wake.set()

    async def _lose(self) -> None:
        """Given up by the others: stop everything of the old identity, come back under a new one."""
        assert self._lease is not None
        _log.warning("lease_lost", worker_id=str(self._lease.worker_id), running=len(self._runs))
        self._lease.lose()
        self._lease = None
        self._parts = None
        for task, run in list(self._runs.items()):
            run.stop()
            if run.interruptible:
                task.cancel()

    # ------------------------------------------------------------------------------- claiming and running

    async def _claim_forever(self) -> None:
        while True:
            claimed = 0
            try:
                claimed = await self._claim()
            except _FAULTS as error:
                _log.warning("claim_failed", error=str(error))
                await self._clock.sleep(min(0.5, self._settings.poll_s))
            if claimed < _CLAIM_MAX:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._settings.poll_s)
                self._wake.clear()

    async def _claim(self) -> int:
        parts, room = self._parts, self._settings.concurrency - len(self._runs)
        if parts is None or room <= 0:
            return 0
        parts.lease.check()
        claims = await store.claim(self._db, parts.lease.worker_id, min(room, _CLAIM_MAX))
        for claim in claims:
            run = Run(claim, parts)
            task = asyncio.create_task(self._carry(claim, run, parts.lease.worker_id), name=f"run-{claim.id}")
            self._runs[task] = run
            task.add_done_callback(self._finished)
        return len(claims)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._runs.pop(task, None)
        if len(self._runs) == self._settings.concurrency - 1:
            self._wake.set()  # there is room again

    async def _carry(self, claim: Claim, run: Run, worker_id: UUID) -> None:
        try:
            await run.execute()
        except LeaseLostError:
            _log.info("generation_let_go", generation_id=str(claim.id))
        except Exception:
            # Crash the run, not the worker: it is claimed again after a pause, and given up at its hard limit.
            _log.exception("run_crashed", generation_id=str(claim.id))
            pause = min(_PUT_BACK_MAX_S, 0.5 * 2 ** min(claim.fence, 10))
            with suppress(*_FAULTS):
                await store.put_back(self._db, worker_id, claim.id, claim.fence, pause_s=pause)

    # ------------------------------------------------------------------------------- periodic work

    async def _every(self, seconds: float, work: Callable[[], Awaitable[Any]]) -> None:
        while True:
            try:
                await work()
            except _FAULTS as error:
                _log.warning("periodic_work_failed", work=asyncio.current_task(), error=str(error))
            await self._clock.sleep(seconds)

    async def _reap(self) -> None:
        freed = await store.reap(self._db)
        if freed:
            _log.warning("dead_workers_reaped", generations=freed)
            self._wake.set()

    async def _expire(self) -> None:
        expired = await store.expire(self._db)
        if expired:
            _log.warning("generations_expired", generations=expired)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

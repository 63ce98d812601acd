"""The worker: claims due generations, runs each as one task, keeps its lease, cleans up after the dead."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from uuid import UUID

import asyncpg
import msgspec
import structlog

from babysea_server import errors
from babysea_server.catalog.catalog import Catalog
from babysea_server.db.pool import Database, DatabaseUnavailableError, fault_of
from babysea_server.execution import store
from babysea_server.execution.abandoned import end_abandoned_attempts
from babysea_server.execution.attempt import Announcements
from babysea_server.execution.collect import Places
from babysea_server.execution.lease import Lease, LeaseLostError
from babysea_server.execution.periodic import every
from babysea_server.execution.run import Chooser, Run, RunParts, first
from babysea_server.execution.wakeup import ANNOUNCED, CANCELED, CHANNEL
from babysea_server.execution.watch import RunWatch, Traces, Untraced, Unwatched
from babysea_server.execution.writes import Writes
from babysea_server.kit.batching import ClosedError, QueueFullError, QueueTimeoutError
from babysea_server.kit.clock import Clock
from babysea_server.kit.ids import uuid7
from babysea_server.kit.tasks import end
from babysea_server.outputs.store import ObjectStore
from babysea_server.providers.runner import Runner

_log = structlog.get_logger(__name__)

_CLAIM_MAX = 256
_RENEWALS_PER_LEASE = 3
_RENEW_AGAIN_S = 0.2
_EXPIRE_EVERY_S = 5.0
_FORGET_EVERY_S = 600.0
_MAINTAIN_EVERY_S = 600.0
_ABANDONED_EVERY_S = 60.0
_LEASE_TASK = "worker-lease"
_PUT_BACK_MAX_S = 60.0
#: A statement whose answer was lost may still take effect for so long: longer than the server lets one run.
_DOUBT_S = 20.0
#: Of a graceful stop, beside the time that runs get.
_CLOSE_WRITES_S = 1.0
_LEAVE_S = 1.0
_FAULTS = (
    DatabaseUnavailableError,
    asyncpg.InternalClientError,
    asyncpg.PostgresError,
    # The database was away for longer than a batched write waits in line.
    ClosedError,
    QueueFullError,
    QueueTimeoutError,
)


class WorkerSettings(msgspec.Struct, frozen=True):
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
        choose: Chooser = first,
        callback_url: Callable[[str, UUID], str | None] = lambda _provider, _attempt: None,
        watch: RunWatch | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._choose = choose
        self._watch = watch or Unwatched()
        self._traces = traces
        self._untraced = Untraced()
        self._callback_url = callback_url
        self._announcements = Announcements()
        self._places = Places()
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
        self._doubt_until = float("-inf")
        self._announced: set[str] = set()
        self._heard = asyncio.Event()

    @property
    def running(self) -> int:
        """Generations this worker carries now."""
        return len(self._runs)

    def start(self) -> None:
        """Begin in the background; the database may still be away."""
        listener = self._db.listen([CHANNEL, CANCELED, ANNOUNCED], self._hear)
        del listener  # closed with the database
        third = self._settings.lease_s / _RENEWALS_PER_LEASE
        self._loops = [
            asyncio.create_task(self._claim_forever(), name="worker-claim"),
            asyncio.create_task(self._drop_forever(), name="worker-drop"),
            asyncio.create_task(self._hold_lease(), name=_LEASE_TASK),
            every("reap", third, self._reap, self._clock),
            every("expire", _EXPIRE_EVERY_S, self._expire, self._clock),
            every("forget", _FORGET_EVERY_S, lambda: store.forget_idempotency_keys(self._db), self._clock),
            every("maintain", _MAINTAIN_EVERY_S, self._runner.maintain, self._clock),
            every("abandoned", _ABANDONED_EVERY_S, self._end_abandoned, self._clock),
        ]

    async def stop(self, *, within_s: float = 8.0) -> None:
        """Stop claiming, let every run reach a safe place, give back the rest of the work.

        Runs that wait for a provider are let go at once: whoever claims them resumes by upstream id. A run that
        is buying or settling gets `within_s`; past that its lease runs out by itself.
        """
        await end([loop for loop in self._loops if loop.get_name() != _LEASE_TASK])
        for task, run in list(self._runs.items()):
            run.stop()
            if run.interruptible:
                task.cancel()
        if self._runs:
            await asyncio.wait(list(self._runs), timeout=within_s)
        for task in self._runs:
            _log.warning("run_abandoned", task=task.get_name())
        await end([*self._runs, *self._loops])
        if self._parts is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_WRITES_S):
                    await self._parts.writes.close()
        if self._lease is not None:
            try:
                async with asyncio.timeout(_LEAVE_S):
                    await store.leave(self._db, self._lease.worker_id)
            except (*_FAULTS, TimeoutError) as error:
                _log.warning("leases_not_released", error=fault_of(error))

    # ------------------------------------------------------------------------------- the lease

    async def _hold_lease(self) -> None:
        third = self._settings.lease_s / _RENEWALS_PER_LEASE
        while True:
            pause = third
            try:
                await self._renew()
            except _FAULTS as error:
                _log.warning("lease_not_renewed", error=fault_of(error))
                pause = min(third, _RENEW_AGAIN_S)
            except Exception:
                _log.exception("lease_not_renewed")
                pause = min(third, _RENEW_AGAIN_S)
            if self._lease is None:
                pause = min(third, _RENEW_AGAIN_S)
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
            lease_s=lease.lease_s,
            queue_max=4 * self._settings.concurrency,
        )
        self._parts = RunParts(
            runner=self._runner,
            writes=writes,
            store=self._store,
            catalog=self._catalog,
            clock=self._clock,
            lease=lease,
            choose=self._choose,
            announcements=self._announcements,
            callback_url=self._callback_url,
            attempt_timeout_s=dict(self._settings.attempt_timeout_s),
            watch=self._watch,
            places=self._places,
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
            more = False
            try:
                await self._free_strays()
                more = await self._claim()
            except _FAULTS as error:
                _log.warning("claim_failed", error=fault_of(error))
                self._doubt()
            except Exception:
                _log.exception("claim_failed")
                self._doubt()
            if not more:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._settings.poll_s)
                self._wake.clear()

    async def _claim(self) -> bool:
        """Claim what there is room for; whether there may be more."""
        parts, room = self._parts, self._settings.concurrency - len(self._runs)
        if parts is None or room <= 0 or parts.lease.remaining_s() <= 0:
            return False
        limit = min(room, _CLAIM_MAX)
        claims = await store.claim(self._db, parts.lease.worker_id, limit)
        for claim in claims:
            if claim.fence == 1:
                self._watch.claimed((self._clock.now() - claim.created_at).total_seconds())
            trace = None if self._traces is None else self._traces.run(claim)
            run = Run(claim, parts, trace or self._untraced)
            task = asyncio.create_task(self._carry(run, parts.lease.worker_id), name=f"run-{claim.id}")
            self._runs[task] = run
            task.add_done_callback(self._finished)
        return len(claims) == limit

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._runs.pop(task, None)
        if len(self._runs) == self._settings.concurrency - 1:
            self._wake.set()  # there is room again

    async def _carry(self, run: Run, worker_id: UUID) -> None:
        claim, pause = run.claim, 0.0
        structlog.contextvars.bind_contextvars(generation_id=str(claim.id))
        try:
            await run.execute()
            return
        except LeaseLostError:
            # Usually no longer ours to put back; if only the lease was in doubt, it goes on at once.
            _log.info("generation_let_go", generation_id=str(claim.id))
        except Exception as error:
            # Crash the run, not the worker: it is claimed again after a pause, and given up at its hard limit.
            if isinstance(error, _FAULTS):
                _log.error("run_crashed", generation_id=str(claim.id), error=fault_of(error))
            else:
                _log.exception("run_crashed", generation_id=str(claim.id))
            pause = min(_PUT_BACK_MAX_S, 0.5 * 2 ** min(claim.fence, 10))
        try:
            await store.put_back(self._db, worker_id, claim.id, claim.fence, pause_s=pause)
        except Exception as error:
            _log.warning("generation_not_put_back", generation_id=str(claim.id), error=fault_of(error))
            self._doubt()
        if not pause:
            self._wake.set()

    def _doubt(self) -> None:
        """The database may hold generations for this worker that it does not know of, now or in a moment."""
        self._doubt_until = self._clock.monotonic() + _DOUBT_S

    async def _free_strays(self) -> None:
        # In the claiming loop and nowhere else: a claim under way would look like a stray.
        if self._parts is None or self._clock.monotonic() > self._doubt_until:
            return
        running = [run.claim.id for run in self._runs.values()]
        freed = await store.free_strays(self._db, self._parts.lease.worker_id, running)
        if freed:
            _log.warning("strays_freed", generations=freed)

    # ------------------------------------------------------------------------------- cancellation

    def _hear(self, channel: str, payload: str) -> None:
        if channel == CHANNEL:
            self._wake.set()
        elif channel == ANNOUNCED:
            if payload:  # after deafness it is empty; then polling finds what was missed
                self._announcements.announce(UUID(payload))
        else:
            self._announced.add(payload)
            self._heard.set()

    async def _drop_forever(self) -> None:
        """Stop the runs of generations that were canceled; what is not heard of is found out by the run itself."""
        while True:
            await self._heard.wait()
            self._heard.clear()
            announced, self._announced = self._announced, set()
            try:
                await self._drop(announced)
            except _FAULTS as error:
                _log.warning("cancellations_not_read", error=fault_of(error))
            except Exception:
                _log.exception("cancellations_not_read")

    async def _drop(self, announced: set[str]) -> None:
        # Many at once are looked for in one pass: a worker may carry tens of thousands of runs.
        ended = {UUID(payload) for payload in announced if payload}
        if "" in announced and self._runs:  # after deafness anything may have ended
            ended |= await store.ended(self._db, [run.claim.id for run in self._runs.values()])
        for task, run in list(self._runs.items()):
            if run.claim.id in ended and run.drop():
                task.cancel()

    # ------------------------------------------------------------------------------- periodic work

    async def _reap(self) -> None:
        freed = await store.reap(self._db)
        if freed:
            _log.warning("dead_workers_reaped", generations=freed)
            self._wake.set()

    async def _expire(self) -> None:
        while expired := await store.give_up(self._db):
            _log.warning("generations_expired", generations=len(expired))
            if self._traces is not None:
                for generation in expired:
                    self._traces.ended(generation, "failed", errors.GENERATION_EXPIRED.code)

    async def _end_abandoned(self) -> None:
        await end_abandoned_attempts(self._db, self._runner, self._catalog)

"""The deliverer: claims due deliveries, sends each as one task, records what came of it, keeps its lease."""

import asyncio
import os
import random
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from uuid import UUID

import asyncpg
import msgspec
import structlog

from babysea_server.db.pool import Database, DatabaseUnavailableError, fault_of
from babysea_server.execution.lease import Lease
from babysea_server.execution.periodic import every
from babysea_server.execution.store import register, renew
from babysea_server.kit.batching import Batcher
from babysea_server.kit.clock import Clock
from babysea_server.kit.ids import uuid7
from babysea_server.kit.tasks import end
from babysea_server.telemetry.tracing_webhooks import DeliveryTraces
from babysea_server.webhooks import store
from babysea_server.webhooks.body import Bodies
from babysea_server.webhooks.schedule import again_after
from babysea_server.webhooks.secrets import SealedSecretError, SecretBox
from babysea_server.webhooks.sender import Sender
from babysea_server.webhooks.signing import sign
from babysea_server.webhooks.types import Answer, DueDelivery, SendFailure, Sent

_log = structlog.get_logger(__name__)

_ENDPOINTS_IN_CLAIM = 256
_RENEWALS_PER_LEASE = 3
_AGAIN_S = 0.2
#: A statement whose answer was lost may still take effect for so long.
_DOUBT_S = 20.0
_CLOSE_RESULTS_S = 1.0
_LEAVE_S = 1.0
_LEASE_TASK = "webhooks-lease"
_FAULTS = (DatabaseUnavailableError, asyncpg.InternalClientError, asyncpg.PostgresError)


class DelivererSettings(msgspec.Struct, frozen=True):
    """How deliveries are sent. Times in seconds."""

    concurrency: int = 512
    """Under way at once in this process."""
    per_endpoint: int = 8
    """Of one endpoint under way at once, over all processes."""
    lease_s: float = 30.0
    poll_s: float = 0.2


class _Held(msgspec.Struct, frozen=True):
    """One identity of the deliverer, and where its results go."""

    lease: Lease
    results: Batcher[Sent, store.Recorded]


class Deliverer:
    """Sends webhooks of one region; any number may run against one database.

    What was sent and not recorded, because a process died in between, is sent again with the same id and body.

    Args:
        box: opens the endpoints' secrets.
        uniform: draws from [0, 1), for the jitter.
        observe: is told of each try why it was no success, or None, and the seconds that it took.
        traces: traces each try.
    """

    def __init__(
        self,
        db: Database,
        sender: Sender,
        box: SecretBox,
        bodies: Bodies,
        clock: Clock,
        settings: DelivererSettings,
        uniform: Callable[[], float] = random.random,
        observe: Callable[[str | None, float], None] = lambda _failure, _seconds: None,
        traces: DeliveryTraces | None = None,
    ) -> None:
        self._db = db
        self._sender = sender
        self._box = box
        self._bodies = bodies
        self._clock = clock
        self._settings = settings
        self._uniform = uniform
        self._observe = observe
        self._traces = traces
        self._held: _Held | None = None
        self._sending: dict[asyncio.Task[None], DueDelivery] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._cursor = store.BEGINNING
        self._doubt_until = float("-inf")

    @property
    def sending(self) -> int:
        """Deliveries under way now."""
        return len(self._sending)

    def start(self) -> None:
        """Begin in the background; the database may still be away."""
        third = self._settings.lease_s / _RENEWALS_PER_LEASE
        self._loops = [
            asyncio.create_task(self._claim_forever(), name="webhooks-claim"),
            asyncio.create_task(self._hold_lease(), name=_LEASE_TASK),
            every("webhooks-reap", third, self._reap, self._clock),
        ]

    def poke(self) -> None:
        """Look for due deliveries now: somebody in this process has just written one."""
        self._wake.set()

    async def stop(self, *, within_s: float = 8.0) -> None:
        """Stop claiming, let what is under way end for `within_s`, give back the rest."""
        await end([loop for loop in self._loops if loop.get_name() != _LEASE_TASK])
        if self._sending:
            await asyncio.wait(list(self._sending), timeout=within_s)
        await end([*self._sending, *self._loops])
        held, self._held = self._held, None
        if held is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_RESULTS_S):
                await held.results.close()
        try:
            async with asyncio.timeout(_LEAVE_S):
                await store.leave(self._db, held.lease.worker_id)
        except (*_FAULTS, TimeoutError) as error:
            _log.warning("webhook_leases_not_released", error=fault_of(error))

    # ------------------------------------------------------------------------------- the lease

    async def _hold_lease(self) -> None:
        third = self._settings.lease_s / _RENEWALS_PER_LEASE
        while True:
            pause = third
            try:
                await self._renew()
            except _FAULTS as error:
                _log.warning("webhook_lease_not_renewed", error=fault_of(error))
                pause = min(third, _AGAIN_S)
            except Exception:
                _log.exception("webhook_lease_not_renewed")
                pause = min(third, _AGAIN_S)
            if self._held is None:
                pause = min(third, _AGAIN_S)
            await self._clock.sleep(pause)

    async def _renew(self) -> None:
        sent_at, held, lease_s = self._clock.monotonic(), self._held, self._settings.lease_s
        if held is None:
            lease = Lease(uuid7(), self._clock, lease_s=lease_s)
            await register(
                self._db, lease.worker_id, host=socket.gethostname(), pid=os.getpid(), lease_s=lease_s
            )
            lease.renewed(sent_at)
            self._held = _Held(lease, self._results(lease.worker_id))
            self._wake.set()
        elif await renew(self._db, held.lease.worker_id, lease_s=lease_s):
            held.lease.renewed(sent_at)
        else:
            # Given up by the others. What is under way is sent again by them, under the same ids.
            _log.warning("webhook_lease_lost", worker_id=str(held.lease.worker_id), sending=self.sending)
            held.lease.lose()
            self._held = None

    async def _reap(self) -> None:
        freed = await store.reap(self._db)
        if freed:
            _log.warning("webhooks_of_dead_workers_freed", deliveries=freed)
            self._wake.set()

    # ------------------------------------------------------------------------------- claiming

    async def _claim_forever(self) -> None:
        while True:
            more = False
            try:
                await self._free_strays()
                more = await self._claim()
            except _FAULTS as error:
                _log.warning("webhook_claim_failed", error=fault_of(error))
                self._doubt()
            except Exception:
                _log.exception("webhook_claim_failed")
                self._doubt()
            if not more:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._settings.poll_s)
                self._wake.clear()

    async def _claim(self) -> bool:
        """Claim what there is room for; whether there may be more."""
        held, room = self._held, self._settings.concurrency - self.sending
        if held is None or room <= 0 or held.lease.remaining_s() <= 0:
            return False
        deliveries, self._cursor = await store.claim(
            self._db,
            held.lease.worker_id,
            limit=room,
            per_endpoint=self._settings.per_endpoint,
            after=self._cursor,
            endpoints=_ENDPOINTS_IN_CLAIM,
        )
        if len(deliveries) == room:
            # Those behind the last one got nothing, so they come first the next time.
            self._cursor = max(delivery.endpoint_id for delivery in deliveries)
        for delivery in deliveries:
            task = asyncio.create_task(self._carry(delivery, held), name=f"webhook-{delivery.id}")
            self._sending[task] = delivery
            task.add_done_callback(self._finished)
        return self._cursor != store.BEGINNING

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._sending.pop(task, None)
        self._wake.set()  # its endpoint has a place again

    def _doubt(self) -> None:
        """The database may hold deliveries for this worker that it does not know of, now or in a moment."""
        self._doubt_until = self._clock.monotonic() + _DOUBT_S

    async def _free_strays(self) -> None:
        # In the claiming loop and nowhere else: a claim under way would look like a stray.
        if self._held is None or self._clock.monotonic() > self._doubt_until:
            return
        sending = [delivery.id for delivery in self._sending.values()]
        freed = await store.free_strays(self._db, self._held.lease.worker_id, sending)
        if freed:
            _log.warning("webhook_strays_freed", deliveries=freed)

    # ------------------------------------------------------------------------------- sending

    async def _carry(self, delivery: DueDelivery, held: _Held) -> None:
        if held.lease.remaining_s() <= 0:
            # It is somebody else's by now or soon; but if the lease is renewed after all, nobody would send it.
            self._doubt()
            return
        _bind_ids(delivery)
        answer = await (
            self._send(delivery) if self._traces is None else self._traced(self._traces, delivery)
        )
        self._observe(answer.failure, answer.duration_ms / 1000)
        _log.debug(
            "webhook_tried", attempt=delivery.attempts + 1, status=answer.status, failure=answer.failure
        )
        again_after_s = None
        if not answer.ok:
            again_after_s = again_after(delivery.attempts + 1, answer.retry_after_s, self._uniform)
        try:
            recorded = await held.results.submit(Sent(delivery, answer, again_after_s))
        except Exception as error:
            _log.warning("webhook_not_recorded", error=fault_of(error))
            self._doubt()
            return
        if recorded.disabled is not None:
            _log.warning("webhook_endpoint_disabled", endpoint_id=str(recorded.disabled))

    async def _traced(self, traces: DeliveryTraces, delivery: DueDelivery) -> Answer:
        begun = traces.begin(delivery.id, delivery.data)
        answer = await self._send(delivery)
        traces.ended(
            begun,
            delivery_id=delivery.id,
            endpoint_id=delivery.endpoint_id,
            event=delivery.event,
            attempt=delivery.attempts + 1,
            status=answer.status,
            failure=answer.failure,
        )
        return answer

    async def _send(self, delivery: DueDelivery) -> Answer:
        try:
            secret = self._box.open(delivery.secret)
            body = self._bodies.render(delivery)
            headers = sign(secret, delivery.id, body, self._clock.now())
            return await self._sender.send(delivery.url, headers, body)
        except SealedSecretError as error:
            _log.error("webhook_secret_unreadable", endpoint_id=str(delivery.endpoint_id), error=str(error))
            return Answer(SendFailure.UNSIGNED, 0)
        except Exception:
            _log.exception("webhook_crashed", delivery_id=str(delivery.id))
            return Answer(SendFailure.INTERNAL, 0)

    # ------------------------------------------------------------------------------- results

    def _results(self, worker_id: UUID) -> Batcher[Sent, store.Recorded]:
        """Results are written together; they wait for a database that is away as long as the lease may hold."""

        async def record(results: Sequence[Sent]) -> Sequence[store.Recorded]:
            give_up_at = self._clock.monotonic() + self._settings.lease_s
            while True:
                try:
                    return await store.record(self._db, worker_id, results)
                except _FAULTS as error:
                    _log.warning("webhook_results_not_written", results=len(results), error=fault_of(error))
                    if isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
                        if len(results) == 1:
                            raise
                        # One that the database refuses must not take its neighbours with it.
                        return [each for result in results for each in await record([result])]
                    if self._clock.monotonic() > give_up_at:
                        raise
                    await self._clock.sleep(_AGAIN_S)

        return Batcher(
            record, queue_max=2 * self._settings.concurrency, patience_s=2 * self._settings.lease_s
        )


def _bind_ids(delivery: DueDelivery) -> None:
    """Whatever is logged of a delivery carries its ids, and that of the generation that it tells of."""
    ids = {"delivery_id": str(delivery.id), "endpoint_id": str(delivery.endpoint_id)}
    if "generation_id" in delivery.data:
        ids["generation_id"] = delivery.data["generation_id"]
    structlog.contextvars.bind_contextvars(**ids)

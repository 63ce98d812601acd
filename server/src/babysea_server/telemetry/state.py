"""What stands in a region's database, read every ten seconds by its workers: queues, ledger, providers."""

from collections.abc import Awaitable, Callable, Mapping

from babysea_server.db.pool import Database
from babysea_server.kit.clock import Clock
from babysea_server.telemetry import store
from babysea_server.telemetry.metrics import PROVIDER_STATUSES, WorkerMetrics

EVERY_S = 10.0


class State:
    """Keeps the figures of a region's database up to date; every worker reads them, whoever did the work.

    Args:
        statuses: the status of each provider, by id.
    """

    def __init__(
        self,
        db: Database,
        region: str,
        metrics: WorkerMetrics,
        statuses: Callable[[], Awaitable[Mapping[str, str]]],
        clock: Clock,
    ) -> None:
        self._db = db
        self._region = region
        self._metrics = metrics
        self._statuses = statuses
        self._clock = clock
        self._ledger_read_to: int | None = None

    async def read(self) -> None:
        """Read all of it: one statement for the queues, one for what is new in the ledger, and the breaker's window.

        Raises:
            DatabaseUnavailableError, asyncpg.PostgresError: the figures stay as they were.
        """
        metrics, region = self._metrics, self._region
        queues = await store.queues(self._db)
        for state in ("due", "leased", "overdue"):
            metrics.queue.labels(region, state).set(queues[f"generations_{state}"])
        for state in ("due", "leased"):
            metrics.webhooks.labels(region, state).set(queues[f"webhooks_{state}"])
        metrics.queue_age.labels(region).set(queues["generations_age_s"])
        metrics.webhooks_age.labels(region).set(queues["webhooks_age_s"])
        await self._read_ledger()
        for provider, present in (await self._statuses()).items():
            for status in PROVIDER_STATUSES:
                metrics.providers.labels(region, provider, status).set(status == present)
        metrics.read_at.labels(region).set(self._clock.now().timestamp())

    async def _read_ledger(self) -> None:
        if self._ledger_read_to is None:
            self._ledger_read_to = await store.ledger_end(self._db)
        # All kinds are read to the same row, whichever of them was the last.
        for row in await store.ledger_after(self._db, self._ledger_read_to):
            self._ledger_read_to = max(self._ledger_read_to, row["read_to"])
            self._metrics.ledger.labels(self._region, row["kind"]).inc(row["amount"])
            self._metrics.ledger_rows.labels(self._region, row["kind"]).inc(row["rows"])

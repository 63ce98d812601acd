"""Telling workers of all processes that there is work, without a notification per request."""

import asyncio

import asyncpg
import structlog

from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.kit.tasks import end

_log = structlog.get_logger(__name__)

CHANNEL = "generations_due"
#: Sent by `cancel_generation_v1` with the generation's id.
CANCELED = "generations_canceled"
_INTERVAL_S = 0.004


class Wakeup:
    """Sends one NOTIFY for all pokes of a few milliseconds.

    Not part of the admission's own transaction: NOTIFY takes a lock of the whole database at commit, which
    would put all admissions in line. A lost notification costs a poll interval, never work.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin in the background."""
        self._task = asyncio.create_task(self._run(), name="wakeup")

    async def close(self) -> None:
        """Stop; whoever was poked and not told finds the work by polling."""
        await end([self._task])

    def poke(self) -> None:
        """There is work."""
        self._poked.set()

    async def _run(self) -> None:
        while True:
            await self._poked.wait()
            self._poked.clear()
            try:
                await self._db.execute(f"SELECT pg_notify('{CHANNEL}', '')")
            except (DatabaseUnavailableError, asyncpg.InternalClientError, asyncpg.PostgresError) as error:
                _log.debug("wakeup_not_sent", error=str(error))
            await asyncio.sleep(_INTERVAL_S)

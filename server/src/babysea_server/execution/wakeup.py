"""Telling workers of all processes that there is work, without a notification per request."""

import asyncio
from uuid import UUID

import asyncpg
import structlog

from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.kit.tasks import end

_log = structlog.get_logger(__name__)

CHANNEL = "generations_due"
#: Sent by `cancel_generation_v1` with the generation's id.
CANCELED = "generations_canceled"
#: Sent with an attempt's id when its provider called back.
ANNOUNCED = "attempts_announced"
_INTERVAL_S = 0.004
#: Announcements that wait to be sent; what is more is found by polling.
_ANNOUNCEMENTS_MAX = 10_000


class Wakeup:
    """Sends one NOTIFY for all pokes of a few milliseconds, and one statement for all announcements.

    Not part of the admission's own transaction: NOTIFY takes a lock of the whole database at commit, which
    would put all admissions in line. A lost notification costs a poll interval, never work.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._poked = asyncio.Event()
        self._due = False
        self._announced: set[UUID] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin in the background."""
        self._task = asyncio.create_task(self._run(), name="wakeup")

    async def close(self) -> None:
        """Stop; whoever was poked and not told finds the work by polling."""
        await end([self._task])

    def poke(self) -> None:
        """There is work."""
        self._due = True
        self._poked.set()

    def announce(self, attempt_id: UUID) -> None:
        """An attempt's provider called back: whoever waits for it may ask at once."""
        if len(self._announced) < _ANNOUNCEMENTS_MAX:
            self._announced.add(attempt_id)
            self._poked.set()

    async def _run(self) -> None:
        while True:
            await self._poked.wait()
            self._poked.clear()
            due, self._due = self._due, False
            announced, self._announced = self._announced, set()
            try:
                if due:
                    await self._db.execute("SELECT pg_notify($1, '')", CHANNEL)
                if announced:
                    await self._db.execute(
                        "SELECT pg_notify($1, id::text) FROM unnest($2::uuid[]) AS id",
                        ANNOUNCED,
                        list(announced),
                    )
            except (DatabaseUnavailableError, asyncpg.InternalClientError, asyncpg.PostgresError) as error:
                _log.debug("wakeup_not_sent", error=str(error))
            await asyncio.sleep(_INTERVAL_S)

"""Work that is done again and again in the background, whatever goes wrong with it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import structlog

from babysea_server.db.pool import DatabaseUnavailableError, fault_of
from babysea_server.kit.clock import Clock

_log = structlog.get_logger(__name__)

_FAULTS = (DatabaseUnavailableError, asyncpg.InternalClientError, asyncpg.PostgresError)


def every(name: str, seconds: float, work: Callable[[], Awaitable[Any]], clock: Clock) -> asyncio.Task[None]:
    """A task that does `work` now and again `seconds` after each end, until it is cancelled.

    A database that is away is one line in the log; any other fault is logged with its trace. Each worker does
    all periodic work: what must not be done twice at once is claimed in the database, by the work itself or by turns.
    """

    async def forever() -> None:
        while True:
            try:
                await work()
            except _FAULTS as error:
                _log.warning("periodic_work_failed", work=name, error=fault_of(error))
            except Exception:
                _log.exception("periodic_work_failed", work=name)
            await clock.sleep(seconds)

    return asyncio.create_task(forever(), name=f"periodic-{name}")

"""Which custom domains are active, as every API process knows it without asking."""

import asyncio
from collections.abc import Mapping
from uuid import UUID

import asyncpg
import structlog

from babysea_server.accounts import domain_store as store
from babysea_server.db.pool import Database, DatabaseUnavailableError, Listener, fault_of
from babysea_server.kit.clock import Clock
from babysea_server.kit.tasks import end

_log = structlog.get_logger(__name__)

#: How often all of them are read while changes are heard, and while they are not.
_EVERY_S = 30.0
_EVERY_DEAF_S = 1.0


class DomainHosts:
    """The active custom domains of one region: told of changes by NOTIFY, and read anew now and then.

    While the database is away what was known stays.
    """

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._accounts: Mapping[str, UUID] = {}
        self._changed = asyncio.Event()
        self._listener: Listener | None = None
        self._task: asyncio.Task[None] | None = None

    def account_of(self, hostname: str) -> UUID | None:
        """The account whose active domain it is, or None; the name in lower case, without port."""
        return self._accounts.get(hostname)

    def start(self) -> None:
        """Read them, and hear of changes, in the background."""
        # An account that is deleted takes its domain with it.
        channels = [store.CHANNEL, "accounts_changed"]
        self._listener = self._db.listen(channels, lambda _channel, _payload: self._changed.set())
        self._task = asyncio.create_task(self._read_forever(), name="custom-domains")

    async def close(self) -> None:
        """Stop; the listener ends with the database."""
        await end([self._task])

    async def _read_forever(self) -> None:
        while True:
            self._changed.clear()
            try:
                self._accounts = await store.active(self._db)
            except (DatabaseUnavailableError, asyncpg.PostgresError) as error:
                _log.warning("custom_domains_not_read", error=fault_of(error))
            await self._wait()

    async def _wait(self) -> None:
        """Until something has changed or may have, and not for ever."""
        due = self._clock.monotonic() + _EVERY_S
        while not self._changed.is_set() and self._clock.monotonic() < due:
            pause = asyncio.ensure_future(self._clock.sleep(_EVERY_DEAF_S))
            change = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait([pause, change], return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end([pause, change])
            if self._listener is None or not self._listener.hearing:
                break

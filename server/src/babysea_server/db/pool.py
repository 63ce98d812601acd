"""One region's database as the other packages see it: a pool, LISTEN, and one exception for "not there"."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import msgspec
import structlog

from babysea_server.db.migrations import USERS_CLASS, newest_finishing_revision
from babysea_server.kit.tasks import end

_log = structlog.get_logger(__name__)

#: A listener that was not answered for longer no longer counts as hearing. Whoever relies on notices to be
#: told within a second (revoked keys) falls back to asking in time.
_DEAF_AFTER_S = 0.9
_PING_EVERY_S = 0.3
_PING_TIMEOUT_S = 5.0

_GONE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that was told to go while it was idle
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)


class DatabaseUnavailableError(Exception):
    """The database could not be asked, or its answer was lost.

    `sent` says which: False means that the statement certainly had no effect.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


def fault_of(error: Exception) -> str:
    """A fault for the log: what it is and where, never the values that PostgreSQL or its driver quote in it."""
    if isinstance(error, asyncpg.PostgresError):
        where = error.constraint_name or error.table_name
        return f"{type(error).__name__} {error.sqlstate}" + (f" ({where})" if where else "")
    return str(error) if isinstance(error, DatabaseUnavailableError) else type(error).__name__


async def _no_reset(_: Any) -> None:
    """No session state is ever changed on a pooled connection, so there is nothing to reset."""


async def _prepare(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\x01" + msgspec.json.encode(value),
        decoder=lambda data: msgspec.json.decode(data[1:]),
        format="binary",
    )


class PoolUsage(msgspec.Struct, frozen=True):
    """The connections of a pool now, and how many wait for one."""

    used: int
    idle: int
    waiting: int


class Database:
    """A pool of connections to one region's database.

    Args:
        dsn: connection string.
        name: for the server's own list of connections, e.g. `babysea-api`.
        size: connections at most.
        statement_timeout_s: the server itself gives up a statement after this long.
    """

    def __init__(self, dsn: str, *, name: str, size: int = 10, statement_timeout_s: float = 10.0) -> None:
        self.dsn = dsn
        self._name = name
        self._size = size
        self._statement_timeout_s = statement_timeout_s
        self._pool: Any = None
        self._listeners: list[Listener] = []
        self._waiting = 0

    @property
    def name(self) -> str:
        """Its name in the server's own list of connections."""
        return self._name

    @property
    def size(self) -> int:
        """Connections at most."""
        return self._size

    @property
    def usage(self) -> PoolUsage:
        """How the pool is used now."""
        if self._pool is None:
            return PoolUsage(0, 0, self._waiting)
        idle: int = self._pool.get_idle_size()
        return PoolUsage(self._pool.get_size() - idle, idle, self._waiting)

    async def open(self) -> None:
        """Make the pool; connections are made on demand, so the database may still be away."""
        self._pool = await asyncpg.create_pool(
            self.dsn,
            min_size=0,
            max_size=self._size,
            max_inactive_connection_lifetime=300,
            timeout=5,
            # Behind the server's own limit: it only fires when the network is gone.
            command_timeout=self._statement_timeout_s + 5,
            server_settings={
                "application_name": self._name,
                "statement_timeout": str(int(self._statement_timeout_s * 1000)),
                "idle_in_transaction_session_timeout": "30000",
            },
            init=_prepare,
            reset=_no_reset,
        )

    async def close(self) -> None:
        """Close everything within five seconds."""
        for listener in self._listeners:
            await listener.close()
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), 5)
            except TimeoutError:
                self._pool.terminate()

    @asynccontextmanager
    async def connection(self, *, acquire_timeout_s: float = 2.0) -> AsyncIterator[Any]:
        """Borrow a connection.

        Raises:
            DatabaseUnavailableError: none was to be had (`sent=False`), or it broke while in use (`sent=True`).
        """
        self._waiting += 1
        try:
            connection = await self._pool.acquire(timeout=acquire_timeout_s)
        except (*_GONE, asyncpg.PostgresError) as error:
            raise DatabaseUnavailableError(f"no database connection: {error}", sent=False) from error
        finally:
            self._waiting -= 1
        try:
            yield connection
        except _GONE as error:
            if isinstance(error, ValueError):  # the driver found an argument of the wrong type: our own fault
                raise
            raise DatabaseUnavailableError(f"the database went away: {error}", sent=True) from error
        finally:
            with suppress(*_GONE):
                await self._pool.release(connection, timeout=2)

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """All rows of one statement."""
        async with self.connection() as connection:
            rows: list[Any] = await connection.fetch(query, *arguments)
            return rows

    async def fetchrow(self, query: str, *arguments: Any) -> Any:
        """The first row of one statement, or None."""
        async with self.connection() as connection:
            return await connection.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        """The first column of the first row, or None."""
        async with self.connection() as connection:
            return await connection.fetchval(query, *arguments)

    async def execute(self, query: str, *arguments: Any) -> int:
        """Run one statement; returns how many rows it touched."""
        async with self.connection() as connection:
            status: str = await connection.execute(query, *arguments)
            count = status.rpartition(" ")[2]
            return int(count) if count.isdecimal() else 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A connection inside one transaction."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    def listen(self, channels: Sequence[str], on_notice: Callable[[str, str], None]) -> "Listener":
        """Hear NOTIFY on `channels` over a connection of its own, for as long as this object is open."""
        listener = Listener(self.dsn, self._name, channels, on_notice)
        self._listeners.append(listener)
        listener.start()
        return listener


class Listener:
    """Keeps one LISTEN connection alive and says whether it currently hears anything.

    `on_notice(channel, payload)` is called for each notification, and once with payload `""` for every channel
    after each (re)connection: whatever happened while deaf must be assumed to have happened.
    """

    def __init__(
        self, dsn: str, name: str, channels: Sequence[str], on_notice: Callable[[str, str], None]
    ) -> None:
        self._dsn = dsn
        self._name = name
        self._channels = channels
        self._on_notice = on_notice
        self._task: asyncio.Task[None] | None = None
        self._answered_at: float | None = None

    @property
    def hearing(self) -> bool:
        """Whether a notice sent a second ago would have been heard."""
        if self._answered_at is None:
            return False
        return asyncio.get_running_loop().time() - self._answered_at < _DEAF_AFTER_S

    def start(self) -> None:
        """Begin in the background."""
        self._task = asyncio.create_task(self._run(), name="listen")

    async def close(self) -> None:
        """Stop hearing."""
        await end([self._task])
        self._task = None

    async def _run(self) -> None:
        pause = 0.1
        while True:
            try:
                await self._hear()
                pause = 0.1
            except (*_GONE, asyncpg.PostgresError) as error:
                _log.debug("listen_interrupted", error=str(error))
            finally:
                self._answered_at = None
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _hear(self) -> None:
        connection = await asyncpg.connect(
            self._dsn, timeout=5, server_settings={"application_name": f"{self._name}-listen"}
        )
        lost = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            # As long as this process is connected, nobody takes away what its version needs.
            await connection.execute(
                f"SELECT pg_advisory_lock_shared({USERS_CLASS}, {int(newest_finishing_revision())})"
            )
            for channel in self._channels:
                await connection.add_listener(channel, self._heard)
            self._answered_at = loop.time()
            for channel in self._channels:
                self._on_notice(channel, "")
            while not lost.is_set():
                # A dead peer that never closes is found by asking; an idle LISTEN would wait for ever.
                with suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), _PING_EVERY_S)
                if not lost.is_set():
                    asked_at = loop.time()
                    await connection.execute("SELECT 1", timeout=_PING_TIMEOUT_S)
                    self._answered_at = asked_at
        finally:
            connection.terminate()

    def _heard(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        self._on_notice(channel, str(payload))

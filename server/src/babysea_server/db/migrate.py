"""Bringing a database's schema up to date: forward only, safe when many processes start at once.

Preparing steps run while older processes work; finishing steps when none is left. `db.migrations` tells of both.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from typing import Any

import asyncpg
import msgspec
import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from babysea_server.db.migrations import USERS_CLASS, newest_finishing_revision

_log = structlog.get_logger(__name__)

#: Any constant will do, as long as every process uses the same: ASCII "babysea".
_LOCK = 0x62616279736561
_LOCK_TIMEOUT_S = 120
#: Who waits for a table's lock holds up all who come after; a step lets them pass and asks again.
_TABLE_LOCK_TIMEOUT = "2s"
_TABLE_LOCK_TRIES = 30
_TABLE_LOCK_PAUSE_S = 1.0


class OlderProcessesError(RuntimeError):
    """Processes that need what is to be taken away are connected; the message says which."""


class _Chain(msgspec.Struct, frozen=True):
    """Steps that follow each other."""

    folder: str
    table: str
    """Where a database keeps how far it has come."""

    def config(self) -> Config:
        root = resources.files("babysea_server.db.migrations")
        config = Config()
        config.set_main_option("script_location", str(root))
        config.set_main_option("version_locations", str(root / self.folder))
        config.set_main_option("path_separator", "newline")
        config.attributes["version_table"] = self.table
        return config

    def head(self) -> str | None:
        """The newest step; None: there is none."""
        return ScriptDirectory.from_config(self.config()).get_current_head()

    def upgrade(self, connection: Connection, to: str | None = None) -> tuple[str | None, str | None]:
        """Run what is missing, up to a step or all; the steps before and after."""
        options = {"version_table": self.table}
        before = MigrationContext.configure(connection, opts=options).get_current_revision()
        connection.rollback()
        target = to or self.head()
        if target is not None and before != target:
            config = self.config()
            config.attributes["connection"] = connection
            command.upgrade(config, target)
        return before, target


_PREPARING = _Chain("versions", "alembic_version")
_FINISHING = _Chain("finishing", "alembic_version_finishing")


def head() -> str:
    """The newest preparing step that this version of the server knows."""
    revision = _PREPARING.head()
    assert revision is not None
    return revision


async def migrate(dsn: str, *, to: str | None = None) -> tuple[str | None, str]:
    """Apply all missing preparing steps, or those up to `to`; returns the revisions before and after.

    One process migrates, the others wait for it (an advisory lock held by a connection of its own, so that
    a killed process frees it). Each step is one transaction, so a killed run resumes where it stopped.

    Raises:
        OSError, asyncpg.PostgresError: the database is not reachable or refuses.
        TimeoutError: another process has been migrating for more than two minutes.
    """
    async with _alone(dsn):
        before, after = await _upgrade(dsn, partial(_PREPARING.upgrade, to=to))
    assert after is not None
    return before, after


async def finish(dsn: str) -> tuple[str | None, str | None]:
    """Apply all missing finishing steps of a prepared database; returns the steps before and after.

    Raises:
        OlderProcessesError: some are connected that know of fewer steps; nothing was done.
        OSError, asyncpg.PostgresError, TimeoutError: as `migrate`.
    """
    async with _alone(dsn) as keeper:
        target = _FINISHING.head()
        if target is None or await finished(keeper) == target:
            return target, target
        older = await keeper.fetch(_OLDER, USERS_CLASS, int(newest_finishing_revision()))
        if older:
            named = ", ".join(f"{row['name']} from {row['address']} ({row['processes']})" for row in older)
            raise OlderProcessesError(f"processes of an older version are connected: {named}")
        return await _upgrade(dsn, _FINISHING.upgrade)


async def finished(connection: Any) -> str | None:
    """The last finishing step that was applied to a database."""
    if await connection.fetchval("SELECT to_regclass($1)", _FINISHING.table) is None:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version_finishing")
    return revision


_OLDER = """
SELECT coalesce(nullif(regexp_replace(a.application_name, '-listen$', ''), ''), 'unnamed') AS name,
       coalesce(host(a.client_addr), 'this machine') AS address, count(DISTINCT a.pid) AS processes
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = $1::int8::oid AND l.objid < $2::int8::oid
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
GROUP BY 1, 2 ORDER BY 1, 2
"""


@asynccontextmanager
async def _alone(dsn: str) -> AsyncIterator[Any]:
    """Hold the lock of those who migrate; yields the connection that does."""
    keeper = await asyncpg.connect(dsn, timeout=30)
    try:
        try:
            await keeper.execute("SELECT pg_advisory_lock($1)", _LOCK, timeout=_LOCK_TIMEOUT_S)
        except TimeoutError:
            raise TimeoutError(f"another process has been migrating it for {_LOCK_TIMEOUT_S} s") from None
        yield keeper
    finally:
        await keeper.close(timeout=5)


async def _upgrade(
    dsn: str, upgrade: Callable[[Connection], tuple[str | None, str | None]]
) -> tuple[str | None, str | None]:
    settings = {"lock_timeout": _TABLE_LOCK_TIMEOUT, "application_name": "babysea-migrate"}
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(dsn, timeout=30, server_settings=settings),
        poolclass=NullPool,
    )
    try:
        for tries in range(1, _TABLE_LOCK_TRIES + 1):
            try:
                async with engine.connect() as connection:
                    before, after = await connection.run_sync(upgrade)
                    await connection.commit()
                return before, after
            except asyncpg.LockNotAvailableError:
                if tries == _TABLE_LOCK_TRIES:
                    raise
                _log.info("migration_waits", reason="a table is in use for long", tries=tries)
                await asyncio.sleep(_TABLE_LOCK_PAUSE_S)
        raise AssertionError("unreachable")
    finally:
        await engine.dispose()

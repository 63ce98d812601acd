"""Bringing a database's schema up to date: forward only, safe when many processes start at once."""

from importlib import resources

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

#: Any constant will do, as long as every process uses the same: ASCII "babysea".
_LOCK = 0x62616279736561
_LOCK_TIMEOUT_S = 120


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.files("babysea_server.db.migrations")))
    return config


def head() -> str:
    """The newest revision this version of the server knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


async def migrate(dsn: str) -> tuple[str | None, str]:
    """Apply all missing migrations; returns the revisions before and after.

    One process migrates, the others wait for it (an advisory lock held by a connection of its own, so that
    a killed process frees it). Each migration is one transaction, so a killed run resumes where it stopped.

    Raises:
        OSError, asyncpg.PostgresError: the database is not reachable or refuses.
        TimeoutError: another process has been migrating for more than two minutes.
    """
    keeper = await asyncpg.connect(dsn, timeout=30)
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn, timeout=30), poolclass=NullPool
    )
    try:
        try:
            await keeper.execute("SELECT pg_advisory_lock($1)", _LOCK, timeout=_LOCK_TIMEOUT_S)
        except TimeoutError:
            raise TimeoutError(f"another process has been migrating it for {_LOCK_TIMEOUT_S} s") from None
        async with engine.connect() as connection:
            before, after = await connection.run_sync(_upgrade)
            await connection.commit()
        return before, after
    finally:
        await engine.dispose()
        await keeper.close(timeout=5)


def _upgrade(connection: Connection) -> tuple[str | None, str]:
    before = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    target = head()
    if before != target:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, target

"""The databases of all regions, wherever they are: external by URL, else embedded."""

import asyncio
from collections.abc import Sequence

import asyncpg
import structlog

from babysea_server.db.embedded import EmbeddedPostgres, EmbeddedPostgresError
from babysea_server.db.migrations import known_revisions, newest_revision
from babysea_server.settings import Settings

_log = structlog.get_logger(__name__)


class SchemaError(RuntimeError):
    """A database is not reachable or its schema is not this version's; the message says what to do."""


class Cluster:
    """Finds, and where it is embedded also runs, the database of each region of this process."""

    def __init__(self, settings: Settings, regions: Sequence[str] | None = None) -> None:
        self._settings = settings
        self._regions = tuple(regions or settings.regions)
        external = [region for region in self._regions if settings.database_url(region)]
        self._embedded = EmbeddedPostgres(settings.data_path) if len(external) < len(self._regions) else None
        self._dsn: dict[str, str] = {}

    @property
    def embedded(self) -> EmbeddedPostgres | None:
        """The embedded server, where any region uses it."""
        return self._embedded

    def dsn(self, region: str) -> str:
        """Connection string of a region; after `open`."""
        return self._dsn[region]

    async def open(self, *, migrate_external: bool = False) -> None:
        """Make every region's database reachable and its schema right.

        An embedded database is brought up to date by whoever opens it. An external one only with
        `migrate_external` (`up`, `migrate`): elsewhere an old schema is refused.

        Raises:
            SchemaError, EmbeddedPostgresError
        """
        if self._embedded is not None:
            await asyncio.to_thread(self._embedded.attach)
        for region in self._regions:
            url = self._settings.database_url(region)
            if url is not None:
                self._dsn[region] = url
            else:
                assert self._embedded is not None
                self._dsn[region] = await self._embedded.ensure_database(f"babysea_{region}")
            await self._prepare(region, may_migrate=url is None or migrate_external)

    async def close(self) -> None:
        """Let go of the embedded server; the last process to do so stops it."""
        if self._embedded is not None:
            try:
                await asyncio.to_thread(self._embedded.detach)
            except EmbeddedPostgresError as error:
                _log.warning("postgres_not_stopped", error=str(error))

    async def _prepare(self, region: str, *, may_migrate: bool) -> None:
        dsn, target = self._dsn[region], newest_revision()
        try:
            current = await _revision(dsn)
            if current is not None and current not in known_revisions():
                raise SchemaError(
                    f"the database of region {region} is at revision {current}, made by a newer babysea-server "
                    f"than this one, which ends at {target}: run the newer one"
                )
            if current != target and may_migrate:
                from babysea_server.db.migrate import migrate  # see `known_revisions`

                before, current = await migrate(dsn)
                if before != current:
                    _log.info("migrated", region=region, before=before, after=current)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise SchemaError(f"the database of region {region} cannot be used: {reason}") from error
        if current != target:
            found = "has no schema yet" if current is None else f"is at revision {current}"
            raise SchemaError(
                f"the database of region {region} {found}, this server needs {target}: "
                "run `babysea-server migrate`"
            )


async def _revision(dsn: str) -> str | None:
    connection = await asyncpg.connect(dsn, timeout=30)
    try:
        revision: str | None = await connection.fetchval(
            "SELECT version_num FROM alembic_version", timeout=10
        )
        return revision
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close(timeout=5)

"""The databases of all regions, wherever they are: external by URL, else embedded."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import asyncpg
import msgspec
import structlog

from babysea_server.db.embedded import EmbeddedPostgres, EmbeddedPostgresError
from babysea_server.db.migrations import (
    known_finishing_revisions,
    known_revisions,
    newest_finishing_revision,
    newest_revision,
)
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
        `migrate_external` (`up`, `migrate`): elsewhere an old schema is refused. One that a newer version
        prepared is served until the upgrade to that version is finished.

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

    async def finish(self, *, embedded_only: bool = False) -> None:
        """Apply the finishing steps of regions that are open: after it no older process can work on them.

        Raises:
            SchemaError: older processes are connected, or the database cannot be used.
        """
        for region, dsn in self._dsn.items():
            if embedded_only and self._settings.database_url(region) is not None:
                continue
            with _named(region):
                schema = await _schema(dsn)
                if schema.is_finished_by_newer or (schema.finished or "0000") == newest_finishing_revision():
                    continue
                from babysea_server.db.migrate import OlderProcessesError, finish  # see `known_revisions`

                try:
                    before, after = await finish(dsn)
                except OlderProcessesError as error:
                    raise SchemaError(
                        f"the upgrade of region {region} cannot be finished yet: {error}; "
                        "stop them and run `babysea-server migrate --finish` again"
                    ) from None
            if before != after:
                _log.info("upgrade_finished", region=region, before=before, after=after)

    async def _prepare(self, region: str, *, may_migrate: bool) -> None:
        dsn, target = self._dsn[region], newest_revision()
        with _named(region):
            schema = await _schema(dsn)
            current = schema.prepared
            if schema.is_finished_by_newer or schema.is_prepared_by_newer:
                _check_newer(region, schema)
                return
            if current != target and may_migrate:
                from babysea_server.db.migrate import migrate  # see `known_revisions`

                before, current = await migrate(dsn)
                if before != current:
                    _log.info("migrated", region=region, before=before, after=current)
        if current != target:
            found = "has no schema yet" if current is None else f"is at revision {current}"
            raise SchemaError(
                f"the database of region {region} {found}, this server needs {target}: "
                "run `babysea-server migrate`"
            )


class _Schema(msgspec.Struct, frozen=True):
    """How far a database has come in both chains of steps."""

    prepared: str | None
    finished: str | None

    @property
    def is_prepared_by_newer(self) -> bool:
        """Whether a newer version added to it."""
        return self.prepared is not None and self.prepared not in known_revisions()

    @property
    def is_finished_by_newer(self) -> bool:
        """Whether a newer version took away what this one may need."""
        return self.finished is not None and self.finished not in known_finishing_revisions()


def _check_newer(region: str, schema: _Schema) -> None:
    """Whether this version can work on what a newer one made: until somebody finished the upgrade to it."""
    if schema.is_finished_by_newer:
        raise SchemaError(
            f"the database of region {region} is at revision {schema.prepared}, made by a newer babysea-server "
            f"than this one, which ends at {newest_revision()}, and the upgrade is finished: run the newer one"
        )
    _log.warning(
        "schema_is_newer",
        region=region,
        revision=schema.prepared,
        meaning="an upgrade is under way; this version works until it is finished",
    )


#: How far each chain has come, by the table that says so.
_VERSIONS = {
    "alembic_version": "SELECT version_num FROM alembic_version",
    "alembic_version_finishing": "SELECT version_num FROM alembic_version_finishing",
}


@contextmanager
def _named(region: str) -> Iterator[None]:
    """What the database does not do becomes an error that names the region, and no password."""
    try:
        yield
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise SchemaError(f"the database of region {region} cannot be used: {reason}") from error


async def _schema(dsn: str) -> _Schema:
    connection = await asyncpg.connect(dsn, timeout=30)
    try:
        found = [
            await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table, timeout=10)
            and await connection.fetchval(query, timeout=10)
            for table, query in _VERSIONS.items()
        ]
        return _Schema(*(revision or None for revision in found))
    finally:
        await connection.close(timeout=5)

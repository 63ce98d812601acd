"""Databases for tests: each as if freshly migrated, and few of them really made.

Copying a template and dropping the copy costs a third of a second of the server's time, for every test. A database
that a test only wrote rows into is emptied instead, which costs a few milliseconds. Whatever else was done to it
(anything of its schema changed, somebody still connected, much written) it is dropped as ever.
"""

import io
import itertools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.migrate import migrate

#: A crash of a server loses nothing without them, one of the machine may; most of what a test waits for is the disk.
_FORGETFUL = "fsync = off\nfull_page_writes = off\n"
_TEMPLATE = "babysea_template"
#: A database that grew by more than this is dropped: what a test reads must not cost more for those before it.
_GROWN_BYTES = 8 << 20

_OURS = "IN (SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')"
#: Changes with every change of a schema: names, columns, constraints, triggers (and whether they fire), functions.
_SCHEMA = f"""
    SELECT md5(concat_ws(';',
        (SELECT string_agg(format('%s %s %s %s', oid, relname, relkind, reloptions), ',' ORDER BY oid)
           FROM pg_class WHERE relnamespace {_OURS}),
        (SELECT string_agg(format('%s %s %s', attrelid, attname, attnotnull), ',' ORDER BY attrelid, attnum)
           FROM pg_attribute JOIN pg_class c ON c.oid = attrelid AND relnamespace {_OURS}),
        (SELECT string_agg(format('%s %s', oid, xmin), ',' ORDER BY oid) FROM pg_proc WHERE pronamespace {_OURS}),
        (SELECT string_agg(format('%s %s', oid, xmin), ',' ORDER BY oid)
           FROM pg_constraint WHERE connamespace {_OURS}),
        (SELECT string_agg(format('%s %s %s', oid, tgname, tgenabled), ',' ORDER BY oid) FROM pg_trigger),
        (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_namespace WHERE oid {_OURS}),
        (SELECT count(*) FROM pg_db_role_setting WHERE setdatabase = (
            SELECT oid FROM pg_database WHERE datname = current_database()))))"""
_TABLES = f"""
    SELECT format('%I.%I', nspname, relname) AS name, nspname, relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' AND relnamespace {_OURS} ORDER BY 1"""
_SEQUENCES = """
    SELECT format('%I.%I', schemaname, sequencename), coalesce(last_value, start_value), last_value IS NOT NULL
    FROM pg_sequences"""
_OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def forget_power_cuts(data_dir: Path) -> None:
    """Let the embedded server of a data directory, which may run, not wait for the disk: no test cuts the power."""
    (data_dir / "postgres" / "conf.d" / "tests.conf").write_text(_FORGETFUL)
    running = EmbeddedPostgres(data_dir).postmaster_pid()
    if running is not None:
        os.kill(running, signal.SIGHUP)


@dataclass(frozen=True)
class _Pristine:
    """What a freshly migrated database is like."""

    schema: str
    size: int
    which: str
    """A query for the names of the tables that have rows."""
    seeds: dict[tuple[str, str], bytes]
    """The rows that a migration wrote, by schema and table."""
    sequences: str


@dataclass
class Databases:
    """All databases of one test process's server."""

    postgres: EmbeddedPostgres
    _numbers: Any = field(default_factory=lambda: itertools.count(1))
    _free: list[str] = field(default_factory=list)
    _pristine: _Pristine | None = None

    async def open(self) -> None:
        """Make the template."""
        await migrate(await self.postgres.ensure_database(_TEMPLATE))
        connection = await asyncpg.connect(self.postgres.dsn(_TEMPLATE))
        try:
            self._pristine = await _look(connection)
        finally:
            await connection.close()

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[str]:
        """Connection string of a database that is migrated and empty."""
        name = self._free.pop() if self._free else await self._made()
        yield self.postgres.dsn(name)
        if await self._emptied(name):
            self._free.append(name)
        else:
            await self._admin(f'DROP DATABASE "{name}" WITH (FORCE)')

    async def _made(self) -> str:
        name = f"test_{next(self._numbers)}"
        await self._admin(f'CREATE DATABASE "{name}" TEMPLATE "{_TEMPLATE}"')
        return name

    async def _emptied(self, name: str) -> bool:
        assert self._pristine is not None
        try:
            # Whoever holds a lock is somebody that is still connected, or a server that is not well.
            patience = {"lock_timeout": "2000", "statement_timeout": "10000"}
            connection = await asyncpg.connect(
                self.postgres.dsn(name), timeout=10, command_timeout=20, server_settings=patience
            )
        except (asyncpg.PostgresError, OSError, TimeoutError):
            return False
        try:
            return await _empty(connection, self._pristine)
        except (asyncpg.PostgresError, TimeoutError):
            return False
        finally:
            await connection.close(timeout=5)

    async def _admin(self, statement: str) -> None:
        connection = await asyncpg.connect(self.postgres.dsn("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


async def _look(connection: Any) -> _Pristine:
    tables = {row["name"]: row for row in await connection.fetch(_TABLES)}
    which = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {name})" for name in tables)
    seeds = {}
    for (name,) in await connection.fetch(which):
        rows = io.BytesIO()
        schema, table = tables[name]["nspname"], tables[name]["relname"]
        await connection.copy_from_table(table, schema_name=schema, output=rows, format="binary")
        seeds[schema, table] = rows.getvalue()
    return _Pristine(
        schema=await connection.fetchval(_SCHEMA),
        size=await connection.fetchval("SELECT pg_database_size(current_database())"),
        which=which,
        seeds=seeds,
        sequences="; ".join(
            f"SELECT setval('{name}', {value}, {str(called).lower()})"
            for name, value, called in await connection.fetch(_SEQUENCES)
        ),
    )


async def _empty(connection: Any, pristine: _Pristine) -> bool:
    """Make it as it was, if that can be done by taking rows away; says whether it could."""
    if await connection.fetchval(_OTHERS) or await connection.fetchval(_SCHEMA) != pristine.schema:
        return False
    if (
        await connection.fetchval("SELECT pg_database_size(current_database())")
        > pristine.size + _GROWN_BYTES
    ):
        return False
    async with connection.transaction():
        # No trigger fires and no foreign key is looked at: everything goes. Truncated and not deleted, so that rows
        # lie in a table as they were written, as in a new one.
        await connection.execute("SET LOCAL session_replication_role = replica")
        written = [name for (name,) in await connection.fetch(pristine.which)]
        await connection.execute(f"TRUNCATE {', '.join(written)} CASCADE")
        for (schema, table), rows in pristine.seeds.items():
            await connection.copy_to_table(
                table, schema_name=schema, source=io.BytesIO(rows), format="binary"
            )
        await connection.execute(pristine.sequences)
    return True

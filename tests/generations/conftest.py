"""Connections between an API and its database that can be cut, and account rows that can be held."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tests.conftest import MakeDeployment
from tests.generations.wire import Wire
from tests.support import Customer, Deployment, eventually, make_customer

from babysea_server.catalog.catalog import Catalog, load_catalog
from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.pool import Database

#: Name of the connections that admission uses in these tests.
ADMISSION = "test-admission"

MakeDatabase = Callable[..., Awaitable[Database]]
Hold = Callable[[UUID], AbstractAsyncContextManager[None]]


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture
async def wire(dsn: str, postgres: EmbeddedPostgres) -> AsyncIterator[Wire]:
    """A TCP way to the test's database that can be cut."""
    database, _, folder = dsn.rpartition("/postgresql://")[2].partition("?host=")
    wire = Wire(f"{folder}/.s.PGSQL.5432", database.rpartition("/")[2])
    await wire.open()
    yield wire
    await wire.close()


@pytest.fixture
async def make_database() -> AsyncIterator[MakeDatabase]:
    """Open pools for admission on any connection string."""
    async with AsyncExitStack() as stack:

        async def make(dsn: str, **options: Any) -> Database:
            database = Database(dsn, name=ADMISSION, size=3, **options)
            await database.open()
            stack.push_async_callback(database.close)
            return database

        yield make


@pytest.fixture
def hold(dsn: str) -> Hold:
    """Hold an account's row from another connection, as a slow transaction would."""

    @asynccontextmanager
    async def holding(account_id: UUID) -> AsyncIterator[None]:
        connection = await asyncpg.connect(dsn)
        try:
            async with connection.transaction():
                await connection.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", account_id)
                yield
        finally:
            await connection.close()

    return holding


async def backends_waiting(db: Database, name: str = ADMISSION) -> list[int]:
    """Wait until backends of that name wait for a lock; their process ids."""

    async def waiting() -> list[int]:
        rows = await db.fetch(
            """SELECT pid FROM pg_stat_activity WHERE application_name = $1
               AND datname = current_database() AND wait_event_type = 'Lock' ORDER BY pid""",
            name,
        )
        return [row["pid"] for row in rows]

    return await eventually(waiting)


async def until_ended(task: "asyncio.Task[Any]") -> Any:
    """The task's result, without waiting for ever."""
    return await asyncio.wait_for(task, 30)


@pytest.fixture
async def api(make_deployment: MakeDeployment) -> Deployment:
    """An API without a worker: what is accepted stays in flight until the test ends it."""
    return await make_deployment(worker=False, admission_deadline_s=60)


@pytest.fixture
async def caller(api: Deployment) -> Customer:
    """A customer of `api`, plan unlimited, 100 credits."""
    return await make_customer(api)

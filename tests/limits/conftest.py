"""A Redis server, stores of both kinds, and APIs whose clock a test turns."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import deployment_settings
from tests.limits.servers import RedisServer, needs_redis
from tests.support import Deployment, ManualClock

from babysea_server.app.api import Api
from babysea_server.app.shared import build_shared
from babysea_server.db.pool import Database
from babysea_server.limits.counters import WindowCounters
from babysea_server.limits.redis import RedisCounters
from babysea_server.limits.store import PostgresCounters

_PLANS = """
[free]
requests_per_minute = 5
generations_in_flight = 1
[unlimited]
"""


MakeCounters = Callable[[], Awaitable[WindowCounters]]
MakeApi = Callable[..., Awaitable[Deployment]]


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A running, empty Redis."""
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    server.kill()


@pytest.fixture(params=["postgres", pytest.param("redis", marks=needs_redis)])
async def make_counters(
    request: pytest.FixtureRequest, dsn: str, tmp_path: Path
) -> AsyncIterator[MakeCounters]:
    """Opens the counters of one more process, all on one store."""
    async with AsyncExitStack() as stack:
        server = RedisServer(tmp_path)
        if request.param == "redis":
            await server.start()
            stack.callback(server.kill)

        async def make() -> WindowCounters:
            counters: WindowCounters
            if request.param == "redis":
                counters = RedisCounters(server.url, "us")
            else:
                counters = PostgresCounters(Database(dsn, name="limits", size=3))
            await counters.open()
            stack.push_async_callback(counters.close)
            return counters

        yield make


@pytest.fixture
def clock() -> ManualClock:
    """At the beginning of a minute, so that no window ends by itself."""
    return ManualClock(datetime.now(UTC).replace(second=0, microsecond=0))


@pytest.fixture
def plans_file(tmp_path: Path) -> str:
    """Plans in which `free` has five requests a minute and one generation in flight."""
    path = tmp_path / "plans.toml"
    path.write_text(_PLANS)
    return str(path)


@pytest.fixture
async def make_api(dsn: str, tmp_path: Path, plans_file: str, clock: ManualClock) -> AsyncIterator[MakeApi]:
    """Builds one more API process's worth of API, with the plans of `plans_file`."""
    async with AsyncExitStack() as stack:

        async def make(client_ip: str = "203.0.113.7", **overrides: Any) -> Deployment:
            settings = deployment_settings(tmp_path, plans_file=plans_file, **overrides)
            api = Api(build_shared(settings, clock), {"us": dsn})
            await api.open()
            stack.push_async_callback(api.close)
            transport = httpx.ASGITransport(app=api, client=(client_ip, 1234))
            client = await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://localhost")
            )
            return Deployment(settings, api, None, api.regions["us"].db, client)

        yield make

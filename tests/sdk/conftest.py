"""A server for the clients: in process for the one, behind a socket for the other."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import _deployment, deployment_settings
from tests.contract.sockets import serving
from tests.databases import Databases
from tests.sdk.clients import Side
from tests.support import Customer, Deployment, make_customer

from babysea import AsyncBabySea, BabySea, _waiting
from babysea_server.app.registries import provider_registry
from babysea_server.app.shared import build_shared


@dataclass
class Live:
    """A deployment, its port, and a customer of it."""

    deployment: Deployment
    customer: Customer
    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, kind: str, key: str | None = None, **options: Any) -> Side:
        key = key or self.customer.key
        if kind == "sync":
            return Side(BabySea(key, base_url=self.base_url, **options), threaded=True)
        transport = httpx.ASGITransport(app=self.deployment.api)
        http = httpx.AsyncClient(transport=transport)
        return Side(AsyncBabySea(key, base_url="http://localhost", http_client=http, **options))


@pytest.fixture(scope="module")
async def live(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    """One deployment for a module's tests, whose generations take no time worth waiting for."""
    folder: Path = tmp_path_factory.mktemp("live")
    shared = build_shared(deployment_settings(folder, sandbox_latency_s=0))
    async with AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(_waiting, "_FIRST_S", 0.05)
        dsn = await stack.enter_async_context(databases.fresh())
        deployment = await stack.enter_async_context(_deployment(shared, dsn, provider_registry, True))
        port = await stack.enter_async_context(serving(deployment.api))
        yield Live(deployment, await make_customer(deployment), port)


@pytest.fixture(params=["sync", "async"])
async def client(request: pytest.FixtureRequest, live: Live) -> AsyncIterator[Side]:
    """Each of the clients, of the same customer."""
    side = live.client(request.param)
    yield side
    await side.close()

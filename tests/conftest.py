"""Fixtures of the whole suite: a real PostgreSQL, a fresh migrated database for each test, an API in process."""

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from hypothesis import settings
from tests.contract.published import judge
from tests.databases import Databases, forget_power_cuts
from tests.emulators.kit import SECRET_MARK
from tests.support import Customer, Deployment, make_customer

from babysea_server.app.api import Api
from babysea_server.app.registries import RegistryFactory, provider_registry
from babysea_server.app.shared import Shared, build_shared
from babysea_server.app.workers import Workers
from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.pool import Database
from babysea_server.kit.clock import Clock
from babysea_server.settings import Settings, load_settings


def pytest_configure() -> None:
    """Set up the process.

    While tests are collected nearly all that is made stays: looking for garbage would be a fifth of the time.
    """
    gc.disable()
    # Machines are shared: how long an example takes says nothing about the code.
    settings.register_profile("suite", deadline=None)
    settings.load_profile("suite")


def pytest_collection_finish() -> None:
    """What was collected is not gone over again and again while the tests run."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Hashing one takes a third of a second of a processor, on purpose; what it takes is asked in test_passwords.py."""
    with pytest.MonkeyPatch.context() as patch:
        cheap = partial(PasswordHasher, time_cost=1, memory_cost=64, parallelism=1)
        patch.setattr("babysea_server.accounts.passwords.PasswordHasher", cheap)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The embedded server of this test process, stopped at the end.

    Not in pytest's own folder: another run of pytest on the machine takes away the permissions of that one, and
    as root the server runs as a user of its own.
    """
    with TemporaryDirectory(prefix="babysea-test-") as folder:
        server = EmbeddedPostgres(Path(folder))
        server.attach()
        forget_power_cuts(server.data_dir)
        yield server
        server.detach()


@pytest.fixture(scope="session")
async def databases(postgres: EmbeddedPostgres) -> Databases:
    """Fresh databases on that server."""
    databases = Databases(postgres)
    await databases.open()
    return databases


@pytest.fixture
async def dsn(databases: Databases) -> AsyncIterator[str]:
    """Connection string of a fresh, migrated database."""
    async with databases.fresh() as dsn:
        yield dsn


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    """An open pool on the test's own database."""
    database = Database(dsn, name="test", size=10)
    await database.open()
    yield database
    await database.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """No test leaves a provider's credentials in anything that it prints or logs."""
    report = yield
    if report.passed and any(SECRET_MARK in text for _, text in report.sections):
        report.outcome = "failed"
        report.longrepr = "the operator's credentials at a provider were printed or logged; see below"
    return report


async def _tells_no_secret(response: httpx.Response) -> None:
    assert SECRET_MARK not in (await response.aread()).decode("utf-8", "replace"), "an answer holds a secret"


MakeDeployment = Callable[..., Awaitable[Deployment]]


@pytest.fixture
async def make_deployment(dsn: str, tmp_path: Path) -> AsyncIterator[MakeDeployment]:
    """Build an API and a worker of region us on the test's database, in this process.

    Keyword arguments are settings; `registries` replaces who calls providers, `worker=False` leaves the worker
    out, `clock` is the time of all parts, `way` another connection string of the test's database. HTTP goes
    through the ASGI app; nothing in between is replaced, and every answer must be one that the published
    document describes.
    """
    async with AsyncExitStack() as stack:

        async def make(
            *,
            registries: RegistryFactory = provider_registry,
            worker: bool = True,
            clock: Clock | None = None,
            way: str | None = None,
            **overrides: Any,
        ) -> Deployment:
            shared = build_shared(deployment_settings(tmp_path, **overrides), clock)
            return await stack.enter_async_context(_deployment(shared, way or dsn, registries, worker))

        yield make


def deployment_settings(data_dir: Path, **overrides: Any) -> Settings:
    """Settings of a small, quick deployment of region us."""
    defaults: dict[str, Any] = {
        "data_dir": str(data_dir),
        "regions": ["us"],
        "sandbox_latency_s": 0.02,
        "sandbox_image_edge": 64,
        "worker_lease_s": 5,
        "worker_poll_s": 0.2,
        "exploration_share": 0,
        "dns_resolver": "127.0.0.1:9",  # nobody answers there: no name that a test makes up is asked of anybody
    }
    return load_settings({}, overrides={**defaults, **overrides})


@asynccontextmanager
async def _deployment(
    shared: Shared, dsn: str, registries: RegistryFactory, worker: bool
) -> AsyncIterator[Deployment]:
    api = Api(shared, {"us": dsn}, registries)
    await api.open()
    workers = Workers(shared, {"us": dsn}, registries) if worker else None
    if workers is not None:
        await workers.open()
    transport = httpx.ASGITransport(app=api)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            document = await client.get("/openapi.json")
            client.event_hooks = {"response": [judge(document.content), _tells_no_secret]}
            yield Deployment(shared.settings, api, workers, api.regions["us"].db, client)
    finally:
        if workers is not None:
            await workers.close()
        await api.close()


@pytest.fixture
async def deployment(make_deployment: MakeDeployment) -> Deployment:
    """A deployment with quick defaults."""
    return await make_deployment()


@pytest.fixture
async def customer(deployment: Deployment) -> Customer:
    """An account of plan unlimited with 100 credits and a full-access key on `deployment`."""
    return await make_customer(deployment)

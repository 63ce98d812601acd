"""Fixtures of the console's tests: a browser without scripts, signed in with a role."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tests.conftest import deployment_settings
from tests.console.support import ConsoleClient, deployed, make_person, open_client
from tests.databases import Databases
from tests.support import Deployment, make_account

from babysea_server.accounts.roles import Role
from babysea_server.app.shared import build_shared

ConsoleClientOf = Callable[..., Awaitable[ConsoleClient]]


@pytest.fixture(scope="session")
async def console(databases: Databases) -> AsyncIterator[Deployment]:
    """A deployment with the console and without a worker, for all tests of the session: each has its own accounts."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="babysea-console-"))
        dsn = await stack.enter_async_context(databases.fresh())
        shared = build_shared(deployment_settings(Path(folder)))
        yield await stack.enter_async_context(deployed(shared, dsn))


@pytest.fixture
async def stranger(console: Deployment) -> AsyncIterator[ConsoleClient]:
    """A browser in which nobody is signed in."""
    async with open_client(console) as client:
        yield client


@pytest.fixture
async def console_client(console: Deployment) -> AsyncIterator[ConsoleClientOf]:
    """Make a browser in which a member of an account is signed in.

    `await console_client("owner")` makes an account with 100 credits; `account_id=` takes that one; `deployment=` is
    another one, made with settings of its own; other keyword arguments are those of `make_account`.
    """
    async with AsyncExitStack() as stack:

        async def make(role: Role = "primary-owner", **account: Any) -> ConsoleClient:
            deployment: Deployment = account.pop("deployment", console)
            account_id = account.pop("account_id", None)
            if account_id is None:
                account_id, _ = await make_account(deployment.db, **account)
            person = await make_person(deployment, account_id, role)
            return await stack.enter_async_context(open_client(deployment, person))

        yield make

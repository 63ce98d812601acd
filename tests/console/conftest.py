"""Fixtures of the console's tests: a browser without scripts, signed in with a role."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.conftest import MakeDeployment
from tests.console.support import ConsoleClient, Person, make_person, open_client
from tests.support import Deployment, make_account

from babysea_server.accounts.roles import Role

ConsoleClientOf = Callable[..., Awaitable[ConsoleClient]]


@pytest.fixture
async def console(make_deployment: MakeDeployment) -> Deployment:
    """A deployment with the console and without a worker."""
    return await make_deployment(worker=False)


@pytest.fixture
async def stranger(console: Deployment) -> AsyncIterator[ConsoleClient]:
    """A browser in which nobody is signed in."""
    async with open_client(console) as client:
        yield client


@pytest.fixture
async def console_client(console: Deployment) -> AsyncIterator[ConsoleClientOf]:
    """Make a browser in which a member of an account is signed in.

    `await console_client("owner")` makes an account with 100 credits; `account_id=` takes that one; other keyword
    arguments are those of `make_account`.
    """
    async with AsyncExitStack() as stack:

        async def make(role: Role = "primary-owner", **account: Any) -> ConsoleClient:
            account_id = account.pop("account_id", None)
            if account_id is None:
                account_id, _ = await make_account(console.db, **account)
            person: Person = await make_person(console, account_id, role)
            return await stack.enter_async_context(open_client(console, person))

        yield make

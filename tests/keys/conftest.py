"""An authenticator on the test's own database, with a clock turned by hand."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from tests.support import ManualClock, eventually

from babysea_server.accounts import store as accounts
from babysea_server.accounts.plans import load_plans
from babysea_server.db.pool import Database
from babysea_server.errors import ApiError
from babysea_server.keys.authenticate import Authenticator
from babysea_server.keys.scopes import SCOPES
from babysea_server.keys.service import IssuedKey, issue
from babysea_server.kit.calls import Principal

MakeKey = Callable[..., Awaitable[IssuedKey]]


class Counting(Database):
    """A database that counts the questions about keys and can be taken away."""

    questions = 0

    async def fetchrow(self, query: str, *arguments: Any) -> Any:
        self.questions += "FROM api_keys" in query
        return await super().fetchrow(query, *arguments)


class Door:
    """Authentication as a caller meets it."""

    def __init__(self, authenticator: Authenticator, clock: ManualClock, db: Counting) -> None:
        self.authenticator = authenticator
        self.clock = clock
        self.db = db

    async def enter(self, key: str | IssuedKey, ip: str = "192.0.2.1") -> Principal:
        secret = key if isinstance(key, str) else key.secret
        return await self.authenticator.authenticate(f"Bearer {secret}", ip)

    async def code(self, key: str | IssuedKey, ip: str = "192.0.2.1") -> str:
        """The code of the refusal, or `accepted`."""
        try:
            await self.enter(key, ip)
        except ApiError as error:
            return error.spec.code
        return "accepted"

    async def listening(self) -> None:
        """Wait until changes are heard."""

        async def heard() -> bool:
            listener = self.authenticator._listener
            return listener is not None and listener.hearing

        await eventually(heard)

    async def becomes(self, key: IssuedKey, code: str) -> None:
        """Wait until the notice has arrived; the clock stands still meanwhile."""

        async def arrived() -> bool:
            return await self.code(key) == code

        await eventually(arrived)


@pytest.fixture
async def door(dsn: str) -> AsyncIterator[Door]:
    db = Counting(dsn, name="keys", size=4)
    await db.open()
    clock = ManualClock()
    authenticator = Authenticator(db, "us", load_plans(), clock)
    authenticator.start()
    door = Door(authenticator, clock, db)
    await door.listening()
    yield door
    await authenticator.close()
    await db.close()


@pytest.fixture
async def account(db: Database) -> UUID:
    return (await accounts.create(db, name="A", plan="free")).id


@pytest.fixture
def make_key(db: Database, account: UUID) -> MakeKey:
    async def make(**options: Any) -> IssuedKey:
        return await issue(db, **{"account_id": account, "name": "K", "scopes": SCOPES, **options})

    return make

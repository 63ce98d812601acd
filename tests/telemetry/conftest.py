"""Requests as the gateway hands them over, and a log that writes when a test says so."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest
from tests.support import ManualClock, principal

from babysea_server.db.pool import Database
from babysea_server.kit.calls import ServedRequest
from babysea_server.kit.ids import uuid7
from babysea_server.telemetry.requests import RequestLog, address_key

ACCOUNT = UUID(int=1)
SECRET = b"a master secret of thirty-two bytes"

MakeLog = Callable[..., RequestLog]


def served(account_id: UUID = ACCOUNT, **changes: Any) -> ServedRequest:
    """A request that was answered."""
    values: dict[str, Any] = {
        "request_id": f"req_{uuid7().hex}",
        "principal": principal(account_id=account_id),
        "method": "GET",
        "endpoint": "GET /v1/status",
        "query": {},
        "status": 200,
        "error_code": None,
        "replayed": False,
        "client_ip": "203.0.113.7",
        "headers": {"user-agent": "test"},
        "duration_s": 0.001,
    }
    return ServedRequest(**(values | changes))


async def logged(db: Database) -> int:
    """How many rows the log has."""
    count: int = await db.fetchval("SELECT count(*) FROM request_log")
    return count


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def other(dsn: str) -> AsyncIterator[Database]:
    """Another process's pool on the test's database."""
    database = Database(dsn, name="other", size=4)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def make_log(db: Database, clock: ManualClock) -> MakeLog:
    """Make a log on `db`; keyword arguments are those of `RequestLog`."""

    def make(database: Database = db, **options: Any) -> RequestLog:
        return RequestLog(database, clock, address_key(SECRET, "us"), **options)

    return make

"""Documents, a firewall and a gateway with fakes at its injected seams."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from tests.support import principal

from babysea_server.contract.firewall import Firewall
from babysea_server.contract.gateway import Gateway
from babysea_server.contract.openapi import ModelBody, build_document
from babysea_server.contract.operations import OPERATIONS, regional_hosts
from babysea_server.errors import AUTHENTICATION_FAILED, AUTHENTICATION_REQUIRED, ApiError
from babysea_server.kit.calls import Call, Handler, Principal, RateWindow, Reply
from babysea_server.settings import REGIONS

ALL_SCOPES = frozenset(operation.scope for operation in OPERATIONS)
MODELS = [
    ModelBody(
        "sandbox/video",
        "video",
        {"type": "object", "properties": {"generation_duration": {"type": "integer"}}},
        {"generation_duration": 5},
    ),
    ModelBody(
        "bfl/flux-1.1-pro",
        "image",
        {"type": "object", "properties": {"generation_prompt": {"type": "string"}}},
        {"generation_prompt": "A lighthouse"},
    ),
]


class TurnedClock:
    """A clock that stands still unless a test turns it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 4, 28, 12, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class FakeKeys:
    """Knows one key, `bye_good`; counts its calls."""

    def __init__(self, scopes: frozenset[str] = ALL_SCOPES) -> None:
        self.scopes = scopes
        self.calls: list[tuple[str, str | None, str]] = []
        self.accounts: list[UUID | None] = []
        """Whose custom domain each call came through."""

    async def __call__(
        self, region: str, authorization: str | None, client: str, account_id: UUID | None
    ) -> Principal:
        self.calls.append((region, authorization, client))
        self.accounts.append(account_id)
        if authorization is None:
            raise ApiError(AUTHENTICATION_REQUIRED, "Send your key.")
        if authorization != "Bearer bye_good":
            raise ApiError(AUTHENTICATION_FAILED, "The key is unknown.")
        return principal(region=region, scopes=self.scopes)


async def no_limit(_principal: Principal) -> RateWindow | None:
    return None


async def echo(call: Call) -> Reply:
    """A handler that answers with what it was called with."""
    data = {"operation": call.operation_id, "region": call.region, "path": call.path, "query": call.query}
    return Reply(data | {"size": len(call.body), "origin": call.origin})


def everywhere(handler: Handler) -> dict[tuple[str, str], Handler]:
    return {(region, operation.id): handler for region in REGIONS for operation in OPERATIONS}


@pytest.fixture(scope="session")
def documents() -> Mapping[str, dict[str, Any]]:
    return {
        region: build_document(region, server_url=f"https://api.{region}.example.com", models=MODELS)
        for region in REGIONS
    }


@pytest.fixture(scope="session")
def hosts() -> Mapping[str, str]:
    return regional_hosts("example.com", "eu")


@pytest.fixture(scope="session")
def firewall(documents: Mapping[str, dict[str, Any]], hosts: Mapping[str, str]) -> Firewall:
    return Firewall(documents, hosts)


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def keys() -> FakeKeys:
    return FakeKeys()


@pytest.fixture
def make_gateway(firewall: Firewall, keys: FakeKeys, clock: TurnedClock) -> Callable[..., Gateway]:
    """Makes a gateway that serves every operation with one handler (default: `echo`)."""

    def make(handler: Handler = echo, **options: Any) -> Gateway:
        parts: dict[str, Any] = {
            "authenticate": keys,
            "take_rate": no_limit,
            "record": lambda _request: None,
            "handlers": everywhere(handler),
            "clock": clock,
        }
        return Gateway(firewall, **(parts | options))

    return make

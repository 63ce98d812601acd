"""What several test packages use: a clock turned by hand, a deployment in process, a customer of it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import httpx

from babysea_server.accounts import store as accounts
from babysea_server.app.api import Api
from babysea_server.app.workers import Workers
from babysea_server.db.pool import Database
from babysea_server.keys.scopes import PRESETS
from babysea_server.keys.service import issue
from babysea_server.kit.calls import Plan, Principal
from babysea_server.kit.clock import SystemClock
from babysea_server.kit.money import micros
from babysea_server.ledger import store as ledger
from babysea_server.ledger.verify import verify
from babysea_server.settings import Settings

Value = TypeVar("Value")

FINAL = ("succeeded", "failed", "canceled")


class ManualClock:
    """A clock that only moves when told to; sleepers wake when their time has come."""

    def __init__(self, start: datetime = datetime(2026, 4, 28, 12, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        wake = asyncio.Event()
        self._sleepers.append((self._elapsed + seconds, wake))
        if seconds <= 0:
            wake.set()
        await wake.wait()

    @property
    def sleeping(self) -> int:
        """How many sleepers have not been woken."""
        return sum(not wake.is_set() for _, wake in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move time on and wake whoever is due."""
        self._elapsed += seconds
        for due, wake in self._sleepers:
            if due <= self._elapsed:
                wake.set()


class JumpingClock(SystemClock):
    """The machine's clock, which can be put forward: whoever slept until then wakes."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._jumped = asyncio.Event()

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self._ahead)

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead

    async def sleep(self, seconds: float) -> None:
        due = self.monotonic() + seconds
        while (left := due - self.monotonic()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._jumped.wait(), left)
        await asyncio.sleep(0)

    def jump(self, seconds: float) -> None:
        """Put the clock forward."""
        self._ahead += seconds
        self._jumped.set()
        self._jumped = asyncio.Event()


@dataclass
class Deployment:
    """An API, perhaps a worker, and the database beneath them, in this process."""

    settings: Settings
    api: Api
    workers: Workers | None
    db: Database
    client: httpx.AsyncClient

    async def differences(self) -> list[Any]:
        """What `ledger verify` finds."""
        return list(await verify(self.db))


@dataclass
class Customer:
    """An account and a key of a deployment, and what a customer does with them."""

    deployment: Deployment
    account_id: UUID
    key: str

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request with the key."""
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        return await self.deployment.client.request(method, path, headers=headers, **options)

    async def generate(
        self, model: str = "sandbox/image", media: str = "image", *, key: str | None = None, **body: Any
    ) -> httpx.Response:
        """POST generate; `key` is the Idempotency-Key."""
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"generation_prompt": "a test", **body}
        return await self.request("POST", f"/v1/generate/{media}/{model}", json=body, headers=headers)

    async def generation(self, generation_id: str) -> dict[str, Any]:
        """GET one generation's data."""
        response = await self.request("GET", f"/v1/content/{generation_id}")
        assert response.status_code == 200, response.text
        data: dict[str, Any] = response.json()["data"]
        return data

    async def finished(self, generation_id: str, *, within_s: float = 30.0) -> dict[str, Any]:
        """Wait until the generation is final."""

        async def final() -> dict[str, Any] | None:
            generation = await self.generation(generation_id)
            return generation if generation["generation_status"] in FINAL else None

        return await eventually(final, within_s=within_s)

    async def made(self, model: str = "sandbox/image", media: str = "image", **body: Any) -> dict[str, Any]:
        """Generate and wait until it is final."""
        response = await self.generate(model, media, **body)
        assert response.status_code == 200, response.text
        return await self.finished(response.json()["data"]["generation_id"])

    async def balance(self) -> int:
        """The balance in micro-credits."""
        return await accounts.balance(self.deployment.db, self.account_id)


async def make_account(
    db: Database,
    *,
    credits: str = "100",
    plan: str = "unlimited",
    preset: str = "full_access",
    scopes: Sequence[str] | None = None,
    **key: Any,
) -> tuple[UUID, str]:
    """An account with credits and one key; its id and the key itself."""
    account = await accounts.create(db, name="Customer", plan=plan)
    if micros(credits):
        await ledger.add(db, account.id, micros(credits), "test")
    chosen = PRESETS[preset] if scopes is None else scopes
    issued = await issue(db, account_id=account.id, name="test", scopes=chosen, **key)
    return account.id, issued.secret


async def make_customer(deployment: Deployment, **account: Any) -> Customer:
    """A customer of the deployment, whose account is as for `make_account`."""
    return Customer(deployment, *await make_account(deployment.db, **account))


def principal(**changes: Any) -> Principal:
    """A caller of plan free with one key of no scopes."""
    values: dict[str, Any] = {
        "region": "us",
        "account_id": UUID(int=1),
        "plan": Plan("free", 60, 2),
        "apikey_id": UUID(int=2),
        "apikey_name": "Test",
        "apikey_prefix": "bye_abcde",
        "scopes": frozenset(),
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "last_used_at": None,
        "expires_at": None,
    }
    return Principal(**{**values, **changes})


async def eventually(ask: Callable[[], Awaitable[Value | None]], *, within_s: float = 30.0) -> Value:
    """Ask until the answer is neither None nor false; for real processes whose clock is not ours."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        answer = await ask()
        if answer:
            return answer
        assert loop.time() < deadline, f"nothing within {within_s} s"
        pause = loop.create_future()
        loop.call_later(0.02, pause.set_result, None)
        await pause

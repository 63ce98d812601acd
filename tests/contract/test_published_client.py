"""The published TypeScript client's habits, held against a deployment: whatever it repeats, it pays once.

It writes the slash of a model's identifier plainly, repeats whatever is marked retryable (POST included), believes
Retry-After only beside X-RateLimit-Limit, and sends headers of its own with every request.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import httpx
import pytest
from tests.conftest import MakeDeployment
from tests.contract.conformance.contract import MISSING, PAIRS
from tests.databases import Databases
from tests.generations.conftest import backends_waiting, hold, wire
from tests.generations.wire import Wire
from tests.support import FINAL, Customer, Deployment, ManualClock, eventually, make_customer

from babysea_server.db.pool import Database

__all__ = ["hold", "wire"]  # fixtures

MODEL = "sandbox/image"
COST_MICRO = 1000
BODY = {"generation_prompt": "a test"}
BACK_OFF_S = 0.5

Wait = Callable[[float], Awaitable[None]]
Fault = Callable[[], Awaitable[None]]


async def at_once(_seconds: float) -> None:
    """A wait that is over at once."""


@dataclass
class PublishedClient:
    """The client's loop around one request.

    `before` is called ahead of each attempt, for faults; `lost` says which attempts' answers never arrive.
    """

    deployment: Deployment
    key: str
    wait: Wait = at_once
    retries: int = 3
    lost: Sequence[bool] = ()
    before: Sequence[Fault] = ()
    waits: list[float] = field(default_factory=list)
    attempts: int = 0

    async def call(
        self, method: str, path: str, body: Any = None, *, idempotency_key: str | None = None
    ) -> httpx.Response:
        """One call with all its repetitions; the last answer. Raises what the network raised last."""
        headers = {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "babysea-js/1.4.0",
            "X-BabySea-SDK-Name": "babysea-js",
            "X-BabySea-SDK-Version": "1.4.0",
            "X-BabySea-SDK-Runtime": "node",
            "X-BabySea-SDK-Runtime-Version": "v22.4.1",
            "X-Stainless-Retry-Count": "0",
        }
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        content = None if body is None else json.dumps(body)
        for turn in range(self.retries + 1):
            if turn < len(self.before):
                await self.before[turn]()
            self.attempts += 1
            try:
                response = await self._send(turn, method, path, headers, content)
            except httpx.TransportError:
                # Whether it was accepted is unknown: only a key makes a repetition safe.
                if turn == self.retries or (method == "POST" and idempotency_key is None):
                    raise
                await self._pause(BACK_OFF_S * 2**turn)
                continue
            if turn == self.retries or not _retryable(response):
                break
            await self._pause(_pause_asked_for(response) or BACK_OFF_S * 2**turn)
        return response

    async def generate(self, *, key: str | None = None) -> httpx.Response:
        """`client.generate.image(model, body)`."""
        return await self.call("POST", f"/v1/generate/image/{MODEL}", BODY, idempotency_key=key)

    async def _send(
        self, turn: int, method: str, path: str, headers: dict[str, str], content: str | None
    ) -> httpx.Response:
        response = await self.deployment.client.request(method, path, headers=headers, content=content)
        if turn < len(self.lost) and self.lost[turn]:
            raise httpx.ReadError("the connection was reset")
        return response

    async def _pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self.wait(seconds)


def _retryable(response: httpx.Response) -> bool:
    return response.status_code != 200 and response.json()["error"]["retryable"] is True


def _pause_asked_for(response: httpx.Response) -> float | None:
    if "x-ratelimit-limit" not in response.headers or "retry-after" not in response.headers:
        return None
    return float(int(response.headers["retry-after"]))


async def bought(customer: Customer) -> int:
    """How many generations the account has, each reserved once."""
    db = customer.deployment.db
    count, reserved = await db.fetchrow(
        """SELECT (SELECT count(*) FROM generations WHERE account_id = $1),
                  (SELECT count(*) FROM ledger WHERE account_id = $1 AND kind = 'reserve')""",
        customer.account_id,
    )
    assert count == reserved
    return int(count)


@pytest.fixture(scope="module")
async def dsn(databases: Databases) -> AsyncIterator[str]:
    """One database for all tests: each has an account and a deployment of its own."""
    async with databases.fresh() as dsn:
        yield dsn


@pytest.fixture
async def api(make_deployment: MakeDeployment) -> Deployment:
    """An API without a worker: what is accepted stays in flight."""
    return await make_deployment(worker=False)


@pytest.fixture
async def caller(api: Deployment) -> Customer:
    return await make_customer(api, plan="starter")


def code(response: httpx.Response) -> str | None:
    return None if response.status_code == 200 else response.json()["error"]["code"]


async def test_every_call_is_admitted_as_the_client_sends_it(caller: Customer) -> None:
    """Also reads carry its Content-Type, and every call the headers that tell its version."""
    client = PublishedClient(caller.deployment, caller.key)
    for pair in PAIRS:
        assert code(await client.call(pair.method, pair.path, pair.body)) == pair.missing, pair.name


async def test_an_identifier_has_its_slash_unencoded(caller: Customer) -> None:
    client = PublishedClient(caller.deployment, caller.key)
    assert (await client.generate()).json()["data"]["model_identifier"] == MODEL
    estimate = await client.call("GET", f"/v1/estimate/{MODEL}?count=2")
    assert estimate.json()["data"]["model_identifier"] == MODEL


@pytest.mark.parametrize("faults", list(product(("lost", "draining"), repeat=3)), ids="-".join)
async def test_faults_of_any_kind_in_any_order_buy_once_with_a_key(
    api: Deployment, faults: tuple[str, ...]
) -> None:
    caller = await make_customer(api)

    def fault(kind: str) -> Fault:
        async def happen() -> None:
            api.api.gateway.draining = kind == "draining"

        return happen

    client = PublishedClient(
        api,
        caller.key,
        lost=[kind == "lost" for kind in faults],
        before=[fault(kind) for kind in (*faults, "none")],
    )
    response = await client.generate(key="order-1")
    assert (response.status_code, client.attempts) == (200, 4)
    assert (response.headers.get("idempotency-replayed") == "true") == ("lost" in faults)
    assert await bought(caller) == 1
    assert await caller.balance() == 100_000_000 - COST_MICRO


async def test_without_a_key_what_is_marked_retryable_was_certainly_not_accepted(caller: Customer) -> None:
    gateway = caller.deployment.api.gateway

    async def leave() -> None:
        gateway.draining = True

    async def come_back() -> None:
        gateway.draining = False

    client = PublishedClient(caller.deployment, caller.key, before=[leave, leave, come_back])
    response = await client.generate()
    assert (code(response), client.attempts, await bought(caller)) == (None, 3, 1)


@pytest.mark.parametrize(("key", "expected", "attempts"), [("order-1", None, 3), (None, "BSE5001", 1)])
async def test_an_answer_that_the_database_lost_is_repeated_only_with_a_key(
    make_deployment: MakeDeployment,
    wire: Wire,
    hold: Callable[[UUID], AbstractAsyncContextManager[None]],
    key: str | None,
    expected: str | None,
    attempts: int,
) -> None:
    clock = ManualClock(datetime.now(UTC))
    deployment = await make_deployment(worker=False, way=wire.dsn, clock=clock, admission_deadline_s=20)
    caller = await make_customer(deployment)
    await caller.request("GET", "/v1/status")  # from now on its key is known without the database

    async def mended(_seconds: float) -> None:
        wire.refusing = False

    client = PublishedClient(deployment, caller.key, wait=mended, lost=[False, key is not None])
    async with hold(caller.account_id):
        task = asyncio.create_task(client.generate(key=key))
        watching = Database(wire.dsn, name="test", size=1)
        await watching.open()
        await backends_waiting(watching, "babysea-admission")
        await watching.close()
        wire.refusing = True
        wire.cut()

        async def answered() -> bool:
            clock.advance(5)
            return task.done() or bool(client.waits)

        await eventually(answered)
    wire.refusing = False
    response = await task
    assert (code(response), client.attempts) == (expected, attempts)
    # The database carries out what it was told before, also when nobody hears of it.
    await eventually(lambda: bought(caller))
    assert await bought(caller) == 1, "accepted all the same, and once"


async def test_it_waits_as_long_as_a_rate_limit_says(make_deployment: MakeDeployment) -> None:
    in_a_minute = datetime.now(UTC).replace(second=30, microsecond=0) + timedelta(minutes=1)
    clock = ManualClock(in_a_minute)
    deployment = await make_deployment(worker=False, clock=clock)
    caller = await make_customer(deployment, plan="free", credits="1")
    for _ in range(60):
        assert (await caller.request("GET", "/v1/status")).status_code == 200

    async def wait(seconds: float) -> None:
        clock.advance(seconds)

    client = PublishedClient(deployment, caller.key, wait=wait)
    response = await client.generate()
    assert (response.status_code, client.waits) == (200, [30.0])
    assert await bought(caller) == 1


async def test_it_gets_a_slot_when_one_is_free(api: Deployment) -> None:
    caller = await make_customer(api, plan="free", credits="1")
    first, _ = [(await caller.generate()).json()["data"]["generation_id"] for _ in range(2)]

    async def wait(_seconds: float) -> None:
        await caller.request("POST", f"/v1/content/generation/cancel/{first}")

    client = PublishedClient(api, caller.key, wait=wait)
    assert (await client.generate()).status_code == 200
    assert client.waits == [1.0]
    assert await bought(caller) == 3


async def test_retry_after_stands_beside_the_limit_wherever_the_caller_is_known(caller: Customer) -> None:
    """A caller that is not known has no limit to tell, and backs off by itself."""
    caller.deployment.api.gateway.draining = True
    unknown = PublishedClient(caller.deployment, caller.key, retries=1)
    assert code(await unknown.generate()) == "BSE5002"
    assert unknown.waits == [BACK_OFF_S]


@pytest.mark.parametrize(
    ("words", "ending"), [("ok", "succeeded"), ("fail", "failed"), ("slow:600", "canceled")]
)
async def test_waiting_ends_in_one_of_three_states(deployment: Deployment, words: str, ending: str) -> None:
    caller = await make_customer(deployment)
    client = PublishedClient(deployment, caller.key)
    body = {"generation_prompt": f"a test [sandbox:{words}]"}
    started = await client.call("POST", f"/v1/generate/image/{MODEL}", body)
    generation_id = started.json()["data"]["generation_id"]
    if ending == "canceled":
        await client.call("POST", f"/v1/content/generation/cancel/{generation_id}")
    seen: list[str] = []

    async def terminal() -> bool:
        answer = await client.call("GET", f"/v1/content/{generation_id}")
        seen.append(answer.json()["data"]["generation_status"])
        return seen[-1] in FINAL

    await eventually(terminal)
    assert seen[-1] == ending
    assert set(seen[:-1]) <= {"pending", "processing"}


async def test_what_cannot_be_mended_by_repeating_is_not_repeated(caller: Customer) -> None:
    client = PublishedClient(caller.deployment, caller.key)
    for method, path, body in (
        ("GET", f"/v1/content/{MISSING}", None),
        ("POST", f"/v1/generate/image/{MODEL}", {"generation_prompt": ""}),
        ("POST", f"/v1/generate/video/{MODEL}", BODY),
        ("GET", "/v1/nothing", None),
    ):
        assert (await client.call(method, path, body)).status_code >= 400
    assert (client.attempts, client.waits) == (4, [])

"""The spending guard: never beyond the limit, whatever runs at once, fails or is lost."""

import asyncio
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.clients import BASE, ID, KEY, Network, accepted, failure, models, success
from tests.sdk.clients import generation as generation_data
from tests.sdk.conftest import Live
from tests.sdk.mcp.assistants import IMAGE, SLOW, VIDEO, over_http
from tests.support import Customer, make_account

from babysea import AsyncBabySea, BabySeaError, Generation
from babysea._answers import read_data
from babysea.mcp._budget import Budget, BudgetExceededError, micros, shown
from babysea.mcp._desk import Desk
from babysea.mcp._generating import generate
from babysea.mcp._shapes import Generate


async def test_parallel_calls_reserve_no_more_than_the_limit(live: Live) -> None:
    id, key = await make_account(live.deployment.db)
    customer = Customer(live.deployment, id, key)
    before = await customer.balance()
    async with over_http(live, key=key, max_credits=0.0035) as assistant:
        calls = [
            assistant.call("generate", model=IMAGE, prompt=f"a fox {n}", wait=n % 2 == 0) for n in range(8)
        ]
        answers = await asyncio.gather(*calls)
        balance = (await assistant.call("account_balance")).data
        estimate = (await assistant.call("estimate", model=IMAGE)).data
    refused = [answer.error for answer in answers if answer.raw.is_error]
    assert len(refused) == 5
    assert all("of this server's limit of 0.0035 0.0005 are left" in error for error in refused)
    assert before - await customer.balance() == 3_000
    assert (balance["limit"], balance["limit_left"], estimate["limit_left"]) == (0.0035, 0.0005, 0.0005)


async def test_what_failed_or_was_canceled_may_be_spent_again(live: Live) -> None:
    async with over_http(live, max_credits=0.001) as assistant:
        failed = await assistant.call("generate", model=IMAGE, prompt="x [sandbox:refuse_policy]")
        assert "BSE2006" in failed.error
        slow = await assistant.call("generate", model=IMAGE, prompt=SLOW, wait=False)
        assert slow.data["limit_left"] == 0
        assert "are left" in (await assistant.call("generate", model=IMAGE, prompt="a fox")).error
        await assistant.call("cancel_generation", generation_id=slow.data["generation_id"])
        assert (await assistant.call("generate", model=IMAGE, prompt="a fox")).data["limit_left"] == 0


async def test_what_failed_unseen_is_found_when_its_credits_are_needed(live: Live) -> None:
    async with over_http(live, max_credits=0.001) as assistant:
        begun = await assistant.call("generate", model=IMAGE, prompt="x [sandbox:refuse_policy]", wait=False)
        await live.customer.finished(begun.data["generation_id"])
        assert (await assistant.call("generate", model=IMAGE, prompt="a fox")).data["status"] == "succeeded"


async def test_a_refused_request_reserves_nothing(live: Live) -> None:
    async with over_http(live, max_credits=0.001) as assistant:
        wrong = await assistant.call("generate", model=IMAGE, prompt="x", inputs={"ratio": "5:1"})
        assert "BSE2001" in wrong.error
        assert (await assistant.call("account_balance")).data["limit_left"] == 0.001


async def test_what_has_no_price_beforehand_is_refused_under_a_limit(live: Live) -> None:
    async with over_http(live, max_credits=1) as assistant:
        for name in ("quality", "generation_frames", "fps"):
            answer = await assistant.call("generate", model=VIDEO, prompt="x", inputs={name: 1})
            assert "its price is not known beforehand" in answer.error


_ESTIMATE = {
    "model_identifier": IMAGE,
    "model_type": "image",
    "assets_count": 1,
    "cost_per_generation": 0.001,
    "cost_total_consumed": 0.001,
    "credit_balance": 1,
    "credit_balance_can_afford": True,
    "credit_balance_max_affordable": 1000,
}


async def _left_after(*answers: Any) -> int | None:
    """What is left of two pictures' price after one was asked for, and these were the answers."""
    network = Network(success(_ESTIMATE), models(image="image"), *answers)
    http = httpx.AsyncClient(transport=httpx.MockTransport(network))
    client = AsyncBabySea(KEY, base_url=BASE, http_client=http, max_retries=0)
    budget = Budget(2_000, client.get_generation)

    async def report(_passed: float, _sentence: str) -> None: ...

    with pytest.raises(BabySeaError):
        await generate(Desk(client, budget), Generate(model=IMAGE, prompt="x"), report)
    return budget.left


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        (httpx.ConnectError("nobody there"), 2_000),
        (httpx.ReadError("broken"), 1_000),
        (httpx.ReadTimeout("slow"), 1_000),
        (failure(500, "BSE5001"), 1_000),
        (httpx.Response(502), 1_000),
        (failure(402, "BSE1004"), 2_000),
        (failure(429, "BSE1009", retryable=True), 2_000),
        (success({"not": "an acceptance"}), 1_000),
    ],
)
async def test_what_may_have_been_bought_counts_as_bought(answer: Any, left: int) -> None:
    assert await _left_after(answer) == left


async def test_a_generation_that_cannot_be_read_stays_counted() -> None:
    gone = failure(404, "BSE3001")
    assert await _left_after(accepted(), gone) == 1_000
    assert await _left_after(accepted(), success(generation_data("failed"))) == 2_000


async def test_a_purchase_under_way_when_its_call_is_canceled_is_counted_and_not_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    posted, answer = asyncio.Event(), asyncio.Event()
    others = Network(success(_ESTIMATE), models(image="image"))

    async def network(request: httpx.Request) -> httpx.Response:
        if request.method != "POST":
            return others(request)
        posted.set()
        await answer.wait()
        return accepted()

    http = httpx.AsyncClient(transport=httpx.MockTransport(network))
    client = AsyncBabySea(KEY, base_url=BASE, http_client=http)
    budget = Budget(2_000, client.get_generation)

    async def report(_passed: float, _sentence: str) -> None: ...

    async def call() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await generate(Desk(client, budget), Generate(model=IMAGE, prompt="x"), report)

    scopes: list[anyio.CancelScope] = []
    running = asyncio.create_task(call())
    await posted.wait()
    scopes[0].cancel()
    answer.set()
    await running
    assert scopes[0].cancelled_caught
    assert budget.left == 1_000
    assert f"generation {ID} goes on, though its tool call was canceled" in caplog.text


WISHES = st.lists(st.tuples(st.integers(1, 20), st.sampled_from(("succeeded", "failed", "processing"))))


@given(st.integers(0, 50), WISHES)
async def test_a_wish_is_granted_exactly_when_what_stands_leaves_room_for_it(
    limit: int, wishes: list[tuple[int, str]]
) -> None:
    costs: dict[str, int] = {}
    status: dict[str, str] = {}

    async def read(id: str) -> Generation:
        return read_data(Generation, generation_data(status[id], id), "req_1", "data")

    budget = Budget(limit, read)
    for number, (micro, becomes) in enumerate(wishes):
        standing = sum(cost for id, cost in costs.items() if status[id] != "failed")
        try:
            await budget.take(micro)
        except BudgetExceededError:
            assert standing + micro > limit
            continue
        assert standing + micro <= limit
        costs[str(number)], status[str(number)] = micro, becomes
        budget.accepted(str(number), micro)


@pytest.mark.parametrize(
    ("credits", "micro"),
    [(0, 0), (1, 1_000_000), (0.1, 100_000), (0.0000001, 1), (0.30000000000000004, 300_001)],
)
def test_credits_are_counted_in_whole_micros_rounded_up(credits: float, micro: int) -> None:
    assert micros(credits) == micro
    assert shown(1_250) == "0.00125"

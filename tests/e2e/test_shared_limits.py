"""Two API processes and one Redis: one account's rate, also over the death of the Redis."""

import asyncio
from collections import Counter
from pathlib import Path

import httpx
from tests.e2e.system import Api, System
from tests.limits.servers import RedisServer, needs_redis
from tests.support import eventually

_LIMIT = 200
_PLANS = f"""
[small]
requests_per_minute = {_LIMIT}
[unlimited]
"""


async def _key(system: System) -> str:
    """The key of a new account of plan small."""
    account = (await system.cli("accounts", "create", "--name", "Customer", "--plan", "small"))["account_id"]
    made = await system.cli("keys", "create", "--account", account, "--name", "k", "--preset", "full_access")
    secret: str = made["api_key"]
    return secret


async def _storm(apis: tuple[Api, ...], count: int) -> list[httpx.Response]:
    """`count` requests at the first API, the second, the first ..., sixteen at a time."""
    room = asyncio.Semaphore(16)

    async def ask(api: Api) -> httpx.Response:
        async with room:
            return await api.request("GET", "/v1/status")

    return await asyncio.gather(*(ask(apis[number % len(apis)]) for number in range(count)))


def _by_window(answers: list[httpx.Response], status: int | None = None) -> Counter[str]:
    """Answers (of one status) by the window that their headers name: a minute may end in between."""
    return Counter(
        answer.headers["x-ratelimit-reset"]
        for answer in answers
        if status is None or answer.status_code == status
    )


@needs_redis
async def test_two_apis_hold_one_limit_and_outlive_their_redis(system: System, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    await redis.start()
    try:
        plans = system.data_dir / "plans.toml"
        plans.write_text(_PLANS)
        system.environment |= {
            "REDIS_URL": redis.url,
            "BABYSEA_PLANS_FILE": str(plans),
            "BABYSEA_COUNTERS_TIMEOUT_S": "2",  # no stall of a busy machine may look like one of the Redis
        }
        # The first process holds the database for the others.
        one_process, one = await system.api()
        two_process, two = await system.api()
        one.key = two.key = await _key(system)

        answers = await _storm((one, two), 3 * _LIMIT)
        asked, passed = _by_window(answers), _by_window(answers, 200)
        assert {answer.status_code for answer in answers} == {200, 429}
        for window, count in asked.items():
            assert abs(passed[window] - min(count, _LIMIT)) <= _LIMIT // 100

        # A new account, and its Redis dies half way: nobody is refused who is within the limit, nothing is lost.
        one.key = two.key = await _key(system)
        first = await _storm((one, two), _LIMIT // 4)
        redis.kill()
        second = await _storm((one, two), _LIMIT // 4)
        assert (await one.data("/v1/health/cache"))["healthy"] is False
        await redis.start()

        async def healthy() -> bool:
            return bool((await two.data("/v1/health/cache"))["healthy"])

        await eventually(healthy)
        third = await _storm((one, two), _LIMIT // 4)
        for answer in [*first, *second, *third]:
            assert answer.status_code == 200
            assert answer.headers["x-ratelimit-limit"] == str(_LIMIT)
            assert 0 <= int(answer.headers["x-ratelimit-remaining"]) < _LIMIT
        assert await two_process.stop() == 0
        assert await one_process.stop() == 0
        for process in (one_process, two_process):
            assert "Traceback" not in process.err
            assert process.err.count("counters_away") >= 1
    finally:
        redis.kill()

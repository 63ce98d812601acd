"""`GET /v1/health/cache` tells of a real round trip, also of one that fails."""

import asyncio

from msgspec import UNSET
from tests.limits.conftest import MakeApi, MakeCounters
from tests.limits.counting import Memory
from tests.limits.servers import RedisServer, needs_redis
from tests.support import ManualClock, make_customer, principal

from babysea_server.kit.calls import Call
from babysea_server.limits.health import CacheHealth
from babysea_server.limits.wire import HealthCacheData

_CALL = Call(
    operation_id="health_cache",
    region="us",
    request_id="req_test",
    origin="http://localhost",
    principal=principal(),
    path={},
    query={},
    headers={},
    body=b"",
)


async def told(health: CacheHealth) -> HealthCacheData:
    data: HealthCacheData = (await health.cache(_CALL)).data
    return data


async def test_a_store_that_answers_is_healthy(make_counters: MakeCounters) -> None:
    data = await told(CacheHealth(await make_counters(), ManualClock()))
    assert (data.healthy, data.error) == (True, UNSET)


async def test_one_that_hangs_is_not_and_all_who_ask_share_one_question() -> None:
    counters = Memory()
    counters.flowing.clear()
    health = CacheHealth(counters, ManualClock(), deadline_s=0.01)
    answers = await asyncio.gather(*(told(health) for _ in range(20)))
    assert {(data.healthy, data.error) for data in answers} == {(False, "No answer within 0.01 s.")}
    assert counters.probes == 1


@needs_redis
async def test_over_http_a_redis_that_dies_is_told_and_found_back(
    redis_server: RedisServer, make_api: MakeApi, clock: ManualClock
) -> None:
    customer = await make_customer(await make_api(redis_url=redis_server.url))

    async def health() -> dict[str, object]:
        clock.advance(1)
        response = await customer.request("GET", "/v1/health/cache")
        assert response.status_code == 200, response.text
        data: dict[str, object] = response.json()["data"]
        return data

    assert (await health()) == {"service": "redis", "healthy": True, "latency_ms": 0.0}
    redis_server.kill()
    assert (await health()) == {
        "service": "redis",
        "healthy": False,
        "latency_ms": 0.0,
        "error": "The cache cannot be reached, or refuses to serve.",
    }
    await redis_server.start()
    assert (await health())["healthy"] is True

"""The account's rate: what a caller is told, and what is never asked."""

import msgspec
import pytest
from tests.limits.counting import Memory, caller, patient
from tests.support import ManualClock

from babysea_server.limits.rate import RateLimiter


def limiter() -> tuple[RateLimiter, Memory, ManualClock]:
    counters, clock = Memory(), ManualClock()
    return RateLimiter(patient(counters, clock), clock), counters, clock


async def test_a_window_counts_down_refuses_and_begins_anew() -> None:
    rates, _, clock = limiter()
    start = int(clock.now().timestamp())
    clock.advance(12.5)
    told = [await rates.take(caller(2)) for _ in range(4)]
    assert [(window.remaining, window.exceeded) for window in told if window] == [
        (1, False),
        (0, False),
        (0, True),
        (0, True),
    ]
    assert {(window.limit, window.resets_at, window.retry_after_s) for window in told if window} == {
        (2, start + 60, 48)
    }
    clock.advance(47.4)
    last = await rates.take(caller(2))
    assert last is not None
    assert (last.exceeded, last.retry_after_s) == (True, 1)
    clock.advance(0.1)
    fresh = await rates.take(caller(2))
    assert fresh is not None
    assert (fresh.exceeded, fresh.remaining, fresh.resets_at) == (False, 1, start + 120)


async def test_a_plan_without_limit_is_not_counted() -> None:
    rates, counters, _ = limiter()
    assert await rates.take(caller(None)) is None
    assert counters.additions == []


@pytest.mark.parametrize("limit", [0, 3])
async def test_a_flood_beyond_the_limit_asks_nobody(limit: int) -> None:
    rates, counters, _ = limiter()
    told = [await rates.take(caller(limit)) for _ in range(1000)]
    assert [window.exceeded for window in told if window] == [False] * limit + [True] * (1000 - limit)
    assert len(counters.additions) == limit
    assert counters.total == limit


async def test_all_keys_of_an_account_share_its_rate_and_no_other() -> None:
    rates, _, _ = limiter()
    one = caller(1)
    other_key = msgspec.structs.replace(one, apikey_prefix="bye_other")
    told = [await rates.take(who) for who in (one, other_key, caller(1, account=2))]
    assert [window and window.exceeded for window in told] == [False, True, False]


async def test_another_plan_applies_at_once() -> None:
    rates, _, _ = limiter()
    for _ in range(3):
        await rates.take(caller(2))
    more = await rates.take(caller(10))
    assert more is not None
    assert (more.exceeded, more.limit, more.remaining) == (False, 10, 7)
    less = await rates.take(caller(1))
    assert less is not None
    assert (less.exceeded, less.limit) == (True, 1)

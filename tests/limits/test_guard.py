"""Failed authentications are answered only so often, by client and over all processes."""

import asyncio

import pytest
from tests.limits.counting import Memory, patient
from tests.support import ManualClock

from babysea_server.errors import ApiError
from babysea_server.limits.guard import AuthGuard


def guard(counters: Memory, clock: ManualClock, per_minute: int = 3) -> AuthGuard:
    return AuthGuard(patient(counters, clock, "auth"), clock, per_minute=per_minute)


async def fails(guard: AuthGuard, ip: str) -> bool:
    """Whether a failure still gets its own answer."""
    try:
        await guard.failed(ip)
    except ApiError:
        return False
    return True


def passes(guard: AuthGuard, ip: str) -> bool:
    try:
        guard.check(ip)
    except ApiError:
        return False
    return True


async def test_after_the_limit_everything_of_the_client_is_refused_until_the_window_ends() -> None:
    clock = ManualClock()
    clock.advance(20)
    one = guard(Memory(), clock)
    for _ in range(3):
        one.check("192.0.2.1")
        await one.failed("192.0.2.1")
    with pytest.raises(ApiError) as raised:
        one.check("192.0.2.1")
    assert (raised.value.spec.code, raised.value.details) == ("BSE1006", {"retry_after_seconds": 40})
    assert passes(one, "192.0.2.2")
    clock.advance(40)
    assert passes(one, "192.0.2.1")


async def test_of_failures_at_two_processes_exactly_the_limit_is_answered() -> None:
    clock, counters = ManualClock(), Memory()
    one, two = guard(counters, clock, 10), guard(counters, clock, 10)
    answered = await asyncio.gather(*(fails(each, "192.0.2.1") for each in [one, two] * 20))
    assert sum(answered) == 10
    assert not passes(one, "192.0.2.1")
    assert not passes(two, "192.0.2.1")


async def test_who_never_fails_asks_nobody() -> None:
    counters = Memory()
    one = guard(counters, ManualClock())
    await one.failed("192.0.2.1")
    for _ in range(100):
        one.check("192.0.2.2")
    assert len(counters.additions) == 1


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
async def test_a_client_is_an_ipv4_address_or_an_ipv6_network(first: str, second: str, same: bool) -> None:
    one = guard(Memory(), ManualClock(), 1)
    await one.failed(first)
    assert passes(one, second) is not same


async def test_what_is_no_address_is_nobody() -> None:
    one = guard(Memory(), ManualClock(), 1)
    for _ in range(3):
        await one.failed("")
        one.check("")


async def test_without_counters_each_process_holds_the_limit_by_itself() -> None:
    counters = Memory()
    counters.failing = True
    one = guard(counters, ManualClock())
    assert [await fails(one, "192.0.2.1") for _ in range(5)] == [True] * 3 + [False] * 2

"""The breaker: whom an attempt goes to, with whom everybody waits for one probe, and when the operator is told."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.routing.attempts import AGAINST, resolve
from tests.support import ManualClock

from babysea_server.db.pool import Database
from babysea_server.routing.breaker import PROBE_S, Breaker, attempt_order, is_probed, ways
from babysea_server.routing.health import RECOVERY_AFTER_S, REMEMBERED_S, ProviderHealth, Tally, Window

NOW = datetime(2026, 4, 28, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


_TALLIES = {
    "healthy": Tally(successes=3),
    "degraded": Tally(failures=9, last_failure=ago(5)),
    "recovering": Tally(failures=9, last_failure=ago(RECOVERY_AFTER_S)),
    "probed": Tally(failures=9, last_failure=ago(RECOVERY_AFTER_S), probed_at=ago(3)),
}


def window(**statuses: str) -> Window:
    return Window(NOW, {name: _TALLIES[status] for name, status in statuses.items() if status in _TALLIES})


# ------------------------------------------------------------------------------- who may be called


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ({}, [("a", False), ("b", False)]),
        ({"a": "degraded"}, [("b", False)]),
        ({"a": "recovering"}, [("a", True), ("b", False)]),
        ({"a": "degraded", "b": "recovering"}, [("b", True)]),
        ({"a": "degraded", "b": "degraded"}, []),
    ],
)
def test_who_may_be_called_and_whether_only_as_a_probe(
    statuses: dict[str, str], expected: list[tuple[str, bool]]
) -> None:
    assert list(ways(("a", "b"), window(**statuses))) == expected


def test_a_probe_that_does_not_come_back_is_over_after_a_minute() -> None:
    for age_s, probed in ((0, True), (PROBE_S - 1, True), (PROBE_S, False)):
        tally = Tally(failures=9, last_failure=ago(100), probed_at=ago(age_s))
        assert is_probed(Window(NOW, {"a": tally}), "a") is probed
    assert not is_probed(window(), "a")


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.sets(st.sampled_from("abcdef")))
def test_those_that_may_not_be_called_stand_behind_and_are_not_left_out(
    candidates: list[str], blocked: set[str]
) -> None:
    order = attempt_order(candidates, lambda name: name not in blocked)
    assert sorted(order) == sorted(candidates)
    assert list(order) == [
        *(name for name in candidates if name not in blocked),
        *(name for name in candidates if name in blocked),
    ]


# ------------------------------------------------------------------------------- on the database


class Process:
    """What one worker process has of routing."""

    def __init__(self, db: Database, **breaker: Any) -> None:
        self.clock = ManualClock()
        self.health = ProviderHealth(db, self.clock, providers=["a", "b", "c"], failures=AGAINST)
        self.breaker = Breaker(db, self.health, self.clock, **breaker)

    async def choose(self, *candidates: str) -> str:
        """Choose by a fresh reading."""
        self.clock.advance(REMEMBERED_S)
        return await self.breaker.choose(candidates or ("a", "b"))


async def fail(
    db: Database, provider: str, age_s: float = 0, times: int = 5, failure: str = "failed"
) -> None:
    await resolve(db, provider, "failed", age_s, failure=failure, times=times)


async def test_a_healthy_provider_is_called_and_a_degraded_one_is_not(db: Database) -> None:
    process = Process(db)
    assert await process.choose() == "a"
    await fail(db, "a", times=4)
    assert await process.choose() == "a"
    await fail(db, "a", times=1)
    assert await process.choose() == "b"
    assert (await process.health.statuses())["a"] == "degraded"


async def test_the_customers_mistakes_never_keep_anybody_away(db: Database) -> None:
    await fail(db, "a", times=50, failure="refused_input")
    await fail(db, "a", times=50, failure="refused_policy")
    await resolve(db, "a", "cancelled", times=50)
    assert await Process(db).choose() == "a"


async def test_when_all_are_degraded_the_first_is_tried_all_the_same(db: Database) -> None:
    for provider in ("a", "b"):
        await fail(db, provider)
    process = Process(db)
    assert await process.choose("b", "a") == "b"
    assert await process.choose("a") == "a"


async def test_one_probe_is_let_through_to_a_recovering_provider(db: Database) -> None:
    await fail(db, "a", RECOVERY_AFTER_S)
    process = Process(db)
    chosen = await asyncio.gather(*(process.choose() for _ in range(20)))
    assert chosen.count("a") == 1
    assert await process.choose() == "b"


async def test_of_many_processes_one_wins_the_probe(dsn: str, db: Database) -> None:
    await fail(db, "a", RECOVERY_AFTER_S)
    async with AsyncExitStack() as stack:
        processes = []
        for _ in range(8):
            own = Database(dsn, name="process", size=2)
            await own.open()
            stack.push_async_callback(own.close)
            processes.append(Process(own))
        chosen = await asyncio.gather(*(process.choose() for process in processes for _ in range(5)))
    assert chosen.count("a") == 1


_PROCESS = """
import asyncio, json, sys
from babysea_server.db.pool import Database
from babysea_server.kit.clock import SystemClock
from babysea_server.routing.breaker import Breaker
from babysea_server.routing.health import ProviderHealth

async def main(dsn, failures):
    db = Database(dsn, name="process", size=2)
    await db.open()
    health = ProviderHealth(db, SystemClock(), providers=["a", "b"], failures=failures)
    breaker = Breaker(db, health, SystemClock())
    await health.window()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps([await breaker.choose(("a", "b")) for _ in range(10)]), flush=True)
    await db.close()

asyncio.run(main(sys.argv[1], sys.argv[2].split(",")))
"""


async def test_of_real_processes_that_ask_at_once_one_wins_the_probe(dsn: str, db: Database) -> None:
    await fail(db, "a", RECOVERY_AFTER_S)
    command = [sys.executable, "-c", _PROCESS, dsn, ",".join(AGAINST)]
    pipe = asyncio.subprocess.PIPE
    processes = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    chosen = [provider for out, _ in answers for provider in json.loads(out.splitlines()[-1])]
    assert (len(chosen), chosen.count("a")) == (40, 1)


async def test_a_probe_whose_process_died_makes_room_for_another(db: Database) -> None:
    await fail(db, "a", RECOVERY_AFTER_S + PROBE_S)
    assert await Process(db).choose() == "a"
    other = Process(db)
    assert await other.choose() == "b"
    await db.execute("UPDATE provider_breakers SET probed_at = now() - make_interval(secs => $1)", PROBE_S)
    assert await other.choose() == "a"
    assert await other.choose() == "b"


async def test_a_probe_that_succeeds_closes_it_though_old_failures_stand_in_the_window(db: Database) -> None:
    await fail(db, "a", RECOVERY_AFTER_S, times=50)
    process = Process(db)
    assert await process.choose() == "a"
    await resolve(db, "a", "used", took_s=RECOVERY_AFTER_S + 5)
    assert await process.choose() == "b"  # submitted before the last failure: it proves nothing
    await resolve(db, "a", "used", took_s=1)
    assert [await process.choose() for _ in range(3)] == ["a", "a", "a"]
    assert (await process.health.statuses())["a"] == "healthy"


async def test_a_probe_that_fails_keeps_it_open_when_older_failures_are_forgotten(db: Database) -> None:
    await fail(db, "a", RECOVERY_AFTER_S)
    process = Process(db)
    assert await process.choose() == "a"
    await db.execute("DELETE FROM attempts")
    await fail(db, "a", times=1)
    assert await process.choose() == "b"
    assert (await process.health.statuses())["a"] == "degraded"


async def test_a_process_asks_for_a_probe_once_for_each_reading(db: Database) -> None:
    await fail(db, "a", RECOVERY_AFTER_S)
    process = Process(db)
    await process.choose()
    await db.execute("DELETE FROM provider_breakers")
    assert await process.breaker.choose(("a", "b")) == "b"  # the same reading: nobody is asked
    assert await process.choose() == "a"


async def test_a_database_that_cannot_be_read_means_that_nobody_is_degraded(dsn: str, db: Database) -> None:
    await fail(db, "a")
    gone = Database(dsn.replace("test_", "no_such_"), name="gone", size=1)
    await gone.open()
    process = Process(gone)
    with capture_logs() as logs:
        assert await process.choose() == "a"
        assert await process.breaker.choose(("b", "a")) == "b"
    assert [entry["event"] for entry in logs] == ["breaker_blind"]
    await gone.close()


# ------------------------------------------------------------------------------- the operator


@pytest.fixture
async def events() -> AsyncIterator[Callable[[], list[Any]]]:
    """What has been logged as an error, once."""
    with capture_logs() as logs:

        def taken() -> list[Any]:
            found = [
                (entry["event"], entry["provider"], entry.get("failure"))
                for entry in logs
                if entry["log_level"] == "error" or entry["event"] == "provider_works_again"
            ]
            logs.clear()
            return found

        yield taken


@pytest.mark.parametrize("failure", ["refused_auth", "refused_funds"])
async def test_one_refusal_that_only_the_operator_can_mend_opens_it_and_is_told_once(
    db: Database, events: Callable[[], list[Any]], failure: str
) -> None:
    await resolve(db, "a", "used", 200, times=50)
    await fail(db, "a", times=1, failure=failure)
    processes = [Process(db) for _ in range(5)]
    assert await asyncio.gather(*(process.choose() for process in processes)) == ["b"] * 5
    assert events() == [("provider_needs_operator", "a", failure)]
    await fail(db, "a", times=1, failure=failure)
    assert await processes[0].choose() == "b"
    assert events() == []


async def test_the_operator_hears_that_it_works_again_and_when_it_breaks_the_next_time(
    db: Database, events: Callable[[], list[Any]]
) -> None:
    process = Process(db)
    await fail(db, "a", times=1, failure="refused_auth")
    assert await process.choose() == "b"
    events()
    await resolve(db, "a", "used")
    assert await process.choose() == "a"
    assert await process.choose() == "a"
    assert events() == [("provider_works_again", "a", None)]
    await fail(db, "a", times=1, failure="refused_funds")
    assert await process.choose() == "b"
    assert events() == [("provider_needs_operator", "a", "refused_funds")]


async def test_the_operator_is_told_again_after_an_hour(
    db: Database, events: Callable[[], list[Any]]
) -> None:
    process = Process(db)
    await fail(db, "a", times=1, failure="refused_auth")
    await process.choose()
    await db.execute("UPDATE provider_breakers SET told_at = told_at - interval '1 hour'")
    await process.choose()
    assert events() == [("provider_needs_operator", "a", "refused_auth")] * 2

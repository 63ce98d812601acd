"""Windows that processes count together: exact while the counters answer, and alone while they do not."""

import asyncio
from collections import Counter
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import effort
from tests.limits.counting import PATIENT_S, Memory, patient
from tests.support import ManualClock

from babysea_server.limits.counters import WINDOW_S
from babysea_server.limits.windows import RETRY_S, SharedWindows

_KEYS = st.sampled_from("ab")
_STEPS = st.lists(
    st.one_of(
        # Requests that arrive together: (process, key) of each.
        st.lists(st.tuples(st.integers(0, 2), _KEYS), min_size=1, max_size=12),
        st.sampled_from([1.0, 20.0, 59.0, 61.0]),
    ),
    max_size=12,
)


@given(_STEPS)
@settings(max_examples=effort(20))
def test_no_position_is_given_twice_or_left_out_in_a_window(
    steps: list[list[tuple[int, str]] | float],
) -> None:
    async def scenario() -> None:
        clock, counters = ManualClock(), Memory()
        processes = [patient(counters, clock) for _ in range(3)]
        given: dict[tuple[str, int], list[int]] = {}
        for step in steps:
            if isinstance(step, float):
                clock.advance(step)
                continue
            windows = [(processes[process], processes[process].window(key)) for process, key in step]
            positions = await asyncio.gather(*(process.count(window) for process, window in windows))
            for (_, window), position in zip(windows, positions, strict=True):
                assert window.number == int(clock.now().timestamp()) // WINDOW_S
                given.setdefault((window.key, window.number), []).append(position)
        for positions in given.values():
            assert sorted(positions) == list(range(1, len(positions) + 1))
        for process in processes:
            await process.close()

    asyncio.run(scenario())


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["count", "fail", "mend", "restart"])), max_size=30)
)
@settings(max_examples=effort(20))
def test_whatever_fails_nothing_is_forgotten_and_no_process_passes_more_than_the_limit(
    steps: list[tuple[int, str]],
) -> None:
    limit = 6

    async def scenario() -> None:
        clock, counters = ManualClock(), Memory()
        processes = [patient(counters, clock) for _ in range(2)]
        passed: Counter[int] = Counter()
        counted = 0
        for index, step in steps:
            match step:
                case "count":
                    window = processes[index].window("a")
                    if window.used < limit:
                        counted += 1
                        passed[index] += await processes[index].count(window) <= limit
                case "restart":
                    counters.counts.clear()
                case _:
                    counters.failing = step == "fail"
        assert all(count <= limit for count in passed.values())
        # Once the store is back, another request of each process brings along whatever it lacks.
        counters.failing = False
        await back(processes, clock)
        for process in processes:
            await process.count(process.window("a"))
        await turns(lambda: counters.total == counted + 2)
        for process in processes:
            await process.close()

    asyncio.run(scenario())


async def turns(until: Callable[[], bool]) -> None:
    """Let the loop go on, which is all that counters in memory need."""
    for _ in range(10_000):
        if until():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")


async def back(processes: list[SharedWindows], clock: ManualClock) -> None:
    """Turn the clock within the window until every process has brought the counters up to date."""

    def complete() -> bool:
        clock.advance(RETRY_S / 1000)
        return not any(process.recovering for process in processes)

    clock.advance(RETRY_S)
    await turns(complete)


async def test_requests_that_wait_go_together_in_one_addition() -> None:
    counters = Memory()
    windows = patient(counters, ManualClock())
    await asyncio.gather(*(windows.count(windows.window(key)) for key in "abca" * 50))
    assert len(counters.additions) == 1
    assert {key: amount for key, _, amount in counters.additions[0] if ":process:" not in key} == {
        "rate:a": 100,
        "rate:b": 50,
        "rate:c": 50,
    }
    await windows.close()


async def test_a_slow_answer_frees_its_requests_and_is_taken_over_when_it_comes() -> None:
    clock, counters = ManualClock(), Memory()
    windows = SharedWindows("rate", counters, clock, timeout_s=0.01)
    counters.flowing.clear()
    window = windows.window("a")
    assert await asyncio.gather(*(windows.count(window) for _ in range(3))) == [1, 2, 3]
    assert windows.recovering
    assert await windows.count(window) == 4  # known here, and nobody is asked
    assert (len(counters.additions), window.own, window.shared) == (1, 4, 0)
    counters.flowing.set()
    await turns(lambda: window.shared == 3)
    await back([windows], clock)
    await turns(lambda: counters.total == 4)
    assert counters.additions[1][1].amount == 1
    await windows.close()


async def test_counters_that_fail_are_left_alone_until_a_probe_finds_them_back() -> None:
    clock, counters = ManualClock(), Memory()
    windows = patient(counters, clock)
    counters.failing = True
    for position in range(1, 6):
        assert await windows.count(windows.window("a")) == position
    assert len(counters.additions) == 1
    clock.advance(RETRY_S)
    await turns(lambda: counters.probes == 1 and clock.sleeping == 1)
    assert windows.recovering
    counters.failing = False
    await back([windows], clock)
    await turns(lambda: counters.total == 5)
    assert await windows.count(windows.window("a")) == 6
    await windows.close()


async def test_a_store_that_was_started_again_empty_gets_everything_back() -> None:
    clock, counters = ManualClock(), Memory()
    one, two = patient(counters, clock), patient(counters, clock)
    for _ in range(10):
        await one.count(one.window("a"))
    for _ in range(5):
        await two.count(two.window("a"))
    await one.count(one.window("a"))
    counters.counts.clear()
    # What the others had counted is remembered, too: nobody passes because the store forgot.
    assert await one.count(one.window("a")) == 17
    assert await two.count(two.window("a")) >= 6
    await turns(lambda: counters.total == 18)
    assert [await process.count(process.window("a")) for process in (one, two)] == [19, 20]
    await one.close()
    await two.close()


async def test_the_longest_unused_key_is_forgotten_first() -> None:
    clock, counters = ManualClock(), Memory()
    windows = SharedWindows("rate", counters, clock, windows_max=2, timeout_s=PATIENT_S)
    for key in ("a", "b", "a", "c"):
        await windows.count(windows.window(key))
    assert [windows.peek(key) is None for key in "abc"] == [False, True, False]
    assert await windows.count(windows.window("b")) == 2  # the counters know it still
    await windows.close()


async def test_a_window_that_is_over_is_not_found() -> None:
    clock, counters = ManualClock(), Memory()
    windows = patient(counters, clock)
    assert windows.quiet
    await windows.count(windows.window("a"))
    clock.advance(WINDOW_S - 1)
    assert windows.peek("a") is not None
    clock.advance(1)
    assert windows.peek("a") is None
    assert await windows.count(windows.window("a")) == 1
    await windows.close()


async def test_closing_leaves_no_task_behind_whatever_hangs() -> None:
    clock, counters = ManualClock(), Memory()
    windows = SharedWindows("rate", counters, clock, timeout_s=0.01)
    before = asyncio.all_tasks()
    counters.flowing.clear()
    await windows.count(windows.window("a"))
    assert asyncio.all_tasks() > before
    await windows.close()
    assert asyncio.all_tasks() == before

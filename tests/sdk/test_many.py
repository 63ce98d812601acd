"""Many jobs: how many at a time, what they wait for, and how they end; the same for both clients."""

import threading
from typing import Any

import httpx
import pytest
from tests.sdk.clients import (
    KINDS,
    JumpingClock,
    accepted,
    failure,
    generation,
    models,
    side,
    success,
)

from babysea import BabySea, InvalidInputError, Job, Outcome, RateLimitError
from babysea._effects import Gather, Sleep


class Server:
    """Accepts generations with ids that count, each succeeded when it is read, at most `places` at a time."""

    def __init__(self, places: int = 1000) -> None:
        self.places = places
        self.keys: list[str] = []
        self.in_flight = self.most = self.refused = 0
        self._lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            path = request.url.path
            if path.endswith("/models"):
                return models(image="image")
            if request.method == "GET":
                self.in_flight -= 1
                return success(generation(id=path.rpartition("/")[2]))
            if self.in_flight >= self.places:
                self.refused += 1
                return failure(429, "BSE1009", retryable=True)
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            self.keys.append(request.headers["Idempotency-Key"])
            return accepted(f"{len(self.keys):032x}")


def _jobs(count: int) -> list[Job]:
    return [Job("sandbox/image", f"number {number}", idempotency_key=f"k{number}") for number in range(count)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("concurrency", [1, 4, 100])
async def test_no_more_jobs_are_under_way_than_asked_for(kind: str, concurrency: int) -> None:
    server = Server()
    jobs = _jobs(20)
    outcomes = await side(kind, server).call("generate_many", iter(jobs), concurrency=concurrency)
    assert [outcome.job for outcome in outcomes] == jobs
    assert all(outcome.generation is not None and outcome.error is None for outcome in outcomes)
    assert sorted(server.keys) == sorted(job.idempotency_key or "" for job in jobs)
    assert server.most <= concurrency


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_to_do_is_done(kind: str) -> None:
    assert await side(kind, Server()).call("generate_many", []) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_jobs_that_an_account_has_no_place_for_wait_for_one(kind: str) -> None:
    server, time = Server(places=0), JumpingClock()

    def open_up(request: httpx.Request) -> httpx.Response:
        if time.elapsed > 60:
            server.places = 1
        return server(request)

    (outcome,) = await side(kind, open_up, time).call("generate_many", _jobs(1))
    assert outcome.generation is not None
    assert server.refused > 3
    assert server.keys == ["k0"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_job_without_a_place_ends_at_its_deadline(kind: str) -> None:
    time = JumpingClock()
    outcomes = await side(kind, Server(places=0), time).call("generate_many", _jobs(1), timeout=50)
    assert isinstance(outcomes[0].error, RateLimitError)
    assert time.elapsed <= 55


@pytest.mark.parametrize("kind", KINDS)
async def test_progress_counts_up_and_its_errors_are_the_callers(kind: str) -> None:
    seen: list[tuple[int, int, bool]] = []

    def note(done: int, total: int, outcome: Outcome) -> None:
        seen.append((done, total, outcome.error is None))
        if done == 3:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await side(kind, Server()).call("generate_many", _jobs(50), concurrency=2, on_progress=note)
    assert seen[:3] == [(1, 50, True), (2, 50, True), (3, 50, True)]
    assert len(seen) < 50


@pytest.mark.parametrize("kind", KINDS)
async def test_no_concurrency_is_refused(kind: str) -> None:
    with pytest.raises(InvalidInputError):
        await side(kind, Server()).call("generate_many", _jobs(1), concurrency=0)


def test_threads_that_sleep_wake_when_another_fails() -> None:
    """Ctrl-C must not wait for the longest pause of all threads."""
    client = BabySea("bye_" + "k" * 40)
    woken: list[type[BaseException]] = []
    asleep = threading.Barrier(3)

    def sleeper() -> Any:
        try:
            asleep.wait(30)
            yield Sleep(3600)
            yield Sleep(3600)
        except GeneratorExit as error:
            woken.append(type(error))
            raise

    def failing() -> Any:
        asleep.wait(30)
        yield Sleep(0)
        raise KeyError("mine")

    def gather() -> Any:
        yield Gather([sleeper(), sleeper(), failing()], 3)

    with client, pytest.raises(KeyError):
        client._driver.run(gather())
    assert woken == [GeneratorExit] * 2

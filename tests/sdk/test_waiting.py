"""Waiting for a generation: how often it is read, what ends it, and what does not; the same for both clients."""

from typing import Any

import httpx
import pytest
from tests.sdk.clients import (
    ID,
    KINDS,
    JumpingClock,
    Network,
    Scripted,
    accepted,
    failure,
    generation,
    models,
    side,
    success,
)

from babysea import (
    AuthenticationError,
    BabySeaError,
    GenerationCanceledError,
    GenerationFailedError,
    GenerationTimeoutError,
    InvalidInputError,
    NotFoundError,
)


def _states(*states: str) -> list[Scripted]:
    return [success(generation(state)) for state in states]


@pytest.mark.parametrize("kind", KINDS)
async def test_polls_become_rarer_and_changes_are_told(kind: str) -> None:
    time, seen = JumpingClock(), []
    network = Network(*_states("pending", "pending", *["processing"] * 7, "succeeded"))
    done = await side(kind, network, time).call(
        "wait_for_generation", ID, on_update=lambda now: seen.append(now.status)
    )
    assert (done.status, done.done) == ("succeeded", True)
    assert seen == ["pending", "processing", "succeeded"]
    assert time.slept == pytest.approx([0.5, 0.75, 1.125, 1.6875, 2.53125, 3.796875, 5, 5, 5])
    assert set(network.sent) == {f"GET /v1/content/{ID}"}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_interval_of_ones_own_stays(kind: str) -> None:
    time = JumpingClock()
    network = Network(*_states("pending", "pending", "succeeded"))
    await side(kind, network, time).call("wait_for_generation", ID, poll_interval=2)
    assert time.slept == [2, 2]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failed_generation_is_raised_with_its_reason(kind: str) -> None:
    with pytest.raises(GenerationFailedError) as caught:
        await side(kind, Network(*_states("failed"))).call("wait_for_generation", ID)
    error = caught.value
    assert (error.code, error.message, error.generation_id) == ("BSE4001", "It did not work.", ID)
    assert (error.generation.status, error.request_id) == ("failed", "req_1")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_canceled_generation_is_raised(kind: str) -> None:
    with pytest.raises(GenerationCanceledError) as caught:
        await side(kind, Network(*_states("canceled"))).call("wait_for_generation", ID)
    assert caught.value.generation.id == ID


@pytest.mark.parametrize("kind", KINDS)
async def test_the_end_of_patience_leaves_the_id_and_it_can_be_waited_for_again(kind: str) -> None:
    time = JumpingClock()
    network = Network(*_states(*["processing"] * 6, "succeeded"))
    client = side(kind, network, time)
    with pytest.raises(GenerationTimeoutError) as caught:
        await client.call("wait_for_generation", ID, timeout=10, poll_interval=4)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.generation is not None
    assert caught.value.generation.status == "processing"
    assert time.slept == [4, 4, 2], "read for the last time at the deadline"
    assert (await client.call("wait_for_generation", caught.value.generation_id)).done


@pytest.mark.parametrize("kind", KINDS)
async def test_no_time_at_all_is_one_look(kind: str) -> None:
    with pytest.raises(GenerationTimeoutError):
        await side(kind, Network(*_states("pending"))).call("wait_for_generation", ID, timeout=0)
    assert (await side(kind, Network(*_states("succeeded"))).call("wait_for_generation", ID, timeout=-1)).done


PASSING: dict[str, Scripted] = {
    "no connection": httpx.ConnectError("refused"),
    "a time-out": httpx.ReadTimeout("slow"),
    "a server that fails": failure(500, "BSE5001"),
    "a server that is away": failure(503, "BSE5002", retryable=True),
    "too many requests": failure(429, "BSE1005", retryable=True),
    "a proxy's page": httpx.Response(200, html="<h1>Maintenance</h1>"),
    "a proxy's 404": httpx.Response(404, text="nothing here"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PASSING)
async def test_what_passes_is_waited_out_however_often(kind: str, name: str) -> None:
    network = Network(*[PASSING[name]] * 20, *_states("processing", "succeeded"))
    assert (await side(kind, network).call("wait_for_generation", ID)).done


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_stays_away_ends_at_the_deadline_with_the_reason(kind: str) -> None:
    time = JumpingClock()
    with pytest.raises(GenerationTimeoutError) as caught:
        await side(kind, Network(*[httpx.ConnectError("refused")] * 100), time).call(
            "wait_for_generation", ID, timeout=60
        )
    assert (caught.value.generation_id, caught.value.generation) == (ID, None)
    assert isinstance(caught.value.__cause__, BabySeaError)
    assert time.elapsed == pytest.approx(60)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_pause_that_the_server_asks_for_is_kept_up_to_the_deadline(kind: str) -> None:
    def busy(seconds: int) -> httpx.Response:
        return failure(429, "BSE1005", retryable=True, headers={"Retry-After": str(seconds)})

    time = JumpingClock()
    network = Network(busy(90), busy(1000), *_states("succeeded"))
    assert (await side(kind, network, time).call("wait_for_generation", ID, timeout=100)).done
    assert time.slept == [90, 10]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("answer", "expected"),
    [(failure(404, "BSE3001"), NotFoundError), (failure(401, "BSE1002"), AuthenticationError)],
)
async def test_what_does_not_pass_is_raised_at_once_and_tells_the_id(
    kind: str, answer: httpx.Response, expected: type[BabySeaError]
) -> None:
    with pytest.raises(expected) as caught:
        await side(kind, Network(answer)).call("wait_for_generation", ID)
    assert caught.value.generation_id == ID


@pytest.mark.parametrize("kind", KINDS)
async def test_a_status_of_a_later_version_is_not_final(kind: str) -> None:
    network = Network(*_states("queued", "succeeded"))
    assert (await side(kind, network).call("wait_for_generation", ID)).done


@pytest.mark.parametrize("kind", KINDS)
async def test_generating_and_waiting_share_one_deadline(kind: str) -> None:
    time = JumpingClock()

    def slowly(_request: httpx.Request) -> httpx.Response:
        time.elapsed += 8
        return accepted()

    network = Network(models(image="image"), slowly, *_states(*["pending"] * 5))
    with pytest.raises(GenerationTimeoutError) as caught:
        await side(kind, network, time).call("generate_and_wait", "sandbox/image", "a fox", timeout=10)
    assert caught.value.generation_id == ID
    assert time.elapsed == pytest.approx(10)


@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_was_canceled_before_the_answer_is_raised_as_canceled(kind: str) -> None:
    answer = success({"generation_id": ID, "generation_status": "canceled"})
    network = Network(models(image="image"), answer, *_states("canceled"))
    with pytest.raises(GenerationCanceledError):
        await side(kind, network).call("generate_and_wait", "sandbox/image", "a fox")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("id", ["", "x", "../status", f"{ID}/..", None])
async def test_what_is_no_id_is_refused_before_it_is_sent(kind: str, id: Any) -> None:
    for method in ("wait_for_generation", "get_generation", "cancel_generation", "delete_generation"):
        with pytest.raises(InvalidInputError):
            await side(kind, Network()).call(method, id)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_of_the_callback_is_the_callers(kind: str) -> None:
    def fail(_now: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await side(kind, Network(*_states("pending"))).call("wait_for_generation", ID, on_update=fail)

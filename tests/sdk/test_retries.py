"""What is sent again, when, and how often; the same for both clients."""

from datetime import UTC, datetime
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
    bodies,
    failure,
    generation,
    models,
    side,
    success,
)

import babysea
from babysea import (
    APIError,
    BabySeaError,
    ConflictError,
    InvalidResponseError,
    NetworkError,
    NotFoundError,
    RateLimitError,
    RequestTimeoutError,
    RetriesExhaustedError,
    ServerError,
)

ACCOUNT = {
    "account_id": "a",
    "account_name": "A",
    "account_is_personal": True,
    "account_created_at": "2026-04-28T12:00:00.000Z",
}

RETRIED: dict[str, Scripted] = {
    "no connection": httpx.ConnectError("refused"),
    "no connection in time": httpx.ConnectTimeout("slow"),
    "no answer in time": httpx.ReadTimeout("slow"),
    "a broken connection": httpx.RemoteProtocolError("cut"),
    "408": httpx.Response(408, text="slow"),
    "409 in progress": failure(409, "BSE2016", retryable=True),
    "429": failure(429, "BSE1005", retryable=True),
    "429 of a proxy": httpx.Response(429, text="busy"),
    "500 that says so": failure(500, "BSE9999", retryable=True),
    "503 that says so": failure(503, "BSE5002", retryable=True),
    "502 of a proxy": httpx.Response(502, html="<h1>Bad Gateway</h1>"),
    "503 of a proxy": httpx.Response(503),
    "504 of a proxy": httpx.Response(504, json=["?"]),
}

FINAL: dict[str, tuple[Scripted, type[BabySeaError]]] = {
    "400": (failure(400, "BSE2001"), babysea.InvalidInputError),
    "401": (failure(401, "BSE1002"), babysea.AuthenticationError),
    "404": (failure(404, "BSE3001"), NotFoundError),
    "409": (failure(409, "BSE2015"), ConflictError),
    "500": (failure(500, "BSE5001"), ServerError),
    "502 that says no": (failure(502, "BSE4009"), ServerError),
    "500 of a proxy": (httpx.Response(500, text="?"), ServerError),
    "a page": (httpx.Response(200, html="<h1>Hello</h1>"), InvalidResponseError),
    "a redirect": (httpx.Response(302, headers={"Location": "/"}), InvalidResponseError),
    "a strange 404": (httpx.Response(404, text="?"), InvalidResponseError),
    "a list": (httpx.Response(200, json=[]), InvalidResponseError),
    "an answer without data": (
        httpx.Response(200, json={"status": "success", "request_id": "r"}),
        InvalidResponseError,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RETRIED)
async def test_what_can_pass_is_retried(kind: str, name: str) -> None:
    network, time = Network(RETRIED[name], RETRIED[name], success(ACCOUNT)), JumpingClock()
    assert (await side(kind, network, time).call("account")).account_name == "A"
    assert network.sent == ["GET /v1/user/account"] * 3
    assert time.slept == [0.5, 1.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RETRIED)
async def test_after_the_last_retry_the_error_is_of_its_class_and_exhausted(kind: str, name: str) -> None:
    network = Network(*[RETRIED[name]] * 3)
    with pytest.raises(RetriesExhaustedError) as caught:
        await side(kind, network).call("account")
    error = caught.value
    assert isinstance(error, NetworkError | RequestTimeoutError | APIError | InvalidResponseError)
    assert (error.attempts, error.retryable, len(network.requests)) == (3, True, 3)
    assert "3 attempts" in str(error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FINAL)
async def test_what_cannot_pass_is_raised_at_once(kind: str, name: str) -> None:
    answer, expected = FINAL[name]
    network = Network(answer)
    with pytest.raises(expected) as caught:
        await side(kind, network).call("account")
    assert not isinstance(caught.value, RetriesExhaustedError)
    assert (caught.value.attempts, len(network.requests)) == (1, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_without_retries_the_first_error_is_raised_plainly(kind: str) -> None:
    network = Network(httpx.Response(503))
    with pytest.raises(ServerError) as caught:
        await side(kind, network, max_retries=0).call("account")
    assert not isinstance(caught.value, RetriesExhaustedError)


@pytest.mark.parametrize("kind", KINDS)
async def test_waits_grow_to_a_bound(kind: str) -> None:
    network, time = Network(*(httpx.Response(503) for _ in range(9)), success(ACCOUNT)), JumpingClock()
    await side(kind, network, time, max_retries=9).call("account")
    assert time.slept == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize("kind", KINDS)
async def test_waits_are_spread_over_all_of_their_bound(kind: str) -> None:
    network, time = Network(*[httpx.Response(503)] * 4, success(ACCOUNT)), JumpingClock(chance=0.25)
    await side(kind, network, time, max_retries=4).call("account")
    assert time.slept == [0.125, 0.25, 0.5, 1.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("header", "slept"),
    [
        ("7", 7.0),
        ("60", 60.0),
        ("0", 0.0),
        ("Tue, 28 Apr 2026 12:00:20 GMT", 20.0),
        ("Tue, 28 Apr 2026 11:00:00 GMT", 0.0),
        ("soon", 0.5),
        ("-1", 0.5),
        ("", 0.5),
    ],
)
async def test_retry_after_is_honoured_in_seconds_and_as_a_date(kind: str, header: str, slept: float) -> None:
    busy = failure(429, "BSE1005", retryable=True, headers={"Retry-After": header})
    time = JumpingClock()
    await side(kind, Network(busy, success(ACCOUNT)), time).call("account")
    assert time.slept == [slept]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_longer_retry_after_is_told_instead_of_waited_for(kind: str) -> None:
    headers = {"Retry-After": "61", "X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0"}
    headers["X-RateLimit-Reset"] = "1777377661"
    network, time = Network(failure(429, "BSE1005", retryable=True, headers=headers)), JumpingClock()
    with pytest.raises(RateLimitError) as caught:
        await side(kind, network, time).call("account")
    assert (caught.value.retry_after, time.slept) == (61.0, [])
    assert caught.value.rate_limit == babysea.RateLimit(60, 0, datetime(2026, 4, 28, 12, 1, 1, tzinfo=UTC))
    assert not isinstance(caught.value, RetriesExhaustedError)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [None, "order-1"])
async def test_all_attempts_of_generate_carry_one_key(kind: str, given: str | None) -> None:
    network = Network(
        models(image="image"), httpx.ReadTimeout("lost"), httpx.Response(502), accepted(), accepted("0" * 32)
    )
    client = side(kind, network)
    answer = await client.call("generate", "sandbox/image", "a fox", idempotency_key=given)
    another = await client.call("generate", "sandbox/image", "a fox", idempotency_key=given)

    keys = [request.headers["Idempotency-Key"] for request in network.requests[1:]]
    assert keys == [answer.idempotency_key] * 3 + [another.idempotency_key]
    assert (answer.idempotency_key == given) == (given is not None)
    assert (answer.idempotency_key == another.idempotency_key) == (given is not None)
    assert bodies(network.requests) == [{"generation_prompt": "a fox"}] * 4


@pytest.mark.parametrize("kind", KINDS)
async def test_a_replay_is_told(kind: str) -> None:
    network = Network(models(image="image"), accepted(**{"Idempotency-Replayed": "true"}))
    assert (await side(kind, network).call("generate", "sandbox/image", "a fox")).replayed


LOST: dict[str, Scripted] = {
    "a read time-out": httpx.ReadTimeout("lost"),
    "a cut": httpx.ReadError("cut"),
    "a proxy": httpx.Response(504),
}
NEVER_DONE: dict[str, Scripted] = {
    "no connection": httpx.ConnectError("refused"),
    "not accepted": failure(503, "BSE5002", retryable=True),
}
GONE = ("delete_generation", failure(404, "BSE3001"), NotFoundError)
OVER = ("cancel_generation", failure(409, "BSE3002"), ConflictError)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", LOST)
async def test_a_deletion_whose_answer_was_lost_is_a_success(kind: str, lost: str) -> None:
    network = Network(LOST[lost], GONE[1])
    deleted = await side(kind, network).call("delete_generation", ID)
    assert (deleted.generation_id, deleted.files_deleted) == (ID, None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", LOST)
async def test_a_cancel_whose_answer_was_lost_is_a_success_if_it_is_canceled(kind: str, lost: str) -> None:
    network = Network(LOST[lost], OVER[1], success(generation("canceled")))
    canceled = await side(kind, network).call("cancel_generation", ID)
    assert (canceled.generation_id, canceled.generation_status) == (ID, "canceled")
    assert (canceled.credits_refunded, canceled.provider_cancel_sent) == (None, None)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cancel_that_came_too_late_is_none(kind: str) -> None:
    network = Network(httpx.ReadTimeout("lost"), OVER[1], success(generation("succeeded")))
    with pytest.raises(ConflictError):
        await side(kind, network).call("cancel_generation", ID)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [None, *NEVER_DONE])
@pytest.mark.parametrize("case", [GONE, OVER], ids=["delete", "cancel"])
async def test_an_attempt_that_was_certainly_not_carried_out_is_no_success(
    kind: str, before: str | None, case: tuple[str, httpx.Response, type[APIError]]
) -> None:
    method, answer, expected = case
    network = Network(*([] if before is None else [NEVER_DONE[before]]), answer)
    with pytest.raises(expected):
        await side(kind, network).call(method, ID)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_without_end_is_cut_off(kind: str) -> None:
    time = JumpingClock()

    class Dripping(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Any:
            while True:
                time.elapsed += 20
                yield b" "

        async def __aiter__(self) -> Any:
            for part in self:
                yield part

    network = Network(httpx.Response(200, stream=Dripping()))
    with pytest.raises(RequestTimeoutError):
        await side(kind, network, time, max_retries=0).call("account")
    assert time.elapsed <= 80


@pytest.mark.parametrize("kind", KINDS)
async def test_time_limits_are_by_phase(kind: str) -> None:
    network = Network(success(ACCOUNT))
    await side(kind, network, timeout=12).call("account")
    assert network.requests[0].extensions["timeout"] == {"connect": 5.0, "read": 12, "write": 12, "pool": 12}

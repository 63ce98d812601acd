"""The same server behind uvicorn and real sockets: framing, clients that leave, and what they left behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from tests.conftest import MakeDeployment
from tests.contract import sockets
from tests.contract.asgi import Answer
from tests.contract.published import Published
from tests.contract.sockets import serving
from tests.generations import admitting
from tests.generations.conftest import Hold, backends_waiting
from tests.support import Customer, Deployment, eventually, make_customer

PATH = "/v1/generate/image/sandbox/image"
GOOD = json.dumps({"generation_prompt": "a test"}).encode()
ADMISSION = "babysea-admission"

Exchange = Callable[..., Coroutine[Any, Any, list[Answer]]]


@pytest.fixture
async def port(api: Deployment) -> AsyncIterator[int]:
    """The API on a free port of loopback."""
    async with serving(api.api) as number:
        yield number


@pytest.fixture
async def published(api: Deployment) -> Published:
    return Published((await api.client.get("/openapi.json")).json())


@pytest.fixture
def exchange(port: int) -> Exchange:
    """Send bytes and read so many answers; closed before that is a failure."""
    return partial(sockets.exchange, f"http://127.0.0.1:{port}")


def head(customer: Customer, *lines: str, target: str = f"POST {PATH}", host: str = "localhost") -> bytes:
    """Request line and headers."""
    fixed = [f"{target} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {customer.key}"]
    return "\r\n".join([*fixed, "Content-Type: application/json", *lines, "", ""]).encode("latin-1")


def whole(customer: Customer, body: bytes = GOOD, *lines: str) -> bytes:
    """A complete request."""
    return head(customer, f"Content-Length: {len(body)}", *lines) + body


async def count(customer: Customer) -> int:
    return int(await customer.deployment.db.fetchval("SELECT count(*) FROM generations"))


async def test_requests_in_any_framing_are_understood(
    caller: Customer, exchange: Exchange, published: Published
) -> None:
    chunks = (
        head(caller, "Transfer-Encoding: chunked"),
        b"5\r\n" + GOOD[:5] + b"\r\n",
        (f"{len(GOOD) - 5:x}\r\n".encode() + GOOD[5:] + b"\r\n0\r\n\r\n"),
    )
    ways: list[tuple[tuple[bytes, ...], int]] = [
        ((whole(caller),), 1),
        (tuple(bytes([byte]) for byte in whole(caller)), 1),
        (chunks, 1),
        ((whole(caller) * 3,), 3),
    ]
    for parts, expected in ways:
        for answer in await exchange(*parts, answers=expected):
            published.check("generate", answer)
            assert answer.status == 200
    assert await count(caller) == 6


async def test_malformed_requests_get_their_documented_error_over_a_socket(
    caller: Customer, exchange: Exchange, published: Published
) -> None:
    huge = b"x" * (1 << 20)
    cases: list[tuple[bytes, int, str]] = [
        (whole(caller, b"{"), 400, "BSE2001"),
        (whole(caller, b'{"generation_prompt": "x", "generation_prompt": "x"}'), 400, "BSE2001"),
        (whole(caller, b"\xff\x00"), 400, "BSE2001"),
        (whole(caller, GOOD, "Idempotency-Key: \xe9"), 400, "BSE2014"),
        (whole(caller, huge), 413, "BSE2010"),
        (head(caller, f"Content-Length: {10**12}"), 413, "BSE2010"),
        (
            head(caller, "Transfer-Encoding: chunked") + b"100000\r\n" + huge + b"\r\n0\r\n\r\n",
            413,
            "BSE2010",
        ),
        (whole(caller).replace(b"sandbox/image", b"sandbox%2Fimage"), 403, "BSE1010"),
        (whole(caller).replace(b"sandbox/image", b"sandbox/%00image"), 403, "BSE1010"),
        (whole(caller).replace(b"/v1/generate", b"/v1/./generate"), 403, "BSE1010"),
        (whole(caller).replace(b"Host: localhost", b"Host: evil.example"), 403, "BSE1010"),
        (whole(caller).replace(b"Host: localhost\r\n", b""), 403, "BSE1010"),
        (whole(caller).replace(b"Host: localhost\r\n", b"Host: localhost\r\n" * 2), 403, "BSE1010"),
        (whole(caller).replace(b"application/json", b"text/json"), 403, "BSE1010"),
        (whole(caller, GOOD, "X-HTTP-Method-Override: DELETE"), 403, "BSE1010"),
        (whole(caller).replace(b"POST ", b"PUT "), 403, "BSE1010"),
        (whole(caller).replace(caller.key.encode(), b"bye_" + b"x" * 40), 401, "BSE1002"),
        (whole(caller).replace(b"Authorization", b"Authorisation"), 401, "BSE1001"),
    ]
    for request, status, code in cases:
        (answer,) = await exchange(request)
        published.check(None, answer)
        assert (answer.status, answer.code) == (status, code), request[:300]
    assert await count(caller) == 0


async def test_a_connection_goes_on_after_a_refused_body(
    caller: Customer, exchange: Exchange, published: Published
) -> None:
    too_much = whole(caller, b"x" * 200_000)
    answers = await exchange(too_much, whole(caller), answers=2)
    assert [answer.status for answer in answers] == [413, 200]


async def test_what_is_no_http_is_refused_without_a_trace(caller: Customer, port: int) -> None:
    """In the firewall's words, though it never became a request."""
    for noise in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / SMTP/9\r\n\r\n",
        whole(caller, GOOD, "Transfer-Encoding: chunked"),
        whole(caller, GOOD, "Content-Length: 3"),
        whole(caller, GOOD, "X: a\x00b"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(noise)
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 403 "), (noise, answer)
        assert b'"BSE1010"' in answer
        assert b"Traceback" not in answer
        assert b"babysea_server" not in answer
    assert await count(caller) == 0


async def test_a_client_that_leaves_after_sending_changes_nothing(
    caller: Customer, port: int, hold: Hold
) -> None:
    db = caller.deployment.db
    async with hold(caller.account_id):
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(whole(caller))
            await writer.drain()
            await backends_waiting(db, ADMISSION)  # then the request has been read
            writer.transport.abort()
    await eventually(lambda: _counted(caller, 5))
    assert await db.fetchval("SELECT count(*) FROM ledger WHERE kind = 'reserve'") == 5
    assert await admitting.settle_all(db) == 5
    assert await caller.deployment.differences() == []


async def _counted(caller: Customer, number: int) -> bool:
    return await count(caller) == number


async def test_a_client_that_leaves_before_it_has_sent_everything_is_not_charged(
    caller: Customer, port: int, exchange: Exchange
) -> None:
    request = whole(caller)
    for length in (20, len(request) - len(GOOD), len(request) - 1):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request[:length])
        await writer.drain()
        writer.transport.abort()
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head(caller, "Transfer-Encoding: chunked") + b"5\r\n" + GOOD[:5] + b"\r\n")
    writer.write_eof()
    await writer.drain()
    writer.close()
    (answer,) = await exchange(request)
    assert answer.status == 200
    assert await count(caller) == 1


async def test_when_backends_die_under_requests_what_was_answered_is_what_is_there(
    make_deployment: MakeDeployment, hold: Hold
) -> None:
    deployment = await make_deployment(worker=False, admission_deadline_s=2)
    customer = await make_customer(deployment)
    async with hold(customer.account_id):
        tasks = [asyncio.create_task(customer.generate()) for _ in range(10)]
        for pid in await backends_waiting(deployment.db, ADMISSION):
            assert await deployment.db.fetchval("SELECT pg_terminate_backend($1)", pid)
    responses = [await task for task in tasks]
    refused = [response for response in responses if response.status_code != 200]
    assert refused
    for response in refused:
        assert (response.status_code, response.json()["error"]["code"]) == (503, "BSE5002")
        assert response.headers["retry-after"] == "1"
    assert await count(customer) == len(responses) - len(refused)
    assert (await customer.generate()).status_code == 200

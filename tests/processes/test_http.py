"""HTTP below the application: what a client may leave open, and that no answer is taken for another's."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import msgspec
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from babysea_server.contract.security import security_headers
from babysea_server.processes.http import MAX_HEAD_BYTES, MAX_HEADERS
from babysea_server.processes.serve import http_config

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
PATIENCE_S = 30.0


class Application:
    """Answers each path with its body and header names; waits where it is told to."""

    def __init__(self) -> None:
        self.served: list[str] = []
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.served.append(scope["path"])
        body, more = b"", scope["path"] != "/early"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        await self.go.wait()
        names = b",".join(name for name, _ in scope["headers"])
        said = b"%s %s %s" % (scope["path"].encode(), body, names)
        length = (b"content-length", str(len(said)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": said})


class Server(uvicorn.Server):
    """uvicorn that leaves the test process's signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: Application, *, idle_s: float = 75) -> AsyncIterator[int]:
    """The app as a production process serves it; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config: Any = http_config(app)  # uvicorn says whole seconds, and any number will do
    config.timeout_keep_alive = idle_s
    server = Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running


async def until_closed(port: int, *parts: bytes, app: Application | None = None) -> bytes:
    """Write the parts, let the application go on, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if app is not None:
            app.go.set()
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()


def refusal(received: bytes) -> dict[str, object]:
    """The details of the one refusal that was received."""
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 403 Forbidden"
    assert b"connection: close" in lines
    document = msgspec.json.decode(body)
    assert f"x-request-id: {document['request_id']}".encode() in lines
    assert document["error"]["code"] == "BSE1010"
    assert {b"%s: %s" % header for header in security_headers("http")} <= set(lines)
    details: dict[str, object] = document["error"]["details"]
    return details


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", b"G\x00T / HTTP/1.1\r\n\r\n"],
)
async def test_403_in_the_envelope_for_what_is_no_http(garbage: bytes) -> None:
    app = Application()
    async with serving(app) as port:
        assert refusal(await until_closed(port, garbage))["rule"] == "malformed_http"
    assert app.served == []


async def test_403_for_a_head_beyond_its_limits_whether_complete_or_not() -> None:
    app = Application()
    begun = b"GET / HTTP/1.1\r\nX-Long: "
    many = b"".join(b"X-%d: v\r\n" % number for number in range(MAX_HEADERS + 1))
    heads = [
        (begun, *[b"a" * 20000] * 5),
        (begun + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",),
        (b"GET / HTTP/1.1\r\n" + many + b"\r\n",),
        (b"GET /" + b"a" * 30000, b"a" * 30000, b"a" * 30000),
    ]
    async with serving(app) as port:
        for parts in heads:
            details = refusal(await until_closed(port, *parts))
            assert details["rule"] == "head_too_large"
            assert details["allowed"] == {"max_bytes": MAX_HEAD_BYTES, "max_headers": MAX_HEADERS}
    assert app.served == []


async def test_trailers_without_end_end_the_connection() -> None:
    async with serving(Application()) as port:
        # What is still being written when it closes resets it, and the answer may be lost with that.
        with suppress(ConnectionError):
            trailer = [b"a" * 100_000] * 30
            details = refusal(await until_closed(port, CHUNKED + b"0\r\nX-Trailer: ", *trailer))
            assert details["rule"] == "head_too_large"


async def test_trailers_are_no_headers() -> None:
    app = Application()
    async with serving(app) as port:
        chunks = b"2\r\nhi\r\n0\r\nAuthorization: Bearer x\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"
        last = GET.replace(b"/ ", b"/last ").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        received = await until_closed(port, CHUNKED + chunks + last)
    assert b"/ hi host,transfer-encoding" in received
    assert b"authorization" not in received
    assert b"forwarded" not in received


@pytest.mark.parametrize(
    ("requests", "served"),
    [
        ((GET + b"\x00garbage",), [b"/"]),
        ((GET, b"\x00garbage"), [b"/"]),
        ((GET + GET.replace(b"/ ", b"/two ") + b"\x00",), [b"/", b"/two"]),
        ((GET + CHUNKED.replace(b"/ ", b"/bad ") + b"zz\r\n",), [b"/"]),
        ((GET, CHUNKED.replace(b"/ ", b"/bad "), b"zz\r\n"), [b"/"]),
    ],
)
async def test_complete_requests_are_answered_before_what_follows_ends_the_connection(
    requests: tuple[bytes, ...], served: list[bytes]
) -> None:
    app = Application()
    app.go.clear()
    async with serving(app) as port:
        received = await until_closed(port, *requests, app=app)
    assert received.count(b"HTTP/1.1 200 OK") == received.count(b"HTTP/1.1 ") == len(served)
    for path in served:
        assert path + b"  host" in received


async def test_403_for_a_request_whose_body_is_no_chunks() -> None:
    app = Application()
    async with serving(app) as port:
        assert refusal(await until_closed(port, CHUNKED, b"zz\r\n"))["rule"] == "malformed_http"


async def test_one_answer_where_the_body_goes_wrong_after_it() -> None:
    app = Application()
    async with serving(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CHUNKED.replace(b"/ ", b"/early "))
        first = await asyncio.wait_for(reader.readuntil(b"transfer-encoding"), PATIENCE_S)
        writer.write(b"zz\r\n")
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        writer.close()
    assert first.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "parts",
    [
        (b"",),
        (b"GET / HT",),
        (b"\r\n",),
        (GET, b"GET / HTTP/1.1\r\nHo"),
        (CHUNKED.replace(b"/ ", b"/early "), b"5\r\nab"),
    ],
)
async def test_who_never_completes_a_request_is_closed_like_an_idle_connection(
    parts: tuple[bytes, ...],
) -> None:
    async with serving(Application(), idle_s=0.05) as port:
        await until_closed(port, *parts)

"""The load generator's own Python driver: what it counts is what a server really answered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from bench.load import Load, Measured, drive, http_request, percentile

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _server(serve: Serve) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the load has ended
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _apply(serve: Serve, *, connections: int = 2) -> Measured:
    async with _server(serve) as port:
        return await drive(
            Load(
                host="127.0.0.1",
                port=port,
                requests=[http_request("GET", "/one"), http_request("POST", "/two", body=b"{}")],
                connections=connections,
                seconds=0.2,
            )
        )


async def test_counts_every_answer_and_those_that_are_not_2xx() -> None:
    answered = {b"/one": 0, b"/two": 0}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1]
            if path == b"/two":
                await reader.readexactly(2)
            answered[path] += 1
            writer.write(_OK if path == b"/one" else _BUSY)

    measured = await _apply(serve)
    assert measured.broken == 0
    # Answers that crossed the end of the measurement are not counted.
    assert 0 <= answered[b"/one"] + answered[b"/two"] - measured.requests <= 2
    assert 0 <= answered[b"/two"] - measured.refused <= 2
    assert measured.requests > measured.refused > 0


async def test_an_answer_in_pieces_is_one_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/two" in head:
                await reader.readexactly(2)
            for piece in (_OK[:20], _OK[20:-3], _OK[-3:]):
                writer.write(piece)
                await writer.drain()

    measured = await _apply(serve)
    assert measured.requests > 0
    assert measured.refused == 0
    assert measured.broken == 0


async def test_a_connection_closed_under_load_is_broken() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    measured = await _apply(serve, connections=3)
    assert measured.requests == 0
    assert measured.broken == 3


def test_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 99) == 4.0
    assert percentile([], 50) == 0.0

"""A server behind real sockets, and a client that writes exactly the bytes it is given."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import httptools
import uvicorn
from starlette.types import ASGIApp
from tests.contract.asgi import Answer

from babysea_server.processes.serve import http_config

_PATIENCE_S = 30.0


class _Server(uvicorn.Server):
    """uvicorn that leaves the test process's signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """The app on a free port of loopback, served as in production."""
    listener = socket.create_server(("127.0.0.1", 0))
    # asyncio does so itself, but only for sockets whose protocol number says TCP: this one's is 0.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = _Server(http_config(app))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    number: int = listener.getsockname()[1]
    try:
        yield number
    finally:
        server.should_exit = True
        await running


class _Answers:
    """Reads answers off a socket; httptools calls the `on_` methods."""

    def __init__(self) -> None:
        self.done: list[Answer] = []
        self._headers: dict[str, str] = {}
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.done.append(Answer(self._parser.get_status_code(), self._headers, self._body))
        self._headers, self._body = {}, b""


async def exchange(base: str, *parts: bytes, answers: int = 1) -> list[Answer]:
    """Write the parts to the server at `base` and read so many answers; closed before that is a failure."""
    url = urlsplit(base)
    secure = ssl.create_default_context() if url.scheme == "https" else None
    port = url.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=secure)
    parser = _Answers()
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        while len(parser.done) < answers:
            data = await asyncio.wait_for(reader.read(65536), _PATIENCE_S)
            assert data, f"closed after {len(parser.done)} answers"
            parser.feed(data)
    finally:
        writer.close()
    return parser.done

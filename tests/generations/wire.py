"""A line to PostgreSQL that can be cut: what was sent arrives, what would be answered is lost."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress


class Wire:
    """Forwards TCP on loopback to PostgreSQL's socket file.

    A cut is what a broken network is to the client. The server's end stays open, so a backend at work goes on
    and only learns of it when it answers.

    Args:
        path: PostgreSQL's socket file.
        database: the database that `dsn` names.
    """

    def __init__(self, path: str, database: str) -> None:
        self._path = path
        self._database = database
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._backends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.refusing = False
        """New connections are closed at once."""
        self.deaf = False
        """Answers are swallowed."""
        self._closed = False

    @property
    def dsn(self) -> str:
        """Connection string of the way through this wire."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"postgresql://postgres@127.0.0.1:{port}/{self._database}?sslmode=disable"

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def close(self) -> None:
        """Cut everything at both ends."""
        assert self._server is not None
        self._closed = True
        self._server.close()
        self.cut()
        for backend in self._backends:
            backend.transport.abort()
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def cut(self) -> None:
        """Break all present connections at the client's end."""
        for client in self._clients:
            client.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        from_backend, to_backend = await asyncio.open_unix_connection(self._path)
        if self._closed:  # while this one was on its way
            for end in (writer, to_backend):
                end.transport.abort()
            return
        self._clients.add(writer)
        self._backends.add(to_backend)
        self._start(self._forward(reader, to_backend, answers=False))
        self._start(self._forward(from_backend, writer, answers=True))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not (answers and self.deaf):
                    writer.write(data)
                    await writer.drain()
        if answers:
            writer.transport.abort()

"""A TCP proxy on loopback whose ways can break, stall, slow down and vanish."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from babysea_server.kit.clock import Clock

_PIECE_BYTES = 64 * 1024
_CUT_EVERY_S = 0.1
#: Of SO_LINGER: closing sends a reset, whatever is on its way.
_AT_ONCE = struct.pack("ii", 1, 0)


class Way:
    """From a port of ours to one of somebody else's.

    `delay_s` is added to every piece of data, `cut_share` of the connections break in every tenth of a second, and
    while `open` is not set nothing comes through.
    """

    def __init__(self, port: int, target: int, clock: Clock, chance: random.Random) -> None:
        self.port = port
        self.target = target
        self.delay_s = 0.0
        self.cut_share = 0.0
        self.cuts = 0
        """Connections that were broken on purpose."""
        self.open = asyncio.Event()
        self.open.set()
        self._clock = clock
        self._chance = chance
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}

    @property
    def listening(self) -> bool:
        """Whether connections are taken."""
        return self._server is not None

    async def listen(self) -> None:
        """Take connections."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def vanish(self) -> None:
        """Nobody is there any more: what stands breaks, what comes is refused."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.cut(1.0)

    def cut(self, share: float) -> None:
        """Break a share of the connections."""
        for writers in list(self._links.values()):
            if self._chance.random() < share:
                self.cuts += 1
                for writer in writers:
                    _reset(writer)

    async def cut_forever(self) -> None:
        """Break connections as `cut_share` says, until cancelled."""
        while True:
            await self._clock.sleep(_CUT_EVERY_S)
            if self.cut_share:
                self.cut(self.cut_share)

    async def close(self) -> None:
        """Break everything and wait for its end."""
        self.open.set()
        await self.vanish()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            _reset(writer)
            return
        link = asyncio.current_task()
        assert link is not None
        self._links[link] = writer, there_writer
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, there_writer))
                group.create_task(self._pump(there_reader, writer))
        finally:
            del self._links[link]
            for each in (writer, there_writer):
                each.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(_PIECE_BYTES):
                await self.open.wait()
                if self.delay_s:
                    await self._clock.sleep(self.delay_s * self._chance.random())
                if sink.transport.is_closing():  # uvloop's would raise
                    return
                sink.write(data)
                await sink.drain()
            if not sink.transport.is_closing():
                sink.write_eof()
            return
        sink.transport.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection so that the other end is told: not an end, but a fault."""
    if not writer.transport.is_closing():
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        writer.transport.abort()


@asynccontextmanager
async def proxy(ways: dict[str, Way]) -> AsyncIterator[None]:
    """All ways listen until the end of the block."""
    cutters = []
    try:
        for way in ways.values():
            await way.listen()
            cutters.append(asyncio.create_task(way.cut_forever()))
        yield
    finally:
        for cutter in cutters:
            cutter.cancel()
        for way in ways.values():
            await way.close()

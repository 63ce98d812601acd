"""The proxy: what it lets through, breaks, holds back, and refuses."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.chaos.proxy import Way, proxy
from tests.chaos.servers import quiet_port

from babysea_server.kit.clock import SystemClock


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1024):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
async def way() -> AsyncIterator[Way]:
    chance = random.Random(0)
    target = quiet_port(chance)
    async with await asyncio.start_server(_echo, "127.0.0.1", target):
        way = Way(quiet_port(chance), target, SystemClock(), chance)
        async with proxy({"echo": way}):
            yield way


@asynccontextmanager
async def _connected(way: Way) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_a_way_brings_data_there_and_back_and_tells_the_end(way: Way) -> None:
    async with _connected(way) as (reader, writer):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write_eof()
        assert await reader.read() == b""


async def test_a_hole_keeps_what_is_sent_until_it_is_open_again(way: Way) -> None:
    async with _connected(way) as (reader, writer):
        way.open.clear()
        writer.write(b"hello")
        answer = asyncio.create_task(reader.readexactly(5))
        done, _ = await asyncio.wait({answer}, timeout=0.05)
        assert not done
        way.open.set()
        assert await answer == b"hello"


async def test_a_cut_breaks_what_stands_and_lets_the_next_one_through(way: Way) -> None:
    async with _connected(way) as (reader, writer):
        writer.write(b"hello")
        await reader.readexactly(5)
        way.cut(1.0)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
    assert way.cuts == 1
    async with _connected(way) as (reader, writer):
        writer.write(b"again")
        assert await reader.readexactly(5) == b"again"


async def test_a_way_that_vanished_refuses_and_comes_back_on_its_port(way: Way) -> None:
    await way.vanish()
    assert not way.listening
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", way.port)
    await way.listen()
    async with _connected(way) as (reader, writer):
        writer.write(b"back")
        assert await reader.readexactly(4) == b"back"


async def test_a_way_to_nobody_breaks_at_once() -> None:
    chance = random.Random(1)
    way = Way(quiet_port(chance), quiet_port(chance), SystemClock(), chance)
    async with proxy({"nobody": way}), _connected(way) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)

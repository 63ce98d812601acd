"""Faults of a connection to Redis, as the loop in production words them."""

import asyncio
import socket

import pytest
import uvloop

from babysea_server.kit.redis import REDIS_FAULTS


def test_writing_to_a_connection_that_has_just_been_closed_is_a_fault() -> None:
    async def write() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            _, writer = await asyncio.open_connection(sock=ours)
            writer.transport.abort()
            await asyncio.wait({asyncio.ensure_future(writer.wait_closed())}, timeout=10)
            writer.writelines([b"PING\r\n"])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(REDIS_FAULTS):
        runner.run(write())

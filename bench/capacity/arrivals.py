"""An open loop: requests that arrive at random (Poisson), whether the server keeps up or not.

A latency counts from the moment at which a request arrived, also while it waits here for a free connection. One
process of its own; reads what to send from standard input and writes what came of it.
"""

import asyncio
import random
import sys
from collections import deque
from contextlib import suppress
from time import perf_counter
from typing import cast

import msgspec
import uvloop

from bench.load import Measured, percentile

_SEED = 20260428
_DRAIN_S = 10.0


class Arrivals(msgspec.Struct, frozen=True, kw_only=True):
    """`rate` requests a second for so many seconds; `request` is the whole HTTP/1.1 request."""

    host: str
    port: int
    request: bytes
    rate: float
    seconds: float
    connections: int = 128


class Tally:
    """What all connections share; who arrives while none is free waits."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.idle: deque[Connection] = deque()
        self.waiting: deque[float] = deque()
        self.latencies: list[float] = []
        self.refused = 0
        self._until = -1
        self._all = asyncio.Event()

    def arrive(self, at: float) -> None:
        """A request that is due at this time."""
        if self.idle:
            self.idle.popleft().send(at)
        else:
            self.waiting.append(at)

    async def answered(self, count: int) -> None:
        """Wait until so many answers are there."""
        self._until = count
        if len(self.latencies) < count:
            await self._all.wait()

    def answer(self, connection: "Connection", latency_s: float) -> None:
        """Its request has its answer."""
        self.latencies.append(latency_s)
        if len(self.latencies) == self._until:
            self._all.set()
        self.free(connection)

    def free(self, connection: "Connection") -> None:
        """Whoever waits longest takes it."""
        if self.waiting:
            connection.send(self.waiting.popleft())
        else:
            self.idle.append(connection)


class Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request under way."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._transport: asyncio.WriteTransport | None = None
        self._received = b""
        self._arrived: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by inheritance

    def send(self, arrived: float) -> None:
        """Send the request of one arrival."""
        assert self._transport is not None
        self._arrived = arrived
        self._transport.write(self._tally.request)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length or self._arrived is None:
            return
        latency_s = perf_counter() - self._arrived
        self._tally.refused += head[9:10] != b"2"
        self._received, self._arrived = b"", None
        self._tally.answer(self, latency_s)


async def drive(arrivals: Arrivals) -> Measured:
    """Send, wait for the last answers, and tell."""
    loop, chance = asyncio.get_running_loop(), random.Random(_SEED)
    tally = Tally(arrivals.request)
    for _ in range(arrivals.connections):
        _, connection = await loop.create_connection(lambda: Connection(tally), arrivals.host, arrivals.port)
        tally.idle.append(connection)
    started = due = perf_counter()
    sent = 0
    while due < started + arrivals.seconds:
        await asyncio.sleep(max(0.0, due - perf_counter()))
        while due <= perf_counter():
            tally.arrive(due)
            sent += 1
            due += chance.expovariate(arrivals.rate)
    seconds = perf_counter() - started
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            await tally.answered(sent)
    ordered = sorted(tally.latencies)
    return Measured(
        requests=len(ordered),
        seconds=seconds,
        p50_ms=percentile(ordered, 50) * 1000,
        p99_ms=percentile(ordered, 99) * 1000,
        refused=tally.refused,
        broken=sent - len(ordered),
    )


def main() -> None:
    """Read what to send from standard input, send it, write what came of it."""
    arrivals = msgspec.json.decode(sys.stdin.buffer.read(), type=Arrivals)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(drive(arrivals))) + b"\n")


if __name__ == "__main__":
    main()

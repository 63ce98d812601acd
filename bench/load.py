"""The load: N kept-alive connections in a process of their own, each with one request under way.

Closed loop: a connection sends its next request when it has the answer to the last one, without pipelining. So
the rate is what the server can do with N waiting clients, and a latency is the time from writing a request to
having its whole answer. With `every_s` one connection instead sends by the clock, and a latency is counted from
the moment at which its request was due, so that a stall is charged to everything it delays.

`wrk` does it when it is installed (one thread; it costs a fraction of what Python does), else the driver below:
an asyncio protocol on uvloop that writes prepared bytes and reads no more of an answer than its status and length.
Both count what is not 2xx as refused, and a lost connection or an answer that never came as broken.
"""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import cast

import msgspec
import uvloop

_GRACE_S = 30.0
_WRK_SCRIPT = Path(__file__).with_name("load.lua")
#: wrk gets each request in a file of its own; more would only make its command line long.
_WRK_REQUESTS_MAX = 500


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. `requests` are complete HTTP/1.1 requests, sent in turn over and over."""

    host: str
    port: int
    requests: list[bytes]
    connections: int
    seconds: float
    every_s: float | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: completed requests, among them those not 2xx; latencies in milliseconds."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    broken: int

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.requests / self.seconds


class LoadError(RuntimeError):
    """The load generator itself failed; the message holds what it said."""


def http_request(
    method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> bytes:
    """The bytes of one request to localhost, with a Content-Length where there is a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def driver() -> str:
    """Which generator this machine uses."""
    return "Python (asyncio protocol on uvloop)" if shutil.which("wrk") is None else "wrk, one thread"


def run(load: Load) -> Measured:
    """Apply the load and wait for its end; blocks.

    Raises:
        LoadError: the generator failed, or not one request was answered.
    """
    wrk = shutil.which("wrk")
    if wrk is None or load.every_s is not None:
        return _run([sys.executable, "-m", "bench.load"], msgspec.json.encode(load), load.seconds)
    with tempfile.TemporaryDirectory(prefix="babysea-wrk-") as folder:
        files = []
        for number, request in enumerate(load.requests[:_WRK_REQUESTS_MAX]):
            file = Path(folder, str(number))
            file.write_bytes(request)
            files.append(str(file))
        command = [
            wrk,
            "-t1",
            f"-c{load.connections}",
            f"-d{max(1, round(load.seconds))}s",
            "--timeout",
            "30s",
        ]
        command += ["-s", str(_WRK_SCRIPT), f"http://{load.host}:{load.port}/", "--", *files]
        return _run(command, b"", load.seconds)


def _run(command: Sequence[str], input: bytes, seconds: float) -> Measured:
    done = subprocess.run(command, input=input, capture_output=True, timeout=seconds + _GRACE_S, check=False)
    if done.returncode != 0:
        raise LoadError(f"{command[0]} ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
    measured = msgspec.json.decode(done.stdout.splitlines()[-1], type=Measured)
    if measured.requests == 0:
        raise LoadError(f"{command[0]} got no answer at all: {done.stderr.decode()[-2000:]}")
    return measured


class _Tally:
    """What all connections of one driver share."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self.latencies: list[float] = []
        self.refused = 0
        self.broken = 0
        self.running = True
        self._requests = requests
        self._turn = 0

    def next(self) -> bytes:
        request = self._requests[self._turn]
        self._turn = (self._turn + 1) % len(self._requests)
        return request


class _Connection(asyncio.Protocol):
    """One connection: writes a request, waits for the whole answer, and so on while the tally runs."""

    def __init__(self, tally: _Tally, every_s: float | None) -> None:
        self._tally = tally
        self._every_s = every_s
        self._transport: asyncio.WriteTransport | None = None
        self._received = b""
        self._needed = -1
        self._sent_at = 0.0
        self._due_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods without being of the class.
        self._transport = cast(asyncio.WriteTransport, transport)

    def begin(self) -> None:
        """Send the first request."""
        self._due_at = perf_counter()
        self._send()

    def _send(self) -> None:
        if self._transport is None or not self._tally.running:
            return
        self._sent_at = perf_counter() if self._every_s is None else self._due_at
        self._transport.write(self._tally.next())

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        if self._needed < 0:
            end = received.find(b"\r\n\r\n")
            if end >= 0:
                self._needed = end + 4 + _content_length(received[:end])
        if self._needed < 0 or len(received) < self._needed:
            self._received = received
            return
        self._received, self._needed = b"", -1
        self._answered(received[9:10] == b"2")

    def _answered(self, accepted: bool) -> None:
        now = perf_counter()
        if not self._tally.running:
            return
        self._tally.latencies.append(now - self._sent_at)
        self._tally.refused += not accepted
        if self._every_s is None:
            self._send()
            return
        self._due_at += self._every_s
        asyncio.get_running_loop().call_later(max(0.0, self._due_at - now), self._send)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._tally.broken += self._tally.running


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise LoadError("an answer without Content-Length")


async def drive(load: Load) -> Measured:
    """Apply the load from this process."""
    loop = asyncio.get_running_loop()
    tally = _Tally(load.requests)
    connections = []
    for _ in range(load.connections):
        _, connection = await loop.create_connection(
            lambda: _Connection(tally, load.every_s), load.host, load.port
        )
        connections.append(connection)
    started = perf_counter()
    for connection in connections:
        connection.begin()
    await asyncio.sleep(load.seconds)
    tally.running = False
    seconds = perf_counter() - started
    latencies = sorted(tally.latencies)
    return Measured(
        requests=len(latencies),
        seconds=seconds,
        p50_ms=percentile(latencies, 50) * 1000,
        p99_ms=percentile(latencies, 99) * 1000,
        refused=tally.refused,
        broken=tally.broken,
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the sorted values lie (nearest rank); 0 where there are none."""
    if not ordered:
        return 0.0
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def main() -> None:
    """Read a load from standard input, apply it, write what came of it."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(drive(load))) + b"\n")


if __name__ == "__main__":
    main()

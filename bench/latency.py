"""Latencies of requests that take turns: what is compared is sent alternately, by one client, one at a time.

A slow moment of the machine falls on all sides alike, so that two medians of one run can be held against each other,
even where both move by half from minute to minute.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median
from time import perf_counter

from bench.load import LoadError, percentile

_PATIENCE_S = 60.0
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Side:
    """One of what is compared: a server's port, and complete requests that are sent in turn."""

    port: int
    requests: Sequence[bytes]
    status: int = 200


def interleave(sides: Mapping[str, Side], *, turns: int, warm_up: int = 20) -> dict[str, list[float]]:
    """Latencies in milliseconds of `turns` requests of each side; in every turn the order is another.

    Raises:
        LoadError: an answer had another status than its side's.
    """
    random = Random(1)
    names = list(sides)
    connections = {name: _Connection(side.port) for name, side in sides.items()}
    latencies: dict[str, list[float]] = {name: [] for name in names}
    try:
        for turn in range(warm_up + turns):
            random.shuffle(names)
            for name in names:
                side = sides[name]
                started = perf_counter()
                status = connections[name].ask(side.requests[turn % len(side.requests)])
                elapsed = perf_counter() - started
                if status != side.status:
                    raise LoadError(f"{name} was answered {status}")
                if turn >= warm_up:
                    latencies[name].append(elapsed * 1000)
    finally:
        for connection in connections.values():
            connection.close()
    return latencies


def p50(latencies: Sequence[float]) -> float:
    """The median."""
    return median(latencies)


def p95(latencies: Sequence[float]) -> float:
    """The value below which 95 of 100 lie."""
    return percentile(sorted(latencies), 95)


def ratio_interval(these: Sequence[float], those: Sequence[float]) -> tuple[float, float, float]:
    """The ratio of the medians, and its 95 % interval from resampling both sides."""
    random = Random(1)
    ratios = sorted(
        median(random.choices(these, k=len(these))) / median(random.choices(those, k=len(those)))
        for _ in range(_RESAMPLES)
    )
    return median(these) / median(those), percentile(ratios, 2.5), percentile(ratios, 97.5)


def chance_of_slower(these: Sequence[float], those: Sequence[float]) -> float:
    """How often one of `these` is slower than one of `those` (Mann-Whitney's U as a share); 0.5 tells nothing."""
    ranked = sorted([(value, 0) for value in those] + [(value, 1) for value in these])
    below = wins = 0
    for _, is_this in ranked:
        wins += below * is_this
        below += 1 - is_this
    return wins / (len(these) * len(those))


class _Connection:
    """A kept-alive connection that asks one thing at a time, on a plain blocking socket."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> int:
        """Send a request and read its whole answer; returns the status."""
        self._socket.sendall(request)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        length = _content_length(received[:end])
        missing = end + 4 + length - len(received)
        while missing > 0:
            missing -= len(self._more())
        return int(received[9:12])

    def _more(self) -> bytes:
        data = self._socket.recv(1 << 18)
        if not data:
            raise LoadError("the server closed the connection")
        return data

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise LoadError("an answer without Content-Length")

"""`python -m bench.metrics`: what counting costs a read, and what being scraped costs it.

Two API processes on one site, one with `metrics_port` and one without, and the same reads from each in alternating
rounds; in a third figure the counting one is scraped once a second besides. Ratios are taken within a round. Then one
observation of each kind by itself, in nanoseconds, which no neighbour of the machine can hide.
"""

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from urllib.request import urlopen

import msgspec

from babysea_server.telemetry.metrics import ApiMetrics, new_registry
from bench.command import tell, turns
from bench.load import Load, run
from bench.rounds import read_requests
from bench.servers import Process, Site, site
from bench.settle import drain

_WARM_UP_S = 1.0
_SCRAPE_EVERY_S = 1.0
_CALLS = 200_000


class Figure(msgspec.Struct, kw_only=True):
    """Reads per second of one server over the rounds, and their ratios to the one that counts nothing."""

    name: str
    port: int
    scraped: bool = False
    rates: list[float] = []
    ratios: list[float] = []


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _api(place: Site, metrics_port: int) -> Iterator[int]:
    """The production command; yields its port."""
    config = place.folder / f"metrics-{metrics_port}.toml"
    config.write_text(f"metrics_port = {metrics_port}\n")
    arguments = ["-m", "babysea_server.cli", "api", "--data-dir", str(place.folder), "--port", "0"]
    arguments += ["--config", str(config)]
    for region in place.settings.regions:
        arguments += ["--region", region]
    with Process(arguments, place.folder / f"api-{metrics_port}.log") as process:
        yield int(process.ready_line.rpartition(":")[2])


@contextmanager
def _scraping(port: int) -> Iterator[None]:
    """Scrape once a second meanwhile."""
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(_SCRAPE_EVERY_S):
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                answer.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _measure(load: Load, metrics_port: int, *, scraped: bool) -> float:
    if not scraped:
        measured = run(load)
    else:
        with _scraping(metrics_port):
            measured = run(load)
    if measured.refused or measured.broken:
        raise RuntimeError(f"{measured.refused + measured.broken} reads were refused or lost")
    return measured.rate


def compare(
    place: Site, reads: list[bytes], *, rounds: int, seconds: float, connections: int
) -> list[Figure]:
    """Measure everything; blocks. The figure without metrics comes first."""
    metrics_port = _free_port()
    with _api(place, 0) as plain, _api(place, metrics_port) as counting:
        figures = [
            Figure(name="nothing counted", port=plain),
            Figure(name="counted", port=counting),
            Figure(name="counted, scraped every second", port=counting, scraped=True),
        ]
        load = Load(host="127.0.0.1", port=plain, requests=reads, connections=connections, seconds=_WARM_UP_S)
        for figure in figures:
            run(msgspec.structs.replace(load, port=figure.port))
        for number in range(rounds):
            # Now the one first, now the other: a machine that gets slower favours nobody.
            for figure in figures if number % 2 == 0 else figures[::-1]:
                each = msgspec.structs.replace(load, port=figure.port, seconds=seconds)
                figure.rates.append(_measure(each, metrics_port, scraped=figure.scraped))
            for figure in figures:
                figure.ratios.append(figure.rates[-1] / figures[0].rates[-1])
    return figures


def _each(call: Callable[[], object]) -> float:
    """Nanoseconds of one call, the best of five."""
    times = []
    for _ in range(5):
        started = perf_counter()
        for _ in range(_CALLS):
            call()
        times.append((perf_counter() - started) / _CALLS * 1e9)
    return min(times)


def observations() -> list[tuple[str, float]]:
    """Nanoseconds of each observation on the way of a request."""
    metrics = ApiMetrics.build(new_registry())
    batch = ["accepted"] * 32
    count = metrics.admission("us")
    return [
        ("a request", _each(lambda: metrics.requests("us", "get_generation", 200, None, 0.004))),
        ("a request with an error", _each(lambda: metrics.requests("us", "generate", 402, "BSE1004", 0.004))),
        ("a batch of 32 admissions", _each(lambda: count(batch, 0.004))),
    ]


async def metrics(*, rounds: int, seconds: float, connections: int) -> str:
    """The table, in Markdown."""
    async with site() as place:
        await drain(place, 300)
        reads = await read_requests(place)
        figures = await asyncio.to_thread(
            compare, place, reads, rounds=rounds, seconds=seconds, connections=connections
        )
    lines = [
        f"`GET /v1/content/{{id}}`, {connections} connections, {rounds} rounds of {seconds:g} s, medians.",
        "",
        "| server | reads per second | ratio | ratios of the rounds |",
        "|---|---:|---:|---|",
    ]
    for figure in figures:
        spread = f"{min(figure.ratios):.2f} to {max(figure.ratios):.2f}"
        lines.append(
            f"| {figure.name} | {median(figure.rates):,.0f} | {median(figure.ratios):.3f} | {spread} |"
        )
    lines += ["", "| observation | ns |", "|---|---:|"]
    lines += [f"| {name} | {nanoseconds:,.0f} |" for name, nanoseconds in observations()]
    return "\n".join(lines)


def main() -> int:
    """Parse the arguments, measure, print."""
    return tell(metrics(**vars(turns("python -m bench.metrics", __doc__))))


if __name__ == "__main__":
    sys.exit(main())

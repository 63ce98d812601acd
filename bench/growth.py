"""What a request costs an account with a long past: 10,000 generations beside 5,000,000.

Two sites with databases of their own run at once and are asked in turns, so that every ratio is of the same moments.
The past is written by SQL (`bench.history`); requests are answered by the production command with its defaults.
"""

import asyncio
import sys
import time
from contextlib import AsyncExitStack, ExitStack
from random import Random

from babysea_server.ledger.verify import verify
from bench.history import DAYS, write_history
from bench.latency import Side, interleave, p50, p95, ratio_interval
from bench.load import Load, LoadError, http_request, run
from bench.servers import Site, api_server, site
from bench.settle import drain, generate_request, worker

_SIZES = (10_000, 5_000_000)
_QUICK_SIZES = (1_000, 100_000)
_READ_IDS = 500
_DEEP = "GET content/list, a fifth of the way down"
_CONNECTIONS = 64
_ADMISSION_S = 5.0
_ROUNDS = 3
_DRAINED_WITHIN_S = 300.0


async def growth(*, quick: bool) -> str:
    """Measure and return the table in Markdown; takes about ten minutes and 14 GB of disk, two minutes when quick.

    Raises:
        LoadError, RuntimeError: a request was refused, or the books are wrong.
    """
    sizes = _QUICK_SIZES if quick else _SIZES
    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(site()) for _ in sizes]
        for place, size in zip(places, sizes, strict=True):
            _say(f"writing {size:,} generations, as many requests in the log, their ledger and roll-ups")
            started = time.monotonic()
            await drain(place, 20)
            await write_history(place, size)
            _say(f"took {time.monotonic() - started:.0f} s")
        lines = [
            f"| figure | {sizes[0]:,} | {sizes[1]:,} | ratio | interval |",
            "|---|---:|---:|---:|---|",
        ]
        with ExitStack() as servers:
            ports = [servers.enter_context(api_server(place)) for place in places]
            lines += await _reads(places, ports, sizes, turns=300 if quick else 2000)
            lines += await _writes(places, ports)
        lines += await _books(places)
    return "\n".join(lines)


async def _reads(places: list[Site], ports: list[int], sizes: tuple[int, ...], *, turns: int) -> list[str]:
    lines = []
    ids = [await _some_ids(place) for place in places]
    fifths = [f"content/list?offset={size // 5}" for size in sizes]
    figures = {
        "GET content/{id}, any of them": [[f"content/{id}" for id in some] for some in ids],
        "GET content/list, first page of 50": [["content/list"]] * 2,
        "GET content/list?offset=1000": [["content/list?offset=1000"]] * 2,
        f"GET usage?days={DAYS}": [[f"usage?days={DAYS}"]] * 2,
        "GET health/inference/providers": [["health/inference/providers"]] * 2,
        _DEEP: [[path] for path in fifths],
    }
    for name, paths in figures.items():
        _say(name)
        sides = {
            str(size): Side(port, [_get(place, path) for path in each])
            for size, port, place, each in zip(sizes, ports, places, paths, strict=True)
        }
        measured = interleave(sides, turns=turns // 20 if name == _DEEP else turns)
        small, large = measured.values()
        ratio, low, high = ratio_interval(large, small)
        lines.append(
            f"| {name}: p50 / p95 ms | {p50(small):.2f} / {p95(small):.2f} | {p50(large):.2f} / {p95(large):.2f} "
            f"| **{ratio:.2f}** | {low:.2f} to {high:.2f} |"
        )
    return lines


async def _writes(places: list[Site], ports: list[int]) -> list[str]:
    """Admission in rounds, then one worker on what was admitted, one site after the other."""
    _say("admission")
    rates: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for place, port, rate in zip(places, ports, rates, strict=True):
            load = Load(
                host="127.0.0.1",
                port=port,
                requests=[generate_request(place.api_key)],
                connections=_CONNECTIONS,
                seconds=_ADMISSION_S,
            )
            measured = await asyncio.to_thread(run, load)
            if measured.refused or measured.broken:
                raise LoadError(f"{measured.refused + measured.broken} admissions failed")
            rate.append(measured.rate)
    settled = [await _drained(place) for place in places]
    return [
        _rates(
            f"admission, {_CONNECTIONS} connections: per second",
            [sorted(each)[_ROUNDS // 2] for each in rates],
        ),
        _rates("claimed, run, settled by one worker: per second", settled),
    ]


async def _books(places: list[Site]) -> list[str]:
    _say("ledger verify")
    seconds = []
    for place in places:
        started = time.monotonic()
        if differences := await verify(place.db):
            raise RuntimeError(f"the books are wrong: {differences[:3]}")
        seconds.append(time.monotonic() - started)
    return [
        f"| ledger verify, all of it: s | {seconds[0]:.2f} | {seconds[1]:.2f} | {seconds[1] / seconds[0]:.0f} | |"
    ]


async def _drained(place: Site) -> float:
    """Settled generations per second of one worker that takes on all that is pending."""
    in_flight = "SELECT count(*) FROM generations WHERE status IN ('pending', 'processing')"
    backlog = await place.db.fetchval(in_flight)
    _say(f"settling {backlog:,}")
    give_up_at = time.monotonic() + _DRAINED_WITHIN_S
    with worker(place, place.folder / "called.json"):
        while await place.db.fetchval(in_flight):
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"less than {backlog} generations settled within {_DRAINED_WITHIN_S:g} s")
            await asyncio.sleep(0.25)
    seconds: float = await place.db.fetchval(
        """SELECT extract(epoch FROM max(g.completed_at) - min(a.submitted_at))::float8
           FROM (SELECT id, completed_at FROM generations ORDER BY id DESC LIMIT $1) AS g
           JOIN attempts a ON a.generation_id = g.id""",
        backlog,
    )
    return float(backlog) / seconds


async def _some_ids(place: Site) -> list[str]:
    """Ids from all over the table."""
    low, high = await place.db.fetchval(
        "SELECT ARRAY[min(created_at), max(created_at)] FROM generations WHERE account_id = $1",
        place.account_id,
    )
    random = Random(1)
    found = []
    for _ in range(_READ_IDS):
        moment = low + (high - low) * random.random()
        least = f"{int(moment.timestamp() * 1000):012x}" + "0" * 20
        found.append(
            await place.db.fetchval(
                "SELECT id FROM generations WHERE id >= $1::uuid ORDER BY id LIMIT 1", least
            )
        )
    return [str(id) for id in found if id is not None]


def _get(place: Site, path: str) -> bytes:
    return http_request("GET", f"/v1/{path}", headers={"Authorization": f"Bearer {place.api_key}"})


def _rates(name: str, rates: list[float]) -> str:
    return f"| {name} | {rates[0]:,.0f} | {rates[1]:,.0f} | **{rates[0] / rates[1]:.2f}** | |"


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")

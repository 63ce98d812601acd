"""`make bench`: measure on this machine, print one table, keep the run under bench/results/.

`make bench ARGS=--quick` takes less than a minute; `--only` leaves parts out. `make bench ARGS=growth` compares a small
account with one of five million generations, `make bench ARGS=foreign` what does not exist with what is somebody
else's, `make bench ARGS=webhooks` sends webhooks; `inflight` carries 20,000 generations in one worker, `costs` takes a
generation's cost apart, `soak` runs a million. Nothing is asserted about speed; the exit code is 1 when a request
was refused, because then the figures describe something else.
"""

import argparse
import sys

import uvloop

from babysea_server.telemetry.logs import configure_logging
from bench.command import tell
from bench.costs import costs
from bench.foreign import foreign
from bench.growth import growth
from bench.inflight import inflight
from bench.load import LoadError
from bench.report import Report, faults, machine, markdown, write
from bench.rounds import compare, read_requests
from bench.servers import site
from bench.settle import drain, light
from bench.soak import soak
from bench.webhooks import webhooks

_PARTS = ("http", "settle", "light")
_OTHERS = {
    "growth": growth,
    "foreign": foreign,
    "webhooks": webhooks,
    "inflight": inflight,
    "costs": costs,
    "soak": soak,
}


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["figures", *_OTHERS], default="figures", help="(figures)")
    parser.add_argument("--quick", action="store_true", help="a short run: 3 rounds of 1 s")
    parser.add_argument("--seconds", type=float, help="seconds of each measurement (5)")
    parser.add_argument("--rounds", type=int, help="how often everything is measured (5)")
    parser.add_argument("--only", choices=_PARTS, action="append", help="measure this part; repeatable")
    given = parser.parse_args()
    rounds = given.rounds or (3 if given.quick else 5)
    seconds = given.seconds or (1.0 if given.quick else 5.0)
    parts = given.only or list(_PARTS)
    if given.what in _OTHERS:
        return tell(_OTHERS[given.what](quick=given.quick))
    configure_logging(format="console", level="warning")
    try:
        report = uvloop.run(_measure(parts, rounds, seconds))
    except (LoadError, RuntimeError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    path = write(report)
    sys.stdout.write(f"{markdown(report)}\n\nEvery round: {path}\n")
    if faults(report):
        sys.stderr.write("bench: some requests were refused; the figures do not stand\n")
        return 1
    return 0


async def _measure(parts: list[str], rounds: int, seconds: float) -> Report:
    async with site() as place:
        report = Report(machine=await machine(place.db), rounds=rounds, seconds=seconds)
        backlog = round(1000 * seconds)
        _say("draining a small backlog: warms up, and leaves finished generations to read")
        await drain(place, 500)
        if "settle" in parts:
            for number in range(min(rounds, 3)):
                _say(f"settle: {backlog} generations, {number + 1} of {min(rounds, 3)}")
                report.drained.append(await drain(place, backlog))
        if "light" in parts:
            _say("light load")
            report.light = await light(place, max(5.0, 2 * seconds))
    if "http" in parts:
        async with site() as place:
            await drain(place, 500)
            reads = await read_requests(place)
            _say(f"http: {rounds} rounds of 6 x {seconds:g} s")
            report.series = compare(place, reads, rounds=rounds, seconds=seconds)
    return report


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


if __name__ == "__main__":
    sys.exit(main())

"""`make chaos`: the real system under load while everything around it and in it breaks; exit code 1 on any breach.

Two API and two worker processes on one PostgreSQL, Redis and a bucket; two providers and a receiver of webhooks
outside; a proxy in between. The faults follow from the seed; what the machine makes of them does not.
"""

import argparse
import asyncio
import shutil
import signal
import sys
from secrets import randbelow

import uvloop
from tests.chaos.report import report
from tests.chaos.run import Chaos, run
from tests.postgres15 import programs

from babysea_server.kit.clock import SystemClock


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the load (120)")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second (40)")
    parser.add_argument("--seed", type=int, help="what the faults follow from; random when absent")
    parser.add_argument("--rounds", type=int, default=1, help="how many runs, with seeds that follow (1)")
    parser.add_argument("--keep", action="store_true", help="keep the logs also when all is well")
    given = parser.parse_args()
    if given.seconds < 10 or given.rounds < 1 or given.rate <= 0:
        parser.error("a run takes at least 10 seconds, and there is at least one, with some load")
    missing = [
        name
        for name, found in (("PostgreSQL 15", programs()), ("redis-server", shutil.which("redis-server")))
        if not found
    ]
    if missing:
        sys.stderr.write(f"not installed: {', '.join(missing)} (Debian: postgresql, redis-server)\n")
        return 2
    # Whoever ends it so finds nothing left behind either; a shell's background jobs begin with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return _rounds(given)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130


def _rounds(given: argparse.Namespace) -> int:
    first = randbelow(10**6) if given.seed is None else given.seed
    failed = []
    for seed in range(first, first + given.rounds):
        chaos = Chaos(seed, given.seconds, given.rate, keep=given.keep)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(run(chaos, SystemClock(), _say))
        _say(report(result))
        if not result.passed:
            failed.append(seed)
    if given.rounds > 1:
        _say(f"{given.rounds - len(failed)} of {given.rounds} passed; failed: {failed or 'none'}")
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

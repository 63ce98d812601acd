"""`make fuzz N=100000`: mutated raw HTTP against a real server; exit code 1 when something is found.

A finding names the run's seed, its case and the exact bytes; `--seed S --case K` sends that one again.
"""

import argparse
import asyncio
import sys
from secrets import randbelow

import uvloop
from tests.e2e.system import running_system
from tests.fuzz.session import fuzz, replay
from tests.fuzz.target import SETTINGS


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("-n", type=int, default=100_000, help="how many cases (100,000)")
    parser.add_argument("--seed", type=int, help="what they are made from; random when absent")
    parser.add_argument("--case", type=int, help="send only this case")
    given = parser.parse_args()
    seed = randbelow(10**6) if given.seed is None else given.seed
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_main(seed, given.n, given.case))


async def _main(seed: int, count: int, only: int | None) -> int:
    async with running_system(SETTINGS) as system:
        up = await system.up()
        assert await up.stop() == 0
        if only is not None:
            sys.stdout.write(f"{(await replay(system, seed, only)).report}\n")
            return 0
        run, measures = await fuzz(system, seed, range(count))
    sys.stdout.write(
        f"seed {seed}: {run.report}\n"
        f"{measures.seconds:.0f} s, {count / measures.seconds:.0f} cases/s; resident "
        f"{measures.resident_mib_before:.0f} -> {measures.resident_mib_after:.0f} MiB; descriptors "
        f"{measures.descriptors_before} -> {measures.descriptors_after}\n"
    )
    return 1 if run.report.findings else 0


if __name__ == "__main__":
    sys.exit(main())

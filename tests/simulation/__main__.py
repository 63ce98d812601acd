"""`make simulate N=10000`: seeds, one after the other; exit code 1 when something is found.

A finding names its seed and the kinds of faults that it needs. `--seed S` lives through one again, and `--trace`
tells every step of it.
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.databases import forget_power_cuts
from tests.simulation.faults import KINDS
from tests.simulation.shares import Share, live
from tests.simulation.world import Report

from babysea_server.db.embedded import EmbeddedPostgres

_CHUNK = 100


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="how many seeds (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--trace", action="store_true", help="tell every step of it")
    parser.add_argument("--without", default="", help=f"leave out faults, of {','.join(KINDS)}")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--minutes", type=float, default=240, help="stop after so long (240)")
    parser.add_argument("--data-dir", type=Path, help="use the embedded server there")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the database is stopped then, too
    seeds = range(given.first, given.first + given.n) if given.seed is None else [given.seed]
    without = [kind for kind in given.without.split(",") if kind]
    give_up_at = time.time() + 60 * given.minutes
    with TemporaryDirectory(prefix="babysea-simulation-") as folder:
        postgres = EmbeddedPostgres(given.data_dir or Path(folder))
        postgres.attach()
        if given.data_dir is None:
            forget_power_cuts(postgres.data_dir)
        try:
            shares = [
                Share(postgres.data_dir, seeds[at : at + _CHUNK], without, given.trace, give_up_at)
                for at in range(0, len(seeds), _CHUNK)
            ]
            return _run(shares, given.jobs, single=given.seed is not None)
        finally:
            postgres.detach()


def _run(shares: Sequence[Share], jobs: int, *, single: bool) -> int:
    lived = breached = 0
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1)
    try:
        results: Iterator[list[Report]] = map(live, shares) if single else _spread(pool, shares)
        for reports in results:
            for report in reports:
                lived += 1
                breached += bool(report.breaches)
                if report.breaches or single:
                    sys.stdout.write(_told(report))
            sys.stdout.write(f"{lived} seeds, {breached} with breaches\n")
            sys.stdout.flush()
    finally:
        pool.shutdown(cancel_futures=True)  # after a fault of the simulation itself, not hours later
    return 1 if breached else 0


def _spread(pool: ProcessPoolExecutor, shares: Sequence[Share]) -> Iterator[list[Report]]:
    for share in as_completed([pool.submit(live, share) for share in shares]):
        yield share.result()


def _told(report: Report) -> str:
    without = f" --without {','.join(report.without)}" if report.without else ""
    lines = [
        f"seed {report.seed}: {report.digest[:16]}, {report.generations} generations, {report.crashes} crashes, "
        f"{report.statements} statements, {report.simulated_s:.0f} s in {report.seconds:.2f} s",
        f"  faults: {', '.join(report.kinds) or 'none'}",
        *(f"  {breach}" for breach in report.breaches),
    ]
    if report.breaches:
        lines.append(f"  again: python -m tests.simulation --seed {report.seed}{without} --trace")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

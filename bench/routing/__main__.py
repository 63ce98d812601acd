"""`python -m bench.routing`: simulate, print the tables of docs/routing.md, draw its picture.

Nothing here is timed and nothing is random beyond the seeds, so two runs of one version print the same.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from bench.routing.compare import Costs, explorations, measure, picture, regrets
from bench.routing.world import SCENARIOS

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "routing-regret.svg"


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="runs of each scenario (20)")
    parser.add_argument("--processes", type=int, default=2, help="processes to run them in (2)")
    parser.add_argument("--picture", type=Path, default=PICTURE, help=f"where it is drawn ({PICTURE.name})")
    given = parser.parse_args()
    seeds = range(given.seeds)
    runs: list[list[Costs]] = []
    with ProcessPoolExecutor(given.processes) as pool:
        for number, scenario in enumerate(SCENARIOS):
            sys.stderr.write(f"routing: {scenario.name}: {scenario.title}\n")
            runs.append(list(pool.map(partial(measure, number), seeds)))
    sys.stdout.write(f"{regrets(runs)}\n\n{explorations(runs)}\n")
    given.picture.write_text(picture(runs), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

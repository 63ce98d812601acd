"""A slice of `make simulate`, always the same one; and that a seed always has the same course."""

import os
import subprocess
import sys

import pytest
from tests.effort import effort
from tests.simulation.database import Server
from tests.simulation.world import simulate

from babysea_server.catalog.catalog import Catalog
from babysea_server.db.embedded import EmbeddedPostgres

SEEDS = effort(200)
#: In one test: small enough to be spread over processes.
CHUNK = 20


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_is_breached_whatever_goes_wrong(server: Server, catalog: Catalog, first: int) -> None:
    reports = [simulate(server, catalog, seed) for seed in range(first, min(first + CHUNK, SEEDS))]
    assert {report.seed: report.breaches for report in reports if report.breaches} == {}
    # It was no empty life: customers were served and processes died.
    assert sum(report.generations for report in reports) > 4 * len(reports)
    assert sum(report.crashes for report in reports) > 0


def test_a_seed_has_the_same_course_again_and_in_another_process(
    server: Server, catalog: Catalog, postgres: EmbeddedPostgres
) -> None:
    seeds = (2, 3)
    digests = [simulate(server, catalog, seed).digest for seed in (*seeds, *seeds)]
    assert digests[:2] == digests[2:]
    assert digests[0] != digests[1]
    for seed, digest in zip(seeds, digests, strict=False):
        told = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.simulation",
                "--seed",
                str(seed),
                "--data-dir",
                str(postgres.data_dir),
            ],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )
        assert f"seed {seed}: {digest[:16]}" in told.stdout

"""Many seeds, a part of them in a process: what one leaves in memory does not add up over a night."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import format_exc

from tests.simulation.database import Server
from tests.simulation.world import Report, simulate

from babysea_server.catalog.catalog import Catalog, load_catalog
from babysea_server.db.embedded import EmbeddedPostgres


@dataclass(frozen=True)
class Share:
    """Seeds for one process."""

    folder: Path
    seeds: Sequence[int]
    without: Sequence[str]
    trace: bool
    give_up_at: float


def live(share: Share) -> list[Report]:
    """What became of the seeds, on a database of their own."""
    catalog = load_catalog(None)
    postgres = EmbeddedPostgres(share.folder)
    postgres.attach()
    server = Server(postgres, f"simulation_{share.seeds[0]}")
    show = _shown if share.trace else None
    reports = []
    try:
        for seed in share.seeds:
            if time.time() > share.give_up_at:
                break
            try:
                report = simulate(server, catalog, seed, without=share.without, show=show)
                if report.breaches and show is None:
                    report = _smaller(server, catalog, report, share.without)
            except Exception:
                # As text: not every exception can be brought to another process.
                raise RuntimeError(f"seed {seed} could not be lived through\n{format_exc()}") from None
            reports.append(report)
    finally:
        server.close()
        postgres.detach()
    return reports


def _smaller(server: Server, catalog: Catalog, report: Report, without: Sequence[str]) -> Report:
    """The same seed with no more kinds of faults than it takes."""
    left_out = list(without)
    for kind in report.kinds:
        fewer = simulate(server, catalog, report.seed, without=[*left_out, kind])
        if fewer.breaches:
            left_out.append(kind)
            report = fewer
    report.without = left_out
    return report


def _shown(line: str) -> None:
    sys.stdout.write(f"{line}\n")

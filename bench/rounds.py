"""The HTTP figures: admission and reads against the bare baseline, in alternating rounds.

Each round measures every figure once, the baseline beside what is compared with it, so that a slow minute of the
machine falls on both; a ratio is taken within its round, and of rates, latencies and ratios the median is told. No
worker runs, so that only admission is measured: the generations stay pending and their rows are all there.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from bench.load import Load, Measured, http_request, run
from bench.servers import Site, api_server, baseline_server
from bench.settle import generate_request

_WARM_UP_S = 1.0
_READ_IDS = 200


class Series(msgspec.Struct, kw_only=True):
    """One figure over all rounds. `ratios` are to the baseline with as many connections, round by round."""

    name: str
    connections: int
    rounds: list[Measured] = []
    ratios: list[float] = []

    @property
    def rate(self) -> float:
        """Median answers per second."""
        return median(measured.rate for measured in self.rounds)

    @property
    def p50_ms(self) -> float:
        """Median of the rounds' medians."""
        return median(measured.p50_ms for measured in self.rounds)

    @property
    def p99_ms(self) -> float:
        """Median of the rounds' 99th percentiles."""
        return median(measured.p99_ms for measured in self.rounds)

    @property
    def faults(self) -> int:
        """Answers not 2xx and lost connections; anything but 0 makes the figure worthless."""
        return sum(measured.refused + measured.broken for measured in self.rounds)


async def read_requests(site: Site) -> list[bytes]:
    """GET of finished generations, each with its signed file link.

    Raises:
        RuntimeError: there are none yet.
    """
    rows = await site.db.fetch(
        "SELECT id FROM generations WHERE status = 'succeeded' ORDER BY id LIMIT $1", _READ_IDS
    )
    if not rows:
        raise RuntimeError("there is no finished generation to read")
    headers = {"Authorization": f"Bearer {site.api_key}"}
    return [http_request("GET", f"/v1/content/{row['id']}", headers=headers) for row in rows]


def compare(
    site: Site, reads: list[bytes], *, rounds: int, seconds: float, connections: Sequence[int] = (64, 1)
) -> list[Series]:
    """Measure everything; blocks. Baselines come first in the answer, each followed by what is held against it."""
    admission = [generate_request(site.api_key)]
    bare = [http_request("GET", "/")]
    with baseline_server(Path(site.folder)) as baseline_port, api_server(site) as api_port:
        figures = [
            (Series(name=name, connections=count), port, requests)
            for count in connections
            for name, port, requests in (
                ("bare", baseline_port, bare),
                ("admission", api_port, admission),
                ("read", api_port, reads),
            )
        ]
        for series, port, requests in figures:
            run(_load(series, port, requests, _WARM_UP_S))
        for _ in range(rounds):
            rates: dict[int, float] = {}
            for series, port, requests in figures:
                measured = run(_load(series, port, requests, seconds))
                series.rounds.append(measured)
                if series.name == "bare":
                    rates[series.connections] = measured.rate
                else:
                    series.ratios.append(measured.rate / rates[series.connections])
    return [series for series, _, _ in figures]


def _load(series: Series, port: int, requests: list[bytes], seconds: float) -> Load:
    return Load(
        host="127.0.0.1", port=port, requests=requests, connections=series.connections, seconds=seconds
    )

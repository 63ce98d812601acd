"""What a run is told as: the machine, one table in Markdown, and a JSON file with every round."""

import os
import platform
import subprocess
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

import msgspec

from babysea_server.db.pool import Database
from bench.load import driver
from bench.rounds import Series
from bench.settle import Drained, Light

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("uvicorn", "httptools", "uvloop", "starlette", "asyncpg", "msgspec", "jsonschema-rs")
_POSTGRES_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "wal_compression")
_SYNCS = 200


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with what a run was made. `sync_ms` is the median of an 8 KiB write with fdatasync."""

    measured_at: str
    commit: str
    cpu: str
    cores: int
    memory_gib: float
    load_average: float
    sync_ms: float
    python: str
    postgres: str
    postgres_settings: dict[str, str]
    packages: dict[str, str]
    driver: str


class Report(msgspec.Struct, kw_only=True):
    """Everything of one run."""

    machine: Machine
    rounds: int
    seconds: float
    series: list[Series] = []
    drained: list[Drained] = []
    light: Light | None = None


async def machine(db: Database) -> Machine:
    """Describe this machine; the load average is that of the minute before."""
    return Machine(
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=_commit(),
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        load_average=round(os.getloadavg()[0], 2),
        sync_ms=round(_sync_ms(), 3),
        python=platform.python_version(),
        postgres=await db.fetchval("SHOW server_version"),
        postgres_settings={name: await db.fetchval(f"SHOW {name}") for name in _POSTGRES_SETTINGS},
        packages={name: version(name) for name in _PACKAGES},
        driver=driver(),
    )


def write(report: Report) -> Path:
    """Keep the run under `bench/results/`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{report.machine.measured_at.replace(':', '')[:17]}Z.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return path


def markdown(report: Report) -> str:
    """The table that `make bench` prints and docs/performance.md holds."""
    here = report.machine
    lines = [
        f"{here.cpu}, {here.cores} cores shared by server, PostgreSQL and load; load average before: "
        f"{here.load_average}; 8 KiB write + fdatasync: {here.sync_ms} ms.",
        f"Python {here.python}, PostgreSQL {here.postgres} ({_pairs(here.postgres_settings)}), "
        f"{_pairs(here.packages, ' ')}.",
        f"Load: {here.driver}. {report.rounds} rounds of {report.seconds:g} s, medians. Commit {here.commit}.",
        "",
        "| figure | connections | per second | p50 ms | p99 ms | ratio to bare | ratios of the rounds | faults |",
        "|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    lines += [_series_row(series) for series in report.series]
    if report.drained:
        rates = sorted(drained.rate for drained in report.drained)
        lines.append(
            f"| end to end: settled, one worker | - | {median(rates):,.0f} | | | | "
            f"{rates[0]:,.0f} to {rates[-1]:,.0f} per second | 0 |"
        )
    if report.light is not None:
        light, admission = report.light, report.light.admission
        faults = admission.refused + admission.broken
        lines += [
            f"| light load: admission | 1 | {admission.rate:,.0f} | {admission.p50_ms:.2f} | "
            f"{admission.p99_ms:.2f} | | | {faults} |",
            f"| light load: admitted -> provider called | 1 | | {light.to_provider_p50_ms:.2f} | "
            f"{light.to_provider_p99_ms:.2f} | | | {faults} |",
            f"| light load: admitted -> settled | 1 | | {light.to_settled_p50_ms:.2f} | | | | {faults} |",
        ]
    return "\n".join(lines)


def faults(report: Report) -> int:
    """How many requests of the run were not answered with 2xx."""
    light = 0 if report.light is None else report.light.admission.refused + report.light.admission.broken
    return light + sum(series.faults for series in report.series)


def _series_row(series: Series) -> str:
    names = {
        "bare": "bare Starlette, constant JSON",
        "admission": "admission: POST /v1/generate/image",
        "read": "read: GET /v1/content/{id}",
    }
    ratio, spread = "1", ""
    if series.ratios:
        ratio = f"**{median(series.ratios):.2f}**"
        spread = f"{min(series.ratios):.2f} to {max(series.ratios):.2f}"
    return (
        f"| {names[series.name]} | {series.connections} | {series.rate:,.0f} | {series.p50_ms:.2f} | "
        f"{series.p99_ms:.2f} | {ratio} | {spread} | {series.faults} |"
    )


def _pairs(values: dict[str, str], between: str = "=") -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in values.items())


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _sync_ms() -> float:
    """What a commit costs at least: it bounds admission where nobody shares its call."""
    times: list[float] = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(_SYNCS):
            started = perf_counter()
            os.pwrite(file.fileno(), bytes(8192), 0)
            os.fdatasync(file.fileno())
            times.append(perf_counter() - started)
    return median(times) * 1000

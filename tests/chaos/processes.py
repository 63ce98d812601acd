"""What must hold of the processes themselves: they live, do not grow, and tell nobody what is nobody's business."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.audit import Audit
from tests.chaos.descriptors import held
from tests.chaos.servers import Sample, Server
from tests.chaos.topology import Topology

#: A process is compared with itself at this age; younger ones are not judged.
_WARM_S, _JUDGED_S = 10.0, 20.0
#: By how much it may hold more at the end: connections, caches and what the allocator keeps.
GROWTH_BYTES = 64 << 20
#: Whatever its age.
RESIDENT_MAX_BYTES = 400 << 20
#: Descriptors at the end, when nobody asks for anything any more. What is kept open for the next request to the
#: storage or a provider is as many as were needed at once, and is closed after a minute and a half.
DESCRIPTORS_MAX = {
    "postgres": 20,  # the pool, and those that listen
    "redis": 8,
    "redis, half closed": 8,  # its pool looks at a connection when it is needed again
    "client": 2,
    "file": 24,
    "other": 16,
    **dict.fromkeys(("storage", "replicate", "fal", "receiver"), 1000),
}

#: Until connections of customers who are gone are closed.
_CALM_S = 20.0
_LOOK_EVERY_S = 0.5

#: Errors that a fault explains: how the event and what caused it begin. All others are somebody's mistake.
_EXPLAINED = (
    ("run_crashed", "no database connection"),
    ("run_crashed", "the database went away"),
    ("run_crashed", "DiskFullError"),
    ("run_crashed", "QueueTimeoutError"),  # the database was away for too long
    ("request_failed", "DatabaseUnavailableError"),  # whether something was changed is not known
    ("Resetting connection with an active transaction", ""),  # the driver rolls back what was interrupted
)


def lives(servers: Sequence[Server], audit: Audit) -> None:
    """Nobody ended unasked, and nobody grew."""
    complaints = [complaint for server in servers for complaint in server.complaints]
    audit.breach("processes end only when they are told to", complaints)
    grown: list[str] = []
    judged = []
    for server in servers:
        for life in server.lives:
            if (found := _growth(life.samples)) is None:
                continue
            warm, last = (sample.resident_bytes for sample in found)
            judged.append(f"{server.name} {warm >> 20} -> {last >> 20} MiB in {found[1].age_s:.0f} s")
            if has_grown(life.samples):
                grown.append(judged[-1])
    audit.breach("no process grows", grown)
    audit.counted["processes started"] = sum(len(server.lives) for server in servers)
    audit.counted["of these gave up before they served"] = sum(server.false_starts for server in servers)
    audit.counted["memory, warm to end"] = judged


async def descriptors(topology: Topology, audit: Audit) -> None:
    """At the end nobody holds more open than its pools."""
    ports = {way.port: name for name, way in topology.ways.items()}
    deadline = topology.clock.monotonic() + _CALM_S
    while True:
        found = {server.name: held(server.life.process.pid, ports) for server in topology.servers}
        kept = [
            f"{name} has {count} to {what}"
            for name, counts in found.items()
            for what, count in counts.items()
            if count > DESCRIPTORS_MAX.get(what, 0)
        ]
        if not kept or topology.clock.monotonic() > deadline:
            break
        await topology.clock.sleep(_LOOK_EVERY_S)
    audit.counted["descriptors at the end"] = {name: dict(counts) for name, counts in found.items()}
    audit.breach("no process keeps descriptors", kept)


def has_grown(samples: Sequence[Sample]) -> bool:
    """Whether a process that lived long enough to be judged holds too much more than in its youth, or too much."""
    found = _growth(samples)
    if found is None:
        return False
    warm, last = (sample.resident_bytes for sample in found)
    return last > min(RESIDENT_MAX_BYTES, warm + GROWTH_BYTES)


def _growth(samples: Sequence[Sample]) -> tuple[Sample, Sample] | None:
    warm = next((sample for sample in samples if sample.age_s >= _WARM_S), None)
    if warm is None or samples[-1].age_s < _JUDGED_S:
        return None
    return warm, samples[-1]


def logs(folder: Path, secrets: Sequence[str], audit: Audit) -> None:
    """No traceback, no error that no fault explains, and nothing that is secret."""
    events: Counter[str] = Counter()
    surprises: Counter[str] = Counter()
    leaks = []
    for path in sorted(path for path in folder.iterdir() if path.name.startswith(("api-", "worker-"))):
        text = path.read_text(errors="replace")
        leaks += [f"{path.name} holds {secret[:6]}..." for secret in secrets if secret in text]
        for entry in _entries(text if path.suffix == ".err" else ""):
            events[f"{entry['level']} {entry['event']}"] += 1
            if (surprise := _surprise(entry)) is not None:
                surprises[f"{path.name}: {surprise}"] += 1
    shown = [f"{what} ({count} times)" for what, count in surprises.items()]
    audit.breach("logs hold no error that no fault explains", shown)
    audit.breach("logs hold no secret", leaks)
    audit.counted["log lines"] = {
        event: count for event, count in events.items() if not event.startswith("info ")
    }


def _surprise(entry: Mapping[str, Any]) -> str | None:
    """What an entry complains about, unless it is a fault that was made, or no complaint."""
    event, cause = str(entry["event"]), str(entry.get("error", ""))
    if "exception" in entry:
        cause = str(entry["exception"]).strip().rpartition("\n")[2]
    if entry["level"] != "error" and "exception" not in entry and "Traceback" not in event:
        return None
    if any(event.startswith(known) and cause.startswith(by) for known, by in _EXPLAINED):
        return None
    return f"{event}: {cause}"


def _entries(text: str) -> Iterator[Mapping[str, Any]]:
    """One for each line of JSON; another line is an event of level `plain`."""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        yield entry if isinstance(entry, dict) else {"level": "plain", "event": line}

"""A whole run: start the server, send the cases, and hold the process against what it was before."""

from dataclasses import dataclass
from time import monotonic

from tests.e2e.system import System
from tests.fuzz.cases import make_case
from tests.fuzz.driver import Fuzz
from tests.fuzz.request import seeds
from tests.fuzz.target import REQUEST_TIMEOUT_S, Target, running_target

#: Cases before the process is measured: they fill what is bounded (paths, keys and addresses remembered, pools,
#: arenas of the allocator).
WARM_UP = 2000
#: What may come on top. A leak of one answer's worth (1 KiB) in each of 100,000 cases would be 100 MiB; what is
#: left is bodies that are being received at once (48 connections, 100 KiB each) and the allocator's fragments.
GROWTH_MIB_MAX = 48.0
#: Connections to the database that a pool may open later; they are all that may be more than after the warm-up.
DESCRIPTORS_MORE = 16

PLAIN_PATHS = [
    "/",
    "/openapi.json",
    "/v1/status",
    "/v1/usage",
    "/v1/user/account",
    "/v1/user/billing",
    "/v1/estimate/sandbox/image",
    "/v1/content/list",
    "/v1/health/inference/providers",
    "/v1/health/inference/models",
    "/v1/health/storage",
    "/v1/health/cache",
    "/v1/library/providers",
    "/v1/library/models",
]


@dataclass(frozen=True, slots=True)
class Measures:
    """What a run cost the process."""

    seconds: float
    resident_mib_before: float
    resident_mib_after: float
    descriptors_before: int
    descriptors_after: int


async def fuzz(system: System, run_seed: int, numbers: range) -> tuple[Fuzz, Measures]:
    """Send the cases to a new server of `system`; what is wrong stands in the report's findings."""
    async with running_target(system) as target:
        run = Fuzz(target.port, run_seed, seeds(), target.world, REQUEST_TIMEOUT_S)
        served = await target.statuses(PLAIN_PATHS)
        started = monotonic()
        begin = min(numbers.start + WARM_UP, numbers.start + len(numbers) // 2)
        await run.run(range(numbers.start, begin))
        memory, descriptors = target.resident_mib(), target.descriptors()
        await run.run(range(begin, numbers.stop))
        seconds = monotonic() - started
        found = run.report.findings
        if set(served.values()) != {200}:
            found.append(f"not served before the run: {served}")
        found += await _aftermath(target, served, memory, descriptors)
        return run, Measures(seconds, memory, target.resident_mib(), descriptors, target.descriptors())


async def _aftermath(
    target: Target, served: dict[str, int], memory_mib: float, descriptors: int
) -> list[str]:
    """What the process must still be after all this."""
    found = []
    if not target.process.running:
        return [f"the process ended: {target.process.err[-2000:]}"]
    still = await target.statuses(PLAIN_PATHS)
    if still != served:
        found.append(f"served otherwise than before: {still}, before {served}")
    await target.backlog_settles()
    await target.system.books_are_clean()
    await target.descriptors_fall_to(descriptors + DESCRIPTORS_MORE)
    if target.resident_mib() > memory_mib + GROWTH_MIB_MAX:
        found.append(f"memory grew from {memory_mib:.0f} to {target.resident_mib():.0f} MiB")
    if bad := target.bad_log():
        found.append(f"in the log:\n{bad}")
    return found


async def replay(system: System, run_seed: int, number: int) -> Fuzz:
    """Send one case alone."""
    async with running_target(system) as target:
        run = Fuzz(target.port, run_seed, seeds(), target.world, REQUEST_TIMEOUT_S)
        case = make_case(run_seed, number, run.seeds, run.world)
        await run.send(case)
        if not run.report.findings:
            run.report.findings.append(f"no finding this time\n{case.describe()}")
        return run

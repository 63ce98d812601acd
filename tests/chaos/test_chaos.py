"""A short run of the whole: real processes, load, a fault of most kinds, and every promise kept."""

import shutil

import pytest
from tests.chaos.plan import Kind
from tests.chaos.report import report
from tests.chaos.run import Chaos, run
from tests.limits.servers import needs_redis
from tests.postgres15 import needs_postgres15

from babysea_server.kit.clock import SystemClock

#: What takes longest to get over is left to `make chaos`.
_WITHOUT = frozenset(
    {
        Kind.RECEIVER_DOWN,
        Kind.RECEIVER_ERRORS,
        Kind.STORAGE_DOWN,
        Kind.STORAGE_FULL,
        Kind.DISK_FULL,
        Kind.FREEZE_WORKER,
        Kind.HOLE,
        Kind.PROVIDER_SLOW,
    }
)


@needs_postgres15
@needs_redis
@pytest.mark.timeout(400)
async def test_a_system_under_load_keeps_its_promises_while_things_break() -> None:
    said: list[str] = []
    chaos = Chaos(seed=1437, seconds=15, rate=20, without=_WITHOUT)
    result = await run(chaos, SystemClock(), said.append)
    if result.folder is not None:
        shutil.rmtree(result.folder)
    assert result.passed, "\n".join([*said, report(result)])
    made = {fault.kind for fault in result.made}
    assert made == {Kind.KILL_API, Kind.KILL_WORKER, Kind.POSTGRES_CRASH, Kind.PROVIDER_CUTS}
    assert result.counted["answers"]["accepted"] > 50

"""`babysea` in a folder of the test's own, logged in by its environment to a live server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.sdk.cli.program import Program, Warm, warm
from tests.sdk.conftest import Live


@pytest.fixture(scope="session")
async def warm_process() -> AsyncIterator[Warm]:
    started = await warm()
    yield started
    assert started.process.stdin is not None
    started.process.stdin.close()
    await started.process.wait()


@pytest.fixture
def babysea(warm_process: Warm, live: Live, tmp_path: Path) -> Program:
    return Program(warm_process, tmp_path, live.customer.key, live.base_url)

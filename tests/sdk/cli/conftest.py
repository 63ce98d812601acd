"""`babysea` in a folder of the test's own, logged in by its environment to a live server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.sdk.cli.program import Program, warm
from tests.sdk.conftest import Live


@pytest.fixture(scope="session")
async def warm_process() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await warm()
    yield process
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


@pytest.fixture
def babysea(warm_process: asyncio.subprocess.Process, live: Live, tmp_path: Path) -> Program:
    return Program(warm_process, tmp_path, live.customer.key, live.base_url)

"""Systems of real processes: on an empty data directory, or on a copy of one that is set up."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.databases import forget_power_cuts
from tests.e2e.system import QUICK, System, running_system


@pytest.fixture
async def fresh_system() -> AsyncIterator[System]:
    """A system on an empty data directory, quick and of region us alone."""
    async with running_system(QUICK) as system:
        yield system


@pytest.fixture(scope="session")
async def installation() -> AsyncIterator[Path]:
    """A data directory after its first start: schema, first account, key, one generation; nothing runs."""
    async with running_system(QUICK) as system:
        up = await system.up()
        assert await up.stop() == 0
        forget_power_cuts(system.data_dir)
        yield system.data_dir


@pytest.fixture
async def system(installation: Path) -> AsyncIterator[System]:
    """A system on a copy of `installation`; saves every test the first start."""
    async with running_system(QUICK) as system:
        await asyncio.to_thread(_copy, installation, system.data_dir)
        yield system


def _copy(installation: Path, data_dir: Path) -> None:
    """With owners: run as root, the embedded server belongs to a user of its own."""
    subprocess.run(["cp", "-Rp", installation, data_dir], check=True)

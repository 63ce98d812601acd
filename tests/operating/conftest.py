"""Systems of real processes, and the commands of the operator's book run as they are written there."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.docs.pages import blocks, headings, page
from tests.e2e.system import PATIENCE_S, QUICK, System, running_system
from tests.support import make_account

from babysea_server.db.pool import Database
from babysea_server.ledger.verify import verify


@pytest.fixture
async def system() -> AsyncIterator[System]:
    """A system on an empty data directory."""
    async with running_system(QUICK) as system:
        yield system


@pytest.fixture
async def another_machine() -> AsyncIterator[System]:
    """A second system, with nothing on it."""
    async with running_system(QUICK) as system:
        yield system


def book(heading: str) -> list[str]:
    """The shell blocks of a section of the operator's book."""
    return blocks(headings(page("docs/operating.md"))[heading], "sh")


async def shell(
    lines: str, environment: Mapping[str, str], replaced: Mapping[str, str], *, user: str | None = None
) -> str:
    """Run lines of the book, with other places in them; returns what they print, with what they say on the side.

    Args:
        user: who runs them, where the tests run as root.

    Raises:
        AssertionError: a line failed.
    """
    for old, new in replaced.items():
        assert old in lines
        lines = lines.replace(old, new)

    def run() -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        return subprocess.run(
            ["sh", "-eu"],
            input=lines,
            env={**environment, "PATH": path},
            text=True,
            capture_output=True,
            timeout=2 * PATIENCE_S,
            cwd="/",
            user=user if os.geteuid() == 0 else None,
            check=False,
        )

    done = await asyncio.to_thread(run)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


async def customer_of(dsn: str) -> str:
    """A key of an account with credits, in a database that is migrated."""
    async with _opened(dsn) as db:
        return (await make_account(db))[1]


async def books_are_clean(dsn: str) -> bool:
    """Whether `ledger verify` finds nothing."""
    async with _opened(dsn) as db:
        return not await verify(db)


@asynccontextmanager
async def _opened(dsn: str) -> AsyncIterator[Database]:
    db = Database(dsn, name="test", size=1)
    await db.open()
    try:
        yield db
    finally:
        await db.close()

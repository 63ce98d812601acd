"""An installation over several machines: each has a folder of its own, and all share servers and one secret."""

import asyncio
import re
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.e2e.system import PATIENCE_S, QUICK, Process, System
from tests.emulators import s3
from tests.limits.servers import RedisServer
from tests.postgres15 import Postgres15, postgres15
from tests.support import eventually

from babysea_server.db.pool import Database

_CONSOLE = re.compile(r"console listening on (http://\S+?)/console")


@dataclass
class Machines:
    """The servers that all machines share, and the machines that were made."""

    postgres: Postgres15
    redis: RedisServer
    db: Database
    """Region us, past all processes."""
    settings: dict[str, str]
    client: httpx.AsyncClient
    _root: Path
    _made: list[System]

    def machine(self, settings: Mapping[str, str] | None = None) -> System:
        """Another machine: an empty folder, and nothing of another one's in it."""
        system = System(
            self._root / f"machine-{len(self._made)}", self.client, {**self.settings, **(settings or {})}
        )
        system.data_dir.mkdir()
        self._made.append(system)
        return system

    async def console(self, machine: System) -> tuple[Process, str]:
        """Start the console alone; its process and its address."""
        process = machine.start("console", "--port", "0")
        match = _CONSOLE.search(await process.says("console listening on"))
        assert match is not None
        return process, match[1]

    async def becomes(self, sql: str, value: Any, *arguments: Any) -> None:
        """Wait until a query's value is this."""

        async def is_it() -> bool:
            return bool(await self.db.fetchval(sql, *arguments) == value)

        await eventually(is_it, within_s=PATIENCE_S)

    def close(self) -> None:
        """End every process of every machine."""
        for system in self._made:
            system.close()


@asynccontextmanager
async def machines(root: Path, *, migrated: bool = True) -> AsyncIterator[Machines]:
    """A PostgreSQL, a Redis and an S3 that run, an empty database, with or without a schema, and no machine yet."""
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(postgres15())
        redis = RedisServer(root)
        await redis.start()
        stack.callback(redis.kill)
        settings = {
            **QUICK,
            "DATABASE_URL_US": await postgres.database("babysea_us"),
            "REDIS_URL": redis.url,
            "MASTER_KEY": secrets.token_urlsafe(48),
            "BABYSEA_COUNTERS_TIMEOUT_S": "2",  # no stall of a busy machine may look like one of the Redis
            "BABYSEA_WEBHOOKS_ALLOW_PRIVATE": "true",
            **s3.environment(await stack.enter_async_context(_bucket(root / "s3"))),
        }
        db = Database(settings["DATABASE_URL_US"], name="test")
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=20, trust_env=False))
        made = Machines(postgres, redis, db, settings, client, root, [])
        stack.callback(made.close)
        if migrated:
            migration = made.machine().start("migrate")
            assert await migration.ended() == 0, migration.err
        await db.open()
        stack.push_async_callback(db.close)
        yield made


@asynccontextmanager
async def _bucket(folder: Path) -> AsyncIterator[str]:
    """The S3 as a process of its own; its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.emulators.s3", "--folder", str(folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
        yield line.decode().split()[-1]
    finally:
        process.kill()
        await process.wait()

"""The server under test: real processes, accounts and keys for the fuzz, and what its processes must not show."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.e2e.system import PATIENCE_S, QUICK, Process, System
from tests.fuzz.request import CANARY, World
from tests.support import eventually

from babysea_server.accounts import store as accounts
from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.pool import Database
from babysea_server.keys.scopes import PRESETS
from babysea_server.keys.service import issue
from babysea_server.kit.money import micros
from babysea_server.ledger import store as ledger

#: How long the server waits for the rest of a body before it gives up.
REQUEST_TIMEOUT_S = 5.0
SETTINGS = {
    **QUICK,
    "BABYSEA_SANDBOX_LATENCY_S": "0.01",
    "BABYSEA_REQUEST_TIMEOUT_S": str(REQUEST_TIMEOUT_S),
    "BABYSEA_WORKER_POLL_S": "1",
    "BABYSEA_WORKER_LEASE_S": "30",
    "BABYSEA_ADMISSION_DEADLINE_S": "20",
}
#: What the log of an API process may hold, whatever is sent: one line for what is no HTTP, without its bytes.
_BAD_LINE = re.compile(r"Traceback|\berror\b|critical|Exception|bye_[A-Za-z0-9_-]{5}", re.IGNORECASE)

_LOG_LINES_SHOWN = 60


@dataclass(slots=True)
class Target:
    """A running API process (with a worker beside it) and what the fuzz knows about it."""

    system: System
    process: Process
    port: int
    world: World
    client: httpx.AsyncClient

    def resident_mib(self) -> float:
        """Memory of the API process that is not given back."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def descriptors(self) -> int:
        """Open file descriptors of the API process."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    async def descriptors_fall_to(self, limit: int) -> None:
        """Wait until no more than so many are open."""

        async def fallen() -> bool:
            return self.descriptors() <= limit

        await eventually(fallen)

    async def backlog_settles(self) -> None:
        """Wait until no generation is in flight, as long as they become fewer."""
        sql = "SELECT count(*) FROM generations WHERE status IN ('pending', 'processing')"
        left = await self.system.value(sql)
        while left:
            before = left

            async def fewer(before: int = before) -> bool:
                return bool(await self.system.value(sql) < before)

            await eventually(fewer, within_s=PATIENCE_S)
            left = await self.system.value(sql)

    def bad_log(self) -> str:
        """What the log says from the first line that tells of a failure or holds what was sent; empty is well."""
        lines = self.process.err.splitlines()
        bad = (n for n, line in enumerate(lines) if CANARY in line or _BAD_LINE.search(line))
        first = next(bad, len(lines))
        return "\n".join(lines[first : first + _LOG_LINES_SHOWN])

    async def statuses(self, paths: list[str]) -> dict[str, int]:
        """What plain requests are answered with."""
        headers = {"Authorization": f"Bearer {self.world.rich}"}
        base = f"http://127.0.0.1:{self.port}"
        return {path: (await self.client.get(base + path, headers=headers)).status_code for path in paths}


@asynccontextmanager
async def running_target(system: System) -> AsyncIterator[Target]:
    """An API and a worker process of a system whose data directory is set up, with accounts for the fuzz."""
    process, api = await system.api()
    await system.worker()
    db = Database(EmbeddedPostgres(system.data_dir).dsn("babysea_us"), name="fuzz", size=2)
    await db.open()
    try:
        world = await _world(db)
    finally:
        await db.close()
    target = Target(system, process, int(api.base.rpartition(":")[2]), world, system.client)
    first = await _generation(target, world.rich)
    world.own_ids.append(first)
    world.foreign_ids.append(await _generation(target, world.small))
    yield target


async def _world(db: Database) -> World:
    rich = await _account(db, "100000", "unlimited")
    small = await _account(db, "1", "unlimited")
    limited = await _account(db, "100", "free")
    poor = await _account(db, "0", "unlimited")
    return World(
        rich=await _key(db, rich, "full_access"),
        small=await _key(db, small, "full_access"),
        others=[
            await _key(db, limited, "full_access"),
            await _key(db, poor, "full_access"),
            await _key(db, rich, "monitor_only"),
            await _key(db, rich, "full_access", allowlist=["192.0.2.1"]),
        ],
        foreign_ids=[],
    )


async def _account(db: Database, credits: str, plan: str) -> accounts.Account:
    account = await accounts.create(db, name="Fuzz", plan=plan)
    if micros(credits):
        await ledger.add(db, account.id, micros(credits), "fuzz")
    return account


async def _key(
    db: Database, account: accounts.Account, preset: str, allowlist: list[str] | None = None
) -> str:
    issued = await issue(
        db, account_id=account.id, name="fuzz", scopes=PRESETS[preset], allowlist=allowlist or []
    )
    return issued.secret


async def _generation(target: Target, key: str) -> str:
    response = await target.client.post(
        f"http://127.0.0.1:{target.port}/v1/generate/image/sandbox/image",
        headers={"Authorization": f"Bearer {key}"},
        json={"generation_prompt": CANARY},
    )
    assert response.status_code == 200, response.text
    generation_id: str = response.json()["data"]["generation_id"]
    return generation_id

"""The whole system of a run: PostgreSQL, Redis, a bucket, the outside world, the proxy, two APIs, two workers."""

import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import msgspec
from tests.chaos.disk import SmallDisk
from tests.chaos.outside import Seen
from tests.chaos.plan import PER_ROLE, WAYS
from tests.chaos.providers import Mood
from tests.chaos.proxy import Way, proxy
from tests.chaos.servers import Helper, Server, bucket_server, quiet_port, redis_server
from tests.emulators.kit import SECRET
from tests.emulators.s3 import environment as bucket_environment
from tests.postgres15 import Postgres15
from tests.support import make_account

from babysea_server.db.migrate import migrate
from babysea_server.db.pool import Database
from babysea_server.kit.clock import Clock
from babysea_server.settings import PROVIDER_VARIABLES

#: For PostgreSQL with everything that a run of minutes writes, and for the bucket.
_DATABASE_MIB, _BUCKET_MIB = 400, 64
_READY_S = 120.0
_FINAL_EVENTS = "generation.completed,generation.failed,generation.canceled"
#: What each endpoint hears of; the first of starts too.
EVENTS = {"first": f"generation.started,{_FINAL_EVENTS}", "second": _FINAL_EVENTS}

#: A full disk is met soon when little is kept in advance; tmpfs has no use for direct writes.
_POSTGRES = {
    "min_wal_size": "32MB",
    "max_wal_size": "96MB",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
}
SERVER = {
    "BABYSEA_REGIONS": "us",
    "BABYSEA_CONSOLE_ENABLED": "false",
    "BABYSEA_LOG_FORMAT": "json",
    "BABYSEA_WEBHOOKS_ALLOW_PRIVATE": "true",
    "BABYSEA_WORKER_LEASE_S": "3",
    "BABYSEA_WORKER_POLL_S": "0.5",
    "BABYSEA_SUBMIT_TIMEOUT_S": "4",
    "BABYSEA_IMAGE_ATTEMPT_TIMEOUT_S": "20",
    "BABYSEA_ADMISSION_DEADLINE_S": "4",
    "BABYSEA_REQUEST_TIMEOUT_S": "10",
}


@dataclass(frozen=True, slots=True)
class Customer:
    """The account of a run, its key, and the secrets of its endpoints by name."""

    account_id: UUID
    key: str
    credits: int
    secrets: Mapping[str, str]


@dataclass
class Topology:
    """What a run consists of; see `running`."""

    folder: Path
    clock: Clock
    postgres: Postgres15
    redis: Helper
    bucket: Helper
    outside: Helper
    ways: Mapping[str, Way]
    api_ports: tuple[int, ...]
    control: str
    """Address of the outside's control."""
    environment: Mapping[str, str]
    session: aiohttp.ClientSession
    database_disk: SmallDisk
    bucket_disk: SmallDisk
    small_disks: bool
    """Whether disks can be filled."""
    apis: list[Server] = field(default_factory=list)
    workers: list[Server] = field(default_factory=list)
    away: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever does something to PostgreSQL."""

    @property
    def logs(self) -> Path:
        """Where processes write."""
        return self.folder / "logs"

    @property
    def servers(self) -> list[Server]:
        """All places of our own processes."""
        return [*self.apis, *self.workers]

    @property
    def bases(self) -> list[str]:
        """Addresses of the APIs."""
        return [f"http://127.0.0.1:{port}" for port in self.api_ports]

    async def query(self, sql: str, *arguments: Any) -> list[Any]:
        """Rows of one statement, past the proxy and all of the server's own code."""
        connection = await asyncpg.connect(self.postgres.dsn("babysea_us"), timeout=30)
        try:
            rows: list[Any] = await connection.fetch(sql, *arguments, timeout=60)
            return rows
        finally:
            await connection.close(timeout=5)

    async def cli(self, *arguments: str) -> Any:
        """Run an administrative command; returns what it prints.

        Raises:
            AssertionError: it failed.
        """
        # Beside the proxy: an operator's command is not what is tested here.
        environment = {**self.environment, "DATABASE_URL_US": self.postgres.dsn("babysea_us")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "babysea_server.cli", *arguments),
            *("--data-dir", str(self.folder / "data"), "--json"),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, (out + err).decode()
        return json.loads(out)

    async def mood(self, who: str, mood: Mood, share: float) -> None:
        """How a provider or the receiver behaves from now on."""
        body = {"who": who, "mood": mood.value, "share": share}
        async with self.session.post(f"{self.control}/mood", json=body) as answer:
            assert answer.status == 200, await answer.text()

    async def seen(self) -> Seen:
        """What the outside has seen until now."""
        async with self.session.get(f"{self.control}/seen") as answer:
            return msgspec.json.decode(await answer.read(), type=Seen)

    async def customer(self, credits: int) -> Customer:
        """An account with credits, a key and two endpoints."""
        db = Database(self.postgres.dsn("babysea_us"), name="chaos", size=2)
        await db.open()
        try:
            account_id, key = await make_account(db, credits=str(credits))
        finally:
            await db.close()

        async def endpoint(name: str) -> str:
            url = f"http://127.0.0.1:{self.ways['receiver'].port}/{name}"
            options = ("--account", str(account_id), "--url", url, "--events", EVENTS[name])
            secret: str = (await self.cli("webhooks", "create", *options))["webhook_secret"]
            return secret

        secrets = await asyncio.gather(*map(endpoint, EVENTS))
        return Customer(account_id, key, credits, dict(zip(EVENTS, secrets, strict=True)))

    async def all_serve(self) -> None:
        """Wait until every process of ours serves.

        Raises:
            TimeoutError: not within two minutes.
        """
        async with asyncio.timeout(_READY_S):
            while not all(server.serving for server in self.servers):
                await self.clock.sleep(0.05)


def _environment(ways: Mapping[str, Way], postgres: Postgres15) -> dict[str, str]:
    """What our processes are started with: everything outside is reached through the proxy."""
    ours = ("BABYSEA_", "DATABASE_URL", "STORAGE_URL", "MASTER_KEY", "REDIS_URL", "AWS_", "STRIPE_")
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours)
        and name not in PROVIDER_VARIABLES
        and not name.lower().endswith("_proxy")
    }
    origins = {name: f"http://127.0.0.1:{way.port}" for name, way in ways.items()}
    return {
        **clean,
        **SERVER,
        "MASTER_KEY": "the-master-key-of-a-run-that-keeps-nothing",
        "DATABASE_URL_US": postgres.dsn("babysea_us", port=ways["postgres"].port),
        "REDIS_URL": f"redis://127.0.0.1:{ways['redis'].port}/0",
        **bucket_environment(origins["storage"]),
        "BABYSEA_PROVIDER_REPLICATE_API_KEY": SECRET,
        "BABYSEA_PROVIDER_REPLICATE_BASE_URL": f"{origins['replicate']}/v1",
        "BABYSEA_PROVIDER_REPLICATE_PRIVATE_NETWORK": "true",
        "BABYSEA_PROVIDER_FAL_API_KEY": SECRET,
        "BABYSEA_PROVIDER_FAL_BASE_URL": origins["fal"],
        "BABYSEA_PROVIDER_FAL_PRIVATE_NETWORK": "true",
    }


@asynccontextmanager
async def running(folder: Path, clock: Clock) -> AsyncIterator[Topology]:
    """A whole system, ours still starting; all of it is gone afterwards but the folder of `new_folder`.

    Raises:
        AssertionError, TimeoutError: it does not start.
    """
    chance = random.Random(os.getpid())
    disks = SmallDisk(folder / "database", _DATABASE_MIB), SmallDisk(folder / "bucket", _BUCKET_MIB)
    ports = {name: quiet_port(chance) for name in (*WAYS, "control")}
    ways = {name: Way(quiet_port(chance), ports[name], clock, random.Random(name)) for name in WAYS}
    mounted = [disk.mount() for disk in disks]
    try:
        async with (
            _postgres(disks[0], ports["postgres"], folder / "logs") as postgres,
            _neighbours(ports, ways, disks[1], folder / "logs", clock) as (redis, bucket, outside),
            aiohttp.ClientSession() as session,
            proxy(ways),
        ):
            topology = Topology(
                folder=folder,
                clock=clock,
                postgres=postgres,
                redis=redis,
                bucket=bucket,
                outside=outside,
                ways=ways,
                api_ports=tuple(quiet_port(chance) for _ in range(PER_ROLE)),
                control=f"http://127.0.0.1:{ports['control']}",
                environment=_environment(ways, postgres),
                session=session,
                database_disk=disks[0],
                bucket_disk=disks[1],
                small_disks=all(mounted),
            )
            async with _our_servers(topology):
                yield topology
    finally:
        for disk in disks:
            disk.unmount()


def new_folder() -> Path:
    """Where a run keeps its files; PostgreSQL's user must get into it too."""
    folder = Path(tempfile.mkdtemp(prefix="babysea-chaos-"))
    folder.chmod(0o711)
    for name in ("logs", "data"):
        (folder / name).mkdir()
    return folder


@asynccontextmanager
async def _postgres(disk: SmallDisk, port: int, logs: Path) -> AsyncIterator[Postgres15]:
    """PostgreSQL on its disk, with an empty database of the newest schema."""
    server = Postgres15(disk.folder / "server", durable=True, settings=_POSTGRES)
    server.port = port
    try:
        await asyncio.to_thread(server.initialise)
        await asyncio.to_thread(server.start)
        await migrate(await server.database("babysea_us"))
        yield server
    finally:
        disk.free()
        if server.log.exists():
            shutil.copy(server.log, logs / "postgres.log")
        await asyncio.to_thread(server.remove)


@asynccontextmanager
async def _neighbours(
    ports: Mapping[str, int], ways: Mapping[str, Way], disk: SmallDisk, logs: Path, clock: Clock
) -> AsyncIterator[tuple[Helper, Helper, Helper]]:
    """Redis, the bucket, and the outside."""
    origins = {name: f"http://127.0.0.1:{way.port}" for name, way in ways.items()}
    command = [sys.executable, "-m", "tests.chaos.outside"]
    command += ["--ports", json.dumps(ports), "--origins", json.dumps(origins)]
    helpers = (
        redis_server(logs, ports["redis"], clock),
        bucket_server(logs, disk.folder / "objects", ports["storage"], clock),
        Helper(command, logs, "outside", ports["control"], clock),
    )
    try:
        for helper in helpers:
            await helper.start()
        yield helpers
    finally:
        for helper in helpers:
            helper.kill()


@asynccontextmanager
async def _our_servers(topology: Topology) -> AsyncIterator[None]:
    data = ["--data-dir", str(topology.folder / "data")]
    for number, port in enumerate(topology.api_ports):
        topology.apis.append(
            Server(
                f"api-{number}",
                ["api", *data, "--port", str(port)],
                topology.environment,
                topology.logs,
                "API listening on",
                topology.clock,
            )
        )
    for number in range(PER_ROLE):
        topology.workers.append(
            Server(
                f"worker-{number}",
                ["worker", *data],
                topology.environment,
                topology.logs,
                "worker running",
                topology.clock,
            )
        )
    keeping = [asyncio.create_task(server.keep(), name=server.name) for server in topology.servers]
    try:
        yield
    finally:
        for keeper in keeping:
            keeper.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        for server in topology.servers:
            server.end()

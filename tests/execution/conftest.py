"""A house without an API: generations are admitted directly, workers are built by the test."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from tests.execution.scripted import Scripted
from tests.support import FINAL, eventually

from babysea_server.accounts import store as accounts
from babysea_server.catalog.catalog import Catalog, load_catalog
from babysea_server.db.pool import Database
from babysea_server.execution import store as execution
from babysea_server.execution.types import Claim
from babysea_server.execution.worker import Worker, WorkerSettings
from babysea_server.generations.admission import AdmissionRequest, Admissions
from babysea_server.kit.clock import Clock, SystemClock
from babysea_server.kit.ids import uuid7
from babysea_server.ledger import store as ledger
from babysea_server.ledger.verify import verify
from babysea_server.outputs.store import ObjectStore, open_store
from babysea_server.providers.caps import Cap
from babysea_server.providers.registry import Registry, Route
from babysea_server.providers.runner import Runner

#: What an account starts with and what a generation reserves, in micro-credits.
BALANCE = 1_000_000_000
COST = 10_000
SUBMIT_TIMEOUT_S = 0.2


@dataclass
class Killable:
    """A worker with a pool of its own, and all the tasks that belong to it."""

    worker: Worker
    db: Database
    others: set["asyncio.Task[Any]"]

    async def hears(self) -> bool:
        """Whether notices of the database reach it."""
        return all(listener.hearing for listener in self.db._listeners)

    async def kill(self) -> None:
        """End it like a killed process: at once, in the middle of anything, without a word to anybody."""
        self.db._pool.terminate()
        own = [task for task in asyncio.all_tasks() - self.others if task is not asyncio.current_task()]
        for task in own:
            task.cancel()
        await asyncio.gather(*own, return_exceptions=True)


@dataclass
class House:
    """One region: its database, an account with credits, the files, and workers as they are asked for."""

    db: Database
    dsn: str
    account_id: UUID
    store: ObjectStore
    folder: Path
    catalog: Catalog
    admissions: Admissions
    provider: Scripted = field(default_factory=Scripted)
    caps: dict[str, Cap] = field(default_factory=dict)
    workers: list[Killable] = field(default_factory=list)

    async def admit(
        self,
        order: Sequence[str] = ("replicate",),
        *,
        model: str = "bfl/flux-schnell",
        media: str = "image",
        cost: int = COST,
        rate: Decimal | None = None,
        lifetime_s: int = 600,
        account_id: UUID | None = None,
        inputs: dict[str, Any] | None = None,
    ) -> UUID:
        """An accepted generation."""
        admission = await self.admissions.admit(
            AdmissionRequest(
                generation_id=uuid7(),
                account_id=account_id or self.account_id,
                apikey_id=uuid7(),
                model=model,
                media=media,
                inputs={"generation_prompt": "a test"} if inputs is None else inputs,
                provider_order=tuple(order),
                prediction_id=uuid7(),
                cost=cost,
                rate_per_second=rate,
                lifetime_s=lifetime_s,
                in_flight_limit=None,
                idempotency_key=None,
                fingerprint=b"",
            )
        )
        assert admission.result == "accepted"
        assert admission.generation_id is not None
        return admission.generation_id

    def runner(self, clock: Clock | None = None) -> Runner:
        """A runner over the scripted provider, for every provider id."""
        ids = [*self.catalog.providers, *self.provider.scripts]
        routes = {id: Route(self.provider, self.provider, cap=self.caps.get(id)) for id in ids}
        return Runner(
            Registry(routes),
            clock or SystemClock(),
            submit_timeout_s=SUBMIT_TIMEOUT_S,
        )

    async def worker(self, **changes: Any) -> Killable:
        """A started worker. Keyword arguments are `WorkerSettings`, `clock` and `store`."""
        clock = changes.pop("clock", SystemClock())
        store = changes.pop("store", self.store)
        settings: dict[str, Any] = {
            "concurrency": 100,
            "lease_s": 3.0,
            "poll_s": 0.05,
            "attempt_timeout_s": {"image": 30.0, "video": 60.0},
            **changes,
        }
        db = Database(self.dsn, name="test-worker", size=8)
        await db.open()
        others = asyncio.all_tasks()
        worker = Worker(db, self.runner(clock), store, self.catalog, clock, WorkerSettings(**settings))
        worker.start()
        killable = Killable(worker, db, others)
        self.workers.append(killable)
        return killable

    async def bare_worker(self) -> UUID:
        """A worker of which there is only the lease."""
        worker_id = uuid7()
        await execution.register(self.db, worker_id, host="test", pid=1, lease_s=60)
        return worker_id

    async def claimed(self, worker_id: UUID) -> Claim:
        """The one due generation, claimed."""
        [claim] = await execution.claim(self.db, worker_id, 1)
        return claim

    async def expire_leases(self) -> None:
        """Let every worker's lease be over."""
        await self.db.execute("UPDATE workers SET lease_until = now() - interval '1 second'")

    async def generation(self, generation_id: UUID) -> Any:
        """The generation's row."""
        return await self.db.fetchrow("SELECT * FROM generations WHERE id = $1", generation_id)

    async def attempts(self, generation_id: UUID) -> list[Any]:
        """The generation's attempts, in order."""
        return await self.db.fetch(
            "SELECT * FROM attempts WHERE generation_id = $1 ORDER BY attempt_order", generation_id
        )

    async def outcomes(self, generation_id: UUID) -> list[tuple[str, str, str | None]]:
        """Provider, outcome and failure of the generation's attempts, in order."""
        return [
            (row["provider"], row["outcome"], row["failure"]) for row in await self.attempts(generation_id)
        ]

    async def finished(self, generation_id: UUID, *, within_s: float = 20.0) -> Any:
        """The generation's row once it is final."""

        async def final() -> Any:
            row = await self.generation(generation_id)
            return row if row["status"] in FINAL else None

        return await eventually(final, within_s=within_s)

    async def all_finished(self, *, within_s: float = 30.0) -> None:
        """Wait until nothing is in flight."""

        async def done() -> bool:
            return not await self.db.fetchval(
                "SELECT count(*) FROM generations WHERE status IN ('pending', 'processing')"
            )

        await eventually(done, within_s=within_s)

    async def waits_for_lock(self, query: str) -> bool:
        """Whether a statement like `query` waits for a lock now."""
        return bool(
            await self.db.fetchval(
                """SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1""",
                query,
            )
        )

    def files(self) -> list[Path]:
        """Every stored output file."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    async def balance(self) -> int:
        """The account's balance in micro-credits."""
        return await accounts.balance(self.db, self.account_id)

    async def check(self) -> None:
        """The books are right, nothing is leased or open that is over, and nothing was bought twice."""
        assert await verify(self.db) == []
        open_attempts = await self.db.fetch(
            """SELECT a.id FROM attempts a JOIN generations g ON g.id = a.generation_id
               WHERE a.outcome = 'pending' AND g.status IN ('succeeded', 'failed', 'canceled')"""
        )
        assert open_attempts == []
        assert all(len(ids) == 1 for ids in self.provider.jobs.values())


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """Crashes are logged as plain text: the default draws every local variable, for seconds."""
    structlog.configure(
        processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The project's own catalog."""
    return load_catalog(None)


@pytest.fixture
async def house(db: Database, dsn: str, tmp_path: Path, catalog: Catalog) -> AsyncIterator[House]:
    """A house without any worker yet."""
    account = await accounts.create(db, name="Customer", plan="unlimited")
    await ledger.add(db, account.id, BALANCE, "test")
    admissions = Admissions(db, SystemClock(), lambda: None)
    built = House(db, dsn, account.id, open_store(None, tmp_path), tmp_path, catalog, admissions)
    yield built
    for killable in built.workers:
        await killable.worker.stop(within_s=2)
        await killable.db.close()
    await admissions.close()

"""The simulated processes: the server's own parts, put together as `app` does, on simulated lines."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

from tests.simulation.database import Line, SimDatabase
from tests.simulation.loop import Process
from tests.simulation.receivers import Files, Receivers, SimSender, SimStore
from tests.simulation.upstream import SUBMIT_TIMEOUT_S, SimProvider, Upstream

from babysea_server.catalog.catalog import Catalog
from babysea_server.execution.callbacks import Callbacks
from babysea_server.execution.periodic import every
from babysea_server.execution.wakeup import Wakeup
from babysea_server.execution.worker import Worker, WorkerSettings
from babysea_server.generations.admission import Admissions
from babysea_server.generations.cancel import Canceling
from babysea_server.generations.delete import Deleting
from babysea_server.generations.files import DELETIONS_EVERY_S, FileDeletions
from babysea_server.generations.reading import Reader
from babysea_server.generations.service import Generations
from babysea_server.kit.tasks import end
from babysea_server.outputs.links import LinkSigner
from babysea_server.providers.callbacks import CallbackAddresses, CallbackVerifier
from babysea_server.providers.registry import Registry, Route
from babysea_server.providers.runner import Runner
from babysea_server.routing.chain import Router
from babysea_server.webhooks.body import Bodies
from babysea_server.webhooks.deliverer import Deliverer, DelivererSettings
from babysea_server.webhooks.secrets import SecretBox

MASTER_KEY = b"a master key of simulations, 32+"
ORIGIN = "https://api.us.example.com"
REGION = "us"
LEASE_S = 9.0
ATTEMPT_TIMEOUT_S = {"image": 15.0, "video": 20.0}
_GRACE_S = 20
_POLL_S = 1.5
_STOP_S = 4.0


class SimClock:
    """A process's clock: the wall may be wrong, what is monotonic is not."""

    def __init__(self, process: Process, begins_at: datetime) -> None:
        self._process = process
        self._begins_at = begins_at

    def now(self) -> datetime:
        seconds = self._process.loop.time() + self._process.clock_offset_s
        return self._begins_at + timedelta(seconds=seconds)

    def monotonic(self) -> float:
        return self._process.loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Surroundings:
    """What all processes share because it is outside of them."""

    line: Line
    upstream: Upstream
    receivers: Receivers
    files: Files
    catalog: Catalog
    draw: Random

    def address(self, provider: str, attempt_id: UUID) -> str:
        """Where a provider announces the end of an attempt."""
        url = CallbackAddresses(MASTER_KEY, REGION, ORIGIN).url(provider, attempt_id)
        assert url is not None
        return url


def lifetime_s(media: str, providers: int) -> int:
    """Seconds until a generation's hard limit."""
    return int(providers * (SUBMIT_TIMEOUT_S + ATTEMPT_TIMEOUT_S[media])) + _GRACE_S


def _registry(around: Surroundings) -> Registry:
    upstream = around.upstream
    return Registry({id: Route(SimProvider(id, habits), upstream) for id, habits in upstream.habits.items()})


class ApiSide:
    """The parts of an API process that accept, read and change generations."""

    def __init__(self, around: Surroundings, process: Process) -> None:
        self.process = process
        clock = SimClock(process, around.line.begins_at)
        self._db = SimDatabase(around.line, process, "babysea-api")
        self._admission_db = SimDatabase(around.line, process, "babysea-admission")
        registry = _registry(around)
        self._runner = Runner(registry, clock, submit_timeout_s=SUBMIT_TIMEOUT_S)
        self._wakeup = Wakeup(self._db)
        self._admissions = Admissions(self._admission_db, clock, self._wakeup.poke, deadline_s=3.0)
        self._reader = Reader(self._db)
        router = Router(registry.available, random=Random(around.draw.random()))
        self.generations = Generations(around.catalog, router, self._admissions, lifetime_s)
        self.canceling = Canceling(self._db, self._reader, self._runner, around.catalog, clock)
        self.deleting = Deleting(self._db, self._reader, SimStore(around.files), clock)
        self.reader = self._reader
        self.callbacks = Callbacks(
            CallbackAddresses(MASTER_KEY, REGION, ORIGIN),
            CallbackVerifier(registry, self._runner, clock),
            self._wakeup.announce,
        )
        self.db = self._db

    async def open(self) -> None:
        """Begin."""
        await self._db.open()
        await self._admission_db.open()
        self._wakeup.start()

    async def close(self) -> None:
        """Answer what waits and end."""
        await self._admissions.close()
        await self._reader.close()
        await self._wakeup.close()
        await self._admission_db.close()
        await self._db.close()


class WorkerSide:
    """The parts of a worker process."""

    def __init__(self, around: Surroundings, process: Process) -> None:
        self.process = process
        clock = SimClock(process, around.line.begins_at)
        db = self._db = SimDatabase(around.line, process, "babysea-worker")
        store = SimStore(around.files)
        runner = Runner(
            _registry(around), clock, submit_timeout_s=SUBMIT_TIMEOUT_S, inline_timeout_s=ATTEMPT_TIMEOUT_S
        )
        self.worker = Worker(
            db,
            runner,
            store,
            around.catalog,
            clock,
            WorkerSettings(
                concurrency=around.draw.choice((3, 100)),
                lease_s=LEASE_S,
                poll_s=_POLL_S,
                attempt_timeout_s=ATTEMPT_TIMEOUT_S,
            ),
            callback_url=CallbackAddresses(MASTER_KEY, REGION, ORIGIN).url,
        )
        self.deliverer = Deliverer(
            db,
            SimSender(around.receivers),
            SecretBox(MASTER_KEY),
            Bodies(LinkSigner(MASTER_KEY, clock), ORIGIN, REGION),
            clock,
            DelivererSettings(per_endpoint=around.draw.choice((1, 8)), lease_s=LEASE_S, poll_s=_POLL_S),
            uniform=Random(around.draw.random()).random,
        )
        self._deletions = FileDeletions(db, store)
        self._clock = clock
        self._periodic: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Begin."""
        await self._db.open()
        self.worker.start()
        self.deliverer.start()
        self._periodic = [every("file-deletions", DELETIONS_EVERY_S, self._deletions.delete_due, self._clock)]

    async def close(self) -> None:
        """Stop, giving back what is not done."""
        await end(self._periodic)
        await asyncio.gather(self.worker.stop(within_s=_STOP_S), self.deliverer.stop(within_s=_STOP_S))
        await self._db.close()


def attempt_of(api: ApiSide, provider: str, address: str) -> UUID | None:
    """The attempt that a callback's address names."""
    return api.callbacks.attempt(provider, address.rpartition("/")[2])

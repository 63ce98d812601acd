"""From an accepted request to a settled generation, with a provider that costs no time.

The provider answers its submit at once with a small valid PNG, from memory: what remains is the control plane's
own work. One worker process claims the generation, writes the attempt, "calls" the provider, checks and stores the
file, settles the credits. Everything else is real: the database, the local store, the worker with its defaults.

`drain` measures settled generations per second: requests are admitted in bulk before the worker starts, so the
worker always has work and neither the API nor a load generator takes its processor. The rate is counted from the
first attempt to the last settlement in the database's own times.

`light` measures latencies where nothing queues: the API and the worker run, one connection sends a request every
50 ms, and the provider notes when it was called. Admitted -> provider called is counted from the start of the
admission's transaction (`generations.created_at`), so it holds the commit, the wake-up, the claim and the attempt's
row.
"""

import asyncio
import io
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop
from PIL import Image

from babysea_server.app.shared import build_shared
from babysea_server.app.workers import Workers
from babysea_server.catalog.catalog import Catalog, load_catalog
from babysea_server.catalog.normalise import GenerationRequest, normalise
from babysea_server.catalog.types import Traits
from babysea_server.db.cluster import Cluster
from babysea_server.db.pool import Database
from babysea_server.generations.admission import AdmissionRequest, Admissions
from babysea_server.kit.clock import SystemClock
from babysea_server.kit.ids import uuid7
from babysea_server.ledger.verify import verify
from babysea_server.processes.serve import settle_memory
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Finished,
    Job,
    Output,
    Provider,
    Refused,
    Request,
)
from babysea_server.providers.registry import Registry, Route, everywhere
from babysea_server.settings import ProviderSettings, Settings, load_settings
from babysea_server.telemetry.logs import configure_logging
from bench.load import Load, Measured, http_request, percentile, run
from bench.servers import REGION, Process, Site, api_server

MODEL = "sandbox/image"
BODY = b'{"generation_prompt":"A lighthouse on a cliff at dawn, gulls in the wind"}'
_LIGHT_EVERY_S = 0.05
_SETTLED_WITHIN_S = 120.0


def generate_request(api_key: str) -> bytes:
    """The request that every measurement of admission sends."""
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    return http_request("POST", f"/v1/generate/image/{MODEL}", headers=headers, body=BODY)


class InstantProvider(Provider):
    """Finishes every job in the answer to its submit."""

    name = "instant"
    traits = Traits("synchronous")

    def __init__(self) -> None:
        super().__init__(ProviderSettings())

    def build_submit(self, job: Job) -> Request:
        """The attempt's id is all that the transport notes."""
        return Request("POST", str(job.attempt_id))

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """The body is the picture."""
        return Finished([Output(data=answer.body)])


class InstantTransport:
    """Answers from memory, and notes when each attempt was sent (Unix seconds) unless there are too many."""

    def __init__(self, *, noting: bool = True) -> None:
        self._noting = noting
        picture = io.BytesIO()
        Image.new("RGB", (64, 64), (24, 96, 160)).save(picture, "PNG")
        self._answer = Answer(200, {}, picture.getvalue())
        self.called: dict[str, float] = {}

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        """See `Transport.send`."""
        if self._noting:
            self.called[request.url] = time.time()
        return self._answer

    async def close(self) -> None:
        """Nothing to close."""


class Drained(msgspec.Struct, frozen=True, kw_only=True):
    """One drained backlog."""

    generations: int
    seconds: float

    @property
    def rate(self) -> float:
        """Settled generations per second."""
        return self.generations / self.seconds


class Light(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies at light load; `to_provider_ms` from admission to the provider's call."""

    admission: Measured
    to_provider_p50_ms: float
    to_provider_p99_ms: float
    to_settled_p50_ms: float


async def drain(site: Site, generations: int) -> Drained:
    """Admit, then start one worker and wait until it has settled everything.

    Raises:
        RuntimeError: something did not succeed, or the ledger has a difference.
    """
    before = await _settled(site.db)
    await admit(site, generations)
    with worker(site, site.folder / "called.json"):
        await until_settled(site.db, before + generations)
    seconds = await site.db.fetchval(
        """SELECT extract(epoch FROM max(g.completed_at) - min(a.submitted_at))::float8
           FROM (SELECT id, completed_at FROM generations ORDER BY id DESC LIMIT $1) AS g
           JOIN attempts a ON a.generation_id = g.id""",
        generations,
    )
    await _check(site.db)
    return Drained(generations=generations, seconds=seconds)


async def light(site: Site, seconds: float) -> Light:
    """Send a request every 50 ms to an idle API and worker.

    Raises:
        RuntimeError: something did not succeed, or the ledger has a difference.
    """
    before = await _settled(site.db)
    notes = site.folder / "called.json"
    request = generate_request(site.api_key)
    with api_server(site) as port, worker(site, notes):
        load = Load(
            host="127.0.0.1",
            port=port,
            requests=[request],
            connections=1,
            seconds=1.0,
            every_s=_LIGHT_EVERY_S,
        )
        warm = await asyncio.to_thread(run, load)
        admission = await asyncio.to_thread(run, msgspec.structs.replace(load, seconds=seconds))
        # The one that was under way when the time was up counts nowhere but is settled all the same.
        await until_settled(site.db, before + warm.requests + admission.requests)
    rows = await site.db.fetch(
        """SELECT prediction_id, extract(epoch FROM created_at)::float8 AS created,
                  extract(epoch FROM completed_at)::float8 AS completed
           FROM generations WHERE status = 'succeeded' ORDER BY id DESC LIMIT $1""",
        admission.requests,
    )
    called = msgspec.json.decode(notes.read_bytes(), type=dict[str, float])
    reached = sorted(called[str(row["prediction_id"])] - row["created"] for row in rows)
    settled = sorted(row["completed"] - row["created"] for row in rows)
    await _check(site.db)
    return Light(
        admission=admission,
        to_provider_p50_ms=percentile(reached, 50) * 1000,
        to_provider_p99_ms=percentile(reached, 99) * 1000,
        to_settled_p50_ms=percentile(settled, 50) * 1000,
    )


def worker(site: Site, notes: Path | None) -> Process:
    """One worker process with the instant provider; at its end it writes into `notes` when it called."""
    arguments = [] if notes is None else [str(notes)]
    return Process(["-m", "bench.settle", str(site.folder), *arguments], site.folder / "worker.log")


async def admit(site: Site, generations: int) -> None:
    """Through the product's own normalisation and admission, without HTTP."""
    db = Database(site.db.dsn, name="bench-admission", size=3)
    await db.open()
    admissions = Admissions(db, SystemClock(), lambda: None, deadline_s=30.0)
    model = load_catalog().model_for(MODEL, "image")
    try:
        for begin in range(0, generations, 1024):
            count = min(1024, generations - begin)
            requests = [_admission(site, normalise(model, msgspec.json.decode(BODY))) for _ in range(count)]
            answers = await asyncio.gather(*map(admissions.admit, requests))
            if any(answer.result != "accepted" for answer in answers):
                raise RuntimeError("the backlog was not admitted")
    finally:
        await admissions.close()
        await db.close()


def _admission(site: Site, request: GenerationRequest) -> AdmissionRequest:
    return AdmissionRequest(
        generation_id=uuid7(),
        prediction_id=uuid7(),
        account_id=site.account_id,
        apikey_id=site.apikey_id,
        model=request.model.identifier,
        media=request.model.media,
        inputs=request.inputs,
        provider_order=request.eligible_providers,
        cost=request.cost_micro,
        rate_per_second=None,
        lifetime_s=3600,
        in_flight_limit=None,
        idempotency_key=None,
        fingerprint=b"",
    )


async def _settled(db: Database) -> int:
    count: int = await db.fetchval("SELECT count(*) FROM generations WHERE completed_at IS NOT NULL")
    return count


async def until_settled(db: Database, count: int) -> None:
    give_up_at = time.monotonic() + _SETTLED_WITHIN_S
    while await _settled(db) < count:
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"less than {count} generations settled within {_SETTLED_WITHIN_S:g} s")
        await asyncio.sleep(0.25)


async def _check(db: Database) -> None:
    wrong = await db.fetchval("SELECT count(*) FROM generations WHERE status IN ('failed', 'canceled')")
    differences = await verify(db)
    if wrong or differences:
        raise RuntimeError(
            f"{wrong} generations did not succeed; ledger differences: {list(differences)[:3]}"
        )


async def work(settings: Settings, transport: InstantTransport) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    cluster = Cluster(settings)
    await cluster.open()

    def registry(_settings: Settings, catalog: Catalog, _db: Database) -> Registry:
        return everywhere(catalog.providers, Route(InstantProvider(), transport))

    try:
        workers = Workers(build_shared(settings), {REGION: cluster.dsn(REGION)}, registry)
        await workers.open()
        settle_memory()
        sys.stdout.write("working\n")
        sys.stdout.flush()
        await stop.wait()
        await workers.close()
    finally:
        await cluster.close()


def main(arguments: Sequence[str]) -> None:
    """Run a worker until SIGTERM; arguments: data folder, and a file where there are to be notes."""
    folder, *notes = arguments
    settings = load_settings(overrides={"data_dir": folder, "regions": [REGION]})
    configure_logging(format=settings.log_format, level=settings.log_level)
    transport = InstantTransport(noting=bool(notes))
    uvloop.run(work(settings, transport))
    for file in notes:
        Path(file).write_bytes(msgspec.json.encode(transport.called))


if __name__ == "__main__":
    main(sys.argv[1:])

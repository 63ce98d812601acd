"""Health: whether a process lives and may be given work; told to the operator with reasons, to others without."""

import socket

import httpx
import pytest
from tests.conftest import MakeDeployment
from tests.e2e.system import QUICK, running_system
from tests.generations.wire import Wire
from tests.support import Deployment, JumpingClock, eventually
from tests.telemetry.scraping import Scrape, free_ports, listener

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.migrations import newest_revision
from babysea_server.db.pool import Database
from babysea_server.processes.faults import StartError
from babysea_server.telemetry.health import Readiness


@pytest.fixture
async def deployment(make_deployment: MakeDeployment) -> Deployment:
    return await make_deployment(metrics_port=free_ports())


def anybody(deployment: Deployment) -> httpx.AsyncClient:
    """A client of the API's own port: what it answers here is not in the document, which the shared client minds."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=deployment.api), base_url="http://api.us.example.com"
    )


async def test_a_process_that_works_is_healthy_and_ready(deployment: Deployment) -> None:
    workers = deployment.workers
    assert workers is not None
    for telemetry in (deployment.api.telemetry, workers.telemetry):
        async with listener(telemetry) as operator:
            assert (await operator.client.get("/healthz")).json() == {"status": "ok"}
            assert await operator.ready() == (200, {"status": "ok", "regions": {"us": "ready"}})
            assert (await operator.client.head("/readyz")).status_code == 200
            assert (await operator.client.get("/")).status_code == 404
            refused = await operator.client.post("/metrics")
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
            assert refused.headers.get("cache-control") is None
    async with anybody(deployment) as client:
        for path in ("/healthz", "/readyz"):
            told = await client.get(path)
            assert (told.status_code, told.json()) == (200, {"status": "ok"}), "whatever name it is asked by"
            assert told.headers["cache-control"] == "no-store"
            assert told.headers["x-content-type-options"] == "nosniff"


async def test_health_is_outside_of_the_operations_and_only_read(deployment: Deployment) -> None:
    async with anybody(deployment) as client:
        for method, path in (
            ("POST", "/healthz"),
            ("GET", "/v1/healthz"),
            ("GET", "/metrics"),
            ("GET", "/healthz/"),
        ):
            refused = await client.request(method, path, headers={"Host": "api.us.localhost"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "BSE1010"), (method, path)


async def test_a_process_that_is_about_to_end_is_not_ready(deployment: Deployment) -> None:
    deployment.api.draining = True
    async with listener(deployment.api.telemetry) as operator, anybody(deployment) as client:
        assert await operator.ready() == (503, {"status": "draining"})
        assert (await operator.client.get("/healthz")).status_code == 200
        told = await client.get("/readyz")
        assert (told.status_code, told.json()) == (503, {"status": "unavailable"})
    deployment.api.draining = False


async def test_a_process_is_not_ready_while_its_database_is_away(
    make_deployment: MakeDeployment, dsn: str, postgres: EmbeddedPostgres
) -> None:
    database, _, folder = dsn.rpartition("/postgresql://")[2].partition("?host=")
    wire = Wire(f"{folder}/.s.PGSQL.5432", database.rpartition("/")[2])
    await wire.open()
    clock = JumpingClock()
    try:
        deployment = await make_deployment(metrics_port=free_ports(), worker=False, way=wire.dsn, clock=clock)
        async with listener(deployment.api.telemetry) as operator, anybody(deployment) as client:
            assert (await operator.ready())[0] == 200
            wire.refusing = True
            wire.cut()
            assert (await operator.ready())[0] == 200, "an answer is believed for a second"
            clock.jump(1)
            unavailable = {"status": "unavailable", "regions": {"us": "database_unavailable"}}
            assert await operator.ready() == (503, unavailable)
            told = await client.get("/readyz")
            assert (told.status_code, told.json()) == (503, {"status": "unavailable"})
            assert (await operator.client.get("/healthz")).status_code == 200
            wire.refusing = False
            clock.jump(1)

            async def back() -> bool:
                clock.jump(1)
                return (await operator.ready())[0] == 200

            await eventually(back)
    finally:
        await wire.close()


@pytest.mark.parametrize(
    ("revision", "state"),
    [("0001", "migrations_missing"), (newest_revision(), "ready"), ("9999", "ready")],
    ids=["older", "this version's", "newer"],
)
async def test_a_region_is_ready_with_all_migrations_that_this_version_knows(
    db: Database, dsn: str, revision: str, state: str
) -> None:
    readiness = Readiness({"us": dsn}, JumpingClock(), lambda: False)
    await readiness.open()
    await db.execute("UPDATE alembic_version SET version_num = $1", revision)
    try:
        assert await readiness.regions() == {"us": state}
    finally:
        await db.execute("UPDATE alembic_version SET version_num = $1", newest_revision())
        await readiness.close()


async def test_a_region_without_a_schema_is_not_ready_and_neither_is_the_process(
    dsn: str, postgres: EmbeddedPostgres
) -> None:
    readiness = Readiness({"us": dsn, "eu": postgres.dsn("postgres")}, JumpingClock(), lambda: False)
    assert readiness.draining, "before it is open"
    await readiness.open()
    try:
        assert await readiness.regions() == {"us": "ready", "eu": "migrations_missing"}
    finally:
        await readiness.close()
    assert readiness.draining


async def test_up_tells_of_the_api_at_the_port_and_of_the_worker_at_the_next() -> None:
    port = free_ports()
    async with running_system(QUICK) as system, httpx.AsyncClient(trust_env=False) as client:
        up = await system.up(BABYSEA_METRICS_PORT=str(port))
        for offset, process in ((0, "api"), (1, "worker")):
            base = f"http://127.0.0.1:{port + offset}"
            found = Scrape((await client.get(f"{base}/metrics")).text)
            assert found.value("babysea_build_info", process=process) == 1
            assert (await client.get(f"{base}/readyz")).status_code == 200
        api = system.newcomer().base
        assert (await client.get(f"{api}/readyz")).json() == {"status": "ok"}
        assert await up.stop() == 0
        await system.nothing_left()


async def test_a_port_of_metrics_that_is_taken_stops_the_start_and_says_which_setting(
    make_deployment: MakeDeployment,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        deployment = await make_deployment(metrics_port=taken.getsockname()[1], worker=False)
        with pytest.raises(StartError, match="choose another with metrics_port"):
            async with listener(deployment.api.telemetry):
                pytest.fail("it listens")

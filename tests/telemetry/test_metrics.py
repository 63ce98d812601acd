"""What is counted: deployments under traffic, scraped over HTTP and read as Prometheus reads it."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from tests.conftest import MakeDeployment
from tests.support import Customer, Deployment, ManualClock, eventually, make_account, make_customer
from tests.telemetry.scraping import Scrape, free_ports, listener
from tests.webhooks.receiver import receiver

from babysea_server.accounts import store as accounts
from babysea_server.app.shared import build_shared
from babysea_server.db.pool import Database
from babysea_server.kit.clock import SystemClock
from babysea_server.ledger import store as ledger
from babysea_server.telemetry import store
from babysea_server.telemetry.lag import watch_lag
from babysea_server.telemetry.metrics import ApiMetrics, WorkerMetrics, new_registry
from babysea_server.telemetry.state import State
from babysea_server.webhooks import endpoints
from babysea_server.webhooks.secrets import SecretBox


@pytest.fixture
async def deployment(make_deployment: MakeDeployment) -> Deployment:
    return await make_deployment(
        metrics_port=free_ports(), webhooks_allow_private=True, sandbox_behaviors={"fal": "refuse_busy"}
    )


async def scraped(deployment: Deployment, process: str) -> Scrape:
    workers = deployment.workers
    assert workers is not None
    async with listener(deployment.api.telemetry if process == "api" else workers.telemetry) as scraper:
        return await scraper.scrape()


# ------------------------------------------------------------------------------------------------ the API


async def test_requests_are_counted_by_operation_status_and_code(customer: Customer) -> None:
    deployment = customer.deployment
    made = await customer.made()
    await customer.request("GET", f"/v1/content/{UUID(int=0)}")
    await deployment.client.get("/v1/status", headers={"Authorization": "Bearer bye_wrong"})
    await deployment.client.get("/wp-login.php")
    api = await scraped(deployment, "api")

    def requests(**labels: str) -> float:
        return api.value("babysea_request_duration_seconds_count", **labels)

    assert requests(region="us", operation="generate", status_class="2xx") == 1
    assert requests(region="us", operation="get_generation", status_class="2xx") >= 1
    assert requests(region="us", operation="get_generation", status_class="4xx") == 1
    assert requests(region="us", operation="status", status_class="4xx") == 1
    assert requests(region="none", operation="none", status_class="4xx") == 1, "the firewall refused it"
    assert api.value("babysea_request_errors_total", region="us", code="BSE3001") == 1
    assert api.value("babysea_request_errors_total", region="none", code="BSE1010") == 1
    for name in api.families:
        values = api.all_labels(name)
        assert not values & {made["generation_id"], str(customer.account_id), customer.key, "sandbox/image"}


async def test_what_is_answered_beside_the_api_is_counted_by_what_it_is(customer: Customer) -> None:
    deployment = customer.deployment
    made = await customer.made()
    path = made["generation_output_file"][0].partition("localhost")[2]
    assert (await deployment.client.get(path)).status_code == 200
    await deployment.client.get("/openapi.json")
    api = await scraped(deployment, "api")
    assert api.value("babysea_http_responses_total", surface="files", status_class="2xx") == 1
    # One of them was the fixture's.
    assert api.value("babysea_http_responses_total", surface="documents", status_class="2xx") == 2


async def test_admission_is_counted_by_batch_and_by_decision(customer: Customer) -> None:
    deployment = customer.deployment
    poor = await make_customer(deployment, credits="0")
    await customer.made(key="once")
    await customer.generate(key="once")
    assert (await poor.generate()).status_code == 402
    api = await scraped(deployment, "api")
    for result in ("accepted", "insufficient_credits", "replayed"):
        assert api.value("babysea_admissions_total", region="us", result=result) == 1, result
    assert api.value("babysea_admission_batch_size_sum", region="us") == 3
    assert api.value("babysea_admission_call_duration_seconds_count", region="us") == 3
    assert api.value("babysea_admission_waiting", region="us") == 0


async def test_pools_tell_what_is_used_idle_and_waited_for(deployment: Deployment) -> None:
    db = deployment.api.regions["us"].db
    await db.fetchval("SELECT 1")
    async with db.connection():
        api = await scraped(deployment, "api")
    pool = {"region": "us", "pool": "babysea-api"}
    assert api.value("babysea_database_connections", **pool, state="used") >= 1
    assert api.value("babysea_database_connections_max", **pool) == deployment.settings.database_connections
    assert api.value("babysea_database_connections_awaited", **pool) == 0


async def test_rows_that_the_request_log_lost_are_told(deployment: Deployment) -> None:
    deployment.api.regions["us"].requests.lost = 7
    api = await scraped(deployment, "api")
    assert api.value("babysea_request_log_lost_rows_total", region="us") == 7


# ------------------------------------------------------------------------------------------------ the worker


async def test_attempts_and_generations_are_counted_by_provider_outcome_and_class(customer: Customer) -> None:
    chain = {"generation_provider_order": "fal, replicate"}
    made = await customer.made("bfl/flux-schnell", **chain)
    assert made["generation_provider_used"] == "replicate"
    await customer.made(generation_prompt="[sandbox:fail]")

    async def counted() -> Scrape | None:
        worker = await scraped(customer.deployment, "worker")
        return worker if worker.value("babysea_generation_failures_total") else None

    worker = await eventually(counted)
    attempts = "babysea_attempt_duration_seconds_count"
    assert worker.value(attempts, region="us", provider="fal", outcome="failed") == 1
    assert worker.value(attempts, region="us", provider="replicate", outcome="succeeded") == 1
    failures = "babysea_attempt_failures_total"
    assert worker.value(failures, region="us", provider="fal", failure="refused_busy") == 1
    assert worker.value(failures, region="us", provider="sandbox", failure="failed") == 1
    settled = "babysea_generation_duration_seconds_count"
    assert worker.value(settled, region="us", media="image", status="succeeded") == 1
    assert worker.value(settled, region="us", media="image", status="failed") == 1
    assert worker.value("babysea_generation_failures_total", region="us", code="BSE4001") == 1
    assert worker.value("babysea_generation_wait_seconds_count", region="us") == 2
    assert worker.value("babysea_generations_running", region="us") == 0


async def test_webhooks_are_counted_by_what_came_of_them(customer: Customer) -> None:
    deployment = customer.deployment
    box = SecretBox(build_shared(deployment.settings).master_key)
    async with receiver() as one:
        for origin in (one.origin, f"http://127.0.0.1:{free_ports()}"):
            await endpoints.create(
                deployment.db, box, customer.account_id, url=f"{origin}/hook", allow_private=True
            )
        await customer.made()
        await one.has("/hook", 2)

        async def counted() -> Scrape | None:
            worker = await scraped(deployment, "worker")
            tries = worker.value("babysea_webhook_duration_seconds_count", region="us")
            return worker if tries >= 4 else None

        worker = await eventually(counted)
    assert worker.value("babysea_webhook_duration_seconds_count", outcome="delivered") == 2
    assert worker.value("babysea_webhook_duration_seconds_count", outcome="connect") >= 2


# ------------------------------------------------------------------------------------------------ the database


async def healthy() -> dict[str, str]:
    return {"fal": "degraded", "replicate": "healthy"}


def state_of(db: Database) -> tuple[State, Any]:
    registry = new_registry()
    metrics = WorkerMetrics.build(registry)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"region": "us", **labels})

    return State(db, "us", metrics, healthy, SystemClock()), value


async def queued(db: Database, *, age_s: int, overdue: bool = False, worker: UUID | None = None) -> None:
    account_id, _ = await make_account(db)
    await db.execute(
        """INSERT INTO generations (id, account_id, apikey_id, model, media, inputs, provider_order, prediction_id,
                                    reserved, due_at, expires_at, worker_id)
           SELECT gen_random_uuid(), $1, id, 'sandbox/image', 'image', '{}', '{sandbox}', gen_random_uuid(), 1,
                  now() - make_interval(secs => $2), now() + make_interval(hours => $3), $4
           FROM api_keys WHERE account_id = $1""",
        account_id,
        age_s,
        -1 if overdue else 1,
        worker,
    )


async def test_the_queue_is_told_by_state_with_the_age_of_its_oldest(db: Database) -> None:
    state, value = state_of(db)
    await state.read()
    assert value("babysea_queue_generations", state="due") == 0
    assert value("babysea_queue_age_seconds") == 0
    await queued(db, age_s=100)
    await queued(db, age_s=700)
    await queued(db, age_s=-500)
    await queued(db, age_s=50, worker=UUID(int=1))
    await queued(db, age_s=50, worker=UUID(int=1), overdue=True)
    await state.read()
    found = {name: value("babysea_queue_generations", state=name) for name in ("due", "leased", "overdue")}
    assert found == {"due": 2, "leased": 2, "overdue": 1}
    age_s = value("babysea_queue_age_seconds")
    assert age_s is not None
    assert age_s >= 700
    assert value("babysea_queue_webhooks", state="due") == 0
    assert value("babysea_state_read_timestamp_seconds")


async def test_one_status_of_each_provider_is_one(db: Database) -> None:
    state, value = state_of(db)
    await state.read()
    assert value("babysea_provider_status", provider="fal", status="degraded") == 1
    assert value("babysea_provider_status", provider="fal", status="healthy") == 0
    assert value("babysea_provider_status", provider="replicate", status="healthy") == 1


async def test_the_ledger_is_read_on_from_where_the_reading_ended(db: Database) -> None:
    account = await accounts.create(db, name="Customer", plan="unlimited")
    await ledger.add(db, account.id, 5, "before")
    read_to = await store.ledger_end(db)
    await ledger.add(db, account.id, 7, "after")
    await ledger.add(db, account.id, 11, "after")
    [row] = await store.ledger_after(db, read_to, certain_after_s=0)
    assert (row["kind"], row["rows"], row["amount"]) == ("add", 2, 18)
    assert await store.ledger_after(db, row["read_to"], certain_after_s=0) == []
    [first] = await store.ledger_after(db, read_to, certain_after_s=0, limit=1)
    assert (first["rows"], first["amount"]) == (1, 7)


async def test_ids_of_the_ledger_that_are_committed_late_are_not_missed(db: Database) -> None:
    account = await accounts.create(db, name="Customer", plan="unlimited")
    read_to = await store.ledger_end(db)
    add = "SELECT FROM add_credits_v1($1, $2, 'late')"
    other = await accounts.create(db, name="Other", plan="unlimited")
    async with db.transaction() as late:
        await late.execute(add, other.id, 3)
        await ledger.add(db, account.id, 4, "committed first, under the greater id")
        assert await store.ledger_after(db, read_to) == [], "nothing is certain yet"
    [row] = await store.ledger_after(db, read_to, certain_after_s=0)
    assert (row["rows"], row["amount"]) == (2, 7)


# ------------------------------------------------------------------------------------------------ the process


async def test_the_lag_of_the_loop_is_what_a_timer_is_late() -> None:
    clock = ManualClock()
    lags: list[float] = []

    class Late(ManualClock):
        async def sleep(self, seconds: float) -> None:
            if len(lags) == 2:
                await clock.sleep(1)  # for ever
            self.advance(seconds + (0.25 if lags else 0))

    task = asyncio.create_task(watch_lag(lags.append, Late(), every_s=0.5))

    async def measured() -> bool:
        return len(lags) == 2

    await eventually(measured)
    task.cancel()
    assert lags == [0, 0.25]


async def test_every_process_tells_what_it_is_and_how_it_does(deployment: Deployment) -> None:
    for process in ("api", "worker"):
        found = await scraped(deployment, process)
        assert found.value("babysea_build_info", process=process) == 1
        assert found.value("process_resident_memory_bytes") > 0
        assert "babysea_loop_lag_seconds" in found.families
        assert not any(name.endswith("_created") for name in found.families)


async def test_nothing_is_counted_where_nobody_can_ask(make_deployment: MakeDeployment) -> None:
    quiet = await make_deployment()
    customer = await make_customer(quiet)
    await customer.made()
    registry = quiet.api.telemetry.registry
    name = "babysea_request_duration_seconds_count"
    assert (
        registry.get_sample_value(name, {"region": "us", "operation": "generate", "status_class": "2xx"})
        is None
    )
    assert quiet.api.telemetry.port is None


def test_requests_fall_into_the_first_bucket_that_holds_them_and_statuses_into_their_class() -> None:
    registry = new_registry()
    metrics = ApiMetrics.build(registry)
    for status, seconds in ((200, 0.001), (200, 0.0011), (204, 29.0), (200, 31.0), (404, 0.001)):
        metrics.requests("us", "status", status, None, seconds)
    name = "babysea_request_duration_seconds"
    labels = {"region": "us", "operation": "status", "status_class": "2xx"}
    buckets = {
        bound: registry.get_sample_value(f"{name}_bucket", {**labels, "le": bound})
        for bound in ("0.001", "0.0025", "10.0", "30.0", "+Inf")
    }
    assert buckets == {"0.001": 1, "0.0025": 2, "10.0": 2, "30.0": 3, "+Inf": 4}
    assert registry.get_sample_value(f"{name}_count", labels) == 4
    assert registry.get_sample_value(f"{name}_sum", labels) == pytest.approx(60.0021)
    assert registry.get_sample_value(f"{name}_count", {**labels, "status_class": "4xx"}) == 1

"""Every error code is really produced: by a request to a deployment, or as the end of a generation in it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from tests.conftest import MakeDeployment
from tests.databases import Databases
from tests.execution.scripted import Script, Scripted
from tests.generations.conftest import backends_waiting, hold, wire
from tests.generations.wire import Wire
from tests.support import FINAL, Customer, ManualClock, eventually, make_customer

from babysea_server.catalog.catalog import Catalog
from babysea_server.db.pool import Database
from babysea_server.errors import ERRORS
from babysea_server.keys.scopes import PRESETS
from babysea_server.providers.base import AnswerLostError, Failure, Refused
from babysea_server.providers.registry import Registry, Route, everywhere
from babysea_server.settings import Settings

__all__ = ["hold", "wire"]  # fixtures

MISSING = "00000000-0000-4000-8000-000000000000"
CANCEL = "/v1/content/generation/cancel/{}"
#: How far a clock is turned at a time.
_TURN_S = 5.0


@pytest.fixture(scope="module")
async def dsn(databases: Databases) -> AsyncIterator[str]:
    """One database for all scenarios: each has an account and a deployment of its own."""
    async with databases.fresh() as dsn:
        yield dsn


@dataclass(frozen=True)
class Stage:
    """What a scenario is played with."""

    make: MakeDeployment
    hold: Callable[[UUID], AbstractAsyncContextManager[None]]
    wire: Wire
    folder: Path

    async def customer(self, *, worker: bool = False, **options: Any) -> Customer:
        """A customer of a deployment; options of the customer, and `settings` of the deployment."""
        return await make_customer(await self.make(worker=worker, **options.pop("settings", {})), **options)


#: The answer that carried the code, or the generation that ended with it and its owner.
Seen = httpx.Response | tuple[Customer, dict[str, Any]]
Scenario = Callable[[Stage], Awaitable[Seen]]
SCENARIOS: dict[str, Scenario] = {}


def produces(code: str) -> Callable[[Scenario], Scenario]:
    """Enter a scenario into the register."""

    def enter(scenario: Scenario) -> Scenario:
        assert code not in SCENARIOS
        SCENARIOS[code] = scenario
        return scenario

    return enter


async def until(code: str, ask: Callable[[], Awaitable[httpx.Response]], most: int) -> httpx.Response:
    """Ask again and again until an answer has the code."""
    for _ in range(most):
        response = await ask()
        if response.status_code != 200 and response.json()["error"]["code"] == code:
            break
    return response


# ----------------------------------------------------------------------------------- keys, credits and limits


@produces("BSE1001")
async def no_key(stage: Stage) -> Seen:
    return await (await stage.make(worker=False)).client.get("/v1/status")


@produces("BSE1002")
async def unknown_key(stage: Stage) -> Seen:
    customer = await stage.customer()
    customer.key = "bye_" + "x" * 40
    return await customer.request("GET", "/v1/status")


@produces("BSE1003")
async def key_without_the_scope(stage: Stage) -> Seen:
    return await (await stage.customer(scopes=PRESETS["read_only"])).generate()


@produces("BSE1004")
async def empty_balance(stage: Stage) -> Seen:
    return await (await stage.customer(credits="0")).generate()


@produces("BSE1005")
async def too_many_requests(stage: Stage) -> Seen:
    customer = await stage.customer(plan="free")
    return await until("BSE1005", lambda: customer.request("GET", "/v1/status"), most=122)


@produces("BSE1006")
async def too_many_unknown_keys(stage: Stage) -> Seen:
    customer = await stage.customer(settings={"auth_failures_per_minute": 3})
    customer.key = "bye_" + "x" * 40
    return await until("BSE1006", lambda: customer.request("GET", "/v1/status"), most=10)


@produces("BSE1007")
async def foreign_address(stage: Stage) -> Seen:
    return await (await stage.customer(allowlist=["203.0.113.0/24"])).request("GET", "/v1/status")


@produces("BSE1008")
async def account_that_is_gone(stage: Stage) -> Seen:
    customer = await stage.customer(credits="0")
    await customer.deployment.db.execute("DELETE FROM accounts WHERE id = $1", customer.account_id)
    return await customer.request("GET", "/v1/status")


@produces("BSE1009")
async def too_many_in_flight(stage: Stage) -> Seen:
    customer = await stage.customer(plan="free", credits="1")
    return await until("BSE1009", customer.generate, most=3)


@produces("BSE1010")
async def unpublished_path(stage: Stage) -> Seen:
    return await (await stage.customer()).request("GET", "/v1/nothing")


# ------------------------------------------------------------------------------------------------ the request


@produces("BSE2001")
async def empty_prompt(stage: Stage) -> Seen:
    return await (await stage.customer()).generate(generation_prompt="")


@produces("BSE2010")
async def large_body(stage: Stage) -> Seen:
    return await (await stage.customer()).generate(generation_prompt="x" * 102_400)


@produces("BSE2011")
async def unknown_model(stage: Stage) -> Seen:
    return await (await stage.customer()).generate("no/model")


@produces("BSE2012")
async def image_model_as_video(stage: Stage) -> Seen:
    return await (await stage.customer()).generate("sandbox/image", "video")


@produces("BSE2013")
async def foreign_provider(stage: Stage) -> Seen:
    return await (await stage.customer()).generate(generation_provider_order="fal")


@produces("BSE2014")
async def malformed_idempotency_key(stage: Stage) -> Seen:
    return await (await stage.customer()).generate(key="with space")


@produces("BSE2015")
async def idempotency_key_of_another_request(stage: Stage) -> Seen:
    customer = await stage.customer()
    await customer.generate(key="one")
    return await customer.generate(key="one", generation_prompt="another")


@produces("BSE2016")
async def answer_lost_with_a_key(stage: Stage) -> Seen:
    return await _lost_for_good(stage, key="one")


@produces("BSE5001")
async def answer_lost_without_a_key(stage: Stage) -> Seen:
    return await _lost_for_good(stage, key=None)


async def _lost_for_good(stage: Stage, key: str | None) -> Seen:
    """The database accepts, its answer is lost, and it cannot be asked again in time."""
    clock = _clock()
    deployment = await stage.make(worker=False, way=stage.wire.dsn, clock=clock, admission_deadline_s=20)
    customer = await make_customer(deployment)
    await customer.request("GET", "/v1/status")  # from now on the key is known without the database

    async def answered() -> bool:
        return task.done()

    async with stage.hold(customer.account_id):
        task = asyncio.create_task(customer.generate(key=key))
        await _waiting(stage)
        stage.wire.refusing = True
        stage.wire.cut()
        await eventually(_turning(clock, answered))
    stage.wire.refusing = False
    return await task


async def _waiting(stage: Stage) -> None:
    database = Database(stage.wire.dsn, name="test", size=1)
    await database.open()
    await backends_waiting(database, "babysea-admission")
    await database.close()


# ------------------------------------------------------------------------------------------------ generations


@produces("BSE3001")
async def missing_generation(stage: Stage) -> Seen:
    return await (await stage.customer()).request("GET", f"/v1/content/{MISSING}")


@produces("BSE3002")
async def cancel_of_a_canceled_one(stage: Stage) -> Seen:
    customer = await stage.customer()
    path = CANCEL.format((await customer.generate()).json()["data"]["generation_id"])
    assert (await customer.request("POST", path)).status_code == 200
    return await customer.request("POST", path)


@produces("BSE3003")
async def delete_in_flight(stage: Stage) -> Seen:
    customer = await stage.customer()
    generation_id = (await customer.generate()).json()["data"]["generation_id"]
    return await customer.request("DELETE", f"/v1/content/{generation_id}")


# ----------------------------------------------------------------- failed generations, as the sandbox fails them


def _sandbox(code: str, words: str, *, model: str = "sandbox/image", **settings: Any) -> None:
    async def scenario(stage: Stage) -> Seen:
        customer = await stage.customer(worker=True, settings=settings)
        return customer, await customer.made(model, generation_prompt=f"a test [sandbox:{words}]")

    produces(code)(scenario)


_sandbox("BSE2006", "refuse_policy")
_sandbox("BSE4001", "fail")
_sandbox("BSE4002", "time_out", image_attempt_timeout_s=0.3)
_sandbox("BSE4004", "refuse_busy")
_sandbox("BSE4005", "refuse_input")
_sandbox("BSE4006", "fail,replicate=refuse_auth", model="bfl/flux-schnell")
_sandbox("BSE4007", "refuse_funds")
_sandbox("BSE4008", "refuse_auth")
_sandbox("BSE4010", "bad_output")


# --------- failed generations, as only adapters of real providers fail them: here one that is scripted; with the
# --------- providers' emulators tests/providers/test_live.py and test_input_files.py have them all


def _adapter(code: str, value: Any) -> None:
    def registries(_settings: Settings, catalog: Catalog, _db: Database) -> Registry:
        provider = Scripted(sandbox=Script(submits=[value]))
        return everywhere(catalog.providers, Route(provider, provider))

    async def scenario(stage: Stage) -> Seen:
        customer = await stage.customer(worker=True, settings={"registries": registries})
        return customer, await customer.made()

    produces(code)(scenario)


for _code in ("BSE2002", "BSE2003", "BSE2004", "BSE2005", "BSE2007", "BSE2008", "BSE2009"):
    _adapter(_code, Refused(Failure.REFUSED_INPUT, "The provider says why.", _code))
_adapter("BSE4003", Refused(Failure.REFUSED_BUSY, "Too many requests.", "BSE4003"))
_adapter("BSE4009", AnswerLostError("gone"))


# ------------------------------------------------------------------------------------------------- the server


@produces("BSE4011")
async def no_provider(stage: Stage) -> Seen:
    def nobody(*_: object) -> Registry:
        return Registry({})

    return await (await stage.customer(settings={"registries": nobody})).generate()


@produces("BSE5002")
async def draining_server(stage: Stage) -> Seen:
    customer = await stage.customer()
    customer.deployment.api.gateway.draining = True
    return await customer.generate()


@produces("BSE5003")
async def storage_that_stays_away(stage: Stage) -> Seen:
    clock = _clock()
    customer = await stage.customer(worker=True, settings={"clock": clock, "worker_lease_s": 3600})
    (stage.folder / "files").rename(stage.folder / "away")
    (stage.folder / "files").write_text("not a folder")
    return customer, await _ended(customer, clock)


@produces("BSE5004")
async def generation_that_nobody_ends(stage: Stage) -> Seen:
    clock = _clock()
    customer = await stage.customer(worker=True, settings={"clock": clock, "sandbox_latency_s": 3600})
    generation_id = (await customer.generate()).json()["data"]["generation_id"]
    await customer.deployment.db.execute(
        "UPDATE generations SET expires_at = now() WHERE id = $1", UUID(generation_id)
    )
    return customer, await _ended(customer, clock, generation_id)


def _clock() -> ManualClock:
    """Turned by hand from now on: the database has its say on time too."""
    return ManualClock(datetime.now(UTC))


async def _ended(customer: Customer, clock: ManualClock, generation_id: str | None = None) -> dict[str, Any]:
    """The generation once it is final, with a clock that is turned all the while."""
    started = generation_id or (await customer.generate()).json()["data"]["generation_id"]

    async def final() -> dict[str, Any] | None:
        data = await customer.generation(started)
        return data if data["generation_status"] in FINAL else None

    return await eventually(_turning(clock, final))


def _turning(clock: ManualClock, ask: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    async def turned() -> Any:
        clock.advance(_TURN_S)
        return await ask()

    return turned


# ------------------------------------------------------------------------------------------------------ tests


def test_every_code_of_the_table_has_a_scenario() -> None:
    assert sorted(SCENARIOS) == sorted(ERRORS)


@pytest.mark.parametrize("code", sorted(ERRORS))
async def test_the_code_is_met_as_the_table_says(
    make_deployment: MakeDeployment,
    hold: Callable[[UUID], AbstractAsyncContextManager[None]],
    wire: Wire,
    tmp_path: Path,
    code: str,
) -> None:
    seen = await SCENARIOS[code](Stage(make_deployment, hold, wire, tmp_path))
    spec = ERRORS[code]
    if isinstance(seen, httpx.Response):
        error = seen.json()["error"]
        met = (error["code"], error["type"], seen.status_code, error["retryable"])
        assert met == (code, spec.type, spec.status, spec.retryable)
        return
    customer, generation = seen
    assert (generation["generation_status"], generation["generation_error_code"]) == ("failed", code)
    assert generation["generation_error"].endswith("You were not charged.")
    assert await customer.balance() == 100_000_000
    assert await customer.deployment.differences() == []

"""Delete over HTTP: the record and its files go, the ledger stays, and whoever comes second is told so."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from tests.conftest import MakeDeployment
from tests.generations import admitting
from tests.generations.conftest import MakeDatabase
from tests.generations.wire import Wire
from tests.support import Customer, Deployment, eventually, make_customer

from babysea_server.generations.delete import Deleting
from babysea_server.generations.files import FileDeletions
from babysea_server.generations.reading import Reader
from babysea_server.kit.clock import SystemClock
from babysea_server.outputs.store import ObjectStore, StorageError


async def delete(customer: Customer, generation_id: str) -> httpx.Response:
    return await customer.request("DELETE", f"/v1/content/{generation_id}")


async def accepted(customer: Customer) -> str:
    return str((await customer.generate()).json()["data"]["generation_id"])


async def ended(customer: Customer, status: str) -> str:
    """A generation that ended like this, without a worker."""
    generation = await accepted(customer)
    await admitting.settle(customer.deployment.db, customer.account_id, UUID(generation), status)
    return generation


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


def files(deployment: Deployment) -> list[Path]:
    folder = deployment.settings.data_path / "files"
    return [path for path in folder.rglob("*") if path.is_file()]


async def count(deployment: Deployment, table: str) -> int:
    return int(await deployment.db.fetchval(f"SELECT count(*) FROM {table}"))


async def test_a_generation_its_files_and_its_links_are_gone(
    deployment: Deployment, customer: Customer
) -> None:
    kept = await customer.made()
    made = await customer.made(generation_output_number=3)
    generation, links = made["generation_id"], made["generation_output_file"]
    assert len(files(deployment)) == 4
    response = await delete(customer, generation)
    assert response.json()["message"] == "Generation deleted successfully"
    assert response.json()["data"] == {"generation_id": generation, "files_deleted": 3}
    for link in links:
        assert (await deployment.client.get(link)).status_code == 404
    [link] = kept["generation_output_file"]
    assert (await deployment.client.get(link)).status_code == 200
    assert code(await customer.request("GET", f"/v1/content/{generation}")) == "BSE3001"
    listed = (await customer.request("GET", "/v1/content/list")).json()
    assert listed["total"] == 1
    assert [item["generation_id"] for item in listed["data"]["generations"]] == [kept["generation_id"]]
    assert code(await delete(customer, generation)) == "BSE3001"
    assert code(await customer.request("POST", f"/v1/content/generation/cancel/{generation}")) == "BSE3001"
    assert await count(deployment, "file_deletions") == 0
    assert (await count(deployment, "attempts"), len(files(deployment))) == (2, 1)
    assert (
        await deployment.db.fetchval("SELECT count(*) FROM ledger WHERE generation_id = $1", UUID(generation))
        == 2
    )
    assert await deployment.differences() == []


@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled"])
async def test_whatever_is_final_can_be_deleted(caller: Customer, status: str) -> None:
    generation = await ended(caller, status)
    assert (await delete(caller, generation)).json()["data"]["files_deleted"] == 0
    assert await count(caller.deployment, "generations") == 0
    assert await caller.deployment.differences() == []


@pytest.mark.parametrize("status", ["pending", "processing"])
async def test_what_is_in_flight_is_to_be_canceled_first(caller: Customer, status: str) -> None:
    generation = await accepted(caller)
    await caller.deployment.db.execute("UPDATE generations SET status = $1", status)
    response = await delete(caller, generation)
    assert (response.status_code, code(response)) == (409, "BSE3003")
    assert response.json()["error"]["details"] == {"generation_status": status}
    assert (await caller.generation(generation))["generation_status"] == status


async def test_a_foreign_generation_looks_exactly_like_a_missing_one(caller: Customer) -> None:
    stranger = await make_customer(caller.deployment)
    generation, missing = await ended(caller, "failed"), str(uuid4())
    answers = []
    for id in (generation, missing):
        response = await delete(stranger, id)
        error = response.json()["error"]
        answers.append((response.status_code, {**error, "message": error["message"].replace(id, "ID")}))
    assert answers[0] == answers[1]
    assert answers[0][1]["code"] == "BSE3001"
    await caller.generation(generation)


async def test_of_parallel_deletes_one_finds_it(caller: Customer) -> None:
    for _ in range(10):
        generation = await ended(caller, "succeeded")
        responses = await asyncio.gather(*(delete(caller, generation) for _ in range(8)))
        assert sorted(response.status_code for response in responses) == [200] + [404] * 7
    assert await caller.deployment.differences() == []


async def test_a_delete_that_meets_the_end_is_early_or_complete(caller: Customer) -> None:
    db = caller.deployment.db
    outcomes = set()
    for n in range(40):
        generation = await accepted(caller)
        ending = admitting.settle(db, caller.account_id, UUID(generation), "succeeded" if n % 2 else "failed")
        works = [ending, delete(caller, generation)]
        if n % 3:
            works.reverse()
        results: list[Any] = await asyncio.gather(*works)
        response = next(result for result in results if isinstance(result, httpx.Response))
        assert True in results  # the end itself always takes place
        exists = await db.fetchval("SELECT count(*) FROM generations WHERE id = $1", UUID(generation))
        assert (response.status_code, exists) in ((200, 0), (409, 1))
        outcomes.add(response.status_code)
    assert 409 in outcomes
    assert await caller.deployment.differences() == []


async def test_a_replay_gives_the_first_answer_also_when_the_generation_is_gone(caller: Customer) -> None:
    first = (await caller.generate(key="order-1")).json()["data"]
    generation = UUID(first["generation_id"])
    await admitting.settle(caller.deployment.db, caller.account_id, generation, "succeeded")
    balance = await caller.balance()
    assert (await delete(caller, str(generation))).status_code == 200
    replay = await caller.generate(key="order-1")
    assert replay.headers["idempotency-replayed"] == "true"
    assert replay.json()["data"] == first
    assert code(await caller.generate(key="order-1", generation_prompt="another")) == "BSE2015"
    assert await count(caller.deployment, "generations") == 0
    assert await caller.balance() == balance
    assert await caller.deployment.differences() == []


class Away(ObjectStore):
    """A store that does not answer."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store._backend, name="away")

    async def delete(self, keys: Any) -> None:
        raise StorageError("no answer in time")


async def test_a_store_that_is_away_loses_nothing_and_gets_its_deletions_later(
    deployment: Deployment, customer: Customer
) -> None:
    made = await customer.made(generation_output_number=2)
    store = deployment.api.regions["us"].store
    service = Deleting(deployment.db, Reader(deployment.db), Away(store), SystemClock())
    assert await service.delete(customer.account_id, UUID(made["generation_id"])) == 0
    assert code(await customer.request("GET", f"/v1/content/{made['generation_id']}")) == "BSE3001"
    assert (len(files(deployment)), await count(deployment, "file_deletions")) == (2, 2)
    deletions = FileDeletions(deployment.db, store)
    await deletions.delete_due()
    assert len(files(deployment)) == 2  # whoever deleted the record has half a minute for it
    await deployment.db.execute("UPDATE file_deletions SET due_at = now()")
    await deletions.delete_due()
    assert (len(files(deployment)), await count(deployment, "file_deletions")) == (0, 0)


async def test_an_answer_that_was_lost_is_asked_for_again(
    make_deployment: MakeDeployment, wire: Wire, make_database: MakeDatabase
) -> None:
    deployment = await make_deployment()
    customer = await make_customer(deployment)
    made = await customer.made(generation_output_number=2)
    changing = await make_database(wire.dsn)
    service = Deleting(changing, Reader(deployment.db), deployment.api.regions["us"].store, SystemClock())
    async with deployment.db.transaction() as holding:
        await holding.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", customer.account_id)
        task = asyncio.create_task(service.delete(customer.account_id, UUID(made["generation_id"])))

        async def waiting() -> bool:
            return bool(
                await deployment.db.fetchval(
                    """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                       AND wait_event_type = 'Lock' AND query LIKE '%remove_generations_v1%'"""
                )
            )

        await eventually(waiting)
        wire.cut()
    assert await asyncio.wait_for(task, 30) == 2
    assert (len(files(deployment)), await count(deployment, "generations")) == (0, 0)
    assert await deployment.differences() == []

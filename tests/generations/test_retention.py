"""Retention: files and records go when the account's present plan says so, and nothing else does."""

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from tests.conftest import MakeDeployment
from tests.generations import admitting
from tests.support import Customer, Deployment, eventually, make_customer

from babysea_server.accounts.plans import load_plans
from babysea_server.db.pool import Database
from babysea_server.generations import retention
from babysea_server.generations.retention import PlanRetention
from babysea_server.kit.calls import Plan
from babysea_server.kit.ids import uuid7
from babysea_server.ledger.verify import verify

#: Files an hour, records a day.
PLANS = {"free": load_plans()["free"], "unlimited": load_plans()["unlimited"]}


async def ended(db: Database, account_id: UUID, status: str, **ago: float) -> UUID:
    """A generation of one file and one attempt that ended so long ago."""
    ask = admitting.ask(account_id)
    await admitting.admit(db, [ask])
    await admitting.settle(db, account_id, ask.generation_id, status)
    await db.execute(
        "UPDATE generations SET completed_at = now() - $2::interval WHERE id = $1",
        ask.generation_id,
        timedelta(**ago),
    )
    if status == "succeeded":
        await db.execute(
            """UPDATE generations SET outputs = jsonb_build_array(jsonb_build_object('key', 'outputs/' || id))
               WHERE id = $1""",
            ask.generation_id,
        )
    await db.execute(
        """INSERT INTO attempts (id, generation_id, account_id, model, attempt_order, provider, adapter, outcome,
                                 failure, resolved_at)
           VALUES ($1, $2, $3, 'm', 1, 'p', 'p', 'failed', 'failed', now())""",
        uuid7(),
        ask.generation_id,
        account_id,
    )
    return ask.generation_id


async def left(db: Database) -> dict[UUID, bool]:
    """The generations that are left, and whether their files are removed."""
    rows = await db.fetch("SELECT id, files_removed_at IS NOT NULL AS removed FROM generations")
    return {row["id"]: row["removed"] for row in rows}


async def queued(db: Database) -> set[str]:
    return {row["key"] for row in await db.fetch("SELECT key FROM file_deletions")}


async def test_files_go_before_records_and_each_only_in_its_time(db: Database) -> None:
    account = await admitting.account(db, 1000, plan="free")
    fresh = await ended(db, account, "succeeded", minutes=59)
    bare = await ended(db, account, "succeeded", minutes=61)
    failed = await ended(db, account, "failed", hours=23.9)
    canceled = await ended(db, account, "canceled", hours=23.9)
    gone = [await ended(db, account, status, hours=24.1) for status in ("succeeded", "failed", "canceled")]
    [waiting] = await admitting.admit(db, [admitting.ask(account)])
    in_flight = waiting["generation_id"]
    await PlanRetention(db, PLANS).walk()
    assert await left(db) == {fresh: False, bare: True, failed: False, canceled: False, in_flight: False}
    assert await queued(db) == {f"outputs/{id}" for id in (bare, gone[0])}
    attempts = {row["generation_id"] for row in await db.fetch("SELECT generation_id FROM attempts")}
    assert attempts == {fresh, bare, failed, canceled}
    assert await db.fetchval("SELECT generations_total FROM accounts") == 5
    assert await db.fetchval("SELECT count(*) FROM ledger WHERE generation_id = ANY ($1)", gone) == 6
    assert await verify(db) == []
    await PlanRetention(db, PLANS).walk()
    assert len(await left(db)) == 5


async def test_a_plan_without_limits_and_a_plan_that_is_not_in_the_file_keep_everything(db: Database) -> None:
    for plan in ("unlimited", "bespoke"):
        await ended(db, await admitting.account(db, 10, plan=plan), "succeeded", days=5000)
    await PlanRetention(db, PLANS).walk()
    assert list((await left(db)).values()) == [False, False]
    assert await queued(db) == set()


async def test_a_change_of_plan_holds_for_what_is_there(db: Database) -> None:
    account = await admitting.account(db, 10, plan="unlimited")
    await ended(db, account, "succeeded", hours=2)
    await PlanRetention(db, PLANS).walk()
    assert list((await left(db)).values()) == [False]
    await db.execute("UPDATE accounts SET plan = 'free'")
    await PlanRetention(db, PLANS).walk()
    assert list((await left(db)).values()) == [True]


@pytest.mark.parametrize("hours", [None, 1000])
async def test_records_may_go_before_their_files_and_take_them_along(db: Database, hours: int | None) -> None:
    plan = Plan("short", None, None, keep_files_hours=hours, keep_records_days=1)
    account = await admitting.account(db, 10, plan="short")
    generation = await ended(db, account, "succeeded", hours=25)
    await PlanRetention(db, {"short": plan}).walk()
    assert await left(db) == {}
    assert await queued(db) == {f"outputs/{generation}"}
    assert await verify(db) == []


async def test_every_account_is_reached_and_a_large_one_whole(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_ACCOUNTS_IN_STEP", 2), ("_FILES_IN_STEP", 3), ("_RECORDS_IN_STEP", 3)):
        monkeypatch.setattr(retention, name, value)
    accounts = [await admitting.account(db, 100, plan="free") for _ in range(7)]
    for n, account in enumerate(accounts):
        for _ in range(8 if n in (2, 6) else n % 2):
            await ended(db, account, "succeeded", hours=2)
            await ended(db, account, "failed", hours=30)
    total = len(await left(db))
    await PlanRetention(db, PLANS).walk()
    assert list((await left(db)).values()) == [True] * (total // 2)
    assert len(await queued(db)) == total // 2
    assert await verify(db) == []


async def test_a_walk_that_was_cut_short_goes_on_where_it_was(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_ACCOUNTS_IN_STEP", 1)
    monkeypatch.setattr(retention, "_STEPS_MAX", 2)
    for _ in range(5):
        await ended(db, await admitting.account(db, 10, plan="free"), "succeeded", hours=2)
    walking = PlanRetention(db, PLANS)
    counts = []
    for _ in range(4):
        await walking.walk()
        counts.append(sum((await left(db)).values()))
    assert counts == [2, 4, 5, 5]
    # Then it begins again.
    await ended(db, (await db.fetchval("SELECT id FROM accounts ORDER BY id LIMIT 1")), "succeeded", hours=2)
    for _ in range(3):
        await walking.walk()
    assert sum((await left(db)).values()) == 6


async def test_several_workers_and_customers_at_once_remove_each_thing_once(db: Database) -> None:
    accounts = [await admitting.account(db, 1000, plan="free") for _ in range(5)]
    for account in accounts:
        for _ in range(12):
            await ended(db, account, "succeeded", hours=2)
            await ended(db, account, "canceled", hours=30)
    admitted = 0

    async def admit() -> None:
        nonlocal admitted
        for n in range(40):
            [row] = await admitting.admit(db, [admitting.ask(accounts[n % 5])])
            assert row["result"] == "accepted"
            admitted += 1

    await asyncio.gather(*(PlanRetention(db, PLANS).walk() for _ in range(4)), admit())
    await PlanRetention(db, PLANS).walk()  # what was held by somebody else
    assert sorted((await left(db)).values()) == [False] * 40 + [True] * 60
    assert await verify(db) == []


async def test_what_somebody_holds_is_passed_by(db: Database) -> None:
    account, other = [await admitting.account(db, 100, plan="free") for _ in range(2)]
    held, free = (
        await ended(db, account, "succeeded", hours=2),
        await ended(db, account, "succeeded", hours=2),
    )
    record = await ended(db, account, "failed", hours=30)
    await ended(db, other, "failed", hours=30)
    async with db.transaction() as holding:
        await holding.execute("SELECT FROM generations WHERE id = $1 FOR UPDATE", held)
        await holding.execute("SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE", account)
        await asyncio.wait_for(PlanRetention(db, PLANS).walk(), 10)
        assert await left(db) == {held: False, free: True, record: False}
    await PlanRetention(db, PLANS).walk()
    assert await left(db) == {held: True, free: True}
    assert await verify(db) == []


def stored(deployment: Deployment) -> list[Path]:
    folder = deployment.settings.data_path / "files"
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_removed_files_are_told_in_reads_and_lists_and_are_really_gone(
    make_deployment: MakeDeployment,
) -> None:
    deployment = await make_deployment()
    customer = await make_customer(deployment, plan="free")
    made, kept = await customer.made(), await customer.made()
    generation = made["generation_id"]
    assert "generation_removed" not in made
    await deployment.db.execute(
        "UPDATE generations SET completed_at = completed_at - interval '61 min' WHERE id = $1",
        UUID(generation),
    )
    assert deployment.workers is not None
    worker = deployment.workers.regions["us"]
    await worker.plan_retention.walk()
    data = await customer.generation(generation)
    assert (data["generation_output_file"], data["generation_removed"]) == (None, True)
    assert data["generation_status"] == "succeeded"
    listed = (await customer.request("GET", "/v1/content/list")).json()["data"]["generations"]
    assert [item.get("generation_removed") for item in listed] == [None, True]
    assert [item["generation_output_file"] is None for item in listed] == [False, True]
    await worker.file_deletions.delete_due()
    [link] = made["generation_output_file"]
    assert (await deployment.client.get(link)).status_code == 404
    assert (await deployment.client.get(kept["generation_output_file"][0])).status_code == 200
    # Deleted afterwards, there is no file left to count.
    response = await customer.request("DELETE", f"/v1/content/{generation}")
    assert response.json()["data"]["files_deleted"] == 0
    assert await deployment.differences() == []


async def test_a_worker_does_it_by_itself(make_deployment: MakeDeployment, tmp_path: Path) -> None:
    first = await make_deployment(worker=False)
    customer: Customer = await make_customer(first, plan="free")
    old = await ended(first.db, customer.account_id, "succeeded", hours=2)
    older = await ended(first.db, customer.account_id, "failed", hours=30)
    key = f"outputs/2026/01/01/{old}/a-0.png"
    await first.db.execute(
        "UPDATE generations SET outputs = jsonb_build_array(jsonb_build_object('key', $1::text)) WHERE id = $2",
        key,
        old,
    )
    await first.api.regions["us"].store.put(key, b"x", "image/png")
    await make_deployment()

    async def done() -> bool:
        return await left(first.db) == {old: True}

    await eventually(done)
    assert older not in await left(first.db)


def test_the_built_in_plans_are_the_contracts() -> None:
    limits = {name: (plan.keep_files_hours, plan.keep_records_days) for name, plan in load_plans().items()}
    assert limits == {
        "free": (1, 1),
        "starter": (12, 7),
        "pro": (24, 30),
        "scale": (120, 180),
        "enterprise": (168, 365),
        "unlimited": (None, None),
    }

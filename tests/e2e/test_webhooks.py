"""Webhooks of a running installation arrive, whatever is killed while they are under way."""

import asyncio
import random
from collections import defaultdict

from tests.e2e.load import Outcome, insist
from tests.e2e.system import PATIENCE_S, System
from tests.effort import effort
from tests.support import eventually
from tests.webhooks.receiver import receiver

from babysea.webhooks import verify

_FINAL = {"succeeded": "generation.completed", "failed": "generation.failed"}
_RECORDED = "SELECT count(*) FROM webhook_deliveries WHERE state = 'delivered'"


async def test_a_worker_killed_again_and_again_tells_every_transition_and_repeats_only_by_id(
    system: System,
) -> None:
    chance = random.Random(20260501)
    count, kills = effort(100), 3
    system.environment["BABYSEA_WEBHOOKS_ALLOW_PRIVATE"] = "true"
    await system.up(BABYSEA_WORKER_CONCURRENCY="20")
    account = await system.value("SELECT id FROM accounts")
    async with receiver() as one:
        made = await system.cli(
            "webhooks", "create", "--account", str(account), "--region", "us", "--url", f"{one.origin}/hook"
        )
        outcome = Outcome()
        async with asyncio.TaskGroup() as group:
            group.create_task(insist(system.newcomer(), map(str, range(count)), outcome, clients=8))
            for moment in sorted(chance.sample(range(1, 2 * count - 40), kills)):
                await system.reaches(_RECORDED, moment)
                await system.kill_child("worker")
        await system.all_settled()

        async def delivered() -> bool:
            return not await system.value(
                "SELECT count(*) FROM webhook_deliveries WHERE state <> 'delivered'"
            )

        await eventually(delivered, within_s=PATIENCE_S)
        bodies: defaultdict[tuple[str, str], set[tuple[str, bytes]]] = defaultdict(set)
        for got in one.received:
            event = verify(got.body, got.headers, made["webhook_secret"])
            bodies[got.data["generation_id"], event.event].add((event.delivery_id, got.body))
    assert len(outcome.accepted) == count
    assert bodies.keys() == await _transitions(system, outcome)
    assert all(len(each) == 1 for each in bodies.values())
    await system.books_are_clean()


async def _transitions(system: System, outcome: Outcome) -> set[tuple[str, str]]:
    """What happened, as the database knows it; on a machine that stood still for seconds a submit may have failed."""
    rows = await system.query(
        "SELECT id::text, status::text, started_at FROM generations WHERE id = ANY ($1::uuid[])",
        list(outcome.accepted.values()),
    )
    assert sum(row["status"] == "succeeded" for row in rows) > len(rows) / 2
    started = {(row["id"], "generation.started") for row in rows if row["started_at"] is not None}
    return started | {(row["id"], _FINAL[row["status"]]) for row in rows}

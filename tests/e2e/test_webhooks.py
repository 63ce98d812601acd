"""Webhooks of a running installation arrive, whatever is killed while they are under way."""

import asyncio
import random
from collections import defaultdict

from tests.e2e.load import Outcome, insist
from tests.e2e.system import PATIENCE_S, System
from tests.support import eventually
from tests.webhooks.receiver import receiver

from babysea.webhooks import verify

_RECORDED = "SELECT count(*) FROM webhook_deliveries WHERE state = 'delivered'"


async def test_a_worker_killed_again_and_again_tells_every_transition_and_repeats_only_by_id(
    system: System,
) -> None:
    chance = random.Random(20260501)
    count, kills = 200, 5
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
    # The sandbox takes every job before it has the picture, so each is started and completed.
    expected = {
        (id, event)
        for id in outcome.accepted.values()
        for event in ("generation.started", "generation.completed")
    }
    assert len(outcome.accepted) == count
    assert bodies.keys() == expected
    assert all(len(each) == 1 for each in bodies.values())
    await system.books_are_clean()

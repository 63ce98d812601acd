"""Deliverers are killed while events flow: all arrive, and what arrives twice has one id and one body."""

import asyncio
import random
import sys
from collections import defaultdict
from uuid import UUID

from tests.execution.conftest import House
from tests.execution.scripted import Script, Scripted, accepted
from tests.webhooks.conftest import Post

from babysea_server.generations import store as generations

EVENTS = ("generation.started", "generation.completed", "generation.failed", "generation.canceled")


async def test_killed_deliverers_lose_nothing_and_repeat_only_under_the_same_id(
    house: House, post: Post
) -> None:
    chance = random.Random(20260428)
    post.account_id = house.account_id
    hooks = [await post.hook(f"/{name}", events=EVENTS) for name in ("first", "second")]
    house.provider = Scripted(replicate=Script([accepted()]))

    async def deliverer() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.webhooks.process", house.dsn, "1.0"
        )

    await house.worker()
    process = await deliverer()
    try:
        for round in range(6):
            ids = [await house.admit() for _ in range(20)]
            await generations.cancel(house.db, house.account_id, chance.choice(ids))
            before = len(post.receiver.received)
            # In the middle of it: requests are answered and not recorded, or claimed and not sent.
            await post.receiver.has(
                f"/{chance.choice(['first', 'second'])}", before // 2 + chance.randrange(1, 8)
            )
            if round < 5:
                process.kill()
                await process.wait()
                process = await deliverer()
        await house.all_finished()
        for hook in hooks:
            await post.settled(hook)
    finally:
        process.terminate()
        assert await process.wait() == 0

    rows = await house.db.fetch("SELECT id, status::text AS status, started_at FROM generations")
    happened = {(row["id"], "generation." + row["status"].replace("succeeded", "completed")) for row in rows}
    messages = await house.db.fetch("SELECT generation_id, event FROM webhook_messages")
    assert len(messages) == len({tuple(row) for row in messages})
    assert {tuple(row) for row in messages if row["event"] != "generation.started"} == happened
    assert {row["state"] for row in await post.deliveries()} == {"delivered"}
    for hook in hooks:
        bodies: defaultdict[tuple[UUID, str], set[tuple[str, bytes]]] = defaultdict(set)
        for got in post.receiver.at(hook.path):
            bodies[UUID(got.data["generation_id"]), got.event].add((got.id, got.body))
        assert bodies.keys() == {tuple(row) for row in messages}
        assert all(len(each) == 1 for each in bodies.values())
    assert await house.db.fetchval("SELECT count(*) FROM workers") == 1  # the one of the house

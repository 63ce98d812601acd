"""The Python client against real processes that are killed under it."""

import asyncio
import random

from tests.e2e.system import System
from tests.effort import effort

from babysea import AsyncBabySea

_ACCEPTED = "SELECT count(*) FROM generations"


async def test_generate_with_retries_buys_once_however_often_the_api_is_killed(system: System) -> None:
    chance = random.Random(20260511)
    count, kills = effort(60), 3
    await system.up()
    newcomer = system.newcomer()
    before = await system.value(_ACCEPTED)
    accepted: set[str] = set()
    async with AsyncBabySea(newcomer.key, base_url=newcomer.base, max_retries=40) as client:

        async def one_after_another(share: range) -> None:
            for number in share:
                accepted.add((await client.generate("sandbox/image", f"picture {number}")).generation_id)

        async def kill_now_and_then() -> None:
            for moment in sorted(chance.sample(range(1, count - 10), kills)):
                await system.reaches(_ACCEPTED, before + moment)
                await system.kill_child("api")

        async with asyncio.TaskGroup() as group:
            group.create_task(kill_now_and_then())
            for lane in range(4):
                group.create_task(one_after_another(range(lane, count, 4)))
    assert len(accepted) == count
    assert await system.value(_ACCEPTED) == before + count
    await system.all_settled()
    await system.books_are_clean()

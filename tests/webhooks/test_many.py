"""Thousands of generations told to a fast endpoint, a slow one and a dead one, which comes back at the end.

`EFFORT=5` is the full run of ten thousand; it takes a minute and more.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from tests.effort import effort
from tests.execution.conftest import House
from tests.support import eventually
from tests.webhooks.conftest import Hook, Post
from tests.webhooks.receiver import Behavior, Received

from babysea_server.execution import store as execution
from babysea_server.execution.types import Claim, Settlement
from babysea_server.outputs.ingest import StoredOutput
from babysea_server.outputs.keys import output_key
from babysea_server.webhooks import endpoints, replay

AT_ONCE = 250
MANY = effort(2000) // AT_ONCE * AT_ONCE
FINAL = ("generation.completed", "generation.failed")


def _end(claim: Claim, number: int) -> Settlement:
    if number % 3 == 0:
        return Settlement(
            claim.id,
            claim.account_id,
            claim.fence,
            "failed",
            None,
            error_code="BSE4001",
            error_message="It failed.",
        )
    key = output_key(claim.id, datetime.now(UTC), 0, "png")
    stored = StoredOutput(key=key, content_type="image/png", bytes=1, sha256="0" * 64, width=1, height=1)
    return Settlement(
        claim.id, claim.account_id, claim.fence, "succeeded", None, provider="replicate", outputs=[stored]
    )


async def _happen(house: House) -> set[tuple[UUID, str]]:
    """Generations that are accepted and end; what became of each."""
    worker_id, numbers = await house.bare_worker(), itertools.count()
    happened: set[tuple[UUID, str]] = set()
    for _ in range(MANY // AT_ONCE):
        await asyncio.gather(*(house.admit() for _ in range(AT_ONCE)))
        claims = await execution.claim(house.db, worker_id, AT_ONCE)
        ends = [_end(claim, next(numbers)) for claim in claims]
        assert all(await execution.settle(house.db, worker_id, ends))
        happened |= {(end.generation_id, FINAL[end.status == "failed"]) for end in ends}
    assert len(happened) == MANY
    return happened


def _told(received: Sequence[Received]) -> Counter[tuple[UUID, str]]:
    return Counter((UUID(each.data["generation_id"]), each.event) for each in received)


async def _answered(behavior: Behavior, done: asyncio.Event) -> None:
    """A slow receiver: nobody is answered before others have had their turn many times."""
    while not done.is_set():
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, turn.set_result, None)
        await turn
        behavior.released.set()
        behavior.released = asyncio.Event()


@pytest.mark.timeout(300)
async def test_each_endpoint_hears_of_everything_once_and_the_dead_one_when_it_lives_again(
    house: House, post: Post
) -> None:
    post.account_id = house.account_id
    fast, slow, dead = [await post.hook(path, events=FINAL) for path in ("/fast", "/slow", "/dead")]
    behavior, done = post.receiver.path("/slow", held=True), asyncio.Event()
    post.receiver.path("/dead", statuses=[503])
    answering = asyncio.create_task(_answered(behavior, done))
    post.deliverer(concurrency=512, per_endpoint=64, lease_s=60.0)
    happened = await _happen(house)

    # Its first deliveries have failed five times: it is disabled, and what follows waits.
    async def disabled() -> bool:
        await post.make_due(dead)
        return bool((await post.endpoint(dead))["state"] == "failing")

    await eventually(disabled, within_s=120)
    for hook in (fast, slow):
        await _all_delivered(post, hook)
        assert _told(post.receiver.at(hook.path)) == Counter(happened), hook.path
        assert len({each.id for each in post.receiver.at(hook.path)}) == MANY

    post.receiver.path("/dead")
    before = len(post.receiver.at("/dead"))
    await endpoints.enable(post.db, post.account_id, dead.id)
    while (await replay.deliver_queued(post.db, post.account_id, dead.id)).more:
        pass
    await post.make_due(dead)
    await _all_delivered(post, dead)
    assert _told(post.receiver.at("/dead")[before:]) == Counter(happened)
    done.set()
    await answering
    await house.check()


async def _all_delivered(post: Post, hook: Hook) -> None:
    async def delivered() -> bool:
        return not await post.db.fetchval(
            "SELECT count(*) FROM webhook_deliveries WHERE endpoint_id = $1 AND state = 'pending'", hook.id
        )

    await eventually(delivered, within_s=150)

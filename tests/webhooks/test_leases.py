"""Whose a delivery is: claims, leases that lapse or are lost, deliverers that stop or die."""

import asyncio
from uuid import UUID

import asyncpg
from structlog.testing import capture_logs
from tests.support import eventually
from tests.webhooks.conftest import Post

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.kit.clock import SystemClock
from babysea_server.webhooks import store
from babysea_server.webhooks.types import Answer, Sent


async def test_what_a_dead_deliverer_had_claimed_is_sent_by_another(post: Post) -> None:
    hook = await post.hook()
    await post.happen(3)
    dead = await post.bare_worker()
    assert len(await post.claim(dead)) == 3
    await post.db.execute("UPDATE workers SET lease_until = now() - interval '1 second'")
    post.deliverer()
    await post.receiver.has("/hook", 3)
    await post.settled(hook)


async def test_results_of_a_lost_lease_change_nothing(post: Post) -> None:
    await post.hook()
    await post.happen()
    old, new = await post.bare_worker(), await post.bare_worker()
    [mine] = await post.claim(old)
    await post.db.execute("UPDATE webhook_deliveries SET worker_id = NULL")
    [theirs] = await post.claim(new)
    assert theirs.fence == mine.fence + 1
    [late] = await store.record(post.db, old, [Sent(mine, Answer(None, 1, 200), None)])
    assert not late.ours
    result = Sent(theirs, Answer(None, 1, 200), None)
    assert [(await store.record(post.db, new, [result]))[0].ours for _ in range(2)] == [True, False]
    [delivery] = await post.deliveries()
    assert delivery["attempts"] == 1
    assert len(await post.attempts(delivery["id"])) == 1


async def test_claims_whose_answer_was_lost_are_found_and_sent(post: Post) -> None:
    hook = await post.hook()
    deliverer = post.deliverer()

    async def registered() -> UUID | None:
        id: UUID | None = await post.db.fetchval("SELECT id FROM workers")
        return id

    worker = await eventually(registered)
    await post.happen(2)
    await post.db.execute("UPDATE webhook_deliveries SET worker_id = $1 WHERE worker_id IS NULL", worker)
    deliverer._doubt()
    await post.settled(hook)
    assert sorted(each.id for each in post.receiver.received) == [
        str(row["id"]) for row in await post.deliveries()
    ]


async def test_what_was_claimed_just_before_the_lease_lapsed_is_sent_once_it_is_renewed(post: Post) -> None:
    """The answer to a claim comes too late to be acted on, and nobody takes the deliveries away."""
    hook = await post.hook()
    await post.happen(2)

    async def claiming() -> bool:
        return bool(
            await post.db.fetch(
                "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'claim'"
            )
        )

    async def claimed() -> bool:
        return deliverer.sending == 0 and all(row["fence"] > 0 for row in await post.deliveries(hook))

    async with post.db.transaction() as delaying:
        await delaying.execute("LOCK TABLE webhook_messages")
        deliverer = post.deliverer(lease_s=60.0)
        await eventually(claiming)
        assert deliverer._held is not None
        lease = deliverer._held.lease
        lease.renewed(SystemClock().monotonic() - 60.0)  # the process stood still
    await eventually(claimed)
    lease.renewed(SystemClock().monotonic())
    await post.receiver.has("/hook", 2)
    await post.settled(hook)


async def test_stopping_records_what_is_under_way_and_gives_back_the_rest(post: Post) -> None:
    hook = await post.hook()
    behavior = post.receiver.path("/hook", held=True)
    await post.happen()
    deliverer = post.deliverer()
    await post.receiver.has("/hook", 1)
    stopping = asyncio.create_task(deliverer.stop())
    behavior.release()
    await stopping
    [delivery] = await post.deliveries(hook)
    assert delivery["state"] == "delivered"
    post.receiver.path("/hook", held=True)
    await post.happen()
    deliverer = post.deliverer()
    await post.receiver.has("/hook", 2)
    await deliverer.stop(within_s=0)
    [_, delivery] = await post.deliveries(hook)
    assert (delivery["state"], delivery["worker_id"], delivery["attempts"]) == ("pending", None, 0)
    assert await post.db.fetchval("SELECT count(*) FROM workers") == 0


async def test_a_deleted_endpoint_takes_its_deliveries_with_it_also_those_under_way(post: Post) -> None:
    await post.hook()
    behavior = post.receiver.path("/hook", held=True)
    await post.happen()
    deliverer = post.deliverer()
    await post.receiver.has("/hook", 1)
    await post.db.execute("DELETE FROM webhook_endpoints")
    behavior.release()

    async def idle() -> bool:
        return deliverer.sending == 0

    await eventually(idle)
    assert await post.deliveries() == []


async def test_results_wait_for_a_database_that_is_away(post: Post, postgres: EmbeddedPostgres) -> None:
    hook = await post.hook()
    behavior = post.receiver.path("/hook", held=True)
    await post.happen()
    post.deliverer(lease_s=20.0)
    await post.receiver.has("/hook", 1)
    name = await post.db.fetchval("SELECT current_database()")
    admin = await asyncpg.connect(postgres.dsn("postgres"))
    with capture_logs() as logs:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        behavior.release()

        async def refused() -> bool:
            return any(entry["event"] == "webhook_results_not_written" for entry in logs)

        await eventually(refused)
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    await admin.close()
    [delivery] = await post.settled(hook)
    assert (delivery["state"], delivery["attempts"], delivery["fence"]) == ("delivered", 1, 1)
    assert len(post.receiver.received) == 1

"""The life of endpoints, and listening without one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from tests.support import ManualClock, eventually

from babysea_server.accounts import store as accounts
from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError
from babysea_server.kit.ids import uuid7
from babysea_server.webhooks import endpoints, replay
from babysea_server.webhooks.endpoints import (
    ENDPOINTS_MAX,
    SUBSCRIBABLE,
    EndpointLimitError,
    EndpointSecret,
    EndpointStateError,
)
from babysea_server.webhooks.listening import listener
from babysea_server.webhooks.secrets import SecretBox
from babysea_server.webhooks.types import DueDelivery

BOX = SecretBox(b"k" * 32)
URL = "https://example.com/hook"


@pytest.fixture
async def account(db: Database) -> UUID:
    return (await accounts.create(db, name="A", plan="free")).id


@pytest.fixture
async def stranger(db: Database) -> UUID:
    return (await accounts.create(db, name="B", plan="free")).id


async def create(db: Database, account: UUID, **options: Any) -> EndpointSecret:
    return await endpoints.create(db, BOX, account, **{"url": URL, **options})


async def happen(db: Database, account: UUID, event: str = "credits.low_balance") -> None:
    await db.fetchval(
        "SELECT enqueue_account_event_v1($1, $2, $3)", account, event, {"account_id": str(account)}
    )


async def secret_of(db: Database, endpoint_id: UUID) -> str:
    return BOX.open(await db.fetchval("SELECT secret FROM webhook_endpoints WHERE id = $1", endpoint_id))


# ------------------------------------------------------------------------------------------ create


async def test_a_new_endpoint_is_enabled_and_subscribed_to_everything(db: Database, account: UUID) -> None:
    made = await create(db, account, description="orders")
    endpoint = made.endpoint
    assert (endpoint.account_id, endpoint.url, endpoint.description) == (account, URL, "orders")
    assert (endpoint.state, endpoint.events, endpoint.failed_in_a_row) == ("enabled", SUBSCRIBABLE, 0)
    assert endpoint.secret_rotated_at is None
    assert await endpoints.find(db, account, endpoint.id) == endpoint
    assert await endpoints.find(db, None, endpoint.id) == endpoint
    assert await endpoints.page(db, account) == [endpoint]
    assert await secret_of(db, endpoint.id) == made.secret


async def test_a_secret_is_in_no_text_of_what_holds_it(db: Database, account: UUID) -> None:
    made = await create(db, account)
    assert made.secret not in f"{made} {made.endpoint}"


async def test_events_are_kept_once_and_in_their_order(db: Database, account: UUID) -> None:
    made = await create(db, account, events=["generation.failed", "generation.started", "generation.failed"])
    assert made.endpoint.events == ("generation.started", "generation.failed")


@pytest.mark.parametrize("events", [[], ["generation.exploded"], ["webhook.test"], ["generation.failed", ""]])
async def test_events_that_there_are_not_are_refused(db: Database, account: UUID, events: list[str]) -> None:
    with pytest.raises(ValueError, match="event"):
        await create(db, account, events=events)
    assert await endpoints.page(db, account) == []


@pytest.mark.parametrize(
    "options",
    [{"url": "http://example.com"}, {"description": "x" * 201}, {"description": "a\0b"}],
    ids=["url", "long", "nul"],
)
async def test_other_mistakes_are_refused(db: Database, account: UUID, options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"has|starts"):
        await create(db, account, **options)


async def test_loopback_is_taken_in_development(db: Database, account: UUID) -> None:
    url = "http://127.0.0.1:3000/hook"
    made = await create(db, account, url=url, allow_private=True)
    assert made.endpoint.url == url
    with pytest.raises(ValueError, match="not public"):
        await endpoints.change(db, account, made.endpoint.id, url=url)


async def test_an_account_that_there_is_not_has_no_endpoints(db: Database) -> None:
    with pytest.raises(NotFoundError, match="no account"):
        await create(db, uuid7())


async def test_of_many_at_once_only_as_many_are_made_as_fit(
    db: Database, account: UUID, stranger: UUID
) -> None:
    for _ in range(ENDPOINTS_MAX - 2):
        await create(db, account)
    results = await asyncio.gather(*(create(db, account) for _ in range(8)), return_exceptions=True)
    made = [result for result in results if isinstance(result, EndpointSecret)]
    assert len(made) == 2
    assert all(isinstance(result, EndpointSecret | EndpointLimitError) for result in results)
    assert len(await endpoints.page(db, account)) == ENDPOINTS_MAX
    await create(db, stranger)
    await endpoints.delete(db, account, made[0].endpoint.id)
    await create(db, account)


# ------------------------------------------------------------------------------------------ change


async def test_only_what_is_given_is_changed(db: Database, account: UUID) -> None:
    before = (await create(db, account, description="one")).endpoint
    await db.execute("UPDATE webhook_endpoints SET failed_in_a_row = 7")
    after = await endpoints.change(db, account, before.id, description="")
    assert (after.description, after.url, after.events) == ("", before.url, before.events)
    assert after.failed_in_a_row == 7
    after = await endpoints.change(
        db, account, before.id, url="https://example.org/", events=["generation.failed"]
    )
    assert (after.url, after.events) == ("https://example.org/", ("generation.failed",))
    assert after.failed_in_a_row == 0, "the new address has not failed yet"


async def test_an_endpoint_is_disabled_and_enabled_and_again_changes_nothing(
    db: Database, account: UUID
) -> None:
    endpoint = (await create(db, account)).endpoint
    disabled = await endpoints.disable(db, account, endpoint.id)
    assert disabled.state == "disabled"
    assert disabled.state_changed_at > endpoint.state_changed_at
    assert await endpoints.disable(db, account, endpoint.id) == disabled
    enabled = await endpoints.enable(db, account, endpoint.id)
    assert enabled.state == "enabled"
    assert enabled.state_changed_at > disabled.state_changed_at
    await db.execute("UPDATE webhook_endpoints SET failed_in_a_row = 3")
    again = await endpoints.enable(db, account, endpoint.id)
    assert (again.failed_in_a_row, again.state_changed_at) == (3, enabled.state_changed_at)


async def test_enabling_a_failing_endpoint_forgets_its_failures(db: Database, account: UUID) -> None:
    endpoint = (await create(db, account)).endpoint
    await db.execute("UPDATE webhook_endpoints SET state = 'failing', failed_in_a_row = 15")
    enabled = await endpoints.enable(db, account, endpoint.id)
    assert (enabled.state, enabled.failed_in_a_row) == ("enabled", 0)


async def test_a_failing_endpoint_can_be_disabled_by_its_owner(db: Database, account: UUID) -> None:
    endpoint = (await create(db, account)).endpoint
    await db.execute("UPDATE webhook_endpoints SET state = 'failing'")
    assert (await endpoints.disable(db, account, endpoint.id)).state == "disabled"


async def test_a_new_secret_replaces_the_old_one_at_once(db: Database, account: UUID) -> None:
    made = await create(db, account)
    rotated = await endpoints.rotate_secret(db, BOX, account, made.endpoint.id)
    assert rotated.secret != made.secret
    assert rotated.endpoint.secret_rotated_at is not None
    assert await secret_of(db, made.endpoint.id) == rotated.secret


async def test_a_secret_that_was_shown_by_a_rotation_signs_also_when_several_rotate(
    db: Database, account: UUID
) -> None:
    endpoint_id = (await create(db, account)).endpoint.id
    results = await asyncio.gather(
        *(endpoints.rotate_secret(db, BOX, account, endpoint_id) for _ in range(5)), return_exceptions=True
    )
    shown = [result for result in results if isinstance(result, EndpointSecret)]
    assert all(isinstance(result, EndpointSecret | EndpointStateError) for result in results)
    assert await secret_of(db, endpoint_id) in [result.secret for result in shown]


async def test_an_endpoint_is_deleted_with_its_deliveries_and_those_of_others_stay(
    db: Database, account: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "_STEP", 2)
    gone, stays = (await create(db, account)).endpoint, (await create(db, account)).endpoint
    for _ in range(5):
        await happen(db, account)
    assert (await endpoints.delete(db, account, gone.id)).id == gone.id
    rows = await db.fetch("SELECT DISTINCT endpoint_id FROM webhook_deliveries")
    assert [row["endpoint_id"] for row in rows] == [stays.id]
    with pytest.raises(NotFoundError, match=f"no webhook endpoint {gone.id}"):
        await endpoints.find(db, account, gone.id)
    with pytest.raises(NotFoundError):
        await endpoints.delete(db, account, gone.id)


Verb = Callable[[Database, UUID, UUID], Awaitable[object]]
VERBS: dict[str, Verb] = {
    "find": endpoints.find,
    "change": lambda db, account, endpoint: endpoints.change(db, account, endpoint, description="mine"),
    "enable": endpoints.enable,
    "disable": endpoints.disable,
    "rotate": lambda db, account, endpoint: endpoints.rotate_secret(db, BOX, account, endpoint),
    "delete": endpoints.delete,
    "test": replay.send_test,
    "deliveries": replay.list_deliveries,
    "waiting": replay.count_waiting,
    "queued": replay.deliver_queued,
    "failed": lambda db, account, endpoint: replay.replay_failed_since(
        db, account, endpoint, ManualClock().now()
    ),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_an_endpoint_of_another_account_is_as_if_it_were_not(
    db: Database, account: UUID, stranger: UUID, verb: str
) -> None:
    endpoint = (await create(db, account)).endpoint
    before = await db.fetch("SELECT * FROM webhook_endpoints")
    faults = []
    for id in (endpoint.id, uuid7()):
        with pytest.raises(NotFoundError) as caught:
            await VERBS[verb](db, stranger, id)
        faults.append(str(caught.value).replace(str(id), "ID"))
    assert faults[0] == faults[1]
    assert await db.fetch("SELECT * FROM webhook_endpoints") == before
    assert await endpoints.page(db, stranger) == []


# ------------------------------------------------------------------------------------------ listening


async def hear(db: Database, account: UUID, count: int, heard: list[DueDelivery], *events: str) -> None:
    """Listen for so many events."""
    clock = ManualClock()
    async with listener(db, BOX, clock, account, events or SUBSCRIBABLE) as ear:
        turning = asyncio.create_task(_turn(clock))
        async for delivery in ear.events():
            heard.append(delivery)
            if len(heard) == count:
                break
        turning.cancel()


async def _turn(clock: ManualClock) -> None:
    async def sleeps() -> bool:
        return clock.sleeping > 0

    while True:
        await eventually(sleeps)
        clock.advance(1)


async def listening(db: Database) -> None:
    async def there() -> bool:
        return bool(await db.fetchval("SELECT count(*) FROM webhook_endpoints WHERE url LIKE 'listen:%'"))

    await eventually(there)


async def test_a_listener_hears_what_happens_in_order_and_leaves_nothing(db: Database, account: UUID) -> None:
    await happen(db, account)  # before: nobody is told
    heard: list[DueDelivery] = []
    task = asyncio.create_task(hear(db, account, 3, heard, "credits.low_balance", "generation.failed"))
    await listening(db)
    for event in ("generation.failed", "generation.started", "credits.low_balance", "generation.failed"):
        await happen(db, account, event)
    await task
    assert [each.event for each in heard] == ["generation.failed", "credits.low_balance", "generation.failed"]
    assert len({each.id for each in heard}) == 3
    assert heard[0].data == {"account_id": str(account)}
    assert await db.fetchval("SELECT count(*) FROM webhook_endpoints") == 0
    assert await db.fetchval("SELECT count(*) FROM webhook_deliveries") == 0


async def test_a_listener_is_in_no_list_and_counts_for_no_limit(db: Database, account: UUID) -> None:
    async with listener(db, BOX, ManualClock(), account, ["generation.failed"]) as ear:
        for _ in range(ENDPOINTS_MAX):
            await create(db, account)
        assert len(await endpoints.page(db, None)) == ENDPOINTS_MAX
        with pytest.raises(NotFoundError):
            await endpoints.find(db, account, ear.id)
        with pytest.raises(NotFoundError):
            await endpoints.enable(db, account, ear.id)
        assert (
            await db.fetchval("SELECT state::text FROM webhook_endpoints WHERE id = $1", ear.id) == "disabled"
        )


async def test_a_listener_that_was_killed_is_taken_away_by_the_next_and_a_living_one_is_not(
    db: Database, account: UUID
) -> None:
    async with listener(db, BOX, ManualClock(), account, SUBSCRIBABLE) as killed:
        await db.execute("UPDATE webhook_endpoints SET state_changed_at = now() - interval '1 hour'")
        async with (
            listener(db, BOX, ManualClock(), account, SUBSCRIBABLE) as living,
            listener(db, BOX, ManualClock(), account, SUBSCRIBABLE) as third,
        ):
            ids = [row["id"] for row in await db.fetch("SELECT id FROM webhook_endpoints ORDER BY id")]
            assert ids == [living.id, third.id]
            assert killed.id not in ids


async def test_a_listener_whose_row_is_gone_says_so(db: Database, account: UUID) -> None:
    clock = ManualClock()
    async with listener(db, BOX, clock, account, SUBSCRIBABLE) as ear:
        await db.execute("DELETE FROM webhook_endpoints")
        turning = asyncio.create_task(_turn(clock))
        with pytest.raises(NotFoundError, match="the listener is gone"):
            await anext(ear.events())
        turning.cancel()


async def test_an_account_that_there_is_not_cannot_be_listened_to(db: Database) -> None:
    with pytest.raises(NotFoundError, match="no account"):
        async with listener(db, BOX, ManualClock(), uuid7(), SUBSCRIBABLE):
            raise AssertionError("it was opened")

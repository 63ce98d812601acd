"""Sending again: tests, replays of one and of many, and what waited for its endpoint."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from tests.webhooks.conftest import Post
from tests.webhooks.receiver import Received

from babysea_server.accounts import store as accounts
from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError
from babysea_server.kit.ids import uuid7
from babysea_server.webhooks import endpoints, replay
from babysea_server.webhooks.endpoint_store import Delivery, Endpoint
from babysea_server.webhooks.endpoints import EndpointStateError
from babysea_server.webhooks.replay import Replayed
from babysea_server.webhooks.secrets import SecretBox
from babysea_server.webhooks.signing import sign

BOX = SecretBox(b"k" * 32)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
async def account(db: Database) -> UUID:
    return (await accounts.create(db, name="A", plan="free")).id


@pytest.fixture
async def endpoint(db: Database, account: UUID) -> Endpoint:
    made = await endpoints.create(db, BOX, account, url="https://example.com/hook")
    return made.endpoint


async def happen(db: Database, endpoint: Endpoint, *numbers: int) -> None:
    """Events of the account, each with its number."""
    for number in numbers:
        await db.fetchval(
            "SELECT enqueue_account_event_v1($1, 'credits.low_balance', $2)",
            endpoint.account_id,
            {"number": number},
        )


async def log(db: Database, endpoint: Endpoint, state: Any = None) -> Sequence[Delivery]:
    """Deliveries, oldest first."""
    newest_first = await replay.list_deliveries(db, None, endpoint.id, state=state, limit=1000)
    return newest_first[::-1]


async def told(db: Database, endpoint: Endpoint, state: Any = None) -> list[tuple[int, str]]:
    """The number and state of each delivery, oldest first."""
    return [(each.data["number"], each.state) for each in await log(db, endpoint, state)]


async def end(db: Database, state: str, *numbers: int) -> None:
    """What a worker would have written at the end of pending deliveries of these events."""
    await db.execute(
        """UPDATE webhook_deliveries d SET state = $1::text::webhook_delivery_state, ended_at = now()
           FROM webhook_messages m
           WHERE m.id = d.message_id AND d.state = 'pending' AND (m.data ->> 'number')::integer = ANY ($2)""",
        state,
        list(numbers),
    )


async def due_in_order(db: Database) -> list[UUID]:
    """What workers may take now, in the order in which they take it."""
    rows = await db.fetch(
        """SELECT id FROM webhook_deliveries WHERE state = 'pending' AND due_at <= now() + interval '1 second'
           ORDER BY due_at"""
    )
    return [row["id"] for row in rows]


# ------------------------------------------------------------------------------------------ tests


async def test_a_test_event_is_a_delivery_like_any_other_with_the_generation_of_zeros(
    db: Database, account: UUID
) -> None:
    made = await endpoints.create(db, BOX, account, url="https://example.com/", events=["generation.failed"])
    other = await endpoints.create(db, BOX, account, url="https://example.org/")
    for _ in range(2):
        delivery = await replay.send_test(db, account, made.endpoint.id)
        assert (delivery.event, delivery.state, delivery.attempts) == ("webhook.test", "pending", [])
        assert delivery.due_at is not None
        assert delivery.data == {
            "account_id": str(account),
            "generation_id": "00000000-0000-0000-0000-000000000000",
        }
        assert delivery.id in await due_in_order(db)
    assert len(await log(db, made.endpoint)) == 2
    assert await log(db, other.endpoint) == []


@pytest.mark.parametrize("state", ["disabled", "failing"])
async def test_nothing_is_sent_again_to_an_endpoint_that_is_not_enabled(
    db: Database, endpoint: Endpoint, state: str
) -> None:
    await happen(db, endpoint, 1)
    await end(db, "failed", 1)
    await db.execute("UPDATE webhook_endpoints SET state = $1::text::webhook_endpoint_state", state)
    [delivery] = await log(db, endpoint)
    for call in (
        replay.send_test(db, None, endpoint.id),
        replay.replay(db, None, delivery.id),
        replay.replay_failed_since(db, None, endpoint.id, LONG_AGO),
        replay.deliver_queued(db, None, endpoint.id),
    ):
        with pytest.raises(EndpointStateError, match=f"is {state}: enable it first"):
            await call
    assert await told(db, endpoint) == [(1, "failed")]


# ------------------------------------------------------------------------------------------ the log


async def test_the_log_is_paged_newest_first_with_each_attempt(db: Database, endpoint: Endpoint) -> None:
    await happen(db, endpoint, *range(5))
    await end(db, "delivered", 1, 3)
    ids = [each.id for each in await log(db, endpoint)]
    await db.execute(
        """INSERT INTO webhook_attempts (delivery_id, number, status, duration_ms, error, response)
           VALUES ($1, 1, NULL, 12, 'connect', NULL), ($1, 2, 500, 34, 'http_5xx', 'oops'),
                  ($2, 1, 204, 5, NULL, '')""",
        ids[4],
        ids[3],
    )
    first = await replay.list_deliveries(db, None, endpoint.id, limit=2)
    second = await replay.list_deliveries(db, None, endpoint.id, limit=2, before=first[-1].id)
    last = await replay.list_deliveries(db, None, endpoint.id, limit=2, before=second[-1].id)
    assert [each.id for page in (first, second, last) for each in page] == ids[::-1]
    assert [(a.number, a.status, a.error, a.response) for a in first[0].attempts] == [
        (1, None, "connect", None),
        (2, 500, "http_5xx", "oops"),
    ]
    assert [(a.status, a.duration_ms, a.error) for a in first[1].attempts] == [(204, 5, None)]
    assert await told(db, endpoint, "delivered") == [(1, "delivered"), (3, "delivered")]


def test_states_are_named() -> None:
    assert [replay.state_named(state) for state in replay.STATES] == list(replay.STATES)
    with pytest.raises(ValueError, match="pending, delivered, failed or expired, not 'lost'"):
        replay.state_named("lost")


# ------------------------------------------------------------------------------------------ one


@pytest.mark.parametrize("state", ["delivered", "failed", "expired"])
async def test_a_delivery_that_ended_is_sent_again_under_a_fresh_id(
    db: Database, endpoint: Endpoint, state: str
) -> None:
    await happen(db, endpoint, 1)
    await end(db, state, 1)
    [old] = await log(db, endpoint)
    new = await replay.replay(db, endpoint.account_id, old.id)
    assert new.id != old.id
    assert (new.replay_of, new.state, new.event, new.data) == (old.id, "pending", old.event, old.data)
    assert await log(db, endpoint) == [old, new]
    assert await due_in_order(db) == [new.id]


async def test_a_delivery_that_is_still_tried_is_not_sent_again(db: Database, endpoint: Endpoint) -> None:
    await happen(db, endpoint, 1)
    [delivery] = await log(db, endpoint)
    with pytest.raises(EndpointStateError, match="is pending"):
        await replay.replay(db, None, delivery.id)
    assert len(await log(db, endpoint)) == 1


async def test_a_delivery_of_another_account_is_as_if_it_were_not(db: Database, endpoint: Endpoint) -> None:
    await happen(db, endpoint, 1)
    await end(db, "failed", 1)
    [delivery] = await log(db, endpoint)
    stranger = (await accounts.create(db, name="B", plan="free")).id
    for delivery_id in (delivery.id, uuid7()):
        for verb in (replay.replay, replay.find_delivery):
            with pytest.raises(NotFoundError, match=f"no webhook delivery {delivery_id}"):
                await verb(db, stranger, delivery_id)
    assert await log(db, endpoint) == [delivery]


# ------------------------------------------------------------------------------------------ all that failed


async def test_what_failed_or_expired_since_then_is_sent_again_in_order_and_only_once(
    db: Database, endpoint: Endpoint
) -> None:
    await happen(db, endpoint, *range(6))
    await end(db, "failed", 0, 1, 4)
    await end(db, "expired", 2)
    await end(db, "delivered", 3)
    await db.execute(
        """UPDATE webhook_deliveries SET created_at = now() - interval '1 day' WHERE message_id IN (
               SELECT id FROM webhook_messages WHERE data ->> 'number' = '0')"""
    )
    since = datetime.now(UTC) - timedelta(hours=1)
    again = await replay.replay_failed_since(db, None, endpoint.id, since)
    assert again == Replayed(3, more=False)
    assert (await told(db, endpoint))[6:] == [(1, "pending"), (2, "pending"), (4, "pending")]
    due = await due_in_order(db)
    assert due[-3:] == [each.id for each in (await log(db, endpoint))[6:]]
    assert await replay.replay_failed_since(db, None, endpoint.id, since) == Replayed(0, more=False)

    await end(db, "delivered", 1, 2)
    await end(db, "failed", 4)
    assert await replay.replay_failed_since(db, None, endpoint.id, since) == Replayed(1, more=False)
    assert (await told(db, endpoint))[9:] == [(4, "pending")]


async def test_two_who_replay_at_once_send_each_delivery_once(
    db: Database, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_STEP", 3)
    await happen(db, endpoint, *range(10))
    await end(db, "failed", *range(10))
    results = await asyncio.gather(
        *(replay.replay_failed_since(db, None, endpoint.id, LONG_AGO) for _ in range(4))
    )
    assert sum(result.count for result in results) == 10
    assert await told(db, endpoint, "pending") == [(number, "pending") for number in range(10)]


@pytest.mark.parametrize("limit", [4, 5, 6, 10])
async def test_one_call_replays_no_more_than_its_limit_and_says_that_more_is_left(
    db: Database, endpoint: Endpoint, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_STEP", 2)
    await happen(db, endpoint, *range(10))
    await end(db, "failed", *range(10))
    first = await replay.replay_failed_since(db, None, endpoint.id, LONG_AGO, limit=limit)
    assert first == Replayed(limit, more=limit < 10)
    assert await told(db, endpoint, "pending") == [(number, "pending") for number in range(limit)]


# ------------------------------------------------------------------------------------------ what waited


async def test_what_waited_is_sent_in_order_under_fresh_ids_when_it_is_asked_for(
    db: Database, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_STEP", 2)
    await endpoints.disable(db, None, endpoint.id)
    await happen(db, endpoint, *range(5))
    assert await replay.count_waiting(db, None, endpoint.id) == 5
    await endpoints.enable(db, None, endpoint.id)
    waiting = await log(db, endpoint)
    assert await due_in_order(db) == []
    assert [each.due_at for each in waiting] == [None] * 5
    assert await replay.count_waiting(db, None, endpoint.id) == 5
    await happen(db, endpoint, 5)

    assert await replay.deliver_queued(db, None, endpoint.id) == Replayed(5, more=False)
    assert await told(db, endpoint, "expired") == [(number, "expired") for number in range(5)]
    pending = await log(db, endpoint, "pending")
    assert [each.data["number"] for each in pending] == [5, 0, 1, 2, 3, 4]
    assert [each.replay_of for each in pending] == [None, *(each.id for each in waiting)]
    assert await due_in_order(db) == [each.id for each in pending]
    assert await replay.count_waiting(db, None, endpoint.id) == 0
    assert await replay.deliver_queued(db, None, endpoint.id) == Replayed(0, more=False)
    # What was put under another id did not fail.
    assert await replay.replay_failed_since(db, None, endpoint.id, LONG_AGO) == Replayed(0, more=False)


async def test_what_was_tried_when_its_endpoint_was_disabled_is_tried_on_under_its_own_id(
    db: Database, endpoint: Endpoint
) -> None:
    await happen(db, endpoint, 1)
    [tried] = await log(db, endpoint)
    await endpoints.disable(db, None, endpoint.id)
    assert await replay.count_waiting(db, None, endpoint.id) == 1
    await endpoints.enable(db, None, endpoint.id)
    assert await due_in_order(db) == [tried.id]
    assert await replay.deliver_queued(db, None, endpoint.id) == Replayed(0, more=False)


async def test_two_who_ask_for_what_waited_send_each_delivery_once(
    db: Database, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_STEP", 3)
    await endpoints.disable(db, None, endpoint.id)
    await happen(db, endpoint, *range(10))
    await endpoints.enable(db, None, endpoint.id)
    results = await asyncio.gather(*(replay.deliver_queued(db, None, endpoint.id) for _ in range(4)))
    assert sum(result.count for result in results) == 10
    assert await told(db, endpoint, "pending") == [(number, "pending") for number in range(10)]


async def test_an_endpoint_disabled_while_its_queue_is_sent_keeps_the_rest_waiting(
    db: Database, endpoint: Endpoint
) -> None:
    await endpoints.disable(db, None, endpoint.id)
    await happen(db, endpoint, *range(4))
    await endpoints.enable(db, None, endpoint.id)
    assert await replay.deliver_queued(db, None, endpoint.id, limit=2) == Replayed(2, more=True)
    await endpoints.disable(db, None, endpoint.id)
    with pytest.raises(EndpointStateError):
        await replay.deliver_queued(db, None, endpoint.id)
    assert await replay.count_waiting(db, None, endpoint.id) == 4


# ------------------------------------------------------------------------------------------ and what is received


def signed_with(received: Received, secret: str) -> bool:
    """Whether both signatures of a request are made with this secret."""
    moment = datetime.fromtimestamp(int(received.headers["webhook-timestamp"]), UTC)
    expected = sign(secret, UUID(received.id), received.body, moment)
    return all(received.headers[name] == value for name, value in expected.items())


async def test_what_waited_is_received_in_order_each_under_its_fresh_id(db: Database, post: Post) -> None:
    hook = await post.hook("/hook", state="disabled")
    post.deliverer(per_endpoint=1)
    await post.happen(5)
    old = [each.id for each in await replay.list_deliveries(db, None, hook.id)]
    await endpoints.enable(db, None, hook.id)
    await replay.deliver_queued(db, None, hook.id)
    received = await post.receiver.has("/hook", 5)
    assert [each.data["current_balance"] for each in received] == [0, 1, 2, 3, 4]
    assert {UUID(each.id) for each in received}.isdisjoint(old)
    assert all(signed_with(each, hook.secret) for each in received)
    assert len(await post.settled(hook, attempts=0)) == 10
    assert len(post.receiver.received) == 5


async def test_a_test_event_and_a_replay_are_received(db: Database, post: Post) -> None:
    hook = await post.hook("/hook", events=["generation.failed"])
    post.deliverer()
    test = await replay.send_test(db, post.account_id, hook.id)
    [received] = await post.receiver.has("/hook", 1)
    assert (received.id, received.event) == (str(test.id), "webhook.test")
    await post.settled(hook)
    again = await replay.replay(db, post.account_id, test.id)
    _, received = await post.receiver.has("/hook", 2)
    assert (received.id, received.event) == (str(again.id), "webhook.test")
    await post.settled(hook)
    assert [each.state for each in await replay.list_deliveries(db, None, hook.id)] == ["delivered"] * 2


async def test_the_next_try_after_a_rotation_is_signed_with_the_new_secret(db: Database, post: Post) -> None:
    hook = await post.hook("/hook")
    post.receiver.path("/hook", statuses=[500, 200])
    post.deliverer()
    await post.happen()
    await post.settled(hook)
    rotated = await endpoints.rotate_secret(db, post.box, post.account_id, hook.id)
    await post.make_due(hook)
    first, second = await post.receiver.has("/hook", 2)
    assert (first.id, first.body) == (second.id, second.body)
    assert signed_with(first, hook.secret)
    assert signed_with(second, rotated.secret)


async def test_while_secrets_rotate_everything_is_signed_with_one_that_was_shown(
    db: Database, post: Post
) -> None:
    hook = await post.hook("/hook")
    post.deliverer()
    shown = [hook.secret]
    for number in range(5):
        _, rotated = await asyncio.gather(
            post.happen(4, event="generation.failed"),
            endpoints.rotate_secret(db, post.box, None, hook.id),
        )
        shown.append(rotated.secret)
        await post.happen(event="generation.completed", number=number)
    received = await post.receiver.has("/hook", 25)
    assert all(any(signed_with(each, secret) for secret in shown) for each in received)
    # What happened after a rotation is signed with its secret, or with one of a later rotation.
    for each in received:
        if each.event == "generation.completed":
            later = shown[each.data["number"] + 1 :]
            assert any(signed_with(each, secret) for secret in later)

"""Sending again: tests, replays, and what waited while an endpoint was disabled.

Whatever is sent again gets an id of its own and a fresh signature, and the delivery that it repeats stays as it is in
the log. Where a function takes `account_id`, only that account's rows are found; None stands for the operator. Where it
takes `Database | Any`, a connection of it that is in a transaction will do, too.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError
from babysea_server.kit.ids import uuid7
from babysea_server.webhooks import endpoint_store as store
from babysea_server.webhooks.endpoint_store import Delivery, DeliveryState, Endpoint
from babysea_server.webhooks.endpoints import TEST_EVENT, EndpointStateError, find, found

#: The generation that a test tells of. Source: contract, section 7.
TEST_GENERATION = UUID(int=0)

STATES: tuple[DeliveryState, ...] = get_args(DeliveryState)

#: How many deliveries one call puts on their way at most.
REPLAY_MAX = 10_000
#: How far waiting deliveries are counted.
COUNT_MAX = 100_000
_STEP = 500


class Replayed(msgspec.Struct, frozen=True):
    """How many deliveries were put on their way, and whether others are left for another call."""

    count: int
    more: bool


async def send_test(db: Database | Any, account_id: UUID | None, endpoint_id: UUID) -> Delivery:
    """Send `webhook.test` to an enabled endpoint, whatever it is subscribed to: delivered and logged like any other.

    Raises:
        NotFoundError: no such endpoint.
        EndpointStateError: it is not enabled.
    """
    async with db.transaction() if isinstance(db, Database) else nullcontext(db) as connection:
        endpoint = _enabled(await store.lock(connection, endpoint_id, account_id), endpoint_id)
        data = {"account_id": str(endpoint.account_id), "generation_id": str(TEST_GENERATION)}
        delivery_id = await store.insert_test(connection, endpoint, TEST_EVENT, data)
    return await find_delivery(db, account_id, delivery_id)


async def find_delivery(db: Database | Any, account_id: UUID | None, delivery_id: UUID) -> Delivery:
    """One delivery with its attempts.

    Raises:
        NotFoundError: no such delivery.
    """
    delivery = await store.delivery(db, delivery_id, account_id)
    if delivery is None:
        raise NotFoundError(f"no webhook delivery {delivery_id} in this region")
    return delivery


async def list_deliveries(
    db: Database,
    account_id: UUID | None,
    endpoint_id: UUID,
    *,
    before: UUID | None = None,
    state: DeliveryState | None = None,
    limit: int = 100,
) -> Sequence[Delivery]:
    """Deliveries of an endpoint with their attempts, newest first.

    Args:
        before: the id of the last one of the page before.
        state: only these: `pending`, `delivered`, `failed` or `expired`.

    Raises:
        NotFoundError: no such endpoint.
    """
    await find(db, account_id, endpoint_id)
    return await store.deliveries(db, endpoint_id, before=before, state=state, limit=limit)


def state_named(name: str) -> DeliveryState:
    """The state of deliveries that is called so.

    Raises:
        ValueError: none is.
    """
    for state in STATES:
        if state == name:
            return state
    raise ValueError(f"a delivery is {', '.join(STATES[:-1])} or {STATES[-1]}, not {name!r}")


async def replay(db: Database | Any, account_id: UUID | None, delivery_id: UUID) -> Delivery:
    """Send a delivery that has ended again, to where its endpoint is now; returns the new one.

    Raises:
        NotFoundError: no such delivery.
        EndpointStateError: it has not ended, or its endpoint is not enabled.
    """
    old = await find_delivery(db, account_id, delivery_id)
    if old.state == "pending":
        raise EndpointStateError(
            f"only a delivery that has ended can be replayed, and {delivery_id} is pending"
        )
    fresh = uuid7()
    async with db.transaction() if isinstance(db, Database) else nullcontext(db) as connection:
        _enabled(await store.lock(connection, old.endpoint_id, account_id), old.endpoint_id)
        await store.insert_replays(connection, [(delivery_id, fresh)])
    return await find_delivery(db, account_id, fresh)


async def replay_failed_since(
    db: Database, account_id: UUID | None, endpoint_id: UUID, since: datetime, *, limit: int = REPLAY_MAX
) -> Replayed:
    """Send everything of an enabled endpoint again that was made since then and failed or expired, oldest first.

    Again sends nothing twice: what was replayed before is passed over, whatever became of its replay, and a replay
    that failed is itself one of the failed.

    Raises:
        NotFoundError: no such endpoint.
        EndpointStateError: it is not enabled.
    """
    count = 0
    while True:
        size = min(_STEP, limit - count)
        async with db.transaction() as connection:
            # Whoever else replays waits here, and then sees what was replayed.
            _enabled(await store.lock(connection, endpoint_id, account_id), endpoint_id)
            replays = await store.missed(connection, endpoint_id, since, limit=size + 1)
            await store.insert_replays(connection, replays[:size])
        count += min(len(replays), size)
        if len(replays) <= size or count >= limit:
            return Replayed(count, more=len(replays) > size)


async def deliver_queued(
    db: Database, account_id: UUID | None, endpoint_id: UUID, *, limit: int = REPLAY_MAX
) -> Replayed:
    """Send what waited while the endpoint was disabled, oldest first; what it was before is `expired`.

    Raises:
        NotFoundError: no such endpoint.
        EndpointStateError: it is not enabled.
    """
    count = 0
    while True:
        size = min(_STEP, limit - count)
        async with db.transaction() as connection:
            _enabled(await store.lock(connection, endpoint_id, account_id), endpoint_id)
            waiting = await store.queued(connection, endpoint_id, limit=size + 1)
            await store.insert_replays(connection, waiting[:size])
            await store.expire(connection, [old for old, _ in waiting[:size]])
        count += min(len(waiting), size)
        if len(waiting) <= size or count >= limit:
            return Replayed(count, more=len(waiting) > size)


async def count_waiting(db: Database, account_id: UUID | None, endpoint_id: UUID) -> int:
    """How many deliveries wait: for the endpoint to be enabled or, after that, for `deliver_queued`; 100,000 at most.

    Raises:
        NotFoundError: no such endpoint.
    """
    await find(db, account_id, endpoint_id)
    return await store.count_waiting(db, endpoint_id, limit=COUNT_MAX)


def _enabled(endpoint: Endpoint | None, endpoint_id: UUID) -> Endpoint:
    endpoint = found(endpoint, endpoint_id)
    if endpoint.state != "enabled":
        raise EndpointStateError(f"endpoint {endpoint_id} is {endpoint.state}: enable it first")
    return endpoint

"""Live updates: what changes in the database is told to whoever looks, and only to them."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from tests.support import ManualClock, make_account

from babysea_server.accounts import notices
from babysea_server.console.faults import PageFaultError
from babysea_server.console.live import PER_SESSION, Live
from babysea_server.db.pool import Database
from babysea_server.kit import json
from babysea_server.kit.money import micros
from babysea_server.ledger import store as ledger


@pytest.fixture
async def live(db: Database) -> AsyncIterator[Live]:
    live = Live(db, ManualClock())
    yield live
    await live.close()


async def _watch(live: Live, account_id: UUID, session_id: UUID | None = None) -> AsyncIterator[bytes]:
    stream = await live.watch(account_id, session_id or uuid4())
    assert await anext(stream) == b"retry: 3000\n\n"
    return stream


async def _next(stream: AsyncIterator[bytes]) -> dict[str, object]:
    event, data = (await anext(stream)).decode().strip().split("\n")
    assert event == "event: change"
    change = json.loads(data.removeprefix("data: ").encode())
    assert isinstance(change, dict)
    return change


async def test_the_first_event_is_the_present_state_and_the_next_what_differs(
    live: Live, db: Database
) -> None:
    account_id, _ = await make_account(db, credits="5")
    stream = await _watch(live, account_id)
    first = await _next(stream)
    assert first == {"balance": micros("5"), "unread": 0, "generations": {}, "deliveries": {}}
    await ledger.add(db, account_id, micros("2"), "test")
    await notices.notify(db, account_id, "credits.low_balance", "Low.", {})
    await live.look()
    assert await _next(stream) == {"balance": micros("7"), "unread": 1}
    await live.look()
    await ledger.add(db, account_id, micros("1"), "test")
    await live.look()
    assert await _next(stream) == {"balance": micros("8")}


async def test_nobody_hears_of_another_account(live: Live, db: Database) -> None:
    mine, _ = await make_account(db, credits="1")
    other, _ = await make_account(db, credits="2")
    streams = [await _watch(live, account_id) for account_id in (mine, other)]
    assert [(await _next(stream))["balance"] for stream in streams] == [micros("1"), micros("2")]
    await ledger.add(db, other, micros("1"), "test")
    await live.look()
    assert await _next(streams[1]) == {"balance": micros("3")}
    await ledger.add(db, mine, micros("1"), "test")
    await live.look()
    assert await _next(streams[0]) == {"balance": micros("2")}


async def test_one_session_has_so_many_streams_and_gets_their_places_back(live: Live, db: Database) -> None:
    account_id, _ = await make_account(db)
    session_id = uuid4()
    streams = [await _watch(live, account_id, session_id) for _ in range(PER_SESSION)]
    with pytest.raises(PageFaultError) as refused:
        await live.watch(account_id, session_id)
    assert refused.value.status == 429
    await _watch(live, account_id)  # another session's
    await streams[0].aclose()  # type: ignore[attr-defined]  # a generator, which the protocol does not say
    await _watch(live, account_id, session_id)


async def test_without_watchers_nothing_is_asked(db: Database) -> None:
    clock = ManualClock()
    live = Live(db, clock)
    account_id, _ = await make_account(db)
    stream = await _watch(live, account_id)
    await _next(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # likewise
    clock.advance(1)
    task = next(task for task in asyncio.all_tasks() if task.get_name() == "console-live")
    await asyncio.wait_for(task, 10)

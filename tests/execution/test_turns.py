"""Turns: of all workers one does the work each time, and whoever asks after a dead one goes on."""

import asyncio

from babysea_server.db.pool import Database
from babysea_server.execution.turns import in_turn, take_turn


async def test_of_many_who_ask_at_once_one_has_the_turn(dsn: str, db: Database) -> None:
    other = Database(dsn, name="other", size=10)
    await other.open()
    try:
        taken = await asyncio.gather(*(take_turn(one, "sweep", seconds=60) for one in [db, other] * 10))
    finally:
        await other.close()
    assert taken.count(True) == 1


async def test_the_next_turn_is_had_once_the_last_is_long_enough_ago(db: Database) -> None:
    assert await take_turn(db, "sweep", seconds=60)
    await db.execute("UPDATE periodic_turns SET taken_at = now() - interval '50 seconds'")
    assert not await take_turn(db, "sweep", seconds=60)
    await db.execute("UPDATE periodic_turns SET taken_at = now() - interval '55 seconds'")
    assert await take_turn(db, "sweep", seconds=60)
    assert not await take_turn(db, "sweep", seconds=60)


async def test_works_have_turns_of_their_own(db: Database) -> None:
    assert await take_turn(db, "sweep", seconds=60)
    assert await take_turn(db, "mop", seconds=60)


async def test_work_that_failed_has_had_its_turn(db: Database) -> None:
    done: list[str] = []

    async def work() -> None:
        done.append("tried")
        raise OSError

    turn = in_turn(db, "sweep", 60, work)
    for _ in range(2):
        try:
            await turn()
        except OSError:
            done.append("failed")
    assert done == ["tried", "failed"]

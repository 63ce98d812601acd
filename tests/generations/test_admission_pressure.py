"""A slow, a vanished and a refusing database: short waits, certain answers, neighbours unharmed."""

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs
from tests.generations import admitting
from tests.generations.conftest import Hold, MakeDatabase, backends_waiting, until_ended

from babysea_server.db.pool import Database
from babysea_server.generations import store
from babysea_server.generations.admission import Admission, AdmissionRequest, Admissions
from babysea_server.kit.clock import SystemClock


def nobody_wakes() -> None:
    """Admission's `on_accepted`, where no worker is meant to hear of it."""


async def submitted(admissions: Admissions, *requests: AdmissionRequest) -> list[asyncio.Task[Admission]]:
    """Submit in this order; each stands in the queue or in a call before the next one comes."""
    tasks = []
    for asked in requests:
        task = asyncio.create_task(admissions.admit(asked))
        await asyncio.sleep(0)
        tasks.append(task)
    return tasks


async def results(tasks: list[asyncio.Task[Admission]]) -> list[str]:
    return [(await until_ended(task)).result for task in tasks]


async def count(db: Database) -> int:
    return int(await db.fetchval("SELECT count(*) FROM generations"))


async def test_a_full_queue_refuses_at_once_and_keeps_what_it_took(
    db: Database, dsn: str, make_database: MakeDatabase, hold: Hold
) -> None:
    account_id = await admitting.account(db, 10)
    admissions = Admissions(
        await make_database(dsn), SystemClock(), nobody_wakes, batch_max=1, calls_max=1, queue_max=3
    )
    async with hold(account_id):
        taken = await submitted(admissions, admitting.request(account_id))
        await backends_waiting(db)
        taken += await submitted(admissions, *[admitting.request(account_id) for _ in range(3)])
        refused = await submitted(admissions, *[admitting.request(account_id) for _ in range(2)])
        assert await results(refused) == ["unavailable"] * 2
        assert not any(task.done() for task in taken)
    assert await results(taken) == ["accepted"] * 4
    assert await count(db) == 4


async def test_a_request_that_waits_in_the_queue_is_refused_at_its_deadline_and_never_sent(
    db: Database, dsn: str, make_database: MakeDatabase, hold: Hold
) -> None:
    account_id = await admitting.account(db, 10)
    admissions = Admissions(
        await make_database(dsn), SystemClock(), nobody_wakes, deadline_s=0.3, batch_max=1, calls_max=1
    )
    async with hold(account_id):
        first = await submitted(admissions, admitting.request(account_id))
        await backends_waiting(db)
        queued = await submitted(admissions, *[admitting.request(account_id) for _ in range(3)])
        assert await results(queued) == ["unavailable"] * 3
        assert not first[0].done(), "what was sent is not refused before the database has said so"
    assert await results(first) == ["unavailable"], "past its deadline it was not written"
    await admissions.close()
    assert await count(db) == 0


async def test_the_server_itself_ends_a_call_that_takes_too_long(
    db: Database, dsn: str, make_database: MakeDatabase, hold: Hold
) -> None:
    account_id = await admitting.account(db, 10)
    database = await make_database(dsn, statement_timeout_s=0.2)
    admissions = Admissions(database, SystemClock(), nobody_wakes)
    async with hold(account_id):
        tasks = await submitted(admissions, admitting.request(account_id), admitting.request(account_id))
        assert await results(tasks) == ["unavailable"] * 2
    assert await count(db) == 0


async def test_past_its_deadline_a_call_writes_nothing(db: Database) -> None:
    account_id = await admitting.account(db, 10)
    with pytest.raises(asyncpg.QueryCanceledError, match="deadline"):
        await admitting.admit(db, [admitting.ask(account_id)], within_s=-0.001)
    assert await count(db) == 0


async def test_whether_an_admission_is_certain_is_the_databases_clock_to_say(db: Database) -> None:
    account_id = await admitting.account(db, 10)
    here, missing = admitting.ask(account_id), admitting.ask(account_id)
    await admitting.admit(db, [here])
    ids = [here.generation_id, missing.generation_id]
    for seconds, certain in ((60, False), (-0.001, True)):
        deadline = datetime.now(UTC) + timedelta(seconds=seconds)
        assert await store.admitted(db, deadline, [account_id], ids) == ({here.generation_id}, certain)


async def test_a_vanished_database_refuses_everything_quickly(
    tmp_path: Path, make_database: MakeDatabase, db: Database
) -> None:
    account_id = await admitting.account(db, 10)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = listener.getsockname()[1]
        for dsn in (
            f"postgresql://postgres@/nowhere?host={tmp_path}",
            f"postgresql://postgres@127.0.0.1:{port}/nowhere",
        ):
            admissions = Admissions(await make_database(dsn), SystemClock(), nobody_wakes)
            requests = [admitting.request(account_id) for _ in range(300)]
            assert set(await results(await submitted(admissions, *requests))) == {"unavailable"}


async def test_a_database_that_lets_nobody_in_is_unavailable_not_a_fault_of_the_request(
    db: Database, dsn: str, make_database: MakeDatabase
) -> None:
    account_id = await admitting.account(db, 10)
    elsewhere = dsn.replace("/test_", "/no_such_")
    for wrong in (elsewhere, dsn.replace("postgres@", "nobody@")):
        admissions = Admissions(await make_database(wrong), SystemClock(), nobody_wakes)
        tasks = await submitted(admissions, *[admitting.request(account_id) for _ in range(3)])
        assert await results(tasks) == ["unavailable"] * 3
        assert (await admissions.admit(admitting.request(account_id))).result == "unavailable"


async def test_a_database_that_only_reads_is_unavailable(
    db: Database, dsn: str, make_database: MakeDatabase
) -> None:
    """As after a failover that left us with a standby."""
    account_id = await admitting.account(db, 10)
    name = await db.fetchval("SELECT current_database()")
    await db.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    admissions = Admissions(await make_database(dsn), SystemClock(), nobody_wakes)
    assert (await admissions.admit(admitting.request(account_id))).result == "unavailable"
    tasks = await submitted(admissions, *[admitting.request(account_id) for _ in range(3)])
    assert await results(tasks) == ["unavailable"] * 3


SECRET = "a prompt that nobody else may read"
POISONS: dict[str, dict[str, Any]] = {
    "a NUL that jsonb cannot hold": {"inputs": {"generation_prompt": SECRET + "\0"}},
    "text that has no UTF-8": {"inputs": {"generation_prompt": SECRET + "\ud800"}},
    "a negative cost": {"cost": -1, "inputs": {"generation_prompt": SECRET}},
    "a cost beyond 64 bits": {"cost": 2**63, "inputs": {"generation_prompt": SECRET}},
    "no provider": {"cost": 0, "provider_order": (), "inputs": {"generation_prompt": SECRET}},
    "a medium that does not exist": {"media": "sculpture", "inputs": {"generation_prompt": SECRET}},
}


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS.keys())
async def test_a_poisoned_request_fails_alone_and_its_prompt_stays_out_of_the_logs(
    db: Database, dsn: str, make_database: MakeDatabase, poison: dict[str, Any]
) -> None:
    account_id = await admitting.account(db, 10)
    admissions = Admissions(await make_database(dsn), SystemClock(), nobody_wakes, calls_max=1)
    before = [admitting.request(account_id, cost) for cost in (4, 4)]
    after = [admitting.request(account_id, cost) for cost in (4, 2)]
    bad = admitting.request(account_id, **poison)
    with capture_logs() as logs:
        told = await results(await submitted(admissions, *before, bad, *after))
        alone = (await admissions.admit(bad)).result
    assert told == ["accepted", "accepted", "refused", "insufficient_credits", "accepted"]
    assert alone == "refused"
    assert await count(db) == 3
    assert logs
    assert SECRET not in repr(logs)
    assert all("exc_info" not in line for line in logs), "a traceback quotes the values it met"


async def test_requests_whose_callers_left_are_decided_all_the_same(
    db: Database, dsn: str, make_database: MakeDatabase, hold: Hold
) -> None:
    account_id = await admitting.account(db, 10)
    admissions = Admissions(await make_database(dsn), SystemClock(), nobody_wakes, batch_max=1, calls_max=1)
    async with hold(account_id):
        sent, queued, stays = await submitted(admissions, *[admitting.request(account_id) for _ in range(3)])
        await backends_waiting(db)
        sent.cancel()
        queued.cancel()
        await asyncio.wait([sent, queued])
    assert (await until_ended(stays)).result == "accepted"
    assert await count(db) == 3


async def test_closing_answers_what_waits_and_takes_nothing_more(
    db: Database, dsn: str, make_database: MakeDatabase, hold: Hold
) -> None:
    account_id = await admitting.account(db, 10)
    admissions = Admissions(await make_database(dsn), SystemClock(), nobody_wakes, batch_max=1, calls_max=1)
    async with hold(account_id):
        waiting = await submitted(admissions, *[admitting.request(account_id) for _ in range(3)])
        await backends_waiting(db)
        closing = asyncio.create_task(admissions.close())
        await asyncio.sleep(0)
        assert (await admissions.admit(admitting.request(account_id))).result == "unavailable"
    await until_ended(closing)
    assert await results(waiting) == ["accepted"] * 3

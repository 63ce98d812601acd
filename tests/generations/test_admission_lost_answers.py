"""When the answer of the database is lost, the customer is told the truth or that it is not known."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tests.generations import admitting
from tests.generations.conftest import Hold, MakeDatabase, backends_waiting, until_ended
from tests.generations.wire import Wire
from tests.support import ManualClock, eventually

from babysea_server.accounts.plans import load_plans
from babysea_server.catalog.catalog import Catalog
from babysea_server.db.pool import Database
from babysea_server.errors import ApiError
from babysea_server.generations.admission import Admission, Admissions
from babysea_server.generations.service import Generations
from babysea_server.kit.calls import Principal
from babysea_server.kit.clock import SystemClock
from babysea_server.routing.chain import Router

BODY = b'{"generation_prompt": "a test"}'


class Pokes:
    """Counts how often a worker would have been woken."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def principal(account_id: UUID) -> Principal:
    now = datetime.now(UTC)
    return Principal(
        region="us",
        account_id=account_id,
        plan=load_plans()["unlimited"],
        apikey_id=UUID(int=1),
        apikey_name="test",
        apikey_prefix="bye_tests",
        scopes=frozenset(),
        created_at=now,
        last_used_at=None,
        expires_at=None,
    )


async def exists(db: Database, generation_id: UUID | None) -> bool:
    return bool(await db.fetchval("SELECT true FROM generations WHERE id = $1", generation_id))


async def sleeping_or_done(clock: ManualClock, task: "asyncio.Task[Any]") -> bool:
    return clock.sleeping == 1 or task.done()


async def turn_until(clock: ManualClock, task: "asyncio.Task[Any]", *, step_s: float = 0.1) -> Any:
    """Wake the sleeper again and again until the task has ended."""

    async def turned() -> bool:
        if clock.sleeping:
            clock.advance(step_s)
        return task.done()

    await eventually(turned)
    return task.result()


async def test_a_request_that_commits_after_the_line_broke_is_told_accepted_and_wakes_a_worker(
    db: Database, wire: Wire, make_database: MakeDatabase, hold: Hold
) -> None:
    account_id = await admitting.account(db, 10)
    pokes = Pokes()
    admissions = Admissions(await make_database(wire.dsn), SystemClock(), pokes)
    asked = admitting.request(account_id, 3)
    async with hold(account_id):
        task = asyncio.create_task(admissions.admit(asked))
        await backends_waiting(db)
        wire.cut()
    admission: Admission = await until_ended(task)
    assert (admission.result, admission.generation_id) == ("accepted", asked.generation_id)
    assert admission.prediction_id == asked.prediction_id
    assert await exists(db, asked.generation_id)
    assert pokes.count == 1


async def test_an_answer_lost_on_its_way_back_is_found(
    db: Database, wire: Wire, make_database: MakeDatabase
) -> None:
    account_id = await admitting.account(db, 10)
    admissions = Admissions(await make_database(wire.dsn), SystemClock(), Pokes())
    await admissions.admit(admitting.request(account_id))  # afterwards the statement is prepared
    wire.deaf = True
    requests = [admitting.request(account_id, 3) for _ in range(3)]
    tasks = [asyncio.create_task(admissions.admit(asked)) for asked in requests]
    await eventually(lambda: exists(db, requests[-1].generation_id))
    wire.deaf = False
    wire.cut()
    results = [(await until_ended(task)).result for task in tasks]
    assert results == ["accepted"] * 3


async def test_a_terminated_backend_leaves_nothing_and_the_request_is_told_so(
    db: Database, dsn: str, make_database: MakeDatabase, hold: Hold
) -> None:
    account_id = await admitting.account(db, 10)
    admissions = Admissions(await make_database(dsn), SystemClock(), Pokes(), deadline_s=2)
    asked = admitting.request(account_id, 3)
    async with hold(account_id):
        task = asyncio.create_task(admissions.admit(asked))
        (pid,) = await backends_waiting(db)
        assert await db.fetchval("SELECT pg_terminate_backend($1)", pid)
    assert (await until_ended(task)).result == "unavailable"
    assert not await exists(db, asked.generation_id)
    assert (await admissions.admit(asked)).result == "accepted", "the next request finds a new connection"


async def test_in_a_lost_batch_only_what_was_written_is_told_accepted(
    db: Database, wire: Wire, make_database: MakeDatabase, hold: Hold
) -> None:
    account_id = await admitting.account(db, 10)
    admissions = Admissions(await make_database(wire.dsn), SystemClock(), Pokes(), deadline_s=2)
    requests = [admitting.request(account_id, cost) for cost in (6, 6, 4)]
    async with hold(account_id):
        tasks = [asyncio.create_task(admissions.admit(asked)) for asked in requests]
        await backends_waiting(db)
        wire.cut()
    results = [(await until_ended(task)).result for task in tasks]
    assert results == ["accepted", "unavailable", "accepted"]
    assert [await exists(db, asked.generation_id) for asked in requests] == [True, False, True]


async def test_a_commit_that_outlives_the_deadline_is_waited_for(
    db: Database, dsn: str, wire: Wire, make_database: MakeDatabase
) -> None:
    """A disk may stall in the middle of a commit: then neither deadline nor timeout stops it any more."""
    account_id = await admitting.account(db, 10)
    await db.execute(
        """CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$"""
    )
    await db.execute(
        """CREATE CONSTRAINT TRIGGER stalled_commit AFTER INSERT ON generations
           DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION stall()"""
    )
    through_wire = await make_database(wire.dsn)
    assert await through_wire.fetchval("SELECT 1") == 1
    clock = ManualClock(datetime.now(UTC))
    admissions = Admissions(through_wire, clock, Pokes(), deadline_s=2)
    asked = admitting.request(account_id, 3)
    deadline = clock.now() + timedelta(seconds=2)
    disk = await asyncpg.connect(dsn)
    try:
        await disk.execute("SELECT pg_advisory_lock(42)")
        task = asyncio.create_task(admissions.admit(asked))
        await backends_waiting(db)
        wire.cut()
        await eventually(lambda: db.fetchval("SELECT clock_timestamp() > $1", deadline))
        for seconds in (3.5, 0.1):  # the second look has certainly begun past the deadline
            await eventually(lambda: sleeping_or_done(clock, task))
            clock.advance(seconds)
        await eventually(lambda: sleeping_or_done(clock, task))
        assert not task.done(), "the deadline is over, the commit is not"
    finally:
        await disk.close()
    assert (await turn_until(clock, task)).result == "accepted"
    assert await exists(db, asked.generation_id)


async def test_a_clock_that_runs_ahead_does_not_declare_lost_what_may_still_be_accepted(
    db: Database, wire: Wire, make_database: MakeDatabase, hold: Hold
) -> None:
    """The deadline is over when the database's clock says so: that is the clock admission itself reads."""
    account_id = await admitting.account(db, 10)
    clock = ManualClock(datetime.now(UTC))
    admissions = Admissions(await make_database(wire.dsn), clock, Pokes(), deadline_s=60)
    asked = admitting.request(account_id, 3)
    async with hold(account_id):
        task = asyncio.create_task(admissions.admit(asked))
        await backends_waiting(db)
        wire.cut()
        clock.advance(62)
        await eventually(lambda: sleeping_or_done(clock, task))
    assert (await turn_until(clock, task)).result == "accepted"


@pytest.mark.parametrize(("key", "code"), [("order-1", "BSE2016"), (None, "BSE5001")])
async def test_what_cannot_be_found_out_is_never_told_accepted_or_refused(
    db: Database,
    wire: Wire,
    make_database: MakeDatabase,
    hold: Hold,
    catalog: Catalog,
    key: str | None,
    code: str,
) -> None:
    account_id = await admitting.account(db, 1_000_000)
    clock = ManualClock(datetime.now(UTC))
    admissions = Admissions(await make_database(wire.dsn), clock, Pokes(), deadline_s=20)
    generations = Generations(catalog, Router(lambda _: True), admissions, lambda _media, _length: 600)

    def generate() -> "asyncio.Task[Admission]":
        caller = principal(account_id)
        return asyncio.create_task(generations.generate(caller, "image", "sandbox/image", BODY, key))

    async with hold(account_id):
        task = generate()
        await backends_waiting(db)
        wire.refusing = True
        wire.cut()
        with pytest.raises(ApiError) as refusal:
            await turn_until(clock, task, step_s=2)
    assert refusal.value.spec.code == code
    assert refusal.value.spec.retryable == (key is not None), "without a key a repetition may buy twice"
    assert refusal.value.headers == ({"retry-after": "1"} if key else {})

    wire.refusing = False
    count = "SELECT count(*) FROM generations WHERE account_id = $1"
    await eventually(lambda: db.fetchval(count, account_id))  # it had been accepted all the same
    if key is not None:
        assert (await generate()).result == "replayed"
        assert await db.fetchval(count, account_id) == 1

"""The sandbox's job service by itself, and how it is told what to do."""

import asyncio
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from tests.support import eventually

from babysea_server.catalog.catalog import load_catalog
from babysea_server.db.pool import Database
from babysea_server.providers.base import (
    Accepted,
    Answer,
    AnswerLostError,
    Failure,
    Finished,
    Job,
    NeverSentError,
    NotFound,
    Refused,
    Request,
    Running,
    Unclear,
)
from babysea_server.providers.sandbox import adapter
from babysea_server.providers.sandbox.adapter import SandboxProvider
from babysea_server.providers.sandbox.behavior import (
    BEHAVIORS,
    Behavior,
    UnknownBehaviorError,
    choose,
    parse,
    plain_prompt,
)
from babysea_server.providers.sandbox.upstream import SandboxUpstream

MODEL = load_catalog(None).all_models["sandbox/image"]
PROVIDER = SandboxProvider()


def _job(prompt: str = "a test", **inputs: object) -> Job:
    return Job(uuid4(), "sandbox", MODEL, {"generation_prompt": prompt, **inputs})


class Desk:
    """The adapter's questions to one instance of the service."""

    def __init__(self, db: Database, latency_s: float = 0.0) -> None:
        self.upstream = SandboxUpstream(db, latency_s=latency_s, image_edge=64)

    async def submit(self, job: Job) -> Accepted:
        answer = PROVIDER.read_submit(job, await self.send(PROVIDER.build_submit(job)))
        assert isinstance(answer, Accepted)
        return answer

    async def poll(self, job: Job, ticket: Accepted) -> Running | Finished | Refused:
        return PROVIDER.read_poll(job, ticket, await self.send(PROVIDER.build_poll(job, ticket)))

    async def reconcile(self, job: Job) -> Accepted | NotFound | Unclear:
        request = PROVIDER.build_reconcile(job)
        assert request is not None
        return PROVIDER.read_reconcile(job, await self.send(request))

    async def cancel(self, job: Job, ticket: Accepted) -> bool:
        request = PROVIDER.build_cancel(job, ticket)
        assert request is not None
        return PROVIDER.read_cancel(job, await self.send(request))

    async def send(self, request: Request, *, timeout_s: float = 10.0, body_max: int = 10_000_000) -> Answer:
        return await self.upstream.send(request, timeout_s=timeout_s, body_max=body_max)


@pytest.fixture
def desk(db: Database) -> Desk:
    return Desk(db)


async def test_a_job_and_its_files_outlive_the_worker_that_submitted_it(db: Database) -> None:
    job = _job(generation_output_number=2)
    ticket = await Desk(db).submit(job)
    files = []
    for _ in range(2):
        other = Desk(db)
        finished = await other.poll(job, ticket)
        assert isinstance(finished, Finished)
        assert finished.cost_micro == 0
        urls = [output.url for output in finished.outputs if output.url is not None]
        files.append([(await other.send(Request("GET", url))).body for url in urls])
    assert files[0] == files[1]
    assert len(set(files[0])) == 2
    assert all(file.startswith(b"\x89PNG") for file in files[0])


async def test_a_job_is_asynchronous_and_says_when_to_look_again(db: Database) -> None:
    desk, job = Desk(db, latency_s=30.0), _job()
    ticket = await desk.submit(job)
    assert ticket.poll_after_s == 30.0
    running = await desk.poll(job, ticket)
    assert isinstance(running, Running)
    assert running.poll_after_s is not None
    assert 25 < running.poll_after_s <= 30
    await db.execute("UPDATE sandbox.jobs SET ready_at = now()")
    assert isinstance(await desk.poll(job, ticket), Finished)


async def test_reconciliation_finds_exactly_what_arrived(desk: Desk) -> None:
    arrived, missing = _job("[sandbox:lose_answer]"), _job("[sandbox:lose_request]")
    for job in (arrived, missing):
        with pytest.raises(AnswerLostError):
            await desk.send(PROVIDER.build_submit(job))
    found = await desk.reconcile(arrived)
    assert isinstance(found, Accepted)
    assert isinstance(await desk.poll(arrived, found), Finished)
    assert await desk.reconcile(missing) == NotFound()
    with pytest.raises(NeverSentError):
        await desk.send(PROVIDER.build_submit(_job("[sandbox:never_sent]")))


async def test_a_second_purchase_would_show_as_a_second_row(desk: Desk, db: Database) -> None:
    job = _job()
    await desk.submit(job)
    await desk.submit(job)
    count = await db.fetchval("SELECT count(*) FROM sandbox.jobs WHERE reference = $1", str(job.attempt_id))
    assert count == 2


async def test_a_running_job_can_be_canceled_once_and_a_finished_one_cannot(db: Database) -> None:
    desk, running, done = Desk(db, latency_s=60.0), _job(), _job("[sandbox:slow:0]")
    ticket = await desk.submit(running)
    assert [await desk.cancel(running, ticket) for _ in range(2)] == [True, False]
    refused = await desk.poll(running, ticket)
    assert isinstance(refused, Refused)
    assert refused.failure is Failure.FAILED
    assert not await desk.cancel(done, await desk.submit(done))
    never = _job("[sandbox:time_out]")
    assert await desk.cancel(never, await desk.submit(never))


async def test_a_job_that_does_not_exist_has_failed(desk: Desk) -> None:
    job, ticket = _job(), Accepted("sbx_none/../x")
    refused = await desk.poll(job, ticket)
    assert isinstance(refused, Refused)
    assert not await desk.cancel(job, ticket)
    assert (await desk.send(Request("GET", f"{adapter.BASE}/jobs/sbx_none/files/0"))).status == 404
    assert (await desk.send(Request("DELETE", f"{adapter.BASE}/jobs"))).status == 404


async def test_an_answer_has_its_bound_and_its_deadline(desk: Desk, db: Database) -> None:
    job = _job()
    ticket = await desk.submit(job)
    finished = await desk.poll(job, ticket)
    assert isinstance(finished, Finished)
    assert finished.outputs[0].url is not None
    with pytest.raises(AnswerLostError):
        await desk.send(Request("GET", finished.outputs[0].url), body_max=100)
    async with db.transaction() as blocking:
        await blocking.execute("LOCK TABLE sandbox.jobs IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(AnswerLostError):
            await desk.send(PROVIDER.build_poll(job, ticket), timeout_s=0.05)


async def test_thousands_of_polls_leave_connections_for_the_worker(desk: Desk, db: Database) -> None:
    """The pool has ten; a lease that cannot be renewed behind polls would be a lease lost."""
    job = _job()
    ticket = await desk.submit(job)
    async with db.transaction() as blocking:
        await blocking.execute("LOCK TABLE sandbox.jobs IN ACCESS EXCLUSIVE MODE")
        polls = [asyncio.create_task(desk.poll(job, ticket)) for _ in range(200)]

        async def blocked() -> bool:
            waiting = await db.fetchval(
                """SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'"""
            )
            return bool(waiting >= 4)

        await eventually(blocked)
        assert await db.fetchval("SELECT 1") == 1
    assert {type(answer) for answer in await asyncio.gather(*polls)} == {Finished}


async def test_old_jobs_are_forgotten_in_maintenance(desk: Desk, db: Database) -> None:
    for _ in range(3):
        await desk.submit(_job())
    await db.execute(
        "UPDATE sandbox.jobs SET created_at = now() - interval '8 days' WHERE id <> (SELECT min(id) FROM sandbox.jobs)"
    )
    await desk.upstream.maintain()
    assert await db.fetchval("SELECT count(*) FROM sandbox.jobs") == 1


async def test_a_database_that_is_away_means_never_sent(tmp_path: Path) -> None:
    away = Database(f"postgresql:///none?host={tmp_path}", name="test", size=2)
    await away.open()
    with pytest.raises(NeverSentError):
        await Desk(away).send(PROVIDER.build_submit(_job()), timeout_s=0.3)
    await away.close()


# ----------------------------------------------------------------------------------------- what it is told

SETTINGS = {"fal": Behavior("fail"), "*": Behavior("slow", 3.0)}


@pytest.mark.parametrize(
    ("prompt", "provider", "chosen"),
    [
        ("a boat", "fal", "fail"),
        ("a boat", "bfl", "slow:3"),
        ("a boat [sandbox:no_output]", "fal", "no_output"),
        ("[sandbox:fal=ok] a boat", "fal", "ok"),
        ("[sandbox:fal=ok] a boat", "bfl", "slow:3"),
        ("[sandbox:fail,bfl=ok]", "bfl", "ok"),
        ("[sandbox:bfl=ok,fail]", "replicate", "fail"),
        ("[sandbox:fail][sandbox:bfl=slow:0.5]", "bfl", "slow:0.5"),
        ("[sandbox: fal = refuse_busy , bfl=ok]", "fal", "refuse_busy"),
        ("[sandbox:explode,fal=nothing] means nothing", "fal", "fail"),
        ("[sandbox:slow]", "fal", "slow:5"),
        ("[sandbox:slow:-1]", "bfl", "slow:3"),
        ("[sandbox:slow:nan]", "bfl", "slow:3"),
        ("[sandbox:]", "bfl", "slow:3"),
    ],
)
def test_words_before_settings_and_the_provider_before_all(prompt: str, provider: str, chosen: str) -> None:
    assert str(choose(provider, prompt, SETTINGS)) == chosen


def test_without_words_and_settings_it_is_ok() -> None:
    assert choose("fal", "a boat", {}) == Behavior("ok")


@pytest.mark.parametrize("name", list(BEHAVIORS))
def test_a_behaviour_reads_back_as_it_is_written(name: str) -> None:
    assert parse(str(parse(name))) == parse(name)


@pytest.mark.parametrize("text", ["", "explode", "slow:soon", "slow:3601", "slow:-1", "slow:nan", "slow:inf"])
def test_a_behaviour_that_does_not_exist_is_named(text: str) -> None:
    with pytest.raises(UnknownBehaviorError):
        parse(text)


def test_magic_words_are_not_drawn() -> None:
    assert plain_prompt("[sandbox:fail] a boat [sandbox:fal=ok]") == "a boat"
    assert plain_prompt("[harbour] a boat") == "[harbour] a boat"


# ----------------------------------------------------------------------------------------- the adapter


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", msgspec.json.encode({"status": "new"})])
def test_an_answer_that_says_nothing_is_a_job_still_running(body: bytes) -> None:
    job, ticket = _job(), Accepted("x")
    assert PROVIDER.read_poll(job, ticket, Answer(200, {}, body)) == Running()
    assert PROVIDER.read_reconcile(job, Answer(503, {}, body)) == Unclear()
    refused = PROVIDER.read_submit(job, Answer(503, {}, body))
    assert isinstance(refused, Refused)
    assert refused.failure is Failure.FAILED

"""API and worker processes of one data directory: attached to one database, stopped while they work."""

import asyncio
import signal
from decimal import Decimal

from tests.e2e.load import Outcome, storm, submit
from tests.e2e.system import PATIENCE_S, Api, System
from tests.support import eventually

from babysea_server.kit.money import MICROS_PER_CREDIT

_MODEL = "bfl/flux-schnell"
_IN_HAND = "SELECT count(*) FROM generations WHERE status = 'processing' AND worker_id IS NOT NULL"


async def _customer(system: System, credits: Decimal) -> str:
    """The key of a new account."""
    account = await system.cli("accounts", "create", "--name", "Customer", "--plan", "unlimited")
    account_id = account["account_id"]
    await system.cli("credits", "add", "--account", account_id, "--amount", str(credits))
    key = await system.cli(
        "keys", "create", "--account", account_id, "--name", "k", "--preset", "full_access"
    )
    secret: str = key["api_key"]
    return secret


async def test_two_apis_accept_exactly_what_the_account_can_pay(system: System) -> None:
    payable, asked = 600, 1000
    # The first process brings the database up and goes again: the others hold it.
    first, _ = await system.api()
    _, one = await system.api()
    _, two = await system.api()
    await system.worker()
    assert await first.stop() == 0
    one.key = two.key = system.quickstart["api_key"]
    price = Decimal(str((await one.data(f"/v1/estimate/{_MODEL}"))["cost_per_generation"]))
    one.key = two.key = await _customer(system, price * payable)

    outcome = Outcome()
    await storm((one, two), [str(n) for n in range(asked)], outcome, model=_MODEL)
    assert len(set(outcome.accepted.values())) == payable
    assert outcome.codes == {"BSE1004": asked - payable}
    await system.all_settled()
    assert (await one.data("/v1/status"))["account_id"] == (await two.data("/v1/status"))["account_id"]
    # What could not be bought on a machine that stood still for seconds went back; nothing else did.
    refunded = await system.value("SELECT coalesce(sum(refunded), 0)::bigint FROM generations")
    balance = (await two.data(f"/v1/estimate/{_MODEL}"))["credit_balance"]
    assert Decimal(str(balance)) == Decimal(refunded) / MICROS_PER_CREDIT
    assert refunded < price * payable * MICROS_PER_CREDIT / 2
    await system.books_are_clean()


async def _until_refused(api: Api, prefix: str, outcome: Outcome) -> None:
    """One client that submits until the server does not take it any more."""
    count = 0
    while not outcome.codes:
        await submit(api, f"{prefix}-{count}", outcome)
        count += 1


async def test_an_api_that_is_stopped_answers_what_it_accepted_and_takes_nothing_more(system: System) -> None:
    await system.worker()
    process, api = await system.api(system.quickstart["api_key"])
    outcome = Outcome()
    async with asyncio.TaskGroup() as group:
        for client in range(16):
            group.create_task(_until_refused(api, str(client), outcome))
        await system.reaches("SELECT count(*) FROM generations", 50)
        process.send(signal.SIGTERM)
    assert await process.ended() == 0
    assert "Traceback" not in process.err
    # Draining answers BSE5002; a connection that was idle or came too late is closed without any answer.
    assert set(outcome.codes) <= {"BSE5002", "lost"}
    rows = await system.query("SELECT generation_id::text AS id, key FROM idempotency_keys")
    assert {row["key"]: row["id"] for row in rows} == outcome.accepted
    await system.all_settled()
    await system.books_are_clean()


async def test_an_api_that_drains_serves_while_it_says_that_it_is_not_ready(system: System) -> None:
    key = system.quickstart["api_key"]
    process, api = await system.api(key, BABYSEA_DRAIN_S="300")
    process.send(signal.SIGTERM)

    async def unready() -> bool:
        return (await api.client.get(f"{api.base}/readyz")).status_code == 503

    await eventually(unready, within_s=PATIENCE_S)
    outcome = Outcome()
    assert await submit(api, "while-it-drains", outcome), outcome.codes
    await process.kill()

    process, api = await system.api(key, BABYSEA_DRAIN_S="0.2")
    assert await process.stop() == 0


async def test_a_worker_that_is_stopped_gives_its_work_back_at_once(system: System) -> None:
    # Nobody waits for a lease of ten minutes to run out: the work is done only if it was given back.
    leases = {"BABYSEA_WORKER_LEASE_S": "600", "BABYSEA_SANDBOX_LATENCY_S": "3"}
    _, api = await system.api(system.quickstart["api_key"])
    stopped = await system.worker(**leases)
    outcome = Outcome()
    count = 30
    assert all(await asyncio.gather(*(submit(api, str(n), outcome) for n in range(count))))
    await system.reaches(_IN_HAND, count)
    await system.worker(**leases)
    assert await stopped.stop() == 0
    assert "Traceback" not in stopped.err
    await system.all_settled()
    rows = await system.query("SELECT status::text, count(*) FROM generations GROUP BY status")
    assert [tuple(row) for row in rows] == [("succeeded", count + 1)]
    assert await system.value("SELECT count(*) FROM sandbox.jobs") == count + 1
    await system.books_are_clean()

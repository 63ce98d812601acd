"""Many machines that share nothing but a PostgreSQL, a Redis, a bucket and the master key."""

import asyncio
import re
from collections import Counter
from functools import partial
from uuid import UUID, uuid4

import httpx
import pytest
from tests.console.support import forms_of
from tests.e2e.load import Outcome, insist
from tests.e2e.system import Api
from tests.limits.servers import needs_redis
from tests.postgres15 import needs_postgres15
from tests.scale.conftest import Running
from tests.support import eventually
from tests.webhooks.receiver import receiver

from babysea.webhooks import verify

#: Five processes start before the first test; where everybody works at once each takes seconds.
pytestmark = [needs_postgres15, needs_redis, pytest.mark.timeout(400)]


async def _refused(api: Api) -> bool:
    return (await api.request("GET", "/v1/usage")).status_code == 401


async def test_what_one_machine_takes_another_does_and_a_third_serves(running: Running) -> None:
    account, one, two = await running.customer()
    async with receiver() as customer:
        made = await running.hosts[4].cli(
            *("webhooks", "create", "--account", str(account), "--url", f"{customer.origin}/hook"),
            *("--events", "generation.completed"),
        )
        outcome = Outcome()
        await asyncio.gather(
            insist(one, [f"a{number}" for number in range(10)], outcome, clients=2),
            insist(two, [f"b{number}" for number in range(10)], outcome, clients=2),
        )
        files = []
        for generation_id in outcome.accepted.values():
            generation = await two.finished(generation_id)
            assert generation["generation_status"] == "succeeded"
            files += generation["generation_output_file"]
        got = await customer.has("/hook", len(outcome.accepted))
    for each in got:
        verify(each.body, each.headers, made["webhook_secret"])
    told = Counter(each.data["generation_id"] for each in got)
    assert told == Counter(outcome.accepted.values())
    for url in files:
        path = url[url.index("/files/") :]
        served = [await api.client.get(api.base + path) for api in (one, two)]
        assert [answer.status_code for answer in served] == [200, 200]
        assert served[0].content == served[1].content
    assert len(files) == len(outcome.accepted)
    # Nothing of it is on any machine.
    assert not [path for host in running.hosts for path in (host.data_dir / "files").rglob("*.*")]


async def test_both_workers_take_their_share(running: Running) -> None:
    _, one, two = await running.customer()
    outcome = Outcome()
    await asyncio.gather(
        insist(one, [f"a{number}" for number in range(40)], outcome, clients=8),
        insist(two, [f"b{number}" for number in range(40)], outcome, clients=8),
    )
    for generation_id in outcome.accepted.values():
        await one.finished(generation_id)
    workers = await running.machines.db.fetch("SELECT host, pid FROM workers")
    assert {row["pid"] for row in workers} >= {worker.pid for worker in running.workers}


async def test_a_key_that_is_revoked_on_one_machine_ends_on_all(running: Running) -> None:
    account, one, two = await running.customer()
    assert [await _refused(one), await _refused(two)] == [False, False]
    key = await running.machines.db.fetchval("SELECT id FROM api_keys WHERE account_id = $1", account)
    await running.hosts[3].cli("keys", "revoke", str(key))
    for api in (one, two):
        await eventually(partial(_refused, api))


async def test_a_key_that_is_revoked_in_the_console_ends_on_all(running: Running) -> None:
    account, one, two = await running.customer()
    assert [await _refused(one), await _refused(two)] == [False, False]
    invited = await running.hosts[4].cli(
        *("users", "invite", f"{uuid4().hex[:8]}@example.com", "--account", str(account), "--role", "owner")
    )
    async with httpx.AsyncClient(base_url=running.console, follow_redirects=True, trust_env=False) as browser:
        link = next(value for value in invited.values() if "/console/" in str(value))
        token = link.rpartition("/")[2]
        page = await browser.get(f"/console/sign-up?invitation={token}")
        page = await _sent(browser, page, "/sign-up", name="Ada", password="correct horse battery")
        slug = re.search(r"/console/us/([\w-]+)", str(page.url) + page.text)
        assert slug is not None, page.text
        key = await running.machines.db.fetchval("SELECT id FROM api_keys WHERE account_id = $1", account)
        page = await browser.get(f"/console/us/{slug[1]}/api-keys/{key}/revoke")
        await _sent(browser, page, "/revoke")
    for api in (one, two):
        await eventually(partial(_refused, api))


async def _sent(browser: httpx.AsyncClient, page: httpx.Response, end: str, **typed: str) -> httpx.Response:
    """The first form of the page whose address ends so, filled in and sent."""
    assert page.status_code == 200, page.text
    forms = [form for form in forms_of(page.text) if form.action.partition("?")[0].endswith(end)]
    assert forms, f"no form for {end}: {page.text}"
    form = forms[0]
    answer = await browser.post(form.action or str(page.url), data={**dict(form.fields), **typed})
    assert answer.status_code == 200, answer.text
    return answer


async def test_two_machines_hold_one_rate(running: Running) -> None:
    _, one, two = await running.customer(plan="slow")
    answers = []
    for _ in range(6):
        answers += await asyncio.gather(
            *(api.request("GET", "/v1/usage") for api in (one, two) for _ in range(15))
        )
    # A minute may end in between.
    passed: Counter[str] = Counter()
    for answer in answers:
        assert answer.status_code in (200, 429)
        passed[answer.headers["x-ratelimit-reset"]] += answer.status_code == 200
    assert max(passed.values()) <= 60
    assert sum(passed.values()) >= 60


async def test_two_machines_hold_one_limit_of_generations_in_flight(running: Running) -> None:
    _, one, two = await running.customer(plan="narrow")
    prompt = "[sandbox:slow:30] a test"
    answers = await asyncio.gather(
        *(one.generate(key=f"one-{number}", generation_prompt=prompt) for number in range(6)),
        *(two.generate(key=f"two-{number}", generation_prompt=prompt) for number in range(6)),
    )
    taken = [answer.json()["data"]["generation_id"] for answer in answers if answer.status_code == 200]
    in_flight = await running.machines.db.fetchval(
        "SELECT count(*) FROM generations WHERE id = ANY ($1) AND status IN ('pending', 'processing')",
        [UUID(generation_id) for generation_id in taken],
    )
    assert in_flight == len(taken) == 3
    assert {answer.status_code for answer in answers} == {200, 429}


async def test_machines_that_die_lose_nothing_and_buy_nothing_twice(running: Running) -> None:
    """Also when the machine is gone for good, with its disk: another one takes over."""
    _, one, _ = await running.customer()
    outcome = Outcome()
    spare = running.machines.machine()
    spare.environment |= running.hosts[2].environment
    async with asyncio.TaskGroup() as group:
        group.create_task(insist(one, [f"k{number}" for number in range(60)], outcome, clients=8))
        worker = await spare.worker()
        await worker.kill()
    for generation_id in outcome.accepted.values():
        assert (await one.finished(generation_id))["generation_status"] == "succeeded"
    counts = await running.machines.db.fetch(
        "SELECT count(*) AS n FROM attempts WHERE generation_id = ANY ($1) GROUP BY generation_id",
        [UUID(generation_id) for generation_id in outcome.accepted.values()],
    )
    assert len(counts) == len(outcome.accepted)
    await running.hosts[0].books_are_clean()


async def test_what_is_done_again_and_again_is_done_once(running: Running) -> None:
    """Months that began, balances that are low, and their mail: four workers look at once, each thing happens once."""
    db = running.machines.db
    customers = [await running.customer(plan="monthly", credits="0.5") for _ in range(10)]
    accounts = [account for account, _, _ in customers]
    # Three periods have ended since.
    await db.execute(
        """UPDATE accounts SET email = id || '@example.com', period_anchor = now() - interval '100 days',
                  period_starts_at = now() - interval '100 days', period_ends_at = now() - interval '72 days'
           WHERE id = ANY ($1)""",
        accounts,
    )
    taken = [await one.generate(key="k") for _, one, _ in customers]
    assert {answer.status_code for answer in taken} == {200}
    for host in running.hosts[2:4]:
        spare = running.machines.machine()
        spare.environment |= host.environment
        spare.start("worker")
    await running.machines.becomes(
        "SELECT count(*) FROM accounts WHERE id = ANY ($1) AND period_ends_at > now()", 10, accounts
    )
    await running.machines.becomes(
        "SELECT count(DISTINCT account_id) FROM notices WHERE account_id = ANY ($1) AND mail_state = 'sent'",
        10,
        accounts,
    )
    granted = await db.fetch(
        """SELECT account_id, count(*) AS times, count(DISTINCT description) AS periods, sum(amount) AS amount
           FROM ledger WHERE account_id = ANY ($1) AND kind = 'add' AND description LIKE 'Plan monthly%'
           GROUP BY account_id""",
        accounts,
    )
    assert [(row["times"], row["periods"], row["amount"]) for row in granted] == [(3, 3, 21_000_000)] * 10
    told = await db.fetchval("SELECT count(*) FROM notices WHERE account_id = ANY ($1)", accounts)
    mailed = Counter(str(mail["To"]) for mail in running.mailbox.mails)
    assert told == 10
    assert mailed == Counter(f"{account}@example.com" for account in accounts)
    await running.hosts[0].books_are_clean()


async def test_what_would_stay_on_one_machine_is_said_when_a_process_begins(running: Running) -> None:
    machine = running.machines.machine()
    del machine.environment["STORAGE_URL"], machine.environment["MASTER_KEY"]
    worker = await machine.worker()
    for event in ("files_are_local", "master_key_made"):
        assert worker.err.count(event) == 1
    assert str(machine.data_dir) in worker.err
    for process in running.workers:
        assert "files_are_local" not in process.err
        assert "master_key_made" not in process.err

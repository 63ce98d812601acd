"""What a plan gives an account: at once, and with each period; each of it once, whatever happens."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
import structlog
from tests.conftest import MakeDeployment
from tests.support import eventually

from babysea_server.accounts import store
from babysea_server.accounts.periods import Period, months_after
from babysea_server.accounts.plans import load_plans
from babysea_server.accounts.service import Renewals, change_plan, create_account
from babysea_server.accounts.store import Account, Grant
from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.kit.calls import Plan
from babysea_server.kit.clock import rfc3339
from babysea_server.kit.faults import NotFoundError
from babysea_server.kit.ids import uuid7
from babysea_server.kit.money import MICROS_PER_CREDIT
from babysea_server.ledger.verify import verify

PLANS = load_plans()


@pytest.fixture
def plans() -> Mapping[str, Plan]:
    return dict(PLANS)


async def put(db: Database, account: Account, plan: str) -> Account:
    return await change_plan(db, PLANS, account.id, PLANS[plan])


async def sources(db: Database, account_id: UUID) -> list[str]:
    rows = await db.fetch(
        "SELECT source FROM credit_grants WHERE account_id = $1 ORDER BY ledger_id", account_id
    )
    return [row["source"] for row in rows]


async def credits(db: Database, account_id: UUID) -> float:
    return await store.balance(db, account_id) / MICROS_PER_CREDIT


async def set_back(db: Database, account: Account, months: int) -> Period:
    """Make the account's first period one that began so many months and an hour ago."""
    now = await db.fetchval("SELECT date_trunc('milliseconds', now())")
    anchor = months_after(now - timedelta(hours=1), -months)
    period = Period(anchor, anchor, months_after(anchor, 1))
    await db.execute(
        "UPDATE accounts SET period_anchor = $2, period_starts_at = $2, period_ends_at = $3 WHERE id = $1",
        account.id,
        period.anchor,
        period.ends_at,
    )
    return period


def monthly(plan: str, *starts: datetime) -> list[str]:
    return [f"period:{plan}:{rfc3339(start)}" for start in starts]


def boundaries(period: Period, count: int) -> list[datetime]:
    return [months_after(period.anchor, number) for number in range(1, count + 1)]


# ------------------------------------------------------------------------------------------ entering a plan


async def test_a_welcome_is_given_once_in_the_life_of_an_account(db: Database) -> None:
    account = await create_account(db, PLANS["free"], name="A")
    assert (account.credit_balance, account.period) == (MICROS_PER_CREDIT, None)
    for plan in ("unlimited", "free", "free"):
        account = await put(db, account, plan)
    assert account.credit_balance == MICROS_PER_CREDIT
    assert await sources(db, account.id) == ["welcome"]

    late = await put(db, await create_account(db, PLANS["unlimited"], name="B"), "free")
    assert late.credit_balance == MICROS_PER_CREDIT
    assert await verify(db) == []


async def test_a_plan_with_monthly_credits_begins_a_period_and_gives_them_at_once(db: Database) -> None:
    account = await create_account(db, PLANS["pro"], name="A")
    assert account.period is not None
    assert account.period == Period.first(account.created_at)
    assert account.credit_balance == 29 * MICROS_PER_CREDIT
    assert await sources(db, account.id) == monthly("pro", account.period.starts_at)
    assert account.plan_changed_at is None
    ledger = await db.fetchrow("SELECT kind::text, amount, description FROM ledger")
    begins, ends = account.period.starts_at.date(), account.period.ends_at.date()
    assert tuple(ledger) == ("add", 29 * MICROS_PER_CREDIT, f"Plan pro, {begins} to {ends}")


async def test_another_plan_in_the_same_period_adds_its_credits_once_and_coming_back_adds_none(
    db: Database,
) -> None:
    account = await create_account(db, PLANS["pro"], name="A")
    period = account.period
    assert period is not None
    for plan, total in (("scale", 128), ("pro", 128), ("scale", 128), ("starter", 137), ("starter", 137)):
        account = await put(db, account, plan)
        assert (account.plan, account.credit_balance) == (plan, total * MICROS_PER_CREDIT)
        assert account.period == period
    assert await sources(db, account.id) == [
        source for plan in ("pro", "scale", "starter") for source in monthly(plan, period.starts_at)
    ]
    assert await verify(db) == []


async def test_a_plan_without_monthly_credits_ends_the_period_and_takes_nothing_away(db: Database) -> None:
    account = await create_account(db, PLANS["pro"], name="A")
    account = await put(db, account, "unlimited")
    assert (account.period, account.credit_balance) == (None, 29 * MICROS_PER_CREDIT)
    await Renewals(db, PLANS).run()
    assert await credits(db, account.id) == 29


async def test_when_a_plan_changed_is_noted_and_entering_it_again_is_no_change(db: Database) -> None:
    account = await create_account(db, PLANS["free"], name="A")
    changed = await put(db, account, "pro")
    assert changed.plan_changed_at is not None
    assert changed.plan_changed_at > account.created_at
    assert await put(db, changed, "pro") == changed


async def test_entering_a_plan_again_gives_what_its_file_has_learned_to_give(
    db: Database, plans: dict[str, Plan]
) -> None:
    account = await create_account(db, PLANS["unlimited"], name="A")
    plans["unlimited"] = Plan("unlimited", None, None, monthly_credits=5, welcome_credits=2)
    account = await change_plan(db, plans, account.id, plans["unlimited"])
    assert account.credit_balance == 7 * MICROS_PER_CREDIT
    assert account.period is not None


async def test_the_plan_of_an_account_that_is_not_there_is_not_changed(db: Database) -> None:
    missing = uuid7()
    with pytest.raises(NotFoundError, match=f"no account {missing} in this region"):
        await change_plan(db, PLANS, missing, PLANS["pro"])


async def test_an_account_that_cannot_be_made_gets_nothing(db: Database) -> None:
    for name, email in (("", None), ("n" * 101, None), ("A", "nobody")):
        with pytest.raises(ValueError, match=r"1 to 100 characters|not an e-mail address"):
            await create_account(db, PLANS["pro"], name=name, email=email)
    assert await db.fetchval("SELECT count(*) FROM accounts") == 0
    assert await db.fetchval("SELECT count(*) FROM ledger") == 0


async def test_changes_of_one_account_at_once_give_each_plans_credits_once(db: Database) -> None:
    account = await create_account(db, PLANS["starter"], name="A")
    await asyncio.gather(*(put(db, account, plan) for plan in ("pro", "scale", "enterprise", "pro") * 3))
    assert await credits(db, account.id) == 9 + 29 + 99 + 199
    assert await verify(db) == []


async def test_a_grant_at_many_hands_at_once_is_given_once(db: Database) -> None:
    account = await create_account(db, PLANS["unlimited"], name="A")

    async def grant() -> None:
        async with db.transaction() as connection:
            await store.grant(connection, [Grant(account.id, "gift", 3, "A gift")])

    await asyncio.gather(*(grant() for _ in range(10)))
    assert await store.balance(db, account.id) == 3
    async with db.transaction() as connection:
        await store.grant(connection, [Grant(uuid7(), "gift", 3, "To nobody")])
    assert await db.fetchval("SELECT count(*) FROM credit_grants") == 1


# ------------------------------------------------------------------------------------------ renewal


async def test_a_period_that_is_over_is_followed_by_the_next_with_its_credits(db: Database) -> None:
    account = await create_account(db, PLANS["pro"], name="A")
    first = await set_back(db, account, 1)
    await Renewals(db, PLANS).run()
    renewed = await store.get(db, account.id)
    assert renewed is not None
    assert renewed.period == Period(first.anchor, first.ends_at, months_after(first.anchor, 2))
    assert renewed.credit_balance == 58 * MICROS_PER_CREDIT
    assert (await sources(db, account.id))[1:] == monthly("pro", first.ends_at)
    await Renewals(db, PLANS).run()
    assert await store.get(db, account.id) == renewed


async def test_a_period_that_still_runs_is_left_alone(db: Database) -> None:
    account = await create_account(db, PLANS["pro"], name="A")
    await Renewals(db, PLANS).run()
    assert await store.get(db, account.id) == account


async def test_each_missed_period_is_granted_once(db: Database) -> None:
    account = await create_account(db, PLANS["starter"], name="A")
    first = await set_back(db, account, 14)
    await Renewals(db, PLANS).run()
    assert await credits(db, account.id) == 9 * 15
    assert (await sources(db, account.id))[1:] == monthly("starter", *boundaries(first, 14))
    assert await verify(db) == []


async def test_missed_periods_are_the_old_plans_also_when_the_plan_changes_first(db: Database) -> None:
    account = await create_account(db, PLANS["starter"], name="A")
    first = await set_back(db, account, 2)
    changed = await put(db, account, "pro")
    one, two = boundaries(first, 2)
    assert (await sources(db, account.id))[1:] == [*monthly("starter", one, two), *monthly("pro", two)]
    assert changed.period == Period(first.anchor, two, months_after(first.anchor, 3))
    await Renewals(db, PLANS).run()
    assert await credits(db, account.id) == 9 * 3 + 29


async def test_several_workers_renew_many_accounts_without_granting_twice(db: Database) -> None:
    await db.execute(
        """INSERT INTO accounts (id, name, plan, period_anchor, period_starts_at, period_ends_at)
           SELECT gen_random_uuid(), 'A', 'pro', m, m, m + interval '1 month'
           FROM generate_series(1, 250), (SELECT now() - interval '2 months 1 day' AS m) AS begun"""
    )
    await asyncio.gather(*(Renewals(db, PLANS).run() for _ in range(4)))
    await Renewals(db, PLANS).run()  # those that were held by somebody who then ended
    assert await db.fetchval("SELECT count(*) FROM accounts WHERE period_ends_at <= now()") == 0
    assert await db.fetch("SELECT DISTINCT credit_balance FROM accounts") == [(2 * 29 * MICROS_PER_CREDIT,)]
    assert await db.fetchval("SELECT count(*) FROM credit_grants") == 500
    assert await verify(db) == []


async def test_an_account_that_somebody_holds_is_left_for_later_and_holds_up_no_other(db: Database) -> None:
    held, other = [await create_account(db, PLANS["pro"], name=name) for name in "ab"]
    for account in (held, other):
        await set_back(db, account, 1)
    async with db.transaction() as connection:
        await store.lock(connection, held.id)
        await Renewals(db, PLANS).run()
        assert [await credits(db, account.id) for account in (held, other)] == [29, 58]
    await Renewals(db, PLANS).run()
    assert await credits(db, held.id) == 58


async def test_what_is_cut_off_in_the_middle_has_not_happened_and_is_done_later(db: Database) -> None:
    account = await create_account(db, PLANS["pro"], name="A")
    await set_back(db, account, 3)
    await db.execute(
        """CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
               IF (SELECT count(*) FROM credit_grants) = 2 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
               RETURN NEW;
           END $$"""
    )
    await db.execute("CREATE TRIGGER cut BEFORE INSERT ON credit_grants FOR EACH ROW EXECUTE FUNCTION cut()")
    with pytest.raises(DatabaseUnavailableError):
        await Renewals(db, PLANS).run()
    assert (await credits(db, account.id), len(await sources(db, account.id))) == (29, 1)
    await db.execute("DROP TRIGGER cut ON credit_grants")
    await Renewals(db, PLANS).run()
    assert await credits(db, account.id) == 29 * 4
    assert await verify(db) == []


async def test_a_grant_cannot_be_written_twice_past_the_function(db: Database) -> None:
    account = await create_account(db, PLANS["free"], name="A")
    with pytest.raises(asyncpg.UniqueViolationError):
        await db.execute(
            "INSERT INTO credit_grants SELECT account_id, source, ledger_id + 1 FROM credit_grants"
        )
    with pytest.raises(asyncpg.UniqueViolationError):
        await db.execute("INSERT INTO credit_grants SELECT account_id, 'again', ledger_id FROM credit_grants")
    assert await sources(db, account.id) == ["welcome"]


async def test_a_plan_that_left_the_file_gets_nothing_keeps_its_period_and_is_told_once(
    db: Database, plans: dict[str, Plan]
) -> None:
    account = await create_account(db, PLANS["pro"], name="A")
    first = await set_back(db, account, 1)
    del plans["pro"]
    renewals = Renewals(db, plans)
    with structlog.testing.capture_logs() as logs:
        await renewals.run()
        await renewals.run()
    assert [(log["event"], log["plan"]) for log in logs] == [("plan_not_in_plans_file", "pro")]
    kept = await store.get(db, account.id)
    assert kept is not None
    assert (kept.period, await credits(db, account.id)) == (first, 29)

    changed = await change_plan(db, plans, account.id, plans["starter"])
    assert changed.period == Period(first.anchor, first.ends_at, months_after(first.anchor, 2))
    assert (await sources(db, account.id))[1:] == monthly("starter", first.ends_at)


async def test_a_plan_that_no_longer_gives_credits_ends_its_periods_when_they_are_over(
    db: Database, plans: dict[str, Plan]
) -> None:
    account = await create_account(db, PLANS["pro"], name="A")
    plans["pro"] = Plan("pro", None, None)
    await Renewals(db, plans).run()
    assert (await store.get(db, account.id)) == account
    await set_back(db, account, 1)
    await Renewals(db, plans).run()
    ended = await store.get(db, account.id)
    assert ended is not None
    assert (ended.period, await credits(db, account.id)) == (None, 29)


async def test_a_running_worker_renews(db: Database, make_deployment: MakeDeployment) -> None:
    account = await create_account(db, PLANS["pro"], name="A")
    await set_back(db, account, 1)
    await make_deployment()

    async def renewed() -> bool:
        return await credits(db, account.id) == 58

    await eventually(renewed)

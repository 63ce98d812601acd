"""Accounts and their plans: what entering a plan gives, and what each period gives again."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from babysea_server.accounts import store
from babysea_server.accounts.periods import Period
from babysea_server.accounts.store import Account, Grant
from babysea_server.db.pool import Database
from babysea_server.kit.calls import Plan
from babysea_server.kit.clock import rfc3339
from babysea_server.kit.faults import NotFoundError
from babysea_server.kit.money import MICROS_PER_CREDIT

_log = structlog.get_logger(__name__)

RENEW_EVERY_S = 60.0
_BATCH_MAX = 100
_UNKNOWN_PLANS_MAX = 100


def check_account(name: str, email: str | None) -> None:
    """What a new account may be called.

    Raises:
        ValueError: the name has not 1 to 100 characters, or the e-mail address is none.
    """
    if not 1 <= len(name) <= 100:
        raise ValueError("an account's name has 1 to 100 characters")
    if email is not None and not (3 <= len(email) <= 320 and "@" in email):
        raise ValueError(f"{email!r} is not an e-mail address")


async def create_account(db: Database, plan: Plan, *, name: str, email: str | None = None) -> Account:
    """Make an account on a plan, with what the plan gives at once.

    Raises:
        ValueError: see `check_account`.
    """
    check_account(name, email)
    async with db.transaction() as connection:
        account = await store.create(connection, name=name, plan=plan.name, email=email)
        return await enter_plan(connection, account, plan)


async def change_plan(db: Database, plans: Mapping[str, Plan], account_id: UUID, plan: Plan) -> Account:
    """Put an account on a plan; every API process knows within a second.

    Credits are only ever added: a welcome once in the life of an account, monthly credits once for a period and
    plan, however often the account comes back to the plan. A period that runs goes on under the new plan; a plan
    without monthly credits ends it. The plan it already has is entered again: that begins a period where the
    plans file did not provide for one before.

    Raises:
        NotFoundError: no such account.
    """
    async with db.transaction() as connection:
        account = await store.lock(connection, account_id)
        if account is None:
            raise NotFoundError(f"no account {account_id} in this region")
        if account.period is not None:
            # Periods that ended unnoticed, with every worker down, were still the old plan's.
            period, grants = _renewed(
                account.id, account.period, plans.get(account.plan), await store.now(connection)
            )
            await store.set_periods(connection, [(account.id, period)])
            await store.grant(connection, grants)
        await store.set_plan(connection, account.id, plan.name)
        changed = await store.get(connection, account.id)
        assert changed is not None
        return await enter_plan(connection, changed, plan)


class Renewals:
    """Renews the periods of accounts; any number of workers do so at once."""

    def __init__(self, db: Database, plans: Mapping[str, Plan]) -> None:
        self._db = db
        self._plans = plans
        self._told: set[str] = set()

    async def run(self) -> None:
        """Renew every period that is over, with one grant for each that has begun since.

        In batches of one short transaction: what a crash interrupts has not happened. An account whose plan
        is no longer in the plans file gets nothing and stays in its period, until it has a plan again.
        """
        while await self._batch() == _BATCH_MAX:
            pass
        for name in await store.due_on_other_plans(self._db, list(self._plans), limit=_UNKNOWN_PLANS_MAX):
            if name not in self._told:
                self._told.add(name)
                _log.warning(
                    "plan_not_in_plans_file", plan=name, effect="its accounts get no monthly credits"
                )

    async def _batch(self) -> int:
        async with self._db.transaction() as connection:
            due = await store.lock_due(connection, list(self._plans), limit=_BATCH_MAX)
            if due:
                now = await store.now(connection)
                periods: list[tuple[UUID, Period | None]] = []
                grants: list[Grant] = []
                for account in due:
                    assert account.period is not None
                    period, earned = _renewed(account.id, account.period, self._plans[account.plan], now)
                    periods.append((account.id, period))
                    grants += earned
                await store.set_periods(connection, periods)
                await store.grant(connection, grants)
        return len(due)


async def enter_plan(connection: Any, account: Account, plan: Plan) -> Account:
    """Give what the plan gives at once; the account is locked and already on it."""
    grants: list[Grant] = []
    period = account.period
    if plan.welcome_credits:
        grants.append(
            Grant(account.id, "welcome", plan.welcome_credits * MICROS_PER_CREDIT, "Welcome credits")
        )
    if plan.monthly_credits:
        period = period or Period.first(await store.now(connection))
        grants.append(_monthly(account.id, plan, period))
    else:
        period = None
    await store.set_periods(connection, [(account.id, period)])
    await store.grant(connection, grants)
    entered = await store.get(connection, account.id)
    assert entered is not None
    return entered


def _renewed(
    account_id: UUID, period: Period, plan: Plan | None, now: datetime
) -> tuple[Period | None, list[Grant]]:
    """The present period of an account on a plan, and its credits for each that has begun since `period`.

    Without a plan the periods pass without credits; a plan that no longer gives any ends them.
    """
    missed = list(period.later(now))
    if not missed or plan is None:
        return (missed or [period])[-1], []
    if not plan.monthly_credits:
        return None, []
    return missed[-1], [_monthly(account_id, plan, each) for each in missed]


def _monthly(account_id: UUID, plan: Plan, period: Period) -> Grant:
    source = f"period:{plan.name}:{rfc3339(period.starts_at)}"
    until = period.ends_at.date()
    return Grant(
        account_id,
        source,
        plan.monthly_credits * MICROS_PER_CREDIT,
        f"Plan {plan.name}, {period.starts_at.date()} to {until}",
    )

"""Low-balance alerts: an account's thresholds, and the work that finds balances which fell below them.

It reads the ledger after the fact, so no reserve waits for it: nothing is hung onto the ledger, and the only locks are
on the alerts' own rows.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.accounts import alert_store as store
from babysea_server.accounts.notices import notify
from babysea_server.db.pool import Database
from babysea_server.kit import money
from babysea_server.kit.faults import NotFoundError

EVENT = "credits.low_balance"
#: Accounts without a threshold of their own have this one.
DEFAULT_MICRO = 500_000
THRESHOLDS_MAX = 10

#: New ledger rows are looked at this often.
EVERY_S = 1.0
#: Somebody whose turn comes a little early is let through.
_CLAIM_SHARE = 0.9
_PAGE_ROWS = 5_000
#: What is left after that, after a long time without workers, is done in the next turns.
_PAGES_MAX = 50


class Alert(msgspec.Struct, frozen=True):
    """One threshold of an account, in micro-credits."""

    threshold: int
    armed: bool
    """Whether the balance is at or above it, so that it fires when it falls below."""
    fired_at: datetime | None
    """When it last fired; None: never, or it is the default."""


class Alerts(msgspec.Struct, frozen=True):
    """What an account is warned of, highest threshold first."""

    balance: int
    is_default: bool
    alerts: Sequence[Alert]


def check_thresholds(thresholds: Sequence[int]) -> Sequence[int]:
    """Thresholds as they are kept: each once, highest first.

    Args:
        thresholds: in micro-credits.

    Raises:
        ValueError: more than ten, or one that is not more than zero.
    """
    chosen = sorted(set(thresholds), reverse=True)
    if len(chosen) > THRESHOLDS_MAX:
        raise ValueError(f"an account has at most {THRESHOLDS_MAX} alert thresholds")
    if any(not 0 < threshold <= money.MAX_MICROS for threshold in chosen):
        raise ValueError("an alert threshold must be more than zero")
    return chosen


async def get_alerts(db: Database, account_id: UUID) -> Alerts:
    """The thresholds of an account; the default while it has none of its own.

    Raises:
        NotFoundError: no such account.
    """
    found = await store.thresholds(db, account_id)
    if found is None:
        raise NotFoundError(f"no account {account_id} in this region")
    balance, own = found
    alerts = [Alert(threshold, balance >= threshold, at) for threshold, at in own or [(DEFAULT_MICRO, None)]]
    return Alerts(balance, not own, alerts)


async def set_thresholds(db: Database, account_id: UUID, thresholds: Sequence[int]) -> Alerts:
    """Make these the thresholds of an account, in micro-credits; none: the default again.

    One that the balance is below already fires after the balance was at or above it.

    Raises:
        ValueError: see `check_thresholds`.
        NotFoundError: no such account.
    """
    chosen = check_thresholds(thresholds)
    async with db.transaction() as connection:
        if not await store.replace_thresholds(connection, account_id, chosen):
            raise NotFoundError(f"no account {account_id} in this region")
    return await get_alerts(db, account_id)


async def edit_thresholds(
    connection: Any, account_id: UUID, *, add: int | None = None, remove: int | None = None
) -> None:
    """Add a threshold of an account or take one away, in the present transaction; amounts in micro-credits.

    Raises:
        ValueError: see `check_thresholds`.
        NotFoundError: no such account.
    """
    # Under the lock, so that of two who edit at once neither undoes the other's.
    if await store.lock(connection, account_id) is None:
        raise NotFoundError(f"no account {account_id} in this region")
    _, own = await store.thresholds(connection, account_id) or (0, [])
    left = [threshold for threshold, _ in own if threshold != remove]
    chosen = check_thresholds(left if add is None else [*left, add])
    await store.replace_thresholds(connection, account_id, chosen)


async def remove_threshold(db: Database, account_id: UUID, threshold: int) -> Alerts:
    """Remove one threshold of an account, in micro-credits; after the last one the default applies again.

    Raises:
        NotFoundError: no such account, or it has no such threshold of its own.
    """
    if not await store.delete_threshold(db, account_id, threshold):
        raise NotFoundError(f"account {account_id} has no alert at {money.text(threshold)} credits")
    return await get_alerts(db, account_id)


class AlertJob:
    """Finds accounts whose balance fell below a threshold, and tells them; one of all workers does it each time.

    Args:
        default_micro: the threshold of accounts without any, in micro-credits.
        every_s: how often it is run.
        page_rows: ledger rows read at once.
    """

    def __init__(
        self,
        db: Database,
        *,
        default_micro: int = DEFAULT_MICRO,
        every_s: float = EVERY_S,
        page_rows: int = _PAGE_ROWS,
    ) -> None:
        self._db = db
        self._default = default_micro
        self._every_s = every_s
        self._page_rows = page_rows

    async def run(self) -> bool:
        """Look at the ledger rows that are new, unless somebody has just done so; whether it was done.

        What a crash interrupts is looked at again, and nothing is told twice: the watermark of an account moves in
        the transaction that tells it.

        Raises:
            DatabaseUnavailableError, asyncpg.PostgresError: accounts that had been told by then stay told.
        """
        position = await store.claim(self._db, seconds=self._every_s * _CLAIM_SHARE)
        if position is None:
            return False
        after, seen = position.settled_id, None
        for _ in range(_PAGES_MAX):
            page = await store.page(self._db, after=after, limit=self._page_rows)
            if page.last_id is None:
                break
            if page.accounts:
                await self._look(page.accounts, position.settled_id, page.last_id)
            after, seen = page.last_id, page
            if page.rows < self._page_rows:
                break
        # A position that is waited for is kept, else transactions that overlap would put it off for ever.
        if seen is not None and not position.waiting:
            settled_id = min(position.seen_id, after) if position.complete else position.settled_id
            await store.note_position(
                self._db,
                settled_id=max(settled_id, position.settled_id),
                seen_id=after,
                next_xid=seen.next_xid,
            )
        return True

    async def _look(self, accounts: Sequence[UUID], after: int, upto: int) -> None:
        crossed = await store.pass_quiet(self._db, accounts, after=after, upto=upto, default=self._default)
        for account_id in crossed:
            await self._tell(account_id, upto)

    async def _tell(self, account_id: UUID, upto: int) -> None:
        async with self._db.transaction() as connection:
            watermark = await store.lock(connection, account_id)
            if watermark is None:
                return
            walk = await store.walk(connection, account_id, after=watermark, upto=upto, default=self._default)
            if walk is None or not walk.crossed:
                return
            data = event_data(account_id, walk)
            await store.enqueue_event(connection, account_id, EVENT, data)
            await notify(connection, account_id, EVENT, notice_text(walk), data)


def event_data(account_id: UUID, walk: store.Walk) -> dict[str, object]:
    """What a webhook is told; amounts in credits."""
    return {
        "account_id": str(account_id),
        "current_balance": money.credits(walk.balance),
        "thresholds_crossed": [
            {"threshold": money.credits(threshold), "balance_at": money.credits(balance)}
            for threshold, balance in walk.crossed
        ],
    }


def notice_text(walk: store.Walk) -> str:
    """What people are told."""
    named = [money.text(threshold) for threshold, _ in walk.crossed]
    thresholds = " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))
    return f"The balance fell below {thresholds} credits. It is {money.text(walk.balance)} credits now."

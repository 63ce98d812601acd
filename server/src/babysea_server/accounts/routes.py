"""`GET /v1/usage`, `/v1/user/account` and `/v1/user/billing`."""

from datetime import datetime

from babysea_server.accounts import billing_store, store
from babysea_server.accounts.store import Account
from babysea_server.accounts.usage import usage
from babysea_server.accounts.wire import AccountData, BillingData
from babysea_server.db.pool import Database
from babysea_server.errors import ACCOUNT_NOT_FOUND, ApiError
from babysea_server.kit import json, money
from babysea_server.kit.calls import Call, Reply
from babysea_server.kit.clock import rfc3339


class AccountRoutes:
    """Operations about the caller's own account, in one region.

    Args:
        reads: what usage is read from; it may be some seconds behind.
    """

    def __init__(self, db: Database, reads: Database) -> None:
        self._db = db
        self._reads = reads

    async def usage(self, call: Call) -> Reply:
        """Requests, generations and cost of the last days; up to a second behind, with a replica up to ten."""
        data = None
        for db in (self._reads, self._db):  # a new account may not have got there
            data = data or await usage(db, call.principal.account_id, days=call.query["days"])
        if data is None:
            raise _account_not_found()
        return Reply(data)

    async def account(self, call: Call) -> Reply:
        """Whose key it is."""
        account = await self._account(call)
        return Reply(
            AccountData(
                account_id=account.id,
                account_name=account.name,
                account_email=account.email,
                account_is_personal=account.is_personal,
                account_picture_url=account.picture_url,
                account_created_at=rfc3339(account.created_at),
            )
        )

    async def billing(self, call: Call) -> Reply:
        """Plan and balance. What only a payment service knows is null while the account has bought nothing."""
        account = await self._account(call)
        customer = await billing_store.customer(self._db, account.id)
        period: tuple[datetime | None, datetime | None] = (None, None)
        if account.period is not None:
            period = (account.period.starts_at, account.period.ends_at)
        elif customer is not None:
            period = (customer.period_starts_at, customer.period_ends_at)
        updated_at = account.plan_changed_at or account.created_at
        if customer is not None:
            updated_at = max(updated_at, customer.updated_at)
        return Reply(
            BillingData(
                account_id=account.id,
                billing_plan=account.plan,
                billing_credit_balance=money.credits(account.credit_balance),
                billing_subscription_status=None if customer is None else customer.subscription_status,
                billing_cancel_at_period_end=None if customer is None else customer.cancel_at_period_end,
                billing_currency=None if customer is None else customer.currency,
                billing_period_starts_at=json.moment(period[0]),
                billing_period_ends_at=json.moment(period[1]),
                billing_created_at=rfc3339(account.created_at),
                billing_updated_at=rfc3339(updated_at),
            )
        )

    async def _account(self, call: Call) -> Account:
        account = await store.get(self._db, call.principal.account_id)
        if account is None:  # deleted since the key was looked up
            raise _account_not_found()
        return account


def _account_not_found() -> ApiError:
    return ApiError(ACCOUNT_NOT_FOUND, "The account of this key no longer exists.")

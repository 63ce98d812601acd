"""`GET /v1/user/account` and `/v1/user/billing`: exact fields, and null for what nobody knows."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from tests.conftest import MakeDeployment
from tests.support import Customer, make_customer

from babysea_server.accounts.wire import AccountData, BillingData


@pytest.fixture
async def member(make_deployment: MakeDeployment) -> Customer:
    """A customer of plan starter with 2.5 credits; no worker."""
    return await make_customer(await make_deployment(worker=False), plan="starter", credits="2.5")


async def ask(customer: Customer, path: str) -> dict[str, Any]:
    answer = await customer.request("GET", path)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


async def change(customer: Customer, assignments: str, *arguments: Any) -> None:
    await customer.deployment.db.execute(
        f"UPDATE accounts SET {assignments} WHERE id = $1", customer.account_id, *arguments
    )


async def test_the_account_is_told_as_it_is(member: Customer) -> None:
    await change(member, "created_at = $2", datetime(2026, 3, 14, 8, 0, 0, 1999, UTC))
    bare = {
        "account_id": str(member.account_id),
        "account_name": "Customer",
        "account_email": None,
        "account_is_personal": True,
        "account_picture_url": None,
        "account_created_at": "2026-03-14T08:00:00.001Z",
    }
    assert await ask(member, "/v1/user/account") == bare
    await change(
        member,
        "name = 'Tidewater', email = 'a@example.com', is_personal = false, picture_url = 'https://p.example/1.png'",
    )
    data = await ask(member, "/v1/user/account")
    msgspec.convert(data, AccountData)
    assert data == bare | {
        "account_name": "Tidewater",
        "account_email": "a@example.com",
        "account_is_personal": False,
        "account_picture_url": "https://p.example/1.png",
    }


async def test_billing_without_a_payment_provider_and_without_a_period(member: Customer) -> None:
    await change(
        member,
        """created_at = $2, plan_changed_at = NULL,
           period_anchor = NULL, period_starts_at = NULL, period_ends_at = NULL""",
        datetime(2026, 3, 14, 8, tzinfo=UTC),
    )
    assert await ask(member, "/v1/user/billing") == {
        "account_id": str(member.account_id),
        "billing_plan": "starter",
        "billing_credit_balance": 2.5,
        "billing_subscription_status": None,
        "billing_cancel_at_period_end": None,
        "billing_currency": None,
        "billing_period_starts_at": None,
        "billing_period_ends_at": None,
        "billing_created_at": "2026-03-14T08:00:00.000Z",
        "billing_updated_at": "2026-03-14T08:00:00.000Z",
    }


async def test_billing_tells_the_present_period_and_when_the_plan_changed(member: Customer) -> None:
    await change(
        member,
        "plan_changed_at = $2, period_anchor = $2, period_starts_at = $3, period_ends_at = $4",
        *(datetime(2026, month, 14, 8, tzinfo=UTC) for month in (4, 5, 6)),
    )
    data = await ask(member, "/v1/user/billing")
    msgspec.convert(data, BillingData)
    assert data["billing_period_starts_at"] == "2026-05-14T08:00:00.000Z"
    assert data["billing_period_ends_at"] == "2026-06-14T08:00:00.000Z"
    assert data["billing_updated_at"] == "2026-04-14T08:00:00.000Z"


@pytest.mark.parametrize("path", ["/v1/user/account", "/v1/user/billing", "/v1/usage"])
async def test_a_key_without_the_scope_is_refused(member: Customer, path: str) -> None:
    reader = await make_customer(member.deployment, scopes=["library:read"])
    answer = await reader.request("GET", path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "BSE1003")


@pytest.mark.parametrize("path", ["/v1/user/account", "/v1/user/billing", "/v1/usage"])
async def test_an_account_that_was_deleted_meanwhile_is_not_found(member: Customer, path: str) -> None:
    await ask(member, path)
    # Without a notice: the API still believes in the key.
    await member.deployment.db.execute("ALTER TABLE accounts DISABLE TRIGGER accounts_changed")
    await member.deployment.db.execute("DELETE FROM accounts WHERE id = $1", member.account_id)
    answer = await member.request("GET", path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "BSE1008")

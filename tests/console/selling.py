"""What a deployment sells, over a payment service that speaks the real protocol; and a customer who buys."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from tests.conftest import deployment_settings
from tests.console.conftest import ConsoleClientOf
from tests.console.stripe_emulator import SECRET_KEY, WEBHOOK_SECRET, StripeEmulator, signed, stripe_emulator
from tests.console.support import ConsoleClient, deployed
from tests.databases import Databases
from tests.support import Deployment

from babysea_server.accounts import billing_store
from babysea_server.accounts import store as accounts
from babysea_server.app.shared import build_shared
from babysea_server.kit.money import MICROS_PER_CREDIT

CREDIT = MICROS_PER_CREDIT
PLANS = """
[free]
requests_per_minute = 60
[starter]
monthly_credits = 9
stripe_price = "price_starter"
[pro]
requests_per_minute = 300
monthly_credits = 29
stripe_price = "price_pro"
[enterprise]
monthly_credits = 199
[packs.small]
credits = 10
stripe_price = "price_small"
[packs.large]
credits = 1000
stripe_price = "price_large"
"""
#: Cents, and of what; packs.large has a price that the payment service does not know.
PRICES = {"price_starter": (900, "usd"), "price_pro": (2900, "usd"), "price_small": (1000, "usd")}


@pytest.fixture(scope="module")
async def stripe() -> AsyncIterator[StripeEmulator]:
    """The payment service of this module's deployment."""
    async with stripe_emulator() as emulator:
        emulator.prices = dict(PRICES)
        yield emulator


@pytest.fixture(scope="module")
async def console(databases: Databases, stripe: StripeEmulator) -> AsyncIterator[Deployment]:
    """A deployment that sells over that payment service."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="babysea-billing-")))
        (folder / "plans.toml").write_text(PLANS)
        dsn = await stack.enter_async_context(databases.fresh())
        settings = deployment_settings(
            folder,
            plans_file=str(folder / "plans.toml"),
            stripe_secret_key=SECRET_KEY,
            stripe_webhook_secret=WEBHOOK_SECRET,
            stripe_api_url=stripe.origin,
        )
        yield await stack.enter_async_context(deployed(build_shared(settings), dsn))


@pytest.fixture
async def owner(console_client: ConsoleClientOf) -> ConsoleClient:
    """The primary owner of a new account of plan free without credits."""
    return await console_client("primary-owner", plan="free", credits="0")


async def send(client: ConsoleClient, body: bytes, **signature: Any) -> httpx.Response:
    return await client.http.post("/stripe/events", content=body, headers=signed(body, **signature))


async def tell(client: ConsoleClient, body: bytes) -> None:
    response = await send(client, body)
    assert response.status_code == 200, response.text


async def state(client: ConsoleClient) -> tuple[str, int]:
    """Plan and balance, in whole credits."""
    account = await accounts.get(client.deployment.db, client.account_id)
    assert account is not None
    return account.plan, account.credit_balance // CREDIT


async def customer_of(client: ConsoleClient) -> str:
    """Who the account is at the payment service, known from its first purchase on."""
    await client.submit("/billing", {"pack": "small"}, action="/billing/packs")
    known = await billing_store.customer(client.deployment.db, client.account_id)
    assert known is not None
    return known.customer_id


async def begun(client: ConsoleClient, stripe: StripeEmulator, pack: str = "small") -> str:
    """Begin to buy a pack; the session's id."""
    response = await client.submit("/billing", {"pack": pack}, action="/billing/packs")
    assert response.status_code == 303
    assert response.headers["location"].startswith(f"{stripe.origin}/c/pay/")
    return response.headers["location"].rpartition("/")[2]

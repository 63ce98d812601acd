"""Stripe's API through its own library: what is asked of it, and nothing about what follows."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal, TypeVar
from uuid import UUID

import msgspec
import structlog

from babysea_server.accounts.stripe_events import Price, Subscription

_log = structlog.get_logger(__name__)

#: With one repetition this stays below the time that the database lets a transaction be idle.
TIMEOUT_S = 8.0
_RETRIES = 1

Value = TypeVar("Value")


class PaymentsUnavailableError(Exception):
    """Stripe could not be asked, or refused; the message says which, without what it said."""


class StripeApi:
    """Calls Stripe with the operator's key.

    Args:
        secret_key: `sk_...`.
        base_url: where its API is, other than usual.
    """

    def __init__(self, secret_key: str, *, base_url: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        # Here: they take most of a second, and most installations never need them.
        import aiohttp
        import stripe

        self._http: Any = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=timeout_s))
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={} if base_url is None else {"api": base_url.rstrip("/")},
            http_client=self._http,
            max_network_retries=_RETRIES,
        )

    def __repr__(self) -> str:
        """Without the key."""
        return "StripeApi(...)"

    async def close(self) -> None:
        """Close connections."""
        await self._http.close_async()

    async def create_customer(self, account_id: UUID, region: str, *, name: str, email: str) -> str:
        """Make a customer; its id. Asked again within a day it is the same one.

        Raises:
            PaymentsUnavailableError
        """
        key = sha256("\0".join((str(account_id), name, email)).encode()).hexdigest()
        made = await _answer(
            self._client.v1.customers.create_async(
                {"name": name, "email": email, "metadata": {"account_id": str(account_id), "region": region}},
                {"idempotency_key": f"customer-{key}"},
            )
        )
        return str(made["id"])

    async def checkout(
        self,
        mode: Literal["payment", "subscription"],
        *,
        customer: str,
        price: str,
        metadata: Mapping[str, str],
        success_url: str,
        cancel_url: str,
    ) -> str:
        """Begin a purchase; where the customer pays.

        Args:
            metadata: told again in the events about it.

        Raises:
            PaymentsUnavailableError
        """
        parameters: dict[str, Any] = {
            "mode": mode,
            "customer": customer,
            "client_reference_id": metadata["account_id"],
            "line_items": [{"price": price, "quantity": 1}],
            "metadata": dict(metadata),
            "success_url": success_url,
            "cancel_url": cancel_url,
        }
        beside = "subscription_data" if mode == "subscription" else "payment_intent_data"
        parameters[beside] = {"metadata": dict(metadata)}
        made = await _answer(self._client.v1.checkout.sessions.create_async(_typed(parameters)))
        return str(made["url"])

    async def portal(self, customer: str, *, return_url: str) -> str:
        """Where the customer manages payments, invoices and the subscription.

        Raises:
            PaymentsUnavailableError
        """
        made = await _answer(
            self._client.v1.billing_portal.sessions.create_async(
                {"customer": customer, "return_url": return_url}
            )
        )
        return str(made["url"])

    async def subscription(self, id: str) -> Subscription:
        """A subscription as it stands now.

        Raises:
            PaymentsUnavailableError
        """
        return _converted(await _answer(self._client.v1.subscriptions.retrieve_async(id)), Subscription)

    async def price(self, id: str) -> Price:
        """What something costs.

        Raises:
            PaymentsUnavailableError
        """
        return _converted(await _answer(self._client.v1.prices.retrieve_async(id)), Price)


def _typed(parameters: dict[str, Any]) -> Any:
    """Parameters put together by hand, which the library's types cannot follow."""
    return parameters


async def _answer(call: Any) -> dict[str, Any]:
    import aiohttp
    import stripe

    try:
        answer: dict[str, Any] = (await call).to_dict()
    except stripe.StripeError as error:
        # Its message may quote a part of the key, and what the customer is called.
        _log.warning(
            "stripe_call_failed",
            error=type(error).__name__,
            status=error.http_status,
            code=error.code,
            request=error.request_id,
        )
        raise PaymentsUnavailableError(type(error).__name__) from None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        _log.warning("stripe_call_failed", error=type(error).__name__)
        raise PaymentsUnavailableError(type(error).__name__) from None
    return answer


def _converted(answer: dict[str, Any], type: type[Value]) -> Value:
    try:
        return msgspec.convert(answer, type)
    except msgspec.ValidationError as error:
        _log.warning("stripe_answer_not_understood", error=str(error))
        raise PaymentsUnavailableError("an answer that is not understood") from None

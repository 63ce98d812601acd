"""What the account, usage and billing operations send."""

from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from babysea_server.kit.wire import Count, Moment

Credits = Annotated[float, Meta(description="Credits; 1 credit is 1 USD, at most six decimals.")]


class UsageEndpoint(Struct, frozen=True, kw_only=True):
    """The requests of one endpoint template, e.g. `POST /v1/generate/image/{model_identifier}`."""

    endpoint: str
    total_requests: Count
    success_count: Count
    client_error_count: Count
    server_error_count: Count
    error_codes: Annotated[dict[str, int], Meta(description="Answers by error code.")]


class UsageProvider(Struct, frozen=True, kw_only=True):
    """What was submitted to one provider, and what became of it."""

    provider: str
    total_submissions: Count
    used_count: Count
    cancelled_count: Count
    discarded_count: Count
    failed_count: Count
    total_estimated_cost: Credits
    wasted_estimated_cost: Credits


class UsageData(Struct, frozen=True, kw_only=True):
    """The account's traffic of the last `usage_period_days` days."""

    account_id: UUID
    usage_period_days: int
    usage_credit_balance: Credits
    usage_total_requests: Count
    usage_total_success: Count
    usage_total_client_errors: Count
    usage_total_server_errors: Count
    usage_total_generations: Count
    usage_total_provider_submissions: Count
    usage_total_estimated_cost: Credits
    usage_endpoints: list[UsageEndpoint]
    usage_providers: list[UsageProvider]


class AccountData(Struct, frozen=True, kw_only=True):
    """The account of the key that made the call."""

    account_id: UUID
    account_name: str
    account_email: str | None
    account_is_personal: bool
    account_picture_url: str | None
    account_created_at: Moment


class BillingData(Struct, frozen=True, kw_only=True):
    """The account's plan and balance."""

    account_id: UUID
    billing_plan: str | None
    billing_credit_balance: Credits
    billing_subscription_status: str | None
    billing_cancel_at_period_end: bool | None
    billing_currency: str | None
    billing_period_starts_at: Moment | None
    billing_period_ends_at: Moment | None
    billing_created_at: Moment | None
    billing_updated_at: Moment | None

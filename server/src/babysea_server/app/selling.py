"""What the settings say about payments and custom domains, put together."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from babysea_server.accounts.domain_check import DomainCheck
from babysea_server.accounts.domains import DomainSite
from babysea_server.accounts.plans import load_offers
from babysea_server.accounts.stripe_route import StripeEvents
from babysea_server.db.pool import Database
from babysea_server.settings import Settings, SettingsError

if TYPE_CHECKING:
    from babysea_server.accounts.billing import Billing
    from babysea_server.app.shared import Shared


def domain_site(settings: Settings, region: str) -> DomainSite:
    """Where the custom domains of a region lead, and who is asked about them.

    Raises:
        SettingsError: `dns_resolver` cannot be used.
    """
    try:
        check = DomainCheck(settings.dns_resolver)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    urls = (
        settings.console_url,
        settings.public_url,
        (settings.callback_url or "").replace("{region}", region),
    )
    own = [settings.domain, *(urlsplit(url).hostname or "" for url in urls if url)]
    return DomainSite(f"api.{region}.{settings.domain.lower()}", tuple(filter(None, own)), check)


def billing_of(shared: "Shared", region: str, db: Database) -> "Billing | None":
    """Payments of a region; None: the operator adds credits.

    Raises:
        SettingsError: one of Stripe's two settings is missing, or its address is none.
        PlanError
    """
    settings = shared.settings
    if settings.stripe_secret_key is None and settings.stripe_webhook_secret is None:
        return None
    if settings.stripe_secret_key is None or settings.stripe_webhook_secret is None:
        raise SettingsError("stripe_secret_key and stripe_webhook_secret are needed together")
    from babysea_server.accounts.billing import Billing
    from babysea_server.accounts.stripe_api import StripeApi

    return Billing(
        db,
        region,
        StripeApi(settings.stripe_secret_key, base_url=settings.stripe_api_url),
        load_offers(None if settings.plans_file is None else Path(settings.plans_file)),
        shared.plans,
        shared.clock,
        ended_plan=shared.plans.get(settings.sign_up_plan),
    )


def stripe_events(settings: Settings, regions: Mapping[str, "Billing | None"]) -> StripeEvents | None:
    """Where Stripe sends events; None: nowhere."""
    selling = {name: billing for name, billing in regions.items() if billing is not None}
    if not selling or settings.stripe_webhook_secret is None:
        return None
    return StripeEvents(selling, settings.stripe_webhook_secret)

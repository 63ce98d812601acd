"""The console's side of a process: its parts of each region, on top of the API's."""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from babysea_server.accounts.mail import mail_server
from babysea_server.accounts.passwords import Passwords
from babysea_server.accounts.sessions import Sessions
from babysea_server.app.shared import Shared, public_origin
from babysea_server.console.app import ConsoleApp
from babysea_server.console.attempts import Attempts
from babysea_server.console.live import Live
from babysea_server.console.mailing import Mailing
from babysea_server.console.navigation import ROOT
from babysea_server.console.oidc import OidcSettings
from babysea_server.console.region import ConsoleRegion, Keys
from babysea_server.contract.firewall import host_name
from babysea_server.kit.clock import Clock
from babysea_server.limits.windows import SharedWindows
from babysea_server.settings import Settings, SettingsError
from babysea_server.webhooks.secrets import SecretBox

if TYPE_CHECKING:
    from babysea_server.app.api import ApiRegion
    from babysea_server.console.oidc_client import OidcClient


class Console:
    """Serves `/console` under the names of the installation.

    Args:
        regions: the API's side of each, in which the console has no pools of its own.
        alone: no API answers beside it in this process.

    Raises:
        SettingsError: `console_url` or the mail server's cannot be used.
    """

    def __init__(
        self, shared: Shared, regions: Mapping[str, "ApiRegion"], hosts: Mapping[str, str], *, alone: bool
    ) -> None:
        settings = shared.settings
        self._origin = _origin(settings)
        self._hosts = {*hosts, host_name(urlsplit(self._origin).netloc)}
        passwords = Passwords()
        oidc = _oidc(settings, shared.clock)
        keys = Keys.derive(shared.master_key, shared.other_master_key)
        names = sorted(regions, key=lambda name: name != settings.default_region)
        self.regions = {
            name: _region(shared, regions[name], passwords, keys, oidc, self._origin, alone=alone)
            for name in names
        }
        self.app = ConsoleApp(self.regions, secure=self._origin.startswith("https:"))

    def serves(self, scope: Scope) -> bool:
        """Whether a request is the console's: by its path, and by a name of ours, so that no other leads here."""
        path: str = scope.get("path", "")
        if scope["type"] != "http" or not (path == ROOT or path.startswith(f"{ROOT}/")):
            return False
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        return len(hosts) == 1 and host_name(hosts[0].decode("latin-1")) in self._hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self.app(scope, receive, send)

    async def close(self) -> None:
        """Stop what runs in the background."""
        for region in self.regions.values():
            await region.live.close()
            await region.mailing.close()
            await region.attempts.close()


def _region(
    shared: Shared,
    api: "ApiRegion",
    passwords: Passwords,
    keys: Keys,
    oidc: "OidcClient | None",
    origin: str,
    *,
    alone: bool,
) -> ConsoleRegion:
    settings, clock = shared.settings, shared.clock
    windows = SharedWindows("console", api.counters, clock, timeout_s=settings.counters_timeout_s)
    try:
        server = mail_server(settings.smtp_url, settings.smtp_from)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    return ConsoleRegion(
        name=api.region,
        settings=settings,
        clock=clock,
        db=api.db,
        reads=api.reads,
        plans=shared.plans,
        catalog=shared.catalog,
        store=api.store,
        signer=shared.signer,
        reader=api.reader,
        registry=api.registry,
        router=api.router,
        rankings=api.rankings,
        provider_health=api.provider_health,
        webhook_secrets=SecretBox(shared.master_key, old=shared.other_master_key),
        secrets=SecretBox(shared.master_key, old=shared.other_master_key),
        keys=keys,
        sessions=Sessions(api.db),
        passwords=passwords,
        attempts=Attempts(windows, clock),
        mailing=Mailing(server, clock),
        live=Live(api.db, clock),
        origin=origin,
        api_origin=_api_origin(settings, api.region, alone=alone),
        domain_site=api.domain_site,
        billing=api.billing,
        oidc=oidc,
    )


def _oidc(settings: Settings, clock: Clock) -> "OidcClient | None":
    """The identity provider, one client for all regions.

    Raises:
        SettingsError: half of it is set, or the issuer cannot be used.
    """
    if settings.oidc_issuer is None and settings.oidc_client_id is None:
        return None
    if settings.oidc_issuer is None or settings.oidc_client_id is None:
        raise SettingsError("oidc_issuer and oidc_client_id are set together")
    from babysea_server.console.oidc_client import OidcClient

    chosen = OidcSettings(
        settings.oidc_issuer,
        settings.oidc_client_id,
        settings.oidc_client_secret,
        settings.oidc_name,
        settings.oidc_allowed_domains,
    )
    try:
        return OidcClient(chosen, clock)
    except ValueError as error:
        raise SettingsError(f"oidc_issuer: {error}") from error


def _origin(settings: Settings) -> str:
    """Scheme and authority of the console.

    Raises:
        SettingsError: `console_url` is none.
    """
    parts = urlsplit(settings.console_origin)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
        raise SettingsError("console_url is scheme and authority, e.g. https://console.example.com")
    return settings.console_origin


def _api_origin(settings: Settings, region: str, *, alone: bool) -> str | None:
    if settings.domain == "localhost" and region == settings.default_region and settings.public_url is None:
        return f"http://localhost:{settings.port}" if alone else None
    return public_origin(settings, region)

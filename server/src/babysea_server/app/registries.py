"""Who calls providers in a region: the adapters that the operator configured, or the sandbox in place of all."""

from collections.abc import Callable, Mapping

from babysea_server.catalog.catalog import Catalog
from babysea_server.catalog.types import Traits
from babysea_server.db.pool import Database
from babysea_server.kit.clock import Clock, SystemClock
from babysea_server.providers.adapters import adapters, configured
from babysea_server.providers.base import Provider, Transport
from babysea_server.providers.caps import Cap
from babysea_server.providers.registry import GuardedTransport, Registry, Route, everywhere
from babysea_server.providers.sandbox import behavior as sandbox_behavior
from babysea_server.providers.sandbox.adapter import SandboxProvider
from babysea_server.providers.sandbox.upstream import SandboxUpstream
from babysea_server.settings import Settings, SettingsError

#: Made from a region's database; replaced in tests and benchmarks.
RegistryFactory = Callable[[Settings, Catalog, Database], Registry]

SANDBOX = SandboxProvider.name
#: Connections to one provider where nothing bounds its jobs: each job needs one for moments only.
_CONNECTIONS = 200


def live_providers(settings: Settings) -> dict[str, Provider]:
    """The providers that are really called, by id; none where the sandbox stands in for all.

    Raises:
        SettingsError: settings for a provider that is not installed.
    """
    found = configured(settings.providers)
    return {} if settings.provider_mode == "sandbox" else found


def provider_traits() -> Mapping[str, Traits]:
    """How each installed provider is worked with."""
    return {**{id: adapter.traits for id, adapter in adapters().items()}, SANDBOX: SandboxProvider.traits}


def provider_registry(
    settings: Settings,
    catalog: Catalog,
    db: Database,
    *,
    clock: Clock | None = None,
    inputs: Transport | None = None,
) -> Registry:
    """The registry that the settings ask for; the models of the sandbox always run.

    Args:
        clock: paces submits.
        inputs: fetches customers' input files; by default from public addresses only.
    """
    sandbox = _sandbox(settings, db)
    live = live_providers(settings)
    if not live:
        return everywhere(catalog.providers, sandbox)
    return Registry({**provider_routes(live, clock=clock, inputs=inputs), SANDBOX: sandbox})


def provider_routes(
    live: Mapping[str, Provider], *, clock: Clock | None = None, inputs: Transport | None = None
) -> dict[str, Route]:
    """How each of these providers is called; see `provider_registry`.

    Raises:
        SettingsError: a base address that is none.
    """
    from babysea_server.providers.files import (
        FileTransport,  # here: where none is called, nothing waits for it
    )

    inputs = inputs or FileTransport()
    return {id: _route(provider, inputs, clock or SystemClock()) for id, provider in live.items()}


def _route(provider: Provider, inputs: Transport, clock: Clock) -> Route:
    from babysea_server.kit.connections import Allowance
    from babysea_server.providers.files import FileTransport
    from babysea_server.providers.http import HttpTransport

    settings = provider.settings
    # What the operator runs is where the operator says; files elsewhere on a private network need a word more.
    try:
        allowed = (Allowance.of(provider.base),) if settings.base_url else ()
    except ValueError as error:
        raise SettingsError(f"providers.{provider.name}.base_url: {error}") from error
    private = settings.private_network
    calls = HttpTransport(
        connections=max(settings.jobs_at_once or 0, _CONNECTIONS), allowed=allowed, private_networks=private
    )
    bounded = settings.jobs_at_once is not None or settings.submits_per_minute is not None
    return Route(
        provider,
        GuardedTransport(calls, provider.base, provider.hosts),
        files=FileTransport(allowed=allowed, private_networks=private),
        inputs=inputs,
        cap=Cap(clock, jobs_at_once=settings.jobs_at_once, submits_per_minute=settings.submits_per_minute)
        if bounded
        else None,
    )


def _sandbox(settings: Settings, db: Database) -> Route:
    try:
        behaviors = {name: sandbox_behavior.parse(text) for name, text in settings.sandbox_behaviors.items()}
    except sandbox_behavior.UnknownBehaviorError as error:
        raise SettingsError(f"sandbox_behaviors: {error}") from error
    upstream = SandboxUpstream(
        db,
        latency_s=settings.sandbox_latency_s,
        behaviors=behaviors,
        image_edge=settings.sandbox_image_edge,
    )
    return Route(SandboxProvider(), upstream)

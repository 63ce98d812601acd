"""The HTTP application of one process, and the API's side of each of its regions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from babysea_server import __version__
from babysea_server.accounts import store as accounts
from babysea_server.accounts.domain_hosts import DomainHosts
from babysea_server.accounts.routes import AccountRoutes
from babysea_server.accounts.stripe_route import PATH as STRIPE_PATH
from babysea_server.app.registries import (
    RegistryFactory,
    live_providers,
    provider_registry,
    provider_traits,
)
from babysea_server.app.selling import billing_of, domain_site, stripe_events
from babysea_server.app.shared import Shared, openapi_documents, provider_health, together
from babysea_server.app.surfaces import counted
from babysea_server.app.telemetry import Telemetry
from babysea_server.catalog.routes import CatalogRoutes
from babysea_server.contract.firewall import Firewall, host_name
from babysea_server.contract.gateway import Gateway
from babysea_server.contract.hosts import CustomHost, RegionHosts
from babysea_server.contract.operations import regional_hosts
from babysea_server.contract.proxies import TrustedProxies
from babysea_server.contract.publish import OPENAPI_PATH, REFERENCE_PATH, Publisher
from babysea_server.contract.security import secured
from babysea_server.db.pool import Database
from babysea_server.db.replica import ReplicaReads
from babysea_server.errors import AUTHENTICATION_FAILED, ApiError
from babysea_server.execution.callbacks import Callbacks, CallbacksApp
from babysea_server.execution.wakeup import Wakeup
from babysea_server.generations.admission import Admissions
from babysea_server.generations.cancel import Canceling
from babysea_server.generations.delete import Deleting
from babysea_server.generations.reading import Reader
from babysea_server.generations.routes import GenerationRoutes
from babysea_server.generations.service import Generations
from babysea_server.keys.authenticate import Authenticator
from babysea_server.keys.routes import KeyRoutes
from babysea_server.kit.asgi import send_json
from babysea_server.kit.calls import Handler, Principal, RateWindow, ServedRequest
from babysea_server.limits.counters import WindowCounters
from babysea_server.limits.guard import AuthGuard
from babysea_server.limits.health import CacheHealth
from babysea_server.limits.rate import RateLimiter
from babysea_server.limits.store import PostgresCounters
from babysea_server.limits.windows import SharedWindows
from babysea_server.outputs.health import StorageHealth
from babysea_server.outputs.routes import PREFIX as FILES_PREFIX
from babysea_server.outputs.routes import FilesApp
from babysea_server.outputs.store import ObjectStore, open_store
from babysea_server.providers.callbacks import PREFIX as CALLBACKS_PREFIX
from babysea_server.providers.callbacks import CallbackAddresses, CallbackVerifier
from babysea_server.providers.runner import Runner
from babysea_server.routing.chain import Router
from babysea_server.routing.rankings import Rankings
from babysea_server.routing.routes import HealthRoutes
from babysea_server.settings import Settings, SettingsError
from babysea_server.telemetry.health import HealthApp
from babysea_server.telemetry.metrics import ApiMetrics
from babysea_server.telemetry.requests import RequestLog, address_key
from babysea_server.telemetry.tracing import Tracing
from babysea_server.telemetry.tracing_generations import GenerationTraces
from babysea_server.telemetry.tracing_requests import RequestTraces

if TYPE_CHECKING:
    from babysea_server.app.console import Console

#: One for each kind of count, and one for the health of them.
_COUNTER_CONNECTIONS = 3


class ApiRegion:
    """The API's side of one region."""

    def __init__(
        self,
        shared: Shared,
        region: str,
        dsn: str,
        registries: RegistryFactory,
        metrics: ApiMetrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        settings = shared.settings
        self.region = region
        self.catalog = shared.catalog
        self.db = Database(dsn, name="babysea-api", size=settings.database_connections)
        replica = settings.database_replica_url(region)
        self.reads = self.db if replica is None else ReplicaReads(self.db, replica, shared.clock)
        # Connections of their own, so that slow reads never hold up admission; the server itself ends an
        # admission that takes longer than its deadline.
        self.admission_db = Database(
            dsn,
            name="babysea-admission",
            size=settings.admission_calls + 1,
            statement_timeout_s=settings.admission_deadline_s,
        )
        self.store = open_store(settings.storage_url, settings.data_path, prefix=region)
        self.registry = registries(settings, shared.catalog, self.db)
        self._traces = None if tracing is None else GenerationTraces(tracing, region)
        self.authenticator = Authenticator(self.db, region, shared.plans, shared.clock)
        self.wakeup = Wakeup(self.db)
        self.admissions = Admissions(
            self.admission_db,
            shared.clock,
            self.wakeup.poke,
            deadline_s=settings.admission_deadline_s,
            batch_max=settings.admission_batch,
            calls_max=settings.admission_calls,
            queue_max=settings.admission_queue,
            observe=None if metrics is None else metrics.admission(region),
            traces=self._traces,
        )
        self.counters = _counters(settings, region, dsn)
        timeout_s = settings.counters_timeout_s
        self._rates = SharedWindows("rate", self.counters, shared.clock, timeout_s=timeout_s)
        self.rate_limiter = RateLimiter(self._rates, shared.clock)
        self._failures = SharedWindows("auth", self.counters, shared.clock, timeout_s=timeout_s)
        self.guard = AuthGuard(self._failures, shared.clock, per_minute=settings.auth_failures_per_minute)
        self.reader = Reader(self.db)
        self.requests = RequestLog(self.db, shared.clock, address_key(shared.master_key, region))
        self.provider_health = provider_health(self.db, shared)
        self.rankings = Rankings(self.db, region, shared.clock, settings.redis_url)
        self.router = Router(
            self.registry.available,
            self.rankings.order,
            # Where the sandbox stands in for all there is nothing to be learned.
            exploration=settings.exploration_share if live_providers(settings) else 0.0,
        )
        self.runner = Runner(self.registry, shared.clock)
        self.callbacks = Callbacks(
            CallbackAddresses(
                shared.master_key, region, settings.callback_url, other=shared.other_master_key
            ),
            CallbackVerifier(self.registry, self.runner, shared.clock),
            self.wakeup.announce,
        )
        self.domain_site = domain_site(settings, region)
        self.domain_hosts = DomainHosts(self.db, shared.clock)
        self.billing = billing_of(shared, region, self.db)
        self._shared = shared

    def handlers(self) -> dict[str, Handler]:
        """Handlers by operation id."""
        shared = self._shared
        keys = KeyRoutes()
        account = AccountRoutes(self.db, self.reads)
        catalog = CatalogRoutes(shared.catalog, self._balance, self.registry.available, provider_traits())
        generations = GenerationRoutes(
            Generations(shared.catalog, self.router, self.admissions, self._lifetime_s),
            Canceling(self.db, self.reader, self.runner, shared.catalog, shared.clock, self._traces),
            Deleting(self.db, self.reader, self.store, shared.clock),
            self.reader,
            self.db,
            shared.signer,
            shared.settings.public_url,
        )
        health = HealthRoutes(shared.catalog, self.provider_health, self.registry.available)
        return {
            "status": keys.status,
            "usage": account.usage,
            "account": account.account,
            "billing": account.billing,
            "estimate": catalog.estimate,
            "library_providers": catalog.library_providers,
            "library_models": catalog.library_models,
            "generate": generations.generate,
            "list_generations": generations.list_generations,
            "get_generation": generations.get_generation,
            "cancel_generation": generations.cancel_generation,
            "delete_generation": generations.delete_generation,
            "health_inference": health.inference,
            "health_storage": StorageHealth(self.store, shared.clock).storage,
            "health_cache": CacheHealth(self.counters, shared.clock).cache,
        }

    async def open(self) -> None:
        """Open pools and background tasks, which name the region in what they log."""
        with bound_contextvars(region=self.region):
            await self.db.open()
            if self.reads is not self.db:
                await self.reads.open()
            await self.admission_db.open()
            await self.counters.open()
            self.authenticator.start()
            self.wakeup.start()
            self.rankings.start()
            self.requests.start()
            self.domain_hosts.start()

    async def close(self) -> None:
        """Answer what waits, flush what is buffered, close."""
        await self.admissions.close()
        await self.reader.close()
        await self.authenticator.close()
        await self.wakeup.close()
        await self.rankings.close()
        await self.registry.close()
        await self.requests.close()
        await self.domain_hosts.close()
        if self.billing is not None:
            await self.billing.close()
        await self._rates.close()
        await self._failures.close()
        await self.counters.close()
        await self.admission_db.close()
        if self.reads is not self.db:
            await self.reads.close()
        await self.db.close()

    async def authenticate(
        self, authorization: str | None, client_ip: str, account_id: UUID | None = None
    ) -> Principal:
        """The principal behind an Authorization header, unless its sender has guessed too often.

        Args:
            account_id: keys of other accounts are unknown here.
        """
        self.guard.check(client_ip)
        try:
            return await self.authenticator.authenticate(authorization, client_ip, account_id)
        except ApiError as error:
            if error.spec is AUTHENTICATION_FAILED:
                await self.guard.failed(client_ip)
            raise

    def record(self, request: ServedRequest) -> None:
        """Enter a request into the request log."""
        self.requests.record(request)

    def show(self, telemetry: Telemetry, metrics: ApiMetrics) -> None:
        """Have the figures told that are kept here, whenever somebody asks."""
        for pool in {self.db, self.admission_db, self.reads}:
            telemetry.show_pool(self.region, pool)
        metrics.admission_waiting.labels(self.region).set_function(lambda: self.admissions.waiting)
        metrics.log_lost.add(self.region, read=lambda: self.requests.lost)

    async def _balance(self, account_id: UUID) -> int:
        return await accounts.balance(self.db, account_id)

    def _lifetime_s(self, media: str, providers: int) -> int:
        settings = self._shared.settings
        one = settings.submit_timeout_s + settings.attempt_timeout_s(media)
        return int(providers * one + settings.expiry_grace_s)


def _counters(settings: Settings, region: str, dsn: str) -> WindowCounters:
    if settings.redis_url is None:
        # Connections of their own here, too: what waits too long is decided without it.
        db = Database(dsn, name="babysea-limits", size=_COUNTER_CONNECTIONS, statement_timeout_s=1)
        return PostgresCounters(db)
    from babysea_server.limits.redis import (
        RedisCounters,  # here: its library is large, and most have no Redis
    )

    try:
        return RedisCounters(settings.redis_url, region)
    except ValueError as error:
        raise SettingsError(f"redis_url: {error}") from error


class Api:
    """The HTTP application of one process, for all its regions.

    That is the API, files, callbacks, the document, `/docs`, and the console where it is enabled.

    Args:
        console_only: serve the console alone.
    """

    def __init__(
        self,
        shared: Shared,
        dsns: Mapping[str, str],
        registries: RegistryFactory = provider_registry,
        *,
        console_only: bool = False,
    ) -> None:
        settings = shared.settings
        self.draining = False
        """Set before the end: from then on the process tells that it is not ready, and serves all the same."""
        self.telemetry = Telemetry(
            "console" if console_only else "api", settings, dsns, shared.clock, lambda: self.draining
        )
        self.metrics = ApiMetrics.build(self.telemetry.registry)
        metrics = self.metrics if self.telemetry.counting else None
        tracing = self.telemetry.tracing
        self.regions: dict[str, ApiRegion] = {}
        for name, dsn in dsns.items():
            with bound_contextvars(region=name):
                self.regions[name] = ApiRegion(shared, name, dsn, registries, metrics, tracing)
        for region in self.regions.values():
            region.show(self.telemetry, self.metrics)
        local = settings.default_region if settings.domain == "localhost" else None
        hosts = {
            host: region
            for host, region in regional_hosts(settings.domain, local).items()
            if region in self.regions
        }
        documents = openapi_documents(settings, shared.catalog, list(self.regions))
        self.gateway = Gateway(
            Firewall(documents, hosts, self._custom_host),
            self._authenticate,
            self._take_rate,
            self._record,
            {
                (region.region, operation): handler
                for region in self.regions.values()
                for operation, handler in region.handlers().items()
            },
            shared.clock,
            observe=None if metrics is None else metrics.requests,
            traces=None if tracing is None else RequestTraces(tracing),
            deadline_seconds=settings.request_timeout_s,
        )
        region_hosts = RegionHosts(hosts, self._custom_host)
        self._proxies = _trusted_proxies(settings)
        self._published = Publisher(documents, region_hosts)
        self._callbacks = CallbacksApp({name: region.callbacks for name, region in self.regions.items()})
        self.console = (
            _console(shared, self.regions, hosts, alone=console_only)
            if settings.console_enabled or console_only
            else None
        )
        self._console_only = console_only
        self._files = FilesApp(self._store_for, lambda host: region_hosts.get(host_name(host)), shared.signer)
        self._stripe_events = stripe_events(
            settings, {name: region.billing for name, region in self.regions.items()}
        )

    async def open(self) -> None:
        """Open every region."""
        await together(region.open() for region in self.regions.values())
        await self.telemetry.open()

    async def close(self) -> None:
        """Close every region."""
        if self.console is not None:
            await self.console.close()
        await together(region.close() for region in self.regions.values())
        await self.telemetry.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._proxies is not None and scope["type"] == "http":
            scope = self._proxies.resolve(scope)
        path: str = scope.get("path", "")
        send = counted(path, secured(scope, send), self.metrics)
        if scope["type"] == "http" and path in HealthApp.PATHS and scope["method"] in ("GET", "HEAD"):
            await self.telemetry.health(scope, receive, send)
            return
        if self.console is not None and self.console.serves(scope):
            await self.console(scope, receive, send)
            return
        if self._console_only:
            await Response(status_code=404)(scope, receive, send)
            return
        # What is not ours in any way is the firewall's to refuse, so it gets all that is left.
        if scope["type"] == "http" and path.startswith(FILES_PREFIX):
            await self._files(scope, receive, send)
        elif scope["type"] == "http" and path.startswith(CALLBACKS_PREFIX):
            await self._callbacks(scope, receive, send)
        elif scope["type"] == "http" and path == STRIPE_PATH and self._stripe_events is not None:
            await self._stripe_events(scope, receive, send)
        elif scope["type"] == "http" and path in Publisher.PATHS:
            await self._published(scope, receive, send)
        elif scope["type"] == "http" and path == "/":
            await _welcome(send)
        else:
            await self.gateway(scope, receive, send)

    async def _authenticate(
        self, region: str, authorization: str | None, client_ip: str, account_id: UUID | None
    ) -> Principal:
        return await self.regions[region].authenticate(authorization, client_ip, account_id)

    def _custom_host(self, name: str) -> CustomHost | None:
        for region in self.regions.values():
            if (account_id := region.domain_hosts.account_of(name)) is not None:
                return CustomHost(region.region, account_id)
        return None

    async def _take_rate(self, principal: Principal) -> RateWindow | None:
        return await self.regions[principal.region].rate_limiter.take(principal)

    def _record(self, request: ServedRequest) -> None:
        self.regions[request.principal.region].record(request)

    def _store_for(self, region: str) -> ObjectStore | None:
        found = self.regions.get(region)
        return None if found is None else found.store


def _console(
    shared: Shared, regions: Mapping[str, ApiRegion], hosts: Mapping[str, str], *, alone: bool
) -> "Console":
    # Here: pages, templates and their libraries are a third of all that an API imports.
    from babysea_server.app.console import Console

    return Console(shared, regions, hosts, alone=alone)


def _trusted_proxies(settings: Settings) -> TrustedProxies | None:
    try:
        return TrustedProxies(settings.trusted_proxies) if settings.trusted_proxies else None
    except ValueError as error:
        raise SettingsError(f"trusted_proxies: {error}") from error


async def _welcome(send: Send) -> None:
    document = {
        "name": "BabySea",
        "version": __version__,
        "api": "/v1",
        "openapi": OPENAPI_PATH,
        "docs": REFERENCE_PATH,
    }
    await send_json(send, 200, document)

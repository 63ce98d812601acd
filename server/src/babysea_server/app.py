"""The composition root: builds each part once and wires them; nothing else."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from starlette.types import Receive, Scope, Send

from babysea_server import __version__
from babysea_server.accounts import store as accounts
from babysea_server.accounts.plans import load_plans
from babysea_server.accounts.routes import AccountRoutes
from babysea_server.accounts.service import RENEW_EVERY_S, Renewals
from babysea_server.catalog.catalog import Catalog, load_catalog
from babysea_server.catalog.routes import CatalogRoutes
from babysea_server.catalog.schema import body_schema, example_body
from babysea_server.contract.firewall import Firewall, host_name
from babysea_server.contract.gateway import Gateway
from babysea_server.contract.openapi import ModelBody, build_document
from babysea_server.contract.operations import regional_hosts
from babysea_server.contract.proxies import TrustedProxies
from babysea_server.contract.publish import OPENAPI_PATH, REFERENCE_PATH, Publisher
from babysea_server.contract.security import secured
from babysea_server.db.pool import Database
from babysea_server.errors import AUTHENTICATION_FAILED, ApiError
from babysea_server.execution.periodic import every
from babysea_server.execution.verdict import RULES
from babysea_server.execution.wakeup import Wakeup
from babysea_server.execution.worker import Worker, WorkerSettings
from babysea_server.generations import files, retention
from babysea_server.generations.admission import Admissions
from babysea_server.generations.cancel import Canceling
from babysea_server.generations.delete import Deleting
from babysea_server.generations.reading import Reader
from babysea_server.generations.routes import GenerationRoutes
from babysea_server.generations.service import Generations
from babysea_server.keys.authenticate import Authenticator
from babysea_server.keys.routes import KeyRoutes
from babysea_server.kit import json
from babysea_server.kit.calls import Handler, Plan, Principal, RateWindow, ServedRequest
from babysea_server.kit.clock import Clock, SystemClock
from babysea_server.limits.counters import WINDOW_S, WindowCounters
from babysea_server.limits.guard import AuthGuard
from babysea_server.limits.health import CacheHealth
from babysea_server.limits.rate import RateLimiter
from babysea_server.limits.redis import RedisCounters
from babysea_server.limits.store import PostgresCounters, delete_old
from babysea_server.limits.windows import SharedWindows
from babysea_server.master_key import load_master_key
from babysea_server.outputs.health import StorageHealth
from babysea_server.outputs.links import LinkSigner
from babysea_server.outputs.routes import PREFIX as FILES_PREFIX
from babysea_server.outputs.routes import FilesApp
from babysea_server.outputs.store import ObjectStore, open_store
from babysea_server.providers.registry import Registry, Route, everywhere
from babysea_server.providers.runner import Runner
from babysea_server.providers.sandbox import behavior as sandbox_behavior
from babysea_server.providers.sandbox.adapter import SandboxProvider
from babysea_server.providers.sandbox.upstream import SandboxUpstream
from babysea_server.routing.chain import Router
from babysea_server.routing.health import ProviderHealth
from babysea_server.routing.routes import HealthRoutes
from babysea_server.settings import Settings, SettingsError
from babysea_server.telemetry.partitions import EVERY_S as RETENTION_EVERY_S
from babysea_server.telemetry.partitions import Retention
from babysea_server.telemetry.requests import RequestLog, address_key

#: A run that is buying or settling when its worker stops gets this long; the process's own end is at ten.
_WORKER_STOP_S = 5.0
#: One for each kind of count, and one for the health of them.
_COUNTER_CONNECTIONS = 3

#: Who calls providers in a region: made from the region's database, replaced in tests and benchmarks.
RegistryFactory = Callable[[Settings, Catalog, Database], Registry]


def sandbox_registry(settings: Settings, catalog: Catalog, db: Database) -> Registry:
    """The registry of `provider_mode = sandbox`: the sandbox stands in for every provider."""
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
    return everywhere(catalog.providers, Route(SandboxProvider(), upstream))


@dataclass(frozen=True, slots=True)
class Shared:
    """What all regions of a process share."""

    settings: Settings
    clock: Clock
    catalog: Catalog
    plans: Mapping[str, Plan]
    signer: LinkSigner
    master_key: bytes = field(repr=False)


def build_shared(settings: Settings, clock: Clock | None = None) -> Shared:
    """Load catalog, plans and the master key; every fault of theirs is found here, at start.

    Raises:
        CatalogError, PlanError, SettingsError
    """
    clock = clock or SystemClock()
    overrides = None if settings.catalog_dir is None else Path(settings.catalog_dir)
    master_key = load_master_key(settings)
    return Shared(
        settings=settings,
        clock=clock,
        catalog=load_catalog(overrides),
        plans=load_plans(None if settings.plans_file is None else Path(settings.plans_file)),
        signer=LinkSigner(master_key, clock, settings.file_link_lifetime_s),
        master_key=master_key,
    )


def openapi_documents(
    settings: Settings, catalog: Catalog, regions: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The OpenAPI document of each region."""
    models = [
        ModelBody(model.identifier, model.media, body_schema(model), example_body(model))
        for model in catalog.models.values()
    ]
    port = f":{settings.port}" if settings.domain == "localhost" and settings.port else ""
    scheme = "http" if settings.domain == "localhost" else "https"
    return {
        region: build_document(
            region, server_url=f"{scheme}://api.{region}.{settings.domain}{port}", models=models
        )
        for region in regions
    }


class ApiRegion:
    """The API's side of one region."""

    def __init__(self, shared: Shared, region: str, dsn: str, registries: RegistryFactory) -> None:
        settings = shared.settings
        self.region = region
        self.db = Database(dsn, name="babysea-api", size=settings.database_connections)
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
        )
        self.counters = _counters(settings, region, dsn)
        timeout_s = settings.counters_timeout_s
        self._rates = SharedWindows("rate", self.counters, shared.clock, timeout_s=timeout_s)
        self.rate_limiter = RateLimiter(self._rates, shared.clock)
        self._failures = SharedWindows("auth", self.counters, shared.clock, timeout_s=timeout_s)
        self.guard = AuthGuard(self._failures, shared.clock, per_minute=settings.auth_failures_per_minute)
        self.reader = Reader(self.db)
        self.requests = RequestLog(self.db, shared.clock, address_key(shared.master_key, region))
        self.provider_health = ProviderHealth(
            self.db,
            shared.clock,
            providers=shared.catalog.providers,
            failures=[failure for failure, rule in RULES.items() if rule.trips_breaker],
        )
        self._shared = shared

    def handlers(self) -> dict[str, Handler]:
        """Handlers by operation id."""
        shared = self._shared
        keys = KeyRoutes()
        account = AccountRoutes(self.db)
        catalog = CatalogRoutes(shared.catalog, self._balance, self.registry.available)
        generations = GenerationRoutes(
            Generations(shared.catalog, Router(self.registry.available), self.admissions, self._lifetime_s),
            Canceling(
                self.db, self.reader, Runner(self.registry, shared.clock), shared.catalog, shared.clock
            ),
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
        """Open pools and background tasks."""
        await self.db.open()
        await self.admission_db.open()
        await self.counters.open()
        self.authenticator.start()
        self.wakeup.start()
        self.requests.start()

    async def close(self) -> None:
        """Answer what waits, flush what is buffered, close."""
        await self.admissions.close()
        await self.reader.close()
        await self.authenticator.close()
        await self.wakeup.close()
        await self.registry.close()
        await self.requests.close()
        await self._rates.close()
        await self._failures.close()
        await self.counters.close()
        await self.admission_db.close()
        await self.db.close()

    async def authenticate(self, authorization: str | None, client_ip: str) -> Principal:
        """The principal behind an Authorization header, unless its sender has guessed too often."""
        self.guard.check(client_ip)
        try:
            return await self.authenticator.authenticate(authorization, client_ip)
        except ApiError as error:
            if error.spec is AUTHENTICATION_FAILED:
                await self.guard.failed(client_ip)
            raise

    def record(self, request: ServedRequest) -> None:
        """Enter a request into the request log."""
        self.requests.record(request)

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
    try:
        return RedisCounters(settings.redis_url, region)
    except ValueError as error:
        raise SettingsError(f"redis_url: {error}") from error


class Api:
    """The HTTP application of one process: `/v1`, `/files`, `/openapi.json`, `/docs`, for all its regions."""

    def __init__(
        self,
        shared: Shared,
        dsns: Mapping[str, str],
        registries: RegistryFactory = sandbox_registry,
    ) -> None:
        settings = shared.settings
        self.regions = {region: ApiRegion(shared, region, dsn, registries) for region, dsn in dsns.items()}
        local = settings.default_region if settings.domain == "localhost" else None
        hosts = {
            host: region
            for host, region in regional_hosts(settings.domain, local).items()
            if region in self.regions
        }
        documents = openapi_documents(settings, shared.catalog, list(self.regions))
        self.gateway = Gateway(
            Firewall(documents, hosts),
            self._authenticate,
            self._take_rate,
            self._record,
            {
                (region.region, operation): handler
                for region in self.regions.values()
                for operation, handler in region.handlers().items()
            },
            shared.clock,
            deadline_seconds=settings.request_timeout_s,
        )
        self._proxies = _trusted_proxies(settings)
        self._published = Publisher(documents, hosts)
        self._files = FilesApp(self._store_for, lambda host: hosts.get(host_name(host)), shared.signer)

    async def open(self) -> None:
        """Open every region."""
        await _together(region.open() for region in self.regions.values())

    async def close(self) -> None:
        """Close every region."""
        await _together(region.close() for region in self.regions.values())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._proxies is not None and scope["type"] == "http":
            scope = self._proxies.resolve(scope)
        path: str = scope.get("path", "")
        send = secured(scope, send)
        # What is not ours in any way is the firewall's to refuse, so it gets all that is left.
        if scope["type"] == "http" and path.startswith(FILES_PREFIX):
            await self._files(scope, receive, send)
        elif scope["type"] == "http" and path in Publisher.PATHS:
            await self._published(scope, receive, send)
        elif scope["type"] == "http" and path == "/":
            await _welcome(send)
        else:
            await self.gateway(scope, receive, send)

    async def _authenticate(self, region: str, authorization: str | None, client_ip: str) -> Principal:
        return await self.regions[region].authenticate(authorization, client_ip)

    async def _take_rate(self, principal: Principal) -> RateWindow | None:
        return await self.regions[principal.region].rate_limiter.take(principal)

    def _record(self, request: ServedRequest) -> None:
        self.regions[request.principal.region].record(request)

    def _store_for(self, region: str) -> ObjectStore | None:
        found = self.regions.get(region)
        return None if found is None else found.store


def _trusted_proxies(settings: Settings) -> TrustedProxies | None:
    try:
        return TrustedProxies(settings.trusted_proxies) if settings.trusted_proxies else None
    except ValueError as error:
        raise SettingsError(f"trusted_proxies: {error}") from error


async def _welcome(send: Send) -> None:
    body = json.dumps(
        {
            "name": "BabySea",
            "version": __version__,
            "api": "/v1",
            "openapi": OPENAPI_PATH,
            "docs": REFERENCE_PATH,
        }
    )
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class WorkerRegion:
    """The worker's side of one region."""

    def __init__(self, shared: Shared, region: str, dsn: str, registries: RegistryFactory) -> None:
        settings = shared.settings
        self.db = Database(dsn, name="babysea-worker", size=settings.database_connections)
        self.runner = Runner(
            registries(settings, shared.catalog, self.db),
            shared.clock,
            submit_timeout_s=settings.submit_timeout_s,
        )
        store = open_store(settings.storage_url, settings.data_path, prefix=region)
        self.worker = Worker(
            self.db,
            self.runner,
            store,
            shared.catalog,
            shared.clock,
            WorkerSettings(
                concurrency=settings.worker_concurrency,
                lease_s=settings.worker_lease_s,
                poll_s=settings.worker_poll_s,
                attempt_timeout_s={media: settings.attempt_timeout_s(media) for media in ("image", "video")},
            ),
        )
        self.log_retention = Retention(self.db, keep_days=settings.request_log_days)
        self.renewals = Renewals(self.db, shared.plans)
        self.plan_retention = retention.PlanRetention(self.db, shared.plans)
        self.file_deletions = files.FileDeletions(self.db, store)
        self.orphan_sweep = files.OrphanSweep(self.db, store)
        self._clock = shared.clock
        self._periodic: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Open the pool and start."""
        await self.db.open()
        self.worker.start()
        self._periodic = [
            every("request-log", RETENTION_EVERY_S, self.log_retention.run, self._clock),
            every("window-counts", WINDOW_S, self._delete_old_counts, self._clock),
            every("periods", RENEW_EVERY_S, self.renewals.run, self._clock),
            every("plan-retention", retention.EVERY_S, self.plan_retention.walk, self._clock),
            every("file-deletions", files.DELETIONS_EVERY_S, self.file_deletions.delete_due, self._clock),
            every("orphan-sweep", files.SWEEP_EVERY_S, self.orphan_sweep.sweep, self._clock),
        ]

    async def close(self) -> None:
        """Stop, giving back what is not done, and close."""
        for task in self._periodic:
            task.cancel()
        await asyncio.gather(*self._periodic, return_exceptions=True)
        await self.worker.stop(within_s=_WORKER_STOP_S)
        await self.runner.close()
        await self.db.close()

    async def _delete_old_counts(self) -> None:
        await delete_old(self.db, self._clock.now().timestamp())


class Workers:
    """The workers of one process, one for each region."""

    def __init__(
        self,
        shared: Shared,
        dsns: Mapping[str, str],
        registries: RegistryFactory = sandbox_registry,
    ) -> None:
        self.regions = {region: WorkerRegion(shared, region, dsn, registries) for region, dsn in dsns.items()}

    async def open(self) -> None:
        """Start all workers."""
        await _together(region.open() for region in self.regions.values())

    async def close(self) -> None:
        """Stop all workers gracefully, all at once: the time to stop is the process's, not a region's."""
        await _together(region.close() for region in self.regions.values())


async def _together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it, also when one fails; then raise the first failure."""
    results = await asyncio.gather(*works, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result

"""The composition root: builds each part once and wires them; nothing else."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from starlette.types import Receive, Scope, Send

from babysea_server import __version__
from babysea_server.accounts import store as accounts
from babysea_server.accounts.plans import load_plans
from babysea_server.catalog.catalog import Catalog, load_catalog
from babysea_server.catalog.routes import CatalogRoutes
from babysea_server.catalog.schema import body_schema, example_body
from babysea_server.contract.firewall import Firewall, host_name
from babysea_server.contract.gateway import Gateway
from babysea_server.contract.openapi import ModelBody, build_document
from babysea_server.contract.operations import regional_hosts
from babysea_server.contract.publish import openapi_app
from babysea_server.db.pool import Database
from babysea_server.execution.wakeup import Wakeup
from babysea_server.execution.worker import Worker, WorkerSettings
from babysea_server.generations.admission import Admissions
from babysea_server.generations.reading import Reader
from babysea_server.generations.routes import GenerationRoutes
from babysea_server.generations.service import Generations
from babysea_server.keys.authenticate import Authenticator
from babysea_server.keys.routes import KeyRoutes
from babysea_server.kit import json
from babysea_server.kit.calls import Handler, Plan, Principal, RateWindow, ServedRequest
from babysea_server.kit.clock import Clock, SystemClock
from babysea_server.master_key import load_master_key
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
from babysea_server.settings import Settings, SettingsError

#: A run that is buying or settling when its worker stops gets this long; the process's own end is at ten.
_WORKER_STOP_S = 5.0

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


def build_shared(settings: Settings, clock: Clock | None = None) -> Shared:
    """Load catalog, plans and the master key; every fault of theirs is found here, at start.

    Raises:
        CatalogError, PlanError, SettingsError
    """
    clock = clock or SystemClock()
    overrides = None if settings.catalog_dir is None else Path(settings.catalog_dir)
    return Shared(
        settings=settings,
        clock=clock,
        catalog=load_catalog(overrides),
        plans=load_plans(None if settings.plans_file is None else Path(settings.plans_file)),
        signer=LinkSigner(load_master_key(settings), clock, settings.file_link_lifetime_s),
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
        self.reader = Reader(self.db)
        self._shared = shared

    def handlers(self) -> dict[str, Handler]:
        """Handlers by operation id."""
        shared = self._shared
        keys = KeyRoutes()
        catalog = CatalogRoutes(shared.catalog, self._balance, self.registry.available)
        generations = GenerationRoutes(
            Generations(shared.catalog, Router(self.registry.available), self.admissions, self._lifetime_s),
            self.reader,
            self.db,
            shared.signer,
            shared.settings.public_url,
        )
        return {
            "status": keys.status,
            "estimate": catalog.estimate,
            "library_providers": catalog.library_providers,
            "library_models": catalog.library_models,
            "generate": generations.generate,
            "list_generations": generations.list_generations,
            "get_generation": generations.get_generation,
        }

    async def open(self) -> None:
        """Open pools and background tasks."""
        await self.db.open()
        await self.admission_db.open()
        self.authenticator.start()
        self.wakeup.start()

    async def close(self) -> None:
        """Answer what waits, flush what is buffered, close."""
        await self.admissions.close()
        await self.reader.close()
        await self.authenticator.close()
        await self.wakeup.close()
        await self.registry.close()
        await self.admission_db.close()
        await self.db.close()

    async def take_rate(self, principal: Principal) -> RateWindow | None:
        """Count a request against the account's rate."""
        return None

    def record(self, request: ServedRequest) -> None:
        """Enter a request into the request log."""

    async def _balance(self, account_id: UUID) -> int:
        return await accounts.balance(self.db, account_id)

    def _lifetime_s(self, media: str, providers: int) -> int:
        settings = self._shared.settings
        one = settings.submit_timeout_s + settings.attempt_timeout_s(media)
        return int(providers * one + settings.expiry_grace_s)


class Api:
    """The HTTP application of one process: `/v1`, `/files`, `/openapi.json`, for all its regions."""

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
        self._openapi = openapi_app(documents, hosts)
        self._files = FilesApp(self._store_for, lambda host: hosts.get(host_name(host)), shared.signer)

    async def open(self) -> None:
        """Open every region."""
        await _together(region.open() for region in self.regions.values())

    async def close(self) -> None:
        """Close every region."""
        await _together(region.close() for region in self.regions.values())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        # What is not ours in any way is the firewall's to refuse, so it gets all that is left.
        if scope["type"] == "http" and path.startswith(FILES_PREFIX):
            await self._files(scope, receive, send)
        elif scope["type"] == "http" and path == "/openapi.json":
            await self._openapi(scope, receive, send)
        elif scope["type"] == "http" and path == "/":
            await _welcome(send)
        else:
            await self.gateway(scope, receive, send)

    async def _authenticate(self, region: str, authorization: str | None, client_ip: str) -> Principal:
        return await self.regions[region].authenticator.authenticate(authorization, client_ip)

    async def _take_rate(self, principal: Principal) -> RateWindow | None:
        return await self.regions[principal.region].take_rate(principal)

    def _record(self, request: ServedRequest) -> None:
        self.regions[request.principal.region].record(request)

    def _store_for(self, region: str) -> ObjectStore | None:
        found = self.regions.get(region)
        return None if found is None else found.store


async def _welcome(send: Send) -> None:
    body = json.dumps({"name": "BabySea", "version": __version__, "api": "/v1", "openapi": "/openapi.json"})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
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
        self.worker = Worker(
            self.db,
            self.runner,
            open_store(settings.storage_url, settings.data_path, prefix=region),
            shared.catalog,
            shared.clock,
            WorkerSettings(
                concurrency=settings.worker_concurrency,
                lease_s=settings.worker_lease_s,
                poll_s=settings.worker_poll_s,
                attempt_timeout_s={media: settings.attempt_timeout_s(media) for media in ("image", "video")},
            ),
        )

    async def open(self) -> None:
        """Open the pool and start."""
        await self.db.open()
        self.worker.start()

    async def close(self) -> None:
        """Stop, giving back what is not done, and close."""
        await self.worker.stop(within_s=_WORKER_STOP_S)
        await self.runner.close()
        await self.db.close()


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

"""A whole system whose providers are emulators: an API behind a socket, a worker, and who asks and looks."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tests.conftest import MakeDeployment
from tests.contract.sockets import serving
from tests.emulators.kit import SECRET_MARK, Emulator
from tests.providers.profiles.kit import Case
from tests.resolving import ScriptedResolver
from tests.support import FINAL, Customer, Deployment, eventually, make_customer

from babysea_server.app.registries import provider_registry
from babysea_server.catalog.catalog import Catalog
from babysea_server.db.pool import Database
from babysea_server.kit.connections import Allowance
from babysea_server.providers.files import FileTransport
from babysea_server.providers.registry import Registry, Route
from babysea_server.providers.sandbox.adapter import SandboxProvider
from babysea_server.providers.sandbox.upstream import SandboxUpstream
from babysea_server.settings import Settings

#: A public name that leads to the emulator in these tests; customers' input files lie there.
FILES_HOST = "files.example.com"
#: A public name that leads to a private address.
PRIVATE_HOST = "intranet.example.com"


@dataclass(frozen=True)
class Ended:
    """A generation that is final."""

    status: str
    code: str | None
    provider: str | None
    failure: str | None
    """Of the last attempt."""
    files: Sequence[Any]
    attempts: Sequence[Any]
    reserved: int
    charged: int
    refunded: int


@dataclass
class Live:
    """The system, one customer, and the emulators."""

    deployment: Deployment
    customer: Customer
    emulators: Sequence[Emulator]
    catalog: Catalog

    async def generate(self, case: Case, prompt: str, *order: str) -> UUID:
        """Submit; the generation's id."""
        body = {"generation_prompt": prompt, **case.inputs}
        if "generation_prompt" not in self.catalog.models[case.model].fields:
            del body["generation_prompt"]
        if order:
            body["generation_provider_order"] = ", ".join(order)
        media = self.catalog.models[case.model].media
        answer = await self.customer.request("POST", f"/v1/generate/{media}/{case.model}", json=body)
        assert answer.status_code == 200, answer.text
        return UUID(answer.json()["data"]["generation_id"])

    async def ended(self, generation_id: UUID) -> Ended:
        """The generation once it is final."""
        db = self.deployment.db

        async def final() -> Any:
            row = await db.fetchrow("SELECT * FROM generations WHERE id = $1", generation_id)
            return row if row["status"] in FINAL else None

        row = await eventually(final, within_s=60)
        attempts = await db.fetch(
            "SELECT * FROM attempts WHERE generation_id = $1 ORDER BY attempt_order", generation_id
        )
        return Ended(
            status=row["status"],
            code=row["error_code"],
            provider=row["provider_used"],
            failure=attempts[-1]["failure"] if attempts else None,
            files=row["outputs"] or [],
            attempts=attempts,
            reserved=row["reserved"],
            charged=row["charged"],
            refunded=row["refunded"],
        )

    def order_of(self, case: Case, provider: str) -> tuple[str, ...] | None:
        """The provider and another one of the model, if there is one."""
        others = [name for name in self.catalog.models[case.model].provider_ids if name != provider]
        return (provider, others[0]) if others else None


@asynccontextmanager
async def live(
    make_deployment: MakeDeployment,
    emulators: Sequence[Emulator],
    *,
    callbacks: bool = False,
    stand_ins: bool = False,
    **settings: Any,
) -> AsyncIterator[Live]:
    """A system that calls the emulators.

    Args:
        callbacks: providers are told where to call back: the API is served on loopback.
        stand_ins: the sandbox stands in for all providers that are not emulated.
    """
    inputs = FileTransport(
        allowed=[Allowance(FILES_HOST, Allowance.of(emulator.origin).port) for emulator in emulators],
        # Customers' files lie at a public name, and here that leads back to us.
        resolver=ScriptedResolver({FILES_HOST: [["127.0.0.1"]], PRIVATE_HOST: [["10.0.0.1"]]}),
    )

    def registries(settings: Settings, catalog: Catalog, db: Database) -> Registry:
        whole = provider_registry(settings, catalog, db, inputs=inputs)
        if not stand_ins:
            return whole
        sandbox = Route(SandboxProvider(), SandboxUpstream(db, latency_s=0.01, image_edge=64))
        return Registry({id: whole.route(id) or sandbox for id in catalog.providers})

    given: dict[str, Any] = {
        "providers": {emulator.provider: emulator.settings() for emulator in emulators},
        "provider_mode": "auto",
        "breaker_enabled": False,
        "image_attempt_timeout_s": 4.0,
        "video_attempt_timeout_s": 8.0,
        "submit_timeout_s": 3.0,
        **settings,
    }
    async with AsyncExitStack() as stack:
        if callbacks:
            port, adopt = await stack.enter_async_context(_late_server())
            given["callback_url"] = f"http://127.0.0.1:{port}"
        deployment = await make_deployment(registries=registries, **given)
        if callbacks:
            adopt(deployment.api)
        customer = await make_customer(deployment)
        yield Live(deployment, customer, emulators, deployment.api.regions["us"].catalog)
        await no_secret_is_seen(deployment.db)
        assert await deployment.differences() == []


@asynccontextmanager
async def _late_server() -> AsyncIterator[tuple[int, Any]]:
    """A port whose application comes later: the application must know the port first."""
    found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await (await found)(scope, receive, send)

    async with serving(app) as port:
        yield port, found.set_result


async def no_secret_is_seen(db: Database) -> None:
    """No table of the database holds anything of the operator's keys."""
    tables = await db.fetch(
        """SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) AS name FROM pg_tables
           WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"""
    )
    for table in tables:
        query = f"SELECT count(*) FROM {table['name']} AS t WHERE to_jsonb(t)::text LIKE '%' || $1 || '%'"
        assert await db.fetchval(query, SECRET_MARK) == 0, table["name"]

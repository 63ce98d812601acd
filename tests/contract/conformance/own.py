"""A server of our own: two regions, workers and the sandbox in this process, HTTP over loopback."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.contract.sockets import serving
from tests.support import make_account

from babysea_server.app.api import Api
from babysea_server.app.shared import build_shared
from babysea_server.app.workers import Workers
from babysea_server.settings import load_settings


class OwnServer:
    """The running server, and the issuer of its keys."""

    def __init__(self, api: Api, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self._api = api
        self._port = port

    def host(self, region: str) -> str:
        """The Host header of a region."""
        return f"api.{region}.localhost:{self._port}"

    async def issue(
        self,
        *,
        region: str = "us",
        plan: str = "unlimited",
        credits: str = "100",
        scopes: Sequence[str] | None = None,
        preset: str = "full_access",
        allowlist: Sequence[str] = (),
    ) -> str:
        """A key of a new account with so many credits."""
        _, key = await make_account(
            self._api.regions[region].db,
            plan=plan,
            credits=credits,
            scopes=scopes,
            preset=preset,
            allowlist=allowlist,
        )
        return key


@asynccontextmanager
async def own_server(data_dir: Path, dsns: Mapping[str, str]) -> AsyncIterator[OwnServer]:
    """Serve the regions of `dsns` until the context ends."""
    settings = load_settings(
        {},
        overrides={
            "data_dir": str(data_dir),
            "regions": list(dsns),
            "sandbox_latency_s": 0.02,
            "sandbox_image_edge": 64,
            "worker_lease_s": 5,
            "worker_poll_s": 0.2,
            "auth_failures_per_minute": 100_000,
        },
    )
    shared = build_shared(settings)
    api, workers = Api(shared, dsns), Workers(shared, dsns)
    await api.open()
    await workers.open()
    try:
        async with serving(api) as port:
            yield OwnServer(api, port)
    finally:
        await workers.close()
        await api.close()

"""The image's own health check, against a server that answers as told."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.deploy.files import DEPLOY
from tests.limits.servers import free_port


@asynccontextmanager
async def _answering(port: int, statuses: dict[str, int]) -> AsyncIterator[None]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=statuses[request.path])

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield
    finally:
        await runner.cleanup()


async def _checked(port: int, *arguments: str) -> int:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(DEPLOY / "docker" / "healthcheck.py"), *arguments),
        env={"BABYSEA_METRICS_PORT": str(port)},
    )
    return await process.wait()


@pytest.mark.parametrize("offset", [0, 1, 2], ids=["api", "worker", "console"])
async def test_a_process_of_each_kind_is_found_and_asked(offset: int) -> None:
    port = free_port()
    async with _answering(port, {"/healthz": 200, "/readyz": 503}):
        assert await _checked(port - offset) == 0
        assert await _checked(port - offset, "/readyz") == 1


async def test_a_process_that_does_not_listen_is_not_healthy() -> None:
    assert await _checked(free_port()) == 1

"""Running one API or one worker process until it is told to stop."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import structlog
import uvicorn

from babysea_server.app import Api, Workers, build_shared
from babysea_server.db.cluster import Cluster
from babysea_server.settings import Settings

_log = structlog.get_logger(__name__)

_BACKLOG = 2048
_HTTP_DRAIN_S = 5


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: one place decides when this process stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound, listening TCP socket; port 0 takes a free one.

    Raises:
        OSError: the address is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


async def run_api(settings: Settings, listener: socket.socket, *, on_ready: Callable[[], None]) -> None:
    """Serve HTTP on `listener` until SIGTERM or SIGINT, then drain within ten seconds."""
    async with _databases(settings) as cluster:
        shared = build_shared(settings)
        api = Api(shared, {region: cluster.dsn(region) for region in settings.regions})
        await api.open()
        try:
            config = uvicorn.Config(
                api,
                loop="none",
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="warning",
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_HTTP_DRAIN_S,
                backlog=_BACKLOG,
            )
            server = _Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
            stop = asyncio.create_task(_stop_requested(), name="stop")
            on_ready()
            await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            api.gateway.draining = True
            server.should_exit = True
            await serving
        finally:
            await api.close()


async def run_worker(settings: Settings, *, on_ready: Callable[[], None]) -> None:
    """Execute generations until SIGTERM or SIGINT, then give the rest back within ten seconds."""
    async with _databases(settings) as cluster:
        workers = Workers(
            build_shared(settings), {region: cluster.dsn(region) for region in settings.regions}
        )
        await workers.open()
        on_ready()
        try:
            await _stop_requested()
        finally:
            await workers.close()


@contextlib.asynccontextmanager
async def _databases(settings: Settings) -> AsyncIterator[Cluster]:
    cluster = Cluster(settings)
    try:
        await cluster.open()
        yield cluster
    finally:
        await cluster.close()


async def _stop_requested() -> None:
    """Return at SIGTERM or SIGINT, or when the supervisor that started this process is gone."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if os.environ.get("BABYSEA_SUPERVISED") == "1":
        # Standard input is a pipe held by the supervisor: it ends when the supervisor does, however it ends.
        loop.add_reader(sys.stdin.fileno(), stop.set)
    await stop.wait()
    _log.info("stopping")

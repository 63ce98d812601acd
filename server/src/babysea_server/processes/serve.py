"""Running one API or one worker process until it is told to stop."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import structlog
from starlette.types import ASGIApp

from babysea_server.app.shared import build_shared
from babysea_server.app.telemetry import Telemetry
from babysea_server.catalog.catalog import CatalogError
from babysea_server.db.cluster import Cluster
from babysea_server.kit.tasks import end
from babysea_server.outputs.store import StorageError, local_directory
from babysea_server.processes.faults import StartError, StoppedError
from babysea_server.processes.listening import BACKLOG, listening_socket
from babysea_server.processes.stopping import Stop, is_supervised
from babysea_server.settings import Settings
from babysea_server.telemetry.logs import name_process

if TYPE_CHECKING:
    import uvicorn

    from babysea_server.app.api import Api

_log = structlog.get_logger(__name__)

# Together less than the eight seconds after which a supervisor kills.
_HTTP_DRAIN_S = 5
_API_CLOSE_S = 2.5
_METRICS_CLOSE_S = 0.5
#: How often garbage is looked for. A request leaves none behind, but those that are under way at once are more than
#: the 700 new objects at which Python looks by itself: ten times for each batch of 64, and all in vain.
_GC_THRESHOLDS = (10_000, 10, 10)
#: Beside what runs get: writing down what is known, giving back the rest.
_WORKERS_CLOSE_S = 2.5


async def run_api(
    settings: Settings, listener: socket.socket, *, on_ready: Callable[[], None], console_only: bool = False
) -> None:
    """Serve HTTP on `listener` until SIGTERM or SIGINT, for `drain_s` more, then end within eight seconds.

    Args:
        console_only: serve the console, and no API.

    Raises:
        StartError, SchemaError, EmbeddedPostgresError, ValueError
    """
    from babysea_server.app.api import Api  # here, as with workers: a process imports only what it is

    name_process("console" if console_only else "api")
    stop = Stop()
    with contextlib.suppress(StoppedError), _start_faults():
        async with _databases(settings, stop) as cluster:
            dsns: dict[str, str] = {region: cluster.dsn(region) for region in settings.regions}
            api = Api(build_shared(settings), dsns, console_only=console_only)
            async with told(api.telemetry):
                try:
                    await stop.starting(api.open())
                    # The processes of an `up` end with it, and nobody spreads requests over several of them.
                    drain_s = 0.0 if is_supervised() else settings.drain_s
                    await _serve_http(api, listener, stop, on_ready, drain_s=drain_s)
                finally:
                    await _within(_API_CLOSE_S, api.close())


def http_config(app: ASGIApp) -> "uvicorn.Config":
    """How HTTP is served in production; benchmarks serve their baseline with the same."""
    import uvicorn  # here and below: most workers serve none

    from babysea_server.processes.http import HttpProtocol

    return uvicorn.Config(
        app,
        loop="none",
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_HTTP_DRAIN_S,
        backlog=BACKLOG,
    )


def settle_memory() -> None:
    """Take all that was made at the start out of the garbage collector's sight.

    Code, catalog and documents live as long as the process; without this every full collection goes over
    them and stops the process for tens of milliseconds. Garbage is rarely looked for during a start; now it is.
    """
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def _serve_http(
    api: "Api", listener: socket.socket, stop: Stop, on_ready: Callable[[], None], *, drain_s: float
) -> None:
    from babysea_server.processes.http import Server

    server = Server(http_config(api))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    settle_memory()
    on_ready()
    try:
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        api.draining = True
        # Until those who spread requests have noticed; whoever is served meanwhile is served well.
        await asyncio.wait({serving}, timeout=drain_s)
        api.gateway.draining = True
        server.should_exit = True
        await serving
    finally:
        stopped.cancel()


async def run_worker(settings: Settings, *, on_ready: Callable[[], None]) -> None:
    """Execute generations until SIGTERM or SIGINT, then give the rest back, with the default in eight seconds.

    Raises:
        StartError, SchemaError, EmbeddedPostgresError, ValueError
    """
    from babysea_server.app.workers import Workers

    name_process("worker")
    stop = Stop()
    with contextlib.suppress(StoppedError), _start_faults():
        async with _databases(settings, stop) as cluster:
            workers = Workers(
                build_shared(settings), {region: cluster.dsn(region) for region in settings.regions}
            )
            async with told(workers.telemetry):
                try:
                    await stop.starting(workers.open())
                    settle_memory()
                    on_ready()
                    await stop.wait()
                finally:
                    await _within(settings.worker_stop_s + _WORKERS_CLOSE_S, workers.close())


@contextlib.asynccontextmanager
async def told(telemetry: Telemetry) -> AsyncIterator[None]:
    """Serve a process's metrics and health where its settings say, from its start until it has drained.

    Raises:
        StartError: the address is not to be had.
    """
    if telemetry.port is None:
        yield
        return
    from babysea_server.processes.http import Server

    listener = listening_socket(telemetry.host, telemetry.port, chosen_with="metrics_port")
    server = Server(http_config(telemetry.app))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="metrics")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait({serving}, timeout=_METRICS_CLOSE_S)
        await end([serving])
        listener.close()


def _warn_of_local_files(settings: Settings) -> None:
    """Tell what cannot work over machines; one machine, and a folder that all of them mount, look the same."""
    shared = [region for region in settings.regions if settings.database_url(region)]
    directory = local_directory(settings.storage_url, settings.data_path)
    if shared and directory is not None and not is_supervised():
        _log.warning(
            "files_are_local",
            regions=shared,
            folder=str(directory),
            meaning="no other machine can serve or delete them unless it mounts the folder; else set STORAGE_URL",
        )


@contextlib.asynccontextmanager
async def _databases(settings: Settings, stop: Stop) -> AsyncIterator[Cluster]:
    await stop.may_start()
    _warn_of_local_files(settings)
    cluster = Cluster(settings)
    try:
        await stop.starting(cluster.open())
        yield cluster
    finally:
        await cluster.close()


@contextlib.contextmanager
def _start_faults() -> Iterator[None]:
    """What the operator can mend is a `StartError`, so that the command line need not know all parts."""
    try:
        yield
    except (CatalogError, StorageError) as error:
        raise StartError(str(error)) from error


async def _within(seconds: float, closing: Coroutine[Any, Any, None]) -> None:
    try:
        await asyncio.wait_for(closing, seconds)
    except TimeoutError:
        _log.warning("not_closed_in_time", seconds=seconds)

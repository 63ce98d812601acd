"""Commands that run and describe the server."""

import faulthandler
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import uvloop

from babysea_server import __version__
from babysea_server.cli.backup import backup, check_restored, restore
from babysea_server.cli.common import (
    EXPECTED,
    AsJson,
    Config,
    DataDir,
    RegionOption,
    cell,
    check_region,
    fail,
    read_settings,
    show,
)
from babysea_server.cli.groups import Groups
from babysea_server.db.cluster import Cluster
from babysea_server.processes.faults import AlreadyRunningError, StartError, StoppedError
from babysea_server.processes.listening import listening_socket
from babysea_server.processes.stopping import Stop, is_supervised, report_failure, report_ready
from babysea_server.processes.systemd import READY, notify, watchdog
from babysea_server.settings import REGIONS, Settings, SettingsError, describe

app = typer.Typer(
    name="babysea-server",
    cls=Groups,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Execution control plane for generative media.",
)

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on; 0 takes a free one.")]
Regions = Annotated[
    list[str] | None,
    typer.Option("--region", help="Region to serve, repeatable; the first is the default region."),
]

_START_FAULTS = (*EXPECTED, StartError, TimeoutError)


@app.command()
def up(
    data_dir: DataDir = None,
    config: Config = None,
    host: Host = None,
    port: Port = None,
    region: Regions = None,
) -> None:
    """Run everything on this machine: database, API, worker. Ctrl-C stops it; data stays."""
    from babysea_server.processes.supervisor import Supervisor

    settings = _serving(data_dir, config, host, port, region)
    _loopback_note(settings)
    arguments = ["--data-dir", str(settings.data_path)]
    if config is not None:
        arguments += ["--config", str(config.resolve())]
    for name in region or []:
        arguments += ["--region", name]

    def supervise() -> Coroutine[Any, Any, None]:
        return Supervisor(settings, arguments, _ready).run()

    try:
        _run(supervise)
    except AlreadyRunningError:
        _already_running(settings)


@app.command()
def api(
    data_dir: DataDir = None,
    config: Config = None,
    host: Host = None,
    port: Port = None,
    region: Regions = None,
    fd: Annotated[int | None, typer.Option(hidden=True, help="Serve this inherited socket.")] = None,
) -> None:
    """Run one API process."""
    # The parts are imported here: with them every other command would take twice as long.
    from babysea_server.processes.serve import run_api

    settings = _serving(data_dir, config, host, port, region)

    def serve() -> Coroutine[Any, Any, None]:
        listener = (
            socket.socket(fileno=fd) if fd is not None else listening_socket(settings.host, settings.port)
        )
        port = listener.getsockname()[1]
        # The document names the port that is really served.
        served = msgspec.structs.replace(settings, port=port)
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        return run_api(served, listener, on_ready=lambda: _ready(f"API listening on http://{name}:{port}\n"))

    _run(serve)


@app.command()
def console(
    data_dir: DataDir = None,
    config: Config = None,
    host: Host = None,
    port: Port = None,
    region: Regions = None,
) -> None:
    """Run the console alone, beside API processes that have `console_enabled = false`."""
    from babysea_server.processes.serve import run_api

    # The port of the settings stays the API's, which pages name and call.
    settings = _serving(data_dir, config, host, None, region)

    def serve() -> Coroutine[Any, Any, None]:
        listener = listening_socket(settings.host, settings.port + 1 if port is None else port)
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{name}:{listener.getsockname()[1]}/console"
        return run_api(
            settings,
            listener,
            console_only=True,
            on_ready=lambda: _ready(f"console listening on {address}\n"),
        )

    _run(serve)


@app.command()
def worker(data_dir: DataDir = None, config: Config = None, region: Regions = None) -> None:
    """Run one worker process."""
    from babysea_server.processes.serve import run_worker

    settings = _serving(data_dir, config, None, None, region)
    _run(lambda: run_worker(settings, on_ready=lambda: _ready("worker running\n")))


@app.command()
def migrate(
    finish: Annotated[
        bool,
        typer.Option(
            "--finish", help="Also take away what only older versions need; refused while one is connected."
        ),
    ] = False,
    data_dir: DataDir = None,
    config: Config = None,
    region: Regions = None,
) -> None:
    """Bring the databases' schema up to date; older processes go on working, until --finish."""
    settings = _serving(data_dir, config, None, None, region)

    async def run() -> None:
        stop = Stop()
        cluster = Cluster(settings)
        try:
            await stop.starting(cluster.open(migrate_external=True))
            if finish:
                await stop.starting(cluster.finish())
        except StoppedError:
            raise StartError("stopped before everything was done; run it again") from None
        finally:
            await cluster.close()

    _run(run)
    sys.stdout.write(f"schema is up to date in {', '.join(settings.regions)}\n")


app.command()(backup)
app.command()(restore)
app.command()(check_restored)


@app.command("settings")
def list_settings(data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """List every setting with its environment variable, present value and meaning."""
    rows = describe(read_settings(data_dir, config))
    if as_json:
        show(rows, as_json=True)
        return
    for row in rows:
        changed = "" if row["value"] == row["default"] else f"  (default {cell(row['default'])})"
        sys.stdout.write(f"{row['name']} = {cell(row['value'])}{changed}\n")
        sys.stdout.write(f"    {row['environment']}: {row['description']}\n")


@app.command()
def openapi(
    region: RegionOption = None,
    operations: Annotated[
        bool, typer.Option("--operations", help="Print the operations as a table instead.")
    ] = False,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Print the OpenAPI document of a region, or the table of all operations."""
    from babysea_server.app.shared import catalog_of, openapi_documents
    from babysea_server.catalog.catalog import CatalogError
    from babysea_server.contract.operations import operations_table

    settings = read_settings(data_dir, config)
    if operations:
        rows = [
            {"host": row.host, "method": row.method, "path": row.path, "scope": row.scope}
            for row in operations_table(settings.domain)
        ]
        show(rows, as_json=as_json, title=f"{len(rows)} operations")
        return
    chosen = check_region(settings, region)
    try:
        catalog = catalog_of(settings)
    except (CatalogError, SettingsError) as error:
        fail(str(error))
    document = openapi_documents(settings, catalog, [chosen])[chosen]
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(__version__ + "\n")


def main() -> None:
    """Entry point."""
    app()


def _serving(
    data_dir: Path | None, config: Path | None, host: str | None, port: int | None, regions: list[str] | None
) -> Settings:
    overrides: dict[str, Any] = {"host": host, "port": port}
    if regions:
        unknown = [name for name in regions if name not in REGIONS]
        if unknown:
            fail(f"unknown region {unknown[0]!r}; regions are {', '.join(REGIONS)}", 2)
        overrides |= {"regions": list(dict.fromkeys(regions)), "default_region": regions[0]}
    return read_settings(data_dir, config, **overrides)


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it; what the operator can mend becomes one line, here or at the supervisor's."""

    # Killed as one that stands still, it says where it stood.
    faulthandler.enable()

    async def run() -> None:
        with watchdog():
            await work()

    try:
        uvloop.run(run())
    except AlreadyRunningError:
        raise
    except _START_FAULTS as error:
        reason = str(error) or type(error).__name__
        if not is_supervised():
            fail(reason)
        report_failure(reason)
        raise typer.Exit(1) from None


def _ready(text: str) -> None:
    if is_supervised():
        report_ready()
    else:
        sys.stdout.write(text)
        sys.stdout.flush()
        notify(READY)


def _already_running(settings: Settings) -> None:
    known = settings.data_path / "quickstart.json"
    sys.stdout.write(f"BabySea is already running on {settings.data_path}.\n")
    if known.exists():
        sys.stdout.write(f"Its address and key are in {known}.\n")


def _loopback_note(settings: Settings) -> None:
    if settings.domain == "localhost" and settings.host not in ("127.0.0.1", "::1", "localhost"):
        sys.stderr.write(
            f"note: listening on {settings.host}, but only localhost names are answered; set BABYSEA_DOMAIN\n"
        )

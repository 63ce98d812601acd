"""What the commands share: options, settings, one region's database, output for people and for programs."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import asyncpg
import msgspec
import typer
from rich.console import Console
from rich.table import Table

from babysea_server.db.cluster import Cluster, SchemaError
from babysea_server.db.embedded import EmbeddedPostgresError
from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.settings import REGIONS, Settings, SettingsError, load_settings
from babysea_server.telemetry.logs import configure_logging

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of the embedded database, local files, the master key."),
]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RegionOption = Annotated[
    str | None, typer.Option("--region", help="us, eu or jp; by default the default region.")
]

Value = TypeVar("Value")

#: What may go wrong without being a fault of this program, each with a message for people.
EXPECTED = (
    ValueError,
    SettingsError,
    SchemaError,
    EmbeddedPostgresError,
    DatabaseUnavailableError,
    OSError,
    asyncpg.PostgresError,
)


def fail(message: str, code: int = 1) -> NoReturn:
    """Print one line to standard error and exit."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {message}")
    raise typer.Exit(code)


def read_settings(data_dir: Path | None, config: Path | None, **overrides: Any) -> Settings:
    """Settings of this call; logging is set up by them."""
    try:
        settings = load_settings(
            config=config,
            overrides={"data_dir": None if data_dir is None else str(data_dir), **overrides},
        )
    except SettingsError as error:
        fail(str(error), 2)
    configure_logging(format=settings.log_format, level=settings.log_level)
    return settings


def check_region(settings: Settings, region: str | None) -> str:
    """The region a command works on."""
    chosen = region or settings.default_region
    if chosen not in REGIONS:
        fail(f"unknown region {chosen!r}; regions are {', '.join(REGIONS)}", 2)
    return chosen


@asynccontextmanager
async def region_database(settings: Settings, region: str) -> AsyncIterator[Database]:
    """One region's database, beside a running server or without one."""
    cluster = Cluster(settings, [region])
    db: Database | None = None
    try:
        await cluster.open()
        db = Database(cluster.dsn(region), name="babysea-cli", size=2)
        await db.open()
        yield db
    finally:
        if db is not None:
            await db.close()
        await cluster.close()


def in_region(
    data_dir: Path | None,
    config: Path | None,
    region: str | None,
    work: Callable[[Database, str], Awaitable[Value]],
) -> Value:
    """Run `work` on one region's database; expected faults become one line and exit code 1."""
    settings = read_settings(data_dir, config, log_level="warning")
    chosen = check_region(settings, region)

    async def call() -> Value:
        async with region_database(settings, chosen) as db:
            return await work(db, chosen)

    try:
        return asyncio.run(call())
    except EXPECTED as error:
        fail(str(error))


def show(rows: Sequence[dict[str, Any]] | dict[str, Any], *, as_json: bool, title: str = "") -> None:
    """Print one record or several: JSON for programs, a table or lines for people."""
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows)).decode() + "\n")
        return
    console = Console(highlight=False, soft_wrap=True)
    if isinstance(rows, dict):
        width = max((len(name) for name in rows), default=0)
        for name, value in rows.items():
            console.print(f"{name.ljust(width)}  {_cell(value)}", markup=False)
        return
    if not rows:
        console.print(f"no {title or 'rows'}")
        return
    table = Table(title=title or None, title_justify="left")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console(highlight=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "-"
    return str(value)

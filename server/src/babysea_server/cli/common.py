"""What the commands share: options, settings, one region's database, output for people and for programs."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar
from uuid import UUID

import asyncpg
import msgspec
import typer

from babysea_server.db.cluster import Cluster, SchemaError
from babysea_server.db.embedded import EmbeddedPostgresError
from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.keys.service import AmbiguousPrefixError, KeyStateError
from babysea_server.kit.clock import rfc3339
from babysea_server.kit.faults import NotFoundError
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
AccountOption = Annotated[str, typer.Option("--account", help="Account id.")]

Value = TypeVar("Value")

#: What may go wrong without being a fault of this program, each with a message for people.
EXPECTED = (
    ValueError,
    NotFoundError,
    AmbiguousPrefixError,
    KeyStateError,
    SettingsError,
    SchemaError,
    EmbeddedPostgresError,
    DatabaseUnavailableError,
    OSError,
    asyncpg.PostgresError,
)


def fail(message: str, code: int = 1) -> NoReturn:
    """Print one line to standard error and exit."""
    typer.echo(f"{typer.style('error:', fg='red', bold=True)} {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


@contextmanager
def refusing_input() -> Iterator[None]:
    """What is wrong with the given options is one line and exit code 2."""
    try:
        yield
    except ValueError as error:
        fail(str(error), 2)


def account_id_of(text: str) -> UUID:
    """The id of an account as it was given."""
    try:
        return UUID(text)
    except ValueError:
        fail(f"{text!r} is not an account id", 2)


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

    if settings.database_url(chosen) is None and not (settings.data_path / "postgres").exists():
        sys.stderr.write(f"note: there is no database in {settings.data_path} yet; making one\n")

    async def call() -> Value:
        async with region_database(settings, chosen) as db:
            return await work(db, chosen)

    try:
        return asyncio.run(call())
    except EXPECTED as error:
        fail(str(error) or type(error).__name__)


def show(rows: Sequence[dict[str, Any]] | dict[str, Any], *, as_json: bool, title: str = "") -> None:
    """Print one record or several: JSON for programs, lines or a table for people.

    A table goes to a terminal that is wide enough. Elsewhere nothing is wrapped or drawn, so that ids and paths
    can be copied and lines be searched.
    """
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows)).decode() + "\n")
    elif isinstance(rows, dict):
        write_records([rows])
    elif not rows:
        sys.stdout.write(f"no {title or 'rows'}\n")
    else:
        # Here, because it draws with Rich, which no process that serves needs.
        from babysea_server.cli.tables import print_rows

        print_rows(rows, title)


def write_records(rows: Sequence[dict[str, Any]]) -> None:
    """Print each record as lines of name and value."""
    width = max(len(name) for row in rows for name in row)
    blocks = ["".join(f"{name.ljust(width)}  {cell(value)}\n" for name, value in row.items()) for row in rows]
    sys.stdout.write("\n".join(blocks))


def moment(value: datetime | None) -> str | None:
    """A moment as it is printed, or None."""
    return None if value is None else rfc3339(value)


def cell(value: Any) -> str:
    """A value for people, on one line; control characters of names never reach the terminal."""
    if isinstance(value, Mapping):
        value = [f"{name}={item}" for name, item in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value)
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text) or "-"

"""PostgreSQL's own programs, and the state of a database before and after they were there."""

import asyncio
import os
import subprocess
from asyncio.subprocess import Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import asyncpg

from babysea_server.backups.manifest import BackupError
from babysea_server.db import embedded

_CHUNK_BYTES = 1 << 16
#: Servers before version 17 do not know it and would refuse the whole script, which has it in its first lines.
_TOO_NEW = b"SET transaction_timeout"
_HEAD_BYTES = 512

_RELATIONS = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
"""


async def dump(dsn: str, path: Path) -> None:
    """One moment of a whole database, beside whatever writes to it, into a file that only its owner can read.

    Raises:
        BackupError
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    # What is unlogged are counters of the current minute, and rankings that are computed again.
    await _run("pg_dump", dsn, "--format=custom", "--no-unlogged-table-data", f"--file={path}")


async def load(dsn: str, path: Path) -> None:
    """Bring a dump into an empty database, whole or not at all.

    Raises:
        BackupError
    """
    address, environment = _reached(dsn)
    reading = await _start(
        "pg_restore", "--file=-", "--no-owner", "--no-privileges", str(path), stdout=subprocess.PIPE
    )
    loading = await _start(
        "psql",
        f"--dbname={address}",
        *("--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"),
        stdin=subprocess.PIPE,
        environment=environment,
    )
    try:
        await _hand_over(reading, loading)
        # Only now: a script that ends early would be committed as if it were whole.
        await _ended(reading, "pg_restore")
        assert loading.stdin is not None
        loading.stdin.close()
        await _ended(loading, "psql")
    finally:
        await _end(reading)
        await _end(loading)


async def _hand_over(reading: Process, loading: Process) -> None:
    assert reading.stdout is not None
    assert loading.stdin is not None
    head = bytearray()
    with suppress(ConnectionError):  # who does not take it any more says why
        while len(head) < _HEAD_BYTES and (line := await reading.stdout.readline()):
            head += line
            if not line.startswith(_TOO_NEW):
                loading.stdin.write(line)
        while chunk := await reading.stdout.read(_CHUNK_BYTES):
            loading.stdin.write(chunk)
            await loading.stdin.drain()
        return
    await _ended(loading, "psql")


async def revision(dsn: str) -> str | None:
    """The revision of a database's schema; None where there is no database, or none of ours in it.

    Raises:
        BackupError: it cannot be asked.
    """
    found = await _value(dsn, "SELECT version_num FROM alembic_version")
    return None if found is None else str(found)


async def is_empty(dsn: str) -> bool:
    """Whether a database has no tables.

    Raises:
        BackupError: it cannot be asked.
    """
    return not await _value(dsn, _RELATIONS)


async def lease_left_s(dsn: str) -> float:
    """Seconds until the last lease of a worker is over, or 0.

    Raises:
        BackupError: it cannot be asked.
    """
    query = "SELECT greatest(0, extract(epoch FROM max(lease_until) - now()))::float8 FROM workers"
    return float(str(await _value(dsn, query) or 0))


def apart(dsn: str) -> tuple[str, str | None]:
    """A connection string without its password, and the password: everybody may read arguments of processes."""
    parts = urlsplit(dsn)
    password = None if parts.password is None else unquote(parts.password)
    given = parse_qsl(parts.query, keep_blank_values=True)
    password = next((value for name, value in given if name == "password"), password)
    query = urlencode([item for item in given if item[0] != "password"], safe="/", quote_via=quote)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}", query=query)), password


async def _value(dsn: str, query: str) -> object:
    try:
        connection = await asyncpg.connect(dsn, timeout=30)
        try:
            return await connection.fetchval(query, timeout=30)
        finally:
            await connection.close(timeout=5)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidCatalogNameError):
        return None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise BackupError(f"the database cannot be asked: {str(error) or type(error).__name__}") from error


async def _run(program: str, dsn: str, *arguments: str) -> None:
    address, environment = _reached(dsn)
    process = await _start(program, f"--dbname={address}", *arguments, environment=environment)
    try:
        await _ended(process, program)
    finally:
        await _end(process)


def _reached(dsn: str) -> tuple[str, dict[str, str]]:
    """Where a program connects to, and what it is told in its environment."""
    address, password = apart(dsn)
    return address, {} if password is None else {"PGPASSWORD": password}


async def _start(
    name: str,
    *arguments: str,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> Process:
    return await asyncio.create_subprocess_exec(
        embedded.program(name),
        *arguments,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )


async def _ended(process: Process, program: str) -> None:
    """Wait for its end.

    Raises:
        BackupError: it failed.
    """
    assert process.stderr is not None
    said = await process.stderr.read()
    if await process.wait():
        raise BackupError(f"{program} failed: {said.decode('utf-8', 'replace').strip()[-2000:]}")


async def _end(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

"""Backups of an external PostgreSQL by its own tools, taken under load, as the operator's book has them."""

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from tests.conftest import deployment_settings
from tests.e2e.system import PATIENCE_S, QUICK, Api, System, running_system
from tests.operating.conftest import book, books_are_clean, customer_of, shell
from tests.postgres15 import Postgres15, needs_postgres15, postgres15
from tests.support import eventually

from babysea_server.backups.restoring import restore
from babysea_server.backups.taking import take
from babysea_server.db.migrate import migrate

# Real processes, started and ended several times: slow on a machine that is busy.
pytestmark = [needs_postgres15, pytest.mark.timeout(300)]

_DUMPS, _MOMENTS = "An external PostgreSQL: dumps", "An external PostgreSQL: to any moment"
_IN_FLIGHT = "SELECT count(*) FROM generations WHERE status IN ('pending', 'processing')"


@pytest.fixture(scope="module")
def backups() -> Iterator[Path]:
    """A folder that the database's user may write to; not in pytest's own, which is closed to others."""
    with tempfile.TemporaryDirectory(prefix="babysea-backups-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "wal").mkdir()
        _give_away(folder)
        _give_away(folder / "wal")
        yield folder


@pytest.fixture(scope="module")
def server(backups: Path) -> Iterator[Postgres15]:
    """A server that archives its WAL as the book says."""
    archive = {
        "archive_mode": "on",
        "archive_command": f"test ! -f {backups}/wal/%f && cp %p {backups}/wal/%f",
        "wal_level": "replica",
    }
    with postgres15(settings=archive) as running:
        yield running


@pytest.fixture
async def system() -> AsyncIterator[System]:
    async with running_system(QUICK) as system:
        yield system


def _give_away(folder: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")


async def _value(dsn: str, query: str) -> Any:
    connection = await asyncpg.connect(dsn, timeout=30)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close(timeout=5)


async def _accept(api: Api, numbers: range) -> set[str]:
    answers = await asyncio.gather(*(api.generate(key=f"key-{number}") for number in numbers))
    return {answer.json()["data"]["generation_id"] for answer in answers}


async def _ends_well(system: System, dsn: str, key: str, expected: set[str]) -> None:
    """Everything that was accepted by then is known, ends, and adds up; the API takes new requests."""
    system.environment["DATABASE_URL_US"] = dsn
    api_process, api = await system.api(key)
    worker = await system.worker()
    new = await _accept(api, range(10_000, 10_003))

    async def settled() -> bool:
        return not await _value(dsn, _IN_FLIGHT)

    await eventually(settled, within_s=PATIENCE_S)
    connection = await asyncpg.connect(dsn, timeout=30)
    rows = await connection.fetch("SELECT id::text, status::text, error_code FROM generations")
    await connection.close(timeout=5)
    known = {row["id"]: row["status"] for row in rows}
    assert expected | new <= known.keys()
    assert set(known.values()) == {"succeeded"}
    assert await books_are_clean(dsn)
    assert (await api_process.stop(), await worker.stop()) == (0, 0)


async def _under_load(
    system: System, dsn: str, work: Coroutine[Any, Any, str]
) -> tuple[str, set[str], set[str]]:
    """Do it while requests are accepted and executed, and end all processes; the key, and what was accepted when."""
    system.environment["DATABASE_URL_US"] = dsn
    await migrate(dsn)
    key = await customer_of(dsn)
    _, api = await system.api(key)
    await system.worker()
    before = await _accept(api, range(20))
    doing = asyncio.create_task(work)
    later: set[str] = set()
    for first in itertools.count(20, 10):
        later |= await _accept(api, range(first, first + 10))
        if doing.done():
            break
    await doing
    system.close()
    return key, before, later


def _environment(system: System, server: Postgres15, dsn: str) -> dict[str, str]:
    path = f"{server.bin}{os.pathsep}{system.environment['PATH']}"
    data_dir = str(system.data_dir)
    return {**system.environment, "PATH": path, "BABYSEA_DATA_DIR": data_dir, "DATABASE_URL_US": dsn}


async def test_a_dump_taken_under_load_comes_back_into_an_empty_database(
    system: System, server: Postgres15, backups: Path
) -> None:
    dump, undump = book(_DUMPS)
    places = {"/backup/": f"{backups}/"}
    dsn = await server.database("dumped")
    key, before, _ = await _under_load(system, dsn, shell(dump, _environment(system, server, dsn), places))
    restored = await server.database("undumped")
    said = await shell(undump, _environment(system, server, restored), places)
    assert "clean" in said
    await _ends_well(system, restored, key, before)


async def test_a_base_backup_taken_under_load_and_the_archive_bring_back_all_that_was_archived(
    system: System, server: Postgres15, backups: Path
) -> None:
    base, unbase = book(_MOMENTS)
    places = {"/backup/": f"{backups}/"}
    dsn = await server.database("archived")
    taking = shell(base, _environment(system, server, dsn), places, user="postgres")
    key, before, later = await _under_load(system, dsn, taking)
    last: str = await _value(dsn, "SELECT pg_walfile_name(pg_switch_wal())")

    async def archived() -> bool:
        return (backups / "wal" / last).exists()

    await eventually(archived, within_s=PATIENCE_S)
    other = Postgres15(backups / "other")
    other.folder.mkdir()
    _give_away(other.folder)
    environment = {**_environment(system, server, dsn), "PGDATA": str(other.pgdata)}
    await shell(unbase, environment, places, user="postgres")
    other.configure({"port": str(other.port), "unix_socket_directories": str(other.folder)})
    try:
        other.start()
        moved = other.dsn("archived")

        async def recovered() -> bool:
            return bool(await _value(moved, "SELECT NOT pg_is_in_recovery()"))

        await eventually(recovered, within_s=PATIENCE_S)
        said = await shell("babysea-server check-restored", _environment(system, server, moved), {})
        assert "clean" in said
        await _ends_well(system, moved, key, before | later)
    finally:
        other.remove()


async def test_a_backup_of_an_external_server_is_restored_into_another_database(
    server: Postgres15, tmp_path: Path
) -> None:
    """The programs of the embedded server are newer than this one."""
    one, two = await server.database("one"), await server.database("two")
    await migrate(one)
    await customer_of(one)
    settings = deployment_settings(tmp_path / "data", database_url_us=one, master_key="k" * 40)
    await take(settings, tmp_path / "backup")
    elsewhere = msgspec.structs.replace(settings, database_url_us=two)
    restored = await restore(elsewhere, tmp_path / "backup")
    assert restored["us"].differences == []
    assert await _value(two, "SELECT count(*) FROM api_keys") == 1

"""Migrations: once however many start, forward only, and refused where they are somebody's decision."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from babysea_server.db.cluster import Cluster, SchemaError
from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.migrate import head, migrate
from babysea_server.db.migrations import known_revisions, newest_revision
from babysea_server.settings import Settings, load_settings

MIGRATOR = """\
import asyncio, sys
from babysea_server.db.migrate import migrate
print(asyncio.run(migrate(sys.argv[1])))
"""


@pytest.fixture
async def empty(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """Connection string of a database without a schema."""
    yield await postgres.ensure_database("empty")
    admin = await asyncpg.connect(postgres.dsn("postgres"))
    await admin.execute('DROP DATABASE "empty" WITH (FORCE)')
    await admin.close()


async def revisions(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row[0] for row in await connection.fetch("SELECT version_num FROM alembic_version")]
    finally:
        await connection.close()


async def test_migrating_brings_an_empty_database_to_the_newest_revision_once(empty: str) -> None:
    assert await migrate(empty) == (None, head())
    assert await migrate(empty) == (head(), head())
    assert await revisions(empty) == [head()]


def test_the_names_of_the_steps_say_what_alembic_says() -> None:
    assert newest_revision() == head()
    assert head() in known_revisions()
    assert "9999" not in known_revisions()


async def test_one_of_many_concurrent_tasks_migrates_and_the_others_wait_for_it(empty: str) -> None:
    results = await asyncio.gather(*(migrate(empty) for _ in range(4)))
    assert sorted(results, key=str) == sorted([(None, head())] + [(head(), head())] * 3, key=str)
    assert await revisions(empty) == [head()]


async def test_one_of_several_concurrent_processes_migrates(empty: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", MIGRATOR, empty, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [(await process.communicate())[0].decode().strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(said) == sorted([str((None, head()))] + [str((head(), head()))] * 2)


async def test_a_run_that_was_cut_off_leaves_nothing_half_made(empty: str) -> None:
    blocker = await asyncpg.connect(empty)
    await blocker.execute("CREATE SCHEMA sandbox")  # what the second migration is about to create
    with pytest.raises(Exception, match="sandbox"):
        await migrate(empty)
    assert await revisions(empty) == ["0001"]
    await blocker.execute("DROP SCHEMA sandbox")
    await blocker.close()
    assert await migrate(empty) == ("0001", head())


# ------------------------------------------------------------------------------------------ the cluster


def contents(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def external(dsn: str, data_dir: Path) -> Settings:
    return load_settings({"DATABASE_URL_US": dsn}, overrides={"regions": ["us"], "data_dir": str(data_dir)})


async def test_an_external_database_without_schema_is_refused_with_what_to_do(
    empty: str, tmp_path: Path
) -> None:
    cluster = Cluster(external(empty, tmp_path))
    with pytest.raises(SchemaError, match=r"region us .* no schema yet.* `babysea-server migrate`"):
        await cluster.open()
    assert not contents(tmp_path), "an external database needs no embedded one"


async def test_an_external_database_is_migrated_only_when_asked(empty: str, tmp_path: Path) -> None:
    cluster = Cluster(external(empty, tmp_path))
    await cluster.open(migrate_external=True)
    assert await revisions(empty) == [head()]
    again = Cluster(external(empty, tmp_path))
    await again.open()
    assert again.dsn("us") == empty
    assert again.embedded is None


async def test_an_external_database_with_an_old_schema_is_refused(dsn: str, tmp_path: Path) -> None:
    await execute(dsn, "UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(
        SchemaError, match=rf"revision 0001, this server needs {head()}: run `babysea-server mig"
    ):
        await Cluster(external(dsn, tmp_path)).open()


@pytest.mark.parametrize("migrate_external", [False, True])
async def test_a_schema_that_a_newer_server_prepared_is_served_and_left_alone(
    dsn: str, tmp_path: Path, migrate_external: bool
) -> None:
    await execute(dsn, "UPDATE alembic_version SET version_num = '9999'")
    cluster = Cluster(external(dsn, tmp_path))
    await cluster.open(migrate_external=migrate_external)
    await cluster.finish()
    assert await revisions(dsn) == ["9999"]


@pytest.mark.parametrize("migrate_external", [False, True])
async def test_a_schema_that_a_newer_server_finished_is_refused_and_left_alone(
    dsn: str, tmp_path: Path, migrate_external: bool
) -> None:
    await execute(dsn, "UPDATE alembic_version SET version_num = '9999'")
    await execute(dsn, "CREATE TABLE alembic_version_finishing (version_num varchar(32))")
    await execute(dsn, "INSERT INTO alembic_version_finishing VALUES ('9999')")
    with pytest.raises(SchemaError, match=r"revision 9999.* newer babysea-server .* upgrade is finished"):
        await Cluster(external(dsn, tmp_path)).open(migrate_external=migrate_external)
    assert await revisions(dsn) == ["9999"]


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres@/x?host=/nowhere",
        "mysql://u:hunter2@h/x",
        "postgresql://u:hunter2@127.0.0.1:1/x",
    ],
)
async def test_an_external_database_that_cannot_be_used_is_named_without_its_password(
    url: str, tmp_path: Path
) -> None:
    with pytest.raises(SchemaError, match=r"database of region us cannot be used: \S") as refused:
        await Cluster(external(url, tmp_path)).open()
    assert "hunter2" not in str(refused.value)


async def test_each_region_of_an_embedded_server_has_a_database_of_its_own(
    postgres: EmbeddedPostgres,
) -> None:
    settings = load_settings({}, overrides={"data_dir": str(postgres.data_dir), "regions": ["us", "eu"]})
    cluster = Cluster(settings)
    await cluster.open()
    try:
        assert cluster.dsn("us") != cluster.dsn("eu")
        for region in ("us", "eu"):
            assert await revisions(cluster.dsn(region)) == [head()]
    finally:
        await cluster.close()
    assert postgres.is_running(), "the tests' own handle still holds it"

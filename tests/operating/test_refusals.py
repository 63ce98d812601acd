"""What is not a whole backup, or would be restored over something, is refused before anything is changed."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import deployment_settings
from tests.support import make_account

from babysea_server.backups import manifest, programs
from babysea_server.backups.manifest import BackupError
from babysea_server.backups.restoring import check, restore
from babysea_server.backups.taking import digest, take
from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.pool import Database
from babysea_server.settings import Settings

Place = Callable[..., Awaitable[Settings]]


@pytest.fixture
async def place(postgres: EmbeddedPostgres, tmp_path: Path) -> Place:
    """Settings of an installation with an empty database and an empty folder."""

    async def make(name: str, **settings: Any) -> Settings:
        database = f"{tmp_path.name}_{name}"
        dsn = await postgres.ensure_database(database)
        defaults = {"database_url_us": dsn, "master_key": "k" * 40}
        return deployment_settings(tmp_path / name, **{**defaults, **settings})

    return make


@pytest.fixture
async def settings(db: Database, tmp_path: Path) -> Settings:
    """An installation with an account and a file."""
    await make_account(db)
    file = tmp_path / "one" / "files" / "us" / "outputs" / "2026" / "04" / "28" / "a" / "b-0.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"a picture")
    file.with_name("c-0.png#1").write_bytes(b"half a pict")
    return deployment_settings(tmp_path / "one", database_url_us=db.dsn, master_key="k" * 40)


@pytest.fixture
async def backup(settings: Settings, tmp_path: Path) -> Path:
    folder = tmp_path / "backup"
    await take(settings, folder)
    return folder


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def _is_private(path: Path) -> bool:
    return path.stat().st_mode & 0o077 == 0


async def _untouched(settings: Settings) -> bool:
    dsn = settings.database_url_us
    assert dsn is not None
    return await programs.is_empty(dsn) and not (settings.data_path / "files" / "us").exists()


async def test_a_backup_holds_the_files_that_are_whole_and_nobody_else_may_read_it(backup: Path) -> None:
    assert _files(backup) == ["b-0.png", "backup.json", "us.dump"]
    assert _is_private(backup)
    assert _is_private(backup / "us.dump")
    part = manifest.read(backup).regions["us"]
    assert (part.files, part.file_bytes) == (1, 9)


async def test_the_master_key_is_in_a_backup_only_when_it_is_asked_for(
    settings: Settings, tmp_path: Path, place: Place
) -> None:
    await take(settings, tmp_path / "without")
    assert all(b"kkkk" not in path.read_bytes() for path in (tmp_path / "without").glob("*.*"))
    await take(settings, tmp_path / "with", with_master_key=True)
    there = await place("there", master_key=None)
    await restore(there, tmp_path / "with")
    assert (there.data_path / "master.key").read_text() == "k" * 40
    assert _is_private(there.data_path / "master.key")


async def test_a_folder_with_anything_in_it_takes_no_backup(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(BackupError, match="not empty"):
        await take(settings, tmp_path / "full")
    with pytest.raises(BackupError, match="not a folder"):
        await take(settings, tmp_path / "full" / "a")


async def test_an_interrupted_backup_is_none(backup: Path, place: Place) -> None:
    (backup / "backup.json").unlink()
    there = await place("there")
    with pytest.raises(BackupError, match="interrupted"):
        await restore(there, backup)


@pytest.mark.parametrize("change", ["changed", "gone"])
async def test_a_dump_that_is_not_what_it_was_is_refused(backup: Path, place: Place, change: str) -> None:
    dump = backup / "us.dump"
    if change == "gone":
        dump.unlink()
    else:
        dump.write_bytes(dump.read_bytes() + b"x")
    there = await place("there")
    with pytest.raises(BackupError, match="not what it was"):
        await restore(there, backup)
    assert await _untouched(there)


def _rewrite(backup: Path, **changes: Any) -> None:
    manifest.write(backup, msgspec.structs.replace(manifest.read(backup), **changes))


async def test_a_dump_that_ends_early_leaves_the_database_empty(backup: Path, place: Place) -> None:
    dump = backup / "us.dump"
    dump.write_bytes(dump.read_bytes()[: dump.stat().st_size * 2 // 3])
    found = manifest.read(backup)
    sha256 = await asyncio.to_thread(digest, dump)
    _rewrite(backup, regions={"us": msgspec.structs.replace(found.regions["us"], sha256=sha256)})
    there = await place("there")
    with pytest.raises(BackupError, match=r"(pg_restore|psql) failed"):
        await restore(there, backup)
    assert await _untouched(there)


async def test_a_backup_of_a_newer_server_is_refused(backup: Path, place: Place) -> None:
    there = await place("there")
    part = manifest.read(backup).regions["us"]
    _rewrite(backup, regions={"us": msgspec.structs.replace(part, revision="9999")})
    with pytest.raises(BackupError, match="revision 9999, made by a newer"):
        await restore(there, backup)
    _rewrite(backup, format=2)
    with pytest.raises(BackupError, match="format 2"):
        await restore(there, backup)
    assert await _untouched(there)


async def test_nothing_is_restored_over_a_database_or_files_that_are_there(
    backup: Path, settings: Settings, place: Place
) -> None:
    assert settings.database_url_us is not None
    full = await place("full", database_url_us=settings.database_url_us)
    with pytest.raises(BackupError, match="not empty"):
        await restore(full, backup)
    there = await place("there")
    file = there.data_path / "files" / "us" / "a"
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(BackupError, match="has files already"):
        await restore(there, backup)
    assert there.database_url_us is not None
    assert await programs.is_empty(there.database_url_us)


async def test_another_master_key_is_refused_unless_it_is_meant(backup: Path, place: Place) -> None:
    nowhere, other = await place("nowhere", master_key=None), await place("other", master_key="o" * 40)
    with pytest.raises(BackupError, match="not in the backup"):
        await restore(nowhere, backup)
    assert not (nowhere.data_path / "master.key").exists()
    with pytest.raises(BackupError, match="another one than the backup's"):
        await restore(other, backup)
    assert await _untouched(other)
    restored = await restore(other, backup, new_master_key=True)
    assert restored["us"].differences == []
    assert (other.data_path / "files/us/outputs/2026/04/28/a/b-0.png").read_bytes() == b"a picture"


async def test_a_region_that_is_not_in_the_backup_is_said(backup: Path, tmp_path: Path) -> None:
    there = deployment_settings(tmp_path / "there", regions=["eu"])
    with pytest.raises(BackupError, match="regions us, and none of them"):
        await restore(there, backup)


async def test_where_there_is_no_database_no_backup_is_taken_and_none_is_made(tmp_path: Path) -> None:
    empty = deployment_settings(tmp_path / "empty")
    with pytest.raises(BackupError, match="no database"):
        await take(empty, tmp_path / "backup")
    assert not (tmp_path / "empty" / "postgres").exists()


async def test_a_database_on_which_a_worker_runs_is_not_checked(settings: Settings, db: Database) -> None:
    assert (await check(settings))["us"].differences == []
    await db.execute(
        "INSERT INTO workers (id, host, pid, lease_until) VALUES (gen_random_uuid(), 'a', 1, now() + interval '1 h')"
    )
    with pytest.raises(BackupError, match="holds work of region us"):
        await check(settings)


def test_a_password_is_not_an_argument_of_a_program() -> None:
    assert programs.apart("postgresql://a:s%40cret@h:5/d?sslmode=require") == (
        "postgresql://a@h:5/d?sslmode=require",
        "s@cret",
    )
    assert programs.apart("postgresql://a@/d?host=/run/x&password=p%2F") == (
        "postgresql://a@/d?host=/run/x",
        "p/",
    )
    assert programs.apart("postgresql://h/d") == ("postgresql://h/d", None)

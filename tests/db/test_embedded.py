"""The embedded server: shared by processes, stopped by the last, restarted, repaired, in any folder."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from tests.support import eventually

from babysea_server.db.embedded import EmbeddedPostgres, EmbeddedPostgresError

HOLDER = Path(__file__).with_name("holder.py")


class Holder:
    """A real process that is attached."""

    def __init__(self, process: asyncio.subprocess.Process, postmaster: int) -> None:
        self.process = process
        self.postmaster = postmaster

    async def let_go(self) -> None:
        """Detach and end in good order."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await self.process.wait() == 0

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def holder(data_dir: Path) -> AsyncIterator[Holder]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HOLDER), str(data_dir), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield Holder(process, int(await process.stdout.readline()))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One data directory for the tests of this file, so that it is initialised once."""
    path = tmp_path_factory.mktemp("embedded")
    yield path
    stop(path)


def stop(path: Path) -> None:
    server = EmbeddedPostgres(path)
    if server.is_running():
        server.attach()
        server.detach()


async def ask(server: EmbeddedPostgres, query: str) -> Any:
    connection = await asyncpg.connect(server.dsn("postgres"), timeout=10)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_processes_share_one_server_and_the_last_one_out_stops_it(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    async with holder(data_dir) as one, holder(data_dir) as other:
        assert one.postmaster == other.postmaster == server.postmaster_pid()
        await one.let_go()
        assert server.is_running()
        assert await ask(server, "SELECT 1") == 1
        await other.let_go()
        assert not server.is_running()


async def test_a_killed_process_neither_stops_the_server_under_another_nor_keeps_it_held(
    data_dir: Path,
) -> None:
    server = EmbeddedPostgres(data_dir)
    async with holder(data_dir) as killed, holder(data_dir) as other:
        await killed.kill()
        assert await ask(server, "SELECT 1") == 1
        await other.let_go()
        assert not server.is_running()


async def test_a_server_whose_only_holder_was_killed_is_found_and_stopped_by_the_next(data_dir: Path) -> None:
    async with holder(data_dir) as killed:
        await killed.kill()
        server = EmbeddedPostgres(data_dir)
        server.attach()
        assert server.postmaster_pid() == killed.postmaster
        server.detach()
        assert not server.is_running()


async def test_a_killed_server_is_started_again_with_everything_committed(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.attach()
    try:
        assert not server.ensure_running()
        await ask(server, "CREATE TABLE IF NOT EXISTS kept (n int)")
        count = await ask(server, "SELECT count(*) FROM kept")
        await ask(server, "INSERT INTO kept VALUES (1)")
        pid = server.postmaster_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: gone(server))
        assert server.ensure_running()
        assert server.postmaster_pid() != pid
        assert await ask(server, "SELECT count(*) FROM kept") == count + 1
    finally:
        server.detach()


async def gone(server: EmbeddedPostgres) -> bool:
    return not server.is_running()


async def test_attaching_waits_for_a_server_that_recovers_from_a_crash(data_dir: Path) -> None:
    async with holder(data_dir):
        server = EmbeddedPostgres(data_dir)
        connection = await asyncpg.connect(server.dsn("postgres"))
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        os.kill(backend, signal.SIGKILL)  # the postmaster ends all others and recovers
        other = EmbeddedPostgres(data_dir)
        await eventually(lambda: refuses(server))
        await asyncio.to_thread(other.attach)
        assert await ask(other, "SELECT 1") == 1
        other.detach()
        connection.terminate()


async def refuses(server: EmbeddedPostgres) -> bool:
    try:
        await ask(server, "SELECT 1")
    except (OSError, asyncpg.PostgresError):
        return True
    return False


async def test_a_process_that_took_over_the_pid_is_not_mistaken_for_the_server(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.attach()
    pid_file = data_dir / "postgres" / "postmaster.pid"
    left_behind = pid_file.read_text().splitlines()
    server.detach()
    # What a power cut or a killed container leaves; after it the number belongs to somebody else.
    stranger = await asyncio.create_subprocess_exec("sleep", "60", user=pid_file.parent.stat().st_uid)
    try:
        pid_file.write_text("\n".join([str(stranger.pid), *left_behind[1:]]) + "\n")
        owner = pid_file.parent.stat()
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        assert not server.is_running()
        server.attach()
        assert server.postmaster_pid() != stranger.pid
        assert await ask(server, "SELECT 1") == 1
        server.detach()
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_an_interrupted_first_start_is_repaired(tmp_path: Path) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    process = await asyncio.create_subprocess_exec(sys.executable, str(HOLDER), str(tmp_path))

    async def initialising() -> bool:
        return any(path.name == "base" for path in contents(tmp_path, "postgres.new*/*"))

    await eventually(initialising)
    process.kill()  # its initdb lives on for a while and must not disturb
    await process.wait()
    assert contents(tmp_path, "postgres") == []
    server = EmbeddedPostgres(tmp_path)
    server.attach()
    try:
        assert await ask(server, "SELECT 1") == 1
        assert contents(tmp_path, "postgres.new/*") == []
    finally:
        server.detach()


def contents(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


@pytest.mark.parametrize(
    "name", ["o'brien & söhne, 100%25 #1?", "long/" + "x" * 120], ids=["odd characters", "long"]
)
async def test_any_folder_will_do(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres(tmp_path / name)
    server.attach()
    try:
        assert await ask(server, "SELECT current_setting('data_directory')") == str(
            tmp_path / name / "postgres"
        )
        folder = await socket_folder(server)
        assert mode_of(folder) == 0o700, "authentication is by who may enter the folder"
        # A process with another folder for temporary files finds the same server.
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert await ask(EmbeddedPostgres(tmp_path / name), "SELECT 1") == 1
    finally:
        monkeypatch.undo()
        server.detach()
        remove_empty(folder)


async def socket_folder(server: EmbeddedPostgres) -> str:
    return str(await ask(server, "SELECT current_setting('unix_socket_directories')"))


def mode_of(folder: str) -> int:
    return stat.S_IMODE(Path(folder).stat().st_mode)


def remove_empty(folder: str) -> None:
    if not contents(Path(folder), "*"):
        Path(folder).rmdir()


def test_a_socket_folder_that_somebody_else_prepared_is_refused(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / ("y" * 100))
    server.attach()
    folder = Path(parse_qs(urlsplit(server.dsn("postgres")).query)["host"][0])
    server.detach()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    try:
        with pytest.raises(EmbeddedPostgresError, match="not a folder of its own"):
            server.attach()
    finally:
        server.detach()
        folder.unlink()


def test_a_folder_name_that_a_shell_would_read_is_refused(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / 'a"$(touch b)"')
    with pytest.raises(EmbeddedPostgresError, match="may hold no quotes"):
        server.attach()
    assert contents(tmp_path, "*") == []


def test_a_folder_in_the_way_is_named_not_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "postgres" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    server = EmbeddedPostgres(tmp_path)
    with pytest.raises(EmbeddedPostgresError, match=r"/postgres is in the way"):
        server.attach()
    server.detach()
    assert mine.read_text() == "mine"


async def test_durability_is_on_and_nothing_listens_on_the_network(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.attach()
    try:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await ask(server, f"SHOW {name}") == "on", name
        assert await ask(server, "SHOW listen_addresses") == ""
    finally:
        server.detach()


async def test_a_database_is_created_once_however_many_ask(postgres: EmbeddedPostgres) -> None:
    dsns = await asyncio.gather(*(postgres.ensure_database("asked_by_many") for _ in range(5)))
    assert len(set(dsns)) == 1
    assert await ask(postgres, "SELECT count(*) FROM pg_database WHERE datname = 'asked_by_many'") == 1
    await ask(postgres, "DROP DATABASE asked_by_many")

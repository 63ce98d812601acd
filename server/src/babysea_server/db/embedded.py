"""The embedded PostgreSQL: a real server from a wheel, owned by a data directory.

Every process of one data directory attaches to the same server: the first starts it, the last one out stops
it. A shared `flock` counts the processes, because the kernel drops it however a process ends.
"""

import fcntl
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import structlog

if TYPE_CHECKING:
    from babysea_server.db.bundled import PostgresServer

_log = structlog.get_logger(__name__)

#: sun_path holds 107 bytes on Linux and 103 on macOS; the file name takes 20 of them.
_SOCKET_DIR_MAX = 80
#: Other characters mean something in connection strings, in postgresql.conf or in lists of folders.
_SOCKET_DIR_PLAIN = re.compile(r"[\w/.+-]+", re.ASCII)
#: pg_ctl hands the path to a shell between double quotes.
_UNUSABLE = re.compile(r'["$`\\\x00-\x1f]')
#: Lines of postmaster.pid, from 0.
_PID_LINE, _SOCKET_DIR_LINE = 0, 4
_START_TRIES = 3
_START_PAUSE_S = 0.5
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


def program(name: str) -> Path:
    """One of the programs that come with the embedded server: `pg_dump`, `pg_restore`, `psql`."""
    from babysea_server.db.bundled import PROGRAMS

    return PROGRAMS / name


class EmbeddedPostgres:
    """Handle on the server of one data directory.

    Args:
        data_dir: the server's files live in `<data_dir>/postgres`.
    """

    def __init__(self, data_dir: Path) -> None:
        self._root = data_dir.expanduser().resolve()
        self._pgdata = self._root / "postgres"
        self._attached: int | None = None

    @property
    def data_dir(self) -> Path:
        """The data directory, absolute."""
        return self._root

    def attach(self) -> None:
        """Start the server unless it runs, and hold it until `detach`.

        Raises:
            EmbeddedPostgresError: it does not start.
            OSError: the folder cannot be used.
        """
        if _UNUSABLE.search(str(self._root)):
            raise EmbeddedPostgresError(
                f"the data folder's path may hold no quotes, $, ` or backslashes: {self._root}"
            )
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
            pid = int(self._pid_file()[_PID_LINE])
        except (OSError, ValueError, IndexError):
            return None
        return pid if _alive(pid) and self._is_ours(pid) else None

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

    def _pid_file(self) -> list[str]:
        return (self._pgdata / "postmaster.pid").read_text().splitlines()

    def _is_ours(self, pid: int) -> bool:
        """Whether a live process is the server of this data directory.

        After a crash or in a restarted container the number soon belongs to somebody else, or to a zombie.
        """
        processes = Path("/proc")
        if not (processes / "self" / "cmdline").exists():
            return True  # no way to tell on this system
        try:
            arguments = (processes / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(self._pgdata) in arguments

    def _ensure_initialised(self) -> None:
        if (self._pgdata / "PG_VERSION").exists():
            return
        if self._pgdata.exists() and any(self._pgdata.iterdir()):
            raise EmbeddedPostgresError(
                f"{self._pgdata} is in the way: it holds something else than a database"
            )
        # Initialise beside and rename, so that a killed first start leaves nothing half made. Each try has a
        # folder of its own, and the last one's goes only afterwards: the initdb of a killed process may still
        # be at work there, and it would share memory with one whose folder got the same inode.
        fresh = Path(tempfile.mkdtemp(prefix="postgres.new.", dir=self._root))
        try:
            _server(fresh).ensure_pgdata_inited()
        except (subprocess.SubprocessError, OSError) as error:
            raise EmbeddedPostgresError(f"cannot create the database in {self._pgdata}: {error}") from error
        (fresh / "conf.d").mkdir(exist_ok=True)
        with (fresh / "postgresql.conf").open("a", encoding="utf-8") as config:
            config.write("\ninclude_dir = 'conf.d'\n")
        fresh.rename(self._pgdata)
        for left in self._root.glob("postgres.new*"):
            shutil.rmtree(left, ignore_errors=True)

    def _ensure_running(self) -> bool:
        if self.is_running():
            self._wait_ready()
            return False
        socket_dir = self._new_socket_dir()
        owner = self._owner()
        settings = self._pgdata / "conf.d" / "00-babysea.conf"
        settings.write_text(_SETTINGS.format(socket_dir=socket_dir), encoding="utf-8")
        for path in (settings.parent, settings):
            os.chown(path, owner.st_uid, owner.st_gid)
        for lock in (self._pgdata / "postmaster.pid", socket_dir / ".s.PGSQL.5432.lock"):
            _remove_if_taken_over(lock)
        self._start()
        _log.info("postgres_started", pid=self.postmaster_pid(), data=str(self._pgdata))
        return True

    def _start(self) -> None:
        for left in reversed(range(_START_TRIES)):
            try:
                self._control(
                    "start", "-w", "-t", str(_START_TIMEOUT_S), "-l", str(self._pgdata / "startup.log")
                )
            except EmbeddedPostgresError:
                # The backends of a killed server hold its memory for a moment longer.
                if left == 0:
                    raise
                time.sleep(_START_PAUSE_S)
            else:
                return

    def _wait_ready(self) -> None:
        """Wait while the server starts or recovers from a crash; it refuses connections until then."""
        from babysea_server.db.bundled import pgexec

        server = _server(self._pgdata)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                pgexec(
                    "pg_isready",
                    ("-h", str(self._socket_dir()), "-q"),
                    bin_path=server.bin_path,
                    timeout=_START_TIMEOUT_S,
                )
            except subprocess.SubprocessError as error:
                if time.monotonic() > deadline:
                    raise EmbeddedPostgresError(
                        f"PostgreSQL has not become ready for {_START_TIMEOUT_S} s; its log is in "
                        f"{self._pgdata / 'log'}"
                    ) from error
                time.sleep(0.05)
            else:
                return

    def _stop(self) -> None:
        if self.is_running():
            self._control("stop", "-m", "fast", "-w", "-t", str(_STOP_TIMEOUT_S))
            _log.info("postgres_stopped", data=str(self._pgdata))

    def _control(self, action: str, *options: str) -> None:
        from babysea_server.db.bundled import pgexec

        server = _server(self._pgdata)
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

    def _owner(self) -> os.stat_result:
        return (self._pgdata / "PG_VERSION").stat()

    def _socket_dir(self) -> Path:
        if self.is_running():
            # It says so itself: our own folder for temporary files may be another one.
            with suppress(OSError, IndexError):
                said = self._pid_file()[_SOCKET_DIR_LINE]
                if said:  # empty for a moment while it starts
                    return Path(said)
        if len(os.fsencode(self._pgdata)) <= _SOCKET_DIR_MAX and _SOCKET_DIR_PLAIN.fullmatch(
            str(self._pgdata)
        ):
            return self._pgdata
        digest = sha256(os.fsencode(self._pgdata)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"babysea-{digest}"

    def _new_socket_dir(self) -> Path:
        """Where the next start puts its socket: a folder that only the server's own user may enter.

        Whoever enters it is let in without a password, so nobody else may have prepared it.
        """
        socket_dir = self._socket_dir()
        if socket_dir == self._pgdata:
            return socket_dir
        owner = self._owner()
        with suppress(FileExistsError):
            socket_dir.mkdir(mode=0o700)
            os.chown(socket_dir, owner.st_uid, owner.st_gid)
        found = socket_dir.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (owner.st_uid, os.geteuid()):
            raise EmbeddedPostgresError(f"{socket_dir} is not a folder of its own: remove it")
        socket_dir.chmod(0o700)
        os.chown(socket_dir, owner.st_uid, owner.st_gid)
        return socket_dir


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _remove_if_taken_over(lock: Path) -> None:
    """Remove a lock file of a server that is gone while its process id is in use, by another or by a zombie.

    PostgreSQL cannot tell and would not start. What it still does itself is to refuse while any process of the
    old server lives, by the memory they share.
    """
    with suppress(OSError, ValueError, IndexError):
        if _alive(abs(int(lock.read_text().splitlines()[_PID_LINE]))):
            lock.unlink()


def _server(pgdata: Path) -> "PostgresServer":
    from babysea_server.db.bundled import PostgresServer

    return PostgresServer(pgdata, cleanup_mode=None)

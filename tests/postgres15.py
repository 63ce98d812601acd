"""Debian's PostgreSQL 15 for tests: a server of its own in a folder, as an operator would bring one.

It listens on a port of the loopback address and in a folder of its own, as a user of its own where the tests run as
root, and is gone with the `with` block, its files with it where the folder was made for it.

    with postgres15(folder) as server:
        dsn = await server.database("babysea_us")
        server.restart("immediate")
"""

import os
import pwd
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

#: pg_ctl waits for this long; a start after a crash replays what was written.
_PATIENCE_S = 60
#: The user of Debian's package; PostgreSQL does not run as root.
_USER = "postgres"

#: Below those that the kernel gives to outgoing connections: a port stays free while its server is away.
_PORTS = range(20_000, 32_000)

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "jit": "off",
}
#: Nothing of a test outlives its machine's power.
_FORGETFUL = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


def programs() -> Path | None:
    """The folder of the newest PostgreSQL that Debian installed, 15 or later, or None."""
    found = {
        int(folder.parent.name): folder
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if re.fullmatch(r"\d+", folder.parent.name) and (folder / "initdb").exists()
    }
    newest = max((version for version in found if version >= 15), default=None)
    return None if newest is None else found[newest]


needs_postgres15 = pytest.mark.skipif(
    programs() is None, reason="no PostgreSQL of Debian's is installed (Debian: postgresql)"
)


def _quiet_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Postgres15:
    """A server in `<folder>/pgdata`.

    Args:
        folder: where its files are; whoever runs it as root needs a way for others into it.
        durable: fsync and the like as in production; off otherwise.
        settings: lines of postgresql.conf over these of the tests, without quotes.
    """

    def __init__(
        self, folder: Path, *, durable: bool = False, settings: Mapping[str, str] | None = None
    ) -> None:
        bin_path = programs()
        assert bin_path is not None, "apt-get install postgresql"
        self.bin = bin_path
        """The folder of pg_dump, pg_basebackup and the like, which are of the same version."""
        self.folder = folder
        self.pgdata = folder / "pgdata"
        self.port = _quiet_port()
        self.log = folder / "postgres.log"
        self._settings = {**_SETTINGS, **({} if durable else _FORGETFUL), **(settings or {})}

    def dsn(self, database: str, *, port: int | None = None) -> str:
        """Connection string of a database over TCP; `port` is that of a proxy in between."""
        return f"postgresql://{_USER}@127.0.0.1:{port or self.port}/{database}"

    def socket_dsn(self, database: str) -> str:
        """Connection string over the unix socket."""
        return f"postgresql://{_USER}@/{database}?host={self.folder}&port={self.port}"

    async def database(self, name: str) -> str:
        """Create a database; returns its connection string."""
        await self.execute(f'CREATE DATABASE "{name}"')
        return self.dsn(name)

    async def execute(self, sql: str, *, database: str = "postgres") -> None:
        """Run statements as the superuser."""
        connection = await asyncpg.connect(self.dsn(database), timeout=30)
        try:
            await connection.execute(sql)
        finally:
            await connection.close(timeout=5)

    def initialise(self) -> None:
        """Make the empty cluster."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._give_away(self.folder)
        self.run(
            "initdb", "-D", self.pgdata, "-U", _USER, "--auth=trust", "--no-sync", "-E", "UTF8", "--no-locale"
        )
        self.configure(
            {**self._settings, "unix_socket_directories": str(self.folder), "port": str(self.port)}
        )

    def configure(self, settings: Mapping[str, str]) -> None:
        """Add lines to postgresql.conf; they hold from the next start or reload on."""
        with (self.pgdata / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> None:
        """Start and wait until it answers."""
        if self.pid() is None:
            # Of a killed server; its process id may be that of a zombie or of somebody else, and it would not start.
            for left in (self.pgdata / "postmaster.pid", self.folder / f".s.PGSQL.{self.port}.lock"):
                left.unlink(missing_ok=True)
        self.run("pg_ctl", "-D", self.pgdata, "-l", self.log, "-w", "-t", str(_PATIENCE_S), "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop and wait: `smart`, `fast` (clients are cut off) or `immediate` (as in a crash)."""
        if self.pid() is not None:
            self.run("pg_ctl", "-D", self.pgdata, "-m", mode, "-w", "-t", str(_PATIENCE_S), "stop")

    def restart(self, mode: str = "fast") -> None:
        """Stop in that mode and start again on the same port."""
        self.stop(mode)
        self.start()

    def promote(self) -> None:
        """Make a standby a primary."""
        self.run("pg_ctl", "-D", self.pgdata, "-w", "-t", str(_PATIENCE_S), "promote")

    def kill(self) -> None:
        """SIGKILL to the server and its children, as when the machine goes away; returns when all are gone."""
        pid = self.pid()
        if pid is None:
            return
        family = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        for member in (pid, *map(int, family)):
            with suppress(ProcessLookupError):
                handle = os.pidfd_open(member)
                try:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    select.select([handle], [], [], _PATIENCE_S)
                finally:
                    os.close(handle)

    def pid(self) -> int | None:
        """Process id of the running server, or None."""
        try:
            pid = int((self.pgdata / "postmaster.pid").read_text().splitlines()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            return None
        return pid if os.fsencode(self.pgdata) in command else None

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run one of PostgreSQL's programs as the user who owns the server; returns what it prints.

        Raises:
            AssertionError: it failed; with its words and the end of the server's log.
        """
        # Not through a pipe: a server that pg_ctl starts would hold it open.
        with tempfile.TemporaryFile() as said:
            user = _USER if os.geteuid() == 0 else None
            done = subprocess.run(
                [self.bin / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd="/",
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
                env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
                timeout=2 * _PATIENCE_S,
                check=False,
            )
            said.seek(0)
            text = said.read().decode("utf-8", "replace")
        log = self.log.read_text(errors="replace")[-2000:] if done.returncode and self.log.exists() else ""
        assert done.returncode == 0, f"{program}: {text}\n{log}"
        return text

    def standby(self, folder: Path) -> "Postgres15":
        """A streaming replica of this server, made in another folder and started."""
        replica = Postgres15(folder)
        folder.mkdir(parents=True, exist_ok=True)
        replica._give_away(folder)
        replica.run(
            "pg_basebackup",
            "-d",
            self.dsn("postgres"),
            "-D",
            replica.pgdata,
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
        )
        replica.configure({"port": str(replica.port), "unix_socket_directories": str(folder)})
        replica.start()
        return replica

    def remove(self) -> None:
        """Stop at once and delete the files."""
        try:
            self.stop("immediate")
        except (AssertionError, subprocess.TimeoutExpired):
            self.kill()
        shutil.rmtree(self.pgdata, ignore_errors=True)

    def _give_away(self, path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, _USER, _USER)


@contextmanager
def postgres15(
    folder: Path | None = None, *, durable: bool = False, settings: Mapping[str, str] | None = None
) -> Iterator[Postgres15]:
    """A running server, stopped and deleted at the end.

    Args:
        folder: by default one that is made for it. Not below pytest's own when root: other users have no way into that.
        durable: as `Postgres15`.
        settings: as `Postgres15`.
    """
    with tempfile.TemporaryDirectory(prefix="babysea-pg15-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o711)
        server = Postgres15(folder or Path(made) / "server", durable=durable, settings=settings)
        try:
            server.initialise()
            server.start()
            yield server
        finally:
            server.remove()

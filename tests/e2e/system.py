"""A deployment of real processes on one data directory: started, killed, stopped, asked and cleaned up."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from tests.support import FINAL, eventually

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.settings import PROVIDER_VARIABLES

#: A wait is as long as a slow machine may need; nothing here measures time.
PATIENCE_S = 90.0
#: No request may hang for longer than this, whatever died.
REQUEST_MAX_S = 20.0

_COMMAND = [sys.executable, "-m", "babysea_server.cli"]
_LISTENING = re.compile(r"API listening on (http://\S+)")

#: Small and quick; a dead worker's work is free after a second.
QUICK = {
    "BABYSEA_SANDBOX_LATENCY_S": "0.1",
    "BABYSEA_SANDBOX_IMAGE_EDGE": "64",
    "BABYSEA_WORKER_LEASE_S": "1",
    "BABYSEA_WORKER_POLL_S": "0.2",
    "BABYSEA_SUBMIT_TIMEOUT_S": "5",
    "BABYSEA_ADMISSION_DEADLINE_S": "10",
    "BABYSEA_REGIONS": "us",
    "BABYSEA_CONSOLE_ENABLED": "false",
}


class Process:
    """One started command; its output goes to files."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], logs: Path) -> None:
        self.arguments = arguments
        handle, name = tempfile.mkstemp(dir=logs, prefix=f"{arguments[0]}-", suffix=".out")
        self._out, self._err = Path(name), Path(name).with_suffix(".err")
        with os.fdopen(handle, "wb") as out, self._err.open("wb") as err:
            self._popen = subprocess.Popen(
                [*_COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._popen.pid

    @property
    def out(self) -> str:
        """What it has written to standard output."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it has written to standard error."""
        return self._err.read_text()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._popen.send_signal(number)

    async def says(self, text: str) -> str:
        """Wait until standard output has this; returns all of it."""

        async def said() -> str | None:
            if text in self.out:
                return self.out
            assert self.running, f"{self.arguments} ended with {self._popen.returncode}: {self.err}"
            return None

        return await eventually(said, within_s=PATIENCE_S)

    async def ended(self) -> int:
        """Wait for its end; returns the exit code."""

        async def gone() -> bool:
            return not self.running

        await eventually(gone, within_s=PATIENCE_S)
        return self._popen.returncode

    async def stop(self) -> int:
        """SIGTERM, and wait for the end."""
        self.send(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """SIGKILL."""
        self.send(signal.SIGKILL)
        await self.ended()

    def end(self) -> None:
        """Whatever it does, it is over."""
        if self.running:
            self._popen.kill()
        self._popen.wait()


@dataclass
class Api:
    """A client of one address with one key."""

    base: str
    key: str
    client: httpx.AsyncClient

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request with the key."""
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        return await self.client.request(method, self.base + path, headers=headers, **options)

    async def generate(self, model: str = "sandbox/image", *, key: str, **body: Any) -> httpx.Response:
        """POST generate an image; `key` is the Idempotency-Key."""
        return await self.request(
            "POST",
            f"/v1/generate/image/{model}",
            json={"generation_prompt": "a test", **body},
            headers={"Idempotency-Key": key},
        )

    async def data(self, path: str) -> Any:
        """GET; the envelope's data."""
        response = await self.request("GET", path)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    async def finished(self, generation_id: str) -> dict[str, Any]:
        """Wait until a generation is final."""

        async def final() -> dict[str, Any] | None:
            generation: dict[str, Any] = await self.data(f"/v1/content/{generation_id}")
            return generation if generation["generation_status"] in FINAL else None

        return await eventually(final, within_s=PATIENCE_S)


class System:
    """Processes on one data directory.

    Args:
        root: an empty folder; the data directory is made in it.
        settings: environment variables of all processes.
    """

    def __init__(self, root: Path, client: httpx.AsyncClient, settings: Mapping[str, str]) -> None:
        self.data_dir = root / "data"
        self.client = client
        self._logs = root / "logs"
        self._logs.mkdir(parents=True)
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BABYSEA_", "DATABASE_URL", "STORAGE_URL", "MASTER_KEY", "REDIS_URL"))
            # Whoever runs the tests may have keys of real providers around.
            and name not in PROVIDER_VARIABLES
        }
        self.environment = {**clean, **settings}
        self._processes: list[Process] = []
        self._dsn: str | None = None

    def start(self, command: str, *arguments: str, **settings: str) -> Process:
        """Start a command on the data directory."""
        process = Process(
            [command, "--data-dir", str(self.data_dir), *arguments],
            {**self.environment, **settings},
            self._logs,
        )
        self._processes.append(process)
        return process

    async def up(self, *arguments: str, **settings: str) -> Process:
        """Start `up` on a free port and wait until it says that it runs."""
        process = self.start("up", "--port", "0", *arguments, **settings)
        await process.says("BabySea is running.")
        return process

    async def api(self, key: str = "", **settings: str) -> tuple[Process, Api]:
        """Start an API process on a free port and wait until it listens."""
        process = self.start("api", "--port", "0", **settings)
        match = _LISTENING.search(await process.says("API listening on"))
        assert match is not None
        return process, Api(match[1], key, self.client)

    async def worker(self, **settings: str) -> Process:
        """Start a worker process and wait until it runs."""
        process = self.start("worker", **settings)
        await process.says("worker running")
        return process

    async def cli(self, *arguments: str) -> Any:
        """Run an administrative command with --json; returns what it prints."""
        noun, verb, *options = arguments
        process = Process(
            [noun, verb, *options, "--data-dir", str(self.data_dir), "--json"], self.environment, self._logs
        )
        self._processes.append(process)
        assert await process.ended() == 0, process.out + process.err
        return json.loads(process.out)

    @property
    def quickstart(self) -> dict[str, str]:
        """What quickstart.json says."""
        found: dict[str, str] = json.loads((self.data_dir / "quickstart.json").read_text())
        return found

    def newcomer(self) -> Api:
        """A client with the address and key of quickstart.json."""
        return Api(self.quickstart["api_base"], self.quickstart["api_key"], self.client)

    def child(self, name: str) -> int | None:
        """Process id of `up`'s api or worker, if it has one now."""
        try:
            return int((self.data_dir / "run" / f"{name}.pid").read_text())
        except FileNotFoundError:
            return None

    async def kill_child(self, name: str) -> None:
        """SIGKILL to `up`'s api or worker, whichever process that is now, and wait for its successor."""
        killed = self.child(name)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)

        async def replaced() -> bool:
            return self.child(name) not in (None, killed)

        await eventually(replaced, within_s=PATIENCE_S)

    def postmaster(self) -> int | None:
        """Process id of the embedded PostgreSQL."""
        try:
            return int((self.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        except (FileNotFoundError, IndexError):
            return None

    async def query(self, sql: str, *arguments: Any) -> list[Any]:
        """Rows of one statement on region us, past all of the server's own code; waits for the database."""
        self._dsn = self._dsn or EmbeddedPostgres(self.data_dir).dsn("babysea_us")

        async def connect() -> Any:
            try:
                return await asyncpg.connect(self._dsn, timeout=30)
            except (OSError, asyncpg.CannotConnectNowError):
                return None

        connection = await eventually(connect, within_s=PATIENCE_S)
        try:
            rows: list[Any] = await connection.fetch(sql, *arguments)
            return rows
        finally:
            await connection.close(timeout=5)

    async def value(self, sql: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        return (await self.query(sql, *arguments))[0][0]

    async def reaches(self, sql: str, count: int) -> None:
        """Wait until a counting query reaches a number."""

        async def reached() -> bool:
            return bool(await self.value(sql) >= count)

        await eventually(reached, within_s=PATIENCE_S)

    async def all_settled(self) -> None:
        """Wait until no generation is in flight."""

        async def settled() -> bool:
            sql = "SELECT count(*) FROM generations WHERE status IN ('pending', 'processing')"
            return bool(await self.value(sql) == 0)

        await eventually(settled, within_s=PATIENCE_S)

    async def books_are_clean(self) -> None:
        """`ledger verify` finds nothing."""
        assert await self.cli("ledger", "verify", "--region", "us") == {"clean": True, "differences": []}

    def left(self) -> dict[int, str]:
        """Every living process whose command line names the data directory, by process id."""
        listing = subprocess.run(
            ["ps", "-axww", "-o", "pid=,stat=,command="], capture_output=True, text=True, check=True
        ).stdout
        found = {}
        for line in listing.splitlines():
            pid, stat, command = line.split(maxsplit=2)
            if str(self.data_dir) in command and not stat.startswith("Z"):
                found[int(pid)] = command
        return found

    async def nothing_left(self) -> None:
        """Wait until no process of the data directory lives."""

        async def gone() -> bool:
            return not self.left()

        await eventually(gone, within_s=PATIENCE_S)

    def close(self) -> None:
        """End everything at once, whatever state it is in."""
        for process in self._processes:
            process.end()
        for pid in self.left():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@contextmanager
def _open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="babysea-e2e-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@asynccontextmanager
async def running_system(settings: Mapping[str, str]) -> AsyncIterator[System]:
    """A system without processes yet; whatever is started in it is gone afterwards, and its files too."""
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    # Not in pytest's own folder: run as root, the embedded server belongs to a user of its own, and every
    # pytest that starts on the machine closes the way to that folder again.
    with _open_folder() as root:
        async with httpx.AsyncClient(timeout=REQUEST_MAX_S, limits=limits, trust_env=False) as client:
            system = System(root, client, settings)
            try:
                yield system
            finally:
                system.close()

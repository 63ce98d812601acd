"""The servers under measurement, each in a process of its own, on a fresh data folder.

The API is the production command, `babysea-server api`, with every default: embedded PostgreSQL with fsync and
synchronous commit on, the firewall, authentication, validation, pricing, the ledger. The baseline is a bare
Starlette route that answers a constant JSON object of the same size, under the same uvicorn settings, the same
loop, the same HTTP parser, keep-alive, and in front of the same client: what this stack can do at most.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from babysea_server.accounts import store as accounts
from babysea_server.db.cluster import Cluster
from babysea_server.db.pool import Database
from babysea_server.keys.scopes import PRESETS
from babysea_server.keys.service import issue
from babysea_server.kit.money import MICROS_PER_CREDIT
from babysea_server.ledger import store as ledger
from babysea_server.processes.serve import http_config
from babysea_server.settings import Settings, load_settings

REGION = "us"
#: More than any run can spend.
_CREDITS = 1_000_000_000
_STOP_S = 20.0
_BACKLOG = 2048
_BODY = {
    "status": "success",
    "request_id": "req_0123456789abcdef01234567",
    "message": "Generation initialized",
    "timestamp": "2026-04-28T12:00:00.000Z",
    "data": {
        "model_identifier": "sandbox/image",
        "generation_provider_order": ["sandbox"],
        "generation_prediction_id": "01963f10-0000-7000-8000-000000000000",
        "generation_id": "01963f10-0000-7000-8000-000000000001",
        "generation_initialized": True,
    },
}


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of the server: the defaults are what is measured."""
    plain = {
        "DATABASE_URL_US",
        "DATABASE_URL_EU",
        "DATABASE_URL_JP",
        "STORAGE_URL",
        "MASTER_KEY",
        "REDIS_URL",
    }
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BABYSEA_") and name not in plain
    }


@dataclass(frozen=True, slots=True)
class Site:
    """A data folder with a running database, one account and its key."""

    folder: Path
    settings: Settings
    db: Database
    account_id: UUID
    apikey_id: UUID
    api_key: str


@asynccontextmanager
async def site(regions: Sequence[str] = (REGION,)) -> AsyncIterator[Site]:
    """A fresh site with one account of plan unlimited in region us; removed at the end, also by SIGTERM."""
    if (task := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with tempfile.TemporaryDirectory(prefix="babysea-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        settings = load_settings({}, overrides={"data_dir": name, "regions": list(regions)})
        cluster = Cluster(settings)
        await cluster.open()
        db = Database(cluster.dsn(REGION), name="babysea-bench", size=4, statement_timeout_s=60)
        await db.open()
        try:
            account = await accounts.create(db, name="Bench", plan="unlimited")
            await ledger.add(db, account.id, _CREDITS * MICROS_PER_CREDIT, "bench")
            key = await issue(db, account_id=account.id, name="bench", scopes=PRESETS["full_access"])
            yield Site(folder, settings, db, account.id, key.key.id, key.secret)
        finally:
            await db.close()
            await cluster.close()


class Process:
    """A child that says one line when it is ready and ends at SIGTERM; its log goes to a file.

    Args:
        environment: variables over the few that it gets anyway.

    Raises:
        RuntimeError: on entering, when it ended before it was ready.
    """

    def __init__(
        self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._arguments = arguments
        self._log = log
        self._environment = {**clean_environment(), **(environment or {})}
        self._child: subprocess.Popen[str] | None = None
        self.ready_line = ""

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, *self._arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
                start_new_session=True,
            )
        assert self._child.stdout is not None
        self.ready_line = self._child.stdout.readline()
        if not self.ready_line:
            self.__exit__(None, None, None)
            raise RuntimeError(f"{self._arguments} did not start: {self._log.read_text()[-2000:]}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child is not None
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child is not None
        return self._child.pid


def api_process(site: Site) -> Process:
    """The API of a site, as in production; the line that it is ready with ends in its port."""
    arguments = ["-m", "babysea_server.cli", "api", "--data-dir", str(site.folder), "--port", "0"]
    for region in site.settings.regions:
        arguments += ["--region", region]
    return Process(arguments, site.folder / "api.log")


@contextmanager
def api_server(site: Site) -> Iterator[int]:
    """The same, entered; yields its port."""
    with api_process(site) as process:
        yield int(process.ready_line.rpartition(":")[2])


@contextmanager
def baseline_server(folder: Path) -> Iterator[int]:
    """The bare Starlette server; yields its port."""
    with Process(["-m", "bench.servers"], folder / "baseline.log") as process:
        yield int(process.ready_line)


async def _answer(_: Request) -> JSONResponse:
    return JSONResponse(_BODY)


async def _serve_baseline(listener: socket.socket) -> None:
    # As in babysea_server.processes.serve: what differs there must differ here.
    config = http_config(Starlette(routes=[Route("/", _answer)]))
    await uvicorn.Server(config).serve(sockets=[listener])


def main() -> None:
    """Run the baseline until SIGTERM."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    uvloop.run(_serve_baseline(listener))


if __name__ == "__main__":
    main()

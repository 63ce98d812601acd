"""`up`: database, API and worker as one process tree on one machine, each restarted if it dies."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from babysea_server.db.cluster import Cluster
from babysea_server.db.embedded import EmbeddedPostgresError
from babysea_server.processes.quickstart import Quickstart
from babysea_server.processes.serve import listening_socket
from babysea_server.settings import Settings

_log = structlog.get_logger(__name__)

_RESTART_PAUSE_MAX_S = 10.0
_HEALTHY_AFTER_S = 30.0
_DATABASE_CHECK_S = 0.5
_STOP_S = 10.0


class AlreadyRunningError(RuntimeError):
    """Another `up` runs on this data directory."""


@dataclass(slots=True)
class _Child:
    name: str
    command: Sequence[str]
    pass_fds: Sequence[int] = ()
    process: asyncio.subprocess.Process | None = None


class Supervisor:
    """Runs everything on this machine until SIGTERM or SIGINT.

    Args:
        arguments: the command-line options that the children get as well.
        ready: called once the first generation has finished, with what `quickstart.json` says.
    """

    def __init__(
        self, settings: Settings, arguments: Sequence[str], ready: Callable[[Quickstart], None]
    ) -> None:
        self._settings = settings
        self._arguments = arguments
        self._ready = ready
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Start, supervise, stop.

        Raises:
            AlreadyRunningError, OSError (port taken), SchemaError, EmbeddedPostgresError
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        lock = _lock(self._settings.data_path / "up.lock")
        cluster = Cluster(self._settings)
        listener = listening_socket(self._settings.host, self._settings.port)
        try:
            await cluster.open(migrate_external=True)
            # The socket is the supervisor's: while the API restarts, connections wait instead of failing.
            listener.set_inheritable(True)
            api = ["api", "--fd", str(listener.fileno())]
            tasks = [
                asyncio.create_task(self._supervise(_Child("api", api, (listener.fileno(),)))),
                asyncio.create_task(self._supervise(_Child("worker", ["worker"]))),
                asyncio.create_task(self._watch_database(cluster)),
                asyncio.create_task(self._introduce(cluster, listener.getsockname()[1])),
            ]
            stop = asyncio.create_task(self._stopping.wait())
            done, _ = await asyncio.wait({stop, tasks[-1]}, return_when=asyncio.FIRST_COMPLETED)
            if tasks[-1] in done and tasks[-1].exception() is not None:
                self._stopping.set()
            await stop
            for task in tasks:
                if not task.done():
                    task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result
        finally:
            listener.close()
            await cluster.close()
            os.close(lock)

    async def _introduce(self, cluster: Cluster, port: int) -> None:
        quickstart = Quickstart(self._settings, cluster, port)
        await quickstart.prepare()
        await quickstart.first_generation()
        self._ready(quickstart)

    async def _supervise(self, child: _Child) -> None:
        """Keep one child running; restarts with growing pauses."""
        pause = 0.1
        try:
            while True:
                started = asyncio.get_running_loop().time()
                child.process = await self._spawn(child)
                code = await child.process.wait()
                _log.warning("process_died", process=child.name, exit_code=code)
                if asyncio.get_running_loop().time() - started > _HEALTHY_AFTER_S:
                    pause = 0.1
                await asyncio.sleep(pause)
                pause = min(pause * 2, _RESTART_PAUSE_MAX_S)
        finally:
            await _terminate(child)

    async def _spawn(self, child: _Child) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "babysea_server.cli",
            *child.command,
            *self._arguments,
            stdin=subprocess.PIPE,
            pass_fds=child.pass_fds,
            env={**os.environ, "BABYSEA_SUPERVISED": "1"},
            # Ctrl-C in a terminal goes to the whole group; the children are to be stopped by us, in order.
            start_new_session=True,
        )
        _log.info("process_started", process=child.name, pid=process.pid)
        return process

    async def _watch_database(self, cluster: Cluster) -> None:
        """Start the embedded database again when it dies."""
        if cluster.embedded is None:
            return
        while True:
            await asyncio.sleep(_DATABASE_CHECK_S)
            try:
                if await asyncio.to_thread(cluster.embedded.ensure_running):
                    _log.warning("postgres_restarted")
            except EmbeddedPostgresError as error:
                _log.warning("postgres_not_restarted_yet", error=str(error))


async def _terminate(child: _Child) -> None:
    process = child.process
    if process is None or process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(asyncio.shield(process.wait()), _STOP_S)
    except TimeoutError:
        _log.warning("process_killed", process=child.name)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise AlreadyRunningError(f"{path.parent} is in use by a running `babysea-server up`") from None
    return handle

"""`up`: database, API and worker as one process tree on one machine, each restarted if it dies."""

import asyncio
import contextlib
import fcntl
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from babysea_server.db.cluster import Cluster
from babysea_server.db.embedded import EmbeddedPostgresError
from babysea_server.kit.tasks import end
from babysea_server.processes.child import Child
from babysea_server.processes.faults import AlreadyRunningError, StartError, StoppedError
from babysea_server.processes.listening import listening_socket
from babysea_server.processes.stopping import Stop
from babysea_server.settings import Settings

_log = structlog.get_logger(__name__)

_DATABASE_CHECK_S = 0.5
_DATABASE_PAUSE_MAX_S = 10.0
_CHILD_READY_S = 120.0
_CHILD_STOP_S = 8.0
#: What a worker may take beside the time that it waits for what it is buying.
_WORKER_ENDS_S = 3.0
#: The processes of an `up` that was killed notice it and stop; this is longer than they may take.
_PREDECESSOR_S = 15.0


class Supervisor:
    """Runs everything on this machine until SIGTERM or SIGINT.

    Args:
        arguments: the command-line options that the children get as well.
        ready: called once the first generation has ended, with the text to print.
    """

    def __init__(self, settings: Settings, arguments: Sequence[str], ready: Callable[[str], None]) -> None:
        self._settings = settings
        self._arguments = arguments
        self._ready = ready
        self._go = asyncio.Event()

    async def run(self) -> None:
        """Start, supervise, stop.

        Raises:
            StartError, SchemaError, EmbeddedPostgresError, DatabaseUnavailableError, OSError
        """
        stop = Stop()
        run_dir = self._settings.data_path / "run"
        run_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as resources, contextlib.suppress(StoppedError):
            mine = _open_lock(run_dir / "up.lock")
            resources.callback(os.close, mine)
            if not _try_lock(mine):
                raise AlreadyRunningError(
                    f"{self._settings.data_path} is in use by a running `babysea-server up`"
                )
            # Inherited by the children, so that it is free when the last of them has ended.
            family = _open_lock(run_dir / "family.lock")
            resources.callback(os.close, family)
            await stop.starting(_predecessors_gone(family))
            listener = listening_socket(self._settings.host, self._settings.port)
            # The socket is the supervisor's: while the API restarts, connections wait instead of failing.
            resources.callback(listener.close)
            port = listener.getsockname()[1]
            # Options may have overruled the environment that the children get as well.
            environment = {"BABYSEA_HOST": self._settings.host, "BABYSEA_PORT": str(port)}
            fd = listener.fileno()
            children = [
                Child(
                    name,
                    [name, *options, *self._arguments],
                    pass_fds=fds,
                    environment=environment,
                    run_dir=run_dir,
                    go=self._go,
                    stop_s=stop_s,
                )
                for name, options, fds, stop_s in (
                    ("api", ["--fd", str(fd)], (fd, family), _CHILD_STOP_S),
                    ("worker", [], (family,), self._settings.worker_stop_s + _WORKER_ENDS_S),
                )
            ]
            await self._run(children, port, stop)

    async def _run(self, children: Sequence[Child], port: int, stop: Stop) -> None:
        cluster = Cluster(self._settings)
        # The children load their code while the databases are opened.
        tasks = [asyncio.create_task(child.keep_running()) for child in children]
        try:
            await stop.starting(cluster.open(migrate_external=True))
            # An embedded database has no other processes than these, which have not begun.
            await stop.starting(cluster.finish(embedded_only=True))
            self._go.set()
            tasks += [
                asyncio.create_task(self._watch_database(cluster)),
                asyncio.create_task(self._introduce(cluster, children, port)),
                asyncio.create_task(stop.wait()),
            ]
            while not stop.asked:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # nothing here ends by itself but the introduction: faults end everything
                    tasks.remove(task)
        finally:
            await end(tasks)
            await cluster.close()

    async def _introduce(self, cluster: Cluster, children: Sequence[Child], port: int) -> None:
        # Imported late: it brings the HTTP client, which the start of the children need not wait for.
        from babysea_server.processes.quickstart import Quickstart, showcase

        dsn = cluster.dsn(self._settings.default_region)
        quickstart = Quickstart(self._settings, dsn, port, showcase(self._settings))
        await quickstart.prepare()
        for child in children:
            try:
                await asyncio.wait_for(child.ready.wait(), _CHILD_READY_S)
            except TimeoutError:
                raise StartError(
                    f"the {child.name} process has not become ready for {_CHILD_READY_S:g} s"
                ) from None
        await quickstart.first_generation()
        self._ready(quickstart.text())

    async def _watch_database(self, cluster: Cluster) -> None:
        """Start the embedded database again when it dies."""
        if cluster.embedded is None:
            await asyncio.Event().wait()
            return
        pause = _DATABASE_CHECK_S
        while True:
            await asyncio.sleep(pause)
            try:
                if await asyncio.to_thread(cluster.embedded.ensure_running):
                    _log.warning("postgres_restarted")
                pause = _DATABASE_CHECK_S
            except (EmbeddedPostgresError, OSError, subprocess.SubprocessError) as error:
                _log.warning("postgres_not_restarted_yet", error=str(error))
                pause = min(pause * 2, _DATABASE_PAUSE_MAX_S)


async def _predecessors_gone(family: int) -> None:
    """Wait for the processes of an `up` that was killed.

    Raises:
        StartError: they do not end.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _PREDECESSOR_S
    while not _try_lock(family):
        if loop.time() > give_up_at:
            raise StartError("processes of an earlier `babysea-server up` on this data folder do not end")
        await asyncio.sleep(0.1)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""One process that `up` keeps running."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from babysea_server.kit.tasks import end
from babysea_server.processes import systemd
from babysea_server.processes.faults import StartError
from babysea_server.processes.stopping import FAILED, GO, READY, SUPERVISED

_log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 0.1
_PAUSE_MAX_S = 10.0
#: Requests and work wait for a process that did work before it died.
_PAUSE_AFTER_WORK_MAX_S = 1.0
#: Having run for so long a process is no longer suspected to die at every start.
_HEALTHY_AFTER_S = 10.0
#: Deaths without a reason before the first readiness; then `up` gives up instead of trying for ever.
_EARLY_DEATHS_MAX = 3
_LAST_WORDS_S = 1.0


class Child:
    """Keeps one process of this machine running.

    Args:
        command: what follows `babysea-server`.
        pass_fds: file descriptors the process inherits.
        environment: what its environment has besides ours.
        run_dir: where `<name>.pid` holds the id of the running process.
        go: set when the process may open the databases; until then it loads its code.
        stop_s: how long it may take to end when it is told to; then it is killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        pass_fds: Sequence[int],
        environment: Mapping[str, str],
        run_dir: Path,
        go: asyncio.Event,
        stop_s: float,
    ) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self._command = command
        self._pass_fds = pass_fds
        inherited = {name: value for name, value in os.environ.items() if name not in systemd.VARIABLES}
        self._environment = {**inherited, **environment, SUPERVISED: "1"}
        self._pid_file = run_dir / f"{name}.pid"
        self._go = go
        self._stop_s = stop_s
        self._process: asyncio.subprocess.Process | None = None
        self._failure: str | None = None
        self._worked = False

    async def keep_running(self) -> None:
        """Run the process, and restart it with growing pauses; ends it when cancelled.

        Raises:
            StartError: it said why it cannot start, or died several times, before it was ever ready.
        """
        loop = asyncio.get_running_loop()
        pause, early_deaths = _FIRST_PAUSE_S, 0
        try:
            while True:
                started = loop.time()
                code = await self._run_once()
                if not self.ready.is_set():
                    early_deaths += 1
                    self._check_start(code, early_deaths)
                _log.warning("process_died", process=self.name, exit_code=code, reason=self._failure)
                if loop.time() - started > _HEALTHY_AFTER_S:
                    pause = _FIRST_PAUSE_S
                pause = min(pause, _PAUSE_AFTER_WORK_MAX_S if self._worked else _PAUSE_MAX_S)
                await asyncio.sleep(pause)
                pause *= 2
        finally:
            await self._terminate()
            self._pid_file.unlink(missing_ok=True)

    def _check_start(self, code: int | None, deaths: int) -> None:
        if self._failure is not None:
            raise StartError(f"the {self.name} process cannot start: {self._failure}")
        if deaths >= _EARLY_DEATHS_MAX:
            raise StartError(
                f"the {self.name} process ended {deaths} times before it was ready, at last with exit code {code}"
            )

    async def _run_once(self) -> int | None:
        """One life of the process; returns its exit code, or None if it could not be started."""
        self._failure, self._worked = None, False
        try:
            process = self._process = await self._spawn()
        except OSError as error:  # no memory, no process ids: it may pass
            self._failure = f"cannot be started: {error}"
            return None
        hearing = asyncio.create_task(self._hear(process))
        telling = asyncio.create_task(self._tell(process))
        try:
            code = await process.wait()
            await asyncio.wait({hearing}, timeout=_LAST_WORDS_S)
            return code
        finally:
            await end([hearing, telling])

    async def _spawn(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "babysea_server.cli",
            *self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self._pass_fds,
            env=self._environment,
            # Ctrl-C in a terminal goes to the whole group; the children are to be stopped by us, in order.
            start_new_session=True,
        )
        _log.info("process_started", process=self.name, pid=process.pid)
        fresh = self._pid_file.with_suffix(".new")
        fresh.write_text(f"{process.pid}\n")
        fresh.replace(self._pid_file)
        return process

    async def _tell(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        await self._go.wait()
        process.stdin.write(GO)

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            if line == READY:
                self._worked = True
                self.ready.set()
            elif line.startswith(FAILED):
                self._failure = line.removeprefix(FAILED).decode(errors="replace").strip()

    async def _terminate(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(process.wait()), self._stop_s)
        except TimeoutError:
            _log.warning("process_killed", process=self.name)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

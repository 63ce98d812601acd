"""When a process stops: at a signal, or when the supervisor that started it is gone.

A supervised process has two pipes to its supervisor. Standard input says "go" once the databases are open, and
ends when the supervisor does, however it ends. Standard output says "ready", or in one line why not.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from babysea_server.kit.tasks import end
from babysea_server.processes.faults import StoppedError
from babysea_server.processes.systemd import STOPPING, notify

_log = structlog.get_logger(__name__)

SUPERVISED = "BABYSEA_SUPERVISED"
GO = b"go\n"
READY = b"ready\n"
FAILED = b"failed "

#: How long a step of the start that is under way may still take after the process was told to stop.
_STEP_GRACE_S = 7.0
_REASON_MAX = 2000

Value = TypeVar("Value")


def is_supervised() -> bool:
    """Whether `up` started this process."""
    return os.environ.get(SUPERVISED) == "1"


def report_ready() -> None:
    """Tell the supervisor that this process works."""
    _report(READY)


def report_failure(reason: str) -> None:
    """Tell the supervisor why this process cannot start."""
    _report(FAILED + " ".join(reason.split())[:_REASON_MAX].encode() + b"\n")


def _report(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


class Stop:
    """Hears from its creation on that the process is to stop. Needs a running loop."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._go = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask)
        if is_supervised():
            loop.add_reader(sys.stdin.fileno(), self._read)
        else:
            self._go.set()

    @property
    def asked(self) -> bool:
        """Whether the process is to stop."""
        return self._asked.is_set()

    async def wait(self) -> None:
        """Return when the process is to stop."""
        await self._asked.wait()

    async def may_start(self) -> None:
        """Wait for the supervisor's word, where there is a supervisor.

        Raises:
            StoppedError
        """
        await self.starting(self._go.wait())

    async def starting(self, step: Coroutine[Any, Any, Value]) -> Value:
        """Do one step of the start and return its result.

        A step under way is not broken off but given some seconds: a database that was being started would be
        left behind running.

        Raises:
            StoppedError: told to stop meanwhile; whatever the step then raised came of that.
        """
        task = asyncio.ensure_future(step)
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            if self._asked.is_set():
                if self._go.is_set():
                    await asyncio.wait({task}, timeout=_STEP_GRACE_S)
                raise StoppedError
            return task.result()
        finally:
            await end([task, asked])

    def _ask(self) -> None:
        if not self._asked.is_set() and not is_supervised():
            _log.info("stopping")
            notify(STOPPING)
        self._asked.set()

    def _read(self) -> None:
        if os.read(sys.stdin.fileno(), len(GO)):
            self._go.set()
        else:
            # An ended pipe stays readable for ever: listening on would spin.
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._ask()

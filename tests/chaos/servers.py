"""Processes of a run: servers of ours that are brought back as a supervisor would, and those of others."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.e2e.system import Process

from babysea_server.kit.clock import Clock

_LOOK_EVERY_S = 0.05
_SAMPLE_EVERY_S = 1.0
_AGAIN_S = 0.3
#: A process that is told to stop does so within eight seconds, on a machine that has the time.
_STOP_S = 30.0
#: Below those that the kernel gives to outgoing connections: a port stays free while its server is away.
_PORTS = range(20_000, 32_000)


def quiet_port(chance: Random) -> int:
    """A port of the loopback address that nobody uses and no connection will be given."""
    while True:
        port = chance.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


class Command(Process):
    """A started `babysea-server` command."""

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._popen.returncode


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at a moment; `age_s` since it was ready."""

    age_s: float
    resident_bytes: int


@dataclass(slots=True)
class Life:
    """One process from its start to its end."""

    process: Command
    ready_at: float | None = None
    samples: list[Sample] = field(default_factory=list)
    told: signal.Signals | None = None
    """The last signal that it got from us and that ends it."""

    def sample(self, now: float) -> None:
        """Look at it, if it is ready and alive."""
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            resident = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
            if self.ready_at is not None:
                self.samples.append(Sample(now - self.ready_at, resident))


class Server:
    """One place for an API or worker process: whoever dies there is replaced.

    Args:
        ready: what a process says when it serves.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        logs: Path,
        ready: str,
        clock: Clock,
    ) -> None:
        self.name = name
        self.lives: list[Life] = []
        self.complaints: list[str] = []
        """What it did that nobody asked it for."""
        self.false_starts = 0
        """Processes that gave up before they served, because what they need was away."""
        self._arguments = arguments
        self._environment = environment
        self._logs = logs
        self._ready = ready
        self._clock = clock
        self._over = False

    @property
    def life(self) -> Life:
        """The present process."""
        return self.lives[-1]

    @property
    def serving(self) -> bool:
        """Whether the present process has said that it serves."""
        return bool(self.lives) and self.life.ready_at is not None and self.life.process.running

    async def keep(self) -> None:
        """Start it, and again whenever it ends, until cancelled."""
        while not self._over:
            life = Life(Command(self._arguments, self._environment, self._logs))
            self.lives.append(life)
            await self._watch(life)
            self._judge(life)
            await self._clock.sleep(_AGAIN_S)

    async def _watch(self, life: Life) -> None:
        sampled_at = 0.0
        while life.process.running:
            now = self._clock.monotonic()
            if life.ready_at is None and self._ready in life.process.out:
                life.ready_at = now
            if now - sampled_at >= _SAMPLE_EVERY_S:
                life.sample(now)
                sampled_at = now
            await self._clock.sleep(_LOOK_EVERY_S)

    def _judge(self, life: Life) -> None:
        code = life.process.code
        if life.told is signal.SIGTERM and code != 0:
            self.complaints.append(f"{self.name} was asked to stop and ended with {code}")
        elif life.told is None and life.ready_at is not None:
            self.complaints.append(f"{self.name} ended by itself with {code}")
        elif life.told is None:
            self.false_starts += 1

    def send(self, number: signal.Signals) -> bool:
        """A signal to the present process; False when there is none that serves."""
        if not self.serving:
            return False
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.life.told = number
        self.life.process.send(number)
        return True

    async def stop(self) -> None:
        """End it for good, as its operator would; call when `keep` is cancelled."""
        self._over = True
        if not self.lives or not self.life.process.running:
            return
        life = self.life
        life.told = signal.SIGTERM
        life.process.send(signal.SIGTERM)
        deadline = self._clock.monotonic() + _STOP_S
        while life.process.running and self._clock.monotonic() < deadline:
            await self._clock.sleep(_LOOK_EVERY_S)
        if life.process.running:
            self.complaints.append(f"{self.name} did not stop within {_STOP_S:.0f} s")
        else:
            self._judge(life)

    def end(self) -> None:
        """SIGKILL, whatever it does."""
        self._over = True
        for life in self.lives:
            life.process.end()


class Helper:
    """A process that is not ours, started by a command; it can be killed and started again."""

    def __init__(self, arguments: Sequence[str], logs: Path, name: str, port: int, clock: Clock) -> None:
        self._arguments = arguments
        self._log = logs / f"{name}.log"
        self._port = port
        self._clock = clock
        self._popen: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, unless it runs, and wait until it listens.

        Raises:
            AssertionError: it ended by itself instead.
        """
        if self._popen is not None:
            return
        started = self._spawn()
        while self._is(started) and not await self._listens():
            gone = started.poll() is not None and self._is(started)
            assert not gone, f"{self._arguments[:3]} ended: {self._log.read_text()[-2000:]}"
            await self._clock.sleep(_LOOK_EVERY_S)

    def _is(self, started: "subprocess.Popen[bytes]") -> bool:
        """Whether it is still the one that was started: it may be killed at any moment."""
        return self._popen is started

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
            self._popen = subprocess.Popen(
                self._arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        return self._popen

    def kill(self) -> None:
        """SIGKILL."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
            self._popen = None

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        return True


def redis_server(folder: Path, port: int, clock: Clock) -> Helper:
    """A redis-server that keeps nothing on disk."""
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    return Helper(["redis-server", *options], folder, "redis", port, clock)


def bucket_server(folder: Path, objects: Path, port: int, clock: Clock) -> Helper:
    """A server that speaks S3 and keeps its objects in a folder."""
    options = ["--folder", str(objects), "--port", str(port)]
    return Helper([sys.executable, "-m", "tests.emulators.s3", *options], folder, "storage", port, clock)

"""The command line as a user meets it: arguments and environment in, streams or a screen and an exit code out."""

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyte
from tests.support import eventually

#: Changes of environment variables; None takes one away.
Environment = Mapping[str, str | None]

PATIENCE_S = 60.0
ROWS = 40

_END = b"\x1b]0;end\x07"  # the title of a window


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal:
    """A command in a terminal of its own: what it shows, and what is typed."""

    def __init__(self, main: int, columns: int) -> None:
        self.columns = columns
        self.raw = b""
        self.pid = 0
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._main = main
        self._screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.ByteStream(self._screen)

    def read(self) -> None:
        data = os.read(self._main, 65536)
        self.raw += data
        # Pictures are not for this screen; a real terminal takes them out likewise.
        self._stream.feed(data)

    @property
    def rows(self) -> list[str]:
        """The screen, without what is empty."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def text(self) -> str:
        """The screen in one line."""
        return " ".join(" ".join(self.rows).split())

    async def shows(self, text: str) -> None:
        """Wait until the screen shows this, wherever its lines break."""

        async def shown() -> bool:
            if text in self.text:
                return True
            assert not self.code.done(), f"ended with {self.code.result()}: {self.text}"
            return False

        await eventually(shown, within_s=PATIENCE_S)

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.type("\x03")

    async def ended(self) -> int:
        """Wait for its end and for all that it wrote; returns the exit code."""
        return await asyncio.wait_for(asyncio.shield(self.code), PATIENCE_S)


class Warm:
    """The process that commands are forked from, and what it answers, by the number of the command.

    A command that a test gave up on may be answered for later: nobody takes that for the answer of another.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._number = 0
        self._answers: dict[tuple[int, str], int] = {}

    async def start(self, job: dict[str, Any]) -> tuple[int, int]:
        """Start a command; its number and its process id."""
        assert self.process.stdin is not None
        self._number += 1
        number = self._number
        self.process.stdin.write(json.dumps(job | {"number": number}).encode() + b"\n")
        pid = await self.answer(number, "pid")
        assert pid > 1
        return number, pid

    async def answer(self, number: int, kind: str) -> int:
        """The process id or the exit code of a command. One asks at a time: commands run one after the other."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while (number, kind) not in self._answers:
                line = await self.process.stdout.readline()
                assert line, "the warm process has ended"
                of, what, value = line.split()
                self._answers[int(of), what.decode()] = int(value)
        return self._answers[number, kind]


class Program:
    """Runs `babysea` in one folder, with logins and caches of its own."""

    def __init__(self, warm: Warm, folder: Path, key: str, base_url: str) -> None:
        self._warm = warm
        self._number = 0
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "TERM": "xterm-256color",
            "BABYSEA_API_KEY": key,
            "BABYSEA_BASE_URL": base_url,
        }

    def _job(self, arguments: tuple[str, ...], environment: Environment | None) -> dict[str, Any]:
        changed = {**self.environment, **(environment or {})}
        return {
            "arguments": arguments,
            "environment": {name: value for name, value in changed.items() if value is not None},
            "folder": str(self.folder),
        }

    async def __call__(
        self, *arguments: str, stdin: str = "", environment: Environment | None = None
    ) -> Result:
        """Run a command with its streams in files."""
        async with self.started(*arguments, stdin=stdin, environment=environment) as running:
            return await running.ended()

    @asynccontextmanager
    async def started(
        self, *arguments: str, stdin: str = "", environment: Environment | None = None
    ) -> AsyncIterator["Running"]:
        """A command that runs, with its streams in files."""
        self._number += 1
        names = {name: self.folder / f".{self._number}.{name}" for name in ("stdin", "stdout", "stderr")}
        names["stdin"].write_text(stdin)
        job = self._job(arguments, environment) | {name: str(path) for name, path in names.items()}
        running = Running(self._warm, *await self._warm.start(job), names["stdout"], names["stderr"])
        try:
            yield running
        finally:
            if running.result is None:
                with suppress(ProcessLookupError):
                    os.kill(running.pid, signal.SIGKILL)
                await self._warm.answer(running.number, "code")

    @asynccontextmanager
    async def terminal(
        self, *arguments: str, columns: int = 100, environment: Environment | None = None
    ) -> AsyncIterator[Terminal]:
        """A command in a terminal so many columns wide."""
        main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        loop = asyncio.get_running_loop()
        terminal = Terminal(main, columns)
        loop.add_reader(main, terminal.read)
        job = self._job(arguments, environment) | {"terminal": os.ttyname(side)}
        number, terminal.pid = await self._warm.start(job)

        async def end() -> None:
            code = await self._warm.answer(number, "code")
            os.write(side, _END)  # comes after all that the command wrote

            async def drained() -> bool:
                return terminal.raw.endswith(_END)

            await eventually(drained)
            terminal.code.set_result(code)

        ending = asyncio.create_task(end())
        try:
            yield terminal
        finally:
            if not terminal.code.done():
                with suppress(ProcessLookupError):
                    os.kill(terminal.pid, signal.SIGKILL)
            await ending
            loop.remove_reader(main)
            os.close(main)
            os.close(side)


class Running:
    """A command that was started."""

    def __init__(self, warm: Warm, number: int, pid: int, out: Path, err: Path) -> None:
        self._warm = warm
        self.number = number
        self._out, self._err = out, err
        self.pid = pid
        self.result: Result | None = None

    @property
    def err(self) -> str:
        """What it has written to standard error."""
        return self._err.read_text() if self._err.exists() else ""

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def ended(self) -> Result:
        code = await self._warm.answer(self.number, "code")
        self.result = Result(code, self._out.read_text(), self._err.read_text())
        assert "Traceback" not in self.result.out + self.result.err, self.result
        return self.result


async def warm() -> Warm:
    """Start the process that commands are forked from."""
    return Warm(
        await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("warm.py")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
    )

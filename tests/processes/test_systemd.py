"""A service of `Type=notify`: what systemd is told, by real processes, on a socket as systemd's."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from babysea_server.processes.systemd import ALIVE, READY, STOPPING, notify, watchdog

PATIENCE_S = 60.0
COMMANDS = {
    "api": ("api", "--port", "0"),
    "console": ("console", "--port", "0"),
    "worker": ("worker",),
    "up": ("up", "--port", "0"),
}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


async def heard(manager: socket.socket) -> str:
    """What is said next."""
    async with asyncio.timeout(PATIENCE_S):
        return (await asyncio.get_running_loop().sock_recv(manager, 100)).decode()


@asynccontextmanager
async def service(
    command: tuple[str, ...], manager: socket.socket, folder: Path, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A started command, as systemd starts it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "babysea_server.cli", *command, "--data-dir", str(folder / "data")),
        env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": manager.getsockname(), **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_service_says_that_it_is_ready_alive_and_stopping(
    command: str, dsn: str, manager: socket.socket, tmp_path: Path
) -> None:
    own = {} if command == "up" else {"DATABASE_URL_US": dsn}
    told = {"WATCHDOG_USEC": "150000", "BABYSEA_REGIONS": "us", "BABYSEA_DEFAULT_REGION": "us", **own}
    async with service(COMMANDS[command], manager, tmp_path, **told) as process:
        said = [await heard(manager)]
        while said[-1] != READY:
            said.append(await heard(manager))
        assert set(said[:-1]) <= {ALIVE}
        # It goes on saying so, and nothing else: not even what its children would say.
        assert {await heard(manager) for _ in range(3)} == {ALIVE}
        process.send_signal(signal.SIGTERM)
        while (last := await heard(manager)) == ALIVE:
            pass
        assert last == STOPPING
        await process.communicate()
        assert process.returncode == 0


async def test_killed_by_the_watchdog_it_says_where_it_stood(
    dsn: str, manager: socket.socket, tmp_path: Path
) -> None:
    told = {"DATABASE_URL_US": dsn, "BABYSEA_REGIONS": "us", "BABYSEA_DEFAULT_REGION": "us"}
    async with service(COMMANDS["worker"], manager, tmp_path, **told) as process:
        assert await heard(manager) == READY
        process.send_signal(signal.SIGABRT)
        _, errors = await process.communicate()
        assert process.returncode == -signal.SIGABRT
        assert b"Current thread" in errors


async def test_without_a_limit_nothing_is_said(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    for variables in ({}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}):
        with monkeypatch.context() as environment:
            for name, value in variables.items():
                environment.setenv(name, value)
            with watchdog():
                await asyncio.sleep(0)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_a_socket_of_the_abstract_name_space(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + listening.getsockname()[1:].decode())
        notify(READY)
        assert listening.recv(100).decode() == READY


def test_a_manager_that_is_gone_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nowhere"))
    notify(READY)

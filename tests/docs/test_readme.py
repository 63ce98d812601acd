"""The README's first requests, pasted against a running `babysea-server up`."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.docs.pages import blocks, page

_WITHIN_S = 120


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """A folder like the repository's after `make up`: the server runs, its data is in `.data`."""
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "babysea_server.cli",
        *("up", "--data-dir", str(tmp_path / ".data"), "--port", "0", "--region", "us"),
        stdout=subprocess.PIPE,
        env={**os.environ, "BABYSEA_SANDBOX_LATENCY_S": "0.1", "BABYSEA_SANDBOX_IMAGE_EDGE": "128"},
    )
    assert server.stdout is not None
    try:
        async with asyncio.timeout(_WITHIN_S):
            while b"Ctrl-C stops" not in (line := await server.stdout.readline()):
                assert line, "the server ended before it was ready"
        yield tmp_path
    finally:
        if server.returncode is None:
            server.send_signal(signal.SIGTERM)
        await asyncio.wait_for(server.wait(), _WITHIN_S)


async def _run(*command: str, folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), _WITHIN_S)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_the_first_requests_work_as_they_are_written(folder: Path) -> None:
    text = page("README.md")
    (shell,) = [block for block in blocks(text, "sh") if "curl" in block]
    (command,) = [block for block in blocks(text, "sh") if "babysea image" in block]
    (program,) = blocks(text, "python")
    answer = await _run("bash", "-euo", "pipefail", "-c", shell, folder=folder)
    assert '"generation_status":"succeeded"' in answer
    assert (await _run(sys.executable, "-c", program, folder=folder)).startswith("succeeded ")
    assert b"ftyp" in (folder / "waves.mp4").read_bytes()[:12]
    (folder / ".venv").symlink_to(sys.prefix)
    await _run("bash", "-euo", "pipefail", "-c", shell + command, folder=folder)
    assert (folder / "fox.jpg").read_bytes().startswith(b"\xff\xd8")

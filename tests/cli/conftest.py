"""The command line as a user meets it: arguments and environment in, output and exit code out."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from babysea_server.db.embedded import EmbeddedPostgres


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


class Commands:
    """Runs `babysea-server`, each time in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self, *arguments: str, environment: dict[str, str] | None = None, stdout: str = ""
    ) -> Result:
        self._number += 1
        out, err = (self._folder / f"{self._number}.{name}" for name in ("out", "err"))
        job = {
            "arguments": arguments,
            "environment": {"PATH": os.environ["PATH"], **(environment or {})},
            "folder": str(self._folder),
            "stdout": stdout or str(out),
            "stderr": str(err),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        result = Result(code, "" if stdout else out.read_text(), err.read_text())
        assert "Traceback" not in result.out + result.err, result
        return result

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.close()


class Installation:
    """A data directory whose embedded server runs, and commands on it."""

    def __init__(self, commands: Commands, data_dir: Path) -> None:
        self._commands = commands
        self.data_dir = data_dir

    def __call__(self, *arguments: str, **options: Any) -> Result:
        """Run a command on this data directory."""
        return self._commands(*arguments, "--data-dir", str(self.data_dir), **options)

    def json(self, *arguments: str) -> Any:
        """What a command answers to programs."""
        return self(*arguments, "--json").json

    def account(self, name: str = "A", region: str = "us") -> str:
        created = self.json("accounts", "create", "--name", name, "--region", region)
        return str(created["account_id"])


@pytest.fixture(scope="session")
def installation(commands: Commands, postgres: EmbeddedPostgres) -> Installation:
    return Installation(commands, postgres.data_dir)

"""Runs `babysea` quickly: imports it once, then forks a real process for each command, one after the other.

Reads one JSON object a line (`number`, `arguments`, `environment`, `folder`, and either `terminal` or `stdin`, `stdout`
and `stderr`) and answers with two lines: the number with the command's process id, and with its exit code.
"""

import io
import json
import os
import signal
import sys
import tempfile
import traceback
from contextlib import redirect_stdout, suppress
from typing import Any

from babysea import BabySea, NetworkError
from babysea.cli import app, main


def import_all() -> None:
    """What is imported only when it is needed, which is always."""
    with tempfile.TemporaryDirectory() as home, redirect_stdout(io.StringIO()):
        os.environ["HOME"] = home
        app.run(["profiles", "--json"])
    with (
        suppress(NetworkError),
        BabySea("bye_nobody", base_url="http://127.0.0.1:1", max_retries=0) as client,
    ):
        client.status()


def attach(job: dict[str, Any]) -> None:
    """Connect the standard streams as a shell does."""
    os.setsid()
    # Who runs the tests in the background may have Ctrl-C ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if terminal := job.get("terminal"):
        # The first terminal that the leader of a session opens is its own: Ctrl-C there is a signal here.
        for number in (0, 1, 2):
            os.dup2(os.open(terminal, os.O_RDWR), number)
    else:
        new = os.O_WRONLY | os.O_CREAT
        for number, name, mode in ((0, "stdin", os.O_RDONLY), (1, "stdout", new), (2, "stderr", new)):
            os.dup2(os.open(job[name], mode), number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1, closefd=False)


def run(job: dict[str, Any]) -> int:
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    attach(job)
    sys.argv = ["babysea", *job["arguments"]]
    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 70
    finally:
        sys.stdout.flush()
    return 0


def answer(number: int, kind: str, value: int) -> None:
    sys.stdout.write(f"{number} {kind} {value}\n")
    sys.stdout.flush()


def serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(run(job))
        answer(job["number"], "pid", child)
        answer(job["number"], "code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


import_all()
serve()

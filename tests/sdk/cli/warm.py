"""Runs `babysea` quickly: imports it once, then forks a real process for each command, one after the other.

Reads one JSON object a line (`arguments`, `environment`, `folder`, and either `terminal` or `stdin`, `stdout`, `stderr`)
and answers with two lines: the command's process id, and its exit code.
"""

import json
import os
import sys
import traceback
from typing import Any

import babysea._driver
import babysea.cli.app
from babysea.cli import main

PRELOADED = (babysea._driver, babysea.cli.app)


def attach(job: dict[str, Any]) -> None:
    """Connect the standard streams as a shell does."""
    os.setsid()
    if terminal := job.get("terminal"):
        # The first terminal that the leader of a session opens is its own: Ctrl-C there is a signal here.
        for number in (0, 1, 2):
            os.dup2(os.open(terminal, os.O_RDWR), number)
    else:
        new = os.O_WRONLY | os.O_CREAT
        for number, name, mode in ((0, "stdin", os.O_RDONLY), (1, "stdout", new), (2, "stderr", new)):
            os.dup2(os.open(job[name], mode), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)


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


def answer(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def serve() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(run(json.loads(line)))
        answer(child)
        answer(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


serve()

"""Runs commands quickly: imports the command line once, then forks a real process for each command.

Reads one JSON object a line (`arguments`, `environment`, `folder`, `stdout`, `stderr`) and answers with the
command's exit code.
"""

import json
import os
import sys
import traceback
from typing import Any

import babysea_server.app.api
import babysea_server.app.workers
import babysea_server.db.migrate
from babysea_server.cli.main import main

PRELOADED = (babysea_server.app.api, babysea_server.app.workers, babysea_server.db.migrate)


def run(job: dict[str, Any]) -> int:
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    for number, target in ((0, os.devnull), (1, job["stdout"]), (2, job["stderr"])):
        os.dup2(
            os.open(target, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_NOCTTY), number
        )
    sys.argv = ["babysea-server", *job["arguments"]]
    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def serve() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = run(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


serve()

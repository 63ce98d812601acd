"""What a line of the log is: of which process, of which format, and the same for what libraries write."""

import json
import os
import pty
import subprocess
import sys

SCRIPT = """\
import logging, warnings, structlog, sys
from babysea_server.telemetry.logs import configure_logging, name_process
configure_logging(format="auto", level="info")
used_before = structlog.get_logger("a")
used_before.info("before")
name_process("worker")
structlog.contextvars.bind_contextvars(request_id="req_1")
used_before.info("after", count=3)
structlog.get_logger("b").info("up", process="api")
logging.getLogger("uvicorn.error").error("it %s", "broke", extra={"token": "hunter2"})
logging.getLogger("aiohttp.server").info("too quiet")
try:
    raise LookupError("the reason")
except LookupError:
    logging.getLogger("asyncio").exception("failed")
warnings.warn("old ways")
"""


def test_beside_a_terminal_every_line_is_json_also_those_of_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["event"], line["level"]) for line in lines[:4]] == [
        ("before", "info"),
        ("after", "info"),
        ("up", "info"),
        ("it broke", "error"),
    ]
    assert [line.get("process") for line in lines] == [None, "worker", "api", "worker", "worker", "worker"]
    assert {line["request_id"] for line in lines[1:]} == {"req_1"}
    assert [line["logger"] for line in lines[3:]] == ["uvicorn.error", "asyncio", "py.warnings"]
    assert "the reason" in lines[4]["exception"]
    assert "old ways" in lines[5]["event"]
    assert "hunter2" not in done.stderr


def test_on_a_terminal_lines_are_for_people() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        subprocess.run([sys.executable, "-c", SCRIPT], stderr=theirs, check=True)
        os.close(theirs)
        seen = screen.read(65536).decode()
    assert "before" in seen
    assert "worker" in seen
    assert '{"' not in seen

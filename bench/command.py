"""What every command of `bench` does once its arguments are read."""

import sys
from collections.abc import Coroutine
from typing import Any

import uvloop

from babysea_server.telemetry.logs import configure_logging


def tell(measurement: Coroutine[Any, Any, str]) -> int:
    """Run it and print its table; the exit code: 1 when it says that its figures do not stand."""
    configure_logging(format="console", level="warning")
    try:
        sys.stdout.write(f"{uvloop.run(measurement)}\n")
    except RuntimeError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    return 0

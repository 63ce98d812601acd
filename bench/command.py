"""What every command of `bench` does once its arguments are read."""

import argparse
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


def turns(program: str, about: str | None) -> argparse.Namespace:
    """The options of a command that compares the API with itself in turns: `rounds`, `seconds`, `connections`."""
    parser = argparse.ArgumentParser(prog=program, description=about)
    parser.add_argument("--rounds", type=int, default=9, help="(9)")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of each measurement (2)")
    parser.add_argument("--connections", type=int, default=64, help="(64)")
    return parser.parse_args()
